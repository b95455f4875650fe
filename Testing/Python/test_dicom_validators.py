"""The program dciodvfy finds no fault in DICOM results, and dcmqi reads their segments and measurements."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.geometry import Grid
from dcamt.io.dicom_output import Algorithm, build_dicom_segmentation, find_source_images, write_dicom
from dcamt.io.readers import read_scan
from dcamt.metrics.measurements import Measurements, measure
from dcamt.report.dicom_report import build_measurement_report
from dcamt.volume import Labelmap
from dcamt_testing.dicom_series import RAS_TO_LPS, write_enhanced_mr, write_mr_series
from dcamt_testing.processes import HANGING_S
from dcamt_testing.scan_files import LEFT_ATRIUM, WALL, affine_from_sitk

pydicom = pytest.importorskip("pydicom")
SHAPE = (14, 12, 7)
SEGMENTS = (LEFT_ATRIUM, WALL)
MODEL = Algorithm("left-atrium", "1", "0.2.0", "0123456789abcdef")


def program(name: str) -> str:
    path = shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        pytest.skip(f"needs the program {name}; install the packages dicom3tools and dcmqi")
    return path


def run_program(*arguments: str | Path) -> str:
    done = subprocess.run(
        [program(str(arguments[0])), *map(str, arguments[1:])], capture_output=True, text=True, timeout=HANGING_S
    )
    return done.stdout + done.stderr


def errors_and_warnings(path: Path) -> list[str]:
    printed = run_program("dciodvfy", path).splitlines()
    # Measurements without a standard code have a code of the private scheme 99DCAMT, which dciodvfy does not know.
    return [line for line in printed if line.startswith(("Error", "Warning")) and "<99DCAMT>" not in line]


def affine() -> np.ndarray:
    """Return an oblique affine with right-handed axes, like the axes of DICOM slices."""
    cosine, sine = np.cos(0.4), np.sin(0.4)
    turn = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    placed = np.eye(4)
    placed[:3, :3] = RAS_TO_LPS[:3, :3] @ turn @ np.diag([0.75, 0.875, 2.5])
    placed[:3, 3] = (-31.25, 40.5, 12.125)
    return placed


def labelmap() -> Labelmap:
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[3:9, 2:8, 1:5] = LEFT_ATRIUM.label
    voxels[9:12, 2:8, 2:4] = WALL.label
    return Labelmap(voxels, Grid(SHAPE, affine()))


@pytest.fixture(scope="module", params=["slices", "frames"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write segmentation and report for a series of slices, or for a multi-frame file with shuffled frames."""
    folder = tmp_path_factory.mktemp("dicom")
    image = np.random.default_rng(1).integers(50, 300, SHAPE)
    if request.param == "slices":
        source = folder / "series"
        write_mr_series(source, image, affine())
    else:
        source = write_enhanced_mr(folder / "enhanced.dcm", image, affine(), [4, 0, 2, 6, 1, 3, 5])
    images = find_source_images(source, read_scan(source).frames)
    segmentation = build_dicom_segmentation(labelmap(), SEGMENTS, images, MODEL)
    write_dicom(segmentation, folder / "seg.dcm")
    report = build_measurement_report(rows(), SEGMENTS, segmentation, images, MODEL)
    write_dicom(report, folder / "report.dcm")
    return folder / "seg.dcm", folder / "report.dcm"


def rows() -> list[Measurements]:
    return list(measure(labelmap(), SEGMENTS, "scan"))


def test_dciodvfy_finds_no_fault(results: tuple[Path, Path], tmp_path: Path) -> None:
    assert [errors_and_warnings(path) for path in results] == [[], []]
    damaged = pydicom.dcmread(results[0])
    del damaged.SegmentSequence[0].SegmentAlgorithmType
    damaged.save_as(tmp_path / "damaged.dcm")
    assert any("SegmentAlgorithmType" in line for line in errors_and_warnings(tmp_path / "damaged.dcm"))


def test_dciodvfy_finds_no_fault_in_long_names_and_names_beyond_ascii(tmp_path: Path) -> None:
    write_mr_series(tmp_path / "series", np.random.default_rng(1).integers(50, 300, SHAPE), affine())
    images = find_source_images(tmp_path / "series", read_scan(tmp_path / "series").frames)
    model = replace(MODEL, name="Vorhof_Müller", version=70 * "x")
    segments = [replace(info, name=f"{info.name} {60 * 'y'}") for info in SEGMENTS]
    segmentation = build_dicom_segmentation(labelmap(), segments, images, model)
    report = build_measurement_report(rows(), segments, segmentation, images, model)
    for dataset, path in ((segmentation, tmp_path / "seg.dcm"), (report, tmp_path / "report.dcm")):
        write_dicom(dataset, path)
        assert errors_and_warnings(path) == []


def test_dcmqi_reads_the_segments_at_their_places(results: tuple[Path, Path], tmp_path: Path) -> None:
    run_program("segimage2itkimage", "--inputDICOM", results[0], "--outputDirectory", tmp_path, "-t", "nrrd")
    expected = labelmap()
    for number, info in enumerate(SEGMENTS, start=1):
        image = sitk.ReadImage(str(tmp_path / f"{number}.nrrd"))
        index = np.argwhere(sitk.GetArrayFromImage(image).T)
        points = index @ affine_from_sitk(image)[:3, :3].T + affine_from_sitk(image)[:3, 3]
        inverse = np.linalg.inv(expected.grid.affine)
        ours = points @ inverse[:3, :3].T + inverse[:3, 3]
        np.testing.assert_allclose(ours, np.rint(ours), atol=1e-3)
        theirs = np.zeros(SHAPE, bool)
        theirs[tuple(np.rint(ours).astype(int).T)] = True
        np.testing.assert_array_equal(theirs, expected.voxels == info.label)
    described = json.loads((tmp_path / "meta.json").read_text(encoding="utf-8"))
    names = {item["SegmentLabel"] for group in described["segmentAttributes"] for item in group}
    assert names == {info.name for info in SEGMENTS}


def test_dcmqi_reads_the_measurements(results: tuple[Path, Path], tmp_path: Path) -> None:
    run_program("tid1500reader", "--inputDICOM", results[1], "--outputMetadata", tmp_path / "report.json")
    groups = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["Measurements"]
    assert [group["Finding"]["CodeValue"] for group in groups] == [info.type.value for info in SEGMENTS]
    assert [group["ReferencedSegment"] for group in groups] == [1, 2]
    for group, row, info in zip(groups, rows(), SEGMENTS, strict=True):
        measured = {item["quantity"]["CodeValue"]: float(item["value"]) for item in group["measurementItems"]}
        volume_ml = np.count_nonzero(labelmap().voxels == info.label) * 0.75 * 0.875 * 2.5 / 1000
        assert measured["118565006"] == pytest.approx(volume_ml, rel=1e-4)
        assert measured["L0JK"] == pytest.approx(row.long_diameter_mm, rel=1e-4)
