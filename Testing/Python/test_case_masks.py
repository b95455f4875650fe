"""Recognise masks by voxel values and file names.

The module `dcamt.cases.names` explains the terms, such as mask.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path, PurePath

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.cases import few_values, masks
from dcamt.cases.fitting_scans import named_after_scans
from dcamt.cases.folders import find_cases
from dcamt.cases.found_cases import OTHER_CHANNEL, OTHER_LABEL, SEVERAL_LABELS
from dcamt.cases.names import FileKind, NamedFile, classify_all
from dcamt.geometry import Grid
from dcamt.volume import Labelmap
from dcamt_testing.case_folders import make_files, scans_and_labels, skip_reasons, write_image


def write_images(home: Path, scans: Iterable[str], masks: Iterable[str]) -> None:
    """Write scans of 200 and masks of 2 different voxel values as NIfTI files."""
    for names, values in ((scans, 200), (masks, 2)):
        for name in names:
            write_image(home / f"{name}.nii.gz", values)


def test_mask_p1_la_is_the_label_of_p1_and_mask_p3_wall_is_skipped(tmp_path: Path) -> None:
    write_images(
        tmp_path, ("p1", "p2", "p3", "p3_T1", "p4", "p5/image"), ("p1_LA", "p2_la_endo", "p3_wall", "p4_xyz", "p5/LA")
    )
    for scan in ("q", "q_LA"):  # `q` has as few values as a mask, so `q_LA` is not its label.
        write_image(tmp_path / f"{scan}.nii.gz", 2)
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {
        "p1": ("p1.nii.gz", "p1_LA.nii.gz"),
        "p2": ("p2.nii.gz", "p2_la_endo.nii.gz"),
        "p3": ("p3.nii.gz", None),
        "p3_T1": ("p3_T1.nii.gz", None),
        "p4": ("p4.nii.gz", None),
        "p5": ("p5/image.nii.gz", "p5/LA.nii.gz"),
        "q": ("q.nii.gz", None),
        "q_LA": ("q_LA.nii.gz", None),
    }
    assert {file.path.name: file.reason for file in found.skipped} == {
        "p3_wall.nii.gz": OTHER_LABEL,
        "p4_xyz.nii.gz": OTHER_LABEL,
    }


def test_masks_with_the_word_ra_or_v2_are_skipped(tmp_path: Path) -> None:
    write_images(tmp_path, ("p1",), ("p1_RA", "p1_RA_final", "p1_LA_v2", "p1_LA_v2_smooth"))
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {"p1": ("p1.nii.gz", None)}
    assert set(skip_reasons(found).values()) == {OTHER_LABEL}


def test_masks_in_folder_reader1_are_skipped_if_all_have_scans_of_the_same_names(tmp_path: Path) -> None:
    for name in ("p1", "p2", "p3_0000"):
        write_image(tmp_path / "scans" / f"{name}.nii.gz", 200)
        write_image(tmp_path / "visit2" / f"{name}.nii.gz", 150)
    for name in ("P1", "p3"):
        write_image(tmp_path / "reader1" / f"{name}.nii.gz", 2)
    # The folder `atlas` has a file p4, but `scans` has none. So the files in `atlas` are not masks of the scans.
    for name in ("p1", "p4"):
        write_image(tmp_path / "atlas" / f"{name}.nii.gz", 2)
    found = find_cases(tmp_path)
    kept = [f"{name}.nii.gz" for name in ("p1", "p2", "p3_0000")]
    expected = [f"scans/{name}" for name in kept] + [f"visit2/{name}" for name in kept]
    expected += ["atlas/p1.nii.gz", "atlas/p4.nii.gz"]
    assert sorted(case.image.relative_to(tmp_path).as_posix() for case in found.cases) == sorted(expected)
    assert not any(case.label for case in found.cases)
    assert {file.path.relative_to(tmp_path).as_posix(): file.reason for file in found.skipped} == {
        "reader1/P1.nii.gz": OTHER_LABEL,
        "reader1/p3.nii.gz": OTHER_LABEL,
    }


@pytest.mark.parametrize(
    ("scans", "mask"),
    [
        pytest.param(["scans/p{}"], "reader1/p{}_AB", id="added folder and word"),
        pytest.param(["scans/p{}_lge"], "reader1/p{}", id="added folder, name without modality"),
        pytest.param(["de/p{}_de"], "gd/p{}_gd", id="other word in folder and name"),
        pytest.param(
            ["train/p{}_C0", "train/p{}_DE", "train/p{}_T2"], "train_gd/p{}_gd", id="replaced folder (MyoPS 2020)"
        ),
        pytest.param(["scans/p{}/lge"], "reader1/p{}/lge", id="added outer folder"),
        pytest.param(["p{}/lge"], "p{}/reader1/lge", id="added inner folder"),
        pytest.param(["p{}/p{}"], "p{}/observerA", id="other name"),
        pytest.param(["p{}/p{}"], "p{}/reader1/LA", id="added folder, other name"),
        pytest.param(["p{}/dcm-LGE-1"], "p{}/mitralcutter", id="other name beside one scan"),
        pytest.param(["p{}/dcm-CMRA-1", "p{}/dcm-LGE-2"], "p{}/LA-cemrgnet", id="other name beside two scans"),
    ],
)
@pytest.mark.parametrize("patients", [1, 8], ids="{} patients".format)
def test_mask_is_skipped_if_its_path_has_a_part_that_the_path_of_the_scan_lacks(
    tmp_path: Path, scans: list[str], mask: str, patients: int
) -> None:
    images = [scan.replace("{}", str(n)) for scan in scans for n in range(patients)]
    masks = [mask.replace("{}", str(n)) for n in range(patients)]
    write_images(tmp_path, images, masks)
    found = find_cases(tmp_path)
    assert set(scans_and_labels(found, tmp_path).values()) == {(f"{image}.nii.gz", None) for image in images}
    skipped = {file.path.relative_to(tmp_path).as_posix(): file.reason for file in found.skipped}
    assert skipped == dict.fromkeys((f"{mask}.nii.gz" for mask in masks), OTHER_LABEL)


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
def test_mask_la_p1_is_a_label_unless_it_names_the_wall_or_another_modality(
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
    ],
)
def test_label_p1_label_takes_precedence_over_mask_p1_la(tmp_path: Path, scan: str, mask: str, label: str) -> None:
    write_images(tmp_path, (scan,), (mask, label))
    found = find_cases(tmp_path)
    assert [case.label for case in found.cases] == [tmp_path / f"{label}.nii.gz"]
    assert skip_reasons(found) == {Path(f"{mask}.nii.gz").name: OTHER_LABEL}


def test_cine_label_and_lge_mask_of_a_patient_are_paired_with_their_own_scans(tmp_path: Path) -> None:
    write_images(tmp_path, ("p1_lge", "p1_cine"), ("p1_lge_LA", "p1_cine_seg"))
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {
        "p1_cine": ("p1_cine.nii.gz", "p1_cine_seg.nii.gz"),
        "p1_lge": ("p1_lge.nii.gz", "p1_lge_LA.nii.gz"),
    }


def test_phantom_with_two_values_beside_scans_a_and_b_is_a_scan(tmp_path: Path) -> None:
    write_images(tmp_path, ("a", "b"), ("phantom",))
    assert len(find_cases(tmp_path).cases) == 3


def test_mask_p1_la_is_a_label_although_patient_p3_has_the_label_postcontrast_seg(tmp_path: Path) -> None:
    scans = (f"{patient}/postcontrast" for patient in ("p1", "p2", "p3"))
    write_images(tmp_path, scans, ("p1/LA", "p2/LA", "p3/postcontrast_seg"))
    found = find_cases(tmp_path)
    labels = {case.label.relative_to(tmp_path).as_posix() for case in found.cases if case.label}
    assert labels == {"p1/LA.nii.gz", "p2/LA.nii.gz", "p3/postcontrast_seg.nii.gz"}


@pytest.mark.parametrize(
    ("scan", "mask", "is_label"),
    [
        ("p1", "p1_chambers/aorta", False),
        ("p1", "p1/LA", True),
        ("p1/lge", "p1/LA/p1", True),
        ("a/p1", "a/p1_ts/heart_atrium_left", False),
        ("ct", "output/aorta", False),
        ("scans/p1_0000", "runs/D501/fold_0/validation/p1", False),
        ("LGE/LGE_1", "LA/LA_1", True),
        ("LGE/LGE_1", "Scar/Scar_1", False),
        ("p1", "p1LA", True),
        ("P1", "P1SEG", True),
        ("p1", "p1RV", False),
    ],
)
def test_masks_such_as_la_p1_and_p1la_are_no_scans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scan: str, mask: str, is_label: bool
) -> None:
    write_images(tmp_path, (scan,), (mask,))
    (case,) = find_cases(tmp_path).cases
    assert (case.image, case.label) == (
        tmp_path / f"{scan}.nii.gz",
        tmp_path / f"{mask}.nii.gz" if is_label else None,
    )
    monkeypatch.chdir(tmp_path)
    assert len(find_cases(Path()).cases) == 1


def test_scan_with_few_values_among_other_scans_of_the_current_folder_is_no_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, ("b", "c"), ("a",))
    monkeypatch.chdir(tmp_path)
    assert len(find_cases(Path()).cases) == 3


def test_mask_search_reads_no_scan_of_ten_patient_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "has_few_values", lambda path: pytest.fail(f"{path} was read"))
    files = [f"patient{number}/lge.nii.gz" for number in range(10)]
    assert len(find_cases(make_files(tmp_path, *files)).cases) == 10


@pytest.mark.parametrize(
    ("further_files", "file"),
    [
        (["template.nii.gz"], "p{}/lge.nii.gz"),
        ([f"p{n}/lge.nii.gz" for n in range(30)], "p{}/after/ablation.nii.gz"),
        ([f"before/p{n}/lge.nii.gz" for n in range(30)], "after/p{}/lge.nii.gz"),
        ([], "p{}_LA.nii.gz"),
    ],
)
def test_mask_search_reads_at_most_12_scans_of_thirty_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, further_files: list[str], file: str
) -> None:
    read: set[Path] = set()
    monkeypatch.setattr(masks, "has_few_values", lambda path: bool(read.add(path)))
    files = [*further_files, *(file.format(number) for number in range(30))]
    assert len(find_cases(make_files(tmp_path, *files)).cases) == len(files)
    assert len(read) <= 12


def test_mask_search_among_scans_of_one_name_takes_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    named = [NamedFile(Path(f"p{n}/heart.nii.gz"), FileKind.SCAN, (f"p{n}", "heart")) for n in range(400)]
    calls: list[PurePath] = []
    parent = PurePath.parent.fget
    assert parent is not None
    monkeypatch.setattr(PurePath, "parent", property(lambda path: calls.append(path) or parent(path)))
    assert masks.recognise_masks(named) == named
    assert 0 < len(calls) < 20 * len(named)


@pytest.mark.parametrize(
    ("other_scan", "scan", "mask"),
    [
        ("p2", "nifti/p1_T1", "p1/LA/p1_T1"),
        ("lge", "raw/p1/p1", "raw/p1/LA"),
        ("MRI/p2", "MRI/p1_lge", "p1/MRI/LA"),
    ],
)
def test_mask_stays_a_label_although_a_folder_above_it_is_named_after_a_scan(
    tmp_path: Path, other_scan: str, scan: str, mask: str
) -> None:
    write_images(tmp_path, (other_scan, scan), (mask,))
    labels = {case.image: case.label for case in find_cases(tmp_path).cases}
    assert labels == {
        tmp_path / f"{other_scan}.nii.gz": None,
        tmp_path / f"{scan}.nii.gz": tmp_path / f"{mask}.nii.gz",
    }


def test_h5_file_that_contains_its_label_is_a_case_beside_another_scan(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write_image(tmp_path / "p1/lgemri.nii.gz", 200)
    with h5py.File(tmp_path / "p1/mri_norm2.h5", "w") as file:
        file["image"], file["label"] = np.random.default_rng(0).normal(size=(6, 6, 6)), np.eye(6)[None].repeat(6, 0)
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {
        "p1": ("p1/lgemri.nii.gz", None),
        "mri_norm2": ("p1/mri_norm2.h5", "p1/mri_norm2.h5"),
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
def test_label_x_0000_label_takes_precedence_over_mask_x_0000_la(tmp_path: Path, label: str) -> None:
    patients = ("x", "x_0000", "y_0000", "y_0001")
    masks = (name for patient in patients for name in (f"{patient}_LA", label.format(patient)))
    write_images(tmp_path, patients, masks)
    expected = {patient: (f"{patient}.nii.gz", f"{label.format(patient)}.nii.gz") for patient in patients}
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == expected


def test_label_of_patient_x_0000_takes_no_precedence_over_the_mask_of_x(tmp_path: Path) -> None:
    write_images(tmp_path, ("x", "x_0000"), ("x_LA", "x_0000_label"))
    expected = {"x": ("x.nii.gz", "x_LA.nii.gz"), "x_0000": ("x_0000.nii.gz", "x_0000_label.nii.gz")}
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == expected


def test_label_a_takes_precedence_over_the_mask_a_0000_la(tmp_path: Path) -> None:
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


def write_labelmap_of_27_values(path: Path) -> None:
    """Write a labelmap of 27 cubes, each of another value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cubes = np.kron(np.arange(27).reshape(3, 3, 3), np.ones((12, 12, 12))).astype(np.int16)
    nib.save(nib.Nifti1Image(cubes, np.eye(4)), path)


@pytest.mark.parametrize("mask", ["organs/p{}", "p{}_organs"])
def test_labelmap_of_many_organs_is_no_scan(tmp_path: Path, mask: str) -> None:
    for number in (1, 2):
        write_image(tmp_path / f"ct/p{number}.nii.gz", 200)
        write_labelmap_of_27_values(tmp_path / f"ct/{mask.format(number)}.nii.gz")
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path).keys() == {"p1", "p2"}
    assert set(skip_reasons(found).values()) == {OTHER_LABEL}


def test_scan_of_27_values_beside_another_scan_is_no_mask(tmp_path: Path) -> None:
    write_image(tmp_path / "p1.nii.gz", 200)
    write_image(tmp_path / "p1_T1.nii.gz", 27)
    assert len(find_cases(tmp_path).cases) == 2


def test_eight_masks_beside_two_scans_are_no_scans(tmp_path: Path) -> None:
    scans, structures = ("dcm-LGE-2", "dcm-CMRA-1"), ("LA", "LA-reg", "RA", "LSPV", "RSPV", "LIPV", "RIPV", "Bloodpool")
    for patient in ("p1", "p2"):
        write_images(tmp_path / patient, scans, structures)
    assert {case.image.name for case in find_cases(tmp_path).cases} == {f"{scan}.nii.gz" for scan in scans}


def test_masks_named_after_structures_beside_several_scans_of_a_patient_are_no_scans(tmp_path: Path) -> None:
    write_images(tmp_path, ("4 LGE", "5 MRA 3D"), ("LA", "LA_wall", "LSPV", "RSPV_2", "RA"))
    assert {case.name for case in find_cases(tmp_path).cases} == {"4 LGE", "5 MRA 3D"}


@pytest.mark.parametrize("structure", ["aparc+aseg", "RA+LA", "LA&scar", "[RA]", "RV(2)"])
def test_mask_of_other_structures_is_skipped_despite_special_characters_in_its_name(
    tmp_path: Path, structure: str
) -> None:
    for patient in ("p1", "p2"):
        write_images(tmp_path / patient, ("T1",), (structure,))
    found = find_cases(tmp_path)
    assert [case.label for case in found.cases] == [None, None]
    assert len(found.skipped) == 2


@pytest.mark.parametrize("other", ["p1_RA", "p1_RA(1)"])
def test_mask_of_another_structure_does_not_compete_with_the_mask_of_the_atrium(tmp_path: Path, other: str) -> None:
    write_images(tmp_path, ("p1_lge",), ("p1_LA(1)", other))
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {"p1_lge": ("p1_lge.nii.gz", "p1_LA(1).nii.gz")}


@pytest.mark.parametrize("words", ["LA_bloodpool", "LA_blood_pool", "bloodpool", "blood pool"])
def test_mask_named_bloodpool_or_blood_pool_is_a_label(tmp_path: Path, words: str) -> None:
    write_images(tmp_path, ("p1_lge",), (f"p1_{words}", "p1_RV_bloodpool"))
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {"p1_lge": ("p1_lge.nii.gz", f"p1_{words}.nii.gz")}
    assert skip_reasons(found) == {"p1_RV_bloodpool.nii.gz": OTHER_LABEL}


def test_mask_search_reads_two_scans_beside_a_mask_of_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[Path] = set()
    monkeypatch.setattr(masks, "has_few_values", lambda path: read.add(path) or path.name == "LA.nii.gz")
    found = find_cases(make_files(tmp_path, "LA.nii.gz", *(f"p{number}.nii.gz" for number in range(30))))
    assert skip_reasons(found) == {"LA.nii.gz": OTHER_LABEL}
    assert len(read) == 3


def test_mask_search_among_masks_without_scans_examines_each_mask_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    monkeypatch.setattr(masks, "has_few_values", lambda path: not calls.append(path))
    named = [NamedFile(Path(f"atria/LA_{n}.nii.gz"), FileKind.SCAN, ("atria", f"LA_{n}")) for n in range(100)]
    assert masks.recognise_masks(named) == named
    assert len(calls) < 10 * len(named)


def test_each_of_five_thousand_files_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def read_mask(path: Path) -> Labelmap:
        read.append(path)
        return Labelmap(np.zeros((3, 3, 3), np.uint8), Grid((3, 3, 3), np.eye(4)), path)

    monkeypatch.setattr(few_values, "read_labelmap", read_mask)
    make_files(tmp_path, *(f"p{number}.nii.gz" for number in range(5000)))
    files = sorted(tmp_path.iterdir())
    for _ in range(2):
        assert all(map(few_values.has_few_values, files))
    assert read == files


@pytest.mark.parametrize("ending", [".hdr", ".mhd", ".nhdr"])
def test_new_data_beside_an_unchanged_header_is_read(tmp_path: Path, ending: str) -> None:
    header = tmp_path / f"p1{ending}"
    voxels = np.arange(1000, dtype=np.uint16).reshape(10, 10, 10)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(header))
    before = header.read_bytes(), header.stat().st_mtime_ns
    (data,) = set(tmp_path.iterdir()) - {header}
    assert not few_values.has_few_values(header)
    data.write_bytes(bytes(2000))
    assert (header.read_bytes(), header.stat().st_mtime_ns) == before
    assert few_values.has_few_values(header)


@pytest.mark.parametrize(("scan", "mask"), [("{}_post", "{}_LA"), ("{}_visit1_a", "{}_LA_wall"), ("post_{}", "LA_{}")])
@pytest.mark.parametrize("count", [1, 3, 12])
def test_mask_p1_la_beside_scan_p1_post_is_no_scan(tmp_path: Path, scan: str, mask: str, count: int) -> None:
    patients = [f"p{number}" for number in range(count)]
    write_images(tmp_path, map(scan.format, patients), map(mask.format, patients))
    found = find_cases(tmp_path)
    assert {case.name for case in found.cases} == {scan.format(patient) for patient in patients}
    assert skip_reasons(found) == {f"{mask.format(patient)}.nii.gz": OTHER_LABEL for patient in patients}


def test_scan_of_two_values_beside_another_patients_scan_is_no_mask(tmp_path: Path) -> None:
    write_images(tmp_path, ("p1_post", "p3_post"), ("p2_LA",))
    assert {case.name for case in find_cases(tmp_path).cases} == {"p1_post", "p3_post", "p2_LA"}


@pytest.mark.parametrize("modality", ["CMR", "DEMRI", "LGEMR", "LGECMR", "CEMRA", "PSIR", "DCE", "IRM"])
def test_mask_p1_la_is_the_label_of_the_scan_p1_psir(tmp_path: Path, modality: str) -> None:
    write_images(tmp_path, (f"p1_{modality}", f"p2_{modality}"), ("p1_LA", "p2_LA_seg"))
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {
        f"{patient}_{modality}": (f"{patient}_{modality}.nii.gz", f"{label}.nii.gz")
        for patient, label in (("p1", "p1_LA"), ("p2", "p2_LA_seg"))
    }


def test_masks_do_not_depend_on_the_order_of_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of random names and kinds, in random orders."""
    draw = random.Random(0)
    words = ("LA", "RV", "T1", "lge", "gd", "reader1", "scans", "final", "x")
    patients = ("p1", "P1", "p2", "q")
    few: set[Path] = set()
    monkeypatch.setattr(masks, "has_few_values", few.__contains__)
    home = Path("home")
    for _ in range(300):
        paths = {
            home.joinpath(
                *draw.choices((*words, *patients), k=draw.randint(0, 2)),
                draw.choice(patients) + draw.choice(("", "LA", "_0000", f"_{draw.choice(words)}")) + ending,
            )
            for ending in draw.choices((".nii.gz", ".nrrd"), k=8)
        }
        few.clear()
        few.update(path for path in sorted(paths) if draw.random() < 0.5)
        named = classify_all(sorted(paths), home)
        expected = masks.recognise_masks(named)
        for _ in range(3):
            order = draw.sample(range(len(named)), len(named))
            assert masks.recognise_masks([named[n] for n in order]) == [expected[n] for n in order]


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


@pytest.mark.parametrize("mask", ["LA_{}", "output_{}", "{}_0000/{}_0000_trans", "{}/LA"])
def test_masks_in_a_folder_of_any_name_are_no_scans(tmp_path: Path, mask: str) -> None:
    patients = ("p1", "p2", "p3")
    scans = [f"scans/{patient}_0000" for patient in patients]
    write_images(tmp_path, scans, [f"model/{mask.replace('{}', patient)}" for patient in patients])
    assert [case.label for case in find_cases(tmp_path).cases] == [None] * 3
