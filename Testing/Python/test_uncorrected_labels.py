"""Test cases whose labels are uncorrected results of DCAMT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dcamt.cases.case_list import LABELLED, VALIDATION, read_cases
from dcamt.commands.cases import assign_validation
from dcamt.io.readers import read_labelmap
from dcamt.io.writers import write_labelmap
from dcamt.models.package import ModelPackage, open_model, write_package
from dcamt.runs.folder import RunFolder
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import train_arguments, write_cases_folder


@pytest.fixture(autouse=True)
def no_disturbances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcamt.inference.calibrating.DISTURBED", 0)


def write_cases_with_results(folder: Path, *results: str, labelled: int = 2, validation: int = 9) -> Path:
    """Write a case list; the labels of the cases named in `results` are marked as results of DCAMT."""
    table = write_cases_folder(folder, labelled, validation=validation)
    for name in results:
        label = folder / f"{name}_label.nii.gz"
        write_labelmap(read_labelmap(label), label, mark=True)
    return table


def count_notes(printed: str, role: str) -> int:
    return printed.count(f"the labels of these {role} cases are results of DCAMT that were not corrected")


def test_calibration_leaves_out_validation_cases_with_uncorrected_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = ("labelled0", "validation3")
    table = write_cases_with_results(tmp_path / "cases", *results)
    run = RunFolder(tmp_path / "run")
    assert call_dcamt(train_arguments(table, run, "iterations=1")) == 0
    printed = capsys.readouterr().err
    assert count_notes(printed, LABELLED) == count_notes(printed, VALIDATION) == 1
    assert "not corrected: labelled0. A model learns the mistakes of such labels." in printed
    assert "not corrected: validation3. The Dice of these cases does not show the accuracy" in printed
    package = open_model(run.model)
    assert package.calibration is not None
    assert package.calibration.cases == 8
    assert package.card.measured[0]["on"].endswith("; labels that are uncorrected results of DCAMT: 1")
    report = run.report.read_text(encoding="utf-8")
    assert "Validation labels that are uncorrected results of DCAMT" in report
    assert call_dcamt(["models", "calibrate", run.model, table, "--device", "cpu", "--overwrite", "--json"]) == 0
    printed_events, printed = capsys.readouterr()
    assert count_notes(printed, VALIDATION) == 1
    assert count_notes(printed, LABELLED) == 0
    calibrated = json.loads(printed_events.splitlines()[-1])
    assert calibrated["cases"] == 8
    assert len(calibrated["printed_notes"]) == 1


def test_run_with_too_few_labels_made_by_a_person_is_not_calibrated(
    tiny_package: ModelPackage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_cases_with_results(tmp_path / "cases", "validation0", "validation1")
    run = RunFolder(tmp_path / "run")
    assert call_dcamt(train_arguments(table, run, "iterations=1")) == 0
    assert open_model(run.model).calibration is None
    capsys.readouterr()
    write_package(tmp_path / "m.dcamt", tiny_package)
    assert call_dcamt(["models", "calibrate", tmp_path / "m.dcamt", table, "--device", "cpu"]) == 1
    message = "lists too few validation cases whose labels a person made or corrected (7);"
    assert message in capsys.readouterr().err


def test_labels_made_by_a_person_cause_no_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_cases_with_results(tmp_path / "cases", labelled=1, validation=1)
    run = RunFolder(tmp_path / "run")
    assert call_dcamt(train_arguments(table, run, "iterations=1")) == 0
    assert "results of DCAMT" not in capsys.readouterr().err
    assert open_model(run.model).card.measured[0]["on"] == "1 validation cases of the run, on the network's grid"


@pytest.mark.parametrize(
    ("count", "chosen"), [(0, ""), (1, "labelled3"), (2, "labelled2 labelled3"), (3, "labelled0 labelled2 labelled3")]
)
def test_validation_gets_the_last_cases_whose_labels_a_person_made(tmp_path: Path, count: int, chosen: str) -> None:
    table = write_cases_with_results(tmp_path, "labelled1", "labelled4", labelled=5, validation=0)
    cases = assign_validation(read_cases(table), count)
    assert [case.name for case in cases if case.role == VALIDATION] == chosen.split()
    assert len(cases) == 5


def test_validation_takes_uncorrected_labels_if_there_are_no_others(tmp_path: Path) -> None:
    table = write_cases_with_results(tmp_path, "labelled0", "labelled1", "labelled2", labelled=3, validation=0)
    cases = assign_validation(read_cases(table), 2)
    assert [case.role for case in cases] == [LABELLED, VALIDATION, VALIDATION]
