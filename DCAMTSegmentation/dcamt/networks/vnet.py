"""Define a V-Net: an encoder to lower resolutions and a decoder back to full resolution, with additive skips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..recipe import Network, Stride


def normalisation(kind: str, channels: int) -> nn.Module:
    """Return a layer of batch normalisation (`batch`) or instance normalisation (`instance`)."""
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    return nn.InstanceNorm3d(channels, affine=True)


def convolutions(count: int, inputs: int, outputs: int, norm: str) -> nn.Sequential:
    """Return `count` blocks of 3x3x3 convolution, normalisation and ReLU, from `inputs` to `outputs` channels."""
    layers: list[nn.Module] = []
    for index in range(count):
        # The convolution needs no bias, since the normalisation has an offset.
        layers += [
            nn.Conv3d(inputs if index == 0 else outputs, outputs, 3, padding=1, bias=False),
            normalisation(norm, outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """Computes features at each level, finest first."""

    def __init__(self, inputs: int, shape: Network, strides: Sequence[Stride]) -> None:
        super().__init__()
        channels, norm = shape.channels, shape.normalisation
        self.levels = nn.ModuleList()
        self.downs = nn.ModuleList()
        for level, (width, count) in enumerate(zip(channels, shape.convolutions, strict=True)):
            if level > 0:
                finer = channels[level - 1]
                self.downs.append(
                    nn.Sequential(
                        nn.Conv3d(finer, width, strides[level - 1], stride=strides[level - 1], bias=False),
                        normalisation(norm, width),
                        nn.ReLU(inplace=True),
                    )
                )
            self.levels.append(convolutions(count, inputs if level == 0 else width, width, norm))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features of an image (B, C, X, Y, Z); X, Y and Z are multiples of the network's stride."""
        return self.encode_levels(image, range(len(self.levels)))

    def encode_levels(self, entering: Tensor, levels: range) -> list[Tensor]:
        """Return the features of successive levels, finest first; `entering` is the input of level `levels[0]`."""
        features = [self.levels[levels[0]](entering)]
        for level in levels[1:]:
            features.append(self.levels[level](self.downs[level - 1](features[-1])))
        return features


class TransposedUp(nn.Sequential):
    """Upsamples with a transposed convolution whose kernel is as large as its stride."""

    def __init__(self, inputs: int, outputs: int, norm: str, stride: Stride) -> None:
        super().__init__(
            nn.ConvTranspose3d(inputs, outputs, stride, stride=stride, bias=False),
            normalisation(norm, outputs),
            nn.ReLU(inplace=True),
        )


class Pointwise(nn.Conv3d):
    """A 1x1x1 convolution whose output has the memory format `channels_last_3d` if the input has this format.

    For such an input, `forward` computes a matrix product. PyTorch's own convolution loses the format in float32 on one
    thread, and training then took 13% longer.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 1, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        if not features.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(features)
        product: Tensor = F.linear(features.movedim(1, -1), self.weight.flatten(1), self.bias)
        return product.movedim(-1, 1)


class Trilinear(nn.Upsample):
    """Interpolates in the precision of the features; CUDA's autocast would convert them to float32."""

    def forward(self, features: Tensor) -> Tensor:
        if features.device.type != "cuda":
            return super().forward(features)
        with torch.autocast("cuda", enabled=False):
            return super().forward(features)


class TrilinearUp(nn.Sequential):
    """Upsamples by a 1x1x1 convolution and trilinear interpolation.

    The two operations commute. The convolution comes first, since there are fewer voxels before the interpolation.
    """

    def __init__(self, inputs: int, outputs: int, norm: str, stride: Stride) -> None:
        super().__init__(
            Pointwise(inputs, outputs, bias=False),
            Trilinear(scale_factor=stride, mode="trilinear", align_corners=False),
            normalisation(norm, outputs),
            nn.ReLU(inplace=True),
        )


class Decoder(nn.Module):
    """Decodes features to full resolution; each level adds the encoder's features of the same level."""

    def __init__(self, shape: Network, strides: Sequence[Stride], up: type[TransposedUp] | type[TrilinearUp]) -> None:
        super().__init__()
        channels, norm = shape.channels, shape.normalisation
        coarse_to_fine = list(range(len(channels) - 1))[::-1]
        self.ups = nn.ModuleList(
            up(channels[level + 1], channels[level], norm, strides[level]) for level in coarse_to_fine
        )
        self.levels = nn.ModuleList(
            convolutions(shape.convolutions[level], channels[level], channels[level], norm) for level in coarse_to_fine
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the features of the finest and the second finest level.

        Args:
            features: the encoder's features, finest first; the last is the bottleneck after cross-attention.
        """
        skips = list(features[:-1])[::-1]
        half = self.decode_levels(features[-1], skips[:-1], slice(None, -1))
        return self.decode_levels(half, skips[-1:], slice(-1, None)), half

    def decode_levels(self, decoded: Tensor, skips: Sequence[Tensor], selected: slice) -> Tensor:
        """Run the `selected` levels, coarse to fine, each with its skip, and return the last features."""
        for up, level, skip in zip(list(self.ups)[selected], list(self.levels)[selected], skips, strict=True):
            decoded = level(add_skip(up(decoded), skip))
        return decoded


def add_skip(upsampled: Tensor, skip: Tensor) -> Tensor:
    """Return the sum; without gradients, `upsampled` is overwritten to save memory."""
    return upsampled + skip if torch.is_grad_enabled() else upsampled.add_(skip)


class VNet(nn.Module):
    """A V-Net (Milletari et al., 3DV 2016); a branch of `DualVNet`.

    It has normalisation layers, as in UA-MT (L. Yu et al., MICCAI 2019).

    `encode` and `decode` are called separately: between the two calls, the branches attend to each other's bottleneck.

    Args:
        inputs: channels of the image.
        outputs: number of classes, including background.
        strides: stride from each level to the next.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        shape: Network,
        strides: Sequence[Stride],
        up: type[TransposedUp] | type[TrilinearUp],
    ) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, shape, strides)
        self.decoder = Decoder(shape, strides, up)
        self.head: nn.Conv3d = Pointwise(shape.channels[0], outputs)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Encode an image (B, C, X, Y, Z); return the features of each level, from the finest to the bottleneck."""
        features: list[Tensor] = self.encoder(image)
        return features

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (B, K, X, Y, Z), and the decoder's features of the second finest level."""
        decoded, half = self.decoder(features)
        return self.head(decoded), half
