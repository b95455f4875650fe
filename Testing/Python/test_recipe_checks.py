"""Recipe values beyond their limits are refused with a specific message; values at their limits are accepted."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcamt.api.training_plan import choose_recipe, plan_resumed_run
from dcamt.cases.case_list import LABELLED, Case, write_cases
from dcamt.errors import InputError
from dcamt.models.package import ModelPackage, open_model, write_package
from dcamt.recipe import Recipe
from dcamt.recipe_files import load_recipe, recipe_from_dict
from dcamt.runs.folder import RunFolder
from dcamt_testing.synthetic import save_tiny_model

NAN, INFINITE = float("nan"), float("inf")
PARTS = ("supervised", "distillation", "mmd", "intra_class", "inter_class")
STRENGTHS = ("rotation_degrees", "scale", "gamma", "gain", "offset", "noise")


def la_with(changes: dict[str, Any]) -> dict[str, Any]:
    data = copy.deepcopy(load_recipe("la").to_dict())
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        (data[section] if section else data)[name] = value
    return data


def class_entries(*labels: int) -> list[dict[str, Any]]:
    (first,) = load_recipe("la").to_dict()["classes"]
    return [{**first, "label": label, "name": f"class {label}"} for label in labels]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"format": 2}, "the recipe's format is 2; this DCAMT reads 1"),
    ({"classes": []}, "the recipe names no class"),
    *(
        ({"classes": class_entries(*labels)}, "the classes must be labelled 1, 2, 3, ... in order (255 at most)")
        for labels in ((0,), (2,), (1, 3), (2, 1), (1, 1), tuple(range(1, 257)))
    ),
    *(
        ({"classes": [{**one, "name": name} for one in class_entries(1, 2)]}, "each class needs a name of its own")
        for name in ("", " ", "twice")
    ),
    *(
        (
            {"classes": [{**class_entries(1)[0], "color": color}]},
            "a class's color must be red, green and blue, each from 0 to 1",
        )
        for color in ([220, 20, 60], [0.5, -0.1, 0.5])
    ),
    *(
        (
            {"training.patch": [16, 16, 16], **change},
            "patch must be larger than 16 along at least one axis, not 16 x 16 x 16",
        )
        for change in ({"network.normalisation": "instance"}, {"training.batch": 1, "training.labelled_per_batch": 1})
    ),
    *(
        ({"spacing": [1.0, mm, 1.0]}, f"each spacing must lie between 0.05 and 20 mm, not 1 x {mm:g} x 1")
        for mm in (0.0, -1.0, 0.049, 20.1, NAN, INFINITE)
    ),
    ({"input_channels": 0}, "input_channels must be at least 1"),
    ({"intensity.rule": "zscore"}, "intensity.rule must be 'local' or 'clip'"),
    ({"intensity.low": 5.0, "intensity.high": 5.0}, "intensity.low must be less than intensity.high"),
    ({"intensity.low": NAN}, "intensity.low must be less than intensity.high"),
    ({"intensity.radius_mm": 0.0}, "intensity.radius_mm must be above 0"),
    ({"network.channels": [16]}, "network.channels must name at least two levels"),
    ({"network.channels": []}, "network.channels must name at least two levels"),
    ({"network.convolutions": [1, 2]}, "network.convolutions must have as many entries as network.channels"),
    ({"network.channels": [0, 32, 64, 128, 256]}, "channels and convolutions must be at least 1"),
    ({"network.convolutions": [1, 2, 3, 3, 0]}, "channels and convolutions must be at least 1"),
    ({"network.normalisation": "layer"}, "network.normalisation must be 'batch' or 'instance'"),
    ({"network.attention_heads": -1}, "network.attention_heads must not be negative"),
    ({"network.attention_heads": 3}, "the deepest level's channels must be a multiple of attention_heads"),
    ({"network.embedding": 0}, "network.embedding must be at least 1"),
    *(
        ({"training.patch": patch}, f"patch must be a multiple of 16 (the network's stride), not {text}")
        for patch, text in (
            ([112, 112, 88], "112 x 112 x 88"),
            ([0, 112, 80], "0 x 112 x 80"),
            ([-16, 112, 80], "-16 x 112 x 80"),
        )
    ),
    (
        {"network.channels": [16, 32, 64], "network.convolutions": [1, 2, 3], "training.patch": [112, 112, 82]},
        "patch must be a multiple of 4 (the network's stride), not 112 x 112 x 82",
    ),
    ({"training.iterations": 0}, "iterations must be at least 1"),
    ({"training.labelled_per_batch": 0}, "labelled_per_batch must lie between 1 and batch"),
    ({"training.labelled_per_batch": 5}, "labelled_per_batch must lie between 1 and batch"),
    ({"training.batch": 0}, "labelled_per_batch must lie between 1 and batch"),
    ({"training.optimiser": "lion"}, "optimiser must be 'sgd' or 'adamw'"),
    ({"training.learning_rate": 0.0}, "learning_rate must be above 0"),
    ({"training.learning_rate": NAN}, "learning_rate must be above 0"),
    ({"training.weight_average": 1.0}, "weight_average must be at least 0 and below 1"),
    ({"training.weight_average": -0.1}, "weight_average must be at least 0 and below 1"),
    ({"training.own_tokens": 1.1}, "own_tokens must lie between 0 and 1"),
    ({"training.own_tokens": -0.1}, "own_tokens must lie between 0 and 1"),
    ({"training.validate_every": 0}, "validate_every must be at least 1"),
    *(
        ({f"objective.{part}": weight}, "the objective's weights must not be negative")
        for part in PARTS
        for weight in (-0.1, NAN)
    ),
    ({"training.foreground": 1.1}, "foreground must lie between 0 and 1"),
    ({"training.foreground": NAN}, "foreground must lie between 0 and 1"),
    ({"training.weight_decay": -1e-4}, "weight_decay must not be negative"),
    ({"training.checkpoint_every_s": 0.0}, "checkpoint_every_s must be above 0"),
    *(({f"augmentation.{name}": -0.1}, "the augmentation's strengths must not be negative") for name in STRENGTHS),
    ({"objective.confidence": 1.5}, "confidence must lie between 0 and 1"),
    ({"objective.ramp_up": -0.5}, "ramp_up must lie between 0 and 1"),
    ({"objective.samples": 1}, "objective.samples must be at least 2"),
    ({"objective.distillation_temperature": 0.0}, "temperatures must be above 0"),
    ({"objective.contrast_temperature": 0.0}, "temperatures must be above 0"),
    ({"objective.contrast_temperature": NAN}, "temperatures must be above 0"),
    ({"objective.supervised": 0.0}, "objective.supervised must be above 0, since nothing is learnt without it"),
    ({"network.channels": [16, 4097, 64, 128, 256]}, "channels must be at most 4096"),
    ({"network.convolutions": [1, 65, 3, 3, 3]}, "convolutions must be at most 64"),
    ({"network.embedding": 4097}, "network.embedding must be at most 4096"),
    ({"training.batch": 1023}, "batch must be at most 1022"),
    ({"training.seed": -1}, "seed must lie between 0 and 2147483648"),
    ({"training.seed": 2**31 + 1}, "seed must lie between 0 and 2147483648"),
    ({"input_channels": 4097}, "input_channels must be at most 4096"),
    ({"training.patch": [112, 112, 4112]}, "patch must be at most 4096 along each axis"),
    ({"training.iterations": 10**9 + 1}, "iterations must be at most 1000000000"),
    *(
        ({key: value}, f"{key} must lie between {limits}, not {value:g}")
        for key, limits, *values in (
            *((f"objective.{part}", "0 and 1000", 1e6, 1e30) for part in PARTS),
            ("objective.distillation_temperature", "0.01 and 100", 1e-30, 1e30),
            ("objective.contrast_temperature", "0.01 and 100", 1e-30, 1e30),
            ("augmentation.rotation_degrees", "0 and 360", 361.0),
            ("augmentation.scale", "0 and 10", 11.0),
            *((f"augmentation.{strength}", "0 and 5", 100.0) for strength in ("gamma", "gain")),
            *((f"augmentation.{strength}", "0 and 100", 1e38) for strength in ("offset", "noise")),
            ("training.weight_decay", "0 and 1", 1e30),
            ("intensity.radius_mm", "0 and 1000", 1e30),
            ("intensity.high", "-1000000000 and 1000000000", 1e38),
            ("intensity.low", "-1000000000 and 1000000000", -1e38),
        )
        for value in values
    ),
    *(
        ({key: INFINITE}, f"{key} must be a finite number")
        for key in (
            *(f"objective.{part}" for part in PARTS),
            *(f"augmentation.{name}" for name in STRENGTHS),
            "objective.distillation_temperature",
            "objective.contrast_temperature",
            "intensity.high",
            "intensity.radius_mm",
            "training.learning_rate",
            "training.weight_decay",
            "training.checkpoint_every_s",
        )
    ),
    ({"intensity.low": -INFINITE}, "intensity.low must be a finite number"),
    *(
        ({"classes": [{**class_entries(1)[0], "color": [0.1, value, 0.3]}]}, "classes.color must be a finite number")
        for value in (NAN, INFINITE)
    ),
]

ACCEPTED: list[dict[str, Any]] = [
    {"classes": class_entries(*range(1, 256))},
    {"spacing": [0.05, 20.0, 1.0]},
    {"network.attention_heads": 0},
    {"network.attention_heads": 3, "network.channels": [16, 32, 64, 128, 96]},
    {"network.attention_heads": 0, "network.channels": [1, 3, 5, 7, 9]},
    {"network.embedding": 1},
    {"training.patch": [16, 16, 16]},
    {"network.channels": [4, 8], "network.convolutions": [1, 1], "training.patch": [2, 4, 6]},
    {"training.iterations": 1, "training.validate_every": 1, "training.batch": 1, "training.labelled_per_batch": 1},
    {"training.labelled_per_batch": 4},
    {"training.optimiser": "adamw", "training.weight_average": 0.999},
    {"training.own_tokens": 0.0},
    {"training.own_tokens": 1.0},
    {f"objective.{part}": 0.0 for part in PARTS[1:]},
    {"objective.supervised": 1e-6},
    {"network.channels": [4096, 4096], "network.convolutions": [64, 64], "network.embedding": 4096},
    {"training.batch": 1022, "training.labelled_per_batch": 1022},
    {"training.seed": 0},
    {"training.seed": 2**31},
    {"objective.samples": 2},
    {"objective.confidence": 1.0, "objective.ramp_up": 0.0},
    {"augmentation.scale": 0.0, "augmentation.mix": 0.5, "augmentation.mix_labelled": 1.0},
    {"augmentation.surroundings": 1.0},
    {"input_channels": 4096, "training.patch": [4096, 16, 16], "training.iterations": 10**9},
    {f"objective.{part}": 1000.0 for part in PARTS},
    {"objective.distillation_temperature": 0.01, "objective.contrast_temperature": 0.01},
    {"objective.distillation_temperature": 100.0, "objective.contrast_temperature": 100.0},
    {"augmentation.rotation_degrees": 360.0, "augmentation.scale": 10.0, "augmentation.gamma": 5.0},
    {"augmentation.gain": 5.0, "augmentation.offset": 100.0, "augmentation.noise": 100.0},
    {"training.weight_decay": 1.0, "intensity.radius_mm": 1000.0, "intensity.low": -1e9, "intensity.high": 1e9},
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_values_beyond_their_limits_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe_from_dict(la_with(changes), "mine.json")
    assert str(caught.value) == f"mine.json: {message}."


@pytest.mark.parametrize("changes", ACCEPTED)
def test_values_at_their_limits_are_accepted(changes: dict[str, Any]) -> None:
    data = la_with(changes)
    recipe = recipe_from_dict(data, "mine.json")
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        accepted = getattr(getattr(recipe, section) if section else recipe, name)
        if key != "classes":
            assert accepted == (tuple(value) if isinstance(value, list) else value)
    assert recipe.output_channels == 1 + len(data["classes"])


def test_infinite_and_nan_floats_are_refused_in_every_section() -> None:
    data = load_recipe("la").to_dict()
    fields = [(name, key) for name, part in data.items() if isinstance(part, dict) for key in part]
    floats = [(name, key) for name, key in fields if isinstance(data[name][key], float)]
    assert len(floats) > 20
    for name, key in floats:
        for value in (NAN, INFINITE):
            with pytest.raises(InputError):
                recipe_from_dict(la_with({f"{name}.{key}": value}), "mine.json")


@pytest.mark.parametrize("key", ["objective.copy_paste", "augmentation.blur_mm"])
def test_removed_settings_are_accepted_only_when_turned_off(key: str) -> None:
    """Run folders and models of version 0.1 hold keys of the copy-paste loss and the blur, both removed later."""
    data = la_with({key: 0.0})
    assert recipe_from_dict(data, "old.json") == load_recipe("la")
    with pytest.raises(InputError, match=rf"{key}' is 0\.5, but this setting was removed"):
        recipe_from_dict(la_with({key: 0.5}), "old.json")


@pytest.mark.parametrize("key", ["objective.copy_paste", "augmentation.blur_mm"])
def test_run_with_a_removed_setting_turned_on_is_opened_but_not_resumed(key: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.recipe.write_text(json.dumps(la_with({key: 0.5})), encoding="utf-8")
    scan = tmp_path / "a.nrrd"
    scan.touch()
    write_cases([Case("a", scan, scan, LABELLED)], run.cases)
    assert run.open()[0] == load_recipe("la")
    with pytest.raises(InputError, match=r"removed from DCAMT\. Train with a recipe file in which this key is 0"):
        plan_resumed_run(tmp_path)


@pytest.mark.parametrize("key", ["objective.copy_paste", "augmentation.blur_mm"])
def test_run_from_a_model_with_a_removed_setting_needs_a_recipe(
    key: str, tiny_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, name = key.split(".")
    data = tiny_package.recipe.to_dict()
    data[section][name] = 0.5
    path = tmp_path / "old.dcamt"
    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "to_json", lambda recipe: json.dumps(data))
        write_package(path, tiny_package)
    assert open_model(path).recipe == tiny_package.recipe
    with pytest.raises(InputError, match=f"{key}' is 0.5, but this setting was removed"):
        choose_recipe(start_from=path)
    assert choose_recipe(tiny_package.recipe, start_from=path)[0] == tiny_package.recipe


def test_run_starts_from_a_model_only_if_the_networks_are_equal(tiny_package: ModelPackage, tmp_path: Path) -> None:
    path = tmp_path / "model.dcamt"
    write_package(path, tiny_package)
    recipe = tiny_package.recipe
    # A recipe may write out the strides or leave them out. Both forms describe the same network.
    explicit = replace(recipe, network=replace(recipe.network, strides=recipe.level_strides))
    assert explicit.network != recipe.network
    assert choose_recipe(explicit, start_from=path)[0] == explicit
    with pytest.raises(
        InputError, match=r"model\.dcamt: has a different .*: embedding is 4 in the model, but 8 in the"
    ):
        choose_recipe(start_from=path, settings=["embedding=8"])
    two = replace(recipe, classes=(*recipe.classes, replace(recipe.classes[0], label=2, name="Wall")))
    with pytest.raises(InputError, match=r": the number of classes is 1 in the model, but 2 in the recipe"):
        choose_recipe(two, start_from=path)


def test_starting_model_with_another_order_of_classes_is_refused(tiny_package: ModelPackage, tmp_path: Path) -> None:
    def with_classes(*names: str) -> Recipe:
        (first,) = tiny_package.recipe.classes
        classes = tuple(replace(first, label=label, name=name) for label, name in enumerate(names, start=1))
        return replace(tiny_package.recipe, classes=classes)

    path = save_tiny_model(tmp_path / "model.dcamt", with_classes("Atrium", "Wall"))
    with pytest.raises(
        InputError, match=r"model\.dcamt: has the classes Atrium, Wall in this order, but the recipe .* wall, Atrium\."
    ):
        choose_recipe(with_classes("wall", "Atrium"), start_from=path)
    for renamed in (with_classes("atrium", "wall"), with_classes("Wall", "Scar")):
        assert choose_recipe(renamed, start_from=path)[0] == renamed


@pytest.mark.parametrize(
    ("strides", "patch", "message"),
    [
        ([[2, 2, 1]] * 2, [64, 64, 16], "network.strides must have one entry fewer than network.channels"),
        ([[2, 2, 3], *[[2, 2, 2]] * 3], [64, 64, 16], "network.strides must be 1 or 2 along each axis"),
        (
            [[1, 1, 1], *[[2, 2, 2]] * 3],
            [64, 64, 16],
            "network.strides must be 2 along at least one axis of each level",
        ),
        (
            [*[[2, 2, 1]] * 3, [2, 2, 2]],
            [64, 64, 5],
            "patch must be a multiple of 16 x 16 x 2 (the network's stride)",
        ),
    ],
)
def test_invalid_strides_are_refused(strides: Any, patch: Any, message: str) -> None:
    changes = {"network.strides": strides, "training.patch": patch}
    with pytest.raises(InputError) as caught:
        recipe_from_dict(la_with(changes), "own.json")
    assert message in str(caught.value)


def test_stride_may_differ_between_axes() -> None:
    changes = {"network.strides": [*[[2, 2, 1]] * 3, [2, 2, 2]], "training.patch": [64, 64, 6]}
    recipe = recipe_from_dict(la_with(changes), "own.json")
    assert recipe.stride == (16, 16, 2)


def test_choose_recipe_accepts_a_dictionary_of_settings() -> None:
    strides = ((2, 2, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    settings = {"strides": strides, "channel_names": ("T1",), "optimiser": "adamw", "iterations": "7"}
    numpy = {"patch": np.array([64, 64, 32]), "batch": np.int64(4), "learning_rate": np.float32(0.5)}
    recipe, _ = choose_recipe(settings=settings | numpy)
    assert (recipe.network.strides, recipe.channel_names) == (strides, ("T1",))
    training = recipe.training
    assert (training.optimiser, training.iterations, training.patch) == ("adamw", 7, (64, 64, 32))
    assert (training.batch, training.learning_rate) == (4, 0.5)


def test_error_for_a_folder_names_the_recipe_file_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").touch()
    with pytest.raises(InputError, match=rf"such as {re.escape(str(tmp_path / 'recipe.json'))}\.$"):
        load_recipe(tmp_path)
