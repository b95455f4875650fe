"""Random transforms and intensities, each kind of change compared with its closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dcamt.recipe import Augmentation
from dcamt.training.augmentation import change_intensities, random_transform
from torch import Tensor

OFF = {"rotation_degrees": 0.0, "scale": 0.0, "gain": 0.0, "offset": 0.0, "gamma": 0.0, "noise": 0.0}
SPACING = (1.0, 1.0, 2.0)


def only(**kind: object) -> Augmentation:
    return Augmentation(**{**OFF, **kind})  # type: ignore[arg-type]


def transforms(settings: Augmentation, count: int = 400) -> np.ndarray:
    draw = torch.Generator().manual_seed(1)
    return np.stack([random_transform(settings, draw).numpy() for _ in range(count)])


def images(samples: int = 40) -> Tensor:
    return torch.rand((samples, 2, 5, 6, 7), generator=torch.Generator().manual_seed(2)) * 8 - 4


def changed(settings: Augmentation, source: Tensor, reach: float = 4.0) -> Tensor:
    before = source.clone()
    result = change_intensities(source, settings, reach, torch.Generator().manual_seed(3))
    assert torch.equal(source, before)
    return result


def test_turned_off_nothing_changes() -> None:
    assert np.array_equal(transforms(only(), 5), np.broadcast_to(np.eye(3), (5, 3, 3)))
    assert torch.equal(changed(only(), images()), images())


def test_rotations_are_rotations_within_their_limit() -> None:
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    limit = 15.0
    drawn = transforms(only(rotation_degrees=limit))
    assert np.allclose(drawn @ drawn.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(drawn), 1)
    angles = rotation.from_matrix(drawn).as_euler("XYZ", degrees=True)
    assert np.abs(angles).max() <= limit + 1e-9
    # Normal, of a third of the limit, cut at three deviations.
    assert np.allclose(angles.std(axis=0), limit / 3, rtol=0.12)
    assert np.abs(angles.mean(axis=0)).max() < 4 * limit / 3 / math.sqrt(len(angles))


def test_scaling_is_the_same_along_all_axes_and_even_handed() -> None:
    drawn = transforms(only(scale=0.25))
    factors = drawn[:, 0, 0]
    assert np.allclose(drawn, factors[:, None, None] * np.eye(3))
    assert factors.min() >= 1 / 1.25 - 1e-12
    assert factors.max() <= 1.25 + 1e-12
    assert np.log(factors).std() == pytest.approx(math.log(1.25) / 3, rel=0.12)
    assert 0.4 < (factors > 1).mean() < 0.6


def test_mirroring_along_the_axes_that_allow_it() -> None:
    drawn = transforms(only(flip=(True, False, True)))
    signs = drawn.diagonal(axis1=1, axis2=2)
    assert np.array_equal(drawn, signs[:, :, None] * np.eye(3))
    assert (signs[:, 1] == 1).all()
    for axis in (0, 2):
        assert 0.4 < (signs[:, axis] == -1).mean() < 0.6
    assert 0.15 < ((signs[:, 0] == -1) & (signs[:, 2] == -1)).mean() < 0.35


def test_rotation_scaling_and_mirroring_together_are_their_product() -> None:
    drawn = transforms(Augmentation(rotation_degrees=20, scale=0.1, flip=(True, True, True)), 50)
    size = np.abs(np.linalg.det(drawn)) ** (1 / 3)
    assert np.allclose(drawn @ drawn.transpose(0, 2, 1), size[:, None, None] ** 2 * np.eye(3))
    assert size.max() <= 1.1 + 1e-12


def test_gain_is_a_factor_for_each_sample_and_channel() -> None:
    source = images()
    factors = changed(only(gain=0.3), source) / source
    one = factors[:, :, 0, 0, 0]
    assert torch.allclose(factors, one[:, :, None, None, None].expand_as(factors), rtol=1e-4)
    assert float(one.log().abs().max()) <= 0.3 + 1e-5
    # Uniform in the logarithm: deviation limit / sqrt(3).
    assert float(one.log().std()) == pytest.approx(0.3 / math.sqrt(3), rel=0.2)
    assert len(one.unique()) == one.numel()


def test_offset_is_a_constant_for_each_sample_and_channel() -> None:
    source = images()
    shifts = changed(only(offset=0.3), source) - source
    one = shifts[:, :, 0, 0, 0]
    assert torch.allclose(shifts, one[:, :, None, None, None].expand_as(shifts), atol=1e-5)
    assert float(one.abs().max()) <= 0.3
    assert float(one.std()) == pytest.approx(0.3 / math.sqrt(3), rel=0.2)


def test_gamma_is_a_power_on_the_range_from_minus_4_to_4() -> None:
    source = images()
    found = changed(only(gamma=0.4), source)
    exponents = (((found + 4) / 8).double().log() / ((source + 4) / 8).double().log())[source.abs() < 3.5]
    one = torch.stack([e.median() for e in _by_sample(source, found)])
    assert float(one.log().abs().max()) <= 0.4 + 1e-3
    assert float(one.log().std()) > 0.1
    for sample, exponent in zip(_by_sample(source, found), one, strict=True):
        assert torch.allclose(sample, exponent.expand_as(sample), rtol=1e-3)
    assert len(exponents) > 0
    ends = torch.tensor([-4.0, 4.0, -9.0, 9.0]).reshape(1, 1, 1, 2, 2)
    assert torch.allclose(changed(only(gamma=0.4), ends), ends.clamp(-4, 4))


def test_gamma_takes_the_whole_range_of_the_rule_clip() -> None:
    """The very same curve on [-1, 1] as on [-4, 4]: its ends stay, and its middle moves as far."""
    source = images()
    wide = changed(only(gamma=0.4), source)
    found = changed(only(gamma=0.4), source / 4, reach=1.0)
    assert torch.allclose(found, wide / 4, atol=1e-6)
    middle = changed(only(gamma=0.4), torch.zeros(40, 1, 1, 1, 1), reach=1.0).flatten()
    assert float(middle.min()) == pytest.approx(2 * 0.5 ** math.exp(0.4) - 1, abs=0.03)
    assert float(middle.max()) == pytest.approx(2 * 0.5 ** math.exp(-0.4) - 1, abs=0.03)
    ends = torch.tensor([-1.0, 1.0, -2.0, 2.0]).reshape(1, 1, 1, 2, 2)
    assert torch.allclose(changed(only(gamma=0.4), ends, reach=1.0), ends.clamp(-1, 1))


def _by_sample(source: Tensor, found: Tensor) -> list[Tensor]:
    """Return the gamma exponent of each sample and channel, from its central value."""
    pairs = zip(source.flatten(0, 1), found.flatten(0, 1), strict=True)
    return [(((b + 4) / 8).double().log() / ((a + 4) / 8).double().log())[a.abs() < 3.5] for a, b in pairs]


def test_noise_is_normal_of_a_strength_up_to_its_limit() -> None:
    source = torch.zeros(60, 1, 20, 20, 20)
    noise = changed(only(noise=0.5), source).flatten(1)
    strengths = noise.std(dim=1)
    assert float(strengths.max()) <= 0.5 * 1.05
    assert float(strengths.mean()) == pytest.approx(0.25, rel=0.25)
    standard = (noise - noise.mean(dim=1, keepdim=True)) / strengths[:, None]
    assert float(standard.pow(4).mean()) == pytest.approx(3, rel=0.05)
    assert float((noise.mean(dim=1) / strengths).abs().max()) < 5 / math.sqrt(8000)


def test_draws_depend_on_the_generator_alone() -> None:
    settings = Augmentation()
    torch.manual_seed(0)
    first = changed(settings, images(3))
    torch.manual_seed(99)
    assert torch.equal(changed(settings, images(3)), first)
    other = change_intensities(images(3), settings, 4.0, torch.Generator().manual_seed(4))
    assert not torch.allclose(other, first)
