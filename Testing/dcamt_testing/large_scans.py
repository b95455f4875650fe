"""A case in a field that is much larger: scans in which the organ has to be found."""

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
"""2 mm, patches of 16 x 16 x 16."""
SPACING = (1.0, 1.0, 2.0)
CASE = (48, 40, 24)
FIELD = (120, 144, 24)
AT = (41, 60, 0)
"""Where the case lies in the field, off the field's centre."""


def tissue() -> np.ndarray:
    """Return intensities that vary in waves and are all negative: (I, J, K)."""
    i, j, k = np.meshgrid(*[np.arange(n) for n in CASE], indexing="ij")
    waves = -0.5 + 0.2 * np.sin(i / 2.5) * np.cos(j / 3) + 0.15 * np.sin(k / 1.5 + i / 4)
    return np.asarray(waves.astype(np.float32))


def ellipsoid(centre: tuple[int, int, int], radii: tuple[int, int, int]) -> np.ndarray:
    """Of a case's voxels those in an ellipsoid: (I, J, K) bool."""
    at = np.stack(np.meshgrid(*[np.arange(n) for n in CASE], indexing="ij"), axis=-1)
    return np.asarray((((at - centre) / radii) ** 2).sum(axis=-1) < 1)


def case() -> np.ndarray:
    """Return tissue with a bright organ off its centre: (I, J, K)."""
    return np.where(ellipsoid((22, 21, 12), (14, 12, 8)), np.float32(0.9), tissue())


def scan_in(kind: str) -> tuple[Volume, np.ndarray]:
    """The case in a large field, and where its own organ lies."""
    room = [(at, n - m - at) for at, n, m in zip(AT, FIELD, CASE, strict=True)]
    if kind == "mirrored tissue":
        # Its copies surround it, so that the scan's centre shows the case itself.
        room = [((n - m) // 2, n - m - (n - m) // 2) for n, m in zip(FIELD, CASE, strict=True)]
        voxels = np.pad(case(), room, mode="symmetric")
    else:
        voxels = np.full(FIELD, -1, np.float32)
        if kind == "noise":
            voxels = np.random.default_rng(0).normal(-0.6, 0.1, FIELD).astype(np.float32)
        voxels[tuple(slice(low, low + n) for (low, _), n in zip(room, CASE, strict=True))] = case()
    own = np.zeros(FIELD, bool)
    own[tuple(slice(low, low + n) for (low, _), n in zip(room, CASE, strict=True))] = case() > 0
    return Volume(voxels[None], centred_grid(FIELD, SPACING)), own
