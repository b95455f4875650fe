"""A scan's channels are read in the order of the recipe's names, whatever the order in the scan's `dataset.json`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import dcamt
import nibabel
import numpy as np
import pytest
import torch
from dcamt.api.training_plan import check_cases_and_batch, choose_recipe
from dcamt.cases.case_list import LABELLED, Case
from dcamt.cases.case_scans import read_case_scan
from dcamt.cases.checks import CaseFacts, check_cases
from dcamt.cases.suggestion import suggest_recipe
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.readers import read_scan
from dcamt.io.writers import write_volume
from dcamt.models.package import ModelPackage, write_package
from dcamt.recipe import Recipe
from dcamt.training.resident import load_case
from dcamt.volume import Volume, order_channels
from dcamt_testing.analytic_scans import random_package
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import new_trainer
from dcamt_testing.tiny_recipes import tiny_recipe_keeping_all_components

GRID = Grid((20, 18, 16), np.diag([1.5, 1.5, 1.5, 1.0]))
BALL = np.linalg.norm(np.indices(GRID.shape) - 8.0, axis=0) < 5
NAMES = ("T1", "T2", "FLAIR")
REORDERED = (
    "The order of the channels is {} in the scan, but {} in the recipe. The channels were put into the recipe's order."
)


def image_of(name: str) -> np.ndarray:
    """Return the intensities (I, J, K) of a channel; they depend only on the channel's name."""
    rng = np.random.default_rng(list(name.encode()))
    return (rng.normal(100, 10, GRID.shape) + (rng.integers(-90, 90)) * BALL).astype(np.float32)


def write_data_set(folder: Path, names: Sequence[str], in_one_file: bool = False, listed: Sequence[str] = ()) -> Case:
    """Write a data set of one case whose channels are stored in the order of `names`.

    Args:
        in_one_file: write one file with all channels, as in the Decathlon.
        listed: the names in `dataset.json`; by default `names`.
    """
    images, labels = folder / "imagesTr", folder / "labelsTr"
    images.mkdir(parents=True)
    labels.mkdir()
    channels = [image_of(name) for name in names]
    if in_one_file:
        image = images / "p.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.stack(channels, axis=-1), GRID.affine), image)
    else:
        image = images / "p_0000.nii.gz"
        for number, voxels in enumerate(channels):
            write_volume(Volume(voxels[None], GRID), images / f"p_{number:04d}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(BALL.astype(np.uint8), GRID.affine), labels / "p.nii.gz")
    key = "modality" if in_one_file else "channel_names"
    described = {key: dict(enumerate(listed or names)), "labels": {"background": 0, "LA": 1}}
    (folder / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return Case(folder.name, image, labels / "p.nii.gz", LABELLED)


def recipe_of(names: Sequence[str], channels: int = 0) -> Recipe:
    recipe = tiny_recipe_keeping_all_components()
    return replace(recipe, input_channels=channels or len(names), channel_names=tuple(names))


def facts_of(cases: list[Case], recipe: Recipe) -> list[CaseFacts]:
    last = {facts.index: facts for facts in check_cases(cases, recipe)}
    return [last[index] for index in range(len(cases))]


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    scan = Volume(np.stack([image_of("T1"), image_of("T2")]), GRID)
    return random_package(recipe_of(("T1", "T2")), scan)


@pytest.fixture
def model(package: ModelPackage, tmp_path: Path) -> Path:
    path = tmp_path / "model.dcamt"
    write_package(path, package)
    return path


@pytest.mark.parametrize("in_one_file", [False, True])
@pytest.mark.parametrize("stored", list(itertools.permutations(NAMES)), ids="-".join)
def test_channels_are_read_in_the_order_of_the_recipe(
    tmp_path: Path, stored: tuple[str, ...], in_one_file: bool
) -> None:
    case = write_data_set(tmp_path / "data", stored, in_one_file)
    scan = read_case_scan(case.image, recipe_of(NAMES))
    np.testing.assert_array_equal(scan.voxels, [image_of(name) for name in NAMES])
    assert scan.channel_names == NAMES
    note = REORDERED.format(", ".join(stored), ", ".join(NAMES))
    assert (note in scan.notes) is (stored != NAMES)
    unnamed = read_case_scan(case.image, recipe_of((), channels=3))
    np.testing.assert_array_equal(unnamed.voxels, [image_of(name) for name in stored])
    assert unnamed.channel_names == stored


@pytest.mark.parametrize(
    ("own", "names", "has_note"),
    [
        (("t1 ", "T2"), ("T1", "T2"), False),
        (("T1\u3000nativ", "Vorho\u0308fe"), ("T1 nativ", "Vorhöfe"), False),
        (("T1", "T2"), (), False),
        ((), ("T1", "T2"), False),
        (("T1", "FLAIR"), ("T1", "T2"), True),
        (("T2", "T2"), ("T1", "T2"), True),
        (("T2", "T2*"), ("T2", "T1"), True),
    ],
)
def test_channels_with_other_names_keep_their_order(
    own: tuple[str, ...], names: tuple[str, ...], has_note: bool
) -> None:
    scan = Volume(np.stack([image_of("a"), image_of("b")]), GRID, channel_names=own)
    ordered = order_channels(scan, names)
    assert ordered.voxels is scan.voxels
    text = f"The channels are named {', '.join(own)} in the scan, but {', '.join(names)} in the recipe."
    assert [note.startswith(text) for note in ordered.notes] == [True] * has_note
    assert order_channels(ordered, names).notes == ordered.notes


def test_single_channel_file_takes_its_channel_name_from_dataset_json(tmp_path: Path) -> None:
    case = write_data_set(tmp_path / "data", ("T1", "T2"))
    for number, name in enumerate(("T1", "T2")):
        scan = read_scan(case.image.with_name(f"p_{number:04d}.nii.gz"))
        assert scan.channel_names == (name,)
        notes = order_channels(scan, ("T1",)).notes
        assert any(note.startswith("The channels are named T2 in the scan, but T1") for note in notes) is (name != "T1")
    other = tmp_path / "data" / "other.nii.gz"
    write_volume(Volume(image_of("T1")[None], GRID), other)
    assert read_scan(other).channel_names == ()


def test_segmentation_does_not_depend_on_the_order_of_the_channel_files(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = dcamt.segment(write_data_set(tmp_path / "a", ("T1", "T2")).image, model, device="cpu")
    assert reference.labelmap.voxels.any()
    image = write_data_set(tmp_path / "b", ("T2", "T1")).image
    note = REORDERED.format("T2, T1", "T1, T2")
    for scan in (image, dcamt.read_scan(image, channels=2)):
        result = dcamt.segment(scan, model, device="cpu")
        np.testing.assert_array_equal(result.labelmap.voxels, reference.labelmap.voxels)
        assert result.notes.count(note) == 1
    arguments = ["segment", image, "-o", tmp_path / "out.nii.gz", "--model", model, "--device", "cpu"]
    assert call_dcamt(arguments) == 0
    assert capsys.readouterr().err.count(f"{image}: {note}") == 1
    written = np.asanyarray(nibabel.load(tmp_path / "out.nii.gz").dataobj)
    np.testing.assert_array_equal(written, reference.labelmap.voxels)


def test_check_and_training_read_the_channels_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    cases = [write_data_set(tmp_path / "a", ("T1", "T2")), write_data_set(tmp_path / "b", ("T2", "T1"))]
    recipe, note = recipe_of(("T1", "T2")), REORDERED.format("T2, T1", "T1, T2")
    facts = facts_of(cases, recipe)
    assert not any(fact.problems for fact in facts)
    assert [note in fact.warnings for fact in facts] == [False, True]
    notes: list[str] = []
    first, second = (load_case(case, recipe, torch.device("cpu"), notes.append) for case in cases)
    assert torch.equal(first.image, second.image)
    assert [text for text in notes if note in text] == [f"{cases[1].image.parent}: {note}"]


def test_mixed_orders_are_refused_if_the_recipe_does_not_name_its_channels(tmp_path: Path) -> None:
    cases = [write_data_set(tmp_path / "a", ("T1", "T2")), write_data_set(tmp_path / "b", ("T2", "T1"))]
    unnamed = recipe_of((), channels=2)
    facts = facts_of(cases, unnamed)
    assert [len(fact.problems) for fact in facts] == [0, 1]
    with pytest.raises(InputError) as caught:
        check_cases_and_batch(unnamed, cases)
    text = "has the channels in the order T2, T1, but the case 'a' in the order T1, T2. Name the channels in the recipe"
    assert str(caught.value).startswith(f"{cases[1].image}: {text}")
    assert facts[1].problems[0].startswith(f"The scan {text}")
    for fine in (cases[:1], [cases[0], replace(cases[0], name="c")]):
        check_cases_and_batch(unnamed, fine)
    check_cases_and_batch(recipe_of(("T1", "T2")), cases)


def test_suggested_limits_fit_all_channels_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcamt.cases.suggestion.is_hounsfield", lambda *_: True)
    first = write_data_set(tmp_path / "a", ("T1", "T2"))
    reference = suggest_recipe([first, replace(first, name="copy")], None)
    mixed = suggest_recipe([first, write_data_set(tmp_path / "b", ("T2", "T1"))], None)
    assert mixed.intensity.rule == "clip"
    assert (mixed.channel_names, mixed.intensity) == (("T1", "T2"), reference.intensity)
    for name in ("T1", "T2"):
        low, high = np.percentile(image_of(name)[BALL], (0.5, 99.5))
        assert mixed.intensity.low < low < high < mixed.intensity.high


@pytest.mark.parametrize(
    ("names", "expected", "note"),
    [
        (("T1", "T2"), ("T1", "T2"), ""),
        ((), ("T1", "T2"), ""),
        (("T2", "T1"), ("T1", "T2"), "The order of the channels is T1, T2 in the model, but T2, T1 in the recipe"),
        (("T1", "LGE"), ("T1", "LGE"), "The channels are named T1, T2 in the model, but T1, LGE in the recipe"),
    ],
)
def test_run_that_starts_from_a_model_has_the_order_of_the_model(
    package: ModelPackage, model: Path, names: tuple[str, ...], expected: tuple[str, ...], note: str
) -> None:
    notes: list[str] = []
    recipe, start = choose_recipe(replace(package.recipe, channel_names=names), start_from=model, on_note=notes.append)
    assert start is not None
    assert start.path == model
    assert recipe == replace(package.recipe, channel_names=expected)
    assert [text.startswith(f"{model}: {note}") for text in notes] == [True] * bool(note)


def test_checkpoint_is_refused_after_the_order_of_the_channels_was_edited(tmp_path: Path, table: Path) -> None:
    two = "input_channels=2"
    new_trainer(tmp_path / "run", table, two, "channel_names=T1,T2").save()
    with pytest.raises(InputError, match=r"last\.pt: the checkpoint does not belong to this run's recipe"):
        new_trainer(tmp_path / "run", table, two, "channel_names=T2,T1").resume()
    for names in ("T1,T2", "T1 map,T2 map", ""):
        new_trainer(tmp_path / "run", table, two, f"channel_names={names}").resume()
