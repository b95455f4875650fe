"""Where a scan shows anatomy, by scans that were padded, and what is cut off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from analytic_scans import centred_grid
from DCAMTLib.inference.anatomy import anatomy_box, sharpened, without_empty_faces
from DCAMTLib.recipe import Intensity
from DCAMTLib.volume import Volume
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


def test_padding_is_no_part_of_the_anatomy_to_the_voxel() -> None:
    scan, _ = scan_in("air")
    i, j, k = (slice(at, at + n) for at, n in zip(AT, CASE, strict=True))
    assert anatomy_box(scan, RECIPE) == (i, j, k)
    # A few voxels that belong together are not cut off.
    scan.voxels[0, AT[0] - 3, AT[1] : AT[1] + 5, 7:10] = 2
    assert anatomy_box(scan, RECIPE) == (slice(AT[0] - 3, i.stop), j, k)
    noisy, _ = scan_in("noise")
    box = anatomy_box(noisy, RECIPE)
    assert box is not None
    assert all(part.start >= side.start and part.stop <= side.stop for part, side in zip(box, (i, j, k), strict=True))


def test_what_is_cut_off_is_empty_and_where_all_is_empty_nothing_is() -> None:
    box = (slice(1, 25), slice(0, 25), slice(2, 24))
    noise = np.random.default_rng(2).normal(100, 20, (1, 26, 25, 24)).astype(np.float32)
    assert without_empty_faces(np.full((1, 26, 25, 24), 0.1, np.float32), box) == box
    assert without_empty_faces(noise, box) == box
    noise[:, 5:20, 5:21, 5:22] = 100 + 10 * gaussian_filter(noise - 100, 2)[:, 5:20, 5:21, 5:22]
    assert without_empty_faces(noise, box) == (slice(5, 20), slice(5, 21), slice(5, 22))
    # With a second channel that is empty all over the answer is the same.
    two = np.concatenate([np.full_like(noise, 7), noise])
    assert without_empty_faces(two, box) == (slice(5, 20), slice(5, 21), slice(5, 22))


def test_what_varies_only_by_what_it_sees_of_the_anatomy_is_left_out() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[3:15, :, 8:10] = True
    sharp = sharpened(mask, 2)
    assert np.array_equal(np.flatnonzero(sharp.any(axis=(1, 2))), np.arange(5, 13))
    # At the scan's border there is nothing beyond; and too thin an axis is left as it is.
    assert sharp[5, 0, 8]
    assert sharp[12, 19, 9]
    assert not sharpened(np.zeros_like(mask), 2).any()
