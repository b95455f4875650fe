"""Without --overwrite, a command keeps a file that another program saved during the command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dcamt.api.segmentation import Segmenter
from dcamt.commands.scan_jobs import ScanJob
from dcamt.commands.segment_session import write_results
from dcamt.models import store as model_store
from dcamt.models.package import ModelPackage, open_model, write_package
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import save_noise_scan, write_cases_folder

BY_HAND = b"made by hand"
RESULTS = {
    "dcamt.commands.evaluate.evaluate_folders": "scores.csv",
    "dcamt.commands.picture.describe_segments": "picture.png",
    "dcamt.report.picture.draw_picture": "picture.png",
    "dcamt.commands.recipe.suggest_recipe": "recipe.json",
    "dcamt.commands.cases.find_cases": "list.csv",
    "dcamt.inference.calibrating.calibrate": "m.calibration.json",
}
"""Function that a command calls during its work -> name of the file that the command writes."""


@pytest.fixture(autouse=True)
def no_disturbances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcamt.inference.calibrating.DISTURBED", 0)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    table = write_cases_folder(folder, labelled=1, unlabelled=1, validation=8, shape=(12, 12, 12))
    for name in ("labels", "predictions"):
        (folder / name).mkdir()
        (folder / name / "a.nii.gz").write_bytes((folder / "labelled0_label.nii.gz").read_bytes())
    return table


def call_after(monkeypatch: pytest.MonkeyPatch, function: str, action: Callable[[], object]) -> None:
    """Let `action` run after each call of a function, given by its module and name."""
    module, _, name = function.rpartition(".")
    original = getattr(__import__(module, fromlist=[name]), name)

    def work_then_act(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        action()
        return result

    monkeypatch.setattr(function, work_then_act)


@pytest.mark.usefixtures("coarse_pictures")
@pytest.mark.parametrize("is_replaced", [False, True])
@pytest.mark.parametrize("function", RESULTS)
def test_result_saved_meanwhile_is_replaced_only_with_overwrite(
    cases: Path,
    tiny_package: ModelPackage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    function: str,
    is_replaced: bool,
) -> None:
    folder, file, model = cases.parent, tmp_path / RESULTS[function], tmp_path / "m.dcamt"
    write_package(model, tiny_package)
    commands: dict[str, list[str | Path]] = {
        "scores.csv": ["evaluate", "--predictions", folder / "predictions", "--labels", folder / "labels", "--csv"],
        "picture.png": ["picture", folder / "labelled0.nii.gz", folder / "labelled0_label.nii.gz", "-o"],
        "recipe.json": ["recipe", "suggest", cases, "-o"],
        "list.csv": ["cases", "find", folder, "-o"],
        "m.calibration.json": ["models", "calibrate", model, cases, "--device", "cpu", "-o"],
    }
    call_after(monkeypatch, function, lambda: file.write_bytes(BY_HAND))
    arguments = [*commands[file.name], file]
    assert call_dcamt([*arguments, "--overwrite"] if is_replaced else arguments) == (0 if is_replaced else 1)
    assert (file.read_bytes() != BY_HAND) == is_replaced
    assert (f"{file}: was written by another program" in capsys.readouterr().err) != is_replaced


@pytest.mark.parametrize("function", ["dcamt.commands.evaluate.evaluate_folders", "dcamt.commands.rank.rank_case"])
def test_rows_are_written_beside_a_table_that_was_saved_meanwhile(
    cases: Path,
    tiny_package: ModelPackage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    function: str,
) -> None:
    folder, model = cases.parent, tmp_path / "m.dcamt"
    write_package(model, tiny_package)
    commands: dict[str, list[str | Path]] = {
        "evaluate_folders": ["evaluate", "--predictions", folder / "predictions", "--labels", folder / "labels"],
        "rank_case": ["rank", cases, "--model", model, "--device", "cpu"],
    }
    command = commands[function.rpartition(".")[2]]
    expected, table = tmp_path / "expected.csv", tmp_path / "table.csv"
    assert call_dcamt([*command, "--csv", expected]) == 0
    call_after(monkeypatch, function, lambda: table.write_bytes(BY_HAND))
    assert call_dcamt([*command, "--csv", table]) == 1
    beside = tmp_path / "table-new.csv"
    assert f"The rows of this command are in {beside}." in capsys.readouterr().err
    assert (table.read_bytes(), beside.read_bytes()) == (BY_HAND, expected.read_bytes())


@pytest.mark.parametrize("is_removed", [False, True])
def test_calibration_does_not_write_a_model_that_was_changed_or_removed_meanwhile(
    cases: Path,
    tiny_package: ModelPackage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_removed: bool,
) -> None:
    model, newer = tmp_path / "m.dcamt", replace(tiny_package, card=replace(tiny_package.card, version="2"))
    write_package(model, tiny_package)
    change = model.unlink if is_removed else lambda: write_package(model, newer)
    call_after(monkeypatch, "dcamt.inference.calibrating.calibrate", change)
    assert call_dcamt(["models", "calibrate", model, cases, "--device", "cpu", "--overwrite"]) == 1
    assert f"{model}: was changed or removed during the calibration" in capsys.readouterr().err
    assert model.exists() != is_removed
    if not is_removed:
        assert open_model(model).card.version == "2"


def test_import_does_not_replace_a_model_whose_name_differs_only_in_capitals(
    tiny_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DCAMT_HOME", str(tmp_path / "home"))
    stored, file = tmp_path / "home" / "models" / "mine.dcamt", tmp_path / "download.dcamt"
    for path, name in ((stored, "mine"), (file, "Mine")):
        write_package(path, replace(tiny_package, card=replace(tiny_package.card, name=name)))
    before = stored.read_bytes()
    listed = model_store.stored_models()
    # The link simulates Windows, where `Mine.dcamt` and `mine.dcamt` are the same file.
    (stored.parent / "Mine.dcamt").hardlink_to(stored)
    monkeypatch.setattr(model_store, "stored_models", lambda: listed)
    assert call_dcamt(["models", "import", file]) == 1
    error = capsys.readouterr().err
    assert "a model 'Mine' exists already" in error
    assert "dcamt models remove mine" in error
    assert stored.read_bytes() == (stored.parent / "Mine.dcamt").read_bytes() == before


@pytest.mark.parametrize(("option", "status"), [([], 1), (["--skip-existing"], 0), (["--overwrite"], 0)])
def test_segment_replaces_a_result_saved_meanwhile_only_with_overwrite(
    noise_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: list[str],
    status: int,
) -> None:
    scans = [save_noise_scan(tmp_path / f"s{number}.nrrd", number) for number in range(2)]
    out = tmp_path / "out"

    def write_and_save(job: ScanJob, *rest: Any) -> None:
        write_results(job, *rest)
        if job.name == "s0":
            (out / "s1.seg.nrrd").write_text("drawn by hand", encoding="utf-8")

    monkeypatch.setattr("dcamt.commands.segment_session.write_results", write_and_save)
    assert call_dcamt(["segment", *scans, "-o", out, "--model", noise_model, *option]) == status
    is_kept = (out / "s1.seg.nrrd").read_bytes() == b"drawn by hand"
    assert is_kept == (option != ["--overwrite"])
    message = f"{out / 's1.seg.nrrd'}: was written by another program after this command had begun"
    printed = capsys.readouterr()
    assert (message in printed.err) == is_kept
    assert f"{1 if is_kept else 2} of 2 scans segmented" in printed.out


@pytest.mark.parametrize(("option", "status"), [([], 1), (["--skip-existing"], 0)])
@pytest.mark.parametrize("saved", ["s.wall.csv", "s.seg.nrrd", "s_probabilities.nrrd"])
def test_scan_gets_no_results_if_another_program_writes_a_result_while_the_wall_is_measured(
    noise_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    saved: str,
    option: list[str],
    status: int,
) -> None:
    scan, out = save_noise_scan(tmp_path / "s.nrrd"), tmp_path / "out"

    def save(*_: object, **__: object) -> None:
        out.mkdir()
        (out / saved).write_bytes(BY_HAND)

    monkeypatch.setattr("dcamt.commands.wall.analyse_wall", save)
    table = tmp_path / "table.csv"
    command = ["segment", scan, "-o", out / "s.seg.nrrd", "--model", noise_model, "--measurements", table]
    command += ["--wall", "--probabilities", "nrrd"]
    assert call_dcamt([*command, *option]) == status
    assert f"{out / saved}: was written by another program" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [saved]
    assert (out / saved).read_bytes() == BY_HAND
    assert not table.exists()


def test_file_that_another_program_writes_while_the_model_is_loaded_is_kept(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, result = save_noise_scan(tmp_path / "s.nrrd"), tmp_path / "s.seg.nrrd"
    load = Segmenter.load

    def load_and_save(*arguments: Any) -> Segmenter:
        result.write_text("drawn by hand", encoding="utf-8")
        return load(*arguments)

    monkeypatch.setattr(Segmenter, "load", load_and_save)
    assert call_dcamt(["segment", scan, "-o", result, "--model", noise_model]) == 1
    assert result.read_bytes() == b"drawn by hand"


@pytest.mark.usefixtures("coarse_pictures")
@pytest.mark.parametrize("option", [[], ["--skip-existing"], ["--overwrite"]])
@pytest.mark.parametrize("saved", ["s.seg.nrrd", "s.html"])
@pytest.mark.parametrize("function", ["dcamt.api.outputs.write_report", "dcamt.io.atomic._flush"])
def test_segment_keeps_a_file_that_is_saved_while_the_results_are_written(
    noise_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    function: str,
    saved: str,
    option: list[str],
) -> None:
    scan, out = save_noise_scan(tmp_path / "s.nrrd"), tmp_path / "out"
    call_after(monkeypatch, function, lambda: (out / saved).write_bytes(BY_HAND))
    command = ["segment", scan, "-o", out, "--report", "html", "--model", noise_model, *option]
    assert call_dcamt(command) == (1 if option == [] else 0)
    is_replaced = option == ["--overwrite"]
    assert ((out / saved).read_bytes() != BY_HAND) == is_replaced
    assert (f"{out / saved}: was written by another program" in capsys.readouterr().err) != is_replaced
    assert sorted(path.name for path in out.iterdir()) == (["s.html", "s.seg.nrrd"] if is_replaced else [saved])


def test_segment_writes_no_report_if_a_kept_segmentation_is_saved_while_the_report_is_drawn(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, segmentation = save_noise_scan(tmp_path / "s.nrrd"), tmp_path / "out" / "s.seg.nrrd"
    command = ["segment", scan, "-o", tmp_path / "out", "--model", noise_model]
    assert call_dcamt(command) == 0
    monkeypatch.setattr("dcamt.api.outputs.write_report", lambda *_, **__: segmentation.write_bytes(BY_HAND))
    assert call_dcamt([*command, "--report", "html", "--skip-existing"]) == 0
    assert f"{segmentation}: was written by another program" in capsys.readouterr().err
    assert [path.name for path in segmentation.parent.iterdir()] == ["s.seg.nrrd"]
