"""Read a DICOM segmentation (DICOM PS3.3 A.51): one layer for each segment, on the grid of the file's frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, plain_number
from ..geometry import RAS_TO_LPS, Grid
from ..volume import check_size, is_multiple
from .dicom_files import SEGMENTATION_CLASSES, list_names, quiet_pydicom, read_attributes, read_dicom
from .dicom_frames import contradictory_frames, functional_groups, group_value, number, text_of
from .dicom_pixels import check_fragments
from .dicom_stacks import rounding_mm, slice_axes, slice_step
from .stored_image import COPY_AGAIN, StoredImage, StoredSegment, cut_file_error, library_errors

_REMEDY = "Export the segmentation again."
_POSITION_TOLERANCE = 0.05  # of the distance between slices


def is_dicom_segmentation(path: Path) -> bool:
    """Return whether a file is a DICOM segmentation; False for files that cannot be read."""
    attributes = read_attributes(path, "SOPClassUID") or {}
    return str(attributes.get("SOPClassUID", "")) in SEGMENTATION_CLASSES


def open_dicom_segments(path: Path) -> StoredImage:
    """Open a DICOM segmentation. Slices without a frame become background: a file may omit empty slices.

    Raises:
        InputError: the file is damaged, too large, or contains fractions other than 0 and 1; its frames lie on no
            common grid; a segment has several frames at one position; or a frame belongs to no segment that the header
            describes. The pixels of a labelmap are checked by `load`.
    """
    with library_errors(path, "a DICOM segmentation"), quiet_pydicom():
        data = read_dicom(path)
        _refuse_incomplete(path, data)
        groups_of_frames = functional_groups(data)
        numbers = _segment_numbers(path, data, groups_of_frames)
        grid, slices, finest_step, notes = _geometry(path, data, groups_of_frames)
        segments = _segments_of_frames(path, data, groups_of_frames, numbers)
        names = {
            int(item.SegmentNumber): text_of(item.get("SegmentLabel")) for item in data.get("SegmentSequence") or ()
        }
        if len(set(zip(slices, segments, strict=True))) < len(slices):
            raise InputError("has several frames of one segment at one place", path=path, remedy=_REMEDY)
    check_size((*grid.shape, len(numbers)), path)
    with library_errors(path, "a DICOM segmentation"), quiet_pydicom():
        if not _is_labelmap(data) and _has_fractions(path, data):
            raise InputError("holds fractions, not segments", path=path, remedy="Export a binary segmentation.")

    def load() -> np.ndarray:
        with library_errors(path, "a DICOM segmentation"), quiet_pydicom():
            pixels = data.pixel_array
            pixels = pixels[np.newaxis] if pixels.ndim == 2 else pixels
            is_labelmap = _is_labelmap(data)
            if is_labelmap:
                refuse_undescribed(path, set(np.unique(pixels).tolist()) - {data.get("PixelPaddingValue")}, numbers)
            layers = np.zeros((len(numbers), *grid.shape), np.uint8)
            for frame, k, segment in zip(pixels, slices, segments, strict=True):
                if is_labelmap:
                    for layer, number in enumerate(numbers):
                        layers[layer, :, :, k] |= np.equal(frame.T, number)
                elif segment:  # Segment 0 is the background.
                    layers[numbers.index(segment), :, :, k] |= np.not_equal(frame.T, 0)
            return layers

    return StoredImage(
        channels=len(numbers),
        grid=grid,
        load=load,
        segments=tuple(
            StoredSegment(layer, 1, number, names.get(number) or None) for layer, number in enumerate(numbers)
        ),
        notes=notes,
        finest_step_mm=finest_step,
    )


def _refuse_incomplete(path: Path, data: Any) -> None:
    if "PixelData" not in data:
        raise InputError("lacks its pixels", path=path, remedy=COPY_AGAIN)
    stated = int(data.get("NumberOfFrames") or 1)
    described = len(data.get("PerFrameFunctionalGroupsSequence") or ())
    if described != stated:
        raise InputError(contradictory_frames(data, described), path=path, remedy=_REMEDY)
    if data["PixelData"].is_undefined_length:
        check_fragments(path, data)
        return
    held = len(data.PixelData)
    frame_bits = int(data.Rows) * int(data.Columns) * int(data.BitsAllocated)
    size = (stated * frame_bits + 7) // 8
    size_if_padded = stated * ((frame_bits + 7) // 8)
    if held < size:
        raise cut_file_error(path, held, size)
    # DICOM (PS3.5 8.1.1) forbids padding each frame to whole bytes.
    has_padded_frames = held >= size_if_padded > size
    has_further_frame = 8 * (held - size) >= frame_bits
    if held > size + size % 2 and (has_padded_frames or has_further_frame):
        raise InputError(f"holds {held} bytes of pixels, but its frames need {size}", path=path, remedy=_REMEDY)


def _segment_numbers(path: Path, data: Any, groups_of_frames: Sequence[tuple[Any, ...]]) -> list[int]:
    """Return the segments' numbers in the order of the file, without the background, which has the number 0."""
    stated = [item.get("SegmentNumber") for item in data.get("SegmentSequence") or ()]
    if not stated:
        stated = sorted(filter(None, set(map(_stated_segment, groups_of_frames))))
    if None in stated:
        raise InputError("lacks the number of a segment (SegmentNumber)", path=path, remedy=_REMEDY)
    numbers = [int(number) for number in stated if int(number)]
    if not numbers:
        raise InputError("describes no segments (SegmentSequence)", path=path, remedy=_REMEDY)
    doubled = sorted({number for number in numbers if numbers.count(number) > 1})
    if doubled:
        raise InputError(f"has several segments with the number {doubled[0]}", path=path, remedy=_REMEDY)
    return numbers


def refuse_undescribed(path: Path, used: set[int], numbers: Sequence[int]) -> None:
    """Raise InputError if a segment in `used` is neither in `numbers` nor 0, the background."""
    missing = sorted(used - {0, *numbers})
    if missing:
        listed = list_names([str(number) for number in missing])
        word = "segments" if len(missing) > 1 else "segment"
        raise InputError(f"does not describe its {word} {listed}", path=path, remedy=_REMEDY)


def _geometry(
    path: Path, data: Any, groups_of_frames: Sequence[tuple[Any, ...]]
) -> tuple[Grid, list[int], float, tuple[str, ...]]:
    """Return the grid, each frame's slice k, `Labelmap.finest_step_mm`, and notes."""

    def values(group: str, keyword: str) -> np.ndarray:
        stated = [group_value(groups, group, keyword) for groups in groups_of_frames]
        if None in stated:
            raise InputError(f"lacks the geometry of its frames ({keyword})", path=path, remedy=_REMEDY)
        return np.array([[float(number) for number in numbers] for numbers in stated])

    positions = values("PlanePositionSequence", "ImagePositionPatient")
    orientations = values("PlaneOrientationSequence", "ImageOrientationPatient")
    spacings = values("PixelMeasuresSequence", "PixelSpacing")
    if not np.allclose(orientations, orientations[0], atol=1e-3):
        raise InputError("has frames of several orientations", path=path, remedy=_REMEDY)
    if not np.allclose(spacings, spacings[0], rtol=1e-3):
        raise InputError("has frames of several pixel spacings", path=path, remedy=_REMEDY)
    spacing = spacings[0]
    row, column, normal = slice_axes(orientations[0], spacing, path, _REMEDY)
    depths = positions @ normal
    step, finest_step, notes = _slice_step(depths, groups_of_frames[0], positions)
    if not step:
        raise InputError("lacks the spacing of its slices", path=path, remedy=_REMEDY)
    distances = (depths - depths.min()) / step
    index = distances.round()
    first, last = int(index.argmin()), int(index.argmax())
    steps = int(index[last])
    straight = (positions[last] - positions[first]) / max(steps, 1)
    shifts = positions - positions[first] - np.outer(index, straight)
    is_rounded = np.abs(shifts).max() <= rounding_mm(positions, step)
    if not is_rounded and np.abs(distances - index).max() > _POSITION_TOLERANCE:
        raise InputError("has unevenly spaced frames", path=path, remedy=_REMEDY)
    if not is_rounded and np.linalg.norm(shifts, axis=1).max() > 0.05 * max(spacing):
        raise InputError("has frames shifted in plane", path=path, remedy=_REMEDY)
    along = slice_step(positions[first], positions[last], steps, normal) if steps else normal * step
    affine = np.eye(4)
    affine[:3] = np.stack([row * spacing[1], column * spacing[0], along, positions[first]], axis=1)
    grid = Grid((int(data.Columns), int(data.Rows), steps + 1), RAS_TO_LPS @ affine)
    return grid, [int(k) for k in index], finest_step, notes


def _slice_step(
    depths: np.ndarray, groups: Sequence[Any], positions: np.ndarray
) -> tuple[float, float, tuple[str, ...]]:
    """Return the mm between neighbouring slices (0 if unknown), `Labelmap.finest_step_mm`, and notes.

    A file may omit empty slices: with a `SliceThickness` of 2 mm, frames at 0, 4 and 10 mm are slices 0, 2 and 5. But
    frames at 0, 4 and 8 mm are slices 0, 1 and 2, with gaps of 2 mm between them.
    """
    heights = np.unique(depths.round(3))
    heights -= heights[0]
    smallest = float(np.diff(heights).min()) if len(heights) > 1 else 0.0

    def stated(keyword: str) -> float:
        mm = abs(number(group_value(groups, "PixelMeasuresSequence", keyword)) or 0.0)
        if not mm or not smallest or is_multiple(smallest, mm):
            return mm
        off_grid = np.abs(heights - (heights / mm).round() * mm).max()
        return mm if off_grid <= rounding_mm(positions, mm) else 0.0

    spacing, thickness = stated("SpacingBetweenSlices"), stated("SliceThickness")
    may_omit_slices = not spacing and 0 < thickness < 0.75 * smallest
    if not may_omit_slices:
        return spacing or thickness or smallest, 0.0, ()
    steps = round(float(heights[-1]) / smallest)
    distance = float(heights[-1]) / steps
    index = heights / distance
    if np.abs(index - index.round()).max() > _POSITION_TOLERANCE:
        return thickness, 0.0, ()
    has_two_slices = len(heights) == 2
    step, other = (thickness, distance) if has_two_slices else (distance, thickness)
    note = (
        f"The file states no usable distance between its slices (SpacingBetweenSlices): {plain_number(step, 4)} mm"
        f" was assumed, but {plain_number(other, 4)} mm is also possible. Compare both with the scan."
    )
    return step, 0.0 if has_two_slices else thickness, (note,)


def _has_fractions(path: Path, data: Any) -> bool:
    """Return whether pixels are fractions other than 0 and 1.

    In a fractional segmentation, `MaximumFractionalValue` stands for 1. In a binary segmentation, all pixels other
    than 0 should have the same value, which stands for 1.
    """
    if int(data.BitsAllocated) == 1:
        return False
    values = np.unique(data.pixel_array)
    if str(data.get("SegmentationType", "BINARY")) != "FRACTIONAL":
        foreground_values = values[values != 0]
        return len(foreground_values) > 1
    if "MaximumFractionalValue" not in data:
        remedy = "Export a binary segmentation."
        raise InputError("lacks the highest value of its fractions (MaximumFractionalValue)", path=path, remedy=remedy)
    return not np.isin(values, (0, int(data.MaximumFractionalValue))).all()


def _segments_of_frames(
    path: Path, data: Any, groups_of_frames: Sequence[tuple[Any, ...]], numbers: Sequence[int]
) -> list[int]:
    """Return the segment number of each frame; 0 for frames of a labelmap, whose pixels are segment numbers."""
    if _is_labelmap(data):
        return [0] * len(groups_of_frames)
    stated = list(map(_stated_segment, groups_of_frames))
    if None in stated and len(numbers) > 1:
        what = "has frames that do not state their segment (ReferencedSegmentNumber)"
        raise InputError(what, path=path, remedy=_REMEDY)
    segments = [numbers[0] if segment is None else segment for segment in stated]
    refuse_undescribed(path, set(segments), numbers)
    return segments


def _stated_segment(groups: Sequence[Any]) -> int | None:
    stated = group_value(groups, "SegmentIdentificationSequence", "ReferencedSegmentNumber")
    return None if stated is None else int(stated)


def _is_labelmap(data: Any) -> bool:
    """Return whether the pixels of a segmentation are segment numbers."""
    return str(data.get("SegmentationType")) == "LABELMAP" or str(data.get("SOPClassUID")) == SEGMENTATION_CLASSES[1]
