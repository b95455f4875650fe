"""Find cases in a folder by file names, and masks also by their voxel values.

The module `dcamt.cases.names` explains the terms, such as mask.
"""

from __future__ import annotations

from pathlib import Path, PurePath

import nibabel as nib
import numpy as np
import pytest
from dcamt.cases import masks
from dcamt.cases.folders import find_cases
from dcamt.cases.found_cases import BIDS, NAMES, OTHER_CHANNEL, OTHER_LABEL, RESULT
from dcamt.cases.names import FileKind, NamedFile
from dcamt.errors import InputError
from dcamt_testing.case_folders import make_files, scans_and_labels, skip_reasons


def write_image(path: Path, values: int) -> None:
    """Write an image with `values` different voxel values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = (np.arange(6**3) % values).reshape(6, 6, 6).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def test_mask_p1_la_is_the_label_of_p1_and_mask_p3_wall_is_skipped(tmp_path: Path) -> None:
    for scan in ("p1", "p2", "p3", "p3_T1", "p4", "p5/image"):
        write_image(tmp_path / f"{scan}.nii.gz", 200)
    for mask in ("p1_LA", "p2_la_endo", "p3_wall", "p4_xyz", "p5/LA"):
        write_image(tmp_path / f"{mask}.nii.gz", 2)
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


def test_masks_p1_ra_and_p1_ra_final_beside_p1_are_skipped(tmp_path: Path) -> None:
    write_image(tmp_path / "p1.nii.gz", 200)
    for mask in ("p1_RA", "p1_RA_final", "p1_LA_v2", "p1_LA_v2_smooth"):
        write_image(tmp_path / f"{mask}.nii.gz", 2)
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
def test_mask_is_skipped_if_its_path_adds_or_replaces_a_part_of_a_scans_path(
    tmp_path: Path, scans: list[str], mask: str, patients: int
) -> None:
    images = [f"{scan.replace('{}', str(n))}.nii.gz" for scan in scans for n in range(patients)]
    masks = [f"{mask.replace('{}', str(n))}.nii.gz" for n in range(patients)]
    for image in images:
        write_image(tmp_path / image, 200)
    for name in masks:
        write_image(tmp_path / name, 2)
    found = find_cases(tmp_path)
    assert sorted(case.image.relative_to(tmp_path).as_posix() for case in found.cases) == sorted(images)
    assert not any(case.label for case in found.cases)
    assert {file.path.relative_to(tmp_path).as_posix(): file.reason for file in found.skipped} == dict.fromkeys(
        masks, OTHER_LABEL
    )


@pytest.mark.parametrize(
    ("scan", "mask", "is_label"),
    [
        ("p1/dcm-LGE-1", "p1/LA", True),
        ("cohort/p1", "LA/p1", True),
        ("cohort/p1", "LA_wall/p1", False),
        ("CT/p1_CT", "LA/p1_MR", False),
    ],
)
def test_mask_la_p1_is_a_label_but_not_with_a_word_for_the_wall_or_another_modality(
    tmp_path: Path, scan: str, mask: str, is_label: bool
) -> None:
    write_image(tmp_path / f"{scan}.nii.gz", 200)
    write_image(tmp_path / f"{mask}.nii.gz", 2)
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
    write_image(tmp_path / f"{scan}.nii.gz", 200)
    for name in (mask, label):
        write_image(tmp_path / f"{name}.nii.gz", 2)
    found = find_cases(tmp_path)
    assert [case.label for case in found.cases] == [tmp_path / f"{label}.nii.gz"]
    assert skip_reasons(found) == {Path(f"{mask}.nii.gz").name: OTHER_LABEL}


def test_p1_cine_seg_and_p1_lge_la_are_the_labels_of_p1_cine_and_p1_lge(tmp_path: Path) -> None:
    for name, values in (("lge", 200), ("lge_LA", 2), ("cine", 200), ("cine_seg", 2)):
        write_image(tmp_path / f"p1_{name}.nii.gz", values)
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {
        "p1_cine": ("p1_cine.nii.gz", "p1_cine_seg.nii.gz"),
        "p1_lge": ("p1_lge.nii.gz", "p1_lge_LA.nii.gz"),
    }


def test_phantom_with_two_values_beside_scans_a_and_b_is_a_scan(tmp_path: Path) -> None:
    for name, values in (("a", 200), ("b", 200), ("phantom", 2)):
        write_image(tmp_path / f"{name}.nii.gz", values)
    assert len(find_cases(tmp_path).cases) == 3


def test_mask_p1_la_is_a_label_although_patient_p3_has_the_label_postcontrast_seg(tmp_path: Path) -> None:
    for patient in ("p1", "p2", "p3"):
        write_image(tmp_path / patient / "postcontrast.nii.gz", 200)
    for label in ("p1/LA", "p2/LA", "p3/postcontrast_seg"):
        write_image(tmp_path / f"{label}.nii.gz", 2)
    found = find_cases(tmp_path)
    labels = {case.label.relative_to(tmp_path).as_posix() for case in found.cases if case.label}
    assert labels == {"p1/LA.nii.gz", "p2/LA.nii.gz", "p3/postcontrast_seg.nii.gz"}


def test_file_p1_predict_is_a_result_and_folder_predict_holds_a_scan(tmp_path: Path) -> None:
    files = ("train/images/p1.nii.gz", "train/labels/p1.nii.gz", "predict/images/p9.nii.gz", "p1_predict.nii.gz")
    found = find_cases(make_files(tmp_path, *files))
    assert {case.image.relative_to(tmp_path).as_posix() for case in found.cases} == {files[0], files[2]}
    assert skip_reasons(found) == {"p1_predict.nii.gz": RESULT}


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
    write_image(tmp_path / f"{scan}.nii.gz", 200)
    write_image(tmp_path / f"{mask}.nii.gz", 2)
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
    for name, values in (("a", 2), ("b", 200), ("c", 200)):
        write_image(tmp_path / f"{name}.nii.gz", values)
    monkeypatch.chdir(tmp_path)
    assert len(find_cases(Path()).cases) == 3


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
    ],
)
def test_mask_search_reads_few_scans_if_each_of_thirty_patients_has_scans_in_a_folder(
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
    for name, values in ((other_scan, 200), (scan, 200), (mask, 2)):
        write_image(tmp_path / f"{name}.nii.gz", values)
    labels = {case.image: case.label for case in find_cases(tmp_path).cases}
    assert labels == {
        tmp_path / f"{other_scan}.nii.gz": None,
        tmp_path / f"{scan}.nii.gz": tmp_path / f"{mask}.nii.gz",
    }


def test_scan_lge_result_beside_a_scan_of_another_modality_is_a_scan(tmp_path: Path) -> None:
    files = ("p1/T1.nii.gz", "p1/lge_result.nii.gz")
    assert [case.image for case in find_cases(make_files(tmp_path, *files)).cases] == [
        tmp_path / file for file in files
    ]


@pytest.mark.parametrize("labels", ["_labels", "label maps", "2_labels", "masks (final)", "lbls", "All segmentations"])
def test_label_in_a_folder_such_as_label_maps_is_paired(tmp_path: Path, labels: str) -> None:
    found = find_cases(make_files(tmp_path, "1_images/p1.nii.gz", f"{labels}/p1.nii.gz"))
    assert scans_and_labels(found, tmp_path) == {"p1": ("1_images/p1.nii.gz", f"{labels}/p1.nii.gz")}


def test_h5_file_with_scan_and_label_beside_another_scan_is_a_case(tmp_path: Path) -> None:
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
    for scan in ("a_0000", "a_0001", "b_0000", "b_0001"):
        write_image(tmp_path / name / f"{scan}.nii.gz", 200)
    for mask in ("a_LA", "b_LA"):
        write_image(tmp_path / name / f"{mask}.nii.gz", 2)
    found = find_cases(tmp_path / name)
    expected = {scan: (f"{scan}_0000.nii.gz", f"{scan}_LA.nii.gz") for scan in ("a", "b")}
    assert scans_and_labels(found, tmp_path / name) == expected
    assert skip_reasons(found) == {"a_0001.nii.gz": OTHER_CHANNEL, "b_0001.nii.gz": OTHER_CHANNEL}


def test_masks_p1_la_and_la_p4_are_the_labels_of_p1_lge_and_scans_p4(tmp_path: Path) -> None:
    for scan in ("p1_lge", "p2/lge", "p3_DE", "p3_T2", "scans/p4", "LGE/p5", "p6_CT"):
        write_image(tmp_path / f"{scan}.nii.gz", 200)
    for mask in ("p1_la", "p2/la", "p3_gd", "LA/p4", "wall/p4", "targets/p5", "p6_MR_LA"):
        write_image(tmp_path / f"{mask}.nii.gz", 2)
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {
        "p1_lge": ("p1_lge.nii.gz", "p1_la.nii.gz"),
        "lge": ("p2/lge.nii.gz", "p2/la.nii.gz"),
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


def test_files_maskell_segal_2_and_imagery_are_scans(tmp_path: Path) -> None:
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


def test_bids_labels_are_found_in_derivatives(tmp_path: Path) -> None:
    raw = [f"sub-0{n}/ses-1/anat/sub-0{n}_ses-1_acq-lge_T1w.nii.gz" for n in (1, 2)]
    second = "sub-01/ses-2/anat/sub-01_ses-2_acq-lge_T1w.nii.gz"
    label = "derivatives/manual/sub-01/ses-1/anat/sub-01_ses-1_acq-lge_desc-atrium_dseg.nii.gz"
    suffixed = "derivatives/manual/sub-02/ses-1/anat/sub-02_ses-1_acq-lge_T1w_seg.nii.gz"
    others = ("derivatives/prep/sub-01/anat/sub-01_ses-1_acq-lge_desc-preproc_T1w.nii.gz", "sub-03/anat/notes.json")
    stray = "derivatives/manual/sub-09/anat/sub-09_label-LA_mask.nii.gz"
    found_cases = find_cases(make_files(tmp_path, *raw, second, label, suffixed, *others, stray))
    assert found_cases.layout == BIDS
    assert set(scans_and_labels(found_cases, tmp_path).values()) == {
        (raw[0], label),
        (raw[1], suffixed),
        (second, None),
    }
    assert skip_reasons(found_cases) == {
        Path(others[0]).name: "a derived image",
        Path(stray).name: "a label without a scan",
    }


def test_bids_label_is_skipped_when_it_fits_several_scans(tmp_path: Path) -> None:
    raw = [f"sub-01/anat/sub-01_run-{n}_T1w.nii.gz" for n in (1, 2)]
    found_cases = find_cases(make_files(tmp_path, *raw, "derivatives/sub-01/anat/sub-01_dseg.nii.gz"))
    assert all(case.label is None for case in found_cases.cases)
    assert skip_reasons(found_cases) == {"sub-01_dseg.nii.gz": "its name fits several scans"}


def test_bids_label_sub_01_mask_belongs_to_sub_01_t1w_and_not_to_sub_01_run_2_t1w(tmp_path: Path) -> None:
    scan, other = (f"sub-01/anat/sub-01{run}_T1w.nii.gz" for run in ("", "_run-2"))
    label = "derivatives/sub-01/sub-01_mask.nii.gz"
    found = find_cases(make_files(tmp_path, scan, other, label))
    assert scans_and_labels(found, tmp_path) == {"sub-01_T1w": (scan, label), "sub-01_run-2_T1w": (other, None)}


def test_bids_label_with_the_suffixes_t1w_dseg_belongs_to_the_t1w_scan(tmp_path: Path) -> None:
    scan, other = (f"sub-01/anat/sub-01_acq-lge_{suffix}.nii.gz" for suffix in ("T1w", "T2w"))
    label = "derivatives/sub-01/sub-01_T1w_dseg.nii.gz"
    found = find_cases(make_files(tmp_path, scan, other, label))
    assert set(scans_and_labels(found, tmp_path).values()) == {(scan, label), (other, None)}


@pytest.mark.parametrize(
    ("entities", "reason"),
    [
        ("space-LGE_label-RA", OTHER_LABEL),
        ("label-wall", OTHER_LABEL),
        ("desc-pred", RESULT),
        ("label-LA_desc-nnUNet", RESULT),
    ],
)
def test_bids_label_la_is_paired_and_label_ra_or_desc_pred_beside_it_is_skipped(
    tmp_path: Path, entities: str, reason: str
) -> None:
    scan, other = "sub-01/anat/sub-01_LGE.nii.gz", f"derivatives/sub-01/sub-01_{entities}_mask.nii.gz"
    label = "derivatives/sub-01/sub-01_label-LA_mask.nii.gz"
    found = find_cases(make_files(tmp_path, scan, label, other))
    assert scans_and_labels(found, tmp_path) == {"sub-01_LGE": (scan, label)}
    assert skip_reasons(found) == {Path(other).name: reason}


def test_bids_label_ra_is_paired_if_the_scan_has_no_other_label(tmp_path: Path) -> None:
    scan, label = "sub-01/anat/sub-01_LGE.nii.gz", "derivatives/sub-01/sub-01_label-RA_mask.nii.gz"
    found = find_cases(make_files(tmp_path, scan, label))
    assert scans_and_labels(found, tmp_path) == {"sub-01_LGE": (scan, label)}


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


def test_file_a_output_beside_label_a_is_a_result_and_lone_file_b_output_is_a_scan(tmp_path: Path) -> None:
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


def test_labels_p1_ra_gt_p2_scar_seg_and_p3_post_seg_are_skipped(tmp_path: Path) -> None:
    files = ("p1.nii", "p1_LA_gt.nii", "p1_RA_gt.nii", "p2.nii", "p2_scar_seg.nii", "p3.nii", "p3_post_seg.nii")
    found_cases = find_cases(make_files(tmp_path, *files))
    assert scans_and_labels(found_cases, tmp_path) == {"p1": files[:2], "p2": ("p2.nii", None), "p3": ("p3.nii", None)}
    assert skip_reasons(found_cases) == {
        files[2]: OTHER_LABEL,
        files[4]: OTHER_LABEL,
        files[6]: "a label without a scan",
    }


def test_img0001_and_label0001_are_the_case_0001(tmp_path: Path) -> None:
    assert scans_and_labels(find_cases(make_files(tmp_path, "img0001.nii", "label0001.nii")), tmp_path) == {
        "0001": ("img0001.nii", "label0001.nii")
    }


def test_scans_of_one_name_in_one_folder_are_numbered(tmp_path: Path) -> None:
    home = make_files(tmp_path, "site1/x.nii.gz", "site1/x.nrrd", "site1/y.nrrd")
    assert sorted(case.name for case in find_cases(home).cases) == ["1_x", "2_x", "y"]
