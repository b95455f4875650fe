"""The part of the panel that runs: Apply that turns into Cancel, progress with stage and remaining time, the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from .segmentation_job import SegmentationProgress
from .worker_job import JobOutcome


class RunPanel:
    """Shows how a segmentation proceeds; `read_log` returns the log's text, and is called only while it is open."""

    def __init__(self, ui: Any, read_log: Callable[[], str]) -> None:
        self._ui, self._read_log = ui, read_log
        ui.progressBar.setRange(0, 1000)
        ui.progressBar.visible = False
        ui.logCollapsibleButton.collapsed = True
        ui.logCollapsibleButton.connect("contentsCollapsed(bool)", self._on_log_collapsed)

    def show_running(self, running: bool, ready: bool) -> None:
        """Show whether a segmentation runs; `ready`: everything is chosen that one needs."""
        self._ui.applyButton.text = _("Cancel") if running else _("Apply")
        self._ui.applyButton.toolTip = (
            _("Stop at once. The scene stays as it was.")
            if running
            else _("Segment the volume. Slicer stays usable meanwhile.")
            if ready
            else _("Choose a volume first.")
        )
        self._ui.applyButton.enabled = running or ready
        self._ui.progressBar.visible = running

    def show_progress(self, progress: SegmentationProgress) -> None:
        """Show the stage, the fraction and the remaining time."""
        self._ui.progressBar.setValue(round(1000 * progress.fraction))
        left = ""
        if progress.remaining_s is not None:
            left = _(", {time} left").format(time=rounded_time(progress.remaining_s))
        self._set_status(f"{progress.stage}{left}")
        self.show_log()

    def show_outcome(self, outcome: JobOutcome) -> None:
        """Show the message and the notes of a job that has ended."""
        self._set_status(" ".join([outcome.message, *outcome.notes]))
        self.show_log()

    def show_message(self, message: str) -> None:
        """Show a line in place of the status."""
        self._set_status(message)
        self.show_log()

    def clear(self) -> None:
        """Remove the status: it is about a choice of before."""
        self._set_status("")

    def show_log(self) -> None:
        """Bring the log up to date if it is open."""
        if not self._ui.logCollapsibleButton.collapsed:
            text = self._read_log()
            if text != self._ui.logView.plainText:
                self._ui.logView.setPlainText(text)

    def _set_status(self, text: str) -> None:
        self._ui.statusLabel.text = text
        self._ui.statusLabel.visible = bool(text)

    def _on_log_collapsed(self, collapsed: bool) -> None:
        self.show_log()


def rounded_time(seconds: float) -> str:
    """Return a remaining time, no more exact than it is known."""
    if seconds < 60:
        return str(_("{count} s").format(count=max(1, round(seconds))))
    return str(_("{count} min").format(count=round(seconds / 60)))
