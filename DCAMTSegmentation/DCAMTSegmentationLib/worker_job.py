"""One request to the worker: prepare it, send it and take its answer, in steps too short for the window to notice."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dcamt.errors import DCAMTError, InternalError, OutputError
from dcamt.worker.protocol import Request, RequestFailed, WorkerEvent, WorkerNote, WorkerProgress
from DCAMTSlicerLib.engine_messages import translated
from DCAMTSlicerLib.slabs import FREE_SPACE
from DCAMTSlicerLib.stepped_task import SteppedTask, error_text
from slicer.i18n import tr as _

from .worker_process import ENDED, SegmentationWorker

UNEXPECTED = (InternalError.reason, ENDED)
"""Reasons of the worker's failures that are no refusal: their details help to find the error."""


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended.

    segmentation: the node that the job was about; None after a failure, and then the scene is as it was.
    message: one line for the person. notes: what else to know, such as that the GPU's memory did not suffice.
    detail: the traceback or the log of an unexpected failure; empty after a refusal.
    """

    segmentation: Any | None
    message: str
    notes: tuple[str, ...] = ()
    detail: str = ""
    cancelled: bool = False


class WorkerJob(ABC):
    """One request to a `SegmentationWorker`, with a folder for its files; `on_finished` gets its outcome, once.

    A subclass yields the request in `prepare`, and the outcome in `take_answer`.
    """

    def __init__(self, worker: SegmentationWorker, on_finished: Callable[[JobOutcome], None]) -> None:
        self._worker, self._on_finished = worker, on_finished
        self._notes: list[str] = []
        self._task: SteppedTask | None = None
        self.running = False

    def start(self) -> None:
        """Begin in the next turn of the event loop.

        Raises:
            OutputError: there is no room for the request's files.
        """
        try:
            self.folder = Path(self._worker.make_folder())
        except OSError as error:
            what = _("No temporary folder could be made ({reason}).").format(reason=error.strerror)
            raise OutputError(f"{what} {FREE_SPACE}") from error
        self.running = True
        self._task = SteppedTask(self._send(), self._on_steps_ended).start()

    def cancel(self) -> None:
        """Stop at once; the scene stays as it was."""
        if self.running:
            self._worker.cancel()
            self._end(JobOutcome(None, _("Cancelled."), cancelled=True))

    @abstractmethod
    def prepare(self) -> Iterator[Request | None]:
        """Write the request's files step by step; the last step yields the request."""

    @abstractmethod
    def take_answer(self, event: Any) -> Iterator[JobOutcome | None]:
        """Put the answer into the scene step by step; the last step yields the outcome."""

    def on_progress(self, event: WorkerProgress) -> None:  # noqa: B027 - a short job need not report it
        """Report the progress of the worker."""

    def add_note(self, note: str) -> None:
        """Add a line to the notes of the outcome."""
        self._notes.append(note)

    def _send(self) -> Iterator[None]:
        for request in self.prepare():
            if request is not None:
                self._worker.request(request, self._on_event)
            yield

    def _on_event(self, event: WorkerEvent) -> None:
        if not self.running:
            return
        if isinstance(event, WorkerProgress):
            self.on_progress(event)
        elif isinstance(event, WorkerNote):
            self.add_note(translated(event.message))
        elif isinstance(event, RequestFailed):
            detail = event.detail if event.reason in UNEXPECTED else ""
            self._end(JobOutcome(None, translated(event.message), detail=detail))
        else:
            self._task = SteppedTask(self._answer(event), self._on_steps_ended).start()

    def _answer(self, event: WorkerEvent) -> Iterator[None]:
        for outcome in self.take_answer(event):
            if outcome is not None:
                self._end(replace(outcome, notes=tuple(self._notes)))
            yield

    def _on_steps_ended(self, error: Exception | None) -> None:
        if error is None:
            return
        if not self.running:
            raise error  # the job had ended, and its listener failed
        refused = isinstance(error, DCAMTError)
        detail = "" if refused else "".join(traceback.format_exception(error))
        self._end(JobOutcome(None, error_text(error), detail=detail))

    def _end(self, outcome: JobOutcome) -> None:
        self.running = False
        if self._task is not None:
            # Lets steps that were not taken undo what they began.
            self._task.cancel()
        self._worker.remove_folder(str(self.folder))
        on_finished, self._on_finished = self._on_finished, _ignore
        on_finished(outcome)


def _ignore(outcome: JobOutcome) -> None:
    """Stand in for the listener of a job that has ended, which need not be kept."""
