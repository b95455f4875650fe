"""Slicer's Python with the engine in it, as a process of its own whose lines of JSON are heard from the event loop."""
# Methods have Qt-style names, as what else the modules call.
# ruff: noqa: N802, N803

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dcamt
import qt
from slicer.i18n import tr as _

from .event_stream import EventStream

ENGINE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(dcamt.__file__)))
"""Where `dcamt` lies."""
LOG_BYTES = 1 << 14
"""How much of the end of a process's stderr is kept."""
TURN_S = 0.02
"""How long events are handed on before the window has its turn."""
OnEvent = Callable[[dict[str, Any]], None]

_alive: set[EngineProcess] = set()
"""Those that have not ended: a process must outlive its own last signal, whoever forgets it."""


@dataclass(frozen=True)
class End:
    """How a process ended.

    problem: why it could not be started, or empty. code: its exit status or, where it crashed, on Unix the signal.
    """

    problem: str = ""
    crashed: bool = False
    code: int = 0


class EngineProcess:
    """Runs Slicer's Python with the words given; `onEvent` hears its events, and then `onEnd` of its end, once.

    After `kill` nothing is heard. Nothing here waits.
    """

    def __init__(
        self,
        words: Sequence[str],
        onEvent: OnEvent,
        onEnd: Callable[[End], None],
        python: str | None = None,
        engineFolder: str = ENGINE_FOLDER,
    ) -> None:
        self.isHeard = True
        self._runs = True
        self._onEvent, self._onEnd = onEvent, onEnd
        self._python = python or python_program()
        self._stream, self._errors = EventStream(), b""
        self._end: End | None = None
        self._process: Any = qt.QProcess()
        # `-m` searches the working directory first.
        self._process.setWorkingDirectory(engineFolder)
        self._process.readyReadStandardOutput.connect(self._onOutput)
        self._process.readyReadStandardError.connect(self._onErrors)
        self._process.finished.connect(self._onFinished)
        self._process.errorOccurred.connect(self._onError)
        _alive.add(self)
        self._process.start(self._python, list(words))

    def log(self) -> str:
        """The last lines that it wrote to stderr."""
        return "\n".join(line for line in self._errors.decode(errors="replace").splitlines() if line.strip())

    def write(self, line: bytes) -> None:
        """To its stdin; one that has ended meanwhile takes nothing, as its end will tell."""
        if self._runs:
            self._process.write(line)

    def kill(self) -> None:
        """End it at once."""
        self.isHeard = False
        if not self._runs:
            return
        # PythonSlicer may be a launcher, whose child a kill does not reach; that one ends as its stdin closes.
        self._process.closeWriteChannel()
        self._process.kill()
        if self._process.state() == qt.QProcess.NotRunning:
            self._letGo()

    def waitForEnd(self, milliseconds: int) -> None:
        """For when Slicer ends, and the event loop with it."""
        if self._runs:
            self._process.waitForFinished(milliseconds)

    def _onOutput(self) -> None:
        if self._runs:
            self._stream.feed(self._process.readAllStandardOutput().data())
            self._handOn()

    def _onErrors(self) -> None:
        if self._runs:
            self._errors = (self._errors + self._process.readAllStandardError().data())[-LOG_BYTES:]

    def _handOn(self) -> None:
        """Hand events on for one turn of the event loop; the rest follow in the next ones, and after them the end."""
        until = time.monotonic() + TURN_S
        try:
            while self.isHeard and time.monotonic() < until:
                event = self._stream.next()
                if event is None:
                    break
                self._onEvent(event)
        finally:
            if self.isHeard and self._stream.waiting():
                qt.QTimer.singleShot(0, self._handOn)
            elif self.isHeard and self._end is not None:
                self.isHeard = False
                self._onEnd(self._end)

    def _onFinished(self, *status: Any) -> None:
        if not self._runs:
            return
        self._onErrors()
        self._stream.feed(self._process.readAllStandardOutput().data())
        self._end = End("", self._process.exitStatus() != qt.QProcess.NormalExit, self._process.exitCode())
        self._letGo()
        self._handOn()

    def _onError(self, error: Any) -> None:
        # Any other error is followed by `finished`.
        if error == qt.QProcess.FailedToStart:
            what = _("Slicer's Python could not be started ({program}). Reinstall Slicer or free some memory.")
            self._end = End(what.format(program=self._python))
            self._letGo()
            # On Windows this comes from within `start`, before whoever asked knows of the process.
            qt.QTimer.singleShot(0, self._handOn)

    def _letGo(self) -> None:
        """Have Qt delete the process once its signal is over.

        It is still referred to: PythonQt would delete it with its last reference, in the midst of its own signal.
        """
        self._runs = False
        _alive.discard(self)
        self._process.deleteLater()


def python_program() -> str:
    """Slicer's own Python."""
    return shutil.which("PythonSlicer") or sys.executable


def wait_for_killed(milliseconds: int) -> None:
    """Wait until all that were killed have ended, so long for each."""
    for process in list(_alive):
        if not process.isHeard:
            process.waitForEnd(milliseconds)
