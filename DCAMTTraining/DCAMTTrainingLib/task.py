"""Define the task of a run: a shipped recipe, user-defined classes in MRI or CT, or a suggested recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from dcamt.errors import InputError
from dcamt.io.typed_json import parse_json
from dcamt.models.package import read_recipe
from dcamt.models.store import model_path
from dcamt.recipe import Recipe
from dcamt.recipe_files import load_recipe, recipe_from_dict, with_settings
from dcamt.segment_colors import default_color
from dcamt.volume import TISSUE, Code, SegmentInfo
from slicer.i18n import tr as _

USER_MRI, USER_CT = "own-mri", "own-ct"
SUGGESTED = "suggested"
BASES = {USER_MRI: "la", USER_CT: "pancreas"}
"""Task with user-defined classes -> its base, a shipped recipe."""


@dataclass(frozen=True)
class UserClass:
    """A class defined by the user.

    Attributes:
        color: (red, green, blue), 0 to 1.
        code: the terminology code (scheme, value, meaning).
    """

    name: str
    color: tuple[float, float, float]
    code: tuple[str, str, str] = (TISSUE.scheme, TISSUE.value, TISSUE.meaning)


def recipe_of(task: str, classes: Sequence[UserClass], suggested: str = "") -> Recipe:
    """Return the recipe of a task.

    Args:
        task: the name of a shipped recipe, `USER_MRI`, `USER_CT` or `SUGGESTED`.
        classes: the user-defined classes, for `USER_MRI` and `USER_CT`.
        suggested: the suggested recipe, as `Recipe.to_json` writes it, for `SUGGESTED`.

    Raises:
        InputError: no recipe has the name `task`, the suggested recipe is missing or invalid, there is no user-defined
            class, a class has no name, or two classes have the same name.
    """
    if task == SUGGESTED:
        return parse_suggested_recipe(suggested)
    if task not in BASES:
        return load_recipe(task)
    names = [user_class.name.strip() for user_class in classes]
    if not names or not all(names):
        raise InputError(_("each class needs a name"), path=_("Task"), remedy=_("Enter the name of the structure."))
    if len({name.lower() for name in names}) < len(names):
        raise InputError(_("two classes have the same name"), path=_("Task"), remedy=_("Give each class its own name."))
    infos = tuple(
        SegmentInfo(label, user_class.name.strip(), user_class.color, Code(*user_class.code))
        for label, user_class in enumerate(classes, start=1)
    )
    base = load_recipe(BASES[task])
    modality = _("MRI") if task == USER_MRI else _("CT")
    return replace(base, name=task, title=", ".join(names), modality=modality, classes=infos)


@lru_cache(maxsize=4)
def parse_suggested_recipe(text: str) -> Recipe:
    """Parse a text that `Recipe.to_json` wrote; raise InputError for any other text."""
    try:
        return recipe_from_dict(parse_json(text), _("Task"))
    except (ValueError, TypeError, AttributeError) as error:
        remedy = _("Press Suggest from cases.")
        raise InputError(_("there is no suggested recipe"), path=_("Task"), remedy=remedy) from error


def recipe_from_model(model: str, recipe: Recipe) -> Recipe:
    """Return the recipe for training a model further: the model's own recipe, with some fields of the task's recipe.

    Raises:
        InputError: the model does not exist or is damaged, its recipe uses a setting removed from DCAMT, or the
            number of classes or channels differs.
    """
    path = model_path(model)
    model_recipe = _cached_recipe(path, path.stat().st_mtime_ns)
    remedy = _("Start from scratch or from another model.")
    if model_recipe.output_channels != recipe.output_channels:
        what = _("the number of classes is {has} in the model, but {wanted} in the task")
        what = what.format(has=model_recipe.output_channels - 1, wanted=recipe.output_channels - 1)
        raise InputError(what, path=model, remedy=remedy)
    if model_recipe.input_channels != recipe.input_channels:
        what = _("the number of channels is {has} in the model, but {wanted} in the recipe")
        what = what.format(has=model_recipe.input_channels, wanted=recipe.input_channels)
        raise InputError(what, path=model, remedy=remedy)
    training = replace(
        model_recipe.training, iterations=recipe.training.iterations, validate_every=recipe.training.validate_every
    )
    return replace(
        model_recipe,
        training=training,
        name=recipe.name,
        title=recipe.title,
        modality=recipe.modality,
        classes=recipe.classes,
        # If task and model have the same channel names, `dcamt train` uses the model's order.
        channel_names=recipe.channel_names or model_recipe.channel_names,
    )


def with_chosen_spacing(recipe: Recipe, lines: Iterable[str]) -> Recipe:
    """Return the recipe with the spacing that the user's settings state; the recipe itself if they state no spacing.

    The other settings are ignored, since they do not affect the check of the cases.

    Args:
        lines: the settings, as `key=value`.

    Raises:
        InputError: the spacing is not usable.
    """
    return with_settings(recipe, [line for line in lines if line.startswith("spacing=")], _("Setting"))


@lru_cache(maxsize=16)
def _cached_recipe(path: Path, mtime_ns: int) -> Recipe:
    # The panel needs the recipe after each change of a setting. A file with a new modification time is read again.
    return read_recipe(path)


def new_class(classes: Sequence[UserClass]) -> UserClass:
    """Return a class to add to `classes`, with the next colour of the palette."""
    number = len(classes) + 1
    return UserClass(_("Class {number}").format(number=number), default_color(number - 1))


def classes_to_json(classes: Sequence[UserClass]) -> str:
    """Return the classes as JSON text."""
    return json.dumps([asdict(user_class) for user_class in classes])


def classes_from_json(text: str) -> list[UserClass]:
    """Parse a text that `classes_to_json` wrote; replace what cannot be read.

    A damaged class keeps its place in the list, since the places (1, 2, …) are the label values. A name that cannot
    be read becomes empty, so that no training can start before the user enters it.
    """
    return [_read_class(data, place)[0] for place, data in enumerate(_listed_classes(text) or [])]


def unread_classes(text: str) -> list[str]:
    """Return a description of each damaged class in a JSON text, such as `class 2 “Wall” (colour)`."""
    listed, found = _listed_classes(text), []
    if listed is None:
        return [_("all classes")]
    for place, data in enumerate(listed):
        user_class, parts = _read_class(data, place)
        if parts:
            where = _("class {number} “{name}”") if user_class.name else _("class {number}")
            where = where.format(number=place + 1, name=user_class.name)
            found.append(f"{where} ({', '.join(parts)})")
    return found


def _listed_classes(text: str) -> list[Any] | None:
    try:
        listed = parse_json(text or "[]")
    except ValueError:
        return None
    return listed if isinstance(listed, list) else None


def _read_class(data: Any, place: int) -> tuple[UserClass, list[str]]:
    """Return the class, and the names of its parts that cannot be read."""
    data, unread = data if isinstance(data, dict) else {}, []
    name, color, code = (data.get(key) for key in ("name", "color", "code"))
    if not isinstance(name, str):
        name = ""
        unread.append(_("name"))
    if not _is_list_of_three(color, int | float) or not all(0 <= part <= 1 for part in color):
        color = default_color(place)
        unread.append(_("colour"))
    if not _is_list_of_three(code, str):
        code = (TISSUE.scheme, TISSUE.value, TISSUE.meaning)
        unread.append(_("code"))
    return UserClass(name, (color[0], color[1], color[2]), (code[0], code[1], code[2])), unread


def _is_list_of_three(value: Any, kind: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(part, kind) for part in value)
