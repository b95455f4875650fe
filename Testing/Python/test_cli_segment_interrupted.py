"""Test `dcamt segment` with a signal or a closed stream: it keeps finished results and leaves no partial file."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dcamt.api.segmentation import Segmenter
from dcamt.commands.console import Console, StdoutLost
from dcamt.commands.scan_jobs import ScanJob
from dcamt.commands.segment_session import write_results
from dcamt.errors import write_error
from dcamt.io.readers import read_labelmap
from dcamt_testing.processes import HANGING_S, call_dcamt, open_dcamt, read_until
from dcamt_testing.synthetic import NOISE_GRID, read_table, save_noise_scan
from dcamt_testing.warm_python import interpreter

SLOW_WRITER = """
import sys, time
import nrrd
from dcamt import cli

def write(file, *rest, **more):
    open(file, "wb").write(b"half")
    print("writing", flush=True)
    for _ in range(1200):  # short sleeps: Python handles a signal after the current sleep at the latest
        time.sleep(0.05)

nrrd.write = write
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_writing_leaves_no_partial_file(
    noise_model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    scan, out = save_noise_scan(tmp_path / "x.nii.gz"), tmp_path / "out"
    out.mkdir()
    (out / "x.nrrd").write_text("earlier", encoding="utf-8")
    arguments = ["segment", scan, "-o", out, "--format", "nrrd", "--model", noise_model, "--overwrite"]
    process = open_dcamt(*arguments, script=SLOW_WRITER)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert len(list(out.iterdir())) == 2  # the earlier result and the half-written temporary file
    process.send_signal(number)
    _, errors = process.communicate(timeout=HANGING_S)
    assert process.returncode == 1
    assert errors == "dcamt: cancelled\n"
    assert [(path.name, path.read_text(encoding="utf-8")) for path in out.iterdir()] == [("x.nrrd", "earlier")]


def measured_scans(table: Path) -> list[str]:
    return [row["scan"] for row in read_table(table)]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_during_inference_keeps_the_finished_results(noise_model: Path, tmp_path: Path) -> None:
    scan, out, table = save_noise_scan(tmp_path / "x.nii.gz"), tmp_path / "out", tmp_path / "m.csv"
    scans = [scan.with_name(f"x{n}.nii.gz") for n in range(200)]
    for path in scans:
        os.link(scan, path)
    process = open_dcamt("segment", *scans, "-o", out, "--model", noise_model, "--json", "--measurements", table)
    read_until(process, "segmented")
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=HANGING_S)
    assert process.returncode == 1
    assert errors == "dcamt: cancelled\n"
    finished = 1 + sum(json.loads(line)["event"] == "segmented" for line in rest.splitlines())
    assert finished < 200
    # One more result may have been written before its event was printed.
    assert finished <= len(list(out.iterdir())) <= finished + 1
    for path in out.iterdir():
        assert not path.name.startswith(".")
        assert read_labelmap(path).voxels.shape == NOISE_GRID.shape
    measured = measured_scans(table)
    assert finished <= len(measured) <= len(list(out.iterdir()))
    assert measured == [f"x{n}" for n in range(len(measured))]


@pytest.mark.parametrize("fault", [StdoutLost("gone"), KeyboardInterrupt()])
@pytest.mark.parametrize("as_json", [True, False])
def test_table_of_an_interrupted_command_lists_every_written_result(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, as_json: bool
) -> None:
    """The command writes the third of four results; then Ctrl-C or the loss of stdout interrupts the printing."""
    scans = [save_noise_scan(tmp_path / f"s{number}.nrrd", number) for number in range(4)]
    out, table = tmp_path / "out", tmp_path / "m.csv"
    print_line, results = Console.print_line, []

    def fail_at_third_result(self: Console, text: str) -> None:
        if '"segmented"' in text or " mL" in text:
            results.append(text)
            if len(results) == 3:
                raise fault
        print_line(self, text)

    monkeypatch.setattr(Console, "print_line", fail_at_third_result)
    arguments = ["segment", *scans, "-o", out, "--model", noise_model, "--measurements", table]
    assert call_dcamt([*arguments, "--json"] if as_json else arguments) == 1
    names = [f"s{number}" for number in range(3)]
    assert sorted(path.name for path in out.iterdir()) == [f"{name}.seg.nrrd" for name in names]
    assert measured_scans(table) == names


def test_no_table_is_written_when_no_scan_was_segmented(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dcamt.commands.segment_session.read_scan", stop)
    scan, table = save_noise_scan(tmp_path / "x.nrrd"), tmp_path / "m.csv"
    arguments = ["segment", scan, "-o", tmp_path / "out", "--model", noise_model, "--measurements", table]
    assert call_dcamt(arguments) == 1
    assert not table.exists()


def test_closed_stdout_causes_no_traceback(noise_model: Path, tmp_path: Path) -> None:
    scan = save_noise_scan(tmp_path / "x.nrrd")
    arguments = ["segment", scan, "-o", tmp_path / "out", "--model", noise_model, "--json"]
    read, write = os.pipe()
    os.close(read)
    command = [interpreter(), "-m", "dcamt", *map(str, arguments)]
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=HANGING_S, check=False, encoding="utf-8"
    )
    os.close(write)
    assert done.returncode == 1
    assert done.stderr.startswith("dcamt: stopped")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_error_is_not_printed_to_stdout_when_stderr_is_closed(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`print(..., file=sys.stderr)` writes to stdout if sys.stderr is None; an error line there would not be JSON."""
    (tmp_path / "bad.nrrd").write_text("no image", encoding="utf-8")
    arguments = ["segment", tmp_path / "bad.nrrd", "-o", tmp_path / "out", "--model", noise_model, "--json"]
    monkeypatch.setattr(sys, "stderr", None)
    assert call_dcamt(arguments) == 1
    printed_events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert printed_events[-2:] == ["failed", "done"]


def test_progress_bar_is_drawn_only_on_a_terminal_and_then_removed(
    noise_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pty = pytest.importorskip("pty")
    scan = save_noise_scan(tmp_path / "x.nrrd")
    arguments = ["segment", scan, "-o", tmp_path / "out.nrrd", "--model", noise_model, "--overwrite"]
    command = [interpreter(), "-m", "dcamt", *map(str, arguments)]
    leader, follower = pty.openpty()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=follower, timeout=HANGING_S, check=True)
    os.close(follower)
    drawn = b""
    try:
        while part := os.read(leader, 4096):
            drawn += part
    except OSError:  # Linux reports the end of the stream by this error
        pass
    os.close(leader)
    assert b"[###" in drawn
    assert drawn.endswith(b"\r\x1b[K")
    assert b"[#" not in done.stdout
    assert call_dcamt(arguments) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert len(printed.out.splitlines()) == 3


def test_table_of_a_killed_command_is_completed_with_skip_existing(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a killed command, s0 and s1 have segmentations but no table. Later, the result of s2 is deleted."""
    scans = [save_noise_scan(tmp_path / f"s{number}.nrrd", number) for number in range(4)]
    out, table = tmp_path / "out", tmp_path / "m.csv"
    segment = ["segment", *scans, "-o", out, "--model", noise_model, "--measurements", table]
    assert call_dcamt([*segment[:3], *segment[5:-2]]) == 0  # s0 and s1, without a table
    assert call_dcamt([*segment, "--skip-existing"]) == 0
    message = f"{table}: skipped scans measured from their segmentations: 2. Their expected overlap is unknown."
    assert message in capsys.readouterr().err
    rows = read_table(table)
    assert [row["scan"] for row in rows] == ["s0", "s1", "s2", "s3"]
    whole = tmp_path / "whole.csv"
    assert call_dcamt(["segment", *scans, "-o", tmp_path / "again", *segment[-4:-1], whole]) == 0
    columns = ("segment", "volume_ml", "surface_cm2", "long_diameter_mm", "sphericity")
    assert [[row[key] for key in columns] for row in rows] == [
        [row[key] for key in columns] for row in read_table(whole)
    ]

    (out / "s2.seg.nrrd").unlink()
    assert call_dcamt([*segment, "--skip-existing"]) == 0
    assert sorted(measured_scans(table)) == ["s0", "s1", "s2", "s3"]


def test_table_keeps_rows_of_different_scans_with_the_same_name(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "m.csv"
    for number, patient in enumerate(("a", "b")):
        scan = save_noise_scan(tmp_path / patient / "lge.nrrd", number)
        arguments = ["segment", scan, "-o", tmp_path / f"{patient}.seg.nrrd", "--model", noise_model]
        assert call_dcamt([*arguments, "--measurements", table, "--skip-existing"]) == 0
    assert measured_scans(table) == ["lge", "lge"]
    assert f"{table}: has earlier, different rows of lge. " in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 on this system")
def test_skipped_scan_whose_name_is_not_utf8_has_one_row(noise_model: Path, tmp_path: Path) -> None:
    table, name = tmp_path / "m.csv", "M\udcfcller.nrrd"
    scan = save_noise_scan(tmp_path / "s.nrrd").rename(tmp_path / name)
    for _ in range(2):
        arguments = ["segment", scan, "-o", tmp_path / "out", "--model", noise_model]
        assert call_dcamt([*arguments, "--measurements", table, "--skip-existing"]) == 0
    assert measured_scans(table) == ["M\\udcfcller"]


def test_table_of_another_kind_is_refused_before_any_scan_is_segmented(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "m.csv"
    table.write_text("patient,age\n", encoding="utf-8")
    arguments = ["segment", save_noise_scan(tmp_path / "s.nrrd"), "-o", tmp_path / "out", "--model", noise_model]
    assert call_dcamt([*arguments, "--measurements", table, "--skip-existing"]) == 1
    assert f"{table}: is not a table of measurements" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_failures_of_scans_are_printed_even_if_the_table_cannot_be_written(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(rows: object, path: Path) -> None:
        raise write_error(OSError(errno.ENOSPC, "No space left on device"), path)

    monkeypatch.setattr("dcamt.commands.measurement_table.write_measurements_csv", fail)
    scan, damaged, table = save_noise_scan(tmp_path / "s.nrrd"), tmp_path / "t.nrrd", tmp_path / "m.csv"
    damaged.write_bytes(scan.read_bytes()[:2000])
    arguments = ["segment", scan, damaged, "-o", tmp_path / "out", "--model", noise_model, "--measurements", table]
    assert call_dcamt(arguments) == 1
    printed = capsys.readouterr()
    assert f"{table}: the disk is full" in printed.err
    assert f"{damaged}: " in printed.err
    assert "1 of 2 scans segmented" in printed.out
    assert f"measurements: {table}" not in printed.out


@pytest.mark.parametrize(("option", "status"), [([], 1), (["--skip-existing"], 0), (["--overwrite"], 0)])
def test_file_that_another_program_writes_meanwhile_is_replaced_only_with_overwrite(
    noise_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: list[str],
    status: int,
) -> None:
    """While the first scan is segmented, somebody saves an outline of the second scan in the folder of the results."""
    scans = [save_noise_scan(tmp_path / f"s{number}.nrrd", number) for number in range(2)]
    out = tmp_path / "out"

    def write_and_save(job: ScanJob, *rest: Any) -> None:
        write_results(job, *rest)
        if job.name == "s0":
            (out / "s1.seg.nrrd").write_text("drawn by hand", encoding="utf-8")

    monkeypatch.setattr("dcamt.commands.segment_session.write_results", write_and_save)
    assert call_dcamt(["segment", *scans, "-o", out, "--model", noise_model, *option]) == status
    is_kept = (out / "s1.seg.nrrd").read_bytes() == b"drawn by hand"
    assert is_kept == (option != ["--overwrite"])
    message = f"{out / 's1.seg.nrrd'}: was written by another program after this command had begun"
    printed = capsys.readouterr()
    assert (message in printed.err) == is_kept
    assert f"{1 if is_kept else 2} of 2 scans segmented" in printed.out


def test_file_that_another_program_writes_while_the_model_is_loaded_is_kept(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, result = save_noise_scan(tmp_path / "s.nrrd"), tmp_path / "s.seg.nrrd"
    load = Segmenter.load

    def load_and_save(*arguments: Any) -> Segmenter:
        result.write_text("drawn by hand", encoding="utf-8")
        return load(*arguments)

    monkeypatch.setattr(Segmenter, "load", load_and_save)
    assert call_dcamt(["segment", scan, "-o", result, "--model", noise_model]) == 1
    assert result.read_bytes() == b"drawn by hand"
