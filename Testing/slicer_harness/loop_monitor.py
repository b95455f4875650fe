"""Measure how long Slicer's window waits, and compare the time with work of a known size."""

from __future__ import annotations

import gc
import statistics
import time
from typing import Any

import numpy as np

LONGEST_PAUSE = 10
"""The longest wait that a person does not notice, in reference computations: 0.1 s on an idle desktop of 2024."""


def reference_seconds() -> float:
    """Return the processor time, in seconds, that a fixed computation takes at present: median of five."""
    return statistics.median(_time_reference() for _repetition in range(5))


def _time_reference() -> float:
    began, characters = time.process_time(), 0
    for number in range(60_000):
        characters += len(str(number))
    values = np.arange(400_000, dtype=np.float32)
    for _repetition in range(4):
        values = np.sqrt(values + 1)
    return time.process_time() - began


def is_pause(seconds: float) -> bool:
    """Return whether a person notices `seconds` of processor time as a pause.

    The limit follows the machine's present speed, which other programs and a slow build of Slicer change.
    """
    return seconds > LONGEST_PAUSE * reference_seconds()


def assert_no_pause(seconds: float, what: str = "the window") -> None:
    """Raise AssertionError if `seconds` of processor time are a pause that a person notices."""
    if is_pause(seconds):
        raise AssertionError(
            f"{what} waited for {seconds:.3f} s, {seconds / reference_seconds():.1f} times the reference computation;"
            f" {LONGEST_PAUSE} times are allowed"
        )


class LoopMonitor:
    """Measures how long the event loop waits between two turns, in a `with` around a job.

    `longest_pause`: the longest time between two turns, in seconds; on a busy machine other programs add to it.
    `longest_work`: the same in this process's processor time. Earlier objects are hidden from Python's garbage
    collector meanwhile: after a thousand tests one collection takes half a second.
    """

    def __init__(self) -> None:
        import qt

        self.longest_pause = 0.0
        self.longest_work = 0.0
        self.turns = 0
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._turn)

    def __enter__(self) -> LoopMonitor:
        gc.collect()
        gc.freeze()
        self._wall, self._work = time.monotonic(), time.process_time()
        self._timer.start()
        return self

    def __exit__(self, *details: Any) -> None:
        self._turn()
        self._timer.stop()
        gc.unfreeze()

    def _turn(self) -> None:
        wall, work = time.monotonic(), time.process_time()
        self.longest_pause = max(self.longest_pause, wall - self._wall)
        self.longest_work = max(self.longest_work, work - self._work)
        self._wall, self._work = wall, work
        self.turns += 1
