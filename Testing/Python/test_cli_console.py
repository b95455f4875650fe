"""Test what `dcamt segment` prints to stdout and stderr."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from dcamt.commands import console
from dcamt.commands.console import Console
from dcamt.networks.dual_vnet import DualVNet
from dcamt_testing.processes import HANGING_S, call_dcamt
from dcamt_testing.synthetic import save_noise_scan, write_nifti
from dcamt_testing.warm_python import interpreter


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
    """If `sys.stderr` is None, `print(..., file=sys.stderr)` writes to stdout."""
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


def test_control_characters_of_names_are_escaped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, printer = "a\x1b[31m\x9b2J\r\n\tb", Console(as_json=False)
    printer.print_text(f"{name}: segmented", f"segmentation: {name}.seg.nrrd")
    first, second = capsys.readouterr().out.removesuffix("\n").split("\n")
    monkeypatch.setattr(console, "_is_terminal", lambda: True)
    printer.show_progress(name, 0.5)
    bar = capsys.readouterr().err.removeprefix("\r\x1b[K")
    assert bar.isprintable()
    for line in (first, second, bar):
        assert line.replace("\t", " ").isprintable()
        assert all(visible in line for visible in ("a\\x1b[31m", "b"))


def test_output_of_libraries_is_not_printed(
    saved_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ignores warnings, although the test turns warnings into errors.

    The command also disables logging until the command ends.
    """
    genuine, received = DualVNet.forward, []

    def chatty(*arguments: object, **named: object) -> object:
        warnings.warn("one, two, three", UserWarning, stacklevel=1)
        received.append(logging.getLogger("chatty").isEnabledFor(logging.CRITICAL))
        return genuine(*arguments, **named)

    monkeypatch.setattr(DualVNet, "forward", chatty)
    scan = write_nifti(tmp_path / "scan.nii.gz", np.ones((16, 18, 1)) * np.arange(12, dtype=np.float32))
    arguments = ["segment", scan, "-o", tmp_path / "out.nrrd", "--model", saved_model]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call_dcamt(arguments) == 0
        assert warnings.filters[0][0] == "error"  # the caller's filters are unchanged
    errors = capfd.readouterr().err
    assert "three" not in errors
    assert received == [False]
    assert not logging.root.manager.disable


@pytest.mark.skipif(os.name == "nt", reason="file names are not bytes on this system")
def test_characters_that_the_terminal_cannot_encode_are_escaped(
    saved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsdecode("vorhof_ä_\udcff.nii.gz".encode("utf-8", "surrogateescape"))
    save_noise_scan(tmp_path / "scan.nii.gz").rename(tmp_path / name)
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
    for stream, terminal in streams.items():
        monkeypatch.setattr(sys, stream, terminal)
    assert call_dcamt(["segment", tmp_path / name, "-o", tmp_path / "out", "--model", saved_model]) == 0
    printed = {}
    for stream, terminal in streams.items():
        terminal.flush()
        printed[stream] = terminal.buffer.getvalue()  # type: ignore[attr-defined]
    assert printed["stderr"] == b""
    assert b"vorhof_\\xe4_\\udcff.seg.nrrd" in printed["stdout"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name.replace(".nii.gz", ".seg.nrrd")]
