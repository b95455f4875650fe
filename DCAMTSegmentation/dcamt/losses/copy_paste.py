"""Bidirectional copy-paste: a box of a labelled patch in an unlabelled one, and the other way round.

Source: Bai et al., "Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation", CVPR 2023. Unlike there,
the mixed patches come on top of the plain ones, and their weight rises with the ramp-up instead of after a phase of
pre-training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SIDE = 2 / 3
"""Of the box, as a share of the patch's: the paper's."""


def random_box(size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Booleans (X, Y, Z): True in a box of two thirds of each side, anywhere in the patch."""
    inside = torch.zeros(tuple(size), dtype=torch.bool)
    sides = [max(1, round(SIDE * length)) for length in size]
    starts = [
        int(torch.randint(length - side + 1, (), generator=generator)) for length, side in zip(size, sides, strict=True)
    ]
    inside[tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))] = True
    return inside


def partners(labelled: int, unlabelled: int, device: torch.device) -> Tensor:
    """Which unlabelled patch each labelled one is mixed with: patch i with patch i, counted round; (L,)."""
    return torch.arange(labelled, device=device) % unlabelled


def copy_paste(images: Tensor, labels: Tensor, pseudo_labels: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Mixed patches and their labels: first each labelled patch with a box of an unlabelled one, then the mirror.

    `images` (L + U, C, X, Y, Z), the labelled ones first; `labels` (L, X, Y, Z); `pseudo_labels` (U, X, Y, Z);
    `inside` (X, Y, Z), True in the box. -> images (2L, C, X, Y, Z) and labels (2L, X, Y, Z). Who meets whom: see
    `partners`.
    """
    labelled = len(labels)
    partner = partners(labelled, len(pseudo_labels), images.device)
    own, other = images[:labelled], images[labelled:][partner]
    guessed = pseudo_labels[partner]
    mixed = torch.cat([torch.where(inside, other, own), torch.where(inside, own, other)])
    return mixed, torch.cat([torch.where(inside, guessed, labels), torch.where(inside, labels, guessed)])
