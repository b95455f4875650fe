"""Shorten text that is too long for its place."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable


def shorten_middle(text: str, fits: Callable[[str], bool]) -> str:
    """Return the text; if it does not fit, an ellipsis replaces as little of its middle as possible.

    >>> shorten_middle("Pulmonary vein left superior", lambda text: len(text) <= 20)
    'Pulmonary … superior'
    """

    def keep(count: int) -> str:
        return f"{text[: (count + 1) // 2]}…{text[len(text) - count // 2 :]}"

    return text if fits(text) else keep(bisect(range(1, len(text)), False, key=lambda count: not fits(keep(count))))
