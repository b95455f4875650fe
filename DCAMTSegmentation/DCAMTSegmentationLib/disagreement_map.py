"""Where the two branches disagree: a volume node, and its overlay on the slice views."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.io.slabs import slabs
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

COLOURS = "vtkMRMLColorTableNodeWarm1"  # yellow to red; Slicer brings it
OPACITY = 0.6
LEAST_SHOWN = 26  # of 255: below a tenth the slice shows through


def build_image(disagreement: np.ndarray) -> Generator[None, None, Any]:
    """Image data of (K, J, I) from 0 (the branches agree) to 255, copied some megabytes a step."""
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(disagreement.shape))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(disagreement.shape)
    for part in slabs(disagreement):
        values[part] = disagreement[part]
        yield
    return image


def show_image(node: Any) -> Any:
    """Give a map's volume node a display node, and return it; the image is to be set afterwards."""
    display = slicer.vtkMRMLScalarVolumeDisplayNode()
    node.GetScene().AddNode(display)
    # Slicer would look through every voxel for a fitting window.
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, 255)
    display.SetAndObserveColorNodeID(COLOURS)
    display.SetThreshold(LEAST_SHOWN, 255)
    display.ApplyThresholdOn()
    node.SetAndObserveDisplayNodeID(display.GetID())
    return display


class Overlay:
    """Lays one volume over all slice views; taken off, they show what they showed before."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[str | None, float]] = {}

    def show(self, volume: Any | None) -> None:
        """Lay `volume` over the slices; None takes it off."""
        for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            if volume is not None:
                foreground = view.GetForegroundVolumeID()
                # A saved scene comes back with the map laid over it.
                shown = (None, 0.0) if foreground == volume.GetID() else (foreground, view.GetForegroundOpacity())
                self._before.setdefault(view.GetID(), shown)
                view.SetForegroundVolumeID(volume.GetID())
                view.SetForegroundOpacity(OPACITY)
            elif view.GetID() in self._before:
                foreground, opacity = self._before[view.GetID()]
                there = foreground is not None and slicer.mrmlScene.GetNodeByID(foreground) is not None
                view.SetForegroundVolumeID(foreground if there else None)
                view.SetForegroundOpacity(opacity)
        if volume is None:
            self._before.clear()


def map_name(volume: Any) -> str:
    return str(_("{volume} disagreement").format(volume=volume.GetName()))
