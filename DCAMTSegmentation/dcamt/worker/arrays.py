"""Read the arrays that an application writes for a request: a scan, or the mask of a segment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from ..volume import Volume, check_scan
from .requests import ReportRequest, SegmentMask, SegmentRequest, WallRequest


def read_scan(request: SegmentRequest | WallRequest | ReportRequest) -> Volume:
    """Return the scan of a request, (C, I, J, K), memory-mapped; errors name the scan by its name for the user.

    Raises:
        InputError: the file cannot be read, or its content cannot be segmented.
    """
    name = Path(request.name)
    stored = _load(request.volume, name)
    if stored.ndim == 3:
        stored = stored[..., None]
    if stored.ndim != 4:
        raise InputError(f"has {stored.ndim} axes", path=name, remedy="A three-dimensional scan is needed.")
    voxels = stored.transpose(3, 2, 1, 0)
    volume = Volume(voxels, Grid(voxels.shape[1:], request.affine), name)
    check_scan(volume)
    return volume


def read_mask(outline: SegmentMask) -> np.ndarray:
    """Return the mask of a segment, bool (I, J, K). Raises InputError if the file cannot be read."""
    return np.asarray(_load(outline.mask, outline.name).transpose() != 0)


def _load(file: Path, name: str | Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"could not be passed to the worker ({error})", path=name, remedy="Try again.") from error
    return array
