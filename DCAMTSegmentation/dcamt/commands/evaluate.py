"""`dcamt evaluate`: a folder of segmentations against a folder of labels."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from ..metrics.evaluation import EvaluationRow, evaluate_folders
from .console import Console
from .scans import check_table


def run_evaluate(options: argparse.Namespace) -> int:
    """Print a table (or JSON lines) and write it as CSV if asked for."""
    console = Console(options.json)
    if options.csv:
        check_table(options.csv, [])

    def progress(done: int, of: int) -> None:
        console.event("progress", step=done, of=of)
        console.bar("comparing", done / of)

    evaluation = evaluate_folders(options.predictions, options.labels, progress)
    if options.csv:
        evaluation.write_csv(options.csv)
    console.text(
        f"{'case':<20} {'label':>5} {'Dice %':>7} {'Jacc. %':>7} {'95HD mm':>8} {'ASD mm':>7} {'mL':>7} {'label mL':>8}"
    )
    for row in (*evaluation.rows, *evaluation.mean, *evaluation.std):
        console.text(_line(row))
        fields = asdict(row)
        console.event("score", **(fields | fields.pop("score")))
    for value in evaluation.unscored_labels:
        console.warn(f"the label {value} occurs in predictions but in no label, and was not scored")
    left_out = evaluation.labels_without_prediction
    if left_out:
        console.warn(f"{len(left_out)} labels have no prediction and were left out: {_some(left_out)}")
    console.event(
        "done",
        cases=len({row.case for row in evaluation.rows}),
        labels_without_prediction=len(left_out),
        unscored_labels=list(evaluation.unscored_labels),
    )
    if options.csv:
        console.text(f"scores: {options.csv}")
    return 0


def _some(names: Sequence[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def _line(row: EvaluationRow) -> str:
    score = row.score
    return (
        f"{row.case:<20} {row.label:>5} {100 * score.dice:>7.2f} {100 * score.jaccard:>7.2f} {score.hd95_mm:>8.2f}"
        f" {score.asd_mm:>7.2f} {row.prediction_volume_ml:>7.1f} {row.label_volume_ml:>8.1f}"
    )
