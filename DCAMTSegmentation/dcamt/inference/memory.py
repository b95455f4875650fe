"""Estimate the memory of a pass, and choose a tile that fits into the usable memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..geometry import Shape
from ..networks.cross_attention import queries_at_once
from ..recipe import Recipe, Stride

SMALLEST_TILE_STRIDES = 4
"""Smallest length of a tile along each axis, margin included, in units of the network's stride (`Recipe.stride`).

A smaller tile would consist almost entirely of its margin (see `tiling.Tile`).
"""
DEFAULT_MEMORY = 2 << 30
"""Bytes that a pass may take on a CPU or an Apple GPU, so that other programs on a laptop keep enough memory."""


def pass_bytes(recipe: Recipe, size: Shape) -> int:
    """Estimate the peak memory in bytes of one pass over (X, Y, Z) voxels.

    The peak occurs when the finest level of a branch is decoded, with the skips of both branches in memory. With
    strides of 2, the peak is at most eight float32 arrays of shape (`channels[0]`, X, Y, Z), as measured by
    Testing/benchmarks/inference.py. With other strides, the peak is assumed to be proportional to the number of
    features (channels x voxels, summed over all levels).
    """
    arrays = 8 * _features(recipe, recipe.level_strides) / _features(recipe, ((2, 2, 2),) * len(recipe.level_strides))
    return math.ceil(math.prod(size) * recipe.network.channels[0] * 4 * arrays) + attention_bytes(recipe, size)


def _features(recipe: Recipe, strides: Sequence[Stride]) -> float:
    """Return the number of features of all levels, divided by the number of voxels of the finest level."""
    total, voxels = 0.0, 1.0
    for channels, step in zip(recipe.network.channels, ((1, 1, 1), *strides), strict=True):
        voxels /= math.prod(step)
        total += channels * voxels
    return total


def attention_bytes(recipe: Recipe, size: Shape) -> int:
    """Estimate the memory in bytes of cross-attention, for one block of queries in a volume of (X, Y, Z) voxels.

    Three arrays are counted: the block's bias, its scores before the softmax, and its scores after the softmax. Fused
    attention takes less memory.
    """
    heads = recipe.network.attention_heads
    if not heads:
        return 0
    tokens = math.prod(-(-n // stride) for n, stride in zip(size, recipe.stride, strict=True))
    return 3 * 4 * heads * queries_at_once(tokens, heads) * tokens


def tile_size(recipe: Recipe, size: Shape, limit: int) -> Shape | None:
    """Return the size of the first candidate tile whose pass takes at most `limit` bytes.

    The first candidate is the whole volume of (X, Y, Z) voxels. Each further candidate is one stride shorter along the
    axis that is longest when measured in strides. No axis becomes shorter than `SMALLEST_TILE_STRIDES`. The last
    candidate is returned even if its pass takes more than `limit`. Returns None if the whole volume fits or is not
    larger than the smallest tile.
    """
    x, y, z = (-(-n // step) * step for n, step in zip(size, recipe.stride, strict=True))
    tile = [x, y, z]
    while pass_bytes(recipe, (tile[0], tile[1], tile[2])) > limit:
        axis = max(range(3), key=lambda a: tile[a] / recipe.stride[a])
        if tile[axis] <= SMALLEST_TILE_STRIDES * recipe.stride[axis]:
            break
        tile[axis] -= recipe.stride[axis]
    return None if tile == [x, y, z] else (tile[0], tile[1], tile[2])


def pass_limit(recipe: Recipe, size: Shape, memory: int) -> int:
    """Return how many bytes of `memory` a pass may take when a volume of (X, Y, Z) voxels is predicted.

    If a pass over the whole volume needs more than `memory`, the volume is predicted in tiles (see
    `tiling.predict_tiled`). The result is then the limit for the pass over one tile: `memory` minus the bytes of the
    whole volume's probabilities, coarse features and attention.
    """
    whole_volume_fits = pass_bytes(recipe, size) <= memory
    if whole_volume_fits:
        return memory
    branches, float32_bytes = 2, 4
    probabilities_per_voxel = branches * recipe.output_channels
    # An estimate for both branches, intermediate results included: at most 8.2 were measured with the recipe `la` and
    # 192 x 192 x 160 voxels.
    coarse_features_per_voxel = 10
    bytes_per_voxel = float32_bytes * (probabilities_per_voxel + coarse_features_per_voxel)
    # The attention connects the tokens of the whole volume; `pass_bytes` of a tile counts only the tile's tokens.
    return max(0, memory - bytes_per_voxel * math.prod(size) - attention_bytes(recipe, size))


def usable_memory(device: torch.device) -> int:
    """Return the bytes that a pass may take: 80% of a CUDA GPU's free memory, on other devices `DEFAULT_MEMORY`."""
    if device.type == "cuda":
        # Memory that PyTorch caches, for instance after a training step, is also free.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.8 * (torch.cuda.mem_get_info(device)[0] + kept))
    return DEFAULT_MEMORY
