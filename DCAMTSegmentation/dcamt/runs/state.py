"""Determine the state of a run from its folder: whether a process trains it, its progress, and why it ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..machine import free_disk_bytes
from ..recipe_files import load_recipe
from .events import CasesLoading, CheckpointSaved, EventTail, RunFinished, RunPaused, RunStarted, TrainingProgress
from .failure_note import read_note
from .folder import RunFolder
from .lock import is_held

RUNNING, PAUSED, STOPPED, FAILED, FINISHED = "running", "paused", "stopped", "failed", "finished"

TAIL = 1 << 15
"""Bytes read at the end of the events file: about a hundred events."""
SMALLEST_CHECKPOINT = 1 << 20
"""A checkpoint has more bytes than this."""
DISCARDED_PREFIX = ".discarded-"
KILLED = "The process was killed, or the computer was switched off."
_RESUME, _START_AGAIN = "Resume from the last checkpoint.", "Start the run again."


@dataclass(frozen=True)
class RunState:
    """The state of a run.

    Attributes:
        state: `RUNNING`, `PAUSED`, `STOPPED`, `FAILED` or `FINISHED`.
        reason: why the run's last process failed; otherwise empty.
        iteration, iterations: iterations trained and planned; 0 if unknown. If no process trains the run, iterations
            after the last checkpoint do not count.
        eta_s: estimated seconds to the end while the run trains; None if unknown.
        resumable: whether the run can resume from a checkpoint now; False while a process trains it. A `FINISHED` run
            is resumable only if its model is missing.
    """

    state: str
    reason: str = ""
    iteration: int = 0
    iterations: int = 0
    eta_s: float | None = None
    resumable: bool = False


def run_state(run: RunFolder) -> RunState:
    """Return the state of a run; usually, only the last `TAIL` bytes of the run's file of events are read."""
    progress = _read_progress(run)
    # `Path.exists` would raise an error if the disk of the run does not answer.
    resumable = os.path.exists(run.recipe) and os.path.exists(run.checkpoint)
    if is_held(run.lock):
        return RunState(RUNNING, "", progress.iteration, progress.iterations, progress.eta_s)
    counts = (_saved_iteration(run, progress), progress.iterations)
    note = read_note(run.failure)
    if isinstance(progress.ended_by, RunFinished):
        return _ended_state(run, progress, note.message if note is not None else "", resumable)
    if note is not None:
        return RunState(PAUSED if note.unwritten and resumable else FAILED, note.message, *counts, resumable=resumable)
    if isinstance(progress.ended_by, RunPaused):
        return RunState(PAUSED, "", *counts, resumable=resumable)
    killed = _describe_sudden_end(run, _RESUME if resumable else _START_AGAIN)
    if not os.path.exists(run.recipe):
        return RunState(FAILED, last_line(run.log) or killed)
    return RunState(FAILED, killed, *counts, resumable=resumable)


def _ended_state(run: RunFolder, progress: _Progress, reason: str, resumable: bool) -> RunState:
    # A person may have changed the iterations in the recipe.
    try:
        iterations = load_recipe(run.recipe, for_training=False).training.iterations
    except InputError:
        iterations = progress.iterations
    if progress.iteration < iterations:
        return RunState(STOPPED, reason, progress.iteration, iterations, resumable=resumable)
    resumable = resumable and not os.path.exists(run.model)
    return RunState(FINISHED, reason, progress.iteration, progress.iteration, resumable=resumable)


def _describe_sudden_end(run: RunFolder, remedy: str) -> str:
    try:
        os.listdir(run.path)
    except OSError as error:
        reason = error.strerror or str(error)
        return f"The run's folder cannot be read ({reason}). Connect its disk again, or check its permissions."
    free = free_disk_bytes(run.path)
    if free is None or free >= _size_of_checkpoint(run):
        return f"{KILLED} {remedy}"
    return f"{KILLED} Or the disk was full: only {free / 1e6:.0f} MB are left. Free some space. {remedy}"


def _size_of_checkpoint(run: RunFolder) -> int:
    try:
        return max(SMALLEST_CHECKPOINT, os.path.getsize(run.checkpoint))
    except OSError:
        return SMALLEST_CHECKPOINT


def find_runs(folder: Path) -> Iterator[RunFolder]:
    """Yield the runs whose folders lie directly in `folder`, the newest first."""
    dated_runs = []
    for path in _subfolders(folder):
        if path.name.startswith(DISCARDED_PREFIX):
            continue
        run = RunFolder(path)
        try:
            begun = _first_file(run)
            if begun is not None:
                dated_runs.append((begun.stat().st_mtime, run))
        except OSError:  # The user has no permission for the folder, such as a disk's lost+found.
            continue
    for _, run in sorted(dated_runs, key=lambda item: -item[0]):
        yield run


def _first_file(run: RunFolder) -> Path | None:
    """Return the file that was written when the run began; None if the folder is not a run's folder.

    A recipe or a log alone is not enough: another program's folder may hold a file with the same name. Such a folder
    would be listed as a run, and the training module's button *Discard…* would then offer to delete it.
    """
    if run.recipe.is_file():
        has_begun = any(path.exists() for path in (run.checkpoint.parent, run.events, run.model))
        return run.recipe if has_begun else None
    return run.log if run.log.is_file() and run.scans.is_dir() else None


def _subfolders(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


@dataclass
class _Progress:
    """A run's progress; `ended_by` is the event with which its last process ended.

    Attributes:
        saved: the iteration of the last checkpoint; None if unknown.
    """

    iteration: int = 0
    iterations: int = 0
    saved: int | None = None
    eta_s: float | None = None
    ended_by: RunPaused | RunFinished | None = None


def _read_progress(run: RunFolder) -> _Progress:
    progress = _progress_of(EventTail(run.events, TAIL, newest_progress=True))
    if progress.iterations:
        return progress
    # The last bytes may hold only `CasesLoading` events, one for each case.
    return _progress_of(EventTail(run.events, newest_progress=True))


def _saved_iteration(run: RunFolder, progress: _Progress) -> int:
    if progress.saved is None:  # The last bytes may hold only `TrainingProgress` events.
        progress = _progress_of(EventTail(run.events, newest_progress=True))
    return progress.iteration if progress.saved is None else progress.saved


def _progress_of(tail: EventTail) -> _Progress:
    progress = _Progress()
    while (event := tail.next()) is not None:
        if isinstance(event, CasesLoading):
            # A process loads its cases before it trains, so the last estimate comes from an earlier process.
            progress.eta_s = None
            continue
        progress.iteration = event.iteration
        if isinstance(event, RunStarted | TrainingProgress):
            progress.iterations = event.iterations
            progress.eta_s = event.eta_s if isinstance(event, TrainingProgress) else None
        if isinstance(event, RunStarted | CheckpointSaved | RunPaused | RunFinished):
            progress.saved = event.iteration
        if isinstance(event, RunPaused | RunFinished):
            progress.ended_by, progress.eta_s = event, None
        elif isinstance(event, RunStarted):
            progress.ended_by = None
    return progress


def last_line(log: Path, start: int = 0) -> str:
    """Return the last message in a run's log after its first `start` bytes; empty if there is none."""
    try:
        lines = log.read_bytes()[start:].decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("dcamt: ") for line in reversed(lines) if line.strip()), "")
