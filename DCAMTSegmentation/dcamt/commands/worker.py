"""Run the worker process of an application: one request per line of stdin, one event per line of stdout, both JSON.

The worker keeps the model loaded between requests, even if a request is cancelled. The process ends once stdin closes,
even while it segments, so that it does not outlive an application that crashed. The application writes scans for the
worker into a folder. `--remove-at-end FOLDER` removes this folder if stdin or stdout closes, or if a signal such as
SIGTERM ends the process. After a `KeepFilesRequest`, the folder stays. On Windows, a signal removes nothing.

`worker.requests` and `worker.events` define the messages. After a failure with the reason `internal` the process exits
with status 1, since its state may be invalid.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import queue
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import BinaryIO, NoReturn

from .. import __version__
from ..errors import InternalError, MissingPackage, missing_packages, user_error
from ..io.interruption import clean_up_before_signal_ends_process, detach_stdin
from ..machine import without_garbage_collection

PACKAGES = ("torch", "scipy")
MISSING_PACKAGE = 3
"""Exit status if a package is missing or cannot be loaded."""
REMOVALS = 100
"""Maximum number of attempts to remove the folder of scans.

If the main thread writes a file into the folder during an attempt, the attempt may fail.
"""


def _import_all() -> dict[str, str]:
    """Import all modules that the worker needs, except those for a report; return the packages' versions by name."""
    with without_garbage_collection():
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
    """Return this process's stdin and stdout for requests and events; redirect libraries' output to stderr."""
    requests, events = detach_stdin(), os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(events, "wb")


def _remove_folder(folder: str) -> None:
    for _attempt in range(REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            break
        time.sleep(0.02)


def main(arguments: Sequence[str]) -> int:
    """Serve requests; return the exit status.

    Once stdin or stdout closes, the process ends with status 0, and this function does not return.
    """
    parser = argparse.ArgumentParser(prog="python -m dcamt.commands.worker")
    parser.add_argument("--remove-at-end", metavar="FOLDER")
    folder = parser.parse_args(arguments).remove_at_end
    keep_files = threading.Event()

    def remove_files() -> None:
        if folder and not keep_files.is_set():
            _remove_folder(folder)

    if folder:
        clean_up_before_signal_ends_process(remove_files)
    # Imported after the call of `clean_up_before_signal_ends_process`, since NumPy starts threads.
    from ..worker.events import RequestFailed, WorkerEvent, WorkerReady
    from ..worker.protocol import parse_control, worker_event_line
    from ..worker.requests import CancelRequest, KeepFilesRequest

    stdin, stdout = _private_streams()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    lock = threading.Lock()
    cancelled: set[str] = set()

    def end() -> NoReturn:
        remove_files()
        os._exit(0)  # `sys.exit` would end only the calling thread, not the computation.

    def read() -> None:
        for line in stdin:
            text = line.decode("utf-8", "replace")
            control = parse_control(text)
            if isinstance(control, CancelRequest):
                cancelled.add(control.id)
            elif isinstance(control, KeepFilesRequest):
                keep_files.set()
            elif text.strip():
                lines.put(text)
        end()

    def send(event: WorkerEvent) -> None:
        try:
            with lock:
                stdout.write(worker_event_line(event).encode() + b"\n")
                stdout.flush()
        except OSError:
            end()  # The application has closed the pipe.

    threading.Thread(target=read, daemon=True).start()
    try:
        if absent := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
            raise missing_packages(absent)
        versions = _import_all()
    except Exception as error:
        failure = user_error(error)
        if isinstance(failure, InternalError):
            raise
        if failure is not error:
            traceback.print_exc()
        packages = failure.packages if isinstance(failure, MissingPackage) else ()
        send(RequestFailed(None, failure.reason, str(failure), packages=packages))
        return MISSING_PACKAGE
    send(WorkerReady(__version__, versions))
    from .serving import Worker

    worker = Worker(send, cancelled)
    while worker.serve(lines.get()):
        pass
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
