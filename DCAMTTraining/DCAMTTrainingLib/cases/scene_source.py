"""Find cases in the scene: each volume with its segmentation, and the class of each segment."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from dcamt.recipe import Recipe
from DCAMTSegmentationLib import review, training_cases
from DCAMTSlicerLib.result_segments import own_segments

from ..task import TISSUE
from .derived_nodes import is_preview, is_proposal, scan_of
from .rows import CaseRow, SceneScan, default_role


def scene_rows(recipe: Recipe) -> list[CaseRow]:
    """Return a row for each scan of the scene, with the segmentation added as a training case or drawn on it."""
    sent = {case.volume.GetID(): case.segmentation for case in training_cases.scene_cases()}
    rows = []
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if is_scan(volume):
            rows.append(row_of(volume, sent.get(volume.GetID()) or outline_of(volume, recipe), recipe))
    return rows


def sent_rows(recipe: Recipe) -> list[CaseRow]:
    """Return a row for each result that DCAMT Segmentation added to the training cases."""
    return [row_of(case.volume, case.segmentation, recipe) for case in training_cases.scene_cases()]


def is_scan(volume: Any) -> bool:
    """Return whether a volume node is a scan: it has voxels, and is no labelmap and no node of DCAMT's own."""
    labelmap = volume.IsA("vtkMRMLLabelMapVolumeNode") or not volume.IsA("vtkMRMLScalarVolumeNode")
    own = review.is_map(volume) or is_preview(volume)
    return not (labelmap or own or volume.GetHideFromEditors() or volume.GetImageData() is None)


def outline_of(volume: Any, recipe: Recipe) -> Any | None:
    """Return the last segmentation node on the volume that holds a class outlined by a person; None if none does."""
    found = None
    for segmentation in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if scan_of(segmentation) is volume and segments_of(segmentation, recipe):
            found = segmentation
    return found


def row_of(volume: Any, segmentation: Any | None, recipe: Recipe) -> CaseRow:
    """Return the row of a volume node and its segmentation node (or None)."""
    segments = segments_of(segmentation, recipe) if segmentation is not None else ()
    source = SceneScan(volume.GetID(), segmentation.GetID() if segmentation is not None else "", segments)
    size = volume.GetImageData().GetDimensions()
    spacing = tuple(round(mm, 4) for mm in volume.GetSpacing())
    return CaseRow(volume.GetName(), source, default_role(bool(segments)), tuple(size), spacing)


def segments_of(segmentation: Any, recipe: Recipe) -> tuple[tuple[str, int], ...]:
    """Return pairs of segment identifier and label value, ordered by label.

    A segment is matched to a class by its terminology code, else by its name, else as the only segment for the only
    class. Uncorrected results of a model are left out: a model would learn its own mistakes from them.
    """
    parts = segmentation.GetSegmentation()
    free = _segments_of_a_person(segmentation)
    found: dict[int, str] = {}
    if len(recipe.classes) == len(free) == 1:
        return ((free[0], recipe.classes[0].label),)
    codes = {identifier: _type_code(parts.GetSegment(identifier)) for identifier in free}
    names = {identifier: parts.GetSegment(identifier).GetName().lower() for identifier in free}
    for known, wanted in (
        # Slicer codes every new segment as "Tissue", which says nothing about its class.
        (codes, {c.label: (c.type.scheme, c.type.value) for c in recipe.classes if c.type.value != TISSUE.value}),
        (names, {c.label: c.name.lower() for c in recipe.classes}),
    ):
        for label, key in wanted.items():
            same = next((identifier for identifier in free if known[identifier] == key), None)
            if label not in found and same is not None:
                found[label] = same
                free.remove(same)
    return tuple((identifier, label) for label, identifier in sorted(found.items()))


def _segments_of_a_person(segmentation: Any) -> list[str]:
    """Return identifiers of the segments that a person drew, corrected or added to the training cases."""
    identifiers = list(segmentation.GetSegmentation().GetSegmentIDs())
    if training_cases.is_case(segmentation) or review.notice_correction(segmentation):
        return identifiers
    if is_preview(segmentation) or is_proposal(segmentation):
        return []
    by_model = own_segments(segmentation).values()
    return [identifier for identifier in identifiers if identifier not in by_model]


def _type_code(segment: Any) -> tuple[str, str] | None:
    """Return scheme and value of the segment's coded type; None if it has no code."""
    text = vtk.reference("")
    if not segment.GetTag(segment.GetTerminologyEntryTagName(), text):
        return None
    # Context, category and type are separated by tildes; a code is scheme^value^meaning.
    parts = str(text.get()).split("~")
    code = parts[2].split("^") if len(parts) > 2 else []
    return (code[0], code[1]) if len(code) > 1 and code[1] else None
