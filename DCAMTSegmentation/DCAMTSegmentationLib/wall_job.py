"""Measure late enhancement on the surface of a segment, in the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import slicer
from dcamt.errors import InputError
from dcamt.io.slabs import write_npy_in_slabs
from dcamt.worker.protocol import Outline, WallMeasured, WallRequest
from DCAMTSlicerLib.result_segments import fingerprint_of, segment_mask
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, transform_between
from slicer.i18n import tr as _

from .volume_snapshot import VolumeSnapshot, write_snapshots
from .wall_nodes import insert_wall, note_outline, notice_changed_outline
from .worker_job import JobOutcome, WorkerJob
from .worker_process import SegmentationWorker


class WallJob(WorkerJob):
    """Sends a volume and a segment to the worker, and inserts the wall into the scene."""

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
        """Start the job in the next turn of the event loop.

        Raises:
            InputError: the volume holds no image or several channels, or is related to the segmentation by a non-linear
                transform.
            OutputError: the folder for the request's files cannot be created.
        """
        self._snapshot = VolumeSnapshot(self._volume)
        self._to_volume = transform_between(self._segmentation, self._volume)
        super().start()

    def prepare(self) -> Iterator[WallRequest | None]:
        scan, segment = self.folder / "volume.npy", self.folder / "segment.npy"
        for _fraction in write_snapshots([self._snapshot], scan):
            yield None
        mask, affine = segment_mask(self._segmentation, self._segment)
        self._outline = fingerprint_of({self._segment: mask})
        mask, affine = on_scan_grid(mask, affine, self._volume, self._to_volume)
        yield None
        for _slab in write_npy_in_slabs(mask, segment):
            yield None
        name = self._segmentation.GetSegmentation().GetSegment(self._segment).GetName()
        outline = Outline(name, segment, affine)
        yield WallRequest(scan, self._snapshot.geometry, outline, self.folder, self._volume.GetName())

    def take_answer(self, event: WallMeasured) -> Iterator[JobOutcome | None]:
        from dcamt.wall.files import read_wall

        wall = read_wall(event.wall)
        yield None
        for note in (yield from self._snapshot.compare()):
            self.add_note(note)
        if not slicer.mrmlScene.IsNodePresent(self._segmentation):
            what = _("was removed meanwhile, so its wall was dropped")
            raise InputError(what, path=self._segmentation.GetName(), remedy=_("Try again."))
        insert_wall(wall, self._volume, self._segmentation)
        note_outline(self._segmentation, self._segment, self._outline)
        # The segment may have been edited while the worker measured.
        notice_changed_outline(self._segmentation)
        yield JobOutcome(self._segmentation, _("The wall of {scan} was measured.").format(scan=self._volume.GetName()))


def on_scan_grid(
    mask: np.ndarray, affine: np.ndarray, volume: Any, to_volume: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask (K, J, I) and its affine in the volume's space; if possible, on the volume's whole grid.

    `affine`: (4, 4), index (i, j, k) in the mask -> mm in the segmentation's space. `to_volume`: (4, 4), from that
    space to the volume's.
    """
    whole_affine = ijk_to_ras(volume)
    in_scan = np.linalg.inv(whole_affine) @ to_volume @ affine
    start = np.rint(in_scan[:3, 3]).astype(int)
    shape = np.array(volume.GetImageData().GetDimensions())
    aligned = np.allclose(in_scan[:3, :3], np.eye(3), atol=1e-4) and np.allclose(in_scan[:3, 3], start, atol=1e-3)
    if not aligned or (start < 0).any() or (start + mask.shape[::-1] > shape).any():
        return mask, to_volume @ affine
    whole = np.zeros(shape[::-1], np.uint8)
    i, j, k = (slice(first, first + size) for first, size in zip(start, mask.shape[::-1], strict=True))
    whole[k, j, i] = mask
    return whole, whole_affine
