"""Fold batch normalisation and ReLU into the convolutions of a network for inference.

At inference, batch normalisation scales and offsets each channel by constants. The preceding convolution can include
these constants: W' = W * g, b' = (b - mean) * g + beta, where g = gamma / sqrt(variance + eps). An interpolation
between the two layers does not matter, since its weights sum to 1. The folded network gives the same probabilities up
to rounding; in bfloat16 the probabilities differ by hundredths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.dual_vnet import DualVNet


class FoldedConvolution(nn.Conv3d):
    """A convolution with a bias, followed by ReLU if `relu`: (B, inputs, X, Y, Z) -> (B, outputs, X', Y', Z')."""

    relu: bool = False

    @classmethod
    def from_layer(cls, plain: nn.Conv3d) -> FoldedConvolution:
        """Return a convolution with the weights of `plain`, without ReLU."""
        folded = cls(
            plain.in_channels,
            plain.out_channels,
            plain.kernel_size,  # type: ignore[arg-type]
            plain.stride,  # type: ignore[arg-type]
            plain.padding,  # type: ignore[arg-type]
            device="meta",
        )
        return cast(FoldedConvolution, _take_weights(folded, plain))

    def forward(self, image: Tensor) -> Tensor:
        fused = _fused_convolution(image)
        if fused is None:
            result = super().forward(image)
            return F.relu_(result) if self.relu else result
        attribute = "relu" if self.relu else "none"
        merged: Tensor = fused(
            image, self.weight, self.bias, self.padding, self.stride, self.dilation, 1, attribute, [], ""
        )
        return merged


class FoldedTransposedConvolution(nn.ConvTranspose3d):
    """A transposed convolution with a bias, followed by ReLU if `relu`."""

    relu: bool = False

    @classmethod
    def from_layer(cls, plain: nn.ConvTranspose3d) -> FoldedTransposedConvolution:
        """Return a transposed convolution with the weights of `plain`, without ReLU."""
        folded = cls(
            plain.in_channels,
            plain.out_channels,
            plain.kernel_size,  # type: ignore[arg-type]
            plain.stride,  # type: ignore[arg-type]
            device="meta",
        )
        return cast(FoldedTransposedConvolution, _take_weights(folded, plain))

    def forward(self, image: Tensor, output_size: list[int] | None = None) -> Tensor:
        result = super().forward(image, output_size)
        return F.relu_(result) if self.relu else result


Folded = FoldedConvolution | FoldedTransposedConvolution


def fold(network: DualVNet) -> DualVNet:
    """Fold the batch normalisation of `network` in place; return the network, which can no longer be trained."""
    network.eval().requires_grad_(False)
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fold_layers(module)
    for vnet in network.vnets:
        vnet.head = FoldedConvolution.from_layer(vnet.head)
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
    """Replace each convolution by a folded one, which includes the batch normalisation and ReLU that follow.

    A ReLU that follows an interpolation stays a layer.
    """
    kept: list[nn.Module] = []
    last: Folded | None = None
    for layer in layers:
        if isinstance(layer, nn.Conv3d):
            last = FoldedConvolution.from_layer(layer)
            kept.append(last)
        elif isinstance(layer, nn.ConvTranspose3d):
            last = FoldedTransposedConvolution.from_layer(layer)
            kept.append(last)
        elif isinstance(layer, nn.BatchNorm3d) and last is not None:
            _fold_normalisation(last, layer)
        elif isinstance(layer, nn.ReLU) and kept and kept[-1] is last and last is not None:
            last.relu = True
        else:
            kept.append(layer)
            if not isinstance(layer, nn.Upsample):
                last = None
    # The network refers to `layers`, so `layers` itself is changed.
    layers._modules.clear()
    for index, layer in enumerate(kept):
        layers.add_module(str(index), layer)


def _take_weights(folded: Folded, plain: nn.Conv3d | nn.ConvTranspose3d) -> Folded:
    """Give `folded` copies of the weights and bias of `plain`, without gradients, and return `folded`.

    The caller creates `folded` on the meta device, so that torch draws no random numbers to initialise its weights.
    """
    bias = plain.weight.new_zeros(plain.out_channels) if plain.bias is None else plain.bias.detach().clone()
    folded.weight = nn.Parameter(plain.weight.detach().clone(), requires_grad=False)
    folded.bias = nn.Parameter(bias, requires_grad=False)
    return folded


def _fold_normalisation(convolution: Folded, norm: nn.BatchNorm3d) -> None:
    """Include the scale and offset of `norm` in the weights and bias of the convolution before it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert convolution.bias is not None
    # In double precision, so that values are rounded only once.
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    along = (-1, 1, 1, 1, 1) if isinstance(convolution, FoldedConvolution) else (1, -1, 1, 1, 1)
    with torch.no_grad():
        offset = (convolution.bias.double() - norm.running_mean.double()) * scale + norm.bias.double()
        convolution.weight.copy_(convolution.weight.double() * scale.reshape(along))
        convolution.bias.copy_(offset)


def _fused_convolution(image: Tensor) -> Callable[..., Tensor] | None:
    """Return oneDNN's convolution with optional ReLU; None if the operator does not work or the image is not on a CPU.

    PyTorch's compiler uses the same operator. `F.conv3d` would compute small or one-channel convolutions with a
    fallback that is several times slower and copies its result.
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
