"""MetaImage and every other format that ITK reads, through SimpleITK."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..volume import check_size
from .library_errors import library_errors

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def quiet_sitk() -> Any:
    """The SimpleITK module, with its own warnings kept off the terminal."""
    from importlib import import_module

    sitk: Any = import_module("SimpleITK")  # its type hints leave most functions out
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


@contextmanager
def quiet_terminal() -> Iterator[None]:
    """Keep what C++ readers print on the error stream (MetaImage does) from mingling with our own lines.

    They write past Python's `sys.stderr`, so the stream itself is turned away meanwhile, for every thread.
    """
    try:
        kept = os.dup(2)
    except OSError:  # no error stream at all, as in a program with windows only
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, I, J, K) and affine (RAS mm) of an image that ITK knows by its content or its ending.

    A fourth axis or a vector's components become channels. Raises InputError for a damaged or unknown file,
    colour voxels, fewer than three dimensions, or a single DICOM slice.
    """
    with library_errors(path, "an image"), quiet_terminal():
        image = _information(path).Execute()
    size = image.GetSize()
    array = quiet_sitk().GetArrayViewFromImage(image)  # (..., K, J, I) and, where vectors, components last
    if image.GetNumberOfComponentsPerPixel() == 1:
        array = array[..., np.newaxis]
    voxels = np.moveaxis(array, -1, 0)  # (C, [T,] K, J, I)
    axes = voxels.ndim
    voxels = voxels.transpose(*range(axes - 3), axes - 1, axes - 2, axes - 3)
    voxels = np.ascontiguousarray(voxels.reshape(-1, *voxels.shape[-3:]))
    # A view would die with the image.
    return np.array(voxels), _affine(image, len(size))


def read_itk_header(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape (C, I, J, K) and affine (RAS mm) as `read_itk` gives them, without its voxels.

    Raises InputError as `read_itk` does, but for damage inside of the voxels.
    """
    with library_errors(path, "an image"), quiet_terminal():
        reader = _information(path)
    size = reader.GetSize()
    return (reader.GetNumberOfComponents() * int(np.prod(size[3:])), *size[:3]), _affine(reader, len(size))


def _information(path: Path) -> Any:
    """A reader that knows the file's header; raises InputError for what is no scan."""
    sitk = quiet_sitk()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    if len(size) < 3:
        remedy = "A three-dimensional scan is needed."
        raise InputError(f"is a {len(size)}D image", path=path, remedy=remedy)
    if size[2] == 1 and reader.HasMetaDataKey("0020|000e"):  # a series' own identifier: it is DICOM
        remedy = "Choose the folder that holds the whole series."
        raise InputError("is one DICOM slice", path=path, remedy=remedy)
    check_size([*size, components], path)
    if components in (3, 4) and reader.GetPixelID() == sitk.sitkVectorUInt8:
        raise InputError("is a colour (RGB) image", path=path, remedy="A grey-scale scan is needed.")
    return reader


def _affine(image: Any, axes: int) -> np.ndarray:
    """Voxel index to RAS mm, (4, 4), of an image or a reader of `axes` dimensions."""
    direction = np.array(image.GetDirection()).reshape(axes, axes)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return np.asarray(LPS_TO_RAS @ affine)
