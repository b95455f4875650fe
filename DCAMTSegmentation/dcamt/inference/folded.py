"""Fold batch normalisation and ReLU into the convolutions of a network for inference.

At inference, batch normalisation scales and offsets each channel by constants. The preceding convolution can include
these constants: W' = W * g, b' = (b - mean) * g + beta, where g = gamma / sqrt(variance + eps).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.dual_vnet import DualVNet

Convolution = nn.Conv3d | nn.ConvTranspose3d


class FoldedConvolution(nn.Conv3d):
    """A convolution with a bias, followed by ReLU if `relu`: (B, inputs, X, Y, Z) -> (B, outputs, X', Y', Z')."""

    relu: bool = False

    def __init__(self, plain: nn.Conv3d) -> None:
        # On the meta device, torch draws no random weights.
        super().__init__(
            plain.in_channels,
            plain.out_channels,
            plain.kernel_size,  # type: ignore[arg-type]
            plain.stride,  # type: ignore[arg-type]
            plain.padding,  # type: ignore[arg-type]
            plain.dilation,  # type: ignore[arg-type]
            plain.groups,
            device="meta",
        )
        self.weight = plain.weight
        self.bias = _zero_bias(plain) if plain.bias is None else plain.bias

    def forward(self, image: Tensor) -> Tensor:
        fused = _fused_convolution(image)
        if fused is None:
            result = super().forward(image)
            return F.relu_(result) if self.relu else result
        attribute = "relu" if self.relu else "none"
        merged: Tensor = fused(
            image, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups, attribute, [], ""
        )
        return merged


def fold(network: DualVNet) -> DualVNet:
    """Fold the batch normalisation of `network` in place; return the network, which can no longer be trained."""
    network.eval().requires_grad_(False)
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fold_layers(module)
    for vnet in network.vnets:
        vnet.head = FoldedConvolution(vnet.head)
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def move(network: DualVNet, device: torch.device, precision: torch.dtype) -> DualVNet:
    """Move a network to a device in place, convert its weights to `precision`, and return it.

    Instance normalisation stays in float32: its statistics are sums over a whole volume and need this precision.
    PyTorch can apply a float32 normalisation to 16-bit features.
    """
    network.to(device, precision)
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm3d):
            module.float()
    return network


def _fold_layers(layers: nn.Sequential) -> None:
    kept: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.Conv3d):
            convolution: Convolution = FoldedConvolution(layer)
            kept.append(convolution)
        elif isinstance(layer, nn.ConvTranspose3d):
            convolution = layer
            convolution.bias = _zero_bias(layer)
            kept.append(convolution)
        elif isinstance(layer, nn.BatchNorm3d):
            _fold_normalisation(convolution, layer)
        elif isinstance(layer, nn.ReLU) and isinstance(kept[-1], FoldedConvolution):
            kept[-1].relu = True
        else:
            kept.append(layer)
    del layers[:]
    layers.extend(kept)


def _zero_bias(convolution: Convolution) -> nn.Parameter:
    return nn.Parameter(convolution.weight.new_zeros(convolution.out_channels), requires_grad=False)


def _fold_normalisation(convolution: Convolution, norm: nn.BatchNorm3d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert convolution.bias is not None
    # In double precision, so that values are rounded only once.
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    along = (1, -1, 1, 1, 1) if isinstance(convolution, nn.ConvTranspose3d) else (-1, 1, 1, 1, 1)
    with torch.no_grad():
        offset = (convolution.bias.double() - norm.running_mean.double()) * scale + norm.bias.double()
        convolution.weight.copy_(convolution.weight.double() * scale.reshape(along))
        convolution.bias.copy_(offset)


def _fused_convolution(image: Tensor) -> Callable[..., Tensor] | None:
    """Return oneDNN's convolution with optional ReLU; None if the operator does not work or the image is not on a CPU.

    `F.conv3d` is several times slower for small or one-channel convolutions.
    """
    return _tested_operator(image.dtype) if image.device.type == "cpu" else None


@lru_cache
def _tested_operator(precision: torch.dtype) -> Callable[..., Tensor] | None:
    """Return oneDNN's convolution, a private operator of PyTorch.

    None if the operator is missing, raises an error, or gives wrong results in this precision.
    """
    operator: Callable[..., Tensor] | None = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
    if operator is None:
        return None
    image, weight, bias = (
        torch.linspace(-1, 1, math.prod(size)).reshape(size).to(precision)
        for size in ((1, 2, 3, 4, 5), (2, 2, 3, 3, 3), (2,))
    )
    try:
        computed = operator(image, weight, bias, [1] * 3, [1] * 3, [1] * 3, 1, "relu", [], "")
        expected = F.conv3d(image, weight, bias, padding=1).relu()
    except (RuntimeError, TypeError):
        return None
    return operator if torch.allclose(computed.float(), expected.float(), rtol=2e-2, atol=2e-2) else None
