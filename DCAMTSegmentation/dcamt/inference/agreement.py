"""Compute the agreement of the two branches: voxel by voxel, and as a single number.

If the two independently initialised branches disagree about a voxel, at least one of them is wrong. Errors that both
branches make remain undetected.
"""

from __future__ import annotations

from torch import Tensor

from .labelling import most_likely


def agreement_map(branches: Tensor) -> Tensor:
    """Return the agreement (X, Y, Z), from 0 to 1, of the branches' probabilities (2, K, X, Y, Z).

    Agreement is 1 minus the total variation distance: 1 - half the sum over classes of |p_A - p_B|.
    """
    return 1 - 0.5 * (branches[0] - branches[1]).abs().sum(dim=0)


def branch_dice(branches: Tensor) -> float:
    """Return the Dice coefficient of the two branches' segmentations, from probabilities (2, K, X, Y, Z).

    A voxel counts as overlap if both branches give it the same foreground class. Returns 1 if both segmentations are
    empty.
    """
    a, b = (most_likely(branch) for branch in branches)
    total = int(a.count_nonzero() + b.count_nonzero())
    return 2 * int(((a == b) & (a > 0)).count_nonzero()) / total if total else 1.0
