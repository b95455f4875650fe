"""Write reports of segments that DCAMT, a person or another program made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from ..cases.checks import scan_notes
from ..errors import InputError
from ..geometry import Grid
from ..io.atomic import write_text
from ..metrics.measurements import Measurements, measure_mask
from ..models.package import Card
from ..recipe import ACCURATE
from ..volume import TISSUE, Labelmap, SegmentInfo, Volume
from ..wall.analysis import WallResult
from ..wall.files import read_wall
from ..wall.sampling import nearest_values
from ..worker.arrays import read_doubt_map, read_mask, read_scan
from ..worker.events import ReportWritten
from ..worker.requests import ReportRequest
from .scan_report import ScanReport, render_scan_report

MAXIMUM_SEGMENTS = 255
"""Label values are uint8."""


@dataclass(frozen=True, eq=False)
class ReportedSegment:
    """A segment to report.

    Attributes:
        mask: bool (I, J, K).
        grid: the grid of `mask`, which can differ from the scan's grid.
    """

    name: str
    color: tuple[float, float, float]
    mask: np.ndarray
    grid: Grid

    def measure(self) -> Measurements:
        """Return the measurements on the segment's own grid."""
        return measure_mask(self.mask, self.grid.affine[:3, :3], "", self.name)


def segments_to_labelmap(
    segments: Sequence[ReportedSegment], grid: Grid, scan: str | Path
) -> tuple[Labelmap, list[SegmentInfo]]:
    """Return a labelmap of the segments with values 1, 2, … on a scan's grid, and the segments' names and colours.

    Where segments overlap, the first counts. A segment on another grid is sampled at the centres of the scan's voxels.
    Raises InputError, which names the `scan`, if there are more than `MAXIMUM_SEGMENTS` segments.
    """
    if len(segments) > MAXIMUM_SEGMENTS:
        raise InputError(
            f"a report shows at most {MAXIMUM_SEGMENTS} segments, but {len(segments)} were chosen",
            path=scan,
            remedy="Choose a segmentation with fewer segments.",
        )
    labels = np.zeros(grid.shape, np.uint8)
    for label, segment in enumerate(segments, 1):
        mask = segment.mask if segment.grid.matches(grid) else _mask_on(grid, segment)
        labels[mask & (labels == 0)] = label
    return Labelmap(labels, grid), [
        SegmentInfo(n, segment.name, segment.color, TISSUE) for n, segment in enumerate(segments, 1)
    ]


def write_outline_report(
    volume: Volume,
    segment: ReportedSegment,
    path: Path,
    wall: WallResult | None = None,
    identity: Mapping[str, str] | None = None,
    from_dcamt_file: bool = False,
    notes: Sequence[str] = (),
) -> None:
    """Write the report of a segment; the report names no model.

    Without `identity`, the report states that it holds no name, identifier, date or file path of the patient or scan.
    The caller must then pass a `segment.name` without such data.

    Args:
        identity: texts that identify the patient and the scan, with their titles as keys.
        from_dcamt_file: whether the segment's file is a DCAMT result (`io.writers.is_dcamt_result`).
        notes: see `ScanReport`.

    Raises:
        OutputError: the file cannot be written.
    """
    labelmap, infos = segments_to_labelmap([segment], volume.grid, volume.path or "The volume")
    report = ScanReport(
        volume=volume,
        labelmap=labelmap,
        segments=infos,
        measurements=[segment.measure()],
        from_dcamt_file=from_dcamt_file,
        wall=wall,
        notes=notes,
        identity=identity or {},
    )
    write_text(path, render_scan_report(report))


def write_requested_report(request: ReportRequest) -> ReportWritten:
    """Write the report that a request describes, and return the event that names the file.

    Raises:
        InputError: the request has no segment or more than `MAXIMUM_SEGMENTS`, one of its files cannot be used, or
            `volume.check_scan` refuses the scan.
        OutputError: the report cannot be written.
    """
    if not request.segments:
        remedy = "Choose a segmentation with a segment."
        raise InputError("no segment was chosen for the report", path=request.name, remedy=remedy)
    volume = read_scan(request)
    segments = []
    for color, outline in ((requested.color, requested.outline) for requested in request.segments):
        mask = read_mask(outline)
        segments.append(ReportedSegment(outline.name, color, mask, Grid(mask.shape, outline.affine)))
    labelmap, infos = segments_to_labelmap(segments, volume.grid, request.name)
    card, quality = None, ACCURATE
    if (method := request.method) is not None:
        names = tuple(info.name for info in infos)
        card = Card(method.name, method.title, names, method.modality, method.version, created="", licence="")
        quality = method.quality
    report = ScanReport(
        volume=volume,
        labelmap=labelmap,
        segments=infos,
        measurements=[segment.measure() for segment in segments],
        model=card,
        quality=quality,
        is_corrected=request.is_corrected,
        doubt_map=read_doubt_map(request, volume.grid),
        trust=request.trust,
        doubtful_places=request.doubts,
        expected_overlap=request.expected_overlap,
        is_doubt_calibrated=request.is_doubt_calibrated,
        wall=read_wall(request.wall) if request.wall is not None else None,
        notes=(*scan_notes(volume), *request.notes),
    )
    write_text(request.report, render_scan_report(report))
    return ReportWritten(request.id, request.report)


def _mask_on(grid: Grid, segment: ReportedSegment) -> np.ndarray:
    """Return a segment's mask on a grid, computed plane by plane to save memory."""
    mask = np.zeros(grid.shape, bool)
    corners = np.array(list(product(*((-0.5, size - 0.5) for size in segment.grid.shape))))
    to_scan = np.linalg.inv(grid.affine) @ segment.grid.affine
    index = corners @ to_scan[:3, :3].T + to_scan[:3, 3]
    low = np.maximum(np.floor(index.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, grid.shape)
    if (low >= high).any():
        return mask
    j, k = np.meshgrid(np.arange(low[1], high[1]), np.arange(low[2], high[2]), indexing="ij")
    for i in range(low[0], high[0]):
        places = np.stack([np.full(j.size, i), j.ravel(), k.ravel()], axis=1)
        points = places @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        values = nearest_values(segment.mask, segment.grid, points)
        mask[i, low[1] : high[1], low[2] : high[2]] = values.reshape(j.shape)
    return mask
