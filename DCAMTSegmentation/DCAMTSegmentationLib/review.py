"""Store a result's data in its segmentation node, which the scene saves; find results and show them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from itertools import product

import numpy as np
import slicer
from dcamt.errors import InputError
from dcamt.geometry import Grid, Region
from dcamt.metrics.doubtful_places import DoubtfulPlace
from dcamt.models.calibration import ExpectedOverlap
from dcamt.recipe import ACCURATE, FAST
from dcamt.volume import same_grid
from dcamt.worker.requests import OutlineMethod
from DCAMTSlicerLib.fingerprints import boxes_of, fingerprint, is_same_fingerprint
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.result_segments import find_dcamt_segments
from DCAMTSlicerLib.segment_surfaces import surface_name
from DCAMTSlicerLib.segment_voxels import has_segments, labelmap_affine, scan_of
from DCAMTSlicerLib.volume_bridge import grid_of, ijk_to_ras, transform_between
from slicer.i18n import tr as _

from .result_nodes import CHANNELS, DOUBT_MAP, VOLUME, find_results, get_referenced_node
from .volume_snapshot import voxel_checksum

_EXPECTED, _DOUBT_CALIBRATED = "DCAMT.expectedOverlap", "DCAMT.doubtCalibrated"
_TRUST, _PLACES, _CURRENT_PLACE = "DCAMT.trust", "DCAMT.doubtfulPlaces", "DCAMT.doubtfulPlace"
_PLACES_OF = "DCAMT.doubtfulPlacesOf"
_PLACES_AFFINE = "DCAMT.doubtfulPlacesAffine"
"""Attribute: the `labelmap_affine` of the DCAMT segments when the places were stored."""
_MODEL, _METHOD = "DCAMT.model", "DCAMT.outlineMethod"
_MAP, _DOUBT, _CHANNEL_COUNT = "DCAMT.map", "doubt", "DCAMT.channelCount"
_CORRECTED, _OUTDATED = "DCAMT.corrected", "DCAMT.measurementsOutdated"
_WRITTEN, _MEASURED = "DCAMT.writtenSegments", "DCAMT.measuredSegments"
_MOVED = "DCAMT.moved"
"""Attribute of a result that no longer lies where it was written in its scan."""
SAME_PLACE = 0.1
"""Largest distance, in voxels along an axis, by which segments may be moved in their scan and count as unmoved."""
_REGION, _REGION_NAME = "DCAMT.region", "DCAMT.regionName"
"""Attributes: the segmented region as JSON, in the scan's space at the time of segmentation; the region's name."""
_SCAN_VOXELS = "DCAMT.scanVoxels"
"""Attribute: the checksums of the voxels of all channels from which a result was made."""
_MEASURED_AXES = "DCAMT.measuredAxes"
"""Attribute: the axes (`axes_of`) that the DCAMT segments had when they were measured."""
SAME_AXES_MM = 1e-5
"""Tolerance for comparing axes (`axes_of`), component by component."""


@dataclass(frozen=True)
class StoredDoubtfulPlace:
    """The volume of a doubtful place and a point inside it, in mm in the segmentation node's space."""

    position: tuple[float, float, float]
    volume_ml: float


def doubt_map_of(segmentation_node: SegmentationNode | None) -> VolumeNode | None:
    """Return the map of doubt of a result; None if there is none, or if its file was missing when the scene loaded."""
    doubt_map = get_referenced_node(segmentation_node, DOUBT_MAP)
    return doubt_map if doubt_map is not None and doubt_map.GetImageData() is not None else None


def _attribute(segmentation_node: SegmentationNode | None, name: str) -> str | None:
    return segmentation_node.GetAttribute(name) if segmentation_node is not None else None


def read_matrix(text: str | None, rows: int, columns: int) -> np.ndarray | None:
    """Parse a matrix in JSON; return None if the text is empty, damaged or no such matrix."""
    with suppress(TypeError, ValueError, OverflowError):
        matrix = np.array(json.loads(text or ""), float)
        return matrix if matrix.shape == (rows, columns) and np.isfinite(matrix).all() else None
    return None


def trust(segmentation_node: SegmentationNode | None) -> float | None:
    """Return the trust, 0 to 1; None in quality `fast` and without a result."""
    with suppress(ValueError):  # The attribute is damaged.
        return float(_attribute(segmentation_node, _TRUST) or "")
    return None


def expected_overlap(segmentation_node: SegmentationNode | None) -> ExpectedOverlap | None:
    """Return the expected overlap with an expert's outline; None without a result, or if none was stored with it."""
    text = _attribute(segmentation_node, _EXPECTED)
    # Another version of DCAMT may have stored other fields.
    with suppress(TypeError, ValueError, OverflowError):
        return ExpectedOverlap(*map(float, json.loads(text))) if text else None
    return None


def is_doubt_calibrated(segmentation_node: SegmentationNode) -> bool:
    """Return whether the model's calibration scaled the result's map of doubt."""
    return segmentation_node.GetAttribute(_DOUBT_CALIBRATED) is not None


def model_title(segmentation_node: SegmentationNode | None) -> str:
    """Return the title of the model that made a result; empty if unknown."""
    return _attribute(segmentation_node, _MODEL) or ""


def store_model(segmentation_node: SegmentationNode, title: str, method: OutlineMethod | None = None) -> None:
    """Store the title of the model that made a result and, if known, its card's data and the quality."""
    segmentation_node.SetAttribute(_MODEL, title)
    segmentation_node.SetAttribute(_METHOD, json.dumps(asdict(method)) if method is not None else None)


def store_region(segmentation_node: SegmentationNode, region: Region, name: str) -> None:
    """Store the region to which a new result is limited, and the name of the region's node."""
    segmentation_node.SetAttribute(_REGION, json.dumps(asdict(region)))
    segmentation_node.SetAttribute(_REGION_NAME, name)


def region_name(segmentation_node: SegmentationNode | None) -> str | None:
    """Return the name of the region to which a result is limited; None if the whole scan was segmented."""
    return _attribute(segmentation_node, _REGION_NAME)


def region_of(segmentation_node: SegmentationNode | None) -> Region | None:
    """Return the region to which a result is limited; None if the whole scan was segmented or the region is unknown."""
    text = _attribute(segmentation_node, _REGION)
    # Another version of DCAMT may have stored other fields.
    with suppress(TypeError, ValueError, KeyError, OverflowError):
        stored = json.loads(text or "null")
        (low_x, low_y, low_z), (high_x, high_y, high_z) = (map(float, stored[end]) for end in ("low", "high"))
        to_unit = None
        if stored["to_unit"] is not None:
            to_unit = tuple(map(tuple, np.array(stored["to_unit"], float).reshape(4, 4).tolist()))
        return Region((low_x, low_y, low_z), (high_x, high_y, high_z), to_unit)
    return None


def store_channels(segmentation_node: SegmentationNode, channels: Sequence[VolumeNode]) -> None:
    """Store the volumes of the second and further channels that a result was made from."""
    segmentation_node.RemoveNodeReferenceIDs(CHANNELS)
    for channel in channels:
        segmentation_node.AddNodeReferenceID(CHANNELS, channel.GetID())
    # The number is stored, since the scene forgets references to removed nodes.
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
            # Do not suggest Apply, which would replace the corrections. A task of one channel needs only the first
            # channel.
            remedy = _("Choose a task of one channel, or load a scene that was saved with all channels.")
        else:
            remedy = _("Load what is missing, and press Apply again.")
        raise InputError(what, path=segmentation_node.GetName(), remedy=remedy)
    return channels


def present_channels_of(segmentation_node: SegmentationNode) -> tuple[VolumeNode, ...]:
    """Return those volumes of `channels_of` that are still in the scene."""
    count = segmentation_node.GetNumberOfNodeReferences(CHANNELS)
    channels = [segmentation_node.GetNthNodeReference(CHANNELS, index) for index in range(count)]
    return tuple(channel for channel in channels if channel is not None)


def outline_method(segmentation_node: SegmentationNode) -> OutlineMethod:
    """Return the model and quality that made a result.

    Results of older versions may store only the model's title.
    If only the title is stored, or if a later version stored unknown fields, `name`, `version` and `modality` are
    empty. The quality is then accurate if the result has a trust, otherwise fast.
    """
    text = segmentation_node.GetAttribute(_METHOD)
    with suppress(TypeError, ValueError):
        if text:
            return OutlineMethod(**json.loads(text))
    quality = FAST if trust(segmentation_node) is None else ACCURATE
    return OutlineMethod("", model_title(segmentation_node), "", "", quality)


def store_review_data(
    segmentation_node: SegmentationNode,
    trust: float | None,
    doubts: Sequence[DoubtfulPlace],
    to_local: np.ndarray,
    expected: ExpectedOverlap | None = None,
    is_doubt_calibrated: bool = False,
) -> None:
    """Store the trust, the expected overlap and the doubtful places of a new result.

    The node must already have the result's segments. The region, the scan's checksums and the marks of an earlier
    result are removed.

    Args:
        doubts: the worst first, in the space of the result's volume.
        to_local: (4, 4), mm in the volume's space -> mm in the segmentation's.
        is_doubt_calibrated: whether the model's calibration scaled the map of doubt.
    """
    places = [
        {"position": (to_local @ [*doubt.position, 1.0])[:3].tolist(), "volume_ml": doubt.volume_ml} for doubt in doubts
    ]
    affine = labelmap_affine(segmentation_node, find_dcamt_segments(segmentation_node))
    segmentation_node.SetAttribute(_TRUST, None if trust is None else repr(float(trust)))
    segmentation_node.SetAttribute(_EXPECTED, None if expected is None else json.dumps(astuple(expected)))
    segmentation_node.SetAttribute(_DOUBT_CALIBRATED, "1" if is_doubt_calibrated else None)
    segmentation_node.SetAttribute(_PLACES, json.dumps(places))
    segmentation_node.SetAttribute(_PLACES_AFFINE, None if affine is None else json.dumps(affine.tolist()))
    segmentation_node.SetAttribute(_PLACES_OF, _DOUBT)
    segmentation_node.SetAttribute(_CURRENT_PLACE, None)
    segmentation_node.SetAttribute(_CORRECTED, None)
    segmentation_node.SetAttribute(_OUTDATED, None)
    segmentation_node.SetAttribute(_MOVED, None)
    segmentation_node.SetAttribute(_SCAN_VOXELS, None)
    segmentation_node.SetAttribute(_REGION, None)
    segmentation_node.SetAttribute(_REGION_NAME, None)
    written = fingerprint(segmentation_node)
    segmentation_node.SetAttribute(_WRITTEN, written)
    segmentation_node.SetAttribute(_MEASURED, written)
    segmentation_node.SetAttribute(_MEASURED_AXES, axes_of(segmentation_node))


def axes_of(segmentation_node: SegmentationNode) -> str:
    """Return the steps from voxel to voxel of the DCAMT segments, as JSON (3 x 3, mm); "" if they have no voxels.

    Hardening a transform that scales or rotates changes the steps, and thus the measurements, but not the fingerprint.
    """
    affine = labelmap_affine(segmentation_node, find_dcamt_segments(segmentation_node))
    return "" if affine is None else json.dumps(affine[:3, :3].tolist())


def _have_measured_axes(segmentation_node: SegmentationNode) -> bool:
    """Return whether the DCAMT segments have the axes that were measured; True if no axes can be compared."""
    measured, now = (
        read_matrix(text, 3, 3) for text in (segmentation_node.GetAttribute(_MEASURED_AXES), axes_of(segmentation_node))
    )
    return measured is None or now is None or np.allclose(measured, now, rtol=0, atol=SAME_AXES_MM)


def mark_corrected(segmentation_node: SegmentationNode) -> None:
    """Mark a result as corrected and its measurements as outdated."""
    segmentation_node.SetAttribute(_CORRECTED, "1")
    segmentation_node.SetAttribute(_OUTDATED, "1")


def mark_measured(segmentation_node: SegmentationNode, measured: str, axes: str) -> None:
    """Store the fingerprint and the axes that the segments had when they were measured.

    If the segments now have another fingerprint or other axes, the mark of outdated measurements stays. If both are
    the same, or if the present fingerprint is empty because a segment has no labelmap, the mark is removed.
    """
    segmentation_node.SetAttribute(_MEASURED, measured)
    segmentation_node.SetAttribute(_MEASURED_AXES, axes)
    now = fingerprint(segmentation_node)
    if not now or (is_same_fingerprint(measured, now) and _have_measured_axes(segmentation_node)):
        segmentation_node.SetAttribute(_OUTDATED, None)


def update_correction_marks(segmentation_node: SegmentationNode) -> bool:
    """Compare a result's voxels with those that were written and measured; return whether the result `is_corrected`.

    Also update the mark for `is_moved`. If no fingerprint can be compared, the marks stay as they are.
    """
    written = segmentation_node.GetAttribute(_WRITTEN)
    now = fingerprint(segmentation_node) if written else ""
    if now:
        measured = segmentation_node.GetAttribute(_MEASURED) or ""
        segmentation_node.SetAttribute(_CORRECTED, None if is_same_fingerprint(written, now) else "1")
        is_measured = is_same_fingerprint(measured, now) and _have_measured_axes(segmentation_node)
        segmentation_node.SetAttribute(_OUTDATED, None if is_measured else "1")
        segmentation_node.SetAttribute(_MOVED, "1" if _lies_elsewhere(segmentation_node, now) else None)
    return is_corrected(segmentation_node)


def _lies_elsewhere(segmentation_node: SegmentationNode, now: str) -> bool:
    """Return whether the DCAMT segments lie at another place in their scan than when they were written.

    Return False if nothing can be compared: scan or segments are missing, or an older version stored the fingerprint.

    Args:
        now: the present fingerprint of the segments.
    """
    volume = get_referenced_node(segmentation_node, VOLUME)
    affine = labelmap_affine(segmentation_node, find_dcamt_segments(segmentation_node))
    written = boxes_of(segmentation_node.GetAttribute(_WRITTEN) or "")
    if volume is None or volume.GetImageData() is None or affine is None or not written.keys() & boxes_of(now).keys():
        return False
    try:
        to_voxels = np.linalg.inv(ijk_to_ras(volume)) @ transform_between(segmentation_node, volume) @ affine
    except InputError:  # a non-linear transform
        return True
    # A new result has the voxel indices of its scan.
    corners = [(*corner, 1) for corner in product(*((0, size) for size in volume.GetImageData().GetDimensions()))]
    if (np.abs((to_voxels - np.eye(4)) @ np.transpose(corners)) <= SAME_PLACE).all():
        return False
    return not _are_resampled(segmentation_node, np.eye(4), to_voxels)


def is_moved(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether a result is marked as moved in its scan; `update_correction_marks` updates the mark."""
    return _attribute(segmentation_node, _MOVED) is not None


def is_outdated(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether the measurements are marked as outdated."""
    return _attribute(segmentation_node, _OUTDATED) is not None


def is_corrected(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether a result is marked as edited since it was written; `update_correction_marks` updates the mark."""
    return _attribute(segmentation_node, _CORRECTED) is not None


def can_recognise_edits(segmentation_node: SegmentationNode) -> bool:
    """Return whether `update_correction_marks` can compare a result's voxels with those that were written.

    The function returns False for segments that were loaded from a `.seg.nrrd` file or copied into the node: they keep
    their tags, but the node lacks the fingerprint. It also returns False if a segment has no labelmap.
    """
    return bool(segmentation_node.GetAttribute(_WRITTEN) and fingerprint(segmentation_node))


def can_hold_result_of(segmentation_node: SegmentationNode | None, volume: VolumeNode | None) -> bool:
    """Return whether a node may take a volume's result without a question; False if the node is None.

    A node with DCAMT segments may take results of their volume only. A node without them may take a volume's result
    unless it was drawn on another scan.
    """
    if segmentation_node is None:
        return False
    if find_dcamt_segments(segmentation_node):
        return get_referenced_node(segmentation_node, VOLUME) is volume
    drawn_on = scan_of(segmentation_node) if has_segments(segmentation_node) else None
    # Segments that were imported from a labelmap refer to the labelmap instead of their scan.
    if drawn_on is None or volume is None or not is_listed_scan(drawn_on):
        return True
    return are_same_scan(drawn_on, volume)


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
    except InputError:  # a volume without an image, or an image with several channels
        return False
    return have_same_voxels and same_grid(grid_of(volume), grid_of(other))


def has_lost_scan(segmentation_node: SegmentationNode) -> bool:
    """Return whether DCAMT segmented a scan into a node, and that scan is no longer in the scene.

    A result that was loaded from a `.seg.nrrd` file lacks the fingerprint, so nothing is known about its scan.
    """
    is_result = segmentation_node.GetAttribute(_WRITTEN) is not None and bool(find_dcamt_segments(segmentation_node))
    return is_result and get_referenced_node(segmentation_node, VOLUME) is None


def store_scan_voxels(segmentation_node: SegmentationNode, checksums: Iterable[int]) -> None:
    """Store the checksums of the voxels of all channels from which a new result was made."""
    segmentation_node.SetAttribute(_SCAN_VOXELS, " ".join(map(str, checksums)))


def is_of_other_voxels(
    segmentation_node: SegmentationNode,
    volume: VolumeNode,
    checksum_of: Callable[[VolumeNode], int] = voxel_checksum,
) -> bool:
    """Return whether a result was made from other voxels than a volume now has.

    The result's second and further channels are compared, too. The volume may be any channel of the result's scan.
    Channels that are no longer in the scene are ignored. Older versions of DCAMT stored no checksums; for their
    results, the function returns True if the volume is no channel of the scan. Nothing is known about the scan of
    segments that were loaded from a `.seg.nrrd` file, so the function returns False.
    """
    if segmentation_node.GetAttribute(_WRITTEN) is None:
        return False
    scan, channels = get_referenced_node(segmentation_node, VOLUME), present_channels_of(segmentation_node)
    stored = (segmentation_node.GetAttribute(_SCAN_VOXELS) or "").split()
    if not stored:
        return volume not in (scan, *channels)
    first = scan if scan is not None and volume in channels else volume
    try:
        return any(str(checksum_of(node)) not in stored for node in (first, *channels))
    except InputError:  # a volume without an image, or an image with several channels
        return True


def is_scan_changed(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether the voxels of a result's scan were changed since it was made; False if the scan is missing."""
    volume = get_referenced_node(segmentation_node, VOLUME)
    if segmentation_node is None or volume is None or volume.GetImageData() is None:
        return False
    return is_of_other_voxels(segmentation_node, volume)


def is_map_elsewhere(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether the map of doubt lies at another place than the scan."""
    doubt_map, volume = doubt_map_of(segmentation_node), get_referenced_node(segmentation_node, VOLUME)
    if doubt_map is None or volume is None or volume.GetImageData() is None:
        return False
    try:
        affine = transform_between(doubt_map, volume) @ ijk_to_ras(doubt_map)
    except InputError:  # a non-linear transform
        return True
    map_grid, grid = Grid(doubt_map.GetImageData().GetDimensions(), affine), grid_of(volume)
    # A scan that was cropped or resampled has other voxels, which `is_scan_changed` reports.
    return map_grid.shape == grid.shape and not same_grid(map_grid, grid)


def mark_map(volume: VolumeNode) -> None:
    """Mark a scalar volume node as a map of doubt, so that it is recognised after its result is deleted."""
    volume.SetAttribute(_MAP, _DOUBT)


def is_map(volume: VolumeNode) -> bool:
    """Return whether a scalar volume node is a map of doubt, or of disagreement, rather than a scan."""
    return volume.GetAttribute(_MAP) is not None


def shows_doubt(volume: VolumeNode) -> bool:
    """Return whether a map shows doubt; the maps of older versions show disagreement."""
    return volume.GetAttribute(_MAP) == _DOUBT


def is_listed_scan(volume: VolumeNode) -> bool:
    """Return whether the input selectors list a node: a scalar volume, but no map, labelmap or hidden node.

    Other modules hide their auxiliary volumes from all selectors.
    """
    is_scan = volume.GetClassName() == "vtkMRMLScalarVolumeNode" and not is_map(volume)
    return is_scan and not volume.GetHideFromEditors()


def place_count(segmentation_node: SegmentationNode | None) -> int:
    """Return the number of a result's doubtful places.

    Unlike `doubtful_places`, this function may be called during an edit, when the voxels may be incomplete.
    """
    return len(_stored_places(segmentation_node))


def _stored_places(segmentation_node: SegmentationNode | None) -> list[StoredDoubtfulPlace]:
    """Return the doubtful places as they were stored; [] if there are none, or if the attribute is damaged."""
    with suppress(TypeError, ValueError, KeyError, OverflowError):
        places = []
        for place in json.loads(_attribute(segmentation_node, _PLACES) or "[]"):
            x, y, z = map(float, place["position"])
            places.append(StoredDoubtfulPlace((x, y, z), float(place["volume_ml"])))
        return places
    return []


def has_visited_place(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether `next_place` was called since the result was written."""
    return _attribute(segmentation_node, _CURRENT_PLACE) is not None


def doubtful_places(segmentation_node: SegmentationNode | None) -> list[StoredDoubtfulPlace]:
    """Return a result's doubtful places, the worst first.

    If a linear transform of the node was hardened since the places were stored, the places are transformed by it, as
    the voxels were. The stored positions are returned if the DCAMT segments have no voxels, if they were resampled on
    another grid, or if an older version of DCAMT stored the places.
    """
    stored = _stored_places(segmentation_node)
    hardened = _hardened_transform(segmentation_node) if segmentation_node is not None and stored else None
    if hardened is None:
        return stored
    places = []
    for place in stored:
        x, y, z = (hardened @ [*place.position, 1.0])[:3].tolist()
        places.append(StoredDoubtfulPlace((x, y, z), place.volume_ml))
    return places


def _hardened_transform(segmentation_node: SegmentationNode) -> np.ndarray | None:
    """Return the linear transform (4, 4) that was hardened since the places were stored, or None.

    The transform leads from the stored affine of the segments to the present one. If Segment Editor resampled the
    segments, their affine has changed, too, but the function returns None.
    """
    before = read_matrix(segmentation_node.GetAttribute(_PLACES_AFFINE), 4, 4)
    now = labelmap_affine(segmentation_node, find_dcamt_segments(segmentation_node))
    if before is None or now is None:
        return None
    if np.allclose(now, before, rtol=0, atol=1e-6):
        return None
    return None if _are_resampled(segmentation_node, before, now) else now @ np.linalg.inv(before)


def _are_resampled(segmentation_node: SegmentationNode, before: np.ndarray, now: np.ndarray) -> bool:
    """Return whether segments whose affine (4, 4) changed were resampled on another grid, rather than transformed.

    A transform keeps the voxel indices of a segment's box, and resampling keeps the box's position in mm. A correction
    may move a few faces of the box by large distances, so square roots reduce the weight of large distances.
    """
    earlier = boxes_of(segmentation_node.GetAttribute(_WRITTEN) or "")
    grid_change = np.linalg.inv(now) @ before
    if_transformed = if_resampled = 0.0
    for identifier, box in boxes_of(fingerprint(segmentation_node)).items():
        if identifier in earlier:
            centre, half = earlier[identifier].mean(axis=0), np.ptp(earlier[identifier], axis=0) / 2
            centre, half = (grid_change @ [*centre, 1.0])[:3], np.abs(grid_change[:3, :3]) @ half
            if_transformed += float(np.sqrt(np.abs(box - earlier[identifier])).sum())
            if_resampled += float(np.sqrt(np.abs(box - [centre - half, centre + half])).sum())
    return if_resampled < if_transformed


def places_show_doubt(segmentation_node: SegmentationNode) -> bool:
    """Return whether a result's places are those of high doubt; older versions stored places of disagreement."""
    return segmentation_node.GetAttribute(_PLACES_OF) == _DOUBT


def next_place(segmentation_node: SegmentationNode) -> tuple[int, StoredDoubtfulPlace]:
    """Move every slice view to the next doubtful place; return the place's number, from 1, and the place.

    The first place follows the last one.

    Raises:
        ValueError: the result has no doubtful places.
    """
    places = doubtful_places(segmentation_node)
    if not places:
        raise ValueError(f"{segmentation_node.GetName()} has no doubtful places")
    index = int(segmentation_node.GetAttribute(_CURRENT_PLACE) or 0) % len(places)
    segmentation_node.SetAttribute(_CURRENT_PLACE, str(index + 1))
    world = [0.0, 0.0, 0.0]
    segmentation_node.TransformPointToWorld(places[index].position, world)
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.JumpSliceByCentering(*world)
    return index + 1, places[index]


def show_in_3d(segmentation_node: SegmentationNode, shown: bool) -> None:
    """Show or hide a result's surfaces in the 3D views; compute missing surfaces before showing them."""
    segmentation_node.CreateDefaultDisplayNodes()
    if shown:
        segmentation_node.CreateClosedSurfaceRepresentation()
        segmentation_node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(surface_name())
    segmentation_node.GetDisplayNode().SetVisibility3D(shown)
