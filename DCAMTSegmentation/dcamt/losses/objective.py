"""L = L_sup + ramp(t) (w_d L_distil + w_m L_mmd + w_i L_intra + w_e L_inter)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import hand_over
from ..networks.dual_vnet import BranchOutput
from ..recipe import Objective
from .contrast import inter_class, intra_class, prototypes
from .distillation import mutual_distillation
from .mmd import mmd2
from .supervised import dice_cross_entropy

Losses = dict[str, Tensor]


def ramp(step: int, steps: int) -> float:
    """Gaussian ramp-up exp(-5 (1 - t / t_max)^2), then 1 (Laine and Aila, ICLR 2017)."""
    progress = min(1.0, step / steps) if steps > 0 else 1.0
    return math.exp(-5 * (1 - progress) ** 2)


def objective_losses(
    outputs: tuple[BranchOutput, BranchOutput],
    labels: Tensor,
    projections: nn.ModuleList,
    weights: Objective,
    ramp_weight: float,
    generator: torch.Generator,
    said: tuple[Tensor, Tensor] | None = None,
) -> Losses:
    """Each part of the objective that has a weight, unweighted, and their weighted `total`.

    A part of weight 0 is not computed.

    `outputs` are of a batch whose first len(labels) samples are labelled: `labels` (L, X, Y, Z), int64. `generator`
    draws the sampled voxels (a CPU generator, so that a run repeats on any device). `said`: logits (U, K, X, Y, Z) of
    each branch by which it teaches on the unlabelled samples, where these are not the outputs' own.
    """
    a, b = outputs
    labelled = len(labels)
    losses: Losses = {}
    total = torch.zeros((), device=a.logits.device)

    def add(name: str, weight: float, loss: Callable[[], Tensor]) -> None:
        nonlocal total
        if weight > 0:
            losses[name] = loss()
            total = total + weight * losses[name]

    add(
        "supervised",
        weights.supervised,
        lambda: dice_cross_entropy(a.logits[:labelled], labels) + dice_cross_entropy(b.logits[:labelled], labels),
    )
    add(
        "distillation",
        ramp_weight * weights.distillation,
        lambda: mutual_distillation((a.logits, b.logits), _teachers(a, b, said), weights.distillation_temperature),
    )
    add("mmd", ramp_weight * weights.mmd, lambda: _alignment(a, b, labelled, weights.samples, generator))
    if ramp_weight * (weights.intra_class + weights.inter_class) > 0:
        embeddings, classes, centres, present = _sample_embeddings(outputs, labels, projections, weights, generator)
        pairs = ((embeddings[0], centres[0], centres[1]), (embeddings[1], centres[1], centres[0]))
        add(
            "intra_class",
            ramp_weight * weights.intra_class,
            lambda: torch.stack([intra_class(e, classes, own, other) for e, own, other in pairs]).sum(),
        )
        add(
            "inter_class",
            ramp_weight * weights.inter_class,
            lambda: torch.stack(
                [inter_class(e, classes, own, other, present, weights.contrast_temperature) for e, own, other in pairs]
            ).sum(),
        )
    losses["total"] = total
    return losses


def _teachers(a: BranchOutput, b: BranchOutput, said: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    if said is None:
        return a.logits, b.logits
    labelled = len(a.logits) - len(said[0])
    return torch.cat([a.logits[:labelled], said[0]]), torch.cat([b.logits[:labelled], said[1]])


def _alignment(a: BranchOutput, b: BranchOutput, labelled: int, samples: int, generator: torch.Generator) -> Tensor:
    """MMD^2 between the branches, and within each branch between labelled and unlabelled samples."""

    def features(output: BranchOutput, rows: slice) -> Tensor:
        tokens = output.bottleneck[rows].float().movedim(1, -1).flatten(0, -2)  # (tokens, C)
        chosen = torch.randperm(len(tokens), generator=generator)[:samples]
        return tokens[hand_over(chosen, tokens.device)]

    whole = slice(None)
    parts = [mmd2(features(a, whole), features(b, whole))]
    if labelled < len(a.bottleneck):
        parts += [mmd2(features(branch, slice(labelled)), features(branch, slice(labelled, None))) for branch in (a, b)]
    return torch.stack(parts).sum()


def _sample_embeddings(
    outputs: tuple[BranchOutput, BranchOutput],
    labels: Tensor,
    projections: nn.ModuleList,
    weights: Objective,
    generator: torch.Generator,
) -> tuple[list[Tensor], Tensor, list[Tensor], Tensor]:
    """Embeddings of sampled voxels, both branches at the same places, at half the resolution.

    -> [(N, D), (N, D)], classes (N,), -1 for those that have none, prototypes [(K, D), (K, D)], classes present (K,).
    """
    count = outputs[0].logits.shape[1]
    classes = _voxel_classes(outputs, labels, weights.confidence).flatten()
    # At most `samples` voxels a class: random keys, the highest of each class. Where a class has fewer, voxels without
    # one fill its places, as a GPU would have to wait for the number of its voxels to be read back.
    keys = hand_over(torch.rand(classes.shape, generator=generator), classes.device)
    chosen, said = [], []
    for label in range(count):
        top = torch.where(classes == label, keys, -1.0).topk(min(weights.samples, len(keys)))
        chosen.append(top.indices)
        said.append(torch.where(top.values >= 0, label, -1))
    index, picked = torch.cat(chosen), torch.cat(said)
    embeddings, centres = [], []
    for output, projection in zip(outputs, projections, strict=True):
        features = output.decoded.movedim(1, -1).flatten(0, -2)[index]
        embeddings.append(F.normalize(projection(features).float(), dim=1))
        own, present = prototypes(embeddings[-1], picked, count)
        centres.append(own)
    return embeddings, picked, centres, present


def _voxel_classes(outputs: tuple[BranchOutput, BranchOutput], labels: Tensor, confidence: float) -> Tensor:
    """Class of each voxel at half the resolution (B, X/2, Y/2, Z/2); -1 where nothing lends one.

    Labels for labelled samples; for the others, what both branches say with more than `confidence`.
    """
    coarse = (slice(None), slice(None, None, 2), slice(None, None, 2), slice(None, None, 2))
    labelled = labels[coarse]
    beyond = len(labels)
    if beyond == len(outputs[0].logits):
        return labelled
    sure_a, said_a = outputs[0].logits.detach()[beyond:][(slice(None), *coarse)].softmax(dim=1).max(dim=1)
    sure_b, said_b = outputs[1].logits.detach()[beyond:][(slice(None), *coarse)].softmax(dim=1).max(dim=1)
    agreed = (said_a == said_b) & (torch.minimum(sure_a, sure_b) > confidence)
    return torch.cat([labelled, torch.where(agreed, said_a, -1)])
