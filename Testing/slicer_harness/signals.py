"""Connect signals as in PythonQt: `button.clicked.connect(f)` or `button.connect("clicked()", f)`."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import shiboken6
from PySide6 import QtCore

from . import deletion
from .conversion import unwrap
from .handles import valid_object
from .slots import slot_of


class Signal:
    """A signal of a Qt object, as PythonQt shows it."""

    def __init__(self, wrapper: Any, name: str) -> None:
        self._wrapper, self._name = wrapper, name

    def connect(self, receiver: Callable[..., Any]) -> bool:
        return get_or_create(self._wrapper, "connect a signal").connect(self._name, receiver)

    def disconnect(self, receiver: Callable[..., Any] | None = None) -> bool:
        return get_or_create(self._wrapper, "disconnect a signal").disconnect(self._name, receiver)

    def emit(self, *args: Any) -> None:
        getattr(self._wrapper._object, self._name).emit(*(unwrap(argument) for argument in args))

    def __call__(self, *args: Any) -> None:
        self.emit(*args)

    def __repr__(self) -> str:
        return f"<qt signal {self._name} of {self._wrapper!r}>"


class Connection(NamedTuple):
    """A connection of a signal to a Python callable.

    Attributes:
        slot: the function that Qt calls; it calls the receiver.
    """

    signature: str
    receiver: Callable[..., Any]
    slot: Callable[..., Any]


class SignalConnections:
    """The connections of one Qt object's signals to Python callables."""

    def __init__(self, target: QtCore.QObject) -> None:
        self._target = weakref.ref(target)
        self._connections: list[Connection] = []

    def connect(self, signal: str, receiver: Callable[..., Any]) -> bool:
        """Connect a signal to a callable, which stays alive until it is disconnected or the sender is deleted.

        Raises:
            ValueError: the object has no such signal.
            TypeError: the receiver cannot be called.
            FatalConnection: the receiver is a method of a dialog that Python owns, and the signal is another object's.
                Such a connection would crash a real Slicer when the dialog is deleted (deletion.py).
        """
        if not callable(receiver):
            raise TypeError(f"{receiver!r} cannot be connected to {signal}: it cannot be called")
        target, signature = self._find_signal(signal)
        deletion.refuse_slot_of_python_owned_dialog(target, signature, receiver)
        slot = slot_of(receiver, self._target)
        self._connections.append(Connection(signature, receiver, slot))
        QtCore.QObject.connect(target, QtCore.SIGNAL(signature), slot)
        return True

    def disconnect(self, signal: str, receiver: Callable[..., Any] | None) -> bool:
        """Remove a signal's connections to `receiver` (None: to all receivers); return whether there were any."""
        target, signature = self._find_signal(signal)
        removed = [
            connection
            for connection in self._connections
            if connection.signature == signature and (receiver is None or connection.receiver == receiver)
        ]
        for connection in removed:
            QtCore.QObject.disconnect(target, QtCore.SIGNAL(signature), connection.slot)
            self._connections.remove(connection)
        return bool(removed)

    def connect_by_name(self, signal: str, receiver: Any, slot: str) -> bool:
        """Connect a signal to a slot or signal of a Qt object; Python holds no reference to the receiver.

        Raises ValueError if the sender lacks the signal or the receiver lacks the slot.
        """
        target, signature = self._find_signal(signal)
        receiver_object = valid_object(receiver, "connect a slot")
        found_slot = self._find_slot(receiver_object, slot)
        return bool(QtCore.QObject.connect(target, QtCore.SIGNAL(signature), receiver_object, found_slot))

    def disconnect_by_name(self, signal: str, receiver: Any, slot: str) -> bool:
        """Remove a connection made by `connect_by_name`; return False if there was none."""
        target, signature = self._find_signal(signal)
        receiver_object = valid_object(receiver, "disconnect a slot")
        found_slot = self._find_slot(receiver_object, slot)
        return bool(QtCore.QObject.disconnect(target, QtCore.SIGNAL(signature), receiver_object, found_slot))

    def release(self) -> None:
        """Remove the connections to Python callables, and release the callables."""
        target = self._target()
        exists = target is not None and shiboken6.isValid(target)
        for connection in self._connections if exists else ():
            QtCore.QObject.disconnect(target, QtCore.SIGNAL(connection.signature), connection.slot)
        self._connections.clear()

    @staticmethod
    def _find_slot(target: QtCore.QObject, slot: str) -> str:
        wanted = _normalize(slot)
        # Slots defined in Python declare MRML arguments as PyObject.
        signatures = (wanted, re.sub(r"vtkMRML\w+\*", "PyObject", wanted))
        for signature, is_signal in _methods(target):
            if signature in signatures:
                return QtCore.SIGNAL(signature) if is_signal else QtCore.SLOT(signature)
        raise ValueError(f"QObject::connect() slot '{slot}' does not exist on {type(target).__name__}")

    def _find_signal(self, signal: str) -> tuple[QtCore.QObject, str]:
        """Return the Qt object and the full signature of a signal; `signal` is the signal's signature or name."""
        target = self._target()
        # The caller holds the sender's wrapper, which keeps a reference to the object.
        assert target is not None
        wanted = _normalize(signal)
        known = (type(target), wanted)
        if known not in _signatures:
            for signature, is_signal in _methods(target):
                if is_signal and wanted in (signature, signature.split("(")[0]):
                    _signatures[known] = signature
                    break
        if known in _signatures:
            return target, _signatures[known]
        # SIGNATURES maps Slicer's signature of a signal to the harness's signature.
        declared = getattr(type(target), "SIGNATURES", {}).get(wanted)
        if declared is not None:
            return target, declared
        raise ValueError(f"QObject::connect() signal '{signal}' does not exist on {type(target).__name__}")


_signatures: dict[tuple[type, str], str] = {}
"""(class of a Qt object, signature or name of its signal) -> the signal's full signature."""

_all_connections: weakref.WeakKeyDictionary[QtCore.QObject, SignalConnections] = weakref.WeakKeyDictionary()


def find_connections(target: QtCore.QObject) -> SignalConnections | None:
    """Return the connections of a Qt object; None if none of its signals was connected."""
    return _all_connections.get(target)


def get_or_create(wrapper: Any, purpose: str) -> SignalConnections:
    """Return the connections of a wrapper's Qt object; raise ValueError with `purpose` if Qt destroyed the object."""
    target = valid_object(wrapper, purpose)
    if target not in _all_connections:
        _all_connections[target] = SignalConnections(target)
    return _all_connections[target]


def release_connections(target: QtCore.QObject) -> None:
    """Remove the connections of a Qt object to Python callables, as PythonQt does when Qt deletes the object."""
    connections = find_connections(target)
    if connections is not None:
        connections.release()


def _methods(target: QtCore.QObject) -> Iterator[tuple[str, bool]]:
    """Yield the signature of each method of a Qt object, and whether the method is a signal."""
    meta = target.metaObject()
    for method in (meta.method(index) for index in range(meta.methodCount())):
        is_signal = method.methodType() == QtCore.QMetaMethod.MethodType.Signal
        yield bytes(method.methodSignature().data()).decode(), is_signal


def _normalize(signature: str) -> str:
    """Return a signature without spaces, `const` and `&`. Slicer's widgets need no other normalisation."""
    return re.sub(r"\bconst\b|[\s&]", "", signature)
