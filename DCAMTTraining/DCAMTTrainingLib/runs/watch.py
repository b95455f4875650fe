"""Follow a run on the event loop: read its events and its state in short steps."""

from __future__ import annotations

import time
from collections.abc import Callable

import qt
from dcamt.runs.events import EventTail
from dcamt.runs.folder import RunFolder
from dcamt.runs.state import FAILED, RUNNING, RunState, run_state

from .charts import TrainingCharts
from .curves import RunCurves

TURN_S = 0.02
"""Longest time, in seconds, for reading events in one turn of the event loop."""
POLL_MS = 500
"""Milliseconds between two polls of a run."""


class RunWatch:
    """Polls one run from `start` until `close`, whichever process trains it.

    Args:
        on_poll: called as on_poll(state) after each poll that has read all events. If the state changes from running to
            failed, on_poll is called only after the next poll, because the run's process may print the reason after
            releasing the run's lock.
    """

    def __init__(self, run: RunFolder, on_poll: Callable[[RunState], None]) -> None:
        self.run = run
        self.curves = RunCurves()
        self.charts = TrainingCharts(run.path.name)
        self.state = run_state(run)
        self._on_poll = on_poll
        self._tail = EventTail(run.events)
        self._changed = True
        self._failed_once = False
        self._closed = False

    def start(self) -> RunWatch:
        """Start to poll; return self."""
        self._poll_in(0)
        return self

    def close(self) -> None:
        """Stop polling."""
        self._closed = True

    def _poll_in(self, milliseconds: int) -> None:
        # No timer object is kept: timer and watch would reference each other, and neither would be released.
        qt.QTimer.singleShot(milliseconds, self._poll)

    def _poll(self) -> None:
        if self._closed:
            return
        until = time.monotonic() + TURN_S
        while time.monotonic() < until:
            event = self._tail.next()
            if event is None:
                break
            self._changed = self.curves.apply(event) or self._changed
        if not self._tail.at_end:
            self._poll_in(0)
            return
        state = run_state(self.run)
        if state.state == FAILED and self.state.state == RUNNING and not self._failed_once:
            self._failed_once = True
            self._poll_in(POLL_MS)
            return
        self._failed_once = False
        if self._changed:
            self._changed = False
            self.charts.update(self.curves)
        self.state = state
        self._poll_in(POLL_MS)
        # `_on_poll` is called last, since it may close this watch.
        self._on_poll(state)
