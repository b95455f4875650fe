"""The page of outlines that were not made in the process that writes the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dcamt.metrics.doubtful_places import DoubtfulPlace
from dcamt.report import outline_page
from dcamt.report.scan_page import ScanPage
from dcamt.worker.protocol import OutlineMethod, PageRequest, PageSegment, SegmentMask, parse_request, request_line

AFFINE = np.diag([-1.5, -1.5, 2.0, 1.0])


@pytest.fixture
def request_(tmp_path: Path) -> PageRequest:
    """Return the request for the page of a box in a noisy scan, with a map of disagreement."""
    mask = np.zeros((8, 9, 10), np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    noise = np.random.default_rng(0).normal(0, 5, mask.shape)
    for name, array in (("scan", 100.0 * mask + noise), ("mask", mask), ("map", 80 * mask)):
        np.save(tmp_path / f"{name}.npy", array)
    outline = SegmentMask("Left atrium", tmp_path / "mask.npy", AFFINE)
    segments = (PageSegment(outline, (0.8, 0.3, 0.3)),)
    page, disagreement = tmp_path / "page.html", tmp_path / "map.npy"
    return PageRequest(
        tmp_path / "scan.npy", AFFINE, segments, page, disagreement=disagreement, disagreement_affine=AFFINE
    )


@pytest.mark.parametrize(("shift_mm", "is_shown"), [(0.0, True), (3.0, False)])
def test_map_of_disagreement_is_shown_only_on_the_scan_s_grid(
    shift_mm: float, is_shown: bool, request_: PageRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[ScanPage] = []
    monkeypatch.setattr(outline_page, "render_scan_page", lambda page: pages.append(page) or "")
    affine = AFFINE.copy()
    affine[0, 3] += shift_mm
    request_ = parse_request(request_line(replace(request_, disagreement_affine=affine)))
    outline_page.write_requested_page(request_)
    assert (pages[0].disagreement is not None) == is_shown


def test_page_of_an_unknown_version_of_a_model_keeps_its_caution_and_doubts(request_: PageRequest) -> None:
    method = OutlineMethod("", "Left atrium in LGE-MRI", "", "", "accurate")
    doubts = (DoubtfulPlace((-5.0, -5.0, 6.0), (0, 0, 0), 0.25, 0.0),)
    outline_page.write_requested_page(replace(request_, method=method, trust=0.87, doubts=doubts))
    text = request_.page.read_text(encoding="utf-8")
    for shown in (
        "Outline: a model of DCAMT (Left atrium in LGE-MRI), version unknown.",
        "The outline was made automatically",
        '<div class="faint">voxels',
        ">87<",
        "1 doubtful place:",
    ):
        assert shown in text
