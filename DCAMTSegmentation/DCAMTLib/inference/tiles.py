"""One pass over a whole volume in little memory: the finest levels tile by tile, the rest at once.

Nearly all of a pass's memory goes to the two finest levels, and these look only a few voxels around. So their features
are computed tile by tile, with as much of the neighbourhood as they can see, and the coarser levels, where one voxel
looks far and the branches attend to one another, see the whole volume. The result is that of one pass, to rounding,
which overlapping windows cannot give: at their faces a deep network sees padding in place of the heart.

It holds where no layer looks at the whole of its input, that is with batch normalisation at inference; a network with
instance normalisation has to be run in windows (`windows.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..networks.dual_vnet import DualVNet
from ..networks.vnet import VNet
from .windows import FAST, Size, Tick, pad, probabilities, size_of

Box = tuple[slice, slice, slice]

FINE_LEVELS = 2


def is_local(network: DualVNet) -> bool:
    """Whether the network's layers each look at a bounded neighbourhood only, apart from the attention."""
    return not any(isinstance(layer, nn.InstanceNorm3d) for layer in network.modules())


def fine_levels(network: DualVNet) -> int:
    """How many levels are computed tile by tile: two, or fewer if the network has hardly more."""
    return min(FINE_LEVELS, len(network.vnets[0].encoder.levels) - 1)


def reach(network: DualVNet) -> int:
    """How far, in voxels, the fine levels of encoder and decoder look to either side, rounded up to their stride."""
    fine = fine_levels(network)
    voxels = 0
    for level in range(fine):
        convolutions = sum(isinstance(layer, nn.Conv3d) for layer in network.vnets[0].encoder.levels[level].modules())
        # Encoder and decoder have as many convolutions each; interpolating upwards looks one coarser voxel further.
        voxels += 2**level * (2 * convolutions + 2)
    step = int(2**fine)
    return -(-voxels // step) * step


def bounded_probabilities(
    network: DualVNet, image: Tensor, quality: str, part: Size | None, tick: Tick | None = None
) -> Tensor:
    """As `windows.probabilities`: in one pass, in tiles of the size `part`, or, where it must be, in such windows."""
    way = tiled_probabilities if part and is_local(network) else probabilities
    return way(network, image, quality, part, tick)


def tiled_probabilities(
    network: DualVNet, image: Tensor, quality: str, tile: Size | None, tick: Tick | None = None
) -> Tensor:
    """Each branch's probabilities (branches, K, X, Y, Z) for an image (C, X, Y, Z); one branch if `quality` is fast.

    `tile`: the size of the tiles with their surroundings, in voxels; None: one tile. `tick(done, of)` is called after
    each. The caller turns gradients off.
    """
    branches = (0,) if quality == FAST else (0, 1)
    unpadded = size_of(image)
    image = pad(image, 2 ** (len(network.vnets[0].encoder.levels) - 1))
    fine = fine_levels(network)
    step = 2**fine
    size = size_of(image)
    tile = tile or size
    tiles = list(_tiles(size, tile, reach(network), step))
    vnets = [network.vnets[branch] for branch in branches]
    of, done = 2 * len(tiles) * len(vnets), 0

    def count() -> None:
        nonlocal done
        done += 1
        if tick:
            tick(done, of)

    coarse: list[list[Tensor]] = []
    for vnet in vnets:
        entering: Tensor | None = None
        for outer, core, inner in tiles:
            part = vnet.encoder.downs[fine - 1](_fine_features(vnet, image[(slice(None), *outer)], fine)[-1])
            if entering is None:
                entering = part.new_zeros((1, part.shape[1], *(n // step for n in size)))
            entering[_everywhere(_coarser(core, step))] = part[_everywhere(_coarser(inner, step))]
            count()
        assert entering is not None
        coarse.append(_coarse_features(vnet, entering, fine))

    bottlenecks = [features[-1] for features in coarse]
    exchanged = network.exchange_at_inference(bottlenecks, branches)
    result: Tensor | None = None
    for index, (vnet, features) in enumerate(zip(vnets, coarse, strict=True)):
        decoded = _decode(vnet, exchanged[index], features[:-1][::-1], slice(None, len(features) - 1))
        for outer, core, inner in tiles:
            skips = _fine_features(vnet, image[(slice(None), *outer)], fine)[::-1]
            tile_decoded = decoded[_everywhere(_coarser(outer, step))]
            logits = vnet.head(_decode(vnet, tile_decoded, skips, slice(len(features) - 1, None)))
            shares = logits[0].float().softmax(dim=0)
            if result is None:
                result = shares.new_zeros((len(vnets), shares.shape[0], *size))
            result[(index, slice(None), *core)] = shares[(slice(None), *inner)]
            count()
        coarse[index] = []  # its memory serves the other branch
    assert result is not None
    return result[..., : unpadded[0], : unpadded[1], : unpadded[2]]


def _fine_features(vnet: VNet, image: Tensor, fine: int) -> list[Tensor]:
    """The encoder's features of the fine levels, finest first, for an image (C, X, Y, Z)."""
    features = [vnet.encoder.levels[0](image[None].contiguous(memory_format=torch.channels_last_3d))]
    for level in range(1, fine):
        features.append(vnet.encoder.levels[level](vnet.encoder.downs[level - 1](features[-1])))
    return features


def _coarse_features(vnet: VNet, entering: Tensor, fine: int) -> list[Tensor]:
    """The encoder's features of the other levels, finest first."""
    features = [vnet.encoder.levels[fine](entering)]
    for level in range(fine + 1, len(vnet.encoder.levels)):
        features.append(vnet.encoder.levels[level](vnet.encoder.downs[level - 1](features[-1])))
    return features


def _decode(vnet: VNet, decoded: Tensor, skips: Sequence[Tensor], which: slice) -> Tensor:
    """Some of the decoder's levels, coarse to fine, each adding its skip."""
    ups, levels = list(vnet.decoder.ups)[which], list(vnet.decoder.levels)[which]
    for up, level, skip in zip(ups, levels, skips, strict=True):
        decoded = level(up(decoded) + skip)
    return decoded


def _tiles(size: Size, tile: Size, margin: int, step: int) -> Iterator[tuple[Box, Box, Box]]:
    """For each tile: the part to compute on, the part it yields, and where that lies in the first."""
    axes = []
    for length, edge in zip(size, tile, strict=True):
        core = length if edge >= length else max(step, (edge - 2 * margin) // step * step)
        parts = []
        for start in range(0, length, core):
            stop = min(length, start + core)
            low, high = max(0, start - margin), min(length, stop + margin)
            parts.append((slice(low, high), slice(start, stop), slice(start - low, stop - low)))
        axes.append(parts)
    for x, y, z in itertools.product(*axes):
        yield (x[0], y[0], z[0]), (x[1], y[1], z[1]), (x[2], y[2], z[2])


def _everywhere(box: Box) -> tuple[slice, ...]:
    """A part of (B, C, X, Y, Z), in all samples and channels."""
    return (slice(None), slice(None), *box)


def _coarser(box: Box, step: int) -> Box:
    """The same part on a grid `step` times coarser."""
    x, y, z = (slice(part.start // step, part.stop // step) for part in box)
    return x, y, z
