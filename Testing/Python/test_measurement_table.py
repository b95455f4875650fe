"""The table of measurements of `dcamt segment` keeps its earlier rows and is completed by later commands."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

import nrrd
import numpy as np
import pytest
from dcamt.commands import measurement_table
from dcamt.errors import write_error
from dcamt.io.readers import read_labelmap
from dcamt.volume import Labelmap
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import NOISE_GRID, read_table, save_noise_scan


def measured_scans(table: Path) -> list[str]:
    return [row["scan"] for row in read_table(table)]


def test_skip_existing_adds_segmented_scans_to_the_table(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [save_noise_scan(tmp_path / f"s{number}.nrrd", number) for number in range(4)]
    out, table = tmp_path / "out", tmp_path / "m.csv"
    segment = ["segment", *scans, "-o", out, "--model", noise_model, "--measurements", table]
    # A killed command leaves segmentations, but no table.
    assert call_dcamt([*segment[:3], *segment[5:-2]]) == 0  # s0 and s1, without a table
    assert call_dcamt([*segment, "--skip-existing"]) == 0
    message = f"{table}: scans added from existing segmentations: 2. Their expected overlap is unknown."
    assert message in capsys.readouterr().err
    rows = read_table(table)
    assert [row["scan"] for row in rows] == ["s0", "s1", "s2", "s3"]
    whole = tmp_path / "whole.csv"
    assert call_dcamt(["segment", *scans, "-o", tmp_path / "again", *segment[-4:-1], whole]) == 0
    columns = ("segment", "volume_ml", "surface_cm2", "long_diameter_mm", "sphericity")
    assert [[row[key] for key in columns] for row in rows] == [
        [row[key] for key in columns] for row in read_table(whole)
    ]

    (out / "s2.seg.nrrd").unlink()
    assert call_dcamt([*segment, "--skip-existing"]) == 0
    assert sorted(measured_scans(table)) == ["s0", "s1", "s2", "s3"]


def test_table_of_an_earlier_version_gets_the_new_columns_and_keeps_its_rows(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [save_noise_scan(tmp_path / f"s{number}.nrrd", number) for number in range(2)]
    out, table = tmp_path / "out", tmp_path / "m.csv"
    options = ["--model", noise_model, "--measurements", table]
    assert call_dcamt(["segment", scans[0], "-o", out, *options]) == 0
    (complete,) = read_table(table)
    table.write_text(f"scan,segment,volume_ml\ns0,{complete['segment']},{complete['volume_ml']}\n", encoding="utf-8")
    os.utime(out / "s0.seg.nrrd", (time.time() + 10,) * 2)
    capsys.readouterr()
    assert call_dcamt(["segment", *scans, "-o", out, *options, "--skip-existing"]) == 0
    assert "out-of-date" not in capsys.readouterr().err
    earlier, new = read_table(table)
    assert earlier == {**dict.fromkeys(complete, ""), **{key: complete[key] for key in list(complete)[:3]}}
    assert (new["scan"], new["sphericity"] != "") == ("s1", True)

    # A new row with the same volume replaces the row of the earlier version.
    assert call_dcamt(["segment", scans[0], "-o", tmp_path / "again", *options, "--skip-existing"]) == 0
    assert read_table(table) == [new, complete]


def test_rows_measured_before_an_interruption_are_written(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = [save_noise_scan(tmp_path / f"s{number}.nrrd", number) for number in range(3)]
    out, table = tmp_path / "out", tmp_path / "m.csv"
    segment = ["segment", *scans, "-o", out, "--model", noise_model]
    assert call_dcamt(segment) == 0

    def fail_at_third_segmentation(path: Path) -> Labelmap:
        if path.name == "s2.seg.nrrd":
            raise KeyboardInterrupt
        return read_labelmap(path)

    monkeypatch.setattr(measurement_table, "read_labelmap", fail_at_third_segmentation)
    assert call_dcamt([*segment, "--measurements", table, "--skip-existing"]) == 1
    assert measured_scans(table) == ["s0", "s1"]


def test_segmentation_replaced_by_a_command_without_table_is_measured_again(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [save_noise_scan(tmp_path / f"s{number}.nrrd", number) for number in range(2)]
    out, table = tmp_path / "out", tmp_path / "m.csv"
    folder = ["segment", *scans, "-o", out, "--model", noise_model, "--measurements", table]
    assert call_dcamt(folder) == 0
    earlier = read_table(table)
    region = [f"--roi=-1000,1000,-1000,1000,-1000,{NOISE_GRID.affine[2, 3] + 10}"]
    assert call_dcamt(["segment", scans[1], "-o", out, "--model", noise_model, *region, "--overwrite"]) == 0
    # Make the files of `s0` and `s1` clearly newer than the table, even if the file system rounds times to seconds.
    # Only `s1` was replaced, so the row of `s0` must stay.
    os.utime(out / "s1.seg.nrrd", (time.time() + 10,) * 2)
    os.utime(out / "s0.seg.nrrd", (time.time() + 10,) * 2)
    capsys.readouterr()
    assert call_dcamt([*folder, "--skip-existing"]) == 0
    assert f"{table}: has out-of-date rows of s1, since" in capsys.readouterr().err
    rows = {row["scan"]: row for row in read_table(table)}
    assert rows["s0"] == earlier[0]
    voxels, header = nrrd.read(str(out / "s1.seg.nrrd"))
    volume_ml = (voxels == 1).sum() * abs(np.linalg.det(header["space directions"][-3:])) / 1000
    assert float(rows["s1"]["volume_ml"]) == pytest.approx(volume_ml, rel=1e-4)
    assert float(earlier[1]["volume_ml"]) > 1.2 * volume_ml


def test_rows_of_a_corrected_scan_stay_if_another_folder_has_a_scan_of_the_same_name(
    noise_model: Path, tmp_path: Path
) -> None:
    table, commands = tmp_path / "m.csv", []
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        scan = save_noise_scan(tmp_path / folder / "p1.nrrd", number)
        out = tmp_path / f"out {folder}"
        commands.append(["segment", scan, "-o", out, "--model", noise_model, "--measurements", table])
        assert call_dcamt([*commands[-1], "--skip-existing"]) == 0
    before = read_table(table)
    assert measured_scans(table) == ["p1", "p1"]
    corrected = tmp_path / "out a" / "p1.seg.nrrd"
    corrected.write_bytes(corrected.read_bytes().replace(b"DCAMT:=", b"Other:="))
    assert call_dcamt([*commands[0], "--skip-existing"]) == 0
    assert read_table(table) == before


def test_corrected_segmentation_of_a_skipped_scan_is_not_measured(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A corrected segmentation's segments may differ from the model's classes."""
    scans = [save_noise_scan(tmp_path / f"s{number}.nrrd", number) for number in range(2)]
    out, table = tmp_path / "out", tmp_path / "m.csv"
    segment = ["segment", *scans, "-o", out, "--model", noise_model]
    assert call_dcamt(segment) == 0
    corrected = out / "s1.seg.nrrd"
    before = corrected.read_bytes().replace(b"DCAMT:=", b"Other:=")
    corrected.write_bytes(before)
    assert call_dcamt([*segment, "--measurements", table, "--skip-existing"]) == 0
    assert measured_scans(table) == ["s0"]
    assert "scans added from existing segmentations: 1." in capsys.readouterr().err
    assert corrected.read_bytes() == before


def test_rows_of_a_segmentation_without_mark_stay_while_they_agree_with_it(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Version 0.1.0 wrote no mark."""
    table, out = tmp_path / "m.csv", tmp_path / "out"
    segment = ["segment", save_noise_scan(tmp_path / "s.nrrd"), "-o", out, "--model", noise_model]
    command = [*segment, "--measurements", table, "--skip-existing"]
    assert call_dcamt(command) == 0
    before, result = read_table(table), out / "s.seg.nrrd"
    result.write_bytes(result.read_bytes().replace(b"DCAMT:=", b"Other:="))
    for age_s in (-10, 10):  # first, the segmentation is newer than the table; then, it is older
        os.utime(result, (time.time() - age_s,) * 2)
        assert call_dcamt(command) == 0
        assert read_table(table) == before
    printed = capsys.readouterr().err
    assert f"{result}: kept, since this file has no valid mark of DCAMT" in printed
    assert f"{table}: has " not in printed


def test_rows_of_a_corrected_segmentation_are_removed(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [save_noise_scan(tmp_path / f"s{number}.nrrd", number) for number in range(2)]
    table, corrected = tmp_path / "m.csv", tmp_path / "out" / "s1.seg.nrrd"
    segment = ["segment", *scans, "-o", corrected.parent, "--model", noise_model, "--measurements", table]
    assert call_dcamt(segment) == 0
    first_row = read_table(table)[0]
    voxels, header = nrrd.read(str(corrected))
    voxels[:, :, :9] = 0
    nrrd.write(str(corrected), voxels, header)
    for _ in range(2):
        capsys.readouterr()
        assert call_dcamt([*segment, "--skip-existing"]) == 0
        assert read_table(table) == [first_row]
        note = f"{table}: has no rows of s1, since the segmentations have no valid mark of DCAMT"
        assert note in capsys.readouterr().err


def test_table_keeps_rows_of_different_scans_with_the_same_name(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "m.csv"
    for number, patient in enumerate(("a", "b")):
        scan = save_noise_scan(tmp_path / patient / "lge.nrrd", number)
        arguments = ["segment", scan, "-o", tmp_path / f"{patient}.seg.nrrd", "--model", noise_model]
        assert call_dcamt([*arguments, "--measurements", table, "--skip-existing"]) == 0
    assert measured_scans(table) == ["lge", "lge"]
    assert f"{table}: has earlier, different rows of lge. " in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 on this system")
def test_skipped_scan_whose_name_is_not_utf8_has_one_row(noise_model: Path, tmp_path: Path) -> None:
    table, name = tmp_path / "m.csv", "M\udcfcller.nrrd"
    scan = save_noise_scan(tmp_path / "s.nrrd").rename(tmp_path / name)
    for _ in range(2):
        arguments = ["segment", scan, "-o", tmp_path / "out", "--model", noise_model]
        assert call_dcamt([*arguments, "--measurements", table, "--skip-existing"]) == 0
    assert measured_scans(table) == ["M\\udcfcller"]


def test_table_of_another_kind_is_refused_before_any_scan_is_segmented(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "m.csv"
    table.write_text("patient,age\n", encoding="utf-8")
    arguments = ["segment", save_noise_scan(tmp_path / "s.nrrd"), "-o", tmp_path / "out", "--model", noise_model]
    assert call_dcamt([*arguments, "--measurements", table, "--skip-existing"]) == 1
    assert f"{table}: exists already, and is not a table that this command writes. Give" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_failures_of_scans_are_printed_even_if_the_table_cannot_be_written(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(rows: object, path: Path) -> None:
        raise write_error(OSError(errno.ENOSPC, "No space left on device"), path)

    monkeypatch.setattr("dcamt.commands.measurement_table.write_measurements_csv", fail)
    scan, damaged, table = save_noise_scan(tmp_path / "s.nrrd"), tmp_path / "t.nrrd", tmp_path / "m.csv"
    damaged.write_bytes(scan.read_bytes()[:2000])
    arguments = ["segment", scan, damaged, "-o", tmp_path / "out", "--model", noise_model, "--measurements", table]
    assert call_dcamt(arguments) == 1
    printed = capsys.readouterr()
    assert f"{table}: the disk is full" in printed.err
    assert f"{damaged}: " in printed.err
    assert "1 of 2 scans segmented" in printed.out
    assert f"measurements: {table}" not in printed.out


def test_overwriting_prints_the_scans_whose_rows_are_removed(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    scans = [save_noise_scan(tmp_path / f"{name}.nii.gz") for name in "abc"]
    command = ["segment", "-o", tmp_path / "out", "--model", noise_model, "--device", "cpu", "--measurements", table]
    assert call_dcamt([*command, *scans]) == 0
    capsys.readouterr()
    assert call_dcamt([*command, scans[1], "--overwrite"]) == 0
    assert measured_scans(table) == ["b"]
    assert (
        f"{table}: --overwrite removed the rows of scans that this command did not measure (a, c). "
        in capsys.readouterr().err
    )


def test_overwriting_keeps_the_rows_of_a_scan_that_cannot_be_segmented_again(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    scans = [save_noise_scan(tmp_path / f"{name}.nii.gz") for name in "ab"]
    command = ["segment", "-o", tmp_path / "out", "--model", noise_model, "--device", "cpu", "--measurements", table]
    assert call_dcamt([*command, *scans]) == 0
    before = [row for row in read_table(table) if row["scan"] == "b"]
    scans[1].write_bytes(b"damaged")
    assert call_dcamt([*command, *scans, "--overwrite"]) == 1
    rows = read_table(table)
    assert {row["scan"] for row in rows} == {"a", "b"}
    assert [row for row in rows if row["scan"] == "b"] == before
    assert "removed" not in capsys.readouterr().err
    table.write_text(table.read_text(encoding="utf-8").replace(",", ";"), encoding="utf-8")  # As a spreadsheet program.
    assert call_dcamt([*command, *scans, "--overwrite"]) == 1
    assert {row["scan"] for row in read_table(table)} == {"a"}
