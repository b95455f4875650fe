"""Make segmentation results without a worker, insert them into the scene, and measure their segments."""

from __future__ import annotations

from typing import Any

import numpy as np
import vtk
from dcamt.metrics.measurements import Measurements
from dcamt.volume import Code, SegmentInfo
from dcamt.worker.events import SegmentResult
from DCAMTSegmentationLib.loaded_result import LoadedResult
from DCAMTSegmentationLib.result_insertion import insert_result
from DCAMTSegmentationLib.segmentation_options import SegmentationOptions
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.segment_voxels import read_segment
from scene_nodes import run_to_end


def oblique() -> np.ndarray:
    """Return an affine (4, 4) with unequal spacings and oblique axes, one of them flipped."""
    turn = np.radians(25)
    about_s = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_r = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])
    affine = np.eye(4)
    affine[:3, :3] = about_s @ about_r @ np.diag([1.4, -1.6, 2.0])
    affine[:3, 3] = [12, -34, 56]
    return affine


LEFT_ATRIUM = SegmentInfo(1, "Left atrium", (0.8, 0.3, 0.3), Code("SCT", "82471001", "Left atrium"))
SHAPE = (16, 20, 24)
"""The shape (K, J, I) of a scan that `add_scan` adds by default."""


def block(start: int, size: int = 4) -> np.ndarray:
    """Return labels (K, J, I) of a cube that begins at the index `start` of each axis."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[start : start + size, start : start + size, start : start + size] = 1
    return labels


def segment_result(labels: np.ndarray, info: SegmentInfo = LEFT_ATRIUM) -> SegmentResult:
    """Return the result that a worker would send for a class.

    Args:
        labels: (K, J, I), not 0 in the voxels of the class. The result's box (I, J, K) encloses these voxels; if there
            are none, the box is None.
        info: the class.
    """
    box = None
    if labels.any():
        planes = [np.flatnonzero(labels.any(axis=axes)) for axes in ((0, 1), (0, 2), (1, 2))]
        box = tuple((int(plane[0]), int(plane[-1]) + 1) for plane in planes)
    return SegmentResult(info, box)


def make_result(labels: np.ndarray, volume_ml: float = 1.0) -> LoadedResult:
    """Return a result whose map of doubt equals its labels."""
    row = Measurements("LGE", LEFT_ATRIUM.name, volume_ml, *[float("nan")] * 5)
    return LoadedResult(labels, labels, 0.9, [], [row], [segment_result(labels)])


def insert_all(result: LoadedResult, volume: VolumeNode, target: Any = None, show_3d: bool = True) -> Any:
    """Insert a result into the scene; return the segmentation node."""
    return run_to_end(insert_result(result, SegmentationOptions(volume, target=target, show_3d=show_3d)))


def mass_properties(surface: Any) -> Any:
    """Return the `vtkMassProperties` of a closed surface, with its volume (mm³) and its area (mm²)."""
    triangles, mass = vtk.vtkTriangleFilter(), vtk.vtkMassProperties()
    triangles.SetInputData(surface)
    mass.SetInputConnection(triangles.GetOutputPort())
    return mass


def voxel_counts(node: SegmentationNode) -> dict[str, int]:
    segmentation = node.GetSegmentation()
    return {
        segmentation.GetSegment(identifier).GetName(): int(read_segment(node, identifier).mask.sum())
        for identifier in segmentation.GetSegmentIDs()
    }
