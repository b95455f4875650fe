"""Serving the worker's requests: models that stay loaded, progress while the network computes, results on disk."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..devices import choose_device
from ..errors import OutputError, is_out_of_memory
from ..geometry import Grid, bounding_box
from ..io.atomic import DISK_FULL
from ..metrics.measurements import measure, measure_mask
from ..models.store import model_path
from ..networks.packaging import verify_model
from ..recipe import QUALITIES
from ..volume import Volume
from ..worker.failures import fault
from ..worker.progress import Pace
from ..worker.protocol import (
    LoadRequest,
    MeasureRequest,
    Request,
    SegmentRequest,
    identifier_of,
    read_mask,
    read_request,
    read_scan,
)
from .agreement import disagreement_levels, doubtful_places
from .predictor import Predictor

TICK_S = 0.2
"""Between two tellings of the progress."""
FIRST_TICK_S = 0.02
"""Before the first, so that a person who has pressed the button sees at once that something happens."""
PREDICTED = 0.9
"""Share of a request that is done once its scan is segmented; the rest is measuring and writing."""
TRIAL = (48, 48, 48)
"""Voxels of the network's grid on which a freshly loaded model is timed; a scan has some million."""

Tell = Callable[..., None]
"""Called with an event's name and its fields."""


class Worker:
    """Serves one request after another with a model that stays loaded; what happens goes to `tell`."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._predictor: Predictor | None = None
        self._loaded: object = None
        self._seconds_per_mm3: dict[str, float] = {}

    def serve(self, line: str) -> bool:
        """Carry out the request on a line; False if the worker cannot be relied on any more."""
        request: Request | None = None
        try:
            request = read_request(line)
            if isinstance(request, SegmentRequest):
                self._segment(request)
            elif isinstance(request, MeasureRequest):
                self._measure(request)
            else:
                with self._telling(request, None) as pace:
                    predictor, notes = self._load(request, pace)
                self._tell("finished", id=request.id, device=str(predictor.device), notes=notes)
        except Exception as error:
            reason, message = fault(error)
            detail = "".join(traceback.format_exception(error))
            identifier = request.id if request else identifier_of(line)
            self._tell("failed", id=identifier, reason=reason, message=message, detail=detail)
            return reason != "internal"
        return True

    def _measure(self, request: MeasureRequest) -> None:
        rows = [
            measure_mask(read_mask(outline), outline.affine[:3, :3], request.name, outline.name)
            for outline in request.outlines
        ]
        self._tell("finished", id=request.id, measurements=[asdict(row) for row in rows], notes=[])

    def _segment(self, request: SegmentRequest) -> None:
        began = time.monotonic()
        volume = read_scan(request)
        with self._telling(request, None) as pace:
            predictor, notes = self._load(request, pace)
        size_mm3 = _size_mm3(volume.grid, request)
        started = time.monotonic()
        with self._telling(request, self._expected_s(request.quality, size_mm3)) as pace:
            result = predictor.segment(
                volume,
                request.quality,
                request.region,
                progress=lambda stage, share: pace.tell(stage, PREDICTED * share, time.monotonic()),
            )
            for note in result.notes:
                self._note(request, note, notes)
            pace.tell("measuring", PREDICTED, time.monotonic())
            classes = predictor.recipe.classes
            measurements = measure(result.labelmap, classes, request.name)
            disagreement, doubts = None, []
            if result.agreement is not None:
                levels = disagreement_levels(result.agreement)
                doubts = doubtful_places(1 - result.agreement, volume.grid)
                disagreement = request.output / "disagreement.npy"
            pace.tell("writing", 0.97, time.monotonic())
            labelmap = request.output / "labelmap.npy"
            write_array(labelmap, result.labelmap.voxels)
            if disagreement is not None:
                write_array(disagreement, levels)
        self._seconds_per_mm3[request.quality] = (time.monotonic() - started) / size_mm3
        self._tell(
            "finished",
            id=request.id,
            labelmap=str(labelmap),
            disagreement=str(disagreement) if disagreement else None,
            trust=result.trust,
            doubts=[asdict(place) for place in doubts],
            measurements=[asdict(row) for row in measurements],
            segments=[asdict(info) | {"box": _box(result.labelmap.voxels == info.label)} for info in classes],
            notes=notes,
            seconds=round(time.monotonic() - began, 3),
            device=str(predictor.device),
        )

    def _load(self, request: LoadRequest | SegmentRequest, pace: Pace) -> tuple[Predictor, list[str]]:
        """The model on its device, from before if it is the same file; what the person should know of it."""
        path = model_path(request.model)
        device = choose_device(request.device)
        file = path.stat()
        wanted = (path.resolve(), file.st_mtime_ns, file.st_size, device)
        notes: list[str] = []
        if self._predictor is not None and self._loaded == wanted:
            return self._predictor, notes
        pace.tell("loading", 0.0, time.monotonic())
        # Its memory serves the next one.
        self._predictor, self._loaded = None, None
        package = verify_model(path)
        try:
            self._predictor, self._loaded = Predictor(package, device), wanted
            self._time(self._predictor)
        except Exception as error:
            if device.type == "cpu" or not is_out_of_memory(error):
                raise
            # Not remembered as what was wanted: by the next request the GPU may have room.
            self._predictor, self._loaded = Predictor(package, "cpu"), None
            self._note(request, "The GPU's memory did not suffice; the CPU was used.", notes)
            self._time(self._predictor)
        return self._predictor, notes

    def _time(self, predictor: Predictor) -> None:
        """Learn how fast a model is, for the first scan's remaining time; that also warms it up."""
        recipe = predictor.recipe
        grid = Grid(TRIAL, np.diag([*recipe.spacing, 1.0]))
        voxels = np.random.default_rng(0).random((recipe.input_channels, *TRIAL), dtype=np.float32)
        for quality in QUALITIES:
            began = time.monotonic()
            predictor.segment(Volume(voxels, grid), quality)
            self._seconds_per_mm3[quality] = (time.monotonic() - began) / _extent_mm3(grid)

    def _expected_s(self, quality: str, size_mm3: float) -> float | None:
        speed = self._seconds_per_mm3.get(quality)
        return None if speed is None else speed * size_mm3

    def _note(self, request: Request, message: str, notes: list[str]) -> None:
        notes.append(message)
        self._tell("note", id=request.id, message=message)

    @contextmanager
    def _telling(self, request: Request, expected_s: float | None) -> Iterator[Pace]:
        """Tell of the progress every `TICK_S` while the block works, from a thread, for a pass may take long."""
        pace = Pace(time.monotonic(), expected_s)
        ended = threading.Event()

        def tell() -> None:
            wait = FIRST_TICK_S
            while not ended.wait(wait):
                wait = TICK_S
                if pace.stage:
                    now = time.monotonic()
                    self._tell(
                        "progress",
                        id=request.id,
                        stage=pace.stage,
                        share=round(pace.share(now), 3),
                        eta_s=_rounded(pace.remaining_s(now)),
                    )

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            yield pace
        finally:
            ended.set()
            thread.join()


def write_array(path: Path, voxels: np.ndarray) -> None:
    """Write voxels (I, J, K) as an application has them, (K, J, I), to a `.npy` file.

    Raises:
        OutputError: they cannot be written.
    """
    stored = np.ascontiguousarray(voxels.transpose(2, 1, 0))
    try:
        # Not numpy's own way to write: on a full disk it does not say what is wrong.
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": stored.dtype.str, "fortran_order": False, "shape": stored.shape}
            )
            file.write(stored.data)
    except OSError as error:
        if error.errno in DISK_FULL:
            what, remedy = "The disk is full, the result could not be written", "Free some space and try again."
        else:
            what, remedy = f"The result could not be written ({error.strerror})", "Try again."
        raise OutputError(f"{what}: {path.parent}. {remedy}") from error


def _box(mask: np.ndarray) -> list[tuple[int, int]] | None:
    """First and last + 1 along each axis of what is set; None if nothing is."""
    box = bounding_box(mask)
    return None if box is None else [(axis.start, axis.stop) for axis in box]


def _size_mm3(grid: Grid, request: SegmentRequest) -> float:
    """How much of the patient is looked at."""
    extent = _extent_mm3(grid)
    if request.region is None:
        return extent
    box = np.subtract(request.region.high, request.region.low)
    return min(extent, float(np.prod(box)))


def _extent_mm3(grid: Grid) -> float:
    return grid.voxel_volume_mm3 * float(np.prod(grid.shape))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
