"""One segmentation, from the volume node to the result in the scene, in steps too short for the window to notice."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
from DCAMTLib.errors import DCAMTError, InputError, OutputError
from slicer.i18n import tr as _

from .region_of_interest import box_of
from .result_insertion import Result, insert
from .volume_bridge import FREE_SPACE, ijk_to_ras, save_in_slabs, voxels_of


@dataclass(frozen=True)
class Request:
    """What to segment: a scalar volume node, and how; `region` is a Markups ROI node or None.

    `target`: the segmentation node to write to, None for a new one. `show_3d`: with its surface in the 3D views.
    `model` is a name in the store or a file, `quality` "accurate" or "fast", `device` "automatic", "cuda", "mps" or
    "cpu".
    """

    volume: Any
    target: Any = None
    region: Any = None
    show_3d: bool = True
    model: str = "left-atrium"
    quality: str = "accurate"
    device: str = "automatic"


@dataclass(frozen=True)
class Progress:
    """stage: in the person's words. share: 0 to 1. remaining_s: None if nobody knows."""

    stage: str
    share: float
    remaining_s: float | None = None


@dataclass(frozen=True)
class Outcome:
    """segmentation: the node with the result; None if there is none, and then the scene is as it was.

    message: one line for the person. notes: what else there is to know, such as that the GPU's memory did not suffice.
    detail: what the log shows of a failure.
    """

    segmentation: Any | None
    message: str
    notes: tuple[str, ...] = ()
    detail: str = ""
    cancelled: bool = False


class SegmentationJob:
    """Hands a volume to the worker and its result to the scene; tells of both, and of the end exactly once.

    `worker` is a `worker_process.WorkerProcess`.

    Raises:
        InputError: the volume or the region cannot be used.
        OutputError: there is no room to hand the volume over.
    """

    def __init__(
        self,
        worker: Any,
        request: Request,
        on_progress: Callable[[Progress], None],
        on_finished: Callable[[Outcome], None],
    ) -> None:
        self._worker, self._request = worker, request
        self._on_progress, self._on_finished = on_progress, on_finished
        self._notes: list[str] = []
        self.running = True
        voxels = voxels_of(request.volume)
        region = box_of(request.region, request.volume) if request.region is not None else None
        self._shape = voxels.shape
        try:
            self._folder = Path(worker.makeFolder())
        except OSError as error:
            what = _("No temporary folder could be made ({reason}).").format(reason=error.strerror)
            raise OutputError(f"{what} {FREE_SPACE}") from error
        self._take_steps(self._hand_over(voxels, region))

    def cancel(self) -> None:
        """Stop at once; the scene stays as it was."""
        if self.running:
            self._worker.cancel()
            self._end(Outcome(None, _("Cancelled."), cancelled=True))

    def _hand_over(self, voxels: np.ndarray, region: dict[str, list[float]] | None) -> Iterator[None]:
        request, file = self._request, self._folder / "volume.npy"
        for share in save_in_slabs(voxels, file):
            self._on_progress(Progress(_("Reading the volume"), 0.01 * share))
            yield
        message = {
            "request": "segment",
            "name": request.volume.GetName(),
            "volume": str(file),
            "affine": ijk_to_ras(request.volume).tolist(),
            "model": request.model,
            "quality": request.quality,
            "device": request.device,
            "region": region,
            "output": str(self._folder),
        }
        self._worker.request(message, self._hear)

    def _hear(self, event: dict[str, Any]) -> None:
        if not self.running:
            return
        kind = event["event"]
        if kind == "progress":
            self._on_progress(Progress(stage_name(event["stage"]), event["share"], event.get("eta_s")))
        elif kind == "note":
            self._notes.append(event["message"])
        elif kind == "failed":
            self._end(Outcome(None, event["message"], detail=event.get("detail") or ""))
        elif kind == "finished":
            self._take_steps(self._bring_in(event))

    def _bring_in(self, event: dict[str, Any]) -> Iterator[None]:
        result = Result.read(event)
        yield
        volume = self._request.volume
        if not slicer.mrmlScene.IsNodePresent(volume) or voxels_of(volume).shape != self._shape:
            what = _("was removed or changed meanwhile, so its segmentation was dropped")
            raise InputError(what, path=volume.GetName())
        segmentation = yield from insert(result, volume, self._request.target, self._request.show_3d)
        self._end(Outcome(segmentation, result.summary(), tuple(self._notes)))

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
            told = isinstance(error, DCAMTError)
            text = str(error) if told else _("An unexpected fault: {error}. The log says more.").format(error=error)
            self._end(Outcome(None, text, detail="".join(traceback.format_exception(error))))
        else:
            self._take_steps(steps)

    def _end(self, outcome: Outcome) -> None:
        self.running = False
        self._worker.removeFolder(str(self._folder))
        self._on_finished(outcome)


def stage_name(stage: str) -> str:
    """The worker's word for a stage in the person's."""
    return {
        "loading": _("Loading the model"),
        "preparing": _("Preparing the volume"),
        "finding": _("Finding the heart"),
        "segmenting": _("Segmenting"),
        "finishing": _("Finishing"),
        "measuring": _("Measuring"),
        "writing": _("Writing the result"),
    }.get(stage, stage)
