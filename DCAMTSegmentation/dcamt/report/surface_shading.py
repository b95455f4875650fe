"""Render segments as shaded surfaces by tracing rays through distance maps, without a 3D library or a display."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.doubtful_places import GLANCE_MM
from ..volume import SegmentInfo
from .colors import DOUBT_COLOR

Painter = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Returns the colours (N, 3) of surface points, given their positions (N, 3) mm and their segments' colours (N, 3)."""

SURFACE_DISTANCE_MM = 0.03
"""A ray that is closer to the surface than this has hit it."""
MAX_STEPS = 200
"""A ray has missed the surface after this many steps."""
STEP_FRACTION = 0.95
"""Length of a ray's step, as a fraction of the interpolated distance to the surface.

The interpolated distance may exceed the true distance.
"""
SILHOUETTE_CELL_MM = 3.0
"""Smallest `cell_mm` of `_silhouette`."""
MARGIN_MM = 10
"""Margin of the distance map around a segment: at least the largest distance in `HOLLOW_WEIGHTS`."""
HOLLOW_WEIGHTS = ((2.0, 0.3), (5.0, 0.35), (9.0, 0.35))
"""Pairs (distance in mm, weight) for `_DistanceMap.openness`."""

OFF_MM = (1.0, 2.0)
"""Thresholds of an outline's estimated error, in mm.

Above the first threshold, `DOUBT_COLOR` is blended in; above the second, `DOUBT_COLOR` replaces the segment's colour.
"""


@dataclass(frozen=True)
class View:
    """An orthographic view of a surface.

    Attributes:
        screen: (3, 3), the directions right, up and into the screen, as rows.
        pixels: width and height of the view.
    """

    screen: np.ndarray
    pixels: int


def view_from(front: bool, pixels: int) -> View:
    """Return a view from the front or from behind, from 20 degrees above the horizontal; axes are LPS."""
    tilt = np.radians(20)
    turn = 1.0 if front else -1.0
    right = [turn, 0.0, 0.0]
    up = [0.0, turn * np.sin(tilt), np.cos(tilt)]
    into = [0.0, turn * np.cos(tilt), -np.sin(tilt)]
    return View(np.array([right, up, into]), pixels)


@dataclass(frozen=True, eq=False)
class VisibleSurface:
    """The visible points of a surface in a view, one for each pixel that shows the surface.

    Attributes:
        pixel: (N,), index of each point's pixel, row by row from the bottom.
        points: (N, 3) mm.
        normals: (N, 3) in screen axes.
        openness: (N,), from 0 (deep in a hollow) to 1.
        base: (N, 3), the colour of each point's segment.
    """

    view: View
    pixel: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    openness: np.ndarray
    base: np.ndarray

    def shade(self, paint: Painter | None = None) -> np.ndarray:
        """Return RGBA (pixels, pixels, 4), 0 to 1, the bottom row first. `paint` changes the surface's colours."""
        base = self.base if paint is None else paint(self.points, self.base)
        color = np.zeros((self.view.pixels**2, 4))
        color[self.pixel, :3] = _light(base, self.normals, self.openness)
        color[self.pixel, 3] = 1
        return color.reshape(self.view.pixels, self.view.pixels, 4)


def trace_surface(
    labels: np.ndarray, spacing: np.ndarray, segments: Sequence[SegmentInfo], views: Sequence[View]
) -> list[VisibleSurface]:
    """Return the visible surface of `segments` in each view.

    `labels` (I, J, K), not all 0, are in LPS order with `spacing` (3,) mm; points are in mm from voxel (0, 0, 0). Rays
    are traced through the distance map of each segment (sphere tracing: Hart, The Visual Computer 12:527, 1996).
    """
    maps = [
        (segment, _DistanceMap.from_mask(mask, spacing))
        for segment in segments
        if (mask := labels == segment.label).any()
    ]
    return [_trace_view(labels, spacing, maps, view) for view in views]


def _trace_view(
    labels: np.ndarray, spacing: np.ndarray, maps: Sequence[tuple[SegmentInfo, _DistanceMap]], view: View
) -> VisibleSurface:
    screen = view.screen
    places, shown = np.argwhere(labels) * spacing @ screen.T, labels[labels != 0]
    centre = (places.min(0) + places.max(0)) / 2
    half_width = 1.12 * (places.max(0) - places.min(0))[:2].max() / 2 + spacing.max()
    steps = np.linspace(-half_width, half_width, view.pixels)
    u, v = (grid.ravel() for grid in np.meshgrid(steps, steps))
    near, far = places.min(0)[2] - 5, places.max(0)[2] + 5
    start = (np.stack([u + centre[0], v + centre[1], np.full(u.shape, near)]).T @ screen).astype(np.float32)
    into = screen[2].astype(np.float32)

    nearest = np.full(u.size, far - near)
    points, normals = np.zeros((u.size, 3)), np.zeros((u.size, 3))
    openness, base = np.zeros(u.size), np.zeros((u.size, 3))
    for segment, distance in maps:
        own = places[shown == segment.label, :2] - centre[:2]
        rays = np.flatnonzero(_silhouette(own, steps, max(SILHOUETTE_CELL_MM, spacing.max())))
        reached, depth = distance.trace(start[rays], into, nearest[rays])
        hit = rays[reached]
        nearest[hit] = depth
        points[hit] = start[hit] + depth[:, None] * into
        outward = distance.normals(points[hit])
        normals[hit] = outward @ screen.T
        openness[hit] = distance.openness(points[hit], outward)
        base[hit] = segment.color
    pixel = np.flatnonzero(nearest < far - near)
    return VisibleSurface(view, pixel, points[pixel], normals[pixel], openness[pixel], base[pixel])


def _silhouette(places: np.ndarray, steps: np.ndarray, cell_mm: float) -> np.ndarray:
    """Return whether each pixel's ray passes near one of the voxels: bool (pixels**2,).

    Args:
        places: centres of the voxels on the screen, (N, 2) mm.
        steps: (pixels,) mm, the positions of pixels along an axis.
        cell_mm: approximate edge of the square cells that are searched for voxels; at least the largest voxel spacing.
    """
    from scipy import ndimage

    coarse = np.linspace(steps[0], steps[-1], max(2, int(np.ptp(steps) / cell_mm)))
    shown = np.histogram2d(places[:, 1], places[:, 0], bins=(coarse, coarse))[0] > 0
    shown = ndimage.binary_dilation(shown, iterations=2)
    index = np.clip(np.searchsorted(coarse, steps, side="right") - 1, 0, len(coarse) - 2)
    return np.asarray(shown[np.ix_(index, index)].ravel())


def doubt_painter(doubt: np.ndarray, spacing: np.ndarray) -> Painter:
    """Return a painter that blends in `DOUBT_COLOR` where the outline is probably off by more than `OFF_MM[0]`.

    Args:
        doubt: the probability that a voxel's label is wrong (I, J, K), in LPS order.
        spacing: (3,) mm.
    """

    def paint(points: np.ndarray, base: np.ndarray) -> np.ndarray:
        if not len(points):
            return base
        off_mm = _thickness_of_doubt(doubt, spacing, points)
        weight = np.clip((off_mm - OFF_MM[0]) / (OFF_MM[1] - OFF_MM[0]), 0, 1)[:, None]
        return np.asarray(base * (1 - weight) + np.array(DOUBT_COLOR) * weight)

    return paint


def _thickness_of_doubt(doubt: np.ndarray, spacing: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the thickness (N,), in mm, of the layer of doubtful voxels at each point.

    A layer of 2 mm with a doubt of 0.5 counts as 1 mm.
    """
    from scipy import ndimage

    index = points / spacing
    reach = np.ceil(2 * GLANCE_MM / spacing).astype(int) + 1
    low = np.maximum(np.floor(index.min(axis=0)).astype(int) - reach, 0)
    high = np.ceil(index.max(axis=0)).astype(int) + reach + 1
    near = doubt[tuple(slice(*ends) for ends in zip(low, high, strict=True))].astype(np.float32, copy=False)
    around = ndimage.gaussian_filter(near, GLANCE_MM / spacing, mode="constant", truncate=2)
    mean = ndimage.map_coordinates(around, (index - low).T, order=1)
    # In a thin, flat layer with a doubt of 1, the Gaussian mean is thickness / (GLANCE_MM * sqrt(2 pi)).
    return np.asarray(GLANCE_MM * np.sqrt(2 * np.pi) * mean)


@dataclass(frozen=True, eq=False)
class _DistanceMap:
    """A map of signed distances (mm) to a segment's surface.

    Attributes:
        values: (I, J, K), the distances, negative inside.
        for_normals: (I, J, K), `values` after further smoothing.
        first: the scan's voxel at the map's index (0, 0, 0).
        spacing: (3,) mm.
    """

    values: np.ndarray
    for_normals: np.ndarray
    first: np.ndarray
    spacing: np.ndarray

    @classmethod
    def from_mask(cls, mask: np.ndarray, spacing: np.ndarray) -> _DistanceMap:
        from scipy import ndimage

        inside = np.argwhere(mask)
        low, high = inside.min(0), inside.max(0) + 1
        room = np.ceil(MARGIN_MM / spacing).astype(int)
        # For the distances inside the segment, one voxel of margin is enough.
        tight = np.pad(mask[tuple(map(slice, low, high))], 1)
        inner = ndimage.distance_transform_edt(tight, sampling=spacing)[1:-1, 1:-1, 1:-1]
        mask = np.pad(tight[1:-1, 1:-1, 1:-1], [(int(r), int(r)) for r in room])
        half_voxel = 0.5 * spacing.min()
        exact = (ndimage.distance_transform_edt(~mask, sampling=spacing) - half_voxel).astype(np.float32)
        without_room = exact[tuple(slice(r, -r) for r in room)]  # a numpy view of `exact`
        without_room[inner > 0] = half_voxel - inner[inner > 0]
        # Smoothing hides the steps between voxels.
        smooth = ndimage.gaussian_filter(exact, np.minimum(1.2 * spacing.max(), 2.0) / spacing)
        # Smoothing may remove a small segment, such as a single voxel.
        values = smooth if smooth.min() < 0 else exact
        return cls(values, ndimage.gaussian_filter(values, 1.3), low - room, spacing)

    def trace(self, start: np.ndarray, into: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of rays that hit the surface before `limit` (N,) mm, and the depths of the hits in mm."""
        depth, active = np.zeros(len(start), np.float32), np.arange(len(start))
        hits = []
        for _ in range(MAX_STEPS):
            gap = self._sample(self.values, start[active] + depth[active, None] * into)
            hits.append(active[gap < SURFACE_DISTANCE_MM])
            active, gap = active[gap >= SURFACE_DISTANCE_MM], gap[gap >= SURFACE_DISTANCE_MM]
            depth[active] += STEP_FRACTION * gap
            active = active[depth[active] < limit[active]]
        hit = np.concatenate(hits)
        hit = hit[depth[hit] < limit[hit]]
        return hit, depth[hit]

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Return the outward unit normals (N, 3) at surface points (N, 3)."""
        normals = np.empty(points.shape)
        for axis, step in enumerate(np.diag(self.spacing)):
            ahead, behind = (self._sample(self.for_normals, points + side) for side in (step, -step))
            normals[:, axis] = (ahead - behind) / (2 * self.spacing[axis])
        return np.asarray(normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9))

    def openness(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Return how open the space in front of each point is, from 0 (deep in a hollow) to 1."""
        hollow = np.zeros(len(points))
        for reach, weight in HOLLOW_WEIGHTS:
            hollow += (reach - self._sample(self.values, points + reach * normals)) / reach * weight
        return np.clip(1 - hollow, 0, 1)

    def _sample(self, field: np.ndarray, points: np.ndarray) -> np.ndarray:
        from scipy import ndimage

        index = (points / self.spacing - self.first).T
        values: np.ndarray = ndimage.map_coordinates(field, index, order=1, mode="nearest")
        return values


def _light(base: np.ndarray, normal: np.ndarray, openness: np.ndarray) -> np.ndarray:
    """Return the colours (N, 3) of lit surface points; `normal` (N, 3) is in screen axes."""
    left_lamp, right_lamp = np.array([-0.45, 0.6, -0.66]), np.array([0.8, -0.1, -0.6])
    half = left_lamp + np.array([0, 0, -1.0])
    half /= np.linalg.norm(half)
    diffuse = (
        0.78 * np.maximum(normal @ left_lamp, 0) + 0.2 * np.maximum(normal @ right_lamp, 0) + 0.16 + 0.1 * normal[:, 1]
    )
    shine = 0.22 * np.maximum(normal @ half, 0) ** 34
    rim = 0.16 * (1 - np.abs(normal[:, 2])) ** 3
    linear: np.ndarray = (
        base**2.2 * (diffuse * (0.35 + 0.65 * openness))[:, None] + (shine * openness + rim * 0.5)[:, None]
    )
    screen: np.ndarray = np.clip(linear, 0, 1) ** (1 / 2.2)
    return screen
