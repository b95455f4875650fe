"""Test the evaluation of a folder of predictions against a folder of labels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dcamt.io.readers import read_labelmap
from dcamt.io.writers import write_labelmap
from dcamt.metrics.evaluation import SCORE_COLUMNS, EvaluationRow, summarize_rows
from dcamt.metrics.folder_scoring import evaluate_folders
from dcamt.metrics.pair_reading import LabelMappings
from dcamt.metrics.scores import BOTH_EMPTY, SegmentationScore, score
from dcamt_testing.evaluated_folders import (
    AFFINE,
    assert_one_failure,
    assert_refused,
    assert_same_score,
    random_mask,
    remove_dcamt_mark,
    save_labels,
    scan_voxels,
    two_classes,
    write_predictions_and_labels,
)
from dcamt_testing.synthetic import read_table


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write_predictions_and_labels(tmp_path)


def test_files_of_two_folders_are_paired_scored_and_averaged(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, labels = folders
    save_labels(labels / "la001_image.nii.gz", np.arange(22 * 25 * 18).reshape(22, 25, 18) % 200)
    (labels / "cases.csv").write_text("case\n", encoding="utf-8")
    (labels / ".hidden.nii.gz").write_text("", encoding="utf-8")
    # Class 2 is absent from one prediction, so its distances are undefined.
    save_labels(predictions / "la001_image.nrrd", np.where(two_classes(11) == 2, 0, two_classes(11)))
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


def test_unscored_values_are_reported_and_class_absent_from_both_files_has_dice_1(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    for path in (labels / "la000_label.nii.gz", predictions / "la000_image.nrrd"):
        save_labels(path, random_mask(0))
    foreign = two_classes(12)
    foreign[0, 0, :3] = 7
    save_labels(predictions / "la002_image.nrrd", foreign)
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


def test_errors_name_the_unusable_file_or_folder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, labels = folders
    save_labels(predictions / "x7.nii.gz", random_mask(1))
    (failure,) = evaluate_folders(*folders).failures
    assert failure.startswith(f"{predictions / 'x7.nii.gz'}: has no label in {labels}.")
    (predictions / "x7.nii.gz").rename(predictions / "la002.nii.gz")
    assert_refused((predictions, labels), "la002.nii.gz", "la002_image.nrrd", "same case")
    (predictions / "la002.nii.gz").unlink()
    assert_refused((tmp_path / "nowhere", labels), "nowhere", "does not exist")
    (tmp_path / "empty").mkdir()
    assert_refused((predictions, tmp_path / "empty"), "empty", "no segmentation")
    for path in predictions.iterdir():
        path.write_bytes(b"")
    assert_refused((predictions, labels), "la000_image.nrrd")


@pytest.mark.parametrize("name", ["predictions/la001_image.nrrd", "labels/la001_label.nii.gz"])
@pytest.mark.parametrize("mapping", ["", "1=1,2=2"])
def test_damaged_file_does_not_stop_the_scores_of_the_other_cases(
    folders: tuple[Path, Path], name: str, mapping: str
) -> None:
    sound = evaluate_folders(*folders)
    damaged = folders[0].parent / name
    damaged.write_bytes(damaged.read_bytes()[:-50])
    seen: list[tuple[int, int]] = []
    evaluation = evaluate_folders(*folders, lambda *step: seen.append(step), LabelMappings(mapping, mapping))
    (failure,) = evaluation.failures
    assert failure.startswith(f"{damaged}: ends too early")
    assert evaluation.rows == tuple(row for row in sound.rows if row.case != "la001")
    assert [row.cases for row in evaluation.mean] == [2, 2]
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_255_is_read_as_1_although_one_label_is_damaged(folders: tuple[Path, Path]) -> None:
    for number in range(3):
        save_labels(folders[1] / f"la00{number}_label.nii.gz", random_mask(number) * 255)
        save_labels(folders[0] / f"la00{number}_image.nrrd", random_mask(number))
    (folders[1] / "la000_label.nii.gz").write_bytes(b"")
    evaluation = evaluate_folders(*folders)
    assert [(row.case, row.label, row.score.dice) for row in evaluation.rows] == [("la001", 1, 1.0), ("la002", 1, 1.0)]


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
    save_labels(folders[0] / "la001_image.nrrd", two_classes(11), AFFINE @ change)
    assert_one_failure(folders, "la001_image.nrrd", "la001_label.nii.gz", "a different grid")


def test_prediction_of_another_size_is_refused(folders: tuple[Path, Path]) -> None:
    save_labels(folders[0] / "la001_image.nrrd", two_classes(11)[:-1])
    assert_one_failure(folders, "la001_image.nrrd", "21 x 25 x 18", "22 x 25 x 18")


@pytest.mark.parametrize("white", ["labels", "predictions", "both"])
def test_masks_of_255_and_of_1_are_comparable(folders: tuple[Path, Path], white: str) -> None:
    predictions, labels = folders
    for number in range(3):
        label = random_mask(number) if number else np.zeros((22, 25, 18))
        save_labels(labels / f"la00{number}_label.nii.gz", label * (255 if white != "predictions" else 1))
        save_labels(
            predictions / f"la00{number}_image.nrrd", random_mask(number + 10) * (255 if white != "labels" else 1)
        )
    evaluation = evaluate_folders(predictions, labels)
    assert [row.label for row in evaluation.rows] == [1, 1, 1]
    assert_same_score(evaluation.rows[2].score, score(random_mask(12), random_mask(2), (1.25, 0.75, 2.5)))


def test_255_is_not_read_as_1_if_any_label_holds_another_value(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    for number, value in enumerate((128, 0, 0)):
        mask = random_mask(number) * 255
        mask[0, 0, 0] = value
        save_labels(labels / f"la00{number}_label.nii.gz", mask)
        save_labels(predictions / f"la00{number}_image.nrrd", random_mask(number + 10) * 255)
    scores = {(row.case, row.label): row.score for row in evaluate_folders(predictions, labels).rows}
    assert {value for _case, value in scores} == {128, 255}
    assert_same_score(scores["la002", 255], score(random_mask(12), random_mask(2), (1.25, 0.75, 2.5)))


@pytest.mark.parametrize("masked", ["prediction", "label"])
def test_note_on_a_mask_of_255_advises_a_mapping_to_1(folders: tuple[Path, Path], masked: str) -> None:
    masks = random_mask(0), random_mask(10)
    files = folders[0] / "la000_image.nrrd", folders[1] / "la000_label.nii.gz"
    for file, mask, kind in zip(files, masks, ("prediction", "label"), strict=True):
        save_labels(file, mask * (255 if kind == masked else 1))
    remove_dcamt_mark(files[1])
    evaluation = evaluate_folders(*folders)
    unmapped = {(row.case, row.label): row.score for row in evaluation.rows}
    assert unmapped["la000", 1].dice == 0
    (note,) = evaluation.notes
    assert note.startswith(f"{files[masked == 'label']}: holds only the value 255. This value counts as 1 only if")
    advice = re.search(rf"map the values: --{masked}-mapping (\S+) \(in Python: {masked}_mapping\)", note)
    assert advice is not None
    mapped = evaluate_folders(*folders, mappings=replace(LabelMappings(), **{masked: advice[1]}))
    assert mapped.notes == ()
    scores = {(row.case, row.label): row.score for row in mapped.rows}
    assert_same_score(scores["la000", 1], score(*masks, (1.25, 0.75, 2.5)))
    for key in ((case, label) for case in ("la001", "la002") for label in (1, 2)):
        assert_same_score(scores[key], unmapped[key])


def test_no_note_if_prediction_and_label_are_masks_of_255(folders: tuple[Path, Path]) -> None:
    save_labels(folders[0] / "la000_image.nrrd", random_mask(0) * 255)
    save_labels(folders[1] / "la000_label.nii.gz", random_mask(10) * 255)
    remove_dcamt_mark(folders[1] / "la000_label.nii.gz")
    assert evaluate_folders(*folders).notes == ()


def test_one_note_names_the_labels_that_are_uncorrected_results_of_dcamt(folders: tuple[Path, Path]) -> None:
    results = [folders[1] / f"la00{number}_label.nii.gz" for number in (0, 2)]
    for result in results:
        write_labelmap(read_labelmap(result), result, mark=True)
    (note,) = evaluate_folders(*folders).notes
    assert note.startswith(f"{results[0]}, {results[1]}: these labels are results of DCAMT that were not corrected.")


def test_empty_labels_and_labels_of_other_classes_are_refused(folders: tuple[Path, Path]) -> None:
    _predictions, labels = folders
    for number in range(3):
        save_labels(labels / f"la00{number}_label.nii.gz", random_mask(number) * 255)
    assert_refused(folders, "1, 2", "255")  # the values of the predictions, and of the labels
    for number in range(3):
        save_labels(labels / f"la00{number}_label.nii.gz", np.zeros((22, 25, 18)))
    assert_refused(folders, "all labels are empty")


@pytest.mark.parametrize("name", ["predictions/la000_image.nrrd", "labels/la000_label.nii.gz"])
def test_scan_in_place_of_a_label_or_prediction_is_refused(folders: tuple[Path, Path], name: str) -> None:
    save_labels(folders[0].parent / name, scan_voxels())
    message = rf"{name}: is probably a scan: it holds \d+ different values, but the \w+ of this case holds 2\. Choose"
    option = name.split("s/")[0]
    advice = rf"by --{option}-mapping \(in Python: {option}_mapping\)\."
    (failure,) = evaluate_folders(*folders).failures
    assert re.search(f"{message}.*{advice}", failure)


def test_labelmaps_of_many_values_are_scored(folders: tuple[Path, Path]) -> None:
    for path in (folders[0] / "la000_image.nrrd", folders[1] / "la000_label.nii.gz"):
        save_labels(path, scan_voxels())
    assert len(evaluate_folders(*folders).mean) == 255


def test_label_with_20_values_is_not_taken_for_a_scan(tmp_path: Path) -> None:
    for number, count in enumerate((20, 3, 3)):
        voxels = (np.arange(8**3) % count).astype(np.uint8).reshape(8, 8, 8)
        for folder in ("pred", "lab"):
            save_labels(tmp_path / folder / f"p{number}.nii.gz", voxels, np.eye(4))
    rows = evaluate_folders(tmp_path / "pred", tmp_path / "lab").rows
    assert {row.case for row in rows} == {"p0", "p1", "p2"}


def test_means_are_given_with_the_number_of_missed_cases(tmp_path: Path) -> None:
    mask = np.pad(np.ones((9, 9, 9), np.uint8), 12)
    for name, predicted, label in (
        ("found", np.roll(mask, 4, 0), mask),
        ("missed", mask * 0, mask),
        ("none_there", mask * 0, mask * 0),
    ):
        save_labels(tmp_path / "pred" / f"{name}.nii.gz", predicted, np.eye(4))
        save_labels(tmp_path / "lab" / f"{name}.nii.gz", label, np.eye(4))
    evaluation = evaluate_folders(tmp_path / "pred", tmp_path / "lab")
    (mean,), (std,) = evaluation.mean, evaluation.std
    assert (mean.cases, mean.undefined, mean.missed, mean.empty) == (3, 1, 1, 1)
    assert mean.title == "mean (95HD of 2 of 3 cases, 1 missed)"
    assert std.title == "SD (95HD of 2 of 3 cases, 1 missed)"
    assert mean.score.hd95_mm == pytest.approx((4 + 0) / 2)
    assert [row.title for row in evaluation.rows] == ["found", "missed", "none_there"]
    assert replace(evaluation.rows[0], case="std").title == "std"
    evaluation.write_csv(tmp_path / "scores.csv")
    rows = {row["case"]: row for row in read_table(tmp_path / "scores.csv")}
    assert [rows["mean"][name] for name in ("undefined", "cases", "missed", "empty")] == ["1", "3", "1", "1"]


def test_single_value_has_no_standard_deviation(tmp_path: Path) -> None:
    mask = np.pad(np.ones((9, 9, 9), np.uint8), 12)
    for folder in ("pred", "lab"):
        save_labels(tmp_path / folder / "one.nii.gz", mask, np.eye(4))
    evaluation = evaluate_folders(tmp_path / "pred", tmp_path / "lab")
    assert evaluation.std == ()
    evaluation.write_csv(tmp_path / "scores.csv")
    written = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert [line.partition(",")[0] for line in written] == ["case", "one", "mean"]
    # The case "two" is missed: its Dice is 0, its distances are undefined.
    save_labels(tmp_path / "pred" / "two.nii.gz", mask * 0, np.eye(4))
    save_labels(tmp_path / "lab" / "two.nii.gz", mask, np.eye(4))
    (std,) = evaluate_folders(tmp_path / "pred", tmp_path / "lab").std
    assert np.isnan(std.score.hd95_mm)
    assert std.score.dice == pytest.approx(0.5)


def test_title_states_the_missed_cases_and_the_false_positives() -> None:
    row = EvaluationRow("mean", 1, SegmentationScore(*[0.5] * 8), 1.0, 1.0, undefined=2, cases=5, missed=1)
    assert row.title == "mean (95HD of 3 of 5 cases, 1 missed, 1 false positive)"


def test_distance_that_is_undefined_in_every_case_has_no_mean(tmp_path: Path) -> None:
    missed = score(np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool), (1.0, 1.0, 1.0))
    rows = [EvaluationRow(name, 1, missed, 0.0, 1.0, undefined=1, missed=1) for name in ("a", "b")]
    summary = summarize_rows(rows)
    assert summary.mean[0].score.dice == 0
    assert np.isnan([summary.mean[0].score.hd95_mm, summary.mean[0].score.asd_mm, summary.std[0].score.hd95_mm]).all()
    assert summary.mean[0].title == "mean (95HD of 0 of 2 cases, 2 missed)"
    summary.write_csv(tmp_path / "scores.csv")
    assert {row["hd95_mm"] for row in read_table(tmp_path / "scores.csv")} == {""}


def test_scores_of_many_classes_are_summarised_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [EvaluationRow(f"c{case}", value, BOTH_EMPTY, 0.0, 0.0, 0) for case in range(3) for value in range(1, 61)]
    read: list[str] = []
    get = object.__getattribute__
    monkeypatch.setattr(EvaluationRow, "__getattribute__", lambda row, name: read.append(name) or get(row, name))
    summary = summarize_rows(rows)
    assert [row.label for row in summary.mean] == list(range(1, 61))
    assert read.count("label") < 5 * len(rows)
