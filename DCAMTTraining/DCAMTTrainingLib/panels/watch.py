"""The part of the panel that shows how a run learns: its charts, and a validation case as it improves."""
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import slicer
from dcamt.cases.case_list import VALIDATION, listed_cases
from dcamt.errors import DCAMTError
from dcamt.recipe import Recipe, load_recipe
from dcamt.runs.folder import RunFolder
from dcamt.training.preview import choose_preview, chosen_preview, read_preview
from DCAMTSlicerLib.stepped_task import SteppedTask, error_text
from slicer.i18n import tr as _

from ..cases.rows import SceneScan
from ..cases.store import SLICE
from ..runs.charts import LOSSES, SCORES
from ..runs.preview import remove_preview, show_preview
from ..runs.watch import RunWatch
from ..session import TrainingSession


class WatchPanel:
    """Drives the widgets of the section Watch."""

    def __init__(self, ui: Any, session: TrainingSession) -> None:
        self._ui, self._session = ui, session
        self._watch: RunWatch | None = None
        self._recipe: Recipe | None = None
        self._cases: list[str] = []
        self._shown: tuple[str, str, int] | None = None
        self._loading: SteppedTask | None = None
        self._listing: SteppedTask | None = None
        self._filling = False
        ui.lossesButton.connect("clicked(bool)", lambda checked=False: self._showChart(LOSSES))
        ui.scoresButton.connect("clicked(bool)", lambda checked=False: self._showChart(SCORES))
        ui.previewSelector.connect("currentIndexChanged(int)", self._onPreviewCase)

    def setRun(self, watch: RunWatch | None) -> None:
        self._stopLoading()
        self._watch, self._recipe, self._shown = watch, None, None
        self._listCases()
        self.look()

    def close(self) -> None:
        self._stopLoading()
        if self._listing is not None:
            self._listing.cancel()
        self._watch = None

    def sceneClosed(self) -> None:
        """What was shown is gone with the scene."""
        self._stopLoading()
        self._shown = None

    def look(self) -> None:
        """Something may be new."""
        watch = self._watch
        self._ui.lossesButton.enabled = watch is not None and bool(watch.curves.losses)
        self._ui.scoresButton.enabled = watch is not None and bool(watch.curves.dice)
        if watch is None:
            self._ui.previewStatusLabel.text = ""
            return
        if self._recipe is None:
            self._listCases()
        preview = read_preview(watch.run)
        wanted = chosen_preview(watch.run)
        if wanted is None or self._recipe is None:
            self._ui.previewStatusLabel.text = ""
            return
        if preview is None or preview.case != wanted:
            self._ui.previewStatusLabel.text = _("The case appears with the next validation.")
            return
        key = (watch.run.path.name, preview.case, preview.step)
        if key != self._shown and (self._loading is None or not self._loading.running):
            self._shown = key
            steps = show_preview(preview, self._recipe, watch.run.path.name, self._sceneVolume(preview.case))
            self._loading = SteppedTask(steps, self._onShown).start()

    def _onShown(self, error: Exception | None) -> None:
        if error is not None:
            self._ui.previewStatusLabel.text = error_text(error)
        elif self._shown is not None:
            text = _("Shown as after iteration {step}.").format(step=self._shown[2])
            self._ui.previewStatusLabel.text = text

    def _showChart(self, kind: str) -> None:
        if self._watch is not None:
            self._watch.charts.update(self._watch.curves)
            self._watch.charts.show(kind)

    def _sceneVolume(self, case: str) -> Any | None:
        for row in self._session.table.rows:
            if row.name == case and isinstance(row.source, SceneScan):
                return slicer.mrmlScene.GetNodeByID(row.source.volume)
        return None

    def _listCases(self) -> None:
        """The run's validation cases, once its process has begun the run."""
        self._filling = True
        self._ui.previewSelector.clear()
        self._ui.previewSelector.addItem(_("none"))
        self._ui.previewSelector.enabled = False
        self._filling = False
        self._cases = []
        if self._listing is not None:
            self._listing.cancel()
        watch = self._watch
        if watch is not None and watch.run.recipe.exists():
            try:
                self._recipe = load_recipe(watch.run.recipe)
            except DCAMTError:
                return
            self._listing = SteppedTask(self._readCases(watch.run), lambda error: self._showCases()).start()

    def _readCases(self, run: RunFolder) -> Generator[None, None, None]:
        """The names of the run's validation cases; whether their files are still there does not matter."""
        for number, case in enumerate(listed_cases(run.cases), start=1):
            if case.role == VALIDATION:
                self._cases.append(case.name)
            if number % SLICE == 0:
                yield

    def _showCases(self) -> None:
        if self._watch is None:
            return
        self._filling = True
        for name in self._cases:
            self._ui.previewSelector.addItem(name)
        chosen = chosen_preview(self._watch.run)
        if chosen in self._cases:
            self._ui.previewSelector.setCurrentIndex(self._cases.index(chosen) + 1)
        self._ui.previewSelector.enabled = bool(self._cases)
        self._filling = False

    def _onPreviewCase(self, index: int) -> None:
        if self._filling or self._watch is None:
            return
        run = self._watch.run
        try:
            choose_preview(run, self._cases[index - 1] if index > 0 else None)
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=_("Preview"))
        if index <= 0:
            self._stopLoading()
            self._shown = None
            remove_preview(run.path.name)
        self.look()

    def _stopLoading(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            self._loading = None
