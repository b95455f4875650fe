"""The part of the panel that runs: Apply that turns into Cancel, progress with stage and remaining time, the log."""
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from .segmentation_job import JobResult, SegmentationProgress


class RunPanel:
    """Shows how a segmentation goes on; `readLog` gives the log's text, which is read only while it is open."""

    def __init__(self, ui: Any, readLog: Callable[[], str]) -> None:
        self._ui, self._readLog = ui, readLog
        ui.progressBar.setRange(0, 1000)
        ui.progressBar.visible = False
        ui.logCollapsibleButton.collapsed = True
        ui.logCollapsibleButton.connect("contentsCollapsed(bool)", self._onLogCollapsed)

    def showRunning(self, running: bool, ready: bool) -> None:
        """`ready`: everything is chosen that a segmentation needs."""
        self._ui.applyButton.text = _("Cancel") if running else _("Apply")
        self._ui.applyButton.toolTip = (
            _("Stop at once. The scene stays as it was.")
            if running
            else _("Outline the volume. Slicer stays usable meanwhile.")
            if ready
            else _("Choose a volume first.")
        )
        self._ui.applyButton.enabled = running or ready
        self._ui.progressBar.visible = running

    def showProgress(self, progress: SegmentationProgress) -> None:
        self._ui.progressBar.setValue(round(1000 * progress.fraction))
        left = _(", {time} left").format(time=spoken(progress.remaining_s)) if progress.remaining_s is not None else ""
        self._ui.statusLabel.text = f"{progress.stage}{left}"
        self.showLog()

    def showResult(self, result: JobResult) -> None:
        self._ui.statusLabel.text = " ".join([result.message, *result.notes])
        self.showLog()

    def showMessage(self, message: str) -> None:
        self._ui.statusLabel.text = message
        self.showLog()

    def showLog(self) -> None:
        """Bring the log up to date if it is open."""
        if not self._ui.logCollapsibleButton.collapsed:
            text = self._readLog()
            if text != self._ui.logView.plainText:
                self._ui.logView.setPlainText(text)

    def _onLogCollapsed(self, collapsed: bool) -> None:
        self.showLog()


def spoken(seconds: float) -> str:
    """A remaining time as a person says it: no more exact than it is known."""
    if seconds < 60:
        return str(_("{count} s").format(count=max(1, round(seconds))))
    return str(_("{count} min").format(count=round(seconds / 60)))
