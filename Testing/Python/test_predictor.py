"""`Predictor`: labels do not depend on how a scan is stored; effects of quality, region and memory limits."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
import torch
from dcamt.errors import InputError, MemoryShortage
from dcamt.geometry import Grid, Region, Shape, network_grid
from dcamt.inference import tiling
from dcamt.inference.agreement import agreement_map, branch_dice
from dcamt.inference.folded import fold
from dcamt.inference.memory import pass_bytes, tile_size
from dcamt.inference.predictor import Prediction, Predictor
from dcamt.inference.tiling import predict_whole
from dcamt.io.readers import read_scan
from dcamt.models.package import ModelPackage
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import build_network
from dcamt.preprocessing import scan_to_network
from dcamt.recipe import FAST, Inference, Intensity, Recipe
from dcamt.volume import Labelmap, Volume
from dcamt_testing.analytic_scans import CENTRE, analytic_scan, centred_grid, points_of, random_package, rotation
from scipy import ndimage
from torch import Tensor, nn


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
    share = result.labelmap.voxels.mean()
    assert 0.1 < share < 0.6  # otherwise the comparisons below would be meaningless
    assert result.probabilities is not None
    assert result.probabilities.shape[1:] == oblique_scan.grid.shape
    assert np.array_equal(result.probabilities.argmax(axis=0), result.labelmap.voxels)
    # The result differs along all axes and directions, so a swapped or reversed axis is detected.
    counts = [result.labelmap.voxels.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    assert all((count != count[::-1]).any() for count in counts)
    return result


# ---- geometry


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("flips", list(itertools.product((False, True), repeat=3)), ids=str)
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
def test_labels_do_not_depend_on_the_file_format(
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
    # A format may store geometry in 32 bits, so a voxel exactly on the boundary may change its label.
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


def test_labels_do_not_depend_on_gain_or_data_type(
    predictor: Predictor, oblique_scan: Volume, expected: Prediction
) -> None:
    brighter = predictor.segment(Volume(oblique_scan.voxels.astype(np.float64) * 37.5, oblique_scan.grid))
    assert (brighter.labelmap.voxels != expected.labelmap.voxels).sum() <= 1
    whole = predictor.segment(Volume(np.rint(oblique_scan.voxels * 50).astype(np.uint16), oblique_scan.grid))
    assert (whole.labelmap.voxels != expected.labelmap.voxels).mean() < 0.005


# ---- results


def test_label_is_the_class_of_highest_mean_probability(
    predictor: Predictor, tiny_package: ModelPackage, oblique_scan: Volume
) -> None:
    # Equals the network grid; sizes are multiples of the stride.
    scan = analytic_scan(centred_grid((20, 16, 24), (1.5, 1.5, 1.5)))
    stages: list[tuple[str, float]] = []
    result = predictor.segment(scan, keep_probabilities=True, progress=lambda *event: stages.append(event))
    image, _ = scan_to_network(scan, tiny_package.recipe)
    with torch.no_grad():
        both = [output.logits[0].softmax(dim=0).numpy() for output in build_network(tiny_package)(image[None])]
    mean = (both[0] + both[1]) / 2
    assert np.abs(result.probabilities - mean).max() < 1e-5
    clear = np.abs(mean[1] - mean[0]) > 1e-4
    assert np.array_equal(result.labelmap.voxels[clear], mean.argmax(axis=0)[clear])
    assert result.labelmap.voxels.dtype == np.uint8
    assert np.abs(result.agreement - (1 - np.abs(both[0][1] - both[1][1]))).max() < 1e-5
    # Doubt depends on the mean of the branches alone, and is highest where this is undecided.
    order = np.argsort(np.abs(mean[1] - mean[0]).ravel())
    doubt = result.doubt_map.ravel()[order]
    assert doubt[:100].mean() > doubt[-100:].mean()
    a, b = (share[1] > share[0] for share in both)
    assert result.trust == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), abs=1e-3)
    assert result.notes == ()
    shares = [share for _, share in stages]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


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


def test_bfloat16_changes_probabilities_by_less_than_5_percent(
    tiny_package: ModelPackage, oblique_scan: Volume, expected: Prediction
) -> None:
    result = Predictor(tiny_package, precision=torch.bfloat16).segment(oblique_scan, keep_probabilities=True)
    assert result.probabilities is not None
    assert expected.probabilities is not None
    difference = np.abs(result.probabilities - expected.probabilities)
    assert 0 < difference.max() < 0.05  # bfloat16 is used and agrees
    assert (result.labelmap.voxels != expected.labelmap.voxels).mean() < 0.005


def test_agreement_is_one_minus_the_total_variation_distance() -> None:
    a = torch.tensor([[0.2, 0.7, 0.1], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    b = torch.tensor([[0.3, 0.3, 0.4], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [0.9, 0.1, 0.0]])
    branches = torch.stack([a, b]).permute(0, 2, 1).reshape(2, 3, 4, 1, 1)
    assert torch.allclose(agreement_map(branches).flatten(), torch.tensor([0.6, 0.0, 1.0, 0.9]))


def test_branch_dice_equals_counts_of_voxels() -> None:
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


# ---- with a network whose logits are stored in the scan


class NetworkOfScan(nn.Module):
    """Returns the scan's channels 0 (branch A) and 1 (branch B) as logits; the first `failures` passes fail."""

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
    """Record the sizes of tiles in the returned list (None: the whole volume)."""
    tiles: list[Shape | None] = []

    def record(
        network: NetworkOfScan, image: Tensor, quality: str, tile: Shape | None = None, tick: object = None
    ) -> Tensor:
        tiles.append(tile)
        return predict_whole(network, image, quality)  # type: ignore[arg-type]

    monkeypatch.setattr(tiling, "predict_whole", record)
    monkeypatch.setattr(tiling, "predict_tiled", record)
    return tiles


def fail_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every pass on the device `meta`, used instead of a GPU, run out of memory."""
    for name in ("predict_whole", "predict_tiled"):
        real = getattr(tiling, name)

        def predict(network: nn.Module, image: Tensor, *rest: object, real: Any = real) -> Tensor:
            if image.device.type == "meta":
                raise torch.OutOfMemoryError("CUDA out of memory.")
            result: Tensor = real(network, image, *rest)
            return result

        monkeypatch.setattr(tiling, name, predict)


GRID = centred_grid((40, 36, 32), (1.5, 1.5, 1.5))
FROM_CENTRE = points_of(GRID) - CENTRE


def ball_mask(x: float, radius: float) -> np.ndarray:
    """Return the mask (I, J, K) of a ball whose centre is `x` mm to the patient's right of the scan's centre."""
    return np.asarray(np.linalg.norm(FROM_CENTRE - (x, 0, 0), axis=-1) < radius)


BALLS = ball_mask(-17, 8), ball_mask(12, 11)
"""Two balls. Branch A segments both, branch B only the right one."""


def predictor_and_scan(
    tiny_package: ModelPackage, network: NetworkOfScan, component: bool = False
) -> tuple[Predictor, Volume]:
    recipe: Recipe = replace(
        tiny_package.recipe,
        input_channels=2,
        intensity=Intensity("clip", low=-1, high=1),
        inference=Inference(largest_component=component),
    )
    predictor = Predictor(random_package_of(recipe), precision=torch.float32)
    predictor.network = network  # type: ignore[assignment]
    left, right = BALLS
    return predictor, Volume(np.stack([left | right, right]).astype(np.float32) * 2 - 1, GRID)


def random_package_of(recipe: Recipe) -> ModelPackage:
    voxels = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 8)).astype(np.float32)
    return random_package(recipe, Volume(voxels, centred_grid((8, 8, 8), recipe.spacing)))


def test_region_limits_labels_trust_and_computation(tiny_package: ModelPackage) -> None:
    left, right = BALLS
    network = NetworkOfScan()
    predictor, scan = predictor_and_scan(tiny_package, network)
    whole = predictor.segment(scan)
    # Where only one branch segments a ball, the mean probabilities are equal and background is chosen.
    assert np.array_equal(whole.labelmap.voxels == 1, right)
    assert whole.trust == pytest.approx(2 * right.sum() / (2 * right.sum() + left.sum()))
    assert whole.agreement is not None
    assert whole.agreement[left].max() < 1e-3
    assert whole.agreement[~left].min() > 0.999

    corner = CENTRE + np.array([0.0, -6.0, -30.0])
    region = Region((corner[0], corner[1], corner[2]), (corner[0] + 26, corner[1] + 8, corner[2] + 60))
    network.sizes.clear()
    part = predictor.segment(scan, region=region, keep_probabilities=True)
    inside = region.mask(GRID)
    assert 0 < (right & inside).sum() < right.sum()
    assert np.array_equal(part.labelmap.voxels == 1, right & inside)
    assert part.trust == 1  # the disputed ball is outside the region, although partly in the computed box
    assert part.agreement is not None
    assert part.agreement[left].min() < 1e-3
    assert np.prod(network.sizes) < 0.8 * np.prod(GRID.shape)
    assert whole.doubt_map is not None
    assert part.doubt_map is not None
    assert whole.doubt_map[left & ~inside].max() > 0.2
    assert not part.doubt_map[~inside].any()
    assert part.doubt_map[inside].any()
    # Voxels that were not computed are background with probability 1.
    assert part.probabilities is not None
    assert np.abs(part.probabilities.sum(axis=0) - 1).max() < 1e-5
    assert part.probabilities[0, 0, 0, 0] == 1


def test_region_without_a_voxel_centre_is_refused(tiny_package: ModelPackage) -> None:
    predictor, scan = predictor_and_scan(tiny_package, NetworkOfScan())
    low = CENTRE + 0.2  # voxel centres are 1.5 mm apart; the nearest are 0.75 mm from CENTRE
    region = Region((low[0], low[1], low[2]), (low[0] + 0.2, low[1] + 0.2, low[2] + 0.2))
    with pytest.raises(InputError, match="holds no voxel"):
        predictor.segment(scan, region=region)


def test_only_the_largest_component_is_kept_when_the_recipe_says_so(tiny_package: ModelPackage) -> None:
    left, right = BALLS
    for component, pieces in ((False, 2), (True, 1)):
        predictor, scan = predictor_and_scan(tiny_package, NetworkOfScan(), component=component)
        both = Volume(np.repeat(scan.voxels[:1], 2, axis=0), scan.grid)
        result = predictor.segment(both)
        labels = result.labelmap.voxels
        assert ndimage.label(labels)[1] == pieces
        assert np.array_equal(labels == 1, right if component else left | right)
        assert result.doubt_map is not None
        # The model calls both balls the organ: without one of them, the labels there are probably wrong.
        assert (result.doubt_map[left].mean() > 0.9) == component
        assert result.doubt_map[right].mean() < 0.3


def test_memory_limit_leads_to_tiles_that_fit(tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = record_tiles(monkeypatch)
    predictor, scan = predictor_and_scan(tiny_package, NetworkOfScan())
    predictor.segment(scan)
    assert parts == [None]
    for share in (0.6, 0.3):
        parts.clear()
        bound = int(share * pass_bytes(predictor.recipe, GRID.shape))
        monkeypatch.setattr(tiling, "free_memory", lambda device, bound=bound: bound)
        predictor_and_scan(tiny_package, NetworkOfScan())[0].segment(scan)
        assert len(parts) == 1
        assert parts[0] is not None
        assert pass_bytes(predictor.recipe, parts[0]) <= bound


def test_memory_limit_does_not_change_the_result(
    tiny_package: ModelPackage, oblique_scan: Volume, expected: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = pass_bytes(tiny_package.recipe, (16, 16, 16))
    monkeypatch.setattr(tiling, "free_memory", lambda device: memory)
    predictor = Predictor(tiny_package, precision=torch.float32)
    whole = network_grid(oblique_scan.grid, predictor.recipe.spacing).shape
    assert tile_size(predictor.recipe, whole, memory) is not None
    result = predictor.segment(oblique_scan)
    assert np.array_equal(result.labelmap.voxels, expected.labelmap.voxels)


# ---- out of memory

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
    parts = record_tiles(monkeypatch)
    network = NetworkOfScan(failure, failures=2)
    predictor, scan = predictor_and_scan(tiny_package, network)
    result = predictor.segment(scan)
    assert np.array_equal(result.labelmap.voxels == 1, BALLS[1])
    assert parts[0] is None
    tried = [pass_bytes(predictor.recipe, part or GRID.shape) for part in parts]
    assert len(tried) == 3
    assert tried[1] <= tried[0] / 2
    assert tried[2] <= tried[1] / 2
    assert len(result.notes) == 1  # one note, although memory was insufficient several times
    assert "memory; the scan was segmented in tiles" in result.notes[0]
    assert predictor.segment(scan).notes == ()  # the next scan has no note


def test_cpu_is_used_when_the_gpu_is_too_small(tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    network = NetworkOfScan(device="meta")
    predictor, scan = predictor_and_scan(tiny_package, network)
    predictor.device = torch.device("meta")  # instead of a GPU
    monkeypatch.setattr(network, "to", lambda *_: pytest.fail("the GPU's network is for the next scan"))
    asked: list[torch.device] = []
    spare = NetworkOfScan()
    monkeypatch.setattr(predictor, "_network_on", lambda device: asked.append(device) or spare)
    record_tiles(monkeypatch)
    fail_on_gpu(monkeypatch)
    result = predictor.segment(scan)
    assert np.array_equal(result.labelmap.voxels == 1, BALLS[1])
    smaller, cpu = result.notes
    assert "GPU" in smaller
    assert cpu == "Not enough GPU memory; the CPU was used."
    assert asked == [torch.device("cpu")]
    assert predictor.network is network


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_cpu_copy_of_the_network_has_the_precision_of_the_cpu(
    tiny_package: ModelPackage, oblique_scan: Volume, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(tiny_package, precision=precision)
    expected = predictor.segment(oblique_scan, keep_probabilities=True)
    predictor.network = fold(build_network(tiny_package)).float().to("meta")  # instead of the network on a GPU
    predictor.device = torch.device("meta")
    before = dict(predictor.network.state_dict())
    fail_on_gpu(monkeypatch)
    monkeypatch.setattr(tiling, "free_memory", lambda device: 1 << 30)
    for _ in range(2):
        result = predictor.segment(oblique_scan, keep_probabilities=True)
        assert result.notes
        assert expected.probabilities is not None
        assert result.probabilities is not None
        assert np.abs(result.probabilities - expected.probabilities).max() < 1e-5
    after = predictor.network.state_dict()
    assert all(tensor.data_ptr() == before[name].data_ptr() and tensor.is_meta for name, tensor in after.items())


def test_insufficient_memory_for_the_smallest_tile_is_a_one_line_error(
    tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = record_tiles(monkeypatch)
    network = NetworkOfScan(OUT_OF_MEMORY[0], failures=10**9)
    predictor, scan = predictor_and_scan(tiny_package, network)
    with pytest.raises(MemoryShortage, match=r"not enough memory.*region of interest"):
        predictor.segment(scan)
    assert len(parts) < 20
    assert parts[-1] == (16, 16, 16)  # the smallest tile was tried


def test_other_errors_are_not_treated_as_lack_of_memory(tiny_package: ModelPackage) -> None:
    predictor, scan = predictor_and_scan(tiny_package, NetworkOfScan(RuntimeError("shapes do not fit"), failures=1))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        predictor.segment(scan)


def test_network_is_folded_on_the_cpu_for_every_device(
    tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folding uses double precision, which Apple's GPUs do not support."""
    asked: list[str] = []

    def build(package: ModelPackage, device: torch.device | str = "cpu") -> DualVNet:
        asked.append(str(device))
        return build_network(package, device)

    monkeypatch.setattr("dcamt.inference.predictor.build_network", build)
    predictor = Predictor(tiny_package, "meta")
    assert asked == ["cpu"]
    assert {weight.device.type for weight in predictor.network.parameters()} == {"meta"}
