"""The part of the panel that runs: start, the list of runs, pause, resume, stop and discard."""
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctk
import slicer
from dcamt.errors import DCAMTError
from dcamt.runs.folder import RunFolder
from dcamt.runs.requests import PAUSE, STOP, ask, asked
from dcamt.runs.state import FAILED, FINISHED, PAUSED, RUNNING, STOPPED, RunState, find_runs, run_state
from DCAMTSlicerLib.installation import ensure_packages
from slicer.i18n import tr as _

from ..runs.folders import free_name, runs_folder, set_runs_folder
from ..runs.preflight import in_gigabytes
from ..runs.start import discard, just_started, resume, stop_here
from ..runs.start_job import StartJob
from ..runs.watch import RunWatch
from ..session import TrainingSession
from .effort import spoken_duration


class RunsPanel:
    """Drives the widgets of the section Run; `onRun(watch)` hears which run is shown, `onLook(watch)` of its news."""

    def __init__(
        self,
        ui: Any,
        session: TrainingSession,
        onRun: Callable[[RunWatch | None], None],
        onLook: Callable[[RunWatch], None],
    ) -> None:
        self._ui, self._session = ui, session
        self._onRun, self._onLook = onRun, onLook
        self.watch: RunWatch | None = None
        self.job: StartJob | None = None
        self._runs: list[RunFolder] = []
        self._shown = ""
        self._startText = ""
        self._problems: list[str] = []
        self._filling = False
        for button, slot in (
            (ui.startButton, self._onStart),
            (ui.pauseButton, lambda checked=False: self._ask(PAUSE)),
            (ui.stopButton, self._onStop),
            (ui.resumeButton, self._onResume),
            (ui.discardButton, self._onDiscard),
        ):
            button.connect("clicked(bool)", slot)
        ui.progressBar.setRange(0, 1000)
        ui.runsFolderEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.runSelector.connect("currentIndexChanged(int)", self._onSelected)
        ui.runsFolderEdit.connect("currentPathChanged(QString)", self._onFolder)
        session.on_news.append(self.refreshProblems)

    def refresh(self) -> None:
        """List the runs that there are, and attach to the one that was shown, or one that is trained now."""
        self._filling = True
        if self._ui.runsFolderEdit.currentPath != str(runs_folder()):
            self._ui.runsFolderEdit.currentPath = str(runs_folder())
        self._runs = list(find_runs(runs_folder()))
        states = [run_state(run) for run in self._runs]
        self._ui.runSelector.clear()
        for run, state in zip(self._runs, states, strict=True):
            self._ui.runSelector.addItem(f"{run.path.name}: {state_title(state.state)}")
        names = [run.path.name for run in self._runs]
        running = [run.path.name for run, state in zip(self._runs, states, strict=True) if state.state == RUNNING]
        wanted = next((name for name in (self._shown, *running, *names) if name in names), "")
        if wanted:
            self._ui.runSelector.setCurrentIndex(names.index(wanted))
        self._filling = False
        self._attach(self._runs[names.index(wanted)] if wanted else None)
        self.refreshProblems()

    def cancelStart(self) -> None:
        """What was being started is not, and leaves nothing behind."""
        if self.job is not None:
            self.job.cancel()

    def close(self) -> None:
        """Let go of everything; the runs go on."""
        self.cancelStart()
        if self.watch is not None:
            self.watch.close()
            self.watch = None

    def show(self, run: RunFolder) -> None:
        """Show a run of the folder."""
        self._shown = run.path.name
        self.refresh()

    def refreshProblems(self) -> None:
        """What hinders a run, and whether Start can be pressed."""
        problems = self._session.problems()
        starting = self.job is not None and self.job.running
        self._problems = [problem.text for problem in problems]
        self._showProblems()
        self._ui.startButton.text = _("Cancel start") if starting else _("Start")
        self._ui.startButton.enabled = starting or not any(problem.blocks for problem in problems)

    def _showProblems(self) -> None:
        self._ui.problemsLabel.text = "\n".join(filter(None, [self._startText, *self._problems]))

    def _attach(self, run: RunFolder | None) -> None:
        if self.watch is not None:
            if run is not None and self.watch.run.path == run.path:
                self._showAsItIs()
                return
            self.watch.close()
        self._shown = run.path.name if run is not None else ""
        self.watch = RunWatch(run, self._onWatched) if run is not None else None
        self._onRun(self.watch)
        self._showState(self.watch.state if self.watch is not None else None)

    def _onWatched(self, state: RunState) -> None:
        if self.watch is not None:
            self._showState(state)
            self._onLook(self.watch)

    def _showAsItIs(self) -> None:
        """Show the run as it is now: the watch looks twice a second, and buttons of a moment ago could be clicked."""
        if self.watch is not None:
            self._showState(run_state(self.watch.run))

    def _showState(self, state: RunState | None) -> None:
        watch = self.watch
        running = state is not None and state.state == RUNNING
        starting = watch is not None and just_started(watch.run) and not running
        request = asked(watch.run) if watch is not None else None
        idle = state is not None and not running and not starting
        self._ui.pauseButton.enabled = running and request is None
        self._ui.stopButton.enabled = (running and request is None) or (idle and can_end_here(state))
        self._ui.resumeButton.enabled = idle and state.resumable
        self._ui.discardButton.enabled = idle
        if state is None or watch is None:
            self._ui.progressBar.setValue(0)
            self._ui.runStatusLabel.text = _("No runs yet.")
            return
        self._ui.progressBar.setValue(round(1000 * state.step / state.of) if state.of else 0)
        if starting:
            self._ui.runStatusLabel.text = _("Starting…")
        elif running and request is not None:
            told = _("Pausing") if request == PAUSE else _("Stopping")
            self._ui.runStatusLabel.text = _("{what} after the iteration in hand…").format(what=told)
        else:
            self._ui.runStatusLabel.text = status_text(watch, state)
        self._showInList(watch.run, state)

    def _showInList(self, run: RunFolder, state: RunState) -> None:
        text = f"{run.path.name}: {state_title(state.state)}"
        for index, listed in enumerate(self._runs):
            if listed.path == run.path and self._ui.runSelector.itemText(index) != text:
                self._ui.runSelector.setItemText(index, text)

    def _onSelected(self, index: int) -> None:
        if not self._filling and 0 <= index < len(self._runs):
            self._attach(self._runs[index])

    def _onFolder(self, path: str) -> None:
        # While a path is typed, most of it is no folder.
        if not self._filling and path != str(runs_folder()) and Path(path).is_absolute() and Path(path).is_dir():
            set_runs_folder(path)
            self._shown = ""
            self.refresh()

    def _onStart(self, checked: bool = False) -> None:
        if self.job is not None and self.job.running:
            self.job.cancel()
            return
        try:
            ensure_packages()
            self.job = StartJob(self._session, self._session.device(), self._sayOfStart, self._onStarted)
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=_("Start"))
        self.refreshProblems()

    def _onStarted(self, run: RunFolder | None, message: str) -> None:
        if run is not None:
            if self._session.settings is not None:
                self._session.settings.runName = free_name()
            self.show(run)
        self._sayOfStart(message)
        self.refreshProblems()

    def _sayOfStart(self, text: str) -> None:
        """How far a start is, or why nothing was started: told until the next one."""
        self._startText = text
        self._showProblems()

    def _ask(self, what: str) -> None:
        if self.watch is None:
            return
        try:
            ask(self.watch.run, what)
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=_("Run"))
        self._showAsItIs()

    def _onStop(self, checked: bool = False) -> None:
        if self.watch is None or run_state(self.watch.run).state == RUNNING:
            self._ask(STOP)
        else:
            self._begin(stop_here, _("Stop"))

    def _onResume(self, checked: bool = False) -> None:
        self._begin(resume, _("Resume"))

    def _begin(self, begin: Callable[[RunFolder, str], None], title: str) -> None:
        """Start a process for the run that is shown."""
        if self.watch is None:
            return
        try:
            ensure_packages()
            begin(self.watch.run, self._session.device())
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=title)
        self._showAsItIs()

    def _onDiscard(self, checked: bool = False) -> None:
        if self.watch is None:
            return
        run = self.watch.run
        question = _("Delete the run “{name}” with its models, checkpoints and the scans written for it? {folder}")
        text = question.format(name=run.path.name, folder=run.path)
        if not slicer.util.confirmOkCancelDisplay(text, _("Discard a run")):
            return
        watch, self.watch = self.watch, None
        watch.close()
        try:
            discard(run)
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=_("Discard a run"))
        else:
            watch.charts.remove()
        self._onRun(None)
        self.refresh()


def can_end_here(state: RunState) -> bool:
    """Whether models can be made of what a run has learnt, though nobody trains it at present."""
    return state.state in (PAUSED, FAILED) and state.resumable and state.step > 0


def state_title(state: str) -> str:
    return str(
        {
            RUNNING: _("running"),
            PAUSED: _("paused"),
            STOPPED: _("stopped"),
            FAILED: _("failed"),
            FINISHED: _("finished"),
        }[state]
    )


def status_text(watch: RunWatch, state: RunState) -> str:
    """Where the run is, how fast it goes, and why it ended, if by itself."""
    curves = watch.curves
    parts = [_("{step} of {of} iterations").format(step=state.step, of=state.of)] if state.of else []
    if state.state == RUNNING:
        if curves.loading is not None:
            parts = [_("reading case {done} of {of}").format(done=curves.loading[0] + 1, of=curves.loading[1])]
        if curves.steps_per_s:
            parts.append(_("{speed} a second").format(speed=f"{curves.steps_per_s:.2f}"))
        if curves.eta_s is not None:
            parts.append(_("{time} left").format(time=spoken_duration(curves.eta_s)))
        if curves.memory_bytes:
            parts.append(_("{memory} of memory").format(memory=in_gigabytes(curves.memory_bytes)))
    text = ", ".join([state_title(state.state), *parts])
    return f"{text[:1].upper()}{text[1:]}. {state.reason}".strip()
