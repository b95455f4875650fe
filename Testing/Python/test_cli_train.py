"""Test `dcamt train` with a tiny network: start, pause, resume, start from a model, and failures."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from dcamt import cli
from dcamt.commands import console
from dcamt.geometry import Grid
from dcamt.io.writers import write_volume
from dcamt.models.package import open_model
from dcamt.volume import Volume
from dcamt_testing.processes import HANGING_S, call_dcamt, open_dcamt, read_until, run_with_file_size_limit
from dcamt_testing.synthetic import write_nifti, write_table
from dcamt_testing.tiny_recipes import TINY

THREE_STEPS = (*TINY, "iterations=3")
SHAPE = (20, 20, 20)
GRID = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    ball = np.linalg.norm(np.indices(SHAPE) - 9.5, axis=0) < 6
    for seed, name in enumerate("abc"):
        voxels = np.random.default_rng(seed).normal(100, 10, SHAPE) + 100 * ball
        write_volume(Volume(voxels[None].astype(np.float32), GRID), tmp_path / "data" / f"{name}.nii.gz")
    write_nifti(tmp_path / "data" / "label.nii.gz", ball.astype(np.uint8))
    rows = [
        ("a", "data/a.nii.gz", "data/label.nii.gz", "labelled"),
        ("b", "data/b.nii.gz", "", "unlabelled"),
        ("c", "data/c.nii.gz", "data/label.nii.gz", "validation"),
    ]
    return write_table(tmp_path / "cases.csv", rows)


def settings(**changed: str) -> list[str]:
    return ["--set", *THREE_STEPS, *(f"{key}={value}" for key, value in changed.items())]


def train(*arguments: str | Path) -> int:
    return call_dcamt(["train", "--device", "cpu", *arguments])


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_note_on_a_scan_of_few_intensities_is_printed_once(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    scan = write_nifti(tmp_path / "data" / "b.nii.gz", (np.indices(SHAPE)[0] % 3).astype(np.uint8))
    assert train(cases, "--run", tmp_path / "run", *settings(), *options) == 0
    note = "The scan has only 3 different intensities, like a label. Check that the file is the scan."
    assert capsys.readouterr().err == f"dcamt: {scan}: {note}\n"


def test_model_of_a_finished_run_can_segment_and_start_another_run(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "first"
    assert train(cases, "--run", run, *settings(), "--set", "validate_every=1", "--json") == 0
    printed = capsys.readouterr()
    printed_events = [json.loads(line) for line in printed.out.splitlines()]
    assert printed.err == ""
    kinds = [one["event"] for one in printed_events]
    assert kinds[-1] == "finished"
    assert {"started", "progress", "validation", "checkpoint", "loading"} <= set(kinds)
    assert printed_events[kinds.index("started")]["of"] == 3
    card = open_model(run / "model.dcamt").card
    assert (card.name, card.trained_on["labelled"], card.trained_on["iterations"]) == ("first", 1, 3)
    out = tmp_path / "a.seg.nrrd"
    arguments = ["segment", tmp_path / "data" / "a.nii.gz", "-o", out, "--model", run / "model.dcamt"]
    assert cli.main([*map(str, arguments)]) == 0
    assert out.exists()

    # Resuming a finished run changes neither its model nor its events.
    capsys.readouterr()
    before = [(run / name).read_bytes() for name in ("model.dcamt", "events.jsonl")]
    assert card.measured
    assert train("--run", run, "--resume") == 0
    assert "model.dcamt" in capsys.readouterr().out
    assert [(run / name).read_bytes() for name in ("model.dcamt", "events.jsonl")] == before

    second = tmp_path / "runs" / "second"
    assert "started_from" not in card.trained_on
    assert train(cases, "--run", second, "--start-from", run / "model.dcamt", "--set", "iterations=1") == 0
    made = open_model(second / "model.dcamt")
    assert made.recipe.network == open_model(run / "model.dcamt").recipe.network
    assert made.card.licence == f"same as {run.name}: not stated"
    origin = {"name": "first", "title": card.title, "licence": "not stated", "checksum": card.checksum}
    assert made.card.trained_on["started_from"] == origin
    assert not (second / "train.lock").exists()

    (second / "model.dcamt").unlink()
    assert train("--run", second, "--resume") == 0
    again = open_model(second / "model.dcamt").card
    assert (again.licence, again.trained_on["started_from"]) == (made.card.licence, origin)
    output = capsys.readouterr().out
    assert re.search("starting at iteration 0 of 1 on .*; cases: 1 labelled, 1 unlabelled, 1 validation\n", output)


def test_terminal_shows_that_pytorch_is_loading_unless_json_is_printed(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_is_terminal", lambda: True)
    assert train(cases, "--run", tmp_path / "run", "--start-from", tmp_path / "missing.dcamt") == 1
    assert "loading PyTorch" in capsys.readouterr().err
    assert train(cases, "--run", tmp_path / "run", "--start-from", tmp_path / "missing.dcamt", "--json") == 1
    assert "loading PyTorch" not in capsys.readouterr().err


def test_settings_may_precede_or_follow_the_case_list(cases: Path, tmp_path: Path) -> None:
    each = [word for setting in THREE_STEPS for word in ("--set", setting)]
    for number, arguments in enumerate(([cases, *each], [cases, *settings()], [*settings(), cases])):
        run = tmp_path / f"run{number}"
        assert train("--run", run, *arguments) == 0
        assert open_model(run / "model.dcamt").recipe.training.iterations == 3


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_pauses_and_resume_continues(cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "a run"
    arguments = ["train", cases, "--run", run, "--device", "cpu", "--json", *settings(iterations="100000")]
    process = open_dcamt(*arguments)
    read_until(process, "progress")
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=HANGING_S)
    assert process.returncode == 1
    assert [json.loads(line)["event"] for line in rest.splitlines()][-2:] == ["checkpoint", "paused"]
    assert errors.count("\n") == 1
    assert f"dcamt train --run '{run}' --resume" in errors
    assert not (run / "model.dcamt").exists()
    recipe = run / "recipe.json"
    step = json.loads(rest.splitlines()[-1])["step"]
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("100000", str(step + 2)), encoding="utf-8")
    assert train("--run", run, "--resume") == 0
    assert f"resuming at iteration {step} of {step + 2}" in capsys.readouterr().out
    assert (run / "model.dcamt").exists()


def test_closed_stdout_pauses_the_run(cases: Path, tmp_path: Path) -> None:
    """The application that reads stdout may end at any time."""
    run = tmp_path / "run"
    arguments = ["train", cases, "--run", run, "--device", "cpu", "--json", *settings(iterations="100000")]
    process = open_dcamt(*arguments)
    read_until(process, "started")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=HANGING_S) == 1
    errors = process.stderr.read()
    process.stderr.close()
    assert errors.count("\n") == 1
    assert "paused at iteration" in errors
    last = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()][-1]
    assert last["event"] == "paused"
    assert last["step"] > 0


def write_unusable_files(folder: Path) -> None:
    write_nifti(folder / "data" / "elsewhere.nii.gz", np.ones(SHAPE, np.uint8), spacing_mm=3.0)
    (folder / "data" / "text.nii.gz").write_text("no image", encoding="utf-8")
    (folder / "notes.txt").write_text("notes", encoding="utf-8")
    (folder / "full").mkdir()
    (folder / "full" / "other.txt").write_text("x", encoding="utf-8")
    (folder / "bad.json").write_text("{", encoding="utf-8")
    (folder / "odd.json").write_text('{"name": "odd", "title": "", "modality": "", "colour": 1}', encoding="utf-8")
    (folder / "binary.csv").write_bytes(bytes(range(256)))


def test_wrong_input_leaves_no_run(cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = list(csv.reader(cases.open(encoding="utf-8")))[1:]
    write_unusable_files(tmp_path)
    (tmp_path / "empty").mkdir()

    def table(name: str, *rows: tuple[str, ...], columns: str = "name,image,label,role") -> Path:
        return write_table(tmp_path / f"{name}.csv", [*rows], columns)

    tables = {
        "column": table("column", *good, columns="name,image,labels,role"),
        "role": table("role", ("a", "data/a.nii.gz", "data/label.nii.gz", "teacher")),
        "gone": table("gone", ("a", "data/gone.nii.gz", "data/label.nii.gz", "labelled")),
        "twice": table("twice", good[0], good[0]),
        "unlabelled": table("unlabelled", good[1]),
        "text": table("text", ("a", "data/text.nii.gz", "data/label.nii.gz", "labelled")),
        "elsewhere": table("elsewhere", ("a", "data/a.nii.gz", "data/elsewhere.nii.gz", "labelled")),
    }
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    new = ["--run", tmp_path / "runs" / "new"]
    refused = [
        ([tmp_path / "nowhere.csv", *new], 1, "nowhere.csv"),
        ([tmp_path / "binary.csv", *new], 1, "binary.csv"),
        ([tables["column"], *new], 1, "lacks the column 'label'"),
        ([tables["role"], *new], 1, "teacher"),
        ([tables["gone"], *new], 1, "gone.nii.gz"),
        ([tables["twice"], *new], 1, "occurs twice"),
        ([tables["unlabelled"], *new], 1, "no case is labelled"),
        ([tables["text"], *new, *settings()], 1, "text.nii.gz"),
        ([tables["elsewhere"], *new, *settings()], 1, "elsewhere.nii.gz"),
        ([tables["text"], "--run", tmp_path / "empty", *settings()], 1, "text.nii.gz"),
        ([cases, *new, "--set", "iterations=many"], 1, "many"),
        ([cases, *new, "--set", "colour=1"], 1, "colour"),
        ([cases, *new, "--set", "patch=17,17,17"], 1, "patch"),
        ([cases, *new, "--set", "batch=2", "labelled_per_batch=2"], 1, "unlabelled"),
        ([cases, *new, "--recipe", "heart"], 1, "heart"),
        ([cases, *new, "--recipe", tmp_path / "bad.json"], 1, "bad.json"),
        ([cases, *new, "--recipe", tmp_path / "odd.json"], 1, "odd.json"),
        ([cases, *new, "--start-from", "nobody"], 1, "nobody"),
        ([cases, "--run", tmp_path / "full", *settings()], 1, "full"),
        ([cases, "--run", tmp_path / "notes.txt", *settings()], 1, "notes.txt"),
        ([cases, "--run", tmp_path / "notes.txt" / "run", *settings()], 1, "notes.txt"),
        (["--run", tmp_path / "runs" / "new", "--resume"], 1, "holds no run"),
        (["--run", tmp_path / "runs" / "new"], 2, "CASES.csv"),
        ([*new, "--set", "batch=2", ""], 2, "CASES.csv"),
        ([*new, "--resume", "--set", "batch=2"], 2, "leave out CASES.csv"),
        ([cases, *new, "--resume"], 2, "leave out CASES.csv"),
        ([*new, "--resume", "--labels", "1=left-atrium"], 2, "leave out CASES.csv, --labels"),
        ([*new, "--stop", "--labels", "1=left-atrium"], 2, "leave out CASES.csv, --labels"),
        ([*new, "--watch", "--effort", "quick"], 2, "--watch"),
        ([*new, "--watch", "--stop"], 2, "--watch"),
        ([cases], 2, "--run"),
    ]
    for arguments, code, part in refused:
        assert train(*arguments) == code, arguments
        printed = capfd.readouterr()
        assert part in printed.err, printed.err
        assert (printed.out, printed.err.count("\n")) == ("", 1), arguments
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before, arguments
        assert list((tmp_path / "empty").iterdir()) == []
        assert not (tmp_path / "runs" / "new").exists()


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX limits of file sizes")
@pytest.mark.parametrize("limit", [200, 5000])
def test_file_size_limit_is_reported_in_one_line(cases: Path, tmp_path: Path, limit: int) -> None:
    """The recipe has more than 200 bytes, and the first checkpoint more than 5000 bytes."""
    run = tmp_path / "run"
    done = run_with_file_size_limit(limit, ["train", cases, "--run", run, "--device", "cpu", *settings()])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "the disk" in done.stderr
    assert str(run) in done.stderr
    assert not run.exists()


def test_lack_of_memory_is_reported_in_one_line(
    cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dcamt.training import learner

    def fail(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(learner, "objective_losses", fail)
    assert train(cases, "--run", tmp_path / "run", *settings()) == 1
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1
    assert str(tmp_path / "run") in errors
    assert "not enough memory" in errors
    assert "smaller patch or batch" in errors
    monkeypatch.undo()
    assert train("--run", tmp_path / "run", "--resume") == 0


def start_script_and_train(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Run `script` and then `dcamt train` in a new process; return the process when it prints `here`."""
    process = open_dcamt("train", "--device", "cpu", *arguments, script=script + RUN)
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "here\n":
        assert line or process.poll() is None, process.communicate()
    return process


RUN = "from dcamt import cli; sys.exit(cli.main(sys.argv[1:]))"
LOADING = """
import sys, time
from dcamt.training import trainer
def load(*_):
    print("here", flush=True)
    time.sleep(600)
trainer.load_case = load
"""
"""Makes training print `here` and wait instead of reading the first case."""
WRITING = """
import os, sys, time
from dcamt.io import atomic
real = os.replace
def replace(source, target):
    if os.path.basename(target) == {name!r}:
        print("here", flush=True)
        time.sleep(600)
    real(source, target)
atomic.os.replace = replace
"""
"""Makes training print `here` and wait before it replaces the file `name`."""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("folder_existed", [True, False])
def test_ctrl_c_before_the_first_step_removes_the_run(cases: Path, tmp_path: Path, folder_existed: bool) -> None:
    run = tmp_path / "runs" / "new"
    if folder_existed:
        run.mkdir(parents=True)
    process = start_script_and_train(LOADING, cases, "--run", run, *settings())
    assert {"recipe.json", "train.lock"} <= {path.name for path in run.iterdir()}
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=HANGING_S)
    assert (process.returncode, errors) == (1, "dcamt: cancelled\n")
    assert run.exists() is folder_existed
    assert not folder_existed or list(run.iterdir()) == []
    assert train(cases, "--run", run, *settings()) == 0


def test_ctrl_c_before_the_first_step_keeps_a_resumed_run(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dcamt.training import trainer

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    assert train(cases, "--run", run, *settings()) == 0
    (run / "model.dcamt").unlink()
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    monkeypatch.setattr(trainer, "load_case", interrupted)
    assert train("--run", run, "--resume") == 1
    after = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    del before["events.jsonl"], after["events.jsonl"]
    assert after == before
    assert (run / "checkpoints" / "last.pt").exists()


@pytest.mark.parametrize("name", ["cases.csv", "last.pt", "recipe.json"])
def test_run_killed_during_creation_starts_when_the_command_is_repeated(cases: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    process = start_script_and_train(WRITING.format(name=name), cases, "--run", run, *settings())
    process.kill()
    process.communicate()
    assert [path.suffix for path in run.rglob(".????????-*")] == [Path(name).suffix]
    assert (run / "train.lock").exists()
    assert train(cases, "--run", run, *settings()) == 0
    names = ["cases.csv", "checkpoints", "checkpoints/last.pt", "events.jsonl", "model.dcamt", "recipe.json"]
    names += ["checkpoints/best.pt", "report.html", "trained_scans.json", "validation.csv"]
    assert sorted(path.relative_to(run).as_posix() for path in run.rglob("*")) == sorted(names)


def test_partial_files_of_a_killed_run_are_removed_on_resume(cases: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_script_and_train(WRITING.format(name="model.dcamt"), cases, "--run", run, *settings())
    process.kill()
    process.communicate()
    (run / "checkpoints" / ".deadbeef-last.pt").touch()
    assert len(list(run.rglob(".????????-*"))) == 2
    assert train("--run", run, "--resume") == 0
    assert list(run.rglob(".*")) == []
    assert (run / "model.dcamt").exists()


def test_second_process_on_a_run_is_refused(cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    process = start_script_and_train(LOADING, cases, "--run", run, *settings())
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "train.lock"}
    for arguments in ([cases, "--run", run, *settings()], ["--run", run, "--resume"]):
        assert train(*arguments) == 1
        printed = capfd.readouterr()
        message = f"dcamt: {run}: is being trained by another process. Stop that process first, or wait.\n"
        assert (printed.out, printed.err) == ("", message)
        after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "train.lock"}
        assert after == before
    assert process.poll() is None
    process.kill()
    process.communicate()
    assert train("--run", run, "--resume") == 0
