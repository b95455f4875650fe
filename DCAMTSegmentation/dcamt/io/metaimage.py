"""Read the header of a MetaImage (`.mha`, `.mhd`), and check that its data is complete."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError
from ..volume import check_size
from .stored_image import (
    DAMAGED,
    check_unpacked_size,
    compressed_size,
    cut_file_error,
    data_file_errors,
    decode_file_name,
    find_data_file,
    missing_data_file_error,
    no_numbers_error,
    numbered_names,
    refuse_other_unit,
    refuse_surplus,
    unended_text_error,
    whole_number,
)
from .temporary import temporary_folder

_EXPORT_AGAIN = "Correct the field in its header, or export the image again."
_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
_FIELDS = (
    "NDims",
    "DimSize",
    "ElementSpacing",
    "ElementSize",
    "DistanceUnits",
    "Offset",
    "Position",
    "Origin",
    "TransformMatrix",
    "Rotation",
    "Orientation",
    "ElementType",
    "ElementNumberOfChannels",
    "BinaryData",
    "BinaryDataByteOrderMSB",
    "ElementByteOrderMSB",
    "CompressedData",
    "CompressedDataSize",
    "HeaderSize",
    "ElementDataFile",
)
"""The fields on which voxels and geometry depend, in the spelling of ITK."""
_HEADER_LIMIT = 1 << 20
"""Maximum bytes of a header."""
_SAMPLE = 1024
"""Bytes that `_refuse_text` examines."""
_NO_TEXT = re.compile(rb"[^\t-\r -~]")
"""A byte that is neither printable ASCII nor whitespace."""


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
        name, *values = re.split("[=:]", decode_file_name(line), maxsplit=1)  # ITK accepts both separators.
        if not values:
            raise InputError("cannot be read as a MetaImage: its header is damaged", path=path, remedy=DAMAGED)
        name = name.strip()
        _refuse_other_spelling(path, name)
        fields[name.lower()] = values[0].strip()
        if name == "ElementDataFile":
            break
    else:
        raise InputError("cannot be read as a MetaImage: it names no data file", path=path, remedy=DAMAGED)
    return fields, head, start


def _refuse_other_spelling(path: Path, name: str) -> None:
    spelling = next((field for field in _FIELDS if field.lower() == name.lower()), name)
    if name != spelling:
        what = f"has the field {name} in its header, but ITK reads only the spelling {spelling}"
        raise InputError(what, path=path, remedy=_EXPORT_AGAIN)


def check_metaimage(path: Path) -> None:
    """Raise InputError if a MetaImage's header is damaged, its unit is not mm, or its data is missing or cut."""
    fields, head, start = meta_header(path)
    _check_numbers(path, fields)
    refuse_other_unit(path, fields.get("distanceunits", ""))
    sizes = _sizes(path, fields)
    element = fields.get("elementtype", "").removeprefix("MET_").removesuffix("_ARRAY")
    each = _BYTES.get(element.removeprefix("U"))
    if not sizes or not element:
        what = "cannot be read as a MetaImage: its header lacks DimSize or ElementType"
        raise InputError(what, path=path, remedy=DAMAGED)
    if each is None:
        what = f'cannot be read as a MetaImage: its header has the unknown ElementType "{fields["elementtype"]}"'
        raise InputError(what, path=path, remedy=_EXPORT_AGAIN)
    check_size(sizes, path)
    channels = whole_number(path, "ElementNumberOfChannels", fields.get("elementnumberofchannels", "1"))
    size = math.prod(sizes) * channels * each
    header_size = whole_number(path, "HeaderSize", fields.get("headersize", "0"))
    skip = max(0, header_size)
    if fields["elementdatafile"].upper() == "LOCAL":
        if 0 < skip < start:
            what = f"states a HeaderSize of {skip} bytes, but its header has {start}"
            raise InputError(what, path=path, remedy=_EXPORT_AGAIN)
        files, skip = [path], max(start, skip)
    else:
        names = _data_file_names(path, fields["elementdatafile"], head[start:], sizes)
        files = [find_data_file(path, name) for name in names]
    stated = size // len(files)
    for data in files:
        if not os.path.isfile(data):
            raise missing_data_file_error(path, data)
        with open(data, "rb") as file, data_file_errors(path, data):
            file.seek(skip)
            if _is_true(fields.get("compresseddata")):
                held = check_unpacked_size(file, stated, data, path)
                _check_compressed_size(path, data, skip, fields.get("compresseddatasize"))
            elif _is_true(fields.get("binarydata", "True")):
                held = max(0, os.path.getsize(data) - skip)
                _refuse_text(path, file.read(_SAMPLE) if held > stated else b"")
            else:
                held = min(stated, _count_text_numbers(path, file.read(), element, stated) * each)
            if held < stated:
                raise cut_file_error(data, held, stated, path)
            if not header_size:  # A HeaderSize may choose a part of a larger file.
                refuse_surplus(data, held, stated, size // math.prod(sizes[2:]), path)


@contextmanager
def metaimage_for_itk(path: Path) -> Iterator[Path]:
    """Yield `path`, or a temporary header with full paths if ITK would not find the data files."""
    fields, head, start = meta_header(path)
    value = fields["elementdatafile"]
    names = [] if value.upper() == "LOCAL" else _data_file_names(path, value, head[start:], _sizes(path, fields))
    files = [find_data_file(path, name) for name in names]
    itk_would_see_a_pattern = any("%" in str(file.absolute()) for file in files)
    if itk_would_see_a_pattern or files == [path.parent / name for name in names]:
        yield path
        return
    paths = [os.fsencode(file.absolute()) for file in files]
    if names != [value]:
        paths.insert(0, os.fsencode(value) if value.upper().startswith("LIST") else b"LIST")
    *fields_before, _ = head[:start].splitlines(keepends=True)
    with temporary_folder() as folder:
        header = Path(folder, "header.mhd")
        header.write_bytes(b"".join([*fields_before, b"ElementDataFile = ", *(line + b"\n" for line in paths)]))
        yield header


def _is_true(value: str | None) -> bool:
    return (value or "").lower().startswith(("t", "1"))


def _refuse_text(path: Path, start: bytes) -> None:
    try:
        numbers = [float(word) for word in start.split()[:-1]]  # The last word may be cut.
    except ValueError:
        return
    if numbers:
        what = "seems to store its voxels as text, but its header lacks BinaryData = False"
        raise InputError(what, path=path, remedy="Set BinaryData to False, or export the image again.")


def _count_text_numbers(path: Path, text: bytes, element: str, binary_size: int) -> int:
    """Return how many numbers the `text` of a MetaImage holds.

    InputError is raised if `text` holds anything else, or if no whitespace follows the last voxel.

    Args:
        element: the numbers' type, such as `USHORT`.
        binary_size: the number of bytes that all voxels would have if they were stored as binary numbers.
    """
    each = _BYTES[element.removeprefix("U")]
    try:
        if b"_" in text:  # Python would read 1_0 as 10.
            raise ValueError
        numbers = [float(word) for word in text.split()]
    except ValueError as error:
        if len(text) == binary_size and _NO_TEXT.search(text):
            what = "seems to have binary voxels, but its header states BinaryData = False"
            raise InputError(what, path=path, remedy="Set BinaryData to True, or export the image again.") from error
        raise no_numbers_error(path) from error
    lowest = 0 if element.startswith("U") else -(1 << 8 * each - 1)
    voxels = numbers[: binary_size // each]  # ITK ignores a surplus.
    if element in ("FLOAT", "DOUBLE"):
        are_of_type = all(map(math.isfinite, voxels))
    else:
        are_of_type = all(number.is_integer() and lowest <= number < lowest + (1 << 8 * each) for number in voxels)
    if not are_of_type:
        raise no_numbers_error(path)
    if len(numbers) * each == binary_size and not text[-1:].isspace():  # ITK would refuse the file.
        raise unended_text_error(path)
    return len(numbers)


def _sizes(path: Path, fields: dict[str, str]) -> list[int]:
    return [whole_number(path, "DimSize", size) for size in fields.get("dimsize", "").split()]


def _check_numbers(path: Path, fields: dict[str, str]) -> None:
    dimensions = whole_number(path, "NDims", fields.get("ndims") or "0")
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


def _data_file_names(path: Path, value: str, rest: bytes, sizes: Sequence[int]) -> list[str]:
    """Return the names of a MetaImage's data files.

    A pattern such as `d%03d.raw`, or a list after the word LIST, must name one file for each index along the last axis:
    ITK would return random memory for the voxels of missing files. For `LIST n`, see `_axes_per_file`.

    Args:
        value: the text of the field ElementDataFile.
        rest: the bytes after this field.
    """
    words = value.split()
    if not words:
        raise InputError("cannot be read as a MetaImage: it names no data file", path=path, remedy=DAMAGED)
    if words[0].upper() == "LIST":
        names = [decode_file_name(name) for name in rest.splitlines() if name.strip()]
        axes_per_file = _axes_per_file(words, len(sizes))
        if not 0 < axes_per_file < len(sizes):
            raise InputError(f'has the unsupported text "{value}" in ElementDataFile', path=path, remedy=_EXPORT_AGAIN)
        wanted = math.prod(sizes[axes_per_file:])
        if names and not rest.rstrip(b" \t").endswith(b"\n"):  # ITK would ignore the last name.
            what = f"lacks a line break after the last name in its list of data files ({names[-1]})"
            raise InputError(what, path=path, remedy="Add a line break at the file's end.")
    elif "%" in words[0]:
        if len(words) not in (1, 4):
            raise InputError("has a damaged pattern for the names of its data files", path=path, remedy=DAMAGED)
        stated = [whole_number(path, "ElementDataFile", word) for word in words[1:]]
        first, last, step = stated or (1, sizes[-1], 1)
        names = numbered_names(path, words[0], range(first, last + 1, max(1, step)), math.prod(sizes))
        wanted = sizes[-1]
    else:
        return [value]
    if len(names) != wanted:
        what = f"names {len(names)} data files in ElementDataFile, but its DimSize needs {wanted}"
        raise InputError(what, path=path, remedy=_EXPORT_AGAIN)
    return names


def _axes_per_file(words: Sequence[str], axes: int) -> int:
    """Return the n of `LIST n`, the number of axes of each data file.

    >>> _axes_per_file(["LIST", "2"], axes=4)
    2
    >>> _axes_per_file(["LIST"], axes=4)
    3
    """
    number = re.match(r"[+-]?\d+", words[1]) if len(words) > 1 else None  # MetaIO also reads "LIST 2D".
    stated = int(number[0]) if number else 0
    return axes - 1 if stated == 0 or stated > axes else stated  # as in MetaIO


def _check_compressed_size(path: Path, data: Path, start: int, stated: str | None) -> None:
    """Raise InputError if the size in the header is smaller than the compressed data, or reaches beyond the file's end.

    ITK returns random memory for data beyond the stated size. If the data has a file of its own and the size is 0 or
    missing, ITK uses the file's size.

    Args:
        start: the first byte of the compressed data.
        stated: the size in the header.
    """
    held = os.path.getsize(data) - start
    size = whole_number(path, "CompressedDataSize", stated or "0")
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
