"""The result files of `dcamt wall`: existing and incomplete results, and files that other programs write meanwhile."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from dcamt.errors import write_error
from dcamt.io.tables import write_table
from dcamt.io.writers import write_labelmap
from dcamt.volume import Labelmap, Volume
from dcamt.wall.analysis import WallResult, analyse_wall
from dcamt.wall.files import WALL_COLUMNS, write_wall_csv
from dcamt_testing.processes import HANGING_S, call_dcamt, open_dcamt
from dcamt_testing.synthetic import read_table, save_tiny_model
from dcamt_testing.tiny_recipes import tiny_recipe
from dcamt_testing.wall_cases import SCAN, add_case, measure_folder, measure_scan

pytestmark = pytest.mark.usefixtures("coarse_pictures")


@pytest.fixture
def folder(wall_phantom: tuple[Volume, Labelmap], tmp_path: Path) -> Path:
    add_case(tmp_path, wall_phantom, "a")
    return tmp_path


def test_existing_results_are_refused_or_skipped(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], capsys: pytest.CaptureFixture[str]
) -> None:
    add_case(folder, wall_phantom, "b")
    out = folder / "out"
    assert measure_scan(folder) == 0
    surface = out / "a_image.wall.vtp"
    before = surface.stat().st_mtime_ns
    capsys.readouterr()
    assert measure_folder(folder) == 1
    assert f"{surface}: exists already. " in capsys.readouterr().err
    assert not (out / "b_image.wall.vtp").exists()
    assert measure_folder(folder, "--skip-existing") == 0
    assert "skipped scans that have results already: 1 of 2" in capsys.readouterr().err
    assert surface.stat().st_mtime_ns == before
    assert [row["scan"] for row in read_table(out / "wall.csv")] == ["a_image"] * 13 + ["b_image"] * 13
    for path in out.glob("b_image*"):
        path.unlink()
    (out / "a_image.wall.csv").unlink()
    surface.unlink()
    assert measure_folder(folder, "--skip-existing") == 0
    assert surface.stat().st_mtime_ns != before
    assert [row["scan"] for row in read_table(out / "wall.csv")].count("b_image") == 13


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_table_of_interrupted_work_is_completed_later(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """The table of all scans is lost. The rows of a finished scan are then read from the scan's own table.

    If the user opened the scan's own table in Excel and saved it, the table has the encoding utf-8-sig.
    """
    add_case(folder, wall_phantom, "b")
    table = folder / "out" / "wall.csv"

    def read_or_interrupt(path: Path) -> Volume:
        if path.name == "b_image.nrrd":
            raise KeyboardInterrupt
        return wall_phantom[0]

    with monkeypatch.context() as patched:
        patched.setattr("dcamt.commands.wall.read_scan", read_or_interrupt)
        assert measure_folder(folder) != 0
    own_table = folder / "out" / "a_image.wall.csv"
    own = read_table(own_table)
    assert read_table(table) == own
    own_table.write_text(own_table.read_text(encoding="utf-8"), encoding=encoding)
    table.unlink()  # lost, for example in a power failure
    assert measure_folder(folder, "--skip-existing") == 0
    assert read_table(table) == own + read_table(folder / "out" / "b_image.wall.csv")


def test_scan_whose_own_table_has_other_separators_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In many countries, Excel separates the cells by semicolons."""
    assert measure_folder(folder) == 0
    own_table, table = folder / "out" / "a_image.wall.csv", folder / "out" / "wall.csv"
    own_table.write_text(own_table.read_text(encoding="utf-8").replace(",", ";"), encoding="utf-8-sig")
    before = table.read_bytes()
    capsys.readouterr()
    assert measure_folder(folder, "--skip-existing") == 0
    assert f"{own_table}: is not a table of wall measurements" in capsys.readouterr().err
    assert table.read_bytes() == before
    own_table.unlink()
    assert measure_folder(folder, "--skip-existing") == 0
    assert "is not a table" not in capsys.readouterr().err
    assert read_table(own_table)


@pytest.mark.parametrize("lost", ["a_image.wall.vtp", "a_image.wall.csv"])
def test_scan_that_lacks_one_of_its_two_result_files_is_measured_again(folder: Path, lost: str) -> None:
    """One file is missing if a command was killed after it had renamed one temporary file, but not yet the other."""
    assert measure_folder(folder) == 0
    (folder / "out" / lost).unlink()
    assert measure_folder(folder, "--skip-existing") == 0
    assert (folder / "out" / lost).exists()


def test_note_names_a_scan_whose_segmentation_changed_after_the_measurement(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], capsys: pytest.CaptureFixture[str]
) -> None:
    add_case(folder, wall_phantom, "b")
    assert measure_folder(folder) == 0
    written = (folder / "out" / "a_image.wall.csv").stat().st_mtime
    for name, seconds in (("a", 3600), ("b", 5)):
        os.utime(folder / "labels" / f"{name}_label.nii.gz", (written + seconds, written + seconds))
    capsys.readouterr()
    assert measure_folder(folder, "--skip-existing") == 0
    message = "skipped scans whose results are older than the segmentation and may be outdated: a_image. "
    assert message in capsys.readouterr().err


def test_file_of_another_program_is_kept_with_skip_existing(folder: Path) -> None:
    surface = folder / "out" / "a_image.wall.vtp"
    surface.parent.mkdir()
    surface.write_text("other", encoding="utf-8")
    assert measure_folder(folder, "--skip-existing") == 0
    assert [path.read_bytes() for path in surface.parent.iterdir()] == [b"other"]


@pytest.mark.parametrize("option", [[], ["--skip-existing"], ["--overwrite"]])
def test_rows_that_another_process_adds_meanwhile_are_replaced_only_with_overwrite(
    folder: Path,
    wall_phantom: tuple[Volume, Labelmap],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: list[str],
) -> None:
    table = folder / "out" / "wall.csv"

    def read_and_save(path: Path) -> Volume:
        table.parent.mkdir()
        write_table(table, WALL_COLUMNS, [["other", *("" for _ in WALL_COLUMNS[1:])]])
        return wall_phantom[0]

    monkeypatch.setattr("dcamt.commands.wall.read_scan", read_and_save)
    assert measure_folder(folder, *option) == 0
    scans = [row["scan"] for row in read_table(table)]
    is_removed = option == ["--overwrite"]
    assert scans == [*([] if is_removed else ["other"]), *["a_image"] * 13]
    assert (
        f"{table}: --overwrite removed the rows of scans that this command did not measure (other). "
        in capsys.readouterr().err
    ) is is_removed


def test_write_error_names_the_result_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(result: object, path: Path) -> None:
        raise write_error(OSError(errno.ENOSPC, "No space left on device"), path)

    monkeypatch.setattr("dcamt.commands.wall.write_wall_surface", fail)
    assert measure_scan(folder) == 1
    assert f" {folder / 'out' / 'a_image.wall.vtp'}: the disk is full" in capsys.readouterr().err


def test_surface_is_not_written_over_the_scan(folder: Path, wall_phantom: tuple[Volume, Labelmap]) -> None:
    scan = folder / SCAN
    before = scan.read_bytes()
    assert measure_scan(folder, "--surface", scan) == 1
    assert scan.read_bytes() == before


@pytest.mark.parametrize("name", ["a_image.seg.nrrd", "a_image.wall.csv"])
def test_file_written_by_another_program_during_the_wall_analysis_is_kept(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    written, wall = folder / "out" / name, analyse_wall(*wall_phantom, scan="a_image")

    def analyse_and_save(*arguments: object, **more: object) -> object:
        written.parent.mkdir(exist_ok=True)
        written.write_text("drawn by hand", encoding="utf-8")
        return wall

    monkeypatch.setattr("dcamt.commands.wall.analyse_wall", analyse_and_save)
    model = save_tiny_model(folder / "tiny.dcamt", tiny_recipe())
    scan = folder / SCAN
    arguments = ["segment", scan, "-o", written.parent, "--model", model, "--device", "cpu", "--wall"]
    assert call_dcamt(arguments) == 1
    assert written.read_bytes() == b"drawn by hand"


def test_failures_are_printed_even_if_the_table_cannot_be_written(
    folder: Path,
    wall_phantom: tuple[Volume, Labelmap],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail_for_wall_csv(results: Sequence[WallResult], path: Path, *rest: Any) -> None:
        if path.name == "wall.csv":
            raise write_error(OSError(errno.ENOSPC, "No space left on device"), path)
        write_wall_csv(results, path, *rest)

    monkeypatch.setattr("dcamt.commands.wall.write_wall_csv", fail_for_wall_csv)
    (folder / "scans" / "b_image.nrrd").write_bytes((folder / SCAN).read_bytes()[:2000])
    write_labelmap(wall_phantom[1], folder / "labels" / "b_label.nii.gz")
    assert measure_folder(folder) == 1
    printed = capsys.readouterr()
    assert f"{folder / 'out' / 'wall.csv'}: the disk is full" in printed.err
    assert f"{folder / 'scans' / 'b_image.nrrd'}: " in printed.err
    assert "1 of 2 scans measured" in printed.out


@pytest.mark.parametrize("scan_file", ["a_image.nrrd", "b_image.nrrd"])
@pytest.mark.parametrize(("option", "status"), [([], 1), (["--skip-existing"], 0), (["--overwrite"], 0)])
def test_surface_that_another_program_writes_meanwhile_is_replaced_only_with_overwrite(
    folder: Path,
    wall_phantom: tuple[Volume, Labelmap],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: list[str],
    status: int,
    scan_file: str,
) -> None:
    add_case(folder, wall_phantom, "b")
    surface = folder / "out" / "b_image.wall.vtp"

    def read_and_save(path: Path) -> Volume:
        if path.name == scan_file:
            surface.parent.mkdir(exist_ok=True)
            surface.write_text("other", encoding="utf-8")
        return wall_phantom[0]

    monkeypatch.setattr("dcamt.commands.wall.read_scan", read_and_save)
    assert measure_folder(folder, *option) == status
    is_kept = surface.read_bytes() == b"other"
    assert is_kept == (option != ["--overwrite"])
    assert (f"{surface}: was written by another program" in capsys.readouterr().err) == is_kept


@pytest.mark.parametrize("name", ["a_image.wall.csv", "report.html"])
def test_file_saved_while_the_report_of_the_wall_is_drawn_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = folder / "out"

    def save(*arguments: object) -> None:
        Path(str(arguments[-1])).write_text("report", encoding="utf-8")
        (out / name).write_text("drawn by hand", encoding="utf-8")

    monkeypatch.setattr("dcamt.commands.wall._write_report", save)
    assert measure_scan(folder, "--report", out / "report.html") == 1
    assert f"{out / name}: was written by another program" in capsys.readouterr().err
    assert [path.read_bytes() for path in out.iterdir()] == [b"drawn by hand"]


def test_segment_interrupted_while_the_report_is_drawn_keeps_all_earlier_files(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    wall = analyse_wall(*wall_phantom, scan="a_image")
    monkeypatch.setattr("dcamt.commands.wall.analyse_wall", lambda *_, **__: wall)
    monkeypatch.setattr("dcamt.api.outputs.write_report", interrupt)
    names = [f"a_image.{end}" for end in ("html", "seg.nrrd", "wall.csv", "wall.vtp")]
    out = folder / "out"
    out.mkdir()
    for name in names:
        (out / name).write_text("earlier", encoding="utf-8")
    model = save_tiny_model(folder / "tiny.dcamt", tiny_recipe())
    arguments = ["segment", folder / SCAN, "-o", out, "--model", model, "--device", "cpu", "--wall", "--report", "html"]
    assert call_dcamt([*arguments, "--overwrite"]) == 1
    assert sorted((path.name, path.read_text(encoding="utf-8")) for path in out.iterdir()) == [
        (name, "earlier") for name in names
    ]


SIGNALS_DURING_THE_TABLE = """
import os, signal, sys
from dcamt.commands import wall
write = wall.write_wall_csv
def write_while_signals_arrive(results, path, *rest):
    if path.name == "wall.csv":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
    write(results, path, *rest)
wall.write_wall_csv = write_while_signals_arrive
from dcamt.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_signals_do_not_stop_the_writing_of_the_table_of_all_scans(folder: Path) -> None:
    arguments = ["wall", folder / "scans", folder / "labels", "-o", folder / "out"]
    with open_dcamt(*arguments, script=SIGNALS_DURING_THE_TABLE) as process:
        _, errors = process.communicate(timeout=HANGING_S)
    assert (process.returncode, errors) == (0, "")
    assert len(read_table(folder / "out" / "wall.csv")) == 13
