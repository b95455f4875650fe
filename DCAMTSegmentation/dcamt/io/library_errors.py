"""What every reader shares: a library's exception becomes one line that names the file."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DCAMTError, InputError


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
        raise InputError("ends too early", path=path, remedy="The copy is incomplete; copy it again.") from error
    except Exception as error:
        why = _shortest(str(error), path) or type(error).__name__
        raise InputError(
            f"cannot be read as {kind} ({why})", path=path, remedy="It may be damaged or of another format."
        ) from error


def check_whole(path: Path, size: int, start: int = 0, packed: bool = False) -> None:
    """Refuse a file that holds fewer than `size` bytes from byte `start` on, without reading them where possible.

    packed: they are compressed by gzip, whose last four bytes tell their number (RFC 1952). Where these tell another,
    as in a file that was cut off, or one of several streams, it is read to its end.

    Raises InputError for a file that ends too early.
    """
    short = InputError("ends too early", path=path, remedy="The copy is incomplete; copy it again.")
    if not packed:
        if os.path.getsize(path) < start + size:
            raise short
        return
    with library_errors(path, "a gzip file"), open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        if int.from_bytes(file.read(4), "little") == size % 2**32:
            return
        file.seek(start)
        held = 0
        with gzip.GzipFile(fileobj=file) as stream:
            while chunk := stream.read(1 << 20):
                held += len(chunk)
        if held < size:
            raise short


def _shortest(message: str, path: Path) -> str:
    """The telling end of a library's message: without source lines, the path again, or pages of detail."""
    for mark in ("sitk::ERROR:", "ITK ERROR:"):
        message = message.rpartition(mark)[2]
    message = " ".join(message.split())
    message = message.replace(f"File {path}", "the file").replace(str(path), "the file").rstrip(". ")
    return message if len(message) <= 160 else message[:157] + "..."
