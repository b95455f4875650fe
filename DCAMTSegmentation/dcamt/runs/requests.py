"""How another process asks a run to pause or to stop: a small file in its folder, which works on every system."""

from __future__ import annotations

from ..io.atomic import atomic_path
from .folder import RunFolder

PAUSE, STOP = "pause", "stop"
"""Pause: save a checkpoint and end, to go on later. Stop: make the models of what was learnt so far, and end."""


def ask(run: RunFolder, what: str) -> None:
    """Ask the process that trains in the folder; it answers by ending, after the iteration in hand.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_path(run.request) as partial:
        partial.write_text(what, encoding="ascii")


def asked(run: RunFolder) -> str | None:
    """`PAUSE`, `STOP`, or None if nobody asks."""
    try:
        text = run.request.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return text if text in (PAUSE, STOP) else None


def withdraw_request(run: RunFolder) -> None:
    """What was asked of an earlier process is no request to the next one."""
    run.request.unlink(missing_ok=True)
