"""Mutual distillation against a loop over voxels; teachers have no gradient, students learn the teachers' output."""

from __future__ import annotations

import math

import pytest
import torch
from dcamt.losses.distillation import confidence, mutual_distillation
from torch import Tensor


def softmax(z: list[float], temperature: float = 1.0) -> list[float]:
    exponentials = [math.exp(value / temperature) for value in z]
    return [value / sum(exponentials) for value in exponentials]


def confidence_by_hand(z: list[float]) -> float:
    return (max(softmax(z)) - 1 / len(z)) / (1 - 1 / len(z))


def by_hand(students: tuple[Tensor, Tensor], teachers: tuple[Tensor, Tensor], temperature: float) -> float:
    """Return the loss by a loop over samples and voxels, summed over both directions."""
    return 0.5 * (
        one_direction_by_hand(teachers[1], students[0], temperature)
        + one_direction_by_hand(teachers[0], students[1], temperature)
    )


def one_direction_by_hand(teacher: Tensor, student: Tensor, temperature: float) -> float:
    """Return the loss of one teacher and one student: mean divergence plus Dice loss on foreground classes."""
    divergence, voxels, missed = 0.0, 0, []
    for sample_t, sample_s in zip(teacher, student, strict=True):
        rows_t, rows_s = (z.flatten(1).T.tolist() for z in (sample_t, sample_s))
        for z_t, z_s in zip(rows_t, rows_s, strict=True):
            p, q = softmax(z_t, temperature), softmax(z_s, temperature)
            divergence += confidence_by_hand(z_t) * sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
            voxels += 1
        teacher_probabilities, student_probabilities = [softmax(z, 0.5) for z in rows_t], [softmax(z) for z in rows_s]
        for k in range(1, len(sample_t)):
            both = sum(s[k] * p[k] for s, p in zip(teacher_probabilities, student_probabilities, strict=True))
            found = sum(s[k] for s in teacher_probabilities)
            overlap = (2 * both + 1) / (found + sum(p[k] for p in student_probabilities) + 1)
            missed.append((1 - overlap) * found / (found + 1))
    return temperature**2 * divergence / voxels + sum(missed) / len(missed)


def random_logits(classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = 2 * torch.randn(2, 2, classes, 3, 2, 4, generator=generator, dtype=torch.float64)
    return a, b


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_loss_equals_a_loop_over_voxels(classes: int, temperature: float) -> None:
    for seed in range(3):
        students, teachers = random_logits(classes, seed), random_logits(classes, seed + 10)
        found = mutual_distillation(students, teachers, temperature)
        assert float(found) == pytest.approx(by_hand(students, teachers, temperature), rel=1e-10)
        assert float(mutual_distillation(students[::-1], teachers[::-1], temperature)) == pytest.approx(float(found))


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_confidence_is_0_for_equal_logits_and_1_for_certainty(classes: int) -> None:
    a, _ = random_logits(classes)
    found = confidence(a)
    assert found.shape == (2, 3, 2, 4)
    expected = [confidence_by_hand(row) for row in a.movedim(1, -1).flatten(0, -2).tolist()]
    assert found.flatten().tolist() == pytest.approx(expected)
    assert float(confidence(torch.zeros(1, classes, 1).double())) == pytest.approx(0, abs=1e-15)
    assert float(confidence(100 * torch.eye(classes)[:1, :, None].double())) == pytest.approx(1)
    assert not confidence(a.clone().requires_grad_()).requires_grad


def certain(*classes: int) -> Tensor:
    """Return logits (1, K, N, 1, 1) of N voxels, each certain of the given class."""
    return 20 * torch.eye(2, dtype=torch.float64)[list(classes)].T[None, :, :, None, None]


def test_loss_is_0_when_certain_branches_agree() -> None:
    a = certain(0, 1, 1, 0)
    assert float(mutual_distillation((a, a), (a, a), 2.0)) == pytest.approx(0, abs=1e-4)
    shifted = a + 7.0  # the same probabilities
    assert float(mutual_distillation((a, shifted), (a, shifted), 2.0)) == pytest.approx(0, abs=1e-4)


def test_teacher_has_no_gradient() -> None:
    a, b = (z.requires_grad_() for z in random_logits(3))
    c, d = (z.requires_grad_() for z in random_logits(3, seed=1))
    mutual_distillation((a, b), (c, d), 2.0).backward()
    assert c.grad is None
    assert d.grad is None
    assert a.grad is not None
    assert b.grad is not None
    # If one tensor is student and teacher, its gradient comes only from its role as the student.
    (alone,) = torch.autograd.grad(mutual_distillation((a, b), (a.detach(), b.detach()), 2.0), a)
    (same,) = torch.autograd.grad(mutual_distillation((a, b), (a, b), 2.0), a)
    assert torch.equal(alone, same)


def test_structure_missed_by_one_branch_is_recovered() -> None:
    """In a few voxels, one branch predicts organ and the other background, equally certain; both move to organ."""
    miss = certain(*[1] * 10, *[0] * 4, *[0] * 200) / 10  # moderate logits (2), so that gradients do not vanish
    find = certain(*[1] * 10, *[1] * 4, *[0] * 200) / 10
    a, b = miss, find
    for _ in range(400):
        a, b = (z.requires_grad_() for z in (a, b))
        steps = torch.autograd.grad(mutual_distillation((a, b), (a, b), 2.0), (a, b))
        a, b = ((z - 5 * step).detach() for z, step in zip((a, b), steps, strict=True))
    disputed = slice(10, 14)
    assert (a.argmax(dim=1)[0, disputed] == 1).all()
    assert (b.argmax(dim=1)[0, disputed] == 1).all()


def test_student_learns_its_teacher_s_probabilities() -> None:
    teacher = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64).reshape(1, 3, 1, 1, 1).repeat(1, 1, 5, 1, 1)
    student = torch.tensor([0.1, 0.4, 0.2], dtype=torch.float64).reshape(1, 3, 1, 1, 1).repeat(1, 1, 5, 1, 1)
    for _ in range(300):
        student.requires_grad_()
        (gradient,) = torch.autograd.grad(mutual_distillation((student, student), (teacher, teacher), 2.0), student)
        student = (student - 5 * gradient).detach()
    assert (student.argmax(dim=1) == 0).all()
    assert float(confidence(student).min()) > 0.95 * float(confidence(teacher).min())
