"""Write large arrays slab by slab, so that the event loop can run between two slabs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from dcamt.errors import DISK_FULL, OutputError
from dcamt.io.slabs import slabs
from slicer.i18n import tr as _

FREE_SPACE = _("Free some space, or choose another temporary folder in the application's settings.")


def write_channels(channels: Sequence[np.ndarray], path: Path) -> Iterator[slice]:
    """Write arrays (K, J, I) as one .npy file (K, J, I, C), one slab in each step; yield each written slab.

    A single array is written without an axis of channels. The file has the smallest type that holds all arrays' types.

    Raises:
        OutputError: the file cannot be written.
    """
    if len(channels) == 1:
        yield from write_npy(channels[0], path)
        return
    shape = (*channels[0].shape, len(channels))
    dtype = np.result_type(*(voxels.dtype for voxels in channels))
    parts = slabs(np.broadcast_to(np.empty((), dtype), shape))
    yield from _write(path, shape, dtype, ((slab, np.stack([one[slab] for one in channels], -1)) for slab in parts))


def write_npy(voxels: np.ndarray, path: Path) -> Iterator[slice]:
    """Write an array as a .npy file, one slab in each step; yield each written slab.

    Raises:
        OutputError: the file cannot be written.
    """
    yield from _write(path, voxels.shape, voxels.dtype, ((slab, voxels[slab]) for slab in slabs(voxels)))


def _write(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, parts: Iterable[tuple[slice, np.ndarray]]
) -> Iterator[slice]:
    try:
        with open(path, "wb") as file:
            header = np.lib.format.header_data_from_array_1_0(np.empty((0, *shape[1:]), dtype))
            np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
            for slab, part in parts:
                np.ascontiguousarray(part, dtype).tofile(file)
                yield slab
    except OSError as error:
        full = error.errno in DISK_FULL
        what = _("the disk is full") if full else _("could not be written ({reason})").format(reason=error.strerror)
        raise OutputError(f"{path.parent}: {what}. {FREE_SPACE}") from error
