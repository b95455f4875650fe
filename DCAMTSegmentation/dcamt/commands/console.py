"""Print the events of a command as JSON lines, or as text with a progress bar on a terminal."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from ..errors import escape_controls
from ..io.json_lines import json_line

BAR_WIDTH = 24
_CLEAR_LINE = "\r\x1b[K"


class StdoutLost(Exception):
    """Raised when stdout can no longer be written, usually because its reader has ended (`dcamt ... | head`)."""


class Console:
    """Prints JSON events (`as_json`) or text. With text, a progress bar appears on stderr if stderr is a terminal.

    Args:
        with_bar: whether to draw the bar. Of the processes that share a terminal, only one should draw it.

    Attributes:
        notes: the notes that `print_note` printed; the commands add them to their events.
    """

    def __init__(self, as_json: bool, with_bar: bool = True) -> None:
        self.as_json = as_json
        self.with_bar = with_bar
        self.notes: list[str] = []

    def print_event(self, event: str, **fields: Any) -> None:
        """Print an event as a JSON line in JSON mode; numbers that are not finite become null."""
        if self.as_json:
            self.print_line(json_line(event, fields))

    def print_text(self, *lines: str) -> None:
        """Print lines in text mode; control characters are escaped.

        All lines are printed in one write, since other processes may print at the same time.
        """
        if not self.as_json:
            self.clear_progress()
            self.print_line("\n".join(map(escape_controls, lines)))

    def print_line(self, text: str) -> None:
        """Print text and a line end on stdout in both modes. Raises StdoutLost if stdout cannot be written."""
        try:
            # One write, so that output of other processes on the terminal cannot separate the text from its line end.
            print(f"{text}\n", end="", flush=True)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            raise StdoutLost(str(error)) from error

    def print_error(self, message: str) -> None:
        """Print one line on stderr in both modes."""
        print_error(message)

    def print_note(self, note: str) -> None:
        """Print a note with `print_error` and add the note to `notes`; do nothing if `notes` contains the note."""
        if note not in self.notes:
            self.notes.append(note)
            self.print_error(note)

    def show_progress(self, title: str, fraction: float) -> None:
        """Redraw the progress bar at `fraction` (0 to 1) of the work."""
        if self.as_json or not self.with_bar or not _is_terminal():
            return
        filled = round(BAR_WIDTH * fraction)
        line = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {fraction:4.0%} {escape_controls(title)}".expandtabs()
        # A wrapped line cannot be cleared.
        sys.stderr.write(_CLEAR_LINE + line[: shutil.get_terminal_size().columns - 1])
        sys.stderr.flush()

    def clear_progress(self) -> None:
        """Remove the progress bar."""
        if not self.as_json and _is_terminal():
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()


def print_error(message: str) -> None:
    """Print one line on stderr, in place of the progress bar; does nothing if stderr cannot be written."""
    if sys.stderr is None:  # With `file=None`, `print` writes to stdout.
        return
    try:
        start = _CLEAR_LINE if _is_terminal() else ""
        print(f"{start}dcamt: {escape_controls(message)}\n", end="", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def format_duration(seconds: float) -> str:
    """Format seconds as m:ss or h:mm:ss.

    >>> format_duration(75), format_duration(4000)
    ('1:15', '1:06:40')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _is_terminal() -> bool:
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
