"""A part of a scan as a scan of its own, and what was found in it back in its place."""

from __future__ import annotations

import numpy as np

from ..geometry import Box, Grid
from ..volume import Labelmap, Volume


def whole(grid: Grid) -> Box:
    """All of a grid's voxels."""
    x, y, z = (slice(0, length) for length in grid.shape)
    return x, y, z


def crop(volume: Volume, box: Box) -> Volume:
    """The scan's voxels (C, I, J, K) within `box`, at their places in the patient; a view, no copy."""
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    voxels = volume.voxels[(slice(None), *box)]
    return Volume(voxels, Grid(voxels.shape[1:], affine), volume.path)


def paste(part: np.ndarray, box: Box, shape: tuple[int, int, int], outside: float) -> np.ndarray:
    """`part` (..., i, j, k) at `box` of a whole (..., I, J, K) that is `outside` elsewhere."""
    pasted = (
        np.full((*part.shape[:-3], *shape), outside, part.dtype)
        if outside
        else np.zeros((*part.shape[:-3], *shape), part.dtype)
    )
    pasted[(..., *box)] = part
    return pasted


def seen_from(outer: Box, inner: Box) -> Box:
    """A box of a whole as one of its part `outer`, which holds it."""
    i, j, k = (slice(b.start - a.start, b.stop - a.start) for a, b in zip(outer, inner, strict=True))
    return i, j, k


def grown(box: Box, labels: Labelmap, margin: tuple[int, int, int], shape: tuple[int, int, int]) -> Box:
    """`box`, of a whole of `shape`, by `margin` larger on those sides where a label within it touches them."""
    sides = []
    for axis, (part, more, length) in enumerate(zip(box, margin, shape, strict=True)):
        first, last = (np.take(labels.voxels, end, axis=axis).any() for end in (0, -1))
        start = max(0, part.start - more) if first else part.start
        stop = min(length, part.stop + more) if last else part.stop
        sides.append(slice(start, stop))
    return sides[0], sides[1], sides[2]
