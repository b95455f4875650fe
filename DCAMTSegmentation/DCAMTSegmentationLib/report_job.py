"""Write the one-page report of a scan and its segments, in the worker."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from dcamt.geometry import CUT_BY_REGION
from dcamt.io.slabs import write_npy_in_slabs
from dcamt.metrics.doubtful_places import DoubtfulPlace
from dcamt.wall.files import write_wall
from dcamt.worker.events import ReportWritten
from dcamt.worker.requests import ReportRequest, ReportSegment, SegmentMask
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.result_segments import find_dcamt_segments, terminology_type
from DCAMTSlicerLib.segment_voxels import read_segment
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, pad_to_volume_grid, transform_between, voxels_of
from slicer.i18n import tr as _

from . import correction_marks, result_scan, review, stored_places
from .doubt_map import doubt_map_of, is_map_elsewhere, shows_doubt
from .volume_snapshot import voxel_checksum, write_snapshots
from .wall_nodes import (
    is_scan_changed,
    is_surface_elsewhere,
    is_wall_outdated,
    measured_segment,
    measured_volume,
    update_outdated_mark,
    wall_in_scene,
)
from .worker_job import JobOutcome, SegmentJob
from .worker_process import SegmentationWorker

# These texts of the report are not translated, because the report is in English.
OUTLINED_SEGMENT = "Outlined segment"
RESULT_OF_OTHER_VOXELS = (
    "The model segmented another scan or an earlier version of this scan."
    " Expected overlap, agreement of the branches and doubt were left out."
)
WALL_OF_OTHER_VOXELS = "The wall was measured in an earlier version of the scan and was left out."
UNKNOWN_REGION = "Only a region of the scan was segmented."
MOVED_OUTLINE = "Outline or scan was moved after the model made the outline."
MOVED_MAP = "The map of doubt does not lie on the scan and was left out."
OUTDATED_WALL = "The wall was measured on an earlier outline and was left out."
WALL_OF_OTHER_SCAN = "The wall was measured in another scan and was left out."
WALL_OF_OTHER_SEGMENT = "The wall was measured on another segment and was left out."
MOVED_WALL = "The measured wall does not lie on the outline and was left out."


class ReportJob(SegmentJob):
    """Sends a volume, segments and their review data to the worker, which writes the report.

    If `segment_id` is a DCAMT segment, the report also shows all other DCAMT segments. The report contains no name from
    the scene, since such a name may identify the patient.
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
        for _fraction in write_snapshots([self._snapshot], scan):
            yield None
        dcamt_segment_ids = list(find_dcamt_segments(self._segmentation))
        is_dcamt_segment = self._segment_id in dcamt_segment_ids
        others = [identifier for identifier in dcamt_segment_ids if identifier != self._segment_id]
        segments: list[ReportSegment] = []
        for index, identifier in enumerate([self._segment_id, *(others if is_dcamt_segment else ())]):
            segments.append((yield from self._write_segment(identifier, index, is_dcamt_segment)))
        # The user may have edited a segment while another one was written.
        is_corrected = correction_marks.update_correction_marks(self._segmentation)
        wall, notes = self._write_wall()
        if is_dcamt_segment and review.region_name(self._segmentation) is not None:
            region = review.region_of(self._segmentation)
            cut = (CUT_BY_REGION,) if review.is_cut_by_region(self._segmentation) else ()
            notes = (region.note if region is not None else UNKNOWN_REGION, *cut, *notes)
        review_data: dict[str, Any] = {}
        if is_dcamt_segment and result_scan.is_of_other_scan(self._segmentation, self._volume, self._checksum_of):
            review_data = {"method": review.outline_method(self._segmentation)}
            notes = (RESULT_OF_OTHER_VOXELS, *notes)
        elif is_dcamt_segment:
            review_data = yield from self._review_data()
            if is_map_elsewhere(self._segmentation):
                notes = (MOVED_MAP, *notes)
            if correction_marks.is_moved(self._segmentation):
                notes = (MOVED_OUTLINE, *notes)
        yield None
        yield ReportRequest(
            scan,
            self._snapshot.affine,
            tuple(segments),
            self._report,
            name=self._volume.GetName(),  # for error messages, not for the report
            is_corrected=is_corrected,
            wall=wall,
            notes=notes,
            **review_data,
        )

    def _checksum_of(self, volume: VolumeNode) -> int:
        # The report shows the snapshot; the volume may have been changed since.
        return self._snapshot.checksum if volume is self._volume else voxel_checksum(volume)

    def _review_data(self) -> Generator[None, None, dict[str, Any]]:
        doubt_map, doubt_map_affine = yield from self._write_doubt_map()
        return {
            "method": review.outline_method(self._segmentation),
            "doubt_map": doubt_map,
            "doubt_map_affine": doubt_map_affine,
            "trust": review.trust(self._segmentation),
            "doubts": self._doubts(),
            "expected_overlap": review.expected_overlap(self._segmentation),
            "is_doubt_calibrated": review.is_doubt_calibrated(self._segmentation),
        }

    def _write_segment(
        self, identifier: str, index: int, is_dcamt_segment: bool
    ) -> Generator[None, None, ReportSegment]:
        voxels = read_segment(self._segmentation, identifier)
        segment = self._segmentation.GetSegmentation().GetSegment(identifier)
        name = (terminology_type(segment).meaning if is_dcamt_segment else "") or OUTLINED_SEGMENT
        color = tuple(segment.GetColor())
        mask, affine = pad_to_volume_grid(voxels.mask, self._to_volume @ voxels.affine, self._snapshot.grid)
        yield
        file = self.folder / f"segment-{index}.npy"
        for _slab in write_npy_in_slabs(mask, file):
            yield
        return ReportSegment(SegmentMask(name, file, affine), color)

    def _write_doubt_map(self) -> Generator[None, None, tuple[Path | None, np.ndarray | None]]:
        """Write the map of doubt, step by step; return its file and affine, or (None, None) if there is no map.

        The affine (4, 4) leads from the map's voxel index (i, j, k) to mm in the volume's space.
        """
        map_node = doubt_map_of(self._segmentation)
        if map_node is None or not shows_doubt(map_node):
            return None, None
        file = self.folder / "doubt.npy"
        affine = transform_between(map_node, self._volume) @ ijk_to_ras(map_node)
        for _slab in write_npy_in_slabs(voxels_of(map_node), file):
            yield
        return file, affine

    def _write_wall(self) -> tuple[Path | None, tuple[str, ...]]:
        """Write the measured wall if it belongs in the report; return its file, and notes for the report."""
        wall = wall_in_scene(self._segmentation)
        if wall is None:
            return None, ()
        reason = self._reason_against_wall()
        if reason:
            return None, (reason,)
        file = self.folder / "wall.npz"
        write_wall(wall, file)
        return file, ()

    def take_answer(self, event: ReportWritten) -> Iterator[JobOutcome | None]:
        yield JobOutcome(self._segmentation, _("The report was written to {file}.").format(file=self._report))

    def _reason_against_wall(self) -> str:
        if measured_volume(self._segmentation) is not self._volume:
            return WALL_OF_OTHER_SCAN
        if measured_segment(self._segmentation) != self._segment_id:
            return WALL_OF_OTHER_SEGMENT
        if is_scan_changed(self._segmentation, self._checksum_of):
            return WALL_OF_OTHER_VOXELS
        update_outdated_mark(self._segmentation)
        if is_wall_outdated(self._segmentation):
            return OUTDATED_WALL
        return MOVED_WALL if is_surface_elsewhere(self._segmentation) else ""

    def _doubts(self) -> tuple[DoubtfulPlace, ...] | None:
        """Return the doubtful places in the volume's space; None if an older version of DCAMT stored the places."""
        if not stored_places.places_show_doubt(self._segmentation):
            return None
        places = []
        for place in stored_places.doubtful_places(self._segmentation):
            x, y, z = (self._to_volume @ [*place.position, 1.0])[:3]
            places.append(DoubtfulPlace((float(x), float(y), float(z)), (0, 0, 0), place.volume_ml, 0.0))
        return tuple(places)
