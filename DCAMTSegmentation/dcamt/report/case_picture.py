"""Draw a validation case for a run's report: three slices with the outlines of label and prediction, as PNG bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..geometry import bounding_box, canonical_orientation, pad_box, whole_box
from ..recipe import Recipe
from ..volume import Labelmap, Volume
from .colors import LABEL_COLOR
from .png import encode_png, resize
from .scene import intensity_window

HEIGHT = 260
"""Height of the picture in pixels."""
MARGIN_MM = 20.0
"""Margin around the outlines."""


def draw_case(volume: Volume, prediction: Labelmap, label: Labelmap, recipe: Recipe) -> bytes:
    """Return a PNG file with an axial, a coronal and a sagittal slice side by side.

    The axial and the coronal slice show the patient's right on the left; the sagittal slice shows the patient's front
    on the left. The label's outlines are white. The prediction's outlines have the colours of the classes and are drawn
    over the label's outlines. Scan, prediction and label must lie on one grid. The file contains only pixels: no text,
    and nothing from the scan's header.
    """
    orientation = canonical_orientation(volume.grid)
    image, predicted, labels = map(orientation.apply, (volume.voxels[0], prediction.voxels, label.voxels))
    spacing = volume.grid.spacing[list(orientation.order)]
    shown = labels if labels.any() else predicted
    centre = [round(float(axis.mean())) for axis in np.nonzero(shown)] if shown.any() else [n // 2 for n in image.shape]
    margin = np.ceil(MARGIN_MM / spacing).astype(int)
    inner = bounding_box((predicted > 0) | (labels > 0))
    box = pad_box(inner, margin.tolist(), whole_box(image.shape)) if inner else whole_box(image.shape)
    dark, bright = intensity_window(image[box])
    grey = np.clip((image[box].astype(np.float32) - dark) / (bright - dark), 0, 1)
    index = [place - side.start for place, side in zip(centre, box, strict=True)]
    panels = []
    for across, up in ((0, 1), (0, 2), (1, 2)):
        through = 3 - across - up
        planes = [array.take(index[through], axis=through) for array in (grey, predicted[box], labels[box])]
        panels.append(_panel(planes, spacing[[across, up]], recipe))
        panels.append(np.zeros((HEIGHT, 6, 3)))
    return encode_png(np.concatenate(panels[:-1], axis=1))


def _panel(planes: Sequence[np.ndarray], spacing: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return the pixels (HEIGHT, W, 3) of a slice.

    `planes`: the slice's grey values, prediction and label. Their two axes run left and up on the screen.
    """
    mm = np.array(planes[0].shape) * spacing
    size = max(1, round(HEIGHT * float(mm[0] / mm[1]))), HEIGHT
    grey, predicted, labels = (resize(plane, size, smooth=n == 0)[::-1, ::-1].T for n, plane in enumerate(planes))
    pixels = np.repeat(grey[..., np.newaxis], 3, axis=2)
    pixels[_outline(labels)] = LABEL_COLOR
    for info in recipe.classes:
        pixels[_outline(np.where(predicted == info.label, 1, 0))] = info.color
    return pixels


def _outline(labels: np.ndarray) -> np.ndarray:
    """Return the mask of the labelled pixels that differ from at least one of their eight neighbours."""
    around = np.pad(labels, 1, mode="edge")
    rows, columns = labels.shape
    shifted = [around[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.asarray((labels > 0) & np.any([other != labels for other in shifted], axis=0))
