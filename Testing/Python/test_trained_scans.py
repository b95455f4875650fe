"""A run refuses validation cases on whose scans it has trained; a later run that starts from its model notes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import SimpleITK
import torch
from dcamt.recipe_files import load_recipe, with_settings
from dcamt.runs.folder import RunFolder
from dcamt.training.checkpoint import load_checkpoint, save_checkpoint
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import train_arguments, write_cases_folder, write_table


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_cases_folder(tmp_path / "cases", labelled=2, unlabelled=1, validation=1)


def set_iterations(run: RunFolder, iterations: int) -> None:
    recipe = with_settings(load_recipe(run.recipe), [f"iterations={iterations}"])
    run.recipe.write_text(recipe.to_json(), encoding="utf-8")


@pytest.mark.parametrize("name", ["labelled1", "unlabelled0"])
@pytest.mark.parametrize("new_name", ["", "renamed"])
@pytest.mark.parametrize("option", ["--resume", "--stop"])
def test_resumed_run_refuses_to_validate_on_a_scan_on_which_it_has_trained(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, new_name: str, option: str
) -> None:
    run = RunFolder(tmp_path / "run")
    assert call_dcamt(train_arguments(table, run, "iterations=1")) == 0
    listed = run.cases.read_text(encoding="utf-8")
    trained = f"{name},../cases/{name}.nii.gz,{'' if name[0] == 'u' else f'../cases/{name}_label.nii.gz'},{name[:-1]}"
    assert trained in listed
    changed = f"{new_name or name},../cases/{name}.nii.gz,../cases/labelled1_label.nii.gz,validation"
    run.cases.write_text(listed.replace(trained, changed), encoding="utf-8")
    set_iterations(run, 2)
    resume = ["train", "--run", run.path, "--device", "cpu", option]
    assert call_dcamt(resume) == 1
    message = f"{run.cases}: lists validation cases on whose scans this run has trained: {new_name or name}. Give"
    assert message in capsys.readouterr().err
    assert load_checkpoint(run.checkpoint, torch.device("cpu"))["step"] == 1
    run.cases.write_text(listed.replace(trained, changed.replace("validation", "left out")), encoding="utf-8")
    assert call_dcamt(resume) == 0


def test_run_whose_checkpoint_names_no_cases_is_resumed(table: Path, tmp_path: Path) -> None:
    """Earlier versions of DCAMT wrote such checkpoints."""
    run = RunFolder(tmp_path / "run")
    assert call_dcamt(train_arguments(table, run, "iterations=1")) == 0
    state = load_checkpoint(run.checkpoint, torch.device("cpu"))
    trained = [f"../cases/{name}.nii.gz" for name in ("labelled0", "labelled1", "unlabelled0")]
    assert state.pop("trained") == trained
    save_checkpoint(run.checkpoint, state)
    set_iterations(run, 2)
    assert call_dcamt(["train", "--run", run.path, "--device", "cpu", "--resume"]) == 0
    assert load_checkpoint(run.checkpoint, torch.device("cpu"))["trained"] == trained


def test_validation_cases_on_which_the_starting_model_was_trained_are_named(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = RunFolder(tmp_path / "first")
    assert call_dcamt(train_arguments(table, first, "iterations=1")) == 0
    # The later list names a converted copy of a training scan.
    image = SimpleITK.ReadImage(str(table.with_name("labelled1.nii.gz")))
    SimpleITK.WriteImage(image, str(table.with_name("copy.nrrd")))
    rows = [
        ["labelled0", "labelled0.nii.gz", "labelled0_label.nii.gz", "labelled"],
        ["copy", "copy.nrrd", "labelled1_label.nii.gz", "validation"],
        ["validation0", "validation0.nii.gz", "validation0_label.nii.gz", "validation"],
    ]
    later = write_table(table.with_name("later.csv"), rows)
    note = f"{first.model}: was trained on the scans of these validation cases: copy. Their Dice does not show"
    capsys.readouterr()
    assert call_dcamt(["cases", "check", later, "--start-from", first.model, "--json"]) == 0
    (checked,) = json.loads(capsys.readouterr().out.splitlines()[-1])["notes"]
    assert checked.startswith(note)
    start = ["train", later, "--device", "cpu", "--set", "iterations=1", "--start-from"]
    assert call_dcamt([*start, first.model, "--run", tmp_path / "second"]) == 0
    assert capsys.readouterr().err.count(note) == 1
    elsewhere = shutil.copy(first.model, tmp_path / "elsewhere.dcamt")
    assert call_dcamt([*start, elsewhere, "--run", tmp_path / "third"]) == 0
    assert "was trained on" not in capsys.readouterr().err
