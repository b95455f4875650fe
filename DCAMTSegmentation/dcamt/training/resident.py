"""Keep cases in the training device's memory, on the network grid with 8 bits for each voxel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..cases.case_list import Case
from ..cases.case_scans import read_case_scan
from ..cases.checks import coverage_warning, scan_notes
from ..cases.labels import check_label, label_notes, read_case_label, refuse_thin_classes
from ..errors import MemoryShortage, memory_for_scan
from ..geometry import NetworkGrid
from ..preprocessing import intensity_reach, labels_to_network, scan_to_network
from ..recipe import Intensity, Recipe
from ..volume import ChannelNote, Volume

VOXELS_PER_CLASS = 4096
"""At least this many voxels of a class (or all, if there are fewer) are kept as possible centres of patches."""


@dataclass(frozen=True)
class ResidentCase:
    """A case on the network grid.

    Attributes:
        image: uint8 (C, X, Y, Z), see `uint8_scale_offset`.
        label: uint8 (X, Y, Z); None for an unlabelled case.
        voxels: for each class in the label, some of its voxels, int64 (N, 3), as possible centres of patches.
        grid: the scan's network grid; None for a synthetic case.
        values: the label's values before resampling, without background.
        scan: the scan's file; None for a synthetic case.
    """

    name: str
    image: Tensor
    label: Tensor | None
    voxels: tuple[Tensor, ...]
    grid: NetworkGrid | None = None
    values: tuple[int, ...] = ()
    scan: Path | None = None

    def intensities(self, rule: Intensity) -> Tensor:
        """Return the network's input, float32 (C, X, Y, Z)."""
        scale, offset = uint8_scale_offset(rule)
        return self.image.float() * scale + offset


def uint8_scale_offset(rule: Intensity) -> tuple[float, float]:
    """Return (scale, offset) such that an 8-bit value v means the intensity v * scale + offset."""
    reach = intensity_reach(rule)
    return 2 * reach / 255, -reach


def load_case(
    case: Case,
    recipe: Recipe,
    device: torch.device,
    on_note: Callable[[str], None] = lambda note: None,
    loaded: int = 0,
    on_scan: Callable[[Volume], None] = lambda volume: None,
) -> ResidentCase:
    """Read a case and return it on the network grid, in 8 bits, on the device.

    Args:
        on_note: called with each note on the scan (`scan_notes`) or on the label (`label_notes`, `coverage_warning`).
            The note begins with the path of the file or, for a `ChannelNote`, of the file's folder.
        loaded: the number of cases that are already in memory.
        on_scan: called with the scan as soon as the scan is read. Exceptions of `on_scan` are passed on, but a lack of
            memory becomes MemoryShortage.

    Raises:
        InputError: a file cannot be read, or the label lies on a different grid, is empty, has an unknown class, or has
            a class that is too thin for the network grid.
        MemoryShortage: the memory is too small.
    """
    with _memory_for_case(case.image, loaded):
        volume = read_case_scan(case.image, recipe)
        on_scan(volume)
        for note in scan_notes(volume):
            on_note(f"{case.image.parent if isinstance(note, ChannelNote) else case.image}: {note}")
        return _prepare_case(case, volume, recipe, device, on_note)


@contextmanager
def _memory_for_case(path: Path, loaded: int) -> Iterator[None]:
    try:
        with memory_for_scan(path):
            yield
    except MemoryShortage as error:
        if not loaded:
            raise
        what = f"not enough memory to load this case (cases already in memory: {loaded})"
        remedy = "Use fewer or smaller scans, a coarser spacing in the recipe, or close other programs."
        raise MemoryShortage(what, path=path, remedy=remedy) from error


def _prepare_case(
    case: Case, volume: Volume, recipe: Recipe, device: torch.device, on_note: Callable[[str], None]
) -> ResidentCase:
    image, grid = _scan_to_8bit(volume, recipe)
    label: Tensor | None = None
    voxels: tuple[Tensor, ...] = ()
    values: tuple[int, ...] = ()
    if case.label is not None:
        labelmap = read_case_label(case, recipe, volume.grid)
        for note in label_notes(case, labelmap, recipe):
            on_note(note)
        if warning := coverage_warning(labelmap):
            on_note(f"{case.label}: {warning}")
        values = check_label(case, labelmap, recipe)
        label = labels_to_network(labelmap, grid, recipe.output_channels)
        refuse_thin_classes(labelmap, set(np.unique(label.numpy()).tolist()), recipe, case.label)
        voxels = tuple(
            _sample_voxels(label == value) for value in range(1, recipe.output_channels) if (label == value).any()
        )
        label = label.to(device)
    return ResidentCase(case.name, image.to(device), label, voxels, grid, values, case.image)


def _scan_to_8bit(volume: Volume, recipe: Recipe) -> tuple[Tensor, NetworkGrid]:
    image, grid = scan_to_network(volume, recipe)
    scale, offset = uint8_scale_offset(recipe.intensity)
    return image.sub_(offset).div_(scale).round_().clamp_(0, 255).to(torch.uint8), grid


def _sample_voxels(mask: Tensor) -> Tensor:
    """Return voxels, int64 (N, 3) on the CPU, spread evenly over a mask; N is below twice `VOXELS_PER_CLASS`."""
    voxels = mask.nonzero()
    step = max(1, len(voxels) // VOXELS_PER_CLASS)
    return voxels[::step].cpu()
