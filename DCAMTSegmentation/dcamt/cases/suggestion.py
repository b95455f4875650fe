"""Suggest a complete recipe for a case list: spacing, intensities, classes, network, patch and batch.

As in nnU-Net (Isensee et al., Nature Methods 2021), the spacing is the median of the scans' spacings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from ..errors import InputError
from ..geometry import bounding_box, connected_components, network_grid
from ..hounsfield import is_hounsfield
from ..io.channels import channel_files, channel_names, has_channel_files
from ..io.readers import read_header, read_labelmap, read_scan, read_segments
from ..recipe import Augmentation, Inference, Intensity, Recipe, Training
from ..recipe_files import recipe_from_dict
from ..segment_colors import default_color
from ..typed_names import plain_name
from ..volume import (
    ANATOMICAL_STRUCTURE,
    Labelmap,
    SegmentInfo,
    Volume,
    fit_labelmap,
    is_mask_of_255,
)
from .case_list import LABELLED, UNLABELLED, Case
from .case_scans import unused_channel_files
from .label_names import names_in_dataset, refuse_names_of_other_classes
from .labels import (
    MAPPING_OF_LABELS,
    MAXIMUM_CLASS,
    empty_label_error,
    mapping_targets,
    naming_label,
    parse_case_mapping,
    refuse_ignored_voxels,
)
from .network_plan import plan_network

MAX_CASES = 20
"""At most this many labelled cases, evenly spaced in the list, are chosen, and their scans are read.

The scan of any other labelled case is read only if its label has a value that the labels of the chosen cases lack.
"""
SMALL_FRACTION = 0.005
"""If the median of a class's `CaseStatistics.fractions` is lower, a higher `Training.foreground` is suggested."""


@dataclass(frozen=True)
class CaseStatistics:
    """Statistics of a labelled case; axes along patient R-L, A-P, S-I.

    Attributes:
        shape: the scan's size in its own voxels.
        spacing: mm.
        fractions: the fraction of the scan's voxels that each label value fills.
        foreground: intensities of the labelled voxels: the 0.5th percentile (lowest of
            all channels) and the 99.5th percentile (highest of all channels).
        hounsfield: for each channel, whether it is in Hounsfield units.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    fractions: dict[int, float]
    foreground: tuple[float, float]
    hounsfield: tuple[bool, ...]


def suggest_recipe(
    cases: Sequence[Case],
    memory_bytes: int | None,
    name: str = "own",
    folder: Path | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Recipe:
    """Return a complete recipe for the cases.

    Args:
        memory_bytes: free memory of the device that will train; None: 4 GiB are assumed.
        folder: the folder whose `dataset.json` names the classes; None: the folder of the first label, or its parent.
        on_note: called with each note on a label, and with that of `unused_channel_files`; the note begins with a path.

    Raises:
        InputError: no case is labelled, a label or mapping cannot be used, or the label values from 1 on have a gap.
    """
    labelled = [case for case in cases if case.role == LABELLED and case.label is not None]
    if not labelled:
        raise InputError("the list holds no labelled case", remedy="Label at least one scan.")
    mapped = list_mapped_classes(labelled)
    values_of, examined, is_single = _examine_cases(labelled, mapped, on_note, folder)
    _refuse_high_values(values_of)
    values = sorted(set().union(*values_of.values(), mapped.values()))
    classes = name_classes(labelled, values, folder, mapped)
    for case, held in values_of.items():
        refuse_names_of_other_classes(case, classes, held.__contains__)
    _refuse_gaps(classes, values, mapped)
    spacing = median_spacing(examined)
    shape = median_shape(examined, spacing)
    mixed = any(case.role == UNLABELLED for case in cases)
    batch = 4 if mixed else 2
    network, patch = plan_network(spacing, shape, batch, memory_bytes or 4 << 30)
    present = {value for case in examined for value in case.fractions}
    smallest = min(median([case.fractions[value] for case in examined if value in case.fractions]) for value in present)
    channels = len(examined[0].hounsfield)
    for index, note in unused_channel_files(cases, channels):
        on_note(f"{cases[index].image}: {note}")
    names = channel_names(labelled[0].image)
    hounsfield = all(all(case.hounsfield) for case in examined)
    recipe = Recipe(
        name=name,
        title=", ".join(info.name for info in classes),
        modality="CT" if all(any(case.hounsfield) for case in examined) else "MRI",
        spacing=spacing,
        classes=classes,
        input_channels=channels,
        channel_names=names if len(names) == channels > 1 else (),
        intensity=suggest_intensity(examined, spacing, hounsfield),
        network=network,
        augmentation=Augmentation(gamma=0.1, gain=0.1, offset=0.1) if hounsfield else Augmentation(),
        training=Training(
            iterations=3000,
            patch=patch,
            batch=batch,
            labelled_per_batch=2,
            optimiser="adamw",
            learning_rate=0.001,
            foreground=0.8 if smallest < SMALL_FRACTION else 0.5,
            weight_average=0.99,
        ),
        inference=Inference(largest_component=is_single),
    )
    return recipe_from_dict(recipe.to_dict(), "the suggested recipe")


def _refuse_high_values(values_of: Mapping[Case, set[int]]) -> None:
    for case, values in values_of.items():
        if (highest := max(values, default=0)) > MAXIMUM_CLASS:
            what = f"has the label value {highest}, but classes have label values up to {MAXIMUM_CLASS}"
            remedy = (
                "Map the values to class names, for instance: 420=left-atrium. Use the case list's column 'labels',"
                " --labels or the button Segments…."
            )
            raise InputError(what, path=case.label, remedy=remedy)


def _refuse_gaps(classes: Sequence[SegmentInfo], values: Sequence[int], mapped: Mapping[str, int]) -> None:
    """Raise InputError if `values` lack a number between 1 and the highest value."""
    missing = {info.label for info in classes} - set(values)
    if missing:
        what = f"every label value from 1 to {max(values)} must occur, but {min(missing)} is missing"
        has_numbered_classes = any(map(str.isdecimal, mapped))
        if has_numbered_classes:
            remedy = "In the label mapping, give each class a name instead of a number, for instance: 420=left-atrium."
        else:
            mapping = "; ".join(f"{info.label}={info.name}" for info in classes if info.label not in missing)
            remedy = (
                f"Map the values to class names, for instance: {mapping}. Use the case list's column 'labels', --labels"
                " or the button Segments…."
            )
        raise InputError(what, remedy=remedy)


def list_mapped_classes(cases: Sequence[Case]) -> dict[str, int]:
    """Return the label value of each class that the cases' label mappings name.

    If a class's name is a number, this number is its label value; the other classes get the unused numbers from 1 on.

    Raises:
        InputError: a mapping is malformed.
    """
    names: dict[str, str] = {}
    first_case: dict[str, Case] = {}
    for case in cases:
        first_case.setdefault(case.labels, case)
    for labels, case in first_case.items():
        with naming_label(case):
            targets = mapping_targets(labels) if labels else []
        for target in targets:
            names.setdefault(plain_name(target), target)
    classes = {name: int(name) for name in names.values() if name.isdecimal()}
    free = (number for number in itertools.count(1) if number not in classes.values())
    return classes | {name: next(free) for name in names.values() if not name.isdecimal()}


def _examine_cases(
    labelled: Sequence[Case], mapped: Mapping[str, int], on_note: Callable[[str], None], folder: Path | None
) -> tuple[dict[Case, set[int]], list[CaseStatistics], bool]:
    """Read the labels of all cases, and the scans of some cases (`MAX_CASES`).

    Returns:
        The label values of each case, the statistics of the cases whose scans are read, and whether each class has one
        component in every label (`single_classes`).
    """
    values_of: dict[Case, set[int]] = {}
    examined: list[CaseStatistics] = []
    shown: set[int] = set()
    is_single = True
    sample = labelled[:: math.ceil(len(labelled) / MAX_CASES)]
    for case in dict.fromkeys((*sample, *labelled)):
        labelmap = _read_label(case, mapped, on_note, folder)
        sizes = _class_sizes(labelmap.voxels)
        values_of[case] = set(sizes)
        if case in sample or not shown.issuperset(sizes):
            examined.append(examine_case(case, labelmap))
            shown.update(sizes)
        is_single = is_single and single_classes(labelmap.voxels, sizes).issuperset(sizes)
    return values_of, examined, is_single


def examine_case(case: Case, labelmap: Labelmap) -> CaseStatistics:
    """Read the scan of a labelled case, and return the statistics that a suggestion needs.

    Args:
        labelmap: the case's label, after applying its label mapping.

    Raises:
        InputError: the scan cannot be read, or the label is empty or does not fit the scan.
    """
    scan = _read_any(case.image)
    labels = fit_labelmap(labelmap, scan.grid, case.image).voxels
    grid = network_grid(scan.grid, (1.0, 1.0, 1.0))
    sizes = _class_sizes(labels)
    if not sizes:
        raise empty_label_error(case)
    low, high = np.percentile(scan.voxels[:, labels > 0], (0.5, 99.5), axis=1)
    return CaseStatistics(
        grid.canonical_shape,
        grid.canonical_spacing,
        {value: size / labels.size for value, size in sizes.items()},
        (float(low.min()), float(high.max())),
        tuple(is_hounsfield(channel, scan.modality) for channel in scan.voxels),
    )


def _class_sizes(labels: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def single_classes(labels: np.ndarray, sizes: Mapping[int, int]) -> set[int]:
    """Return the label values with at least 95 % of their voxels in one component.

    Args:
        sizes: the number of voxels of each value.
    """
    single = set()
    for value, size in sizes.items():
        mask = labels == value
        components, _ = connected_components(mask[bounding_box(mask)])
        if np.bincount(components.ravel())[1:].max() >= 0.95 * size:
            single.add(value)
    return single


def _read_label(
    case: Case, classes: Mapping[str, int], on_note: Callable[[str], None], folder: Path | None
) -> Labelmap:
    assert case.label is not None
    infos = [SegmentInfo(label, name, (0.0, 0.0, 0.0), ANATOMICAL_STRUCTURE) for name, label in classes.items()]
    mapping = parse_case_mapping(case, infos)
    labelmap = read_labelmap(case.label, mapping, MAPPING_OF_LABELS)
    refuse_ignored_voxels(case, labelmap, mapping, folder)
    for note in labelmap.notes:
        on_note(f"{case.label}: {note}")
    if mapping is None and is_mask_of_255(labelmap):
        labelmap = replace(labelmap, voxels=(labelmap.voxels > 0).astype(np.uint8))
    return labelmap


def _read_any(path: Path) -> Volume:
    """Read a scan with all channels of its file or of nnU-Net's channel files."""
    files = channel_files(path) if has_channel_files(path) else ()
    return read_scan(path, channels=len(files) or read_header(path).channels)


def name_classes(
    labelled: Sequence[Case], values: Sequence[int], folder: Path | None, mapped: Mapping[str, int] | None = None
) -> tuple[SegmentInfo, ...]:
    """Return the classes 1 to the highest label value, with names and colours.

    - With label mappings, the names are those of `mapped`; a number does not count as a name.
    - Without label mappings, a value's name is taken from `dataset.json` (`names_in_dataset`). If this file does not
      name the value, the name is taken from the first label with a named segment for the value.

    Raises:
        InputError: a label or the `dataset.json` cannot be read.
    """
    first = labelled[0].label
    assert first is not None
    if mapped:  # `dataset.json` names the values in the files, not the mapped values.
        names = {label: name for name, label in mapped.items() if not name.isdecimal()}
    else:
        names = dict(names_in_dataset(first, folder))
    colors: dict[int, tuple[float, float, float]] = {}
    for case in labelled if not mapped else ():
        assert case.label is not None
        for segment in read_segments(case.label):
            if segment.name:
                names.setdefault(segment.label, segment.name)
            if segment.color:
                colors.setdefault(segment.label, segment.color)
    classes, used = [], set()
    for value in range(1, max(values) + 1):
        name = names.get(value, f"Structure {value}")
        name = name if name not in used else f"{name} {value}"
        used.add(name)
        color = colors.get(value, default_color(value - 1))
        rounded = (round(color[0], 3), round(color[1], 3), round(color[2], 3))
        classes.append(SegmentInfo(value, name, rounded, ANATOMICAL_STRUCTURE))
    return tuple(classes)


def median_spacing(examined: Sequence[CaseStatistics]) -> tuple[float, float, float]:
    """Return the cases' median spacing along R-L, A-P, S-I, mm."""
    x, y, z = (round(float(median(sides)), 4) for sides in zip(*(case.spacing for case in examined), strict=True))
    return x, y, z


def median_shape(examined: Sequence[CaseStatistics], spacing: tuple[float, float, float]) -> tuple[int, int, int]:
    """Return the median size of the scans, in voxels of `spacing`."""
    sizes = [
        [max(1, round(n * scan_mm / step)) for n, scan_mm, step in zip(case.shape, case.spacing, spacing, strict=True)]
        for case in examined
    ]
    x, y, z = (round(median(sides)) for sides in zip(*sizes, strict=True))
    return x, y, z


def suggest_intensity(examined: Sequence[CaseStatistics], spacing: Sequence[float], hounsfield: bool) -> Intensity:
    """Return the intensity rule: `clip` with limits from the labelled voxels if all channels are in HU, else `local`.

    Args:
        hounsfield: whether all channels are in HU.
    """
    if not hounsfield:
        return Intensity("local", radius_mm=max(15.0, 2 * max(spacing)))
    low, high = (median([case.foreground[end] for case in examined]) for end in (0, 1))
    margin = max(50.0, 0.5 * (high - low))
    return Intensity("clip", low=round(low - margin), high=round(high + margin))
