"""DCAMT and ITK read the same grids from DICOM series whose headers state directions or positions with few decimals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.geometry import Grid
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.io.writers import write_volume
from dcamt.volume import Volume, fit_labelmap
from dcamt_testing.dicom_positions import (
    SIZE,
    STEP,
    edit_dicom,
    time_point_groups,
    write_frames,
    write_slice,
)
from dcamt_testing.dicom_series import write_enhanced_mr, write_mr_series
from dcamt_testing.scan_files import affine_from_sitk, orthogonal_matrix, refused
from pydicom.dataset import Dataset

SHAPE = (128, 120, 20)
SPACING = (0.625, 0.625, 2.5)


def oblique_affine(seed: int) -> np.ndarray:
    """Return an oblique affine (4, 4), voxel index -> RAS mm, with right-handed axes, like the axes of DICOM slices."""
    turn = orthogonal_matrix(seed)
    affine = np.eye(4)
    affine[:3, :3] = turn * np.linalg.det(turn) * SPACING
    affine[:3, 3] = (-31.25, 40.5, 12.125)
    return affine


def round_directions(data: Dataset, decimals: int) -> None:
    plane = data
    if "SharedFunctionalGroupsSequence" in data:
        plane = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = [f"{float(cosine):.{decimals}f}" for cosine in plane.ImageOrientationPatient]


def write_rounded_series(folder: Path, seed: int, decimals: int, affine: np.ndarray | None = None) -> Path:
    voxels = np.random.default_rng(seed).integers(1, 300, SHAPE)
    for path in write_mr_series(folder, voxels, oblique_affine(seed) if affine is None else affine):
        with edit_dicom(path) as data:
            round_directions(data, decimals)
    return folder


def read_with_itk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.mark.parametrize("decimals", [3, 4, 6])
@pytest.mark.parametrize("seed", range(3))
def test_series_with_rounded_directions_lies_on_the_grid_of_itk(tmp_path: Path, seed: int, decimals: int) -> None:
    folder = write_rounded_series(tmp_path / "series", seed, decimals)
    read, image = read_scan(folder), read_with_itk(folder)
    assert read.grid.matches(Grid(SHAPE, affine_from_sitk(image)))
    np.testing.assert_array_equal(read.voxels[0], sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    np.testing.assert_allclose(read.grid.spacing, SPACING, rtol=1e-5)


def test_frames_with_rounded_directions_lie_on_the_grid_of_the_same_series(tmp_path: Path) -> None:
    folder = write_rounded_series(tmp_path / "series", 1, 3)
    voxels = np.random.default_rng(1).integers(1, 300, SHAPE)
    path = write_enhanced_mr(tmp_path / "frames.dcm", voxels, oblique_affine(1), list(range(SHAPE[2])))
    with edit_dicom(path) as data:
        round_directions(data, 3)
    assert read_scan(path).grid.matches(read_scan(folder).grid)


def test_results_of_a_series_with_rounded_directions_are_read_by_itk_at_the_same_place(tmp_path: Path) -> None:
    """ITK refuses a NIfTI file if rounding shears its grid by more than 0.0001."""
    scan = read_scan(write_rounded_series(tmp_path / "series", 1, 3))
    write_volume(Volume(scan.voxels, scan.grid), tmp_path / "x.nii.gz")
    assert scan.grid.matches(Grid(SHAPE, affine_from_sitk(sitk.ReadImage(str(tmp_path / "x.nii.gz")))))


def test_label_on_the_grid_of_itk_fits_a_series_with_rounded_directions(tmp_path: Path) -> None:
    folder = write_rounded_series(tmp_path / "series", 1, 3)
    image = read_with_itk(folder)
    label = np.zeros(SHAPE[::-1], np.uint8)
    label[5:15, 40:70, 50:90] = 1
    drawn = sitk.GetImageFromArray(label)
    drawn.CopyInformation(image)
    sitk.WriteImage(drawn, str(tmp_path / "label.nrrd"))
    fitted = fit_labelmap(read_labelmap(tmp_path / "label.nrrd"), read_scan(folder).grid, folder)
    np.testing.assert_array_equal(fitted.voxels, label.transpose(2, 1, 0))


def test_slightly_tilted_slices_are_not_straightened(tmp_path: Path) -> None:
    """The tilt (0.3 degrees) shifts each slice in its plane by 0.005 of its distance from the first slice.

    Rounding the directions to 3 decimals shifts each slice by less than 0.002 of this distance.
    """
    affine = oblique_affine(1)
    affine[:3, 2] += 0.005 * SPACING[2] * affine[:3, 1] / SPACING[1]
    grid = read_scan(write_rounded_series(tmp_path / "series", 1, 8, affine)).grid
    np.testing.assert_allclose(grid.affine, affine, atol=1e-4)


def write_at(folder: Path, heights: Sequence[float], plane: np.ndarray | None = None) -> Path:
    """Write slices whose positions have one decimal; `plane` (3, 3) has their axes as rows."""
    row, column, normal = np.eye(3) if plane is None else plane
    for k, height in enumerate(heights):
        position, directions = [f"{mm:.1f}" for mm in height * normal], [f"{mm:.9f}" for mm in (*row, *column)]
        write_slice(folder / f"{k}.dcm", k, ImagePositionPatient=position, ImageOrientationPatient=directions)
    return folder


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("gap", [0.62, 1.25, 1.37, 3.33])
def test_series_whose_positions_have_one_decimal_lies_on_the_grid_of_itk(
    tmp_path: Path, gap: float, seed: int | None
) -> None:
    plane = None if seed is None else orthogonal_matrix(seed) * np.linalg.det(orthogonal_matrix(seed))
    folder = write_at(tmp_path / "series", gap * np.arange(80), plane)
    read = read_scan(folder)
    assert read.grid.matches(Grid((SIZE, SIZE, 80), affine_from_sitk(read_with_itk(folder))))
    assert read.grid.spacing[2] == pytest.approx(gap, abs=0.2 / 79)
    np.testing.assert_array_equal(read.voxels[0, 3, 3], 100 + 10 * np.arange(80))
    assert read.notes == ()


def test_frames_and_time_points_whose_positions_have_one_decimal_are_read(tmp_path: Path) -> None:
    heights = (1.25 * np.arange(39)).round(1)
    for times in (1, 2):
        groups = time_point_groups(range(39), times) if times > 1 else ()
        read = read_scan(write_frames(tmp_path / "x.dcm", [*(heights / STEP)] * times, groups))
        np.testing.assert_allclose(read.grid.spacing, [2, 2, heights[-1] / 38])
        np.testing.assert_array_equal(read.voxels[0, 3, 3], np.floor(100 + 10 * heights / STEP))


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("gap", [0.2, 0.62, 1.25, 3.33])
def test_slices_whose_positions_have_one_decimal_are_refused_if_one_is_missing_or_added_or_their_spacing_changes(
    tmp_path: Path, gap: float, seed: int | None
) -> None:
    plane = None if seed is None else orthogonal_matrix(seed) * np.linalg.det(orthogonal_matrix(seed))
    heights = gap * np.arange(20)
    for name, changed in {
        "missing": np.delete(heights, 7),
        "doubled": np.insert(heights, 7, heights[7]),
        "between": np.insert(heights, 7, heights[6] + gap / 2),
        "changing": heights * (1 + 0.5 * np.arange(20) / 20),
    }.items():
        folder = write_at(tmp_path / name, changed, plane)
        refused(lambda folder=folder: read_scan(folder), folder, "slices")
