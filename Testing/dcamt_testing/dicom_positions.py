"""DICOM images whose voxels hold the position of their slice, and a check that each slice is in its place."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from dcamt.volume import Volume
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    ExplicitVRLittleEndian,
    generate_uid,
)

MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
RT_DOSE, REPORT = "1.2.840.10008.5.1.4.1.1.481.2", "1.2.840.10008.5.1.4.1.1.88.11"
SIZE, STEP = 16, 2.0
SERIES = "1.2.3.4"
SECONDARY_CAPTURE, CT = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.2"


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

    Args:
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


def time_point_groups(places: Sequence[int], number: int) -> list[dict[str, dict[str, object]]]:
    return [{"FrameContentSequence": {"TemporalPositionIndex": t + 1}} for t in range(number) for _ in places]
