"""Read the pixels of DICOM frames, rescaled as their headers state."""

from __future__ import annotations

import shutil
import struct
from collections import defaultdict
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .dicom_files import quiet_pydicom, read_dicom
from .dicom_frames import Frame
from .itk import path_for_itk, quiet_itk, simple_itk, utf8_path
from .stored_image import COPY_AGAIN, library_errors
from .temporary import temporary_folder

_TOO_MANY_PIXELS = "non-conformant padding"
"""Part of pydicom's warning about RLE data with more pixels than an image has."""
_JPEG_START, _JPEG_2000_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
_START_MARKERS = (_JPEG_START, _JPEG_2000_START, b"\0\0\0\x0cjP")
"""First bytes of a compressed frame: of JPEG or JPEG-LS, of JPEG 2000, and of a JP2 file."""
_END_MARKER = b"\xff\xd9"
"""Last bytes of a compressed frame in JPEG, JPEG-LS or JPEG 2000; padding may follow."""
_MAXIMUM_PADDING = 15  # bytes
_FRAME_HEADERS = {0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of the segments in which JPEG and JPEG-LS frames state their size."""


def load_frames(path: Path, frames: Sequence[Frame]) -> np.ndarray:
    """Return the voxels (1, I, J, K) of the frames, each frame rescaled with its own slope and intercept.

    Voxels that are not rescaled keep the file's type, except float64, which becomes float32. Integers that are rescaled
    by whole numbers become int16 or int32 if the results fit; other rescaled voxels become float32. If the frames'
    types differ, all voxels get NumPy's common type, or float32 in place of float64.

    Raises:
        InputError: a file cannot be read or decompressed, a file has a modality LUT, or the frames' sizes differ. The
            message about sizes names `path`.
    """
    planes: list[np.ndarray] = [np.empty(0)] * len(frames)
    of_file: defaultdict[Path, list[int]] = defaultdict(list)
    for number, frame in enumerate(frames):
        of_file[frame.file].append(number)
    for file, numbers in of_file.items():
        with library_errors(file, "a DICOM image"), quiet_pydicom():
            pixels = _pixels(file)
            for number in numbers:
                frame = frames[number]
                plane = pixels[frame.index]
                if (frame.slope, frame.intercept) != (1.0, 0.0):
                    plane = _rescale(plane, frame.slope, frame.intercept)
                planes[number] = plane.T
    with library_errors(path, "a DICOM scan"):
        voxels = np.stack(planes, axis=-1)
    if voxels.dtype == np.float64:
        voxels = voxels.astype(np.float32)
    return np.ascontiguousarray(voxels[np.newaxis])


def _rescale(plane: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    values = plane * slope + intercept
    if slope == int(slope) and intercept == int(intercept) and plane.dtype.kind in "iu":
        lowest, highest = values.min(initial=0), values.max(initial=0)
        for kind in (np.int16, np.int32):
            if np.iinfo(kind).min <= lowest and highest <= np.iinfo(kind).max:
                return values.astype(kind)
    return values.astype(np.float32)


def _pixels(file: Path) -> np.ndarray:
    """Return all pixels of a file, (frames, rows, columns), not rescaled."""
    data = read_dicom(file)
    if "ModalityLUTSequence" in data:
        raise InputError(
            "has a modality LUT, which is not supported", path=file, remedy="Export the series without a modality LUT."
        )
    syntax = data.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return _decode(data)
    check_fragments(file, data)
    try:
        with quiet_pydicom() as warnings:
            pixels = _decode(data)
        if any(_TOO_MANY_PIXELS in warning for warning in warnings):
            _refuse_damaged_rle(file, data)
        return pixels
    except InputError:
        raise
    except Exception:
        return _decompress_with_itk(file, data)


def _decode(data: Any) -> np.ndarray:
    """Return the pixels as pydicom decodes them, without unused bits, with higher values for brighter pixels."""
    from pydicom.uid import RLELossless

    syntax = data.file_meta.TransferSyntaxUID
    may_have_unused_bits = not syntax.is_encapsulated or syntax == RLELossless
    if may_have_unused_bits:
        # `_stored_bits` replaces pydicom's correction, which ignores the header's HighBit.
        data.pixel_array_options(correct_unused_bits=False)
    pixels = data.pixel_array
    pixels = pixels[np.newaxis] if pixels.ndim == 2 else pixels
    return _bright_is_high(_stored_bits(pixels, data) if may_have_unused_bits else pixels, data)


def _decompress_with_itk(file: Path, data: Any) -> np.ndarray:
    """Return the pixels as ITK's library GDCM decompresses them, not rescaled."""
    syntax = data.file_meta.TransferSyntaxUID.name
    if not _remove_scaling_and_offset_table(data):
        return _read_with_itk(file, syntax, file)
    with temporary_folder() as folder:
        copy = Path(folder, "unscaled.dcm")
        data.save_as(copy)
        return _read_with_itk(copy, syntax, file)


def _remove_scaling_and_offset_table(data: Any) -> bool:
    """Remove the rescale slopes and intercepts, and the extended offset table; return whether there were any."""
    shared, of_frames = (data.get(f"{name}FunctionalGroupsSequence") or () for name in ("Shared", "PerFrame"))
    found = False
    for item in (data, *shared, *of_frames):
        for name in (
            *("RescaleSlope", "RescaleIntercept", "PixelValueTransformationSequence"),
            *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),  # GDCM refuses files with this table.
        ):
            if name in item:
                delattr(item, name)
                found = True
    return found


def _read_with_itk(path: Path, syntax: str, original: Path) -> np.ndarray:
    """Return the pixels of `path`, which is `original` or its copy."""
    if path_for_itk(path) is None and path == original:
        with temporary_folder() as folder:
            return _read_with_itk(Path(shutil.copyfile(path, Path(folder, "copy.dcm"))), syntax, original)
    try:
        with quiet_itk():
            pixels: np.ndarray = simple_itk().GetArrayFromImage(simple_itk().ReadImage(utf8_path(path)))
    except RuntimeError as error:
        raise _undecodable_error(original, syntax) from error
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels


def _undecodable_error(file: Path, syntax: str) -> InputError:
    what = f"cannot be read as a DICOM image (its compressed pixels, {syntax}, cannot be decompressed)"
    remedy = "The file may be damaged: copy it again. Otherwise, export the series uncompressed."
    return InputError(what, path=file, remedy=remedy)


def _refuse_damaged_rle(file: Path, data: Any) -> None:
    """Raise InputError if an RLE segment has too few pixels, or anything but zeros after the image's last pixel."""
    from pydicom.encaps import generate_frames

    for frame in generate_frames(data.PixelData, number_of_frames=int(data.get("NumberOfFrames") or 1)):
        number, *offsets = struct.unpack("<16L", frame[:64])
        for start, end in pairwise([*offsets[:number], len(frame)]):
            if not _ends_with_padding(frame[start:end], int(data.Rows) * int(data.Columns)):
                raise _undecodable_error(file, data.file_meta.TransferSyntaxUID.name)


def _ends_with_padding(segment: bytes, size: int) -> bool:
    """Return whether the start of an RLE segment decodes to exactly `size` bytes, and only zeros follow."""
    decoded = at = 0
    while decoded < size and at < len(segment):
        head = segment[at]
        if head < 128:  # The next bytes are copied.
            decoded, at = decoded + head + 1, at + head + 2
        elif head > 128:  # The next byte is repeated.
            decoded, at = decoded + 257 - head, at + 2
        else:
            at += 1
    return decoded == size and not any(segment[at:])


def check_fragments(file: Path, data: Any) -> None:
    """Raise InputError if compressed frames are cut, or contradict the header in their number or size.

    A JPEG frame counts as cut if it ends with many zeros instead of the end marker, as after an interrupted copy. GDCM
    would return random numbers for the missing part. Videos are not checked, because their frames share fragments.
    """
    from pydicom.encaps import generate_fragments, parse_basic_offsets

    has_fragments = data["PixelData"].is_undefined_length
    is_video = data.file_meta.TransferSyntaxUID.name.startswith(("MPEG", "HEVC"))
    if is_video or not has_fragments:
        return
    pixels = BytesIO(data.PixelData)
    offsets = parse_basic_offsets(pixels)
    fragments, stated = list(generate_fragments(pixels)), int(data.get("NumberOfFrames") or 1)
    starts = sum(fragment.startswith(_START_MARKERS) for fragment in fragments)
    found = starts or len(offsets) or len(fragments)
    if len(fragments) < stated:
        what = f"is damaged: it holds {len(fragments)} of {stated} compressed frames"
        raise InputError(what, path=file, remedy=COPY_AGAIN)
    if found > stated:
        what = f"holds {found} compressed frames, but its header states {stated}"
        raise InputError(what, path=file, remedy="Export the series again.")
    frames = fragments if len(fragments) == stated else [b"".join(fragments)]
    if starts and any(map(_has_zero_tail, frames)):
        raise InputError("is damaged: its compressed pixels end too early", path=file, remedy=COPY_AGAIN)
    rows, columns = int(data.Rows), int(data.Columns)
    for size in filter(None, map(_size_of, frames)):
        if size != (rows, columns):
            what = (
                f"holds compressed pixels in {size[0]} rows and {size[1]} columns, but its header states {rows} rows"
                f" and {columns} columns"
            )
            raise InputError(what, path=file, remedy="Export the series again.")


def _size_of(frame: bytes) -> tuple[int, int] | None:
    """Return the rows and columns that a compressed frame states; None if they are not found."""
    if frame.startswith(_JPEG_START):
        return _size_of_jpeg(frame)
    place = frame.find(_JPEG_2000_START) if frame.startswith(_START_MARKERS) else -1
    if place < 0 or len(frame) < place + 24:
        return None
    right, bottom, left, top = struct.unpack(">4I", frame[place + 8 : place + 24])
    return bottom - top, right - left


def _size_of_jpeg(frame: bytes) -> tuple[int, int] | None:
    place = len(_JPEG_START)
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker in _FRAME_HEADERS:
            rows, columns = struct.unpack(">2H", frame[place + 5 : place + 9])
            return (rows, columns) if rows and columns else None  # Zero: a later segment states the size.
        is_fill_byte = marker == 0xFF
        place += 1 if is_fill_byte else 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None


def _has_zero_tail(data: bytes) -> bool:
    used = data.rstrip(b"\0")
    return len(data) - len(used) > _MAXIMUM_PADDING and not used.endswith(_END_MARKER)


def _bright_is_high(pixels: np.ndarray, data: Any) -> np.ndarray:
    """Invert MONOCHROME1 pixels, so that higher values are brighter.

    Pixels from `_decompress_with_itk` need no inversion: GDCM has inverted them.
    """
    if data.get("PhotometricInterpretation") != "MONOCHROME1" or pixels.dtype.kind not in "iu":
        return pixels
    highest = -1 if pixels.dtype.kind == "i" else 2 ** int(data.get("BitsStored", data.BitsAllocated)) - 1
    return np.asarray(pixels.dtype.type(highest) - pixels)


def _stored_bits(pixels: np.ndarray, data: Any) -> np.ndarray:
    """Return the pixels without the unused bits, in which old files store overlays.

    If the stated highest bit is impossible, the lowest bits are used.
    """
    allocated, stored = int(data.BitsAllocated), int(data.get("BitsStored", data.BitsAllocated))
    high = int(data.get("HighBit") or stored - 1)
    if stored >= allocated or pixels.dtype.kind not in "iu":
        return pixels
    if not stored - 1 <= high < allocated:
        high = stored - 1
    # Shift up until the highest used bit is the highest bit of the type, then shift down.
    return np.asarray(np.right_shift(np.left_shift(pixels, allocated - 1 - high), allocated - stored))
