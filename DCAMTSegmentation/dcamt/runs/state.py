"""What became of a run, as its folder alone tells: whether it is trained now, how far it is, and why it ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .event_tail import EventTail
from .failure_note import read_note
from .folder import RunFolder
from .lock import is_held

RUNNING, PAUSED, STOPPED, FAILED, FINISHED = "running", "paused", "stopped", "failed", "finished"
STATES = (RUNNING, PAUSED, STOPPED, FAILED, FINISHED)
TAIL = 1 << 15
"""Bytes at the end of the events that are looked at: the last hundred or so."""
KILLED = "The process was ended from outside, or the computer was switched off. Go on from the last checkpoint."


@dataclass(frozen=True)
class RunState:
    """state: one of `STATES`. reason: why it failed or paused by itself, else empty.

    step, of: iterations done and planned; 0 where nobody knows yet. resumable: whether it can go on.
    """

    state: str
    reason: str = ""
    step: int = 0
    of: int = 0
    eta_s: float | None = None
    resumable: bool = False


def run_state(run: RunFolder) -> RunState:
    """The state of the run in a folder; reads the end of its events alone."""
    step, of, eta, last = _progress(run)
    resumable = run.recipe.exists() and run.checkpoint.exists()
    if is_held(run.lock):
        return RunState(RUNNING, step=step, of=of, eta_s=eta)
    note = read_note(run.failure)
    if note is not None:
        state = PAUSED if note.unwritten and resumable else FAILED
        return RunState(state, note.message, step, of, resumable=resumable)
    if last == "finished":
        done = step >= of
        return RunState(FINISHED if done else STOPPED, step=step, of=of, resumable=resumable and not done)
    if last == "paused":
        return RunState(PAUSED, step=step, of=of, resumable=resumable)
    if not run.recipe.exists():
        return RunState(FAILED, _last_line(run.log) or KILLED)
    return RunState(FAILED, KILLED, step, of, resumable=resumable)


def find_runs(folder: Path) -> Iterator[RunFolder]:
    """The runs that lie directly in a folder, the one that was begun last first."""
    found = []
    for path in _subfolders(folder):
        run = RunFolder(path)
        try:
            begun = next((file for file in (run.recipe, run.log) if file.is_file()), None)
            if begun is not None:
                found.append((begun.stat().st_mtime, run))
        except OSError:  # a folder that this person may not read, such as a disk's lost+found
            continue
    for _, run in sorted(found, key=lambda item: -item[0]):
        yield run


def _subfolders(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _progress(run: RunFolder) -> tuple[int, int, float | None, str]:
    """Iterations done and planned, the time left in seconds, and the kind of the last event that ends a run."""
    tail = EventTail(run.events, from_end=TAIL)
    step, of, eta, last = 0, 0, None, ""
    while (event := tail.next()) is not None:
        kind = event["event"]
        if kind in ("started", "progress", "validation", "checkpoint", "paused", "finished"):
            step = int(event.get("step") or 0)
        if kind in ("started", "progress"):
            of = int(event.get("of") or 0)
            eta = event.get("eta_s")
        last = kind if kind in ("paused", "finished") else "" if kind == "started" else last
    return step, of, _seconds(eta), last


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("dcamt: ") for line in reversed(lines) if line.strip()), "")
