"""Copy and write large arrays in slabs of some megabytes, so that an event loop can run between them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import write_error
from .atomic import atomic_path

SLAB_BYTES = 8 << 20
"""Bytes of a slab, which takes a few milliseconds to copy."""
_NRRD_TYPES = {"i": "int", "u": "uint"}


def slabs(array: np.ndarray, slab_bytes: int = SLAB_BYTES) -> Iterator[slice]:
    """Return slices along the first axis that cover the array in order, each of about `slab_bytes`.

    >>> import numpy as np
    >>> [(part.start, part.stop) for part in slabs(np.zeros((5, 2), np.uint8), slab_bytes=4)]
    [(0, 2), (2, 4), (4, 5)]
    """
    thickness = max(1, slab_bytes // max(1, array[:1].nbytes))
    for start in range(0, len(array), thickness):
        yield slice(start, min(start + thickness, len(array)))


def write_voxels(voxels: np.ndarray, path: Path) -> None:
    """Write voxels (I, J, K) to a `.npy` file in the axis order (K, J, I) of VTK and Slicer.

    Raises:
        OutputError: the file cannot be written.
    """
    stored = np.ascontiguousarray(voxels.transpose(2, 1, 0))
    try:
        # `np.save` raises no error if the disk is full.
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": stored.dtype.str, "fortran_order": False, "shape": stored.shape}
            )
            file.write(stored.data)
    except OSError as error:
        raise write_error(error, path) from error


def write_nrrd_in_slabs(voxels: np.ndarray, ijk_to_ras: np.ndarray, path: Path) -> Iterator[None]:
    """Write an uncompressed NRRD file, yielding after each slab; the file appears only after the last slab.

    voxels: (K, J, I), integer or float. ijk_to_ras: (4, 4), voxel index (i, j, k) -> RAS mm.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_path(path) as partial, open(partial, "wb") as file:
        file.write(_nrrd_header(voxels, ijk_to_ras).encode("ascii"))
        for part in slabs(voxels):
            np.ascontiguousarray(voxels[part], voxels.dtype.newbyteorder("=")).tofile(file)
            yield


def _nrrd_header(voxels: np.ndarray, ijk_to_ras: np.ndarray) -> str:
    kind, bits = voxels.dtype.kind, voxels.dtype.itemsize * 8
    voxel_type = {32: "float", 64: "double"}[bits] if kind == "f" else f"{_NRRD_TYPES[kind]}{bits}"
    axes = [f"({','.join(repr(float(mm)) for mm in ijk_to_ras[:3, axis])})" for axis in range(3)]
    lines = [
        "NRRD0004",
        f"type: {voxel_type}",
        "dimension: 3",
        "space: right-anterior-superior",
        f"sizes: {' '.join(str(size) for size in voxels.shape[::-1])}",
        f"space directions: {' '.join(axes)}",
        "kinds: domain domain domain",
        f"endian: {sys.byteorder}",
        "encoding: raw",
        f"space origin: ({','.join(repr(float(mm)) for mm in ijk_to_ras[:3, 3])})",
    ]
    return "\n".join(lines) + "\n\n"
