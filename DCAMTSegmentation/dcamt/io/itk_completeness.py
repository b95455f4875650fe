"""Check that files are complete before ITK reads them; for a missing part, ITK returns random memory or zeros.

A check raises InputError, or another exception that `library_errors` converts, such as EOFError for a file that ends
too early.
"""

from __future__ import annotations

import math
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from ..errors import InputError
from ..volume import check_size
from .stored_image import (
    DAMAGED,
    check_complete,
    check_unpacked_size,
    compressed_size,
    cut_file_error,
    data_file_errors,
    impossible_spacing_error,
    is_gzip,
    missing_data_file_error,
    open_plain_or_gzip,
    read_to_end,
    refuse_other_unit,
    skip_bytes,
)

_EXPORT_AGAIN = "Correct the field in its header, or export the image again."
_META_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
_VTK_BYTES = {"char": 1, "short": 2, "int": 4, "long": 8, "float": 4, "double": 8}
_VTK_BYTES |= {"vtktypeint64": 8, "vtktypeuint64": 8}  # written on Windows, where "long" has 4 bytes
_VTK_VALUES = {"SCALARS", "VECTORS", "COLOR_SCALARS"}
"""Words of a VTK header after which the voxels follow."""
_GIPL_BYTES = {1: 1, 7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}
"""Bytes of a voxel for each type of GIPL image. ITK reads a whole byte per voxel of a binary image (type 1)."""
_ANALYZE_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 32: 8, 64: 8, 128: 3, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
"""Bytes of a voxel for each `datatype` of an Analyze or NIfTI header. ITK ignores the header's `bitpix`."""
_MRC_BYTES = {0: 1, 1: 2, 2: 4, 3: 4, 4: 8, 6: 2, 16: 3}
"""Bytes of a voxel for each mode of an MRC image."""
_TIFF_LAYOUT = {256: 0, 257: 0, 258: 1, 277: 1, 339: 1}
"""Defaults of the TIFF tags for a page's width, height, bits, samples and kind of numbers."""
_TIFF_PAGE_KIND, _SMALL_COPY, _MASK = 254, 1, 4
"""The TIFF tag of a page's kind, and its bits for pages that ITK skips: reduced copies and transparency masks."""
_TIFF_COMPRESSION, _DEFLATE = 259, (8, 32946)
"""The TIFF tag of a page's compression, and its values for data compressed with zlib."""
_STRIPS, _TILES = (273, 279), (324, 325)
"""Pairs of TIFF tags: the tag of the offsets, and the tag of the sizes."""
_HEADER_LIMIT = 1 << 20
"""Maximum bytes of a MetaImage's header, or of a line of a VTK header."""


def meta_header(path: Path) -> tuple[dict[str, str], bytes, int]:
    """Return a MetaImage's fields by name in lower case, the file's first bytes, and the header's length in bytes."""
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        head = file.read(_HEADER_LIMIT)
    start = 0
    for line in head.splitlines(keepends=True):
        start += len(line)
        if not line.strip():
            continue
        name, *values = re.split("[=:]", line.decode("latin-1"), maxsplit=1)  # ITK accepts both separators.
        if not values:
            raise InputError("cannot be read as a MetaImage: its header is damaged", path=path, remedy=DAMAGED)
        fields[name.strip().lower()] = values[0].strip()
        if name.strip().lower() == "elementdatafile":
            break
    else:
        raise InputError("cannot be read as a MetaImage: it names no data file", path=path, remedy=DAMAGED)
    return fields, head, start


def _check_meta(path: Path) -> None:
    """Raise InputError if a MetaImage's header is damaged, its unit is not mm, or its data is missing or cut."""
    fields, head, start = meta_header(path)
    _check_meta_numbers(path, fields)
    refuse_other_unit(path, fields.get("distanceunits", ""))
    sizes = [int(size) for size in fields.get("dimsize", "").split()]
    element = fields.get("elementtype", "").removeprefix("MET_").removesuffix("_ARRAY")
    each = _META_BYTES.get(element.removeprefix("U"))
    if not sizes or not element:
        what = "cannot be read as a MetaImage: its header lacks DimSize or ElementType"
        raise InputError(what, path=path, remedy=DAMAGED)
    if each is None:
        what = f'cannot be read as a MetaImage: its header has the unknown ElementType "{fields["elementtype"]}"'
        raise InputError(what, path=path, remedy=_EXPORT_AGAIN)
    check_size(sizes, path)
    size = math.prod(sizes) * int(fields.get("elementnumberofchannels", 1)) * each
    skip = max(0, int(fields.get("headersize", 0)))
    if fields["elementdatafile"].upper() == "LOCAL":
        if 0 < skip < start:
            what = f"states a HeaderSize of {skip} bytes, but its header has {start}"
            raise InputError(what, path=path, remedy=_EXPORT_AGAIN)
        files, skip = [path], max(start, skip)
    else:
        files = _meta_data_files(path, fields["elementdatafile"], head[start:], sizes)
    for data in files:
        if not data.is_file():
            raise missing_data_file_error(path, data)
        with open(data, "rb") as file, data_file_errors(path, data):
            file.seek(skip)
            if _is_true(fields.get("compresseddata")):
                check_unpacked_size(file, size // len(files), data, path)
                _check_compressed_size(path, data, skip, fields.get("compresseddatasize"))
                continue
            if _is_true(fields.get("binarydata")):  # ITK's default is text.
                held = max(0, os.path.getsize(data) - skip)
            else:
                held = _count_text_numbers(path, file.read()) * each
            if held < size // len(files):
                raise cut_file_error(data, held, size // len(files), path)


def _is_true(value: str | None) -> bool:
    return (value or "").lower().startswith(("t", "1"))


def _count_text_numbers(path: Path, text: bytes) -> int:
    """Return how many numbers the `text` of a MetaImage holds; raise InputError if it is not text."""
    try:
        return len([float(word) for word in text.split()])
    except ValueError as error:
        what = "seems to have binary voxels, but its header lacks BinaryData = True"
        raise InputError(what, path=path, remedy="Set BinaryData to True, or export it again.") from error


def _check_meta_numbers(path: Path, fields: dict[str, str]) -> None:
    """Raise InputError if the numbers in a MetaImage's header are damaged, or are too few or too many for NDims."""
    dimensions = int(fields.get("ndims", "0") or 0)
    needed = dict.fromkeys(("DimSize", "ElementSpacing", "ElementSize", "Offset", "Position", "Origin"), dimensions)
    needed |= dict.fromkeys(("TransformMatrix", "Rotation", "Orientation"), dimensions**2)
    for name, number in needed.items():
        words = fields.get(name.lower(), "").split()
        if not words or not dimensions:
            continue
        if len(words) != number:
            count = "one number" if len(words) == 1 else f"{len(words)} numbers"
            what = f"has {count} in the field {name} instead of {number}"
            raise InputError(what, path=path, remedy=_EXPORT_AGAIN)
        try:
            is_finite = all(math.isfinite(float(word)) for word in words)
        except ValueError:
            is_finite = False
        if not is_finite:  # ITK would read 0.
            raise InputError(f"has damaged numbers in {name}", path=path, remedy=_EXPORT_AGAIN)


def _meta_data_files(path: Path, value: str, rest: bytes, sizes: Sequence[int]) -> list[Path]:
    """Return a MetaImage's data files.

    A pattern, or a list after the word LIST, must name one file for each index along the last axis, for example for
    each slice. If the list follows `LIST n`, each file holds the first n axes: for the sizes (64, 64, 20, 3), `LIST 2`
    needs 20 * 3 = 60 files. An n of 0 or above the number of axes is ignored. An n below 0 or equal to the number of
    axes is refused.

    Args:
        value: the text of the field ElementDataFile.
        rest: the bytes after this field.
        sizes: the image's size along each axis.

    Raises:
        InputError: no file is named, a pattern is damaged, the number of files is wrong, or a list does not end with a
            line break. ITK would return random memory for the voxels of missing files. ITK ignores the last name of
            a list if no line break follows the name.
    """
    words = value.split()
    if not words:
        raise InputError("cannot be read as a MetaImage: it names no data file", path=path, remedy=DAMAGED)
    if words[0].upper() == "LIST":
        names = [name.strip() for name in rest.decode("utf-8", "replace").splitlines() if name.strip()]
        number = re.match(r"[+-]?\d+", words[1]) if len(words) > 1 else None  # MetaIO also reads "LIST 2D".
        axes_in_file = int(number[0]) if number else 0
        if axes_in_file == 0 or axes_in_file > len(sizes):
            axes_in_file = len(sizes) - 1
        wanted = math.prod(sizes[axes_in_file:]) if 0 < axes_in_file < len(sizes) else 0
        if names and not rest.rstrip(b" \t").endswith(b"\n"):
            what = f"lacks a line break after the last name in its list of data files ({names[-1]})"
            raise InputError(what, path=path, remedy="Add a line break at the file's end.")
    elif "%" in words[0]:
        if len(words) not in (1, 4):
            raise InputError("has a damaged pattern for the names of its data files", path=path, remedy=DAMAGED)
        first, last, step = (int(word) for word in words[1:]) if len(words) == 4 else (1, sizes[-1], 1)
        numbers = range(first, last + 1, max(1, step))
        if len(numbers) > math.prod(sizes):
            raise InputError("has a damaged pattern for the names of its data files", path=path, remedy=DAMAGED)
        names, wanted = [words[0] % number for number in numbers], sizes[-1]
    else:
        return [path.parent / value]
    if not names or len(names) != wanted:
        what = f"has a number of data files in ElementDataFile ({len(names)}) that does not fit its DimSize"
        raise InputError(what, path=path, remedy=_EXPORT_AGAIN)
    return [path.parent / name for name in names]


def _check_compressed_size(path: Path, data: Path, start: int, stated: str | None) -> None:
    """Raise InputError if the header states fewer bytes than the compressed data has, or more than the file has.

    ITK returns random memory for data beyond the stated size. If the data has a file of its own and the size is 0 or
    missing, ITK uses the file's size.

    Args:
        start: the first byte of the compressed data.
        stated: the size in the header.
        path: the header file, for error messages.
        data: the file with the compressed data; it may be the same file as `path`.
    """
    held = os.path.getsize(data) - start
    size = int(stated or 0)
    if size == held or (size == 0 and data != path):
        return
    with open(data, "rb") as file:
        file.seek(start)
        used = compressed_size(file)
    if not used <= size <= held:
        what = (
            f"lacks the field CompressedDataSize = {used}"
            if stated is None
            else f"states {size} bytes of compressed data, but has {used}"
        )
        raise InputError(what, path=path, remedy="Correct CompressedDataSize in its header, or export it again.")


def _check_gipl(path: Path) -> None:
    """Raise EOFError if a GIPL file is shorter than its header states."""
    with open_plain_or_gzip(path) as file:
        head = file.read(256)
        if len(head) < 256:
            raise EOFError
        *sizes, kind = struct.unpack(">5H", head[:10])
        sizes = [max(1, size) for size in sizes]
        check_size(sizes, path)
        skip_bytes(file, math.prod(sizes) * _GIPL_BYTES.get(kind, 1))
        read_to_end(file)


def _check_vtk(path: Path) -> None:
    """Raise EOFError if a legacy VTK file of structured points is shorter than its header says."""
    with open(path, "rb") as file:
        head, words = _read_vtk_header(file)
        sizes = [int(size) for size in words.get("DIMENSIONS", [])]
        if not sizes:
            raise InputError("is not a VTK image of structured points", path=path, remedy="Save the image as NRRD.")
        check_size(sizes, path)
        of_cells = "CELL_DATA" in words and "POINT_DATA" not in words
        if of_cells or not words.keys() & _VTK_VALUES:
            what = "does not hold its voxels as SCALARS of POINT_DATA"
            raise InputError(what, path=path, remedy="Save the image as NRRD.")
        scalars = words.get("SCALARS") or words.get("VECTORS") or ["", "unsigned_char"]
        if len(scalars) < 2:
            raise InputError("has a damaged header", path=path, remedy=DAMAGED)
        each = _VTK_BYTES.get(scalars[1].lower().removeprefix("unsigned_"), 1)
        components = 3 if "VECTORS" in words else int(scalars[2]) if len(scalars) > 2 else 1
        count = math.prod(sizes) * components
        if head[2].upper() == "ASCII":
            if len(file.read().split()) < count:
                raise EOFError
        elif os.path.getsize(path) - file.tell() < count * each:
            raise EOFError


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
    """Skip empty lines and the line LOOKUP_TABLE; if this line is missing, which ITK accepts, skip nothing."""
    start = file.tell()
    while (line := file.readline(_HEADER_LIMIT)) and not line.strip():
        pass
    if not line.lstrip().upper().startswith(b"LOOKUP_TABLE"):
        file.seek(start)


def _check_analyze(path: Path) -> None:
    """Raise InputError if a file of an Analyze 7.5 or NIfTI pair is missing or damaged, or the data is cut.

    A spacing that is zero, infinite or not a number is refused, too; ITK would assume 1 mm. NIfTI-2 pairs, which ITK
    does not read, are refused.

    Raises:
        EOFError: the header is cut.
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
    dimensions = struct.unpack(f"{order}8h", head[40:56])
    sizes = dimensions[1 : 1 + max(0, min(7, dimensions[0]))]
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
    if not is_gzip(image):
        check_complete(image, size, header=path)
        return
    with open(image, "rb") as file, data_file_errors(path, image):
        check_unpacked_size(file, size, image, path)


def pair_files(path: Path) -> tuple[Path, Path]:
    """Return the header and the data file of an Analyze 7.5 or NIfTI pair, of which `path` is one."""
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


def _check_tiff(path: Path) -> None:
    """Raise EOFError if a page, strip or tile of a TIFF file reaches beyond the file's end, or a page is damaged.

    A page without entries is damaged: TIFF requires at least one. ITK would return only the pages before this page.
    Pages that form a loop are damaged, too.

    Raises:
        InputError: the content is not TIFF, or the pages differ in size or type. ITK would read all pages with the size
            and type of the first: it would return random memory, or only a part of each page. A small copy or a mask
            before the last page would even end the process.
    """
    length = os.path.getsize(path)
    layouts: list[tuple[tuple[int, ...], ...] | None] = []
    with open(path, "rb") as file:
        for values in _tiff_pages(file, path):
            for offsets, sizes in (_STRIPS, _TILES):
                pairs = list(zip(values.get(offsets, ()), values.get(sizes, ()), strict=False))
                if any(offset + size > length for offset, size in pairs):
                    raise EOFError
                if values.get(_TIFF_COMPRESSION, (1,))[0] in _DEFLATE:
                    _check_deflated(file, pairs)
            is_skipped = values.get(_TIFF_PAGE_KIND, (0,))[0] & (_SMALL_COPY | _MASK)
            layout = tuple(values.get(tag, (usual,)) for tag, usual in _TIFF_LAYOUT.items())
            layouts.append(None if is_skipped else layout)
    while len(layouts) > 1 and layouts[-1] is None:
        layouts.pop()
    if len(set(layouts)) > 1:
        what = "holds pages that differ in their size or in the type of their numbers"
        raise InputError(what, path=path, remedy="Save the slices as a TIFF stack of their own.")


def _tiff_pages(file: IO[bytes], path: Path) -> Iterator[dict[int, tuple[int, ...]]]:
    """Yield the values of each page's tags that `_check_tiff` uses."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        what = "cannot be read as a TIFF image: its content is not TIFF"
        raise InputError(what, path=path, remedy="Rename or convert the file.")
    big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    word, entry, count_format = ("Q", 20, "Q") if big else ("I", 12, "H")
    (page,) = struct.unpack(f"{order}{word}", head[8:16] if big else head[4:8])
    seen: set[int] = set()
    while page:
        if page in seen or page >= os.path.getsize(path):
            raise EOFError
        seen.add(page)
        file.seek(page)
        (number,) = struct.unpack(f"{order}{count_format}", _read_exactly(file, struct.calcsize(count_format)))
        if number == 0:
            raise EOFError
        entries = _read_exactly(file, number * entry)
        (page,) = struct.unpack(f"{order}{word}", _read_exactly(file, struct.calcsize(word)))
        values = {}
        for start in range(0, len(entries), entry):
            tag, kind = struct.unpack(f"{order}2H", entries[start : start + 4])
            if tag in (*_STRIPS, *_TILES, *_TIFF_LAYOUT, _TIFF_PAGE_KIND, _TIFF_COMPRESSION):
                values[tag] = _tiff_values(file, order, word, kind, entries[start + 4 : start + entry])
        yield values


def _check_deflated(file: IO[bytes], pairs: Sequence[tuple[int, int]]) -> None:
    """Raise zlib.error if a strip or tile that is compressed with zlib is damaged; ITK would return its beginning.

    Args:
        pairs: offset and size of each strip or tile.
    """
    for offset, size in pairs:
        file.seek(offset)
        zlib.decompress(file.read(size))


def _tiff_values(file: IO[bytes], order: str, word: str, kind: int, entry: bytes) -> tuple[int, ...]:
    """Return the numbers of a TIFF directory entry, which are stored in the entry or at an offset in the file."""
    size = struct.calcsize(word)
    (count,) = struct.unpack(f"{order}{word}", entry[:size])
    code = {3: "H", 4: "I", 16: "Q"}.get(kind, "I")
    total = count * struct.calcsize(code)
    if total <= size:
        return struct.unpack(f"{order}{count}{code}", entry[size : size + total])
    (place,) = struct.unpack(f"{order}{word}", entry[size : 2 * size])
    file.seek(place)
    return struct.unpack(f"{order}{count}{code}", _read_exactly(file, total))


def _check_mrc(path: Path) -> None:
    """Raise EOFError if an MRC file is shorter than its header says."""
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
    each = _MRC_BYTES.get(mode, 1)
    extra = struct.unpack(f"{order}i", head[92:96])[0]
    if os.path.getsize(path) < 1024 + max(0, extra) + math.prod(sizes) * each:
        raise EOFError


def _read_exactly(file: IO[bytes], size: int) -> bytes:
    """Return the next `size` bytes of an uncompressed file; raise EOFError if there are fewer."""
    if file.tell() + size > os.fstat(file.fileno()).st_size:  # Checked first: a damaged size may exceed the memory.
        raise EOFError
    return file.read(size)


# MINC (.mnc) and HDF5: the HDF5 library itself refuses a file that is shorter than its header says.
CHECKS: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys((".mha", ".mhd"), _check_meta),
    **dict.fromkeys((".gipl", ".gipl.gz"), _check_gipl),
    ".vtk": _check_vtk,
    **dict.fromkeys((".hdr", ".img", ".hdr.gz", ".img.gz"), _check_analyze),
    **dict.fromkeys((".tif", ".tiff"), _check_tiff),
    **dict.fromkeys((".mrc", ".rec"), _check_mrc),
    **dict.fromkeys((".mnc", ".hdf5"), lambda path: None),
}
"""The check of each format by the file's ending. The ITK reader refuses a file with any other ending."""
