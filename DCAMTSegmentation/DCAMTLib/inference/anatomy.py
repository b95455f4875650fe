"""The part of a scan that shows anatomy: without the air and the noise about it, or what it was padded by.

Their intensities hardly vary once they are averaged over some millimetres.
"""

from __future__ import annotations

import numpy as np
import torch

from ..measurements import bounding_box
from ..preprocessing import network_grid, resampled, smoothing, weigh
from ..recipe import Recipe
from ..volume import Box, Volume
from .cropping import source_box

AVERAGED, VARIED_WITHIN, BLUR = 4, 1, 2
"""Anatomy is looked for on a grid of 4 times the network's finest spacing, three voxels to either side of each. Where
it ends, two voxels beyond it vary as well, by what they see of it."""
STRUCTURE = 0.1
"""Standard deviation over mean, of such averages, above which there is anatomy. LGE-MRI: 0.11 to 1.6; noise: 0.05."""
DISORDER = 1.8
"""Of neighbours' mean squared difference over the variance, from which a plane is empty: 2 in noise, 0.1 in tissue."""


def anatomy_box(volume: Volume, recipe: Recipe) -> Box | None:
    """The part of a scan, in its own voxels, in which intensities vary over more than a few voxels; None: nowhere.

    Where a scan was padded by a value or by noise, the padding is no part of it, to the voxel.
    """
    spacing = AVERAGED * min(recipe.spacing)
    grid = network_grid(volume.grid, (spacing, spacing, spacing))
    image = resampled(volume, grid)
    if recipe.intensity.rule == "clip":
        image = image.clamp(recipe.intensity.low, recipe.intensity.high) - recipe.intensity.low
    moments = torch.stack([image, image.square()]).double()
    for axis in range(3):
        moments = weigh(moments, smoothing(grid.shape[axis], VARIED_WITHIN, image.device), axis - 3)
    mean, square = moments
    varies = (square - mean.square()).clamp_min(0).sqrt() > STRUCTURE * mean.abs() + 1e-6 * square.max().sqrt()
    box = source_box(sharpened(varies.any(dim=0).numpy(), BLUR), grid)
    return box and without_empty_faces(volume.voxels, box)


def sharpened(mask: np.ndarray, blur: int) -> np.ndarray:
    """`mask` without what lies in its bounding box's outermost `blur` voxels, but for the sides at the volume's border.

    Of an axis on which nothing would be left, all stays.
    """
    sharp = np.zeros_like(mask)
    box = bounding_box(mask)
    if box is None:
        return sharp
    inner = list(box)
    for axis, (side, length) in enumerate(zip(box, mask.shape, strict=True)):
        start = side.start + blur if side.start > 0 else 0
        stop = side.stop - blur if side.stop < length else length
        if start < stop:
            inner[axis] = slice(start, stop)
    sharp[tuple(inner)] = mask[tuple(inner)]
    return sharp


def without_empty_faces(voxels: np.ndarray, box: Box) -> Box:
    """`box` of voxels (C, I, J, K) less its outermost planes, as long as these are empty; if all are, as it is."""
    part = voxels[(slice(None), *box)]
    sides = list(box)
    for axis, side in enumerate(box):
        planes = np.moveaxis(part, axis + 1, 0)
        first = next((at for at, plane in enumerate(planes) if not _is_empty(plane)), None)
        if first is not None:
            last = next(at for at in reversed(range(len(planes))) if not _is_empty(planes[at]))
            sides[axis] = slice(side.start + first, side.start + last + 1)
    return sides[0], sides[1], sides[2]


def _is_empty(plane: np.ndarray) -> bool:
    """Whether each channel of (C, A, B) holds one value only, or noise: neighbours differ as any two voxels do.

    By the mean square of successive differences over the variance: 2 where there is no order (J. von Neumann, Annals of
    Mathematical Statistics 1941), a few tenths in tissue.
    """
    values = plane - plane[:, :1, :1].astype(np.float64)  # so that of one value nothing is left
    squares = [np.diff(values, axis=axis) ** 2 for axis in (1, 2)]
    differences = sum(square.sum(axis=(1, 2)) for square in squares)
    variance = values.var(axis=(1, 2))
    return bool((differences >= DISORDER * variance * sum(square[0].size for square in squares)).all())
