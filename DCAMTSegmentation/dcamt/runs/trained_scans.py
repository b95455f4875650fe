"""Find validation cases whose scans a model was trained on, if the model lies in the folder of its run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..cases.case_list import VALIDATION, Case, list_cases, used_cases
from ..cases.case_scans import read_case_scan
from ..cases.checks import ScanUses
from ..errors import InputError, shell_argument
from ..io.dicom_files import list_names
from ..models.package import read_recipe
from .folder import RunFolder


def find_trained_scans(
    cases: Sequence[Case], model: Path, progress: Callable[[float], None], on_note: Callable[[str], None]
) -> Iterator[tuple[Case, InputError]]:
    """Yield each validation case whose scan a model was trained on, with the error that names the training case.

    Nothing is yielded if the model lies outside of its run's folder.

    Args:
        progress: called with the fraction of the work that is done.
        on_note: called with a note if training scans cannot be read.

    Raises:
        InputError: the case list or the recipe of the model's run cannot be read.
    """
    trained, validation_cases = _trained_cases(model), [case for case in cases if case.role == VALIDATION]
    if not trained or not validation_cases:
        return
    recipe = read_recipe(model, for_training=False)
    compared = [*trained, *validation_cases]
    uses = ScanUses(compared)
    unread = 0
    for index, case in enumerate(compared):
        progress(index / len(compared))
        try:
            volume = read_case_scan(case.image, recipe)
        except InputError:
            unread += index < len(trained)
            continue
        try:
            uses.add(case, volume)
        except InputError as error:
            yield case, error
    if unread:
        what = (
            f"{unread} of {len(trained)} training scans could not be read, so these scans were not compared with the"
            " validation scans"
        )
        command = f"dcamt cases check CASES.csv --start-from {shell_argument(model)}"
        listed = RunFolder(model.parent).cases
        remedy = (
            f"If a validation scan may be one of these training scans, correct the paths in {listed} and run: {command}"
        )
        on_note(f"{listed}: {what}. {remedy}")


def note_trained_scans(
    cases: Sequence[Case], model: Path, progress: Callable[[float], None], on_note: Callable[[str], None]
) -> None:
    """Call `on_note` with a note that names the cases of `find_trained_scans`, or with the error that it raises."""
    try:
        names = [case.name for case, _ in find_trained_scans(cases, model, progress, on_note)]
    except InputError as error:
        on_note(f"{error} So the validation scans were not compared with the training scans of {model}.")
        return
    if names:
        on_note(
            f"{model}: was trained on the scans of these validation cases: {list_names(names)}. Their Dice does not"
            " show the accuracy on new scans. Leave these cases out, or start from another model."
        )


def _trained_cases(model: Path) -> list[Case]:
    run = RunFolder(model.parent)
    if model not in (run.model, run.best) or not (run.recipe.exists() and run.cases.exists()):
        return []
    return [case for case in used_cases(list_cases(run.cases)) if case.role != VALIDATION]
