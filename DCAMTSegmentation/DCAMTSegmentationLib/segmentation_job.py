"""Segment one volume node: from its voxels to the result in the scene."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from dcamt.errors import InputError
from dcamt.io.slabs import slabs
from dcamt.machine import AUTO
from dcamt.models.store import DEFAULT_MODEL
from dcamt.recipe import ACCURATE
from dcamt.worker.protocol import ScanSegmented, SegmentRequest, WorkerProgress
from DCAMTSlicerLib.model_choices import title_of
from DCAMTSlicerLib.slabs import write_npy
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, transform_between, voxels_of, world_positions
from slicer.i18n import tr as _

from .region_of_interest import region_of
from .result_insertion import SegmentationResult, insert_result
from .worker_job import JobOutcome, WorkerJob
from .worker_process import SegmentationWorker

READING = 0.01
"""Fraction of the bar for copying the voxels."""


@dataclass(frozen=True)
class SegmentationRequest:
    """What to segment, and how.

    volume: a scalar volume node. target: the segmentation node to write to, None for a new one. region: a Markups ROI
    node, or None. show_3d: show the surface in the 3D views. model: a name in the store, or a file. quality:
    "accurate" or "fast". device: "auto", "cuda", "mps" or "cpu".
    """

    volume: Any
    target: Any = None
    region: Any = None
    show_3d: bool = True
    model: str = DEFAULT_MODEL
    quality: str = ACCURATE
    device: str = AUTO


@dataclass(frozen=True)
class SegmentationProgress:
    """How far a segmentation is: its stage in the person's words, the fraction 0 to 1, and the remaining seconds.

    The remaining time is None while nobody knows it. The fraction never decreases within a segmentation.
    """

    stage: str
    fraction: float
    remaining_s: float | None = None


class SegmentationJob(WorkerJob):
    """Sends a volume to the worker, and puts the result into the scene; the outcome's node is the segmentation."""

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
        self._checksum = 0

    def start(self) -> None:
        """Begin in the next turn of the event loop.

        Raises:
            InputError: the volume or the region cannot be used, or the target is related to the volume by a
                non-linear transform.
            OutputError: there is no room for the volume's voxels.
        """
        request = self._request
        self._voxels = voxels_of(request.volume)
        if request.target is not None and request.target.GetSegmentation().GetNumberOfSegments() > 0:
            transform_between(request.volume, request.target)  # before the worker computes for minutes
        self._geometry, self._positions = ijk_to_ras(request.volume), world_positions(request.volume)
        self._region = region_of(request.region, request.volume) if request.region is not None else None
        super().start()

    def prepare(self) -> Iterator[SegmentRequest | None]:
        request, file = self._request, self.folder / "volume.npy"
        for slab in write_npy(self._voxels, file):
            self._checksum = _add_checksum(self._voxels[slab], self._checksum)
            self._progress(_("Reading the volume"), READING * slab.stop / len(self._voxels))
            yield None
        yield SegmentRequest(
            request.model,
            file,
            self._geometry,
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
        yield from self._check_volume(volume)
        segmentation = yield from insert_result(result, self._request)
        yield JobOutcome(segmentation, result.summary(volume.GetName(), title_of(self._request.model)))

    def _progress(self, stage: str, fraction: float, remaining_s: float | None = None) -> None:
        self._fraction = max(self._fraction, fraction)
        self._report(SegmentationProgress(stage, self._fraction, remaining_s))

    def _check_volume(self, volume: Any) -> Iterator[None]:
        """Compare the volume node with what was segmented.

        Raises:
            InputError: the volume is gone, or its grid is another.
        """
        remedy = _("Press Apply again.")
        if not slicer.mrmlScene.IsNodePresent(volume) or voxels_of(volume).shape != self._voxels.shape:
            what = _("was removed or changed meanwhile, so its segmentation was dropped")
            raise InputError(what, path=volume.GetName(), remedy=remedy)
        if not np.allclose(ijk_to_ras(volume), self._geometry, rtol=0, atol=1e-6):
            what = _("was moved meanwhile (its origin, spacing or axes), so its segmentation was dropped")
            raise InputError(what, path=volume.GetName(), remedy=remedy)
        voxels, checksum = voxels_of(volume), 0
        for slab in slabs(voxels):
            checksum = _add_checksum(voxels[slab], checksum)
            yield
        if checksum != self._checksum:
            note = _("The voxels of {volume} were changed meanwhile: the result is that of the scan before.")
            self.add_note(note.format(volume=volume.GetName()))
        if not np.allclose(world_positions(volume), self._positions, rtol=0, atol=1e-6):
            note = _("The transform of {volume} was changed meanwhile: the result moved with the volume.")
            self.add_note(note.format(volume=volume.GetName()))


def _add_checksum(voxels: np.ndarray, checksum: int) -> int:
    return zlib.crc32(np.ascontiguousarray(voxels).data.cast("B"), checksum)


def stage_name(stage: str) -> str:
    """Return the worker's stage in the person's words."""
    return {
        "loading": _("Loading the model"),
        "preparing": _("Preparing the volume"),
        "segmenting": _("Segmenting"),
        "finishing": _("Finishing"),
        "measuring": _("Measuring"),
        "writing": _("Writing the result"),
    }.get(stage, stage)
