"""Make the names of scans distinct."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path


def with_folders(names: Sequence[str], scans: Sequence[Path]) -> list[str]:
    """Return the names with folders in front of equal names of scans in different folders.

    A folder is left out if it is the same for all scans of the name, and the name contains it already.

    >>> scans = [Path("site1/x.nrrd"), Path("site2/x.nrrd"), Path("site2/x.nii.gz"), Path("y.nrrd")]
    >>> with_folders(["x", "x", "x", "y"], scans)
    ['site1_x', 'site2_x', 'site2_x', 'y']
    >>> with_folders(["p1_lge", "p1_lge"], [Path("site1/p1/lge.nrrd"), Path("site2/p1/lge.nrrd")])
    ['site1_p1_lge', 'site2_p1_lge']

    Args:
        names: a name for each scan.
        scans: the scans' paths.
    """
    distinct = list(names)
    folders = [Path(os.path.abspath(scan)).parent.parts[:0:-1] for scan in scans]  # the innermost folder first
    for depth in range(max(map(len, folders), default=0)):
        for members in _repeated(distinct):
            if len({folders[index] for index in members}) == 1:
                continue
            above = {"".join(folders[index][depth : depth + 1]) for index in members}
            if len(above) == 1 and f"_{min(above)}_" in f"_{distinct[members[0]]}_":
                continue
            for index in members:
                distinct[index] = "_".join([*folders[index][depth : depth + 1], distinct[index]])
    return distinct


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
