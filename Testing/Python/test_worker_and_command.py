"""The worker and the command `segment` give the same labels, and report the same errors and warnings for a scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
import torch
from dcamt.cases.case_list import UNLABELLED, Case
from dcamt.cases.checks import check_cases
from dcamt.commands import serving
from dcamt.commands.serving import Worker
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import save_model
from dcamt.worker.events import RequestFailed, ScanSegmented, WorkerEvent
from dcamt.worker.protocol import request_line
from dcamt.worker.requests import SegmentRequest
from dcamt_testing.model_files import BLANK_CARD
from dcamt_testing.processes import call_dcamt
from dcamt_testing.scan_files import affine_from_sitk
from dcamt_testing.tiny_recipes import tiny_recipe

SHAPE = (16, 12, 10)
SPACING = (1.5, 1.5, 2.0)


@pytest.fixture(autouse=True)
def small_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the volume on which the worker measures a model's speed."""
    monkeypatch.setattr(serving, "TRIAL", (16, 16, 16))


def intensities(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Return random float32 intensities (K, J, I)."""
    return np.random.default_rng(0).uniform(0, 200, shape).astype(np.float32)


def intensities_with(value: float) -> np.ndarray:
    voxels = intensities().astype(np.float64)
    voxels[3, 4, 5] = value
    return voxels


@dataclass(frozen=True)
class UnusableScan:
    """A scan that cannot be segmented.

    Attributes:
        make_voxels: returns the voxels, (K, J, I) or (K, J, I, C).
        spacing: mm along i, j, k.
    """

    make_voxels: Callable[[], np.ndarray]
    message_part: str
    spacing: tuple[float, float, float] = SPACING


UNUSABLE_SCANS = {
    "spacing in micrometres": UnusableScan(
        intensities, "has an implausible size: 15 x 18 x 32 m with", (1500, 1500, 2000)
    ),
    "spacing in metres": UnusableScan(
        intensities, "has an implausible size: 0.015 x 0.018 x 0.032 mm with", (0.0015, 0.0015, 0.002)
    ),
    "NaN": UnusableScan(lambda: intensities_with(np.nan), "holds NaN or infinite values in 1 of "),
    "infinite": UnusableScan(lambda: intensities_with(-np.inf), "holds NaN or infinite values in 1 of "),
    "beyond float32": UnusableScan(lambda: intensities_with(1e39), "beyond 3e38"),
    "constant": UnusableScan(lambda: np.full(SHAPE, 7, np.int16), "is blank"),
    "two slices": UnusableScan(lambda: intensities((2, 12, 10)), "is too small"),
    "one slice": UnusableScan(lambda: intensities((1, 12, 10)), "holds one slice only"),
    "one voxel": UnusableScan(lambda: intensities((1, 1, 1)), "holds a single voxel"),
    "two channels": UnusableScan(lambda: np.stack([intensities()] * 2, axis=-1), "holds 2 volumes (4D)"),
}


def write_scan(path: Path, voxels: np.ndarray, spacing: tuple[float, float, float]) -> Path:
    image = sitk.GetImageFromArray(voxels, isVector=voxels.ndim == 4)
    image.SetSpacing(spacing)
    # An oblique direction, so that a wrong affine changes the labels.
    image.SetDirection((1, 0, 0, 0, 0.6, -0.8, 0, 0.8, 0.6))
    sitk.WriteImage(image, str(path))
    return path


def ask_worker(scan: Path, model: Path, folder: Path) -> list[WorkerEvent]:
    """Read a scan with ITK, like Slicer; return the worker's events."""
    image = sitk.ReadImage(str(scan))
    folder.mkdir()
    np.save(folder / "volume.npy", sitk.GetArrayFromImage(image))
    request = SegmentRequest(
        str(model), folder / "volume.npy", affine_from_sitk(image), folder, name=scan.name, device="cpu"
    )
    events: list[WorkerEvent] = []
    Worker(events.append).serve(request_line(request))
    return events


def run_command(scan: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Return the exit status and the messages, without the prefix `dcamt: PATH: `."""
    arguments = ["segment", scan, "-o", scan.with_name("result.seg.nrrd"), "--model", model, "--device", "cpu"]
    status = call_dcamt(arguments)
    return status, [line.removeprefix(f"dcamt: {scan}: ") for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize("kind", UNUSABLE_SCANS)
def test_worker_and_command_report_the_same_error(
    kind: str, saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unusable = UNUSABLE_SCANS[kind]
    scan = write_scan(tmp_path / "x.nrrd", unusable.make_voxels(), unusable.spacing)
    failed = ask_worker(scan, saved_model, tmp_path / "worker")[-1]
    assert isinstance(failed, RequestFailed)
    assert failed.reason == "input"
    message = failed.message.removeprefix(f"{scan.name}: ")
    assert unusable.message_part in message
    assert run_command(scan, saved_model, capsys) == (1, [message])


@pytest.mark.parametrize("values", [2, 3])
def test_worker_and_command_report_the_same_warning_for_a_scan_with_few_different_intensities(
    values: int, saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelmap = np.digitize(intensities(), np.linspace(0, 200, values + 1)[1:-1]).astype(np.uint8)
    scan = write_scan(tmp_path / "x.nrrd", labelmap, SPACING)
    result = ask_worker(scan, saved_model, tmp_path / "worker")[-1]
    assert isinstance(result, ScanSegmented)
    status, messages = run_command(scan, saved_model, capsys)
    assert status == 0
    warning = f"The scan has only {values} different intensities, like a label. Check that the file is the scan."
    assert warning in result.notes
    assert warning in messages


@pytest.mark.parametrize(
    ("shape", "spacing", "warning"),
    [
        ((3, 9, 10), (70.0, 70.0, 2.0), "The scan is larger than a body: 700 x 630 x 6 mm. Correct its voxel spacing"),
        (
            SHAPE,
            (0.6, 0.6, 0.6),
            "The scan or its voxels are unusually small for a patient: 6 x 7.2 x 9.6 mm, with a voxel spacing of 0.6 x",
        ),
    ],
)
def test_worker_command_and_check_of_cases_warn_of_an_implausible_size(
    shape: tuple[int, ...],
    spacing: tuple[float, float, float],
    warning: str,
    saved_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scan = write_scan(tmp_path / "x.nrrd", intensities(shape), spacing)
    result = ask_worker(scan, saved_model, tmp_path / "worker")[-1]
    assert isinstance(result, ScanSegmented)
    status, messages = run_command(scan, saved_model, capsys)
    assert status == 0
    for notes in (result.notes, messages):
        assert [note.startswith(warning) for note in notes].count(True) == 1
    *_, checked = check_cases([Case("x", scan, None, UNLABELLED)], tiny_recipe())
    assert [text.startswith(warning) for text in checked.warnings] == [True]


def segment_by_command(scan: Path, model: Path) -> np.ndarray:
    """Return the labels (K, J, I) that the command `segment` writes."""
    result = scan.with_name("result.nrrd")
    assert call_dcamt(["segment", scan, "-o", result, "--model", model, "--device", "cpu"]) == 0
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(result))))


@pytest.mark.parametrize("name", ["x.nrrd", "x.nii.gz", "x.mha", "thin.nii.gz"])
def test_worker_and_command_give_the_same_labels(name: str, saved_model: Path, tmp_path: Path) -> None:
    voxels = intensities((3, 12, 10) if name.startswith("thin") else SHAPE)
    scan = write_scan(tmp_path / name, voxels, SPACING)
    result = ask_worker(scan, saved_model, tmp_path / "worker")[-1]
    assert isinstance(result, ScanSegmented)
    np.testing.assert_array_equal(np.load(result.labelmap), segment_by_command(scan, saved_model))


def two_channel_model(folder: Path) -> Path:
    recipe = replace(tiny_recipe(), input_channels=2)
    torch.manual_seed(0)
    save_model(folder / "two.dcamt", DualVNet(recipe).state_dict(), recipe, BLANK_CARD)
    return folder / "two.dcamt"


def test_worker_and_command_give_the_same_labels_for_two_channels(tmp_path: Path) -> None:
    """The worker gets all channels in one array; the command gets a file for each channel."""
    model, channels = two_channel_model(tmp_path), [intensities(), intensities()[::-1] ** 2]
    both = write_scan(tmp_path / "both.nrrd", np.stack(channels, axis=-1), SPACING)
    result = ask_worker(both, model, tmp_path / "worker")[-1]
    assert isinstance(result, ScanSegmented)
    for number, voxels in enumerate(channels):
        write_scan(tmp_path / f"x_{number:04d}.nrrd", voxels, SPACING)
    labels = segment_by_command(tmp_path / "x_0000.nrrd", model)
    np.testing.assert_array_equal(np.load(result.labelmap), labels)
    for number, voxels in enumerate(channels[::-1]):
        write_scan(tmp_path / f"y_{number:04d}.nrrd", voxels, SPACING)
    (tmp_path / "result.nrrd").unlink()
    # the order of the channels matters
    assert not np.array_equal(segment_by_command(tmp_path / "y_0000.nrrd", model), labels)


def test_worker_and_command_report_the_same_error_if_a_scan_lacks_a_channel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = two_channel_model(tmp_path)
    scan = write_scan(tmp_path / "x.nrrd", intensities(), SPACING)
    failed = ask_worker(scan, model, tmp_path / "worker")[-1]
    assert isinstance(failed, RequestFailed)
    message = failed.message.removeprefix(f"{scan.name}: ")
    assert message.startswith("holds one channel, but 2 are needed. ")
    assert run_command(scan, model, capsys) == (1, [message])
