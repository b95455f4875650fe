"""Compare the supervised loss (Dice and cross-entropy) with loops over voxels and with formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dcamt.losses.supervised import class_weights, dice_cross_entropy, soft_dice_loss
from torch import Tensor


def reference_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return half the Dice loss plus half the weighted cross-entropy."""
    samples, classes, *size = logits.shape
    cross_entropies, dice_losses = [], []
    for sample in range(samples):
        counts = [int((labels[sample] == k).sum()) for k in range(classes)]
        present = [count for count in counts[1:] if count]
        weight = [1.0, *(min(10.0, sum(present) / len(present) / count) if count else 0.0 for count in counts[1:])]
        overlap, predicted, labelled = np.zeros(classes), np.zeros(classes), np.zeros(classes)
        for voxel in np.ndindex(*size):
            z = logits[(sample, slice(None), *voxel)]
            p = np.exp(z) / np.exp(z).sum()
            truth = labels[(sample, *voxel)]
            cross_entropies.append(-weight[truth] * math.log(p[truth]))
            overlap[truth] += p[truth]
            predicted += p
            labelled[truth] += 1
        for k in range(1, classes):
            missed = 1 - (2 * overlap[k] + 1) / (predicted[k] + labelled[k] + 1)
            dice_losses.append(missed * labelled[k] / (labelled[k] + 1))
    return 0.5 * (float(np.mean(cross_entropies)) + float(np.mean(dice_losses)))


def random_logits_and_labels(classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, classes, 3, 4, 2, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (3, 3, 4, 2), generator=generator)


def confident_logits(labels: Tensor, classes: int) -> Tensor:
    return 60.0 * torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).double()


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_loss_equals_a_loop_over_voxels(classes: int) -> None:
    for seed in range(3):
        logits, labels = random_logits_and_labels(classes, seed)
        if seed == 2:
            labels[labels == classes - 1] = 0
        expected = reference_loss(logits.numpy(), labels.numpy())
        assert float(dice_cross_entropy(logits, labels)) == pytest.approx(expected, rel=1e-12)


def test_class_weights_balance_the_foreground_classes() -> None:
    labels = torch.zeros(2, 10, 10, 10, dtype=torch.int64)
    labels[0, :5], labels[0, 5], labels[0, 6, :1] = 1, 2, 3  # 500, 100 and 10 voxels
    labels[1, 0, 0, 0] = 2
    target = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1)
    weights = class_weights(target, torch.float64)
    mean = (500 + 100 + 10) / 3
    assert weights[0].tolist() == pytest.approx([1, mean / 500, mean / 100, 10])  # 203 / 10 is cut to 10
    assert float(weights[1, 2]) == 1  # the only foreground class of sample 1
    labels[0, 6, :1] = 0
    sizes = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).sum((2, 3, 4))
    weights = class_weights(torch.nn.functional.one_hot(labels, 4).movedim(-1, 1), torch.float64)
    assert float((weights * sizes)[0, 1:].sum()) == pytest.approx(500 + 100)
    assert float((weights * sizes)[0, 1]) == pytest.approx(float((weights * sizes)[0, 2]))


def test_dice_loss_does_not_depend_on_the_probability_of_an_absent_class() -> None:
    logits, labels = random_logits_and_labels(3)
    labels[0][labels[0] == 2] = 0
    logits[0, 2] += 3
    probabilities, target = logits.softmax(dim=1), torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
    (gradient,) = torch.autograd.grad(
        soft_dice_loss(probabilities.requires_grad_(), target), probabilities, retain_graph=True
    )
    assert not gradient[0, 2].any()
    assert (gradient[0, 1] != 0).all()
    assert (gradient[1:, 1:] != 0).all()


def test_dice_loss_of_a_soft_target_follows_its_formula() -> None:
    target = torch.zeros(1, 2, 2, 2, 2, dtype=torch.float64)
    target[0, 1, 0, 0, 0] = 0.5
    nothing = torch.zeros_like(target)
    assert float(soft_dice_loss(nothing, target)) == pytest.approx(0.5 / 1.5 * (1 - 1 / 1.5))


@pytest.mark.parametrize("classes", [2, 4])
def test_loss_is_0_for_a_right_prediction_and_large_for_a_wrong_one(classes: int) -> None:
    _, labels = random_logits_and_labels(classes)
    assert float(dice_cross_entropy(confident_logits(labels, classes), labels)) == pytest.approx(0, abs=1e-12)
    empty = torch.zeros_like(labels)
    assert float(dice_cross_entropy(confident_logits(empty, classes), empty)) == pytest.approx(0, abs=1e-12)
    wrong = (labels + 1) % classes
    assert float(dice_cross_entropy(confident_logits(wrong, classes), labels)) > 20


def test_loss_of_equal_logits_follows_its_formula() -> None:
    labels = torch.zeros(1, 4, 5, 6, dtype=torch.int64)
    labels[0, :2, :3, :4] = 1  # n = 24 of 120
    labels[0, 3, 4, 5] = 2  # n = 1
    probability = 1 / 3  # of each class in each voxel
    dice = [n / (n + 1) * (1 - (2 * n * probability + 1) / (120 * probability + n + 1)) for n in (24, 1)]
    # The foreground classes have 12.5 voxels on average. Each of the 24 voxels of class 1 weighs 12.5 / 24; together
    # they weigh 12.5. The weight of the voxel of class 2, 12.5 / 1, is cut to 10 (`MAX_CLASS_WEIGHT`).
    expected = 0.5 * (-math.log(probability) * (95 + 12.5 + 10) / 120 + sum(dice) / 2)
    assert float(dice_cross_entropy(torch.zeros(1, 3, 4, 5, 6, dtype=torch.float64), labels)) == pytest.approx(expected)


def test_gradient_equals_finite_differences_and_lowers_the_loss() -> None:
    logits, labels = random_logits_and_labels(3)
    logits = logits[:1, :, :2, :2].clone().requires_grad_()
    labels = labels[:1, :2, :2]
    assert torch.autograd.gradcheck(lambda z: dice_cross_entropy(z, labels), (logits,))
    for _ in range(200):
        (gradient,) = torch.autograd.grad(dice_cross_entropy(logits, labels), logits)
        logits = (logits - 5 * gradient).detach().requires_grad_()
    assert torch.equal(logits.argmax(dim=1), labels)
    assert float(dice_cross_entropy(logits.detach(), labels)) < 0.05


def test_loss_does_not_depend_on_the_order_of_samples_or_classes() -> None:
    logits, labels = random_logits_and_labels(4)
    loss = float(dice_cross_entropy(logits, labels))
    assert float(dice_cross_entropy(logits.flip(0), labels.flip(0))) == pytest.approx(loss)
    order = torch.tensor([0, 3, 1, 2])  # the background keeps its place
    renamed = torch.argsort(order)[labels]
    assert float(dice_cross_entropy(logits[:, order], renamed)) == pytest.approx(loss)
