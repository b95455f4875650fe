"""A part of a scan as a scan of its own, and what was found in it back in its place."""

from __future__ import annotations

import numpy as np

from ..geometry import Box
from ..volume import Labelmap, Volume


def crop(volume: Volume, box: Box) -> Volume:
    """The scan's voxels (C, I, J, K) within `box`, at their places in the patient; a view, no copy."""
    return Volume(volume.voxels[(slice(None), *box)], volume.grid.crop(box), volume.path)


def paste(part: np.ndarray, box: Box, shape: tuple[int, int, int], outside: float) -> np.ndarray:
    """`part` (..., i, j, k) at `box` of a whole (..., I, J, K) that is `outside` elsewhere."""
    pasted = (
        np.full((*part.shape[:-3], *shape), outside, part.dtype)
        if outside
        else np.zeros((*part.shape[:-3], *shape), part.dtype)
    )
    pasted[(..., *box)] = part
    return pasted


def grown(box: Box, labels: Labelmap, margin: tuple[int, int, int], shape: tuple[int, int, int]) -> Box:
    """`box`, of a whole of `shape`, by `margin` larger on those sides where a label within it touches them."""
    sides = []
    for axis, (part, more, length) in enumerate(zip(box, margin, shape, strict=True)):
        first, last = (np.take(labels.voxels, end, axis=axis).any() for end in (0, -1))
        start = max(0, part.start - more) if first else part.start
        stop = min(length, part.stop + more) if last else part.stop
        sides.append(slice(start, stop))
    return sides[0], sides[1], sides[2]
