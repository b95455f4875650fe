"""Test `dcamt evaluate` on small folders: scores of slabs, pairing of files, mappings, JSON and errors."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import dcamt
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt import cli
from dcamt.errors import InputError, write_error
from dcamt.geometry import Grid
from dcamt.io.readers import read_labelmap
from dcamt.io.writers import write_labelmap
from dcamt.metrics.evaluation import Evaluation
from dcamt.volume import Code, Labelmap, SegmentInfo
from dcamt_testing.synthetic import read_table
from dcamt_testing.warm_python import interpreter

GRID = Grid((12, 12, 12), np.diag([2.0, 2.0, 2.0, 1.0]))


def save(path: Path, first: int, last: int, value: int = 1) -> None:
    """Write a slab as a labelmap: voxels `first` to `last` - 1 along axis 0, all but the border along axes 1 and 2."""
    voxels = np.zeros(GRID.shape, np.uint8)
    voxels[first:last, 1:11, 1:11] = value
    write_labelmap(Labelmap(voxels, GRID), path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Write predictions and labels: equal for case a; for b, 4 of 6 planes in common; for c and d, labels only."""
    predictions, labels = tmp_path / "predictions", tmp_path / "labels"
    save(predictions / "a.nrrd", 2, 6)
    save(predictions / "b_image.nii.gz", 2, 8)
    save(labels / "a_label.nii.gz", 2, 6)
    save(labels / "b_label.nrrd", 4, 10)
    save(labels / "c_label.nrrd", 4, 10)
    save(labels / "d.nrrd", 4, 10)
    return predictions, labels


def call_evaluate(folders: tuple[Path, Path], *arguments: str | Path) -> int:
    predictions, labels = folders
    return cli.main(["evaluate", "--predictions", str(predictions), "--labels", str(labels), *map(str, arguments)])


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


def test_undefined_distances_are_null(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    save(folders[0] / "c.nrrd", 0, 0)
    assert call_evaluate(folders, "--json") == 0
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

    def assert_refused(arguments: list, *parts: str) -> None:
        assert cli.main(["evaluate", *map(str, arguments)]) == 1
        printed = capfd.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1), printed
        for part in parts:
            assert part in printed.err
        assert not table.exists()

    both = ["--predictions", predictions, "--labels", labels]
    assert_refused(["--predictions", tmp_path / "gone", "--labels", labels, "--csv", table], "gone", "not a folder")
    assert_refused(
        ["--predictions", predictions, "--labels", tmp_path / "empty", "--csv", table], "empty", "no segmentation"
    )
    assert_refused([*both, "--csv", notes / "scores.csv"], "scores.csv", "not a folder")
    assert_refused([*both, "--csv", labels], "labels", "is a folder")
    assert_refused([*both, "--csv", labels / "a_label.nii.gz"], "a_label.nii.gz", ".csv")
    assert (labels / "a_label.nii.gz").read_bytes() == label
    (predictions / "b.nrrd").write_bytes(b"NRRD0004\n")
    assert_refused([*both, "--csv", table], "b.nrrd", "same case")
    (predictions / "b.nrrd").rename(predictions / "z.nrrd")
    assert_refused([*both, "--csv", table], "z.nrrd", "no label")
    (predictions / "z.nrrd").rename(predictions / "c.nrrd")
    assert_refused([*both, "--csv", table], "c.nrrd")


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_prediction_that_is_a_link_to_a_missing_file_is_refused(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    link = folders[0] / "c.nrrd"
    link.symlink_to(folders[0] / "gone")
    assert call_evaluate(folders) == 1
    assert f"{link}: is a link to a missing file" in capsys.readouterr().err


def test_wrong_usage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["evaluate", "--labels", "x"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_separate_process_prints_events_and_fails_if_stdout_is_full(folders: tuple[Path, Path]) -> None:
    arguments = [interpreter(), "-m", "dcamt", "evaluate", "--predictions", folders[0], "--labels", folders[1]]
    done = subprocess.run(
        [*map(str, arguments), "--json"], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()][-1] == "done"
    assert done.stderr.count("\n") == 1
    if os.path.exists("/dev/full"):
        # Without PYTHONUNBUFFERED, Python tries on exit to write the refused output again.
        # This second failure must not add a line to stderr.
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


def save_values(path: Path, values: dict[int, tuple[int, int]]) -> Path:
    """Write slabs of 16-bit values with SimpleITK.

    Args:
        values: for each value, the first plane of its slab along axis 0, and the plane after the slab.
    """
    voxels = np.zeros(GRID.shape, np.uint16)
    for value, (first, last) in values.items():
        voxels[first:last, 1:11, 1:11] = value
    image = sitk.GetImageFromArray(voxels.T)
    image.SetSpacing((2.0, 2.0, 2.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def mapped(tmp_path: Path) -> tuple[Path, Path]:
    """Write a prediction in planes 2 to 7, and a label: 420 in planes 4 to 6, 421 in 7 to 9, and 500 in 0 and 1."""
    save(tmp_path / "predictions" / "a.nrrd", 2, 8)
    save_values(tmp_path / "labels" / "a_label.nrrd", {420: (4, 7), 421: (7, 10), 500: (0, 2)})
    return tmp_path / "predictions", tmp_path / "labels"


def scores_of(capsys: pytest.CaptureFixture[str]) -> dict[tuple[str, int], float]:
    """Return the printed Dice by case and label value."""
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {(one["case"], one["label"]): one["dice"] for one in events if one["event"] == "score"}


def test_values_of_labels_are_mapped_to_the_predictions_classes(
    mapped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_evaluate(mapped) == 1
    assert "--label-mapping 420=1" in capsys.readouterr().err
    assert call_evaluate(mapped, "--label-mapping", "420,421=1", "--json") == 0
    assert scores_of(capsys) == {("a", 1): pytest.approx(2 * 4 / 12), ("mean", 1): pytest.approx(2 * 4 / 12)}


def test_values_of_predictions_are_mapped_to_the_labels_classes(
    mapped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_evaluate(mapped[::-1], "--prediction-mapping", "420,421=1", "--json") == 0
    assert scores_of(capsys)["a", 1] == pytest.approx(2 * 4 / 12)


def test_mapping_may_name_a_segment_of_the_prediction(
    mapped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    info = SegmentInfo(2, "Left atrium", (1.0, 0.0, 0.0), Code("SCT", "82471001", "Left atrium"))
    voxels = np.zeros(GRID.shape, np.uint8)
    voxels[2:8, 1:11, 1:11] = 2
    (mapped[0] / "a.nrrd").unlink()
    write_labelmap(Labelmap(voxels, GRID), mapped[0] / "a.seg.nrrd", (info,))
    assert call_evaluate(mapped, "--label-mapping", "420,421=left-atrium", "--json") == 0
    assert scores_of(capsys)["a", 2] == pytest.approx(2 * 4 / 12)
    # Here the prediction's segment is chosen by its name, and the label's values by their numbers.
    arguments = ("--prediction-mapping", "left atrium=7", "--label-mapping", "420,421=7", "--json")
    assert call_evaluate(mapped, *arguments) == 0
    assert scores_of(capsys)["a", 7] == pytest.approx(2 * 4 / 12)


def save_segments(path: Path, *named: tuple[int, str]) -> None:
    """Write a `.seg.nrrd` file whose segments (label value, name) lie side by side in planes 2 to 7."""
    voxels = np.zeros(GRID.shape, np.uint8)
    for number, (value, _) in enumerate(named):
        voxels[2:8, 1 + 5 * number : 6 + 5 * number, 1:11] = value
    infos = [SegmentInfo(value, name, (1.0, 0.0, 0.0), Code("SCT", "82471001", "x")) for value, name in named]
    write_labelmap(Labelmap(voxels, GRID), path, infos)


def test_number_in_a_mapping_is_a_value_even_if_a_segment_has_this_name(
    mapped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (mapped[0] / "a.nrrd").unlink()
    save_segments(mapped[0] / "a.seg.nrrd", (1, "2"), (2, "wall"))
    assert call_evaluate(mapped, "--label-mapping", "420=2", "--json") == 0
    assert ("a", 2) in scores_of(capsys)


def test_mapping_to_the_name_of_several_segments_is_refused(
    mapped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (mapped[0] / "a.nrrd").unlink()
    save_segments(mapped[0] / "a.seg.nrrd", (1, "Left atrium"), (2, "left-atrium"))
    assert call_evaluate(mapped, "--label-mapping", "420=left atrium") == 1
    assert "is the name of several segments, with the label values 1, 2" in capsys.readouterr().err


def test_proposed_mapping_of_the_predictions_is_accepted(
    mapped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_evaluate(mapped[::-1]) == 1
    assert "--prediction-mapping 420=1" in capsys.readouterr().err
    assert call_evaluate(mapped[::-1], "--prediction-mapping", "420=1") == 0


def test_segment_with_different_values_in_prediction_and_label_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = tmp_path / "predictions", tmp_path / "labels"
    save_segments(folders[0] / "a.seg.nrrd", (1, "Left atrium"), (2, "Wall"))
    save_segments(folders[1] / "a.seg.nrrd", (2, "left-atrium"), (1, "wall"))
    assert call_evaluate(folders) == 1
    errors = capsys.readouterr().err
    assert "a.seg.nrrd: has the value 1 for the segment 'Left atrium', but its label" in errors
    assert (
        "has the value 2 for this segment. Map the predictions' values: --prediction-mapping 1=2,2=1 (in Python"
        in errors
    )
    assert call_evaluate(folders, "--prediction-mapping", "1=2,2=1", "--json") == 0
    assert scores_of(capsys)["a", 2] == 1
    save_segments(folders[1] / "a.seg.nrrd", (2, "LA"), (1, "other"))
    assert call_evaluate(folders) == 0, "segments without a common name are compared by value"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--prediction-mapping",
            "predictions: all predictions are empty after the mapping 5=1. Before each sign =",
        ),
        ("--label-mapping", "labels: all labels are empty after the mapping 5=1. Before each sign ="),
    ],
)
def test_mapping_of_values_that_do_not_occur_is_refused(
    option: str, message: str, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_evaluate(folders, option, "5=1") == 1
    assert message in capsys.readouterr().err
    with pytest.raises(InputError, match=message.partition(": ")[2]):
        dcamt.evaluate(folders[0] / "a.nrrd", folders[1] / "a_label.nii.gz", **{option[2:].replace("-", "_"): "5=1"})


def test_mapping_in_python_may_name_segments_of_a_file(mapped: tuple[Path, Path]) -> None:
    path = mapped[0] / "s.seg.nrrd"
    save_segments(path, (3, "Left atrium"), (2, "wall"))
    labels = mapped[1] / "a_label.nrrd"
    for label in (labels, read_labelmap(labels)):
        rows = dcamt.evaluate(path, label, label_mapping="420,421=left atrium").rows
        assert [row.label for row in rows] == [3]
    for prediction in (path, read_labelmap(path)):
        (row,) = dcamt.evaluate(prediction, path, label_mapping="left atrium=3").rows
        assert (row.label, row.score.dice) == (3, 1.0)


def test_evaluation_without_a_pair_is_refused() -> None:
    with pytest.raises(InputError, match="no pair of a prediction and a label"):
        dcamt.evaluate([], [])


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            "420=left-atrium",
            "'420=left-atrium' names no known class. After the sign =, write a label value from 1 to 255, as in 420=1.",
        ),
        ("420", "'420' is not a label mapping. Write VALUE=CLASS, such as 420=left-atrium."),
        ("420=1;420=2", "the label mapping names 420 twice. Map each value to one class."),
    ],
)
def test_wrong_mapping_is_refused_in_one_line(
    mapping: str, message: str, mapped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_evaluate(mapped, "--label-mapping", mapping) == 1
    assert capsys.readouterr().err == f"dcamt: {message}\n"


def test_python_api_maps_files_folders_and_arrays(mapped: tuple[Path, Path]) -> None:
    predictions, labels = mapped
    files = (predictions / "a.nrrd", labels / "a_label.nrrd")
    arrays = tuple(sitk.GetArrayFromImage(sitk.ReadImage(str(file))).T for file in files)
    for pair in (mapped, files, arrays, (files[0], read_labelmap(files[1]))):
        (row,) = dcamt.evaluate(*pair, spacing=(2.0, 2.0, 2.0), label_mapping="420,421=1").rows
        assert (row.label, row.score.dice) == (1, pytest.approx(2 * 4 / 12))
    (row,) = dcamt.evaluate(*arrays[::-1], spacing=(2.0, 2.0, 2.0), prediction_mapping="420,421=1").rows
    assert (row.label, row.score.dice) == (1, pytest.approx(2 * 4 / 12))
    with pytest.raises(InputError, match='has no segment "atrium"'):
        dcamt.evaluate(*arrays, spacing=(2.0, 2.0, 2.0), label_mapping="atrium=1")


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
