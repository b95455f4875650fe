"""`read_header` returns grid and channels without decompressing voxels, and refuses unusable files."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.io.readers import read_header, read_labelmap, read_scan
from dcamt.io.writers import write_volume
from dcamt.volume import Volume
from dcamt_testing.analytic_scans import centred_grid, rotation

GRID = centred_grid((12, 10, 9), (1.5, 1.2, 2.0), rotation(9, -12, 17))
NOWHERE = [np.nan] * 3
"""The NRRD direction of an axis that is not spatial."""


def scan() -> Volume:
    return Volume(np.random.default_rng(0).integers(0, 900, (1, *GRID.shape)).astype(np.int16), GRID)


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd"])
def test_header_has_the_grid_of_the_scan(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"scan.{ending}"
    write_volume(scan(), path)
    header, whole = read_header(path), read_scan(path)
    assert header.channels == 1
    assert header.grid.shape == whole.grid.shape
    assert np.array_equal(header.grid.affine, whole.grid.affine)


def test_header_has_the_grid_and_channels_of_a_scan_of_three_channels(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(size=(9, 10, 11, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2, 2, 1])), tmp_path / "a.nii.gz")
    frame = {"space": "RAS", "space directions": [*np.diag([2.0, 2, 2]), NOWHERE], "kinds": ["domain"] * 3 + ["list"]}
    nrrd.write(str(tmp_path / "a.nrrd"), voxels, frame)
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.GetImageFromArray(voxels.transpose(2, 1, 0, 3), isVector=True), str(tmp_path / "a.mha"))
    for name in ("a.nii.gz", "a.nrrd", "a.mha"):
        header = read_header(tmp_path / name)
        whole = read_scan(tmp_path / name, channels=3)
        assert header.channels == 3
        assert header.grid.matches(whole.grid)


def test_layered_segmentation_read_as_a_labelmap_has_one_channel(tmp_path: Path) -> None:
    layers = np.zeros((2, 9, 10, 11), np.uint8)
    layers[0, 2:5, 2:5, 2:5] = layers[1, 4:7, 4:7, 4:7] = 1
    frame = {"space": "RAS", "space directions": [NOWHERE, *np.diag([2.0, 2, 2])], "kinds": ["list"] + ["domain"] * 3}
    segments = {f"Segment{n}_{key}": value for n in (0, 1) for key, value in (("LabelValue", "1"), ("Layer", str(n)))}
    nrrd.write(str(tmp_path / "two.seg.nrrd"), layers, {**frame, **segments})
    assert read_header(tmp_path / "two.seg.nrrd").channels == 2
    header = read_header(tmp_path / "two.seg.nrrd", as_labelmap=True)
    assert header.channels == 1
    assert header.grid.matches(read_labelmap(tmp_path / "two.seg.nrrd").grid)


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_file_is_refused(tmp_path: Path, ending: str, kept: float) -> None:
    path = tmp_path / f"scan.{ending}"
    write_volume(scan(), path)
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * kept)])
    with pytest.raises(InputError) as caught:
        read_header(path)
    assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(InputError):
        read_scan(path)


def test_gzip_file_of_several_streams_is_accepted(tmp_path: Path) -> None:
    """The last four bytes state the length of the last stream only, so `read_header` must read the whole file."""
    write_volume(scan(), tmp_path / "scan.nii")
    data = (tmp_path / "scan.nii").read_bytes()
    half = len(data) // 2
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(data[:half]) + gzip.compress(data[half:]))
    assert read_header(tmp_path / "scan.nii.gz").grid.matches(GRID)


def test_read_header_and_read_scan_refuse_an_unusable_file_with_the_same_message(tmp_path: Path) -> None:
    thin = np.zeros((12, 10, 2), np.int16)
    nibabel.save(nibabel.Nifti1Image(thin, np.eye(4)), tmp_path / "thin.nii")
    (tmp_path / "empty.nrrd").touch()
    for name in ("thin.nii", "empty.nrrd", "none.nii"):
        messages = []
        for read in (read_header, read_scan):
            with pytest.raises(InputError) as caught:
                read(tmp_path / name)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


def test_header_is_read_without_decompressing_voxels(tmp_path: Path) -> None:
    """`read_header` does not notice a damaged byte in the voxels, but `read_scan` does."""
    write_volume(scan(), tmp_path / "scan.nii.gz")
    path = tmp_path / "scan.nii.gz"
    data = bytearray(path.read_bytes())
    data[-200] ^= 0xFF
    path.write_bytes(bytes(data))
    assert read_header(path).grid.matches(GRID)
    with pytest.raises(InputError):
        read_scan(path)
