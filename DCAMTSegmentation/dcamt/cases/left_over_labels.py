"""Pair left-over labels with scans of similar names.

A label is left over if no scan has its key (for the terms, see `names`). Five rules find its scan, in this order:

1. The keys differ only in capitals: `P1_image`, `p1_label`.
2. The loose keys are equal: `p1_lge`, `p1_seg`.
3. The scan's loose key is the label's without words of `OUTLINE_WORDS`: `p1_lge`, `p1_LA_gt`.
4. As rule 3, but numbers after a word for labels are left out, too: `p1_lge`, `p1 Segmentation 1`.
5. The names are equal and the folders lie side by side; the label's is a folder of labels: `Patients/p1`,
   `Outlines/p1`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace

from ..io.channels import has_further_numbers
from ..io.formats import scan_name
from .names import NamedFile, loose_key, name_starts, without_first_channel
from .words import (
    ATRIUM_WORDS,
    KIND_WORDS,
    OUTLINE_WORDS,
    has_word,
    is_folder_of_labels,
    modalities,
    without_numbers_after_labels,
    without_outline_words,
    without_words,
)

FilesByKey = defaultdict[tuple[str, ...], list[NamedFile]]
"""The scans or the labels of a folder by their keys."""
_Simplify = Callable[[NamedFile], Hashable]
"""A function that simplifies a file's key or path. A label fits a scan if their simplified values are equal."""


def pair_left_over_labels(scans: FilesByKey, labels: FilesByKey) -> None:
    """Give each left-over label the key of the only scan that fits it.

    The module's rules are tried in their order. A label gets the key of a scan if four conditions hold:

    - Exactly one scan fits by the rule: with `p1_lge` and `p1_cine`, `p1_seg` gets no scan.
    - The scan had no label before the call. Several left-over labels may get the key of one scan.
    - The scan's path has all the label's words for the modality: `MR_labels/p1` is no label of `CT/p1`.
    - No other scan's loose key starts with the label's loose key without words of `OUTLINE_WORDS` (in rule 4, also
      without the numbers): with `p1_lge` and `p1_post`, `p1_LA_gt` gets no scan. This condition is waived if the last
      part of the label's key and the last part of the fitting scan's key are equal in lower case: with `P1_image` and
      `p1_post`, `p1_label` gets the key of `P1_image`.
    """
    unlabelled = {key for key, files in scans.items() if len(files) == 1 and key not in labels}
    # (simplify_scan, simplify_label, start_of): no other scan's loose key may start with `start_of(label)`.
    rules: tuple[tuple[_Simplify, _Simplify, _Simplify], ...] = (
        (_without_capitals, _without_capitals, _without_outline_words),
        (_loose, _loose, _without_outline_words),
        (_loose, _without_outline_words, _without_outline_words),
        (_loose, _without_numbers, _without_numbers),
        (_folder_and_name, _folder_and_name_of_label, _without_outline_words),
    )
    starts: defaultdict[Hashable, set[tuple[str, ...]]] = defaultdict(set)
    for key in scans:
        loose = loose_key(key)
        for start in (*name_starts(loose), loose[:-1]):
            starts[start].add(key)
    for simplify_scan, simplify_label, start_of in rules:
        fitting: defaultdict[Hashable, set[tuple[str, ...]]] = defaultdict(set)
        for file in _all_files(scans):
            fitting[simplify_scan(file)].add(file.key)
        for label in [file for file in _all_files(labels) if file.key not in scans]:
            keys = fitting.get(simplify_label(label), set())
            if len(keys) != 1 or not keys <= unlabelled or not modalities(label.key) <= modalities(*keys):
                continue
            (key,) = keys
            has_same_name = _without_capitals(label)[-1:] == tuple(part.casefold() for part in key[-1:])
            if has_same_name or starts[start_of(label)] <= keys:
                _move(labels, label, key)


def pair_labels_named_after_cases(scans: FilesByKey, labels: FilesByKey, names: Mapping[str, tuple[str, ...]]) -> None:
    """Give each left-over label that is named after a case the key of the case's scan: `p1_LGE_seg` for `p1/LGE`.

    `dcamt rank` and DCAMT Training name the segmentation of a case after the case. A label gets the scan's key if three
    conditions hold:

    - The last part of the label's key is the case's name. Capitals may differ if no other case has the same name in
      other capitals.
    - The scan had no label before the call, and no other scan has its key.
    - Each folder of the label is a folder of the scan, or has only words of `OUTLINE_WORDS - {"left"}` in its name.
      Thus `siteB/p1_LGE_seg` is no label of `siteA/p1/LGE`, and `left/p1_seg` is no label of `right/p1`.

    Args:
        names: a mapping from case names to the keys of the scans.
    """
    counts = Counter(map(str.casefold, names))
    without_capitals = {name.casefold(): key for name, key in names.items() if counts[name.casefold()] == 1}
    unlabelled = {key for key, files in scans.items() if len(files) == 1 and key not in labels}
    for label in [file for file in _all_files(labels) if file.key not in scans]:
        *folders, name = label.key or ("",)
        key = names.get(name, without_capitals.get(name.casefold()))
        further = {folder.casefold() for folder in folders if without_words(folder, OUTLINE_WORDS - {"left"})}
        if key in unlabelled and further <= {part.casefold() for part in key}:
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


def _without_outline_words(file: NamedFile) -> Hashable:
    """Return the loose key without the words of `OUTLINE_WORDS`: `("p1",)` for `p1_LA_gt`.

    If the name has the word `heart` but none for the atrium, return the path, which fits no scan: `p1_heart_seg`.
    """
    name = "".join(file.key[-1:])
    if has_word(name, {"heart"}) and not has_word(name, ATRIUM_WORDS - {"left"}):
        return file.path
    return tuple(filter(None, map(without_outline_words, loose_key(file.key))))


def _without_numbers(label: NamedFile) -> Hashable:
    """Return `_without_outline_words` of a label, after removing the numbers that follow a word for labels.

    Example: `("p1",)` for `p1 Segmentation 1`. If there are no such numbers, return the path, which fits no scan.
    """
    name = scan_name(label.path)
    shorter = without_numbers_after_labels(name)
    if shorter == name:
        return label.path
    return _without_outline_words(replace(label, key=(*label.key[:-1], without_words(shorter, KIND_WORDS))))


def _folder_and_name(file: NamedFile) -> Hashable:
    """Return the folder above a file's folder, and the last part of the file's loose key.

    The part loses `_0000` at its end, unless `x_0001` lies beside `x_0000`: the two files may belong to two patients.
    If the part is empty, return the file's path, which fits no other file.
    """
    key = file.key if has_further_numbers(file.path) else without_first_channel(file.key)
    name = "".join(loose_key(key[-1:]))
    return (file.path.parent.parent, name) if name else file.path


def _folder_and_name_of_label(file: NamedFile) -> Hashable:
    """Return `_folder_and_name(file)` if the label lies in a folder of labels, else its path, which fits no scan.

    In other folders, a scan and a label of one name may belong to different patients: `p1/heart`, `p2/heart_label`.
    """
    return _folder_and_name(file) if is_folder_of_labels(file.path.parent.name) else file.path
