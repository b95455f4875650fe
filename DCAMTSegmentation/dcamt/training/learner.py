"""What learns: two V-Nets, their optimiser, and how one batch changes them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..devices import fast_bfloat16, hand_over
from ..losses.copy_paste import copy_paste, partners, random_box
from ..losses.objective import objective_losses, ramp
from ..losses.supervised import dice_cross_entropy
from ..networks.dual_vnet import BranchOutput, DualVNet
from ..recipe import Recipe
from .optimiser import make_optimiser, set_learning_rate, update_average
from .sampling import Batch, step_seed

Losses = dict[str, Tensor]


@contextmanager
def _tried_kernels() -> Iterator[None]:
    """Within it cuDNN tries, for each shape that it has not met, which of its convolutions is the fastest.

    That pays for patches, which are all of one shape; whole cases, each of its own, would be tried for longer than they
    take.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class Learner:
    """The network, the average of its weights if the recipe wants one, and the optimiser."""

    def __init__(self, recipe: Recipe, device: torch.device, start_from: dict[str, Tensor] | None = None) -> None:
        self.recipe = recipe
        self.device = device
        torch.manual_seed(recipe.training.seed)
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
        """What a run ends with: the averaged network, where there is one."""
        return self.network if self.average is None else self.average

    @property
    def learning_rate(self) -> float:
        return float(self.optimiser.param_groups[0]["lr"])

    @_tried_kernels()
    def learn(self, batch: Batch, step: int) -> Losses:
        """Gradients of the objective on a batch; returns its parts and their total, still on the device."""
        training, weights = self.recipe.training, self.recipe.objective
        draws = torch.Generator().manual_seed(step_seed(training.seed, step))
        height = ramp(step, round(weights.ramp_up * training.iterations))
        unlabelled = len(batch.plain) > 0
        said = self._say(self.network, batch.plain) if unlabelled and height * weights.distillation > 0 else None
        with self._mixed_precision():
            outputs = self.network(_channels_last(batch.images), batch.own_tokens)
        losses = objective_losses(
            (_in_float32(outputs[0]), _in_float32(outputs[1])),
            batch.labels,
            self.network.projections,  # type: ignore[arg-type]
            weights,
            height,
            draws,
            None if said is None else (batch.mixed(said[0]), batch.mixed(said[1])),
        )
        if unlabelled and height * weights.copy_paste > 0:
            losses["copy_paste"] = self._copy_paste(batch, draws)
            losses["total"] = losses["total"] + height * weights.copy_paste * losses["copy_paste"]
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(losses["total"]).backward()  # type: ignore[no-untyped-call]
        return {name: loss.detach() for name, loss in losses.items()}

    def update(self, step: int) -> None:
        """Take the optimiser's step along the gradients."""
        set_learning_rate(self.optimiser, self.recipe.training, step)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            update_average(self.average, self.network, self.recipe.training.weight_average, step)

    def state(self) -> dict[str, Any]:
        """All that `load_state` needs to go on as if it had never stopped."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        # How steps are computed is this device's and this release's own affair, not the checkpoint's.
        for saved, own in zip(state["optimiser"]["param_groups"], self.optimiser.param_groups, strict=True):
            saved.update(fused=own["fused"], foreach=own["foreach"])
        self.optimiser.load_state_dict(state["optimiser"])
        # Only where both have one: a run may be taken up on another device, which scales nothing or did not before.
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])

    def _say(self, teacher: DualVNet, plain: Tensor) -> tuple[Tensor, Tensor]:
        """What a network's branches say of patches as they are: logits (U, K, X, Y, Z), without gradient."""
        # A context of its own: a shared one would keep the weights it cast without gradients, and train none.
        with torch.no_grad(), self._mixed_precision():
            teacher.eval()
            a, b = teacher(_channels_last(plain))
            teacher.train()
        return a.logits.float(), b.logits.float()

    def _copy_paste(self, batch: Batch, draws: torch.Generator) -> Tensor:
        """Supervision by mixed patches; where they are unlabelled, the averaged network says what is there."""
        a, b = self._say(self.model, batch.plain)
        said = (a.softmax(dim=1) + b.softmax(dim=1)).argmax(dim=1)
        inside = hand_over(random_box(batch.labels.shape[1:], draws), self.device)
        images, labels = copy_paste(batch.images, batch.labels, said, inside)
        # As the patch that each lies in, so that they depend on the samples' places in the whole batch alone.
        own, other = batch.own_tokens[:, : len(batch.labels)], batch.own_tokens[:, len(batch.labels) :]
        own_tokens = torch.cat([own, other[:, partners(len(batch.labels), len(batch.plain), self.device)]], dim=1)
        with self._mixed_precision():
            outputs = self.network(_channels_last(images), own_tokens)
        return sum((dice_cross_entropy(output.logits.float(), labels) for output in outputs), torch.zeros(()))

    def _mixed_precision(self) -> AbstractContextManager[Any]:
        """Within it the network computes in 16 bits, where the device gains by that."""
        return nullcontext() if self.half is None else torch.autocast(self.device.type, self.half)


def half_precision(device: torch.device, recipe: Recipe) -> torch.dtype | None:
    """bfloat16, which has float32's range, where the device itself computes in it; on older GPUs float16 (gradients
    scaled up), as they only emulate bfloat16, several times slower; None where 16 bits gain nothing, or are not safe.
    """
    if fast_bfloat16(device):
        return None if device.type == "cpu" and _is_miscomputed(recipe) else torch.bfloat16
    return torch.float16 if device.type == "cuda" else None


def _is_miscomputed(recipe: Recipe) -> bool:
    """Whether oneDNN gets the recipe's gradients wrong in bfloat16.

    That of a 3x3x3 kernel reads memory that nobody wrote where the features are two voxels long along X (seen with
    PyTorch 2.13 on AVX-512; Y, Z, channels and batch do not matter, nor are other kernels wrong).
    """
    lengths = (recipe.training.patch[0] >> level for level in range(len(recipe.network.channels)))
    return 2 in lengths


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last_3d)


def _in_float32(output: BranchOutput) -> BranchOutput:
    return replace(
        output, logits=output.logits.float(), bottleneck=output.bottleneck.float(), decoded=output.decoded.float()
    )
