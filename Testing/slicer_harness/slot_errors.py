"""Collect the errors of slots and observers for `expect_no_hidden_errors`; Slicer only prints these errors."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_errors: list[BaseException] = []


@contextmanager
def keep_errors() -> Iterator[None]:
    """Print an exception of the `with` block, as PythonQt does, and keep it for the test."""
    try:
        yield
    except Exception as error:
        traceback.print_exception(error)
        _errors.append(error)


def pop_errors() -> list[BaseException]:
    """Return the errors since the last call."""
    taken = list(_errors)
    _errors.clear()
    return taken


def watch_observers() -> None:
    """Also keep errors that reach `sys.excepthook`, as errors of VTK's observers do."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if isinstance(error, Exception):
            _errors.append(error)
        before(kind, error, trace)

    sys.excepthook = hook
