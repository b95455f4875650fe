"""Show a running job in the panel: Apply/Cancel button, progress, status and log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from DCAMTSlicerLib.durations import duration_text
from slicer.i18n import tr as _

from .segmentation_job import SegmentationProgress
from .worker_job import JobOutcome


class ProgressPanel:
    """Shows the progress and the outcome of a job.

    `read_log` returns the log's text; it is called only while the log section is open.
    """

    def __init__(self, ui: Any, read_log: Callable[[], str]) -> None:
        self._ui, self._read_log = ui, read_log
        ui.progressBar.setRange(0, 1000)
        ui.progressBar.visible = False
        ui.logCollapsibleButton.collapsed = True
        ui.logCollapsibleButton.connect("contentsCollapsed(bool)", self._on_log_collapsed)

    def show_running(self, running: bool, missing: str) -> None:
        """Update the Apply/Cancel button and the progress bar.

        Args:
            missing: a sentence that says what the user has to choose before Apply; "" if nothing is missing.
        """
        self._ui.applyButton.text = _("Cancel") if running else _("Apply")
        self._ui.applyButton.toolTip = (
            _("Cancel the computation. The scene stays unchanged.")
            if running
            else missing or _("Segment the volume. Slicer stays usable meanwhile.")
        )
        self._ui.applyButton.enabled = running or not missing
        self._ui.progressBar.visible = running

    def show_progress(self, progress: SegmentationProgress) -> None:
        """Show the stage, the fraction and the remaining time."""
        self._ui.progressBar.setValue(round(1000 * progress.fraction))
        remaining = ""
        if progress.remaining_s is not None:
            remaining = _(", {time} left").format(time=duration_text(progress.remaining_s))
        self.show_message(f"{progress.stage}{remaining}")

    def show_outcome(self, outcome: JobOutcome) -> None:
        """Show the message and the notes of a job that has ended."""
        self.show_message(" ".join([outcome.message, *outcome.notes]))

    def show_message(self, message: str) -> None:
        """Show a message in the status line; an empty message hides the line."""
        self._ui.statusLabel.text = message
        self._ui.statusLabel.visible = bool(message)
        self.show_log()

    def clear(self) -> None:
        """Clear the status line."""
        self.show_message("")

    def show_log(self) -> None:
        """Update the log if its section is open."""
        if not self._ui.logCollapsibleButton.collapsed:
            text = self._read_log()
            if text != self._ui.logView.plainText:
                self._ui.logView.setPlainText(text)

    def _on_log_collapsed(self, collapsed: bool) -> None:
        self.show_log()
