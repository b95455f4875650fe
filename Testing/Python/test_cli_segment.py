"""`dcamt segment` with a tiny random model: its files, read by other libraries and compared with `Predictor`."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dcamt import cli
from dcamt.commands.console import Console, StdoutLost
from dcamt.commands.scan_jobs import expand_scan_path
from dcamt.geometry import Grid
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.io.writers import write_volume
from dcamt.volume import Volume
from dcamt_testing.processes import HANGING_S, forget_packages, open_dcamt, read_until
from dcamt_testing.synthetic import save_tiny_model
from dcamt_testing.tiny_recipes import tiny_recipe
from dcamt_testing.warm_python import interpreter

# Axes are permuted and flipped, so that RAS, LPS and voxel axes all differ.
AFFINE = np.array([[0.0, -1.5, 0.0, 20.0], [2.0, 0.0, 0.0, -30.0], [0.0, 0.0, 2.5, 5.0], [0.0, 0.0, 0.0, 1.0]])
SHAPE = (22, 26, 18)
EVERYWHERE = ["--roi", "-1000,1000,-1000,1000,-1000,1000"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model with random weights that segments part of random noise, but not all."""
    from dcamt.inference.predictor import Predictor
    from dcamt.models.package import open_model

    recipe = tiny_recipe("largest_component=false")
    path = tmp_path_factory.mktemp("models") / "tiny.dcamt"
    scan = read_scan(save_scan(path.with_name("scan.nrrd")))
    for seed in range(100):
        predictor = Predictor(open_model(save_tiny_model(path, recipe, seed)))
        shares = [predictor.segment(scan, quality).labelmap.voxels.mean() for quality in ("fast", "accurate")]
        if all(0.1 < share < 0.9 for share in shares):
            return path
    raise AssertionError("no such network among a hundred")


def save_scan(path: Path, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Path:
    voxels = np.random.default_rng(seed).normal(300, 80, (1, *shape)).astype(np.float32)
    write_volume(Volume(voxels, Grid(shape, AFFINE)), path)
    return path


def events(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    """Return the events on stdout; fail if a line is not JSON."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def run_dcamt_process(*arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
    command = [interpreter(), "-m", "dcamt", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=HANGING_S, check=False, **{"encoding": "utf-8", **options}
    )


@pytest.mark.parametrize("form", ["seg.nrrd", "nii.gz", "nrrd"])
def test_result_of_every_format_lies_on_the_grid_of_the_scan(model: Path, tmp_path: Path, form: str) -> None:
    """Other libraries read the results: all formats hold the same voxels at the same RAS positions."""
    sitk = pytest.importorskip("SimpleITK")
    scan = save_scan(tmp_path / "a.b.nii.gz")
    assert cli.main(["segment", str(scan), "-o", str(tmp_path / "out"), "--format", form, "--model", str(model)]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"a.b.{form}"]
    image, source = sitk.ReadImage(str(tmp_path / "out" / f"a.b.{form}")), sitk.ReadImage(str(scan))
    assert image.GetSize() == source.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(image, name)() == pytest.approx(getattr(source, name)(), abs=1e-4)
    reference = tmp_path / "reference.nii.gz"
    assert cli.main(["segment", str(scan), "-o", str(reference), "--model", str(model)]) == 0
    voxels = sitk.GetArrayFromImage(image)
    assert 0 < voxels.sum() < voxels.size
    assert (voxels == sitk.GetArrayFromImage(sitk.ReadImage(str(reference)))).all()


def test_json_holds_agreement_and_measurements(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, out, table = save_scan(tmp_path / "x.nrrd"), tmp_path / "deep" / "out", tmp_path / "tables" / "m.csv"
    arguments = ["segment", scan, "-o", out, "--model", model, "--agreement", "--measurements", table, "--json"]
    assert cli.main([str(argument) for argument in arguments]) == 0
    printed_events = events(capsys)
    assert [one["event"] for one in printed_events[-2:]] == ["segmented", "done"]
    assert printed_events[-1] == {"event": "done", "scans": 1, "failed": 0}
    fractions = [one["fraction"] for one in printed_events[:-2]]
    assert {one["event"] for one in printed_events[:-2]} == {"progress"}
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    result = printed_events[-2]
    assert {Path(result["segmentation"]), Path(result["agreement"])} == set(out.iterdir())
    nrrd = pytest.importorskip("nrrd")
    agreement, _ = nrrd.read(result["agreement"])
    assert agreement.shape == SHAPE
    assert agreement.min() >= 0
    assert agreement.max() <= 1 + 1e-6
    assert np.ptp(agreement) > 0
    # The volume is computed here: number of voxels times 1.5 x 2 x 2.5 mm3.
    count = np.count_nonzero(read_labelmap(result["segmentation"]).voxels)
    (measured,) = result["measurements"]
    assert measured["volume_ml"] == pytest.approx(count * 7.5e-3)
    with open(table, newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["scan"], row["segment"]) == ("x", "Left atrium")
    assert float(row["volume_ml"]) == pytest.approx(count * 7.5e-3, rel=1e-5)


def test_fast_quality_uses_branch_a_only_and_gives_no_agreement(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = save_scan(tmp_path / "x.nrrd")
    base = ["segment", str(scan), "--model", str(model), "--quality", "fast"]
    assert cli.main([*base, "-o", str(tmp_path / "fast.nrrd"), "--json"]) == 0
    assert events(capsys)[-2]["trust"] is None
    with pytest.raises(SystemExit) as caught:
        cli.main([*base, "-o", str(tmp_path / "no.nrrd"), "--agreement"])
    assert caught.value.code == 2
    assert not (tmp_path / "no.nrrd").exists()


def test_region_limits_the_result_and_may_begin_with_a_minus_sign(model: Path, tmp_path: Path) -> None:
    """The positions of the voxel centres (RAS mm) are computed here from the affine."""
    scan, out = save_scan(tmp_path / "x.nrrd"), tmp_path / "out.nrrd"
    base = ["segment", str(scan), "--model", str(model), "-o", str(out), "--overwrite"]
    assert cli.main([*base, *EVERYWHERE]) == 0
    whole = read_labelmap(out).voxels
    box = "-12,10,-22,2.5,8,40"
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)
    ras = index @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    inside = ((ras >= (-12, -22, 8)) & (ras <= (10, 2.5, 40))).all(axis=-1)
    assert whole[~inside].any()
    for arguments in ([f"--roi={box}"], ["--roi", box], ["--roi", "10,-12,-22,2.5,40,8"]):
        assert cli.main([*base, *arguments]) == 0
        limited = read_labelmap(out).voxels
        assert limited.any()
        assert not limited[~inside].any()
        np.testing.assert_array_equal(limited, whole * inside)


def test_other_files_in_a_folder_of_scans_are_skipped(model: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    for name in ("la1_image.nii.gz", "la2.nrrd", "la3_label.nrrd"):
        save_scan(scans / name)
    # A label beside its scan, a result, a table, and the hidden file that macOS writes on other file systems.
    save_scan(scans / "la1_label.nii.gz")
    (scans / "la2.seg.nrrd").write_bytes(b"")
    (scans / "cases.csv").write_text("x", encoding="utf-8")
    (scans / "._la2.nrrd").write_bytes(b"x")
    assert cli.main(["segment", str(scans), "-o", str(tmp_path / "out"), "--model", str(model)]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["la1_image.seg.nrrd", "la2.seg.nrrd", "la3_label.seg.nrrd"]


def test_failing_scan_does_not_stop_the_others_and_is_reported_at_the_end(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [save_scan(tmp_path / f"s{number}.nii.gz", number) for number in range(3)]
    scans[1].write_text("no image", encoding="utf-8")
    out, table = tmp_path / "out", tmp_path / "m.csv"
    base = [
        "segment",
        *map(str, scans),
        str(tmp_path / "gone.nrrd"),
        "-o",
        str(out),
        "--model",
        str(model),
        "--overwrite",
    ]
    assert cli.main([*base, "--measurements", str(table)]) == 1
    printed = capsys.readouterr()
    errors = printed.err.splitlines()
    assert len(errors) == 2
    assert str(scans[1]) in errors[0]
    assert "gone.nrrd" in errors[1]
    assert "2 of 4 scans segmented" in printed.out
    assert sorted(path.name for path in out.iterdir()) == ["s0.seg.nrrd", "s2.seg.nrrd"]
    with open(table, newline="", encoding="utf-8") as file:
        assert [row["scan"] for row in csv.DictReader(file)] == ["s0", "s2"]
    assert cli.main([*base, "--json"]) == 1
    printed_events = events(capsys)
    assert [one["scan"] for one in printed_events if one["event"] == "failed"] == [
        str(scans[1]),
        str(tmp_path / "gone.nrrd"),
    ]
    assert printed_events[-1] == {"event": "done", "scans": 4, "failed": 2}


def test_progress_bar_is_drawn_only_on_a_terminal_and_removed(model: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    scan = save_scan(tmp_path / "x.nrrd")
    arguments = [
        interpreter(),
        "-m",
        "dcamt",
        "segment",
        scan,
        "-o",
        tmp_path / "out.nrrd",
        "--model",
        model,
        "--overwrite",
    ]
    leader, follower = pty.openpty()
    done = subprocess.run(
        [*map(str, arguments)], stdout=subprocess.PIPE, stderr=follower, timeout=HANGING_S, check=True
    )
    os.close(follower)
    drawn = b""
    try:
        while part := os.read(leader, 4096):
            drawn += part
    except OSError:  # on Linux, the other end is closed
        pass
    os.close(leader)
    assert b"[###" in drawn
    assert drawn.endswith(b"\r\x1b[K")
    assert b"[#" not in done.stdout
    piped = run_dcamt_process(*arguments[3:])
    assert (piped.returncode, piped.stderr) == (0, "")
    assert len(piped.stdout.splitlines()) == 3


SLOW_WRITER = """
import sys, time
import nrrd
from dcamt import cli

def write(file, *rest, **more):
    open(file, "wb").write(b"half")
    print("writing", flush=True)
    for _ in range(1200):  # short sleeps, because Python handles a signal only after the current one
        time.sleep(0.05)

nrrd.write = write
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_writing_leaves_no_partial_file(model: Path, tmp_path: Path, number: signal.Signals) -> None:
    scan, out = save_scan(tmp_path / "x.nii.gz"), tmp_path / "out"
    out.mkdir()
    (out / "x.nrrd").write_text("earlier", encoding="utf-8")
    arguments = ["segment", scan, "-o", out, "--format", "nrrd", "--model", model, "--overwrite"]
    process = open_dcamt(*arguments, script=SLOW_WRITER)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert len(list(out.iterdir())) == 2  # the result and the half-written temporary file
    process.send_signal(number)
    _, errors = process.communicate(timeout=HANGING_S)
    assert process.returncode == 1
    assert errors == "dcamt: cancelled\n"
    assert [(path.name, path.read_text(encoding="utf-8")) for path in out.iterdir()] == [("x.nrrd", "earlier")]


def measured_scans(table: Path) -> list[str]:
    with open(table, newline="", encoding="utf-8") as file:
        return [row["scan"] for row in csv.DictReader(file)]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_during_inference_keeps_the_finished_results(model: Path, tmp_path: Path) -> None:
    scan, out, table = save_scan(tmp_path / "x.nii.gz"), tmp_path / "out", tmp_path / "m.csv"
    arguments = [
        "segment",
        *[scan.with_name(f"x{n}.nii.gz") for n in range(200)],
        "-o",
        out,
        "--model",
        model,
        "--json",
    ]
    for path in arguments[1:201]:
        os.link(scan, path)
    arguments += ["--measurements", table]
    process = open_dcamt(*arguments)
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
        assert read_labelmap(path).voxels.shape == SHAPE
    measured = measured_scans(table)
    assert finished <= len(measured) <= len(list(out.iterdir()))
    assert measured == [f"x{n}" for n in range(len(measured))]


@pytest.mark.parametrize("fault", [StdoutLost("gone"), KeyboardInterrupt()])
@pytest.mark.parametrize("as_json", [True, False])
def test_table_lists_every_written_result_when_interrupted(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, as_json: bool
) -> None:
    """The interrupt comes while the command reports the third of four scans, which is already written."""
    scans = [save_scan(tmp_path / f"s{number}.nrrd", number) for number in range(4)]
    out, table = tmp_path / "out", tmp_path / "m.csv"
    line, printed_events = Console.print_line, []

    def line_until(self: Console, text: str) -> None:
        if '"segmented"' in text or " mL" in text:
            printed_events.append(text)
            if len(printed_events) == 3:
                raise fault
        line(self, text)

    monkeypatch.setattr(Console, "print_line", line_until)
    arguments = ["segment", *scans, "-o", out, "--model", model, "--measurements", table, *["--json"][: int(as_json)]]
    assert cli.main([str(argument) for argument in arguments]) == 1
    names = [f"s{number}" for number in range(3)]
    assert sorted(path.name for path in out.iterdir()) == [f"{name}.seg.nrrd" for name in names]
    assert measured_scans(table) == names


def test_no_table_is_written_when_no_scan_was_segmented(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dcamt.commands.segment_session.read_scan", stop)
    scan, table = save_scan(tmp_path / "x.nrrd"), tmp_path / "m.csv"
    arguments = ["segment", scan, "-o", tmp_path / "out", "--model", model, "--measurements", table]
    assert cli.main([str(argument) for argument in arguments]) == 1
    assert not table.exists()


@pytest.mark.parametrize("form", ["seg.nrrd", "nii.gz", "nrrd"])
def test_agreement_maps_are_neither_scans_nor_segmentations(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    scans, out, again = tmp_path / "scans", tmp_path / "out", tmp_path / "again"
    for number in range(2):
        save_scan(scans / f"la{number}.nrrd", number)
    arguments = ["segment", scans, "--model", model, "--agreement"]
    assert cli.main([str(argument) for argument in (*arguments, "-o", out, "--format", form)]) == 0
    end = "nrrd" if form == "seg.nrrd" else form
    expected = {f"la{n}.{form}" for n in range(2)} | {f"la{n}_agreement.{end}" for n in range(2)}
    assert {path.name for path in out.iterdir()} == expected
    capsys.readouterr()
    # The folder is compared with itself, so that agreement maps lie beside both predictions and labels.
    assert cli.main(["evaluate", "--predictions", str(out), "--labels", str(out), "--json"]) == 0
    scores = [one for one in events(capsys) if one["event"] == "score"]
    assert [(one["case"], one["dice"]) for one in scores] == [("la0", 1.0), ("la1", 1.0), ("mean", 1.0), ("std", 0.0)]
    if form == "seg.nrrd":  # results beside the scans are not taken for scans
        for path in out.iterdir():
            path.rename(scans / path.name)
        assert cli.main([str(argument) for argument in (*arguments, "-o", again)]) == 0
        assert {path.name for path in again.iterdir()} == expected


def test_agreement_map_without_its_segmentation_is_a_scan(tmp_path: Path) -> None:
    for name in ("x_agreement.nrrd", "y.nrrd", "z.seg.nrrd", "z_agreement.nrrd"):
        (tmp_path / name).touch()
    assert [path.name for path in expand_scan_path(tmp_path)] == ["x_agreement.nrrd", "y.nrrd"]


def test_help_version_and_model_list_import_no_heavy_package(tmp_path: Path) -> None:
    """All commands run in one process, in which each finds what the earlier ones imported."""
    commands = (
        *("--help", "--version", "models list", "segment --help", "train --help", "evaluate --help", "models --help"),
        *("models import --help", "segment gone.nii -o x"),
    )
    script = (
        "import sys; from dcamt import cli\n"
        "for command in sys.argv[1:]:\n"
        "    try: code = cli.main(command.split())\n"
        "    except SystemExit as end: code = end.code\n"
        "    heavy = {'torch', 'scipy', 'SimpleITK', 'nibabel', 'nrrd', 'slicerio', 'matplotlib'} & set(sys.modules)\n"
        "    print('loaded', sorted(heavy), code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *commands],
        capture_output=True,
        text=True,
        env=os.environ | {"DCAMT_HOME": str(tmp_path)},
        check=True,
        encoding="utf-8",
    )
    loaded = [line for line in done.stdout.splitlines() if line.startswith("loaded")]
    assert loaded == [*["loaded [] 0"] * (len(commands) - 1), "loaded [] 1"]
    for command in commands:
        if command.endswith(" --help"):
            assert f"example:\n  dcamt {command.removesuffix(' --help')}" in done.stdout


def test_nifti_and_nrrd_are_segmented_without_simpleitk(model: Path, tmp_path: Path) -> None:
    scan = save_scan(tmp_path / "x.nii.gz")
    unused = ("SimpleITK", "matplotlib", "pandas", "skimage")
    script = (
        f"{forget_packages(*unused)}from dcamt import cli; code = cli.main(sys.argv[1:])\n"
        f"print(code, {set(unused)} & set(sys.modules))"
    )
    arguments = ["segment", scan, "-o", tmp_path / "x.seg.nrrd", "--model", model, "--json"]
    done = subprocess.run(
        [interpreter(), "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stdout.splitlines()[-1] == "0 set()"
    assert done.stderr == ""


def test_closed_stdout_causes_no_traceback(model: Path, tmp_path: Path) -> None:
    scan = save_scan(tmp_path / "x.nrrd")
    arguments = ["segment", scan, "-o", tmp_path / "out", "--model", model, "--json"]
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


def test_error_is_not_printed_to_stdout_when_stderr_is_closed(model: Path, tmp_path: Path) -> None:
    """`print` writes to stdout if sys.stderr is None; an error line there would not be JSON."""
    (tmp_path / "bad.nrrd").write_text("no image", encoding="utf-8")
    arguments = ["segment", tmp_path / "bad.nrrd", "-o", tmp_path / "out", "--model", model, "--json"]
    script = "import sys; sys.stderr = None; from dcamt import cli; sys.exit(cli.main(sys.argv[1:]))"
    done = subprocess.run(
        [interpreter(), "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 1
    printed_events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert printed_events[-2:] == ["failed", "done"]
