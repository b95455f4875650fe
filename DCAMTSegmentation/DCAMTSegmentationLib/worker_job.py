"""Prepare a request, send it to the worker and use the answer, in short steps so that the window responds."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from dcamt.errors import DCAMTError, InternalError, OutputError, write_error
from dcamt.worker.events import RequestFailed, WorkerEvent, WorkerNote, WorkerProgress
from dcamt.worker.requests import Request
from DCAMTSlicerLib.engine_messages import error_text, translated
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.stepped_task import SteppedTask
from DCAMTSlicerLib.temporary_files import with_folder_hint
from DCAMTSlicerLib.volume_bridge import transform_between
from slicer.i18n import tr as _

from .volume_snapshot import VolumeSnapshot
from .worker_process import ENDED, SegmentationWorker

UNEXPECTED = (InternalError.reason, ENDED)
"""Reasons of the worker's unexpected failures."""


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended.

    Attributes:
        segmentation: the job's segmentation node; None if the job failed or was cancelled.
        notes: further messages, such as a lack of GPU memory.
        detail: the traceback or the log of an unexpected failure; otherwise empty.
    """

    segmentation: SegmentationNode | None
    message: str
    notes: tuple[str, ...] = ()
    detail: str = ""
    cancelled: bool = False

    @property
    def failed(self) -> bool:
        """Whether the job ended without a result although the user did not cancel it."""
        return self.segmentation is None and not self.cancelled


class WorkerJob(ABC):
    """A request to a `SegmentationWorker`, with a folder for its files; `on_finished` is called once with the outcome.

    A subclass yields the request in `prepare`, and the outcome in `take_answer`.
    """

    folder: Path
    """The folder of the request's files; set by `start`."""

    def __init__(self, worker: SegmentationWorker, on_finished: Callable[[JobOutcome], None]) -> None:
        self._worker, self._on_finished = worker, on_finished
        self._notes: list[str] = []
        self._task: SteppedTask | None = None
        self.running = False

    def start(self) -> None:
        """Start the job in the next turn of the event loop.

        Raises:
            OutputError: the folder for the request's files cannot be created.
        """
        try:
            self.folder = Path(self._worker.make_folder())
        except OSError as error:
            folder = error.filename if error.filename is not None else slicer.app.temporaryPath
            raise with_folder_hint(write_error(error, folder)) from error
        self.running = True
        self._task = SteppedTask(self._send(), self._on_steps_ended).start()

    def cancel(self) -> None:
        """Stop the job at once; the scene stays unchanged."""
        if self.running:
            self._worker.cancel()
            self._end(JobOutcome(None, _("Cancelled."), cancelled=True))

    @abstractmethod
    def prepare(self) -> Iterator[Request | None]:
        """Write the request's files step by step; the last step yields the request."""

    @abstractmethod
    def take_answer(self, event: Any) -> Iterator[JobOutcome | None]:
        """Use the answer step by step; the last step yields the outcome."""

    def handle_progress(self, event: WorkerProgress) -> None:  # noqa: B027 - a short job need not handle it
        """Handle the worker's progress; by default, do nothing."""

    def compare_snapshots(self, snapshots: Sequence[VolumeSnapshot]) -> Iterator[None]:
        """Compare volumes with their snapshots in short steps, and add the differences to the notes of the outcome.

        Raises:
            InputError: a volume or its image was removed, or a volume's grid has changed.
        """
        for snapshot in snapshots:
            differences = yield from snapshot.compare()
            self._notes += differences

    def _send(self) -> Generator[None, None, None]:
        try:
            for request in self.prepare():
                if request is not None:
                    self._worker.request(request, self._on_event)
                yield
        except OutputError as error:
            raise with_folder_hint(error) from error

    def _on_event(self, event: WorkerEvent) -> None:
        if not self.running:
            return
        if isinstance(event, WorkerProgress):
            self.handle_progress(event)
        elif isinstance(event, WorkerNote):
            self._notes.append(translated(event.message))
        elif isinstance(event, RequestFailed):
            detail = event.detail if event.reason in UNEXPECTED else ""
            self._end(JobOutcome(None, translated(event.message), detail=detail))
        else:
            self._task = SteppedTask(self._answer(event), self._on_steps_ended).start()

    def _answer(self, event: WorkerEvent) -> Generator[None, None, None]:
        for outcome in self.take_answer(event):
            if outcome is not None:
                self._end(replace(outcome, notes=tuple(self._notes)))
            yield

    def _on_steps_ended(self, error: Exception | None) -> None:
        if error is None:
            return
        is_user_error = isinstance(error, DCAMTError)
        detail = "" if is_user_error else "".join(traceback.format_exception(error))
        self._end(JobOutcome(None, error_text(error), detail=detail))

    def _end(self, outcome: JobOutcome) -> None:
        self.running = False
        if self._task is not None:
            # The cancelled task closes its generator, which undoes unfinished changes of the scene.
            self._task.cancel()
        self._worker.remove_folder(str(self.folder))
        on_finished, self._on_finished = self._on_finished, _ignore
        on_finished(outcome)


class SegmentJob(WorkerJob):
    """A job that sends a volume and a segment to the worker."""

    _snapshot: VolumeSnapshot
    """The state of the volume when the job starts; set by `start`."""
    _to_volume: np.ndarray
    """(4, 4), from the segmentation's space to the volume's, RAS mm; set by `start`."""

    def __init__(
        self,
        worker: SegmentationWorker,
        volume: VolumeNode,
        segmentation: SegmentationNode,
        segment_id: str,
        on_finished: Callable[[JobOutcome], None],
    ) -> None:
        super().__init__(worker, on_finished)
        self._volume, self._segmentation, self._segment_id = volume, segmentation, segment_id

    def start(self) -> None:
        """Start the job in the next turn of the event loop.

        Raises:
            InputError: the volume has several channels or no image, `check_scan_grid` refuses the volume's grid, or a
                non-linear transform lies between volume and segmentation.
            OutputError: the folder for the request's files cannot be created.
        """
        self._snapshot = VolumeSnapshot(self._volume)
        self._to_volume = transform_between(self._segmentation, self._volume)
        super().start()


def _ignore(outcome: JobOutcome) -> None:
    """Replaces `on_finished` of a job that has ended, so that the job no longer holds the callback."""
