"""Scale the map of doubt by Platt scaling, which is fitted to labelled cases.

The scaled doubt is sigmoid(bias + slope * logit(doubt)): J. Platt, "Probabilistic outputs for support vector machines",
Advances in Large Margin Classifiers, 1999. Below `LEAST_DOUBT` the scaled doubt is proportional to the doubt. The
scaled doubt never falls as the doubt rises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LEAST_DOUBT = 0.01
"""The fit uses only voxels of this doubt or more, because the others are very numerous and hardly any of them has a
wrong label."""
BINS = 99
"""Number of equal intervals of doubt, from `LEAST_DOUBT` to 1."""
LEAST_SLOPE = 0.25
"""A scaling with a smaller slope is not used: it would make all voxels about equally doubtful."""
RIDGE, STEPS = 1.0, 50
"""Weight of the ridge penalty on deviations from bias 0 and slope 1, and largest number of steps of the fit."""
LIMIT = 1e-3
"""Probabilities are limited to the range from `LIMIT` to 1 - `LIMIT` before their logit is computed."""


@dataclass(frozen=True)
class DoubtScaling:
    """The bias and the slope of the scaling, which acts on the logit of the doubt."""

    bias: float
    slope: float

    def is_sound(self) -> bool:
        """Return whether both numbers are finite and the slope is `LEAST_SLOPE` or more."""
        return math.isfinite(self.bias) and math.isfinite(self.slope) and self.slope >= LEAST_SLOPE

    def apply(self, doubt: np.ndarray) -> np.ndarray:
        """Return the scaled doubt (0 to 1)."""
        fitted = 1 / (1 + np.exp(-self.bias - self.slope * _logit(np.maximum(doubt, LEAST_DOUBT))))
        return fitted * np.minimum(doubt / LEAST_DOUBT, 1)


def count_doubt(doubt: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Count the voxels with a doubt of `LEAST_DOUBT` or more, in intervals of doubt.

    Returns an array (3, BINS): for each interval, the number of voxels, the sum of their doubt, and the number of
    wrong voxels.

    Args:
        doubt: (I, J, K).
        wrong: whether each voxel's label is wrong, bool (I, J, K).
    """
    used = doubt >= LEAST_DOUBT
    values = doubt[used].astype(np.float64)
    bins = np.minimum((values - LEAST_DOUBT) / (1 - LEAST_DOUBT) * BINS, BINS - 1).astype(int)
    amounts = (np.ones(len(values)), values, wrong[used])
    return np.stack([np.bincount(bins, weights=amount, minlength=BINS) for amount in amounts])


def fit_doubt_scaling(counts: np.ndarray) -> DoubtScaling | None:
    """Return the scaling that fits the counts best; None if all counts are 0 or the scaling is not sound.

    Minimises the cross-entropy with a ridge penalty by Newton's method.

    Args:
        counts: the sum of `count_doubt` over scans.
    """
    counted = counts[:, counts[0] > 0]
    if counted.shape[1] == 0:
        return None
    number, doubt, wrong = counted
    rows = np.column_stack([np.ones(len(number)), _logit(doubt / number)])
    no_scaling = np.array([0.0, 1.0])
    weights = no_scaling.copy()
    for _ in range(STEPS):
        fitted = 1 / (1 + np.exp(-rows @ weights))
        gradient = rows.T @ (number * fitted - wrong) + RIDGE * (weights - no_scaling)
        curvature = (rows * (number * fitted * (1 - fitted))[:, None]).T @ rows + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        # A full Newton step may overshoot where the sigmoid is flat.
        weights = weights - step * min(1.0, 1 / max(1e-9, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-6:
            break
    scaling = DoubtScaling(float(weights[0]), float(weights[1]))
    return scaling if scaling.is_sound() else None


def _logit(probabilities: np.ndarray) -> np.ndarray:
    limited = np.clip(probabilities, LIMIT, 1 - LIMIT)
    return np.asarray(np.log(limited / (1 - limited)))
