"""`dcamt train`: a case list in, a run folder with a model package out."""

from __future__ import annotations

import argparse
import datetime
import shlex
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..cases.case_list import LABELLED, ROLES, UNLABELLED, Case, read_cases
from ..distributed import (
    Team,
    TeamLost,
    describe_process,
    is_first_on_machine,
    own_device,
    process_group,
    team_rank,
    team_size,
    wait_for_leader,
)
from ..errors import Cancelled, DCAMTError, InputError, OutputError, user_error
from ..models.package import Card
from ..recipe import Recipe, load_recipe, with_settings
from ..runs.efforts import effort_settings
from ..runs.events import (
    Event,
    EventLog,
    RunFinished,
    RunStarted,
)
from ..runs.failure_note import FailureNote, write_note
from ..runs.folder import Origin, RunFolder
from ..runs.lock import is_held, run_lock
from ..runs.requests import STOP, ask, withdraw_request
from .console import Console, StdoutLost, print_error
from .process import interrupt_on_sigterm
from .watch import show_event, watch_run

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..training.trainer import Outcome, Trainer

DEFAULT_RECIPE = "la"


def run_train(options: argparse.Namespace, usage_error: Callable[[str], object]) -> int:
    """Begin a run, or go on with one; returns 0 when its model is written."""
    if options.watch:
        if options.cases or options.resume or options.set or options.recipe or options.start_from:
            usage_error("--watch only looks on: give it --run and nothing else")
        return watch_run(RunFolder(options.run), Console(options.json))
    if options.stop:
        others = (options.cases, options.resume, options.set, options.recipe, options.start_from, options.effort)
        if any(others) or team_size() > 1:
            usage_error("--stop ends a run that is there, in one process: give it --run and nothing else")
        if is_held(RunFolder(options.run).lock):
            ask(RunFolder(options.run), STOP)
            Console(options.json).print_text(f"{options.run}: asked to stop after the iteration in hand")
            return 0
        options.resume = True
    if options.cases is None and options.set and "=" not in options.set[-1]:
        options.cases = Path(options.set.pop())  # `--set a=1 b=2 cases.csv`
    if options.resume and (options.set or options.recipe or options.start_from or options.effort):
        usage_error("--resume goes on with the run's own recipe: leave out --recipe, --start-from, --effort and --set")
    if not options.resume and options.cases is None:
        usage_error("name the CASES.csv to train on")
    try:
        return _train(options)
    except TeamLost as error:
        raise user_error(error, options.run) from error
    except (DCAMTError, StdoutLost):
        raise
    except Exception as error:
        raise user_error(error, options.run) from error


def _train(options: argparse.Namespace) -> int:
    if team_rank() > 0:
        return _follow(options)
    run = RunFolder(options.run)
    console = Console(options.json)
    recipe, cases, origin, start_from = _asked_for(options, run)
    if not (options.resume or run.lock.exists()):
        run.check_new()  # a folder that holds something else is not touched, even for the lock
    with run_lock(run.lock):
        if options.resume:
            run.remove_strays()
        else:
            run.check_new()
        withdraw_request(run)
        run.failure.unlink(missing_ok=True)  # of an earlier process
        try:
            status = _train_locked(options, run, recipe, cases, origin, start_from, console)
        except Cancelled:
            raise
        except Exception as error:
            fault = user_error(error, options.run)
            if run.recipe.exists():  # a run that was withdrawn leaves nothing
                write_note(run.failure, FailureNote(str(fault), isinstance(fault, OutputError)))
            raise
        finally:
            withdraw_request(run)
        return status


def _asked_for(
    options: argparse.Namespace, run: RunFolder
) -> tuple[Recipe, Sequence[Case], Origin | None, dict[str, Tensor] | None]:
    """What to train on what, and the model and weights to begin with."""
    if options.resume:
        recipe, cases = run.open()
        return recipe, cases, run.started_from(), None
    cases = read_cases(options.cases)
    recipe, origin, start_from = starting_point(options)
    check_labelled(recipe, cases)
    return recipe, cases, origin, start_from


def _follow(options: argparse.Namespace) -> int:
    """The part of a process that does not lead its team: step by step what `_train_locked` does, less what it tells."""
    from ..devices import choose_device
    from ..training.trainer import Trainer

    try:
        device = own_device(choose_device(options.device, training=True))
    except InputError:
        if is_first_on_machine():
            raise  # the leader is on another machine, and cannot know
        return 1
    try:
        with process_group(device) as team:
            job: _Job = team.broadcast(None)
            with team.fail_together():
                trainer = Trainer(job.recipe, RunFolder(options.run), device, EventLog(None), job.start_from, team)
            if job.resume:
                trainer.resume()
                if team.broadcast(None):
                    return 0
            trainer.fit(job.cases, resumed=job.resume)
        return 0  # paused, too: torchrun would end the leader, which is not done, for another status
    except DCAMTError:
        wait_for_leader()
        return 1
    except Exception as error:
        print_error(f"{describe_process()}: {user_error(error)}")
        return 1


@dataclass(frozen=True)
class _Job:
    """What the leader hands to the others, who may be on machines without these files."""

    recipe: Recipe
    cases: Sequence[Case]
    start_from: dict[str, Tensor] | None
    resume: bool


def _train_locked(
    options: argparse.Namespace,
    run: RunFolder,
    recipe: Recipe,
    cases: Sequence[Case],
    origin: Origin | None,
    start_from: dict[str, Tensor] | None,
    console: Console,
) -> int:
    """The run from its first checkpoint, or its last one, to its model, in a folder that is this process's alone."""
    # What loads torch comes after all that can go wrong without it.
    from ..devices import choose_device
    from ..networks.packaging import save_model
    from ..training.trainer import Trainer

    device = own_device(choose_device(options.device, training=True))
    heard = _Listener(console)
    with process_group(device) as team:
        if team.size > 1:
            # torchrun ends all once one has ended. That must not take this one away before it has saved and said so.
            signal.signal(signal.SIGTERM, lambda number, frame: heard.pause())
        team.broadcast(_Job(recipe, cases, start_from, options.resume))
        with team.fail_together():
            trainer = heard.trainer = Trainer(recipe, run, device, EventLog(run.events, [heard]), start_from, team)
        if options.resume:
            trainer.resume()
            if team.broadcast(trainer.step >= recipe.training.iterations and run.model.exists()):
                show_event(RunFinished(trainer.step, str(run.model), trainer.seconds), console)
                return 0
        try:
            if not options.resume:
                # With a checkpoint before the first step: however early a run is killed, --resume knows where it began.
                run.create(recipe, cases, trainer.save, origin)
            outcome = trainer.conclude(cases) if options.stop else trainer.fit(cases, resumed=options.resume)
        except BaseException:  # Ctrl-C, too
            if not (options.resume or heard.started):
                run.withdraw()
            raise
    if not (outcome.finished or outcome.stopped):
        go_on = f"dcamt train --run {shlex.quote(str(run.path))} --resume"
        raise Cancelled(f"{run.path}: paused at iteration {outcome.step}. Go on with: {go_on}")
    with interrupt_on_sigterm():
        save_model(run.model, outcome.weights, recipe, card(recipe, cases, outcome, run, origin))
        best = trainer.best()
        if best is None:
            run.best.unlink(missing_ok=True)
        else:
            named = card(recipe, cases, best, run, origin)
            save_model(run.best, best.weights, recipe, replace(named, name=f"{named.name}-best"))
    report(run, device, console)
    trainer.finish(str(run.model), outcome)
    return 0


def report(run: RunFolder, device: torch.device, console: Console) -> None:
    """Write the run's report. The model is safe by now: whatever hinders the report is only told of."""
    from ..report.run_report import write_report

    again = f"Write it with: dcamt report {shlex.quote(str(run.path))}"
    try:
        write_report(run, device, lambda done, of: console.show_progress("measuring the validation cases", done / of))
    except KeyboardInterrupt:
        console.print_error(f"{run.path}: no report was written, as you wished. {again}")
    except Exception as error:
        console.print_error(f"no report was written: {user_error(error, run.path)} {again}")


class _Listener:
    """Shows a run's events. Where nobody reads them any more, the run pauses rather than dies."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.trainer: Trainer | None = None
        self.started = False

    def __call__(self, event: Event) -> None:
        self.started = self.started or isinstance(event, RunStarted)
        try:
            show_event(event, self.console)
        except StdoutLost:
            if not isinstance(event, RunFinished):
                self.pause()

    def pause(self) -> None:
        """Ask the run to end after the iteration in hand."""
        if self.trainer is not None:
            self.trainer.stop_asked = True


def starting_point(options: argparse.Namespace) -> tuple[Recipe, Origin | None, dict[str, Tensor] | None]:
    """The recipe to train by, and the model and its weights to begin with (None, None: random ones).

    Raises:
        InputError: the recipe, a setting or the model cannot be used, or the model has another network.
    """
    if not options.start_from:
        return _with_effort(load_recipe(options.recipe or DEFAULT_RECIPE), options), None, None
    from ..networks.packaging import build_network, verify_model

    package = verify_model(options.start_from)
    base = load_recipe(options.recipe) if options.recipe else package.recipe
    recipe = _with_effort(base, options)
    same = ("network", "input_channels", "outputs")
    if any(getattr(recipe, name) != getattr(package.recipe, name) for name in same):
        raise InputError(
            f"has another network than the recipe '{recipe.name}'",
            path=options.start_from,
            remedy="Leave out --recipe, or start from scratch.",
        )
    return recipe, Origin.of(package.card), dict(build_network(package).state_dict())


def _with_effort(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    effort = effort_settings(recipe, options.effort) if isinstance(options.effort, str) else []
    return with_settings(recipe, [*effort, *options.set])


def check_labelled(recipe: Recipe, cases: Sequence[Case]) -> None:
    """Raise InputError where a batch could not be made as the recipe asks."""
    mixed = any(case.role == UNLABELLED for case in cases)
    if mixed and recipe.training.labelled_per_batch == recipe.training.batch:
        raise InputError(
            "there are unlabelled cases, but a batch has room for labelled ones only",
            remedy="Set labelled_per_batch below batch, or leave the unlabelled cases out.",
        )
    training = recipe.training
    Team(0, team_size()).sample_indices(training.labelled_per_batch if mixed else training.batch, training.batch)


def card(recipe: Recipe, cases: Sequence[Case], outcome: Outcome, run: RunFolder, origin: Origin | None = None) -> Card:
    """What is known of the model at the end of its run; `origin`: the model that it began as."""
    counts = {role: sum(case.role == role for case in cases) for role in ROLES}
    measured: tuple[dict[str, Any], ...] = ()
    if outcome.dice is not None:
        measured = (
            {
                "on": f"{counts['validation']} validation cases of the run, on the network's grid",
                "dice": {key: {name: round(d, 4) for name, d in of.items()} for key, of in outcome.dice.items()},
            },
        )
    return Card(
        name=run.path.resolve().name,
        title=recipe.title,
        segments=tuple(info.name for info in recipe.classes),
        modality=recipe.modality,
        version="1",
        licence=f"as {origin.name}: {origin.licence}" if origin else "not stated",
        created=datetime.date.today().isoformat(),
        trained_on={
            **counts,
            "iterations": outcome.step,
            "hours": round(outcome.seconds / 3600, 2),
            "semi_supervised": counts[UNLABELLED] > 0,
            "labelled_share": round(counts[LABELLED] / max(1, counts[LABELLED] + counts[UNLABELLED]), 3),
            **({"started_from": asdict(origin)} if origin else {}),
        },
        measured=measured,
        made_with=f"dcamt {__version__}",
    )
