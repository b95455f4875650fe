"""Test the squared maximum mean discrepancy (MMD)."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from dcamt.losses.mmd import mmd2
from torch import Tensor


def squared_distance(u: list[float], v: list[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(u, v, strict=True))


def reference_median(x: list[list[float]], y: list[list[float]]) -> float:
    both = x + y
    pairs = [squared_distance(both[i], both[j]) for i in range(len(both)) for j in range(i)]
    return statistics.median_low(pairs)  # like torch.median, the lower of two middle values


def reference_mmd2(x: list[list[float]], y: list[list[float]], median: float) -> float:
    """Return the biased estimate of Gretton et al. (2012), eq. 5."""

    def kernel(u: list[float], v: list[float]) -> float:
        squared = squared_distance(u, v)
        return sum(math.exp(-squared / (2 * median * multiple)) for multiple in (0.25, 0.5, 1, 2, 4)) / 5

    def mean(first: list[list[float]], second: list[list[float]]) -> float:
        return sum(kernel(u, v) for u in first for v in second) / (len(first) * len(second))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def random_sets(n: int, m: int, dimensions: int = 4, shift: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dimensions, generator=generator, dtype=torch.float64)
    return x, torch.randn(m, dimensions, generator=generator, dtype=torch.float64) + shift


@pytest.mark.parametrize(("n", "m"), [(3, 4), (2, 4), (5, 5), (1, 6), (6, 1), (4, 5)])
def test_mmd_equals_a_reference_that_loops_over_pairs(n: int, m: int) -> None:
    for seed, shift in ((0, 0.0), (1, 0.7), (2, 5.0)):
        x, y = random_sets(n, m, shift=shift, seed=seed)
        expected = reference_mmd2(x.tolist(), y.tolist(), reference_median(x.tolist(), y.tolist()))
        assert float(mmd2(x, y)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert float(mmd2(x.float(), y.float())) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_mmd_of_a_set_with_itself_is_0_in_any_order() -> None:
    x, y = random_sets(9, 1)
    assert float(mmd2(x, x)) == pytest.approx(0, abs=1e-12)
    assert float(mmd2(x, x.flip(0))) == pytest.approx(0, abs=1e-12)
    assert float(mmd2(x, torch.cat([x, x]))) == pytest.approx(0, abs=1e-12)
    zeros = torch.zeros(5, 4)
    assert float(mmd2(zeros, zeros)) == 0
    assert float(mmd2(x, y)) > 0.1


def test_mmd_of_two_points_does_not_depend_on_their_distance() -> None:
    # The kernels divide the squared distance by the median of all pairs' squared distances. Two points form only one
    # pair, so the quotient is 1.
    expected = 2 - 2 * sum(math.exp(-1 / (2 * m)) for m in (0.25, 0.5, 1, 2, 4)) / 5
    for distance in (0.01, 1.0, 300.0):
        x, y = torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), distance, dtype=torch.float64)
        assert float(mmd2(x, y)) == pytest.approx(expected)


def test_mmd_is_symmetric_non_negative_and_unchanged_by_scaling_shift_and_rotation() -> None:
    for seed in range(5):
        x, y = random_sets(7, 11, shift=0.2 * seed, seed=seed)
        distance = float(mmd2(x, y))
        assert distance >= 0
        assert float(mmd2(y, x)) == pytest.approx(distance)
        assert float(mmd2(3 * x, 3 * y)) == pytest.approx(distance)
        assert float(mmd2(x + 5, y + 5)) == pytest.approx(distance)
        turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
        assert float(mmd2(x @ turn, y @ turn)) == pytest.approx(distance)


def test_mmd_grows_with_the_difference_of_two_distributions() -> None:
    values = [float(mmd2(*random_sets(200, 200, shift=shift))) for shift in (0.0, 0.3, 0.6, 1.2, 2.4)]
    assert values == sorted(values)
    assert values[0] < 0.02 < 0.3 < values[-1]
    # Sets of equal mean but different spread differ too.
    x, y = random_sets(200, 200)
    assert float(mmd2(x, 3 * y)) > 5 * float(mmd2(x, y))


def test_gradient_treats_the_median_as_a_constant() -> None:
    x, y = random_sets(3, 3, dimensions=2, shift=1.0)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(mmd2(x, y), x)
    median, step = reference_median(x.tolist(), y.tolist()), 1e-5
    moving_median_differs = False
    for i in range(3):
        for j in range(2):
            values = {}
            for sign in (-1, 1):
                moved = x.detach().clone()
                moved[i, j] += sign * step
                values[sign] = reference_mmd2(moved.tolist(), y.tolist(), median)
                values[2 * sign] = reference_mmd2(
                    moved.tolist(), y.tolist(), reference_median(moved.tolist(), y.tolist())
                )
            assert float(gradient[i, j]) == pytest.approx((values[1] - values[-1]) / (2 * step), abs=1e-8)
            moving_median_differs |= abs((values[2] - values[-2]) / (2 * step) - float(gradient[i, j])) > 1e-4
    assert moving_median_differs
    assert float((gradient.sum(dim=0) * (y.mean(dim=0) - x.detach().mean(dim=0))).sum()) < 0


def test_gradient_is_finite_when_vectors_are_equal() -> None:
    for x, y in ((torch.ones(4, 3), torch.ones(4, 3)), (torch.zeros(4, 3), torch.zeros(2, 3)), (torch.eye(3),) * 2):
        x = x.clone().requires_grad_()
        mmd2(x, y).backward()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()
