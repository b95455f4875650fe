"""Hold cases in memory for training: on the network's grid, 8 bits a voxel, on the training device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..cases.case_list import Case
from ..cases.labels import check_label, read_case_label, refuse_thin_classes
from ..geometry import NetworkGrid
from ..io.readers import read_scan
from ..preprocessing import intensity_reach, labels_to_network, scan_to_network
from ..recipe import Intensity, Recipe

VOXELS_PER_CLASS = 4096
"""Voxels of a class that are kept as possible patch centres, at least, if the class has so many."""


@dataclass(frozen=True)
class ResidentCase:
    """A case on the network's grid.

    image: uint8 (C, X, Y, Z), see `uint8_scale_offset`. label: uint8 (X, Y, Z); None for an unlabelled case.
    voxels: for each class in the label, some of its voxels, int64 (N, 3), on which patches may be centred.
    grid: the network's grid of the scan; None for a synthetic case.
    """

    name: str
    image: Tensor
    label: Tensor | None
    voxels: tuple[Tensor, ...]
    grid: NetworkGrid | None = None

    def intensities(self, rule: Intensity) -> Tensor:
        """Return the image as the network takes it, float32 (C, X, Y, Z)."""
        scale, offset = uint8_scale_offset(rule)
        return self.image.float() * scale + offset


def uint8_scale_offset(rule: Intensity) -> tuple[float, float]:
    """Return (scale, offset): an 8-bit value v stands for the intensity v * scale + offset."""
    reach = intensity_reach(rule)
    return 2 * reach / 255, -reach


def load_case(case: Case, recipe: Recipe, device: torch.device) -> ResidentCase:
    """Read a case, resample it to the network's grid, and store it in 8 bits.

    Raises:
        InputError: a file cannot be read; or the label lies on another grid, is empty, has a class that the recipe
            lacks, or a structure too thin for the network's grid.
    """
    volume = read_scan(case.image, channels=recipe.input_channels)
    image, grid = scan_to_network(volume, recipe)
    scale, offset = uint8_scale_offset(recipe.intensity)
    image_8bit = ((image - offset) / scale).round().clamp(0, 255).to(torch.uint8)
    label: Tensor | None = None
    voxels: tuple[Tensor, ...] = ()
    if case.label is not None:
        labelmap = read_case_label(case, recipe, volume.grid)
        check_label(case, labelmap, recipe)
        label = labels_to_network(labelmap, grid, recipe.output_channels)
        refuse_thin_classes(labelmap, set(np.unique(label.numpy()).tolist()), recipe, case.label)
        voxels = tuple(
            _sample_voxels(label == value) for value in range(1, recipe.output_channels) if (label == value).any()
        )
        label = label.to(device)
    return ResidentCase(case.name, image_8bit.to(device), label, voxels, grid)


def _sample_voxels(mask: Tensor) -> Tensor:
    """Return voxels of a mask, spread evenly over it, fewer than twice `VOXELS_PER_CLASS`: int64 (N, 3), on the CPU."""
    voxels = mask.nonzero()
    step = max(1, len(voxels) // VOXELS_PER_CLASS)
    return voxels[::step].cpu()
