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

ROUNDING = 1e-5
"""Two intensities count as equal if they differ by at most this fraction of a reference intensity.

`has_voxels_of` compares the voxels of a volume node with those of a file, part by part. The reference intensity is the
largest finite absolute intensity in the file's part. Slicer and DCAMT may round the intensities of a file differently.
"""
COMPARED_BYTES = 1 << 20
"""Bytes of a part; the comparison of a part takes some milliseconds."""


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


def has_voxels_of(volume: VolumeNode, file: str) -> Generator[None, None, bool]:
    """Return whether a volume node has the voxels (K, J, I) of a `.npy` file.

    The node must have an image. Only the first channel of the image is compared. Voxels that are NaN are ignored,
    and so are differences that `ROUNDING` allows.
    """
    voxels, expected = np.asarray(slicer.util.arrayFromVolume(volume)), np.load(file, mmap_mode="r")
    if voxels.ndim > expected.ndim:
        voxels = voxels[..., 0]
    if voxels.shape != expected.shape:
        return False
    for part in slabs(expected, COMPARED_BYTES):
        if not np.array_equal(voxels[part], expected[part]) and _differ_beyond_rounding(voxels[part], expected[part]):
            return False
        yield
    return True


def _differ_beyond_rounding(values: np.ndarray, expected: np.ndarray) -> bool:
    values, expected = values.astype(np.float64), expected.astype(np.float64)
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        return bool((np.abs(values - expected) > ROUNDING * largest).any())


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
