"""Test the localisation of organs on a coarse grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from dcamt.geometry import Grid, bounding_box, network_grid
from dcamt.inference import localisation
from dcamt.inference.localisation import (
    OrganLocation,
    PredictCoarse,
    crop_scan,
    grow_box,
    inner_box,
    locate_organs,
)
from dcamt.recipe import Recipe
from dcamt.volume import Labelmap, Volume
from dcamt_testing.analytic_scans import CENTRE, centred_grid, points_of, rotation
from dcamt_testing.large_scans import FIELD, RECIPE, SPACING, scan_in
from torch import Tensor

GRID = centred_grid((160, 160, 24), SPACING)
INDEX = np.indices(GRID.shape)
WAVES = (-0.5 + 0.3 * np.sin(INDEX[0] / 8) * np.cos(INDEX[1] / 9)).astype(np.float32)
"""Intensities of tissue without an organ, (I, J, K); all are negative."""
TWO_CLASSES = replace(RECIPE, classes=(RECIPE.classes[0], replace(RECIPE.classes[0], label=2, name="other")))


def ellipsoid(centre: tuple[int, int, int], radii: tuple[float, float, float]) -> np.ndarray:
    """Return the mask of an ellipsoid on GRID; centre and radii in voxels."""
    return sum(((n - at) / radius) ** 2 for n, at, radius in zip(INDEX, centre, radii, strict=True)) < 1


def predict_by_brightness(image: Tensor) -> Tensor:
    """Return probabilities (1, 3, X, Y, Z) of background, class 1 and class 2.

    The most likely class is background for intensities below 0, class 1 near 0.4, and class 2 near 0.9.
    """
    return (40 * torch.cat([-image, image.clamp(max=0.2), 4 * image - 2.4])).softmax(dim=0)[None]


@pytest.fixture(autouse=True)
def lower_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localisation, "LARGE_VOXELS", 0)


def locate_in_scan(volume: Volume, recipe: Recipe, predict: PredictCoarse) -> OrganLocation | None:
    return locate_organs(volume, network_grid(volume.grid, recipe.spacing), recipe, predict)


def is_close_to_bounding_box(box: tuple[slice, ...], mask: np.ndarray) -> bool:
    exact = bounding_box(mask)
    assert exact is not None
    # A voxel of the coarse grid is at most 3 scan voxels wide. The limit of 4 leaves one more scan voxel for rounding.
    return all(
        abs(side.start - wanted.start) <= 4 and abs(side.stop - wanted.stop) <= 4
        for side, wanted in zip(box, exact, strict=True)
    )


def test_central_component_counts_as_the_organ_only_if_it_fills_enough_of_a_patch() -> None:
    """The inner part of the scan contains the central component, but not the organ."""
    central, organ = ellipsoid((80, 80, 12), (8, 8, 4.5)), ellipsoid((142, 40, 12), (14, 14, 9))
    # The component fills 1.2% of the larger patch and 7% of RECIPE's patch. `SMALLEST_ORGAN` is 2%.
    large_patch = replace(RECIPE, training=replace(RECIPE.training, patch=(16, 16, 96)))
    scan = Volume(np.where(central | organ, np.float32(0.9), WAVES)[None], GRID)
    sizes: list[tuple[int, ...]] = []

    def predict(image: Tensor) -> Tensor:
        sizes.append(tuple(image.shape[1:]))
        return torch.cat([-20 * image, 20 * image]).softmax(dim=0)[None]

    location = locate_in_scan(scan, large_patch, predict)
    assert location is not None
    assert all(side.start <= at < side.stop for side, at in zip(location.box, (142, 40, 12), strict=True))
    assert is_close_to_bounding_box(location.organs[1], organ)
    # The inner part is searched first, then the whole scan.
    assert len(sizes) == 2
    assert np.prod(sizes[0]) < 0.7 * np.prod(sizes[1])
    location = locate_in_scan(scan, RECIPE, predict)
    assert location is not None
    assert location.box[0].start < 80 < location.box[0].stop < 130
    assert is_close_to_bounding_box(location.organs[1], central)
    assert len(sizes) == 3


def test_box_around_an_organ_has_a_margin_of_30_percent_of_a_patch() -> None:
    voxels = np.where(ellipsoid((80, 80, 12), (12, 12, 5)), np.float32(0.9), WAVES)
    location = locate_in_scan(
        Volume(voxels[None], GRID), RECIPE, lambda image: (40 * torch.cat([-image, image])).softmax(dim=0)[None]
    )
    assert location is not None
    margin = (10, 10, 5)  # 0.3 * 32 mm, in voxels of 1, 1 and 2 mm
    assert location.box == tuple(
        slice(side.start - more, side.stop + more) for side, more in zip(location.organs[1], margin, strict=True)
    )


def test_each_class_is_located_and_one_box_contains_all() -> None:
    masks = {1: ellipsoid((100, 110, 12), (12, 14, 8)), 2: ellipsoid((50, 60, 12), (12, 14, 8))}
    voxels = (-0.5 + 0.2 * np.sin(INDEX[0] / 2.5) * np.cos(INDEX[1] / 3)).astype(np.float32)
    voxels[masks[1]], voxels[masks[2]] = 0.4, 0.9
    location = locate_in_scan(Volume(voxels[None], GRID), TWO_CLASSES, predict_by_brightness)
    assert location is not None
    assert set(location.organs) == {1, 2}
    for label, organ in location.organs.items():
        assert is_close_to_bounding_box(organ, masks[label])
        assert all(a.start <= b.start < b.stop <= a.stop for a, b in zip(location.box, organ, strict=True))


def test_box_contains_an_organ_that_is_too_small_to_be_located() -> None:
    voxels = WAVES.copy()
    voxels[ellipsoid((80, 80, 12), (12, 12, 12))] = 0.4
    voxels[ellipsoid((135, 30, 12), (2, 2, 2))] = 0.9
    location = locate_in_scan(Volume(voxels[None], GRID), TWO_CLASSES, predict_by_brightness)
    assert location is not None
    assert location.box == location.anatomy
    assert set(location.organs) == {1}
    assert all(side.start <= at < side.stop for side, at in zip(location.box, (135, 30, 12), strict=True))


def test_box_contains_an_organ_outside_the_inner_part() -> None:
    voxels = WAVES.copy()
    voxels[ellipsoid((80, 80, 12), (12, 12, 12))] = 0.4
    voxels[ellipsoid((135, 60, 12), (8, 8, 8))] = 0.9
    searched: list[tuple[int, ...]] = []

    def record_and_predict(image: Tensor) -> Tensor:
        searched.append(tuple(image.shape))
        return predict_by_brightness(image)

    location = locate_in_scan(Volume(voxels[None], GRID), TWO_CLASSES, record_and_predict)
    assert location is not None
    assert len(searched) == 2  # first the inner part, which lacks the second class
    assert set(location.organs) == {1, 2}
    assert location.box != location.anatomy
    assert all(side.start <= at < side.stop for side, at in zip(location.box, (135, 60, 12), strict=True))


def test_network_is_not_called_if_the_recipe_keeps_all_components() -> None:
    def refuse(image: Tensor) -> Tensor:
        raise AssertionError("the network was called")

    all_components = replace(RECIPE, inference=replace(RECIPE.inference, largest_component=False))
    location = locate_in_scan(Volume(WAVES[None], GRID), all_components, refuse)
    assert location is not None
    assert location == OrganLocation(location.anatomy, location.anatomy)


def test_inner_part_is_at_least_two_patches_wide() -> None:
    assert inner_box(network_grid(centred_grid((400, 100, 40), (1.0, 2.0, 2.0)), RECIPE.spacing), RECIPE) == (
        slice(80, 320),  # 60%
        slice(20, 80),
        slice(4, 36),  # two patches: 64 mm
    )


def test_cropped_scan_keeps_the_positions_of_voxels() -> None:
    scan, _ = scan_in("air")
    turned = Volume(scan.voxels, Grid(FIELD, centred_grid(FIELD, SPACING, rotation(9, -12, 17), CENTRE).affine))
    part = crop_scan(turned, (slice(5, 25), slice(7, 50), slice(3, 20)))
    assert np.allclose(points_of(part.grid), points_of(turned.grid)[5:25, 7:50, 3:20])
    assert np.shares_memory(part.voxels, turned.voxels)


def test_box_grows_only_at_faces_that_labels_touch() -> None:
    box = (slice(10, 20), slice(2, 12), slice(0, 10))
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[3:10, 0:4, 0] = 2
    grown = grow_box(box, Labelmap(labels, Grid((10, 10, 10), np.eye(4))), (5, 5, 5), (22, 30, 30))
    assert grown == (slice(10, 22), slice(0, 12), slice(0, 10))
