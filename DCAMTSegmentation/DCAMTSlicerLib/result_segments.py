"""Build segments from labelmaps, write them into a segmentation node, and find the segments that DCAMT wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from dcamt.io.writers import TERMINOLOGY_CONTEXT
from dcamt.volume import Code
from dcamt.worker.events import SegmentResult
from vtk.util.numpy_support import numpy_to_vtk

from .node_types import Segment, Segmentation, SegmentationNode
from .segment_display import keep_display
from .segment_surfaces import set_conversion
from .segment_voxels import has_segments, labelmap_name

CLASS_TAG = "DCAMT.Class"
"""Tag of the segments that DCAMT wrote; its value is the code of the class, for instance `SCT 82471001`."""


@dataclass(frozen=True)
class BuiltSegment:
    """A segment that is not yet part of a segmentation; `code` is the value of its `CLASS_TAG`."""

    code: str
    segment: Segment


def build_segment(labels: np.ndarray, ijk_to_local: np.ndarray, item: SegmentResult) -> BuiltSegment:
    """Build the segment of one class; its image is cropped to the box of the class's voxels.

    Args:
        labels: (K, J, I), integers; may be a memory map.
        ijk_to_local: (4, 4), voxel index -> mm in the segmentation node's space.
        item: the class, and the box of its voxels; the box is None if the class has no voxels.
    """
    info, box = item.info, item.box
    code = f"{info.type.scheme} {info.type.value}"
    segment = slicer.vtkSegment()
    segment.SetName(info.name)
    segment.SetColor(*info.color)
    segment.SetTag(CLASS_TAG, code)
    triples = [getattr(term, part) for term in (info.category, info.type) for part in ("value", "scheme", "meaning")]
    no_modifier_and_no_region = [""] * 10
    entry = slicer.vtkSlicerTerminologiesModuleLogic.SerializeTerminologyEntry(
        TERMINOLOGY_CONTEXT, *triples, *no_modifier_and_no_region
    )
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
    segment.AddRepresentation(labelmap_name(), image)
    return BuiltSegment(code, segment)


def write_segments(segmentation_node: SegmentationNode, built: Sequence[BuiltSegment]) -> None:
    """Replace a node's DCAMT segments; keep all others.

    A new segment takes its identifier, display and place in the list from the earlier segment of its class, if any.
    References to the identifier thus stay valid.
    """
    segmentation = segmentation_node.GetSegmentation()
    order = list(segmentation.GetSegmentIDs())
    codes = find_dcamt_segments(segmentation_node)
    names = {identifier: segmentation.GetSegment(identifier).GetName() for identifier in codes}
    kept = _match_earlier_segments(codes, names, built)
    restore_display = keep_display(segmentation_node, [identifier for identifier in kept if identifier])
    for identifier in codes:
        segmentation.RemoveSegment(identifier)
    if not has_segments(segmentation_node):
        set_conversion(segmentation)
        segmentation.SetSourceRepresentationName(labelmap_name())
    for item, earlier in zip(built, kept, strict=True):
        segmentation.AddSegment(item.segment, earlier or _new_identifier(segmentation, item.segment.GetName(), kept))
        # This call makes the segmentation observe the labelmap and report edits.
        item.segment.Modified()
    now = list(segmentation.GetSegmentIDs())
    segmentation.ReorderSegments([*(key for key in order if key in now), *(key for key in now if key not in order)])
    restore_display()


def _match_earlier_segments(
    codes: Mapping[str, str], names: Mapping[str, str], built: Sequence[BuiltSegment]
) -> list[str | None]:
    """Return for each new segment the identifier of the earlier segment of its class; None if there is none.

    If several earlier or several new segments have the same code, their names must match, too. Otherwise the names may
    differ, since the user can rename the earlier segment.

    Args:
        codes, names: the codes and names of the earlier segments, by identifier.
    """
    counts_before, counts_now = Counter(codes.values()), Counter(item.code for item in built)
    free, kept = dict(codes), []
    for item in built:
        is_unique = counts_before[item.code] == counts_now[item.code] == 1
        name = item.segment.GetName()
        identifier = next((key for key in free if codes[key] == item.code and (is_unique or names[key] == name)), None)
        free.pop(identifier or "", None)
        kept.append(identifier)
    return kept


def _new_identifier(segmentation: Segmentation, name: str, taken: Sequence[str | None]) -> str:
    identifier, number = segmentation.GenerateUniqueSegmentID(name), 0
    while identifier in taken:
        number += 1
        identifier = segmentation.GenerateUniqueSegmentID(f"{name}_{number}")
    return str(identifier)


def terminology_type(segment: Segment) -> Code:
    """Return the code of a segment's type in its terminology; missing parts are empty."""
    text = vtk.reference("")
    segment.GetTag(segment.GetTerminologyEntryTagName(), text)
    # context ~ category ~ type ~ …; category and type have the form scheme ^ value ^ meaning.
    code = f"{text.get()}~~".split("~")[2]
    return Code(*f"{code}^^".split("^")[:3])


def has_other_segments(segmentation_node: SegmentationNode) -> bool:
    """Return whether a node has segments that DCAMT did not write."""
    return segmentation_node.GetSegmentation().GetNumberOfSegments() > len(find_dcamt_segments(segmentation_node))


def find_dcamt_segments(segmentation_node: SegmentationNode) -> dict[str, str]:
    """Return the class code of each DCAMT segment of a node, by the segment's identifier.

    A copy of a DCAMT segment counts as a DCAMT segment, since the copy has the same tag.
    """
    segmentation, codes, text = segmentation_node.GetSegmentation(), {}, vtk.reference("")
    for identifier in segmentation.GetSegmentIDs():
        if segmentation.GetSegment(identifier).GetTag(CLASS_TAG, text):
            codes[str(identifier)] = str(text.get())
    return codes
