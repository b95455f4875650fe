"""Read a segment's voxels and the affine of its labelmap; find the volume on which a segmentation was drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import slicer
import vtk
from dcamt.errors import InputError
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from .node_types import SegmentationNode, VolumeNode


@dataclass(frozen=True)
class SegmentVoxels:
    """A segment's voxels, cropped to the segment's bounding box; one voxel of value 0 if the segment is empty.

    Attributes:
        mask: (K, J, I), uint8, 1 in the segment.
        affine: (4, 4), index (i, j, k) of the mask -> mm in the segmentation node's space.
        first: index (i, j, k) of the mask's first voxel in the uncropped labelmap; zeros if the segment is empty.
    """

    mask: np.ndarray
    affine: np.ndarray
    first: tuple[int, int, int]


def labelmap_name() -> str:
    """Return Slicer's name of the binary labelmap representation."""
    return str(slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName())


def has_segments(segmentation_node: SegmentationNode | None) -> TypeGuard[SegmentationNode]:
    """Return whether a node has segments; False for None."""
    return segmentation_node is not None and segmentation_node.GetSegmentation().GetNumberOfSegments() > 0


def scan_of(segmentation_node: SegmentationNode) -> VolumeNode | None:
    """Return the volume node on which a segmentation was drawn; None if it is unknown or no longer in the scene."""
    return segmentation_node.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())


def read_segment(segmentation_node: SegmentationNode, identifier: str) -> SegmentVoxels:
    """Read a copy of a segment's voxels.

    Raises:
        InputError: the segment does not exist, or has other representations but no binary labelmap.
    """
    segment, name = segmentation_node.GetSegmentation().GetSegment(identifier), segmentation_node.GetName()
    if segment is None:
        what = _("a segment was removed before it was read")
        raise InputError(what, path=name, remedy=_("Try again."))
    representations: list[str] = []
    segment.GetContainedRepresentationNames(representations)
    if representations and labelmap_name() not in representations:
        what = _("the segment {segment} has no binary labelmap").format(segment=segment.GetName())
        remedy = _("Create one in the module Segmentations, under Representations.")
        raise InputError(what, path=name, remedy=remedy)
    image = slicer.vtkOrientedImageData()
    segmentation_node.GetBinaryLabelmapRepresentation(identifier, image)
    return cropped_voxels(image)


def cropped_voxels(labelmap: Any) -> SegmentVoxels:
    """Return a copy of the voxels of a segment's labelmap, a vtkOrientedImageData."""
    affine = affine_of(labelmap)
    # The image of an edited segment may be larger than the segment's bounding box.
    extent = [0] * 6
    if not slicer.vtkOrientedImageDataResample.CalculateEffectiveExtent(labelmap, extent):
        return SegmentVoxels(np.zeros((1, 1, 1), np.uint8), affine, (0, 0, 0))
    whole = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
    start, first, last = (np.array(ends) for ends in (labelmap.GetExtent()[::2], extent[::2], extent[1::2]))
    i, j, k = (slice(low, high) for low, high in zip(first - start, last - start + 1, strict=True))
    affine[:3, 3] += affine[:3, :3] @ first
    return SegmentVoxels(np.array(whole[k, j, i] != 0, np.uint8), affine, (extent[0], extent[2], extent[4]))


def labelmap_affine(segmentation_node: SegmentationNode, identifiers: Iterable[str]) -> np.ndarray | None:
    """Return the affine (4, 4) of the labelmap of the first segment that has voxels; None if no segment has voxels.

    The affine maps a voxel index (i, j, k) to mm in the node's space.

    Args:
        identifiers: the segments, which must exist.
    """
    for identifier in identifiers:
        image = segmentation_node.GetSegmentation().GetSegment(identifier).GetRepresentation(labelmap_name())
        if image is not None and image.GetNumberOfPoints() > 0:
            return affine_of(image)
    return None


def grid_image(segmentation_node: SegmentationNode) -> Any | None:
    """Return the grid to which Slicer resamples a node's segments on saving, as a vtkOrientedImageData without voxels.

    Return None if the node has no such grid.
    """
    converter, image = slicer.vtkSegmentationConverter, slicer.vtkOrientedImageData()
    name = converter.GetReferenceImageGeometryParameterName()
    text = segmentation_node.GetSegmentation().GetConversionParameter(name)
    return image if text and converter.DeserializeImageGeometry(text, image, False) else None


def affine_of(image: Any) -> np.ndarray:
    """Return the affine (4, 4) of a vtkOrientedImageData."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return np.array(slicer.util.arrayFromVTKMatrix(matrix))
