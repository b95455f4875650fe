"""Test a worker process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dcamt.geometry import Region
from dcamt.models.package import ModelPackage, open_model
from dcamt.recipe import Recipe
from dcamt.volume import Code, Volume
from dcamt.worker.events import RequestFailed, ScanSegmented, WorkerProgress
from dcamt.worker.requests import CancelRequest, KeepFilesRequest, MeasureRequest, OutlineMethod, SegmentMask
from dcamt_testing.analytic_scans import CENTRE, centred_grid, points_of, rotation
from dcamt_testing.broken_workers import EXPECTS_LONG_WORK, wait_while_exists
from dcamt_testing.processes import HANGING_S
from dcamt_testing.worker_child import (
    ENGINE_HOME,
    Child,
    WorkerEvent,
    assert_result_of,
    is_answer_to,
    make_other_scan,
    save_weights,
    write_request,
)

SIGNAL_DURING_OPERATION = """
import os, signal, threading, torch
from dcamt.inference import predictor
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Under `nohup`, a process ignores SIGHUP.
def predict_bounded(*arguments, **options):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.{name})).start()
    torch.ones(1).expand(1 << 42).sum()  # takes an hour
predictor.predict_bounded = predict_bounded
"""

IGNORED_SIGNAL = """
import os, signal
from dcamt.inference import predictor
signal.signal(signal.SIGHUP, signal.SIG_IGN)
predict = predictor.predict_bounded
def predict_bounded(*arguments, **options):
    os.kill(os.getpid(), signal.SIGHUP)
    return predict(*arguments, **options)
predictor.predict_bounded = predict_bounded
"""


def test_several_scans_are_segmented_with_one_loaded_model(
    start_worker: Callable[..., Child],
    worker_model: Path,
    worker_package: ModelPackage,
    oblique_scan: Volume,
    tmp_path: Path,
) -> None:
    child = start_worker()
    ready, _ = child.wait_for(lambda event: event.kind == "ready")
    assert ready.packages.keys() == {"torch", "scipy"}
    scans = {"1": oblique_scan, "2": make_other_scan(), "3": oblique_scan}
    for identifier, scan in scans.items():
        child.send(write_request(scan, worker_model, tmp_path / identifier, identifier))
    events_of: dict[str, list[WorkerEvent]] = {}
    for identifier, scan in scans.items():
        finished, events_of[identifier] = child.wait_for(is_answer_to(identifier))
        assert isinstance(finished, ScanSegmented), finished
        assert all(event.id == identifier for event in events_of[identifier])
        assert_result_of(finished, scan, worker_package)
    assert not any(getattr(event, "stage", None) == "loading" for event in events_of["2"] + events_of["3"])


def test_box_of_a_segment_is_its_bounding_box(
    start_worker: Callable[..., Child], worker_model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start_worker()
    finished, _ = child.ask(write_request(oblique_scan, worker_model, tmp_path / "scan"))
    (segment,) = finished.segments
    assert segment.info.type == Code("SCT", "82471001", "Left atrium")
    index = np.argwhere(np.load(finished.labelmap).transpose(2, 1, 0) == segment.info.label)
    assert segment.box == tuple((low, high + 1) for low, high in zip(index.min(0), index.max(0), strict=True))


def test_second_request_does_not_load_the_model_again(
    start_worker: Callable[..., Child], worker_model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    child = start_worker(wait_while_exists(gate))
    child.ask(write_request(oblique_scan, worker_model, tmp_path / "0", "0"))
    gate.touch()  # without the gate, a short computation may end before its progress is reported
    child.send(write_request(oblique_scan, worker_model, tmp_path / "1", "1"))
    progress, before = child.wait_for(lambda event: isinstance(event, WorkerProgress | ScanSegmented | RequestFailed))
    assert isinstance(progress, WorkerProgress), progress
    assert progress.stage in ("preparing", "segmenting")
    assert before == []
    gate.unlink()
    _, events = child.wait_for(is_answer_to("1"))
    assert not any(getattr(event, "stage", None) == "loading" for event in events)


def test_progress_never_decreases_and_gives_the_remaining_time(
    start_worker: Callable[..., Child], worker_model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    child = start_worker(wait_while_exists(gate) + EXPECTS_LONG_WORK)
    child.send(write_request(oblique_scan, worker_model, tmp_path / "scan"))

    def is_progress(event: WorkerEvent) -> bool:
        return isinstance(event, WorkerProgress) and event.stage != "loading"

    first, _ = child.wait_for(is_progress)
    later, between = child.wait_for(lambda event: is_progress(event) and event.eta_s < first.eta_s)
    assert later.eta_s > 0
    gate.unlink()
    finished, after = child.wait_for(is_answer_to("1"))
    assert isinstance(finished, ScanSegmented), finished
    fractions = [event.fraction for event in (first, *between, later, *after) if is_progress(event)]
    assert fractions == sorted(fractions)
    # The first progress may be sent before any work is done.
    assert fractions[0] >= 0
    assert 0 < fractions[-1] <= 1


def test_fast_quality_segments_the_given_region(
    start_worker: Callable[..., Child], worker_model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start_worker()
    centre = oblique_scan.grid.affine @ [*(np.array(oblique_scan.grid.shape) / 2), 1]
    low, high = tuple(centre[:3] - 6), tuple(centre[:3] + 6)
    region = Region(high, low)  # The corners are in the wrong order.
    finished, _ = child.ask(write_request(oblique_scan, worker_model, tmp_path / "scan", quality="fast", region=region))
    assert isinstance(finished, ScanSegmented), finished
    assert finished.trust is None
    assert finished.doubt_map is None
    assert finished.doubts == ()
    index = np.argwhere(np.load(finished.labelmap).transpose(2, 1, 0))
    points = index @ oblique_scan.grid.affine[:3, :3].T + oblique_scan.grid.affine[:3, 3]
    assert len(points)
    assert (abs(points - centre[:3]) <= 6 + 1e-6).all()


def test_outline_is_measured_and_a_missing_mask_is_reported(shared_worker: Child, tmp_path: Path) -> None:
    grid = centred_grid((60, 50, 44), (1.0, 1.2, 1.5), rotation(20, -10, 30))
    ball = np.linalg.norm(points_of(grid) - CENTRE, axis=-1) <= 20
    np.save(tmp_path / "ball.npy", ball.transpose(2, 1, 0).astype(np.uint8))
    outline = SegmentMask("Ball", tmp_path / "ball.npy", grid.affine)
    finished, _ = shared_worker.ask(MeasureRequest((outline,), "LGE", "m"))
    (row,) = finished.measurements
    assert (row.scan, row.segment) == ("LGE", "Ball")
    assert row.volume_ml == pytest.approx(4 / 3 * np.pi * 20**3 / 1000, rel=0.02)
    assert row.surface_cm2 == pytest.approx(4 * np.pi * 20**2 / 100, rel=0.02)
    # Each end of the diameter is the mid-point of a voxel face. The voxel's centre is in the ball, and the mid-point is
    # at most 1.5 mm / 2 = 0.75 mm from this centre, so the end is at most 0.75 mm outside the ball.
    assert 40 < row.long_diameter_mm < 40 + 1.5
    failed, _ = shared_worker.ask(MeasureRequest((replace(outline, mask=Path("nowhere.npy")),), id="n"))
    assert failed.reason == "input"
    assert "Ball: could not be passed to DCAMT's background process" in failed.message


def test_changed_model_file_is_loaded_again(
    start_worker: Callable[..., Child],
    tiny_package: ModelPackage,
    tiny_recipe: Recipe,
    oblique_scan: Volume,
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.dcamt"
    save_weights(tiny_package.weights, tiny_recipe, tiny_package.card, path)
    child = start_worker()
    first, _ = child.ask(write_request(oblique_scan, path, tmp_path / "1", "1"))
    changed = {name: -array if ".head." in name else array for name, array in tiny_package.weights.items()}
    card = replace(tiny_package.card, version="changed")
    save_weights(changed, tiny_recipe, card, path)
    child.send(write_request(oblique_scan, path, tmp_path / "2", "2", quality="fast"))
    child.send(write_request(oblique_scan, path, tmp_path / "3", "3"))
    second, _ = child.wait_for(is_answer_to("2"))
    assert isinstance(first, ScanSegmented)
    assert isinstance(second, ScanSegmented), second
    assert first.method == OutlineMethod(card.name, card.title, tiny_package.card.version, card.modality, "accurate")
    assert second.method == OutlineMethod(card.name, card.title, "changed", card.modality, "fast")
    finished, _ = child.wait_for(is_answer_to("3"))
    assert_result_of(finished, oblique_scan, open_model(path))


def test_cancelled_scan_ends_and_the_model_stays_loaded(
    start_worker: Callable[..., Child], worker_model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    child = start_worker(wait_while_exists(gate))
    child.send(write_request(oblique_scan, worker_model, tmp_path / "held", "held"))
    child.wait_for(lambda event: isinstance(event, WorkerProgress) and event.stage in ("preparing", "segmenting"))
    child.send(CancelRequest(id="held"))
    child.send(write_request(oblique_scan, worker_model, tmp_path / "next", "next"))
    failed, _ = child.wait_for(is_answer_to("held"))
    assert isinstance(failed, RequestFailed)
    assert failed.reason == "cancelled"
    gate.unlink()
    finished, events = child.wait_for(is_answer_to("next"))
    assert isinstance(finished, ScanSegmented)
    assert not any(isinstance(event, WorkerProgress) and event.stage == "loading" for event in events)


def test_request_whose_cancellation_arrives_first_is_not_served(
    start_worker: Callable[..., Child], worker_model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    child = start_worker()
    child.send(CancelRequest(id="1"))
    failed, events = child.ask(write_request(oblique_scan, worker_model, tmp_path / "scan"))
    assert isinstance(failed, RequestFailed)
    assert failed.reason == "cancelled"
    assert not any(isinstance(event, WorkerProgress) for event in events)


@pytest.mark.parametrize("keep", [False, True])
def test_scan_folder_is_removed_when_stdin_closes_unless_a_request_keeps_files(tmp_path: Path, keep: bool) -> None:
    scan_folder = tmp_path / "scans"
    scan_folder.mkdir()
    (scan_folder / "volume.npy").write_bytes(b"a patient")
    child = Child("", "--remove-at-end", str(scan_folder))
    if keep:
        child.send(KeepFilesRequest())
    assert child.process.stdin is not None
    # The worker may still be importing its packages when stdin closes.
    child.process.stdin.close()
    assert child.exit_status() == 0
    assert scan_folder.exists() == keep
    assert tmp_path.exists()


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_scan_folder_is_removed_when_a_signal_ends_the_worker_during_a_torch_operation(
    start_worker: Callable[..., Child], worker_model: Path, oblique_scan: Volume, tmp_path: Path, name: str
) -> None:
    scan_folder = tmp_path / "scans"
    child = start_worker(SIGNAL_DURING_OPERATION.format(name=name), "--remove-at-end", str(scan_folder))
    child.send(write_request(oblique_scan, worker_model, scan_folder))
    assert child.exit_status() == -signal.Signals[name]
    assert not scan_folder.exists()
    assert tmp_path.exists()


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_signal_removes_the_scan_folder_although_numpy_has_several_threads(tmp_path: Path) -> None:
    scan_folder = tmp_path / "scans"
    scan_folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "dcamt.commands.worker", "--remove-at-end", scan_folder],
        cwd=ENGINE_HOME,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert b'"ready"' in process.stdout.readline()
    process.terminate()
    assert process.wait(timeout=HANGING_S) == -signal.SIGTERM
    assert not scan_folder.exists()
    process.stdin.close()
    process.stdout.close()


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_worker_that_ignores_a_signal_still_serves_requests(
    start_worker: Callable[..., Child], worker_model: Path, oblique_scan: Volume, tmp_path: Path
) -> None:
    scan_folder = tmp_path / "scans"
    child = start_worker(IGNORED_SIGNAL, "--remove-at-end", str(scan_folder))
    finished, _ = child.ask(write_request(oblique_scan, worker_model, scan_folder))
    assert isinstance(finished, ScanSegmented), finished
