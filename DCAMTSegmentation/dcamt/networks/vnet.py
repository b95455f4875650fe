"""A V-Net: an encoder that halves the resolution level by level, a decoder that goes back, sums as skips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def normalisation(kind: str, channels: int) -> nn.Module:
    """`batch`: over the batch, running statistics at inference. `instance`: over each sample, the same at inference."""
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    return nn.InstanceNorm3d(channels, affine=True)


def convolutions(count: int, inputs: int, outputs: int, norm: str) -> nn.Sequential:
    """`count` times a 3x3x3 convolution, normalisation and ReLU: (B, inputs, X, Y, Z) -> (B, outputs, X, Y, Z)."""
    layers: list[nn.Module] = []
    for index in range(count):
        # The normalisation has its own offset, so the convolution needs none.
        layers += [
            nn.Conv3d(inputs if index == 0 else outputs, outputs, 3, padding=1, bias=False),
            normalisation(norm, outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """Features at every level, finest first. Level n has `channels[n]` features at 1 / 2**n of the resolution."""

    def __init__(self, inputs: int, channels: Sequence[int], counts: Sequence[int], norm: str) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        self.downs = nn.ModuleList()
        for level, (width, count) in enumerate(zip(channels, counts, strict=True)):
            if level > 0:
                finer = channels[level - 1]
                self.downs.append(
                    nn.Sequential(
                        nn.Conv3d(finer, width, 2, stride=2, bias=False),
                        normalisation(norm, width),
                        nn.ReLU(inplace=True),
                    )
                )
            self.levels.append(convolutions(count, inputs if level == 0 else width, width, norm))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z), each of X, Y, Z a multiple of 2 ** (levels - 1) -> a feature map a level."""
        features = [self.levels[0](image)]
        for down, level in zip(self.downs, list(self.levels)[1:], strict=True):
            features.append(level(down(features[-1])))
        return features


class TransposedUp(nn.Sequential):
    """Doubles the resolution by a transposed convolution of 2x2x2."""

    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        super().__init__(
            nn.ConvTranspose3d(inputs, outputs, 2, stride=2, bias=False),
            normalisation(norm, outputs),
            nn.ReLU(inplace=True),
        )


class Pointwise(nn.Conv3d):
    """A 1x1x1 convolution; of features with channels last in memory a matrix product, which keeps them so.

    PyTorch's own puts them first again where it computes in float32 on one thread, as each process of `torchrun` does;
    with some layers' features laid out the one way and some the other, training took a tenth longer.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 1, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        if not features.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(features)
        product: Tensor = F.linear(features.movedim(1, -1), self.weight.flatten(1), self.bias)
        return product.movedim(-1, 1)


class Trilinear(nn.Upsample):
    """Interpolates in the features' own precision; on a GPU autocast would make them float32, and all that follows."""

    def forward(self, features: Tensor) -> Tensor:
        if features.device.type != "cuda":
            return super().forward(features)
        with torch.autocast("cuda", enabled=False):
            return super().forward(features)


class TrilinearUp(nn.Sequential):
    """Doubles the resolution by trilinear interpolation, with a 1x1x1 convolution.

    A 1x1x1 convolution and an interpolation commute, so the convolution comes first, on an eighth of the voxels.
    """

    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        super().__init__(
            Pointwise(inputs, outputs, bias=False),
            Trilinear(scale_factor=2, mode="trilinear", align_corners=False),
            normalisation(norm, outputs),
            nn.ReLU(inplace=True),
        )


class Decoder(nn.Module):
    """From an encoder's features back to full resolution; each level adds the encoder's features of that level."""

    def __init__(self, channels: Sequence[int], counts: Sequence[int], norm: str, up: type[nn.Module]) -> None:
        super().__init__()
        coarse_to_fine = list(range(len(channels) - 1))[::-1]
        self.ups = nn.ModuleList(up(channels[level + 1], channels[level], norm) for level in coarse_to_fine)
        self.levels = nn.ModuleList(
            convolutions(counts[level], channels[level], channels[level], norm) for level in coarse_to_fine
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features a level, finest first -> full-resolution features, and those at half the resolution."""
        decoded = half = features[-1]
        skips = list(features[:-1])[::-1]
        for up, level, skip in zip(self.ups, self.levels, skips, strict=True):
            half = decoded
            decoded = level(add_skip(up(decoded), skip))
        return decoded, half


def add_skip(upsampled: Tensor, skip: Tensor) -> Tensor:
    """The sum of both; without gradients in place of `upsampled`, since a feature map of the finest level is large."""
    return upsampled + skip if torch.is_grad_enabled() else upsampled.add_(skip)


class VNet(nn.Module):
    """One branch (Milletari et al., 3DV 2016, with batch normalisation as in the field's LA benchmark).

    It is called in two steps, `encode` and `decode`, since what lies at the bottleneck is exchanged in between.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: Sequence[int],
        counts: Sequence[int],
        norm: str,
        up: type[nn.Module],
    ) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, channels, counts, norm)
        self.decoder = Decoder(channels, counts, norm, up)
        self.head: nn.Conv3d = Pointwise(channels[0], outputs)

    def encode(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> features a level, finest first; the last is the bottleneck."""
        features: list[Tensor] = self.encoder(image)
        return features

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features a level -> logits (B, K, X, Y, Z), and decoder features (B, c, X/2, Y/2, Z/2)."""
        decoded, half = self.decoder(features)
        return self.head(decoded), half
