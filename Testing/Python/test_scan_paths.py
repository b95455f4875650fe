"""Test which files and folders `find_scans` returns as scans; labels and results are not scans."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from dcamt.cases.folders import find_cases
from dcamt.cases.names import labels_beside_scans
from dcamt.commands.scan_paths import find_scans
from dcamt.errors import InputError
from dcamt.io import dicom_files
from dcamt.io.dicom_files import walk_folders
from dcamt.io.file_names import real_path
from dcamt.io.readers import read_scan
from dcamt_testing.case_folders import make_data_set, make_files, write_dcamt_result, write_image
from dcamt_testing.dicom_positions import write_slices


@pytest.fixture(params=["links", "junctions"])
def _links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """`os.path.islink` does not recognise the junctions of Windows."""
    if request.param == "junctions":
        monkeypatch.setattr("os.path.islink", lambda _: False)
        monkeypatch.setattr(dicom_files, "_HAS_JUNCTIONS", True)


def test_file_named_like_a_label_is_skipped_beside_its_scan(tmp_path: Path) -> None:
    names = ("p01.nii.gz", "p01_seg.nii.gz", "p02.nrrd", "p02_mask.nrrd", "p03.nii", "p03_gt.nii", "x_image.mha")
    make_files(
        tmp_path,
        *names,
        "x_label.mha",
        ".hidden.nii",
        "p01_agreement.nii.gz",
        "p01_probabilities.nrrd",
    )
    scans = [path.name for path in find_scans(tmp_path).scans]
    assert scans == ["p01.nii.gz", "p02.nrrd", "p03.nii", "x_image.mha"]
    skipped = {path.name for path in find_scans(tmp_path).skipped_files}
    assert skipped == {"p01_seg.nii.gz", "p02_mask.nrrd", "p03_gt.nii", "x_label.mha"}


def test_masks_p1_la_and_p1_roi_beside_scan_p1_are_skipped(tmp_path: Path) -> None:
    for name, values in (("p1", 200), ("p1_T1", 200), ("p1_LA", 2), ("p1_roi", 9)):
        write_image(tmp_path / f"{name}.nii.gz", values)
    assert [path.name for path in find_scans(tmp_path).scans] == ["p1.nii.gz", "p1_T1.nii.gz"]
    assert {path.name for path in find_scans(tmp_path).skipped_files} == {"p1_LA.nii.gz", "p1_roi.nii.gz"}


def test_p9_seg_without_a_scan_p9_is_skipped_if_p9_seg_has_few_values(tmp_path: Path) -> None:
    for name, values in (("p1", 200), ("p2_seg", 200), ("Copy of p1_label", 2), ("p9_seg", 2), ("p9_pred", 2)):
        write_image(tmp_path / f"{name}.nii.gz", values)
    assert [path.name for path in find_scans(tmp_path).scans] == ["p1.nii.gz", "p2_seg.nii.gz"]


@pytest.mark.parametrize(("scan", "mask"), [("p{}_psir_seg", "p{}_psir_seg_LA"), ("p{}_LGE_segmented", "p{}_LA")])
def test_scan_with_seg_or_segmented_in_its_name_is_found_and_its_mask_is_skipped(
    tmp_path: Path, scan: str, mask: str
) -> None:
    for number in (1, 2):
        write_image(tmp_path / f"{scan.format(number)}.nii.gz", 200)
        write_image(tmp_path / f"{mask.format(number)}.nii.gz", 2)
    write_image(tmp_path / f"{mask.format(3)}.nii.gz", 2)
    assert [path.name for path in find_scans(tmp_path).scans] == [f"{scan.format(number)}.nii.gz" for number in (1, 2)]


def test_p9_seg_and_p9_pred_are_scans_in_a_folder_without_other_files(tmp_path: Path) -> None:
    names = ["p9_pred.nii.gz", "p9_seg.nii.gz"]
    for name in names:
        write_image(tmp_path / name, 2)
    assert [path.name for path in find_scans(tmp_path).scans] == names


def test_labels_of_public_data_sets_are_not_segmented(tmp_path: Path) -> None:
    make_files(tmp_path / "P1", "lgemri.nrrd", "laendo.nrrd", "lawall.nrrd")
    make_files(tmp_path / "train_1", "enhanced.nii.gz", "atriumSegImgMO.nii.gz", "scarSegImgM.nii.gz")
    assert [path.name for path in find_scans(tmp_path / "P1").scans] == ["lgemri.nrrd"]
    assert [path.name for path in find_scans(tmp_path / "train_1").scans] == ["enhanced.nii.gz"]


def write_noise(path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 500, (8, 9, 10)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(path))


def write_studies(home: Path, *names: str) -> list[Path]:
    folders = [home / name for name in names]
    for folder in folders:
        write_slices(folder, 5, StudyInstanceUID=f"1.2.{folder.name[-1]}")
    return folders


def test_scans_in_subfolders_are_named_after_the_subfolders(tmp_path: Path) -> None:
    data = make_files(tmp_path / "Training Set", "README.txt")
    for patient in ("P1", "P2"):
        write_noise(data / patient / "lgemri.nrrd")
    write_dcamt_result(data / "P2" / "laendo.nrrd")
    found = find_scans(data)
    assert found.scans == [data / patient / "lgemri.nrrd" for patient in ("P1", "P2")]
    assert found.names == ["P1", "P2"]
    assert found.skipped_files == [data / "P2" / "laendo.nrrd"]


def test_subfolder_with_dicom_slices_and_an_image_file_is_one_dicom_scan(tmp_path: Path) -> None:
    """The image file may be a converted copy of the slices."""
    for folder in write_studies(tmp_path, "p1", "p2"):
        write_noise(folder / "lge.nii.gz")
    assert find_scans(tmp_path).scans == [tmp_path / "p1", tmp_path / "p2"]


def test_subfolders_of_dicom_slices_may_be_named_like_subjects_of_bids(tmp_path: Path) -> None:
    folders = write_studies(tmp_path, "sub-1", "sub-2")
    for name in ("label-LA_mask", "T1w"):
        write_noise(tmp_path / "sub-1" / f"sub-1_{name}.nii.gz")
        assert find_scans(tmp_path).scans == folders


def test_folder_with_a_label_but_no_scan_is_refused(tmp_path: Path) -> None:
    write_dcamt_result(tmp_path / "p1" / "laendo.nrrd")
    with pytest.raises(InputError, match=r"contains no usable scan \(p1/laendo\.nrrd: a label without a scan\)"):
        find_scans(tmp_path)


def test_scan_with_two_labels_is_found(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        write_noise(tmp_path / "clinic" / patient / "lgemri.nrrd")
        write_dcamt_result(tmp_path / "clinic" / patient / "laendo.nrrd")
    write_dcamt_result(tmp_path / "clinic" / "segmentations" / "p1.seg.nrrd")
    assert sorted(find_scans(tmp_path / "clinic").names) == ["p1", "p2"]


def test_scans_of_an_nnunet_data_set_are_found(tmp_path: Path) -> None:
    data_set = make_files(tmp_path / "nnUNet_raw" / "Dataset001_LA")
    make_files(data_set / "imagesTr", "a_0000.nii.gz")
    make_files(data_set / "imagesTs", "a_0000.nii.gz", "b_0000.nii.gz")
    make_files(data_set / "labelsTr", "a.nii.gz")
    make_files(data_set / "labelsTs", "a.nii.gz", "b.nii.gz")
    found = find_scans(data_set)
    assert [path.parent.name for path in found.scans] == ["imagesTr", "imagesTs", "imagesTs"]
    assert found.names == ["a", "imagesTs_a", "b"]


@pytest.mark.parametrize("key", ["training", "dataset"])
def test_scans_outside_the_folder_of_their_dataset_json_are_found(tmp_path: Path, key: str) -> None:
    scans, labels = ([tmp_path / "files" / f"p{n}{end}.nii.gz" for n in (1, 2)] for end in ("", "_o"))
    for scan, label in zip(scans, labels, strict=True):
        write_noise(scan)
        write_dcamt_result(label)
    pairs = [(f"../files/{scan.name}", str(label)) for scan, label in zip(scans, labels, strict=True)]
    described: dict[str, object] = {
        "training": {"training": [{"image": image, "label": label} for image, label in pairs]},
        "dataset": {"dataset": {f"p{n}": {"images": [pair[0]], "label": pair[1]} for n, pair in enumerate(pairs)}},
    }
    home = make_data_set(tmp_path / "list", described[key])
    found = find_scans(home)
    assert list(map(real_path, found.scans)) == list(map(real_path, scans))
    assert list(map(real_path, found.skipped_files)) == list(map(real_path, labels))


def test_damaged_dataset_json_beside_folders_of_dicom_slices_is_ignored(tmp_path: Path) -> None:
    folders = write_studies(tmp_path, "p1", "p2")
    (tmp_path / "dataset.json").write_text("{", encoding="utf-8")
    assert find_scans(tmp_path).scans == folders


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_broken_link_is_a_scan_or_a_label_depending_on_its_name(tmp_path: Path) -> None:
    write_image(tmp_path / "p1.nii.gz", 200)
    for name in ("p1_label", "p2"):
        (tmp_path / f"{name}.nii.gz").symlink_to(tmp_path / "annex" / name)
    found = find_scans(tmp_path)
    assert [scan.name for scan in found.scans] == ["p1.nii.gz", "p2.nii.gz"]
    assert [file.name for file in found.skipped_files] == ["p1_label.nii.gz"]


@pytest.mark.usefixtures("_links")
def test_linked_patient_folders_are_searched_once(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        write_noise(tmp_path / "archive" / patient / "lgemri.nrrd")
    data = make_files(tmp_path / "data" / "p0", "list.txt").parent
    write_noise(data / "p0" / "lgemri.nrrd")
    links = {"p1": tmp_path / "archive" / "p1", "p2": tmp_path / "archive" / "p2", "latest": data / "p0"}
    for name, target in {**links, "p0/up": data, "p0/above": tmp_path}.items():
        (data / name).symlink_to(target)
    assert find_scans(data).scans == [data / patient / "lgemri.nrrd" for patient in ("p0", "p1", "p2")]


@pytest.mark.usefixtures("_links")
def test_folders_p0_and_p1_with_links_to_each_other_are_searched_once(tmp_path: Path) -> None:
    scan = make_files(tmp_path / "p1", "lge.nrrd") / "lge.nrrd"
    earlier = make_files(tmp_path / "p0", "lge.nrrd")
    data = tmp_path / "data"
    data.mkdir()
    (data / "p1").symlink_to(scan.parent)
    for name in ("earlier", "same"):
        (scan.parent / name).symlink_to(earlier)
        (earlier / name).symlink_to(scan.parent)
    found = itertools.islice(walk_folders(data), 100)
    assert [path for _, _, files in found for path in files] == [
        data / "p1" / "lge.nrrd",
        data / "p1" / "earlier" / "lge.nrrd",
    ]


def test_results_p1_and_p2_beside_the_patient_folders_do_not_hide_the_scans(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        write_noise(tmp_path / patient / "lgemri.nrrd")
        write_dcamt_result(tmp_path / f"{patient}.nii.gz")
    assert [path.name for path in find_scans(tmp_path).scans] == ["lgemri.nrrd"] * 2


@pytest.mark.parametrize("results", ["nii", "nifti", "out", "x"])
def test_results_in_a_folder_beside_the_patient_folders_are_no_scans(tmp_path: Path, results: str) -> None:
    for patient in ("p1", "p2"):
        write_noise(tmp_path / patient / "lgemri.nrrd")
        write_dcamt_result(tmp_path / patient / "laendo.nrrd")
        write_dcamt_result(tmp_path / results / f"{patient}.nii.gz")
    scans = [tmp_path / patient / "lgemri.nrrd" for patient in ("p1", "p2")]
    assert sorted(find_scans(tmp_path).scans) == scans
    assert find_scans(tmp_path, results=[tmp_path / results]).scans == scans


def test_results_folder_that_also_holds_a_scan_is_searched(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        write_noise(tmp_path / patient / "lgemri.nrrd")
        write_dcamt_result(tmp_path / patient / "laendo.nrrd")
    assert sorted(find_scans(tmp_path, results=[tmp_path / "p1"]).names) == ["p1", "p2"]


def test_folder_of_results_beside_folders_of_dicom_slices_is_no_scan(tmp_path: Path) -> None:
    scans = write_studies(tmp_path, "p1", "p2")
    write_dcamt_result(tmp_path / "out" / "p1.seg.nrrd")
    assert find_scans(tmp_path, results=[tmp_path / "out"]).scans == scans
    # If a folder in `results` contains DICOM slices, the folder is a scan.
    assert tmp_path / "p1" in find_scans(tmp_path, results=[tmp_path / "p1"]).scans


def test_files_p1_0000_and_p1_0001_are_one_scan_for_a_model_of_two_channels(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        for channel in range(2):
            write_noise(tmp_path / patient / f"{patient}_000{channel}.nii.gz")
    scans = find_scans(tmp_path, channels=2).scans
    assert [path.name for path in scans] == ["p1_0000.nii.gz", "p2_0000.nii.gz"]
    assert len(find_scans(tmp_path).scans) == 4


def test_files_a_0000_and_a_0001_are_one_scan_in_an_nnunet_folder(tmp_path: Path) -> None:
    names = ("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz")
    make_files(tmp_path / "imagesTs", *names)
    make_files(tmp_path / "patients", *names)
    assert [path.name for path in find_scans(tmp_path / "imagesTs").scans] == ["a_0000.nii.gz", "b_0000.nii.gz"]
    # In a folder of another name, the numbers stand for patients, not channels.
    assert [path.name for path in find_scans(tmp_path / "patients").scans] == list(names)
    scans = find_scans(tmp_path / "patients", channels=2).scans
    assert [path.name for path in scans] == ["a_0000.nii.gz", "b_0000.nii.gz"]


def test_folder_of_five_scans_is_searched_for_labels_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path, *(f"{number}.nrrd" for number in range(5)))
    searched = []

    def count(files: list[Path], folder: Path) -> list[Path]:
        searched.append(folder)
        return labels_beside_scans(files, folder)

    monkeypatch.setattr("dcamt.cases.masks.labels_beside_scans", count)
    assert len(find_scans(tmp_path).scans) == 5
    assert searched == [tmp_path]


def zip_slices(path: Path) -> Path:
    slices = write_slices(path.with_suffix(""), 5, StudyInstanceUID="1.2.3")
    shutil.make_archive(str(path.with_suffix("")), "zip", slices[0].parent)
    shutil.rmtree(slices[0].parent)
    return path


@pytest.mark.parametrize("folder", [".", "P{}/scans"])
@pytest.mark.parametrize("label", ["P{}_label.nii.gz", "labels/P{}.nii.gz", "P{}_LA.nii.gz"])
def test_zip_files_are_scans_and_the_labels_beside_them_are_not(tmp_path: Path, folder: str, label: str) -> None:
    scans = [zip_slices(tmp_path / folder.format(number) / f"P{number}.zip") for number in (1, 2)]
    labels = [tmp_path / folder.format(number) / label.format(number) for number in (1, 2)]
    for path in labels:
        write_image(path, 2)
    found = find_scans(tmp_path)
    assert sorted(found.scans) == scans
    assert sorted(found.skipped_files) == labels
    assert all(read_scan(scan).grid.shape == (16, 16, 5) for scan in found.scans)
    cases = find_cases(tmp_path).cases
    assert sorted((case.image, case.label) for case in cases) == list(zip(scans, labels, strict=True))


def skipped_zip_files(folder: Path) -> list[Path]:
    found = find_cases(folder)
    assert all(case.image.suffix != ".zip" for case in found.cases)
    skipped = [file.path for file in found.skipped if file.reason.startswith("a zip file")]
    assert find_scans(folder).skipped_zip_files == skipped
    return skipped


def test_zip_files_beside_other_scans_are_skipped(tmp_path: Path) -> None:
    """The zip file may be an archive of the scans that lie beside it."""
    studies = zip_slices(tmp_path / "dicom" / "studies.zip")
    scans = write_studies(tmp_path / "dicom", "p1", "p2")
    inner = zip_slices(scans[0] / "inner.zip")
    assert find_scans(tmp_path / "dicom").scans == scans
    zip_file = zip_slices(tmp_path / "files" / "p1.zip")
    write_noise(tmp_path / "files" / "p1.nrrd")
    assert find_scans(tmp_path / "files").scans == [tmp_path / "files" / "p1.nrrd"]
    for folder, number, skipped in (
        ("dicom", 2, [studies, inner]),
        ("dicom/p1", 1, [inner]),
        ("files", 1, [zip_file]),
    ):
        assert len(find_cases(tmp_path / folder).cases) == number
        assert skipped_zip_files(tmp_path / folder) == skipped
    assert len(find_cases(tmp_path).cases) == 3


def test_zip_files_of_an_nnunet_data_set_are_skipped(tmp_path: Path) -> None:
    for name in ("imagesTr/a_0000", "imagesTr/b_0000"):
        write_noise(tmp_path / f"{name}.nii.gz")
    zip_file = zip_slices(tmp_path / "imagesTr" / "c.zip")
    assert skipped_zip_files(tmp_path) == [zip_file]


def test_zip_file_in_a_skipped_folder_is_not_reported(tmp_path: Path) -> None:
    write_noise(tmp_path / "p1.nrrd")
    zip_slices(tmp_path / "old" / "p1.zip")
    found = find_scans(tmp_path)
    assert (found.skipped_folders, found.skipped_zip_files) == ([tmp_path / "old"], [])
