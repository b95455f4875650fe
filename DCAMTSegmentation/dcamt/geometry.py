"""Grids, boxes and regions: where voxels lie in the patient, and parts of them. Imports no torch.

Every affine maps voxel indices (i, j, k) to RAS millimetres, whatever the file's own convention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .errors import InputError

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


class Lattice(Protocol):
    """Anything with a shape and an affine: a `Grid`, or the network's grid of a scan."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""

    @property
    def affine(self) -> np.ndarray:
        """(4, 4): voxel index -> RAS mm."""


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box of slices that holds every True voxel of `mask` (any shape), None without one."""
    box = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not len(used):
            return None
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


@dataclass(frozen=True)
class Region:
    """A box along the patient's axes: `low` and `high` corner, RAS mm."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @classmethod
    def parse(cls, text: str) -> Region:
        """From `x0,x1,y0,y1,z0,z1` in RAS mm, either end first.

        Raises:
            InputError: these are not six finite numbers that enclose a volume.
        """
        try:
            values = np.array([float(part) for part in text.split(",")])
            pairs = np.sort(values.reshape(3, 2), axis=1)
        except ValueError:
            pairs = np.full((3, 2), np.nan)
        if not (np.isfinite(pairs).all() and (pairs[:, 0] < pairs[:, 1]).all()):
            raise InputError(f"'{text}' is not a region", remedy="Give x0,x1,y0,y1,z0,z1 in millimetres (RAS).")
        low, high = (tuple(float(v) for v in column) for column in pairs.T)
        return cls(low, high)  # type: ignore[arg-type]

    def box(self, grid: Lattice, margin: int) -> Box:
        """Return the voxels of `grid` that hold the region and, where there are any, `margin` voxels more on each side.

        Raises:
            InputError: the region lies outside the scan.
        """
        corners = np.array([[x, y, z, 1.0] for x in self._ends(0) for y in self._ends(1) for z in self._ends(2)])
        voxels = (corners @ np.linalg.inv(grid.affine).T)[:, :3]
        # Bounded, since a region may reach far beyond what an integer holds.
        voxels = voxels.clip(-1 - margin, np.array(grid.shape) + margin)
        low, high = np.floor(voxels.min(axis=0)).astype(int), np.ceil(voxels.max(axis=0)).astype(int)
        if (high < 0).any() or (low >= np.array(grid.shape)).any():
            raise InputError("the region of interest lies outside the scan", remedy="Give it in RAS millimetres.")
        box = [
            slice(max(0, int(a) - margin), min(n, int(b) + margin + 1))
            for a, b, n in zip(low, high, grid.shape, strict=True)
        ]
        return box[0], box[1], box[2]

    def mask(self, grid: Grid) -> np.ndarray:
        """Which voxels of a scan's grid have their centre inside: bool (I, J, K)."""
        inside = np.ones(grid.shape, bool)
        steps = [np.arange(n).reshape([-1 if d == axis else 1 for d in range(3)]) for axis, n in enumerate(grid.shape)]
        for patient in range(3):
            row = grid.affine[patient]
            position = row[0] * steps[0] + row[1] * steps[1] + row[2] * steps[2] + row[3]
            inside &= (position >= self.low[patient]) & (position <= self.high[patient])
        return inside

    def _ends(self, axis: int) -> tuple[float, float]:
        return self.low[axis], self.high[axis]
