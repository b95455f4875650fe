"""Test openings of the wall: proposed valves and veins, painted and changed openings, and the scan's border."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dcamt.geometry import Grid
from dcamt.volume import Labelmap, Volume
from dcamt.wall.analysis import analyse_wall
from dcamt.wall.burden import BORDER, OPENING, WALL
from dcamt.wall.openings import PROFILE_TO_MM
from dcamt.wall.settings import IIR, WALL_TO_MM, Threshold
from dcamt_testing.analytic_scans import CENTRE, points_of, rotation
from dcamt_testing.wall_phantoms import MITRAL, VEIN, Atrium, angles_to, grid_about
from dcamt_testing.wall_phantoms import WALL as WALL_BRIGHTNESS

FINE, THICK = (0.8, 0.8, 0.8), (1.25, 1.25, 2.5)
TURN = rotation(20, -35, 50)
PATCH = Atrium(patch_degrees=60.0)
VALVE = Atrium(patch_degrees=45.0, valve_mm=13.0)
VALVE_CM2 = np.pi * (20.0**2 - 13.0**2) / 100
VEINED = Atrium(patch_degrees=45.0, patch_axis=(-1.0, 0.0, 0.0), vein_mm=6.0)


@pytest.mark.parametrize("spacing", [FINE, THICK], ids=["fine", "thick"])
def test_valve_is_proposed_and_excluded_from_the_wall(spacing: tuple[float, float, float]) -> None:
    result = analyse_wall(*VALVE.on(grid_about(62, spacing, TURN)))
    away = angles_to(result.surface.points, MITRAL)
    rim = np.degrees(np.arccos(13 / 20))
    assert result.proposed
    assert result.area_cm2(OPENING) == pytest.approx(VALVE_CM2, rel=0.15)
    assert (result.kind[away < rim - 8] == OPENING).mean() > 0.98
    assert (result.kind[away > rim + 8] == WALL).all()
    cap_cm2 = 2 * np.pi * 20 * (20 - 13) / 100
    wall_cm2 = 4 * np.pi * 4 - cap_cm2
    assert result.burden.wall_cm2 == pytest.approx(wall_cm2, rel=0.03)
    assert result.burden.percent == pytest.approx(100 * 2 * np.pi * 4 * (1 - np.cos(np.radians(45))) / wall_cm2, abs=2)


def test_valve_is_proposed_where_the_outline_bulges_through_it() -> None:
    volume, _ = VALVE.on(grid_about(62, FINE, TURN))
    _, domed = replace(VALVE, valve_mm=None).on(volume.grid)
    result = analyse_wall(volume, domed)
    # Beyond the valve's plane, blood fills a cylinder about the valve's axis.
    cylinder_radius = np.sqrt(20.0**2 - 13.0**2)
    # A profile ends PROFILE_TO_MM (6 mm) outside the surface. If the angle between the profile and this axis is at most
    # `largest_angle`, the profile ends in the cylinder.
    largest_angle = np.degrees(np.arcsin(cylinder_radius / (20 + PROFILE_TO_MM)))
    away = angles_to(result.surface.points, MITRAL)
    assert (result.kind[away < largest_angle - 1] == OPENING).mean() > 0.98
    assert (result.kind[away > np.degrees(np.arccos(13 / 20))] == WALL).all()


def test_flat_cut_with_another_direction_is_not_a_valve() -> None:
    volume, labels = VALVE.on(grid_about(62, (1.0, 1.0, 1.0)))
    # The same heart after half a turn about the anterior axis: its flat cut faces right, anterior and superior.
    matrix = np.diag([-1.0, 1.0, -1.0, 1.0])
    grid = Grid(volume.grid.shape, matrix @ volume.grid.affine)
    result = analyse_wall(Volume(volume.voxels, grid), Labelmap(labels.voxels, grid))
    assert result.area_cm2(OPENING) == 0
    assert any("No opening" in note for note in result.notes)


@pytest.mark.parametrize(("spacing", "axes"), [(FINE, np.eye(3)), (THICK, TURN)], ids=["fine", "thick and oblique"])
def test_vein_adds_its_side_to_the_wall_and_its_end_to_the_openings(
    spacing: tuple[float, float, float], axes: np.ndarray
) -> None:
    assert VEINED.vein_mm is not None
    result = analyse_wall(*VEINED.on(grid_about(84, spacing, axes, shift=(10, -8, 0))))
    radius, vein, length = VEINED.radii[0], VEINED.vein_mm, VEINED.vein_length_mm
    distance = np.linalg.norm(result.surface.points - (CENTRE + length * VEIN), axis=1)
    assert (result.kind[distance < 4.5] == OPENING).mean() > 0.95
    assert (result.kind[distance > 8] == WALL).all()  # the sides of the vein and of the atrium stay wall
    assert result.area_cm2(OPENING) == pytest.approx(np.pi * vein**2 / 100, rel=0.35)
    start = np.sqrt(radius**2 - vein**2)  # where the vein leaves the ball; the ball's cap inside the vein is not wall
    wall_mm2 = 4 * np.pi * radius**2 - 2 * np.pi * radius * (radius - start) + 2 * np.pi * vein * (length - start)
    patch_mm2 = 2 * np.pi * radius**2 * (1 - np.cos(np.radians(VEINED.patch_degrees)))
    assert result.burden.wall_cm2 == pytest.approx(wall_mm2 / 100, rel=0.02)
    assert result.burden.percent == pytest.approx(100 * patch_mm2 / wall_mm2, abs=2)


def test_valve_and_vein_of_one_atrium_are_both_openings() -> None:
    both = replace(VEINED, valve_mm=VALVE.valve_mm)
    result = analyse_wall(*both.on(grid_about(84, THICK, shift=(10, -8, 0))))
    distance = np.linalg.norm(result.surface.points - (CENTRE + both.vein_length_mm * VEIN), axis=1)
    assert (result.kind[distance < 4.5] == OPENING).mean() > 0.9
    rim = np.degrees(np.arccos(13 / 20))
    assert (result.kind[angles_to(result.surface.points, MITRAL) < rim - 8] == OPENING).mean() > 0.9


def test_blind_end_of_a_tube_is_not_an_opening() -> None:
    volume, labels = VEINED.on(grid_about(84, (1.0, 1.0, 1.0), shift=(10, -8, 0)))
    beyond = (points_of(volume.grid) - CENTRE) @ VEIN > VEINED.vein_length_mm
    # The tube is closed by wall, like an appendage.
    voxels = np.where(beyond[None], WALL_BRIGHTNESS, volume.voxels).astype(np.float32)
    assert analyse_wall(Volume(voxels, volume.grid), labels).area_cm2(OPENING) == 0


def test_blood_that_ends_4_mm_beyond_the_outline_is_not_an_opening() -> None:
    assert VALVE.valve_mm is not None
    volume, labels = VALVE.on(grid_about(62, (1.0, 1.0, 1.0)))
    beyond = (points_of(volume.grid) - CENTRE) @ MITRAL > VALVE.valve_mm + 4.0
    voxels = np.where(beyond[None], WALL_BRIGHTNESS, volume.voxels).astype(np.float32)
    assert analyse_wall(volume, labels).area_cm2(OPENING) > 0
    assert analyse_wall(Volume(voxels, volume.grid), labels).area_cm2(OPENING) == 0


@pytest.mark.parametrize("own_grid", [False, True])
def test_painted_openings_replace_the_proposal(own_grid: bool) -> None:
    volume, labels = VALVE.on(grid_about(62, (1.0, 1.0, 1.0), TURN))
    grid = grid_about(50, (0.8, 0.8, 0.8)) if own_grid else volume.grid
    points = points_of(grid) - CENTRE
    cosine = points @ np.array(VALVE.patch_axis) / (np.linalg.norm(points, axis=-1) + 1e-9)
    painted = Labelmap((cosine > np.cos(np.radians(30))).astype(np.uint8), grid)
    result = analyse_wall(volume, labels, openings=painted)
    assert not result.proposed
    expected = 2 * np.pi * 4 * (1 - np.cos(np.radians(30)))
    assert result.area_cm2(OPENING) == pytest.approx(expected, abs=0.3)
    assert (result.kind[angles_to(result.surface.points, MITRAL) < 30] == WALL).all()
    patch = 2 * np.pi * 4 * (1 - np.cos(np.radians(45)))
    assert result.burden.enhanced_cm2 == pytest.approx(patch - expected, abs=0.5)


@pytest.mark.parametrize("radii_mm", [(18.5, 19.5), (20.5, 21.5)], ids=["inside", "outside"])
def test_openings_may_be_painted_a_mm_from_the_surface(radii_mm: tuple[float, float]) -> None:
    volume, labels = PATCH.on(grid_about(55, (1.0, 1.0, 1.0)))
    grid = grid_about(46, (0.5, 0.5, 0.5))
    points = points_of(grid).reshape(-1, 3)
    radius = np.linalg.norm(points - CENTRE, axis=1)
    cap = (angles_to(points, MITRAL) < 30) & (radius > radii_mm[0]) & (radius < radii_mm[1])
    result = analyse_wall(volume, labels, openings=Labelmap(cap.reshape(grid.shape).astype(np.uint8), grid))
    cap_cm2 = 2 * np.pi * 4 * (1 - np.cos(np.radians(30)))
    assert result.area_cm2(OPENING) == pytest.approx(cap_cm2, rel=0.05)


def test_surface_cut_off_by_the_border_of_the_scan_is_excluded_and_reported() -> None:
    grid = grid_about(55, (1.0, 1.0, 1.0), shift=(0, 0, 17.5))  # the scan ends 10 mm inferior to the centre
    volume, labels = PATCH.on(grid)
    result = analyse_wall(volume, labels)
    low = Labelmap((points_of(grid)[..., 2] < CENTRE[2] - 4).astype(np.uint8), grid)
    painted = analyse_wall(volume, labels, openings=low)
    assert painted.area_cm2(OPENING) > 1
    assert (painted.kind[result.kind == BORDER] == BORDER).all()
    floor = result.surface.points[:, 2] < grid.corners()[:, 2].min()
    assert floor.any()
    assert (result.kind[floor] == BORDER).all()
    top = result.surface.points[:, 2] > CENTRE[2] - 4
    assert (result.kind[top] == WALL).all()
    assert any("border" in note for note in result.notes)
    # The surface is a sphere, so each outward normal lies on a ray from the sphere's centre. The scan is sampled along
    # the normals, up to `WALL_TO_MM` outside the surface. A point is wall only if the scan contains the point's
    # outermost sample.
    radius_mm, scan_below_centre_mm = 20, 10
    sample_to_centre_mm = radius_mm + WALL_TO_MM
    # On one ray, depths below the centre are proportional to distances from the centre.
    wall_below_centre_mm = scan_below_centre_mm * radius_mm / sample_to_centre_mm
    # A spherical zone of height h has the area 2 pi R h.
    zone_mm2 = 2 * np.pi * radius_mm * (radius_mm + wall_below_centre_mm)
    assert result.burden.wall_cm2 == pytest.approx(zone_mm2 / 100, rel=0.02)


def test_changed_openings_replace_the_proposal_and_its_message() -> None:
    result = analyse_wall(*PATCH.on(grid_about(55, (1.25, 1.25, 1.25))))
    chosen = angles_to(result.surface.points, MITRAL) < 40
    border = angles_to(result.surface.points, MITRAL) > 140
    kind = np.where(border, BORDER, OPENING).astype(np.uint8)
    proposal = replace(result, kind=kind)
    check = (
        f"{proposal.area_cm2(OPENING):.1f} cm² were proposed as openings (mitral valve, veins) and do not count as wall"
    )
    changed = replace(proposal, notes=(f"{check}: check them.", "A remark.")).with_openings(chosen | border)
    np.testing.assert_array_equal(changed.kind == OPENING, chosen)
    np.testing.assert_array_equal(changed.kind == BORDER, border)
    assert changed.notes == ("A remark.",)
    np.testing.assert_array_equal(changed.enhanced(Threshold(IIR, 0.1)), changed.kind == WALL)
    closed = changed.with_openings(np.zeros(len(kind), bool))
    assert closed.area_cm2(OPENING) == 0
    assert closed.notes[0] == (
        "The given openings do not touch the surface, so the mitral valve and the ends of the veins count as wall."
    )
