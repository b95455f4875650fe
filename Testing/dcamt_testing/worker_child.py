"""Start a worker as an application does: a child process that reads requests on stdin and writes events on stdout."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dcamt.errors import InputError
from dcamt.inference.predictor import Predictor
from dcamt.metrics.doubtful_places import doubt_levels
from dcamt.metrics.measurements import measure
from dcamt.models.package import Card, ModelPackage
from dcamt.networks.packaging import save_model
from dcamt.recipe import Recipe
from dcamt.volume import Volume
from dcamt.worker.events import Answer, ScanSegmented, WorkerEvent
from dcamt.worker.protocol import parse_worker_event, request_line
from dcamt.worker.requests import Request, SegmentRequest

from dcamt_testing.analytic_scans import analytic_scan, centred_grid, rotation
from dcamt_testing.processes import HANGING_S
from dcamt_testing.warm_python import interpreter

ENGINE_HOME = Path(__file__).resolve().parents[2] / "DCAMTSegmentation"


class Child:
    """A worker process, started by the constructor.

    Args:
        script: a Python program that runs in the process before the worker starts.
        arguments: arguments of the worker's command line.
    """

    def __init__(self, script: str = "", *arguments: str) -> None:
        program = ["-m", "dcamt.commands.worker", *arguments]
        if script:
            run = "import runpy\nrunpy.run_module('dcamt.commands.worker', run_name='__main__')"
            program = ["-c", f"{script}\n{run}", *arguments]
        self.process = subprocess.Popen(
            [interpreter(), *program],
            cwd=ENGINE_HOME,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._events: queue.SimpleQueue[WorkerEvent | Exception | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        try:
            for line in self.process.stdout:
                self._events.put(parse_worker_event(json.loads(line)))
            self._events.put(None)
        except (ValueError, InputError) as error:
            self._events.put(error)

    def send(self, request: Request | str) -> None:
        assert self.process.stdin is not None
        line = request if isinstance(request, str) else request_line(request)
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def wait_for(self, wanted: Callable[[WorkerEvent], bool]) -> tuple[WorkerEvent, list[WorkerEvent]]:
        """Skip events until `wanted` returns True for an event; return this event and the skipped events.

        Raises:
            AssertionError: the worker ended before such an event.
            ValueError, InputError: the worker wrote a line that is not an event.
            queue.Empty: no event came for `HANGING_S` seconds.
        """
        before: list[WorkerEvent] = []
        while True:
            event = self._events.get(timeout=HANGING_S)
            assert event is not None, f"the worker ended; before that it sent {before}"
            if isinstance(event, Exception):
                raise event
            if wanted(event):
                return event, before
            before.append(event)

    def ask(self, request: Request) -> tuple[WorkerEvent, list[WorkerEvent]]:
        """Send a request; return its final answer, and the events before the answer."""
        self.send(request)
        return self.wait_for(is_answer_to(request.id))

    def exit_status(self) -> int:
        """Wait until the worker has ended by itself; return its exit status."""
        return self.process.wait(timeout=HANGING_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def save_weights(weights: Mapping[str, np.ndarray], recipe: Recipe, card: Card, path: Path) -> Path:
    save_model(path, {name: torch.from_numpy(array) for name, array in weights.items()}, recipe, card)
    return path


def write_request(scan: Volume, model: Path, folder: Path, identifier: str = "1", /, **more: Any) -> SegmentRequest:
    """Write the voxels of the scan's first channel to `folder`; return a request to segment them on the CPU.

    Args:
        more: fields of the request to add or change.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "volume.npy", scan.voxels[0].transpose(2, 1, 0))
    plain = SegmentRequest(
        str(model), folder / "volume.npy", scan.grid.affine, folder, name="LGE", device="cpu", id=identifier
    )
    return replace(plain, **more)


def is_answer_to(identifier: str) -> Callable[[WorkerEvent], bool]:
    return lambda event: isinstance(event, Answer) and event.id == identifier


def make_other_scan() -> Volume:
    """Return the analytic scan on another grid than that of the fixture `oblique_scan`."""
    return analytic_scan(centred_grid((25, 17, 16), (1.2, 1.5, 1.8), rotation(-15, 8, 100)))


def assert_result_of(event: ScanSegmented, scan: Volume, package: ModelPackage) -> None:
    """Fail unless labels, doubt, trust and volumes of the event equal those that `Predictor` gives in this process.

    A level (0 to 255) in the map of doubt may differ by 1, and the trust may differ by a rounding error.
    """
    expected = Predictor(package).segment(scan)
    labels = np.load(event.labelmap)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels.transpose(2, 1, 0), expected.labelmap.voxels)
    assert expected.doubt_map is not None
    difference = np.load(event.doubt_map).transpose(2, 1, 0).astype(int) - doubt_levels(expected.doubt_map)
    assert abs(difference).max() <= 1
    assert event.trust == pytest.approx(expected.trust)
    rows = measure(expected.labelmap, package.recipe.classes, "LGE")
    assert [row.volume_ml for row in event.measurements] == [row.volume_ml for row in rows]
    assert event.measurements[0].scan == "LGE"
