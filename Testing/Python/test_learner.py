"""Test the learner's precision, optimisers, learning rates and averaged weights against PyTorch and formulas."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from dcamt.devices import fast_bfloat16
from dcamt.losses.distillation import mutual_distillation
from dcamt.recipe import Training
from dcamt.recipe_files import load_recipe
from dcamt.training import learner
from dcamt.training.learner import Learner, half_precision, make_optimiser, set_learning_rate, update_average
from dcamt.training.sampling import Batch
from dcamt_testing.synthetic import CPU
from dcamt_testing.tiny_recipes import tiny_recipe
from torch import nn


@pytest.mark.parametrize(
    ("device", "fast", "half"),
    [
        ("cuda", True, torch.bfloat16),
        ("cuda", False, torch.float16),
        ("cpu", True, torch.bfloat16),
        ("cpu", False, None),
    ],
)
def test_half_precision_depends_on_the_device_and_on_fast_bfloat16(
    monkeypatch: pytest.MonkeyPatch, device: str, fast: bool, half: torch.dtype | None
) -> None:
    monkeypatch.setattr(learner, "fast_bfloat16", lambda device: fast)
    assert half_precision(torch.device(device), load_recipe("la")) is half


@pytest.mark.parametrize(
    ("patch", "levels", "safe"),
    # Each level after the first halves the lengths. A patch is not safe if its length along X is 2 at any level.
    [
        ((32, 48, 48), 5, False),
        ((16, 48, 48), 5, False),
        ((64, 32, 32), 5, True),
        ((48, 32, 16), 4, True),
        ((8, 16, 16), 4, False),
        ((8, 8, 8), 2, True),
        ((4, 8, 8), 2, False),
    ],
)
def test_cpu_uses_float32_where_bfloat16_gradients_are_wrong(
    patch: tuple[int, int, int], levels: int, safe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "fast_bfloat16", lambda device: True)
    channels = ",".join(["4"] * levels)
    recipe = tiny_recipe(f"channels={channels}", f"convolutions={channels.replace('4', '1')}")
    recipe = replace(recipe, training=replace(recipe.training, patch=patch))
    assert (half_precision(CPU, recipe) is torch.bfloat16) is safe
    assert half_precision(torch.device("cuda"), recipe) is torch.bfloat16


def fill_freed_memory_with_nan(elements: int, tensors: int) -> None:
    """Allocate float32 tensors of NaN and free them, so that uninitialised memory is not zero by chance."""
    filled = [torch.full((elements,), math.nan) for _ in range(tensors)]
    del filled


@pytest.mark.skipif(not fast_bfloat16(CPU), reason="needs a processor with bfloat16 instructions")
@pytest.mark.parametrize("length", [1, 3, 4, 5, 6, 7])
def test_bfloat16_gradients_are_right_for_lengths_of_1_and_3_to_7_voxels(length: int) -> None:
    """For a length of 2, oneDNN computes the gradient from uninitialised memory, so this length is not tested."""
    torch.manual_seed(0)
    features = torch.randn(2, 16, length, 4, 4).contiguous(memory_format=torch.channels_last_3d)
    kernel = torch.randn(16, 16, 3, 3, 3)
    exact, rounded = kernel.clone().requires_grad_(), kernel.clone().requires_grad_()
    convolved = torch.nn.functional.conv3d(features, exact, padding=1)
    upstream_gradient = torch.randn_like(convolved)
    convolved.backward(upstream_gradient)
    # The size of a buffer that oneDNN might leave uninitialised is unknown, so fill blocks of several sizes.
    for elements in (kernel.numel() // 16, kernel.numel() // 4, kernel.numel(), 4 * kernel.numel()):
        fill_freed_memory_with_nan(elements, tensors=6)
    with torch.autocast("cpu", torch.bfloat16):
        convolved = torch.nn.functional.conv3d(features, rounded, padding=1)
    convolved.backward(upstream_gradient.to(convolved.dtype))
    torch.testing.assert_close(rounded.grad, exact.grad, atol=0.05 * float(exact.grad.abs().max()), rtol=0)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_learning_rate_follows_pytorch_schedules_with_a_warm_up_for_adamw(optimiser: str) -> None:
    steps, rate = 200, 0.03
    training = Training(iterations=steps, optimiser=optimiser, learning_rate=rate)
    ours = make_optimiser(nn.Linear(2, 2), training)
    theirs = torch.optim.SGD(nn.Linear(2, 2).parameters(), rate)
    schedulers = torch.optim.lr_scheduler
    if optimiser == "sgd":
        schedule: Any = schedulers.PolynomialLR(theirs, total_iters=steps, power=0.9)
    else:
        schedule = schedulers.CosineAnnealingLR(theirs, T_max=steps)
    for step in range(steps):
        set_learning_rate(ours, training, step)
        warm_up = min(1.0, (step + 1) / 4) if optimiser == "adamw" else 1.0  # 2 % of the iterations
        assert ours.param_groups[0]["lr"] == pytest.approx(warm_up * schedule.get_last_lr()[0], rel=1e-9)
        theirs.step()
        schedule.step()


def test_sgd_uses_momentum_and_weight_decay() -> None:
    weight = nn.Linear(1, 1, bias=False)
    optimiser = make_optimiser(weight, Training(learning_rate=0.1, weight_decay=0.01))
    value = weight.weight.item()
    velocity = 0.0
    for _ in range(3):
        weight.zero_grad()
        (2 * weight.weight).sum().backward()
        optimiser.step()
        velocity = 0.9 * velocity + 2 + 0.01 * value
        value -= 0.1 * velocity
        assert weight.weight.item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_memory_format_of_weights_does_not_change_the_step_of_the_optimiser(optimiser: str) -> None:
    """A fused step would be wrong if a weight and its gradient had different memory formats."""
    coefficients = torch.randn(4, 3, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    ends = []
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        torch.manual_seed(0)
        network: Any = nn.Conv3d(3, 4, 3).to(memory_format=layout)  # type: ignore[call-overload]
        ours = make_optimiser(network, Training(optimiser=optimiser, learning_rate=0.1))
        for _ in range(3):
            ours.zero_grad()
            (network.weight * coefficients).square().sum().backward()
            ours.step()
        ends.append(network.weight.detach())
    assert ends[1].is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(*ends, atol=1e-6)


def test_first_step_with_infinite_gradients_changes_nothing() -> None:
    """In float16 the initial gradient scale is high, so the first gradients may be infinite."""
    weights = []
    for overflows in (True, False):
        torch.manual_seed(0)
        network = nn.Linear(64, 64)
        fill_freed_memory_with_nan(network.weight.numel(), tensors=64)
        optimiser = make_optimiser(network, Training(learning_rate=0.1))
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        for coefficient in [math.inf, 1.0, 2.0] if overflows else [1.0, 2.0]:
            optimiser.zero_grad()
            scaler.scale((network.weight * coefficient).sum() + network.bias.sum()).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimiser)
            scaler.update()
        weights.append(network.weight.detach())
    assert torch.allclose(*weights)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_checkpoint_of_an_unfused_optimiser_is_loaded(optimiser: str) -> None:
    """An earlier version or another kind of device may have written such a checkpoint."""
    recipe = tiny_recipe(f"optimiser={optimiser}")
    loading = Learner(recipe, CPU)
    state = loading.state()
    for group in state["optimiser"]["param_groups"]:
        group.update(fused=None, foreach=True)
    loading.load_state(state)
    (group,) = loading.optimiser.param_groups
    assert group["fused"]
    assert not group["foreach"]


@pytest.mark.parametrize("mixed", [False, True])
def test_teachers_see_unmixed_patches(mixed: bool) -> None:
    one = Learner(tiny_recipe("batch=4", "labelled_per_batch=2"), CPU)
    one.half = None
    network = copy.deepcopy(one.network)
    draws = torch.Generator().manual_seed(3)
    images, teacher_images = torch.randn(2, 4, 1, 16, 16, 16, generator=draws)
    teacher_images[1] = 9 * teacher_images[1] + 9  # so that the logits of the two unlabelled patches differ clearly
    box = torch.zeros(16, 16, 16, dtype=torch.bool)
    box[4:12, 2:10, 6:14] = True
    own_tokens = torch.zeros(2, 4, dtype=torch.bool)
    batch = Batch(images, (images[:2, 0] > 1).long(), teacher_images[:2], own_tokens, box if mixed else None)

    losses = one.backward(batch, step=6)

    with torch.no_grad():
        teachers = [branch.logits for branch in network.eval()(batch.teacher_images)]
        students = [branch.logits for branch in network.train()(images, own_tokens)]
    if mixed:  # Mixing exchanges the voxels in the box between the two unlabelled patches.
        teachers = [torch.where(box, logits.flip(0), logits) for logits in teachers]
    a, b = (torch.cat([student[:2], teacher]) for student, teacher in zip(students, teachers, strict=True))
    expected = mutual_distillation((students[0], students[1]), (a, b), one.recipe.objective.distillation_temperature)
    assert losses["distillation"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_average_of_weights_follows_its_formula() -> None:
    average, network = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        wanted = 1.0
        for step in range(60):
            network.weight.fill_(math.sin(step))
            network.running_mean.fill_(math.sin(step))  # type: ignore[union-attr]
            network.num_batches_tracked.fill_(step)  # type: ignore[union-attr]
            average.running_mean.fill_(wanted)  # type: ignore[union-attr]
            update_average(average, network, 0.8, step)
            decay = min(0.8, (1 + step) / (10 + step))
            wanted = decay * wanted + (1 - decay) * math.sin(step)
            assert average.weight.tolist() == pytest.approx([wanted] * 2, rel=1e-4, abs=1e-6)
            assert average.running_mean.tolist() == pytest.approx([wanted] * 2, rel=1e-4, abs=1e-6)  # type: ignore[union-attr]
            assert network.weight.tolist() == pytest.approx([math.sin(step)] * 2, rel=1e-6)
