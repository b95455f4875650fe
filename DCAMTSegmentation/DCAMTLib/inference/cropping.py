"""Parts of a scan: one as a scan of its own, what was found in it back in its place, and what another grid shows."""

from __future__ import annotations

import math

import numpy as np

from ..measurements import bounding_box
from ..preprocessing import NetworkGrid, turned
from ..volume import Box, Grid, Labelmap, Volume


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


def source_box(mask: np.ndarray, grid: NetworkGrid) -> Box | None:
    """The box, in the scan's own voxels, about a mask on another grid of the same scan; None: the mask is empty."""
    there = bounding_box(mask)
    if there is None:
        return None
    box = [slice(0)] * 3
    for axis, (stored, flipped) in enumerate(zip(grid.order, grid.flipped, strict=True)):
        length, step = grid.canonical_shape[axis], grid.spacing[axis] / grid.canonical_spacing[axis]
        # Faces of voxels rather than centres, from the centre that both grids share.
        low, high = (
            float(face - grid.shape[axis] / 2) * step + length / 2 for face in (there[axis].start, there[axis].stop)
        )
        # Rounded first, so that what a flip leaves in the last digits decides nothing.
        start, stop = max(0, math.floor(round(low, 6))), min(length, math.ceil(round(high, 6)))
        box[stored] = turned(slice(start, stop), length, flipped)
    return box[0], box[1], box[2]
