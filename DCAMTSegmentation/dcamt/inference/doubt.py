"""Compute the doubt of a segmentation: a map with a value for each voxel, and features of the whole segmentation.

The map estimates the probability that a voxel's label is wrong; a model's calibration scales the map
(`models.doubt_scaling`). From the features, `models.calibration` estimates the expected overlap. Each feature grows
with the doubt.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..geometry import NetworkGrid, bounding_box, pad_box, whole_box
from ..models.calibration import NOTHING
from ..models.doubt_scaling import LIMIT, DoubtScaling
from ..preprocessing import apply_along_axis, nearest_labels, source_box_of, to_source
from .agreement import agreement_map
from .labelling import most_likely

BAND_MM = 2.5
"""Most errors of a good segmentation lie within this distance of its outline."""
DISAGREEMENT_OFFSET = 1e-3
"""Added to the disagreement, so that the logarithm of zero disagreement is finite."""

NEIGHBOURHOOD_MM = 2.0
"""Standard deviation of the Gaussian that averages the probabilities around a voxel for the map of doubt."""
DOUBT_BIAS, DOUBT_OWN, DOUBT_AROUND, DOUBT_BACKGROUND = 0.48, 0.52, 0.71, -0.49
"""Coefficients of the map of doubt, fitted to the voxels within 8 mm of the outline in eight training cases of the left
atrium (docs/experiments.md, "Map of doubt")."""
CUT_OFF = 3.0
"""The Gaussian ends at this many standard deviations."""
NEGLIGIBLE = 0.05
"""The map of doubt is 0 outside a box around the voxels in which the organs' probabilities sum to more than this."""


def doubt_map(
    mean: Tensor, grid: NetworkGrid, removed: np.ndarray | None = None, scaling: DoubtScaling | None = None
) -> np.ndarray:
    """Return the probability that each voxel's label is wrong, float32 (I, J, K) on the scan's own grid.

    A voxel's label is its most likely class, or background where a component was removed.

    The result is sigmoid(DOUBT_BIAS + DOUBT_OWN * logit(q) + DOUBT_AROUND * logit(r) + DOUBT_BACKGROUND * b), scaled by
    `scaling`.

    - q is 1 minus the probability of the voxel's label.
    - r is 1 minus the smoothed probability of the voxel's label (Gaussian, see `NEIGHBOURHOOD_MM`).
    - b is 1 if the label is background, else 0.

    Outside a box around the organs (see `NEGLIGIBLE`), the result is 0.

    Args:
        mean: the branches' mean probabilities (K, X, Y, Z) on the network grid.
        removed: bool (I, J, K) on the scan's grid, True where a component was removed.
    """
    doubt = np.zeros(grid.source.shape, np.float32)
    organ_box = bounding_box((mean[0] < 1 - NEGLIGIBLE).numpy())
    if organ_box is None:
        return doubt
    reach = [math.ceil(CUT_OFF * NEIGHBOURHOOD_MM / step) for step in grid.spacing]
    box = pad_box(organ_box, reach, whole_box(grid.shape))
    mean = mean[(slice(None), *box)]
    organs = mean[1:]
    for axis, step in enumerate(grid.spacing):
        weights = gaussian_matrix(mean.shape[axis + 1], NEIGHBOURHOOD_MM / step)
        organs = apply_along_axis(organs, weights, axis - 3)
    labels = most_likely(mean)
    if removed is not None and removed.any():
        labels[torch.from_numpy(nearest_labels(removed, grid)[box])] = 0
    around = torch.cat([1 - organs.sum(dim=0, keepdim=True), organs])
    own, around = (values.gather(0, labels[None].long())[0] for values in (mean, around))
    score = DOUBT_BIAS + DOUBT_OWN * _logit(1 - own) + DOUBT_AROUND * _logit(1 - around)
    on_grid = torch.zeros(grid.shape)
    on_grid[box] = (score + DOUBT_BACKGROUND * (labels == 0)).sigmoid()
    part = source_box_of(box, grid)
    unscaled = to_source(on_grid, grid, part)
    # The scaling is applied after the interpolation, because the scaling was fitted to values on the scan's grid.
    doubt[part] = unscaled if scaling is None else scaling.apply(unscaled)
    return doubt


def gaussian_matrix(size: int, deviation: float) -> Tensor:
    """Return the matrix (size, size) that smooths along an axis by a Gaussian, cut off at `CUT_OFF` deviations.

    Each row sums to 1.

    Args:
        deviation: the standard deviation in voxels.
    """
    place = torch.arange(size, dtype=torch.float32)
    distance = (place[:, None] - place) / deviation
    weights = torch.exp(-0.5 * distance**2) * (distance.abs() <= CUT_OFF)
    return weights / weights.sum(dim=1, keepdim=True)


def _logit(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(LIMIT, 1 - LIMIT).logit()


def doubt_features(branches: Tensor, labels: np.ndarray, spacing: tuple[float, float, float]) -> dict[str, float]:
    """Return a segmentation's features of doubt by name.

    `NOTHING` is 1 if the segmentation is empty, else 0. An empty segmentation has no other feature.

    `entropy` is sqrt(E / n): E is the entropy of the branches' mean probabilities in units of log K, summed over the
    band within `BAND_MM` of the outline, and n the number of segmented voxels.

    `disagreement` is log(D / n + DISAGREEMENT_OFFSET): D is the total variation distance of the branches, summed over
    the band. With one branch there is no `disagreement`.

    Args:
        branches: probabilities (branches, K, X, Y, Z) on the network grid.
        labels: uint8 (X, Y, Z), the segmentation on that grid.
        spacing: the grid's spacing in mm.
    """
    box = bounding_box(labels > 0)
    if box is None:
        return {NOTHING: 1.0}
    segmented = np.count_nonzero(labels)
    around = pad_box(box, [math.ceil(BAND_MM / step) for step in spacing], whole_box(labels.shape))
    band = dilate(outline_voxels(labels[around]), BAND_MM, spacing)
    branches = branches[(..., *around)]
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
        along, marked = np.moveaxis(labels, axis, 0), np.moveaxis(outline, axis, 0)
        changes = along[1:] != along[:-1]
        marked[:-1] |= changes
        marked[1:] |= changes
    return outline & (labels > 0)


def dilate(mask: np.ndarray, mm: float, spacing: tuple[float, float, float]) -> np.ndarray:
    """Return the voxels whose centres lie within `mm` of the centre of a voxel of the mask (X, Y, Z)."""
    from scipy import ndimage

    if not mask.any():
        return mask.copy()  # The distance to an empty mask is undefined.
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing) <= mm)
