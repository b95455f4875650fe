"""Read a prediction and its label with mapped label values, and fit them on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cases.label_names import unique_names
from ..cases.labels import MAXIMUM_CLASS, mapping_entries, mapping_sources, parse_value_mapping
from ..errors import InputError, shell_argument
from ..io.dicom_files import list_names
from ..io.file_identity import is_same_file
from ..io.readers import map_labelmap, read_labelmap, read_segments
from ..io.segment_overlaps import MappingOption
from ..typed_names import plain_name
from ..volume import Labelmap, enclosing_grid, fit_labelmap, insert_omitted_slices


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


def read_pair(pair: EvaluationPair, mappings: LabelMappings) -> tuple[Labelmap, Labelmap]:
    """Return a prediction and its label with their values mapped, each on its own grid.

    Raises:
        InputError: a file cannot be read, a mapping does not fit its file, or, without mappings, segments of the same
            name have different label values.
    """
    prediction, label = pair.prediction, pair.label
    if isinstance(prediction, Path) and isinstance(label, Path) and not (mappings.prediction or mappings.label):
        _refuse_different_segment_values(prediction, label)
    return (
        _read_mapped(prediction, mappings.prediction, None if mappings.label else label, _MAPPING_OF_PREDICTIONS),
        _read_mapped(label, mappings.label, None if mappings.prediction else prediction, _MAPPING_OF_LABELS),
    )


def _refuse_different_segment_values(prediction: Path, label: Path) -> None:
    """Raise InputError if a segment of a prediction has another value than the label's segment of the same name."""
    predicted, labelled = (
        unique_names((segment.label, segment.name) for segment in read_segments(path)) for path in (prediction, label)
    )
    common = [(*predicted[key], labelled[key][0]) for key in predicted if key in labelled]
    for value, name, other in common:
        if value != other:
            raise InputError(
                f"has the value {value} for the segment '{name}', which has the value {other} in {label}",
                path=prediction,
                remedy=mapping_remedy([(mine, its) for mine, _, its in common]),
            )


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
