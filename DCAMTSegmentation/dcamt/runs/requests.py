"""Request a run to pause or stop, by a small file in its folder."""

from __future__ import annotations

import os

from ..errors import InputError
from ..io.atomic import write_text
from ..io.in_use import remove_file
from .folder import RunFolder

PAUSE, STOP = "pause", "stop"
"""Pause: save a checkpoint and end the process, to resume later. Stop: write the models and finish the run."""


def write_request(run: RunFolder, request: str) -> None:
    """Write the request `PAUSE` or `STOP`. The process obeys it at its next check, usually after an iteration.

    Raises:
        InputError: the run's folder does not exist, since it was removed.
        OutputError: the file cannot be written.
    """
    if not os.path.isdir(run.path):
        raise InputError("does not exist", path=run.path, remedy="Choose another run.")
    write_text(run.request, request)


def read_request(run: RunFolder) -> str | None:
    """Return the request, `PAUSE` or `STOP`; None if there is none."""
    try:
        text = run.request.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return text if text in (PAUSE, STOP) else None


def remove_request(run: RunFolder) -> None:
    """Remove the request, so that the next process does not obey it."""
    remove_file(run.request)
