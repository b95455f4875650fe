"""Pair labels whose names no scan has with the scans to which they most probably belong.

The names may differ in capitals (`P1_image`, `p1_label`), in words for the modality (`p1_lge`, `p1_seg`), in words for
the atrium (`ct`, `segmentations/heart_atrium_left`), or in the folders (`Patients/p1`, `Outlines/p1`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator
from pathlib import Path

from .names import OTHER_STRUCTURES, NamedFile, has_word, loose_key, modalities, without_outline_words

FilesByKey = defaultdict[tuple[str, ...], list[NamedFile]]
"""The scans or the labels of a folder by their keys."""
_Simplify = Callable[[NamedFile], Hashable]
"""A function that returns the parts of a file's path in which a scan and its label must agree."""


def pair_left_over_labels(scans: FilesByKey, labels: FilesByKey) -> None:
    """Give each label without a scan the key of the only scan whose name fits, if that scan has no label.

    If several scans fit, or the label names another modality, the label is left as it is. Several labels may get
    the key of one scan.
    """
    unlabelled = {key for key, files in scans.items() if len(files) == 1 and key not in labels}
    scan_folders, label_folders = ({file.path.parent for file in _all_files(files)} for files in (scans, labels))
    rules: tuple[tuple[_Simplify, _Simplify], ...] = (
        (_without_capitals, _without_capitals),
        (_loose, _loose),
        (_loose, _without_structure),
        (_beside(label_folders), _beside(scan_folders, words=OTHER_STRUCTURES)),
    )
    for simplify_scan, simplify_label in rules:
        fitting: defaultdict[Hashable, set[tuple[str, ...]]] = defaultdict(set)
        for file in _all_files(scans):
            fitting[simplify_scan(file)].add(file.key)
        for label in [file for file in _all_files(labels) if file.key not in scans]:
            keys = fitting.get(simplify_label(label), set())
            if len(keys) == 1 and keys <= unlabelled and modalities(label.key) <= modalities(*keys):
                _move(labels, label, *keys)


def _all_files(files_by_key: FilesByKey) -> Iterator[NamedFile]:
    """Yield all files, with the keys under which they are listed."""
    for key, files in files_by_key.items():
        for file in files:
            yield NamedFile(file.path, file.kind, key)


def _move(labels: FilesByKey, label: NamedFile, key: tuple[str, ...]) -> None:
    """List a label under another key."""
    rest = [file for file in labels.pop(label.key) if file.path != label.path]
    if rest:
        labels[label.key] = rest
    labels[key].append(label)


def _without_capitals(file: NamedFile) -> Hashable:
    return tuple(part.casefold() for part in file.key)


def _loose(file: NamedFile) -> Hashable:
    return loose_key(file.key)


def _without_structure(file: NamedFile) -> Hashable:
    return tuple(filter(None, map(without_outline_words, loose_key(file.key))))


def _beside(others: Collection[Path], words: Collection[str] = ()) -> _Simplify:
    """Return a function that returns the folder above a file's folder and the file's own name, as in its loose key.

    The function returns the file's path, which fits no other file, if the file's folder is one of `others`, the
    folder's name has one of the words, or nothing of the file's name is left.
    """

    def simplify(file: NamedFile) -> Hashable:
        folder, name = file.path.parent, "".join(loose_key(file.key[-1:]))
        return file.path if folder in others or not name or has_word(folder.name, words) else (folder.parent, name)

    return simplify
