"""Compare the paths of files: a file whose path is similar to a scan's path may be a mask of the scan.

The module `names` explains the terms. Two terms are added here:

- Plain key: the loose key without channel numbers. `P1/p1_lge_0000` has the loose key `("p1", "p1_0000")` and the plain
  key `("p1", "p1")`.
- Pattern: what similar paths have in common, with `*` for the rest. `reader1/p1`, `cohort/p1` and `p1` have the pattern
  `*/p1`: the `*` stands for `reader1`, for `cohort`, or for nothing.

Each function `replace_...` replaces a part of a file's path by `*`. If another path has the resulting pattern, the file
may be a mask of the other file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path

from ..io.channels import without_channel
from .fitting_scans import JOINED
from .keys import Key, loose_key, name_ends, name_starts
from .names import NamedFile
from .words import (
    OTHER_STRUCTURES,
    OUTLINE_WORDS,
    further_words,
    modalities,
    rests_of_mask,
    words_of,
)

MIN_NAMES_OF_CASES = 10
"""If `*` stands for at least this many different names, these names are taken for names of cases.

Names of structures, such as `LA_wall`, do not count.
"""

_DIGIT, _LETTERS = re.compile(r"\d"), re.compile(r"[^\W\d_]+")
_JOINED_NUMBER = re.compile(r"[^\W\d_]+(\d+)")
"""A name that ends in letters and a number, as in `la1`."""

Pattern = tuple[str, ...]
Part = str | Path
"""The value by which the module `masks` groups files: usually the part of a file's path that `*` replaces.

Some functions yield the file's own path, so that `masks` does not group their files.
"""
Replacements = Iterator[tuple[NamedFile, Part, Sequence[Pattern]]]
"""(file, part, patterns). The module `masks` tries the patterns in their order."""


def patterns_of(file: NamedFile) -> Iterator[tuple[Pattern, Part]]:
    """Yield (pattern, part) for each pattern that a file's path has.

    The part is what `*` stands for in this file's path; "" for nothing.
    """
    key, folder, name = plain_key(file.key), str(file.path.parent), _name(file)
    yield from (((*key[:n], "*", *key[n:]), "") for n in range(len(key) + 1))
    # A file with the name of its folder also has the patterns of the folder's path: `cohort/p1/p1` has the pattern
    # `*/p1`, like `cohort/p1`.
    has_name_of_folder = key[-1:] == key[-2:-1]
    for shorter in (key, key[:-1]) if has_name_of_folder else (key,):
        yield from ((_with_star(shorter, n), part) for n, part in enumerate(shorter))
    for search in (replace_format, replace_all_but_name):
        yield from ((pattern, part) for _, part, (pattern,) in search([file]))
    yield from (
        ((folder, *words, "*"), file.path)
        for words in {(), *name_starts(name), *name_ends(name), *_names_of_cases(name)}
    )


def replace_part(files: Iterable[NamedFile]) -> Replacements:
    """Replace one part.

    | file | patterns | may be a mask of |
    | --- | --- | --- |
    | `p1/observerA` | `p1/*` | `p1/series_1`, `p1` |
    | `reader1/p1_AB` | `*/p1_ab`, `*/p1`, `*/ab` | `cohort/p1`, `p1` |
    | `reader1/p1/LA` | `*/p1/la`, `*/p1` | `cohort/p1`, `p1` |
    """
    for file in files:
        key = plain_key(file.key)
        for n, part in enumerate(key):
            pattern = _with_star(key, n)
            is_folder = n < len(key) - 1
            shorter = (*name_starts(pattern), *name_ends(pattern), pattern[:-1]) if is_folder else ()
            # The pattern `*` alone would fit all files that lie in no folder.
            yield file, part, [pattern, *(kept for kept in shorter if kept != ("*",))]


def replace_format(files: Iterable[NamedFile]) -> Replacements:
    """Replace the words for the file format: `p1.nrrd` may be a mask of `p1.nii`, and `nifti/p1` of `p1`."""
    for file in files:
        modality, without_format = sorted(modalities(file.key)), plain_key(file.key)
        yield file, file.path, [("*", "", *modality, "", *without_format)]


def replace_all_but_name(files: Iterable[NamedFile]) -> Replacements:
    """Replace everything except the name: `fold_0/validation/p1` may be a mask of `scans/p1`."""
    for file in files:
        name = plain_key(file.key)[-1:]
        words = (sorted(further_words([part.lower()]) - further_words(name)) for part in file.path.parts)
        yield file, " ".join(chain(*words)), [("*", "", *name)]  # The "" distinguishes this pattern from `*/p1`.


def replace_folder_beside(files: Sequence[NamedFile]) -> Replacements:
    """Replace the last folder and the name: `p1/output/aorta` may be a mask of `p1/ct`.

    Files are grouped by the more frequent name: `output` or `aorta`.
    """
    folders = {file.path.parent for file in files}
    beside = Counter(folder.parent for folder in folders)
    counts = Counter(name for file in files for name in (file.path.parent.name, file.path.name))
    for file in files:
        folder = file.path.parent
        more_frequent_name = max(folder.name, file.path.name, key=counts.__getitem__)
        # Each name in `p1/x_p1` to `p10/x_p10` occurs only once; these files form one group.
        is_case = counts[more_frequent_name] == 1 and beside[folder.parent] >= MIN_NAMES_OF_CASES
        if folder.parent in folders and folder.parent != folder:  # Path(".") is its own parent.
            yield file, folder.parent if is_case else more_frequent_name, [(str(folder.parent), "*")]


def replace_structure_words(files: Iterable[NamedFile]) -> Replacements:
    """Replace words for structures or outlines in the name: `p1_LA` may be a mask of `p1_post`.

    Mask and scan lie in the same folder. The scan's name must begin or end with the rest of the mask's name, here `p1`
    (`rests_of_mask`).
    """
    for file in files:
        for name in _name(file):
            rests = rests_of_mask(name)
            if rests and rests[0] != name:
                yield file, file.path, [(str(file.path.parent), rest, "*") for rest in rests]


def replace_first_or_last_words(files: Sequence[NamedFile]) -> Replacements:
    """Replace words at one end of the name: `p1_auto` may be a mask of `p1_anon`, and `la1` of `pat1`.

    Mask and scan lie in the same folder. If at least `MIN_NAMES_OF_CASES` names have the other words in common, these
    words name no case: `scan` in `scan_anna`, `scan_bert`, ...
    """
    patterns = [(file, (str(file.path.parent), *kept, "*")) for file in files for kept in _names_of_cases(_name(file))]
    counts = Counter(pattern for _, pattern in patterns)
    for file, pattern in patterns:
        _, kept, _ = pattern
        # Files that differ only in numbers, such as `p1_auto` and `p2_auto`, form one group.
        replaced = " ".join(_LETTERS.findall("".join(_name(file)).replace(kept, " ", 1)))
        if replaced and 1 < counts[pattern] < MIN_NAMES_OF_CASES:
            yield file, replaced, [pattern]


def _name(file: NamedFile) -> Key:
    return loose_key(file.key)[-1:]


def _names_of_cases(name: Key) -> Iterator[Key]:
    """Yield the parts of a file's name that may be the name of its case.

    >>> [list(_names_of_cases((name,))) for name in ("p1_auto_js", "la_p1", "p1la", "la1")]
    [[('p1_auto',), ('p1',)], [('la',), ('p1',)], [('p1',)], [('1',)]]
    """
    yield from islice(name_starts(name), 1, None)
    yield from (end for end in name_ends(name) if _DIGIT.search(end[-1]))
    for part in name:
        yield from ((joined[1],) for joined in (JOINED.fullmatch(part), _JOINED_NUMBER.fullmatch(part)) if joined)


def _with_star(key: Key, n: int) -> Pattern:
    return (*key[:n], "*", *key[n + 1 :])


@lru_cache(maxsize=1 << 16)
def names_structure(name: str) -> bool:
    """Return whether all words of a name, except numbers, mean structures or outlines, as in `LA_wall`."""
    words = {word for word in words_of(name) if not word.isdecimal()}
    return bool(words) and words <= OUTLINE_WORDS | OTHER_STRUCTURES


@lru_cache(maxsize=1 << 16)
def plain_key(key: Key) -> Key:
    """Return the plain key of a file with this key: the loose key without channel numbers.

    >>> plain_key(("P1_0000", "LA_0000"))
    ('p1', 'la')
    """
    return loose_key(without_channel(part) for part in key)
