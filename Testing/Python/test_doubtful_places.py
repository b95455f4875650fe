"""Test doubtful places in synthetic maps of doubt, also on rotated grids."""

from __future__ import annotations

import numpy as np
import pytest
from dcamt.geometry import Grid
from dcamt.metrics.doubtful_places import SMALLEST_ML, doubt_levels, doubtful_places
from dcamt_testing.analytic_scans import CENTRE, centred_grid, points_of, rotation

TURNED = centred_grid((60, 56, 40), (1.0, 1.0, 1.5), rotation(20, -10, 30) @ np.diag([-1, 1, -1]))


def doubt_of_balls(grid: Grid, *shapes: tuple[tuple[float, float, float], float, float]) -> np.ndarray:
    """Return a map of doubt with balls, each given by centre (mm from `CENTRE`), radius (mm) and doubt."""
    values = np.zeros(grid.shape)
    for offset, radius, height in shapes:
        values[np.linalg.norm(points_of(grid) - CENTRE - offset, axis=-1) <= radius] = height
    return values


def test_position_volume_and_severity_of_a_doubtful_place() -> None:
    place = doubtful_places(doubt_of_balls(TURNED, ((5, -4, 3), 9, 0.8)), TURNED)[0]
    volume_ml = 4 / 3 * np.pi * 9**3 / 1000
    # The voxel nearest to the ball's centre is 0.79 mm away.
    np.testing.assert_allclose(place.position, np.add(CENTRE, (5, -4, 3)), atol=0.9)
    assert place.volume_ml == pytest.approx(volume_ml, rel=0.02)
    assert place.severity == pytest.approx(0.8 * volume_ml, rel=0.02)
    np.testing.assert_allclose(TURNED.affine @ [*place.index, 1], [*place.position, 1])


def test_places_are_sorted_by_severity_not_by_volume() -> None:
    places = doubtful_places(
        doubt_of_balls(TURNED, ((-14, 0, 0), 8, 0.5), ((14, 0, 0), 7, 1.0), ((0, 18, 0), 3, 1.0)), TURNED
    )
    offsets = [place.position[0] - CENTRE[0] for place in places]
    np.testing.assert_allclose(offsets, [14, -14, 0], atol=1.1)  # half a voxel's diagonal is 1.03 mm
    assert places[1].volume_ml > places[0].volume_ml
    assert places[0].severity > places[1].severity > places[2].severity


def test_place_of_a_shell_lies_on_the_shell_not_in_its_centre() -> None:
    values = doubt_of_balls(TURNED, ((0, 0, 0), 16, 1.0)) - doubt_of_balls(TURNED, ((0, 0, 0), 13, 1.0))
    (place,) = doubtful_places(values, TURNED)
    assert values[place.index] == 1
    assert 13 < np.linalg.norm(np.array(place.position) - CENTRE) <= 16


def test_place_of_a_dumbbell_lies_in_its_thicker_end() -> None:
    values = doubt_of_balls(TURNED, ((-14, 0, 0), 4, 1.0), ((12, 0, 0), 8, 1.0))
    x, y, z = np.moveaxis(points_of(TURNED) - CENTRE, -1, 0)
    values[(abs(x) < 14) & (np.hypot(y, z) < 2)] = 1  # the bar connects the balls to one component
    (place,) = doubtful_places(values, TURNED)
    np.testing.assert_allclose(place.position, np.add(CENTRE, (12, 0, 0)), atol=2)


def test_places_do_not_depend_on_the_orientation_of_the_grid() -> None:
    shapes = (((-12, 6, 2), 5.0, 0.9), ((10, -6, -4), 4.0, 0.9))
    straight = centred_grid((60, 60, 60), (1.0, 1.0, 1.0))
    turned = Grid((60, 60, 60), straight.affine @ [[0, 0, -1, 59], [1, 0, 0, 0], [0, -1, 0, 59], [0, 0, 0, 1]])
    expected, found = (doubtful_places(doubt_of_balls(grid, *shapes), grid) for grid in (straight, turned))
    assert len(expected) == 2
    for first, second in zip(expected, found, strict=True):
        np.testing.assert_allclose(first.position, second.position, atol=1.01)
        assert first.volume_ml == pytest.approx(second.volume_ml)


def test_small_or_weak_doubt_is_no_doubtful_place() -> None:
    assert doubtful_places(np.zeros(TURNED.shape), TURNED) == []
    assert doubtful_places(doubt_of_balls(TURNED, ((0, 0, 0), 10, 0.49)), TURNED) == []
    few = np.zeros(TURNED.shape)
    enough = int(np.ceil(SMALLEST_ML * 1000 / TURNED.voxel_volume_mm3))
    few[20, 20, : enough - 1] = 1
    assert doubtful_places(few, TURNED) == []
    few[20, 20, enough - 1] = 1
    assert len(doubtful_places(few, TURNED)) == 1
    coarse = Grid((10, 10, 10), np.diag([5.0, 5, 5, 1]))
    one = np.zeros((10, 10, 10))
    one[4, 4, 4] = 1  # large enough (0.125 mL), but a single voxel
    assert doubtful_places(one, coarse) == []
    one[4, 4, 5] = 1
    (place,) = doubtful_places(one, coarse)
    assert place.volume_ml == pytest.approx(0.25)


def test_at_most_the_requested_number_of_places_is_returned() -> None:
    values = doubt_of_balls(TURNED, *[((x, y, 0), 2.5, 1.0) for x in (-16, -8, 0, 8, 16) for y in (-12, 0, 12)])
    assert len(doubtful_places(values, TURNED)) == 15
    assert len(doubtful_places(values, TURNED, max_places=4)) == 4
    assert doubtful_places(values, TURNED, max_places=0) == []


def test_doubt_levels_are_bytes_from_0_to_255() -> None:
    levels = doubt_levels(np.array([[[0.0, 0.25, 0.5, 1.0, -1e-7, 1.0000001]]], np.float32))
    assert levels.dtype == np.uint8
    assert levels.ravel().tolist() == [0, 64, 128, 255, 0, 255]
