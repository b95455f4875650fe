"""ITK reads the voxels of `x.nii` for a file `x.nii.gz` beside it: DCAMT neither writes nor reads such files."""

from __future__ import annotations

import gzip
from pathlib import Path

import dcamt
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.api.outputs import write_probabilities
from dcamt.errors import InputError
from dcamt.io.readers import read_header, read_labelmap, read_scan
from dcamt.io.writers import write_labelmap, write_volume
from dcamt_testing.processes import call_dcamt
from dcamt_testing.scan_files import ORTHOGONAL, labels, refused, save_nifti, scan
from dcamt_testing.synthetic import noise_scan

SAME_NAMES = [("p.nii", "p.nii.gz"), ("p.nii.gz", "p.nii"), ("P.NII", "P.NII.GZ"), ("P.NII.GZ", "P.NII")]


def save_scan(path: Path) -> bytes:
    write_volume(noise_scan(), path.with_name(path.name.lower()))
    path.with_name(path.name.lower()).rename(path)
    return path.read_bytes()


def test_itk_reads_the_voxels_of_the_uncompressed_file_for_both_files(tmp_path: Path) -> None:
    """This is why DCAMT refuses such files."""
    save_nifti(tmp_path / "p.nii.gz", labels())
    save_nifti(tmp_path / "p.nii", scan("uint8"))
    for name in ("p.nii.gz", "p.nii"):
        voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name)))
        np.testing.assert_array_equal(voxels.transpose(2, 1, 0), scan("uint8"))


@pytest.mark.parametrize(("existing", "name"), SAME_NAMES)
def test_writers_refuse_a_nifti_file_beside_one_of_the_same_name(
    noise_model: Path, tmp_path: Path, existing: str, name: str
) -> None:
    before = save_scan(tmp_path / existing)
    result = dcamt.segment(noise_scan(), noise_model, device="cpu", keep_probabilities=True)
    path = tmp_path / name
    for write in (
        lambda: dcamt.write_segmentation(result, path),
        lambda: dcamt.write_labelmap(result.labelmap, path),
        lambda: write_probabilities(result, path),
        lambda: write_volume(result.scan, path),
    ):
        refused(write, path, f"would lie beside {existing}", "Give another name, folder or format")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {existing: before}


@pytest.mark.parametrize(
    "options",
    [
        ["p.nii", "-o", "p.nii.gz"],
        ["p.nii", "-o", ".", "--format", "nii.gz"],
        [".", "-o", ".", "--format", "nii.gz"],
        ["p.nii", "-o", ".", "--format", "nii.gz", "--skip-existing"],
        ["p.nii", "-o", ".", "--format", "nii.gz", "--overwrite"],
        ["p.nii", "-o", "x.seg.nrrd", "--probabilities", "p.nii.gz"],
        ["p.nii", "-o", "x.nii", "--probabilities", "x.nii.gz"],
    ],
    ids=" ".join,
)
def test_segment_refuses_a_nifti_result_beside_a_file_of_the_same_name(
    noise_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_scan(tmp_path / "p.nii")
    assert call_dcamt(["segment", *options, "--model", noise_model, "--device", "cpu"]) == 1
    message = capsys.readouterr().err
    assert ".nii.gz: would lie beside " in message
    assert "Give another name, folder or format" in message
    assert [file.name for file in tmp_path.iterdir()] == ["p.nii"]


def test_result_that_is_kept_beside_a_file_of_the_same_name_does_not_stop_new_scans(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    save_scan(scans / "p.nrrd")
    segment = ["segment", scans, "-o", out, "--format", "nii.gz", "--model", noise_model, "--device", "cpu"]
    assert call_dcamt(segment) == 0
    (out / "p.nii").write_bytes(gzip.decompress((out / "p.nii.gz").read_bytes()))
    save_scan(scans / "q.nrrd")
    assert call_dcamt([*segment, "--skip-existing"]) == 0
    assert (out / "q.nii.gz").exists()
    capsys.readouterr()
    assert call_dcamt([*segment, "--overwrite"]) == 1
    assert "Give another name, folder or format, or move p.nii." in capsys.readouterr().err


def test_agreement_beside_a_file_of_the_same_name_is_refused(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_scan(tmp_path / "p.nii")
    save_scan(tmp_path / "r_agreement.nii")
    arguments = ["segment", tmp_path / "p.nii", "-o", tmp_path / "r.nii.gz", "--agreement", "--model", noise_model]
    assert call_dcamt([*arguments, "--device", "cpu"]) == 1
    assert "r_agreement.nii.gz: would lie beside r_agreement.nii" in capsys.readouterr().err
    assert not (tmp_path / "r.nii.gz").exists()


@pytest.mark.parametrize(("plain", "compressed"), [("p.nii", "p.nii.gz"), ("P.NII", "P.NII.GZ")])
def test_compressed_file_is_refused_if_itk_would_read_other_voxels(tmp_path: Path, plain: str, compressed: str) -> None:
    voxels = scan("int16")
    save_nifti(tmp_path / "p.nii.gz", voxels).rename(tmp_path / compressed)
    np.testing.assert_array_equal(read_scan(tmp_path / compressed).voxels[0], voxels)
    voxels[-1, -1, -1] += 1
    save_nifti(tmp_path / "p.nii", voxels).rename(tmp_path / plain)
    for read in (read_scan, read_header, read_labelmap):
        refused(lambda read=read: read(tmp_path / compressed), tmp_path / compressed, f"lies beside {plain}", "Rename")
    np.testing.assert_array_equal(read_scan(tmp_path / plain).voxels[0], voxels)


def test_compressed_file_beside_a_file_with_equal_voxels_is_read(tmp_path: Path) -> None:
    """Programs that read no compressed files leave such pairs of files; the affine may differ."""
    save_nifti(tmp_path / "p.nii.gz", labels(), ORTHOGONAL["oblique"])
    save_nifti(tmp_path / "p.nii", labels())
    read_header(tmp_path / "p.nii.gz")
    labelmap = read_labelmap(tmp_path / "p.nii.gz")
    np.testing.assert_array_equal(labelmap.voxels, labels())
    np.testing.assert_allclose(labelmap.grid.affine, ORTHOGONAL["oblique"], atol=1e-5)


def test_truncated_file_beside_a_compressed_file_counts_as_other_voxels(tmp_path: Path) -> None:
    save_nifti(tmp_path / "p.nii.gz", labels())
    plain = save_nifti(tmp_path / "p.nii", labels())
    plain.write_bytes(plain.read_bytes()[:-1])
    refused(lambda: read_labelmap(tmp_path / "p.nii.gz"), tmp_path / "p.nii.gz", "lies beside p.nii")


@pytest.mark.parametrize("name", ["p.hdr.gz", "p.img.gz"])
def test_compressed_pair_beside_an_uncompressed_pair_is_refused(tmp_path: Path, name: str) -> None:
    """ITK mixes the two pairs, too."""
    sitk.WriteImage(sitk.GetImageFromArray(labels()), str(tmp_path / "p.img.gz"))
    assert read_scan(tmp_path / name).voxels.any()
    sitk.WriteImage(sitk.GetImageFromArray(labels() + 1), str(tmp_path / "p.hdr"))
    refused(lambda: read_scan(tmp_path / name), tmp_path / name, f"lies beside {name[:-3]}", "Rename")
    assert read_scan(tmp_path / "p.hdr").voxels.min() == 1


def test_uncompressed_file_is_read_and_replaced_beside_nothing_else(tmp_path: Path) -> None:
    """A result of another format may have the scan's name."""
    path = save_nifti(tmp_path / "p.nii", scan("int16"))
    write_labelmap(read_labelmap(path), tmp_path / "p.nrrd")
    write_labelmap(read_labelmap(path), tmp_path / "p_1.nii.gz")
    write_labelmap(read_labelmap(path), path)
    assert nib.load(path).shape == scan().shape
    with pytest.raises(InputError):
        write_labelmap(read_labelmap(path), tmp_path / "p.nii.gz")
