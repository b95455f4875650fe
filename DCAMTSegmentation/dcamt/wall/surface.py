"""Extract the endocardial surface: a closed triangle mesh of a segment, in patient mm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import Grid, bounding_box, connected_components

GRID_STEP_MM = 1.0
"""Step of the grid on which the surface is computed; triangle edges are then about 1 mm long on average."""
SMOOTHING_MM = 0.9
"""Smallest standard deviation of the Gaussian that smooths the steps between voxels."""
SMOOTHING_VOXELS = 0.7
"""The standard deviation is at least this fraction of the largest voxel spacing: thick slices make larger steps."""
MARGIN_MM = 4.0
"""Empty rim around the segment, so that the surface is closed even at the scan's border."""


def plane_distances(grid: Grid) -> np.ndarray:
    """Return the distances (3,) between planes of voxels, in mm; with shear, they are smaller than the spacing."""
    return np.asarray(1.0 / np.linalg.norm(np.linalg.inv(grid.affine[:3, :3]), axis=1))


@dataclass(frozen=True, eq=False)
class Surface:
    """A closed triangle mesh.

    Attributes:
        points: (N, 3) float64, RAS mm.
        triangles: (M, 3) int64 indices of points, anticlockwise seen from outside.
    """

    points: np.ndarray
    triangles: np.ndarray

    @cached_property
    def _doubled_normals(self) -> np.ndarray:
        """Outward normals of the triangles (M, 3), with twice the triangle's area (mm2) as length."""
        a, b, c = (self.points[self.triangles[:, corner]] for corner in range(3))
        return np.asarray(np.cross(b - a, c - a))

    @cached_property
    def normals(self) -> np.ndarray:
        """Outward unit normals of the points (N, 3): area-weighted means of the adjacent triangles' normals."""
        summed = np.stack([self._gather(self._doubled_normals[:, axis]) for axis in range(3)], axis=1)
        lengths = np.linalg.norm(summed, axis=1, keepdims=True)
        return np.asarray(summed / np.where(lengths > 0, lengths, 1.0))

    @cached_property
    def point_areas(self) -> np.ndarray:
        """Areas of the points (N,) in mm2, each a third of the adjacent triangles' area; the sum is `area_mm2`."""
        return self._gather(np.linalg.norm(self._doubled_normals, axis=1) / 6.0)

    @cached_property
    def edges(self) -> np.ndarray:
        """The edges of the mesh, (E, 2) int64: the indices of the two points of each edge."""
        pairs = np.concatenate([self.triangles[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
        # In a closed mesh each edge belongs to two triangles and occurs once in each direction; keep one direction.
        return np.asarray(pairs[pairs[:, 0] < pairs[:, 1]])

    @property
    def area_mm2(self) -> float:
        """Area of the surface in mm2."""
        return float(self.point_areas.sum())

    @property
    def volume_mm3(self) -> float:
        """Volume inside the surface in mm3, by the divergence theorem."""
        first = self.points[self.triangles[:, 0]] - self.points.mean(axis=0)
        return float(np.einsum("ij,ij->", first, self._doubled_normals) / 6.0)

    def _gather(self, of_triangles: np.ndarray) -> np.ndarray:
        """Return for each point the sum of the adjacent triangles' values: (M,) to (N,)."""
        weights = np.repeat(of_triangles, 3)
        return np.bincount(self.triangles.ravel(), weights=weights, minlength=len(self.points))


@dataclass(frozen=True, eq=False)
class Extraction:
    """A surface extracted from a segment.

    Attributes:
        inside: (I, J, K) bool, the inside of the surface.
        grid: the grid of `inside`, along the patient's axes with steps of `GRID_STEP_MM`.
        separate_ml, hollow_ml: volume of the separate parts that the surface leaves out, and of the hollows that it
            fills.
    """

    surface: Surface
    inside: np.ndarray
    grid: Grid
    separate_ml: float
    hollow_ml: float


def extract_surface(mask: np.ndarray, grid: Grid, name: str | Path = "The segment") -> Extraction:
    """Return the closed, smooth surface of the True voxels of `mask` (I, J, K) on `grid`.

    The mask is smoothed with a Gaussian and sampled on a grid along the patient's axes, so that the surface does not
    depend on the scan's orientation. Hollows are filled, and only the largest part is kept. The points are moved so
    that the surface encloses the volume of the kept part's voxels and hollows. Smoothing may remove parts that have
    only a few voxels. `separate_ml` includes the volume of the removed parts.

    Raises InputError, naming `name`, if the mask is empty or too small.
    """
    from scipy import ndimage

    box = bounding_box(mask)
    if box is None:
        raise InputError("is empty", path=name, remedy="Choose the segment of the left atrium's blood.")
    part, part_grid = _crop_with_margin(mask, grid, box)
    voxel_mm3, cell_mm3 = grid.voxel_volume_mm3, GRID_STEP_MM**3
    background, _ = ndimage.label(~part)  # The empty rim connects all background except hollows.
    filled = background != background[0, 0, 0]
    smoothing_mm = max(SMOOTHING_MM, SMOOTHING_VOXELS * float(grid.spacing.max()))
    field, affine = _patient_field(filled, part_grid, smoothing_mm)
    volume_mm3 = float(np.count_nonzero(filled)) * voxel_mm3
    level = _volume_level(field, volume_mm3 / cell_mm3)
    components, number = connected_components(filled)
    smoothed_away_mm3 = 0.0
    if number > 1:
        numbers, values = components[filled], _nearest_samples(field, affine, filled, part_grid)
        outside_mm3 = _count_outside(numbers, values > level) * voxel_mm3
        level = _volume_level(field, (volume_mm3 - outside_mm3) / cell_mm3)
        smoothed_away_mm3 = _count_outside(numbers, values > level) * voxel_mm3

    inside = field > level
    parts, _ = ndimage.label(inside)
    largest = inside & (parts == np.bincount(parts[inside], minlength=1).argmax())
    closed = ndimage.binary_fill_holes(largest)
    field[inside & ~largest] = 0.0
    field[closed & ~largest] = 1.0
    separate_mm3 = float(np.count_nonzero(inside & ~largest)) * cell_mm3 + smoothed_away_mm3
    added_mm3 = float(np.count_nonzero(closed & ~largest)) * cell_mm3
    hollow_mm3 = float(np.count_nonzero(filled & ~part)) * voxel_mm3 + added_mm3
    # VTK counts a sample equal to the contour's value as inside. Samples equal to `level` must be outside, so the
    # contour's value is the next number above `level`.
    contour = _contour(field, float(np.nextafter(level, 1.0)), affine)
    if not len(contour.triangles):
        raise InputError(
            "is too small to have a surface", path=name, remedy="Choose the segment of the left atrium's blood."
        )
    surface = _at_volume(contour, volume_mm3 - separate_mm3 + added_mm3)
    return Extraction(surface, closed, Grid(field.shape, affine), separate_mm3 / 1000.0, hollow_mm3 / 1000.0)


def _crop_with_margin(mask: np.ndarray, grid: Grid, box: tuple[slice, ...]) -> tuple[np.ndarray, Grid]:
    rim = [int(n) for n in np.ceil(MARGIN_MM / plane_distances(grid)) + 1]
    padded = np.pad(mask[box], [(n, n) for n in rim])
    affine = grid.affine.copy()
    first = np.array([part.start - n for part, n in zip(box, rim, strict=True)])
    affine[:3, 3] += affine[:3, :3] @ first
    return padded, Grid(padded.shape, affine)


def _nearest_samples(field: np.ndarray, affine: np.ndarray, mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the samples (P,) of `field` that are nearest to the P True voxels of `mask` (I, J, K) on `grid`."""
    to_field = np.linalg.inv(affine) @ grid.affine
    index = np.rint(to_field[:3, :3] @ np.stack(np.nonzero(mask)) + to_field[:3, 3:]).astype(np.int64)
    last = np.array(field.shape)[:, None] - 1
    return np.asarray(field[tuple(index.clip(0, last))])


def _count_outside(components: np.ndarray, is_inside: np.ndarray) -> int:
    """Count the voxels whose component lies completely outside the surface.

    If all components lie outside, return 0, so that `extract_surface` does not subtract the whole volume.
    """
    is_outside = np.bincount(components, weights=is_inside) == 0
    return int(np.bincount(components)[is_outside].sum()) if is_inside.any() else 0


def _patient_field(mask: np.ndarray, grid: Grid, smoothing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the smoothed `mask` on a grid along the patient's axes with steps of `GRID_STEP_MM`, and its affine."""
    from scipy import ndimage

    widths = smoothing_mm / plane_distances(grid)
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), widths, mode="constant", truncate=3.0)
    corners = grid.corners()
    low = corners.min(axis=0)
    shape = np.ceil((corners.max(axis=0) - low) / GRID_STEP_MM).astype(int) + 1
    affine = np.diag([GRID_STEP_MM, GRID_STEP_MM, GRID_STEP_MM, 1.0])
    affine[:3, 3] = low
    to_voxels = np.linalg.inv(grid.affine) @ affine
    field = ndimage.affine_transform(
        smooth, to_voxels[:3, :3], offset=to_voxels[:3, 3], output_shape=tuple(shape), order=1, mode="constant"
    )
    return np.asarray(field), affine


def _volume_level(field: np.ndarray, cells: float) -> float:
    """Return the level above which `field` has about `cells` samples."""
    values = field[field > 0]
    rank = min(max(round(values.size - cells), 0), values.size - 1)
    level = float(np.clip(np.partition(values, rank)[rank], 0.05, 0.95))
    below_maximum = values[values < values.max()]
    surface_would_be_empty = level == values.max()
    return float(below_maximum.max()) if surface_would_be_empty and below_maximum.size else level


def _contour(field: np.ndarray, level: float, affine: np.ndarray) -> Surface:
    """Return the contour, in RAS mm, of `field` (I, J, K) at the value `level`; `affine` (4, 4): index -> RAS mm.

    Flying edges: W. Schroeder, R. Maynard and B. Geveci, LDAV 2015.
    """
    # Imported here, since vtk loads slowly.
    from vtkmodules.util import numpy_support
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D

    arrays: Any = numpy_support  # untyped in vtk
    image: Any = vtkImageData()
    image.SetDimensions(*field.shape)
    image.GetPointData().SetScalars(arrays.numpy_to_vtk(field.ravel(order="F"), deep=True))
    edges: Any = vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, level)
    edges.ComputeNormalsOff()
    edges.ComputeGradientsOff()
    edges.ComputeScalarsOff()
    edges.Update()
    output = edges.GetOutput()
    index = arrays.vtk_to_numpy(output.GetPoints().GetData()).astype(np.float64)
    triangles = arrays.vtk_to_numpy(output.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64)
    surface = Surface(index @ affine[:3, :3].T + affine[:3, 3], triangles)
    is_outward = not len(triangles) or surface.volume_mm3 > 0
    return surface if is_outward else Surface(surface.points, triangles[:, ::-1])


def _at_volume(surface: Surface, volume_mm3: float) -> Surface:
    """Return the surface, moved outwards or inwards so that it encloses `volume_mm3`.

    All points move by the same distance along their normals. Moving by a small distance changes the volume by about
    area times distance; scaling about the centre corrects the remaining error. If moving makes the volume wrong by a
    factor of 2 or more, the surface is only scaled.
    """
    distance = (volume_mm3 - surface.volume_mm3) / surface.area_mm2
    moved = Surface(surface.points + distance * surface.normals, surface.triangles)
    moving_failed = not 0.5 < moved.volume_mm3 / volume_mm3 < 2
    if moving_failed:
        moved = surface
    centre = moved.points.mean(axis=0)
    factor = np.cbrt(volume_mm3 / moved.volume_mm3)
    return Surface(centre + factor * (moved.points - centre), moved.triangles)
