"""Labels on a scan's own grid, against interpolating every class everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from analytic_scans import centred_grid, rotation
from DCAMTLib.inference import labelling
from DCAMTLib.inference.labelling import labels_on_scan, most_likely
from DCAMTLib.preprocessing import network_grid, to_source
from scipy import ndimage

SHAPE, SPACING = (34, 29, 21), (1.1, 0.8, 2.0)


def blobs(shape: tuple[int, ...], classes: int, background: float, seed: int) -> torch.Tensor:
    """Smooth random probabilities (K, X, Y, Z); the more `background`, the fewer voxels of other classes."""
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    logits = torch.from_numpy(np.stack([6 * ndimage.gaussian_filter(one, 2) for one in noise])).float()
    logits[0] += background
    return (4 * logits).softmax(dim=0)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.6, 0.9, 1.3), (2.5, 1.6, 3.0), SPACING], ids=str)
@pytest.mark.parametrize("classes", [2, 4])
def test_they_are_those_of_interpolating_everything(classes: int, spacing: tuple[float, float, float]) -> None:
    grid = network_grid(centred_grid(SHAPE, SPACING, rotation(10, -15, 170)), spacing)
    counts = []
    for seed in range(4):
        shares = blobs(grid.shape, classes, 0.5 * seed, seed)
        labels = labels_on_scan(shares, grid)
        everything = to_source(shares, grid)
        first, second = np.sort(everything, axis=0)[[-1, -2]]
        decided = first - second > 1e-6
        assert labels.dtype == np.uint8
        assert np.array_equal(labels[decided], everything.argmax(axis=0)[decided])
        counts.append(np.count_nonzero(labels) / labels.size)
    # From organs all over the scan to few.
    assert counts[0] > 0.4
    assert 0 < counts[-1] < 0.2


def test_only_what_can_be_an_organ_is_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_on_a_tie_the_first_class_is_taken() -> None:
    shares = torch.tensor([[0.5, 0.4, 0.2], [0.5, 0.3, 0.4], [0.0, 0.3, 0.4]]).reshape(3, 3, 1, 1)
    assert most_likely(shares).flatten().tolist() == [0, 0, 1]
