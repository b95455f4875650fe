"""Extract the endocardial surface: a closed triangle mesh of a segment, in patient mm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import Grid, bounding_box

GRID_STEP_MM = 1.0
"""Step of the grid that the surface is built on; triangle edges then measure about 1 mm on average."""
SMOOTHING_MM = 0.9
"""Standard deviation of the Gaussian that smooths a segment's staircase, for voxels up to about this size."""
SMOOTHING_VOXELS = 0.7
"""The same in units of the largest voxel spacing: what hides the steps between thick slices."""
MARGIN_MM = 4.0
"""Empty rim around the segment, so that the surface is closed where the segment ends at the scan's border."""
KEPT_VOLUME_ML = 0.05
"""Separate parts and hollows above this volume are reported when they are left out."""


@dataclass(frozen=True, eq=False)
class Surface:
    """A closed triangle mesh.

    points: (N, 3) float64, RAS mm. triangles: (M, 3) int64 indices of points, anticlockwise seen from outside.
    """

    points: np.ndarray
    triangles: np.ndarray

    @cached_property
    def _doubled_normals(self) -> np.ndarray:
        """(M, 3) mm2: outward normal of each triangle, as long as twice its area."""
        a, b, c = (self.points[self.triangles[:, corner]] for corner in range(3))
        return np.asarray(np.cross(b - a, c - a))

    @cached_property
    def normals(self) -> np.ndarray:
        """(N, 3) outward unit normals of the points: the area-weighted mean of the triangles around each."""
        summed = np.stack([self._gather(self._doubled_normals[:, axis]) for axis in range(3)], axis=1)
        lengths = np.linalg.norm(summed, axis=1, keepdims=True)
        return np.asarray(summed / np.where(lengths > 0, lengths, 1.0))

    @cached_property
    def point_areas(self) -> np.ndarray:
        """(N,) mm2: a third of the area of the triangles around each point; the sum is the surface's area."""
        return self._gather(np.linalg.norm(self._doubled_normals, axis=1) / 6.0)

    @cached_property
    def edges(self) -> np.ndarray:
        """(E, 2) int64: each edge of the mesh once, as the indices of its two points."""
        pairs = np.concatenate([self.triangles[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
        # Every edge of a closed mesh belongs to two triangles that run along it in opposite directions.
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
        """Return (N,): the sum of a value (M,) of the triangles around each point."""
        weights = np.repeat(of_triangles, 3)
        return np.bincount(self.triangles.ravel(), weights=weights, minlength=len(self.points))


@dataclass(frozen=True, eq=False)
class Extraction:
    """A surface, what lies inside it, and the volume in mL of separate parts and hollows that it leaves out.

    inside: (I, J, K) bool on `grid`, whose axes are the patient's, with steps of `GRID_STEP_MM`.
    """

    surface: Surface
    inside: np.ndarray
    grid: Grid
    separate_ml: float
    hollow_ml: float


def extract_surface(mask: np.ndarray, grid: Grid, name: str | Path = "The segment") -> Extraction:
    """Return the closed, smooth surface of the True voxels of `mask` (I, J, K) on `grid`.

    The mask is smoothed by a Gaussian and sampled on a grid along the patient's axes, so that the surface does not
    depend on the scan's orientation; the contour (flying edges: W. Schroeder, R. Maynard and B. Geveci, LDAV 2015) is
    drawn at the level that encloses the volume of the voxels. Of several parts the largest is kept, without hollows.

    Raises InputError, naming `name`, if the mask is empty.
    """
    from scipy import ndimage

    box = bounding_box(mask)
    if box is None:
        raise InputError("is empty", path=name, remedy="Choose the segment of the left atrium's blood.")
    cropped, cropped_grid = _cropped_with_margin(mask, grid, (box[0], box[1], box[2]))
    smoothing_mm = max(SMOOTHING_MM, SMOOTHING_VOXELS * float(grid.spacing.max()))
    field, affine = _patient_field(cropped, cropped_grid, smoothing_mm)
    cell_mm3 = GRID_STEP_MM**3
    volume_mm3 = float(np.count_nonzero(mask)) * grid.voxel_volume_mm3
    level = _volume_level(field, volume_mm3 / cell_mm3)

    inside = field > level
    parts, count = ndimage.label(inside)
    separate = np.zeros(0, bool)
    if count > 1:
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        separate = inside & (parts != sizes.argmax())
        field[separate] = 0.0
    hollows = ndimage.binary_fill_holes(field > level) & ~(field > level)
    field[hollows] = 1.0
    separate_mm3, hollow_mm3 = (float(np.count_nonzero(part)) * cell_mm3 for part in (separate, hollows))
    surface = _at_volume(_contour(field, level, affine), volume_mm3 - separate_mm3 + hollow_mm3)
    return Extraction(surface, field > level, Grid(field.shape, affine), separate_mm3 / 1000.0, hollow_mm3 / 1000.0)


def _cropped_with_margin(mask: np.ndarray, grid: Grid, box: tuple[slice, slice, slice]) -> tuple[np.ndarray, Grid]:
    """Return the box of `mask` as float32 with an empty rim of `MARGIN_MM`, and its grid."""
    # Along a sheared axis, the distance between lattice planes is less than the spacing.
    planes_mm = 1.0 / np.linalg.norm(np.linalg.inv(grid.affine[:3, :3]), axis=1)
    rim = [int(n) for n in np.ceil(MARGIN_MM / planes_mm) + 1]
    padded = np.pad(mask[box].astype(np.float32), [(n, n) for n in rim])
    affine = grid.affine.copy()
    first = np.array([part.start - n for part, n in zip(box, rim, strict=True)])
    affine[:3, 3] += affine[:3, :3] @ first
    return padded, Grid(padded.shape, affine)


def _patient_field(mask: np.ndarray, grid: Grid, smoothing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Smooth `mask` and sample it every `GRID_STEP_MM` along the patient's axes; also return that grid's affine."""
    from scipy import ndimage

    planes_mm = 1.0 / np.linalg.norm(np.linalg.inv(grid.affine[:3, :3]), axis=1)
    smooth = ndimage.gaussian_filter(mask, smoothing_mm / planes_mm, mode="constant", truncate=3.0)
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
    """Return the value that `cells` of the samples of `field` exceed, between 0.05 and 0.95 to stay a contour."""
    values = field[field > 0]
    rank = min(max(round(values.size - cells), 0), values.size - 1)
    return float(np.clip(np.partition(values, rank)[rank], 0.05, 0.95))


def _contour(field: np.ndarray, level: float, affine: np.ndarray) -> Surface:
    """Triangulate where `field` (I, J, K) passes through `level`; `affine` (4, 4) is its grid's, index -> RAS mm."""
    # Imported here, since vtk takes its time to load.
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
    return surface if surface.volume_mm3 > 0 else Surface(surface.points, triangles[:, ::-1])


def _at_volume(surface: Surface, volume_mm3: float) -> Surface:
    """Move the points along their normals, by the same distance, so that the surface encloses `volume_mm3`.

    The contour's flat triangles cut off some of every curved part; to first order the volume grows by area times
    distance.
    """
    distance = (volume_mm3 - surface.volume_mm3) / surface.area_mm2
    return Surface(surface.points + distance * surface.normals, surface.triangles)
