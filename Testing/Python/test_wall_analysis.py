"""Wall analysis of phantoms whose wall, bright patch, valve and vein are known: burden, areas, ratios, openings."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.volume import Labelmap, Volume
from dcamt.wall.analysis import WallResult, analyse_wall, import_in_background
from dcamt.wall.burden import BORDER, OPENING, REGIONS, WALL, Burden, count_burden, decaaf_stage, regions_of
from dcamt.wall.colors import BORDER_COLOR, COLOR_STOPS, OPENING_COLOR, ratio_colors, wall_colors
from dcamt.wall.sampling import blood_pool, offsets
from dcamt.wall.settings import IIR, MEAN, PRESETS, SD, Threshold, WallSettings, parse_threshold
from dcamt_testing.analytic_scans import CENTRE, points_of, rotation
from dcamt_testing.wall_phantoms import BLOOD, MITRAL, VEIN, Atrium, Ring, grid_about
from dcamt_testing.wall_phantoms import WALL as WALL_BRIGHTNESS

FINE, THICK = (0.625, 0.625, 0.625), (1.25, 1.25, 2.5)
TURN = rotation(20, -35, 50)
PATCH = Atrium(patch_degrees=60.0)
ROOM = 15.0  # mm around the blood, for the wall and the samples beyond it


def extent_mm(atrium: Atrium) -> float:
    return 2 * max(atrium.radii) + ROOM


def analyse_phantom(atrium: Atrium, grid: Grid, settings: WallSettings | None = None) -> WallResult:
    return analyse_wall(*atrium.on(grid), settings)


def angles_to(result: WallResult, axis: np.ndarray) -> np.ndarray:
    """Return the angle in degrees between an axis and the direction from the centre to each point."""
    p = result.surface.points - CENTRE
    return np.degrees(np.arccos(np.clip(p @ axis / np.linalg.norm(p, axis=1), -1, 1)))


@pytest.mark.parametrize("spacing", [FINE, THICK], ids=["fine", "thick"])
@pytest.mark.parametrize("axes", [np.eye(3), TURN], ids=["straight", "oblique"])
@pytest.mark.parametrize("degrees", [35.0, 60.0, 95.0])
def test_burden_of_a_ball_with_a_patch_of_known_solid_angle(
    degrees: float, axes: np.ndarray, spacing: tuple[float, float, float]
) -> None:
    atrium = replace(PATCH, patch_degrees=degrees)
    result = analyse_phantom(atrium, grid_about(extent_mm(atrium), spacing, axes, shift=(0.3, 0.1, -0.2)))
    burden = result.burden
    assert burden.percent == pytest.approx(50 * (1 - np.cos(np.radians(degrees))), abs=2)
    assert burden.wall_cm2 == pytest.approx(4 * np.pi * 4, rel=0.02)  # a ball with a radius of 2 cm
    assert result.pool.mean == pytest.approx(BLOOD, abs=0.5)
    away = angles_to(result, np.array(atrium.patch_axis))
    assert np.median(result.ratio[away < degrees - 10]) == pytest.approx(1.5, abs=0.02)
    assert result.area_cm2(OPENING) == result.area_cm2(BORDER) == 0


@pytest.mark.parametrize("spacing", [FINE, THICK], ids=["fine", "thick"])
@pytest.mark.parametrize("axis", [(0.0, -1.0, 0.0), (1.0, 0.0, 0.0)])
def test_burden_of_an_ellipsoid_with_a_patch(
    axis: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    atrium = Atrium((27.0, 20.0, 17.0), patch_degrees=55.0, patch_axis=axis)
    burden = analyse_phantom(atrium, grid_about(extent_mm(atrium), spacing, TURN)).burden
    assert burden.percent == pytest.approx(100 * atrium.patch_area_mm2() / atrium.area_mm2(), abs=2)
    assert burden.wall_cm2 == pytest.approx(atrium.area_mm2() / 100, rel=0.02)


@pytest.mark.parametrize(
    ("spacing", "axes"),
    [
        ((0.8, 0.8, 0.8), np.eye(3)),
        ((0.9, 0.9, 2.2), TURN),
        ((1.1, 0.7, 1.6), np.diag([-1.0, -1.0, 1.0])),  # LPS order
        ((1.0, 1.0, 1.0), np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])),  # stored along A, S, L
    ],
    ids=["straight", "oblique", "lps", "asl"],
)
@pytest.mark.parametrize("degrees", [40.0, 120.0])
def test_ring_that_is_curved_inwards_and_outwards(
    degrees: float, spacing: tuple[float, float, float], axes: np.ndarray
) -> None:
    ring = Ring(patch_degrees=degrees, shell_mm=4.5)
    result = analyse_phantom(ring, grid_about(76, spacing, axes, shift=(0.2, -0.3, 0.1)))
    assert result.burden.percent == pytest.approx(100 * ring.ring_area_mm2(degrees) / ring.ring_area_mm2(), abs=2)
    assert result.burden.wall_cm2 == pytest.approx(ring.ring_area_mm2() / 100, rel=0.02)
    assert result.area_cm2(OPENING) == result.area_cm2(BORDER) == 0


def test_burden_of_a_wall_of_3_mm_at_fine_spacing() -> None:
    result = analyse_phantom(replace(PATCH, shell_mm=3.0), grid_about(55, FINE, TURN))
    assert result.burden.percent == pytest.approx(25.0, abs=2)
    assert np.median(result.ratio[angles_to(result, np.array(PATCH.patch_axis)) < 50]) == pytest.approx(1.5, abs=0.02)


def test_mean_along_the_normal_averages_blood_and_patch() -> None:
    result = analyse_phantom(PATCH, grid_about(55, FINE), WallSettings(sample=MEAN, from_mm=1.5, to_mm=4.0))
    inside = angles_to(result, np.array(PATCH.patch_axis)) < 50
    assert np.median(result.ratio[inside]) == pytest.approx(1.5, abs=0.02)
    across = analyse_phantom(PATCH, grid_about(55, FINE), WallSettings(sample=MEAN, from_mm=-2.0, to_mm=2.0))
    # Half of the samples are in blood, half in the patch.
    assert np.median(across.ratio[inside]) == pytest.approx(1.25, abs=0.03)


def test_maximum_is_taken_over_the_distances_of_the_settings() -> None:
    result = analyse_phantom(PATCH, grid_about(55, FINE), WallSettings(from_mm=-3.0, to_mm=-1.5))
    assert result.ratio.max() < 1.2  # only blood is sampled
    beyond = analyse_phantom(replace(PATCH, shell_mm=2.0), grid_about(60, FINE), WallSettings(from_mm=4.0, to_mm=6.0))
    assert np.percentile(beyond.ratio, 99) < 0.5  # only the outside is sampled


def _with_other_axes(volume: Volume, labels: Labelmap) -> tuple[Volume, Labelmap]:
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (volume.grid.shape[0] - 1)
    affine[:3, 0] *= -1
    order = [2, 0, 1]
    grid = Grid(tuple(volume.grid.shape[axis] for axis in order), affine[:, [*order, 3]])
    return (
        Volume(volume.voxels[:, ::-1].transpose(0, *(1 + a for a in order)), grid),
        Labelmap(labels.voxels[::-1].transpose(order), grid),
    )


def test_result_does_not_depend_on_axis_order_or_intensity_scale() -> None:
    volume, labels = PATCH.on(grid_about(55, THICK, TURN))
    expected = analyse_wall(volume, labels)
    for other in (
        analyse_wall(*_with_other_axes(volume, labels)),
        analyse_wall(Volume(volume.voxels * 13.5, volume.grid), labels),
        analyse_wall(Volume((volume.voxels * 100).astype(np.uint16), volume.grid), labels),
        analyse_wall(Volume(volume.voxels.astype(np.float64), volume.grid), labels),
        analyse_wall(Volume((volume.voxels * 50).astype(">i2"), volume.grid), labels),
        analyse_wall(volume, Labelmap(labels.voxels * 255, labels.grid)),
    ):
        for one, two in zip(other.burdens(), expected.burdens(), strict=True):
            assert one.wall_cm2 == pytest.approx(two.wall_cm2, abs=0.15)
            assert one.enhanced_cm2 == pytest.approx(two.enhanced_cm2, abs=0.3)


def _move_grid(grid: Grid, matrix: np.ndarray) -> Grid:
    return Grid(grid.shape, matrix @ grid.affine)


def test_rigid_transform_moves_the_wall_and_keeps_all_numbers() -> None:
    volume, labels = PATCH.on(grid_about(55, THICK))
    expected = analyse_wall(volume, labels)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = TURN, (30.0, -200.0, 7.0)
    grid = _move_grid(volume.grid, matrix)
    moved = analyse_wall(Volume(volume.voxels, grid), Labelmap(labels.voxels, grid))
    assert moved.burden.percent == pytest.approx(expected.burden.percent, abs=0.5)
    assert moved.burden.wall_cm2 == pytest.approx(expected.burden.wall_cm2, rel=0.01)
    centre = moved.surface.points.mean(axis=0)
    assert centre == pytest.approx(TURN @ expected.surface.points.mean(axis=0) + matrix[:3, 3], abs=0.2)
    bright = moved.surface.points[moved.enhanced()].mean(axis=0) - centre
    assert bright / np.linalg.norm(bright) == pytest.approx(TURN @ np.array(PATCH.patch_axis), abs=0.05)


def test_sheared_grid_is_analysed() -> None:
    shear = TURN @ np.array([[1.0, 0.25, 0.0], [0.0, 1.0, 0.15], [0.0, 0.0, 1.0]])
    result = analyse_phantom(PATCH, grid_about(75, (1.0, 1.0, 1.5), shear))
    assert result.burden.percent == pytest.approx(25.0, abs=2)
    assert result.burden.wall_cm2 == pytest.approx(4 * np.pi * 4, rel=0.02)


def test_segmentation_on_another_grid_is_analysed() -> None:
    volume, _ = PATCH.on(grid_about(55, FINE))
    _, labels = PATCH.on(grid_about(50, (1.0, 1.0, 1.0), TURN, shift=(0.2, 0.3, 0.1)))
    result = analyse_wall(volume, labels)
    assert result.burden.percent == pytest.approx(25.0, abs=2)
    assert result.pool.mean == pytest.approx(BLOOD, abs=0.5)
    assert any("different grids" in note for note in result.notes)


# Openings


VALVE = Atrium(patch_degrees=45.0, valve_mm=13.0)
VALVE_CM2 = np.pi * (20.0**2 - 13.0**2) / 100
VEINED = Atrium(patch_degrees=45.0, patch_axis=(-1.0, 0.0, 0.0), vein_mm=6.0)


@pytest.mark.parametrize("spacing", [FINE, THICK], ids=["fine", "thick"])
def test_valve_is_proposed_and_excluded_from_the_wall(spacing: tuple[float, float, float]) -> None:
    result = analyse_phantom(VALVE, grid_about(62, spacing, TURN))
    away = angles_to(result, MITRAL)
    rim = np.degrees(np.arccos(13 / 20))
    assert result.proposed
    assert result.area_cm2(OPENING) == pytest.approx(VALVE_CM2, rel=0.15)
    assert (result.kind[away < rim - 8] == OPENING).mean() > 0.98
    assert (result.kind[away > rim + 8] == WALL).all()
    cap_cm2 = 2 * np.pi * 20 * (20 - 13) / 100
    wall_cm2 = 4 * np.pi * 4 - cap_cm2
    assert result.burden.wall_cm2 == pytest.approx(wall_cm2, rel=0.03)
    assert result.burden.percent == pytest.approx(100 * 2 * np.pi * 4 * (1 - np.cos(np.radians(45))) / wall_cm2, abs=2)


def test_valve_is_as_wide_where_the_outline_bulges_through_it() -> None:
    """A reader may end the outline in a dome rather than flat; the blood beyond it is the same."""
    volume, _ = VALVE.on(grid_about(62, FINE, TURN))
    _, domed = replace(VALVE, valve_mm=None).on(volume.grid)
    result = analyse_wall(volume, domed)
    # Normals of the dome run apart: as far as 6 mm outside of it, they stay in the blood's cylinder up to this angle.
    within = np.degrees(np.arcsin(np.sqrt(20.0**2 - 13.0**2) / (20 + 6)))
    away = angles_to(result, MITRAL)
    assert (result.kind[away < within - 1] == OPENING).mean() > 0.98
    assert (result.kind[away > np.degrees(np.arccos(13 / 20))] == WALL).all()


def test_flat_cut_with_another_direction_is_not_a_valve() -> None:
    volume, labels = VALVE.on(grid_about(62, FINE))
    # The same heart, flipped left to right and upside down: its flat cut faces right and superior.
    matrix = np.diag([-1.0, 1.0, -1.0, 1.0])
    grid = _move_grid(volume.grid, matrix)
    result = analyse_wall(Volume(volume.voxels, grid), Labelmap(labels.voxels, grid))
    assert result.area_cm2(OPENING) == 0
    assert any("No opening" in note for note in result.notes)


@pytest.mark.parametrize(("spacing", "axes"), [(FINE, np.eye(3)), (THICK, TURN)], ids=["fine", "thick and oblique"])
def test_vein_adds_its_side_to_the_wall_and_its_end_to_the_openings(
    spacing: tuple[float, float, float], axes: np.ndarray
) -> None:
    assert VEINED.vein_mm is not None
    result = analyse_phantom(VEINED, grid_about(84, spacing, axes, shift=(10, -8, 0)))
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
    result = analyse_phantom(both, grid_about(84, THICK, shift=(10, -8, 0)))
    distance = np.linalg.norm(result.surface.points - (CENTRE + both.vein_length_mm * VEIN), axis=1)
    assert (result.kind[distance < 4.5] == OPENING).mean() > 0.9
    rim = np.degrees(np.arccos(13 / 20))
    assert (result.kind[angles_to(result, MITRAL) < rim - 8] == OPENING).mean() > 0.9


def test_blind_end_of_a_tube_is_not_an_opening() -> None:
    atrium = replace(VEINED, vein_mm=6.0)
    volume, labels = atrium.on(grid_about(84, (1.0, 1.0, 1.0), shift=(10, -8, 0)))
    beyond = (points_of(volume.grid) - CENTRE) @ VEIN > atrium.vein_length_mm
    # Closed by wall, as an appendage is.
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
    volume, labels = VALVE.on(grid_about(62, FINE, TURN))
    grid = grid_about(50, (0.8, 0.8, 0.8)) if own_grid else volume.grid
    points = points_of(grid) - CENTRE
    cosine = points @ np.array(VALVE.patch_axis) / (np.linalg.norm(points, axis=-1) + 1e-9)
    painted = Labelmap((cosine > np.cos(np.radians(30))).astype(np.uint8), grid)
    result = analyse_wall(volume, labels, openings=painted)
    assert not result.proposed
    expected = 2 * np.pi * 4 * (1 - np.cos(np.radians(30)))
    assert result.area_cm2(OPENING) == pytest.approx(expected, abs=0.3)
    assert (result.kind[angles_to(result, MITRAL) < 30] == WALL).all()
    patch = 2 * np.pi * 4 * (1 - np.cos(np.radians(45)))
    assert result.burden.enhanced_cm2 == pytest.approx(patch - expected, abs=0.5)


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
    # More than 8.7 mm below the centre, the 3 mm samples leave the scan; a spherical zone has the area 2 pi R h.
    assert result.burden.wall_cm2 == pytest.approx(2 * np.pi * 2 * (2 + 0.87), rel=0.02)


# Counting


def test_threshold_names_give_their_ratios() -> None:
    result = analyse_phantom(PATCH, grid_about(55, THICK))
    assert [preset.threshold.name for preset in PRESETS] == [
        *("iir-0.97", "iir-1.2", "iir-1.32", "iir-1.61"),
        *("sd-2", "sd-3", "sd-3.3"),
    ]
    for preset in PRESETS:
        threshold = preset.threshold
        expected = threshold.value
        if threshold.kind == SD:
            expected = (result.pool.mean + threshold.value * result.pool.sd) / result.pool.mean
        assert result.threshold_ratio(threshold) == pytest.approx(expected)
        assert parse_threshold(threshold.name) == threshold
    assert result.burdens(Threshold(IIR, 1.61))[0].enhanced_cm2 == 0
    assert result.burdens(Threshold(IIR, 0.5))[0].percent == pytest.approx(100)
    assert parse_threshold(" IIR-1.25 ") == Threshold(IIR, 1.25)
    for value in (1.23456789, 0.00001):
        assert parse_threshold(Threshold(IIR, value).name) == Threshold(IIR, value)


@pytest.mark.parametrize("name", ["", "iir", "iir-", "iir-0", "sd--2", "iir-nan", "iir-99", "sd3", "max-2", "iir-1.2x"])
def test_unknown_threshold_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"is not known\. Use iir-0\.97"):
        parse_threshold(name)


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(InputError, match="is not known"):
        WallSettings(sample="median")
    for first, last in ((3.0, -1.0), (1.0, 1.0), (-20.0, 3.0), (0.0, 11.0), (float("nan"), 3.0)):
        with pytest.raises(InputError, match="cannot be sampled"):
            WallSettings(from_mm=first, to_mm=last)


def test_burden_sums_areas_of_points() -> None:
    ratio = np.array([1.5, 1.5, 1.0, 1.2, 1.5, 1.5])
    kind = np.array([WALL, WALL, WALL, WALL, OPENING, BORDER], np.uint8)
    region = np.array([0, 0, 0, 5, 0, 0], np.uint8)
    areas = np.array([100.0, 300.0, 500.0, 700.0, 1100.0, 1300.0])
    rows = {row.region: row for row in count_burden(ratio, kind, region, areas, 1.2)}
    assert rows["all"] == Burden("all", 16.0, 4.0)  # a ratio of 1.2 does not exceed the threshold 1.2
    assert rows["anterior"] == Burden("anterior", 9.0, 4.0)
    assert rows["lateral"] == Burden("lateral", 7.0, 0.0)
    assert np.isnan(rows["roof"].percent)
    assert rows["all"].percent == 25.0


def test_region_of_a_point_follows_from_its_normal() -> None:
    normals = np.array([[0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0], [0.5, -0.6, 0.5]])
    assert [REGIONS[i] for i in regions_of(normals)] == [*REGIONS, "posterior"]


def test_patch_on_the_posterior_wall_counts_in_the_posterior_region() -> None:
    atrium = replace(PATCH, patch_degrees=40.0)  # all its normals are mainly posterior
    rows = {row.region: row for row in analyse_phantom(atrium, grid_about(55, FINE, TURN)).burdens()}
    sixth = 4 * np.pi * 4 / 6
    for name in REGIONS:
        assert rows[name].wall_cm2 == pytest.approx(sixth, rel=0.04)
    assert rows["posterior"].enhanced_cm2 == pytest.approx(rows["all"].enhanced_cm2, rel=0.03)
    assert sum(rows[name].wall_cm2 for name in REGIONS) == pytest.approx(rows["all"].wall_cm2)


def test_percentage_gives_the_decaaf_stage() -> None:
    percents = [0, 9.99, 10, 19.9, 20, 29.9, 30, 100, float("nan")]
    assert [decaaf_stage(p) for p in percents] == ["I", "I", "II", "II", "III", "III", "IV", "IV", ""]


# Imports


def test_modules_are_imported_in_the_background_and_missing_ones_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "from threading import Event\nbegun, continues = Event(), Event()\nbegun.set()\ncontinues.wait()\ndone = 1\n"
    tmp_path.joinpath("slow_module_of_a_test.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    tmp_path.joinpath("faulty_module_of_a_test.py").write_text("raise ValueError('faulty')\n", encoding="utf-8")
    import_in_background(["no_such_module_of_a_test", "faulty_module_of_a_test", "slow_module_of_a_test"])
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "imports of the wall"]
    assert thread.daemon, "the end of the process would wait for the import"
    # It returned although the import waits.
    while "slow_module_of_a_test" not in sys.modules or not hasattr(sys.modules["slow_module_of_a_test"], "continues"):
        time.sleep(0.001)
    module = sys.modules["slow_module_of_a_test"]
    assert not hasattr(module, "done")
    module.continues.set()
    thread.join()
    assert sys.modules.pop("slow_module_of_a_test").done
    assert capfd.readouterr().err == ""


# Openings changed by hand


@pytest.fixture(scope="module")
def scan() -> tuple[Volume, Labelmap]:
    return PATCH.on(grid_about(55, (1.0, 1.0, 1.0)))


def test_changed_openings_replace_the_proposal_and_its_message(scan: tuple[Volume, Labelmap]) -> None:
    result = analyse_wall(*scan)
    chosen = angles_to(result, MITRAL) < 40
    border = angles_to(result, MITRAL) > 140
    kind = np.where(border, BORDER, OPENING).astype(np.uint8)  # all but the border was proposed as an opening
    proposal = replace(result, kind=kind)
    check = (
        f"{proposal.area_cm2(OPENING):.1f} cm² were proposed as openings (mitral valve, veins) and do not count as wall"
    )
    changed = replace(proposal, notes=(f"{check}: check them.", "A remark.")).with_openings(chosen | border)
    np.testing.assert_array_equal(changed.kind == OPENING, chosen)
    np.testing.assert_array_equal(changed.kind == BORDER, border)
    assert changed.notes == ("A remark.",)  # no proposal to be checked
    np.testing.assert_array_equal(changed.enhanced(Threshold(IIR, 0.1)), changed.kind == WALL)
    closed = changed.with_openings(np.zeros(len(kind), bool))
    assert closed.area_cm2(OPENING) == 0
    assert "all of it counts as wall" in closed.notes[0]


def test_ratio_at_the_threshold_is_not_enhanced(scan: tuple[Volume, Labelmap]) -> None:
    result = analyse_wall(*scan)
    result = replace(result, ratio=np.full(len(result.ratio), 1.25, np.float32))
    assert not result.enhanced(Threshold(IIR, 1.25)).any()
    assert result.enhanced(Threshold(IIR, 1.24)).all()


def test_blood_pool_is_the_population_of_the_eroded_segment() -> None:
    grid = grid_about(9, (1.0, 1.0, 1.0))
    voxels = np.random.default_rng(0).normal(100, 20, grid.shape)
    pool = blood_pool(voxels, grid, np.ones(grid.shape, bool), grid)
    values = voxels[2:-2, 2:-2, 2:-2].ravel()  # all voxels that are 3 mm from the first one outside
    assert pool.voxels == len(values) == 125
    assert pool.mean == pytest.approx(values.sum() / 125, rel=1e-12)
    assert pool.sd == pytest.approx(np.sqrt(((values - pool.mean) ** 2).sum() / 125), rel=1e-12)


def test_separate_part_of_the_segment_is_not_in_the_blood_pool(scan: tuple[Volume, Labelmap]) -> None:
    volume, labels = scan
    smaller = labels.voxels & np.roll(labels.voxels, 5, axis=0)  # an eccentric part of the same ball
    grid = Grid((2 * labels.grid.shape[0], *labels.grid.shape[1:]), labels.grid.affine)
    voxels = np.concatenate([volume.voxels, 2 * volume.voxels], axis=1)
    one, both = (
        analyse_wall(Volume(voxels, grid), Labelmap(np.concatenate([labels.voxels, part]), grid))
        for part in (0 * smaller, smaller)
    )
    assert any("Separate parts" in note for note in both.notes)
    assert both.pool == one.pool
    assert both.burden.percent == pytest.approx(one.burden.percent, abs=0.2)


def test_thick_voxels_are_reported() -> None:
    def notes(slice_mm: float) -> list[str]:
        result = analyse_phantom(PATCH, grid_about(60, (1.25, 1.25, slice_mm)))
        return [note for note in result.notes if "thick" in note]

    assert notes(4.0) == []
    assert notes(5.0) == ["Voxels of the scan are 5.0 mm thick, thicker than the wall: the burden is inexact."]


def test_wall_is_sampled_from_1_mm_inside_to_3_mm_outside_in_steps_of_half_a_voxel() -> None:
    settings = WallSettings()
    assert (settings.from_mm, settings.to_mm, settings.sample) == (-1.0, 3.0, "maximum")
    assert offsets(settings.from_mm, settings.to_mm, grid_about(9, (2.0, 1.0, 4.0))) == pytest.approx(
        np.linspace(-1.0, 3.0, 9)
    )


# Refusals


# Colours


def test_enhancement_is_darker_than_the_rest_in_black_and_white() -> None:
    ratios = np.linspace(0.5, 2.2, 400)
    grey = ratio_colors(ratios) @ [0.2126, 0.7152, 0.0722]  # the luminance of Rec. ITU-R BT.709
    assert grey[ratios > 1.2].max() <= grey[ratios <= 1.2].min() + 0.01
    assert grey[ratios > 1.61].max() < grey[ratios <= 1.2].min() - 0.3


def test_colors_are_interpolated_between_stops_and_grey_off_the_wall() -> None:
    ratios, expected = np.array([stop for stop, _ in COLOR_STOPS]), np.array([color for _, color in COLOR_STOPS])
    np.testing.assert_allclose(ratio_colors(ratios), expected)
    np.testing.assert_allclose(ratio_colors(np.array([0.0, 9.0])), expected[[0, -1]])
    np.testing.assert_allclose(ratio_colors(np.array([1.26])), [(expected[3] + expected[4]) / 2])
    assert {0.97, 1.2, 1.32, 1.61} <= set(ratios)  # the presets' thresholds are colour stops
    kinds = np.array([WALL, OPENING, BORDER], np.uint8)
    np.testing.assert_allclose(
        wall_colors(np.array([1.61, 1.61, 1.61]), kinds), [expected[5], OPENING_COLOR, BORDER_COLOR]
    )
