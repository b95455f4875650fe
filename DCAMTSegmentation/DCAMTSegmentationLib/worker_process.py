"""The process that segments, seen from Slicer: started at first use, kept with its model loaded, killed to cancel.

What is said on the pipes stands in `dcamt/inference/worker.py`.
"""
# Methods have Qt-style names, as what else the modules call.
# ruff: noqa: N802, N803

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import qt
from dcamt.errors import InputError, InternalError
from dcamt.worker.protocol import (
    Answer,
    Event,
    LoadRequest,
    Request,
    RequestFailed,
    WorkerReady,
    parse_event,
    request_line,
)
from DCAMTSlicerLib.engine_process import ENGINE_FOLDER, EngineProcess, ProcessEnd, wait_for_killed
from slicer.i18n import tr as _

LOG_LINES = 200
KILLED = 9
ENDED = "ended"
"""Reason of a failure of a worker that ended by itself."""


class WorkerProcess:
    """Sends requests to a worker and hands its events on, all from the event loop; nothing here waits.

    python: the interpreter, by default Slicer's own. engineFolder: where `dcamt` lies. temporaryFolder: where
    `makeFolder` makes its folders. idleMinutes: after so long without a request the process ends, its memory with it.
    """

    def __init__(
        self,
        python: str | None = None,
        engineFolder: str = ENGINE_FOLDER,
        temporaryFolder: str | None = None,
        idleMinutes: float = 15,
    ) -> None:
        self._python = python
        self._engineFolder = engineFolder
        self._temporaryFolder = temporaryFolder
        self._root: str | None = None
        self._process: EngineProcess | None = None
        self._last: EngineProcess | None = None
        self._earlierLog = ""
        self._listeners: dict[str, Callable[[Event], None]] = {}
        self._segmenting: str | None = None
        self._requests = 0
        self._idle = qt.QTimer()
        self._idle.setSingleShot(True)
        self._idle.timeout.connect(self._end)
        self._idleMs = int(idleMinutes * 60000)

    @property
    def isBusy(self) -> bool:
        """Whether a scan is being segmented."""
        return self._segmenting is not None

    def log(self) -> str:
        """The last lines that the process, and those before it, wrote to stderr."""
        logs = (self._earlierLog, self._last.log() if self._last is not None else "")
        return "\n".join("\n".join(filter(None, logs)).splitlines()[-LOG_LINES:])

    def makeFolder(self) -> str:
        """A new empty folder for what is handed over; raises OSError where none can be made."""
        if self._root is None or not os.path.isdir(self._root):
            self._root = tempfile.mkdtemp(prefix="dcamt-", dir=self._temporaryFolder)
        return tempfile.mkdtemp(dir=self._root)

    def removeFolder(self, folder: str) -> None:
        """Remove a folder that `makeFolder` made; what is still open on Windows goes at `shutdown`."""
        shutil.rmtree(folder, ignore_errors=True)

    def request(self, request: Request, onEvent: Callable[[Event], None] | None = None) -> None:
        """Send a request, starting the process if need be; `onEvent` hears each event, one of which ends it.

        Its last is `finished` or `failed`, or there is none after `cancel`. A request to load a model is passed over
        while a scan is segmented.

        Raises:
            RuntimeError: a scan is being segmented, and this is another.
        """
        loads = isinstance(request, LoadRequest)
        if self.isBusy:
            if loads:
                return
            raise RuntimeError(_("A segmentation is under way."))
        self._idle.stop()
        if self._process is None:
            self._earlierLog = self.log()
            words = ["-m", "dcamt.inference.worker"]
            self._process = EngineProcess(words, self._take, self._onEnded, self._python, self._engineFolder).start()
            self._last = self._process
        self._requests += 1
        identifier = str(self._requests)
        self._listeners[identifier] = onEvent or (lambda event: None)
        if not loads:
            self._segmenting = identifier
        self._process.write(request_line(replace(request, id=identifier)).encode() + b"\n")

    def cancel(self) -> None:
        """Kill the process at once; nothing more is heard of its requests."""
        self._end()

    def shutdown(self) -> None:
        """End the process and remove all folders: Slicer ends, or the module goes."""
        self._end()
        wait_for_killed(2000)
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    def _end(self) -> None:
        """Forget the process and its requests, and kill it."""
        self._idle.stop()
        process, self._process = self._process, None
        self._listeners.clear()
        self._segmenting = None
        if process is not None:
            process.kill()

    def _take(self, fields: dict[str, Any]) -> None:
        try:
            event = parse_event(fields)
        except InputError as error:  # a worker of another version
            self._fail(RequestFailed(None, ENDED, str(error)))
            return
        if isinstance(event, WorkerReady):
            return
        identifier = event.id
        if isinstance(event, RequestFailed) and (identifier is None or event.reason == InternalError.reason):
            self._fail(event)
        elif isinstance(event, Answer):
            listener = self._listeners.pop(identifier, None)
            if identifier == self._segmenting:
                self._segmenting = None
            if not self._listeners:
                self._idle.start(self._idleMs)
            if listener:
                listener(event)
        elif identifier in self._listeners:
            self._listeners[identifier](event)

    def _fail(self, event: RequestFailed) -> None:
        """The process is of no use any more: end it and tell everyone who waits."""
        listeners = dict(self._listeners)
        self._end()
        for identifier, listener in listeners.items():
            listener(replace(event, id=identifier))

    def _onEnded(self, end: ProcessEnd) -> None:
        last_line = self._last.log().rpartition("\n")[2] if self._last is not None else ""
        message = end.problem or ended(end.crashed, end.code, last_line)
        self._fail(RequestFailed(None, ENDED, message, self.log()))


def ended(crashed: bool, code: int, lastLine: str) -> str:
    """What a person is told of a worker that ended by itself; `code`: of the exit or, on Unix, the signal."""
    if (crashed and code == KILLED and os.name != "nt") or code == 128 + KILLED:
        return _(
            "The system ended the computation, most often because memory ran out."
            " Close other programs or give a region of interest, then apply again."
        )
    if crashed:
        return _("The computation crashed (code {code}). Apply again; if it recurs, report it with the log.").format(
            code=code
        )
    return _("The computation ended unexpectedly (code {code}). {line}").format(code=code, line=lastLine).strip()
