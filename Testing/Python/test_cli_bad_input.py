"""`dcamt segment` answers invalid input or a failure with one line on stderr, and leaves folders unchanged."""

from __future__ import annotations

import errno
import gzip
import io
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from dcamt import cli
from dcamt_testing.processes import call_dcamt, run_with_file_size_limit

nib = pytest.importorskip("nibabel")
SHAPE = (16, 18, 12)


def random_voxels(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


def save_scan(path: Path, voxels: np.ndarray | None = None, spacing: tuple[float, ...] | None = None) -> None:
    """Write a scan with sform and qform, or without them if `spacing` (mm) is given."""
    image = nib.Nifti1Image(random_voxels() if voxels is None else voxels, None)
    image.header.set_xyzt_units("mm")
    if spacing is None:
        image.set_sform(np.diag([2.0, 2.0, 2.0, 1.0]), 1)
        image.set_qform(np.diag([2.0, 2.0, 2.0, 1.0]), 1)
    else:
        image.header["pixdim"][1:4] = spacing
        image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, path)


def content_of(folder: Path) -> dict[str, bytes | None]:
    """Return the bytes of each file below a folder, and None for each subfolder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def check_line(errors: str, *parts: str) -> None:
    """Fail unless `errors` is one line that starts with "dcamt" and contains `parts` and a remedy."""
    assert errors.count("\n") == 1, errors
    assert errors.startswith("dcamt"), errors
    assert "Traceback" not in errors
    assert "unexpected" not in errors
    assert ". " in errors, f"no remedy: {errors}"
    for part in parts:
        assert part in errors, errors


def voxels_with(value: float) -> np.ndarray:
    voxels = random_voxels()
    voxels[3, 4, 5] = value
    return voxels


def save_rgb(path: Path) -> None:
    color = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    color["R"] = random_voxels()
    nib.save(nib.Nifti1Image(color, np.eye(4)), path)


def save_truncated(path: Path) -> None:
    save_scan(path)
    path.write_bytes(path.read_bytes()[:4000])


def save_with_flipped_bits(path: Path) -> None:
    save_scan(path)
    data = bytearray(path.read_bytes())
    for place in range(20, len(data)):
        data[place] ^= 0xFF
    path.write_bytes(data)


def save_with_unknown_type(path: Path) -> None:
    save_scan(path)
    header = bytearray(gzip.decompress(path.read_bytes()))
    header[70:72] = (12345).to_bytes(2, "little")  # datatype: an unknown code
    path.write_bytes(gzip.compress(bytes(header)))


def save_with_flat_axes(path: Path) -> None:
    save_scan(path)
    header = bytearray(gzip.decompress(path.read_bytes()))
    header[312:328] = bytes(16)  # srow_z is 0, so all voxels lie in one plane
    header[252:254] = bytes(2)  # qform_code is 0; otherwise the qform would be used
    path.write_bytes(gzip.compress(bytes(header)))


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "does not exist"),
    "text": (lambda path: path.write_text("Dear radiologist,\n" * 50, encoding="utf-8"), "NIfTI"),
    "empty file": (lambda path: path.write_bytes(b""), "empty"),
    "truncated gzip": (save_truncated, "early"),
    "damaged gzip": (save_with_flipped_bits, "damaged compressed data"),
    "unknown voxel type": (save_with_unknown_type, "unknown type"),
    "2D": (lambda path: save_scan(path, random_voxels(SHAPE[:2])), "2D"),
    "4D": (lambda path: save_scan(path, random_voxels((*SHAPE, 3))), "3 volumes (4D)"),
    "RGB": (save_rgb, "colour"),
    "complex": (lambda path: save_scan(path, random_voxels().astype(np.complex64)), "complex"),
    "NaN": (lambda path: save_scan(path, voxels_with(np.nan)), "NaN or infinite values in 1 of "),
    "infinite": (lambda path: save_scan(path, voxels_with(-np.inf)), "NaN or infinite values in 1 of "),
    "constant": (lambda path: save_scan(path, np.full(SHAPE, 7, np.float32)), "blank"),
    "one slice": (lambda path: save_scan(path, random_voxels((16, 18, 1))), "one slice"),
    "one voxel": (lambda path: save_scan(path, random_voxels((1, 1, 1))), "single voxel"),
    "zero spacing": (lambda path: save_scan(path, spacing=(2.0, 0.0, 2.0)), "spacing"),
    "singular": (save_with_flat_axes, "spacing of zero"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_scan_is_refused_in_one_line(
    saved_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """The output is an existing folder, a new folder or a new file. `capfd` also captures what C libraries print."""
    make, message_part = UNUSABLE[name]
    scan, out = tmp_path / "scans" / "scan.nii.gz", tmp_path / "out"
    scan.parent.mkdir()
    out.mkdir()
    make(scan)
    (out / "scan.seg.nrrd").write_text("earlier", encoding="utf-8")
    before = content_of(tmp_path)
    for output in (out, tmp_path / "new" / "folder", tmp_path / "new.nii.gz"):
        exit_status = call_dcamt(
            ["segment", str(scan), "-o", str(output), "--model", str(saved_model), "--agreement", "--overwrite"]
        )
        printed = capfd.readouterr()
        assert (exit_status, printed.out) == (1, "")
        check_line(printed.err, str(scan), message_part)
        assert content_of(tmp_path) == before


@pytest.fixture
def inputs(saved_model: Path, tmp_path: Path) -> Path:
    """Write two scans of the same name, links to one scan, a text file, an empty folder and unusable models."""
    scan, other = tmp_path / "scan.nii.gz", tmp_path / "scan.nrrd"
    save_scan(scan)
    other.write_bytes(scan.read_bytes())
    (tmp_path / "linked.nii.gz").symlink_to(scan)
    os.link(scan, tmp_path / "hard.nii.gz")
    (tmp_path / "notes.txt").write_text("notes", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.dcamt").write_text("no model", encoding="utf-8")
    (tmp_path / "cut.dcamt").write_bytes(saved_model.read_bytes()[:-200])
    return tmp_path


@pytest.fixture
def check_refusals(inputs: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Return a function that fails unless `dcamt segment` refuses every given command with a message of one line.

    The function takes the expected exit status and, for each command, the arguments and parts of the message.
    """
    before = content_of(inputs)

    def check(status: int, command_lines: list[tuple[list, tuple[str, ...]]]) -> None:
        for arguments, parts in command_lines:
            try:
                exit_status = call_dcamt(["segment", *map(str, arguments)])
            except BaseException as error:
                raise AssertionError(arguments) from error
            printed = capfd.readouterr()
            assert exit_status == status, (arguments, printed.err)
            assert printed.out == "", arguments
            check_line(printed.err, *parts)
            assert content_of(inputs) == before, arguments

    return check


def test_unusable_paths_and_values_are_refused_in_one_line(
    saved_model: Path, inputs: Path, check_refusals: Callable[..., None]
) -> None:
    scan, other, file = inputs / "scan.nii.gz", inputs / "scan.nrrd", inputs / "notes.txt"
    out = ["-o", inputs / "out"]
    good = [*out, "--model", saved_model]
    check_refusals(
        1,
        [
            ([inputs / "empty", *good], ("empty",)),
            ([scan, "-o", scan, "--model", saved_model], ("scan.nii.gz", "replaced")),
            ([scan, "-o", inputs / "linked.nii.gz", "--model", saved_model], ("scan.nii.gz", "replaced")),
            ([scan, "-o", inputs / "hard.nii.gz", "--model", saved_model], ("scan.nii.gz", "replaced")),
            ([scan, "-o", inputs, "--format", "nii.gz", "--model", saved_model], ("scan.nii.gz", "replaced")),
            ([scan, *good, "--measurements", scan], ("scan.nii.gz", "table")),
            ([scan, *good, "--measurements", inputs / "empty"], ("empty", "is a folder")),
            ([scan, *good, "--measurements", file / "m.csv"], ("m.csv", "not a folder")),
            ([scan, other, *good], ("scan.nii.gz", str(other), "Rename")),
            ([scan, "-o", file / "deep" / "out", "--model", saved_model], ("notes.txt", "not a folder")),
            ([scan, "-o", file, "--model", saved_model], ("notes.txt", "not a folder")),
            ([scan, *out, "--model", "no-such-model"], ("no-such-model", "Available models")),
            ([scan, *out, "--model", inputs / "text.dcamt"], ("text.dcamt",)),
            ([scan, *out, "--model", inputs / "cut.dcamt"], ("cut.dcamt",)),
            ([scan, *out, "--model", inputs / "empty"], ("empty",)),
            ([scan, *out, "--model", scan], ("scan.nii.gz",)),
            ([scan, *good, "--roi", "1,2,3"], ("1,2,3", "RAS")),
            ([scan, *good, "--roi", "-1,2,3,4,nan,6"], ("nan", "RAS")),
            ([scan, *good, "--roi", "-900,-800,0,10,0,10"], ("scan.nii.gz", "outside")),
            ([scan, "x" * 300, *good], ("x" * 300,)),
            ([scan, *good, "--format", "dcm"], ("scan.nii.gz", "is not DICOM", "another file format")),
        ],
    )


def test_wrong_usage_is_refused_in_one_line(
    saved_model: Path, inputs: Path, check_refusals: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    scan, other, file = inputs / "scan.nii.gz", inputs / "scan.nrrd", inputs / "notes.txt"
    good = ["-o", inputs / "out", "--model", saved_model]
    check_refusals(
        2,
        [
            ([scan, file, "-o", inputs / "one.nii.gz", "--model", saved_model], ("one.nii.gz", "2 scans")),
            ([scan, "-o", inputs / "a.nrrd", "--format", "nii.gz", "--model", saved_model], ("a.nrrd", "nii.gz")),
            ([scan, *good, "--format", "dicom"], ("--format",)),
            ([scan, *good, "--measurements", inputs / "m.dcm"], ("--measurements", "--format dcm")),
            ([scan, *good, "--surface", inputs / "s.vtk"], ("s.vtk", ".stl, .obj, .ply, .vtp")),
            ([scan, other, *good, "--surface", inputs / "s.stl"], ("s.stl", "2 scans")),
            ([scan, *good, "--probabilities", inputs / "p.npy"], ("p.npy", ".nii.gz")),
            ([scan, *good, "--report", inputs / "r.pdf"], ("r.pdf", ".html")),
            ([scan, *good, "--identity"], ("--identity", "--report")),
            ([scan, *good, "--quality", "best"], ("--quality",)),
            ([scan, *good, "--device", "abacus"], ("--device",)),
            ([scan, *good, "--roi"], ("--roi",)),
            (["", *good], ("SCAN", "empty")),
            ([*good], ("SCAN",)),
            ([scan, "--model", saved_model], ("-o",)),
        ],
    )
    for arguments in ([], ["paint"]):
        assert call_dcamt(arguments) == 2
        check_line(capfd.readouterr().err, "dcamt --help")


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        *((end, end) for end in (".mha", ".nrrd.gz", ".mha.gz", ".img.gz", ".nhdr", ".seg.nhdr")),
        *((end, end) for end in (".hdr", ".png", ".stl", ".gz")),
        (".MHD", ".mhd"),
        (".seg.nrrd.gz", ".nrrd.gz"),
    ],
)
def test_output_of_an_unsupported_format_is_refused_in_one_line(
    saved_model: Path, inputs: Path, check_refusals: Callable[..., None], ending: str, kind: str
) -> None:
    arguments = [inputs / "scan.nii.gz", "-o", inputs / f"a{ending}", "--model", saved_model]
    check_refusals(2, [(arguments, (f"a{ending}", f"as {kind};", ".seg.nrrd, .nii.gz"))])


def test_missing_gpu_is_refused(saved_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    absent = [
        name
        for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
        if not there
    ]
    save_scan(tmp_path / "scan.nii.gz")
    assert absent, "this machine has both kinds of GPU"
    for name in absent:
        arguments = ["segment", str(tmp_path / "scan.nii.gz"), "-o", str(tmp_path / "out"), "--device", name]
        assert call_dcamt([*arguments, "--model", str(saved_model)]) == 1
        check_line(capfd.readouterr().err, name, "--device auto")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux's /proc")
def test_unwritable_folder_is_refused(saved_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_scan(tmp_path / "scan.nii.gz")
    for output in ("/proc/new/out", "/proc/self/x.nrrd"):
        assert call_dcamt(["segment", str(tmp_path / "scan.nii.gz"), "-o", output, "--model", str(saved_model)]) == 1
        check_line(capfd.readouterr().err, output)


@pytest.mark.parametrize("form", ["seg.nrrd", "nrrd", "nii.gz"])
@pytest.mark.parametrize("agreement", [False, True])
def test_full_disk_leaves_folders_unchanged(
    saved_model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    agreement: bool,
) -> None:
    """Without an agreement map, the first flush fails with ENOSPC; with a map, the second flush fails."""
    from dcamt.io import atomic

    scan, out = tmp_path / "scan.nii.gz", tmp_path / "out"
    save_scan(scan)
    out.mkdir()
    for name in (f"scan.{form}", f"scan_agreement.{form.removeprefix('seg.')}"):
        (out / name).write_text("earlier", encoding="utf-8")
    before = content_of(tmp_path)
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > agreement:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    arguments = ["segment", str(scan), "-o", str(out), "--format", form, "--model", str(saved_model), "--overwrite"]
    assert call_dcamt([*arguments, *(["--agreement"] if agreement else [])]) == 1
    assert calls
    check_line(capfd.readouterr().err, str(out / "scan"), "disk is full")
    monkeypatch.undo()
    assert content_of(tmp_path) == before


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX limits")
@pytest.mark.parametrize("form", ["seg.nrrd", "nrrd", "nii.gz"])
def test_write_refused_by_the_system_leaves_no_file(saved_model: Path, tmp_path: Path, form: str) -> None:
    """The operating system limits the size of files that the command's process writes."""
    scan, out = tmp_path / "scan.nii.gz", tmp_path / "out"
    save_scan(scan)
    out.mkdir()
    arguments = ["segment", scan, "-o", out, "--format", form, "--model", saved_model]
    arguments += ["--measurements", tmp_path / "m.csv"]
    done = run_with_file_size_limit(40, arguments)
    assert (done.returncode, done.stdout) == (1, "")
    check_line(done.stderr, str(out / f"scan.{form}"), "would exceed the largest file size")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["out", "scan.nii.gz"]


@pytest.mark.parametrize(
    ("raised", "parts"),
    [
        (MemoryError(), ("scan.nii.gz", "memory", "Close other programs")),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate\nmemory"),
            ("scan.nii.gz", "memory", "Close other programs"),
        ),
        (OSError(errno.EIO, "Input/output error"), ("scan.nii.gz", "Input/output error")),
        (ZeroDivisionError("float\ndivision"), ("scan.nii.gz", "ZeroDivisionError: float division", "report")),
        (KeyboardInterrupt(), ("cancelled",)),
    ],
)
def test_exception_during_inference_is_reported_in_one_line(
    saved_model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    parts: tuple[str, ...],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("dcamt.inference.predictor.predict_bounded", fail)
    scan = tmp_path / "scan.nii.gz"
    save_scan(scan)
    arguments = ["segment", str(scan), "-o", str(tmp_path / "out"), "--model", str(saved_model)]
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


def test_output_of_libraries_is_not_printed(
    saved_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ignores warnings, although the test turns warnings into errors.

    The command also disables logging until the command ends.
    """
    import logging
    import warnings

    from dcamt.networks.dual_vnet import DualVNet

    genuine, received = DualVNet.forward, []

    def chatty(*arguments: object, **named: object) -> object:
        warnings.warn("one, two, three", UserWarning, stacklevel=1)
        received.append(logging.getLogger("chatty").isEnabledFor(logging.CRITICAL))
        return genuine(*arguments, **named)

    monkeypatch.setattr(DualVNet, "forward", chatty)
    save_scan(tmp_path / "scan.nii.gz", random_voxels() * 0 + np.arange(SHAPE[2], dtype=np.float32))
    arguments = ["segment", tmp_path / "scan.nii.gz", "-o", tmp_path / "out.nrrd", "--model", saved_model]
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
    save_scan(tmp_path / "scan.nii.gz")
    (tmp_path / "scan.nii.gz").rename(tmp_path / name)
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


def test_link_that_leads_to_itself_is_refused_as_scan_and_as_folder_of_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, link = tmp_path / "scan.nii.gz", tmp_path / "loop"
    save_scan(scan)
    try:
        link.symlink_to(link.name)
    except OSError:
        pytest.skip("the system allows no links")
    assert cli.main(["segment", str(scan), "-o", str(link / "x.nii.gz")]) == 1
    assert f"{link} is not a folder" in capsys.readouterr().err
    assert cli.main(["picture", str(link), str(scan), "-o", str(tmp_path / "x.png")]) == 1
    assert f"{link}: is a link to a missing file" in capsys.readouterr().err


def test_scan_that_is_a_link_to_a_missing_file_is_named_as_such(
    saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "scan.nii.gz"
    try:
        link.symlink_to(".git/annex/objects/gone.nii.gz")
    except OSError:
        pytest.skip("the system allows no links")
    assert cli.main(["segment", str(link), "-o", str(tmp_path / "out"), "--model", str(saved_model)]) == 1
    check_line(capsys.readouterr().err, f"{link}: is a link to a missing file", "git annex get")


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_label_that_is_a_link_to_a_missing_file_is_skipped_as_a_label(
    saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_scan(tmp_path / "p1.nii.gz")
    (tmp_path / "p1_label.nii.gz").symlink_to("gone")
    assert cli.main(["segment", str(tmp_path), "-o", str(tmp_path / "out"), "--model", str(saved_model)]) == 0
    errors = capsys.readouterr().err
    assert f"{tmp_path}: skipped labels, automatic results and further channels (p1_label.nii.gz)." in errors
    assert "dataset.json" not in errors


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the working folder of a process")
def test_removed_working_folder_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_scan(tmp_path / "scan.nii.gz")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for scan in ("scan.nii.gz", str(tmp_path / "scan.nii.gz")):
        assert cli.main(["segment", scan, "-o", str(tmp_path / "out")]) == 1
        check_line(capsys.readouterr().err, "dcamt: the working folder was removed")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]


@pytest.mark.parametrize("is_full", [False, True])
def test_zip_file_that_cannot_be_extracted_to_the_temporary_folder_is_not_called_damaged(
    saved_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_full: bool,
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        if is_full:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    save_scan(tmp_path / "scan.nii.gz")
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        archive.write(tmp_path / "scan.nii.gz", "scan.nii.gz")
    if is_full:
        monkeypatch.setattr(zipfile.ZipFile, "extractall", refuse)
    else:
        monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    arguments = ["segment", str(tmp_path / "scan.zip"), "-o", str(tmp_path / "out"), "--model", str(saved_model)]
    assert cli.main(arguments) == 1
    what = "cannot be extracted to the temporary folder" if is_full else "no temporary folder can be created"
    check_line(capsys.readouterr().err, f"{tmp_path / 'scan.zip'}: {what}", "TMPDIR")
