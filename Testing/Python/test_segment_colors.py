"""Test that the default colours of segments can be distinguished, also by red-green blind readers."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from dcamt.report.colors import DOUBT_COLOR
from dcamt.segment_colors import SEGMENT_COLORS, default_color

# These two matrices apply to linear RGB (Machado, Oliveira and Fernandes, IEEE TVCG 15:1291, 2009).
DEUTERANOPIA = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
PROTANOPIA = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
NORMAL = np.eye(3)
RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def cielab(color: tuple[float, float, float], vision: np.ndarray) -> np.ndarray:
    """Return the CIELAB values (D65) of an sRGB colour as seen with `vision`."""
    srgb = np.array(color)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(RGB_TO_XYZ @ np.clip(vision @ linear, 0.009, 1) / (0.9505, 1.0, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("vision", "least"), [(NORMAL, 40), (DEUTERANOPIA, 20), (PROTANOPIA, 20)])
def test_default_colors_and_doubt_differ_from_one_another(vision: np.ndarray, least: float) -> None:
    assert len(SEGMENT_COLORS) >= 8
    seen = [cielab(color, np.array(vision)) for color in (*SEGMENT_COLORS, DOUBT_COLOR)]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > least


def test_segments_beyond_the_palette_have_colors_of_their_own() -> None:
    assert len({default_color(place) for place in range(40)}) == 40
