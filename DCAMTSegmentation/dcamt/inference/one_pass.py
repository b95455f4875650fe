"""Probabilities over a whole volume in one pass; `tiles.py` gives the same in less memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks.dual_vnet import DualVNet
from ..recipe import FAST

Size = tuple[int, int, int]
Tick = Callable[[int, int], None]


def probabilities(network: DualVNet, image: Tensor, quality: str) -> Tensor:
    """Each branch's probabilities (branches, K, X, Y, Z) for an image (C, X, Y, Z); one branch if `quality` is fast.

    The caller turns gradients off.
    """
    size = size_of(image)
    padded = pad(image, int(2 ** (len(network.vnets[0].encoder.levels) - 1)))
    batch = padded[None].contiguous(memory_format=torch.channels_last_3d)
    logits = [network.forward_one(batch)] if quality == FAST else [output.logits for output in network(batch)]
    return torch.cat(logits).float().softmax(dim=1)[..., : size[0], : size[1], : size[2]]


def part_that_fits(size: Sequence[int], stride: int, fits: Callable[[Size], bool]) -> Size | None:
    """The largest part of a volume that fits, made by shortening its longest axis again and again.

    None if the whole volume fits. A part is never shorter than four strides, or the volume: below that, nearly all of
    a pass would go to the tile's surroundings.
    """
    padded = [-(-n // stride) * stride for n in size]
    part = list(padded)
    while not fits((part[0], part[1], part[2])):
        axis = max(range(3), key=lambda a: part[a])
        if part[axis] <= 4 * stride:
            break
        part[axis] -= stride
    return None if part == padded else (part[0], part[1], part[2])


def pad(image: Tensor, stride: int) -> Tensor:
    """(C, X, Y, Z) with X, Y, Z raised to multiples of the stride; the last voxel is repeated."""
    sides: list[int] = []
    for length in reversed(size_of(image)):
        sides += [0, -length % stride]
    return F.pad(image[None], sides, mode="replicate")[0]


def size_of(image: Tensor) -> Size:
    return image.shape[-3], image.shape[-2], image.shape[-1]
