"""A box in the patient that limits where to segment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..preprocessing import NetworkGrid
from ..volume import Grid


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

    def box(self, grid: NetworkGrid, margin: int) -> tuple[slice, slice, slice]:
        """The part of the network's grid that holds the region and `margin` voxels more, where there are any.

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
