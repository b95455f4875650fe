"""Score predictions against their labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..cases.labels import MANY_VALUES, MAXIMUM_CLASS
from ..cases.uncorrected_labels import is_uncorrected
from ..errors import InputError
from ..io.dicom_files import list_names
from ..volume import MASK_VALUE, Labelmap, OverlapNote, is_mask_of_255, relabel_255
from .evaluation import Evaluation, EvaluationRow, summarize_rows
from .pair_reading import (
    NO_MAPPINGS,
    EvaluationPair,
    LabelMappings,
    compare_names,
    fit_pair,
    mapping_remedy,
    read_pair,
    unmapped_text,
    without_voxels,
)
from .scores import BOTH_EMPTY, score

_PREDICTION_MAPPING, _LABEL_MAPPING = "--prediction-mapping", "--label-mapping"
_UNCORRECTED = (
    "the label is a result of DCAMT that was not corrected. The scores compare the prediction with this result, not"
    " with an expert's outline"
)
_SEVERAL_UNCORRECTED = (
    "these labels are results of DCAMT that were not corrected. The scores compare the predictions with these results,"
    " not with an expert's outlines"
)
_CORRECT_MAPPING = "Write VALUE=CLASS, where VALUE is a label value or a segment name in the files."


@dataclass(frozen=True)
class _ScoredPair:
    """The scores of a case by label value.

    Attributes:
        notes: pairs (note, path of the labelmap or name of the case).
        overlaps: pairs (note, path or case) about overlapping segments of the prediction. `notes` holds all other
            notes, also those about overlapping segments of the label.
        lone_255: pairs (option, path or case) of the labelmaps that get the note of `_note_on_255`.
    """

    case: str
    rows: dict[int, EvaluationRow]
    label_values: set[int]
    predicted_values: set[int]
    notes: list[tuple[str, str]]
    overlaps: list[tuple[OverlapNote, str]]
    lone_255: list[tuple[str, str]]


def evaluate_pairs(
    pairs: Sequence[EvaluationPair],
    progress: Callable[[int, int], None] | None = None,
    mappings: LabelMappings = NO_MAPPINGS,
    *,
    predictions_folder: str | Path | None = None,
    labels_folder: str | Path | None = None,
) -> Evaluation:
    """Score predictions against their labels.

    The classes are the label values that occur in any label. A prediction whose axes differ from the label's only in
    order or direction is reoriented, without interpolation; a partial labelmap (`Labelmap.partial`) is extended with
    background. If each prediction and label is empty or a mask of a single value, 1 or 255, then 255 counts as 1.
    Otherwise, a note names each labelmap whose only value is 255. There is no note if the labelmap was read with a
    mapping, or if the other labelmap of the pair also holds 255.

    If a pair cannot be scored (`_score_pair`), the others are still scored, and `Evaluation.failures` holds a message
    about the pair. A prediction that holds none of the mapped values is scored as empty, with a note.

    Args:
        progress: is called after each pair with the number of pairs that are done and the number of all pairs.
        predictions_folder, labels_folder: the folders' paths, used only in error messages.

    Raises:
        InputError: there is no pair, no pair can be scored, all labels are empty, all predictions are empty after a
            mapping, or the predictions have label values, but none in common with the labels.
    """
    if not pairs:
        raise InputError("no pair of a prediction and a label was given", remedy="Choose at least one of each.")
    scored: list[_ScoredPair] = []
    failures: list[InputError] = []
    # All pairs are read before the first is scored, because 255 counts as 1 in all pairs or in none.
    # `_score_pair` reads the pairs again, since the labelmaps of all cases together may be too large for memory.
    only_masks = all(_holds_only_masks(pair, mappings) for pair in pairs)
    for done, pair in enumerate(pairs, start=1):
        try:
            scored.append(_score_pair(pair, mappings, only_masks))
        except InputError as error:
            failures.append(error)
        if progress is not None:
            progress(done, len(pairs))
    if not scored:
        raise failures[0]
    in_labels = set[int]().union(*(pair.label_values for pair in scored))
    in_predictions = set[int]().union(*(pair.predicted_values for pair in scored))
    if not in_labels:
        if mappings.label:
            what = f"all labels are empty after the mapping {mappings.label}"
            raise InputError(what, path=labels_folder, remedy=_CORRECT_MAPPING)
        raise InputError("all labels are empty", path=labels_folder, remedy="Choose labels that contain an outline.")
    if not in_predictions and mappings.prediction:
        what = f"all predictions are empty after the mapping {mappings.prediction}"
        raise InputError(what, path=predictions_folder, remedy=_CORRECT_MAPPING)
    if in_predictions and not in_predictions & in_labels:
        # A segment that other segments cover completely has no voxel in the labelmap. The overlap note says what to do.
        covered = [f"{file}: {note}" for note, file in _notes_on_covered_segments(scored, in_predictions, in_labels)]
        raise InputError(
            f"the label values of the predictions ({_list_values(in_predictions)}) do not occur in the labels"
            f" ({_list_values(in_labels)})",
            path=predictions_folder,
            remedy=covered[0] if covered else mapping_remedy([(min(in_predictions), min(in_labels))]),
        )
    rows = [
        pair.rows.get(value, EvaluationRow(pair.case, value, BOTH_EMPTY, 0.0, 0.0, 0, empty=1))
        for pair in scored
        for value in sorted(in_labels)
    ]
    evaluation = summarize_rows(rows, tuple(sorted(in_predictions - in_labels)))
    return replace(evaluation, failures=tuple(map(str, failures)), notes=_list_notes(scored, in_predictions, in_labels))


def _notes_on_covered_segments(
    scored: Sequence[_ScoredPair], in_predictions: set[int], in_labels: set[int]
) -> Iterator[tuple[str, str]]:
    """Yield (note, file) for each segment that other segments cover completely.

    `in_predictions` and `in_labels` must have no value in common.
    """
    for pair in scored:
        yield from ((note, file) for note, file in pair.overlaps if note.label in in_labels)
        for note, file in pair.notes:
            if isinstance(note, OverlapNote) and note.label in in_predictions:
                yield note, file


def _list_notes(scored: Sequence[_ScoredPair], in_predictions: set[int], in_labels: set[int]) -> tuple[str, ...]:
    files_of_note: defaultdict[str, list[str]] = defaultdict(list)
    for pair in scored:
        of_scored_segments = [(note, file) for note, file in pair.overlaps if note.label in in_labels]
        for note, file in (*of_scored_segments, *pair.notes):
            files_of_note[note].append(file)
        for option, file in pair.lone_255:
            values = in_predictions if option == _PREDICTION_MAPPING else in_labels
            files_of_note[_note_on_255(option, values)].append(file)
    return tuple(f"{list_names(files)}: {_for_files(note, len(files))}" for note, files in files_of_note.items())


def _for_files(note: str, count: int) -> str:
    return _SEVERAL_UNCORRECTED if note == _UNCORRECTED and count > 1 else note


def _note_on_255(option: str, values: set[int]) -> str:
    """Return the note on a labelmap with the single value 255: this value does not count as 1.

    The values that a mapping does not name become background, so the advised mapping names all values.

    Args:
        values: the values of all predictions or of all labels.
    """
    advice = "save the file with 1 in place of 255"
    if max(values) <= MAXIMUM_CLASS:
        others = "".join(f",{value}={value}" for value in sorted(values - {1, MASK_VALUE}))
        mapping = f"{'1,' if 1 in values else ''}{MASK_VALUE}=1{others}"
        advice = f"map the values: {option} {mapping} {_in_python(option)}"
    return (
        f"holds only the value {MASK_VALUE}. This value counts as 1 only if each prediction and label is a mask of a"
        f" single value, 1 or {MASK_VALUE}. If {MASK_VALUE} means 1, {advice}"
    )


def _in_python(option: str) -> str:
    return f"(in Python: {option.removeprefix('--').replace('-', '_')})"


def _list_values(values: set[int]) -> str:
    return ", ".join(str(value) for value in sorted(values))


def _holds_only_masks(pair: EvaluationPair, mappings: LabelMappings) -> bool:
    try:
        prediction, label, _ = read_pair(pair, mappings)
        return _is_mask_or_empty(prediction) and _is_mask_or_empty(label)
    except InputError:  # The error is reported when the pair is scored.
        return True


def _is_mask_or_empty(labelmap: Labelmap) -> bool:
    return int(labelmap.voxels.max()) <= 1 or is_mask_of_255(labelmap)


def _score_pair(pair: EvaluationPair, mappings: LabelMappings, only_masks: bool) -> _ScoredPair:
    """Return the scores of a prediction.

    Raises InputError if a file cannot be read, the label has values but `mappings.label` names none of them, prediction
    and label do not fit on one grid, the prediction or the label is probably a scan, or their names contradict each
    other (`compare_names`).

    Args:
        only_masks: whether 255 counts as 1.
    """
    prediction, label, ignored = read_pair(pair, mappings)
    file = str(prediction.path or pair.case)
    overlaps = [(note, file) for note in prediction.notes if isinstance(note, OverlapNote)]
    notes = [(note, file) for note in prediction.notes_about(())]
    notes += [(note, str(label.path or pair.case)) for note in label.notes]
    if isinstance(pair.label, Path) and is_uncorrected(pair.label):
        notes.append((_UNCORRECTED, str(pair.label)))
    if unmapped := unmapped_text(pair.label, label, mappings.label):
        remedy = "Add these values to the mapping, or correct the label."
        raise InputError(unmapped, path=label.path or pair.case, remedy=remedy)
    if unmapped := unmapped_text(pair.prediction, prediction, mappings.prediction):
        notes.append((f"{unmapped}; the prediction counts as empty", file))
    prediction, label = fit_pair(prediction, label, pair.case)
    if ignored is not None:  # `fit_pair` keeps the label's grid, since a label with ignored voxels is not partial.
        prediction = without_voxels(prediction, ignored)
    if only_masks:
        label, prediction = relabel_255(label, 1), relabel_255(prediction, 1)
    label_values, predicted_values = (
        {int(value) for value in np.unique(labelmap.voxels)} - {0} for labelmap in (label, prediction)
    )
    _refuse_scan(pair.case, label, label_values, predicted_values, "prediction", _LABEL_MAPPING)
    _refuse_scan(pair.case, prediction, predicted_values, label_values, "label", _PREDICTION_MAPPING)
    notes += compare_names(pair, mappings, (predicted_values, label_values), only_masks)
    lone_255 = [
        (option, str(labelmap.path or pair.case))
        for option, labelmap, mapping, values, others in (
            (_PREDICTION_MAPPING, prediction, mappings.prediction, predicted_values, label_values),
            (_LABEL_MAPPING, label, mappings.label, label_values, predicted_values),
        )
        if not mapping and values == {MASK_VALUE} and MASK_VALUE not in others
    ]
    values = sorted(label_values | predicted_values)
    rows = {value: _row(pair.case, value, prediction, label) for value in values}
    return _ScoredPair(pair.case, rows, label_values, predicted_values, notes, overlaps, lone_255)


def _refuse_scan(
    case: str, labelmap: Labelmap, values: set[int], others: set[int], counterpart: str, option: str
) -> None:
    if len(values) > max(MANY_VALUES, 2 * len(others)):
        raise InputError(
            f"is probably a scan: it holds {len(values)} different values, but the {counterpart} of this case"
            f" holds {len(others)}",
            path=labelmap.path or case,
            remedy=f"Choose the labelmap of this case, or map the values of interest by {option} {_in_python(option)}.",
        )


def score_case(case: str, prediction: Labelmap, label: Labelmap, values: Sequence[int]) -> list[EvaluationRow]:
    """Return the row of each label value in `values`.

    Raises:
        InputError: prediction and label do not fit on one grid.
    """
    prediction, label = fit_pair(prediction, label, case)
    return [_row(case, value, prediction, label) for value in values]


def _row(case: str, value: int, prediction: Labelmap, label: Labelmap) -> EvaluationRow:
    masks = prediction.voxels == value, label.voxels == value
    result = score(*masks, label.grid.spacing)
    predicted_ml, labelled_ml = (float(np.count_nonzero(m)) * label.grid.voxel_volume_mm3 / 1000.0 for m in masks)
    undefined = bool(np.isnan(result.hd95_mm))
    missed, empty = undefined and not predicted_ml, not predicted_ml and not labelled_ml
    return EvaluationRow(case, value, result, predicted_ml, labelled_ml, int(undefined), 1, int(missed), int(empty))
