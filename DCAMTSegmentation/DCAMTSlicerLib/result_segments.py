"""From a labelmap to the segments of a segmentation node, and which segments there are DCAMT's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

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


def build_segments(
    labels: np.ndarray, ijk_to_local: np.ndarray, classes: Sequence[Mapping[str, Any]]
) -> list[BuiltSegment]:
    """One segment for each class, with only the box of voxels that it fills.

    `labels`: (K, J, I), uint8, may be a memory map. `ijk_to_local`: (4, 4), voxel index -> coordinates of the
    segmentation node, mm. `classes`: as the worker's `finished` event has them in `segments`.
    """
    matrix = slicer.util.vtkMatrixFromArray(ijk_to_local)
    return [_build(labels == item["label"], matrix, item) for item in classes]


def write_segments(segmentation_node: Any, built: Sequence[BuiltSegment]) -> None:
    """Put segments into a node in place of those that DCAMT wrote there before; all others stay as they are."""
    segmentation = segmentation_node.GetSegmentation()
    before = own_segments(segmentation_node)
    for identifier in before.values():
        segmentation.RemoveSegment(identifier)
    if segmentation.GetNumberOfSegments() == 0:
        for name, value in SURFACE.items():
            segmentation.SetConversionParameter(name, value)
    for item in built:
        # The same identifier as before, so that what refers to the segment still finds it.
        wanted = before.get(item.own) or segmentation.GenerateUniqueSegmentID(item.segment.GetName())
        segmentation.AddSegment(item.segment, wanted)


def own_segments(segmentation_node: Any) -> dict[str, str]:
    """Identifiers of the segments that DCAMT wrote into a node, by the code of their class."""
    segmentation, found, text = segmentation_node.GetSegmentation(), {}, vtk.reference("")
    for identifier in segmentation.GetSegmentIDs():
        if segmentation.GetSegment(identifier).GetTag(OWN_TAG, text):
            found[str(text.get())] = identifier
    return found


def _build(mask: np.ndarray, matrix: Any, item: Mapping[str, Any]) -> BuiltSegment:
    category, kind = item["category"], item["type"]
    own = f"{kind['scheme']} {kind['value']}"
    segment = slicer.vtkSegment()
    segment.SetName(item["name"])
    segment.SetColor(*item["color"])
    segment.SetTag(OWN_TAG, own)
    triples = [code[part] for code in (category, kind) for part in ("value", "scheme", "meaning")]
    entry = slicer.vtkSlicerTerminologiesModuleLogic.SerializeTerminologyEntry(TERMINOLOGY, *triples, *[""] * 10)
    segment.SetTag(segment.GetTerminologyEntryTagName(), entry)
    image = slicer.vtkOrientedImageData()
    box = _box(mask)
    if box is None:
        image.SetExtent(0, -1, 0, -1, 0, -1)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    else:
        extent = [edge for axis in reversed(box) for edge in (axis.start, axis.stop - 1)]
        image.SetExtent(*extent)
        voxels = np.ascontiguousarray(mask[box], np.uint8)
        image.GetPointData().SetScalars(numpy_to_vtk(voxels.ravel(), deep=True))
    image.SetGeometryFromImageToWorldMatrix(matrix)
    name = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()
    segment.AddRepresentation(name, image)
    return BuiltSegment(own, segment)


def _box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The smallest box of (K, J, I) with all that is set; None if nothing is."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(slices):
        return None
    flat = mask[slices[0] : slices[-1] + 1].any(axis=0)
    found = (slices, np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0)))
    k, j, i = (slice(int(at[0]), int(at[-1]) + 1) for at in found)
    return k, j, i
