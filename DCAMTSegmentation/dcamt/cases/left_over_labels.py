"""Pair left-over labels with scans of similar names.

A label is left over if no scan has its key (for the terms, see `names`).
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..io.channels import has_further_numbers
from ..io.formats import scan_name
from .keys import Key, loose_key, lower_key, name_starts, without_first_channel
from .names import NamedFile
from .words import (
    KIND_WORDS,
    OUTLINE_WORDS,
    describes_label,
    is_folder_of_all_images,
    is_folder_of_labels,
    is_folder_of_labels_of_a_part,
    may_be_other_structure,
    modalities,
    rest_of,
    without_numbers_after_labels,
    without_outline_words,
    without_words,
    words_of,
)

_Simplify = Callable[[NamedFile], Hashable]
"""A function that simplifies a file's key or path. A label fits a scan if their simplified values are equal."""


def with_keys_of_scans(
    labels: Sequence[NamedFile], scans: Sequence[NamedFile], names: Mapping[str, Key]
) -> list[NamedFile]:
    """Return the labels; each label that fits a scan by a rule gets the scan's key.

    Args:
        names: a mapping from the names of the cases to the keys of their scans.
    """
    for rule in (
        partial(_named_after_cases, names=names),  # scan `p1/LGE`, label `p1_LGE_seg`
        _only_label_of_folder,  # `lge`, `Segmentation`
        _named_like_scans,  # `p1_lge`, `p1_LA_gt`
        _several_labels_of_folder,  # `lge`, `Segmentation`, `Segmentation_1`
    ):
        found = dict(rule(labels, scans))
        labels = [replace(label, key=found.get(label.path, label.key)) for label in labels]
    return list(labels)


def _left_over(labels: Iterable[NamedFile], scans: Iterable[NamedFile]) -> list[NamedFile]:
    keys = {scan.key for scan in scans}
    return [label for label in labels if label.key not in keys]


def _unlabelled(scans: Iterable[NamedFile], labels: Iterable[NamedFile]) -> set[Key]:
    """Return the keys that belong to one scan and to no label."""
    counts = Counter(scan.key for scan in scans)
    return {key for key, count in counts.items() if count == 1} - {label.key for label in labels}


def _named_after_cases(
    labels: Sequence[NamedFile], scans: Sequence[NamedFile], names: Mapping[str, Key]
) -> Iterator[tuple[Path, Key]]:
    """Yield (label, key) for each left-over label that is named after a case: `p1_LGE_seg` for `p1/LGE`.

    `dcamt rank` and DCAMT Training name the segmentation of a case after the case.

    The names of the label's folders must occur in the scan's path: `siteB/p1_LGE_seg` is no label of `siteA/p1/LGE`.
    Names such as `LA` need not occur.
    """
    counts = Counter(map(str.casefold, names))
    without_capitals = {name.casefold(): key for name, key in names.items() if counts[name.casefold()] == 1}
    unlabelled = _unlabelled(scans, labels)
    for label in _left_over(labels, scans):
        *folders, name = label.key or ("",)
        key = names.get(name, without_capitals.get(name.casefold()))
        # `left` may be a side: `left/p1_seg` is no label of `right/p1`.
        further = {folder.casefold() for folder in folders if without_words(folder, OUTLINE_WORDS - {"left"})}
        if key in unlabelled and further <= {part.casefold() for part in key}:
            yield label.path, key


def _only_label_of_folder(labels: Sequence[NamedFile], scans: Sequence[NamedFile]) -> Iterator[tuple[Path, Key]]:
    for scan, folder_labels, fitting in _labels_beside_single_scans(labels, scans):
        if len(folder_labels) == len(fitting) == 1:
            yield fitting[0].path, scan.key


def _several_labels_of_folder(labels: Sequence[NamedFile], scans: Sequence[NamedFile]) -> Iterator[tuple[Path, Key]]:
    for scan, _, fitting in _labels_beside_single_scans(labels, scans):
        if len(fitting) > 1:
            yield from ((label.path, scan.key) for label in fitting)


def _labels_beside_single_scans(
    labels: Sequence[NamedFile], scans: Sequence[NamedFile]
) -> Iterator[tuple[NamedFile, list[NamedFile], list[NamedFile]]]:
    """Yield (scan, labels of the folder, labels that may belong to the scan) for each folder with a single scan.

    If another label has the scan's key, such as a label in another folder, the folder is left out.
    """
    with_key: defaultdict[Key, set[Path]] = defaultdict(set)
    for label in labels:
        with_key[label.key].add(label.path)
    left_over = {label.path for label in _left_over(labels, scans)}
    similar: defaultdict[Key, set[Key]] = defaultdict(set)
    for scan in scans:
        if loose := loose_key(scan.key):
            similar[loose].add(scan.key)

    def may_belong(label: NamedFile, scan: NamedFile) -> bool:
        name, start = scan_name(label.path), scan_name(scan.path)
        if label.path in left_over:
            is_similar_to_other_scan = scan.key not in similar.get(loose_key(label.key), {scan.key})
            # `LGE Segmentation_1` or `Segmentation_1`, beside `LGE`.
            return not is_similar_to_other_scan and describes_label(rest_of(name, start) or name, start)
        return label.key == scan.key and describes_label(name, start)

    scans_in = _by_folder(scans)
    for place, folder_labels in _by_folder(labels).items():
        if len(scans_in[place]) == 1:
            (scan,) = scans_in[place]
            fitting = [label for label in folder_labels if may_belong(label, scan)]
            has_further_labels = not with_key[scan.key] <= {label.path for label in fitting}
            if not has_further_labels:
                yield scan, folder_labels, fitting


def _by_folder(files: Iterable[NamedFile]) -> defaultdict[Path, list[NamedFile]]:
    by_folder: defaultdict[Path, list[NamedFile]] = defaultdict(list)
    for file in files:
        is_dicom_folder = os.path.isdir(file.path)
        by_folder[file.path if is_dicom_folder else file.path.parent].append(file)
    return by_folder


def _named_like_scans(labels: Sequence[NamedFile], scans: Sequence[NamedFile]) -> Iterator[tuple[Path, Key]]:
    """Yield (label, key of the scan) for each left-over label that is named like one scan."""
    comparisons: tuple[tuple[_Simplify, _Simplify, _Simplify], ...] = (
        (_without_capitals, _without_capitals, _without_outline_words),  # `P1_image`, `p1_label`
        (_loose, _loose, _without_outline_words),  # `p1_lge`, `p1_seg`
        (_loose, _without_outline_words, _without_outline_words),  # `p1_lge`, `p1_LA_gt`
        (_loose, _without_numbers, _without_numbers),  # `p1_lge`, `p1 Segmentation 1`
        (_folder_and_name, _folder_and_name_of_label, _without_outline_words),  # `Patients/p1`, `Outlines/p1`
        (_folder_and_name_among_all, _folder_and_name_in_part, _without_outline_words),  # `images/p1`, `labelsVal/p1`
    )
    unlabelled, of_one_scan = _unlabelled(scans, labels), _unlabelled(scans, ())
    names_of_cases: defaultdict[Key, set[str]] = defaultdict(set)
    for label in labels:
        names_of_cases[label.key].add(_name_of_case(label))
    starts: defaultdict[Hashable, set[Key]] = defaultdict(set)
    for key in {scan.key for scan in scans}:
        loose = loose_key(key)
        for start in (*name_starts(loose), loose[:-1]):
            starts[start].add(key)
    remaining = _left_over(labels, scans)
    for simplify_scan, simplify_label, start_of in comparisons:
        fitting: defaultdict[Hashable, set[Key]] = defaultdict(set)
        for scan in scans:
            fitting[simplify_scan(scan)].add(scan.key)
        found = {}
        for label in remaining:
            keys = fitting.get(simplify_label(label), set())
            if len(keys) != 1 or not keys <= of_one_scan or not modalities(label.key) <= modalities(*keys):
                continue
            (key,) = keys
            if key not in unlabelled and _name_of_case(label) not in names_of_cases[key]:
                continue
            has_same_name = lower_key(label.key)[-1:] == lower_key(key)[-1:]
            other_scan_begins_with_name = not starts[start_of(label)] <= keys
            if has_same_name or not other_scan_begins_with_name:
                found[label.path] = key
        yield from found.items()
        remaining = [label for label in remaining if label.path not in found]


def _without_capitals(file: NamedFile) -> Hashable:
    return lower_key(file.key)


def _loose(file: NamedFile) -> Hashable:
    return loose_key(file.key)


def _without_outline_words(file: NamedFile) -> Hashable:
    """Return the loose key without the words of `OUTLINE_WORDS`: `("p1",)` for `p1_LA_gt`."""
    if may_be_other_structure(words_of("".join(file.key[-1:]))):
        return file.path  # A path is never equal to a loose key.
    return tuple(filter(None, map(without_outline_words, loose_key(file.key))))


def _name_of_case(label: NamedFile) -> str:
    """Return a label's name in lower case, without the words that describe the label.

    Words for the modality are kept: `p1_lge` for `p1_lge_LA_seg_v2`.
    """
    name = without_words(without_numbers_after_labels(scan_name(label.path)), KIND_WORDS)
    return without_outline_words(name).casefold()


def _without_numbers(label: NamedFile) -> Hashable:
    """Return `_without_outline_words` of a label, after removing the numbers that follow a word for labels.

    Example: `("p1",)` for `p1 Segmentation 1`.
    """
    name = scan_name(label.path)
    shorter = without_numbers_after_labels(name)
    if shorter == name:
        return label.path  # fits no scan
    return _without_outline_words(replace(label, key=(*label.key[:-1], without_words(shorter, KIND_WORDS))))


def _folder_and_name(file: NamedFile) -> Hashable:
    """Return the folder above a file's folder, and the last part of the file's loose key.

    `_0000` at the end of the last part is removed. But if the file `x_0001` lies beside the file `x_0000`, `_0000` is
    kept, because the numbers may mean patients. If the last part is empty, return the path, which fits no other file.
    """
    key = file.key if has_further_numbers(file.path) else without_first_channel(file.key)
    name = "".join(loose_key(key[-1:]))
    return (file.path.parent.parent, name) if name else file.path


def _folder_and_name_of_label(file: NamedFile) -> Hashable:
    """Return `_folder_and_name(file)` if the label lies in a folder of labels, else its path, which fits no scan.

    In other folders, a scan and a label of one name may belong to different patients: `p1/heart`, `p2/heart_label`.
    """
    return _folder_and_name(file) if is_folder_of_labels(file.path.parent.name) else file.path


def _folder_and_name_among_all(file: NamedFile) -> Hashable:
    return _folder_and_name(file) if is_folder_of_all_images(file.path.parent.name) else file.path


def _folder_and_name_in_part(file: NamedFile) -> Hashable:
    return _folder_and_name(file) if is_folder_of_labels_of_a_part(file.path.parent.name) else file.path
