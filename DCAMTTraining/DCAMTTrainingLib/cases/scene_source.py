"""Cases from the scene: each volume with the segmentation that outlines it, and which segment is which class."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from dcamt.recipe import Recipe
from DCAMTSegmentationLib import review, training_cases
from DCAMTSlicerLib.result_segments import own_segments

from ..runs.preview import is_preview
from ..runs.proposal import is_proposal, scan_of
from ..runs.task import TISSUE
from .rows import CaseRow, SceneScan, default_role


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
    """Whether a volume node is a scan: no labelmap, nothing that DCAMT put into the scene, and not without voxels."""
    derived = volume.IsA("vtkMRMLLabelMapVolumeNode") or not volume.IsA("vtkMRMLScalarVolumeNode")
    made = review.is_map(volume) or is_preview(volume)
    return not (derived or made or volume.GetHideFromEditors() or volume.GetImageData() is None)


def outline_of(volume: Any, recipe: Recipe) -> Any | None:
    """The last segmentation node on the volume in which a person outlined one of the classes."""
    found = None
    for segmentation in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if scan_of(segmentation) is volume and segments_of(segmentation, recipe):
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
    """Which segment stands for which class: by its code, else its name, else as the only one for the only class.

    Of those that a person answers for: from what a network alone has said, it would learn its own mistakes.
    """
    parts = segmentation.GetSegmentation()
    free = _persons_segments(segmentation)
    found: dict[int, str] = {}
    if len(recipe.classes) == len(free) == 1:
        return ((free[0], recipe.classes[0].label),)
    codes = {identifier: _type_code(parts.GetSegment(identifier)) for identifier in free}
    names = {identifier: parts.GetSegment(identifier).GetName().lower() for identifier in free}
    for known, wanted in (
        # Slicer codes a new segment as tissue, whatever it is.
        (codes, {c.label: (c.type.scheme, c.type.value) for c in recipe.classes if c.type.value != TISSUE.value}),
        (names, {c.label: c.name.lower() for c in recipe.classes}),
    ):
        for label, key in wanted.items():
            same = next((identifier for identifier in free if known[identifier] == key), None)
            if label not in found and same is not None:
                found[label] = same
                free.remove(same)
    return tuple((identifier, label) for label, identifier in sorted(found.items()))


def _persons_segments(segmentation: Any) -> list[str]:
    """Identifiers of the segments that a person drew, corrected or sent over."""
    identifiers = list(segmentation.GetSegmentation().GetSegmentIDs())
    if training_cases.is_case(segmentation) or review.notice_correction(segmentation):
        return identifiers
    if is_preview(segmentation) or is_proposal(segmentation):
        return []
    written = own_segments(segmentation).values()
    return [identifier for identifier in identifiers if identifier not in written]


def _type_code(segment: Any) -> tuple[str, str] | None:
    """Scheme and value of the segment's coded type; None if it has none."""
    text = vtk.reference("")
    if not segment.GetTag(segment.GetTerminologyEntryTagName(), text):
        return None
    # Context, category, type and more are parted by tildes; a code is scheme^value^meaning.
    parts = str(text.get()).split("~")
    code = parts[2].split("^") if len(parts) > 2 else []
    return (code[0], code[1]) if len(code) > 1 and code[1] else None
