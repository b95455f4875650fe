"""One pass over a whole volume in little memory: the finest levels tile by tile, the rest at once.

Nearly all of a pass's memory goes to the two finest levels, and these look only a few voxels around. So their features
are computed tile by tile, with as much of the neighbourhood as they can see, and the coarser levels, where one voxel
looks far and the branches attend to one another, see the whole volume. The result is that of one pass, to rounding,
which overlapping windows cannot give: at their faces a deep network sees padding in place of the heart.

Batch normalisation at inference sees no voxel but its own; for instance normalisation see `instance_statistics.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..geometry import Box
from ..networks.dual_vnet import DualVNet
from ..networks.vnet import VNet, joined
from ..recipe import FAST
from .boxes import coarser, everywhere, tiles_of
from .instance_statistics import instance_norms, restored_afterwards, take_statistics
from .one_pass import Size, Tick, pad, probabilities, size_of

FINE_LEVELS = 2


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
    """As `one_pass.probabilities`, in one pass or, if `part` is given, in tiles of that size."""
    if part:
        return tiled_probabilities(network, image, quality, part, tick)
    result = probabilities(network, image, quality)
    if tick:
        tick(1, 1)
    return result


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
    tiles = list(tiles_of(size, tile, reach(network), step))
    vnets = [network.vnets[branch] for branch in branches]
    ways_down = [instance_norms(_fine_encoder(vnet, fine)) for vnet in vnets]
    ways_up = [instance_norms(_fine_decoder(vnet, fine)) for vnet in vnets]
    of, done = len(tiles) * (2 * len(vnets) + sum(map(len, ways_down + ways_up))), 0

    def count() -> None:
        nonlocal done
        done += 1
        if tick:
            tick(done, of)

    def enter(vnet: VNet, outer: Box) -> Tensor:
        """A tile's way through the encoder's fine levels to the first coarse one."""
        entered: Tensor = vnet.encoder.downs[fine - 1](_fine_features(vnet, image[(slice(None), *outer)], fine)[-1])
        return entered

    def leave(vnet: VNet, decoded: Tensor, outer: Box) -> Tensor:
        """A tile's logits, `decoded` being what the whole volume's coarse levels made."""
        skips = _fine_features(vnet, image[(slice(None), *outer)], fine)[::-1]
        fine_decoded = _decode(vnet, decoded[everywhere(coarser(outer, step))], skips, slice(-fine, None))
        logits: Tensor = vnet.head(fine_decoded)
        return logits

    result: Tensor | None = None
    with restored_afterwards([norm for norms in ways_down + ways_up for norm in norms]):
        coarse: list[list[Tensor]] = []
        for vnet, norms in zip(vnets, ways_down, strict=True):
            take_statistics(norms, tiles, partial(enter, vnet), count)
            entering: Tensor | None = None
            for outer, core, inner in tiles:
                part = enter(vnet, outer)
                if entering is None:
                    entering = part.new_zeros((1, part.shape[1], *(n // step for n in size)))
                entering[everywhere(coarser(core, step))] = part[everywhere(coarser(inner, step))]
                count()
            assert entering is not None
            coarse.append(_coarse_features(vnet, entering, fine))

        bottlenecks = [features[-1] for features in coarse]
        exchanged = network.exchange_at_inference(bottlenecks, branches)
        for index, (vnet, features, norms) in enumerate(zip(vnets, coarse, ways_up, strict=True)):
            decoded = _decode(vnet, exchanged[index], features[:-1][::-1], slice(None, -fine))
            take_statistics(norms, tiles, partial(leave, vnet, decoded), count)
            for outer, core, inner in tiles:
                shares = leave(vnet, decoded, outer)[0].float().softmax(dim=0)
                if result is None:
                    result = shares.new_zeros((len(vnets), shares.shape[0], *size))
                result[(index, slice(None), *core)] = shares[(slice(None), *inner)]
                count()
            coarse[index] = []  # its memory serves the other branch
    assert result is not None
    return result[..., : unpadded[0], : unpadded[1], : unpadded[2]]


def _fine_encoder(vnet: VNet, fine: int) -> list[nn.Module]:
    """The encoder's layers down to the first coarse level, in the order they are passed."""
    pairs = zip(list(vnet.encoder.levels)[:fine], list(vnet.encoder.downs)[:fine], strict=True)
    return [layer for pair in pairs for layer in pair]


def _fine_decoder(vnet: VNet, fine: int) -> list[nn.Module]:
    """The decoder's layers of the fine levels, in the order they are passed."""
    pairs = zip(list(vnet.decoder.ups)[-fine:], list(vnet.decoder.levels)[-fine:], strict=True)
    return [layer for pair in pairs for layer in pair]


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
        decoded = level(joined(up(decoded), skip))
    return decoded
