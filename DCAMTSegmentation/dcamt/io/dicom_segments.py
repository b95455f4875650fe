"""Read a DICOM segmentation (DICOM PS3.3 A.51): one layer for each segment, on the grid of the file's frames."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import RAS_TO_LPS, Grid
from ..volume import check_size
from .dicom_files import SEGMENTATION_CLASSES, quiet_pydicom
from .stored_image import StoredImage, StoredSegment, library_errors

_REMEDY = "Export the segmentation again."


def is_dicom_segmentation(path: Path) -> bool:
    """Return whether a file is a DICOM segmentation; False for files that cannot be read."""
    from pydicom import dcmread

    try:
        with quiet_pydicom():
            data = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"])
    except Exception:  # pydicom raises errors of many types for files that are not DICOM.
        return False
    return str(data.get("SOPClassUID", "")) in SEGMENTATION_CLASSES


def open_dicom_segments(path: Path) -> StoredImage:
    """Open a DICOM segmentation. Slices without a frame become background: a file may omit empty slices.

    Raises:
        InputError: the file is damaged, too large, or contains fractions other than 0 and 1; its frames state no
            geometry or lie on no common grid; or a segment has several frames at one position.
    """
    from pydicom import dcmread

    with library_errors(path, "a DICOM segmentation"), quiet_pydicom():
        data = dcmread(path)
        affine, shape, slices, segments = _geometry(path, data)
        numbers = [int(item.SegmentNumber) for item in data.SegmentSequence] if "SegmentSequence" in data else []
        numbers = [number for number in numbers if number] or sorted({segment for segment in segments if segment})
    check_size((*shape, max(1, len(numbers))), path)
    with library_errors(path, "a DICOM segmentation"), quiet_pydicom():
        if str(data.get("SegmentationType", "BINARY")) == "FRACTIONAL" and _has_fractions(data):
            raise InputError("holds fractions, not segments", path=path, remedy="Export a binary segmentation.")

    def load() -> np.ndarray:
        with library_errors(path, "a DICOM segmentation"), quiet_pydicom():
            pixels = data.pixel_array
            pixels = pixels[np.newaxis] if pixels.ndim == 2 else pixels
            layers = np.zeros((len(numbers), *shape), np.uint8)
            for frame, k, segment in zip(pixels, slices, segments, strict=True):
                if segment:
                    layers[numbers.index(segment), :, :, k] |= (frame.T != 0).astype(np.uint8)
                else:  # The frame is a labelmap, in which each value is a segment.
                    for layer, number in enumerate(numbers):
                        layers[layer, :, :, k] |= (number == frame.T).astype(np.uint8)
            return layers

    described = {int(item.SegmentNumber): item for item in data.get("SegmentSequence", [])}
    return StoredImage(
        channels=len(numbers),
        grid=Grid(shape, RAS_TO_LPS @ affine),
        load=load,
        segments=tuple(
            StoredSegment(
                layer,
                1,
                number,
                (str(described[number].get("SegmentLabel", "")) or None) if number in described else None,
            )
            for layer, number in enumerate(numbers)
        ),
    )


def _geometry(path: Path, data: Any) -> tuple[np.ndarray, tuple[int, int, int], list[int], list[int]]:
    """Return affine (LPS mm), shape (I, J, K), and each frame's slice k and segment number (0 for a labelmap).

    Raises:
        InputError: the frames do not lie on one grid; a position, an orientation or a spacing is unknown; or a
            segment has several frames at one position.
    """
    shared = (data.get("SharedFunctionalGroupsSequence") or [None])[0]

    def value(frame: Any, group: str, keyword: str) -> Any:
        for place in (frame, shared):
            if place is not None and group in place and keyword in place[group][0]:
                return place[group][0].get(keyword)
        raise InputError(f"lacks the geometry of its frames ({keyword})", path=path, remedy=_REMEDY)

    frames = list(data.PerFrameFunctionalGroupsSequence)
    positions = np.array(
        [[float(v) for v in value(frame, "PlanePositionSequence", "ImagePositionPatient")] for frame in frames]
    )
    orientations = np.array(
        [[float(v) for v in value(frame, "PlaneOrientationSequence", "ImageOrientationPatient")] for frame in frames]
    )
    spacing = [float(v) for v in value(frames[0], "PixelMeasuresSequence", "PixelSpacing")]
    if not np.allclose(orientations, orientations[0], atol=1e-3):
        raise InputError("has frames of several orientations", path=path, remedy=_REMEDY)
    row, column = orientations[0][:3], orientations[0][3:]
    normal = np.cross(row, column)
    depths = positions @ normal
    slice_depths = np.unique(depths.round(3))
    step = float(np.diff(slice_depths).min()) if len(slice_depths) > 1 else 0.0
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        try:
            stated = abs(float(value(frames[0], "PixelMeasuresSequence", keyword)))
        except (InputError, TypeError, ValueError):
            continue
        # If empty frames are omitted, even the smallest gap may be a multiple of the slice spacing.
        if stated > 0 and (not step or abs(step / stated - round(step / stated)) < 0.02):
            step = stated
            break
    if not step:
        raise InputError("lacks the spacing of its slices", path=path, remedy=_REMEDY)
    index = (depths - depths.min()) / step
    if np.abs(index - index.round()).max() > 0.05:
        raise InputError("has unevenly spaced frames", path=path, remedy=_REMEDY)
    first = positions[int(depths.argmin())]
    shifts = positions - first - np.outer(depths - depths.min(), normal)
    if np.linalg.norm(shifts, axis=1).max() > 0.05 * max(spacing):
        raise InputError("has frames shifted in plane", path=path, remedy=_REMEDY)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * spacing[1], column * spacing[0], normal * step
    affine[:3, 3] = first
    slices = [int(k) for k in index.round()]
    segments = [_segment_number(frame, shared) for frame in frames]
    frames_at: defaultdict[tuple[int, int], int] = defaultdict(int)
    for k, segment in zip(slices, segments, strict=True):
        frames_at[k, segment] += 1
    if max(frames_at.values()) > 1:
        raise InputError("has several frames of one segment at one place", path=path, remedy=_REMEDY)
    return affine, (int(data.Columns), int(data.Rows), max(slices) + 1), slices, segments


def _has_fractions(data: Any) -> bool:
    """Return whether a fractional segmentation has a value between 0 and its maximum, which stands for 1."""
    return not np.isin(data.pixel_array, (0, int(data.MaximumFractionalValue))).all()


def _segment_number(frame: Any, shared: Any) -> int:
    """Return the number of a frame's segment, or 0 if none is stated: its pixels are then segment numbers."""
    for place in (frame, shared):
        if place is not None and (items := place.get("SegmentIdentificationSequence")):
            return int(items[0].ReferencedSegmentNumber)
    return 0
