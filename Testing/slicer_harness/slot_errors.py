"""Errors that Slicer would only print, as no caller is there to take them: those of slots and of observers."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_errors: list[BaseException] = []


@contextmanager
def kept() -> Iterator[None]:
    """Print an error, as PythonQt does, and keep it for the test."""
    try:
        yield
    except Exception as error:
        traceback.print_exception(error)
        _errors.append(error)


def take() -> list[BaseException]:
    """The errors since the last call."""
    taken = list(_errors)
    _errors.clear()
    return taken


def watch_observers() -> None:
    """Keep the errors of VTK's observers as well, which VTK prints."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if isinstance(error, Exception):
            _errors.append(error)
        before(kind, error, trace)

    sys.excepthook = hook
