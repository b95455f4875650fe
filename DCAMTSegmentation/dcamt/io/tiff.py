"""Check that a TIFF file is complete, and that ITK reads its pages as one image."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO

from ..errors import InputError
from ..volume import GREY_SCALE_REMEDY

_BITS, _SAMPLES = 258, 277
"""The TIFF tags of the bits of each sample, and of the number of samples."""
_PHOTOMETRIC, _GREY, _PALETTE = 262, (0, 1), 3
"""The TIFF tag PhotometricInterpretation, and its values for grey pages and for pages with a palette."""
_ORIENTATION, _READ_ORIENTATIONS = 274, (1, 4)
"""The TIFF tag Orientation, and its values that ITK reads."""
_LAYOUT = {256: 0, 257: 0, 258: 1, 277: 1, 339: 1}
"""Defaults of the TIFF tags for a page's width, height, bits, samples and kind of numbers."""
_PAGE_KIND, _REDUCED_COPY, _TRANSPARENCY_MASK = 254, 1, 4
"""The TIFF tag of a page's kind, and two flags of this tag."""
_COMPRESSION, _DEFLATE = 259, (8, 32946)
"""The TIFF tag of a page's compression, and its values for data compressed with zlib."""
_CHUNK = 1 << 18  # bytes
_STRIPS, _TILES = (273, 279), (324, 325)
"""Pairs of TIFF tags: the tag of the offsets, and the tag of the sizes."""


def check_tiff(path: Path) -> None:
    """Raise EOFError if a page, strip or tile of a TIFF file reaches beyond the file's end, or a page is damaged.

    Raises:
        zlib.error: deflated data is damaged.
        InputError: the content is not TIFF, `_check_storage` refuses a page, or the pages differ in size or type. ITK
            would read all pages with the size and type of the first page. A reduced copy or transparency mask before an
            image page is refused, too, since ITK would crash.
    """
    length = os.path.getsize(path)
    layouts: list[tuple[tuple[int, ...], ...] | None] = []
    with open(path, "rb") as file:
        for values in _pages(file, path):
            if not _is_skipped(values):
                _check_storage(values, path)
            for offsets, sizes in (_STRIPS, _TILES):
                pairs = list(zip(values.get(offsets, ()), values.get(sizes, ()), strict=False))
                if any(offset + size > length for offset, size in pairs):
                    raise EOFError
                if values.get(_COMPRESSION, (1,))[0] in _DEFLATE:
                    for offset, size in pairs:
                        file.seek(offset)
                        _check_deflated(file.read(size))  # ITK would return the beginning of damaged data.
            layout = tuple(values.get(tag, (usual,)) for tag, usual in _LAYOUT.items())
            layouts.append(None if _is_skipped(values) else layout)
    # Pages that ITK skips are allowed only after the last image page.
    while len(layouts) > 1 and layouts[-1] is None:
        layouts.pop()
    if len(set(layouts)) > 1:
        what = "holds pages that differ in their size or in the type of their numbers"
        remedy = "Save the slices as a TIFF stack whose pages all have the same size and type."
        raise InputError(what, path=path, remedy=remedy)


def _check_deflated(data: bytes) -> None:
    inflate = zlib.decompressobj()
    while not inflate.eof:
        if not inflate.decompress(data, _CHUNK) and not inflate.eof:
            raise EOFError
        data = inflate.unconsumed_tail


def _check_storage(values: Mapping[int, tuple[int, ...]], path: Path) -> None:
    """Raise EOFError or InputError for a page that ITK would misread."""
    if 0 in (values.get(_STRIPS[0]) or values.get(_TILES[0]) or (0,)):
        raise EOFError  # ITK would return other bytes of the file as voxels.
    if _PHOTOMETRIC not in values:
        what = "lacks the TIFF tag PhotometricInterpretation"
        remedy = "Save the slices as a grey-scale TIFF stack."
    elif values[_PHOTOMETRIC][0] == _PALETTE:
        what, remedy = "stores its voxels as colours of a palette", "Save the slices as a grey-scale TIFF stack."
    elif values[_PHOTOMETRIC][0] not in _GREY:
        what, remedy = "is a colour (RGB) image", GREY_SCALE_REMEDY
    elif (samples := values.get(_SAMPLES, (1,))[0]) != 1:
        what = f"has {samples} samples per pixel"
        remedy = "Save the slices as a grey-scale TIFF stack without transparency."
    elif (orientation := values.get(_ORIENTATION, (1,))[0]) not in _READ_ORIENTATIONS:
        what = f"has the TIFF orientation {orientation}, which is not supported"
        remedy = "Save the slices as a TIFF stack with the orientation 1."
    elif _TILES[0] in values or values.get(_BITS, (1,))[0] not in (8, 16, 32):
        # ITK would read a grey page as a colour image if it has tiles, or a number of bits other than 8, 16 or 32.
        what = "stores its voxels in tiles, or its voxels do not have 8, 16 or 32 bits"
        remedy = "Save the slices as a TIFF stack without tiles, with 8, 16 or 32 bits."
    else:
        return
    raise InputError(what, path=path, remedy=remedy)


def has_pages(path: Path, count: int) -> bool:
    """Return whether a TIFF file has at least `count` pages that ITK reads.

    Raises:
        InputError: the content is not TIFF.
        EOFError: the file is damaged.
    """
    with open(path, "rb") as file:
        pages = (values for values in _pages(file, path) if not _is_skipped(values))
        return len(list(islice(pages, count))) == count


def _is_skipped(values: Mapping[int, tuple[int, ...]]) -> bool:
    """Return whether ITK skips a page."""
    return bool(values.get(_PAGE_KIND, (0,))[0] & (_REDUCED_COPY | _TRANSPARENCY_MASK))


def _pages(file: IO[bytes], path: Path) -> Iterator[dict[int, tuple[int, ...]]]:
    """Yield, for each page, the values of the tags that this module uses, by tag."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        what = "cannot be read as a TIFF image: its content is not TIFF"
        raise InputError(what, path=path, remedy="Rename or convert the file.")
    big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    word, entry, count_format = ("Q", 20, "Q") if big else ("I", 12, "H")
    if big and len(head) < 16:
        raise EOFError
    (page,) = struct.unpack(f"{order}{word}", head[8:16] if big else head[4:8])
    seen: set[int] = set()
    while page:
        if page in seen:  # The pages form a loop.
            raise EOFError
        seen.add(page)
        (number,) = struct.unpack(f"{order}{count_format}", _read_exactly(file, page, struct.calcsize(count_format)))
        if number == 0:  # ITK would return only the pages before this page.
            raise EOFError
        entries = _read_exactly(file, file.tell(), number * entry)
        (page,) = struct.unpack(f"{order}{word}", _read_exactly(file, file.tell(), struct.calcsize(word)))
        values = {}
        for start in range(0, len(entries), entry):
            tag, kind = struct.unpack(f"{order}2H", entries[start : start + 4])
            if tag in (*_STRIPS, *_TILES, *_LAYOUT, _PAGE_KIND, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION):
                values[tag] = _values(file, order, word, kind, entries[start + 4 : start + entry])
        yield {tag: numbers for tag, numbers in values.items() if numbers}  # ITK ignores tags without values.


def _values(file: IO[bytes], order: str, word: str, kind: int, entry: bytes) -> tuple[int, ...]:
    """Return the numbers of a TIFF directory entry, which are stored in the entry or at an offset in the file."""
    size = struct.calcsize(word)
    (count,) = struct.unpack(f"{order}{word}", entry[:size])
    code = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind, "I")
    total = count * struct.calcsize(code)
    if total <= size:
        return struct.unpack(f"{order}{count}{code}", entry[size : size + total])
    (place,) = struct.unpack(f"{order}{word}", entry[size : 2 * size])
    return struct.unpack(f"{order}{count}{code}", _read_exactly(file, place, total))


def _read_exactly(file: IO[bytes], start: int, size: int) -> bytes:
    # A damaged file may state a start that is too large for `seek`, or a size that is too large for the memory.
    if start + size > os.fstat(file.fileno()).st_size:
        raise EOFError
    file.seek(start)
    return file.read(size)
