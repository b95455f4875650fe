"""Test the optional results of `dcamt segment`: surfaces, probabilities, DICOM objects and the one-page report."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import dcamt
import nibabel
import numpy as np
import pytest
from dcamt import cli
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.readers import read_labelmap
from dcamt.models.package import Card
from dcamt.volume import Code, Labelmap, SegmentInfo, Volume
from dcamt_testing.dicom_rules import missing_attributes
from dcamt_testing.dicom_series import PATIENT, write_mr_series
from dcamt_testing.processes import HANGING_S
from dcamt_testing.scan_files import LEFT_ATRIUM, affine_from_sitk
from dcamt_testing.synthetic import NOISE_GRID, noise_scan, save_noise_scan

pydicom = pytest.importorskip("pydicom")
ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "Resources" / "SampleData" / "LGEHeartPhantom.nrrd"
AFFINE, SHAPE = NOISE_GRID.affine, NOISE_GRID.shape
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""


def call_segment(*arguments: str | Path) -> int:
    return cli.main(["segment", *map(str, arguments), "--device", "cpu"])


def signed_volume(points: np.ndarray, triangles: np.ndarray) -> float:
    """Return the volume inside a closed mesh; positive if its triangles are anticlockwise as seen from outside."""
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def segmented_scan(labelmap: Labelmap, info: SegmentInfo) -> dcamt.SegmentedScan:
    """Return a result that consists of a labelmap of one segment."""
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
    sure = np.abs(probabilities[..., 1] - 0.5) > 0.02  # one class clearly leads
    np.testing.assert_array_equal(probabilities.argmax(axis=-1)[sure], np.asarray(labels.dataobj)[sure])


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


@pytest.fixture(scope="module")
def dicom_run(noise_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Segment a DICOM series into DICOM objects and a report with identity, then into NRRD and an anonymous report."""
    home = tmp_path_factory.mktemp("dicom")
    affine = np.diag([-1.5, -1.5, 2.5, 1.0])
    affine[:3, 3] = (20, 30, -40)
    write_mr_series(home / "series", noise_scan().voxels[0], affine)
    common = [home / "series", "--model", noise_model]
    dicom = ["-o", home / "out", "--format", "dcm", "--measurements", "dcm", "--agreement"]
    assert call_segment(*common, *dicom, "--report", home / "page.html", "--identity") == 0
    assert call_segment(*common, "-o", home / "labels.nrrd", "--report", home / "anonymous.html") == 0
    return home


def test_dicom_series_gives_dicom_objects_with_the_same_labels_as_nrrd(dicom_run: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    names = {path.name for path in (dicom_run / "out").iterdir()}
    assert names == {"series.dcm", "series_measurements.dcm", "series_agreement.nrrd"}
    segmentation = pydicom.dcmread(dicom_run / "out" / "series.dcm")
    report = pydicom.dcmread(dicom_run / "out" / "series_measurements.dcm")
    for written in (segmentation, report):
        assert missing_attributes(written) == []
        assert written.PatientID == PATIENT["PatientID"]
    assert (segmentation.Modality, report.Modality) == ("SEG", "SR")
    assert segmentation.SOPInstanceUID in json.dumps(report.to_json_dict())
    # Compare the labels with those of the NRRD file at equal RAS positions.
    image = sitk.ReadImage(str(dicom_run / "out" / "series.dcm"))
    voxels, affine = sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine_from_sitk(image)
    labelmap = read_labelmap(dicom_run / "labels.nrrd")
    assert labelmap.voxels.any()
    to_dicom = np.linalg.inv(affine) @ labelmap.grid.affine
    index = np.rint(to_dicom[:3, :3] @ np.indices(SHAPE).reshape(3, -1) + to_dicom[:3, 3:]).astype(int)
    np.testing.assert_array_equal(voxels[tuple(index)] > 0, labelmap.voxels.ravel() > 0)


class Page(HTMLParser):
    """A parsed report page: its text, the addresses in its attributes, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"] and data.strip():
            self.words.append(data.strip())


def test_report_identifies_the_patient_only_with_the_option_identity(dicom_run: Path) -> None:
    anonymous = (dicom_run / "anonymous.html").read_text(encoding="utf-8")
    pictures = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", anonymous)
    assert len(pictures) == 5  # three slices, and the surface from two sides
    # The PNG files have no chunk for text, EXIF data or a time.
    for picture in pictures:
        assert not re.search(rb"tEXt|iTXt|zTXt|eXIf|tIME", base64.b64decode(picture))
        anonymous = anonymous.replace(picture, "")
    traces = ["Phantom", "Synthetic", "SYN-1", "19500101", "20200102", "A9", "series", str(dicom_run)]
    for trace in traces:
        assert trace.lower() not in anonymous.lower(), trace
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", anonymous)
    assert "no name, identifier, date or file path" in anonymous
    named = " ".join(Page((dicom_run / "page.html").read_text(encoding="utf-8")).words)
    for trace in ("Phantom Synthetic", "SYN-1", "19500101", "20200102", str(dicom_run / "series")):
        assert trace in named, trace
    assert "no name, identifier" not in named


def test_report_names_channel_files_only_with_the_option_identity(noise_model: Path, tmp_path: Path) -> None:
    scan = save_noise_scan(tmp_path / "imagesTs" / "Mueller_0000.nii.gz")
    save_noise_scan(scan.with_name("Mueller_0001.nii.gz"))
    arguments = [scan, "-o", tmp_path / "out.nrrd", "--model", noise_model, "--report", tmp_path / "page.html"]
    assert call_segment(*arguments) == 0
    assert "Mueller" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert call_segment(*arguments, "--overwrite", "--identity") == 0
    assert "not used: Mueller_0001.nii.gz" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_report_shows_the_measurements_without_loading_other_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.html"
    assert call_segment(SAMPLE, "-o", tmp_path / "out.nrrd", "--report", path, "--wall", "--json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    result = next(event for event in events if event["event"] == "segmented")
    wall = next(event for event in events if event["event"] == "wall")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert all(source.startswith("data:image/png;base64,") for source in page.fetched)
    # Three slices, two views of the surface with doubt, and two views of the surface with enhancement.
    assert page.tags.count("image") == 7
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert "default-src 'none'" in text
    assert "size: A4" in text
    (measured,) = result["measurements"]
    burden = next(row for row in wall["burden"] if row["region"] == "all")
    for expected in (
        f"{measured['volume_ml']:.1f}",
        f"{measured['surface_cm2']:.1f}",
        f"{measured['long_diameter_mm']:.0f}",
        f"{100 * result['trust']:.0f}",
        f"{burden['percent']:.1f}",
        "Research use only",
        "IIR > 1.2",
        *("Patient", "Date of scan", "Checked by"),  # to fill in by hand
        *(f"{row['percent']:.1f}" for row in wall["burden"] if row["percent"] is not None),
    ):
        assert expected in page.words or any(expected in word for word in page.words), expected
    assert not any("corrected by hand" in word for word in page.words)


def test_outlines_and_orientation_letters_are_on_the_correct_side() -> None:
    """The scan, stored along L, S and A, has a bright landmark at the patient's left, front and top."""
    from dcamt.report.scan_figures import draw_slices
    from dcamt.report.scene import build_scene

    affine = np.array([[-1.0, 0, 0, 40], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    ras = (np.indices((40, 40, 40)).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]).T
    block = ((ras[0] < 12) & (ras[0] > 5) & (ras[1] > 28) & (ras[1] < 36) & (ras[2] > 28) & (ras[2] < 36)).reshape(
        40, 40, 40
    )
    grid = Grid((40, 40, 40), affine)
    labels = Labelmap(block.astype(np.uint8), grid)
    figure = draw_slices(build_scene(Volume(100.0 * block[None], grid), labels, [LEFT_ATRIUM]), [LEFT_ATRIUM])
    slices = re.findall(r"<figure.*?</figure>", figure)
    assert len(slices) == 3
    for svg, (left_side, top_side) in zip(slices, (("R", "A"), ("R", "S"), ("A", "S")), strict=True):
        width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())  # type: ignore[union-attr]
        path = re.search(r'<path( transform="matrix\(1 0 0 -1 0 [\d.]+\)")? d="([^"]+)"', svg)
        assert path is not None
        x, y = np.array([[float(v) for v in pair.split(",")] for pair in re.split("[MLZ]", path[2]) if pair]).T
        if path[1]:
            y = height - y
        letters = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([RLAPSI])</text>', svg)
        place = {letter: (float(a), float(b)) for a, b, letter in letters}
        assert place[left_side][0] < width / 3
        assert place[top_side][1] < height / 3
        # The patient's left is at the right of the screen; anterior is at the left in the sagittal slice and at the top
        # in the axial slice.
        assert (x.mean() > width / 2) == (left_side == "R")
        assert y.mean() < height / 2


def test_result_refers_to_the_chosen_series(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result has the chosen series' frame of reference and positions."""
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


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
def test_report_prints_on_one_a4_sheet(tmp_path: Path) -> None:
    """Print two long reports: the first has fields to fill in, the second names the patient.

    One file contains both reports, so that the browser starts only once.
    """
    from dcamt.metrics.doubtful_places import DoubtfulPlace
    from dcamt.metrics.measurements import measure
    from dcamt.models.calibration import ExpectedOverlap
    from dcamt.report.scan_report import ScanReport, render_scan_report
    from dcamt.wall.analysis import analyse_wall
    from dcamt.wall.settings import WallSettings

    grid = Grid((90, 80, 70), np.diag([1.0, 1.0, 1.2, 1.0]))
    i, j, k = np.indices(grid.shape)
    distance = np.sqrt((i - 45.0) ** 2 + (j - 40) ** 2 + ((k - 35) * 1.2) ** 2)
    voxels = np.where(distance < 22, 200.0, np.where(distance < 25, 260.0, 60.0))
    volume = Volume((voxels + np.random.default_rng(0).normal(0, 5, grid.shape))[None].astype(np.float32), grid)
    labels = (distance < 22).astype(np.uint8)
    labels[5:9, 5:9, 5:9], labels[80:84, 5:9, 5:9], labels[5:9, 70:74, 5:9] = 2, 3, 4
    labelmap = Labelmap(labels, grid)
    code = Code("SCT", "85756007", "Tissue")
    segments = [SegmentInfo(n, f"Segment {n} of a rather long name", (0.9, 0.3, 0.2 * n), code) for n in range(1, 5)]
    place = DoubtfulPlace((45.0, 40.0, 35.0), (45, 40, 29), 1.25, 0.9)
    page = ScanReport(
        volume=volume,
        labelmap=labelmap,
        segments=segments,
        measurements=measure(labelmap, segments, ""),
        model=Card("a-model-of-a-long-name", "Left atrium and more in LGE-MRI", ("A",), "Cardiac MRI", "1", "", ""),
        doubt_map=np.clip(1 - np.abs(distance - 22) / 3, 0, 1).astype(np.float32),
        is_corrected=True,
        trust=0.87,
        expected_overlap=ExpectedOverlap(0.89, 0.81, 0.94),
        doubtful_places=[place] * 20,
        wall=analyse_wall(volume, labelmap, WallSettings(), label=1),
        notes=["A note of some length that tells the reader what happened to this scan on its way to here."] * 9,
    )
    identity = dict.fromkeys(("Patient", "ID", "Born", "Study date", "Accession", "File"), "A rather long text")
    first = render_scan_report(page)
    (body,) = re.findall("<body>.*</body>", render_scan_report(replace(page, identity=identity)), re.DOTALL)
    second = body.replace("<body>", '<div style="break-before: page">').replace("</body>", "</div>")
    assert first.count("</body>") == second.count("<div style") == 1
    (tmp_path / "page.html").write_text(first.replace("</body>", f"{second}</body>"), encoding="utf-8")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command = [BROWSER, *arguments, f"--print-to-pdf={tmp_path / 'page.pdf'}", str(tmp_path / "page.html")]
    subprocess.run(command, check=True, capture_output=True, timeout=HANGING_S)
    pdf = (tmp_path / "page.pdf").read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 2
    width, height = map(float, re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf).groups())  # type: ignore[union-attr]
    assert (width, height) == (pytest.approx(210 / 25.4 * 72, abs=1), pytest.approx(297 / 25.4 * 72, abs=1))


def test_segment_too_small_for_a_surface_is_named_with_its_volume(tmp_path: Path) -> None:
    voxels = np.zeros((9, 9, 9), np.uint8)
    voxels[4, 4, 4] = 1
    grid = Grid(voxels.shape, np.diag([0.5, 0.5, 0.5, 1.0]))
    info = SegmentInfo(1, "Pancreas", (1.0, 0.0, 0.0), Code("SCT", "15776009", "Pancreas"))
    result = segmented_scan(Labelmap(voxels, grid), info)
    expected = r"^scan\.nii\.gz: the segment Pancreas \(0\.000125 mL\) is too small for a surface\. Write no surface"
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
