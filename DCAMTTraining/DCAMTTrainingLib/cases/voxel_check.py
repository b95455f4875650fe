"""Check the voxels of the scene's cases by the engine's rules, and keep the results until a node is changed."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from dcamt.cases.case_list import LABELLED, ROLES_WITH_LABEL, Case
from dcamt.cases.checks import CaseFacts, few_values_warning, scan_checksum_in_steps, with_label
from dcamt.errors import InputError, without_path
from dcamt.recipe import Recipe
from dcamt.volume import Labelmap, Volume, channel_order, check_scan, size_warning
from DCAMTSegmentationLib.correction_marks import written_fingerprint
from DCAMTSlicerLib.fingerprints import checksum_of, differ_only_by_copies, fingerprint_of
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.result_segments import find_dcamt_segments
from DCAMTSlicerLib.segment_voxels import labelmap_name, read_segment
from DCAMTSlicerLib.volume_bridge import grid_of, voxels_of
from slicer.i18n import tr as _

from .derived_nodes import channel_names_of, channels_of, file_of_all_channels
from .rows import SceneScan
from .scene_export import SceneLabel, read_label


@dataclass(frozen=True)
class _ChannelFacts:
    """Facts about the voxels of a volume node.

    Attributes:
        problem: why training would refuse the scan, and the remedy; empty if training would accept the scan. The text
            is a predicate without a subject, such as "is blank".
        warning: the `few_values_warning`.
        checksum: the `scan_checksum`; None if there is a problem.
    """

    problem: str = ""
    warning: str = ""
    checksum: str | None = None


_known_channels: dict[str, tuple[Any, _ChannelFacts]] = {}
"""Node ID of a volume -> the volume's state (`_state_of_volume`) and facts.

A new node with the ID of a removed node has another state, since VTK never repeats a modification time.
"""
_known_labels: dict[SceneScan, tuple[Any, CaseFacts]] = {}
"""A case's source -> the state (recipe and `_state_of_label`) in which the label was checked, and the label's facts."""


def check_voxels(source: SceneScan, role: str, recipe: Recipe) -> Generator[None, None, CaseFacts]:
    """Return the problems and warnings of a case's voxels, its label values and its checksum, in short steps.

    The label is checked only if the role needs one and the scan has no problem. If the label extends beyond the scan
    (see `SceneLabel.problem`), the facts contain a problem, and no label values.
    """
    volume = slicer.mrmlScene.GetNodeByID(source.volume)
    if volume is None or volume.GetImageData() is None:
        return CaseFacts(0, "")
    facts = yield from _check_scan(volume, source, recipe)
    segmentation = slicer.mrmlScene.GetNodeByID(source.segmentation) if source.segmentation else None
    if facts.problems or role not in ROLES_WITH_LABEL or segmentation is None:
        return facts
    state = recipe, _state_of_label(source, segmentation, volume)
    known, label_facts = _known_labels.get(source, (None, None))
    if label_facts is None or known != state:
        label_facts = yield from _check_label(source, segmentation, volume, recipe)
        _known_labels[source] = state, label_facts
    return replace(
        facts,
        labels=label_facts.labels,
        problems=label_facts.problems,
        warnings=(*facts.warnings, *label_facts.warnings),
    )


def _check_scan(volume: VolumeNode, source: SceneScan, recipe: Recipe) -> Generator[None, None, CaseFacts]:
    """Return the facts about a scan. If one file contains all channels, only the channel in the scene is checked."""
    facts = CaseFacts(0, volume.GetName())
    one_channel = recipe.input_channels == 1 or file_of_all_channels(volume) is not None
    try:
        nodes = (volume,) if one_channel else channels_of(source)
    except InputError as error:
        return replace(facts, problems=(str(error),))
    channels, problems = [], []
    for node in nodes:
        state = _state_of_volume(node)
        known, channel = _known_channels.get(node.GetID(), (None, None))
        if channel is None or known != state:
            channel = yield from _check_channel(node)
            _known_channels[node.GetID()] = state, channel
        channels.append(channel)
        if channel.problem:
            subject = "The scan" if len(nodes) == 1 else f"{node.GetName()}:"
            problems.append(f"{subject} {channel.problem}")
    # As in the engine, the warning is kept only if every channel of the scan causes it.
    warnings = [channels[0].warning] if all(channel.warning for channel in channels) else []
    if warning := size_warning(grid_of(nodes[0])):
        warnings.append(warning)
    # As in the engine, the recipe's first channel gives the checksum.
    order = channel_order(channel_names_of(source, len(nodes)), recipe.channel_names)
    first = channels[order[0] if order else 0]
    return replace(facts, checksum=first.checksum, problems=tuple(problems), warnings=tuple(warnings))


def _check_channel(volume: VolumeNode) -> Generator[None, None, _ChannelFacts]:
    yield
    try:
        scan = Volume(voxels_of(volume).transpose(2, 1, 0)[None], grid_of(volume))
        check_scan(scan)
    except InputError as error:
        return _ChannelFacts(without_path(error, volume.GetName()))
    yield
    warning = few_values_warning(scan)
    yield
    checksum = yield from scan_checksum_in_steps(scan)
    return _ChannelFacts("", warning, checksum)


def _check_label(
    source: SceneScan, segmentation: SegmentationNode, volume: VolumeNode, recipe: Recipe
) -> Generator[None, None, CaseFacts]:
    facts, grid = CaseFacts(0, volume.GetName()), grid_of(volume)
    label = yield from read_label(segmentation, source.segments, volume)
    yield
    if label.problem:
        return replace(facts, problems=(label.problem,))
    if not label.voxels.any():
        return replace(facts, labels=())
    if (yield from _is_uncorrected(source, segmentation)):
        text = _("The label is a result of DCAMT that was not corrected. Check it before training on it.")
        facts = replace(facts, warnings=(text,))
    if len(source.segments) > 1:
        facts = yield from _with_overlap_warnings(facts, label, recipe)
    yield
    case = Case(volume.GetName(), Path(), None, LABELLED)
    return (yield from with_label(facts, case, Labelmap(label.voxels.transpose(2, 1, 0), grid), recipe))


def _is_uncorrected(source: SceneScan, segmentation: SegmentationNode) -> Generator[None, None, bool]:
    """Return whether a case's label is a DCAMT result that nobody corrected."""
    written, dcamt_segments = written_fingerprint(segmentation), find_dcamt_segments(segmentation)
    if not written or not dcamt_segments.keys() >= {identifier for identifier, _label in source.segments}:
        return False
    checksums = {}
    for identifier in dcamt_segments:
        segment = segmentation.GetSegmentation().GetSegment(identifier)
        if segment is None or segment.GetRepresentation(labelmap_name()) is None:
            return False
        checksums[identifier] = checksum_of(read_segment(segmentation, identifier))
        yield
    return differ_only_by_copies(written, fingerprint_of(checksums))


def _with_overlap_warnings(facts: CaseFacts, label: SceneLabel, recipe: Recipe) -> Generator[None, None, CaseFacts]:
    warnings = []
    for info in recipe.classes:
        yield
        drawn = label.drawn.get(info.label, 0)
        covered = drawn - int(np.count_nonzero(label.voxels == info.label)) if drawn else 0
        if covered:
            text = _(
                "Segments overlap: {covered} of the {drawn} voxels of “{name}” count as another class instead. If this"
                " is wrong, erase the overlap from the other segment."
            )
            warnings.append(text.format(covered=covered, drawn=drawn, name=info.name))
    return replace(facts, warnings=(*facts.warnings, *warnings))


def _state_of_volume(volume: VolumeNode) -> Any:
    """Return a value that changes with the voxels or the grid of a volume node."""
    grid = grid_of(volume)
    return volume.GetImageData().GetMTime(), grid.shape, grid.affine.tobytes()


def _state_of_label(source: SceneScan, segmentation: SegmentationNode, volume: VolumeNode) -> Any:
    """Return a value that changes with the label's segments, with DCAMT's segments, or with the scan."""
    segments = segmentation.GetSegmentation()
    name = labelmap_name()
    if not segments.ContainsRepresentation(name):
        name = segments.GetSourceRepresentationName()
    drawn = []
    dcamt_segments = tuple(find_dcamt_segments(segmentation))
    for identifier in (*(identifier for identifier, _label in source.segments), *dcamt_segments):
        segment = segments.GetSegment(identifier)
        image = segment.GetRepresentation(name) if segment is not None else None
        drawn.append(None if image is None else (image.GetMTime(), segment.GetLabelValue()))
    places = [_state_of_transforms(node) for node in (segmentation, volume)]
    result = dcamt_segments, written_fingerprint(segmentation)
    return tuple(drawn), result, tuple(places), _state_of_volume(volume)


def _state_of_transforms(node: Any) -> tuple[tuple[str, int], ...]:
    transforms, parent = [], node.GetParentTransformNode()
    while parent is not None:
        transforms.append((parent.GetID(), parent.GetTransformToParent().GetMTime()))
        parent = parent.GetParentTransformNode()
    return tuple(transforms)
