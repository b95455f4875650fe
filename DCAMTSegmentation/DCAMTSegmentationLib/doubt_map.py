"""Build, mark and find the map of doubt, a volume of percent values shown as a colour overlay.

Doubt is the estimated probability that a voxel's label is wrong.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.slabs import slabs
from dcamt.volume import same_grid
from DCAMTSlicerLib.node_types import Node, SegmentationNode, VolumeNode
from DCAMTSlicerLib.volume_bridge import grid_of, ijk_to_ras, transform_between
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from .result_nodes import DOUBT_MAP, VOLUME, get_referenced_node

COLOR_TABLE_ID = "vtkMRMLColorTableNodeWarm1"  # from yellow to red
MAX_LEVEL, MAX_PERCENT = 255, 100
OPAQUE_FROM_PERCENT = 20
"""Lower values are transparent, since voxels along a correct outline also have some doubt."""
SLAB_BYTES = 2 << 20
"""Bytes converted in one step, which takes some milliseconds."""
_MAP, _DOUBT = "DCAMT.map", "doubt"


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
    """Add a display node to the volume node of a map of doubt; return the display node."""
    display = slicer.vtkMRMLScalarVolumeDisplayNode()
    node.GetScene().AddNode(display)
    display.AutoWindowLevelOff()
    display.SetAndObserveColorNodeID(COLOR_TABLE_ID)
    set_display_range(display)
    node.SetAndObserveDisplayNodeID(display.GetID())
    return display


def set_display_range(display: Node) -> None:
    """Make values below `OPAQUE_FROM_PERCENT` transparent, and omit these values from the colour legend."""
    display.SetWindowLevelMinMax(OPAQUE_FROM_PERCENT, MAX_PERCENT)
    display.SetThreshold(OPAQUE_FROM_PERCENT, MAX_PERCENT)
    display.ApplyThresholdOn()


def map_name(volume: VolumeNode) -> str:
    """Return the name of the map of doubt of a volume."""
    return str(_("{volume} doubt").format(volume=volume.GetName()))


def mark_map(volume: VolumeNode) -> None:
    """Mark a scalar volume node as a map of doubt."""
    volume.SetAttribute(_MAP, _DOUBT)


def is_map(volume: VolumeNode) -> bool:
    """Return whether a scalar volume node is a map of doubt or an older version's map of disagreement."""
    return volume.GetAttribute(_MAP) is not None


def shows_doubt(volume: VolumeNode) -> bool:
    """Return whether a map shows doubt; the maps of older versions of DCAMT show the branches' disagreement."""
    return volume.GetAttribute(_MAP) == _DOUBT


def doubt_map_of(segmentation_node: SegmentationNode | None) -> VolumeNode | None:
    """Return a result's map of doubt; None if there is no map, or if the scene was loaded without the map's file."""
    doubt_map = get_referenced_node(segmentation_node, DOUBT_MAP)
    return doubt_map if doubt_map is not None and doubt_map.GetImageData() is not None else None


def is_map_elsewhere(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether the map of doubt lies at another place than the scan."""
    doubt_map, volume = doubt_map_of(segmentation_node), get_referenced_node(segmentation_node, VOLUME)
    if doubt_map is None or volume is None or volume.GetImageData() is None:
        return False
    try:
        affine = transform_between(doubt_map, volume) @ ijk_to_ras(doubt_map)
    except InputError:  # a non-linear transform
        return True
    map_grid, grid = Grid(doubt_map.GetImageData().GetDimensions(), affine), grid_of(volume)
    # If the shapes differ, the scan was cropped or resampled: see `result_scan.is_scan_changed`.
    return map_grid.shape == grid.shape and not same_grid(map_grid, grid)
