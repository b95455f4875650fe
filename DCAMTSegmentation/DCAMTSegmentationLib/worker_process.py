"""Control the worker process from Slicer: the process starts at first use and keeps its model loaded.

`dcamt.worker.requests` and `dcamt.worker.events` define the messages to and from the process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from dcamt.errors import InputError, InternalError
from dcamt.worker.events import Answer, RequestFailed, WorkerEvent, WorkerReady
from dcamt.worker.protocol import parse_worker_event, request_line
from dcamt.worker.requests import CancelRequest, KeepFilesRequest, Request
from DCAMTSlicerLib.engine_process import EngineProcess, ProcessEnd, wait_for_killed
from DCAMTSlicerLib.stepped_task import DelayedCall
from slicer.i18n import tr as _

LOG_LINES = 200
"""Number of lines kept from the end of the log."""
KILLED = 9
"""The signal by which the system ends a process, for example when memory runs out."""
ENDED = "ended"
"""Reason of the failure if the worker did not start, ended unexpectedly or sent an event that cannot be parsed."""
CANCEL_GRACE_MS = 20000
"""Milliseconds for stopping a cancelled request; a process that takes longer is killed.

Killing the process costs time, since a new process must load the model again.
"""
IDLE_MS = 15 * 60000
"""Milliseconds without a request until the process is killed to release its memory."""
OnEvent = Callable[[WorkerEvent], None]


class SegmentationWorker(Protocol):
    """The worker's methods that the logic and its jobs call; tests use a fake worker."""

    def make_folder(self) -> str:
        """Create an empty folder for the files of a request, and return its path. Raises OSError if that fails."""

    def remove_folder(self, folder: str) -> None:
        """Remove a folder that `make_folder` made."""

    def request(self, request: Request, on_event: OnEvent) -> None:
        """Send a request; `on_event` is called with each event of the request.

        The last event is an `Answer`, except after `cancel` and `shutdown`.
        """

    def cancel(self) -> None:
        """Stop the running request; no further events of it are delivered."""

    def log(self) -> str:
        """Return the last lines that the worker wrote to stderr."""

    def shutdown(self) -> None:
        """End the worker, and remove its files."""


@dataclass(frozen=True)
class _SentRequest:
    id: str
    line: bytes
    on_event: OnEvent


class WorkerProcess:
    """Sends requests to a worker process and delivers its events from the event loop.

    No method waits for an answer; `shutdown` waits for the end of killed processes, at most two seconds for each.

    Args:
        temporary_folder: returns the path of Slicer's temporary folder. The files of all requests are in one new
            folder in the temporary folder. The worker process removes the new folder when Slicer ends, even if Slicer
            was killed.
    """

    def __init__(self, temporary_folder: Callable[[], str]) -> None:
        self._temporary_folder = temporary_folder
        self._python: str | None = None  # Set only by tests.
        self._root: str | None = None
        self._parent_of_root = ""
        self._process: EngineProcess | None = None
        self._last_process: EngineProcess | None = None
        self._earlier_log = ""
        self._running: _SentRequest | None = None
        self._cancelled: str | None = None
        self._request_count = 0
        self._idle = DelayedCall(self._end_process)
        self._grace = DelayedCall(self._restart)

    @property
    def is_busy(self) -> bool:
        """Whether an uncancelled request runs."""
        return self._running is not None

    def log(self) -> str:
        """Return the last lines that this worker's present and earlier processes wrote to stderr."""
        logs = (self._earlier_log, self._last_process.log() if self._last_process is not None else "")
        return "\n".join("\n".join(filter(None, logs)).splitlines()[-LOG_LINES:])

    def make_folder(self) -> str:
        """Create an empty folder for a request; start the process if it does not run."""
        root = self._choose_root()
        os.makedirs(root, mode=0o700, exist_ok=True)
        self._start_process()
        return tempfile.mkdtemp(dir=root)

    def remove_folder(self, folder: str) -> None:
        # On Windows, open files remain until `shutdown`.
        shutil.rmtree(folder, ignore_errors=True)

    def request(self, request: Request, on_event: OnEvent) -> None:
        """Send a request, and start the process if it does not run.

        Raises:
            RuntimeError: the worker is busy with another request.
            ValueError: an affine in the request contains NaN or infinity.
        """
        if self.is_busy:
            raise RuntimeError(_("A computation is running. Wait until the computation has ended, or cancel it."))
        identifier = str(self._request_count + 1)
        line = _line_of(replace(request, id=identifier))
        self._request_count += 1
        self._send(_SentRequest(identifier, line, on_event))

    def cancel(self) -> None:
        """Make the process stop the running request and keep the model; deliver no further events of the request."""
        running, self._running = self._running, None
        if running is None or self._process is None:
            return
        self._cancelled = running.id
        self._process.write(_line_of(CancelRequest(id=running.id)))
        self._grace.start(CANCEL_GRACE_MS)

    def shutdown(self) -> None:
        """End the process and remove all folders."""
        self._end_process(keep_files=False)
        wait_for_killed(2000)
        self._idle.close()
        self._grace.close()
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    def _choose_root(self) -> str:
        """Return the folder for the files of all requests; create the folder at the first call.

        If no request runs, and the user has chosen another temporary folder in Slicer, a new folder replaces the old.
        """
        parent = self._temporary_folder()
        if self._root is not None and (parent == self._parent_of_root or self.is_busy):
            return self._root
        root = tempfile.mkdtemp(prefix="dcamt-", dir=parent)
        # The folder is an argument of the process, so a new folder needs a new process.
        self._end_process(keep_files=False)
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
        self._root, self._parent_of_root = root, parent
        return root

    def _start_process(self) -> EngineProcess:
        if self._process is None:
            self._earlier_log = self.log()
            arguments = ["-m", "dcamt.commands.worker"]
            if self._root is not None:
                arguments += ["--remove-at-end", self._root]
            self._process = EngineProcess(arguments, self._take, self._on_ended, self._python)
            self._last_process = self._process.start()
            self._idle.start(IDLE_MS)
        return self._process

    def _send(self, request: _SentRequest) -> None:
        process = self._start_process()
        self._idle.stop()
        self._running = request
        process.write(request.line)

    def _end_process(self, keep_files: bool = True) -> None:
        """Kill the process, and forget its requests.

        Args:
            keep_files: whether to keep all folders; the next process may need some of them.
        """
        self._idle.stop()
        self._grace.stop()
        process, self._process = self._process, None
        self._running = self._cancelled = None
        if process is not None:
            process.kill(_line_of(KeepFilesRequest()) if keep_files else b"")

    def _restart(self) -> None:
        """Kill a process that did not stop a cancelled request.

        A request that was sent after the cancelled one is sent again, to a new process.
        """
        running = self._running
        self._end_process()
        if running is not None:
            self._send(running)

    def _take(self, fields: dict[str, Any]) -> None:
        try:
            event = parse_worker_event(fields)
        except InputError as error:  # DCAMT was updated after Slicer had started.
            text = _("Slicer and DCAMT's background process have different versions ({reason}). Restart Slicer.")
            self._fail(RequestFailed(None, ENDED, text.format(reason=str(error).rstrip("."))))
            return
        if isinstance(event, WorkerReady):
            return
        if isinstance(event, RequestFailed) and (event.id is None or event.reason == InternalError.reason):
            self._fail(event)
            return
        running = self._running if self._running is not None and self._running.id == event.id else None
        if isinstance(event, Answer):
            if running is not None:
                self._running = None
            if event.id == self._cancelled:
                self._cancelled = None
                self._grace.stop()
            if self._running is None:
                self._idle.start(IDLE_MS)
        if running is not None:
            running.on_event(event)

    def _fail(self, event: RequestFailed) -> None:
        running = self._running
        self._end_process()
        if running is not None:
            running.on_event(replace(event, id=running.id))

    def _on_ended(self, end: ProcessEnd) -> None:
        last_line = self._last_process.log().rpartition("\n")[2] if self._last_process is not None else ""
        message = end.problem or end_message(end.crashed, end.code, last_line)
        self._fail(RequestFailed(None, ENDED, message, self.log()))


def _line_of(request: Request) -> bytes:
    return request_line(request).encode() + b"\n"


def end_message(crashed: bool, code: int, last_line: str) -> str:
    """Return the message about a worker that ended unexpectedly.

    Args:
        code: the process's exit status or, after a crash on Unix, the signal.
    """
    if (crashed and code == KILLED and os.name != "nt") or code == 128 + KILLED:
        return str(
            _(
                "The system ended the computation, most often because memory ran out."
                " Close other programs or give a region of interest, then apply again."
            )
        )
    if crashed:
        text = _("The computation crashed (code {code}). Apply again; if the crash recurs, report it with the log.")
        return str(text.format(code=code))
    text = _("The computation ended unexpectedly (code {code}). {line}")
    return str(text.format(code=code, line=last_line)).strip()
