"""Read a prediction and its label with mapped label values, and fit them on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..cases.label_names import ignored_value_of, names_of_values, unique_names
from ..cases.labels import MAXIMUM_CLASS, mapping_entries, mapping_sources, parse_value_mapping
from ..cases.structure_names import are_different_structures, may_be_different_structures
from ..errors import InputError, shell_argument
from ..io.dicom_files import list_names
from ..io.file_identity import is_same_file
from ..io.readers import map_labelmap, read_labelmap, read_segments
from ..io.segment_overlaps import MappingOption
from ..typed_names import plain_name
from ..volume import MASK_VALUE, Labelmap, enclosing_grid, fit_labelmap, insert_omitted_slices


@dataclass(frozen=True)
class EvaluationPair:
    """A case to evaluate."""

    case: str
    prediction: Path | Labelmap
    label: Path | Labelmap


@dataclass(frozen=True)
class LabelMappings:
    """The label mappings of the predictions and of the labels, such as "420,421=1".

    Unmapped voxels become background. An empty mapping keeps the values. If only one mapping is given, a class may be
    the name of a segment in the other file: "420=Left atrium".
    """

    prediction: str = ""
    label: str = ""


NO_MAPPINGS = LabelMappings()
_MAPPING_OF_PREDICTIONS = MappingOption("Use the option --prediction-mapping (in Python: prediction_mapping).")
_MAPPING_OF_LABELS = MappingOption("Use the option --label-mapping (in Python: label_mapping).")


def refuse_same_file(prediction: Path, label: Path) -> None:
    """Raise InputError if a prediction and its label are the same existing file or folder."""
    if is_same_file(prediction, label):
        remedy = "Choose different files for the predictions and the labels."
        raise InputError(
            "was given both as the prediction and as the label of its case", path=prediction, remedy=remedy
        )


def read_pair(pair: EvaluationPair, mappings: LabelMappings) -> tuple[Labelmap, Labelmap, np.ndarray | None]:
    """Return a prediction and its label with their values mapped, each on its own grid, and the label's ignored voxels.

    Ignored are the voxels with the value that the `dataset.json` of a label file names `ignore` (`ignored_value_of`),
    unless the label's mapping names this value. They are background in the label. The third item is a mask (I, J, K)
    on the label's grid; None if there are no such voxels.

    Raises:
        InputError: a file cannot be read, or a mapping does not fit its file.
    """
    prediction, label = pair.prediction, pair.label
    predicted = _read_mapped(
        prediction, mappings.prediction, None if mappings.label else label, _MAPPING_OF_PREDICTIONS
    )
    labelled = _read_mapped(label, mappings.label, None if mappings.prediction else prediction, _MAPPING_OF_LABELS)
    ignored = _ignored_voxels(label, labelled, mappings.label)
    return predicted, labelled if ignored is None else without_voxels(labelled, ignored), ignored


def _ignored_voxels(label: Path | Labelmap, mapped: Labelmap, mapping: str) -> np.ndarray | None:
    if isinstance(label, Labelmap):
        return None
    value = ignored_value_of(label)
    if value is None or (mapping and str(value) in mapping_sources(mapping)):
        return None
    ignored = (read_labelmap(label) if mapping else mapped).voxels == value
    return ignored if ignored.any() else None


def without_voxels(labelmap: Labelmap, mask: np.ndarray) -> Labelmap:
    """Return a labelmap whose voxels in `mask` (I, J, K) are background."""
    voxels = labelmap.voxels.copy()
    voxels[mask] = 0
    return replace(labelmap, voxels=voxels)


def compare_names(
    pair: EvaluationPair, mappings: LabelMappings, values: tuple[set[int], set[int]], only_masks: bool
) -> list[tuple[str, str]]:
    """Return notes (note, file) on label values whose names in the two files may stand for different structures.

    The names are those of segments or, if a file names none, of its `dataset.json`; that of predictions lies in their
    folder. Names are not compared if there is a mapping, or if a labelmap does not come from a file.

    Args:
        values: the values above 0 of the prediction and of the label; names of other values are not compared.
        only_masks: whether 255 counts as 1.

    Raises:
        InputError: a structure has different values in the two files, or a value certainly means two structures.
    """
    prediction, label = pair.prediction, pair.label
    if mappings.prediction or mappings.label or isinstance(prediction, Labelmap) or isinstance(label, Labelmap):
        return []
    predicted, source = _names_of(prediction, prediction.parent, values[0], only_masks)
    labelled, label_source = _names_of(label, None, values[1], only_masks)
    by_key = unique_names(labelled)
    common = [(*own, by_key[key][0]) for key, own in unique_names(predicted).items() if key in by_key]
    for value, name, other in common:
        if value != other:
            raise InputError(
                f"has the value {value} for the segment '{name}'{source}, which has the value {other} in"
                f" {label}{label_source}",
                path=prediction,
                remedy=mapping_remedy([(mine, its) for mine, _, its in common]),
            )
    notes = []
    label_names = dict(labelled)
    for value, name in predicted:
        other_name = label_names.get(value, name)
        if are_different_structures(name, other_name):
            same = mapping_remedy([(value, value) for value in sorted(values[0] | values[1])])
            raise InputError(
                f"has the value {value} for the segment '{name}'{source}, but {label} names this value"
                f" '{other_name}'{label_source}",
                path=prediction,
                remedy=f"Choose files of the same structure. If only a name is wrong: {same}",
            )
        if may_be_different_structures(name, other_name):
            what = f"the value {value} is named '{other_name}'{label_source}, but '{name}' in the prediction{source}"
            notes.append(
                (f"{what}. If these are different structures, choose other files or map the values", str(label))
            )
    return notes


def _names_of(file: Path, folder: Path | None, values: set[int], only_masks: bool) -> tuple[list[tuple[int, str]], str]:
    """Return the values and names to compare, and a remark if the names are those of `dataset.json`."""
    named, has_segments = names_of_values(file, folder)
    scored = ((1 if only_masks and value == MASK_VALUE else value, name) for value, name in named)
    return [(value, name) for value, name in scored if value in values], "" if has_segments else " (dataset.json)"


def mapping_remedy(pairs: Sequence[tuple[int, int]]) -> str:
    """Return the advice to map each pair of values (prediction, label) to one class."""
    if all(labelled <= MAXIMUM_CLASS for _, labelled in pairs):
        mapping = ",".join(f"{predicted}={labelled}" for predicted, labelled in pairs)
        return (
            f"Map the predictions' values, for example: --prediction-mapping {mapping} (in Python: prediction_mapping)."
        )
    if all(predicted <= MAXIMUM_CLASS for predicted, _ in pairs):
        mapping = ",".join(f"{labelled}={predicted}" for predicted, labelled in pairs)
        return f"Map the labels' values, for example: --label-mapping {mapping} (in Python: label_mapping)."
    first = ",".join(f"{predicted}={number}" for number, (predicted, _) in enumerate(pairs, 1))
    second = ",".join(f"{labelled}={number}" for number, (_, labelled) in enumerate(pairs, 1))
    return _map_both(first, second)


def _read_mapped(
    source: Path | Labelmap, mapping: str, other: Path | Labelmap | None, option: MappingOption
) -> Labelmap:
    """Return the labelmap of `source` with its values mapped.

    Args:
        other: the other labelmap of the pair; None if a mapping was given for the other labelmap. If `other` is a
            file, `mapping` may use the names of the file's segments as classes.
    """
    if not mapping:
        return source if isinstance(source, Labelmap) else read_labelmap(source, option=option)
    segments = read_segments(other) if isinstance(other, Path) else ()
    named = [(segment.name, segment.label) for segment in segments if segment.name]
    if other is None:
        targets = parse_value_mapping(mapping, named)
    else:
        targets = parse_value_mapping(mapping, named, _remedy_for_class_above_255(mapping, option))
    return map_labelmap(source, targets) if isinstance(source, Labelmap) else read_labelmap(source, targets)


def _remedy_for_class_above_255(mapping: str, option: MappingOption) -> str:
    """Return the advice to map both predictions and labels to the classes 1, 2, ...

    A mapping gives classes up to 255. The advice is used if `mapping` asks for a higher class.

    Args:
        mapping: the only mapping that was given.
    """
    entries = [(left.strip(" ,;|"), right.strip()) for left, right in mapping_entries(mapping)]
    numbers = {right: number for number, right in enumerate(dict.fromkeys(right for _, right in entries), 1)}
    own = shell_argument(",".join(f"{left}={numbers[right]}" for left, right in entries))
    other = shell_argument(",".join(f"{right}={number}" for right, number in numbers.items()))
    prediction, label = (own, other) if option is _MAPPING_OF_PREDICTIONS else (other, own)
    return _map_both(prediction, label)


def _map_both(prediction: str, label: str) -> str:
    return (
        f"Map the values of both, for example: --prediction-mapping {prediction} --label-mapping {label}"
        " (in Python: prediction_mapping and label_mapping)."
    )


def unmapped_text(source: Path | Labelmap, mapped: Labelmap, mapping: str) -> str:
    """Return a message if `mapping` names no value and no segment of `source`; otherwise "".

    The result is also "" if `mapping` is "" or `source` has no voxel above 0.
    """
    if not mapping or mapped.voxels.any():
        return ""
    stored = source if isinstance(source, Labelmap) else read_labelmap(source)
    held = {int(value) for value in np.unique(stored.voxels)} - {0}
    segments = read_segments(source) if isinstance(source, Path) else ()
    named = {plain_name(segment.name or "") for segment in segments} | {str(segment.label) for segment in segments}
    if not held or named & {plain_name(word) for word in mapping_sources(mapping)}:
        return ""
    listed = list_names([str(value) for value in sorted(held)])
    return f"holds only values that the mapping {mapping} does not map: {listed}"


def fit_pair(prediction: Labelmap, label: Labelmap, case: str) -> tuple[Labelmap, Labelmap]:
    """Return a prediction and its label on one grid.

    - If the label is not partial (`Labelmap.partial`), the grid is the label's.
    - If only the label is partial, the grid is the prediction's.
    - If both are partial, the grid encloses both.

    Raises:
        InputError: a labelmap does not fit this grid (`fit_labelmap`).
    """
    if label.partial and prediction.partial:
        label = insert_omitted_slices(label, prediction.grid)
        prediction = insert_omitted_slices(prediction, label.grid)
        label = fit_labelmap(label, enclosing_grid(prediction.grid, label.grid), case)
    elif label.partial:
        label = fit_labelmap(label, prediction.grid, f"its prediction {prediction.path or case}")
    return fit_labelmap(prediction, label.grid, f"its label {label.path or case}"), label
