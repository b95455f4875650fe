"""`dcamt train`: start, resume, stop or watch a run."""

from __future__ import annotations

import argparse
from functools import partial

from ..api.training import Observer, TrainingSession, follow_leader
from ..api.training_plan import choose_recipe, plan_new_run, plan_resumed_run
from ..cases.case_list import read_cases
from ..distributed import TeamLost, team_rank, team_size
from ..errors import DCAMTError, user_error
from ..runs.events import RunEvent, RunFinished
from ..runs.folder import RunFolder
from ..runs.lock import is_held
from ..runs.requests import STOP, write_request
from .console import Console, StdoutLost, print_error
from .options import UsageError, parse_path
from .watch import show_event, watch_run

_NEW_RUN_ARGUMENTS = "CASES.csv, --labels, --recipe, --start-from, --effort, --set"


def run_train(options: argparse.Namespace) -> int:
    """Start, resume, stop or watch a run; return the exit status."""
    if options.watch:
        if any((*_new_run_arguments(options), options.resume, options.stop)):
            raise UsageError(f"--watch only shows a run: leave out {_NEW_RUN_ARGUMENTS}, --resume and --stop")
        return watch_run(RunFolder(options.run), Console(options.json))
    if options.stop:
        if any((*_new_run_arguments(options), options.resume)) or team_size() > 1:
            raise UsageError(f"--stop ends an existing run: leave out {_NEW_RUN_ARGUMENTS}, --resume and torchrun")
        if is_held(RunFolder(options.run).lock):
            write_request(RunFolder(options.run), STOP)
            Console(options.json).print_text(f"{options.run}: will stop after the current iteration")
            return 0
    if options.cases is None and options.set and options.set[-1] and "=" not in options.set[-1]:
        # In `--set a=1 b=2 cases.csv`, argparse gives cases.csv to --set.
        options.cases = parse_path(options.set.pop())
    if options.resume and any(_new_run_arguments(options)):
        raise UsageError(f"--resume continues with the run's own cases and recipe: leave out {_NEW_RUN_ARGUMENTS}")
    if options.cases is None and not (options.resume or options.stop):
        raise UsageError("give the CASES.csv to train on")
    try:
        return _train(options)
    except TeamLost as error:
        raise user_error(error, options.run) from error
    except (DCAMTError, StdoutLost):
        raise
    except Exception as error:
        raise user_error(error, options.run) from error


def _new_run_arguments(options: argparse.Namespace) -> tuple[object, ...]:
    """Return the values of the arguments that only a new run may have."""
    return options.cases, options.labels, options.recipe, options.start_from, options.effort, options.set


def _train(options: argparse.Namespace) -> int:
    if team_rank() > 0:
        return follow_leader(RunFolder(options.run), options.device, print_error)
    console = Console(options.json)
    console.show_progress("loading PyTorch", 0)
    if options.resume or options.stop:
        plan = plan_resumed_run(options.run, options.device, conclude=options.stop)
    else:
        cases = read_cases(options.cases, options.labels, on_note=console.print_note)
        recipe, start = choose_recipe(
            options.recipe, options.start_from, options.set, options.effort, console.print_note
        )
        plan = plan_new_run(cases, options.run, recipe, start, options.device, console.print_note)

    def show(event: RunEvent) -> None:
        try:
            show_event(event, console)
        except StdoutLost:
            if not isinstance(event, RunFinished):
                session.pause()

    def show_report_progress(done: int, total: int) -> None:
        console.show_progress("scoring the validation cases", done / total)

    def show_calibration_progress(done: int, total: int) -> None:
        console.show_progress("calibrating the model", done / total)

    observer = Observer(
        show,
        show_report_progress,
        console.print_note,
        show_calibration_progress,
        partial(console.show_progress, "comparing the scans with the model's training scans"),
    )
    session = TrainingSession(plan, observer)
    session.run()
    return 0
