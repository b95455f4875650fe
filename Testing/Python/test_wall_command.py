"""`dcamt wall` and `dcamt segment --wall` on phantoms: results, events, folders, painted openings, refused input."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import zipfile
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pytest
from dcamt.commands import wall as wall_command
from dcamt.errors import write_error
from dcamt.io.readers import read_labelmap
from dcamt.io.writers import write_labelmap, write_volume
from dcamt.volume import Code, Labelmap, SegmentInfo, Volume
from dcamt.wall.analysis import WallResult
from dcamt.wall.burden import REGIONS, Burden
from dcamt.wall.settings import METHODS_DISAGREE
from dcamt_testing.analytic_scans import CENTRE, points_of
from dcamt_testing.case_folders import make_files
from dcamt_testing.processes import call_dcamt
from dcamt_testing.scan_files import deny_folder
from dcamt_testing.synthetic import contradict_spacing, read_table, save_tiny_model
from dcamt_testing.tiny_recipes import tiny_recipe
from dcamt_testing.wall_cases import LABEL, SCAN, add_case, measure_folder, measure_scan
from dcamt_testing.wall_phantoms import Atrium, grid_about
from vtkmodules.vtkIOGeometry import vtkSTLReader

pytestmark = pytest.mark.usefixtures("coarse_pictures")


@pytest.fixture
def folder(wall_phantom: tuple[Volume, Labelmap], tmp_path: Path) -> Path:
    add_case(tmp_path, wall_phantom, "a")
    return tmp_path


def drop_mark(path: Path) -> None:
    """Remove DCAMT's mark from a labelmap, as another program does when it saves the file."""
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    data = data.replace(b"DCAMT result", b"other result").replace(b"DCAMT:=result\n", b"")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_wall_of_one_scan_is_measured_and_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out"
    assert measure_scan(folder, "--surface", out / "plain.stl") == 0
    printed = capsys.readouterr()
    assert sorted(path.name for path in out.iterdir()) == ["a_image.wall.csv", "a_image.wall.vtp", "plain.stl"]
    reader = vtkSTLReader()
    reader.SetFileName(str(out / "plain.stl"))
    reader.Update()
    x_min, x_max, y_min, y_max, z_min, z_max = reader.GetOutput().GetBounds()
    extents = (x_max - x_min, y_max - y_min, z_max - z_min)
    assert extents == pytest.approx((40, 40, 40), abs=1.0)  # a ball with a radius of 20 mm
    assert "% of the wall enhanced" in printed.out
    assert "IIR > 1.2 (ratio 1.200), maximum intensity from -1 to 3 mm" in printed.out
    assert "Methods disagree" in printed.out
    assert f"surface: {out / 'plain.stl'}" in printed.out
    assert "research use only" in printed.out
    assert float(read_table(out / "a_image.wall.csv")[0]["burden_percent"]) == pytest.approx(25, abs=2)


def test_values_of_the_segmentation_are_mapped_to_the_left_atrium(
    folder: Path, wall_phantom: tuple[Volume, Labelmap]
) -> None:
    labels = wall_phantom[1]
    upper = np.arange(labels.voxels.shape[2]) > labels.voxels.shape[2] // 2
    parts = np.where(labels.voxels != 0, np.where(upper, 421, 420), 0).astype(np.uint16)
    parts[:2, :2, :2] = 500
    write_labelmap(Labelmap(parts, labels.grid), folder / "labels" / "parts.nii.gz")
    out = folder / "mapped"
    arguments = ["wall", folder / SCAN, folder / "labels" / "parts.nii.gz", "-o", out, "--report", out / "page.html"]
    assert call_dcamt([*arguments, "--labels", "420,421=left-atrium"]) == 0
    assert measure_scan(folder) == 0
    tables = [read_table(folder / name / "a_image.wall.csv") for name in ("out", "mapped")]
    assert tables[0] == tables[1]


def test_import_of_scipy_and_vtk_begins_before_the_first_scan_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importing: list[str] = []

    def refuse(path: Path) -> Volume:
        assert {name.split(".")[0] for name in importing} == {"scipy", "vtkmodules"}
        raise write_error(OSError(errno.EIO, "stop here"), path)

    monkeypatch.setattr(wall_command, "import_in_background", importing.extend)
    monkeypatch.setattr(wall_command, "read_scan", refuse)
    assert measure_scan(folder) == 1
    assert importing


def test_notes_on_the_scan_are_printed(
    wall_phantom: tuple[Volume, Labelmap], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, label = tmp_path / "scan.nii", tmp_path / "label.nii"
    write_volume(wall_phantom[0], scan)
    write_labelmap(wall_phantom[1], label)
    contradict_spacing(scan)
    contradict_spacing(label)
    assert call_dcamt(["wall", scan, label, "-o", tmp_path / "out"]) == 0
    assert "The header states two spacings of the voxels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "has_note"), [("Right ventricle", True), ("RA", True), ("LA", False), ("mask", False)]
)
@pytest.mark.parametrize("options", [[], ["--label", "1"], ["--labels", "1=left-atrium"]], ids=str)
def test_note_says_that_the_segment_is_named_like_another_structure(
    name: str,
    has_note: bool,
    options: list[str],
    folder: Path,
    wall_phantom: tuple[Volume, Labelmap],
    capsys: pytest.CaptureFixture[str],
) -> None:
    segmentation = folder / "a.seg.nrrd"
    info = SegmentInfo(1, name, (1.0, 0.0, 0.0), Code("SCT", "1", "x"))
    write_labelmap(wall_phantom[1], segmentation, [info])
    assert call_dcamt(["wall", folder / SCAN, segmentation, "-o", folder / "out", "--json", *options]) == 0
    (notes,) = [
        event["notes"]
        for event in map(json.loads, capsys.readouterr().out.splitlines())
        if "stage" in event and event["event"] == "wall"
    ]
    note = (
        f"{segmentation}: the segment with the value 1 is named '{name}', but regions and stages apply only to the left"
    )
    assert [text.startswith(note) for text in notes if "is named" in text] == [True] * (
        has_note and "--labels" not in options
    )


def test_scan_with_few_different_intensities_causes_a_warning(
    wall_phantom: tuple[Volume, Labelmap], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, label = wall_phantom
    coarse = np.round(scan.voxels / scan.voxels.max() * 9).astype(np.float32)
    add_case(tmp_path, (replace(scan, voxels=coarse), label), "a")
    page = tmp_path / "page.html"
    assert measure_scan(tmp_path, "--report", page) == 0
    warning = f"The scan has only {len(np.unique(coarse))} different intensities, like a label."
    assert warning in capsys.readouterr().out
    assert warning in page.read_text(encoding="utf-8")


def test_burden_below_the_bound_of_a_stage_is_not_rounded_to_the_bound(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    burdens = (Burden("all", 100.0, 9.96), *(Burden(name, 10.0, 1.0) for name in REGIONS))
    monkeypatch.setattr(WallResult, "burdens", lambda wall, threshold=None: burdens)
    assert measure_scan(folder, "--report", folder / "page.html") == 0
    assert "9.96% of the wall enhanced, 10.0 of 100.0 cm² (stage I by DECAAF's bounds)" in capsys.readouterr().out
    assert ">9.96<" in (folder / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("own_grid", [False, True])
def test_option_identity_adds_file_names_to_the_wall_report(
    own_grid: bool, folder: Path, wall_phantom: tuple[Volume, Labelmap]
) -> None:
    out, page = folder / "out", folder / "Mueller.html"
    scan, label = folder / SCAN, folder / LABEL
    if own_grid:
        _, outline = Atrium(patch_degrees=60.0).on(grid_about(50, (1.0, 1.0, 1.0), shift=(0.2, 0.3, 0.1)))
        label = folder / "labels" / "a_label.seg.nrrd"
        named = SegmentInfo(1, "Mueller, drawn", (0.8, 0.2, 0.2), Code("SCT", "82471001", "Left atrium"))
        write_labelmap(outline, label, [named], mark=True)
    else:
        write_labelmap(wall_phantom[1], label, mark=True)
    arguments = ["wall", scan, label, "-o", out, "--report", page]
    assert call_dcamt(arguments) == 0
    text = page.read_text(encoding="utf-8")
    row = read_table(out / "a_image.wall.csv")[0]
    assert f">{float(row['burden_percent']):.1f}<" in text
    volume_ml = float(re.search(r"<th>Volume</th><td[^>]*>([\d.]+)<", text)[1])  # type: ignore[index]
    assert volume_ml == pytest.approx(4 / 3 * np.pi * 2**3, rel=0.02)  # a ball with a radius of 2 cm
    # Each of the three slices shows a coloured outline; its black rim is not counted.
    assert len(re.findall('fill="none" stroke="#(?!000")', text)) == 3
    assert re.search(f"<th>DECAAF stage at this threshold</th><td[^>]*>{row['stage']}<", text)
    assert escape(METHODS_DISAGREE) in text
    assert "Outline: read from a file that DCAMT wrote and that names no model." in text
    assert "The outline was probably made automatically" in text
    for trace in ("a_image", "a_label", "Mueller", str(folder)):
        assert trace not in text
    drop_mark(label)
    assert call_dcamt([*arguments, "--identity", "--overwrite"]) == 0
    identified = page.read_text(encoding="utf-8")
    assert str(scan) in identified
    assert ("Mueller, drawn" in identified) == own_grid
    assert "Outline: of unknown origin" in identified
    assert "made automatically" not in identified


def test_events_hold_the_same_numbers_as_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out"
    assert measure_scan(folder, "--json", "--preset", "sd-3", "--sample", "mean", "--from-mm", "0") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["progress", "wall", "done"]
    wall, first = events[1], read_table(out / "a_image.wall.csv")[0]
    assert (wall["method"], first["method"], first["sample"]) == ("sd-3", "sd-3", "mean")
    assert (wall["from_mm"], wall["to_mm"]) == (float(first["from_mm"]), float(first["to_mm"])) == (0, 3)
    regions = [row for row in read_table(out / "a_image.wall.csv") if row["method"] == "sd-3"]
    assert [burden["region"] for burden in wall["burden"]] == [row["region"] for row in regions]
    for burden, row in zip(wall["burden"], regions, strict=True):
        for key, column in (("percent", "burden_percent"), ("enhanced_cm2",) * 2, ("wall_cm2",) * 2):
            assert burden[key] == pytest.approx(float(row[column]), rel=1e-3, abs=1e-3)
    assert wall["stage"] == first["stage"]
    assert wall["remark"] == METHODS_DISAGREE
    assert wall["threshold_ratio"] == pytest.approx(1 + 3 * wall["blood_pool"]["sd"] / wall["blood_pool"]["mean"])
    assert events[-1] == {"event": "done", "scans": 1, "failed": 0, "notes": []}


def test_folder_gives_one_table_and_an_error_that_names_the_failed_scan(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], capsys: pytest.CaptureFixture[str]
) -> None:
    volume, labels = wall_phantom
    write_volume(Volume(250 - volume.voxels, volume.grid), folder / "scans" / "b_image.nrrd")
    write_volume(volume, folder / "scans" / "c_image.nrrd")
    for name in ("b", "c"):
        write_labelmap(labels, folder / "labels" / f"{name}_label.nii.gz")
    out = folder / "out"
    assert measure_folder(folder) == 1
    printed = capsys.readouterr()
    assert "2 of 3 scans measured" in printed.out
    assert printed.err.count("\n") == 1
    assert "b_image.nrrd: is probably not a late-enhancement scan" in printed.err
    rows = [row for row in read_table(out / "wall.csv") if row["region"] == "all" and row["method"] == "iir-1.2"]
    assert [row["scan"] for row in rows] == ["a_image", "c_image"]
    assert rows[0]["burden_percent"] == rows[1]["burden_percent"]


def test_painted_openings_are_excluded_from_the_wall(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], capsys: pytest.CaptureFixture[str]
) -> None:
    grid = wall_phantom[0].grid
    above = points_of(grid)[..., 2] > CENTRE[2]
    write_labelmap(Labelmap(above.astype(np.uint8), grid), folder / "openings.nrrd")
    assert measure_scan(folder, "--openings", folder / "openings.nrrd", "--json") == 0
    wall = json.loads(capsys.readouterr().out.splitlines()[1])
    assert wall["openings"] == "given"
    assert wall["burden"][0]["wall_cm2"] == pytest.approx(2 * np.pi * 4, rel=0.06)  # half of the ball remains
    assert wall["burden"][3]["wall_cm2"] < 0.5  # the roof is an opening


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--preset", "iir-much"], 1, "the threshold 'iir-much' is not known"),
        (["--from-mm", "4"], 1, "cannot be sampled from 4 to 3 mm"),
        (["--label", "3"], 1, "a_label.nii.gz: has no label 3. Choose one of: 1"),
        (["--surface", "plain"], 1, "plain: does not have the ending of a surface. Use .stl, .obj, .ply, .vtp."),
        (["--surface", "x.nii.gz"], 1, "does not have the ending of a surface"),
        (["--report", "r.pdf"], 2, "--report r.pdf: the file must end in .html, .htm"),
        (
            ["--surface", "scans/../out/a_image.wall.vtp"],
            1,
            "a_image.wall.vtp: two results would be written to this file",
        ),
        (["--openings", "missing.nrrd"], 1, "missing.nrrd: does not exist"),
        (["--sample", "median"], 2, "invalid choice"),
        (["--labels", "1=aorta"], 1, "'1=aorta' names no known class. Choose one of: Left atrium."),
        (["--labels", "1=left-atrium", "--label", "1"], 2, "not allowed with argument"),
        (["--labels", "420=left-atrium"], 1, "a_label.nii.gz: has no voxel with a value of the label mapping. Correct"),
    ],
)
def test_invalid_input_is_refused_with_the_reason(
    options: list[str],
    status: int,
    message: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    arguments = ["scans/a_image.nrrd", "labels/a_label.nii.gz", "-o", "out", *options]
    assert call_dcamt(["wall", *arguments]) == status
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("unusable", "message"),
    [
        ("dark", r"a_image\.nrrd: .*Choose the late-enhancement scan, and the segment of the left atrium"),
        ("constant", r"a_image\.nrrd: .*intensity.*Choose the late-enhancement scan, not a mask"),
        ("offset", r"a_image\.nrrd: .*negative intensities .*Use the scanner.s original magnitude image"),
        ("small", r"a_label\.nii\.gz: .*blood pool: \d+ voxels .*Choose the segment of the whole left atrium"),
        ("voxel", r"a_label\.nii\.gz: is too small to have a surface\. Choose the segment"),
        ("no wall", r"openings\.nrrd: leaves no wall: .*Mark only the openings"),
    ],
)
def test_unusable_inputs_are_refused_with_a_remedy(
    unusable: str, message: str, folder: Path, wall_phantom: tuple[Volume, Labelmap], capsys: pytest.CaptureFixture[str]
) -> None:
    volume, labels = wall_phantom
    scan, label = folder / SCAN, folder / LABEL
    arguments: list[str | Path] = []
    if unusable in ("small", "voxel"):
        tiny = Atrium((6.0, 6.0, 6.0)).mask(points_of(volume.grid)).astype(np.uint8)
        if unusable == "voxel":
            tiny = np.zeros_like(tiny)
            tiny[10, 10, 10] = 1
        write_labelmap(Labelmap(tiny, volume.grid), label)
    elif unusable == "no wall":
        write_labelmap(Labelmap(np.ones_like(labels.voxels), labels.grid), folder / "openings.nrrd")
        arguments = ["--openings", folder / "openings.nrrd"]
    else:
        voxels = {
            "dark": 250 - volume.voxels,
            "constant": np.where(labels.voxels[None] != 0, np.float32(100), volume.voxels),
            "offset": volume.voxels - 60,
        }[unusable]
        write_volume(Volume(voxels, volume.grid), scan)
    assert measure_scan(folder, *arguments) == 1
    printed = capsys.readouterr().err
    assert re.search(message, printed)
    assert printed.count("\n") == 1
    assert not list(folder.glob("out/*"))


def test_surface_at_the_scan_border_is_left_out_and_reported(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], capsys: pytest.CaptureFixture[str]
) -> None:
    _, labels = wall_phantom
    # The scan ends 10 mm below the atrium's centre.
    volume, _ = Atrium(patch_degrees=60.0).on(grid_about(55, (1.25, 1.25, 2.5), shift=(0, 0, 17.5)))
    scan, label = folder / SCAN, folder / LABEL
    write_volume(volume, scan)
    write_labelmap(labels, label)
    assert measure_scan(folder) == 0
    assert re.search(r"a_image: [\d.]+ cm² of the surface lie at the scan's border", capsys.readouterr().out)
    row = read_table(folder / "out" / "a_image.wall.csv")[0]
    # The surface is a sphere with a radius of 20 mm. A point of the surface is measured only if the scan contains the
    # outermost sample of the point, 23 mm from the centre. The scan ends 10 mm below the centre, so the lowest measured
    # points lie 10 mm * 20 / 23 = 8.7 mm below the centre. The measured points form a spherical zone with the area
    # 2 pi r h, where r = 2 cm and h = 2 cm + 0.87 cm.
    measured_cm2 = 2 * np.pi * 2 * (2 + 0.87)
    assert float(row["wall_cm2"]) == pytest.approx(measured_cm2, rel=0.05)
    assert float(row["border_cm2"]) == pytest.approx(4 * np.pi * 4 - measured_cm2, rel=0.1)


def test_scan_without_a_segmentation_fails_and_does_not_stop_the_others(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(wall_phantom[0], folder / "scans" / "z_image.nrrd")
    assert measure_folder(folder) == 1
    printed = capsys.readouterr()
    assert f"z_image.nrrd: has no segmentation in {folder / 'labels'}. Put z.seg.nrrd there" in printed.err
    assert "1 of 2 scans measured" in printed.out
    assert {row["scan"] for row in read_table(folder / "out" / "wall.csv")} == {"a_image"}


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_segmentation_in_a_folder_without_permission_does_not_stop_the_others(
    folder: Path,
    wall_phantom: tuple[Volume, Labelmap],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_volume(wall_phantom[0], folder / "scans" / "z_image.nrrd")
    link = folder / "labels" / "z_label.nii.gz"
    link.symlink_to(folder / "locked" / "z_label.nii.gz")
    deny_folder(folder / "locked", monkeypatch)
    assert measure_folder(folder) == 1
    printed = capsys.readouterr()
    assert f"{link}: cannot be read (no permission)" in printed.err
    assert "1 of 2 scans measured" in printed.out


def test_notes_name_skipped_scans_and_segmentations_without_a_scan(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], capsys: pytest.CaptureFixture[str]
) -> None:
    scan, label = wall_phantom
    add_case(folder, (Volume(np.uint8(scan.voxels > scan.voxels.mean()), scan.grid), label), "few")
    add_case(folder, wall_phantom, "packed")
    packed = folder / "scans" / "packed_image.nrrd"
    with zipfile.ZipFile(packed.with_suffix(".zip"), "w") as archive:
        archive.write(packed, packed.name)
    packed.unlink()
    assert measure_folder(folder, "--json") == 0
    printed = capsys.readouterr()
    done = json.loads(printed.out.splitlines()[-1])
    assert (done["event"], done["scans"], done["failed"]) == ("done", 1, 0)
    zipped, few, unpaired = done["notes"]
    assert zipped.startswith(f"{folder / 'scans'}: skipped zip files, which may repeat scans beside them (packed_image")
    assert "To measure a zip file, give the file's path in the command." in zipped
    assert "skipped files that are labels (or have few different intensities" in few
    assert "(few_image.nrrd)" in few
    what = f"{folder / 'labels'}: skipped segmentations that belong to no scan in {folder / 'scans'}"
    assert unpaired.startswith(f"{what} (few_label.nii.gz, packed_label.nii.gz).")
    assert printed.err.splitlines() == [f"dcamt: {note}" for note in done["notes"]]


def test_note_names_a_segmentation_with_an_unknown_word_in_its_name(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], capsys: pytest.CaptureFixture[str]
) -> None:
    add_case(folder, wall_phantom, "b")
    for name in "ab":
        (folder / "labels" / f"{name}_label.nii.gz").rename(folder / "labels" / f"{name}_JS.nii.gz")
    assert measure_folder(folder) == 0
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith("dcamt: a_image is paired with a_JS.nii.gz, but the meaning of 'JS' is unknown")


@pytest.mark.parametrize("has_segmentation", [True, False])
def test_mask_beside_scans_of_other_names_is_skipped(
    folder: Path,
    wall_phantom: tuple[Volume, Labelmap],
    capsys: pytest.CaptureFixture[str],
    has_segmentation: bool,
) -> None:
    scan, label = wall_phantom
    mask = Volume(np.uint8(scan.voxels > scan.voxels.mean()), scan.grid)
    add_case(folder, (mask, label), "few")
    add_case(folder, wall_phantom, "c")
    (folder / "scans" / "few_image.nrrd").rename(folder / "scans" / "vorhof.nrrd")
    segmentation = folder / "labels" / "few_label.nii.gz"
    if has_segmentation:
        segmentation.rename(folder / "labels" / "vorhof.nii.gz")
    else:
        segmentation.unlink()
    assert measure_folder(folder, "--json") == 0
    printed = capsys.readouterr()
    *_, done = map(json.loads, printed.out.splitlines())
    (note,) = done["notes"]
    assert (done["scans"], done["failed"]) == (2, 0)
    what = "is skipped, since it has only 2 different intensities, like a label"
    remedy = "If it is a scan, give its path in place of the folder's."
    assert note == f"{folder / 'scans' / 'vorhof.nrrd'}: {what}. {remedy}"
    assert printed.err == f"dcamt: {note}\n"
    assert {row["scan"] for row in read_table(folder / "out" / "wall.csv")} == {"a_image", "c_image"}


def test_row_of_a_mask_is_removed_if_the_walls_are_measured_again(
    folder: Path, wall_phantom: tuple[Volume, Labelmap]
) -> None:
    scan, _ = wall_phantom
    add_case(folder, wall_phantom, "c")
    add_case(folder, wall_phantom, "q")
    mask = (folder / "scans" / "q_image.nrrd").rename(folder / "scans" / "q.nrrd")
    assert measure_folder(folder) == 0
    write_volume(Volume(np.uint8(scan.voxels > scan.voxels.mean()), scan.grid), mask)
    assert measure_folder(folder, "--overwrite") == 0
    assert {row["scan"] for row in read_table(folder / "out" / "wall.csv")} == {"a_image", "c_image"}


def test_folder_that_holds_only_masks_is_a_failure_of_wall(
    wall_phantom: tuple[Volume, Labelmap], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, label = wall_phantom
    for name in "ab":
        add_case(tmp_path, (Volume(np.uint8(scan.voxels > scan.voxels.mean()), scan.grid), label), name)
    assert measure_folder(tmp_path) == 1
    *notes, failure = capsys.readouterr().err.splitlines()
    assert [": is skipped" in note for note in notes] == [True, True]
    assert failure.startswith(f"dcamt: {tmp_path / 'scans'}: holds no scan")


def test_segmentation_and_output_folders_are_not_called_skipped(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, labels = folder / "scans", folder / "scans" / "work" / "labels"
    labels.parent.mkdir()
    (folder / "labels").rename(labels)
    (scans / "other").mkdir()
    for options in ([], ["--overwrite"]):
        assert call_dcamt(["wall", scans, labels, "-o", scans / "out", *options]) == 0
        printed = capsys.readouterr().err
        assert printed.startswith(f"dcamt: {scans}: skipped folders beside the scans (other).")
        assert printed.count("\n") == 1
    (labels / Path(LABEL).name).rename(scans / Path(LABEL).name)
    (scans / "other").rmdir()
    labels.rmdir()
    labels.parent.rmdir()
    assert call_dcamt(["wall", scans, scans, "-o", scans / "out", "--overwrite"]) == 0
    assert capsys.readouterr().err == ""


def test_error_for_a_missing_segmentation_contains_similar_file_names(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(wall_phantom[0], folder / "scans" / "z_image.nrrd")
    for name in ("z_v1", "z_v2"):
        write_labelmap(wall_phantom[1], folder / "labels" / f"{name}.nii.gz")
    message = (
        f"{folder / 'scans' / 'z_image.nrrd'}: has no segmentation in {folder / 'labels'}, but files with similar names"
        " are there: z_v1.nii.gz, z_v2.nii.gz. If one of these files is the scan's segmentation, rename it to z_seg and"
        " keep its ending, for example .nii.gz."
    )
    assert measure_folder(folder) == 1
    assert message in capsys.readouterr().err
    assert (folder / "out" / "a_image.wall.csv").exists()
    (folder / SCAN).unlink()  # the only scan with a segmentation
    assert measure_folder(folder, "--overwrite") == 1
    assert message in capsys.readouterr().err


def test_segmentation_that_may_belong_to_two_scans_is_refused(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(wall_phantom[0], folder / "scans" / "a.nrrd")
    assert measure_folder(folder) == 1
    assert f"{folder / LABEL}: may belong to any one of these scans: a, a_image. Name" in capsys.readouterr().err
    assert not (folder / "out").exists()
    (folder / LABEL).rename(folder / "labels" / "a_image.nii.gz")
    assert measure_folder(folder) == 1
    assert f"{folder / 'scans' / 'a.nrrd'}: has no segmentation in {folder / 'labels'}." in capsys.readouterr().err
    assert {row["scan"] for row in read_table(folder / "out" / "wall.csv")} == {"a_image"}


def test_segmentation_renamed_as_the_error_suggests_is_found(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(wall_phantom[0], folder / "scans" / "a.nrrd")
    (folder / LABEL).rename(folder / "labels" / "a_image.nii.gz")
    other = folder / "labels" / "a_v1.nii.gz"
    write_labelmap(wall_phantom[1], other)
    assert measure_folder(folder) == 1
    assert "rename it to a_seg and keep its ending, for example .nii.gz." in capsys.readouterr().err
    other.rename(folder / "labels" / "a_seg.nii.gz")
    assert measure_folder(folder, "--overwrite") == 0, capsys.readouterr().err


def test_similar_names_are_searched_once_if_all_segmentations_are_missing(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search for each scan would be slow for thousands of scans."""
    searched: list[str] = []

    def search(case: str, *_: object) -> list[str]:
        searched.append(case)
        return []

    monkeypatch.setattr(wall_command, "similar_labels", search)
    write_volume(wall_phantom[0], folder / "scans" / "z_image.nrrd")
    (folder / LABEL).rename(folder / "labels" / "other_label.nii.gz")
    assert measure_folder(folder) == 1
    assert searched == ["a"]


def test_table_keeps_the_rows_of_a_scan_whose_segmentation_was_deleted(
    folder: Path, wall_phantom: tuple[Volume, Labelmap]
) -> None:
    add_case(folder, wall_phantom, "b")
    assert measure_folder(folder) == 0
    before = read_table(folder / "out" / "wall.csv")
    (folder / "labels" / "b_label.nii.gz").unlink()
    assert measure_folder(folder, "--overwrite") == 1
    rows = read_table(folder / "out" / "wall.csv")
    assert sorted(row["scan"] for row in rows) == sorted(row["scan"] for row in before)


def test_folder_of_scans_without_segmentations_is_refused(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / LABEL).rename(folder / "labels" / "b.nii.gz")
    assert measure_folder(folder) == 1
    assert "a_image.nrrd: has no segmentation in" in capsys.readouterr().err
    assert not (folder / "out").exists()
    assert call_dcamt(["wall", folder / "scans", folder / LABEL, "-o", folder / "out"]) == 2


@pytest.mark.parametrize("option", [("--openings", LABEL), ("--surface", "all.stl"), ("--report", "all.html")])
def test_option_for_one_scan_is_refused_for_a_folder_of_scans(
    option: tuple[str, str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure_folder(folder, option[0], folder / option[1]) == 2
    assert f"{option[0]} is for one scan, but {folder / 'scans'} is a folder of scans" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_command_segment_with_option_wall_gives_the_numbers_of_the_command_wall(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dcamt.api.segmentation import Segmenter

    label = folder / LABEL
    outlined = read_labelmap(label)
    segment = Segmenter.segment

    def outline(self: Segmenter, *arguments: object, **more: object) -> object:
        return replace(segment(self, *arguments, **more), labelmap=outlined)  # type: ignore[arg-type]

    monkeypatch.setattr(Segmenter, "segment", outline)
    model = save_tiny_model(folder / "tiny.dcamt", tiny_recipe())
    scan, out = folder / SCAN, folder / "out"
    arguments = ["segment", scan, "-o", out, "--model", model, "--device", "cpu", "--wall", "--json"]
    assert call_dcamt(arguments) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"] == ["segmented", "wall", "done"]
    assert call_dcamt(["wall", scan, label, "-o", folder / "other"]) == 0
    assert read_table(out / "a_image.wall.csv") == read_table(folder / "other" / "a_image.wall.csv")
    assert (out / "a_image.wall.vtp").exists()
    capsys.readouterr()
    assert call_dcamt([*arguments[:-1], "--overwrite"]) == 0
    printed = capsys.readouterr().out
    assert "method IIR > 1.2" in printed
    assert printed.count(METHODS_DISAGREE) == 1


def test_scans_whose_wall_cannot_be_measured_count_as_segmented(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The result of an untrained network consists of fragments that are too small for a blood pool.
    model = save_tiny_model(folder / "tiny.dcamt", tiny_recipe())
    scan, out = folder / SCAN, folder / "out"
    copy = folder / "copy.nrrd"
    copy.write_bytes(scan.read_bytes())
    arguments = ["segment", scan, copy, "-o", out, "--model", model, "--device", "cpu", "--quality", "fast", "--wall"]
    assert call_dcamt(arguments) == 1
    printed = capsys.readouterr()
    assert "2 of 2 scans segmented" in printed.out
    assert "a_image" in printed.err
    assert sorted(path.name for path in out.iterdir()) == ["a_image.seg.nrrd", "copy.seg.nrrd"]
    assert call_dcamt([*arguments, "--skip-existing"]) == 0
    assert "the wall is not measured in 2 of 2 skipped scans; measure it with 'dcamt wall'" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["series", "patient/study/series"])
def test_dicom_folder_is_one_scan_and_gets_no_table_of_all_scans(
    folder: Path, wall_phantom: tuple[Volume, Labelmap], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """DICOM exports have folders for the patient, the study and the series."""
    make_files(folder, f"{place}/IM1")
    monkeypatch.setattr("dcamt.commands.wall.read_scan", lambda path: wall_phantom[0])
    name = place.partition("/")[0]
    assert call_dcamt(["wall", folder / name, folder / LABEL, "-o", folder / "out"]) == 0
    assert sorted(path.name for path in (folder / "out").iterdir()) == [f"{name}.wall.csv", f"{name}.wall.vtp"]
