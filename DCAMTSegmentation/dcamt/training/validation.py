"""Compute the Dice of a run's validation cases, and update the run's preview."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from ..cases.case_scans import read_case_scan
from ..errors import DCAMTError
from ..inference.components import keep_organs
from ..inference.labelling import labels_on_scan
from ..inference.tiling import predict_bounded
from ..networks.dual_vnet import DualVNet
from ..recipe import Recipe
from ..runs.folder import RunFolder
from ..runs.preview import chosen_preview, shows_case, write_preview
from .resident import ResidentCase

Scores = dict[str, dict[str, float]]
"""Prediction -> class name -> mean Dice of the cases.

The predictions are "A" and "B", from one branch each, and "mean", from the mean of both branches' probabilities.
"""


def validation_dice(
    network: DualVNet,
    cases: Sequence[ResidentCase],
    recipe: Recipe,
    is_cancelled: Callable[[int], bool] = lambda validated: False,
) -> Scores | None:
    """Return the cases' scores on the network grid; None if cancelled, or if all labels are empty on that grid.

    The mean of a class includes the cases whose label or prediction contains the class. Classes that occur in no label
    are omitted. `is_cancelled` is called before each case with the number of validated cases.
    """
    names = [info.name for info in recipe.classes]
    values = {
        value
        for case in cases
        for value in range(1, recipe.output_channels)
        if case.label is not None and (case.label == value).any()
    }
    if not values:
        return None
    scores: dict[str, dict[int, list[float]]] = {
        key: {value: [] for value in sorted(values)} for key in ("A", "B", "mean")
    }
    for validated, case in enumerate(cases):
        if is_cancelled(validated):
            return None
        assert case.label is not None
        branches = predict_bounded(network, case.intensities(recipe.intensity), recipe)
        for by_class, probabilities in zip(scores.values(), (*branches, branches.mean(dim=0)), strict=True):
            predicted = probabilities.argmax(dim=0)
            for value, dice in by_class.items():
                prediction, label = predicted == value, case.label == value
                total = int(prediction.sum() + label.sum())
                if total:
                    dice.append(2 * int((prediction & label).sum()) / total)
    return {
        key: {names[value - 1]: sum(dice) / len(dice) for value, dice in by_class.items()}
        for key, by_class in scores.items()
    }


def update_preview(run: RunFolder, step: int, network: DualVNet, cases: Sequence[ResidentCase], recipe: Recipe) -> None:
    """Write the preview of the requested case if `cases` contains the case.

    An error in reading or writing a file is ignored, so that the run goes on.
    """
    name = chosen_preview(run)
    for case in cases:
        if case.name == name:
            with suppress(OSError, DCAMTError):
                _write_preview(run, step, network, case, recipe)


def _write_preview(run: RunFolder, step: int, network: DualVNet, case: ResidentCase, recipe: Recipe) -> None:
    assert case.grid is not None
    assert case.scan is not None
    branches = predict_bounded(network, case.intensities(recipe.intensity), recipe)
    labels = keep_organs(labels_on_scan(branches.mean(dim=0).cpu(), case.grid), recipe)
    scan = None
    if not shows_case(run, case.name):
        scan = read_case_scan(case.scan, recipe).voxels[0]
    write_preview(run, case.name, step, labels, case.grid.source.affine, scan)
