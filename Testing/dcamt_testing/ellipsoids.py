"""Make small synthetic scans of ellipsoids."""

from __future__ import annotations

import numpy as np


def ellipsoid_scan(shape: tuple[int, int, int] = (24, 24, 24), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a scan (float32) and its label (uint8), both of `shape`: a bright ellipsoid in noise."""
    draw = np.random.default_rng(seed)
    size = np.array(shape)
    centre = size / 2 + draw.uniform(-0.08, 0.08, 3) * size
    radii = draw.uniform(0.2, 0.32, 3) * size
    at = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    label = ((((at - centre) / radii) ** 2).sum(axis=-1) <= 1).astype(np.uint8)
    image = 100 + 120 * label + draw.normal(0, 15, shape)
    return image.astype(np.float32), label
