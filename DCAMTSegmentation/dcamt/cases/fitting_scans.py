"""Find the files whose paths add words to a scan's path: `p1_LA` adds `LA` to `p1`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from .keys import Key, loose_key, lower_key, without_first_channel
from .names import FileKind, NamedFile
from .words import (
    FORMAT_WORDS,
    MODALITY_WORDS,
    OTHER_STRUCTURES,
    OUTLINE_WORDS,
    SEPARATORS,
    further_words,
    modalities,
    without_words,
    words_of,
)

JOINED = re.compile(r"(.*\d)([^\W\d_]+)")
"""A name that ends in a number and letters, as in `p1LA`."""
_Candidates = list[tuple[Key, list[str]]]
"""Shorter keys of a file, each with the words that were dropped: (key, dropped words).

The file `p1_chambers/aorta` has the candidates `(("p1_chambers",), ["aorta"])` and `(("p1",), ["chambers", "aorta"])`.
Separators such as `_` may stand among the dropped words.
"""


def named_after_scans(named: Sequence[NamedFile]) -> Iterator[tuple[NamedFile, NamedFile, frozenset[str]]]:
    """Yield (file, scan, further words) for each file whose path adds words to a scan's path.

    Only files of the kind `FileKind.SCAN` are used; masks such as `p1_LA` have this kind, too. Capitals do not matter.
    The further words are in lower case. They may stand at one of three places:
    - at the end or at the beginning of the file's name: `p1_LA` and `LA_p1` add `la` to `p1`. A word after a number
      needs no separator: `p1LA`;
    - in the name of a file in the scan's folder: `p1/LA` and `p1/p1_LA` add `la` to `p1/image`;
    - in the name of a folder: `LA/p1` and `LA/LA_p1` add `la` to `p1`. All words of the folder must be in
      `OUTLINE_WORDS` or `OTHER_STRUCTURES`.

    If several scans fit a file, they are yielded in this order:

    1. Scans whose key is the file's key without some words of the name. The longest key comes first: for the file
       `p1_T1_LA`, the scan `p1_T1` comes before the scan `p1`.
    2. Scans whose key is the file's key without a folder: `p1` for `LA/p1`.
    3. Scans that fit by rule 1 or 2 if the loose keys (see `loose_key`) are compared: `p1_LA` adds `la` to `p1_lge`.

    For the scans found by their loose keys:
    - The `key` of the yielded scan is its loose key.
    - A file does not fit such a scan if all further words are in `MODALITY_WORDS`: `p1_T2` adds only `t2` to `p1_lge`,
      so it is another scan.
    - A file does not fit such a scan either if its key without the further words contains a word for the modality
      (`modalities`): `T2_p1_LA` without `LA` is `T2_p1`, so it does not fit `p1_lge`.
    """
    return _fitting_scans(named, _shorter_keys)


def in_folders_named_after_scans(named: Sequence[NamedFile]) -> Iterator[tuple[NamedFile, NamedFile, frozenset[str]]]:
    """Yield (file, scan, further words) for each file below a folder that is named after a scan.

    `p1_chambers/aorta` adds `chambers` and `aorta` to `p1`. Capitals and loose keys are treated as by
    `named_after_scans`.
    """
    return _fitting_scans(named, _keys_of_folders)


def _fitting_scans(
    named: Sequence[NamedFile], candidates_of: Callable[[Sequence[str], str], _Candidates]
) -> Iterator[tuple[NamedFile, NamedFile, frozenset[str]]]:
    """Yield (file, scan, further words) for each scan that has one of a file's shorter keys.

    Args:
        candidates_of: called with the folders and the name from a file's key, in lower case.
    """
    files = [file for file in named if file.kind is FileKind.SCAN]
    first_channels = [replace(file, key=without_first_channel(file.key)) for file in files]
    scans = _by_lower_key(first_channels) | _by_lower_key(files)
    loose: defaultdict[Key, list[NamedFile]] = defaultdict(list)
    for key, same in scans.items():
        loose[loose_key(key)] += [replace(file, key=loose_key(key)) for file in same]
    for file in files:
        *folders, name = lower_key(file.key) or ("",)
        candidates = [(key, further_words(dropped)) for key, dropped in candidates_of(folders, name)]
        without_modality = [
            (key, words) for key, words in candidates if not (words <= MODALITY_WORDS or modalities(key))
        ]
        found = [(scans.get(tuple(filter(None, key)), []), words) for key, words in candidates]
        found += [(loose.get(loose_key(key), []), words) for key, words in without_modality]
        for same, words in found:
            same = sorted(same, key=lambda scan: not _agree_in_capitals(file, scan)) if len(same) > 1 else same
            yield from ((file, scan, words) for scan in same if scan.path != file.path)


def _agree_in_capitals(file: NamedFile, scan: NamedFile) -> bool:
    # The file `p1_LA` agrees with the scan `p1`, but not with the scan `P1`.
    text = "/".join(file.key)
    return all(part in text for part in scan.key)


def _by_lower_key(files: Iterable[NamedFile]) -> dict[Key, list[NamedFile]]:
    by_key: defaultdict[Key, list[NamedFile]] = defaultdict(list)
    for file in files:
        by_key[lower_key(file.key)].append(file)
    return dict(by_key)


def _shorter_keys(folders: Sequence[str], name: str) -> _Candidates:
    """Return the candidates of a file for `named_after_scans`."""
    words = SEPARATORS.split(name)
    ends = [(words[:last], words[last:]) for last in range(len(words) - 2, 0, -2)]
    starts = [(words[first:], words[:first]) for first in range(2, len(words), 2)]
    shorter = [((*folders, "".join(kept)), dropped) for kept, dropped in (*ends, *starts)]
    key_of_folder = (*folders, "")
    shorter.append((key_of_folder, _words_without_folder(name, folders[-1] if folders else "")))
    if joined := JOINED.fullmatch(name):
        shorter.append(((*folders, joined[1]), [joined[2]]))
    shorter.sort(key=lambda parts: -len(SEPARATORS.split(parts[0][-1])))
    for n, part in enumerate(folders):
        if words_of(part) <= OUTLINE_WORDS | OTHER_STRUCTURES:
            for rest in dict.fromkeys((name, without_words(name, words_of(part)))):
                shorter.append(((*folders[:n], *folders[n + 1 :], rest), SEPARATORS.split(part)))
    return shorter


def _words_without_folder(name: str, folder: str) -> list[str]:
    """Return the words of a file's name.

    If the name begins or ends with all words of the folder's name, and has other words, return only the other words.

    >>> [_words_without_folder(name, "p1_a") for name in ("p1_a_LA", "LA-p1-a", "p1_LA", "p1_a")]
    [['LA'], ['LA'], ['p1', 'LA'], ['p1', 'a']]
    """
    words, known = SEPARATORS.split(name)[::2], SEPARATORS.split(folder)[::2]
    for others, part in ((words[len(known) :], words[: len(known)]), (words[: -len(known)], words[-len(known) :])):
        if others and part == known:
            return others
    return words


def _keys_of_folders(folders: Sequence[str], name: str) -> _Candidates:
    """Return the candidates of a file for `in_folders_named_after_scans`.

    A key whose words are all in `FORMAT_WORDS` is no candidate: `nifti/p1` does not belong to a scan `nifti`.

    >>> _keys_of_folders(["p1_chambers"], "p1_aorta")
    [(('p1_chambers',), ['aorta']), (('p1',), ['chambers', 'aorta'])]
    """
    keys: _Candidates = []
    for n in range(len(folders) - 1, -1, -1):
        words, below = SEPARATORS.split(folders[n]), SEPARATORS.split("_".join((*folders[n + 1 :], name)))[::2]
        for last in range(len(words), 0, -2):
            key = (*folders[:n], "".join(words[:last]))
            known = {word for part in key for word in SEPARATORS.split(part)[::2]}
            if not known <= FORMAT_WORDS:
                keys.append((key, [word for word in (*words[last + 1 :: 2], *below) if word not in known]))
    return keys
