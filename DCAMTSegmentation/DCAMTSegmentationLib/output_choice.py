"""Select an output that can hold the result of the input volume, and ask before segments are replaced."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import slicer
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.volume import same_grid
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.plain_text import confirm
from DCAMTSlicerLib.result_segments import find_dcamt_segments
from DCAMTSlicerLib.segment_voxels import has_segments, scan_of
from DCAMTSlicerLib.volume_bridge import grid_of, ijk_to_ras
from slicer.i18n import tr as _

from . import correction_marks, training_cases
from .result_insertion import has_other_grid
from .result_nodes import VOLUME, get_referenced_node, read_matrix, result_of
from .result_scan import are_same_scan, is_listed_scan
from .volume_snapshot import voxel_checksum

_REMOVED_SCAN = "DCAMT.removedScan"
"""Attribute of a segmentation node whose scan was removed: the checksum of the scan's voxels.

The scene forgets references to removed nodes.
"""
_REMOVED_AFFINE = "DCAMT.removedScanAffine"
"""Attribute of such a node: the scan's `ijk_to_ras` as JSON; missing in scenes of older versions."""


def store_removed_scan(volume: VolumeNode) -> None:
    """Store a scan's checksum and affine in the segmentations drawn on it.

    Call this before the scan is removed from the scene.
    """
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    drawn = [node for node in nodes if scan_of(node) is volume]
    if not drawn or slicer.mrmlScene.IsClosing() or not is_listed_scan(volume):
        return
    checksum, affine = _checksum_text(volume), json.dumps(ijk_to_ras(volume).tolist())
    for segmentation_node in drawn:
        segmentation_node.SetAttribute(_REMOVED_SCAN, checksum)
        segmentation_node.SetAttribute(_REMOVED_AFFINE, affine)


def _is_removed_scan(segmentation_node: SegmentationNode, volume: VolumeNode) -> bool:
    if segmentation_node.GetAttribute(_REMOVED_SCAN) != _checksum_text(volume):
        return False
    affine = read_matrix(segmentation_node.GetAttribute(_REMOVED_AFFINE), 4, 4)
    if affine is None or volume.GetImageData() is None:
        return True
    grid = grid_of(volume)
    return same_grid(Grid(grid.shape, affine), grid)


def _checksum_text(volume: VolumeNode) -> str:
    try:
        return str(voxel_checksum(volume))
    except InputError:  # a volume without an image, or an image with several channels
        return "unknown"


def can_hold_result_of(segmentation_node: SegmentationNode | None, volume: VolumeNode | None) -> bool:
    """Return whether a node is a suitable output for a volume's result; False if the node is None."""
    if segmentation_node is None:
        return False
    if find_dcamt_segments(segmentation_node):
        return get_referenced_node(segmentation_node, VOLUME) is volume
    if volume is None or not has_segments(segmentation_node):
        return True
    drawn_on = scan_of(segmentation_node)
    if drawn_on is None:
        return segmentation_node.GetAttribute(_REMOVED_SCAN) is None or _is_removed_scan(segmentation_node, volume)
    # If segments were imported from a labelmap, `drawn_on` is this labelmap, and the scan is unknown.
    return not is_listed_scan(drawn_on) or are_same_scan(drawn_on, volume)


def replace_unfit_output(settings: Any) -> None:
    """Replace a selected output that cannot hold a result of the input volume.

    The new output is the volume's newest result; no output is selected if the volume has no result.
    """
    if not can_hold_result_of(settings.outputSegmentation, settings.inputVolume):
        settings.outputSegmentation = result_of(settings.inputVolume)


def confirm_replacing(segmentation_node: SegmentationNode, volume: VolumeNode) -> bool:
    """Return whether Apply may write a result of `volume` into a node.

    The user is asked if:

    - the node's DCAMT segments, which the result replaces, were edited or may have been edited;
    - the node holds the result of another scan or was drawn on another scan;
    - the node has non-DCAMT segments, and another grid than `volume`;
    - the node is a training case.
    """
    is_case, is_resampled = training_cases.is_case(segmentation_node), False
    with suppress(InputError):  # a non-linear transform, which Apply refuses
        is_resampled = has_other_grid(segmentation_node, volume)
    has_result = bool(find_dcamt_segments(segmentation_node))
    if has_result and correction_marks.update_correction_marks(segmentation_node):
        question = _("“{name}” was edited. Replace DCAMT's segments and lose all corrections?")
    elif has_result and not correction_marks.can_recognise_edits(segmentation_node):
        question = _("“{name}” may have been edited. Replace DCAMT's segments and lose all corrections?")
    elif not has_result and not can_hold_result_of(segmentation_node, volume):
        question = _("“{name}” was drawn on another scan than “{volume}”. Add DCAMT's segments?")
    elif not can_hold_result_of(segmentation_node, volume):
        question = _("“{name}” holds the result of another scan than “{volume}”. Replace DCAMT's segments?")
    elif is_case or is_resampled:
        question = _("Replace DCAMT's segments in “{name}”?") if has_result else _("Add DCAMT's segments to “{name}”?")
    else:
        return True
    if is_resampled:
        warning = _(
            "When the segmentation is saved, 3D Slicer resamples DCAMT's segments to the grid of the other segments. To"
            " keep DCAMT's segments exact, choose to create a new segmentation under Output."
        )
        question = f"{question} {warning}"
    if is_case:
        question = f"{question} {_('The segmentation will no longer be a training case.')}"
    title = _("Replace an earlier result") if has_result else _("Add to a segmentation")
    question = question.format(name=segmentation_node.GetName(), volume=volume.GetName())
    return confirm(question, title)
