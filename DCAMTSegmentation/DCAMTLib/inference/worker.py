"""The process that segments for an application: a request a line on stdin, an event a line on stdout, both JSON.

It keeps the model loaded from one request to the next. To cancel, the application kills it; it ends by itself as soon
as stdin closes, were it in the midst of a scan, so that it never outlives an application that crashed.

Requests are those of `requests.py`. Events, each with the request's `id`:

- `ready` (no id) once everything is imported; `packages` holds their versions.
- `progress`: `stage`, `share` (0 to 1 of the request), `eta_s` (null if not known), several times a second.
- `note`: a `message` for the person, such as that the GPU's memory did not suffice.
- `finished`: `labelmap` and `agreement` (files of uint8 (K, J, I); the latter null in fast quality), `trust`,
  `doubts`, `measurements`, `segments`, `notes`, `seconds`, `device`. Places are in RAS mm.
- `failed`: `reason` (`input`, `memory`, `disk`, `missing_package` or `internal`), `message` for the person, `detail`.
  After `internal` the process ends with status 1, for its state can no longer be relied on; after `missing_package` at
  the start, with 3.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .. import __version__
from ..devices import choose_device
from ..errors import InputError, OutputError, is_out_of_memory
from ..files import DISK_FULL
from ..json_lines import json_line
from ..measurements import measure
from ..model_store import model_path, verify_model
from ..volume import Grid, Volume
from .agreement import disagreement_levels, doubtful_places
from .pace import Pace
from .quality import QUALITIES
from .requests import Request, SegmentRequest, read_request, read_scan

if TYPE_CHECKING:
    from .predictor import Predictor

PACKAGES = ("torch", "scipy")
MISSING_PACKAGE = 3
"""Exit status where a package is missing."""
TICK_S = 0.2
"""Between two tellings of the progress."""
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
            else:
                with self._telling(request, None) as pace:
                    predictor, notes = self._load(request, pace)
                self._tell("finished", id=request.id, device=str(predictor.device), notes=notes)
        except Exception as error:
            reason, message = fault(error)
            detail = "".join(traceback.format_exception(error))
            self._tell("failed", id=request.id if request else None, reason=reason, message=message, detail=detail)
            return reason != "internal"
        return True

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
            agreement, doubts = None, []
            if result.agreement is not None:
                levels = disagreement_levels(result.agreement)
                doubts = doubtful_places(1 - result.agreement, volume.grid)
                agreement = request.output / "agreement.npy"
            pace.tell("writing", 0.97, time.monotonic())
            labelmap = request.output / "labelmap.npy"
            write_array(labelmap, result.labelmap.voxels)
            if agreement is not None:
                write_array(agreement, levels)
        self._seconds_per_mm3[request.quality] = (time.monotonic() - started) / size_mm3
        self._tell(
            "finished",
            id=request.id,
            labelmap=str(labelmap),
            agreement=str(agreement) if agreement else None,
            trust=result.trust,
            doubts=[asdict(place) for place in doubts],
            measurements=[asdict(row) for row in measurements],
            segments=[asdict(info) for info in classes],
            notes=notes,
            seconds=round(time.monotonic() - began, 3),
            device=str(predictor.device),
        )

    def _load(self, request: Request, pace: Pace) -> tuple[Predictor, list[str]]:
        """The model on its device, from before if it is the same file; what the person should know of it."""
        from .predictor import Predictor

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
            while not ended.wait(TICK_S):
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


def fault(error: Exception) -> tuple[str, str]:
    """Why a request failed, in one word and in one line for the person."""
    if isinstance(error, InputError):
        return "input", str(error)
    if isinstance(error, OutputError):
        return "disk", str(error)
    if is_out_of_memory(error):
        remedy = "Close other programs, or give a region of interest."
        return "memory", f"The computer's memory did not suffice for this scan. {remedy}"
    if isinstance(error, ModuleNotFoundError):
        return "missing_package", missing([str(error.name)])
    text = " ".join(str(error).split())[:200]
    what = type(error).__name__ + (f": {text}" if text else "")
    return "internal", f"An unexpected fault ended the segmentation ({what}). The log says more; please report it."


def missing(packages: Sequence[str]) -> str:
    """What a person is told of packages that are not installed."""
    return f"Python packages are missing: {', '.join(packages)}. Install them, then try again."


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


def _import_all() -> dict[str, str]:
    """Import what a request needs, so that the first one need not wait; versions by package. Raises ImportError."""
    import scipy.ndimage
    import scipy.optimize
    import scipy.spatial.distance  # noqa: F401

    from . import predictor  # noqa: F401

    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    """This process's stdin and stdout for requests and events alone.

    What libraries print goes to stderr. What they find as stdin is empty: on Windows, a library that is loaded looks at
    stdin and would wait for as long as another thread reads from it.
    """
    requests, events = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(events, "wb")


def main() -> int:
    """Serve until stdin closes; see the module."""
    stdin, stdout = _private_streams()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    lock = threading.Lock()

    def read() -> None:
        for line in stdin:
            if line.strip():
                lines.put(line.decode("utf-8", "replace"))
        os._exit(0)  # the only way to end while the network computes

    def tell(event: str, **fields: Any) -> None:
        try:
            with lock:
                stdout.write(json_line(event, fields).encode() + b"\n")
                stdout.flush()
        except OSError:
            os._exit(0)  # nobody listens any more

    threading.Thread(target=read, daemon=True).start()
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    message = missing(absent)
    if not absent:
        try:
            versions = _import_all()
        except (ImportError, OSError) as error:  # OSError: a library of theirs does not load
            traceback.print_exc()
            absent = [getattr(error, "name", None) or "torch"]
            message = f"The Python package '{absent[0]}' cannot be loaded ({' '.join(str(error).split())[:200]})."
    if absent:
        tell("failed", id=None, reason="missing_package", message=message, packages=absent, detail=None)
        return MISSING_PACKAGE
    tell("ready", version=__version__, packages=versions)
    worker = Worker(tell)
    while worker.serve(lines.get()):
        pass
    return 1


if __name__ == "__main__":
    sys.exit(main())
