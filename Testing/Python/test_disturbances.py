"""Disturbances change the image of a scan; all but two keep the organs in place."""

from __future__ import annotations

import numpy as np
import pytest
from dcamt.geometry import Grid
from dcamt.inference.disturbances import CALIBRATING, LabelledScan, adjust_gamma, coarsen


@pytest.mark.parametrize("name", CALIBRATING)
def test_disturbance_changes_the_image_and_leaves_its_input_unchanged(name: str) -> None:
    draw = np.random.default_rng(0)
    image = draw.random((2, 12, 12, 12)) * 100
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[3:6, 3:9, 3:9], labels[6:9, 3:9, 3:9] = 1, 2
    before = image.copy(), labels.copy()
    scan = LabelledScan(image, labels, Grid((12, 12, 12), np.eye(4)))
    disturbed = CALIBRATING[name](scan, np.random.default_rng(1))
    assert disturbed.image.shape == (2, *disturbed.grid.shape)
    assert disturbed.labels.shape == disturbed.grid.shape
    assert np.isfinite(disturbed.image).all()
    assert disturbed.image.shape != image.shape or not np.allclose(disturbed.image, image)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])
    if name not in ("no organ", "upside down"):
        index = np.argwhere(disturbed.labels > 0)
        centre = disturbed.grid.affine[:3, :3] @ index.mean(axis=0) + disturbed.grid.affine[:3, 3]
        np.testing.assert_allclose(centre, [5.5, 5.5, 5.5], atol=1)


def test_noise_is_unbiased_in_ct_and_keeps_magnitude_images_non_negative() -> None:
    labels, grid = np.zeros((12, 12, 12), np.uint8), Grid((12, 12, 12), np.eye(4))
    image = np.full((1, 12, 12, 12), -1000.0)
    image[0, 6:] = 400.0
    noisy = CALIBRATING["noise"](LabelledScan(image, labels, grid), np.random.default_rng(0)).image
    assert noisy[0, :6].mean() == pytest.approx(-1000, abs=15)
    assert noisy[0, 6:].mean() == pytest.approx(400, abs=15)
    assert noisy[0, :6].std() == pytest.approx(100, rel=0.1)
    magnitudes = CALIBRATING["noise"](LabelledScan(image.clip(0), labels, grid), np.random.default_rng(0)).image
    assert magnitudes.min() >= 0


def test_coarse_voxels_are_centred_on_the_voxels_that_they_average() -> None:
    affine = np.array([[0.0, 0.7, 0.1, 5.0], [0.6, 0.0, 0.0, -3.0], [0.0, -0.2, 2.5, 9.0], [0.0, 0.0, 0.0, 1.0]])
    shape = (13, 12, 24)
    index = np.stack([*np.indices(shape), np.ones(shape)])
    positions = np.einsum("ab,bijk->aijk", affine, index)[:3]  # each voxel's R, A and S, in mm
    scan = LabelledScan(positions, np.zeros(shape, np.uint8), Grid(shape, affine))
    coarse = coarsen((2, 1, 6))(scan, np.random.default_rng(0))
    assert coarse.grid.shape == (6, 12, 4)
    index = np.stack([*np.indices(coarse.grid.shape), np.ones(coarse.grid.shape)])
    np.testing.assert_allclose(coarse.image, np.einsum("ab,bijk->aijk", coarse.grid.affine, index)[:3], atol=1e-9)


@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_gamma_keeps_the_range_of_the_intensities(exponent: float) -> None:
    labels, grid = np.zeros((3, 3, 3), np.uint8), Grid((3, 3, 3), np.eye(4))
    image = np.linspace(-100, 300, 27).reshape(1, 3, 3, 3)
    changed = adjust_gamma(exponent)(LabelledScan(image, labels, grid), np.random.default_rng(0)).image
    assert (changed.min(), changed.max()) == pytest.approx((-100, 300))
    middle = np.interp(0.5, [0, 1], [-100, 300])
    assert np.sign(changed[0, 1, 1, 1] - middle) == np.sign(1 - exponent)
    assert (np.diff(changed.ravel()) > 0).all()


@pytest.mark.parametrize("name", CALIBRATING)
def test_channel_with_small_values_is_disturbed_as_if_its_values_were_large(name: str) -> None:
    image = np.random.default_rng(0).random((2, 12, 12, 12)) * 1000
    scale = np.array([1, 1e-3]).reshape(2, 1, 1, 1)
    labels, grid = np.ones((12, 12, 12), np.uint8), Grid((12, 12, 12), np.eye(4))
    disturbed = CALIBRATING[name](LabelledScan(image, labels, grid), np.random.default_rng(1)).image
    scaled = CALIBRATING[name](LabelledScan(image * scale, labels, grid), np.random.default_rng(1)).image
    np.testing.assert_allclose(scaled, disturbed * scale, rtol=1e-9)
