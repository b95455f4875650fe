"""With `--skip-existing`, `dcamt segment` and `dcamt wall` write missing results, and replace no result file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import nrrd
import numpy as np
import pytest
from dcamt.io.writers import write_labelmap
from dcamt.metrics.measurements import read_measurements_csv, write_measurements_csv
from dcamt.volume import Labelmap, Volume
from dcamt.wall.analysis import analyse_wall
from dcamt.wall.files import write_wall_csv
from dcamt.wall.settings import WallSettings, parse_threshold
from dcamt_testing.dicom_series import write_mr_series
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import NOISE_GRID, noise_scan, read_table, save_noise_scan
from dcamt_testing.wall_cases import SCAN, add_case, measure_scan

REGION = f"--roi=-1000,1000,-1000,1000,-1000,{NOISE_GRID.affine[2, 3] + 10}"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("form", ["seg.nrrd", "nii.gz", "nrrd"])
def test_missing_results_are_written_only_if_the_new_segmentation_equals_the_existing_one(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    segment = ["segment", save_noise_scan(tmp_path / "s.nrrd"), "--format", form, "--model", noise_model]
    assert call_dcamt([*segment, "-o", out, REGION]) == 0
    before = contents(out)
    more = ["--agreement", "--probabilities", "nrrd"]
    assert call_dcamt([*segment, "-o", out, *more, "--skip-existing"]) == 1
    assert f"{out / f's.{form}'}: exists already, but has other voxels" in capsys.readouterr().err
    assert contents(out) == before
    assert call_dcamt([*segment, "-o", out, REGION, *more, "--skip-existing"]) == 0
    assert call_dcamt([*segment, "-o", again, REGION, *more]) == 0
    assert contents(out).items() >= before.items()
    assert sorted(contents(out)) == sorted(contents(again))
    written, expected = (nrrd.read(str(folder / "s_probabilities.nrrd"))[0] for folder in (out, again))
    np.testing.assert_array_equal(written, expected)


def test_missing_segmentation_is_written_beside_existing_results(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    scan = save_noise_scan(tmp_path / "s.nrrd")
    segment = ["segment", scan, "-o", out, "--model", noise_model, "--agreement"]
    assert call_dcamt(segment) == 0
    result, agreement = out / "s.seg.nrrd", out / "s_agreement.nrrd"
    voxels, written = nrrd.read(str(result))[0], agreement.stat().st_mtime_ns
    result.unlink()
    assert call_dcamt([*segment, "--skip-existing"]) == 0
    assert "may come from another model or other options (s_agreement.nrrd)" in capsys.readouterr().err
    np.testing.assert_array_equal(nrrd.read(str(result))[0], voxels)
    assert agreement.stat().st_mtime_ns == written
    os.utime(agreement, (0, 0))
    assert call_dcamt([*segment, "--skip-existing"]) == 0
    printed = capsys.readouterr().err
    assert "older than the segmentation and may be outdated: s_agreement.nrrd." in printed
    assert "change" not in printed


def test_new_dicom_measurements_refer_to_the_existing_segmentation(noise_model: Path, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    out, series = tmp_path / "out", tmp_path / "series"
    write_mr_series(series, noise_scan().voxels[0], np.diag([-1.5, -1.5, 2.5, 1.0]))
    segment = ["segment", series, "-o", out, "--format", "dcm", "--model", noise_model]
    assert call_dcamt(segment) == 0
    before = contents(out)
    more = ["--measurements", "dcm", "--skip-existing"]
    assert call_dcamt([*segment, "--roi=-20,0,-20,0,0,20", *more]) == 1
    assert contents(out) == before
    assert call_dcamt([*segment, *more]) == 0
    segmentation, report = (pydicom.dcmread(out / f"series{end}.dcm") for end in ("", "_measurements"))
    assert contents(out)["series.dcm"] == before["series.dcm"]
    references = {element.value for element in report.iterall() if element.keyword == "ReferencedSOPInstanceUID"}
    assert segmentation.SOPInstanceUID in references


def test_dicom_measurements_of_a_deleted_segmentation_are_refused(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pydicom = pytest.importorskip("pydicom")
    out, series = tmp_path / "out", tmp_path / "series"
    result, report = out / "series.dcm", out / "series_measurements.dcm"
    write_mr_series(series, noise_scan().voxels[0], np.diag([-1.5, -1.5, 2.5, 1.0]))
    segment = ["segment", series, "-o", out, "--format", "dcm", "--measurements", "dcm", "--model", noise_model]
    assert call_dcamt(segment) == 0
    result.unlink()
    before = contents(out)
    assert call_dcamt([*segment, "--skip-existing"]) == 1
    assert f"{report}: exists already, but refers to a segmentation that is missing" in capsys.readouterr().err
    assert contents(out) == before
    report.unlink()
    assert call_dcamt([*segment, "--skip-existing"]) == 0
    references = [
        each.value for each in pydicom.dcmread(report).iterall() if each.keyword == "ReferencedSOPInstanceUID"
    ]
    assert pydicom.dcmread(result).SOPInstanceUID in references


@pytest.mark.parametrize("option", [[], [REGION]])
def test_table_of_measurements_describes_the_existing_segmentation(
    noise_model: Path, tmp_path: Path, option: list[str]
) -> None:
    """Without `REGION`, the new segmentation differs from the existing one. With `REGION`, both are equal."""
    result, table = tmp_path / "out" / "s.seg.nrrd", tmp_path / "m.csv"
    segment = ["segment", save_noise_scan(tmp_path / "s.nrrd"), "-o", result.parent, "--model", noise_model]
    assert call_dcamt([*segment, "--measurements", table]) == 0
    assert call_dcamt([*segment, REGION, "--overwrite"]) == 0
    saved = table.stat().st_mtime + 10
    os.utime(result, (saved, saved))
    status = call_dcamt([*segment, *option, "--measurements", table, "--agreement", "--skip-existing"])
    assert status == (0 if option else 1)
    voxels, header = nrrd.read(str(result))
    volume_ml = (voxels == 1).sum() * abs(np.linalg.det(header["space directions"][-3:])) / 1000
    (row,) = read_table(table)
    assert float(row["volume_ml"]) == pytest.approx(volume_ml, rel=1e-4)


def test_row_with_an_outdated_expected_overlap_is_replaced(noise_model: Path, tmp_path: Path) -> None:
    table = tmp_path / "m.csv"
    scan = save_noise_scan(tmp_path / "s.nrrd")
    segment = ["segment", scan, "-o", tmp_path / "out", "--model", noise_model, "--measurements", table]
    assert call_dcamt(segment) == 0
    (row,) = read_measurements_csv(table)
    write_measurements_csv([replace(row, expected_overlap=0.9)], table)
    assert call_dcamt([*segment, "--agreement", "--skip-existing"]) == 0
    (row,) = read_measurements_csv(table)
    assert np.isnan(row.expected_overlap)


@pytest.mark.usefixtures("coarse_pictures")
@pytest.mark.parametrize("option", ["--preset", "--openings"])
def test_wall_report_is_written_only_if_the_existing_table_has_the_same_rows(
    wall_phantom: tuple[Volume, Labelmap], tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    add_case(tmp_path, wall_phantom, "a")
    openings = wall_phantom[1].voxels.copy()
    openings[:, openings.shape[1] // 2 :] = 0
    write_labelmap(Labelmap(openings, wall_phantom[1].grid), tmp_path / "openings.nrrd")
    options = {"--preset": "iir-1.61", "--openings": tmp_path / "openings.nrrd"}
    out = tmp_path / "out"
    assert measure_scan(tmp_path, option, options[option]) == 0
    before = contents(out)
    more = ["--skip-existing", "--report", out / "r.html"]
    assert measure_scan(tmp_path, *more) == 1
    assert f"{out / 'a_image.wall.csv'}: exists already, but has other rows" in capsys.readouterr().err
    assert contents(out) == before
    assert measure_scan(tmp_path, option, options[option], *more) == 0
    assert contents(out).items() >= before.items()
    assert (out / "r.html").exists()


def test_scan_gets_no_results_if_its_existing_wall_table_has_other_rows(
    noise_model: Path, wall_phantom: tuple[Volume, Labelmap], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_case(tmp_path, wall_phantom, "a")
    out = tmp_path / "out"
    out.mkdir()
    wall = analyse_wall(*wall_phantom, scan="a_image")
    other = analyse_wall(*wall_phantom, WallSettings(parse_threshold("iir-1.61")), scan="a_image")
    write_wall_csv([other], out / "a_image.wall.csv")
    before = contents(out)
    monkeypatch.setattr("dcamt.commands.wall.analyse_wall", lambda *_, **__: wall)
    segment = ["segment", tmp_path / SCAN, "-o", out, "--model", noise_model, "--wall", "--skip-existing"]
    assert call_dcamt(segment) == 1
    assert contents(out) == before
    write_wall_csv([wall], out / "a_image.wall.csv")
    assert call_dcamt(segment) == 0
    assert sorted(contents(out)) == ["a_image.seg.nrrd", "a_image.wall.csv", "a_image.wall.vtp"]
