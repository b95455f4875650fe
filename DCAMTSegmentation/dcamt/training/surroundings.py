"""What may lie around a scan that was cropped: patches that end within themselves, in air, in noise, or in a mirror.

Scans that were cropped around an organ show a network nothing else. Where such a scan is padded, or a larger one is
looked through for the organ, what lies beyond would be new to it and disturb it far into the tissue.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..devices import hand_over

DEEPEST = 1 / 2
"""How much of a patch may lie beyond the tissue, as a share of its edge."""
KINDS = ("air", "noise", "mirror")


def surround(image: Tensor, label: Tensor, probability: float, choices: torch.Generator) -> tuple[Tensor, Tensor]:
    """Replace, with a `probability`, what lies beyond a plane across one axis: image (C, X, Y, Z), label (X, Y, Z).

    Air is the darkest of each channel; noise has each channel's own mean and deviation, but stays within its range; a
    mirror repeats the tissue back to front. Beyond the plane there is nothing to find, label 0: not in a mirror either,
    for nobody's organs lie the wrong way round. (What teaches unlabelled patches is told nothing of the plane, and
    finds there what it finds.) `choices` is a CPU generator.
    """
    # Nothing is drawn where it is turned off, so that all else is drawn as without it.
    if probability == 0 or float(torch.rand((), generator=choices)) >= probability:
        return image, label
    axis = int(torch.randint(3, (), generator=choices))
    length = label.shape[axis]
    # A voxel at least, and never so deep that a mirror would have to show what lies beyond the other face.
    depth = min(math.ceil(float(torch.rand((), generator=choices)) * DEEPEST * length), length // 2)
    at_the_end = bool(torch.rand((), generator=choices) < 0.5)
    kind = KINDS[int(torch.randint(len(KINDS), (), generator=choices))]
    if depth == 0:
        return image, label
    index = torch.arange(length, device=image.device)
    edge = length - depth
    beyond = index >= edge if at_the_end else index < depth
    across = [1, 1, 1]
    across[axis] = length
    inside = label.masked_fill(beyond.reshape(across), 0)
    if kind == "mirror":
        # The face between two voxels is the mirror: the first beyond it shows the last before it.
        source = torch.where(beyond, 2 * edge - 1 - index if at_the_end else 2 * depth - 1 - index, index)
        return image.index_select(1 + axis, source), inside
    lowest = image.amin(dim=(1, 2, 3), keepdim=True)
    if kind == "air":
        filling = lowest
    else:
        noise = hand_over(torch.randn(image.shape, generator=choices), image.device)
        deviation, mean = torch.std_mean(image, dim=(1, 2, 3), keepdim=True)
        filling = (mean + deviation * noise).clamp(lowest, image.amax(dim=(1, 2, 3), keepdim=True))
    return torch.where(beyond.reshape(across), filling, image), inside
