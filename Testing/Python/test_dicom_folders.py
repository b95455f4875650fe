"""Test which series of a DICOM folder, zip archive or DICOMDIR is read, and the errors that list the series."""

import errno
import gzip
import os
import shutil
import tempfile
import zipfile
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest
import SimpleITK
from dcamt.commands.scan_paths import find_scans
from dcamt.errors import InputError
from dcamt.io.dicom_files import SEGMENTATION_CLASSES
from dcamt.io.dicom_stacks import ScanChoice
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.volume import IdentifyingNote
from dcamt_testing.dicom_positions import assert_slices_in_place, remove_preambles, write_slice, write_slices
from dcamt_testing.dicom_series import write_dicomdir
from dcamt_testing.scan_files import refused


def test_folder_of_compressed_slices_is_refused_with_the_reason(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"{k}.dcm.gz").write_bytes(gzip.compress(write_slice(tmp_path / "x", k).read_bytes()))
    (tmp_path / "x").unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "-.gz")
    refused(lambda: read_scan(tmp_path), tmp_path, "DICOM files compressed with gzip, such as 0.dcm.gz", "Decompress")


def test_study_with_a_subfolder_for_each_series_is_found_as_one_scan(tmp_path: Path) -> None:
    for series in ("1.2.3.1", "1.2.3.2"):
        write_slices(tmp_path / "study" / series, 8, series=series)
    assert find_scans(tmp_path / "study").scans == [tmp_path / "study"]
    remedy = (
        "Put the files of one of these images into a folder of their own, or, with dcamt segment, choose one by its"
        ' number in this list: --series NUMBER (in Python: dcamt.ScanChoice(series="NUMBER")).'
    )
    refused(lambda: read_scan(tmp_path / "study"), tmp_path / "study", "holds 2 DICOM series", remedy)
    assert_slices_in_place(read_scan(tmp_path / "study", choice=ScanChoice(series="2")), 8)


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nrrd", "x.mha", "x.zip"])
@pytest.mark.parametrize("choice", [ScanChoice(series="LGE"), ScanChoice(frame_type="phase"), ScanChoice(time=2)])
def test_choice_is_refused_for_a_scan_that_is_not_dicom(tmp_path: Path, name: str, choice: ScanChoice) -> None:
    path, inner = tmp_path / name, tmp_path / name.replace("zip", "nrrd")
    image = SimpleITK.GetImageFromArray(np.arange(720.0, dtype=np.float32).reshape(8, 9, 10))
    SimpleITK.WriteImage(image, str(inner))
    if path != inner:
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(inner, inner.name)
    assert read_scan(path, choice=ScanChoice()).grid.shape == (10, 9, 8)
    refused(lambda: read_scan(path, choice=choice), path, "is not DICOM", "Leave out the choice")


def test_files_and_folders_that_are_not_dicom_do_not_split_a_study(tmp_path: Path) -> None:
    for series in ("1.2.3.1", "1.2.3.2"):
        write_slices(tmp_path / "study" / series, 8, series=series)
    for name in ("0.txt", ".DS_Store", "0", "000.xml", "0.dcm.md5"):
        (tmp_path / "study" / "1.2.3.1" / name).write_text("no DICOM", encoding="utf-8")
    assert find_scans(tmp_path / "study").scans == [tmp_path / "study"]
    (tmp_path / "study" / "notes").mkdir()
    (tmp_path / "study" / "notes" / "a").write_text("no DICOM", encoding="utf-8")
    assert find_scans(tmp_path / "study").scans == [tmp_path / "study"]


def test_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_slices(tmp_path / "p1" / "a", 8)
    locked = tmp_path / "p1" / "b"
    locked.mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path) == str(locked):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    # Simulated, since `chmod` would have no effect if root runs the tests.
    monkeypatch.setattr(os, "scandir", refuse)
    assert find_scans(tmp_path / "p1").scans == [tmp_path / "p1"]
    (note,) = read_scan(tmp_path / "p1").notes
    assert note == f"Slices may be missing, since folders cannot be read: {locked}."
    assert isinstance(note, IdentifyingNote)
    shutil.rmtree(tmp_path / "p1" / "a")
    refused(lambda: read_scan(tmp_path / "p1"), locked, "cannot be read (no permission). Change its permissions.")


@pytest.mark.parametrize("beside", ["docs/a.pdf", "nifti/x.nii.gz"])
def test_folder_beside_the_only_folder_of_slices_is_no_scan(tmp_path: Path, beside: str) -> None:
    write_slices(tmp_path / "p1" / "series", 3)
    (tmp_path / "p1" / beside).parent.mkdir()
    (tmp_path / "p1" / beside).write_text("no DICOM", encoding="utf-8")
    found = find_scans(tmp_path / "p1")
    assert found.scans == [tmp_path / "p1"]
    assert found.skipped_folders == ([tmp_path / "p1" / "nifti"] if beside.startswith("nifti") else [])


def test_folder_of_slices_with_a_converted_scan_is_not_listed_as_skipped(tmp_path: Path) -> None:
    write_slices(tmp_path / "p1" / "series", 3)
    (tmp_path / "p1" / "series" / "x.nii.gz").write_text("no DICOM", encoding="utf-8")
    found = find_scans(tmp_path / "p1")
    assert (found.scans, found.skipped_folders) == ([tmp_path / "p1"], [])


def test_empty_folders_and_text_files_beside_patient_folders_are_skipped(tmp_path: Path) -> None:
    for number in range(2):
        write_slices(tmp_path / f"p{number}", 3, StudyInstanceUID=f"1.2.4.{number}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no DICOM", encoding="utf-8")
    for _ in range(2):
        found = find_scans(tmp_path)
        assert found.scans == [tmp_path / "p0", tmp_path / "p1"]
        assert found.skipped_folders == [tmp_path / "empty", tmp_path / "texts"]
        (tmp_path / "notes.txt").write_text("no DICOM", encoding="utf-8")


def test_img_file_of_zeros_is_refused_only_without_its_hdr_file(tmp_path: Path) -> None:
    """A file of zeros may be a damaged slice, but an `.img` file beside its `.hdr` file belongs to another format."""
    write_slices(tmp_path, 8)
    (tmp_path / "mask.img").write_bytes(bytes(999))
    with pytest.raises(InputError, match=r"mask\.img \(begins with zeros\)"):
        read_scan(tmp_path)
    (tmp_path / "mask.hdr").touch()
    assert read_scan(tmp_path).grid.shape[2] == 8


def test_subfolders_of_different_studies_are_separate_scans(tmp_path: Path) -> None:
    for number, patient in enumerate("ab"):
        write_slices(tmp_path / "all" / patient, 8, StudyInstanceUID=f"1.2.4.{number}")
    assert find_scans(tmp_path / "all").scans == [tmp_path / "all" / "a", tmp_path / "all" / "b"]


def write_study(folder: Path, ending: str = ".dcm") -> Path:
    for number, (name, slices) in enumerate((("scout", 1), ("LGE 3D", 10), ("Cine", 12)), start=1):
        for k in range(slices):
            path = folder / "study" / f"series{number}" / f"{k:03}{ending}"
            write_slice(path, k, series=f"1.2.{number}", SeriesDescription=name, SeriesNumber=number, add=1000 * number)
    return folder


@pytest.mark.parametrize("ending", [".dcm", ""])
def test_series_in_the_folder_of_a_patient_can_be_chosen(tmp_path: Path, ending: str) -> None:
    folder = write_study(tmp_path / "patient", ending)
    refused(
        lambda: read_scan(folder),
        folder,
        '(2) "LGE 3D" with SeriesNumber 2 (10 slices of 16 x 16)',
        '(3) "Cine" with SeriesNumber 3 (12 slices',
        "--series",
    )
    for wanted in ("2", "lge 3d", "LGE", "1.2.2"):
        assert_slices_in_place(read_scan(folder, choice=ScanChoice(series=wanted)), 10, 2000)
    refused(lambda: read_scan(folder, choice=ScanChoice(series="T2")), folder, 'no image that fits "T2"', "LGE 3D")
    shutil.rmtree(folder / "study" / "series3")
    volume = read_scan(folder)
    assert_slices_in_place(volume, 10, 2000)
    assert "scout" in volume.notes[0]
    assert isinstance(volume.notes[0], IdentifyingNote)


@pytest.mark.parametrize("wanted", ["心房 Vorhöfe", "心房\u3000vorho\u0308fe", " 心房  Vorhöfe", "Vorho\u0308fe"])
def test_series_is_chosen_by_a_text_that_looks_like_its_description(tmp_path: Path, wanted: str) -> None:
    for number, name in enumerate(("心房\u3000Vorhöfe", "心房"), start=1):
        for k in range(8):
            path = tmp_path / f"{number}{k:03}.dcm"
            series = {"series": f"1.2.{number}", "SpecificCharacterSet": "ISO_IR 192", "SeriesDescription": name}
            write_slice(path, k, add=100 * number, **series)
    refused(lambda: read_scan(tmp_path), tmp_path, '"心房 Vorhöfe"')
    assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(series=wanted)), 8, 100)


@pytest.mark.parametrize(
    ("series", "add"),
    [
        ("1", 300),
        ("2", 200),
        ("1.2.840.77", 100),
        ("840.77", 100),
        ("LGE", 300),  # a series with exactly this description is preferred
        ("lge late", 200),
        ("late", 200),
    ],
)
def test_series_can_be_chosen_by_number_uid_or_description(tmp_path: Path, series: str, add: int) -> None:
    write_three_series(tmp_path)
    assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(series=series)), 8, add)
    listed = (
        '(1) "LGE" with SeriesNumber 3 (8 slices of 16 x 16), (2) "LGE late" with SeriesNumber 7 (8 slices of 16 x 16)'
    )
    what = f'has 2 images that fit "lg" among these: {listed}, (3) "cine"'
    refused(lambda: read_scan(tmp_path, choice=ScanChoice(series="lg")), tmp_path, what)


def write_three_series(folder: Path) -> None:
    for number, uid, title, first in (
        (12, "1.2.840.77", "cine", 100),
        (7, "1.2.1", "LGE late", 200),
        (3, "1.3", "LGE", 300),
    ):
        attributes = {"SeriesNumber": number, "SeriesDescription": title}
        write_slices(folder / str(number), 8, series=uid, add=first, **attributes)


@pytest.mark.parametrize(
    ("series", "add", "note"),
    [
        ("2", 200, 'Number 2 in the list of series was read: "LGE late" with SeriesNumber 7 (8 slices of 16 x 16).'),
        ("7", 200, 'The series with SeriesNumber 7 was read: "LGE late" with SeriesNumber 7 (8 slices of 16 x 16).'),
        ("12", 100, 'The series with SeriesNumber 12 was read: "cine" with SeriesNumber 12 (8 slices of 16 x 16).'),
    ],
)
def test_note_names_the_series_that_was_chosen_by_a_number(tmp_path: Path, series: str, add: int, note: str) -> None:
    write_three_series(tmp_path)
    volume = read_scan(tmp_path, choice=ScanChoice(series=series))
    assert_slices_in_place(volume, 8, add)
    assert volume.notes == (note,)
    assert isinstance(volume.notes[0], IdentifyingNote)


def test_number_that_fits_two_series_is_refused(tmp_path: Path) -> None:
    write_three_series(tmp_path)
    refused(
        lambda: read_scan(tmp_path, choice=ScanChoice(series="3")),
        tmp_path,
        'the number 3 fits two series: number 3 in the list of series, "cine" with SeriesNumber 12 (8 slices of 16 x '
        '16), UID 1.2.840.77; and the series with SeriesNumber 3, "LGE" with SeriesNumber 3 (8 slices of 16 x 16), UID '
        "1.3. "
        "Choose one of them by its UID, with dcamt segment --series UID (in Python: dcamt.ScanChoice(series=",
    )
    for uid, add in (("1.2.840.77", 100), ("1.3", 300)):
        assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(series=uid)), 8, add)


def write_series_with_similar_numbers(folder: Path) -> None:
    for number, uid, title in ((2, "1.2.840.1009", "LGE 10 cm"), (5, "1.2.840.1009.5", "T1 3 cm")):
        write_slices(folder / uid, 8, series=uid, SeriesNumber=number, SeriesDescription=title)


@pytest.mark.parametrize("series", ["9", "09", "1009", "09.5", ".9", "0", "3", "LGE 1", "0 cm"])
def test_series_is_not_chosen_by_a_part_of_a_number(tmp_path: Path, series: str) -> None:
    write_series_with_similar_numbers(tmp_path)
    refused(
        lambda: read_scan(tmp_path, choice=ScanChoice(series=series)), tmp_path, f'no image that fits "{series}" among'
    )


def test_series_is_chosen_by_a_unique_part_with_whole_numbers(tmp_path: Path) -> None:
    write_series_with_similar_numbers(tmp_path)
    for unique in ("840.1009", "1009.5", "840.1009.5", ".1009.5", "LGE 10", "3 cm", "2.840.1009"):
        assert read_scan(tmp_path, choice=ScanChoice(series=unique)).grid.shape[2] == 8


def write_series_with_decimal_numbers(folder: Path) -> None:
    for add, title in ((100, "LGE 1,5 mm"), (200, "LGE 3 mm"), (300, "LGE 2.5 mm"), (400, "T1 .5 cm")):
        write_slices(folder / title, 8, add=add, series=f"1.2.{add}", SeriesDescription=title)


@pytest.mark.parametrize("series", ["5 mm", "LGE 1", "LGE 1,", ",5 mm", "LGE 2", "LGE 2.", ".5 mm", "5 cm"])
def test_series_is_not_chosen_by_a_part_of_a_decimal_number(tmp_path: Path, series: str) -> None:
    write_series_with_decimal_numbers(tmp_path)
    refused(
        lambda: read_scan(tmp_path, choice=ScanChoice(series=series)), tmp_path, f'no image that fits "{series}" among'
    )


@pytest.mark.parametrize(("series", "add"), [("1,5 mm", 100), ("LGE 3", 200), ("LGE 2.5", 300), (".5 cm", 400)])
def test_series_is_chosen_by_a_whole_decimal_number(tmp_path: Path, series: str, add: int) -> None:
    write_series_with_decimal_numbers(tmp_path)
    assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(series=series)), 8, add)


def write_series_with_dates_and_lists(folder: Path) -> None:
    for add, title in ((100, "Se.12 LGE"), (200, "No.5.5 T1"), (300, "echo 1,2,30"), (400, "LGE 2023.11.30")):
        write_slices(folder / title, 8, add=add, series=f"1.2.{add}", SeriesDescription=title)


@pytest.mark.parametrize(
    ("series", "add"),
    [
        ("12 LGE", 100),
        ("No.5.5", 200),
        ("5.5 T1", 200),
        ("echo 1", 300),
        ("echo 1,2", 300),
        (",2,", 300),
        ("LGE 2023", 400),
        ("2023.11", 400),
        ("11.30", 400),
    ],
)
def test_series_is_chosen_by_a_whole_number_in_a_list_or_date(tmp_path: Path, series: str, add: int) -> None:
    write_series_with_dates_and_lists(tmp_path)
    assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(series=series)), 8, add)


@pytest.mark.parametrize("series", ["2 LGE", "No.5", "5 T1", ".5 T1", "echo 1,2,3", "LGE 202", "023.11", "1.30"])
def test_series_is_not_chosen_by_a_part_of_a_number_in_a_list_or_date(tmp_path: Path, series: str) -> None:
    write_series_with_dates_and_lists(tmp_path)
    refused(
        lambda: read_scan(tmp_path, choice=ScanChoice(series=series)), tmp_path, f'no image that fits "{series}" among'
    )


def test_error_lists_the_series_number_of_each_unnamed_series(tmp_path: Path) -> None:
    for number in (2, 5):
        for k in range(8):
            write_slice(tmp_path / f"{number}-{k}.dcm", k, series=f"1.2.{number}", SeriesNumber=number)
    listed = (
        "(1) unnamed series with SeriesNumber 2 (8 slices of 16 x 16), "
        "(2) unnamed series with SeriesNumber 5 (8 slices of 16 x 16)"
    )
    refused(lambda: read_scan(tmp_path), tmp_path, f"holds 2 DICOM series: {listed}. Put", "number in this list")


def test_message_names_each_series_even_if_there_are_many(tmp_path: Path) -> None:
    for number in range(1, 13):
        attributes = {"SeriesNumber": number, "SeriesDescription": f"part {number}"}
        write_slices(tmp_path / str(number), 3, series=f"1.2.{number}", **attributes)
    listed = [f'({n}) "part {n}" with SeriesNumber {n} (3 slices of 16 x 16)' for n in range(1, 13)]
    refused(lambda: read_scan(tmp_path), tmp_path, f"holds 12 DICOM series: {', '.join(listed)}. Put")


def test_chosen_series_of_a_zip_is_read_and_an_ambiguous_or_truncated_zip_is_refused(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "patient")
    path = tmp_path / "patient.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.dcm")):
            archive.write(file, file.relative_to(folder))
    assert_slices_in_place(read_scan(path, choice=ScanChoice(series="3")), 12, 3000)
    message = refused(lambda: read_scan(path), path, "LGE 3D")
    assert tempfile.gettempdir() not in message.removeprefix(str(path)), "the message names the temporary folder"
    path.write_bytes(path.read_bytes()[:-4000])
    refused(lambda: read_scan(path), path, "zip")


@pytest.mark.parametrize("name", ["resources/atrium_label.nii.gz", "Segmentation.seg.nrrd", "image.mha"])
def test_series_in_a_zip_is_the_scan_and_the_image_file_beside_it_is_the_label(tmp_path: Path, name: str) -> None:
    slices = write_slices(tmp_path / "files", 8)
    labels = np.zeros((8, 16, 16), np.uint8)
    labels[2:5, 3:9, 4:8] = 1
    image = SimpleITK.GetImageFromArray(labels)
    label = tmp_path / PurePath(name).name
    SimpleITK.WriteImage(image, str(label))
    path = tmp_path / "Case7.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(label, name)
        for file in slices:
            archive.write(file, f"scans/4-LGE/resources/DICOM/files/{file.name}")
    assert_slices_in_place(read_scan(path), 8)
    np.testing.assert_array_equal(read_labelmap(path).voxels, labels.transpose(2, 1, 0))


def test_image_beside_a_dicom_segmentation_in_a_zip_is_the_scan(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 500, (8, 16, 16)).astype(np.int16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(tmp_path / "scan.nii.gz"))
    segmentation = write_slice(tmp_path / "seg.dcm", 0, sop_class=SEGMENTATION_CLASSES[0])
    path = tmp_path / "scan.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "scan.nii.gz", "scan.nii.gz")
        archive.write(segmentation, "seg.dcm")
    np.testing.assert_array_equal(read_scan(path).voxels[0], voxels.transpose(2, 1, 0))


def test_zip_of_several_images_is_refused_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "two.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/a.nrrd", b"a")
        archive.writestr("x/b.nii.gz", b"b")
    refused(lambda: read_scan(path), path, "holds 2 images (a.nrrd, b.nii.gz). Extract the archive")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README", "no DICOM")
    refused(lambda: read_scan(path), path, "holds 2 images (a.nrrd, b.nii.gz). Extract the archive")


def test_dicomdir_is_read_if_all_its_files_exist_and_refused_otherwise(tmp_path: Path) -> None:
    write_study(tmp_path, "")
    shutil.rmtree(tmp_path / "study" / "series3")
    files = sorted(file for file in (tmp_path / "study").rglob("*") if file.is_file())
    for number, file in enumerate(files):  # file names that DICOM allows on storage media
        file.rename(tmp_path / f"IM{number:03}")
    shutil.rmtree(tmp_path / "study")
    write_dicomdir(tmp_path)
    for has_preambles in (True, False):
        if not has_preambles:
            remove_preambles(tmp_path, 2)
        assert_slices_in_place(read_scan(tmp_path / "DICOMDIR"), 10, 2000)
        assert_slices_in_place(read_scan(tmp_path), 10, 2000)
    (tmp_path / "IM004").unlink()
    refused(lambda: read_scan(tmp_path / "DICOMDIR"), tmp_path / "DICOMDIR", "a missing file", "IM004")
