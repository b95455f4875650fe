"""DICOM folders: every voxel is read at its RAS position, or the folder is refused with a one-line message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.api.outputs import describe_identity
from dcamt.errors import MissingPackage
from dcamt.geometry import Grid
from dcamt.io.dicom_files import read_files
from dcamt.io.formats import scan_name
from dcamt.io.readers import read_header, read_scan
from dcamt_testing.dicom_positions import CT, MR, STEP, edit_dicom, encode_text, write_slice, write_slices
from dcamt_testing.dicom_series import write_mr_series
from dcamt_testing.scan_files import (
    ORTHOGONAL,
    SHAPE,
    affine_from_sitk,
    affine_of,
    corner_distance_mm,
    orthogonal_matrix,
    refused,
    scan,
)
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydicom.valuerep import PersonName


@pytest.mark.parametrize("name", [*ORTHOGONAL, "tilted"])
def test_dicom_series_is_read(tmp_path: Path, name: str) -> None:
    tilted = np.array([[0.7, 0, 0], [0, 0.9, 0.6], [0, 0, 2.5]])  # each slice lies 0.6 mm further along j
    affine = {**ORTHOGONAL, "tilted": affine_of(orthogonal_matrix(4) @ tilted)}[name]
    voxels, folder = scan("int16"), tmp_path / "series"
    write_mr_series(folder, voxels, affine)
    (folder / "README.txt").write_text("not a slice", encoding="utf-8")
    volume = read_scan(folder)
    assert volume.voxels.shape == (1, *SHAPE)
    assert scan_name(folder) == "series"
    header = read_header(folder)
    assert header.channels == 1
    assert corner_distance_mm(header.grid, volume.grid) == 0
    # The k axis may be reversed, so voxels are compared by RAS position.
    to_ours = np.linalg.inv(volume.grid.affine) @ affine
    index = np.indices(SHAPE).reshape(3, -1)
    ours = to_ours[:3, :3] @ index + to_ours[:3, 3:]
    np.testing.assert_allclose(ours, np.rint(ours), atol=1e-3)
    np.testing.assert_array_equal(volume.voxels[0][tuple(np.rint(ours).astype(int))], voxels.ravel())
    if name != "tilted":
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        image = reader.Execute()
        assert volume.grid.matches(Grid(SHAPE, affine_from_sitk(image)))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), volume.voxels[0])


@pytest.mark.parametrize("version", ["2.4.5", "3.0.0", "3.0.1", "3.1.0.dev0", "10.0"])
def test_reading_fails_with_a_message_if_pydicom_is_too_old(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mr_series(tmp_path / "series", scan("int16"), ORTHOGONAL[next(iter(ORTHOGONAL))])
    file = next((tmp_path / "series").iterdir())
    monkeypatch.setattr(pydicom, "__version__", version)
    if Version(version) in SpecifierSet(">=3.0.1", prereleases=True):
        assert read_scan(tmp_path / "series").voxels.shape == (1, *SHAPE)
        return
    for path in (tmp_path / "series", file):
        with pytest.raises(MissingPackage, match=f"^pydicom {version} is too old: DCAMT needs 3.0.1 or later"):
            read_scan(path)


def test_chinese_texts_are_read_without_their_escape_sequences(tmp_path: Path) -> None:
    texts = {"PatientName": "Wang^XiaoDong=王^小东", "PatientID": "王1", "SeriesDescription": "LGE 心房"}
    encoded: dict[str, Any] = {keyword: encode_text(text, "gb2312", b"\x1b$)A") for keyword, text in texts.items()}
    encoded["PatientName"] = PersonName(encoded["PatientName"])
    write_slices(tmp_path, 8, SpecificCharacterSet=["", "ISO 2022 IR 58"], **encoded)
    scan = read_scan(tmp_path)
    identity = describe_identity(scan)
    assert (identity["Patient"], identity["ID"]) == ("Wang XiaoDong=王 小东", "王1")
    assert read_files([tmp_path / "0.dcm"]).frames[0].title == "LGE 心房"


@pytest.mark.parametrize("sop_class", [MR, CT], ids=["MR", "CT"])
def test_each_dicom_slice_is_rescaled_by_its_own_slope(tmp_path: Path, sop_class: str) -> None:
    slopes = [(1, 0.5, 2)[k % 3] for k in range(SHAPE[2])]
    for k, slope in enumerate(slopes):
        rescaling = {"RescaleSlope": slope, "RescaleIntercept": 0}
        write_slice(tmp_path / "s" / f"{k}.dcm", k, sop_class=sop_class, **rescaling)
    read = read_scan(tmp_path / "s")
    expected = slopes * (100 + 10 * np.arange(SHAPE[2]))
    np.testing.assert_allclose(read.voxels[0, 3, 3], expected[:: int(np.sign(read.grid.affine[2, 2]))], rtol=1e-6)
    assert read.voxels.dtype == np.float32


def cut(paths: list[Path]) -> None:
    paths[5].write_bytes(paths[5].read_bytes()[:-60])


def move_to_another_series(paths: list[Path]) -> None:
    for path in paths:
        with edit_dicom(path) as data:
            data.SeriesInstanceUID, data.SeriesDescription = "1.2.826.0.1.2", "Cine 4ch"


@pytest.mark.parametrize(
    ("change", "message_parts"),
    [
        (lambda paths: [path.unlink() for path in paths[4:6]], ["lacks about 2", "2.50 to 7.50 mm"]),
        (lambda paths: [path.unlink() for path in paths[1:]], ["one DICOM slice"]),
        (
            lambda paths: move_to_another_series(paths[5:]),
            ["2 DICOM series", '(2) "Cine 4ch" with SeriesNumber 5 (6 slices of 9 x 10)'],
        ),
        (cut, ["holds a damaged file: ", "(cut)"]),
    ],
    ids=["gap", "single", "two series", "cut"],
)
def test_unusable_dicom_folder_is_refused_and_libraries_print_nothing(
    tmp_path: Path,
    change: Callable[[list[Path]], object],
    message_parts: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "series"
    change(write_mr_series(folder, scan("int16"), ORTHOGONAL["oblique"]))
    refused(lambda: read_scan(folder), folder, *message_parts)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("axis", "fraction", "message"),
    [
        (0, 0.04, None),
        (0, 0.06, "shifted in plane"),
        (1, 0.06, "shifted in plane"),
        (2, 0.015, None),
        (2, 0.025, "unevenly spaced"),
    ],
)
def test_position_of_a_slice_may_deviate_by_a_small_fraction_of_the_spacing(
    tmp_path: Path, axis: int, fraction: float, message: str | None
) -> None:
    with edit_dicom(write_slices(tmp_path / "series", 9)[4]) as data:
        data.ImagePositionPatient[axis] += fraction * STEP
    if message is None:
        assert read_scan(tmp_path / "series").grid.shape[2] == 9
    else:
        refused(lambda: read_scan(tmp_path / "series"), tmp_path / "series", message)
