"""Multi-head attention from one branch's bottleneck to its partner's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK_BYTES = 64 << 20
"""What the scores' bias may take at a time; for all pairs of tokens at once it would grow with the volume squared."""


class CrossAttention(nn.Module):
    """A' = A + MHA(q=LN(A), kv=LN(B)), tokens being the voxels of the deepest feature map.

    Positions enter as a penalty on the scores, in each head its own slope times the distance between two tokens:
    "attention with linear biases" (Press et al., ICLR 2022), carried from one to three dimensions. It knows no
    absolute position, so that it fits windows of any size and is the same wherever a window lies.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query = nn.LayerNorm(channels)
        self.norm_context = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.output = nn.Linear(channels, channels)
        # At first A' = A: two V-Nets that learn to listen, rather than two that must learn to ignore noise.
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, own: Tensor, context: Tensor) -> Tensor:
        """`own` and `context` (B, C, x, y, z) -> `own`, enriched, of the same shape."""
        batch, channels, *size = own.shape
        tokens = own.flatten(2).transpose(1, 2)  # (B, N, C)
        query = self.query(self.norm_query(tokens))
        key, value = self.key_value(self.norm_context(context.flatten(2).transpose(1, 2))).chunk(2, dim=-1)

        def per_head(x: Tensor) -> Tensor:
            return x.reshape(batch, -1, self.heads, channels // self.heads).transpose(1, 2)

        attended = self._attend(per_head(query), per_head(key), per_head(value), (size[0], size[1], size[2]))
        mixed = self.output(attended.transpose(1, 2).reshape(batch, -1, channels))
        enriched: Tensor = own + mixed.transpose(1, 2).reshape(batch, channels, *size)
        return enriched

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, size: tuple[int, int, int]) -> Tensor:
        """Each (B, heads, N, c), so is the result. Without gradients, block of queries by block: the same, in bounded
        memory; with them each block's bias would be kept for the way back, and nothing would be gained."""
        tokens = query.shape[2]
        block = tokens if torch.is_grad_enabled() else queries_at_once(tokens, self.heads)
        parts = []
        for start in range(0, tokens, block):
            queries = slice(start, start + block)
            bias = distance_bias(size, self.heads, query.device, queries).to(query.dtype)
            # Of four dimensions, as a CPU's fused attention, which never holds the scores, takes no other.
            parts.append(F.scaled_dot_product_attention(query[:, :, queries], key, value, attn_mask=bias[None]))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def queries_at_once(tokens: int, heads: int) -> int:
    """How many tokens' bias against all `tokens` fits into `BLOCK_BYTES`; one at the least."""
    return min(tokens, max(1, BLOCK_BYTES // (4 * heads * tokens)))


def distance_bias(size: tuple[int, int, int], heads: int, device: torch.device, queries: slice = slice(None)) -> Tensor:
    """-slope_h * |p - q| for every head, p of `queries` and q of all N tokens of a feature map: (heads, n, N), float32.

    Distances are in tokens. The slopes fall from 1 by halves, so that the first head looks nearby and the last far.
    """
    axes = [torch.arange(n, device=device, dtype=torch.float32) for n in size]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    slopes = 0.5 ** torch.arange(heads, device=device, dtype=torch.float32)
    return -slopes[:, None, None] * torch.cdist(points[queries], points)
