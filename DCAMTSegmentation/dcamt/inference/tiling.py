"""Predict a whole volume in bounded memory, in one pass or in tiles.

The two finest levels take nearly all of a pass's memory, and their receptive field is only a few voxels. They are
computed tile by tile, each tile with a margin for that receptive field. The coarser levels, with their large receptive
field and the attention between the branches, are computed for the whole volume. The result equals that of one pass up
to rounding. Overlapping windows would give another result, since a deep network sees padding instead of tissue at a
window's faces.

Instance normalisation needs the whole volume, so a network that uses it is never run in tiles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import is_out_of_memory
from ..geometry import Box, Shape
from ..networks.dual_vnet import DualVNet
from ..networks.vnet import VNet
from ..recipe import ACCURATE, FAST, Recipe
from .memory import pass_bytes, pass_limit, tile_size, usable_memory

FINE_LEVELS = 2
"""At most this many levels are computed tile by tile."""

Tick = Callable[[int, int], None]
"""Called as tick(done, of) after each part of the work."""


class Tile(NamedTuple):
    """The place of a tile in a volume.

    Attributes:
        outer: the tile with its margin.
        core: the tile without its margin.
        core_in_outer: the core, counted from the start of `outer`; 4:20 if `outer` is 12:36 and `core` is 16:32.
    """

    outer: Box
    core: Box
    core_in_outer: Box


class OutOfMemory(Exception):
    """Raised when the device's memory is too small for the smallest tiles, or for one pass if tiles are impossible."""


def predict_bounded(
    network: DualVNet,
    image: Tensor,
    recipe: Recipe,
    quality: str = ACCURATE,
    tick: Tick | None = None,
    on_shortage: Callable[[], None] | None = None,
) -> Tensor:
    """Predict a whole volume in bounded memory: in one pass, or in tiles if memory is too small.

    Args:
        image: float (C, X, Y, Z); moved to the network's device and precision.
        quality: `accurate`, or `fast` for one branch.
        on_shortage: called when memory ran out, before tiles or smaller tiles are tried.

    Returns:
        Probabilities, float32 (branches, K, X, Y, Z) on the network's device, without gradient.

    Raises:
        OutOfMemory: memory is too small for the smallest tiles, or for one pass if the network cannot be tiled.
    """
    size = size_of(image)
    weights = next(network.parameters())
    limit = pass_limit(recipe, size, usable_memory(weights.device))
    tileable = recipe.network.normalisation != "instance"
    while True:
        tile = tile_size(recipe, size, limit) if tileable else None
        result = _predict_or_none(network, image, quality, tile, tick)
        if result is not None:
            return result
        torch.cuda.empty_cache()
        if not tileable or tile == tile_size(recipe, size, 0):
            raise OutOfMemory
        if on_shortage:
            on_shortage()
        limit = min(limit, pass_bytes(recipe, tile or size)) // 2


def _predict_or_none(
    network: DualVNet, image: Tensor, quality: str, tile: Shape | None, tick: Tick | None
) -> Tensor | None:
    """Predict in one pass or in tiles; if memory runs out, release all tensors and return None."""
    weights = next(network.parameters())
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            placed = image.to(weights.device, weights.dtype)
            if tile:
                return predict_tiled(network, placed, quality, tile, tick)
            result = predict_whole(network, placed, quality)
            if tick:
                tick(1, 1)
            return result
    except RuntimeError as error:
        if is_out_of_memory(error):
            return None
        raise
    finally:
        network.train(was_training)


def predict_whole(network: DualVNet, image: Tensor, quality: str) -> Tensor:
    """Return the probabilities (branches, K, X, Y, Z) for an image (C, X, Y, Z) in one pass.

    The caller must turn gradients off.
    """
    size = size_of(image)
    padded = pad(image, network.stride)
    batch = padded[None].contiguous(memory_format=torch.channels_last_3d)
    logits = [network.forward_one(batch)] if quality == FAST else [output.logits for output in network(batch)]
    return torch.cat(logits).float().softmax(dim=1)[..., : size[0], : size[1], : size[2]]


def predict_tiled(network: DualVNet, image: Tensor, quality: str, tile: Shape, tick: Tick | None = None) -> Tensor:
    """Return the result of `predict_whole`, up to rounding, with the fine levels computed tile by tile.

    Args:
        tile: size of a tile in voxels, margin included.
        tick: called as tick(done, of) each time a branch has encoded or decoded a tile.
    """
    vnets = network.vnets[:1] if quality == FAST else network.vnets
    unpadded = size_of(image)
    image = pad(image, network.stride)
    size = size_of(image)
    fine = fine_levels(network)
    step = fine_stride(network, fine)
    tiles = list(split_into_tiles(size, tile, fine_reach(network), step))
    of, done = 2 * len(vnets) * len(tiles), itertools.count(1)

    def each_tile() -> Iterator[Tile]:
        for boxes in tiles:
            yield boxes
            if tick:
                tick(next(done), of)

    def encode_tile(vnet: VNet, outer: Box) -> list[Tensor]:
        part = image[(slice(None), *outer)][None].contiguous(memory_format=torch.channels_last_3d)
        return vnet.encoder.encode_levels(part, range(fine))

    # Encoder: run each tile through the fine levels, and collect the results as the coarse levels' input.
    coarse: list[list[Tensor]] = []
    for vnet in vnets:
        entering: Tensor | None = None
        for outer, core, core_in_outer in each_tile():
            part = vnet.encoder.downs[fine - 1](encode_tile(vnet, outer)[-1])
            if entering is None:
                entering = part.new_zeros((1, part.shape[1], *(n // s for n, s in zip(size, step, strict=True))))
            entering[(..., *coarsen(core, step))] = part[(..., *coarsen(core_in_outer, step))]
        assert entering is not None
        coarse.append(vnet.encoder.encode_levels(entering, range(fine, len(vnet.encoder.levels))))

    # Decoder: run the coarse levels on the whole volume, and the fine levels tile by tile. Each tile's encoder
    # features are computed again.
    exchanged = network.exchange([features[-1] for features in coarse])
    result = torch.zeros((len(vnets), vnets[0].head.out_channels, *size), device=image.device)
    for index, vnet in enumerate(vnets):
        decoded = vnet.decoder.decode_levels(exchanged[index], coarse[index][:-1][::-1], slice(None, -fine))
        for outer, core, core_in_outer in each_tile():
            skips = encode_tile(vnet, outer)[::-1]
            coarser = decoded[(..., *coarsen(outer, step))]
            logits = vnet.head(vnet.decoder.decode_levels(coarser, skips, slice(-fine, None)))
            result[(index, ..., *core)] = logits[0].float().softmax(dim=0)[(..., *core_in_outer)]
        coarse[index] = []  # Release memory for the other branch.
    return result[..., : unpadded[0], : unpadded[1], : unpadded[2]]


def fine_levels(network: DualVNet) -> int:
    """Return the number of levels to compute tile by tile: all but the deepest, at most `FINE_LEVELS`."""
    return min(FINE_LEVELS, len(network.vnets[0].encoder.levels) - 1)


def fine_stride(network: DualVNet, level: int) -> Shape:
    """Return the factor by which each axis is downsampled from the finest level (0) to `level`."""
    x, y, z = (math.prod(steps) for steps in zip((1, 1, 1), *network.strides[:level], strict=True))
    return x, y, z


def fine_reach(network: DualVNet) -> Shape:
    """Return the radius (X, Y, Z) of the fine levels' receptive field in voxels.

    Along each axis, the radius is rounded up to a multiple of the fine levels' stride.
    """
    fine = fine_levels(network)
    largest_stride = 2
    upsampling_reach = largest_stride
    voxels = [0, 0, 0]
    for level in range(fine):
        convolutions = sum(isinstance(layer, nn.Conv3d) for layer in network.vnets[0].encoder.levels[level].modules())
        # A level's encoder and decoder have equally many convolutions, each with a reach of one voxel of the level.
        for axis, step in enumerate(fine_stride(network, level)):
            voxels[axis] += step * (2 * convolutions + upsampling_reach)
    x, y, z = (-(-n // step) * step for n, step in zip(voxels, fine_stride(network, fine), strict=True))
    return x, y, z


def split_into_tiles(size: Shape, tile: Shape, margin: Shape, step: Shape) -> Iterator[Tile]:
    """Yield tiles that together fill a volume of `size`.

    All sizes are in voxels. Tiles start at multiples of `step`. An axis of at most `tile` voxels is not split. Along a
    longer axis, the length of a tile without its margins is the largest multiple of `step` that is at most
    `tile` - 2 * `margin`, but at least one `step`. The last tile may be shorter.
    """
    axes = []
    for length, edge, reach, multiple in zip(size, tile, margin, step, strict=True):
        core = length if edge >= length else max(multiple, (edge - 2 * reach) // multiple * multiple)
        parts = []
        for start in range(0, length, core):
            stop = min(length, start + core)
            low, high = max(0, start - reach), min(length, stop + reach)
            parts.append((slice(low, high), slice(start, stop), slice(start - low, stop - low)))
        axes.append(parts)
    for x, y, z in itertools.product(*axes):
        yield Tile((x[0], y[0], z[0]), (x[1], y[1], z[1]), (x[2], y[2], z[2]))


def coarsen(box: Box, step: Shape) -> Box:
    """Convert a box to a coarser grid, whose voxels are `step` times as long along each axis.

    The box's limits must be multiples of `step`.
    """
    x, y, z = (slice(part.start // s, part.stop // s) for part, s in zip(box, step, strict=True))
    return x, y, z


def pad(image: Tensor, stride: Shape) -> Tensor:
    """Pad an image (C, X, Y, Z) at the end of each axis to a multiple of `stride`, with copies of the last voxel."""
    sides: list[int] = []
    for length, step in zip(reversed(size_of(image)), reversed(stride), strict=True):
        sides += [0, -length % step]
    return F.pad(image[None], sides, mode="replicate")[0]


def size_of(image: Tensor) -> Shape:
    """Return the size (X, Y, Z) of an image (..., X, Y, Z)."""
    return image.shape[-3], image.shape[-2], image.shape[-1]
