"""Suggested recipes suit their cases; training with suggested recipes solves two synthetic tasks."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from dcamt.cases import label_names, suggestion
from dcamt.cases.case_list import Case, read_cases
from dcamt.cases.network_plan import CHANNELS, plan_network, plan_strides
from dcamt.cases.suggestion import list_mapped_classes, suggest_recipe
from dcamt.errors import InputError
from dcamt.hounsfield import is_hounsfield
from dcamt.inference.predictor import Predictor
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.networks.packaging import verify_model
from dcamt.recipe_files import load_recipe
from dcamt_testing.dicom_series import write_mr_series
from dcamt_testing.made_up_tasks import ball_mask, write_task
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import write_cases_folder
from scipy import ndimage


@pytest.mark.parametrize(
    ("spacing", "patch", "strides"),
    [
        ((1, 1, 1), (64, 64, 64), [(2, 2, 2)] * 4),
        ((1, 1, 8), (128, 128, 16), [(2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2)]),
        ((1, 1, 3), (128, 128, 32), [(2, 2, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)]),
        ((8, 1, 1), (4, 64, 64), [(1, 2, 2)] * 4),
        ((1, 1, 1), (16, 16, 16), [(2, 2, 2)] * 2),
    ],
)
def test_strides_follow_from_spacing_and_patch(
    spacing: tuple[float, ...], patch: tuple[int, ...], strides: list[tuple[int, int, int]]
) -> None:
    assert list(plan_strides(spacing, patch)) == strides


@pytest.mark.parametrize("memory_gb", [1.5, 4, 16, 64])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.5, 4.0)], ids=str)
def test_patch_is_not_smaller_with_more_memory_and_fits_the_network(
    spacing: tuple[float, ...], memory_gb: float
) -> None:
    shape = (256, 256, 40)
    network, patch = plan_network(spacing, shape, 2, int(memory_gb * 2**30))
    smaller = plan_network(spacing, shape, 2, 2**30)[1]
    assert math.prod(smaller) <= math.prod(patch) <= 1.2 * 112 * 112 * 80
    for axis in range(3):
        assert patch[axis] % math.prod(steps[axis] for steps in network.strides) == 0
    assert network.channels == CHANNELS[: len(network.strides) + 1]


def test_recipe_follows_from_the_cases(tmp_path: Path) -> None:
    table = write_task(tmp_path, (48, 40, 10), (1.0, 1.0, 8.0), (12.0, 5.0))
    (tmp_path / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "Heart": 1, "Scar": 2}}), encoding="utf-8"
    )
    assert call_dcamt(["recipe", "suggest", table, "-o", tmp_path / "own.json", "--device", "cpu"]) == 0
    recipe = load_recipe(tmp_path / "own.json")
    assert recipe.name == "own"
    assert recipe.spacing == (1.0, 1.0, 8.0)
    assert [info.name for info in recipe.classes] == ["Heart", "Scar"]
    assert (recipe.intensity.rule, recipe.modality) == ("local", "MRI")
    assert recipe.network.strides[0] == (2, 2, 1)
    assert (recipe.training.batch, recipe.training.labelled_per_batch) == (4, 2)
    assert recipe.training.foreground == 0.8  # because the smaller ball fills less than 0.5 % of the scan
    assert recipe.inference.largest_component


def test_value_named_ignore_in_dataset_json_is_refused_unless_it_is_mapped_to_a_class(tmp_path: Path) -> None:
    cases = read_cases(write_task(tmp_path, (16, 16, 8), (1.0, 1.0, 1.0), (4.0, 2.0)))
    values = {"background": 0, "Heart": 1, "ignore": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": values}), encoding="utf-8")
    for labels in ("", "1=Heart"):
        listed = [replace(case, labels=labels) if case.label else case for case in cases]
        with pytest.raises(InputError, match=r"_label\.nii\.gz: has the value 2, which dataset\.json names 'ignore'"):
            suggest_recipe(listed, None, folder=tmp_path)
    mapped = [replace(case, labels="1,2=Heart") if case.label else case for case in cases]
    assert [info.name for info in suggest_recipe(mapped, None, folder=tmp_path).classes] == ["Heart"]


def test_dataset_json_beside_a_mapped_label_is_not_read(tmp_path: Path) -> None:
    folders = [tmp_path / "1" / "labels", tmp_path / "2" / "labels"]
    for folder in folders:
        folder.mkdir(parents=True)
    tasks = [write_task(folder, (16, 16, 8), (1.0, 1.0, 1.0), (4.0,)) for folder in folders]
    cases = [replace(case, labels="1=Heart") for table in tasks for case in read_cases(table) if case.label]
    (folders[1] / "dataset.json").write_text("{", encoding="utf-8")
    assert [info.name for info in suggest_recipe(cases, None).classes] == ["Heart"]


def test_label_value_that_no_class_can_have_is_refused_unless_it_is_mapped(tmp_path: Path) -> None:
    cases = read_cases(write_task(tmp_path, (16, 16, 8), (1.0, 1.0, 1.0), (4.0,)))
    path = cases[0].label
    stored = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(stored.dataobj).astype(np.int16) * 420, stored.affine), path)
    with pytest.raises(
        InputError, match=r"_label\.nii\.gz: has the label value 420, .* up to 255\. Map the values to .*: 420="
    ):
        suggest_recipe(cases, None)
    mapped = [replace(case, labels="1,420=Heart") if case.label else case for case in cases]
    assert [info.name for info in suggest_recipe(mapped, None).classes] == ["Heart"]
    mapped = [replace(case, labels="421=Heart") if case.label else case for case in cases]
    with pytest.raises(InputError, match=r"has no voxel with a value of the label mapping '421=Heart'\. Correct the"):
        suggest_recipe(mapped, None)


def relabel(path: Path, old: int, new: int) -> None:
    image = nibabel.load(path)
    labels = np.asarray(image.dataobj).astype(np.uint8)  # type: ignore[attr-defined]
    labels[labels == old] = new
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), path)  # type: ignore[attr-defined]


def test_gap_in_the_label_values_is_refused_unless_the_values_are_mapped(tmp_path: Path) -> None:
    cases = read_cases(write_task(tmp_path, (16, 16, 8), (1.0, 1.0, 1.0), (4.0, 2.0)))
    for case in cases:
        if case.label is not None:
            relabel(case.label, 2, 3)
    with pytest.raises(
        InputError, match=r"every label value from 1 to 3 must occur, but 2 is missing\. .*: 1=.*; 3="
    ) as caught:
        suggest_recipe(cases, None)
    mapping = str(caught.value).partition("for instance: ")[2].partition(". Use")[0]
    mapped = [replace(case, labels=mapping) if case.label else case for case in cases]
    recipe = suggest_recipe(mapped, None)
    assert [info.label for info in recipe.classes] == [1, 2]
    numbered = [replace(case, labels="1=1; 3=3") if case.label else case for case in cases]
    with pytest.raises(InputError, match="give each class a name instead of a number, for instance: 420=left-atrium"):
        suggest_recipe(numbered, None)


def test_each_label_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = read_cases(write_task(tmp_path, (16, 16, 8), (1.0, 1.0, 1.0), (4.0, 3.0)))
    read: list[Path] = []
    monkeypatch.setattr("dcamt.cases.suggestion.MAX_CASES", 2)
    monkeypatch.setattr(
        "dcamt.cases.suggestion.read_labelmap", lambda path, *more: read.append(path) or read_labelmap(path, *more)
    )
    suggest_recipe(cases, None)
    assert sorted(read) == sorted(case.label for case in cases if case.role == "labelled" and case.label)
    assert len(read) > 2


@pytest.mark.parametrize("value", [2, 3])
def test_classes_of_all_labels_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: int) -> None:
    cases = read_cases(write_task(tmp_path, (16, 16, 8), (1.0, 1.0, 1.0), (4.0, 3.0, 2.0)))
    labelled = [case for case in cases if case.role == "labelled" and case.label]
    for case in labelled[::2]:
        assert case.label is not None
        relabel(case.label, value, 1)
    monkeypatch.setattr("dcamt.cases.suggestion.MAX_CASES", 2)
    assert [info.label for info in suggest_recipe(cases, None).classes] == [1, 2, 3]


def split_class(path: Path, value: int) -> None:
    image = nibabel.load(path)
    labels = np.asarray(image.dataobj).astype(np.uint8)  # type: ignore[attr-defined]
    labels[labels == value] = 0
    labels[:2, :2, :2] = labels[-2:, -2:, -2:] = value
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), path)  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [1, 2])
@pytest.mark.parametrize("number", range(3))
def test_largest_component_is_not_suggested_if_a_class_has_several_components_in_one_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: int, number: int
) -> None:
    """With `MAX_CASES` 1, only the scan of the first case is read, but the labels of all labelled cases are read."""
    monkeypatch.setattr("dcamt.cases.suggestion.MAX_CASES", 1)
    cases = read_cases(write_task(tmp_path, (24, 24, 24), (1.0, 1.0, 1.0), (5.0, 4.0)))
    assert suggest_recipe(cases, None).inference.largest_component
    split_class(tmp_path / f"c{number}_label.nii.gz", value)
    assert not suggest_recipe(cases, None).inference.largest_component


def test_small_class_in_a_single_label_raises_the_foreground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class 2 fills 8 of 4096 voxels, less than 0.5 %."""
    monkeypatch.setattr("dcamt.cases.suggestion.MAX_CASES", 1)
    cases = read_cases(write_task(tmp_path, (16, 16, 16), (1.0, 1.0, 1.0), (4.0,)))
    assert suggest_recipe(cases, None).training.foreground == 0.5
    image = nibabel.load(tmp_path / "c2_label.nii.gz")
    labels = np.asarray(image.dataobj).astype(np.uint8)  # type: ignore[attr-defined]
    labels[:2, :2, :2] = 2
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), tmp_path / "c2_label.nii.gz")  # type: ignore[attr-defined]
    assert suggest_recipe(cases, None).training.foreground == 0.8


def test_ct_intensities_are_clipped_to_the_range_inside_the_labels(tmp_path: Path) -> None:
    table = write_task(tmp_path, (32, 32, 32), (2.0, 2.0, 2.0), (12.0,))
    for number in range(6):
        path = tmp_path / f"c{number}.nii.gz"
        stored = nibabel.load(path)
        voxels = stored.get_fdata()
        voxels[:3] = -1000
        nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), stored.affine), path)
    recipe = suggest_recipe(read_cases(table), 4 << 30)
    assert (recipe.intensity.rule, recipe.modality) == ("clip", "CT")
    assert 50 < recipe.intensity.low < 120 < 200 < recipe.intensity.high < 320


@pytest.mark.parametrize(
    ("kinds", "rule", "modality"),
    [
        (("CT", "PET"), "local", "CT"),
        (("PET", "CT"), "local", "CT"),
        (("CT", "CT"), "clip", "CT"),
        (("PET", "PET"), "local", "MRI"),
    ],
    ids=str,
)
def test_intensities_are_clipped_only_if_all_channels_are_in_hu(
    tmp_path: Path, kinds: tuple[str, ...], rule: str, modality: str
) -> None:
    table = write_task(tmp_path, (32, 32, 32), (2.0, 2.0, 2.0), (12.0,))
    for number in range(6):
        path = tmp_path / f"c{number}.nii.gz"
        stored = nibabel.load(path)
        tissue = stored.get_fdata()
        air = np.indices(tissue.shape)[0] < 4
        channels = {"CT": np.where(air, -1000, tissue), "PET": np.where(air, 0.05, tissue / 20)}
        voxels = np.stack([channels[kind] for kind in kinds], axis=-1)
        nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), stored.affine), path)
    recipe = suggest_recipe(read_cases(table), 4 << 30)
    assert (recipe.intensity.rule, recipe.modality) == (rule, modality)


def ct_voxels(padding: int | None = None) -> np.ndarray:
    """Return intensities of CT: a body in air, with `padding` outside the circular field of view."""
    shape = (48, 48, 20)
    distance = np.linalg.norm(np.indices(shape)[:2] - 23.5, axis=0)
    noisy = np.where(distance < 16, 40, -1000) + np.random.default_rng(0).normal(0, 25, shape)
    return np.asarray(noisy.clip(-1024) if padding is None else np.where(distance < 24, noisy.clip(-1024), padding))


def psir_voxels(deviation: float) -> np.ndarray:
    """Return intensities of phase-sensitive inversion recovery: a body in air with positive and negative noise."""
    shape = (48, 48, 20)
    body = np.linalg.norm(np.indices(shape)[:2] - 23.5, axis=0) < 16
    draw = np.random.default_rng(0)
    return np.where(body, draw.normal(300, 200, shape), draw.normal(0, deviation, shape))


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_hu_are_recognised_by_the_intensities_of_air(kind: type) -> None:
    for padding in (None, -1024, -2000, -2048, -3024, -32768):
        assert is_hounsfield(ct_voxels(padding).astype(kind), "")
    enlarged = ct_voxels(-3024).repeat(8, axis=0).repeat(8, axis=1)
    resampled = ndimage.zoom(enlarged, (0.3, 0.3, 1), order=1)
    assert is_hounsfield(resampled.astype(kind), "")
    for deviation in (10, 100, 200, 300, 400, 500, 600, 700, 800, 1000, 1500, 2000):
        assert not is_hounsfield(psir_voxels(deviation).astype(kind), "")
    assert not is_hounsfield(np.abs(psir_voxels(300)).astype(kind), "")
    assert not is_hounsfield((ct_voxels() + 1024).astype(np.uint16), "")


@pytest.mark.parametrize(
    ("mean", "deviation", "fraction"),
    [(-1000, 20, 0.3), (-1000, 100, 0.3), (-850, 60, 0.3), (-850, 60, 0.03), (-750, 50, 0.05), (-700, 80, 0.3)],
)
def test_hu_are_recognised_by_the_intensities_of_lung(mean: float, deviation: float, fraction: float) -> None:
    draw = np.random.default_rng(0)
    heart = draw.normal(50, 40, (60, 60, 40))
    ct = np.where(draw.random(heart.shape) < fraction, draw.normal(mean, deviation, heart.shape), heart)
    assert is_hounsfield(ct, "")
    assert is_hounsfield(ct, "OT")
    if fraction >= 0.3:
        assert is_hounsfield(ct.clip(-800, 800), "")
    padding = np.zeros(heart.shape)
    padding[:6], padding[-12:] = -2000, -3024
    assert is_hounsfield(np.where(padding, padding, ct), "")


@pytest.mark.parametrize("limit", [400, 600, 800, 1000, 2000, 4096])
def test_noise_around_zero_is_not_in_hu(limit: float) -> None:
    draw = np.random.default_rng(0)
    for noise in (draw.uniform(-1, 1, (60, 60, 40)), draw.triangular(-1, 0, 1, (60, 60, 40))):
        assert not is_hounsfield(limit * noise, "")
        assert not is_hounsfield(limit * noise, "OT")


@pytest.mark.parametrize(
    ("stated", "kind", "modality", "rule"),
    [
        ("MR", "CT", "MRI", "local"),
        ("CT", "CT", "CT", "clip"),
        ("", "CT", "CT", "clip"),
        ("OT", "CT", "CT", "clip"),
        ("MR", "PSIR", "MRI", "local"),
        ("", "PSIR", "MRI", "local"),
        ("OT", "PSIR", "MRI", "local"),
        ("CT", "PSIR", "CT", "clip"),
    ],
)
def test_modality_comes_from_the_dicom_files_or_the_intensities(
    tmp_path: Path, stated: str, kind: str, modality: str, rule: str
) -> None:
    voxels = ct_voxels() if kind == "CT" else psir_voxels(600)
    for path in write_mr_series(tmp_path / "p", (voxels + 4096).clip(0).astype(np.uint16), np.eye(4)):
        data = pydicom.dcmread(path)
        data.Modality, data.RescaleSlope, data.RescaleIntercept = stated, 1, -4096
        data.save_as(path)
    label = ball_mask((48, 48, 20), np.ones(3), np.array([23.5, 23.5, 9.5]), 6).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), tmp_path / "label.nii.gz")
    recipe = suggest_recipe([Case("p", tmp_path / "p", tmp_path / "label.nii.gz", "labelled")], None)
    assert (recipe.modality, recipe.intensity.rule) == (modality, rule)


def test_suggested_settings_do_not_depend_on_label_mapping_or_axes_of_label_files(tmp_path: Path) -> None:
    table = write_task(tmp_path, (24, 20, 16), (2.0, 2.0, 3.0), (8.0,))
    plain = suggest_recipe(read_cases(table), 4 << 30)
    for number in range(3):
        path = tmp_path / f"c{number}_label.nii.gz"
        stored = nibabel.load(path)
        values = np.where(np.asanyarray(stored.dataobj) > 0, 420, 0).astype(np.int16)
        values[:12][values[:12] > 0] = 421
        turned = nibabel.Nifti1Image(values, stored.affine).as_reoriented([[1, -1], [2, 1], [0, 1]])
        nibabel.save(turned, path)
    arguments = ["recipe", "suggest", table, "-o", tmp_path / "own.json", "--device", "cpu"]
    assert call_dcamt([*arguments, "--labels", "420,421=Left atrium"]) == 0
    recipe = load_recipe(tmp_path / "own.json")
    assert [(info.label, info.name) for info in recipe.classes] == [(1, "Left atrium")]
    for name in ("spacing", "intensity", "inference"):
        assert getattr(recipe, name) == getattr(plain, name)
    assert recipe.training.foreground == plain.training.foreground


def test_class_named_1_has_the_label_value_1() -> None:
    cases = [Case(name, Path(), Path(), "labelled", text) for name, text in (("a", "5=wall; 6=1"), ("b", "7=Wall"))]
    assert list_mapped_classes(cases) == {"1": 1, "wall": 2}


def test_list_without_labels_is_refused(tmp_path: Path) -> None:
    table = write_task(tmp_path, (16, 16, 16), (2.0, 2.0, 2.0), (8.0,))
    cases = [case for case in read_cases(table) if case.role == "unlabelled"]
    with pytest.raises(InputError, match="holds no labelled case"):
        suggest_recipe(cases, None)


@pytest.mark.parametrize(
    ("shape", "spacing", "radii", "dice"),
    [((48, 48, 6), (1.0, 1.0, 8.0), (14.0,), 0.7), ((48, 48, 48), (1.0, 1.0, 1.0), (15.0, 3.0), 0.6)],
    ids=["thick slices", "small structure"],
)
def test_task_is_learnt_with_its_suggested_recipe(
    tmp_path: Path, shape: tuple[int, int, int], spacing: tuple[float, ...], radii: tuple[float, ...], dice: float
) -> None:
    """Iterations, patch and network are reduced, so that the test takes seconds."""
    table = write_task(tmp_path, shape, spacing, radii)  # type: ignore[arg-type]
    assert call_dcamt(["recipe", "suggest", table, "-o", tmp_path / "own.json", "--device", "cpu"]) == 0
    recipe = load_recipe(tmp_path / "own.json")
    torch.set_num_threads(1)
    levels = min(3, len(recipe.network.channels))
    strides = recipe.level_strides[: levels - 1]
    stride = [math.prod(steps) for steps in zip(*strides, strict=True)]
    patch = [max(s, min(n, 16) // s * s) for n, s in zip(recipe.training.patch, stride, strict=True)]
    small = (
        f"channels={','.join(['8', '16', '16'][:levels])}",
        f"convolutions={','.join(['1'] * levels)}",
        f"strides={','.join(str(list(steps)) for steps in strides)}",
        f"patch={','.join(map(str, patch))}",
    )
    settings = [*small, "iterations=80", "learning_rate=0.01", "weight_average=0.95", "validate_every=80"]
    recipe_file = tmp_path / "small.json"
    data = recipe.to_dict()
    recipe_file.write_text(change_settings(data, small), encoding="utf-8")
    arguments = ["train", table, "--run", tmp_path / "run", "--recipe", recipe_file, "--device", "cpu"]
    assert call_dcamt([*arguments, "--set", *settings[len(small) :]]) == 0
    predictor = Predictor(verify_model(tmp_path / "run" / "model.dcamt"))
    labels = predictor.segment(read_scan(tmp_path / "c5.nii.gz")).labelmap.voxels
    truth = read_labelmap(tmp_path / "c5_label.nii.gz").voxels
    for value in range(1, len(radii) + 1):
        a, b = labels == value, truth == value
        assert 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)) > dice, value


def change_settings(data: dict[str, object], settings: tuple[str, ...]) -> str:
    """Return the recipe as JSON with changed network and patch."""
    values = dict(setting.split("=") for setting in settings)
    network = dict(data["network"])  # type: ignore[call-overload]
    for key in ("channels", "convolutions", "strides"):
        network[key] = json.loads(f"[{values[key]}]")
    training = dict(data["training"])  # type: ignore[call-overload]
    training["patch"] = json.loads(f"[{values['patch']}]")
    return json.dumps({**data, "network": network, "training": training})


@pytest.mark.parametrize("name", ["labelled0.nii.gz", "labelled0_label.nii.gz", "dataset.json"])
def test_suggested_recipe_never_replaces_a_file_of_the_cases(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_cases_folder(tmp_path, labelled=1)
    (tmp_path / "dataset.json").write_text("{}", encoding="utf-8")
    before = (tmp_path / name).read_bytes()
    assert call_dcamt(["recipe", "suggest", table, "-o", tmp_path / name, "--overwrite", "--device", "cpu"]) == 1
    assert f"{tmp_path / name}: would be replaced by a result." in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == before


def test_dataset_json_is_read_once_for_all_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = read_cases(write_task(tmp_path, (16, 16, 8), (1.0, 1.0, 1.0), (4.0,)))
    (tmp_path / "dataset.json").write_text("{}", encoding="utf-8")
    read: list[Path] = []
    monkeypatch.setattr(label_names, "ignored_value", lambda folder: read.append(folder))
    suggest_recipe(cases, None, folder=tmp_path)
    assert read == [tmp_path]


def test_components_of_a_class_are_counted_in_the_box_of_the_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = read_cases(write_task(tmp_path, (40, 40, 40), (1.0, 1.0, 1.0), (4.0, 3.0)))[0]
    sizes: list[int] = []
    components = suggestion.connected_components
    monkeypatch.setattr(suggestion, "connected_components", lambda mask: sizes.append(mask.size) or components(mask))
    assert case.label is not None
    labels = read_labelmap(case.label).voxels
    assert suggestion.single_classes(labels, {1: int((labels == 1).sum()), 2: int((labels == 2).sum())}) == {1, 2}
    assert len(sizes) == 2
    assert max(sizes) <= 9**3
