"""Serve an application's requests in the worker process: keep a model loaded, report progress, write results."""

from __future__ import annotations

import importlib.util
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from torch.nn.modules.module import register_module_forward_pre_hook

from ..cases.checks import scan_notes, scan_warnings
from ..devices import choose_device
from ..errors import Cancelled, InternalError, MemoryShortage, is_out_of_memory, user_error, write_error
from ..geometry import Grid, bounding_box
from ..inference.predictor import Predictor
from ..io.slabs import write_voxels
from ..metrics.doubtful_places import doubt_levels, doubtful_places
from ..metrics.measurements import measure, measure_mask
from ..models.package import calibration_path
from ..models.store import model_path
from ..networks.packaging import verify_model
from ..recipe import QUALITIES
from ..volume import Labelmap, SegmentInfo, Volume
from ..wall.analysis import analyse_wall
from ..wall.closed_surface import closed_surface
from ..wall.files import write_wall
from ..worker.arrays import read_mask, read_scan
from ..worker.events import (
    RequestFailed,
    ScanSegmented,
    SegmentResult,
    SegmentsMeasured,
    WallMeasured,
    WorkerEvent,
    WorkerNote,
    WorkerProgress,
)
from ..worker.progress import ProgressEstimate
from ..worker.protocol import parse_request, request_id
from ..worker.requests import MeasureRequest, OutlineMethod, ReportRequest, Request, SegmentRequest, WallRequest
from .result_files import file_stamp

TICK_S = 0.2
"""Seconds between two progress events."""
FIRST_TICK_S = 0.02
"""Seconds until the first progress event: short, so that the user sees at once that the work has started."""
PREDICTED = 0.9
"""Fraction of a request that is done once its scan is segmented."""
TRIAL = (48, 48, 48)
"""Size, in voxels of the network grid, of the small volume on which a newly loaded model is timed."""


class Worker:
    """Serves requests one after another with a model that stays loaded, and passes events to `send`.

    The thread that reads stdin serves each `ControlRequest` at once, without this class.

    Args:
        cancelled: identifiers of cancelled requests; another thread may add identifiers.
    """

    def __init__(self, send: Callable[[WorkerEvent], None], cancelled: Collection[str] = ()) -> None:
        self._send = send
        self._cancelled = cancelled
        self._predictor: Predictor | None = None
        self._loaded: object = None
        self._seconds_per_mm3: dict[str, float] = {}

    def serve(self, line: str) -> bool:
        """Serve the request in a JSON line; return False if an internal error occurred and the process should end."""
        request: Request | None = None
        try:
            request = parse_request(line)
            self._stop_if_cancelled(request)
            if isinstance(request, SegmentRequest):
                self._segment(request)
            elif isinstance(request, MeasureRequest):
                self._measure(request)
            elif isinstance(request, WallRequest):
                self._measure_wall(request)
            elif isinstance(request, ReportRequest):
                # Imported here: segmentations do not need reports.
                from ..report.outline_report import write_requested_report

                self._send(write_requested_report(request))
        except Exception as error:
            failure = user_error(error)
            detail = "".join(traceback.format_exception(error))
            identifier = request.id if request else request_id(line)
            self._send(RequestFailed(identifier, failure.reason, str(failure), detail))
            return failure.reason != InternalError.reason
        return True

    def _measure(self, request: MeasureRequest) -> None:
        rows = tuple(
            measure_mask(read_mask(outline), outline.affine[:3, :3], request.name, outline.name)
            for outline in request.outlines
        )
        self._send(SegmentsMeasured(request.id, rows))

    def _measure_wall(self, request: WallRequest) -> None:
        volume = read_scan(request)
        mask = read_mask(request.segment)
        segment = Labelmap(mask.astype(np.uint8), Grid(mask.shape, request.segment.affine), Path(request.segment.name))
        wall = request.output / "wall.npz"
        result = analyse_wall(volume, segment, scan=request.name)
        self._stop_if_cancelled(request)
        for note in scan_notes(volume):
            self._send(WorkerNote(request.id, note))
        write_wall(result, wall)
        self._send(WallMeasured(request.id, wall, result.notes))

    def _segment(self, request: SegmentRequest) -> None:
        began = time.monotonic()
        volume = read_scan(request)
        with self._reporting(request, None) as estimate:
            predictor, notes = self._load(request, estimate)
        for warning in scan_warnings(volume):
            self._note(request, warning, notes)
        size_mm3 = _size_mm3(volume.grid, request)
        started = time.monotonic()
        with self._reporting(request, self._expected_s(request.quality, size_mm3)) as estimate:
            with self._stoppable(request):
                result = predictor.segment(
                    volume,
                    request.quality,
                    request.region,
                    progress=lambda stage, fraction: estimate.report(stage, PREDICTED * fraction, time.monotonic()),
                )
            for note in (*volume.notes, *result.notes):
                self._note(request, note, notes)
            estimate.report("measuring", PREDICTED, time.monotonic())
            classes = predictor.recipe.classes
            measurements = measure(result.labelmap, classes, request.name)
            doubts = [] if result.doubt_map is None else doubtful_places(result.doubt_map, volume.grid)
            self._stop_if_cancelled(request)
            estimate.report("writing", 0.97, time.monotonic())
            labelmap, doubt_map = request.output / "labelmap.npy", None
            write_voxels(result.labelmap.voxels, labelmap)
            if result.doubt_map is not None:
                doubt_map = request.output / "doubt.npy"
                write_voxels(doubt_levels(result.doubt_map), doubt_map)
            segments = tuple(_segment_result(info, result.labelmap, request) for info in classes)
        self._seconds_per_mm3[request.quality] = (time.monotonic() - started) / size_mm3
        card = predictor.card
        self._send(
            ScanSegmented(
                request.id,
                labelmap=labelmap,
                doubt_map=doubt_map,
                trust=result.trust,
                doubts=tuple(doubts),
                measurements=tuple(measurements),
                segments=segments,
                seconds=round(time.monotonic() - began, 3),
                device=str(predictor.device),
                notes=tuple(notes),
                expected_overlap=result.expected_overlap,
                is_doubt_calibrated=result.is_doubt_calibrated,
                method=OutlineMethod(card.name, card.title, card.version, card.modality, request.quality),
            )
        )

    def _stop_if_cancelled(self, request: Request) -> None:
        if request.id in self._cancelled:
            raise Cancelled("Cancelled.")

    @contextmanager
    def _stoppable(self, request: Request) -> Iterator[None]:
        """Stop a cancelled request at the network's next layer, since one pass may take long."""
        hook = register_module_forward_pre_hook(lambda module, inputs: self._stop_if_cancelled(request))
        try:
            yield
        finally:
            hook.remove()

    def _load(self, request: SegmentRequest, estimate: ProgressEstimate) -> tuple[Predictor, list[str]]:
        """Return a predictor of the requested model, and notes for the user."""
        path = model_path(request.model)
        device = choose_device(request.device)
        wanted = (path.resolve(), file_stamp(path), file_stamp(calibration_path(path)), device)
        notes: list[str] = []
        if self._predictor is not None and self._loaded == wanted:
            return self._predictor, notes
        estimate.report("loading", 0.0, time.monotonic())
        # Release the memory of the old model.
        self._predictor, self._loaded = None, None
        package = verify_model(path)
        try:
            self._predictor, self._loaded = Predictor(package, device), wanted
        except Exception as error:
            if device.type == "cpu" or not is_out_of_memory(error):
                raise
            # `_loaded` is None, so that the next request tries the GPU again.
            self._predictor, self._loaded = Predictor(package, "cpu"), None
            self._note(request, "Not enough GPU memory; the CPU was used.", notes)
        self._measure_speed(self._predictor)
        return self._predictor, notes

    def _measure_speed(self, predictor: Predictor) -> None:
        """Measure the model's speed for `_expected_s`, and warm the model up.

        If memory runs out, the speed is unknown.
        """
        self._seconds_per_mm3.clear()
        recipe = predictor.recipe
        grid = Grid(TRIAL, np.diag([*recipe.spacing, 1.0]))
        voxels = np.random.default_rng(0).random((recipe.input_channels, *TRIAL), dtype=np.float32)
        with suppress(MemoryShortage):
            for quality in QUALITIES:
                began = time.monotonic()
                predictor.segment(Volume(voxels, grid), quality)
                self._seconds_per_mm3[quality] = (time.monotonic() - began) / _extent_mm3(grid)

    def _expected_s(self, quality: str, size_mm3: float) -> float | None:
        seconds_per_mm3 = self._seconds_per_mm3.get(quality)
        return None if seconds_per_mm3 is None else seconds_per_mm3 * size_mm3

    def _note(self, request: Request, message: str, notes: list[str]) -> None:
        notes.append(message)
        self._send(WorkerNote(request.id, message))

    @contextmanager
    def _reporting(self, request: Request, expected_s: float | None) -> Iterator[ProgressEstimate]:
        """Send the progress every `TICK_S` while the `with` block runs.

        A thread sends it, since one pass of the network may take long, and the predictor reports nothing during a pass.
        """
        estimate = ProgressEstimate(time.monotonic(), expected_s)
        ended = threading.Event()

        def report() -> None:
            wait = FIRST_TICK_S
            while not ended.wait(wait):
                wait = TICK_S
                if estimate.stage:
                    now = time.monotonic()
                    fraction, left = round(estimate.fraction(now), 3), _round_seconds(estimate.remaining_s(now))
                    self._send(WorkerProgress(request.id, estimate.stage, fraction, left))

        thread = threading.Thread(target=report, daemon=True)
        thread.start()
        try:
            yield estimate
        finally:
            ended.set()
            thread.join()


def _segment_result(info: SegmentInfo, labelmap: Labelmap, request: SegmentRequest) -> SegmentResult:
    """Return the result for a class; write the file of its closed surface if requested and if vtk is installed."""
    mask = labelmap.voxels == info.label
    box = bounding_box(mask)
    if box is None:
        return SegmentResult(info, None)
    surface = None
    if request.surface and importlib.util.find_spec("vtk") is not None:
        i, j, k = box
        points, triangles = closed_surface(mask[i, j, k], labelmap.grid, (i.start, j.start, k.start))
        surface = request.output / f"surface-{info.label}.npz"
        try:
            np.savez(surface, points=points, triangles=triangles)
        except OSError as error:
            raise write_error(error, request.output) from error
    return SegmentResult(info, tuple((axis.start, axis.stop) for axis in box), surface)


def _size_mm3(grid: Grid, request: SegmentRequest) -> float:
    """Return the smaller one of the scan's volume and the region's volume."""
    extent = _extent_mm3(grid)
    if request.region is None:
        return extent
    box = np.subtract(request.region.high, request.region.low)
    return min(extent, float(np.prod(box)))


def _extent_mm3(grid: Grid) -> float:
    return grid.voxel_volume_mm3 * float(np.prod(grid.shape))


def _round_seconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
