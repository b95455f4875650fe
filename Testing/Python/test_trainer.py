"""Test the trainer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from dcamt.api.training import train
from dcamt.cases.case_list import read_cases
from dcamt.errors import InputError
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import verify_model
from dcamt.runs.events import CheckpointSaved, RunEvent, RunPaused, TrainingProgress, ValidationScored
from dcamt.runs.folder import RunFolder
from dcamt.training import learner
from dcamt.training import trainer as trainer_module
from dcamt.training.checkpoint import load_checkpoint
from dcamt.training.resident import load_case
from dcamt.training.trainer import Trainer
from dcamt.training.validation import validation_dice
from dcamt_testing.processes import HANGING_S, forget_packages
from dcamt_testing.synthetic import CPU, assert_same, new_trainer, set_options, write_cases_folder
from dcamt_testing.tiny_recipes import tiny_recipe
from dcamt_testing.warm_python import interpreter
from torch import Tensor

ENGINE_HOME = Path(__file__).resolve().parents[2] / "DCAMTSegmentation"


@pytest.mark.parametrize("settings", [("learning_rate=0.1",), ("optimiser=adamw", "learning_rate=0.02")])
def test_training_reaches_a_high_dice(tmp_path: Path, table: Path, settings: tuple[str, ...]) -> None:
    cases = read_cases(table)
    trainer = new_trainer(tmp_path / "run", table, "iterations=60", *settings)
    validation_cases = [load_case(case, trainer.recipe, CPU) for case in cases if case.role == "validation"]
    before = validation_dice(trainer.learner.network, validation_cases, trainer.recipe)
    after = trainer.fit(cases).dice
    assert after is not None
    for branch in ("A", "B", "mean"):
        assert after[branch]["Left atrium"] > 0.8
        assert after[branch]["Left atrium"] > before[branch]["Left atrium"] + 0.2


@pytest.mark.parametrize(
    "setting",
    [
        *("gain=5", "gamma=5", "offset=100", "noise=100", "scale=10", "rotation_degrees=360", "weight_decay=1"),
        *("supervised=1000", "distillation=1000", "mmd=1000", "intra_class=1000", "inter_class=1000"),
        *("distillation_temperature=100", "distillation_temperature=0.01"),
        *("contrast_temperature=100", "contrast_temperature=0.01", "radius_mm=1000"),
    ],
)
def test_losses_and_weights_stay_finite_if_a_setting_is_at_its_limit(tmp_path: Path, table: Path, setting: str) -> None:
    trainer = new_trainer(tmp_path / "run", table, "iterations=3", setting)
    assert trainer.fit(read_cases(table)).finished


def test_training_starts_from_the_given_weights(tmp_path: Path, table: Path) -> None:
    torch.manual_seed(55)
    weights = DualVNet(tiny_recipe()).state_dict()
    trainer = new_trainer(tmp_path / "run", table, "weight_average=0.9", start_from=weights)
    assert_same(dict(trainer.learner.network.state_dict()), dict(weights))
    assert trainer.learner.average is not None
    assert_same(dict(trainer.learner.average.state_dict()), dict(weights))
    other = new_trainer(tmp_path / "other", table).learner.network.state_dict()
    assert not torch.equal(other["branches.0.head.weight"], weights["branches.0.head.weight"])


def test_no_model_is_written_if_the_last_update_makes_the_weights_infinite(tmp_path: Path, table: Path) -> None:
    settings = ["iterations=1", "learning_rate=1e300"]
    with pytest.raises(
        InputError, match=r"run: the weights are no longer finite at iteration 1\. Start a new run with"
    ):
        train(table, tmp_path / "run", recipe=tiny_recipe(), settings=settings, device="cpu")
    run = RunFolder(tmp_path / "run")
    assert not run.model.exists()
    assert load_checkpoint(run.checkpoint, CPU)["step"] == 0


def test_seed_determines_the_result(tmp_path: Path, table: Path) -> None:
    results = []
    for number, seed in enumerate((3, 3, 4)):
        torch.manual_seed(number)
        trainer = new_trainer(tmp_path / str(number), table, "iterations=2", f"seed={seed}")
        results.append(trainer.fit(read_cases(table)).weights)
    assert_same(results[0], results[1])
    assert not torch.equal(results[0]["branches.0.head.weight"], results[2]["branches.0.head.weight"])


OPTIONAL = ("scipy", "SimpleITK", "nrrd", "slicerio", "matplotlib", "monai")
TRAIN_WITHOUT_OPTIONAL_PACKAGES = f"""
{forget_packages(*OPTIONAL)}
REFUSED = {set(OPTIONAL)}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
try:
    import scipy
    sys.exit("the hook does nothing")
except ImportError:
    pass
from dcamt.cli import main
status = main(sys.argv[1:])
assert not REFUSED & {{name.partition(".")[0] for name in sys.modules}}
sys.exit(status)
"""


def test_training_needs_no_optional_package(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")
    arguments = ["train", str(table), "--run", str(run.path), "--json", *set_options("iterations=2")]
    result = subprocess.run(
        [interpreter(), "-c", TRAIN_WITHOUT_OPTIONAL_PACKAGES, *arguments],
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


def test_mixed_precision_changes_the_weights_nearly_like_float32(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without this patch, mixed precision uses float32 on CPUs on which bfloat16 is slow.
    monkeypatch.setattr(learner, "fast_bfloat16", lambda device: True)
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


class Clock:
    """Simulates the trainer's clock, iterations and validations; nothing is computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, validation_s: float = 0.0) -> None:
        self.now = 1000.0
        self.validation_s = validation_s
        monkeypatch.setattr(trainer_module, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(trainer_module.BatchSampler, "draw", lambda *_: None)
        monkeypatch.setattr(Trainer, "iterate", self.iterate)
        monkeypatch.setattr(trainer_module, "validation_dice", self._validate)

    def iterate(self, batch: Any) -> dict[str, Tensor]:
        self.now += 1
        return {"total": torch.tensor(self.now)}

    def _validate(self, *_: Any) -> dict[str, dict[str, float]]:
        self.now += self.validation_s
        return {"mean": {"Left atrium": 0.5}}


@pytest.mark.parametrize(("every", "seconds"), [(1, 7.0), (10, 7.0), (1, 0.05), (1, 500.0)])
def test_longer_validations_are_rarer(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, every: int, seconds: float
) -> None:
    clock, received = Clock(monkeypatch, seconds), []
    began = clock.now

    def receive(event: RunEvent) -> None:
        if isinstance(event, ValidationScored):
            received.append((event.iteration, clock.now - event.seconds - began))
            assert event.seconds == pytest.approx(seconds)

    trainer = new_trainer(
        tmp_path / "run", table, "iterations=300", f"validate_every={every}", "patch=16,16,16", on_event=receive
    )
    trainer.fit(read_cases(table))
    assert received[-1][0] == 300
    assert all(step % every == 0 for step, _ in received[:-1])
    for number, (_, elapsed) in enumerate(received[1:-1], start=2):
        assert number * seconds <= 0.1 * elapsed + 1e-6
    total = clock.now - began
    if seconds == 500.0:
        assert len(received) == 2
    elif seconds == 7.0:
        assert 0.06 * total <= len(received) * seconds <= 0.1 * total
    else:
        assert len(received) > 280


@pytest.mark.parametrize(("iterations", "before_the_last"), [(30, False), (80, False), (400, True)])
def test_early_validation_is_left_out_if_two_validations_exceed_a_tenth_of_the_time(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, iterations: int, before_the_last: bool
) -> None:
    # The trainer assumes that an iteration takes as long as three passes on its batch, here two patches of 8^3 voxels.
    # A validation is one pass on a case of 24^3 voxels, so the trainer expects a validation to take as long as 24^3 /
    # (3 x 2 x 8^3) = 4.5 iterations.
    clock, received = Clock(monkeypatch, 4.5), []

    def receive(event: RunEvent) -> None:
        if isinstance(event, ValidationScored):
            received.append(event.iteration)

    settings = (f"iterations={iterations}", "validate_every=1", "patch=8,8,8", "batch=2")
    trainer = new_trainer(tmp_path / "run", table, *settings, on_event=receive)
    seconds = trainer.fit(read_cases(table)).seconds
    assert received[-1] == iterations
    assert (len(received) > 1) is before_the_last
    if before_the_last:
        assert received[0] == 45
        assert len(received) * clock.validation_s <= 0.1 * seconds


def test_resumed_run_keeps_the_time_spent_validating(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, 50.0)
    steps: list[int] = []
    settings = ("iterations=30", "validate_every=1", "patch=24,24,24")

    def receive(event: RunEvent) -> None:
        if isinstance(event, ValidationScored):
            steps.append(event.iteration)
            trainer.stop_requested = True

    trainer = new_trainer(tmp_path / "run", table, *settings, on_event=receive)
    assert not trainer.fit(read_cases(table)).finished
    trainer = new_trainer(tmp_path / "run", table, *settings, on_event=receive)
    trainer.resume()
    outcome = trainer.fit(read_cases(table), resumed=True)
    assert steps == [2, 30]
    assert outcome.seconds == pytest.approx(30 + 2 * 50)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_second_signal_does_not_interrupt_the_saving_of_a_paused_run(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[RunEvent] = []
    save = Trainer.save

    def save_during_a_signal(trainer: Trainer) -> None:
        signal.raise_signal(signal.SIGINT)
        save(trainer)

    def receive(event: RunEvent) -> None:
        received.append(event)
        if isinstance(event, TrainingProgress):
            signal.raise_signal(signal.SIGINT)

    trainer = new_trainer(tmp_path / "run", table, "iterations=1000", on_event=receive)
    monkeypatch.setattr(Trainer, "save", save_during_a_signal)
    outcome = trainer.fit(read_cases(table))
    assert received[-2:] == [CheckpointSaved(outcome.step), RunPaused(outcome.step)]
    assert load_checkpoint(trainer.run.checkpoint, CPU)["step"] == outcome.step > 0


def test_checkpoints_and_progress_events_follow_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write_cases_folder(tmp_path / "data", labelled=1)
    clock, received = Clock(monkeypatch), []
    trainer = new_trainer(
        tmp_path / "run", table, "iterations=35", "checkpoint_every_s=10", "patch=4,4,4", on_event=received.append
    )
    outcome = trainer.fit(read_cases(table))
    assert [event.iteration for event in received if isinstance(event, CheckpointSaved)] == [10, 20, 30, 35]
    progress = [event for event in received if isinstance(event, TrainingProgress)]
    assert [event.iteration for event in progress] == [*range(2, 35, 2), 35]
    for event in progress:
        assert (event.iterations, event.steps_per_s, event.eta_s) == (35, 1.0, 35 - event.iteration)
    # Each of the first three events has the mean loss of two iterations; iteration n has the loss 1000 + n.
    assert [event.losses["total"] for event in progress[:3]] == [1001.5, 1003.5, 1005.5]
    assert (outcome.seconds, outcome.dice) == (35, None)
    assert clock.now == 1035


def test_speed_and_time_left_do_not_count_validations_and_checkpoints(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, received = Clock(monkeypatch, 7.0), []

    def receive(event: RunEvent) -> None:
        received.append(event)
        if isinstance(event, CheckpointSaved):
            clock.now += 5.0  # as on a slow disk

    settings = ("iterations=300", "validate_every=50", "checkpoint_every_s=40", "patch=16,16,16")
    trainer = new_trainer(tmp_path / "run", table, *settings, on_event=receive)
    trainer.fit(read_cases(table))
    assert sum(isinstance(event, ValidationScored) for event in received) > 1
    assert sum(isinstance(event, CheckpointSaved) for event in received) > 3
    for event in received:
        if isinstance(event, TrainingProgress):
            assert (event.steps_per_s, event.eta_s) == (1.0, 300 - event.iteration)
