"""Compute contrast losses between voxel embeddings and class prototypes, within a class and between classes.

The value -1 marks a voxel without a class. Such voxels have the weight 0 in the prototypes and in the losses. Removing
such voxels would be slower, since the program would have to wait for the GPU to count them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def prototypes(embeddings: Tensor, classes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean direction of each class's embeddings, (K, D), and whether each class has any voxel, (K,).

    Prototypes have no gradient, so that embeddings move towards the prototypes, and not the reverse.

    Args:
        embeddings: unit vectors (N, D).
        classes: (N,), -1 to count - 1.
    """
    one_hot = (classes[:, None] == torch.arange(count, device=classes.device)).to(embeddings.dtype)
    sums = one_hot.T @ embeddings.detach()
    return F.normalize(sums, dim=1), one_hot.sum(dim=0) > 0


def intra_class(embeddings: Tensor, classes: Tensor, own_prototypes: Tensor, partner_prototypes: Tensor) -> Tensor:
    """Return the mean of 1 - cos(embedding, prototype of its class) over the voxels and both branches' prototypes.

    Args:
        embeddings: unit vectors (N, D).
        classes: (N,), -1 to K - 1.
        own_prototypes, partner_prototypes: (K, D).
    """
    target = 0.5 * (own_prototypes + partner_prototypes)[classes.clamp_min(0)]
    return _mean_over_classified(1 - (embeddings * target).sum(dim=1), classes)


def inter_class(
    embeddings: Tensor,
    classes: Tensor,
    own_prototypes: Tensor,
    partner_prototypes: Tensor,
    present: Tensor,
    temperature: float,
) -> Tensor:
    """Return the mean InfoNCE loss (van den Oord et al., 2018) over the voxels and both branches' prototypes.

    The loss of an embedding e of class c is -log(exp(e p_c / T) / sum_k exp(e p_k / T)), where p are the prototypes, T
    is the temperature, and k runs over the classes that are `present`, booleans (K,).
    """
    losses = []
    for centres in (own_prototypes, partner_prototypes):
        scores = (embeddings @ centres.T / temperature).masked_fill(~present, float("-inf"))
        losses.append(_mean_over_classified(F.cross_entropy(scores, classes.clamp_min(0), reduction="none"), classes))
    return torch.stack(losses).mean()


def _mean_over_classified(values: Tensor, classes: Tensor) -> Tensor:
    classified = classes >= 0
    return torch.where(classified, values, 0).sum() / classified.sum().clamp_min(1)
