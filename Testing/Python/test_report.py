"""A run's report is a self-contained page with settings, results, charts and pictures, without a patient's identity."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import nibabel
import nrrd
import numpy as np
import pytest
from dcamt.api.training import model_card
from dcamt.api.training_plan import TrainingPlan
from dcamt.cases.case_list import read_cases
from dcamt.geometry import Grid
from dcamt.metrics.evaluation import summarize_rows
from dcamt.metrics.pair_scoring import score_case
from dcamt.report import case_picture
from dcamt.report.charts import MAX_POINTS, WIDTH, line_chart, thin_line, tick_values
from dcamt.report.run_report import collect_curves
from dcamt.report.run_report_html import Picture, RunReport, render_run_report
from dcamt.report.scored_cases import ScoredCase, pick_best_median_worst
from dcamt.runs.events import ValidationScored, parse_run_event
from dcamt.runs.folder import RunFolder
from dcamt.training.trainer import TrainingResult
from dcamt.volume import TISSUE, Labelmap, SegmentInfo, Volume
from dcamt_testing.ellipsoids import ellipsoid_scan
from dcamt_testing.processes import call_dcamt, run_dcamt
from dcamt_testing.synthetic import read_table, set_options, write_table
from dcamt_testing.tiny_recipes import tiny_recipe

PLANTED = ("Hildegard", "Mustermann", "PID-4711", "1961-03-07")
"""A patient's name, identifier and birthday."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run with four validation cases and a patient's name in paths, headers and the names of cases."""
    home = tmp_path_factory.mktemp("Hildegard_Mustermann")
    rows = []
    for number, role in enumerate(["labelled", "unlabelled", *["validation"] * 4]):
        image, label = ellipsoid_scan(seed=number)
        name = f"Mustermann Hildegard PID-4711 {number}"
        scan = nibabel.Nifti1Image(image, np.diag([2.0, 2, 2, 1]))
        scan.header["descrip"] = b"Hildegard Mustermann PID-4711"
        scan.header["db_name"] = b"1961-03-07"
        nibabel.save(scan, home / f"{name}.nii.gz")
        frame = {"space": "RAS", "space directions": np.diag([2.0, 2, 2]), "patient": "Mustermann 1961-03-07"}
        nrrd.write(str(home / f"{name}.seg.nrrd"), label, frame)
        rows.append([name, f"{name}.nii.gz", "" if role == "unlabelled" else f"{name}.seg.nrrd", role])
    table = write_table(home / "cases.csv", rows)
    arguments = ["train", str(table), "--run", str(home / "PID-4711" / "run"), "--device", "cpu"]
    output = home / "output.txt"
    assert run_dcamt([*arguments, *set_options("validate_every=3")], output) == 0, output.read_text(encoding="utf-8")
    assert "report" not in output.read_text(encoding="utf-8")  # a failure to write the report would be printed
    return home / "PID-4711" / "run"


def texts_in(data: bytes) -> Iterator[str]:
    yield data.decode("latin-1")
    for picture in re.findall(rb"data:image/png;base64,([A-Za-z0-9+/=]+)", data):
        yield base64.b64decode(picture).decode("latin-1")
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name
                yield archive.read(name).decode("latin-1")


@pytest.mark.parametrize("file", ["report.html", "model.dcamt"])
def test_report_and_model_do_not_identify_a_patient(run: Path, file: str) -> None:
    texts = list(texts_in((run / file).read_bytes()))
    parts = {part for part in run.parts if len(part) > 3 and part not in ("run", "root")}
    for trace in (*PLANTED, *parts, str(run.parent)):
        assert not any(trace.lower() in text.lower() for text in texts), trace
    # The search works: it finds the name in the run's case list.
    assert any("Mustermann" in text for text in texts_in((run / "cases.csv").read_bytes()))


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("td", "th") and self.rows:
            self.rows[-1].append(data)


def test_report_is_self_contained(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("img") == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.fetched)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    for caption in ("Best case", "Median case", "Worst case"):
        assert f"{caption} by Dice: case " in text


def test_report_shows_settings_and_results_of_the_run(run: Path) -> None:
    rows = {row[0]: row[1:] for row in Page((run / "report.html").read_text(encoding="utf-8")).rows if row}
    assert (rows["Labelled cases"], rows["Unlabelled cases"], rows["Validation cases"]) == (["1"], ["1"], ["4"])
    assert rows["Iterations"] == ["6"]
    assert rows["training.batch"] == ["2"]
    assert "torch" in rows
    table = read_table(run / "validation.csv")
    for number in range(4):
        cells, expected = rows[f"case {number + 1}"], table[number]
        assert cells[:3] == ["Left atrium", f"{float(expected['dice']):.3f}", f"{float(expected['jaccard']):.3f}"]
        assert expected["case"] == f"Mustermann Hildegard PID-4711 {number + 2}"
    assert table[4]["case"] == "mean"
    assert rows["mean"][1] == f"{float(table[4]['dice']):.3f}"


def test_report_counts_the_cases_of_the_training_even_if_the_case_list_has_changed(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / run.parent.name / run.name
    shutil.copytree(run.parent.parent, tmp_path, dirs_exist_ok=True)
    cases = copy / "cases.csv"
    cases.write_text(cases.read_text(encoding="utf-8").replace(",unlabelled", ",left out"), encoding="utf-8")
    assert call_dcamt(["report", copy, "--device", "cpu"]) == 0
    rows = {row[0]: row[1:] for row in Page((copy / "report.html").read_text(encoding="utf-8")).rows if row}
    assert rows["Unlabelled cases"] == ["1"]


def test_report_has_charts_of_dice_and_losses(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    charts = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.S)]
    titles = [chart.get("aria-label") for chart in charts]
    assert titles[0] == "Dice of the validation cases"
    assert {"Loss: supervised", "Loss: distillation", "Loss: total"} <= set(titles)
    assert len(charts[0].findall("polyline")) == 3  # branch A, branch B and both


def test_charts_name_the_losses_as_the_panel_does() -> None:
    names = ("mmd", "intra_class", "copy_paste", "other")
    page = render_run_report(RunReport(tiny_recipe(), {}, losses={name: [(1, 0.5), (2, 0.4)] for name in names}))
    titles = ["MMD", "contrast within classes", "mixed patches", "other"]
    assert re.findall(r'aria-label="Loss: (.*?)"', page) == titles


def test_pictures_have_a_key_of_the_classes() -> None:
    classes = [
        SegmentInfo(1, "Left <atrium>", (1.0, 0.0, 0.0), TISSUE),
        SegmentInfo(2, "Wall", (0.0, 0.0, 1.0), TISSUE),
    ]
    recipe = replace(tiny_recipe(), classes=classes)
    page = render_run_report(RunReport(recipe, {}, pictures=[Picture("Best case", b"")]))
    dots = re.findall(r'style="background:(#[0-9a-f]{6})"></b>(.*?)</span>', page)
    assert dots == [("#ff0000", "Left &lt;atrium&gt;"), ("#0000ff", "Wall")]


def test_command_rewrites_the_report(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "report.html").read_text(encoding="utf-8")
    (run / "report.html").unlink()
    assert call_dcamt(["report", run, "--json", "--device", "cpu"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1] == {"event": "report", "report": str(run / "report.html"), "notes": []}
    assert (run / "report.html").read_text(encoding="utf-8") == before
    assert call_dcamt(["report", tmp_path]) == 1
    assert "holds no run" in capsys.readouterr().err


def test_case_whose_label_was_changed_after_the_training_is_left_out_with_a_remark(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / run.parent.name / run.name
    shutil.copytree(run.parent.parent, tmp_path, dirs_exist_ok=True)
    numbers = range(2, 6)  # the validation cases
    labels = [tmp_path / f"Mustermann Hildegard PID-4711 {number}.seg.nrrd" for number in numbers]
    for count, changed in ((1, labels[1:2]), (4, labels)):
        for label in changed:
            voxels, header = nrrd.read(str(label))
            nrrd.write(str(label), 0 * voxels, header)
        (copy / "validation.csv").unlink(missing_ok=True)
        (copy / "report.html").unlink()
        assert call_dcamt(["report", copy, "--device", "cpu"]) == 0
        errors = capsys.readouterr().err
        assert errors.count("the report leaves out the case") == count
        assert f"'Mustermann Hildegard PID-4711 3': {tmp_path}" in errors
        assert "3.seg.nrrd: is empty" in errors
        page = (copy / "report.html").read_text(encoding="utf-8")
        assert f"because their scan or label cannot be used: {count}." in page
        assert [f"<td>case {n}</td>" in page for n in range(1, 5)] == [n <= 4 - count for n in range(1, 5)]
        assert "had no validation cases" not in page
        assert not any(trace in page for trace in PLANTED)


def test_report_leaves_out_a_removed_validation_scan_and_needs_no_labelled_scan(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / run.parent.name / run.name
    shutil.copytree(run.parent.parent, tmp_path, dirs_exist_ok=True)
    cases = read_cases(copy / "cases.csv")
    labelled, validation = (
        next(case.image for case in cases if case.role == role) for role in ("labelled", "validation")
    )
    labelled.unlink()  # the report reads only the scans of validation cases
    validation.unlink()
    # `dcamt report` refuses to replace a table that has a score of the removed case.
    (copy / "validation.csv").unlink()
    assert call_dcamt(["report", copy, "--device", "cpu"]) == 0
    errors = capsys.readouterr().err
    assert errors.count("the report leaves out the case") == 1
    assert f"{validation.name}: does not exist" in errors
    assert "because their scan or label cannot be used: 1." in (copy / "report.html").read_text(encoding="utf-8")


def test_second_report_is_written_if_the_first_has_no_scores(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / run.parent.name / run.name
    shutil.copytree(run.parent.parent, tmp_path, dirs_exist_ok=True)
    for path in (copy / "validation.csv", copy / "report.html"):
        path.unlink()
    monkeypatch.setattr("dcamt.report.run_report.score_cases", lambda *_: [])
    for _ in range(2):
        assert call_dcamt(["report", copy, "--device", "cpu"]) == 0, capsys.readouterr().err
    assert "Validation cases without scores" in (copy / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("moved", "has_table"), [(1, True), (4, True), (4, False)])
def test_report_that_would_lack_earlier_scores_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], moved: int, has_table: bool
) -> None:
    copy = tmp_path / run.parent.name / run.name
    shutil.copytree(run.parent.parent, tmp_path, dirs_exist_ok=True)
    for number in range(2, 2 + moved):
        (tmp_path / f"Mustermann Hildegard PID-4711 {number}.nii.gz").rename(tmp_path / f"moved{number}.nii.gz")
    if not has_table:
        (copy / "validation.csv").unlink()
    before = {path.name: path.read_bytes() for path in copy.iterdir() if path.is_file()}
    assert call_dcamt(["report", copy, "--device", "cpu"]) == 1
    names = ", ".join(f"Mustermann Hildegard PID-4711 {number}" for number in range(2, 2 + moved))
    message = f"{copy}: no report was written, since it would lack earlier scores ({names})."
    assert message in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in copy.iterdir() if path.is_file()} == before


def test_former_validation_cases_whose_scores_the_report_leaves_out_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / run.parent.name / run.name
    shutil.copytree(run.parent.parent, tmp_path, dirs_exist_ok=True)
    *kept, last = (copy / "cases.csv").read_text(encoding="utf-8").splitlines()
    (copy / "cases.csv").write_text("\n".join(kept), encoding="utf-8")
    message = (
        "the report leaves out earlier scores, since their cases are no longer validation cases (Mustermann Hildegard"
        f" PID-4711 5). To score these cases, list them as validation cases in {copy / 'cases.csv'} again."
    )
    for is_first in (True, False):
        assert call_dcamt(["report", copy, "--device", "cpu"]) == 0
        assert (message in capsys.readouterr().err) == is_first
    assert last.startswith("Mustermann Hildegard PID-4711 5,")
    assert [row["case"][-1] for row in read_table(copy / "validation.csv")[:3]] == ["2", "3", "4"]
    assert not any(trace in (copy / "report.html").read_text(encoding="utf-8") for trace in PLANTED)


@pytest.mark.parametrize("has_table", [True, False])
def test_report_is_refused_if_no_validation_case_is_listed_any_more(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], has_table: bool
) -> None:
    copy = tmp_path / run.parent.name / run.name
    shutil.copytree(run.parent.parent, tmp_path, dirs_exist_ok=True)
    listed = (copy / "cases.csv").read_text(encoding="utf-8")
    (copy / "cases.csv").write_text(listed.replace(",validation", ",left out"), encoding="utf-8")
    if not has_table:
        (copy / "validation.csv").unlink()
    before = {path.name: path.read_bytes() for path in copy.iterdir() if path.is_file()}
    assert call_dcamt(["report", copy, "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert f"{copy}: no report was written, since it would lack earlier scores" in error
    assert ("Mustermann Hildegard PID-4711 2" in error) == has_table
    assert {path.name: path.read_bytes() for path in copy.iterdir() if path.is_file()} == before


def test_report_is_refused_if_a_validation_case_has_lost_its_label(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / run.parent.name / run.name
    shutil.copytree(run.parent.parent, tmp_path, dirs_exist_ok=True)
    lines = (copy / "cases.csv").read_text(encoding="utf-8").splitlines()
    cells = lines[-1].split(",")
    cells[lines[0].split(",").index("label")] = ""
    (copy / "cases.csv").write_text("\n".join([*lines[:-1], ",".join(cells)]), encoding="utf-8")
    assert call_dcamt(["report", copy, "--device", "cpu"]) == 1
    assert f"line {len(lines)} ('{cells[0]}') has the role validation, but no label" in capsys.readouterr().err


def test_resuming_at_an_iteration_removes_the_values_of_later_iterations_from_the_curves() -> None:
    def progress_event(step: int, loss: float | None) -> dict[str, object]:
        return {"event": "progress", "step": step, "losses": {"total": loss}}

    events = [
        {"event": "started", "step": 0},
        progress_event(10, 3.0),
        progress_event(20, None),
        progress_event(30, 2.0),
    ]
    events += [{"event": "started", "step": 10}, progress_event(25, 1.5)]
    events += [{"event": "validation", "step": 25, "dice": {"A": {"LA": 0.5}, "mean": {"LA": 0.6}}}]
    parsed = [event for fields in events if (event := parse_run_event(fields))]
    losses, dice = collect_curves(parsed, several_classes=False)
    assert losses == {"total": [(10, 3.0), (25, 1.5)]}
    assert dice == {"branch A": [(25, 0.5)], "both branches": [(25, 0.6)]}


def test_each_of_several_classes_has_one_dice_curve() -> None:
    scored = ValidationScored(25, {"A": {"LA": 0.5, "RA": 0.3}, "mean": {"LA": 0.6, "RA": 0.4}}, 1.0)
    _, dice = collect_curves([scored], several_classes=True)
    assert dice == {"LA, both branches": [(25, 0.6)], "RA, both branches": [(25, 0.4)]}


def test_lines_of_a_chart_differ_and_each_name_has_the_mark_of_its_line() -> None:
    lines = {f"Class {number}": [(1, 0.1), (2, 0.02 * number)] for number in range(20)}
    chart = ElementTree.fromstring(line_chart("Dice", lines))

    def looks(lines: list[ElementTree.Element]) -> list[tuple[str, str]]:
        return [(line.attrib["stroke"], line.attrib["stroke-dasharray"]) for line in lines]

    marks, drawn = chart.findall("line[@class='mark']"), looks(chart.findall("polyline"))
    assert len(set(drawn)) == 20
    assert looks(marks) == drawn
    names = chart.findall("text[@class='name']")
    assert [name.text for name in names] == list(lines)
    assert all("fill" not in name.attrib for name in names)  # Names have the page's text colour, which is dark.
    for mark, name in zip(marks, names, strict=True):
        assert float(name.attrib["y"]) - 8 < float(mark.attrib["y1"]) < float(name.attrib["y"])


def test_line_chart_has_thinned_lines_escaped_texts_and_round_ticks() -> None:
    line = [(x, 2.0 if x < 500 else 1.0) for x in range(1000)]
    short = thin_line(line)
    assert len(short) == MAX_POINTS
    assert sum(y for _, y in short) / MAX_POINTS == pytest.approx(1.5)
    chart = ElementTree.fromstring(line_chart("a <b> & c", {"<i>x</i>": line, "y": [(3, float("nan")), (4, 1.0)]}))
    assert chart[0].text == "a <b> & c"
    assert float(chart.findall("polyline")[0].attrib["points"].split(",")[1].split()[0]) < 60
    assert line_chart("none", {"x": [(1, float("inf"))]}) == ""
    lowest_name_y = max(float(text.attrib["y"]) for text in chart.findall("text[@class='name']"))
    points = " ".join(polyline.attrib["points"] for polyline in chart.findall("polyline")).split()
    highest_point_y = min(float(point.split(",")[1]) for point in points)
    assert lowest_name_y < highest_point_y
    assert tick_values(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert tick_values(0, 6000, 4) == [0, 2000, 4000, 6000]


@pytest.mark.parametrize("last", [3, 3000, 100_000, 1_500_000])
def test_numbers_of_a_chart_lie_inside_the_chart(last: int) -> None:
    textpath = pytest.importorskip("matplotlib.textpath")
    font = float(re.search(r"svg text { font-size: (\d+)px }", render_run_report(RunReport(tiny_recipe(), {})))[1])  # type: ignore[index]
    svg = line_chart("Loss", {"total": [(0, 0.00015), (last, 0)]})
    numbers = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="(end|middle)">([^<]+)</text>', svg)
    assert f"{last:g}" in [text for _, _, text in numbers]
    for x, anchor, text in numbers:
        width = textpath.TextPath((0, 0), text, size=font).get_extents().x1
        start = float(x) - width / (1 if anchor == "end" else 2)
        assert 0 <= start < start + width <= WIDTH, text


@pytest.mark.parametrize(
    ("dice", "picked"),
    [
        ([], {}),
        ([0.0], {"Best": 0}),
        ([0.0, 0.1], {"Best": 1, "Worst": 0}),
        ([0.3, 0.9, 0.1, 0.5, 0.7], {"Best": 1, "Median": 3, "Worst": 2}),
    ],
)
def test_best_median_and_worst_case_are_picked(dice: list[float], picked: dict[str, int]) -> None:
    assert pick_best_median_worst(dice) == picked


def test_dice_of_a_case_is_the_mean_over_the_classes_that_occur() -> None:
    mask = ellipsoid_scan()[1]
    grid = Grid(mask.shape, np.eye(4))
    labels = [Labelmap(voxels, grid) for voxels in (mask, np.where(mask, 2, 0).astype(np.uint8))]
    first, second = (score_case("case", labels[0], label, (1, 2, 3)) for label in labels)
    assert [row.score.dice for row in first] == [1, 1, 1]
    assert ScoredCase(tuple(first), b"").dice == 1
    assert ScoredCase(tuple(second), b"").dice == 0  # Both labelmaps lack class 3, whose Dice of 1 does not count.
    nothing = Labelmap(np.zeros_like(mask), grid)
    assert ScoredCase(tuple(score_case("case", nothing, nothing, (1, 2))), b"").dice == 1


def test_case_pictures_have_radiological_orientation(tmp_path: Path) -> None:
    """The axes point to L, S, A. A bright block at the patient's right, front and top is drawn at the upper left."""
    import matplotlib.image

    block = np.zeros((40, 40, 40), np.uint8)
    block[28:38, 28:38, 28:38] = 1
    affine = np.array([[-1.0, 0, 0, 39], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    labels = np.ascontiguousarray(np.flip(block.transpose(0, 2, 1), 0))
    grid, recipe = Grid((40, 40, 40), affine), tiny_recipe()
    volume = Volume(100.0 * labels[None], grid)
    inner = labels * (np.abs(np.indices(grid.shape) - np.argwhere(labels).mean(0)[:, None, None, None]) < 3).all(0)
    data = case_picture.draw_case(volume, Labelmap(inner.astype(np.uint8), grid), Labelmap(labels, grid), recipe)
    (tmp_path / "case.png").write_bytes(data)
    pixels = matplotlib.image.imread(tmp_path / "case.png")
    side = case_picture.HEIGHT
    assert pixels.shape == (side, 3 * side + 12, 3)
    before_block_mm, block_mm = 2, 10
    centre_mm = before_block_mm + block_mm / 2
    shown_mm = before_block_mm + block_mm + case_picture.MARGIN_MM
    for number in range(3):
        panel = pixels[:, number * (side + 6) :][:, :side]
        bright = panel.mean(axis=-1) > 0.5
        assert np.argwhere(bright).mean(axis=0) / side == pytest.approx([centre_mm / shown_mm] * 2, abs=0.02)
        assert (np.abs(panel - recipe.classes[0].color).max(axis=-1) < 0.01).any()


def test_padding_of_ct_does_not_lower_the_contrast_of_a_case_picture(tmp_path: Path) -> None:
    import matplotlib.image

    voxels = np.tile(np.array([-3024, 0, 100], np.int16).repeat(12), (24, 24, 1))  # padding, tissue, label
    labels = (voxels == 100).astype(np.uint8)
    grid = Grid(voxels.shape, np.eye(4))
    picture = case_picture.draw_case(Volume(voxels[None], grid), *[Labelmap(labels, grid)] * 2, tiny_recipe())
    (tmp_path / "case.png").write_bytes(picture)
    coronal = matplotlib.image.imread(tmp_path / "case.png")[:, 300:400].mean(axis=(1, 2))
    assert coronal[[-20, coronal.size // 2, 40]] == pytest.approx([0, 0, 1], abs=0.02)


def test_classes_absent_from_a_case_are_named_below_the_scores() -> None:
    recipe = tiny_recipe()
    recipe = replace(recipe, classes=(*recipe.classes, replace(recipe.classes[0], label=2, name="Scar")))
    mask = ellipsoid_scan()[1]
    grid = Grid(mask.shape, np.eye(4))
    both = np.where(np.arange(mask.shape[0])[:, None, None] < mask.shape[0] // 2, mask, 2 * mask).astype(np.uint8)
    labels = [Labelmap(voxels, grid) for voxels in (both, mask)]
    rows = [row for n, label in enumerate(labels) for row in score_case(f"case {n}", label, label, (1, 2))]
    page = render_run_report(RunReport(recipe, {}, evaluation=summarize_rows(rows)))
    absent = f"{recipe.classes[1].name} is absent from segmentation and label in 1 of 2 cases"
    assert page.count("is absent from") == 1
    assert f"<p>{absent}; in the table's means, such cases count with Dice 1 and distance 0.</p>" in page


def test_report_states_that_names_in_the_recipe_may_identify_a_patient() -> None:
    recipe = tiny_recipe()
    recipe = replace(recipe, classes=(replace(recipe.classes[0], name="Atrium of Mueller"),))
    page = render_run_report(RunReport(recipe, {}))
    assert ["classes 1.name", "Atrium of Mueller"] in Page(page).rows
    assert "The names and titles of the recipe and of the starting model, and this model's licence, are printed" in page
    assert "Nothing else on this page names a patient, identifier or file." in page


def test_report_and_model_card_explain_class_means_only_for_several_classes(tmp_path: Path) -> None:
    one = tiny_recipe()
    several = replace(one, classes=(*one.classes, replace(one.classes[0], label=2, name="Scar")))
    for recipe, is_stated in ((one, False), (several, True)):
        page = render_run_report(RunReport(recipe, {}, dice={"both branches": [(1, 0.5), (2, 0.6)]}))
        assert ("the mean of the cases whose label or segmentation contains the class" in page) == is_stated
        plan = TrainingPlan(RunFolder(tmp_path / "run"), recipe, [])
        (measured,) = model_card(plan, TrainingResult({}, 2, 1.0, True, {"mean": {"Scar": 0.5}})).measured
        assert ("only if the label or the segmentation contains the class" in measured["on"]) == is_stated


def test_report_in_a_folder_without_permission_is_refused_before_the_scoring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (RunFolder(tmp_path).recipe, RunFolder(tmp_path).model):
        file.touch()
    # `chmod` would have no effect if root runs the tests.
    monkeypatch.setattr("dcamt.commands.result_files.os.access", lambda *_: False)
    assert call_dcamt(["report", tmp_path]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / 'validation.csv'}: cannot be written (no permission for {tmp_path})" in error
