"""Compute the training objective L = w_s L_sup + ramp(t) (w_d L_distil + w_m L_mmd + w_i L_intra + w_e L_inter)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import to_device
from ..networks.dual_vnet import BranchOutput
from ..recipe import Objective
from .contrast import inter_class, intra_class, prototypes
from .distillation import mutual_distillation
from .mmd import mmd2
from .supervised import dice_cross_entropy

Losses = dict[str, Tensor]


def ramp_up(step: int, steps: int) -> float:
    """Return the Gaussian ramp-up exp(-5 (1 - t / t_max)^2) for t < t_max, then 1 (Laine and Aila, ICLR 2017)."""
    progress = min(1.0, step / steps) if steps > 0 else 1.0
    return math.exp(-5 * (1 - progress) ** 2)


def objective_losses(
    outputs: tuple[BranchOutput, BranchOutput],
    labels: Tensor,
    projections: nn.ModuleList,
    weights: Objective,
    ramp_weight: float,
    generator: torch.Generator,
    teacher_logits: tuple[Tensor, Tensor] | None = None,
) -> Losses:
    """Return the losses by name, unweighted, and their weighted sum as `total`. Losses of weight 0 are not computed.

    Args:
        outputs: the outputs of branch A and branch B for a batch whose first L samples are labelled; float32.
        labels: int64 (L, X, Y, Z).
        projections: the projection heads of branch A and branch B.
        ramp_weight: factor of all losses except supervision, 0 to 1 (`ramp_up`).
        generator: draws the voxels for the contrast losses and the tokens (voxels of the bottleneck) for the MMD loss.
            It is a CPU generator, so that all devices use the same draws.
        teacher_logits: (U, K, X, Y, Z) of branch A and branch B for the unlabelled samples; by default the logits in
            `outputs`.
    """
    a, b = outputs
    labelled = len(labels)
    sampled = cache(lambda: _sample_embeddings(outputs, labels, projections, weights, generator))
    terms: dict[str, tuple[float, Callable[[], Tensor]]] = {
        "supervised": (
            weights.supervised,
            lambda: dice_cross_entropy(a.logits[:labelled], labels) + dice_cross_entropy(b.logits[:labelled], labels),
        ),
        "distillation": (
            ramp_weight * weights.distillation,
            lambda: mutual_distillation(
                (a.logits, b.logits), _complete_teacher_logits(a, b, teacher_logits), weights.distillation_temperature
            ),
        ),
        "mmd": (ramp_weight * weights.mmd, lambda: _alignment_loss(a, b, labelled, weights.samples, generator)),
        "intra_class": (ramp_weight * weights.intra_class, lambda: _sum_over_branches(sampled(), intra_class)),
        "inter_class": (
            ramp_weight * weights.inter_class,
            lambda: _sum_over_branches(
                sampled(),
                partial(inter_class, present=sampled().present, temperature=weights.contrast_temperature),
            ),
        ),
    }
    losses = {name: loss() for name, (weight, loss) in terms.items() if weight > 0}
    total = torch.zeros((), device=a.logits.device)
    for name, loss in losses.items():
        total = total + terms[name][0] * loss
    return losses | {"total": total}


def _complete_teacher_logits(
    a: BranchOutput, b: BranchOutput, teacher_logits: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Return both branches' teacher logits for the whole batch.

    Unlabelled samples get `teacher_logits`, if given. All other samples get the branches' own logits.
    """
    if teacher_logits is None:
        return a.logits, b.logits
    labelled = len(a.logits) - len(teacher_logits[0])
    return (
        torch.cat([a.logits[:labelled], teacher_logits[0]]),
        torch.cat([b.logits[:labelled], teacher_logits[1]]),
    )


def _alignment_loss(
    a: BranchOutput, b: BranchOutput, labelled: int, samples: int, generator: torch.Generator
) -> Tensor:
    """Return MMD^2 between the branches plus, within each branch, MMD^2 between labelled and unlabelled samples."""

    def features(output: BranchOutput, rows: slice) -> Tensor:
        tokens = output.bottleneck[rows].float().movedim(1, -1).flatten(0, -2)  # (tokens, C)
        chosen = torch.randperm(len(tokens), generator=generator)[:samples]
        return tokens[to_device(chosen, tokens.device)]

    whole = slice(None)
    parts = [mmd2(features(a, whole), features(b, whole))]
    if labelled < len(a.bottleneck):
        parts += [mmd2(features(branch, slice(labelled)), features(branch, slice(labelled, None))) for branch in (a, b)]
    return torch.stack(parts).sum()


@dataclass(frozen=True)
class _SampledEmbeddings:
    """Embeddings of sampled voxels, the same voxels for both branches.

    Attributes:
        embeddings: (N, D) of branch A and branch B.
        prototypes: (K, D) of branch A and branch B.
        classes: (N,); a voxel of class -1 is ignored.
        present: booleans (K,), True if a voxel of the class was sampled.
    """

    embeddings: tuple[Tensor, Tensor]
    prototypes: tuple[Tensor, Tensor]
    classes: Tensor
    present: Tensor


def _sum_over_branches(sampled: _SampledEmbeddings, loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    (a, b), (prototypes_a, prototypes_b) = sampled.embeddings, sampled.prototypes
    return loss(a, sampled.classes, prototypes_a, prototypes_b) + loss(b, sampled.classes, prototypes_b, prototypes_a)


def _sample_embeddings(
    outputs: tuple[BranchOutput, BranchOutput],
    labels: Tensor,
    projections: nn.ModuleList,
    weights: Objective,
    generator: torch.Generator,
) -> _SampledEmbeddings:
    """Return embeddings of at most `weights.samples` voxels of each class, on the grid of `BranchOutput.decoded`."""
    count = outputs[0].logits.shape[1]
    classes = _voxel_classes(outputs, labels, weights.confidence).flatten()
    random_keys = to_device(torch.rand(classes.shape, generator=generator), classes.device)
    indices, sampled_classes = [], []
    for label in range(count):
        top = torch.where(classes == label, random_keys, -1.0).topk(min(weights.samples, len(classes)))
        indices.append(top.indices)
        has_class = top.values >= 0
        sampled_classes.append(torch.where(has_class, label, -1))
    index, sampled = torch.cat(indices), torch.cat(sampled_classes)

    def embed(output: BranchOutput, projection: nn.Module) -> Tensor:
        features = output.decoded.movedim(1, -1).flatten(0, -2)[index]
        return F.normalize(projection(features).float(), dim=1)

    a, b = (embed(output, projection) for output, projection in zip(outputs, projections, strict=True))
    (prototypes_a, present), (prototypes_b, _) = prototypes(a, sampled, count), prototypes(b, sampled, count)
    return _SampledEmbeddings((a, b), (prototypes_a, prototypes_b), sampled, present)


def _voxel_classes(outputs: tuple[BranchOutput, BranchOutput], labels: Tensor, confidence: float) -> Tensor:
    """Return the class of each voxel on the grid of the `decoded` features; -1 for none.

    A voxel of a labelled sample has the class of its label. A voxel of an unlabelled sample has the class that both
    branches predict with a probability above `confidence`.
    """
    sizes = zip(outputs[0].logits.shape[2:], outputs[0].decoded.shape[2:], strict=True)
    coarse = (slice(None), *(slice(None, None, fine // decoded) for fine, decoded in sizes))
    labelled = labels[coarse]
    count = len(labels)
    if count == len(outputs[0].logits):
        return labelled
    (probability_a, class_a), (probability_b, class_b) = (
        output.logits.detach()[count:][(slice(None), *coarse)].softmax(dim=1).max(dim=1) for output in outputs
    )
    agrees = (class_a == class_b) & (torch.minimum(probability_a, probability_b) > confidence)
    return torch.cat([labelled, torch.where(agrees, class_a, -1)])
