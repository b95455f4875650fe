"""Control the panel's section *Wall*: late enhancement on the surface of a segment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from dcamt.errors import DCAMTError, InputError, fixed_number
from dcamt.io.surfaces import SURFACE_OUTPUTS
from dcamt.wall.analysis import WallResult
from dcamt.wall.burden import OPENING
from dcamt.wall.files import write_wall_csv, write_wall_surface
from dcamt.wall.settings import DEFAULT_THRESHOLD, IIR, MAXIMUM, METHODS_DISAGREE, PRESETS, SD, Threshold
from DCAMTSlicerLib.engine_messages import error_text, translated
from DCAMTSlicerLib.file_dialogs import TABLE_ENDINGS, choose_file
from DCAMTSlicerLib.node_types import CurveNode, Node, SegmentationNode
from DCAMTSlicerLib.plain_text import confirm, display_error
from DCAMTSlicerLib.result_segments import find_dcamt_segments
from slicer.i18n import tr as _

from . import wall_nodes
from .export_dialogs import confirm_outdated_export
from .result_nodes import WALL_MODEL, WALL_TABLE, get_referenced_node
from .review_panel import ROW_PIXELS
from .wall_openings import points_inside

KINDS = (IIR, SD)
ENOUGH_CURVE_POINTS = 120
HEADER_PIXELS = 44
"""Height in pixels of the table's header together with a horizontal scroll bar."""
LIMITS = {IIR: (0.5, 2.5), SD: (0.5, 6.0)}
"""Range of the threshold's slider: a ratio (IIR), or standard deviations above the blood pool's mean (SD)."""


class WallPanel:
    """Shows the wall of a segmentation; new thresholds or openings change the wall without a request to the worker.

    *Openings* are parts of the surface that are not wall: the mitral valve and the ends of the veins.

    Args:
        on_measure: called as on_measure(segment) to start the measurement of a segment of the shown segmentation.

    Attributes:
        can_measure: whether a volume is chosen, the segmentation has a segment, and no job runs.
    """

    def __init__(self, ui: Any, on_measure: Callable[[str], None]) -> None:
        self._ui, self._on_measure = ui, on_measure
        self._segmentation: Any = None
        self._wall: WallResult | None = None
        self._shown_scan = ""  # the measured scan's name when the wall was last shown
        self.can_measure = False
        self._filling = False
        self._segments: dict[str, str] = {}  # identifiers and names
        self._presets = [preset.threshold for preset in PRESETS]
        for preset in PRESETS:
            ui.wallPresetComboBox.addItem(f"{preset.threshold.text} ({translated(preset.source)})")
        ui.wallPresetComboBox.addItem(_("Own threshold"))
        ui.wallPresetComboBox.connect("currentIndexChanged(int)", self._on_preset)
        ui.wallKindComboBox.addItem(_("Intensity ratio"))
        ui.wallKindComboBox.addItem(_("Blood pool mean + SD"))
        ui.wallKindComboBox.connect("currentIndexChanged(int)", self._on_kind)
        ui.wallThresholdSlider.connect("valueChanged(double)", self._on_value)
        ui.wallMeasureButton.connect("clicked(bool)", self._on_measure_clicked)
        ui.wallOpenButton.connect("clicked(bool)", lambda checked=False: self._paint(True))
        ui.wallCloseButton.connect("clicked(bool)", lambda checked=False: self._paint(False))
        ui.wallExportButton.connect("clicked(bool)", self._on_export)
        ui.wallCurveSelector.connect("nodeAddedByUser(vtkMRMLNode*)", start_drawing)
        self._show_threshold(DEFAULT_THRESHOLD)

    def show(self, segmentation: SegmentationNode | None, ready: bool) -> None:
        """Show the wall of a segmentation; without a wall, tell the user how to measure one.

        Args:
            ready: whether a volume is chosen and no job runs.
        """
        ui = self._ui
        self._show_segments(segmentation)
        self.can_measure = ready and bool(self._segments)
        ui.wallMeasureButton.enabled = self.can_measure
        model = get_referenced_node(segmentation, WALL_MODEL)
        threshold_has_effect = ready or model is not None
        for widget in (ui.wallPresetComboBox, ui.wallKindComboBox, ui.wallThresholdSlider):
            widget.enabled = threshold_has_effect
        changed = segmentation is not self._segmentation or (model is None) != (self._wall is None)
        self._segmentation = segmentation
        if changed:
            self.reload()
        elif self._wall is not None and self._present_scan_name() != self._shown_scan:
            self._reload_changed_wall()
            self._show_wall()

    def show_edit(self, segmentation: SegmentationNode) -> None:
        """Mark the wall of an edited segmentation as outdated; show a warning if the segmentation is shown here."""
        wall_nodes.mark_outdated(segmentation)
        if segmentation is self._segmentation:
            self._show_wall()

    def compare_outline(self) -> None:
        """Show a warning if the segment has changed since the wall was measured; otherwise remove the warning."""
        self._reload_changed_wall()
        wall_nodes.update_outdated_mark(self._segmentation)
        self._show_wall()

    def reload(self) -> None:
        """Read the wall of the selected segmentation from the scene, and show the wall."""
        self._wall = wall_nodes.wall_in_scene(self._segmentation)
        if self._wall is not None:
            self._show_threshold(self._wall.settings.threshold)
        self._show_wall()

    def _show_segments(self, segmentation: SegmentationNode | None) -> None:
        """Keep the selection if possible, but select the first DCAMT segment of a new result."""
        names: dict[str, str] = {}
        if segmentation is not None:
            held = segmentation.GetSegmentation()
            names = {identifier: held.GetSegment(identifier).GetName() for identifier in held.GetSegmentIDs()}
        if [*names.items()] == [*self._segments.items()]:
            return
        combo_box, chosen = self._ui.wallSegmentComboBox, self.chosen_segment()
        # Identifiers such as Segment_1 recur in other segmentations, so the name must be the same, too.
        if segmentation is not self._segmentation and names.get(chosen) != self._segments.get(chosen):
            chosen = ""
        dcamt_segments = list(find_dcamt_segments(segmentation)) if segmentation is not None else []
        is_new_result = self._segments.keys().isdisjoint(dcamt_segments)
        if dcamt_segments and (is_new_result or chosen not in names):
            chosen = dcamt_segments[0]
        self._segments = names
        combo_box.clear()
        for name in names.values():
            combo_box.addItem(name)
        if chosen in names:
            combo_box.setCurrentIndex([*names].index(chosen))

    def chosen_segment(self) -> str:
        """Return the identifier of the segment selected in the list; "" if the list is empty."""
        index = self._ui.wallSegmentComboBox.currentIndex
        return [*self._segments][index] if 0 <= index < len(self._segments) else ""

    def threshold(self) -> Threshold:
        """Return the shown threshold."""
        index = self._ui.wallPresetComboBox.currentIndex
        return self._presets[index] if index < len(self._presets) else self._own_threshold()

    def _own_threshold(self) -> Threshold:
        kind = KINDS[self._ui.wallKindComboBox.currentIndex]
        return Threshold(kind, round(float(self._ui.wallThresholdSlider.value), 2))

    def _show_threshold(self, threshold: Threshold) -> None:
        ui, self._filling = self._ui, True
        is_preset = threshold in self._presets
        ui.wallPresetComboBox.setCurrentIndex(self._presets.index(threshold) if is_preset else len(self._presets))
        ui.wallKindComboBox.setCurrentIndex(KINDS.index(threshold.kind))
        ui.wallThresholdSlider.minimum, ui.wallThresholdSlider.maximum = LIMITS[threshold.kind]
        ui.wallThresholdSlider.value = threshold.value
        self._filling = False

    def _on_preset(self, index: int) -> None:
        if not self._filling and index < len(self._presets):
            self._apply(self._presets[index])

    def _on_kind(self, index: int) -> None:
        if not self._filling:
            kind = KINDS[index]
            self._apply(next(threshold for threshold in self._presets if threshold.kind == kind))

    def _on_value(self, value: float) -> None:
        if not self._filling:
            self._apply(self._own_threshold())

    def _apply(self, threshold: Threshold) -> None:
        self._reload_changed_wall()
        self._show_threshold(threshold)
        if self._wall is not None:
            self._change_wall(wall_nodes.with_threshold(self._wall, threshold))

    def _reload_changed_wall(self) -> None:
        if self._wall is None or wall_nodes.is_in_scene(self._wall, self._segmentation):
            return
        self.reload()
        if self._wall is not None:
            wall_nodes.show_wall(self._wall, self._segmentation)

    def _change_wall(self, wall: WallResult) -> None:
        wall_nodes.separate_wall(wall, self._segmentation)
        wall_nodes.show_wall(wall, self._segmentation)
        self._wall = wall
        self._show_wall()

    def _show_wall(self) -> None:
        ui, wall = self._ui, self._wall
        self._shown_scan = self._present_scan_name()
        table = get_referenced_node(self._segmentation, WALL_TABLE) if wall is not None else None
        if ui.wallTable.mrmlTableNode() is not table:
            ui.wallTable.setMRMLTableNode(table)
        if table is not None:
            ui.wallTable.resizeColumnsToContents()
            ui.wallTable.setFixedHeight(HEADER_PIXELS + table.GetNumberOfRows() * ROW_PIXELS)
        ui.wallTable.visible = table is not None
        for button in (ui.wallOpenButton, ui.wallCloseButton, ui.wallExportButton):
            button.enabled = wall is not None
        ui.wallLabel.text = (
            self._wall_text(wall) if wall is not None else _("No wall yet: choose a segment and press Measure wall.")
        )

    def _wall_text(self, wall: WallResult) -> str:
        burden = wall.burden
        text = _("{percent}% of the wall is enhanced ({enhanced} of {area} cm²): DECAAF stage {stage} by {method}.")
        if not burden.wall_cm2:
            text = _("No wall is left: all of the surface belongs to openings or lies at the scan's border.")
        text = text.format(
            percent=burden.percent_text,
            enhanced=f"{burden.enhanced_cm2:.1f}",
            area=f"{burden.wall_cm2:.1f}",
            stage=wall.stage,
            method=_method_text(wall),
        )
        measured = _("Measured in {scan}.").format(scan=self._scan_name(wall))
        notes = [*map(translated, wall.notes), translated(METHODS_DISAGREE)]
        if not wall.proposed:
            notes.insert(0, _("Corrected openings: {area} cm².").format(area=fixed_number(wall.area_cm2(OPENING), 1)))
        return "\n".join([*self._warnings(), text, measured, *notes])

    def _scan_name(self, wall: WallResult) -> str:
        return self._present_scan_name() or wall.scan

    def _present_scan_name(self) -> str:
        volume = wall_nodes.measured_volume(self._segmentation)
        return str(volume.GetName()) if volume is not None else ""

    def _warnings(self) -> list[str]:
        warnings = []
        if wall_nodes.is_wall_outdated(self._segmentation):
            warnings.append(_("The outline was changed after the measurement: press Measure wall again."))
        elif wall_nodes.is_surface_elsewhere(self._segmentation):
            warnings.append(_("The wall's surface no longer lies on the outline: press Measure wall again."))
        if wall_nodes.is_scan_changed(self._segmentation):
            warnings.append(_("The voxels of the scan were changed after the measurement: press Measure wall again."))
        return warnings

    def _on_measure_clicked(self, checked: bool = False) -> None:
        if self._wall is not None and not self._wall.proposed:
            question = _("The openings of this wall were corrected. Measure the wall again, with new openings?")
            if not confirm(question, _("Replace corrected openings")):
                return
        self._on_measure(self.chosen_segment())

    def _paint(self, is_opening: bool) -> None:
        """Change the points inside the closed curve to an opening, or back to wall."""
        curve, title = self._ui.wallCurveSelector.currentNode(), _("Openings of the wall")
        if curve is None or curve.GetNumberOfDefinedControlPoints() < 3:
            message = _(
                "Draw a closed curve first: create it in the list of curves, and place 3 or more points on the surface."
            )
            display_error(message, title)
            return
        self._reload_changed_wall()
        wall, model = self._wall, get_referenced_node(self._segmentation, WALL_MODEL)
        if wall is None or model is None:
            return
        inside = points_inside(wall.surface, curve_in_space_of(curve, model))
        if not inside.any():
            message = _("The curve encloses no part of the surface. Draw the curve on the surface, around the opening.")
            display_error(message, title)
            return
        openings = (wall.kind == OPENING) | inside if is_opening else (wall.kind == OPENING) & ~inside
        self._change_wall(wall.with_openings(openings))

    def _on_export(self, checked: bool = False) -> None:
        title = _("Export the wall")
        self.compare_outline()
        if self._wall is None:  # The wall was removed from the scene or became unreadable.
            return
        wall = replace(self._wall, scan=self._scan_name(self._wall))
        if not confirm_outdated_export(" ".join(self._warnings()), title):
            return
        kinds = _("Table") + " (*.csv);;" + _("Surface") + " (*.vtp *.stl *.obj *.ply)"
        path = choose_file(title, f"{wall.scan}.wall.csv", kinds)
        if not path:
            return
        try:
            write_table_or_surface(wall, Path(path))
        except DCAMTError as error:
            display_error(error_text(error), title)


def write_table_or_surface(wall: WallResult, path: Path) -> None:
    """Write a wall's table or its surface, as the file's ending says.

    Raises:
        InputError: the ending is neither that of a table nor that of a surface.
        OutputError: the file cannot be written.
    """
    kind = path.suffix.lower()
    if kind in TABLE_ENDINGS:
        write_wall_csv([wall], path)
    elif kind in SURFACE_OUTPUTS:
        write_wall_surface(wall, path)
    else:
        what = _("does not have the ending of a table or surface")
        remedy = _("Use {table} for a table, or {surfaces} for a surface.")
        remedy = remedy.format(table=TABLE_ENDINGS[0], surfaces=", ".join(SURFACE_OUTPUTS))
        raise InputError(str(what), path=path, remedy=remedy)


def _method_text(wall: WallResult) -> str:
    """Return `dcamt.wall.files.method_text` in the application's language."""
    settings = wall.settings
    text = _("{threshold} (ratio {ratio}), maximum intensity from {first} to {last} mm along the surface's normal")
    if settings.sample != MAXIMUM:
        text = _("{threshold} (ratio {ratio}), mean intensity from {first} to {last} mm along the surface's normal")
    return str(
        text.format(
            threshold=settings.threshold.text,
            ratio=f"{wall.threshold_ratio(settings.threshold):.3f}",
            first=f"{settings.from_mm:g}",
            last=f"{settings.to_mm:g}",
        )
    )


def start_drawing(curve: CurveNode) -> None:
    """Let the next clicks in a view place the points of a new curve."""
    curve.CreateDefaultDisplayNodes()
    markups = slicer.modules.markups.logic()
    markups.SetActiveList(curve)
    markups.StartPlaceMode(True)


def curve_in_space_of(curve: CurveNode, node: Node) -> np.ndarray:
    """Return points (P, 3) along a closed Markups curve, in mm in a node's space."""
    points = curve.GetCurvePointsWorld()
    local = [0.0, 0.0, 0.0]
    positions = []
    for index in range(points.GetNumberOfPoints()):
        node.TransformPointFromWorld(points.GetPoint(index), local)
        positions.append(list(local))
    step = max(1, len(positions) // ENOUGH_CURVE_POINTS)
    return np.array(positions[::step])
