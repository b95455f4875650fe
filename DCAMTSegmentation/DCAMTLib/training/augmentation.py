"""Random changes of training patches: turned, scaled, mirrored as they are cut; intensities after that, in batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..recipe import Augmentation


def random_transform(settings: Augmentation, generator: torch.Generator) -> Tensor:
    """A random rotation, scaling and mirroring: (3, 3), from offsets in a patch to offsets in the scan, in voxels."""

    def normal(limit: float) -> float:
        return float(torch.randn((), generator=generator).div(3).clamp(-1, 1)) * limit

    matrix = torch.eye(3, dtype=torch.float64)
    for first, second in ((1, 2), (0, 2), (0, 1)):
        angle = math.radians(normal(settings.rotation_degrees))
        turn = torch.eye(3, dtype=torch.float64)
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    matrix = matrix * math.exp(normal(math.log1p(settings.scale)))
    mirrored = torch.rand(3, generator=generator) < 0.5
    signs = [-1.0 if flip and allowed else 1.0 for flip, allowed in zip(mirrored, settings.flip, strict=True)]
    return matrix * torch.tensor(signs, dtype=torch.float64)


def change_intensities(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Gamma, gain, offset and noise, drawn for each sample and channel of (B, C, X, Y, Z), values about in [-4, 4]."""

    def uniform(limit: float) -> Tensor:
        shape = (*images.shape[:2], 1, 1, 1)
        return (2 * torch.rand(shape, generator=generator, device=images.device) - 1) * limit

    if settings.gamma > 0:
        images = ((images + 4) / 8).clamp(0, 1).pow(torch.exp(uniform(settings.gamma))) * 8 - 4
    if settings.gain > 0:
        images = images * torch.exp(uniform(settings.gain))
    if settings.offset > 0:
        images = images + uniform(settings.offset)
    if settings.noise > 0:
        strength = torch.rand((len(images), 1, 1, 1, 1), generator=generator, device=images.device) * settings.noise
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        images = images + noise * strength
    return images
