"""Connect signals as PythonQt does: by attribute or by signature; a receiver gets as many arguments as it takes."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import shiboken6
from PySide6 import QtCore

from . import deletion
from .conversion import unwrap
from .handles import valid_object
from .slots import slot_of


class Signal:
    """A signal of one object."""

    def __init__(self, wrapper: Any, name: str) -> None:
        self._wrapper, self._name = wrapper, name

    def connect(self, receiver: Callable[..., Any]) -> bool:
        return SignalConnections.of(self._wrapper).connect(self._name, receiver)

    def disconnect(self, receiver: Callable[..., Any] | None = None) -> bool:
        return SignalConnections.of(self._wrapper).disconnect(self._name, receiver)

    def emit(self, *args: Any) -> None:
        getattr(self._wrapper._object, self._name).emit(*(unwrap(argument) for argument in args))

    def argument_count(self) -> int | None:
        """Return None: a signal that receives a signal takes any number of arguments."""
        return None

    def __call__(self, *args: Any) -> None:
        self.emit(*args)

    def __repr__(self) -> str:
        return f"<qt signal {self._name} of {self._wrapper!r}>"


class SignalConnections:
    """The connections of one Qt object's signals to Python callables."""

    _all: ClassVar[weakref.WeakKeyDictionary[QtCore.QObject, SignalConnections]] = weakref.WeakKeyDictionary()

    def __init__(self, target: QtCore.QObject) -> None:
        self._target = weakref.ref(target)
        self._slots: list[tuple[str, Callable[..., Any], Callable[..., Any]]] = []

    @classmethod
    def known(cls, target: QtCore.QObject) -> SignalConnections | None:
        """Return the connections of a Qt object, or None if it has none."""
        return cls._all.get(target)

    @classmethod
    def of(cls, wrapper: Any) -> SignalConnections:
        target = valid_object(wrapper, "connect")
        found = cls._all.get(target)
        if found is None:
            found = cls._all[target] = cls(target)
        return found

    def connect(self, signal: str, receiver: Callable[..., Any]) -> bool:
        """Connect a signal to a callable, which stays alive as long as the sender.

        Raises ValueError for a signal that the object lacks, TypeError for a receiver that cannot be called and
        FatalConnection for a slot of a dialog that only Python owns.
        """
        if not callable(receiver):
            raise TypeError(f"{receiver!r} cannot be connected to {signal}: it cannot be called")
        target, signature = self._find_signal(signal)
        deletion.refuse_slot_of_own_dialog(target, signature, receiver)
        slot = slot_of(receiver, self._target)
        self._slots.append((signature, receiver, slot))
        QtCore.QObject.connect(target, QtCore.SIGNAL(signature), slot)
        return True

    def disconnect(self, signal: str, receiver: Callable[..., Any] | None) -> bool:
        """Remove a connection, or all of a signal; return False if there was none."""
        target, signature = self._find_signal(signal)
        gone = [slot for slot in self._slots if slot[0] == signature and (receiver is None or slot[1] == receiver)]
        for connected in gone:
            QtCore.QObject.disconnect(target, QtCore.SIGNAL(signature), connected[2])
            self._slots.remove(connected)
        return bool(gone)

    def connect_by_name(self, signal: str, receiver: Any, slot: str) -> bool:
        """Connect a signal to a slot or signal of another Qt object; Python holds no reference to the receiver.

        Raises ValueError for a signal or a slot that its object lacks.
        """
        target, signature = self._find_signal(signal)
        other, name = self._find_slot(receiver, slot)
        return bool(QtCore.QObject.connect(target, QtCore.SIGNAL(signature), other, name))

    def disconnect_by_name(self, signal: str, receiver: Any, slot: str) -> bool:
        target, signature = self._find_signal(signal)
        other, name = self._find_slot(receiver, slot)
        return bool(QtCore.QObject.disconnect(target, QtCore.SIGNAL(signature), other, name))

    def release(self) -> None:
        """Drop all connections and the references that they hold."""
        target = self._target()
        exists = target is not None and shiboken6.isValid(target)
        for signature, _receiver, slot in self._slots if exists else ():
            QtCore.QObject.disconnect(target, QtCore.SIGNAL(signature), slot)
        self._slots.clear()

    @staticmethod
    def _find_slot(receiver: Any, slot: str) -> tuple[QtCore.QObject, str]:
        """Return the receiver's Qt object and its slot (or signal) as QObject.connect takes it."""
        target = valid_object(receiver, "connect")
        wanted = _normalized(slot)
        names = (wanted, re.sub(r"vtkMRML\w+\*", "PyObject", wanted))
        meta = target.metaObject()
        for method in (meta.method(index) for index in range(meta.methodCount())):
            signature = bytes(method.methodSignature().data()).decode()
            if signature in names:
                is_signal = method.methodType() == QtCore.QMetaMethod.MethodType.Signal
                return target, (QtCore.SIGNAL if is_signal else QtCore.SLOT)(signature)
        raise ValueError(f"QObject::connect() slot '{slot}' does not exist on {type(target).__name__}")

    def _find_signal(self, signal: str) -> tuple[QtCore.QObject, str]:
        """Return the object and Qt's signature of `signal`, which is a signature or a name."""
        target = self._target()
        assert target is not None
        meta = target.metaObject()
        methods = [meta.method(index) for index in range(meta.methodCount())]
        signals = [
            bytes(method.methodSignature().data()).decode()
            for method in methods
            if method.methodType() == QtCore.QMetaMethod.MethodType.Signal
        ]
        wanted = _normalized(signal)
        for signature in signals:
            if wanted == signature or wanted == signature.split("(")[0]:
                return target, signature
        # The signatures of Slicer's widgets contain C++ classes that the harness's meta-objects lack.
        declared = getattr(type(target), "SIGNATURES", {}).get(wanted)
        if declared is not None:
            return target, declared
        raise ValueError(f"QObject::connect() signal '{signal}' does not exist on {type(target).__name__}")


def _normalized(signature: str) -> str:
    """Return a signature as Qt's meta-object writes it: no spaces, no `const` and no reference."""
    return re.sub(r"\bconst\b|[\s&]", "", signature)
