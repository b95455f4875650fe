"""Run one `dcamt` command in a child process and receive its JSON events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from DCAMTSlicerLib.engine_messages import translated
from DCAMTSlicerLib.engine_process import EngineProcess, OnEvent, ProcessEnd
from slicer.i18n import tr as _


class EngineCommand:
    """Runs `dcamt` with the given arguments.

    After `cancel` neither `on_event` nor `on_end` is called.

    Args:
        on_event: called as on_event(event) with each event.
        on_end: called as on_end(message) once after the last event. The message tells the user why the command failed;
            after success, the message is empty.
    """

    def __init__(self, arguments: Sequence[str], on_event: OnEvent, on_end: Callable[[str], None]) -> None:
        self._on_end = on_end
        arguments = ["-m", "dcamt", *arguments, "--json", "--end-with-stdin"]
        self._process = EngineProcess(arguments, on_event, self._on_process_end)

    @property
    def running(self) -> bool:
        """Whether the command was started and has neither ended nor been cancelled."""
        return self._process.listening

    def start(self) -> EngineCommand:
        """Start the process; return self."""
        self._process.start()
        return self

    def cancel(self) -> None:
        """End the process at once."""
        self._process.kill()

    def _on_process_end(self, end: ProcessEnd) -> None:
        succeeded = not end.problem and not end.crashed and end.code == 0
        self._on_end("" if succeeded else failure_text(self._process, end))


def failure_text(process: EngineProcess, end: ProcessEnd) -> str:
    """Return why a process failed."""
    if end.problem:
        return end.problem
    line = process.log().rpartition("\n")[2]
    if line and not end.crashed:
        return translated(line.removeprefix("dcamt: "))
    return str(_("The computation ended unexpectedly (code {code}).").format(code=end.code))
