"""After a signal, kill, full disk or failed validation, a resumed run gives the result of an uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from dcamt.cases.case_list import read_cases
from dcamt.errors import InputError, OutputError
from dcamt.io import atomic
from dcamt.networks.packaging import save_model, verify_model
from dcamt.runs.events import EventLog
from dcamt.runs.folder import RunFolder
from dcamt.training import trainer as trainer_module
from dcamt.training.checkpoint import load_checkpoint
from dcamt.training.trainer import Trainer, TrainingResult
from dcamt_testing.processes import HANGING_S, call_dcamt, run_dcamt, start_dcamt, wait_until
from dcamt_testing.synthetic import CPU, assert_same, new_trainer, train_arguments
from dcamt_testing.tiny_recipes import tiny_recipe
from torch import Tensor

needs_signals = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

STEPS = 24
FULL = (f"iterations={STEPS}", "weight_average=0.95", "checkpoint_every_s=0.000001", "validate_every=5")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, table: Path) -> RunFolder:
    folder = tmp_path_factory.mktemp("reference")
    run = RunFolder(folder / "run")
    assert run_dcamt(train_arguments(table, run, *FULL), folder / "output") == 0, (folder / "output").read_text(
        encoding="utf-8"
    )
    return run


def resume_arguments(run: RunFolder) -> list[str]:
    return ["train", "--run", str(run.path), "--device", "cpu", "--resume"]


def assert_same_result(run: RunFolder, reference: RunFolder) -> None:
    states = [load_checkpoint(each.checkpoint, CPU) for each in (run, reference)]
    for state in states:
        assert state["step"] == STEPS
        assert state["average"] is not None
        assert state["optimiser"]["state"]  # includes the momentum
        for clock in ("seconds", "seconds_validating"):
            del state[clock]
    assert_same(*states)
    models = [verify_model(each.model) for each in (run, reference)]
    assert_same(*({name: torch.from_numpy(w.copy()) for name, w in m.weights.items()} for m in models))
    cards = [replace(m.card, name="", checksum="", trained_on={}) for m in models]
    assert cards[0] == cards[1]
    assert cards[0].measured


# This script ends the process as abruptly as SIGKILL does. At iteration `last` the script loops until the process ends,
# so that the run cannot finish.
KILLED = """
import signal
from dcamt.training.trainer import Trainer
iterate, running = Trainer.iterate, []
def iterate_until_killed(trainer, batch):
    if trainer.step >= {goal} and not running:
        running.append(signal.setitimer(signal.ITIMER_PROF, {seconds}))
    while trainer.step == {last}:
        pass
    return iterate(trainer, batch)
Trainer.iterate = iterate_until_killed
"""

# This script waits for a signal before the sixth iteration.
HELD = """
import time
from dcamt.training.trainer import Trainer
iterate = Trainer.iterate
def iterate_after_signal(trainer, batch):
    while trainer.step == 5 and not trainer.stop_requested:
        time.sleep(0.01)
    return iterate(trainer, batch)
Trainer.iterate = iterate_after_signal
"""


@needs_signals
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_and_resumed_run_equals_an_uninterrupted_run(
    tmp_path: Path, table: Path, uninterrupted: RunFolder, seed: int
) -> None:
    run, draw = RunFolder(tmp_path / "run"), random.Random(seed)
    arguments, reached = train_arguments(table, run, *FULL), -1
    for goal in (0, 4, 9):
        # The signal comes at a random time: during an iteration, or while a checkpoint is written.
        script = KILLED.format(goal=goal, seconds=draw.uniform(0.001, 0.2), last=STEPS - 1)
        process = start_dcamt(arguments, tmp_path / "output", script)
        assert process.wait(HANGING_S) == -signal.SIGPROF, (tmp_path / "output").read_text(encoding="utf-8")
        step = load_checkpoint(run.checkpoint, CPU)["step"]
        assert step >= max(reached, goal)
        assert not run.model.exists()
        reached, arguments = step, resume_arguments(run)
    assert run_dcamt(arguments, tmp_path / "output") == 0, (tmp_path / "output").read_text(encoding="utf-8")
    assert_same_result(run, uninterrupted)
    started = [event for event in run.read_events() if event.kind == "started"]
    assert [event.resumed for event in started][-1] is True
    assert started[-1].iteration == reached


@needs_signals
def test_reference_run_uses_all_losses_and_averaged_weights(uninterrupted: RunFolder) -> None:
    """If the reference run lacked a loss or the averaged weights, a comparison with it would prove little."""
    events = uninterrupted.read_events()
    parts = {name for event in events if event.kind == "progress" for name in event.losses}  # type: ignore[union-attr]
    assert parts == {"supervised", "distillation", "mmd", "intra_class", "inter_class", "total"}
    started = next(event for event in events if event.kind == "started")
    assert (started.labelled, started.unlabelled, started.validation) == (2, 2, 1)
    state = load_checkpoint(uninterrupted.checkpoint, CPU)
    assert not torch.equal(state["network"]["branches.0.head.weight"], state["average"]["branches.0.head.weight"])
    model = verify_model(uninterrupted.model)
    assert np.array_equal(model.weights["branches.0.head.bias"], state["average"]["branches.0.head.bias"].numpy())
    assert [event.kind for event in events][-2:] == ["checkpoint", "finished"]


@needs_signals
def test_sigterm_pauses_the_run_and_resume_continues_it(tmp_path: Path, table: Path, uninterrupted: RunFolder) -> None:
    run, output = RunFolder(tmp_path / "run"), tmp_path / "output"
    process = start_dcamt(train_arguments(table, run, *FULL), output, HELD)
    wait_until(
        lambda: (
            process.poll() is not None or any(e.kind == "checkpoint" and e.iteration == 5 for e in run.read_events())
        )
    )
    process.terminate()
    assert process.wait(HANGING_S) == 1
    events = run.read_events()
    step = events[-1].iteration
    assert [event.kind for event in events[-2:]] == ["checkpoint", "paused"]
    assert events[-2].iteration == step == load_checkpoint(run.checkpoint, CPU)["step"] == 6
    messages = [line for line in output.read_text(encoding="utf-8").splitlines() if "paused" in line]
    assert len(messages) == 1
    assert messages[0].startswith(f"dcamt: {run.path}: paused at iteration {step}. Continue with: dcamt train")
    assert "Traceback" not in output.read_text(encoding="utf-8")
    assert not run.model.exists()
    assert run_dcamt(resume_arguments(run), output) == 0, output.read_text(encoding="utf-8")
    assert_same_result(run, uninterrupted)


@pytest.fixture
def restored_sighup() -> Iterator[None]:
    """Give SIGHUP its default action during a test, even under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send_signal_at(trainer: trainer_module.Trainer, number: int, steps: Sequence[int]) -> None:
    """Make a trainer send the signal `number` to this process when an iteration begins at one of `steps`."""
    iterate = trainer.iterate

    def send_signal_and_iterate(batch: Any) -> dict[str, Tensor]:
        if trainer.step in steps:
            os.kill(os.getpid(), number)
        return iterate(batch)

    trainer.iterate = send_signal_and_iterate  # type: ignore[method-assign]


@needs_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)])
def test_signal_pauses_the_run_after_the_current_iteration(
    tmp_path: Path, table: Path, number: signal.Signals, restored_sighup: None
) -> None:
    before = signal.getsignal(number)
    trainer = new_trainer(tmp_path / "run", table, "iterations=50")
    send_signal_at(trainer, number, [2])
    outcome = trainer.fit(read_cases(table))
    assert (outcome.finished, outcome.step, outcome.dice) == (False, 3, None)
    assert load_checkpoint(trainer.run.checkpoint, CPU)["step"] == 3
    assert signal.getsignal(number) == before


@needs_signals
def test_ignored_sighup_does_not_pause_the_run(tmp_path: Path, table: Path, restored_sighup: None) -> None:
    """Under `nohup`, a run goes on when the terminal is closed."""
    trainer = new_trainer(tmp_path / "run", table, "iterations=2")
    send_signal_at(trainer, signal.SIGHUP, [0, 1])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert trainer.fit(read_cases(table)).finished


@needs_signals
def test_fit_keeps_an_existing_sighup_handler(tmp_path: Path, table: Path, restored_sighup: None) -> None:
    trainer = new_trainer(tmp_path / "run", table, "iterations=2")
    send_signal_at(trainer, signal.SIGHUP, [0, 1])
    received: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, frame: received.append(number))
    assert trainer.fit(read_cases(table)).finished
    assert received == [signal.SIGHUP] * 2


def test_full_disk_loses_only_iterations_after_the_last_checkpoint(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("iterations=6", "checkpoint_every_s=0.000001", "weight_average=0.9")
    whole = new_trainer(tmp_path / "whole", table, *settings).fit(read_cases(table))
    trainer = new_trainer(tmp_path / "run", table, *settings)
    real, calls = os.replace, []

    def replace_until_full(source: Path, target: Path) -> None:
        calls.extend([target] if Path(target).name == "last.pt" else [])
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(atomic.os, "replace", replace_until_full)
    with pytest.raises(OutputError, match=r"last\.pt: the disk is full"):
        trainer.fit(read_cases(table))
    monkeypatch.undo()
    assert os.listdir(trainer.run.checkpoint.parent) == ["last.pt"]
    resumed = new_trainer(tmp_path / "run", table, *settings)
    resumed.resume()
    assert resumed.step == 3
    assert_same(resumed.fit(read_cases(table), resumed=True).weights, whole.weights)


def test_non_finite_loss_ends_the_run_and_keeps_the_checkpoint(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")
    settings = ("iterations=40", "learning_rate=1e18", "checkpoint_every_s=0.000001")
    assert run_dcamt(train_arguments(table, run, *settings), tmp_path / "output") == 1
    assert "no longer finite" in (tmp_path / "output").read_text(encoding="utf-8")
    state = load_checkpoint(run.checkpoint, CPU)
    assert state["step"] < 40
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())


def test_checkpoint_of_another_recipe_is_refused(tmp_path: Path, table: Path) -> None:
    new_trainer(tmp_path / "run", table).save()
    for settings in (("channels=4,4,8",), ("weight_average=0.9",), ("attention_heads=0",)):
        with pytest.raises(
            InputError, match=r"last\.pt: the checkpoint does not belong to this run's recipe\. If rec.*"
        ):
            new_trainer(tmp_path / "run", table, *settings).resume()
    torch.save({"step": 3}, tmp_path / "run" / "checkpoints" / "last.pt")
    with pytest.raises(InputError, match="does not belong to this run's recipe"):
        new_trainer(tmp_path / "run", table).resume()


def test_checkpoint_with_another_number_of_attention_heads_is_refused(tmp_path: Path, table: Path) -> None:
    """The weights have the same shapes, but another meaning."""
    new_trainer(tmp_path / "run", table, "attention_heads=4").save()
    with pytest.raises(InputError, match=r"last\.pt: the checkpoint does not belong to this run's recipe"):
        new_trainer(tmp_path / "run", table, "attention_heads=2").resume()
    new_trainer(tmp_path / "run", table, "attention_heads=4", "strides=[2,2,2],[2,2,2]").resume()


@pytest.mark.parametrize("setting", ["spacing=1,1,2", "radius_mm=9"])
def test_checkpoint_is_refused_after_spacing_or_radius_was_edited(tmp_path: Path, table: Path, setting: str) -> None:
    """If the run resumed, `best.dcamt` could hold weights of the old recipe together with the edited recipe."""
    new_trainer(tmp_path / "run", table).save()
    with pytest.raises(InputError, match=r"last\.pt: the checkpoint does not belong to this run's recipe"):
        new_trainer(tmp_path / "run", table, setting).resume()
    new_trainer(tmp_path / "run", table).resume()


def test_checkpoint_is_refused_after_the_order_of_the_classes_was_edited(tmp_path: Path) -> None:
    def trainer_of(*names: str) -> Trainer:
        recipe = tiny_recipe()
        classes = [replace(recipe.classes[0], label=label, name=name) for label, name in enumerate(names, start=1)]
        return Trainer(replace(recipe, classes=tuple(classes)), RunFolder(tmp_path), CPU, EventLog(None))

    trainer_of("Left atrium", "Aorta").save()
    with pytest.raises(InputError, match=r"last\.pt: the checkpoint does not belong to this run's recipe"):
        trainer_of("Aorta", "Left atrium").resume()
    for names in (("left atrium", "Aorta"), ("Left atrium", "Wall")):
        trainer_of(*names).resume()


def test_checkpoint_of_an_earlier_version_loads(tmp_path: Path, table: Path) -> None:
    trainer = new_trainer(tmp_path / "run", table)
    trainer.save()
    state = load_checkpoint(trainer.run.checkpoint, CPU)
    del state["shape"], state["scan_settings"], state["class_names"]  # Earlier versions did not save these entries.
    torch.save(state, trainer.run.checkpoint)
    new_trainer(tmp_path / "run", table).resume()


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_weight_decay_edited_in_the_recipe_applies_to_the_resumed_run(
    tmp_path: Path, table: Path, optimiser: str
) -> None:
    settings = (f"optimiser={optimiser}", "iterations=2")
    new_trainer(tmp_path / "run", table, *settings, "weight_decay=0.1").save()
    resumed = new_trainer(tmp_path / "run", table, *settings, "weight_decay=0.001")
    resumed.resume()
    assert [group["weight_decay"] for group in resumed.learner.optimiser.param_groups] == [0.001]


@pytest.mark.parametrize(("before", "after"), [("sgd", "adamw"), ("adamw", "sgd")])
def test_checkpoint_of_another_optimiser_is_refused(tmp_path: Path, table: Path, before: str, after: str) -> None:
    trainer = new_trainer(tmp_path / "run", table, f"optimiser={before}", "iterations=1")
    trainer.fit(read_cases(table))
    with pytest.raises(InputError, match=r"last\.pt: the checkpoint does not belong to this run's recipe"):
        new_trainer(tmp_path / "run", table, f"optimiser={after}", "iterations=2").resume()


def test_out_of_memory_error_on_resume_is_raised_unchanged(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer(tmp_path / "run", table)
    trainer.save()

    def fail(_state: object) -> NoReturn:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(trainer.learner, "load_state", fail)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.resume()


def test_resuming_after_the_last_iteration_gives_the_same_result(tmp_path: Path, table: Path) -> None:
    first = new_trainer(tmp_path / "run", table, "iterations=3").fit(read_cases(table))
    again = new_trainer(tmp_path / "run", table, "iterations=3")
    again.resume()
    outcome = again.fit(read_cases(table), resumed=True)
    assert outcome.finished
    assert first.dice is not None
    assert outcome.dice == first.dice
    assert_same(outcome.weights, first.weights)


@pytest.mark.parametrize("saved_with", [True, False])
@pytest.mark.parametrize("resumed_with", [True, False])
def test_checkpoint_loads_with_and_without_gradient_scaling(
    tmp_path: Path, table: Path, saved_with: bool, resumed_with: bool
) -> None:
    first, second = new_trainer(tmp_path / "run", table), new_trainer(tmp_path / "run", table)
    first.learner.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=saved_with)
    second.learner.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, enabled=resumed_with)
    first.step = 4
    first.save()
    second.resume()
    assert second.step == 4
    assert second.learner.scaler.is_enabled() is resumed_with
    if resumed_with:
        assert second.learner.scaler.get_scale() == (1024.0 if saved_with else 64.0)


@pytest.mark.parametrize("settings", [(), ("checkpoint_every_s=0.000001", "validate_every=4")])
def test_run_can_be_resumed_when_a_validation_failed(
    tmp_path: Path, table: Path, settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If `settings` is empty, the final validation fails; otherwise, the validation after iteration 4 fails."""
    monkeypatch.setattr(trainer_module, "VALIDATION_FRACTION", 1e9)  # validations are never skipped for lack of time
    whole = new_trainer(tmp_path / "whole", table, "iterations=6", *settings).fit(read_cases(table))

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as failing:
        failing.setattr(trainer_module, "validation_dice", fail)
        with pytest.raises(torch.OutOfMemoryError):
            new_trainer(tmp_path / "run", table, "iterations=6", *settings).fit(read_cases(table))
    resumed = new_trainer(tmp_path / "run", table, "iterations=6", *settings)
    resumed.resume()
    assert resumed.step == (4 if settings else 6)
    outcome = resumed.fit(read_cases(table), resumed=True)
    assert_same(outcome.weights, whole.weights)
    assert outcome.dice == whole.dice


def test_best_model_that_could_not_be_written_is_written_when_the_run_is_resumed(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")

    def first_state(trainer: trainer_module.Trainer) -> TrainingResult:
        return TrainingResult(dict(trainer.learner.model.state_dict()), 1, 1.0, False, {"mean": {"Left atrium": 0.9}})

    monkeypatch.setattr(trainer_module.Trainer, "best", first_state)

    def save_except_best(path: Path, *parts: Any) -> None:
        if path == run.best:
            raise OutputError("there is no space left", path=path)
        save_model(path, *parts)

    with monkeypatch.context() as failing:
        failing.setattr("dcamt.networks.packaging.save_model", save_except_best)
        assert call_dcamt(train_arguments(table, run, "iterations=2")) == 1
    assert call_dcamt(resume_arguments(run)) == 0
    assert run.best.exists()
    assert run.model.exists()


@pytest.mark.parametrize("content", [b"", "other"])
def test_run_with_a_damaged_best_checkpoint_resumes_after_the_file_is_removed(
    tmp_path: Path, table: Path, content: bytes | str, capfd: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    assert call_dcamt(train_arguments(table, run, "iterations=2")) == 0
    run.model.unlink()
    run.events.unlink()
    if isinstance(content, bytes):
        run.best_weights.write_bytes(content)
    else:
        torch.save({content: 1}, run.best_weights)
    capfd.readouterr()
    assert call_dcamt(resume_arguments(run)) == 1
    message = "the checkpoint is damaged. Remove this file and resume the run; only the best model so far is lost."
    assert f"{run.best_weights}: {message}" in capfd.readouterr().err
    assert not run.model.exists()
    run.best_weights.unlink()
    assert call_dcamt(resume_arguments(run)) == 0
    assert run.model.exists()
