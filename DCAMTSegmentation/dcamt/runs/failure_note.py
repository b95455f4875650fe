"""Write and read the reason why a run's process failed, as a file in the run folder."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import OutputError
from ..io.atomic import write_text


@dataclass(frozen=True)
class FailureNote:
    """Why a run ended; `message` is one line, `unwritten` tells that a file could not be written (disk full)."""

    message: str
    unwritten: bool = False


def write_note(path: Path, note: FailureNote) -> None:
    """Write the note; do nothing if it cannot be written, since the failure itself is already reported."""
    with suppress(OutputError):
        write_text(path, json.dumps(asdict(note)))


def read_note(path: Path) -> FailureNote | None:
    """Return the note, None if there is none; a blank file of an earlier version of DCAMT counts as none."""
    with suppress(OSError, ValueError, TypeError):
        return FailureNote(**json.loads(path.read_text(encoding="utf-8")))
    return None
