"""NIfTI through nibabel alone, so that training needs neither SimpleITK nor SciPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .reading import library_errors
from .volume import check_size

_MM_PER_UNIT = {"meter": 1e3, "micron": 1e-3}  # "mm" and "unknown" are taken as millimetres


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, I, J, K) and affine (RAS mm) of a `.nii` or `.nii.gz` file.

    The affine is the sform where its code is set, else the qform, else the spacing alone, as in nibabel; it
    may shear. A length unit of metres or microns becomes millimetres. Voxels keep the stored type unless the
    header scales them (`scl_slope`), which makes them float32. Raises InputError for a damaged file, colour
    voxels, or fewer than three dimensions.
    """
    import logging

    import nibabel as nib

    # Its remarks on headers would land on the terminal, between our own lines.
    logging.getLogger("nibabel").setLevel(logging.CRITICAL)
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    with library_errors(path, "a NIfTI image"), np.errstate(all="ignore"):
        loaded = nib.load(path, mmap=False)
        if not isinstance(loaded, nib.Nifti1Pair):
            remedy = "Rename or convert it."
            raise InputError("is not a NIfTI image, whatever its ending", path=path, remedy=remedy)
        image: Any = loaded  # nibabel's own type hints leave most functions out
        _check_stored_spacing(path, image)
        shape = tuple(int(size) for size in image.shape)
        check_size(shape, path)
        if len(shape) < 3:
            remedy = "A three-dimensional scan is needed."
            raise InputError(f"is a {len(shape)}D image", path=path, remedy=remedy)
        if image.get_data_dtype().fields is not None:
            raise InputError("is a colour (RGB) image", path=path, remedy="A grey-scale scan is needed.")
        voxels = np.asanyarray(image.dataobj)
        affine = np.array(image.affine, dtype=np.float64)
        affine[:3] *= _MM_PER_UNIT.get(image.header.get_xyzt_units()[0], 1.0)
    if voxels.dtype == np.float64 and image.get_data_dtype() != np.float64:
        voxels = voxels.astype(np.float32)
    voxels = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    # Time and vector axes (the 4th onwards) become channels.
    return np.ascontiguousarray(np.moveaxis(voxels.reshape(*shape[:3], -1), -1, 0)), affine


def _check_stored_spacing(path: Path, image: Any) -> None:
    """Refuse a zero or NaN spacing that decides the geometry; nibabel would quietly put 1 mm in its place."""
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as file:
        stored: Any = type(image.header).from_fileobj(file, check=False)
    spacing = np.asarray(stored["pixdim"][1:4], dtype=np.float64)
    if int(stored["sform_code"]) == 0 and not (np.isfinite(spacing) & (spacing != 0)).all():
        raise InputError(
            f"has an impossible voxel spacing ({' x '.join(f'{s:g}' for s in spacing)} mm)",
            path=path,
            remedy="Repair the scan's geometry, for instance by exporting it again from DICOM.",
        )
