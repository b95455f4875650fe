"""Test which files the DICOM reader skips with a note, and for which it refuses the folder."""

import shutil
from pathlib import Path

import pydicom
import pytest
from dcamt.io.dicom_stacks import ScanChoice
from dcamt.io.readers import read_scan
from dcamt.volume import IdentifyingNote
from dcamt_testing.dicom_positions import (
    CT,
    REPORT,
    RT_DOSE,
    SECONDARY_CAPTURE,
    SIZE,
    assert_slices_in_place,
    new_data_set,
    pixels,
    write_slice,
)
from dcamt_testing.scan_files import refused
from pydicom.uid import RLELossless


def test_error_names_damaged_slices(tmp_path: Path) -> None:
    for k in range(12):
        write_slice(tmp_path / f"{k:02}.dcm", k)
    for k in (10, 9):
        path = tmp_path / f"{k:02}.dcm"
        path.write_bytes(path.read_bytes()[:-200])
    (tmp_path / "11.dcm").write_bytes(b"")
    refused(lambda: read_scan(tmp_path), tmp_path, "3 damaged files", "09.dcm (cut)", "10.dcm (cut)", "11.dcm (empty)")
    for k in (9, 10, 11):
        (tmp_path / f"{k:02}.dcm").unlink()
    (tmp_path / "08.dcm").write_bytes((tmp_path / "08.dcm").read_bytes()[:300])
    refused(lambda: read_scan(tmp_path), tmp_path, "08.dcm")


def test_note_names_skipped_dicom_objects_but_not_skipped_text_files(tmp_path: Path) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k)
    for name, sop_class in (("dose.dcm", RT_DOSE), ("report.dcm", REPORT)):
        new_data_set(sop_class).save_as(tmp_path / name, enforce_file_format=True)
    shot = new_data_set(SECONDARY_CAPTURE, PixelData=pixels([3]))
    shot.save_as(tmp_path / "shot.dcm", enforce_file_format=True)
    (tmp_path / "README.txt").write_text("hello", encoding="utf-8")
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 10)
    (note,) = volume.notes
    for word in ("dose.dcm", "report.dcm", "shot.dcm", "RT Dose"):
        assert word in note
    assert "README" not in note
    assert isinstance(note, IdentifyingNote)


@pytest.mark.parametrize(
    ("attribute", "value", "word"),
    [
        ("PatientID", "q-17", "patient ID"),
        ("PatientName", "Other^Name", "patient name"),
        ("StudyInstanceUID", "1.2.4", "study"),
        ("FrameOfReferenceUID", "1.2.8", "frame of reference"),
        ("Modality", "CT", "modality"),
        ("PhotometricInterpretation", "MONOCHROME1", "meaning of bright and dark"),
        ("SOPClassUID", CT, "kind of image"),
    ],
)
def test_slices_with_contradictory_attributes_are_refused(
    tmp_path: Path, attribute: str, value: str, word: str
) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k, **({attribute: value} if k > 6 else {}))
    message = refused(
        lambda: read_scan(tmp_path), tmp_path, f"differ in their {word}: compare 7.dcm, 8.dcm, 9.dcm with 0.dcm"
    )
    assert value not in message, "a value could identify the patient"


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("RescaleIntercept", -1024),
        ("RescaleSlope", 2),
        ("RescaleSlope", ""),
        ("RescaleSlope", 1),
        ("RescaleIntercept", 0),
    ],
)
def test_slice_without_rescaling_is_refused_only_if_the_other_slices_are_rescaled(
    tmp_path: Path, attribute: str, value: object
) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k, **({attribute: value} if k != 4 else {}))
    if value in ("", 0, 1):  # An empty value counts as missing; a missing slope is 1, a missing intercept 0.
        assert_slices_in_place(read_scan(tmp_path), 10)
    else:
        refused(lambda: read_scan(tmp_path), tmp_path, "lacks the rescale", "4.dcm")


def test_time_points_of_different_units_are_refused(tmp_path: Path) -> None:
    for n, unit in enumerate(("normalized", "mrad")):
        for k in range(8):
            write_slice(tmp_path / f"{n}{k}.dcm", k, number=10 * n + k, AcquisitionNumber=n, RescaleType=unit)
    refused(lambda: read_scan(tmp_path), tmp_path, "differ in their unit of intensities")


def test_slices_may_spell_the_patient_name_differently_or_lack_name_or_id(tmp_path: Path) -> None:
    spellings = ["Doe^John", "DOE^JOHN^^^", "Doe^John ", ""]
    for k in range(8):
        write_slice(tmp_path / f"{k}.dcm", k, PatientName=spellings[k % 4], PatientID="p" if k else "")
    assert_slices_in_place(read_scan(tmp_path), 8)


@pytest.mark.parametrize(
    ("differing", "word"),
    [
        ({"PixelSpacing": [3, 3]}, "pixel spacing"),
        ({"ImageOrientationPatient": [0, 1, 0, -1, 0, 0]}, "orientation"),
        ({"Rows": 8, "PixelData": pixels([1])[:256]}, "size"),
    ],
)
def test_error_names_the_difference_between_stacks(tmp_path: Path, differing: dict[str, object], word: str) -> None:
    for k in range(10):
        path = write_slice(tmp_path / f"{k}.dcm", k)
        if k > 5:
            data = pydicom.dcmread(path)
            for name, value in differing.items():
                setattr(data, name, value)
            data.save_as(path)
    refused(lambda: read_scan(tmp_path), tmp_path, f"2 stacks of slices of different {word}: 1 ")


@pytest.mark.parametrize("color", [False, True])
def test_image_of_another_class_at_the_place_of_a_slice_is_skipped_with_a_note(tmp_path: Path, color: bool) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k)
    path = write_slice(tmp_path / "shot.dcm", 4, number=99, sop_class=SECONDARY_CAPTURE)
    if color:
        data = pydicom.dcmread(path)
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
        data.PixelData = bytes(2 * 3 * SIZE**2)
        data.save_as(path)
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 10)
    assert "shot.dcm (Secondary Capture" in volume.notes[0]


@pytest.mark.parametrize(
    ("captures", "names"),
    [
        ((0,), "0.dcm (Secondary Capture Image)"),
        ((8, 9), "8.dcm (Secondary Capture Image), 9.dcm"),
        ((5,), "5.dcm (Secondary Capture Image)"),
        ((4, 5), "4.dcm (Secondary Capture Image), 5.dcm"),
        ((1, 8), "1.dcm (Secondary Capture Image), 8.dcm"),
    ],
)
def test_error_names_images_of_another_class_that_replace_slices(
    tmp_path: Path, captures: tuple[int, ...], names: str
) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k, **({"sop_class": SECONDARY_CAPTURE} if k in captures else {}))
    refused(lambda: read_scan(tmp_path), tmp_path, f"has other images in place of some slices: {names}")


@pytest.mark.parametrize(("sop_class", "kind"), [(RT_DOSE, "RT Dose"), (REPORT, "Basic Text SR")])
def test_message_about_a_missing_slice_names_the_file_that_is_not_a_slice(
    tmp_path: Path, sop_class: str, kind: str
) -> None:
    for k in range(10):
        if k != 6:
            write_slice(tmp_path / f"{k}.dcm", k)
    new_data_set(sop_class).save_as(tmp_path / "6.dcm", enforce_file_format=True)
    refused(
        lambda: read_scan(tmp_path),
        tmp_path,
        "lacks about 1 of its slices",
        f"files that are not slices: 6.dcm ({kind})",
    )


@pytest.mark.parametrize("position", [[0, 0, 21], [5, 0, 20]])
def test_image_of_another_class_off_the_stack_is_skipped_with_a_note(tmp_path: Path, position: list[int]) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k)
    path = write_slice(tmp_path / "shot.dcm", 4, number=99, sop_class=SECONDARY_CAPTURE)
    data = pydicom.dcmread(path)
    data.ImagePositionPatient = position
    data.save_as(path)
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 10)
    assert "shot.dcm (Secondary Capture" in volume.notes[0]


def test_duplicate_slices_are_skipped_with_a_note(tmp_path: Path) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k)
    shutil.copy(tmp_path / "4.dcm", tmp_path / "4 (copy).dcm")
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 10)
    assert "copies" in volume.notes[0]
    assert isinstance(volume.notes[0], IdentifyingNote)


def test_other_versions_of_slices_with_the_same_uid_are_refused(tmp_path: Path) -> None:
    """A program that filters or masks slices may keep their UIDs; such a file is no copy."""
    for k in range(10):
        write_slice(tmp_path / "a" / f"{k}.dcm", k)
    write_slice(tmp_path / "b" / "filtered.dcm", 4, add=107)
    refused(lambda: read_scan(tmp_path), tmp_path, "differ in their voxels", "filtered.dcm", "4.dcm")


def test_copies_with_a_rounded_rescale_slope_are_skipped(tmp_path: Path) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k, RescaleSlope="0.48840048840049", RescaleIntercept="0")
        write_slice(tmp_path / f"copy{k}.dcm", k, RescaleSlope="0.4884005", RescaleIntercept="0")
    assert read_scan(tmp_path).voxels.shape[-1] == 10


def test_compressed_copies_of_slices_are_skipped(tmp_path: Path) -> None:
    for k in range(10):
        data = pydicom.dcmread(write_slice(tmp_path / f"{k}.dcm", k))
        data.compress(RLELossless, generate_instance_uid=False)
        data.save_as(tmp_path / f"rle{k}.dcm")
    assert_slices_in_place(read_scan(tmp_path), 10)


def test_error_names_different_slices_at_the_same_place(tmp_path: Path) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k)
    write_slice(tmp_path / "again.dcm", 4, number=30)
    refused(lambda: read_scan(tmp_path), tmp_path, "holds two slices at the same place: 4.dcm and again.dcm")


@pytest.mark.parametrize(
    "changed",
    [
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 0.5, 0.866, 0]},
        {"ImageOrientationPatient": [1.2, 0, 0, 0, 1, 0]},
        {"ImageOrientationPatient": [2, 0, 0, 0, 0.5, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 0.1, 0.995, 0]},
        {"PixelSpacing": [0, 2]},
        {"PixelSpacing": [2, -2]},
    ],
    ids=str,
)
def test_impossible_orientation_or_pixel_spacing_is_refused(tmp_path: Path, changed: dict[str, list[float]]) -> None:
    for k in range(8):
        data = pydicom.dcmread(write_slice(tmp_path / f"{k}.dcm", k))
        for keyword, value in changed.items():
            setattr(data, keyword, value)
        data.save_as(tmp_path / f"{k}.dcm")
    refused(lambda: read_scan(tmp_path), tmp_path, "has an impossible orientation or pixel spacing")


def test_error_about_two_surplus_slices_counts_all_slices(tmp_path: Path) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k)
    write_slice(tmp_path / "again.dcm", 4, number=30)
    for file, place, number in (("third.dcm", 4, 31), ("again7.dcm", 7, 32)):
        write_slice(tmp_path / file, place, number=number)
        refused(lambda: read_scan(tmp_path), tmp_path, "holds 12 slices, some of them at the same place")
        (tmp_path / file).unlink()


def test_image_of_another_class_is_compared_only_with_slices_of_its_own_series(tmp_path: Path) -> None:
    for k in range(8):
        write_slice(tmp_path / f"a{k}.dcm", k)
        write_slice(tmp_path / f"b{k}.dcm", k, series="1.2.5", SeriesNumber=2)
    write_slice(tmp_path / "shot.dcm", 8, series="1.2.5", number=9, sop_class=SECONDARY_CAPTURE)
    assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(series="1")), 8)
    refused(lambda: read_scan(tmp_path, choice=ScanChoice(series="2")), tmp_path, "shot.dcm")


def test_macosx_folders_of_archives_are_ignored(tmp_path: Path) -> None:
    for k in range(8):
        write_slice(tmp_path / f"{k}.dcm", k)
    for folder in ("__MACOSX", "__MACOSX 2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.dcm").write_text("no DICOM", encoding="utf-8")
        write_slice(tmp_path / folder / "9.dcm", 9)
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 8)
    assert not volume.notes


@pytest.mark.parametrize("number", [1, 2])
def test_note_counts_files_that_are_not_slices(tmp_path: Path, number: int) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k)
    for name in ("dose.dcm", "dose b.dcm")[:number]:
        new_data_set(RT_DOSE).save_as(tmp_path / name, enforce_file_format=True)
    (note,) = read_scan(tmp_path).notes
    expected = {
        1: "Skipped a file that is not a slice of the scan: dose.dcm (RT Dose).",
        2: "Skipped 2 files that are not slices of the scan: dose b.dcm, dose.dcm (RT Dose).",
    }
    assert note == expected[number]


def test_message_about_incomplete_time_points_counts_slices_and_places(tmp_path: Path) -> None:
    for k in range(10):
        for time in range(3):
            write_slice(tmp_path / f"{k}-{time}.dcm", k, number=3 * k + time + 1, TriggerTime=20 * time)
    assert_slices_in_place(read_scan(tmp_path), 10)
    (tmp_path / "4-1.dcm").unlink()
    refused(
        lambda: read_scan(tmp_path),
        tmp_path,
        "29 slices at 10 places: usually 3 slices per place, but 2 slices per place at 1 of the places",
    )
    (tmp_path / "7-2.dcm").unlink()
    refused(
        lambda: read_scan(tmp_path),
        tmp_path,
        "28 slices at 10 places: usually 3 slices per place, but 2 slices per place at 2 of the places",
    )
    write_slice(tmp_path / "again.dcm", 1, number=40, TriggerTime=60)
    refused(
        lambda: read_scan(tmp_path),
        tmp_path,
        "29 slices at 10 places: usually 3 slices per place, but 2 to 4 slices per place at 3 of the places",
    )


def test_folder_without_slices_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    refused(lambda: read_scan(folder), folder, "is an empty folder")
    (folder / "notes.txt").write_text("hello", encoding="utf-8")
    refused(lambda: read_scan(folder), folder, "holds no DICOM slices. Choose a scan")
    (folder / "p1").mkdir()
    (folder / "p1" / "lge.nii.gz").write_bytes(b"")
    (folder / "._lge.nii.gz").write_bytes(b"")
    reason = "holds no DICOM slices, but the file p1/lge.nii.gz. Choose this file, or its folder."
    refused(lambda: read_scan(folder), folder, reason)
    new_data_set(RT_DOSE).save_as(folder / "dose.dcm", enforce_file_format=True)
    refused(lambda: read_scan(folder), folder, "holds no DICOM slices, but RT Dose")
