"""Follows a run, whoever trains it: its events into curves and charts, its state, its preview; in small turns."""
# ruff: noqa: N802, N803

from __future__ import annotations

import time
from collections.abc import Callable

import qt
from dcamt.runs.event_tail import EventTail
from dcamt.runs.folder import RunFolder
from dcamt.runs.state import FAILED, RUNNING, RunState, run_state

from .charts import LOSSES, TrainingCharts
from .curves import RunCurves

TURN_S = 0.02
"""How long events are taken in before the window has its turn."""
LOOK_MS = 500
"""Between two looks at a run that says nothing new."""


class RunWatch:
    """Watches one run until `close`; `onLook(state)` is called after each look, when all events so far are taken in.

    On the event loop alone: some milliseconds a turn, however many events the run has.
    """

    def __init__(self, run: RunFolder, onLook: Callable[[RunState], None]) -> None:
        self.run = run
        self.curves = RunCurves()
        self.charts = TrainingCharts(run.path.name)
        self.state = run_state(run)
        self._onLook = onLook
        self._tail = EventTail(run.events)
        self._changed = True
        self._doubted = False
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._look)
        self._timer.start(0)

    @property
    def caughtUp(self) -> bool:
        """Whether all events so far are in the curves."""
        return self._tail.at_end and not self._changed

    def close(self) -> None:
        self._timer.stop()

    def _look(self) -> None:
        until = time.monotonic() + TURN_S
        while time.monotonic() < until:
            event = self._tail.next()
            if event is None:
                break
            self._changed = self.curves.take(event) or self._changed
        if not self._tail.at_end:
            self._timer.start(0)
            return
        state = run_state(self.run)
        if state.state == FAILED and self.state.state == RUNNING and not self._doubted:
            # Looked at between its last event and its fault note, a run may seem killed.
            self._doubted = True
            self._timer.start(LOOK_MS)
            return
        self._doubted = False
        if self._changed:
            self._changed = False
            # A run of the past is drawn when somebody wants to see it.
            if RUNNING in (state.state, self.state.state) or self.charts.chart(LOSSES) is not None:
                self.charts.update(self.curves)
        self.state = state
        self._timer.start(LOOK_MS)
        # Last, as it may close this.
        self._onLook(state)
