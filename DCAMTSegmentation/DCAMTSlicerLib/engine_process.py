"""Run the engine in a child process, and receive its JSON events without blocking Slicer."""

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
from dcamt.io.json_lines import JsonLines
from slicer.i18n import tr as _

ENGINE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(dcamt.__file__)))
"""The folder that contains the package `dcamt`."""
ENGINE_VARIABLES = {"PYTHONIOENCODING": "utf-8"}
"""Environment variables of the engine's processes. Slicer reads the output of these processes as UTF-8."""
LOG_BYTES = 1 << 14
"""Number of bytes kept from the end of a process's stderr."""
WRITE_TIMEOUT_MS = 1000
MAX_DELIVERY_S = 0.02
"""After this many seconds, a call of `EngineProcess._deliver` delivers no further event.

The remaining events are delivered in later turns of the event loop, so that Slicer stays responsive if a process writes
many events.
"""
OnEvent = Callable[[dict[str, Any]], None]

_alive: set[EngineProcess] = set()
"""The running processes. The references prevent the deletion of a process before its last signal."""


@dataclass(frozen=True)
class ProcessEnd:
    """How a process ended.

    Attributes:
        problem: why the process could not be started; empty if it started.
        code: the exit status or, after a crash on Unix, the signal.
    """

    problem: str = ""
    crashed: bool = False
    code: int = 0


class EngineProcess:
    """Runs Python (by default Slicer's) with `arguments` in the engine's folder.

    `on_event` receives each event; `on_end` is called once, after the last event. If successive progress events wait
    for delivery, only the last of them is delivered. After `kill`, neither function is called. Only two calls block:
    `wait_for_end`, and `kill` if it gets a `last_line` to write to the process's stdin.

    The Python program that `arguments` names must end when the program's stdin closes (see `kill`).
    """

    def __init__(
        self,
        arguments: Sequence[str],
        on_event: OnEvent,
        on_end: Callable[[ProcessEnd], None],
        python: str | None = None,
    ) -> None:
        self.listening = False
        self._arguments = list(arguments)
        self._is_running = False
        self._on_event, self._on_end = on_event, on_end
        self._python = python or python_program()
        self._stream, self._stderr = JsonLines(newest_progress=True), b""
        self._end: ProcessEnd | None = None
        self._delivery_scheduled = False
        self._process: Any = qt.QProcess()
        # `python -m dcamt` imports `dcamt` from the working directory.
        self._process.setWorkingDirectory(ENGINE_FOLDER)
        environment = qt.QProcessEnvironment.systemEnvironment()
        for name, value in ENGINE_VARIABLES.items():
            environment.insert(name, value)
        self._process.setProcessEnvironment(environment)

    def start(self) -> EngineProcess:
        """Start the process; return this object."""
        self.listening = self._is_running = True
        self._process.readyReadStandardOutput.connect(self._on_output)
        self._process.readyReadStandardError.connect(self._on_stderr)
        self._process.finished.connect(self._on_finished)
        self._process.errorOccurred.connect(self._on_error)
        _alive.add(self)
        self._process.start(self._python, self._arguments)
        return self

    def log(self) -> str:
        """Return the last lines that the process wrote to stderr, without empty ones."""
        return "\n".join(line for line in self._stderr.decode(errors="replace").splitlines() if line.strip())

    def write(self, line: bytes) -> None:
        """Write a line to the process's stdin; do nothing if the process is not running."""
        if self._is_running:
            self._process.write(line)

    def kill(self, last_line: bytes = b"") -> None:
        """Write `last_line`, if given, to the process's stdin, then kill the process."""
        self.listening = False
        if not self._is_running:
            return
        if last_line:
            self._process.write(last_line)
            self._process.waitForBytesWritten(WRITE_TIMEOUT_MS)
            if not self._is_running:  # `_on_finished` was called during the wait, and released the process.
                return
        # PythonSlicer may be a launcher. `kill` does not end the launcher's child, but closing stdin does.
        self._process.closeWriteChannel()
        self._process.kill()
        if self._process.state() == qt.QProcess.NotRunning:
            self._release()

    def wait_for_end(self, milliseconds: int) -> None:
        """Block until the process has ended or the time has passed."""
        if self._is_running:
            self._process.waitForFinished(milliseconds)

    def _on_output(self) -> None:
        if self._is_running:
            self._stream.feed(self._process.readAllStandardOutput().data())
            if not self._delivery_scheduled:
                self._deliver()

    def _on_stderr(self) -> None:
        if self._is_running:
            self._stderr = (self._stderr + self._process.readAllStandardError().data())[-LOG_BYTES:]

    def _deliver(self) -> None:
        until = time.monotonic() + MAX_DELIVERY_S
        try:
            while self.listening and time.monotonic() < until:
                event = self._stream.next()
                if event is None:
                    break
                self._on_event(event)
        finally:  # Even if `on_event` raised an error, the other events must be delivered.
            if self.listening and self._stream.has_lines():
                if not self._delivery_scheduled:
                    self._delivery_scheduled = True
                    qt.QTimer.singleShot(0, self._run_scheduled_delivery)
            elif self.listening and self._end is not None:
                self.listening = False
                self._on_end(self._end)

    def _run_scheduled_delivery(self) -> None:
        self._delivery_scheduled = False
        self._deliver()

    def _on_finished(self, *status: Any) -> None:
        if not self._is_running:
            return
        self._on_stderr()
        self._stream.feed(self._process.readAllStandardOutput().data())
        self._end = ProcessEnd(
            crashed=self._process.exitStatus() != qt.QProcess.NormalExit, code=self._process.exitCode()
        )
        self._release()
        self._deliver()

    def _on_error(self, error: Any) -> None:
        # After `FailedToStart`, unlike after a crash, `finished` is not emitted.
        if error == qt.QProcess.FailedToStart:
            what = _("Slicer's Python could not be started ({program}). Reinstall Slicer or free some memory.")
            self._end = ProcessEnd(what.format(program=self._python))
            self._release()
            # Deliver later, since Qt may emit this signal inside `QProcess.start`, before our `start` has returned.
            qt.QTimer.singleShot(0, self._deliver)

    def _release(self) -> None:
        """Schedule the deletion of the QProcess.

        As soon as Python holds no reference to a QProcess, PythonQt deletes the QProcess. The deletion must not happen
        inside a handler of the QProcess's signals, so the timer keeps a reference.
        """
        self._is_running = False
        _alive.discard(self)
        qt.QTimer.singleShot(0, self._delete_process)

    def _delete_process(self) -> None:
        # If slots were still connected when Qt deletes the QProcess, PythonQt would delete it a second time.
        for signal, slot in (
            (self._process.readyReadStandardOutput, self._on_output),
            (self._process.readyReadStandardError, self._on_stderr),
            (self._process.finished, self._on_finished),
            (self._process.errorOccurred, self._on_error),
        ):
            signal.disconnect(slot)
        self._process.deleteLater()


def python_program() -> str:
    """Return the path of PythonSlicer or, if there is no PythonSlicer, of the running Python."""
    return shutil.which("PythonSlicer") or sys.executable


def wait_for_killed(milliseconds: int) -> None:
    """Wait until all killed processes have ended, at most `milliseconds` for each."""
    for process in list(_alive):
        if not process.listening:
            process.wait_for_end(milliseconds)
