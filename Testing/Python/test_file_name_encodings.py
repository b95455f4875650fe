"""Headers and zip files name their data files in UTF-8; scans are found by these names in every locale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.io.readers import read_scan
from dcamt_testing.scan_files import VOXELS, refused, write_scan


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
