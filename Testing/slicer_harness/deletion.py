"""Detect deletions of Python-owned Qt objects that would crash a real Slicer, as was observed in Slicer 5.12.3.

Example: `button` is a child of `dialog`. Python's last reference to `dialog` is in the connection
`button.clicked.connect(dialog.accept)`.

1. Qt deletes the dialog and the button.
2. PythonQt removes the button's connection, and with it the last reference to the dialog.
3. PythonQt deletes the dialog a second time: a segmentation fault.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import shiboken6
from PySide6 import QtCore, QtWidgets

from . import slot_errors


class FatalConnection(RuntimeError):
    """A connection or a call of `setParent(None)` that could crash a real Slicer with a segmentation fault."""


def is_owned_by_python(wrapper: Any) -> bool:
    """Return whether Python made a Qt object and no Qt parent owns the object."""
    target = wrapper._object
    return bool(wrapper.__dict__.get("_made_in_python")) and shiboken6.isValid(target) and target.parent() is None


def refuse_slot_of_python_owned_dialog(sender: QtCore.QObject, signature: str, receiver: Any) -> None:
    """Raise FatalConnection if another object's signal is connected to a slot of a Python-owned dialog."""
    wrapper = getattr(receiver, "wrapper", None)
    if wrapper is None or not isinstance(wrapper._object, QtWidgets.QDialog) or wrapper._object is sender:
        return
    if is_owned_by_python(wrapper):
        slot = receiver.__name__
        raise FatalConnection(
            f"{type(sender).__name__}.{signature} keeps a reference to {type(wrapper).__name__}.{slot}, and Slicer"
            f' would crash when the dialog is deleted; write sender.connect("{signature}", dialog, "{slot}()")'
        )


_emitting: list[QtCore.QObject] = []
"""The objects whose signals call a Python function at this moment."""


@contextmanager
def emission(sender: QtCore.QObject | None) -> Iterator[None]:
    """While a slot runs, remember the object whose signal called the slot."""
    _emitting.append(sender)
    try:
        yield
    finally:
        _emitting.pop()


def refuse_release_in_own_signal(target: QtCore.QObject) -> None:
    """Raise FatalConnection if the target of `setParent(None)` is emitting a signal."""
    if any(sender is target for sender in _emitting):
        raise FatalConnection(
            f"setParent(None) makes Python the owner of {type(target).__name__} {target.objectName()!r}, which is"
            " emitting a signal: Slicer could crash, because Python could delete the object before the signal ends;"
            " instead of setParent(None), call hide() and deleteLater()"
        )


class _Watcher(QtCore.QObject):
    """Checks who holds the last reference to an object, just before Qt deletes the object."""

    def __init__(self, wrapper: Any, release: Callable[[QtCore.QObject], None]) -> None:
        super().__init__()
        self._wrapper, self._release = weakref.ref(wrapper), release
        self._kept: Any = None

    def eventFilter(self, watched: QtCore.QObject, event: QtCore.QEvent) -> bool:
        if event.type() == QtCore.QEvent.Type.DeferredDelete and shiboken6.isValid(watched):
            # `_release` may delete the wrapper. The reference `_kept` prevents PySide from deleting `watched` with the
            # wrapper, while Qt still delivers this event.
            self._kept = watched
            had_reference = self._wrapper() is not None
            for sender in (watched, *watched.findChildren(QtCore.QObject)):
                self._release(sender)
            if had_reference and self._wrapper() is None:
                with slot_errors.keep_errors():
                    raise FatalConnection(
                        f"the last reference to {type(watched).__name__} {watched.objectName()!r} is held by a slot"
                        " connected to this object or to one of its children: Slicer would end here with a"
                        " segmentation fault"
                    )
        return False


_watchers: dict[int, _Watcher] = {}


def watch(wrapper: Any, release: Callable[[QtCore.QObject], None]) -> None:
    """Install a `_Watcher` on a Python-owned object; ignore any other object.

    Args:
        release: removes the connections of a Qt object to Python callables.
    """
    target = wrapper._object
    if not is_owned_by_python(wrapper) or target.property("_harness_watched"):
        return
    watcher = _Watcher(wrapper, release)
    key = id(watcher)
    _watchers[key] = watcher
    target.setProperty("_harness_watched", True)
    target.installEventFilter(watcher)
    target.destroyed.connect(lambda: QtCore.QTimer.singleShot(0, lambda: _watchers.pop(key, None)))


def delete_pending() -> None:
    """Delete now the objects for which deleteLater() was called."""
    QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
    QtCore.QCoreApplication.processEvents()
