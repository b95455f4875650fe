"""Measurements agree with formulas; measurement tables are written and read."""

from __future__ import annotations

import csv
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dcamt.errors import InputError, OutputError
from dcamt.geometry import Grid
from dcamt.metrics.measurements import (
    MEASUREMENT_COLUMNS,
    TABLE_COLUMNS,
    Measurements,
    measure,
    measure_mask,
    read_measurements_csv,
    surface_area,
    write_measurements_csv,
)
from dcamt.volume import Code, Labelmap, SegmentInfo
from dcamt_testing.synthetic import read_table
from scipy.spatial.distance import pdist
from scipy.special import ellipeinc, ellipkinc
from scipy.stats import special_ortho_group

SHEAR = np.array([[1.0, 0.2, 0.1], [0.0, 1.0, 0.25], [0.0, 0.0, 1.0]])
VOXEL_AXES = {
    "isotropic": np.diag([0.625, 0.625, 0.625]),
    "thick slices": np.diag([0.625, 0.625, 2.5]),
    "thick slices, first axis": np.diag([2.5, 0.625, 0.625]),
    "clinical": np.diag([1.25, 1.25, 2.5]),
    "left-handed": np.diag([-1.0, 1.0, 1.5]),
    "sheared": SHEAR @ np.diag([0.7, 0.9, 2.0]),
    "oblique": special_ortho_group.rvs(3, random_state=3) @ np.diag([0.8, 0.8, 2.0]),
}
BODIES = {"ball": (24.0, 24.0, 24.0), "small ball": (12.0, 12.0, 12.0), "ellipsoid": (40.0, 20.0, 15.0)}
ATRIUM = SegmentInfo(1, "Left atrium", (0.8, 0.2, 0.2), Code("SCT", "82471001", "Left atrium"))
OVERLAP = {"expected_overlap": 0.92, "expected_overlap_low": 0.88, "expected_overlap_high": 0.95}


def ellipsoid(axes: np.ndarray, semi: tuple[float, ...], turn: np.ndarray, seed: int) -> np.ndarray:
    """Return the mask of an ellipsoid.

    Args:
        axes: (3, 3), columns are the voxel steps in mm.
        semi: semi-axes in mm.
        turn: (3, 3), rotates the ellipsoid in RAS.
        seed: seed of the centre's random offset.
    """
    reach = np.linalg.norm(np.linalg.inv(axes) @ turn @ np.diag(semi), axis=1)
    shape = 2 * np.ceil(reach).astype(int) + 3
    centre = (shape - 1) / 2 + np.random.default_rng(seed).uniform(-0.5, 0.5, 3)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) - centre
    return (((index @ axes.T) @ turn / np.array(semi)) ** 2).sum(axis=-1) <= 1.0


def ellipsoid_area(semi: tuple[float, ...]) -> float:
    """Return the area by Legendre's formula with incomplete elliptic integrals."""
    a, b, c = sorted(semi, reverse=True)
    if a == c:
        return 4.0 * np.pi * a * a
    angle = np.arccos(c / a)
    m = a**2 * (b**2 - c**2) / (b**2 * (a**2 - c**2))
    elliptic = ellipeinc(angle, m) * np.sin(angle) ** 2 + ellipkinc(angle, m) * np.cos(angle) ** 2
    return 2.0 * np.pi * (c**2 + a * b / np.sin(angle) * elliptic)


def measure_on_grid(mask: np.ndarray, axes: np.ndarray) -> Measurements:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, (-13.0, 40.0, 7.5)
    return measure(Labelmap(mask.astype(np.uint8), Grid(mask.shape, affine)), [ATRIUM])[0]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("grid", VOXEL_AXES)
def test_measurements_of_ellipsoids_agree_with_formulas(grid: str, body: str) -> None:
    axes, semi = VOXEL_AXES[grid], BODIES[body]
    volume, area = 4.0 / 3.0 * np.pi * np.prod(semi), ellipsoid_area(semi)
    voxel = np.linalg.norm(axes, axis=0).max()
    for seed, turn in enumerate([np.eye(3), *special_ortho_group.rvs(3, size=2, random_state=1)]):
        row = measure_on_grid(ellipsoid(axes, semi, turn, seed), axes)
        extents = 2.0 * np.linalg.norm(turn * np.array(semi), axis=1)
        assert row.volume_ml * 1000.0 == pytest.approx(volume, rel=0.01)
        assert row.surface_cm2 * 100.0 == pytest.approx(area, rel=0.02)
        assert row.long_diameter_mm == pytest.approx(2.0 * max(semi), abs=voxel)
        assert row.transverse_diameter_mm == pytest.approx(extents[0], abs=voxel)
        assert row.anteroposterior_diameter_mm == pytest.approx(extents[1], abs=voxel)
        ideal = np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / area
        assert row.sphericity == pytest.approx(ideal, rel=0.03)


def test_area_of_a_cylinder_on_thick_slices_agrees_with_its_formula() -> None:
    """The cylinder's axis is normal to the slices, so the flat ends of the cylinder consist of voxel faces."""
    axes, radius, slices = VOXEL_AXES["thick slices"], 15.0, 16
    i, j = np.meshgrid(np.arange(60), np.arange(60), indexing="ij")
    disc = (np.hypot(i - 29.3, j - 29.6) * 0.625) <= radius
    height = slices * 2.5
    area = surface_area(np.repeat(disc[:, :, None], slices, axis=2), axes)
    assert area == pytest.approx(2 * np.pi * radius * (radius + height), rel=0.06)


def test_volume_and_extents_of_a_box_are_exact() -> None:
    """Extents follow the patient's axes; here the first voxel axis runs from anterior to posterior."""
    axes = np.array([[0.0, 2.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[3:15, 5:9, 2:19] = True
    row = measure_on_grid(mask, axes)
    assert row.volume_ml == pytest.approx(12 * 4 * 17 / 1000.0)
    assert row.anteroposterior_diameter_mm == pytest.approx(12.0)
    assert row.transverse_diameter_mm == pytest.approx(8.0)
    assert row.long_diameter_mm == pytest.approx(np.sqrt(12**2 + 8**2 + 8.5**2), abs=1.5)


def test_diameters_are_measured_between_midpoints_of_voxel_faces() -> None:
    rng = np.random.default_rng(5)
    for _ in range(5):
        mask = rng.random((6, 5, 7)) < 0.2
        axes = rng.normal(size=(3, 3)) + 2 * np.eye(3)
        offsets = np.concatenate([np.eye(3), -np.eye(3)]) / 2
        points = (np.argwhere(mask)[:, None, :] + offsets[None]).reshape(-1, 3) @ axes.T
        row = measure_on_grid(mask, axes)
        assert row.long_diameter_mm == pytest.approx(pdist(points).max())
        assert row.transverse_diameter_mm == pytest.approx(np.ptp(points[:, 0]))
        assert row.anteroposterior_diameter_mm == pytest.approx(np.ptp(points[:, 1]))


def test_measurements_do_not_depend_on_order_and_direction_of_voxel_axes() -> None:
    axes = VOXEL_AXES["oblique"]
    mask = ellipsoid(axes, (20.0, 14.0, 10.0), np.eye(3), 0)
    mask[:4] = False
    turned_mask = mask.transpose(2, 0, 1)[::-1, :, ::-1]
    turned_axes = axes[:, [2, 0, 1]] * [-1.0, 1.0, -1.0]
    one, other = measure_on_grid(mask, axes), measure_on_grid(turned_mask, turned_axes)
    for column in MEASUREMENT_COLUMNS[2:]:
        # The area is approximate, and the sphericity is computed from the area.
        tolerance = 5e-3 if column in ("surface_cm2", "sphericity") else 1e-9
        assert getattr(other, column) == pytest.approx(getattr(one, column), rel=tolerance), column


def test_large_segment_is_measured_in_little_memory() -> None:
    """The distances between all pairs of hull corners would need 200 MB."""
    i, j, k = np.ogrid[-120:121, -120:121, -120:121]
    mask = i**2 + j**2 + k**2 <= 120**2
    tracemalloc.start()
    measured = measure_mask(mask, np.eye(3), "", "")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert measured.long_diameter_mm == pytest.approx(241.0)
    assert peak < 150e6


def test_area_includes_the_faces_at_the_image_border() -> None:
    axes = VOXEL_AXES["clinical"]
    half = ellipsoid(axes, (20.0, 20.0, 20.0), np.eye(3), 2)
    half = half[half.shape[0] // 2 :]
    assert surface_area(half, axes) == surface_area(np.pad(half, 5), axes)
    assert surface_area(half, axes) == pytest.approx(3 * np.pi * 20.0**2, rel=0.05)


def test_area_of_two_bodies_is_the_sum_of_their_areas() -> None:
    axes = VOXEL_AXES["isotropic"]
    ball = np.pad(ellipsoid(axes, (8.0, 8.0, 8.0), np.eye(3), 0), 4)
    both = np.concatenate([ball, ball])
    assert surface_area(both, axes) == pytest.approx(surface_area(ball, axes) * 2, rel=1e-9)


@pytest.mark.parametrize("grid", VOXEL_AXES)
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 1, 1), (1, 2, 1), (5, 4, 1), (2, 2, 2)], ids=str)
def test_no_segment_has_a_smaller_area_than_a_ball_of_equal_volume(size: tuple[int, int, int], grid: str) -> None:
    axes = VOXEL_AXES[grid]
    labelmap = Labelmap(np.ones(size, np.uint8), Grid(size, np.block([[axes, np.zeros((3, 1))], [np.zeros(3), 1.0]])))
    (row,) = measure(labelmap, [ATRIUM])
    radius = (3 * row.volume_ml * 1000 / (4 * np.pi)) ** (1 / 3)
    assert row.surface_cm2 * 100 >= 4 * np.pi * radius**2 * (1 - 1e-9)
    assert row.sphericity <= 1


def test_single_voxel_and_empty_segment_are_measured() -> None:
    voxels = np.zeros((9, 9, 9), dtype=np.uint16)
    voxels[4, 4, 4] = 300
    voxels[0] = 7
    labelmap = Labelmap(voxels, Grid((9, 9, 9), np.diag([1.0, 2.0, 3.0, 1.0])), Path("in/la7.seg.nrrd"))
    dot = SegmentInfo(300, "dot", (0, 0, 1), ATRIUM.type)
    single, empty = measure(labelmap, [dot, ATRIUM])
    assert (single.scan, single.segment) == ("la7", "dot")
    assert single.volume_ml == pytest.approx(0.006)
    assert single.long_diameter_mm == pytest.approx(3.0)
    assert single.surface_cm2 > 0
    assert np.isfinite(single.sphericity)
    assert empty.volume_ml == empty.surface_cm2 == empty.long_diameter_mm == 0.0
    assert empty.anteroposterior_diameter_mm == empty.transverse_diameter_mm == 0.0
    assert np.isnan(empty.sphericity)


def test_csv_has_blanks_for_undefined_values_and_is_read_back(tmp_path: Path) -> None:
    rows = [
        Measurements("a", 'Left "atrium", whole', 61.23456, 88.5, 70.0, 40.0, 55.5, 0.75, **OVERLAP),
        Measurements("b", "empty", 0.0, 0.0, 0.0, 0.0, 0.0, float("nan")),
    ]
    write_measurements_csv(rows, tmp_path / "out" / "m.csv")
    first, second = read_measurements_csv(tmp_path / "out" / "m.csv")
    assert first == replace(rows[0], volume_ml=61.2346)
    assert np.isnan(second.sphericity)
    read = read_table(tmp_path / "out" / "m.csv")
    assert (
        list(read[0])
        == list(TABLE_COLUMNS)
        == [
            "scan",
            "segment",
            "volume_ml",
            "surface_cm2",
            "long_diameter_mm",
            "anteroposterior_diameter_mm",
            "transverse_diameter_mm",
            "sphericity",
            "expected_overlap",
            "expected_overlap_low",
            "expected_overlap_high",
        ]
    )
    assert read[0]["segment"] == 'Left "atrium", whole'
    assert float(read[0]["volume_ml"]) == pytest.approx(61.23456, rel=1e-5)
    assert read[1]["volume_ml"] == "0"
    assert read[1]["sphericity"] == ""
    assert [read[0][column] for column in TABLE_COLUMNS[-3:]] == ["0.92", "0.88", "0.95"]
    assert [read[1][column] for column in TABLE_COLUMNS[-3:]] == [""] * 3


@pytest.mark.parametrize("lacking", ["expected_overlap", "sphericity", "diameter", "surface_cm2"])
def test_table_of_an_earlier_version_that_lacks_columns_is_read(tmp_path: Path, lacking: str) -> None:
    columns = [column for column in TABLE_COLUMNS if lacking not in column]
    numbers = [str(number) for number in range(2, len(columns))]
    with open(tmp_path / "m.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, ["a", "Left atrium", *numbers]])
    (row,) = read_measurements_csv(tmp_path / "m.csv")
    assert (row.scan, row.segment) == ("a", "Left atrium")
    written = dict(zip(columns[2:], map(float, numbers), strict=True))
    for column in TABLE_COLUMNS[2:]:
        np.testing.assert_equal(getattr(row, column), written.get(column, np.nan))


@pytest.mark.parametrize(
    "columns",
    ["scan,segment", "segment,scan,volume_ml", "scan,segment,sphericity", "scan,segment,volume_ml,remark"],
)
def test_table_with_columns_that_no_version_wrote_is_refused(tmp_path: Path, columns: str) -> None:
    (tmp_path / "m.csv").write_text(f"{columns}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"is not a table of measurements \(other columns\)"):
        read_measurements_csv(tmp_path / "m.csv")


def test_table_saved_by_excel_is_read(tmp_path: Path) -> None:
    rows = [Measurements("a", "Left atrium", 61.5, 80.0, 55.0, 40.0, 50.0, 0.75, **OVERLAP)]
    write_measurements_csv(rows, tmp_path / "m.csv")
    text = (tmp_path / "m.csv").read_text(encoding="utf-8")
    (tmp_path / "m.csv").write_text(text, encoding="utf-8-sig")
    assert read_measurements_csv(tmp_path / "m.csv") == rows


def test_missing_table_gives_no_rows_and_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    assert read_measurements_csv(tmp_path / "gone.csv") == []
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match="is not a table of measurements"):
        read_measurements_csv(tmp_path / "other.csv")


@pytest.mark.parametrize("line", ["b,LA", "b,LA,61.5", "b,LA,61.5,80.0,55.0"])
def test_table_whose_last_line_is_cut_off_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "m.csv").write_text(f"{','.join(MEASUREMENT_COLUMNS)}\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"m\.csv: is not a table of measurements \(a line has too few cells\)"):
        read_measurements_csv(tmp_path / "m.csv")


def test_writing_a_table_over_a_folder_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "m.csv").mkdir()
    with pytest.raises(OutputError):
        write_measurements_csv([], tmp_path / "m.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]
