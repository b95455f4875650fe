"""Largest components against SimpleITK's, an independent labelling."""

from __future__ import annotations

import numpy as np
import pytest
from dcamt.inference.middle import Middle
from dcamt.inference.postprocessing import Expected, keep_largest_components, largest_component

sitk = pytest.importorskip("SimpleITK")


def itk_components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SimpleITK's labelling of `mask` with 26 neighbours and the components' sizes."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(image, True))
    return labels, np.bincount(labels.ravel())[1:]


@pytest.mark.parametrize("density", [0.02, 0.05, 0.08, 0.3])
def test_the_largest_component_is_simpleitks(density: float) -> None:
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


def test_corners_connect_and_gaps_part() -> None:
    mask = np.zeros((8, 8, 8), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    mask[2, 2, 4] = mask[2, 2, 5] = True
    before = mask.copy()
    kept = largest_component(mask)
    assert np.argwhere(kept).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert np.array_equal(mask, before)
    assert kept.dtype == bool


def test_empty_full_and_strided_masks() -> None:
    assert not largest_component(np.zeros((3, 4, 5), dtype=bool)).any()
    assert largest_component(np.ones((3, 4, 5), dtype=bool)).all()
    mask = np.random.default_rng(3).random((9, 10, 11)) < 0.06
    turned = mask.transpose(2, 0, 1)[::-1]
    assert largest_component(turned).sum() == largest_component(mask).sum()


def test_each_class_keeps_its_own_and_others_stay() -> None:
    labelmap = np.zeros((12, 6, 6), dtype=np.uint8)
    labelmap[0:4, 0:3, 0:3] = 1
    labelmap[8, 5, 5] = 1
    labelmap[4:6, 0:3, 0:3] = 2  # beside class 1: must not be merged with it
    labelmap[9:12, 2:5, 0:3] = 2
    labelmap[0, 5, 0] = labelmap[5, 5, 5] = 3
    before = labelmap.copy()
    tidied = keep_largest_components(labelmap, [1, 2, 9])
    expected = before.copy()
    expected[8, 5, 5] = 0
    expected[4:6, 0:3, 0:3] = 0
    assert np.array_equal(tidied, expected)
    assert np.array_equal(labelmap, before)
    assert tidied.dtype == labelmap.dtype


def test_of_components_only_what_lies_near_counts() -> None:
    mask = np.zeros((20, 8, 8), bool)
    mask[1:4, 2:6, 2:6] = True
    mask[6:19, 1:7, 1:7] = True
    near = (slice(0, 8), slice(0, 8), slice(0, 8))
    assert largest_component(mask)[7, 2, 2]
    assert not largest_component(mask, (slice(0, 7), *near[1:]))[7, 2, 2]
    assert largest_component(mask, (slice(0, 7), *near[1:]))[2, 3, 3]
    # Where nothing lies near, as without it.
    assert largest_component(mask, (slice(0, 1), *near[1:]))[7, 2, 2]
    assert largest_component(mask, (near[0], near[1], slice(0, 1)))[7, 2, 2]


EVERYWHERE = Middle(np.zeros(3), np.full(3, np.inf))
"""Of a scan without borders: all places are in its middle."""


def test_where_one_class_was_seen_says_nothing_of_another() -> None:
    labelmap = np.zeros((20, 8, 8), np.uint8)
    labelmap[1:4], labelmap[6:19] = 1, 1
    labelmap[4:5, 2:4, 2:4] = 2
    labelmap[19, :6, :6] = 2
    tidied = keep_largest_components(
        labelmap, (1, 2), Expected({1: (slice(0, 6), slice(0, 8), slice(0, 8))}, EVERYWHERE)
    )
    assert [tidied[at, 2, 2] for at in (2, 4, 8, 19)] == [1, 0, 0, 2]


def test_of_components_the_one_in_the_middle_of_the_scan_counts_more() -> None:
    """By the closed form: a component at the border, r = 1, must be five times as large as one in the middle."""
    for across, central_stays in ((4, True), (5, True), (6, False)):
        mask = np.zeros((21, 9, 9), bool)
        mask[10, 4, 4] = True
        mask[20, 4, 5 - across // 2 : 5 - across // 2 + across] = True
        middle = Middle(np.array([10.0, 4.0, 4.0]), np.array([10.0, 4.5, 4.5]))
        assert largest_component(mask)[20, 4, 4]
        kept = largest_component(mask, middle=middle)
        assert kept[10, 4, 4] == central_stays
        # Of a part of the scan the answer is the same.
        part = (slice(4, 21), slice(1, 9), slice(0, 9))
        assert np.array_equal(largest_component(mask[part], middle=middle.within(part)), kept[part])
