"""Prediction in one pass, and the choice of the largest tile that fits into memory."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dcamt.geometry import Shape
from dcamt.inference.memory import fitting_tile
from dcamt.inference.tiling import predict_whole
from dcamt.recipe import ACCURATE, FAST
from torch import Tensor, nn


class LocalNetwork(nn.Module):
    """Replaces the dual V-Net. Each branch is one convolution with a kernel of `edge` voxels along each axis."""

    def __init__(self, edge: int, levels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(edge)
        encoder = SimpleNamespace(levels=[None] * levels)
        self.vnets = (SimpleNamespace(encoder=encoder),)
        self.stride = (2 ** (levels - 1),) * 3
        self.a = nn.Conv3d(1, 3, edge, padding=edge // 2)
        self.b = nn.Conv3d(1, 3, edge, padding=edge // 2)
        self.sizes: list[Shape] = []

    def forward(self, image: Tensor) -> tuple[SimpleNamespace, SimpleNamespace]:
        self.sizes.append(tuple(image.shape[2:]))  # type: ignore[arg-type]
        return SimpleNamespace(logits=self.a(image)), SimpleNamespace(logits=self.b(image))

    def forward_one(self, image: Tensor) -> Tensor:
        self.sizes.append(tuple(image.shape[2:]))  # type: ignore[arg-type]
        return self.a(image)


def predict_without_gradients(network: nn.Module, image: Tensor, quality: str) -> Tensor:
    with torch.no_grad():
        return predict_whole(network, image, quality)  # type: ignore[arg-type]


IMAGE = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 41, 36, 22)).astype(np.float32))


def test_pass_returns_probabilities_of_the_image_padded_with_its_last_voxel() -> None:
    network = LocalNetwork(3)
    padded = torch.from_numpy(np.pad(IMAGE.numpy(), ((0, 0), (0, 3), (0, 0), (0, 2)), mode="edge"))
    with torch.no_grad():
        exponents = network.b(padded[None])[0, :, :41, :36, :22].exp()
    probabilities = predict_without_gradients(network, IMAGE, ACCURATE)
    assert torch.allclose(probabilities[1], exponents / exponents.sum(dim=0), atol=1e-6)
    assert probabilities.shape == (2, 3, 41, 36, 22)
    assert network.sizes == [(44, 36, 24)]  # padded to multiples of the stride
    assert torch.equal(predict_without_gradients(network, IMAGE, FAST), probabilities[:1])


@pytest.mark.parametrize("size", [(100, 90, 80), (33, 200, 64), (64, 64, 64), (10, 10, 300)], ids=str)
def test_tile_is_the_largest_that_fits(size: Shape) -> None:
    stride = 16
    strides = (stride, stride, stride)
    padded = [-(-n // stride) * stride for n in size]
    for bound in np.geomspace(1e3, 2e7, 40):
        part = fitting_tile(size, strides, lambda shape, bound=bound: np.prod(shape) <= bound)  # type: ignore[misc]
        if part is None:
            assert np.prod(padded) <= bound or max(padded) <= 4 * stride
            continue
        assert np.prod(padded) > bound
        assert all(n % stride == 0 for n in part)
        assert all(min(4 * stride, whole) <= n <= whole for n, whole in zip(part, padded, strict=True))
        assert np.prod(part) <= bound or max(part) <= 4 * stride
        # A tile one step longer along its longest axis would not fit.
        longest = max(range(3), key=lambda axis: padded[axis] - part[axis])
        larger = [n + stride * (axis == longest) for axis, n in enumerate(part)]
        assert np.prod(larger) > bound
