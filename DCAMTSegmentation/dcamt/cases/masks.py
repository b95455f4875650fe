"""Find masks: files that are named like scans but have few different values.

A mask's path adds or replaces words or parts of a scan's path: `p1_LA` for `p1`, `reader1/p1` for `scans/p1`. The path
of a second scan may do the same (`p1_T1`, `visit2/p1`), but a scan has many different values.

The module `names` explains the terms. One term is added here:

- Plain key: the loose key of the parts without `_0000`, in which equal neighbouring parts occur once. `P1/p1_lge_0000`
  has the plain key `("p1",)`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import chain, islice, tee
from pathlib import Path

from ..io.channels import without_channel
from .few_values import has_few_values
from .fitting_scans import in_folders_named_after_scans, named_after_scans
from .keys import Key, loose_key, name_ends, name_starts, without_first_channel
from .names import FileKind, NamedFile, classify_all, labels_beside_scans
from .words import (
    LABEL_WORDS,
    OTHER_STRUCTURES,
    OTHER_STRUCTURES_WITHOUT_LGE,
    OUTLINE_WORDS,
    SEPARATORS,
    further_words,
    modalities,
    without_words,
    words_of,
)

_MAXIMUM_NAMES = 6
"""If more plain keys than this differ only in one part, `_Parts.fitting` assumes that the part names cases, not masks.

Example: the ten plain keys of `patient1/lge` to `patient10/lge`, `("patient1",)` to `("patient10",)`, differ only in
part 0. The limit does not apply to a last part that means structures (`_names_structure`); see also
`_MAXIMUM_NAMES_IN_FOLDERS`.
"""
_MAXIMUM_NAMES_IN_FOLDERS = 16
"""Up to this number of different last parts, `_MAXIMUM_NAMES` does not apply to last parts.

Only plain keys with several parts count. Example: nine masks such as `p1/LA_reg` beside the scans `p1/LGE` and
`p1/MRA`. The maximum keeps the search fast, since the search reads one file of each last part.
"""

_STRUCTURES = OUTLINE_WORDS | OTHER_STRUCTURES_WITHOUT_LGE


def recognise_masks(named: Sequence[NamedFile]) -> list[NamedFile]:
    """Return the files of `named`; each mask gets the key of its scan and becomes a label.

    - A mask whose further words are all in `OUTLINE_WORDS` becomes a label: `p1_LA` beside `p1`. If the mask adds or
      replaces a part, more conditions apply (`_masks_with_further_parts`).
    - Any other mask becomes a label of another structure: `p1_RV`, `reader1/p1`.
    - If a scan has a label by name (`p1_label`), its masks (`p1_LA`) become labels of another structure.
    - If all scans that fit a file have few values, the file remains a scan: `q_LA` beside `q`, both of two values.

    The result does not depend on the order of `named`.
    """
    ordered = sorted(named, key=lambda file: file.path)
    masks = masks_named_after_scans(ordered)
    scans = [file for file in ordered if file.kind is FileKind.SCAN and file.path not in masks]
    likely = _LikelyMasks()
    in_folders = _masks_of(fit for fit in in_folders_named_after_scans(scans) if likely.includes(fit[0].path))
    of_atrium = {path: mask for path, mask in in_folders.items() if mask.kind is FileKind.LABEL}
    # `|` keeps the right operand's mask. Example: `p1/LA/p1_T1`, a mask of `nifti/p1_T1`, is a label of another
    # structure in `in_folders`, where `t1` counts as a further word. `_masks_with_further_parts` returns a label of the
    # atrium.
    masks = in_folders | _masks_with_further_parts(scans) | of_atrium | masks
    for find in (_masks_named_like_scans, _masks_in_other_folders, _masks_named_after_structures):
        masks |= _of_other_structures(find([file for file in scans if file.path not in masks]))
    masks = _without_labelled_scans(masks, {scan.key for scan in scans}, named)
    return [masks.get(file.path, file) for file in named]


def _of_other_structures(fitting: Iterable[tuple[NamedFile, NamedFile]]) -> dict[Path, NamedFile]:
    """Return {path: label of another structure with the scan's key} for the masks of (mask, scan)."""
    return {
        mask.path: replace(mask, kind=FileKind.OTHER_LABEL, key=without_first_channel(scan.key))
        for mask, scan in fitting
    }


def _without_labelled_scans(
    masks: Mapping[Path, NamedFile], scans: Collection[Key], named: Sequence[NamedFile]
) -> dict[Path, NamedFile]:
    """Return the masks; those whose scan has a label by name become labels of another structure.

    A label by name belongs to the mask's scan in two cases:

    - The keys are equal: `p1_label` and `p1_LA` beside `p1`.
    - The label's key is no scan's key, and the mask's loose key ends with the label's: `labels/p1` and `LA/p1` beside
      `cohort/p1`. Beside the scans `p1_cine` and `p1_lge`, the label `p1_cine_seg` has the key of `p1_cine`, so it
      does not belong to `p1_lge`.
    """
    labelled = {_case_key(file.key, scans) for file in named if file.kind is FileKind.LABEL}
    without_scan = {loose_key(key) for key in labelled - {_case_key(key, scans) for key in scans}}

    def has_label(mask: NamedFile) -> bool:
        key = _case_key(mask.key, scans)
        loose = loose_key(key)
        return key in labelled or not without_scan.isdisjoint(loose[n:] for n in range(len(loose)))

    return {path: replace(mask, kind=FileKind.OTHER_LABEL) if has_label(mask) else mask for path, mask in masks.items()}


def _case_key(key: Key, scans: Collection[Key]) -> Key:
    """Return a key without `_0000`; beside a scan `x`, the key `x_0000` is that of another case and is unchanged."""
    shorter = without_first_channel(key)
    return key if shorter in scans else shorter


def labels_and_results(files: Sequence[Path], folder: Path) -> list[NamedFile]:
    """Return the labels, masks and automatic results among the files of a folder of scans.

    A file that is named like a label or result, but belongs to no scan (`p9_seg` without `p9`), is returned if it has
    few values and the folder has a scan.
    """
    beside = dict.fromkeys(labels_beside_scans(files, folder))
    found = [file for file in classify_all(files, folder) if file.path in beside]
    named = classify_all([file for file in files if file not in beside], folder)
    found += [mask for file, mask in zip(named, recognise_masks(named), strict=True) if mask is not file]
    paths = {file.path for file in found}
    if any(file.kind is FileKind.SCAN and file.path not in paths for file in named):
        lone = [file for file in named if file.kind is not FileKind.SCAN and file.path not in paths]
        found += [file for file in lone if has_few_values(file.path)]
    return found


def _masks_named_like_scans(scans: Sequence[NamedFile]) -> Iterator[tuple[NamedFile, NamedFile]]:
    """Yield (mask, scan) for each mask that has the scan's plain key and modalities: `nifti/p1` for `p1`."""
    similar: defaultdict[tuple[Key, frozenset[str]], list[NamedFile]] = defaultdict(list)
    for file in scans:
        similar[_plain_key(file.key), frozenset(modalities(file.key))].append(file)
    for files in similar.values():
        if len(files) > 1 and (scan := next((file for file in files if not has_few_values(file.path)), None)):
            yield from ((file, scan) for file in files if file is not scan and has_few_values(file.path))


def _masks_in_other_folders(scans: Sequence[NamedFile]) -> Iterator[tuple[NamedFile, NamedFile]]:
    """Yield (mask, scan) for each mask in a folder that probably holds only masks.

    In such a folder, each file has the name of a scan in any other folder (`fold_0/validation/p1` beside `scans/p1`),
    or the folder lies beside a scan (`output/aorta` beside `ct`). The files are read only if `_LikelyMasks.includes` is
    true for the first file. If no scan lies beside a folder, and a file's name occurs more than `_MAXIMUM_NAMES` times
    in other folders, the folder is skipped.
    """
    by_name: defaultdict[Key, list[NamedFile]] = defaultdict(list)
    by_folder: defaultdict[Path, list[NamedFile]] = defaultdict(list)
    for file in scans:
        by_name[_plain_key(file.key)[-1:]].append(file)
        by_folder[file.path.parent].append(file)
    likely = _LikelyMasks()
    for folder, files in by_folder.items():
        # Path(".") is its own parent.
        beside = by_folder.get(folder.parent, [])[:_MAXIMUM_NAMES] if folder != folder.parent else []
        names = [by_name[_plain_key(file.key)[-1:]] for file in files]
        fitting = [beside or _outside(folder, named) for named in names]
        if not all(1 <= len(found) <= _MAXIMUM_NAMES for found in fitting) or not likely.includes(files[0].path):
            continue
        for file, found in zip(files, fitting, strict=True):
            scan = next((other for other in found if not has_few_values(other.path)), None)
            if scan is not None and has_few_values(file.path):
                yield file, scan


def _masks_named_after_structures(scans: Sequence[NamedFile]) -> Iterator[tuple[NamedFile, NamedFile]]:
    """Yield (mask, scan) for each mask with words for structures or outlines in its name, beside a scan.

    The other words of the mask's name must begin or end the scan's name: `p1_LA` for `p1_post`, `LA_p1` for `post_p1`.
    """
    similar: defaultdict[tuple[Path, str], list[NamedFile]] = defaultdict(list)
    names = {file.path: "".join(loose_key(file.key)[-1:]) for file in scans}
    for file in scans:
        words = SEPARATORS.split(names[file.path])
        ends = ("".join(words[first:]) for first in range(2, len(words), 2))
        for part in dict.fromkeys((*(start for (start,) in name_starts((names[file.path],))), *ends)):
            similar[file.path.parent, part].append(file)
    many_values: dict[tuple[Path, str], NamedFile | None] = {}
    for file in scans:
        rest = without_words(names[file.path], _STRUCTURES)
        place = (file.path.parent, rest)
        has_others = any(other is not file for other in similar.get(place, ()))
        if not rest or rest == names[file.path] or not has_others or not has_few_values(file.path):
            continue
        if place not in many_values:
            many_values[place] = next((other for other in similar[place] if not has_few_values(other.path)), None)
        if (scan := many_values[place]) is not None:
            yield file, scan


class _LikelyMasks:
    """Finds files that have few values (`has_few_values`), but stops reading where it finds only scans.

    A file is not read, and not included, if the last `_MAXIMUM_NAMES` files that were read in folders of the same name
    are scans: `p7/cine/x` after `p1/cine/x` to `p6/cine/x`. The same holds for folders that lie beside each other:
    `cine/p7/x` after `cine/p1/x` to `cine/p6/x`.
    """

    def __init__(self) -> None:
        self._last_scans: defaultdict[Path | str, set[Path]] = defaultdict(set)

    def includes(self, path: Path) -> bool:
        """Return whether a file was read and has few values."""
        last_scans = [self._last_scans[place] for place in (path.parent.name, path.parent.parent)]
        if any(len(scans) >= _MAXIMUM_NAMES for scans in last_scans):
            return False
        is_mask = has_few_values(path)
        for scans in last_scans:
            if is_mask:
                scans.clear()
            else:
                scans.add(path)
        return is_mask


def _outside(folder: Path, files: Sequence[NamedFile]) -> list[NamedFile]:
    """Return the files that do not lie in a folder, at most `_MAXIMUM_NAMES` + 1."""
    return list(islice((file for file in files if file.path.parent != folder), _MAXIMUM_NAMES + 1))


def masks_named_after_scans(named: Sequence[NamedFile]) -> dict[Path, NamedFile]:
    """Return {path: label with the scan's key} for each mask whose name adds words to a scan's name: `p1_LA`, `p1_RV`.

    If a further word is not in `OUTLINE_WORDS`, the label is one of another structure: `p1_RV`.
    """
    return _masks_of(named_after_scans(named))


def _masks_of(fitting: Iterable[tuple[NamedFile, NamedFile, frozenset[str]]]) -> dict[Path, NamedFile]:
    """Return {path: label with the scan's key} for each mask among the files of (file, scan, further words)."""
    masks: dict[Path, NamedFile] = {}
    for file, scan, words in fitting:
        if file.path not in masks and has_few_values(file.path) and not has_few_values(scan.path):
            # A further word may be in `LABEL_WORDS`: `p1seg` adds `seg` to `p1`.
            kind = FileKind.LABEL if words <= OUTLINE_WORDS | LABEL_WORDS else FileKind.OTHER_LABEL
            masks[file.path] = replace(file, kind=kind, key=scan.key)
    return masks


def _masks_with_further_parts(scans: Sequence[NamedFile]) -> dict[Path, NamedFile]:
    """Return {path: label with the scan's key} for each mask whose path adds or replaces a part of a scan's path.

    `_Parts.fitting` finds the scans; those with few values do not count. If several scans fit a mask whose plain key
    has only one part, the mask is left out: `phantom` beside `a` and `b` may be a scan. Exception: all words of the
    mask's name mean structures or outlines, as in `LA_wall` beside `a` and `b`.

    The label is one of the atrium, not of another structure, if three conditions hold:
    - Only one scan fits.
    - All further words are in `OUTLINE_WORDS`: `LA/p1` is a label of `cohort/p1`, `LA_wall/p1` is not.
    - The scan's path has all the mask's words for the modality: `LA/p1_MR` is no label of `CT/p1_CT`.

    Reading all files would be slow. Therefore, a group of files (`_Parts.groups`) is read only if each file has a
    fitting scan and the first file has few values.
    """
    parts = _Parts(scans)
    masks: dict[Path, NamedFile] = {}
    for (n, _), files in parts.groups.items():
        fitting = [found for file in files if (found := parts.fitting(file, n)) is not None]
        if len(fitting) < len(files) or not has_few_values(files[0].path):
            continue
        for file, (fitting_scans, words) in zip(files, fitting, strict=True):
            if file.path in masks or not has_few_values(file.path):
                continue
            real = list(islice(fitting_scans, 2))  # Two scans are enough to know that several fit.
            key = parts.keys[file.path]
            if real and (len(real) == 1 or len(key) > 1 or _names_structure(key[-1])):
                fits = words <= OUTLINE_WORDS and modalities(file.key) <= modalities(real[0].key)
                kind = FileKind.LABEL if fits and len(real) == 1 else FileKind.OTHER_LABEL
                masks[file.path] = replace(file, kind=kind, key=without_first_channel(real[0].key))
    return masks


class _Parts:
    """The files of a folder that are named like scans, indexed by their plain keys and by plain keys without one part.

    Attributes:
        keys: the plain key of each file, by path.
        groups: for each (n, name), the files whose plain key has this name as part n. `reader1/p1` and `reader1/p2`
            are the group `(0, "reader1")`.
    """

    def __init__(self, scans: Sequence[NamedFile]) -> None:
        self.keys = {file.path: _plain_key(file.key) for file in scans}
        self.groups: defaultdict[tuple[int, str], list[NamedFile]] = defaultdict(list)
        self._by_key: defaultdict[Key, list[NamedFile]] = defaultdict(list)
        self._without_part: defaultdict[tuple[int, Key], defaultdict[str, list[NamedFile]]]
        self._without_part = defaultdict(lambda: defaultdict(list))
        self._read_scans: dict[tuple[int, Key], Iterator[tuple[str, NamedFile]]] = {}
        names = {key[-1] for key in self.keys.values() if len(key) > 1}
        self._has_few_names = len(names) <= _MAXIMUM_NAMES_IN_FOLDERS
        for file in scans:
            key = self.keys[file.path]
            self._by_key[key].append(file)
            for n, part in enumerate(key):
                self.groups[n, part].append(file)
                self._without_part[n, _without_part(key, n)][part].append(file)

    def fitting(self, file: NamedFile, n: int) -> tuple[Iterator[NamedFile], frozenset[str]] | None:
        """Return (scans, further words); the scans fit the file if part `n` of its key is left out or replaced.

        The scans are read one by one, and those with few values are left out. The result is None if
        no other file's plain key fits, or if too many parts could replace part `n` (`_MAXIMUM_NAMES`).

        All keys are plain keys. `scans/p1` and `p1/lge` have the plain key `("p1",)`:
        - Part `n` is left out: `scans/p1` fits `reader1/p1`, and `p1/lge` fits `p1/reader1/lge`.
        - Part `n` is replaced: `train/p1` fits `train_gd/p1`.
        - If part `n` is a folder, words at an end of the file's name, or the whole name, may be left out, too:
          `scans/p1` fits `reader1/p1_reader1`.

        The further words are the words of part `n` and the words that are left out of the name.
        """
        key = self.keys[file.path]
        rest, is_name = _without_part(key, n), n == len(key) - 1
        limited = not is_name or not (_names_structure(key[n]) or (rest and self._has_few_names))
        if limited and self._has_many_parts(n, rest):
            return None
        shorter_keys = (rest,) if is_name else filter(None, (*name_starts(rest), *name_ends(rest), rest[:-1]))
        for shorter in shorter_keys:
            same = self._by_key.get(shorter, [])
            replaceable = not (limited and self._has_many_parts(n, shorter))
            if same or (replaceable and any(part != key[n] for part in self._without_part.get((n, shorter), ()))):
                name, kept = ("".join(part[-1:]) for part in (rest, shorter if len(shorter) == len(rest) else ()))
                dropped = SEPARATORS.split(key[n]) + SEPARATORS.split(name.removeprefix(kept).removesuffix(kept))
                scans = (scan for scan in same if not has_few_values(scan.path))
                others = self._scans_without_part(n, shorter) if replaceable else iter(())
                return chain(scans, (scan for part, scan in others if part != key[n])), further_words(dropped)
        return None

    def _has_many_parts(self, n: int, rest: Key) -> bool:
        """Return whether more than `_MAXIMUM_NAMES` names are part `n` of a plain key whose other parts are `rest`."""
        return len(self._without_part.get((n, rest), ())) > _MAXIMUM_NAMES

    def _scans_without_part(self, n: int, rest: Key) -> Iterator[tuple[str, NamedFile]]:
        """Yield (part n, scan) for the scans whose plain key without part n is `rest`.

        Files with few values are left out. A file is read only when a caller needs the next scan, and only once.
        """
        if (n, rest) not in self._read_scans:
            files = ((part, file) for part, files in self._without_part[n, rest].items() for file in files)
            # The stored iterator never advances, so each copy begins at the first scan; `tee` reads each file once.
            (self._read_scans[n, rest],) = tee((item for item in files if not has_few_values(item[1].path)), 1)
        return copy(self._read_scans[n, rest])


def _names_structure(name: str) -> bool:
    """Return whether all words of a name mean structures or outlines: `LA_wall`; numbers do not count."""
    words = {word for word in words_of(name) if not word.isdecimal()}
    return bool(words) and words <= OUTLINE_WORDS | OTHER_STRUCTURES


def _plain_key(key: Key) -> Key:
    """Return the plain key of a file with this key.

    >>> _plain_key(("P1_0000", "p1_lge_0000"))
    ('p1',)
    """
    parts = loose_key(without_channel(part) for part in key)
    return tuple(part for n, part in enumerate(parts) if n == 0 or part != parts[n - 1])


def _without_part(key: Key, n: int) -> Key:
    """Return a plain key without part `n`."""
    return _plain_key((*key[:n], *key[n + 1 :]))
