"""Select, for each class, the connected component that is the organ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..geometry import Box, Grid, NetworkGrid, bounding_box, connected_components
from ..recipe import Recipe
from .labelling import most_likely

CENTRAL = 4.0
"""`CentrePrior` gives the weight 1 / (1 + CENTRAL r^2) at the relative distance r from the anatomy's centre.

r is 1 at the centre of each face of the anatomy's box.

Scans are planned around the organ of interest. Of two similar components, the central component is therefore more
likely the organ.
"""
SPECK = 64
"""Smallest size of a component that may be selected, in voxels of the grid on which organs are located."""
SURE = 0.95
"""Smallest probability of the voxels in a component's core.

The component's voxels with at least this probability form connected parts; the core is the heaviest part (weight: see
`select_components`).
"""
CORE = 0.1
"""A selected component is reduced to its core if the core has at least this fraction of the component's weight."""


@dataclass(frozen=True)
class CentrePrior:
    """Prior for an organ's place: places near the anatomy's centre are more likely.

    Attributes:
        centre: (3,), the centre of the anatomy's box, in voxels of a grid; the anatomy may extend beyond the grid.
        half_edges: (3,), half the lengths of the box's edges in these voxels.
    """

    centre: np.ndarray
    half_edges: np.ndarray

    @classmethod
    def from_box(cls, box: Box) -> CentrePrior:
        """Return the prior for an anatomy that fills `box`."""
        faces = np.array([(side.start, side.stop) for side in box])
        return cls((faces.sum(axis=1) - 1) / 2, (faces[:, 1] - faces[:, 0]) / 2)

    @classmethod
    def on_network_grid(cls, anatomy: Grid, grid: NetworkGrid) -> CentrePrior:
        """Return the prior for an anatomy.

        Args:
            anatomy: the scan's grid, cropped to the anatomy.
            grid: a network grid of the anatomy or of a part of the anatomy; the prior is in voxels of this grid.
        """
        centre = anatomy.affine @ [*((np.array(anatomy.shape) - 1) / 2), 1]
        edges = np.array([anatomy.shape[stored] * float(anatomy.spacing[stored]) for stored in grid.order])
        return cls((np.linalg.inv(grid.affine) @ centre)[:3], edges / grid.spacing / 2)

    def crop_to(self, box: Sequence[slice]) -> CentrePrior:
        """Return this prior in voxels of `box`, a part of the prior's grid."""
        return CentrePrior(self.centre - [side.start for side in box], self.half_edges)

    def weights(self, components: np.ndarray, length: int) -> np.ndarray:
        """Return the weight of each component's centroid, (length,); the background's weight is 0."""
        voxels_at = np.nonzero(components)
        label = components[voxels_at]
        voxels = np.maximum(np.bincount(label, minlength=length), 1)
        centres = np.stack([np.bincount(label, axis, length) / voxels for axis in voxels_at], axis=1)
        distance2 = (((centres - self.centre) / self.half_edges) ** 2).sum(axis=1)
        weights = 1 / (1 + CENTRAL * distance2)
        weights[0] = 0
        return np.asarray(weights)


@dataclass(frozen=True)
class ExpectedOrgans:
    """The expected places of organs, in voxels of a labelmap.

    Attributes:
        boxes: the box in which each class was located.
    """

    boxes: Mapping[int, Box]
    prior: CentrePrior


def largest_component(mask: np.ndarray, near: Box | None = None, prior: CentrePrior | None = None) -> np.ndarray:
    """Return the largest component of `mask` (I, J, K) bool as a new mask.

    Of equally large components, the first in array order is kept.

    Args:
        near: the box in which the organ was located. If any component has voxels in this box, each component's size is
            the number of its voxels in the box.
        prior: the prior in voxels of the mask; its weights multiply the sizes.
    """
    kept = np.zeros(mask.shape, dtype=bool)
    box = bounding_box(mask)
    if box is None:
        return kept
    components, number = connected_components(mask[box])
    sizes = np.bincount(components.ravel())
    if near is not None:
        near_box = (slice(max(0, n.start - b.start), max(0, n.stop - b.start)) for n, b in zip(near, box, strict=True))
        sizes_near = np.bincount(components[tuple(near_box)].ravel(), minlength=number + 1)
        sizes = sizes_near if sizes_near[1:].any() else sizes
    if prior is not None:
        sizes = sizes * prior.crop_to(box).weights(components, len(sizes))
    sizes[0] = 0
    kept[box] = components == sizes.argmax()
    return kept


def keep_organs(labelmap: np.ndarray, recipe: Recipe, expected: ExpectedOrgans | None = None) -> np.ndarray:
    """Return `keep_largest_components` of all classes; if the recipe keeps all components, return `labelmap`."""
    if not recipe.inference.largest_component:
        return labelmap
    return keep_largest_components(labelmap, range(1, recipe.output_channels), expected)


def keep_largest_components(
    labelmap: np.ndarray, labels: Sequence[int], expected: ExpectedOrgans | None = None
) -> np.ndarray:
    """Return a copy of `labelmap` (I, J, K) in which each class of `labels` keeps only its `largest_component`.

    The class's other voxels become background (0). Classes not in `labels` stay unchanged.
    """
    tidied = labelmap.copy()
    for label in labels:
        mask = labelmap == label
        if expected:
            kept = largest_component(mask, expected.boxes.get(label), expected.prior)
        else:
            kept = largest_component(mask)
        tidied[mask & ~kept] = 0
    return tidied


def select_components(probabilities: Tensor, prior: CentrePrior) -> np.ndarray:
    """Return labels uint8 (X, Y, Z) with at most one component of each class, from probabilities (K, X, Y, Z).

    A component's weight is its summed certainty times the weight of `prior`. The heaviest component is selected, and
    reduced to its core (`select_component`).
    """
    labels = most_likely(probabilities).numpy()
    selected = np.zeros_like(labels)
    for label in range(1, len(probabilities)):
        selected[select_component(labels == label, probabilities, label, prior)] = label
    return selected


def select_component(mask: np.ndarray, probabilities: Tensor, label: int, prior: CentrePrior) -> np.ndarray:
    """Return the heaviest component of a class's mask (X, Y, Z), reduced to its core (see `SURE` and `CORE`).

    On a coarse grid, an organ may touch a similar structure. The core usually lacks this structure. The result is empty
    if all components are too small.
    """
    certain = certainty(probabilities, label)
    component, weight = _heaviest_component(mask, certain, prior)
    core, core_weight = _heaviest_component(component & (probabilities[label].numpy() >= SURE), certain, prior)
    return core if core_weight >= CORE * weight else component


def certainty(probabilities: Tensor, label: int) -> np.ndarray:
    """Return the certainty (X, Y, Z) of the class `label`, from probabilities (K, X, Y, Z).

    The certainty is linear in the class's probability: 0 for the probability 1/K (all K classes equally likely), and 1
    for the probability 1.
    """
    chance = 1 / len(probabilities)
    return np.asarray((probabilities[label].numpy() - chance) / (1 - chance))


def _heaviest_component(mask: np.ndarray, certain: np.ndarray, prior: CentrePrior) -> tuple[np.ndarray, float]:
    """Return the heaviest component of a mask (X, Y, Z) and its weight; no voxels if all components are too small."""
    components, number = connected_components(mask)
    sizes = np.bincount(components.ravel(), minlength=number + 1)
    sizes[0] = 0
    sums = np.bincount(components.ravel(), certain.ravel(), len(sizes))
    weights = np.where(sizes >= SPECK, sums * prior.weights(components, len(sizes)), 0)
    best = int(weights.argmax())
    return (components == best) & mask, float(weights[best])
