"""Locate organs in a large scan, so that only a box around them is segmented at full resolution.

Air, noise and padding are cut off first. If the remaining anatomy is still large, one branch of the network segments
the inner part, and if necessary all anatomy, at 1.5 times the network's spacing. (At twice the spacing, organs look
smaller than any in training, and the network misses most of them.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from ..geometry import Box, NetworkGrid, bounding_box, box_in_parent, enclosing_box, network_grid, pad_box
from ..preprocessing import scan_to_network
from ..recipe import Recipe
from ..volume import Labelmap, Volume
from .anatomy import anatomy_box
from .components import CentrePrior, certainty, select_components

LARGE_PATCHES, LARGE_VOXELS = 5, 1 << 20
"""A scan is large if its network grid exceeds both `LARGE_VOXELS` voxels and `LARGE_PATCHES` training patches.

A scan cropped around the heart is as large as two to four patches of the left atrium's recipe.
"""
COARSER = 1.5
"""Spacing of the grid on which organs are located, as a multiple of the recipe's spacing."""
MARGIN = 0.3
"""Margin around a located organ on each side, as a fraction of the training patch's edge."""
INNER = 0.6
"""Fraction of each axis that is searched first."""

SMALLEST_ORGAN = 0.02
"""Smallest accepted volume of an organ in the inner part, as a fraction of a training patch's volume.

Each voxel's volume is multiplied by the voxel's certainty (`components.certainty`).
"""

PredictCoarse = Callable[[Tensor], Tensor]
"""Returns one branch's probabilities (1, K, X, Y, Z) for an image (C, X, Y, Z) on a coarse grid."""


@dataclass(frozen=True)
class OrganLocation:
    """The boxes in which a scan's organs and anatomy were found, in the scan's own voxels.

    Attributes:
        box: the box to segment: the organs and a margin, or all anatomy.
        anatomy: the box of all anatomy in the scan.
        organs: the box of each class that was located; empty if all anatomy is segmented without locating organs.
    """

    box: Box
    anatomy: Box
    organs: Mapping[int, Box] = field(default_factory=dict)


def is_large(recipe: Recipe, grid: NetworkGrid) -> bool:
    """Return whether a scan is so large that locating the organs first saves time."""
    return math.prod(grid.shape) > max(LARGE_VOXELS, LARGE_PATCHES * math.prod(recipe.training.patch))


def organ_margin(recipe: Recipe, grid: NetworkGrid) -> tuple[int, int, int]:
    """Return the margin around an organ, in voxels along each of the scan's own axes."""
    voxels = [0, 0, 0]
    for axis, stored in enumerate(grid.order):
        mm = MARGIN * recipe.training.patch[axis] * recipe.spacing[axis]
        voxels[stored] = math.ceil(mm / grid.canonical_spacing[axis])
    return voxels[0], voxels[1], voxels[2]


def locate_organs(volume: Volume, grid: NetworkGrid, recipe: Recipe, predict: PredictCoarse) -> OrganLocation | None:
    """Return the location of the organs in a large scan; None if no anatomy or no organ is found."""
    anatomy = anatomy_box(volume, recipe)
    if anatomy is None:
        return None
    anatomy_grid = network_grid(volume.grid.crop(anatomy), recipe.spacing)
    if not is_large(recipe, anatomy_grid) or not recipe.inference.largest_component:
        return OrganLocation(anatomy, anatomy)
    inner = box_in_parent(inner_box(anatomy_grid, recipe), anatomy)
    margin = organ_margin(recipe, grid)
    if inner != anatomy:
        location = locate_organs_in(volume, inner, anatomy, margin, recipe, predict)
        if location:
            return location
    return locate_organs_in(volume, anatomy, anatomy, margin, recipe, predict)


def locate_organs_in(
    volume: Volume, part: Box, anatomy: Box, margin: tuple[int, int, int], recipe: Recipe, predict: PredictCoarse
) -> OrganLocation | None:
    """Return the location of the organs within a part of the anatomy; None if they are not found there.

    In a part smaller than the anatomy, organs count as found only if every class is found, fills at least
    `SMALLEST_ORGAN` of a patch, and is not cut off (`_is_cut_off`).
    """
    x, y, z = (COARSER * step for step in recipe.spacing)
    image, grid = scan_to_network(crop_scan(volume, part), replace(recipe, spacing=(x, y, z)))
    fitting = tuple(_trim_to_strides(n, stride) for n, stride in zip(grid.shape, recipe.stride, strict=True))
    probabilities = predict(image[(slice(None), *fitting)])[0]
    prior = CentrePrior.on_network_grid(volume.grid.crop(anatomy), grid).crop_to(fitting)
    selected = np.zeros(grid.shape, np.uint8)
    selected[fitting] = select_components(probabilities, prior)
    organs: dict[int, Box] = {}
    for label in range(1, recipe.output_channels):
        organ = bounding_box(selected == label)
        if organ:
            organs[label] = box_in_parent(grid.source_box(organ), part)
    if not organs:
        return None
    enclosing = enclosing_box(organs.values())
    if part != anatomy and (
        _is_cut_off(enclosing, part, anatomy) or not _is_sizeable(probabilities, selected[fitting], recipe)
    ):
        return None
    found_all = len(organs) == recipe.output_channels - 1
    return OrganLocation(pad_box(enclosing, margin, anatomy) if found_all else anatomy, anatomy, organs)


def inner_box(grid: NetworkGrid, recipe: Recipe) -> Box:
    """Return the box in the middle of `grid.source`: the fraction `INNER` of each axis, but at least two patches."""
    box = [slice(0)] * 3
    for axis, stored in enumerate(grid.order):
        length = grid.source.shape[stored]
        least = 2 * recipe.training.patch[axis] * recipe.spacing[axis] / grid.canonical_spacing[axis]
        rim = max(0, math.floor((length - max(INNER * length, least)) / 2))
        box[stored] = slice(rim, length - rim)
    return box[0], box[1], box[2]


def crop_scan(volume: Volume, box: Box) -> Volume:
    """Return a scan cropped to `box`; the voxels are a view."""
    return Volume(volume.voxels[(slice(None), *box)], volume.grid.crop(box), volume.path)


def paste(part: np.ndarray, box: Box, shape: tuple[int, int, int], outside: float) -> np.ndarray:
    """Return an array (..., I, J, K) of `shape` with `part` (..., i, j, k) in `box`, and `outside` elsewhere."""
    size = (*part.shape[:-3], *shape)
    pasted = np.full(size, outside, part.dtype) if outside else np.zeros(size, part.dtype)
    pasted[(..., *box)] = part
    return pasted


def grow_box(box: Box, labels: Labelmap, margin: tuple[int, int, int], shape: tuple[int, int, int]) -> Box:
    """Return `box` enlarged by `margin` at each face that the labels touch.

    Args:
        labels: the labelmap of the box.
        shape: shape of the scan's grid, which limits the result.
    """
    sides = []
    for axis, (side, more, length) in enumerate(zip(box, margin, shape, strict=True)):
        first, last = (np.take(labels.voxels, end, axis=axis).any() for end in (0, -1))
        start = max(0, side.start - more) if first else side.start
        stop = min(length, side.stop + more) if last else side.stop
        sides.append(slice(start, stop))
    return sides[0], sides[1], sides[2]


def _is_sizeable(probabilities: Tensor, selected: np.ndarray, recipe: Recipe) -> bool:
    enough = SMALLEST_ORGAN * math.prod(recipe.training.patch) / COARSER**3
    labels = range(1, recipe.output_channels)
    return all(certainty(probabilities, label)[selected == label].sum() >= enough for label in labels)


def _trim_to_strides(length: int, stride: int) -> slice:
    """Return the range of indices along an axis for which the network computes probabilities.

    An axis consists of n strides and a remainder. If n is at least 1 and the remainder is at most a third of a stride,
    the remainder is cut off, half at each end. Otherwise the axis is not cut.
    """
    excess = length % stride if length > stride else 0
    return slice(excess // 2, length - (excess - excess // 2)) if excess <= stride // 3 else slice(0, length)


def _is_cut_off(box: Box, part: Box, whole: Box) -> bool:
    """Return whether `box` touches a face of `part` that is not a face of `whole`."""
    return any(
        (b.start <= p.start and p.start > w.start) or (b.stop >= p.stop and p.stop < w.stop)
        for b, p, w in zip(box, part, whole, strict=True)
    )
