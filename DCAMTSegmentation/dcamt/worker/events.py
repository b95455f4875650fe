"""Define the events that the worker process sends to its application (see `protocol`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..metrics.doubtful_places import DoubtfulPlace
from ..metrics.measurements import Measurements
from ..models.calibration import ExpectedOverlap
from ..volume import SegmentInfo
from .requests import VERSION, OutlineMethod


@dataclass(frozen=True)
class WorkerReady:
    """The worker is ready.

    Attributes:
        version: DCAMT's version.
        packages: versions of the worker's Python packages, by name.
    """

    kind: ClassVar[str] = "ready"
    version: str
    packages: dict[str, str]
    protocol: int = VERSION


@dataclass(frozen=True)
class WorkerProgress:
    """Progress of a request: its stage, the fraction done (0 to 1), and the estimated seconds left, None if unknown."""

    kind: ClassVar[str] = "progress"
    id: str
    stage: str
    fraction: float
    eta_s: float | None = None


@dataclass(frozen=True)
class WorkerNote:
    """A message for the user."""

    kind: ClassVar[str] = "note"
    id: str
    message: str


@dataclass(frozen=True)
class SegmentResult:
    """The result for a class of the model.

    Attributes:
        box: the ranges (start, stop) of the class's voxels along i, j and k; None if the class has no voxels.
        surface: a `.npz` file of the class's closed surface: `points` (N, 3) in RAS mm and `triangles` (M, 3); None if
            the surface was not computed.
    """

    info: SegmentInfo
    box: tuple[tuple[int, ...], ...] | None
    surface: Path | None = None


@dataclass(frozen=True)
class ScanSegmented:
    """The result of a `SegmentRequest`.

    Attributes:
        labelmap, doubt_map: `.npy` files of uint8 (K, J, I); in doubt_map, 255 is a doubt of 100%.
        trust: Dice between the separate segmentations by the network's two branches. In fast quality, doubt_map and
            trust are None.
        doubts: doubtful places, the worst first; empty in fast quality.
        expected_overlap: expected Dice with an expert's outline; None if the model is not calibrated for the request's
            quality, or if the segmentation touches a face of the request's region (`geometry.CUT_BY_REGION`).
        is_doubt_calibrated: whether the model's calibration scaled doubt_map.
        seconds: time of the whole request, including the loading of the model.
    """

    kind: ClassVar[str] = "segmented"
    id: str
    labelmap: Path
    doubt_map: Path | None
    trust: float | None
    doubts: tuple[DoubtfulPlace, ...]
    measurements: tuple[Measurements, ...]
    segments: tuple[SegmentResult, ...]
    seconds: float
    device: str
    notes: tuple[str, ...] = ()
    expected_overlap: ExpectedOverlap | None = None
    is_doubt_calibrated: bool = False
    method: OutlineMethod | None = None


@dataclass(frozen=True)
class SegmentsMeasured:
    """The result of a `MeasureRequest`: measurements of each segment, in the order of the request."""

    kind: ClassVar[str] = "measured"
    id: str
    measurements: tuple[Measurements, ...]


@dataclass(frozen=True)
class WallMeasured:
    """The result of a `WallRequest`; `wall` is a `.npz` file that `wall.files.read_wall` reads."""

    kind: ClassVar[str] = "wall_measured"
    id: str
    wall: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportWritten:
    """The result of a `ReportRequest`: `report` is the written file."""

    kind: ClassVar[str] = "report_written"
    id: str
    report: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RequestFailed:
    """A request or the worker failed. `id` is None if the worker failed, or if the JSON of the request had no `id`.

    Attributes:
        reason: as in `errors.DCAMTError`, or "ended" if the worker's process did not start, ended unexpectedly, or sent
            an event that cannot be parsed.
        message: one line for the user.
        detail: the traceback, or the ended process's output; may be empty.
        packages: names of the Python packages that are missing or cannot be loaded.
    """

    kind: ClassVar[str] = "failed"
    id: str | None
    reason: str
    message: str
    detail: str = ""
    packages: tuple[str, ...] = ()


Answer = ScanSegmented | SegmentsMeasured | WallMeasured | ReportWritten | RequestFailed
WorkerEvent = WorkerReady | WorkerProgress | WorkerNote | Answer
