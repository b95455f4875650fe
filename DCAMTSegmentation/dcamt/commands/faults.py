"""Convert any exception to a user-facing error."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from ..errors import DCAMTError, InputError, OutputError, is_out_of_memory
from ..io.atomic import DISK_FULL


def as_fault(error: Exception, path: Path | None = None) -> DCAMTError:
    """Convert any exception to a user-facing error; `path` is named in it where `error` names no file.

    The environment variable DCAMT_TRACEBACK=1 also prints the traceback of an unexpected exception.
    """
    text = " ".join(str(error).split())
    if isinstance(error, DCAMTError):
        return error if path is None or str(path) in str(error) else InputError(text, path=path)
    if os.environ.get("DCAMT_TRACEBACK"):
        traceback.print_exception(error)
    if is_out_of_memory(error):
        remedy = "Close other programs. A region of interest, or in training a smaller patch or batch, takes less."
        return InputError("there is not enough memory", path=path, remedy=remedy)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return OutputError(f"{_named(error, path)}the disk is full. Free some space or choose another folder.")
    if isinstance(error, OSError) and error.strerror:
        return OutputError(f"{_named(error, path)}cannot be used ({error.strerror}). Check the name and the rights.")
    what = f"unexpected fault ({type(error).__name__}{': ' if text else ''}{text[:200]})"
    return InputError(what, path=path, remedy="Please report it.")


def _named(error: Exception, path: Path | None) -> str:
    name = error.filename if isinstance(error, OSError) and error.filename is not None else path
    return f"{os.fsdecode(name)}: " if isinstance(name, (str, bytes, Path)) else ""
