"""List, import and remove the models in the store. No function needs torch, which may not be installed yet."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dcamt.errors import InputError
from dcamt.models.package import Card, read_card, read_recipe
from dcamt.models.store import (
    StoredModel,
    check_store,
    find_stored_model,
    import_model,
    model_path,
    remove_model,
    stored_models,
)
from dcamt.recipe import Recipe
from slicer.i18n import tr as _

from .engine_messages import translated


@dataclass(frozen=True)
class ModelChoice:
    """A model in the list.

    Attributes:
        name: the model's name in the store.
        tooltip: what the model segments, in which scans and how accurately; or why its file cannot be used.
        removable: whether the user may remove the model: true unless it is shipped.
        channels: the names of the channels that the model takes; one empty name if its file cannot be used.
    """

    name: str
    title: str
    tooltip: str
    removable: bool
    channels: tuple[str, ...] = ("",)


def model_choices() -> list[ModelChoice]:
    """Return all models in the store, shipped ones first; a damaged file is listed with its problem as tooltip."""
    choices = [_choice(model) for model in stored_models()]
    count = Counter(choice.title for choice in choices)
    return [
        replace(choice, title=f"{choice.title} ({choice.name})") if count[choice.title] > 1 else choice
        for choice in choices
    ]


def title_of(name: str | Path) -> str:
    """Return a model's title in the list; the name itself if the model does not exist."""
    return next((choice.title for choice in model_choices() if choice.name == name), str(name))


def channel_names_of(name_or_file: str) -> tuple[str, ...]:
    """Return the names of the channels that a model takes; one empty name if it does not exist or cannot be used."""
    for choice in model_choices():
        if choice.name == name_or_file:
            return choice.channels
    return _choice(StoredModel(name_or_file, Path(os.path.expanduser(name_or_file)), shipped=False)).channels


def recipe_channel_names(name_or_file: str | Path) -> tuple[str, ...]:
    """Return the channels' names in a model's recipe; () if the recipe has none, or if the model cannot be used."""
    with suppress(InputError, OSError):  # OSError: the name is too long for a path.
        return read_recipe(model_path(name_or_file), for_training=False).channel_names
    return ()


def import_choice(path: Path) -> str:
    """Copy a model file into the store; return its name.

    Raises:
        InputError: the file is no valid model, or the store has a model of the same name.
        OutputError: the file, or the calibration file beside it, cannot be copied.
    """
    name = read_card(path).name
    same_name = find_stored_model(name)
    if same_name is not None:
        shipped = _("A model that is shipped with DCAMT cannot be replaced.")
        remedy = shipped if same_name.shipped else _("First remove that model from the list.")
        raise InputError(
            _("a model in the list has the same name ({name})").format(name=same_name.name), path=path, remedy=remedy
        )
    # The weights are not checked here, since that needs torch; the worker checks them when it loads the model.
    return import_model(path).name


def remove_choice(name: str) -> None:
    """Delete an imported model; do nothing if its file is already gone.

    Raises:
        InputError: the model is shipped with DCAMT, or the folder of imported models cannot be read.
        OutputError: the file cannot be deleted.
    """
    check_store()
    if any(model.name == name for model in stored_models()):
        remove_model(name)


def card_text(card: Card, channels: Sequence[str] = ()) -> str:
    """Return the text of a card: what the model segments, in which scans and how accurately, and the card's notes.

    Args:
        channels: the names of the model's channels; the text names them if there are several.
    """
    lines = [
        _("Segments: {segments}").format(segments=", ".join(card.segments)),
        _("In: {modality}").format(modality=card.modality),
    ]
    if len(channels) > 1:
        text = _("Needs {count} volumes, one for each channel: {names}")
        lines.append(text.format(count=len(channels), names=", ".join(channels)))
    measured = [entry for entry in card.measured if _mean_dice(entry) is not None]
    lines += [_("Measured: {text}").format(text=_evaluation_text(entry)) for entry in measured]
    if not measured:
        lines.append(_("The model's accuracy was not measured."))
    return "\n".join([*lines, card.notes] if card.notes else lines)


def _choice(model: StoredModel) -> ModelChoice:
    try:
        card = read_card(model.path)
        channels = _channels(read_recipe(model.path, for_training=False))
    except InputError as error:
        return ModelChoice(model.name, model.name, translated(str(error)), not model.shipped)
    title = translated(card.title) or model.name
    if not model.shipped and (details := _run_details(card)):
        title = f"{title} ({', '.join([model.name, *details])})"
    return ModelChoice(model.name, title, card_text(card, channels), not model.shipped, channels)


def _channels(recipe: Recipe) -> tuple[str, ...]:
    numbers = range(1, recipe.input_channels + 1)
    return recipe.channel_names or tuple(str(_("Channel {number}").format(number=number)) for number in numbers)


def _run_details(card: Card) -> list[str]:
    details = []
    for entry in card.measured[:1]:
        dice = _mean_dice(entry)
        if dice is not None:
            details.append(_("Dice {dice}").format(dice=f"{dice:.3f}"))
    if isinstance(card.trained_on.get("iterations"), int):
        details.append(_("{count} iterations").format(count=card.trained_on["iterations"]))
    return details


def _mean_dice(entry: Mapping[str, Any]) -> float | None:
    dice = entry.get("dice_mean")
    if dice is None:
        values = _dice_by_class(entry).values()
        dice = sum(values) / len(values) if values else None
    return dice


def _dice_by_class(entry: Mapping[str, Any]) -> Mapping[str, float]:
    by_branch: Mapping[str, Mapping[str, float]] = entry.get("dice", {})
    of_both_branches = by_branch.get("mean")
    return of_both_branches or next(iter(by_branch.values()), {})


def _evaluation_text(entry: Mapping[str, Any]) -> str:
    """Return a card's evaluation as text, such as "Dice 0.92 (accurate) on 20 scans"."""
    dice = entry.get("dice_mean")
    if dice is None:
        dice = ", ".join(f"{name} {value:.2f}" for name, value in _dice_by_class(entry).items())
    elif isinstance(dice, float):
        dice = f"{dice:.2f}"
    quality = f" ({entry['quality']})" if entry.get("quality") else ""
    return str(_("Dice {dice}{quality} on {cases}").format(dice=dice, quality=quality, cases=entry.get("on", "")))
