"""Measure a result again after a correction."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import slicer
from dcamt.errors import InputError
from dcamt.io.slabs import write_npy_in_slabs
from dcamt.worker.events import SegmentsMeasured
from dcamt.worker.requests import MeasureRequest, SegmentMask
from DCAMTSlicerLib.fingerprints import checksum_of, fingerprint_of
from DCAMTSlicerLib.node_types import SegmentationNode
from DCAMTSlicerLib.result_segments import find_dcamt_segments
from DCAMTSlicerLib.scene_changes import SceneChanges
from DCAMTSlicerLib.segment_voxels import read_segment
from DCAMTSlicerLib.subject_hierarchy import place_below
from slicer.i18n import tr as _

from . import correction_marks
from .measurements_table import fill_table
from .result_nodes import MEASUREMENTS, VOLUME, get_referenced_node, own_helper
from .worker_job import JobOutcome, WorkerJob
from .worker_process import SegmentationWorker


class MeasuringJob(WorkerJob):
    """Sends the DCAMT segments, as they are now, to the worker, and puts the measurements into the result's table."""

    def __init__(
        self, worker: SegmentationWorker, segmentation: SegmentationNode, on_finished: Callable[[JobOutcome], None]
    ) -> None:
        super().__init__(worker, on_finished)
        self._segmentation = segmentation
        self._measured_fingerprint = self._measured_axes = ""

    def prepare(self) -> Iterator[MeasureRequest | None]:
        masks, checksums = [], {}
        self._measured_axes = correction_marks.axes_of(self._segmentation)
        for index, identifier in enumerate(find_dcamt_segments(self._segmentation)):
            voxels = read_segment(self._segmentation, identifier)
            name = self._segmentation.GetSegmentation().GetSegment(identifier).GetName()
            checksums[identifier] = checksum_of(voxels)
            file = self.folder / f"{index}.npy"
            for _slab in write_npy_in_slabs(voxels.mask, file):
                yield None
            masks.append(SegmentMask(name, file, voxels.affine))
        if not masks:
            what = _("has no segment that DCAMT wrote")
            raise InputError(what, path=self._segmentation.GetName(), remedy=_("Segment the scan again."))
        self._measured_fingerprint = fingerprint_of(checksums)
        volume = get_referenced_node(self._segmentation, VOLUME)
        name = (volume or self._segmentation).GetName()
        yield MeasureRequest(tuple(masks), name)

    def take_answer(self, event: SegmentsMeasured) -> Iterator[JobOutcome | None]:
        if not slicer.mrmlScene.IsNodePresent(self._segmentation):
            what = _("was removed during the measurement")
            raise InputError(what, path=self._segmentation.GetName(), remedy=_("Choose another segmentation."))
        table = get_referenced_node(self._segmentation, MEASUREMENTS)
        if table is None:
            what = _("The table of measurements of {segmentation} was removed during the measurement.")
            remedy = _("Segment the scan again to get a new one.")
            raise InputError(what.format(segmentation=self._segmentation.GetName()), remedy=remedy)
        with SceneChanges() as changes:
            changes.save(self._segmentation)
            if own_helper(self._segmentation, MEASUREMENTS) is None:
                # Another segmentation node, such as a copy of this one, also refers to `table`.
                table = changes.add("vtkMRMLTableNode", slicer.mrmlScene.GenerateUniqueName(table.GetName()))
                self._segmentation.SetNodeReferenceID(MEASUREMENTS, table.GetID())
                place_below(table, self._segmentation)
            else:
                changes.save(table)
            fill_table(table, event.measurements)
            correction_marks.mark_measured(self._segmentation, self._measured_fingerprint, self._measured_axes)
        name = self._segmentation.GetName()
        yield JobOutcome(
            self._segmentation, _("The segments that DCAMT wrote into {name} were measured.").format(name=name)
        )
