"""What every reader shares: a library's exception becomes one line that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DCAMTError, InputError


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


def _shortest(message: str, path: Path) -> str:
    """The telling end of a library's message: without source lines, the path again, or pages of detail."""
    for mark in ("sitk::ERROR:", "ITK ERROR:"):
        message = message.rpartition(mark)[2]
    message = " ".join(message.split())
    message = message.replace(f"File {path}", "the file").replace(str(path), "the file").rstrip(". ")
    return message if len(message) <= 160 else message[:157] + "..."
