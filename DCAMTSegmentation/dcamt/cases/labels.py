"""Parse label mappings, and read and check the labels of cases.

After reading and checking, a label holds only label values of the recipe's classes, and has the grid of the scan.
"""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import Grid, bounding_box, connected_components, network_grid
from ..io.file_identity import is_same_file
from ..io.formats import BENCHMARK_ENDING, ZIP_ENDING, ending
from ..io.readers import read_labelmap
from ..io.segment_overlaps import MappingOption
from ..label_resampling import resample_labels_in_slabs
from ..recipe import Recipe
from ..typed_names import plain_name
from ..volume import Labelmap, SegmentInfo, fit_labelmap, is_mask_of_255, relabel_255
from .case_list import Case
from .label_names import ignored_value_of, refuse_names_of_other_classes

MINIMUM_VOXELS = 4
"""A component smaller than this number of voxels of the network grid may be a drawing error."""
MANY_VALUES = 128
"""A labelmap with more label values than this number may be a scan."""
MAXIMUM_CLASS = 255
"""The highest label value of a class in a label mapping."""
_REMEDY_ABOVE = f"Choose a class with a label value of at most {MAXIMUM_CLASS}."
MAPPING_OF_LABELS = MappingOption(
    "Enter the mapping with the button Segments…, with --labels or in the case list's column 'labels'."
)
_SLAB_VOXELS = 1 << 17
"""About how many voxels of the network grid are computed in one step of `find_classes_on_grid`."""
SCAN_WITH_LABEL = (BENCHMARK_ENDING, ".hdf5", ZIP_ENDING)
"""Endings of files that may hold a scan and its label. A DICOMDIR may hold both, too."""


def parse_mapping(text: str, classes: Sequence[SegmentInfo]) -> dict[int | str, int]:
    """Parse a label mapping; return source -> label value of the source's class.

    An entry is `SOURCES=CLASS`. The sources are values or segment names. The class is a name (capitals, blanks and
    punctuation are ignored) or a label value. Commas, semicolons or bars separate sources and entries.

    Raises:
        InputError: there is no entry, an entry has another form or an unknown class, a class name is not unique,
            a class has a label value above 255, or a source occurs twice.

    >>> from ..recipe_files import load_recipe
    >>> parse_mapping("420,421=left-atrium; LA endo=1", load_recipe("la").classes)
    {420: 1, 421: 1, 'LA endo': 1}
    """
    named = [(info.name, info.label) for info in classes]
    known = ", ".join(info.name for info in classes)
    return _parse(text, [info.label for info in classes], named, f"Choose one of: {known}.")


def parse_value_mapping(
    text: str, named: Sequence[tuple[str, int]], remedy_above: str = _REMEDY_ABOVE
) -> dict[int | str, int]:
    """Parse a label mapping as `parse_mapping` does; a class is any label value from 1 to 255, or a name.

    Args:
        named: the known names and their label values. A number from 1 to 255 is always a value, never a name.
        remedy_above: the remedy in the error about a class above 255.

    Raises:
        InputError: as in `parse_mapping`.

    >>> parse_value_mapping("420,421=left-atrium; 500=2", [("Left atrium", 1)])
    {420: 1, 421: 1, 500: 2}
    """
    remedy = f"After the sign =, write a label value from 1 to {MAXIMUM_CLASS}, as in 420=1."
    if named:
        names = ", ".join(name for name, _ in named)
        remedy = f"After the sign =, write a label value from 1 to {MAXIMUM_CLASS}, or one of these names: {names}."
    above = [int(target) for target in mapping_targets(text) if target.isdecimal() and int(target) > MAXIMUM_CLASS]
    return _parse(text, [*range(1, MAXIMUM_CLASS + 1), *above], named, remedy, remedy_above)


def _parse(
    text: str,
    values: Iterable[int],
    named: Iterable[tuple[str, int]],
    remedy: str,
    remedy_above: str = _REMEDY_ABOVE,
) -> dict[int | str, int]:
    labels_by_name: defaultdict[str, set[int]] = defaultdict(set)
    for name, label in named:
        labels_by_name[plain_name(name)].add(label)
    known = dict(labels_by_name) | {str(value): {value} for value in values}
    mapping: dict[int | str, int] = {}
    for left, right in mapping_entries(text):
        sources = _words(left)
        labels = known.get(plain_name(right), set())
        if not sources:
            what = f"the label mapping has no value before '={right.strip()}'"
            raise InputError(what, remedy="Write VALUE=CLASS, such as 420=1.")
        if not labels:
            raise InputError(f"'{left.strip(' ,;|')}={right.strip()}' names no known class", remedy=remedy)
        if len(labels) > 1:
            listed = ", ".join(map(str, sorted(labels)))
            what = f"'{right.strip()}' is the name of several segments, with the label values {listed}"
            raise InputError(what, remedy="Write the label value in place of the name.")
        if max(labels) > MAXIMUM_CLASS:
            what = f"the class '{right.strip()}' has the label value {max(labels)}, which is above {MAXIMUM_CLASS}"
            raise InputError(what, remedy=remedy_above)
        for word in sources:
            source = int(word) if word.isdecimal() else word
            if source in mapping:
                raise InputError(f"the label mapping names {word} twice", remedy="Map each value to one class.")
            (mapping[source],) = labels
    return mapping


def mapping_targets(text: str) -> list[str]:
    """Return the classes that a label mapping names, in the order of the text.

    Raises InputError if the text is not a label mapping.

    >>> mapping_targets("420,421=left-atrium; 500=wall")
    ['left-atrium', 'wall']
    """
    return [right.strip() for _, right in mapping_entries(text)]


def mapping_sources(text: str) -> list[str]:
    """Return the values and names of segments that a label mapping maps, in the order of the text.

    Raises InputError if the text is not a label mapping.

    >>> mapping_sources("420,421=left-atrium; LA endo=wall")
    ['420', '421', 'LA endo']
    """
    return [source for left, _ in mapping_entries(text) for source in _words(left)]


def _words(sources: str) -> list[str]:
    return [word.strip() for word in re.split(r"[,;|]", sources) if word.strip()]


def mapping_entries(text: str) -> list[tuple[str, str]]:
    """Return the texts left and right of each "=" of a label mapping; raise InputError if `text` is not a mapping."""
    entries = re.findall(r"([^=]+)=([^=,;|]*)", text)
    rest = re.sub(r"[^=]+=[^=,;|]*", "", text).strip(" ,;|")
    if rest or not entries:
        raise InputError(f"'{rest or text}' is not a label mapping", remedy="Write VALUE=CLASS, such as 420=1.")
    return [(left, right) for left, right in entries]


@contextmanager
def naming_label(case: Case) -> Iterator[None]:
    """Add the path of the case's label to an InputError that the `with` block raises."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error), path=case.label) from error


def parse_case_mapping(case: Case, classes: Sequence[SegmentInfo]) -> dict[int | str, int] | None:
    """Return the label mapping of a case (`parse_mapping`); None if the case has none.

    Raises:
        InputError: as in `parse_mapping`; the message names the label file.
    """
    if not case.labels:
        return None
    with naming_label(case):
        return parse_mapping(case.labels, classes)


def read_case_label(case: Case, recipe: Recipe, grid: Grid) -> Labelmap:
    """Return the label of a case on the grid of its scan, after applying the case's label mapping.

    If there is no mapping and the recipe has one class, a label with only the values 0 and 255 gets the value of this
    class in place of 255.

    Raises:
        InputError: as in `read_labelmap`, `refuse_ignored_voxels`, `fit_labelmap` and `refuse_names_of_other_classes`;
            also if the mapping does not fit the recipe or the label file, or if label and scan are the same file in a
            format that cannot hold both.
    """
    assert case.label is not None
    are_files = os.path.isfile(case.label) and os.path.isfile(case.image)
    may_hold_both = ending(case.label) in SCAN_WITH_LABEL or case.label.name.upper() == "DICOMDIR"
    if are_files and not may_hold_both and is_same_file(case.label, case.image):
        raise InputError("is the scan itself", path=case.label, remedy="Choose the case's label.")
    mapping = parse_case_mapping(case, recipe.classes)
    labelmap = read_labelmap(case.label, mapping, MAPPING_OF_LABELS)
    refuse_ignored_voxels(case, labelmap, mapping)
    labelmap = fit_labelmap(labelmap, grid, case.image)
    first, *others = recipe.classes
    if mapping is None and not others and is_mask_of_255(labelmap):
        labelmap = relabel_255(labelmap, first.label)
    refuse_names_of_other_classes(case, recipe.classes, lambda value: bool((labelmap.voxels == value).any()))
    return labelmap


def refuse_ignored_voxels(
    case: Case, labelmap: Labelmap, mapping: Mapping[int | str, int] | None, folder: Path | None = None
) -> None:
    """Raise InputError if voxels of a label have the ignored value (`ignored_value_of`) and no class by the mapping.

    Args:
        labelmap: the case's label, after applying `mapping`.
        folder: as for `names_in_dataset`.
    """
    assert case.label is not None
    ignored = ignored_value_of(case.label, folder)
    if ignored is None or ignored in (mapping or ()):
        return
    stored = labelmap if mapping is None else read_labelmap(case.label)
    if (stored.voxels == ignored).any():
        what = f"has the value {ignored}, which dataset.json names 'ignore', but training needs complete outlines"
        raise InputError(what, path=case.label, remedy="Leave the case out, or complete its outline.")


def label_notes(case: Case, labelmap: Labelmap, recipe: Recipe) -> tuple[str, ...]:
    """Return the notes on a case's label; each begins with the label's path.

    If segments overlap, each voxel goes to only one of them. For each class of the recipe that loses voxels to another
    segment, a note says how many.
    """
    return tuple(f"{case.label}: {note}" for note in labelmap.notes_about(range(1, recipe.output_channels)))


def label_values(labelmap: Labelmap) -> tuple[int, ...]:
    """Return the values that occur in a labelmap, in ascending order and without background."""
    box = bounding_box(labelmap.voxels != 0)
    # `np.unique` sorts the voxels, and most labels cover only a small part of their scan.
    return () if box is None else tuple(int(value) for value in np.unique(labelmap.voxels[box]) if value)


def check_label(case: Case, labelmap: Labelmap, recipe: Recipe) -> tuple[int, ...]:
    """Check a case's label as training does; return its values without background.

    Raises:
        InputError: the label is empty, or contains a value that is no class of the recipe.
    """
    values = label_values(labelmap)
    if not values:
        raise empty_label_error(case)
    unknown = [value for value in values if value >= recipe.output_channels]
    if len(unknown) > MANY_VALUES:
        what = f"holds {len(values)} different values, like a scan"
        raise InputError(what, path=case.label, remedy="Choose the case's label, or map its values.")
    if unknown:
        listed = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        held = f"holds the label value {listed}" if len(unknown) == 1 else f"holds the label values {listed}"
        highest = recipe.output_channels - 1
        known = f"the recipe '{recipe.name}' has only the label value 1"
        if highest > 1:
            known = f"the recipe '{recipe.name}' has only the label values 1 to {highest}"
        remedy = (
            "Map the values (such as 420=1) or take another recipe. Enter a mapping with the button Segments…, with"
            " --labels or in the case list's column 'labels'."
        )
        raise InputError(f"{held}, but {known}", path=case.label, remedy=remedy)
    return values


def empty_label_error(case: Case) -> InputError:
    """Return the error for an empty label: all voxels are background, or the label mapping makes them background."""
    what, remedy = "is empty: no voxel is labelled", "Outline the structure in the scan, or choose the role unlabelled."
    if case.labels:
        what = f"has no voxel with a value of the label mapping '{case.labels}'"
        remedy = "Correct the mapping, outline the scan, or choose the role unlabelled."
    return InputError(what, path=case.label, remedy=remedy)


def refuse_thin_classes(labelmap: Labelmap, present: Collection[int], recipe: Recipe, path: Path | None) -> None:
    """Raise InputError if a class has voxels in the label but none on the network grid.

    A class without a voxel on the network grid is accepted if all its components are smaller than `MINIMUM_VOXELS` and
    another class has a voxel on the network grid.

    Args:
        present: the result of `classes_on_grid`.
        path: the label's file, for the message; None if the label is not in a file.
    """
    voxel_mm3 = labelmap.grid.voxel_volume_mm3
    is_empty = not any(info.label in present for info in recipe.classes)
    held = set(label_values(labelmap))
    for info in recipe.classes:
        if info.label in present or info.label not in held:
            continue
        components, _ = connected_components(labelmap.voxels == info.label)
        largest = np.bincount(components.ravel())[1:].max() * voxel_mm3
        if largest >= MINIMUM_VOXELS * math.prod(recipe.spacing) or is_empty:
            spacing = " x ".join(f"{mm:g}" for mm in recipe.spacing)
            what = (
                f"holds the class '{info.name}' (largest component: {largest / 1000:.2g} mL), which has no voxel on the"
                f" recipe's grid (spacing: {spacing} mm)"
            )
            raise InputError(what, path=path, remedy="Set a finer spacing in the recipe.")


def classes_on_grid(labelmap: Labelmap, recipe: Recipe) -> set[int]:
    """Return the label values of the classes that have a voxel on the network grid."""
    found = set[int]()
    for classes in find_classes_on_grid(labelmap, recipe):
        found |= classes
    return found


def find_classes_on_grid(labelmap: Labelmap, recipe: Recipe) -> Iterator[set[int]]:
    """Yield sets of label values, each after a short step; the union of the sets is the result of `classes_on_grid`.

    The search ends as soon as all classes of the label are found, which is usually after a small part of the label.
    """
    grid = network_grid(labelmap.grid, recipe.spacing)
    missing = {value for value in label_values(labelmap) if value < recipe.output_channels}
    for _, labels in resample_labels_in_slabs(labelmap.voxels, grid, recipe.output_channels, _SLAB_VOXELS):
        classes = set(np.unique(labels).tolist()) - {0}
        yield classes
        missing -= classes
        if not missing:
            return
