"""`dcamt segment` gives the same results in two processes as in one."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from dcamt.distributed import Team, TeamLost
from dcamt.io.readers import read_labelmap
from dcamt.io.writers import write_volume
from dcamt.volume import Volume
from dcamt_testing.processes import HANGING_S, call_dcamt, open_dcamt, own_lines, run_team
from dcamt_testing.synthetic import NOISE_GRID, noise_scan, read_table, save_noise_scan
from dcamt_testing.warm_python import interpreter

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")

REGION = "-1000,1000,-1000,1000,-1000,1000"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(5):
        save_noise_scan(folder / f"s{number}.nii.gz", number)
    (folder / "s3.nii.gz").write_bytes(b"not a scan")
    return folder


@dataclass(frozen=True)
class CommandResult:
    status: int
    output: str
    errors: str


def segment_as_team(*arguments: str | Path) -> CommandResult:
    """Run `dcamt segment` in two processes, without torchrun, which takes seconds to start."""
    return CommandResult(*run_team(2, "segment", *arguments))


@pytest.fixture
def segment_alone(capfd: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    def segment(*arguments: str | Path) -> CommandResult:
        capfd.readouterr()
        status = call_dcamt(["segment", *arguments])
        printed = capfd.readouterr()
        return CommandResult(status, printed.out, printed.err)

    return segment


def test_two_processes_give_the_same_results_as_one(
    noise_model: Path, scans: Path, tmp_path: Path, segment_alone: Callable[..., CommandResult]
) -> None:
    event_names, tables, outputs = [], [], []
    for name, segment in (("alone", segment_alone), ("team", segment_as_team)):
        out, table = tmp_path / name, tmp_path / f"{name}.csv"
        arguments = [scans, "-o", out, "--model", noise_model, "--format", "nii.gz", "--quality", "accurate"]
        arguments += ["--device", "cpu", "--roi", REGION, "--agreement", "--measurements", table, "--json"]
        ended = segment(*arguments)
        assert ended.status == 1, ended.errors
        (line,) = own_lines(ended.errors)
        assert "s3.nii.gz" in line
        events = [json.loads(line) for line in ended.output.splitlines()]
        assert events[-1] == {"event": "done", "scans": 5, "failed": 1, "notes": []}
        assert sum(one["event"] == "done" for one in events) == 1
        assert {one["of"] for one in events if one["event"] == "progress"} == {5}
        event_names.append(sorted((one["event"], Path(one["scan"]).name) for one in events if one["event"] != "done"))
        tables.append(read_table(table))
        outputs.append({path.name: path for path in out.iterdir()})
    assert event_names[0] == event_names[1]
    assert [row["scan"] for row in tables[1]] == ["s0", "s1", "s2", "s4"]
    assert tables[0] == tables[1]
    assert set(outputs[0]) == set(outputs[1])
    assert len(outputs[0]) == 8  # four segmentations, each with an agreement map
    for name in ("s0.nii.gz", "s1.nii.gz", "s2.nii.gz", "s4.nii.gz"):
        one, two = (read_labelmap(output[name]).voxels for output in outputs)
        assert np.array_equal(one, two)


def test_masks_are_skipped_in_each_process(noise_model: Path, scans: Path, tmp_path: Path) -> None:
    for name in ("q", "r"):
        write_volume(Volume((noise_scan().voxels > 300).astype(np.float32), NOISE_GRID), scans / f"{name}.nii.gz")
    (scans / "s3.nii.gz").unlink()
    ended = segment_as_team(scans, "-o", tmp_path / "out", "--model", noise_model, "--json")
    assert ended.status == 0, ended.errors
    done = json.loads(ended.output.splitlines()[-1])
    assert (done["scans"], done["failed"]) == (4, 0)
    assert sorted(f"dcamt: {note}" for note in done["notes"]) == sorted(own_lines(ended.errors))
    assert [note.split(": is skipped")[0] for note in done["notes"]] == [str(scans / f"{n}.nii.gz") for n in "qr"]


def test_lines_of_two_processes_are_not_mixed(noise_model: Path, scans: Path) -> None:
    (scans / "s3.nii.gz").unlink()
    ended = segment_as_team(scans, "-o", scans, "--model", noise_model)  # results beside the scans
    assert ended.status == 0, ended.errors
    lines = ended.output.splitlines()
    assert lines[-1] == "4 of 4 scans segmented"
    assert len(lines) == 13
    for number in (0, 1, 2, 4):
        at = next(index for index, line in enumerate(lines) if line.startswith(f"s{number}: "))
        assert lines[at + 1].startswith(f"s{number}: segmented in ")
        assert lines[at + 2] == f"segmentation: {scans / f's{number}.seg.nrrd'}"
    assert own_lines(ended.errors) == []


KILLED_AT_A_SCAN = """
import os, signal, sys, time
from dcamt.commands import segment_session
real = segment_session.SegmentSession._segment_scan
def segment_scan(self, number):
    job = self.jobs[number]
    if "deadly" in job.scan.name:
        while not job.segmentation.with_name("s0.seg.nrrd").exists():
            time.sleep(0.1)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)  # ends the process without any clean-up
    return real(self, number)
segment_session.SegmentSession._segment_scan = segment_scan
write_results = segment_session.write_results
def write_with_coarse_time(job, *rest):
    write_results(job, *rest)
    hour = time.time() // 3600 * 3600
    os.utime(job.segmentation, (hour, hour))
segment_session.write_results = write_with_coarse_time
from dcamt.cli import main
sys.exit(main())
"""


def test_when_a_process_is_killed_results_are_kept_and_scans_without_a_result_are_named(
    noise_model: Path, scans: Path, tmp_path: Path
) -> None:
    """Each result gets a file time before the command's start, as on a file system that rounds times down.

    The command must still count the results.
    """
    (scans / "s3.nii.gz").rename(scans / "s3_deadly.nii.gz")
    script = tmp_path / "killed.py"
    script.write_text(KILLED_AT_A_SCAN, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    out, table = tmp_path / "out", tmp_path / "out.csv"
    arguments = ["segment", str(scans), "-o", str(out), "--model", str(noise_model), "--measurements", str(table)]
    home = Path(__file__).resolve().parents[2] / "DCAMTSegmentation"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(home)}
    result = subprocess.run(
        [interpreter(), *launcher, *arguments],
        capture_output=True,
        text=True,
        timeout=HANGING_S,
        check=False,
        env=environment,
        encoding="utf-8",
    )
    assert result.returncode != 0
    written = {path.name.split(".")[0] for path in out.iterdir()}
    (message,) = (line for line in own_lines(result.stderr) if "without a result" in line)
    assert "s3_deadly" in message
    for name in ("s0", "s1", "s2", "s4"):
        assert (name in written) is (name not in message)
    missing = len(message.split("without a result: ")[1].split(". ")[0].split(", "))
    assert f"{5 - missing} of 5 scans segmented" in result.stdout.splitlines() or "cancelled" in result.stderr
    # The other process was killed, so the team's first process writes a table of only its own scans: s0, s2 and s4.
    assert {row["scan"] for row in read_table(table)} == written & {"s0", "s2", "s4"}


def test_if_another_process_ends_after_the_last_scan_the_error_does_not_ask_to_segment_again(
    noise_model: Path,
    scans: Path,
    tmp_path: Path,
    segment_alone: Callable[..., CommandResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lose_team(self: Team, value: object) -> None:
        raise TeamLost("another process has ended")

    monkeypatch.setattr(Team, "gather", lose_team)
    ended = segment_alone(scans / "s0.nii.gz", "-o", tmp_path / "out", "--model", noise_model)
    assert ended.status == 1
    (message,) = own_lines(ended.errors)
    assert "all segmentations were written" in message
    assert "again" not in message


TERMINATED_AT_EACH_LINE_AFTER_THE_LOSS = """
import os, signal, sys
from dcamt.commands.console import Console
from dcamt.distributed import Team, TeamLost
def lose_team(self, value):
    def print_text(self, text):
        os.kill(os.getpid(), signal.SIGTERM)
        real(self, text)
    Console.print_text = print_text
    raise TeamLost("another process has ended")
real, Team.gather = Console.print_text, lose_team
from dcamt.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_after_the_loss_of_a_process_sigterm_does_not_end_the_leader_before_the_summary(
    noise_model: Path, scans: Path, tmp_path: Path
) -> None:
    table = tmp_path / "out.csv"
    arguments = ["segment", scans, "-o", tmp_path / "out", "--model", noise_model, "--measurements", table]
    with open_dcamt(*arguments, script=TERMINATED_AT_EACH_LINE_AFTER_THE_LOSS) as process:
        output, errors = process.communicate(timeout=HANGING_S)
    assert process.returncode == 1
    assert output.splitlines()[-2:] == [f"measurements: {table}", "4 of 5 scans segmented"]
    lost, failed = own_lines(errors)
    assert lost.endswith("; some measurements may be missing")
    assert "s3.nii.gz" in failed


HELD_AT_THE_SECOND_SCAN = """
import sys, time
from dcamt.commands import segment_session
real = segment_session.SegmentSession._segment_scan
def segment_scan(self, number):
    if number == 0:
        return real(self, number)
    print("held", flush=True)
    while True:
        time.sleep(0.01)
segment_session.SegmentSession._segment_scan = segment_scan
from dcamt.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_interrupted_command_writes_the_table_of_finished_scans(noise_model: Path, scans: Path, tmp_path: Path) -> None:
    table = tmp_path / "out.csv"
    arguments = ["segment", scans, "-o", tmp_path / "out", "--model", noise_model, "--measurements", table, "--json"]
    with open_dcamt(*arguments, script=HELD_AT_THE_SECOND_SCAN) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "held\n" in process.stdout
        process.terminate()
        process.stdout.read()
        messages = own_lines(process.stderr.read())
    assert process.returncode == 1
    assert [row["scan"] for row in read_table(table)] == ["s0"]
    assert messages == ["dcamt: cancelled"]


def test_one_warning_for_a_skipped_folder_and_none_for_the_output_folder(
    noise_model: Path, scans: Path, tmp_path: Path, segment_alone: Callable[..., CommandResult]
) -> None:
    (scans / "patient1").mkdir()
    # Only s0 remains, so the team has fewer scans than processes.
    for number in range(1, 5):
        (scans / f"s{number}.nii.gz").unlink()
    ended = segment_as_team(scans, "-o", tmp_path / "out", "--model", noise_model)
    assert ended.status == 0, ended.errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["s0.seg.nrrd"]
    (line,) = own_lines(ended.errors)
    assert "skipped folders beside the scans (patient1)" in line
    (scans / "patient1").rename(scans / "out")
    ended = segment_alone(scans, "-o", scans / "out", "--model", noise_model)
    assert (ended.status, own_lines(ended.errors)) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--roi", "1,2,3"], 1), (["--model", "no-such-model"], 1), (["--quality", "fast", "--agreement"], 2)],
    ids=["region", "model", "usage"],
)
def test_failure_that_ends_the_team_is_reported_once(
    arguments: list[str],
    status: int,
    noise_model: Path,
    scans: Path,
    tmp_path: Path,
    segment_alone: Callable[..., CommandResult],
) -> None:
    arguments = [*(["--model", str(noise_model)] if "--model" not in arguments else []), *arguments]
    alone = segment_alone(scans, "-o", tmp_path / "out", *arguments)
    assert alone.status == status
    team = segment_as_team(scans, "-o", tmp_path / "out", *arguments)
    assert team.status != 0
    assert own_lines(team.errors) == own_lines(alone.errors) != []
    assert not (tmp_path / "out").exists()
