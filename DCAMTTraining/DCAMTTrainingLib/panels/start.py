"""Control the start of a run in the section *Run*: name, problems, and the Start button."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dcamt.errors import DCAMTError
from dcamt.runs.folder import RunFolder
from DCAMTSlicerLib.engine_messages import error_text
from DCAMTSlicerLib.installation import show_error
from DCAMTSlicerLib.stepped_task import DoubleClickGuard
from DCAMTSlicerLib.terms_of_use import TermsDeclinedError, confirm_terms
from slicer.i18n import tr as _

from ..runs.folders import free_name
from ..session import TrainingSession
from ..start_job import StartJob


class StartPanel:
    """Starts runs and shows what prevents them.

    Args:
        on_started: called as on_started(run) after a run was started.
    """

    def __init__(self, ui: Any, session: TrainingSession, on_started: Callable[[RunFolder], None]) -> None:
        self._ui, self._session, self._on_started = ui, session, on_started
        self.job: StartJob | None = None
        self._click_guard = DoubleClickGuard()
        self._progress_text = ""
        self._problem_texts: list[str] = []
        ui.startButton.connect("clicked(bool)", self._on_start)
        session.on_news.append(self.refresh)

    @property
    def starting(self) -> bool:
        """Whether a run is being started."""
        return self.job is not None and self.job.running

    def refresh(self) -> None:
        """Show the problems of the next run, and update the button."""
        problems = self._session.problems()
        self._problem_texts = [problem.text for problem in problems]
        self._show_texts()
        self._ui.startButton.text = _("Cancel start") if self.starting else _("Start")
        self._ui.startButton.enabled = self.starting or not any(problem.blocks for problem in problems)

    def suggest_name(self) -> None:
        """If the name of the next run is taken, replace it with a free one; do nothing during a start."""
        settings = self._session.settings
        if settings is not None and not self.starting:
            name = free_name(settings.runName)
            if name != settings.runName:
                settings.runName = name

    def cancel(self) -> None:
        """Cancel the start in progress; no file of the run remains."""
        if self.job is not None:
            self.job.cancel()

    def _on_start(self, checked: bool = False) -> None:
        if self._click_guard.is_repeated():
            return
        if self.starting:
            self.cancel()
        else:
            self._start()
        self._click_guard.record()

    def _start(self) -> None:
        settings = self._session.settings
        try:
            if settings is not None and settings.startFrom:
                confirm_terms(settings.startFrom)
            self._session.ensure_packages()
            self.job = StartJob(self._session, self._session.device(), self._show_progress, self._on_job_end)
            self.job.start()
        except TermsDeclinedError as error:
            self._show_progress(error_text(error))
        except DCAMTError as error:
            show_error(error, _("Start"))
        self.refresh()

    def _on_job_end(self, run: RunFolder | None, message: str) -> None:
        self._click_guard.record()
        if run is not None:
            self.suggest_name()
            self._on_started(run)
        self._show_progress(message)
        self.refresh()

    def _show_progress(self, text: str) -> None:
        self._progress_text = text
        self._show_texts()

    def _show_texts(self) -> None:
        text = "\n".join(filter(None, [self._progress_text, *self._problem_texts]))
        self._ui.problemsLabel.text = text
        self._ui.problemsLabel.visible = bool(text)
