"""Where in a large scan the organ lies, so that only its surroundings need be segmented.

First the anatomy. If that leaves a large scan still, one branch looks over it on a grid 1.5 times as coarse as the
network's own. (At twice, organs look smaller than any that the network has seen in training, and it finds few of them.)
It looks at the scan's inner part first.

Nothing is lost by it: where a structure may have several pieces, or one of several is not seen at that resolution, all
of the anatomy is segmented.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from ..geometry import Box, Grid, bounding_box, box_in_parent, enclosing_box, network_grid, pad_box
from ..preprocessing import scan_to_network
from ..recipe import Recipe
from ..volume import Volume
from .anatomy import anatomy_box
from .cropping import crop
from .middle import Middle
from .pieces import certainty, pieces

LARGE_IN_PATCHES, LARGE = 5, 1 << 20
"""A scan is large if the network's grid has more voxels than so many training patches, and than the second number.

A scan cropped about the heart has two to four patches of the left atrium's recipe.
"""
COARSER = 1.5
"""Spacing of the grid on which the organ is looked for, in the network's own spacings."""
MARGIN = 0.3
"""How much of its surroundings an organ is given on each side, in edges of the training patch."""
INNER, SIZEABLE = 0.6, 0.02
"""So much of each axis is looked at first; what is found there counts if it fills so much of a training patch."""

Run = Callable[[Tensor], Tensor]
"""From an image (C, X, Y, Z) on a coarser grid to one branch's probabilities (1, K, X, Y, Z)."""


@dataclass(frozen=True)
class Found:
    """Parts of a scan, in its own voxels.

    box: the organ with its surroundings. anatomy: what the scan shows of a person. organs: each class that was seen;
    none where the anatomy is all that need be segmented.
    """

    box: Box
    anatomy: Box
    organs: Mapping[int, Box] = field(default_factory=dict)


def is_large(recipe: Recipe, grid: Grid) -> bool:
    """Whether finding the organ first pays."""
    voxels = math.prod(network_grid(grid, recipe.spacing).shape)
    return voxels > max(LARGE, LARGE_IN_PATCHES * math.prod(recipe.training.patch))


def margin(recipe: Recipe, grid: Grid) -> tuple[int, int, int]:
    """How many of the scan's voxels, along its own axes, an organ's box is larger than the organ on each side."""
    at = network_grid(grid, recipe.spacing)
    voxels = [0, 0, 0]
    for axis, stored in enumerate(at.order):
        mm = MARGIN * recipe.training.patch[axis] * recipe.spacing[axis]
        voxels[stored] = math.ceil(mm / at.canonical_spacing[axis])
    return voxels[0], voxels[1], voxels[2]


def find_organ(volume: Volume, recipe: Recipe, run: Run) -> Found | None:
    """Where in a large scan the organs and their surroundings lie; None: nothing is found."""
    anatomy = anatomy_box(volume, recipe)
    if anatomy is None:
        return None
    shown = crop(volume, anatomy).grid
    if not is_large(recipe, shown) or not recipe.inference.largest_component:
        return Found(anatomy, anatomy)
    inner = box_in_parent(inner_box(shown, recipe), anatomy)
    if inner != anatomy:
        found = _look(volume, inner, anatomy, recipe, run)
        if found:
            return found
    return _look(volume, anatomy, anatomy, recipe, run)


def _look(volume: Volume, within: Box, anatomy: Box, recipe: Recipe, run: Run) -> Found | None:
    """The organs within the anatomy or a part of it; None: they are not there.

    In a part they count only if they are all there, of some size, and whole: they may lie elsewhere.
    """
    x, y, z = (COARSER * step for step in recipe.spacing)
    image, grid = scan_to_network(crop(volume, within), replace(recipe, spacing=(x, y, z)))
    fitting = tuple(_without_a_scant_stride(length, recipe.stride) for length in grid.shape)
    shares = run(image[(slice(None), *fitting)])[0]
    middle = Middle.on_network(crop(volume, anatomy).grid, grid).within(fitting)
    chosen = np.zeros(grid.shape, np.uint8)
    chosen[fitting] = pieces(shares, middle)
    organs: dict[int, Box] = {}
    for label in range(1, recipe.outputs):
        there = bounding_box(chosen == label)
        if there:
            organs[label] = box_in_parent(grid.source_box(there), within)
    if not organs:
        return None
    if len(organs) < recipe.outputs - 1:
        return Found(anatomy, anatomy, organs) if within == anatomy else None
    organ = enclosing_box(organs.values())
    if within != anatomy and (_is_cut(organ, within, anatomy) or not _is_sizeable(shares, chosen[fitting], recipe)):
        return None
    return Found(pad_box(organ, margin(recipe, volume.grid), anatomy), anatomy, organs)


def inner_box(grid: Grid, recipe: Recipe) -> Box:
    """The inner part of a scan, in its own voxels: `INNER` of each axis, but no less than two training patches."""
    at = network_grid(grid, recipe.spacing)
    box = [slice(0)] * 3
    for axis, stored in enumerate(at.order):
        length = grid.shape[stored]
        least = 2 * recipe.training.patch[axis] * recipe.spacing[axis] / at.canonical_spacing[axis]
        rim = max(0, math.floor((length - max(INNER * length, least)) / 2))
        box[stored] = slice(rim, length - rim)
    return box[0], box[1], box[2]


def _is_sizeable(shares: Tensor, chosen: np.ndarray, recipe: Recipe) -> bool:
    """Whether each class that was chosen, (X, Y, Z), has enough certainty in it to be an organ."""
    enough = SIZEABLE * math.prod(recipe.training.patch) / COARSER**3
    labels = range(1, recipe.outputs)
    return all(certainty(shares, label)[chosen == label].sum() >= enough for label in labels)


def _without_a_scant_stride(length: int, stride: int) -> slice:
    """The middle of an axis without its ends, if these would have it padded by more than two thirds of a stride."""
    excess = length % stride if length > stride else 0
    return slice(excess // 2, length - (excess - excess // 2)) if excess <= stride // 3 else slice(0, length)


def _is_cut(box: Box, within: Box, beyond: Box) -> bool:
    """Whether `box` touches a face of `within` that is none of `beyond`."""
    return any(
        (a.start <= b.start and b.start > c.start) or (a.stop >= b.stop and b.stop < c.stop)
        for a, b, c in zip(box, within, beyond, strict=True)
    )
