"""One process trains in a run's folder at a time: a lock of the operating system, which ends with its holder."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InputError, OutputError

_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""What a system answers where another process holds the lock; any other answer means that it knows no locks here."""
_ATTEMPTS = 100
_REFUSALS = 3


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold the lock on the file `path` in a run's folder; the folder is made if it is not there.

    However the holder ends, killed included, the system frees the lock. The file goes with it, and so do the folders
    that were made for it, should nothing else lie in them. Where the file system knows no locks (some network drives)
    nothing is held and nothing refused.

    Raises:
        InputError: another process holds the lock.
        OutputError: the file cannot be made.
    """
    folder = path.parent
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    handle: int | None = None
    try:
        handle = _acquire(path)
        yield
    finally:
        if handle is not None:
            _release(handle, path)
        for one in missing:
            with suppress(OSError):  # not empty, as after any run that began
                one.rmdir()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on the file; False where the file system knows no locks.

    To find out, the lock is taken for an instant, which is why `run_lock` tries more than once.
    """
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        _lock(handle)
    except OSError as error:
        return error.errno in _HELD
    finally:
        os.close(handle)
    return False


def _acquire(path: Path) -> int:
    """The open file, locked."""
    fault: OSError | None = None
    refusals = 0
    for _ in range(_ATTEMPTS):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError as error:  # the process before this one has just taken the folder away
            fault = error
            continue
        except OSError as error:
            fault = error
            break
        try:
            _lock(handle)
            # Its last holder may have removed the file between our opening and our locking it.
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
            os.close(handle)
        except FileNotFoundError:
            os.close(handle)
        except OSError as error:
            if error.errno not in _HELD:
                return handle
            os.close(handle)
            refusals += 1
            if refusals < _REFUSALS:  # somebody may only have looked, with `is_held`
                time.sleep(0.05)
                continue
            raise InputError(
                "is being trained by another process", path=path.parent, remedy="Stop that one first, or let it end."
            ) from error
        except BaseException:
            os.close(handle)
            raise
    reason = fault.strerror if fault is not None else "another process keeps taking it away"
    raise OutputError(f"{path}: could not be written ({reason}). Choose another folder.")


def _release(handle: int, path: Path) -> None:
    if sys.platform == "win32":
        # An open file cannot be removed there: neither ours, nor one that the next process has opened meanwhile.
        os.close(handle)
        with suppress(OSError):
            path.unlink()
    else:
        # Removed while it is still locked, so that it is not the next process's file.
        with suppress(OSError):
            path.unlink()
        os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
