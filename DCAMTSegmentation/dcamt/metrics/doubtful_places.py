"""Find the places whose labels are most doubtful, from a map of doubt (see `inference.doubt`) on the scan's grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry import Grid, connected_components

THRESHOLD = 0.5
"""A voxel of at least this doubt is doubtful: its label is estimated to be wrong with a probability of 50% or more."""
SMALLEST_ML = 0.04
"""Smaller components (connected sets) of doubtful voxels are omitted."""
MOST_PLACES = 20
"""Largest number of doubtful places that are listed for a result."""
GLANCE_MM = 4.0
"""Standard deviation of the Gaussian that weights the doubt around a point."""


@dataclass(frozen=True)
class DoubtfulPlace:
    """A component of doubtful voxels.

    Attributes:
        position, index: the component's `densest_voxel`, in RAS mm and as (i, j, k).
        severity: the expected volume of wrong labels in the component, in mL.
    """

    position: tuple[float, float, float]
    index: tuple[int, int, int]
    volume_ml: float
    severity: float


def doubt_levels(doubt: np.ndarray) -> np.ndarray:
    """Convert doubt (I, J, K), 0 to 1, to uint8, from 0 (the label is certainly right) to 255 (certainly wrong)."""
    levels: np.ndarray = np.rint(doubt.clip(0, 1) * 255).astype(np.uint8)
    return levels


def doubtful_places(doubt: np.ndarray, grid: Grid, max_places: int = MOST_PLACES) -> list[DoubtfulPlace]:
    """Return the components of voxels whose `doubt` (I, J, K), 0 to 1, is at least `THRESHOLD`; most severe first.

    Voxels are connected through faces, edges and corners. Components of one voxel or below `SMALLEST_ML` are omitted.
    At most `max_places` components are returned.
    """
    from scipy import ndimage

    components, number = connected_components(doubt >= THRESHOLD)
    if not number:
        return []
    voxel_ml = grid.voxel_volume_mm3 / 1000
    sizes = np.bincount(components.ravel())[1:]
    sums = np.bincount(components.ravel(), weights=doubt.ravel())[1:]
    boxes = ndimage.find_objects(components)
    places: list[DoubtfulPlace] = []
    for index in np.argsort(-sums, kind="stable"):
        if len(places) >= max_places:
            break
        volume_ml, severity = float(sizes[index] * voxel_ml), float(sums[index] * voxel_ml)
        if volume_ml < SMALLEST_ML or sizes[index] < 2:
            continue
        box = boxes[index]
        inside = components[box] == index + 1
        i, j, k = (at + side.start for at, side in zip(densest_voxel(doubt[box], grid, inside), box, strict=True))
        places.append(DoubtfulPlace(grid.position((i, j, k)), (i, j, k), volume_ml, severity))
    return places


def densest_voxel(amount: np.ndarray, grid: Grid, inside: np.ndarray | None = None) -> tuple[int, int, int]:
    """Return the voxel (i, j, k) where `amount` (I, J, K), smoothed with a Gaussian of `GLANCE_MM`, is largest.

    Args:
        inside: bool (I, J, K); other voxels count as 0 and are not returned.
    """
    from scipy import ndimage

    if inside is not None:
        amount = np.where(inside, amount, 0)
    widths = [GLANCE_MM / float(step) for step in grid.spacing]
    density = ndimage.gaussian_filter(amount.astype(np.float32, copy=False), widths, mode="constant", truncate=2)
    if inside is not None:
        density[~inside] = -1
    i, j, k = np.unravel_index(int(density.argmax()), density.shape)
    return int(i), int(j), int(k)
