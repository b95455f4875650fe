"""The process that segments for an application: a request a line on stdin, an event a line on stdout, both JSON.

It keeps the model loaded from one request to the next. To cancel, the application kills it; it ends by itself as soon
as stdin closes, were it in the midst of a scan, so that it never outlives an application that crashed.

Requests are those of `requests.py`. Events, each with the request's `id` (null if it has none):

- `ready` (no id) once everything is imported; `packages` holds their versions.
- `progress`: `stage`, `share` (0 to 1 of the request), `eta_s` (null if not known), several times a second.
- `note`: a `message` for the person, such as that the GPU's memory did not suffice.
- `finished`: `labelmap` and `disagreement` (files of uint8 (K, J, I); the latter null in fast quality), `trust`,
  `doubts` (places in RAS mm), `measurements`, `segments` (the classes, each with the `box` of voxels that it fills:
  first and last + 1 along i, j, k; null if it is empty), `notes`, `seconds`, `device`.
  Of a request to measure it holds `measurements` alone.
- `failed`: `reason` (`input`, `memory`, `disk`, `missing_package` or `internal`), `message` for the person, `detail`.
  After `internal` the process ends with status 1, for its state can no longer be relied on; after `missing_package` at
  the start, with 3.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import sys
import threading
import traceback
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, BinaryIO

from .. import __version__
from ..io.json_lines import json_line
from ..worker.failures import missing

PACKAGES = ("torch", "scipy")
MISSING_PACKAGE = 3
"""Exit status where a package is missing."""


def _import_all() -> dict[str, str]:
    """Import what a request needs, so that the first one need not wait; versions by package. Raises ImportError."""
    import scipy.ndimage
    import scipy.optimize
    import scipy.spatial.distance  # noqa: F401

    from . import serving  # noqa: F401

    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    """This process's stdin and stdout for requests and events alone.

    What libraries print goes to stderr. What they find as stdin is empty: on Windows, a library that is loaded looks at
    stdin and would wait for as long as another thread reads from it.
    """
    requests, events = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(events, "wb")


def main() -> int:
    """Serve until stdin closes; see the module."""
    stdin, stdout = _private_streams()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    lock = threading.Lock()

    def read() -> None:
        for line in stdin:
            if line.strip():
                lines.put(line.decode("utf-8", "replace"))
        os._exit(0)  # the only way to end while the network computes

    def tell(event: str, **fields: Any) -> None:
        try:
            with lock:
                stdout.write(json_line(event, fields).encode() + b"\n")
                stdout.flush()
        except OSError:
            os._exit(0)  # nobody listens any more

    threading.Thread(target=read, daemon=True).start()
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    message = missing(absent)
    if not absent:
        try:
            versions = _import_all()
        except (ImportError, OSError) as error:  # OSError: a library of theirs does not load
            traceback.print_exc()
            absent = [getattr(error, "name", None) or "torch"]
            message = f"The Python package '{absent[0]}' cannot be loaded ({' '.join(str(error).split())[:200]})."
    if absent:
        tell("failed", id=None, reason="missing_package", message=message, packages=absent, detail=None)
        return MISSING_PACKAGE
    tell("ready", version=__version__, packages=versions)
    from .serving import Worker

    worker = Worker(tell)
    while worker.serve(lines.get()):
        pass
    return 1


if __name__ == "__main__":
    sys.exit(main())
