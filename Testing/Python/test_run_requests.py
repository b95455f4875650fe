"""Other processes pause, stop and watch a run, and learn why it failed, through files in the run's folder."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dcamt.cases.case_list import VALIDATION, read_cases
from dcamt.errors import InputError, OutputError
from dcamt.networks.packaging import build_network, verify_model
from dcamt.runs.events import CasesLoading, EventLog, RunFinished, RunPaused, RunStarted
from dcamt.runs.failure_note import FailureNote, read_note, remove_blank_note, reserve_note, write_note
from dcamt.runs.folder import RunFolder
from dcamt.runs.lock import is_held
from dcamt.runs.requests import PAUSE, STOP, read_request, remove_request, write_request
from dcamt.runs.state import FAILED, FINISHED, KILLED, PAUSED, RUNNING, STOPPED, find_runs, run_state
from dcamt.training.checkpoint import load_checkpoint
from dcamt_testing.processes import (
    CALL_DCAMT,
    HANGING_S,
    call_dcamt,
    run_dcamt,
    run_with_file_size_limit,
    start_dcamt,
    wait_until,
)
from dcamt_testing.synthetic import CPU, new_trainer, train_arguments, write_cases_folder
from dcamt_testing.tiny_recipes import TINY
from dcamt_testing.warm_python import interpreter

LONG = ("iterations=100000", "validate_every=1", "checkpoint_every_s=0.02")
"""Settings of a run that does not finish within a test."""
UNTHROTTLED = """
from dcamt.training import trainer
trainer.VALIDATION_FRACTION = 1e9
trainer.REQUEST_EVERY_S = 0.0
"""
"""Code that lets a run validate as often as its recipe says, and look for a request in each iteration."""
STOPPED_WHILE_LOADING = """
from dcamt.runs.requests import STOP, write_request
from dcamt.training import trainer
trainer.REQUEST_EVERY_S = 0.0
load = trainer.load_case
def load_and_stop(*arguments):
    write_request(running[0].run, STOP)
    return load(*arguments)
running = []
prepare = trainer.Trainer.__init__
def keep(self, *arguments):
    prepare(self, *arguments)
    running.append(self)
trainer.Trainer.__init__, trainer.load_case = keep, load_and_stop
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_cases_folder(tmp_path / "data", labelled=1, unlabelled=1, validation=1)


def start_long_run(table: Path, run: RunFolder, *settings: str) -> subprocess.Popen[bytes]:
    return start_dcamt(train_arguments(table, run, *LONG, *settings), run.path.with_name("out"), UNTHROTTLED)


def resume(run: RunFolder) -> subprocess.Popen[bytes]:
    arguments = ["train", "--run", str(run.path), "--resume", "--device", "cpu"]
    return start_dcamt(arguments, run.path.with_name("out"), UNTHROTTLED)


def event_kinds(run: RunFolder) -> list[str]:
    return [str(event.kind) for event in run.read_events()]


def test_request_to_a_removed_run_creates_no_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "removed")
    with pytest.raises(InputError, match=r"removed: does not exist"):
        write_request(run, PAUSE)
    assert not run.path.exists()


def test_paused_run_resumes_at_the_same_iteration(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")
    process = start_long_run(table, run)
    wait_until(lambda: event_kinds(run).count("validation") > 2)
    assert run_state(run).state == RUNNING
    write_request(run, PAUSE)
    process.wait(HANGING_S)
    assert process.returncode == 1
    state = run_state(run)
    assert (state.state, state.reason, state.iterations, state.resumable) == (PAUSED, "", 100000, True)
    assert not run.request.exists()
    assert not run.failure.exists()
    assert not run.model.exists()
    again = resume(run)
    wait_until(lambda: event_kinds(run).count("started") == 2)
    assert [e.iteration for e in run.read_events() if e.kind == "started"] == [0, state.iteration]
    write_request(run, PAUSE)
    again.wait(HANGING_S)
    assert run_state(run).iteration >= state.iteration


def test_run_stopped_by_the_command_keeps_the_last_and_the_best_model(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")
    process = start_long_run(table, run)

    def dice() -> list[float]:
        return [e.dice["mean"]["Left atrium"] for e in run.read_events() if e.kind == "validation"]  # type: ignore[index]

    wait_until(lambda: len(dice()) > 4)
    assert call_dcamt(["train", "--run", run.path, "--stop"]) == 0
    process.wait(HANGING_S)
    assert process.returncode == 0, (tmp_path / "out").read_text(encoding="utf-8")
    state = run_state(run)
    assert (state.state, state.resumable) == (STOPPED, True)
    last = verify_model(run.model).card
    assert last.trained_on["iterations"] == state.iteration
    assert last.measured[0]["dice"]["mean"]["Left atrium"] == pytest.approx(dice()[-1], abs=1e-4)
    steps = [e.iteration for e in run.read_events() if e.kind == "validation"]
    best_step = steps[dice().index(max(dice()))]
    assert run.best.exists() == (best_step != state.iteration)
    if run.best.exists():
        best = verify_model(run.best).card
        assert best.trained_on["iterations"] == best_step
        assert best.measured[0]["dice"]["mean"]["Left atrium"] == pytest.approx(max(dice()), abs=1e-4)
    assert run.report.exists()


def test_stopping_a_paused_run_writes_the_model_of_its_checkpoint(
    tmp_path: Path, table: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    stop = ["train", "--run", str(run.path), "--stop", "--device", "cpu"]
    assert call_dcamt(stop) == 1
    assert "holds no run" in capfd.readouterr().err
    for unused in (["--set", "batch=2"], ["--labels", "1=left-atrium"], ["--resume"]):
        assert call_dcamt([*stop, *unused]) == 2
    process = start_long_run(table, run)
    wait_until(lambda: event_kinds(run).count("validation") > 0)
    write_request(run, PAUSE)
    process.wait(HANGING_S)
    paused = run_state(run)
    assert not run.model.exists()
    for case in read_cases(run.cases):
        if case.role != VALIDATION:  # Only the validation cases are read.
            case.image.unlink()
    assert run_dcamt(stop, tmp_path / "out") == 0, (tmp_path / "out").read_text(encoding="utf-8")
    state = run_state(run)
    assert (state.state, state.iteration, state.resumable) == (STOPPED, paused.iteration, True)
    last = [event for event in run.read_events() if isinstance(event, CasesLoading)][-1]
    assert last.loaded == last.cases
    assert verify_model(run.model).card.trained_on["iterations"] == paused.iteration
    assert run.validation.exists()
    assert run.report.exists()
    stored = load_checkpoint(run.checkpoint, CPU)
    weights = stored["average"] or stored["network"]
    for name, kept in build_network(verify_model(run.model)).named_parameters():
        torch.testing.assert_close(kept, weights[name], rtol=1e-3, atol=1e-6)  # the model file holds 16-bit weights


def test_run_stopped_before_its_first_iteration_says_that_there_is_no_model(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")
    process = start_dcamt(train_arguments(table, run, *LONG), tmp_path / "out", STOPPED_WHILE_LOADING)
    process.wait(HANGING_S)
    message = f"{run.path}: stopped before the first iteration, so there is no model. Continue with: dcamt train --run"
    assert message in (tmp_path / "out").read_text(encoding="utf-8")
    assert (process.returncode, run_state(run).state, run.model.exists()) == (1, PAUSED, False)


def test_resumed_run_stopped_while_loading_cases_writes_the_model_of_its_checkpoint(
    tmp_path: Path, table: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    process = start_long_run(table, run)
    wait_until(lambda: event_kinds(run).count("validation") > 0)
    write_request(run, PAUSE)
    process.wait(HANGING_S)
    paused = run_state(run)
    again = start_dcamt(
        ["train", "--run", str(run.path), "--resume", "--device", "cpu"], tmp_path / "again", STOPPED_WHILE_LOADING
    )
    assert again.wait(HANGING_S) == 0, (tmp_path / "again").read_text(encoding="utf-8")
    state = run_state(run)
    assert (state.state, state.iteration, state.resumable) == (STOPPED, paused.iteration, True)
    assert verify_model(run.model).card.trained_on["iterations"] == paused.iteration
    assert run.report.exists()


def test_finished_run_keeps_its_best_model(tmp_path: Path, table: Path) -> None:
    """The learning rate is so high that a later result may be worse than an earlier result."""
    run = RunFolder(tmp_path / "run")
    arguments = train_arguments(table, run, "iterations=6", "validate_every=1", "learning_rate=0.5")
    assert start_dcamt(arguments, tmp_path / "out", UNTHROTTLED).wait(HANGING_S) == 0
    scored = [event for event in run.read_events() if event.kind == "validation"]
    assert [event.iteration for event in scored] == [1, 2, 3, 4, 5, 6]
    assert run_state(run).state == FINISHED
    best = max(scored, key=lambda event: event.dice["mean"]["Left atrium"]).iteration  # the first of equal values
    assert run.best.exists() == (best != 6)
    if run.best.exists():
        assert verify_model(run.best).card.trained_on["iterations"] == best


def test_request_left_by_an_earlier_process_is_ignored(tmp_path: Path) -> None:
    run, table = RunFolder(tmp_path / "run"), write_cases_folder(tmp_path / "data", labelled=1)
    run.path.mkdir()
    write_request(run, STOP)
    assert run_dcamt(train_arguments(table, run, "iterations=2"), tmp_path / "out") == 0
    assert run_state(run).state == FINISHED


def test_request_is_read_back_until_it_is_removed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert read_request(run) is None
    for what in (PAUSE, STOP):
        write_request(run, what)
        assert read_request(run) == what
    remove_request(run)
    remove_request(run)
    assert read_request(run) is None
    run.request.write_text("dance", encoding="utf-8")
    assert read_request(run) is None


def test_killed_run_is_reported_as_killed_and_resumes(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")
    process = start_long_run(table, run)
    wait_until(lambda: event_kinds(run).count("checkpoint") > 2)
    process.kill()
    process.wait(HANGING_S)
    wait_until(lambda: not is_held(run.lock))
    state = run_state(run)
    assert (state.state, state.reason, state.resumable) == (FAILED, f"{KILLED} Resume from the last checkpoint.", True)
    again = resume(run)
    wait_until(lambda: event_kinds(run).count("started") == 2)
    write_request(run, PAUSE)
    again.wait(HANGING_S)
    assert run_state(run).state == PAUSED


def test_run_killed_before_its_first_checkpoint_cannot_be_resumed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    EventLog(run.events)(CasesLoading(0, 2))
    state = run_state(run)
    assert (state.state, state.reason, state.resumable) == (FAILED, f"{KILLED} Start the run again.", False)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX limits")
def test_run_that_cannot_write_its_events_is_paused_and_names_the_events_file(tmp_path: Path, table: Path) -> None:
    """The growing log of events exceeds the limit on file sizes."""
    run = RunFolder(tmp_path / "run")
    without_checkpoints = "dcamt.training.trainer.save_checkpoint = lambda *_: None\n"
    arguments = train_arguments(table, run, *LONG[:2], "checkpoint_every_s=0.00001")
    done = run_with_file_size_limit(6000, arguments, without_checkpoints + CALL_DCAMT)
    assert done.returncode == 1
    run.checkpoint.parent.mkdir(exist_ok=True)
    run.checkpoint.touch()
    state = run_state(run)
    assert (state.state, state.resumable) == (PAUSED, True)
    assert str(run.events) in state.reason
    assert state.reason in done.stderr


def save_killed_run(folder: Path) -> RunFolder:
    run = RunFolder(folder)
    run.recipe.write_text("{}", encoding="utf-8")
    run.checkpoint.parent.mkdir()
    run.checkpoint.write_bytes(bytes(3 * 10**6))
    EventLog(run.events)(RunStarted(40, 100, 1, 0, 0, "cpu", False))
    return run


@pytest.mark.parametrize(("free", "is_full"), [(10**9, False), (None, False), (2 * 10**6, True), (0, True)])
def test_killed_run_asks_for_space_only_if_the_disk_is_full(
    free: int | None, is_full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a full disk, the process may be unable to write why it ends."""
    run = save_killed_run(tmp_path)
    monkeypatch.setattr("dcamt.runs.state.free_disk_bytes", lambda folder: free)
    assert call_dcamt(["train", "--run", run.path, "--watch"]) == 1
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown.startswith(f"failed at iteration 40 of 100: {KILLED}")
    assert shown.endswith("Resume from the last checkpoint.")
    assert ("MB are left. Free some space." in shown) == is_full


def test_watching_a_run_in_an_unreadable_folder_names_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_killed_run(tmp_path)

    def fail(path: Path) -> list[str]:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("dcamt.runs.state.os.listdir", fail)
    monkeypatch.setattr("dcamt.runs.state.os.path.exists", lambda path: False)
    assert call_dcamt(["train", "--run", run.path, "--watch"]) == 1
    shown = capsys.readouterr().out
    assert "failed: The run's folder cannot be read (Input/output error). Connect its disk again, or" in shown
    assert KILLED not in shown


def test_failure_note_is_read_back_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run" / "fault.txt"
    assert read_note(path) is None
    for note in (FailureNote("the disk is full \N{GREEK SMALL LETTER MU}", unwritten=True), FailureNote("x" * 9000)):
        write_note(path, note)
        assert read_note(path) == note
    assert [one.name for one in path.parent.iterdir()] == ["fault.txt"]


def test_note_needs_no_more_room_than_was_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, filling = tmp_path / "fault.txt", tmp_path / "filling"

    def free_bytes() -> int:
        return 10_000 - sum(file.stat().st_size for file in tmp_path.iterdir())

    def write_if_room(file: Path, text: str) -> None:
        if len(text) > free_bytes():
            raise OutputError("the disk is full")
        file.write_text(text, encoding="utf-8")

    monkeypatch.setattr("dcamt.runs.failure_note.write_text", write_if_room)
    write_note(path, FailureNote("of an earlier process"))
    reserve_note(path)
    assert read_note(path) is None
    filling.write_bytes(bytes(free_bytes()))
    write_note(path, FailureNote("the disk is full", unwritten=True))
    remove_blank_note(path)
    assert read_note(path) == FailureNote("the disk is full", unwritten=True)
    reserve_note(path)
    remove_blank_note(path)
    assert not path.exists()


TRAIN_UNTIL_THE_DISK_IS_FULL = """
import contextlib, sys
from pathlib import Path
import dcamt
from dcamt.runs.folder import RunFolder
from dcamt.runs.state import run_state

def fill(event):
    if event.kind == "started":
        with open(folder / "filling", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

folder = Path(sys.argv[1])
try:
    dcamt.train(sys.argv[2], run=folder / "run", settings=sys.argv[3:], device="cpu", on_event=fill)
except dcamt.OutputError as error:
    state = run_state(RunFolder(folder / "run"))
    print(state.state, state.resumable, state.reason == str(error), error)
"""


def test_run_on_a_full_disk_is_paused(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    own_disk = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    own_disk += ['mount -t tmpfs -o size=3m tmpfs "$0"; exec "$@"', str(tmp_path / "disk")]
    if shutil.which("unshare") is None or subprocess.run([*own_disk, "true"], check=False).returncode:
        pytest.skip("needs the right to mount a disk in a Linux namespace")
    cases = write_cases_folder(tmp_path / "cases", labelled=1)
    # This test starts `sys.executable`, not `interpreter()`. The server of `interpreter()` runs outside the new
    # namespace and forks its processes there. Such processes do not see the mounted disk.
    program = [sys.executable, "-c", TRAIN_UNTIL_THE_DISK_IS_FULL, tmp_path / "disk", cases, *TINY, "iterations=2"]
    done = subprocess.run([*own_disk, *program], capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.stdout.startswith("paused True True "), done.stdout + done.stderr
    assert "run/trained_scans.json: the disk is full. " in done.stdout


def test_failure_notes_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """Earlier versions reserved a blank file of 4096 bytes and overwrote its beginning."""
    path = tmp_path / "fault.txt"
    path.write_bytes(b" " * 4096)
    assert read_note(path) is None
    path.write_bytes(b'{"message": "the disk is full", "unwritten": true}'.ljust(4096))
    assert read_note(path) == FailureNote("the disk is full", True)


def test_damaged_failure_note_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "fault.txt"
    for text in ("{", "[]", "[" * 100_000):
        path.write_text(text, encoding="utf-8")
        assert read_note(path) is None


def test_unwritable_failure_note_raises_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    write_note(tmp_path / "file" / "fault.txt", FailureNote("x"))
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    assert list(find_runs(tmp_path / "none")) == []
    for number, name in enumerate(("old", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.json").write_text("{}", encoding="utf-8")
        (tmp_path / name / "checkpoints").mkdir()
        os.utime(tmp_path / name / "recipe.json", (1000 + number, 1000 + number))
    (tmp_path / "other").mkdir()
    (tmp_path / "file").touch()
    assert [run.path.name for run in find_runs(tmp_path)] == ["new", "old"]


def test_resumed_run_that_was_killed_is_not_paused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.recipe.touch()
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    counts = {"iterations": 90, "labelled": 1, "unlabelled": 0, "validation": 0, "device": "cpu"}
    log = EventLog(run.events)
    log(RunStarted(iteration=0, resumed=False, **counts))  # type: ignore[arg-type]
    log(RunPaused(iteration=30))
    assert run_state(run).state == PAUSED
    log(RunStarted(iteration=30, resumed=True, **counts))  # type: ignore[arg-type]
    state = run_state(run)
    assert (state.state, state.iteration, state.resumable) == (FAILED, 30, True)
    assert state.reason.startswith(KILLED)


def test_run_that_could_not_write_is_paused_only_if_it_has_a_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.recipe.touch()
    write_note(run.failure, FailureNote("the disk is full", unwritten=True))
    assert (run_state(run).state, run_state(run).resumable) == (FAILED, False)
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    assert (run_state(run).state, run_state(run).resumable) == (PAUSED, True)


def test_run_that_failed_to_start_shows_the_last_line_of_its_log(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.log.write_text("dcamt: cases.csv: lacks the column 'role'.\n\n", encoding="utf-8")
    assert (run_state(run).state, run_state(run).reason) == (FAILED, "cases.csv: lacks the column 'role'.")


def test_watching_prints_all_events_until_the_run_ends(
    tmp_path: Path, table: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    assert call_dcamt(["train", "--run", tmp_path / "none", "--watch"]) == 1
    assert "holds no run to watch" in capfd.readouterr().err
    assert call_dcamt(["train", table, "--run", run.path, "--watch"]) == 2
    process = start_long_run(table, run)
    wait_until(lambda: run.recipe.exists())
    watcher = subprocess.Popen(
        [interpreter(), "-m", "dcamt", "train", "--run", str(run.path), "--watch", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    wait_until(lambda: event_kinds(run).count("validation") > 3)
    write_request(run, PAUSE)
    process.wait(HANGING_S)
    shown, _ = watcher.communicate(timeout=HANGING_S)
    assert watcher.returncode == 0
    assert [json.loads(text)["event"] for text in shown.splitlines()] == event_kinds(run)
    capfd.readouterr()
    assert call_dcamt(["train", "--run", run.path, "--watch"]) == 0
    text = capfd.readouterr().out
    assert "starting at iteration 0 of 100000 on cpu; cases: 1 labelled, 1 unlabelled, 1 validation" in text
    assert text.rstrip().endswith(f"paused at iteration {run_state(run).iteration} of 100000")


def test_watching_a_stopped_run_does_not_call_it_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path)
    run.recipe.write_text("{}", encoding="utf-8")
    log = EventLog(run.events)
    log(RunStarted(0, 100, 1, 0, 0, "cpu", False))
    log(RunFinished(50, "model.dcamt", 30.0))
    assert call_dcamt(["train", "--run", run.path, "--watch"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "starting at iteration 0 of 100 on cpu; cases: 1 labelled, 0 unlabelled, 0 validation",
        "trained for 0:30",
        f"model: {run.model}",  # the event has another path, as if the run had been moved
        "stopped at iteration 50 of 100",
    ]


def test_watching_does_not_import_torch(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}", encoding="utf-8")
    code = "import sys; from dcamt import cli; cli.main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "--run", str(tmp_path), "--watch"],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_stopping_an_untrained_paused_run_writes_no_model(
    tmp_path: Path, table: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer = new_trainer(tmp_path / "run", table, "iterations=2")
    trainer.save()
    assert call_dcamt(["train", "--run", str(tmp_path / "run"), "--stop", "--device", "cpu"]) == 1
    message = f"{tmp_path / 'run'}: was not trained yet, so it has no model to write. Resume the run, or remove"
    assert message in capfd.readouterr().err
    assert not trainer.run.model.exists()
    state = run_state(trainer.run)
    assert (state.state, state.resumable) == (PAUSED, True)
    assert message in state.reason


def test_stopping_an_untrained_failed_run_keeps_the_reason_of_the_failure(
    tmp_path: Path, table: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer = new_trainer(tmp_path / "run", table, "iterations=2")
    trainer.save()
    note = FailureNote("the losses are no longer finite at iteration 1")
    write_note(trainer.run.failure, note)
    assert call_dcamt(["train", "--run", str(tmp_path / "run"), "--stop", "--device", "cpu"]) == 1
    assert "was not trained yet, so it has no model to write" in capfd.readouterr().err
    assert read_note(trainer.run.failure) == note
