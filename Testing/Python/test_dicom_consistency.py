"""Test which files the DICOM reader skips, and which files make the reader refuse the folder."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dcamt.io.dicom_contradictions import separate_other_classes
from dcamt.io.dicom_files import read_files
from dcamt.io.dicom_frames import Frame
from dcamt.io.dicom_stacks import ScanChoice, Stack, group_stacks
from dcamt.io.readers import read_scan
from dcamt.volume import IdentifyingNote
from dcamt_testing.dicom_positions import (
    CT,
    REPORT,
    RT_DOSE,
    SECONDARY_CAPTURE,
    SIZE,
    assert_slices_in_place,
    edit_dicom,
    new_data_set,
    pixels,
    write_slice,
    write_slices,
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
    write_slices(tmp_path, 10)
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
        write_slices(tmp_path / unit, 8, first=10 * n, AcquisitionNumber=n, RescaleType=unit)
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
        write_slice(tmp_path / f"{k}.dcm", k, **(differing if k > 5 else {}))
    refused(lambda: read_scan(tmp_path), tmp_path, f"2 stacks of slices (the stacks differ in {word}): (1) ")


COLOR = {
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
    "PixelData": bytes(2 * 3 * SIZE**2),
}


@pytest.mark.parametrize(
    "attributes",
    [{}, COLOR, {"ImagePositionPatient": [0, 0, 21]}, {"ImagePositionPatient": [5, 0, 20]}],
    ids=["at a slice", "color at a slice", "beyond the last slice", "beside the stack"],
)
def test_image_of_another_sop_class_is_skipped_if_the_stack_is_complete(
    tmp_path: Path, attributes: dict[str, object]
) -> None:
    write_slices(tmp_path, 10)
    write_slice(tmp_path / "shot.dcm", 4, number=99, sop_class=SECONDARY_CAPTURE, **attributes)
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
def test_error_names_images_of_another_sop_class_that_replace_slices(
    tmp_path: Path, captures: tuple[int, ...], names: str
) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k, **({"sop_class": SECONDARY_CAPTURE} if k in captures else {}))
    refused(lambda: read_scan(tmp_path), tmp_path, f"has other images in place of some slices: {names}")


@pytest.mark.parametrize(("sop_class", "kind"), [(RT_DOSE, "RT Dose"), (REPORT, "Basic Text SR")])
def test_message_about_a_missing_slice_names_the_file_that_is_not_a_slice(
    tmp_path: Path, sop_class: str, kind: str
) -> None:
    write_slices(tmp_path, 10)
    new_data_set(sop_class).save_as(tmp_path / "6.dcm", enforce_file_format=True)
    refused(
        lambda: read_scan(tmp_path),
        tmp_path,
        "lacks about 1 of its slices",
        f"files that are not slices: 6.dcm ({kind})",
    )


def test_duplicate_slices_are_skipped_with_a_note(tmp_path: Path) -> None:
    write_slices(tmp_path, 10)
    shutil.copy(tmp_path / "4.dcm", tmp_path / "4 (copy).dcm")
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 10)
    assert "copies" in volume.notes[0]
    assert isinstance(volume.notes[0], IdentifyingNote)


def test_slices_with_the_same_uid_but_different_voxels_are_refused(tmp_path: Path) -> None:
    """A program that filters or masks slices may keep their UIDs."""
    write_slices(tmp_path / "a", 10)
    write_slice(tmp_path / "b" / "filtered.dcm", 4, add=107)
    refused(lambda: read_scan(tmp_path), tmp_path, "differ in their voxels", "filtered.dcm", "4.dcm")


def test_copies_with_a_rounded_rescale_slope_are_skipped(tmp_path: Path) -> None:
    write_slices(tmp_path, 10, RescaleSlope="0.48840048840049", RescaleIntercept="0")
    write_slices(tmp_path / "copies", 10, RescaleSlope="0.4884005", RescaleIntercept="0")
    assert read_scan(tmp_path).voxels.shape[-1] == 10


def test_compressed_copies_of_slices_are_skipped(tmp_path: Path) -> None:
    for path in write_slices(tmp_path, 10):
        with edit_dicom(Path(shutil.copy(path, path.with_name(f"rle{path.name}")))) as data:
            data.compress(RLELossless, generate_instance_uid=False)
    assert_slices_in_place(read_scan(tmp_path), 10)


def test_error_names_different_slices_at_the_same_place(tmp_path: Path) -> None:
    write_slices(tmp_path, 10)
    write_slice(tmp_path / "again.dcm", 4, number=30)
    refused(lambda: read_scan(tmp_path), tmp_path, "holds two slices in the same plane: 4.dcm and again.dcm")


@pytest.mark.parametrize("shift", [[0, 0, 0.03], [0, 3.0, 0]], ids=str)
def test_two_slices_nearly_in_one_plane_are_refused(tmp_path: Path, shift: list[float]) -> None:
    write_slices(tmp_path, 10)
    path = write_slice(tmp_path / "again.dcm", 4, number=30)
    with edit_dicom(path) as data:
        data.ImagePositionPatient = (np.array(data.ImagePositionPatient, float) + shift).tolist()
    refused(lambda: read_scan(tmp_path), tmp_path, "holds two slices in the same plane: 4.dcm and again.dcm")


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
    write_slices(tmp_path, 8, **changed)
    refused(lambda: read_scan(tmp_path), tmp_path, "has an impossible orientation or pixel spacing")


@pytest.mark.parametrize("step", [0.0008, 0.0025, 0.008])
@pytest.mark.parametrize("pixel", [1.25, 0.00125])
def test_positions_in_metres_are_refused_as_a_wrong_unit(tmp_path: Path, step: float, pixel: float) -> None:
    for k in range(24):
        position = [0, 0, round(k * step, 4)]
        write_slice(
            tmp_path / f"{k}.dcm",
            k,
            PixelSpacing=[pixel] * 2,
            ImagePositionPatient=position,
            AcquisitionTime=str(100000 + k),
        )
    refused(
        lambda: read_scan(tmp_path),
        tmp_path,
        f"has slices only {step} mm apart, so their positions are probably in metres",
    )


def test_error_about_surplus_slices_counts_all_slices(tmp_path: Path) -> None:
    write_slices(tmp_path, 10)
    write_slice(tmp_path / "again.dcm", 4, number=30)
    for file, place, number in (("third.dcm", 4, 31), ("again7.dcm", 7, 32)):
        write_slice(tmp_path / file, place, number=number)
        refused(lambda: read_scan(tmp_path), tmp_path, "holds 12 slices, some of them at the same place")
        (tmp_path / file).unlink()


def test_image_of_another_sop_class_is_compared_only_with_slices_of_its_own_series(tmp_path: Path) -> None:
    write_slices(tmp_path / "a", 8)
    write_slices(tmp_path / "b", 8, series="1.2.5", SeriesNumber=2)
    write_slice(tmp_path / "shot.dcm", 8, series="1.2.5", number=9, sop_class=SECONDARY_CAPTURE)
    assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(series="1")), 8)
    refused(lambda: read_scan(tmp_path, choice=ScanChoice(series="2")), tmp_path, "shot.dcm")


def test_macosx_folders_of_archives_are_ignored(tmp_path: Path) -> None:
    write_slices(tmp_path, 8)
    for folder in ("__MACOSX", "__MACOSX 2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.dcm").write_text("no DICOM", encoding="utf-8")
        write_slice(tmp_path / folder / "9.dcm", 9)
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 8)
    assert not volume.notes


def test_note_counts_files_that_are_not_slices(tmp_path: Path) -> None:
    write_slices(tmp_path, 10)
    for name, note in (
        ("dose.dcm", "Skipped a file that is not a slice of the scan: dose.dcm (RT Dose)."),
        ("dose b.dcm", "Skipped 2 files that are not slices of the scan: dose b.dcm, dose.dcm (RT Dose)."),
    ):
        new_data_set(RT_DOSE).save_as(tmp_path / name, enforce_file_format=True)
        assert read_scan(tmp_path).notes == (note,)


def test_message_about_incomplete_time_points_counts_slices_and_places(tmp_path: Path) -> None:
    for k in range(10):
        for time in range(3):
            write_slice(tmp_path / f"{k}-{time}.dcm", k, number=3 * k + time + 1, TriggerTime=20 * time)
    assert_slices_in_place(read_scan(tmp_path), 10)
    usually = "slices at 10 places: usually 3 slices per place, but"
    (tmp_path / "4-1.dcm").unlink()
    refused(lambda: read_scan(tmp_path), tmp_path, f"29 {usually} 2 slices per place at 1 of the places")
    (tmp_path / "7-2.dcm").unlink()
    refused(lambda: read_scan(tmp_path), tmp_path, f"28 {usually} 2 slices per place at 2 of the places")
    write_slice(tmp_path / "again.dcm", 1, number=40, TriggerTime=60)
    refused(lambda: read_scan(tmp_path), tmp_path, f"29 {usually} 2 to 4 slices per place at 3 of the places")


def test_folder_without_slices_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    refused(lambda: read_scan(folder), folder, "is an empty folder")
    (folder / "notes.txt").write_text("hello", encoding="utf-8")
    refused(lambda: read_scan(folder), folder, "holds no DICOM slices. Choose a scan")
    (folder / "p1").mkdir()
    (folder / "p1" / "lge.nii.gz").write_bytes(b"")
    (folder / "._lge.nii.gz").write_bytes(b"")
    reason = "holds no DICOM slices, but the file p1/lge.nii.gz. Choose this file."
    refused(lambda: read_scan(folder), folder, reason)
    new_data_set(RT_DOSE).save_as(folder / "dose.dcm", enforce_file_format=True)
    refused(lambda: read_scan(folder), folder, "holds no DICOM slices, but RT Dose")


def test_images_of_rare_sop_classes_are_separated_without_comparing_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing frames in pairs would be slow for thousands of frames."""
    for k in range(4):
        write_slice(tmp_path / f"{k}.dcm", k)
    write_slice(tmp_path / "x.dcm", 4, sop_class=CT)
    frames = read_files(sorted(tmp_path.iterdir())).frames
    compared: list[object] = []
    monkeypatch.setattr(Frame, "__eq__", lambda one, other: compared.append(other) or one is other)
    monkeypatch.setattr(Frame, "__hash__", object.__hash__)
    usual, rare = separate_other_classes(frames)
    assert [frame.file.name for frame in rare] == ["x.dcm"]
    assert len(usual) == 4
    assert not compared


def test_series_are_not_compared_with_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing 4000 series with each other would take half a minute."""
    (frame,) = read_files([write_slice(tmp_path / "x.dcm", 0)]).frames
    firsts: list[Stack] = []
    monkeypatch.setattr(Stack, "first", property(lambda stack: firsts.append(stack) or stack.frames[0]))
    stacks = group_stacks([replace(frame, series=f"1.2.{number}") for number in range(200)])
    assert len(stacks) == 200
    assert len(firsts) < 20 * 200
