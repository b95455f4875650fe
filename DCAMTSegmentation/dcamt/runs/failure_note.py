"""Why a run's process failed, kept in its folder: the next one to look there need not have watched it.

The file is made, blank, when a process begins, and written over in place: that needs no room on a full disk. So a blank
note in a folder where nobody trains any more is that of a process which was killed.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

SIZE = 4096
"""Bytes; a longer message is cut."""


@dataclass(frozen=True)
class Fault:
    """message: one line for the person. unwritten: a file could not be written, most often for want of space."""

    message: str
    unwritten: bool = False


def prepare_note(path: Path) -> None:
    """Make the blank note; where that is impossible, the run goes without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(b" " * SIZE)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def write_note(path: Path, fault: Fault) -> None:
    """Write over the blank note; where there is none, nothing is kept."""
    message = fault.message
    while len(text := json.dumps(asdict(Fault(message, fault.unwritten))).encode()) > SIZE:
        message = message[: len(message) * 3 // 4]
    with suppress(OSError), path.open("rb+") as file:
        file.write(text.ljust(SIZE))


def read_note(path: Path) -> Fault | None:
    """What was noted; None if nothing was, or there is no note."""
    with suppress(OSError, ValueError, TypeError):
        return Fault(**json.loads(path.read_text(encoding="utf-8")))
    return None
