"""Evaluate segmentations against labels: folders, files, labelmaps or arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..cases.folder_files import image_files
from ..errors import InputError
from ..geometry import Grid
from ..io.dicom import has_dicom_file
from ..io.dicom_files import files_below
from ..io.formats import AnyPath, given_path, scan_name
from ..metrics.evaluation import Evaluation
from ..metrics.folder_scoring import evaluate_folders
from ..metrics.pair_reading import EvaluationPair, LabelMappings, refuse_same_file
from ..metrics.pair_scoring import evaluate_pairs
from ..process_settings import default_numpy_settings
from ..volume import Labelmap, as_labels, check_array, check_label_grid, check_size

LabelmapLike = AnyPath | Labelmap | np.ndarray
"""A file, a `Labelmap`, or an array (I, J, K)."""


@default_numpy_settings()
def evaluate(
    predictions: LabelmapLike | Sequence[LabelmapLike],
    labels: LabelmapLike | Sequence[LabelmapLike],
    *,
    spacing: Sequence[float] | np.ndarray | None = None,
    label_mapping: str = "",
    prediction_mapping: str = "",
) -> Evaluation:
    """Score predictions against labels: Dice, Jaccard, surface distances (95HD, ASD, ASSD; mm and voxels) and volumes.

    In folders, the files of a case are found by their names. The classes are the label values that occur in any label.
    If all values are 0, 1 or 255, and no labelmap contains both 1 and 255, then 1 and 255 count as the same class.
    Voxels whose value nnU-Net's `dataset.json` of a label file names `ignore` are background in prediction and label.

    Args:
        predictions: a folder, or one or several files, labelmaps or arrays (I, J, K).
        labels: a folder if `predictions` is a folder; otherwise one label for each prediction, in the same order.
        spacing: (3,) mm between voxels along i, j and k of all arrays; files and labelmaps contain their spacing.
        label_mapping: maps values or segments of the labels to classes of the predictions, such as "420,421=1"; all
            other voxels become background. Without a mapping the values are kept.
        prediction_mapping: maps values or segments of the predictions to classes of the labels, by the same rules. If
            both mappings are given, use the same class numbers in both.

    Returns:
        An `Evaluation`. Without folders, a case has the name of its label's file, or "case 1", "case 2" and so on. A
        case is not scored if a prediction in a folder has no label, a file cannot be read, a prediction does not fit on
        its label's grid, a label holds none of the mapped values, a prediction or label is probably a scan, or the
        names of segments show that a value means different structures in prediction and label. `failures` contains a
        message about each of these cases, and the means do not cover them.

    Raises:
        InputError: a folder, array or mapping cannot be used; there is no prediction; no case can be scored; all labels
            are empty; all predictions are empty after a mapping; or the predictions have label values, but none in
            common with the labels. In folders, a prediction and its label must be different files. Without folders,
            both may be the same file if the two mappings differ.
        TypeError: a prediction or label is not a path, a labelmap or an array. Convert a tensor with `numpy.asarray`.
        ValueError: the numbers of predictions and labels differ; an array is not (I, J, K) or has masked voxels; or
            arrays are given without a `spacing` of three positive numbers.

    >>> import dcamt, numpy as np
    >>> label = np.zeros((20, 20, 20), np.uint8)
    >>> label[5:15, 5:15, 5:15] = 1
    >>> (row,) = dcamt.evaluate(np.roll(label, 1, axis=0), label, spacing=(2.0, 2.0, 2.0)).rows
    >>> row.score.dice, row.score.hd95_mm, round(row.label_volume_ml, 6)
    (0.9, 2.0, 8.0)
    """
    mappings = LabelMappings(prediction=prediction_mapping, label=label_mapping)
    if isinstance(predictions, str | os.PathLike) and isinstance(labels, str | os.PathLike):
        folders = given_path(predictions), given_path(labels)
        if os.path.isdir(folders[1]) or (os.path.isdir(folders[0]) and not os.path.exists(folders[1])):
            return evaluate_folders(*folders, mappings=mappings)
    prediction_list, label_list = _as_list(predictions), _as_list(labels)
    for source in (*prediction_list, *label_list):
        _refuse_folder_of_files(source)
    if len(prediction_list) != len(label_list):
        raise ValueError(
            f"the number of predictions ({len(prediction_list)}) differs from the number of labels ({len(label_list)})"
        )
    pairs = []
    for number, (prediction, label) in enumerate(zip(prediction_list, label_list, strict=True), start=1):
        sources = (
            _file_or_labelmap(prediction, f"prediction {number}", spacing),
            _file_or_labelmap(label, f"label {number}", spacing),
        )
        # With different mappings, two segments of one file can be compared.
        if isinstance(sources[0], Path) and isinstance(sources[1], Path) and label_mapping == prediction_mapping:
            refuse_same_file(sources[0], sources[1])
        pairs.append(EvaluationPair(_case_name(label, number), *sources))
    return evaluate_pairs(pairs, mappings=mappings)


def _file_or_labelmap(
    content: LabelmapLike, name: str, spacing: Sequence[float] | np.ndarray | None
) -> Path | Labelmap:
    if isinstance(content, Labelmap):
        check_label_grid(content.grid, content.path or name, content.partial)
        return content
    if isinstance(content, str | os.PathLike):
        return given_path(content)
    if not isinstance(content, np.ndarray):
        raise TypeError(f"{name} must be a file, a dcamt.Labelmap or a NumPy array, not {type(content).__name__}")
    steps = _parse_spacing(spacing)
    if content.ndim != 3:
        raise ValueError(f"the array {content.shape} is not (I, J, K)")
    check_array(content)
    check_size(content.shape, name)
    i, j, k = content.shape
    grid = Grid((i, j, k), np.diag([*steps, 1.0]))
    check_label_grid(grid, name, partial=True)  # An array may show a small part of a body.
    return Labelmap(as_labels(content, name), grid)


def _refuse_folder_of_files(source: LabelmapLike) -> None:
    if not isinstance(source, str | os.PathLike):
        return
    folder = given_path(source)
    if os.path.isdir(folder) and image_files(files_below(folder)) and not has_dicom_file(folder):
        raise InputError(
            "is a folder of files, which can be compared only with another folder",
            path=folder,
            remedy="Give one folder of predictions and one folder of labels, or a list of files for both.",
        )


def _parse_spacing(spacing: Sequence[float] | np.ndarray | None) -> tuple[float, ...]:
    try:
        steps = tuple(float(mm) for mm in (() if spacing is None else spacing))
    except (TypeError, ValueError):
        steps = ()
    if len(steps) != 3:
        raise ValueError("arrays need their spacing (3,) in mm")
    if not all(np.isfinite(mm) and mm > 0 for mm in steps):
        raise ValueError(f"the spacing {steps} is not three positive, finite numbers in mm")
    return steps


def _as_list(sources: LabelmapLike | Sequence[LabelmapLike]) -> list[LabelmapLike]:
    # A tensor, which has `ndim`, is not split into slices; `_file_or_labelmap` refuses its type.
    if isinstance(sources, str | os.PathLike | Labelmap | np.ndarray) or getattr(sources, "ndim", 1) > 1:
        return [sources]  # type: ignore[list-item]
    return list(sources)


def _case_name(label: LabelmapLike, number: int) -> str:
    path = label.path if isinstance(label, Labelmap) else label
    return scan_name(Path(path)) if isinstance(path, str | os.PathLike) else f"case {number}"
