"""Two-way mutual distillation: each branch teaches the other, as much as it is confident.

To let the more confident branch alone teach is a trap where the background is the larger part: whatever one branch
misses with confidence, the other unlearns, and the segmentation shrinks from step to step. Seen on the left atrium (8
labelled cases, 2.5 mm): the volume fell to 0.84 of the true one within 400 iterations, and the Dice below that of
training without the unlabelled scans.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def mutual_distillation(logits_a: Tensor, logits_b: Tensor, temperature: float) -> Tensor:
    """Sum of both directions of T^2 KL(softmax(z_teacher / T) || softmax(z_pupil / T)), a mean over voxels.

    Logits are (B, K, ...). The teacher's side is constant (no gradient). A voxel counts by half of its teacher's
    confidence (see `confidence`). T^2 keeps the gradient's size independent of T (Hinton, Vinyals and Dean, 2015).
    """
    a_from_b = _divergence(logits_b, logits_a, temperature) * confidence(logits_b)
    b_from_a = _divergence(logits_a, logits_b, temperature) * confidence(logits_a)
    return 0.5 * temperature**2 * (a_from_b.mean() + b_from_a.mean())


def confidence(logits: Tensor) -> Tensor:
    """(B, K, ...) -> (B, ...): the highest probability, from 0 (all classes alike) to 1 (certain); no gradient."""
    classes = logits.shape[1]
    highest = logits.detach().softmax(dim=1).amax(dim=1)
    return (highest - 1 / classes) / (1 - 1 / classes)


def _divergence(teacher: Tensor, pupil: Tensor, temperature: float) -> Tensor:
    """KL(teacher || pupil) at temperature T, in nats at each voxel: (B, ...)."""
    target = (teacher.detach() / temperature).log_softmax(dim=1)
    return F.kl_div((pupil / temperature).log_softmax(dim=1), target, reduction="none", log_target=True).sum(dim=1)
