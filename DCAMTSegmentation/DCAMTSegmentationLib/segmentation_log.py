"""Keep the log that the panel shows on demand: stages, notes and details of failures."""

from __future__ import annotations

import time
from collections import deque

MOST_ENTRIES = 500


class SegmentationLog:
    """Keeps the newest entries, each with the time of day."""

    def __init__(self) -> None:
        self._entries: deque[str] = deque(maxlen=MOST_ENTRIES)
        self._stage = ""

    def add(self, text: str) -> None:
        """Add an entry of one or several lines."""
        self._stage = ""
        self._entries.append(f"{time.strftime('%H:%M:%S')} {text}")

    def add_stage(self, stage: str) -> None:
        """Add a stage as an entry, unless the last entry is the same stage."""
        if stage != self._stage:
            self.add(stage)
            self._stage = stage

    def text(self) -> str:
        """Return the kept entries, the newest last."""
        return "\n".join(self._entries)
