"""The part of the panel that says how long a run takes on this computer."""
# ruff: noqa: N802

from __future__ import annotations

from typing import Any

import slicer
from dcamt.errors import DCAMTError
from DCAMTSlicerLib.installation import ensure_packages
from slicer.i18n import tr as _

from ..runs.folders import runs_folder
from ..runs.preflight import in_gigabytes
from ..runs.settings import SETTINGS
from ..session import TrainingSession


class EffortPanel:
    """Drives the widgets of the section Effort."""

    def __init__(self, ui: Any, session: TrainingSession) -> None:
        self._ui, self._session = ui, session
        ui.measureButton.connect("clicked(bool)", self._onMeasure)
        session.on_news.append(self.refresh)

    def refresh(self) -> None:
        session = self._session
        if session.settings is None:
            return
        self._ui.measureButton.text = _("Stop measuring") if session.estimating else _("Measure")
        estimate = session.estimate()
        if session.estimating:
            self._ui.estimateLabel.text = _("Taking a few steps on this computer…")
        elif estimate is None:
            self._ui.estimateLabel.text = _("Measure to see how long each takes on this computer.")
        else:
            self._ui.estimateLabel.text = estimate_text(estimate)
        self._showDefaults()

    def _showDefaults(self) -> None:
        """In empty edits, what the recipe has."""
        try:
            recipe = self._session.plannedRecipe()
        except DCAMTError:
            return
        for name, key in SETTINGS.items():
            for holder in (recipe.training, recipe.objective, recipe):
                if hasattr(holder, key):
                    value = getattr(holder, key)
                    text = ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else f"{value:g}"
                    getattr(self._ui, f"{name}Edit").placeholderText = text
                    break

    def _onMeasure(self, checked: bool = False) -> None:
        if self._session.estimating:
            self._session.cancelMeasuring()
            return
        try:
            ensure_packages()
            self._session.measure(runs_folder(), self._session.device(), self._onMeasured)
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=_("Measure"))
        self.refresh()

    def _onMeasured(self, message: str) -> None:
        self.refresh()
        if message:
            self._ui.estimateLabel.text = message


def estimate_text(estimate: dict[str, Any]) -> str:
    """Time, memory and disk, as a person says them."""
    where = _("GPU") if estimate["device"] in ("cuda", "mps") else _("CPU")
    text = _("About {time} on the {where} for {iterations} iterations").format(
        time=spoken_duration(estimate["seconds"]), where=where, iterations=estimate["iterations"]
    )
    if estimate["memory_bytes"] is not None:
        text += _(", {memory} of memory").format(memory=in_gigabytes(estimate["memory_bytes"]))
    return text + _(", {disk} of disk.").format(disk=in_gigabytes(estimate["disk_bytes"]))


def spoken_duration(seconds: float) -> str:
    """No more exact than it is known: `40 s`, `12 min`, `5 h`, `3 days`."""
    if seconds < 90:
        return str(_("{count} s").format(count=max(1, round(seconds))))
    if seconds < 90 * 60:
        return str(_("{count} min").format(count=round(seconds / 60)))
    if seconds < 36 * 3600:
        return str(_("{count} h").format(count=round(seconds / 3600)))
    return str(_("{count} days").format(count=round(seconds / 86400)))
