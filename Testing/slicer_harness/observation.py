"""Let widgets observe a scene or a node until Qt destroys the widgets."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import shiboken6


class Observation:
    """One widget's observation of some events of one object, or of nothing."""

    def __init__(self, widget: Any, changed: Callable[[Any], None]) -> None:
        """Call `changed(widget)` after each event."""
        # The observer holds no reference back to what it observes: Python would collect such a cycle with a node's
        # wrapper while the node itself lives on in the scene.
        self._observer = _observer(weakref.ref(widget), changed)
        self._subject: Any = None
        self._tags: list[int] = []

    def follow(self, subject: Any, events: Iterable[Any] = ("ModifiedEvent",)) -> None:
        """Observe `subject` (None for nothing) and no longer the object before."""
        for tag in self._tags:
            self._subject.RemoveObserver(tag)
        self._subject = subject
        self._tags = [] if subject is None else [subject.AddObserver(event, self._observer) for event in events]


def _observer(held: weakref.ref[Any], changed: Callable[[Any], None]) -> Callable[[Any, str], None]:
    def observe(caller: Any, event: str) -> None:
        widget = held()
        if widget is not None and shiboken6.isValid(widget):
            changed(widget)

    return observe
