"""Qt objects with PythonQt's manners over PySide6: properties are attributes, all else is called, nothing is added.

PythonQt looks a name up as property, then as method or signal, then as enum value; a dynamic property or a child of
that name come last. What it does not find it refuses to read, and what it finds to be no writable property to set.
"""

from __future__ import annotations

import enum
import os
import weakref
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import shiboken6
from PySide6 import QtCore
from vtkmodules.vtkCommonCore import vtkObjectBase

from .enums import EnumValue, enum_class
from .signals import Signal, SignalConnections, slot_of

_HIDDEN = {"connect", "disconnect", "emit", "receivers", "staticMetaObject", "tr", "inherits", "sender"}

_classes: dict[type, type] = {}
_wrappers: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


class ClassWrapper(type):
    """The class of Qt's classes."""


class QtProperty:
    """A Qt property, read and written as an attribute."""

    def __init__(self, name: str, pyside_class: type) -> None:
        self.name, self.pyside_class = name, pyside_class

    def __get__(self, wrapper: Any, owner: type) -> Any:
        if wrapper is None:
            # QTimer.singleShot is a static method of the class and a property of its objects.
            if _is_static(getattr(self.pyside_class, self.name, None)):
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
        if not _accepts(prop.typeName(), value) or not prop.write(target, _for_property(value)):
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
    """A Qt method with the object, or none for the class, that it was taken from."""

    def __init__(self, method: QtMethod, wrapper: Any) -> None:
        self.method, self.wrapper = method, wrapper
        self.__name__ = method.name

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        if keywords:
            raise TypeError(f"{self.method.name}: Qt methods take no keyword arguments")
        if any(isinstance(argument, os.PathLike) for argument in args):
            raise ValueError(f"{self.method.name}: Qt converts no pathlib.Path; pass str(path)")
        return wrap(self._function()(*(unwrap(argument) for argument in args)))

    def _function(self) -> Callable[..., Any]:
        name, pyside_class = self.method.name, self.method.pyside_class
        if self.wrapper is None:
            return getattr(pyside_class, name)
        target = valid_object(self.wrapper, f"call '{name}'")
        if is_plain(type(self.wrapper)):
            return getattr(target, name)
        # What a Python class overrides is reached here from its own super().
        function = getattr(pyside_class, name)
        return function if _is_static(function) else partial(function, target)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoundMethod) and (self.method, self.wrapper) == (other.method, other.wrapper)

    def __hash__(self) -> int:
        return hash((self.method, id(self.wrapper)))

    def __repr__(self) -> str:
        return f"<qt slot {self.method.name} of {self.wrapper!r}>"


class QtSignal:
    """A signal of a Qt class, bound to an object when it is read."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, wrapper: Any, owner: type) -> Any:
        return self if wrapper is None else Signal(wrapper, self.name)

    def __set__(self, wrapper: Any, value: Any) -> None:
        raise AttributeError(f"Signal '{self.name}' can not be overwritten on {wrapper.className()} object")


class Wrapped(metaclass=ClassWrapper):
    """What every Qt object is in Python."""

    _pyside_class: type

    def __init__(self, *args: Any, **keywords: Any) -> None:
        if keywords:
            raise TypeError(f"{type(self).__name__}: Qt constructors take no keyword arguments")
        if any(isinstance(argument, os.PathLike) for argument in args):
            raise ValueError(f"{type(self).__name__}: Qt converts no pathlib.Path; pass str(path)")
        pyside_class = self._pyside_class
        if not is_plain(type(self)):
            pyside_class = _shell_class(type(self))
        _adopt(self, pyside_class(*(unwrap(argument) for argument in args)))
        if not is_plain(type(self)):
            # Qt calls the Python methods as long as its object lives.
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
        found = _lookup(type(self), name)
        if isinstance(found, QtProperty | QtMethod | QtSignal):
            found.__set__(self, value)
            return
        if isinstance(found, EnumValue | ClassWrapper):
            raise AttributeError(f"EnumValue '{name}' can not be overwritten on {type(self).__name__} object")
        target = self.__dict__.get("_object")
        is_alive = isinstance(target, QtCore.QObject) and shiboken6.isValid(target)
        if is_alive and name in _dynamic_properties(target):
            target.setProperty(name, _for_property(value))
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
    """What PythonQt adds to QObject itself."""

    _pyside_class = QtCore.QObject

    def connect(self, signal: str, receiver: Callable[..., Any]) -> bool:
        """Connect by signature, such as "clicked(bool)"; a signature that the object lacks is refused."""
        return SignalConnections.of(self).connect(signal, receiver)

    def disconnect(self, signal: str, receiver: Callable[..., Any]) -> bool:
        return SignalConnections.of(self).disconnect(signal, receiver)

    def inherits(self, name: str) -> bool:
        return bool(self._object.inherits(name))

    def delete(self) -> None:
        shiboken6.delete(self._object)


def is_plain(wrapper_class: type) -> bool:
    """Whether this is one of Qt's own classes rather than one that was derived in Python."""
    return "_pyside_class" in wrapper_class.__dict__


def wrapper_class(pyside_class: type) -> type:
    """The class that stands for a PySide6 class (or a custom widget's) in Python."""
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
            names.update({key: value for key, value in enum_class(member).named().items() if key not in properties})
        elif isinstance(member, type):
            names[name] = wrapper_class(member) if _is_qt(member) else member
        elif type(member) is int:  # an enum value of a custom widget
            names[name] = member
        elif callable(member):
            names[name] = QtMethod(name, pyside_class)
    # Its properties win over all names, inherited methods' included; `name` stands for `objectName`.
    names.update({name: QtProperty(name, pyside_class) for name in properties})
    if "objectName" in properties and "name" not in properties:
        names["name"] = QtProperty("objectName", pyside_class)
    # A trailing underscore frees Python's keywords.
    if "exec" in names:
        names["exec_"] = names["exec"]
    return names


@cache
def property_names(pyside_class: type) -> list[str]:
    """The Qt properties of a class; kept, as PySide6 drops the meta-object of a Python class with an instance."""
    meta = getattr(pyside_class, "staticMetaObject", None)
    if meta is None or not issubclass(pyside_class, QtCore.QObject):
        return []
    return [meta.property(index).name() for index in range(meta.propertyCount())]


def _is_qt(cls: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, shiboken6.Object) and cls is not shiboken6.Object


def _shell_class(derived: type) -> type:
    """A PySide6 class whose virtual methods call those that a Python class overrides."""
    if "_shell" not in derived.__dict__:
        base = next(cls for cls in derived.__mro__ if is_plain(cls))
        names = {
            name
            for cls in derived.__mro__[: derived.__mro__.index(base)]
            for name in cls.__dict__
            if not name.startswith("_") and isinstance(_lookup(base, name), QtMethod)
        }
        body = {name: _virtual(name) for name in names}
        type.__setattr__(derived, "_shell", type(f"{derived.__name__}Shell", (base._pyside_class,), body))
    return derived.__dict__["_shell"]


def _virtual(name: str) -> Callable[..., Any]:
    def call(self: Any, *args: Any) -> Any:
        result = unwrap(getattr(self._wrapper, name)(*(wrap(argument) for argument in args)))
        # A QVariant of an enum is a number to Qt's views.
        is_data = name in ("data", "headerData") and isinstance(result, enum.Enum)
        return getattr(result.value, "value", result.value) if is_data else result

    return call


def wrap(value: Any) -> Any:
    """What PythonQt hands to Python for a value of PySide6's."""
    if isinstance(value, enum.Enum) and type(value).__module__.startswith("PySide6"):
        return enum_class(type(value))(value)
    if isinstance(value, shiboken6.Object):
        return _wrapper_of(value)
    if isinstance(value, list | tuple):
        return tuple(wrap(item) for item in value)
    if isinstance(value, dict):
        return {key: wrap(item) for key, item in value.items()}
    return value


def unwrap(value: Any) -> Any:
    """What PySide6 takes for a value of Python's."""
    if isinstance(value, EnumValue):
        return value.member
    if isinstance(value, Wrapped):
        return value._object
    if isinstance(value, ClassWrapper):
        return value._pyside_class  # type: ignore[attr-defined]
    if isinstance(value, list | tuple):
        return type(value)(unwrap(item) for item in value)
    # Only functions that Qt calls later are handed to it, by QTimer.singleShot for one.
    return slot_of(value) if callable(value) and not isinstance(value, type | vtkObjectBase) else value


def _accepts(kind: str, value: Any) -> bool:
    """Whether PythonQt would try to convert a value to a property's type, which Qt itself does more readily."""
    if kind in ("bool", "int", "double"):
        return isinstance(value, int | float)
    return value is not None and not isinstance(value, os.PathLike)


def _for_property(value: Any) -> Any:
    return int(value) if isinstance(value, EnumValue) else unwrap(value)


def _wrapper_of(target: Any) -> Any:
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


def valid_object(wrapper: Any, purpose: str) -> Any:
    """The Qt object of a wrapper; raises ValueError if Qt has destroyed it."""
    target = wrapper._object
    if not shiboken6.isValid(target):
        raise ValueError(f"Trying to {purpose} of a destroyed {type(wrapper).__name__} object")
    return target


def _dynamic_properties(target: QtCore.QObject) -> list[str]:
    return [bytes(name.data()).decode() for name in target.dynamicPropertyNames()]


def _lookup(cls: type, name: str) -> Any:
    return next((base.__dict__[name] for base in cls.__mro__ if name in base.__dict__), None)


def _is_static(function: Any) -> bool:
    return type(function).__name__ == "builtin_function_or_method"
