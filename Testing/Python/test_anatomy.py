"""The box of a scan's anatomy leaves out padding of several kinds and keeps tissue."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from dcamt.geometry import Box
from dcamt.inference import anatomy
from dcamt.inference.anatomy import (
    AVERAGED,
    BLUR,
    BOX_FILTER_REACH,
    _is_empty,
    _is_smooth_noise,
    _roughness,
    _without_blurred_rim,
    _without_empty_faces,
    anatomy_box,
)
from dcamt.recipe import Intensity
from dcamt.volume import Volume
from dcamt_testing.analytic_scans import centred_grid
from dcamt_testing.large_scans import AT, FIELD, RECIPE, SMALL_SHAPE, SPACING, scan_in
from scipy.ndimage import gaussian_filter


def test_scan_of_noise_or_zeros_has_no_anatomy() -> None:
    noise = np.random.default_rng(1).normal(300, 100, (1, *FIELD)).astype(np.float32)
    local = replace(RECIPE, intensity=Intensity("local"))
    assert anatomy_box(Volume(np.abs(noise), centred_grid(FIELD, SPACING)), replace(local, spacing=(3.0,) * 3)) is None
    assert anatomy_box(Volume(np.zeros_like(noise), centred_grid(FIELD, SPACING)), local) is None


COARSE_MM = AVERAGED * min(RECIPE.spacing)
"""The edge length, in mm, of a voxel of the coarse grid on which `anatomy_box` finds the anatomy."""


def tissue_box() -> Box:
    """Return the box of the tissue in `scan_in("air")` and in `scan_in("noise")`."""
    i, j, k = (slice(at, at + n) for at, n in zip(AT, SMALL_SHAPE, strict=True))
    return i, j, k


def test_white_noise_is_cut_off_with_at_most_a_coarse_voxel_of_tissue() -> None:
    scan, _ = scan_in("noise")
    box = anatomy_box(scan, RECIPE)
    assert box is not None
    for side, tissue, spacing in zip(box, tissue_box(), SPACING, strict=True):
        assert 0 <= side.start - tissue.start <= COARSE_MM / spacing
        assert 0 <= tissue.stop - side.stop <= COARSE_MM / spacing


def test_constant_padding_is_cut_off_exactly() -> None:
    scan, _ = scan_in("air")
    i, j, k = tissue_box()
    assert anatomy_box(scan, RECIPE) == (i, j, k)
    flat = np.full_like(scan.voxels, 7)
    for channels in ((flat, scan.voxels), (scan.voxels, flat)):
        assert anatomy_box(Volume(np.concatenate(channels), scan.grid), RECIPE) == (i, j, k)
    # A small connected group of voxels in the padding is kept.
    scan.voxels[0, AT[0] - 3, AT[1] : AT[1] + 5, 7:10] = 2
    assert anatomy_box(scan, RECIPE) == (slice(AT[0] - 3, i.stop), j, k)


def test_box_includes_the_tissue_of_a_channel_with_small_values() -> None:
    """A diffusion coefficient in mm²/s may be a millionth of the intensities of another channel."""
    scan, _ = scan_in("air")
    small = (scan.voxels + 1) * 1e-3
    large = np.zeros_like(small)
    half = (slice(None), slice(AT[0], AT[0] + SMALL_SHAPE[0] // 2))
    large[half] = small[half] * 1e7
    two = Volume(np.concatenate((large, small)), scan.grid)
    assert anatomy_box(two, replace(RECIPE, intensity=Intensity("local"))) == tissue_box()


def test_box_of_tissue_that_fills_the_scan_is_the_whole_scan() -> None:
    """The scans' edge lengths are not multiples of the coarse grid's spacing."""
    for shape in ((171, 33, 29), (50, 61, 43)):
        noise = np.random.default_rng(0).normal(0, 1, (1, *shape))
        tissue = Volume(gaussian_filter(noise, 3).astype(np.float32) * 20, centred_grid(shape, (0.625, 0.7, 1.1)))
        assert anatomy_box(tissue, RECIPE) == tuple(slice(0, n) for n in shape)


def test_slowly_varying_padding_is_cut_off_to_within_two_coarse_voxels() -> None:
    """The padding's intensity increases along the first axis.

    - Each plane of padding perpendicular to the first axis is constant, so the box is exact along this axis.
    - No plane of padding perpendicular to the second axis is constant, so the box is only as exact as the coarse grid.
    """
    scan, _ = scan_in("air")
    where = tissue_box()
    ramp = np.broadcast_to(-0.8 + 0.0005 * np.arange(FIELD[0])[:, None, None], FIELD).astype(np.float32)
    padded = ramp.copy()
    padded[where] = scan.voxels[0][where]
    box = anatomy_box(Volume(padded[None], scan.grid), RECIPE)
    assert box is not None
    assert box[0] == where[0]
    # Along the second axis, a voxel measures 1 mm.
    assert -2 * COARSE_MM <= box[1].start - where[1].start <= COARSE_MM
    assert -COARSE_MM <= box[1].stop - where[1].stop <= 2 * COARSE_MM


def test_outlier_voxels_cause_the_loss_of_at_most_a_rim_of_tissue() -> None:
    """A few outlier voxels, such as metal in CT, can dominate the variance of a plane of tissue.

    `anatomy_box` then mistakes the plane for noise, and removes the plane if it is an outer plane of the box.
    """
    scan, _ = scan_in("air")
    wild = np.random.default_rng(0).random(scan.voxels.shape) < 0.002
    box = anatomy_box(Volume(np.where(wild, 200, scan.voxels), scan.grid), RECIPE)
    assert box is not None
    # At each end of an axis, `anatomy_box` removes at most `reach_mm` (here `rim`) of tissue.
    rim = (3 * BOX_FILTER_REACH + 1.5) * COARSE_MM
    for side, tissue in zip(box[:2], tissue_box()[:2], strict=True):  # along these axes, a voxel measures 1 mm
        assert side.start <= tissue.start + rim
        assert side.stop >= tissue.stop - rim


def test_planes_of_noise_are_removed_at_both_ends_of_each_axis() -> None:
    white = np.random.default_rng(2).normal(100, 20, (1, 26, 25, 24)).astype(np.float32)
    box: Box = (slice(1, 25), slice(0, 25), slice(2, 24))
    noise = white.copy()
    noise[:, 5:20, 5:21, 5:22] = 100 + 10 * gaussian_filter(noise - 100, 2)[:, 5:20, 5:21, 5:22]
    inner = (slice(5, 20), slice(5, 21), slice(5, 22))
    assert _without_empty_faces(noise, box, (9, 9, 9)) == inner
    # A further constant channel changes nothing.
    assert _without_empty_faces(np.concatenate([np.full_like(noise, 7), noise]), box, (9, 9, 9)) == inner
    assert _without_empty_faces(noise, box, (4, 3, 0)) == (slice(5, 21), slice(3, 22), slice(2, 24))
    for voxels in (white, np.full_like(white, 0.1)):
        assert _without_empty_faces(voxels, box, (99, 99, 99)) == box


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.float32, np.float64])
def test_noise_and_constant_planes_are_recognised_in_each_data_type(dtype: type) -> None:
    """Pitfalls: differences of unsigned integers overflow, and the mean of many values 0.1 is not exactly 0.1."""
    values = np.random.default_rng(3).integers(0, 120, (1, 40, 50))
    steps = np.repeat(np.repeat(values[:, ::8, ::8], 8, axis=1), 8, axis=2)[:, :40, :50]
    factor = 60000 / 120 if dtype is np.uint16 else 1
    assert _is_empty((values * factor).astype(dtype))
    assert not _is_empty((steps * factor).astype(dtype))
    assert _is_empty(np.full((1, 40, 50), 0.1).astype(dtype))


def test_blurred_rim_is_removed() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[3:15, :, 8:10] = True
    remaining = _without_blurred_rim(mask)
    expected = np.zeros_like(mask)
    # No rim is removed at the scan's border (second axis), nor along the third axis, where the mask is too thin.
    expected[3 + BLUR : 15 - BLUR, :, 8:10] = True
    assert np.array_equal(remaining, expected)
    assert not _without_blurred_rim(np.zeros_like(mask)).any()


def smoothed(
    noise: np.ndarray, sigma: float | tuple[float, ...], mean: float = 100, deviation: float = 30
) -> np.ndarray:
    lumps = gaussian_filter(noise, sigma)
    return np.asarray(mean + deviation * lumps / lumps.std())


def test_smooth_noise_is_distinguished_from_structures() -> None:
    draw = np.random.default_rng(4)
    for sigma in (0.7, 1.0):
        noise = smoothed(draw.normal(size=(1, 200, 90)), (0, sigma, sigma))
        assert not _is_empty(noise)
        assert _is_smooth_noise(noise)
        assert _is_smooth_noise(np.abs(noise - 100))  # half-normal noise
        assert _is_smooth_noise(np.concatenate([np.full_like(noise, 7), noise]))
    # Structures that are elongated along one axis, periodic structures and sparse structures (a few vessels) are not
    # noise.
    for sigma in ((0, 1, 4), (0, 4, 1)):
        assert not _is_smooth_noise(smoothed(draw.normal(size=(1, 200, 90)), sigma))
    i, j = np.meshgrid(np.arange(200), np.arange(90), indexing="ij")
    for period in (8, 16):
        a, b = 2 * np.pi * i / period, 2 * np.pi * j / period
        for waves in (np.sin(a) * np.cos(b), np.sin(a) + 0 * b, np.sin(b) + 0 * a):
            assert not _is_smooth_noise(waves[None])
    # Waves of varying amplitude are not noise, although their values have the distribution of noise.
    sine, cosine = (gaussian_filter(draw.normal(size=(200, 90)), 8) for _ in range(2))
    assert not _is_smooth_noise((sine * np.sin((i + j) * np.pi / 4) + cosine * np.cos((i + j) * np.pi / 4))[None])
    vessels = gaussian_filter((draw.random((1, 200, 90)) < 0.003).astype(float), (0, 1, 1))
    assert not _is_smooth_noise(vessels + draw.normal(0, 0.01, vessels.shape))
    assert not _is_smooth_noise(draw.normal(size=(1, 200, 8)))  # too few voxels to decide


def test_roughness_is_half_the_mean_squared_difference_of_neighbours() -> None:
    i, j, k = np.meshgrid(np.arange(5.0), np.arange(4.0), np.arange(3.0), indexing="ij")
    ramps = torch.from_numpy(np.stack([2 * i + 3 * j - 5 * k, i * i]))
    slopes, parabola = _roughness(ramps)
    # Along the three axes, neighbours differ by 2, 3 and -5.
    assert torch.allclose(slopes, torch.full_like(slopes, (4 + 9 + 25) / 3 / 2))
    # Along the first axis, neighbours differ by 1, 3, 5 and 7. The last voxel has no next neighbour and takes the
    # previous voxel's difference.
    assert torch.allclose(parabola[:, 0, 0], torch.tensor([1.0, 9, 25, 49, 49], dtype=torch.float64) / 3 / 2)
    constant = torch.ones(1, 1, 4, 1)
    assert not _roughness(constant).any()


FINE = replace(RECIPE, intensity=Intensity("local"), spacing=(0.625,) * 3)
SMALL: Box = (slice(50, 170), slice(31, 135), slice(0, 60))
"""The box of the tissue in a larger field of view."""


def insert_tissue(field: np.ndarray, spacing: float = 0.625) -> Volume:
    """Put smooth tissue into the box `SMALL` of a field of view (I, J, K)."""
    draw = np.random.default_rng(6)
    size = tuple(side.stop - side.start for side in SMALL)
    field[SMALL] = smoothed(draw.normal(size=size), 8) + draw.normal(0, 3, size)
    return Volume(field[None].astype(np.float32), centred_grid(field.shape, (spacing,) * 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [0.7, 1.0])
def test_smooth_noise_is_cut_off_to_within_two_voxels(sigma: float) -> None:
    """Such noise arises when a scan that was padded with noise is interpolated."""
    noise = smoothed(np.random.default_rng(7).normal(size=(330, 260, 60)), sigma)
    box = anatomy_box(insert_tissue(noise), FINE)
    assert box is not None
    for side, tissue in zip(box, SMALL, strict=True):
        assert abs(side.start - tissue.start) <= 2
        assert abs(side.stop - tissue.stop) <= 2


def test_smooth_noise_is_kept_when_tissue_could_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = smoothed(np.random.default_rng(7).normal(size=(220, 180, 60)), 0.6)
    wide = replace(FINE, training=replace(FINE.training, patch=(320, 16, 16)))
    coarse = replace(FINE, spacing=(1.1,) * 3)
    cases = [
        (FINE, 0.625),  # the only case in which the noise is cut off
        (wide, 0.625),  # the tissue is smaller than half a patch
        (coarse, 0.625),  # the voxels of the coarse grid are large
        (FINE, 1.05),  # the voxels of the scan are large
    ]
    boxes = [anatomy_box(insert_tissue(noise.copy(), spacing), recipe) for recipe, spacing in cases]
    monkeypatch.setattr(anatomy, "_without_smooth_noise", lambda volume, box, *_: box)
    uncut = [anatomy_box(insert_tissue(noise.copy(), spacing), recipe) for recipe, spacing in cases]
    assert [box == whole for box, whole in zip(boxes, uncut, strict=True)] == [False, True, True, True]


def test_finely_structured_tissue_is_kept() -> None:
    """One scan shows vessels in a uniform background; two show tissue whose noise is stronger than its structure."""
    draw = np.random.default_rng(8)
    shape = (180, 160, 90)
    places = np.argwhere(draw.random((shape[0], shape[1])) < 0.01)
    vessels = np.zeros(shape)
    wander = np.cumsum(draw.normal(0, 0.4, (len(places), shape[2], 2)), axis=1)
    for (i, j), path in zip(places, wander, strict=True):
        at = np.rint(path + np.array((i, j))).astype(int)
        inside = ((at >= 0) & (at < shape[:2])).all(axis=1)
        vessels[at[inside, 0], at[inside, 1], np.arange(shape[2])[inside]] = 1
    vessels = gaussian_filter(vessels, 1.0)
    faint = 100 + smoothed(draw.normal(size=shape), 8, 0, 20) + smoothed(draw.normal(size=shape), 0.8, 0, 30)
    hidden = 100 + smoothed(draw.normal(size=shape), 8, 0, 10) + smoothed(draw.normal(size=shape), 0.8, 0, 40)
    for voxels in (60 + 2000 * vessels + draw.normal(0, 5, shape), faint, hidden):
        scan = Volume(voxels[None].astype(np.float32), centred_grid(shape, (0.625,) * 3))
        assert anatomy_box(scan, FINE) == tuple(slice(0, n) for n in shape)
