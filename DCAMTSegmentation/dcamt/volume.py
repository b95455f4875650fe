"""Scans and labelmaps with their geometry, and the checks of whether they can be worked on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .errors import InputError
from .geometry import Grid

MINIMUM_AXIS = 8  # voxels; below this the network's own downsampling has nothing left to work on
MAXIMUM_VOXELS = 2**30  # 1024 cubed: 4 GiB as float32, beyond any cardiac MRI


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
