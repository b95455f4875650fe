"""Write folders of predictions and labels for evaluations, and check refusals and scores."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.writers import write_labelmap
from dcamt.metrics.folder_scoring import evaluate_folders
from dcamt.metrics.scores import SegmentationScore
from dcamt.volume import Labelmap, SegmentInfo
from scipy import ndimage

from dcamt_testing.processes import call_dcamt

AFFINE = np.array([[0.0, -0.75, 0.0, 11.0], [1.25, 0.0, 0.0, -5.0], [0.0, 0.0, 2.5, 3.0], [0.0, 0.0, 0.0, 1.0]])


def random_mask(seed: int, shape: tuple[int, ...] = (22, 25, 18), fraction: float = 0.12) -> np.ndarray:
    """Return the mask of a few smooth random blobs that fill `fraction` of the image."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5)
    return noise > np.quantile(noise, 1.0 - fraction)


def two_classes(seed: int) -> np.ndarray:
    """Return random label values 0, 1 and 2."""
    voxels = random_mask(seed).astype(np.uint8)
    voxels[random_mask(seed + 90, fraction=0.05)] = 2
    return voxels


def scan_voxels() -> np.ndarray:
    """Return noise of many different values."""
    return np.random.default_rng(0).integers(0, 256, two_classes(0).shape)


def save_labels(
    path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE, segments: Sequence[SegmentInfo] = ()
) -> None:
    """Write label values (I, J, K) with DCAMT's mark."""
    write_labelmap(Labelmap(voxels.astype(np.uint8), Grid(voxels.shape, affine)), path, segments, mark=True)


def remove_dcamt_mark(path: Path) -> None:
    """Remove the mark that makes a labelmap a DCAMT result (`dcamt.io.writers.is_dcamt_result`)."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.compress(gzip.decompress(data).replace(b"DCAMT result", b"Other result"))
    path.write_bytes(data.replace(b"DCAMT:=", b"Other:="))


def write_predictions_and_labels(home: Path) -> tuple[Path, Path]:
    """Write predictions and labels of two classes for the cases la000 to la002; return their folders."""
    predictions, labels = home / "predictions", home / "labels"
    for number in range(3):
        save_labels(label := labels / f"la00{number}_label.nii.gz", two_classes(number))
        remove_dcamt_mark(label)
        save_labels(predictions / f"la00{number}_image.nrrd", two_classes(number + 10))
    return predictions, labels


def call_evaluate(folders: tuple[Path, Path], *options: str | Path) -> int:
    return call_dcamt(["evaluate", "--predictions", folders[0], "--labels", folders[1], *options])


def assert_refused(folders: tuple[Path, Path], *message_parts: str) -> None:
    with pytest.raises(InputError) as caught:
        evaluate_folders(*folders)
    message = str(caught.value)
    assert "\n" not in message
    for part in message_parts:
        assert part in message


def assert_one_failure(folders: tuple[Path, Path], *message_parts: str) -> None:
    """Fail unless a case was scored and the only failure is one line that contains all `message_parts`."""
    evaluation = evaluate_folders(*folders)
    assert evaluation.rows
    (message,) = evaluation.failures
    assert "\n" not in message
    for part in message_parts:
        assert part in message


def assert_same_score(one: SegmentationScore, other: SegmentationScore) -> None:
    for name in SegmentationScore.__dataclass_fields__:
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-12, nan_ok=True), name
