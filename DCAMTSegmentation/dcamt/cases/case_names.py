"""Name cases after their files, and make the names distinct."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..io.channels import without_channel
from ..io.formats import scan_name
from .keys import loose_key
from .words import CAPITALISED, PAIRING_WORDS, SEPARATORS, rest_of


def case_name(path: str | Path) -> str:
    """Return the name of a file's case (see `case_of`).

    >>> [case_name(name) for name in ("la_001_0000.nii.gz", "la_001_label.seg.nrrd", "la_001_pred.nrrd")]
    ['la_001', 'la_001', 'la_001']
    >>> case_name("1.3.6.1.4.1.14519.5.2.1.1.nii.gz")
    '1.3.6.1.4.1.14519.5.2.1.1'
    """
    return case_of(scan_name(path))


def case_of(scan: str) -> str:
    """Return the name of a scan's case: the scan's name without `_0000`.

    If the name has several words and `PAIRING_WORDS` contains the last word, this word is also removed.

    >>> case_of("la_001_image_0000")
    'la_001'
    """
    name = unicodedata.normalize("NFC", without_channel(scan))
    words = SEPARATORS.split(CAPITALISED.sub("_", name))
    if len(words) > 2 and words[-1].lower() in PAIRING_WORDS:
        name = without_channel("".join(words[:-2]))
    return name


def names_with_numbers(files: Mapping[str, Path]) -> dict[str, str]:
    """Restore the number `_0000` in the names of cases.

    `case_name` removes `_0000`, which is usually the number of a channel: `p_0000` becomes `p`. But if there is also a
    case such as `p_0001`, the `_0000` of `p_0000` is the number of the case, so the name becomes `p_0000` again.

    >>> files = [Path(f"{name}.nii.gz") for name in ("p_0000", "p_0001", "q_0000")]
    >>> names_with_numbers({case_name(path): path for path in files})
    {'p': 'p_0000', 'p_0001': 'p_0001', 'q': 'q'}
    """
    counted = {name[:-5] for name in files if re.fullmatch(r"_\d{4}", name[-5:])}
    numbered = {case for case in counted & files.keys() if rest_of(scan_name(files[case]), f"{case}_0000") is not None}
    return {case: f"{case}_0000" if case in numbered else case for case in files}


def name_of_key(key: tuple[str, ...]) -> str:
    """Return the name of a case, made from its key: `p1` for the key `("site1", "p1")`.

    If parts at the end have only words for the modality, such as `lge`, they are joined to the part before them:
    `p1_lge` for the key `("site1", "p1", "lge")`.
    """
    identifying = [n for n, part in enumerate(key) if loose_key([part])]
    start = identifying[-1] if identifying else len(key) - 1
    return "_".join(key[start:])


def with_folders(names: Sequence[str], scans: Sequence[Path]) -> list[str]:
    """Put folders in front of names until scans in different folders have different names.

    Names that differ only in capitals or in the encoding of accents count as equal, since some file systems cannot
    keep files of such names side by side.

    >>> scans = [Path("site1/x.nrrd"), Path("site2/x.nrrd"), Path("site2/x.nii.gz"), Path("y.nrrd")]
    >>> with_folders(["x", "x", "x", "y"], scans)
    ['site1_x', 'site2_x', 'site2_x', 'y']
    >>> with_folders(["p1_lge", "p1_lge"], [Path("site1/p1/lge.nrrd"), Path("site2/p1/lge.nrrd")])
    ['site1_p1_lge', 'site2_p1_lge']
    >>> with_folders(["P1", "p1"], [Path("site1/P1.nrrd"), Path("site2/p1.nrrd")])
    ['site1_P1', 'site2_p1']
    """
    folders = [Path(os.path.abspath(scan)).parent.parts[:0:-1] for scan in scans]  # the innermost folder first
    distinct = _with_folders(names, folders, str)
    return _with_folders(distinct, folders, _plain)


def _with_folders(names: Sequence[str], folders: Sequence[Sequence[str]], key: Callable[[str], str]) -> list[str]:
    """Return the names as `with_folders` does; two names or two folders count as equal if their `key` is equal."""
    distinct = list(names)
    keys = [tuple(map(key, parts)) for parts in folders]
    for depth in range(max(map(len, folders), default=0)):
        for members in _repeated([key(name) for name in distinct]):
            if len({keys[index] for index in members}) == 1:
                continue
            above = {"".join(keys[index][depth : depth + 1]) for index in members}
            is_in_names = len(above) == 1 and f"_{min(above)}_" in f"_{key(distinct[members[0]])}_"
            if is_in_names:
                continue
            for index in members:
                distinct[index] = "_".join([*folders[index][depth : depth + 1], distinct[index]])
    return distinct


def _plain(name: str) -> str:
    """Return a name without capitals, and with accents in one encoding.

    >>> _plain("P1") == _plain("p1")
    True
    """
    return unicodedata.normalize("NFC", name).casefold()


def with_numbers(names: Sequence[str]) -> list[str]:
    """Return the names with numbers in front of equal names.

    >>> with_numbers(["x", "x", "y"])
    ['1_x', '2_x', 'y']
    """
    distinct = list(names)
    while repeated := _repeated(distinct):
        for members in repeated:
            for number, index in enumerate(members, 1):
                distinct[index] = f"{number}_{distinct[index]}"
    return distinct


def _repeated(names: Sequence[str]) -> list[list[int]]:
    """Return the indices of equal names, a list for each name that occurs more than once."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        members[name].append(index)
    return [indices for indices in members.values() if len(indices) > 1]
