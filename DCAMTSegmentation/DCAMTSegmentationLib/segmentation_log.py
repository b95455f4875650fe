"""Keep the log that the panel shows on demand: stages, notes and details of failures, each with its time."""

from __future__ import annotations

import time
from collections import deque

LINES = 500


class SegmentationLog:
    """Keeps the newest entries, each with the time of day."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES)
        self._stage = ""

    def add(self, text: str) -> None:
        """Add an entry of one or several lines."""
        self._stage = ""
        self._lines.append(f"{time.strftime('%H:%M:%S')} {text}")

    def add_stage(self, stage: str) -> None:
        """Add an entry if the stage has changed."""
        if stage != self._stage:
            self.add(stage)
            self._stage = stage

    def text(self) -> str:
        """Return all entries, the newest last."""
        return "\n".join(self._lines)
