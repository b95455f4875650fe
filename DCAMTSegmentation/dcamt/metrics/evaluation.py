"""Compare the predictions of several cases with their labels: the scores of each case and class, and their means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import nan
from pathlib import Path

import numpy as np

from ..cases.case_names import names_with_numbers
from ..cases.label_pairing import pair_with_labels, short_names, similar_labels
from ..cases.labelmap_files import labelmaps_by_case
from ..cases.labels import MANY_VALUES, MAXIMUM_CLASS, mapping_sources, parse_value_mapping
from ..errors import InputError
from ..io.dicom_files import list_names
from ..io.formats import plain_name
from ..io.readers import map_labelmap, read_labelmap, read_segments
from ..io.stored_image import StoredSegment
from ..io.tables import write_table
from ..volume import Labelmap, enclosing_grid, fit_labelmap, is_mask_of_255, relabel_255
from .scores import BOTH_EMPTY, SegmentationScore, score

_METRICS = tuple(field.name for field in fields(SegmentationScore))
_VOLUMES = ("prediction_volume_ml", "label_volume_ml")
_COUNTS = ("undefined", "cases", "missed", "empty")
_CORRECT_MAPPING = "Before each sign =, write values or names of segments that occur in the files."
SCORE_COLUMNS = ("case", "label", *_METRICS, *_VOLUMES, *_COUNTS)


@dataclass(frozen=True)
class EvaluationRow:
    """The scores of a class in one case, or their mean or standard deviation (`case` is "mean" or "std").

    Attributes:
        cases: number of cases that the row covers.
        undefined: how many cases have undefined distances, since exactly one mask is empty.
        missed: in how many of the `undefined` cases the prediction is the empty mask.
        empty: how many cases have two empty masks; their distances are 0.
    """

    case: str
    label: int
    score: SegmentationScore
    prediction_volume_ml: float
    label_volume_ml: float
    undefined: int
    cases: int = 1
    missed: int = 0
    empty: int = 0

    @property
    def title(self) -> str:
        """The title of the row, which begins with `case`.

        >>> EvaluationRow("mean", 1, SegmentationScore(*[0.5] * 8), 1.0, 1.0, 1, cases=3, missed=1).title
        'mean (95HD of 2 of 3 cases, 1 missed)'
        """
        if not self.undefined or self.cases == 1:
            return self.case
        parts = [f"95HD of {self.cases - self.undefined} of {self.cases} cases"]
        parts += [f"{self.missed} missed"] if self.missed else []
        parts += [f"{self.undefined - self.missed} without label"] if self.undefined > self.missed else []
        return f"{self.case} ({', '.join(parts)})"


@dataclass(frozen=True)
class Evaluation:
    """The scores of each class in each case, and each class's `mean` and `std` over the cases.

    The standard deviation is that of the population (divided by n). A class with a single case has no row in `std`. A
    distance that is defined in only one case is NaN in `std`. Means and deviations of distances omit the cases with
    undefined distances and are NaN if no case is left. Dice, Jaccard and volumes include every case.

    Attributes:
        rows: one for each case and class; the classes of a case are sorted by label value.
        mean, std: one for each class, sorted by label value.
        unscored_labels: label values that occur in predictions but in no label; they are not scored.
        labels_without_prediction: cases with a label but no prediction; they are not scored.
        failures: messages about cases that are not scored and that the means do not cover: predictions without a label,
            files that cannot be read, predictions that do not fit their labels.
        notes: messages on how files were interpreted, such as an assumed voxel spacing; each begins with the files.
    """

    rows: tuple[EvaluationRow, ...]
    mean: tuple[EvaluationRow, ...]
    std: tuple[EvaluationRow, ...]
    unscored_labels: tuple[int, ...]
    labels_without_prediction: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def write_csv(self, path: str | Path) -> None:
        """Write the rows, then the mean and std of every class, under the header `SCORE_COLUMNS`; NaN becomes blank.

        Raises OutputError if the file cannot be written; an earlier file of that name then stays unchanged.
        """
        rows = []
        for row in (*self.rows, *self.mean, *self.std):
            scores = [getattr(row.score, name) for name in _METRICS]
            others = [getattr(row, name) for name in (*_VOLUMES, *_COUNTS)]
            rows.append((row.case, row.label, *scores, *others))
        write_table(path, SCORE_COLUMNS, rows)


@dataclass(frozen=True)
class EvaluationPair:
    """A case to evaluate; prediction and label are files, or labelmaps in memory."""

    case: str
    prediction: Path | Labelmap
    label: Path | Labelmap


@dataclass(frozen=True)
class LabelMappings:
    """Which values or segments of the predictions and of the labels become which class, such as "420,421=1".

    All other voxels become background. An empty mapping keeps the values.
    """

    prediction: str = ""
    label: str = ""


NO_MAPPINGS = LabelMappings()


@dataclass(frozen=True)
class _ScoredPair:
    """The scores of a case by label value; `notes` holds pairs (note, path of the labelmap or name of the case)."""

    case: str
    rows: dict[int, EvaluationRow]
    label_values: set[int]
    predicted_values: set[int]
    notes: list[tuple[str, str]]


def evaluate_folders(
    predictions: str | Path,
    labels: str | Path,
    progress: Callable[[int, int], None] | None = None,
    mappings: LabelMappings = NO_MAPPINGS,
) -> Evaluation:
    """Score every prediction in a folder against the same case's label in another folder, as `evaluate_pairs` does.

    Files of one case are found by their names (`cases.case_names.case_name`): `la000_image.seg.nrrd` is compared with
    `la000_label.nii.gz`, `la_001_0000.nii.gz` with `la_001.nii.gz`. Scans in either folder are skipped, and so are
    agreement and probability maps (`x_agreement`, `x_probabilities`) beside a segmentation `x`. Labels without a
    prediction are skipped, too, and named in the result, so that a part of a data set can be evaluated. A prediction
    without a label does not stop the others; the result holds the message (`Evaluation.failures`).

    Args:
        progress: is called after each case with the number of evaluated cases and the number of all cases.

    Raises:
        InputError: a folder is missing or empty, two files of a folder belong to one case, no prediction has a label, a
            prediction is its own label, or `evaluate_pairs` raises InputError.
    """
    predicted = labelmaps_by_case(Path(predictions), True, prefer_results=True)
    labelled = labelmaps_by_case(Path(labels), True, [Path(predictions)], names=predicted, prefer_subfolders=True)
    labelled = pair_with_labels(predicted, labelled)
    failures = [
        _without_label(case, predicted, labelled, labels) for case in sorted(predicted.keys() - labelled.keys())
    ]
    cases = sorted(predicted.keys() & labelled.keys())
    for case in cases:
        refuse_same_file(predicted[case], labelled[case])
    names = names_with_numbers(predicted)
    pairs = [EvaluationPair(names[case], predicted[case], labelled[case]) for case in cases]
    if failures and not pairs:
        raise failures[0]
    label_names = names_with_numbers(labelled)
    skipped = tuple(label_names[case] for case in sorted(labelled.keys() - predicted.keys()))
    evaluation = evaluate_pairs(pairs, progress, mappings, predictions_folder=predictions, labels_folder=labels)
    return replace(evaluation, labels_without_prediction=skipped, failures=(*map(str, failures), *evaluation.failures))


def _without_label(
    case: str, predicted: Mapping[str, Path], labelled: Mapping[str, Path], folder: str | Path
) -> InputError:
    """Return the error for a prediction that has no label, or several labels, among the labels of a folder."""
    prediction = predicted[case]
    fitting = [name for name in sorted(labelled) if case.casefold() in map(str.casefold, short_names(name))]
    if len(fitting) > 1:
        what = f"has several labels in {folder}: {', '.join(labelled[name].name for name in fitting)}"
        return InputError(what, path=prediction, remedy="Keep one of them in this folder.")
    if similar := similar_labels(case, predicted.keys(), labelled):
        what = f"has no label in {folder}, but files of similar names lie there: {list_names(similar)}"
        return InputError(what, path=prediction, remedy=f"If one of them is its label, name it {case}_label.")
    remedy = f"Add {case}_label.nii.gz, or remove the prediction."
    return InputError(f"has no label in {folder}", path=prediction, remedy=remedy)


def refuse_same_file(prediction: Path, label: Path) -> None:
    """Raise InputError if a prediction and its label are the same existing file or folder."""
    if prediction.exists() and label.exists() and prediction.samefile(label):
        remedy = "Choose different files for the predictions and the labels."
        raise InputError(
            "was given both as the prediction and as the label of its case", path=prediction, remedy=remedy
        )


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
    background. If every labelmap is empty or a mask of 1 or of 255, then 1 and 255 count as the same class.

    A pair that cannot be scored does not stop the others; the result holds the message (`Evaluation.failures`). A pair
    cannot be scored if a file cannot be read or its mapping does not fit, the label is not empty but holds none of the
    mapped values, prediction and label do not fit on one grid, or one of them is probably a scan (`_refuse_scan`). A
    prediction that holds none of the mapped values is scored as empty, with a note.

    Args:
        progress: is called after each pair with the number of pairs that are done and the number of all pairs.
        predictions_folder, labels_folder: the folders that messages name, if the files lie in folders.

    Raises:
        InputError: there is no pair, no pair can be scored, all labels are empty, all predictions are empty after a
            mapping, or the predictions have label values, but none in common with the labels.
    """
    if not pairs:
        raise InputError("no pair of a prediction and a label was given", remedy="Choose at least one of each.")
    scored: list[_ScoredPair] = []
    failures: list[InputError] = []
    # 255 counts as 1 only if every labelmap is a mask or empty; reading stops at the first that is neither.
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
        raise InputError("all labels are empty", path=labels_folder, remedy="Choose the labels of outlined cases.")
    if not in_predictions and mappings.prediction:
        what = f"all predictions are empty after the mapping {mappings.prediction}"
        raise InputError(what, path=predictions_folder, remedy=_CORRECT_MAPPING)
    if in_predictions and not in_predictions & in_labels:
        raise InputError(
            f"the label values of the predictions ({_list_values(in_predictions)}) do not occur in the labels"
            f" ({_list_values(in_labels)})",
            path=predictions_folder,
            remedy=_mapping_remedy(min(in_predictions), min(in_labels)),
        )
    rows = [
        pair.rows.get(value, EvaluationRow(pair.case, value, BOTH_EMPTY, 0.0, 0.0, 0, empty=1))
        for pair in scored
        for value in sorted(in_labels)
    ]
    evaluation = summarize_rows(rows, tuple(sorted(in_predictions - in_labels)))
    return replace(evaluation, failures=tuple(map(str, failures)), notes=_list_notes(scored))


def _list_notes(scored: Sequence[_ScoredPair]) -> tuple[str, ...]:
    """Return each note once, after the files or cases that have it."""
    files_of_note: defaultdict[str, list[str]] = defaultdict(list)
    for pair in scored:
        for note, file in pair.notes:
            files_of_note[note].append(file)
    return tuple(f"{list_names(files)}: {note}" for note, files in files_of_note.items())


def _holds_only_masks(pair: EvaluationPair, mappings: LabelMappings) -> bool:
    """Return whether prediction and label are empty or masks of 1 or 255; True if they cannot be read."""
    try:
        return all(map(_is_mask_or_empty, _read_pair(pair, mappings)))
    except InputError:  # The error is reported when the pair is scored.
        return True


def _is_mask_or_empty(labelmap: Labelmap) -> bool:
    """Return whether a labelmap is empty, a mask of 1 or a mask of 255."""
    return int(labelmap.voxels.max()) <= 1 or is_mask_of_255(labelmap)


def _score_pair(pair: EvaluationPair, mappings: LabelMappings, only_masks: bool) -> _ScoredPair:
    """Return the scores of a prediction; raise InputError if the pair cannot be scored (`evaluate_pairs`).

    Args:
        only_masks: whether 255 counts as 1.
    """
    prediction, label = _read_pair(pair, mappings)
    notes = [(note, str(labelmap.path or pair.case)) for labelmap in (prediction, label) for note in labelmap.notes]
    if unmapped := _unmapped_text(pair.label, label, mappings.label):
        raise InputError(unmapped, path=label.path or pair.case, remedy="Map its values, too, or correct the label.")
    if unmapped := _unmapped_text(pair.prediction, prediction, mappings.prediction):
        notes.append((f"{unmapped}; the prediction counts as empty", str(prediction.path or pair.case)))
    prediction, label = _fit_pair(prediction, label, pair.case)
    if only_masks:
        label, prediction = relabel_255(label, 1), relabel_255(prediction, 1)
    label_values, predicted_values = (
        {int(value) for value in np.unique(labelmap.voxels)} - {0} for labelmap in (label, prediction)
    )
    _refuse_scan(pair.case, label, label_values, predicted_values, "prediction", "--label-mapping")
    _refuse_scan(pair.case, prediction, predicted_values, label_values, "label", "--prediction-mapping")
    values = sorted(label_values | predicted_values)
    rows = {value: _row(pair.case, value, prediction, label) for value in values}
    return _ScoredPair(pair.case, rows, label_values, predicted_values, notes)


def _refuse_scan(
    case: str, labelmap: Labelmap, values: set[int], others: set[int], counterpart: str, option: str
) -> None:
    """Raise InputError if a labelmap is probably a scan.

    A labelmap is probably a scan if it has more than `MANY_VALUES` label values and more than twice as many as its
    counterpart.

    Args:
        case: the case's name; if the labelmap has no file, the message names the case instead.
        others: the label values of the counterpart. A prediction's counterpart is its label; a label's counterpart is
            its prediction.
        option: the option that maps the labelmap's values.
    """
    if len(values) > max(MANY_VALUES, 2 * len(others)):
        raise InputError(
            f"is probably a scan: it holds {len(values)} different values, but the {counterpart} of this case"
            f" holds {len(others)}",
            path=labelmap.path or case,
            remedy=f"Choose the labelmap of this case, or map the values of interest by {option}.",
        )


def _mapping_remedy(predicted: int, labelled: int) -> str:
    """Return the advice to map a value of the predictions and one of the labels to the same class, from 1 to 255."""
    if labelled <= MAXIMUM_CLASS:
        return (
            f"Map the predictions' values: --prediction-mapping {predicted}={labelled}, for instance"
            " (in Python: prediction_mapping)."
        )
    if predicted <= MAXIMUM_CLASS:
        return (
            f"Map the labels' values: --label-mapping {labelled}={predicted}, for instance (in Python: label_mapping)."
        )
    return (
        f"Map the values of both: --prediction-mapping {predicted}=1 --label-mapping {labelled}=1, for instance"
        " (in Python: prediction_mapping and label_mapping)."
    )


def _read_pair(pair: EvaluationPair, mappings: LabelMappings) -> tuple[Labelmap, Labelmap]:
    """Return a prediction and its label with their values mapped, each on its own grid.

    Args:
        mappings: a class is a label value. If the prediction has no mapping, a class in the label's mapping may also be
            the name of a segment in the prediction's file, as in "420=Left atrium"; the same holds with prediction and
            label exchanged.

    Raises:
        InputError: a file cannot be read, a mapping does not fit its file, or neither file has a mapping and segments
            of the same name have different label values.
    """
    prediction, label = pair.prediction, pair.label
    if isinstance(prediction, Path) and isinstance(label, Path) and not (mappings.prediction or mappings.label):
        _refuse_other_values_of_segments(prediction, label)
    return (
        _read_mapped(prediction, mappings.prediction, None if mappings.label else label),
        _read_mapped(label, mappings.label, None if mappings.prediction else prediction),
    )


def _unmapped_text(source: Path | Labelmap, mapped: Labelmap, mapping: str) -> str:
    """Return which values of `source` its mapping lacks, if none of its voxels is mapped; otherwise "".

    The text is also "" if `mapping` or `source` is empty, or `source` has a segment that the mapping names.
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
    return f"holds none of the values of the mapping {mapping}, but {listed}"


def _refuse_other_values_of_segments(prediction: Path, label: Path) -> None:
    """Raise InputError if a segment of a prediction has another value than the label's segment of the same name.

    Names that occur several times in a file are not compared. Nothing is compared if a name that occurs in both files
    has a value above `MAXIMUM_CLASS` in the label.
    """
    predicted, labelled = (_segments_by_name(read_segments(path)) for path in (prediction, label))
    common = [(predicted[name], labelled[name]) for name in predicted if name in labelled]
    if any(segment.label > MAXIMUM_CLASS for _, segment in common):
        return
    for segment, other in common:
        if segment.label != other.label:
            mapping = ",".join(f"{mine.label}={its.label}" for mine, its in common)
            raise InputError(
                f"has the value {segment.label} for the segment '{segment.name}', which has the value {other.label} in"
                f" {label}",
                path=prediction,
                remedy=f"Map the predictions' values: --prediction-mapping {mapping} (in Python: prediction_mapping).",
            )


def _segments_by_name(segments: Sequence[StoredSegment]) -> dict[str, StoredSegment]:
    """Return the segments whose names occur only once, by `plain_name`."""
    names = [plain_name(segment.name or "") for segment in segments]
    return {name: segment for name, segment in zip(names, segments, strict=True) if name and names.count(name) == 1}


def _read_mapped(source: Path | Labelmap, mapping: str, other: Path | Labelmap | None) -> Labelmap:
    """Return the labelmap of `source` with its values mapped; an empty mapping keeps them.

    Args:
        other: the counterpart of `source`; None if the counterpart has a mapping. A prediction's counterpart is its
            label; a label's counterpart is its prediction. If `other` is a file, `mapping` may use the names of its
            segments as classes.
    """
    if not mapping:
        return source if isinstance(source, Labelmap) else read_labelmap(source)
    segments = read_segments(other) if isinstance(other, Path) else ()
    targets = parse_value_mapping(mapping, [(segment.name, segment.label) for segment in segments if segment.name])
    return map_labelmap(source, targets) if isinstance(source, Labelmap) else read_labelmap(source, targets)


def _fit_pair(prediction: Labelmap, label: Labelmap, case: str) -> tuple[Labelmap, Labelmap]:
    """Return a prediction and its label on one grid.

    If the label is complete, the grid is the label's. If only the label is partial, the grid is the prediction's. If
    both are partial, the grid encloses the grids of both (`enclosing_grid`).

    Raises:
        InputError: a labelmap does not fit this grid (`fit_labelmap`).
    """
    if label.partial and prediction.partial:
        label = fit_labelmap(label, enclosing_grid(prediction.grid, label.grid), case)
    elif label.partial:
        label = fit_labelmap(label, prediction.grid, f"its prediction {prediction.path or case}")
    return fit_labelmap(prediction, label.grid, f"its label {label.path or case}"), label


def score_case(case: str, prediction: Labelmap, label: Labelmap, values: Sequence[int]) -> list[EvaluationRow]:
    """Return the row of each label value in `values`.

    Raises:
        InputError: prediction and label do not fit on one grid.
    """
    prediction, label = _fit_pair(prediction, label, case)
    return [_row(case, value, prediction, label) for value in values]


def summarize_rows(rows: Sequence[EvaluationRow], unscored_labels: tuple[int, ...] = ()) -> Evaluation:
    """Return the evaluation with these rows and each class's mean and standard deviation."""
    rows_of_class: defaultdict[int, list[EvaluationRow]] = defaultdict(list)
    for row in rows:
        rows_of_class[row.label].append(row)
    groups = [rows_of_class[value] for value in sorted(rows_of_class)]
    return Evaluation(
        rows=tuple(rows),
        mean=tuple(_summarize_class("mean", np.mean, group) for group in groups),
        std=tuple(_summarize_class("std", _deviation, group) for group in groups if len(group) > 1),
        unscored_labels=unscored_labels,
    )


def _row(case: str, value: int, prediction: Labelmap, label: Labelmap) -> EvaluationRow:
    masks = prediction.voxels == value, label.voxels == value
    result = score(*masks, label.grid.spacing)
    predicted_ml, labelled_ml = (float(np.count_nonzero(m)) * label.grid.voxel_volume_mm3 / 1000.0 for m in masks)
    undefined = bool(np.isnan(result.hd95_mm))
    missed, empty = undefined and not predicted_ml, not predicted_ml and not labelled_ml
    return EvaluationRow(case, value, result, predicted_ml, labelled_ml, int(undefined), 1, int(missed), int(empty))


def _summarize_class(
    name: str, statistic: Callable[[np.ndarray], float], rows: Sequence[EvaluationRow]
) -> EvaluationRow:
    """Return a class's row: the `statistic` of each score and of each volume, and the sum of each count.

    Values that are NaN are left out.
    """

    def combine(values: Sequence[float]) -> float:
        defined = np.array([value for value in values if not np.isnan(value)])
        return float(statistic(defined)) if len(defined) else nan

    metrics = [combine([getattr(row.score, metric) for row in rows]) for metric in _METRICS]
    predicted_ml, labelled_ml = (combine([getattr(row, volume) for row in rows]) for volume in _VOLUMES)
    counts = [sum(getattr(row, count) for row in rows) for count in _COUNTS]
    return EvaluationRow(name, rows[0].label, SegmentationScore(*metrics), predicted_ml, labelled_ml, *counts)


def _deviation(values: np.ndarray) -> float:
    return float(np.std(values)) if len(values) > 1 else nan


def _list_values(values: set[int]) -> str:
    return ", ".join(str(value) for value in sorted(values))
