"""Define the base class of all wrappers of Qt objects, and its metaclass."""

from __future__ import annotations

from typing import Any

import shiboken6


class ClassWrapper(type):
    """The metaclass of the wrapper classes."""

    _pyside_class: type


class Handle(metaclass=ClassWrapper):
    """The base of all wrappers; holds a PySide6 object."""

    _object: Any


def is_plain(wrapper_class: type) -> bool:
    """Return whether a class directly wraps a class of Qt; False for a subclass that a module or a test defines."""
    return "_pyside_class" in wrapper_class.__dict__


def valid_object(wrapper: Any, purpose: str) -> Any:
    """Return the Qt object of a wrapper; raise ValueError if Qt has destroyed the object.

    Args:
        purpose: what the caller would do, for the error's text, such as "set property 'text'".
    """
    target = wrapper._object
    if not shiboken6.isValid(target):
        raise ValueError(f"Trying to {purpose} of a destroyed {type(wrapper).__name__} object")
    return target
