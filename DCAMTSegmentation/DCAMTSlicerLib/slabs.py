"""Write large arrays slab by slab, so that the event loop can run between two slabs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from dcamt.errors import DISK_FULL, OutputError
from dcamt.io.slabs import slabs
from slicer.i18n import tr as _

FREE_SPACE = _("Free some space, or choose another temporary folder in the application's settings.")


def write_npy(voxels: np.ndarray, path: Path) -> Iterator[slice]:
    """Write an array as a .npy file, one slab in each step; yield each written slab.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        with open(path, "wb") as file:
            header = np.lib.format.header_data_from_array_1_0(np.empty((0, *voxels.shape[1:]), voxels.dtype))
            np.lib.format.write_array_header_1_0(file, header | {"shape": voxels.shape})
            for slab in slabs(voxels):
                np.ascontiguousarray(voxels[slab]).tofile(file)
                yield slab
    except OSError as error:
        full = error.errno in DISK_FULL
        what = _("the disk is full") if full else _("could not be written ({reason})").format(reason=error.strerror)
        raise OutputError(f"{path.parent}: {what}. {FREE_SPACE}") from error
