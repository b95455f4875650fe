"""Test surfaces of segments, samples along the normals of a surface, and the erosion of masks."""

from __future__ import annotations

import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.geometry import SAME_PLACE_MM, Grid
from dcamt.wall.closed_surface import closed_surface
from dcamt.wall.sampling import erode, inside_scan, interpolate, offsets, profiles, reaches_border
from dcamt.wall.surface import Surface, extract_surface
from dcamt_testing.analytic_scans import CENTRE, points_of, rotation
from dcamt_testing.wall_phantoms import Atrium, grid_about

FINE, THICK = (0.625, 0.625, 0.625), (1.25, 1.25, 2.5)
TURN = rotation(20, -35, 50)
RADII = [(20.0, 20.0, 20.0), (28.0, 20.0, 16.0)]


@pytest.mark.parametrize("radii", RADII)
@pytest.mark.parametrize("spacing", [FINE, THICK])
@pytest.mark.parametrize("axes", [np.eye(3), TURN], ids=["straight", "oblique"])
def test_area_and_volume_of_ellipsoids_follow_formulas(
    radii: tuple[float, float, float], spacing: tuple[float, ...], axes: np.ndarray
) -> None:
    atrium = Atrium(radii)
    grid = grid_about(2 * max(radii) + 8, spacing, axes, shift=(0.2, -0.1, 0.3))
    mask = atrium.mask(points_of(grid))
    surface = extract_surface(mask, grid).surface
    assert surface.area_mm2 == pytest.approx(atrium.area_mm2(), rel=0.02)
    assert surface.volume_mm3 == pytest.approx(np.count_nonzero(mask) * grid.voxel_volume_mm3, rel=1e-6)
    assert surface.volume_mm3 == pytest.approx(4 / 3 * np.pi * np.prod(radii), rel=0.01)
    edges = surface.points[surface.edges]
    assert np.linalg.norm(edges[:, 0] - edges[:, 1], axis=1).mean() == pytest.approx(1.0, abs=0.1)


def euler_characteristic(surface: Surface) -> int:
    """Return the Euler characteristic; for a closed connected surface, 2 means that it has no handles."""
    return len(surface.points) - len(surface.edges) + len(surface.triangles)


def test_surface_is_closed_and_faces_outwards() -> None:
    grid = grid_about(48, THICK, TURN)
    surface = extract_surface(Atrium().mask(points_of(grid)), grid).surface
    directed = np.concatenate([surface.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    assert len(np.unique(directed, axis=0)) == len(directed)
    assert set(map(tuple, directed)) == set(map(tuple, directed[:, ::-1]))  # each edge occurs once in each direction
    assert euler_characteristic(surface) == 2
    outward = surface.points - CENTRE
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    cosine = (surface.normals * outward).sum(axis=1)
    assert cosine.min() > 0.8
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).mean() < 5
    assert surface.point_areas.sum() == pytest.approx(surface.area_mm2)


def test_point_areas_and_volume_of_a_tetrahedron() -> None:
    points = np.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 12]])
    surface = Surface(points, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
    floor, front, side = 3 * 4 / 2, 3 * 12 / 2, 4 * 12 / 2
    slope = np.sqrt(floor**2 + front**2 + side**2)  # de Gua's theorem
    around = [floor + front + side, floor + front + slope, floor + side + slope, front + side + slope]
    np.testing.assert_allclose(surface.point_areas, np.array(around) / 3)
    assert surface.volume_mm3 == pytest.approx(3 * 4 * 12 / 6)


def test_surface_is_closed_when_the_segment_touches_the_border() -> None:
    grid = grid_about(30, (1.0, 1.0, 1.0))  # the grid cuts off the ball (diameter 40 mm) on all six sides
    mask = Atrium().mask(points_of(grid))
    assert mask[0].any()
    assert mask[:, :, -1].any()
    surface = extract_surface(mask, grid).surface
    assert surface.volume_mm3 == pytest.approx(np.count_nonzero(mask), rel=0.01)
    assert euler_characteristic(surface) == 2


def test_area_and_volume_do_not_depend_on_axis_order_or_direction() -> None:
    grid = grid_about(48, THICK, TURN)
    mask = Atrium((22.0, 18.0, 16.0)).mask(points_of(grid))
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (grid.shape[0] - 1)  # the first axis is reversed
    affine[:3, 0] *= -1
    order = [2, 0, 1]
    other = Grid(tuple(mask.shape[axis] for axis in order), affine[:, [*order, 3]])
    first = extract_surface(mask, grid).surface
    second = extract_surface(mask[::-1].transpose(order), other).surface
    assert second.area_mm2 == pytest.approx(first.area_mm2, rel=1e-3)
    assert second.volume_mm3 == pytest.approx(first.volume_mm3, rel=1e-6)


def test_separate_components_are_left_out_and_cavities_are_filled() -> None:
    grid = grid_about(60, (1.0, 1.0, 1.0))
    distance = np.linalg.norm(points_of(grid) - CENTRE, axis=-1)
    ball = distance < 16
    speck = np.linalg.norm(points_of(grid) - CENTRE - (24, 0, 0), axis=-1) < 4
    hollow = distance < 4
    extraction = extract_surface(ball & ~hollow | speck, grid)
    small_ml = 4 / 3 * np.pi * 4**3 / 1000
    assert extraction.separate_ml == pytest.approx(small_ml, rel=0.15)
    assert extraction.hollow_ml == pytest.approx(small_ml, rel=0.15)
    assert extraction.surface.volume_mm3 == pytest.approx(4 / 3 * np.pi * 16**3, rel=0.02)
    assert euler_characteristic(extraction.surface) == 2


def test_separate_ml_of_a_single_component_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcamt.wall.surface._count_outside", lambda *_: pytest.fail("unnecessary count"))
    grid = grid_about(48, FINE)
    assert extract_surface(Atrium().mask(points_of(grid)), grid).separate_ml == 0


@pytest.mark.parametrize("axes", [np.eye(3), TURN @ np.diag(THICK)], ids=["isotropic", "oblique, thick"])
def test_specks_and_holes_hardly_change_the_surface(axes: np.ndarray) -> None:
    grid = Grid((64, 64, 64), np.block([[axes, np.zeros((3, 1))], [np.zeros((1, 3)), 1.0]]))
    distance = np.linalg.norm(points_of(grid) - grid.position((31.5, 31.5, 31.5)), axis=-1)
    ball = distance < 18
    every_third = np.zeros(grid.shape, bool)
    every_third[::3, ::3, ::3] = True
    specks, holes = (distance > 26) & (distance < 40) & every_third, (distance < 10) & every_third
    clean = extract_surface(ball, grid)
    noisy = extract_surface((ball & ~holes) | specks, grid)
    voxel_ml = grid.voxel_volume_mm3 / 1000
    assert np.count_nonzero(specks) * voxel_ml > 1
    assert noisy.separate_ml == pytest.approx(np.count_nonzero(specks) * voxel_ml)
    assert noisy.hollow_ml == pytest.approx(np.count_nonzero(holes) * voxel_ml)
    assert noisy.surface.volume_mm3 == pytest.approx(clean.surface.volume_mm3, rel=1e-6)
    assert noisy.surface.area_mm2 == pytest.approx(clean.surface.area_mm2, rel=0.01)


@pytest.mark.parametrize(
    ("size", "spacing"),
    [
        ((2, 2, 2), (1.0, 1.0, 1.0)),
        ((5, 5, 1), (0.5, 0.5, 0.5)),
        ((4, 2, 1), (3.0, 2.0, 0.5)),
        ((1, 1, 6), (0.625, 0.625, 0.625)),
    ],
    ids=str,
)
def test_surface_of_a_tiny_segment_encloses_the_volume_of_its_voxels(
    size: tuple[int, int, int], spacing: tuple[float, ...]
) -> None:
    grid = Grid((16, 16, 16), np.diag([*spacing, 1.0]))
    mask = np.zeros(grid.shape, bool)
    mask[tuple(slice(6, 6 + n) for n in size)] = True
    extraction = extract_surface(mask, grid)
    assert extraction.separate_ml == extraction.hollow_ml == 0
    volume_mm3 = np.count_nonzero(mask) * grid.voxel_volume_mm3
    assert extraction.surface.volume_mm3 == pytest.approx(volume_mm3, rel=1e-6)


def test_empty_segment_is_refused() -> None:
    grid = grid_about(20, (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match=r"^x\.nrrd: is empty\. Choose"):
        extract_surface(np.zeros(grid.shape, bool), grid, "x.nrrd")


@pytest.mark.parametrize("axes", [np.eye(3), TURN, TURN @ [[1, 0.3, 0], [0, 1, 0.2], [0, 0, 1]]])
def test_erosion_equals_brute_force(axes: np.ndarray) -> None:
    from scipy.spatial import cKDTree

    grid = grid_about(24, (1.0, 1.3, 2.1), axes)
    points = points_of(grid)
    mask = np.linalg.norm(points - CENTRE, axis=-1) < 9
    # A slot in the middle slice, so that the mask is not convex.
    mask[:, :, grid.shape[2] // 2] &= points[:, :, grid.shape[2] // 2, 0] > CENTRE[0] - 4
    away_mm, _ = cKDTree(points[~mask]).query(points[mask])
    depth_mm = 3.05
    assert not np.isclose(away_mm, depth_mm - SAME_PLACE_MM).any()
    expected = np.zeros_like(mask)
    expected[mask] = away_mm >= depth_mm - SAME_PLACE_MM
    assert expected.any()
    np.testing.assert_array_equal(erode(mask, grid, depth_mm), expected)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 1.5, 3.0), (0.6, 0.6, 0.75)])
@pytest.mark.parametrize("factor", [1 - 1e-7, 1.0, 1 + 1e-7])
def test_rounded_spacing_changes_neither_the_eroded_mask_nor_the_number_of_samples(
    spacing: tuple[float, float, float], factor: float
) -> None:
    """3 mm is a whole number of voxels, so without a tolerance, rounding would change the result."""
    from scipy.ndimage import distance_transform_edt

    grid = grid_about(24, spacing)
    mask = np.linalg.norm(points_of(grid) - CENTRE, axis=-1) < 10
    rounded = Grid(grid.shape, grid.affine @ np.diag([factor] * 3 + [1]))
    expected = distance_transform_edt(mask, spacing) >= 3.0 - SAME_PLACE_MM
    assert expected.any()
    np.testing.assert_array_equal(erode(mask, rounded, 3.0), expected)
    assert len(offsets(-1.0, 3.0, rounded)) == len(offsets(-1.0, 3.0, grid))


def test_erosion_treats_voxels_beyond_the_scan_as_outside() -> None:
    grid = grid_about(12, (1.0, 1.0, 1.0))
    eroded = erode(np.ones(grid.shape, bool), grid, 3.0)
    expected = np.zeros(grid.shape, bool)
    expected[2:-2, 2:-2, 2:-2] = True  # the third voxel is 3 mm from the first voxel beyond the border
    np.testing.assert_array_equal(eroded, expected)


def test_samples_are_interpolated_linearly_along_the_normals() -> None:
    grid = grid_about(60, (1.0, 1.3, 2.1), TURN @ [[1, 0.3, 0], [0, 1, 0.2], [0, 0, 1]])
    slope = np.array([0.7, -1.1, 0.4])
    ramp = points_of(grid) @ slope + 300  # exact for linear interpolation, but not for nearest neighbour
    surface = extract_surface(Atrium((15.0, 14.0, 13.0)).mask(points_of(grid)), grid).surface
    distances = offsets(-1.0, 3.0, grid)
    assert distances[[0, -1]] == pytest.approx([-1, 3])
    assert np.diff(distances).max() <= grid.spacing.min() / 2 + 1e-9
    expected = (surface.points[:, None] + distances[None, :, None] * surface.normals[:, None]) @ slope + 300
    np.testing.assert_allclose(profiles(ramp, grid, surface, distances), expected, atol=1e-3)
    np.testing.assert_allclose(interpolate(ramp, grid, surface.points), surface.points @ slope + 300, atol=1e-3)
    halved = ramp.astype(np.float16)
    np.testing.assert_allclose(profiles(halved, grid, surface, distances), expected, rtol=1e-3)
    np.testing.assert_allclose(interpolate(halved, grid, surface.points), surface.points @ slope + 300, rtol=1e-3)
    # Samples are at most half the smallest voxel spacing apart, so that they do not miss a structure of one voxel. The
    # smallest spacing is 1 mm, so the 7 samples from 0 to 3 mm are 0.5 mm apart.
    assert len(offsets(0.0, 3.0, grid)) == 7


def test_reaches_border_finds_normals_that_leave_the_scan() -> None:
    surface = extract_surface(Atrium().mask(points_of(grid_about(48, FINE))), grid_about(48, FINE)).surface
    lower = grid_about(48, FINE, shift=(0, 0, -3))  # from 7 mm below the sphere to 1 mm above the sphere
    ends = surface.points + 3.0 * surface.normals
    found = reaches_border(lower, surface, np.array([0.0, 3.0]))
    np.testing.assert_array_equal(found, ~inside_scan(lower, ends))
    assert 0 < np.count_nonzero(found) < len(found) / 4
    assert (surface.points[found, 2] > CENTRE[2]).all()
    assert not reaches_border(lower, surface, np.array([0.0, 0.5])).any()
    upper = grid_about(48, FINE, shift=(0, 0, 42))  # begins 2 mm below the top of the sphere
    starts = surface.points - 3.0 * surface.normals
    found = reaches_border(upper, surface, np.array([-3.0, 3.0]))
    np.testing.assert_array_equal(found, ~(inside_scan(upper, starts) & inside_scan(upper, ends)))
    assert (found & inside_scan(upper, ends)).any()


def test_fraction_of_volume_lost_by_smoothing_is_inversely_proportional_to_the_squared_radius() -> None:
    """Smoothing moves points inwards by a distance proportional to 1 / radius.

    The lost volume is about the area times this distance. The ball's area is 3 / radius times its volume, so the lost
    fraction of the volume is proportional to 1 / radius².
    """
    losses = []
    for radius in (12, 24):
        shape = (2 * radius + 5,) * 3
        centre = radius + 2.0
        ball = ((np.indices(shape) - centre) ** 2).sum(axis=0) <= radius**2
        grid = Grid(shape, np.diag([-0.7, 1.2, 2.5, 1.0]))
        points, triangles = closed_surface(ball, grid)
        a, b, c = (points[triangles[:, corner]] - points.mean(axis=0) for corner in range(3))
        # The divergence theorem; triangles are anticlockwise as seen from outside.
        volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
        losses.append(1 - volume / (ball.sum() * 0.7 * 1.2 * 2.5))
        known = 4 / 3 * np.pi * radius**3 * 0.7 * 1.2 * 2.5
        # Smoothing removes a fraction of about 4.15 / radius² of the volume.
        # Rounding the ball to voxels removes a fraction of at most 1.7 / radius².
        assert volume == pytest.approx(known, rel=5.85 / radius**2)
    assert losses[1] == pytest.approx(0.0072, abs=0.0005)
    assert losses[0] / losses[1] == pytest.approx(4, rel=0.05)
