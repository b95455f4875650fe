"""NIfTI through nibabel alone, so that training needs neither SimpleITK nor SciPy."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..volume import check_size
from .formats import ending
from .library_errors import check_whole, library_errors

_MM_PER_UNIT = {"meter": 1e3, "micron": 1e-3}  # "mm" and "unknown" are taken as millimetres
_SCANNER = 1  # the code of a transform to the scanner's own space


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, I, J, K) and affine (RAS mm) of a `.nii` or `.nii.gz` file.

    The affine is the one that ITK, and so 3D Slicer, takes; see `_affine`. A length unit of metres or microns
    becomes millimetres. Voxels keep the stored type unless the header scales them (`scl_slope`), which makes
    them float32. Raises InputError for a damaged file (a `.nii.gz` is read to its end, where its checksum is),
    colour voxels, or fewer than three dimensions.
    """
    with _opened(path) as (file, image, affine):
        voxels = np.asanyarray(image.dataobj)
        # The checksum of a gzip stream stands behind its last byte, which nibabel has no need to reach.
        while file.read(1 << 20):
            pass
    if voxels.dtype == np.float64 and image.get_data_dtype() != np.float64:
        voxels = voxels.astype(np.float32)
    voxels = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    # Time and vector axes (the 4th onwards) become channels.
    return np.ascontiguousarray(np.moveaxis(voxels.reshape(*voxels.shape[:3], -1), -1, 0)), affine


def read_nifti_header(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape (C, I, J, K) and affine (RAS mm) as `read_nifti` gives them, without its voxels.

    Raises InputError as `read_nifti` does, but for damage inside of the voxels.
    """
    with _opened(path) as (_, image, affine):
        shape = tuple(int(size) for size in image.shape)
        size = int(np.prod(shape)) * image.get_data_dtype().itemsize
        packed = ending(path) == ".nii.gz"
        offset = int(image.dataobj.offset)
        check_whole(path, size + offset, packed=packed)
    return (int(np.prod(shape[3:])), *shape[:3]), affine


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any, np.ndarray]]:
    """The open file, nibabel's image in it, whose voxels are not read yet, and the affine (RAS mm)."""
    import logging

    import nibabel as nib

    # Its remarks on headers would land on the terminal, between our own lines.
    logging.getLogger("nibabel").setLevel(logging.CRITICAL)
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    opened = gzip.open if ending(path) == ".nii.gz" else open
    with library_errors(path, "a NIfTI image"), np.errstate(all="ignore"), opened(path, "rb") as file:
        kind: Any = type(nib.load(path, mmap=False))  # by the header alone
        if not issubclass(kind, nib.Nifti1Pair):
            remedy = "Rename or convert it."
            raise InputError("is not a NIfTI image, whatever its ending", path=path, remedy=remedy)
        stored, mended = _headers(file, kind)
        image: Any = kind.from_file_map(kind.make_file_map({"image": file}))
        shape = tuple(int(size) for size in image.shape)
        affine = _affine(path, stored, mended)
        check_size(shape, path)
        if len(shape) < 3:
            remedy = "A three-dimensional scan is needed."
            raise InputError(f"is a {len(shape)}D image", path=path, remedy=remedy)
        if image.get_data_dtype().fields is not None:
            raise InputError("is a colour (RGB) image", path=path, remedy="A grey-scale scan is needed.")
        affine[:3] *= _MM_PER_UNIT.get(image.header.get_xyzt_units()[0], 1.0)
        yield file, image, affine


def _headers(file: Any, kind: Any) -> tuple[Any, Any]:
    """The header as it is stored, and as nibabel mends it; `file` stands at its start before and after."""
    found = []
    for check in (False, True):
        found.append(kind.header_class.from_fileobj(file, check=check))
        file.seek(0)
    return found[0], found[1]


def _affine(path: Path, stored: Any, mended: Any) -> np.ndarray:
    """Voxel index to RAS in the file's unit of length, (4, 4), by ITK's choice among the header's transforms.

    It is the sform if that is of the scanner's space (code 1) or if there is no qform, and may then shear (ITK
    takes a qform, if there is one, before a sform that shears); else the qform; with neither, the spacing along
    the patient's left, posterior and superior from 0. (nibabel goes by every sform, whatever its code, and
    centres a scan that has neither.)
    """
    sform, qform = int(stored["sform_code"]), int(stored["qform_code"])
    if sform == _SCANNER or (sform > 0 and qform <= 0):
        return np.array(stored.get_sform(), dtype=np.float64)
    spacing = np.asarray(stored["pixdim"][1:4], dtype=np.float64)
    # nibabel would quietly put 1 mm in the place of a zero or NaN.
    if not (np.isfinite(spacing) & (spacing != 0)).all():
        raise InputError(
            f"has an impossible voxel spacing ({' x '.join(f'{s:g}' for s in spacing)} mm)",
            path=path,
            remedy="Repair the scan's geometry, for instance by exporting it again from DICOM.",
        )
    if qform > 0:
        affine = np.array(mended.get_qform(), dtype=np.float64)
        affine[:3, :3] *= np.sign(spacing)  # against the standard, but ITK turns such an axis round
        return affine
    return np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
