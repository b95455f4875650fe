"""Calibrate a model: estimate a segmentation's overlap with an expert's outline from features of its doubt.

The Dice coefficient with an expert's outline is modelled as a logistic function of a few features. Each feature grows
with the doubt, so no weight is positive. The interval comes from the residuals of cases that the fit did not use, and
depends on the expected overlap. This module does not import torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..io.typed_json import build
from ..recipe import ACCURATE, QUALITIES
from .doubt_scaling import DoubtScaling

Curve = tuple[float, ...]
FORMAT = 2
READABLE = (1, FORMAT)
"""Formats that can be read; format 1 has no scaling of the doubt."""
_CALIBRATE_AGAIN = "Calibrate the model again with: dcamt models calibrate"
LOW_OVERLAP = 0.7
"""A lower expected overlap means that the outline is probably wrong, or that the scan shows another organ."""
INTERVAL = 0.8
"""Probability that the overlap with an expert's outline lies in the interval."""
MIN_CASES = 8
"""Smallest number of cases for a calibration."""
CLEAN = "clean"
"""The disturbance name of an undisturbed scan."""
NOTHING = "nothing"
"""The feature that is 1 if nothing was segmented, else 0."""
FEATURES = ("disagreement", "entropy")
"""Features that a calibration can use; `inference.doubt` defines them."""
BOTH_BRANCHES = ("disagreement",)
"""Features that compare the branches; quality `fast`, which uses one branch, lacks them."""
HUBER = 0.02
"""Residuals larger than this count linearly, so that a few failed scans do not dominate the fit."""
RIDGE, STEPS = 1e-3, 60
"""Weight of the ridge penalty, and largest number of steps of the fit."""
NEIGHBOURS = 20
"""The interval at an expected overlap is computed from the residuals of at least this many scans, or of all if there
are fewer; for the lowest overlaps see `LOWEST`."""
LOWEST = 8
"""The interval at the lowest expected overlaps is computed from only this many scans, since low overlaps are rare."""


@dataclass(frozen=True)
class ExpectedOverlap:
    """The expected Dice (0 to 1) of a segmentation with an expert's outline, and its 80% interval.

    >>> str(ExpectedOverlap(0.921, 0.88, 0.95))
    '0.92 (0.88 to 0.95)'
    """

    value: float
    low: float
    high: float

    @property
    def is_low(self) -> bool:
        """Whether the outline is probably wrong."""
        return self.value < LOW_OVERLAP

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class OverlapFunction:
    """The expected overlap as a function of features.

    Attributes:
        features: names of the features.
        means, deviations: mean and standard deviation of each feature, by which the features are standardised.
        weights: weights of the standardised features, none positive.
        bias: logit of the overlap at the means.
        knots: increasing expected overlaps.
        lows, highs: at each knot, the interval's ends minus the expected overlap; interpolated between knots.
    """

    features: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    knots: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]

    def value(self, features: Mapping[str, float]) -> float:
        """Return the expected overlap (0 to 1) for feature values by name; features that are not used are ignored."""
        numbers = np.array([features[name] for name in self.features], float)
        score = self.bias + ((numbers - self.means) / self.deviations) @ np.array(self.weights)
        return float(sigmoid(score))

    def expect(self, features: Mapping[str, float]) -> ExpectedOverlap:
        """Return the expected overlap and its interval for feature values by name."""
        value = self.value(features)
        low, high = (value + float(np.interp(value, self.knots, ends)) for ends in (self.lows, self.highs))
        return ExpectedOverlap(value, min(max(0.0, low), value), max(min(1.0, high), value))

    def is_sound(self) -> bool:
        """Return whether all numbers are finite, deviations positive, knots increasing, and the tuples' lengths fit."""
        numbers = (*self.means, *self.deviations, *self.weights, self.bias, *self.knots, *self.lows, *self.highs)
        per_feature = {len(values) for values in (self.features, self.means, self.deviations, self.weights)}
        per_knot = {len(values) for values in (self.knots, self.lows, self.highs)}
        return (
            all(map(math.isfinite, numbers))
            and min(self.deviations, default=0) > 0
            and len(per_feature) == len(per_knot) == 1
            and len(self.knots) > 0
            and bool((np.diff(self.knots) > 0).all())
        )


@dataclass(frozen=True)
class Calibration:
    """A model's calibration: the expected overlap as a function of the doubt, and a scaling of the map of doubt.

    Attributes:
        model: checksum in the card of the model that was calibrated.
        qualities: an `OverlapFunction` for each calibrated quality.
        cases, scans: number of cases, and number of their scans, disturbed ones included.
        notes: a description of the cases and their role in the model's training.
        measured: the calibration's accuracy, from cross-validation over the cases.
        doubt: the scaling of the map of doubt; None if there is none, as in calibrations of format 1.
    """

    model: str
    qualities: dict[str, OverlapFunction]
    cases: int
    scans: int
    notes: str = ""
    measured: dict[str, float] = field(default_factory=dict)
    doubt: DoubtScaling | None = None
    format: int = FORMAT

    def expect(self, quality: str, features: Mapping[str, float]) -> ExpectedOverlap | None:
        """Return the expected overlap of a scan's segmentation in `quality`; None if the quality was not calibrated."""
        function = self.qualities.get(quality)
        if function is None:
            return None
        # An empty segmentation has no overlap with any outline.
        return ExpectedOverlap(0.0, 0.0, 0.0) if features[NOTHING] else function.expect(features)

    def to_json(self) -> str:
        """Return the calibration as the text of a JSON file."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def parse_calibration(text: str | bytes, path: Path) -> Calibration:
    """Parse a calibration from JSON. Errors name the file `path`.

    Raises:
        InputError: the text is not a calibration, has an unknown format, or contains numbers that cannot be used.
    """
    try:
        data = json.loads(text)
        file_format = data.get("format")
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"the calibration cannot be read ({error})", path=path, remedy=_CALIBRATE_AGAIN) from error
    if isinstance(file_format, int) and file_format > FORMAT:
        what = f"the calibration is of format {file_format}; this DCAMT reads formats up to {FORMAT}"
        raise InputError(what, path=path, remedy="Update DCAMT.")
    if file_format not in READABLE:
        raise InputError(f"the calibration's format is invalid ({file_format})", path=path, remedy=_CALIBRATE_AGAIN)
    calibration: Calibration = replace(build(Calibration, data, path, "calibration"), format=FORMAT)
    for quality, function in calibration.qualities.items():
        known = quality in QUALITIES and set(function.features) <= set(quality_features(quality))
        if not known or not function.is_sound():
            raise _unusable(f"numbers for quality '{quality}'", path)
    if calibration.doubt is not None and not calibration.doubt.is_sound():
        raise _unusable("scaling of the doubt", path)
    return calibration


def _unusable(part: str, path: Path) -> InputError:
    return InputError(f"the calibration's {part} cannot be used", path=path, remedy=_CALIBRATE_AGAIN)


def quality_features(quality: str) -> tuple[str, ...]:
    """Return the names of the features that segmentations of a quality have."""
    return FEATURES if quality == ACCURATE else tuple(name for name in FEATURES if name not in BOTH_BRANCHES)


def sigmoid(score: np.ndarray | float) -> np.ndarray:
    """Return 1 / (1 + exp(-score)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(score, float))))


def fit_overlap(
    features: Sequence[Mapping[str, float]],
    overlaps: Sequence[float],
    cases: Sequence[str],
    names: Sequence[str],
    disturbances: Sequence[str] | None = None,
) -> OverlapFunction:
    """Fit the expected overlap of scans as a function of their features.

    The interval comes from residuals of further fits. The fit for a scan leaves out all scans of its case and, where
    possible, all scans with its disturbance (see `_left_out`). Otherwise the interval would be too narrow for scans
    with new disturbances.

    Args:
        features: feature values of each scan; no scan's segmentation may be empty.
        overlaps: Dice coefficient of each scan (0 to 1).
        cases: name of each scan's case.
        names: names of the features to use.
        disturbances: name of each scan's disturbance, `CLEAN` for none; by default all are undisturbed.

    Raises:
        ValueError: there are fewer than two cases.
    """
    if len(set(cases)) < 2:
        raise ValueError("a calibration needs two cases at least")
    table = np.array([[values[name] for name in names] for values in features], float)
    truth = np.asarray(overlaps, float)
    function = _fit(table, truth, names)
    unseen = np.empty(len(truth))
    for scans, others in _left_out(cases, disturbances):
        part = _fit(table[others], truth[others], names, start_from=function)
        unseen[scans] = [part.value(dict(zip(names, row, strict=True))) for row in table[scans]]
    knots, lows, highs = _interval(unseen, truth)
    return replace(function, knots=knots, lows=lows, highs=highs)


def expect_left_out(
    features: Sequence[Mapping[str, float]],
    overlaps: Sequence[float],
    cases: Sequence[str],
    names: Sequence[str],
    disturbances: Sequence[str] | None = None,
) -> list[ExpectedOverlap]:
    """Return the expected overlap of each scan by a fit to scans of other cases and disturbances (see `_left_out`).

    The interval comes from the residuals of these other scans. Each residual is a scan's Dice minus the value of
    the fit that leaves this scan out. The arguments are those of `fit_overlap`.
    """
    table = np.array([[values[name] for name in names] for values in features], float)
    truth = np.asarray(overlaps, float)
    whole = _fit(table, truth, names)
    folds = [
        (scans, others, _fit(table[others], truth[others], names, start_from=whole))
        for scans, others in _left_out(cases, disturbances)
    ]
    values = np.empty(len(truth))
    for scans, _, function in folds:
        values[scans] = [function.value(features[index]) for index in np.flatnonzero(scans).tolist()]
    expected = [ExpectedOverlap(0, 0, 0)] * len(truth)
    for scans, others, function in folds:
        knots, lows, highs = _interval(values[others], truth[others])
        function = replace(function, knots=knots, lows=lows, highs=highs)
        for index in np.flatnonzero(scans).tolist():
            expected[index] = function.expect(features[index])
    return expected


def _left_out(cases: Sequence[str], disturbances: Sequence[str] | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield two masks (N,) for each disturbance of each case.

    The first mask selects the case's scans with this disturbance, the second the scans of other cases with other
    disturbances. If the disturbance is `CLEAN` or no scans would remain, the second mask selects all scans of other
    cases.
    """
    groups = np.asarray(cases)
    kinds = np.array([CLEAN] * len(groups) if disturbances is None else disturbances)
    for case, kind in dict.fromkeys(zip(groups.tolist(), kinds.tolist(), strict=True)):
        others = (groups != case) & ((kinds != kind) | (kind == CLEAN))
        if not others.any():
            others = groups != case  # all other cases have only this disturbance
        yield (groups == case) & (kinds == kind), others


def _fit(
    table: np.ndarray, truth: np.ndarray, names: Sequence[str], start_from: OverlapFunction | None = None
) -> OverlapFunction:
    """Fit the logistic function of features (N, F), and return it with a placeholder for the interval.

    Minimises Huber's loss of the overlap plus a ridge penalty by iteratively reweighted least squares. No feature's
    weight becomes positive.

    Args:
        start_from: a fit to nearly the same scans, from which few steps suffice.
    """
    means, deviations = table.mean(axis=0), table.std(axis=0) + 1e-6
    rows = np.column_stack([np.ones(len(table)), (table - means) / deviations])
    weights = np.zeros(rows.shape[1])
    if start_from is None:
        start = np.clip(np.median(truth), 0.02, 0.98)
        weights[0] = np.log(start / (1 - start))
    else:
        weights[:] = (start_from.bias, *start_from.weights)
    ridge = np.array([0.0, *[RIDGE] * len(means)])
    for _ in range(STEPS):
        fitted = sigmoid(rows @ weights)
        residual = truth - fitted
        robust = np.minimum(1, HUBER / np.maximum(np.abs(residual), 1e-9))
        slope = np.maximum(fitted * (1 - fitted), 1e-3)[:, None] * rows
        matrix = (slope * robust[:, None]).T @ slope + np.diag(ridge)
        target = (slope * robust[:, None]).T @ (residual + slope @ weights)
        step = _solve_without_positive(matrix, target) - weights
        largest = float(np.abs(step).max())
        weights = weights + step * min(1.0, 1 / max(1.0, largest))
        if largest < 1e-5:
            break
    return OverlapFunction(
        tuple(names),
        tuple(means.tolist()),
        tuple(deviations.tolist()),
        tuple(weights[1:].tolist()),
        float(weights[0]),
        (0.5,),
        (-1.0,),
        (1.0,),
    )


def _solve_without_positive(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return x with x[1:] <= 0 that nearly minimises x'Ax/2 - b'x, where A is `matrix` and b is `target`.

    While an item of x[1:] is positive, the largest item is fixed at 0 and the rest is solved again.
    """
    used = list(range(len(target)))
    while True:
        solution = np.zeros(len(target))
        solution[used] = np.linalg.solve(matrix[np.ix_(used, used)], target[used])
        worst = 1 + int(solution[1:].argmax()) if len(target) > 1 else 0
        if worst == 0 or solution[worst] <= 0:
            return solution
        used.remove(worst)


def _interval(expected: np.ndarray, truth: np.ndarray) -> tuple[Curve, Curve, Curve]:
    """Return knots, lows and highs of the 80% interval (see `OverlapFunction`), from expected and true overlaps (N,).

    At each knot, the ends are quantiles of the residuals of the scans with the nearest expected overlaps. The k-th
    smallest of n residuals is taken as the quantile at k / (n + 1) (Weibull's plotting position).
    """
    order = np.argsort(expected)
    expected, residual = expected[order], (truth - expected)[order]
    number = len(expected)
    size = min(number, max(NEIGHBOURS, number // 5))
    starts = np.unique(np.linspace(0, number - size, max(1, min(6, 2 * number // size))).astype(int))
    tail = (1 - INTERVAL) / 2
    knots, lows, highs = [], [], []
    for near in (slice(0, LOWEST), *(slice(start, start + size) for start in starts)):
        knots.append(float(np.median(expected[near])))
        low, high = np.quantile(residual[near], (tail, 1 - tail), method="weibull")
        lows.append(float(low))
        highs.append(float(high))
    kept = sorted({round(knot, 6): index for index, knot in enumerate(knots)}.items())
    return tuple(knot for knot, _ in kept), tuple(lows[at] for _, at in kept), tuple(highs[at] for _, at in kept)


def assess_overlap(
    features: Sequence[Mapping[str, float]],
    overlaps: Sequence[float],
    cases: Sequence[str],
    names: Sequence[str],
    disturbances: Sequence[str] | None = None,
) -> dict[str, float]:
    """Return the `overlap_figures` of a cross-validation that leaves out each case in turn.

    The arguments are those of `fit_overlap`.

    Raises:
        ValueError: there are fewer than three cases.
    """
    expected: list[ExpectedOverlap] = [ExpectedOverlap(0, 0, 0)] * len(cases)
    for case in dict.fromkeys(cases):
        others = [index for index, name in enumerate(cases) if name != case]
        function = fit_overlap(
            [features[index] for index in others],
            [overlaps[index] for index in others],
            [cases[index] for index in others],
            names,
            None if disturbances is None else [disturbances[index] for index in others],
        )
        for index, name in enumerate(cases):
            if name == case:
                expected[index] = function.expect(features[index])
    return overlap_figures(expected, overlaps)


def overlap_figures(expected: Sequence[ExpectedOverlap], overlaps: Sequence[float]) -> dict[str, float]:
    """Return, by name, the mean absolute error, Spearman's rank correlation and the coverage of the interval."""
    values, truth = np.array([overlap.value for overlap in expected]), np.asarray(overlaps, float)
    inside = [guess.low <= overlap <= guess.high for guess, overlap in zip(expected, overlaps, strict=True)]
    ranks = np.stack([_ranks(values), _ranks(truth)])
    varied = float(np.ptp(ranks, axis=1).min()) > 0
    return {
        "mean absolute error": float(np.abs(values - truth).mean()),
        "rank correlation": float(np.corrcoef(ranks)[0, 1]) if varied else 0.0,
        "coverage of the interval": float(np.mean(inside)),
    }


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks of values (N,); equal values get their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse])
