"""Test the Python API: types of public names, segmentation, evaluation, training, and the engine's examples."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dcamt
import numpy as np
import pytest
import torch
from dcamt.api.outputs import write_probabilities
from dcamt.api.training import Observer, TrainingSession
from dcamt.api.training_plan import plan_new_run, plan_resumed_run
from dcamt.cases.case_list import read_cases
from dcamt.errors import InputError
from dcamt.io.writers import write_volume
from dcamt.metrics.doubtful_places import doubtful_places
from dcamt.models.package import open_model, write_package
from dcamt.runs.events import RunEvent, RunFinished
from dcamt.runs.folder import RunFolder
from dcamt.runs.requests import PAUSE, STOP, read_request, write_request
from dcamt.runs.state import FAILED, FINISHED, STOPPED, RunState, run_state
from dcamt.volume import Volume
from dcamt_testing.processes import HANGING_S, call_dcamt
from dcamt_testing.synthetic import write_cases_folder
from dcamt_testing.tiny_recipes import TINY, tiny_recipe

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "Resources" / "SampleData" / "LGEHeartPhantom.nrrd"
PACKAGE = Path(dcamt.__file__).parent
MODULES_WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if re.search(r">>> (?!.*\+SKIP)", path.read_text(encoding="utf-8"))
)
"""The engine's modules whose docstrings hold an example that doctest does not skip."""


@pytest.fixture(scope="module")
def scan(oblique_scan: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scans") / "scan.nrrd"
    write_volume(oblique_scan, path)
    return path


@pytest.mark.parametrize("module", MODULES_WITH_EXAMPLES)
def test_examples_in_docstrings_run(module: str, tmp_path: Path) -> None:
    cases = write_cases_folder(tmp_path / "cases", labelled=2, validation=1)
    names = {"sample": str(SAMPLE), "folder": tmp_path, "cases": cases}
    result = doctest.testmod(importlib.import_module(f"dcamt.{module}"), extraglobs=names)
    assert result.attempted > 0
    assert result.failed == 0


def test_import_loads_no_submodule_until_a_name_is_used() -> None:
    program = (
        "import sys, dcamt; before = set(sys.modules); dcamt.Grid; "
        "print(*sorted(n for n in before if n.startswith('dcamt.') or n in ('torch', 'numpy'))); "
        "print('torch' in sys.modules, 'dcamt.geometry' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANGING_S, check=True, encoding="utf-8"
    )
    assert done.stdout.splitlines() == ["", "False True"]


def test_every_public_name_is_typed_in_the_stub_and_documented() -> None:
    """The stub imports each public name from the module that defines it."""
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    typed = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    public = {name: f"{module}.{name}" for name, module in dcamt._MODULE_OF.items()}
    assert typed == public
    for name in dcamt.__all__:
        assert getattr(dcamt, name).__doc__
    assert (PACKAGE / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        _ = dcamt.paint


def test_segment_gives_the_result_of_the_command_for_files_volumes_and_arrays(
    saved_model: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["segment", scan, "-o", tmp_path / "out.nrrd", "--model", saved_model, "--device", "cpu", "--json"]
    assert call_dcamt(arguments) == 0
    event = next(e for e in map(json.loads, capsys.readouterr().out.splitlines()) if e["event"] == "segmented")
    expected = dcamt.read_labelmap(tmp_path / "out.nrrd")
    assert expected.voxels.any()
    volume = dcamt.read_scan(scan)
    segmenter = dcamt.Segmenter.load(saved_model, "cpu")
    results = [
        dcamt.segment(scan, saved_model, device="cpu"),
        segmenter.segment(volume, keep_probabilities=True),
        segmenter.segment(volume.voxels[0], affine=volume.grid.affine),
    ]
    for result in results:
        np.testing.assert_array_equal(result.labelmap.voxels, expected.voxels)
        assert result.labelmap.grid.matches(expected.grid)
        assert result.measurements[0].volume_ml == pytest.approx(event["measurements"][0]["volume_ml"])
        assert result.trust == pytest.approx(event["trust"])
        assert result.disagreement is not None
        assert result.disagreement.shape == expected.voxels.shape
        assert result.doubt_map is not None
        assert result.doubt_map.shape == expected.voxels.shape
        assert result.doubtful_places() == doubtful_places(result.doubt_map, result.labelmap.grid)
    probabilities = results[1].probabilities
    assert probabilities is not None
    assert results[0].probabilities is None
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-4)
    with pytest.raises(ValueError, match="without keep_probabilities=True"):
        write_probabilities(results[0], tmp_path / "probabilities.nrrd")
    assert results[0].scan.path == scan


def test_result_lies_inside_the_region(saved_model: Path, scan: Path) -> None:
    segmenter = dcamt.Segmenter.load(saved_model, "cpu")
    volume = dcamt.read_scan(scan)
    everything = segmenter.segment(volume, region=(-1e3, 1e3, -1e3, 1e3, -1e3, 1e3)).labelmap.voxels
    centre = volume.grid.corners().mean(axis=0)
    low, high = centre - np.array([6, 5, 7]), centre + np.array([8, 9, 7])
    part = segmenter.segment(volume, region=(high[0], low[0], low[1], high[1], low[2], high[2])).labelmap.voxels
    index = np.stack(np.indices(volume.grid.shape), axis=-1)
    ras = index @ volume.grid.affine[:3, :3].T + volume.grid.affine[:3, 3]
    inside = ((ras >= low) & (ras <= high)).all(axis=-1)
    assert part.any()
    assert not part[~inside].any()
    assert everything[~inside].any()


def test_wrong_arguments_are_refused(saved_model: Path, scan: Path) -> None:
    segmenter = dcamt.Segmenter.load(saved_model, "cpu")
    volume = dcamt.read_scan(scan)
    with pytest.raises(ValueError, match="needs its affine"):
        segmenter.segment(volume.voxels)
    with pytest.raises(ValueError, match="have their own"):
        segmenter.segment(volume, affine=np.eye(4))
    with pytest.raises(ValueError, match="number of channels must be 1, not 2"):
        segmenter.segment(np.zeros((2, 8, 8, 8)), affine=np.eye(4))
    with pytest.raises(dcamt.InputError, match="not a region"):
        segmenter.segment(volume, region=(0, 0, 1, 2, 3, 4))
    with pytest.raises(dcamt.InputError, match="quality 'best' is unknown"):
        segmenter.segment(volume, quality="best")
    with pytest.raises(dcamt.InputError, match="does not exist"):
        segmenter.segment("nowhere.nrrd")


def test_folders_files_and_arrays_get_the_same_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    labels, predictions = [], []
    grid = dcamt.Grid((12, 14, 10), np.diag([1.5, 2.0, 2.5, 1.0]))
    for name in ("labels", "predictions"):
        (tmp_path / name).mkdir()
    for number in range(2):
        label = np.zeros(grid.shape, np.uint8)
        label[2:9, 3:11, 2:8] = 1
        prediction = np.where(rng.random(grid.shape) < 0.1, 0, label).astype(np.uint8)
        labels.append(label)
        predictions.append(prediction)
        dcamt.write_labelmap(dcamt.Labelmap(label, grid), tmp_path / "labels" / f"c{number}.nii.gz")
        dcamt.write_labelmap(dcamt.Labelmap(prediction, grid), tmp_path / "predictions" / f"c{number}.nii.gz")
    by_folder = dcamt.evaluate(tmp_path / "predictions", tmp_path / "labels")
    by_array = dcamt.evaluate(predictions, labels, spacing=(1.5, 2.0, 2.5))
    by_file = dcamt.evaluate(
        [tmp_path / "predictions" / f"c{n}.nii.gz" for n in range(2)],
        [tmp_path / "labels" / f"c{n}.nii.gz" for n in range(2)],
    )
    # Each prediction lies inside its label, so the Dice follows from the numbers of voxels.
    for row, label, prediction in zip(by_folder.rows, labels, predictions, strict=True):
        predicted, labelled = int(prediction.sum()), int(label.sum())
        assert row.score.dice == pytest.approx(2 * predicted / (predicted + labelled))
        assert row.label_volume_ml == pytest.approx(labelled * 1.5 * 2.0 * 2.5 / 1000)
    assert [row.score for row in by_array.rows] == [row.score for row in by_folder.rows]
    assert [row.score for row in by_file.rows] == [row.score for row in by_folder.rows]
    assert by_array.mean == by_folder.mean
    with pytest.raises(ValueError, match=r"predictions \(2\) differs from the number of labels \(1\)"):
        dcamt.evaluate(predictions, labels[:1], spacing=(1, 1, 1))
    with pytest.raises(ValueError, match="spacing"):
        dcamt.evaluate(predictions, labels)


@pytest.mark.parametrize("kind", ["arrays", "folders"])
def test_evaluate_has_the_same_rules_for_arrays_and_folders(tmp_path: Path, kind: str) -> None:
    label = np.zeros((8, 9, 10), np.uint8)
    label[2:6, 2:7, 3:8] = 1

    def evaluate(prediction: np.ndarray, label: np.ndarray) -> dcamt.Evaluation:
        if kind == "arrays":
            return dcamt.evaluate([prediction], [label], spacing=(1, 1, 1))
        for name, voxels in (("predictions", prediction), ("labels", label)):
            (tmp_path / name).mkdir(exist_ok=True)
            grid = dcamt.Grid((8, 9, 10), np.eye(4))
            dcamt.write_labelmap(dcamt.Labelmap(voxels, grid), tmp_path / name / "c0.nii.gz")
        return dcamt.evaluate(tmp_path / "predictions", tmp_path / "labels")

    (row,) = evaluate(np.roll(label, 1, axis=0) * np.uint8(255), label).rows
    # The prediction is the label, 4 voxels long, shifted by 1 voxel; its value 255 counts as 1.
    assert (row.label, row.score.dice) == (1, 0.75)
    with pytest.raises(dcamt.InputError, match="all labels are empty"):
        evaluate(label, label * 0)
    with pytest.raises(dcamt.InputError, match=r"\(3\) do not occur in the labels \(2\)"):
        evaluate(label * 3, label * 2)


def test_evaluate_refuses_fractional_labels_and_a_spacing_of_two_numbers() -> None:
    label = np.ones((4, 4, 4), np.uint8)
    with pytest.raises(dcamt.InputError, match="prediction 2: holds fractional values"):
        dcamt.evaluate([label, label * 0.5], [label, label], spacing=(1, 1, 1))
    with pytest.raises(ValueError, match="spacing"):
        dcamt.evaluate(label, label, spacing=(1, 1))


@pytest.mark.parametrize("first", [0.0, -1.0, float("nan"), float("inf")])
def test_evaluate_refuses_a_spacing_that_is_not_positive_and_finite(first: float) -> None:
    label = np.ones((4, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="three positive, finite numbers"):
        dcamt.evaluate(label, label, spacing=(first, 1, 1))


def test_evaluate_refuses_a_file_that_is_prediction_and_label(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    values = np.eye(4, dtype=np.uint8) + 2 * np.eye(4, dtype=np.uint8)[::-1]
    dcamt.write_labelmap(dcamt.Labelmap(values[None].repeat(4, 0), dcamt.Grid((4, 4, 4), np.eye(4))), path)
    with pytest.raises(
        dcamt.InputError, match=r"a\.nii\.gz: was given both as the prediction and as the label of its case"
    ):
        dcamt.evaluate([path], [path])
    # Value 2 of the file may be compared with value 1 of the same file; these values share no voxel.
    (row,) = dcamt.evaluate(path, path, label_mapping="1=1", prediction_mapping="2=1").rows
    assert row.score.dice == 0


def test_evaluate_refuses_a_scan_given_as_label_and_names_its_case() -> None:
    scan = np.arange(512).reshape(8, 8, 8)
    with pytest.raises(dcamt.InputError, match=r"^case 1: is probably a scan: it holds 511 different values"):
        dcamt.evaluate(scan % 2, scan, spacing=(1, 1, 1))


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


@pytest.mark.parametrize("earlier", ["damaged", "stopped"])
def test_resumed_run_writes_its_model_if_the_file_is_damaged_or_of_an_earlier_iteration(
    earlier: str, tmp_path: Path
) -> None:
    short_session(tmp_path, Observer()).run()
    run = RunFolder(tmp_path / "run")
    written = open_model(run.model)
    if earlier == "damaged":
        run.model.write_bytes(b"damaged")
    else:  # as after a kill before the last model was written
        stopped = replace(written.card, trained_on=written.card.trained_on | {"iterations": 1})
        write_package(run.model, replace(written, card=stopped))
    assert TrainingSession(plan_resumed_run(run.path, "cpu"), Observer()).run().iterations == 2
    assert open_model(run.model).card.trained_on["iterations"] == 2


@pytest.mark.parametrize("name", ["cases.csv", "recipe.json"])
def test_new_run_replaces_no_file_saved_in_its_folder_while_pytorch_loads(
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


def test_run_whose_label_is_damaged_during_the_training_gets_a_report_and_a_warning(tmp_path: Path) -> None:
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
    """A request that stopped the training does not end the calibration; only a later request ends the calibration."""
    run = RunFolder(tmp_path / "run")
    requests_before: list[str | None] = []
    warnings: list[str] = []

    def request_pause(*arguments: object, check: Callable[[], None], **options: object) -> None:
        check()
        requests_before.append(read_request(run))
        write_request(run, PAUSE)
        check()
        raise AssertionError("the check did not end the calibration")

    def stop(event: RunEvent) -> None:
        if is_stopped and event.kind == "started":
            write_request(run, STOP)

    monkeypatch.setattr("dcamt.api.training.MIN_CASES", 1)
    monkeypatch.setattr("dcamt.inference.calibrating.calibrate", request_pause)
    observer = Observer(stop, on_warning=warnings.append)
    done = short_session(tmp_path, observer, 100000 if is_stopped else 2).run()
    assert requests_before == [None]
    assert done.report is not None
    (warning,) = warnings
    assert warning.startswith(
        "the model was not calibrated: cancelled. Calibrate the model with: dcamt models calibrate "
    )
    assert run_state(run).state == (STOPPED if is_stopped else FINISHED)


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
    # The run is shortened: two more iterations remain.
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
