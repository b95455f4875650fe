"""Score the predictions in a folder against the labels in another folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ..cases.case_names import names_with_numbers
from ..cases.label_pairing import notes_on_unknown_words, pair_with_labels, short_names, similar_labels
from ..cases.labelmap_files import labelmaps_by_case
from ..errors import InputError
from ..io.dicom_files import list_names
from .evaluation import Evaluation
from .pair_reading import NO_MAPPINGS, EvaluationPair, LabelMappings, refuse_same_file
from .pair_scoring import evaluate_pairs


def evaluate_folders(
    predictions: str | Path,
    labels: str | Path,
    progress: Callable[[int, int], None] | None = None,
    mappings: LabelMappings = NO_MAPPINGS,
) -> Evaluation:
    """Score every prediction in a folder against the same case's label in another folder, as `evaluate_pairs` does.

    Files of one case are found by their names (`cases.case_names.case_name`): `la000_image.seg.nrrd` is compared with
    `la000_label.nii.gz`. Scans in either folder are skipped, and so are agreement and probability maps (`x_agreement`,
    `x_probabilities`) beside a segmentation `x`. Labels without a prediction are skipped, too, and named in the result.
    Predictions without a label are not scored; `Evaluation.failures` holds a message about each of them.

    Args:
        progress: is called after each case with the number of evaluated cases and the number of all cases.

    Raises:
        InputError: a folder is missing or empty, two files of a folder belong to one case, no prediction has a label, a
            prediction and its label are the same file, or `evaluate_pairs` raises InputError.
    """
    predicted = labelmaps_by_case(Path(predictions), True, prefer_results=True)
    labelled = labelmaps_by_case(Path(labels), True, [Path(predictions)], names=predicted, prefer_subfolders=True)
    labelled = pair_with_labels(predicted, labelled)
    failures = [
        _pairing_error(case, predicted, labelled, labels) for case in sorted(predicted.keys() - labelled.keys())
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
    notes = notes_on_unknown_words((case, files[case]) for case in cases for files in (predicted, labelled))
    evaluation = evaluate_pairs(pairs, progress, mappings, predictions_folder=predictions, labels_folder=labels)
    return replace(
        evaluation,
        labels_without_prediction=skipped,
        failures=(*map(str, failures), *evaluation.failures),
        notes=(*notes, *evaluation.notes),
    )


def _pairing_error(
    case: str, predicted: Mapping[str, Path], labelled: Mapping[str, Path], folder: str | Path
) -> InputError:
    prediction = predicted[case]
    fitting = [name for name in sorted(labelled) if case.casefold() in map(str.casefold, short_names(name))]
    if len(fitting) > 1:
        what = f"has several labels in {folder}: {', '.join(labelled[name].name for name in fitting)}"
        return InputError(what, path=prediction, remedy="Keep one of them in this folder.")
    if similar := similar_labels(case, predicted.keys(), labelled):
        what = f"has no label in {folder}, but files with similar names are there: {list_names(similar)}"
        remedy = (
            f"If one of these files is the prediction's label, rename it to {case}_label and keep its ending, for"
            " example .nii.gz."
        )
        return InputError(what, path=prediction, remedy=remedy)
    remedy = f"Add {case}_label.nii.gz, or remove the prediction."
    return InputError(f"has no label in {folder}", path=prediction, remedy=remedy)
