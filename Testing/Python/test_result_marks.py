"""DCAMT recognises its results until their voxels change."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dcamt
import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK
from dcamt.api.outputs import write_probabilities
from dcamt.geometry import Grid
from dcamt.io.dicom_output import Algorithm, build_dicom_segmentation, find_source_images, write_dicom
from dcamt.io.readers import read_scan
from dcamt.io.writers import has_mark, is_dcamt_result, write_labelmap, write_volume
from dcamt.volume import Labelmap, Volume
from dcamt_testing.dicom_series import OBLIQUE_SHAPE, oblique_affine, write_oblique_series
from dcamt_testing.processes import call_dcamt
from dcamt_testing.scan_files import LEFT_ATRIUM
from dcamt_testing.synthetic import save_noise_scan

Rewrite = Callable[[Path, bool], object]


def rewrite_with_nibabel(path: Path, change: bool) -> None:
    image: Any = nib.load(path)
    voxels = np.asarray(image.dataobj).copy()
    voxels[3, 3, 3] ^= change
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), path)


def rewrite_with_simpleitk(path: Path, change: bool) -> None:
    image = SimpleITK.ReadImage(str(path))
    image[3, 3, 3] = image[3, 3, 3] ^ change
    SimpleITK.WriteImage(image, str(path), useCompression=True)


def rewrite_with_pynrrd(path: Path, change: bool) -> None:
    voxels, header = nrrd.read(str(path))
    voxels[3, 3, 3] ^= change
    nrrd.write(str(path), voxels, header)


def rewrite_with_pydicom(path: Path, change: bool) -> None:
    pydicom = pytest.importorskip("pydicom")
    data = pydicom.dcmread(path)
    pixels = bytearray(data.PixelData)
    pixels[len(pixels) // 2] ^= change
    data.PixelData = bytes(pixels)
    data.save_as(path)


def write_result(path: Path) -> None:
    """Write a labelmap whose voxel [3, 3, 3] is 1."""
    voxels = np.zeros(OBLIQUE_SHAPE, np.uint8)
    voxels[2:9, 3:8, 2:7] = 1
    if path.suffix == ".dcm":
        folder = write_oblique_series(path.parent / "series")
        source = find_source_images(folder, read_scan(folder).frames)
        labelmap = Labelmap(voxels, Grid(OBLIQUE_SHAPE, oblique_affine()))
        write_dicom(build_dicom_segmentation(labelmap, [LEFT_ATRIUM], source, Algorithm("m", "1", "1", "1")), path)
    else:
        labelmap = Labelmap(voxels, Grid(voxels.shape, np.diag([0.7, 0.7, 2.5, 1.0])))
        write_labelmap(labelmap, path, [LEFT_ATRIUM], mark=True)


@pytest.mark.parametrize(
    ("name", "rewrite"),
    [
        ("x.nii", rewrite_with_nibabel),
        ("x.nii.gz", rewrite_with_nibabel),
        ("x.nrrd", rewrite_with_simpleitk),
        ("x.nrrd", rewrite_with_pynrrd),
        ("x.seg.nrrd", rewrite_with_simpleitk),
        ("x.seg.nrrd", rewrite_with_pynrrd),
        ("x.dcm", rewrite_with_pydicom),
    ],
)
def test_result_is_not_recognised_after_another_program_changed_its_voxels(
    tmp_path: Path, name: str, rewrite: Rewrite
) -> None:
    if name == "x.dcm":
        pytest.importorskip("highdicom")
    path = tmp_path / name
    write_result(path)
    assert is_dcamt_result(path)
    rewrite(path, False)
    assert is_dcamt_result(path)
    rewrite(path, True)
    assert has_mark(path)
    assert not is_dcamt_result(path)


@pytest.mark.parametrize("name", ["x.nrrd", "x.seg.nrrd"])
def test_changed_result_without_compression_is_not_recognised(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_result(path)
    voxels, header = nrrd.read(str(path))
    voxels[3, 3, 3] = 0
    nrrd.write(str(path), voxels, {**header, "encoding": "raw"})
    assert has_mark(path)
    assert not is_dcamt_result(path)


@pytest.mark.parametrize("name", ["x.mha", "x.nhdr"])
def test_result_that_itk_converts_to_another_format_is_not_recognised(tmp_path: Path, name: str) -> None:
    """ITK copies the mark into formats that DCAMT does not write."""
    write_result(tmp_path / "x.nrrd")
    image = SimpleITK.ReadImage(str(tmp_path / "x.nrrd"))
    image[3, 3, 3] = 0
    SimpleITK.WriteImage(image, str(tmp_path / name))
    assert b"DCAMT" in (tmp_path / name).read_bytes()
    assert not is_dcamt_result(tmp_path / name)


@pytest.mark.parametrize("name", ["x.nii", "x.nrrd"])
def test_result_of_an_older_version_without_a_checksum_is_recognised(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_result(path)
    written = path.read_bytes()
    with_checksum = rb"DCAMT result \w{8}|DCAMT_CRC32:=\w{8}\n"
    path.write_bytes(re.sub(with_checksum, lambda found: b"DCAMT result".ljust(21, b"\0") * (name == "x.nii"), written))
    assert path.read_bytes() != written
    assert is_dcamt_result(path)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.nrrd"])
@pytest.mark.parametrize("kind", ["?", "<f2", "<f4", ">i2", "<f8"])
def test_map_of_any_type_is_recognised(tmp_path: Path, name: str, kind: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 2, (2, 5, 6, 7)).astype(kind)
    write_volume(Volume(voxels, Grid((5, 6, 7), np.eye(4))), tmp_path / name, mark=True)
    assert is_dcamt_result(tmp_path / name)
    assert np.array_equal(read_scan(tmp_path / name, channels=2).voxels, voxels)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.nrrd", "x.seg.nrrd"])
def test_labelmap_that_is_no_result_has_no_mark(tmp_path: Path, name: str) -> None:
    """As an expert's outline that is converted in Python."""
    voxels = np.random.default_rng(0).integers(0, 2, OBLIQUE_SHAPE, np.uint8)
    write_labelmap(Labelmap(voxels, Grid(OBLIQUE_SHAPE, np.eye(4))), tmp_path / name, [LEFT_ATRIUM])
    assert not has_mark(tmp_path / name)
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / name))).T, voxels)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".seg.nrrd"])
def test_results_that_python_and_commands_write_have_the_mark(noise_model: Path, tmp_path: Path, ending: str) -> None:
    scan = save_noise_scan(tmp_path / "scan.nrrd")
    assert not has_mark(scan)
    result = dcamt.segment(scan, noise_model, device="cpu", keep_probabilities=True)
    dcamt.write_segmentation(result, tmp_path / f"python{ending}")
    map_ending = ending.replace(".seg", "")
    write_probabilities(result, tmp_path / f"python_probabilities{map_ending}")
    options = ["--probabilities", map_ending[1:], "--agreement", "--model", noise_model, "--device", "cpu"]
    assert call_dcamt(["segment", scan, "-o", tmp_path / f"command{ending}", *options]) == 0
    results = [path for path in tmp_path.iterdir() if path != scan]
    assert len(results) == 5
    assert all(map(is_dcamt_result, results))


def test_ranking_marks_its_segmentations(noise_model: Path, tmp_path: Path) -> None:
    scan = save_noise_scan(tmp_path / "scan.nrrd")
    (tmp_path / "cases.csv").write_text(f"name,image,label,role\np1,{scan},,unlabelled\n", encoding="utf-8")
    options = ["--model", noise_model, "--segmentations", tmp_path / "out", "--device", "cpu"]
    assert call_dcamt(["rank", tmp_path / "cases.csv", *options]) == 0
    assert is_dcamt_result(tmp_path / "out" / "p1.seg.nrrd")


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.nrrd", "x.seg.nrrd"])
def test_result_in_a_truncated_file_is_not_recognised(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_result(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert not is_dcamt_result(path)
