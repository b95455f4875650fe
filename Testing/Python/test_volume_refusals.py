"""Unusable scans, labelmaps and output paths are refused with a one-line message."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.errors import InputError, OutputError
from dcamt.geometry import Grid
from dcamt.io.readers import read_header, read_labelmap, read_scan
from dcamt.io.writers import write_labelmap, write_volume
from dcamt.volume import Labelmap, Volume, check_grid, check_scan_grid, check_size, fit_labelmap, size_warning
from dcamt_testing.scan_files import (
    LEFT_ATRIUM,
    ORTHOGONAL,
    SHAPE,
    WALL,
    affine_of,
    labels,
    refused,
    save_nifti,
    save_nrrd,
    scan,
    sitk_image,
)
from dcamt_testing.synthetic import save_noise_scan

# ---- files ----


def test_missing_empty_and_damaged_files_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for ending in (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".xyz", ""):
        path = tmp_path / f"scan{ending}"
        refused(lambda path=path: read_scan(path), path, "does not exist")
        path.write_bytes(b"")
        refused(lambda path=path: read_scan(path), path, "empty")
        path.write_text("patient,age\n1,62\n" * 50, encoding="utf-8")
        message = "is not an image in a known format" if ending in (".dcm", ".xyz", "") else "cannot be read"
        refused(lambda path=path: read_scan(path), path, message)
        refused(lambda path=path: read_labelmap(path), path, message)
    refused(lambda: read_scan(tmp_path / ("x" * 300)), tmp_path / ("x" * 300), "does not exist")
    assert capfd.readouterr() == ("", ""), "a library wrote to the terminal"


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_truncated_file_is_refused(tmp_path: Path, ending: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"x{ending}"
    sitk.WriteImage(sitk_image(scan(), ORTHOGONAL["axial"]), str(path), useCompression=ending != ".nii")
    whole = path.read_bytes()
    for part in (0.3, 0.7, 0.97):
        path.write_bytes(whole[: int(len(whole) * part)])
        refused(lambda: read_scan(path), path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("part", ["voxels", "checksum", "size"])
def test_flipped_bits_and_missing_end_of_gzip_data_are_detected(tmp_path: Path, part: str) -> None:
    path = tmp_path / "x.nii.gz"
    save_nifti(path.with_suffix(""), scan())
    # Compression level 0 stores the bytes as they are, so a flipped bit in a voxel does not disturb the decompression,
    # and only the checksum reveals the flipped bit.
    whole = bytearray(gzip.compress(path.with_suffix("").read_bytes(), compresslevel=0))
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_scan(path).voxels[0], scan())
    whole[{"voxels": len(whole) // 2, "checksum": -8, "size": -4}[part]] ^= 0x10
    path.write_bytes(whole)
    refused(lambda: read_scan(path), path, "damaged")
    path.write_bytes(whole[:-8])
    refused(lambda: read_scan(path), path, "too early")


def test_content_that_contradicts_the_ending_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(b"hello world" * 100))
    refused(lambda: read_scan(path), path, "NIfTI")
    save_nrrd(tmp_path / "y.nrrd", scan(), spacings=[1, 1, 1])
    (tmp_path / "y.nrrd").rename(path)
    refused(lambda: read_scan(path), path, "NIfTI")
    save_nifti(tmp_path / "x.nii", scan()).rename(tmp_path / "x.nrrd")
    refused(lambda: read_scan(tmp_path / "x.nrrd"), tmp_path / "x.nrrd", "NRRD")


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("srow_x", np.nan, "NaN"),
        ("srow_x", 0, "zero"),
        ("pixdim", 0, "impossible voxel spacing (0 x 3 x 4)"),
        ("pixdim", np.nan, "impossible voxel spacing"),
        ("dim", 30000, "30000 x 10 x 11"),
        ("dim", -4, ""),
        ("dim", 0, "no voxels"),
    ],
)
def test_damaged_nifti_header_is_refused(tmp_path: Path, field: str, value: float, word: str) -> None:
    path = tmp_path / "x.nii"
    save_nifti(path, scan())
    raw = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    if field == "pixdim":
        header["sform_code"], header["qform_code"] = 0, 1
        header["pixdim"][1] = value
    elif field == "dim":
        header["dim"][1] = value
        if value == 30000:
            header["dim"][4], header["dim"][0] = 30000, 4
    else:
        header[field] = value
    raw[:348] = header.binaryblock
    path.write_bytes(bytes(raw))
    refused(lambda: read_scan(path), path, word)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("datatype", 1, "unknown type (number 1)"),
        ("datatype", 77, "unknown type"),
        ("qoffset_x", 1e30, "from the origin"),
    ],
)
def test_unknown_voxel_type_and_impossible_position_are_refused(
    tmp_path: Path, field: str, value: float, message: str
) -> None:
    image = nib.Nifti1Image(np.arange(512, dtype=np.int16).reshape(8, 8, 8), np.eye(4))
    image.set_qform(np.eye(4), 1)
    image.set_sform(None, 0)
    path = tmp_path / "x.nii"
    nib.save(image, path)
    data = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(data[:348]), check=False)
    header[field] = value
    path.write_bytes(header.binaryblock + bytes(data[348:]))
    refused(lambda: read_scan(path), path, message)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("type", "lacks the field 'type' in its header"),
        ("encoding", "lacks the field 'encoding' in its header"),
        ("space", "lacks the coordinate system"),
    ],
)
def test_nrrd_field_without_value_is_refused_as_missing(field: str, message: str, tmp_path: Path) -> None:
    path = save_noise_scan(tmp_path / "x.nrrd")
    lines = path.read_bytes().split(b"\n")
    changed = [f"{field}:".encode() if line.startswith(f"{field}:".encode()) else line for line in lines]
    path.write_bytes(b"\n".join(changed))
    refused(lambda: read_scan(path), path, message)


def test_missing_or_unusable_nrrd_geometry_is_refused(tmp_path: Path) -> None:
    directions = np.eye(3)
    cases: list[tuple[dict[str, object], str]] = [
        ({}, "no space directions"),
        ({"space_dimension": 3, "space_directions": directions}, "lacks the coordinate system"),
        ({"space": "scanner-xyz", "space_directions": directions}, "scanner-xyz"),
        ({"space": "RAS", "space_directions": np.diag([1.0, 1, 0])}, "spacing of zero"),
        ({"space": "RAS", "space_directions": np.ones((3, 3))}, "singular"),
    ]
    for number, (header, word) in enumerate(cases):
        path = save_nrrd(tmp_path / f"{number}.nrrd", scan(), **header)
        refused(lambda path=path: read_scan(path), path, word)


def test_affine_with_an_invalid_last_row_is_refused() -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[3] = 0, 0, 0.5, 1
    with pytest.raises(InputError, match=r"^x\.nrrd: has an invalid affine, whose last row is \(0, 0, 0\.5, 1\)"):
        check_grid(Grid(SHAPE, affine), Path("x.nrrd"))


def test_stack_of_five_slices_is_read_and_a_stack_of_two_is_refused(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 500, (40, 40, 5)).astype(np.int16)
    path = save_nifti(tmp_path / "cine.nii", voxels, affine_of(np.diag([1.4, 1.4, 10.0])))
    np.testing.assert_array_equal(read_scan(path).voxels[0], voxels)
    refused(lambda: read_scan(save_nifti(path, voxels[:, :, :2])), path, "at least 3 voxels")


@pytest.mark.parametrize(
    ("spacing", "message_part"),
    [
        ((100.0, 100.0, 200.0), "has an implausible size: 0.9 x 1 x 2.2 m with a voxel spacing of 100 x 100 x 200 mm"),
        ((625.0, 625.0, 625.0), "5.6 x 6.2 x 6.9 m"),
        ((6e-4, 6e-4, 6e-4), "0.0006 x 0.0006 x 0.0006 mm"),
        (
            (1e-3, 1e-3, 2.0),
            "has an implausible size: 0.009 x 0.01 x 22 mm with a voxel spacing of 0.001 x 0.001 x 2 mm",
        ),
        ((0.15, 0.2, 9.0), "has an implausible size: 1.4 x 2 x 99 mm with a voxel spacing of 0.15 x 0.2 x 9 mm"),
        ((2.0, 2.0, 2e-3), "has an implausible size: 18 x 20 x 0.022 mm"),
        ((20.0, 20.0, 2e-3), "has an implausible size: 180 x 200 x 0.022 mm"),
        (
            (2e4, 2e4, 2e4),
            "has an implausible size: 180 x 200 x 220 m with a voxel spacing of 20000 x 20000 x 20000 mm",
        ),
    ],
)
def test_error_states_the_impossible_size_or_spacing(
    tmp_path: Path, spacing: tuple[float, float, float], message_part: str
) -> None:
    path = save_nifti(tmp_path / "x.nii.gz", scan(), np.diag([*spacing, 1.0]))
    refused(lambda: read_scan(path), path, message_part)


@pytest.mark.parametrize(
    ("sides_mm", "shape", "message"),
    [
        ((900, 680, 440), (100, 50, 20), "larger than a body: 900 x 680 x 440 mm"),
        ((680, 300, 900), (100, 50, 20), "larger than a body"),
        ((500, 500, 1000), (100, 50, 20), ""),
        ((600, 600, 600), (100, 50, 20), ""),
        ((11.4, 8.75, 5.5), (183, 140, 88), "unusually small for a patient: 11.4 x 8.75 x 5.5 mm, with a voxel"),
        ((114, 87.5, 5.5), (183, 140, 88), "unusually small"),  # z in centimetres
        ((114, 87.5, 1.76), (183, 140, 88), "unusually small"),  # slices of 0.02 mm
        ((400, 400, 11), (320, 320, 44), "unusually small"),  # z in centimetres
        ((40, 40, 11), (320, 320, 44), "unusually small"),  # centimetres
        ((41, 41, 45), (512, 512, 150), "unusually small"),  # a CT of the chest in centimetres
        ((20, 20, 20), (200, 200, 50), "unusually small"),  # the heart of a mouse
        ((31, 40, 24), (31, 40, 24), ""),  # a crop around a hippocampus
        ((51.2, 51.2, 30), (512, 512, 300), ""),  # a CT of the ear
        ((358, 358, 9), (512, 512, 3), ""),  # three slices of 3 mm
        ((501, 501, 225), (512, 512, 900), ""),  # overlapping slices, 0.25 mm apart
    ],
)
def test_scan_causes_a_warning_if_its_size_is_implausible_for_a_patient(
    sides_mm: tuple[float, ...], shape: tuple[int, int, int], message: str
) -> None:
    grid = Grid(shape, np.diag([*np.divide(sides_mm, shape), 1.0]))
    check_scan_grid(grid, None)
    warning = size_warning(grid)
    assert message in warning
    assert bool(warning) == bool(message)


def test_labelmaps_of_an_impossible_size_are_refused(tmp_path: Path) -> None:
    # If the spacing is in micrometres or metres, `dcamt evaluate` would compute wrong distances and volumes.
    for spacing, size in ((1000.0, "9 x 10 x 11 m"), (1e-3, "0.009 x 0.01 x 0.011 mm")):
        path = save_nifti(tmp_path / "x.nii.gz", labels(), np.diag([spacing, spacing, spacing, 1.0]))
        refused(lambda path=path: read_labelmap(path), path, f"has an implausible size: {size}")
        refused(lambda path=path: read_header(path, as_labelmap=True), path, f"has an implausible size: {size}")
    for spacing in (100.0, 0.2):
        save_nifti(path, labels(), np.diag([spacing, spacing, spacing, 1.0]))
        assert read_labelmap(path).voxels.any()
    for spacings in ((1.0, 1.0, 0.0025), (0.00125, 0.00125, 2.5)):
        save_nifti(path, labels(), np.diag([*spacings, 1.0]))
        refused(lambda: read_labelmap(path), path, "has an implausible size")
    one_voxel = tmp_path / "x.seg.nrrd"
    one_voxel.write_bytes(
        b"NRRD0004\ntype: uchar\ndimension: 3\nspace: LPS\nsizes: 1 1 1\nspace directions: (.5,0,0) (0,.5,0) (0,0,.5)\n"
        b"encoding: raw\nSegment0_LabelValue:=1\n\n\x01"
    )
    assert read_labelmap(one_voxel).grid.shape == (1, 1, 1)


# ---- voxels ----


def test_flat_thin_or_multiple_volumes_are_refused(tmp_path: Path) -> None:
    def nifti(*shape: int) -> Callable[[], object]:
        voxels = np.random.default_rng(0).uniform(0, 9, shape).astype(np.float32)
        return lambda: read_scan(save_nifti(path, voxels))

    path = tmp_path / "x.nii.gz"
    refused(nifti(20, 20), path, "2D")
    refused(nifti(20, 20, 1), path, "one slice")
    refused(nifti(1, 20, 20), path, "one slice")
    refused(nifti(1, 1, 1), path, "single voxel")
    refused(nifti(20, 20, 2), path, "too small: 20 x 20 x 2")
    refused(nifti(*SHAPE, 5), path, "5 volumes")
    for ending in (".nrrd", ".mha", ".png"):
        flat = tmp_path / f"flat{ending}"
        sitk.WriteImage(sitk.GetImageFromArray(np.arange(400, dtype=np.uint8).reshape(20, 20)), str(flat))
        refused(lambda flat=flat: read_scan(flat), flat, "2D")
    series = tmp_path / "series.mha"
    image = sitk.JoinSeries([sitk_image(scan(seed=n), np.eye(4)) for n in range(3)])
    sitk.WriteImage(image, str(series))
    refused(lambda: read_scan(series), series, "3 volumes")
    np.testing.assert_array_equal(read_scan(series, channels=3).voxels[2], scan(seed=2))


@pytest.mark.parametrize("axis", range(3))
def test_three_voxels_along_each_axis_are_needed_and_enough(axis: int) -> None:
    def grid(length: int) -> Grid:
        shape = [20, 20, 20]
        shape[axis] = length
        return Grid((shape[0], shape[1], shape[2]), np.diag([2.0, 2.0, 2.0, 1.0]))

    with pytest.raises(InputError, match=r"x\.nrrd: holds one slice only .* A three-dimensional scan is needed\."):
        check_scan_grid(grid(1), Path("x.nrrd"))
    with pytest.raises(InputError, match=r"x\.nrrd: is too small: .* Every axis needs at least 3 voxels\."):
        check_scan_grid(grid(2), Path("x.nrrd"))
    check_scan_grid(grid(3), Path("x.nrrd"))


def test_unusable_voxel_values_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(lambda: read_scan(save_nifti(path, rgb)), path, "RGB")
    refused(lambda: read_scan(save_nifti(path, scan() * 1j)), path, "complex")
    scaled = nib.Nifti1Image(scan() * (1 + 1j), np.diag([2.0, 3, 4, 1]))
    scaled.header.set_slope_inter(2, 1)
    nib.save(scaled, path)
    refused(lambda: read_scan(path), path, "complex")
    voxels = scan()
    voxels[0, 0, :3], voxels[1, 1, 1] = np.nan, np.inf
    refused(lambda: read_scan(save_nifti(path, voxels)), path, "NaN or infinite values in 4 of 990 voxels")
    refused(lambda: read_scan(save_nifti(path, np.full(SHAPE, 7, np.int16))), path, "blank", "7")
    refused(lambda: read_scan(save_nifti(path, scan("float64") * 1e300)), path, "3e38")
    colors = np.random.default_rng(0).integers(0, 255, (*SHAPE[::-1], 3)).astype(np.uint8)
    for ending in (".nrrd", ".mha"):
        color = tmp_path / f"c{ending}"
        sitk.WriteImage(sitk.GetImageFromArray(colors, isVector=True), str(color))
        if ending == ".nrrd":  # SimpleITK writes kind "vector" here; a colour image has kind "RGB-color"
            color.write_bytes(color.read_bytes().replace(b"kinds: vector", b"kinds: RGB-color"))
        refused(lambda color=color: read_scan(color), color, "RGB")


@pytest.mark.parametrize("shape", [(1024, 1024, 1025), (1, 1024, 1024, 1025), (8, 512, 0)])
def test_image_without_voxels_or_with_more_than_2_to_the_30th_voxels_is_refused(shape: tuple[int, ...]) -> None:
    refused(lambda: check_size(shape, Path("x.nrrd")), Path("x.nrrd"), " x ".join(map(str, shape)))


def test_check_size_accepts_2_to_the_30th_voxels_and_has_no_upper_limit_for_2d_images() -> None:
    check_size((1024, 1024, 1024), None)
    check_size((2**20, 2**20), None)


def test_file_that_is_not_a_labelmap_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    refused(lambda: read_labelmap(save_nifti(path, scan())), path, "fractional")
    refused(lambda: read_labelmap(save_nifti(path, labels().astype(np.int16) - 1)), path, "negative label -1")
    refused(lambda: read_labelmap(save_nifti(path, labels() * np.float32(np.nan))), path, "NaN or infinite")
    refused(lambda: read_labelmap(save_nifti(path, labels() * 1j)), path, "labels")


@pytest.mark.parametrize("offset", [2**32, 2**53])
def test_intensities_that_float32_cannot_distinguish_are_refused(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "x.nii"
    nib.save(nib.Nifti1Image(np.arange(512).reshape(8, 8, 8) + offset, np.eye(4), dtype=np.int64), path)
    refused(lambda: read_scan(path), path, "lost in 32-bit numbers")


# ---- grids ----


def test_message_states_the_distance_or_angle_between_grids_of_the_same_size(tmp_path: Path) -> None:
    labelmap = Labelmap(np.ones((8, 8, 8), np.uint8), Grid((8, 8, 8), np.diag([-1.0, -1, 1, 1])), tmp_path / "x.nii")
    refused(lambda: fit_labelmap(labelmap, Grid((8, 8, 8), np.eye(4)), "scan"), tmp_path / "x.nii", "9.9 mm apart")
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    labelmap = Labelmap(labelmap.voxels, Grid((8, 8, 8), turned), labelmap.path)
    refused(lambda: fit_labelmap(labelmap, Grid((8, 8, 8), np.eye(4)), "scan"), tmp_path / "x.nii", "5.7 degrees")


# ---- writing ----


def test_label_value_without_a_segment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.seg.nrrd"
    with pytest.raises(ValueError, match=r"\[5\]"):
        write_labelmap(Labelmap(labels(), Grid(SHAPE, np.eye(4))), path, [LEFT_ATRIUM])
    assert not path.exists()


def test_unwritable_path_and_unsupported_ending_are_refused(tmp_path: Path) -> None:
    grid, path = Grid(SHAPE, np.eye(4)), tmp_path / "x.png"
    refused(lambda: write_labelmap(Labelmap(labels(), grid), path), path, ".seg.nrrd")
    refused(lambda: write_volume(Volume(scan()[np.newaxis], grid), path), path, ".nii.gz")
    (tmp_path / "file").write_text("", encoding="utf-8")
    for ending in (".nii.gz", ".nrrd", ".seg.nrrd"):
        with pytest.raises(OutputError):
            write_labelmap(Labelmap(labels(), grid), tmp_path / "file" / f"x{ending}", [LEFT_ATRIUM, WALL])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
