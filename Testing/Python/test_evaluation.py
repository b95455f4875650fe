"""Scores equal those of medpy, of brute force and of formulas.

Files of two folders are paired, and their scores are averaged. Errors name unusable files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dcamt.cases.label_pairing import labelmaps_by_case
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.dicom_files import SEGMENTATION_CLASSES
from dcamt.io.readers import read_labelmap
from dcamt.io.writers import write_labelmap, write_volume
from dcamt.metrics.evaluation import (
    SCORE_COLUMNS,
    EvaluationRow,
    evaluate_folders,
    summarize_rows,
)
from dcamt.metrics.scores import BOTH_EMPTY, SegmentationScore, score
from dcamt.volume import Code, Labelmap, SegmentInfo, Volume
from dcamt_testing.dicom_positions import REPORT, new_data_set
from dcamt_testing.synthetic import read_table
from scipy import ndimage
from scipy.spatial.distance import cdist

SPACINGS = [(1.0, 1.0, 1.0), (0.625, 0.625, 0.625), (0.625, 0.625, 2.5), (3.0, 0.7, 1.1)]
AFFINE = np.array([[0.0, -0.75, 0.0, 11.0], [1.25, 0.0, 0.0, -5.0], [0.0, 0.0, 2.5, 3.0], [0.0, 0.0, 0.0, 1.0]])


def random_mask(seed: int, shape: tuple[int, ...] = (22, 25, 18), fraction: float = 0.12) -> np.ndarray:
    """Return the mask of a few smooth random blobs that fill `fraction` of the image."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5)
    return noise > np.quantile(noise, 1.0 - fraction)


def assert_same_score(one: SegmentationScore, other: SegmentationScore) -> None:
    for name in SegmentationScore.__dataclass_fields__:
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-12, nan_ok=True), name


@pytest.mark.parametrize("spacing", SPACINGS)
def test_scores_equal_the_results_of_medpy(spacing: tuple[float, float, float]) -> None:
    medpy = pytest.importorskip("medpy.metric.binary")
    for seed in range(6):
        prediction = random_mask(seed)
        label = np.roll(prediction, 2, axis=seed % 3) | random_mask(seed + 50, fraction=0.01)
        scores = score(prediction, label, spacing)
        assert scores.dice == pytest.approx(medpy.dc(prediction, label))
        assert scores.jaccard == pytest.approx(medpy.jc(prediction, label))
        for unit, steps in (("mm", spacing), ("voxels", None)):
            for name in ("hd95", "asd", "assd"):
                expected = getattr(medpy, name)(prediction, label, voxelspacing=steps)
                assert getattr(scores, f"{name}_{unit}") == pytest.approx(expected, rel=1e-9), (name, unit)


def test_surface_distances_equal_brute_force_over_all_pairs() -> None:
    """The test finds surface voxels by comparing neighbours, and computes the distances of all pairs."""

    def surface(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        shifted = [np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (-1, 1)]
        return np.argwhere(mask & ~np.all(shifted, axis=0)).astype(float)

    spacing = np.array([0.625, 0.8, 2.5])
    prediction, label = random_mask(1), random_mask(2)
    scores = score(prediction, label, spacing)
    for unit, steps in (("mm", spacing), ("voxels", np.ones(3))):
        pairs = cdist(surface(prediction) * steps, surface(label) * steps)
        there, back = pairs.min(axis=1), pairs.min(axis=0)
        pooled = np.concatenate([there, back])
        assert getattr(scores, f"asd_{unit}") == pytest.approx(there.mean())
        assert getattr(scores, f"assd_{unit}") == pytest.approx(pooled.mean())
        assert getattr(scores, f"hd95_{unit}") == pytest.approx(np.percentile(pooled, 95))
    assert scores.asd_mm != pytest.approx(score(label, prediction, spacing).asd_mm)


def test_distances_of_parallel_slabs_equal_their_separation() -> None:
    """Two slabs are one voxel thick and 3 voxels apart. The spacing is 2 mm, so every surface distance is 6 mm."""
    prediction, label = np.zeros((2, 12, 12, 12), dtype=bool)
    prediction[3] = label[6] = True
    scores = score(prediction, label, (2.0, 1.0, 1.0))
    assert_same_score(scores, SegmentationScore(0.0, 0.0, 6.0, 6.0, 6.0, 3.0, 3.0, 3.0))


def test_scores_do_not_depend_on_cropping_or_axis_order() -> None:
    prediction, label = random_mask(3), random_mask(4)
    inner = score(prediction, label, (0.7, 0.9, 2.0))
    assert_same_score(score(np.pad(prediction, 7), np.pad(label, 7), (0.7, 0.9, 2.0)), inner)
    turned = [mask.transpose(2, 0, 1)[:, ::-1] for mask in (prediction, label)]
    assert_same_score(score(*turned, (2.0, 0.7, 0.9)), inner)


def test_equal_masks_score_1_and_distances_to_an_empty_mask_are_undefined() -> None:
    nothing, something = np.zeros((8, 8, 8), dtype=bool), np.zeros((8, 8, 8), dtype=bool)
    something[2:5, 2:5, 2:5] = True
    nan = float("nan")
    assert_same_score(score(nothing, nothing, (1, 1, 2)), SegmentationScore(1.0, 1.0, *[0.0] * 6))
    assert_same_score(score(something, something, (1, 1, 2)), SegmentationScore(1.0, 1.0, *[0.0] * 6))
    assert_same_score(score(nothing, something, (1, 1, 2)), SegmentationScore(0.0, 0.0, *[nan] * 6))
    assert_same_score(score(something, nothing, (1, 1, 2)), SegmentationScore(0.0, 0.0, *[nan] * 6))
    with pytest.raises(ValueError, match="differ in shape"):
        score(nothing, something[1:], (1, 1, 2))


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    """Write label values (I, J, K)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labelmap(Labelmap(voxels.astype(np.uint8), Grid(voxels.shape, affine), None), path, ())


def two_classes(seed: int) -> np.ndarray:
    """Return random label values 0, 1 and 2."""
    voxels = random_mask(seed).astype(np.uint8)
    voxels[random_mask(seed + 90, fraction=0.05)] = 2
    return voxels


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Write predictions and labels of two classes for the cases la000 to la002."""
    predictions, labels = tmp_path / "predictions", tmp_path / "labels"
    for number in range(3):
        save(labels / f"la00{number}_label.nii.gz", two_classes(number))
        save(predictions / f"la00{number}_image.nrrd", two_classes(number + 10))
    return predictions, labels


def test_files_of_two_folders_are_paired_scored_and_averaged(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, labels = folders
    save(labels / "la001_image.nii.gz", np.arange(22 * 25 * 18).reshape(22, 25, 18) % 200)
    (labels / "cases.csv").write_text("case\n", encoding="utf-8")
    (labels / ".hidden.nii.gz").write_text("", encoding="utf-8")
    # Class 2 is absent from one prediction, so its distances are undefined.
    save(predictions / "la001_image.nrrd", np.where(two_classes(11) == 2, 0, two_classes(11)))
    seen: list[tuple[int, int]] = []
    evaluation = evaluate_folders(predictions, labels, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert [(row.case, row.label) for row in evaluation.rows] == [(f"la00{n}", c) for n in range(3) for c in (1, 2)]
    for number, row in ((0, evaluation.rows[0]), (2, evaluation.rows[4])):
        prediction, label = two_classes(number + 10) == 1, two_classes(number) == 1
        # The spacings are the lengths of AFFINE's columns.
        assert_same_score(row.score, score(prediction, label, (1.25, 0.75, 2.5)))
        assert row.prediction_volume_ml == pytest.approx(prediction.sum() * 1.25 * 0.75 * 2.5 / 1000)
        assert row.label_volume_ml == pytest.approx(label.sum() * 1.25 * 0.75 * 2.5 / 1000)
    dice = [row.score.dice for row in evaluation.rows if row.label == 2]
    hd95 = [row.score.hd95_mm for row in evaluation.rows if row.label == 2]
    assert dice[1] == 0.0
    assert np.isnan(hd95[1])
    assert evaluation.mean[1].score.dice == pytest.approx(np.mean(dice))
    assert evaluation.mean[1].score.hd95_mm == pytest.approx((hd95[0] + hd95[2]) / 2)
    assert evaluation.std[1].score.hd95_mm == pytest.approx(abs(hd95[0] - hd95[2]) / 2)
    assert [row.undefined for row in evaluation.mean] == [0, 1]
    assert evaluation.unscored_labels == ()

    evaluation.write_csv(tmp_path / "evaluation.csv")
    rows = read_table(tmp_path / "evaluation.csv")
    assert tuple(rows[0]) == SCORE_COLUMNS
    assert [row["case"] for row in rows[-4:]] == ["mean", "mean", "std", "std"]
    assert float(rows[0]["dice"]) == pytest.approx(evaluation.rows[0].score.dice, rel=1e-5)
    assert rows[3]["hd95_mm"] == ""
    assert rows[3]["dice"] == "0"
    assert rows[3]["undefined"] == "1"


def test_predictions_in_the_label_folder_are_not_taken_for_labels(tmp_path: Path) -> None:
    grid = Grid((8, 9, 10), np.eye(4))
    mask = np.zeros(grid.shape, np.uint8)
    mask[2:5, 2:5, 2:5] = 1
    segments = (SegmentInfo(1, "LA", (1.0, 0.0, 0.0), Code("SCT", "82471001", "Left atrium")),)
    for patient in ("p1", "p2"):
        write_labelmap(Labelmap(mask, grid), tmp_path / patient / "laendo.nrrd", segments)
        write_labelmap(Labelmap(mask, grid), tmp_path / "segmentations" / f"{patient}.seg.nrrd", segments)
        noise = np.random.default_rng(0).integers(0, 500, (1, *grid.shape)).astype(np.int16)
        write_volume(Volume(noise, grid), tmp_path / patient / "lgemri.nrrd")
    evaluation = evaluate_folders(tmp_path / "segmentations", tmp_path)
    assert [(row.case, row.score.dice) for row in evaluation.rows] == [("p1", 1.0), ("p2", 1.0)]
    # The labels in the subfolders are found even if the folder itself holds a scan.
    write_volume(Volume(noise, grid), tmp_path / "average.nrrd")
    assert evaluate_folders(tmp_path / "segmentations", tmp_path) == evaluation
    with pytest.raises(InputError, match=r"several labels for one scan \(p1/laendo\.nrrd, segmentations/p1"):
        labelmaps_by_case(tmp_path)


def test_prediction_p1_is_compared_with_the_only_label_below_the_folder_p1(tmp_path: Path) -> None:
    grid = Grid((8, 9, 10), np.eye(4))
    segments = (SegmentInfo(1, "LA", (1.0, 0.0, 0.0), Code("SCT", "82471001", "Left atrium")),)
    for number, patient in enumerate(("p1", "p2")):
        mask = np.zeros(grid.shape, np.uint8)
        mask[2 + number : 6, 2:5, 2:5] = 1
        write_labelmap(Labelmap(mask, grid), tmp_path / "data" / patient / "visit" / "S1_label.nrrd", segments)
        write_labelmap(Labelmap(mask, grid), tmp_path / "results" / f"{patient}.seg.nrrd", segments)
        noise = np.random.default_rng(0).integers(0, 500, (1, *grid.shape)).astype(np.int16)
        write_volume(Volume(noise, grid), tmp_path / "data" / patient / "visit" / "S1.nrrd")
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "data")
    assert [(row.case, row.score.dice) for row in evaluation.rows] == [("p1", 1.0), ("p2", 1.0)]
    # Results of another model, which lie beside the folders of patients, are not used as labels.
    other = Labelmap(np.ones(grid.shape, np.uint8), grid)
    for patient in ("p1", "p2"):
        label = tmp_path / "data" / patient / "visit" / "S1_label.nrrd"
        label.write_bytes(label.read_bytes().replace(b"DCAMT:=", b"Other:="))
        write_labelmap(other, tmp_path / "data" / f"{patient}.seg.nrrd", segments)
    assert evaluate_folders(tmp_path / "results", tmp_path / "data") == evaluation


def test_class_in_neither_label_nor_prediction_scores_1_and_unscored_values_are_reported(
    folders: tuple[Path, Path],
) -> None:
    predictions, labels = folders
    for path in (labels / "la000_label.nii.gz", predictions / "la000_image.nrrd"):
        save(path, random_mask(0))
    foreign = two_classes(12)
    foreign[0, 0, :3] = 7
    save(predictions / "la002_image.nrrd", foreign)
    evaluation = evaluate_folders(predictions, labels)
    assert (evaluation.rows[1].case, evaluation.rows[1].label) == ("la000", 2)
    assert_same_score(evaluation.rows[1].score, SegmentationScore(1.0, 1.0, *[0.0] * 6))
    assert evaluation.unscored_labels == (7,)
    assert {row.label for row in evaluation.rows} == {1, 2}


def test_label_without_prediction_is_skipped_and_named(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    (predictions / "la001_image.nrrd").unlink()
    (labels / "la007_label.nii.gz").write_text("never read", encoding="utf-8")
    evaluation = evaluate_folders(predictions, labels)
    assert evaluation.labels_without_prediction == ("la001", "la007")
    assert {row.case for row in evaluation.rows} == {"la000", "la002"}
    expected = np.mean([row.score.dice for row in evaluation.rows if row.label == 1])
    assert evaluation.mean[0].score.dice == pytest.approx(expected)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (1, 0, 2)])
def test_prediction_with_other_axis_order_is_reoriented_exactly(folders: tuple[Path, Path], order: tuple) -> None:
    """SimpleITK reorders the axes of the file, independently of the engine's geometry."""
    sitk = pytest.importorskip("SimpleITK")
    predictions, labels = folders
    expected = evaluate_folders(predictions, labels)
    path = predictions / "la001_image.nrrd"
    image = sitk.Flip(sitk.PermuteAxes(sitk.ReadImage(str(path)), order), (True, False, True))
    sitk.WriteImage(image, str(path))
    evaluation = evaluate_folders(predictions, labels)
    for row, wanted in zip(evaluation.rows, expected.rows, strict=True):
        assert_same_score(row.score, wanted.score)


def assert_refused(folders: tuple[Path, Path], *message_parts: str) -> None:
    with pytest.raises(InputError) as caught:
        evaluate_folders(*folders)
    message = str(caught.value)
    assert "\n" not in message
    for part in message_parts:
        assert part in message


def test_errors_name_the_unusable_file_or_folder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, labels = folders
    save(predictions / "x7.nii.gz", random_mask(1))
    assert_refused(folders, "x7.nii.gz", "no label")
    (predictions / "x7.nii.gz").rename(predictions / "la002.nii.gz")
    assert_refused((predictions, labels), "la002.nii.gz", "la002_image.nrrd", "same case")
    (predictions / "la002.nii.gz").unlink()
    assert_refused((tmp_path / "nowhere", labels), "nowhere", "not a folder")
    (tmp_path / "empty").mkdir()
    assert_refused((predictions, tmp_path / "empty"), "empty", "no segmentation")
    (predictions / "la000_image.nrrd").write_bytes(b"")
    assert_refused((predictions, labels), "la000_image.nrrd")


def test_prediction_that_is_its_own_label_is_refused(folders: tuple[Path, Path]) -> None:
    assert_refused(
        (folders[0], folders[0]), "la000_image.nrrd", "was given both as the prediction and as the label of its case"
    )


def test_dicom_segmentations_are_predictions_and_reports_are_not(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, labels = tmp_path / "dicom", folders[1]
    predictions.mkdir()
    for kind, name in ((SEGMENTATION_CLASSES[0], "la000_image.dcm"), (REPORT, "la000_image_report.dcm")):
        new_data_set(kind).save_as(predictions / name, enforce_file_format=True)
    assert labelmaps_by_case(predictions) == {"la000": predictions / "la000_image.dcm"}
    (predictions / "la000_image.dcm").unlink()
    assert_refused((predictions, labels), "holds no segmentation", ".dcm")
    (predictions / "fold0").mkdir()
    (predictions / "fold0/a.nii.gz").touch()
    assert_refused((predictions, labels), "folders below it do (fold0/a.nii.gz)", "into one folder")


@pytest.mark.parametrize("data", [b"", bytes(3000)], ids=["empty", "zeros"])
def test_damaged_dicom_segmentation_among_others_is_refused(tmp_path: Path, data: bytes) -> None:
    predictions = tmp_path / "dicom"
    predictions.mkdir()
    new_data_set(SEGMENTATION_CLASSES[0]).save_as(predictions / "la000_image.dcm", enforce_file_format=True)
    (predictions / "la001_image.dcm").write_bytes(data)
    found = labelmaps_by_case(predictions)
    assert found == {name: predictions / f"{name}_image.dcm" for name in ("la000", "la001")}
    with pytest.raises(InputError, match=r"la001_image\.dcm: is (an empty file|not an image)"):
        read_labelmap(found["la001"])


@pytest.mark.parametrize(
    "change",
    [
        np.diag([1.01, 1.0, 1.0, 1.0]),
        np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]),
        np.array([[1.0, 0.1, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]),
        np.diag([-1.0, 1.0, 1.0, 1.0]),
    ],
    ids=["spacing", "shift", "shear", "mirrored"],
)
def test_prediction_on_another_grid_is_refused(folders: tuple[Path, Path], change: np.ndarray) -> None:
    save(folders[0] / "la001_image.nrrd", two_classes(11), AFFINE @ change)
    assert_refused(folders, "la001_image.nrrd", "la001_label.nii.gz", "a different grid")


def test_prediction_of_another_size_is_refused(folders: tuple[Path, Path]) -> None:
    save(folders[0] / "la001_image.nrrd", two_classes(11)[:-1])
    assert_refused(folders, "la001_image.nrrd", "21 x 25 x 18", "22 x 25 x 18")


@pytest.mark.parametrize("white", ["labels", "predictions", "both"])
def test_masks_of_255_and_of_1_are_comparable(folders: tuple[Path, Path], white: str) -> None:
    predictions, labels = folders
    for number in range(3):
        label = random_mask(number) if number else np.zeros((22, 25, 18))  # one label is empty
        save(labels / f"la00{number}_label.nii.gz", label * (255 if white != "predictions" else 1))
        save(predictions / f"la00{number}_image.nrrd", random_mask(number + 10) * (255 if white != "labels" else 1))
    evaluation = evaluate_folders(predictions, labels)
    assert [row.label for row in evaluation.rows] == [1, 1, 1]
    assert_same_score(evaluation.rows[2].score, score(random_mask(12), random_mask(2), (1.25, 0.75, 2.5)))


def test_value_255_beside_other_values_is_another_class(folders: tuple[Path, Path]) -> None:
    """One label also holds 128. Therefore 255 is not read as 1, even in the cases that hold only 255."""
    predictions, labels = folders
    for number, value in enumerate((128, 0, 0)):
        mask = random_mask(number) * 255
        mask[0, 0, 0] = value
        save(labels / f"la00{number}_label.nii.gz", mask)
        save(predictions / f"la00{number}_image.nrrd", random_mask(number + 10) * 255)
    scores = {(row.case, row.label): row.score for row in evaluate_folders(predictions, labels).rows}
    assert {value for _case, value in scores} == {128, 255}
    assert_same_score(scores["la002", 255], score(random_mask(12), random_mask(2), (1.25, 0.75, 2.5)))


def test_empty_labels_and_labels_of_other_classes_are_refused(folders: tuple[Path, Path]) -> None:
    _predictions, labels = folders
    for number in range(3):
        save(labels / f"la00{number}_label.nii.gz", random_mask(number) * 255)
    assert_refused(folders, "1, 2", "255")  # the values of the predictions, and of the labels
    for number in range(3):
        save(labels / f"la00{number}_label.nii.gz", np.zeros((22, 25, 18)))
    assert_refused(folders, "all labels are empty")


def scan_voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, two_classes(0).shape)


@pytest.mark.parametrize("name", ["predictions/la000_image.nrrd", "labels/la000_label.nii.gz"])
def test_scan_in_place_of_a_label_or_prediction_is_refused(folders: tuple[Path, Path], name: str) -> None:
    save(folders[0].parent / name, scan_voxels())
    message = rf"{name}: is probably a scan: it holds \d+ different values, but its \w+ holds 2\. Choose the labelmap"
    with pytest.raises(InputError, match=message):
        evaluate_folders(*folders)


def test_several_labels_that_fit_a_prediction_are_named(folders: tuple[Path, Path]) -> None:
    label = folders[1] / "la000_label.nii.gz"
    save(folders[1] / "la000_LA_final.nii.gz", two_classes(0))
    label.rename(folders[1] / "LA000_LA.nii.gz")
    assert_refused(folders, "la000_image.nrrd", "has several labels in", "LA000_LA.nii.gz, la000_LA_final.nii.gz. Keep")


def test_labelmaps_of_many_values_are_scored(folders: tuple[Path, Path]) -> None:
    for path in (folders[0] / "la000_image.nrrd", folders[1] / "la000_label.nii.gz"):
        save(path, scan_voxels())
    assert len(evaluate_folders(*folders).mean) == 255


def test_mask_is_preferred_to_its_scan_if_neither_name_says_label(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    (labels / "la000_label.nii.gz").rename(labels / "la000_LA.nii.gz")
    expected = evaluate_folders(predictions, labels)
    save(labels / "la000.nrrd", scan_voxels())
    assert evaluate_folders(predictions, labels) == expected


@pytest.mark.parametrize("word", ["pred", "confidence", "prob"])
def test_automatic_result_beside_a_label_is_not_taken_for_the_label(folders: tuple[Path, Path], word: str) -> None:
    predictions, labels = folders
    for path in list(labels.iterdir()):
        path.rename(labels / path.name.replace("_label", ""))
    expected = evaluate_folders(predictions, labels)
    save(labels / f"la000_{word}.nii.gz", two_classes(9))
    assert evaluate_folders(predictions, labels) == expected


def test_two_outlines_of_a_case_in_the_folder_of_labels_are_refused(tmp_path: Path) -> None:
    mask = random_mask(1)
    for file in ("pred/p1.nii.gz", "lab/p1.nrrd", "lab/p1_seg.nii.gz"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        write_labelmap(Labelmap(mask.astype(np.uint8), Grid(mask.shape, AFFINE)), tmp_path / file)
    with pytest.raises(InputError, match=r"belongs to the same case \(p1\)"):
        evaluate_folders(tmp_path / "pred", tmp_path / "lab")


def test_label_of_20_values_beside_labels_of_3_is_not_taken_for_a_scan(tmp_path: Path) -> None:
    for number, count in enumerate((20, 3, 3)):
        voxels = (np.arange(8**3) % count).astype(np.uint8).reshape(8, 8, 8)
        for folder in ("pred", "lab"):
            save(tmp_path / folder / f"p{number}.nii.gz", voxels, np.eye(4))
    rows = evaluate_folders(tmp_path / "pred", tmp_path / "lab").rows
    assert {row.case for row in rows} == {"p0", "p1", "p2"}


def test_means_are_given_with_the_number_of_missed_cases(tmp_path: Path) -> None:
    """One case is segmented 4 mm off, one is missed, and in one both label and prediction are empty."""
    mask = np.pad(np.ones((9, 9, 9), np.uint8), 12)
    for name, predicted, label in (
        ("found", np.roll(mask, 4, 0), mask),
        ("missed", mask * 0, mask),
        ("none_there", mask * 0, mask * 0),
    ):
        save(tmp_path / "pred" / f"{name}.nii.gz", predicted, np.eye(4))
        save(tmp_path / "lab" / f"{name}.nii.gz", label, np.eye(4))
    evaluation = evaluate_folders(tmp_path / "pred", tmp_path / "lab")
    (mean,), (std,) = evaluation.mean, evaluation.std
    assert (mean.cases, mean.undefined, mean.missed, mean.empty) == (3, 1, 1, 1)
    assert mean.title == "mean (95HD of 2 of 3 cases, 1 missed)"
    assert std.title == "std (95HD of 2 of 3 cases, 1 missed)"
    assert mean.score.hd95_mm == pytest.approx((4 + 0) / 2)
    assert [row.title for row in evaluation.rows] == ["found", "missed", "none_there"]
    evaluation.write_csv(tmp_path / "scores.csv")
    rows = {row["case"]: row for row in read_table(tmp_path / "scores.csv")}
    assert [rows["mean"][name] for name in ("undefined", "cases", "missed", "empty")] == ["1", "3", "1", "1"]


def test_single_value_has_no_standard_deviation(tmp_path: Path) -> None:
    mask = np.pad(np.ones((9, 9, 9), np.uint8), 12)
    for folder in ("pred", "lab"):
        save(tmp_path / folder / "one.nii.gz", mask, np.eye(4))
    evaluation = evaluate_folders(tmp_path / "pred", tmp_path / "lab")
    assert evaluation.std == ()
    evaluation.write_csv(tmp_path / "scores.csv")
    written = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert [line.partition(",")[0] for line in written] == ["case", "one", "mean"]
    # One of two cases is missed: distances have one value and therefore no deviation; Dice has two values.
    save(tmp_path / "pred" / "two.nii.gz", mask * 0, np.eye(4))
    save(tmp_path / "lab" / "two.nii.gz", mask, np.eye(4))
    (std,) = evaluate_folders(tmp_path / "pred", tmp_path / "lab").std
    assert np.isnan(std.score.hd95_mm)
    assert std.score.dice == pytest.approx(0.5)


def test_prediction_of_an_absent_structure_does_not_count_as_missed() -> None:
    row = EvaluationRow("mean", 1, SegmentationScore(*[0.5] * 8), 1.0, 1.0, 2, cases=5, missed=1)
    assert row.title == "mean (95HD of 3 of 5 cases, 1 missed, 1 without label)"


@pytest.mark.parametrize(
    ("prediction", "label"),
    [
        ("la_001_0000.nii.gz", "la_001.nii.gz"),
        ("1.3.6.1.4.1.14519.5.2.1.1.nii.gz", "1.3.6.1.4.1.14519.5.2.1.1.nii.gz"),
        ("site2.1_p01.seg.nrrd", "site2.1_p01_gt.nii.gz"),
        ("seg_p1.nii.gz", "gt_p1.nii.gz"),
        ("img0001.nii.gz", "label0001.nii.gz"),
        ("p1_image_seg.nii.gz", "p1_label.nii.gz"),
        ("M\u00fcller.nii.gz", "Mu\u0308ller_gt.nii.gz"),
        ("p1_LGE.nii.gz", "p1_LA.nii.gz"),
        ("p1_lge.nii.gz", "P1_LA_seg.nii.gz"),
        ("p1.seg.nrrd", "p1 Segmentation 1.nrrd"),
        ("p1.seg.nrrd", "p1-Segment_1-label.nrrd"),
        ("p1_LGE.seg.nrrd", "p1_LA_label_final_v2.nii.gz"),
        ("sub-01_T1w.seg.nrrd", "sub-01_T1w_label-LA_mask.nii.gz"),
        ("sub-01_T1w.seg.nrrd", "sub-01_label-LA_desc-manual_mask.nii.gz"),
        ("la_001/la_001_trans.nii.gz", "la_001.nii.gz"),
        ("la_001/la_001_seg.nii.gz", "la_001_label.nii.gz"),
        ("la_001_image/la_001_image_trans.nii.gz", "la_001_label.nii.gz"),
        ("p1/prediction.nii.gz", "p1.nii.gz"),
        ("p1.nii.gz", "p1/LA.nii.gz"),
        ("p1_lge.seg.nrrd", "p1/Segmentation.nrrd"),
        ("p1/p1_trans.nii.gz", "p1/mask_LA_JS.nii.gz"),
    ],
)
def test_files_of_the_same_case_are_paired(tmp_path: Path, prediction: str, label: str) -> None:
    (tmp_path / "pred" / prediction).parent.mkdir(parents=True)
    segments = (SegmentInfo(1, "LA", (1.0, 0.0, 0.0), Code("SCT", "82471001", "Left atrium")),)
    write_labelmap(
        Labelmap(random_mask(1).astype(np.uint8), Grid((22, 25, 18), AFFINE), None),
        tmp_path / "pred" / prediction,
        segments,
    )
    save(tmp_path / "lab" / label, random_mask(1))
    (row,) = evaluate_folders(tmp_path / "pred", tmp_path / "lab").rows
    assert row.score.dice == 1


@pytest.mark.parametrize(
    ("prediction", "label"),
    [
        ("site2.1_patient01.nii.gz", "site2.9_patient77.nii.gz"),
        ("patient_2019.nii.gz", "patient_2020.nii.gz"),
        ("p1.nii.gz", "p10.nii.gz"),
        ("p1_RV.nii.gz", "p1_LV.nii.gz"),
        ("p1_LGE.nii.gz", "p1_RA.nii.gz"),
        ("p1_LGE.nii.gz", "p1_cine_LA.nii.gz"),
        ("segmentation.nii.gz", "label.nii.gz"),
    ],
)
def test_files_of_different_cases_are_not_paired(tmp_path: Path, prediction: str, label: str) -> None:
    save(tmp_path / "pred" / prediction, random_mask(1))
    save(tmp_path / "lab" / label, random_mask(1))
    with pytest.raises(InputError, match="has no label in"):
        evaluate_folders(tmp_path / "pred", tmp_path / "lab")


def test_distance_that_is_undefined_in_every_case_has_no_mean(tmp_path: Path) -> None:
    missed = score(np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool), (1.0, 1.0, 1.0))
    rows = [EvaluationRow(name, 1, missed, 0.0, 1.0, undefined=1, missed=1) for name in ("a", "b")]
    summary = summarize_rows(rows)
    assert summary.mean[0].score.dice == 0
    assert np.isnan([summary.mean[0].score.hd95_mm, summary.mean[0].score.asd_mm, summary.std[0].score.hd95_mm]).all()
    assert summary.mean[0].title == "mean (95HD of 0 of 2 cases, 2 missed)"
    summary.write_csv(tmp_path / "scores.csv")
    assert {row["hd95_mm"] for row in read_table(tmp_path / "scores.csv")} == {""}


def test_case_numbered_0000_is_paired_by_its_whole_name(tmp_path: Path) -> None:
    """The scans of the cases x_0000 and x_0001 are x_0000_0000 and x_0001_0000; results are named like the scans."""
    grid = Grid((12, 12, 12), np.eye(4))
    for number in range(2):
        mask = np.zeros(grid.shape, np.uint8)
        mask[2 : 6 + number, 2:8, 2:8] = 1
        write_labelmap(Labelmap(mask, grid), tmp_path / "results" / f"x_{number:04d}_0000.nii.gz")
        write_labelmap(Labelmap(mask, grid), tmp_path / "labels" / f"x_{number:04d}.nii.gz")
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "labels")
    assert [(row.case, row.score.dice) for row in evaluation.rows] == [("x_0000", 1.0), ("x_0001", 1.0)]


def test_result_x_0000_is_paired_with_the_mask_beside_the_scan_x_0000(tmp_path: Path) -> None:
    for name in ("x_0000", "x_0001"):
        save(tmp_path / "labels" / f"{name}.nii.gz", scan_voxels())
        for file in (f"results/{name}.nii.gz", f"labels/{name}_LA.nii.gz"):
            save(tmp_path / file, two_classes(9))
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "labels")
    assert {row.case for row in evaluation.rows} == {"x", "x_0001"}
    assert not evaluation.labels_without_prediction


@pytest.mark.parametrize(
    ("scan", "label"),
    [
        ("x{}_0000.nii.gz", "x{}.nii.gz"),
        ("volume-{}.nii", "segmentation-{}.nii"),
        ("p{} (1).nii.gz", "p{}_seg (1).nii.gz"),
        ("p{}_LGE.nii.gz", "p{}_LA.nii.gz"),
        ("p{}.nii.gz", "p{}.nrrd"),
    ],
)
def test_scans_beside_the_labels_are_skipped(tmp_path: Path, scan: str, label: str) -> None:
    for number in (1, 2):
        save(tmp_path / "labels" / scan.format(number), scan_voxels())
        for file in (f"results/{scan.format(number)}", f"labels/{label.format(number)}"):
            save(tmp_path / file, two_classes(number))
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "labels")
    assert [row.score.dice for row in evaluation.rows] == [1, 1, 1, 1]
    assert not evaluation.labels_without_prediction


def test_right_atrium_mask_beside_a_left_atrium_label_is_ignored(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        save(tmp_path / f"results/{patient}.nii.gz", two_classes(1))
        save(tmp_path / f"labels/{patient}/LA.nii.gz", two_classes(1))
        save(tmp_path / f"labels/{patient}/RA.nii.gz", two_classes(2))
    rows = evaluate_folders(tmp_path / "results", tmp_path / "labels").rows
    assert {row.case: row.score.dice for row in rows} == {"p1": 1, "p2": 1}


@pytest.mark.parametrize(
    "files",
    [
        ("p1/p1_trans", "p1/p1_image"),
        ("p1/p1_trans", "p2/aorta"),
        ("p1/LA", "p2/q2_seg"),
        ("p1/p1_RA", "p2/p2_RA"),
        ("p1/001", "p2/001"),
        ("p1/a/p1_trans",),
    ],
)
def test_case_folders_are_refused_unless_each_holds_exactly_one_fitting_file(
    tmp_path: Path, files: tuple[str, ...]
) -> None:
    for file in files:
        save(tmp_path / f"results/{file}.nii.gz", two_classes(1))
        save(tmp_path / f"labels/{file[:2]}.nii.gz", two_classes(1))
    assert_refused((tmp_path / "results", tmp_path / "labels"), "folders below it do", "in the folder of each case")


def test_two_folders_of_one_case_are_refused(tmp_path: Path) -> None:
    for file in ("results/p1/LA", "results/p1_image/LA", "labels/p1"):
        save(tmp_path / f"{file}.nii.gz", two_classes(1))
    assert_refused((tmp_path / "results", tmp_path / "labels"), "belongs to the same case (p1)")


def test_scores_of_many_classes_are_summarised_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [EvaluationRow(f"c{case}", value, BOTH_EMPTY, 0.0, 0.0, 0) for case in range(3) for value in range(1, 61)]
    read: list[str] = []
    get = object.__getattribute__
    monkeypatch.setattr(EvaluationRow, "__getattribute__", lambda row, name: read.append(name) or get(row, name))
    summary = summarize_rows(rows)
    assert [row.label for row in summary.mean] == list(range(1, 61))
    assert read.count("label") < 5 * len(rows)
