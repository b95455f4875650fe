"""The part of a scan that shows anatomy: without the air and the noise about it, or what it was padded by.

Averaged over some millimetres their intensities hardly vary, or vary without order: neighbours differ as any two do.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch

from ..measurements import bounding_box
from ..preprocessing import covered_by, network_grid, resampled, smoothing, weigh
from ..recipe import Recipe
from ..volume import Box, Volume

ALIKE_MM = 3.0
"""So near to one another, places in an organ are alike."""
AVERAGED = 4
"""Spacing of the grid on which anatomy is looked for, in the network's finest; `ALIKE_MM` at most."""
VARIED_WITHIN = 1
"""How many of that grid's voxels to either side of each, three times over, intensities have to vary."""
BLUR = 1
"""How many of its voxels beyond the anatomy vary as well, by what they see of it."""
STRUCTURE = 0.1
"""Standard deviation over mean, of such averages, above which there is anatomy. LGE-MRI: 0.11 to 1.6; noise: 0.05."""
ORDER = 0.38
"""And half of the mean squared difference of neighbours over the variance, below which there is anatomy. LGE-MRI: 0.1
to 0.5 in nine of ten places; white noise: above 0.5, blurred by a voxel: above 0.39."""
APART = 4
"""Voxels from one of a plane to the one it is compared with, within `ALIKE_MM`: a scanner smooths over less."""
DISORDER = 1.7
"""Their mean squared difference over the variance from which a plane is empty. LGE-MRI: up to 1.55; noise: 2, blurred
by one and a half voxels still 1.84."""


def anatomy_box(volume: Volume, recipe: Recipe) -> Box | None:
    """The part of a scan, in its own voxels, in which intensities vary over more than a few voxels; None: nowhere.

    Where a scan was padded by a value or by noise, the padding is no part of it, to the voxel.
    """
    spacing = min(AVERAGED * min(recipe.spacing), ALIKE_MM)
    grid = network_grid(volume.grid, (spacing, spacing, spacing))
    image = resampled(volume, grid)
    if recipe.intensity.rule == "clip":
        image = image.clamp(recipe.intensity.low, recipe.intensity.high) - recipe.intensity.low
    moments = torch.stack([image, image.square(), _roughness(image)]).double()
    for axis in range(3):
        moments = weigh(moments, smoothing(grid.shape[axis], VARIED_WITHIN, image.device), axis - 3)
    mean, square, rough = moments
    variance = (square - mean.square()).clamp_min(0)
    varies = variance.sqrt() > STRUCTURE * mean.abs() + 1e-6 * square.max().sqrt()
    there = bounding_box(_sharpened((varies & (rough < ORDER * variance)).any(dim=0).numpy()))
    if there is None:
        return None
    # Padding is taken for anatomy as far as the coarse grid's voxels see some from there; further in there is none.
    # They see 3 times `VARIED_WITHIN`, one more by resampling, and are counted up to their far side.
    reach = [math.ceil((3 * VARIED_WITHIN + 1.5) * spacing / float(step)) for step in volume.grid.spacing]
    apart = [max(1, min(APART, int(ALIKE_MM / float(step)))) for step in volume.grid.spacing]
    return _without_empty_faces(volume.voxels, covered_by(there, grid), reach, apart)


def _roughness(image: torch.Tensor) -> torch.Tensor:
    """Half of the squared difference between each voxel of (C, X, Y, Z) and the next, a mean over the three axes."""
    squares = []
    for axis in (1, 2, 3):
        # The last voxel of an axis has no next one; the one before it lies as near.
        before_last = image.narrow(axis, max(0, image.shape[axis] - 2), 1)
        squares.append(torch.diff(image, dim=axis, append=before_last).square())
    return torch.stack(squares).mean(dim=0) / 2


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


def _without_empty_faces(voxels: np.ndarray, box: Box, reach: Sequence[int], apart: Sequence[int]) -> Box:
    """`box` of voxels (C, I, J, K) less its outermost planes, as long as these are empty.

    At most `reach` of them on each side of an axis; and all stay of an axis of which nothing would be left. `apart`:
    for each axis, how many voxels lie from one to the one it is compared with.
    """
    part = voxels[(slice(None), *box)]
    sides = list(box)
    for axis, (side, most) in enumerate(zip(box, reach, strict=True)):
        planes = np.moveaxis(part, axis + 1, 0)
        is_empty = functools.partial(_is_empty, apart=[*apart[:axis], *apart[axis + 1 :]])
        first = sum(1 for _ in itertools.takewhile(is_empty, planes[:most]))
        last = sum(1 for _ in itertools.takewhile(is_empty, planes[::-1][:most]))
        if first + last < len(planes):
            sides[axis] = slice(side.start + first, side.stop - last)
    return sides[0], sides[1], sides[2]


def _is_empty(plane: np.ndarray, apart: Sequence[int]) -> bool:
    """Whether each channel of (C, A, B) holds one value only, or noise: near voxels differ as any two do.

    By the mean square of the differences between voxels that lie `apart` voxels along A, or B, over the variance: 2
    where there is no order (J. von Neumann, Annals of Mathematical Statistics 1941, of successive ones). A few wild
    voxels are no order either.
    """
    values = plane - plane[:, :1, :1].astype(np.float64)  # exact for any type; of one value nothing is left
    pairs = [
        values[:, apart[0] :] - values[:, : -apart[0]],
        values[:, :, apart[1] :] - values[:, :, : -apart[1]],
    ]
    differences = np.concatenate([pair.reshape(len(values), -1) for pair in pairs], axis=1)
    return bool((np.square(differences).sum(axis=1) >= DISORDER * values.var(axis=(1, 2)) * differences.shape[1]).all())
