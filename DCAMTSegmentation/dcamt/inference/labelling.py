"""From probabilities to labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..geometry import NetworkGrid, bounding_box
from ..preprocessing import reached_from, to_source


def most_likely(shares: Tensor) -> Tensor:
    """The class of the highest of probabilities (K, X, Y, Z) at each voxel, uint8; on a tie the first.

    As `argmax`, which is many times slower along an axis that is not the last.
    """
    labels = torch.zeros(shares.shape[1:], dtype=torch.uint8, device=shares.device)
    highest = shares[0]
    for label in range(1, len(shares)):
        labels.masked_fill_(shares[label] > highest, label)
        highest = torch.maximum(highest, shares[label])
    return labels


def labels_on_scan(shares: Tensor, grid: NetworkGrid) -> np.ndarray:
    """The most likely class of each of the scan's own voxels, uint8 (I, J, K), by (K, X, Y, Z) on the network's grid.

    As `most_likely` of `to_source`, but only what can be other than background is interpolated: each of the scan's
    voxels is a weighted mean of some of the network's; where background leads in all of these, it leads in the mean.
    Nor is background itself: it is what the others leave of 1.
    """
    labels = np.zeros(grid.source.shape, np.uint8)
    there = bounding_box(most_likely(shares).numpy())
    if there is not None:
        x, y, z = there
        part = reached_from((x, y, z), grid)
        organs = torch.from_numpy(to_source(shares[1:], grid, part))
        labels[part] = most_likely(torch.cat([1 - organs.sum(dim=0, keepdim=True), organs])).numpy()
    return labels
