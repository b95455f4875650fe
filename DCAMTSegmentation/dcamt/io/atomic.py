"""Write a file completely or not at all: write a temporary file, and rename it at the end."""

from __future__ import annotations

import errno
import os
import re
import secrets
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import OutputError, escape_controls, write_error
from .file_names import is_too_long
from .formats import ending
from .in_use import remove_file, wait_while_in_use
from .interruption import hold_signals, interrupt_on_sigterm

_ACCESS_ACL = "system.posix_acl_access"
_UNWRITTEN = 10**9
"""`atomic_path` gives an empty temporary file this modification time (in 2001); any write changes the time."""
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}-")
NAME_KEPT = 60
"""Largest number of characters that a temporary name takes from the end of the file's name.

Most file systems limit a name to 255 bytes. A character has at most 4 bytes, so 60 characters have at most 240 bytes.
The random text at the start of a temporary name has 10 bytes.
"""


class FileAppeared(Exception):
    """Raised by `atomic_paths` if a file that must be new already exists; the argument is its path."""


@contextmanager
def atomic_path(path: str | Path, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to; when the block ends, the file is renamed to `path`.

    See `atomic_paths`.

    Args:
        replace: whether to replace a file that exists at `path` when the block ends.

    >>> with atomic_path("run/report.json") as temporary:  # doctest: +SKIP
    ...     temporary.write_text("{}")
    """
    wanted = Path(path)
    with atomic_paths([wanted], new=() if replace else [wanted]) as temporary:
        yield temporary[wanted]


@contextmanager
def atomic_paths(
    paths: Iterable[Path], new: Collection[Path] = (), then: Callable[[], object] | None = None
) -> Iterator[dict[Path, Path]]:
    """Yield a temporary path for each final path; at the end of the block, all files are renamed, the first path last.

    A temporary file lies in the final file's folder and has the final file's ending, since libraries choose the format
    by the ending. All temporary files are flushed to the disk before the first is renamed. If a path is a link, the
    link's target is replaced. Except on Windows, a new file gets the permissions of the replaced file. On Linux, it
    also gets the access control list of the replaced file. Missing parent folders are created. If the block raises, the
    temporary files and any created folders that are empty are removed, and all final files stay unchanged. If renaming
    a file fails, the files that are already renamed stay. SIGTERM and SIGHUP raise KeyboardInterrupt
    (`interrupt_on_sigterm`), but neither they nor SIGINT separate the renames.

    Args:
        new: the paths at which no file may exist when the block ends.
        then: called after the renames, before a signal takes effect.

    Raises:
        FileAppeared: one of `new` exists at the end of the block.
        OutputError: a file cannot be written, or the block raises an OSError about writing it. An OSError that names
            another file, concerns a pipe or has no error number is raised unchanged, like other exceptions.
    """
    files = [_NewFile(path) for path in paths]
    with interrupt_on_sigterm():
        try:
            for file in files:
                with file.write_errors():
                    file.prepare()
            try:
                with ExitStack() as errors_of_files:
                    for file in files:
                        errors_of_files.enter_context(file.write_errors())
                    yield {file.path: file.temporary for file in files}
                for file in files:
                    with file.write_errors():
                        file.complete()
            except BaseException as error:
                # If the block failed because a library raised an exception, the library may keep a file open as long
                # as the exception exists. The file would then take space on the disk even after its removal.
                for file in files:
                    with suppress(OSError):
                        os.truncate(file.temporary, 0)
                if isinstance(error, OutputError):
                    raise OutputError(_with_final_names(str(error), files)) from error
                raise
            with hold_signals():
                for file in files:
                    if file.path in new and os.path.lexists(file.target):
                        raise FileAppeared(file.path)
                for file in reversed(files):
                    with file.write_errors():
                        file.rename(replace=file.path not in new)
                if then is not None:
                    then()
                for folder in {file.target.parent for file in files}:
                    _flush_folder(folder)
        except BaseException:
            for file in reversed(files):
                file.remove()
            raise


class _NewFile:
    """A file that is written under a temporary name.

    Attributes:
        path: the final path; it may be a link.
        target: the final path without links. Renaming to `path` would replace a link instead of its target.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.target = Path(os.path.realpath(path))
        self.temporary = temporary_path(self.target)
        self._created: list[Path] = []
        self._replaced: os.stat_result | None = None
        self._acl: bytes | None = None

    def prepare(self) -> None:
        """Create the folder and, if a file will be replaced, an empty temporary file."""
        target, temporary = self.target, self.temporary
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        if is_too_long(target) or is_too_long(temporary):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(target))
        refuse_device(target, self.path)
        make_folder(target.parent, self._created)
        self._replaced, self._acl = _existing_file(target), _access_acl(target)
        if self._replaced is not None:
            # Other users must not read the new content before the file has the permissions of the old file.
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            with suppress(OSError):
                os.utime(temporary, (_UNWRITTEN, _UNWRITTEN))

    def complete(self) -> None:
        """Flush the temporary file, and give it the permissions of the replaced file."""
        if _is_unwritten(self.temporary):
            wait_while_in_use(self.temporary.unlink)
        _flush(self.temporary)
        if self._replaced is not None:
            _copy_permissions(self._replaced, self._acl, self.temporary)

    def rename(self, replace: bool) -> None:
        if replace:
            wait_while_in_use(os.replace, self.temporary, self.target)
        else:
            _rename_to_new(self.temporary, self.target, self.path)

    def remove(self) -> None:
        """Remove the temporary file and the created folders that are empty."""
        with suppress(OSError):
            remove_file(self.temporary)
        remove_folders(self._created)

    @contextmanager
    def write_errors(self) -> Iterator[None]:
        """Raise an OSError about writing this file as an OutputError."""
        try:
            yield
        except OSError as error:
            if not _is_about_writing(error, self.temporary, self.target):
                raise
            raise write_error(error, self.path) from error


def _with_final_names(message: str, files: Iterable[_NewFile]) -> str:
    for file in files:
        message = message.replace(escape_controls(str(file.temporary)), str(file.path))
    return message


def temporary_path(target: Path) -> Path:
    """Return a new path beside `target` with the same ending.

    If the name of `target` is long, the new name is not longer.
    """
    start = f".{secrets.token_hex(4)}-"
    kept = min(max(len(target.name) - len(start), len(ending(target))), NAME_KEPT)
    return target.parent / f"{start}{target.name[len(target.name) - kept :]}"


def make_folder(folder: Path, created: list[Path]) -> None:
    """Make a folder and its missing parents. Append each new folder to `created`."""
    if folder.is_dir() or folder == folder.parent:
        return
    make_folder(folder.parent, created)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        created.append(folder)


def remove_folders(created: Sequence[Path]) -> None:
    """Remove the folders that `make_folder` created, if they are empty."""
    for folder in reversed(created):
        with suppress(OSError):  # Another process may have written a file into it.
            folder.rmdir()


def _rename_to_new(temporary: Path, target: Path, named: Path) -> None:
    try:
        os.link(temporary, target)  # `os.replace` could replace a file of another process.
    except FileExistsError as error:
        raise FileAppeared(named) from error
    except OSError as error:  # A file system without hard links, such as that of a USB stick.
        if os.path.lexists(target):
            raise FileAppeared(named) from error
        wait_while_in_use(os.replace, temporary, target)
    else:
        wait_while_in_use(temporary.unlink)


def _existing_file(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_unwritten(file: Path) -> bool:
    status = file.stat()
    return status.st_size == 0 and status.st_mtime == _UNWRITTEN


def _access_acl(path: Path) -> bytes | None:
    if sys.platform != "linux":
        return None
    try:
        return os.getxattr(path, _ACCESS_ACL)
    except OSError:
        return None


def _set_access_acl(file: Path, acl: bytes | None) -> bool:
    """Set or remove a file's POSIX access control list; return whether the file then has the list `acl`."""
    if sys.platform == "linux" and acl != _access_acl(file):
        try:
            if acl is None:
                os.removexattr(file, _ACCESS_ACL)
            else:
                os.setxattr(file, _ACCESS_ACL, acl)
        except OSError:
            return False
    return True


def _copy_permissions(source: os.stat_result, acl: bytes | None, file: Path) -> None:
    """Give a file the owner, group and permissions in `source`, as far as the user and the file system allow this.

    Args:
        acl: the access control list to set. If it cannot be set, only the owner gets permissions.
    """
    if sys.platform == "win32":
        return
    for owner in (source.st_uid, -1):  # -1 leaves the owner as it is
        with suppress(OSError):
            os.chown(file, owner, source.st_gid)
            break
    mode = source.st_mode & 0o777
    if file.stat().st_gid != source.st_gid:
        # Another group must not get more permissions than everyone has.
        mode = mode & ~0o070 | (mode & 0o007) << 3
    if not _set_access_acl(file, acl):
        mode &= 0o700
    with suppress(OSError):
        file.chmod(mode)


def refuse_device(target: Path, named: Path) -> None:
    """Raise OutputError if `target` is a device, a pipe or a socket, which a result must not replace.

    Args:
        named: the path in the message; it may be a link to `target`.
    """
    if os.path.exists(target) and not os.path.isfile(target):
        raise OutputError(f"{named}: is a device or a pipe, not a file. Give a file name.")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8.

    Characters that UTF-8 cannot encode (surrogates in file names) are written as escape sequences, such as `\\udcff`.

    Raises:
        OutputError: the file cannot be written; an earlier file of that name stays unchanged.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def stray_temporaries(folder: Path) -> list[Path]:
    """Return the files in `folder` that `atomic_path` is writing, or was writing when its process was killed."""
    return [path for path in folder.glob(".????????-*") if _TEMPORARY.match(path.name) and path.is_file()]


def _flush(file: Path) -> None:
    with wait_while_in_use(open, file, "rb+") as handle:
        os.fsync(handle.fileno())


def _flush_folder(folder: Path) -> None:
    """Flush the folder's entries, so that the rename survives a power failure."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_about_writing(error: OSError, temporary: Path, target: Path) -> bool:
    if error.errno is None or error.errno == errno.EPIPE:
        return False
    if error.filename is None:
        return True
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes, Path)) else None
    return named is not None and (named in (temporary, target) or named in target.parents)
