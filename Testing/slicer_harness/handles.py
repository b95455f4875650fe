"""What stands for a Qt object or class in Python, before it has any members."""

from __future__ import annotations

from typing import Any

import shiboken6


class ClassWrapper(type):
    """The class of Qt's classes; each holds its PySide6 class."""

    _pyside_class: type


class Handle(metaclass=ClassWrapper):
    """Holds a PySide6 object."""

    _object: Any


def is_plain(wrapper_class: type) -> bool:
    """Whether this is one of Qt's own classes rather than one that was derived in Python."""
    return "_pyside_class" in wrapper_class.__dict__


def valid_object(wrapper: Any, purpose: str) -> Any:
    """The Qt object of a wrapper; raises ValueError if Qt has destroyed it."""
    target = wrapper._object
    if not shiboken6.isValid(target):
        raise ValueError(f"Trying to {purpose} of a destroyed {type(wrapper).__name__} object")
    return target
