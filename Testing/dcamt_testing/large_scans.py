"""Make scans with a field of view much larger than the organ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from dcamt.recipe import Inference, Intensity, Recipe
from dcamt.volume import Volume

from dcamt_testing.analytic_scans import centred_grid
from dcamt_testing.tiny_recipes import tiny_recipe

RECIPE: Recipe = replace(
    tiny_recipe(), intensity=Intensity("clip", low=-1, high=1), inference=Inference(largest_component=True)
)
"""A recipe with a network grid of 2 mm spacing and patches of 16 x 16 x 16 voxels."""
SPACING = (1.0, 1.0, 2.0)
"""Spacing of the scans, mm."""
SMALL_SHAPE, FIELD = (48, 40, 24), (120, 144, 24)
"""Shapes of the small scan and of the large scans, in voxels."""
AT = (41, 60, 0)
"""Index of the small scan's first voxel in a large scan of air or noise; the small scan is off-centre."""


def tissue() -> np.ndarray:
    """Return the background of the small scan, (I, J, K): waves of negative intensities."""
    i, j, k = np.meshgrid(*[np.arange(n) for n in SMALL_SHAPE], indexing="ij")
    waves = -0.5 + 0.2 * np.sin(i / 2.5) * np.cos(j / 3) + 0.15 * np.sin(k / 1.5 + i / 4)
    return np.asarray(waves.astype(np.float32))


def ellipsoid(centre: tuple[int, int, int], radii: tuple[int, int, int]) -> np.ndarray:
    """Return the mask of an ellipsoid in the small scan: (I, J, K) bool; centre and radii in voxels."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SMALL_SHAPE], indexing="ij"), axis=-1)
    return np.asarray((((index - centre) / radii) ** 2).sum(axis=-1) < 1)


def small_scan() -> np.ndarray:
    """Return the small scan, (I, J, K): tissue and a bright organ that is not at the centre."""
    return np.where(ellipsoid((22, 21, 12), (14, 12, 8)), np.float32(0.9), tissue())


def scan_in(kind: str) -> tuple[Volume, np.ndarray]:
    """Return a large scan that contains the small scan, and the mask of the organ.

    Args:
        kind: what surrounds the small scan: "air" (-1), "noise", or "mirrored tissue" (the small scan's mirror images).
    """
    around = [(at, n - m - at) for at, n, m in zip(AT, FIELD, SMALL_SHAPE, strict=True)]
    if kind == "mirrored tissue":
        around = [((n - m) // 2, n - m - (n - m) // 2) for n, m in zip(FIELD, SMALL_SHAPE, strict=True)]
        voxels = np.pad(small_scan(), around, mode="symmetric")
    else:
        voxels = np.full(FIELD, -1, np.float32)
        if kind == "noise":
            voxels = np.random.default_rng(0).normal(-0.6, 0.1, FIELD).astype(np.float32)
        voxels[tuple(slice(low, low + n) for (low, _), n in zip(around, SMALL_SHAPE, strict=True))] = small_scan()
    organ = np.zeros(FIELD, bool)
    organ[tuple(slice(low, low + n) for (low, _), n in zip(around, SMALL_SHAPE, strict=True))] = small_scan() > 0
    return Volume(voxels[None], centred_grid(FIELD, SPACING)), organ
