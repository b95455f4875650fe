"""Show the current segmentation of a validation case in the scene and the slice views."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import slicer
from dcamt.geometry import Grid
from dcamt.recipe import Recipe
from dcamt.runs.preview import Preview
from DCAMTSegmentationLib.review import remove_with_display
from DCAMTSlicerLib.result_segments import write_segments
from DCAMTSlicerLib.volume_bridge import grid_of, ijk_to_ras
from slicer.i18n import tr as _

from ..cases.derived_nodes import PREVIEW_OF
from .array_nodes import build_segments, read_image, set_image


def show_preview(
    preview: Preview, recipe: Recipe, run: str, scene_volume: Any | None = None
) -> Generator[None, None, None]:
    """Show the preview of a run, in short steps; later previews of the run reuse its nodes.

    Args:
        scene_volume: the node of the case's scan. If it is None, or has no image or a different grid, the run gets
            a volume node of its own.
    """
    is_first = _find("vtkMRMLSegmentationNode", run) is None
    labels = np.load(preview.labels, mmap_mode="r")
    volume = scene_volume
    grid = Grid(labels.shape[::-1], np.array(preview.affine))
    if volume is None or volume.GetImageData() is None or not grid_of(volume).matches(grid):
        volume = yield from _read_volume(preview, run)
    segmentation = _find("vtkMRMLSegmentationNode", run)
    if segmentation is None:
        segmentation = _add("vtkMRMLSegmentationNode", run, _("{run}: preview").format(run=run))
        segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    built = yield from build_segments(labels, recipe, ijk_to_ras(volume))
    write_segments(segmentation, built)
    segmentation.SetName(_("{run}: preview, iteration {step}").format(run=run, step=preview.step))
    if is_first:
        slicer.util.setSliceViewerLayers(background=volume, fit=True)


def remove_preview(run: str) -> None:
    """Remove a run's preview from the scene."""
    for node_class in ("vtkMRMLSegmentationNode", "vtkMRMLScalarVolumeNode"):
        node = _find(node_class, run)
        if node is not None:
            remove_with_display(node)


def _read_volume(preview: Preview, run: str) -> Generator[None, None, Any]:
    """Return the run's own volume node with the case's scan; read the scan unless the node has it already."""
    volume = _find("vtkMRMLScalarVolumeNode", run)
    if (
        volume is not None
        and volume.GetAttribute(f"{PREVIEW_OF}.scan") == preview.scan
        and volume.GetImageData() is not None
    ):
        return volume
    image = yield from read_image(preview.scan)
    if volume is None:
        volume = _add("vtkMRMLScalarVolumeNode", run, _("{run}: {case}").format(run=run, case=preview.case))
    volume.SetName(_("{run}: {case}").format(run=run, case=preview.case))
    yield
    set_image(volume, image, preview.affine, preview.scan)
    volume.SetAttribute(f"{PREVIEW_OF}.scan", preview.scan)
    yield
    return volume


def _find(node_class: str, run: str) -> Any | None:
    nodes = slicer.util.getNodesByClass(node_class)
    return next((node for node in nodes if node.GetAttribute(PREVIEW_OF) == run), None)


def _add(node_class: str, run: str, name: str) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass(node_class, name)
    node.SetAttribute(PREVIEW_OF, run)
    node.SetSaveWithScene(False)
    return node
