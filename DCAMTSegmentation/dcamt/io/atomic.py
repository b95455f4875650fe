"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import write_error

_TEMPORARY = re.compile(r"\.[0-9a-f]{8}-")
_NAME_KEPT = 60  # characters of the name in the temporary one: systems allow 255 bytes in all


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on leaving, it becomes `path`, and no reader ever sees half a file.

    The temporary path lies in the same folder and keeps the ending, so that libraries that go by it do the
    same. It is flushed to the disk and renamed over `path` (a link is followed to its target). If the block
    raises, it is removed, `path` stays as it was, and so does the folder: missing parents are created and,
    on failure, those created are removed again.

    Raises OutputError for a full disk, a folder that may not be written, and other faults of writing; what
    the block raises for any other reason passes unchanged.

    >>> with atomic_path("run/report.json") as temporary:  # doctest: +SKIP
    ...     temporary.write_text("{}")
    """
    wanted = Path(path)
    target = Path(os.path.realpath(wanted))  # renaming over a link would replace the link itself
    temporary = target.parent / f".{secrets.token_hex(4)}-{target.name[-_NAME_KEPT:]}"
    created: list[Path] = []
    try:
        try:
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
            _make_folders(target.parent, created)
            yield temporary
            _flush(temporary)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            for folder in reversed(created):
                with suppress(OSError):  # someone else may have put a file there meanwhile
                    folder.rmdir()
            raise
    except OSError as error:
        if not _is_about_writing(error, temporary, target):
            raise
        raise write_error(error, wanted) from error
    _flush_folder(target.parent)


def stray_temporaries(folder: Path) -> list[Path]:
    """Files in `folder` that `atomic_path` was still writing when its process was killed, or is writing now."""
    return [path for path in folder.glob(".????????-*") if _TEMPORARY.match(path.name) and path.is_file()]


def _make_folders(folder: Path, created: list[Path]) -> None:
    """Create `folder` and its missing parents, noting in `created` those that were not there."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    for one in reversed(missing):
        with suppress(FileExistsError):  # another process was faster: then it is not ours to remove
            one.mkdir()
            created.append(one)


def _flush(file: Path) -> None:
    with open(file, "rb+") as handle:
        os.fsync(handle.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the rename itself last; the file is in its place already, so a system without this is no fault."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_about_writing(error: OSError, temporary: Path, target: Path) -> bool:
    """Whether the fault lies with the file being written, not with one the block was reading or a pipe."""
    if error.errno is None or error.errno == errno.EPIPE:
        return False
    if error.filename is None:
        return True
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes, Path)) else None
    return named is not None and (named in (temporary, target) or named in target.parents)
