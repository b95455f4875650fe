"""A volume node's voxels and geometry, and how they are handed to another process without the window waiting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.errors import DISK_FULL, InputError, OutputError
from dcamt.geometry import Grid
from dcamt.io.slabs import slabs
from slicer.i18n import tr as _

FREE_SPACE = _("Free some space, or choose another temporary folder in the application's settings.")


def voxels_of(volume: Any) -> np.ndarray:
    """(K, J, I): the memory of a scalar volume node itself; nothing is copied.

    Raises:
        InputError: it holds no image, or more than one channel.
    """
    name, image = volume.GetName(), volume.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise InputError(_("holds no image"), path=name, remedy=_("Choose another volume."))
    if image.GetNumberOfScalarComponents() != 1:
        raise InputError(_("holds several channels"), path=name, remedy=_("Choose a grey-scale volume."))
    return np.asarray(slicer.util.arrayFromVolume(volume))


def ijk_to_ras(volume: Any) -> np.ndarray:
    """(4, 4): voxel index (i, j, k) -> RAS mm in the volume's own space, before any parent transform."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return np.array(slicer.util.arrayFromVTKMatrix(matrix))


def grid_of(volume: Any) -> Grid:
    """The lattice of a volume node that holds an image, in the volume's own space."""
    return Grid(volume.GetImageData().GetDimensions(), ijk_to_ras(volume))


def between(source: Any, target: Any) -> np.ndarray:
    """(4, 4): coordinates in one node's space -> in another's; the identity under one and the same transform.

    Raises:
        InputError: they lie under different transforms that are not both linear.
    """
    if source.GetTransformNodeID() == target.GetTransformNodeID():
        return np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    if not slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(
        source.GetParentTransformNode(), target.GetParentTransformNode(), matrix
    ):
        what = _("lies under another transform than {volume}").format(volume=source.GetName())
        raise InputError(what, path=target.GetName(), remedy=_("Choose a new segmentation."))
    return np.array(slicer.util.arrayFromVTKMatrix(matrix))


def save_in_slabs(voxels: np.ndarray, path: Path) -> Iterator[float]:
    """Write `voxels` as a .npy file, some megabytes a step; yields the share that is written, 0 to 1.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        with open(path, "wb") as file:
            header = np.lib.format.header_data_from_array_1_0(np.empty((0, *voxels.shape[1:]), voxels.dtype))
            np.lib.format.write_array_header_1_0(file, header | {"shape": voxels.shape})
            for part in slabs(voxels):
                np.ascontiguousarray(voxels[part]).tofile(file)
                yield part.stop / len(voxels)
    except OSError as error:
        full = error.errno in DISK_FULL
        what = _("the disk is full") if full else _("could not be written ({reason})").format(reason=error.strerror)
        raise OutputError(f"{path.parent}: {what}. {FREE_SPACE}") from error
