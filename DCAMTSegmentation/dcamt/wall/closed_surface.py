"""Compute the closed surface of a class for display, as 3D Slicer does: surface nets on the scan's own grid."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..geometry import Grid

ITERATIONS = 8
"""Number of smoothing steps, as in 3D Slicer with "SurfaceNets smoothing" 1 and "Smoothing factor" 0.5."""


def closed_surface(
    mask: np.ndarray, grid: Grid, start: tuple[int, int, int] = (0, 0, 0)
) -> tuple[np.ndarray, np.ndarray]:
    """Return points (N, 3), RAS mm, and triangles (M, 3) of the surface around the True voxels of a mask.

    Args:
        mask: (I, J, K), boolean, for the part of `grid` that begins at voxel `start`.
        grid: the scan's grid.
        start: the index (i, j, k) in `grid` of the mask's first voxel.

    Surface nets: S. Gibson, MERL TR99-24, 1999, as VTK's vtkSurfaceNets3D implements them.
    """
    # Importing all of `vtk` would delay the first result by a second.
    from vtkmodules.util import numpy_support
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkFiltersCore import vtkSurfaceNets3D

    arrays: Any = numpy_support  # untyped in vtk

    # Without an empty rim, the surface would be open at the mask's border.
    padded = np.pad(mask.astype(np.uint8), 1)
    image = vtkImageData()
    image.SetDimensions(*padded.shape)
    image.SetSpacing(*(float(mm) for mm in grid.spacing))
    image.GetPointData().SetScalars(arrays.numpy_to_vtk(padded.ravel(order="F"), deep=True))
    nets = vtkSurfaceNets3D()
    nets.SetInputData(image)
    nets.SetValue(0, 1)
    nets.SetOutputMeshTypeToTriangles()
    nets.SetSmoothing(True)
    nets.SetNumberOfIterations(ITERATIONS)
    nets.Update()
    surface = nets.GetOutput()
    if surface.GetNumberOfPoints() == 0:
        return np.empty((0, 3)), np.empty((0, 3), np.int64)
    index = arrays.vtk_to_numpy(surface.GetPoints().GetData()).astype(np.float64) / grid.spacing + np.array(start) - 1
    points = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    triangles = arrays.vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64)
    if _volume(points, triangles) < 0:
        triangles = triangles[:, ::-1]
    return points, np.ascontiguousarray(triangles)


def _volume(points: np.ndarray, triangles: np.ndarray) -> float:
    """Return the enclosed volume in mm3; negative if the triangles run clockwise seen from outside."""
    a, b, c = (points[triangles[:, corner]] - points.mean(axis=0) for corner in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)
