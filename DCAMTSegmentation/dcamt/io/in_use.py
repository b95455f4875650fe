"""Wait on Windows for programs that keep a file open for a moment, such as virus scanners and indexers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

PATIENCE_S = 3.0
_PAUSE_S = 0.05


def wait_while_in_use(
    action: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Call `action`; on Windows, repeat the call for up to `PATIENCE_S` while it raises PermissionError."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return action(*args, **kwargs)
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > end:
                raise
        time.sleep(_PAUSE_S)


def remove_file(path: Path) -> None:
    """Remove a file, if it exists, with `wait_while_in_use`."""
    wait_while_in_use(path.unlink, missing_ok=True)
