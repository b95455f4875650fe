"""Convert values between PythonQt's conventions and PySide6's."""

from __future__ import annotations

import enum
import os
from typing import Any

import shiboken6

from .enums import EnumValue, enum_class
from .handles import ClassWrapper, Handle


def wrap(value: Any) -> Any:
    """Return a PySide6 value as PythonQt passes it to Python."""
    if isinstance(value, enum.Enum) and type(value).__module__.startswith("PySide6"):
        return enum_class(type(value))(value)
    if isinstance(value, shiboken6.Object):
        # Not imported at the top: wrapping.py imports this module.
        from .wrapping import wrapper_of

        return wrapper_of(value)
    if isinstance(value, list | tuple):
        return tuple(wrap(item) for item in value)
    if isinstance(value, dict):
        return {key: wrap(item) for key, item in value.items()}
    return value


def unwrap(value: Any) -> Any:
    """Return a Python value as PySide6 takes it."""
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
    """Return whether a value is accepted for a property of the type `kind`.

    PySide6 would accept further values, which PythonQt refuses.
    """
    if kind in ("bool", "int", "double"):
        return isinstance(value, int | float)
    return value is not None and not isinstance(value, os.PathLike)


def for_property(value: Any) -> Any:
    """Return a Python value as QObject.setProperty takes it."""
    return int(value) if isinstance(value, EnumValue) else unwrap(value)
