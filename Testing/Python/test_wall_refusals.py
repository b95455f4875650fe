"""Scans and segmentations whose wall cannot be measured are refused with a remedy."""

from __future__ import annotations

import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.volume import Labelmap, Volume
from dcamt.wall.analysis import analyse_wall
from dcamt_testing.analytic_scans import points_of
from dcamt_testing.wall_phantoms import Atrium, grid_about


def refusal_text(volume: Volume, labels: Labelmap, **more: object) -> str:
    with pytest.raises(InputError) as caught:
        analyse_wall(volume, labels, **more)  # type: ignore[arg-type]
    text = str(caught.value)
    assert text.count(".") >= 2  # one sentence says what happened, another what to do
    return text


@pytest.fixture(scope="module")
def scan() -> tuple[Volume, Labelmap]:
    return Atrium(patch_degrees=60.0).on(grid_about(55, (1.0, 1.0, 1.0)))


def test_bright_surroundings_are_refused(scan: tuple[Volume, Labelmap]) -> None:
    volume, labels = scan
    inverted = Volume(250 - volume.voxels, volume.grid)
    assert "surroundings" in refusal_text(inverted, labels)
    # Large numbers are not printed in scientific notation, such as 1.5e+04.
    assert "e+" not in refusal_text(Volume(100 * inverted.voxels, volume.grid), labels)


def test_uniform_blood_pool_is_refused(scan: tuple[Volume, Labelmap]) -> None:
    volume, labels = scan
    flat = Volume(np.where(labels.voxels != 0, 100.0, volume.voxels), volume.grid)
    assert "one intensity, 100" in refusal_text(flat, labels)


def test_negative_intensities_are_refused_but_a_small_overshoot_is_not(scan: tuple[Volume, Labelmap]) -> None:
    volume, labels = scan
    shifted = Volume(volume.voxels - 60.0, volume.grid)
    assert "negative intensities (down to -3" in refusal_text(shifted, labels)
    rippled = volume.voxels.copy()
    rippled[0, 0, 0, 0] = -2.0  # interpolation may overshoot at a sharp edge
    assert analyse_wall(Volume(rippled, volume.grid), labels).burden.percent == pytest.approx(25, abs=2)


def test_blood_pool_that_is_too_small_is_refused(scan: tuple[Volume, Labelmap]) -> None:
    volume, _ = scan
    small = Atrium((7.0, 7.0, 7.0)).mask(points_of(volume.grid))
    text = refusal_text(volume, Labelmap(small.astype(np.uint8), volume.grid))
    assert "but 500 are needed" in text
    assert "3 mm" in text


def test_size_of_the_blood_pool_is_counted_in_voxels_of_the_scan(scan: tuple[Volume, Labelmap]) -> None:
    volume, _ = scan
    texts = []
    for spacing in (1.0, 0.5):
        grid = grid_about(55, (spacing,) * 3)
        small = Atrium((7.0, 7.0, 7.0)).mask(points_of(grid))
        texts.append(refusal_text(volume, Labelmap(small.astype(np.uint8), grid)))
    voxels, of_fine_grid = (int(text.split("blood pool: ")[1].split()[0]) for text in texts)
    assert of_fine_grid == pytest.approx(voxels, rel=0.1)


def test_missing_or_ambiguous_segment_is_refused(scan: tuple[Volume, Labelmap]) -> None:
    volume, labels = scan
    assert "holds no segment" in refusal_text(volume, Labelmap(labels.voxels * 0, volume.grid))
    assert "has no label 4. Choose one of: 1" in refusal_text(volume, labels, label=4)
    two_labels = labels.voxels.copy()
    two_labels[:3] = 2
    assert "holds several labels (1, 2)" in refusal_text(volume, Labelmap(two_labels, volume.grid))
    assert analyse_wall(volume, Labelmap(two_labels, volume.grid), label=1).burden.percent == pytest.approx(25, abs=2)


def test_segmentation_mostly_outside_the_scan_is_refused(scan: tuple[Volume, Labelmap]) -> None:
    volume, labels = scan
    matrix = np.eye(4)
    matrix[0, 3] = 300.0
    assert "lies mostly outside the scan" in refusal_text(
        volume, Labelmap(labels.voxels, Grid(labels.grid.shape, matrix @ labels.grid.affine))
    )


@pytest.mark.parametrize("empty_slices", [0, 2])
def test_segment_whose_surface_lies_mostly_at_the_scan_border_is_refused(
    empty_slices: int, scan: tuple[Volume, Labelmap]
) -> None:
    volume, labels = scan
    voxels = np.ones_like(labels.voxels)
    voxels[:empty_slices] = 0
    text = refusal_text(volume, Labelmap(voxels, labels.grid))
    assert "most of its surface at the scan's border" in text
    assert "outside the scan" not in text
    assert "Choose the segment of the left atrium's blood" in text


def test_scan_of_two_channels_is_refused(scan: tuple[Volume, Labelmap]) -> None:
    volume, labels = scan
    assert "holds 2 images" in refusal_text(Volume(np.repeat(volume.voxels, 2, axis=0), volume.grid), labels)
