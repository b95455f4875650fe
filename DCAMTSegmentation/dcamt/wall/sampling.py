"""Sample intensities inside the segment and along the surface's normals."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from ..geometry import SAME_PLACE_MM, Box, Grid, bounding_box, box_in_part, pad_box, whole_box
from .surface import Extraction, Surface, plane_distances

EROSION_MM = 3.0
"""The blood pool is the segment eroded by this distance, to leave out the wall and voxels of partial volume."""
STEP_VOXELS = 0.5
"""Longest step along a normal, as a fraction of the smallest voxel spacing."""
_ROUNDING = 1e-3  # tolerance, as a fraction of a step or a voxel


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
    """Return the statistics of a scan's `voxels` (I, J, K) whose centres lie in `mask`, eroded by `EROSION_MM`.

    If the grids differ, the mask is resampled to the scan's grid before the erosion: interpolating the scan would
    reduce its noise. If the extracted surface leaves out separate parts of the segment (`extraction.separate_ml` is
    larger than 0), voxels outside `extraction.inside` are ignored, so that these parts do not count. If no voxel is
    left, mean and standard deviation are NaN.
    """
    box = within = whole_box(grid.shape)
    if not grid.matches(mask_grid):
        # The box may reach beyond the scan: where the mask continues there, the scan's border is not eroded.
        box = _box_around(mask, mask_grid, grid)
        within = pad_box(box, (0, 0, 0), within)
        mask = _resample_mask(mask, mask_grid, grid.on_lattice(box))
    eroded = erode(mask, grid.on_lattice(box), EROSION_MM)[box_in_part(within, box)]
    if extraction is not None and extraction.separate_ml > 0:
        points = _positions(eroded, grid.crop(within))
        eroded[eroded] = nearest_values(extraction.inside, extraction.grid, points)
    values = voxels[within][eroded].astype(np.float64)
    if not len(values):
        return BloodPool(float("nan"), float("nan"), 0)
    return BloodPool(float(values.mean()), float(values.std()), len(values))


def _box_around(mask: np.ndarray, mask_grid: Grid, grid: Grid) -> Box:
    """Return the box of `grid` around `mask` (I, J, K), limited to `grid` and a margin of `EROSION_MM` around it."""
    i, j, k = (slice(side.start - 1, side.stop + 1) for side in bounding_box(mask) or whole_box(mask.shape))
    corners = _voxel_index(grid, mask_grid.on_lattice((i, j, k)).corners())
    reach = np.ceil(EROSION_MM / plane_distances(grid)).astype(int)
    first, last = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0)) + 1
    ends = np.clip([first, last], -reach, np.array(grid.shape) + reach).astype(int)
    i, j, k = (slice(start, stop) for start, stop in ends.T.tolist())
    return i, j, k


def _resample_mask(mask: np.ndarray, mask_grid: Grid, grid: Grid) -> np.ndarray:
    """Return the voxels (I, J, K) of `grid` whose centres lie in `mask`, interpolated linearly."""
    from scipy import ndimage

    to_mask = np.linalg.inv(mask_grid.affine) @ grid.affine
    inside: np.ndarray = ndimage.affine_transform(
        mask,
        to_mask[:3, :3],
        offset=to_mask[:3, 3],
        output_shape=grid.shape,
        output=np.float32,
        order=1,
        mode="grid-constant",
    )
    # The tolerance excludes voxels whose centre lies on the mask's border: rounding errors must not decide.
    return inside > 0.5 + _ROUNDING


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
