"""Open only the sections that the user's next step needs, so that the panel fits on a laptop's screen."""

from __future__ import annotations

from typing import Any

from dcamt.runs.state import FINISHED, RUNNING, STOPPED
from slicer.i18n import tr as _

from ..runs.watch import RunWatch
from ..session import TrainingSession

SECTIONS = ("casesButton", "taskButton", "effortButton", "runButton", "watchButton", "resultsButton", "outlineButton")
PREPARE = ("casesButton", "runButton")
TRAIN = ("runButton", "watchButton")
READ = ("resultsButton",)
"""The open sections while a user prepares a run (`PREPARE`), watches it (`TRAIN`), or reads its results (`READ`)."""
RUN_WIDGETS = (
    "runSelector",
    "pauseButton",
    "resumeButton",
    "stopButton",
    "discardButton",
    "progressBar",
    "runStatusLabel",
)
"""Widgets that are useful only if there is a run."""
TITLE_LENGTH = 40
"""A section's title shows at most this many characters of the name of a task, effort or run."""


class Sections:
    """Opens and closes sections when a run is selected, begins or ends."""

    def __init__(self, ui: Any, session: TrainingSession) -> None:
        self._ui, self._session = ui, session
        self._watch: RunWatch | None = None
        self._state = ""
        self._arranged = False
        session.on_news.append(self.show_titles)

    def set_run(self, watch: RunWatch | None) -> None:
        """Arrange the sections for another run, or for no run."""
        first, self._arranged = not self._arranged, True
        self._watch = watch
        self._state = watch.state.state if watch is not None else ""
        self.show_titles()
        for name in RUN_WIDGETS:
            getattr(self._ui, name).visible = watch is not None
        if self._state == RUNNING:
            self._open(TRAIN)
        elif first:
            self._open(PREPARE)
        elif self._state in (FINISHED, STOPPED):
            # The section *Run*, where the user chooses a run, stays open.
            self._open(("runButton", *READ))

    def update(self) -> None:
        """Arrange the sections if the run has begun or ended."""
        state, failure = (self._watch.state.state, self._watch.state.reason) if self._watch is not None else ("", "")
        if state == self._state:
            return
        self._state = state
        self.show_titles()
        if state == RUNNING:
            self._open(TRAIN)
        elif state in (FINISHED, STOPPED):
            self._open(("runButton", *READ) if failure else READ)

    def show_titles(self) -> None:
        """Show the chosen task, effort and run in the titles, since their sections may be closed."""
        for section, title, selector in (
            (self._ui.taskButton, _("Task"), self._ui.taskSelector),
            (self._ui.effortButton, _("Effort"), self._ui.effortSelector),
            (self._ui.runButton, _("Run"), self._ui.runSelector),
        ):
            chosen = selector.currentText
            short = chosen if len(chosen) <= TITLE_LENGTH else chosen[: TITLE_LENGTH - 1] + "…"
            # A single ampersand would mark a shortcut key.
            section.text = f"{title}: {short}".replace("&", "&&") if short else title

    def _open(self, names: tuple[str, ...]) -> None:
        for name in SECTIONS:
            getattr(self._ui, name).collapsed = name not in names
