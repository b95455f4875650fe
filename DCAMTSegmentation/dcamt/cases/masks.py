"""Find masks whose path is a scan's path with further words (`p1_LA`) or further folders (`reader1/p1`).

Unlike a scan such as `p1_T1` or `visit2/p1`, a mask has few different values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
"""Paths that differ only in one part are compared if this part has at most this many different names.

For example, `reader1/p1` and `reader2/p1` differ only in the first part, which has two different names.
"""
_Key = tuple[str, ...]
_SAMPLE = 1 << 16
"""`has_few_values` examines a sample of about this many voxels first."""


def recognise_masks(named: Sequence[NamedFile]) -> list[NamedFile]:
    """Return the files; a mask that was taken for a scan becomes a label with the key of its scan.

    If the mask's name or folder adds a word that `OUTLINE_WORDS` lacks, the mask becomes a label of another structure.
    If all scans that fit a file have few values, the file is returned unchanged, since these scans may be labels, too.
    """
    masks = masks_named_after_scans(named)
    rest = [file for file in named if file.path not in masks and file.kind is FileKind.SCAN]
    for file, scan, fits in _masks_with_further_parts(rest):
        if file.path not in masks:
            kind = FileKind.LABEL if fits else FileKind.OTHER_LABEL
            masks[file.path] = replace(file, kind=kind, key=without_first_channel(scan.key))
    for file, scan in _masks_named_like_scans([file for file in rest if file.path not in masks]):
        masks[file.path] = replace(file, kind=FileKind.OTHER_LABEL, key=without_first_channel(scan.key))
    # A mask does not become a second label of a scan that has a label by name. A label belongs to a scan if the scan's
    # loose key ends with the label's loose key: `labels/p1` belongs to `cohort/p1`. But if a label's key equals
    # a scan's key, the label belongs only to this scan: `p1_cine_seg` belongs to `p1_cine`, not to `p1_lge`.
    labelled = {without_first_channel(file.key) for file in named if file.kind is FileKind.LABEL}
    scans = {without_first_channel(file.key) for file in rest}
    without_scan = {loose_key(key) for key in labelled - scans}
    for path, mask in masks.items():
        key = loose_key(mask.key)
        if mask.key in labelled or not without_scan.isdisjoint(key[n:] for n in range(len(key))):
            masks[path] = replace(mask, kind=FileKind.OTHER_LABEL)
    return [masks.get(file.path, file) for file in named]


def _masks_named_like_scans(scans: Sequence[NamedFile]) -> Iterator[tuple[NamedFile, NamedFile]]:
    """Yield (mask, scan) for each mask whose path differs from a scan's only in words for the format (`nifti/p1`)."""
    similar: defaultdict[tuple[_Key, frozenset[str]], list[NamedFile]] = defaultdict(list)
    for file in scans:
        similar[_plain_key(file.key), frozenset(modalities(file.key))].append(file)
    for files in similar.values():
        if len(files) > 1 and (scan := next((file for file in files if not has_few_values(file.path)), None)):
            yield from ((file, scan) for file in files if file is not scan and has_few_values(file.path))


def masks_named_after_scans(named: Sequence[NamedFile]) -> dict[Path, NamedFile]:
    """Return {path: label with the scan's key} for each mask whose name is a scan's name with further words."""
    masks: dict[Path, NamedFile] = {}
    for file, scan, words in named_after_scans(named):
        if file.path not in masks and has_few_values(file.path) and not has_few_values(scan.path):
            kind = FileKind.LABEL if words <= OUTLINE_WORDS else FileKind.OTHER_LABEL
            masks[file.path] = replace(file, kind=kind, key=without_first_channel(scan.key))
    return masks


def _masks_with_further_parts(scans: Sequence[NamedFile]) -> Iterator[tuple[NamedFile, NamedFile, bool]]:
    """Yield (mask, scan, is_label) for each mask that fits a scan as `_Parts.fitting` says.

    If several scans fit a mask whose key has only one part, the mask is skipped. `is_label` is true if only one scan
    fits, `OUTLINE_WORDS` has all the mask's further words, and the scan's path has all the mask's words for the
    modality.

    Reading all files would be slow. Therefore, the files that share a part of their paths, such as `reader1`, are
    searched for masks only if each of these files has a fitting scan and the first file has few values.
    """
    parts = _Parts(scans)
    for (n, _), files in parts.files_sharing.items():
        fitting = [parts.fitting(file, n) for file in files]
        if not all(found for found, _ in fitting) or not has_few_values(files[0].path):
            continue
        for file, (found, words) in zip(files, fitting, strict=True):
            if not has_few_values(file.path):
                continue
            real = [scan for scan in found if not has_few_values(scan.path)]
            if real and (len(real) == 1 or len(parts.keys[file.path]) > 1):
                fits = words <= OUTLINE_WORDS and modalities(file.key) <= modalities(real[0].key)
                yield file, real[0], fits and len(real) == 1


class _Parts:
    """The scans of a folder, indexed by their paths and by their paths without one part.

    Attributes:
        keys: the `_plain_key` of each file, by path.
        files_sharing: for each (n, name), the files whose key has this name as part n.
    """

    def __init__(self, scans: Sequence[NamedFile]) -> None:
        self.keys = {file.path: _plain_key(file.key) for file in scans}
        self.files_sharing: defaultdict[tuple[int, str], list[NamedFile]] = defaultdict(list)
        self._by_key: defaultdict[_Key, list[NamedFile]] = defaultdict(list)
        self._without_part: defaultdict[tuple[int, _Key], defaultdict[str, list[NamedFile]]]
        self._without_part = defaultdict(lambda: defaultdict(list))
        for file in scans:
            key = self.keys[file.path]
            self._by_key[key].append(file)
            for n, part in enumerate(key):
                self.files_sharing[n, part].append(file)
                self._without_part[n, _without_part(key, n)][part].append(file)

    def fitting(self, file: NamedFile, n: int) -> tuple[list[NamedFile], frozenset[str]]:
        """Return the scans that fit a file if part `n` of its path is left out or replaced.

        The part may be a folder (`reader1/p1` fits `scans/p1`, and `p1/reader1/lge` fits `p1/lge`) or the file's name
        (`p1/observerA` fits `p1/p1`). If the part is a folder, words at the end of the file's name may be left out,
        too. For example, `gd/p1_gd` fits `de/p1_de`, since both become `p1`: the first without the folder and the word
        `gd`, the second because `_plain_key` removes words for the modality, such as `de`, from folders and names.

        The second result holds the further words of the file's name and the words of part `n`.
        """
        key = self.keys[file.path]
        rest, is_name = _without_part(key, n), n == len(key) - 1
        if self._replacing(n, rest) is None:
            return [], frozenset()
        for shorter in (rest,) if is_name else (*name_starts(rest), rest[:-1]):
            if not shorter and not is_name:
                continue
            found = list(self._by_key.get(shorter, ()))
            replacing = self._replacing(n, shorter) or {}
            found += [scan for part, scans in replacing.items() if part != key[n] for scan in scans]
            if found:
                dropped = SEPARATORS.split(key[n]) + SEPARATORS.split("_".join(rest).removeprefix("_".join(shorter)))
                return found, frozenset(word for word in dropped if word.isalnum())
        return [], frozenset()

    def _replacing(self, n: int, rest: _Key) -> Mapping[str, list[NamedFile]] | None:
        """Return {part n: scans} for the scans whose key without part n is `rest`.

        Returns None if there are more than `_PARALLEL_PARTS` different parts, such as the names of many patients.
        """
        if (n, rest) not in self._without_part:
            return {}
        found = self._without_part[n, rest]
        return found if len(found) <= _PARALLEL_PARTS else None


def _plain_key(key: _Key) -> _Key:
    """Return the `loose_key` of a key without `_0000`; of equal neighbouring parts, only one is kept."""
    parts = loose_key(without_first_channel(key))
    return tuple(part for n, part in enumerate(parts) if n == 0 or part != parts[n - 1])


def _without_part(key: _Key, n: int) -> _Key:
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
