"""The panel's worker and the command `segment` give the same labels, or refuse or question a scan in the same words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
import torch
from dcamt import cli
from dcamt.inference.serving import Worker
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import save_model
from dcamt.worker.protocol import RequestFailed, ScanSegmented, SegmentRequest, WorkerEvent, request_line
from dcamt_testing.model_files import BLANK_CARD
from dcamt_testing.scan_files import affine_from_sitk
from dcamt_testing.tiny_recipes import tiny_recipe

SHAPE = (16, 12, 10)
SPACING = (1.5, 1.5, 2.0)


def intensities(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Return random float32 intensities (K, J, I)."""
    return np.random.default_rng(0).uniform(0, 200, shape).astype(np.float32)


def with_voxel(value: float) -> np.ndarray:
    """Return random float64 intensities, one of which is replaced."""
    voxels = intensities().astype(np.float64)
    voxels[3, 4, 5] = value
    return voxels


REFUSED: dict[str, tuple[Callable[[], np.ndarray], tuple[float, float, float], str]] = {
    "spacing in micrometres": (intensities, (1500, 1500, 2000), "measures"),
    "spacing in metres": (intensities, (0.0015, 0.0015, 0.002), "measures"),
    "NaN": (lambda: with_voxel(np.nan), SPACING, "holds 1 NaN or infinite voxels"),
    "infinite": (lambda: with_voxel(-np.inf), SPACING, "holds 1 NaN or infinite voxels"),
    "huge": (lambda: with_voxel(1e39), SPACING, "beyond 3e38"),
    "constant": (lambda: np.full(SHAPE, 7, np.int16), SPACING, "is blank"),
    "two slices": (lambda: intensities((2, 12, 10)), SPACING, "is too small"),
    "one slice": (lambda: intensities((1, 12, 10)), SPACING, "holds one slice only"),
    "one voxel": (lambda: intensities((1, 1, 1)), SPACING, "holds a single voxel"),
    "two channels": (lambda: np.stack([intensities()] * 2, axis=-1), SPACING, "holds 2 volumes (4D)"),
}
"""Voxels (K, J, I) or (K, J, I, C), the spacing in mm, and a part of the refusal, by the kind of scan."""


def write_scan(path: Path, voxels: np.ndarray, spacing: tuple[float, float, float]) -> Path:
    image = sitk.GetImageFromArray(voxels, isVector=voxels.ndim == 4)
    image.SetSpacing(spacing)
    image.SetDirection((1, 0, 0, 0, 0.6, -0.8, 0, 0.8, 0.6))
    sitk.WriteImage(image, str(path))
    return path


def ask_worker(scan: Path, model: Path, folder: Path) -> list[WorkerEvent]:
    """Serve a request for what SimpleITK, like Slicer, reads from the file; return the worker's events."""
    image = sitk.ReadImage(str(scan))
    folder.mkdir()
    np.save(folder / "volume.npy", sitk.GetArrayFromImage(image))
    request = SegmentRequest(
        str(model), folder / "volume.npy", affine_from_sitk(image), folder, name=scan.name, device="cpu"
    )
    events: list[WorkerEvent] = []
    Worker(events.append).serve(request_line(request))
    return events


def command_messages(scan: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Run the command `segment`; return its exit status and its messages without the scan's name."""
    words = ["segment", scan, "-o", scan.with_name("result.seg.nrrd"), "--model", model, "--device", "cpu"]
    status = cli.main([str(word) for word in words])
    return status, [line.removeprefix(f"dcamt: {scan}: ") for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize("kind", REFUSED)
def test_worker_and_command_refuse_a_scan_with_the_same_sentence(
    kind: str, saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, spacing, words = REFUSED[kind]
    scan = write_scan(tmp_path / "x.nrrd", make(), spacing)
    failed = ask_worker(scan, saved_model, tmp_path / "worker")[-1]
    assert isinstance(failed, RequestFailed)
    assert failed.reason == "input"
    sentence = failed.message.removeprefix(f"{scan.name}: ")
    assert words in sentence
    assert command_messages(scan, saved_model, capsys) == (1, [sentence])


@pytest.mark.parametrize("values", [2, 3])
def test_worker_and_command_question_a_scan_of_few_values_with_the_same_sentence(
    values: int, saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.digitize(intensities(), np.linspace(0, 200, values + 1)[1:-1]).astype(np.uint8)
    scan = write_scan(tmp_path / "x.nrrd", mask, SPACING)
    result = ask_worker(scan, saved_model, tmp_path / "worker")[-1]
    assert isinstance(result, ScanSegmented)
    status, messages = command_messages(scan, saved_model, capsys)
    assert status == 0
    question = f"The scan has only {values} different intensities, like a label. Check that the file is the scan."
    assert question in result.notes
    assert question in messages


def command_labels(scan: Path, model: Path) -> np.ndarray:
    """Return the labels (K, J, I) that the command `segment` writes, read by SimpleITK."""
    result = scan.with_name("result.nrrd")
    assert cli.main([*map(str, ("segment", scan, "-o", result, "--model", model, "--device", "cpu"))]) == 0
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(result))))


@pytest.mark.parametrize("name", ["x.nrrd", "x.nii.gz", "x.mha", "thin.nii.gz"])
def test_worker_and_command_give_the_same_labels(name: str, saved_model: Path, tmp_path: Path) -> None:
    voxels = intensities((3, 12, 10) if name.startswith("thin") else SHAPE)
    scan = write_scan(tmp_path / name, voxels, SPACING)
    result = ask_worker(scan, saved_model, tmp_path / "worker")[-1]
    assert isinstance(result, ScanSegmented)
    np.testing.assert_array_equal(np.load(result.labelmap), command_labels(scan, saved_model))


def two_channel_model(folder: Path) -> Path:
    recipe = replace(tiny_recipe(), input_channels=2)
    torch.manual_seed(0)
    save_model(folder / "two.dcamt", DualVNet(recipe).state_dict(), recipe, BLANK_CARD)
    return folder / "two.dcamt"


def test_worker_and_command_give_the_same_labels_for_two_channels(tmp_path: Path) -> None:
    """The worker gets both channels in one array, as the panel sends them; the command gets one file for each."""
    model, channels = two_channel_model(tmp_path), [intensities(), intensities()[::-1] ** 2]
    both = write_scan(tmp_path / "both.nrrd", np.stack(channels, axis=-1), SPACING)
    result = ask_worker(both, model, tmp_path / "worker")[-1]
    assert isinstance(result, ScanSegmented)
    for number, voxels in enumerate(channels):
        write_scan(tmp_path / f"x_{number:04d}.nrrd", voxels, SPACING)
    labels = command_labels(tmp_path / "x_0000.nrrd", model)
    np.testing.assert_array_equal(np.load(result.labelmap), labels)
    for number, voxels in enumerate(channels[::-1]):
        write_scan(tmp_path / f"y_{number:04d}.nrrd", voxels, SPACING)
    (tmp_path / "result.nrrd").unlink()
    assert not np.array_equal(command_labels(tmp_path / "y_0000.nrrd", model), labels)  # the order matters


def test_worker_and_command_refuse_a_scan_of_one_channel_for_a_model_of_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = two_channel_model(tmp_path)
    scan = write_scan(tmp_path / "x.nrrd", intensities(), SPACING)
    failed = ask_worker(scan, model, tmp_path / "worker")[-1]
    assert isinstance(failed, RequestFailed)
    sentence = failed.message.removeprefix(f"{scan.name}: ")
    assert sentence.startswith("holds one channel, but 2 are needed. ")
    assert command_messages(scan, model, capsys) == (1, [sentence])
