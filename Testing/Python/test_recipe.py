"""Test shipped recipes, recipe files, settings, and error messages about invalid recipes."""

from __future__ import annotations

import copy
import dataclasses
import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dcamt.errors import InputError
from dcamt.recipe import Recipe
from dcamt.recipe_files import load_recipe, recipe_from_dict, shipped_recipes, with_settings

CLASSES = [
    {"label": label, "name": name, "color": [0, 1, 0.5], "type": {"scheme": "SCT", "value": v, "meaning": is_a}}
    for label, name, v, is_a in (
        (1, "Cavity", "1", "Left ventricle"),
        (2, "Wall", "2", "Myocardium"),
        (3, "Other cavity", "3", "Right ventricle"),
    )
]
SMALLEST = {"name": "heart", "title": "Heart", "modality": "MRI", "spacing": [1, 1.5, 2.0], "classes": CLASSES}


def recipe_with(key: str, value: Any) -> dict[str, Any]:
    data: dict[str, Any] = copy.deepcopy(SMALLEST)
    section, _, name = key.rpartition(".")
    holder = data.setdefault(section, {}) if section else data
    holder[name] = value
    return data


def count_field_names() -> Counter[str]:
    recipe = load_recipe("la")
    names: Counter[str] = Counter()
    for recipe_field in dataclasses.fields(recipe):
        value = getattr(recipe, recipe_field.name)
        names.update([f.name for f in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else [])
        names.update([] if dataclasses.is_dataclass(value) else [recipe_field.name])
    return names


def test_left_atrium_recipe_has_the_expected_values() -> None:
    recipe = load_recipe("la")
    assert recipe.spacing == (0.625, 0.625, 0.625)
    assert recipe.training.patch == (112, 112, 80)
    assert (recipe.training.batch, recipe.training.labelled_per_batch) == (4, 2)
    assert recipe.intensity.rule == "local"
    assert "LGE" in recipe.modality
    (atrium,) = recipe.classes
    assert (atrium.label, atrium.name) == (1, "Left atrium")
    assert (atrium.type.scheme, atrium.type.value, atrium.type.meaning) == ("SCT", "82471001", "Left atrium")


def test_second_left_atrium_recipe_differs_only_in_name_title_and_training() -> None:
    first, second = load_recipe("la").to_dict(), load_recipe("la-best").to_dict()
    for key in ("name", "title", "training"):
        assert first.pop(key) != second.pop(key)
    assert first == second
    first_plan, plan = load_recipe("la").training, load_recipe("la-best").training
    assert plan.labelled_per_batch == first_plan.labelled_per_batch
    assert plan.batch > first_plan.batch
    assert plan.iterations == first_plan.iterations


def test_pancreas_recipe_has_the_expected_values() -> None:
    recipe = load_recipe("pancreas")
    assert recipe.spacing == (1.0, 1.0, 1.0)
    assert recipe.training.patch == (96, 96, 96)
    assert (recipe.intensity.rule, recipe.intensity.low, recipe.intensity.high) == ("clip", -125.0, 275.0)
    assert (recipe.training.batch, recipe.training.labelled_per_batch) == (4, 2)
    (pancreas,) = recipe.classes
    assert (pancreas.type.scheme, pancreas.type.value) == ("SCT", "15776009")


def test_every_shipped_recipe_uses_all_five_losses_and_labelled_and_unlabelled_cases() -> None:
    assert {"la", "la-best", "pancreas"} <= set(shipped_recipes())
    for name in shipped_recipes():
        recipe = load_recipe(name)
        assert recipe.name == name
        weights = recipe.objective
        parts = (weights.supervised, weights.distillation, weights.mmd, weights.intra_class, weights.inter_class)
        assert min(parts) > 0
        assert recipe.network.attention_heads > 0
        assert recipe.network.channels == (16, 32, 64, 128, 256)
        assert recipe.stride == (16, 16, 16)
        assert 0 < recipe.training.labelled_per_batch < recipe.training.batch


@pytest.mark.parametrize("name", shipped_recipes())
def test_recipe_written_as_json_is_read_back(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe_from_dict(json.loads(recipe.to_json()), "x.json") == recipe
    settings = ["patch=64,32,48", "flip=true,false,true", "mmd=0", "title=Vorhöfe", "channels=8,16", "convolutions=1,2"]
    other = with_settings(recipe, settings)
    path = tmp_path / "other.json"
    path.write_text(other.to_json(), encoding="utf-8")
    assert load_recipe(path) == other != recipe


def test_recipe_may_have_several_classes_and_channels() -> None:
    recipe = recipe_from_dict({**SMALLEST, "input_channels": 2}, "heart.json")
    assert recipe.output_channels == 4
    assert recipe.input_channels == 2
    assert recipe.spacing == (1.0, 1.5, 2.0)
    assert isinstance(recipe.spacing[0], float)
    assert [info.type.meaning for info in recipe.classes] == ["Left ventricle", "Myocardium", "Right ventricle"]
    assert recipe.classes[1].category.meaning == "Anatomical Structure"
    # Omitted keys have the defaults of the dataclasses.
    assert recipe.training == Recipe("", "", "", (1, 1, 1), ()).training
    assert recipe_from_dict(json.loads(recipe.to_json()), "heart.json") == recipe


@pytest.mark.parametrize(
    ("setting", "section", "name", "expected"),
    [
        ("iterations=50", "training", "iterations", 50),
        ("training.iterations=50", "training", "iterations", 50),
        (" iterations = 50 ", "training", "iterations", 50),
        ("patch=64,64,32", "training", "patch", (64, 64, 32)),
        ("patch=64, 64, 32", "training", "patch", (64, 64, 32)),
        ("learning_rate=1e-3", "training", "learning_rate", 1e-3),
        ("learning_rate=1", "training", "learning_rate", 1.0),
        ("optimiser=adamw", "training", "optimiser", "adamw"),
        ("flip=true,false,true", "augmentation", "flip", (True, False, True)),
        ("mmd=0", "objective", "mmd", 0.0),
        ("largest_component=false", "inference", "largest_component", False),
        ("rule=clip", "intensity", "rule", "clip"),
        ("intensity.low=-125", "intensity", "low", -125.0),
        ("attention_heads=0", "network", "attention_heads", 0),
        ("channels=8,16,32,64,128", "network", "channels", (8, 16, 32, 64, 128)),
        ("spacing=1,1,2.5", "", "spacing", (1.0, 1.0, 2.5)),
        ("input_channels=2", "", "input_channels", 2),
        ("title=A = B", "", "title", "A = B"),
    ],
)
def test_setting_changes_only_its_field(setting: str, section: str, name: str, expected: Any) -> None:
    before = load_recipe("la")
    after = with_settings(before, [setting])
    expected_dict = before.to_dict()
    (expected_dict[section] if section else expected_dict)[name] = expected
    assert after.to_dict() == expected_dict
    field = getattr(getattr(after, section) if section else after, name)
    assert type(field) is type(expected)
    assert before == load_recipe("la")


def test_settings_are_applied_in_order_and_checked_together() -> None:
    recipe = load_recipe("la")
    assert with_settings(recipe, []) == recipe
    assert with_settings(recipe, ["iterations=5", "iterations=7"]).training.iterations == 7
    # Each setting alone is invalid.
    both = with_settings(recipe, ["channels=8,16,32", "convolutions=1,1,2"])
    assert both.stride == (4, 4, 4)
    with pytest.raises(InputError, match=r"as many entries as network\.channels"):
        with_settings(recipe, ["channels=8,16,32"])


def test_names_of_settings_are_unique_and_listed_in_the_error() -> None:
    names = count_field_names()
    assert [name for name, count in names.items() if count > 1] == []
    with pytest.raises(InputError) as caught:
        with_settings(load_recipe("la"), ["nonsense=1"])
    known = set(str(caught.value).partition("Choose one of: ")[2].rstrip(".").split(", "))
    assert known == set(names) - {"classes", "format"}


def test_ambiguous_short_name_is_refused_and_full_name_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    gains = [("augmentation", "gain", float), ("intensity", "gain", float)]
    monkeypatch.setattr("dcamt.recipe_files._settable_fields", lambda: gains)
    with pytest.raises(InputError, match="there is no setting 'gain'"):
        with_settings(load_recipe("la"), ["gain=0.5"])
    assert with_settings(load_recipe("la"), ["augmentation.gain=0.5"]).augmentation.gain == 0.5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("iterations", "the setting 'iterations' is not of the form key=value"),
        ("iteration=5", "there is no setting 'iteration'"),
        ("network.iterations=5", "there is no setting 'network.iterations'"),
        ("classes=1", "there is no setting 'classes'"),
        ("format=2", "there is no setting 'format'"),
        ("training=5", "there is no setting 'training'"),
        ("iterations=many", "setting iterations: 'many' is not a valid value of this setting"),
        ("iterations=", "setting iterations: '' is not a valid value of this setting"),
        ("iterations=5.5", "setting: 'iterations' must be of type int, not 5.5"),
        ("iterations=true", "setting: 'iterations' must be of type int, not True"),
        ("iterations=5,6", "setting iterations: '5,6' is not a valid value of this setting"),
        (f"mmd=1{400 * '0'}", "setting: 'mmd' is too large a number"),
        ("mmd=null", "setting: 'mmd' must be of type float, not None"),
        ("largest_component=1", "setting: 'largest_component' must be of type bool, not 1"),
        ("patch=64,64", "setting: 'patch' must hold 3 values, not 2"),
        ("patch=64", "setting: 'patch' must hold 3 values, not 1"),
        ("patch=64,64,x", "setting patch: '64,64,x' is not a valid value of this setting"),
        ("patch=64,64,32.5", "setting: 'patch' must be of type int, not 32.5"),
        ("patch=64,64,30", "setting: patch must be a multiple of 16 (the network's stride), not 64 x 64 x 30"),
        ("iterations=0", "setting: iterations must be at least 1"),
    ],
)
def test_error_names_the_invalid_setting(setting: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        with_settings(load_recipe("la"), [setting])
    assert str(caught.value).startswith(f"{message}.")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("colour", 1, "'recipe' has the unknown key 'colour'. Choose one of: name, title, "),
        ("training.steps", 1, "'recipe.training' has the unknown key 'steps'. Choose one of: iterations, "),
        ("training", 6000, "'recipe.training' must be an object of keys and values."),
        ("training", None, "'recipe.training' must be an object of keys and values."),
        ("name", 5, "'recipe.name' must be of type str, not 5."),
        ("spacing", 1.0, "'recipe.spacing' must be a list."),
        ("spacing", "1,1,1", "'recipe.spacing' must be a list."),
        ("spacing", [1, 1], "'recipe.spacing' must hold 3 values, not 2."),
        ("spacing", [1, 1, "1"], "'recipe.spacing' must be of type float, not '1'."),
        ("spacing", [1, 1, True], "'recipe.spacing' must be of type float, not True."),
        ("input_channels", 1.0, "'recipe.input_channels' must be of type int, not 1.0."),
        ("training.iterations", True, "'recipe.training.iterations' must be of type int, not True."),
        ("training.optimiser", None, "'recipe.training.optimiser' must be of type str, not None."),
        ("augmentation.flip", [0, 0, 0], "'recipe.augmentation.flip' must be of type bool, not 0."),
        ("classes", {}, "'recipe.classes' must be a list."),
        ("classes", ["LA"], "'recipe.classes' must be an object of keys and values."),
        ("classes", [{"label": 1, "name": "x", "color": [1, 1, 1]}], "'recipe.classes' lacks the key 'type'."),
        ("classes", [{**CLASSES[0], "color": [1, 1]}], "'recipe.classes.color' must hold 3 values, not 2."),
        ("classes", [{**CLASSES[0], "type": {"scheme": "SCT"}}], "'recipe.classes.type' lacks the key 'value'."),
    ],
)
def test_error_names_the_invalid_key_or_value(key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe_from_dict(recipe_with(key, value), "mine.json")
    assert str(caught.value).startswith(f"mine.json: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(SMALLEST))
def test_error_names_the_missing_key(key: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe_from_dict({other: value for other, value in SMALLEST.items() if other != key}, "mine.json")
    assert str(caught.value) == f"mine.json: 'recipe' lacks the key '{key}'."


def test_file_that_is_not_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no recipe named 'liver'\. Shipped recipes: .*la, .*\.json file\."):
        load_recipe("liver")
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        load_recipe(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{\n  "name": "la",\n  "title" 5\n}', encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.json: is not JSON \(line 3: Expecting ':' delimiter\)"):
        load_recipe(broken)
    broken.write_bytes(b'{"name": "\xff"}')
    with pytest.raises(InputError, match=r"broken\.json: is not text in UTF-8\. Save the file as JSON in UTF-8\."):
        load_recipe(broken)
    broken.write_text('{"training": {"batch": 4, "batch": 2}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.json: has the key 'batch' twice in one object"):
        load_recipe(broken)
    broken.write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.json: 'recipe' must be an object"):
        load_recipe(broken)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000], ids=["nested too deeply", "too many digits"])
def test_json_that_python_cannot_read_is_refused(text: str, tmp_path: Path) -> None:
    unreadable = tmp_path / "unreadable.json"
    unreadable.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"unreadable\.json: cannot be read"):
        load_recipe(unreadable)
    with pytest.raises(InputError, match=r"is not a valid value of this setting"):
        with_settings(load_recipe("la"), [f"iterations={text}"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_recipe_may_be_saved_by_any_editor_under_any_name(encoding: str, tmp_path: Path) -> None:
    text = json.dumps(SMALLEST | {"title": "Größe"}, ensure_ascii=False)
    for name in ("own.json", "OWN.JSON", "own.txt", "own"):
        (tmp_path / name).write_text(text, encoding=encoding)
        assert load_recipe(tmp_path / name).title == "Größe"


def test_load_recipe_does_not_append_json_to_a_path(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps(SMALLEST), encoding="utf-8")
    with pytest.raises(InputError, match="no recipe named"):
        load_recipe(tmp_path / "own")


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("mixed_precision=False", "Write true or false, in small letters."),
        ("patch=64x64x32", "Write whole numbers, separated by commas, such as 64,64,32."),
        ("strides=2-2-1", "Write lists, separated by commas, such as [2,2,1],[2,2,2]."),
        ("learning_rate=0,01", "Write a number, such as 0.5."),
    ],
)
def test_error_says_how_to_write_a_setting(setting: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        with_settings(load_recipe("la"), [setting])
    assert str(caught.value).endswith(f"is not a valid value of this setting. {remedy}")


@pytest.mark.parametrize(
    ("as_in_file", "setting"),
    [
        ("patch=[64, 64, 32]", "patch=64,64,32"),
        ("strides=[[2,2,1],[2,2,2],[2,2,2],[2,2,2]]", "strides=[2,2,1],[2,2,2],[2,2,2],[2,2,2]"),
        ("strides=[]", "strides="),
        ('channel_names=["T1"]', 'channel_names="T1"'),
        ('channel_names=["T1"]', "channel_names=T1"),
        ('channel_names=["T1"]', "channel_names=[T1]"),
        ('channel_names=["T1, map"]', 'channel_names="T1, map"'),
        ('channel_names=["2"]', "channel_names=2"),
        ("channel_names=[]", "channel_names="),
        ('optimiser="adamw"', "optimiser=adamw"),
        ("flip=[true, false, false]", "flip=true,false,false"),
    ],
)
def test_setting_may_be_written_as_in_a_recipe_file(as_in_file: str, setting: str) -> None:
    assert with_settings(load_recipe("la"), [as_in_file]) == with_settings(load_recipe("la"), [setting])


@pytest.mark.parametrize("names", ['"T1 map","T2"', '["T1 map","T2"]', "T1\\ map,T2", '"T1 map, T2"', '"T1 map",T2'])
def test_names_of_channels_are_read_after_a_shell_removed_their_quotation_marks(names: str) -> None:
    settings = shlex.split(f"input_channels=2 channel_names={names}")
    assert with_settings(load_recipe("la"), settings).channel_names == ("T1 map", "T2")


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("patch=64", "must hold 3 values, not 1. Write whole numbers, separated by commas, such as 64,64,32."),
        ("spacing=1", "must hold 3 values, not 1. Write numbers, separated by commas, such as 0.5,0.5,2.5."),
        ("patch=[64,64]", "must hold 3 values, not 2. Write whole numbers, separated by commas, such as 64,64,32."),
        ("strides=2,2,1", "must be a list. Write lists, separated by commas, such as [2,2,1],[2,2,2]."),
        ("batch=4.5", "must be of type int, not 4.5. Write a whole number."),
    ],
)
def test_error_about_the_type_of_a_setting_says_how_to_write_it(setting: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        with_settings(load_recipe("la"), [setting])
    assert str(caught.value).endswith(remedy)
