"""What the log shows on demand: when what began, what there was to note, and the details of a failure."""

from __future__ import annotations

import time
from collections import deque

LINES = 500


class SegmentationLog:
    """The newest lines, each with the time of day."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES)
        self._stage = ""

    def add(self, text: str) -> None:
        """One entry, of one line or several."""
        self._stage = ""
        self._lines.append(f"{time.strftime('%H:%M:%S')} {text}")

    def stage(self, stage: str) -> None:
        """An entry if the stage is another than before."""
        if stage != self._stage:
            self.add(stage)
            self._stage = stage

    def text(self) -> str:
        return "\n".join(self._lines)
