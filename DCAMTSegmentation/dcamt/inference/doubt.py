"""Features of a segmentation's doubt, from which `models.calibration` expects the overlap with an expert's outline.

Doubt is counted in the band within `BAND_MM` of the outline and divided by the segmentation's volume, as the errors
that the Dice coefficient counts are. Each feature is larger the more doubt there is.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from torch import Tensor

from ..geometry import bounding_box
from ..models.calibration import NOTHING

BAND_MM = 2.5
"""Most errors of a good segmentation lie this near to its outline."""


def doubt_features(branches: Tensor, labels: np.ndarray, spacing: tuple[float, float, float]) -> dict[str, float]:
    """Return the features of doubt of a segmentation; only `NOTHING` if it is empty.

    branches: probabilities (branches, K, X, Y, Z) on the network's grid. labels: uint8 (X, Y, Z), the segmentation on
    that grid. spacing: of that grid, mm.

    disagreement: the branches' total variation distance, summed over the band, per voxel segmented; left out if there
        is one branch.
    entropy: the entropy of the branches' mean, in units of log K, likewise.
    soft_error: 1 - the Dice coefficient of the segmentation with its own probabilities.
    outside: the foreground's probability beyond the band, summed, per voxel segmented.
    inside: the mean probability of other classes within the segmentation, deeper than the band; 0.5 if it has no such
        voxel.
    faces: fraction of the outline that lies on the scan's faces.
    small: minus the log of the volume in mL.
    """
    box = bounding_box(labels > 0)
    if box is None:
        return {NOTHING: 1.0}
    mean = branches.mean(dim=0)
    foreground = float(labels.astype(bool).sum())
    total = float(mean[1:].sum())
    reach = [math.ceil(BAND_MM / step) for step in spacing]
    box = tuple(  # type: ignore[assignment]
        slice(max(0, side.start - n), min(size, side.stop + n))
        for side, n, size in zip(box, reach, labels.shape, strict=True)
    )
    part = labels[box]
    mean = mean[(slice(None), *box)]
    probabilities = np.ascontiguousarray(mean.numpy())
    outline = outline_voxels(part)
    band = within(outline, BAND_MM, spacing)
    segmented = part > 0
    own = np.take_along_axis(probabilities, part[None].astype(np.intp), axis=0)[0]
    entropy = -(mean * mean.clamp_min(1e-6).log()).sum(dim=0).numpy() / math.log(len(mean))
    near = np.where(band | segmented, 1 - probabilities[0], 0)
    deep = segmented & ~band
    found = {
        NOTHING: 0.0,
        "entropy": float(entropy[band].sum()) / foreground,
        "soft_error": 1 - 2 * float(own[segmented].sum()) / (foreground + total),
        "outside": max(0.0, total - float(near.sum())) / foreground,
        "inside": 1 - float(own[deep].mean()) if deep.any() else 0.5,
        "faces": float((segmented & _on_faces(labels.shape, box)).sum()) / max(1.0, float(outline.sum())),
        "small": -math.log(foreground * math.prod(spacing) / 1000),
    }
    if len(branches) == 2:
        crop = (slice(None), *box)
        distance = 0.5 * (branches[0][crop] - branches[1][crop]).abs().sum(dim=0).numpy()
        found["disagreement"] = float(distance[band].sum()) / foreground
    return found


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


def within(mask: np.ndarray, mm: float, spacing: tuple[float, float, float]) -> np.ndarray:
    """Return the voxels whose centres lie within `mm` of those of a mask's voxels (X, Y, Z)."""
    reach = [int(mm / step) for step in spacing]
    found = mask.copy()
    for offset in itertools.product(*(range(-n, n + 1) for n in reach)):
        if sum((n * step) ** 2 for n, step in zip(offset, spacing, strict=True)) <= mm**2:
            to = tuple(slice(max(0, n), min(size, size + n)) for n, size in zip(offset, mask.shape, strict=True))
            start = tuple(slice(max(0, -n), min(size, size - n)) for n, size in zip(offset, mask.shape, strict=True))
            found[to] |= mask[start]
    return found


def _on_faces(shape: tuple[int, ...], box: tuple[slice, ...]) -> np.ndarray:
    """Return which voxels of the part `box` of a grid lie on the grid's faces."""
    faces = np.zeros([side.stop - side.start for side in box], bool)
    for axis, (side, size) in enumerate(zip(box, shape, strict=True)):
        along = np.moveaxis(faces, axis, 0)
        along[0] |= side.start == 0
        along[-1] |= side.stop == size
    return faces
