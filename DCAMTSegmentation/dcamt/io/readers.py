"""Reading scans and labelmaps: the reader that a file's kind and ending ask for, and the checks of what it read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from ..volume import Labelmap, Volume, as_labels, check, check_grid
from .formats import ending
from .nrrd import StoredSegment

_NRRD_ENDINGS = (".nrrd", ".nhdr", ".seg.nrrd", ".seg.nhdr")


def read_scan(path: str | Path, channels: int = 1) -> Volume:
    """Read and check a scan: NIfTI, NRRD, MetaImage, another ITK format, or a folder of DICOM slices.

    `channels` is the number of images the file must hold, as C of the voxels (C, I, J, K). Intensities keep
    the file's type unless it scales them, which makes them float32. Raises InputError for whatever `check`
    refuses and for a file that is missing, empty, damaged, two-dimensional or holds another number of images.
    """
    path = Path(path)
    voxels, affine = _read(path)
    if len(voxels) != channels:
        remedy = "Extract one of them to a file of its own." if channels == 1 else f"{channels} are needed."
        raise InputError(f"holds {len(voxels)} volumes (4D)", path=path, remedy=remedy)
    volume = Volume(voxels, Grid(voxels.shape[1:], affine), path)
    check(volume)
    return volume


def read_labelmap(path: str | Path) -> Labelmap:
    """Read a labelmap from any format `read_scan` reads, or a segmentation (`.seg.nrrd`).

    The layers of a segmentation become one labelmap: segments keep their label values where these are unique,
    or else are numbered 1, 2, ... in the file's order; where segments overlap the later one wins. Raises
    InputError as `read_scan`, except that a blank labelmap is fine, and for negative or fractional values.
    """
    path = Path(path)
    voxels, affine = _read(path, flatten_segments=True)
    if len(voxels) != 1:
        raise InputError(
            f"holds {len(voxels)} volumes, not one labelmap", path=path, remedy="Save one labelmap a file."
        )
    grid = Grid(voxels.shape[1:], affine)
    check_grid(grid, path)
    return Labelmap(as_labels(voxels[0], path), grid, path)


def read_segments(path: str | Path) -> tuple[StoredSegment, ...]:
    """What a file says of the segments in it, by the labels that `read_labelmap` gives them; most formats say nothing.

    Raises InputError as `read_labelmap` does for a damaged header.
    """
    path = Path(path)
    if ending(path) not in _NRRD_ENDINGS:
        return ()
    from .nrrd import read_nrrd_segments

    return read_nrrd_segments(path)


@dataclass(frozen=True, eq=False)
class Header:
    """What a file says of itself before any voxel is read: C of its voxels (C, I, J, K), and their grid."""

    channels: int
    grid: Grid


def read_header(path: str | Path, flatten_segments: bool = False) -> Header:
    """A scan's or, with `flatten_segments`, a labelmap's header, checked as far as it goes; no voxel is kept.

    Raises InputError as `read_scan` and `read_labelmap` do, but for another number of channels and for what only
    the voxels show.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "dicom":
        from .dicom import read_dicom_header

        shape, affine = read_dicom_header(path)
    elif kind == "nifti":
        from .nifti import read_nifti_header

        shape, affine = read_nifti_header(path)
    elif kind == "nrrd":
        from .nrrd import read_nrrd_header

        shape, affine = read_nrrd_header(path, flatten_segments)
    else:
        from .itk import read_itk_header

        shape, affine = read_itk_header(path)
    grid = Grid((shape[1], shape[2], shape[3]), affine)
    check_grid(grid, path)
    return Header(shape[0], grid)


def _read(path: Path, flatten_segments: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, I, J, K) and affine, by the reader that the path's kind and ending ask for."""
    kind = _kind(path)
    if kind == "dicom":
        from .dicom import read_dicom_folder

        return read_dicom_folder(path)
    if kind == "nifti":
        from .nifti import read_nifti

        return read_nifti(path)
    if kind == "nrrd":
        from .nrrd import read_nrrd

        return read_nrrd(path, flatten_segments)
    from .itk import read_itk

    return read_itk(path)


def _kind(path: Path) -> str:
    """Which reader a path needs: "dicom", "nifti", "nrrd" or "itk"; raises InputError if it is missing or empty."""
    # os.path, unlike pathlib, answers False to a name the system cannot even look up.
    if not os.path.exists(path):
        raise InputError("does not exist", path=path, remedy="Check the name and the folder.")
    if os.path.isdir(path):
        return "dicom"
    if os.path.getsize(path) == 0:
        raise InputError("is an empty file", path=path, remedy="Copy or export it again.")
    if ending(path) in (".nii", ".nii.gz"):
        return "nifti"
    return "nrrd" if ending(path) in _NRRD_ENDINGS else "itk"
