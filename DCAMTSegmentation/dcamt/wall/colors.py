"""Define the wall's colours for ratios (a point's intensity divided by the blood pool's mean)."""

from __future__ import annotations

import math

import numpy as np

from .burden import BORDER, OPENING

RATIO_RANGE = (0.6, 2.0)
"""Ratios at the two ends of the scale for a threshold from 0.8 to 1.8 (`ratio_range`)."""
SCALE_PARTS = 7
"""Number of equal parts of the scale. Each part ends at a ratio with one decimal, for example 0.8."""
COLOR_STOPS = (
    (0.60, (0.52, 0.79, 0.97)),
    (0.97, (0.74, 0.88, 0.97)),
    (1.10, (0.93, 0.92, 0.84)),
    (1.20, (0.97, 0.72, 0.28)),
    (1.32, (0.95, 0.49, 0.19)),
    (1.61, (0.78, 0.13, 0.15)),
    (2.00, (0.40, 0.00, 0.13)),
)
"""Ratios and their colours (red, green, blue, 0 to 1), interpolated in between.

The colours of ratios above 1.2 have a lower luminance (Rec. 709) than all others, so that a black-and-white print shows
these ratios.
"""
OPENING_COLOR = (0.35, 0.35, 0.37)
BORDER_COLOR = (0.62, 0.62, 0.64)
"""Colour of points too near the scan's border."""


def ratio_colors(ratio: np.ndarray) -> np.ndarray:
    """Return colours (N, 3), 0 to 1, of ratios (N,)."""
    stops = np.array([stop for stop, _ in COLOR_STOPS])
    colors = np.array([color for _, color in COLOR_STOPS])
    return np.stack([np.interp(ratio, stops, colors[:, channel]) for channel in range(3)], axis=1)


def ratio_range(threshold: float) -> tuple[float, float]:
    """Return the ratios at the two ends of the scale; ratios beyond an end have that end's colour.

    The threshold lies between the ends. At least a seventh of the scale shows ratios above the threshold.
    """
    low, high = RATIO_RANGE
    if threshold < 0.8:
        return 0.0, 2.1
    tenths = math.ceil(round((threshold - low) / (SCALE_PARTS - 1) * 10, 6))
    return low, max(high, round(low + tenths / 10 * SCALE_PARTS, 1))


def threshold_colors(ratio: np.ndarray, threshold: float) -> np.ndarray:
    """Return colours (N, 3), 0 to 1, of ratios (N,): blue up to the threshold, warm colours above."""
    low, high = ratio_range(threshold)
    stops = [stop for stop, _ in COLOR_STOPS]
    blue = np.interp(ratio, (low, threshold), (stops[0], stops[1]))
    warm = np.interp(ratio, (threshold, high), (stops[3], stops[-1]))
    return ratio_colors(np.where(ratio <= threshold, blue, warm))


def wall_colors(ratio: np.ndarray, kind: np.ndarray, threshold: float) -> np.ndarray:
    """Return colours (N, 3), 0 to 1, of the points of a surface: `threshold_colors` on the wall, grey elsewhere."""
    colors = threshold_colors(ratio, threshold)
    colors[kind == OPENING] = OPENING_COLOR
    colors[kind == BORDER] = BORDER_COLOR
    return colors
