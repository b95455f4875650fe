"""Control the section *Results* of the panel: show the scores and the report, use and export models."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from dcamt.errors import DCAMTError
from dcamt.models.store import MODEL_ENDING
from dcamt.recipe_files import load_recipe
from dcamt.runs.state import FINISHED, STOPPED
from DCAMTSlicerLib.engine_messages import error_text
from DCAMTSlicerLib.file_dialogs import choose_file
from DCAMTSlicerLib.installation import ensure_packages, show_error
from DCAMTSlicerLib.plain_text import display_error
from slicer.i18n import tr as _

from ..engine_command import EngineCommand
from ..runs.model_store import export_model, store_model, stored_copy_of, use_model
from ..runs.watch import RunWatch
from .plain_table import ROW_PIXELS, PlainTableModel, fit_height

SCORES = {"dice": 3, "jaccard": 3, "hd95_mm": 2, "asd_mm": 2}
"""Column of a run's validation table -> number of decimals in the panel."""
CASE, CLASS = range(2)
WIDTHS = (90, 50, 60, 80, 74)
"""Widths in pixels of all columns except the first."""
CASE_WIDTH = 120
"""Width in pixels of the first column if there are several classes."""
ROWS = (2, 8)
"""Smallest and largest number of visible rows."""
MEAN, DEVIATION = "mean", "std"
"""Values of the column `case` in the summary rows of a run's validation table."""


class ResultsPanel:
    """Controls the widgets of the section *Results*.

    Args:
        on_model: called after a click on *Use this model*, once the model is in the list of DCAMT Segmentation.
    """

    def __init__(self, ui: Any, on_model: Callable[[], None]) -> None:
        self._ui, self._on_model = ui, on_model
        self._watch: RunWatch | None = None
        self._command: EngineCommand | None = None
        self._models: list[Path] = []
        self._shown_time: float | None = None  # modification time of the shown table
        self._classes: dict[str, str] = {}
        self._scores = PlainTableModel(
            (_("Case"), _("Class"), _("Dice"), _("Jaccard"), _("95HD (mm)"), _("ASD (mm)")), self._cells
        )
        ui.resultsTable.setModel(self._scores)
        ui.resultsTable.horizontalHeader().setSectionResizeMode(CASE, qt.QHeaderView.Stretch)
        ui.resultsTable.verticalHeader().hide()
        ui.resultsTable.verticalHeader().setDefaultSectionSize(ROW_PIXELS)
        fit_height(ui.resultsTable, 0, *ROWS)
        for column, width in enumerate(WIDTHS, start=1):
            ui.resultsTable.setColumnWidth(column, width)
        ui.useModelButton.connect("clicked(bool)", self._on_use)
        ui.exportModelButton.connect("clicked(bool)", self._on_export)
        ui.reportButton.connect("clicked(bool)", self._on_report)

    def set_run(self, watch: RunWatch | None) -> None:
        """Show the results of another run; show none if `watch` is None."""
        self._watch, self._shown_time = watch, None
        self._show_text("")
        self.update()

    def close(self) -> None:
        """Stop background work."""
        if self._command is not None:
            self._command.cancel()
        self._watch = None

    def update(self) -> None:
        """Update the section with the run's results."""
        has_ended = self._watch is not None and self._watch.state.state in (FINISHED, STOPPED)
        run = self._watch.run if self._watch is not None and has_ended else None
        titles = {run.model: _("last model"), run.best: _("best model")} if run is not None else {}
        models = [path for path in titles if os.path.isfile(path)]
        if models != self._models:
            self._models = models
            self._ui.modelSelector.clear()
            for path in models:
                self._ui.modelSelector.addItem(titles[path])
        for widget in (self._ui.modelSelector, self._ui.useModelButton, self._ui.exportModelButton):
            widget.enabled = bool(models)
        self._ui.reportButton.enabled = run is not None and os.path.isfile(run.report)
        self._show_scores()

    def _show_scores(self) -> None:
        run = self._watch.run if self._watch is not None else None
        rows: list[dict[str, str]] = []
        if run is not None and (time := modification_time(run.validation)) is not None:
            if time == self._shown_time and self._scores.rows:
                return
            self._shown_time = time
            self._classes = class_names(run.recipe)
            rows = read_scores(run.validation)
        if rows or self._scores.rows:
            self._scores.show(rows)
            fit_height(self._ui.resultsTable, len(rows), *ROWS)
            self._fit_columns()

    def _fit_columns(self) -> None:
        several = len(self._classes) > 1
        header = self._ui.resultsTable.horizontalHeader()
        self._ui.resultsTable.setColumnHidden(CLASS, not several)
        header.setSectionResizeMode(CASE, qt.QHeaderView.Interactive if several else qt.QHeaderView.Stretch)
        if several:
            self._ui.resultsTable.setColumnWidth(CASE, CASE_WIDTH)

    def _cells(self, row: dict[str, str]) -> list[str]:
        label = row.get("label") or ""
        scores = [score_text(row.get(column) or "", digits) for column, digits in SCORES.items()]
        return [case_text(row), self._classes.get(label, label), *scores]

    def _selected_model(self) -> Path | None:
        index = self._ui.modelSelector.currentIndex
        return self._models[index] if 0 <= index < len(self._models) else None

    def _show_text(self, text: str) -> None:
        self._ui.resultsStatusLabel.text = text
        self._ui.resultsStatusLabel.visible = bool(text)

    def _on_use(self, checked: bool = False) -> None:
        path, watch = self._selected_model(), self._watch
        if path is None or watch is None or (self._command is not None and self._command.running):
            return
        run_name, best = watch.run.path.name, path == watch.run.best
        try:
            ensure_packages()
            known = stored_copy_of(path)
        except DCAMTError as error:
            show_error(error, _("Use this model"))
            return
        if known:
            self._choose_model(known)
            return
        self._show_text(_("Checking the model…"))

        def on_end(message: str) -> None:
            if not message:
                try:
                    self._choose_model(store_model(path, run_name, best))
                except DCAMTError as error:
                    message = error_text(error)
            if message:
                self._show_text(message)

        # The weights are checked in a child process, since the check needs torch.
        self._command = EngineCommand(["models", "verify", str(path)], lambda event: None, on_end)
        self._command.start()

    def _choose_model(self, name: str) -> None:
        if use_model(name):
            text = _("“{name}” is in the list of DCAMT Segmentation, and chosen there.")
        else:
            text = _("“{name}” is in the list of DCAMT Segmentation: choose it there.")
        self._show_text(text.format(name=name))
        self._on_model()

    def _on_export(self, checked: bool = False) -> None:
        path, title = self._selected_model(), _("Export the model")
        if path is None or self._watch is None:
            return
        suggested = f"{self._watch.run.path.name}{MODEL_ENDING}"
        kinds = _("DCAMT models") + f" (*{MODEL_ENDING})"
        target = choose_file(title, suggested, kinds, [MODEL_ENDING])
        if not target:
            return
        try:
            export_model(path, Path(target))
        except (DCAMTError, OSError) as error:
            display_error(error_text(error), title)
        else:
            self._show_text(_("Written: {path}").format(path=target))

    def _on_report(self, checked: bool = False) -> None:
        if self._watch is not None:
            open_in_browser(self._watch.run.report)


def modification_time(path: Path) -> float | None:
    """Return the modification time of a file in seconds; None if there is no such file, or its disk does not answer."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def open_in_browser(path: Path) -> None:
    """Open a file in the user's browser."""
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))


def read_scores(path: Path) -> list[dict[str, str]]:
    """Return the rows of a validation table; an empty list if the table cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    cases = {row.get("case") for row in rows} - {MEAN, DEVIATION}
    # The standard deviation of one case is meaningless.
    return [row for row in rows if row.get("case") != DEVIATION or len(cases) > 1]


def class_names(recipe: Path) -> dict[str, str]:
    """Return label value (as text) -> class name for a run's recipe; empty if the recipe cannot be read."""
    try:
        return {str(info.label): info.name for info in load_recipe(recipe, for_training=False).classes}
    except DCAMTError:
        return {}


def case_text(row: dict[str, str]) -> str:
    """Return a row's text for the column *Case*, for example `p1` or `mean (1 missed)`.

    A class is missed in a case if the label contains the class but the result does not.
    """
    name = row.get("case") or ""
    undefined, cases, missed, empty = (_count(row, column) for column in ("undefined", "cases", "missed", "empty"))
    if name not in (MEAN, DEVIATION):
        return name
    shown = _("SD") if name == DEVIATION else name
    parts = []
    if undefined:
        parts.append(
            _("distances defined in {defined} of {cases} cases").format(defined=cases - undefined, cases=cases)
        )
    if missed:
        parts.append(_("{count} missed").format(count=missed))
    if empty:
        parts.append(
            _("Dice 1 in {count} of {cases} cases, because label and result lack the class").format(
                count=empty, cases=cases
            )
        )
    return f"{shown} ({'; '.join(parts)})" if parts else shown


def _count(row: dict[str, str], column: str) -> int:
    """Return the count in a column; 0 if the table lacks the column, as tables of older versions do."""
    text = row.get(column) or ""
    return int(text) if text.isdecimal() else 0


def score_text(text: str, digits: int) -> str:
    """Return a number with `digits` decimals; return any other text unchanged."""
    try:
        return f"{float(text):.{digits}f}"
    except ValueError:
        return text
