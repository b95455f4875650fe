"""Instance normalisation in tiles: its statistics over the whole volume, taken before a tile is normalised by them.

For each layer in turn all tiles go through the network up to it, so that the result is that of one pass at several
times the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..geometry import Box
from .boxes import Tile, coarser


def instance_norms(layers: Sequence[nn.Module]) -> list[nn.InstanceNorm3d]:
    """Those within `layers`, in the order they are passed."""
    return [part for layer in layers for part in layer.modules() if isinstance(part, nn.InstanceNorm3d)]


class _ReachedError(Exception):
    """Ends a tile's way at the layer whose statistics are taken; what would follow is of no use yet."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


def take_statistics(
    norms: Sequence[nn.InstanceNorm3d], tiles: Sequence[Tile], way: Callable[[Box], Tensor], count: Callable[[], None]
) -> None:
    """Fix the mean and variance of each of `norms` to those over the whole volume.

    `way(outer)` takes a tile through the layers, `norms` in their order: each sweep needs those before it fixed.
    """

    def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise _ReachedError(inputs[0])

    for norm in norms:
        voxels, means, squares = 0, torch.zeros(()), torch.zeros(())
        handle = norm.register_forward_pre_hook(stop)
        try:
            for outer, _, inner in tiles:
                try:
                    way(outer)
                except _ReachedError as reached:
                    stride = (outer[0].stop - outer[0].start) // reached.features.shape[2]
                    part = reached.features[0][(slice(None), *coarser(inner, stride))].flatten(1)
                variance, mean = (x.cpu().double() for x in torch.var_mean(part.float(), dim=1, correction=0))
                voxels += part.shape[1]
                means, squares = means + part.shape[1] * mean, squares + part.shape[1] * (variance + mean * mean)
                count()
        finally:
            handle.remove()
        means = means / voxels
        norm.running_mean = means.to(norm.weight)
        norm.running_var = (squares / voxels - means * means).to(norm.weight)
        norm.track_running_stats = True


@contextmanager
def restored_afterwards(norms: Sequence[nn.InstanceNorm3d]) -> Iterator[None]:
    """Let each of `norms` take its statistics from its input again in the end."""
    try:
        yield
    finally:
        for norm in norms:
            norm.running_mean = norm.running_var = None
            norm.track_running_stats = False
