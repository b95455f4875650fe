"""Write the one-page report of a scan and its segments, in the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import vtk
from dcamt.io.slabs import write_npy_in_slabs
from dcamt.metrics.doubtful_places import DoubtfulPlace
from dcamt.wall.files import write_wall
from dcamt.worker.protocol import ReportRequest, ReportSegment, ReportWritten, SegmentMask
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.result_segments import find_dcamt_segments
from DCAMTSlicerLib.segment_voxels import read_segment
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, pad_to_volume_grid, transform_between, voxels_of
from slicer.i18n import tr as _

from . import review
from .wall_nodes import is_outdated, measured_segment, measured_volume, update_outdated_mark, wall_in_scene
from .worker_job import JobOutcome, SegmentJob
from .worker_process import SegmentationWorker

OUTDATED_WALL = "The wall was measured of an earlier outline and was left out."
WALL_OF_OTHER_SCAN = "The wall was measured in another scan and was left out."
WALL_OF_OTHER_SEGMENT = "The wall was measured of another segment and was left out."


class ReportJob(SegmentJob):
    """Sends a volume, segments and their review data to the worker, which writes the report.

    The report shows a segment and, if DCAMT wrote it, the other segments that DCAMT wrote. Names in the scene, which
    may identify the patient, are not used: segments that DCAMT wrote have the names of their classes, others none.
    """

    def __init__(
        self,
        worker: SegmentationWorker,
        volume: VolumeNode,
        segmentation: SegmentationNode,
        segment_id: str,
        report: Path,
        on_finished: Callable[[JobOutcome], None],
    ) -> None:
        super().__init__(worker, volume, segmentation, segment_id, on_finished)
        self._report = report

    def prepare(self) -> Iterator[ReportRequest | None]:
        scan = self.folder / "volume.npy"
        for _slab in write_npy_in_slabs(self._snapshot.voxels, scan):
            yield None
        dcamt_segment_ids = list(find_dcamt_segments(self._segmentation))
        is_dcamt_segment = self._segment_id in dcamt_segment_ids
        segments: list[ReportSegment] = []
        for identifier in [
            self._segment_id,
            *(segment_id for segment_id in dcamt_segment_ids if is_dcamt_segment and segment_id != self._segment_id),
        ]:
            voxels = read_segment(self._segmentation, identifier)
            mask, affine = pad_to_volume_grid(voxels.mask, self._to_volume @ voxels.affine, self._volume)
            yield None
            file = self.folder / f"segment-{len(segments)}.npy"
            for _slab in write_npy_in_slabs(mask, file):
                yield None
            segment = self._segmentation.GetSegmentation().GetSegment(identifier)
            name = _class_name(segment) if is_dcamt_segment else _("Outlined segment")
            segments.append(ReportSegment(SegmentMask(name, file, affine), tuple(segment.GetColor())))
        map_node = review.get_referenced_node(self._segmentation, review.DOUBT_MAP) if is_dcamt_segment else None
        doubt_map = map_affine = None
        # The map of an older version shows disagreement, which the report would show as doubt.
        if map_node is not None and review.shows_doubt(map_node):
            doubt_map = self.folder / "doubt.npy"
            map_affine = transform_between(map_node, self._volume) @ ijk_to_ras(map_node)
            for _slab in write_npy_in_slabs(voxels_of(map_node), doubt_map):
                yield None
        wall, notes = wall_in_scene(self._segmentation), []
        reason = self._reason_against_wall() if wall is not None else ""
        if reason:
            wall, notes = None, [reason]
        wall_file = self.folder / "wall.npz" if wall is not None else None
        if wall is not None and wall_file is not None:
            write_wall(wall, wall_file)
        yield None
        yield ReportRequest(
            scan,
            self._snapshot.geometry,
            tuple(segments),
            self._report,
            name=self._volume.GetName(),
            method=review.outline_method(self._segmentation) if is_dcamt_segment else None,
            is_corrected=review.update_correction_marks(self._segmentation),
            doubt_map=doubt_map,
            doubt_map_affine=map_affine,
            trust=review.trust(self._segmentation) if is_dcamt_segment else None,
            doubts=self._doubts() if is_dcamt_segment else (),
            expected_overlap=review.expected_overlap(self._segmentation) if is_dcamt_segment else None,
            wall=wall_file,
            notes=tuple(notes),
        )

    def take_answer(self, event: ReportWritten) -> Iterator[JobOutcome | None]:
        yield JobOutcome(self._segmentation, _("The report was written to {file}.").format(file=self._report))

    def _reason_against_wall(self) -> str:
        """Return why the measured wall does not belong in the report; "" if it does."""
        if measured_volume(self._segmentation) is not self._volume:
            return WALL_OF_OTHER_SCAN
        if measured_segment(self._segmentation) != self._segment_id:
            return WALL_OF_OTHER_SEGMENT
        # An edit of another segment marks the wall as outdated, too.
        update_outdated_mark(self._segmentation)
        return OUTDATED_WALL if is_outdated(self._segmentation) else ""

    def _doubts(self) -> tuple[DoubtfulPlace, ...] | None:
        """Return the doubtful places in the volume's space; None for the places of disagreement of older versions."""
        if not review.places_show_doubt(self._segmentation):
            return None
        places = []
        for place in review.doubtful_places(self._segmentation):
            x, y, z = (self._to_volume @ [*place.position, 1.0])[:3]
            places.append(DoubtfulPlace((float(x), float(y), float(z)), (0, 0, 0), place.volume_ml, 0.0))
        return tuple(places)


def _class_name(segment: Any) -> str:
    """Return the meaning of a segment's type in the terminology, which users do not type themselves."""
    text = vtk.reference("")
    segment.GetTag(segment.GetTerminologyEntryTagName(), text)
    # context ~ category ~ type ~ …, each a scheme ^ value ^ meaning
    parts = str(text.get()).split("~")
    meaning = parts[2].split("^") if len(parts) > 2 else []
    return meaning[2] if len(meaning) > 2 and meaning[2] else str(_("Outlined segment"))
