"""What is to be learnt: a shipped recipe, or one's own classes in MRI or CT."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from dcamt.errors import InputError
from dcamt.models.package import read_recipe
from dcamt.models.store import model_path
from dcamt.recipe import Recipe, load_recipe
from dcamt.volume import Code, SegmentInfo
from slicer.i18n import tr as _

OWN_MRI, OWN_CT = "own-mri", "own-ct"
BASES = {OWN_MRI: "la", OWN_CT: "pancreas"}
"""The shipped recipe that gives one's own task its intensities, network and schedule."""
TISSUE = Code("SCT", "85756007", "Tissue")
COLOURS = (
    (0.84, 0.42, 0.38),
    (0.36, 0.61, 0.84),
    (0.47, 0.75, 0.42),
    (0.93, 0.75, 0.35),
    (0.66, 0.5, 0.78),
    (0.45, 0.78, 0.76),
)


@dataclass(frozen=True)
class OwnClass:
    """A class that the person named. color: (red, green, blue), 0 to 1. code: scheme, value and meaning of its type."""

    name: str
    color: tuple[float, float, float]
    code: tuple[str, str, str] = (TISSUE.scheme, TISSUE.value, TISSUE.meaning)


def recipe_of(task: str, classes: Sequence[OwnClass]) -> Recipe:
    """The recipe of a task: a shipped one's name, `OWN_MRI` or `OWN_CT`.

    Raises:
        InputError: the person's own task names no class, or one name twice.
    """
    if task not in BASES:
        return load_recipe(task)
    names = [own.name.strip() for own in classes]
    if not names or not all(names):
        raise InputError(_("each class needs a name"), path=_("Task"), remedy=_("Name what is to be outlined."))
    if len({name.lower() for name in names}) < len(names):
        raise InputError(_("two classes have one name"), path=_("Task"), remedy=_("Give each its own."))
    infos = tuple(
        SegmentInfo(number, own.name.strip(), own.color, Code(*own.code)) for number, own in enumerate(classes, start=1)
    )
    base = load_recipe(BASES[task])
    modality = _("MRI") if task == OWN_MRI else _("CT")
    return replace(base, name=task, title=", ".join(names), modality=modality, classes=infos)


def started_from(model: str, recipe: Recipe) -> Recipe:
    """The recipe by which learning goes on from a model: the model's own, with the task's classes and iterations.

    Raises:
        InputError: there is no such model, or it outlines another number of classes.
    """
    path = model_path(model)
    own = _recipe_in(path, path.stat().st_mtime_ns)
    if own.outputs != recipe.outputs or own.input_channels != recipe.input_channels:
        what = _("outlines {has} class(es), and the task has {wanted}")
        remedy = _("Start from scratch, or from another model.")
        raise InputError(what.format(has=own.outputs - 1, wanted=recipe.outputs - 1), path=model, remedy=remedy)
    training = replace(
        own.training, iterations=recipe.training.iterations, validate_every=recipe.training.validate_every
    )
    named = {"name": recipe.name, "title": recipe.title, "modality": recipe.modality, "classes": recipe.classes}
    return replace(own, training=training, **named)


@lru_cache(maxsize=16)
def _recipe_in(path: Path, changed: int) -> Recipe:
    """The recipe of a model file, asked for at every change of a setting."""
    return read_recipe(path)


def new_class(classes: Sequence[OwnClass]) -> OwnClass:
    """One more class, with a colour that the first few others do not have."""
    number = len(classes) + 1
    return OwnClass(_("Class {number}").format(number=number), COLOURS[(number - 1) % len(COLOURS)])


def classes_to_json(classes: Sequence[OwnClass]) -> str:
    return json.dumps([asdict(own) for own in classes])


def classes_from_json(text: str) -> list[OwnClass]:
    """What `classes_to_json` wrote; none where it is nothing of the kind."""
    try:
        found = []
        for data in json.loads(text or "[]"):
            red, green, blue = data["color"]
            scheme, value, meaning = data["code"]
            found.append(OwnClass(str(data["name"]), (float(red), float(green), float(blue)), (scheme, value, meaning)))
        return found
    except (ValueError, TypeError, KeyError):
        return []
