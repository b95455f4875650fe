"""Write DICOM images whose voxels hold the position of their slice, and check that each slice is in its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from dcamt.volume import Volume
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR, ENHANCED_MR, CT = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE, RT_DOSE = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.481.2"
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"
SIZE = 16
"""Number of rows of a slice, equal to its number of columns."""
STEP = 2.0
"""Distance in mm between neighbouring slices, rows or columns."""
SERIES = "1.2.3.4"


def new_data_set(sop_class: str, series: str = SERIES, number: int = 1, **attributes: object) -> Dataset:
    """Return a DICOM object with attributes of patient, study, series and pixel format.

    The object has pixels only if `PixelData` is among the further attributes.

    Args:
        series: UID of the series.
        number: instance number; the instance's UID depends on the series and this number.
        attributes: further DICOM attributes.
    """
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
    """Return the pixels of one frame for each place (see `write_slice`).

    Args:
        add: intensity at place 0; the intensity rises by 10 per place.
    """
    frames = [np.full((SIZE, SIZE), add + 10 * place, "<u2") for place in places]
    for frame in frames:
        frame[0, 0] += 1  # an image of one intensity would be refused
    return b"".join(frame.tobytes() for frame in frames)


def write_slice(
    path: Path,
    place: float,
    *,
    series: str = SERIES,
    number: int | None = None,
    add: int = 100,
    sop_class: str = MR,
    **attributes: object,
) -> Path:
    """Write an image of an axial slice at z = `STEP` * `place` mm.

    Args:
        number: instance number; by default the rounded `place`, plus 1.
        add: see `pixels`.
        attributes: DICOM attributes to add or change.
    """
    placed = {
        "ImagePositionPatient": [0, 0, STEP * place],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [2, 2],
        "SliceThickness": STEP,
        "PixelData": pixels([place], add),
    }
    data = new_data_set(sop_class, series, round(place) + 1 if number is None else number, **{**placed, **attributes})
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_slices(folder: Path, count: int, *, first: int = 1, **attributes: Any) -> list[Path]:
    """Write slices at the places 0, 1, 2, ... as `0.dcm`, `1.dcm`, `2.dcm`, ...; return the paths."""
    return [write_slice(folder / f"{k}.dcm", k, number=first + k, **attributes) for k in range(count)]


def encode_text(text: str, codec: str, escape: bytes = b"") -> bytes:
    """Encode a DICOM text; `escape` precedes each part that is not ASCII; "=" and "^" separate parts."""
    parts = re.split("([=^])", text)
    return b"".join((b"" if part.isascii() else escape) + part.encode(codec) for part in parts)


@contextmanager
def edit_dicom(path: Path) -> Iterator[Any]:
    data = dcmread(path)
    yield data
    data.save_as(path)


def without_preamble(path: Path, first_group: int) -> bytes:
    """Return a DICOM file's bytes, beginning with the group `first_group` (2 or 8)."""
    length_element = 12
    meta_length = length_element + dcmread(path).file_meta.FileMetaInformationGroupLength
    return path.read_bytes()[128 + len("DICM") + (meta_length if first_group == 8 else 0) :]


def remove_preambles(folder: Path, first_group: int) -> None:
    for path in filter(Path.is_file, sorted(folder.rglob("*"))):
        path.write_bytes(without_preamble(path, first_group))


Groups = Mapping[str, Mapping[str, object]]
"""Functional groups of a frame: {sequence: {attribute: value}}."""


def write_frames(path: Path, places: Sequence[float], frames: Sequence[Groups] = (), **attributes: Any) -> Path:
    """Write an enhanced MR image with an axial frame at z = `STEP` * place mm for each place.

    Args:
        frames: further functional groups of each frame.
        attributes: arguments of `new_data_set`.
    """
    data = new_data_set(**{"sop_class": ENHANCED_MR, "PixelData": pixels(places), **attributes})
    data.NumberOfFrames = len(places)
    shared = {
        "PixelMeasuresSequence": {"PixelSpacing": [2, 2], "SliceThickness": STEP},
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
    }
    data.SharedFunctionalGroupsSequence = Items([_item_of(shared)])
    positions = [{"PlanePositionSequence": {"ImagePositionPatient": [0, 0, STEP * place]}} for place in places]
    further = frames or [{}] * len(places)
    data.PerFrameFunctionalGroupsSequence = Items(
        [_item_of({**position, **more}) for position, more in zip(positions, further, strict=True)]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def _item_of(groups: Groups) -> Dataset:
    item = Dataset()
    for name, values in groups.items():
        group = Dataset()
        for key, value in values.items():
            setattr(group, key, value)
        setattr(item, name, Items([group]))
    return item


def assert_slices_in_place(volume: Volume, slices: int, add: int = 100) -> None:
    """Fail unless the volume has `slices` slices, each with the intensity of its place (see `pixels`).

    The place of a slice is its z in the volume's grid, divided by `STEP`.
    """
    assert volume.voxels.shape == (1, SIZE, SIZE, slices)
    grid = volume.grid
    z = grid.affine[2, 3] + grid.affine[2, 2] * np.arange(slices)
    np.testing.assert_allclose(volume.voxels[0, 3, 3], add + 10 * z / STEP)
    np.testing.assert_allclose(grid.spacing, [2, 2, STEP])


def time_point_groups(places: Sequence[int], number: int) -> list[Groups]:
    """Return the functional groups of `number` time points, each with one frame per place."""
    return [{"FrameContentSequence": {"TemporalPositionIndex": t + 1}} for t in range(number) for _ in places]
