"""The estimated memory of a pass, and the largest tile that fits into a limit."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from dcamt.inference.memory import (
    DEFAULT_MEMORY,
    attention_bytes,
    free_memory,
    pass_bytes,
    pass_limit,
    tile_size,
)
from dcamt.networks.cross_attention import BLOCK_BYTES
from dcamt.recipe import Network, load_recipe
from dcamt_testing.synthetic import CPU
from dcamt_testing.tiny_recipes import tiny_recipe

RECIPE = load_recipe("la")
SCAN = (640, 640, 88)


def test_pass_needs_eight_feature_maps_of_the_finest_level_and_the_attention() -> None:
    alone = dataclasses.replace(RECIPE, network=Network(attention_heads=0))
    assert pass_bytes(alone, (112, 112, 80)) == 112 * 112 * 80 * 16 * 4 * 8
    tokens = 7 * 7 * 5
    assert pass_bytes(RECIPE, (112, 112, 80)) - pass_bytes(alone, (112, 112, 80)) == 3 * 4 * 4 * tokens**2
    # Volumes are padded to multiples of the stride.
    assert attention_bytes(RECIPE, (97, 112, 80)) == attention_bytes(RECIPE, (112, 112, 80))


def test_memory_of_attention_does_not_grow_with_the_square_of_the_volume() -> None:
    for size in (SCAN, (1280, 1280, 176)):
        assert 0.95 * 3 * BLOCK_BYTES < attention_bytes(RECIPE, size) <= 3 * BLOCK_BYTES


@pytest.mark.parametrize("normalisation", ["batch", "instance"])
def test_tile_and_arrays_of_the_whole_volume_fit_into_the_limit(normalisation: str) -> None:
    recipe = dataclasses.replace(RECIPE, network=Network(normalisation=normalisation))
    for memory in (2.5e9, 3e9, 5e9, 9e9, 17e9):
        limit = pass_limit(recipe, SCAN, int(memory))
        results = 4 * math.prod(SCAN) * 2 * recipe.output_channels
        assert limit <= memory - results - attention_bytes(recipe, SCAN)
        part = tile_size(recipe, SCAN, limit)
        assert part is not None
        assert pass_bytes(recipe, part) <= limit
    assert pass_limit(recipe, SCAN, 10**12) == 10**12
    assert tile_size(recipe, SCAN, 10**12) is None


def test_smallest_tile_is_four_strides_or_the_whole_volume() -> None:
    assert pass_limit(RECIPE, SCAN, 0) == 0
    assert tile_size(RECIPE, SCAN, 0) == (64, 64, 64)
    assert tile_size(RECIPE, (640, 30, 88), 0) == (64, 32, 64)
    assert tile_size(RECIPE, (64, 60, 10), 0) is None
    assert tile_size(tiny_recipe(), (24, 24, 24), 0) == (16, 16, 16)


def test_free_gpu_memory_includes_the_unused_cache_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_memory(CPU) == DEFAULT_MEMORY
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 10000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 8000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 3000)
    assert free_memory(torch.device("cuda")) == 4800
