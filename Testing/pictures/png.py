"""Read the pixels of VTK windows, and write PNG files that are small enough for a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MOST_BYTES = 400_000


def window_pixels(window: Any) -> np.ndarray:
    """Render a VTK window and return its pixels (rows, columns, 3), 0 to 255; the first row is the top."""
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    image = grab.GetOutput()
    width, height, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()


def write_png(pixels: np.ndarray, path: Path) -> None:
    """Write pixels (rows, columns, 3), 0 to 255; reduce the number of colours until the file fits `MOST_BYTES`.

    Raises:
        ValueError: the file is too large even with 32 colours.
    """
    image = Image.fromarray(pixels)
    for colors in (256, 128, 64, 32):
        # No dithering: it would blur letters and compress badly.
        image.quantize(colors, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return
    raise ValueError(f"{path.name} has {path.stat().st_size} bytes: make the picture smaller")
