"""`dcamt segment` answers invalid input with one line on stderr, and leaves folders unchanged."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dcamt.cases.case_list import read_cases
from dcamt_testing.processes import call_dcamt, check_error_line, content_of
from dcamt_testing.synthetic import write_cases_folder

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


def save_with_header(path: Path, changes: dict[int, bytes]) -> None:
    save_scan(path)
    data = bytearray(gzip.decompress(path.read_bytes()))
    for start, new in changes.items():
        data[start : start + len(new)] = new
    path.write_bytes(gzip.compress(bytes(data)))


UNKNOWN_TYPE = {70: (12345).to_bytes(2, "little")}  # datatype
FLAT_AXES = {
    312: bytes(16),  # srow_z is 0, so all voxels lie in one plane
    252: bytes(2),  # qform_code is 0, so the qform is not used
}
UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "does not exist"),
    "text": (lambda path: path.write_text("Dear radiologist,\n" * 50, encoding="utf-8"), "NIfTI"),
    "empty file": (lambda path: path.write_bytes(b""), "empty"),
    "truncated gzip": (save_truncated, "early"),
    "damaged gzip": (save_with_flipped_bits, "damaged compressed data"),
    "unknown voxel type": (lambda path: save_with_header(path, UNKNOWN_TYPE), "unknown type"),
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
    "singular": (lambda path: save_with_header(path, FLAT_AXES), "spacing of zero"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_scan_is_refused_in_one_line(
    saved_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """`capfd` also captures what C libraries print."""
    make, message_part = UNUSABLE[name]
    scan, out = tmp_path / "scans" / "scan.nii.gz", tmp_path / "out"
    scan.parent.mkdir()
    out.mkdir()
    make(scan)
    (out / "scan.seg.nrrd").write_text("earlier", encoding="utf-8")
    before = content_of(tmp_path)
    for output in (out, tmp_path / "new" / "folder", tmp_path / "new.nii.gz"):
        arguments = ["segment", scan, "-o", output, "--model", saved_model, "--agreement", "--overwrite"]
        exit_status = call_dcamt(arguments)
        printed = capfd.readouterr()
        assert (exit_status, printed.out) == (1, "")
        check_error_line(printed.err, str(scan), message_part)
        assert content_of(tmp_path) == before


@pytest.fixture
def inputs(saved_model: Path, tmp_path: Path) -> Path:
    """Write scans, links and unusable files; return their folder."""
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
            exit_status = call_dcamt(["segment", *arguments])
            printed = capfd.readouterr()
            assert exit_status == status, (arguments, printed.err)
            assert printed.out == "", arguments
            check_error_line(printed.err, *parts)
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
            (["x" * 300, *good], ("x" * 300, "does not exist")),
            ([scan, *good, "--format", "dcm"], ("scan.nii.gz", "was not read from DICOM", "another file format")),
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
            ([scan, *good, "--surface", ""], ("--surface", "the name is empty")),
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
        check_error_line(capfd.readouterr().err, "dcamt --help")


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


def test_link_that_leads_to_itself_is_refused_as_scan_and_as_folder_of_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, link = tmp_path / "scan.nii.gz", tmp_path / "loop"
    save_scan(scan)
    try:
        link.symlink_to(link.name)
    except OSError:
        pytest.skip("the system allows no links")
    assert call_dcamt(["segment", scan, "-o", link / "x.nii.gz"]) == 1
    assert f"{link} is not a folder" in capsys.readouterr().err
    assert call_dcamt(["picture", link, scan, "-o", tmp_path / "x.png"]) == 1
    assert f"{link}: is a link that leads to itself" in capsys.readouterr().err


def test_scan_that_is_a_link_to_a_missing_file_is_refused(
    saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "scan.nii.gz"
    try:
        link.symlink_to(".git/annex/objects/gone.nii.gz")
    except OSError:
        pytest.skip("the system allows no links")
    assert call_dcamt(["segment", link, "-o", tmp_path / "out", "--model", saved_model]) == 1
    check_error_line(capsys.readouterr().err, f"{link}: is a link to a missing file", "git annex get")


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_label_that_is_a_link_to_a_missing_file_is_skipped(
    saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_scan(tmp_path / "p1.nii.gz")
    (tmp_path / "p1_label.nii.gz").symlink_to("gone")
    assert call_dcamt(["segment", tmp_path, "-o", tmp_path / "out", "--model", saved_model]) == 0
    errors = capsys.readouterr().err
    assert f"{tmp_path}: skipped files that are labels " in errors
    assert "(p1_label.nii.gz)." in errors
    assert "dataset.json" not in errors


def test_tilde_at_the_beginning_of_a_path_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    write_cases_folder(home / "cases", labelled=1)
    assert call_dcamt(["cases", "find", "~/cases", "--output=~/found.csv"]) == 0
    found = read_cases(home / "found.csv")
    for listed in ("~/cases/{}", "'~/cases/{}'", "~\\cases\\{}"):
        row = f"x,{listed.format(found[0].image.name)},,unlabelled"
        (work / "cases.csv").write_text(f"name,image,label,role\n{row}\n", encoding="utf-8")
        assert read_cases(work / "cases.csv", for_training=False)[0].image == found[0].image
    capsys.readouterr()
    for command in (["models", "show", "~/gone.dcamt"], ["recipe", "suggest", "~/gone.csv", "-o", "~/r.json"]):
        assert call_dcamt(command) == 1
        assert str(home / "gone") in capsys.readouterr().err
    assert [path.name for path in work.iterdir()] == ["cases.csv"]


def test_files_in_a_folder_named_tilde_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cases_folder(tmp_path / "~", labelled=1, unlabelled=0, validation=0)
    monkeypatch.chdir(tmp_path)
    assert call_dcamt(["cases", "find", ".", "-o", "cases.csv"]) == 0
    assert call_dcamt(["cases", "check", "cases.csv"]) == 0


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["segment", "x.nii", "-o", "out", "--model", ""], "--model"),
        (["segment", "x.nii", "-o", "out", "--surface", ""], "--surface"),
        (["segment", "x.nii", "-o", "out", "--series", ""], "--series"),
        (["train", "cases.csv", "--run", "run", "--recipe", ""], "--recipe"),
        (["train", "cases.csv", "--run", "run", "--start-from", ""], "--start-from"),
        (["models", "import", "x.dcamt", "--name", ""], "--name"),
        (["models", "show", ""], "NAME_OR_FILE"),
    ],
)
def test_empty_name_is_wrong_usage(arguments: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_dcamt(arguments) == 2
    assert f"argument {name}: the name is empty. See: dcamt" in capsys.readouterr().err
