"""Let widgets observe a scene or a node until Qt destroys the widgets."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import shiboken6


class Observation:
    """Observes the events of at most one VTK object for a widget."""

    def __init__(self, widget: Any, changed: Callable[[Any], None]) -> None:
        """`changed(widget)` is called after each event."""
        self._subject: Any = None
        self._tags: list[int] = []
        self._observer = _observer(weakref.ref(widget), changed, self._tags)

    def follow(self, subject: Any, events: Iterable[Any] = ("ModifiedEvent",)) -> None:
        """Observe `subject` instead of the previous object; if `subject` is None, observe nothing."""
        _remove_observers(self._subject, self._tags)
        self._subject = subject
        if subject is not None:
            self._tags.extend(subject.AddObserver(event, self._observer) for event in events)


def _observer(held: weakref.ref[Any], changed: Callable[[Any], None], tags: list[int]) -> Callable[[Any, str], None]:
    def observe(caller: Any, event: str) -> None:
        widget = held()
        if widget is not None and shiboken6.isValid(widget):
            changed(widget)
        else:
            _remove_observers(caller, tags)

    return observe


def _remove_observers(subject: Any, tags: list[int]) -> None:
    for tag in tags:
        subject.RemoveObserver(tag)
    tags.clear()
