"""Pair each label that has no scan of the same name with the only scan of a similar name.

The names may differ in capitals (`P1_image`, `p1_label`), in words for the modality (`p1_lge`, `p1_seg`), in words for
the atrium (`p1`, `p1_LA_gt`), or in the folders (`Patients/p1`, `Outlines/p1`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator

from ..io.channels import channel_files
from .names import (
    ATRIUM_WORDS,
    NamedFile,
    has_word,
    is_folder_of_labels,
    loose_key,
    modalities,
    name_starts,
    without_first_channel,
    without_outline_words,
)

FilesByKey = defaultdict[tuple[str, ...], list[NamedFile]]
"""The scans or the labels of a folder by their keys."""
_Simplify = Callable[[NamedFile], Hashable]
"""A function that returns the parts of a file's path in which a scan and its label must agree."""


def pair_left_over_labels(scans: FilesByKey, labels: FilesByKey) -> None:
    """Give labels the keys of their scans, where the keys differ.

    A label whose key is not the key of a scan gets the key of the only scan whose name fits.

    A scan that has a label before the call gets no other label. Several labels may get the key of a scan that has no
    label before the call. If several scans fit, or the label names another modality, the label keeps its key. If there
    are scans `p1_lge` and `p1_post`, a label `p1` also keeps its key, since both scans' names start with `p1`.
    """
    unlabelled = {key for key, files in scans.items() if len(files) == 1 and key not in labels}
    rules: tuple[tuple[_Simplify, _Simplify], ...] = (
        (_without_capitals, _without_capitals),
        (_loose, _loose),
        (_loose, _without_structure),
        (_beside, _beside_folder_of_labels),
    )
    starts: defaultdict[Hashable, set[tuple[str, ...]]] = defaultdict(set)
    for key in scans:
        loose = loose_key(key)
        for start in (*name_starts(loose), loose[:-1]):
            starts[start].add(key)
    for simplify_scan, simplify_label in rules:
        fitting: defaultdict[Hashable, set[tuple[str, ...]]] = defaultdict(set)
        for file in _all_files(scans):
            fitting[simplify_scan(file)].add(file.key)
        for label in [file for file in _all_files(labels) if file.key not in scans]:
            keys = fitting.get(simplify_label(label), set())
            if len(keys) != 1 or not keys <= unlabelled or not modalities(label.key) <= modalities(*keys):
                continue
            (key,) = keys
            has_same_name = _without_capitals(label)[-1:] == tuple(part.casefold() for part in key[-1:])
            if has_same_name or starts[_without_structure(label)] <= keys:
                _move(labels, label, key)


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


def _without_capitals(file: NamedFile) -> tuple[str, ...]:
    return tuple(part.casefold() for part in file.key)


def _loose(file: NamedFile) -> Hashable:
    return loose_key(file.key)


def _without_structure(file: NamedFile) -> Hashable:
    """Return the loose key without `OUTLINE_WORDS`.

    If the file's name mentions the heart but not the atrium, return the path, which fits no scan.
    """
    name = "".join(file.key[-1:])
    if has_word(name, {"heart"}) and not has_word(name, ATRIUM_WORDS - {"left"}):
        return file.path
    return tuple(filter(None, map(without_outline_words, loose_key(file.key))))


def _beside(file: NamedFile) -> Hashable:
    """Return the folder above a file's folder, and the file's name in lower case without `MODALITY_WORDS`.

    `_0000` at the end of the name is removed, unless the file's folder also holds a file with `_0001` in place of
    `_0000`. If the name is empty, return the file's path.
    """
    key = file.key if channel_files(file.path) else without_first_channel(file.key)
    name = "".join(loose_key(key[-1:]))
    return (file.path.parent.parent, name) if name else file.path


def _beside_folder_of_labels(file: NamedFile) -> Hashable:
    """Return the result of `_beside` if the file lies in a folder of labels, otherwise the path, which fits no scan.

    In other folders, a scan and a label of the same name may belong to different patients, sites or times: `p1/heart`
    and `p2/heart_label`.
    """
    return _beside(file) if is_folder_of_labels(file.path.parent.name) else file.path
