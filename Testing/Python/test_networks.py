"""Test the dual V-Net: shapes, weights and exchange between branches; compare layers with NumPy and PyTorch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from dcamt.networks.dual_vnet import BranchOutput, DualVNet
from dcamt.networks.vnet import Pointwise, TransposedUp, Trilinear, TrilinearUp
from dcamt.recipe import Recipe
from dcamt.recipe_files import load_recipe, shipped_recipes
from torch import Tensor, nn


def small_recipe(classes: int = 1, input_channels: int = 1, **network: Any) -> Recipe:
    """Return the left-atrium recipe with a network of about 15,000 weights."""
    la = load_recipe("la")
    shape = {"channels": (4, 6, 8), "convolutions": (1, 2, 1), "attention_heads": 2, "embedding": 5, **network}
    return replace(
        la,
        classes=tuple(replace(la.classes[0], label=label) for label in range(1, classes + 1)),
        input_channels=input_channels,
        network=replace(la.network, **shape),
    )


def exchanging_network(recipe: Recipe, seed: int = 0) -> DualVNet:
    """Return a network in evaluation mode whose branches exchange features.

    In a new network, the weights and the bias of each cross-attention's layer `output` are 0, so the branches exchange
    nothing.
    """
    torch.manual_seed(seed)
    network = DualVNet(recipe).eval()
    attentions: Any = network.attentions
    for attention in attentions:
        nn.init.normal_(attention.output.weight, std=5.0)
        nn.init.normal_(attention.output.bias)
    return network


def random_image(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(8, 8, 8), (16, 12, 8), (4, 20, 8)])
@pytest.mark.parametrize(("classes", "input_channels", "normalisation"), [(1, 1, "batch"), (3, 2, "instance")])
def test_outputs_have_the_documented_shapes(
    size: tuple[int, int, int], classes: int, input_channels: int, normalisation: str
) -> None:
    network = DualVNet(small_recipe(classes, input_channels, normalisation=normalisation))
    with torch.no_grad():
        for output in network(random_image(2, input_channels, *size)):
            assert output.logits.shape == (2, 1 + classes, *size)
            assert output.bottleneck.shape == (2, 8, *(n // 4 for n in size))
            assert output.decoded.shape == (2, 6, *(n // 2 for n in size))
            assert network.projections[0](output.decoded.movedim(1, -1)).shape[-1] == 5
            assert torch.isfinite(output.logits).all()
        assert network.forward_one(random_image(1, input_channels, *size)).shape == (1, 1 + classes, *size)


@pytest.mark.parametrize("name", shipped_recipes())
def test_networks_of_shipped_recipes_accept_their_patches(name: str) -> None:
    """PyTorch's device `meta` computes shapes only."""
    recipe = load_recipe(name)
    patch = recipe.training.patch
    with torch.device("meta"):
        network = DualVNet(recipe)
        outputs = network(torch.empty(recipe.training.batch, 1, *patch))
    for output in outputs:
        assert output.logits.shape == (recipe.training.batch, 2, *patch)
        assert output.bottleneck.shape == (recipe.training.batch, 256, *(n // 16 for n in patch))
        assert output.decoded.shape == (recipe.training.batch, 32, *(n // 2 for n in patch))


def test_number_of_weights_equals_the_sum_over_layers() -> None:
    """The sum covers encoder, decoder and head of both branches, cross-attention, and projection heads."""
    recipe = load_recipe("la")
    widths, counts, embedding = recipe.network.channels, recipe.network.convolutions, recipe.network.embedding
    expected = 0
    for kernel_of_up in (8, 1):  # branch A: transposed convolution of 2x2x2; branch B: convolution of 1x1x1
        inputs = recipe.input_channels
        for level, (width, count) in enumerate(zip(widths, counts, strict=True)):
            if level:
                expected += 8 * widths[level - 1] * width + 2 * width  # downsampling and its normalisation
                inputs = width
                expected += kernel_of_up * width * widths[level - 1] + 2 * widths[level - 1]  # upsampling
            expected += 27 * inputs * width + 27 * (count - 1) * width**2 + 2 * count * width
            if level < len(widths) - 1:
                expected += count * (27 * width**2 + 2 * width)  # the decoder's level
        expected += widths[0] * recipe.output_channels + recipe.output_channels
        deep, second = widths[-1], widths[1]
        expected += 4 * (deep**2 + deep) + 4 * deep
        expected += second**2 + second + second * embedding + embedding
    with torch.device("meta"):
        assert sum(p.numel() for p in DualVNet(recipe).parameters()) == expected


def test_only_batch_normalisation_makes_samples_depend_on_each_other() -> None:
    batch = random_image(3, 1, 8, 8, 8)
    for kind, coupled in (("instance", False), ("batch", True)):
        torch.manual_seed(0)
        network = DualVNet(small_recipe(normalisation=kind)).train()
        with torch.no_grad():
            together = network(batch)[0].logits[:1]
            alone = network(batch[:1])[0].logits
        assert torch.allclose(together, alone, atol=1e-5) is not coupled


def test_untrained_branches_do_not_affect_each_other() -> None:
    torch.manual_seed(0)
    network = DualVNet(small_recipe()).eval()
    without = DualVNet(small_recipe(attention_heads=0)).eval()
    assert len(without.attentions) == 0
    kept = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("attentions")}
    without.load_state_dict(kept)
    scan = random_image(2, 1, 8, 8, 8)
    with torch.no_grad():
        for one, other in zip(network(scan), without(scan), strict=True):
            assert torch.equal(one.logits, other.logits)
        bias: Any = network.get_parameter("attentions.0.output.bias")
        nn.init.ones_(bias)
        assert not torch.allclose(network(scan)[0].logits, without(scan)[0].logits)
        assert torch.equal(network(scan)[1].logits, without(scan)[1].logits)


@pytest.mark.parametrize("branch", [0, 1])
def test_exchange_can_be_switched_off_in_a_single_branch(branch: int) -> None:
    network = exchanging_network(small_recipe(classes=2, input_channels=2))
    scan = random_image(2, 2, 8, 12, 8)
    own_tokens = torch.zeros(2, 2, dtype=torch.bool)  # (branch, sample)
    own_tokens[branch] = True
    with torch.no_grad():
        with_own_tokens, exchanged = network(scan, own_tokens), network(scan)
        if branch == 0:  # in `forward_one`, branch A attends to its own tokens
            assert torch.equal(network.forward_one(scan), with_own_tokens[0].logits)
        # The other branch still attends to its partner's tokens.
        assert torch.equal(with_own_tokens[1 - branch].logits, exchanged[1 - branch].logits)
        assert not torch.allclose(with_own_tokens[branch].logits, exchanged[branch].logits, atol=1e-3)
    for one, other in zip(with_own_tokens, exchanged, strict=True):
        assert torch.equal(one.bottleneck, other.bottleneck)


def test_network_run_in_steps_gives_the_same_logits_as_in_one_call() -> None:
    network = exchanging_network(small_recipe())
    scan = random_image(2, 1, 8, 12, 8)
    with torch.no_grad():
        encoded = [vnet.encode(scan) for vnet in network.vnets]
        deepest = [features[-1] for features in encoded]
        for branches in (2, 1):
            # A branch without its partner attends to its own tokens.
            own_tokens = torch.ones(2, 2, dtype=torch.bool) if branches == 1 else None
            expected = network(scan, own_tokens)
            exchanged = network.exchange(deepest[:branches])
            assert len(exchanged) == branches
            for branch, bottleneck in enumerate(exchanged):
                logits, _ = network.vnets[branch].decode([*encoded[branch][:-1], bottleneck])
                assert torch.equal(logits, expected[branch].logits)


def test_network_without_attention_exchanges_nothing() -> None:
    without_attention = DualVNet(small_recipe(attention_heads=0))
    deepest = [random_image(1, 8, 2, 3, 2, seed=seed) for seed in (1, 2)]
    with torch.no_grad():
        assert all(map(torch.equal, without_attention.exchange(deepest), deepest))


def test_branch_can_attend_to_its_own_tokens_for_some_samples_only() -> None:
    network = exchanging_network(small_recipe())
    scan = random_image(3, 1, 8, 8, 8)
    own_tokens = torch.tensor([[True, False, True], [False, False, True]])  # (branch, sample)

    def logits(mask: Tensor | None) -> list[Tensor]:
        return [output.logits for output in network(scan, mask)]

    with torch.no_grad():
        mixed = logits(own_tokens)
        all_own, none_own = logits(torch.ones_like(own_tokens)), logits(torch.zeros_like(own_tokens))
        for by_default, expected in zip(logits(None), none_own, strict=True):
            assert torch.equal(by_default, expected)
    for branch in (0, 1):
        assert not torch.allclose(all_own[branch], none_own[branch], atol=1e-3)
        for sample in range(3):
            expected = (all_own if own_tokens[branch, sample] else none_own)[branch][sample]
            assert torch.allclose(mixed[branch][sample], expected, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("bias", [True, False])
def test_pointwise_equals_pytorch_convolution_and_keeps_memory_format(layout: torch.memory_format, bias: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = Pointwise(5, 3, bias), nn.Conv3d(5, 3, 1, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 4, 6, 8).contiguous(memory_format=layout)
    upstream_gradient = torch.randn(2, 3, 4, 6, 8).contiguous(memory_format=layout)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        outputs_and_gradients = []
        for layer in (ours, theirs):
            features = x.clone().requires_grad_()
            output = layer(features)
            gradients = torch.autograd.grad(output, [features, *layer.parameters()], upstream_gradient)
            outputs_and_gradients.append([output, *gradients])
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*outputs_and_gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert all(tensor.is_contiguous(memory_format=layout) for tensor in outputs_and_gradients[0][:2])


def test_branches_share_no_weight_and_upsample_differently() -> None:
    torch.manual_seed(0)
    network = DualVNet(small_recipe())
    a, b = network.vnets
    assert [a, b] == list(network.branches)
    addresses = [{p.data_ptr() for p in branch.parameters()} for branch in (a, b)]
    assert addresses[0].isdisjoint(addresses[1])
    assert not torch.equal(next(a.parameters()), next(b.parameters()))
    kinds = [{type(module) for module in branch.decoder.modules()} for branch in (a, b)]
    assert nn.ConvTranspose3d in kinds[0] - kinds[1]
    assert Trilinear in kinds[1] - kinds[0]
    ups = [type(up) for branch in (a, b) for up in branch.decoder.ups.children()]
    assert ups == [TransposedUp] * 2 + [TrilinearUp] * 2


def parts_with_gradient(network: DualVNet, output: BranchOutput) -> set[str]:
    network.zero_grad(set_to_none=True)
    output.logits.square().sum().backward()
    names = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    return {".".join(name.split(".")[: 3 if name.startswith("branches") else 2]) for name in names}


def test_gradients_cross_between_branches_only_through_attention() -> None:
    network = exchanging_network(small_recipe())
    scan = random_image(1, 1, 8, 8, 8)
    own_parts = {"branches.0.encoder", "branches.0.decoder", "branches.0.head", "attentions.0"}
    assert parts_with_gradient(network, network(scan)[0]) == own_parts | {"branches.1.encoder"}
    assert parts_with_gradient(network, network(scan, torch.ones(2, 1, dtype=torch.bool))[0]) == own_parts


def test_trilinear_up_equals_upsampling_followed_by_a_convolution() -> None:
    torch.manual_seed(0)
    layer: Any = TrilinearUp(5, 3, "instance", (2, 2, 2)).double()
    x = torch.randn(2, 5, 3, 4, 2, dtype=torch.float64)
    doubled = x.numpy()
    for axis in (2, 3, 4):
        before = np.concatenate([doubled.take([0], axis), doubled.take(range(doubled.shape[axis] - 1), axis)], axis)
        after = np.concatenate([doubled.take(range(1, doubled.shape[axis]), axis), doubled.take([-1], axis)], axis)
        # Along each axis, two new voxels replace an old one; their centres lie a quarter of the old spacing before and
        # after the old centre.
        pair = np.stack([0.75 * doubled + 0.25 * before, 0.75 * doubled + 0.25 * after], axis + 1)
        doubled = pair.reshape(*(n * (2 if i == axis else 1) for i, n in enumerate(doubled.shape)))
    weight = layer[0].weight.detach().numpy()[:, :, 0, 0, 0]
    convolved = np.einsum("oc,bcxyz->boxyz", weight, doubled)
    axes = (2, 3, 4)
    spread = np.sqrt(convolved.var(axes, keepdims=True) + layer[2].eps)
    expected = np.maximum((convolved - convolved.mean(axes, keepdims=True)) / spread, 0)
    assert np.allclose(layer(x).detach().numpy(), expected, atol=1e-12)


def test_transposed_up_maps_each_voxel_to_eight() -> None:
    torch.manual_seed(0)
    layer: Any = TransposedUp(5, 3, "instance", (2, 2, 2)).double()
    x = torch.randn(2, 5, 3, 4, 2, dtype=torch.float64)
    expected = np.empty((2, 3, 6, 8, 4))
    for i, j, k in np.ndindex(2, 2, 2):
        weight = layer[0].weight.detach().numpy()[:, :, i, j, k]
        expected[:, :, i::2, j::2, k::2] = np.einsum("co,bcxyz->boxyz", weight, x.numpy())
    assert np.allclose(layer[0](x).detach().numpy(), expected, atol=1e-12)


def test_decoder_adds_the_encoder_features_at_each_level() -> None:
    """With the last upsampling set to 0, the decoder's last level gets the encoder's finest features only."""
    torch.manual_seed(0)
    branch: Any = DualVNet(small_recipe()).branches[0].eval()
    scan = random_image(1, 1, 8, 8, 8)
    with torch.no_grad():
        features = branch.encode(scan)
        assert [tuple(f.shape[1:3]) for f in features] == [(4, 8), (6, 4), (8, 2)]
        nn.init.zeros_(branch.decoder.ups[-1][0].weight)
        nn.init.zeros_(branch.decoder.ups[-1][1].bias)
        logits, half = branch.decode(features)
        assert torch.equal(logits, branch.head(branch.decoder.levels[-1](features[0])))
        assert torch.equal(half, branch.decoder.levels[0](branch.decoder.ups[0](features[2]) + features[1]))


def test_seed_determines_the_initial_weights() -> None:
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(DualVNet(small_recipe()).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["branches.0.head.weight"], states[2]["branches.0.head.weight"])
