"""Store and find the channels of a result's scan, and compare the scan with volumes in the scene."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from dcamt.errors import InputError
from dcamt.io.typed_json import parse_json
from dcamt.volume import same_grid
from DCAMTSlicerLib.fingerprints import fingerprint
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.result_segments import find_dcamt_segments
from DCAMTSlicerLib.volume_bridge import grid_of
from slicer.i18n import tr as _

from .correction_marks import is_corrected, is_written, lies_elsewhere
from .doubt_map import is_map
from .result_nodes import CHANNELS, VOLUME, find_results, get_referenced_node
from .volume_snapshot import voxel_checksum

_CHANNEL_COUNT = "DCAMT.channelCount"
_CHANNEL_NAMES = "DCAMT.channelNames"
"""Attribute: a JSON list with the names of all channels from which a result was made.

The attribute is missing if the names are unknown or the scan has one channel.
"""
_SCAN_VOXELS = "DCAMT.scanVoxels"
"""Attribute: the checksums of the voxels of all channels from which a result was made, in the channels' order."""


def store_channels(segmentation_node: SegmentationNode, channels: Sequence[VolumeNode]) -> None:
    """Store the volumes of the second and further channels that a result was made from."""
    segmentation_node.RemoveNodeReferenceIDs(CHANNELS)
    for channel in channels:
        segmentation_node.AddNodeReferenceID(CHANNELS, channel.GetID())
    # `channels_of` needs the count: the scene forgets references to removed nodes.
    segmentation_node.SetAttribute(_CHANNEL_COUNT, str(len(channels)) if channels else None)


def channels_of(segmentation_node: SegmentationNode) -> tuple[VolumeNode, ...]:
    """Return the volumes of the second and further channels that a result was made from.

    Raises:
        InputError: one of these volumes is no longer in the scene.
    """
    channels = present_channels_of(segmentation_node)
    if len(channels) != int(segmentation_node.GetAttribute(_CHANNEL_COUNT) or 0):
        what = _("was made from several channels, but the scene lacks one or more of them")
        if is_corrected(segmentation_node):
            # Apply would replace the corrections.
            remedy = _(
                "Choose a task of one channel in DCAMT Training, or load a scene that was saved with all channels."
            )
        else:
            remedy = _("Load what is missing, and press Apply again.")
        raise InputError(what, path=segmentation_node.GetName(), remedy=remedy)
    return channels


def store_channel_names(segmentation_node: SegmentationNode, names: Sequence[str]) -> None:
    """Replace the stored names of the channels from which a result was made.

    Args:
        names: empty if the names are unknown. The name of a single channel is not stored.
    """
    segmentation_node.SetAttribute(_CHANNEL_NAMES, json.dumps(names) if len(names) > 1 else None)


def channel_names_of(segmentation_node: SegmentationNode) -> tuple[str, ...]:
    """Return the names stored by `store_channel_names`; () if there are none."""
    with suppress(ValueError):
        names = parse_json(segmentation_node.GetAttribute(_CHANNEL_NAMES) or "[]")
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names)
    return ()


def present_channels_of(segmentation_node: SegmentationNode) -> tuple[VolumeNode, ...]:
    """Return those volumes of `channels_of` that are still in the scene."""
    count = segmentation_node.GetNumberOfNodeReferences(CHANNELS)
    channels = [segmentation_node.GetNthNodeReference(CHANNELS, index) for index in range(count)]
    return tuple(channel for channel in channels if channel is not None)


def scans_of(segmentation_node: SegmentationNode) -> list[VolumeNode]:
    """Return the volumes of all channels from which a result was made, without those no longer in the scene."""
    first = get_referenced_node(segmentation_node, VOLUME)
    return [node for node in (first, *present_channels_of(segmentation_node)) if node is not None]


def are_same_scan(volume: VolumeNode, other: VolumeNode) -> bool:
    """Return whether two volume nodes show one scan: channels of a result, or nodes with the same voxels and grid."""
    if volume is other or any(volume in scans and other in scans for scans in map(scans_of, find_results())):
        return True
    try:
        have_same_voxels = voxel_checksum(volume) == voxel_checksum(other)
    except InputError:  # no grey-scale image
        return False
    return have_same_voxels and same_grid(grid_of(volume), grid_of(other))


def has_lost_scan(segmentation_node: SegmentationNode) -> bool:
    """Return whether a node holds DCAMT's segmentation of a scan that is no longer in the scene.

    The scan of segments that were loaded from a `.seg.nrrd` file is unknown, so the function returns False for them.
    """
    is_result = is_written(segmentation_node) and bool(find_dcamt_segments(segmentation_node))
    return is_result and get_referenced_node(segmentation_node, VOLUME) is None


def store_scan_voxels(segmentation_node: SegmentationNode, checksums: Iterable[int]) -> None:
    """Replace a result's stored checksums (`voxel_checksum`), one for each channel of its scan, in order."""
    segmentation_node.SetAttribute(_SCAN_VOXELS, " ".join(map(str, checksums)) or None)


def is_of_other_scan(
    segmentation_node: SegmentationNode,
    volume: VolumeNode,
    checksum_of: Callable[[VolumeNode], int] = voxel_checksum,
) -> bool:
    """Return whether a result was made from another scan than `volume`, or from voxels that have changed since.

    The result's further channels are compared with their stored checksums, too. A copy of a channel counts as the
    segmented scan, unless the DCAMT segments were moved relative to the copy (`lies_elsewhere`).
    """
    if not is_written(segmentation_node):  # The scan of segments from a `.seg.nrrd` file is unknown.
        return False
    is_channel = volume in scans_of(segmentation_node)
    stored = (segmentation_node.GetAttribute(_SCAN_VOXELS) or "").split()
    if not stored:  # a result of an older version of DCAMT
        return not is_channel
    first, allowed = get_referenced_node(segmentation_node, VOLUME), stored[:1]
    if not is_channel:
        if lies_elsewhere(segmentation_node, volume, fingerprint(segmentation_node)):
            return True
        first, allowed = volume, stored
    # The operator `in` consumes the iterator `further` up to the match. So the order of the channels counts, and the
    # checksums of removed channels are skipped.
    further = iter(stored[1:])
    try:
        has_same_first = first is None or str(checksum_of(first)) in allowed
        has_same_others = all(str(checksum_of(node)) in further for node in present_channels_of(segmentation_node))
    except InputError:  # no grey-scale image
        return True
    return not (has_same_first and has_same_others)


def is_scan_changed(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether a scan's voxels changed after its result was made; False if the scan or its image is missing."""
    volume = get_referenced_node(segmentation_node, VOLUME)
    if segmentation_node is None or volume is None or volume.GetImageData() is None:
        return False
    return is_of_other_scan(segmentation_node, volume)


def is_listed_scan(volume: VolumeNode) -> bool:
    """Return whether the input selectors list a node: a scalar volume, but no map, labelmap or hidden node."""
    is_scan = volume.GetClassName() == "vtkMRMLScalarVolumeNode" and not is_map(volume)
    return is_scan and not volume.GetHideFromEditors()  # Other modules hide their auxiliary volumes.
