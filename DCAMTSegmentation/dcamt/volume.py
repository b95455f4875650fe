"""Scans and labelmaps with their geometry: what they are, what is checked, and how a file becomes one.

Every affine here maps voxel indices (i, j, k) to RAS millimetres, whatever the file's own convention.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError
from .io.formats import ending as ending
from .io.formats import scan_name as scan_name

if TYPE_CHECKING:
    from .io.nrrd import StoredSegment

MINIMUM_AXIS = 8  # voxels; below this the network's own downsampling has nothing left to work on
MAXIMUM_VOXELS = 2**30  # 1024 cubed: 4 GiB as float32, beyond any cardiac MRI

_NRRD_ENDINGS = (".nrrd", ".nhdr", ".seg.nrrd", ".seg.nhdr")


Box = tuple[slice, slice, slice]
"""Part of a grid: the voxels within bounds along each axis."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel lattice in the patient: `shape` (I, J, K) and `affine` (4, 4), voxel index -> RAS mm.

    The affine is copied to float64 and made read-only. Axes may be oblique, flipped and sheared.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or affine.shape != (4, 4):
            raise ValueError(f"a grid needs 3 axes and a 4x4 affine, not {shape} and {affine.shape}")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing(self) -> np.ndarray:
        """(3,) mm: distance between neighbouring voxel centres along i, j and k."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm3: |det| of the affine, right for sheared grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def corners(self) -> np.ndarray:
        """(8, 3) RAS mm: centres of the eight corner voxels, k running fastest."""
        last = np.array(self.shape) - 1
        index = np.stack(np.meshgrid(*[(0, size) for size in last], indexing="ij"), axis=-1).reshape(8, 3)
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3])

    def matches(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether both have the same shape and every voxel centre within `tolerance_mm` of its like.

        The distance between two affine maps is largest at a corner, so the corners decide.
        """
        if self.shape != other.shape:
            return False
        return bool(np.linalg.norm(self.corners() - other.corners(), axis=1).max() <= tolerance_mm)


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan: `voxels` (C, I, J, K) of any real type, on `grid`; `path` is where it was read from."""

    voxels: np.ndarray
    grid: Grid
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.voxels.ndim != 4 or self.voxels.shape[1:] != self.grid.shape:
            raise ValueError(f"voxels {self.voxels.shape} are not (C, I, J, K) on a grid of {self.grid.shape}")


@dataclass(frozen=True, eq=False)
class Labelmap:
    """Labels: `voxels` (I, J, K) of an unsigned integer type, 0 = background, on `grid`."""

    voxels: np.ndarray
    grid: Grid
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.voxels.shape != self.grid.shape:
            raise ValueError(f"labels {self.voxels.shape} do not fit a grid of {self.grid.shape}")
        if self.voxels.dtype.kind != "u":
            raise ValueError(f"labels are unsigned integers, not {self.voxels.dtype}")


@dataclass(frozen=True)
class Code:
    """A coded concept, as in DICOM: scheme ("SCT" is SNOMED CT), value and meaning."""

    scheme: str
    value: str
    meaning: str


ANATOMICAL_STRUCTURE = Code("SCT", "123037004", "Anatomical Structure")


@dataclass(frozen=True)
class SegmentInfo:
    """What a label value stands for; `color` is (red, green, blue), each 0 to 1."""

    label: int
    name: str
    color: tuple[float, float, float]
    type: Code
    category: Code = ANATOMICAL_STRUCTURE


def check(volume: Volume) -> None:
    """Refuse a scan that cannot be segmented.

    Raises InputError, naming the file, for: a singular, zero or non-finite geometry; one slice, or an axis
    shorter than `MINIMUM_AXIS` voxels; complex or colour voxels; NaN or infinite voxels; one intensity only.
    """
    check_grid(volume.grid, volume.path)
    voxels, path = volume.voxels, volume.path
    if voxels.dtype.kind == "c":
        raise InputError("holds complex numbers", path=path, remedy="Export the magnitude image.")
    if voxels.dtype.kind not in "biuf":
        raise InputError(f"holds {voxels.dtype} voxels, not intensities", path=path, remedy=_GREY)
    if voxels.dtype.kind == "f":
        bad = int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
        if bad:
            raise InputError(
                f"holds {bad} NaN or infinite voxels out of {voxels.size}",
                path=path,
                remedy="Replace them, with the background's value for instance, and save the scan again.",
            )
    for channel, values in enumerate(voxels):
        low, high = values.min(), values.max()
        if low == high:
            which = f"channel {channel + 1}" if len(voxels) > 1 else "every voxel"
            raise InputError(f"is blank: {which} has the value {low:g}", path=path, remedy="Choose another scan.")
        if max(abs(float(low)), abs(float(high))) > float(np.finfo(np.float32).max):
            raise InputError("holds intensities beyond 3e38", path=path, remedy="Rescale the intensities.")


def check_grid(grid: Grid, path: Path | None) -> None:
    """Refuse a lattice nothing can be measured on; raises InputError naming `path`."""
    sizes = " x ".join(str(size) for size in grid.shape)
    check_size(grid.shape, path)
    if min(grid.shape) == 1:
        what = "holds a single voxel" if max(grid.shape) == 1 else f"holds one slice only ({sizes} voxels)"
        raise InputError(what, path=path, remedy="A three-dimensional scan is needed.")
    if min(grid.shape) < MINIMUM_AXIS:
        raise InputError(
            f"is too small: {sizes} voxels",
            path=path,
            remedy=f"Every axis needs at least {MINIMUM_AXIS} voxels.",
        )
    remedy = "Repair the scan's geometry, for instance by exporting it again from DICOM."
    if not np.isfinite(grid.affine).all():
        raise InputError("has NaN or infinite numbers in its geometry (affine)", path=path, remedy=remedy)
    if (grid.spacing <= 0).any():
        raise InputError("has a voxel spacing of zero", path=path, remedy=remedy)
    # Relative to the box of the same edges: 1 for orthogonal axes, 0 for axes in one plane.
    if grid.voxel_volume_mm3 < 1e-4 * float(np.prod(grid.spacing)) or not np.allclose(grid.affine[3], (0, 0, 0, 1)):
        raise InputError("has a singular geometry: its axes lie in one plane", path=path, remedy=remedy)


def check_size(shape: Sequence[int], path: Path | None) -> None:
    """Refuse an empty or absurdly large image before any memory is taken for it."""
    sizes = " x ".join(str(int(size)) for size in shape)
    if min(shape) < 1:
        raise InputError(f"holds no voxels ({sizes})", path=path, remedy="The file may be damaged; copy it again.")
    if len(shape) >= 3 and np.prod([float(size) for size in shape]) > MAXIMUM_VOXELS:
        raise InputError(
            f"claims {sizes} voxels, more than any cardiac scan",
            path=path,
            remedy="The file may be damaged; crop or resample it if it is not.",
        )


_GREY = "A grey-scale scan is needed."


def read_volume(path: str | Path, channels: int = 1) -> Volume:
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
    """Read a labelmap from any format `read_volume` reads, or a segmentation (`.seg.nrrd`).

    The layers of a segmentation become one labelmap: segments keep their label values where these are unique,
    or else are numbered 1, 2, ... in the file's order; where segments overlap the later one wins. Raises
    InputError as `read_volume`, except that a blank labelmap is fine, and for negative or fractional values.
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


WHITE = 255
"""What many programs write into a mask of one structure."""


def is_white(labelmap: Labelmap) -> bool:
    """Whether it is a mask of `WHITE` on 0."""
    if labelmap.voxels.max() != WHITE:  # told at once, unlike all the values
        return False
    return set(np.unique(labelmap.voxels).tolist()) - {0} == {WHITE}


def white_as(value: int, labelmap: Labelmap) -> Labelmap:
    """The labelmap with `value` in place of `WHITE`."""
    return replace(labelmap, voxels=np.where(labelmap.voxels == WHITE, value, labelmap.voxels).astype(np.uint8))


def read_segments(path: str | Path) -> tuple[StoredSegment, ...]:
    """What a file says of the segments in it, by the labels that `read_labelmap` gives them; most formats say nothing.

    Raises InputError as `read_labelmap` does for a damaged header.
    """
    path = Path(path)
    if ending(path) not in _NRRD_ENDINGS:
        return ()
    from .io.nrrd import read_nrrd_segments

    return read_nrrd_segments(path)


@dataclass(frozen=True, eq=False)
class Header:
    """What a file says of itself before any voxel is read: C of its voxels (C, I, J, K), and their grid."""

    channels: int
    grid: Grid


def read_header(path: str | Path, flatten_segments: bool = False) -> Header:
    """A scan's or, with `flatten_segments`, a labelmap's header, checked as far as it goes; no voxel is kept.

    Raises InputError as `read_volume` and `read_labelmap` do, but for another number of channels and for what only
    the voxels show.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "dicom":
        from .io.dicom import read_dicom_header

        shape, affine = read_dicom_header(path)
    elif kind == "nifti":
        from .io.nifti import read_nifti_header

        shape, affine = read_nifti_header(path)
    elif kind == "nrrd":
        from .io.nrrd import read_nrrd_header

        shape, affine = read_nrrd_header(path, flatten_segments)
    else:
        from .io.itk import read_itk_header

        shape, affine = read_itk_header(path)
    grid = Grid((shape[1], shape[2], shape[3]), affine)
    check_grid(grid, path)
    return Header(shape[0], grid)


def as_labels(voxels: np.ndarray, path: Path | None) -> np.ndarray:
    """`voxels` as the smallest unsigned type that holds them; raises InputError unless they are labels."""
    remedy = "Choose a labelmap rather than a scan."
    if voxels.dtype.kind not in "biuf":
        raise InputError(f"holds {voxels.dtype} voxels, not labels", path=path, remedy=remedy)
    if voxels.dtype.kind == "f" and not (np.isfinite(voxels).all() and (voxels == np.rint(voxels)).all()):
        raise InputError("holds fractional values, not labels", path=path, remedy=remedy)
    if voxels.min() < 0:
        raise InputError(f"holds the negative label {voxels.min():g}", path=path, remedy="Labels start at 0.")
    if voxels.max() > np.iinfo(np.uint32).max:
        raise InputError(f"holds the label {voxels.max():g}", path=path, remedy=remedy)
    return voxels.astype(np.min_scalar_type(int(voxels.max())), copy=False)


def _read(path: Path, flatten_segments: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, I, J, K) and affine, by the reader that the path's kind and ending ask for."""
    kind = _kind(path)
    if kind == "dicom":
        from .io.dicom import read_dicom_folder

        return read_dicom_folder(path)
    if kind == "nifti":
        from .io.nifti import read_nifti

        return read_nifti(path)
    if kind == "nrrd":
        from .io.nrrd import read_nrrd

        return read_nrrd(path, flatten_segments)
    from .io.itk import read_itk

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


def write_labelmap(labelmap: Labelmap, path: str | Path, segments: Sequence[SegmentInfo] = ()) -> None:
    """Write a labelmap by the path's ending; see `volume_writers.write_labelmap`."""
    from .io import writers as volume_writers

    volume_writers.write_labelmap(labelmap, path, segments)


def write_volume(volume: Volume, path: str | Path) -> None:
    """Write a scan or a map by the path's ending; see `volume_writers.write_volume`."""
    from .io import writers as volume_writers

    volume_writers.write_volume(volume, path)
