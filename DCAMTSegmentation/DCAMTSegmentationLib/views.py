"""Control the slice and 3D views: show one scan with its own results, a map, and a point at a doubtful place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import slicer
import vtk
from DCAMTSlicerLib.node_types import Node, SegmentationNode, VolumeNode
from DCAMTSlicerLib.scene_changes import remove_with_display
from DCAMTSlicerLib.segment_surfaces import surface_name
from slicer.i18n import tr as _

from . import result_scan
from .doubt_map import MAX_PERCENT, is_map, shows_doubt
from .result_nodes import PLACE_POINT, VOLUME, WALL_MODEL, find_results, get_referenced_node
from .wall_nodes import measured_volume

MAP_OPACITY = 0.6
_HIDDEN, _FILL_HIDDEN = "DCAMT.hidden", "DCAMT.fillHidden"
"""Attributes that mark what this module hid."""
_IS_SHOWN: dict[str, Callable[[Node], Any]] = {
    _HIDDEN: lambda display: display.GetVisibility(),
    _FILL_HIDDEN: lambda display: display.GetVisibility2DFill(),
}
_POINT_COLOR = (0.2, 1.0, 1.0)
LEGEND_SIZE, LEGEND_POSITION = (0.1, 0.3), (0.98, 0.05)
"""Size and position as fractions of a view. A larger legend would have too large letters. The legend lies at the
bottom right, away from the heart."""


def background_scan() -> VolumeNode | None:
    """Return the first scan that is the background of a slice view; None if there is none."""
    for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        node = slicer.mrmlScene.GetNodeByID(view.GetBackgroundVolumeID() or "")
        if node is not None and result_scan.is_listed_scan(node):
            return node
    return None


def show_scan(volume: VolumeNode) -> None:
    """Make a scan the background of all slice views, and show its results and walls instead of those of other scans.

    If all views show the scan already, each keeps its position and zoom. Results that the user hid stay hidden. A
    segmentation that is no result keeps its visibility; its wall is shown only with the scan in which the wall was
    measured.
    """
    if volume.GetImageData() is None:
        return
    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    if slicer.app.layoutManager() is not None and any(v.GetBackgroundVolumeID() != volume.GetID() for v in views):
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
    for segmentation in find_results():
        _show_result(segmentation, volume in result_scan.scans_of(segmentation))
    for segmentation in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        scan_of_result = get_referenced_node(segmentation, VOLUME)
        scan_of_wall = measured_volume(segmentation)
        if scan_of_result is None and scan_of_wall is not None:
            _show_wall(segmentation, scan_of_wall is volume)


def hide_over_other_scan(segmentation: SegmentationNode) -> None:
    """Hide a result if a slice view shows another scan; `show_scan` shows the result again with its own scan."""
    if get_referenced_node(segmentation, VOLUME) is None:
        return
    if _is_another_scan_shown(result_scan.scans_of(segmentation)):
        _show_result(segmentation, False)


def show_without_scan(segmentation: SegmentationNode) -> None:
    """Show again a segmentation that this module hid, if the segmentation's scan was removed."""
    if get_referenced_node(segmentation, VOLUME) is None and segmentation.GetDisplayNode() is not None:
        _set_visible(segmentation.GetDisplayNode(), segmentation, True)
        if measured_volume(segmentation) is None:
            _show_wall(segmentation, True)


def hide_wall_over_other_scan(segmentation: SegmentationNode) -> None:
    """Hide a result's wall if `show_scan` or `hide_over_other_scan` hid the result.

    For a segmentation without a scan, hide the wall if a slice view shows another scan than `measured_volume`.
    """
    scan_of_result = get_referenced_node(segmentation, VOLUME)
    scan_of_wall = measured_volume(segmentation)
    is_over_other_scan = scan_of_result is None and scan_of_wall is not None and _is_another_scan_shown([scan_of_wall])
    if segmentation.GetAttribute(_HIDDEN) or is_over_other_scan:
        _show_wall(segmentation, False)


def _is_another_scan_shown(own: Sequence[VolumeNode]) -> bool:
    identifiers = {node.GetID() for node in own}
    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return any(view.GetBackgroundVolumeID() not in (None, "", *identifiers) for view in views)


def _show_result(segmentation: SegmentationNode, shown: bool) -> None:
    _show_wall(segmentation, shown)
    display = segmentation.GetDisplayNode()
    if display is None:
        return
    _set_visible(display, segmentation, shown)
    point = get_referenced_node(segmentation, PLACE_POINT)
    if point is not None and not shown:
        remove_with_display(point)


def _show_wall(segmentation: SegmentationNode, shown: bool) -> None:
    # The wall's display nodes include the wall's colour legend.
    wall = get_referenced_node(segmentation, WALL_MODEL)
    if wall is None:
        return
    for index in range(wall.GetNumberOfDisplayNodes()):
        display = wall.GetNthDisplayNode(index)
        if display is not None:
            _set_visible(display, display, shown)


def _set_visible(display: Node, marked: Node, shown: bool) -> None:
    """Hide a display node, or show it again if this module hid it."""
    if shown and marked.GetAttribute(_HIDDEN):
        marked.SetAttribute(_HIDDEN, None)
        display.SetVisibility(True)
    elif not shown and display.GetVisibility():
        display.SetVisibility(False)
        _mark_until_shown(marked, _HIDDEN, display)


def observe_hidden() -> None:
    """Observe all displays that this module hid; a loaded scene has their marks, but not their observers."""
    segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    displays = slicer.util.getNodesByClass("vtkMRMLDisplayNode")
    for marked, display in [
        *((node, node.GetDisplayNode()) for node in segmentations),
        *zip(displays, displays, strict=True),
    ]:
        for mark in _IS_SHOWN:
            if display is not None and marked.GetAttribute(mark):
                _mark_until_shown(marked, mark, display)


def _mark_until_shown(marked: Node, mark: str, display: Node) -> None:
    marked.SetAttribute(mark, "1")
    identifier = marked.GetID()  # The observer must not keep the node in memory.

    def on_modified(caller: Any, event: Any) -> None:
        if _IS_SHOWN[mark](caller):
            caller.RemoveObserver(tag)
            node = slicer.mrmlScene.GetNodeByID(identifier)
            if node is not None:
                node.SetAttribute(mark, None)

    tag = display.AddObserver(vtk.vtkCommand.ModifiedEvent, on_modified)


def show_in_3d(segmentation_node: SegmentationNode, shown: bool) -> None:
    """Show or hide a result's surfaces in the 3D views; compute missing surfaces before showing them."""
    segmentation_node.CreateDefaultDisplayNodes()
    if shown:
        segmentation_node.CreateClosedSurfaceRepresentation()
        segmentation_node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(surface_name())
    segmentation_node.GetDisplayNode().SetVisibility3D(shown)


def centre_3d_views() -> None:
    """Centre the 3D views on the visible objects."""
    layout = slicer.app.layoutManager()
    for index in range(layout.threeDViewCount if layout is not None else 0):
        layout.threeDWidget(index).threeDView().resetFocalPoint()


def show_point(segmentation: SegmentationNode, position: tuple[float, float, float], text: str) -> None:
    """Move the result's Markups point to a doubtful place; create the point if needed.

    Args:
        position: mm in the segmentation node's space.
    """
    point = get_referenced_node(segmentation, PLACE_POINT)
    if point is None:
        point = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", _("Doubtful place"))
        point.SetSaveWithScene(False)
        point.SetLocked(True)
        point.CreateDefaultDisplayNodes()
        display = point.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetSelectedColor(*_POINT_COLOR)
        display.SetColor(*_POINT_COLOR)
        display.SetGlyphTypeFromString("CrossDot2D")
        display.SetTextScale(3.0)
        segmentation.SetNodeReferenceID(PLACE_POINT, point.GetID())
    point.SetAndObserveTransformNodeID(segmentation.GetTransformNodeID())
    point.RemoveAllControlPoints()
    point.AddControlPoint(position, text)


class MapOverlay:
    """Shows a result's map as the foreground of all slice views.

    `show(None)` restores the previous foreground. A foreground that the user chose in place of the map stays.
    """

    def __init__(self) -> None:
        self._before: dict[str, tuple[VolumeNode | None, float]] = {}
        self._segmentation: SegmentationNode | None = None

    def show(self, map_node: VolumeNode | None, segmentation: SegmentationNode | None = None) -> None:
        """Show a map over the slices, with a colour legend and the result as outlines; None removes the map."""
        if self._segmentation is not None and segmentation is not self._segmentation:
            _show_fill(self._segmentation, True)
        self._segmentation = segmentation if map_node is not None else None
        if segmentation is not None:
            _show_fill(segmentation, map_node is None)
        for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            view_id, shown = view.GetID(), slicer.mrmlScene.GetNodeByID(view.GetForegroundVolumeID() or "")
            shows_map = shown is not None and is_map(shown)
            if view_id in self._before and shown is not None and not shows_map:
                continue  # The user replaced the map.
            if map_node is not None:
                # A view of a loaded scene may already show a map.
                before = (None, 0.0) if shows_map else (shown, view.GetForegroundOpacity())
                self._before.setdefault(view_id, before)
                view.SetForegroundVolumeID(map_node.GetID())
                view.SetForegroundOpacity(MAP_OPACITY)
            elif view_id in self._before:
                earlier, opacity = self._before[view_id]
                if earlier is not None and not slicer.mrmlScene.IsNodePresent(earlier):
                    earlier = None
                view.SetForegroundVolumeID(earlier.GetID() if earlier is not None else None)
                view.SetForegroundOpacity(opacity)
        if map_node is None:
            self._before.clear()
        _show_legend(map_node)


def _show_fill(segmentation: SegmentationNode, shown: bool) -> None:
    """Hide a result's fill, so that the map stays visible, or show the fill again if this module hid it."""
    display = segmentation.GetDisplayNode()
    if display is None:
        return
    if not shown and display.GetVisibility2DFill():
        display.SetVisibility2DFill(False)
        _mark_until_shown(segmentation, _FILL_HIDDEN, display)
    elif shown and segmentation.GetAttribute(_FILL_HIDDEN):
        segmentation.SetAttribute(_FILL_HIDDEN, None)
        display.SetVisibility2DFill(True)


def _show_legend(map_node: VolumeNode | None) -> None:
    logic = slicer.modules.colors.logic()
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if is_map(node) and node is not map_node:
            legend = logic.GetColorLegendDisplayNode(node)
            if legend is not None:
                slicer.mrmlScene.RemoveNode(legend)
    if map_node is None or map_node.GetDisplayNode() is None or logic.GetColorLegendDisplayNode(map_node) is not None:
        return
    legend = logic.AddDefaultColorLegendDisplayNode(map_node)
    if legend is None:
        return
    legend.SetSaveWithScene(False)
    upper_limit = map_node.GetDisplayNode().GetWindowLevelMax()
    if shows_doubt(map_node):
        title = _("Doubt (%)")
    else:  # a map of disagreement from an older version of DCAMT
        title = _("Disagreement (%)") if upper_limit == MAX_PERCENT else _("Disagreement (0 to 255)")
    legend.SetTitleText(title)
    legend.SetLabelFormat("%.0f")
    legend.SetNumberOfLabels(5)
    legend.SetSize(*LEGEND_SIZE)
    legend.SetPosition(*LEGEND_POSITION)
    legend.SetVisibility(True)
