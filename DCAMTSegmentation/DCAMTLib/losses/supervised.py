"""Supervision by labels: Dice and cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dice_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of soft Dice loss and cross-entropy of logits (B, K, X, Y, Z) against labels (B, X, Y, Z) of int64.

    Dice loss is 1 - (2 sum(p y) + 1) / (sum(p) + sum(y) + 1) (Milletari et al., 3DV 2016, without the squares), of
    each sample and each class but the background; the 1 voxel lets a patch without the class reach a loss of 0.
    """
    cross_entropy = F.cross_entropy(logits, labels)
    probabilities = logits.softmax(dim=1)[:, 1:]
    target = F.one_hot(labels, logits.shape[1]).movedim(-1, 1)[:, 1:].to(probabilities.dtype)
    axes = (2, 3, 4)
    overlap = (probabilities * target).sum(axes)
    size = probabilities.sum(axes) + target.sum(axes)
    dice = 1 - ((2 * overlap + 1) / (size + 1)).mean()
    return 0.5 * (torch.as_tensor(dice) + cross_entropy)
