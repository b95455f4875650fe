"""Divide large arrays into slabs of some megabytes and write them, so that an event loop can run between slabs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..errors import write_error
from .atomic import atomic_path
from .in_use import remove_file

SLAB_BYTES = 8 << 20
"""Bytes of a slab, which takes a few milliseconds to copy."""
_NRRD_TYPES = {"i": "int", "u": "uint"}


def slabs(array: np.ndarray, slab_bytes: int = SLAB_BYTES) -> Iterator[slice]:
    """Yield slices along the first axis that cover the array in order.

    A slice has at most `slab_bytes` bytes, but always at least one index.

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
    for _slab in write_npy_in_slabs(voxels.transpose(2, 1, 0), path):
        pass


def write_npy_in_slabs(voxels: np.ndarray, path: Path) -> Iterator[slice]:
    """Write an array to a `.npy` file slab by slab; yield the slice of each slab after it is written.

    An incomplete file is removed. Use this only for short-lived files: the data is not flushed to the disk.

    Raises:
        OutputError: the file cannot be written.
    """
    yield from _write_npy(path, voxels.shape, voxels.dtype, ((slab, voxels[slab]) for slab in slabs(voxels)))


def write_channels_in_slabs(channels: Sequence[np.ndarray], path: Path) -> Iterator[slice]:
    """Write a scan's channels to a `.npy` file slab by slab; yield the slice of each slab after it is written.

    Each channel is an array (K, J, I). The file's array is (K, J, I, C), or (K, J, I) if there is only one channel. The
    file's data type is the `numpy.result_type` of the channels' data types. As in `write_npy_in_slabs`, an incomplete
    file is removed.

    Raises:
        OutputError: the file cannot be written.
    """
    if len(channels) == 1:
        yield from write_npy_in_slabs(channels[0], path)
        return
    shape = (*channels[0].shape, len(channels))
    dtype = np.result_type(*(voxels.dtype for voxels in channels))
    parts = slabs(np.broadcast_to(np.empty((), dtype), shape))
    yield from _write_npy(
        path, shape, dtype, ((slab, np.stack([channel[slab] for channel in channels], -1)) for slab in parts)
    )


def _write_npy(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, parts: Iterable[tuple[slice, np.ndarray]]
) -> Iterator[slice]:
    try:
        with path.open("wb") as file:
            header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for slab, part in parts:
                # `tofile` would raise OSError without errno, and `write_error` would not recognise a full disk.
                file.write(np.ascontiguousarray(part, dtype).data)
                yield slab
    except BaseException as error:
        with suppress(OSError):
            remove_file(path)
        if isinstance(error, OSError):
            raise write_error(error, path) from error
        raise


def write_nrrd_in_slabs(
    voxels: np.ndarray, ijk_to_ras: np.ndarray, path: Path, further_channels: Sequence[np.ndarray] = ()
) -> Iterator[None]:
    """Write an uncompressed NRRD file, yielding after each slab. The file appears after the last slab.

    The file's data type is the `numpy.result_type` of the channels' data types.

    Args:
        voxels: (K, J, I), of an integer type, float32 or float64.
        ijk_to_ras: (4, 4), voxel index (i, j, k) -> RAS mm.
        further_channels: arrays of the same shape as `voxels`.

    Raises:
        OutputError: the file cannot be written.
    """
    channels = (voxels, *further_channels)
    dtype = np.result_type(*(channel.dtype for channel in channels)).newbyteorder("=")
    with atomic_path(path) as partial, open(partial, "wb") as file:
        file.write(_nrrd_header(voxels.shape, len(channels), dtype, ijk_to_ras).encode("ascii"))
        for slab in slabs(voxels, SLAB_BYTES // len(channels)):
            part = np.stack([channel[slab] for channel in channels], -1) if further_channels else voxels[slab]
            file.write(np.ascontiguousarray(part, dtype).data)
            yield


def _nrrd_header(shape: tuple[int, ...], channels: int, dtype: np.dtype, ijk_to_ras: np.ndarray) -> str:
    kind, bits = dtype.kind, dtype.itemsize * 8
    voxel_type = {32: "float", 64: "double"}[bits] if kind == "f" else f"{_NRRD_TYPES[kind]}{bits}"
    axes = [f"({','.join(repr(float(mm)) for mm in ijk_to_ras[:3, axis])})" for axis in range(3)]
    sizes, kinds = [*shape[::-1]], ["domain"] * 3
    if channels > 1:
        sizes, axes, kinds = [channels, *sizes], ["none", *axes], ["list", *kinds]
    lines = [
        "NRRD0004",
        f"type: {voxel_type}",
        f"dimension: {len(sizes)}",
        "space: right-anterior-superior",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join(axes)}",
        f"kinds: {' '.join(kinds)}",
        f"endian: {sys.byteorder}",
        "encoding: raw",
        f"space origin: ({','.join(repr(float(mm)) for mm in ijk_to_ras[:3, 3])})",
    ]
    return "\n".join(lines) + "\n\n"
