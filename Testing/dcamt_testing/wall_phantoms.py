"""Atria in closed form: blood, a shell of wall with a bright patch of known size, a cut valve and a vein.

Every intensity is a function of the place in the patient alone, averaged over each voxel as a scanner does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from dcamt.geometry import Grid
from dcamt.volume import Labelmap, Volume

from dcamt_testing.analytic_scans import CENTRE

BLOOD, WALL, OUTSIDE = 100.0, 70.0, 25.0
MITRAL = np.array([-0.66, 0.54, -0.52]) / np.linalg.norm([-0.66, 0.54, -0.52])
"""Where the phantom's valve faces, RAS: left, anterior, inferior."""
VEIN = np.array([0.8, -0.6, 0.0])
"""Where its vein runs, RAS: right, posterior."""
SAMPLE_MM = 1.0
"""A voxel's intensity is the mean of samples so far apart, at most; a smaller voxel's is that at its centre."""


@dataclass(frozen=True)
class Atrium:
    """An ellipsoid of blood about `centre`, in a shell of wall, and what differs from that.

    radii: mm along R, A, S. shell_mm: thickness of the wall. patch_degrees: half angle of a bright cap about
    `patch_axis`, of `patch_ratio` times the blood's brightness (0: none); angles are those of the unit ball that the
    ellipsoid is stretched from. valve_mm: distance of the valve's plane from the centre (None: no valve); beyond it
    lies blood. vein_mm: the vein's radius (None: no vein); it is outlined for `vein_length_mm` from the centre and
    goes on.
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
        """Whether RAS mm points (..., 3) lie in what an expert outlines."""
        p = points - self.centre
        inside = np.linalg.norm(p / self.radii, axis=-1) < 1
        if self.valve_mm is not None:
            inside &= p @ MITRAL < self.valve_mm
        if self.vein_mm is not None:
            along, away = self._vein(p)
            inside |= (along > 0) & (along < self.vein_length_mm) & (away < self.vein_mm)
        return inside

    def brightness(self, points: np.ndarray) -> np.ndarray:
        """Return the intensities at RAS mm points (..., 3)."""
        p = points - self.centre
        unit = p / self.radii
        size = np.linalg.norm(unit, axis=-1)
        # Distance to the ellipsoid to first order, exact for a ball.
        away = size * (size - 1) / (np.linalg.norm(unit / self.radii, axis=-1) + 1e-12)
        cosine = unit @ np.array(self.patch_axis) / (size + 1e-12)
        patch = cosine > np.cos(np.radians(self.patch_degrees)) if self.patch_degrees else np.zeros(size.shape, bool)
        values = np.where(away < self.shell_mm, np.where(patch, BLOOD * self.patch_ratio, WALL), OUTSIDE)
        # Blood is not of one brightness, or it would have no standard deviation.
        blood = BLOOD + 16.0 * np.sin(p[..., 0] / 1.5) * np.cos(p[..., 1] / 1.7)
        in_blood = away < 0
        if self.vein_mm is not None:
            along, radius = self._vein(p)
            values = np.where((along > 0) & (radius < self.vein_mm + 3.0) & ~patch, WALL, values)
            in_blood |= (along > 0) & (radius < self.vein_mm)
        if self.valve_mm is not None:
            beyond = p @ MITRAL - self.valve_mm
            across = np.linalg.norm(p - (p @ MITRAL)[..., None] * MITRAL, axis=-1)
            rim = np.sqrt(self.radii[0] ** 2 - self.valve_mm**2)  # valves are tested on balls alone
            in_blood = np.where(beyond > 0, across < rim, in_blood)
            values = np.where((beyond > 0) & (across < rim + 6.0), WALL, values)
        return np.where(in_blood, blood, values)

    def on(self, grid: Grid) -> tuple[Volume, Labelmap]:
        """The scan (1, I, J, K) float32 and its outline on a grid."""
        index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
        counts = np.ceil(grid.spacing / SAMPLE_MM).astype(int)
        steps = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]
        values = sum(
            self.brightness(_placed(grid, index + np.array(step))) for step in itertools.product(*steps)
        ) / int(counts.prod())
        mask = self.mask(_placed(grid, index))
        return (
            Volume(np.asarray(values)[None].astype(np.float32), grid),
            Labelmap(mask.astype(np.uint8), grid),
        )

    def area_mm2(self, chosen: Callable[[np.ndarray], np.ndarray] = lambda unit: np.ones(len(unit), bool)) -> float:
        """Area of the ellipsoid where `chosen`, of unit vectors (N, 3), holds: a sum over a fine lattice of angles."""
        steps = 600
        polar = (np.arange(steps) + 0.5) / steps * np.pi
        turn = (np.arange(steps) + 0.5) / steps * 2 * np.pi
        t, f = (angle.ravel() for angle in np.meshgrid(polar, turn, indexing="ij"))
        unit = np.stack([np.sin(t) * np.cos(f), np.sin(t) * np.sin(f), np.cos(t)], axis=1)
        a, b, c = self.radii
        # The surface element of the stretched ball: |stretch's cofactor times the unit normal| dOmega.
        element = np.linalg.norm(unit * (b * c, a * c, a * b), axis=1) * np.sin(t)
        return float((element * chosen(unit)).sum() * (np.pi / steps) * (2 * np.pi / steps))

    def patch_area_mm2(self) -> float:
        """Return the area of the patch on the surface."""
        cosine = np.cos(np.radians(self.patch_degrees))
        return self.area_mm2(lambda unit: unit @ np.array(self.patch_axis) > cosine)

    def _vein(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance along the vein's axis and from it."""
        along = p @ VEIN
        return along, np.linalg.norm(p - along[..., None] * VEIN, axis=-1)


def _placed(grid: Grid, index: np.ndarray) -> np.ndarray:
    return np.asarray(index @ grid.affine[:3, :3].T + grid.affine[:3, 3])


def grid_about(
    extent_mm: float,
    spacing: tuple[float, float, float],
    axes: np.ndarray | None = None,
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Grid:
    """A grid of at least `extent_mm` each way about the phantoms' centre; columns of `axes` (3, 3): its directions."""
    shape = tuple(int(np.ceil(extent_mm / step)) for step in spacing)
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if axes is None else axes) * spacing
    affine[:3, 3] = np.add(CENTRE, shift) - affine[:3, :3] @ (np.array(shape) - 1) / 2
    return Grid((shape[0], shape[1], shape[2]), affine)
