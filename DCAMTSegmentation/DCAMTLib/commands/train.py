"""`dcamt train`: a case list in, a run folder with a model package out."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..devices import choose_device
from ..errors import Cancelled, InputError
from ..model_package import Card, save_model
from ..model_store import verify_model
from ..recipe import Recipe, load_recipe, with_settings
from ..training.cases import LABELLED, ROLES, UNLABELLED, Case, read_cases
from ..training.events import Event, EventLog, Finished, Loading, Paused, Progress, Started, Validated, to_line
from ..training.run_folder import RunFolder
from ..training.trainer import Outcome, Trainer
from .console import Console, duration

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_RECIPE = "la"


def run_train(options: argparse.Namespace, usage_error: Callable[[str], object]) -> int:
    """Begin a run, or go on with one; returns 0 when its model is written."""
    run = RunFolder(options.run)
    device = choose_device(options.device)
    console = Console(options.json)
    start_from: dict[str, Tensor] | None = None
    if options.resume:
        if options.set or options.recipe or options.start_from:
            usage_error("--resume goes on with the run's own recipe: leave out --recipe, --start-from and --set")
        recipe, cases = run.open()
    else:
        if options.cases is None:
            usage_error("name the CASES.csv to train on")
        cases = read_cases(options.cases)
        recipe, start_from = starting_point(options)
        check_labelled(recipe, cases)
        run.create(recipe, cases)
    log = EventLog(run.events, [lambda event: show(event, console)])
    trainer = Trainer(recipe, run, device, log, start_from)
    if options.resume:
        trainer.resume()
    else:
        # Before the first step: however early a run is killed, --resume knows where it began.
        trainer.save()
    outcome = trainer.fit(cases, resumed=options.resume)
    if not outcome.finished:
        raise Cancelled(f"{run.path}: paused at iteration {outcome.step}. Go on with: dcamt train --run {run.path} --resume")
    save_model(run.model, outcome.weights, recipe, card(recipe, cases, outcome, run))
    trainer.finish(str(run.model), outcome)
    return 0


def starting_point(options: argparse.Namespace) -> tuple[Recipe, dict[str, Tensor] | None]:
    """The recipe to train by, and the weights to begin with (None: random).

    Raises:
        InputError: the recipe, a setting or the model cannot be used, or the model has another network.
    """
    if not options.start_from:
        return with_settings(load_recipe(options.recipe or DEFAULT_RECIPE), options.set), None
    package = verify_model(options.start_from)
    base = load_recipe(options.recipe) if options.recipe else package.recipe
    recipe = with_settings(base, options.set)
    same = ("network", "input_channels", "outputs")
    if any(getattr(recipe, name) != getattr(package.recipe, name) for name in same):
        raise InputError(
            f"has another network than the recipe '{recipe.name}'",
            path=options.start_from,
            remedy="Leave out --recipe, or start from scratch.",
        )
    return recipe, dict(package.network().state_dict())


def check_labelled(recipe: Recipe, cases: Sequence[Case]) -> None:
    """Raise InputError where a batch could not be made as the recipe asks."""
    mixed = any(case.role == UNLABELLED for case in cases)
    if mixed and recipe.training.labelled_per_batch == recipe.training.batch:
        raise InputError(
            "there are unlabelled cases, but a batch has room for labelled ones only",
            remedy="Set labelled_per_batch below batch, or leave the unlabelled cases out.",
        )


def card(recipe: Recipe, cases: Sequence[Case], outcome: Outcome, run: RunFolder) -> Card:
    """What is known of the model at the end of its run."""
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
        licence="not stated",
        created=datetime.date.today().isoformat(),
        trained_on={
            **counts,
            "iterations": outcome.step,
            "hours": round(outcome.seconds / 3600, 2),
            "semi_supervised": counts[UNLABELLED] > 0,
            "labelled_share": round(counts[LABELLED] / max(1, counts[LABELLED] + counts[UNLABELLED]), 3),
        },
        measured=measured,
        made_with=f"dcamt {__version__}",
    )


def show(event: Event, console: Console) -> None:
    """An event as a line of JSON, or as a person wants to see it."""
    if console.as_json:
        print(to_line(event), flush=True)
    elif isinstance(event, Loading):
        console.bar("reading the cases", event.step / event.of)
    elif isinstance(event, Started):
        what = f"{event.labelled} labelled, {event.unlabelled} unlabelled, {event.validation} validation cases"
        console.text(f"{'going on at' if event.resumed else 'starting at'} {event.step} of {event.of}: {what}, on {event.device}")
    elif isinstance(event, Progress):
        loss = ", ".join(f"{name} {value:.3f}" for name, value in event.losses.items())
        title = f"{event.step}/{event.of}  {event.steps_per_s:.2f}/s  {duration(event.eta_s)} left  {loss}"
        console.bar(title, event.step / event.of)
    elif isinstance(event, Validated):
        dice = ", ".join(f"{name} {value:.3f}" for name, value in event.dice["mean"].items())
        console.text(f"iteration {event.step}: Dice of the validation cases: {dice}")
    elif isinstance(event, Paused):
        console.clear()
    elif isinstance(event, Finished):
        console.text(f"finished in {duration(event.seconds)}\nmodel: {event.model}")
