"""Labels on a scan's own grid, against interpolating the probabilities of all classes at all voxels."""

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
def test_labels_equal_those_of_full_interpolation(classes: int, spacing: tuple[float, float, float]) -> None:
    grid = network_grid(centred_grid(SHAPE, SPACING, rotation(10, -15, 170)), spacing)
    counts = []
    for seed in range(4):
        shares = random_probabilities(grid.shape, classes, 0.5 * seed, seed)
        labels = labels_on_scan(shares, grid)
        everything = to_source(shares, grid)
        first, second = np.sort(everything, axis=0)[[-1, -2]]
        decided = first - second > 1e-6
        assert labels.dtype == np.uint8
        assert np.array_equal(labels[decided], everything.argmax(axis=0)[decided])
        counts.append(np.count_nonzero(labels) / labels.size)
    # The fraction of foreground ranges from large to small.
    assert counts[0] > 0.4
    assert 0 < counts[-1] < 0.2


@pytest.mark.parametrize("spacing", [(5.0, 4.0, 9.0), (0.6, 0.9, 1.3), (2.5, 1.6, 3.0), SPACING], ids=str)
def test_organ_with_probability_below_one_half_is_labelled_completely(
    spacing: tuple[float, float, float],
) -> None:
    grid = network_grid(centred_grid(SHAPE, SPACING, rotation(10, -15, 170)), spacing)
    shares = torch.tensor([0.36, 0, 0.32, 0.32])[:, None, None, None].repeat(1, *grid.shape)
    x, y, z = (slice(n // 2 - 1, n // 2 + 1) for n in grid.shape)
    shares[:, x, y, z] = torch.tensor([0.25, 0, 0.45, 0.3])[:, None, None, None]
    expected = to_source(shares, grid).argmax(axis=0)
    assert 0 < np.count_nonzero(expected) / expected.size < 0.2
    assert np.array_equal(labels_on_scan(shares, grid), expected)


@pytest.mark.parametrize("flips", [(-1, 1, 1), (1, -1, 1), (-1, -1, 1)], ids=str)
def test_organ_one_voxel_wide_is_labelled_when_axes_are_reversed(flips: tuple[int, int, int]) -> None:
    grid = network_grid(Grid((12, 12, 12), np.diag([1.5 * flips[0], 1.5 * flips[1], 6.0, 1.0])), (1.5, 1.5, 1.5))
    shares = torch.zeros((2, *grid.shape))
    shares[0] = 1
    shares[:, 4, 7, 20:26] = torch.tensor([0.0, 1.0])[:, None]
    labels = labels_on_scan(shares, grid)
    assert np.array_equal(labels, to_source(shares, grid).argmax(axis=0))
    assert labels.any()


def test_only_voxels_near_foreground_are_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def seen(*arguments: object) -> np.ndarray:
        shapes.append((result := to_source(*arguments)).shape)  # type: ignore[arg-type]
        return result

    monkeypatch.setattr(labelling, "to_source", seen)
    grid = network_grid(centred_grid(SHAPE, SPACING), (1.0, 1.0, 1.0))
    shares = torch.zeros((2, *grid.shape))
    shares[0] = 1
    assert not labels_on_scan(shares, grid).any()
    assert shapes == []
    shares[:, 10:14, 8:12, 20:24] = torch.tensor([0.0, 1.0])[:, None, None, None]
    assert labels_on_scan(shares, grid).any()
    ((_, *shape),) = shapes
    assert np.prod(shape) < np.prod(SHAPE) / 20


def test_first_class_is_chosen_on_a_tie() -> None:
    shares = torch.tensor([[0.5, 0.4, 0.2], [0.5, 0.3, 0.4], [0.0, 0.3, 0.4]]).reshape(3, 3, 1, 1)
    assert most_likely(shares).flatten().tolist() == [0, 0, 1]
