"""Intra- and inter-class contrast of voxel embeddings against class prototypes.

A voxel of class -1 has none and counts nowhere. To drop it instead, a GPU would have to be waited for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def prototypes(embeddings: Tensor, classes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean direction of each class's embeddings: unit vectors (K, D), and which classes have any voxel (K,).

    `embeddings` (N, D) are unit vectors, `classes` (N,) of -1 .. count - 1. Prototypes carry no gradient: they are
    where the embeddings shall go, not what goes to them.
    """
    one_hot = (classes[:, None] == torch.arange(count, device=classes.device)).to(embeddings.dtype)
    sums = one_hot.T @ embeddings.detach()
    return F.normalize(sums, dim=1), one_hot.sum(dim=0) > 0


def intra_class(embeddings: Tensor, classes: Tensor, own: Tensor, partner: Tensor) -> Tensor:
    """Pull to one's class: mean of 1 - cos(embedding, prototype of its class), own and partner's branch alike.

    Shapes: embeddings (N, D), classes (N,), prototypes (K, D) each.
    """
    target = 0.5 * (own + partner)[classes.clamp_min(0)]
    return _mean_of_known(1 - (embeddings * target).sum(dim=1), classes)


def inter_class(
    embeddings: Tensor, classes: Tensor, own: Tensor, partner: Tensor, present: Tensor, temperature: float
) -> Tensor:
    """Push from the other classes: InfoNCE (van den Oord et al., 2018), a mean over both branches' prototypes.

    -log(exp(e p_c / T) / sum_k exp(e p_k / T)), k over the classes that are present (K,).
    """
    losses = []
    for centres in (own, partner):
        scores = (embeddings @ centres.T / temperature).masked_fill(~present, float("-inf"))
        losses.append(_mean_of_known(F.cross_entropy(scores, classes.clamp_min(0), reduction="none"), classes))
    return torch.stack(losses).mean()


def _mean_of_known(values: Tensor, classes: Tensor) -> Tensor:
    """The mean over voxels that have a class; 0 where none has."""
    known = classes >= 0
    return torch.where(known, values, 0).sum() / known.sum().clamp_min(1)
