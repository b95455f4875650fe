"""`dcamt evaluate` on small folders: scores of slabs against their formulas, pairing of files, JSON, and errors."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from dcamt import cli
from dcamt.geometry import Grid
from dcamt.io.writers import write_labelmap
from dcamt.volume import Labelmap
from dcamt_testing.warm_python import interpreter

GRID = Grid((12, 12, 12), np.diag([2.0, 2.0, 2.0, 1.0]))


def save(path: Path, first: int, last: int, value: int = 1) -> None:
    """Write a labelmap of a slab: voxels `first` to `last` - 1 along axis 0, all but the border along the others."""
    voxels = np.zeros(GRID.shape, np.uint8)
    voxels[first:last, 1:11, 1:11] = value
    write_labelmap(Labelmap(voxels, GRID), path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Write predictions and labels: equal for case a, 4 of 6 planes in common for b; c and d have labels only."""
    predictions, labels = tmp_path / "predictions", tmp_path / "labels"
    save(predictions / "a.nrrd", 2, 6)
    save(predictions / "b_image.nii.gz", 2, 8)
    save(labels / "a_label.nii.gz", 2, 6)
    save(labels / "b_label.nrrd", 4, 10)
    save(labels / "c_label.nrrd", 4, 10)
    save(labels / "d.nrrd", 4, 10)
    return predictions, labels


def run(folders: tuple[Path, Path], *words: str | Path) -> int:
    predictions, labels = folders
    return cli.main(["evaluate", "--predictions", str(predictions), "--labels", str(labels), *map(str, words)])


def test_json_and_csv_hold_the_exact_scores(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "new" / "scores.csv"
    assert run(folders, "--json", "--csv", table) == 0
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
    assert "2 labels have no prediction" in printed.err
    assert "c, d" in printed.err
    with open(table, newline="", encoding="utf-8") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert float(rows["b"]["dice"]) == pytest.approx(2 / 3, rel=1e-5)


def test_table_shows_percent(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:4] == ["a", "1", "100.00", "100.00"]
    assert lines[2][:4] == ["b", "1", "66.67", "50.00"]


def test_undefined_distances_are_null(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    save(folders[0] / "c.nrrd", 0, 0)
    assert run(folders, "--json") == 0
    events = [json.loads(line, parse_constant=pytest.fail) for line in capsys.readouterr().out.splitlines()]
    (empty,) = [one for one in events if one.get("case") == "c"]
    assert (empty["dice"], empty["hd95_mm"], empty["asd_mm"], empty["undefined"]) == (0.0, None, None, 1)


def test_wrong_input_is_refused_in_one_line_without_a_table(
    folders: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    predictions, labels = folders
    (tmp_path / "empty").mkdir()
    table, notes = tmp_path / "scores.csv", tmp_path / "notes.txt"
    notes.write_text("notes", encoding="utf-8")
    label = (labels / "a_label.nii.gz").read_bytes()

    def check(words: list, *parts: str) -> None:
        assert cli.main(["evaluate", *map(str, words)]) == 1
        printed = capfd.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1), printed
        for part in parts:
            assert part in printed.err
        assert not table.exists()

    both = ["--predictions", predictions, "--labels", labels]
    check(["--predictions", tmp_path / "gone", "--labels", labels, "--csv", table], "gone", "not a folder")
    check(["--predictions", predictions, "--labels", tmp_path / "empty", "--csv", table], "empty", "no segmentation")
    check([*both, "--csv", notes / "scores.csv"], "scores.csv", "not a folder")
    check([*both, "--csv", labels], "labels", "is a folder")
    check([*both, "--csv", labels / "a_label.nii.gz"], "a_label.nii.gz", ".csv")
    assert (labels / "a_label.nii.gz").read_bytes() == label
    (predictions / "b.nrrd").write_bytes(b"NRRD0004\n")
    check([*both, "--csv", table], "b.nrrd", "same case")
    (predictions / "b.nrrd").rename(predictions / "z.nrrd")
    check([*both, "--csv", table], "z.nrrd", "no label")
    (predictions / "z.nrrd").rename(predictions / "c.nrrd")
    check([*both, "--csv", table], "c.nrrd")


def test_wrong_usage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["evaluate", "--labels", "x"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_exit_status_and_output_of_a_separate_process(folders: tuple[Path, Path]) -> None:
    words = [interpreter(), "-m", "dcamt", "evaluate", "--predictions", folders[0], "--labels", folders[1]]
    done = subprocess.run([*map(str, words), "--json"], capture_output=True, text=True, check=True, encoding="utf-8")
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()][-1] == "done"
    assert done.stderr.count("\n") == 1
    if os.path.exists("/dev/full"):
        # Output is buffered, as by default: on exit Python tries again to write the rest.
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        with open("/dev/full", "w", encoding="utf-8") as full:
            lost = subprocess.run(
                [*map(str, words)],
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
