"""Read NRRD files and Slicer's segmentations (`.nrrd`, `.nhdr`, `.seg.nrrd`) with the same geometry as ITK.

The format is defined at https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from ..volume import GREY_SCALE_REMEDY, check_size
from .stored_image import (
    COPY_AGAIN,
    DAMAGED,
    Bunzip2,
    Gunzip,
    StoredImage,
    StoredSegment,
    check_complete,
    data_file_errors,
    is_gzip,
    library_errors,
    missing_data_file,
    open_plain_or_gzip,
    read_array,
    read_to_end,
)

MAGIC = b"NRRD000"
# Signs that convert a space's axes to RAS. Other spaces, such as "scanner-xyz", have no known relation to the patient.
_TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "ras": (1, 1, 1),
    "las": (-1, 1, 1),
    "lps": (-1, -1, 1),
}
_SPATIAL_KINDS = ("domain", "space")
_COLOR_KINDS = ("rgb-color", "rgba-color", "hsv-color", "xyz-color", "3-color", "4-color")
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
_ENCODINGS = {
    **dict.fromkeys(("raw",), "raw"),
    **dict.fromkeys(("txt", "text", "ascii"), "ascii"),
    **dict.fromkeys(("hex",), "hex"),
    **dict.fromkeys(("gz", "gzip"), "gzip"),
    **dict.fromkeys(("bz2", "bzip2"), "bzip2"),
}
_ALIASES = {
    "datafile": "data file",
    "lineskip": "line skip",
    "byteskip": "byte skip",
    "axismins": "axis mins",
    "axis mins": "axis mins",
}
_HEADER_LIMIT = 1 << 24  # bytes; larger than any real header
_HEADER_BUFFER = 1 << 12
_REMEDY = "Open the file in 3D Slicer and save it again."


@dataclass
class _Header:
    """A NRRD header: fields by their names in lower case, key/value pairs, data files, and the data's first byte."""

    fields: dict[str, str] = field(default_factory=dict)
    pairs: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)  # names in a list of data files
    start: int = 0


def open_nrrd(path: Path) -> StoredImage:
    """Open a NRRD file whose data follows the header or lies in one or several other files.

    Axes without a direction (kind "list", "vector", ...) become channels. If the header has only spacings, the axes are
    those of LPS with the origin at 0, as in ITK. Bytes after the data are ignored.

    Raises:
        InputError: the file is damaged, a data file is missing, the image has colours or fewer than three spatial axes,
            or its space or spacing is unknown.
    """
    with library_errors(path, "a NRRD image"):
        header = _read_header(path)
        sizes = _sizes(path, header)
        kinds = header.fields.get("kinds", "").lower().split()
        if any(kind in _COLOR_KINDS for kind in kinds):
            raise InputError("is a colour (RGB) image", path=path, remedy=GREY_SCALE_REMEDY)
        if "complex" in kinds:
            raise InputError("holds complex numbers", path=path, remedy="Export the magnitude image.")
        directions, spatial = _directions(path, header, len(sizes), kinds)
        affine = np.eye(4)
        affine[:3, :3] = directions.T  # A row is the step along one axis, which is a column of the affine.
        affine[:3, 3] = _origin(path, header)
        affine = np.diag([*_space_signs(path, header), 1.0]) @ affine
        data = _Data(path, header, sizes)
    others = [axis for axis in range(len(sizes)) if axis not in spatial]
    channels = math.prod(sizes[axis] for axis in others)
    i, j, k = (sizes[axis] for axis in spatial)

    def load() -> np.ndarray:
        with library_errors(path, "a NRRD image"):
            voxels = data.read().reshape(sizes, order="F").transpose(*others, *spatial)
            return np.ascontiguousarray(voxels.reshape(channels, i, j, k))

    return StoredImage(
        channels=channels,
        grid=Grid((i, j, k), affine),
        load=load,
        verify=data.verify,
        segments=_stored_segments(path, header.pairs, channels),
    )


def _read_header(path: Path) -> _Header:
    header = _Header()
    with open_plain_or_gzip(path, _HEADER_BUFFER) as file:
        limited = file.readline(_HEADER_LIMIT)
        if not limited.startswith(MAGIC):
            what = "cannot be read as a NRRD image: its content is not NRRD"
            raise InputError(what, path=path, remedy="Rename or convert the file.")
        used = len(limited)
        while line := file.readline(_HEADER_LIMIT - used):
            used += len(line)
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            if not text.strip():
                break
            if text.startswith("#"):
                continue
            if ":=" in text and (": " not in text or text.index(":=") < text.index(": ")):
                key, value = text.split(":=", 1)
                header.pairs[key.strip()] = value.replace("\\n", "\n").replace("\\\\", "\\")
                continue
            name, colon, value = text.partition(":")
            if not colon:
                raise InputError(f"has a damaged header line ({text[:40]!r})", path=path, remedy=DAMAGED)
            name = " ".join(name.lower().split())
            header.fields[_ALIASES.get(name, name)] = value.strip()
            if _ALIASES.get(name, name) == "data file" and value.strip().upper().startswith("LIST"):
                header.files = [
                    text for item in file.read(_HEADER_LIMIT).splitlines() if (text := item.decode("utf-8").strip())
                ]
                break
        header.start = used
    return header


def _sizes(path: Path, header: _Header) -> list[int]:
    for name in ("type", "dimension", "sizes", "encoding"):
        if name not in header.fields:
            raise InputError(f"lacks the field '{name}' in its header", path=path, remedy=DAMAGED)
    sizes = [int(size) for size in header.fields["sizes"].split()]
    if len(sizes) != int(header.fields["dimension"]):
        raise InputError("has a different number of sizes and dimensions", path=path, remedy=DAMAGED)
    check_size(sizes, path)
    return sizes


class _Data:
    """Reads the voxels of a NRRD file, from the file itself or from data files, in any encoding."""

    def __init__(self, path: Path, header: _Header, sizes: Sequence[int]) -> None:
        fields = header.fields
        kind = " ".join(fields["type"].lower().split())
        if kind not in _TYPES:
            raise InputError(f'holds numbers of the type "{kind}"', path=path, remedy=_REMEDY)
        encoding = _ENCODINGS.get(fields["encoding"].lower())
        if encoding is None:
            raise InputError(f'has the unknown encoding "{fields["encoding"]}"', path=path, remedy=_REMEDY)
        self._path, self._start, self._encoding = path, header.start, encoding
        self._dtype, self._count = _TYPES[kind], math.prod(sizes)
        if self._dtype.itemsize > 1 and encoding not in ("ascii",):
            endian = fields.get("endian", "").lower()
            if endian not in ("little", "big"):
                raise InputError("lacks the byte order (endian) in its header", path=path, remedy=_REMEDY)
            self._dtype = self._dtype.newbyteorder("<" if endian == "little" else ">")
        self._line_skip = int(fields.get("line skip", 0))
        self._byte_skip = int(fields.get("byte skip", 0))
        self._files = _data_files(path, header, sizes)

    def read(self) -> np.ndarray:
        """Return all numbers in the machine's byte order; the first axis varies fastest."""
        if not self._files:
            with open_plain_or_gzip(self._path) as file:
                _skip(file, self._start)
                numbers = self._decode(file, self._count)
        else:
            per_file, rest = divmod(self._count, len(self._files))
            if rest:
                what = f"names {len(self._files)} data files, among which its voxels cannot be divided evenly"
                raise InputError(what, path=self._path, remedy=_REMEDY)
            parts = []
            for name in self._files:
                try:
                    with open(name, "rb") as file, data_file_errors(self._path, name):
                        parts.append(self._decode(file, per_file))
                except EOFError as error:
                    self.verify()  # its message has the numbers of bytes
                    what = f"ends too early: its data file {name.name} is cut"
                    raise InputError(what, path=self._path, remedy=COPY_AGAIN) from error
            numbers = np.concatenate(parts)
        return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)

    def verify(self) -> None:
        """Raise InputError if raw or gzip data is visibly incomplete."""
        files = self._files or [self._path]
        size = self._count // len(files) * self._dtype.itemsize
        if self._line_skip or self._encoding not in ("raw", "gzip"):
            return
        for name in files:
            start = 0 if self._files else self._start
            if not self._files and is_gzip(self._path):
                check_complete(name, size + start, 0, True) if self._encoding == "raw" else None
            elif self._encoding == "raw":
                check_complete(name, size, start + max(0, self._byte_skip), False, self._path)
            elif not self._byte_skip:
                check_complete(name, size, start, True, self._path)

    def _decode(self, file: IO[bytes], count: int) -> np.ndarray:
        """Return the next `count` numbers of a data file."""
        for _ in range(self._line_skip):
            if not file.readline(_HEADER_LIMIT):
                raise EOFError
        if self._encoding == "raw" and self._byte_skip == -1:
            file.seek(-count * self._dtype.itemsize, os.SEEK_END)
        if self._encoding in ("ascii", "hex"):
            _skip(file, max(0, self._byte_skip))
            return _decode_text(file.read(), self._encoding, self._dtype, count)
        packed = {"gzip": Gunzip, "bzip2": Bunzip2}.get(self._encoding)
        stream: IO[bytes] = io.BufferedReader(packed(file), 1 << 18) if packed else file  # type: ignore[arg-type, assignment]
        if self._byte_skip > 0:
            _skip(stream, self._byte_skip)
        numbers = read_array(stream, self._dtype, count)
        if packed:
            read_to_end(stream)
        return numbers


def _decode_text(data: bytes, encoding: str, dtype: np.dtype, count: int) -> np.ndarray:
    """Return `count` numbers of the text encodings; raises EOFError if there are fewer."""
    if encoding == "hex":
        digits = re.sub(rb"\s+", b"", data)[: 2 * count * dtype.itemsize]
        if len(digits) < 2 * count * dtype.itemsize:
            raise EOFError
        return np.frombuffer(bytes.fromhex(digits.decode("ascii")), dtype)
    words = data.replace(b",", b" ").split()[:count]
    if len(words) < count:
        raise EOFError
    if dtype.kind == "f":
        return np.array([float(word) for word in words], dtype)
    return np.array([int(word) for word in words], dtype)


def _data_files(path: Path, header: _Header, sizes: Sequence[int]) -> list[Path]:
    """Return the data files that a header names; an empty list if the data follows the header."""
    value = header.fields.get("data file")
    if value is None:
        return []
    words = value.split()
    if words[0].upper() == "LIST":
        names = header.files
    elif re.search(r"%[0-9]*[du]", words[0]) and len(words) >= 4:
        first, last, step = (int(word) for word in words[1:4])
        if step == 0:
            raise InputError("has a damaged pattern of data files", path=path, remedy=DAMAGED)
        numbers = range(first, last + (1 if step > 0 else -1), step)
        if len(numbers) > math.prod(sizes):
            raise InputError("has a damaged pattern of data files", path=path, remedy=DAMAGED)
        names = [words[0].replace("%u", "%d") % number for number in numbers]
    else:
        names = [value]
    files = [path.parent / name for name in names]
    files = [
        file if file.is_file() else path.parent / name.replace("\\", "/")
        for file, name in zip(files, names, strict=True)
    ]
    if not files:
        raise InputError("names no data files", path=path, remedy=DAMAGED)
    for file in files:
        if not file.is_file():
            raise missing_data_file(path, file)
    return files


def _skip(file: IO[bytes], size: int) -> None:
    while size:
        passed = len(file.read(min(size, 1 << 20)))
        if not passed:
            raise EOFError
        size -= passed


def _vectors(text: str) -> list[np.ndarray | None]:
    """Parse vectors such as "(1,0,0) none (0, 0, 1)"; "none" gives None."""
    rows: list[np.ndarray | None] = []
    for word in re.findall(r"\([^)]*\)|[^\s()]+", text):
        if word.startswith("("):
            rows.append(np.array([float(number) for number in word[1:-1].split(",")]))
        elif word.lower() in ("none", "???", "nan"):
            rows.append(None)
        else:
            raise ValueError(f"{word} is not a vector")
    return rows


def _directions(path: Path, header: _Header, axes: int, kinds: list[str]) -> tuple[np.ndarray, list[int]]:
    """Return the steps along the three spatial axes in the file's space, (3, 3), and the indices of these axes."""
    text = header.fields.get("space directions")
    if text is not None:
        rows = [np.full(3, np.nan) if row is None else row for row in _vectors(text)]
        if len(rows) != axes:
            raise InputError("has a different number of space directions and axes", path=path, remedy=DAMAGED)
        # An axis without direction ("none") is not spatial; `check_grid` refuses an axis with some NaN.
        spatial = [axis for axis, row in enumerate(rows) if not np.isnan(row).all()]
        _require_three_axes(path, spatial, axes)
        if any(rows[axis].shape != (3,) for axis in spatial):
            raise InputError("has directions that are not three-dimensional", path=path, remedy=_REMEDY)
        return np.stack([rows[axis] for axis in spatial]), spatial
    spatial = [axis for axis, kind in enumerate(kinds) if kind in _SPATIAL_KINDS] or list(range(axes))
    _require_three_axes(path, spatial, axes)
    words = header.fields.get("spacings", "").split()
    spacings = np.array([float(word) for word in words] if len(words) == axes else [np.nan] * axes)[spatial]
    if np.isnan(spacings).any():
        raise InputError("lacks the spacing of its voxels (no space directions)", path=path, remedy=_REMEDY)
    return np.diag(spacings), spatial


def _require_three_axes(path: Path, spatial: list[int], axes: int) -> None:
    if axes < 3 or len(spatial) < 3:
        what = f"is a {axes}D image" if axes < 3 else f"has {len(spatial)} spatial axes of {axes}"
        raise InputError(what, path=path, remedy="A three-dimensional scan is needed.")
    if len(spatial) > 3:
        raise InputError(f"is a {axes}D image", path=path, remedy="Extract one three-dimensional volume.")


def _origin(path: Path, header: _Header) -> np.ndarray:
    """Return the centre of the first voxel in the file's space, (3,); 0 if the header has none."""
    text = header.fields.get("space origin")
    if text is None:
        return np.zeros(3)
    (row,) = _vectors(text)
    if row is None or row.shape != (3,):
        raise InputError("has a damaged space origin", path=path, remedy=DAMAGED)
    return row


def _space_signs(path: Path, header: _Header) -> tuple[int, int, int]:
    space = header.fields.get("space")
    if space is None and "space directions" not in header.fields:
        return _TO_RAS["lps"]
    signs = _TO_RAS.get(str(space).lower())
    if signs is None:
        what = "names no space" if space is None else f'lies in the space "{space}"'
        raise InputError(f"{what}, so left and right are unknown", path=path, remedy=_REMEDY)
    return signs


def _stored_segments(path: Path, pairs: dict[str, str], layers: int) -> tuple[StoredSegment, ...]:
    """Return the segments in the file's order. Their labels are their values, or 1, 2, ... if these are not unique.

    Files from before Slicer 4.11 have no label values or layers: segment n consists of the voxels of 1 in layer n.
    """
    numbers = {int(match[1]) for key in pairs if (match := re.match(r"Segment(\d+)_", key))}
    places: list[tuple[int, int, int]] = []
    for number in sorted(numbers):
        try:
            value = int(pairs.get(f"Segment{number}_LabelValue", 1))
            layer = int(pairs.get(f"Segment{number}_Layer", number if layers > 1 else 0))
        except ValueError as error:
            raise InputError(f"has a damaged segment {number}", path=path, remedy=_REMEDY) from error
        if not 0 <= layer < layers:
            raise InputError(f"names layer {layer} of {layers} in a segment", path=path, remedy=_REMEDY)
        places.append((number, layer, value))
    values = [value for _, _, value in places]
    unique = len(set(values)) == len(values) and min(values, default=1) > 0
    return tuple(
        StoredSegment(
            layer,
            value,
            value if unique else place,
            pairs.get(f"Segment{number}_Name", "").strip() or None,
            _color(pairs.get(f"Segment{number}_Color", "")),
        )
        for place, (number, layer, value) in enumerate(places, start=1)
    )


def _color(text: str) -> tuple[float, float, float] | None:
    try:
        red, green, blue = (float(part) for part in text.split())
    except ValueError:
        return None
    color = (red, green, blue)
    return color if all(0 <= part <= 1 for part in color) else None
