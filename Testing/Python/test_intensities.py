"""Test the intensity rules of preprocessing against SciPy and formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dcamt import preprocessing
from dcamt.geometry import NetworkGrid
from dcamt.preprocessing import normalise, scan_to_network
from dcamt.recipe import Intensity, Recipe
from dcamt.volume import Volume
from dcamt_testing.analytic_scans import centred_grid
from scipy import ndimage


def test_clip_maps_its_limits_to_minus_1_and_1() -> None:
    values = torch.tensor([-2000.0, -125.0, 75.0, 275.0, 175.0, 9e4]).reshape(1, 6, 1, 1)
    result = normalise(values, Intensity("clip", low=-125, high=275), (1, 1, 1)).flatten()
    assert torch.allclose(result, torch.tensor([-1.0, -1.0, 0.0, 1.0, 0.5, 1.0]), atol=1e-6)


def scipy_local(image: np.ndarray, reach: tuple[int, int, int]) -> np.ndarray:
    """Return an image normalised by the rule `local`, with SciPy's running mean over the voxels inside the image."""

    def smooth(values: np.ndarray) -> np.ndarray:
        for axis, steps in enumerate(reach):
            inside = ndimage.uniform_filter1d(np.ones(image.shape), 2 * steps + 1, axis=axis, mode="constant")
            for _ in range(3):
                running = ndimage.uniform_filter1d(values, 2 * steps + 1, axis=axis, mode="constant")
                values = running / inside
        return values

    image = image.astype(np.float64)
    mean, square = smooth(image), smooth(image**2)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return np.clip((image - mean) / (deviation + 1e-3 * np.sqrt(square) + 1e-12), -4, 4)


def correlated_noise(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    """Return correlated positive noise, as in a magnitude image."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.0)
    return np.abs(values / values.std() * 50 + 120).astype(np.float32)


RULE = Intensity("local", radius_mm=6.0)


@pytest.mark.parametrize(("slab", "moments"), [(1, 1 << 26), (700, 1), (1 << 18, 10_000), (1 << 18, 1 << 26)])
def test_local_normalisation_agrees_with_scipy(slab: int, moments: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "SLAB", slab)
    monkeypatch.setattr(preprocessing, "MOMENTS", moments)
    image = np.stack([correlated_noise((37, 30, 21), 1), correlated_noise((37, 30, 21), 2) * 9])
    result = normalise(torch.from_numpy(image), RULE, (1.5, 1.0, 4.0)).numpy()
    for channel in range(2):
        assert np.abs(result[channel] - scipy_local(image[channel], (4, 6, 2))).max() < 1e-4
    assert result.std() > 0.5


def test_local_normalisation_hardly_depends_on_gain_or_offset() -> None:
    image = torch.from_numpy(correlated_noise((32, 30, 28)))[None]
    expected = normalise(image, RULE, (1, 1, 1))
    for gain in (1e-3, 0.37, 250.0):
        assert (normalise(image * gain, RULE, (1, 1, 1)) - expected).abs().max() < 1e-4
    # The divisor is the deviation plus a thousandth of the root mean square. An offset changes the root mean square.
    for offset in (-120.0, 100.0, 400.0):
        relative_effect = 1e-3 * (abs(offset) + 120 + 50) / 30
        assert (normalise(image + offset, RULE, (1, 1, 1)) - expected).abs().max() < 4 * relative_effect
    # Squares of large values need double precision.
    far = normalise(image + 60000, RULE, (1, 1, 1)).numpy()
    assert np.abs(far[0] - scipy_local((image + 60000)[0].numpy(), (6, 6, 6))).max() < 1e-3


def test_cropping_changes_local_normalisation_only_near_the_new_border() -> None:
    image = torch.from_numpy(correlated_noise((70, 64, 60)))[None]
    whole = normalise(image, RULE, (1.5, 1.5, 1.5))
    crop = (slice(None), slice(8, 66), slice(5, 60), slice(3, 55))
    cropped = normalise(image[crop], RULE, (1.5, 1.5, 1.5))
    support = 3 * 4  # the mean uses three box filters in turn; each reaches four voxels to each side
    far = (slice(None), *(slice(support, -support) for _ in range(3)))
    assert (cropped - whole[crop])[far].abs().max() < 1e-5
    interior = (slice(None), *(slice(4, -4) for _ in range(3)))
    assert (cropped - whole[crop])[interior].abs().mean() < 0.05
    assert (cropped - whole[crop]).abs().max() > 1e-2


@pytest.mark.parametrize("level", [0.0, 1.0, 731.3])
def test_constant_part_of_an_image_is_mapped_to_0(level: float) -> None:
    image = torch.full((1, 40, 36, 32), level)
    image[:, 28:] = torch.from_numpy(correlated_noise((12, 36, 32)))
    result = normalise(image, RULE, (1.5, 1.5, 1.5))
    assert result[:, : 28 - 12].abs().max() < 1e-3
    assert result[:, 30:].std() > 0.3


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<u2", "<u4", "<f8", ">f4"])
def test_image_does_not_depend_on_the_stored_data_type(dtype: str, tiny_recipe: Recipe) -> None:
    grid = centred_grid((16, 14, 12), (1.5, 1.5, 2.0))
    voxels = np.rint(correlated_noise((1, *grid.shape))).clip(0, 255)
    expected, _ = scan_to_network(Volume(voxels, grid), tiny_recipe)
    image, network = scan_to_network(Volume(voxels.astype(dtype), grid), tiny_recipe)
    assert isinstance(network, NetworkGrid)
    assert image.dtype == torch.float32
    assert torch.equal(image, expected)
