"""How long Slicer's window stands still."""

from __future__ import annotations

import gc
import time
from typing import Any


class LoopMonitor:
    """Use it in a `with` around waiting for a job: measures what keeps the event loop from turning.

    `longest_pause`: seconds between two turns, at most; on a busy machine it holds others' time, too.
    `longest_work`: the same in processor time of this process alone, which a busy machine does not spoil. Meanwhile
    Python's garbage collector passes over what was there before: after a thousand tests that would take it half a
    second, whatever is measured.
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
