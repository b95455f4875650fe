"""Two-way mutual distillation: at each voxel the more confident branch teaches the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mutual_distillation(logits_a: Tensor, logits_b: Tensor, temperature: float) -> Tensor:
    """Sum of both directions of T^2 KL(softmax(z_teacher / T) || softmax(z_pupil / T)), a mean over voxels.

    Logits are (B, K, ...). The teacher's side is constant (no gradient). A voxel counts by its teacher's confidence
    (see `confidence`) if that exceeds the pupil's, by half of it if they tie, else not at all. T^2 keeps the
    gradient's size independent of T (Hinton, Vinyals and Dean, 2015).
    """
    confidence_a, confidence_b = confidence(logits_a), confidence(logits_b)
    leads = 0.5 * (1 + torch.sign(confidence_a - confidence_b))  # 1 where A teaches, 0 where B does, 1/2 at a tie
    a_from_b = _divergence(logits_b, logits_a, temperature) * confidence_b * (1 - leads)
    b_from_a = _divergence(logits_a, logits_b, temperature) * confidence_a * leads
    return temperature**2 * (a_from_b.mean() + b_from_a.mean())


def confidence(logits: Tensor) -> Tensor:
    """(B, K, ...) -> (B, ...): the highest probability, from 0 (all classes alike) to 1 (certain); no gradient."""
    classes = logits.shape[1]
    highest = logits.detach().softmax(dim=1).amax(dim=1)
    return (highest - 1 / classes) / (1 - 1 / classes)


def _divergence(teacher: Tensor, pupil: Tensor, temperature: float) -> Tensor:
    """KL(teacher || pupil) at temperature T, in nats at each voxel: (B, ...)."""
    target = (teacher.detach() / temperature).log_softmax(dim=1)
    return F.kl_div((pupil / temperature).log_softmax(dim=1), target, reduction="none", log_target=True).sum(dim=1)
