"""How good the network is now, on the run's validation cases."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..inference.memory import free_memory, part_limit, part_size
from ..inference.one_pass import size_of
from ..inference.quality import ACCURATE
from ..inference.tiles import bounded_probabilities
from ..networks.dual_vnet import DualVNet
from ..recipe import Recipe
from .resident import ResidentCase, quantum


def validation_dice(network: DualVNet, cases: Sequence[ResidentCase], recipe: Recipe) -> dict[str, dict[str, float]]:
    """Mean Dice over the cases on the network's grid: {"A" | "B" | "mean": {class name: Dice}}.

    A class that neither label nor prediction holds counts as 1. A volume for which memory does not suffice is done
    part by part, as when it is segmented.
    """
    scale, offset = quantum(recipe.intensity)
    names = [info.name for info in recipe.classes]
    scores: dict[str, list[list[float]]] = {"A": [], "B": [], "mean": []}
    network.eval()
    with torch.no_grad():
        for case in cases:
            assert case.label is not None
            image = case.image.float() * scale + offset
            limit = part_limit(recipe, size_of(image), free_memory(image.device))
            both = bounded_probabilities(network, image, ACCURATE, part_size(recipe, size_of(image), limit))
            for key, shares in (("A", both[0]), ("B", both[1]), ("mean", both.mean(dim=0))):
                said = shares.argmax(dim=0)
                scores[key].append([_dice(said == v, case.label == v) for v in range(1, recipe.outputs)])
    network.train()
    return {
        key: {name: sum(column) / len(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
        for key, rows in scores.items()
    }


def _dice(prediction: torch.Tensor, label: torch.Tensor) -> float:
    total = int(prediction.sum() + label.sum())
    return 2 * int((prediction & label).sum()) / total if total else 1.0
