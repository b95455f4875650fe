"""Measure late enhancement on the surface of a segment, in the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import slicer
from dcamt.errors import InputError
from dcamt.io.slabs import write_npy_in_slabs
from dcamt.wall.analysis import WallResult
from dcamt.wall.files import read_wall
from dcamt.wall.settings import Threshold
from dcamt.worker.events import WallMeasured
from dcamt.worker.requests import SegmentMask, WallRequest
from DCAMTSlicerLib.fingerprints import fingerprint
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.scene_changes import SceneChanges
from DCAMTSlicerLib.segment_voxels import read_segment
from DCAMTSlicerLib.volume_bridge import pad_to_volume_grid
from slicer.i18n import tr as _

from .volume_snapshot import write_snapshots
from .wall_nodes import (
    insert_wall,
    placement,
    store_measured_outline,
    update_outdated_mark,
    wall_in_scene,
    with_threshold,
)
from .worker_job import JobOutcome, SegmentJob
from .worker_process import SegmentationWorker


class WallJob(SegmentJob):
    """Sends a volume and a segment to the worker, and inserts the wall into the scene."""

    _fingerprint = ""
    """The fingerprint of the segment that is sent; set by `prepare`."""
    _placement: np.ndarray | None = None
    """The `wall_nodes.placement` of the segment that is sent; set by `prepare`."""

    def __init__(
        self,
        worker: SegmentationWorker,
        volume: VolumeNode,
        segmentation: SegmentationNode,
        segment_id: str,
        threshold: Threshold,
        on_finished: Callable[[JobOutcome], None],
    ) -> None:
        super().__init__(worker, volume, segmentation, segment_id, on_finished)
        self._threshold = threshold
        self._earlier = wall_in_scene(segmentation)

    def prepare(self) -> Iterator[WallRequest | None]:
        volume_file, mask_file = self.folder / "volume.npy", self.folder / "segment.npy"
        for _fraction in write_snapshots([self._snapshot], volume_file):
            yield None
        voxels = read_segment(self._segmentation, self._segment_id)
        self._segment_name = self._segmentation.GetSegmentation().GetSegment(self._segment_id).GetName()
        self._fingerprint = fingerprint(self._segmentation, [self._segment_id])
        self._placement = placement(self._segmentation, self._segment_id, self._snapshot.affine, self._to_volume)
        mask, affine = pad_to_volume_grid(voxels.mask, self._to_volume @ voxels.affine, self._snapshot.grid)
        yield None
        for _slab in write_npy_in_slabs(mask, mask_file):
            yield None
        segment = SegmentMask(self._segment_name, mask_file, affine)
        yield WallRequest(volume_file, self._snapshot.affine, segment, self.folder, self._volume.GetName())

    def take_answer(self, event: WallMeasured) -> Iterator[JobOutcome | None]:
        wall = read_wall(event.wall)
        yield None
        yield from self.compare_snapshots([self._snapshot])
        if not slicer.mrmlScene.IsNodePresent(self._segmentation):
            what = _("The segmentation {segmentation} was removed during the measurement; the wall was discarded.")
            raise InputError(what.format(segmentation=self._segmentation.GetName()), remedy=_("Try again."))
        if self._segmentation.GetSegmentation().GetSegment(self._segment_id) is None:
            what = _("The segment {segment} was removed during the measurement; the wall was discarded.")
            raise InputError(what.format(segment=self._segment_name), remedy=_("Choose another segment."))
        earlier = wall_in_scene(self._segmentation)
        if earlier is not None and not earlier.proposed and not _have_same_openings(earlier, self._earlier):
            what = _("The openings of the wall were corrected during the measurement; the new wall was discarded.")
            raise InputError(what, remedy=_("To replace the corrected wall, press Measure wall again."))
        # The user may have changed the threshold of the earlier wall during the measurement.
        wall = with_threshold(wall, earlier.settings.threshold if earlier is not None else self._threshold)
        # This block has no yield, so that cancelling never leaves parts of a wall.
        with SceneChanges() as changes:
            insert_wall(wall, self._volume, self._segmentation, changes)
            store_measured_outline(
                self._segmentation, self._segment_id, self._fingerprint, self._placement, self._snapshot.checksum
            )
            # The segment may have been edited or moved while the worker measured.
            update_outdated_mark(self._segmentation)
        yield JobOutcome(self._segmentation, _("The wall of {scan} was measured.").format(scan=self._volume.GetName()))


def _have_same_openings(wall: WallResult, earlier: WallResult | None) -> bool:
    return earlier is not None and np.array_equal(wall.kind, earlier.kind)
