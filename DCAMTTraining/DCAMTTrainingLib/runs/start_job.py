"""From the press of Start to a process that trains: look cases over, measure, write what is in the scene, launch."""
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable

from dcamt.errors import DCAMTError
from dcamt.runs.folder import RunFolder
from DCAMTSlicerLib.stepped_task import SteppedTask, error_text
from slicer.i18n import tr as _

from ..session import TrainingSession
from .folders import run_of
from .settings import chosen_settings
from .start import RunPlan, prepare_and_start


class StartJob:
    """Goes through what precedes a run, each step in the background; `onEnd(run, message)` comes once.

    run: None if nothing was started, and the message says why. `onStep(text)` says what is done at present.
    """

    def __init__(
        self,
        session: TrainingSession,
        device: str,
        onStep: Callable[[str], None],
        onEnd: Callable[[RunFolder | None, str], None],
    ) -> None:
        self._session, self._device = session, device
        self._onStep, self._onEnd = onStep, onEnd
        self._writing: SteppedTask | None = None
        self.running = True
        self._measured = False
        assert session.settings is not None
        # All that is chosen counts as it was when Start was pressed.
        self._run = run_of(session.settings.runName)
        self._plan = RunPlan(
            self._run,
            session.recipe(),
            tuple(session.table.rows),
            session.settings.effort.value,
            chosen_settings(session.settings),
            session.settings.startFrom,
            device,
        )
        session.on_news.append(self._advance)
        if not session.inspected:
            self._onStep(_("Looking the cases over…"))
            session.inspect()
        else:
            self._advance()

    def cancel(self) -> None:
        """Nothing is started, and nothing is left behind."""
        if self.running:
            self._finish()
            self._session.cancelMeasuring()
            if self._writing is not None:
                self._writing.cancel()
            self._onEnd(None, _("Cancelled; nothing was started."))

    def _advance(self) -> None:
        """The next step, once the session knows enough."""
        session = self._session
        if not self.running or self._writing is not None or session.estimating:
            return
        if not session.inspected:
            if session.inspectionFault:
                self._fail(session.inspectionFault)
            elif not session.inspecting:
                self._fail(_("The cases were changed meanwhile. Press Start again."))
            return
        blocking = [problem.text for problem in session.problems() if problem.blocks]
        if blocking:
            self._fail(" ".join(blocking))
        elif session.estimate() is None:
            if self._measured:
                self._fail(_("The settings were changed meanwhile. Press Start again."))
                return
            self._measured = True
            self._onStep(_("Measuring how long it will take…"))
            try:
                session.measure(self._run.path.parent, self._device, self._onMeasured)
            except DCAMTError as error:
                self._fail(str(error))
        else:
            self._write()

    def _onMeasured(self, message: str) -> None:
        if self.running and message:
            self._fail(message)

    def _write(self) -> None:
        def step(progress: tuple[int, int]) -> None:
            self._onStep(_("Writing the scene's cases: {done} of {of}…").format(done=progress[0], of=progress[1]))

        self._writing = SteppedTask(prepare_and_start(self._plan), self._onWritten, step).start()

    def _onWritten(self, error: Exception | None) -> None:
        if self.running:
            self._finish()
            self._onEnd(None if error else self._run, error_text(error))

    def _fail(self, message: str) -> None:
        self._finish()
        self._onEnd(None, message)

    def _finish(self) -> None:
        self.running = False
        if self._advance in self._session.on_news:
            self._session.on_news.remove(self._advance)
