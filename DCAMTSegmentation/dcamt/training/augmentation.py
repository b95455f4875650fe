"""Random changes of training patches: turned, scaled, mirrored as they are cut; intensities after that, in batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recipe import Augmentation


def random_transform(settings: Augmentation, generator: torch.Generator) -> Tensor:
    """A random rotation, scaling and mirroring: (3, 3), from offsets in a patch to offsets in the scan, in mm."""

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


def in_voxels(matrix: Tensor, spacing: Sequence[float]) -> Tensor:
    """A transform of offsets in mm (3, 3) as one of offsets in voxels of the given spacing, in mm.

    Where voxels are longer one way than another, a rotation of voxels' numbers would shear what it turns.
    """
    sides = torch.tensor(spacing, dtype=matrix.dtype)
    return matrix * (sides / sides[:, None])


def change_intensities(
    images: Tensor, settings: Augmentation, spacing: Sequence[float], reach: float, generator: torch.Generator
) -> Tensor:
    """Blur, gamma, gain, offset and noise, drawn for each sample of (B, C, X, Y, Z), values within [-reach, reach].

    `spacing`: the voxels' size in mm. Gamma, gain and offset are drawn for each channel, too; gamma takes -reach to 0
    and reach to 1.
    """

    def uniform(limit: float) -> Tensor:
        shape = (*images.shape[:2], 1, 1, 1)
        return (2 * torch.rand(shape, generator=generator, device=images.device) - 1) * limit

    if settings.blur_mm > 0:
        widths = torch.rand(len(images), generator=generator, device=images.device) * settings.blur_mm
        images = gaussian_blur(images, widths, spacing, reach_mm=3 * settings.blur_mm)
    if settings.gamma > 0:
        share = ((images + reach) / (2 * reach)).clamp(0, 1)
        images = share.pow(torch.exp(uniform(settings.gamma))) * (2 * reach) - reach
    if settings.gain > 0:
        images = images * torch.exp(uniform(settings.gain))
    if settings.offset > 0:
        images = images + uniform(settings.offset)
    if settings.noise > 0:
        strength = torch.rand((len(images), 1, 1, 1, 1), generator=generator, device=images.device) * settings.noise
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        images = images + noise * strength
    return images


def gaussian_blur(images: Tensor, widths: Tensor, spacing: Sequence[float], reach_mm: float) -> Tensor:
    """Each sample of (B, C, X, Y, Z) under a Gaussian of standard deviation `widths` (B,) in mm, cut off at `reach_mm`.

    `spacing`: the voxels' size in mm. Beyond the border the nearest voxel counts.
    """
    batch, channels = images.shape[:2]
    for axis, step in enumerate(spacing):
        reach = max(1, math.ceil(reach_mm / step))
        distance = torch.arange(-reach, reach + 1, device=images.device) * step
        kernel = torch.exp(-0.5 * (distance / widths.clamp_min(1e-3)[:, None]) ** 2)
        kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
        lines = images.movedim(2 + axis, -1)
        shape = lines.shape
        # One convolution for all samples: they are the groups.
        lines = lines.reshape(batch * channels, -1, shape[-1]).movedim(0, 1)
        padded = F.pad(lines, (reach, reach), mode="replicate")
        blurred = F.conv1d(padded, kernel[:, None], groups=batch * channels)
        images = blurred.movedim(1, 0).reshape(shape).movedim(-1, 2 + axis)
    return images
