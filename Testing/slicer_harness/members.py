"""Define descriptors that make Qt's properties, methods and signals behave as in PythonQt."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from PySide6 import QtCore
from vtkmodules.vtkCommonCore import vtkObjectBase

from . import deletion
from .conversion import accepts, for_property, unwrap, wrap
from .handles import Handle, is_plain, valid_object
from .signals import Signal, release_connections
from .slots import slot_of


class QtProperty:
    """A Qt property, read and written as an attribute."""

    def __init__(self, name: str, pyside_class: type) -> None:
        self.name, self.pyside_class = name, pyside_class

    def __get__(self, wrapper: Any, owner: type) -> Any:
        if wrapper is None:
            # `singleShot` is a static method of the class QTimer, and a property of its objects.
            if is_static(getattr(self.pyside_class, self.name, None)):
                return BoundMethod(QtMethod(self.name, self.pyside_class), None)
            raise AttributeError(f"type object '{owner.__name__}' has no attribute '{self.name}'")
        return wrap(self._read(valid_object(wrapper, f"read property '{self.name}'")))

    def _read(self, target: Any) -> Any:
        try:
            return target.property(self.name)
        except RuntimeError:  # PySide6 has no converter for some of Qt's enumerations
            return getattr(self.pyside_class, self.name)(target)

    def __set__(self, wrapper: Any, value: Any) -> None:
        target = valid_object(wrapper, f"set property '{self.name}'")
        meta = target.metaObject()
        prop = meta.property(meta.indexOfProperty(self.name))
        if not prop.isWritable():
            raise AttributeError(f"Property '{self.name}' of {wrapper.className()} object is not writable")
        if not accepts(prop.typeName(), value) or not prop.write(target, for_property(value)):
            raise AttributeError(
                f"Property '{self.name}' of type '{prop.typeName()}' does not accept an object of type"
                f" {type(value).__name__} ({value!r})"
            )


class QtMethod:
    """A method or slot of a Qt class."""

    def __init__(self, name: str, pyside_class: type) -> None:
        self.name, self.pyside_class = name, pyside_class

    def __get__(self, wrapper: Any, owner: type) -> Any:
        return BoundMethod(self, wrapper)

    def __set__(self, wrapper: Any, value: Any) -> None:
        raise AttributeError(f"Slot '{self.name}' can not be overwritten on {wrapper.className()} object")


class BoundMethod:
    """A Qt method of an object, or of a class (then `wrapper` is None)."""

    def __init__(self, method: QtMethod, wrapper: Any) -> None:
        self.method, self.wrapper = method, wrapper
        self.__name__ = method.name

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        if keywords:
            raise TypeError(f"{self.method.name}: Qt methods take no keyword arguments")
        if any(isinstance(argument, os.PathLike) for argument in args):
            raise ValueError(f"{self.method.name}: PythonQt converts no pathlib.Path; pass str(path)")
        if self.method.name == "deleteLater" and self.wrapper is not None:
            deletion.watch(self.wrapper, release_connections)
        if self.method.name == "setParent" and args[:1] == (None,) and self.wrapper is not None:
            deletion.refuse_release_in_own_signal(self.wrapper._object)
        return wrap(self._function()(*(_to_qt_argument(argument) for argument in args)))

    def argument_count(self) -> int | None:
        """Return the maximum number of arguments that the method takes; None if unknown."""
        target = self.wrapper._object if self.wrapper is not None else None
        if not isinstance(target, QtCore.QObject):
            return None
        meta = target.metaObject()
        methods = [meta.method(index) for index in range(meta.methodCount())]
        counts = [method.parameterCount() for method in methods if method.name().data().decode() == self.method.name]
        return max(counts) if counts else None

    def _function(self) -> Callable[..., Any]:
        name, pyside_class = self.method.name, self.method.pyside_class
        if self.wrapper is None:
            return getattr(pyside_class, name)
        target = valid_object(self.wrapper, f"call '{name}'")
        if is_plain(type(self.wrapper)):
            return getattr(target, name)
        # If a derived Python class overrides the method, `getattr(target, name)` would return the override, and
        # super() in the override would call the override again.
        function = getattr(pyside_class, name)
        return function if is_static(function) else partial(function, target)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoundMethod) and (self.method, self.wrapper) == (other.method, other.wrapper)

    def __hash__(self) -> int:
        return hash((self.method, self.wrapper))

    def __repr__(self) -> str:
        return f"<qt slot {self.method.name} of {self.wrapper!r}>"


class QtSignal:
    """A signal of a Qt class."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, wrapper: Any, owner: type) -> Any:
        return self if wrapper is None else Signal(wrapper, self.name)

    def __set__(self, wrapper: Any, value: Any) -> None:
        raise AttributeError(f"Signal '{self.name}' can not be overwritten on {wrapper.className()} object")


def _to_qt_argument(value: Any) -> Any:
    is_function = callable(value) and not isinstance(value, type | Handle | vtkObjectBase)
    return slot_of(value) if is_function else unwrap(value)


def is_static(function: Any) -> bool:
    """Return whether a PySide6 method is static."""
    return type(function).__name__ == "builtin_function_or_method"
