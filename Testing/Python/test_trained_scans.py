"""Test the errors and notes about validation cases whose scans were used for training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import dcamt
import pytest
import SimpleITK
import torch
from dcamt.cases.case_list import LABELLED, VALIDATION, list_cases
from dcamt.cases.checks import scan_checksum
from dcamt.commands import console
from dcamt.errors import InputError
from dcamt.io.readers import read_scan
from dcamt.recipe_files import load_recipe, with_settings
from dcamt.runs.folder import RunFolder
from dcamt.runs.trained_scans import TrainedScan, find_trained_scans, read_trained_scans
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
def test_resumed_run_refuses_to_validate_on_its_own_training_scan(
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
    message = f"{run.cases}: lists validation cases whose scans this run has trained on: {new_name or name}. Give"
    assert message in capsys.readouterr().err
    assert load_checkpoint(run.checkpoint, torch.device("cpu"))["step"] == 1
    run.cases.write_text(listed.replace(trained, changed.replace("validation", "left out")), encoding="utf-8")
    assert call_dcamt(resume) == 0


@pytest.mark.parametrize("option", ["--resume", "--stop"])
def test_moved_run_refuses_to_validate_on_its_own_training_scan(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    run = RunFolder(tmp_path / "run")
    assert call_dcamt(train_arguments(table, run, "iterations=1")) == 0
    set_iterations(run, 2)
    moved = RunFolder(shutil.move(run.path, tmp_path / "archive" / "2024" / "run"))
    listed = moved.cases.read_text(encoding="utf-8").replace("../cases/", f"{table.parent}/")
    trained = f"labelled1_label.nii.gz,{LABELLED}"
    assert trained in listed
    moved.cases.write_text(listed.replace(trained, f"labelled1_label.nii.gz,{VALIDATION}"), encoding="utf-8")
    resume = ["train", "--run", moved.path, "--device", "cpu", option]
    assert call_dcamt(resume) == 1
    message = f"{moved.cases}: lists validation cases whose scans this run has trained on: labelled1. Give"
    assert message in capsys.readouterr().err
    moved.cases.write_text(listed, encoding="utf-8")
    assert call_dcamt(resume) == 0


@pytest.mark.parametrize("stored", ["nothing", "paths"])
def test_checkpoint_of_an_earlier_version_is_resumed_and_then_stores_checksums(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stored: str
) -> None:
    run = RunFolder(tmp_path / "run")
    assert call_dcamt(train_arguments(table, run, "iterations=1")) == 0
    run.trained_scans.unlink()
    state = load_checkpoint(run.checkpoint, torch.device("cpu"))
    trained = [
        (name, f"../cases/{name}.nii.gz", scan_checksum(read_scan(table.with_name(f"{name}.nii.gz"))))
        for name in ("labelled0", "labelled1", "unlabelled0")
    ]
    assert state.pop("trained") == trained
    if stored == "paths":
        state["trained"] = [image for _, image, _ in trained]
    save_checkpoint(run.checkpoint, state)
    set_iterations(run, 2)
    listed = run.cases.read_text(encoding="utf-8")
    run.cases.write_text(listed.replace(f",{LABELLED}\n", f",{VALIDATION}\n", 1), encoding="utf-8")
    resume = ["train", "--run", run.path, "--device", "cpu", "--resume"]
    if stored == "paths":
        assert call_dcamt(resume) == 1
        assert "whose scans this run has trained on: labelled0" in capsys.readouterr().err
    run.cases.write_text(listed, encoding="utf-8")
    assert call_dcamt(resume) == 0
    assert load_checkpoint(run.checkpoint, torch.device("cpu"))["trained"] == trained
    assert read_trained_scans(run) == tuple(TrainedScan(*scan) for scan in trained)


def test_note_names_the_validation_cases_that_the_starting_model_was_trained_on(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = RunFolder(tmp_path / "first")
    assert call_dcamt(train_arguments(table, first, "iterations=1")) == 0
    # The later case list names a converted copy of a training scan.
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
    done = dcamt.train(later, tmp_path / "api", start_from=first.model, settings=["iterations=1"], device="cpu")
    assert done.notes == (checked,)
    elsewhere = shutil.copy(first.model, tmp_path / "elsewhere.dcamt")
    assert call_dcamt([*start, elsewhere, "--run", tmp_path / "third"]) == 0
    assert "was trained on" not in capsys.readouterr().err


@pytest.fixture
def first(table: Path, tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "first")
    assert call_dcamt(train_arguments(table, run, "iterations=1")) == 0
    return run


def trained_names(table: Path, model: Path) -> list[str]:
    """Return the names of the cases in `table` on which `model` was trained."""
    cases = [replace(case, role=VALIDATION) for case in list_cases(table)]
    return [case.name for case, _ in find_trained_scans(cases, model, lambda fraction: None, pytest.fail)]


def test_scan_removed_from_the_list_of_a_run_counts_as_trained(first: RunFolder, table: Path) -> None:
    everything = ["labelled0", "labelled1", "unlabelled0"]
    set_iterations(first, 2)
    listed = first.cases.read_text(encoding="utf-8").splitlines(keepends=True)
    first.cases.write_text("".join(line for line in listed if "labelled1" not in line), encoding="utf-8")
    assert call_dcamt(["train", "--run", first.path, "--device", "cpu", "--resume"]) == 0
    assert trained_names(table, first.model) == everything
    # The checksums are known, so the training scans themselves are not needed.
    copies = Path(shutil.copytree(table.parent, table.parent.with_name("copies")))
    shutil.rmtree(table.parent)
    assert trained_names(copies / table.name, first.model) == everything


@pytest.mark.parametrize("is_of_earlier_version", [False, True])
def test_model_under_another_name_in_the_folder_of_a_run_is_the_model_of_the_run(
    first: RunFolder, table: Path, is_of_earlier_version: bool
) -> None:
    if is_of_earlier_version:
        first.trained_scans.unlink()
    kept = first.model.rename(first.path / "model-old.dcamt")
    assert trained_names(table, kept) == ["labelled0", "labelled1", "unlabelled0"]


@pytest.mark.parametrize("text", ["", "{}", "[" * 1000, '[{"name": "a"}]', '[{"name": "a", "image": 5}]'])
def test_damaged_list_of_training_scans_is_a_note(
    first: RunFolder, table: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    first.trained_scans.write_text(text, encoding="utf-8")
    capsys.readouterr()
    check: list[str | Path] = ["cases", "check", table, "--start-from", first.model]
    assert call_dcamt(check) == 0
    (note,) = [line for line in capsys.readouterr().err.splitlines() if str(first.trained_scans) in line]
    assert f"{first.trained_scans}: cannot be read (" in note
    assert "Delete this file, so that the training cases in cases.csv are compared instead." in note
    first.trained_scans.unlink()
    assert call_dcamt(check) == 0
    assert "cannot be read" not in capsys.readouterr().err


def start_from(first: RunFolder, table: Path, run: Path, *further: str) -> list[str | Path]:
    return ["train", table, "--run", run, "--start-from", first.model, "--set", "iterations=1", *further]


def test_unreadable_case_list_of_the_starting_model_is_a_note(
    first: RunFolder, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first.trained_scans.unlink()  # as in a run of an earlier version
    first.cases.write_text("name\nlabelled0\n", encoding="utf-8")
    check: list[str | Path] = ["cases", "check", table, "--start-from", first.model]
    capsys.readouterr()
    for command in (check, start_from(first, table, tmp_path / "second", "--device", "cpu")):
        assert call_dcamt(command) == 0
        (note,) = [line for line in capsys.readouterr().err.splitlines() if str(first.cases) in line]
        assert note.endswith(f"So the validation scans were not compared with the training scans of {first.model}.")
    with pytest.raises(InputError, match="lacks the column"):
        next(find_trained_scans(list_cases(table), first.model, lambda fraction: None, pytest.fail))


@pytest.mark.parametrize("refused", ["run", "folder", "device"])
def test_run_that_cannot_start_is_refused_before_scans_are_compared(
    first: RunFolder,
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refused: str,
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").touch()
    missing = "cuda" if torch.backends.mps.is_available() else "mps"
    run = first.path if refused == "run" else tmp_path / refused
    monkeypatch.setattr(console, "_is_terminal", lambda: True)
    capsys.readouterr()
    assert call_dcamt(start_from(first, table, run, "--device", missing if refused == "device" else "cpu")) == 1
    printed = capsys.readouterr().err
    expected = {"run": "already holds a run", "folder": "it holds notes.txt", "device": f"has no '{missing}' device"}
    assert expected[refused] in printed
    assert "comparing the scans" not in printed


def test_note_on_missing_training_scans_names_the_command_for_a_new_comparison(
    first: RunFolder, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first.trained_scans.unlink()  # as in a run of an earlier version
    listed = first.cases.read_text(encoding="utf-8")
    first.cases.write_text(listed.replace("labelled0.nii.gz", "moved.nii.gz"), encoding="utf-8")
    assert call_dcamt(start_from(first, table, tmp_path / "second", "--device", "cpu")) == 0
    (note,) = [line for line in capsys.readouterr().err.splitlines() if "could not be read" in line]
    command = f"dcamt cases check CASES.csv --start-from {first.model}"
    assert note.endswith(f"correct the paths in {first.cases} and run: {command}")
    first.cases.write_text(listed, encoding="utf-8")
    assert call_dcamt(command.replace("CASES.csv", str(table)).split()[1:]) == 0
    assert "were not compared" not in capsys.readouterr().err


def test_unreadable_validation_scan_is_not_counted_as_a_training_scan(first: RunFolder, table: Path) -> None:
    table.with_name("validation0.nii.gz").write_bytes(b"damaged")
    assert not list(find_trained_scans(list_cases(table), first.model, lambda fraction: None, pytest.fail))


@pytest.mark.parametrize("command", ["check", "train"])
def test_last_progress_bar_is_removed_from_the_terminal(
    first: RunFolder,
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.setattr(console, "_is_terminal", lambda: True)
    check: list[str | Path] = ["cases", "check", table, "--start-from", first.model]
    train = start_from(first, table, tmp_path / "second", "--device", "cpu")
    capsys.readouterr()
    assert call_dcamt(check if command == "check" else train) == 0
    printed = capsys.readouterr().err
    assert "comparing the scans" in printed
    assert printed.endswith("\r\x1b[K")
