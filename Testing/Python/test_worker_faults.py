"""Test the worker with invalid requests, full disks, missing packages, small GPUs, bugs, closed pipes and kills."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcamt.commands import worker
from dcamt.geometry import Region
from dcamt.models.package import ModelPackage
from dcamt.volume import Volume
from dcamt.worker.events import RequestFailed, ScanSegmented, SegmentsMeasured, WorkerNote
from dcamt.worker.protocol import request_line
from dcamt.worker.requests import MeasureRequest, ReportRequest, ReportSegment, SegmentMask, WallRequest
from dcamt_testing.analytic_scans import analytic_scan, centred_grid
from dcamt_testing.broken_workers import BUG, ENDLESS, GPU_TOO_SMALL_FOR_THE_MODEL, with_broken_package, without_package
from dcamt_testing.processes import HANGING_S
from dcamt_testing.warm_python import interpreter
from dcamt_testing.worker_child import ENGINE_HOME, Child, assert_result_of, is_answer_to, write_request

MASK = np.pad(np.ones((6, 6, 6), np.uint8), 3)
SPACING = 0.987654321
GPU_TOO_SMALL_FOR_THE_SCAN = """
import torch
from dcamt.commands import serving
from dcamt.inference import predictor, tiling
serving.choose_device = lambda name: torch.device("cuda")
tiling.usable_memory = lambda device: 1 << 30
real_init = predictor.Predictor.__init__
def init_on_simulated_gpu(self, package, device="cpu"):
    real_init(self, package, "cpu")
    self.device = torch.device(device)
    self.network.on_simulated_gpu = True
predictor.Predictor.__init__ = init_on_simulated_gpu
real_predict = tiling._predict_or_none
def predict_or_run_out_of_memory(network, *more):
    return None if getattr(network, "on_simulated_gpu", False) else real_predict(network, *more)
tiling._predict_or_none = predict_or_run_out_of_memory
"""

NO_MEMORY_FOR_TRIAL = """
from dcamt.inference import predictor
from torch.nn.modules.module import _global_forward_pre_hooks as request_hooks  # set by serving.Worker._stoppable
predict = predictor.predict_bounded
def predict_bounded(*arguments, **options):
    if not request_hooks:
        raise MemoryError
    return predict(*arguments, **options)
predictor.predict_bounded = predict_bounded
"""
"""A script after which memory runs out when the worker measures a model's speed."""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"request": "segment", "id": "1", "model": "m"}', "cannot be read (KeyError: 'protocol')"),
        ('{"request": "segment", "protocol": 0, "id": "1", "model": "m"}', "have different protocols (0 and 4)"),
        ('{"request": "dance", "protocol": 4, "id": "1", "model": "m", "device": "cpu"}', "'dance' is unknown"),
        ('{"request": "segment", "protocol": 4, "id": "1", "model": "m", "device": "cpu"}', "lacks the key 'volume'"),
        (
            '{"request": "segment", "protocol": 4, "id": "1", "model": 3, "volume": "v", "affine": [], "output": "o"}',
            "'request.model' must be of type str, not 3",
        ),
    ],
)
def test_invalid_request_is_refused_and_the_next_request_served(
    shared_worker: Child, worker_model: Path, oblique_scan: Volume, tmp_path: Path, line: str, message: str
) -> None:
    shared_worker.send(line)
    failed, _ = shared_worker.wait_for(lambda event: event.kind == "failed")
    assert failed.reason == "input"
    assert message in failed.message
    good, _ = shared_worker.ask(write_request(oblique_scan, worker_model, tmp_path / "good", "good"))
    assert good.kind == "segmented"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "no-such-model"}, "no such model file"),
        ({"volume": Path("nowhere.npy")}, "LGE: could not be passed to DCAMT's background process"),
        ({"device": "tpu"}, "'tpu'"),
        ({"quality": "best"}, "'best' is unknown"),
        ({"affine": np.zeros((4, 4))}, "LGE"),
        ({"region": Region((900, 900, 900), (950, 950, 950))}, "outside the scan"),
        ({"region": Region((0, 0, 0), (0, 10, 10))}, "is not a region"),
    ],
)
def test_unusable_input_is_reported_and_the_next_request_served(
    shared_worker: Child, worker_model: Path, oblique_scan: Volume, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    failed, _ = shared_worker.ask(write_request(oblique_scan, worker_model, tmp_path / "bad", "bad", **change))
    assert isinstance(failed, RequestFailed)
    assert failed.reason == "input"
    assert message in failed.message
    assert "\n" not in failed.message
    good, _ = shared_worker.ask(write_request(oblique_scan, worker_model, tmp_path / "good", "good"))
    assert good.kind == "segmented"


@pytest.mark.parametrize("kind", ["measure", "wall", "report"])
@pytest.mark.parametrize(
    ("mask", "spacing", "message"),
    [
        (MASK, 0.0, "LA: has a voxel spacing of zero. "),
        (MASK, np.nan, "LA: has NaN or infinite numbers in its geometry"),
        (MASK, 1e200, "LA: has an implausible size: "),
        (MASK[0], 1.5, "LA: is not three-dimensional. "),
        (MASK[:0], 1.5, "LA: holds no voxels "),
        (MASK.astype([("inside", "u1")]), 1.5, "LA: holds voxels of the type "),
    ],
    ids=["zero", "NaN", "huge", "2D", "no voxels", "structured"],
)
def test_unusable_mask_is_refused_and_the_next_request_served(
    shared_worker: Child, tmp_path: Path, kind: str, mask: np.ndarray, spacing: float, message: str
) -> None:
    np.save(tmp_path / "volume.npy", np.random.default_rng(0).random(MASK.shape))
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "good.npy", MASK)
    volume, affine = tmp_path / "volume.npy", np.diag([1.5, 1.5, 2.0, 1.0])
    segment = SegmentMask("LA", tmp_path / "mask.npy", np.diag([SPACING, SPACING, SPACING, 1.0]))
    requests = {
        "measure": MeasureRequest((segment,)),
        "wall": WallRequest(volume, affine, segment, tmp_path),
        "report": ReportRequest(volume, affine, (ReportSegment(segment, (1.0, 0.0, 0.0)),), tmp_path / "page.html"),
    }
    # `request_line` refuses NaN, so `SPACING` is replaced in the finished line.
    shared_worker.send(request_line(requests[kind]).replace(str(SPACING), json.dumps(spacing)))
    failed, _ = shared_worker.wait_for(is_answer_to(""))
    assert isinstance(failed, RequestFailed)
    assert failed.reason == "input"
    assert failed.message.startswith(message)
    good, _ = shared_worker.ask(MeasureRequest((SegmentMask("LA", tmp_path / "good.npy", affine),), id="good"))
    assert isinstance(good, SegmentsMeasured), good


@pytest.mark.parametrize("file", ["labelmap.npy", "doubt.npy"])
def test_full_disk_is_reported_and_the_next_request_served(
    shared_worker: Child, worker_model: Path, oblique_scan: Volume, tmp_path: Path, file: str
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / file).symlink_to("/dev/full")
    failed, _ = shared_worker.ask(write_request(oblique_scan, worker_model, folder, "full"))
    assert isinstance(failed, RequestFailed)
    assert failed.reason == "disk"
    assert "disk is full" in failed.message
    assert str(folder) in failed.message
    good, _ = shared_worker.ask(write_request(oblique_scan, worker_model, tmp_path / "good", "good"))
    assert good.kind == "segmented"


@pytest.mark.parametrize("name", ["torch", "scipy"])
def test_missing_package_is_named_and_ends_the_worker(start_worker: Callable[..., Child], name: str) -> None:
    child = start_worker(without_package(name))
    failed, before = child.wait_for(lambda event: event.kind == "failed")
    assert before == []
    assert failed.reason == "missing_package"
    assert failed.packages == (name,)
    assert f"missing: {name}" in failed.message
    assert child.exit_status() == 3


def test_package_that_cannot_be_loaded_is_named_and_ends_the_worker(
    start_worker: Callable[..., Child], tmp_path: Path
) -> None:
    child = start_worker(with_broken_package("scipy", tmp_path))
    failed, _ = child.wait_for(lambda event: event.kind == "failed")
    assert (failed.reason, failed.packages) == ("missing_package", ("scipy",))
    assert "package 'scipy' cannot be loaded (libbroken.so.1: cannot open)" in failed.message
    assert child.exit_status() == 3


def test_cpu_is_used_when_the_gpu_is_too_small_for_the_model(
    start_worker: Callable[..., Child],
    worker_model: Path,
    worker_package: ModelPackage,
    oblique_scan: Volume,
    tmp_path: Path,
) -> None:
    child = start_worker(GPU_TOO_SMALL_FOR_THE_MODEL)
    finished, events = child.ask(write_request(oblique_scan, worker_model, tmp_path / "scan", device="auto"))
    assert isinstance(finished, ScanSegmented), finished
    assert finished.device == "cpu"
    assert finished.notes == ("Not enough GPU memory; the CPU was used.",)
    assert [event.message for event in events if isinstance(event, WorkerNote)] == list(finished.notes)
    assert_result_of(finished, oblique_scan, worker_package)


def test_cpu_is_used_when_the_gpu_is_too_small_for_the_smallest_tile(
    start_worker: Callable[..., Child],
    worker_model: Path,
    worker_package: ModelPackage,
    oblique_scan: Volume,
    tmp_path: Path,
) -> None:
    child = start_worker(GPU_TOO_SMALL_FOR_THE_SCAN)
    larger_than_a_tile = analytic_scan(centred_grid((40, 20, 16), (1.5, 1.5, 1.5)))
    finished, events = child.ask(write_request(larger_than_a_tile, worker_model, tmp_path / "scan", device="auto"))
    assert isinstance(finished, ScanSegmented), finished
    assert finished.notes == ("Not enough GPU memory; the CPU was used.",)
    assert [event.message for event in events if isinstance(event, WorkerNote)] == list(finished.notes)
    assert_result_of(finished, larger_than_a_tile, worker_package)


def test_scan_is_segmented_although_memory_ran_out_when_the_speed_was_measured(
    start_worker: Callable[..., Child],
    worker_model: Path,
    worker_package: ModelPackage,
    oblique_scan: Volume,
    tmp_path: Path,
) -> None:
    child = start_worker(NO_MEMORY_FOR_TRIAL)
    finished, _ = child.ask(write_request(oblique_scan, worker_model, tmp_path / "scan"))
    assert isinstance(finished, ScanSegmented), finished
    assert finished.notes == ()
    assert_result_of(finished, oblique_scan, worker_package)


def test_unexpected_error_is_reported_with_traceback_and_ends_the_worker(
    start_worker: Callable[..., Child], worker_model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start_worker(BUG)
    failed, _ = child.ask(write_request(oblique_scan, worker_model, tmp_path / "scan"))
    assert failed.reason == "internal"
    assert "AssertionError: a bug" in failed.message
    assert "Traceback" in failed.detail
    assert child.exit_status() == 1


def test_worker_ends_when_stdin_closes_during_computation(
    start_worker: Callable[..., Child], worker_model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start_worker(ENDLESS)
    child.send(write_request(oblique_scan, worker_model, tmp_path / "scan"))
    child.wait_for(lambda event: getattr(event, "stage", None) in ("preparing", "segmenting"))
    assert child.process.stdin is not None
    child.process.stdin.close()
    assert child.exit_status() == 0
    assert sorted(path.name for path in (tmp_path / "scan").iterdir()) == ["volume.npy"]


def test_worker_ends_when_stdout_closes() -> None:
    process = subprocess.Popen(
        [interpreter(), "-m", "dcamt.commands.worker"],
        cwd=ENGINE_HOME,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.close()
    try:
        assert process.wait(timeout=HANGING_S) == 0  # the worker cannot write its first event, `ready`
    finally:
        process.kill()
        assert process.stdin is not None
        process.stdin.close()


def test_folder_is_removed_although_a_result_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result is written during the first attempt of `_remove_folder`."""
    folder, remove = tmp_path / "scans", shutil.rmtree
    folder.mkdir()
    (folder / "volume.npy").touch()

    def empty_folder_during_writing(path: str, **options: Any) -> None:
        monkeypatch.setattr(shutil, "rmtree", remove)
        (folder / "volume.npy").unlink()
        (folder / "labelmap.npy").touch()

    monkeypatch.setattr(shutil, "rmtree", empty_folder_during_writing)
    worker._remove_folder(str(folder))
    assert not folder.exists()


def test_killed_worker_leaves_no_result_and_a_new_worker_works(
    start_worker: Callable[..., Child], worker_model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start_worker(ENDLESS)
    child.send(write_request(oblique_scan, worker_model, tmp_path / "scan"))
    child.wait_for(lambda event: event.kind == "progress")
    child.process.kill()
    assert child.exit_status() != 0
    assert sorted(path.name for path in (tmp_path / "scan").iterdir()) == ["volume.npy"]
    again = start_worker()
    assert again.ask(write_request(oblique_scan, worker_model, tmp_path / "again"))[0].kind == "segmented"


def test_output_of_libraries_does_not_mix_with_events(
    start_worker: Callable[..., Child], worker_model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    noisy = "from dcamt.inference import predictor\nreal = predictor.scan_to_network\n"
    noisy += (
        "def scan_to_network(*a):\n    import os\n    print('chatter')\n    os.write(1, b'more')\n    return real(*a)\n"
    )
    child = start_worker(noisy + "predictor.scan_to_network = scan_to_network\n")
    # `Child` raises for a line that is not an event.
    assert child.ask(write_request(oblique_scan, worker_model, tmp_path / "scan"))[0].kind == "segmented"
