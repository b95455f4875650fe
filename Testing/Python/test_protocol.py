"""Requests and events of the worker are written and parsed without loss; an invalid one causes a one-line error."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.geometry import Region
from dcamt.metrics.doubtful_places import DoubtfulPlace
from dcamt.metrics.measurements import Measurements
from dcamt.models.calibration import ExpectedOverlap
from dcamt.volume import Code, SegmentInfo
from dcamt.worker.events import (
    ReportWritten,
    RequestFailed,
    ScanSegmented,
    SegmentResult,
    SegmentsMeasured,
    WallMeasured,
    WorkerEvent,
    WorkerNote,
    WorkerProgress,
    WorkerReady,
)
from dcamt.worker.protocol import parse_request, parse_worker_event, request_id, request_line, worker_event_line
from dcamt.worker.requests import (
    CancelRequest,
    KeepFilesRequest,
    MeasureRequest,
    OutlineMethod,
    ReportRequest,
    ReportSegment,
    Request,
    SegmentMask,
    SegmentRequest,
    WallRequest,
)

AFFINE = np.array([[1.5, 0, 0.25, -10], [0, -2, 0, 3], [0.125, 0, 3, 1e-7], [0, 0, 0, 1]])
ROW = Measurements(
    scan="LGE ä",
    segment="Left atrium",
    volume_ml=61.5,
    surface_cm2=80.25,
    long_diameter_mm=55.0,
    anteroposterior_diameter_mm=40.0,
    transverse_diameter_mm=50.0,
    sphericity=0.75,
)
INFO = SegmentInfo(1, "Left atrium", (0.8, 0.3, 0.3), Code("SCT", "82471001", "Left atrium"))
TO_UNIT = ((0.4, 0.2, 0.0, -1.3), (-0.3, 0.6, 0.0, -2.0), (0.0, 0.0, 2e-3, -0.01), (0.0, 0.0, 0.0, 1.0))
MASK = SegmentMask("LA", Path("mask.npy"), AFFINE * 3)
SEGMENT = SegmentRequest("m", Path("a b/volume.npy"), AFFINE, Path("out"), "LGE", "fast", "cuda", None, id="7")


@pytest.mark.parametrize(
    "request_",
    [
        SEGMENT,
        replace(SEGMENT, region=Region((-1.0, 2.5, 3.0), (4.0, 5.0, 6.0))),
        replace(SEGMENT, region=Region((-1.0, 2.5, 3.0), (4.0, 5.0, 6.0), TO_UNIT)),
        replace(SEGMENT, output=Path("\udce9")),  # a name that is not UTF-8
        MeasureRequest(
            (SegmentMask("LA", Path("0.npy"), AFFINE), SegmentMask("RA", Path("1.npy"), AFFINE * 2)), "LGE", "3"
        ),
        WallRequest(Path("v.npy"), AFFINE, MASK, Path("out"), "LGE", "4"),
        ReportRequest(
            Path("v.npy"),
            AFFINE,
            (ReportSegment(MASK, (0.8, 0.3, 0.3)),),
            Path("page.html"),
            method=OutlineMethod("la", "Left atrium", "1", "MRI", "fast"),
            doubt_map=Path("doubt.npy"),
            doubt_map_affine=AFFINE * 2,
            trust=0.5,
            doubts=None,
            expected_overlap=ExpectedOverlap(0.92, 0.88, 0.95),
            id="5",
        ),
        CancelRequest("6"),
        KeepFilesRequest("7"),
    ],
    ids=lambda one: one.kind,
)
def test_parsed_request_equals_the_written_request(request_: Request) -> None:
    line = request_line(request_)
    assert "\n" not in line
    parsed = parse_request(line)
    assert type(parsed) is type(request_)
    np.testing.assert_equal(asdict(parsed), asdict(request_))  # compares arrays by element


@pytest.mark.parametrize(
    "event",
    [
        WorkerReady("0.2.0", {"torch": "2.4"}),
        WorkerProgress("1", "segmenting", 0.25, 3.5),
        WorkerProgress("1", "loading", 0.0),
        WorkerNote("1", "The CPU was used."),
        ScanSegmented(
            "1",
            Path("labelmap.npy"),
            None,
            None,
            (DoubtfulPlace((1.0, -2.0, 3.5), (4, 5, 6), 0.25, 0.125),),
            (ROW,),
            (SegmentResult(INFO, ((0, 4), (2, 9), (1, 3))), SegmentResult(INFO, None)),
            12.5,
            "cpu",
            ("x", "y"),
            ExpectedOverlap(0.92, 0.88, 0.95),
            method=OutlineMethod("la", "Left atrium", "1", "MRI", "fast"),
        ),
        SegmentsMeasured("1", (ROW, ROW)),
        WallMeasured("1", Path("wall.npz"), ("a note",)),
        ReportWritten("1", Path("page.html")),
        RequestFailed(None, "missing_package", "torch is missing.", packages=("torch",)),
        RequestFailed("1", "input", "LGE: is empty.", "Traceback\n  ..."),
    ],
    ids=lambda one: one.kind,
)
def test_parsed_event_equals_the_written_event(event: WorkerEvent) -> None:
    line = worker_event_line(event)
    assert "\n" not in line
    assert parse_worker_event(json.loads(line)) == event


def test_undefined_measurements_are_parsed_as_nan() -> None:
    empty = replace(ROW, volume_ml=0.0, sphericity=math.nan)
    event = parse_worker_event(json.loads(worker_event_line(SegmentsMeasured("1", (empty,)))))
    assert isinstance(event, SegmentsMeasured)
    assert math.isnan(event.measurements[0].sphericity)
    assert event.measurements[0].volume_ml == 0


def region_with(to_unit: list[list[float]]) -> dict[str, Any]:
    return {"low": [0.0, 0.0, 0.0], "high": [1.0, 1.0, 1.0], "to_unit": to_unit}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": 1}, "Slicer and DCAMT's background process have different protocols (1 and 4). Restart Slicer."),
        ({"protocol": 3}, "Slicer and DCAMT's background process have different protocols (3 and 4). Restart Slicer."),
        ({"protocol": "4"}, "'request.protocol' must be of type int, not '4'."),
        ({"quality": "best"}, "the quality 'best' is unknown. Choose one of: fast, accurate."),
        ({"device": "tpu"}, "the device 'tpu' is unknown. Choose one of: auto, cpu, cuda, mps."),
        ({"affine": [[1, 0], [0, 1]]}, "the affine must hold 4 x 4 numbers, not 2 x 2."),
        ({"affine": 5}, "the affine must hold 4 x 4 numbers, not 1."),
        ({"affine": "x"}, "'request.affine' must be an array of numbers."),
        ({"affine": [["1", "0"], ["0", "1"]]}, "'request.affine' must be an array of numbers."),
        ({"affine": [[None, 0.0], [0.0, 1.0]]}, "'request.affine' must be an array of numbers."),
        ({"volume": None}, "'request.volume' must be of type Path, not None."),
        ({"region": {"low": [1, 2, 3]}}, "'request.region' lacks the key 'high'."),
        ({"region": region_with([[1.0, 0.0], [0.0]])}, "'request.region.to_unit' must hold 4 x 4 numbers."),
        ({"region": region_with([[0.0] * 4] * 4)}, "'request.region.to_unit' must be invertible."),
        ({"region": region_with([[1e308] * 4] * 4)}, "'request.region.to_unit' must be invertible."),
        ({"region": region_with([[math.nan] * 4] * 4)}, "'request.region.to_unit' must be a finite number, not nan."),
        ({"region": {"low": [0] * 3, "high": [1e-120] * 3}}, "'0.0,1e-120,0.0,1e-120,0.0,1e-120' is not a region."),
        ({"output": "a\0b"}, "'request.output' must be a valid path, not 'a\\x00b'."),
        ({"colour": 1}, "'request' has the unknown key 'colour'."),
        ({"request": ["segment"]}, "the request '['segment']' is unknown."),
    ],
    ids=str,
)
def test_invalid_request_is_refused(change: dict[str, Any], message: str) -> None:
    line = json.dumps({**json.loads(request_line(SEGMENT)), **change})
    with pytest.raises(InputError) as caught:
        parse_request(line)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert request_id(line) == "7"


@pytest.mark.skipif(os.name == "nt", reason="Windows allows such paths")
def test_path_that_cannot_be_encoded_is_refused() -> None:
    line = json.dumps({**json.loads(request_line(SEGMENT)), "output": "\ud800"})
    with pytest.raises(InputError, match=r"^'request\.output' must be a valid path, not '\\ud800'\.$"):
        parse_request(line)


def test_infinite_color_is_refused() -> None:
    request = ReportRequest(Path("v.npy"), AFFINE, (ReportSegment(MASK, (0.8, 0.3, 0.3)),), Path("page.html"))
    with pytest.raises(InputError, match=r"^'request\.segments\.color' must be a finite number, not inf\.$"):
        parse_request(request_line(request).replace("0.8", "1e400"))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"event": "dance"},
        {"event": ["note"]},
        {"event": "note", "id": "1"},
        {"event": "note", "id": 1, "message": "x"},
        {"event": "measured", "id": "1"},
        {"event": "measured", "id": "1", "measurements": 5},
        {"event": "measured", "id": "1", "measurements": ["volume"]},
    ],
    ids=str,
)
def test_invalid_event_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        parse_worker_event(fields)
    assert "\n" not in str(caught.value)


def test_request_id_of_an_invalid_line_is_none() -> None:
    for line in ("", "[]", "{}", '{"id": null}', "not json", "[" * 100_000):
        assert request_id(line) is None
