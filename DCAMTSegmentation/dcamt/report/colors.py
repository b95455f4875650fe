"""Define the colours of doubt, label outlines and charts."""

from __future__ import annotations

from ..segment_colors import Color

DOUBT_COLOR: Color = (1.0, 0.72, 0.2)
"""Colour of doubt in slices and on surfaces: amber."""
LABEL_COLOR: Color = (1.0, 1.0, 1.0)
"""Colour of a label's outline."""
CHART_COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#333333")
"""Colours of lines in charts; colour-blind people can distinguish them (after Okabe and Ito)."""


def to_hex(color: Color) -> str:
    """Return a colour in HTML notation.

    >>> to_hex((1.0, 0.72, 0.2))
    '#ffb833'
    """
    return "#" + "".join(f"{round(255 * part):02x}" for part in color)
