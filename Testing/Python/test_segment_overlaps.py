"""Test the notes about a file's overlapping segments: how many voxels of a segment are read as another segment."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path

import dcamt
import numpy as np
import pytest
from dcamt.cases.labels import parse_value_mapping
from dcamt.io.readers import map_labelmap, read_labelmap
from dcamt.io.writers import write_volume
from dcamt.models.package import ModelPackage, write_package
from dcamt.training.estimate import Trial
from dcamt.volume import Labelmap, OverlapNote, Volume
from dcamt_testing.evaluated_folders import AFFINE, call_evaluate, random_mask, remove_dcamt_mark, save_labels
from dcamt_testing.overlapping_segments import write_layers
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import contradict_spacing, set_options, write_cases_folder, write_table
from dcamt_testing.tiny_recipes import tiny_recipe

SHAPE = (9, 8, 7)
ADVICE = re.compile(r'as in "([^"]+)"')
"""Pattern of the advice in a note; group 1 is the label mapping that the note advises."""


def box(*planes: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[list(planes), 1:6, 2:5] = True
    return mask


def overlaps_of(labelmap: Labelmap) -> list[OverlapNote]:
    return [note for note in labelmap.notes if isinstance(note, OverlapNote)]


@pytest.mark.parametrize("seed", range(3))
def test_notes_count_the_voxels_that_each_segment_lacks(tmp_path: Path, seed: int) -> None:
    masks = [random_mask(10 * seed + number, SHAPE, 0.5) for number in range(4)]
    names = ["Left atrium", "Scar", "Wall", "Vein"]
    labelmap = read_labelmap(write_layers(tmp_path / "x.seg.nrrd", list(zip(names, masks, strict=True))))
    notes = {note.label: note for note in overlaps_of(labelmap)}
    for number, (name, mask) in enumerate(zip(names, masks, strict=True)):
        # The label of a voxel is the number of the last segment that contains the voxel.
        later = np.select(masks[:number:-1], range(4, number + 1, -1), 0)[mask] if number < 3 else np.zeros(1)
        if not later.any():
            assert number + 1 not in notes
            continue
        counts = [(value, np.count_nonzero(later == value)) for value in range(number + 2, 5)]
        listed = ", ".join(f'{count} as "{names[value - 1]}" (value {value})' for value, count in counts if count)
        expected = (
            f"Segments overlap: {np.count_nonzero(later)} of the {mask.sum()} voxels of"
            f' "{name}" (value {number + 1}) are read as another segment instead: {listed}. '
        )
        assert notes[number + 1].startswith(expected)
    assert set(notes) == {1, 2, 3}


@pytest.mark.parametrize(
    "names",
    [
        ["Left atrium", "Scar"],
        ["Left-Atrium", "left atrium"],
        ["", "Scar"],
        ["2", "Scar"],
        ["LA, endo", "Scar"],
        ["LA = 1", "Scar"],
        ["...", "Scar"],
        ["$HOME", "Scar"],
    ],
    ids=str,
)
def test_advised_mapping_reads_all_voxels_of_the_segment(tmp_path: Path, names: Sequence[str]) -> None:
    path = write_layers(tmp_path / "x.seg.nrrd", [(names[0], box(2, 3, 4)), (names[1], box(4, 5))])
    (note,) = overlaps_of(read_labelmap(path))
    advice = ADVICE.search(note)
    assert advice is not None
    mapped = read_labelmap(path, parse_value_mapping(advice[1], []))
    np.testing.assert_array_equal(mapped.voxels, box(2, 3, 4))
    assert mapped.notes == ()


def test_segments_without_overlap_or_with_a_mapping_have_no_note(tmp_path: Path) -> None:
    apart = write_layers(tmp_path / "apart.seg.nrrd", [("a", box(2, 3)), ("b", box(4)), ("empty", box())])
    assert read_labelmap(apart).notes == ()
    path = write_layers(tmp_path / "x.seg.nrrd", [("a", box(2, 3)), ("b", box(3))])
    assert read_labelmap(path, {"a": 1, "b": 2}).notes == ()
    assert read_labelmap(path, {1: 1}).notes == ()


def test_segment_that_another_covers_completely_has_a_note(tmp_path: Path) -> None:
    path = write_layers(tmp_path / "x.seg.nrrd", [("atrium", box(3)), ("heart", box(2, 3, 4))])
    (note,) = overlaps_of(read_labelmap(path))
    assert note.startswith(
        'Segments overlap: 15 of the 15 voxels of "atrium" (value 1) are read as another segment instead'
    )


def test_note_survives_copies_and_a_mapping_in_memory(tmp_path: Path) -> None:
    path = write_layers(tmp_path / "x.seg.nrrd", [("a", box(2, 3)), ("b", box(3, 4)), ("c", box(4))])
    labelmap = read_labelmap(path)
    assert [note.label for note in overlaps_of(labelmap)] == [1, 2]
    for copied in (pickle.loads(pickle.dumps(labelmap)), copy.deepcopy(labelmap)):
        assert copied.notes == labelmap.notes
        assert [note.label for note in overlaps_of(copied)] == [1, 2]
    mapped = map_labelmap(labelmap, {2: 7, 3: 1})
    assert [(note, note.label) for note in overlaps_of(mapped)] == [(labelmap.notes[1], 7)]


def write_pair(home: Path) -> tuple[Path, Path]:
    save_labels(home / "predictions" / "a.nii.gz", box(2, 3, 4))
    # A test uses this file as a label. With the mark, a second note would be printed.
    remove_dcamt_mark(home / "predictions" / "a.nii.gz")
    write_layers(home / "labels" / "a.seg.nrrd", [("LA", box(2, 3, 4)), ("Scar", box(4))], AFFINE)
    return home / "predictions", home / "labels"


def test_evaluation_names_overlapping_segments_of_a_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = write_pair(tmp_path)
    for files, option in ((folders, "--label-mapping"), (folders[::-1], "--prediction-mapping")):
        assert call_evaluate(files, "--json") == 0
        printed = capsys.readouterr()
        (note,) = json.loads(printed.out.splitlines()[-1])["notes"]
        assert note.startswith(f'{folders[1] / "a.seg.nrrd"}: Segments overlap: 15 of the 45 voxels of "LA" (value 1)')
        assert note in printed.err
        advice = ADVICE.search(note)
        assert advice is not None
        assert f"Use the option {option} " in note
        assert call_evaluate(files, option, advice[1], "--json") == 0
        score, *_, done = map(json.loads, capsys.readouterr().out.splitlines()[1:])
        assert (score["label"], score["dice"], done["notes"]) == (1, 1, [])


def test_evaluation_ignores_overlaps_of_segments_that_are_not_scored(tmp_path: Path) -> None:
    prediction = write_layers(tmp_path / "p.seg.nrrd", [("LA", box(2, 3)), ("b", box(4, 5)), ("c", box(5))])
    label = write_layers(tmp_path / "l.seg.nrrd", [("LA", box(2, 3))])
    assert dcamt.evaluate(prediction, label).notes == ()
    both = write_layers(tmp_path / "both.seg.nrrd", [("LA", box(2, 3)), ("b", box(4))])
    (note,) = dcamt.evaluate(prediction, both).notes
    assert 'voxels of "b" (value 2)' in note


def test_evaluation_explains_a_class_that_another_segment_covers(tmp_path: Path) -> None:
    save_labels(tmp_path / "p.nii.gz", box(3), np.eye(4))
    label = write_layers(tmp_path / "l.seg.nrrd", [("LA", box(3)), ("heart", box(2, 3, 4))])
    with pytest.raises(dcamt.InputError, match=r'do not occur in the labels .*15 of the 15 voxels of "LA" \(value 1\)'):
        dcamt.evaluate(tmp_path / "p.nii.gz", label)
    assert dcamt.evaluate(tmp_path / "p.nii.gz", label, label_mapping="LA=1").mean[0].score.dice == 1
    with pytest.raises(dcamt.InputError, match=r'do not occur in the labels .*15 of the 15 voxels of "LA" \(value 1\)'):
        dcamt.evaluate(label, tmp_path / "p.nii.gz")
    other = write_layers(tmp_path / "other.seg.nrrd", [("LA", box(3, 4)), ("scar", box(4))])
    save_labels(tmp_path / "p.nii.gz", 7 * box(3), np.eye(4))
    with pytest.raises(dcamt.InputError, match="for example: --prediction-mapping 7=1"):
        dcamt.evaluate(tmp_path / "p.nii.gz", other)


def test_evaluation_of_a_labelmap_in_memory_keeps_its_notes(tmp_path: Path) -> None:
    label = read_labelmap(write_layers(tmp_path / "l.seg.nrrd", [("LA", box(2, 3)), ("Scar", box(3))]))
    (note,) = dcamt.evaluate(box(2, 3).astype(np.uint8), label, spacing=(1, 1, 1)).notes
    assert note.endswith("In Python, give the mapping as mapping=... to the function that reads the file.")


@pytest.fixture
def wall_case(wall_phantom: tuple[Volume, Labelmap], tmp_path: Path) -> tuple[Path, Path]:
    volume, labelmap = wall_phantom
    atrium = labelmap.voxels > 0
    half = np.arange(atrium.shape[2]) > atrium.shape[2] // 2
    vein = np.zeros_like(atrium)
    vein[0, 0, :4] = True
    scan = tmp_path / "a.nrrd"
    write_volume(volume, scan)
    masks = [("Smith's atrium", atrium), ("Scar", atrium & half), ("Vein", vein)]
    return scan, write_layers(tmp_path / "a.seg.nrrd", masks, volume.grid.affine)


def measure(wall_case: tuple[Path, Path], *options: str | Path) -> int:
    return call_dcamt(["wall", *wall_case, "-o", wall_case[0].parent / "out", "--overwrite", *options])


@pytest.mark.usefixtures("coarse_pictures")
def test_wall_command_names_the_overlapping_segments(
    wall_case: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    report = wall_case[0].parent / "report.html"
    reported = {}
    for identity in ([], ["--identity"]):
        assert measure(wall_case, "--label", "1", "--json", "--report", report, *identity) == 0
        printed = capsys.readouterr()
        (line,) = [line for line in printed.err.splitlines() if "Segments overlap" in line]
        assert f"{wall_case[1]}: Segments overlap: " in line
        advice = ADVICE.search(line)
        assert advice is not None
        (wall,) = [one for one in map(json.loads, printed.out.splitlines()) if one["event"] == "wall"]
        assert f"dcamt: {wall['notes'][0]}" == line
        reported[bool(identity)] = unescape(report.read_text(encoding="utf-8"))
    assert "Smith" not in reported[False]
    assert 'voxels of "Smith\'s atrium" (value 1)' in reported[True]
    assert measure(wall_case, "--labels", advice[1], "--json") == 0
    printed = capsys.readouterr()
    assert "overlap" not in printed.err + printed.out
    whole = next(one for one in map(json.loads, printed.out.splitlines()) if one["event"] == "wall")
    assert whole["burden"][0]["wall_cm2"] > 1.2 * wall["burden"][0]["wall_cm2"]


def test_wall_command_is_silent_about_overlaps_of_other_segments(
    wall_case: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    openings = write_layers(wall_case[1].with_name("o.seg.nrrd"), [("valve", box(3)), ("vein", box(2, 3))])
    assert measure(wall_case, "--label", "2", "--openings", openings) == 0
    printed = capsys.readouterr()
    assert "overlap" not in printed.err + printed.out


def test_wall_command_explains_a_segment_that_another_covers(
    wall_case: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_layers(wall_case[1], [("atrium", box(3)), ("heart", box(2, 3))])
    assert measure(wall_case, "--label", "1") == 1
    errors = capsys.readouterr().err
    assert "has no label 1" in errors
    assert 'voxels of "atrium" (value 1) are read as another segment instead' in errors


def write_overlapping_labels(home: Path, validation: int = 1) -> tuple[Path, list[Path]]:
    table = write_cases_folder(home, labelled=1, validation=validation, shape=(12, 12, 12))
    labels, rows = [], []
    for case in (line.split(",") for line in table.read_text(encoding="utf-8").splitlines()[1:]):
        grid = read_labelmap(home / case[2]).grid
        heart = read_labelmap(home / case[2]).voxels > 0
        scar = np.roll(heart, 2, axis=2)  # partly outside the heart
        labels.append(write_layers(home / f"{case[0]}.seg.nrrd", [("heart", heart), ("scar", scar)], grid.affine))
        rows.append([case[0], case[1], labels[-1].name, case[3]])
    return write_table(home / "cases.csv", rows), labels


def overlap_lines(text: str) -> list[str]:
    return [line.strip().removeprefix("dcamt: ") for line in text.splitlines() if "Segments overlap" in line]


def write_recipe(path: Path) -> Path:
    content = tiny_recipe("iterations=1").to_dict()
    (first,) = content["classes"]
    content["classes"] = [first | {"name": "heart"}, first | {"name": "scar", "label": 2}]
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_commands_for_cases_name_the_overlapping_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, labels = write_overlapping_labels(tmp_path)
    recipe, run = write_recipe(tmp_path / "recipe.json"), tmp_path / "run"
    assert call_dcamt(["recipe", "suggest", table, "-o", tmp_path / "own.json", "--device", "cpu"]) == 0
    suggesting = overlap_lines(capsys.readouterr().err)
    assert call_dcamt(["cases", "check", table, "--recipe", recipe]) == 0
    checking = overlap_lines(capsys.readouterr().out)
    assert [line.partition(": ")[0] for line in checking] == [str(label) for label in labels]
    assert all(line.endswith("with --labels or in the case list's column 'labels'.") for line in checking)
    # A recipe is suggested only from cases with the role "labelled"; the second case has the role "validation".
    assert suggesting == checking[:1]
    assert call_dcamt(["train", table, "--run", run, "--recipe", recipe, "--device", "cpu"]) == 0
    # The report after the training reads the second label again, but the note on this label is printed only once.
    assert overlap_lines(capsys.readouterr().err) == checking
    assert call_dcamt(["report", run, "--device", "cpu"]) == 0
    assert overlap_lines(capsys.readouterr().err) == checking[1:]
    advice = ADVICE.search(checking[0])
    assert advice is not None
    mapping = ["--labels", f"scar=2,{advice[1]}"]
    assert call_dcamt(["cases", "check", table, "--recipe", recipe, *mapping]) == 0
    assert not overlap_lines(capsys.readouterr().out)


def test_check_of_cases_is_silent_about_segments_that_are_no_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, labels = write_overlapping_labels(tmp_path)
    for label in labels:
        heart = read_labelmap(label, {"heart": 1})
        other = np.zeros(heart.voxels.shape, bool)
        other[0, 0, :2] = True
        write_layers(label, [("heart", heart.voxels), ("b", other), ("c", other)], heart.grid.affine)
    assert call_dcamt(["cases", "check", table]) == 1  # The labels hold the value 3, but the recipe has one class.
    assert not overlap_lines(capsys.readouterr().out)


@pytest.mark.usefixtures("coarse_pictures")
def test_note_on_the_contradictory_spacing_of_a_label_is_printed_once(
    tiny_package: ModelPackage,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dcamt.inference.calibrating.DISTURBED", 0)
    table = write_cases_folder(tmp_path, labelled=1, validation=8, shape=(12, 12, 12))
    scan, label = tmp_path / "validation0.nii.gz", tmp_path / "validation0_label.nii.gz"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    short = table.with_name("short.csv")
    short.write_text("".join(lines[:3]), encoding="utf-8")
    contradict_spacing(scan)
    contradict_spacing(label)
    (note,) = read_labelmap(label).notes
    model = tmp_path / "m.dcamt"
    write_package(model, tiny_package)
    for command in (
        ["models", "calibrate", model, table, "--device", "cpu"],
        ["cases", "check", short],
        ["train", short, "--run", tmp_path / "run", "--device", "cpu", *set_options("iterations=1")],
        ["picture", scan, label, "-o", tmp_path / "a.png"],
        ["wall", scan, label, "-o", tmp_path / "wall"],  # The label is too small for a wall.
    ):
        call_dcamt(command)
        printed = capsys.readouterr()
        assert (printed.out + printed.err).count(f"{label}: {note}") == 1, command


@pytest.mark.usefixtures("coarse_pictures")
def test_events_contain_the_notes_that_are_printed(
    tiny_package: ModelPackage,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DCAMT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("dcamt.inference.calibrating.DISTURBED", 0)
    monkeypatch.setattr("dcamt.training.estimate.try_steps", lambda *arguments: Trial(1.0, 10**8, 1.0))
    table = write_cases_folder(tmp_path, labelled=1, validation=8, shape=(12, 12, 12))
    for name in ("labelled0", "validation0"):
        contradict_spacing(tmp_path / f"{name}.nii.gz")
        contradict_spacing(tmp_path / f"{name}_label.nii.gz")
    scan, label = tmp_path / "validation0.nii.gz", tmp_path / "validation0_label.nii.gz"
    scene = write_table(tmp_path / "scene.csv", [("a", "vtkMRMLScalarVolumeNode1", "", "labelled")])
    model = tmp_path / "m.dcamt"
    write_package(model, tiny_package)
    model.with_name("m.calibration.json").write_text("{", encoding="utf-8")
    short = write_table(tmp_path / "short.csv", [row.split(",") for row in table.read_text("utf-8").split()[1:3]])
    assert call_dcamt(["train", short, "--run", tmp_path / "run", "--device", "cpu", *set_options("iterations=1")]) == 0
    capsys.readouterr()
    for command, event, key in (
        (["models", "show", model], "card", "printed_notes"),
        (["models", "import", model], "imported", "notes"),
        (["models", "calibrate", model, table, "--device", "cpu", "--overwrite"], "calibrated", "printed_notes"),
        (["recipe", "suggest", short, "-o", tmp_path / "recipe.json", "--device", "cpu"], "recipe", "notes"),
        (["estimate", scene, "--scene", "--device", "cpu", *set_options()], "estimate", "notes"),
        (["report", tmp_path / "run", "--device", "cpu"], "report", "notes"),
        (["picture", scan, label, "-o", tmp_path / "a.png"], "picture", "notes"),
    ):
        call_dcamt([*command, "--json"])
        printed = capsys.readouterr()
        lines = [line.removeprefix("dcamt: ") for line in printed.err.splitlines()]
        (found, *_) = [fields for line in printed.out.splitlines() if (fields := json.loads(line))["event"] == event]
        assert found[key] == lines != [], command


@pytest.mark.usefixtures("coarse_pictures")
def test_picture_command_names_the_overlapping_segments(
    wall_case: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_dcamt(["picture", *wall_case, "-o", wall_case[0].with_name("a.png")]) == 0
    (line,) = overlap_lines(capsys.readouterr().err)
    assert line.startswith(f"{wall_case[1]}: Segments overlap: ")
    assert re.search(r"To use all voxels of .*value \d+\)?, save this segment in a file of its own\.$", line)
