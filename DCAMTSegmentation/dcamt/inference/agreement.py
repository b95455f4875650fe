"""Where the two branches disagree, and how far that lets a segmentation be trusted.

Two learners that were started apart and that disagree about a voxel cannot both be right; where they err together, this
is blind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry import Grid

THRESHOLD = 0.5
"""Disagreement from which a voxel is in doubt: half of the probability lies on different classes."""
SMALLEST_ML = 0.02
"""Smaller clusters are left out: a few voxels at the segment's edge are within what two readers differ by."""
GLANCE_MM = 4.0
"""Standard deviation of the Gaussian by which disagreement about a place is summed: about what one glance takes in."""


@dataclass(frozen=True)
class DoubtfulPlace:
    """A connected cluster of voxels about which the branches disagree.

    position, index: the voxel of the cluster about which most disagreement lies, in RAS mm and as (i, j, k).
    volume_ml: of the cluster. severity: its disagreement, summed, in mL; 1 mL in full contradiction counts 1.
    """

    position: tuple[float, float, float]
    index: tuple[int, int, int]
    volume_ml: float
    severity: float


def disagreement_levels(agreement: np.ndarray) -> np.ndarray:
    """Agreement (I, J, K), 1 to 0, as disagreement in uint8 of that shape: 0 agree, 255 contradict."""
    levels: np.ndarray = np.rint((1 - agreement.clip(0, 1)) * 255).astype(np.uint8)
    return levels


def doubtful_places(
    disagreement: np.ndarray, grid: Grid, most: int = 20, threshold: float = THRESHOLD
) -> list[DoubtfulPlace]:
    """Clusters of `disagreement` (I, J, K, from 0 to 1) of at least `threshold`, the most severe first.

    Voxels are connected through faces, edges and corners. Clusters below `SMALLEST_ML` (or of a single voxel, where
    voxels are larger) are left out.
    """
    from scipy import ndimage

    clusters, number = ndimage.label(disagreement >= threshold, structure=np.ones((3, 3, 3)))
    if not number:
        return []
    voxel_ml = grid.voxel_volume_mm3 / 1000
    sizes = np.bincount(clusters.ravel())[1:]
    sums = np.bincount(clusters.ravel(), weights=disagreement.ravel())[1:]
    boxes = ndimage.find_objects(clusters)
    places: list[DoubtfulPlace] = []
    for number in np.argsort(-sums, kind="stable"):
        if sizes[number] * voxel_ml < SMALLEST_ML or sizes[number] < 2:
            continue
        box = boxes[number]
        inside = clusters[box] == number + 1
        i, j, k = (
            at + part.start for at, part in zip(voxel_of_most(disagreement[box], grid, inside), box, strict=True)
        )
        places.append(
            DoubtfulPlace(
                position_of(grid, (i, j, k)), (i, j, k), float(sizes[number] * voxel_ml), float(sums[number] * voxel_ml)
            )
        )
        if len(places) == most:
            break
    return places


def voxel_of_most(amount: np.ndarray, grid: Grid, inside: np.ndarray | None = None) -> tuple[int, int, int]:
    """(i, j, k) of the voxel about which a Gaussian of `GLANCE_MM` holds most of `amount` (I, J, K).

    `inside`, bool (I, J, K): the voxels that count and may be chosen.
    """
    from scipy import ndimage

    if inside is not None:
        amount = np.where(inside, amount, 0)
    widths = [GLANCE_MM / float(step) for step in grid.spacing]
    held = ndimage.gaussian_filter(amount.astype(np.float32, copy=False), widths, mode="constant", truncate=2)
    if inside is not None:
        held[~inside] = -1
    i, j, k = np.unravel_index(int(held.argmax()), held.shape)
    return int(i), int(j), int(k)


def position_of(grid: Grid, voxel: tuple[int, int, int]) -> tuple[float, float, float]:
    """RAS mm of a voxel's centre."""
    r, a, s = (grid.affine[:3, :3] @ voxel + grid.affine[:3, 3]).tolist()
    return r, a, s
