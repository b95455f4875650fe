"""Score a mask against a label: Dice, Jaccard and surface distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from ..geometry import bounding_box


@dataclass(frozen=True)
class SegmentationScore:
    """Scores of one class in one case, or their mean or standard deviation over cases.

    Distances are in mm, and in voxels (as if every spacing were 1).

    Distances are defined as in `medpy.metric.binary`, which the published left atrium tables use (L. Yu et al., UA-MT,
    MICCAI 2019, and later papers). The surface of a mask consists of its voxels with a face neighbour outside the mask
    (connectivity 1; positions beyond the image count as outside). A voxel's distance is the distance from its centre
    to the nearest voxel centre of the other surface.

    If both masks are empty, Dice and Jaccard are 1 and distances 0. If only one is empty, Dice and Jaccard are 0 and
    distances NaN.

    Attributes:
        dice: 2 |P and L| / (|P| + |L|).
        jaccard: |P and L| / |P or L|.
        hd95_mm, hd95_voxels: 95HD, the 95th percentile of all distances of both directions, linearly interpolated.
        asd_mm, asd_voxels: mean distance from the prediction's surface to the label's surface.
        assd_mm, assd_voxels: mean of the distances in both directions, pooled.
    """

    dice: float
    jaccard: float
    hd95_mm: float
    asd_mm: float
    assd_mm: float
    hd95_voxels: float
    asd_voxels: float
    assd_voxels: float


BOTH_EMPTY = SegmentationScore(1.0, 1.0, *(0.0,) * 6)


def score(prediction: np.ndarray, label: np.ndarray, spacing: Sequence[float] | np.ndarray) -> SegmentationScore:
    """Return the scores of two masks (I, J, K) bool on the same grid; `spacing` (3,) in mm.

    Distances in mm assume orthogonal axes; on a sheared grid they are approximate. Raises ValueError if the shapes
    differ.
    """
    if prediction.shape != label.shape:
        raise ValueError(f"prediction {prediction.shape} and label {label.shape} differ in shape")
    prediction, label = prediction.astype(bool, copy=False), label.astype(bool, copy=False)
    box = bounding_box(prediction | label)
    if box is None:
        return BOTH_EMPTY
    # Cropping changes no surface.
    prediction, label = prediction[box], label[box]
    sizes = int(np.count_nonzero(prediction)), int(np.count_nonzero(label))
    if not all(sizes):
        return SegmentationScore(0.0, 0.0, *(nan,) * 6)
    common = int(np.count_nonzero(prediction & label))
    spacing_mm = np.asarray(spacing, dtype=np.float64)
    voxels = _distances(prediction, label, np.ones(prediction.ndim))
    # The tolerance allows for spacings that files round to single precision.
    isotropic = bool(np.ptp(spacing_mm) <= 1e-6 * spacing_mm[0])
    mm = voxels * spacing_mm[0] if isotropic else _distances(prediction, label, spacing_mm)
    return SegmentationScore(2.0 * common / sum(sizes), common / (sum(sizes) - common), *mm.tolist(), *voxels.tolist())


def _distances(prediction: np.ndarray, label: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return 95HD, ASD and ASSD of two non-empty masks as an array (3,), in the unit of `spacing`."""
    from scipy import ndimage

    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, label)]
    to_label, to_prediction = (
        ndimage.distance_transform_edt(~other, sampling=spacing)[surface]
        for surface, other in zip(surfaces, surfaces[::-1], strict=True)
    )
    pooled = np.concatenate([to_label, to_prediction])
    return np.array([np.percentile(pooled, 95), to_label.mean(), pooled.mean()])
