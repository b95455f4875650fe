"""Build a labelmap's DICOM segmentation (SEG), which refers to the images of the scan, and write DICOM files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import RAS_TO_LPS, Grid
from ..volume import Code, Labelmap, SegmentInfo, fit_labelmap
from .atomic import atomic_path
from .dicom_files import quiet_pydicom, read_dicom
from .dicom_frames import frames_of, integer, text_of
from .dicom_stacks import order_slices
from .stored_image import library_errors

_OTHER_FORMAT = "Choose another file format, such as .seg.nrrd."
_CONTENT_DESCRIPTION = "Automatic segmentation. Research use only."
UTF8 = "ISO_IR 192"
"""DICOM's name of the character set UTF-8."""
_KATAKANA = "ISO_IR 13"
"""In some texts in this character set, pydicom replaces Japanese letters by question marks."""

_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
"""Attributes of type 2 in PS3.3 C.7.1.1 and C.7.2.1: they must be present, but may be empty."""
_REQUIRED_OF_SOURCE_IMAGES = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")

_PRIVATE_BLOCK, _CHECKSUM = (0x99, "DCAMT"), 0x01
"""DCAMT's private block, and its element that holds the CRC-32 of the pixels."""

Dataset = Any
"""A `pydicom.Dataset`."""


@dataclass(frozen=True)
class Algorithm:
    """The algorithm that made a segmentation: the model's name, version and serial number, and the software version."""

    name: str
    version: str
    software_version: str
    serial_number: str


@dataclass(frozen=True)
class SourceImages:
    """The DICOM images of a scan, to which the DICOM segmentation of the scan's labelmap refers.

    Attributes:
        datasets: one image for each slice, in the order of k, or one multi-frame image.
        frames: the index (from 0) of each slice's frame in the multi-frame image. None if each slice has its own image.
    """

    datasets: tuple[Dataset, ...]
    frames: tuple[int, ...] | None = None


def find_source_images(source: Path, frames: Sequence[tuple[Path, int]]) -> SourceImages:
    """Return the images that the slices of a scan were read from.

    Args:
        source: the file or folder of the scan; error messages name it.
        frames: the file and the frame index of each slice (`Volume.frames`).

    Raises:
        InputError: the scan was not read from DICOM, or was read from an archive or several multi-frame files; or one
            of the files no longer exists.
    """
    import pydicom

    if not frames:
        remedy = "Segment a folder of DICOM images, or choose another file format, such as .seg.nrrd."
        what = "was not read from DICOM images, but a DICOM segmentation must refer to them"
        raise InputError(what, path=source, remedy=remedy)
    files = list(dict.fromkeys(file for file, _ in frames))
    missing = [file for file in files if not file.is_file()]
    if missing and zipfile.is_zipfile(source):
        what = "is an archive, and a DICOM segmentation cannot refer to images in an archive"
        raise InputError(what, path=source, remedy="Extract the archive, and segment the folder.")
    if missing:
        what = "was moved or deleted after it was read, but a DICOM segmentation must refer to it"
        raise InputError(what, path=missing[0], remedy="Put the file back, and segment the scan again.")
    headers = {file: pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in files}
    if len(files) == 1:
        return SourceImages((headers[files[0]],), tuple(index for _, index in frames))
    if len(files) < len(frames) or any(index for _, index in frames):
        what = "consists of several multi-frame files, to which a DICOM segmentation cannot refer"
        raise InputError(what, path=source, remedy=_OTHER_FORMAT)
    return SourceImages(tuple(headers[file] for file, _ in frames))


def build_dicom_segmentation(
    labelmap: Labelmap, segments: Sequence[SegmentInfo], source: SourceImages, algorithm: Algorithm
) -> Dataset:
    """Return the segmentation as a DICOM SEG data set (PS3.3 A.51): binary, one segment for each of `segments`.

    Patient, study and frame of reference are copied from the source images. Each segment has a frame for every slice,
    even for an empty slice. Programs that stack the frames then get the scan's own grid.

    Raises:
        InputError: the labelmap does not lie on the grid of the source images (`fit_labelmap`), or a segmentation
            cannot refer to them, for example because they lack attributes.
    """
    import highdicom as hd
    from pydicom.errors import BytesLengthException

    descriptions = _describe_segments(segments, algorithm)
    as_utf8 = needs_utf8(segments, algorithm)
    try:
        for image in source.datasets:
            _complete_header(image, as_utf8)
        labelmap, source = _fit_to_images(labelmap, source)
        geometry = {} if source.frames is None else _frame_geometry(labelmap.grid)
        planes = np.moveaxis(labelmap.voxels, (0, 1, 2), (2, 1, 0))  # (K, J, I)
        masks = np.stack([planes == info.label for info in segments], axis=-1).astype(np.uint8)
        if source.frames is None:
            _unify_planes(source.datasets, labelmap.grid)
        dataset = hd.seg.Segmentation(
            source_images=list(source.datasets),
            pixel_array=masks,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=descriptions,
            series_instance_uid=hd.UID(),
            series_number=_series_number(source),
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="DCAMT",
            manufacturer_model_name=to_long_string(algorithm.name),
            software_versions=algorithm.software_version,
            device_serial_number=algorithm.serial_number,
            content_label="SEGMENTATION",
            content_description=_CONTENT_DESCRIPTION,
            omit_empty_frames=False,
            **geometry,
        )
    except (AttributeError, BytesLengthException, KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise InputError(
            f"no DICOM segmentation can refer to these images ({' '.join(str(error).split())[:160]})",
            remedy=_OTHER_FORMAT,
        ) from error
    if source.frames is not None:
        _remove_other_references(dataset, source.frames)
    dataset.SeriesDescription = to_long_string(f"Segmentation: {', '.join(info.name for info in segments)}")
    dataset.private_block(*_PRIVATE_BLOCK, create=True).add_new(_CHECKSUM, "LO", _crc32(dataset.PixelData))
    return dataset


def _fit_to_images(labelmap: Labelmap, source: SourceImages) -> tuple[Labelmap, SourceImages]:
    """Return the labelmap on the grid of the source images, and the images in the order of k.

    In Python, a caller may have flipped, reordered or cropped the scan after it was read.
    """
    unnamed = Path()
    if source.frames is None:
        frames = [replace(frames_of(unnamed, image)[0], index=n) for n, image in enumerate(source.datasets)]
    else:
        all_frames = frames_of(unnamed, source.datasets[0])
        frames = [all_frames[index] for index in source.frames]
    try:
        affine, frames = order_slices(unnamed, frames, ())
        columns, rows = frames[0].size
        grid = Grid((columns, rows, len(frames)), RAS_TO_LPS @ affine)
        fitted = fit_labelmap(replace(labelmap, partial=True), grid, unnamed)
    except InputError as error:
        what = "the segmentation does not lie on the grid of the scan's DICOM images, to which it must refer"
        raise InputError(what, remedy=_OTHER_FORMAT) from error
    order = tuple(frame.index for frame in frames)
    if source.frames is None:
        return fitted, replace(source, datasets=tuple(source.datasets[index] for index in order))
    return fitted, replace(source, frames=order)


def pixel_checksums(path: Path) -> tuple[str, str]:
    """Return the checksum stored in a file, and the checksum computed from its pixels; "" for a missing checksum.

    Raises:
        InputError: the file cannot be read.
    """
    with library_errors(path, "a DICOM segmentation"), quiet_pydicom():
        dataset = read_dicom(path)
        now = _crc32(dataset.PixelData) if "PixelData" in dataset else ""
        try:
            return str(dataset.private_block(*_PRIVATE_BLOCK)[_CHECKSUM].value), now
        except KeyError:
            return "", now


def _crc32(pixels: bytes) -> str:
    return f"{zlib.crc32(pixels):08x}"


def _complete_header(image: Dataset, as_utf8: bool) -> None:
    """Prepare the header of a source image, from which highdicom copies attributes of patient and study.

    The header is converted to UTF-8 if `as_utf8` is true, or if its character set cannot be kept.
    """
    missing = [keyword for keyword in _REQUIRED_OF_SOURCE_IMAGES if not image.get(keyword)]
    if missing:
        what = f"no DICOM segmentation can refer to these images, which lack {', '.join(missing)}"
        raise InputError(what, remedy=_OTHER_FORMAT)
    stated = image.get("SpecificCharacterSet")
    if as_utf8 or (stated is not None and stated not in _kept_character_sets()):
        convert_to_utf8(image)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in image or not _is_valid(keyword, image.get(keyword)):
            setattr(image, keyword, "")


def _kept_character_sets() -> list[str]:
    """Return the character sets that highdicom supports and pydicom writes without loss."""
    import highdicom as hd

    known = [character_set.value for character_set in hd.SpecificCharacterSetValues]
    return [name for name in known if not name.startswith("ISO 2022") and name != _KATAKANA]


def convert_to_utf8(dataset: Dataset) -> None:
    """Change the data set's character set to UTF-8, without a change of its texts."""
    from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR

    for element in dataset.iterall():
        if element.VR in CUSTOMIZABLE_CHARSET_VR and not element.is_empty:
            # pydicom's `Dataset.decode` would split names at the byte of "=", even inside of Kanji.
            element.value = text_of(element.value) if element.VM == 1 else [text_of(part) for part in element.value]
    dataset.SpecificCharacterSet = UTF8


def needs_utf8(segments: Sequence[SegmentInfo], algorithm: Algorithm) -> bool:
    """Return whether a text about the segments or the algorithm has a letter that is not ASCII.

    The character set of the source images may lack this letter.
    """
    codes = [code for info in segments for code in (info.category, info.type)]
    texts = [algorithm.name, algorithm.version, *(info.name for info in segments), *(code.meaning for code in codes)]
    return not all(text.isascii() for text in texts)


def _unify_planes(images: Sequence[Dataset], grid: Grid) -> None:
    """Give all single-frame images the orientation of the first image, and add missing slice thicknesses.

    highdicom refuses images without a slice thickness, and images whose orientations differ, even by rounding.
    """
    for image in images:
        image.ImageOrientationPatient = images[0].ImageOrientationPatient
        if not image.get("SliceThickness"):
            image.SliceThickness = round(float(np.linalg.norm(grid.affine[:3, 2])), 6)


def _is_valid(keyword: str, value: Any) -> bool:
    """Return False for an invalid date, time or sex, otherwise True."""
    import highdicom as hd
    from pydicom.valuerep import DA, TM

    checks: dict[str, Any] = {"Sex": hd.PatientSexValues, "Date": DA, "Time": TM}
    check = next((check for end, check in checks.items() if keyword.endswith(end)), None)
    try:
        return not value or check is None or check(value) is not None
    except ValueError:
        return False


def _describe_segments(segments: Sequence[SegmentInfo], algorithm: Algorithm) -> list[Any]:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    return [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=to_long_string(info.name),
            segmented_property_category=to_concept(info.category),
            segmented_property_type=to_concept(info.type),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence(
                name=to_long_string(algorithm.name),
                family=codes.DCM.ArtificialIntelligence,
                version=to_long_string(algorithm.version),
                source="DCAMT",
            ),
            tracking_uid=hd.UID(),
            tracking_id=f"{info.name} 1",
            display_color=hd.color.CIELabColor.from_rgb(*(round(255 * part) for part in info.color)),
        )
        for number, info in enumerate(segments, start=1)
    ]


def write_dicom(dataset: Dataset, path: str | Path) -> None:
    """Write a data set as a DICOM file, completely or not at all. Raises OutputError if the file cannot be written."""
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def to_concept(code: Code) -> Any:
    """Return a code as a `highdicom` coded concept."""
    from highdicom.sr.coding import CodedConcept

    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=to_long_string(code.meaning))


def to_long_string(text: str) -> str:
    """Return the text as a DICOM Long String (LO), which has at most 64 characters and no backslash."""
    return text.replace("\\", "/")[:64]


def _frame_geometry(grid: Grid) -> dict[str, Any]:
    """Return highdicom's options for the place of each frame.

    By default, highdicom copies the positions of all source frames, even of other time points.
    """
    import highdicom as hd

    affine = RAS_TO_LPS @ grid.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / spacing
    starts = affine[:3, 3] + np.arange(grid.shape[2])[:, np.newaxis] * affine[:3, 2]
    return {
        "plane_positions": [
            hd.PlanePositionSequence(coordinate_system=hd.CoordinateSystemNames.PATIENT, image_position=start.tolist())
            for start in starts
        ],
        "plane_orientation": hd.PlaneOrientationSequence(
            coordinate_system=hd.CoordinateSystemNames.PATIENT,
            image_orientation=[*directions[:, 0].tolist(), *directions[:, 1].tolist()],
        ),
        "pixel_measures": hd.PixelMeasuresSequence(
            pixel_spacing=[float(spacing[1]), float(spacing[0])],
            slice_thickness=float(spacing[2]),
            spacing_between_slices=float(spacing[2]),
        ),
    }


def _remove_other_references(dataset: Dataset, frames: Sequence[int]) -> None:
    """Remove the references to frames that were not segmented, such as those of other time points."""
    numbers = {frame + 1 for frame in frames}
    for group in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in group.DerivationImageSequence:
            derivation.SourceImageSequence = [
                item for item in derivation.SourceImageSequence if int(item.ReferencedFrameNumber) in numbers
            ]


def _series_number(source: SourceImages) -> int:
    """Return the last four digits of the source's series number, followed by 01."""
    return integer(source.datasets[0].get("SeriesNumber")) % 10_000 * 100 + 1
