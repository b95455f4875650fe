"""One command of the engine in a child process, its lines of JSON heard from the event loop."""
# Methods have Qt-style names, as what else the module calls.
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable, Sequence

from DCAMTSlicerLib.engine_process import EngineProcess, OnEvent, ProcessEnd
from slicer.i18n import tr as _


class EngineCommand:
    """Runs `dcamt` with the words given; `onEvent` hears its events, and `onEnd(message)` its end, exactly once.

    message: empty after exit status 0, else the last line that it printed to stderr. After `cancel` nothing is heard.
    """

    def __init__(self, words: Sequence[str], onEvent: OnEvent, onEnd: Callable[[str], None]) -> None:
        self._onEnd = onEnd
        self._process = EngineProcess(
            ["-m", "dcamt", *words, "--json", "--end-with-stdin"], onEvent, self._onEnded
        ).start()

    @property
    def running(self) -> bool:
        """Whether more will be heard of it."""
        return self._process.listening

    def cancel(self) -> None:
        """End the process at once."""
        self._process.kill()

    def _onEnded(self, end: ProcessEnd) -> None:
        self._onEnd(end.problem or ("" if end.code == 0 and not end.crashed else self._fault(end)))

    def _fault(self, end: ProcessEnd) -> str:
        line = self._process.log().rpartition("\n")[2]
        unknown = _("The computation ended unexpectedly (code {code}).").format(code=end.code)
        return line.removeprefix("dcamt: ") if line and not end.crashed else unknown
