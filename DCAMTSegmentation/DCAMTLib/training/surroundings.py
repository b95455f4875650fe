"""What may lie around a scan that was cropped: patches that end within themselves, in air, in noise, or in a mirror.

Scans that were cropped around an organ show a network nothing else. Where such a scan is padded, or a larger one is
looked through for the organ, what lies beyond would be new to it and disturb it far into the tissue.
"""

from __future__ import annotations

import torch
from torch import Tensor

DEEPEST = 1 / 3
"""How much of a patch may lie beyond the tissue, as a share of its edge."""
KINDS = ("air", "noise", "mirror")


def surround(image: Tensor, label: Tensor, probability: float, choices: torch.Generator) -> tuple[Tensor, Tensor]:
    """Replace, with a `probability`, what lies beyond a plane across one axis: image (C, X, Y, Z), label (X, Y, Z).

    Air is the darkest of each channel; noise has each channel's own mean and deviation; a mirror repeats the tissue,
    and its label, back to front. In air and noise there is nothing to find: label 0. `choices` is a CPU generator.
    """
    # Nothing is drawn where it is turned off, so that all else is drawn as without it.
    if probability == 0 or float(torch.rand((), generator=choices)) >= probability:
        return image, label
    axis = int(torch.randint(3, (), generator=choices))
    length = label.shape[axis]
    depth = int(float(torch.rand((), generator=choices)) * DEEPEST * length)
    at_the_end = bool(torch.rand((), generator=choices) < 0.5)
    kind = KINDS[int(torch.randint(len(KINDS), (), generator=choices))]
    if depth == 0:
        return image, label
    index = torch.arange(length, device=image.device)
    edge = length - depth
    beyond = index >= edge if at_the_end else index < depth
    if kind == "mirror":
        # The face between two voxels is the mirror: the first beyond it shows the last before it.
        source = torch.where(beyond, 2 * edge - 1 - index if at_the_end else 2 * depth - 1 - index, index)
        return image.index_select(1 + axis, source), label.index_select(axis, source)
    across = [1, 1, 1]
    across[axis] = length
    beyond = beyond.reshape(across)
    if kind == "air":
        filling = image.amin(dim=(1, 2, 3), keepdim=True)
    else:
        noise = torch.randn(image.shape, generator=choices).to(image.device)
        deviation, mean = torch.std_mean(image, dim=(1, 2, 3), keepdim=True)
        filling = mean + deviation * noise
    return torch.where(beyond, filling, image), label.masked_fill(beyond, 0)
