"""Test the calibration of a model on cases, by the command and in Python."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from dcamt.cases.case_list import VALIDATION, Case, read_cases
from dcamt.errors import Cancelled, InputError
from dcamt.geometry import Grid
from dcamt.inference.calibrating import calibrate, mean_dice
from dcamt.inference.predictor import Prediction, Predictor
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.io.writers import write_labelmap
from dcamt.models.calibration import Calibration
from dcamt.models.doubt_scaling import BINS
from dcamt.models.package import ModelPackage, open_model, write_package
from dcamt.runs.folder import RunFolder
from dcamt.volume import IdentifyingNote, Labelmap, Volume
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import write_cases_folder


@pytest.fixture(autouse=True)
def no_disturbances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcamt.inference.calibrating.DISTURBED", 0)


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    table = write_cases_folder(tmp_path, labelled=1, validation=8, shape=(8, 8, 8))
    return [case for case in read_cases(table) if case.role == VALIDATION]


def test_command_calibrates_a_model(
    tiny_package: ModelPackage, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcamt.inference.calibrating.DISTURBED", 1)
    path = tmp_path / "m.dcamt"
    card = write_package(path, tiny_package)
    cases = write_cases_folder(tmp_path / "cases", labelled=1, validation=8, shape=(12, 12, 12))
    few = cases.with_name("few.csv")
    few.write_text("".join(cases.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    assert call_dcamt(["models", "calibrate", path, few]) == 1
    assert "lists too few validation cases (7); a calibration needs 8 or more" in capsys.readouterr().err
    assert call_dcamt(["models", "calibrate", path, cases, "--device", "cpu", "--labels", "1=aorta"]) == 1
    assert "'1=aorta' names no known class" in capsys.readouterr().err
    assert call_dcamt(["models", "calibrate", path, cases, "--device", "cpu", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["step"] for one in events if one["event"] == "progress"] == [*range(1, 9)]
    calibration = open_model(path).calibration
    assert calibration is not None
    assert (calibration.model, calibration.cases, calibration.scans) == (card.checksum, 8, 16)
    assert set(calibration.qualities) == {"fast", "accurate"}
    assert "disagreement" not in calibration.qualities["fast"].features
    assert events[-1]["measured"] == calibration.measured
    before = path.read_bytes()
    assert call_dcamt(["models", "calibrate", path, cases]) == 1
    assert "has a calibration already. To replace the calibration, add --overwrite." in capsys.readouterr().err
    assert path.read_bytes() == before
    result = Predictor(open_model(path)).segment(
        Volume(np.random.default_rng(0).random((1, 16, 16, 16)), Grid((16, 16, 16), np.diag([2.0, 2.0, 2.0, 1.0])))
    )
    assert result.expected_overlap is not None


def test_ignored_calibration_is_reported(
    tiny_package: ModelPackage, cases: list[Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, beside, table = tmp_path / "m.dcamt", tmp_path / "m.calibration.json", tmp_path / "cases.csv"
    write_package(model, tiny_package)
    command = ["models", "calibrate", model, table, "--device", "cpu"]
    assert call_dcamt([*command, "-o", tmp_path / "other.json"]) == 0
    assert f"other.json: is used only if moved to {beside}" in capsys.readouterr().err
    assert call_dcamt([*command, "-o", beside]) == 0
    assert "is used only" not in capsys.readouterr().err
    assert open_model(model).notes == ()
    text = beside.read_text(encoding="utf-8")
    assert call_dcamt([*command, "--overwrite"]) == 0
    assert not beside.exists()
    capsys.readouterr()
    for rule in ([], ["--overwrite"]):
        assert call_dcamt([*command, "-o", beside, *rule]) == 1
        reason = f"{beside}: would not be used, since the model {model} contains a calibration"
        assert reason in capsys.readouterr().err
        assert not beside.exists()
    beside.write_text(text, encoding="utf-8")
    reason = f"{beside}: the model's own calibration takes precedence. Remove the file."
    (note,) = open_model(model).notes
    assert note == f"The calibration beside the model is not used: {reason}"
    assert isinstance(note, IdentifyingNote)


def test_output_file_that_the_model_would_not_use_is_reported_before_calibrating(
    tiny_package: ModelPackage,
    cases: list[Case],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, other = tmp_path / "m.dcamt", tmp_path / "other.json"
    write_package(model, tiny_package)
    command = ["models", "calibrate", model, tmp_path / "cases.csv", "--device", "cpu"]
    assert call_dcamt(command) == 0
    capsys.readouterr()
    shown_before: list[str] = []

    def calibrate_and_note(*arguments: Any, **options: Any) -> Calibration:
        shown_before.append(capsys.readouterr().err)
        return calibrate(*arguments, **options)

    monkeypatch.setattr("dcamt.inference.calibrating.calibrate", calibrate_and_note)
    assert call_dcamt([*command, "-o", other]) == 0
    remedy = "Replace the model's own calibration: leave out --output, and add --overwrite."
    (shown,) = shown_before
    assert f"{other}: would not be used, since the model {model} contains a calibration" in shown
    assert remedy in shown
    assert "is used only if moved" not in capsys.readouterr().err
    # The file is used if it lies beside a model without a calibration of its own.
    assert open_model(model).calibration is not None
    write_package(tmp_path / "copy.dcamt", tiny_package)
    other.rename(tmp_path / "copy.calibration.json")
    assert open_model(tmp_path / "copy.dcamt").notes == ()
    assert open_model(tmp_path / "copy.dcamt").calibration is not None


def test_calibration_on_fewer_than_eight_cases_is_refused(tiny_package: ModelPackage) -> None:
    with pytest.raises(InputError, match=r"too few labelled cases were given \(0\); a calibration needs 8 or more"):
        calibrate(tiny_package, [], Predictor(tiny_package))


class FakePredictor:
    """A predictor whose first `number` segmentations contain an organ; all later segmentations are empty."""

    def __init__(self, number: int) -> None:
        self._left = number

    def segment(self, volume: Volume, quality: str) -> Prediction:
        self._left -= 1
        is_empty = self._left < 0
        doubt = {"nothing": float(is_empty), "entropy": 0.1 * self._left, "disagreement": -0.1 * self._left}
        labelmap = Labelmap(np.full(volume.grid.shape, 0 if is_empty else 1, np.uint8), volume.grid)
        return Prediction(labelmap, None, None, None, None, doubt=doubt)


def test_calibration_is_refused_when_fewer_than_three_cases_have_a_nonempty_segmentation(
    tiny_package: ModelPackage, cases: list[Case]
) -> None:
    qualities = 2  # the predictor segments each case once in each quality
    with pytest.raises(InputError, match="in fast quality the model finds an organ in only 2 of these cases"):
        calibrate(tiny_package, cases, FakePredictor(2 * qualities))  # type: ignore[arg-type]
    assert calibrate(tiny_package, cases, FakePredictor(3 * qualities)).cases == 8  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "message"), [(3, "holds the label value 3"), (0, "is empty")])
def test_calibration_is_refused_for_a_label_that_training_refuses(
    tiny_package: ModelPackage, cases: list[Case], value: int, message: str
) -> None:
    label = read_labelmap(cases[0].label)  # type: ignore[arg-type]
    changed = replace(label, voxels=(label.voxels > 0).astype(np.uint8) * np.uint8(value))
    write_labelmap(changed, cases[0].label, ())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        calibrate(tiny_package, cases, FakePredictor(80))  # type: ignore[arg-type]


def test_calibration_states_the_fraction_of_empty_segmentations(tiny_package: ModelPackage, cases: list[Case]) -> None:
    figures = calibrate(tiny_package, cases, FakePredictor(2 * 6)).measured  # type: ignore[arg-type]
    assert figures["fast, fraction of scans with an empty segmentation"] == 0.25
    figures = calibrate(tiny_package, cases, FakePredictor(80)).measured  # type: ignore[arg-type]
    assert not any("empty" in figure for figure in figures)


def test_check_callback_can_cancel_the_calibration_between_segmentations(
    tiny_package: ModelPackage, cases: list[Case]
) -> None:
    calls: list[int] = []

    def cancel_third() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled("Cancelled.")

    with pytest.raises(Cancelled):
        calibrate(tiny_package, cases, FakePredictor(80), check=cancel_third)  # type: ignore[arg-type]
    assert len(calls) == 3


def test_scaling_of_the_doubt_is_fitted_only_to_undisturbed_scans(
    tiny_package: ModelPackage, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expected overlap, in contrast, is fitted to the scans and to disturbed copies of the scans."""
    counted: list[float] = []

    class Doubtful(FakePredictor):
        def segment(self, volume: Volume, quality: str) -> Prediction:
            result = super().segment(volume, quality)
            # The sum of the scan's voxels identifies the scan in `counted`.
            return replace(result, doubt_map=np.full(volume.grid.shape, volume.voxels.sum(), np.float32))

    def count(doubt: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        counted.append(float(doubt.flat[0]))
        return np.zeros((3, BINS))

    disturbed_per_case = 2
    monkeypatch.setattr("dcamt.inference.calibrating.DISTURBED", disturbed_per_case)
    monkeypatch.setattr("dcamt.inference.calibrating.count_doubt", count)
    calibration = calibrate(tiny_package, cases, Doubtful(80))  # type: ignore[arg-type]
    assert calibration.scans == len(cases) * (1 + disturbed_per_case)
    sums = [float(read_scan(case.image).voxels.astype(np.float32).sum()) for case in cases]
    assert counted == pytest.approx([total for total in sums for _ in ("fast", "accurate")])


def test_mean_dice_ignores_absent_label_values() -> None:
    label, prediction = np.array([1, 1, 2, 2, 0, 0]), np.array([1, 0, 2, 2, 2, 0])
    assert mean_dice(prediction, label, [1, 2, 3]) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_mean_dice_is_zero_if_label_and_prediction_are_empty() -> None:
    background = np.zeros(6, int)
    assert mean_dice(background, background, [1]) == 0


def test_calibration_needs_no_training_cases_and_refuses_to_replace_a_scan(
    tiny_package: ModelPackage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.dcamt"
    write_package(path, tiny_package)
    table = write_cases_folder(tmp_path / "cases", labelled=0, unlabelled=0, validation=8, shape=(12, 12, 12))
    command = ["models", "calibrate", path, table, "--device", "cpu"]
    scan = table.with_name("validation3.nii.gz")
    before = scan.read_bytes()
    assert call_dcamt([*command, "--output", scan, "--overwrite"]) == 1
    assert f"{scan}: would be replaced by a result." in capsys.readouterr().err
    assert scan.read_bytes() == before
    assert call_dcamt(command) == 0
    assert open_model(path).calibration is not None


def test_model_in_a_folder_without_permission_is_refused_before_the_calibration(
    tiny_package: ModelPackage,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "m.dcamt"
    write_package(path, tiny_package)
    table = write_cases_folder(tmp_path / "cases", labelled=0, validation=8, shape=(12, 12, 12))
    # The missing permission is simulated, because `chmod` would have no effect if root runs the tests.
    monkeypatch.setattr("dcamt.commands.result_files.os.access", lambda *_: False)
    assert call_dcamt(["models", "calibrate", path, table, "--device", "cpu"]) == 1
    assert f"{path}: cannot be written (no permission for {tmp_path})" in capsys.readouterr().err


def test_calibration_needs_only_the_files_of_validation_cases(
    tiny_package: ModelPackage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.dcamt"
    write_package(path, tiny_package)
    table = write_cases_folder(tmp_path / "cases", labelled=1, unlabelled=1, validation=8, shape=(12, 12, 12))
    command = ["models", "calibrate", path, table, "--device", "cpu"]
    table.with_name("validation7.nii.gz").rename(tmp_path / "moved.nii.gz")
    assert call_dcamt(command) == 1
    assert "validation7.nii.gz, which does not exist" in capsys.readouterr().err
    (tmp_path / "moved.nii.gz").rename(table.with_name("validation7.nii.gz"))
    for case in read_cases(table):
        if case.role != VALIDATION:
            case.image.unlink()
    assert call_dcamt(command) == 0
    assert open_model(path).calibration is not None


@pytest.mark.parametrize("is_converted", [False, True])
@pytest.mark.parametrize("role", ["labelled", "unlabelled"])
def test_model_of_a_run_is_not_calibrated_on_its_training_cases(
    tiny_package: ModelPackage, tmp_path: Path, capsys: pytest.CaptureFixture[str], role: str, is_converted: bool
) -> None:
    table = write_cases_folder(tmp_path / "cases", labelled=2, validation=8, shape=(12, 12, 12))
    run = RunFolder(tmp_path / "run")
    trained = [replace(case, role=role) if case.name == "labelled1" else case for case in read_cases(table)]
    run.create(tiny_package.recipe, trained, lambda: None)
    write_package(run.model, tiny_package)
    other = table.with_name("other.csv")
    text = table.read_text(encoding="utf-8").replace(",labelled\n", ",validation\n")
    if is_converted:
        for name in ("labelled0", "labelled1"):
            image = SimpleITK.ReadImage(str(table.with_name(f"{name}.nii.gz")))
            SimpleITK.WriteImage(image, str(table.with_name(f"{name}.nrrd")))
            text = text.replace(f"{name}.nii.gz", f"{name}.nrrd")
    other.write_text(text, encoding="utf-8")
    before = run.model.read_bytes()
    assert call_dcamt(["models", "calibrate", run.model, other, "--device", "cpu"]) == 1
    relation = "has the same content as the scan of" if is_converted else "is also the scan of"
    message = f"{relation} the training case 'labelled0'. Leave one of these cases out."
    assert message in capsys.readouterr().err
    assert run.model.read_bytes() == before
    assert call_dcamt(["models", "calibrate", run.model, run.cases, "--device", "cpu"]) == 0
    assert call_dcamt(["models", "calibrate", run.model, other, "--device", "cpu"]) == 1
    assert "has a calibration already" in capsys.readouterr().err


def test_calibration_counts_the_training_scans_that_cannot_be_compared(
    tiny_package: ModelPackage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The relative paths in a run's case list become invalid if only the run's folder is copied."""
    table = write_cases_folder(tmp_path / "cases", labelled=2, unlabelled=1, validation=8, shape=(12, 12, 12))
    run = RunFolder(tmp_path / "run")
    run.create(tiny_package.recipe, read_cases(table), lambda: None)
    write_package(run.model, tiny_package)
    copied = RunFolder(Path(shutil.copytree(run.path, tmp_path / "elsewhere" / "run")))
    assert call_dcamt(["models", "calibrate", copied.model, table, "--device", "cpu"]) == 0
    assert f"{copied.cases}: 3 of 3 training scans could not be read" in capsys.readouterr().err
    table.with_name("labelled0.nii.gz").unlink()
    assert call_dcamt(["models", "calibrate", run.model, table, "--device", "cpu"]) == 0
    assert f"{run.cases}: 1 of 3 training scans could not be read" in capsys.readouterr().err
