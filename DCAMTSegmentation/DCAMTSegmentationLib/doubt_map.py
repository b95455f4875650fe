"""Build the image and the display of the map of doubt, a volume of percent values shown as a colour overlay.

Doubt is the estimated probability that a voxel's label is wrong.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.io.slabs import slabs
from DCAMTSlicerLib.node_types import Node, VolumeNode
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

COLOR_TABLE_ID = "vtkMRMLColorTableNodeWarm1"  # a colour table of Slicer, from yellow to red
MAX_LEVEL, MAX_PERCENT = 255, 100
OPAQUE_FROM_PERCENT = 20
"""Lower values are transparent, since voxels along a correct outline also have some doubt."""
SLAB_BYTES = 2 << 20
"""Bytes converted in one step, which takes some milliseconds."""


def build_image(levels: np.ndarray) -> Generator[None, None, Any]:
    """Build image data of the doubt in percent, slab by slab; yield None after each slab.

    Args:
        levels: (K, J, I), uint8, the doubt: 0 is 0 %, 255 is 100 %.

    Returns:
        vtkImageData, uint8 percent, without spacing and origin.
    """
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(levels.shape))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(levels.shape)
    percent_of_level = np.rint(np.arange(MAX_LEVEL + 1) * MAX_PERCENT / MAX_LEVEL).astype(np.uint8)
    for slab in slabs(levels, SLAB_BYTES):
        # Mode `clip` writes directly to `out`; the default mode of `numpy.take` would buffer the output.
        np.take(percent_of_level, levels[slab], out=values[slab], mode="clip")
        yield
    return image


def add_display(node: VolumeNode) -> Node:
    """Add a display node to the volume node of a map of doubt; return the display node.

    The display range is fixed (`set_display_range`); Slicer does not compute the range from the image.
    """
    display = slicer.vtkMRMLScalarVolumeDisplayNode()
    node.GetScene().AddNode(display)
    display.AutoWindowLevelOff()
    display.SetAndObserveColorNodeID(COLOR_TABLE_ID)
    set_display_range(display)
    node.SetAndObserveDisplayNodeID(display.GetID())
    return display


def set_display_range(display: Node) -> None:
    """Show 0 to 100 %, transparent below `OPAQUE_FROM_PERCENT`.

    A map of disagreement from an older version of DCAMT may have another range, 0 to 255.
    """
    display.SetWindowLevelMinMax(0, MAX_PERCENT)
    display.SetThreshold(OPAQUE_FROM_PERCENT, MAX_PERCENT)
    display.ApplyThresholdOn()


def map_name(volume: VolumeNode) -> str:
    """Return the name of the map of doubt of a volume."""
    return str(_("{volume} doubt").format(volume=volume.GetName()))
