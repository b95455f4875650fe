"""Augment training patches at random.

A training step uses, in this order: `random_transform` (rotation, scale and mirroring, applied when the patch is
sampled), `replace_surroundings` (air, noise or a mirror image beyond a plane), `add_artefact` (stripes or a bright
spot), `change_intensities` (gamma, gain, offset, noise) and `cut_mix` (boxes exchanged between patches).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..devices import to_device
from ..preprocessing import intensity_reach, normalise
from ..recipe import Augmentation, Intensity

MIXED_FRACTION = 2 / 3
"""Edge of the box that `cut_mix` exchanges, as a fraction of the patch's edge (Bai et al., BCP, CVPR 2023)."""
DEEPEST = 1 / 2
"""Largest depth that `replace_surroundings` replaces, as a fraction of the patch's edge."""
SURROUNDINGS = ("air", "noise", "mirror")
WAVELENGTH_MM = (4.0, 32.0)
"""Distance between stripes of `add_artefact`."""
STRIPE_HEIGHT = (0.3, 2.5)
"""Amplitude of the stripes, in standard deviations of the patch."""
SPOT_RADIUS_MM = (2.0, 12.0)
"""Radius of the spot of `add_artefact`."""
SPOT_HEIGHT = (5.0, 60.0)
"""Amplitude of the spot, in standard deviations of the patch."""
SPOT_EDGE_MM = 1.5
"""Width of the spot's edge.

The spot adds 50% of its height at the radius, 27% at `SPOT_EDGE_MM` outside the radius, and 73% at `SPOT_EDGE_MM`
inside the radius.
"""


def random_transform(settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Return a random rotation, scaling and mirroring as a matrix (3, 3), float64.

    The matrix maps offsets in the patch to offsets in the scan, both in mm. The scale is the same along all axes. Each
    angle and the logarithm of the scale are drawn from a normal distribution and clipped at plus or minus a limit. The
    standard deviation is a third of the limit. The limit of an angle is the recipe's `rotation_degrees`. The limit of
    the logarithm is log(1 + `scale`), with the recipe's `scale`.
    """

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


def mm_to_voxels(matrix: Tensor, spacing: Sequence[float]) -> Tensor:
    """Convert a transform (3, 3) of offsets in mm to a transform of offsets in voxels of `spacing` (mm).

    Rotating offsets in voxels directly would shear the anatomy if the axes' spacings differ.
    """
    sides = torch.tensor(spacing, dtype=matrix.dtype)
    return matrix * (sides / sides[:, None])


def change_intensities(images: Tensor, settings: Augmentation, reach: float, generator: torch.Generator) -> Tensor:
    """Return images (B, C, X, Y, Z) with random gamma, gain, offset and noise, in this order.

    Gamma, gain and offset are drawn for each channel of each sample, the noise's strength for each sample.

    Args:
        reach: intensities lie within [-reach, reach], which is scaled to [0, 1] for gamma.
    """

    def uniform(limit: float) -> Tensor:
        shape = (*images.shape[:2], 1, 1, 1)
        return (2 * torch.rand(shape, generator=generator, device=images.device) - 1) * limit

    if settings.gamma > 0:
        fraction = ((images + reach) / (2 * reach)).clamp(0, 1)
        images = fraction.pow(torch.exp(uniform(settings.gamma))) * (2 * reach) - reach
    if settings.gain > 0:
        images = images * torch.exp(uniform(settings.gain))
    if settings.offset > 0:
        images = images + uniform(settings.offset)
    if settings.noise > 0:
        strength = torch.rand((len(images), 1, 1, 1, 1), generator=generator, device=images.device) * settings.noise
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        images = images + noise * strength
    return images


def replace_surroundings(
    image: Tensor, label: Tensor, probability: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Replace the part beyond a random plane with air, noise or a mirror image, as if the scan were cropped and padded.

    Air is the lowest intensity of each channel. Noise is drawn with each channel's mean and standard deviation, and
    clipped to the channel's lowest and highest intensity. Labels beyond the plane become 0, so an organ's copy in a
    mirror image counts as background. Without this augmentation, networks trained on scans cropped around an organ make
    errors near the padded border of other scans (Testing/benchmarks/README.md, "Whole scans").

    Args:
        image: (C, X, Y, Z).
        label: (X, Y, Z).
        generator: on the CPU.
    """
    # If `probability` is 0, draw no random number. A draw would change the numbers that other augmentations get.
    if probability == 0 or float(torch.rand((), generator=generator)) >= probability:
        return image, label
    axis = int(torch.randint(3, (), generator=generator))
    length = label.shape[axis]
    # A mirror image deeper than half the patch would need voxels outside the patch.
    depth = min(math.ceil(float(torch.rand((), generator=generator)) * DEEPEST * length), length // 2)
    at_the_end = bool(torch.rand((), generator=generator) < 0.5)
    kind = SURROUNDINGS[int(torch.randint(len(SURROUNDINGS), (), generator=generator))]
    if depth == 0:
        return image, label
    index = torch.arange(length, device=image.device)
    edge = length - depth
    beyond = index >= edge if at_the_end else index < depth
    across = [1, 1, 1]
    across[axis] = length
    inside = label.masked_fill(beyond.reshape(across), 0)
    if kind == "mirror":
        # The mirror lies between two voxels: the first voxel beyond the plane equals the last voxel before it.
        source = torch.where(beyond, 2 * edge - 1 - index if at_the_end else 2 * depth - 1 - index, index)
        return image.index_select(1 + axis, source), inside
    lowest = image.amin(dim=(1, 2, 3), keepdim=True)
    if kind == "air":
        filling = lowest
    else:
        noise = to_device(torch.randn(image.shape, generator=generator), image.device)
        deviation, mean = torch.std_mean(image, dim=(1, 2, 3), keepdim=True)
        filling = (mean + deviation * noise).clamp(lowest, image.amax(dim=(1, 2, 3), keepdim=True))
    return torch.where(beyond.reshape(across), filling, image), inside


def add_artefact(
    image: Tensor, probability: float, rule: Intensity, spacing: Sequence[float], generator: torch.Generator
) -> Tensor:
    """Add stripes (as from a spike in k-space) or a bright spot to a patch (C, X, Y, Z).

    Stripes and spot are equally frequent. Each channel gets the same artefact, times the channel's standard deviation.
    A patch with an artefact is then normalised again. If the rule is `clip`, the patch is clamped to plus or minus the
    rule's `intensity_reach` instead.

    Args:
        rule: the recipe's normalisation.
        spacing: in mm.
        generator: on the CPU.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    # If `probability` is 0, draw no random number. A draw would change the numbers that other augmentations get.
    if probability == 0 or uniform(0, 1) >= probability:
        return image
    axes = [torch.arange(n, device=image.device) * step for n, step in zip(image.shape[1:], spacing, strict=True)]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    if uniform(0, 1) < 0.5:
        direction = torch.randn(3, generator=generator)
        wave = direction / direction.norm() / uniform(*WAVELENGTH_MM)
        phase = (position * to_device(wave, image.device)[:, None, None, None]).sum(dim=0) + uniform(0, 1)
        artefact = uniform(*STRIPE_HEIGHT) * torch.cos(2 * math.pi * phase)
    else:
        centre = torch.tensor([uniform(0, (n - 1) * step) for n, step in zip(image.shape[1:], spacing, strict=True)])
        distance = (position - to_device(centre, image.device)[:, None, None, None]).norm(dim=0)
        artefact = uniform(*SPOT_HEIGHT) * torch.sigmoid((uniform(*SPOT_RADIUS_MM) - distance) / SPOT_EDGE_MM)
    disturbed = image + artefact * image.std(dim=(1, 2, 3), keepdim=True)
    if rule.rule == "clip":
        reach = intensity_reach(rule)
        return disturbed.clamp(-reach, reach)
    # Apple's GPUs lack double precision.
    return normalise(disturbed, rule, spacing, precision=torch.float32)


def random_box(size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return a random box in a patch of `size` as a mask (X, Y, Z)."""
    inside = torch.zeros(tuple(size), dtype=torch.bool)
    sides = [max(1, round(MIXED_FRACTION * length)) for length in size]
    starts = [
        int(torch.randint(length - side + 1, (), generator=generator)) for length, side in zip(size, sides, strict=True)
    ]
    inside[tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))] = True
    return inside


def cut_mix(patches: Tensor, box: Tensor) -> Tensor:
    """Return patches (N, ..., X, Y, Z) with the next patch's values where the mask `box` (X, Y, Z) is True.

    The last patch gets values of the first. Sources: Yun et al., CutMix, ICCV 2019; French et al., BMVC 2020.
    """
    return torch.where(box, patches.roll(-1, dims=0), patches)
