"""Test `dcamt evaluate` on small folders: scores, pairing of files, JSON and errors."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.errors import write_error
from dcamt.geometry import Grid
from dcamt.io.writers import write_labelmap
from dcamt.metrics.evaluation import Evaluation
from dcamt.volume import Labelmap
from dcamt_testing.evaluated_folders import call_evaluate, remove_dcamt_mark
from dcamt_testing.processes import call_dcamt
from dcamt_testing.scan_files import deny_folder
from dcamt_testing.synthetic import read_table
from dcamt_testing.warm_python import interpreter

GRID = Grid((12, 12, 12), np.diag([2.0, 2.0, 2.0, 1.0]))


def save(path: Path, first: int, last: int, value: int = 1) -> None:
    voxels = np.zeros(GRID.shape, np.uint8)
    voxels[first:last, 1:11, 1:11] = value
    write_labelmap(Labelmap(voxels, GRID), path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    predictions, labels = tmp_path / "predictions", tmp_path / "labels"
    save(predictions / "a.nrrd", 2, 6)
    save(predictions / "b_image.nii.gz", 2, 8)
    save(labels / "a_label.nii.gz", 2, 6)
    save(labels / "b_label.nrrd", 4, 10)
    save(labels / "c_label.nrrd", 4, 10)
    save(labels / "d.nrrd", 4, 10)
    for label in labels.iterdir():
        remove_dcamt_mark(label)
    return predictions, labels


def test_json_and_csv_hold_the_scores(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "new" / "scores.csv"
    assert call_evaluate(folders, "--json", "--csv", table) == 0
    printed = capsys.readouterr()
    events = [json.loads(line) for line in printed.out.splitlines()]
    scores = {one["case"]: one for one in events if one["event"] == "score"}
    assert set(scores) == {"a", "b", "mean", "std"}
    assert scores["a"]["dice"] == 1.0
    assert scores["b"]["dice"] == pytest.approx(2 * 4 / 12)
    assert scores["b"]["jaccard"] == pytest.approx(4 / 8)
    assert scores["mean"]["dice"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["std"]["dice"] == pytest.approx((1 - 2 / 3) / 2)
    # 6 planes of 10 x 10 voxels of 8 mm3.
    assert scores["b"]["label_volume_ml"] == pytest.approx(4.8)
    done = events[-1]
    assert (done["event"], done["cases"], done["labels_without_prediction"]) == ("done", 2, 2)
    assert [one["step"] for one in events if one["event"] == "progress"] == [1, 2]
    assert printed.err.count("\n") == 1
    assert "labels without a prediction were skipped (2)" in printed.err
    assert "c, d" in printed.err
    rows = {row["case"]: row for row in read_table(table)}
    assert float(rows["b"]["dice"]) == pytest.approx(2 / 3, rel=1e-5)


def test_volume_of_a_few_voxels_is_not_printed_as_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voxels = np.zeros(GRID.shape, np.uint8)
    voxels[5, 5, 5:7] = 1  # 2 voxels of 8 mm3 are 0.016 mL.
    for folder in (tmp_path / "predictions", tmp_path / "labels"):
        write_labelmap(Labelmap(voxels, GRID), folder / "a.nrrd")
    assert call_evaluate((tmp_path / "predictions", tmp_path / "labels")) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("a "))
    assert line.split()[-2:] == ["0.02", "0.02"]


def test_prediction_without_a_label_fails_and_does_not_stop_the_others(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(folders[0] / "z.nrrd", 2, 6)
    table = tmp_path / "scores.csv"
    assert call_evaluate(folders, "--csv", table, "--json") == 1
    printed = capsys.readouterr()
    message = f"{folders[0] / 'z.nrrd'}: has no label in {folders[1]}. Add z_label.nii.gz, or remove the prediction."
    assert printed.err.startswith(f"dcamt: {message}\n")
    events = [json.loads(line) for line in printed.out.splitlines()]
    assert [one["message"] for one in events if one["event"] == "failed"] == [message]
    assert (events[-1]["cases"], events[-1]["failed"]) == (2, 1)
    assert [row["case"] for row in read_table(table)] == ["a", "b", "mean", "std"]


def test_damaged_file_is_reported_and_the_other_cases_are_scored(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(folders[0] / "c.nrrd", 4, 10)
    save(folders[0] / "z.nrrd", 2, 6)
    whole = (folders[0] / "c.nrrd").read_bytes()
    (folders[0] / "c.nrrd").write_bytes(whole[:-30])
    table = tmp_path / "scores.csv"
    assert call_evaluate(folders, "--csv", table, "--json") == 1
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert lines[0].startswith(f"dcamt: {folders[0] / 'z.nrrd'}: has no label")
    assert lines[1].startswith(f"dcamt: {folders[0] / 'c.nrrd'}: ends too early")
    assert lines[2] == "dcamt: 2 cases were not scored; the means cover 2 cases"
    events = [json.loads(line) for line in printed.out.splitlines()]
    assert [f"dcamt: {one['message']}" for one in events if one["event"] == "failed"] == lines[:2]
    assert (events[-1]["cases"], events[-1]["failed"]) == (2, 2)
    assert [(row["case"], row["cases"]) for row in read_table(table)] == [
        ("a", "1"),
        ("b", "1"),
        ("mean", "2"),
        ("std", "2"),
    ]


def test_table_of_scores_never_replaces_the_raw_voxels_of_an_mhd_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = tmp_path / "predictions", tmp_path / "labels"
    save(folders[0] / "a.nrrd", 2, 6)
    folders[1].mkdir()
    sitk.WriteImage(sitk.ReadImage(folders[0] / "a.nrrd"), folders[1] / "a.mhd")
    voxels = (folders[1] / "a.raw").read_bytes()
    assert call_evaluate(folders, "--csv", folders[1] / "a.raw", "--overwrite") == 1
    assert "has the ending of image data or of a compressed file, not of a table" in capsys.readouterr().err
    assert (folders[1] / "a.raw").read_bytes() == voxels


def test_printed_table_shows_percent(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert call_evaluate(folders) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:4] == ["a", "1", "100.00", "100.00"]
    assert lines[2][:4] == ["b", "1", "66.67", "50.00"]


@pytest.mark.parametrize("mapping", ["", "1=1"])
def test_note_lists_the_files_whose_voxel_spacing_was_assumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mapping: str
) -> None:
    for name in ("predictions/a", "labels/a", "predictions/b", "labels/b"):
        save(tmp_path / f"{name}.nrrd", 2, 6)
    for name in ("predictions/a", "labels/a", "labels/b"):
        header = sitk.ReadImage(str(tmp_path / f"{name}.nrrd"))
        header.SetSpacing((1, 1, 1) if name.endswith("a") else header.GetSpacing())
        sitk.WriteImage(header, str(tmp_path / f"{name}.mha"))
        (tmp_path / f"{name}.nrrd").unlink()
    for path in (tmp_path / "predictions/a.mha", tmp_path / "labels/a.mha"):
        path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 1 1 1\n", b""))
    folders = tmp_path / "predictions", tmp_path / "labels"
    assert call_evaluate(folders, "--json", "--label-mapping", mapping) == 0
    printed = capsys.readouterr()
    (note,) = json.loads(printed.out.splitlines()[-1])["notes"]
    files = ", ".join(str(folder / "a.mha") for folder in folders)
    assert note == f"{files}: The header lacks the spacing of the voxels (ElementSpacing): 1 mm was assumed."
    assert printed.err.splitlines().count(f"dcamt: {note}") == 1


def test_undefined_distances_are_null(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    save(folders[0] / "c.nrrd", 0, 0)
    assert call_evaluate(folders, "--json") == 0
    events = [json.loads(line, parse_constant=pytest.fail) for line in capsys.readouterr().out.splitlines()]
    (empty,) = [one for one in events if one.get("case") == "c"]
    assert (empty["dice"], empty["hd95_mm"], empty["asd_mm"], empty["undefined"]) == (0.0, None, None, 1)


def test_wrong_input_is_refused_in_one_line(
    folders: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    predictions, labels = folders
    (tmp_path / "empty").mkdir()
    table, notes = tmp_path / "scores.csv", tmp_path / "notes.txt"
    notes.write_text("notes", encoding="utf-8")
    label = (labels / "a_label.nii.gz").read_bytes()

    def assert_refused(arguments: list, *parts: str) -> None:
        assert call_dcamt(["evaluate", *arguments]) == 1
        printed = capfd.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1), printed
        for part in parts:
            assert part in printed.err
        assert not table.exists()

    both = ["--predictions", predictions, "--labels", labels]
    assert_refused(["--predictions", tmp_path / "gone", "--labels", labels, "--csv", table], "gone", "does not exist")
    assert_refused(
        ["--predictions", predictions, "--labels", tmp_path / "empty", "--csv", table], "empty", "no segmentation"
    )
    assert_refused([*both, "--csv", notes / "scores.csv"], "scores.csv", "not a folder")
    assert_refused([*both, "--csv", labels], "labels", "is a folder")
    assert_refused([*both, "--csv", labels / "a_label.nii.gz"], "a_label.nii.gz", ".csv")
    assert (labels / "a_label.nii.gz").read_bytes() == label
    (predictions / "b.nrrd").write_bytes(b"NRRD0004\n")
    assert_refused([*both, "--csv", table], "b.nrrd", "same case")
    (predictions / "b.nrrd").unlink()
    (predictions / "a.nrrd").write_bytes(b"NRRD0004\n")
    (predictions / "b_image.nii.gz").unlink()
    assert_refused([*both, "--csv", table], "a.nrrd")


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_prediction_that_is_a_link_to_a_missing_file_is_refused(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    link = folders[0] / "c.nrrd"
    link.symlink_to(folders[0] / "gone")
    assert call_evaluate(folders) == 1
    assert f"{link}: is a link to a missing file" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_unreadable_links_are_reported_and_the_readable_cases_are_scored(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").mkdir()
    links = folders[0] / "c.nii.gz", folders[1] / "e_label.nii.gz", folders[1] / "notes"
    for link in links:
        link.symlink_to(tmp_path / "locked" / link.name)
    save(folders[0] / "e.nii.gz", 2, 6)
    deny_folder(tmp_path / "locked", monkeypatch)
    assert call_evaluate(folders) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": cannot be read (no permission)")[0] for line in lines[:2]] == [
        f"dcamt: {link}" for link in links[:2]
    ]
    assert lines[2] == "dcamt: 2 cases were not scored; the means cover 2 cases"


def test_wrong_usage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call_dcamt(["evaluate", "--labels", "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_separate_process_prints_events_and_fails_if_stdout_is_full(folders: tuple[Path, Path]) -> None:
    arguments = [interpreter(), "-m", "dcamt", "evaluate", "--predictions", folders[0], "--labels", folders[1]]
    done = subprocess.run(
        [*map(str, arguments), "--json"], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()][-1] == "done"
    assert done.stderr.count("\n") == 1
    if os.path.exists("/dev/full"):
        # The command fails, since nothing can be written to /dev/full. On exit, Python tries again to write the
        # buffered output, and fails again. This second failure must not add a line to stderr.
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        with open("/dev/full", "w", encoding="utf-8") as full:
            lost = subprocess.run(
                [sys.executable, *map(str, arguments[1:])],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=buffered,
                check=False,
                encoding="utf-8",
            )
        assert lost.returncode == 1
        assert lost.stderr.count("\n") == 1
        assert "stdout can no longer be written" in lost.stderr


def test_scores_are_printed_even_if_the_table_cannot_be_written(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(scores: Evaluation, path: Path) -> None:
        raise write_error(OSError(errno.ENOSPC, "No space left on device"), path)

    monkeypatch.setattr(Evaluation, "write_csv", fail)
    assert call_evaluate(folders, "--csv", tmp_path / "scores.csv") == 1
    printed = capsys.readouterr()
    assert "scores.csv: the disk is full" in printed.err
    assert "mean " in printed.out
    assert "scores: " not in printed.out
