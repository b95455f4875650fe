"""Random transforms and intensity changes: their matrices, limits and distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dcamt.recipe import Augmentation
from dcamt.training.augmentation import change_intensities, mm_to_voxels, random_transform
from torch import Tensor

OFF = {"rotation_degrees": 0.0, "scale": 0.0, "gain": 0.0, "offset": 0.0, "gamma": 0.0, "noise": 0.0, "mix": 0.0}
SPACING = (1.0, 1.0, 2.0)


def augmentation_of(**changes: object) -> Augmentation:
    return Augmentation(**{**OFF, **changes})  # type: ignore[arg-type]


def draw_transforms(settings: Augmentation, count: int = 400) -> np.ndarray:
    draw = torch.Generator().manual_seed(1)
    return np.stack([random_transform(settings, draw).numpy() for _ in range(count)])


def random_images(samples: int = 40) -> Tensor:
    return torch.rand((samples, 2, 5, 6, 7), generator=torch.Generator().manual_seed(2)) * 8 - 4


def change_and_keep_source(settings: Augmentation, source: Tensor, reach: float = 4.0) -> Tensor:
    before = source.clone()
    result = change_intensities(source, settings, reach, torch.Generator().manual_seed(3))
    assert torch.equal(source, before)
    return result


def test_equal_spacings_leave_the_matrix_unchanged() -> None:
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(mm_to_voxels(matrix, (0.7, 0.7, 0.7)), matrix)


def test_transform_in_voxels_agrees_with_the_transform_in_mm() -> None:
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sides, displacement = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64), torch.tensor([3.0, -1.0, 2.0]).double()
    moved = mm_to_voxels(matrix, (1.0, 2.0, 4.0)) @ displacement
    assert torch.allclose(moved, (matrix @ (displacement * sides)) / sides)


def test_augmentation_changes_nothing_when_turned_off() -> None:
    assert np.array_equal(draw_transforms(augmentation_of(), 5), np.broadcast_to(np.eye(3), (5, 3, 3)))
    assert torch.equal(change_and_keep_source(augmentation_of(), random_images()), random_images())


def test_rotation_angles_are_normal_and_within_the_limit() -> None:
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    limit = 15.0
    drawn = draw_transforms(augmentation_of(rotation_degrees=limit))
    assert np.allclose(drawn @ drawn.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(drawn), 1)
    angles = rotation.from_matrix(drawn).as_euler("XYZ", degrees=True)
    assert np.abs(angles).max() <= limit + 1e-9
    # The angles are normal with a standard deviation of a third of the limit, clipped at the limit.
    assert np.allclose(angles.std(axis=0), limit / 3, rtol=0.12)
    assert np.abs(angles.mean(axis=0)).max() < 4 * limit / 3 / math.sqrt(len(angles))
    assert (angles**4).mean() / (angles**2).mean() ** 2 == pytest.approx(3, rel=0.15)  # kurtosis; 1.8 if uniform


def test_scaling_is_isotropic_and_enlarges_about_as_often_as_it_shrinks() -> None:
    drawn = draw_transforms(augmentation_of(scale=0.25))
    factors = drawn[:, 0, 0]
    assert np.allclose(drawn, factors[:, None, None] * np.eye(3))
    assert factors.min() >= 1 / 1.25 - 1e-12
    assert factors.max() <= 1.25 + 1e-12
    assert np.log(factors).std() == pytest.approx(math.log(1.25) / 3, rel=0.12)
    assert 0.4 < (factors > 1).mean() < 0.6


def test_mirroring_affects_only_the_allowed_axes() -> None:
    drawn = draw_transforms(augmentation_of(flip=(True, False, True)))
    signs = drawn.diagonal(axis1=1, axis2=2)
    assert np.array_equal(drawn, signs[:, :, None] * np.eye(3))
    assert (signs[:, 1] == 1).all()
    for axis in (0, 2):
        assert 0.4 < (signs[:, axis] == -1).mean() < 0.6
    assert 0.15 < ((signs[:, 0] == -1) & (signs[:, 2] == -1)).mean() < 0.35


def test_combined_transform_is_a_scaled_orthogonal_matrix() -> None:
    drawn = draw_transforms(Augmentation(rotation_degrees=20, scale=0.1, flip=(True, True, True)), 50)
    size = np.abs(np.linalg.det(drawn)) ** (1 / 3)
    assert np.allclose(drawn @ drawn.transpose(0, 2, 1), size[:, None, None] ** 2 * np.eye(3))
    assert size.max() <= 1.1 + 1e-12


def test_gain_is_one_factor_per_sample_and_channel() -> None:
    source = random_images()
    factors = change_and_keep_source(augmentation_of(gain=0.3), source) / source
    one = factors[:, :, 0, 0, 0]
    assert torch.allclose(factors, one[:, :, None, None, None].expand_as(factors), rtol=1e-4)
    assert float(one.log().abs().max()) <= 0.3 + 1e-5
    # The logarithm is uniform in [-limit, limit]: its standard deviation is limit / sqrt(3).
    assert float(one.log().std()) == pytest.approx(0.3 / math.sqrt(3), rel=0.2)
    assert len(one.unique()) == one.numel()


def test_offset_is_one_constant_per_sample_and_channel() -> None:
    source = random_images()
    shifts = change_and_keep_source(augmentation_of(offset=0.3), source) - source
    one = shifts[:, :, 0, 0, 0]
    assert torch.allclose(shifts, one[:, :, None, None, None].expand_as(shifts), atol=1e-5)
    assert float(one.abs().max()) <= 0.3
    assert float(one.std()) == pytest.approx(0.3 / math.sqrt(3), rel=0.2)


def test_gamma_raises_intensities_to_a_random_power() -> None:
    source = random_images()
    image = change_and_keep_source(augmentation_of(gamma=0.4), source)
    exponents = _exponents(source, image)
    medians = torch.stack([voxels.median() for voxels in exponents])
    assert float(medians.log().abs().max()) <= 0.4 + 1e-3
    assert float(medians.log().std()) > 0.1
    for voxels, exponent in zip(exponents, medians, strict=True):
        assert torch.allclose(voxels, exponent.expand_as(voxels), rtol=1e-3)
    ends = torch.tensor([-4.0, 4.0, -9.0, 9.0]).reshape(1, 1, 1, 2, 2)
    assert torch.allclose(change_and_keep_source(augmentation_of(gamma=0.4), ends), ends.clamp(-4, 4))


def test_gamma_adapts_to_the_range_of_intensities() -> None:
    source = random_images()
    wide = change_and_keep_source(augmentation_of(gamma=0.4), source)
    image = change_and_keep_source(augmentation_of(gamma=0.4), source / 4, reach=1.0)
    assert torch.allclose(image, wide / 4, atol=1e-6)
    middle = change_and_keep_source(augmentation_of(gamma=0.4), torch.zeros(40, 1, 1, 1, 1), reach=1.0).flatten()
    assert float(middle.min()) == pytest.approx(2 * 0.5 ** math.exp(0.4) - 1, abs=0.03)
    assert float(middle.max()) == pytest.approx(2 * 0.5 ** math.exp(-0.4) - 1, abs=0.03)
    ends = torch.tensor([-1.0, 1.0, -2.0, 2.0]).reshape(1, 1, 1, 2, 2)
    assert torch.allclose(change_and_keep_source(augmentation_of(gamma=0.4), ends, reach=1.0), ends.clamp(-1, 1))


def _exponents(source: Tensor, image: Tensor) -> list[Tensor]:
    """Return the exponents of the voxels of each sample and channel, without voxels near the ends of [-4, 4]."""
    pairs = zip(source.flatten(0, 1), image.flatten(0, 1), strict=True)
    return [(((b + 4) / 8).double().log() / ((a + 4) / 8).double().log())[a.abs() < 3.5] for a, b in pairs]


def test_noise_is_normal_with_a_random_strength_up_to_the_limit() -> None:
    source = torch.zeros(60, 1, 20, 20, 20)
    noise = change_and_keep_source(augmentation_of(noise=0.5), source).flatten(1)
    strengths = noise.std(dim=1)
    assert float(strengths.max()) <= 0.5 * 1.05
    assert float(strengths.mean()) == pytest.approx(0.25, rel=0.25)
    standard = (noise - noise.mean(dim=1, keepdim=True)) / strengths[:, None]
    assert float(standard.pow(4).mean()) == pytest.approx(3, rel=0.05)
    assert float((noise.mean(dim=1) / strengths).abs().max()) < 5 / math.sqrt(8000)


def test_intensity_changes_use_only_the_given_generator() -> None:
    settings = Augmentation()
    torch.manual_seed(0)
    first = change_and_keep_source(settings, random_images(3))
    torch.manual_seed(99)
    assert torch.equal(change_and_keep_source(settings, random_images(3)), first)
    other = change_intensities(random_images(3), settings, 4.0, torch.Generator().manual_seed(4))
    assert not torch.allclose(other, first)
