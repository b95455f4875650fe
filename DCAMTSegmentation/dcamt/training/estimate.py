"""How long a run will take on this machine, and how much memory and disk: measured by a few steps on made-up cases."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..geometry import Grid
from ..machine import free_disk_bytes, free_memory_bytes
from ..recipe import Recipe
from ..runs.events import EventLog
from ..runs.folder import RunFolder
from .resident import ResidentCase
from .sampling import BatchSampler
from .trainer import VALIDATION_SHARE, Trainer, memory_taken

BUDGET_S = 15.0
"""Seconds after which no larger trial is begun."""
STEADY_S = 1.0
"""Steps are repeated for so long: another program may take the processor's time from one of them."""
Size = tuple[int, int, int]


@dataclass(frozen=True)
class Trial:
    """What was measured: a step at the share `measured` of the recipe's patch, and what that says of a whole one.

    step_s: seconds a step of the recipe's own patch takes. memory_bytes: of the device, while it trains.
    """

    step_s: float
    memory_bytes: int | None
    measured: float


@dataclass(frozen=True)
class Estimate:
    """Of a whole run. memory_bytes are the device's; None where the system does not say. seconds: to its model."""

    seconds: float
    step_s: float
    memory_bytes: int | None
    memory_free: int | None
    disk_bytes: int
    disk_free: int | None
    device: str
    measured: float


def estimate(
    recipe: Recipe,
    trial: Trial,
    grids: Sequence[Grid],
    validated: bool,
    device: torch.device,
    place: Path,
    memory_free: int | None,
) -> Estimate:
    """Of a run on cases of the given grids, to be kept in the folder `place`; `validated`: there are such cases.

    `memory_free`: of the device, as `memory_to_take` had it before the trial.
    """
    seconds = trial.step_s * recipe.training.iterations * (1 + VALIDATION_SHARE * validated)
    memory = None if trial.memory_bytes is None else trial.memory_bytes + resident_bytes(recipe, grids)
    return Estimate(
        seconds,
        trial.step_s,
        memory,
        memory_free,
        disk_bytes(recipe, validated),
        free_disk_bytes(place),
        device.type,
        trial.measured,
    )


def memory_to_take(device: torch.device) -> int | None:
    """Bytes that a run may take there; asked before a trial, part of which this process keeps until it ends."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory_bytes()


def try_steps(recipe: Recipe, device: torch.device, budget_s: float = BUDGET_S) -> Trial:
    """Take steps on ever larger patches, up to the recipe's own if the time suffices.

    A step's time and memory grow with the patch's voxels; from two sizes the rest is a straight line.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, RunFolder(Path(folder)), device, EventLog(None))
        points: list[tuple[float, float, int | None]] = []
        for patch in trial_patches(recipe):
            share = math.prod(patch) / math.prod(recipe.training.patch)
            if points and time.monotonic() - began + 3 * points[-1][1] * share / points[-1][0] > budget_s:
                break
            points.append((share, *_measure(trainer, recipe, patch, device)))
    share, seconds, memory = points[-1]
    if len(points) == 1:
        return Trial(seconds / share, memory, share)
    before = points[-2]
    steps = (1 - share) / (share - before[0])
    if memory is not None and before[2] is not None:
        memory += max(0, round((memory - before[2]) * steps))
    return Trial(seconds + max(0.0, (seconds - before[1]) * steps), memory, share)


def trial_patches(recipe: Recipe) -> list[Size]:
    """The recipe's patch, halved along each axis again and again, the smallest (two strides) first."""
    patch, found = recipe.training.patch, [recipe.training.patch]
    while True:
        floor = 2 * recipe.stride
        smaller = [max(min(n, floor), n // 2 // recipe.stride * recipe.stride) for n in patch]
        patch = (smaller[0], smaller[1], smaller[2])
        if patch == found[-1]:
            return found[::-1]
        found.append(patch)


def _measure(trainer: Trainer, recipe: Recipe, patch: Size, device: torch.device) -> tuple[float, int | None]:
    """Seconds of a step at its fastest, the first left out, and the memory taken by then."""
    small = replace(recipe, training=replace(recipe.training, patch=patch))
    cases = [_made_up(small, patch, device, labelled) for labelled in (True, False)]
    sampler = BatchSampler(cases[:1], cases[1:], small, device)
    trainer.iterate(sampler.draw(0))
    _wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # of trying kernels, which take what there is
    seconds: list[float] = []
    while not seconds or (sum(seconds) < STEADY_S and len(seconds) < 10):
        began = time.monotonic()
        trainer.iterate(sampler.draw(1))
        _wait(device)
        seconds.append(time.monotonic() - began)
    return min(seconds), memory_taken(device)


def _made_up(recipe: Recipe, patch: Size, device: torch.device, labelled: bool) -> ResidentCase:
    """A case a little larger than the patch, of noise."""
    draw = torch.Generator().manual_seed(0)
    size = [n + 8 for n in patch]
    image = torch.randint(256, (recipe.input_channels, *size), generator=draw, dtype=torch.uint8)
    if not labelled:
        return ResidentCase("", image.to(device), None, ())
    label = torch.randint(recipe.outputs, tuple(size), generator=draw, dtype=torch.uint8)
    places = tuple(torch.nonzero(label == value)[:64] for value in range(1, recipe.outputs))
    return ResidentCase("", image.to(device), label.to(device), places)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def resident_bytes(recipe: Recipe, grids: Sequence[Grid]) -> int:
    """What the cases take while they are trained on: 8 bits a voxel of the network's grid, and as many of the label."""
    network_voxel = math.prod(recipe.spacing)
    voxels = sum(math.prod(grid.shape) * grid.voxel_volume_mm3 / network_voxel for grid in grids)
    return round(voxels * (recipe.input_channels + 1))


def disk_bytes(recipe: Recipe, validated: bool) -> int:
    """What a run's folder takes at most: two checkpoints at a time, best weights, two models, 4 MB of events."""
    from ..networks.dual_vnet import DualVNet

    with torch.device("meta"):
        weights: int = 4 * sum(tensor.numel() for tensor in DualVNet(recipe).state_dict().values())
    training = recipe.training
    copies = (2 if training.optimiser == "sgd" else 3) + (training.weight_average > 0)
    return weights * (2 * copies + 2 + 2 * validated) + (4 << 20)
