"""One command of the engine in a child process, its lines of JSON heard from the event loop."""
# Methods have Qt-style names, as what else the module calls.
# ruff: noqa: N802, N803

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import DCAMTLib
import qt
from DCAMTSlicerLib.event_stream import EventStream
from slicer.i18n import tr as _

TURN_S = 0.02
"""How long events are handed on before the window has its turn."""
ENGINE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(DCAMTLib.__file__)))


def python_program() -> str:
    """Slicer's own Python."""
    return shutil.which("PythonSlicer") or sys.executable


class EngineCommand:
    """Runs `dcamt` with the words given; `onEvent` hears its events, and `onEnd(message)` its end, exactly once.

    message: empty after exit status 0, else the last line that it printed to stderr. After `cancel` nothing is heard.
    """

    def __init__(
        self, words: Sequence[str], onEvent: Callable[[dict[str, Any]], None], onEnd: Callable[[str], None]
    ) -> None:
        self._onEvent, self._onEnd = onEvent, onEnd
        self._stream, self._errors = EventStream(), b""
        self._ended: str | None = None
        self.running = True
        self._process = qt.QProcess()
        # `-m` searches the working directory first.
        self._process.setWorkingDirectory(ENGINE_FOLDER)
        self._process.readyReadStandardOutput.connect(self._onOutput)
        self._process.readyReadStandardError.connect(self._onErrors)
        self._process.finished.connect(self._onFinished)
        self._process.errorOccurred.connect(self._onError)
        self._process.start(python_program(), ["-m", "DCAMTLib.cli", *words, "--json", "--end-with-stdin"])

    def cancel(self) -> None:
        """End the process at once; PythonSlicer may be a launcher, whose child ends as its stdin closes."""
        if self.running:
            self.running = False
            self._process.closeWriteChannel()
            self._process.kill()

    def _onOutput(self) -> None:
        self._stream.feed(self._process.readAllStandardOutput().data())
        self._handOn()

    def _onErrors(self) -> None:
        self._errors = (self._errors + self._process.readAllStandardError().data())[-4096:]

    def _handOn(self) -> None:
        until = time.monotonic() + TURN_S
        while self.running and time.monotonic() < until:
            event = self._stream.next()
            if event is None:
                break
            self._onEvent(event)
        if self.running and self._stream.waiting():
            qt.QTimer.singleShot(0, self._handOn)
        elif self.running and self._ended is not None:
            self.running = False
            self._onEnd(self._ended)

    def _onFinished(self, *status: Any) -> None:
        self._onErrors()
        lines = [line for line in self._errors.decode(errors="replace").splitlines() if line.strip()]
        crashed = self._process.exitStatus() != qt.QProcess.NormalExit
        if crashed or self._process.exitCode() != 0:
            unknown = _("The computation ended unexpectedly (code {code}).").format(code=self._process.exitCode())
            self._ended = lines[-1].removeprefix("dcamt: ") if lines and not crashed else unknown
        else:
            self._ended = ""
        self._onOutput()

    def _onError(self, error: Any) -> None:
        # Any other error is followed by `finished`.
        if error == qt.QProcess.FailedToStart:
            self._ended = _("Slicer's Python could not be started. Reinstall Slicer or free some memory.")
            # On Windows this comes from within `start`.
            qt.QTimer.singleShot(0, self._handOn)
