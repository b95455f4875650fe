"""The part of a scan that shows anatomy: without the air and the noise about it, or what it was padded by.

Their intensities hardly vary once they are averaged over some millimetres.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..geometry import Box, bounding_box, network_grid
from ..preprocessing import apply_along_axis, resampled, smoothing
from ..recipe import Recipe
from ..volume import Volume

AVERAGED = 4
"""Spacing of the grid on which anatomy is looked for, in the network's finest."""
VARIED_WITHIN = 1
"""How many of that grid's voxels to either side of each, three times over, intensities have to vary."""
BLUR = 2
"""How many of its voxels beyond the anatomy vary as well, by what they see of it."""
STRUCTURE = 0.1
"""Standard deviation over mean, of such averages, above which there is anatomy. LGE-MRI: 0.11 to 1.6; noise: 0.05."""
DISORDER, DISORDER_APART = 1.8, 1.65
"""Mean squared difference of neighbours, and of voxels `APART`, over the variance from which a plane is noise: 2 where
there is no order. In planes of LGE-MRI up to 0.55 and 1.5; voxels `APART` in noise blurred by a voxel: 1.96."""
APART, ALIKE_MM = 4, 4.0
"""Voxels from one to another that a slight blur does not make alike; and so near to one another places in tissue are.
Where voxels or the coarse grid are larger than to tell these apart, only white noise is known for noise."""
TAILS = (2.4, 4.5)
"""Kurtosis of noise: 3 if it is Gaussian, 3.9 if of magnitudes. A few vessels have more, waves have less."""
ORDER = 0.38
"""Half of the mean squared difference of neighbours on the coarse grid over the variance, below which there is order:
in most places of LGE-MRI (0.1 to 0.5 in nine of ten), and in no noise that is blurred by a voxel of 0.625 mm."""


def anatomy_box(volume: Volume, recipe: Recipe) -> Box | None:
    """The part of a scan, in its own voxels, in which intensities vary over more than a few voxels; None: nowhere.

    Where a scan was padded by a value or by white noise, the padding is no part of it, to the voxel. Nor is noise that
    was smoothed with it, as by interpolation, where the scan is fine enough to tell: see `_without_smooth_noise`.
    """
    spacing = AVERAGED * min(recipe.spacing)
    grid = network_grid(volume.grid, (spacing, spacing, spacing))
    image = resampled(volume, grid)
    if recipe.intensity.rule == "clip":
        image = image.clamp(recipe.intensity.low, recipe.intensity.high) - recipe.intensity.low
    mean, square = _locally_averaged(torch.stack([image, image.square()]).double())
    variance = (square - mean.square()).clamp_min(0)
    varies = variance.sqrt() > STRUCTURE * mean.abs() + 1e-6 * square.max().sqrt()
    there = bounding_box(_sharpened(varies.any(dim=0).numpy()))
    if there is None:
        return None
    # Padding is taken for anatomy as far as the coarse grid's voxels see some from there; further in there is none.
    # They see 3 times `VARIED_WITHIN`, one more by resampling, and are counted up to their far side.
    reach = [math.ceil((3 * VARIED_WITHIN + 1.5) * spacing / float(step)) for step in volume.grid.spacing]
    box = _without_empty_faces(volume.voxels, grid.source_box(there), reach)
    if max(spacing, APART * float(max(volume.grid.spacing))) > ALIKE_MM:
        return box
    rough = _locally_averaged(_roughness(image).double())
    ordered = bounding_box((varies & (rough < ORDER * variance)).any(dim=0).numpy())
    return box if ordered is None else _without_smooth_noise(volume, box, grid.source_box(ordered), reach, recipe)


def _locally_averaged(image: torch.Tensor) -> torch.Tensor:
    """Of each voxel of (..., X, Y, Z) a mean of those near it."""
    for axis in (-3, -2, -1):
        image = apply_along_axis(image, smoothing(image.shape[axis], VARIED_WITHIN, image.device), axis)
    return image


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


def _without_smooth_noise(volume: Volume, box: Box, ordered: Box, reach: Sequence[int], recipe: Recipe) -> Box:
    """`box` less outer planes of smooth noise that lie beyond what is `ordered` on the coarse grid, or at its rim.

    Nothing is cut off unless what is ordered could hold an organ, and no plane whose voxels have any order: smooth
    noise is hard to tell from fine tissue, which must not be lost.
    """
    at = network_grid(volume.grid, recipe.spacing)
    for axis, stored in enumerate(at.order):
        least = recipe.training.patch[axis] * recipe.spacing[axis] / 2
        if (ordered[stored].stop - ordered[stored].start) * at.canonical_spacing[axis] < least:
            return box
    sides = list(box)
    for axis, (side, within, rim) in enumerate(zip(box, ordered, reach, strict=True)):
        # Of each plane only what lies between what is ordered, so that noise beside tissue does not hide it.
        between = [*ordered[:axis], side, *ordered[axis + 1 :]]
        planes = np.moveaxis(volume.voxels[(slice(None), *between)], axis + 1, 0)
        most = max(0, within.start - side.start) + rim, max(0, side.stop - within.stop) + rim
        less = _without_ends(side, planes, most, _is_smooth_noise)
        # An end at which no tissue turns up where it should is no end of noise, but noise that hides the tissue.
        sides[axis] = slice(
            less.start if less.start < side.start + most[0] else side.start,
            less.stop if less.stop > side.stop - most[1] else side.stop,
        )
    return sides[0], sides[1], sides[2]


def _without_empty_faces(voxels: np.ndarray, box: Box, reach: Sequence[int]) -> Box:
    """`box` of voxels (C, I, J, K) less its outermost planes, as long as these are empty.

    At most `reach` of them on each side of an axis; and all stay of an axis of which nothing would be left.
    """
    part = voxels[(slice(None), *box)]
    i, j, k = (
        _without_ends(side, np.moveaxis(part, axis + 1, 0), (most, most), _is_empty)
        for axis, (side, most) in enumerate(zip(box, reach, strict=True))
    )
    return i, j, k


def _without_ends(
    side: slice, planes: np.ndarray, most: tuple[int, int], is_empty: Callable[[np.ndarray], bool]
) -> slice:
    """A side of a box less its first and last planes, of (N, C, A, B), as long as these are empty.

    At most so many at each end; all stay if nothing would be left.
    """
    first = sum(1 for _ in itertools.takewhile(is_empty, planes[: most[0]]))
    last = sum(1 for _ in itertools.takewhile(is_empty, planes[::-1][: most[1]]))
    return slice(side.start + first, side.stop - last) if first + last < len(planes) else side


def _is_empty(plane: np.ndarray) -> bool:
    """Whether each channel of (C, A, B) holds one value only, or white noise: neighbours differ as any two voxels do.

    By the mean square of successive differences over the variance: 2 where there is no order (J. von Neumann, Annals of
    Mathematical Statistics 1941). A few wild voxels are no order either, and a chessboard is none.
    """
    values = plane - plane[:, :1, :1].astype(np.float64)  # exact for any type; of one value nothing is left
    differences = np.concatenate([np.diff(values, axis=axis).reshape(len(values), -1) for axis in (1, 2)], axis=1)
    return bool((np.square(differences).sum(axis=1) >= DISORDER * values.var(axis=(1, 2)) * differences.shape[1]).all())


def _is_smooth_noise(plane: np.ndarray) -> bool:
    """Whether each channel of (C, A, B) holds one value only, or noise in which only the nearest voxels are alike.

    Voxels `APART` and twice as far differ as any two do, along either axis, and few lie far out.
    """
    if min(plane.shape[1:]) <= 2 * APART:
        return False
    return all(np.ptp(channel) == 0 or _is_disordered(channel) for channel in plane)


def _is_disordered(channel: np.ndarray) -> bool:
    """The same of a channel (A, B) of several values."""
    values = channel - channel.mean(dtype=np.float64)
    variance = np.square(values).mean()
    least, most = TAILS
    if not least <= np.square(np.square(values)).mean() / variance**2 <= most:
        return False
    differences = (turned[apart:] - turned[:-apart] for turned in (values, values.T) for apart in (APART, 2 * APART))
    return all(np.square(each).mean() >= DISORDER_APART * variance for each in differences)
