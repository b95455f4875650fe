"""Define the requests that an application sends to the worker and the events that the worker sends back.

A request is a line of JSON on the worker's stdin, an event a line of JSON on its stdout. Both processes use the classes
below: `request_line` and `worker_event_line` write lines; `parse_request` and `parse_worker_event` read them and check
keys and types.

The worker answers each request with events of the same `id`: any number of `WorkerProgress` and `WorkerNote`, then
exactly one of `ModelLoaded`, `ScanSegmented`, `SegmentsMeasured`, `WallMeasured`, `ReportWritten` or `RequestFailed`.
It does not answer a `CancelRequest` or a `KeepFilesRequest`. `WorkerReady` is sent once, before all other events.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from ..geometry import Grid, Region
from ..io.json_lines import json_line, plain
from ..io.typed_json import build
from ..machine import AUTO, DEVICES
from ..metrics.doubtful_places import DoubtfulPlace
from ..metrics.measurements import Measurements
from ..models.calibration import ExpectedOverlap
from ..recipe import ACCURATE, QUALITIES
from ..volume import SegmentInfo, Volume, check_scan

VERSION = 4
"""Version of this protocol; a request of another version is refused."""


@dataclass(frozen=True)
class LoadRequest:
    """Load a model before the first scan. `device` is one of `DEVICES`."""

    kind: ClassVar[str] = "load"
    model: str
    device: str = AUTO
    id: str = ""


@dataclass(frozen=True)
class SegmentRequest:
    """Segment one scan.

    Attributes:
        name: the scan's name for the user.
        volume: a `.npy` file, (K, J, I) or (K, J, I, C).
        affine: (4, 4), voxel index (i, j, k) -> RAS mm.
        output: an existing folder for the results.
        region: None for the whole scan.
        surface: whether to compute the closed surface of each class.
    """

    kind: ClassVar[str] = "segment"
    model: str
    volume: Path
    affine: np.ndarray
    output: Path
    name: str = "The volume"
    quality: str = ACCURATE
    device: str = AUTO
    region: Region | None = None
    surface: bool = False
    id: str = ""


@dataclass(frozen=True)
class SegmentMask:
    """A segment to measure: its name, a `.npy` mask (K, J, I), not 0 inside, and its affine, voxel index -> RAS mm."""

    name: str
    mask: Path
    affine: np.ndarray


@dataclass(frozen=True)
class MeasureRequest:
    """Measure segments; `name` is the name, for the user, of the scan on which they were drawn."""

    kind: ClassVar[str] = "measure"
    outlines: tuple[SegmentMask, ...]
    name: str = "The volume"
    id: str = ""


@dataclass(frozen=True)
class WallRequest:
    """Measure late enhancement on the surface of a segment of a scan.

    Attributes:
        volume, affine, name: as in `SegmentRequest`.
        segment: the segment; its mask may lie on another grid in the same patient.
        output: an existing folder for the result.
    """

    kind: ClassVar[str] = "wall"
    volume: Path
    affine: np.ndarray
    segment: SegmentMask
    output: Path
    name: str = "The volume"
    id: str = ""


@dataclass(frozen=True)
class ReportSegment:
    """A segment for a report, and its colour (red, green, blue, each 0 to 1)."""

    outline: SegmentMask
    color: tuple[float, float, float]


@dataclass(frozen=True)
class OutlineMethod:
    """The model that made an outline, with the fields of its card, which are empty if unknown, and the quality."""

    name: str
    title: str
    version: str
    modality: str
    quality: str


@dataclass(frozen=True)
class ReportRequest:
    """Write the one-page report of a scan and its segments.

    Attributes:
        volume, affine: as in `SegmentRequest`.
        segments: the report lists all measurements of the first one.
        report: the `.html` file to write.
        method: None if no model is known to have made the outlines.
        is_corrected: whether a person has edited the model's outlines.
        doubt_map: a `.npy` file of uint8 percent (K, J, I); shown if it is on the scan's grid.
        doubt_map_affine: (4, 4), the map's voxel index (i, j, k) -> RAS mm in the scan's space.
        trust, expected_overlap: as in `ScanSegmented`.
        doubts: doubtful places, the worst first; None if they are unknown.
        wall: a file for `wall.files.read_wall`.
        notes: messages for the reader, without anything that identifies the patient.
    """

    kind: ClassVar[str] = "report"
    volume: Path
    affine: np.ndarray
    segments: tuple[ReportSegment, ...]
    report: Path
    name: str = "The volume"
    method: OutlineMethod | None = None
    is_corrected: bool = False
    doubt_map: Path | None = None
    doubt_map_affine: np.ndarray | None = None
    trust: float | None = None
    doubts: tuple[DoubtfulPlace, ...] | None = ()
    expected_overlap: ExpectedOverlap | None = None
    wall: Path | None = None
    notes: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True)
class CancelRequest:
    """Stop the request with this `id`, which then fails with the reason "cancelled"; the model stays loaded."""

    kind: ClassVar[str] = "cancel"
    id: str = ""


@dataclass(frozen=True)
class KeepFilesRequest:
    """Keep the folder of `--remove-at-end`, since the application continues with another worker."""

    kind: ClassVar[str] = "keep_files"
    id: str = ""


ControlRequest = CancelRequest | KeepFilesRequest
Request = LoadRequest | SegmentRequest | MeasureRequest | WallRequest | ReportRequest | ControlRequest


@dataclass(frozen=True)
class WorkerReady:
    """The worker is ready, with `version` of DCAMT and the versions of its `packages` by name."""

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
    """A message for the user, such as that the GPU had too little memory."""

    kind: ClassVar[str] = "note"
    id: str
    message: str


@dataclass(frozen=True)
class ModelLoaded:
    """The model of a `LoadRequest` is ready on `device`."""

    kind: ClassVar[str] = "loaded"
    id: str
    device: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SegmentResult:
    """The result for a class of the model.

    Attributes:
        box: (start, stop) along i, j and k of the voxels it fills; None if it is empty.
        surface: a `.npz` file with its closed surface, `points` (N, 3) in RAS mm and `triangles` (M, 3); None if it was
            not computed.
    """

    info: SegmentInfo
    box: tuple[tuple[int, ...], ...] | None
    surface: Path | None = None


@dataclass(frozen=True)
class ScanSegmented:
    """The result of a `SegmentRequest`.

    Attributes:
        labelmap, doubt_map: `.npy` files of uint8 (K, J, I); the map from 0 (the label is right) to 255 (it is wrong).
        trust: Dice between the branches' own segmentations. Both doubt_map and trust are None in fast quality.
        doubts: doubtful places, the worst first.
        expected_overlap: expected Dice with an expert's outline; None if the model has no calibration.
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


@dataclass(frozen=True)
class SegmentsMeasured:
    """The result of a `MeasureRequest`: measurements of each segment, in the order of the request."""

    kind: ClassVar[str] = "measured"
    id: str
    measurements: tuple[Measurements, ...]


@dataclass(frozen=True)
class WallMeasured:
    """The result of a `WallRequest`; `wall` is a `.npz` file for `wall.files.read_wall`."""

    kind: ClassVar[str] = "wall_measured"
    id: str
    wall: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportWritten:
    """The report of a `ReportRequest` is in its file."""

    kind: ClassVar[str] = "report_written"
    id: str
    report: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RequestFailed:
    """The failure of a request or, with `id` None, of the worker.

    Attributes:
        reason: as in `errors.DCAMTError`, or "ended" if the worker's process ended.
        message: one line for the user.
        detail: the traceback.
        packages: names of missing Python packages.
    """

    kind: ClassVar[str] = "failed"
    id: str | None
    reason: str
    message: str
    detail: str = ""
    packages: tuple[str, ...] = ()


Answer = ModelLoaded | ScanSegmented | SegmentsMeasured | WallMeasured | ReportWritten | RequestFailed
WorkerEvent = WorkerReady | WorkerProgress | WorkerNote | Answer
_REQUESTS: dict[str, type] = {
    request.kind: request
    for request in (
        *(LoadRequest, SegmentRequest, MeasureRequest, WallRequest, ReportRequest),
        *(CancelRequest, KeepFilesRequest),
    )
}
_EVENTS: dict[str, type] = {
    event.kind: event
    for event in (
        *(WorkerReady, WorkerProgress, WorkerNote, ModelLoaded, ScanSegmented, SegmentsMeasured, WallMeasured),
        *(ReportWritten, RequestFailed),
    )
}


def request_line(request: Request) -> str:
    """Return a request as a line of JSON.

    >>> request_line(LoadRequest("left-atrium", id="1"))
    '{"request": "load", "protocol": 4, "model": "left-atrium", "device": "auto", "id": "1"}'
    """
    return json.dumps({"request": request.kind, "protocol": VERSION, **_fields(request)}, allow_nan=False)


def worker_event_line(event: WorkerEvent) -> str:
    """Return an event as a line of JSON."""
    return json_line(event.kind, _fields(event))


def parse_request(line: str) -> Request:
    """Return the request of a line.

    Raises:
        InputError: the line is not a request of this protocol, or a key is missing, unknown or of the wrong type.
    """
    try:
        data = json.loads(line)
        kind, version = data.pop("request"), data.pop("protocol")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"the request cannot be read ({type(error).__name__}: {error})") from error
    if version != VERSION:
        raise InputError(f"the request is of protocol {version}; this worker reads {VERSION}", remedy="Restart Slicer.")
    if kind not in _REQUESTS:
        raise InputError(f"the request '{kind}' is unknown")
    request: Request = build(_REQUESTS[kind], data, None, "request")
    if isinstance(request, SegmentRequest):
        _check_choice("quality", request.quality, QUALITIES)
        _check_affine(request.affine)
        if request.region is not None:  # `Region.parse` checks the region and orders its corners.
            corners = zip(request.region.low, request.region.high, strict=True)
            region = Region.parse(",".join(repr(number) for pair in corners for number in pair))
            request = dataclasses.replace(request, region=dataclasses.replace(region, to_unit=request.region.to_unit))
    if isinstance(request, MeasureRequest):
        for outline in request.outlines:
            _check_affine(outline.affine)
    elif isinstance(request, WallRequest):
        _check_affine(request.affine)
        _check_affine(request.segment.affine)
    elif isinstance(request, ReportRequest):
        _check_affine(request.affine)
        if request.doubt_map_affine is not None:
            _check_affine(request.doubt_map_affine)
        for segment in request.segments:
            _check_affine(segment.outline.affine)
    elif not isinstance(request, ControlRequest):
        _check_choice("device", request.device, DEVICES)
    return request


def parse_worker_event(data: Mapping[str, Any]) -> WorkerEvent:
    """Return the event of a parsed line of JSON.

    Raises:
        InputError: the line is not an event of this protocol, or a key is missing, unknown or of the wrong type.
    """
    fields = dict(data)
    kind = fields.pop("event", None)
    if kind not in _EVENTS:
        raise InputError(f"the event '{kind}' is unknown")
    if kind == SegmentsMeasured.kind or kind == ScanSegmented.kind:
        # JSON has no NaN, which is the sphericity of an empty segment; null stands for it.
        rows = fields.get("measurements") or ()
        fields["measurements"] = [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]
    event: WorkerEvent = build(_EVENTS[kind], fields, None, "event")
    return event


def parse_control(line: str) -> ControlRequest | None:
    """Return the request of a line that takes effect at once; None if the line is another request or none."""
    if not any(f'"{kind}"' in line for kind in (CancelRequest.kind, KeepFilesRequest.kind)):
        return None
    try:
        request = parse_request(line)
    except InputError:
        return None
    return request if isinstance(request, ControlRequest) else None


def request_id(line: str) -> str | None:
    """Return the `id` in a line that cannot be parsed as a request; None if it has no `id`."""
    try:
        return str(json.loads(line)["id"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def read_scan(request: SegmentRequest | WallRequest | ReportRequest) -> Volume:
    """Return the scan of a request, (C, I, J, K), memory-mapped; errors name the scan by its name for the user.

    Raises:
        InputError: the file cannot be read, or its content cannot be segmented.
    """
    name = Path(request.name)
    stored = _load(request.volume, name)
    if stored.ndim == 3:
        stored = stored[..., None]
    if stored.ndim != 4:
        raise InputError(f"has {stored.ndim} axes", path=name, remedy="A three-dimensional scan is needed.")
    voxels = stored.transpose(3, 2, 1, 0)
    volume = Volume(voxels, Grid(voxels.shape[1:], request.affine), name)
    check_scan(volume)
    return volume


def read_mask(outline: SegmentMask) -> np.ndarray:
    """Return the mask of a segment, bool (I, J, K). Raises InputError if the file cannot be read."""
    return np.asarray(_load(outline.mask, outline.name).transpose() != 0)


def _load(file: Path, name: str | Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"could not be passed to the worker ({error})", path=name, remedy="Try again.") from error
    return array


def _fields(message: Any) -> dict[str, Any]:
    """Return the fields of a request or event by name, converted to JSON types."""

    def convert(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: convert(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, (list, tuple)):
            return [convert(item) for item in value]
        if isinstance(value, np.ndarray):
            return value.tolist()
        return str(value) if isinstance(value, Path) else plain(value)

    fields: dict[str, Any] = convert(message)
    return fields


def _check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"the {what} '{value}' is unknown", remedy=f"Choose one of: {', '.join(known)}.")


def _check_affine(affine: np.ndarray) -> None:
    if affine.shape != (4, 4):
        raise InputError(f"the affine must hold 4 x 4 numbers, not {' x '.join(map(str, affine.shape))}")
