"""Choose the label of each voxel by its probabilities."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..geometry import NetworkGrid, bounding_box
from ..preprocessing import reached_from, to_source


def most_likely(probabilities: Tensor) -> Tensor:
    """Return each voxel's class of highest probability, uint8 (X, Y, Z), from (K, X, Y, Z); on a tie the first.

    The same as `argmax`, which is many times slower along an axis that is not the last.
    """
    labels = torch.zeros(probabilities.shape[1:], dtype=torch.uint8, device=probabilities.device)
    highest = probabilities[0]
    for label in range(1, len(probabilities)):
        labels.masked_fill_(probabilities[label] > highest, label)
        highest = torch.maximum(highest, probabilities[label])
    return labels


def labels_on_scan(probabilities: Tensor, grid: NetworkGrid) -> np.ndarray:
    """Return the most likely class of each of the scan's own voxels, uint8 (I, J, K), from (K, X, Y, Z).

    The same as `most_likely` of `to_source`, but only voxels that can be foreground are interpolated. A scan's voxel is
    a weighted mean of some of the network's voxels; where background leads in all of these, it leads in the mean.
    Background's own probability is 1 minus the others'.
    """
    labels = np.zeros(grid.source.shape, np.uint8)
    box = bounding_box(most_likely(probabilities).numpy())
    if box is not None:
        x, y, z = box
        part = reached_from((x, y, z), grid)
        organs = torch.from_numpy(to_source(probabilities[1:], grid, part))
        labels[part] = most_likely(torch.cat([1 - organs.sum(dim=0, keepdim=True), organs])).numpy()
    return labels
