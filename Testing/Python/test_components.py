"""The largest component agrees with SimpleITK; on a coarse grid, components are selected by certainty and position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dcamt.geometry import Box, Grid, network_grid
from dcamt.inference.components import (
    CENTRAL,
    SURE,
    CentrePrior,
    ExpectedOrgans,
    keep_largest_components,
    largest_component,
    select_components,
)
from torch import Tensor

sitk = pytest.importorskip("SimpleITK")


def itk_components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label the components of `mask` with SimpleITK (26 neighbours per voxel); return the labels and the sizes."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(image, True))
    return labels, np.bincount(labels.ravel())[1:]


@pytest.mark.parametrize("density", [0.02, 0.05, 0.08, 0.3])
def test_largest_component_is_a_simpleitk_component_of_maximal_size(density: float) -> None:
    compared = 0
    for seed in range(12):
        mask = np.random.default_rng(seed).random((14, 17, 11)) < density
        labels, sizes = itk_components(mask)
        kept = largest_component(mask)
        chosen = np.unique(labels[kept])
        assert len(chosen) == 1
        assert chosen[0] > 0
        assert np.array_equal(kept, labels == chosen[0])
        assert kept.sum() == sizes.max()
        compared += len(sizes) > 1
    assert compared > 0


def test_voxels_connect_through_corners_but_not_across_gaps() -> None:
    mask = np.zeros((8, 8, 8), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    mask[2, 2, 4] = mask[2, 2, 5] = True
    before = mask.copy()
    kept = largest_component(mask)
    assert np.argwhere(kept).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert np.array_equal(mask, before)
    assert kept.dtype == bool


def test_empty_and_full_masks_stay_the_same_and_strided_masks_are_accepted() -> None:
    assert not largest_component(np.zeros((3, 4, 5), dtype=bool)).any()
    assert largest_component(np.ones((3, 4, 5), dtype=bool)).all()
    mask = np.random.default_rng(3).random((9, 10, 11)) < 0.06
    turned = mask.transpose(2, 0, 1)[::-1]
    assert largest_component(turned).sum() == largest_component(mask).sum()


def test_each_class_keeps_its_largest_component_and_unlisted_labels_are_unchanged() -> None:
    labelmap = np.zeros((12, 6, 6), dtype=np.uint8)
    labelmap[0:4, 0:3, 0:3] = 1
    labelmap[8, 5, 5] = 1
    labelmap[4:6, 0:3, 0:3] = 2  # touches class 1
    labelmap[9:12, 2:5, 0:3] = 2
    labelmap[0, 5, 0] = labelmap[5, 5, 5] = 3
    before = labelmap.copy()
    kept = keep_largest_components(labelmap, [1, 2, 9])
    expected = before.copy()
    expected[8, 5, 5] = 0
    expected[4:6, 0:3, 0:3] = 0
    assert np.array_equal(kept, expected)
    assert np.array_equal(labelmap, before)
    assert kept.dtype == labelmap.dtype


def test_component_near_the_located_organ_is_preferred() -> None:
    mask = np.zeros((20, 8, 8), bool)
    mask[1:4, 2:6, 2:6] = True
    mask[6:19, 1:7, 1:7] = True
    small, large = (2, 3, 3), (7, 2, 2)
    whole = slice(0, 8)
    assert largest_component(mask)[large]
    near_small = largest_component(mask, (slice(0, 7), whole, whole))
    assert near_small[small]
    assert not near_small[large]
    # If no component is near, the largest component is selected.
    assert largest_component(mask, (slice(0, 1), whole, whole))[large]
    assert largest_component(mask, (whole, whole, slice(0, 1)))[large]


def test_largest_component_is_kept_if_no_component_lies_in_the_box_of_the_located_organ() -> None:
    mask = np.zeros((20, 8, 8), bool)
    mask[1:4] = mask[12:19] = True
    kept = largest_component(mask, (slice(6, 9), slice(0, 8), slice(0, 8)))
    assert kept[12:19].all()
    assert not kept[:12].any()


UNIFORM_PRIOR = CentrePrior(np.zeros(3), np.full(3, np.inf))


def test_located_organ_of_one_class_does_not_affect_another_class() -> None:
    labelmap = np.zeros((20, 8, 8), np.uint8)
    labelmap[1:4], labelmap[6:19] = 1, 1
    labelmap[4:5, 2:4, 2:4] = 2
    labelmap[19, :6, :6] = 2
    located = ExpectedOrgans({1: (slice(0, 6), slice(0, 8), slice(0, 8))}, UNIFORM_PRIOR)
    kept = keep_largest_components(labelmap, (1, 2), located)
    # Class 1 keeps the small component near its organ, class 2 its largest component.
    assert [kept[at, 2, 2] for at in (2, 4, 8, 19)] == [1, 0, 0, 2]


def test_central_component_is_preferred_to_a_larger_component_at_the_border() -> None:
    """A component's size is multiplied by its weight in `CentrePrior`: 1 in the centre, about 1/5 at the border."""
    assert CENTRAL == 4
    for across, central_stays in ((4, True), (5, True), (6, False)):
        mask = np.zeros((21, 9, 9), bool)
        mask[10, 4, 4] = True
        mask[20, 4, 5 - across // 2 : 5 - across // 2 + across] = True
        prior = CentrePrior(np.array([10.0, 4.0, 4.0]), np.array([10.0, 4.5, 4.5]))
        assert largest_component(mask)[20, 4, 4]
        kept = largest_component(mask, prior=prior)
        assert kept[10, 4, 4] == central_stays
        # In a cropped mask, the same component is selected.
        part = (slice(4, 21), slice(1, 9), slice(0, 9))
        assert np.array_equal(largest_component(mask[part], prior=prior.crop_to(part)), kept[part])


# ---- selection on a coarse grid


def probabilities_of_balls(
    *balls: tuple[tuple[int, int, int], float], shape: tuple[int, int, int] = (60, 40, 40)
) -> Tensor:
    """Return probabilities (2, *shape) of background and organ; the organ has 0.9 in the balls and 0 elsewhere.

    Args:
        balls: each ball's centre and radius in voxels.
    """
    at = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    organ = np.zeros(shape, np.float32)
    for place, radius in balls:
        organ[np.linalg.norm(at - place, axis=-1) < radius] = 0.9
    return torch.from_numpy(np.stack([1 - organ, organ]))


CENTRE = CentrePrior(np.array([29.5, 19.5, 19.5]), np.array([30.0, 20.0, 20.0]))


def test_central_component_is_selected_unless_it_is_tiny() -> None:
    similar = probabilities_of_balls(((26, 20, 20), 7), ((50, 20, 20), 7.4))
    chosen = select_components(similar, CENTRE)
    assert chosen[26, 20, 20] == 1
    assert chosen[50, 20, 20] == 0
    tiny_at_centre = probabilities_of_balls(((29, 20, 20), 2.2), ((50, 20, 20), 8))
    assert select_components(tiny_at_centre, CENTRE)[50, 20, 20] == 1
    assert not select_components(probabilities_of_balls(((29, 20, 20), 2.2)), CENTRE).any()


def test_component_is_selected_by_certainty_rather_than_size() -> None:
    large = probabilities_of_balls(((14, 20, 20), 8))[1] > 0.5
    small = probabilities_of_balls(((45, 20, 20), 6))[1] > 0.5
    assert large.sum() > 2 * small.sum()
    organ = torch.where(large, 0.55, 0.01)
    organ[small] = 0.9
    assert select_components(torch.stack([1 - organ, organ]), CENTRE)[45, 20, 20] == 1
    first = torch.where(large, 0.4, 0.01)
    # In `large`, the three classes have the probabilities 0.42, 0.4 and 0.18: the background is the most probable.
    chosen = select_components(torch.stack([0.7 * (1 - first), first, 0.3 * (1 - first)]), CENTRE)
    assert chosen[14, 20, 20] == 0
    # In `large`, the three classes now have the probabilities 0.3, 0.4 and 0.3: class 1 is the most probable.
    probabilities = torch.stack([0.5 * (1 - first), first, 0.5 * (1 - first)])
    chosen = select_components(probabilities, CENTRE)
    assert (chosen == 1).sum() == large.sum()
    # A more certain component is preferred to a much larger component.
    probabilities[:, small] = torch.tensor([0.05, 0.9, 0.05])[:, None]
    assert select_components(probabilities, CENTRE)[45, 20, 20] == 1


def test_slightly_more_certain_small_component_does_not_replace_a_large_component() -> None:
    central = probabilities_of_balls(((26, 20, 20), 11))[1] > 0.5
    away = probabilities_of_balls(((52, 20, 20), 7.5))[1] > 0.5
    organ = torch.where(central, SURE - 0.01, 0.01)
    organ[away] = SURE + 0.01
    assert select_components(torch.stack([1 - organ, organ]), CENTRE)[26, 20, 20] == 1


def test_touching_components_are_separated_at_uncertain_voxels() -> None:
    """In a scan padded with mirrored tissue, an organ and its mirror image may touch on a coarse grid."""
    two = probabilities_of_balls(((24, 20, 20), 9), ((45, 20, 20), 10))
    for certain, bridge in ((0.99, 0.7), (0.99, 0.97), (0.9, 0.7)):
        organ = torch.where(two[1] > 0.5, certain, 0.01)
        organ[32:37, 18:23, 18:23] = bridge
        chosen = select_components(torch.stack([1 - organ, organ]), CENTRE)
        assert chosen[24, 20, 20] == 1
        separated = certain >= SURE > bridge
        assert chosen[45, 20, 20] == (not separated)
        assert (chosen > 0).sum() == ((organ[:34] > SURE) if separated else organ > 0.5).sum()
    # A large component with a probability of 0.9 is preferred to a small component with a probability of 0.99.
    organ = torch.where(probabilities_of_balls(((40, 20, 20), 11))[1] > 0.5, 0.9, 0.01)
    organ[28:33, 3:8, 18:23] = 0.99
    assert select_components(torch.stack([1 - organ, organ]), CENTRE)[40, 20, 20] == 1


# ---- the centre prior


TURNED = np.array([[0, -2.0, 0, 40], [1.5, 0, 0, -30], [0, 0, -2.5, 70], [0, 0, 0, 1]])
SCAN = Grid((60, 80, 40), TURNED)
PART: Box = (slice(10, 50), slice(30, 75), slice(5, 33))


def test_prior_is_the_same_in_a_cropped_scan_and_on_the_network_grid() -> None:
    part = SCAN.crop(PART)
    of_part = CentrePrior.from_box((slice(0, 60), slice(0, 80), slice(0, 40))).crop_to(PART)
    grid = network_grid(part, (1.0, 1.2, 3.0))
    of_grid = CentrePrior.on_network_grid(SCAN, grid)
    centre_mm = TURNED @ [29.5, 39.5, 19.5, 1]
    assert np.allclose(part.affine @ [*of_part.centre, 1], centre_mm)
    assert np.allclose(grid.affine @ [*of_grid.centre, 1], centre_mm)
    edges_mm = np.array([60 * 1.5, 80 * 2, 40 * 2.5])
    canonical_axes = [1, 0, 2]
    assert np.allclose(of_part.half_edges * (1.5, 2, 2.5), edges_mm / 2)
    assert np.allclose(of_grid.half_edges * (1, 1.2, 3), edges_mm[canonical_axes] / 2)


def test_prior_of_a_box_is_centred_in_the_box() -> None:
    prior = CentrePrior.from_box(PART)
    assert prior.centre.tolist() == [29.5, 52.0, 18.5]
    assert prior.half_edges.tolist() == [20, 22.5, 14]


def test_weight_of_a_component_decreases_with_its_distance_from_the_centre() -> None:
    components = np.zeros((21, 11, 9), int)
    components[9:12, 4:7, 3:6] = 1  # around the centre
    components[20, 5, 3:6] = 2  # at a face
    components[15, 5, 4] = 3  # half-way between centre and face
    components[20, 10, 8] = 5  # in a corner; there is no component 4
    prior = CentrePrior(np.array([10.0, 5.0, 4.0]), np.array([10.0, 5.0, 4.0]))
    weights = prior.weights(components, 6)
    assert np.allclose(weights[[1, 2, 3, 5]], [1, 1 / (1 + CENTRAL), 1 / (1 + CENTRAL / 4), 1 / (1 + 3 * CENTRAL)])
    assert weights[0] == 0
