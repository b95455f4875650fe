"""Start a run: check the cases, estimate the run's time, write the scene's cases, and start the process."""

from __future__ import annotations

from collections.abc import Callable

from dcamt.errors import DCAMTError
from dcamt.runs.folder import RunFolder
from DCAMTSlicerLib.engine_messages import error_text
from DCAMTSlicerLib.stepped_task import SteppedTask
from slicer.i18n import tr as _

from .cases.rows import CaseRow
from .runs.folders import run_named
from .runs.start import RunPlan, prepare_and_start, refuse_if_existing
from .session import TrainingSession
from .settings import chosen_settings


class StartJob:
    """Starts a run in the background, with the session's cases and settings.

    If the cases or settings change during the check or the estimation, no run is started.

    Args:
        on_step: called as on_step(text) with the current step.
        on_end: called as on_end(run, message) once; if nothing was started, run is None and message states the reason.

    Raises:
        InputError: the run's name is taken, or the name, the task or the model to start from is not usable.
    """

    def __init__(
        self,
        session: TrainingSession,
        device: str,
        on_step: Callable[[str], None],
        on_end: Callable[[RunFolder | None, str], None],
    ) -> None:
        self._session, self._device = session, device
        self._on_step, self._on_end = on_step, on_end
        self._writing: SteppedTask | None = None
        self._measured = False
        self.running = False
        assert session.settings is not None
        self._run = run_named(session.settings.runName)
        refuse_if_existing(self._run)
        self._plan = self._current_plan()

    def _current_plan(self) -> RunPlan:
        settings = self._session.settings
        assert settings is not None
        rows_without_check_results = tuple(CaseRow(row.name, row.source, row.role) for row in self._session.table.rows)
        return RunPlan(
            self._run,
            self._session.recipe(),
            rows_without_check_results,
            settings.effort.value,
            chosen_settings(settings),
            settings.startFrom,
            self._device,
        )

    def start(self) -> StartJob:
        """Check the cases if they are not checked yet, then take the next step; return the job itself."""
        self.running = True
        self._session.on_news.append(self._advance)
        if self._session.checked:
            self._advance()
        else:
            self._on_step(_("Checking the cases…"))
            self._session.check_cases()
        return self

    def cancel(self) -> None:
        """Stop a running job and call `on_end`; no run is started, and no file remains."""
        if self.running:
            self._finish()
            self._session.estimation.cancel()
            if self._writing is not None:
                self._writing.cancel()
            self._on_end(None, _("Cancelled; nothing was started."))

    def _advance(self) -> None:
        session = self._session
        if not self.running or self._writing is not None or session.estimation.running:
            return
        if not session.checked:
            if session.check_failure:
                self._fail(session.check_failure)
            elif not session.checking:
                self._fail(_("The cases were changed during the check. Press Start again."))
            return
        blocking = [problem.text for problem in session.problems(self._device) if problem.blocks]
        if blocking:
            self._fail(" ".join(blocking))
        elif self._current_plan() != self._plan:
            self._fail(_("The cases or settings were changed during the start. Press Start again."))
        elif session.estimation.estimate(self._device) is not None:
            self._write()
        elif self._measured:
            text = _("The estimation was stopped, or the settings or cases were changed during it. Press Start again.")
            self._fail(session.estimation.failure or text)
        else:
            self._measured = True
            self._on_step(_("Measuring how long the run will take…"))
            try:
                session.estimation.start(self._run.path.parent, self._device)
            except DCAMTError as error:
                self._fail(error_text(error))

    def _write(self) -> None:
        def on_step(progress: tuple[int, int]) -> None:
            self._on_step(
                _("Writing the scene's cases: {done} of {total}…").format(done=progress[0], total=progress[1])
            )

        self._writing = SteppedTask(prepare_and_start(self._plan), self._on_written, on_step).start()

    def _on_written(self, error: Exception | None) -> None:
        if self.running:
            self._finish()
            self._on_end(None if error else self._run, error_text(error))
            if error is not None:
                self._session.check_cases()  # The scene may have changed since the last check.

    def _fail(self, message: str) -> None:
        self._finish()
        self._on_end(None, message)

    def _finish(self) -> None:
        self.running = False
        if self._advance in self._session.on_news:
            self._session.on_news.remove(self._advance)
