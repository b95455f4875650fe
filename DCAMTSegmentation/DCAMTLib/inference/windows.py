"""Probabilities over a whole volume: in one pass, or window by window, blended smoothly.

Windows serve every network, but what lies at their faces is seen with padding in place of the heart; where the network
allows, `tiles.py` gives the result of one pass in as little memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks.dual_vnet import DualVNet

FAST, ACCURATE = "fast", "accurate"
QUALITIES = (FAST, ACCURATE)
"""`fast`: one branch, attending to itself. `accurate`: both, attending to one another."""

Size = tuple[int, int, int]
Tick = Callable[[int, int], None]


def probabilities(
    network: DualVNet, image: Tensor, quality: str, window: Size | None = None, tick: Tick | None = None
) -> Tensor:
    """Each branch's probabilities (branches, K, X, Y, Z) for an image (C, X, Y, Z); one branch if `quality` is fast.

    `window` is the largest part that one pass may take, in voxels, multiples of the network's stride; None: all.
    `tick(done, of)` is called after each pass. The caller turns gradients off.
    """
    stride = int(2 ** (len(network.vnets[0].encoder.levels) - 1))
    size = size_of(image)
    padded = pad(image, stride)
    whole = size_of(padded)
    parts = list(_parts(whole, window, stride)) if window else [tuple(slice(0, n) for n in whole)]
    if len(parts) == 1:
        result = _one_pass(network, padded, quality)
        if tick:
            tick(1, 1)
    else:
        result = _blend(network, padded, quality, parts, stride, tick)
    return result[..., : size[0], : size[1], : size[2]]


def window_size(size: Sequence[int], stride: int, fits: Callable[[Size], bool]) -> Size | None:
    """The largest window that fits, made by shortening the longest axis of the volume again and again.

    None if the whole volume fits. A window is never shorter than four strides, or the volume: below that, too little
    of it would be far enough from its faces.
    """
    padded = [-(-n // stride) * stride for n in size]
    window = list(padded)
    while not fits((window[0], window[1], window[2])):
        axis = max(range(3), key=lambda a: window[a])
        if window[axis] <= 4 * stride:
            break
        window[axis] -= stride
    return None if window == padded else (window[0], window[1], window[2])


def _one_pass(network: DualVNet, image: Tensor, quality: str) -> Tensor:
    batch = image[None].contiguous(memory_format=torch.channels_last_3d)
    logits = [network.forward_one(batch)] if quality == FAST else [output.logits for output in network(batch)]
    return torch.cat(logits).float().softmax(dim=1)


def _blend(
    network: DualVNet,
    image: Tensor,
    quality: str,
    parts: list[tuple[slice, ...]],
    stride: int,
    tick: Tick | None,
) -> Tensor:
    total: Tensor | None = None
    weights = torch.zeros(size_of(image), device=image.device)
    for done, part in enumerate(parts, start=1):
        result = _one_pass(network, image[(slice(None), *part)], quality)
        weight = _weight(part, size_of(image), stride, image.device)
        if total is None:
            total = torch.zeros((*result.shape[:2], *size_of(image)), device=image.device)
        total[(slice(None), slice(None), *part)] += result * weight
        weights[part] += weight
        if tick:
            tick(done, len(parts))
    assert total is not None
    return total.div_(weights)


def _parts(size: Size, window: Size, stride: int) -> Iterator[tuple[slice, ...]]:
    """Windows that cover the volume, overlapping by at least two strides, half a window at the most.

    They start at multiples of the stride, so that every voxel falls into the same place of the network's coarser
    grids as in one pass over the whole.
    """
    axes = []
    for length, edge in zip(size, window, strict=True):
        edge = min(edge, length)
        step = max(stride, edge - max(2 * stride, edge // 2 // stride * stride))
        count = -(-(length - edge) // step) + 1
        # Spread evenly, then moved onto the stride's multiples; the last one ends with the volume.
        starts = [
            min(length - edge, -(-i * (length - edge) // max(1, count - 1) // stride) * stride) for i in range(count)
        ]
        axes.append([slice(start, start + edge) for start in starts])
    yield from itertools.product(*axes)


def _weight(part: tuple[slice, ...], size: Size, stride: int, device: torch.device) -> Tensor:
    """Weight of each voxel of a window: falls smoothly to almost nothing at faces that lie inside the volume."""
    weight = torch.ones((1, 1, 1), device=device)
    for axis, (place, length) in enumerate(zip(part, size, strict=True)):
        edge = place.stop - place.start
        position = torch.arange(edge, device=device) + 0.5
        inside = torch.full((edge,), float("inf"), device=device)
        if place.start > 0:
            inside = torch.minimum(inside, position)
        if place.stop < length:
            inside = torch.minimum(inside, edge - position)
        # Next to nothing over the first half stride, where padding was felt most, then rising over one stride. It is
        # never zero, so that windows which barely overlap still cover every voxel.
        rise = ((inside - stride / 2) / stride).clamp(0, 1)
        ramp = (rise * rise * (3 - 2 * rise)).clamp_min(1e-6)
        weight = weight * ramp.reshape([-1 if dim == axis else 1 for dim in range(3)])
    return weight


def pad(image: Tensor, stride: int) -> Tensor:
    """(C, X, Y, Z) with X, Y, Z raised to multiples of the stride; the last voxel is repeated."""
    sides: list[int] = []
    for length in reversed(size_of(image)):
        sides += [0, -length % stride]
    return F.pad(image[None], sides, mode="replicate")[0]


def size_of(image: Tensor) -> Size:
    return image.shape[-3], image.shape[-2], image.shape[-1]
