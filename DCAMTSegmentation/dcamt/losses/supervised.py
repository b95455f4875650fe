"""Compute the supervised loss: Dice and cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_CLASS_WEIGHT = 10.0


def dice_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of soft Dice loss and cross-entropy.

    Small classes have larger weights in the cross-entropy (`class_weights`): if a class's probability has become 0, the
    Dice loss has no gradient, and the class is learnt only from the cross-entropy (docs/experiments.md, "Supervision").

    Args:
        logits: (B, K, X, Y, Z).
        labels: int64 (B, X, Y, Z), 0 to K - 1.
    """
    classes = logits.shape[1]
    target = F.one_hot(labels, classes).movedim(-1, 1)
    dice_loss = soft_dice_loss(logits.softmax(dim=1), target)
    if classes == 2:  # With one foreground class all weights are 1.
        return 0.5 * (dice_loss + F.cross_entropy(logits, labels))
    cross_entropy = F.cross_entropy(logits, labels, reduction="none")
    weights = class_weights(target, cross_entropy.dtype).gather(1, labels.flatten(1)).view(labels.shape)
    return 0.5 * (dice_loss + (weights * cross_entropy).mean())


def class_weights(target: Tensor, dtype: torch.dtype) -> Tensor:
    """Return each class's weight in each sample's cross-entropy, (B, K), of type `dtype`.

    A foreground class of n voxels has weight m / n, at most `MAX_CLASS_WEIGHT`, where m is the mean of n over the
    foreground classes that are present in the sample.

    Args:
        target: one-hot, (B, K, X, Y, Z); class 0 is the background, which has weight 1.
    """
    size = target[:, 1:].sum((2, 3, 4)).to(dtype)
    mean = size.sum(1, keepdim=True) / (size > 0).sum(1, keepdim=True).clamp_min(1)
    foreground = (mean / size.clamp_min(1)).clamp_max(MAX_CLASS_WEIGHT)
    return F.pad(foreground, (1, 0), value=1.0)


def soft_dice_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """Return the soft Dice loss, averaged over samples and foreground classes.

    For each sample and class, with probabilities p, target y and n = sum(y), the loss is
    n / (n + 1) * (1 - (2 sum(p y) + 1) / (sum(p) + n + 1)).
    Source: Milletari et al., 3DV 2016, where the denominator is sum(p^2) + sum(y^2). The added 1 keeps the fraction
    defined if a class is neither present nor predicted. The factor n / (n + 1) removes the loss of a class that is
    absent from a sample (docs/experiments.md, "Supervision").

    Args:
        probabilities, target: (B, K, X, Y, Z); class 0 is the background. The target may be one-hot or soft.
    """
    p, y = probabilities[:, 1:], target[:, 1:].to(probabilities.dtype)
    axes = (2, 3, 4)
    size = y.sum(axes)
    dice = (2 * (p * y).sum(axes) + 1) / (p.sum(axes) + size + 1)
    return ((1 - dice) * size / (size + 1)).mean()
