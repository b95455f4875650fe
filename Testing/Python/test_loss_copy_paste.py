"""Copy-paste against loops over single voxels: boxes, partners, images, labels, gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
from dcamt.losses.copy_paste import copy_paste, partners, random_box
from dcamt.losses.supervised import dice_cross_entropy
from dcamt_testing.synthetic import CPU
from torch import Tensor

SIZE = (6, 5, 4)


def case(labelled: int, unlabelled: int, channels: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, labels, pseudo-labels of all values differing from one another, and a box."""
    count = (labelled + unlabelled) * channels * SIZE[0] * SIZE[1] * SIZE[2]
    images = torch.arange(count, dtype=torch.float64).reshape(labelled + unlabelled, channels, *SIZE)
    codes = torch.arange((labelled + unlabelled) * SIZE[0] * SIZE[1] * SIZE[2]).reshape(-1, *SIZE)
    return images, codes[:labelled], codes[labelled:], random_box(SIZE, torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("labelled", "unlabelled"), [(1, 1), (2, 2), (1, 3), (3, 1), (5, 2)])
def test_every_voxel_comes_from_where_it_should(labelled: int, unlabelled: int) -> None:
    images, labels, guesses, inside = case(labelled, unlabelled)
    mixed, targets = copy_paste(images, labels, guesses, inside)
    assert mixed.shape == (2 * labelled, 2, *SIZE)
    assert targets.shape == (2 * labelled, *SIZE)
    for index in range(labelled):
        other = index % unlabelled
        for x, y, z in itertools.product(*map(range, SIZE)):
            voxel = (x, y, z)
            for row, takes_other in ((index, bool(inside[voxel])), (labelled + index, not inside[voxel])):
                source = labelled + other if takes_other else index
                label = guesses[other] if takes_other else labels[index]
                assert mixed[(row, slice(None), *voxel)].tolist() == images[(source, slice(None), *voxel)].tolist()
                assert targets[(row, *voxel)] == label[voxel]


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "expected"),
    [(3, 3, [0, 1, 2]), (2, 5, [0, 1]), (5, 2, [0, 1, 0, 1, 0]), (3, 1, [0] * 3)],
)
def test_partners_are_counted_round(labelled: int, unlabelled: int, expected: list[int]) -> None:
    assert partners(labelled, unlabelled, CPU).tolist() == expected


@pytest.mark.parametrize(
    ("size", "sides"),
    [((12, 9, 6), (8, 6, 4)), ((16, 16, 8), (11, 11, 5)), ((1, 2, 3), (1, 1, 2)), ((112, 112, 80), (75, 75, 53))],
)
def test_a_box_has_two_thirds_of_each_side(size: tuple[int, int, int], sides: tuple[int, int, int]) -> None:
    for seed in range(5):
        inside = random_box(size, torch.Generator().manual_seed(seed))
        assert inside.shape == size
        assert inside.dtype == torch.bool
        places = inside.nonzero()
        low, high = places.min(dim=0).values, places.max(dim=0).values
        assert (high - low + 1).tolist() == list(sides)
        assert len(places) == sides[0] * sides[1] * sides[2]  # full, so it is a box


def test_a_box_lies_anywhere_and_is_repeatable() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = {tuple(random_box((6, 6, 3), generator).nonzero()[0].tolist()) for _ in range(400)}
    assert corners == set(itertools.product(range(3), range(3), range(2)))
    again = [random_box((9, 9, 9), torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*again)


def test_gradients_reach_each_image_where_it_was_taken() -> None:
    images, labels, guesses, inside = case(labelled=3, unlabelled=2, channels=1)
    images.requires_grad_()
    weights = torch.randn(6, 1, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mixed, _ = copy_paste(images, labels, guesses, inside)
    (gradient,) = torch.autograd.grad((mixed * weights).sum(), images)
    expected = torch.zeros_like(gradient)
    for index in range(3):
        other = 3 + index % 2
        for voxel in itertools.product(*map(range, SIZE)):
            first, second = (other, index) if inside[voxel] else (index, other)
            expected[(first, 0, *voxel)] += weights[(index, 0, *voxel)]
            expected[(second, 0, *voxel)] += weights[(3 + index, 0, *voxel)]
    assert torch.allclose(gradient, expected, rtol=0, atol=1e-12)


def test_a_network_that_is_right_everywhere_has_no_loss_on_mixed_patches() -> None:
    """Mixed images keep their own mixed labels: what reads the label off the image is right at every voxel."""
    generator = torch.Generator().manual_seed(2)
    truth = torch.randint(3, (4, *SIZE), generator=generator)
    images = truth[:, None].double()
    inside = random_box(SIZE, generator)
    mixed, targets = copy_paste(images, truth[:2], truth[2:], inside)
    logits = 50.0 * torch.nn.functional.one_hot(mixed[:, 0].long(), 3).movedim(-1, 1).double()
    assert float(dice_cross_entropy(logits, targets)) == pytest.approx(0, abs=1e-9)
    mirrored = torch.cat([targets[2:], targets[:2]])
    assert float(dice_cross_entropy(logits, mirrored)) > 1
