"""Store the scans on which a run has trained, and find validation cases whose scans a model was trained on.

A model's training scans are known if the model lies in the folder of its run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..cases.case_list import LABELLED, VALIDATION, Case, list_cases, used_cases
from ..cases.case_scans import read_case_scan
from ..cases.checks import ScanUses, scan_checksum
from ..errors import InputError, shell_argument
from ..io.atomic import write_text
from ..io.dicom_files import list_names
from ..io.typed_json import parse_json, value_of
from ..models.package import read_recipe
from .folder import RunFolder


@dataclass(frozen=True)
class TrainedScan:
    """A scan on which a run has trained.

    Attributes:
        name: the name of the scan's case.
        image: the scan's path, as in the run's case list during the training.
        checksum: the `scan_checksum`; empty if unknown, since earlier versions stored no checksums.
    """

    name: str
    image: str
    checksum: str = ""


def write_trained_scans(run: RunFolder, scans: Iterable[TrainedScan]) -> None:
    """Write the run's file `trained_scans`. Raises OutputError if the file cannot be written."""
    write_text(run.trained_scans, json.dumps([asdict(scan) for scan in scans], indent=2))


def read_trained_scans(run: RunFolder) -> tuple[TrainedScan, ...] | None:
    """Return the scans in the run's file `trained_scans`; None if the file does not exist.

    Raises:
        InputError: the file is damaged, or cannot be read.
    """
    try:
        stored = parse_json(run.trained_scans.read_text(encoding="utf-8"))
        scans: tuple[TrainedScan, ...] = value_of(stored, tuple[TrainedScan, ...], None, "scans")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, InputError) as error:
        remedy = f"Delete this file, so that the training cases in {run.cases.name} are compared instead."
        raise InputError(f"cannot be read ({error})", path=run.trained_scans, remedy=remedy) from error
    return scans


def find_trained_scans(
    cases: Sequence[Case], model: Path, progress: Callable[[float], None], on_note: Callable[[str], None]
) -> Iterator[tuple[Case, InputError]]:
    """Yield each validation case whose scan a model was trained on, with the error that names the training case.

    Nothing is yielded if the model lies outside of its run's folder.

    Args:
        progress: called with the fraction of the work that is done.
        on_note: called with a note if training scans cannot be read.

    Raises:
        InputError: the file `trained_scans` or the case list of the model's run, or the model's recipe, cannot be read.
    """
    trained, listed = _trained_cases(RunFolder(model.parent))
    validation_cases = [case for case in cases if case.role == VALIDATION]
    if not trained or not validation_cases:
        return
    recipe = read_recipe(model, for_training=False)
    compared = [*trained, *((case, "") for case in validation_cases)]
    uses = ScanUses()
    unread = 0
    for index, (case, known_checksum) in enumerate(compared):
        progress(index / len(compared))
        try:
            checksum = known_checksum or scan_checksum(read_case_scan(case.image, recipe))
        except InputError:
            unread += index < len(trained)
            continue
        try:
            uses.add(case, checksum)
        except InputError as error:
            yield case, error
    if unread:
        what = (
            f"{unread} of {len(trained)} training scans could not be read, so these scans were not compared with the"
            " validation scans"
        )
        command = f"dcamt cases check CASES.csv --start-from {shell_argument(model)}"
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


def _trained_cases(run: RunFolder) -> tuple[list[tuple[Case, str]], Path]:
    """Return the training cases of a run, each with its `scan_checksum`, and the file that lists the cases.

    An unknown checksum is empty. If the folder contains no run, there are no cases.
    """
    if not run.recipe.exists():
        return [], run.cases
    scans = read_trained_scans(run)
    if scans is not None:
        cases = [Case(scan.name, run.path / scan.image, None, LABELLED) for scan in scans]
        return [(case, scan.checksum) for case, scan in zip(cases, scans, strict=True)], run.trained_scans
    if not run.cases.exists():
        return [], run.cases
    return [(case, "") for case in used_cases(list_cases(run.cases)) if case.role != VALIDATION], run.cases
