"""Measure late enhancement on the surface of a segment, in the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dcamt.worker.protocol import Outline, WallMeasured, WallRequest
from DCAMTSlicerLib.result_segments import segment_mask
from DCAMTSlicerLib.slabs import write_npy
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, transform_between, voxels_of
from slicer.i18n import tr as _

from .wall_nodes import insert_wall
from .worker_job import JobOutcome, WorkerJob
from .worker_process import SegmentationWorker


class WallJob(WorkerJob):
    """Sends a volume and a segment of a segmentation node to the worker, and the wall to the scene."""

    def __init__(
        self,
        worker: SegmentationWorker,
        volume: Any,
        segmentation: Any,
        segment: str,
        on_finished: Callable[[JobOutcome], None],
    ) -> None:
        super().__init__(worker, on_finished)
        self._volume, self._segmentation, self._segment = volume, segmentation, segment

    def start(self) -> None:
        """Begin in the next turn of the event loop.

        Raises:
            InputError: the volume cannot be used, or lies under another transform that is not linear.
            OutputError: there is no room for the voxels.
        """
        self._voxels = voxels_of(self._volume)
        self._to_volume = transform_between(self._segmentation, self._volume)
        super().start()

    def prepare(self) -> Iterator[WallRequest | None]:
        scan, segment = self.folder / "volume.npy", self.folder / "segment.npy"
        for _slab in write_npy(self._voxels, scan):
            yield None
        mask, affine = segment_mask(self._segmentation, self._segment)
        for _slab in write_npy(mask, segment):
            yield None
        name = self._segmentation.GetSegmentation().GetSegment(self._segment).GetName()
        outline = Outline(name, segment, self._to_volume @ affine)
        yield WallRequest(scan, ijk_to_ras(self._volume), outline, self.folder, self._volume.GetName())

    def take_answer(self, event: WallMeasured) -> Iterator[JobOutcome | None]:
        from dcamt.wall.files import read_wall

        wall = read_wall(event.wall)
        yield None
        insert_wall(wall, self._volume, self._segmentation)
        for note in event.notes:
            self.add_note(note)
        yield JobOutcome(self._segmentation, _("The wall of {scan} was measured.").format(scan=self._volume.GetName()))
