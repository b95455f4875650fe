"""Read the arrays that an application writes for a request: a scan, the mask of a segment, or a map of doubt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from ..volume import Volume, as_labels, check_label_grid, check_scan, check_size, same_grid
from .requests import ReportRequest, SegmentMask, SegmentRequest, WallRequest


def read_scan(request: SegmentRequest | WallRequest | ReportRequest) -> Volume:
    """Return the scan of a request, (C, I, J, K), memory-mapped.

    Raises:
        InputError, naming `request.name`: the file cannot be read, or its content cannot be segmented.
    """
    name = Path(request.name)
    stored = _load(request.volume, name)
    if stored.ndim == 3:
        stored = stored[..., None]
    if stored.ndim != 4:
        raise InputError("is not three-dimensional", path=name, remedy="Choose a volume with slices.")
    voxels = stored.transpose(3, 2, 1, 0)
    volume = Volume(voxels, Grid(voxels.shape[1:], request.affine), name)
    check_scan(volume)
    return volume


def read_mask(segment: SegmentMask) -> np.ndarray:
    """Return the mask of a segment, bool (I, J, K).

    Raises:
        InputError, naming `segment.name`: the file cannot be read or does not hold labels (`as_labels`), or its grid is
            impossible.
    """
    labels = _load_labels(segment.mask, segment.name)
    check_label_grid(Grid(labels.shape, segment.affine), segment.name, partial=True)
    return np.asarray(labels != 0)


def read_doubt_map(request: ReportRequest, grid: Grid) -> np.ndarray | None:
    """Return the doubt (I, J, K), 0 to 1; None if the request has no map, or if the map is not on the scan's `grid`.

    Raises InputError if the map's file cannot be read, or if its values are not whole numbers.
    """
    file, affine = request.doubt_map, request.doubt_map_affine
    if file is None or affine is None:
        return None
    percent = _load_labels(file, f"{request.name}, map of doubt")
    return percent.astype(np.float32) / 100 if same_grid(Grid(percent.shape, affine), grid) else None


def _load_labels(file: Path, name: str) -> np.ndarray:
    """Return the array (I, J, K) of unsigned integers in a file (K, J, I)."""
    stored = _load(file, name)
    if stored.ndim != 3:
        raise InputError("is not three-dimensional", path=name, remedy="Try again.")
    check_size(stored.shape, name)
    return as_labels(stored.transpose(), name)


def _load(file: Path, name: str | Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"could not be passed to DCAMT's background process ({reason})", path=name, remedy="Try again."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # numpy raises errors of many types
        raise InputError(
            "was damaged on its way to DCAMT's background process", path=name, remedy="Try again."
        ) from error
    return array
