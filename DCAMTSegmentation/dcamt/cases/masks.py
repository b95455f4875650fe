"""Find masks that are named like scans: with further words (`p1_LA`), or with further folders (`reader1/p1`).

Unlike a scan such as `p1_T1` or `visit2/p1`, a mask has few different values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..io.formats import BENCHMARK_ENDING, ending
from ..io.readers import read_labelmap
from .names import (
    OUTLINE_WORDS,
    SEPARATORS,
    FileKind,
    NamedFile,
    loose_key,
    modalities,
    name_starts,
    named_after_scans,
    without_first_channel,
)

FEW_VALUES = 16
"""An image with at most this many different intensities is probably a label."""
_PARALLEL_PARTS = 6
"""Largest number of paths, differing only in one name (`reader1/p1`, `reader2/p1`), that are compared."""
_SAMPLE = 1 << 16
"""`has_few_values` examines a sample of about this many voxels first."""


def recognise_masks(named: Sequence[NamedFile]) -> list[NamedFile]:
    """Return the files; a mask that was taken for a scan becomes a label with the key of its scan.

    If the mask's name or folder adds a word that `OUTLINE_WORDS` lacks, the mask becomes a label of another structure.
    If all scans that fit a file have few values, the file is returned unchanged, since these scans may be labels, too.
    """
    masks: dict[Path, NamedFile] = {}
    for file, scan, words in named_after_scans(named):
        if file.path not in masks and has_few_values(file.path) and not has_few_values(scan.path):
            kind = FileKind.LABEL if words <= OUTLINE_WORDS else FileKind.OTHER_LABEL
            masks[file.path] = replace(file, kind=kind, key=without_first_channel(scan.key))
    rest = [file for file in named if file.path not in masks and file.kind is FileKind.SCAN]
    labelled = {loose_key(file.key)[-1:] for file in named if file.kind is FileKind.LABEL}
    for file, scan, fits in _masks_with_further_parts(rest):
        if file.path not in masks:
            # A file that is named as a label of the scan takes precedence.
            is_label = fits and loose_key(without_first_channel(scan.key))[-1:] not in labelled
            kind = FileKind.LABEL if is_label else FileKind.OTHER_LABEL
            masks[file.path] = replace(file, kind=kind, key=without_first_channel(scan.key))
    return [masks.get(file.path, file) for file in named]


def _masks_with_further_parts(scans: Sequence[NamedFile]) -> Iterator[tuple[NamedFile, NamedFile, bool]]:
    """Yield (mask, scan, is_label) for each mask whose path is its scan's path with one part added or replaced.

    The part is the name of a folder (`reader1/p1` beside `scans/p1`, `p1/reader1/lge` beside `p1/lge`) or of the file
    (`p1/observerA` beside `p1/p1`); the file's name may have further words (`gd/p1_gd` beside `de/p1_de`). A mask in
    the top folder is skipped if several scans fit. `is_label` is true if only one scan fits, `OUTLINE_WORDS` has all
    the mask's further words, and the scan's path has all the mask's words for the modality.

    The files that share a part, such as `reader1`, may be masks only if a scan fits each of them and the first of them
    has few values. If not, the remaining files are not read, since reading all files would be slow. For the same
    reason, paths that differ in one part are not compared if this part has more than `_PARALLEL_PARTS` names, such as
    names of patients.
    """
    keys = {file.path: _plain_key(file.key) for file in scans}
    scans_by_key: defaultdict[tuple[str, ...], list[NamedFile]] = defaultdict(list)
    parallel: defaultdict[tuple[int, tuple[str, ...]], defaultdict[str, list[NamedFile]]]
    parallel = defaultdict(lambda: defaultdict(list))
    groups: defaultdict[tuple[int, str], list[NamedFile]] = defaultdict(list)
    for file in scans:
        key = keys[file.path]
        scans_by_key[key].append(file)
        for n, part in enumerate(key):
            parallel[n, _without_part(key, n)][part].append(file)
            groups[n, part].append(file)

    def fitting_scans(file: NamedFile, n: int) -> tuple[list[NamedFile], frozenset[str]]:
        """Return the scans that fit the file if part `n` of its path is left out or replaced.

        Also return the words of this part and the further words of the file's name.
        """
        key = keys[file.path]
        rest, is_name = _without_part(key, n), n == len(key) - 1
        beside = parallel[n, rest]
        if len(beside) > _PARALLEL_PARTS:
            return [], frozenset()
        shorter_names = (rest,) if is_name else (*name_starts(rest), rest[:-1])
        for shorter in (name for name in shorter_names if name or is_name):
            found = list(scans_by_key[shorter]) if shorter in scans_by_key else []
            parts = list(parallel[n, shorter].items()) if (n, shorter) in parallel else []
            if len(parts) <= _PARALLEL_PARTS:
                found += [scan for part, files in parts if part != key[n] for scan in files]
            if found:
                dropped = SEPARATORS.split(key[n]) + SEPARATORS.split("_".join(rest).removeprefix("_".join(shorter)))
                return found, frozenset(word for word in dropped if word.isalnum())
        return [], frozenset()

    for (n, _), files in groups.items():
        fitting = [fitting_scans(file, n) for file in files]
        if not all(found for found, _ in fitting) or not has_few_values(files[0].path):
            continue
        for file, (found, words) in zip(files, fitting, strict=True):
            if not has_few_values(file.path):
                continue
            real = [scan for scan in found if not has_few_values(scan.path)]
            if real and (len(real) == 1 or len(keys[file.path]) > 1):
                fits = words <= OUTLINE_WORDS and modalities(file.key) <= modalities(real[0].key)
                yield file, real[0], fits and len(real) == 1


def _plain_key(key: tuple[str, ...]) -> tuple[str, ...]:
    """Return the `loose_key` of a key without `_0000`; of equal neighbouring parts, only one is kept."""
    parts = loose_key(without_first_channel(key))
    return tuple(part for n, part in enumerate(parts) if n == 0 or part != parts[n - 1])


def _without_part(key: tuple[str, ...], n: int) -> tuple[str, ...]:
    return _plain_key((*key[:n], *key[n + 1 :]))


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
        voxels = read_labelmap(path).voxels.ravel(order="K")
    except InputError:
        return False
    sample = voxels[:: max(1, voxels.size // _SAMPLE)]
    return len(np.unique(sample)) <= FEW_VALUES and len(np.unique(voxels)) <= FEW_VALUES
