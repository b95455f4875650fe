"""Find cases in a folder by file names, and name the cases."""

from __future__ import annotations

import errno
import os
import struct
from functools import partial
from pathlib import Path, PurePath

import numpy as np
import pytest
import SimpleITK
from dcamt.cases.folders import find_all_scans, find_cases
from dcamt.cases.found_cases import OTHER_LABEL, UNREADABLE
from dcamt.cases.labelmap_files import labelmaps_by_case
from dcamt.commands.scan_paths import find_scans
from dcamt.errors import InputError
from dcamt.io.readers import read_scan
from dcamt_testing.case_folders import PAIRS, make_data_set, make_files, scans_and_labels, skip_reasons, write_image
from dcamt_testing.scan_files import deny_folder, refused


def test_words_such_as_mask_and_image_are_recognised_only_as_whole_words(tmp_path: Path) -> None:
    found_cases = find_cases(make_files(tmp_path, "maskell.nii", "segal_2.nii", "imagery.nii"))
    assert {name for name, (_, label) in scans_and_labels(found_cases, tmp_path).items() if label is None} == {
        "maskell",
        "segal_2",
        "imagery",
    }


def test_unreadable_folder_is_skipped_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk of Linux, the folder `lost+found` belongs to root, so other users cannot read it."""
    make_files(tmp_path, "p1.nii", "p1_label.nii", "lost+found/p2.nii", "site/private/p3.nii")
    denied = {str(tmp_path / "lost+found"), str(tmp_path / "site" / "private")}
    scandir, stat = os.scandir, os.stat

    def refuse(path: str | Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    # Simulated, since `chmod` would have no effect if root runs the tests.
    monkeypatch.setattr(os, "scandir", lambda path: refuse(path) if str(path) in denied else scandir(path))
    monkeypatch.setattr(
        os, "stat", lambda path, **more: refuse(path) if os.path.dirname(path) in denied else stat(path, **more)
    )
    found_cases = find_cases(tmp_path)
    assert scans_and_labels(found_cases, tmp_path) == {"p1": ("p1.nii", "p1_label.nii")}
    assert skip_reasons(found_cases) == {"lost+found": UNREADABLE, "private": UNREADABLE}
    with pytest.raises(InputError, match=r"lost\+found: cannot be read \(no permission\)\. Change its permissions\."):
        find_cases(tmp_path / "lost+found")


@pytest.mark.parametrize("folder", ["site", "imagesTr", "sub-02"])
def test_folder_with_unreadable_files_does_not_stop_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    scans = "p1.nii", f"{folder}/p2.nii", f"{folder}/series/1.dcm"
    make_files(tmp_path, *scans, "p1_label.nii", f"{folder}/p2_label.nii", f"{folder}/data_0.json")
    deny_folder(tmp_path / folder, monkeypatch, can_list=True)
    found_cases = find_all_scans(tmp_path)
    found = {path.name for case in (*found_cases.cases, *found_cases.unused) for path in case.files}
    assert {"p2.nii", "p2_label.nii"} <= found | skip_reasons(found_cases).keys()


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_links_into_a_folder_without_permission_do_not_stop_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, locked = make_files(tmp_path / "cases", "p1.nii", "p1_label.nii", "series/1.dcm"), tmp_path / "locked"
    locked.mkdir()
    for name in ("p2.nii", "p2_label.nii", "series/2.dcm", "site", "data_0.json", "dataset.json"):
        (cases / name).symlink_to(locked / name)
    deny_folder(locked, monkeypatch)
    assert scans_and_labels(find_cases(cases), cases) == {
        "p1": ("p1.nii", "p1_label.nii"),
        "p2": ("p2.nii", "p2_label.nii"),
        "series": ("series", None),
    }


def test_folder_rawdata_without_permission_does_not_stop_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_files(tmp_path, "p1.nii", "rawdata/p2.nii")
    deny_folder(tmp_path / "rawdata", monkeypatch)
    assert skip_reasons(find_cases(tmp_path)) == {"rawdata": UNREADABLE}


def test_ambiguous_labels_and_labels_without_a_scan_are_skipped(tmp_path: Path) -> None:
    files = ("a_image.nii", "a_label.nii", "a_seg.nii", "b.nii", "b_image.nii", "b_label.nii", "c_label.nii")
    found_cases = find_cases(make_files(tmp_path, *files, "d.nii", "d_agreement.nii", ".hidden.nii", "notes.txt"))
    assert scans_and_labels(found_cases, tmp_path) == {"d": ("d.nii", None)}
    assert {one.path.name for one in found_cases.skipped} == set(files)
    assert {one.reason for one in found_cases.skipped if one.path.name == "c_label.nii"} == {"a label without a scan"}


def test_case_names_are_distinct(tmp_path: Path) -> None:
    files = ("site1/x_image.nii", "site1/x_label.nii", "site2/x_image.nii", "y.nii", "y.nrrd")
    found_cases = find_cases(make_files(tmp_path, *files))
    by_name = scans_and_labels(found_cases, tmp_path)
    assert by_name["site1_x"] == ("site1/x_image.nii", "site1/x_label.nii")
    assert by_name["site2_x"] == ("site2/x_image.nii", None)
    assert len(by_name) == 4


@pytest.mark.parametrize(
    "names",
    [
        {"site1/p1/lge.nii": "site1_p1_lge", "site2/p1/lge.nii": "site2_p1_lge"},
        {"p1/s1/lge.nii": "p1_s1_lge", "p1/s2/lge.nii": "s2_lge", "p2/s1/lge.nii": "p2_s1_lge"},
    ],
)
def test_folders_make_case_names_distinct(tmp_path: Path, names: dict[str, str]) -> None:
    found = find_cases(make_files(tmp_path, *names))
    assert {case.image.relative_to(tmp_path).as_posix(): case.name for case in found.cases} == names


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


def test_data_sets_of_three_challenges_are_recognised(tmp_path: Path) -> None:
    challenge = [f"asc/P1/{name}.nrrd" for name in ("lgemri", "laendo", "lawall", "raendo")]
    lascarqs = [f"lascarqs/train_1/{name}.nii.gz" for name in ("enhanced", "atriumSegImgMO", "scarSegImgM")]
    emidec = ["emidec/Case_N01/Images/Case_N01.nii.gz", "emidec/Case_N01/Contours/Case_N01.nii.gz"]
    make_files(tmp_path, *challenge, *lascarqs, *emidec)
    for files, name in ((challenge, "P1"), (lascarqs, "train_1"), (emidec, "Case_N01")):
        found_cases = find_cases(tmp_path / files[0].split("/")[0])
        assert scans_and_labels(found_cases, tmp_path) == {name: (files[0], files[1])}
        assert set(skip_reasons(found_cases).values()) <= {OTHER_LABEL}
        assert len(found_cases.skipped) == len(files) - 2


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


def write_itk_image(path: Path, voxels: np.ndarray) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels.astype(np.uint16)), str(path))


@pytest.mark.parametrize("kind", [".hdr", ".hdr.gz", ".gipl", ".gipl.gz", ".vtk", ".mnc", ".tif", ".tiff", ".mrc"])
def test_folder_may_hold_any_format_that_is_read_as_a_scan(tmp_path: Path, kind: str) -> None:
    scan, mask = np.arange(6**3).reshape(6, 6, 6), np.eye(6)[None].repeat(6, 0)
    for name, voxels in (("p1", scan), ("p1_seg", mask), ("p2", scan), ("p2_LA", mask)):
        write_itk_image(tmp_path / f"{name}{kind}", voxels)
    expected = {"p1": (f"p1{kind}", f"p1_seg{kind}"), "p2": (f"p2{kind}", f"p2_LA{kind}")}
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == expected
    assert [path.name for path in find_scans(tmp_path).scans] == [f"p1{kind}", f"p2{kind}"]
    assert [path.name for path in labelmaps_by_case(tmp_path, skip_images=True).values()] == [
        f"p1_seg{kind}",
        f"p2_LA{kind}",
    ]


def test_copy_in_another_format_is_no_second_scan(tmp_path: Path) -> None:
    scan, mask = np.arange(6**3).reshape(6, 6, 6), np.eye(6)[None].repeat(6, 0)
    for name, voxels in (("p1", scan), ("p1_seg", mask)):
        for kind in (".hdr", ".nii.gz"):
            write_itk_image(tmp_path / f"{name}{kind}", voxels)
    write_itk_image(tmp_path / "p2.hdr", scan)
    write_itk_image(tmp_path / "p2.nii.gz", mask)  # a segmentation, not a copy
    for ending, voxels in ((".nii.gz", scan), (".seg.nrrd", mask), (".hdr", scan)):
        write_itk_image(tmp_path / f"p3{ending}", voxels)
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {
        "p1": ("p1.nii.gz", "p1_seg.nii.gz"),
        "p2": ("p2.hdr", None),
        "p3": ("p3.nii.gz", "p3.seg.nrrd"),
    }


def test_surfaces_and_single_slices_are_no_scans(tmp_path: Path) -> None:
    write_itk_image(tmp_path / "slice1.tif", np.arange(36).reshape(6, 6))
    (tmp_path / "mesh.vtk").write_text("# vtk DataFile Version 3.0\n\nASCII\nDATASET POLYDATA\n", encoding="ascii")
    (tmp_path / "satellite.hdr").write_text("ENVI\nsamples = 5\n", encoding="ascii")
    with pytest.raises(InputError, match=r"holds no scan; mesh\.vtk is no volume of at least three slices\. Save"):
        find_cases(tmp_path)
    write_image(tmp_path / "p1.nii.gz", 200)
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {"p1": ("p1.nii.gz", None)}
    # An empty or damaged file counts as a scan; reading the file raises an error.
    make_files(tmp_path, "empty.tif", "empty.vtk", "empty.hdr")
    for name in ("zeros.tif", "zeros.vtk", "zeros.hdr"):
        (tmp_path / name).write_bytes(bytes(2000))
    (tmp_path / "cut.vtk").write_text("# vtk DataFile Version 3.0", encoding="ascii")
    assert len(find_cases(tmp_path).cases) == 8


def test_damaged_tiff_in_a_folder_counts_as_a_scan(tmp_path: Path) -> None:
    page_with_one_tag = struct.pack("<H2HIII", 1, 254, 4, 0, 0, 0)
    damaged = (
        # The page states its own position as the position of the next page.
        b"II*\0\x08\0\0\0" + page_with_one_tag[:-4] + b"\x08\0\0\0",
        # BigTIFF: the first page lies beyond the end of the file, at byte 2^63.
        struct.pack("<2s3HQ", b"II", 43, 8, 0, 1 << 63),
        # BigTIFF: the values of a tag lie beyond the end of the file, at byte 2^63.
        struct.pack("<2s3H2Q2H3Q", b"II", 43, 8, 0, 16, 1, 254, 4, 9, 1 << 63, 0),
    )
    for number, content in enumerate(damaged):
        (tmp_path / f"p{number}.tif").write_bytes(content)
    # An undamaged file with one page is a single slice, so it is no scan.
    (tmp_path / "page.tif").write_bytes(b"II*\0\x08\0\0\0" + page_with_one_tag)
    assert sorted(scans_and_labels(find_cases(tmp_path), tmp_path)) == ["p0", "p1", "p2"]
    for path in find_scans(tmp_path).scans:
        refused(partial(read_scan, path), path)


def test_cases_with_the_same_name_in_one_folder_are_numbered(tmp_path: Path) -> None:
    home = make_files(tmp_path, "site1/x.nii.gz", "site1/x.nrrd", "site1/y.nrrd")
    assert sorted(case.name for case in find_cases(home).cases) == ["1_x", "2_x", "y"]


def test_folders_beside_a_data_set_are_named_as_skipped(tmp_path: Path) -> None:
    data_set = ("Task02/imagesTr/x_0000.nii.gz", "Task02/labelsTr/x.nii.gz")
    found = find_cases(make_files(tmp_path, *data_set, "Hospital/p1/lge.nrrd", "notes/read me.txt"))
    assert [*scans_and_labels(found, tmp_path)] == ["x"]
    assert [file.path for file in found.skipped] == [tmp_path / "Hospital"]
    assert "beside a data set" in found.skipped[0].reason


def test_linked_data_set_is_read_once(tmp_path: Path) -> None:
    home = make_files(tmp_path, "Task02/imagesTr/x_0000.nii.gz", "Task02/labelsTr/x.nii.gz")
    (home / "latest").symlink_to(home / "Task02")
    assert [*scans_and_labels(find_cases(home), home)] == ["x"]


def test_other_folders_of_a_data_set_are_named_as_skipped(tmp_path: Path) -> None:
    names = (
        "imagesTr/a_0000.nii.gz",
        "labelsTr/a.nii.gz",
        "imagesVa/b_0000.nii.gz",
        "labelsVa/b.nii.gz",
        "notes/x.txt",
    )
    for described in ({}, {"training": [{"image": names[0], "label": names[1]}]}):
        found = find_cases(make_data_set(tmp_path, described, *names))
        assert scans_and_labels(found, tmp_path) == {"a": names[:2]}
        assert [file.path.name for file in found.skipped] == ["imagesVa", "labelsVa"]


def test_ignored_folder_and_linked_files_are_not_named_as_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_files(tmp_path, *(f"disk/{file}" for file in PAIRS[0]), "set/results/a.nii.gz", "set/notes/a.nii.gz")
    for file in PAIRS[0]:
        (tmp_path / "set" / file).parent.mkdir()
        (tmp_path / "set" / file).symlink_to(tmp_path / "disk" / file)
    monkeypatch.chdir(tmp_path)
    found = find_all_scans(Path("set"), ignored=iter([tmp_path / "set/results"]))
    assert [file.path for file in found.skipped] == [Path("set/notes")]


def test_folders_beside_data_sets_are_found_in_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        make_files(tmp_path / f"Task{number}", "imagesTr/x_0000.nii.gz", "labelsTr/x.nii.gz")
        make_files(tmp_path / f"Hospital{number}", "lge.nrrd")
    calls: list[PurePath] = []
    parents = PurePath.parents.fget
    assert parents is not None
    monkeypatch.setattr(PurePath, "parents", property(lambda path: calls.append(path) or parents(path)))
    assert len(find_cases(tmp_path).skipped) == 20
    assert len(calls) < 20 * 20
