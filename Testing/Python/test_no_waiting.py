"""A training iteration does not wait for the GPU: no value is read back, and data is copied to the GPU asynchronously.

PyTorch's device `meta` replaces the GPU. Its tensors have shapes but no values, so reading a value back raises an
error. `CopyGuard` detects copies from the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from dcamt import devices
from dcamt.distributed import ALONE, Team
from dcamt.recipe import Recipe
from dcamt.runs.events import EventLog
from dcamt.runs.folder import RunFolder
from dcamt.training.resident import ResidentCase
from dcamt.training.sampling import BatchSampler
from dcamt.training.trainer import LossMeter, Trainer
from dcamt_testing.tiny_recipes import tiny_recipe
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

EVERYTHING = (
    "iterations=20",
    "ramp_up=0",
    "mix_labelled=1",
    "surroundings=1",
    "artefacts=1",
    "weight_average=0.9",
)
"""Settings that turn on every part of an iteration."""
STEPS = (1, 7)
"""Two iterations in which all variants of the random augmentations occur.

In every 16th iteration (`trainer.STOP_READ_EVERY`), a team of processes waits for the GPU, so `STEPS` has no multiple
of 16.
"""
META = torch.device("meta")
TENSOR_CONSTRUCTORS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
"""Functions that create a tensor from Python numbers on the CPU and then copy it to the device."""


class CopyGuard(TorchFunctionMode):
    """Raises an error for double precision, and for a CPU-to-device copy that bypasses `to_device`.

    A CPU tensor without dimensions may be an operand: PyTorch passes its value to the GPU with the operation.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.device == META]
        if any(tensor.dtype == torch.float64 for tensor in results):
            raise AssertionError(f"{function.__name__} returns double precision, which Apple's GPUs lack")
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        is_assignment = function is Tensor.__setitem__ and _is_on(META, args[0])
        if is_assignment or results:
            is_copy = function in TENSOR_CONSTRUCTORS or (function is Tensor.to and not _is_on(META, operands))
            is_blocking = is_copy or any(leaf.device.type == "cpu" and leaf.dim() for leaf in operands)
            if is_blocking and not _is_called_by_to_device(sys._getframe(1)):
                raise AssertionError(f"{function.__name__} waits for the device")
        return result


def _is_on(device: torch.device, tensors: object) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.device == device for leaf in tree_leaves(tensors))


def _is_called_by_to_device(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != __file__:
        if frame.f_code is devices.to_device.__code__:
            return True
        frame = frame.f_back
    return False


def cases(recipe: Recipe, device: torch.device) -> tuple[list[ResidentCase], list[ResidentCase]]:
    """Return one labelled and one unlabelled case."""
    size = (24, 20, 18)
    image = torch.randint(256, (recipe.input_channels, *size), dtype=torch.uint8).to(device)
    label = torch.zeros(size, dtype=torch.uint8)
    label[5:15, 5:15, 5:15] = 1
    places = ((label == 1).nonzero(),)
    return [ResidentCase("one", image, label.to(device), places)], [ResidentCase("two", image, None, ())]


class TrainingLoop:
    """Draws batches and trains on them, without the other steps of `Trainer.fit`."""

    def __init__(self, recipe: Recipe, device: torch.device, folder: Path, team: Team = ALONE) -> None:
        self.trainer = Trainer(recipe, RunFolder(folder), device, EventLog(None), team=team)
        self.sampler = BatchSampler(*cases(recipe, device), recipe, device, team)
        self.meter = LossMeter(0)

    def run(self, steps: Iterable[int]) -> None:
        for self.trainer.step in steps:
            self.meter.add(self.trainer.iterate(self.sampler.draw(self.trainer.step)))


@pytest.fixture
def meta_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `torch.Generator` return a CPU generator for any device, since `meta` has none."""

    class CpuGenerator(torch.Generator):
        def __new__(cls, device: object = None) -> CpuGenerator:
            return super().__new__(cls)

    monkeypatch.setattr(torch, "Generator", CpuGenerator)


@pytest.mark.usefixtures("meta_generators")
@pytest.mark.parametrize(("optimiser", "steps"), [("sgd", STEPS), ("adamw", STEPS[:1])])
def test_iteration_does_not_wait_for_the_device(optimiser: str, steps: tuple[int, ...], tmp_path: Path) -> None:
    loop = TrainingLoop(tiny_recipe(*EVERYTHING, f"optimiser={optimiser}"), META, tmp_path)
    with CopyGuard():
        loop.run(steps)


class TeamOfTwo(Team):
    """The first process of a team of two; the second does not exist."""

    def average(self, tensors: Sequence[Tensor]) -> None:
        assert all(tensor.device == META for tensor in tensors)


@pytest.mark.usefixtures("meta_generators")
def test_iteration_of_a_team_does_not_wait_for_the_device(tmp_path: Path) -> None:
    recipe = tiny_recipe(*EVERYTHING, "batch=4", "labelled_per_batch=2")
    loop = TrainingLoop(recipe, META, tmp_path, TeamOfTwo(0, 2))
    with CopyGuard():
        loop.run(STEPS[:1])


@pytest.mark.usefixtures("meta_generators")
@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda device: torch.ones(3, device=device).sum().item(), "item"),
        (lambda device: bool(torch.ones(3, device=device).any()), "meta tensor"),
        (lambda device: torch.ones(3, device=device)[torch.ones(3, device=device) > 0], "nonzero"),
        (lambda device: torch.ones(3, device=device).double(), "double precision"),
        (lambda device: torch.ones(3).to(device), "to waits for the device"),
        (lambda device: torch.ones(()).to(device), "to waits for the device"),
        (lambda device: torch.tensor([1.0], device=device), "tensor waits for the device"),
        (lambda device: torch.ones(3, device=device).new_tensor([1.0]), "new_tensor waits for the device"),
        (lambda device: torch.asarray([1.0], device=device), "asarray waits for the device"),
        (lambda device: torch.ones(3, device=device)[torch.tensor([0, 2])], "getitem__ waits for the device"),
        (lambda device: torch.ones(3, device=device).__setitem__(slice(None), torch.ones(3)), "setitem__ waits"),
        (lambda device: torch.ones(3, device=device).__setitem__(torch.tensor([0, 2]), 1.0), "setitem__ waits"),
    ],
)
def test_operation_that_waits_or_returns_double_precision_is_detected(
    operation: Callable[[torch.device], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = BatchSampler.draw

    def execute_and_draw(self: BatchSampler, step: int) -> Any:
        operation(self._device)
        return draw(self, step)

    monkeypatch.setattr(BatchSampler, "draw", execute_and_draw)
    loop = TrainingLoop(tiny_recipe(), META, tmp_path)
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError), match=message), CopyGuard():
        loop.run([0])


def test_copies_to_a_gpu_use_page_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[object] = []

    class PageLocked:
        def to(self, device: torch.device, non_blocking: bool) -> str:
            copies.append((device.type, non_blocking))
            return "there"

    monkeypatch.setattr(Tensor, "pin_memory", lambda self: PageLocked())
    assert devices.to_device(torch.ones(2), torch.device("cuda")) == "there"
    assert copies == [("cuda", True)]
    here = torch.ones(2)
    assert devices.to_device(here, torch.device("cpu")) is here


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pytorch_reports_no_synchronisation_with_the_gpu(tmp_path: Path) -> None:
    loop = TrainingLoop(tiny_recipe(*EVERYTHING), torch.device("cuda"), tmp_path)
    loop.run(range(2))  # the first iterations may wait for one-time set-up
    torch.cuda.set_sync_debug_mode("error")
    try:
        loop.run(range(2, 14))
    finally:
        torch.cuda.set_sync_debug_mode("default")
