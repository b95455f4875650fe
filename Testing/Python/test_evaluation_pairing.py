"""File names determine which prediction is compared with which label; ambiguous names are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from dcamt.cases.label_pairing import pair_with_labels
from dcamt.cases.labelmap_files import labelmaps_by_case
from dcamt.errors import InputError
from dcamt.io.dicom_files import SEGMENTATION_CLASSES
from dcamt.io.readers import read_labelmap
from dcamt.metrics.folder_scoring import evaluate_folders
from dcamt_testing.dicom_positions import REPORT, new_data_set
from dcamt_testing.evaluated_folders import (
    assert_one_failure,
    assert_refused,
    random_mask,
    remove_dcamt_mark,
    save_labels,
    scan_voxels,
    two_classes,
    write_predictions_and_labels,
)
from dcamt_testing.scan_files import LEFT_ATRIUM, deny_folder
from dcamt_testing.synthetic import save_noise_scan


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write_predictions_and_labels(tmp_path)


def test_predictions_in_the_label_folder_are_not_taken_for_labels(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        save_labels(tmp_path / patient / "laendo.nrrd", random_mask(1), segments=[LEFT_ATRIUM])
        save_labels(tmp_path / "segmentations" / f"{patient}.seg.nrrd", random_mask(1), segments=[LEFT_ATRIUM])
        save_noise_scan(tmp_path / patient / "lgemri.nrrd")
    evaluation = evaluate_folders(tmp_path / "segmentations", tmp_path)
    assert [(row.case, row.score.dice) for row in evaluation.rows] == [("p1", 1.0), ("p2", 1.0)]
    # The labels in the subfolders are found even if the folder itself holds a scan.
    save_noise_scan(tmp_path / "average.nrrd")
    assert evaluate_folders(tmp_path / "segmentations", tmp_path) == evaluation
    with pytest.raises(InputError, match=r"several labels for one scan \(p1/laendo\.nrrd, segmentations/p1"):
        labelmaps_by_case(tmp_path)


def test_results_of_dcamt_beside_scans_and_labels_are_scored_against_the_labels(tmp_path: Path) -> None:
    expected = {}
    for seed, patient in enumerate(("p1", "p2")):
        result, label = random_mask(seed), random_mask(seed + 5)
        save_noise_scan(tmp_path / f"{patient}.nrrd")
        save_labels(tmp_path / f"{patient}.seg.nrrd", result, segments=[LEFT_ATRIUM])
        save_labels(tmp_path / f"{patient}_label.nrrd", label, segments=[LEFT_ATRIUM])
        remove_dcamt_mark(tmp_path / f"{patient}_label.nrrd")
        expected[patient] = pytest.approx(2 * (result & label).sum() / (result.sum() + label.sum()))
    assert {row.case: row.score.dice for row in evaluate_folders(tmp_path, tmp_path).rows} == expected


def test_predictions_beside_their_labels_are_scored_without_the_scans(tmp_path: Path) -> None:
    masks = {name: random_mask(seed) for name, seed in {"p1_seg": 1, "p1_pred": 2, "p2_seg": 3, "p2_pred": 4}.items()}
    for name, mask in masks.items():
        save_labels(tmp_path / f"{name}.nii.gz", mask)
    dice = {row.case: row.score.dice for row in evaluate_folders(tmp_path, tmp_path).rows}
    for case in ("p1", "p2"):
        label, prediction = masks[f"{case}_seg"] > 0, masks[f"{case}_pred"] > 0
        assert dice[case] == pytest.approx(2 * (label & prediction).sum() / (label.sum() + prediction.sum()))


def test_prediction_p1_is_compared_with_the_only_label_below_the_folder_p1(tmp_path: Path) -> None:
    for number, patient in enumerate(("p1", "p2")):
        visit, mask = tmp_path / "data" / patient / "visit", random_mask(number)
        save_labels(visit / "S1_label.nrrd", mask, segments=[LEFT_ATRIUM])
        save_labels(tmp_path / "results" / f"{patient}.seg.nrrd", mask, segments=[LEFT_ATRIUM])
        save_noise_scan(visit / "S1.nrrd")
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "data")
    assert [(row.case, row.score.dice) for row in evaluation.rows] == [("p1", 1.0), ("p2", 1.0)]
    # Remove DCAMT's mark from each S1_label.nrrd, so that the file is a label from another source, and add the DCAMT
    # results p1.seg.nrrd and p2.seg.nrrd to `data`. These results are not taken for labels.
    for patient in ("p1", "p2"):
        remove_dcamt_mark(tmp_path / "data" / patient / "visit" / "S1_label.nrrd")
        save_labels(tmp_path / "data" / f"{patient}.seg.nrrd", random_mask(9), segments=[LEFT_ATRIUM])
    assert evaluate_folders(tmp_path / "results", tmp_path / "data") == replace(evaluation, notes=())


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


def test_several_labels_that_fit_a_prediction_are_named(folders: tuple[Path, Path]) -> None:
    label = folders[1] / "la000_label.nii.gz"
    save_labels(folders[1] / "la000_LA_final.nii.gz", two_classes(0))
    remove_dcamt_mark(folders[1] / "la000_LA_final.nii.gz")
    label.rename(folders[1] / "LA000_LA.nii.gz")
    (failure,) = evaluate_folders(*folders).failures
    for part in ("la000_image.nrrd", "has several labels in", "LA000_LA.nii.gz, la000_LA_final.nii.gz. Keep"):
        assert part in failure


@pytest.mark.parametrize("name", ["p1_v{}", "p1_rater{}_seg", "rater{}_p1"])
@pytest.mark.parametrize("case", ["p1", "p1_lge"])
def test_error_for_a_missing_label_lists_files_of_similar_names(tmp_path: Path, name: str, case: str) -> None:
    names = [f"{name.format(number)}.nii.gz" for number in (1, 2)]
    for file in (f"pred/{case}.nii.gz", "lab/p10.nii.gz", *(f"lab/{name}" for name in names)):
        save_labels(tmp_path / file, random_mask(1))
    message = f"files with similar names are there: {names[0]}, {names[1]}. If one"
    assert_refused((tmp_path / "pred", tmp_path / "lab"), f"{case}.nii.gz: has no label in", message)


def test_mask_is_preferred_to_a_scan_of_the_same_case(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    (labels / "la000_label.nii.gz").rename(labels / "la000_LA.nii.gz")
    expected = evaluate_folders(predictions, labels)
    save_labels(labels / "la000.nrrd", scan_voxels())
    assert evaluate_folders(predictions, labels) == expected


@pytest.mark.parametrize("word", ["pred", "confidence", "prob"])
def test_automatic_result_beside_a_label_is_not_taken_for_the_label(folders: tuple[Path, Path], word: str) -> None:
    predictions, labels = folders
    for path in list(labels.iterdir()):
        path.rename(labels / path.name.replace("_label", ""))
    expected = evaluate_folders(predictions, labels)
    save_labels(labels / f"la000_{word}.nii.gz", two_classes(9))
    assert evaluate_folders(predictions, labels) == expected


@pytest.mark.parametrize(
    "label",
    ["{}_LA", "{}_LA_seg", "{}_LA_manual", "{}_LA_final", "{}_corrected", "{}_LA_seg_JS", "{}_mask_LA", "LA_{}_seg"],
)
@pytest.mark.parametrize("result", ["{}_pred", "{}_totalseg", "{}_LA_auto", "{}_prob", "{}.seg"])
@pytest.mark.parametrize("scan", [None, "{}", "{}_lge"])
def test_results_beside_labels_of_other_names_leave_the_scores_unchanged(
    tmp_path: Path, scan: str | None, result: str, label: str
) -> None:
    for number, patient in enumerate(("p1", "p2")):
        case = (scan or "{}").format(patient)
        # Only DCAMT's mark in the file's header shows that `{}.seg` is a result.
        is_marked = result == "{}.seg"
        voxels = scan_voxels() if result == "{}_prob" else random_mask(number + 5)
        save_labels(tmp_path / "pred" / f"{case}.nii.gz", random_mask(number))
        save_labels(tmp_path / "lab" / f"{label.format(patient)}.nrrd", random_mask(number), segments=[LEFT_ATRIUM])
        if is_marked:
            remove_dcamt_mark(tmp_path / "lab" / f"{label.format(patient)}.nrrd")
        name = result.format(case if is_marked else patient)
        save_labels(tmp_path / "lab" / f"{name}.nrrd", voxels, segments=[LEFT_ATRIUM] if is_marked else [])
        if scan is not None:
            save_labels(tmp_path / "lab" / f"{case}.nii.gz", scan_voxels())
    evaluation = evaluate_folders(tmp_path / "pred", tmp_path / "lab")
    assert [row.score.dice for row in evaluation.rows] == [1, 1]
    assert not evaluation.labels_without_prediction


def test_result_beside_two_labels_of_its_case_is_not_taken_for_a_label(tmp_path: Path) -> None:
    for file in ("pred/p1", "lab/p1_pred", "lab/p1_LA_manual", "lab/p1_LA_final"):
        save_labels(tmp_path / f"{file}.nii.gz", random_mask(1))
    message = "has several labels in", "p1_LA_manual.nii.gz, p1_LA_final.nii.gz"
    assert_refused((tmp_path / "pred", tmp_path / "lab"), *message)


@pytest.mark.parametrize("label", ["p1_RV_seg", "p1_followup_seg", "p1_2_seg", "p1_cine_LA"])
def test_result_is_not_left_out_if_the_only_label_is_of_another_case_or_structure(tmp_path: Path, label: str) -> None:
    for file in ("p1_auto", label):
        save_labels(tmp_path / f"{file}.nii.gz", random_mask(1))
    assert tmp_path / "p1_auto.nii.gz" in labelmaps_by_case(tmp_path, skip_images=True).values()


def test_label_p1_la_seg_is_preferred_to_the_mask_p1_la(tmp_path: Path) -> None:
    for file, voxels in (("p1", scan_voxels()), ("p1_LA_seg", random_mask(1)), ("p1_LA", random_mask(2))):
        save_labels(tmp_path / "lab" / f"{file}.nii.gz", voxels)
    save_labels(tmp_path / "pred/p1.nii.gz", random_mask(1))
    evaluation = evaluate_folders(tmp_path / "pred", tmp_path / "lab")
    assert [row.score.dice for row in evaluation.rows] == [1]


@pytest.mark.parametrize("scan", [None, "p1"])
@pytest.mark.parametrize("label", ["p1_LA_manual", "p1_mask_LA", "p1_final_seg"])
def test_labels_beside_the_predictions_are_skipped(tmp_path: Path, label: str, scan: str | None) -> None:
    for file, seed in (("lab/p1", 1), ("pred/p1_pred", 1), (f"pred/{label}", 2)):
        save_labels(tmp_path / f"{file}.nii.gz", random_mask(seed))
    if scan is not None:
        save_labels(tmp_path / "pred" / f"{scan}.nii.gz", scan_voxels())
    evaluation = evaluate_folders(tmp_path / "pred", tmp_path / "lab")
    assert [row.score.dice for row in evaluation.rows] == [1]
    assert not evaluation.failures


def test_two_labels_of_one_case_in_the_folder_of_labels_are_refused(tmp_path: Path) -> None:
    for file in ("pred/p1.nii.gz", "lab/p1.nrrd", "lab/p1_seg.nii.gz"):
        save_labels(tmp_path / file, random_mask(1))
    assert_refused((tmp_path / "pred", tmp_path / "lab"), "belongs to the same case (p1)")


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
        ("p1/heart_atrium_left.nii.gz", "p1.nii.gz"),
        ("sub-01_T1w.seg.nrrd", "sub-01/anat/sub-01_label-LA_dseg.nii.gz"),
        ("Case_1.seg.nrrd", "Case_1/Contours/Case_1.nii.gz"),
        ("p1_LA.nii.gz", "p1.nii.gz"),
        ("LA_p1.nii.gz", "p1_label.nii.gz"),
        ("p1_itksnap.nii.gz", "p1.nii.gz"),
        ("Patient 1.nii.gz", "Patient_1_label.nii.gz"),
        ("Patient 1-LGE.nii.gz", "patient_1_LA_final.nii.gz"),
        ("p1MR.nii.gz", "p1GroundTruth.nii.gz"),
        ("p1_MRT.nii.gz", "p1_LA.nii.gz"),
    ],
)
def test_files_of_the_same_case_are_paired(tmp_path: Path, prediction: str, label: str) -> None:
    save_labels(tmp_path / "pred" / prediction, random_mask(1), segments=[LEFT_ATRIUM])
    save_labels(tmp_path / "lab" / label, random_mask(1))
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
        ("p1_followup.nii.gz", "p1.nii.gz"),
        ("segmentation.nii.gz", "label.nii.gz"),
    ],
)
def test_files_of_different_cases_are_not_paired(tmp_path: Path, prediction: str, label: str) -> None:
    save_labels(tmp_path / "pred" / prediction, random_mask(1))
    save_labels(tmp_path / "lab" / label, random_mask(1))
    assert_refused((tmp_path / "pred", tmp_path / "lab"), "has no label in")


def test_result_x_0000_0000_is_paired_with_the_label_x_0000(tmp_path: Path) -> None:
    """The last 0000 is the channel."""
    for number in range(2):
        save_labels(tmp_path / "results" / f"x_{number:04d}_0000.nii.gz", random_mask(number))
        save_labels(tmp_path / "labels" / f"x_{number:04d}.nii.gz", random_mask(number))
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "labels")
    assert [(row.case, row.score.dice) for row in evaluation.rows] == [("x_0000", 1.0), ("x_0001", 1.0)]


def test_case_name_keeps_the_patient_number_0000(tmp_path: Path) -> None:
    for name in ("p_0000", "p_0001", "q_0000", "q_0002"):
        save_labels(tmp_path / "labels" / f"{name}_label.nii.gz", random_mask(1))
    for name in ("p_0000", "p_0001"):
        save_labels(tmp_path / "results" / f"{name}.nii.gz", random_mask(1))
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "labels")
    assert [row.case for row in evaluation.rows] == ["p_0000", "p_0001"]
    assert evaluation.labels_without_prediction == ("q_0000", "q_0002")


def test_result_x_0000_is_paired_with_the_mask_beside_the_scan_x_0000(tmp_path: Path) -> None:
    for name in ("x_0000", "x_0001"):
        save_labels(tmp_path / "labels" / f"{name}.nii.gz", scan_voxels())
        for file in (f"results/{name}.nii.gz", f"labels/{name}_LA.nii.gz"):
            save_labels(tmp_path / file, two_classes(9))
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "labels")
    assert {row.case for row in evaluation.rows} == {"x_0000", "x_0001"}
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
        save_labels(tmp_path / "labels" / scan.format(number), scan_voxels())
        for file in (f"results/{scan.format(number)}", f"labels/{label.format(number)}"):
            save_labels(tmp_path / file, two_classes(number))
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "labels")
    assert [row.score.dice for row in evaluation.rows] == [1, 1, 1, 1]
    assert not evaluation.labels_without_prediction


@pytest.mark.parametrize("label", ["p1_seg.nii.gz", "p1_LA.nii.gz"])
def test_scan_without_a_label_is_not_taken_for_a_label(tmp_path: Path, label: str) -> None:
    for name in ("p1", "p2"):
        save_labels(tmp_path / "labels" / f"{name}.nii.gz", scan_voxels())
        save_labels(tmp_path / "results" / f"{name}.nii.gz", two_classes(1))
    save_labels(tmp_path / "labels" / label, two_classes(1))
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "labels")
    assert [row.score.dice for row in evaluation.rows] == [1, 1]
    (failure,) = evaluation.failures
    assert failure.startswith(f"{tmp_path / 'results' / 'p2.nii.gz'}: has no label in {tmp_path / 'labels'}.")


@pytest.mark.parametrize("label", ["p1_LA", "p1_LA_JS", "JS_p1_LA", "p1_seg"])
@pytest.mark.parametrize("case", ["p1_LGE_3D", "p1_post_LGE"])
def test_scan_beside_a_label_of_another_name_is_not_taken_for_a_label(tmp_path: Path, case: str, label: str) -> None:
    save_labels(tmp_path / "labels" / f"{case}.nii.gz", scan_voxels())
    for file in (f"results/{case}.nii.gz", f"labels/{label}.nii.gz"):
        save_labels(tmp_path / file, two_classes(1))
    folders = tmp_path / "results", tmp_path / "labels"
    with pytest.raises(InputError) as caught:
        evaluate_folders(*folders)
    what = (
        f"has no label in {folders[1]}, but files with similar names are there: {label}.nii.gz. If one of these files"
    )
    assert str(caught.value).startswith(f"{folders[0] / f'{case}.nii.gz'}: {what}")
    (folders[1] / f"{label}.nii.gz").rename(folders[1] / f"{case}_label.nii.gz")  # as the message proposes
    assert [row.score.dice for row in evaluate_folders(*folders).rows] == [1, 1]


@pytest.mark.parametrize("label", ["p1_LA.nii.gz", "p1_LA_seg.nii.gz", "p1.nii.gz"])
def test_scan_is_not_listed_in_labels_without_prediction(tmp_path: Path, label: str) -> None:
    save_labels(tmp_path / "labels" / "p1_post.nii.gz", scan_voxels())
    for file in ("results/p1.nii.gz", f"labels/{label}", "labels/p2.nii.gz"):
        save_labels(tmp_path / file, two_classes(1))
    assert evaluate_folders(tmp_path / "results", tmp_path / "labels").labels_without_prediction == ("p2",)


def test_scan_in_place_of_a_label_is_refused(tmp_path: Path) -> None:
    for file in ("results/p1.nii.gz", "results/p2.nii.gz", "labels/p2.nii.gz"):
        save_labels(tmp_path / file, two_classes(1))
    save_labels(tmp_path / "labels" / "p1.nii.gz", scan_voxels())
    assert_one_failure(
        (tmp_path / "results", tmp_path / "labels"), f"{tmp_path / 'labels' / 'p1.nii.gz'}: is probably a"
    )


@pytest.mark.parametrize(("classes", "is_scan"), [(100, True), (128, False)])
def test_label_with_more_than_twice_as_many_values_as_its_prediction_is_a_scan(
    tmp_path: Path, classes: int, is_scan: bool
) -> None:
    many = scan_voxels()
    for case, voxels in (("p1", many % (classes + 1)), ("p2", two_classes(1))):
        save_labels(tmp_path / "results" / f"{case}.nii.gz", voxels)
    save_labels(tmp_path / "labels" / "p1.nii.gz", many)
    save_labels(tmp_path / "labels" / "p2.nii.gz", two_classes(1))
    failures = evaluate_folders(tmp_path / "results", tmp_path / "labels").failures
    assert ["is probably a scan: it holds 255 different values" in failure for failure in failures] == [True] * is_scan


@pytest.mark.parametrize("name", ["p2_seg", "p2_pred"])
def test_scan_named_as_a_label_or_prediction_is_refused(tmp_path: Path, name: str) -> None:
    for case in ("p1", "p2"):
        save_labels(tmp_path / "results" / f"{case}.nii.gz", two_classes(1))
    save_labels(tmp_path / "labels" / "p1_lge.nii.gz", scan_voxels())
    save_labels(tmp_path / "labels" / "p1_seg.nii.gz", two_classes(1))
    label = tmp_path / "labels" / f"{name}.nii.gz"
    save_labels(label, scan_voxels())
    assert_one_failure((tmp_path / "results", tmp_path / "labels"), f"{label}: is probably a scan")


def test_damaged_label_beside_scans_is_not_taken_for_a_scan(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        save_labels(tmp_path / "labels" / f"{name}_0000.nii.gz", scan_voxels())
        for folder in ("labels", "results"):
            save_labels(tmp_path / folder / f"{name}.nii.gz", two_classes(1))
    damaged = tmp_path / "labels" / "p2.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    assert_one_failure((tmp_path / "results", tmp_path / "labels"), f"{damaged}: ")


def test_right_atrium_mask_beside_a_left_atrium_label_is_ignored(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        save_labels(tmp_path / f"results/{patient}.nii.gz", two_classes(1))
        save_labels(tmp_path / f"labels/{patient}/LA.nii.gz", two_classes(1))
        save_labels(tmp_path / f"labels/{patient}/RA.nii.gz", two_classes(2))
    rows = evaluate_folders(tmp_path / "results", tmp_path / "labels").rows
    assert {row.case: row.score.dice for row in rows} == {"p1": 1, "p2": 1}


@pytest.mark.parametrize(
    "files",
    [
        ("p1/p1_trans", "p1/p1_image"),  # two files in the folder of one case
        ("p1/p1_trans", "p2/aorta"),  # "aorta" is another structure
        ("p1/LA", "p2/q2_seg"),  # "q2_seg" may belong to another case, q2
        ("p1/p1_RA", "p2/p2_RA"),  # "RA" is another structure, the right atrium
        ("p1/001", "p2/001"),  # "001" has no word for a label and may be a scan
        ("p1/heart_seg", "p2/heart_seg"),  # "heart_seg" may be the whole heart
        ("p1/p1_followup", "p2/p2_followup"),  # "followup" means another examination of the patient
        ("p1/a/p1_trans",),  # the file lies in a subfolder of the case's folder
        ("p1/labels/p1_RA",),
        ("p1/labels/LA_001",),  # 001 may be the case, and p1 the name of a data set
    ],
)
def test_folder_of_a_case_must_hold_exactly_one_recognizable_prediction(tmp_path: Path, files: tuple[str, ...]) -> None:
    for file in files:
        save_labels(tmp_path / f"results/{file}.nii.gz", two_classes(1))
        save_labels(tmp_path / f"labels/{file[:2]}.nii.gz", two_classes(1))
    assert_refused((tmp_path / "results", tmp_path / "labels"), "folders below it do", "in the folder of each case")


def test_unreadable_label_in_a_case_folder_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("p1", "p2"):
        save_labels(tmp_path / "labels" / name / f"{name}_label.nii.gz", random_mask(1))
        save_labels(tmp_path / "predictions" / f"{name}.nii.gz", random_mask(1))
    deny_folder(tmp_path / "labels" / "p2", monkeypatch, can_list=True)
    evaluation = evaluate_folders(tmp_path / "predictions", tmp_path / "labels")
    assert [row.case for row in evaluation.rows] == ["p1"]
    (failure,) = evaluation.failures
    assert f"{tmp_path / 'labels' / 'p2' / 'p2_label.nii.gz'}: cannot be read (no permission)" in failure


@pytest.mark.parametrize("can_list", [False, True])
def test_folder_of_labels_without_permission_is_refused(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, can_list: bool
) -> None:
    save_noise_scan(folders[1] / "la000.nii.gz")
    deny_folder(folders[1], monkeypatch, can_list)
    assert_refused(folders, f"{folders[1]}: cannot be read (no permission). Change its permissions.")


@pytest.mark.parametrize("suffix", ["trans2", "LA2", "LGEmask", "LAmask1", "LAmasklatrans"])
def test_common_suffix_of_the_labels_is_ignored(suffix: str) -> None:
    labels = {f"{case}_{suffix}": Path(case) for case in ("p1", "p2")}
    assert pair_with_labels(("p1", "p2"), labels) == {"p1": Path("p1"), "p2": Path("p2")}


def test_two_folders_of_one_case_are_refused(tmp_path: Path) -> None:
    for file in ("results/p1/LA", "results/p1_image/LA", "labels/p1"):
        save_labels(tmp_path / f"{file}.nii.gz", two_classes(1))
    assert_refused((tmp_path / "results", tmp_path / "labels"), "belongs to the same case (p1)")


@pytest.mark.parametrize("name", ["{}_trans", "{}_image_trans", "{}_0000_trans", "{}-unet", "output_{}", "{}_LA_Green"])
@pytest.mark.parametrize("is_label", [False, True])
def test_word_in_every_file_name_of_a_folder_is_ignored(tmp_path: Path, name: str, is_label: bool) -> None:
    for number, patient in enumerate(("p1", "p2", "p3")):
        for folder, file in zip(("results", "labels"), (name.format(patient), patient), strict=True):
            place = "results" if (folder == "results") != is_label else "labels"
            save_labels(tmp_path / place / f"{file}.nii.gz", random_mask(number))
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "labels")
    assert [row.score.dice for row in evaluation.rows] == [1, 1, 1]
    assert not evaluation.labels_without_prediction


@pytest.mark.parametrize(
    ("cases", "labels"),
    [
        # The 2 may be the number of a visit.
        (("p1_2", "p2_2"), ("p1", "p2")),
        *(
            ((f"p1_{word}", f"p2_{word}"), ("p1", "p2"))
            for word in ("followup", "visit2", "baseline", "post", "pre", "month6", "m12", "scan2", "repeat", "6months")
        ),
        (("p1", "p2"), ("p1_followup_trans", "p2_followup_trans")),
        (("p1_RV", "p2_RV"), ("p1", "p2")),
        *(
            (("p1", "p2"), (f"p1_{words}", f"p2_{words}"))
            for words in (
                "LAwallMask",
                "wall2",
                "la_wall1",
                "RA2",
                "scar3_seg",
                "LARA",
                "leftventricle",
                "walls",
                "LAscars",
            )
        ),
        *(
            (("p1", "p2"), (f"p1_{word}", f"p2_{word}"))
            for word in (
                *("pericardium", "EAT", "RAA", "LVOT", "MV", "valve", "septum", "thrombus", "coronary", "LAD"),
                *("AscAorta", "PulmVein", "pulmveins", "pulmonary_artery", "heart", "heartatriumright", "bloodpool"),
                *("after", "before", "stress", "rest", "early", "late", "first", "second", "redo", "vor", "nach"),
                *("avant", "apr\u00e8s", "apres", "systolic", "diastolic", "insp"),
            )
        ),
        (("p1_cine", "p2_cine"), ("p1_lge", "p2_lge")),
        (("p1_a", "p1_b", "p2_a", "p2_b"), ("p1", "p2")),
        (("p1", "p2"), ("p1_a", "p1_b", "p2_a", "p2_b")),
        (("p1", "p1_x", "p2", "p2_x"), ("p1_x_trans", "p1_x", "p2_x_trans", "p2_x")),
    ],
)
def test_label_that_may_belong_to_another_case_is_not_paired(cases: tuple[str, ...], labels: tuple[str, ...]) -> None:
    paths = {name: Path(name) for name in labels}
    assert pair_with_labels(cases, paths) == paths


@pytest.mark.parametrize(
    ("cases", "labels", "expected"),
    [
        ("p1 p2 p3", "p1_LA p1_mitral p2_mitral p3_mitral", {"p1": "p1_LA"}),
        ("p1_lge p2_lge p3_lge", "p1_LA_seg p1_mitral_seg p2_mitral_seg p3_mitral_seg", {"p1_lge": "p1_LA_seg"}),
        ("p1 p2 p3", "p1 p1_old p2_old p3_old", {"p1": "p1"}),
        ("p1 p2 p3", "p1_body p1_mitral p2_mitral p3_mitral", {}),
        ("p1_LA p1_septum p2_septum p3_septum", "p1 p2 p3", {"p1_LA": "p1"}),
        ("p1 p1_b p2 p3", "p1_b p2_b p3_b", {"p1_b": "p1_b"}),
    ],
)
def test_word_is_not_ignored_if_it_distinguishes_two_files_of_a_case(
    cases: str, labels: str, expected: dict[str, str]
) -> None:
    paired = pair_with_labels(cases.split(), {name: Path(name) for name in labels.split()})
    assert {case: path.name for case, path in paired.items() if case in cases.split()} == expected


@pytest.mark.parametrize(
    ("cases", "labels"),
    [
        ("p1 p2 p3", "p1_LA p2_trans p3_trans"),
        ("p1 p2 p3 p4", "p1_AB p2_AB p3_CD p4_CD"),
        ("p1 p1_b p2", "p1_trans p1_b_trans p2_trans"),
    ],
)
def test_word_is_ignored_if_each_case_has_one_label(cases: str, labels: str) -> None:
    paired = pair_with_labels(cases.split(), {name: Path(name) for name in labels.split()})
    assert [paired[case].name for case in cases.split()] == labels.split()


def test_word_is_ignored_though_one_label_may_belong_to_two_scans() -> None:
    labels = {f"p{number}_trans": Path(f"p{number}_trans") for number in (1, 2, 3)}
    paired = pair_with_labels(("p1_lge", "p1_cine", "p2_lge", "p3_lge"), labels)
    assert {case: path.name for case, path in paired.items()} == {
        "p1_trans": "p1_trans",
        "p2_lge": "p2_trans",
        "p3_lge": "p3_trans",
    }


@pytest.mark.parametrize(
    ("prediction", "label", "pair", "words"),
    [
        ("{}", "{}_JS", "la1 is paired with la1_JS.nii.gz", "'JS'"),
        ("{}_x2", "{}", "la1_x2 is paired with la1.nii.gz", "'x2'"),
        ("{}_lge", "{}_tool_LA", "la1_lge is paired with la1_tool_LA.nii.gz", "'tool'"),
        ("{}", "{}/{}_LA_cartilage", "la1 is paired with la1_LA_cartilage.nii.gz", "'cartilage'"),
        ("{}/{}_gland_left", "{}", "la1 is paired with la1_gland_left.nii.gz", "'gland'"),
        ("{}", "{}_my_tool", "la1 is paired with la1_my_tool.nii.gz", "'my', 'tool'"),
    ],
)
def test_one_note_names_a_pair_whose_names_differ_in_an_unknown_word(
    tmp_path: Path, prediction: str, label: str, pair: str, words: str
) -> None:
    save_pairs(tmp_path, prediction, label)
    evaluation = evaluate_folders(tmp_path / "pred", tmp_path / "lab")
    assert [row.score.dice for row in evaluation.rows] == [1, 1, 1]
    what = f"{pair}, but the meaning of {words} is unknown (files with such words: 3)"
    remedy = "If a word means another structure or examination, rename these files."
    assert [note for note in evaluation.notes if "is paired with" in note] == [f"{what}. {remedy}"]


@pytest.mark.parametrize(
    ("prediction", "label"),
    [
        ("{}", "{}_LA_final_v2"),
        ("{}", "{}/mask_LA_JS"),
        ("{}_trans", "{}"),
        ("{}/{}_trans", "{}_manual"),
        ("{}_LGE_image", "{}_label"),
        ("{}_JS", "{}_JS"),
    ],
)
def test_no_note_is_printed_on_words_of_known_meaning(tmp_path: Path, prediction: str, label: str) -> None:
    save_pairs(tmp_path, prediction, label)
    evaluation = evaluate_folders(tmp_path / "pred", tmp_path / "lab")
    assert [row.score.dice for row in evaluation.rows] == [1, 1, 1]
    assert not any("is paired with" in note for note in evaluation.notes)


def save_pairs(home: Path, prediction: str, label: str) -> None:
    for number, patient in enumerate(("la1", "p1", "p2")):
        for folder, name in (("pred", prediction), ("lab", label)):
            save_labels(home / folder / f"{name.replace('{}', patient)}.nii.gz", random_mask(number))


def test_label_of_an_unknown_structure_is_named_but_not_scored(tmp_path: Path) -> None:
    for file in ("pred/p1", "pred/p2", "pred/p3", "lab/p1_LA"):
        save_labels(tmp_path / f"{file}.nii.gz", random_mask(1))
    for number in (1, 2, 3):
        save_labels(tmp_path / f"lab/p{number}_mitral.nii.gz", random_mask(2))
    evaluation = evaluate_folders(tmp_path / "pred", tmp_path / "lab")
    assert [(row.case, row.score.dice) for row in evaluation.rows] == [("p1", 1)]
    for case, failure in zip(("p2", "p3"), evaluation.failures, strict=True):
        assert f"{case}.nii.gz: has no label in" in failure
        assert f"files with similar names are there: {case}_mitral.nii.gz" in failure


@pytest.mark.parametrize(
    "name",
    ["{}_trans", "{}/{}_trans", "{}_seg", "{}_pred", "{}-segmentation", "Segmentation_{}", "{}_LA"],
)
@pytest.mark.parametrize("scan", ["{}", "{}_0000", "{}_LGE"])
def test_scans_beside_the_predictions_are_skipped(tmp_path: Path, name: str, scan: str) -> None:
    for number, patient in enumerate(("p1", "p2", "p3")):
        save_labels(tmp_path / f"labels/{patient}.nii.gz", random_mask(number))
        save_labels(tmp_path / f"results/{name.replace('{}', patient)}.nii.gz", random_mask(number))
        save_labels(tmp_path / f"results/{scan.format(patient)}.nii.gz", scan_voxels())
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "labels")
    assert [row.score.dice for row in evaluation.rows] == [1, 1, 1]


@pytest.mark.parametrize("name", ["{}", "{}_seg"])
def test_probability_map_beside_a_prediction_is_skipped(tmp_path: Path, name: str) -> None:
    for number, patient in enumerate(("p1", "p2")):
        save_labels(tmp_path / f"labels/{patient}.nii.gz", random_mask(number))
        save_labels(tmp_path / f"results/{name.format(patient)}.nii.gz", random_mask(number))
        save_labels(tmp_path / f"results/{patient}_prob.nii.gz", scan_voxels())
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "labels")
    assert [row.score.dice for row in evaluation.rows] == [1, 1]


def test_one_folder_may_hold_scans_predictions_and_labels(tmp_path: Path) -> None:
    for number, patient in enumerate(("p1", "p2")):
        save_labels(tmp_path / f"{patient}.nii.gz", scan_voxels())
        save_labels(tmp_path / f"{patient}_pred.nii.gz", two_classes(number))
        save_labels(tmp_path / f"{patient}_label.nii.gz", two_classes(number + 10))
    evaluation = evaluate_folders(tmp_path, tmp_path)
    assert {row.case for row in evaluation.rows} == {"p1", "p2"}
    assert all(row.score.dice < 1 for row in evaluation.rows)


@pytest.mark.parametrize("name", ["p{}_trans", "p{}_trans_seg", "p{}_y_pred"])
def test_scan_p1_beside_its_label_p1_trans_is_skipped(tmp_path: Path, name: str) -> None:
    for number in (1, 2):
        save_labels(tmp_path / f"labels/p{number}.nii.gz", scan_voxels())
        save_labels(tmp_path / f"labels/{name.format(number)}.nii.gz", two_classes(number))
        save_labels(tmp_path / f"results/p{number}.nii.gz", two_classes(number))
    evaluation = evaluate_folders(tmp_path / "results", tmp_path / "labels")
    assert [row.score.dice for row in evaluation.rows] == [1, 1, 1, 1]
