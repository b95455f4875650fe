"""Batches of patches, cut from resident cases and augmented on the device where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..devices import hand_over
from ..distributed import ALONE, Team
from ..losses.copy_paste import random_box
from ..preprocessing import intensity_reach
from ..recipe import Recipe
from .augmentation import change_intensities, in_voxels, random_transform
from .resident import ResidentCase, quantum
from .surroundings import surround

BOX, LABELLED_BOX = 1023, 1022
"""In the place of a sample's number: seeds for what a whole batch shares."""


@dataclass(frozen=True)
class Batch:
    """images: float32 (B, C, X, Y, Z), the labelled samples first. labels: int64 (L, X, Y, Z) of those.

    plain: the unlabelled images before they were changed, for a teacher to look at.
    own_tokens: (2, B) booleans, where a branch shall attend to its own tokens.
    box: (X, Y, Z) booleans, where each unlabelled patch holds what the next one had there; None if none does.
    """

    images: Tensor
    labels: Tensor
    plain: Tensor
    own_tokens: Tensor
    box: Tensor | None = None

    def mixed(self, patches: Tensor) -> Tensor:
        """What belongs to the unlabelled patches, (U, ..., X, Y, Z), mixed as these are."""
        return patches if self.box is None else cut_mix(patches, self.box)


def step_seed(seed: int, step: int) -> int:
    """A seed of its own for each iteration: what an iteration draws depends on no earlier one, so a run can resume."""
    return seed * 1_000_003 + step


def sample_seed(seed: int, step: int, sample: int) -> int:
    """A seed of its own for each sample of a batch, so that a share of the batch is drawn as the whole would be."""
    return step_seed(seed, step) * 1024 + sample


def cut_mix(patches: Tensor, box: Tensor) -> Tensor:
    """Patches (N, ..., X, Y, Z) with, in the box (X, Y, Z), what the next one has there (the first, for the last).

    Source: Yun et al., "CutMix", ICCV 2019; for consistency between predictions French et al., BMVC 2020.
    """
    return torch.where(box, patches.roll(-1, dims=0), patches)


class BatchSampler:
    """Draws the batch of an iteration; the same step of the same seed always draws the same."""

    def __init__(
        self,
        labelled: Sequence[ResidentCase],
        unlabelled: Sequence[ResidentCase],
        recipe: Recipe,
        device: torch.device,
        team: Team = ALONE,
    ) -> None:
        self._labelled = labelled
        self._unlabelled = unlabelled
        self._recipe = recipe
        self._device = device
        training = recipe.training
        self._labelled_samples = training.labelled_per_batch if unlabelled else training.batch
        self._samples = team.share(self._labelled_samples, training.batch)

    def draw(self, step: int) -> Batch:
        """This process's share of the batch of an iteration."""
        training, augmentation = self._recipe.training, self._recipe.augmentation
        images, labels, plain, own_tokens = [], [], [], []
        for sample in self._samples:
            seed = sample_seed(training.seed, step, sample)
            choices = torch.Generator().manual_seed(seed)
            has_label = sample < self._labelled_samples
            pool = self._labelled if has_label else self._unlabelled
            case = pool[int(torch.randint(len(pool), (), generator=choices))]
            image, label = surround(*self._patch(case, choices), augmentation.surroundings, choices)
            images.append(self._change_intensities(image, torch.Generator(self._device).manual_seed(seed)))
            own_tokens.append(torch.rand(2, generator=choices) < training.own_tokens)
            if has_label:
                labels.append(label)
            else:
                plain.append(image)
        box, labelled_box = (
            self._box(step, BOX, augmentation.mix),
            self._box(step, LABELLED_BOX, augmentation.mix_labelled),
        )
        mixed, known = torch.stack(images), torch.stack(labels)
        if labelled_box is not None:
            known = cut_mix(known, labelled_box)
            mixed[: len(labels)] = cut_mix(mixed[: len(labels)], labelled_box)
        if box is not None and plain:
            mixed[len(labels) :] = cut_mix(mixed[len(labels) :], box)
        return Batch(
            mixed,
            known,
            torch.stack(plain) if plain else mixed.new_empty((0, *mixed.shape[1:])),
            hand_over(torch.stack(own_tokens, dim=1), self._device),
            box,
        )

    def _box(self, step: int, number: int, probability: float) -> Tensor | None:
        """One for the whole batch, on every process of a team the same."""
        draws = torch.Generator().manual_seed(sample_seed(self._recipe.training.seed, step, number))
        if float(torch.rand((), generator=draws)) >= probability:
            return None
        return hand_over(random_box(self._recipe.training.patch, draws), self._device)

    def _change_intensities(self, image: Tensor, generator: torch.Generator) -> Tensor:
        recipe = self._recipe
        reach = intensity_reach(recipe.intensity)
        return change_intensities(image[None], recipe.augmentation, recipe.spacing, reach, generator)[0]

    def _patch(self, case: ResidentCase, choices: torch.Generator) -> tuple[Tensor, Tensor]:
        """A patch (C, X, Y, Z) of a case and its label (X, Y, Z; zeros where the case has none)."""
        patch = self._recipe.training.patch
        size = case.image.shape[1:]
        matrix = in_voxels(random_transform(self._recipe.augmentation, choices), self._recipe.spacing)
        room = torch.tensor([max(0, have - want) for have, want in zip(size, patch, strict=True)])
        centre = torch.tensor([(have - 1) / 2 for have in size]) + (torch.rand(3, generator=choices) - 0.5) * room
        if case.places and float(torch.rand((), generator=choices)) < self._recipe.training.foreground:
            places = case.places[int(torch.randint(len(case.places), (), generator=choices))]
            wanted = places[int(torch.randint(len(places), (), generator=choices))].float()
            # Shifted back inside, so that a patch never lies half outside a scan that could fill it.
            middle = torch.tensor([(have - 1) / 2 for have in size])
            centre = middle + (wanted - middle).clamp(-room / 2, room / 2)
        return self._cut(case, centre.double(), matrix)

    def _cut(self, case: ResidentCase, centre: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Sample the voxels centre + matrix @ (u - (patch - 1) / 2); beyond the border the nearest voxel counts."""
        patch = torch.tensor(self._recipe.training.patch, dtype=torch.float64)
        # Only the part of the scan that the patch can touch becomes float.
        reach = matrix.abs() @ (patch / 2) + 2
        size = torch.tensor(case.image.shape[1:])
        low = (centre - reach).floor().long().clamp_min(0).minimum(size - 1)
        high = (centre + reach).ceil().long().clamp_min(1).minimum(size).maximum(low + 1)
        part = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))

        # grid_sample wants (z, y, x) and positions from -1 to 1 between the part's outer faces.
        span = (high - low).double()
        scale = (2 / span)[:, None] * matrix * (patch / 2)
        shift = (2 * (centre - low) + 1) / span - 1
        theta = torch.cat([scale.flip(0, 1), shift.flip(0)[:, None]], dim=1)
        shape = [1, 1, *self._recipe.training.patch]
        # Twelve numbers go to the device, which makes the grid of millions there.
        grid = F.affine_grid(hand_over(theta[None].float(), self._device), shape, align_corners=False)

        def sample(values: Tensor, mode: str) -> Tensor:
            return F.grid_sample(values[None].float(), grid, mode, padding_mode="border", align_corners=False)[0]

        scale_8bit, offset = quantum(self._recipe.intensity)
        image = sample(case.image[(slice(None), *part)], "bilinear") * scale_8bit + offset
        if case.label is None:
            return image, torch.zeros(self._recipe.training.patch, dtype=torch.int64, device=self._device)
        return image, sample(case.label[part][None], "nearest")[0].long()
