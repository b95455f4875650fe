"""Files that do not state the directions of their axes get a note; files that state the directions get none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dcamt.io.readers import read_labelmap, read_scan
from dcamt_testing.scan_files import VOXELS, save_nifti, save_nrrd, write_scan

LPS = np.diag([-1.0, -1.0, 1.0])


def write_metaimage(path: Path, name: str = "") -> Path:
    """Write a MetaImage whose directions have the field name `name`, or are missing."""
    write_scan(path)
    field = f"{name} = 1 0 0 0 1 0 0 0 1\n".encode() if name else b""
    path.write_bytes(re.sub(rb"TransformMatrix = .*\n", field, path.read_bytes()))
    return path


def write_analyze(path: Path) -> Path:
    nib.AnalyzeImage(VOXELS, np.diag([1.0, 1.5, 2.0, 1.0])).to_filename(path)
    return path


def write_without_forms(path: Path) -> Path:
    """Write a NIfTI file or pair in which the codes of sform and qform are 0."""
    kind = nib.Nifti1Pair if path.suffix in (".hdr", ".img") else nib.Nifti1Image
    kind(VOXELS, None).to_filename(path)
    return path


def write_nrrd_without_space(path: Path) -> Path:
    return save_nrrd(path, VOXELS, spacings=[1.0, 1.5, 2.0])


def write_nrrd_of_four_axes(path: Path) -> Path:
    """Write a NRRD file that states directions, but does not name their space."""
    fields = {"space_dimension": 4, "space_directions": np.eye(4), "space_origin": np.zeros(4)}
    return save_nrrd(path, VOXELS[..., None], **fields)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.gipl", write_scan),
        ("x.gipl.gz", write_scan),
        ("x.vtk", write_scan),
        ("x.mrc", write_scan),
        ("x.rec", write_scan),
        ("x.mha", write_metaimage),
        ("x.mhd", write_metaimage),
        ("x.hdr", write_analyze),
        ("x.img", write_analyze),
        ("x.nii.gz", write_without_forms),
        ("x.hdr", write_without_forms),
        ("x.img", write_without_forms),
        ("x.nrrd", write_nrrd_without_space),
        ("x.nrrd", write_nrrd_of_four_axes),
    ],
)
def test_image_without_directions_is_read_with_a_note(tmp_path: Path, name: str, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / name)
    for image in (read_scan(path), read_labelmap(path)):
        assert np.sign(image.grid.affine[:3, :3]).tolist() == LPS.tolist()
        (note,) = image.notes
        assert note == (
            "The file does not state the directions of its axes, so left, posterior and superior were assumed: check"
            " the orientation, or use the original DICOM or NIfTI file."
        )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.mha", write_scan),
        ("x.mha", lambda path: write_metaimage(path, "Rotation")),
        ("x.mha", lambda path: write_metaimage(path, "Orientation")),
        ("x.mhd", write_scan),
        ("x.mnc", write_scan),
        ("x.nrrd", write_scan),
        ("x.hdr", write_scan),
        ("x.img", write_scan),
        ("x.nii", write_scan),
        ("x.nii.gz", lambda path: save_nifti(path, VOXELS)),
    ],
)
def test_image_with_directions_is_read_without_a_note(tmp_path: Path, name: str, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / name)
    assert read_scan(path).notes == read_labelmap(path).notes == ()
