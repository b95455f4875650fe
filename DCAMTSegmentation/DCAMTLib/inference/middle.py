"""The middle of a scan: where what it was made for is likeliest to lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..preprocessing import NetworkGrid
from ..volume import Box, Grid

CENTRAL = 4.0
"""How much less a piece counts the further it lies from the scan's centre: 1 / (1 + 4 r^2), r = 1 at the border.

A scan is planned about what it is made for. Where two pieces are alike, the one in the middle is meant.
"""


@dataclass(frozen=True)
class Middle:
    """A scan's centre and half its edges, both (3,), in voxels of a grid along its axes, of all of it or of a part."""

    centre: np.ndarray
    half_edges: np.ndarray

    @classmethod
    def in_part(cls, whole: Grid, box: Box) -> Middle:
        """As seen from a part of the scan, in its own voxels."""
        edges = np.array(whole.shape)
        return cls((edges - 1) / 2, edges / 2).seen_from(box)

    @classmethod
    def on_network(cls, whole: Grid, grid: NetworkGrid) -> Middle:
        """As seen from the network's grid of a part of the scan."""
        centre = whole.affine @ [*((np.array(whole.shape) - 1) / 2), 1]
        edges = np.array([whole.shape[stored] * float(whole.spacing[stored]) for stored in grid.order])
        return cls((np.linalg.inv(grid.affine) @ centre)[:3], edges / grid.spacing / 2)

    def seen_from(self, box: Sequence[slice]) -> Middle:
        """The same, in voxels of a part of this grid."""
        return Middle(self.centre - [side.start for side in box], self.half_edges)

    def weights(self, components: np.ndarray, number: int) -> np.ndarray:
        """How much each component 1 to `number` of a labelling counts, (number + 1,); the first is of no use."""
        at = np.nonzero(components)
        piece = components[at]
        voxels = np.maximum(np.bincount(piece, minlength=number + 1), 1)
        centres = np.stack([np.bincount(piece, axis, number + 1) / voxels for axis in at], axis=1)
        away = (((centres - self.centre) / self.half_edges) ** 2).sum(axis=1)
        return np.asarray(1 / (1 + CENTRAL * away))
