"""The trainer: learning, optimisers and schedules against PyTorch, and timing of validations and checkpoints."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from dcamt.cases.case_list import VALIDATION, read_cases
from dcamt.devices import fast_bfloat16
from dcamt.inference import tiling
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import verify_model
from dcamt.recipe import Training, load_recipe
from dcamt.runs.events import CheckpointSaved, RunEvent, TrainingProgress, ValidationScored
from dcamt.runs.folder import RunFolder
from dcamt.runs.requests import PAUSE, remove_request, write_request
from dcamt.training import learner, validation
from dcamt.training import trainer as trainer_module
from dcamt.training.learner import Learner, half_precision, make_optimiser, set_learning_rate, update_average
from dcamt.training.resident import load_case
from dcamt.training.trainer import Trainer
from dcamt.training.validation import validation_dice
from dcamt_testing.processes import HANGING_S
from dcamt_testing.synthetic import CPU, assert_same, new_trainer, resident, set_options, write_cases_folder
from dcamt_testing.tiny_recipes import tiny_recipe
from torch import Tensor, nn

ENGINE_HOME = Path(__file__).resolve().parents[2] / "DCAMTSegmentation"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases_folder(tmp_path_factory.mktemp("data"), labelled=2, unlabelled=2, validation=1)


@pytest.mark.parametrize("settings", [("learning_rate=0.1",), ("optimiser=adamw", "learning_rate=0.02")])
def test_training_reaches_a_high_dice(tmp_path: Path, table: Path, settings: tuple[str, ...]) -> None:
    cases = read_cases(table)
    trainer = new_trainer(tmp_path / "run", table, "iterations=60", *settings)
    held_out = [load_case(case, trainer.recipe, CPU) for case in cases if case.role == "validation"]
    before = validation_dice(trainer.learner.network, held_out, trainer.recipe)
    after = trainer.fit(cases).dice
    assert after is not None
    for branch in ("A", "B", "mean"):
        assert after[branch]["Left atrium"] > 0.8
        assert after[branch]["Left atrium"] > before[branch]["Left atrium"] + 0.2


def test_training_starts_from_the_given_weights(tmp_path: Path, table: Path) -> None:
    torch.manual_seed(55)
    weights = DualVNet(tiny_recipe()).state_dict()
    trainer = new_trainer(tmp_path / "run", table, "weight_average=0.9", start_from=weights)
    assert_same(dict(trainer.learner.network.state_dict()), dict(weights))
    assert trainer.learner.average is not None
    assert_same(dict(trainer.learner.average.state_dict()), dict(weights))
    other = new_trainer(tmp_path / "other", table).learner.network.state_dict()
    assert not torch.equal(other["branches.0.head.weight"], weights["branches.0.head.weight"])


def test_seed_determines_the_result(tmp_path: Path, table: Path) -> None:
    results = []
    for number, seed in enumerate((3, 3, 4)):
        torch.manual_seed(number)
        trainer = new_trainer(tmp_path / str(number), table, "iterations=2", f"seed={seed}")
        results.append(trainer.fit(read_cases(table)).weights)
    assert_same(results[0], results[1])
    assert not torch.equal(results[0]["branches.0.head.weight"], results[2]["branches.0.head.weight"])


TRAIN_WITHOUT_OPTIONAL_PACKAGES = """
import sys

REFUSED = {"scipy", "SimpleITK", "nrrd", "slicerio", "matplotlib", "monai"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError(f"{name} is refused")

sys.meta_path.insert(0, Refuse())
try:
    import scipy
    sys.exit("the hook does nothing")
except ImportError:
    pass
from dcamt.cli import main
status = main(sys.argv[1:])
assert not REFUSED & {name.partition(".")[0] for name in sys.modules}
sys.exit(status)
"""


def test_training_needs_neither_scipy_nor_simpleitk_nor_monai(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")
    arguments = ["train", str(table), "--run", str(run.path), "--json", *set_options("iterations=2")]
    result = subprocess.run(
        [sys.executable, "-c", TRAIN_WITHOUT_OPTIONAL_PACKAGES, *arguments],
        env={**os.environ, "PYTHONPATH": str(ENGINE_HOME)},
        capture_output=True,
        text=True,
        timeout=HANGING_S,
        encoding="utf-8",
    )
    assert result.returncode == 0, result.stderr
    kinds = [json.loads(line)["event"] for line in result.stdout.splitlines()]
    assert {"loading", "started", "progress", "validation", "checkpoint", "finished"} == set(kinds)
    assert verify_model(run.model).card.trained_on["iterations"] == 2


@pytest.mark.parametrize(
    ("device", "fast", "half"),
    [
        ("cuda", True, torch.bfloat16),
        ("cuda", False, torch.float16),
        ("cpu", True, torch.bfloat16),
        ("cpu", False, None),
    ],
)
def test_bfloat16_is_used_when_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, device: str, fast: bool, half: torch.dtype | None
) -> None:
    monkeypatch.setattr(learner, "fast_bfloat16", lambda device: fast)
    assert half_precision(torch.device(device), load_recipe("la")) is half


@pytest.mark.parametrize(
    ("patch", "levels", "safe"),
    # Each level after the first halves the lengths; a length of two voxels along X, the first axis, is not safe.
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
def test_float32_is_used_when_bfloat16_gradients_are_wrong(
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
def test_bfloat16_gradients_are_right_unless_two_voxels_long(length: int) -> None:
    """A wrong kernel reads uninitialised memory, which is therefore filled with NaN."""
    torch.manual_seed(0)
    features = torch.randn(2, 16, length, 4, 4).contiguous(memory_format=torch.channels_last_3d)
    kernel = torch.randn(16, 16, 3, 3, 3)
    exact, found = kernel.clone().requires_grad_(), kernel.clone().requires_grad_()
    convolved = torch.nn.functional.conv3d(features, exact, padding=1)
    upstream_gradient = torch.randn_like(convolved)
    convolved.backward(upstream_gradient)
    for elements in (432, 1728, 6912, 27648):
        fill_freed_memory_with_nan(elements, tensors=6)
    with torch.autocast("cpu", torch.bfloat16):
        convolved = torch.nn.functional.conv3d(features, found, padding=1)
    convolved.backward(upstream_gradient.to(convolved.dtype))
    torch.testing.assert_close(found.grad, exact.grad, atol=0.05 * float(exact.grad.abs().max()), rtol=0)


def test_mixed_precision_keeps_the_direction_of_a_step(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "fast_bfloat16", lambda device: True)  # slow CPUs emulate it
    steps = []
    for mixed in ("true", "false"):
        trainer = new_trainer(tmp_path / mixed, table, f"mixed_precision={mixed}", "iterations=3")
        before = {name: weight.clone() for name, weight in trainer.learner.network.named_parameters()}
        trainer.fit(read_cases(table))
        weights = dict(trainer.learner.network.named_parameters())
        assert all(weight.dtype == torch.float32 for weight in weights.values())
        steps.append(torch.cat([(weights[name] - before[name]).detach().flatten() for name in weights]))
    assert not torch.equal(*steps)
    assert float(torch.nn.functional.cosine_similarity(*steps, dim=0)) > 0.95


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_learning_rate_follows_torch_s_schedule(optimiser: str) -> None:
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
def test_memory_format_of_weights_does_not_change_the_optimiser_s_step(optimiser: str) -> None:
    """The optimisers process weights and gradients in memory order, so both must have the same memory format."""
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


def test_first_step_that_overflows_in_float16_is_skipped() -> None:
    """The initial gradient scale is high, so the first gradients may be infinite; such a step must change nothing."""
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
    """An earlier version or another kind of device may have written it."""
    recipe = tiny_recipe(f"optimiser={optimiser}")
    loading = Learner(recipe, CPU)
    state = loading.state()
    for group in state["optimiser"]["param_groups"]:
        group.update(fused=None, foreach=True)
    loading.load_state(state)
    (group,) = loading.optimiser.param_groups
    assert group["fused"]
    assert not group["foreach"]


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


class Clock:
    """Simulates the trainer's clock, iterations and validations.

    An iteration takes 1 s, a validation `validation_s`. Nothing is computed; the loss of an iteration is the time after
    it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, validation_s: float = 0.0) -> None:
        self.now = 1000.0
        self.validation_s = validation_s
        monkeypatch.setattr(trainer_module, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(Trainer, "iterate", self.iterate)
        monkeypatch.setattr(trainer_module, "validation_dice", self._validate)

    def iterate(self, batch: Any) -> dict[str, Tensor]:
        self.now += 1
        return {"total": torch.tensor(self.now)}

    def _validate(self, *_: Any) -> dict[str, dict[str, float]]:
        self.now += self.validation_s
        return {"mean": {"Left atrium": 0.5}}


@pytest.mark.parametrize(("every", "seconds"), [(1, 7.0), (10, 7.0), (1, 0.05), (1, 500.0)])
def test_validations_between_the_first_and_the_last_take_at_most_a_tenth_of_the_time(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, every: int, seconds: float
) -> None:
    clock, received = Clock(monkeypatch, seconds), []
    began = clock.now

    def receive(event: RunEvent) -> None:
        if isinstance(event, ValidationScored):
            received.append((event.step, clock.now - event.seconds - began))
            assert event.seconds == pytest.approx(seconds)

    trainer = new_trainer(
        tmp_path / "run", table, "iterations=300", f"validate_every={every}", "patch=16,16,16", on_event=receive
    )
    trainer.fit(read_cases(table))
    assert received[-1][0] == 300
    for number, (step, elapsed) in enumerate(received[:-1]):
        assert step % every == 0
        # The validations so far and this one; the trainer does not know the duration of the first one beforehand.
        assert (number + 1 if number else 0) * seconds <= 0.1 * elapsed + 1e-6
    total = clock.now - began
    if seconds == 500.0:
        assert len(received) == 2
    elif seconds == 7.0:
        assert 0.06 * total <= len(received) * seconds <= 0.1 * total
    else:
        assert len(received) > 280


@pytest.mark.parametrize(("iterations", "before_the_last"), [(30, False), (400, True)])
def test_first_validation_is_made_only_if_time_remains_for_the_final_one(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, iterations: int, before_the_last: bool
) -> None:
    # The trainer estimates the first validation by voxels as 24^3 / (3 x 2 x 8^3) = 4.5 iterations: the case has 24^3,
    # a batch two patches of 8^3, and an iteration takes as long as three forward passes.
    clock, received = Clock(monkeypatch, 4.5), []

    def receive(event: RunEvent) -> None:
        if isinstance(event, ValidationScored):
            received.append(event.step)

    settings = (f"iterations={iterations}", "validate_every=1", "patch=8,8,8", "batch=2")
    trainer = new_trainer(tmp_path / "run", table, *settings, on_event=receive)
    seconds = trainer.fit(read_cases(table)).seconds
    assert received[-1] == iterations
    assert (len(received) > 1) is before_the_last
    if before_the_last:
        assert received[0] == 45
        assert len(received) * clock.validation_s <= 0.1 * seconds


def test_pause_request_cancels_a_validation(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled validation gives no scores. A request does not cancel the final validation of a run."""
    received: list[RunEvent] = []
    trainer = new_trainer(tmp_path / "run", table, "iterations=4", "validate_every=2", on_event=received.append)
    monkeypatch.setattr(Trainer, "_validation_due", lambda self, cases: self.step == 2)
    monkeypatch.setattr(trainer_module, "REQUEST_EVERY_S", 0.0)
    real = validation.predict_bounded
    predicted_at: list[int] = []

    def predict_and_request_pause(*arguments: Any) -> Tensor:
        predicted_at.append(trainer.step)
        write_request(RunFolder(tmp_path / "run"), PAUSE)  # as Slicer's panel does
        return real(*arguments)

    monkeypatch.setattr(validation, "predict_bounded", predict_and_request_pause)
    cases = read_cases(table)
    # With a second validation case, a request during the prediction of the first can cancel the validation.
    cases += [replace(case, name=f"{case.name} again") for case in cases if case.role == VALIDATION]
    outcome = trainer.fit(cases)
    assert (outcome.finished, outcome.step, predicted_at) == (False, 2, [2])
    assert not any(isinstance(event, ValidationScored) for event in received)
    assert trainer.learner.network.training
    remove_request(RunFolder(tmp_path / "run"))
    trainer = new_trainer(tmp_path / "run", table, "iterations=4", "validate_every=2")
    trainer.resume()
    outcome = trainer.fit(cases, resumed=True)
    assert outcome.finished
    assert outcome.dice is not None
    assert predicted_at == [2, 4, 4]


def test_resumed_run_keeps_the_time_spent_validating(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, 50.0)
    steps: list[int] = []
    settings = ("iterations=30", "validate_every=1", "patch=24,24,24")

    def receive(event: RunEvent) -> None:
        if isinstance(event, ValidationScored):
            steps.append(event.step)
            trainer.stop_requested = True

    trainer = new_trainer(tmp_path / "run", table, *settings, on_event=receive)
    assert not trainer.fit(read_cases(table)).finished
    trainer = new_trainer(tmp_path / "run", table, *settings, on_event=receive)
    trainer.resume()
    outcome = trainer.fit(read_cases(table), resumed=True)
    assert steps == [2, 30]
    assert outcome.seconds == pytest.approx(30 + 2 * 50)


def test_checkpoints_and_reports_follow_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write_cases_folder(tmp_path / "data", labelled=1)
    clock, received = Clock(monkeypatch), []
    trainer = new_trainer(
        tmp_path / "run", table, "iterations=35", "checkpoint_every_s=10", "patch=4,4,4", on_event=received.append
    )
    outcome = trainer.fit(read_cases(table))
    assert [event.step for event in received if isinstance(event, CheckpointSaved)] == [10, 20, 30, 35]
    reports = [event for event in received if isinstance(event, TrainingProgress)]
    assert [report.step for report in reports] == [*range(2, 35, 2), 35]
    for report in reports:
        assert (report.of, report.steps_per_s, report.eta_s) == (35, 1.0, 35 - report.step)
    # A report has the mean losses since the previous one, here of two iterations; iteration n has the loss 1000 + n.
    assert [report.losses["total"] for report in reports[:3]] == [1001.5, 1003.5, 1005.5]
    assert (outcome.seconds, outcome.dice) == (35, None)
    assert clock.now == 1035


def test_validation_dice_is_the_mean_over_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are two cases and two classes; the branches' predictions are fixed."""
    info = tiny_recipe().classes[0]
    recipe = replace(tiny_recipe(), classes=(info, replace(info, label=2, name="Scar")))
    label = np.zeros((4, 4, 4), np.uint8)
    label[:2] = 1  # 32 voxels
    other = label.copy()
    other[3] = 2  # 16 voxels
    cases = [resident(label * 100, label), resident(other * 100, other)]
    class_a = np.ones((4, 4, 4), int)  # all class 1
    class_b = np.zeros((4, 4, 4), int)
    class_b[:1] = 1  # 16 voxels, all correct
    class_b[3] = 2

    def predict(*_: Any) -> Tensor:
        probabilities = [0.9 * np.eye(3)[class_a] + 0.03, 0.7 * np.eye(3)[class_b] + 0.1]
        return torch.from_numpy(np.stack(probabilities)).movedim(-1, 1)

    monkeypatch.setattr(validation, "predict_bounded", predict)
    network = DualVNet(tiny_recipe())
    dice = validation_dice(network, cases, recipe)
    assert network.training
    a1, b1 = 2 * 32 / (64 + 32), 2 * 16 / (16 + 32)
    # A case counts for a class only if its label or its prediction contains the class.
    assert dice["A"] == pytest.approx({info.name: a1, "Scar": 0.0})
    assert dice["B"] == pytest.approx({info.name: b1, "Scar": (0.0 + 1.0) / 2})
    assert dice["mean"] == pytest.approx(dice["A"])  # branch A has the higher confidence
    without = validation_dice(network, cases[:1], recipe)  # the labels do not contain the second class
    assert without is not None
    assert [list(without[key]) for key in ("A", "B", "mean")] == [[info.name]] * 3
    assert validation_dice(network, [resident(label * 100, label * 0)], recipe) is None  # the label is empty
    assert network.training


def record_calls(function: Callable[..., Tensor], name: str, calls: list[str]) -> Callable[..., Tensor]:
    """Return a function that appends `name` to `calls` and then calls the given one."""

    def call(network: DualVNet, *arguments: Any) -> Tensor:
        assert not network.training
        calls.append(name)
        return function(network, *arguments)

    return call


def test_validation_uses_tiles_for_a_scan_too_large_for_memory(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer(tmp_path / "run", table, "iterations=30", "learning_rate=0.1")
    trainer.fit(read_cases(table))
    recipe, network = trainer.recipe, trainer.learner.network
    held_out = [load_case(case, recipe, CPU) for case in read_cases(table) if case.role == "validation"]
    passes: list[str] = []
    for name in ("predict_whole", "predict_tiled"):
        monkeypatch.setattr(tiling, name, record_calls(getattr(tiling, name), name, passes))
    expected = validation_dice(network, held_out, recipe)
    assert network.training
    monkeypatch.setattr(tiling, "free_memory", lambda device: 1)
    assert validation_dice(network, held_out, recipe) == expected
    assert network.training
    assert passes == ["predict_whole", "predict_tiled"]
    assert 0.1 < expected["mean"]["Left atrium"] < 1  # otherwise the comparison would be meaningless
