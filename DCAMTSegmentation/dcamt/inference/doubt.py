"""Compute features of a segmentation's doubt, from which `models.calibration` estimates the expected overlap.

Doubt is summed in the band within `BAND_MM` of the outline and divided by the number of segmented voxels, as the Dice
coefficient relates errors to the volume. Each feature grows with the doubt.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from ..geometry import bounding_box
from ..models.calibration import NOTHING
from .agreement import agreement_map

BAND_MM = 2.5
"""Most errors of a good segmentation lie within this distance of its outline."""
DISAGREEMENT_OFFSET = 1e-3
"""Added to the disagreement, so that the logarithm of zero disagreement is finite."""


def doubt_features(branches: Tensor, labels: np.ndarray, spacing: tuple[float, float, float]) -> dict[str, float]:
    """Return the features of doubt of a segmentation by name; only `NOTHING` if the segmentation is empty.

    The feature `entropy` is the entropy of the branches' mean probabilities in units of log K, summed over the band,
    divided by the number of segmented voxels; then the square root is taken. The feature `disagreement` is the total
    variation distance of the branches, summed and divided in the same way; then the logarithm is taken. It is absent if
    there is only one branch.

    Args:
        branches: probabilities (branches, K, X, Y, Z) on the network grid.
        labels: uint8 (X, Y, Z), the segmentation on that grid.
        spacing: the grid's spacing in mm.
    """
    box = bounding_box(labels > 0)
    if box is None:
        return {NOTHING: 1.0}
    segmented = np.count_nonzero(labels)
    i, j, k = (
        slice(max(0, side.start - reach), side.stop + reach)
        for side, reach in zip(box, (math.ceil(BAND_MM / step) for step in spacing), strict=True)
    )
    band = dilate(outline_voxels(labels[i, j, k]), BAND_MM, spacing)
    branches = branches[:, :, i, j, k]
    mean = branches.mean(dim=0)
    entropy = -(mean * mean.clamp_min(1e-6).log()).sum(dim=0).numpy() / math.log(len(mean))
    features = {NOTHING: 0.0, "entropy": math.sqrt(max(0.0, float(entropy[band].sum())) / segmented)}
    if len(branches) == 2:
        distance = 1 - agreement_map(branches).numpy()
        features["disagreement"] = math.log(max(0.0, float(distance[band].sum())) / segmented + DISAGREEMENT_OFFSET)
    return features


def outline_voxels(labels: np.ndarray) -> np.ndarray:
    """Return the segmented voxels (X, Y, Z) bool that share a face with a voxel of another label."""
    outline = np.zeros(labels.shape, bool)
    for axis in range(3):
        near, far = np.moveaxis(outline, axis, 0)[:-1], np.moveaxis(outline, axis, 0)[1:]
        changes = np.diff(labels.astype(np.int16), axis=axis) != 0
        changes = np.moveaxis(changes, axis, 0)
        near |= changes
        far |= changes
    return outline & (labels > 0)


def dilate(mask: np.ndarray, mm: float, spacing: tuple[float, float, float]) -> np.ndarray:
    """Return the voxels whose centres lie within `mm` of the centre of a voxel of the mask (X, Y, Z)."""
    from scipy import ndimage

    if not mask.any():
        return mask.copy()  # The distance to an empty mask is undefined.
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing) <= mm)
