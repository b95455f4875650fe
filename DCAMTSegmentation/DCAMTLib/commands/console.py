"""What a command shows: lines of JSON, or text with a progress bar where a person watches."""

from __future__ import annotations

import json
import sys
from typing import Any

BAR = 24


class Console:
    """Prints events (`as_json`) or text. The bar goes to stderr, and only if that is a terminal."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._bar_shown = False

    def event(self, event: str, **fields: Any) -> None:
        """A line of JSON, if that is what is printed."""
        if self.as_json:
            print(json.dumps({"event": event, **fields}), flush=True)

    def text(self, line: str) -> None:
        """A line of text, unless JSON is printed."""
        if not self.as_json:
            self.clear()
            print(line, flush=True)

    def warn(self, line: str) -> None:
        """A line on stderr, whatever is printed."""
        self.clear()
        print(line, file=sys.stderr, flush=True)

    def bar(self, title: str, share: float) -> None:
        """Draw the bar anew, `share` from 0 to 1."""
        if self.as_json or not sys.stderr.isatty():
            return
        filled = round(BAR * share)
        sys.stderr.write(f"\r\x1b[K[{'#' * filled}{'.' * (BAR - filled)}] {share:4.0%} {title}")
        sys.stderr.flush()
        self._bar_shown = True

    def clear(self) -> None:
        """Take the bar away."""
        if self._bar_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._bar_shown = False


def duration(seconds: float) -> str:
    """`75` -> `1:15`, `4000` -> `1:06:40`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
