"""Represent an image file whose header was read; read compressed streams; turn library errors into one line."""

from __future__ import annotations

import bz2
import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import DCAMTError, InputError
from ..geometry import Grid

COPY_AGAIN = "The copy is incomplete; copy it again."
DAMAGED = "The file may be damaged; copy it again."
_CHUNK = 1 << 18
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class StoredSegment:
    """A segment of a segmentation file: the voxels of `value` in `layer`, which become `label` in one labelmap.

    name, color (red, green, blue: each 0 to 1): None where the file has none, or none that can be used.
    """

    layer: int
    value: int
    label: int
    name: str | None = None
    color: tuple[float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class StoredImage:
    """An image file whose header was read: the number of channels C and the grid of its voxels (C, I, J, K).

    load: reads the voxels (C, I, J, K); raises InputError for a damaged file. verify: raises InputError for a file
    that is visibly incomplete, without reading the voxels where possible. segments: of a segmentation; its layers are
    the channels. labels_only: the file holds a segmentation and can never be a scan. notes: sentences for the user on
    how the file was understood. frames: see `Volume`.
    """

    channels: int
    grid: Grid
    load: Callable[[], np.ndarray]
    verify: Callable[[], None] = lambda: None
    segments: tuple[StoredSegment, ...] = ()
    labels_only: bool = False
    notes: tuple[str, ...] = ()
    frames: tuple[tuple[Path, int], ...] = ()


@contextmanager
def library_errors(path: Path, kind: str) -> Iterator[None]:
    """Turn any exception of a reader library into an InputError: "`path`: cannot be read as `kind` (...)"."""
    try:
        yield
    except DCAMTError:
        raise
    except MemoryError as error:
        raise InputError("does not fit into memory", path=path, remedy="Close other programs, or crop it.") from error
    except PermissionError as error:
        raise InputError("may not be read", path=path, remedy="Ask for permission to read it.") from error
    except EOFError as error:
        raise InputError("ends too early", path=path, remedy=COPY_AGAIN) from error
    except zlib.error as error:
        raise InputError(f"holds damaged compressed data ({error})", path=path, remedy="Copy it again.") from error
    except Exception as error:
        why = _shorten(str(error), path) or type(error).__name__
        raise InputError(
            f"cannot be read as {kind} ({why})", path=path, remedy="It may be damaged or of another format."
        ) from error


class Gunzip(io.RawIOBase):
    """A gzip or zlib stream, decompressed as it is read; data after its last member is ignored.

    Raises EOFError where the compressed data ends too early, and zlib.error where it is damaged: at the latest when
    the end of a member is read, where its checksum is.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self._pending = source, b""
        self._inflate = zlib.decompressobj(wbits=47)  # gzip or zlib, by the header

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` with decompressed bytes; returns their number, 0 at the end."""
        wanted = len(buffer)
        while wanted:
            if self._inflate.eof and not self._open_next_member():
                return 0
            compressed = self._inflate.unconsumed_tail or self._pending or self._source.read(_CHUNK)
            self._pending = b""
            if not compressed:
                raise EOFError
            data = self._inflate.decompress(compressed, wanted)
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0

    def _open_next_member(self) -> bool:
        rest = self._inflate.unused_data
        rest += self._source.read(2 - len(rest)) if len(rest) < 2 else b""
        if not rest.startswith(_GZIP_MAGIC):
            return False
        self._inflate, self._pending = zlib.decompressobj(wbits=47), rest
        return True


class Bunzip2(io.RawIOBase):
    """A bzip2 stream, decompressed as it is read; raises EOFError where it ends too early, OSError if damaged."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._inflate = bz2.BZ2Decompressor()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` with decompressed bytes; returns their number, 0 at the end."""
        while len(buffer) and not self._inflate.eof:
            compressed = self._source.read(_CHUNK) if self._inflate.needs_input else b""
            if self._inflate.needs_input and not compressed:
                raise EOFError
            data = self._inflate.decompress(compressed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0


@contextmanager
def open_plain_or_gzip(path: Path, buffer: int = _CHUNK) -> Iterator[IO[bytes]]:
    """Open a file, decompressed `buffer` bytes at a time if its first bytes are gzip's, whatever its name."""
    with open(path, "rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        yield io.BufferedReader(Gunzip(file), buffer) if packed else file  # type: ignore[type-var]


def is_gzip(path: Path) -> bool:
    """Return whether a file's first bytes are gzip's."""
    with open(path, "rb") as file:
        return file.read(2) == _GZIP_MAGIC


def read_head(path: Path, size: int = 1024) -> bytes:
    """Return the first bytes of a file, decompressed where it is gzip; fewer if it is shorter or damaged."""
    try:
        with open_plain_or_gzip(path, size) as file:
            return file.read(size)
    except (OSError, EOFError, zlib.error):
        return b""


def read_array(file: IO[bytes], dtype: np.dtype, count: int) -> np.ndarray:
    """Read `count` numbers from a stream; raises EOFError if it ends before."""
    values = np.empty(count, dtype)
    view = memoryview(values.view(np.uint8)) if count else memoryview(b"")
    done = 0
    while done < len(view):
        size = file.readinto(view[done : done + (1 << 24)])  # type: ignore[attr-defined]
        if not size:
            raise EOFError
        done += size
    return values


def read_to_end(file: IO[bytes]) -> None:
    """Read a compressed stream to its end, where its checksum is; the bytes are dropped."""
    if isinstance(file, io.BufferedReader) and isinstance(file.raw, (Gunzip, Bunzip2)):
        while file.read(_CHUNK):
            pass


def check_complete(path: Path, size: int, start: int = 0, packed: bool = False, header: Path | None = None) -> None:
    """Refuse a file that holds fewer than `size` bytes from byte `start` on, without reading them where possible.

    packed: they are compressed by gzip, whose last four bytes tell their number (RFC 1952). Where these tell another,
    as in a file that was cut off or has several members, the file is read to its end. header: the file that names
    this one as its data file, by which messages name the image.

    Raises InputError for a file that ends too early.
    """
    if not packed:
        if (held := max(0, os.path.getsize(path) - start)) < size:
            raise cut_file(path, held, size, header)
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
        held, ended = unpacked_size(file)
        if held < size or not ended:
            raise cut_file(path, held, size, header)


def unpacked_size(file: IO[bytes]) -> tuple[int, bool]:
    """Return the number of bytes in a compressed stream, and whether the stream has its end."""
    stream, chunk, size = Gunzip(file), bytearray(_CHUNK), 0
    try:
        while read := stream.readinto(chunk):
            size += read
    except EOFError:
        return size, False
    return size, True


def cut_file(path: Path, held: int, size: int, header: Path | None = None) -> InputError:
    """Return the error for a file that holds `held` of `size` bytes; `header` as in `check_complete`."""
    lacks = f"holds {held} of {size} bytes" if held < size else "lacks its checksum"
    which = f": its data file {path.name} {lacks}" if header not in (None, path) else ""
    return InputError(f"ends too early{which}", path=header or path, remedy=COPY_AGAIN)


def missing_data_file(path: Path, data: Path) -> InputError:
    """Return the error for the data file `data` that the header `path` names and that is not there.

    A file beside the header that may be it under another name is named, since renaming is the usual cause.
    """
    remedy = "Copy both."
    beside = [path.with_suffix(data.suffix), path.with_name(f"{path.stem}{''.join(data.suffixes[-2:])}")]
    same = [file for file in sorted(data.parent.iterdir()) if file.is_file()] if data.parent.is_dir() else []
    found = next((file for file in beside if file.is_file() and file != path), None)
    found = next((file for file in same if file.name.casefold() == data.name.casefold()), found)
    if found is not None:
        remedy = f"If {found.name} is that file, rename it to {data.name}."
    return InputError(f"needs its data file {data.name}, which is missing", path=path, remedy=remedy)


@contextmanager
def data_file_errors(path: Path, data: Path) -> Iterator[None]:
    """Name the data file beside the header `path` in the error for damaged compressed data."""
    try:
        yield
    except (zlib.error, OSError) as error:
        if data == path or isinstance(error, PermissionError):
            raise
        what = f"needs its data file {data.name}, which holds damaged compressed data ({error})"
        raise InputError(what, path=path, remedy="Copy it again.") from error


def _shorten(message: str, path: Path) -> str:
    """Return the last part of a library's message, without source lines, the path, or pages of detail."""
    for mark in ("sitk::ERROR:", "ITK ERROR:"):
        message = message.rpartition(mark)[2]
    message = " ".join(message.split())
    message = message.replace(f"File {path}", "the file").replace(str(path), "the file").rstrip(". ")
    return message if len(message) <= 160 else message[:157] + "..."
