"""Compute cross-attention: multi-head attention from one branch's bottleneck to the other branch's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK_BYTES = 64 << 20
"""Largest size in bytes of the `distance_bias` of a block of queries."""


class CrossAttention(nn.Module):
    """Cross-attention of features A to B: A' = A + MHA(q=LN(A), kv=LN(B)); a token is a voxel of the deepest level.

    Positions are encoded as a penalty on the scores: the distance between two tokens times the head's slope
    ("attention with linear biases", Press et al., ICLR 2022, extended from one to three dimensions). Absolute positions
    are not used, so feature maps may have any size.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query = nn.LayerNorm(channels)
        self.norm_context = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.output = nn.Linear(channels, channels)
        # With zero weights, A' = A at the start of training: the untrained attention does not change the features.
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """Return `features` plus their attention to `context`; arguments and result are (B, C, x, y, z)."""
        batch, channels, *size = features.shape
        tokens = features.flatten(2).transpose(1, 2)  # (B, N, C)
        query = self.query(self.norm_query(tokens))
        key, value = self.key_value(self.norm_context(context.flatten(2).transpose(1, 2))).chunk(2, dim=-1)

        def per_head(x: Tensor) -> Tensor:
            return x.reshape(batch, -1, self.heads, channels // self.heads).transpose(1, 2)

        attended = self._attend(per_head(query), per_head(key), per_head(value), (size[0], size[1], size[2]))
        mixed = self.output(attended.transpose(1, 2).reshape(batch, -1, channels))
        enriched: Tensor = features + mixed.transpose(1, 2).reshape(batch, channels, *size)
        return enriched

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, size: tuple[int, int, int]) -> Tensor:
        """Return the attended values (B, heads, N, c) of queries, keys and values of the same shape.

        Without gradients, the attention is computed for one block of queries after another, to limit the memory; the
        result is the same. With gradients, blocks would save no memory, since the backward pass needs the
        `distance_bias` of all blocks.
        """
        tokens = query.shape[2]
        block = tokens if torch.is_grad_enabled() else queries_at_once(tokens, self.heads)
        parts = []
        for start in range(0, tokens, block):
            queries = slice(start, start + block)
            bias = distance_bias(size, self.heads, query.device, queries).to(query.dtype)
            # On a CPU, PyTorch's fused attention saves memory, since it does not store the scores. A bias of three
            # dimensions would prevent its use.
            parts.append(F.scaled_dot_product_attention(query[:, :, queries], key, value, attn_mask=bias[None]))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def queries_at_once(tokens: int, heads: int) -> int:
    """Return the number of queries in a block (see `BLOCK_BYTES`)."""
    bytes_per_query = 4 * heads * tokens
    return min(tokens, max(1, BLOCK_BYTES // bytes_per_query))


def distance_bias(size: tuple[int, int, int], heads: int, device: torch.device, queries: slice = slice(None)) -> Tensor:
    """Return -slope_h * |p - q| for each head h, each token p of `queries` and each token q: float32 (heads, n, N).

    Distances are in tokens. The first head has the slope 1; each further head has half the slope of the previous head.
    Thus the first head attends to near tokens, and the last head also to far tokens.

    Args:
        size: size of the feature map.
    """
    axes = [torch.arange(n, device=device, dtype=torch.float32) for n in size]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    slopes = 0.5 ** torch.arange(heads, device=device, dtype=torch.float32)
    return -slopes[:, None, None] * torch.cdist(points[queries], points)
