"""Give segments closed surfaces: computed by Slicer, or built from points and triangles."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray

from .node_types import Segment, Segmentation, SegmentationNode
from .segment_voxels import has_segments, labelmap_name

# Compute surfaces by surface nets, as `dcamt.wall.closed_surface` does, and not by Slicer's default method.
_SURFACE_NETS, _ON = "1", "1"
SURFACE_PARAMETERS = {"Conversion method": _SURFACE_NETS, "SurfaceNets smoothing": _ON}


def surface_name() -> str:
    """Return Slicer's name of the closed surface representation."""
    return str(slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName())


def compute_surface(segment: Segment, segmentation_node: SegmentationNode | None) -> None:
    """Compute a segment's closed surface with the parameters of `segmentation_node`.

    `SURFACE_PARAMETERS` are used if the node is None or has no segments.
    """
    temporary = slicer.vtkSegmentation()
    temporary.SetSourceRepresentationName(labelmap_name())
    if has_segments(segmentation_node):
        parameters = segmentation_node.GetSegmentation().SerializeAllConversionParameters()
        temporary.DeserializeConversionParameters(parameters)
    else:
        set_conversion(temporary)
    temporary.AddSegment(segment)
    temporary.CreateRepresentation(surface_name())


def add_surface(segment: Segment, points: np.ndarray, triangles: np.ndarray) -> None:
    """Give a segment a closed surface: points (N, 3), mm in the segmentation's space, and triangles (M, 3)."""
    segment.AddRepresentation(surface_name(), build_poly_data(points.astype(np.float32), triangles))


def build_poly_data(points: np.ndarray, triangles: np.ndarray) -> Any:
    """Build vtkPolyData from points (N, 3) and triangles (M, 3). The points keep their type, float32 or float64."""
    surface = vtk.vtkPolyData()
    vertices = vtk.vtkPoints()
    vertices.SetData(numpy_to_vtk(np.ascontiguousarray(points), deep=True))
    surface.SetPoints(vertices)
    cells = vtk.vtkCellArray()
    corners = np.ascontiguousarray(triangles, np.int64)
    cells.SetData(3, numpy_to_vtkIdTypeArray(corners.ravel(), deep=True))
    surface.SetPolys(cells)
    return surface


def set_conversion(segmentation: Segmentation) -> None:
    """Set a segmentation's parameters for computing surfaces to `SURFACE_PARAMETERS`."""
    for name, value in SURFACE_PARAMETERS.items():
        segmentation.SetConversionParameter(name, value)


def uses_dcamt_conversion(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether a node has `SURFACE_PARAMETERS`, or will get them.

    A new node (None) and a node without segments get these parameters when DCAMT writes segments to the node.
    """
    if not has_segments(segmentation_node):
        return True
    segmentation = segmentation_node.GetSegmentation()
    return all(segmentation.GetConversionParameter(name) == value for name, value in SURFACE_PARAMETERS.items())
