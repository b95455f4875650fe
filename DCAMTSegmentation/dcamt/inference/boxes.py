"""Parts of a volume, and tiles that make it up."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ..geometry import Box
from .one_pass import Size

Tile = tuple[Box, Box, Box]
"""The part to compute on, the part it yields, and where that lies in the first."""


def tiles_of(size: Size, tile: Size, margin: int, step: int) -> Iterator[Tile]:
    """Tiles whose yields make up the volume."""
    axes = []
    for length, edge in zip(size, tile, strict=True):
        core = length if edge >= length else max(step, (edge - 2 * margin) // step * step)
        parts = []
        for start in range(0, length, core):
            stop = min(length, start + core)
            low, high = max(0, start - margin), min(length, stop + margin)
            parts.append((slice(low, high), slice(start, stop), slice(start - low, stop - low)))
        axes.append(parts)
    for x, y, z in itertools.product(*axes):
        yield (x[0], y[0], z[0]), (x[1], y[1], z[1]), (x[2], y[2], z[2])


def everywhere(box: Box) -> tuple[slice, ...]:
    """A part of (B, C, X, Y, Z), in all samples and channels."""
    return (slice(None), slice(None), *box)


def coarser(box: Box, step: int) -> Box:
    """The same part on a grid `step` times coarser."""
    x, y, z = (slice(part.start // step, part.stop // step) for part in box)
    return x, y, z
