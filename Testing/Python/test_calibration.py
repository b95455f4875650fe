"""Test calibrations that are stored in a model package or in a file beside it."""

from __future__ import annotations

import json
import math
import re
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from dcamt.commands.serving import Worker
from dcamt.errors import InputError, OutputError
from dcamt.inference.predictor import Predictor
from dcamt.models.calibration import (
    Calibration,
    ExpectedOverlap,
    OverlapFunction,
    parse_calibration,
)
from dcamt.models.package import ModelPackage, calibration_path, open_model, write_package
from dcamt.models.store import import_model, remove_model
from dcamt.recipe import FAST
from dcamt.volume import Volume
from dcamt.worker.events import ScanSegmented, WorkerEvent
from dcamt.worker.protocol import request_line
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import write_cases_folder
from dcamt_testing.worker_child import write_request

LINE = OverlapFunction(("entropy",), (0.0,), (1.0,), (-1.0,), 0.0, (0.2, 0.8), (-0.1, -0.1), (0.2, 0.1))
"""The expected overlap is 1 / (1 + exp(entropy))."""


def calibration_of(package: ModelPackage, model: OverlapFunction = LINE) -> Calibration:
    return Calibration(package.card.checksum, {"accurate": model}, 8, 40, "made up", {"mean absolute error": 0.01})


def test_interval_contains_the_expected_overlap_and_stays_between_0_and_1() -> None:
    for lows, highs, low, high in (
        ((0.1,), (0.2,), 0.5, 0.7),
        ((-0.6,), (-0.1,), 0.0, 0.5),
        ((0.0,), (0.6,), 0.5, 1.0),
    ):
        expected = replace(LINE, knots=(0.5,), lows=lows, highs=highs).expect({"entropy": 0.0})
        assert (expected.low, expected.value, expected.high) == pytest.approx((low, 0.5, high))


def test_calibration_is_read_from_the_package_and_from_the_file_beside_it(
    tiny_package: ModelPackage, tmp_path: Path
) -> None:
    path = tmp_path / "m.dcamt"
    card = write_package(path, tiny_package)
    plain = path.read_bytes()
    assert open_model(path).calibration is None
    beside = replace(calibration_of(tiny_package), model=card.checksum)
    calibration_path(path).write_text(beside.to_json(), encoding="utf-8")
    assert calibration_path(path).name == "m.calibration.json"
    assert open_model(path).calibration == beside
    inside = replace(beside, notes="inside")
    assert write_package(path, replace(tiny_package, calibration=inside)).checksum == card.checksum
    # `write_package` removed the calibration file of the replaced model.
    assert not calibration_path(path).exists()
    assert open_model(path).calibration == inside
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("calibration.json")) == json.loads(json.dumps(asdict(inside)))
    write_package(path, tiny_package)
    assert path.read_bytes() == plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "0" * 64}, "belongs to another model"),
        ({"format": 3}, "format 3"),
        ({"doubt": {"bias": 0.0, "slope": -1.0}}, "scaling of the doubt cannot be used"),
        ({"cases": "many"}, "'calibration.cases' must be of type int"),
        ({"qualities": {"best": {**asdict(LINE)}}}, "quality 'best'"),
        ({"qualities": {"accurate": {**asdict(LINE), "knots": [0.8, 0.2]}}}, "cannot be used"),
        ({"qualities": {"accurate": {**asdict(LINE), "weights": []}}}, "cannot be used"),
        ({"qualities": {"accurate": {**asdict(LINE), "weights": [1.0]}}}, "cannot be used"),
        ({"qualities": {"accurate": {**asdict(LINE), "features": ["mystery"]}}}, "cannot be used"),
        ({"qualities": {"fast": {**asdict(LINE), "features": ["disagreement"]}}}, "quality 'fast'"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
    ids=str,
)
def test_invalid_calibration_is_refused_in_a_package_and_ignored_beside_it(
    change: dict[str, object], message: str, tiny_package: ModelPackage, tmp_path: Path
) -> None:
    path = tmp_path / "m.dcamt"
    card = write_package(path, tiny_package)
    data = asdict(replace(calibration_of(tiny_package), model=card.checksum)) | change
    calibration_path(path).write_text(json.dumps(data), encoding="utf-8")
    package = open_model(path)
    assert package.calibration is None
    (note,) = package.notes
    assert re.search(message, note)
    assert "m.calibration.json" in note
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("calibration.json", json.dumps(data))
    with pytest.raises(InputError, match=message) as caught:
        open_model(path)
    assert "Remove the file" not in str(caught.value)


def test_invalid_calibration_beside_a_model_causes_a_note_and_can_be_replaced(
    tiny_package: ModelPackage,
    oblique_scan: Volume,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dcamt.inference.calibrating.DISTURBED", 0)
    monkeypatch.setenv("DCAMT_HOME", str(tmp_path))
    path = tmp_path / "models" / "m.dcamt"
    write_package(path, tiny_package)
    calibration_path(path).write_text('{"format": 3}', encoding="utf-8")
    note = f"The calibration beside the model is not used: {calibration_path(path)}"
    assert any(one.startswith(note) for one in Predictor(open_model(path)).segment(oblique_scan, FAST).notes)
    assert call_dcamt(["models", "list"]) == 0
    assert note in capsys.readouterr().err
    cases = write_cases_folder(tmp_path / "cases", labelled=1, validation=8, shape=(12, 12, 12))
    command = ["models", "calibrate", path, cases, "--device", "cpu"]
    assert call_dcamt(command) == 1
    assert "has a calibration already. To replace the calibration, add --overwrite." in capsys.readouterr().err
    assert call_dcamt([*command, "--overwrite"]) == 0
    assert not calibration_path(path).exists()
    assert open_model(path).calibration is not None
    assert open_model(path).notes == ()


def test_calibration_of_format_1_has_no_scaling_of_the_doubt(tiny_package: ModelPackage) -> None:
    older = {key: value for key, value in asdict(calibration_of(tiny_package)).items() if key != "doubt"}
    calibration = parse_calibration(json.dumps(older | {"format": 1}), Path("x.json"))
    assert calibration == calibration_of(tiny_package)
    assert calibration.doubt is None


def test_text_that_is_not_a_calibration_is_refused() -> None:
    for text in ("", "[]", "{", "3", '{"format": 0}', '{"format": [1]}', "{}"):
        with pytest.raises(InputError, match="Calibrate the model again"):
            parse_calibration(text, Path("x.json"))
    with pytest.raises(InputError, match="lacks the key 'model'"):
        parse_calibration('{"format": 1}', Path("x.json"))


def test_store_imports_and_removes_the_calibration_with_its_model(
    tiny_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCAMT_HOME", str(tmp_path / "home"))
    path = tmp_path / "m.dcamt"
    card = write_package(path, tiny_package)
    beside = replace(calibration_of(tiny_package), model=card.checksum)
    calibration_path(path).write_text(beside.to_json(), encoding="utf-8")
    stored = import_model(path).path
    assert open_model(stored).calibration == beside
    other = replace(tiny_package, card=replace(tiny_package.card, notes="another"))
    write_package(path, other)
    import_model(path, replace=True)
    assert open_model(stored).calibration is None
    calibration_path(stored).write_text("left over", encoding="utf-8")
    remove_model(stored.stem)
    assert list(stored.parent.iterdir()) == []


def test_calibration_stays_if_its_model_can_be_neither_replaced_nor_removed(
    tiny_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCAMT_HOME", str(tmp_path / "home"))
    path = tmp_path / "m.dcamt"
    card = write_package(path, tiny_package)
    calibration = replace(calibration_of(tiny_package), model=card.checksum)
    calibration_path(path).write_text(calibration.to_json(), encoding="utf-8")
    stored = import_model(path).path
    write_package(path, replace(tiny_package, card=replace(tiny_package.card, notes="another")))

    def refuse(*_: object, **__: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    unlink = Path.unlink
    monkeypatch.setattr("dcamt.io.atomic.os.replace", refuse)
    monkeypatch.setattr(Path, "unlink", lambda file, **given: refuse() if file == stored else unlink(file, **given))
    for change in (lambda: import_model(path, replace=True), lambda: remove_model(stored.stem)):
        with pytest.raises(OutputError):
            change()
        assert open_model(stored).calibration == calibration


def test_calibrated_model_gives_an_expected_overlap(tiny_package: ModelPackage, oblique_scan: Volume) -> None:
    plain = Predictor(tiny_package, precision=torch.float32).segment(oblique_scan)
    assert plain.expected_overlap is None
    assert plain.notes == ()
    calibrated = replace(tiny_package, calibration=calibration_of(tiny_package))
    predictor = Predictor(calibrated, precision=torch.float32)
    result = predictor.segment(oblique_scan)
    assert result.doubt == plain.doubt
    assert result.expected_overlap == LINE.expect(result.doubt)
    assert result.expected_overlap.value == pytest.approx(1 / (1 + math.exp(result.doubt["entropy"])))
    assert predictor.segment(oblique_scan, FAST).expected_overlap is None


def test_low_expected_overlap_causes_a_note(tiny_package: ModelPackage, oblique_scan: Volume) -> None:
    low = replace(LINE, bias=-20.0)
    predictor = Predictor(replace(tiny_package, calibration=calibration_of(tiny_package, low)))
    (note,) = predictor.segment(oblique_scan).notes
    expected = "the expected overlap with an expert's outline is 0.00 (0.00 to 0.20)."
    assert note.startswith(f"The segmentation is probably wrong: {expected}")
    assert note.endswith("Check that the scan shows the left atrium in MRI, as the model expects.")
    several = replace(tiny_package.card, segments=("Liver", "Left kidney", "Aorta"))
    predictor = Predictor(replace(tiny_package, card=several, calibration=calibration_of(tiny_package, low)))
    assert "the liver, left kidney and aorta in MRI" in predictor.segment(oblique_scan).notes[0]


def test_expected_overlap_of_an_empty_segmentation_is_zero(tiny_package: ModelPackage) -> None:
    overlap = calibration_of(tiny_package).expect("accurate", {"nothing": 1.0})
    assert overlap == ExpectedOverlap(0, 0, 0)


def test_import_prefers_the_calibration_in_the_package_to_the_file_beside_it(
    tiny_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCAMT_HOME", str(tmp_path / "home"))
    path = tmp_path / "m.dcamt"
    card = write_package(path, replace(tiny_package, calibration=calibration_of(tiny_package)))
    beside = replace(calibration_of(tiny_package), model=card.checksum, notes="beside")
    calibration_path(path).write_text(beside.to_json(), encoding="utf-8")
    stored = import_model(path).path
    assert not calibration_path(stored).exists()
    calibration = open_model(stored).calibration
    assert calibration is not None
    assert calibration.notes == "made up"


def test_worker_reloads_the_model_when_a_calibration_appears_beside_it(
    tiny_package: ModelPackage, oblique_scan: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.dcamt"
    card = write_package(path, tiny_package)
    loads: list[ModelPackage] = []
    monkeypatch.setattr("dcamt.commands.serving.verify_model", lambda p: (loads.append(open_model(p)), loads[-1])[1])
    monkeypatch.setattr("dcamt.commands.serving.TRIAL", (8, 8, 8))
    received: list[WorkerEvent] = []
    worker = Worker(received.append)
    for number in range(4):
        if number == 2:
            text = replace(calibration_of(tiny_package), model=card.checksum).to_json()
            calibration_path(path).write_text(text, encoding="utf-8")
        assert worker.serve(request_line(write_request(oblique_scan, path, tmp_path / "scan")))
    assert sum(isinstance(one, ScanSegmented) for one in received) == 4
    assert [package.calibration is not None for package in loads] == [False, True]
