"""Read volume nodes, relate the spaces of nodes, check the grids of channels, and pad masks to a volume's grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.volume import check_channel_grid
from slicer.i18n import tr as _

from .node_types import Node, VolumeNode

SAME_VOXEL = 1e-3
"""Largest distance, in voxels along an axis, at which two voxel centres count as the same."""
SAME_AXIS = 1e-4
"""Largest deviation, as a fraction of a voxel's side, at which a mask's axes count as equal to a volume's."""


def voxels_of(volume: VolumeNode) -> np.ndarray:
    """Return the voxels (K, J, I) of a scalar volume node as a view of its memory.

    Raises:
        InputError: the node contains no image, or an image with several channels.
    """
    name, image = volume.GetName(), volume.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise InputError(_("holds no image"), path=name, remedy=_("Choose another volume."))
    if image.GetNumberOfScalarComponents() != 1:
        raise InputError(_("holds several channels"), path=name, remedy=_("Choose a grey-scale volume."))
    return np.asarray(slicer.util.arrayFromVolume(volume))


def check_channel_nodes(volumes: Sequence[VolumeNode]) -> None:
    """Raise InputError unless all channels of a scan have the same grid in world coordinates.

    Raises:
        InputError: a volume after the first is None, is used twice, is on another grid, or is related to the first
            volume by a non-linear transform; or a volume holds no image, or an image with several channels.
    """
    first, *others = volumes
    voxels_of(first)
    for number, volume in enumerate(others, 2):
        if volume is None:
            what = _("There is no volume for channel {number}").format(number=number)
            raise InputError(what, remedy=_("Choose one for each channel."))
        if volume in volumes[: number - 1]:
            what, remedy = _("is chosen for two channels"), _("Choose a different volume for each channel.")
            raise InputError(what, path=volume.GetName(), remedy=remedy)
        voxels_of(volume)
        from_first = transform_between(first, volume, _("Resample the channel to the first channel's grid."))
        first_grid = Grid(first.GetImageData().GetDimensions(), from_first @ ijk_to_ras(first))
        check_channel_grid(grid_of(volume), volume.GetName(), first_grid, first.GetName())


def ijk_to_ras(volume: VolumeNode) -> np.ndarray:
    """Return the affine (4, 4) of a volume, without the volume's parent transform: voxel index (i, j, k) -> RAS mm.

    The first voxel has the index (0, 0, 0), even if the extent of the node's image begins elsewhere.
    """
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    affine = np.array(slicer.util.arrayFromVTKMatrix(matrix))
    image = volume.GetImageData()
    if image is not None:
        affine[:3, 3] += affine[:3, :3] @ image.GetExtent()[::2]
    return affine


def grid_of(volume: VolumeNode) -> Grid:
    """Return the grid of a volume node that holds an image, in the volume's own space."""
    return Grid(volume.GetImageData().GetDimensions(), ijk_to_ras(volume))


def transform_between(source: Node, target: Node, remedy: str = "") -> np.ndarray:
    """Return the affine (4, 4), mm in the space of `source` -> mm in the space of `target`.

    Args:
        remedy: what the error tells the user to do; by default, to harden the transform.

    Raises:
        InputError: the nodes are related by a non-linear transform; the error names `target`.
    """
    if source.GetTransformNodeID() == target.GetTransformNodeID():
        return np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    if not slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(
        source.GetParentTransformNode(), target.GetParentTransformNode(), matrix
    ):
        what = _("is related to {volume} by a non-linear transform").format(volume=source.GetName())
        raise InputError(what, path=target.GetName(), remedy=remedy or _("Harden the transform."))
    return np.array(slicer.util.arrayFromVTKMatrix(matrix))


def have_same_voxel_centres(affine: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two endless grids have the same voxel centres; the axes may differ in order and direction.

    Args:
        affine, other: (4, 4), voxel index (i, j, k) -> mm in the same space.
    """
    to_other = np.linalg.inv(other) @ affine
    deviation = np.abs(to_other - np.rint(to_other))
    is_whole = (deviation[:3, :3] <= SAME_AXIS).all() and (deviation[:3, 3] <= SAME_VOXEL).all()
    return bool(is_whole and round(abs(np.linalg.det(to_other[:3, :3]))) == 1)


def pad_to_volume_grid(mask: np.ndarray, affine: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask padded to a volume's grid, with that grid's affine.

    DCAMT's worker process need not resample a padded mask. If any voxel of the mask does not coincide with a voxel of
    the volume, mask and affine are returned unchanged.

    Args:
        mask: (K, J, I).
        affine: (4, 4), voxel index (i, j, k) of the mask -> mm in the volume's own space.
        grid: the volume's grid, in the volume's own space.
    """
    mask_to_volume_ijk = np.linalg.inv(grid.affine) @ affine
    start = np.rint(mask_to_volume_ijk[:3, 3]).astype(int)
    shape = np.array(grid.shape)
    axes_agree = np.allclose(mask_to_volume_ijk[:3, :3], np.eye(3), rtol=0, atol=SAME_AXIS)
    aligned = axes_agree and np.allclose(mask_to_volume_ijk[:3, 3], start, rtol=0, atol=SAME_VOXEL)
    if not aligned or (start < 0).any() or (start + mask.shape[::-1] > shape).any():
        return mask, affine
    padded = np.zeros(shape[::-1], np.uint8)
    i, j, k = (slice(first, first + size) for first, size in zip(start, mask.shape[::-1], strict=True))
    padded[k, j, i] = mask
    return padded, grid.affine


def world_positions(volume: VolumeNode) -> np.ndarray:
    """Return the positions in world coordinates, (125, 3) RAS mm, of 125 points evenly spaced in the volume."""
    affine, steps = ijk_to_ras(volume), np.linspace(0, 1, 5)
    fractions = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    points = fractions * (np.array(volume.GetImageData().GetDimensions()) - 1) @ affine[:3, :3].T + affine[:3, 3]
    positions, world = np.empty_like(points), [0.0, 0.0, 0.0]
    for position, point in zip(positions, points, strict=True):
        volume.TransformPointToWorld(point, world)
        position[:] = world
    return positions
