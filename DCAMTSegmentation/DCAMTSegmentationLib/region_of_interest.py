"""Convert the region of interest, a Markups ROI, to a region of the engine, and place the ROI around a result."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.errors import InputError
from dcamt.geometry import Region
from DCAMTSlicerLib.node_types import RegionNode, SegmentationNode, VolumeNode
from DCAMTSlicerLib.result_segments import find_dcamt_segments
from DCAMTSlicerLib.segment_voxels import labelmap_name, read_segment
from DCAMTSlicerLib.volume_bridge import voxels_of
from slicer.i18n import tr as _

from . import result_scan

EDGE_MM = 140.0
"""Largest edge of a region around the volume's centre; long enough for the atria and most of the heart."""
MARGIN_MM = 20.0
"""Distance between a result and the region around it."""
COLOR = (1.0, 0.85, 0.2)
"""Colour of a region's edges: red, green, blue, each 0 to 1."""
LINEAR_WITHIN_MM = 0.1
"""Tolerance for counting a region's transform as linear."""
_SCAN_REFERENCE = "DCAMT.regionScan"
_SCAN_WAS_STORED = "DCAMT.hasRegionScan"
_CUBOID_POINTS = np.array(list(itertools.product((-1, 0, 1), repeat=3)), float)
"""Corners, mid-points of edges and faces, and centre of the cuboid from -1 to 1 along each axis: (27, 3). The corners
are not enough, since a transform can bend a cuboid and leave its corners in place."""
_IS_CORNER = np.abs(_CUBOID_POINTS).min(axis=1) == 1


def region_of(roi: RegionNode, volume: VolumeNode) -> Region:
    """Return a Markups ROI as a region of the engine, in RAS mm of the volume's space.

    Raises:
        InputError: an edge of the region is 0, or the region is related to the volume by a non-linear transform.
    """
    half = np.array(roi.GetSize()) / 2
    if (half <= 0).any():
        remedy = _("Press “Place around the heart”, or choose “Whole volume”.")
        raise InputError(_("an edge of the region is 0 mm"), path=roi.GetName(), remedy=remedy)
    to_world = slicer.util.arrayFromVTKMatrix(roi.GetObjectToWorldMatrix())
    points = np.array([_to_volume_space(volume, (to_world @ [*(signs * half), 1.0])[:3]) for signs in _CUBOID_POINTS])
    corners = points[_IS_CORNER]
    (low_x, low_y, low_z), (high_x, high_y, high_z) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    centre = corners.mean(axis=0)
    # Columns of `edges`: vectors from the region's centre to the middles of three faces, in the volume's space.
    signs = _CUBOID_POINTS[_IS_CORNER]
    edges = np.stack([(corners[signs[:, axis] > 0].mean(axis=0) - centre) for axis in range(3)], axis=1)
    if not np.allclose(centre + _CUBOID_POINTS @ edges.T, points, rtol=0, atol=LINEAR_WITHIN_MM):
        what = _("is related to {volume} by a non-linear transform").format(volume=volume.GetName())
        remedy = _("Harden the transforms of both, or choose “Whole volume”.")
        raise InputError(what, path=roi.GetName(), remedy=remedy)
    to_unit_box = None
    # If more than three numbers in `edges` are not 0, the region is oblique to the axes of the volume's space.
    if (np.abs(edges) > 1e-4 * np.abs(edges).max()).sum() > 3:
        to_unit = np.eye(4)
        to_unit[:3, :3] = np.linalg.inv(edges)
        to_unit[:3, 3] = -to_unit[:3, :3] @ centre
        to_unit_box = tuple(map(tuple, to_unit.tolist()))
    return Region((low_x, low_y, low_z), (high_x, high_y, high_z), to_unit_box)


def _to_volume_space(volume: VolumeNode, world: np.ndarray) -> list[float]:
    position = [0.0, 0.0, 0.0]
    volume.TransformPointFromWorld(world, position)
    return position


def place_region(roi: RegionNode, volume: VolumeNode, result: SegmentationNode | None) -> None:
    """Place a Markups ROI around a result, with `MARGIN_MM` on each side.

    If the result is None or has no voxels, the ROI is placed around the volume's centre.

    Raises:
        InputError: the volume holds no image, or an image with several channels.
    """
    voxels_of(volume)
    corners = _corners_of(result) if result is not None else np.empty((0, 3))
    if len(corners):
        low, high = corners.min(axis=0) - MARGIN_MM, corners.max(axis=0) + MARGIN_MM
    else:
        bounds = np.zeros(6)
        volume.GetRASBounds(bounds)
        centre, reach = (bounds[::2] + bounds[1::2]) / 2, np.minimum(bounds[1::2] - bounds[::2], EDGE_MM) / 2
        low, high = centre - reach, centre + reach
    roi.SetAndObserveTransformNodeID(None)
    # Remove a rotation that the user gave the ROI.
    roi.GetObjectToNodeMatrix().DeepCopy(vtk.vtkMatrix4x4())
    roi.SetCenterWorld(*map(float, (low + high) / 2))
    roi.SetSizeWorld(*map(float, high - low))
    store_scan(roi, volume)


def store_scan(roi: RegionNode, volume: VolumeNode) -> None:
    """Store the volume on which a region was placed or moved."""
    roi.SetNodeReferenceID(_SCAN_REFERENCE, volume.GetID())
    roi.SetAttribute(_SCAN_WAS_STORED, "1")


def remember_scan(roi: RegionNode | None, volume: VolumeNode | None) -> None:
    """Store the volume for which a region is chosen, unless a volume was stored for the region before.

    A stored volume that was removed from the scene is not replaced, so `note_about_scan` still returns a note.
    """
    if roi is not None and volume is not None and roi.GetAttribute(_SCAN_WAS_STORED) is None:
        store_scan(roi, volume)


def note_about_scan(roi: RegionNode | None, volume: VolumeNode | None) -> str:
    """Return a note if a region's stored scan is another scan than `volume` or was removed, else an empty string."""
    if roi is None or volume is None or roi.GetAttribute(_SCAN_WAS_STORED) is None:
        return ""
    stored = roi.GetNodeReference(_SCAN_REFERENCE)
    if stored is not None and result_scan.are_same_scan(stored, volume):
        return ""
    text = _("“{region}” belongs to another scan than “{volume}”: check that the region fits, or move it.")
    return str(text.format(region=roi.GetName(), volume=volume.GetName()))


class MoveObserver:
    """Observes one region at a time, and calls `on_moved` when the region was moved, resized or rotated."""

    def __init__(self, on_moved: Callable[[], None]) -> None:
        self._on_moved = on_moved
        self._tag = 0
        self._place: list[float] = []
        self.region: RegionNode | None = None

    def observe(self, region: RegionNode | None) -> None:
        """Observe a region instead of the present one; None stops observing."""
        if region is self.region:
            return
        if self.region is not None:
            self.region.RemoveObserver(self._tag)
        self.region = region
        if region is not None:
            self._place = _place_of(region)
            self._tag = region.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_modified)

    def _on_modified(self, caller: RegionNode, event: Any) -> None:
        before, self._place = self._place, _place_of(caller)
        if self._place != before:
            self._on_moved()


def _place_of(roi: RegionNode) -> list[float]:
    return [*slicer.util.arrayFromVTKMatrix(roi.GetObjectToWorldMatrix()).ravel().tolist(), *roi.GetSize()]


def style_region(roi: RegionNode) -> None:
    """Show a region as coloured edges, without a fill that would cover the scan."""
    roi.CreateDefaultDisplayNodes()
    display = roi.GetDisplayNode()
    display.SetFillVisibility(False)
    display.SetColor(*COLOR)
    display.SetSelectedColor(*COLOR)
    display.SetPropertiesLabelVisibility(False)


def _corners_of(result: SegmentationNode) -> np.ndarray:
    """Return the corners (N, 3) of the DCAMT segments' bounding boxes, in RAS mm of the world."""
    corners: list[list[float]] = []
    for identifier in find_dcamt_segments(result):
        if result.GetSegmentation().GetSegment(identifier).GetRepresentation(labelmap_name()) is None:
            continue
        voxels = read_segment(result, identifier)
        if not voxels.mask.any():
            continue
        for corner in itertools.product(*[(-0.5, size - 0.5) for size in reversed(voxels.mask.shape)]):
            world = [0.0, 0.0, 0.0]
            result.TransformPointToWorld((voxels.affine @ [*corner, 1.0])[:3], world)
            corners.append(world)
    return np.array(corners).reshape(-1, 3)
