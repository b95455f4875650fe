"""Find cases in a folder by file names."""

from __future__ import annotations

from pathlib import Path

import pytest
from dcamt.cases.folders import find_cases
from dcamt.cases.found_cases import DCAMT_RESULT, NAMES, NO_SCAN, OTHER_LABEL, RESULT, SEVERAL_LABELS
from dcamt.errors import InputError
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
def test_map_beside_a_scan_is_an_automatic_result(tmp_path: Path, scan: str, result: str) -> None:
    found = find_cases(make_files(tmp_path, f"{scan}.nii.gz", f"{result}.nii.gz"))
    assert [case.image for case in found.cases] == [tmp_path / f"{scan}.nii.gz"]
    assert skip_reasons(found) == {Path(f"{result}.nii.gz").name: RESULT}


def test_file_lge_result_beside_a_scan_of_another_modality_is_a_scan(tmp_path: Path) -> None:
    files = ("p1/T1.nii.gz", "p1/lge_result.nii.gz")
    assert [case.image for case in find_cases(make_files(tmp_path, *files)).cases] == [
        tmp_path / file for file in files
    ]


@pytest.mark.parametrize("labels", ["_labels", "label maps", "2_labels", "masks (final)", "lbls", "All segmentations"])
def test_label_in_a_folder_such_as_label_maps_is_paired(tmp_path: Path, labels: str) -> None:
    found = find_cases(make_files(tmp_path, "1_images/p1.nii.gz", f"{labels}/p1.nii.gz"))
    assert scans_and_labels(found, tmp_path) == {"p1": ("1_images/p1.nii.gz", f"{labels}/p1.nii.gz")}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("P1_image", "p1_label"),
        ("P1/Scan", "p1/Label"),
        ("MRI/p1", "GT/p1"),
        ("data/p1", "labels/p1_label"),
        ("Patients/p1", "Outlines/p1"),
        ("Images/p1", "Ground Truth/p1"),
        ("mr_train/mr_train_1_image", "mr_label/mr_train_1_label"),
        ("p1_lge", "p1_seg"),
        ("p1/p1_mri", "p1/p1_gt"),
        ("mri_1", "mask_1"),
        ("p1_lge", "p1_LA_seg"),
        ("s1/ct", "s1/segmentations/heart_atrium_left"),
    ],
)
def test_label_p1_seg_is_paired_with_the_only_scan_of_a_similar_name_such_as_p1_lge(
    tmp_path: Path, image: str, label: str
) -> None:
    home = make_files(tmp_path, f"{image}.nii.gz", f"{label}.nii.gz", "other/q.nii.gz", "other/q_seg.nii.gz")
    paired = scans_and_labels(find_cases(home), home)
    assert paired.pop("q") == ("other/q.nii.gz", "other/q_seg.nii.gz")
    assert list(paired.values()) == [(f"{image}.nii.gz", f"{label}.nii.gz")]


@pytest.mark.parametrize(
    ("images", "label"),
    [
        # Several scans fit.
        (("p1_lge", "p1_cine"), "p1_seg"),
        (("p1_left", "p1_right"), "p1_seg"),
        (("p1_lge", "p1_post"), "p1_seg"),
        (("MRI/p1", "CT/p1"), "GT/p1"),
        (("p1/ct", "p1/pet"), "p1/seg"),
        (("s1/ct", "s1/pet"), "s1/segmentations/heart_atrium_left"),
        (("a/p_0000", "a/p_0001"), "masks/p"),
        # The label is of another structure.
        (("images/p1",), "wall/p1_mask"),
        (("p1_lge",), "p1_RV_seg"),
        (("s1/ct",), "s1/segmentations/heart"),
        # The label is of another modality.
        (("ct_1",), "mr_1_label"),
        (("CT/p1",), "MR_labels/p1"),
        # The folders may be those of different patients, sites, sets or visits.
        (("A/p1", "B/p2"), "B/p1_label"),
        (("A/x/p1",), "B/y/p1_label"),
        (("p1/heart",), "p2/heart_label"),
        (("p1/pre/heart",), "p1/post/heart_label"),
        (("siteA/1",), "siteB_labels/1"),
        (("train/1",), "test_labels/1"),
        (("pre/p1",), "post/p1_label"),
        (("right/p1",), "left/p1_seg"),
    ],
)
def test_label_p1_seg_is_not_paired_if_it_may_belong_to_another_scan_or_structure(
    tmp_path: Path, images: tuple[str, ...], label: str
) -> None:
    home = make_files(tmp_path, *(f"{image}.nii.gz" for image in images), f"{label}.nii.gz")
    found = find_cases(home)
    assert [case.label for case in found.cases] == [None] * len(images)
    assert [file.path for file in found.skipped] == [home / f"{label}.nii.gz"]


@pytest.mark.parametrize(
    ("image", "label", "name"),
    [
        ("x_image.nii.gz", "x_label.nii.gz", "x"),
        ("x.nii.gz", "x_label.nii.gz", "x"),
        ("x.nrrd", "x.seg.nrrd", "x"),
        ("x.nrrd", "x-segmentation.nrrd", "x"),
        ("image_7.nii", "label_7.nii", "7"),
        ("images/x.mha", "labels/x.mha", "x"),
        ("images/a/x.nii", "masks/a/x_mask.nii", "x"),
        ("p01/image.nrrd", "p01/label.nrrd", "p01"),
        ("p01/lgemri.nrrd", "p01/laendo.nrrd", "p01"),
        ("p01/lge.nrrd", "p01/lge_seg.nrrd", "p01_lge"),
        ("site1/p01/pre/LGE.nrrd", "site1/p01/pre/LGE_seg.nrrd", "pre_LGE"),
        ("lge.nrrd", "lge_seg.nrrd", "lge"),
        ("LGE scan.nrrd", "LGE Label.nrrd", "LGE"),
        ("x.nii.gz", "xMask.nii.gz", "x"),
        ("x.nii.gz", "x_Maske.nii.gz", "x"),
        ("Bilder/x.nii.gz", "Masken/x.nii.gz", "x"),
        ("x.nii.gz", "x_ground_truth.nii.gz", "x"),
        ("M\u00fcller.nii.gz", "Mu\u0308ller_seg.nii.gz", "M\u00fcller"),
    ],
)
def test_scan_and_label_are_paired_by_name(tmp_path: Path, image: str, label: str, name: str) -> None:
    found_cases = find_cases(make_files(tmp_path, image, label, "other.nii.gz"))
    assert found_cases.layout == NAMES
    assert found_cases.skipped == ()
    assert scans_and_labels(found_cases, tmp_path) == {name: (image, label), "other": ("other.nii.gz", None)}


def test_words_such_as_mask_and_image_are_recognised_only_as_whole_words(tmp_path: Path) -> None:
    found_cases = find_cases(make_files(tmp_path, "maskell.nii", "segal_2.nii", "imagery.nii"))
    assert {name for name, (_, label) in scans_and_labels(found_cases, tmp_path).items() if label is None} == {
        "maskell",
        "segal_2",
        "imagery",
    }


def test_case_with_two_labels_or_two_scans_or_without_a_scan_is_skipped(tmp_path: Path) -> None:
    files = ("a_image.nii", "a_label.nii", "a_seg.nii", "b.nii", "b_image.nii", "b_label.nii", "c_label.nii")
    found_cases = find_cases(make_files(tmp_path, *files, "d.nii", "d_agreement.nii", ".hidden.nii", "notes.txt"))
    assert scans_and_labels(found_cases, tmp_path) == {"d": ("d.nii", None)}
    assert {one.path.name for one in found_cases.skipped} == set(files)
    assert {one.reason for one in found_cases.skipped if one.path.name == "c_label.nii"} == {"a label without a scan"}


def test_cases_x_in_the_folders_site1_and_site2_are_named_site1_x_and_site2_x(tmp_path: Path) -> None:
    files = ("site1/x_image.nii", "site1/x_label.nii", "site2/x_image.nii", "y.nii", "y.nrrd")
    found_cases = find_cases(make_files(tmp_path, *files))
    by_name = scans_and_labels(found_cases, tmp_path)
    assert by_name["site1_x"] == ("site1/x_image.nii", "site1/x_label.nii")
    assert by_name["site2_x"] == ("site2/x_image.nii", None)
    assert len(by_name) == 4


@pytest.mark.parametrize("places", [("site1/p1", "site2/p1"), ("p1/s1", "p1/s2", "p2/s1")])
def test_no_folder_occurs_twice_in_a_case_name(tmp_path: Path, places: tuple[str, ...]) -> None:
    found = find_cases(make_files(tmp_path, *(f"{place}/lge.nii" for place in places)))
    names = {case.image.parent.relative_to(tmp_path).as_posix(): case.name for case in found.cases}
    short = {"p1/s2": "s2_lge"}  # no other case has this name
    assert names == {place: short.get(place, f"{place.replace('/', '_')}_lge") for place in places}


def test_folder_of_dicom_slices_is_one_scan(tmp_path: Path) -> None:
    found_cases = find_cases(make_files(tmp_path, "p1/slices/1.dcm", "p1/slices/2.dcm", "p2/IM1.IMA", "p2/label.nrrd"))
    assert scans_and_labels(found_cases, tmp_path) == {"slices": ("p1/slices", None), "p2": ("p2", "p2/label.nrrd")}


def test_folder_without_scans_or_with_a_damaged_dataset_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        find_cases(tmp_path / "none")
    with pytest.raises(
        InputError, match=r"holds no scan\. Choose a folder of files that end in .*\.nii\.gz, .*\.dcm, \.ima\."
    ):
        find_cases(make_files(tmp_path, "notes.txt"))
    (tmp_path / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"dataset\.json: cannot be read"):
        find_cases(tmp_path)


def test_left_atrial_challenge_lascarqs_and_emidec_are_recognised(tmp_path: Path) -> None:
    challenge = [f"asc/P1/{name}.nrrd" for name in ("lgemri", "laendo", "lawall")]
    lascarqs = [f"lascarqs/train_1/{name}.nii.gz" for name in ("enhanced", "atriumSegImgMO", "scarSegImgM")]
    emidec = ["emidec/Case_N01/Images/Case_N01.nii.gz", "emidec/Case_N01/Contours/Case_N01.nii.gz"]
    make_files(tmp_path, *challenge, *lascarqs, *emidec)
    for files, name in ((challenge, "P1"), (lascarqs, "train_1"), (emidec, "Case_N01")):
        found_cases = find_cases(tmp_path / files[0].split("/")[0])
        assert scans_and_labels(found_cases, tmp_path) == {name: (files[0], files[1])}
        assert set(skip_reasons(found_cases).values()) <= {OTHER_LABEL}
        assert len(found_cases.skipped) == len(files) - 2


def test_slicer_segmentation_belongs_to_the_only_scan_in_its_folder(tmp_path: Path) -> None:
    files = ("p1/LGE axial.nrrd", "p1/Segmentation.seg.nrrd", "p2/5 scan.nii.gz", "p2/Segmentation_1.seg.nrrd")
    files += ("p3/LGE.nrrd", "p3/LGE Segmentation_1.seg.nrrd")
    found_cases = find_cases(make_files(tmp_path, *files))
    assert set(scans_and_labels(found_cases, tmp_path).values()) == {files[:2], files[2:4], files[4:]}
    unsure = ("q/a.nrrd", "q/b.nrrd", "q/Segmentation.seg.nrrd")  # The label may belong to either scan.
    # The labels have other names than the scans, so they may belong to missing scans.
    unsure += ("r/a.nrrd", "r/other.seg.nrrd", "s/p1.nrrd", "s/p2_seg.nrrd", "t/p1.nrrd", "t/p12_seg.nrrd")
    found_cases = find_cases(make_files(tmp_path / "unsure", *unsure))
    assert all(case.label is None for case in found_cases.cases)
    assert skip_reasons(found_cases) == dict.fromkeys(
        ["Segmentation.seg.nrrd", "other.seg.nrrd", "p2_seg.nrrd", "p12_seg.nrrd"], "a label without a scan"
    )


def test_error_lists_the_reasons_when_no_case_is_found(tmp_path: Path) -> None:
    make_files(tmp_path, "p01.nii.gz", "p01_seg.nii.gz", "p01_label.nii.gz")
    with pytest.raises(InputError) as caught:
        find_cases(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: contains no usable scan (p01.nii.gz: several labels for one scan; ")
    assert "p01_label.nii.gz: several labels for one scan" in message
    assert "\n" not in message
    assert "more" not in message
    make_files(tmp_path, *(f"q{number}_seg.nii.gz" for number in range(4)))
    with pytest.raises(InputError, match="; and 2 more"):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    "word", ["pred", "Prediction", "auto", "result", "output", "dcamt", "seg_auto", "prob", "softmax", "uncertainty"]
)
@pytest.mark.parametrize("label", ["a_label.nii", None])
def test_file_a_pred_beside_scan_a_is_a_result(tmp_path: Path, word: str, label: str | None) -> None:
    found_cases = find_cases(make_files(tmp_path, "a.nii", f"a_{word}.nii", *([label] if label else [])))
    assert scans_and_labels(found_cases, tmp_path) == {"a": ("a.nii", label)}
    assert skip_reasons(found_cases) == {f"a_{word}.nii": RESULT}


def test_monai_labels_in_folder_final_are_used_and_those_in_folder_original_are_results(tmp_path: Path) -> None:
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
            ("p1.nii.gz", "labels/original/p1.nii.gz", "labels/final/report_pred.nii.gz"), id="only a result in final"
        ),
        pytest.param(("original/p1.nii.gz", "original/p1_label.nii.gz", "final/p2.nii.gz"), id="only a scan in final"),
        pytest.param(
            ("original/p1.nii.gz", "original/p1_label.nii.gz", "final/p2_label.nii.gz"), id="scan in original"
        ),
    ],
)
def test_label_in_folder_original_is_used_if_original_holds_a_scan_or_final_holds_no_label(
    tmp_path: Path, files: tuple[str, ...]
) -> None:
    found = find_cases(make_files(tmp_path, *files))
    assert files[:2] in scans_and_labels(found, tmp_path).values()


def test_lascarqs_file_la_predict_1_beside_enhanced_1_is_a_result(tmp_path: Path) -> None:
    found = find_cases(make_files(tmp_path, "enhanced_1.nii.gz", "LA_predict_1.nii.gz"))
    assert scans_and_labels(found, tmp_path) == {"1": ("enhanced_1.nii.gz", None)}
    assert skip_reasons(found) == {"LA_predict_1.nii.gz": RESULT}


def test_file_named_output_is_a_result_only_beside_a_label_of_its_case(tmp_path: Path) -> None:
    found = find_cases(
        make_files(tmp_path, "a_label.nii", "a_output.nii", "b_output.nii", "output/c.nii", "c_label.nii")
    )
    assert {case.image.name for case in found.cases} == {"b_output.nii", "c.nii"}
    assert skip_reasons(found)["a_output.nii"] == RESULT


def test_files_in_the_folders_predictions_and_results_are_results(tmp_path: Path) -> None:
    found_cases = find_cases(
        make_files(tmp_path, "images/x.nii", "labels/x.nii", "predictions/x.nii", "results/x.seg.nrrd")
    )
    assert scans_and_labels(found_cases, tmp_path) == {"x": ("images/x.nii", "labels/x.nii")}
    assert skip_reasons(found_cases) == {"x.nii": RESULT, "x.seg.nrrd": RESULT}


@pytest.mark.parametrize("files", [("output/x.nii", "output/x_seg.nii"), ("out/images/x.nii", "out/labels/x.nii")])
def test_scan_and_label_in_a_folder_output_are_paired(tmp_path: Path, files: tuple[str, str]) -> None:
    assert scans_and_labels(find_cases(make_files(tmp_path, *files)), tmp_path) == {"x": files}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("p1.nii.gz", "p1_LA_gt.nii.gz"),
        ("p1.nii.gz", "LA_p1_seg.nii.gz"),
        ("p1.nii.gz", "p1_left_atrium.seg.nrrd"),
        ("p1.nii.gz", "p1-seg-final.nii.gz"),
        ("p1_0000.nii.gz", "p1_LA_gt.nii.gz"),
        ("p1/image.nii.gz", "p1/LA_gt.nii.gz"),
        ("p1/LGE 3D.nrrd", "p1/LA.seg.nrrd"),
    ],
)
def test_labels_p1_la_gt_and_p1_seg_final_are_paired_with_p1(tmp_path: Path, image: str, label: str) -> None:
    found_cases = find_cases(make_files(tmp_path, image, label))
    assert [*scans_and_labels(found_cases, tmp_path).values()] == [(image, label)]


def test_labels_of_other_structures_or_of_missing_scans_are_skipped(tmp_path: Path) -> None:
    files = ("p1.nii", "p1_LA_gt.nii", "p1_RA_gt.nii", "p2.nii", "p2_scar_seg.nii", "p3.nii", "p3_post_seg.nii")
    found_cases = find_cases(make_files(tmp_path, *files))
    assert scans_and_labels(found_cases, tmp_path) == {"p1": files[:2], "p2": ("p2.nii", None), "p3": ("p3.nii", None)}
    assert skip_reasons(found_cases) == {
        files[2]: OTHER_LABEL,
        files[4]: OTHER_LABEL,
        files[6]: "a label without a scan",
    }


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


@pytest.mark.parametrize("label", ["Outlines/x", "masks/x", "x_seg"])
def test_files_x_0000_to_x_0011_are_separate_scans_and_none_has_the_label_x(tmp_path: Path, label: str) -> None:
    scans = [f"Scans/x_{number:04d}" for number in range(12)]
    found = find_cases(make_files(tmp_path, *(f"{name}.nii.gz" for name in (*scans, label))))
    assert {case.image.name for case in found.cases} == {f"{Path(scan).name}.nii.gz" for scan in scans}
    assert {case.label for case in found.cases} == {None}
    assert [file.reason for file in found.skipped] == [NO_SCAN]


@pytest.mark.parametrize("result", ["x_seg", "seg/x"])
@pytest.mark.parametrize("channels", [1, 2])
def test_result_x_of_dcamt_is_the_label_of_the_channels_of_x(tmp_path: Path, channels: int, result: str) -> None:
    names = ("x", "y")
    expected = {name: (f"{name}_0000.nii.gz", f"{result.replace('x', name)}.nii.gz") for name in names}
    for name in names:
        make_files(tmp_path, *(f"{name}_000{number}.nii.gz" for number in range(channels)))
        write_dcamt_result(tmp_path / expected[name][1])
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == expected


def test_numbered_files_stay_separate_scans_beside_a_result_if_one_file_has_a_label(
    tmp_path: Path,
) -> None:
    write_dcamt_result(make_files(tmp_path, "x_0000.nii", "x_0001.nii", "x_0001_label.nii") / "x_seg.nii")
    expected = {"x_0000": ("x_0000.nii", None), "x_0001": ("x_0001.nii", "x_0001_label.nii")}
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == expected


def test_result_a_0000_of_dcamt_is_the_label_of_all_channels_of_a(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_files(tmp_path, f"imagesTr/{name}_0000.nii", f"imagesTr/{name}_0001.nii")
        write_dcamt_result(tmp_path / f"imagesTr/{name}_0000_seg.nii")
    expected = {name: (f"imagesTr/{name}_0000.nii", f"imagesTr/{name}_0000_seg.nii") for name in ("a", "b")}
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == expected


def test_img0001_and_label0001_are_the_case_0001(tmp_path: Path) -> None:
    assert scans_and_labels(find_cases(make_files(tmp_path, "img0001.nii", "label0001.nii")), tmp_path) == {
        "0001": ("img0001.nii", "label0001.nii")
    }


def test_scans_of_one_name_in_one_folder_are_numbered(tmp_path: Path) -> None:
    home = make_files(tmp_path, "site1/x.nii.gz", "site1/x.nrrd", "site1/y.nrrd")
    assert sorted(case.name for case in find_cases(home).cases) == ["1_x", "2_x", "y"]


@pytest.mark.parametrize(
    ("scan", "label"),
    [
        (
            "Atrial Segmentation Challenge/Training Set/p1/lgemri",
            "Atrial Segmentation Challenge/Training Set/p1/laendo",
        ),
        ("LA segmentation/p1", "LA segmentation/p1_seg"),
        ("LA segmentation/images/p1", "LA segmentation/labels/p1"),
        ("labels/site_gt/p1_image", "labels/site_gt/p1_label"),
        ("segmentation/Images/p1", "segmentation/Contours/p1"),
    ],
)
def test_folder_of_whole_cases_may_have_a_word_for_labels_in_its_name(tmp_path: Path, scan: str, label: str) -> None:
    home = make_files(tmp_path, f"{scan}.nii.gz", f"{label}.nii.gz")
    assert list(scans_and_labels(find_cases(home), home).values()) == [(f"{scan}.nii.gz", f"{label}.nii.gz")]


def test_emidec_test_set_in_a_folder_named_segmentation_testset_holds_scans(tmp_path: Path) -> None:
    training = [f"emidec-dataset/Case_N1/{part}/Case_N1.nii.gz" for part in ("Images", "Contours")]
    scan = "emidec-segmentation-testset/Case_101/Images/Case_101.nii.gz"
    home = make_files(tmp_path, *training, scan)
    assert scans_and_labels(find_cases(home), home) == {"Case_N1": tuple(training), "Case_101": (scan, None)}


@pytest.mark.parametrize(
    "files",
    [
        ("labels/p1", "labels/p1_seg"),
        ("scans/p1", "LA labels/p1", "LA labels/p1_seg"),
        ("scans/p1_pre", "LA labels/p1", "LA labels/p1_seg"),
    ],
)
def test_file_p1_beside_p1_seg_in_a_folder_of_labels_is_no_scan(tmp_path: Path, files: tuple[str, ...]) -> None:
    home = make_files(tmp_path, "q.nii.gz", *(f"{file}.nii.gz" for file in files))
    cases = scans_and_labels(find_cases(home), home)
    assert all(scan == "q.nii.gz" or scan.startswith("scans") for scan, _ in cases.values())


def test_ground_truth_of_the_left_atrial_challenge_2013_is_paired_with_images(tmp_path: Path) -> None:
    home = make_files(tmp_path, "b001/image.mhd", "b001/gt_std.mhd", "b002/image.mhd", "b002/gt_noPV.mhd")
    assert scans_and_labels(find_cases(home), home) == {
        "b001": ("b001/image.mhd", "b001/gt_std.mhd"),
        "b002": ("b002/image.mhd", "b002/gt_noPV.mhd"),
    }


@pytest.mark.parametrize("folder", ["labels/image", "labels/images", "labels/volume", "LA masks/images"])
def test_folder_of_images_below_a_folder_of_labels_contains_the_labels(tmp_path: Path, folder: str) -> None:
    home = make_files(tmp_path, "mri/p1.nii.gz", f"{folder}/p1.nii.gz")
    assert scans_and_labels(find_cases(home), home) == {"p1": ("mri/p1.nii.gz", f"{folder}/p1.nii.gz")}


@pytest.mark.parametrize("folder", ["labels", "LA masks", "LA_GT", "masks_final", "labels_2", "RA masks"])
def test_folder_of_images_below_a_folder_of_labels_holds_no_scans(tmp_path: Path, folder: str) -> None:
    home = make_files(tmp_path, "scan/p1/vol.nii.gz", f"{folder}/volume/p1.nii.gz")
    assert list(scans_and_labels(find_cases(home), home).values()) == [("scan/p1/vol.nii.gz", None)]


@pytest.mark.parametrize(
    "label",
    [
        "Segmentation-Segment_1-label.nrrd",
        "Segmentation 1.seg.nrrd",
        "itksnap-seg.nii.gz",
        "LA_label_final_v2.nii.gz",
        "mask_LA_JS.nii.gz",
        "2LA_seg.nii.gz",
        "4 LGE Segmentation-Segment_1-label.nrrd",
    ],
)
def test_single_label_and_single_scan_of_a_patient_are_paired(tmp_path: Path, label: str) -> None:
    home = make_files(tmp_path, "p1/4 LGE.nrrd", f"p1/{label}", "p2/4 LGE.nrrd")
    assert scans_and_labels(find_cases(home), home)["p1_4 LGE"] == ("p1/4 LGE.nrrd", f"p1/{label}")


@pytest.mark.parametrize(
    "label",
    ["q1_LA_seg", "JS_LA_seg", "mask_LA_RV", "mask_LA_CT", "mask_JS", "left_PA_seg", "liver_seg", "p2_label_v2"],
)
def test_single_label_is_not_paired_if_its_name_suggests_another_scan_or_structure(tmp_path: Path, label: str) -> None:
    home = make_files(tmp_path, "p1/4 LGE.nrrd", f"p1/{label}.nrrd")
    assert list(scans_and_labels(find_cases(home), home).values()) == [("p1/4 LGE.nrrd", None)]


@pytest.mark.parametrize(
    ("scan", "label"),
    [
        ("AB", "LA_seg_CD"),
        ("AB_lge", "LA_seg_CD"),
        ("p1/AB", "p1/LA_seg_CD"),
        ("v1", "v2_seg"),
        ("V1_LGE", "LA_seg_V2"),
        ("V1_LGE", "V2_LA_seg"),
        ("p1/post", "p1/LA_seg_pre"),
        ("p1/lge", "p1/LA_seg_AO"),
        ("p1/lge", "p1/LA_seg_SAX"),
        ("p1/lge", "p1/atrial_seg_RAA"),
    ],
)
def test_lone_label_that_may_be_of_another_patient_visit_or_structure_is_not_paired(
    tmp_path: Path, scan: str, label: str
) -> None:
    home = make_files(tmp_path, f"{scan}.nrrd", f"{label}.nrrd")
    assert list(scans_and_labels(find_cases(home), home).values()) == [(f"{scan}.nrrd", None)]


@pytest.mark.parametrize(
    "labels",
    [
        ("Segmentation-Segment_1-label", "Segmentation-Segment_2-label"),
        ("LA_seg_AB", "LA_seg_CD"),
        ("seg_v1", "seg_v2"),
    ],
)
def test_folder_with_one_scan_and_several_labels_that_name_no_scan_is_skipped(
    tmp_path: Path, labels: tuple[str, ...]
) -> None:
    files = [f"p1/{file}.nrrd" for file in ("4 LGE", *labels)]
    found = find_cases(make_files(tmp_path, "p2/4 LGE.nrrd", *files))
    assert [case.image for case in found.cases] == [tmp_path / "p2/4 LGE.nrrd"]
    assert skip_reasons(found) == {Path(file).name: SEVERAL_LABELS for file in files}


def test_segmentation_without_a_number_is_preferred_to_a_numbered_segmentation(tmp_path: Path) -> None:
    home = make_files(tmp_path, "p1/LGE.nrrd", "p1/Segmentation.seg.nrrd", "p1/Segmentation_1.seg.nrrd")
    assert list(scans_and_labels(find_cases(home), home).values()) == [("p1/LGE.nrrd", "p1/Segmentation.seg.nrrd")]


@pytest.mark.parametrize("scan", ["p{}.nrrd", "p{} LGE.nrrd"])
@pytest.mark.parametrize(
    "label", ["p{} Segmentation 1.nrrd", "p{} Segmentation-Segment_1-label.nrrd", "p{}_LA_label_final_v2.nrrd"]
)
def test_number_after_a_word_such_as_segmentation_is_no_patient_number(tmp_path: Path, scan: str, label: str) -> None:
    pairs = {(scan.format(n), label.format(n)) for n in (1, 2)}
    home = make_files(tmp_path, *(file for pair in pairs for file in pair))
    assert set(scans_and_labels(find_cases(home), home).values()) == pairs


@pytest.mark.parametrize(
    ("scans", "label"),
    [
        (("p.nrrd", "p 1.nrrd"), "p Segmentation 2.nrrd"),
        (("p1_lge.nrrd", "p1_post.nrrd"), "p1_seg_1.nrrd"),
        (("lge.nrrd", "t1.nrrd"), "label_001.nrrd"),
        (("p1.nrrd", "q.nrrd"), "p1_RV_seg_2.nrrd"),
    ],
)
def test_label_with_a_number_belongs_to_no_scan_if_several_or_none_fit(
    tmp_path: Path, scans: tuple[str, ...], label: str
) -> None:
    found = find_cases(make_files(tmp_path, *scans, label))
    assert [case.label for case in found.cases] == [None, None]


@pytest.mark.parametrize(
    "label", ["sub-01_T1w_label-LA_mask", "sub-01_label-LA_mask", "sub-01_T1w_label-LA_desc-manual_mask"]
)
def test_flat_bids_label_belongs_to_the_scan_of_the_same_subject(tmp_path: Path, label: str) -> None:
    home = make_files(tmp_path, "sub-01_T1w.nii.gz", f"{label}.nii.gz", "sub-02_T1w.nii.gz")
    assert scans_and_labels(find_cases(home), home) == {
        "sub-01_T1w": ("sub-01_T1w.nii.gz", f"{label}.nii.gz"),
        "sub-02_T1w": ("sub-02_T1w.nii.gz", None),
    }


@pytest.mark.parametrize(
    ("scan", "label", "fits"),
    [
        ("LGE_001", "label_002", False),
        ("12", "LA_seg_13", False),
        ("001", "Segmentation_002", False),
        ("LGE_001", "label_001", True),
        ("4 LGE", "Segmentation_1", True),
        ("p12", "Segmentation_3", True),
    ],
)
def test_lone_label_with_another_number_than_the_scan_is_not_paired(
    tmp_path: Path, scan: str, label: str, fits: bool
) -> None:
    (case,) = find_cases(make_files(tmp_path, f"{scan}.nii.gz", f"{label}.nii.gz")).cases
    assert (case.label is not None) == fits
