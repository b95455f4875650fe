"""Names and folders of scans and labels determine which label belongs to which scan."""

from __future__ import annotations

from pathlib import Path

import pytest
from dcamt.cases.folders import find_cases
from dcamt.cases.found_cases import NAMES, NO_SCAN, OTHER_LABEL, SEVERAL_LABELS
from dcamt.cases.left_over_labels import with_keys_of_scans
from dcamt.cases.names import FileKind, NamedFile
from dcamt_testing.case_folders import make_files, scans_and_labels, skip_reasons


@pytest.mark.parametrize(
    ("image", "label", "name"),
    [
        ("x_image.nii.gz", "x_label.nii.gz", "x"),
        ("x.nii.gz", "x_label.nii.gz", "x"),
        ("x.nrrd", "x.seg.nrrd", "x"),
        ("x.nrrd", "x-segmentation.nrrd", "x"),
        ("image_7.nii", "label_7.nii", "7"),
        ("img0001.nii", "label0001.nii", "0001"),
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
        ("p1.nii.gz", "p1_left_atrium.seg.nrrd", "p1"),
        ("p1/LGE 3D.nrrd", "p1/LA.seg.nrrd", "LGE 3D"),
        ("img/1.nii", "msk/1.nii", "1"),
        ("1_img.nii", "1_msk.nii", "1"),
        ("img1.nii", "msk1.nii", "1"),
        ("img1.nii", "contour1.nii", "1"),
        ("x_MRT.nii", "x_Maske.nii", "x_MRT"),
        ("RM/x.nii", "mascaras/x.nii", "x"),
        ("p1MR.nii", "p1GroundTruth.nii", "p1MR"),
        ("p1LGE.nii", "p1Seg.nii", "p1LGE"),
        ("Patient 1.nii", "Patient_1_label.nii", "Patient 1"),
        ("Patient-1.nii", "patient 1 label.nii", "Patient-1"),
        ("images/Patient 1.nii", "labels/Patient_1.nii", "Patient 1"),
        ("imagesVal/x.nii", "labelsVal/x.nii", "x"),
        ("imagesVa/x.nii", "labelsVa/x.nii", "x"),
        ("images/x.nii", "GTs/x.nii", "x"),
        ("images/x.nii", "labelmaps/x.nii", "x"),
        ("x.nii", "x_manualseg.nii", "x"),
        ("x/5 LGE.nrrd", "x/LabelMapVolume_1.nrrd", "5 LGE"),
        ("MBAS_001/MBAS_001_gt.nii.gz", "MBAS_001/MBAS_001_label.nii.gz", "MBAS_001"),
        ("output/x.nii", "output/x_seg.nii", "x"),
        ("out/images/x.nii", "out/labels/x.nii", "x"),
        # The label's folder, or the folder above it, has a word for labels in its name.
        *(
            ("1_images/p1.nii.gz", f"{folder}/p1.nii.gz", "p1")
            for folder in ("_labels", "label maps", "2_labels", "masks (final)", "lbls", "All segmentations")
        ),
        *(
            ("mri/p1.nii.gz", f"{folder}/p1.nii.gz", "p1")
            for folder in ("labels/image", "labels/images", "labels/volume", "LA masks/images")
        ),
    ],
)
def test_scan_and_label_are_paired_by_name(tmp_path: Path, image: str, label: str, name: str) -> None:
    found_cases = find_cases(make_files(tmp_path, image, label, "other.nii.gz"))
    assert found_cases.layout == NAMES
    assert found_cases.skipped == ()
    assert scans_and_labels(found_cases, tmp_path) == {name: (image, label), "other": ("other.nii.gz", None)}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        # The label's name has further words.
        ("p1", "p1_LA_gt"),
        ("p1", "LA_p1_seg"),
        ("p1", "p1-seg-final"),
        ("p1_0000", "p1_LA_gt"),
        ("p1/image", "p1/LA_gt"),
        # The names of the files, or of the patients' folders, differ only in capitals and in words for scans,
        # modalities, labels and the atrium.
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
        # A folder above both scan and label has a word for labels in its name.
        (
            "Atrial Segmentation Challenge/Training Set/p1/lgemri",
            "Atrial Segmentation Challenge/Training Set/p1/laendo",
        ),
        ("LA segmentation/p1", "LA segmentation/p1_seg"),
        ("LA segmentation/images/p1", "LA segmentation/labels/p1"),
        ("labels/site_gt/p1_image", "labels/site_gt/p1_label"),
        ("segmentation/Images/p1", "segmentation/Contours/p1"),
        # The numbers are equal.
        ("LGE_001", "label_001"),
        # The label's number has one digit, so it is not taken for a patient number.
        ("4 LGE", "Segmentation_1"),
        ("p12", "Segmentation_3"),
        ("12", "LA_label_final_v2"),
    ],
)
@pytest.mark.parametrize(
    "further", [(), ("other/q.nii.gz", "other/q_seg.nii.gz")], ids=["alone", "beside another case"]
)
def test_label_is_paired_with_the_only_scan_that_fits(
    tmp_path: Path, image: str, label: str, further: tuple[str, ...]
) -> None:
    pair = (f"{image}.nii.gz", f"{label}.nii.gz")
    found = find_cases(make_files(tmp_path, *pair, *further))
    assert set(scans_and_labels(found, tmp_path).values()) == {pair, *([further] if further else [])}
    assert found.skipped == ()


@pytest.mark.parametrize(
    ("images", "label"),
    [
        # Several scans fit.
        (("p1_lge", "p1_cine"), "p1_seg"),
        (("p1_left", "p1_right"), "p1_seg"),
        (("p1_lge", "p1_post"), "p1_seg"),
        (("p1_lge", "p1_post"), "p1_seg_1"),
        (("p", "p 1"), "p Segmentation 2"),
        (("lge", "t1"), "label_001"),
        (("MRI/p1", "CT/p1"), "GT/p1"),
        (("p1/ct", "p1/pet"), "p1/seg"),
        (("s1/ct", "s1/pet"), "s1/segmentations/heart_atrium_left"),
        (("a/p_0000", "a/p_0001"), "masks/p"),
        # The label is of another structure.
        (("images/p1",), "wall/p1_mask"),
        (("p1_lge",), "p1_RV_seg"),
        (("p1", "q"), "p1_RV_seg_2"),
        (("s1/ct",), "s1/segmentations/heart"),
        *((("p1/4 LGE",), f"p1/{label}") for label in ("mask_LA_RV", "left_PA_seg", "liver_seg")),
        *((("p1/lge",), f"p1/{label}") for label in ("LA_seg_AO", "LA_seg_SAX", "atrial_seg_RAA")),
        # The label is of another modality.
        (("ct_1",), "mr_1_label"),
        (("CT/p1",), "MR_labels/p1"),
        (("p1/4 LGE",), "p1/mask_LA_CT"),
        # The folders may belong to different patients, sites, sets or visits.
        (("A/p1", "B/p2"), "B/p1_label"),
        (("A/x/p1",), "B/y/p1_label"),
        (("p1/heart",), "p2/heart_label"),
        (("p1/pre/heart",), "p1/post/heart_label"),
        (("siteA/1",), "siteB_labels/1"),
        (("train/1",), "test_labels/1"),
        (("imagesTr/1",), "labelsVal/1"),
        (("train_images/1",), "labels_test/1"),
        (("siteA/images/1",), "siteB/labelsVal/1"),
        (("pre/p1",), "post/p1_label"),
        (("right/p1",), "left/p1_seg"),
        # The names may belong to different patients or visits.
        *((("p1/4 LGE",), f"p1/{label}") for label in ("q1_LA_seg", "JS_LA_seg", "mask_JS", "p2_label_v2")),
        (("AB",), "LA_seg_CD"),
        (("AB_lge",), "LA_seg_CD"),
        (("p1/AB",), "p1/LA_seg_CD"),
        (("v1",), "v2_seg"),
        (("V1_LGE",), "LA_seg_V2"),
        (("V1_LGE",), "V2_LA_seg"),
        (("p1/post",), "p1/LA_seg_pre"),
        (("LGE_001",), "label_002"),
        (("12",), "LA_seg_13"),
        (("001",), "Segmentation_002"),
        *(((scan,), label) for scan, label in (("3", "7_seg"), ("3", "seg7"), ("9", "10_seg"), ("10", "LA_seg_9"))),
        # `volume` is a word for scans, but `vol` is not, so the keys of the two files differ (see `dcamt.cases.names`).
        *(
            (("scan/p1/vol",), f"{folder}/volume/p1")
            for folder in ("labels", "LA masks", "LA_GT", "masks_final", "labels_2", "RA masks")
        ),
    ],
)
def test_label_is_not_paired_if_it_may_belong_to_another_scan_or_structure(
    tmp_path: Path, images: tuple[str, ...], label: str
) -> None:
    scans = [f"{image}.nii.gz" for image in images]
    found = find_cases(make_files(tmp_path, *scans, f"{label}.nii.gz"))
    assert set(scans_and_labels(found, tmp_path).values()) == {(scan, None) for scan in scans}
    assert [file.path for file in found.skipped] == [tmp_path / f"{label}.nii.gz"]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("imageTr", "labelTr"),
        ("imagesTr", "masksTr"),
        ("imagesTrain", "labelsTrain"),
        ("imagesVal", "labelsVal"),
        ("TrainImages", "TrainLabels"),
        ("TrainImg", "TrainMask"),
        ("testimages", "testlabels"),
        ("imageData", "labelData"),
        ("TrainVolumes", "TrainSegmentations"),
        ("scans", "annotationsTr"),
        ("images", "labelsVal"),
        ("images", "test_labels"),
    ],
)
def test_joined_words_in_folder_names_are_recognised(tmp_path: Path, images: str, labels: str) -> None:
    scan, label = f"{images}/p1.nii.gz", f"{labels}/p1.nii.gz"
    assert scans_and_labels(find_cases(make_files(tmp_path, scan, label)), tmp_path) == {"p1": (scan, label)}


@pytest.mark.parametrize(
    "pairs",
    [
        {"p1CT.nii": "p1CT_seg.nii", "p1MR.nii": "p1MR_seg.nii"},
        {"images/p1CT.nii": "labels/p1CT_seg.nii", "images/p1LGE.nii": "labels/p1LGE_seg.nii"},
        {"RM_01_lge.nii": "RM_01_seg.nii", "MR_01_lge.nii": "MR_01_seg.nii"},
        {"images/RM/lge.nii": "labels/RM/seg.nii", "images/HK/lge.nii": "labels/HK/seg.nii"},
    ],
)
def test_scans_of_two_modalities_or_patients_keep_their_labels(tmp_path: Path, pairs: dict[str, str]) -> None:
    found_cases = find_cases(make_files(tmp_path, *pairs, *pairs.values()))
    assert set(scans_and_labels(found_cases, tmp_path).values()) == set(pairs.items())


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


def test_labels_of_other_structures_or_of_missing_scans_are_skipped(tmp_path: Path) -> None:
    files = ("p1.nii", "p1_LA_gt.nii", "p1_RA_gt.nii", "p2.nii", "p2_scar_seg.nii", "p3.nii", "p3_post_seg.nii")
    found_cases = find_cases(make_files(tmp_path, *files))
    assert scans_and_labels(found_cases, tmp_path) == {"p1": files[:2], "p2": ("p2.nii", None), "p3": ("p3.nii", None)}
    assert skip_reasons(found_cases) == {
        files[2]: OTHER_LABEL,
        files[4]: OTHER_LABEL,
        files[6]: "a label without a scan",
    }


@pytest.mark.parametrize("label", ["Outlines/x", "masks/x", "x_seg"])
def test_files_x_0000_to_x_0011_are_separate_scans_and_none_has_the_label_x(tmp_path: Path, label: str) -> None:
    scans = [f"Scans/x_{number:04d}" for number in range(12)]
    found = find_cases(make_files(tmp_path, *(f"{name}.nii.gz" for name in (*scans, label))))
    assert {case.image.name for case in found.cases} == {f"{Path(scan).name}.nii.gz" for scan in scans}
    assert {case.label for case in found.cases} == {None}
    assert [file.reason for file in found.skipped] == [NO_SCAN]


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
    "labels",
    [
        ("Segmentation-Segment_1-label", "Segmentation-Segment_2-label"),
        ("LA_seg_AB", "LA_seg_CD"),
        ("seg_v1", "seg_v2"),
    ],
)
def test_folder_with_one_scan_and_several_labels_is_skipped(tmp_path: Path, labels: tuple[str, ...]) -> None:
    files = [f"p1/{file}.nrrd" for file in ("4 LGE", *labels)]
    found = find_cases(make_files(tmp_path, "p2/4 LGE.nrrd", *files))
    assert [case.image for case in found.cases] == [tmp_path / "p2/4 LGE.nrrd"]
    assert skip_reasons(found) == {Path(file).name: SEVERAL_LABELS for file in files}


def test_pairing_of_labels_in_100_folders_takes_linear_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scans = [NamedFile(Path(f"p{n}/heart.nrrd"), FileKind.SCAN, (f"p{n}", "heart")) for n in range(100)]
    labels = [
        NamedFile(Path(f"p{n}/Segmentation_{copy}.nrrd"), FileKind.LABEL, (f"p{n}", copy))
        for n in range(100)
        for copy in ("1", "2")
    ]
    compared: list[NamedFile] = []
    monkeypatch.setattr(NamedFile, "__eq__", lambda file, other: compared.append(file) or file is other)
    paired = with_keys_of_scans(labels, scans, {})
    assert [label.key for label in paired] == [scan.key for scan in scans for _ in range(2)]
    assert len(compared) <= len(labels)


def test_second_label_in_folder_p1_is_skipped(tmp_path: Path) -> None:
    pair = ("p1.nrrd", "p1/Segmentation.seg.nrrd")
    home = make_files(tmp_path, *pair, "p1/LGE.nrrd", "p1/Segmentation-Segment_2-label.nrrd")
    found = find_cases(home)
    assert set(scans_and_labels(found, home).values()) == {pair, ("p1/LGE.nrrd", None)}
    assert skip_reasons(found) == {"Segmentation-Segment_2-label.nrrd": NO_SCAN}


@pytest.mark.parametrize("scan", ["LGE", "MR", "scan", "image", "lgemri", "lge_3d", "4 LGE 3D"])
@pytest.mark.parametrize(
    "labels", [("Segmentation", "Segmentation_1"), ("LA", "LA_1"), ("seg", "seg_v2", "seg_final"), ("seg", "LA_seg_JS")]
)
def test_folder_with_several_labels_is_skipped_whatever_the_name_of_its_scan(
    tmp_path: Path, scan: str, labels: tuple[str, ...]
) -> None:
    files = [f"p1/{scan}.nrrd", *(f"p1/{label}.seg.nrrd" for label in labels)]
    found = find_cases(make_files(tmp_path, "p2/other.nrrd", *files, "p1/x_seg.nrrd"))
    assert [case.image for case in found.cases] == [tmp_path / "p2/other.nrrd"]
    several = {Path(file).name: SEVERAL_LABELS for file in files}
    assert skip_reasons(found) == several | {"x_seg.nrrd": NO_SCAN}


@pytest.mark.parametrize(
    ("scan", "labels"),
    [
        ("p1", ("p1_seg", "p1_seg_v2")),
        ("p1", ("p1-label", "p1-label_1")),
        ("p1", ("p1_LA_gt", "p1_seg_2")),
        ("P1", ("P1_seg", "p1_label")),
        ("p1_lge", ("p1_lge_seg", "p1_lge_LA_seg_2")),
    ],
)
def test_scan_with_two_labels_that_differ_in_numbers_or_capitals_is_skipped(
    tmp_path: Path, scan: str, labels: tuple[str, ...]
) -> None:
    files = [f"{name}.nrrd" for name in (scan, *labels)]
    found = find_cases(make_files(tmp_path, "q.nrrd", *files))
    assert [case.image for case in found.cases] == [tmp_path / "q.nrrd"]
    assert skip_reasons(found) == dict.fromkeys(files, SEVERAL_LABELS)


@pytest.mark.parametrize(
    ("scan", "label", "other"),
    [
        ("p1/LGE", "p1/LGE_seg", "p1/Segmentation"),
        ("p1_lge", "p1_lge_seg", "p1_seg"),
        ("p1_lge", "p1_lge_seg", "p1_seg_2"),
        ("p1", "p1_seg", "p1_2_seg"),
    ],
)
def test_label_named_exactly_like_its_scan_is_preferred_to_a_label_of_a_similar_name(
    tmp_path: Path, scan: str, label: str, other: str
) -> None:
    home = make_files(tmp_path, *(f"{file}.nrrd" for file in (scan, label, other)))
    found = find_cases(home)
    assert list(scans_and_labels(found, home).values()) == [(f"{scan}.nrrd", f"{label}.nrrd")]
    assert skip_reasons(found) == {Path(f"{other}.nrrd").name: NO_SCAN}


@pytest.mark.parametrize("scan", ["p{}.nrrd", "p{} LGE.nrrd"])
@pytest.mark.parametrize(
    "label", ["p{} Segmentation 1.nrrd", "p{} Segmentation-Segment_1-label.nrrd", "p{}_LA_label_final_v2.nrrd"]
)
def test_number_after_a_word_such_as_segmentation_is_no_patient_number(tmp_path: Path, scan: str, label: str) -> None:
    pairs = {(scan.format(n), label.format(n)) for n in (1, 2)}
    home = make_files(tmp_path, *(file for pair in pairs for file in pair))
    assert set(scans_and_labels(find_cases(home), home).values()) == pairs


@pytest.mark.parametrize(
    "label", ["sub-01_T1w_label-LA_mask", "sub-01_label-LA_mask", "sub-01_T1w_label-LA_desc-manual_mask"]
)
def test_flat_bids_label_belongs_to_the_scan_of_the_same_subject(tmp_path: Path, label: str) -> None:
    home = make_files(tmp_path, "sub-01_T1w.nii.gz", f"{label}.nii.gz", "sub-02_T1w.nii.gz")
    assert scans_and_labels(find_cases(home), home) == {
        "sub-01_T1w": ("sub-01_T1w.nii.gz", f"{label}.nii.gz"),
        "sub-02_T1w": ("sub-02_T1w.nii.gz", None),
    }
