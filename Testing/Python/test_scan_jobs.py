"""The output files of each scan are planned and named; existing files are not replaced without --overwrite."""

from __future__ import annotations

import errno
import itertools
import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import SimpleITK
from dcamt.cases.case_names import with_folders
from dcamt.commands.options import UsageError
from dcamt.commands.result_files import OVERWRITE, REFUSE, SKIP, check_result_paths, foreign_files, refuse_existing
from dcamt.commands.scan_jobs import RequestedResults, ScanJob, plan_scan_jobs
from dcamt.commands.scan_paths import find_scans
from dcamt.errors import InputError, OutputError
from dcamt.io.writers import is_dcamt_result
from dcamt_testing.case_folders import make_files, write_dcamt_result
from dcamt_testing.dicom_positions import write_slice
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import save_noise_scan


def plan_jobs(scans: list[Path], output: Path, existing: str = REFUSE, **requested: object) -> list[ScanJob]:
    results = RequestedResults(**requested)  # type: ignore[arg-type]
    jobs = plan_scan_jobs([find_scans(scan) for scan in scans], output, None, results, existing)
    return [job for job in jobs if existing != SKIP or not job.is_finished]


def test_scan_given_twice_is_refused(tmp_path: Path) -> None:
    make_files(tmp_path, "p1/lgemri.nrrd", "p2/lgemri.nrrd")
    with pytest.raises(InputError, match=r"p2/lgemri\.nrrd: is given twice"):
        plan_jobs([tmp_path, tmp_path / "p2"], tmp_path / "out")


def test_results_of_scans_in_patient_folders_are_named_after_the_folders(tmp_path: Path) -> None:
    data = make_files(tmp_path / "data", "P1/lgemri.nrrd", "P2/lgemri.nrrd")
    jobs = plan_jobs([data], tmp_path / "out", wall=True)
    assert [path.name for path in jobs[1].files] == ["P2.seg.nrrd", "P2.wall.vtp", "P2.wall.csv"]


def test_results_of_scans_with_the_same_name_in_two_folders_are_named_after_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patient in ("P1", "P2"):
        make_files(tmp_path / patient, "lgemri.nrrd", "p1.nii", "dicom/1.dcm")
    monkeypatch.chdir(tmp_path)
    names = ("P1/lgemri.nrrd", "P2/lgemri.nrrd", "P1/p1.nii", "P1/dicom", "P2/dicom")
    jobs = plan_jobs([Path(name) for name in names], Path("out"))
    assert [job.segmentation.name for job in jobs] == [
        f"{name}.seg.nrrd" for name in ("P1_lgemri", "P2_lgemri", "p1", "P1_dicom", "P2_dicom")
    ]


@pytest.mark.parametrize(
    ("option", "file", "advised"),
    [
        ("surface", "a.ply", "--surface ply"),
        ("probabilities", "x.NRRD", "--probabilities nrrd"),
        ("probabilities", "x.nii.gz", "--probabilities nii.gz"),
        ("report", "r.htm", "--report htm"),
    ],
)
def test_one_output_file_for_several_scans_is_refused(tmp_path: Path, option: str, file: str, advised: str) -> None:
    make_files(tmp_path, "p1.nrrd", "p2.nrrd")
    with pytest.raises(
        UsageError, match=f"{file} is one file, but there are 2 scans: give only the ending .{advised}. to"
    ):
        plan_jobs([tmp_path], tmp_path / "out", **{option: file})


def test_scans_x_nrrd_and_x_nii_of_one_folder_are_refused(tmp_path: Path) -> None:
    make_files(tmp_path, "x.nrrd", "x.nii")
    with pytest.raises(InputError, match=r"x\.nrrd: would get the same result file as .*x\.nii "):
        plan_jobs([tmp_path], tmp_path / "out")


def test_each_input_path_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.nrrd" for number in range(20)]
    make_files(tmp_path / "scans", *names)
    resolve, resolved = Path.resolve, list[str]()

    def count(path: Path, strict: bool = False) -> Path:
        resolved.append(path.name)
        return resolve(path, strict)

    monkeypatch.setattr(Path, "resolve", count)
    assert len(plan_jobs([tmp_path / "scans"], tmp_path / "out")) == 20
    assert [resolved.count(name) for name in names] == [1] * 20


def test_result_is_refused_if_its_path_leads_to_a_scan(tmp_path: Path) -> None:
    scan = make_files(tmp_path / "scans", "7.nrrd") / "7.nrrd"
    (tmp_path / "out").mkdir()
    os.link(scan, tmp_path / "out" / "linked.nrrd")
    for path in (tmp_path / "scans" / ".." / "scans" / "7.nrrd", tmp_path / "out" / "linked.nrrd"):
        with pytest.raises(InputError, match=r"7\.nrrd: would be replaced"):
            check_result_paths([tmp_path / "out" / "a.nrrd", path], [scan])


def test_result_is_refused_if_it_would_replace_a_slice_or_another_channel_of_a_scan(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for number in range(3):
        write_slice(tmp_path / "series" / f"IM{number}.dcm", number)
    channels = make_files(tmp_path / "scans", "x_0000.nrrd", "x_0001.nrrd")
    (tmp_path / "link").symlink_to(tmp_path / "series")
    for scan, path in (
        (tmp_path / "series", tmp_path / "series" / "IM1.dcm"),
        (tmp_path / "link", tmp_path / "series" / "IM1.dcm"),
        (tmp_path / "series", tmp_path / "link" / "IM1.dcm"),
        (channels / "x_0000.nrrd", channels / "x_0001.nrrd"),
    ):
        with pytest.raises(InputError, match=rf"{path.name}: would be replaced"):
            check_result_paths([path], [scan])
    # In the folder of the slices, an earlier result may be replaced and a new file written.
    (tmp_path / "series" / "series.seg.nrrd").touch()
    check_result_paths(
        [tmp_path / "series" / "series.seg.nrrd", tmp_path / "series" / "new.dcm"], [tmp_path / "series"]
    )


def test_table_of_measurements_never_replaces_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = make_files(tmp_path, "scan.nrrd", "own.dcamt") / "scan.nrrd"
    model = tmp_path / "own.dcamt"
    table = ["--measurements", model, "--overwrite"]
    assert call_dcamt(["segment", scan, "-o", tmp_path / "out", "--model", model, *table]) == 1
    assert f"{model}: would be replaced by a result." in capsys.readouterr().err


def test_two_results_in_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    check_result_paths([tmp_path / "a.stl", tmp_path / "out" / "a.stl"], [])
    with pytest.raises(InputError, match=r"a\.stl: two results would be written to this file"):
        check_result_paths([tmp_path / "a.stl", tmp_path / "out" / ".." / "a.stl"], [])


def test_paths_that_differ_only_in_capitals_are_one_path_where_the_file_system_ignores_capitals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ignored, expected in ((False, nullcontext()), (True, pytest.raises(InputError, match="results"))):
        monkeypatch.setattr("dcamt.commands.result_files._ignores_capitals", lambda folder, ignored=ignored: ignored)
        for paths in (("A.stl", "a.stl"), ("A", "a/b.stl"), ("a/b.stl", "A"), ("x/A/b.stl", "X/a")):
            with expected:
                check_result_paths([tmp_path / path for path in paths], [])


@pytest.mark.parametrize(
    ("system", "first", "second", "is_refused"),
    [
        ("linux", "MÜLLER", "Müller", True),
        ("linux", "Groß", "Gross", False),
        ("linux", "Kılıç", "Kiliç", False),
        ("darwin", "Groß", "Gross", True),
    ],
)
def test_names_are_compared_with_the_capital_rules_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, first: str, second: str, is_refused: bool
) -> None:
    folder = tmp_path / "Straße"
    folder.mkdir()
    if not (tmp_path / "sTRAßE").exists():
        (tmp_path / "sTRAßE").symlink_to(folder)  # imitates a file system that ignores capitals
    monkeypatch.setattr("sys.platform", system)
    with pytest.raises(InputError, match="two results") if is_refused else nullcontext():
        check_result_paths([folder / f"{name}.stl" for name in (first, second)], [])


def test_one_path_for_table_and_results_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, out = save_noise_scan(tmp_path / "scan.nrrd"), tmp_path / "out"
    assert call_dcamt(["segment", scan, "-o", out, "--measurements", out]) == 1
    assert f"{out}: would be both a file and a folder of results" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(InputError, match=r"a: would be both a file and a folder of results"):
        check_result_paths([tmp_path / "a" / "b.stl", tmp_path / "a"], [])
    check_result_paths([tmp_path / "a" / "b.stl", tmp_path / "a.csv"], [])


def test_missing_drive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()

    def find_nothing(path: str, **_: object) -> NoReturn:
        assert next(calls) < 1000, "the search for an existing folder does not end"
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    what = re.escape(f"the drive or network share {tmp_path.anchor} was not found. Connect it")
    with monkeypatch.context() as patch:
        for name in ("stat", "lstat"):
            patch.setattr(os, name, find_nothing)
        with pytest.raises(OutputError, match=what):
            check_result_paths([tmp_path / "a.stl"], [])


def fail_after_checks(*_: object) -> NoReturn:
    raise InputError("the checks passed")


@pytest.mark.parametrize("command", ["cases find", "evaluate", "picture", "rank", "rank to folder", "recipe suggest"])
def test_command_refuses_an_existing_output_without_overwrite(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command checks the output before it opens a scan, so missing or empty scans do not matter here.

    With --overwrite, the command accepts the output and fails for another reason.
    """
    if command.startswith("rank"):  # fail after the check of the output instead of loading the model
        monkeypatch.setattr("dcamt.networks.packaging.verify_model", fail_after_checks)
    make_files(tmp_path, "scan.nrrd", "old.csv", "out/a.seg.nrrd")
    cases, old = tmp_path / "cases.csv", tmp_path / "old.csv"
    cases.write_text("name,image,label,role\na,scan.nrrd,,unlabelled\n", encoding="utf-8")
    gone = tmp_path / "gone"
    arguments, target = {
        "cases find": (["cases", "find", gone, "-o", old], old),
        "evaluate": (["evaluate", "--predictions", gone, "--labels", gone, "--csv", old], old),
        "picture": (["picture", gone, gone, "-o", old], old),
        "rank": (["rank", cases, "--csv", old], old),
        "rank to folder": (["rank", cases, "--segmentations", tmp_path / "out"], tmp_path / "out" / "a.seg.nrrd"),
        "recipe suggest": (["recipe", "suggest", cases, "-o", old], old),
    }[command]
    assert call_dcamt(arguments) == 1
    assert f"{target}: exists already" in capsys.readouterr().err
    assert target.stat().st_size == 0
    assert call_dcamt([*arguments, "--overwrite"]) == 1
    assert "exists already" not in capsys.readouterr().err


def test_wall_files_are_not_replaced_without_overwrite(tmp_path: Path) -> None:
    scans = make_files(tmp_path / "patients", "p01.nrrd", "p01.wall.csv")
    plan_jobs([scans], scans)
    with pytest.raises(InputError, match=r"p01\.wall\.csv: exists already"):
        plan_jobs([scans], scans, wall=True)
    # The scan is skipped, since its results would replace a table that DCAMT did not write.
    assert plan_jobs([scans], scans, SKIP, wall=True) == []
    (job,) = plan_jobs([scans], scans, OVERWRITE, wall=True)
    assert [path.name for path in job.files] == ["p01.seg.nrrd", "p01.wall.vtp", "p01.wall.csv"]


def test_existing_file_is_not_replaced_without_overwrite(tmp_path: Path) -> None:
    scans = make_files(tmp_path / "patients", "p01.nrrd", "p01.seg.nrrd", "p02.nrrd")
    with pytest.raises(InputError) as caught:
        plan_jobs([scans], scans)
    assert str(caught.value).startswith(f"{scans / 'p01.seg.nrrd'}: exists already, and has no valid mark of DCAMT. ")
    assert "--overwrite" in str(caught.value)
    assert [job.scan.name for job in plan_jobs([scans], scans, OVERWRITE)] == ["p01.nrrd", "p02.nrrd"]
    assert [job.scan.name for job in plan_jobs([scans], tmp_path / "out")] == ["p01.nrrd", "p02.nrrd"]


@pytest.mark.parametrize("name", ["scan.png", "recipe.json", "NAME.calibration.json", "scores.tsv"])
def test_message_does_not_say_who_wrote_a_picture_recipe_calibration_or_table(tmp_path: Path, name: str) -> None:
    """DCAMT writes no mark in such files."""
    make_files(tmp_path, name)
    with pytest.raises(InputError, match=r": exists already\. "):
        refuse_existing([tmp_path / name])


def test_existing_results_of_dcamt_are_refused(tmp_path: Path) -> None:
    scans = make_files(tmp_path / "scans", "a.nrrd")
    write_dcamt_result(tmp_path / "out" / "a.seg.nrrd")
    with pytest.raises(InputError, match=r"a\.seg\.nrrd: exists already\. "):
        plan_jobs([scans], tmp_path / "out")


def test_partly_segmented_folder_is_continued(tmp_path: Path) -> None:
    scans, out = make_files(tmp_path / "scans", "a.nrrd", "b.nrrd", "c.nrrd"), tmp_path / "out"
    write_dcamt_result(out / "a.seg.nrrd")
    make_files(out, "b.seg.nrrd")  # a manual segmentation
    assert [job.scan.name for job in plan_jobs([scans], out, SKIP)] == ["c.nrrd"]
    results = [path for job in plan_jobs([scans], out, OVERWRITE) for path in job.files]
    assert foreign_files(results) == [out / "b.seg.nrrd"]
    # If an agreement map is requested too, the scan a.nrrd lacks one of its results.
    assert [job.scan.name for job in plan_jobs([scans], out, SKIP, agreement=True)] == ["a.nrrd", "c.nrrd"]


def test_link_to_a_missing_file_counts_as_an_existing_file(tmp_path: Path) -> None:
    scans, out = make_files(tmp_path / "scans", "a.nrrd"), tmp_path / "out"
    out.mkdir()
    for name in ("a.seg.nrrd", "m.csv"):
        (out / name).symlink_to(tmp_path / "elsewhere" / name)
    with pytest.raises(InputError, match=r"a\.seg\.nrrd: exists already, and has no valid mark of DCAMT\. "):
        plan_jobs([scans], out)
    with pytest.raises(InputError, match=r"m\.csv: exists already\. "):
        plan_jobs([scans], tmp_path / "new", table=out / "m.csv")
    assert plan_jobs([scans], out, SKIP) == []
    assert len(plan_jobs([scans], out, OVERWRITE)) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows limits the length of a whole path")
@pytest.mark.parametrize(
    ("letter", "length", "requested"),
    [
        ("x", 248, {}),
        ("患", 82, {"agreement": True}),
        ("患", 82, {"probabilities": "nrrd"}),
        ("x", 1, {"table": Path("y" * 252 + ".csv")}),
    ],
)
@pytest.mark.parametrize("folder", [".", "a/b"])
def test_result_whose_name_is_too_long_is_refused_before_the_work(
    tmp_path: Path, letter: str, length: int, requested: dict[str, Any], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"{letter * length}.nrrd"
    scans = make_files(tmp_path / "scans", name)
    with pytest.raises(OutputError, match=r"has a name or path that is too long\. Rename the scan, give"):
        plan_jobs([scans], Path(folder), **requested)
    (scans / name).rename(scans / "x.nrrd")
    assert "table" in requested or plan_jobs([scans], Path(folder), **requested)


def test_existing_table_is_refused_unless_overwriting_or_skipping_was_chosen(tmp_path: Path) -> None:
    scans = make_files(tmp_path / "scans", "a.nrrd")
    table = tmp_path / "m.csv"
    table.write_text("scan,segment,volume_ml\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"m\.csv: exists already\. "):
        plan_jobs([scans], tmp_path / "out", table=table)
    assert len(plan_jobs([scans], tmp_path / "out", OVERWRITE, table=table)) == 1
    assert len(plan_jobs([scans], tmp_path / "out", SKIP, table=table)) == 1


@pytest.mark.parametrize("name", ["x.seg.nrrd", "x.nrrd", "x.nii.gz", "x.nii"])
def test_dcamt_result_is_recognised_until_another_program_saves_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_dcamt_result(path)
    assert is_dcamt_result(path)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((8, 8, 8), np.uint8)), str(path))
    assert not is_dcamt_result(path)
    path.write_bytes(b"cut")
    assert not is_dcamt_result(path)
    assert not is_dcamt_result(tmp_path / "gone.nrrd")


def test_result_names_start_with_the_folder_if_scan_names_differ_only_in_capitals_or_accent_encoding(
    tmp_path: Path,
) -> None:
    names = {"a": "P1.nrrd", "b": "p1.nrrd", "c": "\u00e9.nrrd", "d": "e\u0301.nrrd"}
    make_files(tmp_path, *(f"{folder}/{name}" for folder, name in names.items()))
    jobs = plan_jobs([tmp_path / folder / name for folder, name in names.items()], tmp_path / "out")
    assert [job.name for job in jobs] == ["a_P1", "b_p1", "c_\u00e9", "d_e\u0301"]


def test_names_start_with_the_folders_that_differ(tmp_path: Path) -> None:
    scans = [tmp_path / "P1" / "lge.nrrd", tmp_path / "p1" / "lge.nrrd"]
    assert with_folders(["lge", "lge"], scans) == ["P1_lge", "p1_lge"]
    scans = [tmp_path / "site1" / "p1" / "lge.nrrd", tmp_path / "site2" / "P1" / "lge.nrrd"]
    assert with_folders(["p1_lge", "P1_lge"], scans) == ["site1_p1_lge", "site2_P1_lge"]
    assert with_folders(["lge", "lge"], scans) == ["site1_p1_lge", "site2_P1_lge"]
