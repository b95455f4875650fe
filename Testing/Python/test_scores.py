"""Test Dice, Jaccard index and surface distances."""

from __future__ import annotations

import numpy as np
import pytest
from dcamt.metrics.scores import SegmentationScore, score
from dcamt_testing.evaluated_folders import assert_same_score, random_mask
from scipy.spatial.distance import cdist

SPACINGS = [(1.0, 1.0, 1.0), (0.625, 0.625, 0.625), (0.625, 0.625, 2.5), (3.0, 0.7, 1.1)]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_scores_equal_the_results_of_medpy(spacing: tuple[float, float, float]) -> None:
    medpy = pytest.importorskip("medpy.metric.binary")
    for seed in range(6):
        prediction = random_mask(seed)
        label = np.roll(prediction, 2, axis=seed % 3) | random_mask(seed + 50, fraction=0.01)
        scores = score(prediction, label, spacing)
        assert scores.dice == pytest.approx(medpy.dc(prediction, label))
        assert scores.jaccard == pytest.approx(medpy.jc(prediction, label))
        for unit, steps in (("mm", spacing), ("voxels", None)):
            for name in ("hd95", "asd", "assd"):
                expected = getattr(medpy, name)(prediction, label, voxelspacing=steps)
                assert getattr(scores, f"{name}_{unit}") == pytest.approx(expected, rel=1e-9), (name, unit)


def test_surface_distances_equal_brute_force_over_all_pairs() -> None:
    def surface(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        shifted = [np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (-1, 1)]
        return np.argwhere(mask & ~np.all(shifted, axis=0)).astype(float)

    spacing = np.array([0.625, 0.8, 2.5])
    prediction, label = random_mask(1), random_mask(2)
    scores = score(prediction, label, spacing)
    for unit, steps in (("mm", spacing), ("voxels", np.ones(3))):
        pairs = cdist(surface(prediction) * steps, surface(label) * steps)
        there, back = pairs.min(axis=1), pairs.min(axis=0)
        pooled = np.concatenate([there, back])
        assert getattr(scores, f"asd_{unit}") == pytest.approx(there.mean())
        assert getattr(scores, f"assd_{unit}") == pytest.approx(pooled.mean())
        assert getattr(scores, f"hd95_{unit}") == pytest.approx(np.percentile(pooled, 95))
    assert scores.asd_mm != pytest.approx(score(label, prediction, spacing).asd_mm)


def test_distances_of_parallel_slabs_equal_their_separation() -> None:
    """The two slabs are 3 voxels apart, and a voxel is 2 mm long, so every surface distance is 6 mm."""
    prediction, label = np.zeros((2, 12, 12, 12), dtype=bool)
    prediction[3] = label[6] = True
    scores = score(prediction, label, (2.0, 1.0, 1.0))
    assert_same_score(scores, SegmentationScore(0.0, 0.0, 6.0, 6.0, 6.0, 3.0, 3.0, 3.0))


def test_scores_do_not_depend_on_cropping_or_axis_order() -> None:
    prediction, label = random_mask(3), random_mask(4)
    inner = score(prediction, label, (0.7, 0.9, 2.0))
    assert_same_score(score(np.pad(prediction, 7), np.pad(label, 7), (0.7, 0.9, 2.0)), inner)
    turned = [mask.transpose(2, 0, 1)[:, ::-1] for mask in (prediction, label)]
    assert_same_score(score(*turned, (2.0, 0.7, 0.9)), inner)


def test_distances_in_mm_use_the_spacing_of_nearly_isotropic_voxels() -> None:
    """If a box is shifted along k, only the spacing along k matters."""
    prediction, label = np.zeros((2, 12, 12, 24), bool)
    prediction[4:8, 4:8, 2:6] = label[4:8, 4:8, 12:16] = True
    scores = score(prediction, label, (1.0, 1.0, 1.05))
    for name in ("hd95", "asd", "assd"):
        assert getattr(scores, f"{name}_mm") == pytest.approx(1.05 * getattr(scores, f"{name}_voxels"))


EMPTY = np.zeros((8, 8, 8), dtype=bool)
CUBE = np.pad(np.ones((3, 3, 3), dtype=bool), (2, 3))


@pytest.mark.parametrize("mask", [EMPTY, CUBE], ids=["empty", "cube"])
def test_equal_masks_have_dice_1_and_distance_0(mask: np.ndarray) -> None:
    assert_same_score(score(mask, mask, (1, 1, 2)), SegmentationScore(1.0, 1.0, *[0.0] * 6))


@pytest.mark.parametrize(("prediction", "label"), [(EMPTY, CUBE), (CUBE, EMPTY)], ids=["prediction", "label"])
def test_distances_are_undefined_if_only_one_mask_is_empty(prediction: np.ndarray, label: np.ndarray) -> None:
    assert_same_score(score(prediction, label, (1, 1, 2)), SegmentationScore(0.0, 0.0, *[float("nan")] * 6))


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        score(EMPTY, CUBE[1:], (1, 1, 2))
