"""Sample intensities inside the segment and along the surface's normals."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from ..geometry import SAME_PLACE_MM, Grid, bounding_box
from .surface import Extraction, Surface, plane_distances

EROSION_MM = 3.0
"""The blood pool is the segment eroded by this distance, to leave out the wall and voxels of partial volume."""
STEP_VOXELS = 0.5
"""Longest step along a normal, as a fraction of the smallest voxel spacing."""
_ROUNDING = 1e-3  # tolerance, as a fraction of a step


@dataclass(frozen=True)
class BloodPool:
    """Mean and standard deviation of the intensities in the blood pool, and its number of voxels."""

    mean: float
    sd: float
    voxels: int


def erode(mask: np.ndarray, grid: Grid, distance_mm: float) -> np.ndarray:
    """Return the voxels of `mask` (I, J, K) that are at least `distance_mm` from every voxel outside the mask.

    Distances are measured between voxel centres (tolerance: `SAME_PLACE_MM`). Voxels beyond the grid lie outside the
    mask.
    """
    box = bounding_box(mask)
    eroded = np.zeros_like(mask, dtype=bool)
    if box is None:
        return eroded
    reach = np.ceil(distance_mm / plane_distances(grid)).astype(int)
    outside = ~np.pad(mask[box], [(n, n) for n in reach])
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1)
    ball = np.linalg.norm(steps @ grid.affine[:3, :3].T, axis=-1) < distance_mm - SAME_PLACE_MM
    # Dilate `outside` by `ball`. `ball` is divided into rows that run along the first axis, and `outside` is dilated by
    # each row in turn. Many rows are equal, so `grown` stores the dilation by each distinct row for reuse.
    near = np.zeros_like(mask[box], dtype=bool)
    grown: dict[bytes, np.ndarray] = {}
    for j, k in np.argwhere(ball.any(axis=0)):
        row = ball[:, j, k]
        if row.tobytes() not in grown:
            grown[row.tobytes()] = np.logical_or.reduce([outside[i : i + near.shape[0]] for i in np.flatnonzero(row)])
        near |= grown[row.tobytes()][:, j : j + near.shape[1], k : k + near.shape[2]]
    eroded[box] = mask[box] & ~near
    return eroded


def blood_pool(
    voxels: np.ndarray, grid: Grid, mask: np.ndarray, mask_grid: Grid, extraction: Extraction | None = None
) -> BloodPool:
    """Return the statistics of a scan's `voxels` (I, J, K) inside `mask`, eroded by `EROSION_MM`.

    If the grids differ, the scan is interpolated at the mask's voxels. Voxels outside the scan are ignored. If the
    extracted surface leaves out separate parts of the segment (`extraction.separate_ml` is larger than 0), voxels
    outside `extraction.inside` are ignored, so that these parts do not count. If no voxel is left, mean and standard
    deviation are NaN.
    """
    eroded = erode(mask, mask_grid, EROSION_MM)
    if extraction is not None and extraction.separate_ml > 0:
        eroded[eroded] = nearest_values(extraction.inside, extraction.grid, _positions(eroded, mask_grid))
    if grid.matches(mask_grid):
        values = voxels[eroded].astype(np.float64)
    else:
        points = _positions(eroded, mask_grid)
        values = interpolate(voxels, grid, points[inside_scan(grid, points)]).astype(np.float64)
    if not len(values):
        return BloodPool(float("nan"), float("nan"), 0)
    return BloodPool(float(values.mean()), float(values.std()), len(values))


def offsets(first_mm: float, last_mm: float, grid: Grid) -> np.ndarray:
    """Return distances (S,) from `first_mm` to `last_mm`, evenly spaced by at most half the smallest voxel spacing."""
    step = STEP_VOXELS * float(grid.spacing.min())
    return np.linspace(first_mm, last_mm, ceil((last_mm - first_mm) / step - _ROUNDING) + 1)


def profiles(voxels: np.ndarray, grid: Grid, surface: Surface, distances_mm: np.ndarray) -> np.ndarray:
    """Return intensities (N, S), float32, at `distances_mm` (S,) along each point's outward normal.

    The intensities are interpolated linearly. Beyond the centres of the outermost voxels, the intensities of these
    voxels are repeated.
    """
    start = _voxel_index(grid, surface.points).T[:, :, None]
    step = (surface.normals @ np.linalg.inv(grid.affine[:3, :3]).T).T[:, :, None]
    return _values_at(voxels, start + step * distances_mm)


def reaches_border(grid: Grid, surface: Surface, distances_mm: np.ndarray) -> np.ndarray:
    """Return the mask (N,) bool of the surface's points that have at least one sample outside the scan.

    A scan is convex, so only the first and the last sample of each point are tested.

    Args:
        distances_mm: (S,), the distances of the samples along each point's normal, in ascending order.
    """
    near, far = (inside_scan(grid, surface.points + mm * surface.normals) for mm in distances_mm[[0, -1]])
    return np.asarray(~(near & far))


def inside_scan(grid: Grid, points: np.ndarray) -> np.ndarray:
    """Return the mask (P,) bool of the `points` (P, 3), in RAS mm, that lie in a voxel of `grid`."""
    index = _voxel_index(grid, points)
    return np.asarray(((index >= -0.5) & (index <= np.array(grid.shape) - 0.5)).all(axis=1))


def interpolate(voxels: np.ndarray, grid: Grid, points: np.ndarray) -> np.ndarray:
    """Return values (P,), float32, interpolated linearly from `voxels` (I, J, K) at `points` (P, 3) in RAS mm."""
    return _values_at(voxels, _voxel_index(grid, points).T)


def _values_at(voxels: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return values, float32, interpolated linearly from `voxels` (I, J, K) at voxel indices (3, ...)."""
    from scipy import ndimage

    if voxels.dtype == np.float16:  # SciPy cannot interpolate float16.
        voxels = voxels.astype(np.float32)
    values: np.ndarray = ndimage.map_coordinates(voxels, index, output=np.float32, order=1, mode="nearest")
    return values


def nearest_values(voxels: np.ndarray, grid: Grid, points: np.ndarray) -> np.ndarray:
    """Return the values (P,) of the voxels that contain `points` (P, 3) in RAS mm; 0 outside the grid."""
    index = np.rint(_voxel_index(grid, points)).astype(np.int64)
    inside = ((index >= 0) & (index < np.array(grid.shape))).all(axis=1)
    values = np.zeros(len(points), voxels.dtype)
    values[inside] = voxels[tuple(index[inside].T)]
    return values


def _positions(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the centres (P, 3) in RAS mm of the voxels of `mask` (I, J, K)."""
    return np.asarray(np.argwhere(mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3])


def _voxel_index(grid: Grid, points: np.ndarray) -> np.ndarray:
    """Return the continuous voxel index (P, 3) of `points` (P, 3) in RAS mm."""
    inverse = np.linalg.inv(grid.affine)
    return np.asarray(points @ inverse[:3, :3].T + inverse[:3, 3])
