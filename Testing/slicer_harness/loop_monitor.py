"""Measure how long Slicer's window is blocked, and compare this time with that of a fixed reference computation."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

LARGEST_PAUSE_RATIO = 10
"""Largest `Pause.ratio` that nobody notices. On an idle desktop of 2024, a pause with this ratio takes 0.1 s."""


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


@dataclass(frozen=True)
class Pause:
    """The window's longest pause while a job runs.

    Attributes:
        reference: the larger of two values of `reference_seconds`, measured before and after the job.
    """

    seconds: float
    reference: float

    @property
    def ratio(self) -> float:
        return self.seconds / self.reference

    @property
    def is_noticeable(self) -> bool:
        return self.ratio > LARGEST_PAUSE_RATIO


def assert_stays_responsive(pause: Pause, what: str = "the window") -> None:
    """Raise AssertionError if a person would notice the pause."""
    if pause.is_noticeable:
        raise AssertionError(
            f"{what} waited for {pause.seconds:.3f} s, {pause.ratio:.1f} times the reference computation;"
            f" the limit is {LARGEST_PAUSE_RATIO} times"
        )


def shortest_pause(attempt: Callable[[], Pause], tries: int = 3) -> Pause:
    """Call `attempt` at most `tries` times; return the pause with the smallest ratio.

    Other programs may lengthen a pause, so `attempt` is repeated while its pause is noticeable.
    """
    pauses = []
    for _try in range(tries):
        pauses.append(attempt())
        if not pauses[-1].is_noticeable:
            break
    return min(pauses, key=lambda pause: pause.ratio)


def freeze_garbage() -> None:
    """Exclude all present objects from garbage collection; after a thousand tests, one collection would take 0.5 s."""
    gc.collect()
    gc.freeze()


def pause_of(action: Callable[[], object], tries: int = 3) -> Pause:
    """Return the pause that `action` causes: its processor time in the best of at most `tries` runs."""

    def run() -> float:
        began = time.process_time()
        action()
        return time.process_time() - began

    return shortest_pause(lambda: _with_reference(run), tries)


def longest_step(start: Callable[[], Iterator[object]], tries: int = 3) -> Pause:
    """Return the pause that a job's longest step causes: its processor time in the best of at most `tries` runs.

    Args:
        start: starts the job and returns an iterator over its steps.
    """

    def run() -> float:
        longest, steps, ended = 0.0, start(), False
        while not ended:
            began = time.thread_time()
            ended = next(steps, steps) is steps
            longest = max(longest, time.thread_time() - began)
        return longest

    return shortest_pause(lambda: _with_reference(run), tries)


def _with_reference(run: Callable[[], float]) -> Pause:
    freeze_garbage()
    before = reference_seconds()
    seconds = run()
    return Pause(seconds, max(before, reference_seconds()))


class LoopMonitor:
    """Measures the time between turns of the event loop while a `with` block runs a job.

    `longest_pause`: the longest time between two turns, in seconds; other programs may lengthen it.
    `longest_work`: the longest processor time of this process between two turns, in seconds.
    `pause`: a `Pause` of the smaller of these two times; set at the end of the block.
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
        self._reference = reference_seconds()
        self._wall, self._work = time.monotonic(), time.process_time()
        self._timer.start()
        return self

    def __exit__(self, *details: Any) -> None:
        self._turn()
        self._timer.stop()
        reference = max(self._reference, reference_seconds())
        self.pause = Pause(min(self.longest_pause, self.longest_work), reference)

    def _turn(self) -> None:
        wall, work = time.monotonic(), time.process_time()
        self.longest_pause = max(self.longest_pause, wall - self._wall)
        self.longest_work = max(self.longest_work, work - self._work)
        self._wall, self._work = wall, work
        self.turns += 1
