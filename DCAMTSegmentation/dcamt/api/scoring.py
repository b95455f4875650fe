"""Compare segmentations with labels: folders, files, labelmaps or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..cases.labels import parse_value_mapping
from ..geometry import Grid
from ..io.formats import scan_name
from ..io.readers import map_labelmap, read_labelmap
from ..metrics.evaluation import Evaluation, evaluate_folders, read_pair, score_case, summarised
from ..volume import Labelmap, as_labels

Labels = str | Path | Labelmap | np.ndarray
"""A file, a `Labelmap`, or an array (I, J, K)."""


def evaluate(
    predictions: Labels | Sequence[Labels],
    labels: Labels | Sequence[Labels],
    *,
    spacing: Sequence[float] | None = None,
    label_mapping: str = "",
    prediction_mapping: str = "",
) -> Evaluation:
    """Score predictions against labels: Dice, Jaccard, 95% Hausdorff distance (mm), surface distances (mm), volumes.

    Args:
        predictions: a folder, or one or several files, labelmaps or arrays (I, J, K).
        labels: a folder if `predictions` is a folder; otherwise one label for each prediction, in the same order.
        spacing: (3,) mm between voxels along i, j and k; required with arrays.
        label_mapping: which values or segments of the labels are which class of the predictions, such as
            "420,421=1"; all other voxels become background.
        prediction_mapping: the same for the predictions.

    Returns:
        An `Evaluation`: one row for each case and class, and each class's mean and standard deviation over the cases.

    Raises:
        InputError: a file cannot be used, a mapping does not fit, or the grids of a prediction and its label differ.
        ValueError: the numbers of predictions and labels differ, or an array comes without `spacing`.

    >>> import dcamt, numpy as np
    >>> label = np.zeros((20, 20, 20), np.uint8)
    >>> label[5:15, 5:15, 5:15] = 1
    >>> (row,) = dcamt.evaluate(np.roll(label, 1, axis=0), label, spacing=(2.0, 2.0, 2.0)).rows
    >>> row.score.dice, row.score.hd95_mm, round(row.label_volume_ml, 6)
    (0.9, 2.0, 8.0)
    """
    if isinstance(predictions, str | Path) and isinstance(labels, str | Path) and Path(labels).is_dir():
        return evaluate_folders(predictions, labels, None, label_mapping, prediction_mapping)
    predicted, labelled = _as_list(predictions), _as_list(labels)
    if len(predicted) != len(labelled):
        raise ValueError(f"{len(predicted)} predictions for {len(labelled)} labels")
    pairs = [
        (_case_name(label, number), *_to_pair(prediction, label, spacing, label_mapping, prediction_mapping))
        for number, (prediction, label) in enumerate(zip(predicted, labelled, strict=True), start=1)
    ]
    values = sorted({int(value) for _, _, label in pairs for value in np.unique(label.voxels)} - {0})
    unscored = {int(value) for _, prediction, _ in pairs for value in np.unique(prediction.voxels)} - {0, *values}
    rows = [row for name, prediction, label in pairs for row in score_case(name, prediction, label, values)]
    return summarised(rows, tuple(sorted(unscored)))


def _as_list(labels: Labels | Sequence[Labels]) -> list[Labels]:
    if isinstance(labels, str | Path | Labelmap | np.ndarray):
        return [labels]
    return list(labels)


def _case_name(label: Labels, number: int) -> str:
    path = label.path if isinstance(label, Labelmap) else label
    return scan_name(path) if isinstance(path, str | Path) else f"case {number}"


def _to_pair(
    prediction: Labels, label: Labels, spacing: Sequence[float] | None, label_mapping: str, prediction_mapping: str
) -> tuple[Labelmap, Labelmap]:
    if isinstance(prediction, str | Path) and isinstance(label, str | Path):
        return read_pair(Path(prediction), Path(label), label_mapping, prediction_mapping)
    pair = []
    for labels, mapping in ((prediction, prediction_mapping), (label, label_mapping)):
        labelmap = _to_labelmap(labels, spacing)
        pair.append(map_labelmap(labelmap, parse_value_mapping(mapping, {})) if mapping else labelmap)
    return pair[0], pair[1]


def _to_labelmap(labels: Labels, spacing: Sequence[float] | None) -> Labelmap:
    if isinstance(labels, Labelmap):
        return labels
    if not isinstance(labels, np.ndarray):
        return read_labelmap(labels)
    if spacing is None:
        raise ValueError("arrays need their spacing (3,) in mm")
    if labels.ndim != 3:
        raise ValueError(f"the array {labels.shape} is not (I, J, K)")
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    return Labelmap(as_labels(labels, None), Grid(shape, np.diag([*map(float, spacing), 1.0])))
