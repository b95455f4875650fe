"""Test the estimated memory of a pass, and the choice of a tile that fits into a limit."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from dcamt.geometry import Shape
from dcamt.inference.memory import (
    DEFAULT_MEMORY,
    attention_bytes,
    pass_bytes,
    pass_limit,
    tile_size,
    usable_memory,
)
from dcamt.networks.cross_attention import BLOCK_BYTES
from dcamt.recipe import Network
from dcamt.recipe_files import load_recipe
from dcamt_testing.synthetic import CPU
from dcamt_testing.tiny_recipes import tiny_recipe

RECIPE = load_recipe("la")
SCAN = (640, 640, 88)


def test_memory_of_a_pass_is_eight_arrays_of_the_finest_level_plus_the_attention() -> None:
    size = (112, 112, 80)
    without_attention = dataclasses.replace(RECIPE, network=Network(attention_heads=0))
    channels, heads, float32_bytes = 16, 4, 4
    assert pass_bytes(without_attention, size) == 8 * channels * math.prod(size) * float32_bytes
    tokens = 7 * 7 * 5  # the stride is 16
    # The attention holds a bias, and the scores before and after the softmax.
    attention = pass_bytes(RECIPE, size) - pass_bytes(without_attention, size)
    assert attention == 3 * heads * tokens**2 * float32_bytes
    # Volumes are padded to multiples of the stride.
    assert attention_bytes(RECIPE, (97, 112, 80)) == attention_bytes(RECIPE, size)


def test_memory_of_attention_is_at_most_three_arrays_of_a_block_of_queries() -> None:
    for size in (SCAN, (1280, 1280, 176)):
        assert 0.95 * 3 * BLOCK_BYTES < attention_bytes(RECIPE, size) <= 3 * BLOCK_BYTES


@pytest.mark.parametrize("normalisation", ["batch", "instance"])
def test_tile_fits_into_the_memory_left_beside_results_and_attention(normalisation: str) -> None:
    recipe = dataclasses.replace(RECIPE, network=Network(normalisation=normalisation))
    branches, float32_bytes = 2, 4
    for memory in (2.5e9, 3e9, 5e9, 9e9, 17e9):
        limit = pass_limit(recipe, SCAN, int(memory))
        results = branches * recipe.output_channels * math.prod(SCAN) * float32_bytes
        assert limit <= memory - results - attention_bytes(recipe, SCAN)
        tile = tile_size(recipe, SCAN, limit)
        assert tile is not None
        assert pass_bytes(recipe, tile) <= limit
    assert pass_limit(recipe, SCAN, 10**12) == 10**12
    assert tile_size(recipe, SCAN, 10**12) is None


def test_size_of_the_smallest_tile() -> None:
    # 64 voxels are four strides.
    assert pass_limit(RECIPE, SCAN, 0) == 0
    assert tile_size(RECIPE, SCAN, 0) == (64, 64, 64)
    assert tile_size(RECIPE, (640, 30, 88), 0) == (64, 32, 64)
    assert tile_size(RECIPE, (64, 60, 10), 0) is None
    assert tile_size(tiny_recipe(), (24, 24, 24), 0) == (16, 16, 16)


@pytest.mark.parametrize("size", [(100, 90, 80), (33, 200, 64), (64, 64, 64), (10, 10, 300)], ids=str)
def test_tile_is_shortened_only_as_far_as_needed(size: Shape) -> None:
    stride = RECIPE.stride[0]
    padded = [-(-n // stride) * stride for n in size]
    whole_bytes = pass_bytes(RECIPE, (padded[0], padded[1], padded[2]))
    for bound in np.geomspace(1e6, 1e10, 40).astype(int).tolist():
        tile = tile_size(RECIPE, size, bound)
        if tile is None:
            assert whole_bytes <= bound or max(padded) <= 4 * stride
            continue
        assert whole_bytes > bound
        assert all(n % stride == 0 for n in tile)
        assert all(min(4 * stride, whole) <= n <= whole for n, whole in zip(tile, padded, strict=True))
        assert pass_bytes(RECIPE, tile) <= bound or max(tile) <= 4 * stride
        # If the axis that was shortened most were one stride longer, the tile would not fit.
        shortened = max(range(3), key=lambda axis: padded[axis] - tile[axis])
        x, y, z = (n + stride * (axis == shortened) for axis, n in enumerate(tile))
        assert pass_bytes(RECIPE, (x, y, z)) > bound


def test_usable_gpu_memory_includes_the_unused_cache_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_memory(CPU) == DEFAULT_MEMORY
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 10000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 8000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 3000)
    assert usable_memory(torch.device("cuda")) == 4800  # 80 % of (1000 + 8000 - 3000)
