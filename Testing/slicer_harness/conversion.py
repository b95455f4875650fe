"""Values on their way between Python, as PythonQt has it, and PySide6."""

from __future__ import annotations

import enum
import os
from typing import Any

import shiboken6

from .enums import EnumValue, enum_class
from .handles import ClassWrapper, Handle


def wrap(value: Any) -> Any:
    """What PythonQt hands to Python for a value of PySide6's."""
    if isinstance(value, enum.Enum) and type(value).__module__.startswith("PySide6"):
        return enum_class(type(value))(value)
    if isinstance(value, shiboken6.Object):
        # Classes are made of members, which convert: so they are looked up when the first object comes.
        from .wrapping import wrapper_of

        return wrapper_of(value)
    if isinstance(value, list | tuple):
        return tuple(wrap(item) for item in value)
    if isinstance(value, dict):
        return {key: wrap(item) for key, item in value.items()}
    return value


def unwrap(value: Any) -> Any:
    """What PySide6 takes for a value of Python's."""
    if isinstance(value, EnumValue):
        return value.member
    if isinstance(value, Handle):
        return value._object
    if isinstance(value, ClassWrapper):
        return value._pyside_class
    if isinstance(value, list | tuple):
        return type(value)(unwrap(item) for item in value)
    return value


def accepts(kind: str, value: Any) -> bool:
    """Whether PythonQt would try to convert a value to a property's type, which Qt itself does more readily."""
    if kind in ("bool", "int", "double"):
        return isinstance(value, int | float)
    return value is not None and not isinstance(value, os.PathLike)


def for_property(value: Any) -> Any:
    return int(value) if isinstance(value, EnumValue) else unwrap(value)
