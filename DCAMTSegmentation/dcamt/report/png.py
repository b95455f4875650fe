"""Encode pixels as PNG and resize them, without an imaging library."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode RGB or RGBA pixels (rows, columns, channels) with values from 0 to 1 as a PNG file.

    The W3C's PNG specification, third edition, defines the format. The file contains no text, and nothing from a
    scan's header.
    """
    rows, columns, channels = pixels.shape
    values = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    # Each row begins with the number of its filter; 0 means no filter.
    raw = np.concatenate([np.zeros((rows, 1), np.uint8), values.reshape(rows, -1)], axis=1).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    color_type = 6 if channels == 4 else 2
    header = struct.pack(">IIBBBBB", columns, rows, 8, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def png_data_uri(data: bytes) -> str:
    """Return a PNG file as a data URI, for an image embedded in HTML."""
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"


def resize(plane: np.ndarray, size: tuple[int, int], smooth: bool) -> np.ndarray:
    """Return `plane` resampled to `size`, by linear interpolation if `smooth`, else from the nearest pixel."""
    for axis, wanted in enumerate(size):
        last = plane.shape[axis] - 1
        at = np.clip((np.arange(wanted) + 0.5) * plane.shape[axis] / wanted - 0.5, 0, last)
        if not smooth:
            plane = plane.take(np.rint(at).astype(int), axis=axis)
            continue
        lower = np.floor(at).astype(int)
        weight = (at - lower).reshape((-1, 1) if axis == 0 else (1, -1))
        plane = (
            plane.take(lower, axis=axis) * (1 - weight) + plane.take(np.minimum(lower + 1, last), axis=axis) * weight
        )
    return plane
