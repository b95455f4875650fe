"""A DICOM scan that lacks slices, holds damaged slices or has several time points causes a note or an error."""

import gzip
import os
import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import pydicom
import pytest
from dcamt.errors import InputError
from dcamt.io import dicom_completeness
from dcamt.io.dicom_completeness import dicomdir_files
from dcamt.io.dicom_stacks import ScanChoice
from dcamt.io.readers import read_scan
from dcamt.volume import IdentifyingNote
from dcamt_testing.dicom_positions import (
    REPORT,
    SECONDARY_CAPTURE,
    SERIES,
    assert_slices_in_place,
    edit_dicom,
    new_data_set,
    time_point_groups,
    without_preamble,
    write_frames,
    write_slice,
)
from dcamt_testing.dicom_series import write_dicomdir
from dcamt_testing.scan_files import refused


def _write_series(folder: Path, **attributes: object) -> Path:
    for k in range(8):
        write_slice(folder / f"IM{k:03}", k, **attributes)
    return folder


@pytest.mark.parametrize("size", [100, 140, 330, 370])
def test_scan_whose_last_slice_ends_within_its_header_is_refused(tmp_path: Path, size: int) -> None:
    """A slice that is cut after 370 bytes has a shortened SOP class UID, and thus seems to be of an unknown SOP class.

    The reader must refuse this slice as damaged, and must not skip it as a file of another kind.
    """
    os.truncate(_write_series(tmp_path) / "IM007", size)
    refused(lambda: read_scan(tmp_path), tmp_path, "IM007")


SERIES_UID = b"\x20\x00\x0e\x00UI"
"""Tag and VR of the SeriesInstanceUID in the header of a slice."""


@pytest.mark.parametrize("damage", ["cut", "zeros to the end", "zeros to the pixel spacing"])
def test_scan_whose_last_slice_is_damaged_within_its_series_uid_is_refused(tmp_path: Path, damage: str) -> None:
    file = _write_series(tmp_path) / "IM007"
    data = file.read_bytes()
    start = data.index(SERIES_UID)
    for place in range(start, start + 8 + len(SERIES)):
        end = data.index(b"\x28\x00\x30\x00DS") if damage == "zeros to the pixel spacing" else len(data)
        file.write_bytes(data[:place] + (b"" if damage == "cut" else bytes(end - place)) + data[end:])
        with pytest.raises(InputError, match="IM007"):
            read_scan(tmp_path)


def test_scan_whose_last_slice_has_a_series_uid_of_an_unknown_vr_is_refused(tmp_path: Path) -> None:
    file = _write_series(tmp_path) / "IM007"
    data = file.read_bytes()
    for bit in range(16):
        vr = bytearray(b"UI")
        vr[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data.replace(SERIES_UID, SERIES_UID[:4] + bytes(vr)))
        refused(lambda: read_scan(tmp_path), tmp_path, "holds a damaged file: IM007")


@pytest.mark.parametrize("series", ["1.2.99", SERIES[:-2]])
def test_damaged_slice_of_another_series_is_ignored(tmp_path: Path, series: str) -> None:
    _write_series(tmp_path)
    for number in (8, 9):
        write_slice(tmp_path / f"IM00{number}", number, series=series)
    os.truncate(tmp_path / "IM009", (tmp_path / "IM009").stat().st_size - 60)
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 8)
    assert not [note for note in volume.notes if "IM009" in note or "may be missing" in note]


def test_damaged_file_of_a_series_without_readable_files_causes_a_note(tmp_path: Path) -> None:
    other = write_slice(_write_series(tmp_path) / "IM008", 8, series="1.2.99")
    os.truncate(other, other.stat().st_size - 60)
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 8)
    assert volume.notes == ("Skipped damaged files: IM008 (cut). Slices may be missing.",)


@pytest.mark.parametrize("data", [bytes(3000), b"no slice" * 400])
def test_damaged_file_named_like_the_slices_is_refused(tmp_path: Path, data: bytes) -> None:
    (_write_series(tmp_path) / "IM007").write_bytes(data)
    refused(lambda: read_scan(tmp_path), tmp_path, "IM007")


@pytest.mark.parametrize(
    "names",
    [
        ("slice_a", "slice_b", "slice_c", "slice_d", "slice_e"),
        ("QVZKAJBW", "PLWQNVEE", "AAKJDFRT", "ZMXNQPWO", "KDJFUWEY"),
    ],
)
def test_last_slices_without_dicom_content_are_refused_if_names_hold_no_numbers(
    tmp_path: Path, names: Sequence[str]
) -> None:
    for k, name in enumerate(names):
        write_slice(tmp_path / name, k)
    (tmp_path / "README").write_bytes(b"1.2" * 400)
    assert_slices_in_place(read_scan(tmp_path), 5)
    for name in names[3:]:
        (tmp_path / name).write_bytes(b"no slice" * 400)
    refused(
        lambda: read_scan(tmp_path), tmp_path, "2 files that are named like its slices, but are not DICOM", *names[3:]
    )


def test_non_dicom_file_not_named_like_the_slices_is_skipped_with_a_note(tmp_path: Path) -> None:
    (_write_series(tmp_path) / "VERSION").write_bytes(b"1.2" * 400)
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 8)
    assert "VERSION" in volume.notes[0]


def test_dicomdir_that_names_a_missing_file_is_refused(tmp_path: Path) -> None:
    write_dicomdir(_write_series(tmp_path))
    (tmp_path / "IM007").unlink()
    refused(lambda: read_scan(tmp_path), tmp_path / "DICOMDIR", "IM007")


@pytest.mark.parametrize("share", [0.6, 0.72, 0.8, 0.9])
def test_truncated_dicomdir_still_reveals_a_missing_file(tmp_path: Path, share: float) -> None:
    directory = write_dicomdir(_write_series(tmp_path))
    os.truncate(directory, round(share * directory.stat().st_size))
    refused(lambda: read_scan(directory), directory, "ends too early")
    assert_slices_in_place(read_scan(tmp_path), 8)
    (tmp_path / "IM000").unlink()
    refused(lambda: read_scan(tmp_path), directory, "names a missing file: IM000.")


def test_inactive_and_empty_records_of_a_dicomdir_require_no_files(tmp_path: Path) -> None:
    directory = write_dicomdir(_write_series(tmp_path))
    (tmp_path / "IM007").unlink()
    with edit_dicom(directory) as data:
        data.DirectoryRecordSequence[0].RecordInUseFlag = 0xFFFF
        data.DirectoryRecordSequence[-1].RecordInUseFlag = 0
        for empty in ("", None):
            patient = pydicom.Dataset()
            patient.DirectoryRecordType, patient.ReferencedFileID = "PATIENT", empty
            data.DirectoryRecordSequence.insert(0, patient)
    assert_slices_in_place(read_scan(directory), 7)
    assert_slices_in_place(read_scan(tmp_path), 7)


def test_dicomdir_is_found_two_levels_above_the_slices_but_not_outside_the_chosen_folder(tmp_path: Path) -> None:
    slices = _write_series(tmp_path / "A" / "B")
    directory = write_dicomdir(slices)
    data = pydicom.dcmread(directory)
    for record in data.DirectoryRecordSequence:
        record.ReferencedFileID = ["A", "B", record.ReferencedFileID]
    data.save_as(tmp_path / "DICOMDIR")
    directory.unlink()
    (slices / "IM007").unlink()
    refused(lambda: read_scan(tmp_path), tmp_path / "DICOMDIR", "IM007")
    assert_slices_in_place(read_scan(slices), 7)


def test_damaged_slice_is_recognised_by_a_hexadecimal_identifier_in_its_name(tmp_path: Path) -> None:
    for k in range(8):
        write_slice(tmp_path / f"MR.ab{k}cd{k}ef", k)
    (tmp_path / "MR.abfcdeab").write_text("no DICOM", encoding="utf-8")
    refused(lambda: read_scan(tmp_path), tmp_path, "MR.abfcdeab")


def _write_part(folder: Path, number: int, places: Sequence[int], **attributes: int) -> Path:
    """Write file `number` of a DICOM concatenation, an image in several files."""
    stated = {"InstanceNumber": 1, "ConcatenationUID": "1.2.9", "InConcatenationNumber": number}
    return write_frames(folder / f"{number}.dcm", places, number=number, **stated, **attributes)


def test_concatenation_that_lacks_files_is_refused_even_if_its_headers_state_no_total(tmp_path: Path) -> None:
    for number in (1, 3):
        _write_part(tmp_path, number, range(6 * number, 6 * number + 6))
    refused(lambda: read_scan(tmp_path / "3.dcm"), tmp_path / "3.dcm", "3 files, of which numbers 1, 2 are missing")


def test_files_of_a_dicomdir_may_have_names_in_lower_case(tmp_path: Path) -> None:
    write_dicomdir(_write_series(tmp_path))
    for file in sorted(tmp_path.glob("IM*")):
        file.rename(file.with_name(file.name.lower()))
    assert_slices_in_place(read_scan(tmp_path / "DICOMDIR"), 8)


def test_folder_is_listed_once_for_all_files_of_a_dicomdir_in_lower_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To list the folder again for each file would take minutes for a CD of 10,000 files."""
    write_dicomdir(_write_series(tmp_path))
    for file in sorted(tmp_path.glob("IM*")):
        file.rename(file.with_name(file.name.lower()))
    listed, iterdir = [], Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: listed.append(folder) or iterdir(folder))
    assert len(dicomdir_files(tmp_path / "DICOMDIR")) == 8
    assert listed == [tmp_path]


def test_image_in_several_files_needs_all_of_them(tmp_path: Path) -> None:
    for number in (1, 2):
        _write_part(tmp_path, number, range(6 * number - 6, 6 * number), InConcatenationTotalNumber=2)
    assert_slices_in_place(read_scan(tmp_path), 12)
    refused(lambda: read_scan(tmp_path / "1.dcm"), tmp_path / "1.dcm", "number 2")
    (tmp_path / "1.dcm").unlink()
    refused(lambda: read_scan(tmp_path), tmp_path, "of which number 1 is missing")
    with edit_dicom(tmp_path / "2.dcm") as data:
        data.InConcatenationTotalNumber = 3
    refused(lambda: read_scan(tmp_path), tmp_path, "of which numbers 1, 3 are missing")


def test_image_in_several_files_may_contain_several_stacks(tmp_path: Path) -> None:
    for number in (1, 2):
        _write_part(tmp_path, number, range(8), InConcatenationTotalNumber=2)
    with edit_dicom(tmp_path / "2.dcm") as data:
        plane = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
        plane.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]  # the normal has the opposite direction
    for stack in ("1", "2"):
        volume = read_scan(tmp_path, choice=ScanChoice(series=stack))
        assert {file.name for file, _ in volume.frames} == {f"{stack}.dcm"}
    (tmp_path / "2.dcm").unlink()
    refused(lambda: read_scan(tmp_path), tmp_path, "number 2")


@pytest.mark.parametrize("kind", [SECONDARY_CAPTURE, REPORT, "without a position", "in colour"])
def test_gap_in_slice_numbers_is_accepted_if_a_screenshot_or_report_has_the_number(tmp_path: Path, kind: str) -> None:
    for number in range(1, 9):
        if number != 4:
            place = number - 1 - (number > 4)
            write_slice(tmp_path / f"IM{number:03d}", place, number=number)
    write_slice(tmp_path / "screen.dcm", 3, number=4, sop_class=kind if kind == REPORT else SECONDARY_CAPTURE)
    with edit_dicom(tmp_path / "screen.dcm") as data:
        if kind == "without a position":
            del data.ImagePositionPatient
        elif kind == "in colour":
            data.SamplesPerPixel, data.PhotometricInterpretation = 3, "RGB"
            data.PixelData = 3 * data.PixelData
    (note,) = read_scan(tmp_path).notes
    assert "Skipped a file that is not a slice" in note


@pytest.mark.parametrize(
    ("removed", "lacking"),
    [
        (["IM000"], "image with the number 1"),
        (["IM000", "IM001"], "images with the numbers 1, 2"),
        # The number of IM007 is 8. The series has no higher number, so the lack of 8 is not noticed.
        (["IM001", "IM003", "IM005", "IM007"], "images with the numbers 2, 4, 6"),
    ],
)
def test_note_lists_the_missing_instance_numbers(tmp_path: Path, removed: list[str], lacking: str) -> None:
    _write_series(tmp_path)
    for name in removed:
        (tmp_path / name).unlink()
    (note,) = read_scan(tmp_path).notes
    assert f"lacks the {lacking}: slices may be missing" in note
    assert not isinstance(note, IdentifyingNote)


def test_large_slice_numbers_take_little_memory(tmp_path: Path) -> None:
    for k in range(8):
        write_slice(tmp_path / f"IM{k:03}", k, number=2_000_000 + k)
    read_scan(tmp_path)  # so that the measurement below does not include the import of libraries
    tracemalloc.start()
    try:
        assert read_scan(tmp_path).notes == ()
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("attributes", "message_part"),
    [
        ({"ImagesInAcquisition": 20}, "20 images, but 8 were found"),
        ({"NumberOfSeriesRelatedInstances": 9}, "9 images, but 8 were found"),
        ({"SpacingBetweenSlices": 1.0}, "1 mm according"),
    ],
)
def test_headers_that_contradict_the_number_or_distance_of_slices_cause_a_note(
    tmp_path: Path, attributes: dict[str, object], message_part: str
) -> None:
    (note,) = read_scan(_write_series(tmp_path, **attributes)).notes
    assert message_part in note


def test_copies_do_not_hide_that_the_last_slice_is_missing(tmp_path: Path) -> None:
    _write_series(tmp_path, NumberOfSeriesRelatedInstances=9)
    shutil.copy(tmp_path / "IM003", tmp_path / "IM003_copy")
    notes = read_scan(tmp_path).notes
    assert "The headers state 9 images, but 8 were found: slices may be missing." in notes


def test_screenshot_of_the_series_counts_as_one_of_its_images(tmp_path: Path) -> None:
    _write_series(tmp_path, NumberOfSeriesRelatedInstances=9)
    screenshot = new_data_set(SECONDARY_CAPTURE, number=9, PixelData=bytes(512))
    screenshot.save_as(tmp_path / "IM008", enforce_file_format=True)
    (note,) = read_scan(tmp_path).notes
    assert note.startswith("Skipped a file that is not a slice")


@pytest.mark.parametrize("shift", [0.1, 0.5])
def test_time_points_whose_slices_do_not_coincide_are_separate_scans(tmp_path: Path, shift: float) -> None:
    places = [*range(12), *(k + shift for k in range(12))]
    file = write_frames(tmp_path / "x.dcm", places, time_point_groups(range(12), 2))
    assert_slices_in_place(read_scan(file), 12)
    (note,) = read_scan(file).notes
    assert "2 time points" in note
    assert "check that the first time point is a complete scan. If it is not complete, export the image again" in note
    assert_slices_in_place(read_scan(file, choice=ScanChoice(time=2)), 12)


def test_scan_with_an_incomplete_time_point_is_refused_unless_a_time_point_is_chosen(tmp_path: Path) -> None:
    groups = time_point_groups(range(12), 2)[1:]
    file = write_frames(tmp_path / "x.dcm", [*range(1, 12), *range(12)], groups)
    refused(lambda: read_scan(file), file, "11, 12")
    assert_slices_in_place(read_scan(file, choice=ScanChoice(time=2)), 12)


def _omit_last_frame_from_header(data: pydicom.Dataset) -> None:
    data.NumberOfFrames = 11
    data.PerFrameFunctionalGroupsSequence = data.PerFrameFunctionalGroupsSequence[:11]


@pytest.mark.parametrize(
    ("change", "message_part"),
    [
        (_omit_last_frame_from_header, "more pixels than its header states). Copy or export the file again."),
        (
            lambda data: setattr(data, "NumberOfFrames", 11),
            "states 11 as its number of frames, but the number of its frame positions is 12. Export the series again",
        ),
        (lambda data: data.SharedFunctionalGroupsSequence[0].pop("PixelMeasuresSequence"), "lacks the pixel spacing"),
        (lambda data: data.SharedFunctionalGroupsSequence[0].pop("PlaneOrientationSequence"), "lacks the orientation"),
        (lambda data: setattr(data, "ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "mosaic"),
    ],
)
def test_message_names_the_fault_of_the_frames(
    tmp_path: Path, change: Callable[[pydicom.Dataset], object], message_part: str
) -> None:
    file = write_frames(tmp_path / "x.dcm", range(12))
    with edit_dicom(file) as data:
        change(data)
    refused(lambda: read_scan(file), file, message_part)


@pytest.mark.parametrize("name", [".IM007.Ab12cD", "IM007.gz"])
@pytest.mark.parametrize("has_preamble", [True, False])
def test_hidden_or_compressed_slices_cause_a_note(tmp_path: Path, name: str, has_preamble: bool) -> None:
    """rsync copies into hidden files; an interrupted gunzip leaves compressed files."""
    data = (_write_series(tmp_path) / "IM007").read_bytes()
    data = data if has_preamble else without_preamble(tmp_path / "IM007", 2)
    copied = (tmp_path / "IM006").read_bytes()
    (tmp_path / "a.gz").write_bytes(gzip.compress(copied))
    (tmp_path / ".IM006.Ab12cD").write_bytes(copied[:-100])
    (tmp_path / "._IM005").write_bytes(bytes(200))  # macOS
    write_slice(tmp_path / ".other", 3, series="1.2.99")
    assert read_scan(tmp_path).notes == ()
    (tmp_path / "IM007").unlink()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data[:-100])
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 7)
    assert volume.notes == (f"Skipped hidden or compressed files: {name}. Slices may be missing.",)


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.3   ", " 1.2.3", "SERIES 12", "anon/12#3"])
def test_cut_slice_in_a_subfolder_is_refused_whatever_its_series_uid(tmp_path: Path, uid: str) -> None:
    file = _write_series(tmp_path / "a", SeriesInstanceUID=uid) / "IM007"
    os.truncate(file, file.stat().st_size - 20)
    (tmp_path / "b").mkdir()
    file.rename(tmp_path / "b" / "IM007")
    refused(lambda: read_scan(tmp_path), tmp_path, "holds a damaged file: IM007")


def test_hidden_slice_cut_within_its_series_uid_causes_a_note(tmp_path: Path) -> None:
    file = _write_series(tmp_path) / "IM007"
    os.truncate(file, file.read_bytes().index(SERIES_UID) + 8 + 3)
    file.rename(tmp_path / ".IM007.Ab12cD")
    notes = read_scan(tmp_path).notes
    assert notes == ("Skipped hidden or compressed files: .IM007.Ab12cD. Slices may be missing.",)


def test_slice_cut_within_its_series_uid_in_another_folder_causes_a_note(tmp_path: Path) -> None:
    file = _write_series(tmp_path / "a") / "IM007"
    os.truncate(file, file.read_bytes().index(SERIES_UID) + 8 + 3)
    (tmp_path / "b").mkdir()
    file.rename(tmp_path / "b" / "IM007")
    assert read_scan(tmp_path).notes == ("Skipped damaged files: b/IM007 (cut). Slices may be missing.",)


def test_empty_slice_is_refused_but_an_empty_lock_file_is_skipped(tmp_path: Path) -> None:
    _write_series(tmp_path)
    for name in ("LOCKFILE", "Icon_"):  # CDs and Macs have empty files beside the slices.
        (tmp_path / name).touch()
    assert_slices_in_place(read_scan(tmp_path), 8)
    for name in ("IM008", "last.dcm"):
        (tmp_path / name).touch()
        refused(lambda: read_scan(tmp_path), tmp_path, f"holds a damaged file: {name} (empty)")
        (tmp_path / name).unlink()


def test_empty_slice_is_found_among_slices_with_random_names(tmp_path: Path) -> None:
    names = ("QVZK3A7B", "X0LMWT9C", "7RJDH2KS", "PLWQNVEE", "Z81KQTYW", "HHD2VX0M", "K5K5TRWP", "WQXZLMNY")
    for k, name in enumerate(names):
        write_slice(tmp_path / name, k)
    for name in ("Icon_", "VERSION", "Y.tmp"):
        (tmp_path / name).touch()
    assert_slices_in_place(read_scan(tmp_path), 8)
    (tmp_path / "ZKWQ31XL").touch()
    refused(lambda: read_scan(tmp_path), tmp_path, "holds a damaged file: ZKWQ31XL (empty)")


def test_empty_file_of_an_interrupted_download_is_a_damaged_slice(tmp_path: Path) -> None:
    _write_series(tmp_path)
    (tmp_path / "IM003.done").touch()  # IM003 exists, so no slice is missing.
    read_scan(tmp_path)
    (tmp_path / "IM008.part").touch()
    refused(lambda: read_scan(tmp_path), tmp_path, "holds a damaged file: IM008.part (empty)")


def test_slices_that_icloud_has_not_downloaded_are_refused(tmp_path: Path) -> None:
    _write_series(tmp_path)
    (tmp_path / ".IM003.icloud").write_bytes(b"bplist00")  # IM003 exists, so no slice is missing.
    for name in (".report.pdf.icloud", "._.IM009.dcm.icloud", "..icloud"):
        (tmp_path / name).write_bytes(b"bplist00")
    assert_slices_in_place(read_scan(tmp_path), 8)
    for lacking in ("IM007", "IM005, IM007"):
        (tmp_path / lacking[:5]).rename(tmp_path / f".{lacking[:5]}.icloud")
        refused(lambda: read_scan(tmp_path), tmp_path, f"iCloud has not downloaded: {lacking}")
    for file in tmp_path.glob("IM*"):
        file.rename(tmp_path / f".{file.name}.icloud")
    refused(lambda: read_scan(tmp_path), tmp_path, "holds 8 files that iCloud has not downloaded: IM000, IM001")
    (tmp_path / "scan.nii").touch()
    refused(lambda: read_scan(tmp_path), tmp_path, "but the file scan.nii")


def test_patterns_of_slice_names_are_computed_once_for_all_empty_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the patterns were computed for each empty file, reading a CD with 10,000 empty files would take minutes."""
    _write_series(tmp_path)
    for number in range(20):
        (tmp_path / f"EMPTY{number:03}").touch()
    compared, pattern = [], dicom_completeness._pattern
    monkeypatch.setattr(dicom_completeness, "_pattern", lambda file: compared.append(file) or pattern(file))
    assert_slices_in_place(read_scan(tmp_path), 8)
    assert len(compared) < 200


def test_damaged_files_in_another_folder_cause_a_note(tmp_path: Path) -> None:
    _write_series(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for name in ("IM008", "LOCKFILE", "release"):  # Some CDs hold empty files such as the last two.
        (tmp_path / "b" / name).touch()
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 8)
    assert volume.notes == ("Skipped damaged files: b/IM008 (empty). Slices may be missing.",)


def test_damaged_files_are_found_although_the_slices_lack_a_series_uid(tmp_path: Path) -> None:
    _write_series(tmp_path / "a", SeriesInstanceUID="")
    (tmp_path / "b").mkdir()
    for name in ("a/LOCKFILE", "b/IM008"):
        (tmp_path / name).touch()
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 8)
    assert volume.notes == ("Skipped damaged files: b/IM008 (empty). Slices may be missing.",)
    (tmp_path / "a/IM008").touch()
    refused(lambda: read_scan(tmp_path), tmp_path, "holds a damaged file: IM008 (empty)")


def test_missing_first_slices_of_a_stack_cause_a_note(tmp_path: Path) -> None:
    def notes(numbers: Sequence[int]) -> tuple[str, ...]:
        groups = [{"FrameContentSequence": {"StackID": "1", "InStackPositionNumber": number}} for number in numbers]
        return read_scan(write_frames(tmp_path / "x.dcm", range(len(numbers)), groups)).notes

    assert notes(range(3, 13)) == ("According to the headers, slices 1, 2 of the stack may be missing.",)
    assert notes([*range(10, 1, -1)]) == ("According to the headers, slice 1 of the stack may be missing.",)
    assert notes(range(1, 11)) == notes(range(0, 10)) == notes(range(2, 22, 2)) == notes(range(11, 21)) == ()


def test_empty_files_are_compared_with_the_names_of_the_slices_in_linear_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(40):
        write_slice(tmp_path / f"IM{k:03d}", k)
        (tmp_path / f"IM{k:03d}.done").touch()
    calls: list[Path] = []
    pattern = dicom_completeness._pattern
    monkeypatch.setattr(dicom_completeness, "_pattern", lambda file: calls.append(file) or pattern(file))
    assert_slices_in_place(read_scan(tmp_path), 40)
    assert len(calls) < 10 * 40
