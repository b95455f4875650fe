"""`dcamt evaluate`: compare a folder of segmentations with a folder of labels."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from ..errors import DCAMTError, fixed_number
from ..metrics.evaluation import SCORE_COLUMNS, Evaluation, EvaluationRow
from ..metrics.folder_scoring import evaluate_folders
from ..metrics.pair_reading import LabelMappings
from .console import Console
from .result_files import check_table_path, existing_rule, refuse_appeared_file, write_beside

MAX_NAMES = 5
"""A message names at most this many cases or label values."""


def run_evaluate(options: argparse.Namespace) -> int:
    """Print the scores as a table or JSON lines; with `--csv FILE`, also write them to FILE.

    Return 1 if a case was not scored (`Evaluation.failures`), else 0. If FILE cannot be written, or another program
    has written FILE meanwhile, the error is raised after the scores are printed.
    """
    console = Console(options.json)
    if options.csv:
        check_table_path(options.csv, [], existing_rule(options), SCORE_COLUMNS)

    def progress(done: int, of: int) -> None:
        console.print_event("progress", step=done, of=of)
        console.show_progress("comparing", done / of)

    mappings = LabelMappings(prediction=options.prediction_mapping, label=options.label_mapping)
    console.show_progress("reading the files", 0)
    evaluation = evaluate_folders(options.predictions, options.labels, progress, mappings)
    write_failure: DCAMTError | None = None
    if options.csv:
        # The table is written first, because printing fails if stdout is closed.
        try:
            refuse_appeared_file(options.csv, existing_rule(options))
            evaluation.write_csv(options.csv)
        except DCAMTError as error:
            write_failure = write_beside(options.csv, error, evaluation.write_csv)
    rows = (*evaluation.rows, *evaluation.mean, *evaluation.std)
    width = max(20, *(len(row.title) for row in rows))
    console.print_text(
        f"{'case':<{width}} {'value':>5} {'Dice %':>7} {'Jacc. %':>7} {'95HD mm':>8} {'ASD mm':>7}"
        f" {'pred. mL':>8} {'label mL':>8}"
    )
    for row in rows:
        console.print_text(_table_line(row, width))
        fields = asdict(row)
        console.print_event("score", **(fields | fields.pop("score")))
    _print_warnings(evaluation, console)
    console.print_event(
        "done",
        cases=len({row.case for row in evaluation.rows}),
        failed=len(evaluation.failures),
        labels_without_prediction=len(evaluation.labels_without_prediction),
        unscored_labels=list(evaluation.unscored_labels),
        notes=list(evaluation.notes),
    )
    if write_failure is not None:
        raise write_failure
    if options.csv:
        console.print_text(f"scores: {options.csv}")
    return 1 if evaluation.failures else 0


def _print_warnings(evaluation: Evaluation, console: Console) -> None:
    for note in evaluation.notes:
        console.print_error(note)
    for failure in evaluation.failures:
        console.print_error(failure)
        console.print_event("failed", message=failure)
    if evaluation.failures:
        covered = len({row.case for row in evaluation.rows})
        number = "one case was" if len(evaluation.failures) == 1 else f"{len(evaluation.failures)} cases were"
        console.print_error(f"{number} not scored; the means cover {covered} case{'s' if covered > 1 else ''}")
    unscored = evaluation.unscored_labels
    if len(unscored) == 1:
        console.print_error(f"label value {unscored[0]} occurs in predictions but in no label, and was not scored")
    elif unscored:
        listed = _first_names([str(value) for value in unscored])
        console.print_error(
            f"{len(unscored)} label values occur in predictions but in no label, and were not scored: {listed}"
        )
    for row in evaluation.mean:
        if row.empty:
            console.print_error(
                f"label value {row.label} is absent from prediction and label in {row.empty} of {row.cases} cases;"
                " in the means, such cases count with Dice 1 and distance 0"
            )
    skipped = evaluation.labels_without_prediction
    if skipped:
        console.print_error(f"labels without a prediction were skipped ({len(skipped)}): {_first_names(skipped)}")


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")


def _table_line(row: EvaluationRow, width: int) -> str:
    score = row.score
    volumes = [fixed_number(volume, 1) for volume in (row.prediction_volume_ml, row.label_volume_ml)]
    return (
        f"{row.title:<{width}} {row.label:>5} {100 * score.dice:>7.2f} {100 * score.jaccard:>7.2f}"
        f" {score.hd95_mm:>8.2f} {score.asd_mm:>7.2f} {volumes[0]:>8} {volumes[1]:>8}"
    )
