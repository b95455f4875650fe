"""Store a wall in the scene: a model node with scalars, a colour table with a legend, and a table of the burden.

The model node, and thus a saved scene, contains the whole `WallResult`: its surface, its arrays as point scalars of
the surface, and its other data in the model node's attribute `_FACTS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.errors import InputError
from dcamt.io.typed_json import parse_json
from dcamt.wall.analysis import WallResult
from dcamt.wall.burden import WALL, WHOLE, decaaf_stage
from dcamt.wall.colors import OPENING_COLOR, SCALE_PARTS, ratio_range, threshold_colors
from dcamt.wall.files import wall_facts, wall_of
from dcamt.wall.settings import Threshold
from dcamt.wall.surface import Surface
from DCAMTSlicerLib.fingerprints import fingerprint, is_same_fingerprint
from DCAMTSlicerLib.node_types import ModelNode, Node, SegmentationNode, TableNode, VolumeNode
from DCAMTSlicerLib.scene_changes import SceneChanges
from DCAMTSlicerLib.segment_surfaces import build_poly_data
from DCAMTSlicerLib.segment_voxels import labelmap_affine
from DCAMTSlicerLib.subject_hierarchy import place_below
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, transform_between
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from . import correction_marks
from .measurements_table import set_text_columns
from .result_nodes import (
    VOLUME,
    WALL_COLORS,
    WALL_MODEL,
    WALL_NODES,
    WALL_TABLE,
    get_referenced_node,
    own_helper,
    read_matrix,
)
from .volume_snapshot import voxel_checksum

_FACTS = "DCAMT.wallFacts"
_SEGMENT, _OUTLINE, _OUTDATED = "DCAMT.wallSegment", "DCAMT.wallOutline", "DCAMT.wallOutdated"
_PLACEMENT = "DCAMT.wallPlacement"
"""Attribute: the `placement` of the measured segment, as JSON."""
_VOXELS = "DCAMT.wallVoxels"
"""Attribute: the checksum of the measured volume's voxels."""
_SURFACE_PLACE = "DCAMT.wallSurfacePlace"
"""Attribute: the `_surface_place` when the wall was measured, as JSON."""
SAME_SURFACE_PLACE = 1.0
"""Tolerance for comparing the place of a surface in the scan (`_surface_place`), in voxels along each axis.

The tolerance is larger than `correction_marks.SAME_PLACE`, since another module may have smoothed the surface.
"""
RATIO, KIND, REGION, ENHANCED, SHOWN = "ratio", "opening", "region", "enhanced", "shown"
COLORS = 256
"""Number of colours in the table."""


def insert_wall(
    wall: WallResult, volume: VolumeNode | None, segmentation: SegmentationNode, changes: SceneChanges
) -> ModelNode:
    """Insert a segmentation's wall into the scene, replacing an earlier wall; return the wall's model node.

    If another segmentation, such as a copy, also refers to the earlier wall, that wall is kept and hidden.

    Args:
        wall: the wall in the volume's own space, before the volume's transform.
        volume: the measured volume; None if the user removed it.
    """
    scene = slicer.mrmlScene
    earlier = get_referenced_node(segmentation, WALL_MODEL)
    model, colors, table = (own_helper(segmentation, role) for role in WALL_NODES)
    for node in (segmentation, earlier, colors, table):
        changes.save(node)
    name = _("{volume} wall").format(volume=volume.GetName() if volume is not None else wall.scan)
    if earlier is not None and model is None:
        # Another segmentation uses `earlier`, so `earlier` is hidden, not removed.
        earlier.SetDisplayVisibility(False)
    is_new = model is None
    # Each node is checked, since the user may have removed only one of them.
    if model is None:
        model = changes.add("vtkMRMLModelNode", scene.GenerateUniqueName(name))
        model.CreateDefaultDisplayNodes()
        place_below(model, segmentation)
    if colors is None:
        colors = changes.add("vtkMRMLColorTableNode", scene.GenerateUniqueName(_("{wall} colours").format(wall=name)))
        colors.SetTypeToUser()
        colors.SetNumberOfColors(COLORS)
        colors.SetNamesFromColors()
    if table is None:
        table = changes.add("vtkMRMLTableNode", scene.GenerateUniqueName(_("{wall} burden").format(wall=name)))
        place_below(table, segmentation)
    # Keep an earlier model's colour table, which the user may have chosen.
    if is_new or model.GetDisplayNode().GetColorNode() is None:
        model.GetDisplayNode().SetAndObserveColorNodeID(colors.GetID())
    for role, node in zip(WALL_NODES, (model, colors, table), strict=True):
        segmentation.SetNodeReferenceID(role, node.GetID())
    model.SetNodeReferenceID(VOLUME, volume.GetID() if volume is not None else None)
    placed = volume if volume is not None else earlier
    model.SetAndObserveTransformNodeID(placed.GetTransformNodeID() if placed is not None else None)
    surface = build_poly_data(wall.surface.points, wall.surface.triangles)
    for name, values in ((RATIO, wall.ratio), (REGION, wall.region)):
        _set_scalars(surface, name, values)
    model.SetAndObservePolyData(surface)
    # Otherwise, Slicer replaces the range of the colours by the range of the ratios.
    model.GetDisplayNode().SetScalarRangeFlag(slicer.vtkMRMLDisplayNode.UseManualScalarRange)
    show_wall(wall, segmentation)
    _show(model, changes, is_new)
    return model


def separate_wall(wall: WallResult, segmentation: SegmentationNode) -> None:
    """Give a segmentation a wall of its own if it shares its wall with another segmentation, as a copy does."""
    shared = get_referenced_node(segmentation, WALL_MODEL)
    if shared is None or own_helper(segmentation, WALL_MODEL) is not None:
        return
    with SceneChanges() as changes:
        model = insert_wall(wall, measured_volume(segmentation), segmentation, changes)
        for name in (_SEGMENT, _OUTLINE, _PLACEMENT, _VOXELS, _SURFACE_PLACE):
            model.SetAttribute(name, shared.GetAttribute(name))


def is_in_scene(wall: WallResult, segmentation: SegmentationNode) -> bool:
    """Return whether `wall` is still the segmentation's wall in the scene.

    Another module may have changed the surface, or a script may have measured a new wall.
    """
    model = get_referenced_node(segmentation, WALL_MODEL)
    surface = model.GetPolyData() if model is not None else None
    points = surface.GetPoints() if surface is not None else None
    if points is None or _attribute_of_wall(segmentation, _FACTS) != wall_facts(wall):
        return False
    return np.array_equal(vtk_to_numpy(points.GetData()), wall.surface.points)


def wall_in_scene(segmentation: SegmentationNode | None) -> WallResult | None:
    """Return the measured wall of a segmentation, with its openings and threshold; None without a readable wall."""
    model = get_referenced_node(segmentation, WALL_MODEL)
    surface = model.GetPolyData() if model is not None else None
    facts = model.GetAttribute(_FACTS) if model is not None else None
    if surface is None or not facts:
        return None
    if not surface.GetNumberOfPoints() or surface.GetPolys().IsHomogeneous() != 3:  # other cells than triangles
        return None
    if not all(surface.GetPointData().HasArray(name) for name in (RATIO, KIND, REGION)):
        return None
    points = vtk_to_numpy(surface.GetPoints().GetData()).astype(np.float64)
    triangles = vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64)
    ratio, kind, region = (
        np.array(vtk_to_numpy(surface.GetPointData().GetArray(name))) for name in (RATIO, KIND, REGION)
    )
    with suppress(InputError, KeyError, TypeError, ValueError, OverflowError):  # facts of another version of DCAMT
        return wall_of(Surface(points, triangles), ratio, kind.astype(np.uint8), region.astype(np.uint8), facts)
    return None


def store_measured_outline(
    segmentation: SegmentationNode,
    segment: str,
    measured: str,
    placed: np.ndarray | None = None,
    checksum: int | None = None,
) -> None:
    """Store which segment was measured for a new wall, and the surface's place; mark the wall as up to date.

    The arguments give the state at the measurement, since the segment may have been edited or moved after the
    measurement.

    Args:
        segment: the segment's identifier.
        measured: the segment's `fingerprint`.
        placed: the segment's `placement`.
        checksum: the checksum of the volume's voxels.
    """
    model: ModelNode = get_referenced_node(segmentation, WALL_MODEL)
    model.SetAttribute(_SEGMENT, segment)
    model.SetAttribute(_OUTLINE, measured)
    model.SetAttribute(_PLACEMENT, None if placed is None else json.dumps(placed.tolist()))
    model.SetAttribute(_VOXELS, None if checksum is None else str(checksum))
    place = _surface_place(segmentation)
    model.SetAttribute(_SURFACE_PLACE, None if place is None else json.dumps(place.tolist()))
    segmentation.SetAttribute(_OUTDATED, None)


def _surface_place(segmentation: SegmentationNode) -> np.ndarray | None:
    """Return the place of a wall's surface in the measured volume: (5, 3).

    Row 0 holds the number of the surface's points, three times. Rows 1 to 4 hold the voxel indices of four points.
    """
    model, volume = get_referenced_node(segmentation, WALL_MODEL), measured_volume(segmentation)
    surface = model.GetPolyData() if model is not None else None
    if surface is None or volume is None or not surface.GetNumberOfPoints():
        return None
    count = surface.GetNumberOfPoints()
    points = [(*surface.GetPoint(index), 1.0) for index in np.linspace(0, count - 1, 4).astype(int).tolist()]
    to_voxels = np.linalg.inv(ijk_to_ras(volume)) @ transform_between(model, volume)
    return np.vstack([np.full(3, count), np.array(points) @ to_voxels[:3].T])


def is_surface_elsewhere(segmentation: SegmentationNode) -> bool:
    """Return whether the wall's surface was moved, relative to the scan, after the measurement.

    Return False if nothing can be compared.
    """
    before = read_matrix(_attribute_of_wall(segmentation, _SURFACE_PLACE), 5, 3)
    if before is None:  # no wall, or an older version of DCAMT measured it
        return False
    try:
        now = _surface_place(segmentation)
    except InputError:  # a non-linear transform
        return True
    if now is None or now[0, 0] != before[0, 0]:  # another number of points
        return False
    return bool((np.abs(now - before) > SAME_SURFACE_PLACE).any())


def is_scan_changed(segmentation: SegmentationNode, checksum_of: Callable[[VolumeNode], int] = voxel_checksum) -> bool:
    """Return whether the measured volume's voxels changed since the measurement.

    Return False if the volume or its image is missing, or if no checksum was stored with the wall.
    """
    stored, volume = _attribute_of_wall(segmentation, _VOXELS), measured_volume(segmentation)
    if not stored or volume is None or volume.GetImageData() is None:
        return False
    try:
        return stored != str(checksum_of(volume))
    except InputError:  # an image with several channels
        return True


def placement(
    segmentation: SegmentationNode, segment: str, volume_affine: np.ndarray, to_volume: np.ndarray
) -> np.ndarray | None:
    """Return the position of a segment's labelmap in the volume; None if the segment has no voxels.

    Args:
        volume_affine: (4, 4), voxel index of the volume -> mm in the volume's space.
        to_volume: (4, 4), mm in the segmentation's space -> mm in the volume's space.

    Returns:
        (4, 4), voxel index of the labelmap -> mm. Origin: the volume's first voxel. Axes: those of the volume's space.
    """
    affine = labelmap_affine(segmentation, [segment])
    if affine is None:
        return None
    placed = to_volume @ affine
    placed[:3, 3] -= volume_affine[:3, 3]
    return placed


def _is_moved(segmentation: SegmentationNode, segment: str) -> bool:
    stored = read_matrix(_attribute_of_wall(segmentation, _PLACEMENT), 4, 4)
    volume = measured_volume(segmentation)
    if stored is None or volume is None or volume.GetImageData() is None:
        return False
    volume_affine = ijk_to_ras(volume)
    try:
        now = placement(segmentation, segment, volume_affine, transform_between(segmentation, volume))
    except InputError:  # a non-linear transform
        return True
    if now is None:
        return False
    corners = [(*corner, 1) for corner in product(*((0, size) for size in volume.GetImageData().GetDimensions()))]
    distances_mm = ((now - stored) @ np.transpose(corners))[:3]
    return bool((np.abs(np.linalg.inv(volume_affine[:3, :3]) @ distances_mm) > correction_marks.SAME_PLACE).any())


def _attribute_of_wall(segmentation: SegmentationNode, name: str) -> str | None:
    model = get_referenced_node(segmentation, WALL_MODEL)
    return model.GetAttribute(name) if model is not None else None


def measured_volume(segmentation: SegmentationNode) -> VolumeNode | None:
    """Return the volume in which a segmentation's wall was measured; None if wall or volume is missing."""
    return get_referenced_node(get_referenced_node(segmentation, WALL_MODEL), VOLUME)


def store_scan_name(volume: VolumeNode) -> None:
    """Store a volume's present name in the walls that were measured in it, before the volume is removed."""
    name = volume.GetName()
    for model in slicer.util.getNodesByClass("vtkMRMLModelNode"):
        facts = model.GetAttribute(_FACTS)
        if facts and get_referenced_node(model, VOLUME) is volume:
            with suppress(TypeError, ValueError):  # Another version of DCAMT stored the facts.
                model.SetAttribute(_FACTS, json.dumps({**parse_json(facts), "scan": name}))


def measured_segment(segmentation: SegmentationNode) -> str:
    """Return the identifier of the segment whose wall was measured; "" if wall or segment is missing."""
    model = get_referenced_node(segmentation, WALL_MODEL)
    segment = (model.GetAttribute(_SEGMENT) if model is not None else None) or ""
    return segment if segment and segmentation.GetSegmentation().GetSegment(segment) is not None else ""


def mark_outdated(segmentation: SegmentationNode) -> None:
    """Mark a segmentation's wall, if any, as outdated."""
    model = get_referenced_node(segmentation, WALL_MODEL)
    if model is not None and model.GetAttribute(_OUTLINE):
        segmentation.SetAttribute(_OUTDATED, "1")


def update_outdated_mark(segmentation: SegmentationNode) -> None:
    """Mark a wall as outdated if its segment was changed or moved since the measurement; else remove the mark."""
    model = get_referenced_node(segmentation, WALL_MODEL)
    measured = model.GetAttribute(_OUTLINE) if model is not None else None
    if model is None or not measured:
        return
    segment = model.GetAttribute(_SEGMENT)
    exists = segmentation.GetSegmentation().GetSegment(segment) is not None
    now = fingerprint(segmentation, [segment]) if exists else ""
    is_current = is_same_fingerprint(measured, now) and not (exists and _is_moved(segmentation, segment))
    segmentation.SetAttribute(_OUTDATED, None if is_current else "1")


def is_wall_outdated(segmentation: SegmentationNode) -> bool:
    """Return whether a wall is marked as outdated: the segment's outline may have changed since the measurement."""
    model = get_referenced_node(segmentation, WALL_MODEL)
    return model is not None and segmentation.GetAttribute(_OUTDATED) is not None


def with_threshold(wall: WallResult, threshold: Threshold) -> WallResult:
    """Return the wall with another threshold; both walls share one surface."""
    return replace(wall, settings=replace(wall.settings, threshold=threshold))


def show_wall(wall: WallResult, segmentation: SegmentationNode) -> None:
    """Update a wall's nodes with all data that depend on the openings or the threshold."""
    model: ModelNode = get_referenced_node(segmentation, WALL_MODEL)
    surface = model.GetPolyData()
    _set_scalars(surface, KIND, wall.kind)
    _set_scalars(surface, ENHANCED, wall.enhanced().astype(np.uint8))
    _set_scalars(surface, SHOWN, _shown_ratios(wall))
    surface.GetPointData().SetActiveScalars(SHOWN)
    surface.Modified()
    model.SetAttribute(_FACTS, wall_facts(wall))
    threshold = wall.threshold_ratio()
    _set_colors(get_referenced_node(segmentation, WALL_COLORS), threshold)
    display = model.GetDisplayNode()
    if display is not None:
        display.SetScalarRange(*ratio_range(threshold))
    fill_burden(get_referenced_node(segmentation, WALL_TABLE), wall)


def _color_ratios(threshold: float) -> np.ndarray:
    """Return the ratio at the middle of each colour of the table."""
    low, high = ratio_range(threshold)
    return low + (np.arange(COLORS) + 0.5) * (high - low) / COLORS


def _shown_ratios(wall: WallResult) -> np.ndarray:
    """Return the wall's ratios, changed where a point would get a wrong colour.

    Only enhanced points get a colour above the threshold; only points that are not wall get the table's first colour.
    """
    threshold = wall.threshold_ratio()
    colors = _color_ratios(threshold)
    first_above = int(np.count_nonzero(colors <= threshold))
    below = wall.ratio.clip(colors[1], colors[first_above - 1])
    above = wall.ratio.clip(colors[first_above], colors[-1])
    shown = np.where(wall.kind == WALL, np.where(wall.enhanced(), above, below), colors[0])
    return shown.astype(np.float32)


def fill_burden(table: TableNode | None, wall: WallResult) -> None:
    """Put the burden of the whole wall and of each region into a table node, as text; do nothing for None."""
    if table is None:
        return
    rows = [
        (
            _region_name(burden.region),
            burden.percent_text,
            decaaf_stage(burden.percent) if burden.region == WHOLE else "",
            f"{burden.enhanced_cm2:.1f}",
            f"{burden.wall_cm2:.1f}",
        )
        for burden in wall.burdens()
    ]
    # The main columns are first, since a narrow panel shows only the first ones.
    titles = {
        "region": _("Region"),
        "burden_percent": _("Burden (%)"),
        "stage": _("Stage"),
        "enhanced_cm2": _("Enhanced (cm²)"),
        "wall_cm2": _("Wall (cm²)"),
    }
    set_text_columns(table, titles, dict(zip(titles, zip(*rows, strict=True), strict=True)))


def _region_name(region: str) -> str:
    return {
        WHOLE: _("Whole wall"),
        "anterior": _("Anterior"),
        "posterior": _("Posterior"),
        "roof": _("Roof"),
        "floor": _("Floor"),
        "septal": _("Septal"),
        "lateral": _("Lateral"),
    }.get(region, region)


def _set_scalars(surface: Any, name: str, values: np.ndarray) -> None:
    array = numpy_to_vtk(np.ascontiguousarray(values), deep=True)
    array.SetName(name)
    surface.GetPointData().AddArray(array)


def _set_colors(colors: Node | None, threshold: float) -> None:
    if colors is None:
        return
    modifying = colors.StartModify()
    colors.GetLookupTable().SetRange(*ratio_range(threshold))
    table = threshold_colors(_color_ratios(threshold), threshold)
    table[0] = OPENING_COLOR  # for points that are not wall: openings, and points at the scan's border
    for index, color in enumerate(table.tolist()):
        colors.SetColor(index, *color, 1.0)
    colors.EndModify(modifying)


def _show(model: ModelNode, changes: SceneChanges, is_new: bool) -> None:
    display = model.GetDisplayNode()
    display.SetActiveScalar(SHOWN, vtk.vtkAssignAttribute.POINT_DATA)
    display.SetScalarVisibility(True)
    display.SetVisibility(True)
    if is_new:
        display.SetVisibility2D(False)
    logic = slicer.modules.colors.logic()
    if logic.GetColorLegendDisplayNode(model) is not None:
        return
    legend = changes.record_added(logic.AddDefaultColorLegendDisplayNode(model))
    if legend is not None:
        legend.SetTitleText(_("Intensity ratio"))
        legend.SetLabelFormat("%.2f")
        legend.SetNumberOfLabels(SCALE_PARTS + 1)  # 0.60, 0.80, …, 2.00
        legend.SetVisibility(True)
