"""Test the map of doubt, the features of doubt, dilation, and labels on the network grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dcamt.geometry import Grid, NetworkGrid, network_grid
from dcamt.inference.doubt import dilate, doubt_features, doubt_map
from dcamt.preprocessing import labels_to_network, nearest_labels
from dcamt.volume import Labelmap
from scipy import ndimage
from scipy.ndimage import distance_transform_edt


def probabilities_of_ball(*shifts: float) -> torch.Tensor:
    """Return probabilities (branches, 2, 24, 24, 24) of a ball with a radius of 8 voxels and a soft edge.

    Args:
        shifts: for each branch, the ball's shift along the first axis in voxels.
    """
    place = np.indices((24, 24, 24)) - 11.5
    branches = []
    for shift in shifts:
        radius = np.sqrt((place[0] - shift) ** 2 + place[1] ** 2 + place[2] ** 2)
        branches.append(1 / (1 + np.exp(2 * (radius - 8))))
    foreground = torch.from_numpy(np.stack(branches).astype(np.float32))
    return torch.stack([1 - foreground, foreground], dim=1)


def test_features_equal_their_formulas() -> None:
    branches, spacing = probabilities_of_ball(-1, 1), (1.0, 1.5, 0.8)
    labels = (branches.mean(dim=0)[1] > 0.5).numpy().astype(np.uint8)
    features = doubt_features(branches, labels, spacing)
    mask = labels > 0
    outline = mask & ~ndimage.binary_erosion(mask)
    band = distance_transform_edt(~outline, spacing) <= 2.5
    a, b = branches[:, 1].numpy()
    p = (a + b) / 2
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    assert features["disagreement"] == pytest.approx(math.log(np.abs(a - b)[band].sum() / mask.sum() + 1e-3), abs=1e-4)
    assert features["entropy"] == pytest.approx(math.sqrt(entropy[band].sum() / mask.sum()), rel=1e-3)
    assert features["nothing"] == 0


def test_features_of_doubt_grow_as_the_branches_move_apart() -> None:
    labels = (probabilities_of_ball(0)[0, 1] > 0.5).numpy().astype(np.uint8)
    features = [
        doubt_features(probabilities_of_ball(-shift, shift), labels, (1.0, 1.0, 1.0)) for shift in (0, 0.5, 1, 2)
    ]
    for name in ("disagreement", "entropy"):
        values = [one[name] for one in features]
        assert values == sorted(values)
        assert values[-1] > values[0]


def test_one_branch_has_no_disagreement_and_an_empty_segmentation_has_only_one_feature() -> None:
    labels = (probabilities_of_ball(0)[0, 1] > 0.5).numpy().astype(np.uint8)
    assert "disagreement" not in doubt_features(probabilities_of_ball(0), labels, (1.0, 1.0, 1.0))
    assert doubt_features(probabilities_of_ball(0, 0), np.zeros_like(labels), (1.0, 1.0, 1.0)) == {"nothing": 1.0}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 3.0)])
def test_dilation_equals_brute_force_and_takes_one_distance_transform(
    spacing: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.random.default_rng(0).random((14, 12, 10)) > 0.98
    places = np.argwhere(np.ones_like(mask)) * spacing
    squares = ((places[:, None] - np.argwhere(mask) * spacing) ** 2).sum(axis=2)
    expected = (squares.min(axis=1) <= 2.5**2).reshape(mask.shape)
    transforms: list[int] = []
    real = ndimage.distance_transform_edt
    monkeypatch.setattr(ndimage, "distance_transform_edt", lambda *a, **k: (transforms.append(1), real(*a, **k))[1])
    np.testing.assert_array_equal(dilate(mask, 2.5, spacing), expected)
    assert transforms == [1]
    assert not dilate(np.zeros_like(mask), 2.5, spacing).any()


def test_labels_resampled_by_nearest_neighbour_keep_their_positions() -> None:
    affine = np.array([[0, -1.0, 0, 5], [1, 0, 0, 2], [0, 0, -1, 9], [0, 0, 0, 1]])
    labels = np.random.default_rng(0).integers(0, 3, (7, 6, 5)).astype(np.uint8)
    scan = Grid(labels.shape, affine)
    same = network_grid(scan, (1.0, 1.0, 1.0))
    expected = labels_to_network(Labelmap(labels, scan), same, 3).numpy()
    np.testing.assert_array_equal(nearest_labels(labels, same), expected)
    coarser = nearest_labels(
        np.kron(labels, np.ones((3, 3, 3), np.uint8)),
        network_grid(Grid((21, 18, 15), affine @ np.diag([1 / 3, 1 / 3, 1 / 3, 1])), (1.0, 1.0, 1.0)),
    )
    np.testing.assert_array_equal(coarser, expected)


def doubt_by_hand(probabilities: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Return the map of doubt (X, Y, Z) for probabilities (K, X, Y, Z), computed in NumPy by `doubt_map`'s formula."""
    labels = probabilities.argmax(axis=0)
    ones = np.ones(labels.shape)
    widths = [2.0 / step for step in spacing]

    def smooth(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, widths, mode="constant", radius=[int(3 * width) for width in widths])

    smoothed = np.stack([smooth(one) / smooth(ones) for one in probabilities])

    def logit_of_error(values: np.ndarray) -> np.ndarray:
        error = np.clip(1 - np.take_along_axis(values, labels[None], axis=0)[0], 1e-3, 1 - 1e-3)
        return np.log(error / (1 - error))

    score = 0.48 + 0.52 * logit_of_error(probabilities) + 0.71 * logit_of_error(smoothed) - 0.49 * (labels == 0)
    return 1 / (1 + np.exp(-score))


@pytest.mark.parametrize("classes", [2, 3])
def test_map_of_doubt_equals_its_formula(classes: int) -> None:
    spacing = (1.0, 2.0, 1.25)
    place = (np.indices((18, 12, 16)).transpose(1, 2, 3, 0) - (9, 6, 8)) * spacing
    ball = 1 / (1 + np.exp(np.linalg.norm(place, axis=-1) - 6))
    half = 1 / (1 + np.exp(place[..., 0]))
    organs = [ball] if classes == 2 else [ball * half, ball * (1 - half)]
    probabilities = np.stack([1 - ball, *organs])
    grid = network_grid(Grid((18, 12, 16), np.diag([-1.0, -2.0, 1.25, 1])), spacing)
    computed = doubt_map(torch.from_numpy(to_canonical_order(probabilities, grid)).float(), grid)
    np.testing.assert_allclose(computed, doubt_by_hand(probabilities, spacing), atol=1e-4)
    assert computed.max() > 0.3


def test_doubt_of_a_removed_component_is_computed_as_for_background() -> None:
    grid = network_grid(Grid((32, 24, 24), np.diag([1.0, 1, 1, 1])), (1.0, 1.0, 1.0))
    place = np.indices((32, 24, 24)).transpose(1, 2, 3, 0)
    large, small = (
        np.linalg.norm(place - centre, axis=-1) < radius for centre, radius in (((10, 12, 12), 8), ((26, 12, 12), 4))
    )
    organ = np.where(large | small, 0.99, 0.01)
    mean = torch.from_numpy(to_canonical_order(np.stack([1 - organ, organ]), grid)).float()
    before, after = doubt_map(mean, grid), doubt_map(mean, grid, small)
    assert before[26, 12, 12] < 0.1
    assert after[26, 12, 12] > 0.9
    np.testing.assert_array_equal(after[~small], before[~small])


def to_canonical_order(values: np.ndarray, grid: NetworkGrid) -> np.ndarray:
    """Convert an array (classes, I, J, K) to the canonical order of `grid`."""
    return np.ascontiguousarray(np.stack([grid.orientation.apply(one[None])[0] for one in values]))


def test_doubt_is_highest_at_the_outline_and_lower_for_sharper_probabilities() -> None:
    grid = network_grid(Grid((24, 24, 24), np.diag([1.0, 1, 1, 1])), (1.0, 1.0, 1.0))
    probabilities = probabilities_of_ball(0)[0]
    computed = doubt_map(probabilities, grid)
    # The ball's centre is at 11.5 and its radius is 8 voxels, so its outline lies between voxels 3 and 4.
    centre, outline, corner = computed[12, 12, 12], computed[12, 12, 3:5].max(), computed[0, 0, 0]
    assert centre < 0.02
    assert corner < 0.02
    assert 0.3 < outline < 0.7
    sharper = doubt_map((8 * probabilities.clamp(1e-6).log()).softmax(dim=0), grid)
    assert sharper.sum() < 0.8 * computed.sum()
    assert not doubt_map(torch.stack([torch.ones(grid.shape), torch.zeros(grid.shape)]), grid).any()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_entropy_is_normalised_by_the_number_of_classes(classes: int) -> None:
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[3:6, 3:6, 3:6] = 1
    equal = torch.full((1, classes, 9, 9, 9), 1 / classes)
    outline = np.pad(np.ones((3, 3, 3), bool), 3)
    outline[4, 4, 4] = False
    band = distance_transform_edt(~outline) <= 2.5
    features = doubt_features(equal, labels, (1.0, 1.0, 1.0))
    assert features["entropy"] == pytest.approx(math.sqrt(np.count_nonzero(band) / 27))
