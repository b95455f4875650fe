"""Show the current segmentation of a validation case in the scene and the slice views.

A run's preview is a segmentation node and, if no volume of the scene shows the case's scan, a volume node. The run's
next preview changes these nodes, and `remove_preview` removes them. But a node that a person uses is neither changed
nor removed, and the next preview adds another node instead. These nodes count as used by a person:

- a segmentation that was edited, or that is a training case;
- a volume whose voxels were edited, or that another segmentation outlines;
- each clone of a preview's node.

The scene saves only those nodes of previews that a person uses.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.recipe import Recipe
from dcamt.runs.preview import Preview
from dcamt.volume import same_grid
from DCAMTSegmentationLib import result_scan, training_cases
from DCAMTSegmentationLib.result_nodes import get_referenced_node
from DCAMTSegmentationLib.volume_snapshot import checksum_in_steps, voxel_checksum
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.result_segments import BuiltSegment, write_segments
from DCAMTSlicerLib.scene_changes import SceneChanges, remove_with_display
from DCAMTSlicerLib.segment_voxels import scan_of
from DCAMTSlicerLib.volume_bridge import grid_of, ijk_to_ras
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from ..cases.derived_nodes import PREVIEW_OF, is_preview
from .array_nodes import build_segments, has_voxels_of, read_image, set_image
from .proposal import VOXELS, is_unchanged, store_voxels

_ORIGINAL = f"{PREVIEW_OF}.original"
"""Node reference from a run's preview node to itself, by which `_originals` recognises the node.

In a clone, the copy of this reference leads to the original node, so the clone is not recognised.
"""
_SCAN = f"{PREVIEW_OF}.scan"
"""Attribute: the `_scan_identity` of a preview's volume node."""
_CHECKSUM = f"{PREVIEW_OF}.checksum"
"""Attribute that holds the checksum of the voxels that a preview gave to its volume node (`voxel_checksum`)."""


def show_preview(
    preview: Preview, recipe: Recipe, run: str, scene_volume: Any | None = None
) -> Generator[None, None, None]:
    """Show the preview of a run, in short steps.

    Only the last step changes the scene. If the last step fails, its changes are undone, except the effect of
    `_leave_to_person`.

    Args:
        scene_volume: a node that may show the case's scan. If `scene_volume` is None, has no image, or differs from
            the scan in grid or voxels, the run gets a volume node of its own.
    """
    labels = np.load(preview.labels, mmap_mode="r")
    grid = Grid(labels.shape[::-1], np.array(preview.affine))
    volume, image, identity, checksum = scene_volume, None, "", 0
    if not (yield from _shows_scan(volume, grid, preview.scan)):
        # The identity contains the modification time of the scan's file, and the run may replace this file while
        # `read_image` reads it. So determine the identity before the file is read.
        identity = _scan_identity(preview)
        volume = _find_scan(run, identity)
        if volume is None:
            image = yield from read_image(preview.scan)
            voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(labels.shape)
            checksum = yield from checksum_in_steps(voxels)
    built = yield from build_segments(labels, recipe, grid.affine if image is not None else ijk_to_ras(volume))
    yield
    if image is None and not slicer.mrmlScene.IsNodePresent(volume):
        return
    segmentation = next(iter(_originals("vtkMRMLSegmentationNode", run)), None)
    volume_before = scan_of(segmentation) if segmentation is not None else None
    if segmentation is not None and _is_used(segmentation):
        _leave_to_person(segmentation)
        segmentation = None
    with SceneChanges() as changes:
        if image is not None:
            volume = _show_image(preview, image, _replaceable_volume(run, segmentation), run, changes)
            volume.SetAttribute(_SCAN, identity)
            volume.SetAttribute(_CHECKSUM, str(checksum))
        _show_segments(preview, built, volume, segmentation, run, changes)
    if volume is not volume_before:
        slicer.util.setSliceViewerLayers(background=volume, fit=True)


def _shows_scan(volume: Any | None, grid: Grid, file: str) -> Generator[None, None, bool]:
    if volume is None or volume.GetImageData() is None or not same_grid(grid_of(volume), grid):
        return False
    # Cases of different patients may have the same name and grid, so compare the voxels, too.
    return (yield from has_voxels_of(volume, file))


def remove_preview(run: str) -> None:
    """Remove a run's preview from the scene; leave nodes that a person uses."""
    # Remove the segmentations first. `_is_outlined` then finds only segmentations that stay in the scene.
    for segmentation in _originals("vtkMRMLSegmentationNode", run):
        if _is_used(segmentation):
            _leave_to_person(segmentation)
        else:
            remove_with_display(segmentation)
    for volume in _originals("vtkMRMLScalarVolumeNode", run):
        if _is_edited(volume) or _is_outlined(volume):
            _leave_to_person(volume)
        else:
            remove_with_display(volume)


def save_used_nodes() -> None:
    """Let the scene save each preview node that a person uses."""
    for segmentation in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        is_unsaved_preview = is_preview(segmentation) and not segmentation.GetSaveWithScene()
        if not is_unsaved_preview or training_cases.is_case(segmentation):
            _save_with_outlined_volumes(segmentation)
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if is_preview(volume) and not volume.GetSaveWithScene() and _is_edited(volume):
            volume.SetSaveWithScene(True)


def _show_image(preview: Preview, image: Any, volume: Any | None, run: str, changes: SceneChanges) -> Any:
    name = _("{run}: {case}").format(run=run, case=preview.case)
    volume = _rename_or_add(volume, "vtkMRMLScalarVolumeNode", name, run, changes)
    set_image(volume, image, preview.affine, preview.scan, changes)
    return volume


def _scan_identity(preview: Preview) -> str:
    # The path (`.../scan-<iteration>.npy`) is not enough: a later scan may have the same path if the run repeats the
    # iteration after a crash.
    return f"{preview.case}\n{preview.scan}\n{Path(preview.scan).stat().st_mtime_ns}"


def _find_scan(run: str, identity: str) -> Any | None:
    """Return the run's volume node with this scan identity (`_SCAN`) and unedited voxels; None if there is none.

    The node may also be a clone, or a node that was left to a person.
    """
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    known = [node for node in nodes if node.GetAttribute(PREVIEW_OF) == run and node.GetAttribute(_SCAN) == identity]
    return next((node for node in known if not _is_edited(node)), None)


def _show_segments(
    preview: Preview,
    built: Sequence[BuiltSegment],
    volume: VolumeNode,
    segmentation: Any | None,
    run: str,
    changes: SceneChanges,
) -> None:
    name = _("{run}: preview, iteration {step}").format(run=run, step=preview.step)
    is_new = segmentation is None
    segmentation = _rename_or_add(segmentation, "vtkMRMLSegmentationNode", name, run, changes)
    segmentation.CreateDefaultDisplayNodes()  # does nothing if the node has a display node
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    segmentation.SetAttribute(VOXELS, None)  # `_on_edited` ignores edits until `store_voxels` is called.
    write_segments(segmentation, built)
    store_voxels(segmentation)
    if is_new:
        kinds = slicer.vtkSegmentation
        for event in (kinds.SourceRepresentationModified, kinds.SegmentAdded, kinds.SegmentRemoved):
            segmentation.AddObserver(event, _on_edited)


def _on_edited(segmentation: SegmentationNode, event: Any) -> None:
    if segmentation.GetAttribute(VOXELS) is not None:
        _save_with_outlined_volumes(segmentation)


def _save_with_outlined_volumes(segmentation: SegmentationNode) -> None:
    for node in (segmentation, *_outlined_volumes(segmentation)):
        if is_preview(node):
            node.SetSaveWithScene(True)


def _outlined_volumes(segmentation: SegmentationNode) -> list[VolumeNode]:
    training_image = get_referenced_node(segmentation, training_cases.IMAGE)
    volumes = (scan_of(segmentation), training_image, *result_scan.scans_of(segmentation))
    return [volume for volume in volumes if volume is not None]


def _originals(node_class: str, run: str) -> list[Any]:
    """Return the nodes of `node_class` that the run's previews added, except clones and nodes left to a person."""
    nodes = slicer.util.getNodesByClass(node_class)
    return [node for node in nodes if node.GetAttribute(PREVIEW_OF) == run and node.GetNodeReference(_ORIGINAL) is node]


def _is_used(segmentation: SegmentationNode) -> bool:
    return not is_unchanged(segmentation) or training_cases.is_case(segmentation)


def _is_edited(volume: VolumeNode) -> bool:
    try:
        return volume.GetAttribute(_CHECKSUM) != str(voxel_checksum(volume))
    except InputError:  # The node has no image any more, or an image with several channels.
        return True


def _is_outlined(volume: VolumeNode, except_by: SegmentationNode | None = None) -> bool:
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return any(node is not except_by and volume in _outlined_volumes(node) for node in nodes)


def _replaceable_volume(run: str, segmentation: SegmentationNode | None) -> Any | None:
    """Return a volume of the run that no person uses; None if there is none.

    Args:
        segmentation: the segmentation that the next preview will change; None if the preview will add a segmentation.
    """
    volumes = _originals("vtkMRMLScalarVolumeNode", run)
    return next((node for node in volumes if not _is_edited(node) and not _is_outlined(node, segmentation)), None)


def _leave_to_person(node: Any) -> None:
    """Let the scene save a preview's node, and exclude the node from later changes by previews."""
    node.RemoveNodeReferenceIDs(_ORIGINAL)
    node.SetSaveWithScene(True)


def _rename_or_add(node: Any | None, node_class: str, name: str, run: str, changes: SceneChanges) -> Any:
    if node is not None:
        changes.save(node)
        node.SetName(name)
        return node
    node = changes.add(node_class, slicer.mrmlScene.GetUniqueNameByString(name))
    node.SetAttribute(PREVIEW_OF, run)
    node.SetNodeReferenceID(_ORIGINAL, node.GetID())
    node.SetSaveWithScene(False)
    return node
