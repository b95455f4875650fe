"""DICOM folders: every voxel is read at its RAS position, or the folder is refused with a one-line message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.geometry import Grid
from dcamt.io.formats import scan_name
from dcamt.io.readers import read_header, read_scan
from dcamt_testing.dicom_positions import CT, MR, STEP, write_slice
from dcamt_testing.scan_files import (
    ORTHOGONAL,
    RAS_TO_LPS,
    SHAPE,
    affine_from_sitk,
    affine_of,
    corner_distance_mm,
    orthogonal_matrix,
    refused,
    scan,
)


def write_slices(
    folder: Path,
    voxels: np.ndarray,
    affine: np.ndarray,
    *,
    uid: str = "1.2.826.0.1.1",
    description: str = "LGE axial",
    skip: tuple[int, ...] = (),
    shift: dict[int, float] | None = None,
    sop_class: str = MR,
) -> None:
    """Write one file per slice. File names are in the reverse order of positions; `shift` moves slices along k (mm)."""
    folder.mkdir(exist_ok=True)
    lps = RAS_TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    i, j = lps[:3, 0] / spacing[0], lps[:3, 1] / spacing[1]
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(voxels.shape[2]):
        if k in skip:
            continue
        plane = sitk.GetImageFromArray(voxels[:, :, k].T.astype(np.int16))
        plane.SetSpacing(spacing[:2].tolist())
        place = lps[:3, 3] + lps[:3, 2] * (k + (shift or {}).get(k, 0.0) / spacing[2])
        tags = {
            "0008|0016": sop_class,
            "0008|0060": "MR",
            "0008|103e": description,
            "0008|0018": f"{uid}.{k + 1}",
            "0020|000d": "1.2.826.0.1",
            "0020|000e": uid,
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{v:.9f}"[:16] for v in place),
            "0020|0037": "\\".join(f"{v:.12f}"[:16] for v in (*i, *j)),
        }
        for tag, text in tags.items():
            plane.SetMetaData(tag, text)
        writer.SetFileName(str(folder / f"{uid}-{99 - k:02}.dcm"))
        writer.Execute(plane)


@pytest.mark.parametrize("name", [*ORTHOGONAL, "tilted"])
def test_dicom_series_is_read(tmp_path: Path, name: str) -> None:
    tilted = np.array([[0.7, 0, 0], [0, 0.9, 0.6], [0, 0, 2.5]])  # each slice is shifted along j from the slice before
    affine = {**ORTHOGONAL, "tilted": affine_of(orthogonal_matrix(4) @ tilted)}[name]
    voxels, folder = scan("int16"), tmp_path / "series"
    write_slices(folder, voxels, affine)
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


@pytest.mark.parametrize("sop_class", [MR, CT], ids=["MR", "CT"])
def test_each_dicom_slice_is_rescaled_by_its_own_slope(tmp_path: Path, sop_class: str) -> None:
    folder = tmp_path / "s"
    write_slices(folder, scan("int16"), np.diag([1.0, -1, 2, 1]), sop_class=sop_class)
    slopes = {0: b"1 ", 1: b".5", 2: b"2 "}
    for k in range(SHAPE[2]):
        path = folder / f"1.2.826.0.1.1-{99 - k:02}.dcm"
        # RescaleIntercept and RescaleSlope (implicit VR: tag, length, value) are inserted before the pixels.
        raw, pixels, two = path.read_bytes(), b"\xe0\x7f\x10\x00", b"\x02\x00\x00\x00"
        intercept, slope = b"\x28\x00\x52\x10" + two, b"\x28\x00\x53\x10" + two
        raw = raw.replace(intercept + b"0 ", b"").replace(slope + b"1 ", b"")
        assert raw.count(pixels) == 1
        assert intercept not in raw
        assert slope not in raw
        extra = intercept + b"0 " + slope + slopes[k % 3]
        path.write_bytes(raw.replace(pixels, extra + pixels))
    read = read_scan(folder)
    expected = scan("int16") * np.array([float(slopes[k % 3]) for k in range(SHAPE[2])])
    if read.grid.affine[2, 2] < 0:
        expected = expected[:, :, ::-1]
    np.testing.assert_allclose(read.voxels[0], expected, rtol=1e-6)
    assert read.voxels.dtype == np.float32


def test_unusable_dicom_folder_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    affine = ORTHOGONAL["oblique"]

    def read(name: str) -> Callable[[], object]:
        return lambda: read_scan(tmp_path / name)

    for name, options, message_parts in [
        ("gap", {"skip": (4, 5)}, ["lacks about 2", "2.50 to 7.50 mm"]),
        ("uneven", {"shift": {4: 0.7}}, ["unevenly spaced"]),
        ("doubled", {"shift": {4: 2.5}}, ["same place"]),
        ("single", {"skip": tuple(range(1, SHAPE[2]))}, ["one DICOM slice"]),
    ]:
        write_slices(tmp_path / name, scan("int16"), affine, **options)  # type: ignore[arg-type]
        refused(read(name), tmp_path / name, *message_parts)
    write_slices(tmp_path / "two", scan("int16"), affine)
    write_slices(tmp_path / "two", scan("int16"), affine, uid="1.2.826.0.1.2", description="Cine 4ch", skip=(0,))
    refused(
        read("two"),
        tmp_path / "two",
        "2 DICOM series",
        '1 "Cine 4ch" (10 slices of 9 x 10), 2 "LGE axial" (11 slices',
        "--series",
    )
    write_slices(tmp_path / "turned", scan("int16"), affine, skip=tuple(range(5, 11)))
    write_slices(tmp_path / "turned", scan("int16"), ORTHOGONAL["axial"], skip=tuple(range(5)))
    refused(read("turned"), tmp_path / "turned", "2 stacks of slices", "stack 1 of 2", "--series")
    (tmp_path / "none").mkdir()
    refused(read("none"), tmp_path / "none", "empty folder")
    (tmp_path / "none" / "x.txt").write_text("hello", encoding="utf-8")
    refused(read("none"), tmp_path / "none", "holds no DICOM slices. Choose a scan")
    write_slices(tmp_path / "cut", scan("int16"), affine)
    damaged = sorted((tmp_path / "cut").iterdir())[5]
    damaged.write_bytes(damaged.read_bytes()[:-60])
    refused(read("cut"), tmp_path / "cut")
    assert capfd.readouterr() == ("", ""), "a library wrote to the terminal"


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
    paths = [write_slice(tmp_path / "series" / f"{k}.dcm", k) for k in range(9)]
    data = pydicom.dcmread(paths[4])
    data.ImagePositionPatient[axis] += fraction * STEP
    data.save_as(paths[4])
    if message is None:
        assert read_scan(tmp_path / "series").grid.shape[2] == 9
    else:
        refused(lambda: read_scan(tmp_path / "series"), tmp_path / "series", message)
