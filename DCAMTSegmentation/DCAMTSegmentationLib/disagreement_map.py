"""Create the map of the branches' disagreement: a volume node in percent, shown as a colour overlay."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.io.slabs import slabs
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

COLOURS = "vtkMRMLColorTableNodeWarm1"  # a colour table of Slicer, from yellow to red
LEVELS, PERCENT = 255, 100
LEAST_SHOWN = 10
"""Percent; lower values are transparent."""


def build_image(levels: np.ndarray) -> Generator[None, None, Any]:
    """Build image data of the disagreement in percent, slab by slab.

    `levels`: (K, J, I), uint8, from 0 (the branches agree) to 255 (they contradict each other).
    """
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(levels.shape))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(levels.shape)
    percent = np.rint(np.arange(LEVELS + 1) * PERCENT / LEVELS).astype(np.uint8)
    for slab in slabs(levels):
        np.take(percent, levels[slab], out=values[slab])
        yield
    return image


def add_display(node: Any) -> Any:
    """Add a display node to a map's volume node and return it; call this before the image is set."""
    display = slicer.vtkMRMLScalarVolumeDisplayNode()
    node.GetScene().AddNode(display)
    # Otherwise Slicer would read every voxel to choose a window.
    display.AutoWindowLevelOff()
    display.SetAndObserveColorNodeID(COLOURS)
    set_range(display)
    node.SetAndObserveDisplayNodeID(display.GetID())
    return display


def set_range(display: Any) -> None:
    """Set the range of a map's display node to 0 to 100 %; maps of earlier versions have values up to 255."""
    display.SetWindowLevelMinMax(0, PERCENT)
    display.SetThreshold(LEAST_SHOWN, PERCENT)
    display.ApplyThresholdOn()


def map_name(volume: Any) -> str:
    """Return the name of a volume's map."""
    return str(_("{volume} disagreement").format(volume=volume.GetName()))
