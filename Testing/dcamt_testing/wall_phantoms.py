"""Compute phantoms of atria: blood and a wall, and optionally a bright patch of known area, a valve and a vein.

The intensity depends only on the position in RAS mm. A voxel holds the mean intensity in the voxel's extent, as in a
scanner.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from dcamt.geometry import Grid
from dcamt.volume import Labelmap, Volume

from dcamt_testing.analytic_scans import CENTRE, centred_grid, points_of

BLOOD, WALL, OUTSIDE = 100.0, 70.0, 25.0
MITRAL = np.array([-0.66, 0.54, -0.52]) / np.linalg.norm([-0.66, 0.54, -0.52])
"""The normal of the valve's plane, RAS: left, anterior, inferior."""
VEIN = np.array([0.8, -0.6, 0.0])
"""The direction of the vein, RAS: right, posterior."""
SAMPLE_MM = 1.0
"""A voxel's intensity is the mean of samples at most this far apart, in mm."""


@dataclass(frozen=True)
class Atrium:
    """An ellipsoid of blood, centred at `centre` and surrounded by a wall, with an optional patch, valve and vein.

    Attributes:
        radii: mm along R, A, S.
        shell_mm: thickness of the wall.
        patch_degrees: half angle of the patch; 0: no patch. The patch is a bright cap of the wall about `patch_axis`.
            The angle is measured on the unit ball, which `radii` stretches to the ellipsoid.
        patch_ratio: the patch's intensity divided by the blood's.
        valve_mm: distance of the valve's plane from the centre (None: no valve); the blood continues beyond the plane.
        vein_mm: the vein's radius (None: no vein). The vein starts at the centre and has no end in the scan.
        vein_length_mm: length of the vein in the label, measured from the centre.
    """

    radii: tuple[float, float, float] = (20.0, 20.0, 20.0)
    shell_mm: float = 6.0
    patch_degrees: float = 0.0
    patch_axis: tuple[float, float, float] = (0.0, -1.0, 0.0)
    patch_ratio: float = 1.5
    valve_mm: float | None = None
    vein_mm: float | None = None
    vein_length_mm: float = 34.0
    centre: tuple[float, float, float] = tuple(CENTRE)

    def mask(self, points: np.ndarray) -> np.ndarray:
        """Return whether points (..., 3), RAS mm, lie inside the label."""
        p = points - self.centre
        inside = np.linalg.norm(p / self.radii, axis=-1) < 1
        if self.valve_mm is not None:
            inside &= p @ MITRAL < self.valve_mm
        if self.vein_mm is not None:
            along, away = self._vein(p)
            inside |= (along > 0) & (along < self.vein_length_mm) & (away < self.vein_mm)
        return inside

    def brightness(self, points: np.ndarray) -> np.ndarray:
        """Return the intensities at points (..., 3), RAS mm."""
        p = points - self.centre
        unit = p / self.radii
        size = np.linalg.norm(unit, axis=-1)
        # The distance to the ellipsoid's surface: a first-order approximation, exact for a ball.
        away = size * (size - 1) / (np.linalg.norm(unit / self.radii, axis=-1) + 1e-12)
        cosine = unit @ np.array(self.patch_axis) / (size + 1e-12)
        patch = cosine > np.cos(np.radians(self.patch_degrees)) if self.patch_degrees else np.zeros(size.shape, bool)
        values = np.where(away < self.shell_mm, np.where(patch, BLOOD * self.patch_ratio, WALL), OUTSIDE)
        # The blood's intensity varies, so that its standard deviation is not 0.
        blood = BLOOD + 16.0 * np.sin(p[..., 0] / 1.5) * np.cos(p[..., 1] / 1.7)
        in_blood = away < 0
        if self.vein_mm is not None:
            along, radius = self._vein(p)
            values = np.where((along > 0) & (radius < self.vein_mm + 3.0) & ~patch, WALL, values)
            in_blood |= (along > 0) & (radius < self.vein_mm)
        if self.valve_mm is not None:
            beyond = p @ MITRAL - self.valve_mm
            across = np.linalg.norm(p - (p @ MITRAL)[..., None] * MITRAL, axis=-1)
            # This formula for the valve's radius holds for a ball; all phantoms with a valve are balls.
            rim = np.sqrt(self.radii[0] ** 2 - self.valve_mm**2)
            in_blood = np.where(beyond > 0, across < rim, in_blood)
            values = np.where((beyond > 0) & (across < rim + 6.0), WALL, values)
        return np.where(in_blood, blood, values)

    def on(self, grid: Grid) -> tuple[Volume, Labelmap]:
        """Return the scan (1, I, J, K), float32, and its label on a grid."""
        centres = points_of(grid)
        counts = np.ceil(grid.spacing / SAMPLE_MM).astype(int)
        steps = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]  # samples' offsets from a voxel's centre, in voxels
        offsets = [grid.affine[:3, :3] @ step for step in itertools.product(*steps)]
        mean = sum(self.brightness(centres + offset) for offset in offsets) / len(offsets)
        return (
            Volume(np.asarray(mean)[None].astype(np.float32), grid),
            Labelmap(self.mask(centres).astype(np.uint8), grid),
        )

    def area_mm2(self, chosen: Callable[[np.ndarray], np.ndarray] = lambda unit: np.ones(len(unit), bool)) -> float:
        """Return the area of the ellipsoid's surface where `chosen` is True, by numerical integration.

        Args:
            chosen: maps unit vectors (N, 3) of the unit ball to booleans (N,).
        """
        steps = 600
        polar = (np.arange(steps) + 0.5) / steps * np.pi
        turn = (np.arange(steps) + 0.5) / steps * 2 * np.pi
        t, f = (angle.ravel() for angle in np.meshgrid(polar, turn, indexing="ij"))
        unit = np.stack([np.sin(t) * np.cos(f), np.sin(t) * np.sin(f), np.cos(t)], axis=1)
        a, b, c = self.radii
        # The area element of a stretched unit ball: |(bc nx, ac ny, ab nz)| dOmega, where n is the ball's normal.
        element = np.linalg.norm(unit * (b * c, a * c, a * b), axis=1) * np.sin(t)
        return float((element * chosen(unit)).sum() * (np.pi / steps) * (2 * np.pi / steps))

    def patch_area_mm2(self) -> float:
        """Return the area of the bright patch on the ellipsoid's surface, without regard to valve and vein."""
        cosine = np.cos(np.radians(self.patch_degrees))
        return self.area_mm2(lambda unit: unit @ np.array(self.patch_axis) > cosine)

    def _vein(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions along the vein's axis and the distances from this axis, in mm."""
        along = p @ VEIN
        return along, np.linalg.norm(p - along[..., None] * VEIN, axis=-1)


@dataclass(frozen=True)
class Ring(Atrium):
    """A ring-shaped tube of blood around the axis S, with a wall.

    The angle about the tube's own axis is 0 where the wall is farthest from the axis S, and 180 degrees where the wall
    is nearest to the axis S. The bright patch is the wall at angles from -`patch_degrees` to `patch_degrees`. `radii`,
    `patch_axis`, `valve_mm`, `vein_mm` and `vein_length_mm` have no effect on the scan and its label.

    Attributes:
        ring_mm: distance from the centre to the tube's own axis.
        tube_mm: the tube's radius.
    """

    ring_mm: float = 20.0
    tube_mm: float = 8.5

    def mask(self, points: np.ndarray) -> np.ndarray:
        return self._tube(points)[0] < self.tube_mm

    def brightness(self, points: np.ndarray) -> np.ndarray:
        p = points - self.centre
        away, angle = self._tube(points)
        patch = np.abs(angle) <= np.radians(self.patch_degrees)
        wall = np.where(patch, BLOOD * self.patch_ratio, WALL)
        blood = BLOOD + 16.0 * np.sin(p[..., 0] / 1.5) * np.cos(p[..., 1] / 1.7)
        outside = np.where(away < self.tube_mm + self.shell_mm, wall, OUTSIDE)
        return np.where(away < self.tube_mm, blood, outside)

    def ring_area_mm2(self, degrees: float = 180.0) -> float:
        """Return the area of the tube's surface at angles from -`degrees` to `degrees` about the tube's axis."""
        angle = np.radians(degrees)
        # The integral over angles a, from -angle to angle, of 2 pi (ring_mm + tube_mm cos a) tube_mm.
        return float(4 * np.pi * self.tube_mm * (self.ring_mm * angle + self.tube_mm * np.sin(angle)))

    def _tube(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distances from the tube's axis, in mm, and the angles about the axis, in radians."""
        p = points - self.centre
        out = np.hypot(p[..., 0], p[..., 1]) - self.ring_mm
        return np.hypot(out, p[..., 2]), np.arctan2(p[..., 2], out)


def angles_to(points: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return the angles (N,), in degrees, between a unit vector and the directions from `CENTRE` to points (N, 3)."""
    p = points - CENTRE
    return np.degrees(np.arccos(np.clip(p @ axis / np.linalg.norm(p, axis=1), -1, 1)))


def grid_about(
    extent_mm: float,
    spacing: tuple[float, float, float],
    axes: np.ndarray | None = None,
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Grid:
    """Return a grid centred at the phantoms' centre plus `shift`, at least `extent_mm` wide along each axis.

    Args:
        axes: (3, 3), whose columns are the directions of the grid's axes (None: R, A, S).
    """
    i, j, k = (int(np.ceil(extent_mm / step)) for step in spacing)
    return centred_grid((i, j, k), spacing, axes, np.add(CENTRE, shift))
