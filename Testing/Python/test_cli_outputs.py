"""Test the optional results of `dcamt segment`: surfaces, probabilities and DICOM objects."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import dcamt
import nibabel
import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.readers import read_labelmap
from dcamt.io.writers import write_volume
from dcamt.models.package import Card
from dcamt.volume import Code, Labelmap, SegmentInfo, Volume
from dcamt_testing.dicom_rules import missing_attributes
from dcamt_testing.dicom_series import PATIENT, write_mr_series
from dcamt_testing.processes import call_dcamt
from dcamt_testing.scan_files import LEFT_ATRIUM, affine_from_sitk
from dcamt_testing.synthetic import NOISE_GRID, noise_scan, save_noise_scan

pydicom = pytest.importorskip("pydicom")
AFFINE, SHAPE = NOISE_GRID.affine, NOISE_GRID.shape


def call_segment(*arguments: str | Path) -> int:
    return call_dcamt(["segment", *arguments, "--device", "cpu"])


def signed_volume(points: np.ndarray, triangles: np.ndarray) -> float:
    """Return the volume inside a closed mesh; positive if its triangles are anticlockwise as seen from outside."""
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def segmented_scan(labelmap: Labelmap, info: SegmentInfo) -> dcamt.SegmentedScan:
    return dcamt.SegmentedScan(
        scan=Volume(np.zeros((1, *labelmap.voxels.shape), np.float32), labelmap.grid, path=Path("scan.nii.gz")),
        labelmap=labelmap,
        segments=(info,),
        measurements=(),
        disagreement=None,
        doubt_map=None,
        trust=None,
        probabilities=None,
        notes=(),
        model=Card("tiny", "Tiny", (info.name,), "MR", "1", "MIT", "2026-01-01"),
        quality="fast",
        seconds=0.0,
    )


@pytest.mark.parametrize("ending", ["stl", "obj", "ply", "vtp"])
def test_surface_encloses_the_volume_in_patient_mm(tmp_path: Path, ending: str) -> None:
    """The mask is an ellipsoid; vtk reads the surface's file, which is in LPS mm."""
    vtk = pytest.importorskip("vtk")
    from vtkmodules.util.numpy_support import vtk_to_numpy

    centre, radii = np.array([10.0, 12.5, 8.0]), np.array([7.0, 9.0, 6.0])  # voxels
    inside = ((np.indices(SHAPE).transpose(1, 2, 3, 0) - centre) / radii) ** 2
    labelmap = Labelmap((inside.sum(axis=-1) < 1).astype(np.uint8), Grid(SHAPE, AFFINE))
    path = tmp_path / f"atrium.{ending}"
    dcamt.write_surface(segmented_scan(labelmap, LEFT_ATRIUM), path)
    readers = {"stl": "vtkSTLReader", "obj": "vtkOBJReader", "ply": "vtkPLYReader", "vtp": "vtkXMLPolyDataReader"}
    reader = getattr(vtk, readers[ending])()
    reader.SetFileName(str(path))
    reader.Update()
    mesh = reader.GetOutput()
    points = vtk_to_numpy(mesh.GetPoints().GetData()).astype(float)
    triangles = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    assert len(triangles) == mesh.GetNumberOfCells()
    low, high = (np.sort(points * [-1, -1, 1], axis=0)[end] for end in (0, -1))
    # Half the extent of the ellipsoid along R, A and S. The voxel axes are parallel to these axes.
    half = np.linalg.norm(AFFINE[:3, :3] * radii, axis=1)
    # The tolerance is half of the longest voxel edge.
    np.testing.assert_allclose((low + high) / 2, AFFINE[:3] @ [*centre, 1], atol=2.5 / 2)
    np.testing.assert_allclose((high - low) / 2, half, atol=2.5 / 2)
    volume = int(labelmap.voxels.sum()) * labelmap.grid.voxel_volume_mm3
    assert signed_volume(points, triangles) == pytest.approx(volume, rel=0.02)


def test_probabilities_sum_to_1_and_the_most_probable_classes_equal_the_labels(
    noise_model: Path, tmp_path: Path
) -> None:
    scan = save_noise_scan(tmp_path / "x.nrrd")
    arguments = [scan, "-o", tmp_path / "x.nii.gz", "--model", noise_model, "--probabilities", tmp_path / "p.nii.gz"]
    assert call_segment(*arguments) == 0
    image = nibabel.load(tmp_path / "p.nii.gz")
    probabilities = np.asarray(image.dataobj)
    labels = nibabel.load(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(image.affine, labels.affine, atol=1e-5)
    assert probabilities.shape == (*SHAPE, 2)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-4)
    sure = np.abs(probabilities[..., 1] - 0.5) > 0.02
    np.testing.assert_array_equal(probabilities.argmax(axis=-1)[sure], np.asarray(labels.dataobj)[sure])


@pytest.mark.usefixtures("coarse_pictures")
def test_optional_results_of_several_scans_lie_beside_the_segmentations(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [save_noise_scan(tmp_path / f"s{number}.nrrd", number) for number in range(2)]
    arguments = [*scans, "-o", tmp_path / "out", "--model", noise_model, "--json"]
    assert call_segment(*arguments, "--surface", "stl", "--probabilities", "nrrd", "--report", "html") == 0
    expected = {f"s{n}{end}" for n in range(2) for end in (".seg.nrrd", ".stl", "_probabilities.nrrd", ".html")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    segmented = [event for event in events if event["event"] == "segmented"]
    assert [Path(event["surface"]).name for event in segmented] == ["s0.stl", "s1.stl"]
    assert [Path(event["report"]).name for event in segmented] == ["s0.html", "s1.html"]


@pytest.mark.usefixtures("coarse_pictures")
def test_warning_about_few_intensities_is_printed_once_and_is_in_json_and_report(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = noise_scan()
    coarse = replace(noise, voxels=np.digitize(noise.voxels, np.quantile(noise.voxels, (0.3, 0.6))).astype(np.uint8))
    write_volume(coarse, tmp_path / "noise.nrrd")
    page = tmp_path / "page.html"
    arguments = [
        tmp_path / "noise.nrrd",
        "-o",
        tmp_path / "out.nrrd",
        "--model",
        noise_model,
        "--json",
        "--report",
        page,
    ]
    assert call_segment(*arguments) == 0
    out, err = capsys.readouterr()
    (segmented,) = (event for event in map(json.loads, out.splitlines()) if event["event"] == "segmented")
    warning = "The scan has only 3 different intensities, like a label. Check that the file is the scan."
    assert segmented["notes"].count(warning) == err.count(warning) == 1
    assert page.read_text(encoding="utf-8").count(warning) == 1


def test_dicom_series_gives_dicom_objects_with_the_same_labels_as_nrrd(noise_model: Path, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    affine = np.diag([-1.5, -1.5, 2.5, 1.0])
    affine[:3, 3] = (20, 30, -40)
    write_mr_series(tmp_path / "series", noise_scan().voxels[0], affine)
    common = [tmp_path / "series", "--model", noise_model]
    dicom = ["-o", tmp_path / "out", "--format", "dcm", "--measurements", "dcm", "--agreement"]
    assert call_segment(*common, *dicom) == 0
    assert call_segment(*common, "-o", tmp_path / "labels.nrrd") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"series.dcm", "series_measurements.dcm", "series_agreement.nrrd"}
    segmentation = pydicom.dcmread(tmp_path / "out" / "series.dcm")
    report = pydicom.dcmread(tmp_path / "out" / "series_measurements.dcm")
    for written in (segmentation, report):
        assert missing_attributes(written) == []
        assert written.PatientID == PATIENT["PatientID"]
    assert (segmentation.Modality, report.Modality) == ("SEG", "SR")
    assert segmentation.SOPInstanceUID in json.dumps(report.to_json_dict())
    # Compare the labels with those of the NRRD file at equal RAS positions.
    image = sitk.ReadImage(str(tmp_path / "out" / "series.dcm"))
    voxels, affine = sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine_from_sitk(image)
    labelmap = read_labelmap(tmp_path / "labels.nrrd")
    assert labelmap.voxels.any()
    to_dicom = np.linalg.inv(affine) @ labelmap.grid.affine
    index = np.rint(to_dicom[:3, :3] @ np.indices(SHAPE).reshape(3, -1) + to_dicom[:3, 3:]).astype(int)
    np.testing.assert_array_equal(voxels[tuple(index)] > 0, labelmap.voxels.ravel() > 0)


def test_result_refers_to_the_chosen_series(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    study.mkdir()
    affine = np.diag([-1.5, -1.5, 2.5, 1.0])
    for number in (1, 2):
        affine[:3, 3] = (20, 30, -40 * number)
        for path in write_mr_series(tmp_path / f"s{number}", noise_scan(number).voxels[0], affine):
            path.rename(study / f"s{number}_{path.name}")
    arguments = [study, "-o", tmp_path / "out.dcm", "--model", noise_model]
    assert call_segment(*arguments) == 1
    assert "--series" in capsys.readouterr().err
    chosen = pydicom.dcmread(next(study.glob("s2_*")))
    assert call_segment(*arguments, "--series", chosen.SeriesInstanceUID) == 0
    written = pydicom.dcmread(tmp_path / "out.dcm")
    assert written.FrameOfReferenceUID == chosen.FrameOfReferenceUID
    heights = [f.PlanePositionSequence[0].ImagePositionPatient[2] for f in written.PerFrameFunctionalGroupsSequence]
    assert min(heights) == pytest.approx(-80)


def test_choice_of_series_and_time_needs_a_dicom_scan(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, out = save_noise_scan(tmp_path / "x.nrrd"), tmp_path / "out"
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.write(scan, "y.nrrd")
    arguments = ["-o", out, "--model", noise_model, "--time", "1"]
    assert call_segment(scan, tmp_path / "y.zip", *arguments, "--series", "LGE") == 2
    assert "no scan is DICOM (x.nrrd, y.zip): leave out --series and --time" in capsys.readouterr().err
    assert not out.exists()
    write_mr_series(tmp_path / "series", noise_scan().voxels[0], np.diag([-1.5, -1.5, 2.5, 1.0]))
    scans = [scan, tmp_path / "y.zip", tmp_path / "series"]
    assert call_segment(*scans, *arguments) == 0
    assert sorted(path.name for path in out.iterdir()) == ["series.seg.nrrd", "x.seg.nrrd", "y.seg.nrrd"]
    write_volume(Volume(noise_scan().voxels[:, 1:], Grid((SHAPE[0] - 1, *SHAPE[1:]), AFFINE)), scan)
    assert call_segment(*scans, *arguments, "--skip-existing") == 1
    assert f"lies on a different grid from {scan}" in capsys.readouterr().err


def test_error_states_name_and_volume_of_a_segment_too_small_for_a_surface(tmp_path: Path) -> None:
    voxels = np.zeros((9, 9, 9), np.uint8)
    voxels[4, 4, 4] = 1
    grid = Grid(voxels.shape, np.diag([0.5, 0.5, 0.5, 1.0]))
    info = SegmentInfo(1, "Pancreas", (1.0, 0.0, 0.0), Code("SCT", "15776009", "Pancreas"))
    result = segmented_scan(Labelmap(voxels, grid), info)
    expected = (
        r"^scan\.nii\.gz: the segment Pancreas \(0\.000125 mL\) is too small for a surface\. "
        r"Write no surface of this scan, or choose another scan\.$"
    )
    with pytest.raises(InputError, match=expected):
        dcamt.write_surface(result, tmp_path / "x.stl")
    assert not list(tmp_path.iterdir())


def test_surface_leaves_out_separate_parts(tmp_path: Path) -> None:
    voxels = np.zeros((40, 24, 24), np.uint8)
    voxels[4:20, 4:20, 4:20] = 1
    grid = Grid(voxels.shape, np.eye(4))
    dcamt.write_surface(segmented_scan(Labelmap(voxels.copy(), grid), LEFT_ATRIUM), tmp_path / "one.obj")
    voxels[28:34, 4:10, 4:10] = 1
    dcamt.write_surface(segmented_scan(Labelmap(voxels, grid), LEFT_ATRIUM), tmp_path / "two.obj")
    for name in ("one.obj", "two.obj"):
        lines = (tmp_path / name).read_text(encoding="ascii").splitlines()
        points = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
        assert points[:, 0].min() > -24  # LPS: the separate part lies at -28 to -33
