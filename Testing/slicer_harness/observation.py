"""Let widgets observe a scene or a node until Qt destroys the widgets."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import shiboken6


class Observation:
    """The observation of events of one VTK object for a widget; the object may be None."""

    def __init__(self, widget: Any, changed: Callable[[Any], None]) -> None:
        """Call `changed(widget)` after each event."""
        # The observer must hold no reference to the observed node. Python would collect such a cycle, and the node's
        # wrapper with it, while the node itself still is in the scene.
        self._observer = _observer(weakref.ref(widget), changed)
        self._subject: Any = None
        self._tags: list[int] = []

    def follow(self, subject: Any, events: Iterable[Any] = ("ModifiedEvent",)) -> None:
        """Observe `subject` instead of the previous object; None observes nothing."""
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
