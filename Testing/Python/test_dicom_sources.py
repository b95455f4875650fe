"""The source of a DICOM segmentation: the images at the slices of a labelmap are found, and no other files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.dicom_output import Algorithm, build_dicom_segmentation, find_source_images, write_dicom
from dcamt.io.readers import read_scan
from dcamt.volume import Labelmap
from dcamt_testing.dicom_positions import write_slice
from dcamt_testing.dicom_series import (
    OBLIQUE_SHAPE,
    RAS_TO_LPS,
    oblique_affine,
    write_enhanced_mr,
    write_mr_series,
    write_oblique_series,
)
from dcamt_testing.scan_files import LEFT_ATRIUM

pydicom = pytest.importorskip("pydicom")
GRID = Grid(OBLIQUE_SHAPE, oblique_affine())


def test_source_is_found_among_other_series_and_subfolders(tmp_path: Path) -> None:
    other = oblique_affine()
    other[:3, 3] += 3
    write_mr_series(tmp_path / "study" / "other", np.ones(OBLIQUE_SHAPE), other)
    write_oblique_series(tmp_path / "study" / "right")
    source = find_source_images(tmp_path / "study", GRID)
    starts = np.stack([np.array(h.ImagePositionPatient, float) for h in source.datasets])
    expected = [(RAS_TO_LPS @ GRID.affine)[:3] @ [0, 0, k, 1] for k in range(OBLIQUE_SHAPE[2])]
    np.testing.assert_allclose(starts, expected, atol=1e-3)


def test_segmentation_beside_the_images_is_no_source(tmp_path: Path) -> None:
    write_oblique_series(tmp_path)
    labelmap, model = Labelmap(np.ones(OBLIQUE_SHAPE, np.uint8), GRID), Algorithm("x", "1", "1", "1")
    written = build_dicom_segmentation(labelmap, [LEFT_ATRIUM], find_source_images(tmp_path, GRID), model)
    write_dicom(written, tmp_path / "0.dcm")  # before the images in the order of names
    source = find_source_images(tmp_path, GRID)
    assert {header.Modality for header in source.datasets} == {"MR"}


@pytest.mark.parametrize("other", ["size", "spacing"])
@pytest.mark.parametrize("multi_frame", [False, True])
def test_image_of_another_size_or_spacing_at_the_same_place_is_no_source(
    tmp_path: Path, other: str, multi_frame: bool
) -> None:
    affine, voxels = oblique_affine(), np.ones(OBLIQUE_SHAPE)
    other_affine = affine @ np.diag([2, 2, 1, 1]) if other == "spacing" else affine
    other_voxels = voxels[:-2, :-2] if other == "size" else voxels
    for name, image, place in (("0", other_voxels, other_affine), ("1", voxels, affine)):
        if multi_frame:
            write_enhanced_mr(tmp_path / f"{name}.dcm", image, place, [*range(OBLIQUE_SHAPE[2])])
            continue
        for file in write_mr_series(tmp_path / name, image, place):
            header = pydicom.dcmread(file)
            header.SeriesInstanceUID = "1.2.3"  # the images of both sizes or spacings belong to one series
            header.save_as(file)
    found = find_source_images(tmp_path, Grid(OBLIQUE_SHAPE, affine)).datasets
    assert {(header.Columns, header.Rows) for header in found} == {OBLIQUE_SHAPE[:2]}
    if not multi_frame:
        assert {round(float(header.PixelSpacing[1]), 4) for header in found} == {0.75}


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImageOrientationPatient"])
def test_image_without_spacing_or_orientation_is_no_source(tmp_path: Path, keyword: str) -> None:
    image = pydicom.dcmread(next(write_oblique_series(tmp_path).glob("IM*")))
    delattr(image, keyword)
    image.save_as(tmp_path / "screenshot")
    source = find_source_images(tmp_path, GRID)
    assert all(keyword in header for header in source.datasets)


def test_source_in_a_zip_archive_is_refused(tmp_path: Path) -> None:
    for k in range(8):
        write_slice(tmp_path / "series" / f"{k}.dcm", k)
    archive = Path(shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "series"))
    scan = read_scan(archive)
    with pytest.raises(InputError, match=r"x\.zip: is an archive, .* Extract the archive, and segment the folder\."):
        find_source_images(archive, scan.grid, scan.frames)


def test_source_that_is_not_dicom_or_has_another_grid_is_refused(tmp_path: Path) -> None:
    folder = write_oblique_series(tmp_path / "series")
    text = tmp_path / "scan.nrrd"
    text.write_text("no DICOM", encoding="utf-8")
    with pytest.raises(InputError, match=r"scan\.nrrd: is not DICOM.*\.seg\.nrrd"):
        find_source_images(text, GRID)
    moved = oblique_affine()
    moved[:3, 3] += 1
    with pytest.raises(InputError, match="no DICOM images at the slices"):
        find_source_images(folder, Grid(OBLIQUE_SHAPE, moved))
    longer = Grid((*OBLIQUE_SHAPE[:2], OBLIQUE_SHAPE[2] + 1), GRID.affine)
    with pytest.raises(InputError, match="no DICOM images at the slices"):
        find_source_images(folder, longer)
