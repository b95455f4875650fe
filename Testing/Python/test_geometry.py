"""Test grids, orientations, boxes and regions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.geometry import (
    Grid,
    Region,
    bounding_box,
    box_in_parent,
    box_in_part,
    canonical_orientation,
    enclosing_box,
    network_grid,
    pad_box,
    reorientation_between,
    whole_box,
)
from dcamt_testing.analytic_scans import CENTRE, centred_grid, points_of, rotation

OBLIQUE = centred_grid((24, 20, 16), (1.5, 1.2, 2.0), rotation(9, -12, 17))


def region_around(centre: np.ndarray, half: tuple[float, float, float]) -> Region:
    low, high = centre - half, centre + half
    return Region((low[0], low[1], low[2]), (high[0], high[1], high[2]))


# ---- orientation


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)), ids=str)
def test_canonical_orientation_agrees_with_nibabel(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    affine = OBLIQUE.affine[:, [*order, 3]] * [*flips, 1]
    grid = Grid((4, 5, 6), affine)
    voxels = np.arange(120).reshape(4, 5, 6)
    expected = nib.as_closest_canonical(nib.Nifti1Image(voxels.astype(np.int16), affine))
    orientation = canonical_orientation(grid)
    turned = orientation.apply_to_grid(grid)
    assert np.array_equal(orientation.apply(voxels), expected.get_fdata())
    assert turned.shape == expected.shape
    assert np.allclose(turned.affine, expected.affine)
    channels = np.stack([voxels, -voxels])
    assert np.array_equal(orientation.invert(orientation.apply(channels)), channels)


def test_reorientation_gives_one_grid_the_axes_of_the_other() -> None:
    voxels = np.random.default_rng(0).random((4, 5, 6))
    other = Grid((6, 4, 5), OBLIQUE.affine[:, [2, 0, 1, 3]] * [-1, 1, -1, 1])
    turn = reorientation_between(Grid((4, 5, 6), OBLIQUE.affine), other)
    assert turn is not None
    assert np.array_equal(turn.apply(voxels), voxels.transpose(2, 0, 1)[::-1, :, ::-1])
    assert np.allclose(turn.apply_to_grid(Grid((4, 5, 6), OBLIQUE.affine)).affine[:3, :3], other.affine[:3, :3])


def test_grids_rotated_against_each_other_have_no_reorientation() -> None:
    assert reorientation_between(OBLIQUE, centred_grid(OBLIQUE.shape, (1.5, 1.2, 2.0), rotation(40, 50, 30))) is None


@pytest.mark.parametrize(("shift_mm", "match"), [(0.0005, True), (0.05, False)])
def test_grids_match_if_their_voxels_coincide(shift_mm: float, match: bool) -> None:
    shifted = OBLIQUE.affine.copy()
    shifted[0, 3] += shift_mm
    assert OBLIQUE.matches(Grid(OBLIQUE.shape, shifted)) == match


# ---- boxes


@pytest.mark.parametrize(
    ("cells", "covered"),
    [(slice(0, 1), slice(0, 4)), (slice(1, 2), slice(3, 7)), (slice(2, 3), slice(6, 10)), (slice(0, 3), slice(0, 10))],
)
def test_source_box_contains_partly_covered_voxels_and_reaches_the_border(cells: slice, covered: slice) -> None:
    """Along each axis, the scan is 10 mm long, and the three cells of the network grid lie from 0.5 to 9.5 mm."""
    grid = network_grid(Grid((10, 10, 10), np.eye(4)), (3.0, 3.0, 3.0))
    assert grid.source_box((cells,) * 3) == (covered,) * 3


def test_bounding_box_is_the_smallest_box_around_the_mask() -> None:
    mask = np.zeros((5, 6, 7), dtype=bool)
    assert bounding_box(mask) is None
    mask[1, 5, 2] = mask[3, 4, 2] = True
    assert bounding_box(mask) == (slice(1, 4), slice(4, 6), slice(2, 3))


def test_enclosing_box_is_the_bounding_box_of_the_union_of_boxes() -> None:
    mask = np.zeros((9, 9, 9), bool)
    boxes = [(slice(1, 3), slice(4, 8), slice(5, 6)), (slice(2, 7), slice(0, 1), slice(5, 9))]
    for box in boxes:
        mask[box] = True
    assert enclosing_box(boxes) == bounding_box(mask)


def test_padded_box_is_clipped_to_the_grid() -> None:
    box = (slice(3, 5), slice(0, 4), slice(6, 9))
    assert pad_box(box, (2, 3, 4), whole_box((6, 6, 10))) == (slice(1, 6), slice(0, 6), slice(2, 10))


def test_box_in_part_and_box_in_parent_select_the_same_voxels() -> None:
    voxels = np.random.default_rng(0).random((12, 11, 10))
    part, inner = (slice(2, 9), slice(1, 8), slice(3, 10)), (slice(1, 4), slice(0, 7), slice(2, 3))
    assert np.array_equal(voxels[box_in_parent(inner, part)], voxels[part][inner])
    assert box_in_part(box_in_parent(inner, part), part) == inner


@pytest.mark.parametrize(
    "box",
    [
        (slice(3, 9), slice(0, 5), slice(7, 8)),
        (slice(-9, -3), slice(None), slice(7, 99)),
        (slice(None, -3), slice(5, None), slice(-99, 8)),
        (slice(9, 3), slice(0, 5), slice(7, 8)),
    ],
    ids=str,
)
def test_cropped_grid_is_the_grid_of_the_voxels_that_the_same_slices_select(box: tuple[slice, slice, slice]) -> None:
    points = points_of(OBLIQUE)[box]
    cropped = OBLIQUE.crop(box)
    assert cropped.shape == points.shape[:3]
    assert np.allclose(points_of(cropped), points)


def test_box_with_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="step"):
        OBLIQUE.crop((slice(0, 8, 2), slice(0, 5), slice(7, 8)))


@pytest.mark.parametrize("shape", [(-3, 2, 2), (3.9, 2, 2), ("3", 2, 2), (3, 2)], ids=str)
def test_grid_of_anything_but_three_numbers_of_voxels_is_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match="3 whole numbers"):
        Grid(shape, OBLIQUE.affine)


# ---- regions


def test_region_is_parsed_with_its_bounds_in_either_order() -> None:
    expected = Region((-10.0, 2.5, -7.0), (30.0, 4.0, 8.0))
    for ends in itertools.product(*[(pair, pair[::-1]) for pair in (("-10", "30"), ("2.5", "4"), ("-7", "8"))]):
        assert Region.parse(",".join(itertools.chain(*ends))) == expected
    assert Region.parse(" 30, -1e1 ,2.5,4, 8,-7") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1,2,3,4,5",
        "1,2,3,4,5,6,7",
        "a,2,3,4,5,6",
        "1,1,3,4,5,6",
        "nan,2,3,4,5,6",
        "0,inf,3,4,5,6",
        "0,1e-200,0,1e-200,0,1",
        "1;2;3",
    ],
)
def test_malformed_region_is_refused_with_a_message_of_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"is not a region.*millimetres") as caught:
        Region.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("half", [(8.0, 5.0, 9.0), (2.0, 11.0, 3.0), (60.0, 4.0, 60.0)], ids=str)
def test_mask_contains_the_voxels_whose_centre_is_inside_the_region(half: tuple[float, float, float]) -> None:
    centre = CENTRE + np.array([3.0, -2.0, 1.0])
    region = region_around(centre, half)
    expected = (np.abs(points_of(OBLIQUE) - centre) <= half).all(axis=-1)
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(region.mask(OBLIQUE), expected)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=str)
def test_box_contains_region_and_margin_and_little_more(order: tuple[int, int, int]) -> None:
    affine = OBLIQUE.affine[:, [*order, 3]] * [-1, 1, 1, 1]
    source = Grid(tuple(OBLIQUE.shape[axis] for axis in order), affine)  # type: ignore[arg-type]
    grid = network_grid(source, (1.0, 1.1, 0.9))
    on_grid = Grid(grid.shape, grid.affine)
    region = region_around(points_of(on_grid)[18, 10, 17], (4.0, 3.0, 5.0))
    tight = region.box(grid, margin=0)
    inside = np.argwhere(region.mask(on_grid))
    corners = np.array(list(itertools.product(*zip(region.low, region.high, strict=True))))
    voxels = (corners - grid.affine[:3, 3]) @ np.linalg.inv(grid.affine[:3, :3]).T
    for axis in range(3):
        assert tight[axis].start <= voxels[:, axis].min()
        assert voxels[:, axis].max() <= tight[axis].stop - 1
        assert 0 <= tight[axis].start <= inside[:, axis].min()
        assert inside[:, axis].max() < tight[axis].stop <= grid.shape[axis]
        # On an oblique grid the box is at most as long as the region's diagonal plus three voxels for rounding.
        assert tight[axis].stop - tight[axis].start < 2 * np.linalg.norm((4, 3, 5)) / min(grid.spacing) + 3
    wide = region.box(grid, margin=3)
    for axis in range(3):
        assert wide[axis].start == max(0, tight[axis].start - 3)
        assert wide[axis].stop == min(grid.shape[axis], tight[axis].stop + 3)


def test_box_of_a_huge_region_is_the_whole_grid() -> None:
    grid = network_grid(OBLIQUE, (1.0, 1.0, 1.0))
    for reach in (1e3, 1e30):  # 1e30 exceeds the range of integers
        box = region_around(CENTRE, (reach, reach, reach)).box(grid, margin=5)
        assert box == tuple(slice(0, n) for n in grid.shape)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [-1, 1])
def test_region_outside_the_scan_is_refused(axis: int, side: int) -> None:
    grid = network_grid(OBLIQUE, (1.0, 1.0, 1.0))
    for distance in (80.0, 1e25):
        centre = CENTRE.copy()
        centre[axis] += side * distance
        with pytest.raises(InputError, match="outside the scan"):
            region_around(centre, (5.0, 5.0, 5.0)).box(grid, margin=40)


def test_rotated_region_contains_the_voxels_inside_its_faces() -> None:
    axes = rotation(0, 0, 40)[:3, :3]
    half = np.array([9.0, 4.0, 6.0])
    corners = CENTRE + np.array(list(itertools.product((-1, 1), repeat=3))) * half @ axes.T
    to_unit = np.eye(4)
    to_unit[:3, :3] = np.linalg.inv(axes * half)
    to_unit[:3, 3] = -to_unit[:3, :3] @ CENTRE
    low, high = corners.min(axis=0), corners.max(axis=0)
    region = Region(tuple(low), tuple(high), tuple(map(tuple, to_unit.tolist())))
    inside = region.mask(OBLIQUE)
    along_axes = (points_of(OBLIQUE) - CENTRE) @ axes
    np.testing.assert_array_equal(inside, (np.abs(along_axes) <= half).all(axis=-1))
    assert 0 < inside.sum() < Region(tuple(low), tuple(high)).mask(OBLIQUE).sum()


@pytest.mark.parametrize("shape", [(20, 16, 12), (1, 16, 12), (1, 1, 1)])
def test_region_covers_a_grid_if_its_mask_contains_all_voxels(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = Grid(shape, OBLIQUE.affine)
    low, high = grid.corners().min(axis=0), grid.corners().max(axis=0)
    regions = [Region(tuple(low - mm), tuple(high + mm)) for mm in (0.1, -0.1)]
    whole = [bool(region.mask(grid).all()) for region in regions]
    sizes: list[int] = []
    mask = Region.mask

    def recorded(region: Region, corners: Grid) -> np.ndarray:
        sizes.append(math.prod(corners.shape))
        return mask(region, corners)

    monkeypatch.setattr(Region, "mask", recorded)
    assert [region.covers(grid) for region in regions] == whole == [True, False]
    # Only the 8 corner voxels are tested: testing all voxels of a large scan would take a second and a gigabyte.
    assert max(sizes) <= 8
