"""Tidying a segmentation: of every class, the largest connected piece stays, or the one that is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..geometry import Box, bounding_box
from .middle import Middle


@dataclass(frozen=True)
class Expected:
    """Where something is expected, in voxels of a labelmap: where each class was seen before, and the scan's middle."""

    places: Mapping[int, Box]
    middle: Middle


def connected_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The connected components of a mask (I, J, K) bool, numbered from 1, as labels of its shape; and how many.

    Voxels are connected through faces, edges and corners (26 neighbours), as in the post-processing of the published
    left atrium results (L. Yu et al., UA-MT, MICCAI 2019: `skimage.measure.label` at its default), so that
    thin oblique veins stay attached.
    """
    from scipy import ndimage

    components, number = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return components, number


def largest_component(mask: np.ndarray, near: Box | None = None, middle: Middle | None = None) -> np.ndarray:
    """The largest of the `connected_components` of `mask` (I, J, K) bool, as a new mask of that shape.

    `near`: where what is meant was seen before. Of a component only the voxels there count, unless none has any.
    `middle`: that of the scan, in voxels of the mask. A component counts less the further it lies from there.

    Of components that count the same the first in array order stays. An empty mask stays empty.
    """
    kept = np.zeros(mask.shape, dtype=bool)
    box = bounding_box(mask)
    if box is None:
        return kept
    components, number = connected_components(mask[box])
    if number == 1:
        kept[box] = mask[box]
        return kept
    sizes = np.bincount(components.ravel())
    if near is not None:
        there = (slice(max(0, n.start - b.start), max(0, n.stop - b.start)) for n, b in zip(near, box, strict=True))
        seen = np.bincount(components[tuple(there)].ravel(), minlength=number + 1)
        sizes = seen if seen[1:].any() else sizes
    if middle is not None:
        sizes = sizes * middle.within(box).weights(components, len(sizes))
    sizes[0] = 0
    kept[box] = components == sizes.argmax()
    return kept


def keep_largest_components(
    labelmap: np.ndarray, labels: Sequence[int], expected: Expected | None = None
) -> np.ndarray:
    """A copy of `labelmap` (I, J, K) in which each of `labels` keeps its `largest_component`, by what is expected.

    What is dropped becomes background (0); classes not in `labels` stay as they are. Every class is judged on
    its own, so that it may be held together by nothing but its own voxels.
    """
    tidied = labelmap.copy()
    for label in labels:
        mask = labelmap == label
        if expected:
            kept = largest_component(mask, expected.places.get(label), expected.middle)
        else:
            kept = largest_component(mask)
        tidied[mask & ~kept] = 0
    return tidied
