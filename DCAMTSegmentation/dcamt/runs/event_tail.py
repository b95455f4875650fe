"""A run's events as they come in, read on from where the last look ended."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

CHUNK = 1 << 16
"""Bytes read at a time: a few hundred events."""


class EventTail:
    """Follows a file of one JSON event a line, from its beginning on or, with `from_end`, from its last bytes on.

    A last line without an end is still being written, and waits. A file that became shorter is read anew.
    """

    def __init__(self, path: Path, from_end: int | None = None) -> None:
        self._path = path
        self._offset = 0
        self._partial = b""
        self._lines: deque[bytes] = deque()
        self._cut = False
        if from_end is not None:
            self._offset = max(0, self._size() - from_end)
            self._cut = self._offset > 0

    def next(self) -> dict[str, Any] | None:
        """The next event, None if there is none yet; reads no more than `CHUNK` bytes of the file."""
        if not self._lines:
            self._read()
        while self._lines:
            try:
                event = json.loads(self._lines.popleft())
            except ValueError:  # a crash cut it off
                continue
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                return event
        return None

    @property
    def at_end(self) -> bool:
        """Whether all that the file holds was handed out."""
        return not self._lines and self._offset >= self._size()

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def _read(self) -> None:
        if self._size() < self._offset:
            self._offset, self._partial = 0, b""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(CHUNK)
        except OSError:
            return
        self._offset += len(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        if self._cut and lines:
            lines.pop(0)  # it began before the place where reading did
            self._cut = False
        self._lines.extend(lines)
