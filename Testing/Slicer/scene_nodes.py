"""Add synthetic volumes and segmentations to the scene, write files, and run generators to their end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.io.slabs import write_nrrd_in_slabs
from dcamt_testing.ellipsoids import ellipsoid_scan
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode

SHAPE = (24, 22, 20)
"""The shape (I, J, K) of the scan that the function `ellipsoid` returns."""
ORIGIN_MM = (-7.0, -2.0, 3.0)
"""The position (R, A, S) of the first voxel of each volume that `add_volume` adds."""


def ellipsoid(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a scan (float32) and its label (uint8), both (K, J, I)."""
    image, label = ellipsoid_scan(SHAPE, seed)
    return np.ascontiguousarray(image.transpose(2, 1, 0)), np.ascontiguousarray(label.transpose(2, 1, 0))


def add_volume(name: str, voxels: np.ndarray, spacing: float = 2.0, turned: bool = False) -> Any:
    """Add a volume node from voxels (K, J, I).

    Args:
        spacing: mm, the same along each axis.
    """
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(volume, voxels)
    matrix = vtk.vtkMatrix4x4()
    if turned:
        turn = vtk.vtkTransform()
        turn.RotateZ(20)
        turn.RotateX(-10)
        matrix.DeepCopy(turn.GetMatrix())
    for row in range(3):
        for column in range(3):
            matrix.SetElement(row, column, matrix.GetElement(row, column) * spacing)
        matrix.SetElement(row, 3, ORIGIN_MM[row])
    volume.SetIJKToRASMatrix(matrix)
    volume.CreateDefaultDisplayNodes()
    return volume


def add_outline(volume: VolumeNode, labels: np.ndarray, names: tuple[str, ...] = ("Left atrium",)) -> Any:
    """Add a segmentation node of the volume; the n-th name becomes a segment of the voxels with label n."""
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{volume.GetName()} outline")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    for label, name in enumerate(names, start=1):
        identifier = segmentation.GetSegmentation().AddEmptySegment("", name)
        mask = (labels == label).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identifier, volume)
    return segmentation


def add_shared_outline(volume: VolumeNode, labels: np.ndarray, names: tuple[str, ...] = ("Left atrium",)) -> Any:
    """Add an outline whose segments share one labelmap, as in Segment Editor.

    The additional segment "rest" holds the voxels with the label 0.
    """
    rest = np.where(labels == 0, len(names) + 1, labels)
    segmentation = add_outline(volume, rest, (*names, "rest"))
    share_labelmap(segmentation)
    return segmentation


def share_labelmap(segmentation: SegmentationNode) -> None:
    """Move the segments of a node into one labelmap with the values 1, 2, …; the segments must not overlap."""
    segments = segmentation.GetSegmentation()
    segments.CollapseBinaryLabelmaps(False)
    assert segments.GetNumberOfLayers("Binary labelmap") == 1


def add_case(name: str, seed: int = 0) -> tuple[Any, Any]:
    """Add an image and an outline of an ellipsoid; return the volume node and the segmentation node."""
    image, label = ellipsoid(seed)
    volume = add_volume(name, image)
    return volume, add_outline(volume, label)


def add_scan(
    name: str = "LGE",
    shape: tuple[int, int, int] = (16, 20, 24),
    affine: np.ndarray | None = None,
    seed: int = 0,
) -> Any:
    """Add a scalar volume node with a bright ellipsoid in noise.

    Args:
        shape: (K, J, I).
        affine: (4, 4), IJK to RAS mm.
    """
    draw = np.random.default_rng(seed)
    k, j, i = np.ogrid[[slice(-1, 1, complex(n)) for n in shape]]
    inside = (k / 0.6) ** 2 + (j / 0.5) ** 2 + (i / 0.7) ** 2 <= 1
    voxels = (100 + 150 * inside + draw.normal(0, 15, shape)).astype(np.int16)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(volume, voxels)
    matrix = np.diag([-1.5, -1.5, 1.5, 1.0]) if affine is None else affine
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    volume.CreateDefaultDisplayNodes()
    return volume


def segment_mask(segmentation: SegmentationNode, volume: VolumeNode, index: int = 0) -> np.ndarray:
    """Return the mask (K, J, I) of the segment at `index`, resampled on the volume's grid."""
    identifier = segmentation.GetSegmentation().GetNthSegmentID(index)
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume)


def draw_segment(segmentation: SegmentationNode, volume: VolumeNode, mask: np.ndarray) -> None:
    """Replace the first segment by a mask (K, J, I) on the volume's grid."""
    identifier = segmentation.GetSegmentation().GetNthSegmentID(0)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identifier, volume)


def copy_node(node: SegmentationNode | VolumeNode) -> Any:
    """Add a copy of a node, as the command Clone of the module Data does."""
    copy = slicer.mrmlScene.AddNewNodeByClass(node.GetClassName())
    copy.Copy(node)
    return copy


def write_scan(path: Path, voxels: np.ndarray) -> Path:
    """Write voxels (K, J, I) as an NRRD file with a spacing of 2 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in write_nrrd_in_slabs(voxels, np.diag((2.0, 2.0, 2.0, 1.0)), path):
        pass
    return path


def run_to_end(steps):
    """Run all steps of a generator; return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def write_endless_program(folder: Path) -> str:
    """Write a program that prints nothing and ends when its stdin closes; return the program's path."""
    program = folder / "endless"
    program.write_text("#!/bin/sh\nexec cat > /dev/null\n", encoding="utf-8")
    program.chmod(0o755)
    return str(program)
