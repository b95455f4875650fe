"""Plan the levels of a network and the size of its patch for scans of a given size and spacing.

The rules follow nnU-Net (Isensee et al., Nature Methods 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..recipe import Network, Stride

CHANNELS = (16, 32, 64, 128, 128)
"""Feature channels of each level, as in the shipped model; a network of fewer levels uses the first numbers."""
CONVOLUTIONS = (1, 2, 3, 3, 3)
"""Convolutions of each level."""
SMALLEST_MAP = 4
"""An axis is downsampled only if at least this many voxels remain (for an exception, see `plan_strides`)."""
BYTES_PER_FEATURE = 32 * 4
"""Bytes of a whole training step, per voxel and channel of the finest level, if all strides are 2.

Four patches of 64 x 64 x 32 with 16 channels need 1.4 GB, and 2.0 GB without mixed precision
(Testing/benchmarks/README.md, training speed). The estimate for these patches is 1.6 GB: `FIXED_BYTES`, plus 32
float32 numbers for each voxel and channel.
"""
FIXED_BYTES = 500 << 20
"""Bytes of a training step that do not depend on the patch."""
MEMORY_FRACTION = 0.5
"""Fraction of the free memory that the training step of a suggested recipe may need."""
LARGEST_PATCH = 112 * 112 * 80
"""The largest number of voxels of a suggested patch; the patch of the published left atrium results has this many."""


def plan_network(
    spacing: Sequence[float], shape: Sequence[int], batch: int, memory_bytes: int
) -> tuple[Network, tuple[int, int, int]]:
    """Return a network and a patch for scans of `shape` voxels; if possible, a training step fits into the memory.

    The patch starts as the whole scan. Step by step, it is shortened along its longest axis in mm, until one of these
    conditions holds:
    - The training step fits into `MEMORY_FRACTION` of the memory, and the patch has at most `LARGEST_PATCH` voxels.
    - No axis can become shorter. The smallest size of an axis, in voxels, is `SMALLEST_MAP` or the network's stride
      along the axis (the product of the strides of all levels), whichever is larger.
    """
    patch = [float(n) for n in shape]
    while True:
        strides = plan_strides(spacing, patch)
        stride = [math.prod(steps) for steps in zip((1, 1, 1), *strides, strict=True)]
        fitted = tuple(max(s, round(n / s) * s) for n, s in zip(patch, stride, strict=True))
        needed = FIXED_BYTES + batch * math.prod(fitted) * CHANNELS[0] * BYTES_PER_FEATURE * _relative_features(strides)
        is_smallest = all(n <= max(s, SMALLEST_MAP) for n, s in zip(fitted, stride, strict=True))
        if (needed <= MEMORY_FRACTION * memory_bytes and math.prod(fitted) <= LARGEST_PATCH) or is_smallest:
            break
        axis = max(range(3), key=lambda a: patch[a] * spacing[a] if patch[a] > SMALLEST_MAP else 0.0)
        patch[axis] *= 0.9
    levels = len(strides) + 1
    network = Network(channels=CHANNELS[:levels], convolutions=CONVOLUTIONS[:levels], strides=strides)
    return network, (fitted[0], fitted[1], fitted[2])


def plan_strides(spacing: Sequence[float], patch: Sequence[float]) -> tuple[Stride, ...]:
    """Return the strides from each level to the next; there are 2 to 5 levels.

    These two steps determine which axes are halved from each level to the next:

    1. Select the axes along which at least `SMALLEST_MAP` voxels remain after halving.
    2. Of the selected axes, halve those whose spacing at the level is below twice the finest spacing of the selected
       axes.

    A level at which step 1 selects no axis is the last level. If the first level is such a level, a second level is
    added, with the strides 2, 2, 1.
    """
    steps, sizes = list(map(float, spacing)), list(map(float, patch))
    strides: list[Stride] = []
    while len(strides) < len(CHANNELS) - 1:
        possible = [axis for axis in range(3) if sizes[axis] >= 2 * SMALLEST_MAP]
        if not possible:
            break
        shortest = min(steps[axis] for axis in possible)
        halved = [axis for axis in possible if steps[axis] < 2 * shortest]
        x, y, z = (2 if axis in halved else 1 for axis in range(3))
        strides.append((x, y, z))
        for axis in halved:
            steps[axis], sizes[axis] = 2 * steps[axis], sizes[axis] / 2
    return tuple(strides) or ((2, 2, 1),)


def _relative_features(strides: Sequence[Stride]) -> float:
    """Return the number of features (channels x voxels) of all levels, relative to a network with strides of 2."""

    def features(each: Sequence[Stride]) -> float:
        total, voxels = 0.0, 1.0
        for channels, step in zip(CHANNELS, ((1, 1, 1), *each), strict=False):
            voxels /= math.prod(step)
            total += channels * voxels
        return total

    return features(strides) / features(((2, 2, 2),) * len(strides))
