"""Measure how long Slicer's window is blocked, and compare this time with that of a fixed reference computation."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

LONGEST_PAUSE = 10
"""The longest pause that nobody notices, in multiples of `reference_seconds`: 0.1 s on an idle desktop of 2024."""


def reference_seconds() -> float:
    """Return the processor time of the reference computation in seconds, the median of five measurements."""
    return statistics.median(_time_reference() for _repetition in range(5))


def _time_reference() -> float:
    began, characters = time.process_time(), 0
    for number in range(60_000):
        characters += len(str(number))
    values = np.arange(400_000, dtype=np.float32)
    for _repetition in range(4):
        values = np.sqrt(values + 1)
    return time.process_time() - began


def is_unresponsive(seconds: float) -> bool:
    """Return whether a person would notice `seconds` of processor time as a pause of the window.

    The limit is proportional to `reference_seconds`, which depends on other programs and on Slicer's build.
    """
    return seconds > LONGEST_PAUSE * reference_seconds()


def assert_stays_responsive(seconds: float, what: str = "the window") -> None:
    """Raise AssertionError if a person would notice `seconds` of processor time as a pause."""
    if is_unresponsive(seconds):
        raise AssertionError(
            f"{what} waited for {seconds:.3f} s, {seconds / reference_seconds():.1f} times the reference computation;"
            f" {LONGEST_PAUSE} times are allowed"
        )


def freeze_garbage() -> None:
    """Exclude all present objects from garbage collection; after a thousand tests, one collection would take 0.5 s."""
    gc.collect()
    gc.freeze()


def work_seconds(action: Callable[[], object], tries: int = 3) -> float:
    """Return the processor time of `action` in seconds.

    It is the minimum of `tries` runs, since other programs may slow some of them.
    """
    taken = []
    freeze_garbage()
    for _try in range(tries):
        began = time.process_time()
        action()
        taken.append(time.process_time() - began)
    return min(taken)


def longest_step(start: Callable[[], Iterator[object]], tries: int = 3) -> float:
    """Return the processor time of a job's longest step in seconds, the minimum of up to `tries` runs.

    The first run without a noticeable pause is the last run.

    Args:
        start: starts the job and returns an iterator over its steps.
    """
    longest = []
    freeze_garbage()
    for _try in range(tries):
        longest.append(0.0)
        steps, ended = start(), False
        while not ended:
            began = time.thread_time()
            ended = next(steps, steps) is steps
            longest[-1] = max(longest[-1], time.thread_time() - began)
        if not is_unresponsive(longest[-1]):
            break
    return min(longest)


class LoopMonitor:
    """Measures the time between turns of the event loop while a `with` block runs a job.

    `longest_pause`: the longest time between two turns, in seconds; other programs on the machine may lengthen it.
    `longest_work`: the most processor time of this process between two turns, in seconds.
    `turns`: the number of turns, plus one for the end of the block.
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
        freeze_garbage()
        self._wall, self._work = time.monotonic(), time.process_time()
        self._timer.start()
        return self

    def __exit__(self, *details: Any) -> None:
        self._turn()
        self._timer.stop()

    def _turn(self) -> None:
        wall, work = time.monotonic(), time.process_time()
        self.longest_pause = max(self.longest_pause, wall - self._wall)
        self.longest_work = max(self.longest_work, work - self._work)
        self._wall, self._work = wall, work
        self.turns += 1
