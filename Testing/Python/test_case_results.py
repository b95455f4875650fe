"""Automatic results are skipped, but a DCAMT result is used as the label if its scan has no other label."""

from __future__ import annotations

from pathlib import Path

import pytest
from dcamt.cases import uncorrected_labels
from dcamt.cases.folders import find_cases
from dcamt.cases.found_cases import DCAMT_RESULT, NO_SCAN, OTHER_LABEL, RESULT
from dcamt_testing.case_folders import make_files, scans_and_labels, skip_reasons, write_dcamt_result, write_image


def test_file_p1_predict_is_a_result_and_folder_predict_holds_a_scan(tmp_path: Path) -> None:
    files = ("train/images/p1.nii.gz", "train/labels/p1.nii.gz", "predict/images/p9.nii.gz", "p1_predict.nii.gz")
    found = find_cases(make_files(tmp_path, *files))
    assert {case.image.relative_to(tmp_path).as_posix() for case in found.cases} == {files[0], files[2]}
    assert skip_reasons(found) == {"p1_predict.nii.gz": RESULT}


@pytest.mark.parametrize(
    ("scan", "result"),
    [
        ("p1", "p1_LA_probmap"),
        ("p1", "p1_heatmap"),
        ("p1/lge", "p1/LA_probability"),
        ("train_1/enhanced", "train_1/scar_distance"),
        ("p1", "p1_totalseg"),
        ("LGE", "LGE doubt"),
    ],
)
def test_file_such_as_p1_heatmap_is_an_automatic_result(tmp_path: Path, scan: str, result: str) -> None:
    found = find_cases(make_files(tmp_path, f"{scan}.nii.gz", f"{result}.nii.gz"))
    assert [case.image for case in found.cases] == [tmp_path / f"{scan}.nii.gz"]
    assert skip_reasons(found) == {Path(f"{result}.nii.gz").name: RESULT}


def test_file_lge_result_beside_file_t1_is_a_scan(tmp_path: Path) -> None:
    files = ("p1/T1.nii.gz", "p1/lge_result.nii.gz")
    assert [case.image for case in find_cases(make_files(tmp_path, *files)).cases] == [
        tmp_path / file for file in files
    ]


@pytest.mark.parametrize(
    "word", ["pred", "Prediction", "auto", "result", "output", "dcamt", "seg_auto", "prob", "softmax", "uncertainty"]
)
@pytest.mark.parametrize("label", ["a_label.nii", None])
def test_file_with_the_name_of_a_scan_and_a_word_for_results_is_a_result(
    tmp_path: Path, word: str, label: str | None
) -> None:
    found_cases = find_cases(make_files(tmp_path, "a.nii", f"a_{word}.nii", *([label] if label else [])))
    assert scans_and_labels(found_cases, tmp_path) == {"a": ("a.nii", label)}
    assert skip_reasons(found_cases) == {f"a_{word}.nii": RESULT}


def test_monai_label_files_are_labels_in_folder_final_and_results_in_folder_original(tmp_path: Path) -> None:
    files = (
        "p1.nii.gz",
        "p2.nii.gz",
        "labels/final/p1.nii.gz",
        "labels/original/p1.nii.gz",
        "labels/original/p2.nii.gz",
    )
    found = find_cases(make_files(tmp_path, *files))
    assert scans_and_labels(found, tmp_path) == {"p1": (files[0], files[2]), "p2": (files[1], None)}
    assert {file.path.relative_to(tmp_path).as_posix(): file.reason for file in found.skipped} == dict.fromkeys(
        files[3:], RESULT
    )


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(
            ("p1.nii.gz", "labels/original/p1.nii.gz", "labels/final/report_pred.nii.gz"),
            id="no label in final, but a result",
        ),
        pytest.param(
            ("original/p1.nii.gz", "original/p1_label.nii.gz", "final/p2.nii.gz"), id="no label in final, but a scan"
        ),
        pytest.param(
            ("original/p1.nii.gz", "original/p1_label.nii.gz", "final/p2_label.nii.gz"), id="scan in original"
        ),
    ],
)
def test_label_in_original_is_used_if_original_holds_a_scan_or_final_holds_no_label(
    tmp_path: Path, files: tuple[str, ...]
) -> None:
    found = find_cases(make_files(tmp_path, *files))
    assert files[:2] in scans_and_labels(found, tmp_path).values()


def test_lascarqs_file_la_predict_1_beside_enhanced_1_is_a_result(tmp_path: Path) -> None:
    found = find_cases(make_files(tmp_path, "enhanced_1.nii.gz", "LA_predict_1.nii.gz"))
    assert scans_and_labels(found, tmp_path) == {"1": ("enhanced_1.nii.gz", None)}
    assert skip_reasons(found) == {"LA_predict_1.nii.gz": RESULT}


def test_p1_output_beside_p1_label_is_a_result_and_p2_output_alone_is_a_scan(tmp_path: Path) -> None:
    found = find_cases(make_files(tmp_path, "p1_label.nii", "p1_output.nii", "p2_output.nii"))
    assert {case.image.name for case in found.cases} == {"p2_output.nii"}
    assert skip_reasons(found)["p1_output.nii"] == RESULT


def test_file_c_in_the_folder_output_is_the_scan_of_c_label(tmp_path: Path) -> None:
    """A file `c` in a folder `output` is a result only if another scan `c` exists."""
    found = find_cases(make_files(tmp_path, "output/c.nii", "c_label.nii"))
    assert scans_and_labels(found, tmp_path) == {"c": ("output/c.nii", "c_label.nii")}


def test_files_in_the_folders_predictions_and_results_are_results(tmp_path: Path) -> None:
    found_cases = find_cases(
        make_files(tmp_path, "images/x.nii", "labels/x.nii", "predictions/x.nii", "results/x.seg.nrrd")
    )
    assert scans_and_labels(found_cases, tmp_path) == {"x": ("images/x.nii", "labels/x.nii")}
    assert skip_reasons(found_cases) == {"x.nii": RESULT, "x.seg.nrrd": RESULT}


@pytest.mark.parametrize(
    ("scan", "result", "label"),
    [
        ("p1/lge", "p1/lge.seg.nrrd", "p1/laendo"),
        ("p1_image", "p1_image.seg.nrrd", "p1_label"),
        ("p1", "p1.seg.nrrd", "p1_LA"),
        ("images/p1", "labels/p1_seg.nii.gz", "labels/p1"),
        ("p1/lge", "p1/Segmentation.seg.nrrd", "p1/LA"),
        ("p1", "p1.seg.nrrd", None),
    ],
)
def test_result_of_dcamt_is_a_label_only_if_the_scan_has_no_other_label(
    tmp_path: Path, scan: str, result: str, label: str | None
) -> None:
    write_image(tmp_path / f"{scan}.nii.gz", 200)
    if label:
        write_image(tmp_path / f"{label}.nii.gz", 2)
    write_dcamt_result(tmp_path / result)
    found = find_cases(tmp_path)
    used = f"{label}.nii.gz" if label else result
    assert set(scans_and_labels(found, tmp_path).values()) == {(f"{scan}.nii.gz", used)}
    assert skip_reasons(found) == ({Path(result).name: DCAMT_RESULT} if label else {})


@pytest.mark.parametrize(
    "label", ["p1_v2", "p1_corr", "p1_fixed", "p1_JS", "p1_seg_JS", "corrections/p1_seg", "P1_korrigiert"]
)
def test_reason_for_a_skipped_correction_of_a_dcamt_result_says_how_to_name_it(tmp_path: Path, label: str) -> None:
    for scan in ("p1", "p", "p2"):
        write_image(tmp_path / f"{scan}.nii.gz", 200)
        write_dcamt_result(tmp_path / f"{scan}.seg.nrrd")
    write_image(tmp_path / f"{label}.nii.gz", 2)
    reason = skip_reasons(find_cases(tmp_path)).get(Path(f"{label}.nii.gz").name, "")
    before, _, advised = reason.partition("; if it is the corrected label of 'p1', rename it to ")
    assert before in (NO_SCAN, OTHER_LABEL)
    (tmp_path / f"{label}.nii.gz").rename(advised)
    assert scans_and_labels(find_cases(tmp_path), tmp_path)["p1"] == ("p1.nii.gz", "p1_seg.nii.gz")


def test_advised_name_of_a_correction_is_not_the_name_of_an_existing_file(tmp_path: Path) -> None:
    write_image(tmp_path / "p1.nii.gz", 200)
    write_dcamt_result(tmp_path / "p1_seg.nii.gz")
    write_image(tmp_path / "p1_corr.nii.gz", 2)
    advised = skip_reasons(find_cases(tmp_path))["p1_corr.nii.gz"].partition(" rename it to ")[2]
    assert not Path(advised).exists()
    (tmp_path / "p1_corr.nii.gz").rename(advised)
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {"p1": ("p1.nii.gz", Path(advised).name)}


@pytest.mark.parametrize("label", ["p1_RV_seg", "p1_seg_wall2", "RV/p1_seg", "p1_RAmask_v2"])
def test_reason_for_a_label_of_another_structure_has_no_advice(tmp_path: Path, label: str) -> None:
    write_image(tmp_path / "p1.nii.gz", 200)
    write_dcamt_result(tmp_path / "p1.seg.nrrd")
    write_image(tmp_path / f"{label}.nii.gz", 2)
    assert list(skip_reasons(find_cases(tmp_path)).values()) in ([NO_SCAN], [OTHER_LABEL])


def test_advised_name_of_a_correction_starts_with_the_name_of_the_scan_beside_it(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        write_image(tmp_path / patient / "lge.nii.gz", 200)
        write_dcamt_result(tmp_path / patient / "lge.seg.nrrd")
    write_image(tmp_path / "p2" / "lge_fixed.nii.gz", 2)
    reason = skip_reasons(find_cases(tmp_path))["lge_fixed.nii.gz"]
    assert reason.endswith(f"rename it to {tmp_path / 'p2' / 'lge_seg.nii.gz'}")


def test_each_dcamt_result_is_examined_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        write_image(tmp_path / f"p{number}.nii.gz", 200)
        write_image(tmp_path / f"p{number}_fixed.nii.gz", 2)
        write_dcamt_result(tmp_path / f"p{number}.seg.nrrd")
    examined: list[Path] = []
    monkeypatch.setattr(uncorrected_labels, "is_dcamt_result", lambda path: examined.append(path) or True)
    reasons = skip_reasons(find_cases(tmp_path)).values()
    assert sum("rename it to" in reason for reason in reasons) == 5
    assert len(examined) == len(set(examined))


def test_reason_for_a_label_of_another_patient_has_no_advice(tmp_path: Path) -> None:
    write_image(tmp_path / "p1.nii.gz", 200)
    write_dcamt_result(tmp_path / "p1.seg.nrrd")
    for label in ("p12_seg", "p2_v2_seg"):
        write_image(tmp_path / f"{label}.nii.gz", 2)
    assert skip_reasons(find_cases(tmp_path)) == {"p12_seg.nii.gz": NO_SCAN, "p2_v2_seg.nii.gz": NO_SCAN}


@pytest.mark.parametrize("result", ["x_seg", "seg/x"])
@pytest.mark.parametrize("channels", [1, 2])
def test_dcamt_result_named_after_the_case_is_the_label_of_all_channels(
    tmp_path: Path, channels: int, result: str
) -> None:
    names = ("x", "y")
    expected = {name: (f"{name}_0000.nii.gz", f"{result.replace('x', name)}.nii.gz") for name in names}
    for name in names:
        make_files(tmp_path, *(f"{name}_000{number}.nii.gz" for number in range(channels)))
        write_dcamt_result(tmp_path / expected[name][1])
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == expected


def test_numbered_file_with_a_label_is_a_scan_and_not_a_channel(tmp_path: Path) -> None:
    write_dcamt_result(make_files(tmp_path, "x_0000.nii", "x_0001.nii", "x_0001_label.nii") / "x_seg.nii")
    expected = {"x_0000": ("x_0000.nii", None), "x_0001": ("x_0001.nii", "x_0001_label.nii")}
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == expected


def test_dcamt_result_of_the_first_channel_is_the_label_of_all_channels(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_files(tmp_path, f"imagesTr/{name}_0000.nii", f"imagesTr/{name}_0001.nii")
        write_dcamt_result(tmp_path / f"imagesTr/{name}_0000_seg.nii")
    expected = {name: (f"imagesTr/{name}_0000.nii", f"imagesTr/{name}_0000_seg.nii") for name in ("a", "b")}
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == expected
