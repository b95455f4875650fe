"""Write the report and the validation table of a run that has a model."""

from __future__ import annotations

import csv
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..cases.case_list import VALIDATION, Case, count_roles
from ..cases.uncorrected_labels import with_uncorrected_label
from ..errors import InputError
from ..io.atomic import write_text
from ..io.dicom_files import list_names
from ..metrics.evaluation import Evaluation, summarize_rows
from ..models.package import Card
from ..runs.events import RunEvent, RunStarted, TrainingProgress, ValidationScored
from ..runs.folder import RunFolder
from .charts import Line
from .run_report_html import Picture, RunReport, render_run_report, shows_scores
from .scored_cases import ScoredCase, pick_best_median_worst, score_cases

if TYPE_CHECKING:
    import torch

_ROLE_NAMES = {"labelled": "Labelled cases", "unlabelled": "Unlabelled cases", "validation": "Validation cases"}


def write_run_report(
    run: RunFolder,
    device: torch.device,
    progress: Callable[[int, int], None],
    on_warning: Callable[[str], None],
) -> Path:
    """Score the run's model on its validation cases; write `report.html` and `validation.csv` into the run folder.

    Returns the path of the report. If no validation case is scored, no table is written. The table names the cases;
    the report only numbers them.

    Args:
        progress: as in `score_cases`.
        on_warning: as in `score_cases`; also called if the run folder already holds a table `validation.csv` with cases
            that are no longer validation cases. The message names these cases.

    Raises:
        InputError: the run or its model does not exist or cannot be used, a validation case cannot be segmented, the
            memory is too small, or the report would lack earlier scores (see `_refuse_lost_scores`).
        OutputError: a file cannot be written.
    """
    from ..inference.predictor import Predictor
    from ..networks.packaging import verify_model

    recipe, cases = run.open(roles_with_files=())
    package = verify_model(run.model)
    validation_cases = [case for case in cases if case.role == VALIDATION]
    scored = score_cases(validation_cases, Predictor(package, device), progress, on_warning)
    earlier = _cases_in_table(run.validation)
    _refuse_lost_scores(run, earlier, validation_cases, scored)
    removed = earlier - {case.name for case in validation_cases}
    if removed:
        on_warning(
            "the report leaves out earlier scores, since their cases are no longer validation cases"
            f" ({list_names(sorted(removed))}). To score these cases, list them as validation cases in {run.cases}"
            " again."
        )
    if scored:
        summarize_rows([row for case in scored for row in case.rows]).write_csv(run.validation)
    events = run.read_events()
    losses, dice = collect_curves(events, several_classes=len(recipe.classes) > 1)
    report = RunReport(
        recipe,
        list_facts(package.card, cases, events),
        losses,
        dice,
        anonymise_scores(scored) if scored else None,
        len(validation_cases) - len(scored),
        choose_pictures(scored),
        list_versions(),
    )
    write_text(run.report, render_run_report(report))
    return run.report


def _refuse_lost_scores(run: RunFolder, earlier: set[str], cases: Sequence[Case], scored: Sequence[ScoredCase]) -> None:
    """Raise InputError if a new table and report would lose existing scores, which happens in two situations:

    - `scored` is not empty, and one of `cases` is in the run's existing table, but missing in `scored`;
    - `scored` is empty, and the run's existing table or report has scores.

    Args:
        earlier: the names of the cases in the existing table.
    """
    unscored = {case.name for case in cases} - {row.case for case in scored for row in case.rows}
    if scored:
        lost = unscored & earlier
        is_refused = bool(lost)
    else:
        lost = unscored | earlier
        is_refused = bool(earlier) or shows_scores(run.report)
    if is_refused:
        names = f" ({list_names(sorted(lost))})" if lost else ""
        what = f"no report was written, since it would lack earlier scores{names}"
        remedy = (
            "Make the cases' scans and labels readable again, and list these cases as validation cases. Otherwise, move"
            f" {run.report.name} and {run.validation.name} to another folder."
        )
        raise InputError(what, path=run.path, remedy=remedy)


def _cases_in_table(path: Path) -> set[str]:
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            return {row.get("case") or "" for row in csv.DictReader(file)} - {"", "mean", "std"}
    except (OSError, csv.Error):
        return set()


def list_facts(card: Card, cases: Sequence[Case], events: Sequence[RunEvent]) -> dict[str, str]:
    """Return facts about the run and its model, such as classes and iterations, as texts by name.

    The card gives the numbers of cases. If the card lacks these numbers, `cases` are counted.
    """
    lines = {"Segments": ", ".join(card.segments), "Modality": card.modality, "Made on": card.created}
    counts = {role: card.trained_on.get(role, count) for role, count in count_roles(cases).items()}
    lines |= {_ROLE_NAMES[role]: str(count) for role, count in counts.items()}
    if uncorrected := len(with_uncorrected_label(cases, VALIDATION)):
        lines["Validation labels that are uncorrected results of DCAMT"] = str(uncorrected)
    lines["Iterations"] = str(card.trained_on.get("iterations", "unknown"))
    lines["Hours of training"] = str(card.trained_on.get("hours", "unknown"))
    devices = [event.device for event in events if isinstance(event, RunStarted) and event.device]
    if devices:
        lines["Computed on"] = ", ".join(dict.fromkeys(devices))
    origin = card.trained_on.get("started_from")
    lines["Started from"] = f"the model '{origin['title']}'" if isinstance(origin, dict) else "random weights"
    lines["Licence"] = card.licence
    lines["Model's checksum"] = card.checksum
    return lines


def collect_curves(events: Sequence[RunEvent], several_classes: bool) -> tuple[dict[str, Line], dict[str, Line]]:
    """Return the losses and the validation Dice, as lines of (iteration, value) by name.

    If the task has `several_classes`, the Dice of single branches is omitted. If a resumed run trained some iterations
    a second time, their first values are omitted.
    """
    losses: dict[str, dict[int, float]] = {}
    dice: dict[str, dict[int, float]] = {}
    for event in events:
        if isinstance(event, RunStarted):
            for line in (*losses.values(), *dice.values()):
                for later in [at for at in line if at > event.iteration]:
                    del line[later]
        elif isinstance(event, TrainingProgress):
            for name, value in event.losses.items():
                losses.setdefault(name, {})[event.iteration] = value
        elif isinstance(event, ValidationScored):
            for branch, by_class in event.dice.items():
                if several_classes and branch != "mean":
                    continue
                who = "both branches" if branch == "mean" else f"branch {branch}"
                for name, value in by_class.items():
                    key = f"{name}, {who}" if several_classes else who
                    dice.setdefault(key, {})[event.iteration] = value
    return ({n: list(line.items()) for n, line in losses.items()}, {n: list(line.items()) for n, line in dice.items()})


def anonymise_scores(scored: Sequence[ScoredCase]) -> Evaluation:
    """Return the scores with the cases renamed to "case 1", "case 2", ..."""
    return summarize_rows(
        [replace(row, case=f"case {n}") for n, case in enumerate(scored, start=1) for row in case.rows]
    )


def choose_pictures(scored: Sequence[ScoredCase]) -> list[Picture]:
    """Return the pictures of the cases that `pick_best_median_worst` picks, with captions."""
    return [
        Picture(
            f"{which} case by Dice: case {index + 1}, {scored[index].dice:.3f}."
            " The label is outlined in white, the segmentation in colour.",
            scored[index].picture,
        )
        for which, index in pick_best_median_worst([case.dice for case in scored]).items()
    ]


def list_versions() -> dict[str, str]:
    """Return the versions of DCAMT, Python and installed main packages, and the operating system's name, by title."""
    versions = {"DCAMT": __version__, "Python": platform.python_version(), "System": platform.system()}
    for package in ("torch", "numpy", "scipy", "nibabel", "pynrrd", "SimpleITK"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
