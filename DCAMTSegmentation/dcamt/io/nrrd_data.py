"""Read the numbers of a NRRD file in any encoding of the format, from the file itself or from data files."""

from __future__ import annotations

import bz2
import io
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import InputError
from .nrrd_header import HEADER_LIMIT, OPEN_IN_SLICER, NrrdHeader
from .stored_image import (
    COPY_AGAIN,
    DAMAGED,
    Gunzip,
    check_complete,
    damaged_field_error,
    data_file_errors,
    find_data_file,
    is_gzip,
    last_bytes,
    missing_data_file_error,
    no_numbers_error,
    numbered_names,
    open_plain_or_gzip,
    read_array,
    read_to_end,
    refuse_surplus,
    skip_bytes,
    unended_text_error,
    whole_number,
)

_TYPES = {
    name: np.dtype(code)
    for code, names in {
        "i1": "signed char,int8,int8_t",
        "u1": "uchar,unsigned char,uint8,uint8_t",
        "i2": "short,short int,signed short,signed short int,int16,int16_t",
        "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
        "i4": "int,signed int,int32,int32_t",
        "u4": "uint,unsigned int,uint32,uint32_t",
        "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
        "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(",")
}
_CHUNK = 1 << 18  # bytes
_ENCODINGS = {
    **dict.fromkeys(("raw",), "raw"),
    **dict.fromkeys(("txt", "text", "ascii"), "ascii"),
    **dict.fromkeys(("hex",), "hex"),
    **dict.fromkeys(("gz", "gzip"), "gzip"),
    **dict.fromkeys(("bz2", "bzip2"), "bzip2"),
}


class NrrdData:
    """Reads the numbers of a NRRD file, from the file itself or from data files.

    Raises:
        InputError: the type is not supported; the encoding or the byte order is unknown; "line skip" or "byte skip" is
            damaged; the header's list or pattern of data files is empty or damaged; or a data file is missing.
    """

    def __init__(self, path: Path, header: NrrdHeader, sizes: Sequence[int]) -> None:
        fields = header.fields
        kind = " ".join(fields["type"].lower().split())
        if kind not in _TYPES:
            raise InputError(f'has the unsupported type "{kind}"', path=path, remedy=OPEN_IN_SLICER)
        encoding = _ENCODINGS.get(fields["encoding"].lower())
        if encoding is None:
            raise InputError(f'has the unknown encoding "{fields["encoding"]}"', path=path, remedy=OPEN_IN_SLICER)
        self._path, self._start, self._encoding = path, header.start, encoding
        self._dtype, self._count = _TYPES[kind], math.prod(sizes)
        slices = next((size for size in reversed(sizes) if size > 1), 1)
        self._slice_size = self._count // slices * self._dtype.itemsize
        if self._dtype.itemsize > 1 and encoding != "ascii":
            endian = fields.get("endian", "").lower()
            if endian not in ("little", "big"):
                raise InputError("lacks the byte order (endian) in its header", path=path, remedy=OPEN_IN_SLICER)
            self._dtype = self._dtype.newbyteorder("<" if endian == "little" else ">")
        self._line_skip = whole_number(path, "line skip", fields.get("line skip", "0"), 0)
        binary = encoding not in ("ascii", "hex")
        self._byte_skip = whole_number(path, "byte skip", fields.get("byte skip", "0"), -1 if binary else 0)
        self._files = _data_files(path, header, sizes)

    def read(self) -> np.ndarray:
        """Return all numbers as a flat array, in the machine's byte order; the image's first axis varies fastest.

        Raises:
            InputError: a data file is incomplete, damaged or unreadable; text data is damaged; or the numbers cannot be
                divided evenly among the data files.
            EOFError: the data after the header is incomplete.
            zlib.error: gzip data after the header is damaged.
            OSError: bzip2 data after the header is damaged, or a file cannot be opened.
        """
        if not self._files:
            with open_plain_or_gzip(self._path) as file:
                skip_bytes(file, self._start)
                numbers = self._decode(file, self._count, self._path)
        else:
            per_file, rest = divmod(self._count, len(self._files))
            if rest:
                what = f"names {len(self._files)} data files, among which its voxels cannot be divided evenly"
                raise InputError(what, path=self._path, remedy=OPEN_IN_SLICER)
            parts = []
            for name in self._files:
                try:
                    with open(name, "rb") as file, data_file_errors(self._path, name):
                        parts.append(self._decode(file, per_file, name))
                except EOFError as error:
                    self.verify()  # For most raw and gzip data, `verify` raises a more detailed error.
                    what = f"ends too early: its data file {name.name} is cut"
                    raise InputError(what, path=self._path, remedy=COPY_AGAIN) from error
            numbers = np.concatenate(parts)
        return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)

    def verify(self) -> None:
        """Raise InputError if the data is too short. Some kinds of data, such as text, are checked only by `read`."""
        packed = self._encoding == "gzip"
        if self._line_skip or self._encoding not in ("raw", "gzip") or (packed and self._byte_skip):
            return
        start = (0 if self._files else self._start) + max(0, self._byte_skip)
        if not self._files and is_gzip(self._path):
            if not packed:
                check_complete(self._path, start + self._count * self._dtype.itemsize, packed=True)
            return
        files = self._files or [self._path]
        for name in files:
            check_complete(name, self._count // len(files) * self._dtype.itemsize, start, packed, self._path)

    def _decode(self, file: IO[bytes], count: int, name: Path) -> np.ndarray:
        """Return the first `count` numbers of the open file `name` after its skipped lines and bytes."""
        for _ in range(self._line_skip):
            if not file.readline(HEADER_LIMIT):
                raise EOFError
        if self._encoding in ("ascii", "hex"):
            skip_bytes(file, self._byte_skip)
            try:
                numbers = _read_text(self._path, file, self._encoding, self._dtype, count)
            except (ValueError, OverflowError) as error:
                raise no_numbers_error(self._path) from error
            read_to_end(file)
            return numbers
        stream: Any = file
        if self._encoding == "gzip":
            stream = io.BufferedReader(Gunzip(file), _CHUNK)
        elif self._encoding == "bzip2":
            stream = bz2.BZ2File(file)
        if self._byte_skip == -1:  # The data lies at the stream's end.
            stream = last_bytes(stream, count * self._dtype.itemsize)
        skip_bytes(stream, self._byte_skip)
        numbers = read_array(stream, self._dtype, count)
        may_choose_part_of_file = self._line_skip or self._byte_skip
        if not may_choose_part_of_file:
            surplus = read_to_end(stream)
            refuse_surplus(name, numbers.nbytes + surplus, numbers.nbytes, self._slice_size, self._path)
        elif stream is not file:
            read_to_end(stream)
        return numbers


def _read_text(path: Path, file: IO[bytes], encoding: str, dtype: np.dtype, count: int) -> np.ndarray:
    """Return the first `count` numbers of data in `hex` or `ascii`; `path` is the header."""
    if encoding == "hex":
        digits = bytearray()
        while len(digits) < 2 * count * dtype.itemsize:
            if not (chunk := file.read(_CHUNK)):
                raise EOFError
            digits += re.sub(rb"\s+", b"", chunk)
        return np.frombuffer(bytes.fromhex(digits[: 2 * count * dtype.itemsize].decode("ascii")), dtype)
    words = _first_words(path, file, count)
    if any(b"_" in word for word in words):  # Python would read 1_0 as 10.
        raise ValueError
    if dtype.kind == "f":
        return np.array([float(word) for word in words], dtype)
    numbers = [int(word) for word in words]
    # Before NumPy 2, `np.array` accepts numbers outside the range of `dtype`: as uint8, 300 becomes 44.
    if min(numbers) < np.iinfo(dtype).min or max(numbers) > np.iinfo(dtype).max:
        raise OverflowError
    return np.array(numbers, dtype)


def _first_words(path: Path, file: IO[bytes], count: int) -> list[bytes]:
    """Return the first `count` words of a text; whitespace and commas separate words.

    Raises:
        InputError: the last word may be cut, since nothing follows it.
        ValueError: a word is far too long for a number.
    """
    words: list[bytes] = []
    unfinished = b""
    while len(words) < count:
        chunk = file.read(_CHUNK)
        if not chunk:
            raise unended_text_error(path) if unfinished and len(words) + 1 == count else EOFError
        *whole, unfinished = re.split(rb"[\s,]+", unfinished + chunk)
        words += filter(None, whole)
        if len(unfinished) > _CHUNK:
            raise ValueError
    return words[:count]


def _data_files(path: Path, header: NrrdHeader, sizes: Sequence[int]) -> list[Path]:
    """Return the data files that a header names; an empty list if the data follows the header."""
    value = header.fields.get("data file")
    if value is None:
        return []
    words = value.split()
    if not words:
        names = []
    elif words[0].upper() == "LIST":
        names = header.files
    elif re.search(r"%[0-9]*[du]", words[0]) and len(words) >= 4:
        first, last, step = (whole_number(path, "data file", word) for word in words[1:4])
        if step == 0:
            raise damaged_field_error(path, "data file")
        numbers = range(first, last + (1 if step > 0 else -1), step)
        names = numbered_names(path, words[0], numbers, math.prod(sizes))
    else:
        names = [value]
    files = [find_data_file(path, name) for name in names]
    if not files:
        raise InputError("names no data files", path=path, remedy=DAMAGED)
    for file in files:
        if not os.path.isfile(file):
            raise missing_data_file_error(path, file)
    return files
