"""Test commands whose table is open in a spreadsheet program on Windows."""

from __future__ import annotations

import builtins
import errno
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dcamt.commands.console import Console
from dcamt.commands.measurement_table import write_measurement_table
from dcamt.io import in_use
from dcamt.io.writers import write_labelmap
from dcamt.metrics.measurements import Measurements
from dcamt.volume import Labelmap, Volume
from dcamt_testing.evaluated_folders import call_evaluate
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import read_table, save_noise_scan, save_tiny_model, write_cases_folder
from dcamt_testing.tiny_recipes import tiny_recipe
from dcamt_testing.wall_cases import add_case, measure_folder

REFUSAL = "cannot be written (no permission). Close programs that use the file"


def open_table(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate Windows with the table open in another program."""
    replace, open_file = os.replace, builtins.open

    def refuse(path: Any) -> None:
        if Path(path) == table:
            raise PermissionError(errno.EACCES, "used by another process", str(path))

    def refuse_to_replace(source: Any, target: Any) -> None:
        refuse(target)
        replace(source, target)

    def refuse_to_write(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "+" in mode:
            refuse(path)
        return open_file(path, mode, *args, **kwargs)

    windows = SimpleNamespace(platform="win32")
    monkeypatch.setattr("dcamt.commands.result_files.sys", windows)
    monkeypatch.setattr(in_use, "sys", windows)
    monkeypatch.setattr(in_use, "PATIENCE_S", 0.0)
    monkeypatch.setattr(os, "replace", refuse_to_replace)
    monkeypatch.setattr(builtins, "open", refuse_to_write)


@pytest.fixture
def folders(tmp_path: Path, wall_phantom: tuple[Volume, Labelmap]) -> tuple[Path, Path]:
    """Write the scan, the label and the prediction of a case; return the folders of predictions and labels."""
    add_case(tmp_path, wall_phantom, "a")
    write_labelmap(wall_phantom[1], tmp_path / "predictions" / "a.nrrd")
    return tmp_path / "predictions", tmp_path / "labels"


def test_segmentation_does_not_start_while_its_table_is_open(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, out, table = save_noise_scan(tmp_path / "s.nrrd"), tmp_path / "out", tmp_path / "m.csv"
    segment = ["segment", scan, "-o", out / "s.nrrd", "--model", noise_model, "--measurements", table]
    assert call_dcamt(segment) == 0
    before = table.read_bytes()
    (out / "s.nrrd").unlink()
    with monkeypatch.context() as patch:
        open_table(table, patch)
        for option in ("--overwrite", "--skip-existing"):
            assert call_dcamt([*segment, option]) == 1
            assert f"{table}: {REFUSAL}" in capsys.readouterr().err
    assert (list(out.iterdir()), table.read_bytes()) == ([], before)
    assert call_dcamt([*segment, "--skip-existing"]) == 0


def test_evaluation_and_wall_do_not_start_while_their_table_is_open(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scores, wall = tmp_path / "scores.csv", tmp_path / "out" / "wall.csv"
    wall.parent.mkdir()
    for table in (scores, wall):
        table.touch()
        with monkeypatch.context() as patch:
            open_table(table, patch)
            if table is scores:
                assert call_evaluate(folders, "--csv", table, "--overwrite") == 1
            else:
                assert measure_folder(tmp_path, "--overwrite") == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert f"{table}: {REFUSAL}" in printed.err
    assert list(wall.parent.iterdir()) == [wall]


@pytest.mark.parametrize("taken", [(), ("m-new.csv",)])
def test_measurements_are_written_beside_a_table_that_was_opened_meanwhile(
    taken: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier, row, unlisted = (
        Measurements(name, "Left atrium", *[1.0] * 6, expected_overlap=0.9, expected_overlap_low=0.8) for name in "abc"
    )
    table, console = tmp_path / "m.csv", Console(False)
    assert write_measurement_table(table, [earlier], [], None, console)
    for name in taken:
        (tmp_path / name).write_text("of a person", encoding="utf-8")
    open_table(table, monkeypatch)
    assert not write_measurement_table(table, [row], [unlisted], None, console)
    beside = tmp_path / ("m-new-2.csv" if taken else "m-new.csv")
    printed = capsys.readouterr().err
    assert f"{table}: {REFUSAL}" in printed
    assert f"The rows of this command are in {beside}." in printed
    assert [(one["scan"], one["expected_overlap"]) for one in read_table(beside)] == [("c", "0.9"), ("b", "0.9")]
    assert [one["scan"] for one in read_table(table)] == ["a"]
    assert [(tmp_path / name).read_text(encoding="utf-8") for name in taken] == ["of a person" for _ in taken]


def test_scores_walls_and_ranking_are_written_beside_a_table_that_was_opened_meanwhile(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases = write_cases_folder(tmp_path / "cases", labelled=0, unlabelled=1)
    model = save_tiny_model(tmp_path / "tiny.dcamt", tiny_recipe())
    rank = ["rank", cases, "--model", model, "--device", "cpu", "--overwrite", "--csv"]
    scores, wall, ranking = tmp_path / "scores.csv", tmp_path / "out" / "wall.csv", tmp_path / "next.csv"
    for table, command in (
        (scores, partial(call_evaluate, folders, "--csv", scores, "--overwrite")),
        (wall, partial(measure_folder, tmp_path, "--overwrite")),
        (ranking, partial(call_dcamt, [*rank, ranking])),
    ):
        assert command() == 0
        expected = table.read_bytes()
        with monkeypatch.context() as patch:
            open_table(table, patch)
            # On Linux, `refuse_open_table` does nothing: the command starts, and only the writing of its table fails.
            patch.setattr("dcamt.commands.result_files.sys", SimpleNamespace(platform="linux"))
            assert command() == 1
        beside = table.with_stem(f"{table.stem}-new")
        assert f"The rows of this command are in {beside}." in capsys.readouterr().err
        assert beside.read_bytes() == expected
