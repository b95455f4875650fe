"""Find masks: files that are named like scans but have few different values.

A mask's path is similar to a scan's path: `p1_LA` and `p1`, `reader1/p1` and `scans/p1`. The path of a second scan may
be similar, too (`p1_T1`, `visit2/p1`), but a scan has many different values. The module `names` explains the terms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

from ..io.formats import SCAN_ENDINGS, ending
from .few_values import has_few_values
from .fitting_scans import JOINED, in_folders_named_after_scans, named_after_scans
from .keys import Key, loose_key, name_starts, without_first_channel
from .names import FileKind, NamedFile, classify_all, labels_beside_scans, with_keys_of_scans_by_words
from .similar_paths import (
    MIN_NAMES_OF_CASES,
    Part,
    Pattern,
    Replacements,
    names_structure,
    patterns_of,
    plain_key,
    replace_all_but_name,
    replace_first_or_last_words,
    replace_folder_beside,
    replace_format,
    replace_part,
    replace_structure_words,
)
from .words import (
    LABEL_WORDS,
    OTHER_STRUCTURES,
    OUTLINE_WORDS,
    count_words,
    further_words,
    may_be_other_structure,
    modalities,
    without_outline_words,
)


def recognise_masks(named: Sequence[NamedFile]) -> list[NamedFile]:
    """Return the files of `named`; each mask becomes a label with the key of its scan.

    A mask whose scan is missing gets the kind `FileKind.MASK_WITHOUT_SCAN` (`_masks_without_scans`). A label may become
    a scan (`_with_segmented_sequences`).

    A mask becomes a label of the atrium or of another structure (`_kind`). If a scan has a label such as `p1_label`,
    the scan's masks, such as `p1_LA`, get the kind `FileKind.OTHER_LABEL`.

    The result does not depend on the order of `named`.
    """
    named = _with_segmented_sequences(named)
    ordered = sorted(named, key=lambda file: file.path)
    named_after = masks_named_after_scans(ordered)
    # If `p1_LA` is a mask of `p1`, then `p1_LA_gt` is a label of `p1`.
    named = with_keys_of_scans_by_words(named, named_after)
    scans = [file for file in ordered if file.kind is FileKind.SCAN and file.path not in named_after]
    fitting = list(in_folders_named_after_scans(scans))
    first_file: dict[frozenset[str], Path] = {}
    for file, _, words in fitting:
        first_file.setdefault(words, file.path)
    others = _masks_of(fit for fit in fitting if has_few_values(first_file[fit[2]]))
    labels = _labels_among(others)
    search = _SimilarPaths(scans)
    for replacements, is_certain in (
        (replace_part, True),  # mask `reader1/p1`, scan `cohort/p1`
        (replace_format, False),  # mask `p1.nrrd`, scan `p1.nii`
        (replace_all_but_name, False),  # mask `fold_0/validation/p1`, scan `scans/p1`
        (replace_folder_beside, False),  # mask `output/aorta`, scan `ct`
        (replace_structure_words, False),  # mask `p1_LA`, scan `p1_post`
        (replace_first_or_last_words, False),  # mask `p1_auto`, scan `p1_anon`
    ):
        found = search.masks(
            replacements(scans), is_certain=is_certain, needs_one_scan=replacements is replace_first_or_last_words
        )
        others = found | others  # The right operand takes precedence, since earlier searches are more certain.
        labels = _labels_among(found) | labels
    masks = _without_labelled_scans(others | labels | named_after, {scan.key for scan in scans}, named)
    masks |= {file.path: file for file in _masks_without_scans(ordered, masks)}
    return [masks.get(file.path, file) for file in named]


def _with_segmented_sequences(named: Sequence[NamedFile]) -> list[NamedFile]:
    """Return the files; a label becomes a scan if `seg` in its name describes the MR sequence: `p1_psir_seg`.

    If another file may be the scan (`p1_lge`, `p1_post`), the label stays a label.
    """
    files_by_start: defaultdict[Key, list[NamedFile]] = defaultdict(list)
    for file in named:
        if file.kind in (FileKind.SCAN, FileKind.LABEL):
            key = plain_key(file.key)
            for start in {*name_starts(key), key[:-1]} - {()}:
                files_by_start[start].append(file)

    def is_mask(file: NamedFile, key: Key) -> bool:
        words = _words_of(file.key) - _words_of(key)
        is_named_like_mask = file.kind is FileKind.LABEL or bool(words and words <= OUTLINE_WORDS | OTHER_STRUCTURES)
        return is_named_like_mask and has_few_values(file.path)

    def is_sequence(file: NamedFile) -> bool:
        if file.kind is not FileKind.LABEL or ending(file.path) not in SCAN_ENDINGS or not modalities(file.key):
            return False
        key = plain_key(file.key)
        masks = [other for other in files_by_start[key] if other.path != file.path]
        return bool(masks) and all(is_mask(mask, key) for mask in masks) and not has_few_values(file.path)

    return [replace(file, kind=FileKind.SCAN) if is_sequence(file) else file for file in named]


def _labels_among(masks: Mapping[Path, NamedFile]) -> dict[Path, NamedFile]:
    return {path: mask for path, mask in masks.items() if mask.kind is FileKind.LABEL}


def _masks_without_scans(named: Sequence[NamedFile], masks: Mapping[Path, NamedFile]) -> Iterator[NamedFile]:
    """Yield each file that is probably a mask whose scan is missing.

    Args:
        named: all files, ordered by path.
        masks: the masks that have a scan.
    """
    scans = [file for file in named if file.kind is FileKind.SCAN and file.path not in masks]
    # If `p1_LA` is a mask of `p1_lge`, then `p2_LA` is probably a mask.
    words_of_masks = {_words_of(file.key) - _words_of(masks[file.path].key) for file in named if file.path in masks}
    for file in scans:
        key = plain_key(file.key)
        added = (_words_of((part,)) - _words_of(key[:n]) for n, part in enumerate(key))
        words_of_masks.update(words for words in added if words <= OUTLINE_WORDS | OTHER_STRUCTURES)
    by_word: defaultdict[str, list[frozenset[str]]] = defaultdict(list)
    for words in words_of_masks - {frozenset()}:
        by_word[min(words)].append(words)
    groups: defaultdict[frozenset[str], list[NamedFile]] = defaultdict(list)
    for file in scans:
        words = _words_of(file.key)
        for words_of_mask in (one for word in words for one in by_word[word] if one <= words):
            groups[words_of_mask].append(file)
    found = [file for group in groups.values() if has_few_values(group[0].path) for file in group]
    if found and not all(has_few_values(file.path) for file in scans):
        yield from (replace(file, kind=FileKind.MASK_WITHOUT_SCAN) for file in found if has_few_values(file.path))


def _words_of(key: Key) -> frozenset[str]:
    words = [(word, JOINED.fullmatch(word)) for word in further_words(plain_key(key))]
    parts = (part for word, joined in words for part in (joined.groups() if joined else (word,)))
    return frozenset(part for part in parts if not part.isdecimal())


def masks_named_after_scans(named: Sequence[NamedFile]) -> dict[Path, NamedFile]:
    """Return {path: label with the scan's key} for each mask whose name adds words to a scan's name: `p1_LA`."""
    return _masks_of(named_after_scans(named))


def _masks_of(fitting: Iterable[tuple[NamedFile, NamedFile, frozenset[str]]]) -> dict[Path, NamedFile]:
    """Return {path: label with the scan's key} for each mask in `fitting`: (file, scan, further words)."""
    masks: dict[Path, NamedFile] = {}
    for file, scan, words in fitting:
        if file.path not in masks and has_few_values(file.path) and not has_few_values(scan.path):
            masks[file.path] = replace(file, kind=_kind(words), key=scan.key)
    return masks


def _kind(words: frozenset[str]) -> FileKind:
    """Return the kind of a mask with these further words."""
    is_label = words <= OUTLINE_WORDS | LABEL_WORDS and not may_be_other_structure(words)
    return FileKind.LABEL if is_label else FileKind.OTHER_LABEL


class _SimilarPaths:
    """Finds masks by the patterns of paths (`similar_paths`)."""

    def __init__(self, files: Iterable[NamedFile]) -> None:
        self._files: defaultdict[Pattern, list[NamedFile]] = defaultdict(list)
        self._parts: defaultdict[Pattern, set[Part]] = defaultdict(set)
        self._names: defaultdict[Pattern, set[Part]] = defaultdict(set)
        for file in files:
            for pattern, part in patterns_of(file):
                self._files[pattern].append(file)
                self._parts[pattern].add(part)
                if isinstance(part, str) and part and not names_structure(part):
                    self._names[pattern].add(part)
        self._scans = cache(self._read_scans)

    def _read_scans(self, pattern: Pattern) -> list[NamedFile]:
        """Return at most two files that have the pattern and many values; `_mask` needs no more."""
        return list(islice((file for file in self._files[pattern] if not has_few_values(file.path)), 2))

    def masks(
        self, replacements: Replacements, *, is_certain: bool, needs_one_scan: bool = False
    ) -> dict[Path, NamedFile]:
        """Return {path: label with the scan's key} for each mask among the files of `replacements`.

        The files are grouped by the replaced part and its place in the path: `p1/LA` and `p2/LA` are in one group.
        Probably all files of a group are masks, or all are scans. Therefore, a whole group may be skipped.

        Args:
            is_certain: if False, all masks become labels of another structure.
            needs_one_scan: whether a pattern is used only if exactly one scan has it.
        """
        groups: defaultdict[tuple[int, Part], list[tuple[NamedFile, list[Pattern]]]] = defaultdict(list)
        for file, part, patterns in replacements:
            groups[patterns[0].index("*"), part].append((file, self._fitting_patterns(part, patterns)))
        masks: dict[Path, NamedFile] = {}
        # Patterns with a late "*" come first, so a scan in the file's own folder (`p1/*`) is preferred.
        for (_, part), group in sorted(groups.items(), key=lambda item: -item[0][0]):
            fits = [(file, patterns) for file, patterns in group if patterns]
            may_be_masks = 2 * len(fits) > len(group) or names_structure(str(part))
            if fits and may_be_masks and has_few_values(fits[0][0].path):
                for file, patterns in fits:
                    if file.path not in masks and has_few_values(file.path):
                        usable = (one for one in patterns if not needs_one_scan or len(self._scans(one)) == 1)
                        found = (self._mask(file, part, pattern, is_certain=is_certain) for pattern in usable)
                        masks |= next(filter(None, found), {})
        return masks

    def _fitting_patterns(self, part: Part, patterns: Sequence[Pattern]) -> list[Pattern]:
        names = self._names.get(patterns[0], set())
        is_name_of_case = part in names and len(names) >= MIN_NAMES_OF_CASES
        if is_name_of_case:
            return []
        return [pattern for pattern in patterns if any(other != part for other in self._parts.get(pattern, ()))]

    def _mask(self, file: NamedFile, part: Part, pattern: Pattern, *, is_certain: bool) -> dict[Path, NamedFile]:
        scans = self._scans(pattern)
        # Beside the scans `a` and `b`, a file `phantom` with few values may be a scan, but a file `LA` is a mask.
        may_be_scan = len(scans) > 1 and pattern == ("*",) and not names_structure(str(part))
        if not scans or may_be_scan:
            return {}
        kind = FileKind.OTHER_LABEL
        if is_certain and len(scans) == 1:
            key, scan_key = plain_key(file.key), plain_key(scans[0].key)
            words = further_words([str(part)]) | further_words(key) - further_words(pattern)
            lacks_word_of_scan = not further_words(scan_key) <= further_words(key)
            if lacks_word_of_scan:
                words |= (count_words(key) - count_words(scan_key)).keys()
            further_modalities = modalities(file.key) - modalities(scans[0].key)  # `plain_key` leaves them out.
            kind = _kind(words | further_modalities)
        return {file.path: replace(file, kind=kind, key=without_first_channel(scans[0].key))}


def _without_labelled_scans(
    masks: Mapping[Path, NamedFile], scans: Collection[Key], named: Sequence[NamedFile]
) -> dict[Path, NamedFile]:
    """Return the masks; if a mask's scan already has a label, the mask becomes a label of another structure.

    Only files that `named` lists as `FileKind.LABEL` count as labels.
    """
    labelled = {_case_key(file.key, scans) for file in named if file.kind is FileKind.LABEL}
    left_over = labelled - {_case_key(key, scans) for key in scans}
    without_scan = {loose_key(key) for key in left_over}
    without_modality = (loose_key(key) for key in left_over if not modalities(key))
    without_scan |= {tuple(filter(None, map(without_outline_words, key))) for key in without_modality}

    def has_label(mask: NamedFile) -> bool:
        key = _case_key(mask.key, scans)
        loose = loose_key(key)
        return key in labelled or not without_scan.isdisjoint(loose[n:] for n in range(len(loose)))

    return {path: replace(mask, kind=FileKind.OTHER_LABEL) if has_label(mask) else mask for path, mask in masks.items()}


def _case_key(key: Key, scans: Collection[Key]) -> Key:
    """Return a key without `_0000`. If there is a scan `x`, `x_0000` is another case and keeps its key."""
    shorter = without_first_channel(key)
    return key if shorter in scans else shorter


def labels_and_results(files: Sequence[Path], folder: Path) -> list[NamedFile]:
    """Return the labels, masks and automatic results among the files of a folder of scans.

    A file that is named like a label or result, but belongs to no scan (`p9_seg` without `p9`), is returned if it has
    few values and the folder has a scan.
    """
    beside = dict.fromkeys(labels_beside_scans(files, folder))
    found = [file for file in classify_all(files, folder) if file.path in beside]
    by_name = classify_all([file for file in files if file not in beside], folder)
    named = recognise_masks(by_name)
    found += [
        mask for file, mask in zip(by_name, named, strict=True) if mask is not file and mask.kind is not FileKind.SCAN
    ]
    paths = {file.path for file in found}
    if any(file.kind is FileKind.SCAN and file.path not in paths for file in named):
        lone = [file for file in named if file.kind is not FileKind.SCAN and file.path not in paths]
        found += [file for file in lone if has_few_values(file.path)]
    return found
