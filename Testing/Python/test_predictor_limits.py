"""Test `Predictor` with a region, with the largest component only, and with little memory.

In most tests, the network is a stub that computes its logits from the scan.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from dcamt.errors import InputError, MemoryShortage
from dcamt.geometry import CUT_BY_REGION, Region, Shape
from dcamt.inference import tiling
from dcamt.inference.folded import fold
from dcamt.inference.memory import pass_bytes
from dcamt.inference.predictor import Predictor
from dcamt.inference.tiling import predict_whole
from dcamt.models.calibration import Calibration, OverlapFunction
from dcamt.models.package import ModelPackage
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import build_network
from dcamt.recipe import Inference, Intensity, Recipe
from dcamt.volume import Volume
from dcamt_testing.analytic_scans import CENTRE, centred_grid, points_of
from scipy import ndimage
from torch import Tensor, nn


class StubNetwork(nn.Module):
    """Branch A segments the organ where channel 0 is positive. Branch B segments it where channel 1 is positive.

    The first `failures` passes raise `failure`.
    """

    def __init__(self, failure: Exception | None = None, failures: int = 0, device: str = "cpu") -> None:
        super().__init__()
        self.vnets = (SimpleNamespace(encoder=SimpleNamespace(levels=[None] * 3)),)
        self.weight = nn.Parameter(torch.ones((), device=device))
        self.stride = (4, 4, 4)
        self.failure, self.failures = failure, failures
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> tuple[SimpleNamespace, SimpleNamespace]:
        self.sizes.append(tuple(image.shape[2:]))
        if self.failure and len(self.sizes) <= self.failures:
            raise self.failure
        a, b = (torch.stack([-20 * image[:, i], 20 * image[:, i]], dim=1) for i in range(2))
        return SimpleNamespace(logits=a), SimpleNamespace(logits=b)


def record_tiles(monkeypatch: pytest.MonkeyPatch) -> list[Shape | None]:
    """Replace `predict_whole` and `predict_tiled` by a single pass over the whole volume.

    Return a list that receives the tile size of each call (None: the whole volume).
    """
    tiles: list[Shape | None] = []

    def record(
        network: StubNetwork, image: Tensor, quality: str, tile: Shape | None = None, tick: object = None
    ) -> Tensor:
        tiles.append(tile)
        return predict_whole(network, image, quality)  # type: ignore[arg-type]

    monkeypatch.setattr(tiling, "predict_whole", record)
    monkeypatch.setattr(tiling, "predict_tiled", record)
    return tiles


def fail_on_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every pass on the device `meta`, which replaces a GPU, run out of memory.

    The returned list receives the name of each function called on `meta`.
    """
    tried: list[str] = []
    for name in ("predict_whole", "predict_tiled"):
        real = getattr(tiling, name)

        def predict(network: nn.Module, image: Tensor, *rest: object, real: Any = real, name: str = name) -> Tensor:
            if image.device.type == "meta":
                tried.append(name)
                raise torch.OutOfMemoryError("CUDA out of memory.")
            result: Tensor = real(network, image, *rest)
            return result

        monkeypatch.setattr(tiling, name, predict)
    return tried


GRID = centred_grid((40, 36, 32), (1.5, 1.5, 1.5))
FROM_CENTRE = points_of(GRID) - CENTRE


def ball_mask(right_mm: float, radius_mm: float) -> np.ndarray:
    """Return the mask (I, J, K) of a ball `right_mm` to the right of the scan's centre."""
    return np.asarray(np.linalg.norm(FROM_CENTRE - (right_mm, 0, 0), axis=-1) < radius_mm)


BALLS = ball_mask(-17, 8), ball_mask(12, 11)
"""The left and the right ball. Branch A segments both balls, branch B only the right ball."""


def predictor_and_scan(
    tiny_package: ModelPackage, network: StubNetwork, largest_component: bool = False
) -> tuple[Predictor, Volume]:
    recipe: Recipe = replace(
        tiny_package.recipe,
        input_channels=2,
        intensity=Intensity("clip", low=-1, high=1),
        inference=Inference(largest_component=largest_component),
    )
    weights = {name: t.numpy() for name, t in DualVNet(recipe).state_dict().items() if t.is_floating_point()}
    predictor = Predictor(replace(tiny_package, recipe=recipe, weights=weights), precision=torch.float32)
    predictor.network = network  # type: ignore[assignment]
    left, right = BALLS
    return predictor, Volume(np.stack([left | right, right]).astype(np.float32) * 2 - 1, GRID)


def test_both_branches_determine_labels_trust_and_agreement(tiny_package: ModelPackage) -> None:
    left, right = BALLS
    predictor, scan = predictor_and_scan(tiny_package, StubNetwork())
    whole = predictor.segment(scan)
    # Where only one branch segments a ball, both classes have equal mean probabilities, and background is chosen.
    assert np.array_equal(whole.labelmap.voxels == 1, right)
    assert whole.trust == pytest.approx(2 * right.sum() / (2 * right.sum() + left.sum()))
    assert whole.agreement is not None
    assert whole.agreement[left].max() < 1e-3
    assert whole.agreement[~left].min() > 0.999


def test_region_restricts_the_computation_and_every_part_of_the_result(tiny_package: ModelPackage) -> None:
    left, right = BALLS
    network = StubNetwork()
    predictor, scan = predictor_and_scan(tiny_package, network)
    whole = predictor.segment(scan, keep_probabilities=True)
    corner = CENTRE + np.array([0.0, -6.0, -30.0])
    region = Region((corner[0], corner[1], corner[2]), (corner[0] + 26, corner[1] + 8, corner[2] + 60))
    network.sizes.clear()
    part = predictor.segment(scan, region=region, keep_probabilities=True)
    inside = region.mask(GRID)
    assert 0 < (right & inside).sum() < right.sum()
    assert np.array_equal(part.labelmap.voxels == 1, right & inside)
    assert part.trust == 1  # the left ball is outside the region
    assert np.prod(network.sizes) < 0.8 * np.prod(GRID.shape)
    assert whole.doubt_map is not None
    assert part.doubt_map is not None
    assert whole.doubt_map[left & ~inside].max() > 0.2
    assert not part.doubt_map[~inside].any()
    assert part.doubt_map[inside].any()
    assert whole.agreement is not None
    assert part.agreement is not None
    # The network also computes a margin around the region. A part of the left ball lies in this margin.
    assert whole.agreement[~inside].min() < 1e-3
    assert (part.agreement[~inside] == 1).all()
    np.testing.assert_allclose(part.agreement[inside], whole.agreement[inside], atol=1e-5)
    assert whole.probabilities is not None
    assert part.probabilities is not None
    assert (part.probabilities[0, ~inside] == 1).all()
    assert not part.probabilities[1:, ~inside].any()
    np.testing.assert_allclose(part.probabilities[:, inside], whole.probabilities[:, inside], atol=1e-5)


def test_segmentation_that_a_region_cuts_has_a_note_and_no_expected_overlap(tiny_package: ModelPackage) -> None:
    function = OverlapFunction(("entropy",), (0.0,), (1.0,), (-1.0,), 4.0, (0.9,), (-0.1,), (0.1,))
    calibration = Calibration(tiny_package.card.checksum, {"accurate": function}, cases=8, scans=40)
    predictor, scan = predictor_and_scan(replace(tiny_package, calibration=calibration), StubNetwork())
    low, high = CENTRE + np.array([0.0, -12, -12]), CENTRE + np.array([24.0, 12, 12])
    for axis in range(3):
        for end in (low, high):
            whole, end[axis] = end[axis], CENTRE[axis] + (12 if axis == 0 else 0)
            cut = predictor.segment(scan, region=Region(tuple(low), tuple(high)))
            assert cut.notes == (CUT_BY_REGION,)
            assert cut.expected_overlap is None
            end[axis] = whole
    # The region encloses the whole right ball. One face of the region lies outside the scan.
    high[0] = CENTRE[0] + 100
    enclosed = predictor.segment(scan, region=Region(tuple(low), tuple(high)))
    assert np.array_equal(enclosed.labelmap.voxels == 1, BALLS[1])
    assert enclosed.notes == ()
    assert enclosed.expected_overlap is not None


def test_region_without_a_voxel_centre_is_refused(tiny_package: ModelPackage) -> None:
    predictor, scan = predictor_and_scan(tiny_package, StubNetwork())
    low = CENTRE + 0.2  # voxel centres lie 0.75 mm from CENTRE along each axis
    region = Region((low[0], low[1], low[2]), (low[0] + 0.2, low[1] + 0.2, low[2] + 0.2))
    with pytest.raises(InputError, match="holds no voxel"):
        predictor.segment(scan, region=region)


def test_recipe_decides_whether_only_the_largest_component_is_kept(tiny_package: ModelPackage) -> None:
    left, right = BALLS
    for largest_component, count in ((False, 2), (True, 1)):
        predictor, scan = predictor_and_scan(tiny_package, StubNetwork(), largest_component)
        # Both branches see the channel with two balls.
        result = predictor.segment(Volume(np.repeat(scan.voxels[:1], 2, axis=0), scan.grid))
        labels = result.labelmap.voxels
        assert ndimage.label(labels)[1] == count
        assert np.array_equal(labels == 1, right if largest_component else left | right)
        assert result.doubt_map is not None
        # Removing the left ball contradicts both branches, so the doubt in this ball is high.
        assert (result.doubt_map[left].mean() > 0.9) == largest_component
        assert result.doubt_map[right].mean() < 0.3


def test_memory_limit_leads_to_tiles_that_fit(tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = record_tiles(monkeypatch)
    predictor, scan = predictor_and_scan(tiny_package, StubNetwork())
    predictor.segment(scan)
    assert tiles == [None]
    for fraction in (0.6, 0.3):
        tiles.clear()
        bound = int(fraction * pass_bytes(predictor.recipe, GRID.shape))
        monkeypatch.setattr(tiling, "usable_memory", lambda device, bound=bound: bound)
        predictor_and_scan(tiny_package, StubNetwork())[0].segment(scan)
        assert len(tiles) == 1
        assert tiles[0] is not None
        assert pass_bytes(predictor.recipe, tiles[0]) <= bound


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
]


@pytest.mark.parametrize("failure", OUT_OF_MEMORY, ids=["cuda", "cpu", "mps", "cudnn", "no engine"])
def test_out_of_memory_leads_to_smaller_tiles_and_a_note(
    tiny_package: ModelPackage, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = record_tiles(monkeypatch)
    network = StubNetwork(failure, failures=2)
    predictor, scan = predictor_and_scan(tiny_package, network)
    result = predictor.segment(scan)
    assert np.array_equal(result.labelmap.voxels == 1, BALLS[1])
    assert tiles[0] is None
    tried = [pass_bytes(predictor.recipe, tile or GRID.shape) for tile in tiles]
    assert len(tried) == 3
    assert tried[1] <= tried[0] / 2
    assert tried[2] <= tried[1] / 2
    assert len(result.notes) == 1  # one note, although memory was insufficient several times
    assert "memory; the scan was segmented in tiles" in result.notes[0]
    assert predictor.segment(scan).notes == ()


def test_cpu_is_used_when_the_gpu_is_too_small(tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    network = StubNetwork(device="meta")
    predictor, scan = predictor_and_scan(tiny_package, network)
    predictor.device = torch.device("meta")  # instead of a GPU
    monkeypatch.setattr(
        network, "to", lambda *_: pytest.fail("the GPU's network must stay on the GPU for the next scan")
    )
    asked: list[torch.device] = []
    spare = StubNetwork()
    monkeypatch.setattr(predictor, "_network_on", lambda device: asked.append(device) or spare)
    record_tiles(monkeypatch)
    tried = fail_on_gpu(monkeypatch)
    result = predictor.segment(scan)
    assert np.array_equal(result.labelmap.voxels == 1, BALLS[1])
    assert set(tried) == {"predict_whole", "predict_tiled"}
    # The note mentions no tiles, since the CPU needed none.
    assert result.notes == ("Not enough GPU memory; the CPU was used.",)
    assert asked == [torch.device("cpu")]
    assert predictor.network is network


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_cpu_network_has_the_chosen_precision_when_the_gpu_is_too_small(
    tiny_package: ModelPackage, oblique_scan: Volume, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(tiny_package, precision=precision)
    expected = predictor.segment(oblique_scan, keep_probabilities=True)
    predictor.network = fold(build_network(tiny_package)).float().to("meta")  # instead of the network on a GPU
    predictor.device = torch.device("meta")
    before = list(predictor.network.parameters())
    fail_on_gpu(monkeypatch)
    monkeypatch.setattr(tiling, "usable_memory", lambda device: 1 << 30)
    for _ in range(2):
        result = predictor.segment(oblique_scan, keep_probabilities=True)
        assert result.notes
        assert expected.probabilities is not None
        assert result.probabilities is not None
        assert np.abs(result.probabilities - expected.probabilities).max() < 1e-5
    after = list(predictor.network.parameters())
    assert len(after) == len(before) > 0
    assert all(parameter is former for parameter, former in zip(after, before, strict=True))
    assert all(tensor.is_meta for tensor in predictor.network.state_dict().values())


def test_insufficient_memory_for_the_smallest_tile_is_a_one_line_error(
    tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = record_tiles(monkeypatch)
    network = StubNetwork(OUT_OF_MEMORY[0], failures=10**9)
    predictor, scan = predictor_and_scan(tiny_package, network)
    with pytest.raises(MemoryShortage, match=r"scan\.nrrd: not enough memory.*region of interest") as caught:
        predictor.segment(replace(scan, path=Path("scan.nrrd")))
    assert "\n" not in str(caught.value)
    assert len(tiles) < 20
    assert tiles[-1] == (16, 16, 16)  # the smallest tile was tried


@pytest.mark.parametrize("step", ["scan_to_network", "doubt_map"])
def test_memory_error_before_or_after_the_network_contains_the_scan_name(
    tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    predictor, scan = predictor_and_scan(tiny_package, StubNetwork())
    monkeypatch.setattr(f"dcamt.inference.predictor.{step}", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryShortage, match=r"^scan\.nrrd: not enough memory for this scan\. Crop the scan"):
        predictor.segment(replace(scan, path=Path("scan.nrrd")))


def test_other_errors_are_not_treated_as_lack_of_memory(tiny_package: ModelPackage) -> None:
    predictor, scan = predictor_and_scan(tiny_package, StubNetwork(RuntimeError("shapes do not fit"), failures=1))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        predictor.segment(scan)
