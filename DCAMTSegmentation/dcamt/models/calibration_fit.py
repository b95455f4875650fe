"""Fit an `OverlapFunction` to the doubt and the Dice of segmentations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np

from .calibration import ExpectedOverlap, OverlapFunction, sigmoid

CLEAN = "clean"
"""The `disturbance` of an unchanged scan. `inference.disturbances` defines the other disturbances."""
COVERAGE = 0.8
"""Fraction of scans whose Dice should lie within the interval of their expected overlap."""
HUBER = 0.02
"""Huber's loss grows only linearly above this residual, so that a few failed scans do not dominate the fit."""
RIDGE, STEPS = 1e-3, 60
"""Weight of the ridge penalty, and largest number of steps of the fit."""
NEIGHBOURS = 20
"""An interval is computed from at least this many scans if possible."""
LOWEST = 8
"""The interval at the lowest expected overlaps is computed from only this many scans, since low overlaps are rare."""


@dataclass(frozen=True)
class Observation:
    """A segmented scan.

    Attributes:
        features: the segmentation's features, as `inference.doubt.doubt_features` returns them.
        overlap: Dice (0 to 1) of the segmentation with the scan's label.
    """

    features: Mapping[str, float]
    overlap: float
    case: str
    disturbance: str = CLEAN


def fit_overlap(observations: Sequence[Observation], names: Sequence[str]) -> OverlapFunction:
    """Fit the expected overlap of scans as a function of their features.

    The interval comes from the residuals of a cross-validation (see `_left_out`).

    Args:
        observations: scans whose segmentation is not empty.
        names: the features to use.

    Raises:
        ValueError: there are fewer than two cases.
    """
    if len({scan.case for scan in observations}) < 2:
        raise ValueError("a calibration needs two cases at least")
    function = _fit(observations, names)
    folds = _fit_folds(observations, names, function)
    return _with_interval(function, _cross_validate(observations, folds), _overlaps(observations))


def expect_left_out(observations: Sequence[Observation], names: Sequence[str]) -> list[ExpectedOverlap]:
    """Return each scan's expected overlap by cross-validation (see `_left_out`).

    The arguments are those of `fit_overlap`.
    """
    folds = _fit_folds(observations, names, _fit(observations, names))
    values, truth = _cross_validate(observations, folds), _overlaps(observations)
    expected: dict[int, ExpectedOverlap] = {}
    for fold in folds:
        function = _with_interval(fold.function, values[fold.fitted], truth[fold.fitted])
        indices = np.flatnonzero(fold.left_out).tolist()
        expected |= {index: function.expect(observations[index].features) for index in indices}
    return [expected[index] for index in range(len(observations))]


def _overlaps(observations: Iterable[Observation]) -> np.ndarray:
    return np.array([scan.overlap for scan in observations], float)


@dataclass(frozen=True, eq=False)
class _Fold:
    """The masks (N,) of the left-out and the fitted scans (see `_left_out`), and the fit."""

    left_out: np.ndarray
    fitted: np.ndarray
    function: OverlapFunction


def _fit_folds(observations: Sequence[Observation], names: Sequence[str], whole: OverlapFunction) -> list[_Fold]:
    return [
        _Fold(left_out, fitted, _fit(list(compress(observations, fitted)), names, start_from=whole))
        for left_out, fitted in _left_out(observations)
    ]


def _cross_validate(observations: Sequence[Observation], folds: Iterable[_Fold]) -> np.ndarray:
    """Return each scan's expected overlap (N,) by the fit that leaves this scan out."""
    values = np.empty(len(observations))
    for fold in folds:
        values[fold.left_out] = [fold.function.value(scan.features) for scan in compress(observations, fold.left_out)]
    return values


def _left_out(observations: Sequence[Observation]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield two masks (N,) for each disturbance of each case.

    The first mask selects the scans to leave out: the scans of this case with this disturbance. The second mask selects
    the scans for the fit: the scans of other cases with other disturbances. If this disturbance is `CLEAN`, or if the
    other cases have no scans with other disturbances, the second mask selects all scans of other cases.
    """
    cases = np.array([scan.case for scan in observations])
    kinds = np.array([scan.disturbance for scan in observations])
    for case, kind in dict.fromkeys((scan.case, scan.disturbance) for scan in observations):
        others = (cases != case) & ((kinds != kind) | (kind == CLEAN))
        if not others.any():
            others = cases != case
        yield (cases == case) & (kinds == kind), others


def _fit(
    observations: Sequence[Observation], names: Sequence[str], start_from: OverlapFunction | None = None
) -> OverlapFunction:
    """Fit the logistic function of the features, and return it with a placeholder for the interval.

    Minimises Huber's loss of the overlap plus a ridge penalty by iteratively reweighted least squares.

    Args:
        start_from: a fit to nearly the same scans. Starting from its weights saves steps.
    """
    table = np.array([[scan.features[name] for name in names] for scan in observations], float)
    truth = _overlaps(observations)
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


def _with_interval(function: OverlapFunction, expected: np.ndarray, truth: np.ndarray) -> OverlapFunction:
    """Return the function with its 80% interval, computed from expected and true overlaps (N,).

    Each window of scans with similar expected overlaps gives one knot: the median of these overlaps. A residual is the
    true overlap minus the expected overlap. For the knot, `lows` gets the 10% quantile of the window's residuals, and
    `highs` gets the 90% quantile.
    """
    order = np.argsort(expected)
    expected, residual = expected[order], (truth - expected)[order]
    number = len(expected)
    size = min(number, max(NEIGHBOURS, number // 5))
    starts = np.unique(np.linspace(0, number - size, max(1, min(6, 2 * number // size))).astype(int))
    tail = (1 - COVERAGE) / 2
    ends: dict[float, tuple[float, float]] = {}
    for window in (slice(0, LOWEST), *(slice(start, start + size) for start in starts)):
        low, high = np.quantile(residual[window], (tail, 1 - tail), method="weibull").tolist()
        ends[round(float(np.median(expected[window])), 6)] = low, high
    knots = tuple(sorted(ends))
    return replace(
        function, knots=knots, lows=tuple(ends[knot][0] for knot in knots), highs=tuple(ends[knot][1] for knot in knots)
    )


def assess_overlap(observations: Sequence[Observation], names: Sequence[str]) -> dict[str, float]:
    """Return the `overlap_figures` of a cross-validation that leaves out each case in turn.

    The arguments are those of `fit_overlap`.

    Raises:
        ValueError: there are fewer than three cases.
    """
    cases = {scan.case for scan in observations}
    if len(cases) < 3:
        raise ValueError("a cross-validation needs three cases at least")
    functions = {case: fit_overlap([scan for scan in observations if scan.case != case], names) for case in cases}
    expected = [functions[scan.case].expect(scan.features) for scan in observations]
    return overlap_figures(expected, [scan.overlap for scan in observations])


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
