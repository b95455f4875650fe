"""Label values become classes of the recipe; 255 becomes the class of a one-class recipe; bad labels are refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dcamt.cases.case_list import LABELLED, Case
from dcamt.cases.labels import check_label, parse_mapping, parse_value_mapping, read_case_label
from dcamt.cases.suggestion import list_mapped_classes
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.readers import read_labelmap
from dcamt.io.writers import write_labelmap
from dcamt.recipe import Recipe
from dcamt.volume import Labelmap
from dcamt_testing.tiny_recipes import tiny_recipe

GRID = Grid((8, 9, 10), np.eye(4))


def two_class_recipe() -> Recipe:
    recipe = tiny_recipe()
    other = replace(recipe.classes[0], label=2, name="Right atrium")
    return replace(recipe, classes=(replace(recipe.classes[0], name="Left atrium"), other))


def write_label_case(path: Path, values: np.ndarray, labels: str = "") -> Case:
    """Write `values` to a label file on `GRID`; return a case with this file and the label mapping `labels`."""
    write_labelmap(Labelmap(values, GRID, None), path)
    return Case("x", Path("scan.nii"), path, LABELLED, labels)


def label_voxels(*values: int) -> np.ndarray:
    array = np.zeros(GRID.shape, np.uint16)
    array.ravel()[: len(values)] = values
    return array


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("420=left-atrium", ((420, 1),)),
        ("420 = Left Atrium, 500=right_atrium", ((420, 1), (500, 2))),
        ("420=1;421=1|500=2", ((420, 1), (421, 1), (500, 2))),
        ("420,421=left atrium, 500 = 2", ((420, 1), (421, 1), (500, 2))),
        ("LA endo=left-atrium", (("LA endo", 1),)),
    ],
)
def test_mapping_is_parsed(text: str, entries: tuple[tuple[int | str, int], ...]) -> None:
    assert tuple(parse_mapping(text, two_class_recipe().classes).items()) == entries


def test_names_of_classes_and_segments_may_have_composed_or_decomposed_accents(tmp_path: Path) -> None:
    (first, *others) = two_class_recipe().classes
    classes = (replace(first, name="Vorh\u00f6fe"), *others)
    assert parse_mapping("420=Vorho\u0308fe", classes) == {420: 1}
    path = tmp_path / "x.seg.nrrd"
    write_labelmap(Labelmap(label_voxels(1), GRID, None), path, [replace(first, name="Vorho\u0308fe")])
    for name in ("Vorh\u00f6fe", "vorho\u0308fe"):
        assert set(np.unique(read_labelmap(path, {name: 7}).voxels)) == {0, 7}
    with pytest.raises(InputError, match="no segment"):
        read_labelmap(path, {"Vorhofe": 7})


@pytest.mark.parametrize("text", ["420", "420=ventricle", "420=3", "=1", "420=1, 7", "420=1,420=2", ""])
def test_invalid_mapping_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_mapping(text, two_class_recipe().classes)


@pytest.mark.parametrize("text", ["420=aorta", "420"])
def test_error_about_a_mapping_contains_the_path_of_the_label(tmp_path: Path, text: str) -> None:
    case = write_label_case(tmp_path / "label.nii", label_voxels(420), text)
    with pytest.raises(InputError, match=re.escape(f"{case.label}: '{text}' ")):
        read_case_label(case, tiny_recipe(), GRID)


def test_classes_of_an_invalid_mapping_cannot_be_listed(tmp_path: Path) -> None:
    case = write_label_case(tmp_path / "label.nii", label_voxels(420), "420")
    with pytest.raises(InputError, match=re.escape(f"{case.label}: '420' is not a label mapping")):
        list_mapped_classes([case])


def test_error_quotes_a_mapping_that_has_no_label_value() -> None:
    with pytest.raises(InputError, match="the label mapping has no value before '=left-atrium'"):
        parse_mapping(" =left-atrium", two_class_recipe().classes)


def test_class_with_a_label_value_above_255_is_refused() -> None:
    with pytest.raises(InputError, match="'Left atrium' has the label value 420, which is above 255"):
        parse_value_mapping("1=Left atrium", [("Left atrium", 420)])
    classes = [replace(two_class_recipe().classes[0], label=300)]
    with pytest.raises(InputError, match="label value 300, which is above 255"):
        parse_mapping("1=300", classes)


def test_several_values_map_to_one_class_and_unmapped_values_to_background(tmp_path: Path) -> None:
    case = write_label_case(
        tmp_path / "l.nii.gz", label_voxels(420, 421, 500, 7), "420=left-atrium,421=left-atrium,500=right-atrium"
    )
    label = read_case_label(case, two_class_recipe(), GRID)
    assert label.voxels.ravel()[:5].tolist() == [1, 1, 2, 0, 0]
    assert check_label(case, label, two_class_recipe()) == (1, 2)


def test_value_255_is_replaced_only_if_the_recipe_has_one_class(tmp_path: Path) -> None:
    case = write_label_case(tmp_path / "l.nii.gz", label_voxels(255, 255))
    assert read_case_label(case, tiny_recipe(), GRID).voxels.max() == 1
    assert read_case_label(case, two_class_recipe(), GRID).voxels.max() == 255


def test_label_that_is_empty_or_has_an_unknown_value_or_another_grid_is_refused(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    for values, labels, message in (
        (label_voxels(0), "", "is empty: no voxel is labelled. Outline the structure"),
        (label_voxels(5), "420=1", "has no voxel with a value of the label mapping '420=1'."),
        (label_voxels(420, 421), "", "holds the label values 420, 421, but the recipe"),
    ):
        case = write_label_case(tmp_path / "l.nii.gz", values, labels)
        with pytest.raises(InputError) as caught:
            check_label(case, read_case_label(case, recipe, GRID), recipe)
        assert str(caught.value).startswith(f"{case.label}: {message}")
    case = write_label_case(tmp_path / "l.nii.gz", label_voxels(1))
    with pytest.raises(InputError, match="8 x 9 x 10"):
        read_case_label(case, recipe, Grid((8, 9, 11), np.eye(4)))


def test_segmentation_cropped_by_slicer_is_read_on_the_grid_of_the_scan(tmp_path: Path) -> None:
    """The file holds only a box around the segments."""
    small = Grid((3, 4, 5), np.array([[1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 1, 4], [0, 0, 0, 1.0]]))
    path = tmp_path / "l.seg.nrrd"
    write_labelmap(Labelmap(np.ones(small.shape, np.uint8), small, None), path, two_class_recipe().classes[:1])
    label = read_case_label(Case("x", Path("scan.nii"), path, LABELLED), two_class_recipe(), GRID)
    assert label.grid.matches(GRID)
    expected = np.zeros(GRID.shape, np.uint8)
    expected[2:5, 3:7, 4:9] = 1
    np.testing.assert_array_equal(label.voxels, expected)
