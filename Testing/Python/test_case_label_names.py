"""Test that a label file is refused if the names of its values contradict the recipe, or if voxels are undecided.

Such a label file is refused when the cases are checked, when a recipe is suggested, and in training. The names of the
label values come from the file's segments or from `dataset.json`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dcamt.cases.case_list import LABELLED, Case
from dcamt.cases.checks import CaseFacts, check_cases
from dcamt.cases.suggestion import suggest_recipe
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.writers import write_labelmap, write_volume
from dcamt.recipe import Recipe
from dcamt.training.resident import load_case
from dcamt.volume import ANATOMICAL_STRUCTURE, Labelmap, SegmentInfo, Volume
from dcamt_testing.tiny_recipes import tiny_recipe

GRID = Grid((16, 16, 16), np.diag([2.0, 2.0, 2.0, 1.0]))
INTENSITIES = {"LA": 300, "RA": 500}
ADVICE = "Use the case list's column 'labels', --labels or the button Segments…."


def recipe_of(*names: str) -> Recipe:
    recipe = tiny_recipe()
    infos = [replace(recipe.classes[0], label=label, name=name) for label, name in enumerate(names, start=1)]
    return replace(recipe, classes=tuple(infos))


def write_case(folder: Path, name: str, values: dict[str, int], named: dict[int, str]) -> Case:
    """Write a scan and its label.

    Args:
        values: structure -> its label value.
        named: label value -> name of its segment; if empty, the label is a NIfTI file without names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scan, voxels = np.random.default_rng(0).normal(100, 10, (1, *GRID.shape)), np.zeros(GRID.shape, np.uint8)
    for structure, value in values.items():
        start = 3 if structure == "LA" else 9
        voxels[start : start + 4, 3:13, 3:13] = value
        scan[0][start : start + 4, 3:13, 3:13] = INTENSITIES[structure]
    write_volume(Volume(scan.astype(np.float32), GRID), folder / f"{name}.nrrd")
    segments = [SegmentInfo(value, text, (1.0, 0.0, 0.0), ANATOMICAL_STRUCTURE) for value, text in named.items()]
    label = folder / f"{name}{'.seg.nrrd' if named else '_label.nii.gz'}"
    write_labelmap(Labelmap(voxels, GRID), label, segments)
    return Case(name, folder / f"{name}.nrrd", label, LABELLED)


def facts_of(cases: list[Case], recipe: Recipe) -> list[CaseFacts]:
    last = {facts.index: facts for facts in check_cases(cases, recipe)}
    return [last[index] for index in range(len(cases))]


def messages_about(cases: list[Case], recipe: Recipe) -> set[str]:
    """Return the messages about the last case, from check, training and suggestion."""
    facts = facts_of(cases, recipe)
    assert not any(fact.problems for fact in facts[:-1])
    messages = {problem.removeprefix("The label ") for problem in facts[-1].problems}
    for step in (
        lambda: load_case(cases[-1], recipe, torch.device("cpu")),
        lambda: suggest_recipe(cases, None),
    ):
        with pytest.raises(InputError) as caught:
            step()
        messages.add(str(caught.value).removeprefix(f"{cases[-1].label}: "))
    return messages


def intensities_of(case: Case, recipe: Recipe) -> dict[str, float]:
    """Return {name of a class: mean intensity of the voxels that training counts as this class}."""
    resident = load_case(case, replace(recipe, spacing=(2.0, 2.0, 2.0)), torch.device("cpu"))
    assert resident.label is not None
    image = resident.image[0].float()
    return {info.name: float(image[resident.label == info.label].mean()) for info in recipe.classes}


def test_segments_with_swapped_label_values_are_refused_with_a_helpful_mapping(tmp_path: Path) -> None:
    cases = [
        write_case(tmp_path, "a", {"LA": 1, "RA": 2}, {1: "LA", 2: "RA"}),
        write_case(tmp_path, "b", {"RA": 1, "LA": 2}, {1: "RA", 2: "LA"}),
    ]
    recipe = suggest_recipe(cases[:1], None)
    assert [info.name for info in recipe.classes] == ["LA", "RA"]
    (message,) = messages_about(cases, recipe)
    assert message.startswith("has the segment 'RA' with the label value 1, but the class 'RA' has the label value 2. ")
    mapping = message.partition("for instance: ")[2].removesuffix(f". {ADVICE}")
    mapped = [replace(case, labels=mapping) for case in cases]
    assert not any(fact.problems for fact in facts_of(mapped, recipe))
    assert {info.name for info in suggest_recipe(mapped, None).classes} == {"LA", "RA"}
    assert intensities_of(mapped[0], recipe) == intensities_of(mapped[1], recipe)
    assert intensities_of(mapped[0], recipe)["LA"] < intensities_of(mapped[0], recipe)["RA"]


def test_label_values_swapped_in_dataset_json_are_refused_with_a_helpful_mapping(tmp_path: Path) -> None:
    cases = []
    for name, values in (("a", {"LA": 1, "RA": 2}), ("b", {"RA": 1, "LA": 2})):
        cases.append(write_case(tmp_path / name / "labelsTr", name, values, {}))
        description = json.dumps({"labels": {"background": 0, **values}})
        (tmp_path / name / "dataset.json").write_text(description, encoding="utf-8")
    recipe = suggest_recipe(cases[:1], None)
    (message,) = messages_about(cases, recipe)
    assert message.startswith("has the label value 1, which dataset.json names 'RA', but the class 'RA' has the label")
    mapping = message.partition("for instance: ")[2].removesuffix(f". {ADVICE}")
    mapped = replace(cases[1], labels=mapping)
    assert not any(fact.problems for fact in facts_of([cases[0], mapped], recipe))
    assert intensities_of(cases[0], recipe) == intensities_of(mapped, recipe)
    (tmp_path / "b" / "dataset.json").write_text("{", encoding="utf-8")
    assert not facts_of(cases, recipe)[1].problems  # A damaged `dataset.json` names nothing.


def test_suggestion_compares_the_names_of_all_labels(tmp_path: Path) -> None:
    cases = [
        write_case(tmp_path, "a", {"LA": 1}, {1: "LA"}),
        write_case(tmp_path, "b", {"LA": 1, "RA": 2}, {1: "LA", 2: "RA"}),
    ]
    assert [info.name for info in suggest_recipe(cases, None).classes] == ["LA", "RA"]
    swapped = write_case(tmp_path, "c", {"RA": 1}, {1: "RA"})
    with pytest.raises(
        InputError, match=r"c\.seg\.nrrd: has the segment 'RA' with the label value 1, but the class 'RA' has the"
    ):
        suggest_recipe([*cases, swapped], None)
    with pytest.raises(
        InputError, match=r"b\.seg\.nrrd: has the segment 'RA' with the label value 2, but the class 'RA' has the"
    ):
        suggest_recipe([swapped, cases[1]], None)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"LA": 1, "RA": 2}, {1: "la", 2: "R.A."}),
        ({"LA": 1, "RA": 2}, {1: "Segment_1", 2: "Segment_2"}),
        ({"LA": 1, "RA": 2}, {1: "LA", 2: "LA"}),
        ({"LA": 1}, {1: "left atrium", 2: "LA"}),
    ],
    ids=["equal except for case and dots", "other names", "a name twice", "a segment without voxels"],
)
def test_label_is_accepted_if_its_names_do_not_clearly_conflict(
    tmp_path: Path, values: dict[str, int], named: dict[int, str]
) -> None:
    case = write_case(tmp_path, "a", values, named)
    recipe = recipe_of("LA", "RA")
    assert facts_of([case], recipe)[0].problems == ()
    assert suggest_recipe([case], None).classes[0].label == 1


def test_mask_of_255_is_not_refused_for_its_name(tmp_path: Path) -> None:
    case = write_case(tmp_path, "a", {"LA": 255}, {255: "LA"})
    assert facts_of([case], recipe_of("LA"))[0].problems == ()
    assert len(suggest_recipe([case], None).classes) == 1


def write_classes(folder: Path, **values: int) -> None:
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, **values}}), encoding="utf-8")


@pytest.mark.parametrize("name", ["Right atrium", "RV", "rechter Vorhof", "LA wall", "Pulmonary veins"])
def test_value_named_like_another_structure_than_its_class_is_refused_unless_it_is_mapped(
    tmp_path: Path, name: str
) -> None:
    recipe = recipe_of("Left atrium")
    segment = write_case(tmp_path, "a", {"LA": 1}, {1: name})
    value = write_case(tmp_path / "labelsTr", "b", {"LA": 1}, {})
    write_classes(tmp_path, **{name: 1})
    for case, what in (
        (segment, f"has the segment '{name}' with the label value 1, but the class with this value is"),
        (value, f"has the label value 1, which dataset.json names '{name}', but the class with this value is"),
    ):
        (problem,) = facts_of([case], recipe)[0].problems
        remedy = f"Choose another label or recipe. If only the name is wrong, map the value: {{}}. {ADVICE}"
        mapping = "1=Left atrium"
        assert problem == f"The label {what} 'Left atrium'. {remedy.format(mapping)}"
        with pytest.raises(InputError, match="but the class with this value is 'Left atrium'"):
            load_case(case, recipe, torch.device("cpu"))
        assert not facts_of([replace(case, labels=mapping)], recipe)[0].problems
    assert [info.name for info in suggest_recipe([segment], None).classes] == [name]


@pytest.mark.parametrize(
    "name", ["LA", "Linker Vorhof", "atrium", "endo", "左心房", "Segment_1", "label", "1", "foreground", "LA + veins"]
)
def test_value_is_accepted_if_its_name_may_stand_for_its_class(tmp_path: Path, name: str) -> None:
    case = write_case(tmp_path, "a", {"LA": 1}, {1: name})
    assert not facts_of([case], recipe_of("Left atrium"))[0].problems


@pytest.mark.parametrize(
    ("name", "class_name"),
    [("Prostata", "Prostate"), ("RA", "Radius"), ("Lateral ventricle", "LV"), ("Tumor", "Liver")],
)
def test_names_of_other_organs_are_not_judged(tmp_path: Path, name: str, class_name: str) -> None:
    case = write_case(tmp_path, "a", {"LA": 1}, {1: name})
    assert not facts_of([case], recipe_of(class_name))[0].problems


def test_abbreviation_of_a_class_with_another_label_value_is_refused_with_a_working_mapping(tmp_path: Path) -> None:
    case = write_case(tmp_path, "b", {"RA": 1, "LA": 2}, {})
    write_classes(tmp_path, RA=1, LA=2)
    recipe = recipe_of("Left atrium")
    (problem,) = facts_of([case], recipe)[0].problems
    assert "the label value 2, which dataset.json names 'LA', but the class 'Left atrium' has the label" in problem
    mapping = problem.partition("for instance: ")[2].removesuffix(f". {ADVICE}")
    assert not facts_of([replace(case, labels=mapping)], recipe)[0].problems


@pytest.mark.parametrize("labels", ["", "1=LA"])
def test_label_with_voxels_that_dataset_json_names_ignore_is_refused(tmp_path: Path, labels: str) -> None:
    case = replace(write_case(tmp_path, "a", {"LA": 1, "RA": 2}, {}), labels=labels)
    write_classes(tmp_path, LA=1, ignore=2)
    (message,) = messages_about([case], recipe_of("LA"))
    assert message == (
        "has the value 2, which dataset.json names 'ignore', but training needs complete outlines. Leave the case out,"
        " or complete its outline."
    )
    complete = write_case(tmp_path, "b", {"LA": 1}, {})
    mapped = replace(case, labels="1,2=LA")
    assert not any(facts.problems for facts in facts_of([complete, mapped], recipe_of("LA")))
