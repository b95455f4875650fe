"""The process that segments, seen from Slicer: started at first use, kept with its model loaded, killed to cancel.

What is said on the pipes stands in `DCAMTLib/inference/worker.py`.
"""
# Methods have Qt-style names, as what else the modules call.
# ruff: noqa: N802, N803

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from .event_stream import EventStream

LOG_LINES = 200
"""Lines of the process's stderr that are kept."""
TURN_S = 0.02
"""How long events are handed on before the window has its turn."""
KILLED = 9
OnEvent = Callable[[dict[str, Any]], None]


class WorkerProcess:
    """Sends requests to a worker and hands its events on, all from the event loop; nothing here waits.

    python: the interpreter, by default Slicer's own. engineFolder: where `DCAMTLib` lies. temporaryFolder: where
    `makeFolder` makes its folders. idleMinutes: after so long without a request the process ends, its memory with it.
    """

    def __init__(
        self,
        python: str | None = None,
        engineFolder: str | None = None,
        temporaryFolder: str | None = None,
        idleMinutes: float = 15,
    ) -> None:
        self._python = python or shutil.which("PythonSlicer") or sys.executable
        self._engineFolder = engineFolder or os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self._temporaryFolder = temporaryFolder
        self._root: str | None = None
        self._process: Any = None
        self._ending: list[Any] = []
        self._listeners: dict[str, OnEvent] = {}
        self._segmenting: str | None = None
        self._requests = 0
        self._stream = EventStream()
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._idle = qt.QTimer()
        self._idle.setSingleShot(True)
        self._idle.timeout.connect(self._end)
        self._idleMs = int(idleMinutes * 60000)

    @property
    def isBusy(self) -> bool:
        """Whether a scan is being segmented."""
        return self._segmenting is not None

    def log(self) -> str:
        """The last lines that the process wrote to stderr."""
        return "\n".join(self._log)

    def makeFolder(self) -> str:
        """A new empty folder for what is handed over; raises OSError where none can be made."""
        if self._root is None or not os.path.isdir(self._root):
            self._root = tempfile.mkdtemp(prefix="dcamt-", dir=self._temporaryFolder)
        return tempfile.mkdtemp(dir=self._root)

    def removeFolder(self, folder: str) -> None:
        """Remove a folder that `makeFolder` made; what is still open on Windows goes at `shutdown`."""
        shutil.rmtree(folder, ignore_errors=True)

    def request(self, request: dict[str, Any], onEvent: OnEvent | None = None) -> None:
        """Send a request, starting the process if need be; `onEvent` hears each event, one of which ends it.

        Its last is `finished` or `failed`, or there is none after `cancel`. A request to load a model is passed over
        while a scan is segmented.

        Raises:
            RuntimeError: a scan is being segmented, and this is another.
        """
        loads = request["request"] == "load"
        if self.isBusy:
            if loads:
                return
            raise RuntimeError(_("A segmentation is under way."))
        self._idle.stop()
        if self._process is None:
            self._start()
        self._requests += 1
        identifier = str(self._requests)
        self._listeners[identifier] = onEvent or (lambda event: None)
        if not loads:
            self._segmenting = identifier
        self._process.write(json.dumps({**request, "id": identifier}).encode() + b"\n")

    def cancel(self) -> None:
        """Kill the process at once; nothing more is heard of its requests."""
        self._end()

    def shutdown(self) -> None:
        """End the process and remove all folders: Slicer ends, or the module goes."""
        self._end()
        for process in list(self._ending):
            process.waitForFinished(2000)
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    def _start(self) -> None:
        process = qt.QProcess()
        self._process = process
        self._stream = EventStream()
        # `-m` searches the working directory first.
        process.setWorkingDirectory(self._engineFolder)
        process.readyReadStandardOutput.connect(lambda: self._onOutput(process))
        process.readyReadStandardError.connect(lambda: self._onLog(process))
        process.finished.connect(lambda *status: self._onFinished(process))
        process.errorOccurred.connect(lambda error: self._onError(process, error))
        process.start(self._python, ["-m", "DCAMTLib.inference.worker"])

    def _end(self) -> None:
        """Forget the process and its requests, and kill it."""
        self._idle.stop()
        process, self._process = self._process, None
        self._listeners.clear()
        self._segmenting = None
        if process is None:
            return
        # It must outlive its own last signal.
        self._ending.append(process)
        # PythonSlicer may be a launcher, whose child a kill does not reach; that one ends as its stdin closes.
        process.closeWriteChannel()
        process.kill()
        if process.state() == qt.QProcess.NotRunning:
            self._letGo(process)

    def _onOutput(self, process: Any) -> None:
        data = process.readAllStandardOutput().data()
        if process is self._process:
            self._stream.feed(data)
            self._handOn()

    def _handOn(self) -> None:
        """Hand events to who asked, for one turn of the event loop; the rest follow in the next."""
        stream = self._stream
        try:
            until = time.monotonic() + TURN_S
            # A listener may cancel, which puts a new stream in this one's place.
            while stream is self._stream and time.monotonic() < until:
                event = stream.next()
                if event is None:
                    break
                self._take(event)
        finally:
            if stream is self._stream and stream.waiting():
                qt.QTimer.singleShot(0, self._handOn)

    def _take(self, event: dict[str, Any]) -> None:
        identifier, kind = event.get("id"), event["event"]
        if kind == "failed" and (identifier is None or event.get("reason") == "internal"):
            self._fail(event)
        elif kind in ("finished", "failed"):
            listener = self._listeners.pop(identifier, None)
            if identifier == self._segmenting:
                self._segmenting = None
            if not self._listeners:
                self._idle.start(self._idleMs)
            if listener:
                listener(event)
        elif identifier in self._listeners:
            self._listeners[identifier](event)

    def _fail(self, event: dict[str, Any]) -> None:
        """The process is of no use any more: end it and tell everyone who waits."""
        listeners = dict(self._listeners)
        self._end()
        for identifier, listener in listeners.items():
            listener({**event, "id": identifier})

    def _onLog(self, process: Any) -> None:
        self._log.extend(process.readAllStandardError().data().decode(errors="replace").splitlines())

    def _onError(self, process: Any, error: Any) -> None:
        # Any other error is followed by `finished`.
        if error == qt.QProcess.FailedToStart:
            what = _("Slicer's Python could not be started ({program}). Reinstall Slicer or free some memory.")
            message = what.format(program=self._python)
            # On Windows this comes from within `start`, and so from within `request`.
            qt.QTimer.singleShot(0, lambda: self._onEnded(process, message))

    def _onFinished(self, process: Any) -> None:
        if process is not self._process and process not in self._ending:
            return  # it was let go while its last events waited for their turn
        self._onLog(process)
        self._onOutput(process)
        if process is self._process and self._stream.waiting():
            qt.QTimer.singleShot(0, lambda: self._onFinished(process))
            return
        crashed = process.exitStatus() != qt.QProcess.NormalExit
        self._onEnded(process, ended(crashed, process.exitCode(), self._log[-1] if self._log else ""))

    def _onEnded(self, process: Any, message: str) -> None:
        if process is not self._process:
            self._letGo(process)
            return
        self._process = None
        self._ending.append(process)
        self._letGo(process)
        self._fail({"event": "failed", "reason": "ended", "message": message, "detail": self.log()})

    def _letGo(self, process: Any) -> None:
        """Drop a process that has ended, once its signal is over."""
        if process in self._ending:
            self._ending.remove(process)
            process.deleteLater()


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
