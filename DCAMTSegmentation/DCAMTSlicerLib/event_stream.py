"""Lines of JSON, as they come in from a process: events one by one, of which only the newest progress counts."""

from __future__ import annotations

import json
from collections import deque
from typing import Any


class EventStream:
    """Bytes in, events out. A line that is no event (a library's own print) is passed over."""

    def __init__(self) -> None:
        self._partial = b""
        self._lines: deque[bytes] = deque()

    def feed(self, data: bytes) -> None:
        """Take what has come in, be it half a line or many."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._lines.extend(lines)

    def waiting(self) -> bool:
        """Whether `next` has lines to look at."""
        return bool(self._lines)

    def next(self) -> dict[str, Any] | None:
        """The next event, None if there is none yet. Of progress in a row, only the last is worth a glance."""
        while self._lines:
            line = self._lines.popleft()
            # A look at the bytes, since to parse what is dropped would take the window's time.
            if self._lines and _is_progress(line) and _is_progress(self._lines[0]):
                continue
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                return event
        return None


def _is_progress(line: bytes) -> bool:
    return line.startswith(b'{"event": "progress"')
