"""Estimate a run's time, memory and disk space on this machine from a few training steps on synthetic cases."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..case_memory import loading_bytes, resident_bytes
from ..geometry import Grid, Shape
from ..io.temporary import temporary_folder
from ..machine import free_disk_bytes, free_memory_bytes
from ..recipe import Recipe
from ..runs.events import EventLog
from ..runs.folder import RunFolder
from .resident import ResidentCase
from .sampling import BatchSampler
from .trainer import VALIDATION_FRACTION, Trainer, memory_held, memory_taken

BUDGET_S = 15.0
"""Limit on the expected duration of `try_steps`."""
STEADY_S = 1.0
"""Steps on a patch are measured until their total duration reaches this limit; ten steps at most.

The fastest step's time is used, since other programs may slow steps down.
"""


@dataclass(frozen=True)
class MeasuredPatch:
    """The measured cost of a training step on a patch: seconds, and this process's peak memory."""

    voxels: int
    step_s: float
    memory_bytes: int


@dataclass(frozen=True)
class Trial:
    """The cost of a training step on the recipe's patch, extrapolated if only smaller patches were measured.

    Attributes:
        memory_bytes: this process's peak memory (see `memory_taken`).
        measured: voxels of the largest measured patch as a fraction of the recipe's patch.
    """

    step_s: float
    memory_bytes: int
    measured: float


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a run.

    Attributes:
        seconds: time of training and validation, without reading the cases.
        memory_bytes, memory_free: needed and free memory of the device.
        disk_bytes, disk_free: needed and free space on the run folder's disk.
        device: `cpu`, `cuda` or `mps`.
        measured: see `Trial`.
    """

    seconds: float
    step_s: float
    memory_bytes: int
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
    """Return the estimate for a run.

    Args:
        grids: grids of the scans.
        validated: whether there are validation cases.
        place: a folder on the disk of the run.
        memory_free: from `available_memory`, before the trial.
    """
    seconds = trial.step_s * recipe.training.iterations * (1 + VALIDATION_FRACTION * validated)
    memory_bytes = trial.memory_bytes + resident_bytes(recipe, grids)
    if device.type != "cuda":  # Other devices use the computer's memory, where cases are prepared.
        memory_bytes = max(memory_bytes, loading_bytes(recipe, grids))
    return Estimate(
        seconds,
        trial.step_s,
        memory_bytes,
        memory_free,
        disk_bytes(recipe, validated),
        free_disk_bytes(place),
        device.type,
        trial.measured,
    )


def available_memory(device: torch.device) -> int | None:
    """Return the device's free memory in bytes, or None if unknown.

    Call it before a trial, since a trial does not release all its memory.
    """
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory_bytes()


def try_steps(recipe: Recipe, device: torch.device, measured: list[MeasuredPatch] | None = None) -> Trial:
    """Measure training steps on growing patches, up to the recipe's patch if `BUDGET_S` allows.

    Time and memory of a step grow about linearly with the number of voxels; they are extrapolated from the last two
    measured patches.

    Args:
        measured: the patches that earlier calls in this process have measured, the smallest first, none larger than the
            recipe's patch. This call appends the patches that it measures.
    """
    began = time.monotonic()
    measured = [] if measured is None else measured
    whole = math.prod(recipe.training.patch)
    with temporary_folder() as folder:
        trainer = Trainer(recipe, RunFolder(Path(folder)), device, EventLog(None))
        for patch in trial_patches(recipe):
            voxels = math.prod(patch)
            if measured:
                last = measured[-1]
                # After a larger patch, the memory of a smaller patch cannot be measured: on a CUDA GPU, PyTorch keeps
                # the larger patch's memory reserved; on other devices, a process's peak memory never falls.
                if voxels <= last.voxels:
                    continue
                elapsed_s = time.monotonic() - began
                expected_s = 3 * last.step_s * voxels / last.voxels
                if elapsed_s + expected_s > BUDGET_S:
                    break
            measured.append(MeasuredPatch(voxels, *_measure(trainer, recipe, patch, device)))
            if len(measured) == 1:
                measured.insert(0, MeasuredPatch(0, 0.0, memory_held(device)))
    before, last = measured[-2:]
    fraction = last.voxels / whole
    ratio = (whole - last.voxels) / (last.voxels - before.voxels)
    return Trial(
        last.step_s + max(0.0, (last.step_s - before.step_s) * ratio),
        last.memory_bytes + max(0, round((last.memory_bytes - before.memory_bytes) * ratio)),
        fraction,
    )


def trial_patches(recipe: Recipe) -> list[Shape]:
    """Return the recipe's patch and smaller patches, the smallest first.

    From one patch to the next smaller one, each axis is about halved, but not to less than twice the network's stride.
    """
    patch, patches = recipe.training.patch, [recipe.training.patch]
    while True:
        smaller = [max(min(n, 2 * s), n // 2 // s * s) for n, s in zip(patch, recipe.stride, strict=True)]
        patch = (smaller[0], smaller[1], smaller[2])
        if patch == patches[-1]:
            return patches[::-1]
        patches.append(patch)


def _measure(trainer: Trainer, recipe: Recipe, patch: Shape, device: torch.device) -> tuple[float, int]:
    """Return the seconds of the fastest step after the first one, and the peak memory in bytes."""
    small = replace(recipe, training=replace(recipe.training, patch=patch))
    cases = [_synthetic_case(small, patch, device, labelled) for labelled in (True, False)]
    sampler = BatchSampler(cases[:1], cases[1:], small, device)
    trainer.iterate(sampler.draw(0))
    _wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # In the first step, cuDNN tries kernels that use all free memory.
    seconds: list[float] = []
    while not seconds or (sum(seconds) < STEADY_S and len(seconds) < 10):
        began = time.monotonic()
        trainer.iterate(sampler.draw(1))
        _wait(device)
        seconds.append(time.monotonic() - began)
    return min(seconds), memory_taken(device)


def _synthetic_case(recipe: Recipe, patch: Shape, device: torch.device, labelled: bool) -> ResidentCase:
    draw = torch.Generator().manual_seed(0)
    size = [n + 8 for n in patch]
    image = torch.randint(256, (recipe.input_channels, *size), generator=draw, dtype=torch.uint8)
    if not labelled:
        return ResidentCase("", image.to(device), None, ())
    label = torch.randint(recipe.output_channels, tuple(size), generator=draw, dtype=torch.uint8)
    voxels = tuple(torch.nonzero(label == value)[:64] for value in range(1, recipe.output_channels))
    return ResidentCase("", image.to(device), label.to(device), voxels)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def disk_bytes(recipe: Recipe, validated: bool) -> int:
    """Return an upper estimate, in bytes, of the disk space that the run folder takes at any time.

    Exported scans and previews are not included. The estimate is the sum of:
    - twice `checkpoints/last.pt`, since a new file is written before the old one is removed;
    - with validation, twice `checkpoints/best.pt`, for the same reason;
    - once `model.dcamt` and once `best.dcamt`, with or without validation;
    - 4 MiB for events.
    """
    from ..networks.dual_vnet import DualVNet

    with torch.device("meta"):
        weights: int = 4 * sum(tensor.numel() for tensor in DualVNet(recipe).state_dict().values())
    training = recipe.training
    copies = (2 if training.optimiser == "sgd" else 3) + (training.weight_average > 0)
    return weights * (2 * copies + 2 + 2 * validated) + (4 << 20)
