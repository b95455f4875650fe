"""Distinguish scans from labels by the names of files and folders, and find the files that belong to one case.

Terms of the package `cases` (the examples leave out the endings of files):

- Part: the name of a folder below the searched folder, or a file's name without its ending.
- Word: a piece of a part. `p1_mask`, `p1-mask`, `p1.mask`, `p1 mask` and `p1Mask` have the words `p1` and `mask`.
- Kind: scan, label, label of another structure, or automatic result (`FileKind`).
- Key: the parts of a file's path without words for the kind. Files with equal keys belong to one case: `images/p1` and
  `labels/p1_seg` have the key `("p1",)`.
- Loose key: the key in lower case, with `_` as separator, without words for the modality or the file format.
  `MRI/Patient 1_lge` has the loose key `("patient_1",)`.
- Mask: a file that is named like a scan but has few different values, such as `p1_LA` beside `p1`.
- Further words: the words that a file's path has in addition to a scan's path. `p1_LA` adds `la` to `p1`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import product, takewhile
from pathlib import Path

from ..io.formats import LABEL_ENDINGS, SCAN_ENDINGS, ending, scan_name
from .keys import Key, loose_key, lower_key, name_starts, without_first_channel
from .words import (
    ATRIUM_WORDS,
    IMAGE_WORDS,
    KIND_WORDS,
    LABEL_WORDS,
    OTHER_LABEL_WORDS,
    OTHER_STRUCTURES,
    OTHER_STRUCTURES_WITHOUT_LGE,
    OUTLINE_WORDS,
    PREDICTION_WORDS,
    QUALIFIERS,
    RESULT_WORDS,
    SEPARATORS,
    has_word,
    may_be_other_structure,
    without_words,
    words_of,
)

_WORDS_OF_ANY_LABEL = LABEL_WORDS | OTHER_LABEL_WORDS


class FileKind(Enum):
    """The kind of a file. `classify_all` returns only `SCAN`, `LABEL`, `OTHER_LABEL` and `RESULT`."""

    SCAN = "scan"
    LABEL = "label"
    OTHER_LABEL = "label of another structure"
    RESULT = "automatic result"
    MASK_WITHOUT_SCAN = "mask whose scan is missing"
    DCAMT_RESULT = "label with DCAMT's mark"
    OTHER_CHANNEL = "channel file of a scan, other than the first"
    CONTOURS = "contours (RT Structure Set)"


@dataclass(frozen=True)
class NamedFile:
    """A file with its kind and its key (see the terms above)."""

    path: Path
    kind: FileKind
    key: Key


def classify(path: Path, folder: Path, folders_of_cases: Collection[Path] = ()) -> NamedFile:
    """Return the kind and the key of a file below `folder`, judged by the words of its path alone.

    The first rule that applies determines the kind:
    - a word of `PREDICTION_WORDS`: an automatic result, such as `p1_pred`;
    - a word of `OTHER_LABEL_WORDS`: a label of another structure, such as `p1_lawall`;
    - a word of `LABEL_WORDS`, or an ending that only labels have: a label, such as `labels/p1` or `p1.seg.nrrd`;
    - otherwise: a scan.

    Args:
        folders_of_cases: in the names of these folders, words for labels are ignored.
    """
    parts = _parts(path, folder)
    words = set().union(*map(words_of, parts[-1:]))
    place = folder
    for part in parts[:-1]:
        place /= part
        ignored = _WORDS_OF_ANY_LABEL if place in folders_of_cases else frozenset()
        # A folder `predict` may hold scans that are still to be segmented.
        words |= words_of(part) - ignored - {"predict"}
    kind = FileKind.SCAN
    if words & PREDICTION_WORDS:
        kind = FileKind.RESULT
    elif words & OTHER_LABEL_WORDS:
        kind = FileKind.OTHER_LABEL
    elif words & LABEL_WORDS or (ending(path) not in SCAN_ENDINGS and ending(path) in LABEL_ENDINGS):
        kind = FileKind.LABEL
    return NamedFile(path, kind, _key(path, folder, KIND_WORDS))


def _folders_of_cases(named: Sequence[NamedFile], folder: Path) -> set[Path]:
    """Return the folders that have a word for labels in their names but hold scans.

    The folder `segmentation set` with the files `p1` and `p1_seg` is returned. But if a scan `mri/p1` or `mri/p1_post`
    exists, the folder is not returned, because `segmentation set/p1` is probably a label of this scan.
    """
    below: defaultdict[Path, list[Path]] = defaultdict(list)
    for file in named:
        if file.kind in (FileKind.LABEL, FileKind.OTHER_LABEL):
            for place in file.path.parents[: len(file.path.relative_to(folder).parts) - 1]:
                if words_of(place.name) & _WORDS_OF_ANY_LABEL:
                    below[place].append(file.path)
    keys = {loose_key(without_first_channel(file.key))[-1:] for file in named if file.kind is FileKind.SCAN}
    names_elsewhere = {start for key in keys for start in (key, *name_starts(key))}
    found: set[Path] = set()
    for place in sorted(below, key=lambda path: -len(path.parts)):  # The innermost folders first.
        of_scans = _keys_of_scans_in(place, [classify(path, place, found) for path in below[place]])
        is_name_used_elsewhere = any(loose_key(key)[-1:] in names_elsewhere for key in of_scans)
        if of_scans and not is_name_used_elsewhere:
            found.add(place)
    return found


def _keys_of_scans_in(place: Path, files: Sequence[NamedFile]) -> set[Key]:
    """Return the keys of the scans in a folder that has a word for labels in its name.

    Args:
        files: classified by their paths below the folder.
    """
    place_words = {word for word in words_of(place.name) if not word.isdecimal()}
    only_labels = place_words <= _WORDS_OF_ANY_LABEL
    has_ordinary_word = not place_words <= _WORDS_OF_ANY_LABEL | OUTLINE_WORDS | OTHER_STRUCTURES
    of_labels = {without_first_channel(file.key) for file in files if file.kind is FileKind.LABEL}
    of_scans = set()
    for file in (file for file in files if file.kind is FileKind.SCAN):
        words, key = list(map(words_of, _parts(file.path, place))), without_first_channel(file.key)
        # Beside `labels/p1_label`, the file `labels/p1_image` is a scan, but `labels/p1` is a label.
        may_be_scan = not only_labels or any(part & IMAGE_WORDS for part in words)
        is_in_folder_of_scans = any(part <= IMAGE_WORDS for part in words[:-1])
        if (key in of_labels and may_be_scan) or (has_ordinary_word and is_in_folder_of_scans):
            of_scans.add(key)
    return of_scans


def _parts(path: Path, folder: Path) -> list[str]:
    parts = list(path.relative_to(folder).parts)
    return [*parts[:-1], scan_name(path)] if parts else []


def _key(path: Path, folder: Path, dropped: Collection[str]) -> Key:
    return tuple(filter(None, (without_words(part, dropped) for part in _parts(path, folder))))


def classify_all(files: Iterable[Path], folder: Path) -> list[NamedFile]:
    """Return the kind and the key of each file below `folder`, judged by the words of all paths."""
    files = list(files)
    folders_of_cases = _folders_of_cases([classify(path, folder) for path in files], folder)
    named = [classify(path, folder, folders_of_cases) for path in files]
    named = _with_monai_results(named)
    named = _with_results(named, folder)
    return with_keys_of_scans_by_words(named)


def _with_monai_results(named: Sequence[NamedFile]) -> list[NamedFile]:
    """Give the labels in the folder `original` of MONAI Label the kind `FileKind.RESULT`.

    MONAI Label stores predicted labels in a folder `original`, and corrected labels in a folder `final` beside it.
    """
    folders = {file.path.parent for file in named if file.kind is FileKind.LABEL}
    corrected = {folder.parent for folder in folders if folder.name.lower() == "final"}
    # If `original` is a folder of DICOM slices, the scan's path is `original` itself, not a file in it.
    with_scans = {place for file in named if file.kind is FileKind.SCAN for place in (file.path, file.path.parent)}
    original = {folder for folder in folders if folder.name.lower() == "original" and folder.parent in corrected}
    return [
        replace(file, kind=FileKind.RESULT)
        if file.kind is FileKind.LABEL and file.path.parent in original - with_scans
        else file
        for file in named
    ]


def _with_results(named: Sequence[NamedFile], folder: Path) -> list[NamedFile]:
    """Give files with a word of `RESULT_WORDS` the kind `FileKind.RESULT` if they belong to a scan or label.

    Examples of such files:
    - `p1_output` or `output/p1`, beside the scan `p1`;
    - `p1_output`, beside the label `p1_label`;
    - `p1_LA_prob`, beside the scan `p1`.
    """
    unsure = {file.path for file in named if any(has_word(part, RESULT_WORDS) for part in _parts(file.path, folder))}
    scans, labels = (
        {without_first_channel(file.key) for file in named if file.kind is kind and file.path not in unsure}
        for kind in (FileKind.SCAN, FileKind.LABEL)
    )
    loose_scans = {loose_key(key) for key in scans}

    def is_result(key: Key, path: Path) -> bool:
        is_in_name = has_word(scan_name(path), RESULT_WORDS)
        return key in scans or (is_in_name and (key in labels or _adds_structures(key, loose_scans)))

    results = [NamedFile(path, FileKind.RESULT, _key(path, folder, KIND_WORDS | RESULT_WORDS)) for path in unsure]
    by_path = {file.path: file for file in results if is_result(without_first_channel(file.key), file.path)}
    return [by_path.get(file.path, file) for file in named]


def _adds_structures(key: Key, loose_scans: Collection[Key]) -> bool:
    shorter = _shorter_keys(key, ATRIUM_WORDS | OTHER_STRUCTURES_WITHOUT_LGE)
    keys = {loose_key(rest) for rest, dropped in shorter if dropped} - {()}
    return not keys.isdisjoint(loose_scans)


def with_keys_of_scans_by_words(named: Sequence[NamedFile], masks: Collection[Path] = ()) -> list[NamedFile]:
    """Return the files; a label without a scan of the same key gets the key of a fitting scan.

    For example, `p1_LA_gt` and `p1_RV_gt` get the key of `p1`. Since `rv` is in `OTHER_STRUCTURES`, `p1_RV_gt` becomes
    a label of another structure.

    Args:
        masks: masks that still have the kind `FileKind.SCAN`; these masks do not count as scans.
    """
    scans = {without_first_channel(file.key) for file in named if file.kind is FileKind.SCAN and file.path not in masks}

    def with_key_of_scan(label: NamedFile) -> NamedFile:
        for key, dropped in _shorter_keys(label.key, ATRIUM_WORDS | OTHER_STRUCTURES | QUALIFIERS):
            if key in scans:
                is_other = dropped & OTHER_STRUCTURES or may_be_other_structure(dropped)
                return replace(label, key=key, kind=FileKind.OTHER_LABEL if is_other else FileKind.LABEL)
        return label

    is_left_over = [file.kind is FileKind.LABEL and without_first_channel(file.key) not in scans for file in named]
    return [with_key_of_scan(file) if left else file for file, left in zip(named, is_left_over, strict=True)]


def _shorter_keys(key: Key, droppable: Collection[str]) -> Iterator[tuple[Key, set[str]]]:
    """Yield (remaining key, dropped words) for each way to drop words at the ends of the key's last part.

    For `LA_p1_final` and the droppable words `la` and `final`, the last parts are `LA_p1_final`, `LA_p1`, `p1_final`
    and `p1`, in this order.
    """
    *folders, name = key or ("",)
    words = SEPARATORS.split(name)  # Words and separators alternate.
    starts, ends = (
        range(0, 2 * len(list(takewhile(droppable.__contains__, map(str.lower, side)))) + 1, 2)
        for side in (words[::2], words[::-2])
    )
    for first, end in product(starts, ends):
        last = max(first, len(words) - end)
        kept = "".join(words[first:last])
        yield (*folders, *filter(None, [kept])), {word.lower() for word in (*words[:first], *words[last:])}


def labels_beside_scans(files: Sequence[Path], folder: Path) -> list[Path]:
    """Return the labels and results that belong to a scan among the files.

    A label or result belongs to a scan in these cases; capitals do not matter:
    - The loose keys are equal: `p1_seg` and `p1_lge`.
    - The key is the scan's key with words added at the end: `p1_reader2_seg` and `p1`.
    - The name consists of words for labels and of numbers, and the scan lies in the same folder: Slicer saves
      `Segmentation-label_1` beside a scan of any name.

    Other files named like labels are not returned: if there is no scan `heart`, `heart_seg` may be a scan itself.
    """
    named = classify_all(files, folder)
    scans = {lower_key(without_first_channel(file.key)) for file in named if file.kind is FileKind.SCAN}
    loose_scans = {loose_key(key) for key in scans} - {()}
    folders_of_scans = {file.path.parent for file in named if file.kind is FileKind.SCAN}

    def has_scan(key: Key, path: Path) -> bool:
        return (
            (path.parent in folders_of_scans and _has_only_label_words(path))
            or loose_key(key) in loose_scans
            or without_first_channel(key) in scans
            or any(start in scans for start in name_starts(lower_key(key)))
        )

    return [file.path for file in named if file.kind is not FileKind.SCAN and has_scan(file.key, file.path)]


def _has_only_label_words(path: Path) -> bool:
    words = {word for word in words_of(scan_name(path)) if word and not word.isdecimal()}
    return bool(words) and words <= LABEL_WORDS
