"""A validation averages Dice over cases, uses tiles for large scans, and is cancelled by a pause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dcamt.cases.case_list import VALIDATION, read_cases
from dcamt.inference import tiling
from dcamt.networks.dual_vnet import DualVNet
from dcamt.recipe import Recipe
from dcamt.runs.events import CasesValidating, RunEvent, ValidationScored
from dcamt.runs.folder import RunFolder
from dcamt.runs.requests import PAUSE, remove_request, write_request
from dcamt.training import trainer as trainer_module
from dcamt.training import validation
from dcamt.training.resident import ResidentCase, load_case
from dcamt.training.trainer import Trainer
from dcamt.training.validation import validation_dice
from dcamt_testing.synthetic import CPU, new_trainer, resident, write_cases_folder
from dcamt_testing.tiny_recipes import tiny_recipe
from torch import Tensor


def test_validation_dice_is_the_mean_over_cases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    info = tiny_recipe().classes[0]
    recipe = replace(tiny_recipe(), classes=(info, replace(info, label=2, name="Scar")))
    label = np.zeros((4, 4, 4), np.uint8)
    label[:2] = 1  # 32 voxels
    other = label.copy()
    other[3] = 2  # 16 voxels
    cases = [resident(label * 100, label), resident(other * 100, other)]
    class_a = np.ones((4, 4, 4), int)
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
    assert dice["A"] == pytest.approx({info.name: a1, "Scar": 0.0})
    # Branch B predicts Scar in both cases. The first case's label contains no Scar: Dice 0.
    assert dice["B"] == pytest.approx({info.name: b1, "Scar": (0.0 + 1.0) / 2})
    # "mean" is the Dice of the mean of both branches' probabilities. Branch A gives its class the probability 0.93, and
    # branch B gives its class only 0.8, so the mean is highest for branch A's class in every voxel.
    assert dice["mean"] == pytest.approx(dice["A"])
    without_scar_label = validation_dice(network, cases[:1], recipe)
    assert without_scar_label is not None
    assert [list(without_scar_label[key]) for key in ("A", "B", "mean")] == [[info.name]] * 3
    assert validation_dice(network, [resident(label * 100, label * 0)], recipe) is None
    assert network.training


def record_calls(function: Callable[..., Tensor], name: str, calls: list[str]) -> Callable[..., Tensor]:
    def call(network: DualVNet, *arguments: Any) -> Tensor:
        assert not network.training
        calls.append(name)
        return function(network, *arguments)

    return call


def partly_right_network(recipe: Recipe, case: ResidentCase) -> DualVNet:
    """Return a network; each branch labels half of the voxels of `case` as class 1."""
    torch.manual_seed(0)
    network = DualVNet(recipe).eval()
    with torch.no_grad():
        outputs = network(case.intensities(recipe.intensity)[None])
        for branch, output in zip(network.branches, outputs, strict=True):
            branch.head.bias[1] -= (output.logits[:, 1] - output.logits[:, 0]).median()  # type: ignore[union-attr, index]
    return network.train()


def test_validation_uses_tiles_for_a_scan_too_large_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, table = tiny_recipe(), write_cases_folder(tmp_path, labelled=1, validation=1, shape=(24, 12, 12))
    validation_cases = [load_case(case, recipe, CPU) for case in read_cases(table) if case.role == "validation"]
    network = partly_right_network(recipe, validation_cases[0])
    passes: list[str] = []
    for name in ("predict_whole", "predict_tiled"):
        monkeypatch.setattr(tiling, name, record_calls(getattr(tiling, name), name, passes))
    expected = validation_dice(network, validation_cases, recipe)
    assert expected is not None
    assert 0.05 < expected["mean"]["Left atrium"] < 0.9
    assert network.training
    monkeypatch.setattr(tiling, "usable_memory", lambda device: 1)
    assert validation_dice(network, validation_cases, recipe) == expected
    assert network.training
    assert passes == ["predict_whole", "predict_tiled"]


def test_long_validation_reports_its_progress_before_each_case(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[RunEvent] = []
    trainer = new_trainer(tmp_path / "run", table, "iterations=1", on_event=received.append)
    monkeypatch.setattr(trainer_module, "VALIDATING_EVERY_S", 0.0)
    cases = read_cases(table)
    cases += [replace(case, name=f"{case.name} again") for case in cases if case.role == VALIDATION]
    trainer.fit(cases)
    reported = [event for event in received if isinstance(event, CasesValidating | ValidationScored)]
    assert reported[:-1] == [CasesValidating(1, 0, 2), CasesValidating(1, 1, 2)]
    assert isinstance(reported[-1], ValidationScored)


def test_pause_request_cancels_a_validation(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    # A request during the prediction of the first case can cancel the validation only if there is a second case.
    cases += [replace(case, name=f"{case.name} again") for case in cases if case.role == VALIDATION]
    outcome = trainer.fit(cases)
    assert (outcome.finished, outcome.step, predicted_at) == (False, 2, [2])
    assert not any(isinstance(event, ValidationScored) for event in received)
    assert trainer.learner.network.training
    remove_request(RunFolder(tmp_path / "run"))
    trainer = new_trainer(tmp_path / "run", table, "iterations=4", "validate_every=2")
    trainer.resume()
    # A request does not cancel the final validation.
    outcome = trainer.fit(cases, resumed=True)
    assert outcome.finished
    assert outcome.dice is not None
    assert predicted_at == [2, 4, 4]
