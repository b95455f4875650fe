"""Find masks that are named like scans: files whose name is a scan's name with further words, such as `p1_LA`.

Unlike a scan such as `p1_T1`, a mask has few different values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..io.formats import BENCHMARK_ENDING, ending
from ..io.readers import read_labelmap
from .names import OUTLINE_WORDS, FileKind, NamedFile, named_after_scans, without_first_channel

FEW_VALUES = 16
"""An image with at most this many different intensities is probably a label."""


def recognise_masks(named: Sequence[NamedFile]) -> list[NamedFile]:
    """Return the files; a mask that was taken for a scan becomes a label with the key of its scan.

    If the mask's name adds a word that `OUTLINE_WORDS` lacks, the mask becomes a label of another structure. If all
    scans whose names it extends also have few values, the mask stays a scan, as all these files may be labels.
    """
    masks: dict[Path, NamedFile] = {}
    for file, scan, words in named_after_scans(named):
        if file.path not in masks and has_few_values(file.path) and not has_few_values(scan.path):
            kind = FileKind.LABEL if words <= OUTLINE_WORDS else FileKind.OTHER_LABEL
            masks[file.path] = replace(file, kind=kind, key=without_first_channel(scan.key))
    return [masks.get(file.path, file) for file in named]


def has_few_values(path: Path) -> bool:
    """Return whether a file holds only whole numbers from 0 up, at most `FEW_VALUES` different ones.

    False for folders, for files that cannot be read, and for benchmark files, which hold a scan besides its label.
    """
    if ending(path) == BENCHMARK_ENDING:
        return False
    try:
        status = path.stat()
        return path.is_file() and _has_few_values(path, status.st_mtime_ns, status.st_size)
    except OSError:
        return False


@lru_cache(maxsize=4096)
def _has_few_values(path: Path, changed: int, size: int) -> bool:
    """Read the file for `has_few_values`; cached for each path, modification time `changed` and `size`."""
    try:
        return len(np.unique(read_labelmap(path).voxels)) <= FEW_VALUES
    except InputError:
        return False
