"""Control the section *Run*: list the runs of a folder, and pause, resume, stop or discard the selected run."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ctk
import qt
from dcamt.errors import DCAMTError
from dcamt.runs.folder import RunFolder
from dcamt.runs.requests import PAUSE, STOP, read_request, write_request
from dcamt.runs.state import FAILED, FINISHED, PAUSED, RUNNING, STOPPED, RunState, find_runs, run_state
from DCAMTSlicerLib.durations import duration_text
from DCAMTSlicerLib.engine_messages import error_text, translated
from DCAMTSlicerLib.installation import ensure_packages, show_error
from DCAMTSlicerLib.plain_text import confirm, display_error
from DCAMTSlicerLib.stepped_task import DelayedCall, SteppedTask
from slicer.i18n import tr as _

from ..runs.folders import runs_folder, set_runs_folder
from ..runs.preflight import format_gigabytes
from ..runs.preview import remove_preview
from ..runs.start import discard, is_starting, resume, start_failure, start_writing_models
from ..runs.watch import RunWatch
from ..session import TrainingSession

LIST_MS = 5000
"""Milliseconds between two updates of the list of runs."""
NAMED_FILES = 10
"""At most this many files are named in the question whether to delete a run."""


class RunsPanel:
    """Lists the runs of a folder and controls the selected run.

    Args:
        on_run: called as on_run(watch) when another run, or none, is selected.
        on_news: called as on_news() after a poll of the selected run.
        on_folder: called as on_folder() when another folder of runs was chosen.
    """

    def __init__(
        self,
        ui: Any,
        session: TrainingSession,
        on_run: Callable[[RunWatch | None], None],
        on_news: Callable[[], None],
        on_folder: Callable[[], None],
    ) -> None:
        self._ui, self._session = ui, session
        self._on_run, self._on_news, self._on_new_folder = on_run, on_news, on_folder
        self.watch: RunWatch | None = None
        self._runs: list[RunFolder] = []
        self._found: set[Path] = set()
        self._selected_name = ""
        self._filling = False
        self._listing = DelayedCall(self._start_update)
        self._update: SteppedTask | None = None
        for button, slot in (
            (ui.pauseButton, lambda checked=False: self._request(PAUSE)),
            (ui.stopButton, self._on_stop),
            (ui.resumeButton, self._on_resume),
            (ui.discardButton, self._on_discard),
        ):
            button.connect("clicked(bool)", slot)
        ui.progressBar.setRange(0, 1000)
        ui.runsFolderEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.runSelector.connect("currentIndexChanged(int)", self._on_selected)
        ui.runsFolderEdit.connect("currentPathChanged(QString)", self._on_folder)
        self._folder_text = ui.runsFolderEdit.findChildren(qt.QLineEdit)[0]
        self._folder_text.connect("editingFinished()", self._use_typed_folder)
        # On macOS, a click on Start does not end the editing of the text.
        ui.startButton.connect("pressed()", self._use_typed_folder)

    def refresh(self) -> None:
        """List the runs. Keep the selection, else select the newest run that is training, else the newest run."""
        self._filling = True
        if not self._folder_text.modified:
            self._show_folder()
        self._runs = list(find_runs(runs_folder()))
        self._found = {run.path for run in self._runs}
        states = [run_state(run) for run in self._runs]
        self._ui.runSelector.clear()
        for run, state in zip(self._runs, states, strict=True):
            self._ui.runSelector.addItem(f"{run.path.name}: {state_title(state.state)}")
        names = [run.path.name for run in self._runs]
        training = [run.path.name for run, state in zip(self._runs, states, strict=True) if state.state == RUNNING]
        wanted = next((name for name in (self._selected_name, *training, *names) if name in names), "")
        if wanted:
            self._ui.runSelector.setCurrentIndex(names.index(wanted))
        self._filling = False
        self._watch_run(self._runs[names.index(wanted)] if wanted else None)
        self._listing.start(LIST_MS)

    def show(self, run: RunFolder) -> None:
        """Select a run of the folder."""
        self._selected_name = run.path.name
        self.refresh()

    def close(self) -> None:
        """Stop watching; the runs continue."""
        self._listing.close()
        self._stop_update()
        if self.watch is not None:
            self.watch.close()
            self.watch = None

    def _start_update(self) -> None:
        self._stop_update()
        self._update = SteppedTask(self._update_list(), lambda error: self._listing.start(LIST_MS)).start()

    def _stop_update(self) -> None:
        if self._update is not None:
            self._update.cancel()

    def _update_list(self) -> Generator[None, None, None]:
        """Show runs that another program has started, and the present states of the runs that are not selected.

        Reading a state takes several milliseconds, so each is read in a step of its own.
        """
        runs = list(find_runs(runs_folder()))
        found = {run.path for run in runs}
        if found != self._found:
            self._found = found
            if found - {run.path for run in self._runs}:
                self.refresh()
            self._session.notify_settings_changed()
            return
        for run in runs:
            yield
            if self.watch is None or run.path != self.watch.run.path:
                self._show_in_list(run, run_state(run))

    def _watch_run(self, run: RunFolder | None) -> None:
        if self.watch is not None:
            if run is not None and self.watch.run.path == run.path:
                self._show_current_state()
                return
            self.watch.close()
        self._selected_name = run.path.name if run is not None else ""
        self.watch = RunWatch(run, self._on_poll).start() if run is not None else None
        self._on_run(self.watch)
        self._show_state(self.watch.state if self.watch is not None else None)

    def _on_poll(self, state: RunState) -> None:
        if self.watch is not None:
            self._show_state(state)
            self._on_news()

    def _show_current_state(self) -> None:
        """Show the run's state without waiting for the next poll."""
        if self.watch is not None:
            self._show_state(run_state(self.watch.run))

    def _show_state(self, state: RunState | None) -> None:
        watch = self.watch
        if watch is None or state is None:
            self._ui.progressBar.setValue(0)
            self._show_status(_("No runs yet."))
            return
        run = watch.run
        if not os.path.isdir(run.path):
            text = _("The folder {folder} cannot be found. Connect its drive, or choose another run.")
            self._show_status(text.format(folder=run.path))
            return
        running = state.state == RUNNING
        starting = is_starting(run) and not running
        idle = not running and not starting
        request = read_request(run)
        takes_request = running and request is None
        if starting:
            text = _("Starting…")
        elif running and request is not None:
            action = _("Pausing") if request == PAUSE else _("Stopping")
            text = _("{action} after the current iteration…").format(action=action)
        else:
            text = status_text(watch, state)
        self._show_status(
            text,
            pause=takes_request,
            stop=takes_request or (idle and can_write_models(state)),
            resume=idle and state.resumable,
            discard=idle,
        )
        self._ui.progressBar.setValue(round(1000 * state.iteration / state.iterations) if state.iterations else 0)
        self._show_in_list(run, state)

    def _show_status(
        self, text: str, pause: bool = False, stop: bool = False, resume: bool = False, discard: bool = False
    ) -> None:
        self._ui.runStatusLabel.text = text
        self._ui.pauseButton.enabled, self._ui.stopButton.enabled = pause, stop
        self._ui.resumeButton.enabled, self._ui.discardButton.enabled = resume, discard

    def _show_in_list(self, run: RunFolder, state: RunState) -> None:
        text = f"{run.path.name}: {state_title(state.state)}"
        for index, listed in enumerate(self._runs):
            if listed.path == run.path and self._ui.runSelector.itemText(index) != text:
                self._ui.runSelector.setItemText(index, text)

    def _on_selected(self, index: int) -> None:
        if not self._filling and 0 <= index < len(self._runs):
            self._watch_run(self._runs[index])

    def _show_folder(self) -> None:
        if Path(self._ui.runsFolderEdit.currentPath) != runs_folder():
            self._ui.runsFolderEdit.currentPath = str(runs_folder())

    def _on_folder(self, path: str) -> None:
        """Use a chosen folder; `_use_typed_folder` uses a typed path."""
        if not self._filling and not self._folder_text.modified:
            self._use_folder(Path(path))

    def _use_typed_folder(self) -> None:
        if self._folder_text.modified:
            self._folder_text.modified = False
            self._use_folder(Path(self._ui.runsFolderEdit.currentPath))

    def _use_folder(self, folder: Path) -> None:
        if folder.is_absolute() and folder != runs_folder():
            set_runs_folder(str(folder))
            self._selected_name = ""
            self.refresh()
            self._on_new_folder()
            self._session.notify_settings_changed()
        else:
            self._show_folder()

    def _request(self, request: str) -> None:
        if self.watch is None:
            return
        try:
            write_request(self.watch.run, request)
        except DCAMTError as error:
            display_error(error_text(error), _("Run"))
        self._show_current_state()

    def _on_stop(self, checked: bool = False) -> None:
        if self.watch is None or run_state(self.watch.run).state == RUNNING:
            self._request(STOP)
        else:
            self._start_process(start_writing_models, _("Stop"))

    def _on_resume(self, checked: bool = False) -> None:
        self._start_process(resume, _("Resume"))

    def _start_process(self, start: Callable[[RunFolder, str], None], title: str) -> None:
        if self.watch is None:
            return
        run = self.watch.run
        try:
            ensure_packages()
            start(run, self._session.device())
        except DCAMTError as error:
            show_error(error, title)
        self._show_current_state()

    def _on_discard(self, checked: bool = False) -> None:
        if self.watch is None:
            return
        run, title = self.watch.run, _("Discard a run")
        if not confirm(discard_question(run), title):
            return
        watch, self.watch = self.watch, None
        watch.close()
        self._on_run(None)  # closes the preview's files, which are open while the preview is loading
        try:
            discard(run)
        except DCAMTError as error:
            display_error(error_text(error), title)
        else:
            remove_preview(run.path.name)
        self.refresh()
        self._session.notify_settings_changed()


def discard_question(run: RunFolder) -> str:
    """Return the question whether to delete a run, with the names of files that do not belong to the run."""
    question = _("Delete the run “{name}” with its models, checkpoints and copies of scans? {folder}")
    text = question.format(name=run.path.name, folder=run.path.resolve())
    with suppress(OSError):
        foreign = [path.relative_to(run.path).as_posix() for path in run.foreign_files()]
        if foreign:
            names = ", ".join([*foreign[:NAMED_FILES], *(["…"] if len(foreign) > NAMED_FILES else [])])
            also = _("These files in the folder do not belong to the run, but would be deleted, too: {names}")
            text = f"{text}\n\n{also.format(names=names)}"
    return str(text)


def can_write_models(state: RunState) -> bool:
    """Return whether models can be written from the checkpoint of a paused or failed run."""
    return state.state in (PAUSED, FAILED) and state.resumable and state.iteration > 0


def state_title(state: str) -> str:
    """Return the translated name of a run's state."""
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
    """Return a run's state and progress as a sentence, followed by the reason why it failed or paused, if any."""
    curves = watch.curves
    parts = []
    if state.iterations:
        parts.append(_("{step} of {of} iterations").format(step=state.iteration, of=state.iterations))
    if state.state == RUNNING:
        if curves.loading is not None:
            parts = [_("reading case {number} of {of}").format(number=curves.loading[0] + 1, of=curves.loading[1])]
        if curves.validating is not None:
            number, of = curves.validating[0] + 1, curves.validating[1]
            parts.append(_("validating case {number} of {of}").format(number=number, of=of))
        elif curves.steps_per_s:
            parts.append(_("{speed} per second").format(speed=f"{curves.steps_per_s:.2f}"))
        if curves.eta_s:  # "0 s left" would be wrong: after the last iteration, the run still writes its model.
            parts.append(_("{time} left").format(time=duration_text(curves.eta_s)))
        if curves.memory_bytes:
            parts.append(_("{memory} of memory").format(memory=format_gigabytes(curves.memory_bytes)))
    text = ", ".join([state_title(state.state), *parts])
    # `state.reason` may describe the failure of an earlier process.
    latest_failure = start_failure(watch.run) if state.state != RUNNING else ""
    return f"{text[:1].upper()}{text[1:]}. {translated(latest_failure or state.reason)}".strip()
