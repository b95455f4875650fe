"""Test the ranking of unlabelled cases: scores, places of highest disagreement, and the command `dcamt rank`."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dcamt.cases.case_list import NOT_UTF8, UNLABELLED, Case
from dcamt.commands.rank import _describe_score, _event_fields, segmentation_names
from dcamt.errors import write_error
from dcamt.inference.predictor import Prediction
from dcamt.io.readers import read_labelmap
from dcamt.metrics.doubtful_places import densest_voxel
from dcamt.runs.folder import RunFolder
from dcamt.training.ranking import RankedCase, rank_case, sort_by_score, write_ranking
from dcamt.volume import Labelmap, Volume
from dcamt_testing.analytic_scans import centred_grid, points_of, rotation
from dcamt_testing.processes import call_dcamt
from dcamt_testing.scan_files import deny_folder
from dcamt_testing.synthetic import (
    contradict_spacing,
    read_table,
    save_tiny_model,
    write_cases_folder,
    write_nifti,
    write_table,
)
from dcamt_testing.tiny_recipes import tiny_recipe


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 2.5)])
def test_place_is_where_the_summed_disagreement_is_highest(spacing: tuple[float, float, float]) -> None:
    grid = centred_grid((50, 40, 24), spacing, rotation(20, -10, 30))
    points = points_of(grid)
    centre = points[30, 22, 11]
    blob = np.linalg.norm(points - centre, axis=-1) < 4
    amount = 0.6 * blob
    amount[5, 5, 5] = 1.0  # higher disagreement, but in a single voxel: a smaller sum
    place = grid.position(densest_voxel(amount, grid))
    assert np.linalg.norm(np.array(place) - centre) <= max(spacing)


def fixed_predictor(labels: np.ndarray, agreement: np.ndarray, trust: float) -> Any:
    def segment(volume: Volume) -> Prediction:
        return Prediction(Labelmap(labels, volume.grid), None, agreement, None, trust)

    return SimpleNamespace(segment=segment, recipe=tiny_recipe())


def test_score_is_the_disagreement_or_1_for_an_empty_result(tmp_path: Path) -> None:
    write_cases_folder(tmp_path, labelled=0, unlabelled=1)
    case = Case("a", tmp_path / "unlabelled0.nii.gz", None, UNLABELLED)
    labels, agreement = np.ones((24, 24, 24), np.uint8), np.ones((24, 24, 24), np.float32)
    agreement[4:8, 4:8, 4:8] = 0.2
    ranked, _ = rank_case(case, fixed_predictor(labels, agreement, 0.75))
    assert ranked.score == pytest.approx(0.25)
    # The place is near the centre of voxels 4 to 7; the spacing is 2 mm.
    assert np.abs(np.array(ranked.place) - 2.0 * 5.5).max() <= 2.0
    empty, _ = rank_case(case, fixed_predictor(0 * labels, np.ones_like(agreement), 1.0))
    assert empty.score == 1.0
    assert (ranked.is_empty, empty.is_empty) == (False, True)
    assert _describe_score(empty) == "100.0% disagreement: the model segmented nothing"
    assert _describe_score(ranked).startswith(" 25.0% disagreement, most at RAS ")


def test_cases_are_sorted_by_descending_score_then_by_name(tmp_path: Path) -> None:
    ranked = [
        RankedCase(name, tmp_path / f"{name}.nii", score, (1.5, -2.25, 3.0))
        for name, score in zip("cab", (0.1, 0.5, 0.1), strict=True)
    ]
    assert [one.name for one in sort_by_score(ranked)] == ["a", "b", "c"]
    write_ranking(ranked, tmp_path / "next.csv")
    rows = read_table(tmp_path / "next.csv")
    assert [(row["rank"], row["name"], row["score"]) for row in rows] == [
        ("1", "a", "0.5"),
        ("2", "b", "0.1"),
        ("3", "c", "0.1"),
    ]
    assert {(row["r_mm"], row["a_mm"], row["s_mm"]) for row in rows} == {("1.5", "-2.25", "3.0")}
    assert [Path(row["image"]) for row in rows] == [tmp_path / f"{name}.nii" for name in "abc"]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_table_names_a_linked_scan_by_its_link(tmp_path: Path) -> None:
    (tmp_path / "p1.nii").symlink_to("stored")
    write_ranking([RankedCase("p1", tmp_path / "p1.nii", 0.1, (0.0, 0.0, 0.0))], tmp_path / "next.csv")
    assert [row["image"] for row in read_table(tmp_path / "next.csv")] == [str(tmp_path / "p1.nii")]


def test_one_path_for_table_and_folder_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_cases_folder(tmp_path, labelled=1, unlabelled=1)
    out = tmp_path / "out"
    assert call_dcamt(["rank", table, "--csv", out, "--segmentations", out, "--device", "cpu"]) == 1
    assert f"{out}: would be both a file and a folder of results" in capsys.readouterr().err
    assert not out.exists()


def test_command_ranks_the_readable_unlabelled_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_cases_folder(tmp_path, labelled=1, unlabelled=3, validation=1)
    model = save_tiny_model(tmp_path / "tiny.dcamt", tiny_recipe())
    (tmp_path / "unlabelled1.nii.gz").write_bytes(b"spoilt")
    arguments = ["rank", table, "--model", model, "--device", "cpu", "--csv", tmp_path / "next.csv", "--json"]
    assert call_dcamt([*arguments, "--segmentations", tmp_path / "proposed"]) == 1
    printed = capsys.readouterr()
    assert "unlabelled1.nii.gz" in printed.err
    events = [json.loads(line) for line in printed.out.splitlines()]
    scored = {event["name"]: event for event in events if event["event"] == "scored"}
    assert set(scored) == {"unlabelled0", "unlabelled2"}
    ranking = [row["name"] for row in read_table(tmp_path / "next.csv")]
    assert ranking == events[-1]["cases"] == sorted(scored, key=lambda n: -scored[n]["score"])
    for event in scored.values():
        assert 0 <= event["score"] <= 1
        assert read_labelmap(event["segmentation"]).grid.shape == (24, 24, 24)


def test_scan_in_a_folder_without_permission_does_not_stop_the_ranking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    locked, other = tmp_path / "locked" / "p1_0000.nii.gz", tmp_path / "unlabelled0.nii.gz"
    write_cases_folder(tmp_path, labelled=0, unlabelled=1)
    table = write_table(
        tmp_path / "both.csv", [("p1", str(locked), "", UNLABELLED), ("p2", str(other), "", UNLABELLED)]
    )
    model = save_tiny_model(tmp_path / "tiny.dcamt", tiny_recipe())
    deny_folder(locked.parent, monkeypatch)
    assert call_dcamt(["rank", table, "--model", model, "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    assert "p2" in printed.out
    assert f"{locked}: cannot be read (no permission)" in printed.err


def test_table_and_events_name_the_cases_in_which_nothing_is_segmented(tmp_path: Path) -> None:
    found = RankedCase("found", tmp_path / "found.nii", 0.4, (0.0, 0.0, 0.0))
    empty = RankedCase("empty", tmp_path / "empty.nii", 1.0, (0.0, 0.0, 0.0), is_empty=True)
    write_ranking([found, empty], tmp_path / "next.csv")
    assert [(row["name"], row["empty"]) for row in read_table(tmp_path / "next.csv")] == [
        ("empty", "1"),
        ("found", "0"),
    ]
    assert [_event_fields(case)["empty"] for case in (found, empty)] == [False, True]


def test_notes_on_a_scan_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_cases_folder(tmp_path, labelled=0, unlabelled=2)
    contradict_spacing(tmp_path / "unlabelled0.nii.gz")
    write_nifti(tmp_path / "unlabelled1.nii.gz", np.indices((24, 24, 24), np.uint8)[0] // 12)
    model = save_tiny_model(tmp_path / "tiny.dcamt", tiny_recipe())
    assert call_dcamt(["rank", table, "--model", model, "--device", "cpu", "--json"]) == 0
    printed = capsys.readouterr()
    notes = ("The header states two spacings of the voxels", "The scan has only 2 different intensities")
    events = [event for line in printed.out.splitlines() if (event := json.loads(line))["event"] == "scored"]
    for number, note in enumerate(notes):
        assert f"unlabelled{number}.nii.gz: {note}" in printed.err
        assert sum(text.startswith(note) for text in events[number]["notes"]) == 1


def test_note_on_the_case_list_is_in_the_last_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_cases_folder(tmp_path, labelled=0, unlabelled=1)
    table.write_bytes(table.read_bytes().replace(b"\nunlabelled0,", "\nMüller,".encode("cp1252")))
    model = save_tiny_model(tmp_path / "tiny.dcamt", tiny_recipe())
    assert call_dcamt(["rank", table, "--model", model, "--device", "cpu", "--json"]) == 0
    printed = capsys.readouterr()
    last = json.loads(printed.out.splitlines()[-1])
    assert (last["cases"], last["notes"]) == (["Müller"], [f"{table}: {NOT_UTF8}"])
    assert f"dcamt: {table}: {NOT_UTF8}\n" in printed.err


def test_names_that_differ_only_in_capitals_are_refused_where_the_file_system_ignores_capitals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_cases_folder(tmp_path, labelled=0, unlabelled=2, validation=0)
    table.write_text(table.read_text().replace("unlabelled0,", "P1,", 1).replace("unlabelled1,", "p1,", 1))
    model = save_tiny_model(tmp_path / "tiny.dcamt", tiny_recipe())
    (tmp_path / "Proposed").mkdir()
    if not (tmp_path / "pROPOSED").exists():
        (tmp_path / "pROPOSED").symlink_to("Proposed")  # As on a file system that ignores capitals.
    arguments = ["rank", table, "--model", model, "--device", "cpu", "--segmentations", tmp_path / "Proposed"]
    assert call_dcamt([*arguments, "--overwrite"]) == 1
    assert "p1.seg.nrrd: two results would be written to this file." in capsys.readouterr().err
    assert not list((tmp_path / "Proposed").iterdir())


def test_segmentation_file_is_numbered_only_if_the_case_name_cannot_be_a_file_name() -> None:
    kept = ("p1_5.000-LGE 3D", "Müller (2)", "1.2.840.7", "-p_1", "p1[a]", "50%", "A&B, #1 {x}", "O'Neil=@~")
    names = (*kept, "a/b", "..", "x:y", "p ", "CON")
    assert segmentation_names(names) == [*kept, *(f"case{number}" for number in range(9, 14))]


def test_number_of_a_segmentation_file_stays_when_the_role_of_another_case_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_cases_folder(tmp_path, labelled=1, unlabelled=2, validation=0)
    text = table.read_text(encoding="utf-8").replace("\nunlabelled1,", "\nc:d,", 1)
    model = save_tiny_model(tmp_path / "tiny.dcamt", tiny_recipe())
    arguments = ["rank", table, "--model", model, "--device", "cpu", "--segmentations", tmp_path / "proposed"]
    lines = []
    for role in ("unlabelled", "left out"):
        table.write_text(text.replace(",unlabelled\n", f",{role}\n", 1), encoding="utf-8")
        assert call_dcamt([*arguments, "--overwrite"]) == 0
        printed = capsys.readouterr().out.splitlines()
        lines.append([line for line in printed if line.startswith("segmentation of 'c:d'")])
    assert lines[0] == lines[1] == [f"segmentation of 'c:d': {tmp_path / 'proposed' / 'case3.seg.nrrd'}"]


def test_numbered_segmentation_file_does_not_take_the_name_of_another_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_cases_folder(tmp_path, labelled=1, unlabelled=2, validation=0)
    text = table.read_text(encoding="utf-8")
    # "a/b" is the second case. Its file cannot be "case2" or "case2_", because "case2" and "CASE2_" are other cases.
    for before, after in (("unlabelled0,", "a/b,"), ("unlabelled1,", "case2,"), ("labelled0,", "CASE2_,")):
        text = text.replace(f"\n{before}", f"\n{after}", 1)
    table.write_text(text, encoding="utf-8")
    model = save_tiny_model(tmp_path / "tiny.dcamt", tiny_recipe())
    arguments = ["rank", table, "--model", model, "--device", "cpu", "--segmentations", tmp_path / "proposed"]
    assert call_dcamt(arguments) == 0
    names = sorted(path.name for path in (tmp_path / "proposed").iterdir())
    assert names == ["case2.seg.nrrd", "case2__.seg.nrrd"]
    printed = capsys.readouterr().out
    assert printed.count("segmentation of ") == 1
    assert f"segmentation of 'a/b': {tmp_path / 'proposed' / names[1]}" in printed


def test_ranking_never_replaces_its_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_cases_folder(tmp_path / "run", labelled=1, unlabelled=1, validation=0)
    run = RunFolder(table.parent)
    save_tiny_model(run.model, tiny_recipe())
    run.events.touch()
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    for path in (run.cases, run.events, run.model):
        assert call_dcamt(["rank", "--run", run.path, "--csv", path, "--overwrite"]) == 1
        assert f"{path}: would be replaced by a result." in capsys.readouterr().err
    assert call_dcamt(["rank", table, "--model", run.model, "--csv", table, "--overwrite"]) == 1
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_missing_list_and_list_without_unlabelled_cases_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_cases_folder(tmp_path, labelled=1)
    assert call_dcamt(["rank", table]) == 1
    assert "holds no unlabelled case" in capsys.readouterr().err
    assert call_dcamt(["rank"]) == 2


def test_run_without_a_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cases_folder(tmp_path / "run", labelled=1, unlabelled=1)
    assert call_dcamt(["rank", "--run", tmp_path / "run"]) == 1
    assert "the run has no model yet" in capsys.readouterr().err


def test_path_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_cases_folder(tmp_path / "cases", labelled=1, unlabelled=1)
    for path in (tmp_path / "missing", table):
        for arguments in (["rank", "--run", path], ["rank", table, "--run", path]):
            assert call_dcamt(arguments) == 1
            assert capsys.readouterr().err == f"dcamt: {path}: holds no run. Give the folder of a run.\n"


def test_ranking_and_failures_are_printed_even_if_the_table_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(ranked: object, path: Path) -> None:
        raise write_error(OSError(errno.ENOSPC, "No space left on device"), path)

    monkeypatch.setattr("dcamt.commands.rank.write_ranking", fail)
    cases = write_cases_folder(tmp_path / "cases", labelled=0, unlabelled=2)
    (tmp_path / "cases" / "unlabelled1.nii.gz").write_bytes(b"damaged")
    model = save_tiny_model(tmp_path / "tiny.dcamt", tiny_recipe())
    assert call_dcamt(["rank", cases, "--model", model, "--csv", tmp_path / "next.csv"]) == 1
    printed = capsys.readouterr()
    assert "unlabelled0" in printed.out
    assert "unlabelled1.nii.gz: " in printed.err
    assert "next.csv: the disk is full" in printed.err


@pytest.mark.parametrize("is_replaced", [False, True])
@pytest.mark.parametrize(
    ("option", "result", "saved"),
    [("--segmentations", "proposed", "proposed/unlabelled0.seg.nrrd"), ("--csv", "next.csv", "next.csv")],
)
def test_file_saved_during_the_ranking_is_replaced_only_with_overwrite(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    result: str,
    saved: str,
    is_replaced: bool,
) -> None:
    file = tmp_path / saved
    file.parent.mkdir(exist_ok=True)

    def rank_and_save(*arguments: Any) -> Any:
        file.write_text("made by hand", encoding="utf-8")
        return rank_case(*arguments)

    monkeypatch.setattr("dcamt.commands.rank.rank_case", rank_and_save)
    cases = write_cases_folder(tmp_path / "cases", labelled=0, unlabelled=1)
    model = save_tiny_model(tmp_path / "tiny.dcamt", tiny_recipe())
    arguments = ["rank", cases, "--model", model, option, tmp_path / result]
    assert call_dcamt([*arguments, "--overwrite"] if is_replaced else arguments) == (0 if is_replaced else 1)
    assert (file.read_bytes() != b"made by hand") == is_replaced
    printed = capsys.readouterr()
    # A case whose segmentation cannot be written is not in the ranking.
    assert ("unlabelled0" in printed.out) == (is_replaced or option == "--csv")
    assert (f"{file}: was written by another program" in printed.err) != is_replaced


@pytest.mark.parametrize("is_corrected_before", [False, True])
def test_ranking_again_keeps_a_corrected_segmentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_corrected_before: bool
) -> None:
    cases = write_cases_folder(tmp_path / "cases", labelled=0, unlabelled=2)
    model = save_tiny_model(tmp_path / "tiny.dcamt", tiny_recipe())
    first, second = (tmp_path / "proposed" / f"unlabelled{number}.seg.nrrd" for number in range(2))
    arguments = ["rank", cases, "--model", model, "--segmentations", first.parent]
    assert call_dcamt(arguments) == 0
    proposed = first.stat().st_mtime_ns

    segmented: list[str] = []

    def rank_and_save(case: Case, predictor: Any) -> Any:
        segmented.append(case.name)
        if case.name == "unlabelled1":
            second.write_text("made by hand", encoding="utf-8")
        return rank_case(case, predictor)

    monkeypatch.setattr("dcamt.commands.rank.rank_case", rank_and_save)
    if is_corrected_before:
        second.write_text("made by hand", encoding="utf-8")
    capsys.readouterr()
    assert call_dcamt([*arguments, "--overwrite", "--keep-corrected"]) == 1
    assert segmented == (["unlabelled0"] if is_corrected_before else ["unlabelled0", "unlabelled1"])
    assert second.read_bytes() == b"made by hand"
    assert first.stat().st_mtime_ns != proposed
    assert (
        f"{second}: has no valid mark of DCAMT. Perhaps another program, such as Slicer, saved the file. The file is"
        " kept." in capsys.readouterr().err
    )
