"""Wrap PySide6 objects so that they follow PythonQt's conventions.

A name is looked up as in PythonQt (PythonQtInstanceWrapper.cpp): as a property, then as a method or a signal, then as
an enum value, and last as a dynamic property or a child object. Only writable and dynamic properties can be set; an
object whose class was derived in Python can also get new attributes. Any other name raises AttributeError.
"""

from __future__ import annotations

import enum
import os
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import shiboken6
from PySide6 import QtCore

from .conversion import for_property, unwrap, wrap
from .enums import EnumValue, enum_class
from .handles import ClassWrapper, Handle, is_plain
from .members import QtMethod, QtProperty, QtSignal
from .signals import get_or_create

_HIDDEN = {"connect", "disconnect", "emit", "receivers", "staticMetaObject", "tr", "inherits", "sender"}

_classes: dict[type, type] = {}
_wrappers: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


class Wrapped(Handle):
    """The wrapper of a Qt object."""

    _pyside_class: type

    def __init__(self, *args: Any, **keywords: Any) -> None:
        if keywords:
            raise TypeError(f"{type(self).__name__}: Qt constructors take no keyword arguments")
        if any(isinstance(argument, os.PathLike) for argument in args):
            raise ValueError(f"{type(self).__name__}: PythonQt converts no pathlib.Path; pass str(path)")
        pyside_class = self._pyside_class
        if not is_plain(type(self)):
            pyside_class = _shell_class(type(self))
        _adopt(self, pyside_class(*(unwrap(argument) for argument in args)))
        object.__setattr__(self, "_made_in_python", True)
        if not is_plain(type(self)):
            # Keeps the wrapper alive: Qt may call the wrapper's methods as long as the Qt object exists.
            self._object._wrapper = self

    def className(self) -> str:
        return type(self).__name__

    def help(self) -> str:
        return f"{type(self).__name__}, see Qt's documentation"

    def __getattr__(self, name: str) -> Any:
        target = self.__dict__.get("_object")
        if isinstance(target, QtCore.QObject) and shiboken6.isValid(target) and not name.startswith("__"):
            if name in _dynamic_properties(target):
                return wrap(target.property(name))
            for child in target.children():
                if child.objectName() == name:
                    return wrap(child)
        raise AttributeError(f"{type(self).__name__} has no attribute named '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        attribute = _lookup(type(self), name)
        if isinstance(attribute, QtProperty | QtMethod | QtSignal):
            attribute.__set__(self, value)
            return
        if isinstance(attribute, EnumValue | ClassWrapper):
            raise AttributeError(f"EnumValue '{name}' can not be overwritten on {type(self).__name__} object")
        target = self.__dict__.get("_object")
        is_alive = isinstance(target, QtCore.QObject) and shiboken6.isValid(target)
        if is_alive and name in _dynamic_properties(target):
            target.setProperty(name, for_property(value))
        elif not is_plain(type(self)):
            object.__setattr__(self, name, value)
        else:
            raise AttributeError(
                f"'{name}' does not exist on {type(self).__name__} and creating new attributes on C++ objects is not"
                " allowed"
            )

    def __bool__(self) -> bool:
        return bool(shiboken6.isValid(self._object))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Wrapped):
            return False
        if isinstance(self._object, QtCore.QObject):
            return self._object is other._object
        return bool(self._object == other._object)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(id(self._object)) if isinstance(self._object, QtCore.QObject) else hash(repr(self._object))

    def __repr__(self) -> str:
        return f"{type(self).__name__} ({self._object!r})"


class WrappedQObject(Wrapped):
    """A wrapped QObject, with the methods that PythonQt adds to QObject."""

    _pyside_class = QtCore.QObject

    def connect(self, signal: str, receiver: Any, slot: str | None = None, /) -> bool:
        """Connect a signal, such as "clicked(bool)", to a callable or to a Qt object's slot, such as "accept()".

        Raises ValueError if the sender lacks the signal, the receiver lacks the slot, or `signal` has no
        parentheses. `SignalConnections.connect` lists the other errors.
        """
        _refuse_bare_name(signal)
        connections = get_or_create(self, "connect a signal")
        return (
            connections.connect(signal, receiver)
            if slot is None
            else connections.connect_by_name(signal, receiver, slot)
        )

    def disconnect(self, signal: str, receiver: Any, slot: str | None = None, /) -> bool:
        _refuse_bare_name(signal)
        connections = get_or_create(self, "disconnect a signal")
        if slot is None:
            return connections.disconnect(signal, receiver)
        return connections.disconnect_by_name(signal, receiver, slot)

    def inherits(self, name: str) -> bool:
        return bool(self._object.inherits(name))

    def delete(self) -> None:
        shiboken6.delete(self._object)


def _refuse_bare_name(signal: str) -> None:
    # PythonQt finds "clicked()", but not "clicked".
    if "(" not in signal:
        raise ValueError(f"QObject::connect() signal '{signal}' does not exist; write its arguments: \"{signal}()\"")


def wrapper_class(pyside_class: type) -> type:
    """Return the wrapper class of a PySide6 class or of a custom widget's class."""
    if pyside_class in _classes:
        return _classes[pyside_class]
    bases = tuple(wrapper_class(base) for base in pyside_class.__bases__ if _is_qt(base))
    if not bases:
        bases = (WrappedQObject,) if pyside_class is QtCore.QObject else (Wrapped,)
    made = ClassWrapper(pyside_class.__name__, bases, _namespace(pyside_class))
    _classes[pyside_class] = made
    return made


def _namespace(pyside_class: type) -> dict[str, Any]:
    names: dict[str, Any] = {"_pyside_class": pyside_class, "__module__": "qt", "__doc__": pyside_class.__doc__}
    properties = property_names(pyside_class)
    for name in dir(pyside_class):
        if name.startswith("_") or name in _HIDDEN or name in properties:
            continue
        member = pyside_class.__dict__.get(name)
        if member is None:
            continue
        if isinstance(member, QtCore.Signal):
            names[name] = QtSignal(name)
        elif isinstance(member, type) and issubclass(member, enum.Enum):
            names[name] = enum_class(member)
            values = enum_class(member).members_by_name()
            names.update({key: value for key, value in values.items() if key not in properties})
        elif isinstance(member, type):
            names[name] = wrapper_class(member) if _is_qt(member) else member
        elif type(member) is int:  # an enum value of a custom widget
            names[name] = member
        elif callable(member):
            names[name] = QtMethod(name, pyside_class)
    # A property hides any other member of the same name, even an inherited method.
    names.update({name: QtProperty(name, pyside_class) for name in properties})
    # In PythonQt, the attribute `name` is the property `objectName`.
    if "objectName" in properties and "name" not in properties:
        names["name"] = QtProperty("objectName", pyside_class)
    # PythonQt appends an underscore to `exec`, which is a keyword of Python 2.
    if "exec" in names:
        names["exec_"] = names["exec"]
    return names


@cache
def property_names(pyside_class: type) -> list[str]:
    """Return the Qt properties of a class.

    Cached because PySide6 may drop the meta-object of a Python class when an instance is deleted.
    """
    meta = getattr(pyside_class, "staticMetaObject", None)
    if meta is None or not issubclass(pyside_class, QtCore.QObject):
        return []
    return [meta.property(index).name() for index in range(meta.propertyCount())]


def _is_qt(cls: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, shiboken6.Object) and cls is not shiboken6.Object


def _shell_class(derived: type) -> type:
    """Return the shell of `derived`: a PySide6 class through which Qt calls the overrides in `derived`.

    Qt can call only methods of a PySide6 class, but `derived` is a subclass of a wrapper class. The shell is a subclass
    of the wrapped PySide6 class. For each Qt method that `derived` overrides, the shell has a method that calls the
    override.
    """
    if "_shell" not in derived.__dict__:
        base = next(cls for cls in derived.__mro__ if is_plain(cls))
        names = {
            name
            for cls in derived.__mro__[: derived.__mro__.index(base)]
            for name in cls.__dict__
            if not name.startswith("_") and isinstance(_lookup(base, name), QtMethod)
        }
        body = {name: _override_caller(name) for name in names}
        type.__setattr__(derived, "_shell", type(f"{derived.__name__}Shell", (base._pyside_class,), body))
    return derived.__dict__["_shell"]


def _override_caller(name: str) -> Callable[..., Any]:
    def call(self: Any, *args: Any) -> Any:
        result = unwrap(getattr(self._wrapper, name)(*(wrap(argument) for argument in args)))
        # An item model in Python may return an enum value as data. Qt's views expect the enum's number.
        is_data = name in ("data", "headerData") and isinstance(result, enum.Enum)
        return getattr(result.value, "value", result.value) if is_data else result

    return call


def wrapper_of(target: Any) -> Any:
    """Return the recorded wrapper of a PySide6 object, or a new wrapper if none is recorded."""
    own = getattr(target, "_wrapper", None)
    if own is not None:
        return own
    known = _wrappers.get(id(target))
    if known is not None and known._object is target:
        return known
    made = object.__new__(wrapper_class(_qt_class_of(target)))
    _adopt(made, target)
    return made


def _qt_class_of(target: Any) -> type:
    return next(cls for cls in type(target).__mro__ if not cls.__name__.endswith("Shell"))


def _adopt(wrapper: Any, target: Any) -> None:
    object.__setattr__(wrapper, "_object", target)
    if isinstance(target, QtCore.QObject):
        _wrappers[id(target)] = wrapper


def _dynamic_properties(target: QtCore.QObject) -> list[str]:
    return [bytes(name.data()).decode() for name in target.dynamicPropertyNames()]


def _lookup(cls: type, name: str) -> Any:
    return next((base.__dict__[name] for base in cls.__mro__ if name in base.__dict__), None)
