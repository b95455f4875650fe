"""Multi-frame DICOM files and DICOM folders: every frame is read at its position, or the error is one line.

The files are made with pydicom. The voxels of each frame hold the frame's position.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dcamt.commands.scan_jobs import expand_scan_path
from dcamt.io.dicom import ScanChoice
from dcamt.io.readers import read_header, read_labelmap, read_scan
from dcamt.volume import IdentifyingNote, Volume, fit_labelmap
from dcamt_testing.scan_files import refused
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
RT_DOSE, REPORT = "1.2.840.10008.5.1.4.1.1.481.2", "1.2.840.10008.5.1.4.1.1.88.11"
SIZE, STEP = 16, 2.0
SERIES = "1.2.3.4"


def new_data_set(sop_class: str, series: str = SERIES, number: int = 1, **attributes: object) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = sop_class
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = "1.2.3", series, "MR"
    data.FrameOfReferenceUID, data.PatientID, data.PatientName = "1.2.9", "p", "p"
    data.StudyDate = data.StudyTime = data.AccessionNumber = data.StudyID = data.PatientBirthDate = data.PatientSex = ""
    data.InstanceNumber, data.SeriesNumber = number, 1
    data.Rows = data.Columns = SIZE
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    for name, value in attributes.items():
        setattr(data, name, value)
    return data


def pixels(places: Sequence[float], add: int = 100) -> bytes:
    """Return the pixels of frames, each with the value `add` + 10 * place."""
    frames = [np.full((SIZE, SIZE), add + 10 * place, "<u2") for place in places]
    for frame in frames:
        frame[0, 0] += 1  # an image of one intensity would be refused
    return b"".join(frame.tobytes() for frame in frames)


def write_slice(path: Path, place: float, **attributes: object) -> Path:
    series = str(attributes.pop("series", SERIES))
    number = int(attributes.pop("number", round(place) + 1))  # type: ignore[call-overload]
    add = int(attributes.pop("add", 100))  # type: ignore[call-overload]
    data = new_data_set(str(attributes.pop("sop_class", MR)), series, number, **attributes)
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, STEP * place], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.SliceThickness = [2, 2], STEP
    data.PixelData = pixels([place], add)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_frames(path: Path, places: Sequence[float], frames: Sequence[dict[str, dict[str, object]]] = ()) -> Path:
    """Write an enhanced MR image.

    frames: further functional groups of each frame, {sequence: {attribute: value}}.
    """
    data = new_data_set(ENHANCED_MR)
    data.NumberOfFrames = len(places)
    shared = Dataset()
    for name, values in {
        "PixelMeasuresSequence": {"PixelSpacing": [2, 2], "SliceThickness": STEP},
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
    }.items():
        item = Dataset()
        for key, value in values.items():
            setattr(item, key, value)
        setattr(shared, name, Items([item]))
    data.SharedFunctionalGroupsSequence = Items([shared])
    groups = []
    for number, place in enumerate(places):
        group = Dataset()
        further = frames[number] if frames else {}
        for name, values in (
            {"PlanePositionSequence": {"ImagePositionPatient": [0, 0, STEP * place]}} | further
        ).items():
            item = Dataset()
            for key, value in values.items():
                setattr(item, key, value)
            setattr(group, name, Items([item]))
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = Items(groups)
    data.PixelData = pixels(places)
    data.save_as(path, enforce_file_format=True)
    return path


def assert_slices_in_place(volume: Volume, slices: int, add: int = 100) -> None:
    """Fail unless the voxels of each slice hold the slice's position."""
    assert volume.voxels.shape == (1, SIZE, SIZE, slices)
    grid = volume.grid
    z = grid.affine[2, 3] + grid.affine[2, 2] * np.arange(slices)
    np.testing.assert_allclose(volume.voxels[0, 3, 3], add + 10 * z / STEP)
    np.testing.assert_allclose(grid.spacing, [2, 2, STEP])


@pytest.mark.parametrize("places", [range(12), range(11, -1, -1), [*range(0, 12, 2), *range(1, 12, 2)]], ids=str)
def test_frames_are_read_at_their_positions(tmp_path: Path, places: Sequence[int]) -> None:
    path = write_frames(tmp_path / "x.dcm", list(places))
    assert_slices_in_place(read_scan(path), 12)
    assert read_header(path).grid.shape == (SIZE, SIZE, 12)


def test_missing_frame_is_refused(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "x.dcm", [0, 1, 2, 3, 5, 6, 7, 8])
    refused(lambda: read_scan(path), path, "lacks about 1")


def test_frame_without_a_position_is_refused(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "x.dcm", range(8))
    data = pydicom.dcmread(path)
    del data.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    data.save_as(path)
    refused(lambda: read_scan(path), path, "lacks the position")


def time_point_groups(places: Sequence[int], number: int) -> list[dict[str, dict[str, object]]]:
    return [{"FrameContentSequence": {"TemporalPositionIndex": t + 1}} for t in range(number) for _ in places]


@pytest.mark.parametrize("compressor", ["RLE", "JPEG-LS", "JPEG 2000", "JPEG", "deflated"])
@pytest.mark.parametrize("slope", [1, 2])
def test_compressed_slices_are_read_or_refused_by_name(tmp_path: Path, compressor: str, slope: int) -> None:
    """The transfer syntaxes are lossless. pydicom or GDCM compresses the slices; the result equals the original."""
    syntax = {"RLE": RLELossless, "JPEG-LS": JPEGLSLossless, "JPEG 2000": JPEG2000Lossless, "JPEG": JPEGLosslessSV1}
    for k in range(8):
        path = write_slice(tmp_path / "series" / f"{k}.dcm", k, RescaleSlope=slope, RescaleIntercept=0)
        data = pydicom.dcmread(path)
        if compressor in ("RLE", "JPEG-LS"):
            data.compress(syntax[compressor], generate_instance_uid=False)
            data.save_as(path)
        elif compressor == "deflated":
            data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
            data.save_as(path)
        else:
            compress_with_gdcm(path, compressor)
            data = pydicom.dcmread(path)
            assert data.file_meta.TransferSyntaxUID == syntax[compressor]
    scan = read_scan(tmp_path / "series")
    z = scan.grid.affine[2, 3] + scan.grid.affine[2, 2] * np.arange(8)
    np.testing.assert_allclose(scan.voxels[0, 3, 3], slope * (100 + 10 * z / STEP))
    assert scan.voxels.shape == (1, SIZE, SIZE, 8)


def compress_with_gdcm(path: Path, compressor: str) -> None:
    """Compress the pixels of a slice; copy back the position and the other tags, which GDCM changes."""
    import SimpleITK as sitk  # noqa: N813

    before = pydicom.dcmread(path)
    image = sitk.GetImageFromArray(before.pixel_array[np.newaxis])
    packed = path.with_suffix(".packed.dcm")
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(packed))
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor({"JPEG": "JPEG", "JPEG 2000": "JPEG2000"}[compressor])
    writer.Execute(image)
    after = pydicom.dcmread(packed)
    packed.unlink()
    before.PixelData = after.PixelData
    before["PixelData"].is_undefined_length = True
    before.BitsStored, before.HighBit, before.BitsAllocated = after.BitsStored, after.HighBit, after.BitsAllocated
    before.file_meta.TransferSyntaxUID = after.file_meta.TransferSyntaxUID
    before.save_as(path)


def test_subfolders_of_a_study_are_read_as_its_series(tmp_path: Path) -> None:
    for series in ("1.2.3.1", "1.2.3.2"):
        for k in range(8):
            write_slice(tmp_path / "study" / series / f"{k}.dcm", k, series=series)
    assert expand_scan_path(tmp_path / "study") == [tmp_path / "study"]
    refused(lambda: read_scan(tmp_path / "study"), tmp_path / "study", "holds 2 DICOM series")
    assert_slices_in_place(read_scan(tmp_path / "study", choice=ScanChoice(series="2")), 8)
    for number, patient in enumerate("ab"):
        for k in range(8):
            file = write_slice(tmp_path / "all" / patient / f"{k}.dcm", k)
            data = pydicom.dcmread(file)
            data.StudyInstanceUID = f"1.2.4.{number}"
            data.save_as(file)
    assert expand_scan_path(tmp_path / "all") == [tmp_path / "all" / "a", tmp_path / "all" / "b"]


@pytest.mark.parametrize("named", [True, False])
def test_first_time_point_is_read_with_a_note(tmp_path: Path, named: bool) -> None:
    places = [*range(12)] * 3
    path = write_frames(tmp_path / "x.dcm", places, time_point_groups(range(12), 3) if named else ())
    data = pydicom.dcmread(path)
    moved = np.frombuffer(data.PixelData, "<u2").reshape(3, -1) + np.array([[0], [1000], [2000]], "<u2")
    data.PixelData = moved.astype("<u2").tobytes()
    data.save_as(path)
    volume = read_scan(path)
    assert_slices_in_place(volume, 12)
    assert any("3 points in time" in note for note in volume.notes)
    assert_slices_in_place(read_scan(path, choice=ScanChoice(time=2)), 12, 1100)
    refused(lambda: read_scan(path, choice=ScanChoice(time=4)), path, "3 points in time")


@pytest.mark.parametrize("kind", ["frames", "folder"])
def test_magnitude_and_phase_can_be_chosen(tmp_path: Path, kind: str) -> None:
    """The units differ too, as Philips writes them."""
    names, units = {"magnitude": "MAGNITUDE", "phase": "PHASE"}, ("normalized", "mrad")
    rescale = {"RescaleSlope": 1, "RescaleIntercept": 0}
    if kind == "frames":
        path = write_frames(
            tmp_path / "x.dcm",
            [*range(10)] * 2,
            [
                {
                    "MRImageFrameTypeSequence": {"ComplexImageComponent": name},
                    "PixelValueTransformationSequence": {"RescaleType": unit, **rescale},
                }
                for name, unit in zip(names.values(), units, strict=True)
                for _ in range(10)
            ],
        )
    else:
        path = tmp_path / "series"
        for n, letter in enumerate("MP"):
            for k in range(10):
                attributes = {"ImageType": ["ORIGINAL", "PRIMARY", letter, "ND"], "RescaleType": units[n], **rescale}
                write_slice(path / f"{n}{k}.dcm", k, **attributes, number=10 * n + k, add=100 + 1000 * n)
    refused(lambda: read_scan(path), path, "magnitude, phase", "--frame-type")
    for n, name in enumerate(names):
        add = 100 if kind == "frames" else 100 + 1000 * n
        assert_slices_in_place(read_scan(path, choice=ScanChoice(frame_type=name)), 10, add)
    refused(lambda: read_scan(path, choice=ScanChoice(frame_type="real")), path, "magnitude, phase")


def test_stacks_in_one_file_can_be_chosen(tmp_path: Path) -> None:
    stacks = [{"FrameContentSequence": {"StackID": name}} for name in "ab" for _ in range(8)]
    path = write_frames(tmp_path / "x.dcm", [*range(8), *range(20, 28)], stacks)
    refused(lambda: read_scan(path), path, "2 stacks", "stack 1 of 2", "--series")
    volume = read_scan(path, choice=ScanChoice(series="2"))
    assert_slices_in_place(volume, 8)
    assert volume.grid.affine[:3, 3].tolist() == [0, 0, 40] or volume.grid.affine[2, 3] == 54


def test_files_of_one_frame_each_are_read_as_one_scan(tmp_path: Path) -> None:
    for k in range(9):
        write_frames(tmp_path / f"series_{k}", [8 - k])
        data = pydicom.dcmread(tmp_path / f"series_{k}")
        data.SOPInstanceUID = generate_uid()
        data.save_as(tmp_path / f"series_{k}")
    assert_slices_in_place(read_scan(tmp_path), 9)


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.5.1.4.1.1.66.4", RT_DOSE])
def test_tiled_images_segmentations_and_doses_are_refused_as_scans(tmp_path: Path, sop_class: str) -> None:
    path = write_frames(tmp_path / "x.dcm", range(8))
    data = pydicom.dcmread(path)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    data.save_as(path)
    refused(lambda: read_scan(path), path, "scan")


def test_each_frame_is_rescaled_by_its_own_slope(tmp_path: Path) -> None:
    groups = [{"PixelValueTransformationSequence": {"RescaleSlope": 0.5 + k, "RescaleIntercept": -k}} for k in range(8)]
    volume = read_scan(write_frames(tmp_path / "x.dcm", range(8), groups))  # type: ignore[arg-type]
    k = (np.arange(8) if volume.grid.affine[2, 2] > 0 else np.arange(8)[::-1]).astype(float)
    np.testing.assert_allclose(volume.voxels[0, 3, 3], (100 + 10 * k) * (0.5 + k) - k)


def test_error_names_the_damaged_slice(tmp_path: Path) -> None:
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


def test_other_files_among_the_slices_are_skipped_with_a_note(tmp_path: Path) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k)
    for name, sop_class in (("dose.dcm", RT_DOSE), ("report.dcm", REPORT)):
        new_data_set(sop_class).save_as(tmp_path / name, enforce_file_format=True)
    new_data_set("1.2.840.10008.5.1.4.1.1.7", PixelData=pixels([3])).save_as(
        tmp_path / "shot.dcm", enforce_file_format=True
    )
    (tmp_path / "README.txt").write_text("hello", encoding="utf-8")
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 10)
    (note,) = volume.notes
    for word in ("dose.dcm", "report.dcm", "shot.dcm", "RT Dose"):
        assert word in note
    assert "README" not in note
    assert isinstance(note, IdentifyingNote)


SECONDARY_CAPTURE, CT = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.2"


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
    message = refused(lambda: read_scan(tmp_path), tmp_path, f"differ in their {word}: 7.dcm, 8.dcm, 9.dcm from 0.dcm")
    assert value not in message, "an identity is not printed"


def test_points_in_time_of_different_units_are_refused(tmp_path: Path) -> None:
    for n, unit in enumerate(("normalized", "mrad")):
        for k in range(8):
            write_slice(tmp_path / f"{n}{k}.dcm", k, number=10 * n + k, AcquisitionNumber=n, RescaleType=unit)
    refused(lambda: read_scan(tmp_path), tmp_path, "differ in their unit of intensities")


def test_spellings_of_a_name_and_missing_names_do_not_contradict(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("colour", [False, True])
def test_single_image_of_another_class_is_skipped_with_a_note(tmp_path: Path, colour: bool) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k)
    path = write_slice(tmp_path / "shot.dcm", 4, number=99, sop_class=SECONDARY_CAPTURE)
    if colour:
        data = pydicom.dcmread(path)
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
        data.PixelData = bytes(2 * 3 * SIZE**2)
        data.save_as(path)
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 10)
    assert "shot.dcm (Secondary Capture" in volume.notes[0]


@pytest.mark.parametrize(("ends", "names"), [((0,), "0.dcm (Sec"), ((8, 9), "8.dcm (Secondary Capture Image), 9.dcm")])
def test_end_slices_of_another_class_are_refused(tmp_path: Path, ends: tuple[int, ...], names: str) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k, **({"sop_class": SECONDARY_CAPTURE} if k in ends else {}))
    refused(lambda: read_scan(tmp_path), tmp_path, f"another kind of image: {names}")


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


def test_slice_with_a_rescale_slope_of_0_is_refused(tmp_path: Path) -> None:
    for k in range(8):
        write_slice(tmp_path / f"{k}.dcm", k, **({"RescaleSlope": 0, "RescaleIntercept": 5} if k == 4 else {}))
    refused(lambda: read_scan(tmp_path), tmp_path, "4.dcm (damaged header)")


@pytest.mark.parametrize(("stored", "signed"), [(16, 0), (12, 0), (16, 1)])
def test_inverted_intensities_equal_those_of_gdcm(tmp_path: Path, stored: int, signed: int) -> None:
    """MONOCHROME1 stores bright pixels as low values; ITK, and so 3D Slicer, inverts them."""
    import SimpleITK as sitk  # noqa: N813

    for k in range(8):
        path = write_slice(tmp_path / f"{k}.dcm", k, PhotometricInterpretation="MONOCHROME1")
        data = pydicom.dcmread(path)
        data.BitsStored, data.HighBit, data.PixelRepresentation = stored, stored - 1, signed
        data.RescaleSlope, data.RescaleIntercept = 2, -7
        data.save_as(path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    np.testing.assert_array_equal(
        read_scan(tmp_path).voxels[0], sitk.GetArrayFromImage(reader.Execute()).transpose(2, 1, 0)
    )


def test_duplicate_slices_are_skipped_with_a_note(tmp_path: Path) -> None:
    for k in range(10):
        write_slice(tmp_path / f"{k}.dcm", k)
    shutil.copy(tmp_path / "4.dcm", tmp_path / "4 (copy).dcm")
    volume = read_scan(tmp_path)
    assert_slices_in_place(volume, 10)
    assert "copies" in volume.notes[0]
    assert isinstance(volume.notes[0], IdentifyingNote)


def write_study(folder: Path, ending: str = ".dcm") -> Path:
    """Write a patient's folder: two series of ten slices and a scout of one slice, each in a folder two levels down."""
    for number, (name, slices) in enumerate((("scout", 1), ("LGE 3D", 10), ("Cine", 12)), start=1):
        for k in range(slices):
            path = folder / "study" / f"series{number}" / f"{k:03}{ending}"
            write_slice(path, k, series=f"1.2.{number}", SeriesDescription=name, SeriesNumber=number, add=1000 * number)
    return folder


@pytest.mark.parametrize("ending", [".dcm", ""])
def test_series_of_a_patient_s_folder_can_be_chosen(tmp_path: Path, ending: str) -> None:
    folder = write_study(tmp_path / "patient", ending)
    refused(lambda: read_scan(folder), folder, '2 "LGE 3D" (10 slices of 16 x 16)', '3 "Cine" (12 slices', "--series")
    for wanted in ("2", "lge 3d", "LGE", "1.2.2"):
        assert_slices_in_place(read_scan(folder, choice=ScanChoice(series=wanted)), 10, 2000)
    refused(lambda: read_scan(folder, choice=ScanChoice(series="T2")), folder, 'no image "T2"', "LGE 3D")
    shutil.rmtree(folder / "study" / "series3")
    volume = read_scan(folder)
    assert_slices_in_place(volume, 10, 2000)
    assert "scout" in volume.notes[0]
    assert isinstance(volume.notes[0], IdentifyingNote)


def test_zip_of_a_dicom_folder_is_read(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "patient")
    path = tmp_path / "patient.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.dcm")):
            archive.write(file, file.relative_to(folder))
    assert_slices_in_place(read_scan(path, choice=ScanChoice(series="3")), 12, 3000)
    assert "/tmp" not in refused(lambda: read_scan(path), path, "LGE 3D").removeprefix(str(path))
    path.write_bytes(path.read_bytes()[:-4000])
    refused(lambda: read_scan(path), path, "zip")


def test_zip_of_several_images_is_refused_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "two.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/a.nrrd", b"a")
        archive.writestr("x/b.nii.gz", b"b")
    refused(lambda: read_scan(path), path, "holds 2 images (a.nrrd, b.nii.gz). Extract it")


def test_slices_without_preamble_are_recognised_by_an_element_of_group_8(tmp_path: Path) -> None:
    for k in range(8):
        path = write_slice(tmp_path / "bare" / f"{k}.dcm", k)
        length = pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength
        path.write_bytes(path.read_bytes()[128 + 4 + 12 + length :])
        assert path.read_bytes()[:4] == b"\x08\x00\x16\x00"  # SOP class UID
    assert_slices_in_place(read_scan(tmp_path / "bare"), 8)


def test_dicomdir_is_read(tmp_path: Path) -> None:
    write_study(tmp_path, "")
    shutil.rmtree(tmp_path / "study" / "series3")
    files = sorted(file for file in (tmp_path / "study").rglob("*") if file.is_file())
    for number, file in enumerate(files):  # file names that DICOM allows on storage media
        file.rename(tmp_path / f"IM{number:03}")
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.file_meta.MediaStorageSOPInstanceUID, directory.file_meta.TransferSyntaxUID = (
        "1.2.5",
        ExplicitVRLittleEndian,
    )
    records = []
    for number in range(len(files)):
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", [f"IM{number:03}"]
        records.append(record)
    directory.DirectoryRecordSequence = Items(records)
    directory.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    assert_slices_in_place(read_scan(tmp_path / "DICOMDIR"), 10, 2000)
    assert_slices_in_place(read_scan(tmp_path), 10, 2000)
    (tmp_path / "IM004").unlink()
    refused(lambda: read_scan(tmp_path / "DICOMDIR"), tmp_path / "DICOMDIR", "1 files", "IM004")


def test_bits_above_the_stored_ones_are_ignored(tmp_path: Path) -> None:
    for k in range(8):
        path = write_slice(tmp_path / f"{k}.dcm", k)
        data = pydicom.dcmread(path)
        data.BitsStored, data.HighBit = 12, 11
        data.PixelData = (np.frombuffer(data.PixelData, "<u2") | 0x8000).tobytes()  # the highest bit holds an overlay
        data.save_as(path)
    assert_slices_in_place(read_scan(tmp_path), 8)


def test_dicom_segmentation_is_read_as_a_label(tmp_path: Path) -> None:
    """highdicom writes the segmentation and omits frames without voxels of a segment."""
    sources = [pydicom.dcmread(write_slice(tmp_path / "scan" / f"{k:02}.dcm", k)) for k in range(12)]
    mask = np.zeros((12, SIZE, SIZE), np.uint8)
    mask[3:7, 2:9, 4:6], mask[5:6, 2:3, 4:5], mask[9, 10:12, 3] = 1, 2, 2
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=hd.sr.CodedConcept("123037004", "SCT", "Anatomical Structure"),
            segmented_property_type=hd.sr.CodedConcept("82471001", "SCT", "Left atrium"),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in ((1, "Left atrium"), (2, "Scar"))
    ]
    segmentation = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=mask,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
    )
    path = tmp_path / "seg.dcm"
    segmentation.save_as(path)
    scan = read_scan(tmp_path / "scan")
    label = fit_labelmap(read_labelmap(path), scan.grid, "the scan")
    ordered = mask if scan.grid.affine[2, 2] > 0 else mask[::-1]
    np.testing.assert_array_equal(label.voxels, ordered.transpose(2, 1, 0))
    chosen = fit_labelmap(read_labelmap(path, {"scar": 7}), scan.grid, "the scan")
    np.testing.assert_array_equal(chosen.voxels, 7 * (ordered == 2).transpose(2, 1, 0))
    refused(lambda: read_scan(path), path, "segmentation, not a scan")
    refused(lambda: read_labelmap(path, {"aorta": 1}), path, '"Left atrium"', '"Scar"')
