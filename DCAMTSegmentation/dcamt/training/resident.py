"""Cases as training holds them: on the network's grid, 8 bits a voxel, on the device that trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..cases.case_list import Case
from ..cases.labels import read_outline
from ..errors import InputError
from ..inference.postprocessing import connected_components
from ..io.readers import read_scan
from ..preprocessing import intensity_reach, labels_to_network, scan_to_network
from ..recipe import Intensity, Recipe
from ..volume import Labelmap

PLACES_PER_CLASS = 4096
SIZEABLE = 4
"""Voxels of the network's grid whose volume a piece of a class must have to be more than some stray voxels."""


@dataclass(frozen=True)
class ResidentCase:
    """image: uint8 (C, X, Y, Z). label: uint8 (X, Y, Z) or None.

    places: for each class that the label holds, some of its voxels (N, 3), where patches may be centred.
    """

    name: str
    image: Tensor
    label: Tensor | None
    places: tuple[Tensor, ...]


def quantum(rule: Intensity) -> tuple[float, float]:
    """(scale, offset): an 8-bit value v stands for the intensity v * scale + offset."""
    reach = intensity_reach(rule)
    return 2 * reach / 255, -reach


def load_case(case: Case, recipe: Recipe, device: torch.device) -> ResidentCase:
    """Read a case, bring it to the network's grid, and keep it in 8 bits.

    Raises:
        InputError: a file cannot be used, the label lies on another grid, is empty, has a class that the recipe has
            not, or one that is too thin for the network's grid.
    """
    volume = read_scan(case.image, channels=recipe.input_channels)
    image, _ = scan_to_network(volume, recipe)
    scale, offset = quantum(recipe.intensity)
    compact = ((image - offset) / scale).round().clamp(0, 255).to(torch.uint8)
    label: Tensor | None = None
    places: tuple[Tensor, ...] = ()
    if case.label is not None:
        labelmap = read_outline(case.label, recipe)
        if not labelmap.grid.matches(volume.grid):
            raise InputError(f"lies on another grid than {case.image}", path=case.label, remedy="Export it again.")
        highest = int(labelmap.voxels.max())
        if highest == 0:
            raise InputError("is empty: no voxel is labelled", path=case.label)
        if highest >= recipe.outputs:
            known = f"the recipe '{recipe.name}' knows 1 to {recipe.outputs - 1}"
            remedy = "Number the structures 1, 2, 3, … as the recipe does."
            raise InputError(f"has the label {highest}, but {known}", path=case.label, remedy=remedy)
        label = labels_to_network(labelmap, recipe)
        _check_that_none_vanished(labelmap, label, recipe, case.label)
        places = tuple(_places(label == value) for value in range(1, recipe.outputs) if (label == value).any())
        label = label.to(device)
    return ResidentCase(case.name, compact.to(device), label, places)


def _check_that_none_vanished(labelmap: Labelmap, label: Tensor, recipe: Recipe, path: Path) -> None:
    """Raise InputError for a class of which a piece of some size fills the most of no voxel of the network's grid."""
    voxel_mm3 = labelmap.grid.voxel_volume_mm3
    for info in recipe.classes:
        if (label == info.label).any():
            continue
        components, number = connected_components(labelmap.voxels == info.label)
        largest = np.bincount(components.ravel())[1:].max() * voxel_mm3 if number else 0.0
        if largest >= SIZEABLE * math.prod(recipe.spacing):
            spacing = " x ".join(f"{mm:g}" for mm in recipe.spacing)
            what = f"its '{info.name}' ({largest / 1000:.2g} mL) is too thin for the recipe's grid of {spacing} mm"
            raise InputError(what, path=path, remedy="Nothing of it is left there. Give the recipe a finer spacing.")


def _places(mask: Tensor) -> Tensor:
    """Voxels of a mask, spread evenly over it, fewer than twice `PLACES_PER_CLASS`: int64 (N, 3), on the CPU."""
    voxels = mask.nonzero()
    step = max(1, len(voxels) // PLACES_PER_CLASS)
    return voxels[::step].cpu()
