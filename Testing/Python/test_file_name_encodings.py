"""Headers and zip files name their data files in UTF-8; scans are found by these names in every locale."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.api.outputs import describe_identity
from dcamt.io.itk import path_for_itk
from dcamt.io.readers import read_scan
from dcamt_testing.dicom_positions import write_frames
from dcamt_testing.scan_files import VOXELS, refused, write_scan

_COMPARE_SCANS = """
import sys
import numpy as np
from dcamt.io.readers import read_scan

voxels, *scans = sys.argv[1:]
for scan in scans:
    np.testing.assert_array_equal(read_scan(scan).voxels[0], np.load(voxels))
"""


def zip_files(path: Path, files: list[Path], name: bytes) -> Path:
    """Pack files under `name` and their endings, without the flag that states that names are UTF-8."""
    plain = b"@" * len(name)
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, plain.decode() + file.suffix)
    path.write_bytes(path.read_bytes().replace(plain, name))
    return path


def write_slices(folder: Path, pattern: str) -> None:
    """Write the slices of `VOXELS` to raw files."""
    for k in range(VOXELS.shape[2]):
        (folder / (pattern % k)).write_bytes(VOXELS[:, :, k].tobytes(order="F"))


@pytest.mark.parametrize("name", ["Müller", "山田", "Ġà"])  # UTF-8 of Ġ and à ends with the bytes of blanks in Latin-1
@pytest.mark.parametrize("how", ["raw", "zraw", "pattern", "list"])
def test_metaimage_finds_data_files_with_accents_as_itk_does(tmp_path: Path, name: str, how: str) -> None:
    path = write_scan(tmp_path / f"{name}.mhd", compressed=how == "zraw")
    if how in ("pattern", "list"):
        pattern = f"{name}_%03d.raw"
        write_slices(tmp_path, pattern)
        names = f"{pattern} 0 10 1" if how == "pattern" else "\n".join(["LIST", *(pattern % k for k in range(11))])
        header = path.read_text("utf-8").partition("ElementDataFile")[0]
        path.write_text(f"{header}ElementDataFile = {names}\n", encoding="utf-8")
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0), VOXELS)


@pytest.mark.parametrize("kind", ["mhd", "nhdr"])
def test_error_does_not_advise_a_name_that_is_not_utf8(tmp_path: Path, kind: str) -> None:
    path = write_scan(tmp_path / f"Müller.{kind}")
    path.write_bytes(path.read_bytes().replace("Müller".encode(), "Müller".encode("latin-1")))
    refused(lambda: read_scan(path), path, "If Müller.raw is the data file, write its name into the header, in UTF-8")


def test_itk_gets_the_bytes_of_a_path_in_any_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsencode", lambda path: str(path).encode("latin-1"))
    utf8 = "Müller.mha".encode()
    assert path_for_itk(Path(utf8.decode("latin-1"))) == utf8.decode()
    assert path_for_itk(Path("Müller.mha")) is None


@pytest.mark.parametrize("kind", ["mhd", "nhdr"])
@pytest.mark.parametrize("encoding", ["utf-8", "cp437"])
def test_header_in_a_zip_file_without_utf8_flag_finds_its_data_file(tmp_path: Path, kind: str, encoding: str) -> None:
    files = [write_scan(tmp_path / f"Müller.{kind}"), tmp_path / "Müller.raw"]
    packed = zip_files(tmp_path / "x.zip", files, "Müller".encode(encoding))
    np.testing.assert_array_equal(read_scan(packed).voxels[0], VOXELS)


def test_identity_is_read_from_a_zip_file_without_utf8_flag(tmp_path: Path) -> None:
    file = write_frames(tmp_path / "x.dcm", range(8), PatientID="7")
    packed = zip_files(tmp_path / "x.zip", [file], "Müller".encode())
    assert describe_identity(read_scan(packed))["ID"] == "7"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 on this system")
def test_scans_with_accents_are_read_in_an_ascii_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = [write_scan(tmp_path / f"Müller.{kind}") for kind in ("mhd", "nhdr", "mha", "vtk")]
    scans.append(zip_files(tmp_path / "x.zip", [tmp_path / "Müller.nhdr", tmp_path / "Müller.raw"], "Müller".encode()))
    np.save(tmp_path / "voxels.npy", VOXELS)
    for name, value in (("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0")):
        monkeypatch.setenv(name, value)
    subprocess.run([sys.executable, "-c", _COMPARE_SCANS, tmp_path / "voxels.npy", *scans], check=True)
