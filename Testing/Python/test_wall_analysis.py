"""Wall analysis of phantoms whose wall and bright patch are known: burden, areas, ratios, blood pool, notes."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dcamt.geometry import Grid, Reorientation, bounding_box, pad_box
from dcamt.volume import Labelmap, Volume
from dcamt.wall.analysis import WallResult, analyse_wall, import_in_background
from dcamt.wall.burden import BORDER, OPENING, REGIONS
from dcamt.wall.sampling import blood_pool
from dcamt.wall.settings import IIR, LARGEST_VALUE, MEAN, PRESETS, SD, Threshold, WallSettings, parse_threshold
from dcamt_testing.analytic_scans import rotation
from dcamt_testing.wall_phantoms import BLOOD, Atrium, Ring, angles_to, grid_about

FINE, THICK = (0.8, 0.8, 0.8), (1.25, 1.25, 2.5)
TURN = rotation(20, -35, 50)
PATCH = Atrium(patch_degrees=60.0)
# The mean thickness of a real atrial wall (Varela, IEEE Trans Med Imaging 2017).
THIN_WALL_MM = 2.4
# Smallest distance between the blood and the border of a scan centred at the atrium. DCAMT samples intensities up to 6
# mm outside the blood (`PROFILE_TO_MM`).
MARGIN_MM = 7.5


def extent_mm(atrium: Atrium) -> float:
    return 2 * (max(atrium.radii) + MARGIN_MM)


def analyse_phantom(atrium: Atrium, grid: Grid, settings: WallSettings | None = None) -> WallResult:
    return analyse_wall(*atrium.on(grid), settings)


@pytest.mark.parametrize(
    ("degrees", "axes", "spacing"),
    [
        (35.0, TURN, FINE),
        (60.0, np.eye(3), FINE),
        (35.0, np.eye(3), THICK),
        (60.0, TURN, THICK),
        (95.0, np.eye(3), THICK),
        (95.0, TURN, THICK),
    ],
    ids=["35 fine oblique", "60 fine", "35 thick", "60 thick oblique", "95 thick", "95 thick oblique"],
)
def test_burden_of_a_ball_is_the_area_fraction_of_its_patch(
    degrees: float, axes: np.ndarray, spacing: tuple[float, float, float]
) -> None:
    atrium = replace(PATCH, patch_degrees=degrees)
    result = analyse_phantom(atrium, grid_about(extent_mm(atrium), spacing, axes, shift=(0.3, 0.1, -0.2)))
    burden = result.burden
    assert burden.percent == pytest.approx(50 * (1 - np.cos(np.radians(degrees))), abs=2)
    assert burden.wall_cm2 == pytest.approx(4 * np.pi * 4, rel=0.02)  # a ball with a radius of 2 cm
    assert result.pool.mean == pytest.approx(BLOOD, abs=0.5)
    away = angles_to(result.surface.points, np.array(atrium.patch_axis))
    assert np.median(result.ratio[away < degrees - 10]) == pytest.approx(1.5, abs=0.02)
    assert result.area_cm2(OPENING) == result.area_cm2(BORDER) == 0


@pytest.mark.parametrize(
    ("axis", "spacing"), [((0.0, -1.0, 0.0), FINE), ((1.0, 0.0, 0.0), THICK)], ids=["fine", "thick"]
)
def test_burden_of_an_ellipsoid_is_the_area_fraction_of_its_patch(
    axis: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    atrium = Atrium((27.0, 20.0, 17.0), patch_degrees=55.0, patch_axis=axis)
    burden = analyse_phantom(atrium, grid_about(extent_mm(atrium), spacing, TURN)).burden
    assert burden.percent == pytest.approx(100 * atrium.patch_area_mm2() / atrium.area_mm2(), abs=2)
    assert burden.wall_cm2 == pytest.approx(atrium.area_mm2() / 100, rel=0.02)


@pytest.mark.parametrize(
    ("spacing", "axes"),
    [
        ((1.0, 1.0, 1.0), np.eye(3)),
        ((0.9, 0.9, 2.2), TURN),
        ((1.1, 0.7, 1.6), np.diag([-1.0, -1.0, 1.0])),  # stored along L, P, S
        ((1.0, 1.0, 1.0), np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])),  # stored along A, S, L
    ],
    ids=["straight", "oblique", "lps", "asl"],
)
@pytest.mark.parametrize("degrees", [40.0, 120.0])
def test_burden_of_a_ring_is_the_area_fraction_of_its_patch(
    degrees: float, spacing: tuple[float, float, float], axes: np.ndarray
) -> None:
    ring = Ring(patch_degrees=degrees, shell_mm=4.5)
    result = analyse_phantom(ring, grid_about(76, spacing, axes, shift=(0.2, -0.3, 0.1)))
    assert result.burden.percent == pytest.approx(100 * ring.ring_area_mm2(degrees) / ring.ring_area_mm2(), abs=2)
    assert result.burden.wall_cm2 == pytest.approx(ring.ring_area_mm2() / 100, rel=0.02)
    assert result.area_cm2(OPENING) == result.area_cm2(BORDER) == 0


def test_burden_of_a_3_mm_wall_is_the_area_fraction_of_its_patch() -> None:
    result = analyse_phantom(replace(PATCH, shell_mm=3.0), grid_about(50, (0.625, 0.625, 0.625), TURN))
    assert result.burden.percent == pytest.approx(25.0, abs=2)
    assert np.median(result.ratio[angles_to(result.surface.points, np.array(PATCH.patch_axis)) < 50]) == pytest.approx(
        1.5, abs=0.02
    )


def test_mean_along_the_normal_averages_blood_and_patch() -> None:
    volume, labels = PATCH.on(grid_about(55, FINE))
    result = analyse_wall(volume, labels, WallSettings(sample=MEAN, from_mm=1.5, to_mm=4.0))
    inside = angles_to(result.surface.points, np.array(PATCH.patch_axis)) < 50
    assert np.median(result.ratio[inside]) == pytest.approx(1.5, abs=0.02)
    across = analyse_wall(volume, labels, WallSettings(sample=MEAN, from_mm=-2.0, to_mm=2.0))
    # Half of the samples are in blood, half in the patch.
    assert np.median(across.ratio[inside]) == pytest.approx(1.25, abs=0.03)


def test_maximum_ignores_intensities_outside_the_chosen_distances() -> None:
    volume, labels = replace(PATCH, shell_mm=2.0).on(grid_about(60, FINE))
    result = analyse_wall(volume, labels, WallSettings(from_mm=-3.0, to_mm=-1.5))
    assert result.ratio.max() < 1.2  # only blood is sampled
    beyond = analyse_wall(volume, labels, WallSettings(from_mm=4.0, to_mm=6.0))
    assert np.percentile(beyond.ratio, 99) < 0.5  # only the outside is sampled


def with_other_axes(volume: Volume, labels: Labelmap) -> tuple[Volume, Labelmap]:
    """Return the scan and the labels stored along other axes, at the same positions."""
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (volume.grid.shape[0] - 1)
    affine[:3, 0] *= -1
    order = [2, 0, 1]
    grid = Grid(tuple(volume.grid.shape[axis] for axis in order), affine[:, [*order, 3]])
    return (
        Volume(volume.voxels[:, ::-1].transpose(0, *(1 + a for a in order)), grid),
        Labelmap(labels.voxels[::-1].transpose(order), grid),
    )


def test_areas_do_not_depend_on_axis_order_data_type_or_scale() -> None:
    volume, labels = PATCH.on(grid_about(55, THICK, TURN))
    expected = analyse_wall(volume, labels)
    for other in (
        analyse_wall(*with_other_axes(volume, labels)),
        analyse_wall(Volume(volume.voxels.astype(np.float64) * 13.5, volume.grid), labels),
        analyse_wall(Volume((volume.voxels * 100).astype(np.uint16), volume.grid), labels),
        analyse_wall(
            Volume((volume.voxels * 50).astype(">i2"), volume.grid), Labelmap(labels.voxels * 255, labels.grid)
        ),
    ):
        for one, two in zip(other.burdens(), expected.burdens(), strict=True):
            assert one.wall_cm2 == pytest.approx(two.wall_cm2, abs=0.15)
            assert one.enhanced_cm2 == pytest.approx(two.enhanced_cm2, abs=0.3)


def test_rigid_transform_moves_the_wall_and_keeps_burden_and_area() -> None:
    volume, labels = PATCH.on(grid_about(55, THICK))
    expected = analyse_wall(volume, labels)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = TURN, (30.0, -200.0, 7.0)
    grid = Grid(volume.grid.shape, matrix @ volume.grid.affine)
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
    volume, _ = PATCH.on(grid_about(55, THICK))
    _, labels = PATCH.on(grid_about(50, (1.0, 1.0, 1.0), TURN, shift=(0.2, 0.3, 0.1)))
    result = analyse_wall(volume, labels)
    assert result.burden.percent == pytest.approx(25.0, abs=2)
    assert result.pool.mean == pytest.approx(BLOOD, abs=0.5)
    assert any("different grids" in note for note in result.notes)


def test_grid_shifted_by_a_rounding_error_is_treated_as_the_grid_of_the_scan() -> None:
    volume, labels = PATCH.on(grid_about(50, (1.0, 1.0, 1.0), TURN))
    affine = labels.grid.affine.copy()
    affine[:3, 3] += 0.002
    rounded = replace(labels, grid=Grid(labels.grid.shape, affine))
    result, expected = analyse_wall(volume, rounded), analyse_wall(volume, labels)
    assert (result.notes, result.pool, result.burden) == (expected.notes, expected.pool, expected.burden)


def test_cropped_or_reoriented_segmentation_is_placed_on_the_grid_of_the_scan() -> None:
    volume, labels = PATCH.on(grid_about(50, (1.0, 1.0, 1.0), TURN))
    expected = analyse_wall(volume, labels)
    turn = Reorientation((2, 0, 1), (False, True, True))
    turned = turn.apply_to_grid(labels.grid)
    affine = np.array([[float(f"{number:.6g}") for number in row] for row in turned.affine])
    rounded = Labelmap(turn.apply(labels.voxels).copy(), Grid(turned.shape, affine))
    box = pad_box(bounding_box(labels.voxels != 0), (2, 2, 2), tuple(slice(0, size) for size in labels.grid.shape))  # type: ignore[arg-type]
    cropped = Labelmap(labels.voxels[box], labels.grid.crop(box), partial=True)
    for other in (rounded, cropped):
        result = analyse_wall(volume, other)
        assert (result.notes, result.pool, result.burden) == (expected.notes, expected.pool, expected.burden)


def test_thresholds_convert_to_ratios_and_are_parsed_from_their_names() -> None:
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
    assert parse_threshold(f"iir-{LARGEST_VALUE:g}") == Threshold(IIR, LARGEST_VALUE)
    for value in (1.23456789, 0.00001):
        assert parse_threshold(Threshold(IIR, value).name) == Threshold(IIR, value)


def test_patch_on_the_posterior_wall_counts_in_the_posterior_region() -> None:
    atrium = replace(PATCH, patch_degrees=40.0)  # all normals of the patch are mainly posterior
    rows = {row.region: row for row in analyse_phantom(atrium, grid_about(55, (1.0, 1.0, 1.0), TURN)).burdens()}
    sixth = 4 * np.pi * 4 / 6
    for name in REGIONS:
        assert rows[name].wall_cm2 == pytest.approx(sixth, rel=0.04)
    assert rows["posterior"].enhanced_cm2 == pytest.approx(rows["all"].enhanced_cm2, rel=0.03)
    assert sum(rows[name].wall_cm2 for name in REGIONS) == pytest.approx(rows["all"].wall_cm2)


def test_background_import_continues_after_a_missing_and_a_faulty_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "from threading import Event\nbegun, continues = Event(), Event()\nbegun.set()\ncontinues.wait()\ndone = 1\n"
    tmp_path.joinpath("slow_module_of_a_test.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    tmp_path.joinpath("faulty_module_of_a_test.py").write_text("raise ValueError('faulty')\n", encoding="utf-8")
    import_in_background(["no_such_module_of_a_test", "faulty_module_of_a_test", "slow_module_of_a_test"])
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "imports of the wall"]
    assert thread.daemon, "the end of the process would wait for the import"
    # The import of the slow module cannot end before the test sets the event `continues`. Wait until the import has
    # begun.
    while "slow_module_of_a_test" not in sys.modules or not hasattr(sys.modules["slow_module_of_a_test"], "continues"):
        time.sleep(0.001)
    module = sys.modules["slow_module_of_a_test"]
    assert not hasattr(module, "done")
    module.continues.set()
    thread.join()
    assert sys.modules.pop("slow_module_of_a_test").done
    assert capfd.readouterr().err == ""


@pytest.fixture(scope="module")
def scan() -> tuple[Volume, Labelmap]:
    return PATCH.on(grid_about(55, (1.0, 1.0, 1.0)))


def test_ratio_at_the_threshold_is_not_enhanced(scan: tuple[Volume, Labelmap]) -> None:
    result = analyse_wall(*scan)
    result = replace(result, ratio=np.full(len(result.ratio), 1.25, np.float32))
    assert not result.enhanced(Threshold(IIR, 1.25)).any()
    assert result.enhanced(Threshold(IIR, 1.24)).all()


def test_blood_pool_has_the_mean_and_population_sd_of_the_eroded_segment() -> None:
    grid = grid_about(9, (1.0, 1.0, 1.0))
    voxels = np.random.default_rng(0).normal(100, 20, grid.shape)
    pool = blood_pool(voxels, grid, np.ones(grid.shape, bool), grid)
    values = voxels[2:-2, 2:-2, 2:-2].ravel()  # the erosion removes two voxels at each end
    assert pool.voxels == len(values) == 125
    assert pool.mean == pytest.approx(values.sum() / 125, rel=1e-12)
    assert pool.sd == pytest.approx(np.sqrt(((values - pool.mean) ** 2).sum() / 125), rel=1e-12)


def test_blood_pool_ignores_voxels_outside_the_scan() -> None:
    grid, mask_grid = Grid((12, 20, 20), np.eye(4)), Grid((20, 20, 20), np.eye(4))
    voxels = np.random.default_rng(0).normal(100, 10, grid.shape)
    pool = blood_pool(voxels, grid, np.ones(mask_grid.shape, bool), mask_grid)
    eroded = voxels[2:, 2:-2, 2:-2]  # no erosion at the end of the first axis: the mask continues there
    assert (pool.voxels, pool.mean) == (eroded.size, pytest.approx(eroded.mean(), rel=1e-6))


def oversampled(labels: Labelmap, factor: int) -> Labelmap:
    voxels = labels.voxels.repeat(factor, 0).repeat(factor, 1).repeat(factor, 2)
    to_label = np.diag([1 / factor] * 3 + [1.0])
    to_label[:3, 3] = 0.5 / factor - 0.5
    return Labelmap(voxels, Grid(voxels.shape, labels.grid.affine @ to_label))


@pytest.fixture(scope="module")
def noisy_scan() -> tuple[Volume, Labelmap]:
    volume, labels = PATCH.on(grid_about(55, (1.0, 1.2, 1.5), TURN))
    noise = np.random.default_rng(0).normal(0, 15, volume.voxels.shape).astype(np.float32)
    return Volume(100 + volume.voxels + noise, volume.grid), labels


@pytest.mark.parametrize("factor", [2, 3])
def test_oversampled_segmentation_has_the_blood_pool_of_the_scan_grid(
    noisy_scan: tuple[Volume, Labelmap], factor: int
) -> None:
    volume, labels = noisy_scan
    assert analyse_wall(volume, oversampled(labels, factor)).pool == analyse_wall(volume, labels).pool


@pytest.mark.parametrize(
    ("spacing", "axes", "shift"),
    [
        ((1.0, 1.2, 1.5), TURN, TURN @ [0.5, 0.6, 0.75]),  # shifted by half a voxel
        ((0.6, 0.6, 0.6), np.eye(3), (0.2, 0.3, 0.1)),
        ((2.5, 2.5, 2.5), np.eye(3), (0.2, 0.3, 0.1)),
        ((0.7, 1.0, 3.0), TURN @ [[1.0, 0.25, 0.0], [0.0, 1.0, 0.15], [0.0, 0.0, 1.0]], (0.0, 0.0, 0.0)),
    ],
    ids=["shifted", "fine", "coarse", "thick and sheared"],
)
def test_segmentation_on_another_grid_has_nearly_the_blood_pool_of_the_scan_grid(
    noisy_scan: tuple[Volume, Labelmap],
    spacing: tuple[float, float, float],
    axes: np.ndarray,
    shift: tuple[float, float, float],
) -> None:
    volume, labels = noisy_scan
    _, other = PATCH.on(grid_about(60, spacing, axes, shift))
    result, expected = (analyse_wall(volume, each).pool for each in (other, labels))
    assert result.mean == pytest.approx(expected.mean, rel=0.002)
    assert result.sd == pytest.approx(expected.sd, rel=0.01)
    assert result.voxels == pytest.approx(expected.voxels, rel=0.08)


@pytest.mark.parametrize("radius_mm", [5, 17])
def test_separate_part_of_the_segment_is_not_in_the_blood_pool(scan: tuple[Volume, Labelmap], radius_mm: float) -> None:
    volume, labels = scan
    smaller_part = Atrium((radius_mm,) * 3).on(labels.grid)[1].voxels
    grid = Grid((2 * labels.grid.shape[0], *labels.grid.shape[1:]), labels.grid.affine)
    voxels = np.concatenate([volume.voxels, 2 * volume.voxels], axis=1)
    one, both = (
        analyse_wall(Volume(voxels, grid), Labelmap(np.concatenate([labels.voxels, part]), grid))
        for part in (0 * smaller_part, smaller_part)
    )
    assert any("Separate parts" in note for note in both.notes)
    assert both.pool == one.pool
    assert both.burden.percent == pytest.approx(one.burden.percent, abs=0.2)


@pytest.mark.parametrize(("count", "is_noted"), [(40, False), (60, True)])
def test_many_separate_parts_and_cavities_are_noted(scan: tuple[Volume, Labelmap], count: int, is_noted: bool) -> None:
    volume, labels = scan
    voxels = labels.voxels.copy()
    corner, centre = voxels[:8, :8, :8], tuple(slice(n // 2, n // 2 + 4) for n in voxels.shape)
    assert not corner.any()
    assert voxels[centre].all()
    corner[::2, ::2, ::2] = np.arange(64).reshape(4, 4, 4) < count
    voxels[centre] = np.arange(64).reshape(4, 4, 4) >= count
    notes = analyse_wall(volume, Labelmap(voxels, labels.grid)).notes
    assert ("Separate parts of the segment (0.1 mL) were ignored." in notes) == is_noted
    assert ("Cavities in the segment (0.1 mL) were filled." in notes) == is_noted
    assert any("Separate parts" in note or "Cavities" in note for note in notes) == is_noted


def notes_on_voxels(result: WallResult) -> list[str]:
    return [note for note in result.notes if note.startswith("The voxels")]


@pytest.mark.parametrize("axes", [np.eye(3), TURN], ids=["straight", "oblique"])
@pytest.mark.parametrize("degrees", [35.0, 60.0, 95.0])
def test_thin_wall_in_voxels_of_1_75_mm_has_the_true_burden_and_no_note(degrees: float, axes: np.ndarray) -> None:
    atrium = replace(PATCH, patch_degrees=degrees, shell_mm=THIN_WALL_MM)
    result = analyse_phantom(atrium, grid_about(60, (1.75, 1.75, 1.75), axes, shift=(0.3, 0.1, -0.2)))
    assert result.burden.percent == pytest.approx(50 * (1 - np.cos(np.radians(degrees))), abs=2)
    assert notes_on_voxels(result) == []


@pytest.mark.parametrize("axes", [np.eye(3), TURN], ids=["straight", "oblique"])
@pytest.mark.parametrize(("slice_mm", "points"), [(2.0, 2), (2.5, 4), (3.0, 8), (4.0, 17), (5.0, 25), (8.0, 40)])
def test_note_states_how_many_points_the_burden_of_a_thin_wall_is_too_low(
    slice_mm: float, points: int, axes: np.ndarray
) -> None:
    atrium = replace(PATCH, patch_degrees=95.0, shell_mm=THIN_WALL_MM)
    result = analyse_phantom(atrium, grid_about(60, (1.25, 1.25, slice_mm), axes, shift=(0.3, 0.1, -0.2)))
    assert result.burden.percent == pytest.approx(50 * (1 - np.cos(np.radians(95.0))) - points, abs=2)
    assert notes_on_voxels(result) == [
        f"The voxels are up to {slice_mm:g} mm long, so the burden of a thin wall (2.4 mm) may be {points} or more"
        " percentage points too low. Compare only scans whose voxels have the same size."
    ]


@pytest.mark.parametrize(("slice_mm", "count"), [(1.75, 0), (2.0, 1), (4.0, 1)])
def test_scans_whose_voxel_sizes_differ_by_rounding_errors_get_equal_notes(slice_mm: float, count: int) -> None:
    notes, spacings = [], []
    for angle in (0, 20, 40, 60):
        grid = grid_about(60, (1.25, 1.25, slice_mm), rotation(angle, -35, 50))
        rounded = Grid(grid.shape, grid.affine.astype(np.float32))  # as in a NIfTI file
        spacings.append(rounded.spacing.max())
        notes.append(notes_on_voxels(analyse_phantom(PATCH, rounded)))
    assert min(spacings) < slice_mm < max(spacings)
    assert len(notes[0]) == count
    assert all(note == notes[0] for note in notes)
