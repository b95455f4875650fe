"""Check and change the names and paths of files and folders."""

from __future__ import annotations

import errno
import os
import sys
import unicodedata
from functools import lru_cache
from pathlib import Path

from ..typed_names import comparable_name

_FORBIDDEN = frozenset('<>:"/\\|?*\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069')
"""Windows forbids the first nine. The others change the direction of the text after them, also in our messages."""
_FORBIDDEN_CATEGORIES = ("Cc", "Zl", "Zp", "Cs")
"""Unicode's control characters, line and paragraph separators, and surrogates (bytes that are not UTF-8)."""
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in "123456789¹²³")}
"""Windows reserves these names for devices, with and without an ending: `nul`, `nul.txt`."""
_LONGEST = 255
"""Largest length of a name: in most file systems 255 bytes, on Windows 255 characters."""
_LONGEST_WINDOWS_PATH = 259
"""Largest length of a path in Windows, in characters, where long paths are not enabled."""
_WITHOUT_LIMIT = "\\\\?\\"
"""Prefix of paths whose length Windows does not limit."""
_KEPT = 20
"""A name that is too long loses characters before its last `_KEPT` characters, so that it keeps the file ending."""


def is_file_name(name: str) -> bool:
    """Return whether Linux, macOS and Windows can store a file or folder of this name, and none of them hides it.

    Letters that the character set of the locale lacks are not allowed.

    >>> [is_file_name(name) for name in ("run-1", "a..b", "nul.txt", "run.", ".run", "what?")]
    [True, True, False, False, False, False]
    """
    stem = comparable_name(name.partition(".")[0])
    if not stem or stem.casefold() in _DEVICES or name.endswith((".", " ")):
        return False
    return all(map(_is_allowed, name)) and len(name.encode()) <= _LONGEST


def _is_allowed(letter: str) -> bool:
    is_harmful = letter in _FORBIDDEN or unicodedata.category(letter) in _FORBIDDEN_CATEGORIES
    return not is_harmful and _can_encode(letter)


def _can_encode(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def as_file_name(name: str) -> str:
    """Change a name so that `is_file_name` accepts the changed name.

    >>> [as_file_name(name) for name in ("LGE: 3/4.csv", "aux.csv", ".csv")]
    ['LGE_ 3_4.csv', '_aux.csv', '_.csv']
    """
    plain = "".join(letter if _is_allowed(letter) else "_" for letter in name).rstrip(". ")
    while len(plain.encode()) >= _LONGEST:  # One byte stays free, because a `_` may be put before the name.
        plain = plain[: -_KEPT - 1] + plain[-_KEPT:]
    return plain if is_file_name(plain) else f"_{plain}"


def free_path(path: Path) -> Path:
    """Return `path` if it is free, else a free path such as `x-2.csv` for `x.csv`."""
    free, number = path, 2
    while os.path.lexists(free):
        free, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return free


def accent_forms(name: str) -> list[str]:
    """Return three forms of a name: unchanged, with composed accents (NFC), with decomposed accents (NFD)."""
    return [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]


def real_path(path: Path) -> str:
    """Return a path with links resolved; if the file system cannot store such a path, only make the path absolute."""
    try:
        return os.path.realpath(path)
    except ValueError:  # The path contains a null character, or letters that the character set of the locale lacks.
        return os.path.abspath(path)


def is_too_long(path: Path) -> bool:
    """Return whether a path, or a name in it, is too long for the disk or for Windows."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG or (sys.platform == "win32" and _is_too_long_for_windows(path))
    except ValueError:
        return False
    return False


def _is_too_long_for_windows(path: Path) -> bool:
    if any(len(name) > _LONGEST for name in path.relative_to(path.anchor).parts):
        return True
    whole = os.path.abspath(path)
    is_limited = not whole.startswith(_WITHOUT_LIMIT) and not _allows_long_paths()
    return is_limited and len(whole) > _LONGEST_WINDOWS_PATH


@lru_cache
def _allows_long_paths() -> bool:
    """Return whether Windows allows this process paths of 260 or more characters."""
    if sys.platform != "win32":
        return True
    import ctypes

    function = getattr(ctypes.WinDLL("ntdll"), "RtlAreLongPathsEnabled", None)  # missing before Windows 10
    if function is None:
        return False
    function.restype = ctypes.c_ubyte
    return bool(function())
