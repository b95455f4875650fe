"""Decide whether two paths lead to one file."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path


def file_identity(path: str | Path) -> Hashable:
    """Return a value that is equal for all paths of one file or folder; None if there is no such file or folder."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    # Some network and cloud drives number every file 0.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def is_same_file(first: str | Path, second: str | Path) -> bool:
    """Return whether two paths lead to one existing file or folder."""
    identity = file_identity(first)
    return identity is not None and identity == file_identity(second)
