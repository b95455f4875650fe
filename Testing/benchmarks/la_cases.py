"""List the left-atrium cases of the benchmarks, measure a model on the held-out cases, and print tables."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from dcamt.cases.case_list import UNLABELLED, Case
from dcamt.models.package import open_model

HELD_OUT = 20
"""The number of held-out cases: the last cases of `cases.csv`.

The shipped model is trained with the labels of these cases. Its twin is not, so the twin is measured instead. The
docstring of `shipped_model.py` describes both trainings.
"""
DOUBT_EDGES = np.array([0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1])
"""Limits of the intervals of doubt in which wrong voxels are counted."""
METRICS = ("dice", "jaccard", "hd95_mm", "asd_mm", "hd95_voxels", "asd_voxels")


def case_names(la: Path) -> list[str]:
    """Return the names of a folder's cases in the order of `cases.csv`."""
    with (la / "cases.csv").open(newline="", encoding="utf-8") as file:
        return [row["case"] for row in csv.DictReader(file)]


def training_names(la: Path) -> list[str]:
    """Return the names of the cases that are not held out."""
    return case_names(la)[:-HELD_OUT]


def la_case(la: Path, name: str, role: str) -> Case:
    """Return a case of the folder, with its label unless the role is `UNLABELLED`."""
    label = None if role == UNLABELLED else la / f"{name}_label.nii.gz"
    return Case(name, la / f"{name}_image.nii.gz", label, role)


def held_out_scores(la: Path, model: Path, work: Path, quality: str) -> dict[str, Any]:
    """Segment the held-out cases at their own resolution and compare the results with their labels.

    Returns the mean of each of `METRICS`, and the standard deviation and the minimum of Dice. A distance that is
    undefined for all cases, as with empty segmentations, has the mean None.
    """
    predictions, labels = work / f"held_out_{quality}", work / "held_out_labels"
    for folder in (predictions, labels):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    names = case_names(la)[-HELD_OUT:]
    for name in names:
        shutil.copyfile(la / f"{name}_label.nii.gz", labels / f"{name}_label.nii.gz")
    scans = [str(la / f"{name}_image.nii.gz") for name in names]
    dcamt("segment", *scans, "-o", predictions, "--model", model, "--quality", quality, "--format", "nii.gz")
    lines = dcamt("evaluate", "--predictions", predictions, "--labels", labels, "--json").splitlines()
    scores = {row["case"]: row for row in map(json.loads, lines) if "case" in row}
    means = {metric: scores["mean"][metric] for metric in METRICS}
    return {
        **{f"{metric}_mean": value if value is None else round(value, 4) for metric, value in means.items()},
        "dice_std": round(scores["std"]["dice"], 4),
        "dice_lowest": round(min(scores[name]["dice"] for name in names), 4),
    }


def train_run(folder: Path, settings: Iterable[str], *more: str) -> Path:
    """Train with the case list `folder`/cases.csv, or resume an interrupted training; return the model's path."""
    run = folder / "run"
    options = [*more, *(word for setting in settings for word in ("--set", setting))]
    begun = (run / "recipe.json").exists()
    dcamt("train", "--run", run, *(("--resume",) if begun else (folder / "cases.csv", *options)))
    return run / "model.dcamt"


def claim_folder(work: Path, model: Path) -> None:
    """Create the folder `work` for a model's results; end the process if the folder has results of another model."""
    message = f"{work} has results of another model; choose another folder for the results of {model}"
    claim(work / "model.txt", open_model(model).card.checksum, message)


def claim(file: Path, text: str, message: str) -> None:
    """Create a file that contains `text`; if the file exists with another text, end the process with the message."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        file.write_text(text, encoding="utf-8")
    elif file.read_text(encoding="utf-8") != text:
        sys.exit(message)


def dcamt(*arguments: str | Path) -> str:
    """Run the command `dcamt`; return what it printed."""
    command = [sys.executable, "-m", "dcamt", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8").stdout


def doubt_histograms(doubt: np.ndarray, *weights: np.ndarray) -> np.ndarray:
    """Return weighted histograms of the doubt with the edges `DOUBT_EDGES`: (histograms, intervals).

    Args:
        doubt: (N,).
        weights: an array (N,) for each histogram.
    """
    interval = np.digitize(doubt, DOUBT_EDGES[1:-1])
    return np.stack([np.bincount(interval, weights=w, minlength=len(DOUBT_EDGES) - 1) for w in weights])


def reliability_rows(sums: np.ndarray) -> list[dict[str, Any]]:
    """Return a row for each interval of doubt.

    A row has the mean doubt in the interval, the fraction of the interval's voxels that are wrong, and the percentage
    of all counted voxels that lie in the interval.

    Args:
        sums: (3, intervals), the number of voxels, their total doubt, and the number of wrong voxels.
    """
    number, doubt, wrong = sums
    return [
        {
            "doubt": f"{100 * low:.0f} to {100 * high:.0f}%",
            "mean doubt": round(doubt[index] / max(number[index], 1), 3),
            "wrong": round(wrong[index] / max(number[index], 1), 3),
            "voxels": f"{100 * number[index] / number.sum():.1f}%",
        }
        for index, (low, high) in enumerate(pairwise(DOUBT_EDGES))
    ]


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table with a header."""
    columns = list(rows[0])
    for row in [dict(zip(columns, columns, strict=True)), *rows]:
        print("  ".join(f"{row[column]!s:>13}" for column in columns))
