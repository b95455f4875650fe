"""Supervision by labels: Dice and cross-entropy."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dice_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of soft Dice loss and cross-entropy of logits (B, K, X, Y, Z) against labels (B, X, Y, Z) of int64."""
    target = F.one_hot(labels, logits.shape[1]).movedim(-1, 1)
    return 0.5 * (soft_dice_loss(logits.softmax(dim=1), target) + F.cross_entropy(logits, labels))


def soft_dice_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """n / (n + 1) times 1 - (2 sum(p y) + 1) / (sum(p) + n + 1), where n = sum(y): a mean over samples and classes.

    Both (B, K, X, Y, Z), the background left out; a target may be soft, too. Source: Milletari et al., 3DV 2016,
    without the squares; the 1 keeps the fraction whole where a class is neither shown nor claimed. The first factor
    leaves a class that a sample does not show to the cross-entropy. Without it, a single voxel claimed there would cost
    half as much as missing all of a class, and networks were slow to claim any of a small one, which few patches show.
    """
    p, y = probabilities[:, 1:], target[:, 1:].to(probabilities.dtype)
    axes = (2, 3, 4)
    size = y.sum(axes)
    dice = (2 * (p * y).sum(axes) + 1) / (p.sum(axes) + size + 1)
    return ((1 - dice) * size / (size + 1)).mean()
