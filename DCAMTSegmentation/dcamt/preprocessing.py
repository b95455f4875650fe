"""Resample scans and labels to the network grid, resample results back, and normalise intensities.

The network grid (`geometry.NetworkGrid`) has the scan's axes, even if they are oblique, so each axis can be resampled
separately.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .case_memory import MOMENTS
from .devices import to_device
from .geometry import Box, NetworkGrid, axis_weights, network_grid, reverse_slice
from .label_resampling import resample_labels
from .recipe import Intensity, Recipe
from .volume import Labelmap, Volume, check_channels

SLAB = 1 << 18
"""Maximum number of voxels processed at a time (but at least one plane), chosen to fit into the processor's cache."""


def scan_to_network(volume: Volume, recipe: Recipe, grid: NetworkGrid | None = None) -> tuple[Tensor, NetworkGrid]:
    """Return the network's input for a scan, float32 (C, X, Y, Z), and its network grid.

    Args:
        grid: the network grid, if it is already computed.

    Raises:
        InputError: the scan's number of channels differs from the recipe's.
    """
    check_channels(len(volume.voxels), recipe.input_channels, volume.path)
    grid = grid or network_grid(volume.grid, recipe.spacing)
    return normalise(resample(volume, grid), recipe.intensity, recipe.spacing), grid


def resample(volume: Volume, grid: NetworkGrid) -> Tensor:
    """Return a scan's intensities on the network grid, float32 (C, X, Y, Z)."""
    canonical = grid.orientation.apply(volume.voxels)
    channels, *size = canonical.shape
    x, y, z = (_axis_weights(grid, axis, backward=False) for axis in range(3))
    # Y and Z are resampled first, a few X slices at a time: only these slices are in float32 at the scan's resolution.
    flat = torch.empty((channels, size[0], grid.shape[1], grid.shape[2]))
    for slab in _slabs(canonical, axis=1):
        # Writeable, since torch warns of read-only arrays.
        part = torch.from_numpy(np.require(canonical[:, slab], np.float32, ["C_CONTIGUOUS", "WRITEABLE"]))
        flat[:, slab] = apply_along_axis(apply_along_axis(part, z, -1), y, -2)
    return apply_along_axis(flat, x, -3)


def labels_to_network(labelmap: Labelmap, grid: NetworkGrid, outputs: int) -> Tensor:
    """Return labels on the network grid, uint8 (X, Y, Z), as `resample_labels` computes them.

    Args:
        outputs: number of classes, including background.
    """
    labels = np.zeros(grid.shape, np.uint8)
    box, inside = resample_labels(labelmap.voxels, grid, outputs)
    labels[box] = inside
    return torch.from_numpy(labels)


def nearest_labels(labels: np.ndarray, grid: NetworkGrid) -> np.ndarray:
    """Resample labels from the scan's grid (I, J, K) to the network grid (X, Y, Z) by nearest neighbour."""
    stored = grid.orientation.apply(labels)
    index = []
    axes = zip(grid.shape, grid.spacing, stored.shape, grid.canonical_spacing, strict=True)
    for cells, spacing, size, scan_spacing in axes:
        # Both grids have the same centre.
        at = (np.arange(cells) - (cells - 1) / 2) * (spacing / scan_spacing) + (size - 1) / 2
        index.append(np.clip(np.rint(at), 0, size - 1).astype(np.intp))
    return np.asarray(stored[np.ix_(*index)])


def to_source(values: Tensor, grid: NetworkGrid, part: Box | None = None) -> np.ndarray:
    """Interpolate values linearly from the network grid (..., X, Y, Z) to the scan's own grid (..., I, J, K).

    Args:
        part: the box of the scan's voxels to compute; by default all.
    """
    values = values.float()
    for axis, (stored, flip) in enumerate(zip(grid.order, grid.flipped, strict=True)):
        side = reverse_slice(part[stored], grid.canonical_shape[axis], flip) if part else slice(None)
        weights = _axis_weights(grid, axis, backward=True)
        if weights is None:
            values = values.movedim(axis - 3, 0)[side].movedim(0, axis - 3)
        else:
            values = apply_along_axis(values, weights[side], axis - 3)
    array = values.cpu().numpy()
    # `invert` may return a view with a reversed axis. `torch.from_numpy`, which callers use, would refuse such a view.
    return grid.orientation.invert(array).copy()


def source_box_of(box: Box, grid: NetworkGrid) -> Box:
    """Return the box (I, J, K) of the scan's voxels whose values from `to_source` depend on voxels in `box`.

    Args:
        box: a box (X, Y, Z) of the network grid.
    """
    reached = list(box)
    for axis, side in enumerate(box):
        weights = _axis_weights(grid, axis, backward=True)
        if weights is not None:
            (voxels,) = torch.nonzero(weights[:, side].any(dim=1), as_tuple=True)
            reached[axis] = slice(int(voxels[0]), int(voxels[-1]) + 1)
    return grid.orientation.invert_box(reached, grid.canonical_shape)


def intensity_reach(rule: Intensity) -> float:
    """Return the largest magnitude of intensities after normalisation by the rule."""
    return 1.0 if rule.rule == "clip" else 4.0


def normalise(
    image: Tensor, rule: Intensity, spacing: Sequence[float], precision: torch.dtype = torch.float64
) -> Tensor:
    """Return intensities (C, X, Y, Z) normalised by the rule, with magnitudes up to `intensity_reach(rule)`.

    Args:
        spacing: spacing of the voxels in mm.
        precision: type in which local mean and variance are computed. float32 is accurate enough only for
            intensities around 0.
    """
    if rule.rule == "clip":
        return image.clamp(rule.low, rule.high).sub_(rule.low).mul_(2 / (rule.high - rule.low)).sub_(1)
    reach = [max(1, round(rule.radius_mm / step)) for step in spacing]
    x, y, z = (
        to_device(smoothing_matrix(length, n).to(precision), image.device)
        for length, n in zip(image.shape[1:], reach, strict=True)
    )
    result = torch.empty_like(image, memory_format=torch.contiguous_format)
    for part in _slabs(image, axis=3, voxels=MOMENTS):
        _normalise_locally(image, (x, y, z[part]), image[..., part], intensity_reach(rule), result[..., part])
    return result


def _normalise_locally(
    image: Tensor, smoothing: tuple[Tensor, Tensor, Tensor], part: Tensor, reach: float, result: Tensor
) -> None:
    """Write a part of `image` (C, X, Y, Z), normalised by the local mean and deviation, into `result`.

    Args:
        smoothing: the matrices of the box filter along X, Y and Z; the last has rows only for the part.
        part: all of X and Y, and a range of Z.
    """
    x, y, z = smoothing
    moments = torch.empty((2, *part.shape), dtype=z.dtype, device=image.device)
    for slab in _slabs(image, axis=1):
        values = image[:, slab].to(z.dtype)
        moments[:, :, slab] = apply_along_axis(apply_along_axis(torch.stack([values, values.square()]), z, -1), y, -2)
    for slab in _slabs(part, axis=2):
        mean, square = apply_along_axis(moments[:, :, :, slab], x, -3)
        deviation = (square - mean.square()).clamp_min_(0).sqrt_()
        # The small terms keep noise from being amplified where intensities hardly vary.
        local = (part[:, :, slab] - mean) / (deviation + 1e-3 * square.sqrt_() + 1e-12)
        result[:, :, slab] = local.clamp_(-reach, reach)


def _slabs(image: Tensor | np.ndarray, axis: int, voxels: int | None = None) -> Iterator[slice]:
    """Yield index ranges along an axis of `image` (C, X, Y, Z), of at most `voxels` voxels but at least one plane."""
    length = image.shape[axis]
    thickness = max(1, (voxels or SLAB) * length // math.prod(image.shape))
    return (slice(start, start + thickness) for start in range(0, length, thickness))


def smoothing_matrix(length: int, reach: int) -> Tensor:
    """Return the float64 matrix (length, length) of a box filter applied three times, which approximates a Gaussian.

    At the border only voxels inside the scan are averaged.

    Args:
        reach: number of voxels on either side of the box's centre.
    """
    index = torch.arange(length)
    near = (index[:, None] - index).abs() <= reach
    box = near.double() / near.sum(dim=1, keepdim=True)
    return box @ box @ box


def _axis_weights(grid: NetworkGrid, axis: int, *, backward: bool) -> Tensor | None:
    weights = axis_weights(grid, axis, backward=backward)
    return None if weights is None else torch.from_numpy(weights).float()


def apply_along_axis(values: Tensor, weights: Tensor | None, axis: int) -> Tensor:
    """Return `values` (..., X, Y, Z) multiplied along axis -3, -2 or -1 by a matrix (outputs, inputs).

    Args:
        weights: the matrix; None for the identity.
    """
    if weights is None:
        return values
    weights = weights.to(values)
    if axis == -1:
        return values @ weights.T
    if axis == -2:
        return weights @ values
    return (weights @ values.flatten(-2)).reshape(*values.shape[:-3], -1, *values.shape[-2:])
