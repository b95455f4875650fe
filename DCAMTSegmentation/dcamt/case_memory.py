"""Estimate the memory that the cases of a run take during and after loading."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .geometry import Grid
from .recipe import Recipe

MOMENTS = 1 << 26
"""`preprocessing.normalise` computes the local mean and mean square of at most this many voxels at a time."""
MOMENT_BYTES = 16
"""Bytes of a voxel's local mean and mean square, float64."""
PROCESS_BYTES = 500_000_000
"""Memory of a process that has loaded PyTorch and a network, but no case."""


def resident_bytes(recipe: Recipe, grids: Sequence[Grid]) -> int:
    """Return the bytes that cases take in training.

    A voxel of the network grid takes one byte per channel, and one for the label. Every case is counted as if it were
    labelled.
    """
    return round(sum(_network_voxels(recipe, grid) for grid in grids) * (recipe.input_channels + 1))


def loading_bytes(recipe: Recipe, grids: Sequence[Grid]) -> int:
    """Return the peak memory of a process that loads the cases of a run, if the largest scan is loaded last."""
    return PROCESS_BYTES + resident_bytes(recipe, grids) + max((_preparing_bytes(recipe, g) for g in grids), default=0)


def _preparing_bytes(recipe: Recipe, grid: Grid) -> int:
    """Return the bytes that a scan takes while it is resampled and normalised.

    The scan, the resampled scan and the normalised scan are float32.
    """
    read, resampled = (recipe.input_channels * n for n in (math.prod(grid.shape), _network_voxels(recipe, grid)))
    moments = min(resampled, MOMENTS) if recipe.intensity.rule == "local" else 0
    return round(4 * (read + 2 * resampled) + MOMENT_BYTES * moments)


def _network_voxels(recipe: Recipe, grid: Grid) -> float:
    return math.prod(grid.shape) * grid.voxel_volume_mm3 / math.prod(recipe.spacing)
