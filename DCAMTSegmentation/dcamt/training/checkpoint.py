"""Write and read checkpoint files, from which a run resumes."""

from __future__ import annotations

import errno
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, is_out_of_memory
from ..io.atomic import atomic_path

NEW_RUN = "Start a new run."
_ERRORS_OF_DAMAGE = (None, errno.EINVAL)
"""Values of `OSError.errno` after which a file counts as damaged; other values mean that it could not be read.

The errno is None if the error comes from the code that decodes the file, and not from the operating system. The errno
is EINVAL if a damaged file states an impossible offset.
"""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state to a file, completely or not at all.

    Raises:
        OutputError: the file cannot be written; an earlier checkpoint stays unchanged.
    """
    # Given a path, `torch.save` would leave the file open after a failure, and would not raise an OSError.
    with atomic_path(path) as partial, open(partial, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # If writing failed or was interrupted, torch still tries to complete the archive, and raises a second
            # error. The `__context__` of this second error is the first error, which states the cause.
            if isinstance(error.__context__, OSError | KeyboardInterrupt):
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path, device: torch.device, remedy: str = NEW_RUN) -> dict[str, Any]:
    """Return a checkpoint's state with its tensors on `device`; run no code from the file.

    Args:
        remedy: what to do if the file is missing or damaged.

    Raises:
        InputError: the file is missing, cannot be read, or is damaged.
        MemoryError, RuntimeError: memory ran out.
    """
    try:
        # torch ignores the checksums of its zip archives.
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise InputError("there is no checkpoint to resume from", path=path, remedy=remedy) from error
    except Exception as error:  # For a damaged file, the unpickler may raise errors of any type.
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.errno not in _ERRORS_OF_DAMAGE:
            remedy = "Check the file's permissions and its disk."
            raise InputError(f"cannot be read ({error.strerror})", path=path, remedy=remedy) from error
        raise InputError("the checkpoint is damaged", path=path, remedy=remedy) from error
    return state
