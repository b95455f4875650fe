"""Define the colours of pictures and charts; `wall.colors` has the wall's colours."""

from __future__ import annotations

Color = tuple[float, float, float]
"""Red, green and blue, 0 to 1."""

SEGMENT_COLORS: tuple[Color, ...] = (
    (0.93, 0.33, 0.31),
    (0.30, 0.69, 0.93),
    (0.47, 0.80, 0.42),
    (0.95, 0.77, 0.28),
    (0.73, 0.52, 0.91),
)
"""Default colours of segments and classes, in turn."""
DOUBT_COLOR: Color = (1.0, 0.72, 0.2)
"""Colour of doubt in slices and on surfaces: amber."""
LABEL_COLOR: Color = (1.0, 1.0, 1.0)
"""Colour of a label's outline."""
CHART_COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#333333")
"""Colours of lines in charts, in turn; colour-blind people can distinguish them (after Okabe and Ito)."""


def to_hex(color: Color) -> str:
    """Return a colour in HTML notation.

    >>> to_hex((1.0, 0.72, 0.2))
    '#ffb833'
    """
    return "#" + "".join(f"{round(255 * part):02x}" for part in color)
