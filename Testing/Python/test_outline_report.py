"""Test the reports that an application requests for its outlines."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.metrics.doubtful_places import DoubtfulPlace
from dcamt.models.calibration import ExpectedOverlap
from dcamt.report import outline_report
from dcamt.report.scan_report import ScanReport
from dcamt.wall.analysis import WallResult
from dcamt.wall.burden import BORDER, OPENING, WALL
from dcamt.wall.files import write_wall
from dcamt.wall.sampling import BloodPool
from dcamt.wall.settings import WallSettings
from dcamt.wall.surface import Surface
from dcamt.worker.protocol import parse_request, request_line
from dcamt.worker.requests import OutlineMethod, ReportRequest, ReportSegment, SegmentMask

pytestmark = pytest.mark.usefixtures("coarse_pictures")

AFFINE = np.diag([-1.5, -1.5, 2.0, 1.0])


@pytest.fixture
def request_(tmp_path: Path) -> ReportRequest:
    """Return the request for the report of a box in a noisy scan, with a map of doubt."""
    mask = np.zeros((8, 9, 10), np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    noise = np.random.default_rng(0).normal(0, 5, mask.shape)
    for name, array in (("scan", 100.0 * mask + noise), ("mask", mask), ("map", 80 * mask)):
        np.save(tmp_path / f"{name}.npy", array)
    outline = SegmentMask("Left atrium", tmp_path / "mask.npy", AFFINE)
    segments = (ReportSegment(outline, (0.8, 0.3, 0.3)),)
    report, doubt_map = tmp_path / "report.html", tmp_path / "map.npy"
    return ReportRequest(tmp_path / "scan.npy", AFFINE, segments, report, doubt_map=doubt_map, doubt_map_affine=AFFINE)


@pytest.mark.parametrize(("shift_mm", "is_shown"), [(0.0, True), (0.002, True), (3.0, False)])
def test_map_of_doubt_on_another_grid_is_not_shown(
    shift_mm: float, is_shown: bool, request_: ReportRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[ScanReport] = []
    monkeypatch.setattr(outline_report, "render_scan_report", lambda report: reports.append(report) or "")
    affine = AFFINE.copy()
    affine[0, 3] += shift_mm
    request_ = parse_request(request_line(replace(request_, doubt_map_affine=affine)))
    outline_report.write_requested_report(request_)
    assert (reports[0].doubt_map is not None) == is_shown


def test_report_with_unknown_model_version_shows_warning_and_doubtful_places(request_: ReportRequest) -> None:
    method = OutlineMethod("", "Left atrium in LGE-MRI", "", "", "accurate")
    doubts = (DoubtfulPlace((-5.0, -5.0, 6.0), (0, 0, 0), 0.25, 0.0),)
    outline_report.write_requested_report(replace(request_, method=method, trust=0.87, doubts=doubts))
    text = request_.report.read_text(encoding="utf-8")
    for shown in (
        "Outline: a model of DCAMT (Left atrium in LGE-MRI), version unknown.",
        "The outline was made automatically",
        '<div class="faint">Voxels',
        ">87<",
        "1 doubtful place:",
    ):
        assert shown in text


def text_of(request: ReportRequest) -> str:
    outline_report.write_requested_report(parse_request(request_line(request)))
    return request.report.read_text(encoding="utf-8")


OWN_MODEL = OutlineMethod("own", "Own model", "1", "LGE-MRI", "accurate")


def test_report_says_whether_the_doubt_is_calibrated(request_: ReportRequest) -> None:
    request_ = replace(request_, method=OWN_MODEL, trust=0.87, expected_overlap=ExpectedOverlap(0.9, 0.8, 0.95))
    assert "No doubtful place. Doubt is not calibrated for this model." in text_of(request_)
    calibrated = replace(request_, is_doubt_calibrated=True)
    assert "No doubtful place. Doubt is calibrated for this model." in text_of(calibrated)


def test_accurate_result_is_not_reported_as_fast(request_: ReportRequest) -> None:
    text = text_of(replace(request_, method=OWN_MODEL, trust=None))
    assert OWN_MODEL.quality == "accurate"
    assert "Outline: model" in text
    for absent in ("Agreement", "one branch", "doubtful place"):
        assert absent not in text
    text = text_of(replace(request_, method=OWN_MODEL, expected_overlap=ExpectedOverlap(0.9, 0.8, 0.95)))
    assert "Agreement is unknown." in text
    assert "one branch" not in text
    assert "quality fast runs one branch" in text_of(replace(request_, method=replace(OWN_MODEL, quality="fast")))


def test_unknown_doubtful_places_are_not_counted(request_: ReportRequest) -> None:
    unknown = text_of(replace(request_, method=OWN_MODEL, trust=0.87, doubts=None))
    assert "An older version of DCAMT made this result" in unknown
    assert "No doubtful place" not in unknown
    assert not re.search(r"\d+ doubtful place", unknown)


@pytest.mark.parametrize("quality", ["fast", "accurate"])
@pytest.mark.parametrize("expected", [ExpectedOverlap(0.9, 0.8, 0.95), None])
def test_report_says_that_values_describe_the_outline_before_its_correction(
    expected: ExpectedOverlap | None, quality: str, request_: ReportRequest
) -> None:
    trust = 0.87 if quality == "accurate" else None
    method = replace(OWN_MODEL, quality=quality)
    request_ = replace(request_, method=method, trust=trust, expected_overlap=expected, is_corrected=True)
    has_values = expected is not None or trust is not None
    warning = "This section describes the outline before its correction."
    assert (warning in text_of(request_)) == has_values
    assert warning not in text_of(replace(request_, is_corrected=False))


@pytest.mark.parametrize(("count", "text"), [(1, ">1 doubtful"), (19, ">19 doubtful"), (20, ">20 or more doubtful")])
def test_20_doubtful_places_are_reported_as_20_or_more(count: int, text: str, request_: ReportRequest) -> None:
    place = DoubtfulPlace((-5.0, -5.0, 6.0), (0, 0, 0), 0.25, 0.0)
    assert text in text_of(replace(request_, method=OWN_MODEL, trust=0.87, doubts=(place,) * count))


def test_report_of_an_outline_of_unknown_origin_is_self_contained_and_names_no_model(request_: ReportRequest) -> None:
    outline_report.write_requested_report(request_)
    text = request_.report.read_text(encoding="utf-8")
    assert "Outline: of unknown origin (drawn by hand, or made by a program)." in text
    for unfounded in ("Agreement of", "branches", "Expected overlap", "made automatically"):
        assert unfounded not in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize("empty", [1, 2])
def test_report_calls_the_scan_unsegmented_only_if_every_segment_is_empty(
    empty: int, request_: ReportRequest, tmp_path: Path
) -> None:
    np.save(tmp_path / "empty.npy", np.zeros((8, 9, 10), np.uint8))
    (full,) = request_.segments
    other = replace(full, outline=replace(full.outline, mask=tmp_path / "empty.npy"))
    text = text_of(replace(request_, segments=(other, full if empty == 1 else other)))
    assert bool(re.search(r"nothing \w+ segmented", text, re.IGNORECASE)) == (empty == 2)
    assert ("through the centre of the segmentation" in text) == (empty == 1)


@pytest.mark.parametrize(
    ("count", "message"),
    [(0, "no segment was chosen for the report"), (256, "at most 255 segments, but 256 were chosen")],
)
def test_report_needs_1_to_255_segments(request_: ReportRequest, count: int, message: str) -> None:
    request_ = replace(request_, name="MRHead", segments=request_.segments * count)
    with pytest.raises(InputError, match=f"MRHead: .*{message}"):
        outline_report.write_requested_report(request_)
    assert not request_.report.exists()


def test_255_segments_get_labels_1_to_255() -> None:
    grid = Grid((3, 3, 255), np.eye(4))
    segments = []
    for k in range(255):
        mask = np.zeros(grid.shape, bool)
        mask[:, :, k] = True
        segments.append(outline_report.ReportedSegment(f"segment {k}", (1.0, 0.0, 0.0), mask, grid))
    labelmap, infos = outline_report.segments_to_labelmap(segments, grid, "scan")
    assert labelmap.voxels[0, 0].tolist() == list(range(1, 256))
    assert [info.label for info in infos] == list(range(1, 256))


@pytest.mark.parametrize("place", [0, 8], ids=["first byte", "length of the header"])
def test_error_of_a_damaged_map_of_doubt_names_the_scan_and_the_map(request_: ReportRequest, place: int) -> None:
    assert request_.doubt_map is not None
    data = bytearray(request_.doubt_map.read_bytes())
    data[place] = 5
    request_.doubt_map.write_bytes(data)
    with pytest.raises(InputError) as caught:
        outline_report.write_requested_report(replace(request_, name="MRHead"))
    assert str(caught.value) == "MRHead, map of doubt: was damaged on its way to DCAMT's background process. Try again."


def test_map_of_doubt_without_slices_is_refused(request_: ReportRequest) -> None:
    assert request_.doubt_map is not None
    np.save(request_.doubt_map, np.zeros((9, 10), np.uint8))
    with pytest.raises(InputError, match=r"^MRHead, map of doubt: is not three-dimensional\. "):
        outline_report.write_requested_report(replace(request_, name="MRHead"))


def test_outline_of_each_slice_has_a_black_rim(request_: ReportRequest) -> None:
    outline_report.write_requested_report(request_)
    text = request_.report.read_text(encoding="utf-8")
    rims, outlines = (re.findall(f'd="([^"]+)" fill="none" stroke="{color}"', text) for color in ("#000", "#cc4c4c"))
    assert rims == outlines
    assert len(rims) == 3  # axial, coronal and sagittal


@pytest.mark.parametrize("kind", [WALL, BORDER])
def test_legend_names_the_border_of_the_scan_only_if_the_wall_reaches_it(kind: int, request_: ReportRequest) -> None:
    points, triangles = np.eye(4, 3) * 5.0, np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    kinds, pool = np.array([kind, WALL, WALL, OPENING], np.uint8), BloodPool(12340.0, 1230.0, 1000)
    ratio = np.ones(4, np.float32)
    file = request_.report.with_name("wall.npz")
    write_wall(WallResult("", WallSettings(), Surface(points, triangles), pool, ratio, kinds, kinds * 0, True), file)
    outline_report.write_requested_report(replace(request_, wall=file))
    text = request_.report.read_text(encoding="utf-8")
    assert "opening, no wall" in text
    assert "mean 12340, SD 1230, 1000 voxels" in text
    assert (">scan's border<" in text) is (kind == BORDER)
