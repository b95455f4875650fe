"""Mappings of label values for an evaluation: by value, by the name of a segment, in the command and in Python."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import dcamt
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.readers import read_labelmap
from dcamt.io.writers import write_labelmap
from dcamt.volume import Code, Labelmap, SegmentInfo
from dcamt_testing.evaluated_folders import call_evaluate

GRID = Grid((12, 12, 12), np.diag([2.0, 2.0, 2.0, 1.0]))


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
    save_values(tmp_path / "predictions" / "a.nrrd", {1: (2, 8)})
    save_values(tmp_path / "labels" / "a_label.nrrd", {420: (4, 7), 421: (7, 10), 500: (0, 2)})
    return tmp_path / "predictions", tmp_path / "labels"


def scores_of(capsys: pytest.CaptureFixture[str]) -> dict[tuple[str, int], float]:
    """Return the printed Dice by case and label value."""
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {(one["case"], one["label"]): one["dice"] for one in events if one["event"] == "score"}


@pytest.mark.parametrize(
    ("order", "option"), [(1, "--label-mapping"), (-1, "--prediction-mapping")], ids=["labels", "predictions"]
)
def test_values_of_labels_or_predictions_can_be_mapped(
    mapped: tuple[Path, Path], capsys: pytest.CaptureFixture[str], order: int, option: str
) -> None:
    folders = mapped[::order]
    assert call_evaluate(folders) == 1
    assert f"{option} 420=1" in capsys.readouterr().err
    assert call_evaluate(folders, option, "420=1") == 0, "the proposed mapping was not accepted"
    capsys.readouterr()
    assert call_evaluate(folders, option, "420,421=1", "--json") == 0
    assert scores_of(capsys) == {("a", 1): pytest.approx(2 * 4 / 12), ("mean", 1): pytest.approx(2 * 4 / 12)}


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
    arguments = ("--prediction-mapping", "left atrium=7", "--label-mapping", "420,421=7", "--json")
    assert call_evaluate(mapped, *arguments) == 0
    assert scores_of(capsys)["a", 7] == pytest.approx(2 * 4 / 12)


def save_segments(path: Path, *named: tuple[int, str]) -> None:
    """Write a `.seg.nrrd` file whose segments (label value, name) lie side by side in planes 2 to 7."""
    voxels = np.zeros(GRID.shape, np.uint16)
    for number, (value, _) in enumerate(named):
        voxels[2:8, 1 + 5 * number : 6 + 5 * number, 1:11] = value
    infos = [SegmentInfo(value, name, (1.0, 0.0, 0.0), Code("SCT", "82471001", "x")) for value, name in named]
    write_labelmap(Labelmap(voxels, GRID), path, infos)


def test_number_in_a_mapping_is_a_label_value_and_not_a_segment_name(
    mapped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (mapped[0] / "a.nrrd").unlink()
    save_segments(mapped[0] / "a.seg.nrrd", (1, "2"), (2, "wall"))
    assert call_evaluate(mapped, "--label-mapping", "420=2", "--json") == 0
    assert ("a", 2) in scores_of(capsys)


def test_mapping_to_an_ambiguous_segment_name_is_refused(
    mapped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (mapped[0] / "a.nrrd").unlink()
    save_segments(mapped[0] / "a.seg.nrrd", (1, "Left atrium"), (2, "left-atrium"))
    assert call_evaluate(mapped, "--label-mapping", "420=left atrium") == 1
    assert "is the name of several segments, with the label values 1, 2" in capsys.readouterr().err


def test_segment_with_different_values_in_prediction_and_label_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = tmp_path / "predictions", tmp_path / "labels"
    save_segments(folders[0] / "a.seg.nrrd", (1, "Left atrium"), (2, "Wall"))
    save_segments(folders[1] / "a.seg.nrrd", (2, "left-atrium"), (1, "wall"))
    assert call_evaluate(folders) == 1
    errors = capsys.readouterr().err
    assert "a.seg.nrrd: has the value 1 for the segment 'Left atrium', which has the value" in errors
    assert "a.seg.nrrd. Map the predictions' values, for example: --prediction-mapping 1=2,2=1 (in Python" in errors
    assert call_evaluate(folders, "--prediction-mapping", "1=2,2=1", "--json") == 0
    assert scores_of(capsys)["a", 2] == 1
    save_segments(folders[1] / "a.seg.nrrd", (2, "Segment_1"), (1, "other"))
    assert call_evaluate(folders) == 0, "segments with different names were not compared by value"


def write_classes(folder: Path, **values: int) -> None:
    """Write a `dataset.json` that names label values."""
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, **values}}), encoding="utf-8")


def test_structure_with_another_value_in_dataset_json_is_refused_with_a_working_mapping(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = tmp_path / "predictions", tmp_path / "labels"
    save_segments(folders[0] / "a.seg.nrrd", (1, "Left atrium"))
    label = save_values(folders[1] / "a.nii.gz", {2: (2, 8), 1: (9, 11)})
    write_classes(folders[1], RA=1, LA=2)
    assert call_evaluate(folders) == 1
    errors = capsys.readouterr().err
    assert (
        f"a.seg.nrrd: has the value 1 for the segment 'Left atrium', which has the value 2 in {label} (dataset"
        in errors
    )
    assert "for example: --prediction-mapping 1=2 (in Python" in errors
    assert call_evaluate(folders, "--prediction-mapping", "1=2") == 0
    with pytest.raises(InputError, match="which has the value 1 in"):  # nnU-Net writes `dataset.json` to its results.
        dcamt.evaluate(label, folders[0] / "a.seg.nrrd")


@pytest.mark.parametrize(
    ("predicted", "labelled"),
    [("Left atrium", "RV"), ("Left atrium", "rechter Vorhof"), ("LA", "LA wall"), ("Left kidney", "Kidney, right")],
)
def test_value_that_means_another_structure_in_the_label_is_refused(
    predicted: str, labelled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = tmp_path / "predictions", tmp_path / "labels"
    save_segments(folders[0] / "a.seg.nrrd", (1, predicted))
    save_segments(folders[1] / "a.seg.nrrd", (1, labelled))
    assert call_evaluate(folders) == 1
    errors = capsys.readouterr().err
    label = folders[1] / "a.seg.nrrd"
    assert f"value 1 for the segment '{predicted}', but {label} names this value '{labelled}'. Choose files" in errors
    assert "If only a name is wrong: Map the predictions' values, for example: --prediction-mapping 1=1 (in" in errors
    assert call_evaluate(folders, "--prediction-mapping", "1=1") == 0


@pytest.mark.parametrize(
    ("labelled", "has_note"),
    [
        ("Heart", True),
        ("LA + appendage", True),
        ("左心房", True),
        ("Linker Vorhof", False),
        ("LA endo", False),
        ("Atrium", False),
        ("Segment_1", False),
        ("label", False),
        ("1", False),
    ],
)
def test_note_names_a_value_whose_names_may_stand_for_different_structures(
    labelled: str, has_note: bool, tmp_path: Path
) -> None:
    folders = tmp_path / "predictions", tmp_path / "labels"
    for case in ("a", "b"):
        save_segments(folders[0] / f"{case}.seg.nrrd", (1, "Left atrium"))
        save_segments(folders[1] / f"{case}.seg.nrrd", (1, labelled))
    notes = [note for note in dcamt.evaluate(*folders).notes if "named" in note]
    files = f"{folders[1] / 'a.seg.nrrd'}, {folders[1] / 'b.seg.nrrd'}"
    expected = (
        f"{files}: the value 1 is named '{labelled}', but 'Left atrium' in the prediction. If these are different"
    )
    assert [note.startswith(expected) for note in notes] == [True] * has_note


@pytest.mark.parametrize("mapping", ["", "1=1"])
def test_voxels_that_dataset_json_names_ignore_are_left_out_of_all_scores(mapping: str, tmp_path: Path) -> None:
    folders = tmp_path / "predictions", tmp_path / "labelsTr"
    save_values(folders[0] / "a.nrrd", {1: (2, 8)})
    save_values(folders[1] / "a.nrrd", {1: (2, 5), 2: (5, 11)})
    (labelled,) = dcamt.evaluate(*folders, label_mapping="1=1").rows
    write_classes(tmp_path, LA=1, ignore=2)
    (row,) = dcamt.evaluate(*folders, label_mapping=mapping).rows
    assert (row.label, row.score.dice, row.score.hd95_mm, row.score.assd_mm) == (1, 1, 0, 0)
    assert row.prediction_volume_ml == row.label_volume_ml == labelled.label_volume_ml
    assert labelled.score.dice < 1


def test_value_named_ignore_is_scored_if_the_mapping_names_it(tmp_path: Path) -> None:
    folders = tmp_path / "predictions", tmp_path / "labels"
    save_values(folders[0] / "a.nrrd", {1: (2, 8)})
    save_values(folders[1] / "a.nrrd", {1: (2, 5), 2: (5, 8)})
    write_classes(folders[1], LA=1, ignore=2)
    (row,) = dcamt.evaluate(*folders, label_mapping="1,2=1").rows
    assert (row.score.dice, row.label_volume_ml) == (1, row.prediction_volume_ml)


def test_mask_of_255_beside_ignored_voxels_is_scored_as_1(tmp_path: Path) -> None:
    folders = tmp_path / "predictions", tmp_path / "labels"
    save_values(folders[0] / "a.nrrd", {255: (2, 8)})
    save_values(folders[1] / "a.nrrd", {1: (2, 5), 2: (5, 11)})
    write_classes(folders[1], LA=1, ignore=2)
    (row,) = dcamt.evaluate(*folders).rows
    assert (row.label, row.score.dice) == (1, 1)


@pytest.mark.parametrize(
    ("predicted", "labelled", "options"),
    [
        ((1, 2), (300, 1), ["--label-mapping", "300=1,1=2"]),
        ((1, 2), (420, 550), ["--label-mapping", "420=1,550=2"]),
        ((420, 1), (300, 2), ["--prediction-mapping", "420=1,1=2", "--label-mapping", "300=1,2=2"]),
    ],
)
def test_error_about_segments_with_values_above_255_proposes_a_working_mapping(
    predicted: tuple[int, int],
    labelled: tuple[int, int],
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = tmp_path / "predictions", tmp_path / "labels"
    for folder, values in zip(folders, (predicted, labelled), strict=True):
        save_segments(folder / "a.seg.nrrd", *zip(values, ("Left atrium", "Wall"), strict=True))
    assert call_evaluate(folders) == 1
    assert f", for example: {' '.join(options)} (in Python" in capsys.readouterr().err
    assert call_evaluate(folders, *options, "--json") == 0
    assert {dice for (case, _), dice in scores_of(capsys).items() if case == "a"} == {1}


@pytest.mark.parametrize(
    ("predicted", "labelled", "given"),
    [
        ({1: (2, 6)}, {420: (2, 6)}, ["--prediction-mapping", "1=420"]),
        ({420: (2, 6)}, {1: (2, 6)}, ["--label-mapping", "1=420"]),
        ({420: (2, 4), 2: (4, 6)}, {300: (2, 4), 1: (4, 6)}, ["--prediction-mapping", "420=300;2=1"]),
        ({1: (2, 4), 2: (4, 6)}, {420: (2, 6)}, ["--prediction-mapping", "1,2=420"]),
    ],
)
def test_error_about_a_mapping_to_a_class_above_255_proposes_a_working_mapping(
    predicted: dict[int, tuple[int, int]],
    labelled: dict[int, tuple[int, int]],
    given: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = tmp_path / "predictions", tmp_path / "labels"
    for folder, values in zip(folders, (predicted, labelled), strict=True):
        save_values(folder / "a.nrrd", values)
    follow_advice_about_a_class_above_255(folders, given, capsys)


def test_error_about_a_mapping_to_a_segment_of_value_420_proposes_a_working_mapping(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = tmp_path / "predictions", tmp_path / "labels"
    save_segments(folders[0] / "a.seg.nrrd", (1, "organ"))
    save_segments(folders[1] / "a.seg.nrrd", (420, "Left atrium"))
    follow_advice_about_a_class_above_255(folders, ["--prediction-mapping", "1=left atrium"], capsys)


def follow_advice_about_a_class_above_255(
    folders: tuple[Path, Path], given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_evaluate(folders, *given) == 1
    (advice,) = re.findall(r"which is above 255.* for example: (.*) \(in Python", capsys.readouterr().err)
    assert call_evaluate(folders, *shlex.split(advice), "--json") == 0
    assert {dice for (case, _), dice in scores_of(capsys).items() if case == "a"} == {1}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--prediction-mapping",
            "predictions: all predictions are empty after the mapping 5=1. Write VALUE=CLASS, where",
        ),
        (
            "--label-mapping",
            "a_label.nrrd: holds only values that the mapping 5=1 does not map: 420, 421, 500. Add these",
        ),
    ],
)
def test_mapping_of_values_that_do_not_occur_is_refused(
    option: str, message: str, mapped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_evaluate(mapped, option, "5=1") == 1
    assert message in capsys.readouterr().err
    with pytest.raises(InputError, match=message.partition(": ")[2]):
        dcamt.evaluate(mapped[0] / "a.nrrd", mapped[1] / "a_label.nrrd", **{option[2:].replace("-", "_"): "5=1"})


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


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            "420=left-atrium",
            "'420=left-atrium' names no known class. After the sign =, write a label value from 1 to 255, as in 420=1.",
        ),
        ("420", "'420' is not a label mapping. Write VALUE=CLASS, such as 420=1."),
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


def test_label_with_only_unmapped_values_is_a_failure(
    mapped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (mapped[0] / "b.nrrd", mapped[1] / "b_label.nrrd"):
        save_values(file, {1: (2, 8)})
    assert call_evaluate(mapped, "--label-mapping", "420=1", "--json") == 1
    printed = capsys.readouterr()
    message = "b_label.nrrd: holds only values that the mapping 420=1 does not map: 1"
    assert f"{message}. Add these values to the mapping, or correct the label." in printed.err
    assert [json.loads(line)["case"] for line in printed.out.splitlines() if '"score"' in line] == ["a", "mean"]


def test_prediction_with_only_unmapped_values_counts_as_empty(
    mapped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, labels = mapped[::-1]
    for file in (predictions / "b_label.nrrd", labels / "b.nrrd"):
        save_values(file, {1: (2, 8)})
    assert call_evaluate((predictions, labels), "--prediction-mapping", "420=1") == 0
    assert "holds only values" not in capsys.readouterr().out
    evaluation = dcamt.evaluate(predictions, labels, prediction_mapping="420=1")
    assert [note for note in evaluation.notes if "the prediction counts as empty" in note]
    assert [row.score.dice for row in evaluation.rows if row.case == "b"] == [0]


def test_empty_label_is_scored_although_a_mapping_is_given(mapped: tuple[Path, Path]) -> None:
    predictions, labels = [mapped[0] / "a.nrrd"] * 2, mapped[1]
    files = [labels / "a_label.nrrd", save_values(labels / "b_label.nrrd", {})]
    assert dcamt.evaluate(predictions, files, label_mapping="420=1").failures == ()


def test_label_whose_mapped_segment_has_no_voxels_is_scored(mapped: tuple[Path, Path]) -> None:
    predictions, labels = [mapped[0] / "a.nrrd"] * 2, mapped[1]
    files = [labels / "c.seg.nrrd", labels / "d.seg.nrrd"]
    for file, planes in zip(files, (slice(2, 8), slice(0)), strict=True):
        voxels = np.zeros(GRID.shape, np.uint8)
        voxels[9:12] = 2
        voxels[planes, 1:11, 1:11] = 1
        infos = [SegmentInfo(value, name, (1, 0, 0), Code("SCT", "1", "x")) for value, name in ((1, "LA"), (2, "wall"))]
        write_labelmap(Labelmap(voxels, GRID), file, infos)
    for mapping in ("1=1", "LA=1"):
        evaluation = dcamt.evaluate(predictions, files, label_mapping=mapping)
        assert (evaluation.failures, [row.score.dice for row in evaluation.rows]) == ((), [1, 0])
