"""Compute the burden (the enhanced part of the area) of the whole wall and of each region.

`count_burden` must be fast: it runs whenever the user moves the threshold's slider.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from math import isnan, nan

import numpy as np

WALL, OPENING, BORDER = 0, 1, 2
"""Kinds of points of the surface: wall, opening, or too near the scan's border."""

WHOLE = "all"
REGIONS = ("anterior", "posterior", "roof", "floor", "septal", "lateral")
"""Names of the directions A, P, S, I, R and L.

A point's region is the main direction of its outward normal. The septum lies to the right of the left atrium.
"""

DECAAF_STAGES = ((10.0, "I"), (20.0, "II"), (30.0, "III"))
"""Upper bounds (exclusive) of the burden in %, and the stages. Stage IV is 30% or more.

Source: DECAAF (Marrouche, JAMA 311:498, 2014).
"""


@dataclass(frozen=True)
class Burden:
    """The wall's area and enhanced area, for one region or for the whole wall.

    Attributes:
        region: one of `REGIONS`, or `WHOLE` for the whole wall.
    """

    region: str
    wall_cm2: float
    enhanced_cm2: float

    @property
    def percent(self) -> float:
        """The enhanced area in percent of the wall; NaN if the region has no wall."""
        return 100.0 * self.enhanced_cm2 / self.wall_cm2 if self.wall_cm2 > 0 else nan

    @property
    def percent_text(self) -> str:
        """The burden for the user: "14.2"; "" for NaN.

        The text has one decimal, or more if rounding would change the stage: 19.97 (stage II) becomes "19.97", since
        "20.0" would be stage III.
        """
        percent = self.percent
        texts = (f"{percent:.{digits}f}" for digits in count(1))
        return "" if isnan(percent) else next(t for t in texts if decaaf_stage(float(t)) == decaaf_stage(percent))


def regions_of(normals: np.ndarray) -> np.ndarray:
    """Return the regions of points as indices into `REGIONS`, uint8 (N,), from outward normals (N, 3) in RAS."""
    right, anterior, superior = normals.T
    directions = np.stack([anterior, -anterior, superior, -superior, right, -right])
    return np.asarray(directions.argmax(axis=0).astype(np.uint8))


def count_burden(
    ratio: np.ndarray, kind: np.ndarray, region: np.ndarray, areas_mm2: np.ndarray, threshold: float
) -> tuple[Burden, ...]:
    """Return the burden of the whole wall, then of each of `REGIONS`.

    A point of the wall is enhanced if its ratio exceeds `threshold`.

    Args:
        ratio, kind, region, areas_mm2: (N,), for each point of the surface: its intensity divided by the blood pool's
            mean, its kind (`WALL`, `OPENING` or `BORDER`), its region and its area.
    """
    cm2 = np.where(kind == WALL, areas_mm2, 0.0) / 100.0
    wall = np.bincount(region, weights=cm2, minlength=len(REGIONS))
    enhanced = np.bincount(region, weights=cm2 * (ratio > threshold), minlength=len(REGIONS))
    rows = [Burden(name, float(a), float(b)) for name, a, b in zip(REGIONS, wall, enhanced, strict=True)]
    return (Burden(WHOLE, float(wall.sum()), float(enhanced.sum())), *rows)


def decaaf_stage(percent: float) -> str:
    """Return the stage "I" to "IV" (`DECAAF_STAGES`) of a burden in percent; "" for NaN.

    In DECAAF, readers chose the threshold for each scan. Stages at different thresholds are not comparable, so show the
    threshold with the stage.
    """
    if isnan(percent):
        return ""
    return next((stage for bound, stage in DECAAF_STAGES if percent < bound), "IV")
