"""Control the section *Effort* of the panel: show a run's estimate, and placeholder texts in empty fields."""

from __future__ import annotations

from typing import Any

from dcamt.errors import DCAMTError
from DCAMTSlicerLib.durations import duration_text
from DCAMTSlicerLib.installation import show_error
from slicer.i18n import tr as _

from ..runs.folders import runs_folder
from ..runs.preflight import format_gigabytes
from ..session import TrainingSession
from ..settings import SETTINGS


class EffortPanel:
    """Controls the section *Effort*."""

    def __init__(self, ui: Any, session: TrainingSession) -> None:
        self._ui, self._session = ui, session
        ui.measureButton.connect("clicked(bool)", self._on_measure)
        session.on_news.append(self.refresh)

    def refresh(self) -> None:
        """Show a run's estimate, and placeholder texts in empty fields."""
        if self._session.settings is None:
            return
        estimation = self._session.estimation
        estimate = estimation.estimate()
        self._ui.measureButton.text = _("Stop measuring") if estimation.running else _("Measure")
        if estimation.running:
            self._ui.estimateLabel.text = _("Running a few iterations on this computer…")
        elif estimate is None:
            self._ui.estimateLabel.text = _("Press Measure to see how long a run takes on this computer.")
        else:
            self._ui.estimateLabel.text = estimate_text(estimate)
        self._show_defaults()

    def _show_defaults(self) -> None:
        try:
            recipe = self._session.planned_recipe()
        except DCAMTError:
            return
        for name, key in SETTINGS.items():
            holder = next(part for part in (recipe.training, recipe.objective, recipe) if hasattr(part, key))
            value = getattr(holder, key)
            text = ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else f"{value:g}"
            getattr(self._ui, f"{name}Edit").placeholderText = text

    def _on_measure(self, checked: bool = False) -> None:
        estimation = self._session.estimation
        if estimation.running:
            estimation.cancel()
            return
        try:
            self._session.ensure_packages()
            estimation.start(runs_folder(), self._session.device(), self._on_measured)
        except DCAMTError as error:
            show_error(error, _("Measure"))
        self.refresh()

    def _on_measured(self, message: str) -> None:
        self.refresh()
        if message:
            self._ui.estimateLabel.text = message


def estimate_text(estimate: dict[str, Any]) -> str:
    """Return a sentence with the time, memory and disk space of an estimate."""
    device = _("GPU") if estimate["device"] in ("cuda", "mps") else _("CPU")
    text = _("About {time} on the {device} for {iterations} iterations").format(
        time=duration_text(estimate["seconds"]), device=device, iterations=estimate["iterations"]
    )
    if estimate["memory_bytes"] is not None:
        text += _(", {memory} of memory").format(memory=format_gigabytes(estimate["memory_bytes"]))
    return text + _(", {disk} of disk space.").format(disk=format_gigabytes(estimate["disk_bytes"]))
