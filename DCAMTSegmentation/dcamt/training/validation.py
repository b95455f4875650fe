"""How good the network is now, on the run's validation cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..inference.memory import free_memory, part_limit, part_size
from ..inference.one_pass import size_of
from ..inference.tiles import bounded_probabilities
from ..networks.dual_vnet import DualVNet
from ..recipe import ACCURATE, Recipe
from .resident import ResidentCase, quantum

Scores = dict[str, dict[str, float]]
"""Mean Dice by branch ("A", "B" or "mean") and by class name."""


def validation_dice(
    network: DualVNet, cases: Sequence[ResidentCase], recipe: Recipe, breaks_off: Callable[[], bool] = lambda: False
) -> Scores | None:
    """Mean Dice over the cases on the network's grid; None if it `breaks_off`, or if no label holds anything there.

    `breaks_off` is asked before each case.

    A case counts for a class that its label or its prediction holds; a class that no label holds is left out. A volume
    for which memory does not suffice is done part by part, as when it is segmented.
    """
    scale, offset = quantum(recipe.intensity)
    names = [info.name for info in recipe.classes]
    held = {v for case in cases for v in range(1, recipe.outputs) if case.label is not None and (case.label == v).any()}
    if not held:
        return None
    scores: dict[str, dict[int, list[float]]] = {key: {v: [] for v in sorted(held)} for key in ("A", "B", "mean")}
    network.eval()
    with torch.no_grad():
        for case in cases:
            if breaks_off():
                network.train()
                return None
            assert case.label is not None
            image = case.image.float() * scale + offset
            limit = part_limit(recipe, size_of(image), free_memory(image.device))
            both = bounded_probabilities(network, image, ACCURATE, part_size(recipe, size_of(image), limit))
            for key, shares in (("A", both[0]), ("B", both[1]), ("mean", both.mean(dim=0))):
                said = shares.argmax(dim=0)
                for value, found in scores[key].items():
                    prediction, label = said == value, case.label == value
                    total = int(prediction.sum() + label.sum())
                    if total:
                        found.append(2 * int((prediction & label).sum()) / total)
    network.train()
    return {
        key: {names[value - 1]: sum(found) / len(found) for value, found in by_class.items()}
        for key, by_class in scores.items()
    }
