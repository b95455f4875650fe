"""Define Qt properties that only store a value, for widgets written in Python."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import Property


def stored(kind: Any, default: Any, changed: Callable[[Any], None] | None = None) -> Property:
    """Return a property of type `kind` that stores a value; `changed` is called with the widget after each change."""
    key = f"_stored_{next(_numbers)}"

    def read(widget: Any) -> Any:
        return widget.__dict__.get(key, default)

    def write(widget: Any, value: Any) -> None:
        if read(widget) != value:
            widget.__dict__[key] = value
            if changed is not None:
                changed(widget)

    return Property(kind, read, write)


_numbers = itertools.count()
