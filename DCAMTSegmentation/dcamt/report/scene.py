"""Prepare the content of pictures of a segmentation: arrays in LPS order, the slices and the box to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry import Grid, bounding_box, canonical_orientation
from ..hounsfield import padding_mask
from ..volume import Labelmap, SegmentInfo, Volume, same_grid

WINDOW_PERCENTILES = (0.5, 99.7)
"""The intensities at these percentiles are shown as black and as white."""
SHORTEST_SIDES = np.array([0.5, 0.5, 0.4])
"""Smallest sides of the shown box along L, P and S, as fractions of its longest side."""
SCALE_BARS_MM = (20, 10, 5, 2, 1)
"""Lengths of scale bars. A slice shows the longest bar that fits into a third of the slice's width."""


@dataclass(frozen=True)
class Plane:
    """The orientation of a slice on the screen.

    Attributes:
        across, along: the LPS axes that are horizontal and vertical on the screen.
        up: whether `along` points upwards.
        letters: the orientation letters at the left, right, top and bottom edge.
    """

    name: str
    across: int
    along: int
    up: bool
    letters: str

    @property
    def through(self) -> int:
        """The LPS axis perpendicular to the slice."""
        return 3 - self.across - self.along


AXIAL = Plane("Axial", 0, 1, False, "RLAP")
CORONAL = Plane("Coronal", 0, 2, True, "RLSI")
SAGITTAL = Plane("Sagittal", 1, 2, True, "APSI")
PLANES = (AXIAL, CORONAL, SAGITTAL)


@dataclass(frozen=True, eq=False)
class Scene:
    """The content of a picture. Arrays are (I, J, K) in LPS order.

    Attributes:
        grid: the scan's grid, not turned to LPS order.
        spacing: (3,) mm.
        at: indices of the shown slices.
    """

    grid: Grid
    image: np.ndarray
    labels: np.ndarray
    doubt: np.ndarray | None
    spacing: np.ndarray
    at: tuple[int, int, int]

    def cut(self, voxels: np.ndarray, plane: Plane) -> np.ndarray:
        """Return the shown slice of `voxels` (I, J, K) as (rows, columns)."""
        slice_voxels: np.ndarray = np.take(voxels, self.at[plane.through], axis=plane.through)
        return slice_voxels.T

    def shown_box(self, margin_mm: float) -> tuple[np.ndarray, np.ndarray]:
        """Return opposite corners (3,) of the box to show, in mm from the centre of voxel (0, 0, 0).

        The box extends `margin_mm` beyond the segmentation, but not beyond the scan. Sides shorter than
        `SHORTEST_SIDES` are then lengthened, so that each slice has room for its texts.
        """
        low, high = self._box_in_scan(margin_mm)
        size = np.maximum(high - low, SHORTEST_SIDES * (high - low).max())
        return (low + high - size) / 2, (low + high + size) / 2

    def _box_in_scan(self, margin_mm: float) -> tuple[np.ndarray, np.ndarray]:
        first, last = -0.5 * self.spacing, (np.array(self.image.shape) - 0.5) * self.spacing
        box = bounding_box(self.labels != 0)
        if box is None:
            return first, last
        low, high = np.array([(side.start - 0.5, side.stop - 0.5) for side in box]).T * self.spacing
        return np.maximum(low - margin_mm, first), np.minimum(high + margin_mm, last)

    def window(self, low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
        """Return the `intensity_window` of the box with corners `low` and `high` (3,), in mm as in `shown_box`."""
        start = np.maximum(np.ceil(low / self.spacing), 0).astype(int)
        stop = np.floor(high / self.spacing).astype(int) + 1
        return intensity_window(self.image[tuple(map(slice, start, stop))])

    def to_scene_mm(self, points: np.ndarray) -> np.ndarray:
        """Convert points (N, 3) in RAS mm to mm along the scene's axes; voxel (0, 0, 0) of the scene is the origin."""
        canonical = canonical_orientation(self.grid).apply_to_grid(self.grid)
        index = np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(canonical.affine).T[:, :3]
        # Canonical axes run to the right and front, the scene's axes to the left and back.
        index[:, :2] = np.array(self.image.shape[:2]) - 1 - index[:, :2]
        return np.asarray(index * self.spacing)


def scale_bar_mm(width_mm: float) -> int:
    """Return the length of the scale bar in a slice that is `width_mm` wide."""
    return next((mm for mm in SCALE_BARS_MM if mm <= width_mm / 3), SCALE_BARS_MM[-1])


def intensity_window(shown: np.ndarray) -> tuple[float, float]:
    """Return the intensities shown as black and as white: percentiles of the shown voxels that are not padding."""
    # A sample of up to 2 million voxels has nearly the same percentiles as all voxels.
    sample = shown[tuple(slice(None, None, max(1, n // 64)) for n in shown.shape)]
    padding = padding_mask(sample)
    dark, bright = np.percentile(sample if padding.all() else sample[~padding], WINDOW_PERCENTILES)
    return float(dark), float(bright) if bright > dark else float(dark) + 1.0


def build_scene(
    volume: Volume,
    labelmap: Labelmap,
    segments: Sequence[SegmentInfo],
    doubt_map: np.ndarray | None = None,
) -> Scene:
    """Return the scene of `labelmap` over the first channel of `volume`.

    Only labels in `segments` are shown. `doubt_map` (I, J, K) is from 0 to 1.

    Raises:
        InputError: the grids of labels and scan differ.
        ValueError: the shape of `doubt_map` differs from that of the labels.
    """
    if not same_grid(labelmap.grid, volume.grid):
        raise InputError(
            "does not lie on the scan's grid", path=labelmap.path, remedy="Choose the scan of this segmentation."
        )
    if doubt_map is not None and doubt_map.shape != labelmap.grid.shape:
        raise ValueError(f"the map of doubt {doubt_map.shape} is not on the labelmap's grid {labelmap.grid.shape}")
    image, spacing = turn_to_lps(volume.voxels[0], volume.grid)
    labels, _ = turn_to_lps(labelmap.voxels, volume.grid)
    labels = np.where(np.isin(labels, [segment.label for segment in segments]), labels, 0)
    doubt = None if doubt_map is None else np.clip(turn_to_lps(doubt_map, volume.grid)[0], 0, 1)
    i, j, k = (_central_slice(labels, axis) for axis in range(3))
    return Scene(volume.grid, image, labels, doubt, spacing, (i, j, k))


def _central_slice(labels: np.ndarray, axis: int) -> int:
    """Return the index of the labelled slice nearest to the labels' centroid; the middle slice if none is labelled."""
    counts = np.count_nonzero(labels, axis=tuple({0, 1, 2} - {axis}))
    used = np.flatnonzero(counts)
    if not len(used):
        return int(labels.shape[axis] // 2)
    centroid = float(counts @ np.arange(len(counts)) / counts.sum())
    return int(used[np.abs(used - centroid).argmin()])


def turn_to_lps(voxels: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return a view of `voxels` (I, J, K) in LPS order, and the spacing (3,) in mm along the view's axes.

    Oblique axes are treated as the nearest axes of the patient.
    """
    orientation = canonical_orientation(grid)
    return orientation.apply(voxels)[::-1, ::-1], grid.spacing[list(orientation.order)]
