"""Test the files of a wall analysis."""

from __future__ import annotations

import csv
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dcamt.errors import InputError, OutputError
from dcamt.io.surfaces import SURFACE_OUTPUTS, write_mesh
from dcamt.volume import Labelmap, Volume
from dcamt.wall.analysis import WallResult, analyse_wall
from dcamt.wall.burden import BORDER, REGIONS, WALL
from dcamt.wall.files import (
    WALL_COLUMNS,
    has_same_rows,
    is_wall_table,
    read_wall,
    read_wall_rows,
    write_wall,
    write_wall_csv,
    write_wall_surface,
)
from dcamt.wall.settings import PRESETS, WallSettings, parse_threshold
from dcamt_testing.analytic_scans import CENTRE
from dcamt_testing.processes import run_with_file_size_limit
from dcamt_testing.synthetic import read_table
from vtkmodules import vtkIOXML
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkIOGeometry import vtkOBJReader, vtkSTLReader
from vtkmodules.vtkIOPLY import vtkPLYReader
from vtkmodules.vtkIOXML import vtkXMLPolyDataReader, vtkXMLPolyDataWriter

READERS = {".stl": vtkSTLReader, ".obj": vtkOBJReader, ".ply": vtkPLYReader, ".vtp": vtkXMLPolyDataReader}
RAS_TO_LPS = np.array([-1, -1, 1])


@pytest.fixture(scope="module")
def result(wall_phantom: tuple[Volume, Labelmap]) -> WallResult:
    return analyse_wall(*wall_phantom, scan="case 1")


def read_with_vtk(path: Path):
    reader = READERS[path.suffix]()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def test_output_error_is_raised_if_vtk_cannot_write_a_surface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FailingWriter(vtkXMLPolyDataWriter):
        def Write(self) -> int:  # noqa: N802, VTK's name
            return 0

    monkeypatch.setattr(vtkIOXML, "vtkXMLPolyDataWriter", FailingWriter)
    path = tmp_path / "x.vtp"
    with pytest.raises(OutputError, match=r"x\.vtp: could not be written"):
        write_mesh(np.eye(3), np.array([[0, 1, 2]]), path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 on this system")
@pytest.mark.parametrize("kind", SURFACE_OUTPUTS)
def test_mesh_is_written_to_a_file_whose_name_is_not_utf8(kind: str, tmp_path: Path) -> None:
    paths = tmp_path / f"x{kind}", tmp_path / f"M\udcfcller{kind}"
    for path in paths:
        write_mesh(np.eye(3), np.array([[0, 1, 2]]), path, remarks={"method": "±"})
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("kind", SURFACE_OUTPUTS)
def test_vtk_reads_the_mesh_that_was_written(kind: str, result: WallResult, tmp_path: Path) -> None:
    surface, path = result.surface, tmp_path / f"x{kind}"
    write_mesh(surface.points, surface.triangles, path)
    mesh = read_with_vtk(path)
    assert mesh.GetNumberOfPolys() == len(surface.triangles)
    points = vtk_to_numpy(mesh.GetPoints().GetData())
    assert np.allclose(points.mean(axis=0) * RAS_TO_LPS, CENTRE, atol=0.3)
    corners = points[vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)]
    doubled = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert np.linalg.norm(doubled, axis=1).sum() / 2 == pytest.approx(surface.area_mm2, rel=1e-3)
    # Triangles still face outwards after the conversion from RAS to LPS.
    volume = ((corners[:, 0] - points.mean(axis=0)) * doubled).sum() / 6
    assert volume == pytest.approx(surface.volume_mm3, rel=1e-3)


def test_slicer_places_the_surface_on_the_scan(result: WallResult, tmp_path: Path) -> None:
    slicer = pytest.importorskip("slicer")
    scene = slicer.vtkMRMLScene()
    for kind in SURFACE_OUTPUTS:
        path = tmp_path / f"x{kind}"
        write_mesh(result.surface.points, result.surface.triangles, path)
        node = scene.AddNewNodeByClass("vtkMRMLModelNode")
        node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(path))
        assert node.GetStorageNode().ReadData(node)
        points = vtk_to_numpy(node.GetPolyData().GetPoints().GetData())
        assert np.allclose(points.mean(axis=0), CENTRE, atol=0.3), kind


def test_surface_file_holds_data_for_each_point_and_texts_about_the_analysis(
    result: WallResult, tmp_path: Path
) -> None:
    path = tmp_path / "case 1.wall.vtp"
    write_wall_surface(result, path)
    mesh = read_with_vtk(path)
    data = {
        name: vtk_to_numpy(mesh.GetPointData().GetArray(name)) for name in ("ratio", "enhanced", "opening", "region")
    }
    np.testing.assert_array_equal(data["ratio"], result.ratio)
    np.testing.assert_array_equal(data["enhanced"] != 0, data["ratio"] > 1.2)
    np.testing.assert_array_equal(data["opening"], result.kind)
    np.testing.assert_array_equal(data["region"], result.region)
    texts = {
        name: mesh.GetFieldData().GetAbstractArray(name).GetValue(0)
        for name in ("SPACE", "method", "regions", "remark")
    }
    assert texts["SPACE"] == "LPS"
    assert texts["method"].startswith("IIR > 1.2 (ratio 1.200), maximum intensity from -1 to 3 mm")
    assert texts["regions"].split(",") == list(REGIONS)
    assert "research use only" in texts["remark"]


def test_openings_are_not_enhanced_in_the_surface_file(result: WallResult, tmp_path: Path) -> None:
    is_opening = result.surface.points[:, 0] > CENTRE[0]  # half of the surface, with half of the bright patch
    write_wall_surface(result.with_openings(is_opening), tmp_path / "x.vtp")
    enhanced = vtk_to_numpy(read_with_vtk(tmp_path / "x.vtp").GetPointData().GetArray("enhanced"))
    is_bright = result.ratio > 1.2
    assert is_bright[is_opening].any()
    np.testing.assert_array_equal(enhanced != 0, is_bright & ~is_opening)


def test_table_has_all_regions_and_presets(result: WallResult, tmp_path: Path) -> None:
    path = tmp_path / "x.wall.csv"
    write_wall_csv([result], path)
    rows = read_table(path)
    assert tuple(rows[0]) == WALL_COLUMNS
    assert [row["region"] for row in rows[:7]] == ["all", *REGIONS]
    assert {row["method"] for row in rows} == {preset.threshold.name for preset in PRESETS}
    assert len(rows) == 7 + len(PRESETS) - 1
    assert all((row["stage"] != "") == (row["region"] == "all") for row in rows)
    whole = rows[0]
    assert float(whole["burden_percent"]) == pytest.approx(25, abs=2)
    assert float(whole["enhanced_cm2"]) / float(whole["wall_cm2"]) == pytest.approx(
        float(whole["burden_percent"]) / 100, rel=1e-3
    )
    assert (whole["stage"], whole["openings"], whole["scan"]) == ("III", "proposed", "case 1")
    pool = [float(whole[f"blood_pool_{column}"]) for column in ("mean", "sd", "voxels")]
    assert pool == pytest.approx([result.pool.mean, result.pool.sd, result.pool.voxels], rel=1e-3)
    assert all("research use only" in row["remark"] for row in rows)
    areas = result.surface.point_areas
    for row in (rows[0], *rows[7:]):
        above = areas[result.ratio > float(row["threshold_ratio"])].sum() / areas.sum()
        assert float(row["burden_percent"]) == pytest.approx(100 * above, rel=1e-3), row["method"]


def test_table_saved_by_excel_keeps_its_rows_when_a_scan_is_added(result: WallResult, tmp_path: Path) -> None:
    path = tmp_path / "wall.csv"
    write_wall_csv([result], path)
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    write_wall_csv([replace(result, scan="case 2")], path, read_wall_rows(path))
    assert [row["scan"] for row in read_table(path)] == ["case 1"] * 13 + ["case 2"] * 13


def test_rows_are_added_to_a_table_of_an_earlier_version(result: WallResult, tmp_path: Path) -> None:
    path = tmp_path / "wall.csv"
    write_wall_csv([result], path)
    rows = read_table(path)
    earlier = [column for column in WALL_COLUMNS if column not in ("from_mm", "to_mm")]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, earlier, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    assert is_wall_table(path)
    assert has_same_rows(path, result)
    assert not has_same_rows(path, replace(result, settings=WallSettings(parse_threshold("iir-1.3"))))
    added = replace(result, scan="case 2", settings=WallSettings(from_mm=0.0, to_mm=6.0))
    write_wall_csv([added], path, read_wall_rows(path))
    written = read_table(path)
    assert written[:13] == [{**row, "from_mm": "", "to_mm": ""} for row in rows]
    assert {(row["scan"], row["from_mm"], row["to_mm"]) for row in written[13:]} == {("case 2", "0", "6")}


def test_rows_are_replaced_even_if_the_name_of_the_scan_is_not_utf8(result: WallResult, tmp_path: Path) -> None:
    path, named = tmp_path / "wall.csv", replace(result, scan="M\udcfcller")
    write_wall_csv([named], path)
    write_wall_csv([named], path, read_wall_rows(path))
    assert [row["scan"] for row in read_table(path)] == ["M\\udcfcller"] * 13


def test_table_has_the_areas_of_openings_and_scan_border(result: WallResult, tmp_path: Path) -> None:
    cut = replace(result, kind=np.where(result.region == 1, BORDER, WALL).astype(np.uint8))
    write_wall_csv([cut.with_openings(np.isin(result.region, (0, 2)))], tmp_path / "x.wall.csv")
    whole = read_table(tmp_path / "x.wall.csv")[0]
    for column, regions in (("openings_cm2", (0, 2)), ("border_cm2", (1,))):
        area = result.surface.point_areas[np.isin(result.region, regions)].sum() / 100
        assert float(whole[column]) == pytest.approx(area, rel=1e-3)
    assert whole["openings"] == "given"


@pytest.mark.parametrize("length", [0, 2, 1000, -1])
def test_truncated_wall_file_is_refused(result: WallResult, tmp_path: Path, length: int) -> None:
    path = tmp_path / "wall.npz"
    write_wall(result, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"wall\.npz: is damaged\. Measure the wall again"):
        read_wall(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [(6, 99), (8, 1), (10, 98), (10, 8), (10, 14)],
    ids=["version", "encrypted", "method", "deflate", "lzma"],
)
def test_wall_file_with_a_damaged_zip_directory_is_refused(
    result: WallResult, tmp_path: Path, place: int, value: int
) -> None:
    path = tmp_path / "wall.npz"
    write_wall(result, path)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + place] = value
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"wall\.npz: is damaged\. Measure the wall again"):
        read_wall(path)


def test_array_in_place_of_a_wall_file_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "wall.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match=r"wall\.npz: is damaged\. Measure the wall again"):
        read_wall(tmp_path / "wall.npz")


def test_surface_with_the_ending_of_an_image_is_refused(result: WallResult, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not have the ending of a surface\. Use \.stl, \.obj"):
        write_mesh(result.surface.points, result.surface.triangles, tmp_path / "x.nii")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="needs a limit of the file size")
def test_vtk_prints_nothing_if_a_surface_cannot_be_written(tmp_path: Path) -> None:
    script = """
import numpy as np
from vtkmodules import vtkIOXML
from dcamt.errors import OutputError
from dcamt.io.surfaces import write_mesh
try:
    write_mesh(np.random.rand(9000, 3), np.arange(9000).reshape(-1, 3), sys.argv[1])
except OutputError as error:
    print(error)
"""
    done = run_with_file_size_limit(20000, [tmp_path / "x.vtp"], script)
    assert done.stdout.startswith(f"{tmp_path / 'x.vtp'}: ")
    assert done.stderr == ""


@pytest.mark.parametrize("broken", [b"M\xfcller," * 9, b'"' + b"x" * (1 << 18) + b'"'])
def test_table_that_is_broken_far_below_its_header_is_refused(
    result: WallResult, tmp_path: Path, broken: bytes
) -> None:
    path = tmp_path / "wall.csv"
    write_wall_csv([result], path)
    path.write_bytes(path.read_bytes() * 20 + broken)
    with pytest.raises(InputError, match=r"wall\.csv: cannot be read as a table of wall measurements"):
        read_wall_rows(path)
