"""Test `dcamt.train` and training sessions: results, pauses, damaged files and wrong arguments."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dcamt
import numpy as np
import pytest
import torch
from dcamt.api.training import Observer, TrainingSession
from dcamt.api.training_plan import plan_new_run, plan_resumed_run
from dcamt.cases.case_list import Case, read_cases
from dcamt.errors import InputError, OutputError
from dcamt.models.package import open_model, write_package
from dcamt.recipe_files import with_settings
from dcamt.runs.events import RunEvent, RunFinished
from dcamt.runs.folder import RunFolder
from dcamt.runs.requests import PAUSE, STOP, read_request, write_request
from dcamt.runs.state import FAILED, FINISHED, PAUSED, STOPPED, RunState, run_state
from dcamt.training.checkpoint import load_checkpoint, save_checkpoint
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import new_trainer, write_cases_folder, write_table
from dcamt_testing.tiny_recipes import TINY, tiny_recipe


def test_train_makes_the_same_model_as_the_command(tmp_path: Path) -> None:
    """On a CPU, equal settings and seeds give equal weights."""
    cases = write_cases_folder(tmp_path / "cases", labelled=2, unlabelled=1, validation=1)
    settings = [*TINY, "iterations=4", "validate_every=2"]
    assert call_dcamt(["train", cases, "--run", tmp_path / "command", "--device", "cpu", "--set", *settings]) == 0
    seen: list[str] = []
    done = dcamt.train(
        cases, run=tmp_path / "api", settings=settings, device="cpu", on_event=lambda event: seen.append(event.kind)
    )
    assert (done.iterations, done.folder) == (4, tmp_path / "api")
    assert done.report is not None
    assert seen[0] == "checkpoint"  # before the first step, so that a killed run can be resumed
    assert {"started", "validation", "finished"} <= set(seen)
    expected = load_weights(tmp_path / "command" / "model.dcamt")
    assert all((load_weights(done.model)[name] == value).all() for name, value in expected.items())


def short_session(tmp_path: Path, observer: Observer, iterations: int = 2) -> TrainingSession:
    cases = write_cases_folder(tmp_path / "cases", labelled=1, unlabelled=1, validation=1)
    return TrainingSession(plan_new_run(cases, tmp_path / "run", tiny_recipe(f"iterations={iterations}")), observer)


def test_run_that_ends_during_calibration_counts_as_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*arguments: object, **options: object) -> None:
        raise SystemExit

    monkeypatch.setattr("dcamt.api.training.MIN_CASES", 1)
    monkeypatch.setattr("dcamt.inference.calibrating.calibrate", end)
    with pytest.raises(SystemExit):
        short_session(tmp_path, Observer()).run()
    run = RunFolder(tmp_path / "run")
    assert run_state(run) == RunState(FINISHED, iteration=2, iterations=2)
    # If the event "finished" was not yet written, the run has to be resumed.
    lines = run.events.read_text(encoding="utf-8").splitlines(keepends=True)
    run.events.write_text("".join(lines[:-1]), encoding="utf-8")
    assert run_state(run).state == FAILED
    warnings: list[str] = []
    observer = Observer(on_warning=warnings.append)
    assert TrainingSession(plan_resumed_run(run.path, "cpu"), observer).run().iterations == 2
    assert run_state(run).state == FINISHED
    # The run stays without calibration and report, and the warnings state how to make them.
    assert [warning.split(". ")[0] for warning in warnings] == [
        "the model is not calibrated",
        f"{run.path}: there is no report",
    ]
    assert f"dcamt models calibrate {run.model} {run.cases}" in warnings[0]


def test_run_of_an_older_version_is_resumed_although_no_loss_uses_its_unlabelled_cases(tmp_path: Path) -> None:
    table = write_cases_folder(tmp_path / "cases", labelled=1, unlabelled=1)
    settings = ("distillation=0", "mmd=0", "intra_class=0", "inter_class=0")
    new_trainer(tmp_path / "run", table, *settings, "iterations=1").fit(read_cases(table))
    recipe = tiny_recipe(*settings, "iterations=2")
    RunFolder(tmp_path / "run").recipe.write_text(recipe.to_json(), encoding="utf-8")
    assert dcamt.train(run=tmp_path / "run", resume=True, device="cpu").iterations == 2
    with pytest.raises(InputError, match="there are unlabelled cases, but no loss uses them"):
        plan_new_run(table, tmp_path / "new", recipe)


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("validation", "has the same content as"),
        (
            "unlabelled",
            "there are unlabelled cases, but all patches of a batch are labelled .batch and labelled_per_batch are 2.",
        ),
    ],
)
def test_cases_added_to_a_run_are_checked_when_it_resumes(role: str, message: str, tmp_path: Path) -> None:
    cases = write_cases_folder(tmp_path / "cases", labelled=1, validation=1)
    recipe = tiny_recipe("labelled_per_batch=2", "iterations=2")
    TrainingSession(plan_new_run(cases, tmp_path / "run", recipe), Observer()).run()
    run = RunFolder(tmp_path / "run")
    run.recipe.write_text(with_settings(recipe, ["iterations=4"]).to_json(), encoding="utf-8")
    for part in ("", "_label"):
        shutil.copy(tmp_path / "cases" / f"labelled0{part}.nii.gz", tmp_path / "cases" / f"new{part}.nii.gz")
    with run.cases.open("a", encoding="utf-8") as file:
        file.write(f"new,../cases/new.nii.gz,../cases/new_label.nii.gz,{role}\n")
    with pytest.raises(InputError, match=message):
        dcamt.train(run=run.path, resume=True, device="cpu")
    assert load_checkpoint(run.checkpoint, torch.device("cpu"))["step"] == 2
    assert plan_resumed_run(run.path, conclude=True).conclude


@pytest.mark.parametrize("earlier", ["damaged", "stopped"])
def test_resumed_run_replaces_a_model_that_is_damaged_or_of_an_earlier_iteration(earlier: str, tmp_path: Path) -> None:
    short_session(tmp_path, Observer()).run()
    run = RunFolder(tmp_path / "run")
    written = open_model(run.model)
    if earlier == "damaged":
        run.model.write_bytes(b"damaged")
    else:
        stopped = replace(written.card, trained_on=written.card.trained_on | {"iterations": 1})
        write_package(run.model, replace(written, card=stopped))
    assert TrainingSession(plan_resumed_run(run.path, "cpu"), Observer()).run().iterations == 2
    assert open_model(run.model).card.trained_on["iterations"] == 2


@pytest.mark.parametrize("name", ["cases.csv", "recipe.json"])
def test_new_run_keeps_a_file_that_a_person_saved_in_its_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run" / name

    def choose_device(*arguments: object, **options: object) -> torch.device:
        file.write_bytes(b"made by hand")
        return torch.device("cpu")

    monkeypatch.setattr("dcamt.devices.choose_device", choose_device)
    with pytest.raises(InputError, match="ame a new folder"):
        short_session(tmp_path, Observer()).run()
    assert file.read_bytes() == b"made by hand"


def test_report_leaves_out_a_case_with_a_damaged_label(tmp_path: Path) -> None:
    label = tmp_path / "cases" / "validation0_label.nii.gz"
    warnings: list[str] = []

    def damage(event: RunEvent) -> None:
        if isinstance(event, RunFinished):
            label.write_bytes(b"")

    done = short_session(tmp_path, Observer(damage, on_warning=warnings.append)).run()
    assert done.report == tmp_path / "run" / "report.html"
    (warning,) = warnings
    assert warning.startswith("the report leaves out the case 'validation0': ")
    assert f"{label.name}: is an empty file" in warning


@pytest.mark.parametrize("is_stopped", [False, True])
def test_pause_request_ends_the_calibration_with_a_warning(
    is_stopped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a stop request has ended the training (`is_stopped`), the same request does not also end the calibration."""
    run = RunFolder(tmp_path / "run")
    requests_before: list[str | None] = []
    warnings: list[str] = []
    progress_calls: list[tuple[int, int]] = []

    def request_pause(
        *arguments: object, progress: Callable[[int, int], None], check: Callable[[], None], **options: object
    ) -> None:
        check()
        progress(1, 8)
        requests_before.append(read_request(run))
        write_request(run, PAUSE)
        check()
        raise AssertionError("the check did not end the calibration")

    def stop(event: RunEvent) -> None:
        if is_stopped and event.kind == "started":
            write_request(run, STOP)

    monkeypatch.setattr("dcamt.api.training.MIN_CASES", 1)
    monkeypatch.setattr("dcamt.inference.calibrating.calibrate", request_pause)
    observer = Observer(
        stop, on_warning=warnings.append, on_calibration_progress=lambda *counts: progress_calls.append(counts)
    )
    done = short_session(tmp_path, observer, 100000 if is_stopped else 2).run()
    assert progress_calls == [(0, 1), (1, 8)]
    assert requests_before == [None]
    assert done.report is not None
    (warning,) = warnings
    assert warning.startswith(
        "the model was not calibrated: cancelled. Calibrate the model with: dcamt models calibrate "
    )
    assert run_state(run).state == (STOPPED if is_stopped else FINISHED)


def test_stop_request_ends_the_calibration_of_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")

    def request_at(kind: str, request: str) -> Observer:
        def receive(event: RunEvent) -> None:
            if event.kind == kind:
                write_request(run, request)

        return Observer(receive, on_warning=warnings.append)

    def calibrate(*arguments: object, check: Callable[[], None], **options: object) -> None:
        check()
        raise AssertionError("the check did not end the calibration")

    warnings: list[str] = []
    monkeypatch.setattr("dcamt.api.training.MIN_CASES", 1)
    monkeypatch.setattr("dcamt.inference.calibrating.calibrate", calibrate)
    with pytest.raises(dcamt.Cancelled):
        short_session(tmp_path, request_at("started", PAUSE), 100000).run()
    plan = plan_resumed_run(run.path, "cpu", conclude=True)
    TrainingSession(plan, request_at("validation", STOP)).run()
    (warning,) = warnings
    assert warning.startswith("the model was not calibrated: cancelled.")
    assert (run_state(run).state, run.model.exists(), read_request(run)) == (STOPPED, True, None)


def test_paused_run_raises_cancelled_and_can_be_resumed(tmp_path: Path) -> None:
    cases = write_cases_folder(tmp_path / "cases", labelled=1, unlabelled=1)
    settings = [*TINY, "iterations=100000"]
    run = RunFolder(tmp_path / "run")
    steps: list[int] = []

    def pause(event: RunEvent) -> None:
        if event.kind == "started":
            write_request(run, PAUSE)
        if event.kind == "paused":
            steps.append(event.iteration)

    with pytest.raises(dcamt.Cancelled, match="--resume"):
        dcamt.train(cases, run=run.path, settings=settings, device="cpu", on_event=pause)
    assert not run.model.exists()
    run.recipe.write_text(run.recipe.read_text(encoding="utf-8").replace("100000", str(steps[0] + 2)), encoding="utf-8")
    assert dcamt.train(run=run.path, device="cpu", resume=True).iterations == steps[0] + 2
    assert run.model.exists()


def load_weights(model: Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in open_model(model).weights.items()}


def test_run_uses_neither_left_out_cases_nor_labels_of_unlabelled_cases(tmp_path: Path) -> None:
    first, *others = read_cases(write_cases_folder(tmp_path / "cases", labelled=1, unlabelled=1))
    listed = [first, *(replace(case, label=first.label) for case in others), replace(first, name="x", role="left out")]
    plan = plan_new_run(listed, tmp_path / "run", tiny_recipe())
    assert [(case.name, case.label) for case in plan.cases] == [
        (first.name, first.label),
        *((case.name, None) for case in others),
    ]
    with pytest.raises(dcamt.InputError, match="has the role validation, but no label"):
        plan_new_run([first, replace(first, name="y", label=None, role="validation")], tmp_path / "run", tiny_recipe())


SCAN, LABEL = "labelled1.nii.gz", "labelled1_label.nii.gz"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("b", SCAN, LABEL, "Labeled", " 1=left-atrium "), "labelled"),
        ((" b ", SCAN, LABEL, "VALIDATION", ""), "validation"),
        (("b\0", SCAN, LABEL, " unlabeled\n", ""), "unlabelled"),
        ((7, SCAN, "", "unlabelled", ""), "unlabelled"),
        (("b", SCAN, "", "left_out", ""), "labelled"),  # Case `b` is left out, so the plan's last case is case `a`.
        (
            ("b", SCAN, LABEL, "test", ""),
            "has the unknown role 'test'. Use labelled, unlabelled, validation or left out.",
        ),
        (("b", SCAN, LABEL, "", ""), "has no role. Use"),
        (("b", SCAN, "", "Validation", ""), "has the role validation, but no label. Add the label"),
        (("", SCAN, "", "unlabelled", ""), "has no name or no image. Fill in both"),
        ((" \t", SCAN, "", "unlabelled", ""), "has no name or no image. Fill in both"),
        (("b", "", "", "unlabelled", ""), "has no name or no image. Fill in both"),
        (("a ", SCAN, "", "unlabelled", ""), "the name 'a' occurs twice. Give each case its own name."),
        (("b", "missing.nii.gz", "", "unlabelled", ""), "missing.nii.gz, which does not exist. Correct the path"),
        (("b", SCAN, "missing.nii.gz", "validation", ""), "missing.nii.gz, which does not exist. Correct the path"),
    ],
    ids=repr,
)
def test_given_cases_are_read_like_the_lines_of_a_case_list(
    cells: tuple[Any, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [("a", "labelled0.nii.gz", "labelled0_label.nii.gz", "labelled", ""), cells]
    table = write_cases_folder(tmp_path, labelled=2)
    write_table(table, [[str(cell) for cell in row] for row in rows], header="name,image,label,role,labels")
    run = RunFolder(tmp_path / "run")
    read: list[list[tuple[object, ...]]] = []
    for cases in (table, [Case(*row) for row in rows]):
        try:
            plan = plan_new_run(cases, run.path, tiny_recipe())
        except InputError as error:
            assert expected in str(error)  # noqa: PT017 - a list and given cases must raise the same error
            continue
        assert plan.cases[-1].role == expected
        read.append([describe(case) for case in plan.cases])
    if read:
        from_list, from_given = read
        assert from_given == from_list
        # A resumed run reads its cases from the list that the run wrote.
        run.create(plan.recipe, plan.cases, lambda: None)
        assert [describe(case) for case in plan_resumed_run(run.path).cases] == from_list


def describe(case: Case) -> tuple[object, ...]:
    return case.name, case.image.absolute(), case.label and case.label.absolute(), case.role, case.labels


def test_wrong_use_of_train_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run="):
        dcamt.train("cases.csv")
    with pytest.raises(ValueError, match="cases"):
        dcamt.train(run=tmp_path / "run")
    with pytest.raises(ValueError, match="resume"):
        dcamt.train("cases.csv", run=tmp_path / "run", resume=True)
    with pytest.raises(dcamt.InputError, match="effort 'fast' is unknown"):
        dcamt.train("cases.csv", run=tmp_path / "run", effort="fast")
    with pytest.raises(dcamt.InputError, match="holds no run"):
        dcamt.train(run=tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def edit(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("state", [FINISHED, STOPPED])
def test_run_with_models_keeps_its_state_if_it_cannot_be_resumed(state: str, tmp_path: Path) -> None:
    """A failed attempt to resume changes no model, so the models can still be used."""
    short_session(tmp_path, Observer()).run()
    run = RunFolder(tmp_path / "run")
    if state == STOPPED:
        edit(run.recipe, ('"iterations": 2', '"iterations": 9'))
    models = [run.model.read_bytes(), run.validation.read_bytes(), run.report.read_bytes()]
    checkpoint = run.checkpoint.read_bytes()
    run.checkpoint.unlink()
    with pytest.raises(InputError, match="there is no checkpoint to resume from"):
        TrainingSession(plan_resumed_run(run.path, "cpu"), Observer()).run()
    assert run_state(run).state == state
    assert "there is no checkpoint to resume from" in run_state(run).reason
    assert [run.model.read_bytes(), run.validation.read_bytes(), run.report.read_bytes()] == models
    run.checkpoint.write_bytes(checkpoint)
    assert TrainingSession(plan_resumed_run(run.path, "cpu"), Observer()).run().iterations == (
        2 if state == FINISHED else 9
    )
    assert run_state(run).reason == ""


def test_finished_run_is_resumable_after_its_iterations_were_raised_or_its_model_was_removed(tmp_path: Path) -> None:
    short_session(tmp_path, Observer()).run()
    run = RunFolder(tmp_path / "run")
    assert run_state(run) == RunState(FINISHED, iteration=2, iterations=2)
    model = run.model.read_bytes()
    run.model.unlink()
    assert run_state(run) == RunState(FINISHED, iteration=2, iterations=2, resumable=True)
    run.model.write_bytes(model)
    edit(run.recipe, ('"iterations": 2', '"iterations": 4'))
    assert run_state(run) == RunState(STOPPED, iteration=2, iterations=4, resumable=True)
    TrainingSession(plan_resumed_run(run.path, "cpu"), Observer()).run()
    assert run_state(run) == RunState(FINISHED, iteration=4, iterations=4)
    for text in (run.recipe.read_text(encoding="utf-8").replace('"iterations": 4', '"iterations": 3'), "damaged"):
        run.recipe.write_text(text, encoding="utf-8")
        assert run_state(run) == RunState(FINISHED, iteration=4, iterations=4)


def test_changed_files_of_a_finished_run_are_reported_and_apply_to_further_iterations(tmp_path: Path) -> None:
    short_session(tmp_path, Observer()).run()
    run = RunFolder(tmp_path / "run")
    model = run.model.read_bytes()

    def resume() -> list[str]:
        warnings: list[str] = []
        TrainingSession(plan_resumed_run(run.path, "cpu"), Observer(on_warning=warnings.append)).run()
        return warnings

    assert resume() == []
    title = open_model(run.model).recipe.title
    edit(run.recipe, (f'"title": "{title}"', '"title": "Changed"'))
    (warning,) = resume()
    assert warning.startswith(
        f"{run.recipe}: was changed after the last iteration, so the finished model stays as it is."
    )
    assert f"set more than 2 iterations in {run.recipe} and resume" in warning
    edit(run.cases, (",unlabelled", ",left out"))
    assert [text.partition(": was changed")[0] for text in resume()] == [str(run.recipe), str(run.cases)]
    assert run.model.read_bytes() == model
    edit(run.recipe, ('"iterations": 2', '"iterations": 4'))
    assert resume() == []
    trained = open_model(run.model)
    assert (trained.recipe.title, trained.card.title, trained.card.trained_on["unlabelled"]) == (
        "Changed",
        "Changed",
        0,
    )
    assert resume() == []


@pytest.mark.parametrize("change", [("validation0;", "other;"), ("cases/labelled0.nii.gz", "cases/copy.nii.gz")])
def test_finished_run_warns_if_a_name_or_path_in_its_case_list_was_changed(
    change: tuple[str, str], tmp_path: Path
) -> None:
    short_session(tmp_path / "project", Observer()).run()
    run = RunFolder((tmp_path / "project").rename(tmp_path / "moved") / "run")
    shutil.copy(tmp_path / "moved" / "cases" / "labelled0.nii.gz", tmp_path / "moved" / "cases" / "copy.nii.gz")

    def resume() -> list[str]:
        warnings: list[str] = []
        TrainingSession(plan_resumed_run(run.path, "cpu"), Observer(on_warning=warnings.append)).run()
        return warnings

    edit(run.cases, (",", ";"))  # as a spreadsheet program may save the table
    assert resume() == []
    edit(run.cases, change)
    (warning,) = resume()
    assert warning.startswith(f"{run.cases}: was changed after the last iteration")
    state = load_checkpoint(run.checkpoint, torch.device("cpu"))
    del state["case_list"]  # as in a run of version 0.1.0
    save_checkpoint(run.checkpoint, state)
    assert resume() == []


def test_card_of_a_model_written_again_counts_the_cases_used_in_training(tmp_path: Path) -> None:
    short_session(tmp_path, Observer()).run()
    run = RunFolder(tmp_path / "run")
    before = open_model(run.model).card.trained_on
    run.model.unlink()
    edit(run.cases, (",unlabelled", ",left out"))
    TrainingSession(plan_resumed_run(run.path, "cpu", conclude=True), Observer()).run()
    assert open_model(run.model).card.trained_on == before


@pytest.mark.parametrize("role", ["left out", "labelled"])
def test_scores_of_an_earlier_model_are_kept_under_another_name(role: str, tmp_path: Path) -> None:
    session = short_session(tmp_path, Observer())
    session.run()
    run = RunFolder(tmp_path / "run")
    scores, report = run.validation.read_bytes(), run.report.read_bytes()
    earlier = open_model(run.model)
    edit(run.recipe, ('"iterations": 2', '"iterations": 4'))
    edit(run.cases, (",validation", f",{role}"))
    warnings: list[str] = []
    done = TrainingSession(plan_resumed_run(run.path, "cpu"), Observer(on_warning=warnings.append)).run()
    assert warnings == []
    assert not run.validation.exists()
    assert (run.path / "validation-2.csv").read_bytes() == scores
    assert (run.path / "report-2.html").read_bytes() == report
    assert done.report == run.report
    assert run.foreign_files() == []
    # Without validation cases, the resumed run keeps the earlier model as the best model.
    # The best model's card describes the earlier validation (one case).
    assert done.best is not None
    best = open_model(done.best)
    assert all((best.weights[name] == weights).all() for name, weights in earlier.weights.items())
    assert best.card.measured == earlier.card.measured
    assert best.card.trained_on["validation"] == 1


@pytest.mark.parametrize("change", ["name", "label"])
def test_scores_of_different_validation_cases_are_not_compared(change: str, tmp_path: Path) -> None:
    short_session(tmp_path, Observer()).run()
    run = RunFolder(tmp_path / "run")
    kept = load_checkpoint(run.best_weights, torch.device("cpu"))
    save_checkpoint(run.best_weights, kept | {"mean_dice": 2.0})  # No later validation can reach this.
    edit(run.recipe, ('"iterations": 2', '"iterations": 4'))
    TrainingSession(plan_resumed_run(run.path, "cpu"), Observer()).run()
    assert load_checkpoint(run.best_weights, torch.device("cpu"))["step"] == 2
    edit(run.recipe, ('"iterations": 4', '"iterations": 6'))
    if change == "name":
        edit(run.cases, ("validation0,", "other,"))
    else:
        shutil.copy(tmp_path / "cases" / "labelled0_label.nii.gz", tmp_path / "cases" / "validation0_label.nii.gz")
    assert TrainingSession(plan_resumed_run(run.path, "cpu"), Observer()).run().best is None
    assert load_checkpoint(run.best_weights, torch.device("cpu"))["step"] == 6


@pytest.mark.parametrize(("names", "is_kept"), [(None, True), (["validation0"], True), (["other"], False)])
def test_best_model_of_an_older_version_is_kept_unless_the_validation_cases_have_other_names(
    names: list[str] | None, is_kept: bool, tmp_path: Path
) -> None:
    short_session(tmp_path, Observer()).run()
    run = RunFolder(tmp_path / "run")
    kept = load_checkpoint(run.best_weights, torch.device("cpu")) | {"mean_dice": 2.0}
    del kept["labels"]
    save_checkpoint(run.best_weights, kept if names is None else {**kept, "names": names})
    edit(run.recipe, ('"iterations": 2', '"iterations": 4'))
    best = TrainingSession(plan_resumed_run(run.path, "cpu"), Observer()).run().best
    assert (best is not None) == is_kept


def test_model_is_not_replaced_if_its_scores_cannot_be_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, a file that is open in another program cannot be renamed."""
    short_session(tmp_path, Observer()).run()
    run = RunFolder(tmp_path / "run")
    files = [run.model, run.validation, run.report]
    before = [file.read_bytes() for file in files]
    edit(run.recipe, ('"iterations": 2', '"iterations": 4'))

    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as locked:
        locked.setattr(Path, "rename", refuse)
        with pytest.raises(OutputError, match=r"report\.html: cannot be written \(no permission\)\. Close programs"):
            TrainingSession(plan_resumed_run(run.path, "cpu"), Observer()).run()
    assert [file.read_bytes() for file in files] == before
    assert (run_state(run).state, run_state(run).resumable) == (PAUSED, True)
    TrainingSession(plan_resumed_run(run.path, "cpu"), Observer()).run()
    assert (run.path / "validation-2.csv").read_bytes() == before[1]
    assert run_state(run).state == FINISHED
