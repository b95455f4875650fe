"""The worker as an application meets it: a child process, requests on its stdin, events on its stdout."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analytic_scans import CENTRE, analytic_scan, centred_grid, points_of, rotation
from DCAMTLib.inference.agreement import disagreement_levels
from DCAMTLib.inference.predictor import Predictor
from DCAMTLib.measurements import measure
from DCAMTLib.model_package import Card, ModelPackage, open_model, save_model
from DCAMTLib.recipe import Recipe
from DCAMTLib.volume import Volume

ENGINE_HOME = Path(__file__).resolve().parents[2] / "DCAMTSegmentation"
PATIENCE_S = 120
Event = dict[str, Any]

# What is put before the worker's `main` to break something on purpose.
HIDE = """
import importlib.machinery as machinery
real = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = classmethod(lambda cls, name, *a: None if name == {name!r} else real(name, *a))
"""
GPU_TOO_SMALL_FOR_THE_MODEL = """
import torch
from DCAMTLib import model_package
from DCAMTLib.inference import serving
serving.choose_device = lambda name: torch.device("cuda")
real = model_package.ModelPackage.network
def network(package, device="cpu"):
    if torch.device(device).type == "cuda":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    return real(package, device)
model_package.ModelPackage.network = network
"""
GPU_TOO_SMALL_FOR_THE_SCAN = """
import torch
from DCAMTLib.inference import predictor, serving
# No test machine has a GPU: the network stays where it is, and whatever is called "cuda" runs out of memory.
serving.choose_device = lambda name: torch.device("cuda")
predictor.free_memory = lambda device: 1 << 30
first = predictor.Predictor.__init__
def init(self, package, device="cpu", memory=None):
    first(self, package, "cpu", memory)
    self.device = torch.device(device)
    self.network.to = lambda *a, **k: self.network
predictor.Predictor.__init__ = init
attempt = predictor.Predictor._attempt
def fails_on_cuda(self, device, *more):
    return None if torch.device(device).type == "cuda" else attempt(self, device, *more)
predictor.Predictor._attempt = fails_on_cuda
"""
FAULT_WITHIN = """
from DCAMTLib.inference import predictor
def segment(self, *a, **k):
    raise AssertionError("a bug")
predictor.Predictor.segment = segment
"""


class Child:
    """A worker in a process of its own; `broken`: what is run in it beforehand."""

    def __init__(self, broken: str = "") -> None:
        program = ["-m", "DCAMTLib.inference.worker"]
        if broken:
            program = ["-c", f"{broken}\nimport sys\nfrom DCAMTLib.inference.worker import main\nsys.exit(main())"]
        self.process = subprocess.Popen(
            [sys.executable, *program],
            cwd=ENGINE_HOME,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)  # nothing but events may come this way
            event["heard_at"] = time.monotonic()
            self._events.put(event)
        self._events.put(None)

    def send(self, request: Event | str) -> float:
        """Returns the time at which it was sent."""
        assert self.process.stdin is not None
        line = request if isinstance(request, str) else json.dumps(request)
        now = time.monotonic()
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return now

    def wait_for(self, wanted: Callable[[Event], bool]) -> tuple[Event, list[Event]]:
        """The first such event, and those before it."""
        before: list[Event] = []
        while True:
            event = self._events.get(timeout=PATIENCE_S)
            assert event is not None, f"the worker ended; before that it told of {before}"
            if wanted(event):
                return event, before
            before.append(event)

    def ends(self) -> int:
        """Exit status, once it has ended by itself."""
        return self.process.wait(timeout=PATIENCE_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def begin(broken: str = "") -> Child:
        children.append(Child(broken))
        return children[-1]

    yield begin
    for child in children:
        child.close()


@pytest.fixture(scope="module")
def model(tiny_package: ModelPackage, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_package.weights, tiny_recipe, tiny_package.card, tmp_path_factory.mktemp("models") / "tiny.dcamt")


@pytest.fixture(scope="module")
def package(model: Path) -> ModelPackage:
    """What the file holds: weights are rounded as they are saved."""
    return open_model(model)


def save(weights: Mapping[str, np.ndarray], recipe: Recipe, card: Card, path: Path) -> Path:
    save_model(path, {name: torch.from_numpy(array) for name, array in weights.items()}, recipe, card)
    return path


def request(scan: Volume, model: Path, folder: Path, identifier: str = "1", /, **more: Any) -> Event:
    """A request to segment `scan`, handed over in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "volume.npy", scan.voxels[0].transpose(2, 1, 0))
    return {
        "request": "segment",
        "id": identifier,
        "name": "LGE",
        "volume": str(folder / "volume.npy"),
        "affine": scan.grid.affine.tolist(),
        "model": str(model),
        "quality": "accurate",
        "device": "cpu",
        "region": None,
        "output": str(folder),
        **more,
    }


def last(identifier: str) -> Callable[[Event], bool]:
    return lambda event: event["event"] in ("finished", "failed") and event["id"] == identifier


def other_scan() -> Volume:
    return analytic_scan(centred_grid((25, 17, 16), (1.2, 1.5, 1.8), rotation(-15, 8, 100)))


def assert_result_of(event: Event, scan: Volume, package: ModelPackage) -> None:
    """The event and its files hold what the engine, called directly, makes of this scan."""
    expected = Predictor(package).segment(scan)
    labels = np.load(event["labelmap"])
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels.transpose(2, 1, 0), expected.labelmap.voxels)
    assert expected.agreement is not None
    difference = np.load(event["disagreement"]).transpose(2, 1, 0).astype(int) - disagreement_levels(expected.agreement)
    assert abs(difference).max() <= 1
    assert event["trust"] == pytest.approx(expected.trust)
    rows = measure(expected.labelmap, package.recipe.classes, "LGE")
    assert [row["volume_ml"] for row in event["measurements"]] == [row.volume_ml for row in rows]
    assert event["measurements"][0]["scan"] == "LGE"


def test_two_scans_on_one_loaded_model(
    start: Callable[..., Child], model: Path, package: ModelPackage, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start()
    ready, _ = child.wait_for(lambda event: event["event"] == "ready")
    assert ready["packages"].keys() == {"torch", "scipy"}
    scans = {"1": oblique_scan, "2": other_scan(), "3": oblique_scan}
    for identifier, scan in scans.items():  # all at once: the worker takes one after the other
        child.send(request(scan, model, tmp_path / identifier, identifier))
    told: dict[str, list[Event]] = {}
    for identifier, scan in scans.items():
        finished, told[identifier] = child.wait_for(last(identifier))
        assert finished["event"] == "finished", finished
        assert all(event["id"] == identifier for event in told[identifier])
        assert_result_of(finished, scan, package)
    assert not any(event.get("stage") == "loading" for event in told["2"] + told["3"])


def test_the_box_of_a_class_holds_all_of_it_and_nothing_less(
    start: Callable[..., Child], model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start()
    child.send(request(oblique_scan, model, tmp_path / "scan"))
    finished, _ = child.wait_for(last("1"))
    (segment,) = finished["segments"]
    assert segment["type"] == {"scheme": "SCT", "value": "82471001", "meaning": "Left atrium"}
    index = np.argwhere(np.load(finished["labelmap"]).transpose(2, 1, 0) == segment["label"])
    assert segment["box"] == [[low, high + 1] for low, high in zip(index.min(0), index.max(0), strict=True)]


def test_the_second_request_computes_at_once(
    start: Callable[..., Child], model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start()
    child.send(request(oblique_scan, model, tmp_path / "0", "0"))
    child.wait_for(last("0"))
    waits = []
    large = analytic_scan(centred_grid((96, 96, 64), (1.0, 1.0, 1.0)))  # long enough to tell of its progress
    for attempt in ("1", "2", "3"):  # the best counts: others use the machine, too
        sent = child.send(request(large, model, tmp_path / attempt, attempt))
        progress, _ = child.wait_for(lambda event: event["event"] in ("progress", "finished", "failed"))
        assert progress["event"] == "progress", progress
        assert progress["stage"] in ("preparing", "segmenting")
        waits.append(progress["heard_at"] - sent)
        child.wait_for(last(attempt))
    assert min(waits) < 0.3, waits


def test_a_model_can_be_loaded_ahead(
    start: Callable[..., Child], model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start()
    child.send({"request": "load", "id": "l", "model": str(model), "device": "cpu"})
    loaded, _ = child.wait_for(last("l"))
    assert (loaded["event"], loaded["device"], loaded["notes"]) == ("finished", "cpu", [])
    child.send(request(oblique_scan, model, tmp_path / "scan"))
    finished, told = child.wait_for(last("1"))
    assert finished["event"] == "finished"
    assert not any(event.get("stage") == "loading" for event in told)


def test_progress_grows_to_the_end_and_knows_the_rest(start: Callable[..., Child], model: Path, tmp_path: Path) -> None:
    child = start()
    large = analytic_scan(centred_grid((128, 128, 96), (1.0, 1.0, 1.0)))
    child.send(request(large, model, tmp_path / "scan"))
    finished, told = child.wait_for(last("1"))
    assert finished["event"] == "finished", finished
    progress = [event for event in told if event["event"] == "progress" and event["stage"] != "loading"]
    shares = [event["share"] for event in progress]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] <= 1
    assert any(event["eta_s"] is not None for event in progress)


def test_fast_quality_and_a_region(
    start: Callable[..., Child], model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start()
    centre = oblique_scan.grid.affine @ [*(np.array(oblique_scan.grid.shape) / 2), 1]
    box = {"low": (centre[:3] + 6).tolist(), "high": (centre[:3] - 6).tolist()}  # in either order
    child.send(request(oblique_scan, model, tmp_path / "scan", quality="fast", region=box))
    finished, _ = child.wait_for(last("1"))
    assert finished["event"] == "finished", finished
    assert finished["trust"] is None
    assert finished["disagreement"] is None
    assert finished["doubts"] == []
    index = np.argwhere(np.load(finished["labelmap"]).transpose(2, 1, 0))
    points = index @ oblique_scan.grid.affine[:3, :3].T + oblique_scan.grid.affine[:3, 3]
    assert len(points)
    assert (abs(points - centre[:3]) <= 6 + 1e-6).all()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "not understood"),
        ("[]", "not understood"),
        ('{"request": "dance", "id": "1", "model": "m", "device": "cpu"}', "'dance' is not known"),
        ('{"request": "segment", "id": "1", "model": "m", "device": "cpu"}', "not understood"),
    ],
)
def test_a_request_that_is_none_is_refused_and_the_next_served(
    start: Callable[..., Child], model: Path, oblique_scan: Volume, tmp_path: Path, line: str, said: str
) -> None:
    child = start()
    child.send(line)
    failed, _ = child.wait_for(lambda event: event["event"] == "failed")
    assert failed["reason"] == "input"
    assert said in failed["message"]
    child.send(request(oblique_scan, model, tmp_path / "scan"))
    assert child.wait_for(last("1"))[0]["event"] == "finished"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "no-such-model"}, "no such model file"),
        ({"volume": "nowhere.npy"}, "LGE: could not be handed over"),
        ({"device": "tpu"}, "'tpu'"),
        ({"quality": "best"}, "'best' is not known"),
        ({"affine": np.zeros((4, 4)).tolist()}, "LGE"),
        ({"region": {"low": [900, 900, 900], "high": [950, 950, 950]}}, "outside the scan"),
        ({"region": {"low": [0, 0, 0], "high": [0, 10, 10]}}, "is not a region"),
    ],
)
def test_input_that_cannot_be_used_is_told_of_and_the_next_request_served(
    shared_child: Child, model: Path, oblique_scan: Volume, tmp_path: Path, change: Event, said: str
) -> None:
    shared_child.send(request(oblique_scan, model, tmp_path / "bad", "bad", **change))
    failed, _ = shared_child.wait_for(last("bad"))
    assert failed["event"] == "failed"
    assert failed["reason"] == "input"
    assert said in failed["message"]
    assert "\n" not in failed["message"]
    shared_child.send(request(oblique_scan, model, tmp_path / "good", "good"))
    assert shared_child.wait_for(last("good"))[0]["event"] == "finished"


@pytest.fixture(scope="module")
def shared_child() -> Iterator[Child]:
    child = Child()
    yield child
    child.close()


@pytest.mark.parametrize("file", ["labelmap.npy", "disagreement.npy"])
def test_a_full_disk_is_told_of_and_the_next_request_served(
    shared_child: Child, model: Path, oblique_scan: Volume, tmp_path: Path, file: str
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, where nothing can be written for want of space")
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / file).symlink_to("/dev/full")
    shared_child.send(request(oblique_scan, model, folder, "full"))
    failed, _ = shared_child.wait_for(last("full"))
    assert failed["event"] == "failed"
    assert failed["reason"] == "disk"
    assert "disk is full" in failed["message"]
    assert str(folder) in failed["message"]
    shared_child.send(request(oblique_scan, model, tmp_path / "good", "good"))
    assert shared_child.wait_for(last("good"))[0]["event"] == "finished"


@pytest.mark.parametrize("name", ["torch", "scipy"])
def test_a_missing_package_is_named_and_ends_the_worker(start: Callable[..., Child], name: str) -> None:
    child = start(HIDE.format(name=name))
    failed, before = child.wait_for(lambda event: event["event"] == "failed")
    assert before == []
    assert failed["reason"] == "missing_package"
    assert failed["packages"] == [name]
    assert f"missing: {name}" in failed["message"]
    assert child.ends() == 3


def test_a_gpu_too_small_for_the_model(
    start: Callable[..., Child], model: Path, package: ModelPackage, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start(GPU_TOO_SMALL_FOR_THE_MODEL)
    child.send(request(oblique_scan, model, tmp_path / "scan", device="automatic"))
    finished, told = child.wait_for(last("1"))
    assert finished["event"] == "finished", finished
    assert finished["device"] == "cpu"
    assert finished["notes"] == ["The GPU's memory did not suffice; the CPU was used."]
    assert [event["message"] for event in told if event["event"] == "note"] == finished["notes"]
    assert_result_of(finished, oblique_scan, package)


def test_a_gpu_too_small_for_the_scan_goes_on_in_smaller_parts_and_then_on_the_cpu(
    start: Callable[..., Child], model: Path, package: ModelPackage, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start(GPU_TOO_SMALL_FOR_THE_SCAN)
    # Large enough to be parted: the smallest part is four strides along each axis.
    large = analytic_scan(centred_grid((80, 72, 64), (1.5, 1.5, 1.5)))
    child.send(request(large, model, tmp_path / "scan", device="automatic"))
    finished, told = child.wait_for(last("1"))
    assert finished["event"] == "finished", finished
    assert finished["notes"] == [
        "The GPU's memory did not suffice; smaller parts were used.",
        "The GPU's memory did not suffice; the CPU was used.",
    ]
    assert [event["message"] for event in told if event["event"] == "note"] == finished["notes"]
    assert_result_of(finished, large, package)


def test_a_bug_is_told_of_with_its_traceback_and_ends_the_worker(
    start: Callable[..., Child], model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start(FAULT_WITHIN)
    child.send(request(oblique_scan, model, tmp_path / "scan"))
    failed, _ = child.wait_for(last("1"))
    assert failed["reason"] == "internal"
    assert "AssertionError: a bug" in failed["message"]
    assert "Traceback" in failed["detail"]
    assert child.ends() == 1


def test_a_corrected_outline_is_measured(shared_child: Child, tmp_path: Path) -> None:
    grid = centred_grid((60, 50, 44), (1.0, 1.2, 1.5), rotation(20, -10, 30))
    ball = np.linalg.norm(points_of(grid) - CENTRE, axis=-1) <= 20
    np.save(tmp_path / "ball.npy", ball.transpose(2, 1, 0).astype(np.uint8))
    outline = {"name": "Ball", "mask": str(tmp_path / "ball.npy"), "affine": grid.affine.tolist()}
    shared_child.send({"request": "measure", "id": "m", "name": "LGE", "outlines": [outline]})
    finished, _ = shared_child.wait_for(last("m"))
    (row,) = finished["measurements"]
    assert (row["scan"], row["segment"]) == ("LGE", "Ball")
    assert row["volume_ml"] == pytest.approx(4 / 3 * np.pi * 20**3 / 1000, rel=0.02)
    assert row["surface_cm2"] == pytest.approx(4 * np.pi * 20**2 / 100, rel=0.02)
    assert 40 < row["long_diameter_mm"] < 40 + 1.5  # it ends on faces of voxels, the thickest of which has 1.5 mm
    shared_child.send({"request": "measure", "id": "n", "outlines": [{**outline, "mask": "nowhere.npy"}]})
    failed, _ = shared_child.wait_for(last("n"))
    assert failed["reason"] == "input"
    assert "Ball: could not be handed over" in failed["message"]


def test_it_ends_as_stdin_closes_even_while_it_computes(
    start: Callable[..., Child], model: Path, tmp_path: Path
) -> None:
    child = start()
    child.send(request(analytic_scan(centred_grid((200, 200, 160), (1.0, 1.0, 1.0))), model, tmp_path / "scan"))
    child.wait_for(lambda event: event.get("stage") in ("preparing", "segmenting"))
    assert child.process.stdin is not None
    child.process.stdin.close()
    closed = time.monotonic()
    assert child.ends() == 0
    assert time.monotonic() - closed < 5
    assert not (tmp_path / "scan" / "labelmap.npy").exists()


def test_it_ends_as_nobody_listens_any_more(start: Callable[..., Child], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "DCAMTLib.inference.worker"],
        cwd=ENGINE_HOME,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.close()
    try:
        assert process.wait(timeout=PATIENCE_S) == 0  # with the first event, `ready`
    finally:
        process.kill()
        assert process.stdin is not None
        process.stdin.close()


def test_killed_it_leaves_no_result_and_a_new_one_serves(
    start: Callable[..., Child], model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start()
    child.send(request(analytic_scan(centred_grid((200, 200, 160), (1.0, 1.0, 1.0))), model, tmp_path / "scan"))
    child.wait_for(lambda event: event["event"] == "progress")
    child.process.kill()
    assert child.ends() != 0
    assert sorted(path.name for path in (tmp_path / "scan").iterdir()) == ["volume.npy"]
    again = start()
    again.send(request(oblique_scan, model, tmp_path / "again"))
    assert again.wait_for(last("1"))[0]["event"] == "finished"


def test_a_library_that_prints_does_not_disturb_the_events(
    start: Callable[..., Child], model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    noisy = "from DCAMTLib.inference import predictor\nreal = predictor.scan_to_network\n"
    noisy += (
        "def scan_to_network(*a):\n    import os\n    print('chatter')\n    os.write(1, b'more')\n    return real(*a)\n"
    )
    child = start(noisy + "predictor.scan_to_network = scan_to_network\n")
    child.send(request(oblique_scan, model, tmp_path / "scan"))
    assert child.wait_for(last("1"))[0]["event"] == "finished"  # `Child` refuses what is no event


def test_a_changed_model_file_is_loaded_anew(
    start: Callable[..., Child],
    tiny_package: ModelPackage,
    tiny_recipe: Recipe,
    oblique_scan: Volume,
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.dcamt"
    save(tiny_package.weights, tiny_recipe, tiny_package.card, path)
    child = start()
    child.send(request(oblique_scan, path, tmp_path / "1", "1"))
    first, _ = child.wait_for(last("1"))
    changed = {name: -array if ".head." in name else array for name, array in tiny_package.weights.items()}
    save(changed, tiny_recipe, tiny_package.card, path)
    child.send(request(oblique_scan, path, tmp_path / "2", "2", quality="fast"))
    child.send(request(oblique_scan, path, tmp_path / "3", "3"))
    second, _ = child.wait_for(last("2"))
    assert first["event"] == second["event"] == "finished", second
    finished, _ = child.wait_for(last("3"))
    assert_result_of(finished, oblique_scan, open_model(path))
