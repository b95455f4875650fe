"""Test the estimates of time, memory and disk space."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from dcamt.case_memory import resident_bytes
from dcamt.cases.case_list import read_cases
from dcamt.commands import estimate as estimate_command
from dcamt.commands.console import Console
from dcamt.io.readers import read_header
from dcamt.networks.dual_vnet import DualVNet
from dcamt.recipe_files import load_recipe, with_settings
from dcamt.runs.efforts import EFFORTS, QUICK, THOROUGH, effort_settings
from dcamt.runs.folder import RunFolder
from dcamt.training import estimate as estimate_module
from dcamt.training.estimate import Trial, disk_bytes, trial_patches, try_steps
from dcamt.training.resident import load_case
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import (
    CPU,
    new_trainer,
    save_tiny_model,
    set_options,
    write_cases_folder,
    write_table,
)
from dcamt_testing.tiny_recipes import tiny_recipe
from torch.utils.flop_counter import FlopCounterMode


def test_efforts_take_500_3000_and_6000_iterations() -> None:
    for name in ("la", "pancreas"):
        recipe = load_recipe(name)
        by_effort = [with_settings(recipe, effort_settings(recipe, effort)) for effort in EFFORTS]
        assert [one.training.iterations for one in by_effort] == [500, 3000, 6000]
        assert by_effort[-1] == recipe
        assert effort_settings(recipe, THOROUGH)
        assert math.prod(by_effort[0].training.patch) < 0.5 * math.prod(recipe.training.patch)
    tiny = tiny_recipe("iterations=1")
    assert with_settings(tiny, effort_settings(tiny, QUICK)).training.iterations == 1


def test_only_some_headers_of_a_long_case_list_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def read_grid(path: Path) -> SimpleNamespace:
        read.append(path)
        return SimpleNamespace(grid=path.name)

    monkeypatch.setattr(estimate_command, "read_header", read_grid)
    images = [Path(str(number)) for number in range(2 * estimate_command.MAX_HEADERS - 1)]
    grids = estimate_command._read_grids(images, Console(False))
    assert len(read) == len(set(read)) == estimate_command.MAX_HEADERS
    assert len(grids) == len(images)


def test_scans_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_cases_folder(tmp_path, labelled=1, unlabelled=1, shape=(8, 8, 8))
    images = [case.image for case in read_cases(table)]
    missing = [tmp_path / "gone.nrrd", tmp_path / "gone.mha"]
    assert len(estimate_command._read_grids([*images, *missing], Console(False))) == 2
    message = capsys.readouterr().err
    assert "2 of 4 checked scans cannot be read, so the estimate omits these scans" in message
    assert f"The first is {missing[0]}: does not exist." in message


def test_quick_effort_keeps_short_patch_axes() -> None:
    recipe = tiny_recipe("normalisation=instance", "patch=8,8,8")
    assert recipe.stride == (4, 4, 4)
    assert with_settings(recipe, effort_settings(recipe, QUICK)).training.patch == (8, 8, 8)
    short = tiny_recipe("patch=4,8,24")
    assert with_settings(short, effort_settings(short, QUICK)).training.patch == (4, 8, 16)


def test_trial_patches_grow_to_the_patch_of_the_recipe() -> None:
    recipe = load_recipe("la")
    patches = trial_patches(recipe)
    assert patches[-1] == recipe.training.patch
    assert patches[0] == (32, 32, 32)
    volumes = [math.prod(patch) for patch in patches]
    assert volumes == sorted(set(volumes))
    assert all(n % stride == 0 for patch in patches for n, stride in zip(patch, recipe.stride, strict=True))
    lowest = tiny_recipe("patch=4,4,4")
    assert trial_patches(lowest) == [(4, 4, 4)]


def test_estimated_time_of_a_step_equals_the_time_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock counts arithmetic operations, because seconds depend on the machine and on other programs."""
    table = write_cases_folder(tmp_path, labelled=1, unlabelled=1, shape=(20, 20, 20))
    with FlopCounterMode(display=False) as counter:

        def clock() -> float:
            return counter.get_total_flops() / 6e7

        monkeypatch.setattr(estimate_module, "time", SimpleNamespace(monotonic=clock))
        trainer = new_trainer(tmp_path / "run", table, "patch=16,16,16", "iterations=3")
        cost = try_steps(trainer.recipe, CPU)
        assert cost.measured == 1
        began = clock()
        trainer.fit(read_cases(table))
        assert cost.step_s == pytest.approx((clock() - began) / 3, rel=0.1)
    assert cost.step_s > 0.1


def test_cost_is_extrapolated_from_a_smaller_patch_when_time_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe("patch=32,32,32")
    whole = math.prod(recipe.training.patch)
    fractions: list[float] = []

    def pretend_cost(trainer: object, recipe: object, patch: tuple[int, ...], device: object) -> tuple[float, int]:
        fractions.append(math.prod(patch) / whole)
        return 2 + 8 * fractions[-1], round((100 + 800 * fractions[-1]) * 1e6)

    monkeypatch.setattr(estimate_module, "_measure", pretend_cost)
    monkeypatch.setattr(estimate_module, "memory_held", lambda device: 100e6)
    monkeypatch.setattr(estimate_module, "BUDGET_S", 20)
    cost = try_steps(recipe, CPU)
    assert fractions == [1 / 64]
    assert cost.step_s > 10
    assert cost.memory_bytes == pytest.approx(900e6)
    monkeypatch.setattr(estimate_module, "BUDGET_S", 70)
    cost = try_steps(recipe, CPU)
    assert fractions[1:] == [1 / 64, 1 / 8]
    assert cost.measured == 1 / 8
    assert cost.step_s == pytest.approx(10)
    assert cost.memory_bytes == pytest.approx(900e6)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's malloc_trim")
def test_memory_extrapolated_from_a_smaller_patch_is_about_the_measured_memory(tmp_path: Path) -> None:
    """A child process measures the memory, because earlier tests may have raised the peak of this process."""
    file = tmp_path / "recipe.json"
    recipe = tiny_recipe("channels=8,8,8,8,8", "convolutions=1,1,1,1,1", "patch=64,64,64")
    file.write_text(recipe.to_json(), encoding="utf-8")
    program = """
import sys
import torch
from dcamt.machine import keep_freed_memory
from dcamt.recipe_files import load_recipe
from dcamt.training import estimate
keep_freed_memory()
recipe = load_recipe(sys.argv[1])
measured = []
for estimate.BUDGET_S in (0, float("inf")):
    trial = estimate.try_steps(recipe, torch.device("cpu"), measured)
    print(trial.measured, trial.memory_bytes)
"""
    command = [sys.executable, "-c", program, str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    fraction, estimated, whole, taken = map(float, done.stdout.split())
    assert (fraction, whole) == (1 / 8, 1)
    assert 0.9 * taken < estimated < 1.5 * taken


def test_memory_of_each_effort_does_not_depend_on_the_efforts_measured_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulated step takes 1 ms and 100 kB per voxel. The peak memory never falls, as in a real process."""
    peak = [0]

    def pretend_cost(trainer: object, recipe: object, patch: tuple[int, ...], device: object) -> tuple[float, int]:
        peak[0] = max(peak[0], 100_000 * math.prod(patch))
        return math.prod(patch) / 1000, peak[0]

    monkeypatch.setattr(estimate_module, "_measure", pretend_cost)
    monkeypatch.setattr(estimate_module, "BUDGET_S", 50)
    estimates: list[dict[str, Any]] = []
    monkeypatch.setattr(Console, "print_event", lambda self, event, **fields: estimates.append(fields))
    table = write_cases_folder(tmp_path, labelled=1, unlabelled=1, shape=(8, 8, 8))
    own = tmp_path / "own.json"
    own.write_text(tiny_recipe("patch=32,32,32").to_json(), encoding="utf-8")
    efforts = [part for effort in (THOROUGH, QUICK) for part in ("--effort", effort)]
    for chosen in ([], efforts):
        peak[0] = 0
        estimates.clear()
        assert call_dcamt(["estimate", table, "--device", "cpu", "--recipe", own, *chosen]) == 0
        by_effort = {event["effort"]: event for event in estimates}
        assert by_effort[QUICK]["measured"] == 1
        assert by_effort[THOROUGH]["measured"] < 1
        assert by_effort[QUICK]["memory_bytes"] == pytest.approx(100_000 * 20**3, rel=0.01)
        assert by_effort[THOROUGH]["memory_bytes"] == pytest.approx(100_000 * 32**3, rel=0.01)
        assert by_effort[THOROUGH]["step_s"] == pytest.approx(32**3 / 1000)


def test_slow_first_steps_do_not_change_the_estimated_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = iter([40.0, 40.0])
    monkeypatch.setattr(estimate_module, "_measure", lambda *arguments: (next(slow, 0.6), 10**8))
    monkeypatch.setattr(estimate_module, "BUDGET_S", math.inf)
    estimates: list[dict[str, Any]] = []
    monkeypatch.setattr(Console, "print_event", lambda self, event, **fields: estimates.append(fields))
    table = write_cases_folder(tmp_path, labelled=1, unlabelled=1, shape=(8, 8, 8))
    own = tmp_path / "own.json"
    own.write_text(tiny_recipe("patch=32,32,32", "iterations=60").to_json(), encoding="utf-8")
    assert call_dcamt(["estimate", table, "--device", "cpu", "--recipe", own]) == 0
    assert [event["effort"] for event in estimates] == list(EFFORTS)
    seconds = [event["seconds"] for event in estimates]
    assert seconds == sorted(seconds)
    assert [event["step_s"] for event in estimates] == [0.6] * 3


def test_run_fits_the_estimated_disk_space_and_its_cases_take_about_the_estimated_memory(tmp_path: Path) -> None:
    table = write_cases_folder(tmp_path, labelled=2, unlabelled=1, validation=1, shape=(24, 20, 16), spacing_mm=1.5)
    recipe = tiny_recipe("channels=16,32,64")
    grids = [read_header(case.image).grid for case in read_cases(table)]
    held = [load_case(case, recipe, CPU) for case in read_cases(table)]
    exact = sum(case.image.numel() + (0 if case.label is None else case.label.numel()) for case in held)
    assert exact <= resident_bytes(recipe, grids) * 1.2
    assert resident_bytes(recipe, grids) < 1.5 * exact
    run = RunFolder(tmp_path / "run")
    arguments = ["train", str(table), "--run", str(run.path), *set_options("channels=16,32,64", "validate_every=1")]
    assert call_dcamt(arguments) == 0
    taken = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    # While a checkpoint is written, the previous one still exists.
    assert taken + run.checkpoint.stat().st_size < disk_bytes(recipe, validated=True)
    assert disk_bytes(recipe, validated=True) - (4 << 20) < 3 * taken  # 4 MiB are for events


def test_free_memory_is_read_before_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may keep the trial's memory until the process ends; for a later run, this memory is free again."""
    taken: list[int] = []
    real = estimate_module.try_steps

    def record_trial(*arguments: Any) -> Trial:
        taken.append(6)
        return real(*arguments)

    monkeypatch.setattr(estimate_module, "try_steps", record_trial)
    monkeypatch.setattr(estimate_module, "free_memory_bytes", lambda: 10 - sum(taken))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 - sum(taken), 24))
    assert estimate_module.available_memory(torch.device("cuda")) == 20
    received: list[dict[str, Any]] = []
    monkeypatch.setattr(Console, "print_event", lambda self, event, **fields: received.append(fields))
    table = write_cases_folder(tmp_path, labelled=1, unlabelled=1)
    assert call_dcamt(["estimate", table, "--device", "cpu", *set_options("iterations=60")]) == 0
    assert taken
    assert [event["memory_free"] for event in received] == [10] * len(EFFORTS)


def test_cases_left_out_need_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate_module, "try_steps", lambda *arguments: Trial(1.0, 10**8, 1.0))
    estimates: list[dict[str, Any]] = []
    monkeypatch.setattr(Console, "print_event", lambda self, event, **fields: estimates.append(fields))
    table = write_cases_folder(tmp_path, labelled=1, unlabelled=2)
    lines = table.read_text(encoding="utf-8").splitlines()
    fewer = table.with_name("fewer.csv")
    for path, last in ((table, lines[-1].removesuffix("unlabelled") + "left out"), (fewer, "")):
        path.write_text("\n".join([*lines[:-1], last]), encoding="utf-8")
        assert call_dcamt(["estimate", path, "--device", "cpu", "--effort", QUICK]) == 0
    left_out, removed = [event["memory_bytes"] for event in estimates]
    assert left_out == removed > 10**8


def test_command_prints_the_estimate_of_each_effort(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = write_cases_folder(tmp_path, labelled=1, unlabelled=1)
    run = tmp_path / "not" / "there"
    arguments = ["estimate", table, "--device", "cpu", "--run", run, *set_options("iterations=60")]
    assert call_dcamt([*arguments, "--json"]) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(event["effort"], event["iterations"]) for event in events] == list(zip(EFFORTS, (5, 30, 60), strict=True))
    assert all(event["seconds"] == event["step_s"] * event["iterations"] for event in events)
    assert all(event["disk_free"] > 0 for event in events)
    assert not (tmp_path / "not").exists()
    assert call_dcamt([*arguments, "--effort", QUICK]) == 0
    assert capfd.readouterr().out.startswith("quick")


def test_settings_that_contradict_the_start_model_are_refused_as_in_training(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = write_cases_folder(tmp_path, labelled=1)
    shipped = Path(__file__).resolve().parents[2] / "Resources" / "Models" / "left-atrium.dcamt"
    settings = ["--start-from", shipped, "--device", "cpu", "--set", "embedding=8"]
    assert call_dcamt(["train", table, "--run", tmp_path / "run", *settings]) == 1
    in_training = capfd.readouterr().err
    assert call_dcamt(["estimate", table, *settings]) == 1
    assert capfd.readouterr().err == in_training
    assert "embedding is 32 in the model, but 8 in the recipe" in in_training


def test_effort_changes_stated_iterations_but_no_other_stated_setting(tmp_path: Path) -> None:
    table = write_cases_folder(tmp_path / "data", labelled=1)
    run = RunFolder(tmp_path / "run")
    (tmp_path / "own.json").write_text(tiny_recipe().to_json(), encoding="utf-8")
    arguments = ["train", table, "--run", run.path, "--recipe", tmp_path / "own.json", "--device", "cpu"]
    settings = set_options("iterations=24", "training.patch=24,24,24", "validate_every=2")
    assert call_dcamt([*arguments, "--effort", QUICK, *settings]) == 0
    training = run.open()[0].training
    assert (training.iterations, training.patch, training.validate_every) == (2, (24, 24, 24), 2)


def test_effort_sets_the_iterations_of_a_new_run_and_is_refused_on_resume(tmp_path: Path) -> None:
    table = write_cases_folder(tmp_path / "data", labelled=1)
    run = RunFolder(tmp_path / "run")
    recipe = replace(tiny_recipe(), training=replace(tiny_recipe().training, iterations=24))
    (tmp_path / "own.json").write_text(recipe.to_json(), encoding="utf-8")
    arguments = ["train", table, "--run", run.path, "--recipe", tmp_path / "own.json", "--device", "cpu"]
    assert call_dcamt([*arguments, "--effort", QUICK]) == 0
    assert run.open()[0].training.iterations == 2
    assert call_dcamt(["train", "--run", run.path, "--resume", "--effort", QUICK]) == 2


def test_validation_adds_the_old_and_the_new_best_checkpoint_to_the_disk_space() -> None:
    """A new `best.pt` is written before the old one is removed."""
    recipe = tiny_recipe()
    weights = 4 * sum(tensor.numel() for tensor in DualVNet(recipe).state_dict().values())
    assert disk_bytes(recipe, validated=True) - disk_bytes(recipe, validated=False) == 2 * weights


def test_cases_and_recipes_that_training_refuses_are_refused_before_a_step_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a step was measured")

    monkeypatch.setattr(estimate_module, "try_steps", fail)
    model = save_tiny_model(tmp_path / "tiny.dcamt", tiny_recipe("labelled_per_batch=2"))
    used = write_cases_folder(tmp_path / "used", labelled=1, unlabelled=1)
    unlabelled = write_cases_folder(tmp_path / "unlabelled", labelled=0, unlabelled=1)
    for table, part in ((used, "Set batch to 4, or leave"), (unlabelled, "o case is labelled")):
        chosen = [table, "--start-from", model]
        for command in (["estimate"], ["cases", "check"], ["train", "--run", tmp_path / "run"]):
            assert call_dcamt([*command, *chosen]) == 1
            assert part in capsys.readouterr().err, command
        assert not (tmp_path / "run").exists()
    assert call_dcamt(["cases", "check", used, "--start-from", model, "--set", "batch=4"]) == 0


@pytest.mark.parametrize(
    ("row", "settings", "part"),
    [
        (("b", "labelled1.nii.gz", "shifted.nii.gz", "labelled"), (), "different grid"),
        (("b", "labelled1.nii.gz", "shifted.nii.gz", "validation"), (), "different grid"),
        (("b", "labelled1.nii.gz", "none.nii.gz", "labelled"), (), "not exist"),
        (("b", "none.nii.gz", "labelled1_label.nii.gz", "labelled"), (), "not exist"),
        (("b", "labelled1.nii.gz", "", "labelled"), (), "no label"),
        (("b", "cases.csv", "", "unlabelled"), (), "cases.csv"),
        (("b", "labelled1.nii.gz", "", "unlabelled"), ("input_channels=2",), "channel"),
    ],
)
def test_estimate_check_and_training_refuse_an_unusable_case(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    row: tuple[str, ...],
    settings: tuple[str, ...],
    part: str,
) -> None:
    monkeypatch.setattr(estimate_module, "try_steps", lambda *_: pytest.fail("a step was measured"))
    write_cases_folder(tmp_path, labelled=2)
    shifted = nibabel.load(tmp_path / "labelled1_label.nii.gz")
    affine = shifted.affine + np.outer((1, 0, 0, 0), (0, 0, 0, 50))
    nibabel.save(nibabel.Nifti1Image(np.asarray(shifted.dataobj), affine), tmp_path / "shifted.nii.gz")
    table = write_table(tmp_path / "cases.csv", [("a", "labelled0.nii.gz", "labelled0_label.nii.gz", "labelled"), row])
    for command in (["estimate"], ["cases", "check"], ["train", "--run", tmp_path / "run"]):
        assert call_dcamt([*command, table, *set_options(*settings)]) == 1, command
        printed = capsys.readouterr()
        assert part in printed.out + printed.err, command


def test_missing_scans_of_a_scene_are_named_but_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimate_module, "try_steps", lambda *arguments: Trial(1.0, 10**8, 1.0))
    table = write_table(tmp_path / "cases.csv", [("a", "vtkMRMLScalarVolumeNode1", "", "labelled")])
    assert call_dcamt(["estimate", table, "--scene", "--device", "cpu", *set_options()]) == 0
    assert "1 of 1 checked scans cannot be read" in capsys.readouterr().err
