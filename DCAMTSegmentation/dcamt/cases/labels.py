"""Read the label of a case as the recipe's classes on the scan's grid, with the checks that training makes."""

from __future__ import annotations

import re

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from ..io.readers import read_labelmap
from ..recipe import Recipe
from ..volume import Labelmap, LabelMapping, fit_labelmap, is_mask_of_255, relabel_255
from .case_list import Case


def parse_mapping(text: str, recipe: Recipe) -> LabelMapping:
    """Return the mapping of a case list's cell, such as `420=left-atrium, 421=left-atrium` or `1,2=1; LA endo=1`.

    Entries are those of `volume.LabelMapping.parse`, separated by commas, semicolons or bars.

    Raises:
        InputError: an entry has another form, or names no class of the recipe.
    """
    entries = [f"{left.strip(' ,;|')}={right.strip()}" for left, right in re.findall(r"([^=]+)=([^=,;|]*)", text)]
    rest = re.sub(r"[^=]+=[^=,;|]*", "", text).strip(" ,;|")
    return LabelMapping.parse([*entries, *([rest] if rest else [])], recipe.classes)


def read_case_label(case: Case, recipe: Recipe, grid: Grid) -> Labelmap:
    """Return the label of a case in the recipe's label values, on the grid of its scan.

    Without a mapping, a mask of 255 is the class of a recipe that knows only one.

    Raises:
        InputError: as `read_labelmap` and `fit_labelmap`, or for a mapping that does not fit the recipe or the file.
    """
    assert case.label is not None
    mapping = parse_mapping(case.labels, recipe) if case.labels else None
    labelmap = fit_labelmap(read_labelmap(case.label, mapping), grid, case.image)
    first, *others = recipe.classes
    if mapping is not None or others or not is_mask_of_255(labelmap):
        return labelmap
    return relabel_255(labelmap, first.label)


def check_label(case: Case, labelmap: Labelmap, recipe: Recipe) -> tuple[int, ...]:
    """Return the values of a case's label, background excluded, after the checks that training makes.

    Raises:
        InputError: the label is empty, or holds a class that the recipe does not know.
    """
    values = tuple(int(value) for value in np.unique(labelmap.voxels) if value)
    if not values:
        what = "is empty: no voxel is labelled" + (" with a value of its mapping" if case.labels else "")
        raise InputError(what, path=case.label, remedy="Outline the scan, or make the case unlabelled.")
    unknown = [value for value in values if value >= recipe.outputs]
    if unknown:
        listed = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        known = f"the recipe '{recipe.name}' knows 1 to {recipe.outputs - 1}"
        remedy = "Map the values in the column 'labels' (420=left-atrium), renumber the label, or take another recipe."
        raise InputError(f"holds {listed}, but {known}", path=case.label, remedy=remedy)
    return values
