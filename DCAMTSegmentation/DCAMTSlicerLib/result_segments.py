"""From a labelmap to the segments of a segmentation node, and which segments there are DCAMT's own."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.worker.protocol import SegmentResult
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

OWN_TAG = "DCAMT.Class"
"""Tag of the segments that DCAMT wrote; its value is the code of the class, `SCT 82471001` for instance."""
TERMINOLOGY = "Segmentation category and type - 3D Slicer General Anatomy list"
# Surface nets take a third of the time of Slicer's default for a surface as smooth, and keep the volume.
SURFACE = {"Conversion method": "1", "SurfaceNets smoothing": "1"}


@dataclass(frozen=True)
class BuiltSegment:
    """A segment that is in no segmentation yet: `own` is the value of its `OWN_TAG`."""

    own: str
    segment: Any


def build_segment(labels: np.ndarray, ijk_to_local: np.ndarray, item: SegmentResult) -> BuiltSegment:
    """The segment of one class, with only the box of voxels that it fills.

    `labels`: (K, J, I), uint8, may be a memory map. `ijk_to_local`: (4, 4), voxel index -> coordinates of the
    segmentation node, mm. `item`: as the worker's `finished` event has it in `segments`; in its `box` lies the class.
    """
    info, box = item.info, item.box
    category, kind = info.category, info.type
    own = f"{kind.scheme} {kind.value}"
    segment = slicer.vtkSegment()
    segment.SetName(info.name)
    segment.SetColor(*info.color)
    segment.SetTag(OWN_TAG, own)
    triples = [getattr(code, part) for code in (category, kind) for part in ("value", "scheme", "meaning")]
    entry = slicer.vtkSlicerTerminologiesModuleLogic.SerializeTerminologyEntry(TERMINOLOGY, *triples, *[""] * 10)
    segment.SetTag(segment.GetTerminologyEntryTagName(), entry)
    image = slicer.vtkOrientedImageData()
    if box is None:
        image.SetExtent(0, -1, 0, -1, 0, -1)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    else:
        image.SetExtent(*(edge for low, high in box for edge in (low, high - 1)))
        i, j, k = (slice(low, high) for low, high in box)
        voxels = np.ascontiguousarray(labels[k, j, i] == info.label, np.uint8)
        image.GetPointData().SetScalars(numpy_to_vtk(voxels.ravel(), deep=True))
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ijk_to_local))
    segment.AddRepresentation(labelmap(), image)
    return BuiltSegment(own, segment)


def build_surface(built: BuiltSegment, segmentation_node: Any | None) -> None:
    """Give a segment its closed surface, as the node that it will be put into smooths it; None: a new node."""
    apart = slicer.vtkSegmentation()
    apart.SetSourceRepresentationName(labelmap())
    if segmentation_node is not None and segmentation_node.GetSegmentation().GetNumberOfSegments() > 0:
        parameters = segmentation_node.GetSegmentation().SerializeAllConversionParameters()
        apart.DeserializeConversionParameters(parameters)
    else:
        _set_conversion(apart)
    apart.AddSegment(built.segment)
    apart.CreateRepresentation(closed_surface())


def filled_extent(image: Any) -> tuple[int, ...] | None:
    """First and last index along i, j, k of what is set in a segment's image; None if nothing is."""
    extent = [0] * 6
    # An edited segment's image is larger than what is set in it.
    found = slicer.vtkOrientedImageDataResample.CalculateEffectiveExtent(image, extent)
    return tuple(extent) if found else None


def labelmap() -> str:
    """Slicer's name of this representation."""
    return str(slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName())


def closed_surface() -> str:
    """Slicer's name of this representation."""
    return str(slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName())


def _set_conversion(segmentation: Any) -> None:
    for name, value in SURFACE.items():
        segmentation.SetConversionParameter(name, value)


def write_segments(segmentation_node: Any, built: Sequence[BuiltSegment]) -> None:
    """Put segments into a node in place of those that DCAMT wrote there before; all others stay as they are."""
    segmentation = segmentation_node.GetSegmentation()
    before = own_segments(segmentation_node)
    for identifier in before.values():
        segmentation.RemoveSegment(identifier)
    if segmentation.GetNumberOfSegments() == 0:
        _set_conversion(segmentation)
    for item in built:
        # The same identifier as before, so that what refers to the segment still finds it.
        wanted = before.get(item.own) or segmentation.GenerateUniqueSegmentID(item.segment.GetName())
        segmentation.AddSegment(item.segment, wanted)
        # Only now does the segmentation begin to watch the labelmap, and tell of edits.
        item.segment.Modified()


def own_segments(segmentation_node: Any) -> dict[str, str]:
    """Identifiers of the segments that DCAMT wrote into a node, by the code of their class."""
    segmentation, found, text = segmentation_node.GetSegmentation(), {}, vtk.reference("")
    for identifier in segmentation.GetSegmentIDs():
        if segmentation.GetSegment(identifier).GetTag(OWN_TAG, text):
            found[str(text.get())] = identifier
    return found


def outline_of(segmentation: Any, identifier: str) -> tuple[np.ndarray, np.ndarray]:
    """A segment's voxels, (K, J, I), as far as it fills them, and (4, 4), index (i, j, k) in them -> mm."""
    image = slicer.vtkOrientedImageData()
    segmentation.GetBinaryLabelmapRepresentation(identifier, image)
    extent = filled_extent(image)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    affine = np.array(slicer.util.arrayFromVTKMatrix(matrix))
    if extent is None:
        return np.zeros((1, 1, 1), np.uint8), affine
    whole = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    start = np.array(image.GetExtent()[::2])
    low, high = np.array(extent[::2]), np.array(extent[1::2])
    i, j, k = (slice(a, b) for a, b in zip(low - start, high - start + 1, strict=True))
    affine[:3, 3] += affine[:3, :3] @ low
    # A copy, since the image goes.
    return np.array(whole[k, j, i] != 0, np.uint8), affine


def fingerprint(segmentation_node: Any) -> str:
    """Of the segments that DCAMT wrote into a node: another one where voxels came to one of them, or went.

    Where they lie does not count, so that a transform may be hardened. Empty where a segment has no labelmap.
    """
    outlines = {}
    for own, identifier in own_segments(segmentation_node).items():
        if not segmentation_node.GetSegmentation().GetSegment(identifier).GetRepresentation(labelmap()):
            return ""
        outlines[own], _affine = outline_of(segmentation_node, identifier)
    return fingerprint_of(outlines)


def fingerprint_of(outlines: Mapping[str, np.ndarray]) -> str:
    """The `fingerprint` of segments with these voxels, by the code of their class."""
    sums = {own: [*mask.shape, zlib.crc32(np.packbits(mask))] for own, mask in outlines.items()}
    return json.dumps(sums, sort_keys=True)
