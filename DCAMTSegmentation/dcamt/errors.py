"""Define the errors that the engine raises, and convert any other exception to one of them.

Every message is one line for the user: what happened and, if known, which file it concerns and what to do.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import subprocess
import sys
import traceback
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
"""Error numbers of a full disk and of an exhausted quota."""
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

_PIP_NAMES = {"nrrd": "pynrrd", "vtkmodules": "vtk"}
"""Module -> name of its package for pip, if the two names differ."""
_NEEDS_NO_QUOTES = re.compile(r"[\w\\/:.=-]+")
"""Matches arguments that neither cmd.exe nor PowerShell changes."""


class DCAMTError(Exception):
    """Base class of the errors whose message is one line for the user.

    Attributes:
        reason: a word for the kind of error.
        detail: the output of a program that failed, for a report of the error.
    """

    reason: ClassVar[str] = "internal"
    detail: str = ""

    def __init__(self, message: str = "") -> None:
        super().__init__(escape_controls(message))


class InputError(DCAMTError):
    """Raised when an input file, folder or setting cannot be used.

    Args:
        what: what happened; with `path`, a predicate such as "is empty" is enough.
        path: the file or folder; for an object without a file, such as a node of Slicer's scene, its name.
        remedy: what the user can do, as one or more sentences.

    >>> str(InputError("is empty", path="scan.nii.gz", remedy="Copy the file again."))
    'scan.nii.gz: is empty. Copy the file again.'
    """

    reason = "input"

    def __init__(self, what: str, *, path: str | Path | None = None, remedy: str = "") -> None:
        where = f"{path}: " if path is not None else ""
        # Messages of libraries may have several lines.
        text = " ".join(line.strip() for line in what.splitlines()).rstrip(".")
        super().__init__(f"{where}{text}. {remedy}".rstrip())


class MemoryShortage(InputError):
    """Raised when the computer or its GPU has too little memory."""

    reason = "memory"


class MissingPackage(InputError):
    """Raised when a Python package is not installed, is too old or cannot be loaded.

    Args:
        packages: the names under which pip installs the packages.
    """

    reason = "missing_package"

    def __init__(self, what: str, *, remedy: str = "", packages: Sequence[str] = ()) -> None:
        super().__init__(what, remedy=remedy)
        self.packages = tuple(packages)


class InternalError(InputError):
    """Stands for an exception that DCAMT did not expect; the process may be in an invalid state."""

    reason = "internal"


class OutputError(DCAMTError):
    """Raised when a file could not be written; also stands for an unexpected error of the operating system."""

    reason = "disk"


class Cancelled(DCAMTError):
    """Raised when the user, or the process that started this one, cancelled the work."""

    reason = "cancelled"


# For the CPU, torch has no error class for a lack of memory. So an error whose message matches one of these regular
# expressions counts as a lack of memory.
_NO_MEMORY = (
    *("alloc_cpu", "DefaultCPUAllocator", "not enough memory", "can't allocate memory", "out of memory"),
    *("CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED"),
    # Torch raises an error with this text if cuDNN has no memory for any of its algorithms.
    "unable to find an engine to execute",
    # Torch's library oneDNN raises an error with this text if the CPU has no memory for a convolution.
    "could not create a primitive(?! descriptor)",
    # Python raises an ImportError with one of these texts if a library does not fit into memory.
    *("failed to map segment from shared object", "cannot allocate memory in static TLS block"),
)


def escape_controls(text: str) -> str:
    r"""Return a text in which control characters, except tabs, are written as escapes.

    >>> print(escape_controls("a" + chr(27) + "[2Jb" + chr(10) + "c"))
    a\x1b[2Jb\x0ac
    """
    return "".join(
        f"\\x{ord(char):02x}" if unicodedata.category(char) == "Cc" and char != "\t" else char for char in text
    )


def shell_argument(value: str | Path) -> str:
    """Quote a command's argument for the shells of this system."""
    text = str(value)
    if sys.platform != "win32":
        return shlex.quote(text)
    if _NEEDS_NO_QUOTES.fullmatch(text):
        return text
    # The leading blank makes `list2cmdline` add quotation marks.
    return subprocess.list2cmdline([f" {text}"]).replace(" ", "", 1)


def plain_number(value: float, digits: int) -> str:
    """Return a number rounded to significant digits; from 0.0001 up to a million, the text has no exponent.

    >>> [plain_number(value, 2) for value in (0.0441, 5.0, 110.0, 1253.0)]
    ['0.044', '5', '110', '1300']
    """
    return f"{float(f'{value:.{digits}g}'):g}"


def fixed_number(value: float, digits: int) -> str:
    """Return a number with `digits` decimals; a number that would become 0 keeps its first significant digit.

    >>> [fixed_number(value, 1) for value in (12.34, 0.0, 0.0213)]
    ['12.3', '0.0', '0.02']
    """
    text = f"{value:.{digits}f}"
    return plain_number(value, 1) if value and not float(text) else text


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that Python, torch or the system lacks memory."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return re.search("|".join(_NO_MEMORY), " ".join(str(error).split())) is not None


def write_error(error: OSError, path: str | Path) -> OutputError:
    """Return the user-facing error for an operating system error in writing `path`."""
    if error.errno in DISK_FULL:
        what, remedy = "the disk is full", "Free some space or choose another folder."
    elif error.errno == errno.EFBIG:
        what = "would exceed the largest file size that the disk or the system allows"
        remedy = "Choose a folder on another disk."
    elif error.errno in _FORBIDDEN:
        what = "cannot be written (no permission)"
        remedy = "Close programs that use the file, change the permissions of its folder, or choose another folder."
    elif error.errno == errno.ENAMETOOLONG:
        what = "has a name or path that is too long"
        remedy = "Rename the scan, give the file a shorter name, or choose a folder with a shorter path."
    elif error.errno == errno.EISDIR:
        what, remedy = "is a folder", "Give a file name."
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        what, remedy = "cannot be written, since a part of its path is not a folder", "Choose another folder."
    else:
        what, remedy = f"could not be written ({error.strerror or error})", "Choose another folder."
    return OutputError(f"{path}: {what}. {remedy}")


def missing_packages(names: list[str]) -> MissingPackage:
    """Return the error for Python packages that are not installed."""
    packages = [_PIP_NAMES.get(name, name) for name in names]
    what = f"Python packages are missing: {', '.join(packages)}"
    return MissingPackage(what, remedy="Install the packages, then try again.", packages=packages)


def package_error(error: Exception) -> MissingPackage | None:
    """Return the error for the Python package that could not be imported; None if `error` has another cause."""
    if isinstance(error, MissingPackage):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name and "." not in error.name:
        return missing_packages([error.name])
    module = _module_of_failed_import(error)
    if module is None:
        return None
    package, reason = _PIP_NAMES.get(module, module), " ".join(str(error).split())[:200]
    what = f"The Python package '{package}' cannot be loaded ({reason})"
    return MissingPackage(what, remedy="Reinstall or update the package, then try again.", packages=[package])


def _module_of_failed_import(error: Exception) -> str | None:
    # A module that is being imported may raise any exception, for example an OSError for a missing DLL.
    for frame, _line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and module != "__main__" and not module.lower().startswith("dcamt"):
            return module
    return error.name.partition(".")[0] if isinstance(error, ImportError) and error.name else None


def user_error(error: Exception, path: Path | None = None) -> DCAMTError:
    """Convert any exception to a user-facing error.

    If the environment variable DCAMT_TRACEBACK is set, print the traceback, except for a `DCAMTError`.

    Args:
        path: the file being processed, for the message.
    """
    if isinstance(error, DCAMTError):
        if path is None or isinstance(error, MissingPackage) or names_path(error, path):
            return error
        return _with_path(error, path)
    if os.environ.get("DCAMT_TRACEBACK"):
        traceback.print_exception(error)
    if is_out_of_memory(error):
        remedy = "Close other programs, give a region of interest, or in training use a smaller patch or batch."
        return MemoryShortage("not enough memory", path=path, remedy=remedy)
    if (failure := package_error(error)) is not None:
        return failure
    if isinstance(error, OSError) and error.strerror:
        named = error.filename if error.filename is not None else path
        where = os.fsdecode(named) if isinstance(named, (str, bytes, Path)) else "a file"
        if error.errno in (*DISK_FULL, errno.EFBIG):
            return write_error(error, where)
        return OutputError(f"{where}: cannot be used ({error.strerror}). Check its name and permissions.")
    if isinstance(error, UnicodeEncodeError) and error.encoding == sys.getfilesystemencoding() != "utf-8":
        what = f"has a name that cannot be encoded as {error.encoding}"
        remedy = "Rename the file or its folder, or choose a locale with UTF-8, such as LC_ALL=C.UTF-8."
        return InputError(what, path=error.object, remedy=remedy)
    text = " ".join(str(error).split())
    what = f"unexpected error ({type(error).__name__}{': ' if text else ''}{text[:200]})"
    return InternalError(what, path=path, remedy="Please report this error.")


@contextmanager
def memory_for_scan(path: Path | None) -> Iterator[None]:
    """Raise MemoryShortage, which names the scan `path`, if the memory does not suffice inside the block."""
    try:
        yield
    except Exception as error:
        if isinstance(error, DCAMTError) or not is_out_of_memory(error):
            raise
        remedy = "Crop the scan around the organ, correct its spacing if it is wrong, or close other programs."
        raise MemoryShortage("not enough memory for this scan", path=path, remedy=remedy) from error


def without_path(error: Exception, *paths: str | Path | None) -> str:
    r"""Return an error's message without these paths at its beginning.

    >>> without_path(InputError("is empty", path="two\nlines.nii"), "two\nlines.nii")
    'is empty.'
    """
    text = str(error)
    for path in paths:
        text = text.removeprefix(escape_controls(f"{path}: "))
    return text


def names_path(error: Exception, path: Path) -> bool:
    """Return whether an error's message names a path; a message about "scan12" does not name "scan1"."""
    text, message = escape_controls(str(path)), escape_controls(str(error))
    return re.search(rf"""(?<![^\s/\\"'“(]){re.escape(text)}(?![.-]?\w)""", message) is not None


def _with_path(error: DCAMTError, path: Path) -> DCAMTError:
    text = str(error)
    named = type(error)(text, path=path) if isinstance(error, InputError) else type(error)(f"{path}: {text}")
    named.detail = error.detail
    return named
