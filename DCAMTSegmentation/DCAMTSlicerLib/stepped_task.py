"""Run work on the event loop, in short steps or once after a delay, and recognise double clicks."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from inspect import GEN_RUNNING, getgeneratorstate
from typing import Any

import qt

DOUBLE_CLICK_S = 0.5
"""Two clicks within this time, in seconds, count as a double click."""


class SteppedTask:
    """Runs a generator step by step; Qt processes other events before each step, so the window keeps responding.

    `cancel` closes the generator, so that it can undo its work; neither `on_end` nor `on_step` is called afterwards.

    Args:
        on_end: on_end(error) is called once: error is the exception that a step raised, or None after the last step.
        on_step: called after each step with the value that the generator yielded.
    """

    def __init__(
        self,
        steps: Generator[Any, None, Any],
        on_end: Callable[[Exception | None], None],
        on_step: Callable[[Any], None] = lambda value: None,
    ) -> None:
        self._steps, self._on_end, self._on_step = steps, on_end, on_step
        self.running = False

    def start(self) -> SteppedTask:
        """Schedule the first step, and return the task."""
        self.running = True
        qt.QTimer.singleShot(0, self._take_step)
        return self

    def cancel(self) -> None:
        """Stop the task before its next step; do nothing if it has ended."""
        if self.running:
            self.running = False
            self._close()

    def _take_step(self) -> None:
        if not self.running:
            return
        try:
            value = next(self._steps)
        except StopIteration:
            self._end(None)
        except Exception as error:
            self._end(error)
        else:
            if not self.running:
                # The step cancelled the task; `cancel` could not close the generator while it ran.
                self._close()
                return
            # Scheduled first, so that an error of `on_step` does not end the task.
            qt.QTimer.singleShot(0, self._take_step)
            self._on_step(value)

    def _end(self, error: Exception | None) -> None:
        if self.running:
            self.running = False
            self._on_end(error)
        elif error is not None:  # The step cancelled the task before the error.
            raise error

    def _close(self) -> None:
        if getgeneratorstate(self._steps) != GEN_RUNNING:
            self._steps.close()


class DelayedCall:
    """A debounce timer that calls a function.

    The owner must call `close` at the end; until then, the timer holds a reference to the function.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._timer: Any = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(function)
        self._function: Callable[[], None] | None = function

    def start(self, milliseconds: int) -> None:
        """Call the function after this time, and cancel an earlier start; do nothing after `close`."""
        if self._function is not None:
            self._timer.start(milliseconds)

    def stop(self) -> None:
        """Cancel the last start."""
        self._timer.stop()

    def close(self) -> None:
        """Stop the timer, and release the function."""
        self._timer.stop()
        if self._function is not None:
            self._timer.timeout.disconnect(self._function)
            self._function = None


class DoubleClickGuard:
    """Recognises the second click of a double click on a button that starts a job or cancels the running job.

    The second click would otherwise cancel the job that the first click started.
    """

    def __init__(self) -> None:
        self._time = float("-inf")

    def record(self) -> None:
        """Record that a click was handled, or that the click's job ended."""
        self._time = time.monotonic()

    def is_repeated(self) -> bool:
        """Return whether a click now is the second of a double click."""
        return time.monotonic() - self._time < DOUBLE_CLICK_S
