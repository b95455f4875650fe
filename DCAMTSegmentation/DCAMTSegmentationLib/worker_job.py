"""One request to the worker, from what is handed over to what comes in, in steps too short for the window to notice."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import qt
from dcamt.errors import DCAMTError, OutputError
from dcamt.worker.protocol import Event, Request, RequestFailed, WorkerNote, WorkerProgress
from DCAMTSlicerLib.volume_bridge import FREE_SPACE
from slicer.i18n import tr as _


@dataclass(frozen=True)
class JobResult:
    """segmentation: the node that it is about; None if there is none, and then the scene is as it was.

    message: one line for the person. notes: what else there is to know, such as that the GPU's memory did not suffice.
    detail: what the log shows of a failure.
    """

    segmentation: Any | None
    message: str
    notes: tuple[str, ...] = ()
    detail: str = ""
    cancelled: bool = False


class WorkerJob(ABC):
    """One request to a `worker_process.WorkerProcess`, with a folder for what is handed over; tells of its end once.

    A subclass says in `hand_over` what is asked for, and in `bring_in` what becomes of the answer.

    Raises:
        OutputError: there is no room to hand anything over.
    """

    def __init__(self, worker: Any, on_finished: Callable[[JobResult], None]) -> None:
        self._worker, self._on_finished = worker, on_finished
        self._notes: list[str] = []
        self.running = True
        try:
            self.folder = Path(worker.makeFolder())
        except OSError as error:
            what = _("No temporary folder could be made ({reason}).").format(reason=error.strerror)
            raise OutputError(f"{what} {FREE_SPACE}") from error
        self._take_steps(self._ask())

    def cancel(self) -> None:
        """Stop at once; the scene stays as it was."""
        if self.running:
            self._worker.cancel()
            self._end(JobResult(None, _("Cancelled."), cancelled=True))

    @abstractmethod
    def hand_over(self) -> Iterator[Request | None]:
        """Write what is handed over, step by step; the last step gives the request."""

    @abstractmethod
    def bring_in(self, event: Any) -> Iterator[JobResult | None]:
        """Take the answer into the scene, step by step; the last step gives the outcome."""

    def progressed(self, event: WorkerProgress) -> None:  # noqa: B027 - a short job need not care
        """Hear how far the worker is."""

    def _ask(self) -> Iterator[None]:
        for request in self.hand_over():
            if request is not None:
                self._worker.request(request, self._hear)
            yield

    def _hear(self, event: Event) -> None:
        if not self.running:
            return
        if isinstance(event, WorkerProgress):
            self.progressed(event)
        elif isinstance(event, WorkerNote):
            self._notes.append(event.message)
        elif isinstance(event, RequestFailed):
            self._end(JobResult(None, event.message, detail=event.detail))
        else:
            self._take_steps(self._answer(event))

    def _answer(self, event: Event) -> Iterator[None]:
        for outcome in self.bring_in(event):
            if outcome is not None:
                self._end(replace(outcome, notes=tuple(self._notes)))
            yield

    def _take_steps(self, steps: Iterator[None]) -> None:
        """Take the steps one by one, with a turn of the event loop before each."""
        qt.QTimer.singleShot(0, lambda: self._take_step(steps))

    def _take_step(self, steps: Iterator[None]) -> None:
        if not self.running:
            # Lets the steps undo what they began.
            steps.close()  # type: ignore[attr-defined]
            return
        try:
            next(steps)
        except StopIteration:
            return
        except Exception as error:
            if not self.running:
                raise  # it has ended, and whoever was told of that failed
            told = isinstance(error, DCAMTError)
            text = str(error) if told else _("An unexpected fault: {error}. The log says more.").format(error=error)
            self._end(JobResult(None, text, detail="".join(traceback.format_exception(error))))
        else:
            self._take_steps(steps)

    def _end(self, outcome: JobResult) -> None:
        self.running = False
        self._worker.removeFolder(str(self.folder))
        self._on_finished(outcome)
