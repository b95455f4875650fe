"""Cases from the scene: each volume with the segmentation that outlines it, and which segment is which class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
import vtk
from DCAMTLib.recipe import Recipe
from DCAMTSlicerLib import review, training_cases

from .case_rows import CaseRow, SceneScan, default_role

_REFERENCE = "referenceImageGeometryRef"


def scene_rows(recipe: Recipe) -> list[CaseRow]:
    """A row for each scan of the scene, with the segmentation that was made a case of it, or drawn on it."""
    sent = {case.volume.GetID(): case.segmentation for case in training_cases.scene_cases()}
    rows = []
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if is_scan(volume):
            rows.append(row_of(volume, sent.get(volume.GetID()) or outline_of(volume, recipe), recipe))
    return rows


def sent_rows(recipe: Recipe) -> list[CaseRow]:
    """The results that were corrected in the segmentation module and sent over."""
    return [row_of(case.volume, case.segmentation, recipe) for case in training_cases.scene_cases()]


def is_scan(volume: Any) -> bool:
    """Whether a volume node is a scan, rather than a labelmap, a map that DCAMT made, or one without voxels."""
    derived = volume.IsA("vtkMRMLLabelMapVolumeNode") or not volume.IsA("vtkMRMLScalarVolumeNode")
    return not (derived or volume.GetHideFromEditors() or volume.GetImageData() is None or review.is_map(volume))


def outline_of(volume: Any, recipe: Recipe) -> Any | None:
    """The last segmentation node whose reference is the volume and that has a segment of one of the classes."""
    found = None
    for segmentation in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if segmentation.GetNodeReference(_REFERENCE) is volume and segments_of(segmentation, recipe):
            found = segmentation
    return found


def row_of(volume: Any, segmentation: Any | None, recipe: Recipe) -> CaseRow:
    """The row of a volume node; size and spacing are known at once."""
    segments = segments_of(segmentation, recipe) if segmentation is not None else ()
    source = SceneScan(volume.GetID(), segmentation.GetID() if segmentation is not None else "", segments)
    size = volume.GetImageData().GetDimensions()
    spacing = tuple(round(mm, 4) for mm in volume.GetSpacing())
    return CaseRow(volume.GetName(), source, default_role(bool(segments)), tuple(size), spacing)


def segments_of(segmentation: Any, recipe: Recipe) -> tuple[tuple[str, int], ...]:
    """Which segment stands for which class: by its code, else its name, else as the only one for the only class."""
    found: dict[int, str] = {}
    identifiers: Sequence[str] = segmentation.GetSegmentation().GetSegmentIDs()
    for identifier in identifiers:
        segment = segmentation.GetSegmentation().GetSegment(identifier)
        code = _type_code(segment)
        for info in recipe.classes:
            same = code == (info.type.scheme, info.type.value) or segment.GetName().lower() == info.name.lower()
            if same and info.label not in found:
                found[info.label] = identifier
    if not found and len(recipe.classes) == len(identifiers) == 1:
        found = {recipe.classes[0].label: identifiers[0]}
    return tuple((identifier, label) for label, identifier in sorted(found.items()))


def _type_code(segment: Any) -> tuple[str, str] | None:
    """Scheme and value of the segment's coded type; None if it has none."""
    text = vtk.reference("")
    if not segment.GetTag(segment.GetTerminologyEntryTagName(), text):
        return None
    # Context, category, type and more are parted by tildes; a code is scheme^value^meaning.
    parts = str(text.get()).split("~")
    code = parts[2].split("^") if len(parts) > 2 else []
    return (code[0], code[1]) if len(code) > 1 and code[1] else None
