"""The middle of a scan: where what it was made for is likeliest to lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..geometry import Box, Grid, NetworkGrid

CENTRAL = 4.0
"""How fast a piece counts less with its distance r from the scan's centre, in 1 / (1 + CENTRAL r^2).

r is 1 at the centre of each face. A scan is planned about what it is made for: where two pieces are alike, the one in
the middle is meant.
"""


@dataclass(frozen=True)
class Middle:
    """A scan's centre and half its edges, both (3,), in voxels of a grid along its axes that may show a part of it."""

    centre: np.ndarray
    half_edges: np.ndarray

    @classmethod
    def of(cls, box: Box) -> Middle:
        """In the voxels that the box is of."""
        faces = np.array([(side.start, side.stop) for side in box])
        return cls((faces.sum(axis=1) - 1) / 2, (faces[:, 1] - faces[:, 0]) / 2)

    @classmethod
    def on_network(cls, scan: Grid, grid: NetworkGrid) -> Middle:
        """In voxels of the network's grid of the scan or of a part of it."""
        centre = scan.affine @ [*((np.array(scan.shape) - 1) / 2), 1]
        edges = np.array([scan.shape[stored] * float(scan.spacing[stored]) for stored in grid.order])
        return cls((np.linalg.inv(grid.affine) @ centre)[:3], edges / grid.spacing / 2)

    def within(self, box: Sequence[slice]) -> Middle:
        """The same, in voxels of a part of this grid."""
        return Middle(self.centre - [side.start for side in box], self.half_edges)

    def weights(self, components: np.ndarray, number: int) -> np.ndarray:
        """How much each of the labels 0 to `number` - 1 of a labelling counts, (number,); background, 0, does not."""
        at = np.nonzero(components)
        label = components[at]
        voxels = np.maximum(np.bincount(label, minlength=number), 1)
        centres = np.stack([np.bincount(label, axis, number) / voxels for axis in at], axis=1)
        away = (((centres - self.centre) / self.half_edges) ** 2).sum(axis=1)
        weights = 1 / (1 + CENTRAL * away)
        weights[0] = 0
        return np.asarray(weights)
