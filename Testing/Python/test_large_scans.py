"""`Predictor` locates the organ of a large scan first, and segments only a box around the organ."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dcamt.geometry import Box, Grid, Region, network_grid
from dcamt.inference import components, localisation
from dcamt.inference import predictor as module
from dcamt.inference.components import CentrePrior, ExpectedOrgans, select_components
from dcamt.inference.localisation import (
    OrganLocation,
    crop_scan,
    is_large,
)
from dcamt.inference.predictor import Predictor
from dcamt.models.package import Card, ModelPackage
from dcamt.networks.dual_vnet import DualVNet
from dcamt.recipe import FAST
from dcamt.volume import Volume
from dcamt_testing.analytic_scans import centred_grid, dice, points_of, rotation
from dcamt_testing.large_scans import FIELD, RECIPE, SMALL_SHAPE, SPACING, ellipsoid, scan_in, small_scan, tissue
from torch import Tensor, nn

WHOLE_FIELD: Box = (slice(0, FIELD[0]), slice(0, FIELD[1]), slice(0, FIELD[2]))


class BrightnessNetwork(nn.Module):
    """Predicts the organ where the image is positive; records the sizes of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.vnets = (SimpleNamespace(encoder=SimpleNamespace(levels=[None] * 3)),)
        self.weight = nn.Parameter(torch.ones(()))
        self.stride = (4, 4, 4)
        self.sizes: list[tuple[int, ...]] = []

    def forward_one(self, image: Tensor) -> Tensor:
        self.sizes.append(tuple(image.shape[2:]))
        return torch.cat([-20 * image, 20 * image], dim=1)

    def forward(self, image: Tensor) -> tuple[SimpleNamespace, SimpleNamespace]:
        logits = self.forward_one(image)
        return SimpleNamespace(logits=logits), SimpleNamespace(logits=logits)


@pytest.fixture(autouse=True)
def lower_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localisation, "LARGE_VOXELS", 0)


@pytest.fixture
def predictor() -> Predictor:
    weights = {name: t.numpy().copy() for name, t in DualVNet(RECIPE).state_dict().items() if t.is_floating_point()}
    card = Card("tiny", "Tiny", ("Left atrium",), "MRI", "0", "none", "2000-01-01")
    made = Predictor(ModelPackage(card, RECIPE, weights), precision=torch.float32)
    made.network = BrightnessNetwork()  # type: ignore[assignment]
    return made


@pytest.mark.parametrize("kind", ["air", "noise", "mirrored tissue"])
def test_organ_is_segmented_in_a_box_and_the_rest_is_background(kind: str, predictor: Predictor) -> None:
    scan, own = scan_in(kind)
    result = predictor.segment(scan, keep_probabilities=True)
    labels = result.labelmap.voxels == 1
    assert labels.shape == FIELD
    assert dice(labels, own) > 0.95
    network = predictor.network
    # The number of voxels of the whole scan at the network's spacing of 2 mm.
    whole = np.prod([n * mm / 2 for n, mm in zip(FIELD, SPACING, strict=True)])
    assert max(np.prod(size) for size in network.sizes) < 0.6 * whole  # type: ignore[union-attr]
    # The corner of the scan, outside the box, is background with probability 1.
    assert result.probabilities is not None
    assert result.agreement is not None
    assert np.abs(result.probabilities.sum(axis=0) - 1).max() < 1e-5
    assert result.probabilities[0, 0, 0, 0] == 1
    assert result.agreement.shape == FIELD
    assert result.agreement[0, 0, 0] == 1
    assert result.doubt_map is not None
    assert result.doubt_map.shape == FIELD
    assert result.doubt_map[0, 0, 0] == 0
    assert result.doubt_map.max() > 0.1
    assert result.labelmap.grid is scan.grid


def test_labels_from_the_box_agree_with_labels_from_the_whole_scan(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, _ = scan_in("air")
    result = predictor.segment(scan)
    monkeypatch.setattr(module, "is_large", lambda *_: False)
    whole = predictor.segment(scan)
    # The box's network grid is shifted by half a voxel relative to the scan's network grid.
    assert dice(result.labelmap.voxels == 1, whole.labelmap.voxels == 1) > 0.95
    assert result.trust == whole.trust == 1


@pytest.mark.parametrize("kind", ["air", "mirrored tissue"])
def test_labels_do_not_depend_on_axis_order_or_direction(kind: str, predictor: Predictor) -> None:
    scan, _ = scan_in(kind)
    turned = Grid(FIELD, centred_grid(FIELD, SPACING, rotation(9, -12, 17)).affine)
    scan = Volume(scan.voxels, turned)
    expected = predictor.segment(scan, FAST).labelmap.voxels
    assert expected.any()
    for order in itertools.permutations(range(3)):
        for flips in ((True, False, False), (False, True, True)):
            to_old = np.zeros((4, 4))
            to_old[3, 3] = 1
            for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
                to_old[old, new] = -1 if flip else 1
                to_old[old, 3] = FIELD[old] - 1 if flip else 0
            axes = [axis for axis, flip in enumerate(flips) if flip]
            voxels = np.flip(scan.voxels[0].transpose(order), axes)
            stored = Volume(voxels[None], Grid(voxels.shape, turned.affine @ to_old))  # type: ignore[arg-type]
            labels = predictor.segment(stored, FAST).labelmap.voxels
            assert np.array_equal(np.flip(labels, axes), expected.transpose(order))


def test_whole_scan_is_segmented_when_no_organ_is_located(predictor: Predictor) -> None:
    scan, _ = scan_in("mirrored tissue")
    dark = Volume(np.minimum(scan.voxels, -0.3), scan.grid)
    fractions: list[float] = []
    result = predictor.segment(dark, progress=lambda _, fraction: fractions.append(fraction))
    assert not result.labelmap.voxels.any()
    assert predictor.network.sizes[-1] == (60, 72, 24)  # type: ignore[union-attr]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    empty = Volume(np.full_like(scan.voxels, -1), scan.grid)
    assert not predictor.segment(empty).labelmap.voxels.any()


def test_box_grows_where_labels_touch_its_faces(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, own = scan_in("air")
    i, j, k = (np.flatnonzero(own.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    small = (slice(i[0] + 4, i[-1] + 9), slice(j[0] - 8, j[-1] + 9), slice(k[0] - 2, k[-1] - 1))
    monkeypatch.setattr(module, "locate_organs", lambda *_: OrganLocation(small, WHOLE_FIELD))
    fractions: list[float] = []
    result = predictor.segment(scan, progress=lambda _, fraction: fractions.append(fraction))
    assert dice(result.labelmap.voxels == 1, own) > 0.95
    assert len(predictor.network.sizes) == 2  # type: ignore[union-attr]
    assert fractions == sorted(fractions)


def test_organ_is_not_located_when_a_region_is_given(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, own = scan_in("air")
    monkeypatch.setattr(module, "locate_organs", lambda *_: 1 / 0)
    low, high = points_of(scan.grid)[own].min(axis=0) - 3, points_of(scan.grid)[own].max(axis=0) + 3
    result = predictor.segment(scan, region=Region(tuple(low), tuple(high)))  # type: ignore[arg-type]
    assert dice(result.labelmap.voxels == 1, own) > 0.95


def test_small_scan_is_segmented_without_localisation(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = Volume(small_scan()[None], centred_grid(SMALL_SHAPE, SPACING))
    monkeypatch.setattr(module, "locate_organs", lambda *_: 1 / 0)
    assert not is_large(RECIPE, network_grid(centred_grid((24, 24, 16), SPACING), RECIPE.spacing))
    monkeypatch.setattr(localisation, "LARGE_VOXELS", 1 << 20)
    assert dice(predictor.segment(scan).labelmap.voxels == 1, small_scan() > 0) > 0.95


def scan_beside_larger_organ() -> tuple[Volume, np.ndarray, np.ndarray]:
    """Return a scan of an organ and a larger organ beside it, and the masks of both."""
    scan, own = scan_in("air")
    i, j, k = np.meshgrid(*[np.arange(n) for n in FIELD], indexing="ij")
    neighbour = ((i - 63) / 18) ** 2 + ((j - 112) / 16) ** 2 + ((k - 12) / 11) ** 2 < 1
    assert neighbour.sum() > own.sum()
    scan.voxels[0, neighbour] = 0.9
    return scan, own, neighbour


def test_larger_neighbour_does_not_replace_the_located_organ(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The box around the organ contains part of a larger organ."""
    scan, own, _ = scan_beside_larger_organ()
    box = (slice(40, 90), slice(60, 125), slice(0, 24))
    organ = (slice(50, 78), slice(68, 94), slice(4, 21))
    monkeypatch.setattr(module, "locate_organs", lambda *_: OrganLocation(box, WHOLE_FIELD))
    assert dice(predictor.segment(scan).labelmap.voxels == 1, own) < 0.1
    monkeypatch.setattr(module, "locate_organs", lambda *_: OrganLocation(box, WHOLE_FIELD, {1: organ}))
    assert dice(predictor.segment(scan).labelmap.voxels == 1, own) > 0.95


def test_organ_is_selected_in_the_whole_scan_if_the_first_box_cuts_the_organ(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, own, _ = scan_beside_larger_organ()
    organ = (slice(50, 78), slice(68, 94), slice(4, 21))
    first_box = (slice(40, 70), slice(60, 125), slice(0, 24))
    monkeypatch.setattr(module, "BOXES_BEFORE_WHOLE_SCAN", 1)
    monkeypatch.setattr(module, "locate_organs", lambda *_: OrganLocation(first_box, WHOLE_FIELD, {1: organ}))
    assert dice(predictor.segment(scan).labelmap.voxels == 1, own) > 0.95
    assert predictor.network.sizes[-1] == (60, 72, 24)  # type: ignore[union-attr]


def test_central_organ_is_selected_if_the_located_box_contains_two_organs(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Organs that touch on the coarse grid are located as one organ, in one box."""
    scan, own, neighbour = scan_beside_larger_organ()
    merged = (slice(40, 90), slice(60, 112), slice(0, 24))
    monkeypatch.setattr(module, "locate_organs", lambda *_: OrganLocation(merged, WHOLE_FIELD, {1: merged}))
    assert own[merged].sum() < neighbour[merged].sum() < 2 * own[merged].sum()
    assert dice(predictor.segment(scan).labelmap.voxels == 1, own) > 0.95
    monkeypatch.setattr(components, "CENTRAL", 0.0)
    assert dice(predictor.segment(scan).labelmap.voxels == 1, own) < 0.1


def test_centre_and_size_of_the_anatomy_exclude_padding(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    field = tuple(n + 43 for n in FIELD)
    anatomy, _ = scan_in("mirrored tissue")
    priors: list[tuple[CentrePrior, tuple[int, ...]]] = []

    def record_and_select(probabilities: Tensor, prior: CentrePrior) -> np.ndarray:
        priors.append((prior, tuple(probabilities.shape[1:])))
        return select_components(probabilities, prior)

    def record_and_keep(labels: np.ndarray, recipe: object, expected: ExpectedOrgans | None = None) -> np.ndarray:
        assert expected is not None
        priors.append((expected.prior, labels.shape))
        return labels

    monkeypatch.setattr(localisation, "_trim_to_strides", lambda length, stride: slice(2, length - 2))
    monkeypatch.setattr(localisation, "select_components", record_and_select)
    monkeypatch.setattr(module, "keep_organs", record_and_keep)
    boxes: list[Box] = []

    def record_and_crop(volume: Volume, box: Box) -> Volume:
        boxes.append(box)
        return crop_scan(volume, box)

    monkeypatch.setattr(module, "crop_scan", record_and_crop)
    for corner in ((0, 0, 0), (43, 20, 43), (7, 43, 11)):
        voxels = np.full((1, *field), -1, np.float32)
        where = tuple(slice(at, at + n) for at, n in zip(corner, FIELD, strict=True))
        voxels[(0, *where)] = anatomy.voxels[0]
        priors.clear()
        boxes.clear()
        predictor.segment(Volume(voxels, centred_grid(field, SPACING)))
        of_location, coarse_shape = priors[0]
        assert np.allclose(of_location.centre, (np.array(coarse_shape) - 1) / 2, atol=0.5)
        # The coarse grid's spacing is 3 mm.
        assert np.allclose(of_location.half_edges, np.array(FIELD) * SPACING / 3 / 2)
        for (of_result, _), box in zip(priors[1:], boxes, strict=True):
            expected = [at + (n - 1) / 2 - side.start for at, n, side in zip(corner, FIELD, box, strict=True)]
            assert of_result.centre.tolist() == expected
            assert of_result.half_edges.tolist() == [n / 2 for n in FIELD]
        # The box to segment contains no padding.
        assert all(a.start <= b.start and b.stop <= a.stop for a, b in zip(where, boxes[0], strict=True))


def test_padding_does_not_change_the_labels(predictor: Predictor) -> None:
    """The larger of two organs is selected, even if the smaller organ is more central in the padded scan."""
    larger = ellipsoid((36, 29, 11), (8, 8, 8))
    two_organs = np.where(larger | ellipsoid((20, 17, 12), (6, 6, 6)), np.float32(0.9), tissue())
    unpadded = predictor.segment(Volume(two_organs[None], centred_grid(SMALL_SHAPE, SPACING))).labelmap.voxels
    assert dice(unpadded == 1, larger) > 0.9
    for corner in ((0, 0, 0), (72, 104, 0), (10, 104, 0)):
        where = tuple(slice(at, at + n) for at, n in zip(corner, SMALL_SHAPE, strict=True))
        voxels = np.full(FIELD, -1, np.float32)
        voxels[where] = two_organs
        padded = predictor.segment(Volume(voxels[None], centred_grid(FIELD, SPACING))).labelmap.voxels
        assert np.array_equal(padded[where], unpadded)
        assert padded.sum() == unpadded.sum()


def test_whole_scan_is_segmented_when_no_organ_is_found_in_the_located_box(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, _, neighbour = scan_beside_larger_organ()
    organ = (slice(50, 78), slice(68, 94), slice(4, 21))
    monkeypatch.setattr(
        module,
        "locate_organs",
        lambda *_: OrganLocation((slice(40, 90), slice(60, 125), slice(0, 24)), WHOLE_FIELD, {1: organ}),
    )
    forward = predictor.network.forward

    def find_organs_in_the_whole_scan_only(image: Tensor) -> tuple[SimpleNamespace, SimpleNamespace]:
        return forward(image if image.shape[2] == FIELD[0] / 2 else -image.abs())

    monkeypatch.setattr(predictor.network, "forward", find_organs_in_the_whole_scan_only)
    assert dice(predictor.segment(scan).labelmap.voxels == 1, neighbour) > 0.95


def test_box_does_not_grow_into_a_larger_organ_that_touches_the_located_organ(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, own = scan_in("air")
    i, j, k = np.meshgrid(*[np.arange(n) for n in FIELD], indexing="ij")
    neighbour = ((i - 63) / 26) ** 2 + ((j - 120) / 16) ** 2 + ((k - 12) / 11) ** 2 < 1
    bridge = (abs(i - 63) < 3) & (j > 85) & (j < 115) & (abs(k - 12) < 3)
    scan.voxels[0, neighbour | bridge] = 0.9
    box = (slice(40, 90), slice(60, 98), slice(0, 24))
    monkeypatch.setattr(module, "locate_organs", lambda *_: OrganLocation(box, WHOLE_FIELD))
    mask = predictor.segment(scan).labelmap.voxels == 1
    assert dice(mask, own) > 0.8
    monkeypatch.setattr(module, "LARGEST_GROWTH", 100.0)
    assert dice(predictor.segment(scan).labelmap.voxels == 1, own) < 0.7
