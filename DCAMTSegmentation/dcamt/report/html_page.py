"""Format the head, colour keys and numbers of HTML reports."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from ..errors import fixed_number
from ..segment_colors import Color
from ..volume import SegmentInfo
from .colors import to_hex

# The policy allows the browser to load only the embedded pictures and styles.
_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><title>{title}</title><style>{key_style}{style}</style></head><body>
"""


_KEY_STYLE = """
.key { display: inline-block; width: 2.6mm; height: 2.6mm; border-radius: 50%; vertical-align: -.2mm;
  margin-right: 1mm; -webkit-print-color-adjust: exact; print-color-adjust: exact }
.keys span { display: inline-block; margin-right: 4mm }
"""


def page_head(title: str, style: str) -> str:
    """Return the HTML of a self-contained page up to the beginning of its body; `title` is plain text."""
    return _HEAD.format(title=escape(title), key_style=_KEY_STYLE, style=style)


def color_key(color: Color, text: str) -> str:
    """Return the HTML of a coloured dot and a plain text."""
    return f'<b class="key" style="background:{to_hex(color)}"></b>{escape(text)}'


def segment_keys(texts: Iterable[tuple[SegmentInfo, str]]) -> str:
    """Return the HTML of a paragraph with a coloured dot and a plain text for each segment."""
    keys = " ".join(f"<span>{color_key(segment.color, text)}</span>" for segment, text in texts)
    return f'<p class="faint keys">{keys}</p>'


def format_number(value: float, digits: int) -> str:
    """Return a number as `fixed_number` does; a dash if it is not finite.

    >>> format_number(61.234, 1), format_number(float("nan"), 1)
    ('61.2', '–')
    """
    return fixed_number(value, digits) if math.isfinite(value) else "–"
