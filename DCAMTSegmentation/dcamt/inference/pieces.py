"""Which pieces of what a network sees on a coarse grid are meant."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .labelling import most_likely
from .middle import Middle
from .postprocessing import connected_components

SPECK = 64
"""Voxels of the coarser grid below which a piece is no organ."""
SURE, CORE = 0.95, 0.1
"""Probability of what is all but certain. It counts if it has so much of the weight of the piece that it is part of."""


def pieces(shares: Tensor, middle: Middle) -> np.ndarray:
    """Which voxels belong to what is looked for: their classes, else 0, uint8 (X, Y, Z), by probabilities (K, X, Y, Z).

    One piece of each class: that with the most certainty in it, and the more so the nearer to the scan's `middle`.
    """
    labels = most_likely(shares).numpy()
    chosen = np.zeros_like(labels)
    for label in range(1, len(shares)):
        chosen[_meant(labels == label, shares, label, middle)] = label
    return chosen


def _meant(mask: np.ndarray, shares: Tensor, label: int, middle: Middle) -> np.ndarray:
    """The piece of a class's mask (X, Y, Z) that is meant.

    Of it, what is all but certain: organs that touch their like on a coarse grid part there. But of a scan that the
    network is never certain about, a speck of certainty says nothing.
    """
    certain = certainty(shares, label)
    piece, weight = _heaviest(mask, certain, middle)
    core, core_weight = _heaviest(piece & (shares[label].numpy() >= SURE), certain, middle)
    return core if core_weight >= CORE * weight else piece


def certainty(shares: Tensor, label: int) -> np.ndarray:
    """How much a class's probability (X, Y, Z) of (K, X, Y, Z) exceeds chance, 1/K, at most 1."""
    chance = 1 / len(shares)
    return np.asarray((shares[label].numpy() - chance) / (1 - chance))


def _heaviest(mask: np.ndarray, certain: np.ndarray, middle: Middle) -> tuple[np.ndarray, float]:
    """The component of a mask (X, Y, Z) with the most weight, and this: its certainty, less away from the middle.

    Specks have none; where there is nothing else, the component is empty.
    """
    components, number = connected_components(mask)
    sizes = np.bincount(components.ravel(), minlength=number + 1)
    sizes[0] = 0  # the background is no component
    sums = np.bincount(components.ravel(), certain.ravel(), len(sizes))
    weights = np.where(sizes >= SPECK, sums * middle.weights(components, len(sizes)), 0)
    best = int(weights.argmax())
    return (components == best) & mask, float(weights[best])
