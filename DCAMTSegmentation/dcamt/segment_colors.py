"""Define the default colours of segments and classes."""

from __future__ import annotations

import colorsys

Color = tuple[float, float, float]
"""Red, green and blue, 0 to 1."""

SEGMENT_COLORS: tuple[Color, ...] = (
    (0.93, 0.33, 0.31),
    (0.30, 0.69, 0.93),
    (0.50, 1.00, 0.50),
    (0.50, 0.20, 1.00),
    (0.70, 0.10, 0.60),
    (0.10, 0.80, 0.70),
    (0.50, 0.50, 1.00),
    (0.60, 0.30, 0.40),
)
"""Default colours of the first segments and classes.

Even a red-green blind reader can distinguish these colours from one another and from the colour of doubt in reports.
"""


def default_color(place: int) -> Color:
    """Return the default colour of the segment or class at a place in its list; the first place is 0."""
    if place < len(SEGMENT_COLORS):
        return SEGMENT_COLORS[place]
    # Golden-ratio steps around the colour circle keep neighbouring segments apart.
    return colorsys.hsv_to_rgb((0.02 + 0.618 * place) % 1, 0.55, 0.85)
