"""Read the voxels and the geometry of a volume node."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.errors import InputError
from dcamt.geometry import Grid
from slicer.i18n import tr as _


def voxels_of(volume: Any) -> np.ndarray:
    """Return the voxels (K, J, I) of a scalar volume node: a view of the node's memory, not a copy.

    Raises:
        InputError: the node holds no image, or an image of several channels.
    """
    name, image = volume.GetName(), volume.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise InputError(_("holds no image"), path=name, remedy=_("Choose another volume."))
    if image.GetNumberOfScalarComponents() != 1:
        raise InputError(_("holds several channels"), path=name, remedy=_("Choose a grey-scale volume."))
    return np.asarray(slicer.util.arrayFromVolume(volume))


def ijk_to_ras(volume: Any) -> np.ndarray:
    """Return (4, 4): voxel index (i, j, k) -> RAS mm in the volume's own space, before any parent transform."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return np.array(slicer.util.arrayFromVTKMatrix(matrix))


def grid_of(volume: Any) -> Grid:
    """Return the grid of a volume node that holds an image, in the volume's own space."""
    return Grid(volume.GetImageData().GetDimensions(), ijk_to_ras(volume))


def transform_between(source: Any, target: Any) -> np.ndarray:
    """Return (4, 4): mm in one node's space -> mm in the other's; the identity if both nodes lie under one
    transform.

    Raises:
        InputError: the nodes are related by a non-linear transform.
    """
    if source.GetTransformNodeID() == target.GetTransformNodeID():
        return np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    if not slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(
        source.GetParentTransformNode(), target.GetParentTransformNode(), matrix
    ):
        what = _("is related to {volume} by a non-linear transform").format(volume=source.GetName())
        raise InputError(
            what, path=target.GetName(), remedy=_("Harden the transform, or let Apply create a new segmentation.")
        )
    return np.array(slicer.util.arrayFromVTKMatrix(matrix))


def world_matrix(node: Any) -> np.ndarray | None:
    """Return (4, 4): mm in a node's own space -> world mm; None under a transform that is not linear."""
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        return None
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return np.array(slicer.util.arrayFromVTKMatrix(matrix))
