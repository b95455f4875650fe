"""Test file names with letters beyond ASCII in headers, zip files and case lists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.api.outputs import describe_identity
from dcamt.cases.case_list import CASE_COLUMNS, LABELLED
from dcamt.commands.rank import segmentation_names
from dcamt.errors import InputError
from dcamt.io.file_names import as_file_name, is_file_name
from dcamt.io.itk import path_for_itk
from dcamt.io.readers import read_scan
from dcamt.io.tables import write_table
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
    """Write a zip file without the flag for UTF-8 names. The files in it are called `name` plus their own endings."""
    plain = b"@" * len(name)
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, plain.decode() + file.suffix)
    path.write_bytes(path.read_bytes().replace(plain, name))
    return path


def name_slices(header: Path, pattern: str, how: str) -> None:
    """Write the slices of `VOXELS` to raw files, and name them in the header by a pattern or a list."""
    for k in range(11):
        (header.parent / (pattern % k)).write_bytes(VOXELS[:, :, k].tobytes(order="F"))
    names = f"{pattern} 0 10 1" if how == "pattern" else "\n".join(["LIST", *(pattern % k for k in range(11))])
    text = re.sub("(?m)^(ElementDataFile =|data file:).*", rf"\1 {names}", header.read_text("utf-8"))
    header.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", ["Müller", "山田", "Ġà"])  # In UTF-8, Ġ and à end with byte A0, a Latin-1 blank.
@pytest.mark.parametrize("how", ["raw", "zraw", "pattern", "list"])
def test_metaimage_finds_data_files_with_accents_as_itk_does(tmp_path: Path, name: str, how: str) -> None:
    path = write_scan(tmp_path / f"{name}.mhd", compressed=how == "zraw")
    if how in ("pattern", "list"):
        name_slices(path, f"{name}_%03d.raw", how)
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0), VOXELS)


@pytest.mark.parametrize("kind", ["mhd", "nhdr"])
def test_error_about_a_header_in_latin1_advises_utf8(tmp_path: Path, kind: str) -> None:
    path = write_scan(tmp_path / f"Müller.{kind}")
    path.write_bytes(path.read_bytes().replace("Müller".encode(), "Müller".encode("latin-1")))
    refused(lambda: read_scan(path), path, "If Müller.raw is the data file, write Müller.raw into the header, in UTF-8")


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system finds both forms")
@pytest.mark.parametrize("kind", ["mhd", "nhdr"])
@pytest.mark.parametrize("how", ["raw", "packed", "pattern", "list"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_data_file_is_found_with_composed_or_decomposed_accents(tmp_path: Path, kind: str, how: str, form: str) -> None:
    path = write_scan(tmp_path / f"Müller.{kind}", compressed=how == "packed")
    if how in ("pattern", "list"):
        name_slices(path, "Müller %d.raw" if how == "list" else "Müller%d.raw", how)
    path.write_text(normalize({"NFC": "NFD", "NFD": "NFC"}[form], path.read_text("utf-8")), encoding="utf-8")
    for file in sorted(tmp_path.iterdir()):
        file.rename(tmp_path / normalize(form, file.name))
    np.testing.assert_array_equal(read_scan(tmp_path / normalize(form, path.name)).voxels[0], VOXELS)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_temporary_folder_whose_path_is_not_utf8_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_scan(tmp_path / "Müller.mhd")
    path.write_text(normalize("NFD", path.read_text("utf-8")), encoding="utf-8")
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(InputError, match=r"header\.mhd: has a path that is not UTF-8"):
        read_scan(path)


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


def test_name_that_the_locale_cannot_encode_is_no_file_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsencode", lambda path: str(path).encode("latin-1"))
    assert [is_file_name(name) for name in ("Müller", "山田")] == [True, False]
    assert as_file_name("山田 Müller.csv") == "__ Müller.csv"
    assert segmentation_names(["Müller", "山田"]) == ["Müller", "case2"]


@pytest.fixture
def ascii_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set an ASCII locale for the processes that a test starts."""
    for name, value in (("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0")):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("ascii_locale")
@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 on this system")
def test_listed_files_whose_names_the_locale_cannot_encode_are_reported_as_missing(tmp_path: Path) -> None:
    write_scan(tmp_path / "x.nii")
    rows = [["a", "Müller.nii", "x.nii", LABELLED], ["b", "x.nii", "Müller.nii", LABELLED]]
    write_table(tmp_path / "cases.csv", CASE_COLUMNS, rows)
    command = [sys.executable, "-m", "dcamt", "cases", "check", tmp_path / "cases.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "The scan does not exist" in done.stdout
    assert "The label does not exist" in done.stdout
    assert done.stderr.endswith("cases with problems: 2 of 2\n")


@pytest.mark.usefixtures("ascii_locale")
@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 on this system")
def test_scans_with_accents_are_read_in_an_ascii_locale(tmp_path: Path) -> None:
    scans = [write_scan(tmp_path / f"Müller.{kind}") for kind in ("mhd", "nhdr", "mha", "vtk")]
    scans.append(zip_files(tmp_path / "x.zip", [tmp_path / "Müller.nhdr", tmp_path / "Müller.raw"], "Müller".encode()))
    np.save(tmp_path / "voxels.npy", VOXELS)
    subprocess.run([sys.executable, "-c", _COMPARE_SCANS, tmp_path / "voxels.npy", *scans], check=True)


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system finds both forms")
def test_data_file_with_decomposed_accents_is_refused_in_a_folder_named_like_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "scan").mkdir()
    path = write_scan(tmp_path / "scan" / "Müller.mhd")
    path.with_suffix(".raw").rename(path.with_name(normalize("NFD", "Müller.raw")))
    folder = (tmp_path / "scan").rename(tmp_path / "100%s")
    refused(lambda: read_scan(folder / path.name), folder / path.name, "cannot be read as an image")
