"""Slicer and the engine read the same voxels at the same positions from a file."""

from __future__ import annotations

import gzip
import struct
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
import slicer
from dcamt.geometry import Grid
from dcamt.io.readers import read_scan
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, voxels_of
from slicer_harness import close_scene

SHAPE = (9, 8, 7)


def make_image(dtype: type = np.int16, upright: bool = False) -> sitk.Image:
    """Return an image of random voxels with oblique axes; if `upright`, with the patient's axes."""
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 900, SHAPE[::-1]).astype(dtype))
    image.SetSpacing((1.25, 1.5, 3.0))
    image.SetOrigin((-31.0, 40.5, 12.125))
    if not upright:
        turn = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.5)
        image.SetDirection(turn.GetMatrix())
    return image


def save_image(path: Path, compressed: bool = False, dtype: type = np.int16, upright: bool = False) -> Path:
    sitk.WriteImage(make_image(dtype, upright), str(path), useCompression=compressed)
    return path


def write_nifti(path: Path, *changes: tuple[int, str, tuple[float, ...]]) -> Path:
    """Write a NIfTI file and change header fields, each given by its offset in bytes, `struct` type and values."""
    data = bytearray(save_image(path.with_name("plain.nii")).read_bytes())
    for offset, letter, values in changes:
        struct.pack_into(f"<{len(values)}{letter}", data, offset, *values)
    path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".gz" else bytes(data))
    return path


QFORM, SFORM, SROWS, PIXDIM, SLOPE, UNITS = 252, 254, 280, 76, 112, 123
"""Offsets of fields in the NIfTI header, in bytes."""
INPUTS: dict[str, Callable[[Path], Path]] = {
    "nrrd": lambda folder: save_image(folder / "x.nrrd"),
    "nrrd, gzip": lambda folder: save_image(folder / "x.nrrd", compressed=True),
    "nrrd, float64": lambda folder: save_image(folder / "x.nrrd", dtype=np.float64),
    "nrrd, uint8": lambda folder: save_image(folder / "x.nrrd", dtype=np.uint8),
    "nhdr": lambda folder: save_image(folder / "x.nhdr"),
    "mha": lambda folder: save_image(folder / "x.mha"),
    "mha, compressed": lambda folder: save_image(folder / "x.mha", compressed=True),
    "mhd": lambda folder: save_image(folder / "x.mhd"),
    "nii": lambda folder: save_image(folder / "x.nii"),
    "nii.gz": lambda folder: save_image(folder / "x.nii.gz"),
    "nii.gz, qform alone": lambda folder: write_nifti(folder / "x.nii.gz", (SFORM, "h", (0,))),
    "nii.gz, sform alone": lambda folder: write_nifti(folder / "x.nii.gz", (QFORM, "h", (0,))),
    "nii.gz, neither qform nor sform": lambda folder: write_nifti(folder / "x.nii.gz", (QFORM, "h", (0, 0))),
    "nii.gz, sform of code 2": lambda folder: write_nifti(folder / "x.nii.gz", (QFORM, "h", (1, 2))),
    "nii.gz, different qform and sform": lambda folder: write_nifti(
        folder / "x.nii.gz", (SROWS, "f", (-1, 0, 0, 7, 0, -1, 0, 8))
    ),
    "nii.gz, other pixdim": lambda folder: write_nifti(folder / "x.nii.gz", (PIXDIM + 4, "f", (2.5, 2.5, 5.0))),
    "nii.gz, scaled": lambda folder: write_nifti(folder / "x.nii.gz", (SLOPE, "f", (0.5, -10.0))),
    "nii.gz, micrometres": lambda folder: write_nifti(
        folder / "x.nii.gz", (UNITS, "B", (3,)), (PIXDIM + 4, "f", (1250.0, 1500.0, 3000.0))
    ),
    "hdr and img": lambda folder: save_image(folder / "x.hdr", upright=True),
}


class InputsTest(unittest.TestCase):
    def setUp(self) -> None:
        close_scene()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(close_scene)
        self.folder = Path(folder.name)

    def test_slicer_and_the_engine_read_the_same_scan(self) -> None:
        for number, (format_name, write) in enumerate(INPUTS.items()):
            with self.subTest(format_name):
                folder = self.folder / str(number)
                folder.mkdir()
                path = write(folder)
                volume = slicer.util.loadVolume(str(path), {"show": False})
                scan = read_scan(path)
                voxels = voxels_of(volume).transpose(2, 1, 0)  # (I, J, K)
                np.testing.assert_allclose(scan.voxels[0], voxels, rtol=1e-6)
                grid = Grid(voxels.shape, ijk_to_ras(volume))
                np.testing.assert_allclose(scan.grid.corners(), grid.corners(), atol=2e-3)
