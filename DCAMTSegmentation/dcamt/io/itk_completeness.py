"""Check that files are complete before ITK reads them; for a missing part, ITK returns random memory or zeros.

A check raises InputError, or another exception that `library_errors` converts, such as EOFError for a file that ends
too early.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import InputError
from ..volume import check_size
from .metaimage import check_metaimage
from .nifti import same_name_error, stated_shape
from .stored_image import (
    DAMAGED,
    check_complete,
    check_unpacked_size,
    damaged_field_error,
    data_file_errors,
    impossible_spacing_error,
    is_gzip,
    no_numbers_error,
    open_plain_or_gzip,
    read_to_end,
    refuse_surplus,
    skip_bytes,
    unended_text_error,
    whole_number,
)
from .tiff import check_tiff

_VTK_BYTES = {"char": 1, "short": 2, "int": 4, "long": 8, "float": 4, "double": 8}
# Windows programs store 64-bit voxels as these types, because "long" has 4 bytes on Windows:
_VTK_BYTES |= {"long_long": 8, "vtktypeint64": 8, "vtktypeuint64": 8}
_VTK_VALUES = {"SCALARS", "VECTORS", "COLOR_SCALARS"}
"""Fields of a VTK header after which the voxels follow."""
_GIPL_BYTES = {1: 1, 7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}
"""Bytes of a voxel for each type of GIPL image. ITK reads a whole byte per voxel of a binary image (type 1)."""
_ANALYZE_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 32: 8, 64: 8, 128: 3, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
"""Bytes of a voxel for each `datatype` of an Analyze or NIfTI header. ITK ignores the header's `bitpix`."""
_MRC_BYTES = {0: 1, 1: 2, 2: 4, 3: 4, 4: 8, 6: 2, 16: 3}
"""Bytes of a voxel for each mode of an MRC image."""
PAIR_ENDINGS = (".hdr", ".img", ".hdr.gz", ".img.gz")
"""Endings of the files of Analyze 7.5 and NIfTI pairs."""
_HEADER_LIMIT = 1 << 20
"""Maximum bytes of a line of a VTK header."""


def _check_gipl(path: Path) -> None:
    with open_plain_or_gzip(path) as file:
        head = file.read(256)
        if len(head) < 256:
            raise EOFError
        *sizes, kind = struct.unpack(">5H", head[:10])
        sizes = [max(1, size) for size in sizes]
        check_size(sizes, path)
        size = math.prod(sizes) * _GIPL_BYTES.get(kind, 1)
        skip_bytes(file, size)
        surplus = read_to_end(file)
    if kind in _GIPL_BYTES:  # ITK refuses other types.
        refuse_surplus(path, size + surplus, size, size // math.prod(sizes[2:]))


def _check_vtk(path: Path) -> None:
    with open(path, "rb") as file:
        head, words = _read_vtk_header(file)
        sizes = [whole_number(path, "DIMENSIONS", size) for size in words.get("DIMENSIONS", [])]
        if not sizes:
            raise InputError("is not a VTK image of structured points", path=path, remedy="Save the image as NRRD.")
        for name in words.keys() & {"DIMENSIONS", "SPACING", "ASPECT_RATIO", "ORIGIN"}:
            numbers = [word.encode("latin-1") for word in words[name][:3]]
            if len(numbers) < 3 or not _are_numbers(numbers, "double", 8):  # ITK would return arbitrary values.
                raise damaged_field_error(path, name)
        check_size(sizes, path)
        of_cells = "CELL_DATA" in words and "POINT_DATA" not in words
        if of_cells or not words.keys() & _VTK_VALUES:
            what = "does not hold its voxels as SCALARS of POINT_DATA"
            raise InputError(what, path=path, remedy="Save the image as NRRD.")
        # Other data may follow the voxels, so the file's size does not reveal wrong dimensions.
        points = [whole_number(path, "POINT_DATA", number) for number in words.get("POINT_DATA", [])]
        if points and points[0] != math.prod(sizes):
            what = f"states {points[0]} voxels in POINT_DATA, but {math.prod(sizes)} in DIMENSIONS"
            raise InputError(what, path=path, remedy="Correct the header, or export the image again.")
        colors = ["", "unsigned_char", *words.get("COLOR_SCALARS", [])[1:]]
        scalars = words.get("SCALARS") or words.get("VECTORS") or colors
        if len(scalars) < 2:
            raise InputError("has a damaged header", path=path, remedy=DAMAGED)
        each = _VTK_BYTES.get(scalars[1].lower().removeprefix("unsigned_"), 0)  # 0: a type that ITK refuses
        components = 3 if "VECTORS" in words else whole_number(path, "SCALARS", scalars[2]) if len(scalars) > 2 else 1
        count = math.prod(sizes) * components
        if head[2].upper() == "ASCII":
            text = file.read()
            numbers = text.split()
            if len(numbers) < count:
                raise EOFError
            if each and not _are_numbers(numbers[:count], scalars[1].lower(), each):
                raise no_numbers_error(path)
            if len(numbers) == count and not text[-1:].isspace():
                raise unended_text_error(path)
        elif os.path.getsize(path) - file.tell() < count * each:
            raise EOFError


def _are_numbers(words: Sequence[bytes], kind: str, each: int) -> bool:
    """Return whether all words are valid numbers; for invalid numbers, ITK returns wrong values without an error.

    Args:
        kind: VTK's name of the numbers' type.
    """
    if any(b"_" in word for word in words):  # Python would read 1_0 as 10.
        return False
    try:
        if kind in ("float", "double"):
            numbers = np.array([float(word) for word in words])
            with np.errstate(over="ignore"):
                return bool(np.isfinite(numbers.astype(np.float32 if kind == "float" else np.float64)).all())
        lowest = 0 if kind.startswith(("unsigned_", "vtktypeu")) else -(1 << 8 * each - 1)
        return all(lowest <= int(word) < lowest + (1 << 8 * each) for word in words)
    except ValueError:
        return False


def vtk_fields(path: Path) -> set[str]:
    """Return the names of the fields in the header of a legacy VTK file, in capitals."""
    with open(path, "rb") as file:
        return set(_read_vtk_header(file)[1])


def _read_vtk_header(file: IO[bytes]) -> tuple[list[str], dict[str, list[str]]]:
    """Read a legacy VTK file up to its values; return the first three lines, and the words of each field by name."""
    head = [file.readline(_HEADER_LIMIT).decode("latin-1").strip() for _ in range(3)]
    words: dict[str, list[str]] = {}
    while line := file.readline(_HEADER_LIMIT):
        parts = line.decode("latin-1").split()
        if not parts:
            continue
        name = parts[0].upper()
        words[name] = parts[1:]
        if name in _VTK_VALUES:
            if name == "SCALARS":
                _skip_lookup_table(file)
            break
    return head, words


def _skip_lookup_table(file: IO[bytes]) -> None:
    """Skip empty lines and the line LOOKUP_TABLE; skip nothing if this line is missing."""
    start = file.tell()
    while (line := file.readline(_HEADER_LIMIT)) and not line.strip():
        pass
    if not line.lstrip().upper().startswith(b"LOOKUP_TABLE"):
        file.seek(start)


def _check_analyze(path: Path) -> None:
    """Raise InputError if a file of an Analyze 7.5 or NIfTI pair is missing or damaged, or the data is incomplete.

    A spacing that is zero, infinite or not a number is refused, too; ITK would assume 1 mm. NIfTI-2 pairs, which ITK
    does not read, are refused.
    """
    header, image = pair_files(path)
    with open_plain_or_gzip(header) as file:
        head = file.read(348)
    if len(head) < 348:
        raise EOFError
    if 540 in (*struct.unpack("<i", head[:4]), *struct.unpack(">i", head[:4])):
        what = "is a NIfTI-2 pair, which is not supported"
        raise InputError(what, path=path, remedy="Convert the pair to one file (.nii or .nii.gz).")
    order = "<" if struct.unpack("<i", head[:4])[0] == 348 else ">"
    sizes = stated_shape(struct.unpack(f"{order}8h", head[40:56]))
    if not sizes:
        raise InputError("has a damaged header", path=path, remedy=DAMAGED)
    check_size(sizes, path)
    spacing = struct.unpack(f"{order}3f", head[80:92])
    if not all(math.isfinite(step) and step for step in spacing[: len(sizes)]):
        raise impossible_spacing_error(path, spacing)
    kind, bits = struct.unpack(f"{order}2h", head[70:74])
    offset = struct.unpack(f"{order}f", head[108:112])[0]
    voxel_bits = 8 * _ANALYZE_BYTES[kind] if kind in _ANALYZE_BYTES else max(0, bits)
    size = math.prod(sizes) * voxel_bits // 8 + (int(offset) if math.isfinite(offset) else 0)
    if is_gzip(image):
        with open(image, "rb") as file, data_file_errors(path, image):
            held = check_unpacked_size(file, size, image, path)
    else:
        check_complete(image, size, header=path)
        held = os.path.getsize(image)
    if size and not offset:  # An offset may choose a part of a larger file.
        refuse_surplus(image, held, size, size // math.prod(sizes[2:]), path)


def pair_files(path: Path) -> tuple[Path, Path]:
    """Return the header and the data file of an Analyze 7.5 or NIfTI pair; `path` is one of the two files.

    Raises:
        InputError: one of the two files is missing, or `path` ends in `.gz` and the same file exists without `.gz`. ITK
            would then mix the files of two pairs.
    """
    uncompressed = path.with_name(path.name[:-3])
    if path.name.lower().endswith(".gz") and uncompressed.is_file():
        raise same_name_error(path, uncompressed)
    stem = str(path)[: -7 if path.name.lower().endswith(".gz") else -4]
    headers = [Path(stem + extra) for extra in (".hdr", ".HDR", ".hdr.gz")]
    images = [Path(stem + extra) for extra in (".img", ".IMG", ".img.gz")]
    header = next((file for file in headers if file.is_file()), None)
    image = next((file for file in images if file.is_file()), None)
    if header is None or image is None:
        missing = (headers if header is None else images)[0].name
        what = f"is half of a pair, and the other half {missing} is missing"
        raise InputError(what, path=path, remedy="Copy both files.")
    return header, image


def _check_mrc(path: Path) -> None:
    with open(path, "rb") as file:
        head = file.read(1024)
    if len(head) < 1024:
        raise EOFError
    order = ">" if head[212:214] == b"\x11\x11" else "<"
    *sizes, mode = struct.unpack(f"{order}4i", head[:16])
    check_size(sizes, path)
    sides = struct.unpack(f"{order}3f", head[40:52])
    if not all(math.isfinite(side) and side for side in sides):  # ITK would assume 1 mm for 0.
        raise impossible_spacing_error(path, [side / size for side, size in zip(sides, sizes, strict=True)])
    size = math.prod(sizes) * _MRC_BYTES.get(mode, 1)
    extra = struct.unpack(f"{order}i", head[92:96])[0]
    held = os.path.getsize(path) - 1024 - max(0, extra)
    if held < size:
        raise EOFError
    if mode in _MRC_BYTES:  # ITK refuses other types.
        refuse_surplus(path, held, size, size // sizes[2])


CHECKS: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys((".mha", ".mhd"), check_metaimage),
    **dict.fromkeys((".gipl", ".gipl.gz"), _check_gipl),
    ".vtk": _check_vtk,
    **dict.fromkeys(PAIR_ENDINGS, _check_analyze),
    **dict.fromkeys((".tif", ".tiff"), check_tiff),
    **dict.fromkeys((".mrc", ".rec"), _check_mrc),
    # The HDF5 library itself refuses a file that is shorter than its header says.
    **dict.fromkeys((".mnc", ".hdf5"), lambda path: None),
}
"""The function that checks a file, for each file ending. `itk.open_itk` refuses a file with any other ending."""
