"""A volume into a NRRD file, some megabytes at a time, so that the window can have its turn between them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from dcamt.io.atomic import atomic_path

SLAB_BYTES = 8 << 20
_TYPES = {"i": "int", "u": "uint"}


def write_slabs(voxels: np.ndarray, ijk_to_ras: np.ndarray, path: Path) -> Iterator[None]:
    """Write `voxels` (K, J, I) uncompressed, yielding after each slab; the file is there, whole, at the end only.

    ijk_to_ras: (4, 4), voxel (i, j, k) -> RAS mm.

    Raises:
        OutputError: it cannot be written.
    """
    thickness = max(1, SLAB_BYTES // max(1, voxels[:1].nbytes))
    with atomic_path(path) as partial, open(partial, "wb") as file:
        file.write(_header(voxels, ijk_to_ras).encode("ascii"))
        for start in range(0, len(voxels), thickness):
            slab = voxels[start : start + thickness]
            np.ascontiguousarray(slab, slab.dtype.newbyteorder("=")).tofile(file)
            yield


def _header(voxels: np.ndarray, ijk_to_ras: np.ndarray) -> str:
    kind, bits = voxels.dtype.kind, voxels.dtype.itemsize * 8
    named = {32: "float", 64: "double"}[bits] if kind == "f" else f"{_TYPES[kind]}{bits}"
    axes = [f"({','.join(repr(float(mm)) for mm in ijk_to_ras[:3, axis])})" for axis in range(3)]
    lines = [
        "NRRD0004",
        f"type: {named}",
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
