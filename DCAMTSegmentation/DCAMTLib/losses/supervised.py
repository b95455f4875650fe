"""Supervision by labels: Dice and cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dice_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of soft Dice loss and cross-entropy of logits (B, K, X, Y, Z) against labels (B, X, Y, Z) of int64."""
    target = F.one_hot(labels, logits.shape[1]).movedim(-1, 1)
    return 0.5 * (soft_dice_loss(logits.softmax(dim=1), target) + F.cross_entropy(logits, labels))


def soft_dice_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """1 - (2 sum(p y) + 1) / (sum(p) + sum(y) + 1), a mean over samples and classes but the background.

    Both (B, K, X, Y, Z); a target may be soft, too. Source: Milletari et al., 3DV 2016, without the squares; the 1
    voxel lets a patch without the class reach a loss of 0.
    """
    p, y = probabilities[:, 1:], target[:, 1:].to(probabilities.dtype)
    axes = (2, 3, 4)
    dice = (2 * (p * y).sum(axes) + 1) / (p.sum(axes) + y.sum(axes) + 1)
    return torch.as_tensor(1 - dice.mean())
