"""Show the current segmentation of a validation case in the scene and the slice views."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from dcamt.geometry import Grid
from dcamt.recipe import Recipe
from dcamt.runs.preview import Preview
from dcamt.volume import same_grid
from DCAMTSlicerLib.result_segments import BuiltSegment, write_segments
from DCAMTSlicerLib.scene_changes import SceneChanges, remove_with_display
from DCAMTSlicerLib.volume_bridge import grid_of, ijk_to_ras
from slicer.i18n import tr as _

from ..cases.derived_nodes import PREVIEW_OF
from .array_nodes import build_segments, has_voxels_of, read_image, set_image

_SCAN = f"{PREVIEW_OF}.scan"
"""Attribute that holds the `_scan_identity` of a preview's volume node."""


def show_preview(
    preview: Preview, recipe: Recipe, run: str, scene_volume: Any | None = None
) -> Generator[None, None, None]:
    """Show the preview of a run, in short steps; later previews of the run reuse the nodes.

    Only the last step changes the scene. If the last step fails, its changes are undone. If the volume node that
    shows the scan was removed during the earlier steps, the last step changes nothing.

    Args:
        scene_volume: a node that may show the case's scan. If `scene_volume` is None, has no image, or differs from
            the scan in grid or voxels, the run gets a volume node of its own.
    """
    labels = np.load(preview.labels, mmap_mode="r")
    grid = Grid(labels.shape[::-1], np.array(preview.affine))
    volume, image, identity = scene_volume, None, ""
    if not (yield from _shows_scan(volume, grid, preview.scan)):
        # Determine the identity before `read_image`: the run may replace the scan's file during the reading.
        identity = _scan_identity(preview)
        volume = _find("vtkMRMLScalarVolumeNode", run)
        if volume is None or volume.GetAttribute(_SCAN) != identity or volume.GetImageData() is None:
            image = yield from read_image(preview.scan)
    built = yield from build_segments(labels, recipe, grid.affine if image is not None else ijk_to_ras(volume))
    yield
    if image is None and not slicer.mrmlScene.IsNodePresent(volume):
        return
    is_first = _find("vtkMRMLSegmentationNode", run) is None
    with SceneChanges() as changes:
        if image is not None:
            volume = _show_image(preview, image, run, changes)
            volume.SetAttribute(_SCAN, identity)
        _show_segments(preview, built, volume, run, changes)
    if is_first:
        slicer.util.setSliceViewerLayers(background=volume, fit=True)


def _shows_scan(volume: Any | None, grid: Grid, file: str) -> Generator[None, None, bool]:
    """Return, in steps, whether a volume node has the grid and voxels of a scan; False for None.

    Args:
        file: the `.npy` file of the scan's voxels.
    """
    if volume is None or volume.GetImageData() is None or not same_grid(grid_of(volume), grid):
        return False
    # Cases of different patients may have the same name and grid, so compare the voxels, too.
    return (yield from has_voxels_of(volume, file))


def remove_preview(run: str) -> None:
    """Remove a run's preview from the scene."""
    for node_class in ("vtkMRMLSegmentationNode", "vtkMRMLScalarVolumeNode"):
        node = _find(node_class, run)
        if node is not None:
            remove_with_display(node)


def _show_image(preview: Preview, image: Any, run: str, changes: SceneChanges) -> Any:
    name = _("{run}: {case}").format(run=run, case=preview.case)
    volume = _find_or_add("vtkMRMLScalarVolumeNode", run, name, changes)
    volume.SetName(name)
    set_image(volume, image, preview.affine, preview.scan, changes)
    return volume


def _scan_identity(preview: Preview) -> str:
    """Return a text that identifies a scan: its case, and its file's path and modification time.

    The path (`.../scan-<iteration>.npy`) is not enough: a later scan may have the same path if the run repeats the
    iteration after a crash, or if a new run has the name of a discarded run.
    """
    return f"{preview.case}\n{preview.scan}\n{Path(preview.scan).stat().st_mtime_ns}"


def _show_segments(
    preview: Preview, built: Sequence[BuiltSegment], volume: Any, run: str, changes: SceneChanges
) -> None:
    name = _("{run}: preview, iteration {step}").format(run=run, step=preview.step)
    segmentation = _find_or_add("vtkMRMLSegmentationNode", run, name, changes)
    segmentation.SetName(name)
    segmentation.CreateDefaultDisplayNodes()  # does nothing if the node has a display node
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    write_segments(segmentation, built)


def _find(node_class: str, run: str) -> Any | None:
    nodes = slicer.util.getNodesByClass(node_class)
    return next((node for node in nodes if node.GetAttribute(PREVIEW_OF) == run), None)


def _find_or_add(node_class: str, run: str, name: str, changes: SceneChanges) -> Any:
    """Return the run's node of a class; if there is none, add a node that is not saved with the scene.

    If the node exists, `changes` stores its state, so that undoing restores the state.
    """
    node = _find(node_class, run)
    if node is not None:
        changes.save(node)
        return node
    node = changes.add(node_class, name)
    node.SetAttribute(PREVIEW_OF, run)
    node.SetSaveWithScene(False)
    return node
