"""Write and split JSON lines, one event a line, as commands, training runs and the worker exchange them."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from typing import Any


def json_line(event: str, fields: Mapping[str, Any]) -> str:
    """Return an event as a line of JSON without its line end; numbers that are not finite become null.

    >>> json_line("finished", {"trust": float("nan"), "size": (3, 4)})
    '{"event": "finished", "trust": null, "size": [3, 4]}'
    """
    return json.dumps({"event": event, **plain(fields)}, allow_nan=False)


def plain(value: Any) -> Any:
    """Return `value` as JSON knows it: NaN and infinity become None, tuples become lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class JsonLines:
    """Split bytes into lines and the lines into events; an event is a JSON object with a string `event`.

    Other lines (a library's own output, a line that a crash cut off) are skipped. With `newest_progress`, of several
    successive progress events only the last one is returned.
    """

    def __init__(self, newest_progress: bool = False) -> None:
        self._newest_progress = newest_progress
        self._partial = b""
        self._lines: deque[bytes] = deque()
        self._skip_first = False

    def feed(self, data: bytes) -> None:
        """Append bytes, which may end within a line."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        if self._skip_first and lines:
            lines.pop(0)
            self._skip_first = False
        self._lines.extend(lines)

    def skip_first_line(self) -> None:
        """Ignore the first line of the bytes to come, which began before them."""
        self._skip_first = True

    def forget_partial_line(self) -> None:
        """Drop the beginning of a line whose rest will not come."""
        self._partial = b""

    def has_lines(self) -> bool:
        """Return whether `next` has lines to parse."""
        return bool(self._lines)

    def next(self) -> dict[str, Any] | None:
        """Return the next event; None if there is none yet."""
        while self._lines:
            line = self._lines.popleft()
            # Compares bytes, since parsing what is dropped would take an application's time.
            if self._newest_progress and self._lines and _is_progress(line) and _is_progress(self._lines[0]):
                continue
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                return event
        return None


def _is_progress(line: bytes) -> bool:
    return line.startswith(b'{"event": "progress"')
