"""Voxels read from NIfTI files equal those of nibabel or SimpleITK."""

from __future__ import annotations

import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.geometry import Grid
from dcamt.io.readers import read_labelmap, read_scan
from dcamt_testing.scan_files import (
    ORTHOGONAL,
    SHAPE,
    corner_distance_mm,
    refused,
    save_nifti,
    scan,
)


def test_nifti_scaling_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(scan("uint8"), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "x.nii.gz")
    volume = read_scan(tmp_path / "x.nii.gz")
    assert volume.voxels.dtype == np.float32
    np.testing.assert_allclose(volume.voxels[0], nib.load(tmp_path / "x.nii.gz").get_fdata(), rtol=1e-6)
    assert volume.voxels.min() < 0


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_with_a_long_extension_after_its_header_is_read(tmp_path: Path, ending: str, kind: type) -> None:
    image, path = kind(scan("int16"), ORTHOGONAL["oblique"]), tmp_path / f"x{ending}"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("afni", b"<AFNI_attributes/>" * 200))
    nib.save(image, path)
    volume = read_scan(path)
    np.testing.assert_array_equal(volume.voxels[0], scan("int16"))
    assert corner_distance_mm(volume.grid, Grid(SHAPE, ORTHOGONAL["oblique"])) <= 1e-4


def test_nifti_slope_of_1_over_255_turns_the_mask_value_255_into_1(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.pad(np.full((4, 4, 4), 255, np.uint8), 2), np.eye(4))
    path = tmp_path / "x.nii"
    nib.save(image, path)
    data = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(data[:348]), check=False)
    header["scl_slope"], header["scl_inter"] = 1 / 255, 0
    path.write_bytes(header.binaryblock + bytes(data[348:]))
    assert set(np.unique(read_labelmap(path).voxels)) == {0, 1}


@pytest.mark.parametrize("scaling", [(2, math.nan), (2, math.inf), (math.nan, 5), (math.inf, 5), (0, 5), (math.nan, 0)])
def test_invalid_scaling_is_handled_as_in_itk(tmp_path: Path, scaling: tuple[float, float]) -> None:
    path = save_nifti(tmp_path / "x.nii", scan("int16"))
    raw = bytearray(path.read_bytes())
    struct.pack_into("<2f", raw, 112, *scaling)  # scl_slope, scl_inter
    path.write_bytes(raw)
    itk = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(read_scan(path).voxels[0], itk.transpose(2, 1, 0))


@pytest.mark.parametrize("offset", [math.nan, math.inf, -5, 0, 1e20])
def test_impossible_offset_of_the_voxels_is_ignored_or_refused(tmp_path: Path, offset: float) -> None:
    path = save_nifti(tmp_path / "x.nii", scan("int16"))
    raw = bytearray(path.read_bytes())
    struct.pack_into("<f", raw, 108, offset)  # vox_offset
    path.write_bytes(raw)
    if offset == 1e20:
        refused(lambda: read_scan(path), path, "ends too early")
    else:
        itk = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        np.testing.assert_array_equal(read_scan(path).voxels[0], itk.transpose(2, 1, 0))


@pytest.mark.parametrize("bitpix", [0, 8, 64])
def test_bitpix_of_a_nifti_does_not_matter_but_its_datatype_must_fit_the_size_of_the_file(
    tmp_path: Path, bitpix: int
) -> None:
    path = save_nifti(tmp_path / "x.nii", scan("int16"))
    raw = bytearray(path.read_bytes())
    struct.pack_into("<h", raw, 72, bitpix)
    path.write_bytes(raw)
    np.testing.assert_array_equal(read_scan(path).voxels[0], scan("int16"))
    for datatype, message in ((2, "states 990 bytes of voxels in its header, but holds 1980"), (16, "ends too early")):
        struct.pack_into("<h", raw, 70, datatype)
        path.write_bytes(raw)
        refused(lambda: read_scan(path), path, message)


def test_big_endian_files_and_trailing_axes_are_read(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(scan("int16")[..., np.newaxis], np.eye(4), header), tmp_path / "x.nii")
    assert nib.load(tmp_path / "x.nii").header.endianness == ">"
    volume = read_scan(tmp_path / "x.nii")
    assert volume.voxels.dtype == np.dtype("int16")
    assert volume.voxels.dtype.isnative
    np.testing.assert_array_equal(volume.voxels[0], scan("int16"))


@pytest.mark.parametrize("ending", [".nii", ".hdr"])
@pytest.mark.parametrize("dimensions", [(4, *SHAPE, 0, 1, 1, 1), (7, *SHAPE, 0, 0, -1, 0)])
def test_nifti_whose_axes_after_the_third_have_lengths_below_1_is_read(
    tmp_path: Path, ending: str, dimensions: tuple[int, ...]
) -> None:
    kind = nib.Nifti1Image if ending == ".nii" else nib.Nifti1Pair
    path = tmp_path / f"x{ending}"
    nib.save(kind(scan("int16"), np.diag([1, 1, 2, 1])), path)
    data = bytearray(path.read_bytes())
    data[40:56] = np.array(dimensions, "<i2").tobytes()
    path.write_bytes(data)
    np.testing.assert_array_equal(read_scan(path).voxels[0], scan("int16"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, scan("int16"))


def test_reading_nifti_imports_nibabel_but_no_other_large_package(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "x.nii.gz", scan())
    # If `sys.modules` maps a package to None, importing the package fails as if it were not installed. nibabel tries
    # to import SciPy, but works without it.
    program = (
        "import sys; from dcamt.io.readers import read_scan, read_labelmap\n"
        "heavy = {'SimpleITK', 'scipy', 'nrrd', 'slicerio', 'matplotlib', 'torch'}\n"
        "early = (heavy | {'nibabel'}) & set(sys.modules)\n"
        "assert not early, f'{early} imported before it is needed'\n"
        "sys.modules.update(dict.fromkeys(heavy))\n"
        f"read_scan({str(path)!r})\n"
        "assert 'nibabel' in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "DCAMTSegmentation")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
