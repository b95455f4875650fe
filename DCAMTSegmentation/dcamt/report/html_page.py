"""Format the head and the numbers of HTML reports."""

from __future__ import annotations

import math
from html import escape

from ..errors import fixed_number

# The policy allows the browser to load only the embedded pictures and styles.
_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><title>{title}</title><style>{style}</style></head><body>
"""


def page_head(title: str, style: str) -> str:
    """Return the HTML of a self-contained page up to the beginning of its body; `title` is plain text."""
    return _HEAD.format(title=escape(title), style=style)


def format_number(value: float, digits: int) -> str:
    """Return a number as `fixed_number` does; a dash if it is not finite.

    >>> format_number(61.234, 1), format_number(float("nan"), 1)
    ('61.2', '–')
    """
    return fixed_number(value, digits) if math.isfinite(value) else "–"
