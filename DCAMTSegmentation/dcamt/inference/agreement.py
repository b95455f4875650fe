"""Agreement of the two branches: by voxel, as a single number, and the places of strong disagreement.

Of two independently initialised networks that disagree about a voxel at least one is wrong. Errors that both make stay
hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..geometry import Grid
from .labelling import most_likely

THRESHOLD = 0.5
"""Disagreement from which a voxel is doubtful: half of the probability lies on different classes."""
SMALLEST_ML = 0.02
"""Smaller clusters are left out: two readers, too, differ by a few voxels at a segment's edge."""
GLANCE_MM = 4.0
"""Standard deviation of the Gaussian that sums the disagreement around a place: about what a reader sees at once."""


@dataclass(frozen=True)
class DoubtfulPlace:
    """A connected cluster of voxels on which the branches disagree.

    position, index: of the cluster's voxel around which disagreement is densest, in RAS mm and as (i, j, k).
    volume_ml: of the cluster. severity: its summed disagreement in mL; 1 mL of full contradiction counts 1.
    """

    position: tuple[float, float, float]
    index: tuple[int, int, int]
    volume_ml: float
    severity: float


def agreement_map(branches: Tensor) -> Tensor:
    """Return 1 - half the sum over classes of |p_A - p_B| (X, Y, Z), from (2, K, X, Y, Z).

    This is 1 minus the total variation distance of the two branches' distributions.
    """
    return 1 - 0.5 * (branches[0] - branches[1]).abs().sum(dim=0)


def branch_dice(branches: Tensor) -> float:
    """Return the Dice coefficient of the two branches' foregrounds, from (2, K, X, Y, Z); 1 if both are empty.

    A voxel counts as common if both branches give it the same class.
    """
    a, b = (most_likely(branch) for branch in branches)
    total = int(a.count_nonzero() + b.count_nonzero())
    return 2 * int(((a == b) & (a > 0)).count_nonzero()) / total if total else 1.0


def disagreement_levels(agreement: np.ndarray) -> np.ndarray:
    """Return agreement (I, J, K), 1 to 0, as disagreement in uint8: 0 agree, 255 contradict."""
    levels: np.ndarray = np.rint((1 - agreement.clip(0, 1)) * 255).astype(np.uint8)
    return levels


def doubtful_places(
    disagreement: np.ndarray, grid: Grid, most: int = 20, threshold: float = THRESHOLD
) -> list[DoubtfulPlace]:
    """Return the clusters of `disagreement` (I, J, K), 0 to 1, of at least `threshold`, the most severe first.

    Voxels are connected through faces, edges and corners. Clusters below `SMALLEST_ML`, and single voxels,
    are left out.
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
    """Return (i, j, k) of the voxel around which a Gaussian of `GLANCE_MM` sums most of `amount` (I, J, K).

    inside: bool (I, J, K), voxels that count and may be returned; None: all.
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
    """Return a voxel's centre in RAS mm."""
    r, a, s = (grid.affine[:3, :3] @ voxel + grid.affine[:3, 3]).tolist()
    return r, a, s
