"""Cross-attention is compared with torch.nn.MultiheadAttention."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from dcamt.networks import cross_attention
from dcamt.networks.cross_attention import BLOCK_BYTES, CrossAttention, distance_bias, queries_at_once
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")


def bias_by_hand(size: tuple[int, int, int], heads: int) -> np.ndarray:
    """Compute the bias (heads, N, N) by a loop: in head h, -(1/2)^h times the distance of each pair of tokens."""
    points = list(itertools.product(*(range(n) for n in size)))
    pairs = [[math.dist(p, q) for q in points] for p in points]
    return np.array([[[-(0.5**head) * distance for distance in row] for row in pairs] for head in range(heads)])


def attention(channels: int, heads: int, seed: int = 0) -> CrossAttention:
    torch.manual_seed(seed)
    module = CrossAttention(channels, heads).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


class LargestTensor(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for output in made if isinstance(made, tuple) else (made,):
            if isinstance(output, Tensor):
                self.bytes = max(self.bytes, output.numel() * output.element_size())
        return made


def largest_tensor_bytes(call: Callable[[], object]) -> int:
    with LargestTensor() as largest:
        call()
    return largest.bytes


def feature_maps(channels: int, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Return two random feature maps, each (2 samples, channels, *size)."""
    generator = torch.Generator().manual_seed(1)
    own, context = torch.randn(2, 2, channels, *size, generator=generator, dtype=torch.float64)
    return own, context


@pytest.mark.parametrize(("channels", "heads", "size"), [(8, 4, (2, 3, 2)), (6, 2, (3, 1, 4)), (4, 1, (2, 2, 2))])
def test_cross_attention_equals_torch_multihead_attention(
    channels: int, heads: int, size: tuple[int, int, int]
) -> None:
    module = attention(channels, heads)
    own, context = feature_maps(channels, size)
    reference = nn.MultiheadAttention(channels, heads, batch_first=True).double()
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([module.query.weight, module.key_value.weight]))
        reference.in_proj_bias.copy_(torch.cat([module.query.bias, module.key_value.bias]))
        reference.out_proj.weight.copy_(module.output.weight)
        reference.out_proj.bias.copy_(module.output.bias)

        def tokens(maps: Tensor, norm: nn.LayerNorm) -> Tensor:
            flat = maps.reshape(2, channels, -1).permute(0, 2, 1)
            deviation = (flat.var(dim=-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
            return (flat - flat.mean(dim=-1, keepdim=True)) / deviation * norm.weight + norm.bias

        query, keys = tokens(own, module.norm_query), tokens(context, module.norm_context)
        # (B * heads, N, N), ordered by sample, then head.
        mask = torch.from_numpy(bias_by_hand(size, heads)).repeat(2, 1, 1)
        mixed, _ = reference(query, keys, keys, attn_mask=mask, need_weights=False)
        expected = own + mixed.permute(0, 2, 1).reshape(own.shape)
        assert torch.allclose(module(own, context), expected, atol=1e-6)
        without_bias, _ = reference(query, keys, keys, need_weights=False)
        assert not torch.allclose(without_bias, mixed, atol=1e-2)


def test_untrained_cross_attention_is_the_identity_but_has_gradients() -> None:
    torch.manual_seed(0)
    module = CrossAttention(8, 4).double()
    own, context = feature_maps(8, (2, 3, 2))
    enriched = module(own, context)
    assert torch.equal(enriched, own)
    (enriched * context).sum().backward()
    assert module.output.weight.grad is not None
    assert module.output.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [(2, 3, 4), (1, 1, 1), (7, 7, 5), (1, 9, 1)])
def test_bias_equals_a_loop_over_pairs_of_tokens(size: tuple[int, int, int]) -> None:
    bias = distance_bias(size, 3, CPU).double().numpy()
    assert np.allclose(bias, bias_by_hand(size, 3), rtol=1e-6, atol=1e-6)
    assert (np.diagonal(bias, axis1=1, axis2=2) == 0).all()


def test_bias_is_the_same_in_every_part_of_the_volume() -> None:
    whole, window = (6, 5, 7), (3, 2, 4)
    index = np.arange(math.prod(whole)).reshape(whole)
    large, small = distance_bias(whole, 2, CPU), distance_bias(window, 2, CPU)
    for corner in itertools.product(*(range(n - m + 1) for n, m in zip(whole, window, strict=True))):
        part = tuple(slice(c, c + m) for c, m in zip(corner, window, strict=True))
        tokens = torch.from_numpy(index[part].ravel())
        assert torch.allclose(large[:, tokens][:, :, tokens], small, atol=1e-6)


@pytest.mark.parametrize("block_bytes", [1, 3000, 4 * 3 * 120 * 119])
def test_result_does_not_depend_on_the_block_size(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks hold 1, 2 or 119 of the 120 queries, for three heads."""
    module = attention(6, 3)
    own, context = feature_maps(6, (4, 6, 5))
    with torch.no_grad():
        whole = module(own, context)
        assert largest_tensor_bytes(lambda: module(own, context)) >= 4 * 3 * 120 * 120
        monkeypatch.setattr(cross_attention, "BLOCK_BYTES", block_bytes)
        assert (module(own, context) - whole).abs().max() < 1e-6
    # With gradients, the block size does not change the result either.
    assert (module(own, context) - whole).abs().max() < 1e-6


def test_no_tensor_exceeds_a_block_when_gradients_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    module = attention(4, 4).float()
    own, context = (maps[:1].float() for maps in feature_maps(4, (12, 11, 10)))
    tokens, heads = 1320, 4
    with torch.no_grad():
        assert largest_tensor_bytes(lambda: module(own, context)) == 4 * heads * tokens**2
        for block_bytes in (4 * heads * tokens * 100, 4 * heads * tokens * 10):
            monkeypatch.setattr(cross_attention, "BLOCK_BYTES", block_bytes)
            assert largest_tensor_bytes(lambda: module(own, context)) == block_bytes


def test_attention_of_a_large_scan_is_computed_in_blocks() -> None:
    heads, tokens = 4, 40 * 40 * 6  # the bottleneck of a scan of 640 x 640 x 88 voxels
    query_bytes = 4 * heads * tokens  # float32
    assert query_bytes * tokens > 1.4e9  # the attention of all queries would take more than 1.4 GB
    assert BLOCK_BYTES - query_bytes < query_bytes * queries_at_once(tokens, heads) <= BLOCK_BYTES
    assert queries_at_once(7 * 7 * 5, heads) == 7 * 7 * 5


@pytest.mark.parametrize("axes", [(2,), (3,), (4,), (2, 4), (2, 3, 4)])
def test_mirrored_features_give_the_mirrored_result(axes: tuple[int, ...]) -> None:
    module = attention(8, 4)
    own, context = feature_maps(8, (2, 3, 4))
    with torch.no_grad():
        mirrored = module(own.flip(axes), context.flip(axes))
        assert torch.allclose(mirrored, module(own, context).flip(axes), atol=1e-6)
        assert not torch.allclose(module(own, context.flip(axes)), module(own, context), atol=1e-3)


@pytest.mark.parametrize("order", [(0, 1, 3, 2, 4), (0, 1, 4, 2, 3), (0, 1, 4, 3, 2)])
def test_features_with_permuted_axes_give_the_permuted_result(order: tuple[int, ...]) -> None:
    module = attention(8, 4)
    own, context = feature_maps(8, (2, 3, 4))
    with torch.no_grad():
        expected = module(own, context).permute(order)
        assert torch.allclose(module(own.permute(order), context.permute(order)), expected, atol=1e-6)


def test_order_of_tokens_matters_only_through_the_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_bias(*arguments: Any) -> Tensor:
        return torch.zeros_like(distance_bias(*arguments))

    module = attention(8, 4)
    own, context = feature_maps(8, (2, 3, 4))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    shuffled = context.flatten(2)[..., order].reshape(own.shape)
    with torch.no_grad():
        assert not torch.allclose(module(own, shuffled), module(own, context), atol=1e-3)
        # With the same token at every position, the bias has no effect.
        constant = context[..., :1, :1, :1].expand_as(context)
        value = module.key_value(module.norm_context(context[..., 0, 0, 0])).chunk(2, dim=-1)[1]
        expected = own + module.output(value)[..., None, None, None]
        assert torch.allclose(module(own, constant), expected, atol=1e-9)
        monkeypatch.setattr(cross_attention, "distance_bias", no_bias)
        assert torch.allclose(module(own, shuffled), module(own, context), atol=1e-9)


def test_mean_distance_of_attended_tokens_grows_from_head_to_head() -> None:
    """With equal scores, the attention weights are the softmax of the bias."""
    weights = distance_bias((5, 5, 5), 4, CPU).softmax(dim=-1)
    distances = -distance_bias((5, 5, 5), 1, CPU)[0]
    mean = (weights * distances).sum(dim=-1).mean(dim=-1)
    assert (mean.diff() > 0.1).all()


def test_gradients_reach_both_maps_and_all_weights() -> None:
    module = attention(4, 2)
    own, context = (maps[:1].clone().requires_grad_() for maps in feature_maps(4, (2, 2, 1)))
    assert torch.autograd.gradcheck(module, (own, context), atol=1e-6)
    module(own, context).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
