"""Compute the agreement of the two branches: voxel by voxel, and as a single number.

Of two independently initialised networks that disagree about a voxel at least one is wrong. Errors that both make stay
hidden.
"""

from __future__ import annotations

from torch import Tensor

from .labelling import most_likely


def agreement_map(branches: Tensor) -> Tensor:
    """Return 1 - half the sum over classes of |p_A - p_B| (X, Y, Z), from (2, K, X, Y, Z).

    This is 1 minus the total variation distance of the two branches' distributions.
    """
    return 1 - 0.5 * (branches[0] - branches[1]).abs().sum(dim=0)


def branch_dice(branches: Tensor) -> float:
    """Return the Dice coefficient of the two branches' foregrounds, from (2, K, X, Y, Z); 1 if both are empty.

    A voxel counts as common if both branches give it the same class.
    """
    a, b = (most_likely(branch) for branch in branches)
    total = int(a.count_nonzero() + b.count_nonzero())
    return 2 * int(((a == b) & (a > 0)).count_nonzero()) / total if total else 1.0
