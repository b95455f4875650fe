"""Measure a segment on any grid: volume, surface area, diameters and sphericity.

No mesh is built. The volume is computed from the number of voxels, the area from the number of times that lines through
the grid cross the segment's surface, and the diameters from the mid-points of voxel faces.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import floor, nan, pi
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import bounding_box
from ..io.formats import scan_name
from ..io.tables import csv_cell, write_table
from ..volume import Labelmap, SegmentInfo

DISTANCE_BLOCK = 512
"""Points per block in `_largest_distance`."""


@dataclass(frozen=True)
class Measurements:
    """Measurements of one segment of a scan.

    For an empty segment, volume, area and diameters are 0, and sphericity is NaN.

    Attributes:
        volume_ml: number of voxels times a voxel's volume (|det| of the affine).
        surface_cm2: see `surface_area`; at least the area of a ball of equal volume.
        long_diameter_mm: largest distance between two mid-points of voxel faces (maximal Feret diameter).
        anteroposterior_diameter_mm, transverse_diameter_mm: extent along the patient's A-P and R-L axis, whatever the
            scan's orientation.
        sphericity: area of a ball of equal volume divided by the segment's area, pi^(1/3) (6 V)^(2/3) / A (H. Wadell,
            J. Geol. 43, 250, 1935): 1 for a ball, less for all other shapes.
        expected_overlap, expected_overlap_low, expected_overlap_high: expected Dice (0 to 1) of the scan's segmentation
            with an expert's outline, and its 80% interval; NaN if the model has no calibration for the quality, if a
            region cuts the segmentation (`geometry.CUT_BY_REGION`), or if no model made the segment.
    """

    scan: str
    segment: str
    volume_ml: float
    surface_cm2: float
    long_diameter_mm: float
    anteroposterior_diameter_mm: float
    transverse_diameter_mm: float
    sphericity: float
    expected_overlap: float = nan
    expected_overlap_low: float = nan
    expected_overlap_high: float = nan


TABLE_COLUMNS = tuple(item.name for item in fields(Measurements))
MEASUREMENT_COLUMNS = tuple(name for name in TABLE_COLUMNS if not name.startswith("expected_overlap"))


def measure(labelmap: Labelmap, segments: Sequence[SegmentInfo], scan: str | None = None) -> list[Measurements]:
    """Return the measurements of each of `segments` in `labelmap`, in the order of `segments`.

    Args:
        scan: name for the rows; by default the name of the labelmap's file without its ending, or "" without a file.
    """
    if scan is None:
        scan = scan_name(labelmap.path) if labelmap.path is not None else ""
    axes = labelmap.grid.affine[:3, :3]
    return [measure_mask(labelmap.voxels == info.label, axes, scan, info.name) for info in segments]


def write_measurements_csv(rows: Iterable[Measurements], path: str | Path) -> None:
    """Write a line for each segment under the header `TABLE_COLUMNS`; undefined values (NaN) become blank.

    Raises OutputError if the file cannot be written; an earlier file of that name then stays unchanged.
    """
    write_table(path, TABLE_COLUMNS, map(_cells, rows))


def read_measurements_csv(path: str | Path) -> list[Measurements]:
    """Return the rows of a table that `write_measurements_csv` wrote; an empty list if the file does not exist.

    A table of an earlier version may lack some measurements; these are NaN.

    Raises:
        InputError: the file is another kind of table, or cannot be read.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = tuple(reader.fieldnames or ())
            known = tuple(column for column in TABLE_COLUMNS if column in columns)
            if columns != known or columns[:3] != TABLE_COLUMNS[:3]:
                raise ValueError("other columns")
            return [_from_cells(row) for row in reader]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, csv.Error) as error:
        remedy = "Give another name, or replace the file with --overwrite."
        raise InputError(f"is not a table of measurements ({error})", path=path, remedy=remedy) from error


def without_equal_rows(rows: Iterable[Measurements], others: Iterable[Measurements]) -> list[Measurements]:
    """Return the rows that equal no row of `others`; expected overlaps and blank cells of `rows` are not compared."""
    columns = len(MEASUREMENT_COLUMNS)
    known = {_cells(other)[:columns] for other in others}

    def is_known(row: Measurements) -> bool:
        cells = _cells(row)[:columns]
        if cells in known or "" not in cells:
            return cells in known
        return any(all(cell in ("", stated) for cell, stated in zip(cells, other, strict=True)) for other in known)

    return [row for row in rows if not is_known(row)]


def _cells(row: Measurements) -> tuple[str, ...]:
    return tuple(csv_cell(getattr(row, column)) for column in TABLE_COLUMNS)


def _from_cells(row: Mapping[str, Any]) -> Measurements:
    if None in row.values():
        raise ValueError("a line has too few cells")
    numbers = [float(cell) if (cell := row.get(column)) else nan for column in TABLE_COLUMNS[2:]]
    return Measurements(row["scan"], row["segment"], *numbers)


def surface_area(mask: np.ndarray, axes: np.ndarray) -> float:
    """Return the surface area in mm2 of the True voxels of `mask` (I, J, K).

    The columns of `axes` (3, 3) are the voxel steps in mm, which may be oblique or sheared. The surface is closed:
    everything outside `mask` counts as background.

    Take parallel lines in a direction v, one line for each mm2 of a plane perpendicular to v. Let c(v) be the number
    of their crossings with the surface. By the Cauchy-Crofton formula, the surface area is twice the mean of c(v) over
    all directions v. Here the lines run along vectors between voxels. If only one of two neighbours on a line is
    inside, the pair is a crossing. Source: G. Lehmann and D. Legland, "Efficient N-dimensional surface estimation using
    Crofton formula and run-length encoding", Insight Journal 2012. In contrast to that paper, directions and weights
    are fitted to the grid (see `_crofton_directions`), since the paper's 13 fixed directions give wrong areas if slices
    are thicker than pixels are wide.

    The error is below 2% for smooth shapes of more than about 10 voxels in diameter. Sharp edges and details smaller
    than two voxels are smoothed: the area of a box is about 5% too small, or up to 10% if it is only 10 voxels thick.
    The area of a segment of a few voxels is underestimated by more.
    """
    box = bounding_box(mask)
    if box is None:
        return 0.0
    inside = mask[box]
    steps, weights = _crofton_directions(axes)
    mm2_per_line = abs(np.linalg.det(axes)) / np.linalg.norm(steps @ axes.T, axis=1)
    voxels = np.count_nonzero(inside)
    total = 0.0
    for step, weight, mm2 in zip(steps, weights, mm2_per_line, strict=True):
        here = tuple(slice(max(0, -d), max(0, size - max(0, d))) for d, size in zip(step, inside.shape, strict=True))
        ahead = tuple(slice(max(0, d), max(0, size - max(0, -d))) for d, size in zip(step, inside.shape, strict=True))
        exits = voxels - np.count_nonzero(inside[here] & inside[ahead])
        # Each line enters the segment as often as it leaves it.
        crossings = 2.0 * exits
        total += weight * crossings * mm2
    return float(2.0 * total)


def _crofton_directions(axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors (N, 3), in voxels, and weights (N,) for `surface_area`.

    Vectors are chosen from short to long. The directions of two chosen vectors differ by more than 15 degrees.
    """
    spacing = np.sort(np.linalg.norm(axes, axis=0))
    # No vector is longer than `longest_mm`. If `longest_mm` were larger, vectors could step over thin parts of a
    # segment. If `longest_mm` were smaller, too few vectors would be left to cover all directions.
    longest_mm = max(2.5 * spacing[1], 1.6 * spacing[2])
    reach = [floor(longest_mm * norm) for norm in np.linalg.norm(np.linalg.inv(axes), axis=1)]
    steps = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in reach], indexing="ij"), axis=-1).reshape(-1, 3)
    # Keep one of each pair of opposite vectors.
    steps = steps[len(steps) // 2 + 1 :]
    # Keep no multiples of shorter vectors.
    steps = steps[np.gcd.reduce(steps, axis=1) == 1]
    lengths = np.linalg.norm(steps @ axes.T, axis=1)
    steps, lengths = steps[lengths <= longest_mm], lengths[lengths <= longest_mm]
    order = np.argsort(lengths.round(6), kind="stable")
    steps, lengths = steps[order], lengths[order]
    units = steps @ axes.T / lengths[:, None]
    chosen: list[int] = []
    for index, unit in enumerate(units):
        if not chosen or np.abs(units[chosen] @ unit).max() < np.cos(np.radians(15.0)):
            chosen.append(index)
    return steps[chosen], _fit_weights(units[chosen], axes)


def _fit_weights(units: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return weights w (N,) >= 0 of unit vectors u (N, 3), fitted by least squares.

    Let n be the unit normal of a flat piece of surface. Lines in a direction v, 1 mm apart in a square grid, cross each
    mm2 of the piece |n . v| times on average. The mean of |n . v| over all directions v is 1/2. For every n,
    sum(w * |n . u|) should also be 1/2.
    """
    from scipy.optimize import nnls

    face_normals = np.linalg.inv(axes)
    face_normals /= np.linalg.norm(face_normals, axis=1, keepdims=True)
    face_importance = 6.0  # Many segments have flat ends, which consist of voxel faces.
    importance = np.concatenate([np.ones(1000), np.full(3, face_importance)])
    normals = np.concatenate([_hemisphere(1000), face_normals])
    weights: np.ndarray = nnls(importance[:, None] * np.abs(normals @ units.T), 0.5 * importance)[0]
    return weights


def _hemisphere(count: int) -> np.ndarray:
    """Return unit vectors (count, 3) spread evenly over half the sphere, along a Fibonacci spiral."""
    rank = np.arange(count) + 0.5
    z = 1.0 - rank / count
    angle = pi * (1.0 + 5.0**0.5) * rank
    radius = np.sqrt(1.0 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def _hull_vertices(mask: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return the corners (N, 3) in mm of the convex hull of all face mid-points of the True voxels.

    A marching-cubes surface without smoothing has the same hull. With voxel centres, the hull would be half a
    voxel too small at each side; with voxel corners, it would be too large on oblique grids.
    """
    from scipy.spatial import ConvexHull

    # Only the first and last True voxel of each row along the first axis can have corners of the hull.
    any_row = mask.any(axis=0)
    j, k = np.nonzero(any_row)
    first = mask.argmax(axis=0)[j, k]
    last = mask.shape[0] - 1 - mask[::-1].argmax(axis=0)[j, k]
    ends = np.concatenate([np.stack([i, j, k], axis=1) for i in (first, last)])
    halves = np.concatenate([np.eye(3), -np.eye(3)]) / 2.0
    points = (ends[:, None, :] + halves[None]).reshape(-1, 3) @ axes.T
    corners: np.ndarray = points[ConvexHull(points).vertices]
    return corners


def _largest_distance(points: np.ndarray) -> float:
    from scipy.spatial.distance import cdist

    starts = range(0, len(points), DISTANCE_BLOCK)
    return max(float(cdist(points[start : start + DISTANCE_BLOCK], points[start:]).max()) for start in starts)


def measure_mask(mask: np.ndarray, axes: np.ndarray, scan: str, segment: str) -> Measurements:
    """Return the measurements of the True voxels of `mask` (I, J, K); the columns of `axes` are voxel steps in mm."""
    box = bounding_box(mask)
    if box is None:
        return Measurements(scan, segment, 0.0, 0.0, 0.0, 0.0, 0.0, nan)
    mask = mask[box]
    volume_mm3 = float(np.count_nonzero(mask) * abs(np.linalg.det(axes)))
    # No shape has a smaller area than a ball of equal volume, but the area computed for a segment of a few voxels can
    # be smaller than the ball's.
    ball_mm2 = pi ** (1 / 3) * (6.0 * volume_mm3) ** (2 / 3)
    surface_mm2 = max(surface_area(mask, axes), ball_mm2)
    hull = _hull_vertices(mask, axes)
    transverse, anteroposterior, _ = np.ptp(hull, axis=0)
    return Measurements(
        scan=scan,
        segment=segment,
        volume_ml=volume_mm3 / 1000.0,
        surface_cm2=surface_mm2 / 100.0,
        long_diameter_mm=_largest_distance(hull),
        anteroposterior_diameter_mm=float(anteroposterior),
        transverse_diameter_mm=float(transverse),
        sphericity=ball_mm2 / surface_mm2,
    )
