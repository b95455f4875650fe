"""Read the arrays `image` and `label` from `mri_norm2.h5`, the file of a case in the left atrium benchmark."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from ..volume import check_size
from .stored_image import StoredImage, library_errors

MAGIC = b"\x89HDF\r\n\x1a\n"
SPACING_MM = 0.625
"""Spacing of the benchmark's scans along every axis (Xiong et al., Medical Image Analysis 2021)."""


def open_hdf5(path: Path, label: bool) -> StoredImage:
    """Open the array `image` (I, J, K) of a benchmark file, or its array `label` if `label` is true.

    The file stores no geometry. As in the benchmark, the axes are assumed to run to the patient's left, posterior and
    superior with a spacing of `SPACING_MM`.

    Raises:
        InputError: h5py is not installed, the file cannot be read, `image` was not written completely, or the array is
            missing, not three-dimensional, empty or too large.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        if error.name != "h5py":
            raise
        raise InputError(
            "needs the package h5py to be read",
            path=path,
            remedy="Install h5py (pip install h5py), or convert the file.",
        ) from error
    name = "label" if label else "image"
    with library_errors(path, "an HDF5 file"), h5py.File(path, "r") as file:
        if name not in file or not hasattr(file[name], "shape"):
            known = ", ".join(sorted(f'"{key}"' for key in file))
            what = f'holds no array "{name}", but holds {known}' if known else f'holds no array "{name}"'
            raise InputError(what, path=path, remedy="Choose another file.")
        shape = tuple(int(size) for size in file[name].shape)
        written, total = _written_parts(file[name])
    if written < total and not label:
        what = f"is incomplete: {written} of {total} parts of its array were written"
        raise InputError(what, path=path, remedy="Write or copy the file again.")
    if len(shape) != 3:
        raise InputError(f"holds a {len(shape)}D array", path=path, remedy="A three-dimensional scan is needed.")
    check_size(shape, path)

    def load() -> np.ndarray:
        with library_errors(path, "an HDF5 file"), h5py.File(path, "r") as file:
            stored: Any = file[name][()]
            return np.ascontiguousarray(stored)[np.newaxis]

    affine = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])
    notes = [
        f"Holds no geometry; voxels of {SPACING_MM} mm and axes along left, posterior and superior were assumed, as in"
        " the left atrium benchmark."
    ]
    if written < total:
        notes.append(
            f"The file holds only {written} of the label's {total} parts. The missing parts count as background."
        )
    return StoredImage(1, Grid((shape[0], shape[1], shape[2]), affine), load, notes=tuple(notes))


def _written_parts(stored: Any) -> tuple[int, int]:
    """Return the number of written chunks of an array, and the number of all its chunks.

    An array with a user-defined fill value counts as complete: its missing chunks hold this value.
    """
    from h5py import h5d

    if not stored.chunks or stored.id.get_create_plist().fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED:
        return 1, 1
    total = math.prod(-(-size // chunk) for size, chunk in zip(stored.shape, stored.chunks, strict=True))
    return stored.id.get_num_chunks(), total
