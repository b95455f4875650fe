"""Compute the voxel-wise loss and the overlap loss of mutual distillation: each branch is the other's teacher.

The voxel-wise loss alone fails if most voxels are background: a branch that misses a structure is confident about the
background there, so the other branch unlearns the structure, and segmentations shrink. The overlap loss restores the
volume of the segmentations (docs/experiments.md, "Distillation").
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .supervised import soft_dice_loss

SHARPENING = 0.5
"""Temperature of the teacher's probabilities in the overlap loss; below 1, so that students become more confident."""


def mutual_distillation(
    student_logits: tuple[Tensor, Tensor], teacher_logits: tuple[Tensor, Tensor], temperature: float
) -> Tensor:
    """Return the mean of the two students' losses.

    Let c be the teacher's `confidence`. The loss of a student is
    T^2 mean(c KL(softmax(z_teacher / T) || softmax(z_student / T))) + Dice loss. The mean is taken over voxels. The
    Dice loss compares the student's probabilities with the teacher's sharpened probabilities,
    softmax(z_teacher / `SHARPENING`). Student A learns from teacher B, and student B from teacher A. Teachers have no
    gradient. The factor T^2 keeps the gradient's size nearly independent of T (Hinton, Vinyals and Dean, 2015).

    Args:
        student_logits: (B, K, X, Y, Z) of branch A and of branch B.
        teacher_logits: of the same shape and for the same voxels; they may be the student logits themselves.
    """
    (student_a, student_b), (teacher_a, teacher_b) = student_logits, teacher_logits
    return 0.5 * (
        _distillation_loss(teacher_b, student_a, temperature) + _distillation_loss(teacher_a, student_b, temperature)
    )


def confidence(logits: Tensor) -> Tensor:
    """Return each voxel's highest probability, (B, ...), scaled from 0 (all classes equal) to 1 (certain).

    The result has no gradient.

    Args:
        logits: (B, K, ...).
    """
    classes = logits.shape[1]
    highest = logits.detach().softmax(dim=1).amax(dim=1)
    return (highest - 1 / classes) / (1 - 1 / classes)


def _distillation_loss(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    teacher = teacher.detach()
    divergence = (_divergence(teacher, student, temperature) * confidence(teacher)).mean()
    overlap = soft_dice_loss(student.softmax(dim=1), (teacher / SHARPENING).softmax(dim=1))
    return temperature**2 * divergence + overlap


def _divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher || student) at a temperature, in nats, for each voxel: (B, ...)."""
    target = (teacher / temperature).log_softmax(dim=1)
    return F.kl_div((student / temperature).log_softmax(dim=1), target, reduction="none", log_target=True).sum(dim=1)
