"""Test the network grid and the resampling to and from it against SimpleITK, SciPy and formulas."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
import torch
from dcamt.errors import InputError
from dcamt.geometry import Grid, interpolation_matrix, network_grid
from dcamt.io.readers import read_labelmap
from dcamt.preprocessing import (
    labels_to_network,
    resample,
    scan_to_network,
    source_box_of,
    to_source,
)
from dcamt.recipe import Intensity, Recipe
from dcamt.recipe_files import load_recipe
from dcamt.volume import Labelmap, Volume
from dcamt_testing.analytic_scans import analytic_scan, centred_grid, dice, points_of, rotation
from scipy import ndimage

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "la"
LPS = np.diag([-1.0, -1.0, 1.0])


def reorder_axes(volume: Volume, order: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """Return the same scan with its voxel axes permuted and flipped."""
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        to_old[old, new] = -1 if flip else 1
        to_old[old, 3] = volume.grid.shape[old] - 1 if flip else 0
    voxels = volume.voxels.transpose(0, *(1 + axis for axis in order))
    voxels = np.flip(voxels, [1 + axis for axis, flip in enumerate(flips) if flip])
    return Volume(voxels, Grid(voxels.shape[1:], volume.grid.affine @ to_old))


def in_all_axis_orders(volume: Volume) -> list[Volume]:
    orders, flips = itertools.permutations(range(3)), itertools.product((False, True), repeat=3)
    return [reorder_axes(volume, *stored) for stored in itertools.product(orders, flips)]


def resample_to_network_and_back(labelmap: Labelmap, recipe: Recipe) -> np.ndarray:
    """Return labels (I, J, K) resampled to the network grid and back.

    The way back starts from probabilities of 0 and 1, the output of a network that makes no error.
    """
    grid = network_grid(labelmap.grid, recipe.spacing)
    labels = labels_to_network(labelmap, grid, recipe.output_channels)
    fractions = torch.stack([(labels == label).float() for label in range(recipe.output_channels)])
    return to_source(fractions, grid).argmax(axis=0)


def itk_image(volume: Volume) -> sitk.Image:
    image = sitk.GetImageFromArray(volume.voxels[0].transpose(2, 1, 0))
    set_grid(image, volume.grid.affine)
    return image


def set_grid(target: sitk.Image | sitk.ResampleImageFilter, affine: np.ndarray) -> None:
    """Set the grid of an image, or a resampling filter's output grid. `affine` is in RAS; SimpleITK uses LPS."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = (LPS @ affine[:3, :3] / spacing).ravel().tolist()
    origin = (LPS @ affine[:3, 3]).tolist()
    if isinstance(target, sitk.Image):
        target.SetSpacing(spacing.tolist())
        target.SetDirection(direction)
        target.SetOrigin(origin)
    else:
        target.SetOutputSpacing(spacing.tolist())
        target.SetOutputDirection(direction)
        target.SetOutputOrigin(origin)


def test_axes_of_the_network_grid_run_along_r_a_s() -> None:
    scan = analytic_scan(centred_grid((22, 19, 14), (1.5, 1.2, 2.0), rotation(9, -12, 17)))
    expected = network_grid(scan.grid, (1.0, 1.1, 0.9))
    assert (np.diag(expected.affine[:3, :3]) > 0).all()
    assert expected.shape == (33, 21, 31)  # 33 mm / 1.0, 22.8 mm / 1.1, 28 mm / 0.9
    for stored in in_all_axis_orders(scan):
        grid = network_grid(stored.grid, (1.0, 1.1, 0.9))
        assert grid.shape == expected.shape
        assert np.allclose(grid.affine, expected.affine, atol=1e-9)


@pytest.mark.parametrize("degrees", [(0, 0, 45), (45, 0, 0), (0, -45, 0)])
def test_network_grid_at_45_degrees_does_not_depend_on_axis_order(degrees: tuple[int, int, int]) -> None:
    scan = analytic_scan(centred_grid((9, 10, 11), (1.0, 1.0, 1.0), rotation(*degrees)))
    affines = [network_grid(stored.grid, (1.0, 1.0, 1.0)).affine for stored in in_all_axis_orders(scan)]
    assert np.ptp(np.round(affines, 6), axis=0).max() == 0


def test_network_grid_has_the_centre_and_nearly_the_extent_of_the_scan() -> None:
    source = centred_grid((17, 30, 11), (0.7, 1.3, 2.5), rotation(20, 5, -8))
    grid = network_grid(source, (0.625, 0.9, 1.1))
    centre = grid.affine @ [*(np.array(grid.shape) - 1) / 2, 1]
    assert np.allclose(centre[:3], points_of(source).reshape(-1, 3).mean(axis=0), atol=1e-9)
    assert np.allclose(np.linalg.norm(grid.affine[:3, :3], axis=0), (0.625, 0.9, 1.1))
    excess = np.array(grid.shape) * (0.625, 0.9, 1.1) - np.array(source.shape) * (0.7, 1.3, 2.5)
    assert (np.abs(excess) <= np.array((0.625, 0.9, 1.1)) / 2 + 1e-9).all()


def test_shape_of_the_network_grid_does_not_depend_on_rotation() -> None:
    rng = np.random.default_rng(0)
    turns = [np.eye(3), *(rotation(*rng.uniform(-20, 20, 3)) for _ in range(40))]
    for shape in [(7, 9, 11), (13, 15, 17)]:  # 7 x 0.9375 / 0.625 = 10.5, halfway between two sizes
        shapes = {network_grid(centred_grid(shape, (0.9375,) * 3, turn), (0.625,) * 3).shape for turn in turns}
        assert len(shapes) == 1


def test_error_names_the_scan_with_too_many_channels(tiny_recipe: Recipe) -> None:
    volume = Volume(np.zeros((2, 8, 8, 8)), centred_grid((8, 8, 8), (1, 1, 1)), Path("two.nii"))
    with pytest.raises(InputError, match=r"two\.nii: holds 2 volumes \(4D\), but one is needed\. Save one"):
        scan_to_network(volume, tiny_recipe)


@pytest.mark.parametrize("turn", [np.eye(3), rotation(11, -7, 19)], ids=["straight", "oblique"])
def test_upsampling_equals_linear_interpolation_by_simpleitk(turn: np.ndarray, tiny_recipe: Recipe) -> None:
    scan = reorder_axes(
        analytic_scan(centred_grid((22, 19, 14), (1.5, 1.2, 2.0), turn)), (2, 0, 1), (True, False, True)
    )
    recipe = replace(tiny_recipe, spacing=(0.9, 1.0, 0.7), intensity=Intensity("clip", low=-1e3, high=1e3))
    image, grid = scan_to_network(scan, recipe)
    resampling = sitk.ResampleImageFilter()
    resampling.SetInterpolator(sitk.sitkLinear)
    set_grid(resampling, grid.affine)
    resampling.SetSize(grid.shape)
    expected = sitk.GetArrayFromImage(resampling.Execute(itk_image(scan))).transpose(2, 1, 0)
    assert np.abs(image[0].numpy() * 1e3 - expected).max() < 2e-2  # the intensities have a range of about 500


RESAMPLINGS = [(20, 1.0, 33, 0.6), (20, 0.625, 12, 1.0), (31, 0.5, 15, 1.0), (9, 2.5, 36, 0.625), (40, 0.3, 5, 2.4)]


@pytest.mark.parametrize(("inputs", "step_in", "outputs", "step_out"), RESAMPLINGS)
def test_interpolation_weights_sum_to_1_and_keep_positions(
    inputs: int, step_in: float, outputs: int, step_out: float
) -> None:
    weights = torch.from_numpy(interpolation_matrix(inputs, step_in, outputs, step_out))
    assert weights.min() >= 0
    assert torch.allclose(weights.sum(dim=1), torch.ones(outputs, dtype=torch.float64), atol=1e-6)
    input_mm = (torch.arange(inputs) - (inputs - 1) / 2).double() * step_in
    output_mm = (torch.arange(outputs) - (outputs - 1) / 2).double() * step_out
    reach = max(step_in, step_out)
    inside = (output_mm.abs() + reach) <= input_mm.max() + 1e-9
    assert inside.any()
    error = ((weights @ input_mm) - output_mm).abs()[inside].max()
    ratio = step_out / step_in
    # A triangle filter reproduces a ramp exactly if the filter's half-width is a whole number of voxels.
    assert error < (1e-5 if ratio <= 1 or abs(ratio - round(ratio)) < 1e-9 else 0.1 * step_in)


def test_downsampling_averages_stripes_finer_than_the_grid(tiny_recipe: Recipe) -> None:
    stripes = np.zeros((1, 40, 40, 40), np.float32)
    stripes[:, ::2] = 100
    recipe = replace(tiny_recipe, spacing=(2.0, 1.0, 1.0), intensity=Intensity("clip", low=0, high=100))
    image, _ = scan_to_network(Volume(stripes, centred_grid((40, 40, 40), (1, 1, 1))), recipe)
    assert image.shape == (1, 20, 40, 40)
    assert image[:, 1:-1].abs().max() < 1e-5  # the mean intensity, 50, is mapped to 0


AXIS_ORDERS = [((0, 1, 2), (False,) * 3), ((2, 0, 1), (True, False, True)), ((1, 2, 0), (False, True, True))]


def test_values_resampled_from_the_network_grid_keep_their_positions() -> None:
    for order, flips in AXIS_ORDERS:
        scan = reorder_axes(
            analytic_scan(centred_grid((22, 19, 14), (1.5, 1.2, 2.0), rotation(9, -12, 17))), order, flips
        )
        grid = network_grid(scan.grid, (1.1, 1.0, 0.9))
        coordinates = points_of(Grid(grid.shape, grid.affine)).transpose(3, 0, 1, 2)
        back = to_source(torch.from_numpy(coordinates), grid).transpose(1, 2, 3, 0)
        assert back.shape == (*scan.grid.shape, 3)
        error = np.abs(back - points_of(scan.grid))[2:-2, 2:-2, 2:-2]
        assert error.max() < 0.1 * 1.1  # mm; a tenth of a voxel


SPACINGS = [(1.1, 1.0, 0.9), (2.6, 1.2, 4.0), (1.5, 1.2, 2.0)]
"""Spacings of the network grid in mm, for tests whose scan has a spacing of 1.5 x 1.2 x 2.0 mm.

The first spacing is finer than the scan's. The second is coarser along two axes. The third equals the scan's.
"""


def test_read_only_voxels_are_resampled_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    voxels = np.zeros((1, 8, 8, 8), np.float32)
    voxels.flags.writeable = False
    volume = Volume(voxels, Grid((8, 8, 8), np.eye(4)))
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        resample(volume, network_grid(volume.grid, (1.0, 1.0, 1.0)))
    finally:
        torch.set_warn_always(always)
    assert not recwarn.list


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS, ids=str)
def test_resampling_to_a_box_equals_resampling_to_the_whole_scan_and_cropping(
    order: tuple[int, ...], flips: tuple[bool, ...], spacing: tuple[float, float, float]
) -> None:
    scan = reorder_axes(analytic_scan(centred_grid((22, 19, 14), (1.5, 1.2, 2.0))), order, flips)
    grid = network_grid(scan.grid, spacing)
    values = torch.rand((2, *grid.shape), generator=torch.Generator().manual_seed(0))
    part = (slice(3, 9), slice(0, 7), slice(5, 14))
    assert np.allclose(to_source(values, grid, part), to_source(values, grid)[(slice(None), *part)], atol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS, ids=str)
def test_source_box_equals_the_box_found_by_brute_force(
    order: tuple[int, ...], flips: tuple[bool, ...], spacing: tuple[float, float, float]
) -> None:
    scan = reorder_axes(analytic_scan(centred_grid((22, 19, 14), (1.5, 1.2, 2.0))), order, flips)
    grid = network_grid(scan.grid, spacing)
    box = (slice(2, 5), slice(0, 3), slice(3, 4))
    values = torch.zeros(grid.shape)
    values[box] = 1
    changed = np.argwhere(to_source(values, grid) > 0)
    reached = np.array([(side.start, side.stop) for side in source_box_of(box, grid)])
    assert reached[:, 0].tolist() == changed.min(axis=0).tolist()
    assert reached[:, 1].tolist() == (changed.max(axis=0) + 1).tolist()


def smooth_label(grid: Grid) -> Labelmap:
    """Return the label of a body of about 44 mL with bulges and a vein."""
    x, y, z = np.moveaxis(points_of(grid) - points_of(grid).reshape(-1, 3).mean(axis=0), -1, 0)
    azimuth = np.arctan2(y, x)
    radius = np.sqrt((x / 26) ** 2 + (y / 21) ** 2 + (z / 19) ** 2)
    body = radius < 1 + 0.12 * np.cos(3 * azimuth) * np.exp(-((z / 12) ** 2))
    vein = (y**2 + (z - 4) ** 2 < 5**2) & (x > 0) & (x < 31)
    return Labelmap((body | vein).astype(np.uint8), grid)


@pytest.mark.parametrize("spacing", [(0.625,) * 3, (0.625, 0.625, 2.5), (0.7, 0.7, 0.7), (1.25, 1.25, 2.0)], ids=str)
@pytest.mark.parametrize("turn", [np.eye(3), rotation(8, 14, -11)], ids=["straight", "oblique"])
def test_labels_are_nearly_preserved_by_resampling_to_the_network_grid_and_back(
    spacing: tuple[float, float, float], turn: np.ndarray
) -> None:
    shape = tuple(round(mm / step) for mm, step in zip((70, 56, 52), spacing, strict=True))
    labelmap = smooth_label(centred_grid(shape, spacing, turn))  # type: ignore[arg-type]
    back = resample_to_network_and_back(labelmap, load_recipe("la"))
    score = dice(back == 1, labelmap.voxels == 1)
    assert score > 0.98
    if spacing == (0.625,) * 3:
        assert score == 1


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the left-atrium cases, which are not in the repository")
@pytest.mark.parametrize("name", ["la000", "la017", "la042"])
def test_real_labels_are_nearly_preserved_by_resampling_to_the_network_grid_and_back(name: str) -> None:
    path = REAL / f"{name}_label.nii.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} does not exist")
    full, recipe = read_labelmap(path), load_recipe("la")
    assert np.array_equal(resample_to_network_and_back(full, recipe), full.voxels)
    affine = full.grid.affine.copy()
    affine[:, 2] *= 4  # keep every fourth slice: 0.625 x 0.625 x 2.5 mm, a usual spacing
    thick = np.ascontiguousarray(full.voxels[:, :, 1::4])
    affine[:3, 3] += full.grid.affine[:3, 2]
    labelmap = Labelmap(thick, Grid(thick.shape, affine))
    assert dice(resample_to_network_and_back(labelmap, recipe) == 1, thick == 1) > 0.98


def test_voxel_gets_the_class_that_fills_most_of_it() -> None:
    recipe = replace(load_recipe("la"), spacing=(2.0, 2.0, 2.0))
    recipe = replace(recipe, classes=tuple(replace(recipe.classes[0], label=label) for label in (1, 2, 3)))
    voxels = np.random.default_rng(4).integers(0, 4, (20, 18, 16)).astype(np.uint16)
    voxels[:10] = np.sort(voxels[:10], axis=0)
    labelmap = Labelmap(voxels, centred_grid(voxels.shape, (1.0, 1.0, 1.0)))
    grid = network_grid(labelmap.grid, recipe.spacing)
    # Reference: SciPy's correlation with the triangle filter for half the resolution, (1, 3, 3, 1) / 8.
    fractions = []
    for label in range(4):
        fraction = (voxels == label).astype(float)
        for axis in range(3):
            fraction = ndimage.correlate1d(fraction, np.array([1, 3, 3, 1]) / 8, axis=axis, origin=-1, mode="nearest")
        fractions.append(fraction[0::2, 0::2, 0::2])
    ranked = np.sort(fractions, axis=0)
    clear = np.zeros(grid.shape, bool)
    clear[1:-1, 1:-1, 1:-1] = (ranked[-1] - ranked[-2] > 1e-4)[1:-1, 1:-1, 1:-1]
    assert clear.sum() > 300
    assert np.array_equal(
        labels_to_network(labelmap, grid, recipe.output_channels).numpy()[clear],
        np.argmax(fractions, axis=0)[clear],
    )


def test_voxel_filled_equally_by_two_classes_gets_the_lower_label() -> None:
    recipe = replace(load_recipe("la"), spacing=(2.0, 2.0, 2.0))
    for label_first in (True, False):
        voxels = np.zeros((20, 8, 8), np.uint8)
        voxels[:9] = label_first  # the border lies in the middle of a voxel of the coarser grid
        voxels[9:] = not label_first
        labelmap = Labelmap(voxels, centred_grid((20, 8, 8), (1.0, 1.0, 1.0)))
        labels = labels_to_network(labelmap, network_grid(labelmap.grid, recipe.spacing), recipe.output_channels)
        assert labels[:, 2, 2].tolist() == ([1] * 4 + [0] * 6 if label_first else [0] * 5 + [1] * 5)
