"""Segment a volume node: send its voxels to the worker, and insert the result into the scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dcamt.machine import AUTO
from dcamt.models.store import DEFAULT_MODEL
from dcamt.recipe import ACCURATE
from dcamt.worker.protocol import ScanSegmented, SegmentRequest, WorkerProgress
from DCAMTSlicerLib.model_choices import title_of
from DCAMTSlicerLib.volume_bridge import check_channels
from slicer.i18n import tr as _

from .region_of_interest import region_of
from .result_insertion import SegmentationResult, insert_result, transform_to_target
from .volume_snapshot import VolumeSnapshot, write_snapshots
from .worker_job import JobOutcome, WorkerJob
from .worker_process import SegmentationWorker

READING = 0.01
"""Fraction of the progress for copying the voxels."""


@dataclass(frozen=True)
class SegmentationRequest:
    """The arguments of a segmentation.

    volume: a scalar volume node. channels: the volume nodes of the second and further channels, for a model that takes
    several. target: the segmentation node to write to, None for a new one. region: a Markups ROI
    node, or None. show_3d: show the surface in the 3D views. model: a name in the store, or a file. quality:
    "accurate" or "fast". device: "auto", "cuda", "mps" or "cpu".
    """

    volume: Any
    channels: tuple[Any, ...] = ()
    target: Any = None
    region: Any = None
    show_3d: bool = True
    model: str = DEFAULT_MODEL
    quality: str = ACCURATE
    device: str = AUTO


@dataclass(frozen=True)
class SegmentationProgress:
    """The progress of a segmentation: the stage's name for the user, the fraction (0 to 1), which never decreases, and
    the remaining seconds, None if unknown.
    """

    stage: str
    fraction: float
    remaining_s: float | None = None


class SegmentationJob(WorkerJob):
    """Sends a volume to the worker and inserts the result into the scene; the outcome contains the segmentation
    node."""

    def __init__(
        self,
        worker: SegmentationWorker,
        request: SegmentationRequest,
        on_progress: Callable[[SegmentationProgress], None],
        on_finished: Callable[[JobOutcome], None],
    ) -> None:
        super().__init__(worker, on_finished)
        self._request, self._report = request, on_progress
        self._fraction = 0.0

    def start(self) -> None:
        """Start the job in the next turn of the event loop.

        Raises:
            InputError: the volume, a channel or the region cannot be used, or a target with segments is related to the
                volume by a non-linear transform.
            OutputError: the folder for the request's files cannot be created.
        """
        request = self._request
        volumes = (request.volume, *request.channels)
        check_channels(volumes)
        self._snapshots = [VolumeSnapshot(volume) for volume in volumes]
        # Raises its error now, and not after the worker has computed for minutes.
        transform_to_target(request.volume, request.target)
        self._region = region_of(request.region, request.volume) if request.region is not None else None
        super().start()

    def prepare(self) -> Iterator[SegmentRequest | None]:
        request, file = self._request, self.folder / "volume.npy"
        for fraction in write_snapshots(self._snapshots, file):
            self._progress(_("Reading the volume"), READING * fraction)
            yield None
        yield SegmentRequest(
            request.model,
            file,
            self._snapshots[0].geometry,
            self.folder,
            name=request.volume.GetName(),
            quality=request.quality,
            device=request.device,
            region=self._region,
            surface=request.show_3d,
        )

    def on_progress(self, event: WorkerProgress) -> None:
        self._progress(stage_name(event.stage), event.fraction, event.eta_s)

    def take_answer(self, event: ScanSegmented) -> Iterator[JobOutcome | None]:
        result = SegmentationResult.read(event)
        yield None
        volume = self._request.volume
        for snapshot in self._snapshots:
            for note in (yield from snapshot.compare()):
                self.add_note(note)
        segmentation = yield from insert_result(result, self._request)
        yield JobOutcome(segmentation, result.summary(volume.GetName(), title_of(self._request.model)))

    def _progress(self, stage: str, fraction: float, remaining_s: float | None = None) -> None:
        self._fraction = max(self._fraction, fraction)
        self._report(SegmentationProgress(stage, self._fraction, remaining_s))


def stage_name(stage: str) -> str:
    """Return the name of a stage of the worker for the user."""
    return {
        "loading": _("Loading the model"),
        "preparing": _("Preparing the volume"),
        "segmenting": _("Segmenting"),
        "finishing": _("Finishing"),
        "measuring": _("Measuring"),
        "writing": _("Writing the result"),
    }.get(stage, stage)
