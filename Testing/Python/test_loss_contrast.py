"""Test the prototypes, the two contrast losses and their gradients against loops and formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dcamt.losses.contrast import inter_class, intra_class, prototypes
from torch import Tensor


def random_unit_vectors(count: int, dimensions: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dimensions, generator=generator, dtype=torch.float64), dim=1)


def random_embeddings(classes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return embeddings, their classes (each at least once), and the prototypes of two branches."""
    labels = torch.cat([torch.arange(classes), torch.randint(classes, (12,), generator=torch.manual_seed(seed))])
    return (
        random_unit_vectors(len(labels), seed=seed),
        labels,
        random_unit_vectors(classes, seed=7),
        random_unit_vectors(classes, seed=8),
    )


def info_nce_by_hand(e: Tensor, labels: Tensor, centres: Tensor, present: list[bool], temperature: float) -> float:
    """Return the loss of eq. 4 of van den Oord et al. (2018)."""
    losses = []
    for vector, label in zip(e.tolist(), labels.tolist(), strict=True):
        scores = [math.exp(math.fsum(map(float.__mul__, vector, c)) / temperature) for c in centres.tolist()]
        losses.append(-math.log(scores[label] / sum(s for s, here in zip(scores, present, strict=True) if here)))
    return math.fsum(losses) / len(losses)


def test_prototypes_are_normalised_means_of_embeddings() -> None:
    e = random_unit_vectors(9)
    labels = torch.tensor([0, 2, 2, 0, 3, 0, 2, 2, 0])
    means, present = prototypes(e, labels, 5)
    assert present.tolist() == [True, False, True, True, False]
    for k in range(5):
        members = e.numpy()[labels.numpy() == k]
        mean = members.mean(axis=0) if len(members) else np.zeros(5)
        expected = mean / np.linalg.norm(mean) if len(members) else mean
        assert np.allclose(means[k].numpy(), expected)
    assert not prototypes(e.clone().requires_grad_(), labels, 5)[0].requires_grad


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_intra_class_loss_equals_a_loop_over_voxels(classes: int) -> None:
    e, labels, own, partner = random_embeddings(classes)
    cosines = [
        0.5 * (e[n].numpy() @ own[k].numpy()) + 0.5 * (e[n].numpy() @ partner[k].numpy())
        for n, k in enumerate(labels.tolist())
    ]
    assert float(intra_class(e, labels, own, partner)) == pytest.approx(1 - float(np.mean(cosines)))


def test_intra_class_loss_ranges_from_0_to_2() -> None:
    centres = random_unit_vectors(3)
    labels = torch.tensor([0, 1, 2, 2])
    e = centres[labels]
    assert float(intra_class(e, labels, centres, centres)) == pytest.approx(0, abs=1e-12)
    assert float(intra_class(-e, labels, centres, centres)) == pytest.approx(2)
    # The loss is the mean over the two branches' prototypes.
    assert float(intra_class(e, labels, centres, -centres)) == pytest.approx(1)
    assert float(intra_class(e, labels, -centres, centres)) == pytest.approx(1)


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_inter_class_loss_equals_info_nce(classes: int, temperature: float) -> None:
    e, labels, own, partner = random_embeddings(classes)
    present = torch.ones(classes, dtype=torch.bool)
    expected = [info_nce_by_hand(e, labels, centres, present.tolist(), temperature) for centres in (own, partner)]
    loss = inter_class(e, labels, own, partner, present, temperature)
    assert float(loss) == pytest.approx(sum(expected) / 2, rel=1e-10)


def test_inter_class_loss_of_orthogonal_prototypes_follows_its_formula() -> None:
    for classes, temperature in ((2, 0.5), (4, 0.5), (4, 2.0)):
        centres = torch.eye(classes, 6, dtype=torch.float64)
        labels = torch.arange(classes)
        present = torch.ones(classes, dtype=torch.bool)
        expected = math.log(1 + (classes - 1) * math.exp(-1 / temperature))
        loss = inter_class(centres, labels, centres, centres, present, temperature)
        assert float(loss) == pytest.approx(expected)
        worse = inter_class(centres, labels.roll(1), centres, centres, present, temperature)
        assert float(worse) == pytest.approx(expected + 1 / temperature)


def test_absent_class_is_not_used_as_a_negative() -> None:
    e, labels, own, partner = random_embeddings(4)
    labels = labels.clamp_max(2)
    all_present, three_present = torch.tensor([True] * 4), torch.tensor([True, True, True, False])
    without = float(inter_class(e, labels, own, partner, three_present, 0.5))
    assert without == pytest.approx(float(inter_class(e, labels, own[:3], partner[:3], three_present[:3], 0.5)))
    assert without < float(inter_class(e, labels, own, partner, all_present, 0.5)) - 0.01
    # With one class there are no negatives, so the loss is 0.
    alone = torch.tensor([False, True, False, False])
    assert float(inter_class(e, torch.ones_like(labels), own, partner, alone, 0.5)) == pytest.approx(0, abs=1e-12)


def test_voxels_without_a_class_are_ignored() -> None:
    # For label -1, `inter_class` computes the loss of class 0 and discards it. If class 0 is absent, this loss is
    # infinite.
    with_class_0, without_class_0 = torch.tensor([0, -1, 2, 1, -1, 2]), torch.tensor([-1, 1, 2, 1, -1, -1])
    for labels in (with_class_0, without_class_0):
        known = labels >= 0
        partner = random_unit_vectors(3, seed=9)
        results: list[list[Tensor]] = []
        for chosen in (slice(None), known):
            x = random_unit_vectors(6).requires_grad_()
            own, present = prototypes(x[chosen], labels[chosen], 3)
            pull = intra_class(x[chosen], labels[chosen], own, partner)
            push = inter_class(x[chosen], labels[chosen], own, partner, present, 0.5)
            results.append([own, present.double(), pull, push, *torch.autograd.grad(pull + 2 * push, x)])
        for of_all, of_known in zip(*results, strict=True):
            assert torch.allclose(of_all, of_known, atol=1e-12)
        assert float(results[0][-1][~known].abs().max()) == 0 < float(results[0][-1][known].abs().max())


def test_descent_moves_an_embedding_to_its_prototype_and_away_from_the_others() -> None:
    """The prototype of class n is the n-th unit vector.

    If the n-th component of the gradient is negative, descent moves the embedding towards this prototype.
    """
    centres = torch.eye(3, dtype=torch.float64)
    e = torch.ones(1, 3, dtype=torch.float64).div(math.sqrt(3)).requires_grad_()
    label, present = torch.tensor([1]), torch.ones(3, dtype=torch.bool)
    (pull,) = torch.autograd.grad(intra_class(e, label, centres, centres), e)
    assert pull.flatten().tolist() == pytest.approx([0, -1, 0])
    # The gradient of InfoNCE is (softmax - one-hot) / T; here each softmax is 1/3.
    (push,) = torch.autograd.grad(inter_class(e, label, centres, centres, present, 0.5), e)
    assert push.flatten().tolist() == pytest.approx([2 / 3, -4 / 3, 2 / 3])


def test_prototypes_have_no_gradient() -> None:
    e, labels, _, partner = random_embeddings(3)
    gradients: list[Tensor] = []
    for from_the_embeddings in (True, False):
        x = e.clone().requires_grad_()
        own, present = prototypes(x if from_the_embeddings else e.clone(), labels, 3)
        loss = intra_class(x, labels, own, partner) + inter_class(x, labels, own, partner, present, 0.5)
        gradients += torch.autograd.grad(loss, x)
    assert torch.equal(*gradients)
    assert float(gradients[0].abs().max()) > 0
