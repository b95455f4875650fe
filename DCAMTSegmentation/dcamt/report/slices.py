"""A picture of a case for the report: three slices with the label's and the prediction's outlines, as PNG bytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from ..geometry import bounding_box, canonical_orientation, pad_box, whole_box
from ..recipe import Recipe
from ..volume import Labelmap, Volume

HEIGHT = 260
"""Pixels of each panel."""
AROUND_MM = 20.0
WINDOW_PERCENTILES = (0.5, 99.7)
LABEL_COLOR = (1.0, 1.0, 1.0)


def case_picture(volume: Volume, prediction: Labelmap, label: Labelmap, recipe: Recipe) -> bytes:
    """Axial, coronal and sagittal slice side by side, as a radiologist sees them (the patient's right on the left).

    The label's outlines are white, the prediction's have the colours of their classes. The three lie on one grid.
    The file holds pixels alone: no text, and nothing of the scan's header.
    """
    orientation = canonical_orientation(volume.grid)
    image, found, outlined = map(orientation.apply, (volume.voxels[0], prediction.voxels, label.voxels))
    spacing = volume.grid.spacing[list(orientation.order)]
    shown = outlined if outlined.any() else found
    centre = [round(float(axis.mean())) for axis in np.nonzero(shown)] if shown.any() else [n // 2 for n in image.shape]
    margin = np.ceil(AROUND_MM / spacing).astype(int)
    inner = bounding_box((found > 0) | (outlined > 0))
    box = pad_box(inner, margin.tolist(), whole_box(image.shape)) if inner else whole_box(image.shape)
    image = image[box].astype(np.float32)
    low, high = np.percentile(image, WINDOW_PERCENTILES)
    grey = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    at = [place - side.start for place, side in zip(centre, box, strict=True)]
    panels = []
    for across, up in ((0, 1), (0, 2), (1, 2)):
        through = 3 - across - up
        planes = [array.take(at[through], axis=through) for array in (grey, found[box], outlined[box])]
        panels.append(_panel(planes, spacing[[across, up]], recipe))
        panels.append(np.zeros((HEIGHT, 6, 3)))
    return png(np.concatenate(panels[:-1], axis=1))


def png(pixels: np.ndarray) -> bytes:
    """An image file of `pixels` (rows, columns, 3), 0 to 1 (PNG specification, W3C, third edition)."""
    rows, columns, _ = pixels.shape
    values = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    # Each row begins with the number of its filter: 0, none.
    raw = np.concatenate([np.zeros((rows, 1), np.uint8), values.reshape(rows, -1)], axis=1).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def _panel(planes: Sequence[np.ndarray], spacing: np.ndarray, recipe: Recipe) -> np.ndarray:
    """(HEIGHT, W, 3) of planes (across, up): grey values, prediction and label."""
    mm = np.array(planes[0].shape) * spacing
    size = max(1, round(HEIGHT * float(mm[0] / mm[1]))), HEIGHT
    # Both axes run against the screen's: towards the patient's right or front, and upwards.
    grey, found, outlined = (_enlarged(plane, size, smooth=n == 0)[::-1, ::-1].T for n, plane in enumerate(planes))
    pixels = np.repeat(grey[..., np.newaxis], 3, axis=2)
    pixels[_outline(outlined)] = LABEL_COLOR
    for info in recipe.classes:
        pixels[_outline(np.where(found == info.label, 1, 0))] = info.color
    return pixels


def _enlarged(plane: np.ndarray, size: tuple[int, int], smooth: bool) -> np.ndarray:
    """`plane` at another size, by linear interpolation or by the nearest pixel."""
    for axis, wanted in enumerate(size):
        at = (np.arange(wanted) + 0.5) * plane.shape[axis] / wanted - 0.5
        lower = np.clip(np.floor(at), 0, plane.shape[axis] - 1).astype(int)
        if not smooth:
            plane = plane.take(np.clip(np.rint(at), 0, plane.shape[axis] - 1).astype(int), axis=axis)
            continue
        upper = np.minimum(lower + 1, plane.shape[axis] - 1)
        share = np.clip(at - lower, 0, 1).reshape((-1, 1) if axis == 0 else (1, -1))
        plane = plane.take(lower, axis=axis) * (1 - share) + plane.take(upper, axis=axis) * share
    return plane


def _outline(labels: np.ndarray) -> np.ndarray:
    """Pixels of a label with a neighbour, of the eight, of another one."""
    around = np.pad(labels, 1, mode="edge")
    rows, columns = labels.shape
    shifted = [around[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.asarray((labels > 0) & np.any([other != labels for other in shifted], axis=0))
