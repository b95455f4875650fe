"""Read a DICOM segmentation (DICOM PS3.3 A.51): one layer for each segment, on the grid of the file's frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import RAS_TO_LPS, Grid
from ..volume import check_size
from .dicom_files import SEGMENTATION_CLASSES, list_names, quiet_pydicom, read_attributes
from .dicom_pixels import check_fragments
from .dicom_stacks import slice_normal
from .stored_image import COPY_AGAIN, StoredImage, StoredSegment, cut_file_error, library_errors

_REMEDY = "Export the segmentation again."


def is_dicom_segmentation(path: Path) -> bool:
    """Return whether a file is a DICOM segmentation; False for files that cannot be read."""
    attributes = read_attributes(path, "SOPClassUID") or {}
    return str(attributes.get("SOPClassUID", "")) in SEGMENTATION_CLASSES


def open_dicom_segments(path: Path) -> StoredImage:
    """Open a DICOM segmentation. Slices without a frame become background: a file may omit empty slices.

    Raises:
        InputError: the file is damaged, too large, or contains fractions other than 0 and 1; its frames state no
            geometry or lie on no common grid; a segment has several frames at one position; or a frame belongs to no
            segment that the header describes.
    """
    from pydicom import dcmread

    with library_errors(path, "a DICOM segmentation"), quiet_pydicom():
        data = dcmread(path)
        _refuse_incomplete(path, data)
        numbers = _segment_numbers(path, data)
        affine, shape, slices, segments = _geometry(path, data, numbers)
    check_size((*shape, len(numbers)), path)
    with library_errors(path, "a DICOM segmentation"), quiet_pydicom():
        if not _is_labelmap(data) and _has_fractions(path, data):
            raise InputError("holds fractions, not segments", path=path, remedy="Export a binary segmentation.")

    def load() -> np.ndarray:
        with library_errors(path, "a DICOM segmentation"), quiet_pydicom():
            pixels = data.pixel_array
            pixels = pixels[np.newaxis] if pixels.ndim == 2 else pixels
            if _is_labelmap(data):
                _refuse_undescribed(path, set(np.unique(pixels).tolist()) - {data.get("PixelPaddingValue")}, numbers)
            layers = np.zeros((len(numbers), *shape), np.uint8)
            for frame, k, segment in zip(pixels, slices, segments, strict=True):
                if segment:
                    layers[numbers.index(segment), :, :, k] |= (frame.T != 0).astype(np.uint8)
                else:  # The frame is a labelmap, in which each value is a segment.
                    for layer, number in enumerate(numbers):
                        layers[layer, :, :, k] |= (number == frame.T).astype(np.uint8)
            return layers

    names = {int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in data.get("SegmentSequence") or ()}
    return StoredImage(
        channels=len(numbers),
        grid=Grid(shape, RAS_TO_LPS @ affine),
        load=load,
        segments=tuple(
            StoredSegment(layer, 1, number, names.get(number) or None) for layer, number in enumerate(numbers)
        ),
    )


def _refuse_incomplete(path: Path, data: Any) -> None:
    """Raise InputError if a segmentation lacks frames or their descriptions, or has too few or too many pixels."""
    if "PixelData" not in data:
        raise InputError("lacks its pixels", path=path, remedy=COPY_AGAIN)
    stated = int(data.get("NumberOfFrames") or 1)
    described = len(data.get("PerFrameFunctionalGroupsSequence") or ())
    if described != stated:
        raise InputError(
            f"has {stated} frames, but states the positions of {described} frames", path=path, remedy=_REMEDY
        )
    if data["PixelData"].is_undefined_length:
        check_fragments(path, data)
        return
    held = len(data.PixelData)
    frame_bits = int(data.Rows) * int(data.Columns) * int(data.BitsAllocated)
    size = (stated * frame_bits + 7) // 8
    padded = stated * ((frame_bits + 7) // 8)
    if held < size:
        raise cut_file_error(path, held, size)
    # Two kinds of additional bytes are refused: the pixels of a further frame, and the padding of each frame to whole
    # bytes, which DICOM (PS3.5 8.1.1) forbids. Other additional bytes are harmless.
    if held > size + size % 2 and (held >= padded > size or 8 * (held - size) >= frame_bits):
        raise InputError(f"holds {held} bytes of pixels, but its frames need {size}", path=path, remedy=_REMEDY)


def _segment_numbers(path: Path, data: Any) -> list[int]:
    """Return the segments' numbers in the order of the file, without the background, which has the number 0.

    In a file that describes no segments, these are the numbers that its frames state.

    Raises:
        InputError: there are no segments, a segment lacks its number, or two segments have equal numbers.
    """
    stated = [item.get("SegmentNumber") for item in data.get("SegmentSequence") or ()]
    if not stated:
        shared = data.get("SharedFunctionalGroupsSequence") or [None]
        frames = data.PerFrameFunctionalGroupsSequence
        stated = sorted({number for frame in frames if (number := _stated_segment(frame, shared[0]))})
    if None in stated:
        raise InputError("lacks the number of a segment (SegmentNumber)", path=path, remedy=_REMEDY)
    numbers = [int(number) for number in stated if int(number)]
    if not numbers:
        raise InputError("describes no segments (SegmentSequence)", path=path, remedy=_REMEDY)
    doubled = sorted({number for number in numbers if numbers.count(number) > 1})
    if doubled:
        raise InputError(f"has several segments with the number {doubled[0]}", path=path, remedy=_REMEDY)
    return numbers


def _refuse_undescribed(path: Path, used: set[int], numbers: Sequence[int]) -> None:
    """Raise InputError if frames or pixels have the number of a segment that is not described."""
    missing = sorted(used - {0, *numbers})
    if missing:
        listed = list_names([str(number) for number in missing])
        word = "segments" if len(missing) > 1 else "segment"
        raise InputError(f"does not describe its {word} {listed}", path=path, remedy=_REMEDY)


def _geometry(
    path: Path, data: Any, numbers: Sequence[int]
) -> tuple[np.ndarray, tuple[int, int, int], list[int], list[int]]:
    """Return affine (LPS mm), shape (I, J, K), and each frame's slice k and segment number (0 for a labelmap).

    Args:
        numbers: the numbers of the described segments.

    Raises:
        InputError: the frames do not lie on one grid; a position, an orientation or a spacing is unknown; a segment
            has several frames at one position; or a frame's segment is unknown.
    """
    shared = (data.get("SharedFunctionalGroupsSequence") or [None])[0]

    def value(frame: Any, group: str, keyword: str) -> Any:
        for place in (frame, shared):
            items = None if place is None else place.get(group)
            if items and items[0].get(keyword) is not None:
                return items[0].get(keyword)
        raise InputError(f"lacks the geometry of its frames ({keyword})", path=path, remedy=_REMEDY)

    frames = list(data.PerFrameFunctionalGroupsSequence)

    def values(group: str, keyword: str) -> np.ndarray:
        return np.array([[float(number) for number in value(frame, group, keyword)] for frame in frames])

    positions = values("PlanePositionSequence", "ImagePositionPatient")
    orientations = values("PlaneOrientationSequence", "ImageOrientationPatient")
    spacings = values("PixelMeasuresSequence", "PixelSpacing")
    if not np.allclose(orientations, orientations[0], atol=1e-3):
        raise InputError("has frames of several orientations", path=path, remedy=_REMEDY)
    if not np.allclose(spacings, spacings[0], rtol=1e-3):
        raise InputError("has frames of several pixel spacings", path=path, remedy=_REMEDY)
    row, column, spacing = orientations[0][:3], orientations[0][3:], spacings[0]
    normal = slice_normal(orientations[0], spacing, path, _REMEDY)
    depths = positions @ normal
    slice_depths = np.unique(depths.round(3))
    step = float(np.diff(slice_depths).min()) if len(slice_depths) > 1 else 0.0
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        try:
            stated = abs(float(value(frames[0], "PixelMeasuresSequence", keyword)))
        except (InputError, TypeError, ValueError):
            continue
        # If the file omits empty frames, `step` can be a multiple of the slice spacing. A stated value that divides
        # `step` therefore replaces `step`. A slice thickness may be less than the slice spacing: frames 2 mm apart with
        # a slice thickness of 1 mm get slices every 1 mm, and every second slice is empty. If the scan's slices are
        # 2 mm apart, `fit_labelmap` removes the empty slices.
        count = round(step / stated) if stated > 0 else 0
        if stated > 0 and (not step or (count > 0 and abs(step / stated - count) < 0.02)):
            step = stated
            break
    if not step:
        raise InputError("lacks the spacing of its slices", path=path, remedy=_REMEDY)
    index = (depths - depths.min()) / step
    if np.abs(index - index.round()).max() > 0.05:
        raise InputError("has unevenly spaced frames", path=path, remedy=_REMEDY)
    index = index.round()
    first, last = int(index.argmin()), int(index.argmax())
    # As in a scan, the step from slice to slice may be oblique to the slices' normal.
    along = (positions[last] - positions[first]) / index[last] if index[last] else normal * step
    shifts = positions - positions[first] - np.outer(index, along)
    if np.linalg.norm(shifts, axis=1).max() > 0.05 * max(spacing):
        raise InputError("has frames shifted in plane", path=path, remedy=_REMEDY)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * spacing[1], column * spacing[0], along
    affine[:3, 3] = positions[first]
    slices = [int(k) for k in index]
    segments = [_segment_number(path, data, frame, shared, numbers) for frame in frames]
    _refuse_undescribed(path, set(segments), numbers)
    frames_at: defaultdict[tuple[int, int], int] = defaultdict(int)
    for k, segment in zip(slices, segments, strict=True):
        frames_at[k, segment] += 1
    if max(frames_at.values()) > 1:
        raise InputError("has several frames of one segment at one place", path=path, remedy=_REMEDY)
    return affine, (int(data.Columns), int(data.Rows), max(slices) + 1), slices, segments


def _has_fractions(path: Path, data: Any) -> bool:
    """Return whether pixels are fractions other than 0 and 1.

    In a fractional segmentation, `MaximumFractionalValue` stands for 1. A binary segmentation with several bits for
    each pixel has fractions if its pixels have two or more values other than 0.
    """
    if int(data.BitsAllocated) == 1:
        return False
    values = np.unique(data.pixel_array)
    if str(data.get("SegmentationType", "BINARY")) != "FRACTIONAL":
        return bool(np.count_nonzero(values) > 1)
    if "MaximumFractionalValue" not in data:
        remedy = "Export a binary segmentation."
        raise InputError("lacks the highest value of its fractions (MaximumFractionalValue)", path=path, remedy=remedy)
    return not np.isin(values, (0, int(data.MaximumFractionalValue))).all()


def _segment_number(path: Path, data: Any, frame: Any, shared: Any, numbers: Sequence[int]) -> int:
    """Return the number of a frame's segment, or 0 for a frame of a labelmap, whose pixels are segment numbers.

    Raises:
        InputError: the frame does not state its segment, and the file describes several.
    """
    if _is_labelmap(data):
        return 0
    number = _stated_segment(frame, shared)
    if number is None and len(numbers) > 1:
        what = "has frames that do not state their segment (ReferencedSegmentNumber)"
        raise InputError(what, path=path, remedy=_REMEDY)
    return numbers[0] if number is None else number


def _stated_segment(frame: Any, shared: Any) -> int | None:
    """Return the segment number in a frame's functional groups, or else in the shared ones; None if both lack it."""
    for place in (frame, shared):
        if place is not None and (items := place.get("SegmentIdentificationSequence")):
            return int(items[0].ReferencedSegmentNumber)
    return None


def _is_labelmap(data: Any) -> bool:
    """Return whether the pixels of a segmentation are segment numbers."""
    return str(data.get("SegmentationType")) == "LABELMAP" or str(data.get("SOPClassUID")) == SEGMENTATION_CLASSES[1]
