"""A region in the patient: read from text, found on the network's grid, cut out of the scan's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.geometry import Grid, Region
from dcamt.preprocessing import network_grid
from dcamt_testing.analytic_scans import CENTRE, centred_grid, points_of, rotation

OBLIQUE = centred_grid((24, 20, 16), (1.5, 1.2, 2.0), rotation(9, -12, 17))


def about(centre: np.ndarray, half: tuple[float, float, float]) -> Region:
    low, high = centre - half, centre + half
    return Region((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def test_either_end_of_each_axis_may_come_first() -> None:
    expected = Region((-10.0, 2.5, -7.0), (30.0, 4.0, 8.0))
    for ends in itertools.product(*[(pair, pair[::-1]) for pair in (("-10", "30"), ("2.5", "4"), ("-7", "8"))]):
        assert Region.parse(",".join(itertools.chain(*ends))) == expected
    assert Region.parse(" 30, -1e1 ,2.5,4, 8,-7") == expected


@pytest.mark.parametrize(
    "text", ["", "1,2,3,4,5", "1,2,3,4,5,6,7", "a,2,3,4,5,6", "1,1,3,4,5,6", "nan,2,3,4,5,6", "0,inf,3,4,5,6", "1;2;3"]
)
def test_what_is_no_box_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"is not a region.*millimetres") as caught:
        Region.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("half", [(8.0, 5.0, 9.0), (2.0, 11.0, 3.0), (60.0, 4.0, 60.0)], ids=str)
def test_the_mask_holds_the_voxels_whose_centre_lies_inside(half: tuple[float, float, float]) -> None:
    centre = CENTRE + np.array([3.0, -2.0, 1.0])
    region = about(centre, half)
    expected = (np.abs(points_of(OBLIQUE) - centre) <= half).all(axis=-1)
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(region.mask(OBLIQUE), expected)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=str)
def test_the_box_holds_the_region_and_its_margin_and_little_more(order: tuple[int, int, int]) -> None:
    affine = OBLIQUE.affine[:, [*order, 3]] * [-1, 1, 1, 1]  # stored otherwise, one axis backwards
    source = Grid(tuple(OBLIQUE.shape[axis] for axis in order), affine)  # type: ignore[arg-type]
    grid = network_grid(source, (1.0, 1.1, 0.9))
    on_grid = Grid(grid.shape, grid.affine)
    region = about(points_of(on_grid)[18, 10, 17], (4.0, 3.0, 5.0))
    tight = region.box(grid, margin=0)
    inside = np.argwhere(region.mask(on_grid))
    corners = np.array(list(itertools.product(*zip(region.low, region.high, strict=True))))
    voxels = (corners - grid.affine[:3, 3]) @ np.linalg.inv(grid.affine[:3, :3]).T
    for axis in range(3):  # a place between two voxels takes its value from both
        assert tight[axis].start <= voxels[:, axis].min()
        assert voxels[:, axis].max() <= tight[axis].stop - 1
    for axis in range(3):
        assert 0 <= tight[axis].start <= inside[:, axis].min()
        assert inside[:, axis].max() < tight[axis].stop <= grid.shape[axis]
        # A box turned against the grid needs a larger one, by less than its diagonal's share.
        assert tight[axis].stop - tight[axis].start < 2 * np.linalg.norm((4, 3, 5)) / min(grid.spacing) + 3
    wide = region.box(grid, margin=3)
    for axis in range(3):
        assert wide[axis].start == max(0, tight[axis].start - 3)
        assert wide[axis].stop == min(grid.shape[axis], tight[axis].stop + 3)


def test_a_region_beyond_the_scan_is_cut_to_it() -> None:
    grid = network_grid(OBLIQUE, (1.0, 1.0, 1.0))
    for reach in (1e3, 1e30):  # the latter is more than an integer holds
        box = about(CENTRE, (reach, reach, reach)).box(grid, margin=5)
        assert box == tuple(slice(0, n) for n in grid.shape)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [-1, 1])
def test_a_region_outside_of_the_scan_is_refused(axis: int, side: int) -> None:
    grid = network_grid(OBLIQUE, (1.0, 1.0, 1.0))
    for distance in (80.0, 1e25):
        centre = CENTRE.copy()
        centre[axis] += side * distance
        with pytest.raises(InputError, match="outside the scan"):
            about(centre, (5.0, 5.0, 5.0)).box(grid, margin=40)
