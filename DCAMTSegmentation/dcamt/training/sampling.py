"""Draw batches of augmented patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..devices import to_device
from ..distributed import ALONE, Team
from ..preprocessing import intensity_reach
from ..recipe import Recipe
from .augmentation import (
    add_artefact,
    change_intensities,
    cut_mix,
    mm_to_voxels,
    random_box,
    random_transform,
    replace_surroundings,
)
from .resident import ResidentCase, uint8_scale_offset

LABELLED_BOX, UNLABELLED_BOX = 1022, 1023
"""Numbers that `sample_seed` gets for the two boxes for mixing; the numbers of samples are smaller."""


@dataclass(frozen=True)
class Batch:
    """The patches of one iteration.

    Attributes:
        images: float32 (B, C, X, Y, Z), labelled samples first.
        labels: int64 (L, X, Y, Z), the labels of the labelled samples.
        teacher_images: (U, C, X, Y, Z), the teachers' input: unlabelled patches before artefacts, intensity changes and
            mixing.
        own_tokens: booleans (2, B), see `DualVNet.forward`.
        box: booleans (X, Y, Z), the box in which unlabelled patches are mixed (`cut_mix`); None without mixing.
    """

    images: Tensor
    labels: Tensor
    teacher_images: Tensor
    own_tokens: Tensor
    box: Tensor | None = None

    def mix(self, values: Tensor) -> Tensor:
        """Return values (U, ..., X, Y, Z) of the unlabelled patches, mixed like the patches themselves."""
        return values if self.box is None else cut_mix(values, self.box)


def step_seed(seed: int, step: int) -> int:
    """Return an iteration's seed, independent of earlier iterations: a resumed run draws the same batches."""
    return seed * 1_000_003 + step


def sample_seed(seed: int, step: int, sample: int) -> int:
    """Return a sample's seed, independent of the process: a team draws the same samples as a single process."""
    return step_seed(seed, step) * 1024 + sample


class BatchSampler:
    """Draws the batch of each iteration.

    The batch depends only on the cases, the recipe, the iteration and the type of the device. If patches are mixed,
    the batch also depends on the size of the team, since each process mixes only its own patches with each other.

    Raises:
        InputError: the batch cannot be split evenly among the processes of the team.
    """

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
        self._samples = team.sample_indices(self._labelled_samples, training.batch)

    def draw(self, step: int) -> Batch:
        """Return this process's part of an iteration's batch."""
        training, augmentation = self._recipe.training, self._recipe.augmentation
        reach = intensity_reach(self._recipe.intensity)
        images, labels, teacher_images, own_tokens = [], [], [], []
        for sample in self._samples:
            seed = sample_seed(training.seed, step, sample)
            draws = torch.Generator().manual_seed(seed)
            has_label = sample < self._labelled_samples
            pool = self._labelled if has_label else self._unlabelled
            case = pool[int(torch.randint(len(pool), (), generator=draws))]
            image, label = replace_surroundings(*self._patch(case, draws), augmentation.surroundings, draws)
            disturbed = add_artefact(image, augmentation.artefacts, self._recipe.intensity, self._recipe.spacing, draws)
            on_device = torch.Generator(self._device).manual_seed(seed)
            images.append(change_intensities(disturbed[None], augmentation, reach, on_device)[0])
            own_tokens.append(torch.rand(2, generator=draws) < training.own_tokens)
            if has_label:
                labels.append(label)
            else:
                teacher_images.append(image)
        mixed, target = torch.stack(images), torch.stack(labels)
        count = len(labels)
        if (labelled_box := self._box(step, LABELLED_BOX, augmentation.mix_labelled)) is not None:
            target = cut_mix(target, labelled_box)
            mixed[:count] = cut_mix(mixed[:count], labelled_box)
        box = self._box(step, UNLABELLED_BOX, augmentation.mix)
        if box is not None and teacher_images:
            mixed[count:] = cut_mix(mixed[count:], box)
        return Batch(
            mixed,
            target,
            torch.stack(teacher_images) if teacher_images else mixed.new_empty((0, *mixed.shape[1:])),
            to_device(torch.stack(own_tokens, dim=1), self._device),
            box,
        )

    def _box(self, step: int, index: int, probability: float) -> Tensor | None:
        # All processes of a team get the same result.
        draws = torch.Generator().manual_seed(sample_seed(self._recipe.training.seed, step, index))
        if float(torch.rand((), generator=draws)) >= probability:
            return None
        return to_device(random_box(self._recipe.training.patch, draws), self._device)

    def _patch(self, case: ResidentCase, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a random patch (C, X, Y, Z) of a case and its label (X, Y, Z), which is 0 for an unlabelled case."""
        patch = self._recipe.training.patch
        size = case.image.shape[1:]
        matrix = mm_to_voxels(random_transform(self._recipe.augmentation, draws), self._recipe.spacing)
        room = torch.tensor([max(0, have - want) for have, want in zip(size, patch, strict=True)])
        scan_centre = torch.tensor([(have - 1) / 2 for have in size])
        centre = scan_centre + (torch.rand(3, generator=draws) - 0.5) * room
        if case.voxels and float(torch.rand((), generator=draws)) < self._recipe.training.foreground:
            voxels = case.voxels[int(torch.randint(len(case.voxels), (), generator=draws))]
            voxel = voxels[int(torch.randint(len(voxels), (), generator=draws))].float()
            # The centre is moved so that an unrotated patch lies inside the scan if the scan is large enough.
            centre = scan_centre + (voxel - scan_centre).clamp(-room / 2, room / 2)
        return self._cut(case, centre.double(), matrix)

    def _cut(self, case: ResidentCase, centre: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return image and label of a patch: voxel u lies at `centre + matrix @ (u - (patch - 1) / 2)` in the scan."""
        patch = torch.tensor(self._recipe.training.patch, dtype=torch.float64)
        # Only the part of the scan that the patch can reach is converted to float.
        reach = matrix.abs() @ (patch / 2) + 2
        size = torch.tensor(case.image.shape[1:])
        low = (centre - reach).floor().long().clamp_min(0).minimum(size - 1)
        high = (centre + reach).ceil().long().clamp_min(1).minimum(size).maximum(low + 1)
        part = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))

        # grid_sample expects the axes in reverse order; the part's outer faces are at -1 and 1.
        span = (high - low).double()
        scale = (2 / span)[:, None] * matrix * (patch / 2)
        shift = (2 * (centre - low) + 1) / span - 1
        theta = torch.cat([scale.flip(0, 1), shift.flip(0)[:, None]], dim=1)
        shape = [1, 1, *self._recipe.training.patch]
        # The sampling grid is computed on the device, so that only twelve numbers are copied to it.
        grid = F.affine_grid(to_device(theta[None].float(), self._device), shape, align_corners=False)

        def sample(values: Tensor, mode: str) -> Tensor:
            return F.grid_sample(values[None].float(), grid, mode, padding_mode="border", align_corners=False)[0]

        scale_8bit, offset = uint8_scale_offset(self._recipe.intensity)
        image = sample(case.image[(slice(None), *part)], "bilinear") * scale_8bit + offset
        if case.label is None:
            return image, torch.zeros(self._recipe.training.patch, dtype=torch.int64, device=self._device)
        return image, sample(case.label[part][None], "nearest")[0].long()
