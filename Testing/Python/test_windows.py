"""Windows cover a volume, blend smoothly, and give what one pass over the whole gives."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from DCAMTLib.inference.windows import ACCURATE, FAST, Size, _parts, _weight, probabilities, window_size
from DCAMTLib.model_package import ModelPackage
from DCAMTLib.preprocessing import scan_to_network
from DCAMTLib.volume import Volume
from torch import Tensor, nn

STRIDE = 4


class LocalNetwork(nn.Module):
    """In place of the dual V-Net: each branch one convolution, so that a voxel sees `edge` // 2 voxels around it."""

    def __init__(self, edge: int, levels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(edge)
        encoder = SimpleNamespace(levels=[None] * levels)
        self.vnets = (SimpleNamespace(encoder=encoder),)
        self.a = nn.Conv3d(1, 3, edge, padding=edge // 2)
        self.b = nn.Conv3d(1, 3, edge, padding=edge // 2)
        self.sizes: list[Size] = []

    def forward(self, image: Tensor) -> tuple[SimpleNamespace, SimpleNamespace]:
        self.sizes.append(tuple(image.shape[2:]))  # type: ignore[arg-type]
        return SimpleNamespace(logits=self.a(image)), SimpleNamespace(logits=self.b(image))

    def forward_one(self, image: Tensor) -> Tensor:
        self.sizes.append(tuple(image.shape[2:]))  # type: ignore[arg-type]
        return self.a(image)


def run(network: nn.Module, image: Tensor, quality: str, window: Size | None = None) -> Tensor:
    with torch.no_grad():
        return probabilities(network, image, quality, window)  # type: ignore[arg-type]


IMAGE = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 41, 36, 22)).astype(np.float32))


@pytest.mark.parametrize("quality", [FAST, ACCURATE])
@pytest.mark.parametrize(("edge", "tolerance"), [(1, 1e-6), (3, 1e-5)])
@pytest.mark.parametrize("window", [(16, 16, 16), (20, 36, 24), (44, 16, 20), (8, 12, 16)], ids=str)
def test_windows_give_what_one_pass_gives(window: Size, edge: int, tolerance: float, quality: str) -> None:
    network = LocalNetwork(edge)
    whole = run(network, IMAGE, quality)
    assert whole.shape == (1 if quality == FAST else 2, 3, 41, 36, 22)
    assert network.sizes == [(44, 36, 24)]  # padded to multiples of the stride
    network.sizes.clear()
    windowed = run(network, IMAGE, quality, window)
    assert len(network.sizes) > 1
    assert set(network.sizes) == {window}
    # Windows of two strides overlap by one only: all that a voxel gets may then come from near a face.
    interior = min(window) >= 4 * STRIDE or edge == 1
    assert (windowed - whole).abs().max() < (tolerance if interior else 1)
    assert torch.allclose(windowed.sum(dim=1), torch.ones(()), atol=1e-5)


def test_a_pass_is_the_softmax_of_the_image_padded_with_its_last_voxel() -> None:
    network = LocalNetwork(3)
    padded = torch.from_numpy(np.pad(IMAGE.numpy(), ((0, 0), (0, 3), (0, 0), (0, 2)), mode="edge"))
    with torch.no_grad():
        exponents = network.b(padded[None])[0, :, :41, :36, :22].exp()
    assert torch.allclose(run(network, IMAGE, ACCURATE)[1], exponents / exponents.sum(dim=0), atol=1e-6)


@pytest.mark.parametrize("stride", [2, 4, 16])
def test_windows_cover_the_volume_from_multiples_of_the_stride(stride: int) -> None:
    rng = np.random.default_rng(stride)
    for _ in range(60):
        size = tuple(int(n) * stride for n in rng.integers(1, 14, 3))
        window = tuple(int(n) * stride for n in rng.integers(4, 9, 3))
        parts = list(_parts(size, window, stride))  # type: ignore[arg-type]
        assert len(set(map(str, parts))) == len(parts)
        for axis in range(3):
            places = sorted({(part[axis].start, part[axis].stop) for part in parts})
            edge = min(window[axis], size[axis])
            assert all(start % stride == 0 and stop - start == edge for start, stop in places)
            assert places[0][0] == 0
            assert places[-1][1] == size[axis]
            overlaps = [before[1] - after[0] for before, after in itertools.pairwise(places)]
            assert all(overlap >= 2 * stride for overlap in overlaps)
        # Every combination of the axes' places is there, so covering each axis covers the volume.
        assert len(parts) == np.prod([len({part[axis].start for part in parts}) for axis in range(3)])


def test_weights_are_positive_fall_only_inside_and_stay_high_somewhere() -> None:
    size, stride = (96, 64, 32), 8
    total, best = torch.zeros(size), torch.zeros(size)
    for part in _parts(size, (32, 32, 32), stride):
        weight = _weight(part, size, stride, torch.device("cpu"))
        assert weight.min() > 0
        assert weight.max() == 1
        total[part] += weight
        best[part] = torch.maximum(best[part], weight)
        for axis, (place, length) in enumerate(zip(part, size, strict=True)):
            first, last = weight.select(axis, 0).max(), weight.select(axis, -1).max()
            assert first == 1 if place.start == 0 else first < 1e-5
            assert last == 1 if place.stop == length else last < 1e-5
    # Each voxel lies well inside of some window: a stride or more from its faces along every axis.
    assert best.min() >= 0.1
    assert total.min() >= 0.5


@pytest.mark.parametrize("size", [(100, 90, 80), (33, 200, 64), (64, 64, 64), (10, 10, 300)], ids=str)
def test_the_window_is_the_first_that_fits(size: Size) -> None:
    stride = 16
    padded = [-(-n // stride) * stride for n in size]
    for bound in np.geomspace(1e3, 2e7, 40):
        window = window_size(size, stride, lambda shape, bound=bound: np.prod(shape) <= bound)  # type: ignore[misc]
        if window is None:
            assert np.prod(padded) <= bound or max(padded) <= 4 * stride
            continue
        assert np.prod(padded) > bound
        assert all(n % stride == 0 for n in window)
        assert all(min(4 * stride, whole) <= n <= whole for n, whole in zip(window, padded, strict=True))
        assert np.prod(window) <= bound or max(window) <= 4 * stride
        # One step larger along its longest axis it would not have fitted.
        longest = max(range(3), key=lambda axis: padded[axis] - window[axis])
        larger = [n + stride * (axis == longest) for axis, n in enumerate(window)]
        assert np.prod(larger) > bound


@pytest.mark.parametrize("quality", [FAST, ACCURATE])
def test_a_dual_vnet_answers_by_windows_nearly_as_in_one_pass(
    quality: str, tiny_package: ModelPackage, oblique_scan: Volume
) -> None:
    network = tiny_package.network()
    image, _ = scan_to_network(oblique_scan, tiny_package.recipe)
    ticks: list[tuple[int, int]] = []
    whole = run(network, image, quality)
    with torch.no_grad():
        windowed = probabilities(network, image, quality, (16, 16, 16), lambda *tick: ticks.append(tick))
    assert ticks == [(i + 1, len(ticks)) for i in range(len(ticks))]
    assert len(ticks) > 1
    labels, expected = windowed.argmax(dim=1), whole.argmax(dim=1)
    assert 0.1 < expected.float().mean() < 0.6
    # The attention sees the window in place of the volume, so a few voxels on the boundary may change sides.
    assert (labels == expected).float().mean() > 0.95
