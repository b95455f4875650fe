"""Find cases in the scene: each volume with its segmentation, and the class of each segment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from dcamt.cases.case_list import LABELLED, LEFT_OUT, UNLABELLED
from dcamt.cases.names import labels_beside_scans
from dcamt.errors import InputError
from dcamt.geometry import AXIS_TOLERANCE, Grid
from dcamt.recipe import Recipe
from dcamt.typed_names import plain_name
from dcamt.volume import GRID_TOLERANCE, TISSUE
from DCAMTSegmentationLib import correction_marks, result_scan, training_cases
from DCAMTSegmentationLib.doubt_map import is_map
from DCAMTSegmentationLib.result_nodes import VOLUME, get_referenced_node
from DCAMTSlicerLib.fingerprints import checksum_of, fingerprint
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.result_segments import find_dcamt_segments, terminology_type
from DCAMTSlicerLib.segment_voxels import affine_of, grid_image, labelmap_affine, labelmap_name, read_segment, scan_of
from DCAMTSlicerLib.volume_bridge import grid_of
from slicer.i18n import tr as _

from ..runs import proposal
from .derived_nodes import is_preview, is_proposal, size_and_spacing
from .rows import CaseRow, SceneScan, default_role


def scene_rows(recipe: Recipe) -> list[CaseRow]:
    """Return a row for each scan of the scene, with its label if there is one.

    The label is the first of these that exists:

    - the segmentation that was made a training case;
    - a segmentation that has a segment for a class, and that either was drawn on the scan or holds DCAMT's segments of
      the scan;
    - a segmentation that references no scan, has a segment for a class, and lies on the grid of this scan only.
      A result whose own scan was removed is not taken, since another patient's scan may have the same grid.
    """
    cases = _segmentations_by_volume(training_cases.scene_cases())
    scans = [volume for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if is_scan(volume)]
    outlines = outlines_of_scans(recipe)
    loaded = _segmentations_of_unknown_scans()
    grids = [grid_of(volume) for volume in scans]
    fitting = {node.GetID(): _fitting_scans(node, scans, grids) for node in loaded}
    named_like_labels = _named_like_labels(scans)
    rows = []
    for volume in scans:
        # A segmentation loaded from a .seg.nrrd file references no scan.
        loaded_labels = [
            node
            for node in loaded
            if fitting[node.GetID()] == [volume] and not result_scan.has_lost_scan(node) and segments_of(node, recipe)
        ]
        outlined = outlines.get(volume.GetID()) or loaded_labels
        candidates = _usable(cases[volume.GetID()], volume, recipe) if volume.GetID() in cases else outlined
        segmentation = _preferred(candidates)
        row = row_of(volume, segmentation, recipe)
        if row.has_label:
            rows.append(replace(row, note=_choice_note(segmentation, candidates)))
        elif volume.GetID() in named_like_labels:
            note = _("Named like a label of another volume. Load the file as a segmentation, or choose a role.")
            rows.append(replace(row, role=LEFT_OUT, note=note))
        else:
            rows.append(replace(row, note=_why_unlabelled(volume, loaded, fitting)))
    return rows


def _named_like_labels(volumes: list[Any]) -> set[str]:
    files = {Path(f"{volume.GetName().replace('/', '_')}.nrrd"): volume.GetID() for volume in volumes}
    return {files[path] for path in labels_beside_scans(list(files), Path())}


def training_case_rows(recipe: Recipe, unlisted_only: bool = False) -> list[CaseRow]:
    """Return a row for each volume with a training case, and mark these cases as listed.

    Args:
        unlisted_only: omit the cases that were listed before.
    """
    cases = training_cases.unlisted_cases() if unlisted_only else training_cases.scene_cases()
    volumes = {case.volume.GetID(): case.volume for case in cases}
    rows = []
    for name, segmentations in _segmentations_by_volume(cases).items():
        candidates = _usable(segmentations, volumes[name], recipe)
        taken = _preferred(candidates)
        rows.append(replace(row_of(volumes[name], taken, recipe), note=_choice_note(taken, candidates)))
    for case in cases:
        training_cases.mark_listed(case)
    return rows


def _segmentations_by_volume(cases: Sequence[training_cases.SceneCase]) -> dict[str, list[Any]]:
    segmentations: defaultdict[str, list[Any]] = defaultdict(list)
    for case in cases:
        segmentations[case.volume.GetID()].append(case.segmentation)
    return dict(segmentations)


def _usable(segmentations: list[Any], volume: VolumeNode, recipe: Recipe) -> list[Any]:
    return [node for node in segmentations if segments_of(node, recipe, volume)] or segmentations


def is_scan(volume: VolumeNode) -> bool:
    """Return whether a scalar volume node is a scan.

    Labelmaps, maps of doubt or disagreement, previews, hidden volumes and empty volumes are not scans.
    """
    is_labelmap = volume.IsA("vtkMRMLLabelMapVolumeNode")
    is_result = is_map(volume) or is_preview(volume)
    return not (is_labelmap or is_result or volume.GetHideFromEditors() or volume.GetImageData() is None)


def outlines_of_scans(recipe: Recipe) -> dict[str, list[Any]]:
    """Return {volume ID: the volume's segmentations that have a segment for a class}."""
    outlines: defaultdict[str, list[Any]] = defaultdict(list)
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        for scan in _scans_of(node):
            if segments_of(node, recipe, scan):
                outlines[scan.GetID()].append(node)
    return dict(outlines)


def _preferred(segmentations: Sequence[Any]) -> Any | None:
    """Return the segmentation whose voxels were changed last.

    In a scene that was loaded, the segmentation that was loaded last counts as changed last.
    """
    if len(segmentations) < 2:
        return segmentations[0] if segmentations else None
    last = max(reversed(segmentations), key=_time_of_change)
    # If `last` is an unchanged clone, return its original.
    return next(node for node in segmentations if node is last or _have_same_voxels(node, last))


def _have_same_voxels(segmentation: SegmentationNode, other: SegmentationNode) -> bool:
    states = []
    for node in (segmentation, other):
        identifiers = node.GetSegmentation().GetSegmentIDs()
        affine = labelmap_affine(node, identifiers)
        if affine is None:
            return False
        states.append((fingerprint(node, identifiers), affine.tolist(), node.GetTransformNodeID()))
    return bool(states[0][0]) and states[0] == states[1]


def _time_of_change(segmentation: SegmentationNode) -> int:
    """Return VTK's time of the last change to the voxels; 0 if no segment has a labelmap."""
    segments = segmentation.GetSegmentation()
    images = [
        segments.GetNthSegment(index).GetRepresentation(labelmap_name())
        for index in range(segments.GetNumberOfSegments())
    ]
    return max((image.GetMTime() for image in images if image is not None), default=0)


def _choice_note(taken: SegmentationNode | None, candidates: Sequence[Any]) -> str:
    others = [node for node in candidates if node is not taken]
    if taken is None or not others:
        return ""
    text = _("The label is “{taken}”. Other outlines of this scan: {others}. To take another one, press Segments….")
    return str(text.format(taken=taken.GetName(), others=", ".join(f"“{node.GetName()}”" for node in others)))


def choice_note(source: SceneScan, recipe: Recipe) -> str:
    """Return a note about other outlines of a case's scan; "" if there are none, or if the user chose the segments."""
    volume, taken = (slicer.mrmlScene.GetNodeByID(name or "") for name in (source.volume, source.segmentation))
    if volume is None or taken is None or source.chosen:
        return ""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    cases = [case.segmentation for case in training_cases.scene_cases() if case.volume is volume]
    if taken in cases:  # Training cases have priority over all other segmentations.
        candidates = cases
    elif volume in _scans_of(taken):
        candidates = [node for node in nodes if volume in _scans_of(node)]
    else:
        loaded = [node for node in nodes if not _scans_of(node) and not result_scan.has_lost_scan(node)]
        candidates = [node for node in loaded if _fitting_scans(node, [volume], [grid_of(volume)])]
    if len(candidates) < 2:
        return ""
    return _choice_note(taken, [node for node in candidates if segments_of(node, recipe, volume)])


def _scans_of(segmentation: SegmentationNode) -> list[Any]:
    drawn_on, segmented = scan_of(segmentation), get_referenced_node(segmentation, VOLUME)
    return [scan for scan in (drawn_on, segmented if segmented is not drawn_on else None) if scan is not None]


def _fitting_scans(segmentation: SegmentationNode, scans: Sequence[Any], grids: Sequence[Grid]) -> list[Any]:
    """Return the volumes whose grid contains the grid of a segmentation.

    Grids do not include transforms, so both nodes must have the same parent transform node, or none. All volumes are
    compared at once, since a scene may have hundreds of scans and as many segmentations.
    """
    label_grid = _grid_of_segmentation(segmentation)
    if label_grid is None or not scans:
        return []
    affines = np.array([grid.affine for grid in grids])
    affines[np.linalg.det(affines) == 0] = np.nan  # A scan with a damaged geometry fits no label.
    # Voxel index of the label -> voxel index of each scan, (N, 4, 4).
    to_scans = np.linalg.inv(affines) @ label_grid.affine
    rounded = np.rint(to_scans)
    steps, turns = to_scans[:, :3, :3], np.abs(rounded[:, :3, :3])
    have_equal_axes = (np.abs(np.abs(steps) - turns) <= AXIS_TOLERANCE).all((1, 2))
    have_equal_axes &= (turns.sum(1) == 1).all(1) & (turns.sum(2) == 1).all(1)
    # The indices of the label's corners in each scan, (N, 3, 8).
    corners = [(*corner, 1) for corner in product(*((0, size - 1) for size in label_grid.shape))]
    places = to_scans[:, :3] @ np.transpose(corners)
    indices = rounded[:, :3] @ np.transpose(corners)
    shapes = np.array([grid.shape for grid in grids])
    lie_on_voxels = (np.abs(places - indices) <= GRID_TOLERANCE).all((1, 2))
    are_inside = (indices.min(2) >= 0).all(1) & (indices.max(2) < shapes).all(1)
    return [
        volume
        for volume, fits in zip(scans, have_equal_axes & lie_on_voxels & are_inside, strict=True)
        if fits and volume.GetTransformNodeID() == segmentation.GetTransformNodeID()
    ]


def _grid_of_segmentation(segmentation: SegmentationNode) -> Grid | None:
    """Return the grid of a segmentation's reference image, or else of its first segment."""
    image = grid_image(segmentation)
    if image is None:
        segment = segmentation.GetSegmentation().GetNthSegment(0)
        image = segment.GetRepresentation(labelmap_name()) if segment is not None else None
    if image is None:
        return None
    affine = affine_of(image)
    affine[:3, 3] += affine[:3, :3] @ image.GetExtent()[::2]
    return Grid(image.GetDimensions(), affine)


def row_of(volume: VolumeNode, segmentation: SegmentationNode | None, recipe: Recipe) -> CaseRow:
    """Return the row of a volume node and its segmentation node."""
    segments = segments_of(segmentation, recipe, volume) if segmentation is not None else ()
    source = SceneScan(volume.GetID(), segmentation.GetID() if segmentation is not None else "", segments)
    return CaseRow(volume.GetName(), source, default_role(bool(segments)), *size_and_spacing(volume))


def segments_of(
    segmentation: SegmentationNode, recipe: Recipe, volume: VolumeNode | None = None
) -> tuple[tuple[str, int], ...]:
    """Return pairs of segment identifier and label value, ordered by label value.

    A model's segments are included only if the segmentation is a corrected result or a training case, so that a new
    model does not learn the mistakes of the old model. Segments that a person drew or edited are preferred.

    Args:
        volume: the scan whose label is wanted; None for the segments of all scans.
    """
    return match_segments(segmentation, _groups_of_segments(segmentation, volume), recipe)


def competing_segments(source: SceneScan, recipe: Recipe) -> dict[int, tuple[str, ...]]:
    """Return label value -> segment names, for each class that several segments fit.

    Only segments in the same group of `_groups_of_segments` are compared. In each tuple, the segment that the case uses
    is first. If the user chose the segments, the result is empty.
    """
    segmentation = slicer.mrmlScene.GetNodeByID(source.segmentation) if source.segmentation else None
    if segmentation is None or source.chosen:
        return {}
    groups = _groups_of_segments(segmentation, slicer.mrmlScene.GetNodeByID(source.volume))
    segments, competing = segmentation.GetSegmentation(), {}
    for label, (taken, *others) in _match(segmentation, groups, recipe).items():
        if others and (taken, label) in source.segments:
            others = [other for other in others if _is_another_outline(segmentation, other, taken)]
            if others:
                competing[label] = tuple(segments.GetSegment(name).GetName() for name in (taken, *others))
    return competing


def _is_another_outline(segmentation: SegmentationNode, identifier: str, taken: str) -> bool:
    """Return whether a segment is not empty and differs from the segment `taken`; True if they cannot be compared."""
    try:
        voxels = read_segment(segmentation, identifier)
        return bool(voxels.mask.any()) and checksum_of(voxels) != checksum_of(read_segment(segmentation, taken))
    except InputError:  # Segments without a binary labelmap cannot be compared.
        return True


def _groups_of_segments(segmentation: SegmentationNode, volume: VolumeNode | None) -> list[list[str]]:
    """Return, in groups, the segments that may serve as the label of `volume`, or of any scan if `volume` is None.

    The groups are in order of preference.
    """
    identifiers = _segments_of_a_person(segmentation)
    # Skip `_unedited_segments` for a single segment: comparing voxels takes time.
    unedited = _unedited_segments(segmentation) if len(identifiers) > 1 else set()
    groups = []
    for group in _segments_on(volume, segmentation, identifiers):
        groups.append([identifier for identifier in group if identifier not in unedited])
        groups.append([identifier for identifier in group if identifier in unedited])
    return groups


def _unedited_segments(segmentation: SegmentationNode) -> set[str]:
    """Return the segments that a model made and that nobody is known to have edited."""
    by_model = find_dcamt_segments(segmentation).keys()
    if not by_model:
        return set()
    if is_proposal(segmentation) or is_preview(segmentation):
        return proposal.unedited_segments(segmentation) & by_model
    return correction_marks.unedited_segments(segmentation)


def _segments_on(volume: VolumeNode | None, segmentation: SegmentationNode, identifiers: list[str]) -> list[list[str]]:
    """Return, in groups, the segments of `identifiers` that may serve as the label of `volume`.

    The groups are in order of preference.

    Usually, all segments are returned, in one group. The exception is a segmentation that was drawn on one scan and
    holds DCAMT's result for another scan. Its DCAMT segments and its other segments are separate groups.
    """
    segmented = get_referenced_node(segmentation, VOLUME)
    has_result = segmented is not None or result_scan.has_lost_scan(segmentation)
    if volume is None or not has_result:
        return [identifiers]
    drawn_on = scan_of(segmentation)
    belongs_to_two_scans = drawn_on is not None and drawn_on is not segmented
    if not belongs_to_two_scans or volume not in (drawn_on, segmented):
        return [identifiers]
    by_dcamt = find_dcamt_segments(segmentation)
    dcamt_segments = [identifier for identifier in identifiers if identifier in by_dcamt]
    other_segments = [identifier for identifier in identifiers if identifier not in by_dcamt]
    if volume is drawn_on:
        # DCAMT made its segments for the other scan.
        accepted = dcamt_segments if _is_training_case_of(volume, segmentation) else []
        return [other_segments, accepted]
    # A person who corrected or accepted DCAMT segments of `volume` may also have drawn other segments on `volume`.
    return [dcamt_segments, other_segments] if dcamt_segments else []


def _is_training_case_of(volume: VolumeNode, segmentation: SegmentationNode) -> bool:
    return training_cases.is_case(segmentation) and segmentation.GetNodeReference(training_cases.IMAGE) is volume


def is_models_own(source: SceneScan) -> bool:
    """Return whether the label of a case has a segment that a model made, and that no person corrected or accepted.

    A person accepts a segment by making the segmentation a training case.
    """
    segmentation = slicer.mrmlScene.GetNodeByID(source.segmentation) if source.segmentation else None
    if segmentation is None:
        return False
    by_model = find_dcamt_segments(segmentation)
    used = [identifier for identifier, _label in source.segments if identifier in by_model]
    return bool(used) and not set(used) <= set(_segments_of_a_person(segmentation))


def place_problem(source: SceneScan) -> str:
    """Return a message if the DCAMT segments of a case's label were moved in the scan, else an empty text.

    The text is also empty if the user chose the segments, and thereby confirmed that they fit the scan.
    """
    segmentation = slicer.mrmlScene.GetNodeByID(source.segmentation) if source.segmentation else None
    if source.chosen or segmentation is None:
        return ""
    scan = get_referenced_node(segmentation, VOLUME)
    has_result = find_dcamt_segments(segmentation).keys() & {identifier for identifier, _label in source.segments}
    if not has_result or scan is None or scan is not slicer.mrmlScene.GetNodeByID(source.volume):
        return ""
    correction_marks.update_correction_marks(segmentation)
    if not correction_marks.is_moved(segmentation):
        return ""
    text = _(
        "The outline no longer lies where DCAMT drew it in the scan. Move scan or segmentation back, or give both the"
        " same transform. If the outline fits the scan, choose its segments with Segments…."
    )
    return str(text)


def accept_results(source: SceneScan) -> None:
    """Accept the segments that the user chose: if `is_models_own`, make the case's segmentation a training case."""
    volume = slicer.mrmlScene.GetNodeByID(source.volume)
    if volume is not None and is_models_own(source):
        training_cases.mark_listed(training_cases.add_case(volume, slicer.mrmlScene.GetNodeByID(source.segmentation)))


def match_segments(
    segmentation: SegmentationNode, groups: Sequence[Sequence[str]], recipe: Recipe
) -> tuple[tuple[str, int], ...]:
    """Return pairs of segment identifier and label value, ordered by label value.

    If there is one segment and one class, the segment is matched to the class. Otherwise a segment is matched to a
    class by its terminology code, else by its name in lower case, else by its `plain_name`.

    Args:
        groups: identifiers of segments. A class gets a segment of the first group in which a segment fits the class.
    """
    matches = _match(segmentation, groups, recipe)
    return tuple((fitting[0], label) for label, fitting in sorted(matches.items()))


def _match(
    segmentation: SegmentationNode, groups: Sequence[Sequence[str]], recipe: Recipe
) -> dict[int, tuple[str, ...]]:
    """Match segments to classes as `match_segments` does.

    Returns:
        {label value: identifiers}, for each class that a segment fits. The first segment is matched to the class. The
        others are from the same group and fit the class, but are matched to no class.
    """
    every = [identifier for group in groups for identifier in group]
    if len(recipe.classes) == len(every) == 1:
        return {recipe.classes[0].label: (every[0],)}
    segments = segmentation.GetSegmentation()
    types = {identifier: terminology_type(segments.GetSegment(identifier)) for identifier in every}
    codes = {identifier: (code.scheme, code.value) for identifier, code in types.items()}
    names = {identifier: segments.GetSegment(identifier).GetName().lower() for identifier in every}
    plain_names = {identifier: plain_name(name) for identifier, name in names.items()}
    rules = (
        # "Tissue", the code of an unknown type, does not identify a class.
        (codes, {c.label: (c.type.scheme, c.type.value) for c in recipe.classes if c.type.value != TISSUE.value}),
        (names, {c.label: c.name.lower() for c in recipe.classes}),
        (plain_names, {c.label: plain_name(c.name) for c in recipe.classes}),
    )
    matches: dict[int, tuple[str, ...]] = {}
    for group in groups:
        free, matched = list(group), dict[int, str]()
        for known, wanted in rules:
            for label, key in wanted.items():
                same = next((identifier for identifier in free if known[identifier] == key), None)
                if label not in matches and label not in matched and same is not None:
                    matched[label] = same
                    free.remove(same)
        for label, identifier in matched.items():
            others = [
                other
                for other in free
                if any(label in wanted and known[other] == wanted[label] for known, wanted in rules)
            ]
            matches[label] = (identifier, *others)
    return matches


def rematch_segments(rows: Sequence[CaseRow], recipe: Recipe, keeps_unmatched: bool) -> list[CaseRow]:
    """Match the segments of the scene's cases to a changed recipe's classes; return all rows.

    Segments that the user chose stay unchanged. An unlabelled case that gets its first segments becomes labelled.

    Args:
        keeps_unmatched: whether a class keeps the segments that matched it before, if no segment of any case matches it
            now. Pass True if a class may have been renamed, since its segments still have the old name.
    """
    matches: dict[int, tuple[SceneScan, tuple[tuple[str, int], ...]]] = {}
    for index, row in enumerate(rows):
        source = row.source
        if isinstance(source, SceneScan) and source.segmentation and not source.chosen:
            segmentation = slicer.mrmlScene.GetNodeByID(source.segmentation)
            if segmentation is not None:
                volume = slicer.mrmlScene.GetNodeByID(source.volume)
                matches[index] = source, segments_of(segmentation, recipe, volume)
    matched_labels = {label for _source, pairs in matches.values() for _identifier, label in pairs}
    kept_labels = {info.label for info in recipe.classes} - matched_labels if keeps_unmatched else set()
    changed = list(rows)
    for index, (source, pairs) in matches.items():
        used = {identifier for identifier, _label in pairs}
        kept = [(name, label) for name, label in source.segments if label in kept_labels and name not in used]
        segments = tuple(sorted([*pairs, *kept], key=lambda pair: pair[1]))
        row = rows[index]
        role = LABELLED if row.role == UNLABELLED and segments and not source.segments else row.role
        changed[index] = replace(row, source=replace(source, segments=segments), role=role)
    return changed


def _segmentations_of_unknown_scans() -> list[Any]:
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    unknown = [node for node in nodes if result_scan.has_lost_scan(node) or not _scans_of(node)]
    return [node for node in unknown if _segments_of_a_person(node)]


def _why_unlabelled(volume: VolumeNode, loaded: list[Any], fitting: dict[str, list[Any]]) -> str:
    """Return why no segmentation in `loaded` was taken as the volume's label.

    Segmentations that lie only on grids of other scans are ignored. If no segmentation remains, the text is empty.

    Args:
        loaded: the segmentations that reference no scan, or whose scan was removed.
        fitting: node ID of a segmentation -> the volumes on whose grid it lies.
    """
    for node in loaded:
        scans = fitting[node.GetID()]
        if volume in scans and result_scan.has_lost_scan(node):
            text = _(
                "“{name}” was made from a scan that is no longer in the scene. If it outlines this scan, choose it with"
                " Segments…."
            )
        elif scans == [volume]:
            text = _(
                "“{name}” fits this scan, but no segment is named like a class. Choose the segmentation with Segments…."
            )
        elif volume in scans:
            text = _("“{name}” fits several scans. If it outlines this one, choose it with Segments….")
        elif not scans:
            text = _("“{name}” lies on a different grid. If it outlines this scan, choose it with Segments….")
        else:
            continue
        return str(text.format(name=node.GetName()))
    return ""


def _segments_of_a_person(segmentation: SegmentationNode) -> list[str]:
    """Return the identifiers of the segments that count as a person's work.

    If the segmentation is a training case, or a result that a person corrected, all segments count, even if only one
    was edited.
    """
    identifiers = list(segmentation.GetSegmentation().GetSegmentIDs())
    if training_cases.is_case(segmentation):
        return identifiers
    # `update_correction_marks` returns True even if somebody merely added copies of the result's segments. An unedited
    # copy is the model's work.
    if correction_marks.update_correction_marks(segmentation) and not correction_marks.was_only_copied(segmentation):
        return identifiers
    if is_preview(segmentation) or is_proposal(segmentation):
        return []
    by_model = find_dcamt_segments(segmentation)
    return [identifier for identifier in identifiers if identifier not in by_model]
