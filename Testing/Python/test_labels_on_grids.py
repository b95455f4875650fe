"""Labels are placed on the scan's grid or refused; segments are chosen by name; label values are mapped."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.readers import read_labelmap, read_scan, read_segments
from dcamt.io.writers import write_labelmap
from dcamt.metrics.pair_scoring import score_case
from dcamt.volume import GRID_TOLERANCE, Labelmap, enclosing_grid, fit_labelmap, grid_difference, same_grid
from dcamt_testing.analytic_scans import centred_grid, rotation
from dcamt_testing.scan_files import LEFT_ATRIUM, WALL, affine_of, orthogonal_matrix, refused

GRID = Grid((30, 24, 20), affine_of(orthogonal_matrix(2) * (0.68359375, 0.7, 1.25)))


def two_boxes() -> np.ndarray:
    voxels = np.zeros(GRID.shape, np.uint8)
    voxels[8:15, 5:11, 6:12], voxels[15:18, 5:11, 6:9] = 1, 5
    return voxels


def test_grids_match_if_they_differ_only_by_rounding(tmp_path: Path) -> None:
    rounded = Grid(GRID.shape, [[float(f"{number:.6g}") for number in row] for row in GRID.affine])  # type: ignore[arg-type]
    mm, voxels = grid_difference(rounded, GRID)
    assert 0 < voxels < 0.001
    assert mm < 0.001
    fitted = fit_labelmap(Labelmap(two_boxes(), rounded), GRID, "scan.nrrd")
    np.testing.assert_array_equal(fitted.voxels, two_boxes())
    assert fitted.grid is GRID


@pytest.mark.parametrize("fraction", [0.5 * GRID_TOLERANCE, 2 * GRID_TOLERANCE, 0.5])
def test_tolerance_is_a_fraction_of_a_voxel(fraction: float) -> None:
    affine = GRID.affine.copy()
    affine[:3, 3] += fraction * affine[:3, 2]
    moved = Labelmap(two_boxes(), Grid(GRID.shape, affine), Path("label.nrrd"))
    assert grid_difference(moved.grid, GRID) == pytest.approx((1.25 * fraction, fraction))
    assert same_grid(moved.grid, GRID) == (fraction <= GRID_TOLERANCE)
    if fraction <= GRID_TOLERANCE:
        assert fit_labelmap(moved, GRID, "scan.nrrd").grid is GRID
    else:
        with pytest.raises(
            InputError, match=rf"label.nrrd: .*{1.25 * fraction:.2g} mm \({fraction:.2g} voxels\) apart"
        ):
            fit_labelmap(moved, GRID, "scan.nrrd")


@pytest.mark.parametrize(("steps", "distance"), [(10.3, r"12\.9"), (1000, "1250"), (20000, "25000")])
def test_message_states_the_distance_of_the_centres_of_distant_grids(steps: float, distance: str) -> None:
    affine = GRID.affine.copy()
    affine[:3, 3] += steps * affine[:3, 2]
    moved = Labelmap(two_boxes(), Grid(GRID.shape, affine), Path("label.nrrd"))
    with pytest.raises(InputError, match=f"the centres of the two grids lie {distance} mm apart"):
        fit_labelmap(moved, GRID, "scan.nrrd")


def test_message_names_what_differs_if_label_and_scan_have_the_same_centre() -> None:
    affine = GRID.affine.copy()
    affine[:3, 3] = -172.3456789, -108.7654321, -1234.5678912
    grid, box = Grid(GRID.shape, affine), (slice(1, 29), slice(1, 23), slice(1, 19))
    cropped = Labelmap(two_boxes()[box], grid.crop(box), Path("label.nrrd"))
    with pytest.raises(InputError, match=": the two grids have the same centre, but different numbers of voxels"):
        fit_labelmap(cropped, grid, "scan.nrrd")
    finer = affine @ np.diag([0.5, 0.5, 0.5, 1])
    finer[:3, 3] -= affine[:3, :3] @ [0.25, 0.25, 0.25]
    resampled = Labelmap(two_boxes().repeat(2, 0).repeat(2, 1).repeat(2, 2), Grid((60, 48, 40), finer), None)
    with pytest.raises(InputError, match=": the two grids have the same centre, but different spacings"):
        fit_labelmap(resampled, grid, "scan.nrrd")


@pytest.mark.parametrize("thickness", [0.01, 0.1])
def test_message_contains_a_small_angle_between_grids_of_thin_slices(thickness: float) -> None:
    shape, spacing = (512, 512, 10), (0.5, 0.5, thickness)
    turned = Labelmap(np.zeros(shape, np.uint8), centred_grid(shape, spacing, rotation(0.03, 0, 0)), None)
    with pytest.raises(InputError, match=r"the same centre, but their axes are turned by 0\.03 degrees"):
        fit_labelmap(turned, centred_grid(shape, spacing), "scan.nrrd")


def test_centres_that_differ_only_by_rounding_count_as_the_same_in_messages() -> None:
    scan, other = centred_grid((30, 24, 20), (1, 1, 1)), centred_grid((28, 22, 18), (1, 1, 1))
    cropped = Grid(other.shape, other.affine + np.outer([1, 1, 1, 0], [0, 0, 0, 0.0007]))
    turned = centred_grid((30, 24, 20), (1, 1, 1), rotation(5, 0, 0))
    for grid, what in ((cropped, "different numbers of voxels"), (turned, "their axes are turned by 5 degrees")):
        with pytest.raises(InputError, match=f"the two grids have the same centre, but {what}"):
            fit_labelmap(Labelmap(np.zeros(grid.shape, np.uint8), grid), scan, "scan.nrrd")


def test_message_says_that_the_sizes_differ_if_two_axes_have_swapped_sizes() -> None:
    swapped = Labelmap(np.zeros((24, 30, 20), np.uint8), centred_grid((24, 30, 20), (1, 1, 1)), Path("label.nrrd"))
    with pytest.raises(InputError, match="the same centre, but different numbers of voxels"):
        fit_labelmap(swapped, centred_grid((30, 24, 20), (1, 1, 1)), "scan.nrrd")


def test_label_with_another_axis_order_is_reoriented() -> None:
    voxels = two_boxes().transpose(2, 0, 1)[::-1]
    affine = GRID.affine[:, [2, 0, 1, 3]] * [-1, 1, 1, 1]
    affine[:3, 3] += GRID.affine[:3, 2] * (GRID.shape[2] - 1)
    turned = Labelmap(np.ascontiguousarray(voxels), Grid((20, 30, 24), affine))
    np.testing.assert_array_equal(fit_labelmap(turned, GRID, "scan").voxels, two_boxes())


def test_cropped_segmentation_is_placed_on_the_grid_of_the_scan() -> None:
    box = (slice(8, 18), slice(5, 11), slice(6, 12))
    part = Labelmap(two_boxes()[box], GRID.crop(box), partial=True)
    np.testing.assert_array_equal(fit_labelmap(part, GRID, "scan").voxels, two_boxes())
    affine = part.grid.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (part.grid.shape[0] - 1)
    affine[:3, 0] *= -1
    flipped = Labelmap(np.ascontiguousarray(part.voxels[::-1]), Grid(part.grid.shape, affine), partial=True)
    np.testing.assert_array_equal(fit_labelmap(flipped, GRID, "scan").voxels, two_boxes())
    with pytest.raises(InputError, match="a different grid"):
        fit_labelmap(Labelmap(two_boxes()[box], GRID.crop(box)), GRID, "scan")


def test_segmentation_with_half_the_slice_spacing_is_placed_on_the_grid_unless_shifted() -> None:
    voxels = np.zeros((*GRID.shape[:2], 2 * GRID.shape[2]), np.uint8)
    voxels[..., ::2] = two_boxes()
    affine = GRID.affine.copy()
    affine[:3, 2] /= 2
    part = Labelmap(voxels, Grid(voxels.shape, affine), partial=True)
    np.testing.assert_array_equal(fit_labelmap(part, GRID, "scan").voxels, two_boxes())
    affine[:3, 3] += 0.4 * affine[:3, 0]
    shifted = Labelmap(voxels, Grid(voxels.shape, affine), partial=True)
    size = " x ".join(str(n) for n in voxels.shape)
    with pytest.raises(InputError, match=rf"a different grid \({size} voxels"):
        fit_labelmap(shifted, GRID, "scan")


def test_only_background_may_extend_beyond_the_scan() -> None:
    wide = np.pad(two_boxes(), 3)
    affine = GRID.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [3, 3, 3]
    part = Labelmap(wide, Grid(wide.shape, affine), partial=True)
    np.testing.assert_array_equal(fit_labelmap(part, GRID, "scan").voxels, two_boxes())
    wide[0, 0, 0] = 1
    with pytest.raises(InputError, match="some of its labelled voxels lie outside that grid"):
        fit_labelmap(part, GRID, "scan")


def test_cropped_segmentation_file_is_placed_on_the_grid_of_the_scan(tmp_path: Path) -> None:
    box = (slice(8, 18), slice(5, 11), slice(6, 12))
    path = tmp_path / "Segmentation.seg.nrrd"
    write_labelmap(Labelmap(two_boxes()[box], GRID.crop(box)), path, [LEFT_ATRIUM, WALL])
    itk = sitk.ReadImage(str(path))
    assert itk.GetSize() == (10, 6, 6)
    np.testing.assert_array_equal(fit_labelmap(read_labelmap(path), GRID, "scan").voxels, two_boxes())


def test_segments_are_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "s.seg.nrrd"
    write_labelmap(Labelmap(two_boxes(), GRID), path, [LEFT_ATRIUM, WALL])
    assert [segment.name for segment in read_segments(path)] == ["Left atrium", "Atrial wall"]
    for name in ("Left atrium", "left-atrium", "LEFT_ATRIUM"):
        np.testing.assert_array_equal(read_labelmap(path, {name: 1}).voxels, two_boxes() == 1)
    np.testing.assert_array_equal(
        read_labelmap(path, {"atrial wall": 2, 1: 3}).voxels, 2 * (two_boxes() == 5) + 3 * (two_boxes() == 1)
    )
    for label in (-1, 256, 1.5):
        for mapping in ({5: label}, {"Left atrium": label}):
            refused(
                lambda mapping=mapping: read_labelmap(path, mapping),
                path,
                f"the label {label}",
                "0 (background) to 255",
            )
    refused(lambda: read_labelmap(path, {"aorta": 1}), path, 'no segment "aorta"', '"Left atrium", "Atrial wall"')


def test_several_values_are_mapped_to_one_value(tmp_path: Path) -> None:
    path = tmp_path / "whs.nii.gz"
    voxels = np.random.default_rng(0).choice([0, 205, 420, 500, 550], GRID.shape).astype(np.uint16)
    write_labelmap(Labelmap(voxels, GRID), path)
    np.testing.assert_array_equal(read_labelmap(path, {420: 1}).voxels, voxels == 420)
    np.testing.assert_array_equal(read_labelmap(path, {420: 1, 550: 1}).voxels, np.isin(voxels, (420, 550)))
    assert read_labelmap(path).voxels.max() == 550
    for label in (-1, 256, 300):
        refused(lambda label=label: read_labelmap(path, {420: label}), path, f"gives 420 the label {label}")


def test_one_slice_is_read_as_a_labelmap_but_refused_as_a_scan(tmp_path: Path) -> None:
    path = tmp_path / "thin.nrrd"
    write_labelmap(Labelmap(two_boxes()[:, :, 6:7], GRID.crop((slice(0, 30), slice(0, 24), slice(6, 7)))), path)
    assert read_labelmap(path).voxels.shape == (30, 24, 1)
    refused(lambda: read_scan(path), path, "one slice only")


def test_segmentations_cropped_to_different_boxes_are_compared_on_a_common_grid() -> None:
    first, second = two_boxes(), np.roll(two_boxes(), 2, axis=0)
    boxes = [(slice(6, 19), slice(4, 12), slice(5, 13)), (slice(9, 21), slice(3, 14), slice(4, 12))]
    cropped = [
        Labelmap(voxels[box], GRID.crop(box), partial=True) for voxels, box in zip((first, second), boxes, strict=True)
    ]
    whole = [Labelmap(voxels, GRID) for voxels in (first, second)]
    expected = [row.score for row in score_case("x", whole[0], whole[1], [1, 5])]
    for prediction, label in (cropped, (whole[0], cropped[1]), (cropped[0], whole[1])):
        scores = [row.score for row in score_case("x", prediction, label, [1, 5])]
        for cropped_score, whole_score in zip(scores, expected, strict=True):
            np.testing.assert_allclose(astuple(cropped_score), astuple(whole_score))


def test_enclosing_grid_is_the_second_grid_if_the_first_is_rotated_or_far_away() -> None:
    rotated = Grid(GRID.shape, affine_of(orthogonal_matrix(3) * (0.68359375, 0.7, 1.25)))
    assert enclosing_grid(rotated, GRID) is GRID
    far = GRID.affine.copy()
    far[:3, 3] += 1e6
    assert enclosing_grid(Grid(GRID.shape, far), GRID) is GRID
