"""Measuring a result anew, once a person has corrected it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dcamt.errors import InputError
from dcamt.worker.protocol import MeasureRequest, Outline, OutlinesMeasured
from DCAMTSlicerLib.result_segments import fingerprint_of, outline_of, own_segments
from DCAMTSlicerLib.volume_bridge import save_in_slabs
from slicer.i18n import tr as _

from . import review
from .measurements_table import fill_table
from .worker_job import JobResult, WorkerJob


class MeasuringJob(WorkerJob):
    """Hands the segments that DCAMT wrote to the worker, as they are now, and what they measure to the table.

    Raises:
        OutputError: there is no room to hand them over.
    """

    def __init__(self, worker: Any, segmentation: Any, on_finished: Callable[[JobResult], None]) -> None:
        self._segmentation = segmentation
        self._measured = ""
        super().__init__(worker, on_finished)

    def hand_over(self) -> Iterator[MeasureRequest | None]:
        outlines, masks = [], {}
        for index, (own, identifier) in enumerate(own_segments(self._segmentation).items()):
            mask, affine = outline_of(self._segmentation, identifier)
            masks[own] = mask
            file = self.folder / f"{index}.npy"
            for _share in save_in_slabs(mask, file):
                yield None
            name = self._segmentation.GetSegmentation().GetSegment(identifier).GetName()
            outlines.append(Outline(name, file, affine))
        self._measured = fingerprint_of(masks)
        volume = review.referenced(self._segmentation, review.VOLUME)
        name = (volume or self._segmentation).GetName()
        yield MeasureRequest(tuple(outlines), name)

    def bring_in(self, event: OutlinesMeasured) -> Iterator[JobResult | None]:
        table = review.referenced(self._segmentation, review.MEASUREMENTS)
        if table is None:
            raise InputError(_("was removed meanwhile"), path=self._segmentation.GetName())
        fill_table(table, event.measurements)
        review.mark_measured(self._segmentation, self._measured)
        yield JobResult(self._segmentation, _("The segmentation was measured as it is now."))
