"""Show the events of a run."""

from __future__ import annotations

import time
from dataclasses import replace

from ..errors import InputError
from ..runs.events import (
    CasesLoading,
    CasesValidating,
    EventTail,
    RunEvent,
    RunFinished,
    RunPaused,
    RunStarted,
    TrainingProgress,
    ValidationScored,
    run_event_line,
)
from ..runs.folder import RunFolder
from ..runs.state import FAILED, RUNNING, run_state
from .console import Console, format_duration

POLL_EVERY_S = 0.5


def watch_run(run: RunFolder, console: Console) -> int:
    """Show past and new events until no process trains the run, or until Ctrl+C; return 1 if the run failed, else 0.

    Raises:
        InputError: the folder holds no run.
    """
    if not run.path.is_dir() or not (run.recipe.exists() or run.lock.exists()):
        raise InputError("holds no run to watch", path=run.path, remedy="Give the folder of a run.")
    tail = EventTail(run.events)
    try:
        while (state := run_state(run)).state == RUNNING:
            _show_new_events(tail, run, console)
            time.sleep(POLL_EVERY_S)
        _show_new_events(tail, run, console)
    except KeyboardInterrupt:
        return 0  # Only watching ends; the run continues.
    console.clear_progress()
    where = f" at iteration {state.iteration} of {state.iterations}" if state.iterations else ""
    console.print_text(f"{state.state}{where}{f': {state.reason}' if state.reason else ''}")
    return 1 if state.state == FAILED else 0


def _show_new_events(tail: EventTail, run: RunFolder, console: Console) -> None:
    while (event := tail.next()) is not None:
        if isinstance(event, RunFinished):
            # If the run was moved, the event's path is wrong. The path may also be relative to the working directory of
            # another process.
            event = replace(event, model=str(run.model))
        show_event(event, console)


def show_event(event: RunEvent, console: Console) -> None:
    """Print an event as JSON or as text. In text, progress moves the bar; checkpoints and pauses print nothing."""
    if console.as_json:
        console.print_line(run_event_line(event))
    elif isinstance(event, CasesLoading):
        console.show_progress("reading the cases", event.loaded / max(1, event.cases))
    elif isinstance(event, RunStarted):
        counts = f"cases: {event.labelled} labelled, {event.unlabelled} unlabelled, {event.validation} validation"
        action = "resuming" if event.resumed else "starting"
        console.print_text(f"{action} at iteration {event.iteration} of {event.iterations} on {event.device}; {counts}")
    elif isinstance(event, TrainingProgress):
        losses = ", ".join(f"{name} {value:.3f}" for name, value in event.losses.items())
        title = f"{event.iteration}/{event.iterations}  {losses}"
        if event.steps_per_s and event.eta_s is not None:
            pace = f"{event.steps_per_s:.2f} iterations/s  {format_duration(event.eta_s)} left"
            title = f"{event.iteration}/{event.iterations}  {pace}  {losses}"
        console.show_progress(title, event.iteration / max(1, event.iterations))
    elif isinstance(event, CasesValidating):
        console.show_progress("validating", event.validated / max(1, event.validation))
    elif isinstance(event, ValidationScored):
        dice = ", ".join(f"{name} {value:.3f}" for name, value in event.dice.get("mean", {}).items())
        console.print_text(f"iteration {event.iteration}: Dice of the validation cases: {dice}")
    elif isinstance(event, RunPaused):
        console.clear_progress()
    elif isinstance(event, RunFinished):
        console.print_text(f"trained for {format_duration(event.seconds)}", f"model: {event.model}")
