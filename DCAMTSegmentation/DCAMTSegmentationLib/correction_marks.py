"""Mark corrected, outdated and moved results."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
from dcamt.errors import InputError
from DCAMTSlicerLib.fingerprints import (
    boxes_of,
    differ_only_by_copies,
    fingerprint,
    is_same_fingerprint,
    unchanged_segments,
)
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.result_segments import find_dcamt_segments
from DCAMTSlicerLib.segment_voxels import affine_of, grid_image, labelmap_affine
from DCAMTSlicerLib.volume_bridge import SAME_VOXEL, ijk_to_ras, transform_between

from .result_nodes import VOLUME, get_attribute, get_referenced_node, read_matrix

_CORRECTED, _OUTDATED = "DCAMT.corrected", "DCAMT.measurementsOutdated"
_WRITTEN, _MEASURED = "DCAMT.writtenSegments", "DCAMT.measuredSegments"
_MOVED = "DCAMT.moved"
_WRITTEN_OFF_GRID = "DCAMT.writtenOffGrid"
"""Attribute of a result that was not written on its node's grid: the `_labelmap_to_grid` of the segments, as JSON."""
SAME_PLACE = 0.1
"""Tolerance for comparing the place of segments in their scan, in voxels along each axis."""
_MEASURED_AXES = "DCAMT.measuredAxes"
"""Attribute: the axes (`axes_of`) that the DCAMT segments had when they were measured."""
SAME_AXES_MM = 1e-5
"""Tolerance for comparing axes (`axes_of`), component by component."""


def mark_written(segmentation_node: SegmentationNode, to_local: np.ndarray) -> None:
    """Store the fingerprint and the measured axes of a new result's segments, and replace an earlier result's marks.

    The worker measured the result in the volume's space, but *Measure again* measures in the segmentation's space. If
    the segments' axes differ between the two spaces, the measurements are marked as outdated.

    Args:
        to_local: (4, 4), mm in the volume's space -> mm in the segmentation's.
    """
    written = fingerprint(segmentation_node)
    segmentation_node.SetAttribute(_WRITTEN, written)
    segmentation_node.SetAttribute(_MEASURED, written)
    segmentation_node.SetAttribute(_MEASURED_AXES, axes_of(segmentation_node, np.linalg.inv(to_local)))
    for mark in (_CORRECTED, _MOVED):
        segmentation_node.SetAttribute(mark, None)
    to_grid = _labelmap_to_grid(segmentation_node)
    if to_grid is not None and np.allclose(to_grid, np.eye(4), rtol=0, atol=SAME_VOXEL):
        to_grid = None
    segmentation_node.SetAttribute(_WRITTEN_OFF_GRID, None if to_grid is None else json.dumps(to_grid.tolist()))
    segmentation_node.SetAttribute(_OUTDATED, None if _are_as_measured(segmentation_node, written) else "1")


def _labelmap_to_grid(segmentation_node: SegmentationNode) -> np.ndarray | None:
    """Return the affine (4, 4), voxel index of the DCAMT segments -> voxel index of the node's grid.

    A hardened linear transform does not change this affine. The function returns None if no segment has voxels, or if
    the node has no grid.
    """
    affine = labelmap_affine(segmentation_node, find_dcamt_segments(segmentation_node))
    grid = grid_image(segmentation_node)
    return None if affine is None or grid is None else np.linalg.inv(affine_of(grid)) @ affine


def _is_resampled_to_grid(segmentation_node: SegmentationNode) -> bool:
    """Return whether Slicer resampled a result to its node's grid; False if the result was written on this grid."""
    written = read_matrix(segmentation_node.GetAttribute(_WRITTEN_OFF_GRID), 4, 4)
    if written is None:
        return False
    now = _labelmap_to_grid(segmentation_node)
    return now is not None and not np.allclose(written, now, rtol=0, atol=SAME_VOXEL)


def axes_of(segmentation_node: SegmentationNode, from_local: np.ndarray | None = None) -> str:
    """Return the first 3 rows and columns of the DCAMT segments' `labelmap_affine` (mm) as JSON; "" if there is none.

    A hardened scaling changes these axes, but not the segments' `fingerprint`.

    Args:
        from_local: (4, 4), mm in the segmentation's space -> mm in the space of the returned axes; by default, the axes
            are returned in the segmentation's space.
    """
    affine = labelmap_affine(segmentation_node, find_dcamt_segments(segmentation_node))
    if affine is None:
        return ""
    if from_local is not None:
        affine = from_local @ affine
    return json.dumps(affine[:3, :3].tolist())


def _are_as_measured(segmentation_node: SegmentationNode, now: str) -> bool:
    # `now` is the present fingerprint of the segments.
    if not is_same_fingerprint(segmentation_node.GetAttribute(_MEASURED) or "", now):
        return False
    measured_axes = read_matrix(segmentation_node.GetAttribute(_MEASURED_AXES), 3, 3)
    axes = read_matrix(axes_of(segmentation_node), 3, 3)
    return measured_axes is None or axes is None or np.allclose(measured_axes, axes, rtol=0, atol=SAME_AXES_MM)


def mark_corrected(segmentation_node: SegmentationNode) -> None:
    """Mark a result as corrected and its measurements as outdated."""
    segmentation_node.SetAttribute(_CORRECTED, "1")
    segmentation_node.SetAttribute(_OUTDATED, "1")


def mark_measured(segmentation_node: SegmentationNode, measured: str, axes: str) -> None:
    """Store the fingerprint and the axes that the segments had when they were measured.

    If the segments now have another fingerprint or other axes, the mark of outdated measurements stays.
    """
    segmentation_node.SetAttribute(_MEASURED, measured)
    segmentation_node.SetAttribute(_MEASURED_AXES, axes)
    now = fingerprint(segmentation_node)
    # `now` is empty if a segment has no labelmap; then no change can be detected.
    if not now or _are_as_measured(segmentation_node, now):
        segmentation_node.SetAttribute(_OUTDATED, None)


def update_correction_marks(segmentation_node: SegmentationNode) -> bool:
    """Compare a result's voxels with those that were written and measured; return whether the result `is_corrected`.

    Also update the mark for `is_moved`. If no fingerprint can be compared, the marks stay as they are. If Slicer
    resampled the segments to the node's grid, the mark for `is_corrected` stays as it is.
    """
    written = segmentation_node.GetAttribute(_WRITTEN)
    now = fingerprint(segmentation_node) if written else ""
    if now:
        if not _is_resampled_to_grid(segmentation_node):
            segmentation_node.SetAttribute(_CORRECTED, None if is_same_fingerprint(written, now) else "1")
        segmentation_node.SetAttribute(_OUTDATED, None if _are_as_measured(segmentation_node, now) else "1")
        volume = get_referenced_node(segmentation_node, VOLUME)
        segmentation_node.SetAttribute(_MOVED, "1" if lies_elsewhere(segmentation_node, volume, now) else None)
    return is_corrected(segmentation_node)


def lies_elsewhere(segmentation_node: SegmentationNode, volume: VolumeNode | None, now: str) -> bool:
    """Return whether the DCAMT segments were moved relative to the scan `volume`.

    The function returns False if the segments were resampled, if all of them were deleted, or if `volume` is None or
    has no image.

    Args:
        now: the present fingerprint of the segments.
    """
    affine = labelmap_affine(segmentation_node, find_dcamt_segments(segmentation_node))
    written = boxes_of(segmentation_node.GetAttribute(_WRITTEN) or "")
    if volume is None or volume.GetImageData() is None or affine is None or not written.keys() & boxes_of(now).keys():
        return False
    try:
        to_voxels = np.linalg.inv(ijk_to_ras(volume)) @ transform_between(segmentation_node, volume) @ affine
    except InputError:  # a non-linear transform
        return True
    # `to_voxels` maps the labelmap's voxel indices to those of the scan. For a new result, it is the identity matrix.
    corners = [(*corner, 1) for corner in product(*((0, size) for size in volume.GetImageData().GetDimensions()))]
    if (np.abs((to_voxels - np.eye(4)) @ np.transpose(corners)) <= SAME_PLACE).all():
        return False
    return not are_resampled(segmentation_node, np.eye(4), to_voxels)


def are_resampled(segmentation_node: SegmentationNode, before: np.ndarray, now: np.ndarray) -> bool:
    """Return True if a result's segments were resampled on another grid, False if they were transformed.

    `before` and `now` are the segments' earlier and present affines (4, 4). A transform keeps the voxel indices of a
    segment's box, and resampling keeps the box's position in mm.
    """
    if _is_resampled_to_grid(segmentation_node):
        return True
    earlier = boxes_of(segmentation_node.GetAttribute(_WRITTEN) or "")
    grid_change = np.linalg.inv(now) @ before
    if_transformed = if_resampled = 0.0
    for identifier, box in boxes_of(fingerprint(segmentation_node)).items():
        if identifier in earlier:
            centre, half = earlier[identifier].mean(axis=0), np.ptp(earlier[identifier], axis=0) / 2
            centre, half = (grid_change @ [*centre, 1.0])[:3], np.abs(grid_change[:3, :3]) @ half
            if_transformed += _box_difference(box, earlier[identifier])
            if_resampled += _box_difference(box, np.array([centre - half, centre + half]))
    return if_resampled < if_transformed


def _box_difference(box: np.ndarray, other: np.ndarray) -> float:
    # The square root limits the weight of a single face that an edit moved far.
    return float(np.sqrt(np.abs(box - other)).sum())


def is_moved(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether a result is marked as moved in its scan."""
    return get_attribute(segmentation_node, _MOVED) is not None


def is_outdated(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether the measurements are marked as outdated."""
    return get_attribute(segmentation_node, _OUTDATED) is not None


def is_corrected(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether a result is marked as edited since it was written."""
    return get_attribute(segmentation_node, _CORRECTED) is not None


def unedited_segments(segmentation_node: SegmentationNode) -> set[str]:
    """Return the identifiers of the DCAMT segments for which no edit is known.

    An unedited copy of a DCAMT segment is returned, too. All DCAMT segments are returned if their voxels cannot be
    compared with those that were written (see `can_recognise_edits`).
    """
    written = segmentation_node.GetAttribute(_WRITTEN)
    is_comparable = written and not _is_resampled_to_grid(segmentation_node)
    now = fingerprint(segmentation_node) if is_comparable else ""
    return unchanged_segments(written, now) if now else set(find_dcamt_segments(segmentation_node))


def was_only_copied(segmentation_node: SegmentationNode) -> bool:
    """Return whether a result is as DCAMT wrote it; copies of its segments may have been added.

    An added copy changes the result's fingerprint, so `is_corrected` returns True for a result with copies.
    """
    written = written_fingerprint(segmentation_node)
    now = fingerprint(segmentation_node) if written else ""
    return bool(now) and differ_only_by_copies(written, now)


def written_fingerprint(segmentation_node: SegmentationNode) -> str:
    """Return the fingerprint that a result's segments had when DCAMT wrote them; empty if it is unknown."""
    return segmentation_node.GetAttribute(_WRITTEN) or ""


def is_written(segmentation_node: SegmentationNode) -> bool:
    """Return whether DCAMT wrote a result into the node; False for segments that were loaded or copied into it."""
    return segmentation_node.GetAttribute(_WRITTEN) is not None


def can_recognise_edits(segmentation_node: SegmentationNode) -> bool:
    """Return whether `update_correction_marks` can compare a result's voxels with those that were written.

    The function returns False for segments that were loaded from a `.seg.nrrd` file or copied into the node: the node
    lacks the fingerprint. It also returns False if a segment has no labelmap, or if Slicer resampled the segments to
    the node's grid.
    """
    is_comparable = is_written(segmentation_node) and not _is_resampled_to_grid(segmentation_node)
    return is_comparable and bool(fingerprint(segmentation_node))
