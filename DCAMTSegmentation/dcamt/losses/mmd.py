"""Compute the maximum mean discrepancy (MMD) between two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Squared bandwidths of the Gaussian kernels, as multiples of the features' median squared distance (see `mmd2`)."""


def mmd2(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared MMD of x (N, D) and y (M, D), averaged over Gaussian kernels.

    k(u, v) = exp(-|u - v|^2 / (2 h m)) for each m of `BANDWIDTHS`; h is the median squared distance of all pairs in the
    union of both sets (the median heuristic), without gradient. The estimate is biased and, up to rounding, never
    negative (Gretton et al., JMLR 2012, eq. 5).
    """
    both = torch.cat([x, y])
    # The shift avoids rounding errors if the features are far from 0.
    both = both - both.mean(dim=0, keepdim=True).detach()
    # |u - v|^2 = |u|^2 + |v|^2 - 2 u @ v; rounding can make it negative.
    norms = both.square().sum(dim=1)
    distances = (norms[:, None] + norms[None] - 2 * both @ both.T).clamp_min(0)
    count = len(both)
    rows, columns = torch.triu_indices(count, count, offset=1, device=both.device)
    median = distances.detach()[rows, columns].median().clamp_min(1e-12)
    kernel = torch.stack([torch.exp(-distances / (2 * median * multiple)) for multiple in BANDWIDTHS]).mean(dim=0)
    n = len(x)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
