"""Scans keep their voxels and place through every format; what cannot be used is refused in one line."""

from __future__ import annotations

import gzip
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
import slicerio
from DCAMTLib.errors import InputError, OutputError
from DCAMTLib.volume import (
    Code,
    Grid,
    Labelmap,
    SegmentInfo,
    Volume,
    read_labelmap,
    read_volume,
    scan_name,
    write_labelmap,
    write_volume,
)

SHAPE = (9, 10, 11)
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
LEFT_ATRIUM = SegmentInfo(1, "Left atrium", (0.8, 0.25, 0.5), Code("SCT", "82471001", "Left atrium"))
WALL = SegmentInfo(5, "Atrial wall", (0.1, 0.9, 0.4), Code("SCT", "277631005", "Atrial wall"))
# As 3D Slicer itself writes it into the Tags of a segment.
SLICER_TERMINOLOGY = (
    "TerminologyEntry:Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^123037004^Anatomical Structure~SCT^82471001^Left atrium~^^"
    "~Anatomic codes - DICOM master list~^^~^^|"
)


def rotation(seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]


def affine_of(matrix: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = (-71.3, 40.9, 12.34567)
    return affine


ORTHOGONAL = {
    "axial": affine_of(np.diag([0.625, 0.625, 2.5])),
    "flipped": affine_of(np.diag([-0.7, 1.3, -2.5])),
    "permuted": affine_of(np.array([[0, 0, 2.5], [-0.7, 0, 0], [0, 1.1, 0]])),
    "oblique": affine_of(rotation(1) * (0.625, 0.9, 2.5)),
    "oblique, left-handed": affine_of(rotation(1) * (0.625, -0.9, 2.5)),
}
SHEARED = {"sheared": affine_of(rotation(3) @ np.array([[0.6, 0.2, 0], [0, 0.9, 0.5], [0, 0, 2.5]]))}


def corner_indices() -> list[tuple[int, ...]]:
    return [tuple(int(i) for i in c) for c in itertools.product(*[(0, size - 1) for size in SHAPE])]


def scan(dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 200, SHAPE).astype(dtype)


def labels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice([0, 1, 5], SHAPE).astype(np.uint8)


def assert_sitk_agrees(path: Path, voxels: np.ndarray, affine: np.ndarray, tolerance: float = 1e-4) -> None:
    """Another library finds the same voxels, and every corner at the same place in the patient."""
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), voxels)
    for index in corner_indices():
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        ours = (affine @ (*index, 1))[:3] * (-1, -1, 1)
        np.testing.assert_allclose(lps, ours, atol=tolerance)


def refused(action: Callable[[], object], path: Path, *words: str) -> str:
    """The one line of the InputError that `action` raises: it names `path` and says `words`."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    for word in (path.name, *words):
        assert word in message, message
    return message


# ---- geometry ----


def test_grid_spacing_and_volume_of_a_sheared_cell() -> None:
    grid = Grid(SHAPE, affine_of(np.array([[2.0, 3.0, 0], [0, 4.0, 0], [0, 0, 5.0]])))
    np.testing.assert_allclose(grid.spacing, (2, 5, 5))
    assert grid.voxel_volume_mm3 == pytest.approx(40)  # not 2 * 5 * 5
    corners = [(grid.affine @ (*index, 1))[:3] for index in corner_indices()]
    np.testing.assert_allclose(grid.corners(), corners)
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 1


def test_grid_matches_within_a_tolerance_at_the_far_corner() -> None:
    grid = Grid((101, 10, 10), np.eye(4))
    stretched = np.diag([1 + 2e-5, 1, 1, 1])  # 0.002 mm off after 100 voxels, nothing at the first
    assert grid.matches(Grid((101, 10, 10), np.eye(4)))
    assert not grid.matches(Grid((101, 10, 10), stretched))
    assert grid.matches(Grid((101, 10, 10), stretched), tolerance_mm=3e-3)
    assert not grid.matches(Grid((100, 10, 10), np.eye(4)))


def test_scan_name(tmp_path: Path) -> None:
    folder = tmp_path / "series.1"
    folder.mkdir()
    names = {"a/la000_image.nii.gz": "la000_image", "x.seg.nrrd": "x", "P.1.NRRD": "P.1", "none": "none"}
    assert {path: scan_name(path) for path in names} == names
    assert scan_name(folder) == "series.1"


# ---- there and back ----


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd"])
@pytest.mark.parametrize("name", [*ORTHOGONAL, *SHEARED])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_write_and_read_volume(tmp_path: Path, ending: str, name: str, dtype: str) -> None:
    grid, voxels, path = Grid(SHAPE, {**ORTHOGONAL, **SHEARED}[name]), scan(dtype), tmp_path / f"x{ending}"
    write_volume(Volume(voxels[np.newaxis], grid), path)
    again = read_volume(path)
    assert again.voxels.dtype == voxels.dtype
    assert again.path == path
    np.testing.assert_array_equal(again.voxels[0], voxels)
    assert again.grid.matches(grid, 1e-4)
    if ending == ".nrrd":
        assert again.grid.matches(grid, 1e-10)
    if name in ORTHOGONAL:
        assert_sitk_agrees(path, voxels, grid.affine)
    elif ending == ".nrrd":
        header = nrrd.read_header(str(path))
        np.testing.assert_allclose(header["space directions"].T, (RAS_TO_LPS @ grid.affine)[:3, :3])
    else:
        image = nib.load(path)
        np.testing.assert_allclose(image.get_sform(), grid.affine, atol=1e-5)
        assert image.header["qform_code"] == 0, "a qform cannot shear, so none is better than a wrong one"


@pytest.mark.parametrize("name", [*ORTHOGONAL, *SHEARED])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".seg.nrrd"])
def test_write_and_read_labelmap(tmp_path: Path, ending: str, name: str) -> None:
    grid, voxels, path = Grid(SHAPE, {**ORTHOGONAL, **SHEARED}[name]), labels(), tmp_path / f"x{ending}"
    write_labelmap(Labelmap(voxels.astype(np.uint32), grid), path, [LEFT_ATRIUM, WALL])
    again = read_labelmap(path)
    assert again.voxels.dtype == np.uint8
    np.testing.assert_array_equal(again.voxels, voxels)
    assert again.grid.matches(grid, 1e-4)
    if name in ORTHOGONAL:
        assert_sitk_agrees(path, voxels, grid.affine)


def test_both_nifti_transforms_are_set(tmp_path: Path) -> None:
    write_volume(Volume(scan()[np.newaxis], Grid(SHAPE, ORTHOGONAL["oblique"])), tmp_path / "x.nii.gz")
    image = nib.load(tmp_path / "x.nii.gz")
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), ORTHOGONAL["oblique"], atol=1e-4)
    np.testing.assert_allclose(image.header.get_zooms(), (0.625, 0.9, 2.5), atol=1e-5)


@pytest.mark.parametrize("name", ["oblique, left-handed", "sheared"])
def test_segmentation_is_what_slicer_expects(tmp_path: Path, name: str) -> None:
    grid, voxels, path = Grid(SHAPE, {**ORTHOGONAL, **SHEARED}[name]), labels(), tmp_path / "x.seg.nrrd"
    write_labelmap(Labelmap(voxels, grid), path, [LEFT_ATRIUM, WALL])
    raw, header = nrrd.read(str(path))
    np.testing.assert_array_equal(raw, voxels)
    assert header["space"] == "left-posterior-superior"
    assert header["kinds"] == ["domain"] * 3
    np.testing.assert_allclose(header["space directions"].T, (RAS_TO_LPS @ grid.affine)[:3, :3], atol=1e-12)
    np.testing.assert_allclose(header["space origin"], (RAS_TO_LPS @ grid.affine)[:3, 3], atol=1e-12)
    assert header["Segmentation_MasterRepresentation"] == "Binary labelmap"
    assert header["Segment0_ID"] == "Segment_1"
    assert header["Segment1_ID"] == "Segment_5"
    assert header["Segment0_Name"] == "Left atrium"
    assert header["Segment1_LabelValue"] == "5"
    assert header["Segment0_Color"] == "0.8 0.25 0.5"
    assert header["Segment0_Layer"] == "0"
    assert header["Segment0_Extent"] == "0 8 0 9 0 10"
    assert header["Segment0_Tags"] == SLICER_TERMINOLOGY
    segmentation = slicerio.read_segmentation(str(path))
    np.testing.assert_array_equal(slicerio.segment_mask(segmentation, "Atrial wall"), voxels == 5)
    assert segmentation["segments"][0]["terminology"]["type"] == ["SCT", "82471001", "Left atrium"]


def test_label_without_segment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.seg.nrrd"
    with pytest.raises(ValueError, match=r"\[5\]"):
        write_labelmap(Labelmap(labels(), Grid(SHAPE, np.eye(4))), path, [LEFT_ATRIUM])
    assert not path.exists()


def test_writing_elsewhere_and_to_unknown_endings(tmp_path: Path) -> None:
    grid, path = Grid(SHAPE, np.eye(4)), tmp_path / "x.png"
    refused(lambda: write_labelmap(Labelmap(labels(), grid), path), path, ".seg.nrrd")
    refused(lambda: write_volume(Volume(scan()[np.newaxis], grid), path), path, ".nii.gz")
    (tmp_path / "file").write_text("")
    for ending in (".nii.gz", ".nrrd", ".seg.nrrd"):
        with pytest.raises(OutputError):
            write_labelmap(Labelmap(labels(), grid), tmp_path / "file" / f"x{ending}", [LEFT_ATRIUM, WALL])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_channels(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    voxels = np.stack([scan(seed=1), scan(seed=2)])
    write_volume(Volume(voxels, Grid(SHAPE, SHEARED["sheared"])), path)
    again = read_volume(path, channels=2)
    np.testing.assert_array_equal(again.voxels, voxels)
    assert again.grid.matches(Grid(SHAPE, SHEARED["sheared"]), 1e-4)
    refused(lambda: read_volume(path), path, "2 volumes", "Extract one")
    refused(lambda: read_volume(path, channels=3), path, "2 volumes", "3 are needed")
    refused(lambda: read_labelmap(path), path, "2 volumes")


def test_flags_and_half_floats_are_widened(tmp_path: Path) -> None:
    grid, flags = Grid(SHAPE, np.eye(4)), scan()[np.newaxis] > 100
    for ending in (".nii", ".nrrd"):
        for voxels, stored in ((flags, "uint8"), (scan("float16")[np.newaxis], "float32")):
            write_volume(Volume(voxels, grid), tmp_path / f"x{ending}")
            again = read_volume(tmp_path / f"x{ending}").voxels
            assert again.dtype == stored
            np.testing.assert_array_equal(again, voxels.astype(stored))


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr", ".nii", ".nii.gz", ".gipl"])
@pytest.mark.parametrize("name", list(ORTHOGONAL))
def test_files_written_by_sitk(tmp_path: Path, ending: str, name: str) -> None:
    affine, voxels, path = ORTHOGONAL[name], scan("int16"), tmp_path / f"x{ending}"
    image = sitk_image(voxels, affine)
    sitk.WriteImage(image, str(path))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.voxels[0], voxels)
    assert volume.voxels.dtype == np.int16
    if ending == ".gipl":  # it knows no directions; ITK's own answer is all there is
        affine = affine_from_sitk(sitk.ReadImage(str(path)))
    assert volume.grid.matches(Grid(SHAPE, affine), 1e-4)


def sitk_image(voxels: np.ndarray, affine: np.ndarray) -> sitk.Image:
    lps = RAS_TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(voxels.transpose(2, 1, 0))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def affine_from_sitk(image: sitk.Image) -> np.ndarray:
    points = [image.TransformIndexToPhysicalPoint(i) for i in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    affine = np.eye(4)
    affine[:3, 3] = points[0]
    affine[:3, :3] = (np.array(points[1:]) - points[0]).T
    return RAS_TO_LPS @ affine


# ---- NIfTI's own ways ----


def save_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 3, 4, 1]) if affine is None else affine), path)
    return path


def test_scaling_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(scan("uint8"), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "x.nii.gz")
    volume = read_volume(tmp_path / "x.nii.gz")
    assert volume.voxels.dtype == np.float32
    np.testing.assert_allclose(volume.voxels[0], nib.load(tmp_path / "x.nii.gz").get_fdata(), rtol=1e-6)
    assert volume.voxels.min() < 0


def test_big_endian_and_trailing_axes(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(scan("int16")[..., np.newaxis], np.eye(4), header), tmp_path / "x.nii")
    assert nib.load(tmp_path / "x.nii").header.endianness == ">"
    volume = read_volume(tmp_path / "x.nii")
    assert volume.voxels.dtype == np.dtype("int16")
    assert volume.voxels.dtype.isnative
    np.testing.assert_array_equal(volume.voxels[0], scan("int16"))


def save_nifti_header(path: Path, sform: tuple[np.ndarray, int], qform: tuple[np.ndarray, int], **raw: object) -> None:
    """A `.nii` file with these transforms and codes, and header fields set to what nibabel itself would not store."""
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.float32)
    header.set_xyzt_units("mm")
    header.set_qform(*qform)
    header.set_sform(*sform)
    header["vox_offset"] = 352
    for field, value in raw.items():
        header[field] = value
    path.write_bytes(header.binaryblock + bytes(4) + scan().tobytes(order="F"))


@pytest.mark.parametrize("sform", range(5))
@pytest.mark.parametrize("qform", range(5))
def test_the_transform_is_the_one_that_itk_takes(tmp_path: Path, sform: int, qform: int) -> None:
    path = tmp_path / "x.nii"
    turned = affine_of(rotation(5) * (0.625, 0.9, 2.5))
    turned[:3, 3] = (7, -8, 9)
    save_nifti_header(path, (ORTHOGONAL["oblique"], sform), (turned, qform))
    assert_sitk_agrees(path, scan(), read_volume(path).grid.affine)


@pytest.mark.parametrize("codes", [(0, 0), (0, 1), (2, 1), (5, 0), (5, 1), (0, 5)])
@pytest.mark.parametrize(
    "steps", [(1, 0.625, 0.9, 2.5), (-1, 0.625, 0.9, 2.5), (0, 0.625, 0.9, 2.5), (1, -0.625, 0.9, 2.5)]
)
def test_unusual_codes_and_signs_are_taken_as_itk_takes_them(
    tmp_path: Path, codes: tuple[int, int], steps: tuple[float, ...]
) -> None:
    if codes == (5, 0) and steps[1] < 0:
        pytest.skip("ITK turns the sform's axes by the sign of a spacing that the sform does not use")
    path = tmp_path / "x.nii"
    pixdim = [*steps, 1, 1, 1, 1]
    sform, qform = codes
    save_nifti_header(
        path,
        (ORTHOGONAL["oblique"], 1),
        (affine_of(rotation(5) * (0.625, 0.9, 2.5)), 1),
        pixdim=pixdim,
        sform_code=sform,
        qform_code=qform,
    )
    assert_sitk_agrees(path, scan(), read_volume(path).grid.affine)


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (1, 1), (2, 0)])
def test_a_sform_that_shears_is_kept(tmp_path: Path, sform: int, qform: int) -> None:
    """ITK cannot hold it: alone, it refuses the file."""
    path = tmp_path / "x.nii"
    save_nifti_header(path, (SHEARED["sheared"], sform), (ORTHOGONAL["permuted"], qform))
    assert read_volume(path).grid.matches(Grid(SHAPE, SHEARED["sheared"]), 1e-4)


@pytest.mark.parametrize("part", ["voxels", "checksum", "size"])
def test_flipped_bits_in_a_gzip_are_found(tmp_path: Path, part: str) -> None:
    path = tmp_path / "x.nii.gz"
    save_nifti(path.with_suffix(""), scan())
    # Stored, not deflated: the stream itself stays sound whatever the bytes of a voxel are.
    whole = bytearray(gzip.compress(path.with_suffix("").read_bytes(), compresslevel=0))
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_volume(path).voxels[0], scan())
    whole[{"voxels": len(whole) // 2, "checksum": -8, "size": -4}[part]] ^= 0x10
    path.write_bytes(whole)
    refused(lambda: read_volume(path), path, "damaged")
    path.write_bytes(whole[:-8])
    refused(lambda: read_volume(path), path, "too early")


@pytest.mark.parametrize("unit", ["mm", "meter", "micron", "unknown"])
def test_unit_of_length(tmp_path: Path, unit: str) -> None:
    image = nib.Nifti1Image(scan(), ORTHOGONAL["flipped"])
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "x.nii.gz")
    itk = affine_from_sitk(sitk.ReadImage(str(tmp_path / "x.nii.gz")))
    np.testing.assert_allclose(read_volume(tmp_path / "x.nii.gz").grid.affine, itk, rtol=1e-5, atol=1e-6)


def test_reading_nifti_imports_nibabel_only(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "x.nii.gz", scan())
    # None in sys.modules makes an import fail as if the package were not installed. (nibabel itself looks for
    # SciPy and does without.)
    program = (
        "import sys; from DCAMTLib.volume import read_volume, read_labelmap\n"
        "heavy = {'SimpleITK', 'scipy', 'nrrd', 'slicerio', 'matplotlib', 'torch'}\n"
        "early = (heavy | {'nibabel'}) & set(sys.modules)\n"
        "assert not early, f'{early} imported before it is needed'\n"
        "sys.modules.update(dict.fromkeys(heavy))\n"
        f"read_volume({str(path)!r})\n"
        "assert 'nibabel' in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "DCAMTSegmentation")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- NRRD's own ways ----


def save_nrrd(path: Path, voxels: np.ndarray, **header: object) -> Path:
    fields = {key.replace("_", " "): value for key, value in header.items()}
    nrrd.write(str(path), voxels, fields)
    return path


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("LAS", (-1, 1, 1)),
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
    ],
)
def test_nrrd_spaces(tmp_path: Path, space: str, signs: tuple[int, int, int]) -> None:
    matrix = ORTHOGONAL["oblique"]
    path = save_nrrd(
        tmp_path / "x.nrrd",
        scan(),
        space=space,
        space_directions=(np.diag(signs) @ matrix[:3, :3]).T,
        space_origin=np.diag(signs) @ matrix[:3, 3],
    )
    assert read_volume(path).grid.matches(Grid(SHAPE, matrix), 1e-9)
    if "-" in space:  # ITK knows the full names
        assert_sitk_agrees(path, scan(), matrix)


def test_nrrd_channels_in_the_last_axis(tmp_path: Path) -> None:
    directions = np.vstack([ORTHOGONAL["axial"][:3, :3], np.full(3, np.nan)])
    voxels = np.stack([scan(seed=1), scan(seed=2)], axis=-1)
    kinds = ["domain", "domain", "domain", "vector"]
    path = save_nrrd(tmp_path / "x.nrrd", voxels, space="RAS", space_directions=directions, kinds=kinds)
    np.testing.assert_array_equal(read_volume(path, channels=2).voxels, np.moveaxis(voxels, -1, 0))


def test_nrrd_with_spacings_alone_lies_where_itk_puts_it(tmp_path: Path) -> None:
    path = save_nrrd(tmp_path / "x.nrrd", scan(), spacings=[0.6, 0.7, 2.5])
    assert read_volume(path).grid.matches(Grid(SHAPE, affine_from_sitk(sitk.ReadImage(str(path)))), 1e-9)


def test_nrrd_geometry_that_is_missing_or_unknown(tmp_path: Path) -> None:
    directions = np.eye(3)
    cases: list[tuple[dict[str, object], str]] = [
        ({}, "no space directions"),
        ({"space_dimension": 3, "space_directions": directions}, "names no space"),
        ({"space": "scanner-xyz", "space_directions": directions}, "scanner-xyz"),
        ({"space": "RAS", "space_directions": np.diag([1.0, 1, 0])}, "spacing of zero"),
        ({"space": "RAS", "space_directions": np.ones((3, 3)) + np.eye(3)[[0, 0, 1]] * 0}, "singular"),
    ]
    for number, (header, word) in enumerate(cases):
        path = save_nrrd(tmp_path / f"{number}.nrrd", scan(), **header)
        refused(lambda path=path: read_volume(path), path, word)


def test_segmentation_layers_are_flattened(tmp_path: Path) -> None:
    first, second = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    first[1:4] = 1
    first[6:] = 2
    second[3:5] = 1  # overlaps the first segment in plane 3
    path = tmp_path / "x.seg.nrrd"
    segment = {"color": [1, 0, 0]}
    for values, expected in (((1, 2, 1), (1, 2, 3)), ((7, 2, 9), (7, 2, 9))):
        layers = np.stack([np.select([first == 1, first == 2], values[:2]), second * values[2]]).astype(np.uint8)
        segmentation = {
            "voxels": layers,
            "ijkToLPS": RAS_TO_LPS @ SHEARED["sheared"],
            "segments": [
                {**segment, "id": f"S{n}", "name": f"S{n}", "labelValue": value, "layer": layer}
                for n, (value, layer) in enumerate(zip(values, (0, 0, 1), strict=True))
            ],
        }
        slicerio.write_segmentation(str(path), segmentation)
        labelmap = read_labelmap(path)
        a, b, c = expected
        assert labelmap.voxels[:, 0, 0].tolist() == [0, a, a, c, c, 0, b, b, b]
        assert labelmap.grid.matches(Grid(SHAPE, SHEARED["sheared"]), 1e-9)


def test_segmentation_of_an_old_slicer(tmp_path: Path) -> None:
    layers = np.zeros((2, *SHAPE), np.uint8)
    layers[0, :3] = 1
    layers[1, 5:] = 1
    directions = np.vstack([np.full(3, np.nan), np.eye(3)])
    header = {"space": "LPS", "space directions": directions, "kinds": ["list", *["domain"] * 3]}
    header.update({"Segment0_ID": "a", "Segment0_Name": "a", "Segment1_ID": "b", "Segment1_Name": "b"})
    nrrd.write(str(tmp_path / "x.seg.nrrd"), layers, header)
    found = read_labelmap(tmp_path / "x.seg.nrrd").voxels
    assert found[:, 0, 0].tolist() == [1, 1, 1, 0, 0, 2, 2, 2, 2]


# ---- labels ----


def test_labels_stored_as_floats_or_blank(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "x.nii.gz", labels().astype(np.float32) * 255)
    found = read_labelmap(path).voxels
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, labels().astype(int) * 255)
    assert not read_labelmap(save_nifti(path, np.zeros(SHAPE, np.uint8))).voxels.any()


def test_what_is_no_labelmap(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    refused(lambda: read_labelmap(save_nifti(path, scan())), path, "fractional")
    refused(lambda: read_labelmap(save_nifti(path, labels().astype(np.int16) - 1)), path, "negative label -1")
    refused(lambda: read_labelmap(save_nifti(path, labels() * np.float32(np.nan))), path, "fractional")
    refused(lambda: read_labelmap(save_nifti(path, labels() * 1j)), path, "labels")


# ---- refused files ----


def test_missing_empty_and_damaged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for ending in (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".xyz", ""):
        path = tmp_path / f"scan{ending}"
        refused(lambda path=path: read_volume(path), path, "does not exist")
        path.write_bytes(b"")
        refused(lambda path=path: read_volume(path), path, "empty")
        path.write_text("patient,age\n1,62\n" * 50)
        refused(lambda path=path: read_volume(path), path, "cannot be read")
        refused(lambda path=path: read_labelmap(path), path, "cannot be read")
    refused(lambda: read_volume(tmp_path / ("x" * 300)), tmp_path / ("x" * 300), "does not exist")
    assert capfd.readouterr() == ("", ""), "a library wrote to the terminal"


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_truncated(tmp_path: Path, ending: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"x{ending}"
    sitk.WriteImage(sitk_image(scan(), ORTHOGONAL["axial"]), str(path), useCompression=ending != ".nii")
    whole = path.read_bytes()
    for part in (0.3, 0.7, 0.97):
        path.write_bytes(whole[: int(len(whole) * part)])
        refused(lambda: read_volume(path), path)
    assert capfd.readouterr() == ("", "")


def test_content_other_than_the_ending(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(b"hello world" * 100))
    refused(lambda: read_volume(path), path, "NIfTI")
    save_nrrd(tmp_path / "y.nrrd", scan(), spacings=[1, 1, 1])
    (tmp_path / "y.nrrd").rename(path)
    refused(lambda: read_volume(path), path, "NIfTI")
    save_nifti(tmp_path / "x.nii", scan()).rename(tmp_path / "x.nrrd")
    refused(lambda: read_volume(tmp_path / "x.nrrd"), tmp_path / "x.nrrd", "NRRD")


def test_shapes_that_are_no_scan(tmp_path: Path) -> None:
    def nifti(*shape: int) -> Callable[[], object]:
        voxels = np.random.default_rng(0).uniform(0, 9, shape).astype(np.float32)
        return lambda: read_volume(save_nifti(path, voxels))

    path = tmp_path / "x.nii.gz"
    refused(nifti(20, 20), path, "2D")
    refused(nifti(20, 20, 1), path, "one slice")
    refused(nifti(1, 20, 20), path, "one slice")
    refused(nifti(1, 1, 1), path, "single voxel")
    refused(nifti(20, 20, 7), path, "too small: 20 x 20 x 7")
    refused(nifti(*SHAPE, 5), path, "5 volumes")
    for ending in (".nrrd", ".mha", ".png"):
        flat = tmp_path / f"flat{ending}"
        sitk.WriteImage(sitk.GetImageFromArray(np.arange(400, dtype=np.uint8).reshape(20, 20)), str(flat))
        refused(lambda flat=flat: read_volume(flat), flat, "2D")
    four = tmp_path / "four.mha"
    image = sitk.JoinSeries([sitk_image(scan(seed=n), np.eye(4)) for n in range(3)])
    sitk.WriteImage(image, str(four))
    refused(lambda: read_volume(four), four, "3 volumes")
    np.testing.assert_array_equal(read_volume(four, channels=3).voxels[2], scan(seed=2))


def test_voxels_that_are_no_intensities(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(lambda: read_volume(save_nifti(path, rgb)), path, "RGB")
    refused(lambda: read_volume(save_nifti(path, scan() * 1j)), path, "complex")
    voxels = scan()
    voxels[0, 0, :3], voxels[1, 1, 1] = np.nan, np.inf
    refused(lambda: read_volume(save_nifti(path, voxels)), path, "4 NaN or infinite voxels out of 990")
    refused(lambda: read_volume(save_nifti(path, np.full(SHAPE, 7, np.int16))), path, "blank", "7")
    refused(lambda: read_volume(save_nifti(path, scan("float64") * 1e300)), path, "3e38")
    colours = np.random.default_rng(0).integers(0, 255, (*SHAPE[::-1], 3)).astype(np.uint8)
    for ending in (".nrrd", ".mha"):
        colour = tmp_path / f"c{ending}"
        sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(colour))
        if ending == ".nrrd":  # SimpleITK writes "vector"; a true colour image says so
            colour.write_bytes(colour.read_bytes().replace(b"kinds: vector", b"kinds: RGB-color"))
        refused(lambda colour=colour: read_volume(colour), colour, "RGB")


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("srow_x", np.nan, "NaN"),
        ("srow_x", 0, "zero"),
        ("pixdim", 0, "impossible voxel spacing (0 x 3 x 4 mm)"),
        ("pixdim", np.nan, "impossible voxel spacing"),
        ("dim", 30000, "30000 x 10 x 11"),
        ("dim", -4, ""),
        ("dim", 0, "no voxels"),
    ],
)
def test_damaged_nifti_header(tmp_path: Path, field: str, value: float, word: str) -> None:
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
    refused(lambda: read_volume(path), path, word)


# ---- DICOM ----


def write_dicom(
    folder: Path,
    voxels: np.ndarray,
    affine: np.ndarray,
    *,
    uid: str = "1.2.826.0.1.1",
    description: str = "LGE axial",
    skip: tuple[int, ...] = (),
    shift: dict[int, float] | None = None,
    sop_class: str = "1.2.840.10008.5.1.4.1.1.4",
) -> None:
    """One file a slice, named against the order of their places; `shift` moves slices along k, in mm."""
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
def test_dicom_series(tmp_path: Path, name: str) -> None:
    tilted = np.array([[0.7, 0, 0], [0, 0.9, 0.6], [0, 0, 2.5]])  # slices shear against their normal
    affine = {**ORTHOGONAL, "tilted": affine_of(rotation(4) @ tilted)}[name]
    voxels, folder = scan("int16"), tmp_path / "series"
    write_dicom(folder, voxels, affine)
    (folder / "README.txt").write_text("not a slice")
    volume = read_volume(folder)
    assert volume.voxels.shape == (1, *SHAPE)
    assert scan_name(folder) == "series"
    # k may run the other way: compare every voxel's value at its own place.
    to_ours = np.linalg.inv(volume.grid.affine) @ affine
    index = np.indices(SHAPE).reshape(3, -1)
    ours = to_ours[:3, :3] @ index + to_ours[:3, 3:]
    np.testing.assert_allclose(ours, np.rint(ours), atol=1e-3)
    np.testing.assert_array_equal(volume.voxels[0][tuple(np.rint(ours).astype(int))], voxels.ravel())
    if name != "tilted":
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        image = reader.Execute()
        assert volume.grid.matches(Grid(SHAPE, affine_from_sitk(image)), 1e-3)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), volume.voxels[0])


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2"])  # MR, CT
def test_dicom_slices_are_rescaled_each_by_its_own_slope(tmp_path: Path, sop_class: str) -> None:
    folder = tmp_path / "s"
    write_dicom(folder, scan("int16"), np.diag([1.0, -1, 2, 1]), sop_class=sop_class)
    slopes = {0: b"1 ", 1: b".5", 2: b"2 "}
    for k in range(SHAPE[2]):
        path = folder / f"1.2.826.0.1.1-{99 - k:02}.dcm"
        # RescaleIntercept and RescaleSlope (implicit VR: tag, length, value) belong just before the pixels.
        raw, pixels, two = path.read_bytes(), b"\xe0\x7f\x10\x00", b"\x02\x00\x00\x00"
        intercept, slope = b"\x28\x00\x52\x10" + two, b"\x28\x00\x53\x10" + two
        raw = raw.replace(intercept + b"0 ", b"").replace(slope + b"1 ", b"")
        assert raw.count(pixels) == 1
        assert intercept not in raw
        assert slope not in raw
        extra = intercept + b"0 " + slope + slopes[k % 3]
        path.write_bytes(raw.replace(pixels, extra + pixels))
    found = read_volume(folder)
    expected = scan("int16") * np.array([float(slopes[k % 3]) for k in range(SHAPE[2])])
    if found.grid.affine[2, 2] < 0:
        expected = expected[:, :, ::-1]
    np.testing.assert_allclose(found.voxels[0], expected, rtol=1e-6)
    assert found.voxels.dtype == np.float32


def test_dicom_folders_that_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    affine = ORTHOGONAL["oblique"]

    def read(name: str) -> Callable[[], object]:
        return lambda: read_volume(tmp_path / name)

    for name, options, words in [
        ("gap", {"skip": (4, 5)}, ["lacks about 2", "2.50 to 7.50 mm"]),
        ("uneven", {"shift": {4: 0.7}}, ["unevenly spaced"]),
        ("doubled", {"shift": {4: 2.5}}, ["same place"]),
        ("single", {"skip": tuple(range(1, SHAPE[2]))}, ["one DICOM slice"]),
    ]:
        write_dicom(tmp_path / name, scan("int16"), affine, **options)  # type: ignore[arg-type]
        path = tmp_path / (name if name != "single" else "1.2.826.0.1.1-99.dcm")
        refused(read(name), path, *words)
    write_dicom(tmp_path / "two", scan("int16"), affine)
    write_dicom(tmp_path / "two", scan("int16"), affine, uid="1.2.826.0.1.2", description="Cine 4ch", skip=(0,))
    refused(read("two"), tmp_path / "two", "2 DICOM series", '"LGE axial" (11 slices)', '"Cine 4ch" (10 slices)')
    write_dicom(tmp_path / "turned", scan("int16"), affine, skip=tuple(range(5, 11)))
    write_dicom(tmp_path / "turned", scan("int16"), ORTHOGONAL["axial"], skip=tuple(range(5)))
    refused(read("turned"), tmp_path / "turned", "different size or orientation")
    (tmp_path / "none").mkdir()
    refused(read("none"), tmp_path / "none", "no DICOM")
    (tmp_path / "none" / "x.txt").write_text("hello")
    refused(read("none"), tmp_path / "none", "no DICOM")
    write_dicom(tmp_path / "cut", scan("int16"), affine)
    victim = sorted((tmp_path / "cut").iterdir())[5]
    victim.write_bytes(victim.read_bytes()[:-60])
    refused(read("cut"), tmp_path / "cut")
    assert capfd.readouterr() == ("", ""), "a library wrote to the terminal"
