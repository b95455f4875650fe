"""The part of the panel for what comes after a run: its scores, its report, and its models' way on."""
# ruff: noqa: N802, N803

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from dcamt.errors import DCAMTError
from dcamt.io.atomic import atomic_path
from dcamt.models.package import read_card
from dcamt.models.store import ENDING, stored_models
from dcamt.recipe import load_recipe
from dcamt.runs.state import FINISHED, STOPPED
from slicer.i18n import tr as _

from ..runs.engine_command import EngineCommand
from ..runs.segmentation_model import use_model
from ..runs.watch import RunWatch
from .plain_table import PlainTableModel

SCORES = ("dice", "jaccard", "hd95_mm", "asd_mm")
WIDTHS = (96, 56, 64, 84, 84)
"""Pixels of the columns but the first, which takes the rest."""


class ResultsPanel:
    """Drives the widgets of the section Results; `onModel(name)` hears that a model has come into the store."""

    def __init__(self, ui: Any, onModel: Callable[[str], None]) -> None:
        self._ui, self._onModel = ui, onModel
        self._watch: RunWatch | None = None
        self._command: EngineCommand | None = None
        self._models: list[Path] = []
        self._stamp: tuple[str, float] | None = None
        self._classes: dict[str, str] = {}
        self._scores = PlainTableModel(
            (_("Case"), _("Class"), _("Dice"), _("Jaccard"), _("95HD (mm)"), _("ASD (mm)")), self._cells
        )
        ui.resultsTable.setModel(self._scores)
        ui.resultsTable.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column, width in enumerate(WIDTHS, start=1):
            ui.resultsTable.setColumnWidth(column, width)
        ui.useModelButton.connect("clicked(bool)", self._onUse)
        ui.exportModelButton.connect("clicked(bool)", self._onExport)
        ui.reportButton.connect("clicked(bool)", self._onReport)

    def setRun(self, watch: RunWatch | None) -> None:
        self._watch, self._stamp = watch, None
        self._ui.resultsStatusLabel.text = ""
        self.look()

    def close(self) -> None:
        if self._command is not None:
            self._command.cancel()
        self._watch = None

    def look(self) -> None:
        """The run may have ended meanwhile."""
        watch = self._watch
        ended = watch is not None and watch.state.state in (FINISHED, STOPPED)
        models = [watch.run.model, watch.run.best] if ended and watch is not None else []
        models = [path for path in models if path.is_file()]
        if models != self._models:
            self._models = models
            self._ui.modelSelector.clear()
            for path in models:
                last = watch is not None and path == watch.run.model
                self._ui.modelSelector.addItem(_("last model") if last else _("best model"))
        for widget in (self._ui.modelSelector, self._ui.useModelButton, self._ui.exportModelButton):
            widget.enabled = bool(models)
        self._ui.reportButton.enabled = watch is not None and ended and watch.run.report.is_file()
        self._showScores()

    def _showScores(self) -> None:
        path = self._watch.run.validation if self._watch is not None else None
        stamp = (str(path), path.stat().st_mtime) if path is not None and path.is_file() else None
        if stamp == self._stamp and self._scores.rows:
            return
        self._stamp = stamp
        rows: list[dict[str, str]] = []
        if stamp is not None and path is not None and self._watch is not None:
            self._classes = class_names(self._watch.run.recipe)
            try:
                with path.open(newline="", encoding="utf-8") as file:
                    rows = list(csv.DictReader(file))
            except (OSError, UnicodeDecodeError, csv.Error):
                rows = []
        if rows or self._scores.rows:
            self._scores.show(rows)

    def _cells(self, row: dict[str, str]) -> list[str]:
        label = row.get("label", "")
        scores = [score_text(row.get(column, "")) for column in SCORES]
        return [row.get("case", ""), self._classes.get(label, label), *scores]

    def _chosen(self) -> Path | None:
        index = self._ui.modelSelector.currentIndex
        return self._models[index] if 0 <= index < len(self._models) else None

    def _say(self, text: str) -> None:
        self._ui.resultsStatusLabel.text = text

    def _onUse(self, checked: bool = False) -> None:
        path, title = self._chosen(), _("Use this model")
        if path is None or (self._command is not None and self._command.running):
            return
        try:
            name = read_card(path).name
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=title)
            return
        there = next((model for model in stored_models() if model.name == name), None)
        if there is not None and there.shipped:
            text = _("A model “{name}” comes with DCAMT and stays. Train under another name, or export the model.")
            self._say(text.format(name=name))
            return
        question = _("A model “{name}” is in the list already. Replace it by this one?").format(name=name)
        if there is None or slicer.util.confirmOkCancelDisplay(question, title):
            self._import(path, name, ["--replace"] if there is not None else [])

    def _import(self, path: Path, name: str, options: list[str]) -> None:
        self._say(_("Checking the model…"))

        def ended(message: str) -> None:
            if message:
                self._say(message)
                return
            chosen = use_model(name)
            text = (
                _("“{name}” is in the list of DCAMT Segmentation, and chosen there.")
                if chosen
                else _("“{name}” is in the list of DCAMT Segmentation: choose it there.")
            )
            self._say(text.format(name=name))
            self._onModel(name)

        # In a process of its own: to check a model's weights needs torch.
        self._command = EngineCommand(["models", "import", str(path), *options], lambda event: None, ended)

    def _onExport(self, checked: bool = False) -> None:
        path, title = self._chosen(), _("Export the model")
        if path is None or self._watch is None:
            return
        proposal = f"{self._watch.run.path.name}{ENDING}"
        target = qt.QFileDialog.getSaveFileName(None, title, proposal, _("DCAMT models") + f" (*{ENDING})")
        if not target:
            return
        try:
            with atomic_path(target) as partial:
                shutil.copyfile(path, partial)
        except (DCAMTError, OSError) as error:
            slicer.util.errorDisplay(str(error), windowTitle=title)
        else:
            self._say(_("Written: {path}").format(path=target))

    def _onReport(self, checked: bool = False) -> None:
        if self._watch is not None:
            open_in_browser(self._watch.run.report)


def open_in_browser(path: Path) -> None:
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))


def class_names(recipe: Path) -> dict[str, str]:
    """The classes of a run by their labels, as its table of scores writes them; none if its recipe cannot be read."""
    try:
        return {str(info.label): info.name for info in load_recipe(recipe).classes}
    except DCAMTError:
        return {}


def score_text(text: str) -> str:
    """A number with the digits that count; anything else as it is."""
    try:
        return f"{float(text):.3f}"
    except ValueError:
        return text
