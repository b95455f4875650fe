"""What a command shows: lines of JSON, or text with a progress bar where a person watches."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from ..io.json_lines import json_line

BAR = 24
_CLEAR_LINE = "\r\x1b[K"


class StdoutLost(Exception):
    """Standard output cannot be written any more, most often because its reader has gone (`dcamt ... | head`)."""


class Console:
    """Prints events (`as_json`) or text. The bar goes to stderr, and only if that is a terminal.

    `draws_bar`: of processes that share a terminal, one draws it.
    """

    def __init__(self, as_json: bool, draws_bar: bool = True) -> None:
        self.as_json = as_json
        self.draws_bar = draws_bar

    def event(self, event: str, **fields: Any) -> None:
        """A line of JSON, if that is what is printed; numbers that are not finite become null."""
        if self.as_json:
            self.line(json_line(event, fields))

    def text(self, line: str) -> None:
        """A line of text, unless JSON is printed."""
        if not self.as_json:
            self.clear()
            self.line(line)

    def line(self, line: str) -> None:
        """A line on stdout, whatever is printed. Raises StdoutLost if it cannot be written."""
        try:
            # With its end in one piece, since another process may be writing to the same place.
            print(f"{line}\n", end="", flush=True)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            raise StdoutLost(str(error)) from error

    def warn(self, line: str) -> None:
        """A line on stderr, whatever is printed."""
        tell(line)

    def bar(self, title: str, share: float) -> None:
        """Draw the bar anew, `share` from 0 to 1."""
        if self.as_json or not self.draws_bar or not _is_terminal():
            return
        filled = round(BAR * share)
        line = f"[{'#' * filled}{'.' * (BAR - filled)}] {share:4.0%} {title}"
        # A line that wraps could not be taken away again.
        sys.stderr.write(_CLEAR_LINE + line[: shutil.get_terminal_size().columns - 1])
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the bar away."""
        if not self.as_json and _is_terminal():
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()


def tell(message: str) -> None:
    """One line on stderr, in place of the bar if there is one; lost without complaint if nobody can read it."""
    if sys.stderr is None:  # closed from the start; `print` would take stdout instead
        return
    try:
        start = _CLEAR_LINE if _is_terminal() else ""
        print(f"{start}dcamt: {' '.join(message.split())}\n", end="", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def duration(seconds: float) -> str:
    """`75` -> `1:15`, `4000` -> `1:06:40`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _is_terminal() -> bool:
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
