"""Tell labels from scans by the voxels: a label has few different values."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..io.formats import data_files_beside, ending
from ..io.readers import read_labelmap
from ..volume import Labelmap
from .case_list import Case
from .labels import MANY_VALUES, SCAN_WITH_LABEL

FEW_VALUES = 16
"""An image with at most this many different intensities is probably a label."""
_CONSTANT_FRACTION = 0.8
"""A labelmap of many structures has at least this fraction of equal neighbours (`_is_constant_in_regions`)."""
_SAMPLE = 1 << 16
"""`count_few_values` examines a sample of about this many voxels first."""
_MOST_NAMES = 20
"""`cases_like_labels` examines at most this many paths that differ not only in numbers."""


def count_few_values(voxels: NDArray[Any]) -> int | None:
    """Return the number of different values of an image if it is like a label, or else None.

    An image is like a label in two cases:
    - It has at most `FEW_VALUES` different values.
    - It has at most `MANY_VALUES` and is constant in regions (`_is_constant_in_regions`). An example is a labelmap of
      all organs of the body.

    Args:
        voxels: the image, whose last three axes are spatial.
    """
    flat = voxels.ravel(order="K")  # no copy, even of transposed voxels
    if len(np.unique(flat[:: max(1, flat.size // _SAMPLE)])) > MANY_VALUES:
        return None
    count = len(np.unique(flat))
    return count if count <= FEW_VALUES or (count <= MANY_VALUES and _is_constant_in_regions(voxels)) else None


def _is_constant_in_regions(voxels: NDArray[Any]) -> bool:
    """Return whether at least `_CONSTANT_FRACTION` of the neighbours along one of the axes are equal.

    Neighbours that are both background (0) do not count, because a scan may also have a wide background.
    """
    for axis in (-1, -2, -3):
        moved = np.moveaxis(voxels, axis, -1)
        one, other = moved[..., :-1], moved[..., 1:]
        equal = one == other
        counted = np.count_nonzero((one != 0) | ~equal)
        if np.count_nonzero(equal & (one != 0)) >= _CONSTANT_FRACTION * counted:
            return True
    return False


def may_be_mask(voxels: NDArray[Any]) -> bool:
    """Return whether an image holds only whole numbers from 0 up, and is like a label (`count_few_values`)."""
    if count_few_values(voxels) is None:
        return False
    values = np.unique(voxels)
    return bool(values[0] >= 0 and np.all(values == np.floor(values)))


def refuse_scan_as_labels(labelmap: Labelmap, path: Path) -> None:
    """Raise InputError if a labelmap, which was read from `path`, is probably a scan."""
    count = len(np.unique(labelmap.voxels))
    if count > MANY_VALUES and not _is_constant_in_regions(labelmap.voxels):
        what = f"is probably a scan, not a segmentation: it holds {count} different values"
        raise InputError(what, path=path, remedy="Give the scan first, and then its segmentation.")


def has_few_values(path: Path) -> bool:
    """Return whether a file holds only whole numbers from 0 up, and is like a label (`count_few_values`).

    False for folders, for files that cannot be read, and for files that may hold a scan and its label (`.h5`, `.zip`).
    """
    if ending(path) in SCAN_WITH_LABEL:
        return False
    try:
        return path.is_file() and _has_few_values(path, tuple(map(_state, (path, *data_files_beside(path)))))
    except OSError:
        return False


def cases_like_labels(cases: Iterable[Case]) -> list[Case]:
    """Return the cases whose scan has few values (`has_few_values`).

    Few scans are read: if paths differ only in numbers, the others are read only if the first has few values.
    """
    groups: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[re.sub(r"\d+", "", str(case.image))].append(case)
    first = islice(groups.values(), _MOST_NAMES)
    return [case for group in first if has_few_values(group[0].image) for case in group if has_few_values(case.image)]


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=1 << 16)  # One search may examine a folder of thousands of files several times.
def _has_few_values(path: Path, states: tuple[tuple[int, int] | None, ...]) -> bool:
    """Return the result of `has_few_values`, cached until the file or one of its data files changes (`states`)."""
    try:
        return count_few_values(read_labelmap(path).voxels) is not None
    except InputError:
        return False
