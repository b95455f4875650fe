"""Distinguish masks from scans by their voxel values, reading few files."""

from __future__ import annotations

import json
from pathlib import Path, PurePath

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.cases import few_values, masks
from dcamt.cases.case_list import Case
from dcamt.cases.folders import find_cases
from dcamt.cases.found_cases import OTHER_LABEL
from dcamt.cases.names import FileKind, NamedFile
from dcamt.geometry import Grid
from dcamt.volume import Labelmap
from dcamt_testing.case_folders import make_files, scans_and_labels, skip_reasons, write_image, write_images
from dcamt_testing.processes import call_dcamt


def test_phantom_with_two_values_beside_scans_a_and_b_is_a_scan(tmp_path: Path) -> None:
    write_images(tmp_path, ("a", "b"), ("phantom",))
    assert len(find_cases(tmp_path).cases) == 3


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
        (["template.nii.gz"], "p{0}/series_{0}.nii.gz"),
        ([f"p{n}/lge.nii.gz" for n in range(30)], "p{}/after/ablation.nii.gz"),
        ([f"before/p{n}/lge.nii.gz" for n in range(30)], "after/p{}/lge.nii.gz"),
        ([], "p{}_LA.nii.gz"),
        ([f"p{n}_x.nii.gz" for n in range(30)], "p{}_y.nii.gz"),
        ([f"scan_{'abcde'[n % 5]}{'vwxyz'[n // 5 % 5]}.nii.gz" for n in range(25)], "p{}/lge.nii.gz"),
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


def test_mask_search_in_400_folders_takes_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    named = [NamedFile(Path(f"p{n}/heart.nii.gz"), FileKind.SCAN, (f"p{n}", "heart")) for n in range(400)]
    calls: list[PurePath] = []
    parent = PurePath.parent.fget
    assert parent is not None
    monkeypatch.setattr(PurePath, "parent", property(lambda path: calls.append(path) or parent(path)))
    assert masks.recognise_masks(named) == named
    assert 0 < len(calls) < 20 * len(named)


def test_h5_file_that_contains_its_label_is_a_case_not_a_mask(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write_image(tmp_path / "p1/lgemri.nii.gz", 200)
    with h5py.File(tmp_path / "p1/mri_norm2.h5", "w") as file:
        file["image"], file["label"] = np.random.default_rng(0).normal(size=(6, 6, 6)), np.eye(6)[None].repeat(6, 0)
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {
        "p1": ("p1/lgemri.nii.gz", None),
        "mri_norm2": ("p1/mri_norm2.h5", "p1/mri_norm2.h5"),
    }


def write_labelmap_of_27_values(path: Path) -> None:
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


def test_case_search_names_unlabelled_scans_of_few_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path, ("anna", "bert"), ("q1", "q2"))
    assert call_dcamt(["cases", "find", tmp_path, "--json"]) == 0
    printed = capsys.readouterr()
    files = [tmp_path / f"{name}.nii.gz" for name in ("q1", "q2")]
    what, remedy = "has few different intensities, like a label", "Check that the file is a scan"
    notes = [f"{file}: {what}. {remedy}, or remove it from the case list." for file in files]
    assert json.loads(printed.out)["notes"] == notes
    assert printed.err.splitlines() == [f"dcamt: {note}" for note in notes]


def test_case_search_reads_one_of_the_unlabelled_scans_whose_names_differ_in_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[Path] = set()
    monkeypatch.setattr(few_values, "has_few_values", lambda path: bool(read.add(path)))
    names = (*(f"p{number}_lge" for number in range(50)), *(f"p{number}/lge" for number in range(50)))
    cases = [Case(name, tmp_path / f"{name}.nii.gz", None, "unlabelled") for name in names]
    assert few_values.cases_like_labels(cases) == []
    assert len(read) == 2


def test_scan_of_27_values_beside_another_scan_is_no_mask(tmp_path: Path) -> None:
    write_image(tmp_path / "p1.nii.gz", 200)
    write_image(tmp_path / "p1_T1.nii.gz", 27)
    assert len(find_cases(tmp_path).cases) == 2


def test_mask_search_reads_only_3_of_31_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[Path] = set()
    monkeypatch.setattr(masks, "has_few_values", lambda path: read.add(path) or path.name == "LA.nii.gz")
    found = find_cases(make_files(tmp_path, "LA.nii.gz", *(f"p{number}.nii.gz" for number in range(30))))
    assert skip_reasons(found) == {"LA.nii.gz": OTHER_LABEL}
    assert len(read) == 3


def test_mask_search_takes_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_scan_of_two_values_beside_another_patients_scan_is_no_mask(tmp_path: Path) -> None:
    write_images(tmp_path, ("p1_post", "p3_post"), ("p2_LA",))
    assert {case.name for case in find_cases(tmp_path).cases} == {"p1_post", "p3_post", "p2_LA"}
