"""Test the files that `dcamt segment` reads and writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import nrrd
import numpy as np
import pytest
from dcamt.commands.result_files import file_stamp
from dcamt.commands.scan_jobs import ScanJob
from dcamt.commands.scan_paths import find_scans
from dcamt.commands.segment import jobs_without_result
from dcamt.commands.segment_session import ScanRecord
from dcamt.inference.predictor import Predictor
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.io.writers import write_volume
from dcamt.models.package import open_model
from dcamt_testing.dicom_positions import write_slice
from dcamt_testing.processes import call_dcamt, forget_packages
from dcamt_testing.scan_files import deny_folder
from dcamt_testing.synthetic import NOISE_GRID, noise_scan, read_table, save_noise_scan
from dcamt_testing.warm_python import interpreter

AFFINE, SHAPE = NOISE_GRID.affine, NOISE_GRID.shape
EVERYWHERE = ["--roi", "-1000,1000,-1000,1000,-1000,1000"]


def events(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("form", ["seg.nrrd", "nii.gz", "nrrd"])
def test_result_equals_the_prediction_on_the_grid_of_the_scan(noise_model: Path, tmp_path: Path, form: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    scan = save_noise_scan(tmp_path / "a.b.nii.gz")
    arguments = ["segment", scan, "-o", tmp_path / "out", "--format", form, "--model", noise_model]
    assert call_dcamt(arguments) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"a.b.{form}"]
    image, source = sitk.ReadImage(str(tmp_path / "out" / f"a.b.{form}")), sitk.ReadImage(str(scan))
    assert image.GetSize() == source.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(image, name)() == pytest.approx(getattr(source, name)(), abs=1e-4)
    voxels = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    assert 0 < voxels.sum() < voxels.size
    expected = Predictor(open_model(noise_model)).segment(read_scan(scan)).labelmap.voxels
    np.testing.assert_array_equal(voxels, expected)


def test_events_name_the_agreement_map_and_hold_the_measurements(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, out, table = save_noise_scan(tmp_path / "x.nrrd"), tmp_path / "deep" / "out", tmp_path / "tables" / "m.csv"
    arguments = ["segment", scan, "-o", out, "--model", noise_model, "--agreement", "--measurements", table, "--json"]
    assert call_dcamt(arguments) == 0
    printed_events = events(capsys)
    assert [one["event"] for one in printed_events[-2:]] == ["segmented", "done"]
    assert printed_events[-1] == {"event": "done", "scans": 1, "failed": 0, "notes": []}
    fractions = [one["fraction"] for one in printed_events[:-2]]
    assert {one["event"] for one in printed_events[:-2]} == {"progress"}
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    result = printed_events[-2]
    assert {Path(result["segmentation"]), Path(result["agreement"])} == set(out.iterdir())
    nrrd = pytest.importorskip("nrrd")
    agreement, _ = nrrd.read(result["agreement"])
    assert agreement.shape == SHAPE
    assert agreement.min() >= 0
    assert agreement.max() <= 1 + 1e-6
    assert np.ptp(agreement) > 0
    # The volume of a voxel is 1.5 x 2 x 2.5 mm3 = 7.5e-3 mL.
    count = np.count_nonzero(read_labelmap(result["segmentation"]).voxels)
    (measured,) = result["measurements"]
    assert measured["volume_ml"] == pytest.approx(count * 7.5e-3)
    (row,) = read_table(table)
    assert (row["scan"], row["segment"]) == ("x", "Left atrium")
    assert float(row["volume_ml"]) == pytest.approx(count * 7.5e-3, rel=1e-5)


def test_fast_quality_computes_no_agreement(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = save_noise_scan(tmp_path / "x.nrrd")
    base = ["segment", scan, "--model", noise_model, "--quality", "fast"]
    assert call_dcamt([*base, "-o", tmp_path / "fast.nrrd", "--json"]) == 0
    assert events(capsys)[-2]["trust"] is None
    assert call_dcamt([*base, "-o", tmp_path / "no.nrrd", "--agreement"]) == 2
    assert not (tmp_path / "no.nrrd").exists()


def test_message_lists_the_skipped_dicom_files(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "p1"
    for place in range(8):
        write_slice(home / f"{place}.dcm", place)
    save_noise_scan(home / "x.nrrd")
    assert call_dcamt(["segment", home, "-o", tmp_path / "out", "--model", noise_model]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.seg.nrrd"]
    listed = ", ".join(f"{place}.dcm" for place in range(8))
    assert f"{home}: skipped DICOM images beside scan files of other formats ({listed})." in capsys.readouterr().err


def test_message_names_the_skipped_zip_files(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "scans"
    home.mkdir()
    zipped = save_noise_scan(home / "b.nrrd")
    with zipfile.ZipFile(home / "b.zip", "w") as archive:
        archive.write(zipped, zipped.name)
    zipped.rename(home / "a.nrrd")
    assert call_dcamt(["segment", home, "-o", tmp_path / "out", "--model", noise_model, "--json"]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.seg.nrrd"]
    printed = capsys.readouterr()
    (note,) = json.loads(printed.out.splitlines()[-1])["notes"]
    assert note.startswith(f"{home}: skipped zip files, which may repeat scans beside them (b.zip).")
    assert printed.err == f"dcamt: {note}\n"


def test_region_limits_the_result_and_may_begin_with_a_negative_number(noise_model: Path, tmp_path: Path) -> None:
    scan, out = save_noise_scan(tmp_path / "x.nrrd"), tmp_path / "out.nrrd"
    base = ["segment", scan, "--model", noise_model, "-o", out, "--overwrite"]
    assert call_dcamt([*base, *EVERYWHERE]) == 0
    whole = read_labelmap(out).voxels
    region = "-12,10,-22,2.5,8,40"
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)
    ras = index @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    inside = ((ras >= (-12, -22, 8)) & (ras <= (10, 2.5, 40))).all(axis=-1)
    assert whole[~inside].any()
    for arguments in ([f"--roi={region}"], ["--roi", region], ["--roi", "10,-12,-22,2.5,40,8"]):
        assert call_dcamt([*base, *arguments]) == 0
        limited = read_labelmap(out).voxels
        assert limited.any()
        assert not limited[~inside].any()
        np.testing.assert_array_equal(limited, whole * inside)


def test_other_files_in_a_folder_of_scans_are_skipped(noise_model: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    for name in ("la1_image.nii.gz", "la2.nrrd", "la3_label.nrrd"):
        save_noise_scan(scans / name)
    # Skipped: a label beside its scan, a result, a table and a hidden file.
    save_noise_scan(scans / "la1_label.nii.gz")
    (scans / "la2.seg.nrrd").write_bytes(b"")
    (scans / "cases.csv").write_text("x", encoding="utf-8")
    (scans / "._la2.nrrd").write_bytes(b"x")
    assert call_dcamt(["segment", scans, "-o", tmp_path / "out", "--model", noise_model]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["la1_image.seg.nrrd", "la2.seg.nrrd", "la3_label.seg.nrrd"]


@pytest.fixture
def folder_with_mask(tmp_path: Path) -> Path:
    """Return a folder with the scans `a` and `b`, and the mask `q`, whose name belongs to no scan."""
    folder = tmp_path / "scans"
    scan = noise_scan()
    for number, name in enumerate("ab"):
        save_noise_scan(folder / f"{name}.nrrd", number)
    write_volume(replace(scan, voxels=(scan.voxels > 300).astype(np.float32)), folder / "q.nrrd")
    return folder


def test_mask_that_was_found_in_a_folder_is_skipped_with_a_note(
    noise_model: Path, folder_with_mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = tmp_path / "out", tmp_path / "m.csv"
    mask = folder_with_mask / "q.nrrd"
    arguments = ["segment", folder_with_mask, "-o", out, "--model", noise_model]
    assert call_dcamt([*arguments, "--measurements", table]) == 0
    printed = capsys.readouterr()
    (note,) = printed.err.splitlines()
    what = "is skipped, since it has only 2 different intensities, like a label"
    remedy = "If it is a scan, give its path in place of the folder's."
    assert note == f"dcamt: {mask}: {what}. {remedy}"
    assert printed.out.splitlines()[-1] == "2 of 2 scans segmented"
    assert {path.name for path in out.iterdir()} == {"a.seg.nrrd", "b.seg.nrrd"}
    assert [row["scan"] for row in read_table(table)] == ["a", "b"]
    assert call_dcamt([*arguments, "--overwrite", "--json"]) == 0
    *_, skipped, done = events(capsys)
    assert skipped == {"event": "skipped", "scan": str(mask), "message": note.removeprefix("dcamt: ")}
    assert done == {"event": "done", "scans": 2, "failed": 0, "notes": [skipped["message"]]}


def test_mask_that_is_named_as_a_scan_is_segmented_with_a_warning(
    noise_model: Path, folder_with_mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["segment", folder_with_mask / "q.nrrd", "-o", tmp_path / "out", "--model", noise_model]
    assert call_dcamt(arguments) == 0
    assert "q.nrrd: The scan has only 2 different intensities, like a label." in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["q.seg.nrrd"]


@pytest.mark.parametrize("values", [(-1, 1), (0, 0.5)])
def test_scan_with_two_values_that_are_no_label_values_is_segmented(
    noise_model: Path, folder_with_mask: Path, tmp_path: Path, values: tuple[float, float]
) -> None:
    scan = noise_scan()
    voxels = np.where(scan.voxels > 300, values[1], values[0]).astype(np.float32)
    write_volume(replace(scan, voxels=voxels), folder_with_mask / "q.nrrd")
    assert call_dcamt(["segment", folder_with_mask, "-o", tmp_path / "out", "--model", noise_model]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.seg.nrrd", "b.seg.nrrd", "q.seg.nrrd"}


def test_folder_that_holds_only_masks_is_a_failure(
    noise_model: Path, folder_with_mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    (folder_with_mask / "q.nrrd").rename(masks / "q.nrrd")
    arguments = ["-o", tmp_path / "out", "--model", noise_model, "--json"]
    assert call_dcamt(["segment", folder_with_mask, masks, *arguments]) == 1
    printed = capsys.readouterr()
    note, failure = printed.err.splitlines()
    assert note.startswith(f"dcamt: {masks / 'q.nrrd'}: is skipped")
    assert failure.startswith(f"dcamt: {masks}: holds no scan")
    done = json.loads(printed.out.splitlines()[-1])
    assert (done["scans"], done["failed"]) == (2, 1)


def test_row_of_a_mask_is_removed_if_results_are_replaced(
    noise_model: Path, folder_with_mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An earlier version segmented the masks in a folder."""
    table = tmp_path / "m.csv"
    options = ["-o", tmp_path / "out", "--model", noise_model, "--measurements", table]
    assert call_dcamt(["segment", *(folder_with_mask / f"{name}.nrrd" for name in "abq"), *options]) == 0
    assert [row["scan"] for row in read_table(table)] == ["a", "b", "q"]
    assert call_dcamt(["segment", folder_with_mask, *options, "--overwrite"]) == 0
    assert [row["scan"] for row in read_table(table)] == ["a", "b"]
    assert f"{table}: " in capsys.readouterr().err


@pytest.mark.parametrize("has_result", [True, False])
def test_mask_is_skipped_though_other_results_exist(
    noise_model: Path, folder_with_mask: Path, tmp_path: Path, has_result: bool
) -> None:
    out, table = tmp_path / "out", tmp_path / "m.csv"
    options = ["-o", out, "--model", noise_model, "--quality", "accurate"]
    assert call_dcamt(["segment", folder_with_mask, *options]) == 0
    if has_result:
        assert call_dcamt(["segment", folder_with_mask / "q.nrrd", *options]) == 0
    files = {path.name for path in out.iterdir()}
    (folder_with_mask / "a.nrrd").unlink()
    (folder_with_mask / "b.nrrd").unlink()
    save_noise_scan(folder_with_mask / "c.nrrd", 2)
    again = ["segment", folder_with_mask, *options, "--agreement", "--measurements", table, "--skip-existing"]
    assert call_dcamt(again) == 0
    assert {path.name for path in out.iterdir()} == {*files, "c.seg.nrrd", "c_agreement.nrrd"}
    assert [row["scan"] for row in read_table(table)] == ["c"]


def test_finished_scan_beside_a_mask_is_no_failure(noise_model: Path, folder_with_mask: Path, tmp_path: Path) -> None:
    arguments = ["segment", folder_with_mask, "-o", tmp_path / "out", "--model", noise_model]
    assert call_dcamt(arguments) == 0
    assert call_dcamt([*arguments, "--skip-existing"]) == 0


def test_scans_in_patient_folders_are_segmented_and_evaluated_under_the_folder_names(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out, table = tmp_path / "data", tmp_path / "out", tmp_path / "m.csv"
    for number in range(2):
        (data / f"P{number}").mkdir(parents=True)
        save_noise_scan(data / f"P{number}" / "lgemri.nrrd", number)
    arguments = [data, "-o", out, "--model", noise_model, "--measurements", table]
    assert call_dcamt(["segment", *arguments]) == 0
    assert {path.name for path in out.iterdir()} == {"P0.seg.nrrd", "P1.seg.nrrd"}
    assert {row["scan"] for row in read_table(table)} == {"P0", "P1"}
    for number in range(2):
        shutil.copy(out / f"P{number}.seg.nrrd", data / f"P{number}" / "laendo.nrrd")
    capsys.readouterr()
    assert call_dcamt(["evaluate", "--predictions", out, "--labels", data, "--json"]) == 0
    scores = [one for one in events(capsys) if one["event"] == "score"]
    assert [(one["case"], one["dice"]) for one in scores] == [("P0", 1.0), ("P1", 1.0), ("mean", 1.0), ("std", 0.0)]
    assert call_dcamt(["segment", *arguments[:5], "--skip-existing"]) == 0
    assert "(P0/laendo.nrrd, P1/laendo.nrrd)" in capsys.readouterr().err


def test_failing_scan_does_not_stop_the_others_and_is_reported_at_the_end(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [save_noise_scan(tmp_path / f"s{number}.nii.gz", number) for number in range(3)]
    scans[1].write_text("no image", encoding="utf-8")
    out, table = tmp_path / "out", tmp_path / "m.csv"
    base = ["segment", *scans, tmp_path / "gone.nrrd", "-o", out, "--model", noise_model, "--overwrite"]
    assert call_dcamt([*base, "--measurements", table]) == 1
    printed = capsys.readouterr()
    errors = printed.err.splitlines()
    assert len(errors) == 2
    assert str(scans[1]) in errors[0]
    assert "gone.nrrd" in errors[1]
    assert "2 of 4 scans segmented" in printed.out
    assert sorted(path.name for path in out.iterdir()) == ["s0.seg.nrrd", "s2.seg.nrrd"]
    assert [row["scan"] for row in read_table(table)] == ["s0", "s2"]
    assert call_dcamt([*base, "--json"]) == 1
    printed_events = events(capsys)
    assert [one["scan"] for one in printed_events if one["event"] == "failed"] == [
        str(scans[1]),
        str(tmp_path / "gone.nrrd"),
    ]
    assert printed_events[-1] == {"event": "done", "scans": 4, "failed": 2, "notes": []}


@pytest.mark.parametrize("name", ["", "p1_0000.nii.gz"])
def test_scan_without_permission_does_not_stop_the_others(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    other = save_noise_scan(tmp_path / "other.nii.gz")
    deny_folder(locked, monkeypatch)
    assert call_dcamt(["segment", locked / name, other, "-o", tmp_path / "out", "--model", noise_model]) == 1
    printed = capsys.readouterr()
    assert f"{locked / name}: cannot be read (no permission)" in printed.err
    assert "1 of 2 scans segmented" in printed.out


def test_folder_with_an_unreadable_scan_does_not_stop_the_command(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").mkdir()
    locked = save_noise_scan(tmp_path / "locked" / "scan.nii.gz")
    other = save_noise_scan(tmp_path / "other.nii.gz")
    deny_folder(locked.parent, monkeypatch, can_list=True)
    assert call_dcamt(["segment", locked.parent, other, "-o", tmp_path / "out", "--model", noise_model]) == 1
    printed = capsys.readouterr()
    assert f"{locked}: cannot be read (no permission)" in printed.err
    assert "1 of 2 scans segmented" in printed.out


def test_scan_whose_name_is_too_long_does_not_stop_the_others(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_noise_scan(tmp_path / "other.nii.gz")
    assert call_dcamt(["segment", "x" * 300, other, "-o", tmp_path / "out", "--model", noise_model]) == 1
    printed = capsys.readouterr()
    assert f"{'x' * 300}: does not exist" in printed.err
    assert "1 of 2 scans segmented" in printed.out


@pytest.mark.parametrize("name", ["out", "more/out", "out.nii.gz"])
@pytest.mark.parametrize("option", [[], ["--overwrite"], ["--skip-existing"]])
def test_output_in_a_folder_without_permission_is_refused(
    noise_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    option: list[str],
) -> None:
    scan, locked = save_noise_scan(tmp_path / "scan.nii.gz"), tmp_path / "locked"
    locked.mkdir()
    deny_folder(locked, monkeypatch)
    assert call_dcamt(["segment", scan, "-o", locked / name, "--model", noise_model, *option]) == 1
    assert f"cannot be written (no permission for {locked})" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["seg.nrrd", "nii.gz", "nrrd"])
def test_agreement_maps_are_neither_scans_nor_segmentations(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    scans, out, labels, again = (tmp_path / name for name in ("scans", "out", "labels", "again"))
    for number in range(2):
        save_noise_scan(scans / f"la{number}.nrrd", number)
    arguments = ["segment", scans, "--model", noise_model, "--agreement"]
    assert call_dcamt([*arguments, "-o", out, "--format", form]) == 0
    end = "nrrd" if form == "seg.nrrd" else form
    expected = {f"la{n}.{form}" for n in range(2)} | {f"la{n}_agreement.{end}" for n in range(2)}
    assert {path.name for path in out.iterdir()} == expected
    capsys.readouterr()
    # The folder is compared with its copy, so that agreement maps lie beside both predictions and labels.
    shutil.copytree(out, labels)
    assert call_dcamt(["evaluate", "--predictions", out, "--labels", labels, "--json"]) == 0
    scores = [one for one in events(capsys) if one["event"] == "score"]
    assert [(one["case"], one["dice"]) for one in scores] == [("la0", 1.0), ("la1", 1.0), ("mean", 1.0), ("std", 0.0)]
    if form == "seg.nrrd":  # results beside the scans are not taken for scans
        for path in out.iterdir():
            path.rename(scans / path.name)
        assert call_dcamt([*arguments, "-o", again]) == 0
        assert {path.name for path in again.iterdir()} == expected


def test_file_named_like_an_agreement_map_is_taken_for_a_scan_if_its_segmentation_is_missing(tmp_path: Path) -> None:
    for name in ("x_agreement.nrrd", "y.nrrd", "z.seg.nrrd", "z_agreement.nrrd"):
        (tmp_path / name).touch()
    assert [path.name for path in find_scans(tmp_path).scans] == ["x_agreement.nrrd", "y.nrrd"]


def test_commands_that_compute_nothing_import_no_heavy_package(tmp_path: Path) -> None:
    commands = (
        *("--help", "--version", "models list", "segment --help", "train --help", "evaluate --help", "models --help"),
        *("models import --help", "segment gone.nii -o x"),
    )
    script = (
        "import sys; from dcamt import cli\n"
        "for command in sys.argv[1:]:\n"
        "    try: code = cli.main(command.split())\n"
        "    except SystemExit as end: code = end.code\n"
        "    heavy = {'torch', 'scipy', 'SimpleITK', 'nibabel', 'nrrd', 'slicerio', 'matplotlib'} & set(sys.modules)\n"
        "    print('loaded', sorted(heavy), code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *commands],
        capture_output=True,
        text=True,
        env=os.environ | {"DCAMT_HOME": str(tmp_path)},
        check=True,
        encoding="utf-8",
    )
    loaded = [line for line in done.stdout.splitlines() if line.startswith("loaded")]
    assert loaded == [*["loaded [] 0"] * (len(commands) - 1), "loaded [] 1"]
    for command in commands:
        if command.endswith(" --help"):
            assert f"example:\n  dcamt {command.removesuffix(' --help')}" in done.stdout


def test_nifti_scan_is_segmented_to_nrrd_without_simpleitk(noise_model: Path, tmp_path: Path) -> None:
    scan = save_noise_scan(tmp_path / "x.nii.gz")
    unused = ("SimpleITK", "matplotlib", "pandas", "skimage")
    script = (
        f"{forget_packages(*unused)}from dcamt import cli; code = cli.main(sys.argv[1:])\n"
        f"print(code, {set(unused)} & set(sys.modules))"
    )
    arguments = ["segment", scan, "-o", tmp_path / "x.seg.nrrd", "--model", noise_model, "--json"]
    done = subprocess.run(
        [interpreter(), "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stdout.splitlines()[-1] == "0 set()"
    assert done.stderr == ""


def test_new_or_changed_file_is_a_result_even_if_its_time_stamp_is_before_the_commands_start(tmp_path: Path) -> None:
    """A file system may round a new file's time stamp down to before the command's start."""
    names = ("new", "replaced", "earlier", "missing", "recorded")
    jobs = [ScanJob(tmp_path / f"{name}.nii.gz", name, tmp_path / f"{name}.seg.nrrd") for name in names]
    for job in jobs[1:3]:
        job.segmentation.write_bytes(b"earlier")
    stamps = {job.segmentation: file_stamp(job.segmentation) for job in jobs}
    for job in jobs[:2]:
        job.segmentation.write_bytes(b"written now")
        hour = time.time() // 3600 * 3600
        os.utime(job.segmentation, (hour, hour))
    missing = jobs_without_result(jobs, [ScanRecord(4)], stamps)
    assert [job.scan.name for job in missing] == ["earlier.nii.gz", "missing.nii.gz"]


@pytest.mark.parametrize("form", ["seg.nrrd", "nii.gz", "nrrd"])
@pytest.mark.parametrize("is_larger", [False, True])
def test_skip_existing_refuses_the_result_of_another_scan_of_the_same_name(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, is_larger: bool
) -> None:
    sitk = pytest.importorskip("SimpleITK")
    first, second = save_noise_scan(tmp_path / "P1" / "lge.nii.gz"), tmp_path / "P2" / "lge.nii.gz"
    image = sitk.ReadImage(str(first))
    if is_larger:
        image = sitk.ConstantPad(image, [0, 0, 0], [1, 0, 0], 1.0)
    else:
        image.SetOrigin([mm + 5 for mm in image.GetOrigin()])
    second.parent.mkdir()
    sitk.WriteImage(image, str(second))
    result = tmp_path / "out" / f"lge.{form}"
    arguments = ["-o", result.parent, "--format", form, "--model", noise_model, "--skip-existing"]
    assert call_dcamt(["segment", first, *arguments]) == 0
    before = result.read_bytes()
    for option in ([], ["--agreement"]):
        capsys.readouterr()
        assert call_dcamt(["segment", second, *arguments, *option]) == 1
        message = f"{result}: exists already, but lies on a different grid from {second}"
        assert message in capsys.readouterr().err
        assert result.read_bytes() == before
    assert call_dcamt(["segment", first, *arguments]) == 0


def test_skip_existing_keeps_a_correction_that_slicer_cropped(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the agreement map, which does not show the correction."""
    scan, result = save_noise_scan(tmp_path / "s.nii.gz"), tmp_path / "out" / "s.seg.nrrd"
    arguments = ["segment", scan, "-o", result.parent, "--model", noise_model, "--agreement", "--skip-existing"]
    assert call_dcamt(arguments) == 0
    voxels, header = nrrd.read(str(result))
    del header["DCAMT"]
    header["space origin"] += header["space directions"][2] * 4
    nrrd.write(str(result), voxels[:, :, 4:], header)
    saved = result.stat().st_mtime + 3600
    os.utime(result, (saved, saved))
    before = result.read_bytes()
    assert call_dcamt(arguments) == 0
    message = "kept results that are older than the segmentation and may be outdated: s_agreement.nrrd. "
    assert message in capsys.readouterr().err
    assert result.read_bytes() == before
