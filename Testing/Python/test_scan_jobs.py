"""Scans and output files of a command line; existing files are not replaced without --overwrite."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import SimpleITK
from dcamt import cli
from dcamt.cases.case_names import with_folders
from dcamt.cases.names import labels_beside_scans
from dcamt.commands.result_files import OVERWRITE, REFUSE, SKIP, check_result_paths, refuse_existing
from dcamt.commands.scan_jobs import (
    RequestedResults,
    ScanJob,
    kept_files,
    plan_scan_jobs,
)
from dcamt.commands.scan_paths import find_scans
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.dicom_files import walk_folders
from dcamt.io.writers import is_dcamt_result, write_labelmap, write_volume
from dcamt.volume import Code, Labelmap, SegmentInfo, Volume
from dcamt_testing.dicom_positions import write_slice

SEGMENTS = (SegmentInfo(1, "LA", (1.0, 0.0, 0.0), Code("SCT", "82471001", "Left atrium")),)
GRID = Grid((8, 9, 10), np.eye(4))


def plan_jobs(scans: list[Path], output: Path, existing: str = REFUSE, **requested: object) -> list[ScanJob]:
    results = RequestedResults(**requested)  # type: ignore[arg-type]
    jobs = plan_scan_jobs([find_scans(scan) for scan in scans], output, None, results, existing)
    return [job for job in jobs if existing != SKIP or not job.is_finished]


def create_empty_files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write_dcamt_result(path: Path) -> None:
    write_labelmap(Labelmap(np.ones(GRID.shape, np.uint8), GRID, None), path, SEGMENTS)


def test_file_named_like_a_label_is_skipped_beside_its_scan(tmp_path: Path) -> None:
    """`lone_seg.nrrd` counts as a scan: there is no scan `lone`, and the empty file holds no label values."""
    names = ("p01.nii.gz", "p01_seg.nii.gz", "p02.nrrd", "p02_mask.nrrd", "p03.nii", "p03_gt.nii", "x_image.mha")
    create_empty_files(
        tmp_path,
        *names,
        "x_label.mha",
        "lone_seg.nrrd",
        ".hidden.nii",
        "p01_agreement.nii.gz",
        "p01_probabilities.nrrd",
    )
    scans = [path.name for path in find_scans(tmp_path).scans]
    assert scans == ["lone_seg.nrrd", "p01.nii.gz", "p02.nrrd", "p03.nii", "x_image.mha"]
    skipped = {path.name for path in find_scans(tmp_path).skipped_files}
    assert skipped == {"p01_seg.nii.gz", "p02_mask.nrrd", "p03_gt.nii", "x_label.mha"}


def test_masks_p1_la_and_p1_roi_beside_scan_p1_are_skipped(tmp_path: Path) -> None:
    values = np.arange(GRID.shape[0] * GRID.shape[1] * GRID.shape[2]).reshape(GRID.shape)
    for name, voxels in (("p1", values), ("p1_T1", values), ("p1_LA", values % 2), ("p1_roi", values % 9)):
        write_volume(Volume(voxels[np.newaxis].astype(np.int16), GRID), tmp_path / f"{name}.nii.gz")
    assert [path.name for path in find_scans(tmp_path).scans] == ["p1.nii.gz", "p1_T1.nii.gz"]
    assert {path.name for path in find_scans(tmp_path).skipped_files} == {"p1_LA.nii.gz", "p1_roi.nii.gz"}


def test_label_p9_seg_without_scan_p9_is_skipped_if_the_folder_holds_another_scan(tmp_path: Path) -> None:
    values = np.arange(GRID.shape[0] * GRID.shape[1] * GRID.shape[2]).reshape(GRID.shape)
    files = {
        "p1": values,
        "p2_seg": values,
        "Copy of p1_label": values % 2,
        "p9_seg": values % 2,
        "p9_pred": values % 2,
    }
    for name, voxels in files.items():
        write_volume(Volume(voxels[np.newaxis].astype(np.int16), GRID), tmp_path / f"{name}.nii.gz")
    assert [path.name for path in find_scans(tmp_path).scans] == ["p1.nii.gz", "p2_seg.nii.gz"]
    for name in ("p1", "p2_seg"):
        (tmp_path / f"{name}.nii.gz").unlink()
    assert len(find_scans(tmp_path).scans) == 3


def test_labels_of_public_data_sets_are_not_segmented(tmp_path: Path) -> None:
    create_empty_files(tmp_path / "P1", "lgemri.nrrd", "laendo.nrrd", "lawall.nrrd")
    create_empty_files(tmp_path / "train_1", "enhanced.nii.gz", "atriumSegImgMO.nii.gz", "scarSegImgM.nii.gz")
    assert [path.name for path in find_scans(tmp_path / "P1").scans] == ["lgemri.nrrd"]
    assert [path.name for path in find_scans(tmp_path / "train_1").scans] == ["enhanced.nii.gz"]


def write_noise(path: Path) -> None:
    """Write a scan without DCAMT's mark."""
    voxels = np.random.default_rng(0).integers(0, 500, GRID.shape).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(path))


def test_scans_in_subfolders_are_named_after_the_subfolders(tmp_path: Path) -> None:
    data = create_empty_files(tmp_path / "Training Set", "README.txt")
    for patient in ("P1", "P2"):
        write_noise(data / patient / "lgemri.nrrd")
    write_dcamt_result(data / "P2" / "laendo.nrrd")
    found = find_scans(data)
    assert found.scans == [data / patient / "lgemri.nrrd" for patient in ("P1", "P2")]
    assert found.names == ["P1", "P2"]
    assert found.skipped_files == [data / "P2" / "laendo.nrrd"]
    jobs = plan_jobs([data], tmp_path / "out", wall=True)
    assert [path.name for path in jobs[1].files] == ["P2.seg.nrrd", "P2.wall.vtp", "P2.wall.csv"]


def test_subfolder_with_dicom_slices_and_an_image_file_is_one_dicom_scan(tmp_path: Path) -> None:
    """The image file may be a converted copy of the slices."""
    for patient in ("p1", "p2"):
        for k in range(5):
            write_slice(tmp_path / patient / f"{k}.dcm", k, StudyInstanceUID=f"1.2.{patient[1]}")
        write_noise(tmp_path / patient / "lge.nii.gz")
    assert find_scans(tmp_path).scans == [tmp_path / "p1", tmp_path / "p2"]


def test_subfolders_of_dicom_slices_may_be_named_like_subjects_of_bids(tmp_path: Path) -> None:
    for number in (1, 2):
        for k in range(5):
            write_slice(tmp_path / f"sub-{number}" / f"{k}.dcm", k, StudyInstanceUID=f"1.2.{number}")
    for name in ("label-LA_mask", "T1w"):
        write_noise(tmp_path / "sub-1" / f"sub-1_{name}.nii.gz")
        assert find_scans(tmp_path).scans == [tmp_path / "sub-1", tmp_path / "sub-2"]


def test_folder_with_a_label_but_no_scan_is_refused(tmp_path: Path) -> None:
    write_dcamt_result(tmp_path / "p1" / "laendo.nrrd")
    with pytest.raises(InputError, match=r"contains no usable scan \(p1/laendo\.nrrd: a label without a scan\)"):
        find_scans(tmp_path)


def test_scans_are_found_beside_two_labels_and_in_an_nnunet_data_set(tmp_path: Path) -> None:
    """Scan p1 has two labels: `p1/laendo.nrrd`, and `segmentations/p1.seg.nrrd` as an earlier command may write it."""
    for patient in ("p1", "p2"):
        write_noise(tmp_path / "clinic" / patient / "lgemri.nrrd")
        write_dcamt_result(tmp_path / "clinic" / patient / "laendo.nrrd")
    write_dcamt_result(tmp_path / "clinic" / "segmentations" / "p1.seg.nrrd")
    assert sorted(find_scans(tmp_path / "clinic").names) == ["p1", "p2"]
    data_set = create_empty_files(tmp_path / "nnUNet_raw" / "Dataset001_LA")
    create_empty_files(data_set / "imagesTr", "a_0000.nii.gz")
    create_empty_files(data_set / "imagesTs", "a_0000.nii.gz", "b_0000.nii.gz")
    create_empty_files(data_set / "labelsTr", "a.nii.gz")
    create_empty_files(data_set / "labelsTs", "a.nii.gz", "b.nii.gz")
    found = find_scans(data_set)
    assert [path.parent.name for path in found.scans] == ["imagesTr", "imagesTs", "imagesTs"]
    assert found.names == ["a", "imagesTs_a", "b"]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_link_to_a_missing_file_is_a_scan_or_a_label(tmp_path: Path) -> None:
    grid = Grid((8, 8, 8), np.eye(4))
    write_volume(Volume(np.random.default_rng(0).random((1, 8, 8, 8)), grid), tmp_path / "p1.nii.gz")
    for name in ("p1_label", "p2"):
        (tmp_path / f"{name}.nii.gz").symlink_to(tmp_path / "annex" / name)
    found = find_scans(tmp_path)
    assert [scan.name for scan in found.scans] == ["p1.nii.gz", "p2.nii.gz"]
    assert [file.name for file in found.skipped_files] == ["p1_label.nii.gz"]


def test_linked_patient_folders_are_searched_once(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        write_noise(tmp_path / "archive" / patient / "lgemri.nrrd")
    data = create_empty_files(tmp_path / "data" / "p0", "list.txt").parent
    write_noise(data / "p0" / "lgemri.nrrd")
    links = {"p1": tmp_path / "archive" / "p1", "p2": tmp_path / "archive" / "p2", "latest": data / "p0"}
    for name, target in {**links, "p0/up": data, "p0/above": tmp_path}.items():
        (data / name).symlink_to(target)
    assert find_scans(data).scans == [data / patient / "lgemri.nrrd" for patient in ("p0", "p1", "p2")]


def test_folders_p0_and_p1_with_links_to_each_other_are_searched_once(tmp_path: Path) -> None:
    """If each link were followed, each level of folders would have twice as many paths as the level above."""
    scan = create_empty_files(tmp_path / "p1", "lge.nrrd") / "lge.nrrd"
    earlier = create_empty_files(tmp_path / "p0", "lge.nrrd")
    data = tmp_path / "data"
    data.mkdir()
    (data / "p1").symlink_to(scan.parent)
    for name in ("earlier", "same"):
        (scan.parent / name).symlink_to(earlier)
        (earlier / name).symlink_to(scan.parent)
    found = itertools.islice(walk_folders(data), 100)
    assert [path for _, _, files in found for path in files] == [
        data / "p1" / "lge.nrrd",
        data / "p1" / "earlier" / "lge.nrrd",
    ]


def test_scan_in_both_of_two_given_folders_is_refused(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        write_noise(tmp_path / patient / "lgemri.nrrd")
    with pytest.raises(InputError, match=r"p2/lgemri\.nrrd: is given twice"):
        plan_jobs([tmp_path, tmp_path / "p2"], tmp_path / "out")


def test_results_of_scans_with_the_same_name_in_two_folders_are_named_after_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patient in ("P1", "P2"):
        create_empty_files(tmp_path / patient, "lgemri.nrrd", "p1.nii", "dicom/1.dcm")
    monkeypatch.chdir(tmp_path)
    names = ("P1/lgemri.nrrd", "P2/lgemri.nrrd", "P1/p1.nii", "P1/dicom", "P2/dicom")
    jobs = plan_jobs([Path(name) for name in names], Path("out"))
    assert [job.segmentation.name for job in jobs] == [
        f"{name}.seg.nrrd" for name in ("P1_lgemri", "P2_lgemri", "p1", "P1_dicom", "P2_dicom")
    ]


def test_scans_x_nrrd_and_x_nii_of_one_folder_are_refused(tmp_path: Path) -> None:
    create_empty_files(tmp_path, "x.nrrd", "x.nii")
    with pytest.raises(InputError, match=r"x\.nrrd: would get the same result file as .*x\.nii "):
        plan_jobs([tmp_path], tmp_path / "out")


def test_results_p1_and_p2_beside_the_patient_folders_do_not_hide_the_scans(tmp_path: Path) -> None:
    """The results of an earlier command may lie beside the patient folders."""
    for patient in ("p1", "p2"):
        write_noise(tmp_path / patient / "lgemri.nrrd")
        write_dcamt_result(tmp_path / f"{patient}.nii.gz")
    assert [path.name for path in find_scans(tmp_path).scans] == ["lgemri.nrrd"] * 2


@pytest.mark.parametrize("results", ["nii", "nifti", "out", "x"])
def test_results_in_a_folder_beside_the_patient_folders_are_no_scans(tmp_path: Path, results: str) -> None:
    for patient in ("p1", "p2"):
        write_noise(tmp_path / patient / "lgemri.nrrd")
        write_dcamt_result(tmp_path / patient / "laendo.nrrd")
        write_dcamt_result(tmp_path / results / f"{patient}.nii.gz")
    scans = [tmp_path / patient / "lgemri.nrrd" for patient in ("p1", "p2")]
    assert sorted(find_scans(tmp_path).scans) == scans
    assert find_scans(tmp_path, results=[tmp_path / results]).scans == scans
    # A folder that is given as a folder of results is searched if the folder contains a scan.
    assert find_scans(tmp_path, results=[tmp_path / "p1"]).names == find_scans(tmp_path).names


def test_folder_of_results_beside_folders_of_dicom_slices_is_no_scan(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        for k in range(5):
            write_slice(tmp_path / patient / f"{k}.dcm", k, StudyInstanceUID=f"1.2.{patient[1]}")
    write_dcamt_result(tmp_path / "out" / "p1.seg.nrrd")
    scans = [tmp_path / "p1", tmp_path / "p2"]
    assert find_scans(tmp_path, results=[tmp_path / "out"]).scans == scans
    # A folder that is given as a folder of results is a scan if the folder contains DICOM slices.
    assert tmp_path / "p1" in find_scans(tmp_path, results=[tmp_path / "p1"]).scans


def test_files_p1_0000_and_p1_0001_are_one_scan_for_a_model_of_two_channels(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        for channel in range(2):
            write_noise(tmp_path / patient / f"{patient}_000{channel}.nii.gz")
    scans = find_scans(tmp_path, channels=2).scans
    assert [path.name for path in scans] == ["p1_0000.nii.gz", "p2_0000.nii.gz"]
    assert len(find_scans(tmp_path).scans) == 4


def test_files_a_0000_and_a_0001_are_one_scan_in_an_nnunet_folder(tmp_path: Path) -> None:
    names = ("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz")
    create_empty_files(tmp_path / "imagesTs", *names)
    create_empty_files(tmp_path / "patients", *names)
    assert [path.name for path in find_scans(tmp_path / "imagesTs").scans] == ["a_0000.nii.gz", "b_0000.nii.gz"]
    # In a folder of another name, the numbers count patients, not channels.
    assert [path.name for path in find_scans(tmp_path / "patients").scans] == list(names)
    scans = find_scans(tmp_path / "patients", channels=2).scans
    assert [path.name for path in scans] == ["a_0000.nii.gz", "b_0000.nii.gz"]


def test_folder_of_five_scans_is_searched_for_labels_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_empty_files(tmp_path, *(f"{number}.nrrd" for number in range(5)))
    searched = []

    def count(files: list[Path], folder: Path) -> list[Path]:
        searched.append(folder)
        return labels_beside_scans(files, folder)

    monkeypatch.setattr("dcamt.cases.masks.labels_beside_scans", count)
    assert len(find_scans(tmp_path).scans) == 5
    assert searched == [tmp_path]


def test_each_input_path_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.nrrd" for number in range(20)]
    create_empty_files(tmp_path / "scans", *names)
    resolve, resolved = Path.resolve, list[str]()

    def count(path: Path, strict: bool = False) -> Path:
        resolved.append(path.name)
        return resolve(path, strict)

    monkeypatch.setattr(Path, "resolve", count)
    assert len(plan_jobs([tmp_path / "scans"], tmp_path / "out")) == 20
    assert [resolved.count(name) for name in names] == [1] * 20


def test_result_is_refused_if_its_path_leads_to_a_scan(tmp_path: Path) -> None:
    scan = create_empty_files(tmp_path / "scans", "7.nrrd") / "7.nrrd"
    (tmp_path / "out").mkdir()
    os.link(scan, tmp_path / "out" / "linked.nrrd")
    for path in (tmp_path / "scans" / ".." / "scans" / "7.nrrd", tmp_path / "out" / "linked.nrrd"):
        with pytest.raises(InputError, match=r"7\.nrrd: would be replaced"):
            check_result_paths([tmp_path / "out" / "a.nrrd", path], [scan])


def test_result_is_refused_if_it_would_replace_a_slice_or_another_channel_of_a_scan(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for number in range(3):
        write_slice(tmp_path / "series" / f"IM{number}.dcm", number)
    channels = create_empty_files(tmp_path / "scans", "x_0000.nrrd", "x_0001.nrrd")
    (tmp_path / "link").symlink_to(tmp_path / "series")
    for scan, path in (
        (tmp_path / "series", tmp_path / "series" / "IM1.dcm"),
        (tmp_path / "link", tmp_path / "series" / "IM1.dcm"),
        (tmp_path / "series", tmp_path / "link" / "IM1.dcm"),
        (channels / "x_0000.nrrd", channels / "x_0001.nrrd"),
    ):
        with pytest.raises(InputError, match=rf"{path.name}: would be replaced"):
            check_result_paths([path], [scan])
    # A result of an earlier command in the folder of the slices is no input.
    (tmp_path / "series" / "series.seg.nrrd").touch()
    check_result_paths(
        [tmp_path / "series" / "series.seg.nrrd", tmp_path / "series" / "new.dcm"], [tmp_path / "series"]
    )


def test_table_of_measurements_never_replaces_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = create_empty_files(tmp_path, "scan.nrrd", "own.dcamt") / "scan.nrrd"
    model = str(tmp_path / "own.dcamt")
    table = ["--measurements", model, "--overwrite"]
    assert cli.main(["segment", str(scan), "-o", str(tmp_path / "out"), "--model", model, *table]) == 1
    assert f"{model}: would be replaced by a result." in capsys.readouterr().err


def test_two_results_in_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    check_result_paths([tmp_path / "a.stl", tmp_path / "out" / "a.stl"], [])
    with pytest.raises(InputError, match=r"a\.stl: two results would be written to this file"):
        check_result_paths([tmp_path / "a.stl", tmp_path / "out" / ".." / "a.stl"], [])


def fail_after_checks(*_: object) -> NoReturn:
    raise InputError("the checks passed")


@pytest.mark.parametrize("command", ["cases find", "evaluate", "picture", "rank", "rank to folder", "recipe suggest"])
def test_command_refuses_an_existing_output_without_overwrite(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output is checked first. With --overwrite the command continues, and here fails for another reason."""
    if command.startswith("rank"):  # fail before the model is loaded
        monkeypatch.setattr("dcamt.commands.rank.Console", fail_after_checks)
    create_empty_files(tmp_path, "scan.nrrd", "old.csv", "out/a.seg.nrrd")
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
    assert cli.main([str(argument) for argument in arguments]) == 1
    assert f"{target}: exists already" in capsys.readouterr().err
    assert target.stat().st_size == 0
    assert cli.main([*(str(argument) for argument in arguments), "--overwrite"]) == 1
    assert "exists already" not in capsys.readouterr().err


def test_wall_files_are_not_replaced_without_overwrite(tmp_path: Path) -> None:
    scans = create_empty_files(tmp_path / "patients", "p01.nrrd", "p01.wall.csv")
    plan_jobs([scans], scans)
    with pytest.raises(InputError, match=r"p01\.wall\.csv: exists already"):
        plan_jobs([scans], scans, wall=True)
    # The scan is skipped, since its results would replace a table that DCAMT did not write.
    assert plan_jobs([scans], scans, SKIP, wall=True) == []
    (job,) = plan_jobs([scans], scans, OVERWRITE, wall=True)
    assert [path.name for path in job.files] == ["p01.seg.nrrd", "p01.wall.vtp", "p01.wall.csv"]


def test_existing_file_is_not_replaced_without_overwrite(tmp_path: Path) -> None:
    scans = create_empty_files(tmp_path / "patients", "p01.nrrd", "p01.seg.nrrd", "p02.nrrd")
    with pytest.raises(InputError) as caught:
        plan_jobs([scans], scans)
    assert str(caught.value).startswith(f"{scans / 'p01.seg.nrrd'}: exists already, and DCAMT did not write it. ")
    assert "--overwrite" in str(caught.value)
    assert [job.scan.name for job in plan_jobs([scans], scans, OVERWRITE)] == ["p01.nrrd", "p02.nrrd"]
    assert [job.scan.name for job in plan_jobs([scans], tmp_path / "out")] == ["p01.nrrd", "p02.nrrd"]


@pytest.mark.parametrize("name", ["scan.png", "recipe.json", "NAME.calibration.json", "scores.tsv"])
def test_message_does_not_say_who_wrote_the_file_if_its_type_has_no_dcamt_mark(tmp_path: Path, name: str) -> None:
    create_empty_files(tmp_path, name)
    with pytest.raises(InputError, match=r": exists already\. "):
        refuse_existing([tmp_path / name])


def test_existing_results_of_dcamt_are_refused(tmp_path: Path) -> None:
    scans = create_empty_files(tmp_path / "scans", "a.nrrd")
    write_dcamt_result(tmp_path / "out" / "a.seg.nrrd")
    with pytest.raises(InputError, match=r"a\.seg\.nrrd: exists already\. "):
        plan_jobs([scans], tmp_path / "out")


def test_partly_segmented_folder_is_continued(tmp_path: Path) -> None:
    scans, out = create_empty_files(tmp_path / "scans", "a.nrrd", "b.nrrd", "c.nrrd"), tmp_path / "out"
    write_dcamt_result(out / "a.seg.nrrd")
    create_empty_files(out, "b.seg.nrrd")  # a manual segmentation
    assert [job.scan.name for job in plan_jobs([scans], out, SKIP)] == ["c.nrrd"]
    assert kept_files(plan_jobs([scans], out, OVERWRITE)) == [out / "b.seg.nrrd"]
    # If an agreement map is requested too, the scan a.nrrd lacks one of its results.
    assert [job.scan.name for job in plan_jobs([scans], out, SKIP, agreement=True)] == ["a.nrrd", "c.nrrd"]


def test_existing_table_is_refused_unless_overwriting_or_skipping_was_chosen(tmp_path: Path) -> None:
    scans = create_empty_files(tmp_path / "scans", "a.nrrd")
    table = tmp_path / "m.csv"
    table.write_text("mine", encoding="utf-8")
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


def test_agreement_map_is_recognised_as_a_dcamt_result(tmp_path: Path) -> None:
    write_volume(Volume(np.ones((1, *GRID.shape), np.float32), GRID), tmp_path / "map.nii.gz")
    assert is_dcamt_result(tmp_path / "map.nii.gz")


def test_results_of_scans_whose_names_differ_only_in_capitals_or_accents_are_distinct_on_any_file_system(
    tmp_path: Path,
) -> None:
    names = {"a": "P1.nrrd", "b": "p1.nrrd", "c": "\u00e9.nrrd", "d": "e\u0301.nrrd"}
    for folder, name in names.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    jobs = plan_jobs([tmp_path / folder / name for folder, name in names.items()], tmp_path / "out")
    assert [job.name for job in jobs] == ["a_P1", "b_p1", "c_\u00e9", "d_e\u0301"]


def test_names_that_differ_only_in_capitals_start_with_the_site_if_the_sites_differ(tmp_path: Path) -> None:
    scans = [tmp_path / "P1" / "lge.nrrd", tmp_path / "p1" / "lge.nrrd"]
    assert with_folders(["lge", "lge"], scans) == ["P1_lge", "p1_lge"]
    scans = [tmp_path / "site1" / "p1" / "lge.nrrd", tmp_path / "site2" / "P1" / "lge.nrrd"]
    assert with_folders(["p1_lge", "P1_lge"], scans) == ["site1_p1_lge", "site2_P1_lge"]
    assert with_folders(["lge", "lge"], scans) == ["site1_p1_lge", "site2_P1_lge"]
