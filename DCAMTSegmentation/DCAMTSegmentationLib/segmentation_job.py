"""One segmentation, from the volume node to the result in the scene, in steps too short for the window to notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import slicer
from dcamt.errors import InputError
from dcamt.machine import AUTO
from dcamt.worker.protocol import ScanSegmented, SegmentRequest, WorkerProgress
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, save_in_slabs, voxels_of
from slicer.i18n import tr as _

from .region_of_interest import box_of
from .result_insertion import Result, insert
from .worker_job import JobResult, WorkerJob


@dataclass(frozen=True)
class Request:
    """What to segment: a scalar volume node, and how; `region` is a Markups ROI node or None.

    `target`: the segmentation node to write to, None for a new one. `show_3d`: with its surface in the 3D views.
    `model` is a name in the store or a file, `quality` "accurate" or "fast", `device` "auto", "cuda", "mps" or "cpu".
    """

    volume: Any
    target: Any = None
    region: Any = None
    show_3d: bool = True
    model: str = "left-atrium"
    quality: str = "accurate"
    device: str = AUTO


@dataclass(frozen=True)
class SegmentationProgress:
    """The stage in the user's language, the fraction that is done (0 to 1) and the estimated seconds to the end."""

    stage: str
    fraction: float
    remaining_s: float | None = None


class SegmentationJob(WorkerJob):
    """Hands a volume to the worker and its result to the scene; the outcome's node is the segmentation.

    Raises:
        InputError: the volume or the region cannot be used.
        OutputError: there is no room to hand the volume over.
    """

    def __init__(
        self,
        worker: Any,
        request: Request,
        on_progress: Callable[[SegmentationProgress], None],
        on_finished: Callable[[JobResult], None],
    ) -> None:
        self._request, self._on_progress = request, on_progress
        self._voxels = voxels_of(request.volume)
        self._region = box_of(request.region, request.volume) if request.region is not None else None
        super().__init__(worker, on_finished)

    def hand_over(self) -> Iterator[SegmentRequest | None]:
        request, file = self._request, self.folder / "volume.npy"
        for share in save_in_slabs(self._voxels, file):
            self._on_progress(SegmentationProgress(_("Reading the volume"), 0.01 * share))
            yield None
        yield SegmentRequest(
            model=request.model,
            volume=file,
            affine=ijk_to_ras(request.volume),
            output=self.folder,
            name=request.volume.GetName(),
            quality=request.quality,
            device=request.device,
            region=self._region,
        )

    def progressed(self, event: WorkerProgress) -> None:
        self._on_progress(SegmentationProgress(stage_name(event.stage), event.fraction, event.eta_s))

    def bring_in(self, event: ScanSegmented) -> Iterator[JobResult | None]:
        result = Result.read(event)
        yield None
        volume = self._request.volume
        if not slicer.mrmlScene.IsNodePresent(volume) or voxels_of(volume).shape != self._voxels.shape:
            what = _("was removed or changed meanwhile, so its segmentation was dropped")
            raise InputError(what, path=volume.GetName())
        segmentation = yield from insert(result, volume, self._request.target, self._request.show_3d)
        yield JobResult(segmentation, result.summary())


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
