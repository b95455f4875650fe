"""Lock a run folder with a lock of the operating system, so that only one process at a time trains in it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, OutputError
from ..io.atomic import make_folder, remove_folders
from ..io.locks import ATTEMPTS, WITHOUT_LOCKS, release_lock

if TYPE_CHECKING:
    from filelock import BaseFileLock

ACQUIRE_TIMEOUT_S = 0.3
"""How long one attempt of `run_lock` waits for the lock."""
PATIENCE_S = 30.0
"""If a program other than a run holds the lock, such as a backup program, `run_lock` waits this long.

On Windows, `run_lock` cannot tell such a program from a run, and waits only `ACQUIRE_TIMEOUT_S`.
"""


@contextmanager
def run_lock(path: Path, resumes: bool = False) -> Iterator[None]:
    """Hold the lock file `path` of a run folder; create the folder if it does not exist.

    The operating system releases the lock when its holder ends, even if the holder is killed. At the end of the block,
    `run_lock` removes the file, and then the folders that it created, if they are empty. On a file system without
    locks, nothing is locked, and no process is refused.

    Args:
        resumes: whether the folder already holds the run; decides the remedy of OutputError.

    Raises:
        InputError: another process trains the run, or another program keeps the file locked for `PATIENCE_S`.
        OutputError: the file cannot be created or locked.
    """
    created: list[Path] = []
    try:
        lock = _acquire(path, created, resumes)
        try:
            yield
        finally:
            release_lock(lock, path)
    finally:
        remove_folders(created)


def is_held(path: Path) -> bool:
    """Return whether a run holds the lock file; False on a file system without locks.

    On Windows, `is_held` acquires the lock for an instant, and any program's lock counts as a run's. If the package
    `filelock` is missing there, every existing lock file counts as held.
    """
    if not os.path.isfile(path):
        return False
    if sys.platform == "win32":
        return _cannot_be_acquired(path)
    import fcntl

    try:
        with path.open("rb") as file:
            # A shared lock, since two processes may call `is_held` at the same time.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _cannot_be_acquired(path: Path) -> bool:
    try:
        from filelock import FileLock, Timeout
    except ImportError:
        return True
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    lock.release()
    return False


def _acquire(path: Path, created: list[Path], resumes: bool) -> BaseFileLock | None:
    # Imported here, since Slicer imports this module before the packages are installed.
    from filelock import FileLock, Timeout

    end = time.monotonic() + PATIENCE_S
    failures: list[OSError] = []
    while len(failures) < ATTEMPTS:
        lock = FileLock(path, mode=0o666)  # Another person must be able to resume a run in a shared folder.
        try:
            make_folder(path.parent, created)
            lock.acquire(timeout=ACQUIRE_TIMEOUT_S)
            return lock
        except Timeout as error:
            _refuse_held(path)
            if time.monotonic() > end:
                remedy = "Close programs that use this folder, or choose another folder."
                raise InputError("is kept locked by another program", path=path, remedy=remedy) from error
        except NotImplementedError:
            return None
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                return None
            failures.append(error)  # The previous process may be removing the folder.
            time.sleep(0.01)
    failure = failures[-1]
    if isinstance(failure, PermissionError) and os.path.isfile(path):
        _refuse_held(path)
        what = "cannot be locked (no permission)"
        raise OutputError(f"{path}: {what}. Delete this file, or ask its owner to delete the file.") from failure
    remedy = "Choose another folder."
    if resumes:
        remedy = "Copy the run's folder to a disk where you may write, and resume it there."
    raise OutputError(f"{path}: could not be written ({failure.strerror}). {remedy}") from failure


def _refuse_held(path: Path) -> None:
    if is_held(path):
        remedy = "Stop that process first, or wait."
        raise InputError("is being trained by another process", path=path.parent, remedy=remedy)
