"""Train the network on one batch: forward and backward pass, optimiser step, moving average of the weights."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import fast_bfloat16
from ..losses.objective import Losses, objective_losses, ramp_up
from ..networks.dual_vnet import BranchOutput, DualVNet
from ..process_settings import shared_by_threads
from ..recipe import Recipe, Training
from ..volume import differ_in_order
from .sampling import Batch, step_seed

FUSED = ("cpu", "cuda")
"""Device types with fused optimisers in every PyTorch release since 2.4."""


@shared_by_threads
def _benchmarking_kernels() -> Iterator[None]:
    """Inside the block, let cuDNN measure its convolution kernels for each new shape and use the fastest.

    This saves time for patches, which all have one shape.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


_default_generator = threading.Lock()
"""Held while a thread draws from torch's default generator, which belongs to all threads."""


class Learner:
    """The network, its optimiser and, if the recipe has `weight_average`, the moving average of its weights."""

    def __init__(self, recipe: Recipe, device: torch.device, start_from: dict[str, Tensor] | None = None) -> None:
        self.recipe = recipe
        self.device = device
        with _default_generator, torch.random.fork_rng(devices=[]):  # The caller's random numbers do not change.
            torch.default_generator.manual_seed(recipe.training.seed)
            network = DualVNet(recipe)
        if start_from is not None:
            network.load_state_dict(start_from)
        self.network: DualVNet = network.to(device, memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]
        self.average: DualVNet | None = copy.deepcopy(self.network) if recipe.training.weight_average > 0 else None
        self.optimiser = make_optimiser(self.network, recipe.training)
        self.half = half_precision(device, recipe) if recipe.training.mixed_precision else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda" and self.half == torch.float16)

    @property
    def model(self) -> DualVNet:
        """The network whose weights become the model."""
        return self.network if self.average is None else self.average

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimiser.param_groups[0]["lr"])

    @_benchmarking_kernels()
    def backward(self, batch: Batch, step: int) -> Losses:
        """Compute the gradients of the objective on a batch; return the losses and their `total`, on the device."""
        training, weights = self.recipe.training, self.recipe.objective
        draws = torch.Generator().manual_seed(step_seed(training.seed, step))
        ramp_weight = ramp_up(step, round(weights.ramp_up * training.iterations))
        teacher_logits = None
        if len(batch.teacher_images) > 0 and ramp_weight * weights.distillation > 0:
            a, b = self._teacher_logits(batch.teacher_images)
            teacher_logits = batch.mix(a), batch.mix(b)
        with self._mixed_precision():
            outputs = self.network(_channels_last(batch.images), batch.own_tokens)
        losses = objective_losses(
            (_in_float32(outputs[0]), _in_float32(outputs[1])),
            batch.labels,
            self.network.projections,  # type: ignore[arg-type]
            weights,
            ramp_weight,
            draws,
            teacher_logits,
        )
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(losses["total"]).backward()  # type: ignore[no-untyped-call]
        return {name: loss.detach() for name, loss in losses.items()}

    def update(self, step: int) -> None:
        """Update the weights, then the moving average of the weights."""
        set_learning_rate(self.optimiser, self.recipe.training, step)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            update_average(self.average, self.network, self.recipe.training.weight_average, step)

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "shape": self._shape(),
            "scan_settings": self._scan_settings(),
            "channel_names": tuple(self.recipe.channel_names),
            "class_names": self._class_names(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a state that `state` returned.

        Raises:
            LookupError, TypeError, ValueError, RuntimeError: the state belongs to another network or optimiser, or to
                another spacing, intensity rule, or order of channels or classes.
        """
        # torch raises no error for another spacing or intensity rule, but the validation scores before and after
        # resuming the run would not be comparable.
        if state.get("scan_settings", self._scan_settings()) != self._scan_settings():
            raise ValueError("the state belongs to another spacing or intensity rule")
        if differ_in_order(state.get("channel_names", ()), self.recipe.channel_names):
            raise ValueError("the state belongs to another order of the channels")
        if differ_in_order(state.get("class_names", ()), self._class_names()):
            raise ValueError("the state belongs to another order of the classes")
        # With another number of attention heads, the weights have the same shapes, so torch raises no error.
        if state.get("shape", self._shape()) != self._shape():
            raise ValueError("the state belongs to another network")
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for saved, current in zip(state["optimiser"]["param_groups"], self.optimiser.param_groups, strict=True):
            if ("momentum" in saved) != ("momentum" in current):  # torch notices this only in the next step
                raise ValueError("the state belongs to another optimiser")
            # The run may resume on another device, and the recipe's weight decay may have been edited.
            saved.update({name: current[name] for name in ("fused", "foreach", "weight_decay")})
        self.optimiser.load_state_dict(state["optimiser"])
        # A run that resumes on another kind of device may begin or cease to scale gradients.
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])

    def _shape(self) -> dict[str, Any]:
        return asdict(replace(self.recipe.network, strides=self.recipe.level_strides))

    def _class_names(self) -> tuple[str, ...]:
        return tuple(info.name for info in self.recipe.classes)

    def _scan_settings(self) -> dict[str, Any]:
        return {"spacing": tuple(self.recipe.spacing), "intensity": asdict(self.recipe.intensity)}

    def _teacher_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return both branches' logits (U, K, X, Y, Z) for images (U, C, X, Y, Z)."""
        with torch.no_grad(), self._mixed_precision():
            self.network.eval()
            a, b = self.network(_channels_last(images))
            self.network.train()
        return a.logits.float(), b.logits.float()

    @contextmanager
    def _mixed_precision(self) -> Iterator[None]:
        if self.half is None:
            yield
            return
        with torch.autocast(self.device.type, self.half):
            yield
        # torch deletes its 16-bit copies of the weights only when the outermost autocast block ends. If the code that
        # calls the learner has opened an autocast block, the next pass would use the copies again, even after `update`
        # has changed the weights. In older PyTorch (issue 142234), the weights would also get no gradients, because
        # `_teacher_logits` makes the copies without gradients.
        torch.clear_autocast_cache()


def half_precision(device: torch.device, recipe: Recipe) -> torch.dtype | None:
    """Return the 16-bit type for training; None if 16 bits are slower or give wrong results.

    Devices with hardware for bfloat16 use bfloat16, which has the range of float32. On older CUDA GPUs bfloat16 is
    several times slower, so these use float16 with scaled gradients.
    """
    if fast_bfloat16(device):
        return None if device.type == "cpu" and _has_unsafe_gradients(recipe) else torch.bfloat16
    return torch.float16 if device.type == "cuda" else None


def _has_unsafe_gradients(recipe: Recipe) -> bool:
    """Return whether oneDNN computes wrong gradients for the recipe's network in bfloat16.

    The gradient of a 3x3x3 convolution reads uninitialised memory if feature maps are two voxels long along X (PyTorch
    2.13 on AVX-512).
    """
    lengths = [recipe.training.patch[0]]
    for along_x, _, _ in recipe.level_strides:
        lengths.append(lengths[-1] // along_x)
    return 2 in lengths


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last_3d)


def _in_float32(output: BranchOutput) -> BranchOutput:
    return replace(
        output, logits=output.logits.float(), bottleneck=output.bottleneck.float(), decoded=output.decoded.float()
    )


def make_optimiser(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Return SGD with momentum 0.9, or AdamW, in the fused implementation (all weights in one pass) if available.

    On a CPU, a fused step of the LA network takes 0.01 s instead of 0.05 s (docs/experiments.md, "Training speed").
    """
    parameters = list(network.parameters())
    rate, decay = training.learning_rate, training.weight_decay
    fused = all(parameter.device.type in FUSED for parameter in parameters)
    if training.optimiser == "sgd":
        sgd = torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=decay, fused=fused, foreach=not fused)
        for parameter in parameters:
            # The fused optimiser would create the momentum buffer with random values, which its first step overwrites.
            # If this step overflows in float16, it is skipped, and the next step would use the random values.
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(parameters, rate, weight_decay=decay, fused=fused, foreach=not fused)


def set_learning_rate(optimiser: torch.optim.Optimizer, training: Training, step: int) -> None:
    """Set the learning rate of a step.

    SGD: polynomial decay with power 0.9. AdamW: cosine decay from 1 to 0 over all iterations, times a linear warm-up
    over the first 2%.
    """
    progress = step / training.iterations
    if training.optimiser == "sgd":
        factor = (1 - progress) ** 0.9
    else:
        warm_up = min(1.0, (step + 1) / max(1.0, 0.02 * training.iterations))
        factor = warm_up * 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimiser.param_groups:
        group["lr"] = training.learning_rate * factor


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Set average = decay * average + (1 - decay) * network in place, for weights and running statistics.

    At step t the decay is at most (1 + t) / (10 + t), so that the random initial weights soon lose their influence.
    """
    decay = min(decay, (1 + step) / (10 + step))
    kept, new = average.state_dict(), network.state_dict()
    floats = [name for name, tensor in kept.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([kept[name] for name in floats], [new[name] for name in floats], 1 - decay)
