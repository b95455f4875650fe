"""Test `dcamt.evaluate` with folders, files and arrays."""

from __future__ import annotations

from pathlib import Path

import dcamt
import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt_testing.dicom_positions import write_slices
from dcamt_testing.scan_files import refused


def test_folders_files_and_arrays_get_the_same_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    labels, predictions = [], []
    grid = dcamt.Grid((12, 14, 10), np.diag([1.5, 2.0, 2.5, 1.0]))
    for name in ("labels", "predictions"):
        (tmp_path / name).mkdir()
    for number in range(2):
        label = np.zeros(grid.shape, np.uint8)
        label[2:9, 3:11, 2:8] = 1
        prediction = np.where(rng.random(grid.shape) < 0.1, 0, label).astype(np.uint8)
        labels.append(label)
        predictions.append(prediction)
        dcamt.write_labelmap(dcamt.Labelmap(label, grid), tmp_path / "labels" / f"c{number}.nii.gz")
        dcamt.write_labelmap(dcamt.Labelmap(prediction, grid), tmp_path / "predictions" / f"c{number}.nii.gz")
    by_folder = dcamt.evaluate(tmp_path / "predictions", tmp_path / "labels")
    by_array = dcamt.evaluate(predictions, labels, spacing=(1.5, 2.0, 2.5))
    by_file = dcamt.evaluate(
        [tmp_path / "predictions" / f"c{n}.nii.gz" for n in range(2)],
        [tmp_path / "labels" / f"c{n}.nii.gz" for n in range(2)],
    )
    # Each prediction lies inside its label, so the Dice follows from the numbers of voxels.
    for row, label, prediction in zip(by_folder.rows, labels, predictions, strict=True):
        predicted, labelled = int(prediction.sum()), int(label.sum())
        assert row.score.dice == pytest.approx(2 * predicted / (predicted + labelled))
        assert row.label_volume_ml == pytest.approx(labelled * 1.5 * 2.0 * 2.5 / 1000)
    assert [row.score for row in by_array.rows] == [row.score for row in by_folder.rows]
    assert [row.score for row in by_file.rows] == [row.score for row in by_folder.rows]
    assert by_array.mean == by_folder.mean
    with pytest.raises(ValueError, match=r"predictions \(2\) differs from the number of labels \(1\)"):
        dcamt.evaluate(predictions, labels[:1], spacing=(1, 1, 1))
    with pytest.raises(ValueError, match="spacing"):
        dcamt.evaluate(predictions, labels)


@pytest.mark.parametrize("kind", ["arrays", "folders"])
def test_evaluate_has_the_same_rules_for_arrays_and_folders(tmp_path: Path, kind: str) -> None:
    label = np.zeros((8, 9, 10), np.uint8)
    label[2:6, 2:7, 3:8] = 1

    def evaluate(prediction: np.ndarray, label: np.ndarray) -> dcamt.Evaluation:
        if kind == "arrays":
            return dcamt.evaluate([prediction], [label], spacing=(1, 1, 1))
        for name, voxels in (("predictions", prediction), ("labels", label)):
            (tmp_path / name).mkdir(exist_ok=True)
            grid = dcamt.Grid((8, 9, 10), np.eye(4))
            dcamt.write_labelmap(dcamt.Labelmap(voxels, grid), tmp_path / name / "c0.nii.gz")
        return dcamt.evaluate(tmp_path / "predictions", tmp_path / "labels")

    (row,) = evaluate(np.roll(label, 1, axis=0) * np.uint8(255), label).rows
    # The label is 4 voxels long, and the prediction is shifted by 1 voxel. The prediction's value 255 counts as 1.
    assert (row.label, row.score.dice) == (1, 0.75)
    with pytest.raises(dcamt.InputError, match="all labels are empty"):
        evaluate(label, label * 0)
    with pytest.raises(dcamt.InputError, match=r"\(3\) do not occur in the labels \(2\)"):
        evaluate(label * 3, label * 2)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    voxels = np.zeros((8, 9, 10), np.uint8)
    voxels[2:6, 2:7, 3:8] = 1
    for name in ("predictions", "labels"):
        (tmp_path / name).mkdir()
        dcamt.write_labelmap(dcamt.Labelmap(voxels, dcamt.Grid(voxels.shape, np.eye(4))), tmp_path / name / "c0.nii.gz")
    return tmp_path / "predictions", tmp_path / "labels"


def test_evaluate_names_the_folder_of_labels_that_does_not_exist(folders: tuple[Path, Path]) -> None:
    missing = folders[1].with_name("missing")
    refused(lambda: dcamt.evaluate(folders[0], missing), missing, "missing: does not exist")


def test_evaluate_refuses_a_folder_together_with_a_file_or_list(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    file = labels / "c0.nii.gz"
    labelmap = dcamt.read_labelmap(file)
    for other in (file, [file], [file, file], labelmap, [labels]):
        refused(lambda other=other: dcamt.evaluate(predictions, other), predictions, "is a folder of files")
    for other in ([file], [file, file], labelmap):
        refused(lambda other=other: dcamt.evaluate(other, labels), labels, "is a folder of files")


def test_evaluate_accepts_a_folder_of_dicom_slices_as_one_labelmap(tmp_path: Path) -> None:
    write_slices(tmp_path / "label", 8)
    voxels = np.asarray(dcamt.read_scan(tmp_path / "label").voxels[0])
    (tmp_path / "label" / "notes.txt").touch()
    dcamt.write_labelmap(dcamt.Labelmap(voxels, dcamt.read_scan(tmp_path / "label").grid), tmp_path / "p.nrrd")
    assert dcamt.evaluate(tmp_path / "label", tmp_path / "p.nrrd").mean[0].score.dice == 1


def test_evaluate_refuses_fractional_labels_and_a_spacing_of_two_numbers() -> None:
    label = np.ones((4, 4, 4), np.uint8)
    with pytest.raises(dcamt.InputError, match="prediction 2: holds fractional values"):
        dcamt.evaluate([label, label * 0.5], [label, label], spacing=(1, 1, 1))
    with pytest.raises(ValueError, match="spacing"):
        dcamt.evaluate(label, label, spacing=(1, 1))


@pytest.mark.parametrize("first", [0.0, -1.0, float("nan"), float("inf")])
def test_evaluate_refuses_a_spacing_that_is_not_positive_and_finite(first: float) -> None:
    label = np.ones((4, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="three positive, finite numbers"):
        dcamt.evaluate(label, label, spacing=(first, 1, 1))


@pytest.mark.parametrize("mm", [0.000625, 625.0])
def test_evaluate_refuses_a_spacing_in_another_unit_than_millimetres(mm: float) -> None:
    array = np.ones((8, 8, 8), np.uint8)
    labelmap = dcamt.Labelmap(array, dcamt.Grid(array.shape, np.diag([mm, mm, mm, 1.0])))
    for label in (array, labelmap):
        with pytest.raises(dcamt.InputError, match=r"^prediction 1: has an implausible size"):
            dcamt.evaluate(label, label, spacing=(mm, mm, mm))


def test_evaluate_refuses_a_file_that_is_prediction_and_label(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    values = np.eye(4, dtype=np.uint8) + 2 * np.eye(4, dtype=np.uint8)[::-1]
    dcamt.write_labelmap(dcamt.Labelmap(values[None].repeat(4, 0), dcamt.Grid((4, 4, 4), np.eye(4))), path)
    with pytest.raises(
        dcamt.InputError, match=r"a\.nii\.gz: was given both as the prediction and as the label of its case"
    ):
        dcamt.evaluate([path], [path])
    # Value 2 of the file may be compared with value 1 of the same file; these values share no voxel.
    (row,) = dcamt.evaluate(path, path, label_mapping="1=1", prediction_mapping="2=1").rows
    assert row.score.dice == 0


def test_evaluate_refuses_a_scan_given_as_label_and_names_its_case() -> None:
    scan = np.arange(1, 513).reshape(8, 8, 8)
    with pytest.raises(dcamt.InputError, match=r"^case 1: is probably a scan: it holds 512 different values"):
        dcamt.evaluate(scan % 2, scan, spacing=(1, 1, 1))


def test_evaluation_without_a_pair_is_refused() -> None:
    with pytest.raises(InputError, match="no pair of a prediction and a label"):
        dcamt.evaluate([], [])
