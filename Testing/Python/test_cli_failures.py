"""`dcamt segment` reports a full disk and other failures of the computer in one line, and leaves folders unchanged."""

from __future__ import annotations

import errno
import os
import tempfile
import zipfile
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from dcamt.io import atomic
from dcamt_testing.processes import call_dcamt, check_error_line, content_of, run_with_file_size_limit
from dcamt_testing.synthetic import save_noise_scan


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return save_noise_scan(tmp_path / "scan.nii.gz")


def test_missing_gpu_is_refused(
    saved_model: Path, scan: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    absent = [
        name
        for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
        if not there
    ]
    assert absent, "this machine has both kinds of GPU"
    for name in absent:
        arguments = ["segment", scan, "-o", tmp_path / "out", "--model", saved_model, "--device", name]
        assert call_dcamt(arguments) == 1
        check_error_line(capfd.readouterr().err, name, "--device auto")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux's /proc")
def test_unwritable_folder_is_refused(saved_model: Path, scan: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for output in ("/proc/new/out", "/proc/self/x.nrrd"):
        assert call_dcamt(["segment", scan, "-o", output, "--model", saved_model]) == 1
        check_error_line(capfd.readouterr().err, output)


@pytest.mark.parametrize("form", ["seg.nrrd", "nrrd", "nii.gz"])
@pytest.mark.parametrize("agreement", [False, True])
def test_full_disk_leaves_folders_unchanged(
    saved_model: Path,
    scan: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    agreement: bool,
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (f"scan.{form}", f"scan_agreement.{form.removeprefix('seg.')}"):
        (out / name).write_text("earlier", encoding="utf-8")
    before = content_of(tmp_path)
    files_written_before_the_failure = 1 if agreement else 0
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > files_written_before_the_failure:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    arguments = ["segment", scan, "-o", out, "--format", form, "--model", saved_model, "--overwrite"]
    assert call_dcamt([*arguments, *(["--agreement"] if agreement else [])]) == 1
    assert calls
    check_error_line(capfd.readouterr().err, str(out / "scan"), "disk is full")
    monkeypatch.undo()
    assert content_of(tmp_path) == before


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX limits")
@pytest.mark.parametrize("form", ["seg.nrrd", "nrrd", "nii.gz"])
def test_write_refused_by_the_system_leaves_no_file(saved_model: Path, scan: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["segment", scan, "-o", out, "--format", form, "--model", saved_model]
    arguments += ["--measurements", tmp_path / "m.csv"]
    done = run_with_file_size_limit(40, arguments)
    assert (done.returncode, done.stdout) == (1, "")
    check_error_line(done.stderr, str(out / f"scan.{form}"), "would exceed the largest file size")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["out", "scan.nii.gz"]


@pytest.mark.parametrize(
    ("raised", "parts"),
    [
        (MemoryError(), ("scan.nii.gz", "memory", "close other programs")),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate\nmemory"),
            ("scan.nii.gz", "memory", "close other programs"),
        ),
        (OSError(errno.EIO, "Input/output error"), ("scan.nii.gz", "Input/output error")),
        (ZeroDivisionError("float\ndivision"), ("scan.nii.gz", "ZeroDivisionError: float division", "report")),
        (KeyboardInterrupt(), ("cancelled",)),
    ],
)
def test_exception_during_inference_is_reported_in_one_line(
    saved_model: Path,
    scan: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    parts: tuple[str, ...],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("dcamt.inference.predictor.predict_bounded", fail)
    arguments = ["segment", scan, "-o", tmp_path / "out", "--model", saved_model]
    assert call_dcamt(arguments) == 1
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1
    for part in parts:
        assert part in errors
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]
    if isinstance(raised, ZeroDivisionError):
        monkeypatch.setenv("DCAMT_TRACEBACK", "1")
        assert call_dcamt(arguments) == 1
        assert "Traceback" in capfd.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot remove a process's working folder")
def test_removed_working_folder_is_reported(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for path in (scan.name, scan):
        assert call_dcamt(["segment", path, "-o", tmp_path / "out"]) == 1
        check_error_line(capsys.readouterr().err, "dcamt: the working folder was removed")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]


@pytest.mark.parametrize("is_full", [False, True])
def test_if_a_zip_file_cannot_be_extracted_the_error_names_the_temporary_folder(
    saved_model: Path,
    scan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_full: bool,
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        if is_full:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        archive.write(scan, scan.name)
    if is_full:
        monkeypatch.setattr(zipfile.ZipFile, "extractall", refuse)
    else:
        monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert call_dcamt(["segment", tmp_path / "scan.zip", "-o", tmp_path / "out", "--model", saved_model]) == 1
    what = "cannot be extracted to the temporary folder" if is_full else "no temporary folder can be created"
    check_error_line(capsys.readouterr().err, f"{tmp_path / 'scan.zip'}: {what}", "TMPDIR")
