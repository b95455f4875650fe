"""The part of a scan that shows anatomy: without the air and the noise about it, or what it was padded by.

Their intensities hardly vary once they are averaged over some millimetres.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch

from ..measurements import bounding_box
from ..preprocessing import covered_by, network_grid, resampled, smoothing, weigh
from ..recipe import Recipe
from ..volume import Box, Volume

AVERAGED = 4
"""Spacing of the grid on which anatomy is looked for, in the network's finest."""
VARIED_WITHIN = 1
"""How many of that grid's voxels to either side of each, three times over, intensities have to vary."""
BLUR = 2
"""How many of its voxels beyond the anatomy vary as well, by what they see of it."""
STRUCTURE = 0.1
"""Standard deviation over mean, of such averages, above which there is anatomy. LGE-MRI: 0.11 to 1.6; noise: 0.05."""
DISORDER = 1.8
"""Neighbours' mean squared difference over the variance from which a plane is empty: 2 in noise, LGE-MRI up to 0.55."""


def anatomy_box(volume: Volume, recipe: Recipe) -> Box | None:
    """The part of a scan, in its own voxels, in which intensities vary over more than a few voxels; None: nowhere.

    Where a scan was padded by a value or by white noise, the padding is no part of it, to the voxel.
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
    there = bounding_box(_sharpened(varies.any(dim=0).numpy()))
    if there is None:
        return None
    # Padding is taken for anatomy as far as the coarse grid's voxels see some from there; further in there is none.
    # They see 3 times `VARIED_WITHIN`, one more by resampling, and are counted up to their far side.
    reach = [math.ceil((3 * VARIED_WITHIN + 1.5) * spacing / float(step)) for step in volume.grid.spacing]
    return _without_empty_faces(volume.voxels, covered_by(there, grid), reach)


def _sharpened(mask: np.ndarray) -> np.ndarray:
    """`mask` without what lies in its bounding box's outermost `BLUR` voxels, but for the sides at the volume's border.

    Of an axis on which nothing would be left, all stays.
    """
    sharp = np.zeros_like(mask)
    box = bounding_box(mask)
    if box is None:
        return sharp
    inner = list(box)
    for axis, (side, length) in enumerate(zip(box, mask.shape, strict=True)):
        start = side.start + BLUR if side.start > 0 else 0
        stop = side.stop - BLUR if side.stop < length else length
        if start < stop:
            inner[axis] = slice(start, stop)
    sharp[tuple(inner)] = mask[tuple(inner)]
    return sharp


def _without_empty_faces(voxels: np.ndarray, box: Box, reach: Sequence[int]) -> Box:
    """`box` of voxels (C, I, J, K) less its outermost planes, as long as these are empty.

    At most `reach` of them on each side of an axis; and all stay of an axis of which nothing would be left.
    """
    part = voxels[(slice(None), *box)]
    sides = list(box)
    for axis, (side, most) in enumerate(zip(box, reach, strict=True)):
        planes = np.moveaxis(part, axis + 1, 0)
        first = sum(1 for _ in itertools.takewhile(_is_empty, planes[:most]))
        last = sum(1 for _ in itertools.takewhile(_is_empty, planes[::-1][:most]))
        if first + last < len(planes):
            sides[axis] = slice(side.start + first, side.stop - last)
    return sides[0], sides[1], sides[2]


def _is_empty(plane: np.ndarray) -> bool:
    """Whether each channel of (C, A, B) holds one value only, or white noise: neighbours differ as any two voxels do.

    By the mean square of successive differences over the variance: 2 where there is no order (J. von Neumann, Annals of
    Mathematical Statistics 1941). A few wild voxels are no order either, and a chessboard is none.
    """
    values = plane - plane[:, :1, :1].astype(np.float64)  # exact for any type; of one value nothing is left
    differences = np.concatenate([np.diff(values, axis=axis).reshape(len(values), -1) for axis in (1, 2)], axis=1)
    return bool((np.square(differences).sum(axis=1) >= DISORDER * values.var(axis=(1, 2)) * differences.shape[1]).all())
