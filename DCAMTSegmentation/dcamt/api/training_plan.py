"""Plan a run: its folder, recipe, cases, start weights and device."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cases.case_list import (
    ROLES,
    UNLABELLED,
    VALIDATION,
    Case,
    Rule,
    read_cases,
    refuse_violations,
    used_cases,
    violations,
)
from ..cases.case_scans import refuse_mixed_orders, unused_channel_files
from ..distributed import Team, team_size
from ..errors import InputError
from ..io.formats import AnyPath, given_path
from ..models.package import read_recipe
from ..models.store import model_path
from ..recipe import Recipe
from ..recipe_files import field_of_setting, load_recipe, with_settings
from ..runs.efforts import effort_settings
from ..runs.folder import Origin, RunFolder
from ..volume import differ_in_order, have_same_names

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_RECIPE = "la"


@dataclass(frozen=True)
class StartModel:
    """A model that gives a run its first weights."""

    path: Path
    origin: Origin
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class TrainingPlan:
    """The plan of a run.

    Attributes:
        origin: the model that gives the run its first weights; None for random weights.
        start: the same model, with its weights; None for random weights and for a resumed run.
        device: `auto`, `cpu`, `cuda` or `mps`.
        conclude: whether to validate the last checkpoint and write the models, without further training.
    """

    run: RunFolder
    recipe: Recipe
    cases: Sequence[Case]
    origin: Origin | None = None
    start: StartModel | None = None
    device: str = "auto"
    resume: bool = False
    conclude: bool = False

    @property
    def start_weights(self) -> dict[str, Tensor] | None:
        return self.start.weights if self.start else None


def plan_new_run(
    cases: AnyPath | Sequence[Case],
    run: AnyPath,
    recipe: Recipe,
    start: StartModel | None = None,
    device: str = "auto",
    on_note: Callable[[str], None] = lambda note: None,
) -> TrainingPlan:
    """Return the plan of a new run; `on_note` is called with the notes of `read_cases` and `unused_channel_files`.

    Raises:
        InputError: the cases cannot be read, a case has no name or an unknown role (`used_cases`), a case lacks the
            label that its role needs, a scan or label does not exist, or the cases cannot be used with the recipe
            (`check_cases_and_batch`).
    """
    if isinstance(cases, str | os.PathLike):
        listed = read_cases(given_path(cases), on_note=on_note)
    else:
        listed = _read_given_cases(cases)
    check_cases_and_batch(recipe, listed)
    for index, note in unused_channel_files(listed, recipe.input_channels):
        on_note(f"{listed[index].image}: {note}")
    return TrainingPlan(RunFolder(Path(run)), recipe, listed, start.origin if start else None, start, device)


def _read_given_cases(cases: Sequence[Case]) -> list[Case]:
    for case in cases:
        if not isinstance(case, Case):
            raise TypeError(f"each case must be a dcamt.cases.case_list.Case, not {type(case).__name__}")
    used = used_cases(cases)
    for case in used:
        if case.needs_label and case.label is None:
            text = f"case '{case.name}' has the role {case.role}, but no label"
            raise InputError(text, remedy=f"Add the label, or choose the role {UNLABELLED}.")
        for file in case.files:
            if not file.exists():
                text = f"case '{case.name}' names {file}, which does not exist"
                raise InputError(text, remedy="Correct the path, or remove the case.")
    return used


def plan_resumed_run(run: str | Path, device: str = "auto", conclude: bool = False) -> TrainingPlan:
    """Return the plan to resume the run in a folder.

    Raises InputError if the folder contains no run, if the run's files cannot be used, or if the cases cannot be used
    with the recipe (`check_cases_and_batch`). With `conclude`, the run is not trained further: the cases are not
    checked with the recipe, and only the scans and labels of the validation cases must exist.
    """
    folder = RunFolder(Path(run))
    recipe, cases = folder.open(not conclude, roles_with_files=(VALIDATION,) if conclude else ROLES)
    if not conclude:
        check_cases_and_batch(recipe, cases, is_resumed=True)
    return TrainingPlan(folder, recipe, cases, folder.read_origin(), None, device, resume=True, conclude=conclude)


def choose_recipe(
    recipe: AnyPath | Recipe | None = None,
    start_from: AnyPath | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    effort: str | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> tuple[Recipe, StartModel | None]:
    """Return the recipe, changed by `settings` and `effort`, and the model `start_from`, if any.

    If the recipe does not name its channels, they get the model's names. If recipe and model have the same names in
    different orders, the recipe gets the model's order, since the model's weights expect this order.

    Args:
        on_note: called with a note if the recipe's channels have another order or other names than the model's.

    Raises:
        InputError: recipe, setting, effort or model cannot be used, or the model's network or order of classes differs
            from the recipe's.
    """
    base = recipe if isinstance(recipe, Recipe) else load_recipe(recipe) if recipe else None
    if start_from is None:
        return _changed(base or load_recipe(DEFAULT_RECIPE), settings, effort), None
    from ..networks.packaging import build_network, verify_model

    start_from = os.fspath(start_from)
    package = verify_model(start_from)
    # `read_recipe` refuses removed settings; `verify_model` ignores these settings.
    chosen = _changed(base or read_recipe(model_path(start_from)), settings, effort)
    _check_same_network(package.recipe, chosen, start_from)
    chosen = _with_channels_of(package.recipe, chosen, start_from, on_note)
    weights = dict(build_network(package).state_dict())
    return chosen, StartModel(model_path(start_from), Origin.from_card(package.card), weights)


def _changed(recipe: Recipe, settings: Mapping[str, Any] | Sequence[str], effort: str | None) -> Recipe:
    lines = _setting_lines(settings)
    changed = with_settings(recipe, lines)
    if effort is None:
        return changed
    kept = [line for line in lines if field_of_setting(line) != "iterations"]
    return with_settings(changed, [*effort_settings(changed, effort), *kept])


def _check_same_network(model: Recipe, recipe: Recipe, path: str | Path) -> None:
    shapes = [
        {
            "input_channels": each.input_channels,
            "the number of classes": len(each.classes),
            **asdict(replace(each.network, strides=each.level_strides)),
        }
        for each in (model, recipe)
    ]
    for key, value in shapes[0].items():
        if shapes[1][key] != value:
            own, other = (json.dumps(shape[key]) for shape in shapes)
            raise InputError(
                f"has a different network from the recipe '{recipe.name}': {key} is {own} in the model, but {other} in"
                " the recipe",
                path=path,
                remedy="Choose the model's own recipe, or start with random weights.",
            )
    recipe_order, model_order = ([info.name for info in each.classes] for each in (recipe, model))
    # The run cannot take the model's order, since the recipe's order states what the labels' values mean.
    if differ_in_order(recipe_order, model_order):
        raise InputError(
            f"has the classes {', '.join(model_order)} in this order, but the recipe '{recipe.name}' has the order"
            f" {', '.join(recipe_order)}",
            path=path,
            remedy="List the recipe's classes in the model's order, and map the labels' values to the classes"
            " (--labels; in Python: the cases' labels). Otherwise, start with random weights.",
        )


def _with_channels_of(model: Recipe, recipe: Recipe, path: str | Path, on_note: Callable[[str], None]) -> Recipe:
    own, names = recipe.channel_names, model.channel_names
    if not names or have_same_names(own, names):
        return recipe
    if own and not differ_in_order(own, names):
        listed = f"are named {', '.join(names)} in the model, but {', '.join(own)} in the recipe '{recipe.name}'"
        on_note(f"{path}: The channels {listed}. Check that the model suits the recipe.")
        return recipe
    if own:
        listed = f"is {', '.join(names)} in the model, but {', '.join(own)} in the recipe '{recipe.name}'"
        on_note(f"{path}: The order of the channels {listed}: the run uses the model's order.")
    return replace(recipe, channel_names=names)


def check_cases_and_batch(recipe: Recipe, cases: Sequence[Case], is_resumed: bool = False) -> None:
    """Check that a training can use the cases and split its batches among its processes.

    Args:
        is_resumed: a resumed run is not checked for `Rule.LOSS_FOR_UNLABELLED`, which older versions did not have.

    Raises:
        InputError: the cases break a rule (`cases.case_list.violations`), scans have their channels in different orders
            (`refuse_mixed_orders`), or the labelled or the unlabelled patches of a batch cannot be split evenly among
            the processes started by `torchrun`.
    """
    training = recipe.training
    broken = violations(cases, recipe)
    if is_resumed:
        broken = [violation for violation in broken if violation.rule is not Rule.LOSS_FOR_UNLABELLED]
    refuse_violations(broken)
    refuse_mixed_orders(cases, recipe)
    mixed = any(case.role == UNLABELLED for case in cases)
    # Raises InputError if the batch cannot be split.
    Team(0, team_size()).sample_indices(training.labelled_per_batch if mixed else training.batch, training.batch)


def _setting_lines(settings: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Return settings as `key=value` lines.

    >>> _setting_lines({"patch": (64, 64, 32), "mixed_precision": False, "channel_names": ("T1", "T2")})
    ['patch=[64, 64, 32]', 'mixed_precision=false', 'channel_names=["T1", "T2"]']
    """
    if not isinstance(settings, Mapping):
        return list(settings)

    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value, default=without_numpy)

    def without_numpy(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else str(value)

    return [f"{key}={text(value)}" for key, value in settings.items()]
