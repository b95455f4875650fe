"""Write and parse the events of commands, training runs and the worker: one JSON object a line."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from .typed_json import parse_json


def json_line(event: str, fields: Mapping[str, Any]) -> str:
    """Return an event as a line of JSON without its line end; numbers that are not finite become null.

    >>> json_line("finished", {"trust": float("nan"), "size": (3, 4)})
    '{"event": "finished", "trust": null, "size": [3, 4]}'
    """
    return json.dumps({"event": event, **plain(fields)}, allow_nan=False)


def plain(value: Any) -> Any:
    """Return `value` with NaN and infinity replaced by None, tuples by lists, and mappings by dictionaries."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class JsonLines:
    """Parses events from bytes; an event is a line with a JSON object whose field `event` is a string.

    Other lines, such as a library's output or a line cut off by a crash, are skipped. With `newest_progress`, a
    progress event is skipped if the next line is already available and is another progress event.
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
        """Skip the first line of the next bytes, since its beginning is missing."""
        self._skip_first = True

    def forget_partial_line(self) -> None:
        """Drop an incomplete last line; the next bytes begin a new line."""
        self._partial = b""
        self._skip_first = False

    def has_lines(self) -> bool:
        """Return whether there are lines that `next` has not parsed."""
        return bool(self._lines)

    def next(self) -> dict[str, Any] | None:
        """Return the next event; None if there is none yet."""
        while self._lines:
            line = self._lines.popleft()
            # Progress events are recognised by their first bytes, which is faster than parsing them.
            if self._newest_progress and self._lines and _is_progress(line) and _is_progress(self._lines[0]):
                continue
            try:
                event = parse_json(line)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                return event
        return None


def _is_progress(line: bytes) -> bool:
    return line.startswith(b'{"event": "progress"')
