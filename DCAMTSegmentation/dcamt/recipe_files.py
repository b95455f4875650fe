"""Read shipped recipes by name and other recipes from files, and change recipes by settings `key=value`."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import typing
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import InputError
from .io.formats import AnyPath
from .io.typed_json import build, parse_json, type_hints, value_of
from .recipe import Recipe
from .recipe_checks import check_recipe

REMOVED = {("objective", "copy_paste"): 0.0, ("augmentation", "blur_mm"): 0.0}
"""Section and key of each removed setting, and the value that switches it off: training accepts no other value."""
_SINGLE_VALUES = {
    bool: "Write true or false, in small letters.",
    int: "Write a whole number.",
    float: "Write a number, such as 0.5.",
}
_LISTS = {
    bool: "Write true or false for each axis, such as true,false,false.",
    int: "Write whole numbers, separated by commas, such as 64,64,32.",
    float: "Write numbers, separated by commas, such as 0.5,0.5,2.5.",
    str: "Write texts, separated by commas, such as T1,T2.",
}
SHIPPED = Path(__file__).with_name("recipes")


def recipe_from_dict(data: Mapping[str, Any], source: str | Path, for_training: bool = True) -> Recipe:
    """Check the content of a recipe file and return the recipe.

    Args:
        source: the file to name in error messages.
        for_training: if False, settings that were removed from DCAMT (`REMOVED`) are ignored, whatever their values.

    Raises:
        InputError: a key is unknown or missing, a value has the wrong type or is out of range, values contradict each
            other, or the recipe is for training and a setting in `REMOVED` is not switched off.
    """
    recipe: Recipe = build(Recipe, _without_removed_keys(data, source, for_training), source, "recipe")
    check_recipe(recipe, source)
    return recipe


def _without_removed_keys(data: Mapping[str, Any], source: str | Path, for_training: bool) -> Mapping[str, Any]:
    for (section, key), off in REMOVED.items():
        values = data.get(section) if isinstance(data, Mapping) else None
        if isinstance(values, Mapping) and key in values:
            if for_training and values[key] != off:
                raise InputError(
                    f"'recipe.{section}.{key}' is {values[key]!r}, but this setting was removed from DCAMT",
                    path=source,
                    remedy=f"Train with a recipe file in which this key is {off:g}, or use DCAMT 0.1.",
                )
            data = {**data, section: {name: value for name, value in values.items() if name != key}}
    return data


def load_recipe(name_or_file: AnyPath, for_training: bool = True) -> Recipe:
    """Return a shipped recipe by its name (`la`), or any recipe by its file; `for_training` as in `recipe_from_dict`.

    Raises:
        InputError: there is no such recipe, the file cannot be read or is not a recipe, or the recipe is for training
            and a setting in `REMOVED` is not switched off.
    """
    if str(name_or_file) in shipped_recipes():
        return _shipped_recipe(SHIPPED / f"{name_or_file}.json", for_training)
    path = Path(os.path.expanduser(name_or_file))
    if path.suffix.lower() != ".json" and not path.is_file():
        example = f", such as {path / 'recipe.json'}" if (path / "recipe.json").is_file() else ""
        raise InputError(
            f"there is no recipe named '{name_or_file}'",
            remedy=f"Shipped recipes: {', '.join(shipped_recipes())}; or give the path of a .json file{example}.",
        )
    return _read_recipe(path, for_training)


def _read_recipe(path: Path, for_training: bool) -> Recipe:
    try:
        # Given bytes, `parse_json` recognises UTF-8 with or without a byte order mark, UTF-16 and UTF-32.
        data = parse_json(path.read_bytes(), object_pairs_hook=_distinct)
    except OSError as error:
        raise InputError(f"cannot be read ({error})", path=path, remedy="Check the name and the folder.") from error
    except _RepeatedKey as error:
        what = f"has the key '{error}' twice in one object"
        raise InputError(what, path=path, remedy="Remove or rename one of the keys.") from error
    except UnicodeDecodeError as error:
        raise InputError("is not text in UTF-8", path=path, remedy="Save the file as JSON in UTF-8.") from error
    except json.JSONDecodeError as error:
        what = f"is not JSON (line {error.lineno}: {error.msg})"
        raise InputError(what, path=path, remedy="Correct the file.") from error
    except ValueError as error:  # An integer has too many digits, or lists and objects are nested too deeply.
        raise InputError(f"cannot be read ({error})", path=path, remedy="Correct the file.") from error
    return recipe_from_dict(data, path, for_training)


class _RepeatedKey(Exception):
    """Raised with a key that occurs twice in an object; `json` alone would keep only the last value."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise _RepeatedKey(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return dict(pairs)


_shipped_recipe = functools.cache(_read_recipe)


def shipped_recipes() -> list[str]:
    """Return the names of the shipped recipes."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def field_of_setting(setting: str) -> str:
    """Return the name of the field that a `key=value` setting changes, without its section.

    >>> field_of_setting("training.iterations = 2400")
    'iterations'
    """
    return setting.partition("=")[0].strip().rpartition(".")[2]


def with_settings(recipe: Recipe, settings: Iterable[str], source: str = "setting") -> Recipe:
    """Return the recipe with `key=value` settings applied, as given to `dcamt train --set`.

    A key such as `spacing` or `iterations` names a field of the recipe or of one of its sections. The section's name
    may precede the field (`training.iterations`). Lists are written with commas (`64,64,32`). A value may also be
    written as in a recipe file (`[64, 64, 32]`, `"adamw"`).

    Args:
        source: where the user wrote the settings, for error messages.

    Raises:
        InputError: a setting is not `key=value`, a key is unknown, or a value does not fit its key or the other values.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"the setting '{setting}' is not of the form key=value", remedy="Write key=value.")
        section_name, _, name = key.strip().rpartition(".")
        found = [
            (section, hint)
            for section, field, hint in _settable_fields()
            if field == name and section_name in ("", section)
        ]
        if len(found) != 1:
            known = ", ".join(sorted(field for _, field, _ in _settable_fields()))
            raise InputError(f"there is no setting '{key}'", remedy=f"Choose one of: {known}.")
        section, hint = found[0]
        value = _parse(text.strip(), hint, source, key)
        if section:
            name, value = section, dataclasses.replace(getattr(recipe, section), **{name: value})
        recipe = dataclasses.replace(recipe, **{name: value})
    check_recipe(recipe, source)
    return recipe


@functools.cache
def _settable_fields() -> list[tuple[str, str, Any]]:
    """Return section ("" for the recipe itself), name and type of each field that `--set` can change."""
    fields: list[tuple[str, str, Any]] = []
    for name, hint in type_hints(Recipe).items():
        if dataclasses.is_dataclass(hint):
            fields += [(name, inner, inner_hint) for inner, inner_hint in type_hints(typing.cast(type, hint)).items()]
        elif name not in ("classes", "format"):
            fields.append(("", name, hint))
    return fields


def _how_to_write(hint: Any) -> str:
    """Return how to write the value of a setting of the type `hint`.

    >>> _how_to_write(tuple[int, int, int])
    'Write whole numbers, separated by commas, such as 64,64,32.'
    """
    if typing.get_origin(hint) is tuple:
        return _LISTS.get(typing.get_args(hint)[0], "Write lists, separated by commas, such as [2,2,1],[2,2,2].")
    return _SINGLE_VALUES[hint]


def _parse(text: str, hint: Any, source: str, key: str) -> Any:
    if hint is str:
        return _without_quotes(text)
    try:
        data = _read_list(text, hint) if typing.get_origin(hint) is tuple else parse_json(text)
    except ValueError as error:
        what = f"'{text}' is not a valid value of this setting"
        raise InputError(what, path=f"{source} {key}", remedy=_how_to_write(hint)) from error
    try:
        return value_of(data, hint, None, key)
    except InputError as error:
        raise InputError(str(error), path=source, remedy=_how_to_write(hint)) from error


def _without_quotes(text: str) -> str:
    """Remove quotation marks around a text.

    >>> [_without_quotes(text) for text in ('sgd', '"sgd"', '"')]
    ['sgd', 'sgd', '"']
    """
    try:
        value = parse_json(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def _read_list(text: str, hint: Any) -> list[Any]:
    """Return the items of a list of the type `hint`, written with or without its brackets.

    Texts may be written without quotation marks, since a shell removes these marks.

    >>> _read_list("64,64,32", tuple[int, int, int]) == _read_list("[64,64,32]", tuple[int, int, int])
    True
    >>> _read_list("T1, T2", tuple[str, ...]) == _read_list('"T1","T2"', tuple[str, ...])
    True
    """
    if typing.get_args(hint)[0] is str:
        return _read_texts(text)
    items: list[Any] = parse_json(f"[{text}]")
    whole = items[0] if len(items) == 1 else None
    if not isinstance(whole, list):
        return items
    holds_lists = typing.get_origin(typing.get_args(hint)[0]) is tuple
    return whole if not holds_lists or all(isinstance(item, list) for item in whole) else items


def _read_texts(text: str) -> list[str]:
    """Return the texts of a list; a comma within a text is kept if all texts are in quotation marks.

    >>> _read_texts('"a, b","c"'), _read_texts("[a, b]"), _read_texts("1,2"), _read_texts("")
    (['a, b', 'c'], ['a', 'b'], ['1', '2'], [])
    """
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        items: list[Any] = parse_json(f"[{inner}]")
    except ValueError:
        items = []
    if inner.strip() and not (items and all(isinstance(item, str) for item in items)):
        items = [_without_quotes(item.strip()) for item in inner.split(",")]
    return items
