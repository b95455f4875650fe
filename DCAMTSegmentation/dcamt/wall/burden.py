"""Compute the burden: the enhanced part of the wall, by area and region. Fast enough to follow a slider."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan

import numpy as np

WALL, OPENING, BORDER = 0, 1, 2
"""Kinds of points of the surface: wall; in an opening; cut off by the scan's border."""

WHOLE = "all"
REGIONS = ("anterior", "posterior", "roof", "floor", "septal", "lateral")
"""Regions by index. A point's region is the main direction of its normal: A, P, S, I, R (the septum lies to the
patient's right of the left atrium) or L."""

DECAAF_STAGES = ((10.0, "I"), (20.0, "II"), (30.0, "III"))
"""Upper bounds in percent of enhanced wall; stage IV lies above the last (DECAAF: Marrouche, JAMA 311:498, 2014)."""


@dataclass(frozen=True)
class Burden:
    """Enhanced area of a region's wall; `region` is one of `REGIONS`, or `WHOLE`."""

    region: str
    wall_cm2: float
    enhanced_cm2: float

    @property
    def percent(self) -> float:
        """Enhanced area in percent of the wall; NaN where the region has no wall."""
        return 100.0 * self.enhanced_cm2 / self.wall_cm2 if self.wall_cm2 > 0 else nan


def regions_of(normals: np.ndarray) -> np.ndarray:
    """Return (N,) uint8 indices into `REGIONS` from outward normals (N, 3) in RAS."""
    right, anterior, superior = normals.T
    directions = np.stack([anterior, -anterior, superior, -superior, right, -right])
    return np.asarray(directions.argmax(axis=0).astype(np.uint8))


def count_burden(
    ratio: np.ndarray, kind: np.ndarray, region: np.ndarray, areas_mm2: np.ndarray, threshold: float
) -> tuple[Burden, ...]:
    """Return the burden of the whole wall, then of each of `REGIONS`, area-weighted.

    Arrays (N,), one value per point of the surface: ratio to the blood pool, kind (`WALL`, `OPENING` or `BORDER`),
    region, area. A point of the wall is enhanced if its ratio exceeds `threshold`.
    """
    cm2 = np.where(kind == WALL, areas_mm2, 0.0) / 100.0
    wall = np.bincount(region, weights=cm2, minlength=len(REGIONS))
    enhanced = np.bincount(region, weights=cm2 * (ratio > threshold), minlength=len(REGIONS))
    rows = [Burden(name, float(a), float(b)) for name, a, b in zip(REGIONS, wall, enhanced, strict=True)]
    return (Burden(WHOLE, float(wall.sum()), float(enhanced.sum())), *rows)


def decaaf_stage(percent: float) -> str:
    """Return stage "I" to "IV" at 10, 20 and 30% of enhanced wall; "" for NaN.

    DECAAF graded by its own readers' threshold. A stage by another threshold is not comparable: show the threshold
    with the stage.
    """
    if isnan(percent):
        return ""
    return next((stage for bound, stage in DECAAF_STAGES if percent < bound), "IV")
