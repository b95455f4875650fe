"""How much memory a pass over the network takes, how much there is, and how large a part of a volume fits into it."""

from __future__ import annotations

import math

import torch

from ..networks.cross_attention import queries_at_once
from ..recipe import Recipe
from .one_pass import Size, part_that_fits

DEFAULT_MEMORY = 2 << 30
"""Bytes that a pass may take on a CPU; a laptop runs other programs, too."""


def pass_bytes(recipe: Recipe, size: Size) -> int:
    """About how many bytes one pass over (X, Y, Z) voxels takes at its peak.

    Both branches' skips wait while the finest level of one is decoded: at most eight float32 feature maps of the
    finest level, as measured by Testing/benchmarks/inference.py.
    """
    return math.prod(size) * recipe.network.channels[0] * 4 * 8 + attention_bytes(recipe, size)


def attention_bytes(recipe: Recipe, size: Size) -> int:
    """About how many bytes the cross-attention of (X, Y, Z) voxels takes for a block of queries.

    They are the block's bias and, where attention is not fused, its scores before and after the softmax.
    """
    heads = recipe.network.attention_heads
    if not heads:
        return 0
    tokens = math.prod(-(-n // recipe.stride) for n in size)
    return 3 * 4 * heads * queries_at_once(tokens, heads) * tokens


def part_size(recipe: Recipe, size: Size, limit: int) -> Size | None:
    """How much of a volume of (X, Y, Z) voxels a pass of `limit` bytes may take; None: all of it.

    Be the limit as low as it may, it is no less than four strides along each axis.
    """
    return part_that_fits(size, recipe.stride, lambda part: pass_bytes(recipe, part) <= limit)


def part_limit(recipe: Recipe, size: Size, memory: int) -> int:
    """Bytes that are left of `memory` for a pass, be it over the whole volume (X, Y, Z) or over a part."""
    if pass_bytes(recipe, size) <= memory:
        return memory
    # What is kept of the whole meanwhile: both branches' results, features of the coarser levels, and the attention.
    kept = 4 * math.prod(size) * (2 * recipe.outputs + 10) + attention_bytes(recipe, size)
    return max(0, memory - kept)


def free_memory(device: torch.device) -> int:
    """Bytes that may be taken on a device: of a GPU, most of what is free; elsewhere `DEFAULT_MEMORY`."""
    if device.type == "cuda":
        # PyTorch keeps what it has freed for itself, as after an iteration of training, and gives it out again.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.8 * (torch.cuda.mem_get_info(device)[0] + kept))
    return DEFAULT_MEMORY
