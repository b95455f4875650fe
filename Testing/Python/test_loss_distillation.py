"""The distillation loss equals a loop over voxels; a teacher has no gradient, and a student follows its teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from dcamt.losses.distillation import confidence, mutual_distillation
from torch import Tensor

SHARPENING = 0.5
"""Temperature of the teacher's probabilities in the Dice loss."""


def tempered_softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    exponentials = [math.exp(value / temperature) for value in logits]
    return [value / sum(exponentials) for value in exponentials]


def reference_confidence(logits: list[float]) -> float:
    return (max(tempered_softmax(logits)) - 1 / len(logits)) / (1 - 1 / len(logits))


def reference_loss(students: tuple[Tensor, Tensor], teachers: tuple[Tensor, Tensor], temperature: float) -> float:
    return 0.5 * (
        reference_direction(teachers[1], students[0], temperature)
        + reference_direction(teachers[0], students[1], temperature)
    )


def reference_direction(teacher: Tensor, student: Tensor, temperature: float) -> float:
    """Return the loss of one teacher and one student by the formulas of `mutual_distillation`."""
    divergence, voxels, dice_losses = 0.0, 0, []
    for sample_t, sample_s in zip(teacher, student, strict=True):
        logits_t, logits_s = (sample.flatten(1).T.tolist() for sample in (sample_t, sample_s))
        for t, s in zip(logits_t, logits_s, strict=True):
            soft_t, soft_s = tempered_softmax(t, temperature), tempered_softmax(s, temperature)
            kl = sum(p * math.log(p / q) for p, q in zip(soft_t, soft_s, strict=True))
            divergence += reference_confidence(t) * kl
            voxels += 1
        probabilities_t = [tempered_softmax(logits, SHARPENING) for logits in logits_t]
        probabilities_s = [tempered_softmax(logits) for logits in logits_s]
        for k in range(1, len(sample_t)):
            intersection = sum(t[k] * s[k] for t, s in zip(probabilities_t, probabilities_s, strict=True))
            volume_t, volume_s = sum(t[k] for t in probabilities_t), sum(s[k] for s in probabilities_s)
            dice = (2 * intersection + 1) / (volume_t + volume_s + 1)
            dice_losses.append((1 - dice) * volume_t / (volume_t + 1))
    return temperature**2 * divergence / voxels + sum(dice_losses) / len(dice_losses)


def random_logits(classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = 2 * torch.randn(2, 2, classes, 3, 2, 4, generator=generator, dtype=torch.float64)
    return a, b


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_loss_equals_a_loop_over_voxels(classes: int, temperature: float) -> None:
    for seed in range(3):
        students, teachers = random_logits(classes, seed), random_logits(classes, seed + 10)
        loss = float(mutual_distillation(students, teachers, temperature))
        assert loss == pytest.approx(reference_loss(students, teachers, temperature), rel=1e-10)
        assert float(mutual_distillation(students[::-1], teachers[::-1], temperature)) == pytest.approx(loss)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_confidence_equals_its_formula_and_has_no_gradient(classes: int) -> None:
    logits, _ = random_logits(classes)
    result = confidence(logits.requires_grad_())
    assert result.shape == (2, 3, 2, 4)
    assert not result.requires_grad
    expected = [reference_confidence(voxel) for voxel in logits.movedim(1, -1).flatten(0, -2).tolist()]
    assert result.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_confidence_is_0_for_equal_logits_and_1_for_certainty(classes: int) -> None:
    assert float(confidence(torch.zeros(1, classes, 1).double())) == pytest.approx(0, abs=1e-15)
    assert float(confidence(100 * torch.eye(classes)[:1, :, None].double())) == pytest.approx(1)


def confident_logits(labels: Sequence[int], logit: float = 20.0) -> Tensor:
    """Return logits (1, 2, N, 1, 1) of N voxels, for example (20, 0) for label 0 and (0, 20) for label 1."""
    return logit * torch.eye(2, dtype=torch.float64)[list(labels)].T[None, :, :, None, None]


def test_loss_is_0_when_confident_branches_agree() -> None:
    logits = confident_logits([0, 1, 1, 0])
    assert float(mutual_distillation((logits, logits), (logits, logits), 2.0)) == pytest.approx(0, abs=1e-4)
    shifted = logits + 7.0  # the probabilities stay the same
    assert float(mutual_distillation((logits, shifted), (logits, shifted), 2.0)) == pytest.approx(0, abs=1e-4)


def test_teacher_has_no_gradient() -> None:
    student_a, student_b = (logits.requires_grad_() for logits in random_logits(3))
    teacher_a, teacher_b = (logits.requires_grad_() for logits in random_logits(3, seed=1))
    mutual_distillation((student_a, student_b), (teacher_a, teacher_b), 2.0).backward()
    assert teacher_a.grad is None
    assert teacher_b.grad is None
    assert student_a.grad is not None
    assert student_b.grad is not None
    # If one tensor is student and teacher, its gradient comes only from its role as the student.
    students, detached = (student_a, student_b), (student_a.detach(), student_b.detach())
    (expected,) = torch.autograd.grad(mutual_distillation(students, detached, 2.0), student_a)
    (gradient,) = torch.autograd.grad(mutual_distillation(students, students, 2.0), student_a)
    assert torch.equal(gradient, expected)


def test_structure_missed_by_one_branch_is_recovered() -> None:
    """In a few voxels, one branch predicts organ, and the other predicts background with equal confidence."""
    organ, small_structure, background = 10, 4, 200
    # Logits of 2, so that gradients do not vanish.
    branch_without = confident_logits([1] * organ + [0] * (small_structure + background), logit=2.0)
    branch_with = confident_logits([1] * (organ + small_structure) + [0] * background, logit=2.0)
    branches = (branch_without, branch_with)
    for _ in range(100):
        a, b = (logits.requires_grad_() for logits in branches)
        gradients = torch.autograd.grad(mutual_distillation((a, b), (a, b), 2.0), (a, b))
        a, b = ((logits - 5 * step).detach() for logits, step in zip((a, b), gradients, strict=True))
        branches = (a, b)
    disputed = slice(organ, organ + small_structure)
    for logits in branches:
        assert (logits.argmax(dim=1)[0, disputed] == 1).all()


def test_student_reaches_the_class_and_confidence_of_its_teacher() -> None:
    teacher = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64).reshape(1, 3, 1, 1, 1).repeat(1, 1, 5, 1, 1)
    student = torch.tensor([0.1, 0.4, 0.2], dtype=torch.float64).reshape(1, 3, 1, 1, 1).repeat(1, 1, 5, 1, 1)
    for _ in range(50):
        student.requires_grad_()
        (gradient,) = torch.autograd.grad(mutual_distillation((student, student), (teacher, teacher), 2.0), student)
        student = (student - 5 * gradient).detach()
    assert (student.argmax(dim=1) == 0).all()
    assert float(confidence(student).min()) > 0.95 * float(confidence(teacher).min())
