"""Find the part of a scan that shows anatomy, without surrounding air, noise or padding.

Averaged over some millimetres, intensities of air and noise hardly vary. Measured: a cropped scan centred in 576 x 576
x 88 voxels of air or noise takes 1.1 times the cropped scan's time instead of 24 times, with the same Dice
(Testing/benchmarks/README.md, "A whole scan").
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..geometry import Box, NetworkGrid, bounding_box, network_grid
from ..preprocessing import apply_along_axis, resample, smoothing_matrix
from ..recipe import Recipe
from ..volume import Volume

AVERAGED = 4
"""Spacing of the coarse grid on which anatomy is found, as a multiple of the network's finest spacing."""
VARIED_WITHIN = 1
"""Voxels of the coarse grid to either side over which a local mean is taken, three times in a row."""
BLUR = 2
"""Voxels of the coarse grid beyond the anatomy that vary too, since their local mean includes anatomy."""
STRUCTURE = 0.1
"""Local standard deviation over local mean above which a voxel is anatomy. LGE-MRI: 0.11 to 1.6; noise: 0.05."""
DISORDER, DISORDER_APART = 1.8, 1.65
"""Mean squared difference of neighbours, and of voxels `APART`, over the variance, above which a plane is noise.

It is 2 for independent voxels, at most 0.55 and 1.5 in planes of LGE-MRI, and 1.96 for voxels `APART` in noise blurred
by one voxel."""
APART, ALIKE_MM = 4, 4.0
"""Distance in voxels over which a slight blur does not correlate noise; distance in mm over which tissue correlates.

Where voxels or the coarse grid are too large to tell the two apart, only white noise is recognised."""
NOISE_KURTOSIS = (2.4, 4.5)
"""Range of the kurtosis of noise: 3 if Gaussian, 3.9 in magnitude images. A few vessels have more, waves have less."""
ORDERED = 0.38
"""Half the mean squared difference of neighbours on the coarse grid, over the variance, below which voxels are ordered.

0.1 to 0.5 in nine of ten voxels of LGE-MRI; above it everywhere in noise blurred by a voxel of 0.625 mm."""


def anatomy_box(volume: Volume, recipe: Recipe) -> Box | None:
    """Return the box of a scan, in its own voxels, that shows anatomy; None if there is none.

    Padding by a constant or by white noise is excluded to the voxel. So is noise that was smoothed together with the
    scan, for example by interpolation, where the scan is fine enough to tell: see `_without_smooth_noise`.
    """
    spacing = AVERAGED * min(recipe.spacing)
    grid = network_grid(volume.grid, (spacing, spacing, spacing))
    image = resample(volume, grid)
    if recipe.intensity.rule == "clip":
        image = image.clamp(recipe.intensity.low, recipe.intensity.high) - recipe.intensity.low
    mean, square = _local_mean(torch.stack([image, image.square()]).double())
    variance = (square - mean.square()).clamp_min(0)
    varies = variance.sqrt() > STRUCTURE * mean.abs() + 1e-6 * square.max().sqrt()
    varying = bounding_box(_without_blurred_rim(varies.any(dim=0).numpy()))
    if varying is None:
        return None
    # Padding can be mistaken for anatomy only as far as a coarse voxel's local mean reaches: 3 times `VARIED_WITHIN`,
    # one more by resampling, and up to the voxel's far side.
    reach = [math.ceil((3 * VARIED_WITHIN + 1.5) * spacing / float(step)) for step in volume.grid.spacing]
    box = _without_empty_faces(volume.voxels, grid.source_box(varying), reach)
    if max(spacing, APART * float(max(volume.grid.spacing))) > ALIKE_MM:
        return box
    rough = _local_mean(_roughness(image).double())
    ordered = bounding_box((varies & (rough < ORDERED * variance)).any(dim=0).numpy())
    return box if ordered is None else _without_smooth_noise(volume, box, grid.source_box(ordered), grid, reach, recipe)


def _local_mean(image: torch.Tensor) -> torch.Tensor:
    """Return each voxel's mean over its neighbourhood, (..., X, Y, Z)."""
    for axis in (-3, -2, -1):
        image = apply_along_axis(image, smoothing_matrix(image.shape[axis], VARIED_WITHIN, image.device), axis)
    return image


def _roughness(image: torch.Tensor) -> torch.Tensor:
    """Return half the squared difference between each voxel of (C, X, Y, Z) and the next, averaged over the axes."""
    squares = []
    for axis in (1, 2, 3):
        # The last voxel of an axis has no next one and is compared with the one before it.
        before_last = image.narrow(axis, max(0, image.shape[axis] - 2), 1)
        squares.append(torch.diff(image, dim=axis, append=before_last).square())
    return torch.stack(squares).mean(dim=0) / 2


def _without_blurred_rim(mask: np.ndarray) -> np.ndarray:
    """Return `mask` without the outermost `BLUR` voxels of its bounding box, except at the volume's border.

    An axis on which nothing would remain stays whole.
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


def _without_smooth_noise(
    volume: Volume, box: Box, ordered: Box, grid: NetworkGrid, reach: Sequence[int], recipe: Recipe
) -> Box:
    """Return `box` without outer planes of smooth noise beyond the `ordered` box, or at its rim.

    grid: the coarse grid. Smooth noise resembles fine tissue, which must not be lost: nothing is removed unless the
    ordered box could hold an organ, and no plane with any ordered voxels is.
    """
    for axis, stored in enumerate(grid.order):
        least = recipe.training.patch[axis] * recipe.spacing[axis] / 2
        if (ordered[stored].stop - ordered[stored].start) * grid.canonical_spacing[axis] < least:
            return box
    sides = list(box)
    for axis, (side, within, rim) in enumerate(zip(box, ordered, reach, strict=True)):
        # Each plane is judged within the ordered box's other two axes, so that noise beside tissue does not hide it.
        between = [*ordered[:axis], side, *ordered[axis + 1 :]]
        planes = np.moveaxis(volume.voxels[(slice(None), *between)], axis + 1, 0)
        most = max(0, within.start - side.start) + rim, max(0, side.stop - within.stop) + rim
        trimmed = _trim_ends(side, planes, most, _is_smooth_noise)
        # If no tissue appears where it should, the noise hides it, and this end stays.
        sides[axis] = slice(
            trimmed.start if trimmed.start < side.start + most[0] else side.start,
            trimmed.stop if trimmed.stop > side.stop - most[1] else side.stop,
        )
    return sides[0], sides[1], sides[2]


def _without_empty_faces(voxels: np.ndarray, box: Box, reach: Sequence[int]) -> Box:
    """Return `box` of voxels (C, I, J, K) without its outermost empty planes.

    At most `reach` planes are removed on each side of an axis; an axis of which nothing would remain stays whole.
    """
    part = voxels[(slice(None), *box)]
    i, j, k = (
        _trim_ends(side, np.moveaxis(part, axis + 1, 0), (most, most), _is_empty)
        for axis, (side, most) in enumerate(zip(box, reach, strict=True))
    )
    return i, j, k


def _trim_ends(side: slice, planes: np.ndarray, most: tuple[int, int], is_empty: Callable[[np.ndarray], bool]) -> slice:
    """Return the side of a box without its first and last planes, of (N, C, A, B), as long as these are empty.

    At most `most` planes are removed at each end; all stay if nothing would remain.
    """
    first = sum(1 for _ in itertools.takewhile(is_empty, planes[: most[0]]))
    last = sum(1 for _ in itertools.takewhile(is_empty, planes[::-1][: most[1]]))
    return slice(side.start + first, side.stop - last) if first + last < len(planes) else side


def _is_empty(plane: np.ndarray) -> bool:
    """Return whether each channel of (C, A, B) is constant or white noise.

    The test is the mean square of successive differences over the variance, 2 for independent values (J. von Neumann,
    Annals of Mathematical Statistics 1941). A few outliers, or a chessboard, count as noise, too.
    """
    values = plane - plane[:, :1, :1].astype(np.float64)  # exact for any type; a constant becomes 0
    differences = np.concatenate([np.diff(values, axis=axis).reshape(len(values), -1) for axis in (1, 2)], axis=1)
    return bool((np.square(differences).sum(axis=1) >= DISORDER * values.var(axis=(1, 2)) * differences.shape[1]).all())


def _is_smooth_noise(plane: np.ndarray) -> bool:
    """Return whether each channel of (C, A, B) is constant, or noise in which only the nearest voxels correlate.

    In such noise, voxels `APART` and twice as far differ as any two do, along either axis, and few are outliers.
    """
    if min(plane.shape[1:]) <= 2 * APART:
        return False
    return all(np.ptp(channel) == 0 or _is_disordered(channel) for channel in plane)


def _is_disordered(channel: np.ndarray) -> bool:
    """Return whether a channel (A, B), not constant, is noise as `_is_smooth_noise` describes it."""
    values = channel - channel.mean(dtype=np.float64)
    variance = np.square(values).mean()
    least, most = NOISE_KURTOSIS
    if not least <= np.square(np.square(values)).mean() / variance**2 <= most:
        return False
    differences = (turned[apart:] - turned[:-apart] for turned in (values, values.T) for apart in (APART, 2 * APART))
    return all(np.square(each).mean() >= DISORDER_APART * variance for each in differences)
