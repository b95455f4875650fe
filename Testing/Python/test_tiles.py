"""Test prediction in one pass and in tiles."""

from __future__ import annotations

import dataclasses
from weakref import ref

import numpy as np
import pytest
import torch
from dcamt.inference.tiling import (
    OutOfMemory,
    fine_levels,
    fine_reach,
    predict_bounded,
    predict_tiled,
    predict_whole,
    split_into_tiles,
)
from dcamt.networks.dual_vnet import DualVNet
from dcamt.recipe import ACCURATE, FAST, Network, Recipe
from torch import Tensor, nn

NETWORKS = [
    Network(channels=(4, 8, 8), convolutions=(1, 1, 1), attention_heads=2),
    Network(channels=(3, 5, 6, 8), convolutions=(2, 3, 1, 2), attention_heads=4),
    Network(channels=(4, 6), convolutions=(2, 1), attention_heads=0),
    Network(
        channels=(3, 5, 6, 8),
        convolutions=(1, 1, 1, 1),
        strides=((2, 2, 1), (2, 2, 1), (2, 2, 2)),
        attention_heads=2,
    ),
]


def network_of(recipe: Recipe, settings: Network) -> DualVNet:
    torch.manual_seed(0)
    network = DualVNet(dataclasses.replace(recipe, network=settings)).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    # With the initial output weights, which are 0, cross-attention would have no effect.
    for attention in network.attentions:
        nn.init.normal_(attention.output.weight, std=0.3)  # type: ignore[union-attr, arg-type]
    return network


def test_prediction_in_one_pass_pads_the_image_with_its_border_voxels(tiny_recipe: Recipe) -> None:
    network = network_of(tiny_recipe, NETWORKS[0])  # stride 4
    image = torch.randn(1, 21, 16, 10)
    padded = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (0, 3), (0, 0), (0, 2)), mode="edge"))[None]
    with torch.no_grad():
        both = torch.cat([output.logits for output in network(padded)])
        alone = network.forward_one(padded)
        for quality, logits in ((ACCURATE, both), (FAST, alone)):
            exponents = logits[..., :21, :16, :10].exp()
            expected = exponents / exponents.sum(dim=1, keepdim=True)
            torch.testing.assert_close(predict_whole(network, image, quality), expected, atol=1e-6, rtol=0)


def image_for_tiles(network: DualVNet, axes: tuple[int, ...]) -> tuple[Tensor, tuple[int, int, int]]:
    """Return a small image that has several tiles along `axes` only, and the size of a tile.

    No length of the image is a multiple of the stride. The intensity rises along the first of `axes`, so the mean
    intensity of a tile differs from the mean intensity of the image.
    """
    size, tile = [stride + 1 for stride in network.stride], [2 * stride for stride in network.stride]
    for axis in axes:
        tile[axis] = 2 * fine_reach(network)[axis] + 3 * network.stride[axis]
        size[axis] = tile[axis] + network.stride[axis] + 1
    image = torch.randn(1, *size)
    image += torch.linspace(0, 3, size[axes[0]]).reshape([-1 if axis == axes[0] else 1 for axis in range(3)])
    return image, (tile[0], tile[1], tile[2])


@pytest.mark.parametrize("axes", [(0,), (1,), (2,)], ids=["x", "y", "z"])
@pytest.mark.parametrize("quality", [FAST, ACCURATE])
@pytest.mark.parametrize("settings", NETWORKS, ids=["three levels", "four levels", "two levels", "long voxels"])
def test_prediction_changes_if_half_the_image_is_cut_off(
    tiny_recipe: Recipe, settings: Network, quality: str, axes: tuple[int, ...]
) -> None:
    network = network_of(tiny_recipe, settings)
    image, _ = image_for_tiles(network, axes)
    half = image.narrow(1 + axes[0], 0, image.shape[1 + axes[0]] // 2)
    with torch.no_grad():
        whole = predict_whole(network, image, quality)
        alone = predict_whole(network, half, quality)
    assert (alone - whole.narrow(2 + axes[0], 0, half.shape[1 + axes[0]])).abs().max() > 1e-3


@pytest.mark.parametrize("axes", [(0,), (1,), (2,)], ids=["x", "y", "z"])
@pytest.mark.parametrize("quality", [FAST, ACCURATE])
@pytest.mark.parametrize("settings", NETWORKS, ids=["three levels", "four levels", "two levels", "long voxels"])
def test_tiles_give_the_same_result_as_one_pass(
    tiny_recipe: Recipe, settings: Network, quality: str, axes: tuple[int, ...]
) -> None:
    network = network_of(tiny_recipe, settings)
    image, tile = image_for_tiles(network, axes)
    with torch.no_grad():
        whole = predict_whole(network, image, quality)
        ticks: list[int] = []
        tiled = predict_tiled(network, image, quality, tile, lambda done, of: ticks.append(of))
    steps_of_one_tile = 2 if quality == FAST else 4
    assert ticks[0] > steps_of_one_tile
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().max() < 1e-5


def test_tiles_along_two_axes_give_the_same_result_as_one_pass(tiny_recipe: Recipe) -> None:
    network = network_of(tiny_recipe, NETWORKS[2])
    image, tile = image_for_tiles(network, (1, 2))
    with torch.no_grad():
        whole = predict_whole(network, image, ACCURATE)
        assert (predict_tiled(network, image, ACCURATE, tile) - whole).abs().max() < 1e-5


def test_decoded_features_of_a_tile_are_released_before_the_next_tile(tiny_recipe: Recipe) -> None:
    network = network_of(tiny_recipe, NETWORKS[0])
    decoded: list[ref[Tensor]] = []
    for vnet in network.vnets:
        vnet.decoder.levels[-1].register_forward_hook(lambda level, inputs, features: decoded.append(ref(features)))
    in_memory: list[bool] = []
    image, tile = image_for_tiles(network, (0,))
    with torch.no_grad():
        predict_tiled(
            network, image, ACCURATE, tile, lambda done, of: in_memory.extend(item() is not None for item in decoded)
        )
    assert len(decoded) > 2
    assert not any(in_memory)


def test_shorter_margin_changes_the_result(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(tiny_recipe, NETWORKS[1])
    image = torch.randn(1, 64, 16, 16)
    monkeypatch.setattr("dcamt.inference.tiling.fine_reach", lambda network: (4, 4, 4))
    with torch.no_grad():
        tiled = predict_tiled(network, image, ACCURATE, (32, 16, 16))
        assert (tiled - predict_whole(network, image, ACCURATE)).abs().max() > 2e-5


def test_receptive_field_of_the_fine_levels_lies_within_the_margin(tiny_recipe: Recipe) -> None:
    network = network_of(tiny_recipe, NETWORKS[1])
    fine = fine_levels(network)
    for vnet in network.vnets:
        image = torch.randn(1, 1, 96, 8, 8, requires_grad=True)
        features = vnet.encode(image)
        logits, _ = vnet.decode([*features[:fine], *(coarse.detach() for coarse in features[fine:])])
        logits[0, :, 48].sum().backward()  # type: ignore[no-untyped-call]
        assert image.grad is not None
        touched = image.grad.abs().sum(dim=(0, 1, 3, 4)).nonzero().flatten()
        reach = fine_reach(network)[0]
        assert 48 - reach <= int(touched.min()) <= int(touched.max()) <= 48 + reach
        assert int(touched.max()) - 48 > 4


def test_cores_of_tiles_cover_every_voxel_once_and_have_a_margin() -> None:
    size, margin, step = (61 * 4, 40, 36), 8, 4
    seen = torch.zeros(size)
    for outer, core, inner in split_into_tiles(size, (64, 40, 24), (margin,) * 3, (step,) * 3):
        seen[core] += 1
        for axis, length in enumerate(size):
            assert outer[axis].start == max(0, core[axis].start - margin)
            assert outer[axis].stop == min(length, core[axis].stop + margin)
            assert outer[axis].start % step == core[axis].start % step == 0
            assert inner[axis].start == core[axis].start - outer[axis].start
            assert inner[axis].stop - inner[axis].start == core[axis].stop - core[axis].start
    assert bool((seen == 1).all())


def test_network_with_instance_normalisation_is_not_predicted_in_tiles(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instance normalisation needs statistics of the whole volume."""
    recipe = dataclasses.replace(tiny_recipe, network=dataclasses.replace(NETWORKS[0], normalisation="instance"))
    network = network_of(recipe, recipe.network)
    image = torch.randn(1, 40, 24, 24) + torch.linspace(0, 3, 40)[:, None, None]
    with torch.no_grad():
        expected = predict_whole(network, image, ACCURATE)
        assert (predict_tiled(network, image, ACCURATE, (32, 24, 24)) - expected).abs().max() > 1e-3
    monkeypatch.setattr("dcamt.inference.tiling.usable_memory", lambda device: 1)
    assert torch.equal(predict_bounded(network, image, recipe), expected)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("dcamt.inference.tiling.predict_whole", fail)
    with pytest.raises(OutOfMemory):
        predict_bounded(network, image, recipe)


def test_progress_counts_up_to_the_number_of_steps(tiny_recipe: Recipe) -> None:
    ticks: list[tuple[int, int]] = []
    with torch.no_grad():
        predict_tiled(
            network_of(tiny_recipe, NETWORKS[0]),
            torch.randn(1, 64, 16, 16),
            ACCURATE,
            (40, 16, 16),
            lambda *tick: ticks.append(tick),
        )
    assert [done for done, _ in ticks] == list(range(1, len(ticks) + 1))
    assert {of for _, of in ticks} == {len(ticks)}
