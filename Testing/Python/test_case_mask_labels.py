"""Use masks as labels of scans.

The module `dcamt.cases.names` explains the terms, such as mask.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from dcamt.cases.fitting_scans import named_after_scans
from dcamt.cases.folders import find_cases
from dcamt.cases.found_cases import OTHER_CHANNEL, OTHER_LABEL, SEVERAL_LABELS
from dcamt.cases.names import FileKind, NamedFile
from dcamt_testing.case_folders import scans_and_labels, skip_reasons, write_image, write_images


def test_mask_p1_la_is_the_label_of_p1_and_mask_p3_wall_is_skipped(tmp_path: Path) -> None:
    write_images(
        tmp_path, ("p1", "p2", "p3", "p3_T1", "p4", "p5/image"), ("p1_LA", "p2_la_endo", "p3_wall", "p4_xyz", "p5/LA")
    )
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {
        "p1": ("p1.nii.gz", "p1_LA.nii.gz"),
        "p2": ("p2.nii.gz", "p2_la_endo.nii.gz"),
        "p3": ("p3.nii.gz", None),
        "p3_T1": ("p3_T1.nii.gz", None),
        "p4": ("p4.nii.gz", None),
        "p5": ("p5/image.nii.gz", "p5/LA.nii.gz"),
    }
    assert {file.path.name: file.reason for file in found.skipped} == {
        "p3_wall.nii.gz": OTHER_LABEL,
        "p4_xyz.nii.gz": OTHER_LABEL,
    }


def test_files_q_and_q_la_are_both_scans_if_both_have_few_values(tmp_path: Path) -> None:
    write_images(tmp_path, ("p1", "p2"), ("q", "q_LA"))
    assert {case.name for case in find_cases(tmp_path).cases} == {"p1", "p2", "q", "q_LA"}


@pytest.mark.parametrize(
    ("scan", "mask", "is_label"),
    [
        ("p1/dcm-LGE-1", "p1/LA", True),
        ("cohort/p1", "LA/p1", True),
        ("cohort/p1", "LA_wall/p1", False),
        ("CT/p1_CT", "LA/p1_MR", False),
        ("site1/p1", "site1/roi/final_p1", True),
        ("scans/site1/p1", "roi/site1/final_p1", True),
        ("site1/p1", "site1/roi/RV_p1", False),
    ],
)
def test_mask_is_a_label_unless_its_path_contains_another_structure_or_modality(
    tmp_path: Path, scan: str, mask: str, is_label: bool
) -> None:
    write_images(tmp_path, (scan,), (mask,))
    (case,) = find_cases(tmp_path).cases
    assert case.label == (tmp_path / f"{mask}.nii.gz" if is_label else None)


@pytest.mark.parametrize(
    ("scan", "mask", "label"),
    [
        ("cohort/p1", "LA/p1", "labels/p1"),
        ("scans/p1", "LA/p1", "labels/p1"),
        ("p1", "p1_LA", "p1_label"),
        ("p1/abc", "p1/LA", "p1/abc_seg"),
        ("a/p1_0000", "LA/p1", "labels/p1"),
        ("images/p1_0000", "images/p1_LA", "labels/p1_0000"),
        ("lge", "lge_LA", "lge_seg"),
        # The mask's name is the beginning of the label's name.
        ("p1", "p1_LA", "p1_LA_gt"),
        ("p1", "p1-LA", "p1-LA-label"),
        ("p1", "p1_LA", "p1_LA_corrected_seg"),
        ("p1/image", "p1/LA", "p1/LA_seg"),
        ("p1_0000", "p1_LA", "p1_LA_seg"),
        ("p1_lge", "p1_LA", "p1_LA_seg"),
        ("P1_LGE", "P1_LA", "P1_LA_seg"),
    ],
)
def test_file_with_a_word_for_labels_takes_precedence_over_a_mask_with_the_word_la(
    tmp_path: Path, scan: str, mask: str, label: str
) -> None:
    write_images(tmp_path, (scan,), (mask, label))
    found = find_cases(tmp_path)
    assert [case.label for case in found.cases] == [tmp_path / f"{label}.nii.gz"]
    assert skip_reasons(found) == {Path(f"{mask}.nii.gz").name: OTHER_LABEL}


def test_label_of_the_right_ventricle_is_not_used(tmp_path: Path) -> None:
    write_images(tmp_path, ("p1",), ("p1_RV", "p1_RV_seg", "p1_LA"))
    found = find_cases(tmp_path)
    assert [case.label for case in found.cases] == [tmp_path / "p1_LA.nii.gz"]
    assert skip_reasons(found) == {"p1_RV.nii.gz": OTHER_LABEL, "p1_RV_seg.nii.gz": OTHER_LABEL}


def test_mask_of_the_lge_scan_is_used_beside_the_label_of_a_missing_cine_scan(tmp_path: Path) -> None:
    write_images(tmp_path, ("p1_lge",), ("p1_LA", "p1_cine_LA_seg"))
    assert [case.label for case in find_cases(tmp_path).cases] == [tmp_path / "p1_LA.nii.gz"]


@pytest.mark.parametrize(
    ("scan", "other_scan", "mask", "lone_file"),
    [
        ("images/3", "images/2", "LA/3", "LA/1"),
        ("mri/3", "mri/2", "LA/3", "LA/4"),
        ("LGE/LGE_3", "LGE/LGE_2", "LA/LA_3", "LA/LA_4"),
    ],
)
@pytest.mark.parametrize("values", [2, 200])
def test_mask_3_is_the_label_of_scan_3_and_not_of_the_file_beside_the_mask(
    tmp_path: Path, scan: str, other_scan: str, mask: str, lone_file: str, values: int
) -> None:
    write_images(tmp_path, (scan, other_scan), (mask,))
    write_image(tmp_path / f"{lone_file}.nii.gz", values)
    labels = {case.image: case.label for case in find_cases(tmp_path).cases}
    assert labels.pop(tmp_path / f"{lone_file}.nii.gz", None) is None
    assert labels == {
        tmp_path / f"{scan}.nii.gz": tmp_path / f"{mask}.nii.gz",
        tmp_path / f"{other_scan}.nii.gz": None,
    }


@pytest.mark.parametrize(
    ("scan", "mask"),
    [
        ("{}_psir_seg", "{}_psir_seg_LA"),
        ("{}_psir_seg", "{}_psir_seg_label"),
        ("{}_psir_seg", "{}_LA"),
        ("{}_LGE_segmented", "{}_LA"),
        ("{}/LGE_segmented", "{}/LA"),
    ],
)
def test_scan_named_seg_or_segmented_is_recognised_by_its_voxels(tmp_path: Path, scan: str, mask: str) -> None:
    pairs = {(scan.replace("{}", patient), mask.replace("{}", patient)) for patient in ("p1", "p2")}
    write_images(tmp_path, *zip(*pairs, strict=True))
    expected = {(f"{image}.nii.gz", f"{label}.nii.gz") for image, label in pairs}
    assert set(scans_and_labels(find_cases(tmp_path), tmp_path).values()) == expected


@pytest.mark.parametrize("other", ["p1_lge", "p1_post", "p1_T1_mapping"])
def test_label_of_many_values_stays_a_label_if_another_file_may_be_the_scan(tmp_path: Path, other: str) -> None:
    write_images(tmp_path, (other, "p1_lge_seg"), ("p1_LA",))
    assert tmp_path / "p1_lge_seg.nii.gz" not in {case.image for case in find_cases(tmp_path).cases}


def test_cine_label_and_lge_mask_of_a_patient_are_paired_with_their_own_scans(tmp_path: Path) -> None:
    write_images(tmp_path, ("p1_lge", "p1_cine"), ("p1_lge_LA", "p1_cine_seg"))
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {
        "p1_cine": ("p1_cine.nii.gz", "p1_cine_seg.nii.gz"),
        "p1_lge": ("p1_lge.nii.gz", "p1_lge_LA.nii.gz"),
    }


def test_labels_of_patients_may_have_different_names(tmp_path: Path) -> None:
    scans = (f"{patient}/postcontrast" for patient in ("p1", "p2", "p3"))
    write_images(tmp_path, scans, ("p1/LA", "p2/LA", "p3/postcontrast_seg"))
    found = find_cases(tmp_path)
    labels = {case.label.relative_to(tmp_path).as_posix() for case in found.cases if case.label}
    assert labels == {"p1/LA.nii.gz", "p2/LA.nii.gz", "p3/postcontrast_seg.nii.gz"}


@pytest.mark.parametrize(
    ("other_scan", "scan", "mask"),
    [
        ("p2", "nifti/p1_T1", "p1/LA/p1_T1"),
        ("lge", "raw/p1/p1", "raw/p1/LA"),
        ("MRI/p2", "MRI/p1_lge", "p1/MRI/LA"),
    ],
)
def test_mask_is_paired_with_one_of_two_scans(tmp_path: Path, other_scan: str, scan: str, mask: str) -> None:
    write_images(tmp_path, (other_scan, scan), (mask,))
    labels = {case.image: case.label for case in find_cases(tmp_path).cases}
    assert labels == {
        tmp_path / f"{other_scan}.nii.gz": None,
        tmp_path / f"{scan}.nii.gz": tmp_path / f"{mask}.nii.gz",
    }


@pytest.mark.parametrize("name", ["scans", "imagesTr"])
def test_mask_a_la_is_the_label_of_the_channels_a_0000_and_a_0001(tmp_path: Path, name: str) -> None:
    write_images(tmp_path / name, ("a_0000", "a_0001", "b_0000", "b_0001"), ("a_LA", "b_LA"))
    found = find_cases(tmp_path / name)
    expected = {scan: (f"{scan}_0000.nii.gz", f"{scan}_LA.nii.gz") for scan in ("a", "b")}
    assert scans_and_labels(found, tmp_path / name) == expected
    assert skip_reasons(found) == {"a_0001.nii.gz": OTHER_CHANNEL, "b_0001.nii.gz": OTHER_CHANNEL}


@pytest.mark.parametrize("mask", ["{}_LA", "LA_{}", "LA/{}"])
@pytest.mark.parametrize("count", [1, 3, 12])
def test_masks_of_patients_x_0000_and_x_0001_are_labels(tmp_path: Path, count: int, mask: str) -> None:
    patients = [f"x_{number:04d}" for number in range(count)]
    write_images(tmp_path, patients, map(mask.format, patients))
    expected = {patient: (f"{patient}.nii.gz", f"{mask.format(patient)}.nii.gz") for patient in patients}
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == expected


@pytest.mark.parametrize("label", ["{}_label", "labels/{}"])
def test_label_takes_precedence_over_a_mask_if_patients_are_named_x_and_x_0000(tmp_path: Path, label: str) -> None:
    patients = ("x", "x_0000", "y_0000", "y_0001")
    masks = (name for patient in patients for name in (f"{patient}_LA", label.format(patient)))
    write_images(tmp_path, patients, masks)
    expected = {patient: (f"{patient}.nii.gz", f"{label.format(patient)}.nii.gz") for patient in patients}
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == expected


def test_patients_x_and_x_0000_have_their_own_labels(tmp_path: Path) -> None:
    write_images(tmp_path, ("x", "x_0000"), ("x_LA", "x_0000_label"))
    expected = {"x": ("x.nii.gz", "x_LA.nii.gz"), "x_0000": ("x_0000.nii.gz", "x_0000_label.nii.gz")}
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == expected


def test_label_takes_precedence_over_a_mask_named_after_the_first_channel(tmp_path: Path) -> None:
    write_images(tmp_path, ("a_0000",), ("a_label", "a_0000_LA"))
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {"a": ("a_0000.nii.gz", "a_label.nii.gz")}


@pytest.mark.parametrize("mask", ["imagesTr/a_LA", "imagesTr/a_0000_LA", "LA/a_0000", "LA/a", "labels/a_0000"])
def test_mask_named_after_a_case_or_its_first_channel_is_the_label_of_the_case(tmp_path: Path, mask: str) -> None:
    write_images(tmp_path, ("imagesTr/a_0000", "imagesTr/a_0001"), (mask,))
    expected = {"a": ("imagesTr/a_0000.nii.gz", f"{mask}.nii.gz")}
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == expected


def test_mask_of_the_atrium_is_paired_with_the_scan_of_its_patient(tmp_path: Path) -> None:
    """Masks of the wall, of another modality, or with an unknown word in the name are skipped."""
    write_images(
        tmp_path,
        ("p1_lge", "p2/lge", "p3_DE", "p3_T2", "scans/p4", "LGE/p5", "p6_CT"),
        ("p1_la", "p2/la", "p3_gd", "LA/p4", "wall/p4", "targets/p5", "p6_MR_LA"),
    )
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {
        "p1_lge": ("p1_lge.nii.gz", "p1_la.nii.gz"),
        "p2_lge": ("p2/lge.nii.gz", "p2/la.nii.gz"),
        "p3_DE": ("p3_DE.nii.gz", None),
        "p3_T2": ("p3_T2.nii.gz", None),
        "p4": ("scans/p4.nii.gz", "LA/p4.nii.gz"),
        "p5": ("LGE/p5.nii.gz", "targets/p5.nii.gz"),
        "p6_CT": ("p6_CT.nii.gz", None),
    }
    assert {file.path.relative_to(tmp_path).as_posix(): file.reason for file in found.skipped} == {
        "p3_gd.nii.gz": OTHER_LABEL,
        "wall/p4.nii.gz": OTHER_LABEL,
        "p6_MR_LA.nii.gz": OTHER_LABEL,
    }


@pytest.mark.parametrize("other", ["p1_RA", "p1_RA(1)"])
def test_mask_of_another_structure_does_not_compete_with_the_mask_of_the_atrium(tmp_path: Path, other: str) -> None:
    write_images(tmp_path, ("p1_lge",), ("p1_LA(1)", other))
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {"p1_lge": ("p1_lge.nii.gz", "p1_LA(1).nii.gz")}


@pytest.mark.parametrize(
    ("scan", "mask"),
    [
        *(("{}", f"{{}}_{word}") for word in ("heart", "heart_left", "bloodpool", "blood pool", "left")),
        *(
            ("{}/LGE", "{}/heart"),
            ("{}/LGE", "{}/bloodpool"),
            ("{}/LGE", "{}/whole_heart"),
            ("scans/{}", "heart/{}"),
            ("{}_lge", "{}_heart"),
        ),
        ("{}", "{}_heart_seg"),
        ("{}", "{}_left_gt"),
        ("{}_lge", "{}_bloodpool_seg"),
    ],
)
def test_mask_that_may_be_of_another_structure_is_no_label(tmp_path: Path, scan: str, mask: str) -> None:
    scans, masks = ([name.replace("{}", patient) for patient in ("p1", "p2")] for name in (scan, mask))
    write_images(tmp_path, scans, masks)
    found = find_cases(tmp_path)
    assert {case.image: case.label for case in found.cases} == {tmp_path / f"{one}.nii.gz": None for one in scans}
    assert {file.path for file in found.skipped} == {tmp_path / f"{one}.nii.gz" for one in masks}


@pytest.mark.parametrize("words", ["LA_bloodpool", "LA_blood_pool", "heart_atrium_left", "left_atrium"])
def test_mask_of_the_left_atrium_is_a_label_though_its_name_has_a_word_for_the_heart(
    tmp_path: Path, words: str
) -> None:
    write_images(tmp_path, ("p1_lge",), (f"p1_{words}", "p1_RV_bloodpool"))
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {"p1_lge": ("p1_lge.nii.gz", f"p1_{words}.nii.gz")}
    assert skip_reasons(found) == {"p1_RV_bloodpool.nii.gz": OTHER_LABEL}


@pytest.mark.parametrize("modality", ["CMR", "DEMRI", "LGEMR", "LGECMR", "CEMRA", "PSIR", "DCE", "IRM"])
def test_mask_p1_la_is_the_label_of_the_scan_p1_psir(tmp_path: Path, modality: str) -> None:
    write_images(tmp_path, (f"p1_{modality}", f"p2_{modality}"), ("p1_LA", "p2_LA_seg"))
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {
        f"{patient}_{modality}": (f"{patient}_{modality}.nii.gz", f"{label}.nii.gz")
        for patient, label in (("p1", "p1_LA"), ("p2", "p2_LA_seg"))
    }


@pytest.mark.parametrize("name", ["p1", "P1"])
def test_mask_belongs_to_the_scan_named_with_the_same_capitals(name: str) -> None:
    scans = [NamedFile(Path(f"{scan}.nii.gz"), FileKind.SCAN, (scan,)) for scan in ("P1", "p1")]
    mask = NamedFile(Path(f"{name}_LA.nii.gz"), FileKind.SCAN, (f"{name}_LA",))
    found = next(named_after_scans([*scans, mask]))
    assert found[:2] == (mask, scans[name == "p1"])


def test_masks_of_one_name_in_two_formats_are_several_labels(tmp_path: Path) -> None:
    write_images(tmp_path, ("p1", "p2"), ("p1_LA", "p2_LA"))
    write_image(tmp_path / "p1_LA.nii", 2)
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {"p2": ("p2.nii.gz", "p2_LA.nii.gz")}
    assert skip_reasons(found) == dict.fromkeys(("p1.nii.gz", "p1_LA.nii", "p1_LA.nii.gz"), SEVERAL_LABELS)
