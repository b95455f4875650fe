"""The region of interest: a Markups box, what the engine gets of it, and where one is put to begin with."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.errors import InputError
from dcamt.geometry import Region
from DCAMTSlicerLib.result_segments import filled_extent, own_segments
from slicer.i18n import tr as _

EDGE_MM = 140.0
"""A heart with its great vessels fits into a box of this size."""
MARGIN_MM = 20.0


def box_of(roi: Any, volume: Any) -> Region:
    """Return the box around a Markups ROI along the patient axes, in RAS mm of the volume's space.

    Raises:
        InputError: the region has no extent.
    """
    half = np.array(roi.GetSize()) / 2
    if (half <= 0).any():
        remedy = _("Press Place around the heart, which gives it one, or choose the whole volume.")
        raise InputError(_("has no extent"), path=roi.GetName(), remedy=remedy)
    to_world = slicer.util.arrayFromVTKMatrix(roi.GetObjectToWorldMatrix())
    corners = []
    for signs in itertools.product((-1, 1), repeat=3):
        own = [0.0, 0.0, 0.0]
        volume.TransformPointFromWorld((to_world @ [*(signs * half), 1.0])[:3], own)
        corners.append(own)
    low, high = ([float(mm) for mm in edge(corners, axis=0)] for edge in (np.min, np.max))
    return Region((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def place_region(roi: Any, volume: Any, result: Any | None) -> None:
    """Put a Markups ROI around a result with some margin or, without one, about the middle of the volume.

    The heart is not searched for: scans of the heart have it about their middle, and the person moves the box.
    """
    corners = _corners_of(result) if result is not None else np.empty((0, 3))
    if len(corners):
        low, high = corners.min(axis=0) - MARGIN_MM, corners.max(axis=0) + MARGIN_MM
    else:
        bounds = np.zeros(6)
        volume.GetRASBounds(bounds)
        middle, reach = (bounds[::2] + bounds[1::2]) / 2, np.minimum(bounds[1::2] - bounds[::2], EDGE_MM) / 2
        low, high = middle - reach, middle + reach
    roi.SetAndObserveTransformNodeID(None)
    upright = vtk.vtkMatrix4x4()
    roi.GetObjectToNodeMatrix().DeepCopy(upright)
    roi.SetCenterWorld(*map(float, (low + high) / 2))
    roi.SetSizeWorld(*map(float, high - low))


def _corners_of(result: Any) -> np.ndarray:
    """(N, 3): corners, RAS mm in the world, of the boxes of voxels that DCAMT's segments fill."""
    corners: list[list[float]] = []
    for identifier in own_segments(result).values():
        image = slicer.vtkOrientedImageData()
        result.GetBinaryLabelmapRepresentation(identifier, image)
        extent = filled_extent(image)
        if extent is None:
            continue
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        ends = [(low - 0.5, high + 0.5) for low, high in zip(extent[::2], extent[1::2], strict=True)]
        for corner in itertools.product(*ends):
            world = [0.0, 0.0, 0.0]
            result.TransformPointToWorld(matrix.MultiplyPoint((*corner, 1.0))[:3], world)
            corners.append(world)
    return np.array(corners).reshape(-1, 3)
