"""Resample labels to the network grid."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .geometry import Box, NetworkGrid, axis_weights, bounding_box

EQUAL_FRACTIONS = 1e-5
"""Two fractions of a voxel count as equal if they differ by at most this.

Rounding errors of float32 are smaller, so they do not decide which class a voxel gets.
"""


def resample_labels(labels: np.ndarray, grid: NetworkGrid, outputs: int) -> tuple[Box, np.ndarray]:
    """Return the class that fills the largest part of each voxel of the network grid, in a box around the labels.

    Of classes that fill equal parts, the lowest is chosen; the background is class 0. The memory does not grow with the
    number of classes.

    Args:
        labels: (I, J, K) on the scan's grid, unsigned integers.
        outputs: number of classes, including background. Values from `outputs` on count as background.

    Returns:
        A box of the network grid, outside which all voxels are background, and the labels in this box, uint8 (X, Y, Z).
    """
    for box, resampled in resample_labels_in_slabs(labels, grid, outputs, slab_voxels=None):
        return box, resampled
    return (slice(0), slice(0), slice(0)), np.zeros((0, 0, 0), np.uint8)


def resample_labels_in_slabs(
    labels: np.ndarray, grid: NetworkGrid, outputs: int, slab_voxels: int | None
) -> Iterator[tuple[Box, np.ndarray]]:
    """Yield the result of `resample_labels` in slabs along X; yield nothing if all labels are background.

    Args:
        slab_voxels: about how many voxels of the network grid a slab has; None for one slab.
    """
    stored = grid.orientation.apply(labels)
    held = bounding_box(stored != 0)
    if held is None:
        return
    stored = stored[held]
    matrices, sides = zip(*(_interpolation(grid, axis, side) for axis, side in enumerate(held)), strict=True)
    (first, *others), (x, y, z) = matrices, sides
    thickness = len(first)
    if slab_voxels is not None:
        thickness = max(1, slab_voxels // max(1, math.prod(map(len, others))))
    for start in range(0, len(first), thickness):
        rows = first[start : start + thickness]
        columns = _range_of(np.asarray(rows.any(axis=0)))
        place = slice(x.start + start, x.start + start + len(rows))
        yield (place, y, z), _resample(stored[columns], (rows[:, columns], *others), outputs)


def _resample(stored: np.ndarray, matrices: tuple[np.ndarray, ...], outputs: int) -> np.ndarray:
    """Return the class that fills the largest part of each interpolated voxel, uint8 (X, Y, Z).

    Args:
        stored: labels on the scan's canonical grid.
        matrices: for each axis, a matrix (n, m), float32: the weight of each of the m voxels of `stored` in each of the
            n interpolated voxels.
    """
    shape = tuple(map(len, matrices))
    foreground, highest = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    winner = np.zeros(shape, np.uint8)
    for label in range(1, outputs):
        own = bounding_box(stored == label)
        if own is None:
            continue
        fraction = (stored[own] == label).astype(np.float32)
        reached = []
        for axis, (matrix, side) in enumerate(zip(matrices, own, strict=True)):
            rows = _range_of(np.asarray(matrix[:, side].any(axis=1)))
            fraction = np.moveaxis(np.tensordot(matrix[rows, side], fraction, (1, axis)), 0, axis)
            reached.append(rows)
        part = tuple(reached)
        foreground[part] += fraction
        higher = fraction > highest[part] + EQUAL_FRACTIONS
        winner[part][higher] = label
        highest[part][higher] = fraction[higher]
    winner[highest <= 1 - foreground + EQUAL_FRACTIONS] = 0
    return winner


def _interpolation(grid: NetworkGrid, axis: int, side: slice) -> tuple[np.ndarray, slice]:
    """Return the interpolation along a canonical axis from the scan's voxels in `side` to the network grid.

    Returns:
        The matrix (n, m) for `_resample`, and the range of its n voxels on the network grid.
    """
    weights = axis_weights(grid, axis)
    weights = np.eye(grid.canonical_shape[axis]) if weights is None else weights
    outputs = _range_of(np.asarray(weights[:, side].any(axis=1)))
    return weights[outputs, side].astype(np.float32), outputs


def _range_of(mask: np.ndarray) -> slice:
    indices = np.flatnonzero(mask)
    return slice(int(indices[0]), int(indices[-1]) + 1) if len(indices) else slice(0)
