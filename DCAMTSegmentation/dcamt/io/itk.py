"""Read MetaImage and other formats with SimpleITK, after checking that the file is complete (`itk_completeness`)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, plain_number
from ..geometry import MISSING_DIRECTIONS, RAS_TO_LPS, Grid
from ..process_settings import shared_by_threads
from ..volume import GREY_SCALE_REMEDY, check_size
from .formats import ending
from .itk_completeness import CHECKS, PAIR_ENDINGS, pair_files, vtk_fields
from .metaimage import meta_header, metaimage_for_itk
from .nifti import SPACING_TOLERANCE, pair_placement
from .stored_image import StoredImage, library_errors

_TIFF_NOTE = (
    "A TIFF file does not store the distance between slices, the position or the orientation: a distance of 1 mm, a "
    "position at the origin, and axes along left, posterior and superior were assumed. Measured volumes may be wrong: "
    "use the original DICOM or NIfTI file."
)
_META_NOTE = "The header lacks the spacing of the voxels (ElementSpacing): 1 mm was assumed."
_VTK_NOTE = "The header lacks the spacing of the voxels (SPACING): 1 mm was assumed."
_WITHOUT_DIRECTIONS = (".gipl", ".gipl.gz", ".vtk", ".mrc", ".rec", *PAIR_ENDINGS)
"""Endings of formats from which ITK reads no directions; of the pairs, only Analyze 7.5 pairs reach `_notes`."""


def simple_itk() -> Any:
    """Return the SimpleITK module, untyped because its type hints omit most functions."""
    from importlib import import_module

    return import_module("SimpleITK")


def path_for_itk(path: Path) -> str | None:
    """Return a path as the UTF-8 text that SimpleITK needs; None if it is not UTF-8.

    SimpleITK ends the process, without an exception, if UTF-8 cannot encode a text.
    """
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeError:
        return None


def utf8_path(path: Path) -> str:
    """Return the result of `path_for_itk`; raise InputError if it is None."""
    if (name := path_for_itk(path)) is None:
        raise InputError("has a path that is not UTF-8", path=path, remedy="Rename the file or its folder.")
    return name


@shared_by_threads
def quiet_itk() -> Iterator[None]:
    """Suppress the warnings of ITK, and the output of all threads on stderr, inside the block.

    C++ code bypasses Python's `sys.stderr`, so the file descriptor is redirected.
    """
    process = simple_itk().ProcessObject
    shown = process.GetGlobalWarningDisplay()
    process.SetGlobalWarningDisplay(False)
    try:
        with _quiet_stderr():
            yield
    finally:
        process.SetGlobalWarningDisplay(shown)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    try:
        kept = os.dup(2)
    except OSError:  # There is no stderr, as in a Windows program without a console.
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


def open_itk(path: Path) -> StoredImage:
    """Open an image in a format that ITK recognises by content or ending.

    Components of a vector, and axes beyond the third, become channels.

    Raises:
        InputError: the file is damaged or incomplete, its format is unknown or cannot be checked for completeness, or
            the image has 8-bit colours, fewer than three dimensions or an impossible size (`check_size`).
    """
    kind = ending(path)
    with library_errors(path, "an image"):
        if kind in CHECKS:
            CHECKS[kind](path)
        with quiet_itk():
            reader = _read_header(path)
    if kind not in CHECKS:
        what = (
            f'is of a format ("{kind}") that cannot be checked for damage'
            if kind
            else "has no ending, and its format cannot be checked for damage"
        )
        raise InputError(what, path=path, remedy="Open the file in 3D Slicer and save it as NRRD.")
    size = reader.GetSize()
    affine, notes = _placement(path, reader, len(size))

    def load() -> np.ndarray:
        for_itk = metaimage_for_itk(path) if kind in (".mha", ".mhd") else nullcontext(path)
        with library_errors(path, "an image"), quiet_itk(), for_itk as file:
            reader.SetFileName(utf8_path(file))
            image = reader.Execute()
            array = simple_itk().GetArrayViewFromImage(image)  # (..., K, J, I) or, for vectors, (..., K, J, I, C)
            if image.GetNumberOfComponentsPerPixel() == 1:
                array = array[..., np.newaxis]
            voxels = np.moveaxis(array, -1, 0)  # (C, [T,] K, J, I)
            axes = voxels.ndim
            voxels = voxels.transpose(*range(axes - 3), axes - 1, axes - 2, axes - 3)
            # Copied, because a view becomes invalid when `image` is deleted.
            return np.array(voxels.reshape(-1, *voxels.shape[-3:]), order="C")

    return StoredImage(
        channels=reader.GetNumberOfComponents() * math.prod(size[3:]),
        grid=Grid(size[:3], affine),
        load=load,
        notes=notes,
    )


def _read_header(path: Path) -> Any:
    """Return a reader that has read the header of the file."""
    name = utf8_path(path)
    sitk = simple_itk()
    if not sitk.ImageFileReader.GetImageIOFromFileName(name):
        remedy = "Choose an image, such as a NIfTI or NRRD file, or a folder of DICOM files."
        raise InputError("is not an image in a known format, or its beginning is damaged", path=path, remedy=remedy)
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.ReadImageInformation()
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    if len(size) < 3:
        remedy = "A three-dimensional scan is needed."
        raise InputError(f"is a {len(size)}D image", path=path, remedy=remedy)
    check_size([*size, components], path)
    if components in (3, 4) and reader.GetPixelID() == sitk.sitkVectorUInt8:
        raise InputError("is a colour (RGB) image", path=path, remedy=GREY_SCALE_REMEDY)
    return reader


def _placement(path: Path, reader: Any, axes: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the affine (4, 4) of an image, voxel index -> RAS mm, and notes about the affine.

    A NIfTI pair is placed like a NIfTI file with the same header.
    """
    if ending(path) in PAIR_ENDINGS and (of_pair := pair_placement(pair_files(path)[0])):
        return of_pair
    affine = _affine(reader, axes)
    return affine, _notes(path, affine)


def _affine(reader: Any, axes: int) -> np.ndarray:
    direction = np.array(reader.GetDirection()).reshape(axes, axes)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    return np.asarray(RAS_TO_LPS @ affine)


def _notes(path: Path, affine: np.ndarray) -> tuple[str, ...]:
    kind = ending(path)
    if kind in (".tif", ".tiff"):
        return (_TIFF_NOTE,)
    notes: tuple[str, ...] = ()
    lacks_directions = kind in _WITHOUT_DIRECTIONS
    if kind in (".mha", ".mhd"):
        fields = meta_header(path)[0]
        notes = _meta_spacing_notes(fields, affine)
        lacks_directions = not any(fields.get(name) for name in ("transformmatrix", "rotation", "orientation"))
    elif kind == ".vtk" and not {"SPACING", "ASPECT_RATIO"} & vtk_fields(path):
        notes = (_VTK_NOTE,)
    return (*notes, MISSING_DIRECTIONS) if lacks_directions else notes


def _meta_spacing_notes(fields: dict[str, str], affine: np.ndarray) -> tuple[str, ...]:
    name = next((name for name in ("ElementSpacing", "ElementSize") if fields.get(name.lower())), None)
    if name is None:
        return (_META_NOTE,)
    spacing = np.abs([float(word) for word in fields[name.lower()].split()[:3]])
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if np.allclose(lengths, spacing, rtol=SPACING_TOLERANCE, atol=0):
        return ()
    used, other = (" x ".join(plain_number(mm, 4) for mm in numbers) for numbers in (lengths, spacing))
    return (
        f"The header states two spacings of the voxels: {other} mm ({name}), and {used} mm ({name} times the lengths of"
        " the rows of TransformMatrix). The second spacing was used, as in 3D Slicer.",
    )
