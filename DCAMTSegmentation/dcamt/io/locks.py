"""Lock a table with a lock of the operating system."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError
from .atomic import NAME_KEPT, make_folder, remove_folders

if TYPE_CHECKING:
    from filelock import BaseFileLock

PATIENCE_S = 60.0
"""How long `table_lock` waits for a process that holds the lock."""
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
"""Error numbers of a file system without locks, such as some network drives."""
ATTEMPTS = 20


@contextmanager
def table_lock(table: Path) -> Iterator[None]:
    """Hold a lock while rows are added to a table.

    The lock is a hidden file beside the table. At the end of the block the file is removed. Folders that were created
    for the file are removed if they are empty. If the file cannot be created or locked, as on a file system without
    locks, the block runs without a lock.

    Raises:
        OutputError: another process holds the lock for `PATIENCE_S`.
    """
    target = Path(os.path.realpath(table))
    path = target.with_name(f".{target.name[-NAME_KEPT:]}.lock")
    created: list[Path] = []
    try:
        lock = _acquire(path, table, created)
        try:
            yield
        finally:
            if lock is not None:
                release_lock(lock, path)
    finally:
        remove_folders(created)


def release_lock(lock: BaseFileLock | None, path: Path) -> None:
    """Release a lock, if there is one, and remove its file `path`. On Windows, filelock removes the file."""
    if sys.platform != "win32":
        # The file is removed before the release, because another process may lock the file after the release.
        with suppress(OSError):
            path.unlink()
    if lock is not None:
        lock.release()


def _acquire(path: Path, table: Path, created: list[Path]) -> BaseFileLock | None:
    # Imported here, since Slicer imports this module before the packages are installed.
    from filelock import FileLock, Timeout

    for _ in range(ATTEMPTS):
        lock = FileLock(path, mode=0o666)  # Another person must be able to lock the table of a shared folder.
        try:
            make_folder(path.parent, created)
            lock.acquire(timeout=PATIENCE_S)
            return lock
        except Timeout as error:
            if not path.exists():  # `acquire` also times out on /proc, where no file can be created.
                return None
            what = "is kept locked by another process, so no rows were added"
            raise OutputError(f"{table}: {what}. Wait for that process, then repeat with --skip-existing.") from error
        except (OSError, NotImplementedError) as error:
            if isinstance(error, NotImplementedError) or error.errno in WITHOUT_LOCKS:
                # On a file system without locks, no process can hold the file's lock, so the file may be removed.
                release_lock(None, path)
                return None
            # Try again, since another process may be removing the folder. The file is not removed, since another
            # process may hold the file's lock.
            time.sleep(0.01)
    return None
