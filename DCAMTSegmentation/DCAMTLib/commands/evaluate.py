"""`dcamt evaluate`: a folder of segmentations against a folder of labels."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict

from ..evaluation import EvaluationRow, evaluate_folders
from .console import Console


def run_evaluate(options: argparse.Namespace) -> int:
    """Print a table (or JSON lines) and write it as CSV if asked for."""
    console = Console(options.json)
    evaluation = evaluate_folders(
        options.predictions, options.labels, lambda done, of: console.bar("comparing", done / of)
    )
    if options.csv:
        evaluation.write_csv(options.csv)
    console.text(f"{'case':<20} {'label':>5} {'Dice %':>7} {'Jacc. %':>7} {'95HD mm':>8} {'ASD mm':>7} {'mL':>7} {'label mL':>8}")
    for row in (*evaluation.rows, *evaluation.mean, *evaluation.std):
        console.text(_line(row))
        console.event("score", **_plain(row))
    for value in evaluation.unscored_labels:
        console.warn(f"dcamt: the label {value} occurs in predictions but in no label, and was not scored")
    if options.csv:
        console.text(f"scores: {options.csv}")
    return 0


def _line(row: EvaluationRow) -> str:
    score = row.score
    return (
        f"{row.case:<20} {row.label:>5} {100 * score.dice:>7.2f} {100 * score.jaccard:>7.2f} {score.hd95_mm:>8.2f}"
        f" {score.asd_mm:>7.2f} {row.prediction_volume_ml:>7.1f} {row.label_volume_ml:>8.1f}"
    )


def _plain(row: EvaluationRow) -> dict[str, object]:
    fields = asdict(row)
    fields |= fields.pop("score")
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in fields.items()}
