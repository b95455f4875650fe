"""The check of a case list reports problems and warnings of each case and of the list; correct cases have none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dcamt
import numpy as np
import pytest
import SimpleITK
import torch
from dcamt.api.training_plan import check_cases_and_batch
from dcamt.cases import checks
from dcamt.cases.case_list import LABELLED, LEFT_OUT, UNLABELLED, VALIDATION, Case, list_cases, read_cases
from dcamt.cases.case_scans import read_case_grid
from dcamt.cases.checks import CaseFacts, check_cases, list_problems, scan_checksum
from dcamt.cases.labels import classes_on_grid
from dcamt.errors import InputError
from dcamt.geometry import Grid, network_grid
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.io.writers import write_labelmap
from dcamt.label_resampling import resample_labels_in_slabs
from dcamt.preprocessing import labels_to_network
from dcamt.recipe import Recipe
from dcamt.recipe_files import load_recipe
from dcamt.training.resident import load_case
from dcamt.volume import Labelmap, Volume
from dcamt_testing.dicom_series import write_mr_series
from dcamt_testing.ellipsoids import ellipsoid_scan
from dcamt_testing.processes import call_dcamt
from dcamt_testing.scan_files import deny_folder, refused
from dcamt_testing.synthetic import contradict_spacing, write_cases_folder, write_nifti, write_table
from dcamt_testing.tiny_recipes import tiny_recipe

RECIPE = load_recipe("la")


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    """Return two labelled cases, an unlabelled case and a validation case, in this order."""
    return read_cases(write_cases_folder(tmp_path, labelled=2, unlabelled=1, validation=1))


def facts_of(cases: list[Case], recipe: Recipe = RECIPE) -> list[CaseFacts]:
    """Return the final facts of each case; a check may report a case more than once."""
    last = {facts.index: facts for facts in check_cases(cases, recipe)}
    return [last[index] for index in range(len(cases))]


def only_problem(cases: list[Case], index: int, recipe: Recipe = RECIPE) -> str:
    """Return the only problem of the case at `index`; fail if another case has a problem."""
    facts = facts_of(cases, recipe)
    assert [len(fact.problems) for fact in facts] == [int(place == index) for place in range(len(cases))]
    return facts[index].problems[0]


def test_correct_cases_have_no_problems(cases: list[Case]) -> None:
    facts = facts_of(cases)
    assert {(fact.size, fact.spacing, fact.channels, fact.problems) for fact in facts} == {
        ((24, 24, 24), (2.0, 2.0, 2.0), 1, ())
    }
    assert [fact.labels for fact in facts] == [(1,), (1,), None, (1,)]
    assert list_problems(cases, facts, RECIPE) == []


def test_headers_of_all_cases_are_reported_before_labels(cases: list[Case]) -> None:
    order = [(facts.index, facts.labels is not None) for facts in check_cases(cases, RECIPE)]
    assert order == [(0, False), (1, False), (2, False), (3, False), (0, True), (1, True), (3, True)]


def test_progress_covers_headers_and_voxels(cases: list[Case]) -> None:
    fractions: list[float] = []
    list(check_cases(cases, RECIPE, progress=fractions.append))
    assert fractions == sorted(fractions)
    assert fractions[3] == pytest.approx(0.1)  # the headers of four cases
    assert fractions[-1] == pytest.approx(0.1 + 0.9 * 3 / 4)  # before the voxels of the last case


def test_unreadable_files_are_reported(cases: list[Case]) -> None:
    cases[2].image.write_bytes(cases[2].image.read_bytes()[:-500])
    assert only_problem(cases, 2).startswith("The scan ends too early")
    cases[0].label.write_bytes(b"none of it")  # type: ignore[union-attr]
    assert facts_of(cases)[0].problems[0].startswith("The label cannot be read")


@pytest.mark.parametrize("step", ["read_header", "read_case_scan", "read_case_label"])
def test_check_goes_on_with_the_other_cases_after_an_unexpected_error(
    cases: list[Case], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_for_the_first_case(*arguments: Any, **options: Any) -> Any:
        if arguments[0] in (cases[0], cases[0].image):
            raise ValueError("wrong shape")
        return original(*arguments, **options)

    original = getattr(checks, step)
    monkeypatch.setattr(checks, step, fail_for_the_first_case)
    assert only_problem(cases, 0) == (
        "The case cannot be checked: unexpected error (ValueError: wrong shape). Please report this error."
    )


def test_missing_scan_is_reported(cases: list[Case], tmp_path: Path) -> None:
    cases[2] = replace(cases[2], image=tmp_path / "gone.nii.gz")
    assert only_problem(cases, 2) == "The scan does not exist. Check the name and the folder."


def test_scan_in_a_folder_without_permission_is_reported(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases[2] = replace(cases[2], image=tmp_path / "locked" / "scan.nii.gz")
    deny_folder(tmp_path / "locked", monkeypatch)
    assert only_problem(cases, 2) == "The scan cannot be read (no permission). Change the permissions of its folder."


def test_label_of_another_shape_or_spacing_is_reported(cases: list[Case]) -> None:
    assert cases[1].label
    write_nifti(cases[1].label, ellipsoid_scan((24, 24, 22))[1])
    assert "a different grid (24 x 24 x 22 voxels of 2 x 2 x 2 mm) from " in only_problem(cases, 1)
    write_nifti(cases[1].label, ellipsoid_scan()[1], spacing_mm=2.1)
    assert "a different grid" in only_problem(cases, 1)


def test_missing_and_empty_labels_are_reported(cases: list[Case]) -> None:
    cases[0] = replace(cases[0], label=None)
    assert "but no label" in only_problem(cases, 0)
    assert cases[1].label
    write_nifti(cases[1].label, np.zeros((24, 24, 24), np.uint8))
    assert [fact.problems[0].split(".")[0] for fact in facts_of(cases)[:2]] == [
        "The case has the role labelled, but no label",
        "The label is empty: no voxel is labelled",
    ]


def test_wrong_channel_count_and_unknown_label_values_are_reported(cases: list[Case]) -> None:
    two = replace(RECIPE, input_channels=2)
    assert all(
        "number of channels is 1 in the scan, but 2 in the recipe" in fact.problems[0] for fact in facts_of(cases, two)
    )
    assert cases[3].label
    write_nifti(cases[3].label, 3 * ellipsoid_scan()[1])
    assert "The label holds the label value 3, but the recipe 'la' has only the label value 1" in only_problem(cases, 3)


def test_image_listed_as_a_label_is_reported(cases: list[Case]) -> None:
    values = np.random.default_rng(0).integers(0, 256, (24, 24, 24)).astype(np.uint8)
    other = cases[0].image.with_name("other.nrrd")
    assert cases[3].label
    write_labelmap(replace(read_labelmap(cases[3].label), voxels=values), other)
    cases[3] = replace(cases[3], label=other)
    problem = "The label holds 255 different values, like a scan. Choose the case's label, or map its values."
    assert only_problem(cases, 3) == problem


def test_label_value_255_stands_for_the_class_of_a_recipe_with_one_class(cases: list[Case]) -> None:
    assert cases[3].label
    mask = ellipsoid_scan()[1]
    write_nifti(cases[3].label, 255 * mask)
    assert facts_of(cases)[3].labels == (1,)
    assert facts_of(cases)[3].problems == ()
    # Beside another label value, 255 is refused.
    mask[0, 0, 0] = 7
    write_nifti(cases[3].label, np.where(mask == 1, 255, mask).astype(np.uint8))
    assert "The label holds the label values 7, 255, but the recipe" in only_problem(cases, 3)
    # With several classes, 255 could mean any class.
    wall = replace(RECIPE.classes[0], label=2, name="Wall")
    write_nifti(cases[3].label, 255 * ellipsoid_scan()[1])
    assert "The label holds the label value 255, but the recipe" in only_problem(
        cases, 3, replace(RECIPE, classes=(*RECIPE.classes, wall))
    )


def test_class_absent_from_all_labels_is_reported(cases: list[Case]) -> None:
    wall = replace(RECIPE.classes[0], label=2, name="Wall")
    recipe = replace(RECIPE, classes=(*RECIPE.classes, wall))
    (message,) = list_problems(cases, facts_of(cases, recipe), recipe)
    assert message.startswith("No labelled case holds the class 'Wall' (label value 2)")


def test_class_is_not_reported_as_absent_if_labels_cannot_be_read(cases: list[Case]) -> None:
    for case in cases[:2]:
        assert case.label is not None
        case.label.write_bytes(b"no label")
    facts = facts_of(cases)
    assert [len(fact.problems) for fact in facts] == [1, 1, 0, 0]
    assert list_problems(cases, facts, RECIPE) == []


def test_list_without_labelled_cases_is_reported(cases: list[Case]) -> None:
    cases = [replace(case, role=UNLABELLED) for case in cases]
    (message,) = list_problems(cases, facts_of(cases), RECIPE)
    assert message.startswith("No case is labelled")


@pytest.mark.parametrize("how", ["file", "link", "content"])
def test_validation_scan_that_is_also_a_training_scan_is_reported(cases: list[Case], tmp_path: Path, how: str) -> None:
    other = tmp_path / "other.nii.gz"
    if how == "link":
        other.symlink_to(cases[2].image)
    elif how == "content":
        shutil.copyfile(cases[2].image, other)
    cases[3] = replace(cases[3], image=cases[2].image if how == "file" else other)
    facts = facts_of(cases)
    relation = "has the same content as the scan of" if how == "content" else "is also the scan of"
    assert facts[3].problems == (f"The scan {relation} the training case 'unlabelled0'. Leave one of these cases out.",)
    assert facts[2].problems == (
        f"The scan {relation} the validation case 'validation0'. Leave one of these cases out.",
    )
    assert facts[0].problems == facts[1].problems == ()
    cases[2] = replace(cases[2], role=LEFT_OUT)
    assert facts_of(cases)[3].problems == ()


@pytest.mark.parametrize(("header", "data"), [(".hdr", ".img"), (".mhd", ".raw"), (".nhdr", ".raw")])
def test_data_files_beside_headers_are_compared(cases: list[Case], tmp_path: Path, header: str, data: str) -> None:
    for number in (0, 3):
        voxels = SimpleITK.ReadImage(str(cases[number].image)) + number
        (tmp_path / f"p{number}").mkdir()
        cases[number] = replace(cases[number], image=tmp_path / f"p{number}" / f"scan{header}")
        SimpleITK.WriteImage(voxels, str(cases[number].image))
    assert cases[0].image.read_bytes() == cases[3].image.read_bytes()
    assert [(facts.problems, facts.warnings) for facts in facts_of(cases)] == [((), ())] * 4
    shutil.copy(cases[0].image.with_suffix(data), cases[3].image.with_suffix(data))
    assert facts_of(cases)[3].problems


def write_scan(image: SimpleITK.Image, path: Path) -> Path:
    """Write a scan, as DICOM slices if `path` has no ending."""
    if path.suffix:
        SimpleITK.WriteImage(image, str(path))
    else:
        write_mr_series(path, SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), np.diag((2.0, 2.0, 2.0, 1.0)))
    return path


@pytest.mark.parametrize(
    ("trained", "validated"),
    [("p1.nii.gz", "copy.nii.gz"), ("p1.nii.gz", "p1.nii"), ("p1.nii.gz", "saved.nrrd"), ("dicom", "nifti.nii.gz")],
)
def test_check_and_training_refuse_a_training_scan_for_validation(
    cases: list[Case], tmp_path: Path, trained: str, validated: str
) -> None:
    check_cases_and_batch(RECIPE, cases)
    image = SimpleITK.Cast(SimpleITK.ReadImage(str(cases[0].image)), SimpleITK.sitkInt16)
    cases[0] = replace(cases[0], image=write_scan(image, tmp_path / trained))
    cases[3] = replace(cases[3], image=write_scan(image, tmp_path / validated))
    problem = problem_of_equal_scans(cases)
    with pytest.raises(InputError) as caught:
        dcamt.train(cases, tmp_path / "run", recipe=tiny_recipe("iterations=1"), device="cpu")
    assert str(caught.value) == f"{cases[3].image}: {problem.removeprefix('The scan ')}"
    assert not (tmp_path / "run" / "cases.csv").exists()


def test_check_and_training_refuse_a_copied_dicom_folder_for_validation(cases: list[Case], tmp_path: Path) -> None:
    image = SimpleITK.Cast(SimpleITK.ReadImage(str(cases[0].image)), SimpleITK.sitkInt16)
    cases[0] = replace(cases[0], image=write_scan(image, tmp_path / "dicom"))
    cases[3] = replace(cases[3], image=shutil.copytree(tmp_path / "dicom", tmp_path / "copy"))
    problem_of_equal_scans(cases)
    with pytest.raises(InputError, match="has the same content as the scan of the training case 'labelled0'"):
        dcamt.train(cases, tmp_path / "run", recipe=tiny_recipe("iterations=1"), device="cpu")


def problem_of_equal_scans(cases: list[Case]) -> str:
    """Return the only problem of the last case."""
    facts = facts_of(cases)
    assert [len(fact.problems) for fact in facts] == [1, 0, 0, 1]
    (problem,) = facts[3].problems
    assert problem == (
        "The scan has the same content as the scan of the training case 'labelled0'. Leave one of these cases out."
    )
    return problem


def test_check_reads_each_scan_once_and_training_each_training_scan_once(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def record(path: Path, channels: int = 1) -> Volume:
        read.append(path)
        return read_scan(path, channels)

    monkeypatch.setattr("dcamt.cases.case_scans.read_scan", record)
    facts_of(cases)
    assert read == [case.image for case in cases]
    read.clear()
    dcamt.train(cases, tmp_path / "run", recipe=tiny_recipe("iterations=1"), device="cpu")
    assert [path for path in read if path != cases[3].image] == [case.image for case in cases[:3]]


def test_training_accepts_two_training_cases_with_equal_scans(cases: list[Case], tmp_path: Path) -> None:
    copy = tmp_path / "copy.nii.gz"
    shutil.copy(cases[0].image, copy)
    cases[3] = replace(cases[3], image=copy, role=LABELLED)
    dcamt.train(cases, tmp_path / "run", recipe=tiny_recipe("iterations=1"), device="cpu")


def test_check_and_training_report_a_class_that_occurs_in_no_label(tmp_path: Path) -> None:
    table = write_cases_folder(tmp_path, labelled=1)
    tiny = tiny_recipe("iterations=1")
    two = replace(tiny, classes=(*tiny.classes, replace(tiny.classes[0], label=2, name="Wall")))
    cases = read_cases(table)
    (problem,) = list_problems(cases, facts_of(cases, two), two)
    with pytest.raises(InputError) as caught:
        dcamt.train(table, tmp_path / "run", recipe=two, device="cpu")
    assert "the class 'Wall' (label value 2)" in problem
    assert problem.lower() in str(caught.value).lower()


def test_check_passes_although_a_left_out_case_lacks_its_scan(tmp_path: Path) -> None:
    path = write_cases_folder(tmp_path, labelled=1)
    with path.open("a", encoding="utf-8") as file:
        file.write("gone,gone.nii.gz,,left out\n")
    assert call_dcamt(["cases", "check", path]) == 0


def test_many_classes_are_checked_in_little_memory(tmp_path: Path) -> None:
    """Float32 arrays for 64 classes, one for each class, would together take up to 32 MB."""
    number, length = 64, 50
    voxels = np.random.default_rng(0).integers(1, number + 1, (10, 10, 10)).astype(np.uint8)
    voxels = voxels.repeat(length // 10, 0).repeat(length // 10, 1).repeat(length // 10, 2)
    write_nifti(tmp_path / "label.nii.gz", voxels)
    labelmap = read_labelmap(tmp_path / "label.nii.gz")
    for spacing in (labelmap.grid.spacing, (3.0, 2.5, 3.5)):
        classes = tuple(replace(RECIPE.classes[0], label=label) for label in range(1, number + 1))
        recipe = replace(RECIPE, spacing=tuple(map(float, spacing)), classes=classes)
        tracemalloc.start()
        found = classes_on_grid(labelmap, recipe)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        on_grid = labels_to_network(labelmap, network_grid(labelmap.grid, recipe.spacing), recipe.output_channels)
        assert found == set(np.unique(on_grid.numpy()).tolist()) - {0}
        assert peak < 8e6


@pytest.mark.parametrize("slab_voxels", [1, 400, 1 << 17])
def test_check_finds_the_same_classes_as_training_for_any_slab_size(
    slab_voxels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class 2 lies only at one end of the label, class 3 only at the other end.

    Class 4 is a sheet, one voxel (1.5 mm) thick, and is lost on the network grid of 4 mm.
    """
    monkeypatch.setattr("dcamt.cases.labels._SLAB_VOXELS", slab_voxels)
    voxels = np.zeros((30, 12, 14), np.uint8)
    voxels[4:26, 3:9, 3:9] = 1
    voxels[:4, 3:9, 3:9], voxels[26:, 3:9, 3:9], voxels[:, 11, :] = 2, 3, 4
    recipe = replace(
        RECIPE, spacing=(4.0, 4.0, 4.0), classes=tuple(replace(RECIPE.classes[0], label=n) for n in range(1, 5))
    )
    for axes in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        turned = voxels.transpose(axes)
        labelmap = Labelmap(turned, Grid(turned.shape, np.diag((-1.5, 1.5, 1.5, 1.0))))
        grid = network_grid(labelmap.grid, recipe.spacing)
        on_grid = labels_to_network(labelmap, grid, recipe.output_channels).numpy()
        assert classes_on_grid(labelmap, recipe) == set(np.unique(on_grid).tolist()) - {0} == {1, 2, 3}
        divided = np.zeros_like(on_grid)
        for box, labels in resample_labels_in_slabs(turned, grid, recipe.output_channels, slab_voxels):
            divided[box] = labels
        assert np.array_equal(divided, on_grid)


def test_checksum_ignores_file_format_voxel_type_axis_order_and_position(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 500, (20, 14, 16)).astype(np.int16)
    image = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing((2.0, 2.0, 2.0))
    other = SimpleITK.GetImageFromArray(voxels + (np.arange(20) == 7)[:, None, None].astype(np.int16))
    moved = SimpleITK.Image(image)
    moved.SetOrigin((30.0, -20.0, 10.0))
    images = {
        "same.nrrd": image,
        "same.nii.gz": SimpleITK.Cast(image, SimpleITK.sitkFloat32),
        "turned.nrrd": SimpleITK.PermuteAxes(SimpleITK.Flip(image, (True, False, True)), (2, 0, 1)),
        "moved.mha": moved,
        "other.nrrd": other,
        "flipped.nrrd": SimpleITK.GetImageFromArray(voxels[::-1]),
    }
    for name, written in images.items():
        SimpleITK.WriteImage(written, str(tmp_path / name))
    checksums = {name: scan_checksum(read_scan(tmp_path / name)) for name in images}
    same = {name for name, checksum in checksums.items() if checksum == checksums["same.nrrd"]}
    assert same == {"same.nrrd", "same.nii.gz", "turned.nrrd", "moved.mha"}


def test_command_prints_checksums_of_scans_only_on_request(
    cases: list[Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "list.csv", [[case.name, case.image, "", UNLABELLED] for case in cases[:2]])
    for options in ([], ["--checksums"]):
        call_dcamt(["cases", "check", table, "--json", *options])
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        last = {event["index"]: event["checksum"] for event in events if event["event"] == "case"}
        expected = [scan_checksum(read_scan(case.image)) if options else None for case in cases[:2]]
        assert [last[0], last[1]] == expected


def test_duplicate_names_are_reported(cases: list[Case]) -> None:
    cases[1] = replace(cases[1], name="labelled0")
    assert [len(fact.problems) for fact in facts_of(cases)] == [1, 1, 0, 0]


def test_missing_scan_and_duplicate_name_of_a_case_are_each_reported_once(cases: list[Case], tmp_path: Path) -> None:
    cases[2] = replace(cases[2], name="labelled0", image=tmp_path / "gone.nii.gz")
    assert facts_of(cases)[2].problems == (
        "The scan does not exist. Check the name and the folder.",
        "The name 'labelled0' occurs twice. Give each case its own name.",
    )


def test_cases_with_role_left_out_are_listed_but_not_read(tmp_path: Path) -> None:
    path = write_cases_folder(tmp_path, labelled=1, unlabelled=1)
    path.write_text(path.read_text(encoding="utf-8") + "old,gone.nii,gone_label.nii,left out\n", encoding="utf-8")
    assert [case.name for case in read_cases(path)] == ["labelled0", "unlabelled0"]
    assert [(case.name, case.role) for case in list_cases(path)][-1] == ("old", LEFT_OUT)


def test_command_prints_facts_as_json_without_importing_torch(tmp_path: Path) -> None:
    path = write_cases_folder(tmp_path, labelled=1, unlabelled=1, validation=1)
    path.write_text(path.read_text(encoding="utf-8") + "gone,gone.nii,,unlabelled\n", encoding="utf-8")
    program = (
        "import sys; from dcamt.cli import main; code = main(sys.argv[1:]);"
        "print(*sorted({'torch', 'SimpleITK'} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    arguments = [sys.executable, "-c", program, "cases", "check", str(path), "--json"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, encoding="utf-8")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"dcamt: {path}: cases with problems: 1 of 4", ""]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["case"] * 6 + ["checked"]
    assert events[0] | {"index": 0, "name": "labelled0", "size": [24] * 3, "channels": 1} == events[0]
    assert events[3]["problems"] == ["The scan does not exist. Check the name and the folder."]
    assert events[-1] == {"event": "checked", "cases": 4, "faulty": 1, "problems": [], "notes": []}


def test_commands_find_and_check_the_cases_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cases_folder(tmp_path / "data", labelled=3, unlabelled=1)
    (tmp_path / "data" / "cases.csv").unlink()
    table = tmp_path / "lists" / "cases.csv"
    assert call_dcamt(["cases", "find", tmp_path / "data", "-o", table, "--validation", "1"]) == 0
    assert f"case list: {table}" in capsys.readouterr().out
    assert [(case.name, case.role) for case in read_cases(table)] == [
        ("labelled0", LABELLED),
        ("labelled1", LABELLED),
        ("labelled2", VALIDATION),
        ("unlabelled0", UNLABELLED),
    ]
    assert call_dcamt(["cases", "check", table]) == 0
    assert call_dcamt(["cases", "find", tmp_path / "data", "--validation", "3"]) == 1
    assert "--validation 3 leaves no labelled case for training" in capsys.readouterr().err
    assert call_dcamt(["cases", "find", tmp_path / "data", "--labels", "420:1"]) == 1
    assert "'420:1' is not a label mapping. Write VALUE=CLASS" in capsys.readouterr().err


def test_case_list_with_a_missing_image_path_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_dcamt(["cases", "check", write_table(tmp_path / "cases.csv", [["a", "", "", "labelled"]])]) == 1
    assert "line 2 has no name or no image" in capsys.readouterr().err


def _save_image(voxels: np.ndarray, spacing_mm: float = 2.0) -> Callable[[Case], Case]:
    def save(case: Case) -> Case:
        write_nifti(case.image, voxels, spacing_mm=spacing_mm)
        return case

    return save


def _save_label(voxels: np.ndarray, spacing_mm: float = 2.0) -> Callable[[Case], Case]:
    def save(case: Case) -> Case:
        assert case.label
        write_nifti(case.label, voxels, spacing_mm=spacing_mm)
        return case

    return save


def _truncate(case: Case) -> Case:
    case.image.write_bytes(case.image.read_bytes()[:2000])
    return case


def _write_channels(count: int) -> Callable[[Case], Case]:
    def write(case: Case) -> Case:
        files = [case.image.with_name(f"x_{number:04d}.nii.gz") for number in range(count)]
        for number, file in enumerate(files):
            write_nifti(file, SCAN + number)
        return replace(case, image=files[0])

    return write


SCAN, LABEL = ellipsoid_scan()
TWO_CHANNELS = replace(RECIPE, input_channels=2)
BAD_CASES: dict[str, tuple[Callable[[Case], Case], Recipe]] = {
    "truncated scan": (_truncate, RECIPE),
    "scan with NaN": (_save_image(np.where(LABEL, np.nan, SCAN).astype(np.float32)), RECIPE),
    "blank scan": (_save_image(np.zeros((24, 24, 24), np.int16)), RECIPE),
    "thin scan": (_save_image(SCAN[:2]), RECIPE),
    "two volumes for one channel": (_save_image(np.stack([SCAN, SCAN + 1], axis=-1)), RECIPE),
    "three volumes for two channels": (_save_image(np.stack([SCAN, SCAN, SCAN], axis=-1)), TWO_CHANNELS),
    "one volume for two channels": (lambda case: case, TWO_CHANNELS),
    "three files for two channels": (_write_channels(3), TWO_CHANNELS),
    "label of several volumes": (_save_label(np.stack([LABEL, LABEL], axis=-1)), RECIPE),
    "label on another grid": (_save_label(LABEL, 2.3), RECIPE),
    "empty label": (_save_label(0 * LABEL), RECIPE),
    "unknown label value": (_save_label(7 * LABEL), RECIPE),
    "fractional label": (_save_label(0.5 * LABEL), RECIPE),
    "class that is too thin": (lambda case: case, replace(RECIPE, spacing=(20.0, 20.0, 20.0))),
    "unknown class in the label mapping": (lambda case: replace(case, labels="1=heart"), RECIPE),
    "label mapping without a voxel": (lambda case: replace(case, labels="7=1"), RECIPE),
}


@pytest.mark.parametrize("name", BAD_CASES)
def test_check_estimate_and_training_refuse_a_bad_case_with_the_same_message(tmp_path: Path, name: str) -> None:
    (case,) = read_cases(write_cases_folder(tmp_path, labelled=1))
    change, recipe = BAD_CASES[name]
    case = change(case)
    problem = only_problem([case], 0, recipe)
    message = refusal(lambda: load_case(case, recipe, torch.device("cpu")))
    assert message.startswith((f"{case.image}: ", f"{case.label}: "))
    what = message.partition(": ")[2]
    assert problem in (f"The scan {what}", f"The label {what}", f"{what[:1].upper()}{what[1:]}")
    # `dcamt estimate` reads only headers and label mappings.
    assert refusal(lambda: read_case_grid(case, recipe)) in (message, "")


def refusal(call: Callable[[], object]) -> str:
    """Return the message of the InputError that `call` raises, "" if it raises none."""
    try:
        call()
    except InputError as error:
        return str(error)
    return ""


def test_structure_too_thin_for_the_network_grid_is_reported(tmp_path: Path) -> None:
    voxels = np.zeros((20, 20, 20), np.uint8)
    voxels[5:15, 5:15, 5:15] = 1
    voxels[:, 17, :] = 2
    scan = np.random.default_rng(0).integers(0, 500, voxels.shape).astype(np.int16)
    write_nifti(tmp_path / "scan.nii.gz", scan)
    write_nifti(tmp_path / "label.nii.gz", voxels)
    case = Case("a", tmp_path / "scan.nii.gz", tmp_path / "label.nii.gz", LABELLED)
    two = replace(RECIPE, classes=(*RECIPE.classes, replace(RECIPE.classes[0], label=2, name="Scar")))
    assert only_problem([case], 0, replace(two, spacing=(8.0, 8.0, 8.0))) == (
        "The label holds the class 'Scar' (largest component: 3.2 mL), which has no voxel on the recipe's grid"
        " (spacing: 8 x 8 x 8 mm). Set a finer spacing in the recipe."
    )
    (facts,) = facts_of([case], replace(two, spacing=(2.0, 2.0, 2.0)))
    assert facts.problems == ()


def scan_of_27_cubes() -> np.ndarray:
    first, second, third = (np.arange(length) * 3 // length for length in (24, 24, 24))
    return (9 * first[:, None, None] + 3 * second[:, None] + third).astype(np.int16)


@pytest.mark.parametrize(
    ("voxels", "count"),
    [
        (ellipsoid_scan()[1], 2),
        ((np.arange(24**3).reshape(24, 24, 24) % 8).astype(np.int16) * 100, 8),
        (scan_of_27_cubes(), 27),
    ],
    ids=["2 intensities", "8 intensities", "27 intensities"],
)
def test_scan_of_few_intensities_causes_a_warning(tmp_path: Path, voxels: np.ndarray, count: int) -> None:
    cases = read_cases(write_cases_folder(tmp_path, labelled=1, unlabelled=2))
    write_nifti(cases[1].image, voxels)
    facts = facts_of(cases)
    assert facts[1].warnings == (
        f"The scan has only {count} different intensities, like a label. Check that the file is the scan.",
    )
    assert facts[1].problems == ()  # the scan could be a phantom
    assert facts[0].warnings == facts[2].warnings == ()


def test_header_with_two_spacings_causes_a_warning(cases: list[Case]) -> None:
    contradict_spacing(cases[2].image)
    facts = facts_of(cases)
    assert [len(fact.warnings) for fact in facts] == [0, 0, 1, 0]
    assert facts[2].warnings[0].startswith("The header states two spacings of the voxels")


def test_scan_that_is_its_own_label_is_refused(tmp_path: Path) -> None:
    cases = read_cases(write_cases_folder(tmp_path, labelled=2))
    cases[1] = replace(cases[1], image=cases[1].label)
    assert "The label is the scan itself" in only_problem(cases, 1)
    with pytest.raises(InputError, match="is the scan itself"):
        load_case(cases[1], RECIPE, torch.device("cpu"))


def test_label_in_a_folder_without_permission_is_refused(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = tmp_path / "locked" / "label.nii.gz"
    deny_folder(label.parent, monkeypatch)
    case = replace(cases[1], label=label)
    refused(lambda: load_case(case, RECIPE, torch.device("cpu")), label, "cannot be read (no permission)")


def test_label_file_of_two_scans_causes_a_warning_for_both_cases(tmp_path: Path) -> None:
    cases = read_cases(write_cases_folder(tmp_path, labelled=3))
    cases[2] = replace(cases[2], label=cases[0].label)
    facts = facts_of(cases)
    assert [fact.warnings for fact in facts] == [
        (f"The label is also that of '{cases[2].name}'. Check that each case has its own label.",),
        (),
        (f"The label is also that of '{cases[0].name}'. Check that each case has its own label.",),
    ]


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (
            lambda label: write_nifti(label, 1 - ellipsoid_scan()[1]),
            "% of the scan. Check that its background is 0.",
        ),
        (
            lambda label: write_nifti(label, (np.indices((24, 24, 24))[0] < 15).astype(np.uint8)),
            "The label covers 62% of the scan.",
        ),
        (
            lambda label: write_labelmap(read_labelmap(label), label, mark=True),
            "is a result of DCAMT that was not corrected",
        ),
    ],
    ids=["covers most of the scan", "covers more than half of the scan", "result of DCAMT"],
)
def test_unusual_label_causes_a_warning(tmp_path: Path, change: Callable[[Path], object], warning: str) -> None:
    cases = read_cases(write_cases_folder(tmp_path, labelled=2))
    assert cases[0].label
    change(cases[0].label)
    facts = facts_of(cases)
    assert warning in facts[0].warnings[0]
    assert facts[1].warnings == ()


def test_training_notes_are_the_warnings_of_the_check_with_their_file(cases: list[Case], tmp_path: Path) -> None:
    write_nifti(cases[1].image, ellipsoid_scan()[1])
    contradict_spacing(cases[2].image)
    for case in (cases[0], cases[3]):
        assert case.label is not None
        write_nifti(case.label, 1 - ellipsoid_scan()[1])
    files = cases[0].label, cases[1].image, cases[2].image, cases[3].label
    warnings = [warning for fact in facts_of(cases) for warning in fact.warnings]
    done = dcamt.train(cases, tmp_path / "run", recipe=tiny_recipe("iterations=1"), device="cpu")
    assert list(done.notes) == [f"{file}: {warning}" for file, warning in zip(files, warnings, strict=True)]


def test_case_that_seems_to_be_commented_out_causes_a_warning(tmp_path: Path) -> None:
    cases = read_cases(write_cases_folder(tmp_path, labelled=2))
    facts = facts_of([replace(cases[0], name="#old"), replace(cases[1], name="#left", role=LEFT_OUT)])
    assert facts[0].warnings[0].startswith("The case is used although its name begins with '#'.")
    assert facts[1].warnings == ()


def test_mapped_labels_are_checked_after_mapping(tmp_path: Path) -> None:
    cases = read_cases(write_cases_folder(tmp_path, labelled=1))
    assert cases[0].label is not None
    write_nifti(cases[0].label, ellipsoid_scan()[1].astype(np.int16) * 420)
    assert "holds the label value 420, but the recipe" in facts_of(cases)[0].problems[0]
    mapped = replace(cases[0], labels=f"420={RECIPE.classes[0].name}")
    assert (facts_of([mapped])[0].labels, facts_of([mapped])[0].problems) == ((1,), ())
    loaded = load_case(mapped, RECIPE, torch.device("cpu"))
    assert loaded.label is not None
    assert loaded.label.unique().tolist() == [0, 1]


@pytest.mark.parametrize("is_copy", [False, True])
@pytest.mark.parametrize("role", [LABELLED, UNLABELLED])
def test_scan_of_two_cases_causes_a_warning(tmp_path: Path, role: str, is_copy: bool) -> None:
    cases = read_cases(write_cases_folder(tmp_path, labelled=3))
    again = cases[0].image
    if is_copy:
        again = Path(shutil.copy(again, tmp_path / "copy.nii.gz"))
    cases[2] = replace(cases[2], image=again, label=cases[2].label if role == LABELLED else None, role=role)
    facts = facts_of(cases)
    assert [fact.problems for fact in facts] == [()] * 3
    assert [fact.warnings for fact in facts] == [
        (f"The case '{cases[2].name}' has the same scan. Check that each case has its own scan.",),
        (),
        (f"The case '{cases[0].name}' has the same scan. Check that each case has its own scan.",),
    ]


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        (",", "',' is not a label mapping. "),
        ("1=aorta", "'1=aorta' names no known class. "),
        (",=left-atrium", "The label mapping has no value before '=left-atrium'. "),
    ],
)
def test_damaged_label_mapping_is_reported(mapping: str, problem: str, cases: list[Case]) -> None:
    facts = facts_of([replace(case, labels=mapping) for case in cases])
    assert facts[0].problems[0].startswith(problem)
