"""Write the reason for a run's failure to a file in the run folder, and read it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import OutputError
from ..io.atomic import write_text
from ..io.in_use import remove_file
from ..io.typed_json import parse_json

ROOM = 4096
"""Bytes that are reserved for a note: the size of a block in most file systems."""


@dataclass(frozen=True)
class FailureNote:
    """The reason why a run failed.

    Attributes:
        message: one line for the user.
        unwritten: whether a file could not be written, for example on a full disk. A run with a checkpoint then counts
            as paused, not as failed.
    """

    message: str
    unwritten: bool = False


def reserve_note(path: Path) -> None:
    """Replace an earlier note with a blank file. On a full disk, `write_note` uses the room of the blank file."""
    remove_file(path)
    with suppress(OutputError):
        write_text(path, " " * ROOM)


def write_note(path: Path, note: FailureNote) -> None:
    """Write the note. If that is impossible, do nothing, since the process also prints the failure."""
    with suppress(OSError):
        remove_file(path)  # The note takes the room of the blank file.
    with suppress(OutputError):
        write_text(path, json.dumps(asdict(note)))


def remove_blank_note(path: Path) -> None:
    """Remove the file of `reserve_note`, unless `write_note` has written a note since."""
    with suppress(OSError):
        if read_note(path) is None:
            remove_file(path)


def read_note(path: Path) -> FailureNote | None:
    """Return the note; None if the file cannot be read or holds no note."""
    with suppress(OSError, ValueError, TypeError):
        return FailureNote(**parse_json(path.read_text(encoding="utf-8")))
    return None
