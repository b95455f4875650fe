"""Parse JSON and build dataclasses from it; check every key and type."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

MAX_DEPTH = 100
"""The deepest nesting of lists and objects in JSON that DCAMT reads.

DCAMT's own files have fewer than ten levels. The limit lies far below Python's limit of recursion, so that functions
that walk through the parsed value, such as `repr` and `json.dumps`, do not raise RecursionError.
"""


def parse_json(text: str | bytes, **options: Any) -> Any:
    """Return the value in a JSON text; `options` as in `json.loads`.

    Raises:
        ValueError: the text is not JSON, an integer has too many digits for Python, or the value has more than
            `MAX_DEPTH` levels of lists and objects.
    """
    too_deep = f"lists and objects are nested in more than {MAX_DEPTH} levels"
    try:
        value = json.loads(text, **options)
    except RecursionError as error:
        raise ValueError(too_deep) from error
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        containers = [item for item in level if isinstance(item, (dict, list))]
        if not containers:
            return value
        level = [item for each in containers for item in (each.values() if isinstance(each, dict) else each)]
    raise ValueError(too_deep)


def build(kind: type, data: Any, source: str | Path | None, where: str) -> Any:
    """Return an instance of the dataclass `kind` with the values of the JSON object `data`.

    Fields may have these types: dataclasses, bool, int, float, str, Path, `np.ndarray` (float64), `X | None`,
    `dict[str, X]`, `tuple[X, ...]`, and tuples of a fixed length whose items have one type, such as `tuple[X, X]`.

    Args:
        source: the file, for error messages.
        where: the object's name in error messages.

    Raises:
        InputError: a key is unknown or missing, a value has the wrong type or is too large, or a tuple has the wrong
            number of items.
    """
    _require_object(data, source, where)
    hints = type_hints(kind)
    known = [field for field in dataclasses.fields(kind) if field.init]
    names = [field.name for field in known]
    unknown = sorted(set(map(str, data)) - set(names))
    if unknown:
        remedy = f"Choose one of: {', '.join(names)}."
        raise InputError(f"'{where}' has the unknown key '{unknown[0]}'", path=source, remedy=remedy)
    for field in known:
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.name not in data and not optional:
            raise InputError(f"'{where}' lacks the key '{field.name}'", path=source)
    return kind(**{key: value_of(value, hints[key], source, f"{where}.{key}") for key, value in data.items()})


def _require_object(value: Any, source: str | Path | None, where: str) -> None:
    if not isinstance(value, Mapping):
        raise InputError(f"'{where}' must be an object of keys and values", path=source)


def value_of(value: Any, hint: Any, source: str | Path | None, where: str) -> Any:
    """Convert a JSON value to the type `hint` of a field. Raises InputError as `build` does."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, source, where)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else value_of(value, arguments[0], source, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"'{where}' must be a list", path=source)
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise InputError(f"'{where}' must hold {len(arguments)} values, not {len(value)}", path=source)
        return tuple(value_of(item, arguments[0], source, where) for item in value)
    if origin is dict:
        _require_object(value, source, where)
        return {str(key): value_of(item, arguments[1], source, f"{where}.{key}") for key, item in value.items()}
    if hint is np.ndarray:
        try:
            array = np.array(value)
            if array.dtype.kind not in "iuf":
                raise TypeError(array.dtype)
            return array.astype(np.float64)
        except (OverflowError, TypeError, ValueError) as error:
            raise InputError(f"'{where}' must be an array of numbers", path=source) from error
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError as error:
            raise InputError(f"'{where}' is too large a number", path=source) from error
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"'{where}' must be of type {getattr(hint, '__name__', hint)}, not {value!r}", path=source)
    return value


def is_finite_number(value: Any) -> bool:
    """Return whether a JSON value is a number that is finite as a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


@functools.cache
def type_hints(kind: type) -> dict[str, Any]:
    """Return the types of a class's fields by name; cached, since annotations are text and slow to evaluate."""
    return typing.get_type_hints(kind)
