"""Widgets that follow a scene or a node, for as long as Qt has not destroyed them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import shiboken6


class Observation:
    """What one widget observes: nothing, or some events of one object."""

    def __init__(self, widget: Any, changed: Callable[[Any], None]) -> None:
        """`changed(widget)` is called after each event."""
        self._widget, self._changed = weakref.ref(widget), changed
        self._subject: Any = None
        self._tags: list[int] = []

    def follow(self, subject: Any, events: Iterable[Any] = ("ModifiedEvent",)) -> None:
        """Observe `subject` (None for nothing) in the place of what was observed before."""
        for tag in self._tags:
            self._subject.RemoveObserver(tag)
        self._subject = subject
        self._tags = [] if subject is None else [subject.AddObserver(event, self._on_event) for event in events]

    def _on_event(self, caller: Any, event: str) -> None:
        widget = self._widget()
        if widget is None or not shiboken6.isValid(widget):
            self.follow(None)
        else:
            self._changed(widget)
