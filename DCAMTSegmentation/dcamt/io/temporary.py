"""Create temporary folders."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DISK_FULL, OutputError


@contextmanager
def temporary_folder() -> Iterator[str]:
    """Yield a new folder for the duration of the block.

    Raises:
        OutputError: the folder cannot be created.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="dcamt-")
    except OSError as error:
        remedy = "Set the environment variable TMPDIR to a folder that you may write to."
        raise OutputError(f"no temporary folder can be created ({error.strerror}). {remedy}") from error
    with folder:
        yield folder.name


def refuse_full_folder(error: OSError, path: Path) -> None:
    """Raise OutputError if `error` means that the contents of `path` did not fit into the temporary folder."""
    if error.errno in (*DISK_FULL, errno.EFBIG):
        what = f"cannot be extracted to the temporary folder {tempfile.gettempdir()} ({error.strerror})"
        remedy = "Free some space there, or set the environment variable TMPDIR to another folder."
        raise OutputError(f"{path}: {what}. {remedy}") from error
