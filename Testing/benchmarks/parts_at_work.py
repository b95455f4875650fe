"""Measure the effect of cross-attention, MMD and the contrast losses in trained networks.

    python Testing/benchmarks/parts_at_work.py LA_FOLDER WORK [--seeds 0 1]

WORK has the runs of `semi_supervised.py --rows labelled-only dca-mt no-mmd no-intra-class no-inter-class`. All
patches come from training cases. The measurement also uses the labels of cases that were unlabelled in training. The
command prints three tables, and writes them to WORK/parts_at_work.json:

attention: `added` is the root mean square of what attention adds to a bottleneck, divided by the root mean square of
    the bottleneck. The other columns are the Dice if each branch attends to its partner, to itself, or not at all.
mmd: MMD^2 between two sets of bottleneck features. Each column compares two sets:
    `branches`: branch A and branch B,
    `labelled, unlabelled`: labelled and unlabelled cases, in branch A,
    `bias of the estimator`: two halves of the bottleneck voxels of the unlabelled cases, in branch A. Both halves have
        nearly the same distribution, so their true MMD^2 is about 0, and the value shows the estimator's bias.
contrast: the fraction of a class's voxels whose features are nearer (by cosine) to the prototype of this class than to
    the other prototype. The table shows the mean over background and atrium. The features are those of the decoder at
    half the resolution. A prototype is the mean direction of a class's features. Prototypes are computed on labelled
    cases; the voxels come from unlabelled cases. `between` is the cosine between the two prototypes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from dcamt.cases.case_list import LABELLED
from dcamt.losses.mmd import mmd2
from dcamt.networks.dual_vnet import BranchOutput, DualVNet
from dcamt.recipe import Recipe
from dcamt.recipe_files import load_recipe, with_settings
from dcamt.training.checkpoint import load_checkpoint
from dcamt.training.resident import load_case
from dcamt.training.sampling import Batch, BatchSampler
from la_cases import la_case, print_table, training_names
from torch import Tensor

NO_AUGMENTATION = [
    "rotation_degrees=0",
    "scale=0",
    "gamma=0",
    "gain=0",
    "offset=0",
    "noise=0",
    "mix=0",
    "mix_labelled=0",
    "surroundings=0",
]
BATCHES = 40
SAMPLES = 256
CPU = torch.device("cpu")


def load_trained(run: Path) -> tuple[Recipe, DualVNet]:
    """Return a run's recipe and its network with the averaged weights (the last weights if the run has no average)."""
    recipe = load_recipe(str(run / "recipe.json"))
    state = load_checkpoint(run / "checkpoints" / "last.pt", CPU)
    network = DualVNet(recipe)
    network.load_state_dict(state["average"] or state["network"])
    return recipe, network.eval()


def batches_of(la: Path, names: list[str], recipe: Recipe) -> list[Batch]:
    """Return batches of patches without augmentation, drawn with the recipe's seed."""
    held = [load_case(la_case(la, name, LABELLED), recipe, CPU) for name in names]
    sampler = BatchSampler(held, [], with_settings(recipe, NO_AUGMENTATION), CPU)
    return [sampler.draw(step) for step in range(BATCHES)]


def run_all(network: DualVNet, batches: list[Batch]) -> list[tuple[BranchOutput, BranchOutput]]:
    with torch.no_grad():
        return [network(batch.images) for batch in batches]


# ---- attention


def attention_row(network: DualVNet, batches: list[Batch]) -> dict[str, Any]:
    added: list[float] = []

    def record(module: torch.nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        added.append(float((result - given[0]).square().mean().sqrt() / given[0].square().mean().sqrt()))

    hooks = [attention.register_forward_hook(record) for attention in network.attentions]
    partner = dice_of(network, batches, lambda batch: network(batch.images))
    for hook in hooks:
        hook.remove()
    themselves = torch.ones((2, len(batches[0].images)), dtype=torch.bool)
    own = dice_of(network, batches, lambda batch: network(batch.images, themselves))
    kept, network.attentions = network.attentions, torch.nn.ModuleList()
    none = dice_of(network, batches, lambda batch: network(batch.images))
    network.attentions = kept
    return {"added": round(sum(added) / len(added), 3), "partner": partner, "itself": own, "left out": none}


def dice_of(
    network: DualVNet, batches: list[Batch], forward: Callable[[Batch], tuple[BranchOutput, BranchOutput]]
) -> float:
    """Average the branches' probabilities, and return the Dice of the resulting segmentation.

    The voxels of all patches are counted together.
    """
    both = total = 0
    for batch in batches:
        with torch.no_grad():
            a, b = forward(batch)
        mask = (a.logits.softmax(dim=1) + b.logits.softmax(dim=1)).argmax(dim=1) == 1
        truth = batch.labels == 1
        both += int((mask & truth).sum())
        total += int(mask.sum() + truth.sum())
    return round(2 * both / total, 4)


# ---- MMD


def mmd_row(network: DualVNet, labelled: list[Batch], unlabelled: list[Batch]) -> dict[str, Any]:
    draws = torch.Generator().manual_seed(0)

    def tokens(outputs: list[tuple[BranchOutput, BranchOutput]], branch: int) -> Tensor:
        features = torch.cat([output[branch].bottleneck for output in outputs])
        return features.movedim(1, -1).flatten(0, -2)

    def distance(x: Tensor, y: Tensor) -> float:
        drawn = [
            mmd2(*(t[torch.randperm(len(t), generator=draws)[:SAMPLES]] for t in (x, y))).item() for _ in range(20)
        ]
        return round(sum(drawn) / len(drawn), 4)

    known, plain = run_all(network, labelled), run_all(network, unlabelled)
    a, b = (tokens(plain, branch) for branch in (0, 1))
    return {
        "branches": distance(a, b),
        "labelled, unlabelled": distance(tokens(known, 0), a),
        "bias of the estimator": distance(a[::2], a[1::2]),
    }


# ---- contrast


def contrast_row(network: DualVNet, labelled: list[Batch], unlabelled: list[Batch]) -> dict[str, Any]:
    known, plain = run_all(network, labelled), run_all(network, unlabelled)
    known_classes, plain_classes = classes_of(labelled), classes_of(unlabelled)
    row = {}
    for branch, name in enumerate("AB"):
        features = embeddings_of(known, branch)
        centres = F.normalize(torch.stack([features[known_classes == label].mean(dim=0) for label in (0, 1)]), dim=1)
        right = (embeddings_of(plain, branch) @ centres.T).argmax(dim=1) == plain_classes
        accuracies = [right[plain_classes == label].float().mean() for label in (0, 1)]
        row[f"branch {name}"] = round(float(sum(accuracies) / 2), 4)
        row[f"between {name}"] = round(float(centres[0] @ centres[1]), 3)
    return row


def embeddings_of(outputs: list[tuple[BranchOutput, BranchOutput]], branch: int) -> Tensor:
    """Return the embeddings (N, D), unit vectors, of all voxels at half the resolution."""
    features = torch.cat([output[branch].decoded for output in outputs])
    return F.normalize(features.movedim(1, -1).flatten(0, -2), dim=1)


def classes_of(batches: list[Batch]) -> Tensor:
    """Return the classes (N,) of all voxels at half the resolution."""
    return torch.cat([batch.labels[:, ::2, ::2, ::2] for batch in batches]).flatten()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("la", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--labelled", type=int, default=8)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    options = parser.parse_args()
    names = training_names(options.la)
    recipe, _ = load_trained(options.work / f"dca-mt-{options.labelled}-seed{options.seeds[0]}" / "run")
    labelled = batches_of(options.la, names[: options.labelled], recipe)
    unlabelled = batches_of(options.la, names[options.labelled :], recipe)
    measures: dict[str, tuple[Callable[[DualVNet], dict[str, Any]], tuple[str, ...]]] = {
        "attention": (lambda network: attention_row(network, unlabelled), ("dca-mt",)),
        "mmd": (lambda network: mmd_row(network, labelled, unlabelled), ("labelled-only", "no-mmd", "dca-mt")),
        "contrast": (
            lambda network: contrast_row(network, labelled, unlabelled),
            ("labelled-only", "no-intra-class", "no-inter-class", "dca-mt"),
        ),
    }
    tables: dict[str, list[dict[str, Any]]] = {table: [] for table in measures}
    for seed in options.seeds:
        for table, (measure, rows) in measures.items():
            for row in rows:
                _, network = load_trained(options.work / f"{row}-{options.labelled}-seed{seed}" / "run")
                tables[table].append({"row": row, "seed": seed, **measure(network)})
    for table, rows in tables.items():
        print(f"\n{table}")
        print_table(rows)
    (options.work / "parts_at_work.json").write_text(json.dumps(tables, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
