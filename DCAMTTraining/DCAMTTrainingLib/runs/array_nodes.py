"""Make images and segments from arrays in files, in short steps."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.geometry import bounding_box
from dcamt.io.slabs import slabs
from dcamt.recipe import Recipe
from dcamt.worker.events import SegmentResult
from DCAMTSlicerLib.node_types import VolumeNode
from DCAMTSlicerLib.result_segments import BuiltSegment, build_segment
from DCAMTSlicerLib.scene_changes import SceneChanges
from vtk.util.numpy_support import numpy_to_vtk


def read_image(file: str) -> Generator[None, None, Any]:
    """Read a `.npy` file of voxels (K, J, I) slab by slab, and return a vtkImageData."""
    voxels = np.load(file, mmap_mode="r")
    copied = np.empty(voxels.shape, voxels.dtype.newbyteorder("="))
    for part in slabs(voxels):
        copied[part] = voxels[part]
        yield
    image = vtk.vtkImageData()
    image.SetDimensions(*voxels.shape[::-1])
    # VTK uses the array's memory and keeps the array alive.
    image.GetPointData().SetScalars(numpy_to_vtk(copied.reshape(-1), deep=False))
    return image


def set_image(volume: VolumeNode, image: Any, affine: list[list[float]], file: str, changes: SceneChanges) -> None:
    """Give a volume node an image and its geometry, and set the intensity window.

    The window is computed from a sample of the voxels, since reading all of them would block the event loop.

    Args:
        affine: voxel (i, j, k) -> RAS mm, four rows.
        file: the `.npy` file of the image, from which the sample is read.
        changes: records a display node that is added.
    """
    if volume.GetDisplayNode() is None:
        display = changes.add("vtkMRMLScalarVolumeDisplayNode")
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
        volume.SetAndObserveDisplayNodeID(display.GetID())
    low, high = np.percentile(np.load(file, mmap_mode="r")[::4, ::8, ::8], (0.5, 99.5))
    display = volume.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(float(low), max(float(high), float(low) + 1e-6))
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.array(affine)))
    volume.SetAndObserveImageData(image)


def build_segments(labels: np.ndarray, recipe: Recipe, affine: np.ndarray) -> Generator[None, None, list[BuiltSegment]]:
    """Return a segment for each class of the recipe, in steps; a class without voxels gets an empty segment.

    Args:
        labels: (K, J, I).
        affine: voxel (i, j, k) -> mm, (4, 4).
    """
    built = []
    for info in recipe.classes:
        segment = SegmentResult(info, box_of(labels, info.label))
        yield
        built.append(build_segment(labels, affine, segment))
        yield
    return built


def box_of(labels: np.ndarray, label_value: int) -> tuple[tuple[int, int], ...] | None:
    """Return the bounding box of the voxels with a label value; None if there are none.

    Args:
        labels: (K, J, I).

    Returns:
        (start, stop) along i, j and k.
    """
    box = bounding_box(labels == label_value)
    return None if box is None else tuple((side.start, side.stop) for side in reversed(box))
