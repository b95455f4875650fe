"""Control the section *Watch* of the panel: charts of a run, and the current segmentation of a validation case."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import slicer
from dcamt.cases.case_list import VALIDATION, iterate_cases
from dcamt.errors import DCAMTError
from dcamt.recipe import Recipe
from dcamt.recipe_files import load_recipe
from dcamt.runs.folder import RunFolder
from dcamt.runs.preview import choose_preview, chosen_preview, read_preview
from dcamt.runs.state import RUNNING, RunState
from DCAMTSlicerLib.engine_messages import error_text
from DCAMTSlicerLib.plain_text import display_error
from DCAMTSlicerLib.stepped_task import DelayedCall, SteppedTask
from slicer.i18n import tr as _

from ..cases.rows import SceneScan
from ..cases.store import ROWS_PER_STEP
from ..runs.charts import LOSSES, SCORES
from ..runs.preview import remove_preview, save_used_nodes, show_preview
from ..runs.watch import RunWatch
from ..session import TrainingSession

USE_MS = 500
"""Milliseconds between two calls of `save_used_nodes`."""


class WatchPanel:
    """Controls the widgets of the section *Watch*."""

    def __init__(self, ui: Any, session: TrainingSession) -> None:
        self._ui, self._session = ui, session
        self._watch: RunWatch | None = None
        self._recipe: Recipe | None = None
        self._cases: list[str] = []
        self._shown: tuple[str, str, int] | None = None
        self._loading: SteppedTask | None = None
        self._listing: SteppedTask | None = None
        self._next_save = DelayedCall(self._save_used_nodes)
        self._filling = False
        self._selected = 0
        self._restores_choice = True
        self._was_running = False
        ui.lossesButton.connect("clicked(bool)", lambda checked=False: self._show_chart(LOSSES))
        ui.scoresButton.connect("clicked(bool)", lambda checked=False: self._show_chart(SCORES))
        ui.previewSelector.connect("currentIndexChanged(int)", self._on_preview_case)

    def set_run(self, watch: RunWatch | None) -> None:
        """Show another run, or none."""
        self._stop_loading()
        self.hide_charts()
        self._watch, self._recipe, self._shown = watch, None, None
        self._was_running, self._restores_choice = False, True
        self._list_cases()
        self.update()
        self._next_save.start(USE_MS)

    def close(self) -> None:
        """Stop background work and remove the charts."""
        self._next_save.close()
        self._stop_loading()
        if self._listing is not None:
            self._listing.cancel()
        self.hide_charts()
        self._watch = None

    def hide_charts(self) -> None:
        """Remove the charts, and restore the layout that they changed."""
        if self._watch is not None:
            self._watch.charts.hide()

    def on_scene_closing(self) -> None:
        """Remove the charts, and stop loading a preview."""
        self.hide_charts()
        self._stop_loading()
        self._shown = None

    def on_scene_closed(self) -> None:
        """Reset the preview selector to "none", so that the next scene shows no preview.

        The run continues to write previews of the case that was selected before.
        """
        self._restores_choice = False
        self._select(0)

    def update(self) -> None:
        """Update the chart buttons and the preview."""
        watch = self._watch
        self._ui.lossesButton.enabled = watch is not None and bool(watch.curves.losses)
        self._ui.scoresButton.enabled = watch is not None and bool(watch.curves.dice)
        if watch is None:
            self._show_text("")
            return
        running = watch.state.state == RUNNING
        if self._was_running and not running:
            self.hide_charts()
        self._was_running = running
        if self._recipe is None:
            self._list_cases()
        self._update_preview(watch)

    def _save_used_nodes(self) -> None:
        """Call `save_used_nodes` every `USE_MS`, even without a run: the scene may hold previews of an earlier run."""
        self._next_save.start(USE_MS)
        save_used_nodes()

    def _update_preview(self, watch: RunWatch) -> None:
        preview = read_preview(watch.run)
        wanted = chosen_preview(watch.run)
        if wanted is None or self._recipe is None or self._ui.previewSelector.currentIndex < 1:
            self._show_text("")
            return
        if preview is None or preview.case != wanted:
            self._show_text(missing_preview_text(watch.state))
            # Reset, so that the previous case's preview is loaded again if the user returns to that case.
            self._shown = None
            return
        key = (watch.run.path.name, preview.case, preview.step)
        if key != self._shown and (self._loading is None or not self._loading.running):
            self._shown = key
            steps = show_preview(preview, self._recipe, watch.run.path.name, self._scene_volume(preview.case))
            self._loading = SteppedTask(steps, self._on_shown).start()

    def _on_shown(self, error: Exception | None) -> None:
        if error is not None:
            self._show_text(error_text(error))
        elif self._shown is not None:
            text = _("Segmentation after iteration {step}.").format(step=self._shown[2])
            self._show_text(text)

    def _show_text(self, text: str) -> None:
        self._ui.previewStatusLabel.text = text
        self._ui.previewStatusLabel.visible = bool(text)

    def _show_chart(self, kind: str) -> None:
        if self._watch is not None:
            self._watch.charts.show(kind, self._watch.curves)

    def _scene_volume(self, case: str) -> Any | None:
        for row in self._session.table.rows:
            if row.name == case and isinstance(row.source, SceneScan):
                return slicer.mrmlScene.GetNodeByID(row.source.volume)
        return None

    def _list_cases(self) -> None:
        self._filling = True
        self._ui.previewSelector.clear()
        self._ui.previewSelector.addItem(_("none"))
        self._ui.previewSelector.enabled = False
        self._filling = False
        self._selected, self._cases = 0, []
        if self._listing is not None:
            self._listing.cancel()
        watch = self._watch
        if watch is not None and os.path.exists(watch.run.recipe):
            try:
                self._recipe = load_recipe(watch.run.recipe, for_training=False)
            except DCAMTError:
                return
            self._listing = SteppedTask(self._read_cases(watch.run), lambda error: self._show_cases()).start()

    def _read_cases(self, run: RunFolder) -> Generator[None, None, None]:
        for number, case in enumerate(iterate_cases(run.cases), start=1):
            if case.role == VALIDATION:
                self._cases.append(case.name)
            if number % ROWS_PER_STEP == 0:
                yield

    def _show_cases(self) -> None:
        if self._watch is None:
            return
        self._filling = True
        for name in self._cases:
            self._ui.previewSelector.addItem(name)
        self._filling = False
        chosen = chosen_preview(self._watch.run)
        if self._restores_choice and chosen in self._cases:
            self._select(self._cases.index(chosen) + 1)
        self._ui.previewSelector.enabled = bool(self._cases)

    def _select(self, index: int) -> None:
        """Select a case in the preview selector without requesting its preview."""
        self._filling = True
        self._ui.previewSelector.setCurrentIndex(index)
        self._filling = False
        self._selected = index

    def _on_preview_case(self, index: int) -> None:
        if self._filling or self._watch is None:
            return
        run = self._watch.run
        try:
            choose_preview(run, self._cases[index - 1] if index > 0 else None)
        except (DCAMTError, OSError) as error:
            self._select(self._selected)  # The run goes on with the earlier request.
            display_error(error_text(error), _("Preview"))
            return
        self._selected = index
        if index <= 0:
            self._stop_loading()
            self._shown = None
            remove_preview(run.path.name)
        self.update()

    def _stop_loading(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            self._loading = None


def missing_preview_text(state: RunState) -> str:
    """Return why there is no preview of the chosen case, and how the user can see the case."""
    if state.state == RUNNING:
        return str(_("The preview of this case appears after the next validation."))
    if state.resumable:
        return str(
            _(
                "The run is not training. If you resume the run, the preview of this case appears after the next"
                " validation."
            )
        )
    return str(
        _("The run ended without a preview of this case. Segment the case with the run's model in DCAMT Segmentation.")
    )
