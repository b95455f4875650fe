"""Test `dcamt segment` with a signal or a closed stream: it keeps finished results and leaves no partial file."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from dcamt.commands.console import Console, StdoutLost
from dcamt.io.readers import read_labelmap
from dcamt_testing.processes import HANGING_S, call_dcamt, open_dcamt, read_until
from dcamt_testing.synthetic import NOISE_GRID, read_table, save_noise_scan

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
    # The folder holds the earlier result, an empty temporary file, and a half-written temporary file.
    assert len(list(out.iterdir())) == 3
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


SIGNALS_AT_EACH_WRITE = """
import os, signal, sys
from dcamt.commands import measurement_table, segment_session
from dcamt.io import atomic
numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
for number in numbers:
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
real_rename, real_table = os.replace, measurement_table.write_measurements_csv
def rename(source, target):
    if "s1" in str(target):
        os.kill(os.getpid(), {first})
    real_rename(source, target)
def write_table(*arguments):
    for number in numbers:
        os.kill(os.getpid(), number)
    real_table(*arguments)
os.replace, measurement_table.write_measurements_csv = rename, write_table
from dcamt.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)])
def test_signal_between_renames_leaves_all_files_new_and_further_signals_do_not_stop_the_table(
    noise_model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    scans = [save_noise_scan(tmp_path / f"s{n}.nrrd", n) for n in range(3)]
    out, table = tmp_path / "out", tmp_path / "m.csv"
    out.mkdir()
    for n in range(3):
        for end in (".seg.nrrd", "_probabilities.nrrd"):
            (out / f"s{n}{end}").write_bytes(b"earlier")
    arguments = ["segment", *scans, "-o", out, "--model", noise_model, "--measurements", table, "--overwrite"]
    arguments += ["--probabilities", "nrrd"]
    process = open_dcamt(*arguments, script=SIGNALS_AT_EACH_WRITE.format(first=int(number)))
    _, errors = process.communicate(timeout=HANGING_S)
    assert (process.returncode, errors) == (1, "dcamt: cancelled\n")
    earlier = {path.name for path in out.iterdir() if path.read_bytes() == b"earlier"}
    assert earlier == {"s2.seg.nrrd", "s2_probabilities.nrrd"}
    assert len(list(out.iterdir())) == 6
    assert measured_scans(table) == ["s0", "s1"]


def test_ctrl_c_while_the_arguments_are_read_prints_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dcamt.cli.build_parser", interrupt)
    assert call_dcamt(["models", "list"]) == 1
    assert capsys.readouterr().err == "dcamt: cancelled\n"
