"""Test the report of `dcamt segment`."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import zipfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import dcamt
import numpy as np
import pytest
from dcamt.api.outputs import describe_identity, write_report
from dcamt.geometry import Grid
from dcamt.io.readers import read_scan
from dcamt.io.writers import write_volume
from dcamt.metrics.doubtful_places import DoubtfulPlace
from dcamt.metrics.measurements import measure
from dcamt.models.calibration import ExpectedOverlap
from dcamt.models.package import Card
from dcamt.report.scan_report import ScanReport, render_scan_report
from dcamt.volume import Code, IdentifyingNote, Labelmap, SegmentInfo, Volume
from dcamt.wall.analysis import analyse_wall
from dcamt.wall.settings import WallSettings
from dcamt_testing.dicom_positions import write_frames, write_slices
from dcamt_testing.dicom_series import write_mr_series
from dcamt_testing.processes import HANGING_S, call_dcamt
from dcamt_testing.synthetic import noise_scan, save_noise_scan

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "Resources" / "SampleData" / "LGEHeartPhantom.nrrd"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""


def call_segment(*arguments: str | Path) -> int:
    return call_dcamt(["segment", *arguments, "--device", "cpu"])


class Page(HTMLParser):
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


@pytest.mark.usefixtures("coarse_pictures")
def test_report_identifies_the_patient_only_with_the_option_identity(noise_model: Path, tmp_path: Path) -> None:
    write_mr_series(tmp_path / "series", noise_scan().voxels[0], np.diag([-1.5, -1.5, 2.5, 1.0]))
    arguments = [tmp_path / "series", "-o", tmp_path / "out.dcm", "--model", noise_model, "--overwrite", "--report"]
    assert call_segment(*arguments, tmp_path / "anonymous.html") == 0
    assert call_segment(*arguments, tmp_path / "page.html", "--identity") == 0
    anonymous = (tmp_path / "anonymous.html").read_text(encoding="utf-8")
    pictures = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", anonymous)
    assert len(pictures) == 5  # three slices, and the surface from two sides
    # The PNG files have no chunk for text, EXIF data or a time.
    for picture in pictures:
        assert not re.search(rb"tEXt|iTXt|zTXt|eXIf|tIME", base64.b64decode(picture))
        anonymous = anonymous.replace(picture, "")
    traces = ["Phantom", "Synthetic", "SYN-1", "19500101", "20200102", "A9", "series", str(tmp_path)]
    for trace in traces:
        assert trace.lower() not in anonymous.lower(), trace
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", anonymous)
    assert "no name, identifier, date or file path" in anonymous
    named = " ".join(Page((tmp_path / "page.html").read_text(encoding="utf-8")).words)
    for trace in ("Phantom Synthetic", "SYN-1", "19500101", "20200102", str(tmp_path / "series")):
        assert trace in named, trace
    assert "no name, identifier" not in named


@pytest.mark.usefixtures("coarse_pictures")
def test_report_names_channel_files_only_with_the_option_identity(noise_model: Path, tmp_path: Path) -> None:
    scan = save_noise_scan(tmp_path / "imagesTs" / "Mueller_0000.nii.gz")
    save_noise_scan(scan.with_name("Mueller_0001.nii.gz"))
    arguments = [scan, "-o", tmp_path / "out.nrrd", "--model", noise_model, "--report", tmp_path / "page.html"]
    assert call_segment(*arguments) == 0
    assert "Mueller" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert call_segment(*arguments, "--overwrite", "--identity") == 0
    assert "Not used: Mueller_0001.nii.gz" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["zip file", "multi-frame files"])
def test_identity_is_read_from_zip_files_and_multi_frame_files(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg", "PatientID": "7"}
    path = Path("scan")
    monkeypatch.chdir(tmp_path)
    if form == "zip file":
        write_slices(path / "IM" / "LGE", 8, **attributes)
        write_slices(path / "LGE", 2, series="1.2.9", PatientName="Other")
        shutil.make_archive("scan", "zip", "scan")
        path = Path("scan.zip")
    else:
        for start in (0, 4):
            write_frames(path / f"{start}.dcm", range(start, start + 4), **attributes)
    scan = read_scan(path)
    monkeypatch.chdir("/")
    assert describe_identity(scan) == {"Patient": "Müller Jörg", "ID": "7", "File": str(path)}


@pytest.mark.parametrize("folder", ["./", "/", "../", "DICOM//", "DICOM/./LGE/"])
def test_identity_is_read_from_a_zip_file_with_unusual_names(folder: str, tmp_path: Path) -> None:
    write_slices(tmp_path / "scan", 8, PatientName="Müller", PatientID="7", SpecificCharacterSet="ISO_IR 100")
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        for file in (tmp_path / "scan").iterdir():
            archive.writestr(folder + file.name, file.read_bytes())
    identity = describe_identity(read_scan(tmp_path / "scan.zip"))
    assert (identity["Patient"], identity["ID"]) == ("Müller", "7")


def test_identity_shows_the_scan_name_if_the_zip_file_was_deleted(tmp_path: Path) -> None:
    write_slices(tmp_path / "scan", 8, PatientName="Müller")
    scan = read_scan(shutil.make_archive(str(tmp_path / "scan"), "zip", tmp_path / "scan"))
    (tmp_path / "scan.zip").unlink()
    assert describe_identity(scan) == {"Scan": "scan", "File": str(tmp_path / "scan.zip")}


@pytest.mark.usefixtures("coarse_pictures")
def test_report_has_fields_to_fill_in_unless_it_names_the_patient(noise_model: Path, tmp_path: Path) -> None:
    result = dcamt.segment(noise_scan(), noise_model, quality="fast", device="cpu")
    page = tmp_path / "page.html"
    for identity, has_fields in (({}, True), ({"Scan": "x"}, True), ({"ID": "7"}, True), ({"Patient": "x"}, False)):
        write_report(result, page, identity=identity)
        assert ("Checked by" in Page(page.read_text(encoding="utf-8")).words) == has_fields


@pytest.mark.usefixtures("coarse_pictures")
def test_report_names_the_calibration_file_only_with_the_option_identity(noise_model: Path, tmp_path: Path) -> None:
    model = shutil.copy(noise_model, tmp_path / "Mueller.dcamt")
    (tmp_path / "Mueller.calibration.json").write_text("{}", encoding="utf-8")
    scan = save_noise_scan(tmp_path / "scan.nrrd")
    arguments = [scan, "-o", tmp_path / "out.nrrd", "--model", model, "--report", tmp_path / "page.html"]
    assert call_segment(*arguments) == 0
    assert "Mueller" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert call_segment(*arguments, "--overwrite", "--identity") == 0
    assert "Mueller.calibration.json" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("coarse_pictures")
def test_report_without_identity_is_the_same_for_every_name_of_the_scan(noise_model: Path, tmp_path: Path) -> None:
    volume = noise_scan()
    volume.voxels[..., 5] = 0
    pages = []
    for name in ("patient07", "scan", "copy", "1"):
        write_volume(volume, tmp_path / f"{name}.nii.gz")
        arguments = [tmp_path / f"{name}.nii.gz", "-o", tmp_path / "out.nrrd", "--overwrite", "--model", noise_model]
        assert call_segment(*arguments, "--report", tmp_path / "page.html", "--roi=-12,12,-12,12,-12,12") == 0
        pages.append((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert pages[1:] == 3 * pages[:1]
    for note in ("Only a region of the scan was segmented", "slice 6", "copy the file again"):
        assert note in pages[0]


@pytest.mark.usefixtures("coarse_pictures")
def test_report_without_identity_counts_the_notes_that_it_does_not_show(noise_model: Path, tmp_path: Path) -> None:
    notes = [
        IdentifyingNote("Skipped a.dcm."),
        "Mueller.nii.gz was cropped.",
        "Check the MRI/CT.",
        "B",
        "C",
        "D",
    ]
    page = tmp_path / "page.html"
    result = dcamt.segment(replace(noise_scan(), path=tmp_path / "Mueller.nii.gz"), noise_model, device="cpu")
    result = replace(result, notes=tuple(notes))
    for identity, shown in (({}, notes[2:5]), ({"Scan": "Mueller"}, notes[:3])):
        write_report(result, page, identity=identity)
        paragraphs = re.findall("<p>(.*?)</p>", page.read_text(encoding="utf-8"))
        assert [note for note in notes if note in paragraphs] == shown
        assert "Further notes, not shown here: 3." in paragraphs


@pytest.mark.usefixtures("coarse_pictures")
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
    assert page.tags.count("image") == 3 + 2 + 2  # slices, views of the doubt, views of the enhancement
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


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
def test_long_words_do_not_push_the_research_mark_off_the_sheet(tmp_path: Path) -> None:
    grid = Grid((20, 20, 20), np.eye(4))
    labelmap = Labelmap(np.ones(grid.shape, np.uint8), grid)
    segments = [SegmentInfo(1, "segment_" * 20, (1.0, 0.0, 0.0), Code("SCT", "85756007", "Tissue"))]
    volume = Volume(np.ones((1, *grid.shape), np.float32), grid)
    page = render_scan_report(
        ScanReport(volume, labelmap, segments, measure(labelmap, segments), identity={"File": "x" * 110})
    )
    script = "const box = (name) => document.querySelector(name).getBoundingClientRect().right;"
    script += "document.title = box('.mark') <= box('body') + 1 ? 'on the sheet' : 'off the sheet'"
    page = page.replace("Content-Security-Policy", "x")  # The policy of the page forbids scripts.
    (tmp_path / "page.html").write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", str(tmp_path / "page.html")]
    shown = subprocess.run(command, check=True, capture_output=True, timeout=HANGING_S, text=True, encoding="utf-8")
    assert "<title>on the sheet</title>" in shown.stdout


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
def test_report_prints_on_one_a4_sheet(tmp_path: Path) -> None:
    """Print long reports: without identity, with the patient's name, with an ID but no name.

    One file contains all reports, so that the browser starts only once.
    """
    grid = Grid((90, 80, 38), np.diag([1.0, 1.0, 2.25, 1.0]))
    i, j, k = np.indices(grid.shape)
    distance = np.sqrt((i - 45.0) ** 2 + (j - 40) ** 2 + ((k - 19) * 2.25) ** 2)
    voxels = np.where(distance < 22, 200.0, np.where(distance < 25, 260.0, 60.0))
    volume = Volume((voxels + np.random.default_rng(0).normal(0, 5, grid.shape))[None].astype(np.float32), grid)
    labels = (distance < 22).astype(np.uint8)
    labels[5:9, 5:9, 5:9], labels[80:84, 5:9, 5:9], labels[5:9, 70:74, 5:9] = 2, 3, 4
    labels[80:84, 70:74, 5:9] = 1  # a separate part, which causes a note
    labelmap = Labelmap(labels, grid)
    code = Code("SCT", "85756007", "Tissue")
    segments = [SegmentInfo(n, f"Segment {n} of a rather long name", (0.9, 0.3, 0.2 * n), code) for n in range(1, 5)]
    place = DoubtfulPlace((45.0, 40.0, 42.75), (45, 40, 19), 1.25, 0.9)
    wall = analyse_wall(volume, labelmap, WallSettings(), label=1)
    # The report prints three notes: the note in `notes` and two notes of the wall.
    assert [len(wall.notes), "The voxels are up to 2.25 mm long" in wall.notes[1]] == [3, True]
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
        wall=wall,
        notes=["A note of some length that tells the reader what happened to this scan on its way to here."],
    )
    identity = dict.fromkeys(("Patient", "ID", "Born", "Study date", "Accession", "File"), "A rather long text")
    first, others = render_scan_report(page), ""
    for lines in (identity, {name: identity[name] for name in ("ID", "File")}):
        (body,) = re.findall("<body>.*</body>", render_scan_report(replace(page, identity=lines)), re.DOTALL)
        others += body.replace("<body>", '<div style="break-before: page">').replace("</body>", "</div>")
    assert [first.count("</body>"), others.count("<div style")] == [1, 2]
    (tmp_path / "page.html").write_text(first.replace("</body>", f"{others}</body>"), encoding="utf-8")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command = [BROWSER, *arguments, f"--print-to-pdf={tmp_path / 'page.pdf'}", str(tmp_path / "page.html")]
    subprocess.run(command, check=True, capture_output=True, timeout=HANGING_S)
    pdf = (tmp_path / "page.pdf").read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 3
    width, height = map(float, re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf).groups())  # type: ignore[union-attr]
    assert (width, height) == (pytest.approx(210 / 25.4 * 72, abs=1), pytest.approx(297 / 25.4 * 72, abs=1))
