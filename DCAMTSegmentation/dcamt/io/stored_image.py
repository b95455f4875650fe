"""Represent an image file whose header was read; read compressed streams; convert errors of libraries."""

from __future__ import annotations

import io
import os
import re
import sys
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO

import numpy as np

from ..errors import DCAMTError, InputError, MemoryShortage, package_error
from ..geometry import Grid
from .file_names import accent_forms

COPY_AGAIN = "The copy is incomplete; copy it again."
DAMAGED = "The file may be damaged; copy it again."
_MILLIMETRES = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "?", "???", "none", "unknown")
"""Units that count as millimetres."""
_CHUNK = 1 << 18
_PADDING_LIMIT = 1 << 16  # bytes
_GZIP_MAGIC = b"\x1f\x8b"
_UTF8_NAME = 0x800
"""Flag of a zip entry with a UTF-8 name (APPNOTE.TXT of PKWARE, 4.4.4)."""


@dataclass(frozen=True)
class StoredSegment:
    """A segment of a segmentation file: the voxels with `value` in `layer`, which get `label` in a labelmap.

    Attributes:
        color: red, green and blue, each 0 to 1; None if the file has no valid colour.
    """

    layer: int
    value: int
    label: int
    name: str | None = None
    color: tuple[float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class StoredImage:
    """An image file whose header was read: the number of channels C and the grid of its voxels (C, I, J, K).

    Attributes:
        load: reads the voxels (C, I, J, K); raises InputError if the file is damaged.
        verify: raises InputError if the file has fewer bytes than its header states; reads the voxels only if
            necessary. The default does nothing: the file was checked when it was opened, or is checked by `load`.
        segments: the segments of a segmentation, whose layers are the channels.
        notes: messages for the user on how the file was interpreted.
        frames, modality: see `Volume`.
        finest_step_mm: see `Labelmap`.
    """

    channels: int
    grid: Grid
    load: Callable[[], np.ndarray]
    verify: Callable[[], None] = lambda: None
    segments: tuple[StoredSegment, ...] = ()
    notes: tuple[str, ...] = ()
    frames: tuple[tuple[Path, int], ...] = ()
    modality: str = ""
    finest_step_mm: float = 0.0


@contextmanager
def library_errors(path: Path, kind: str) -> Iterator[None]:
    """Raise any exception inside the block as InputError that names `path`; DCAMT's own errors are raised unchanged.

    The error of a Python package that cannot be imported is also raised unchanged.
    A lack of memory becomes MemoryShortage, which is an InputError.
    """
    try:
        yield
    except DCAMTError:
        raise
    except MemoryError as error:
        raise MemoryShortage(
            "cannot be read, since there is not enough memory",
            path=path,
            remedy="Close other programs, or crop the image.",
        ) from error
    except PermissionError as error:
        raise InputError("cannot be read (no permission)", path=path, remedy="Change its permissions.") from error
    except EOFError as error:
        raise InputError("ends too early", path=path, remedy=COPY_AGAIN) from error
    except zlib.error as error:
        raise InputError(
            f"holds damaged compressed data ({error})", path=path, remedy="Copy the file again."
        ) from error
    except Exception as error:
        if package_error(error) is not None:
            raise
        why = _shorten(str(error), path) or type(error).__name__
        raise InputError(
            f"cannot be read as {kind} ({why})",
            path=path,
            remedy="Check that the file is complete and its name has the right ending.",
        ) from error


class Gunzip(io.RawIOBase):
    """A stream that decompresses gzip or zlib data while it is read; bytes after the compressed data are ignored.

    Reading raises EOFError if the compressed data ends too early, and zlib.error if it is damaged. Some damage is found
    only at the end, by the checksum.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self._pending = source, b""
        self._inflate = zlib.decompressobj(wbits=47)  # detects gzip or zlib from the header

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = b""
        while len(buffer) and not data:
            if self._inflate.eof and not self._open_next_member():
                break
            compressed = self._pending or self._source.read(_CHUNK)
            if not compressed:
                raise EOFError
            data = self._inflate.decompress(compressed, len(buffer))
            self._pending = self._inflate.unconsumed_tail or self._inflate.unused_data
        buffer[: len(data)] = data
        return len(data)

    def _open_next_member(self) -> bool:
        self._pending += self._source.read(2 - len(self._pending)) if len(self._pending) < 2 else b""
        if not self._pending.startswith(_GZIP_MAGIC):
            return False
        self._inflate = zlib.decompressobj(wbits=47)
        return True


@contextmanager
def open_plain_or_gzip(path: Path, buffer: int = _CHUNK) -> Iterator[IO[bytes]]:
    """Open a file for reading. A gzip file is decompressed while it is read, through a buffer of `buffer` bytes."""
    with open(path, "rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        yield io.BufferedReader(Gunzip(file), buffer) if packed else file  # type: ignore[type-var]


def is_gzip(path: Path) -> bool:
    """Return whether a file's first bytes are those of gzip."""
    with open(path, "rb") as file:
        return file.read(2) == _GZIP_MAGIC


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file for reading; names without the UTF-8 flag are read as UTF-8 if possible, else as code page 437.

    In any locale, extracted files get UTF-8 names.
    """
    archive = zipfile.ZipFile(path)
    for item in archive.infolist():
        name = item.filename
        if not item.flag_bits & _UTF8_NAME:
            with suppress(UnicodeError):
                name = name.encode("cp437").decode("utf-8")
        item.filename = os.fsdecode(name.encode("utf-8"))
    return archive


def read_head(path: Path, size: int = 1024) -> bytes:
    """Return the first `size` bytes of a file, decompressed if the file is gzip; all bytes of a shorter file.

    If reading or decompressing these bytes fails, b"" is returned.
    """
    try:
        with open_plain_or_gzip(path, size) as file:
            return file.read(size)
    except (OSError, EOFError, zlib.error):
        return b""


def read_array(file: IO[bytes], dtype: np.dtype, count: int) -> np.ndarray:
    """Return `count` numbers from a stream. Raises EOFError if the stream ends earlier."""
    values = np.empty(count, dtype)
    view = memoryview(values.view(np.uint8)) if count else memoryview(b"")
    done = 0
    while done < len(view):
        size = file.readinto(view[done : done + (1 << 24)])  # type: ignore[attr-defined]
        if not size:
            raise EOFError
        done += size
    return values


def skip_bytes(file: IO[bytes], size: int) -> None:
    """Read and drop `size` bytes. Raises EOFError if there are fewer."""
    while size > 0:
        passed = len(file.read(min(size, 1 << 20)))
        if not passed:
            raise EOFError
        size -= passed


def read_to_end(file: IO[bytes]) -> int:
    """Drop the rest of a stream and return its number of bytes.

    The end of a compressed stream has a checksum, which is verified.
    """
    size = 0
    while chunk := file.read(_CHUNK):
        size += len(chunk)
    return size


def last_bytes(stream: IO[bytes], size: int) -> io.BytesIO:
    """Return the last `size` bytes of a stream, or all bytes of a shorter stream.

    The stream need not fit into memory.
    """
    chunks: deque[bytes] = deque()
    held = 0
    while chunk := stream.read(_CHUNK):
        chunks.append(chunk)
        held += len(chunk)
        while held - len(chunks[0]) >= size:
            held -= len(chunks.popleft())
    last = io.BytesIO(b"".join(chunks))
    last.seek(max(0, held - size))
    return last


def refuse_surplus(path: Path, held: int, stated: int, slice_size: int, header: Path | None = None) -> None:
    """Raise InputError if a file has at least one slice more than its header states.

    Fewer bytes may be padding, and so may zeros of less than `_PADDING_LIMIT` bytes.

    Args:
        held: bytes of voxels in the file.
        stated: bytes of voxels that the header states.
        slice_size: bytes of a slice.
        header: as in `check_complete`.
    """
    surplus = held - stated
    if surplus < slice_size:
        return
    if surplus < _PADDING_LIMIT:
        with open_plain_or_gzip(path) as file:
            if not any(last_bytes(file, surplus).read()):
                return
    what = f"states {stated} bytes of voxels in its header, but holds {held}"
    if header not in (None, path):
        what = f"states {stated} bytes of voxels in its header, but its data file {path.name} holds {held}"
    remedy = "Correct the number of slices or the type of the voxels in its header, or export the image again."
    raise InputError(what, path=header or path, remedy=remedy)


def check_complete(path: Path, size: int, start: int = 0, packed: bool = False, header: Path | None = None) -> None:
    """Raise InputError if a file has fewer than `size` bytes from byte `start` on.

    Args:
        packed: the bytes from `start` on are gzip data with `size` bytes after decompression. The last four bytes of
            gzip data state this size modulo 2^32 (RFC 1952). If these bytes state another size, the file may be cut or
            have several members; then the file is read to its end.
        header: the file that names `path` as its data file; messages name the header.
    """
    if not packed:
        if (held := max(0, os.path.getsize(path) - start)) < size:
            raise cut_file_error(path, held, size, header)
        return
    with (
        library_errors(header or path, "a gzip file"),
        data_file_errors(header or path, path),
        open(path, "rb") as file,
    ):
        length = os.path.getsize(path)
        file.seek(max(0, length - 4))
        if length >= 4 and int.from_bytes(file.read(4), "little") == size % 2**32:
            return
        file.seek(start)
        check_unpacked_size(file, size, path, header)


def check_unpacked_size(file: IO[bytes], size: int, path: Path, header: Path | None = None) -> int:
    """Return the number of bytes of a gzip or zlib stream after decompression.

    InputError is raised if the stream is cut, or has fewer than `size` bytes after decompression.

    Args:
        file: is read to its end.
        header: as in `check_complete`.
    """
    stream, chunk, held = Gunzip(file), bytearray(_CHUNK), 0
    try:
        while read := stream.readinto(chunk):
            held += read
    except EOFError as error:
        raise cut_file_error(path, held, size, header) from error
    if held < size:
        raise cut_file_error(path, held, size, header)
    return held


def compressed_size(file: IO[bytes]) -> int:
    """Return the compressed size, in bytes, of the zlib stream or gzip member that starts at a file's position."""
    inflate, used = zlib.decompressobj(wbits=47), 0
    while not inflate.eof and (chunk := file.read(_CHUNK)):
        inflate.decompress(chunk)
        used += len(chunk)
    return used - len(inflate.unused_data)


def cut_file_error(path: Path, held: int, size: int, header: Path | None = None) -> InputError:
    """Return the error for a file with only `held` of `size` bytes, or without the end of its compressed stream.

    Args:
        header: as in `check_complete`.
    """
    lacks = f"holds {held} of {size} bytes" if held < size else "lacks its checksum"
    which = f": its data file {path.name} {lacks}" if header not in (None, path) else ""
    return InputError(f"ends too early{which}", path=header or path, remedy=COPY_AGAIN)


def impossible_spacing_error(path: Path, spacing: Sequence[float] | np.ndarray) -> InputError:
    """Return the error for a spacing that is zero, infinite or not a number."""
    return InputError(
        f"has an impossible voxel spacing ({' x '.join(f'{s:g}' for s in spacing)})",
        path=path,
        remedy="Repair the image's geometry, for instance by exporting it again from DICOM.",
    )


def no_numbers_error(path: Path) -> InputError:
    """Return the error for an image whose voxels are stored as text that is damaged."""
    what = "stores its voxels as text, but some voxels are not numbers of the type that its header states"
    return InputError(what, path=path, remedy="Copy the file again, or export the image again.")


def unended_text_error(path: Path) -> InputError:
    """Return the error for text voxels without whitespace after the last voxel, which may therefore be cut."""
    what = "lacks a line break after the last voxel"
    return InputError(what, path=path, remedy="Copy the file again, or add a line break at the file's end.")


def whole_number(path: Path, name: str, text: str, lowest: int | None = None) -> int:
    """Return the whole number that a field states; raise InputError if there is none, or if it is below `lowest`."""
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,1000}\s*", text) or (lowest is not None and int(text) < lowest):
        raise damaged_field_error(path, name)
    return int(text)


def decode_file_name(name: bytes) -> str:
    """Return a file name that a header states."""
    return name.decode(sys.getfilesystemencoding(), "surrogateescape").strip()


def find_data_file(path: Path, name: str) -> Path:
    """Return the data file that the header `path` names.

    The file's path may differ from `name` in slashes and in the encoding of accents.
    """
    slashes = name.replace("\\", "/")  # A header written on Windows may separate folders by backslashes.
    files = [path.parent / form for form in (*accent_forms(name), *accent_forms(slashes))]
    return next(filter(os.path.isfile, files), files[0])


def numbered_names(path: Path, pattern: str, numbers: range, most: int) -> list[str]:
    """Return the names of data files that a pattern such as `d%03d.raw` gives, one for each number.

    Raises:
        InputError: the pattern is damaged, or there are more than `most` numbers.
    """
    with suppress(TypeError, ValueError):
        if not numbers[most:]:
            return [pattern % number for number in numbers]
    raise InputError("has a damaged pattern for the names of its data files", path=path, remedy=DAMAGED)


def damaged_field_error(path: Path, name: str) -> InputError:
    """Return the error for a header field whose numbers are missing or invalid."""
    return InputError(f"has a damaged field '{name}' in its header", path=path, remedy=DAMAGED)


def refuse_other_unit(path: Path, unit: str) -> None:
    """Raise InputError if `unit`, which a header states for lengths, is not one of `_MILLIMETRES`."""
    if unit.strip().lower() not in _MILLIMETRES:
        remedy = "Convert the spacing and the origin to millimetres."
        raise InputError(f'has the unit "{unit}" in its header, not millimetres', path=path, remedy=remedy)


def missing_data_file_error(path: Path, data: Path) -> InputError:
    """Return the error for a missing data file `data`, which the header `path` names."""
    name = PureWindowsPath(data).name  # A header written on Windows may separate folders by backslashes.
    if data != path.parent / name and name and os.path.isfile(path.parent / name):
        stated = str(data).removeprefix(f"{path.parent}{os.sep}")
        remedy = f"If the {name} beside the header is the data file, replace the path in the header by {name}."
        return InputError(f"needs its data file {stated}, which is missing", path=path, remedy=remedy)
    siblings = sorted(data.parent.iterdir()) if os.path.isdir(data.parent) else []
    candidates = [file for file in siblings if file.name.casefold() == data.name.casefold()]
    candidates += [path.with_suffix(data.suffix), path.with_name(f"{path.stem}{''.join(data.suffixes[-2:])}")]
    similar = next((file for file in candidates if os.path.isfile(file) and file != path), None)
    remedy = "Copy both files."
    if similar and data.name.isprintable():
        remedy = f"If {similar.name} is the data file, rename it to {data.name}."
    elif similar:
        remedy = f"If {similar.name} is the data file, write {similar.name} into the header, in UTF-8."
    return InputError(f"needs its data file {data.name}, which is missing", path=path, remedy=remedy)


@contextmanager
def data_file_errors(path: Path, data: Path) -> Iterator[None]:
    """Convert zlib.error and OSError inside the block to an InputError that names header and data file.

    An error stays unchanged if the data lies in the header's own file, or if there is no permission to read it.
    """
    try:
        yield
    except (zlib.error, OSError) as error:
        if data == path or isinstance(error, PermissionError):
            raise
        # For damaged data, bz2 raises an OSError without errno.
        if isinstance(error, OSError) and error.errno is not None:
            what = f"needs its data file {data.name}, which cannot be read ({error.strerror})"
            raise InputError(what, path=path, remedy="Check the disk or the network.") from error
        what = f"needs its data file {data.name}, which holds damaged compressed data ({error})"
        raise InputError(what, path=path, remedy="Copy the file again.") from error


def _shorten(message: str, path: Path) -> str:
    for mark in ("sitk::ERROR:", "ITK ERROR:"):
        message = message.rpartition(mark)[2]
    message = message.replace(f"File {path}", "the file").replace(str(path), "the file")
    message = " ".join(message.split())
    message = re.sub(r"File cannot be read: .*", "ITK refuses its header or its data", message)
    message = re.sub(r"\w+ ?\(0x[0-9a-f]+\): ", "", message)  # the reader's class and address
    message = message.rstrip(". ")
    return message if len(message) <= 160 else message[:157] + "..."
