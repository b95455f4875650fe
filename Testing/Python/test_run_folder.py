"""Run folders are created, opened and moved; incomplete files are removed, and unusable folders are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from dcamt.cases.case_list import read_cases
from dcamt.errors import InputError, OutputError
from dcamt.runs import folder as run_folder
from dcamt.runs.folder import Origin, RunFolder
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import new_trainer, train_arguments, write_cases_folder
from dcamt_testing.tiny_recipes import tiny_recipe


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_cases_folder(tmp_path / "data", labelled=1, unlabelled=1, validation=1, shape=(8, 8, 8))


def create(run: RunFolder, table: Path, save_checkpoint: Callable[[], None] = lambda: None, **more: Origin) -> None:
    run.create(tiny_recipe(), read_cases(table), save_checkpoint, **more)


def test_created_run_is_opened(tmp_path: Path, table: Path) -> None:
    recipe, cases = tiny_recipe("mmd=0.25", "flip=true,false,true"), read_cases(table)
    run = RunFolder(tmp_path / "runs" / "first")
    run.create(recipe, cases, lambda: None)
    opened, opened_cases = RunFolder(run.path).open()
    assert opened == recipe
    assert [(c.name, c.role, c.image.resolve(), c.label and c.label.resolve()) for c in opened_cases] == [
        (c.name, c.role, c.image.resolve(), c.label and c.label.resolve()) for c in cases
    ]
    assert sorted(path.name for path in run.path.iterdir()) == ["cases.csv", "recipe.json"]


def test_run_is_opened_after_moving_it_with_its_scans(tmp_path: Path, table: Path) -> None:
    run = RunFolder(table.parent / "run")
    create(run, table)
    table.parent.rename(tmp_path / "elsewhere")
    _, cases = RunFolder(tmp_path / "elsewhere" / "run").open()
    assert all(case.image.exists() for case in cases)


def test_run_can_be_created_in_an_empty_folder(tmp_path: Path, table: Path) -> None:
    empty = RunFolder(tmp_path / "empty")
    empty.path.mkdir()
    create(empty, table)
    empty.open()


def test_second_run_in_the_same_folder_is_refused(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")
    create(run, table)
    remedy = r"Resume the run with --resume \(in Python: resume=True\), or name a new folder\.$"
    with pytest.raises(InputError, match=rf"already holds a run\. {remedy}"):
        create(run, table)


@pytest.mark.parametrize("file", ["thesis.doc", ".hidden"])
def test_file_or_nonempty_folder_is_refused_for_a_new_run(tmp_path: Path, table: Path, file: str) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / file).touch()
    for path in (full, full / file):
        with pytest.raises(InputError, match="is not an empty folder"):
            create(RunFolder(path), table)
    assert [path.name for path in full.iterdir()] == [file]


def test_run_interrupted_during_creation_can_be_created_again(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")

    def interrupted() -> None:
        run.checkpoint.parent.mkdir(parents=True)
        run.events.touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create(run, table, interrupted)
    with pytest.raises(InputError, match="holds no run"):
        run.open()
    create(run, table)
    run.open()


def test_partial_files_of_a_killed_process_are_removed(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.checkpoint.parent.mkdir(parents=True)
    strays = [run.path / ".0badcafe-recipe.json", run.path / ".12345678-cases.csv"]
    strays.append(run.checkpoint.parent / ".deadbeef-last.pt")
    for stray in [*strays, run.lock]:
        stray.touch()
    create(run, table)
    assert not any(stray.exists() for stray in strays)
    for stray in strays:
        stray.touch()
    run.remove_strays()
    assert not any(stray.exists() for stray in strays)
    run.open()


def test_case_list_written_by_a_person_is_not_replaced(tmp_path: Path, table: Path) -> None:
    """`RunFolder.create` writes the checkpoint first, so a case list without a checkpoint is from a person."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.cases.write_bytes(table.read_bytes())
    with pytest.raises(InputError, match=r"is not an empty folder: it holds cases\.csv\. Name a new folder"):
        create(run, table)
    assert run.cases.read_bytes() == table.read_bytes()


def test_origin_of_the_weights_is_stored_and_removed(tmp_path: Path, table: Path) -> None:
    run, origin = RunFolder(tmp_path / "run"), Origin("left-atrium", "Left atrium", "for research only", "abc123")
    create(run, table, origin=origin)
    assert json.loads(run.origin.read_text(encoding="utf-8"))["checksum"] == "abc123"
    assert RunFolder(run.path).read_origin() == origin
    run.withdraw()
    assert list(run.path.iterdir()) == []


def test_new_run_removes_the_origin_that_a_killed_process_left(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.origin.write_text("{}", encoding="utf-8")
    create(run, table)
    assert run.read_origin() is None


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        "[1]",
        "{}",
        '{"name": "x"}',
        '{"name": "a", "title": "", "licence": "", "checksum": 1}',
        "",
        "[" * 100_000,
    ],
)
def test_damaged_origin_is_refused(tmp_path: Path, text: str) -> None:
    run = RunFolder(tmp_path)
    run.origin.write_text(text, encoding="utf-8")
    reason = "the file is damaged" if text and len(text) < 100_000 else ".*"
    with pytest.raises(InputError, match=rf"origin\.json: cannot be read \({reason}\)\. Start a new run\.$"):
        run.read_origin()


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(
            InputError, match=r"holds no run\. Give the folder of a run, or start a new run with CASES\.csv\.$"
        ):
            RunFolder(path).open()


@pytest.mark.parametrize(
    "name",
    ["report.html", "validation.csv", "model.dcamt", "events.jsonl", "trained_scans.json", "checkpoints/last.pt"],
)
@pytest.mark.parametrize("target_exists", [True, False])
def test_link_to_a_file_outside_the_run_is_refused(
    tmp_path: Path, table: Path, name: str, target_exists: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    run, outside = RunFolder(tmp_path / "run"), tmp_path / "thesis.txt"
    new_trainer(run.path, table).save()
    run.model.write_text("model", encoding="utf-8")
    if target_exists:
        outside.write_text("mine", encoding="utf-8")
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(outside)
    message = f"{run.path / name}: is a link to a file outside the run's folder"
    assert call_dcamt(["train", "--run", run.path, "--resume", "--device", "cpu"]) == 1
    assert (message in capsys.readouterr().err) == (name != "checkpoints/last.pt")
    assert call_dcamt(["report", run.path]) == 1
    assert (message in capsys.readouterr().err) == (name in ("report.html", "validation.csv"))
    assert not target_exists or outside.read_text(encoding="utf-8") == "mine"


def test_link_within_a_run_is_allowed(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")
    create(run, table)
    run.report.symlink_to("report-2.html")
    run.refuse_links_of_training()


def test_finished_run_whose_model_is_a_link_is_accepted(tmp_path: Path, table: Path) -> None:
    """Programs such as git-annex replace large files with links."""
    run, stored = RunFolder(tmp_path / "run"), tmp_path / "store" / "model"
    assert call_dcamt(train_arguments(table, run, "iterations=1")) == 0
    stored.parent.mkdir()
    run.model.rename(stored)
    run.model.symlink_to(stored)
    assert call_dcamt(["train", "--run", run.path, "--resume", "--device", "cpu"]) == 0
    assert call_dcamt(["report", run.path, "--device", "cpu"]) == 0
    assert run.model.is_symlink()


def test_failure_during_creation_leaves_no_run(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")

    def full_disk(*_: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(run_folder, "write_cases", full_disk)
    with pytest.raises(OutputError):
        create(run, table)
    with pytest.raises(InputError, match="holds no run"):
        run.open()
    monkeypatch.undo()
    create(run, table)
    run.open()


def test_error_names_the_missing_scan(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")
    create(run, table)
    (table.parent / "unlabelled0.nii.gz").unlink()
    with pytest.raises(InputError, match=r"unlabelled0\.nii\.gz, which does not exist"):
        run.open()
