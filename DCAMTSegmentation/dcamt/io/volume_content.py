"""Decide from a file's content whether the file may hold a volume."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from .formats import ending
from .stored_image import read_head
from .tiff import has_pages

_MINIMUM_PAGES = 3
"""A stack of fewer slices is no scan (`volume.check_scan_grid`)."""
_DATA_SET = re.compile(rb"^\s*DATASET\s", re.IGNORECASE | re.MULTILINE)
"""The start of the line in which a legacy VTK file states the kind of its data."""
_HEADER_SIZES = (348, 540)
"""A header begins with its size in bytes: 348 in Analyze 7.5 and NIfTI-1, 540 in NIfTI-2."""


def may_hold_volume(path: Path) -> bool:
    """Return whether a file with the ending of an image may hold a volume.

    True for a file that is missing, empty or damaged: the reader then raises an error that names the fault.
    """
    check = _CHECKS.get(ending(path))
    if check is None:
        return True
    head = read_head(path)
    return not any(head[:4]) or check(path, head)


def _is_structured_points(path: Path, head: bytes) -> bool:
    return b"STRUCTURED_POINTS" in head.upper() or not _DATA_SET.search(head)


def _is_stack(path: Path, head: bytes) -> bool:
    try:
        return has_pages(path, _MINIMUM_PAGES)
    except (InputError, OSError, EOFError):
        return True


def _is_pair_header(path: Path, head: bytes) -> bool:
    return len(head) < 4 or any(
        size in _HEADER_SIZES for size in struct.unpack("<i", head[:4]) + struct.unpack(">i", head[:4])
    )


_CHECKS: dict[str, Callable[[Path, bytes], bool]] = {
    ".vtk": _is_structured_points,
    **dict.fromkeys((".tif", ".tiff"), _is_stack),
    **dict.fromkeys((".hdr", ".hdr.gz"), _is_pair_header),
}
