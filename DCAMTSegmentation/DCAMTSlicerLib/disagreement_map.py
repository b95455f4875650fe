"""Where the two branches disagree: a volume node, and its overlay on the slice views."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

COLOURS = "vtkMRMLColorTableNodeWarm1"  # yellow to red; Slicer brings it
OPACITY = 0.6
LEAST_SHOWN = 26  # of 255: below a tenth the slice shows through


def fill_map(node: Any, disagreement: np.ndarray, ijk_to_ras: Any) -> None:
    """Set a scalar volume node's voxels, (K, J, I) from 0 (the branches agree) to 255, its geometry and display."""
    display = node.GetDisplayNode()
    if display is None:
        display = slicer.vtkMRMLScalarVolumeDisplayNode()
        node.GetScene().AddNode(display)
        # Slicer would look through every voxel for a fitting window.
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(0, 255)
        display.SetAndObserveColorNodeID(COLOURS)
        display.SetThreshold(LEAST_SHOWN, 255)
        display.ApplyThresholdOn()
        node.SetAndObserveDisplayNodeID(display.GetID())
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(disagreement.shape))
    values = np.array(disagreement, np.uint8).ravel()
    image.GetPointData().SetScalars(numpy_to_vtk(values, deep=False))
    node.SetIJKToRASMatrix(ijk_to_ras)
    node.SetAndObserveImageData(image)


class Overlay:
    """Lays one volume over all slice views; taken off, they show what they showed before."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[str | None, float]] = {}

    def show(self, volume: Any | None) -> None:
        """Lay `volume` over the slices; None takes it off."""
        for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            if volume is not None:
                shown = (view.GetForegroundVolumeID(), view.GetForegroundOpacity())
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
