"""Collect the scores of each class in each case, with their means and standard deviations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import nan

import numpy as np

from ..io.formats import AnyPath, given_path
from ..io.tables import write_table
from .scores import SegmentationScore

_METRICS = tuple(field.name for field in fields(SegmentationScore))
_VOLUMES = ("prediction_volume_ml", "label_volume_ml")
_COUNTS = ("undefined", "cases", "missed", "empty")
SCORE_COLUMNS = ("case", "label", *_METRICS, *_VOLUMES, *_COUNTS)


@dataclass(frozen=True)
class EvaluationRow:
    """The scores of a class in one case, or their mean or standard deviation (`case` is "mean" or "std").

    Attributes:
        cases: number of cases that the row covers.
        undefined: how many cases have undefined distances, since exactly one mask is empty.
        missed: in how many of the `undefined` cases the prediction is the empty mask.
        empty: how many cases have two empty masks; their distances are 0.
    """

    case: str
    label: int
    score: SegmentationScore
    prediction_volume_ml: float
    label_volume_ml: float
    undefined: int
    cases: int = 1
    missed: int = 0
    empty: int = 0

    @property
    def title(self) -> str:
        """The row's title: `case`, or "SD" for a standard deviation.

        If a mean or standard deviation omits undefined distances, the title states how many cases have a 95HD:

        >>> EvaluationRow("mean", 1, SegmentationScore(*[0.5] * 8), 1.0, 1.0, 1, cases=3, missed=1).title
        'mean (95HD of 2 of 3 cases, 1 missed)'
        """
        # If a case happens to be named "std", its row has `cases == 1` and keeps the title "std".
        name = "SD" if self.case == "std" and self.cases > 1 else self.case
        if not self.undefined or self.cases == 1:
            return name
        parts = [f"95HD of {self.cases - self.undefined} of {self.cases} cases"]
        parts += [f"{self.missed} missed"] if self.missed else []
        parts += [f"{self.undefined - self.missed} false positive"] if self.undefined > self.missed else []
        return f"{name} ({', '.join(parts)})"


@dataclass(frozen=True)
class Evaluation:
    """The scores of each class in each case, and each class's `mean` and `std` over the cases.

    The standard deviation is that of the population (divided by n). A class with a single case has no row in `std`. A
    distance that is defined in only one case is NaN in `std`. Means and deviations of distances omit the cases with
    undefined distances and are NaN if no case is left.

    Attributes:
        rows: one for each case and class; the classes of a case are sorted by label value.
        mean, std: one for each class, sorted by label value.
        unscored_labels: label values that occur in predictions but in no label.
        labels_without_prediction: cases with a label but no prediction; they are not scored.
        failures: messages about predictions without a label, and about pairs that `evaluate_pairs` cannot score. The
            means omit these cases.
        notes: messages on how files were interpreted.
    """

    rows: tuple[EvaluationRow, ...]
    mean: tuple[EvaluationRow, ...]
    std: tuple[EvaluationRow, ...]
    unscored_labels: tuple[int, ...]
    labels_without_prediction: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def write_csv(self, path: AnyPath) -> None:
        """Write the rows, then the mean and std of every class, under the header `SCORE_COLUMNS`; NaN becomes blank.

        Raises OutputError if the file cannot be written; an earlier file of that name then stays unchanged.
        """
        rows = []
        for row in (*self.rows, *self.mean, *self.std):
            scores = [getattr(row.score, name) for name in _METRICS]
            others = [getattr(row, name) for name in (*_VOLUMES, *_COUNTS)]
            rows.append((row.case, row.label, *scores, *others))
        write_table(given_path(path), SCORE_COLUMNS, rows)


def summarize_rows(rows: Sequence[EvaluationRow], unscored_labels: tuple[int, ...] = ()) -> Evaluation:
    """Return the evaluation with these rows and each class's mean and standard deviation."""
    rows_of_class: defaultdict[int, list[EvaluationRow]] = defaultdict(list)
    for row in rows:
        rows_of_class[row.label].append(row)
    groups = [rows_of_class[value] for value in sorted(rows_of_class)]
    return Evaluation(
        rows=tuple(rows),
        mean=tuple(_summarize_class("mean", np.mean, group) for group in groups),
        std=tuple(_summarize_class("std", _deviation, group) for group in groups if len(group) > 1),
        unscored_labels=unscored_labels,
    )


def _summarize_class(
    name: str, statistic: Callable[[np.ndarray], float], rows: Sequence[EvaluationRow]
) -> EvaluationRow:
    def combine(values: Sequence[float]) -> float:
        defined = np.array([value for value in values if not np.isnan(value)])
        return float(statistic(defined)) if len(defined) else nan

    metrics = [combine([getattr(row.score, metric) for row in rows]) for metric in _METRICS]
    predicted_ml, labelled_ml = (combine([getattr(row, volume) for row in rows]) for volume in _VOLUMES)
    counts = [sum(getattr(row, count) for row in rows) for count in _COUNTS]
    return EvaluationRow(name, rows[0].label, SegmentationScore(*metrics), predicted_ml, labelled_ml, *counts)


def _deviation(values: np.ndarray) -> float:
    return float(np.std(values)) if len(values) > 1 else nan
