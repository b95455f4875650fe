"""Two-way mutual distillation: each branch teaches the other, voxel by voxel and by overlap.

Voxel by voxel alone it is a trap where the background is the larger part: a branch that misses something does so with
confidence, the other unlearns it, and the segmentation shrinks from step to step. Seen on the left atrium (8 labelled
cases, 2.5 mm, 1000 iterations): to 0.83 of the true volume, and to 1.7 points of Dice below that of the labelled cases
alone. With the overlap, which pulls harder towards what a teacher found than towards what it missed, the volume was
right.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .supervised import soft_dice_loss

SHARPENING = 0.5
"""Temperature of what a teacher says for the overlap, so that pupils grow surer where teachers are."""


def mutual_distillation(pupils: tuple[Tensor, Tensor], teachers: tuple[Tensor, Tensor], temperature: float) -> Tensor:
    """Mean of both directions of T^2 KL(softmax(z_teacher / T) || softmax(z_pupil / T)) + Dice loss.

    `pupils` and `teachers` are logits (B, K, X, Y, Z) of branch A and branch B: A's pupil learns from B's teacher and
    the reverse. A teacher has no gradient; it may be the same tensor as the pupil, or what the branch says of the same
    voxels in an easier picture. KL is a mean over voxels, each counted by its teacher's `confidence`; T^2 keeps the
    gradient's size independent of T (Hinton, Vinyals and Dean, 2015).
    """
    (pupil_a, pupil_b), (teacher_a, teacher_b) = pupils, teachers
    return 0.5 * (_lesson(teacher_b, pupil_a, temperature) + _lesson(teacher_a, pupil_b, temperature))


def confidence(logits: Tensor) -> Tensor:
    """(B, K, ...) -> (B, ...): the highest probability, from 0 (all classes alike) to 1 (certain); no gradient."""
    classes = logits.shape[1]
    highest = logits.detach().softmax(dim=1).amax(dim=1)
    return (highest - 1 / classes) / (1 - 1 / classes)


def _lesson(teacher: Tensor, pupil: Tensor, temperature: float) -> Tensor:
    teacher = teacher.detach()
    divergence = (_divergence(teacher, pupil, temperature) * confidence(teacher)).mean()
    overlap = soft_dice_loss(pupil.softmax(dim=1), (teacher / SHARPENING).softmax(dim=1))
    return temperature**2 * divergence + overlap


def _divergence(teacher: Tensor, pupil: Tensor, temperature: float) -> Tensor:
    """KL(teacher || pupil) at temperature T, in nats at each voxel: (B, ...)."""
    target = (teacher / temperature).log_softmax(dim=1)
    return F.kl_div((pupil / temperature).log_softmax(dim=1), target, reduction="none", log_target=True).sum(dim=1)
