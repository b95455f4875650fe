"""Choose the label of each voxel from its probabilities."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..geometry import NetworkGrid, bounding_box
from ..preprocessing import source_box_of, to_source


def most_likely(probabilities: Tensor) -> Tensor:
    """Return each voxel's most likely class, uint8 (X, Y, Z), from probabilities (K, X, Y, Z).

    Of equally likely classes, the first is chosen. `argmax` gives the same result, but is many times slower along
    the first axis.
    """
    labels = torch.zeros(probabilities.shape[1:], dtype=torch.uint8, device=probabilities.device)
    highest = probabilities[0]
    for label in range(1, len(probabilities)):
        labels.masked_fill_(probabilities[label] > highest, label)
        highest = torch.maximum(highest, probabilities[label])
    return labels


def labels_on_scan(probabilities: Tensor, grid: NetworkGrid) -> np.ndarray:
    """Return the most likely class of each voxel of the scan, uint8 (I, J, K), from probabilities (K, X, Y, Z).

    Gives the result of `most_likely(to_source(probabilities))` up to rounding, but interpolates only voxels that can be
    foreground. The probabilities of a scan voxel are weighted means over network voxels; if background is most likely
    in all of these network voxels, background is also most likely in the scan voxel.
    """
    labels = np.zeros(grid.source.shape, np.uint8)
    box = bounding_box(most_likely(probabilities).numpy())
    if box is not None:
        x, y, z = box
        part = source_box_of((x, y, z), grid)
        organs = torch.from_numpy(to_source(probabilities[1:], grid, part))
        labels[part] = most_likely(torch.cat([1 - organs.sum(dim=0, keepdim=True), organs])).numpy()
    return labels
