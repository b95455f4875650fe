"""Measure the error of the burden on phantoms; vary the wall's thickness, the scar and the voxels' size.

    python Testing/benchmarks/wall_resolution.py [--json FILE]

A phantom is a ball of blood with a radius of 20 mm, surrounded by a wall. The scar is a cap of the wall. The wall is
measured with the default settings (threshold IIR > 1.2).

Prints a table with a row for each size of the voxels. The head of a column shows the wall's thickness, and the scar's
intensity divided by the blood's. A cell contains the largest error of the burden in 24 scans, with its sign, in
percentage points. In these scans, the scar covers 9, 25 or 54% of the wall, the slices have four directions relative to
the scar, and the phantom has two positions. In a row such as "1.25 x 1.25 x 2.5 to 1.25", slices of 2.5 mm were
interpolated to slices of 1.25 mm by zero-filling in the Fourier domain, as many scanners do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from dcamt.geometry import Grid
from dcamt.volume import Labelmap, Volume
from dcamt.wall.analysis import analyse_wall
from dcamt_testing.analytic_scans import rotation
from dcamt_testing.wall_phantoms import Atrium, grid_about
from la_cases import print_table

WALLS_MM = (2.4, 6.0)
RATIOS = (1.3, 1.5, 2.0)
"""The scar's intensity divided by the blood's."""
VOXELS_MM = (
    *((1.25, 1.25), (1.25, 2.0), (1.25, 2.5), (1.25, 3.0), (1.25, 4.0), (1.25, 5.0), (1.25, 8.0)),
    *((1.75, 1.75), (2.0, 2.0), (2.5, 2.5)),
)
"""Spacing in the plane of a slice, and thickness of the slices."""
INTERPOLATED_MM = ((1.25, 2.5), (1.25, 4.0))
"""As `VOXELS_MM`, before the slices are interpolated to half their thickness."""
CAP_DEGREES = (35.0, 60.0, 95.0)
POSTERIOR, SUPERIOR = (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)
STRAIGHT = np.eye(3)
DIRECTIONS = (
    (STRAIGHT, POSTERIOR),
    (STRAIGHT, SUPERIOR),
    (rotation(20, -35, 50), POSTERIOR),
    (rotation(-50, 25, 10), POSTERIOR),
)
"""Pairs (axes, direction of the scar). The columns of the matrix `axes` are the directions of the grid's axes.

In the second pair, the scar's rim is parallel to the slices.
"""
EXTENT_MM = 60.0
"""Width of the scans. DCAMT samples intensities up to 6 mm (`PROFILE_TO_MM`) outside the ball, whose diameter is 40 mm.
So the scans must be wider than 52 mm.
"""


def positions(slice_mm: float) -> tuple[tuple[float, float, float], ...]:
    """Return two shifts of the scan in mm along R, A and S."""
    return ((0.3, 0.1, -0.2), (-0.3, 0.7, -0.2 + slice_mm / 2))


def interpolate_slices(volume: Volume) -> Volume:
    """Return the scan with twice as many slices, interpolated by zero-filling in the Fourier domain."""
    from scipy.signal import resample

    shape, affine = volume.grid.shape, volume.grid.affine.copy()
    affine[:3, 2] /= 2
    voxels = np.abs(resample(volume.voxels, 2 * shape[2], axis=3))  # a magnitude image
    return Volume(voxels.astype(np.float32), Grid((*shape[:2], 2 * shape[2]), affine))


def burden_errors(wall_mm: float, ratio: float, voxel_mm: tuple[float, float], interpolated: bool) -> Iterator[float]:
    """Yield the error of the burden, in percentage points, for each size of the scar, direction and position.

    Args:
        ratio: the scar's intensity divided by the blood's.
        voxel_mm: spacing in the plane of a slice, and thickness of the slices.
    """
    in_plane_mm, slice_mm = voxel_mm
    for degrees, (axes, centre), shift in product(CAP_DEGREES, DIRECTIONS, positions(slice_mm)):
        phantom = Atrium(shell_mm=wall_mm, patch_degrees=degrees, patch_axis=centre, patch_ratio=ratio)
        volume, labels = phantom.on(grid_about(EXTENT_MM, (in_plane_mm, in_plane_mm, slice_mm), axes, shift))
        if interpolated:
            volume = interpolate_slices(volume)
            labels = Labelmap(phantom.on(volume.grid)[1].voxels, volume.grid)
        true = 50 * (1 - np.cos(np.radians(degrees)))  # a cap's part of a ball's area, in %
        yield analyse_wall(volume, labels).burden.percent - true


def table() -> list[dict[str, str]]:
    scans = {f"{plane:g} x {plane:g} x {mm:g}": ((plane, mm), False) for plane, mm in VOXELS_MM}
    scans |= {f"{plane:g} x {plane:g} x {mm:g} to {mm / 2:g}": ((plane, mm), True) for plane, mm in INTERPOLATED_MM}
    return [
        {f"{'voxels, mm':<25}": f"{voxels:<25}"}
        | {
            f"{wall_mm:g} mm, {ratio:g}": f"{max(burden_errors(wall_mm, ratio, *scan), key=abs):+.1f}"
            for wall_mm, ratio in product(WALLS_MM, RATIOS)
        }
        for voxels, scan in scans.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = table()
    print("largest error of the burden, in percentage points, by thickness of the wall and ratio of scar to blood")
    print_table(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
