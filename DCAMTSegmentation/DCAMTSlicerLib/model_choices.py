"""The models that the person can choose from, as the list shows them. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcamt.errors import InputError
from dcamt.models.package import Card, read_card
from dcamt.models.store import StoredModel, import_model, remove_model, stored_models
from slicer.i18n import tr as _


@dataclass(frozen=True)
class ModelChoice:
    """`name` in the store, `title` in the list, and the tooltip that says what it does and how well."""

    name: str
    title: str
    tooltip: str
    removable: bool


def model_choices() -> list[ModelChoice]:
    """All models at hand, those that come with DCAMT first; a damaged file is listed with what is wrong."""
    return [_choice(model) for model in stored_models()]


def import_choice(path: Path) -> str:
    """Take a model file into the store; returns its name.

    Raises:
        InputError: it is no sound model, or there is one of that name.
        OutputError: it cannot be copied.
    """
    if any(model.name == read_card(path).name for model in stored_models()):
        remedy = _("Remove that one first, if it is not the same.")
        raise InputError(_("a model of that name is in the list already"), path=path, remedy=remedy)
    # The worker checks the weights when it loads them, since that needs torch.
    return import_model(path).name


def remove_choice(name: str) -> None:
    """Delete an imported model; raises InputError or OutputError if it cannot be."""
    remove_model(name)


def card_text(card: Card) -> str:
    """What a model segments, in which scans, and how well it did so on cases that it had not seen."""
    lines = [
        _("Segments: {segments}").format(segments=", ".join(card.segments)),
        _("In: {modality}").format(modality=card.modality),
    ]
    lines += [_("Measured: {text}").format(text=_measured(entry)) for entry in card.measured]
    if not card.measured:
        lines.append(_("Its accuracy was not measured."))
    return "\n".join([*lines, card.notes] if card.notes else lines)


def _choice(model: StoredModel) -> ModelChoice:
    try:
        card = read_card(model.path)
    except InputError as error:
        return ModelChoice(model.name, model.name, str(error), not model.shipped)
    return ModelChoice(model.name, card.title or model.name, card_text(card), not model.shipped)


def _measured(entry: Mapping[str, Any]) -> str:
    """One measurement of a card: a number for Dice, or Dice of each branch and class, and on what."""
    dice = entry.get("dice_mean")
    if dice is None and isinstance(entry.get("dice"), Mapping):
        branches = entry["dice"]
        of_classes: Mapping[str, float] = branches.get("mean") or next(iter(branches.values()), {})
        dice = ", ".join(f"{name} {value:.2f}" for name, value in of_classes.items())
    elif isinstance(dice, float):
        dice = f"{dice:.2f}"
    quality = f" ({entry['quality']})" if entry.get("quality") else ""
    return str(_("Dice {dice}{quality} on {cases}").format(dice=dice, quality=quality, cases=entry.get("on", "")))
