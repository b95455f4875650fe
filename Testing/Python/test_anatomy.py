"""Where a scan shows anatomy, by scans that were padded, and what is cut off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from analytic_scans import centred_grid
from DCAMTLib.inference.anatomy import BLUR, VARIED_WITHIN, _is_empty, _sharpened, _without_empty_faces, anatomy_box
from DCAMTLib.recipe import Intensity
from DCAMTLib.volume import Box, Volume
from large_scans import AT, CASE, FIELD, RECIPE, SPACING, scan_in
from scipy.ndimage import gaussian_filter


def test_the_anatomy_is_where_intensities_vary_over_millimetres() -> None:
    for kind in ("air", "noise"):
        scan, _ = scan_in(kind)
        box = anatomy_box(scan, RECIPE)
        assert box is not None
        for side, at, n, length in zip(box, AT, CASE, FIELD, strict=True):
            assert side.start <= at + 8
            assert side.stop >= at + n - 8
            # Two voxels of the grid on which it is looked for are 16 mm.
            assert side.start >= max(0, at - 20)
            assert side.stop <= at + n + 20 or side.stop == length
    noise = np.random.default_rng(1).normal(300, 100, (1, *FIELD)).astype(np.float32)
    local = replace(RECIPE, intensity=Intensity("local"))
    assert anatomy_box(Volume(np.abs(noise), centred_grid(FIELD, SPACING)), replace(local, spacing=(3.0,) * 3)) is None
    assert anatomy_box(Volume(np.zeros_like(noise), centred_grid(FIELD, SPACING)), local) is None


def where_the_case_lies() -> Box:
    i, j, k = (slice(at, at + n) for at, n in zip(AT, CASE, strict=True))
    return i, j, k


def test_padding_is_no_part_of_the_anatomy_to_the_voxel() -> None:
    scan, _ = scan_in("air")
    i, j, k = where_the_case_lies()
    assert anatomy_box(scan, RECIPE) == (i, j, k)
    flat = np.full_like(scan.voxels, 7)
    for channels in ((flat, scan.voxels), (scan.voxels, flat)):
        assert anatomy_box(Volume(np.concatenate(channels), scan.grid), RECIPE) == (i, j, k)
    # A few voxels that belong together are not cut off.
    scan.voxels[0, AT[0] - 3, AT[1] : AT[1] + 12, 7:14] = 2
    assert anatomy_box(scan, RECIPE) == (slice(AT[0] - 3, i.stop), j, k)
    noisy, _ = scan_in("noise")
    box = anatomy_box(noisy, RECIPE)
    assert box is not None
    assert all(part.start >= side.start and part.stop <= side.stop for part, side in zip(box, (i, j, k), strict=True))


def test_tissue_that_reaches_the_border_is_anatomy_to_the_border() -> None:
    """Of 2 mm voxels in whole numbers its extent is a little more or less than the scan's."""
    for shape in ((171, 33, 29), (50, 61, 43)):
        noise = np.random.default_rng(0).normal(0, 1, (1, *shape))
        tissue = Volume(gaussian_filter(noise, 3).astype(np.float32) * 20, centred_grid(shape, (0.625, 0.7, 1.1)))
        assert anatomy_box(tissue, RECIPE) == tuple(slice(0, n) for n in shape)


def test_padding_that_changes_slowly_is_left_out_but_for_some_millimetres() -> None:
    """Such planes are not empty: here the coarse grid decides, and what it sees of the anatomy from beyond."""
    scan, _ = scan_in("air")
    where = where_the_case_lies()
    ramp = np.broadcast_to(-0.8 + 0.0005 * np.arange(FIELD[0])[:, None, None], FIELD).astype(np.float32)
    padded = ramp.copy()
    padded[where] = scan.voxels[0][where]
    box = anatomy_box(Volume(padded[None], scan.grid), RECIPE)
    assert box is not None
    for side, tissue in zip(box[:2], where[:2], strict=True):
        # Two voxels of the grid on which it is looked for are 16 mm.
        assert -16 <= side.start - tissue.start <= 8
        assert -8 <= side.stop - tissue.stop <= 16


def test_wild_voxels_take_no_more_than_a_rim() -> None:
    """As of metal in CT: planes with some are without order, but tissue lies between them."""
    scan, _ = scan_in("air")
    wild = np.random.default_rng(0).random(scan.voxels.shape) < 0.002
    box = anatomy_box(Volume(np.where(wild, 200, scan.voxels), scan.grid), RECIPE)
    assert box is not None
    rim = (3 * VARIED_WITHIN + 1.5) * 8
    for side, tissue in zip(box[:2], where_the_case_lies()[:2], strict=True):
        assert side.start <= tissue.start + rim
        assert side.stop >= tissue.stop - rim


NOISE = np.random.default_rng(2).normal(100, 20, (1, 26, 25, 24)).astype(np.float32)
BOX: Box = (slice(1, 25), slice(0, 25), slice(2, 24))
NEXT = (1, 1, 1)
"""Voxels are compared with the next ones."""


def test_what_is_cut_off_is_empty_and_no_more_than_is_allowed() -> None:
    noise = NOISE.copy()
    noise[:, 5:20, 5:21, 5:22] = 100 + 60 * gaussian_filter(noise - 100, 3)[:, 5:20, 5:21, 5:22]
    inner = (slice(5, 20), slice(5, 21), slice(5, 22))
    assert _without_empty_faces(noise, BOX, (9, 9, 9), NEXT) == inner
    # With a second channel that is empty all over the answer is the same.
    assert _without_empty_faces(np.concatenate([np.full_like(noise, 7), noise]), BOX, (9, 9, 9), NEXT) == inner
    assert _without_empty_faces(noise, BOX, (4, 3, 0), NEXT) == (slice(5, 21), slice(3, 22), slice(2, 24))
    for everything in (NOISE, np.full_like(NOISE, 0.1)):
        assert _without_empty_faces(everything, BOX, (99, 99, 99), NEXT) == BOX


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16, np.float32, np.float64])
def test_a_plane_of_any_type_is_judged_by_its_values(kind: type) -> None:
    """Differences of whole numbers would wrap, and the mean of many 0.1 is not 0.1."""
    values = np.random.default_rng(3).integers(0, 120, (1, 40, 50))
    steps = np.repeat(np.repeat(values[:, ::8, ::8], 8, axis=1), 8, axis=2)[:, :40, :50]
    spread = 60000 / 120 if kind is np.uint16 else 1
    for apart in ((1, 1), (4, 2)):
        assert _is_empty((values * spread).astype(kind), apart)
        assert not _is_empty((steps * spread).astype(kind), apart)
        assert _is_empty(np.full((1, 40, 50), 0.1).astype(kind), apart)


def test_noise_that_was_smoothed_is_empty_by_voxels_further_apart() -> None:
    for sigma in (0.7, 1, 1.5):
        noise = gaussian_filter(np.random.default_rng(4).normal(size=(1, 90, 80)), (0, sigma, sigma))
        assert not _is_empty(noise, (1, 1))
        assert _is_empty(noise, (4, 4))
    # Each direction has its own distance: thick slices are compared with the next ones, along which nothing is smooth.
    streaks = gaussian_filter(np.random.default_rng(5).normal(size=(1, 90, 80)), (0, 1, 0))
    assert _is_empty(streaks, (4, 1))
    assert not _is_empty(streaks, (1, 1))


@pytest.mark.parametrize("sigma", [0.7, 1.0])
def test_smoothed_noise_about_a_scan_is_no_part_of_the_anatomy(sigma: float) -> None:
    """As of a scan that was interpolated or filtered with what lies about it."""
    size, at, field = (120, 104, 60), (50, 31, 0), (220, 180, 60)
    where = tuple(slice(low, low + n) for low, n in zip(at, size, strict=True))
    noise = np.random.default_rng(6)
    scan = gaussian_filter(noise.normal(size=field), sigma)
    scan = 100 + 30 * scan / scan.std()
    organs = gaussian_filter(noise.normal(size=size), 8)
    scan[where] = 100 + 30 * organs / organs.std() + noise.normal(0, 3, size)
    local = replace(RECIPE, intensity=Intensity("local"), spacing=(0.625,) * 3)
    box = anatomy_box(Volume(scan[None].astype(np.float32), centred_grid(field, (0.625,) * 3)), local)
    assert box is not None
    for side, tissue in zip(box, where, strict=True):
        assert abs(side.start - tissue.start) <= 2
        assert abs(side.stop - tissue.stop) <= 2


def test_what_varies_only_by_what_it_sees_of_the_anatomy_is_left_out() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[3:15, :, 8:10] = True
    sharp = _sharpened(mask)
    assert np.array_equal(np.flatnonzero(sharp.any(axis=(1, 2))), np.arange(3 + BLUR, 15 - BLUR))
    # At the scan's border there is nothing beyond; and too thin an axis is left as it is.
    assert sharp[3 + BLUR, 0, 8]
    assert sharp[14 - BLUR, 19, 9]
    assert not _sharpened(np.zeros_like(mask)).any()
