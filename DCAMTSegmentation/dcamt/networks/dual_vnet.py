"""Define the dual V-Net: two V-Nets with different decoders, and cross-attention between their bottlenecks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..recipe import Recipe
from .cross_attention import CrossAttention
from .vnet import TransposedUp, TrilinearUp, VNet


@dataclass(frozen=True)
class BranchOutput:
    """One branch's output for a batch.

    Attributes:
        logits: (B, K, X, Y, Z).
        bottleneck: (B, c, x, y, z), before cross-attention; for `losses.mmd`.
        decoded: the decoder's features of the second finest level; for `losses.contrast`.
    """

    logits: Tensor
    bottleneck: Tensor
    decoded: Tensor


class DualVNet(nn.Module):
    """Two V-Nets: branch A upsamples by transposed convolutions, branch B by interpolation, so their errors differ.

    Attributes:
        strides: stride from each level to the next.
        stride: product of all strides, along R-L, A-P, S-I.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        shape = recipe.network
        self.strides, self.stride = recipe.level_strides, recipe.stride
        self.branches = nn.ModuleList(
            VNet(recipe.input_channels, recipe.output_channels, shape, recipe.level_strides, up)
            for up in (TransposedUp, TrilinearUp)
        )
        self.attentions = nn.ModuleList(
            CrossAttention(shape.channels[-1], shape.attention_heads) for _ in range(2 if shape.attention_heads else 0)
        )
        self.projections = nn.ModuleList(
            nn.Sequential(
                nn.Linear(shape.channels[1], shape.channels[1]),
                nn.ReLU(inplace=True),
                nn.Linear(shape.channels[1], shape.embedding),
            )
            for _ in range(2)
        )

    @property
    def vnets(self) -> tuple[VNet, VNet]:
        """Branch A and branch B."""
        return cast(VNet, self.branches[0]), cast(VNet, self.branches[1])

    def forward(self, image: Tensor, own_tokens: Tensor | None = None) -> tuple[BranchOutput, BranchOutput]:
        """Return both branches' outputs for images (B, C, X, Y, Z); X, Y and Z must be multiples of `stride`.

        Args:
            own_tokens: booleans (2, B): for each branch and sample, True if the branch attends to its own tokens,
                False if it attends to its partner's tokens. By default, all are False.
        """
        a, b = self.vnets
        features_a, features_b = a.encode(image), b.encode(image)
        exchanged = self.exchange((features_a[-1], features_b[-1]), own_tokens)
        outputs = []
        for branch, features, bottleneck in zip((a, b), (features_a, features_b), exchanged, strict=True):
            logits, decoded = branch.decode([*features[:-1], bottleneck])
            outputs.append(BranchOutput(logits, features[-1], decoded))
        return outputs[0], outputs[1]

    def forward_one(self, image: Tensor) -> Tensor:
        """Return the logits (B, K, X, Y, Z) of branch A, which attends to its own tokens."""
        vnet = self.vnets[0]
        features = vnet.encode(image)
        features[-1] = self.exchange(features[-1:])[0]
        return vnet.decode(features)[0]

    def exchange(self, bottlenecks: Sequence[Tensor], own_tokens: Tensor | None = None) -> list[Tensor]:
        """Return the bottlenecks of both branches, or of branch A alone, after cross-attention.

        Without a partner, branch A attends to its own tokens.
        """
        if not len(self.attentions):
            return list(bottlenecks)
        contexts = list(bottlenecks)[::-1]
        if own_tokens is not None:
            own_of_branch = own_tokens.reshape(2, -1, 1, 1, 1, 1)
            contexts = list(map(torch.where, own_of_branch, bottlenecks, contexts))
        return [
            attend(own, context) for attend, own, context in zip(self.attentions, bottlenecks, contexts, strict=False)
        ]
