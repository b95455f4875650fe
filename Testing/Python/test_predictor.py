"""Test `Predictor`: labels do not depend on a scan's storage; fast quality uses one branch, accurate quality both."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
import torch
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.inference import tiling
from dcamt.inference.agreement import agreement_map, branch_dice
from dcamt.inference.doubt import doubt_features
from dcamt.inference.memory import pass_bytes, tile_size
from dcamt.inference.predictor import Prediction, Predictor
from dcamt.io.readers import read_scan
from dcamt.models.package import ModelPackage
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import build_network
from dcamt.preprocessing import scan_to_network
from dcamt.recipe import FAST
from dcamt.volume import Labelmap, Volume
from dcamt_testing.analytic_scans import CENTRE, analytic_scan, centred_grid, points_of, rotation
from torch import nn


def labels_at(labelmap: Labelmap, points: np.ndarray) -> np.ndarray:
    """Return the labels of the voxels nearest to points (..., 3), RAS mm."""
    offset = points - labelmap.grid.affine[:3, 3]
    index = np.rint(offset @ np.linalg.inv(labelmap.grid.affine[:3, :3]).T).astype(int)
    return np.asarray(labelmap.voxels[tuple(np.moveaxis(index, -1, 0))])


@pytest.fixture(scope="module")
def predictor(tiny_package: ModelPackage) -> Predictor:
    return Predictor(tiny_package, precision=torch.float32)


@pytest.fixture(scope="module")
def expected(predictor: Predictor, oblique_scan: Volume) -> Prediction:
    result = predictor.segment(oblique_scan, keep_probabilities=True)
    # With a nearly empty or full labelmap, the comparisons with this result would be meaningless.
    assert 0.1 < result.labelmap.voxels.mean() < 0.6
    assert result.probabilities is not None
    assert result.probabilities.shape[1:] == oblique_scan.grid.shape
    assert np.array_equal(result.probabilities.argmax(axis=0), result.labelmap.voxels)
    # Along each axis, the result differs from its mirror image, so the tests detect a reversed axis.
    counts = [result.labelmap.voxels.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    assert all((count != count[::-1]).any() for count in counts)
    return result


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("flips", [(True, False, False), (False, True, True)], ids=str)
def test_labels_do_not_depend_on_the_storage_order(
    order: tuple[int, int, int],
    flips: tuple[bool, bool, bool],
    predictor: Predictor,
    oblique_scan: Volume,
    expected: Prediction,
) -> None:
    shape = tuple(oblique_scan.grid.shape[axis] for axis in order)
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        to_old[old, new] = -1 if flip else 1
        to_old[old, 3] = shape[new] - 1 if flip else 0
    voxels = oblique_scan.voxels.transpose(0, *(1 + axis for axis in order))
    voxels = np.flip(voxels, [1 + axis for axis, flip in enumerate(flips) if flip])
    scan = Volume(voxels, Grid(shape, oblique_scan.grid.affine @ to_old))  # type: ignore[arg-type]
    result = predictor.segment(scan)
    assert result.labelmap.grid is scan.grid
    points = points_of(oblique_scan.grid)
    assert np.array_equal(labels_at(result.labelmap, points), expected.labelmap.voxels)
    assert result.trust == expected.trust


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_labels_hardly_depend_on_the_file_format(
    ending: str, tmp_path: Path, predictor: Predictor, oblique_scan: Volume, expected: Prediction
) -> None:
    image = sitk.GetImageFromArray(oblique_scan.voxels[0].transpose(2, 1, 0))
    to_lps = np.diag([-1.0, -1.0, 1.0])
    image.SetSpacing(oblique_scan.grid.spacing.tolist())
    image.SetDirection((to_lps @ oblique_scan.grid.affine[:3, :3] / oblique_scan.grid.spacing).ravel().tolist())
    image.SetOrigin((to_lps @ oblique_scan.grid.affine[:3, 3]).tolist())
    sitk.WriteImage(image, str(tmp_path / f"scan{ending}"))
    scan = read_scan(tmp_path / f"scan{ending}")
    assert scan.grid.matches(oblique_scan.grid)
    result = predictor.segment(scan)
    assert result.labelmap.path == scan.path
    # A format may store geometry in 32 bits, so a voxel exactly on the boundary of two classes may change its label.
    assert (labels_at(result.labelmap, points_of(oblique_scan.grid)) != expected.labelmap.voxels).sum() <= 1


def test_labels_move_with_a_rotated_or_shifted_scan(
    predictor: Predictor, oblique_scan: Volume, expected: Prediction
) -> None:
    shape, spacing = oblique_scan.grid.shape, (1.5, 1.5, 2.0)
    for turn, centre in [
        (np.eye(3), CENTRE),
        (rotation(-20, 15, 10), CENTRE),
        (rotation(3, 25, -22), np.array([-300.0, 1e3, 7.0])),
        (rotation(9, -12, 17), np.zeros(3)),
    ]:
        grid = centred_grid(shape, spacing, turn, centre)
        result = predictor.segment(Volume(oblique_scan.voxels, grid))
        assert np.array_equal(result.labelmap.voxels, expected.labelmap.voxels)
        assert result.labelmap.grid is grid
        assert result.agreement is not None
        assert expected.agreement is not None
        assert np.abs(result.agreement - expected.agreement).max() < 1e-3


def test_labels_hardly_depend_on_gain_or_data_type(
    predictor: Predictor, oblique_scan: Volume, expected: Prediction
) -> None:
    brighter = predictor.segment(Volume(oblique_scan.voxels.astype(np.float64) * 37.5, oblique_scan.grid))
    assert (brighter.labelmap.voxels != expected.labelmap.voxels).sum() <= 1
    rounded = predictor.segment(Volume(np.rint(oblique_scan.voxels * 50).astype(np.uint16), oblique_scan.grid))
    assert (rounded.labelmap.voxels != expected.labelmap.voxels).mean() < 0.005


def test_accurate_quality_combines_both_branches(predictor: Predictor, tiny_package: ModelPackage) -> None:
    # The scan lies on the network grid, and its sizes are multiples of the stride: no resampling, no padding.
    scan = analytic_scan(centred_grid((20, 16, 24), (1.5, 1.5, 1.5)))
    result = predictor.segment(scan, keep_probabilities=True)
    image, _ = scan_to_network(scan, tiny_package.recipe)
    with torch.no_grad():
        branches = [output.logits[0].softmax(dim=0).numpy() for output in build_network(tiny_package)(image[None])]
    mean = (branches[0] + branches[1]) / 2
    assert np.abs(result.probabilities - mean).max() < 1e-5
    clear = np.abs(mean[1] - mean[0]) > 1e-4
    assert np.array_equal(result.labelmap.voxels[clear], mean.argmax(axis=0)[clear])
    assert result.labelmap.voxels.dtype == np.uint8
    assert np.abs(result.agreement - (1 - np.abs(branches[0][1] - branches[1][1]))).max() < 1e-5
    # Doubt is higher where the two classes' mean probabilities are close.
    order = np.argsort(np.abs(mean[1] - mean[0]).ravel())
    doubt = result.doubt_map.ravel()[order]
    assert doubt[:100].mean() > doubt[-100:].mean()
    a, b = (probabilities[1] > probabilities[0] for probabilities in branches)
    assert result.trust == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), abs=1e-3)
    assert result.notes == ()


def test_features_of_doubt_ignore_removed_components(tiny_package: ModelPackage, predictor: Predictor) -> None:
    # The scan lies on the network grid: no resampling.
    scan = analytic_scan(centred_grid((20, 16, 24), (1.5, 1.5, 1.5)))
    one_component = replace(
        tiny_package.recipe, inference=replace(tiny_package.recipe.inference, largest_component=True)
    )
    result = Predictor(replace(tiny_package, recipe=one_component), precision=torch.float32).segment(scan)
    assert result.labelmap.voxels.sum() < predictor.segment(scan).labelmap.voxels.sum()
    image, _ = scan_to_network(scan, one_component)
    with torch.no_grad():
        branches = torch.cat([output.logits.softmax(dim=1) for output in build_network(tiny_package)(image[None])])
    assert result.doubt == pytest.approx(doubt_features(branches, result.labelmap.voxels, (1.5, 1.5, 1.5)), rel=1e-4)


def test_progress_rises_from_0_to_1(predictor: Predictor) -> None:
    scan = analytic_scan(centred_grid((20, 16, 24), (1.5, 1.5, 1.5)))
    stages: list[tuple[str, float]] = []
    predictor.segment(scan, progress=lambda *event: stages.append(event))
    fractions = [fraction for _, fraction in stages]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)


def test_fast_quality_uses_branch_a_only(predictor: Predictor, tiny_package: ModelPackage) -> None:
    scan = analytic_scan(centred_grid((20, 16, 24), (1.5, 1.5, 1.5)))
    result = predictor.segment(scan, quality=FAST, keep_probabilities=True)
    image, _ = scan_to_network(scan, tiny_package.recipe)
    with torch.no_grad():
        alone = build_network(tiny_package).forward_one(image[None])[0].softmax(dim=0).numpy()
    assert np.abs(result.probabilities - alone).max() < 1e-5
    assert result.agreement is None
    assert result.doubt_map is None
    assert result.trust is None
    assert result.labelmap.voxels.any()


def test_bfloat16_changes_probabilities_by_less_than_0_05(
    tiny_package: ModelPackage, oblique_scan: Volume, expected: Prediction
) -> None:
    result = Predictor(tiny_package, precision=torch.bfloat16).segment(oblique_scan, keep_probabilities=True)
    assert result.probabilities is not None
    assert expected.probabilities is not None
    difference = np.abs(result.probabilities - expected.probabilities)
    assert 0 < difference.max() < 0.05  # bfloat16 is used, and its error is small
    assert (result.labelmap.voxels != expected.labelmap.voxels).mean() < 0.005


def test_agreement_is_one_minus_the_total_variation_distance() -> None:
    a = torch.tensor([[0.2, 0.7, 0.1], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    b = torch.tensor([[0.3, 0.3, 0.4], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [0.9, 0.1, 0.0]])
    branches = torch.stack([a, b]).permute(0, 2, 1).reshape(2, 3, 4, 1, 1)
    assert torch.allclose(agreement_map(branches).flatten(), torch.tensor([0.6, 0.0, 1.0, 0.9]))


def test_branch_dice_is_computed_from_voxel_counts() -> None:
    a = torch.tensor([0, 1, 1, 2, 2, 0, 1, 0])
    b = torch.tensor([0, 1, 2, 2, 0, 0, 1, 0])
    branches = torch.stack([nn.functional.one_hot(labels, 3).T.reshape(3, 2, 2, 2) for labels in (a, b)]).float()
    assert branch_dice(branches) == pytest.approx(2 * 3 / (5 + 4))
    assert branch_dice(branches[:1].repeat(2, 1, 1, 1, 1)) == 1
    background = torch.zeros(2, 3, 2, 2, 2)
    background[:, 0] = 1
    assert branch_dice(background) == 1


def test_scan_with_too_many_channels_is_refused(predictor: Predictor, oblique_scan: Volume) -> None:
    doubled = Volume(np.repeat(oblique_scan.voxels, 2, axis=0), oblique_scan.grid, Path("pair.nrrd"))
    with pytest.raises(InputError, match=r"pair\.nrrd: holds 2 volumes"):
        predictor.segment(doubled)


def test_memory_limit_does_not_change_the_labels(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = analytic_scan(centred_grid((40, 12, 12), (1.5, 1.5, 1.5)))
    expected = predictor.segment(scan).labelmap.voxels
    assert 0.1 < expected.mean() < 0.9
    memory = pass_bytes(predictor.recipe, (16, 12, 12))
    assert tile_size(predictor.recipe, scan.grid.shape, memory) is not None  # tiles are needed
    monkeypatch.setattr(tiling, "usable_memory", lambda device: memory)
    assert np.array_equal(predictor.segment(scan).labelmap.voxels, expected)


def test_network_is_built_on_the_cpu_and_then_moved_to_the_device(
    tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Predictor` folds the network on the CPU: `fold` needs double precision, which Apple's GPUs lack."""
    asked: list[str] = []

    def build(package: ModelPackage, device: torch.device | str = "cpu") -> DualVNet:
        asked.append(str(device))
        return build_network(package, device)

    monkeypatch.setattr("dcamt.inference.predictor.build_network", build)
    predictor = Predictor(tiny_package, "meta")
    assert asked == ["cpu"]
    assert {weight.device.type for weight in predictor.network.parameters()} == {"meta"}
