"""`labels_on_scan` interpolates only near foreground, but gives the same labels as interpolation of all voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dcamt.geometry import Grid, network_grid
from dcamt.inference import labelling
from dcamt.inference.labelling import labels_on_scan, most_likely
from dcamt.preprocessing import to_source
from dcamt_testing.analytic_scans import centred_grid, rotation
from scipy import ndimage

SHAPE, SPACING = (34, 29, 21), (1.1, 0.8, 2.0)


def random_probabilities(shape: tuple[int, ...], classes: int, background: float, seed: int) -> torch.Tensor:
    """Return smooth random probabilities (K, X, Y, Z); a higher `background` gives less foreground."""
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    logits = torch.from_numpy(np.stack([6 * ndimage.gaussian_filter(one, 2) for one in noise])).float()
    logits[0] += background
    return (4 * logits).softmax(dim=0)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.6, 0.9, 1.3), (2.5, 1.6, 3.0), SPACING], ids=str)
@pytest.mark.parametrize("classes", [2, 4])
def test_labels_are_the_argmax_of_fully_interpolated_probabilities(
    classes: int, spacing: tuple[float, float, float]
) -> None:
    grid = network_grid(centred_grid(SHAPE, SPACING, rotation(10, -15, 170)), spacing)
    foreground = []
    for seed in range(4):
        probabilities = random_probabilities(grid.shape, classes, 0.5 * seed, seed)
        labels = labels_on_scan(probabilities, grid)
        interpolated = to_source(probabilities, grid)
        first, second = np.sort(interpolated, axis=0)[[-1, -2]]
        decided = first - second > 1e-6
        assert labels.dtype == np.uint8
        assert np.array_equal(labels[decided], interpolated.argmax(axis=0)[decided])
        foreground.append(np.count_nonzero(labels) / labels.size)
    # The test covers large and small fractions of foreground.
    assert foreground[0] > 0.4
    assert 0 < foreground[-1] < 0.2


@pytest.mark.parametrize("spacing", [(5.0, 4.0, 9.0), (0.6, 0.9, 1.3), (2.5, 1.6, 3.0), SPACING], ids=str)
def test_organ_with_probability_below_one_half_is_labelled_completely(
    spacing: tuple[float, float, float],
) -> None:
    grid = network_grid(centred_grid(SHAPE, SPACING, rotation(10, -15, 170)), spacing)
    probabilities = torch.tensor([0.36, 0, 0.32, 0.32])[:, None, None, None].repeat(1, *grid.shape)
    x, y, z = (slice(n // 2 - 1, n // 2 + 1) for n in grid.shape)
    probabilities[:, x, y, z] = torch.tensor([0.25, 0, 0.45, 0.3])[:, None, None, None]
    expected = to_source(probabilities, grid).argmax(axis=0)
    assert 0 < np.count_nonzero(expected) / expected.size < 0.2
    assert np.array_equal(labels_on_scan(probabilities, grid), expected)


@pytest.mark.parametrize("flips", [(-1, 1, 1), (1, -1, 1), (-1, -1, 1)], ids=str)
def test_organ_one_voxel_wide_is_labelled_when_axes_are_reversed(flips: tuple[int, int, int]) -> None:
    grid = network_grid(Grid((12, 12, 12), np.diag([1.5 * flips[0], 1.5 * flips[1], 6.0, 1.0])), (1.5, 1.5, 1.5))
    probabilities = torch.zeros((2, *grid.shape))
    probabilities[0] = 1
    probabilities[:, 4, 7, 20:26] = torch.tensor([0.0, 1.0])[:, None]
    labels = labels_on_scan(probabilities, grid)
    assert np.array_equal(labels, to_source(probabilities, grid).argmax(axis=0))
    assert labels.any()


def test_only_voxels_near_foreground_are_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def record_and_interpolate(*arguments: object) -> np.ndarray:
        result = to_source(*arguments)  # type: ignore[arg-type]
        shapes.append(result.shape)
        return result

    monkeypatch.setattr(labelling, "to_source", record_and_interpolate)
    grid = network_grid(centred_grid(SHAPE, SPACING), (1.0, 1.0, 1.0))
    probabilities = torch.zeros((2, *grid.shape))
    probabilities[0] = 1
    assert not labels_on_scan(probabilities, grid).any()
    assert shapes == []
    probabilities[:, 10:14, 8:12, 20:24] = torch.tensor([0.0, 1.0])[:, None, None, None]
    assert labels_on_scan(probabilities, grid).any()
    ((_, *shape),) = shapes
    assert np.prod(shape) < np.prod(SHAPE) / 20


def test_first_class_is_chosen_on_a_tie() -> None:
    probabilities = torch.tensor([[0.5, 0.4, 0.2], [0.5, 0.3, 0.4], [0.0, 0.3, 0.4]]).reshape(3, 3, 1, 1)
    assert most_likely(probabilities).flatten().tolist() == [0, 0, 1]
