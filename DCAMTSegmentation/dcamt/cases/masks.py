"""Find masks that are named like scans: with further words (`p1_LA`), or alike in another folder (`reader1/p1`).

Unlike a scan such as `p1_T1` or `visit2/p1`, a mask has few different values.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..io.channels import without_channel
from ..io.formats import BENCHMARK_ENDING, ending, scan_name
from ..io.readers import read_labelmap
from .names import OUTLINE_WORDS, FileKind, NamedFile, named_after_scans, without_first_channel

FEW_VALUES = 16
"""An image with at most this many different intensities is probably a label."""
_PARALLEL_FOLDERS = 6
"""Largest number of folders, of scans and of masks, in which a name is compared."""


def recognise_masks(named: Sequence[NamedFile]) -> list[NamedFile]:
    """Return the files; a mask that was taken for a scan becomes a label with the key of its scan.

    If the mask's name adds a word that `OUTLINE_WORDS` lacks, or its folder has a name without a known word, the mask
    becomes a label of another structure. If all scans whose names it extends also have few values, the mask stays a
    scan, as all these files may be labels.
    """
    masks: dict[Path, NamedFile] = {}
    for file, scan, words in named_after_scans(named):
        if file.path not in masks and has_few_values(file.path) and not has_few_values(scan.path):
            kind = FileKind.LABEL if words <= OUTLINE_WORDS else FileKind.OTHER_LABEL
            masks[file.path] = replace(file, kind=kind, key=without_first_channel(scan.key))
    rest = [file for file in named if file.path not in masks and file.kind is FileKind.SCAN]
    for file, scan in _masks_in_other_folders(rest):
        masks[file.path] = replace(file, kind=FileKind.OTHER_LABEL, key=without_first_channel(scan.key))
    return [masks.get(file.path, file) for file in named]


def _masks_in_other_folders(scans: Sequence[NamedFile]) -> Iterator[tuple[NamedFile, NamedFile]]:
    """Yield each mask in a folder whose files all have the names of files in a folder of scans, and its scan.

    Whether a folder holds masks or scans is judged by its first file, since reading all scans would be slow. Names that
    occur in more than `_PARALLEL_FOLDERS` folders, such as folders of patients, are not compared for the same reason.
    """
    folders: defaultdict[Path, dict[str, NamedFile]] = defaultdict(dict)
    for file in scans:
        folders[file.path.parent][without_channel(scan_name(file.path)).casefold()] = file
    occurrences = Counter(name for files in folders.values() for name in files)
    for folder, files in folders.items():
        first = next(iter(files))
        if not (2 <= occurrences[first] <= _PARALLEL_FOLDERS and has_few_values(files[first].path)):
            continue
        for other, other_files in folders.items():
            if other == folder or not files.keys() <= other_files.keys() or has_few_values(other_files[first].path):
                continue
            yield from ((file, other_files[name]) for name, file in files.items() if has_few_values(file.path))
            break


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
