"""Show a result's measurements, trust and doubtful places, and start its correction or make it a training case."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import slicer
from dcamt.errors import DCAMTError
from dcamt.geometry import CUT_BY_REGION
from dcamt.metrics.doubtful_places import MOST_PLACES
from dcamt.models.calibration import ExpectedOverlap
from DCAMTSlicerLib.engine_messages import error_text, translated
from DCAMTSlicerLib.file_dialogs import TABLE_ENDINGS, choose_file
from DCAMTSlicerLib.node_types import SegmentationNode, TableNode
from DCAMTSlicerLib.plain_text import display_error, tooltip
from DCAMTSlicerLib.segment_editor import open_in_segment_editor
from slicer.i18n import tr as _

from . import correction_marks, measurements_table, result_scan, review, stored_places, training_cases, views
from .doubt_map import doubt_map_of, is_map_elsewhere
from .export_dialogs import confirm_outdated_export
from .result_nodes import MEASUREMENTS, VOLUME, get_referenced_node

GOOD_TRUST = 0.8
ROW_PIXELS = 22
"""Height of a row in the panel's tables, as set in `DCAMTSegmentation.ui`."""


class ReviewPanel:
    """Shows one segmentation node at a time; the buttons are disabled if the node contains no result."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._node: SegmentationNode | None = None
        ui.copyButton.connect("clicked(bool)", self.on_copy)
        ui.exportButton.connect("clicked(bool)", self.on_export)
        ui.nextPlaceButton.connect("clicked(bool)", self.on_next_place)
        ui.correctButton.connect("clicked(bool)", self.on_correct)
        ui.trainingCaseButton.connect("clicked(bool)", self.on_add_training_case)

    @property
    def has_measurements(self) -> bool:
        """Whether the shown node has a table of measurements."""
        return get_referenced_node(self._node, MEASUREMENTS) is not None

    def show(self, segmentation: SegmentationNode | None) -> None:
        """Show the result of a node; without a result, ask the user to segment a volume."""
        ui, changed = self._ui, segmentation is not self._node
        self._node = segmentation
        table = get_referenced_node(segmentation, MEASUREMENTS)
        self._show_table(table)
        ui.copyButton.enabled = ui.exportButton.enabled = table is not None
        ui.resultLabel.text = self._result_text(table)
        ui.resultLabel.visible = bool(ui.resultLabel.text)
        model = review.model_title(segmentation)
        ui.resultLabel.toolTip = tooltip(_("Segmented with the model {model}.").format(model=model) if model else "")
        ui.trustLabel.text = self._trust_text()
        ui.doubtCheckBox.enabled = doubt_map_of(segmentation) is not None
        ui.nextPlaceButton.enabled = stored_places.place_count(segmentation) > 0
        volume = get_referenced_node(segmentation, VOLUME)
        ui.correctButton.enabled = ui.trainingCaseButton.enabled = volume is not None
        # The text of `placeLabel` may describe a place of another node, or of the earlier result in this node.
        if changed or not stored_places.has_visited_place(segmentation):
            ui.placeLabel.text = ""
        ui.trainingCaseLabel.text = _("This is a training case.") if training_cases.is_case(segmentation) else ""
        ui.trainingCaseLabel.visible = bool(ui.trainingCaseLabel.text)

    def _show_table(self, table: TableNode | None) -> None:
        view = self._ui.measurementsTable
        view.visible = table is not None
        is_new = view.mrmlTableNode() is not table
        if is_new:
            view.setMRMLTableNode(table)
        if table is None:
            return
        if is_new:
            # These settings need a table node, so the .ui file cannot make them.
            view.transposed = True
            view.resizeColumnsToContents()
        # The view is transposed: its rows are the table's columns. Hide rows at each update: when the table node gets
        # new measurements, the view shows all rows again. Hide the scan's name and, if there is only one segment, the
        # segment's name, since `resultLabel` shows these names.
        hidden = 2 if table.GetNumberOfRows() == 1 else 1
        for row in range(table.GetNumberOfColumns()):
            view.setRowHidden(row, row < hidden)
        shown = max(0, table.GetNumberOfColumns() - hidden)
        view.setFixedHeight(shown * ROW_PIXELS + 4)

    def _result_text(self, table: TableNode | None) -> str:
        volume = get_referenced_node(self._node, VOLUME)
        if volume is None:
            return ""
        rows = measurements_table.rows_of(table, volume) if table is not None else []
        segments = ", ".join(_segment_text(row) for row in rows)
        return f"{volume.GetName()}: {segments}"

    def _trust_text(self) -> str:
        if get_referenced_node(self._node, VOLUME) is None:
            if self.has_measurements:
                return " ".join([_("The scan of this result is not in the scene."), self._outdated_text()]).rstrip()
            return str(_("No result yet: choose a volume and press Apply."))
        trust, expected = review.trust(self._node), review.expected_overlap(self._node)
        sentences = []
        if expected is not None:
            sentences += _expected_overlap_sentences(expected, None if trust is None else self._places_text())
        if trust is None:
            sentences.append(_("Doubtful places and a map of doubt need quality “Accurate”."))
        elif expected is None:
            text = _("Agreement of the branches: {percent}; {places}.")
            if trust < GOOD_TRUST and not stored_places.place_count(self._node):
                text = _("Agreement of the branches: only {percent}; {places}. Check the whole segmentation.")
            sentences.append(text.format(percent=f"{trust:.0%}", places=self._places_text()))
        if (expected is not None or trust is not None) and correction_marks.is_corrected(self._node):
            sentences.append(_("These values describe the outline before its correction."))
        region = review.region_name(self._node)
        if region is not None:
            sentences.append(_("Only the region “{region}” was segmented.").format(region=region))
        if review.is_cut_by_region(self._node):
            sentences.append(translated(CUT_BY_REGION))
        if result_scan.is_scan_changed(self._node):
            sentences.append(_("The voxels of the scan were changed after the segmentation: press Apply again."))
        elif correction_marks.is_moved(self._node):
            text = _("The segmentation no longer lies on its scan: give both the same transform, or press Apply again.")
            sentences.append(text)
        elif is_map_elsewhere(self._node):
            sentences.append(_("The map of doubt no longer lies on the scan. Give both the same transform."))
        return " ".join([*sentences, self._outdated_text()]).rstrip()

    def _outdated_text(self) -> str:
        if not correction_marks.is_outdated(self._node):
            return ""
        return str(_("The segmentation may have changed since the measurement: measure again."))

    def _confirm_export(self, title: str) -> bool:
        assert self._node is not None
        correction_marks.update_correction_marks(self._node)
        return confirm_outdated_export(self._outdated_text(), title)

    def _places_text(self) -> str:
        count = stored_places.place_count(self._node)
        if not count:
            return str(_("no doubtful place"))
        if count >= MOST_PLACES:
            return str(_("{count} or more doubtful places").format(count=count))
        return str(_("one doubtful place") if count == 1 else _("{count} doubtful places").format(count=count))

    def on_copy(self, checked: bool = False) -> None:
        if not self._confirm_export(_("Copy measurements")):
            return
        table, volume = (get_referenced_node(self._node, role) for role in (MEASUREMENTS, VOLUME))
        slicer.app.clipboard().setText(measurements_table.as_text(table, volume))

    def on_export(self, checked: bool = False) -> None:
        table: TableNode = get_referenced_node(self._node, MEASUREMENTS)
        title = _("Export measurements")
        if not self._confirm_export(title):
            return
        path = choose_file(title, f"{table.GetName()}.csv", "CSV (*.csv)", TABLE_ENDINGS)
        if not path:
            return
        try:
            volume = get_referenced_node(self._node, VOLUME)
            measurements_table.export_csv(table, volume, Path(path))
        except DCAMTError as error:
            display_error(error_text(error), title)

    def on_next_place(self, checked: bool = False) -> None:
        volume = get_referenced_node(self._node, VOLUME)
        if volume is not None:
            views.show_scan(volume)
        number, place = stored_places.next_place(self._node)
        count = stored_places.place_count(self._node)
        text = _("{number} of {count}: {volume} mL in doubt").format(
            number=number, count=count, volume=f"{place.volume_ml:.2f}"
        )
        # The point's own text is short, so that it does not overlap the map's colour legend.
        views.show_point(self._node, place.position, _("{number} of {count}").format(number=number, count=count))
        self._ui.placeLabel.text = text

    def on_correct(self, checked: bool = False) -> None:
        volume = get_referenced_node(self._node, VOLUME)
        # If the slice views did not show this volume, Segment Editor would replace all their layers, including the map
        # of doubt.
        views.show_scan(volume)
        open_in_segment_editor(self._node, volume, back_to="DCAMTSegmentation")

    def on_add_training_case(self, checked: bool = False) -> None:
        case = training_cases.add_result(self._node)
        volumes = (case.volume, *result_scan.present_channels_of(self._node))
        text = _("{volume} with this segmentation is a training case now: the DCAMT Training module lists it.")
        lines = [text.format(volume=", ".join(node.GetName() for node in volumes))]
        if result_scan.is_scan_changed(self._node) or correction_marks.is_moved(self._node):
            lines.append(_("The scan was changed or moved after the segmentation: check that the outline still fits."))
        try:
            result_scan.channels_of(self._node)
        except DCAMTError as error:
            lines += [_("A model of several channels cannot be trained with this case:"), error_text(error)]
        if correction_marks.was_only_copied(self._node):
            lines.append(_("The result was not corrected. Check it before training on it."))
        self._ui.trainingCaseLabel.text = "\n".join(lines)
        self._ui.trainingCaseLabel.visible = True


def _expected_overlap_sentences(expected: ExpectedOverlap, places: str | None) -> list[str]:
    numbers = {name: f"{value:.2f}" for name, value in asdict(expected).items()}
    overlap = _("{value} ({low} to {high})").format(**numbers)
    text = _("Expected overlap with an expert's outline: {overlap}").format(overlap=overlap)
    text += _("; {places}.").format(places=places) if places is not None else "."
    return [text, _("This outline is probably wrong: check all of it.")] if expected.is_low else [text]


def _segment_text(row: dict[str, str]) -> str:
    volume = row["volume_ml"]
    return f"{row['segment']} {volume} mL" if volume else row["segment"]
