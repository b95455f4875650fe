"""Test that the Python API reads the arguments that programs give, or refuses them with a message."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import dcamt
import numpy as np
import pytest
import torch
from dcamt.api.outputs import write_probabilities
from dcamt.cases.case_list import Case
from dcamt.io.writers import write_volume
from dcamt.volume import Volume
from dcamt_testing.dicom_series import write_mr_series
from dcamt_testing.synthetic import write_cases_folder
from dcamt_testing.tiny_recipes import TINY

GRID = dcamt.Grid((8, 9, 10), np.eye(4))


class GivenPath(os.PathLike[str]):
    """A path of another class than `pathlib.Path`, such as `os.DirEntry`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


@pytest.fixture
def label() -> np.ndarray:
    voxels = np.zeros(GRID.shape, np.uint8)
    voxels[2:6, 2:7, 3:8] = 1
    return voxels


@pytest.fixture
def segmenter(saved_model: Path) -> dcamt.Segmenter:
    return dcamt.Segmenter.load(saved_model, "cpu")


def intensities(scan: Volume) -> np.ndarray:
    voxels = scan.voxels[0].astype(float)
    return np.round(1000 * (voxels - voxels.min()) / np.ptp(voxels)).astype(np.int16)


def mask_array(voxels: np.ndarray) -> np.ma.MaskedArray:
    masked = np.ma.masked_array(voxels.astype(int), mask=voxels > voxels.mean())
    masked.data[masked.mask] = 257  # uint8 cannot hold this value
    return masked


def test_masked_arrays_are_refused(segmenter: dcamt.Segmenter, oblique_scan: Volume, label: np.ndarray) -> None:
    grid = oblique_scan.grid
    with pytest.raises(ValueError, match="masked voxels: replace them"):
        segmenter.segment(mask_array(oblique_scan.voxels[0]), affine=grid.affine)
    with pytest.raises(ValueError, match="masked voxels: replace them"):
        dcamt.evaluate(mask_array(label), label, spacing=(1, 1, 1))
    with pytest.raises(ValueError, match="masked voxels: replace them"):
        dcamt.Labelmap(mask_array(label).astype(np.uint8), GRID)
    # An array in which nothing is masked is like any other array.
    (row,) = dcamt.evaluate(np.ma.masked_array(label), label, spacing=(1, 1, 1)).rows
    assert row.score.dice == 1


def test_tensors_and_lists_are_refused(segmenter: dcamt.Segmenter, label: np.ndarray) -> None:
    with pytest.raises(TypeError, match=r"a NumPy array, not Tensor"):
        segmenter.segment(torch.ones(1, 8, 8, 8), affine=np.eye(4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a NumPy array, not list"):
        segmenter.segment(label.tolist(), affine=np.eye(4))
    with pytest.raises(TypeError, match=r"prediction 1 must be .* a NumPy array, not Tensor"):
        dcamt.evaluate(torch.from_numpy(label), label, spacing=(1, 1, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a NumPy array, not Tensor"):
        dcamt.Volume(torch.ones(1, *GRID.shape), GRID)  # type: ignore[arg-type]


def test_scan_with_channels_last_is_refused(segmenter: dcamt.Segmenter, oblique_scan: Volume) -> None:
    with pytest.raises(ValueError, match=r"must be 1, not 22: the shape \(22, 19, 14, 1\) is read as \(C, I, J, K\)"):
        segmenter.segment(oblique_scan.voxels[0][..., np.newaxis], affine=oblique_scan.grid.affine)


@pytest.mark.parametrize("region", ["all", [None] * 6, np.ones((3, 2))])
def test_region_of_another_type_is_refused(segmenter: dcamt.Segmenter, oblique_scan: Volume, region: object) -> None:
    with pytest.raises(dcamt.InputError, match="is not a region"):
        segmenter.segment(oblique_scan, region=region)  # type: ignore[arg-type]


def test_device_may_be_a_torch_device_but_not_an_unknown_name(saved_model: Path) -> None:
    assert dcamt.Segmenter.load(saved_model, torch.device("cpu")).channels == 1  # type: ignore[arg-type]
    with pytest.raises(dcamt.InputError, match=r"the device 'cuda:0' is unknown\. Choose one of: auto, cpu, cuda, mps"):
        dcamt.Segmenter.load(saved_model, "cuda:0")


@pytest.mark.parametrize("spacing", [1.0, (1, None, 1), np.eye(3), "1,1,1"])
def test_spacing_of_another_type_is_refused(label: np.ndarray, spacing: object) -> None:
    with pytest.raises(ValueError, match="arrays need their spacing"):
        dcamt.evaluate(label, label, spacing=spacing)  # type: ignore[arg-type]


def test_evaluate_refuses_empty_arrays_and_impossible_grids(label: np.ndarray) -> None:
    empty = np.zeros((0, 3, 3), np.uint8)
    with pytest.raises(dcamt.InputError, match=r"prediction 1: holds no voxels \(0 x 3 x 3\)"):
        dcamt.evaluate(empty, empty, spacing=(1, 1, 1))
    flat = dcamt.Labelmap(label, dcamt.Grid(GRID.shape, np.diag([1, 1, 0, 1])))
    with pytest.raises(dcamt.InputError, match="prediction 1: has a voxel spacing of zero"):
        dcamt.evaluate(flat, flat)


def test_labels_of_float16_cause_no_warning(label: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (row,) = dcamt.evaluate(label.astype(np.float16), label, spacing=(1, 1, 1)).rows
    assert row.score.dice == 1


def test_paths_of_any_class_are_accepted(tmp_path: Path, label: np.ndarray) -> None:
    for folder in ("labels", "predictions"):
        dcamt.write_labelmap(dcamt.Labelmap(label, GRID), tmp_path / folder / "c0.nii.gz")
    prediction, reference = (GivenPath(tmp_path / folder / "c0.nii.gz") for folder in ("predictions", "labels"))
    assert dcamt.evaluate(prediction, reference).rows[0].case == "c0"
    folders = (GivenPath(tmp_path / folder) for folder in ("predictions", "labels"))
    assert dcamt.evaluate(*folders).rows[0].score.dice == 1
    cases = GivenPath(write_cases_folder(tmp_path / "cases", labelled=1))
    settings = [*TINY, "iterations=1", "labelled_per_batch=2"]
    run = dcamt.train(cases, run=GivenPath(tmp_path / "run"), settings=settings, device="cpu")
    assert run.iterations == 1
    scan, model = GivenPath(tmp_path / "cases" / "labelled0.nii.gz"), GivenPath(run.model)
    dcamt.write_segmentation(dcamt.segment(scan, model, device="cpu"), GivenPath(tmp_path / "a.nii"))
    dcamt.train(
        cases,
        run=GivenPath(tmp_path / "next"),
        recipe=GivenPath(tmp_path / "run" / "recipe.json"),
        start_from=model,
        settings=["iterations=1"],
        device="cpu",
    )


def test_empty_name_is_not_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmenter: dcamt.Segmenter, oblique_scan: Volume
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(dcamt.InputError, match="name of a file or folder is empty"):
        dcamt.train(write_cases_folder(tmp_path.parent / "cases", labelled=1), run="", settings=TINY)
    assert not list(tmp_path.iterdir())
    write_mr_series(tmp_path, intensities(oblique_scan), oblique_scan.grid.affine)
    assert dcamt.read_scan(".").grid.shape
    result = segmenter.segment(oblique_scan)
    calls: list[Callable[[str], object]] = [dcamt.read_scan, dcamt.read_labelmap, segmenter.segment]
    calls += [functools.partial(dcamt.write_segmentation, result), functools.partial(dcamt.write_surface, result)]
    for call in calls:
        with pytest.raises(dcamt.InputError, match="name of a file or folder is empty"):
            call("")
    with pytest.raises(dcamt.InputError, match="name of a file or folder is empty"):
        dcamt.evaluate("", "")


@pytest.mark.usefixtures("coarse_pictures")
def test_tilde_stands_for_the_users_folder_as_in_the_commands(
    tmp_path: Path, saved_model: Path, oblique_scan: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))
    write_volume(oblique_scan, "~/scan.nrrd")
    write_mr_series(home / "series", intensities(oblique_scan), oblique_scan.grid.affine)
    (home / "tiny.dcamt").write_bytes(saved_model.read_bytes())
    segmenter = dcamt.Segmenter.load("~/tiny.dcamt", "cpu")
    result = segmenter.segment("~/scan.nrrd", keep_probabilities=True)
    dcamt.write_segmentation(result, "~/a.seg.nrrd")
    dcamt.write_segmentation(segmenter.segment("~/series"), "~/b.dcm")
    write_probabilities(result, "~/c.nrrd")
    dcamt.write_surface(result, "~/d.stl")
    dcamt.write_report(result, "~/e.html")
    dcamt.write_labelmap(dcamt.read_labelmap("~/a.seg.nrrd"), "~/f.nii.gz")
    dcamt.evaluate("~/f.nii.gz", ["~/a.seg.nrrd"]).write_csv("~/g.csv")
    names = ["a.seg.nrrd", "b.dcm", "c.nrrd", "d.stl", "e.html", "f.nii.gz", "g.csv"]
    assert sorted(path.name for path in home.iterdir()) == [*names, "scan.nrrd", "series", "tiny.dcamt"]
    for write in (dcamt.write_segmentation, write_probabilities):
        with pytest.raises(dcamt.InputError, match="would be replaced by the result"):
            write(result, "~/scan.nrrd")
    write_cases_folder(home / "cases", labelled=1)
    case = Case("a", "~/cases/labelled0.nii.gz", "~/cases/labelled0_label.nii.gz", "labelled")  # type: ignore[arg-type]
    settings = [*TINY, "iterations=1", "labelled_per_batch=2"]
    for number, cases in enumerate(("~/cases/cases.csv", [case])):
        dcamt.train(cases, run=f"~/run{number}", settings=settings, device="cpu")
    assert (home / "run1" / "model.dcamt").is_file()
    assert not list((tmp_path / "elsewhere").iterdir())
    # Both lead to a folder named `~`.
    dcamt.write_labelmap(result.labelmap, "./~/h.nrrd")
    assert dcamt.read_labelmap(Path("~", "h.nrrd")).voxels.shape == oblique_scan.grid.shape


def test_scan_choice_is_documented_and_checked(tmp_path: Path, oblique_scan: Volume) -> None:
    for number in (1, 2):
        write_mr_series(tmp_path / str(number), number * intensities(oblique_scan), oblique_scan.grid.affine)
    with pytest.raises(dcamt.InputError, match=r"in Python: dcamt\.ScanChoice\(series="):
        dcamt.read_scan(tmp_path)
    scans = [dcamt.read_scan(tmp_path, choice=dcamt.ScanChoice(series=series)) for series in ("2", 2)]  # type: ignore[arg-type]
    assert [scan.voxels.max() for scan in scans] == [2000, 2000]
    with pytest.raises(TypeError, match=r"choice must be a dcamt\.ScanChoice, not str"):
        dcamt.read_scan(tmp_path, choice="2")  # type: ignore[arg-type]


def test_cases_and_mappings_of_another_type_are_refused(tmp_path: Path, label: np.ndarray) -> None:
    with pytest.raises(TypeError, match=r"each case must be a dcamt\.cases\.case_list\.Case, not tuple"):
        dcamt.train([("a", "scan.nrrd", None, "unlabelled")], run=tmp_path / "run", settings=TINY)  # type: ignore[list-item]
    dcamt.write_labelmap(dcamt.Labelmap(label, GRID), tmp_path / "x.nrrd")
    with pytest.raises(TypeError, match=r"mapping must be a dict, such as \{420: 1\}, not str"):
        dcamt.read_labelmap(tmp_path / "x.nrrd", "420=1")  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_no_file_is_written_on_an_impossible_grid(tmp_path: Path, label: np.ndarray, ending: str) -> None:
    target = tmp_path / f"out{ending}"
    for affine, reason in (
        (np.diag([0, 1, 1, 1]), "spacing of zero"),
        (np.diag([np.nan, 1, 1, 1]), "NaN"),
        (np.eye(4) + np.eye(4)[::-1], "last row"),
    ):
        grid = dcamt.Grid(GRID.shape, affine)
        with pytest.raises(dcamt.InputError, match=reason):
            dcamt.write_labelmap(dcamt.Labelmap(label, grid), target)
        with pytest.raises(dcamt.InputError, match=reason):
            write_volume(dcamt.Volume(label[np.newaxis], grid), target)
    assert not target.exists()


def test_result_does_not_replace_its_scan(tmp_path: Path, segmenter: dcamt.Segmenter, oblique_scan: Volume) -> None:
    path = tmp_path / "scan.nrrd"
    write_volume(oblique_scan, path)
    link = tmp_path / "link.nrrd"
    link.symlink_to(path)
    before = path.read_bytes()
    result = segmenter.segment(path, keep_probabilities=True)
    for target in (path, link):
        with pytest.raises(dcamt.InputError, match="would be replaced by the result"):
            dcamt.write_segmentation(result, target)
        with pytest.raises(dcamt.InputError, match="would be replaced by the result"):
            write_probabilities(result, target)
    with pytest.raises(dcamt.InputError, match="does not have the ending of an HTML page"):
        dcamt.write_report(result, path)
    assert path.read_bytes() == before
    for _ in range(2):  # A result may replace an earlier result.
        dcamt.write_segmentation(result, tmp_path / "result.nrrd")


def test_working_folder_may_change_between_segmenting_and_writing(
    tmp_path: Path, segmenter: dcamt.Segmenter, oblique_scan: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    write_volume(oblique_scan, tmp_path / "scan.nrrd")
    write_mr_series(tmp_path / "series", intensities(oblique_scan), oblique_scan.grid.affine)
    slices = {path: path.read_bytes() for path in (tmp_path / "series").iterdir()}
    monkeypatch.chdir(tmp_path)
    results = [segmenter.segment(scan) for scan in ("scan.nrrd", "series")]
    monkeypatch.chdir(tmp_path / "other")
    for result, target in zip(results, (tmp_path / "scan.nrrd", min(slices)), strict=True):
        with pytest.raises(dcamt.InputError, match="would be replaced by the result"):
            dcamt.write_segmentation(result, os.path.relpath(target))
    dcamt.write_segmentation(results[1], "result.dcm")
    assert {path: path.read_bytes() for path in slices} == slices
    np.testing.assert_array_equal(dcamt.read_labelmap("result.dcm").voxels > 0, results[1].labelmap.voxels > 0)


def test_result_in_a_folder_without_permission_raises_output_error(
    tmp_path: Path, segmenter: dcamt.Segmenter, oblique_scan: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scan.nrrd"
    write_volume(oblique_scan, path)
    # `chmod` would not stop the root user, so the test simulates a folder `locked` without permission: `os.stat` of
    # `locked/result.nrrd` raises PermissionError, and writing to this path fails because `locked` is a file.
    (tmp_path / "locked").touch()
    result = segmenter.segment(path)
    real = os.stat

    def stat_without_permission(file: str | Path, **options: bool) -> os.stat_result:
        if "locked" in str(file):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, **options)

    monkeypatch.setattr(os, "stat", stat_without_permission)
    with pytest.raises(dcamt.OutputError):
        dcamt.write_segmentation(result, tmp_path / "locked" / "result.nrrd")


def test_dicom_result_does_not_replace_a_slice(
    tmp_path: Path, segmenter: dcamt.Segmenter, oblique_scan: Volume
) -> None:
    write_mr_series(tmp_path, intensities(oblique_scan), oblique_scan.grid.affine)
    first = min(tmp_path.iterdir())
    before = first.read_bytes()
    with pytest.raises(dcamt.InputError, match="would be replaced by the result"):
        dcamt.write_segmentation(segmenter.segment(tmp_path), first)
    assert first.read_bytes() == before
