"""Folding batch normalisation into convolutions keeps a network's output and removes layers."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from dcamt.inference import folded as module
from dcamt.inference.folded import fold, move
from dcamt.inference.tiling import fine_reach, predict_tiled, predict_whole
from dcamt.networks.dual_vnet import DualVNet
from dcamt.recipe import ACCURATE, FAST, Network, Recipe
from torch import nn

SHAPE = Network(channels=(3, 5, 6, 8), convolutions=(2, 3, 1, 2), attention_heads=4)
CPU = torch.device("cpu")


def network_of(recipe: Recipe, normalisation: str) -> DualVNet:
    """Return a network with random weights and running statistics, so that every term affects the output."""
    torch.manual_seed(0)
    network = DualVNet(
        dataclasses.replace(recipe, network=dataclasses.replace(SHAPE, normalisation=normalisation))
    ).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm3d | nn.InstanceNorm3d):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
        if isinstance(part, nn.BatchNorm3d):
            nn.init.normal_(part.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.5, 2)  # type: ignore[arg-type]
    for vnet in network.vnets:
        nn.init.normal_(vnet.head.bias)  # type: ignore[arg-type]
    for attention in network.attentions:
        nn.init.normal_(attention.output.weight, std=0.3)  # type: ignore[union-attr, arg-type]
    return network


@pytest.mark.parametrize("fused", [True, False], ids=["oneDNN", "plain"])
@pytest.mark.parametrize("quality", [FAST, ACCURATE])
@pytest.mark.parametrize("normalisation", ["batch", "instance"])
def test_folding_removes_batch_normalisation_and_keeps_the_output(
    tiny_recipe: Recipe, normalisation: str, quality: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fused:
        monkeypatch.setattr(module, "_fused_convolution", lambda image: None)
    elif module._tested_operator(torch.float32) is None:
        pytest.skip("PyTorch was built without oneDNN")
    network = network_of(tiny_recipe, normalisation)
    image = torch.randn(1, 25, 16, 8)
    with torch.no_grad():
        expected = predict_whole(network, image, quality)
        lean = fold(copy.deepcopy(network))
        output = predict_whole(lean, image, quality)
        assert (output - expected).abs().max() < 2e-5
        # The comparison above tests the biases only if the biases affect the output.
        for vnet in lean.vnets:
            for part in vnet.modules():
                if isinstance(part, nn.Conv3d | nn.ConvTranspose3d | nn.InstanceNorm3d) and part.bias is not None:
                    part.bias.zero_()
        assert (predict_whole(lean, image, quality) - expected).abs().max() > 0.05
    kinds = {type(part) for part in lean.modules()}
    assert nn.BatchNorm3d not in kinds
    if normalisation == "batch":
        upsamplings = len(SHAPE.channels) - 1
        # Every ReLU is folded into a convolution, except after upsampling.
        for vnet in lean.vnets:
            assert sum(isinstance(part, nn.ReLU) for part in vnet.modules()) == upsamplings


@pytest.mark.parametrize("fused", [True, False], ids=["oneDNN", "plain"])
@pytest.mark.parametrize("shape", [{"dilation": 2, "padding": 2}, {"groups": 2}])
def test_dilated_or_grouped_convolution_keeps_its_output(
    shape: dict[str, int], fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fused:
        monkeypatch.setattr(module, "_fused_convolution", lambda image: None)
    convolution, image = nn.Conv3d(4, 6, 3, **shape), torch.randn(1, 4, 9, 8, 7)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(module.FoldedConvolution(convolution)(image), convolution(image), rtol=0, atol=1e-5)


def test_folded_network_predicts_the_same_in_tiles_as_in_one_pass(tiny_recipe: Recipe) -> None:
    network = fold(network_of(tiny_recipe, "batch"))
    tile = (2 * fine_reach(network)[0] + 16, 16, 16)
    length = tile[0] + 8
    image = torch.randn(1, length, 16, 16) + torch.linspace(0, 3, length)[:, None, None]
    with torch.no_grad():
        whole = predict_whole(network, image, ACCURATE)
        assert (predict_tiled(network, image, ACCURATE, tile) - whole).abs().max() < 2e-5


@pytest.mark.parametrize("normalisation", ["batch", "instance"])
def test_folded_network_computes_in_bfloat16_and_returns_float32(tiny_recipe: Recipe, normalisation: str) -> None:
    network = fold(network_of(tiny_recipe, normalisation))
    image = torch.randn(1, 24, 16, 16)
    with torch.no_grad():
        whole = predict_whole(network, image, ACCURATE)
        move(network, CPU, torch.bfloat16)
        rounded = predict_whole(network, image.bfloat16(), ACCURATE)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - whole).abs().mean() < 0.02


def test_folded_network_can_be_moved_back_from_bfloat16_to_float32(tiny_recipe: Recipe) -> None:
    network = fold(network_of(tiny_recipe, "instance"))
    move(network, CPU, torch.bfloat16)
    assert {p.dtype for part in network.modules() if isinstance(part, nn.Conv3d) for p in part.parameters()} == {
        torch.bfloat16
    }
    move(network, CPU, torch.float32)
    with torch.no_grad():
        assert predict_whole(network, torch.randn(1, 16, 16, 16), ACCURATE).isfinite().all()
