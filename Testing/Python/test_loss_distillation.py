"""Mutual distillation against a loop over voxels: who teaches whom, how much, and where no gradient may go."""

from __future__ import annotations

import math

import pytest
import torch
from DCAMTLib.losses.distillation import confidence, mutual_distillation
from torch import Tensor


def softmax(z: list[float], temperature: float = 1.0) -> list[float]:
    exponentials = [math.exp(value / temperature) for value in z]
    return [value / sum(exponentials) for value in exponentials]


def confidence_by_hand(z: list[float]) -> float:
    return (max(softmax(z)) - 1 / len(z)) / (1 - 1 / len(z))


def by_hand(a: Tensor, b: Tensor, temperature: float) -> float:
    """Voxel by voxel: each teaches the other, by half of its own confidence."""
    rows_a, rows_b = (z.movedim(1, -1).flatten(0, -2).tolist() for z in (a, b))
    total = 0.0
    for z_a, z_b in zip(rows_a, rows_b, strict=True):
        p_a, p_b = softmax(z_a, temperature), softmax(z_b, temperature)
        from_a = sum(p * math.log(p / q) for p, q in zip(p_a, p_b, strict=True))
        from_b = sum(p * math.log(p / q) for p, q in zip(p_b, p_a, strict=True))
        total += 0.5 * confidence_by_hand(z_a) * from_a + 0.5 * confidence_by_hand(z_b) * from_b
    return temperature**2 * total / len(rows_a)


def random_logits(classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = 2 * torch.randn(2, 2, classes, 3, 2, 4, generator=generator, dtype=torch.float64)
    return a, b


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_it_is_a_loop_over_voxels(classes: int, temperature: float) -> None:
    for seed in range(3):
        a, b = random_logits(classes, seed)
        found = mutual_distillation(a, b, temperature)
        assert float(found) == pytest.approx(by_hand(a, b, temperature), rel=1e-10)
        assert float(mutual_distillation(b, a, temperature)) == pytest.approx(float(found))


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_confidence_runs_from_all_alike_to_certain(classes: int) -> None:
    a, _ = random_logits(classes)
    found = confidence(a)
    assert found.shape == (2, 3, 2, 4)
    expected = [confidence_by_hand(row) for row in a.movedim(1, -1).flatten(0, -2).tolist()]
    assert found.flatten().tolist() == pytest.approx(expected)
    assert float(confidence(torch.zeros(1, classes, 1).double())) == pytest.approx(0, abs=1e-15)
    assert float(confidence(100 * torch.eye(classes)[:1, :, None].double())) == pytest.approx(1)
    assert not confidence(a.clone().requires_grad_()).requires_grad


def test_agreeing_branches_have_nothing_to_teach() -> None:
    a, _ = random_logits(3)
    assert float(mutual_distillation(a, a, 2.0)) == pytest.approx(0, abs=1e-12)
    shifted = a + 7.0  # the same probabilities
    assert float(mutual_distillation(a, shifted, 2.0)) == pytest.approx(0, abs=1e-12)
    # Neither knows anything: confidence 0, whatever they say of it.
    unsure = torch.zeros_like(a)
    assert float(mutual_distillation(unsure, unsure + 1e-9 * a, 2.0)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_neither_branch_silences_the_other(classes: int) -> None:
    """However much surer one is, the less sure one still teaches: a miss with confidence does not spread unopposed."""
    sure = torch.zeros(1, classes, 1, dtype=torch.float64)
    unsure = sure.clone()
    sure[0, 0], unsure[0, 1] = 6.0, 1.0
    a, b = sure.requires_grad_(), unsure.requires_grad_()
    of_sure, of_unsure = torch.autograd.grad(mutual_distillation(a, b, 2.0), (a, b))
    assert float(of_sure[0, 0, 0]) > 0  # descending makes it less sure
    assert float(of_unsure[0, 0, 0]) < 0
    assert float(of_unsure.abs().max()) > float(of_sure.abs().max())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_each_gradient_has_its_closed_form_with_the_teacher_held_fixed(temperature: float) -> None:
    """d/dz T^2 c/2 KL(p || softmax(z / T)) = T c/2 (softmax(z / T) - p), over the number of voxels."""
    a, b = (z.requires_grad_() for z in random_logits(3))
    gradient_a, gradient_b = torch.autograd.grad(mutual_distillation(a, b, temperature), (a, b))
    rows = [z.movedim(1, -1).flatten(0, -2).tolist() for z in (a.detach(), b.detach(), gradient_a, gradient_b)]
    for z_a, z_b, g_a, g_b in zip(*rows, strict=True):
        for teacher, pupil, gradient in ((z_b, z_a, g_a), (z_a, z_b, g_b)):
            target, said = softmax(teacher, temperature), softmax(pupil, temperature)
            scale = 0.5 * temperature * confidence_by_hand(teacher) / len(rows[0])
            assert gradient == pytest.approx([scale * (q - p) for p, q in zip(target, said, strict=True)], abs=1e-14)


def test_a_pupil_learns_until_it_is_as_sure_as_its_teacher() -> None:
    teacher = torch.tensor([[[3.0], [-1.0], [0.5]]], dtype=torch.float64)
    pupil = torch.tensor([[[0.1], [0.4], [0.2]]], dtype=torch.float64)
    for _ in range(300):
        pupil.requires_grad_()
        (gradient,) = torch.autograd.grad(mutual_distillation(teacher, pupil, 2.0), pupil)
        pupil = (pupil - gradient).detach()
    assert int(pupil.argmax(dim=1)) == int(teacher.argmax(dim=1))
    assert float(confidence(pupil)) == pytest.approx(float(confidence(teacher)), abs=0.01)
