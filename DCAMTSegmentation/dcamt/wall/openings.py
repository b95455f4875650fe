"""Propose the openings of the atrium, which are not wall: the mitral valve and the ends of the veins.

At an opening the outline cuts through blood: from inside to outside, the intensities stay within the range of blood. A
thin wall between two cavities (the septum, or the wall towards the aorta) can look like an opening in a blurred scan.
Therefore an opening must also have the right shape. The valve is found as a flat patch with normals near
`MITRAL_DIRECTION`. Experts differ in where they draw the outline at the valve, so the flat patch may be only a part of
the valve. Therefore the patch is extended by nearby connected points in blood. A vein's end is the tip of a tube. The
constants were chosen on phantoms and on 60 cases (the training cases in `Testing/benchmarks/README.md`);
`Testing/benchmarks/wall.py` measures the walls of 20 other cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..geometry import Grid
from ..volume import Labelmap
from .sampling import BloodPool, interpolate, nearest_values
from .surface import Extraction, Surface

PROFILE_FROM_MM = -3.0
"""Start of a profile of intensities along the outward normal."""
PROFILE_TO_MM = 6.0
"""End of a profile: the wall's thickness (2.4 mm) plus a margin for blur and an inexact outline."""
BLOOD_BELOW_SD, BLOOD_ABOVE_SD = 2.5, 4.0
"""Limits of blood below and above the blood pool's mean, in the pool's standard deviations.

The upper limit is larger, since inflowing blood is brighter.
"""
SURFACE_SMOOTHING = 4
"""Number of times that profiles and normals are averaged with those of neighbouring points, about 1 mm away."""
MITRAL_BELOW_SD = 2.0
"""Used instead of `BLOOD_BELOW_SD` at the valve.

The limit is narrower, because the valve's profiles are averaged again (`MITRAL_SMOOTHING`) and therefore vary less.
"""
MITRAL_SMOOTHING = 20
"""Number of times that profiles and normals are averaged again for the valve."""
MITRAL_STEP_MM = 1.0
"""Distance between the samples of the valve's profiles."""

MITRAL_DIRECTION = (-0.66, 0.54, -0.52)
"""Direction in which the mitral valve faces (RAS: left, anterior, inferior): the mean of the 60 cases."""
MITRAL_CONE_DEGREES = 50.0
"""Largest allowed angle between the normals of the valve's patch and `MITRAL_DIRECTION`.

In the 60 cases, the direction of the whole valve is within 40 degrees of `MITRAL_DIRECTION`.
"""
MITRAL_FLAT_DEGREES = 30.0
"""Largest angle between the normals of a flat patch and their mean."""
MITRAL_FLAT_MM = 1.5
"""Largest distance of the points of a flat patch from its plane."""
MITRAL_LEAST_CM2 = 1.0
"""A smaller patch is not a valve; the annulus of an adult measures 4 to 12 cm2."""
MITRAL_REACH_MM = 18.0
"""Largest distance between the flat patch's centre and the points that extend the patch.

The annulus is about 30 to 36 mm wide.
"""
MITRAL_REACH_DEGREES = 60.0
"""Largest angle between the normals of the extended patch and the mean normal of the flat patch."""
MITRAL_RIM_MM = 1.5
"""The valve is extended by this distance.

Averaging and the wall's blur make the valve too small by about this distance.
"""

VEIN_NEARBY_MM = 5.0
"""Standard deviation of the Gaussian with which `vein_ends` weights the voxels around a point."""
VEIN_NEARBY_MOST = 0.27
"""At a tip, the weighted fraction of voxels that lie in the segment is less than this.

The fraction is 0.2 at the end of a tube of 5 mm radius, 0.27 at the tube's side and 0.5 on a flat wall.
"""
VEIN_DEPTH_MM = 18.0
"""Smallest depth of the segment at a tip, inwards along the normal."""
VEIN_RIM_MM = 5.0
"""Largest distance between a vein's end and the points that extend the end."""
VEIN_RIM_DEGREES = 50.0
"""Largest angle between the mean normal of a vein's end and the normals of the points that extend the end."""
VEIN_LEAST_CM2 = 0.1
"""A smaller patch is not a vein's end."""

PAINTED_MM = (-1.0, 0.0, 1.0)
"""Distances along the normal at which `find_painted_openings` looks for a painted voxel.

Painting is inexact by about a voxel.
"""


def propose_openings(
    extraction: Extraction, intensities: np.ndarray, distances_mm: np.ndarray, pool: BloodPool
) -> np.ndarray:
    """Return the mask (N,) bool of the points that probably lie in an opening.

    Args:
        intensities: (N, S) at `distances_mm` (S,), from `PROFILE_FROM_MM` to `PROFILE_TO_MM` along the normals.
    """
    surface = extraction.surface
    average = neighbour_average(surface)
    deviations = ((intensities - pool.mean) / pool.sd).astype(np.float32)
    normals = surface.normals
    for _ in range(SURFACE_SMOOTHING):
        deviations, normals = average(deviations), average(normals)
    unit, blood = unit_vectors(normals), select_blood(deviations, BLOOD_BELOW_SD)
    cut = flat_cut(surface, unit, blood)
    veins = vein_ends(extraction, unit, blood)
    if cut is None:
        return veins
    every = max(1, round(MITRAL_STEP_MM / float(distances_mm[1] - distances_mm[0])))
    deviations = np.ascontiguousarray(deviations[:, ::every])
    for _ in range(MITRAL_SMOOTHING):
        deviations, normals = average(deviations), average(normals)
    valve = mitral_valve(surface, unit_vectors(normals), select_blood(deviations, MITRAL_BELOW_SD), cut)
    return np.asarray(valve | veins)


def select_blood(deviations: np.ndarray, below_sd: float) -> np.ndarray:
    """Return the mask (N,) bool of the profiles that stay in the range of blood.

    Args:
        deviations: profiles (N, S) in standard deviations from the blood pool's mean.
    """
    return np.asarray((deviations.min(axis=1) > -below_sd) & (deviations.max(axis=1) < BLOOD_ABOVE_SD))


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (N, 3) scaled to length 1; vectors of length 0 stay unchanged."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0))


@dataclass(frozen=True, eq=False)
class Cut:
    """A flat patch of the surface: the mask of its points (N,) bool, its centre (3,) in RAS mm, its direction (3,)."""

    patch: np.ndarray
    centre: np.ndarray
    axis: np.ndarray


def flat_cut(surface: Surface, normals: np.ndarray, blood: np.ndarray) -> Cut | None:
    """Return the flat patch of the mitral valve in `blood` (N,); None if smaller than `MITRAL_LEAST_CM2`."""
    direction = np.array(MITRAL_DIRECTION) / np.linalg.norm(MITRAL_DIRECTION)
    facing = blood & (normals @ direction > np.cos(np.radians(MITRAL_CONE_DEGREES)))
    patch = largest_patch(surface, facing)
    centre, axis = np.zeros(3), direction
    for _ in range(4):
        if not patch.any():
            return None
        centre, axis = _fit_plane(surface, normals, patch)
        near_plane = np.abs((surface.points - centre) @ axis) < MITRAL_FLAT_MM
        parallel = normals @ axis > np.cos(np.radians(MITRAL_FLAT_DEGREES))
        patch = largest_patch(surface, facing & near_plane & parallel)
    if surface.point_areas[patch].sum() < 100.0 * MITRAL_LEAST_CM2:
        return None
    return Cut(patch, centre, axis)


def _fit_plane(surface: Surface, normals: np.ndarray, patch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre (3,) in RAS mm and the mean normal (3,) of a patch's points, weighted by area."""
    weights = surface.point_areas[patch, None]
    centre = (weights * surface.points[patch]).sum(axis=0) / weights.sum()
    axis = (weights * normals[patch]).sum(axis=0)
    return centre, axis / np.linalg.norm(axis)


def mitral_valve(surface: Surface, normals: np.ndarray, blood: np.ndarray, cut: Cut) -> np.ndarray:
    """Return the valve's mask (N,) bool: `cut.patch`, points of `blood` (N,) connected to this patch, and a rim."""
    facing = normals @ cut.axis > np.cos(np.radians(MITRAL_REACH_DEGREES))
    near = ((surface.points - cut.centre) ** 2).sum(axis=1) < MITRAL_REACH_MM**2
    reached = (blood & facing & near) | cut.patch
    number = patches(surface, reached)
    return grow(surface, reached & np.isin(number, number[cut.patch]), facing, MITRAL_RIM_MM)


def vein_ends(extraction: Extraction, normals: np.ndarray, blood: np.ndarray) -> np.ndarray:
    """Return the mask (N,) bool of the veins' ends: patches of `blood` (N,) at the tips of tubes, with their rims."""
    from scipy import ndimage

    surface, inside, grid = extraction.surface, extraction.inside, extraction.grid
    coarse = inside[::2, ::2, ::2].astype(np.float32)
    affine = grid.affine.copy()
    affine[:3, :3] *= 2.0
    coarse_grid = Grid(coarse.shape, affine)
    fraction_inside = interpolate(
        ndimage.gaussian_filter(coarse, VEIN_NEARBY_MM / coarse_grid.spacing, mode="constant"),
        coarse_grid,
        surface.points,
    )
    thin = fraction_inside < VEIN_NEARBY_MOST
    candidates = np.flatnonzero(blood & thin)
    for depth in np.arange(2.0, VEIN_DEPTH_MM + 1.0, 1.0):
        points = surface.points[candidates] - depth * normals[candidates]
        candidates = candidates[nearest_values(inside, grid, points)]
    ends = np.zeros(len(blood), bool)
    ends[candidates] = True
    number = patches(surface, ends)
    areas = np.bincount(number, weights=surface.point_areas * ends)
    openings = np.zeros(len(blood), bool)
    for patch in np.flatnonzero(areas >= 100.0 * VEIN_LEAST_CM2):
        end = number == patch
        axis = (surface.point_areas[end, None] * normals[end]).sum(axis=0)
        facing = normals @ (axis / np.linalg.norm(axis)) > np.cos(np.radians(VEIN_RIM_DEGREES))
        openings |= grow(surface, end, facing & thin, VEIN_RIM_MM)
    return openings


def find_painted_openings(surface: Surface, openings: Labelmap) -> np.ndarray:
    """Return the mask (N,) bool of the points that lie in `openings`, a labelmap on any grid (see `PAINTED_MM`)."""
    painted = np.zeros(len(surface.points), bool)
    for distance in PAINTED_MM:
        points = surface.points + distance * surface.normals
        painted |= nearest_values(openings.voxels, openings.grid, points) != 0
    return painted


def neighbour_average(surface: Surface) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that averages the values (N, S) of the points with those of their neighbours."""
    from scipy import sparse

    count = len(surface.points)
    a, b = surface.edges.T
    ones = np.ones(2 * len(a), np.float32)
    links = sparse.csr_matrix((ones, (np.concatenate([a, b]), np.concatenate([b, a]))), shape=(count, count))
    links = links + sparse.identity(count, dtype=np.float32, format="csr")
    weights = 1.0 / np.asarray(links.sum(axis=1))

    def average(values: np.ndarray) -> np.ndarray:
        return np.asarray((links @ values) * weights)

    return average


def patches(surface: Surface, chosen: np.ndarray) -> np.ndarray:
    """Number the connected patches of `chosen` (N,) bool; return the patch number of each point (N,).

    Each point that is not chosen has a number of its own.
    """
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    edges = surface.edges[chosen[surface.edges].all(axis=1)]
    links = sparse.coo_matrix((np.ones(len(edges), bool), tuple(edges.T)), shape=(len(chosen), len(chosen)))
    return np.asarray(connected_components(links, directed=False)[1])


def largest_patch(surface: Surface, chosen: np.ndarray) -> np.ndarray:
    """Return the mask (N,) bool of the largest connected patch, by area, of `chosen` (N,) bool; it may be empty."""
    number = patches(surface, chosen)
    areas = np.bincount(number, weights=surface.point_areas * chosen)
    return np.asarray(chosen & (number == areas.argmax()))


def grow(surface: Surface, chosen: np.ndarray, within: np.ndarray, distance_mm: float) -> np.ndarray:
    """Return `chosen` (N,) bool, extended along edges into `within` (N,) bool by at most `distance_mm`."""
    from scipy import sparse
    from scipy.sparse.csgraph import dijkstra

    if not chosen.any():
        return chosen
    allowed = chosen | within
    edges = surface.edges[allowed[surface.edges].all(axis=1)]
    lengths = np.linalg.norm(surface.points[edges[:, 0]] - surface.points[edges[:, 1]], axis=1)
    links = sparse.coo_matrix((lengths, tuple(edges.T)), shape=(len(chosen), len(chosen))).tocsr()
    away = dijkstra(links, directed=False, indices=np.flatnonzero(chosen), limit=distance_mm, min_only=True)
    return np.asarray(np.isfinite(away))
