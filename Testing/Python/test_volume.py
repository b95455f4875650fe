"""Scans and labelmaps in files of DCAMT and of other libraries are read with the right voxels and positions."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
import slicerio
from dcamt.geometry import Grid
from dcamt.io.formats import scan_name
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.io.writers import write_labelmap, write_volume
from dcamt.volume import Code, Labelmap, Volume
from dcamt_testing.scan_files import (
    LEFT_ATRIUM,
    ORTHOGONAL,
    RAS_TO_LPS,
    SHAPE,
    SHEARED,
    WALL,
    affine_from_sitk,
    affine_of,
    assert_sitk_agrees,
    corner_distance_mm,
    labels,
    refused,
    save_nifti,
    scan,
    sitk_image,
)

SLICER_TERMINOLOGY = (
    "TerminologyEntry:Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^123037004^Anatomical Structure~SCT^82471001^Left atrium~^^"
    "~Anatomic codes - DICOM master list~^^~^^|"
)


def test_spacing_and_voxel_volume_and_corners_of_a_sheared_grid_follow_formulas() -> None:
    grid = Grid(SHAPE, affine_of(np.array([[2.0, 3.0, 0], [0, 4.0, 0], [0, 0, 5.0]])))
    np.testing.assert_allclose(grid.spacing, (2, 5, 5))
    assert grid.voxel_volume_mm3 == pytest.approx(40)  # less than the product of the spacings, 2 * 5 * 5
    corners = [(grid.affine @ (*index, 1))[:3] for index in itertools.product(*((0, size - 1) for size in SHAPE))]
    np.testing.assert_allclose(grid.corners(), corners)
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 1


def test_grids_match_if_their_corners_are_nearly_equal() -> None:
    grid = Grid((101, 10, 10), np.eye(4))
    stretched = np.diag([1 + 2e-5, 1, 1, 1])  # shifts voxel 100 by 0.002 mm
    assert grid.matches(Grid((101, 10, 10), np.diag([1 + 2e-6, 1, 1, 1])))
    assert not grid.matches(Grid((101, 10, 10), stretched))
    assert corner_distance_mm(grid, Grid((101, 10, 10), stretched)) <= 3e-3
    assert not grid.matches(Grid((100, 10, 10), np.eye(4)))


def test_name_of_a_scan_omits_its_ending(tmp_path: Path) -> None:
    folder = tmp_path / "series.1"
    folder.mkdir()
    names = {"a/la000_image.nii.gz": "la000_image", "x.seg.nrrd": "x", "P.1.NRRD": "P.1", "none": "none"}
    assert {path: scan_name(path) for path in names} == names
    assert scan_name(folder) == "series.1"


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd"])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "int16") for name in (*ORTHOGONAL, *SHEARED)), ("oblique", "uint8"), ("oblique", "float32")],
)
def test_written_volume_is_read_back(tmp_path: Path, ending: str, name: str, dtype: str) -> None:
    grid, voxels, path = Grid(SHAPE, {**ORTHOGONAL, **SHEARED}[name]), scan(dtype), tmp_path / f"x{ending}"
    write_volume(Volume(voxels[np.newaxis], grid), path)
    again = read_scan(path)
    assert again.voxels.dtype == voxels.dtype
    assert again.path == path
    np.testing.assert_array_equal(again.voxels[0], voxels)
    assert corner_distance_mm(again.grid, grid) <= 1e-4
    if ending == ".nrrd":
        assert corner_distance_mm(again.grid, grid) <= 1e-10
    if name in ORTHOGONAL:
        assert_sitk_agrees(path, voxels, grid.affine)
    elif ending == ".nrrd":
        header = nrrd.read_header(str(path))
        np.testing.assert_allclose(header["space directions"].T, (RAS_TO_LPS @ grid.affine)[:3, :3])
    else:
        image = nib.load(path)
        np.testing.assert_allclose(image.get_sform(), grid.affine, atol=1e-5)
        assert image.header["qform_code"] == 0, "a qform was written, which cannot store shear"


@pytest.mark.parametrize("name", [*ORTHOGONAL, *SHEARED])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".seg.nrrd"])
def test_written_labelmap_is_read_back(tmp_path: Path, ending: str, name: str) -> None:
    grid, voxels, path = Grid(SHAPE, {**ORTHOGONAL, **SHEARED}[name]), labels(), tmp_path / f"x{ending}"
    write_labelmap(Labelmap(voxels.astype(np.uint32), grid), path, [LEFT_ATRIUM, WALL])
    again = read_labelmap(path)
    assert again.voxels.dtype == np.uint8
    np.testing.assert_array_equal(again.voxels, voxels)
    assert corner_distance_mm(again.grid, grid) <= 1e-4
    if name in ORTHOGONAL:
        assert_sitk_agrees(path, voxels, grid.affine)


def test_nifti_file_has_sform_and_qform(tmp_path: Path) -> None:
    write_volume(Volume(scan()[np.newaxis], Grid(SHAPE, ORTHOGONAL["oblique"])), tmp_path / "x.nii.gz")
    image = nib.load(tmp_path / "x.nii.gz")
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), ORTHOGONAL["oblique"], atol=1e-4)
    np.testing.assert_allclose(image.header.get_zooms(), (0.625, 0.9, 2.5), atol=1e-5)


@pytest.mark.parametrize("name", ["oblique, left-handed", "sheared"])
def test_segmentation_file_has_the_tags_of_slicer_segmentations(tmp_path: Path, name: str) -> None:
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


@pytest.mark.parametrize("name", ["Öffnung", "左心房", "atrium\n2", "🫀 left"])
def test_segment_names_of_any_language_are_written_as_utf_8(tmp_path: Path, name: str) -> None:
    grid, path = Grid((4, 5, 6), np.eye(4)), tmp_path / "x.seg.nrrd"
    voxels = np.random.default_rng(0).integers(0, 2, (4, 5, 6), np.uint8)
    code = Code("SCT", "1", f"code of {name}")
    write_labelmap(Labelmap(voxels, grid), path, [replace(LEFT_ATRIUM, name=name, type=code)])
    shown = name.replace("\n", " ")
    header, _, _ = path.read_bytes().partition(b"\n\n")
    assert f"Segment0_Name:={shown}\n" in header.decode("utf-8")
    assert f"code of {shown}" in header.decode("utf-8")
    read = read_labelmap(path)
    np.testing.assert_array_equal(read.voxels, voxels)
    assert sitk.ReadImage(str(path)).GetMetaData("Segment0_Name") == shown


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_wrong_number_of_channels_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    voxels = np.stack([scan(seed=1), scan(seed=2)])
    write_volume(Volume(voxels, Grid(SHAPE, SHEARED["sheared"])), path)
    again = read_scan(path, channels=2)
    np.testing.assert_array_equal(again.voxels, voxels)
    assert corner_distance_mm(again.grid, Grid(SHAPE, SHEARED["sheared"])) <= 1e-4
    refused(lambda: read_scan(path), path, "2 volumes", "Save one volume as a file")
    refused(lambda: read_scan(path, channels=3), path, "2 volumes", "Give a scan of 3")
    refused(lambda: read_labelmap(path), path, "2 volumes")


def test_booleans_and_half_floats_are_converted(tmp_path: Path) -> None:
    grid, flags = Grid(SHAPE, np.eye(4)), scan()[np.newaxis] > 100
    for ending in (".nii", ".nrrd"):
        for voxels, stored in ((flags, "uint8"), (scan("float16")[np.newaxis], "float32")):
            write_volume(Volume(voxels, grid), tmp_path / f"x{ending}")
            again = read_scan(tmp_path / f"x{ending}").voxels
            assert again.dtype == stored
            np.testing.assert_array_equal(again, voxels.astype(stored))


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr", ".nii", ".nii.gz", ".gipl"])
@pytest.mark.parametrize("name", list(ORTHOGONAL))
def test_files_written_by_simpleitk_are_read(tmp_path: Path, ending: str, name: str) -> None:
    affine, voxels, path = ORTHOGONAL[name], scan("int16"), tmp_path / f"x{ending}"
    image = sitk_image(voxels, affine)
    sitk.WriteImage(image, str(path))
    volume = read_scan(path)
    np.testing.assert_array_equal(volume.voxels[0], voxels)
    assert volume.voxels.dtype == np.int16
    if ending == ".gipl":  # the format stores no directions, so the expected affine is ITK's
        affine = affine_from_sitk(sitk.ReadImage(str(path)))
    assert corner_distance_mm(volume.grid, Grid(SHAPE, affine)) <= 1e-4


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
        for mapping, mapped in (
            # Plane 3 (counted from 0) belongs to the first and the third segment. The plane gets the label of the
            # segment that is last in the mapping.
            ({a: 1}, [0, 1, 1, 1, 0, 0, 0, 0, 0]),
            ({"S0": 1}, [0, 1, 1, 1, 0, 0, 0, 0, 0]),
            ({c: 2, a: 1}, [0, 1, 1, 1, 2, 0, 0, 0, 0]),
            ({"S2": 2, "S0": 1}, [0, 1, 1, 1, 2, 0, 0, 0, 0]),
            ({a: 1, c: 2, b: 3}, [0, 1, 1, 2, 2, 0, 3, 3, 3]),
        ):
            assert read_labelmap(path, mapping).voxels[:, 0, 0].tolist() == mapped  # type: ignore[arg-type]
        assert corner_distance_mm(labelmap.grid, Grid(SHAPE, SHEARED["sheared"])) <= 1e-9


def test_segmentation_header_without_label_values_and_layer_numbers_is_read(tmp_path: Path) -> None:
    layers = np.zeros((2, *SHAPE), np.uint8)
    layers[0, :3] = 1
    layers[1, 5:] = 1
    directions = np.vstack([np.full(3, np.nan), np.eye(3)])
    header = {"space": "LPS", "space directions": directions, "kinds": ["list", *["domain"] * 3]}
    header.update({"Segment0_ID": "a", "Segment0_Name": "a", "Segment1_ID": "b", "Segment1_Name": "b"})
    nrrd.write(str(tmp_path / "x.seg.nrrd"), layers, header)
    voxels = read_labelmap(tmp_path / "x.seg.nrrd").voxels
    assert voxels[:, 0, 0].tolist() == [1, 1, 1, 0, 0, 2, 2, 2, 2]


def test_labelmap_of_float_voxels_is_read(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "x.nii.gz", labels().astype(np.float32) * 255)
    voxels = read_labelmap(path).voxels
    assert voxels.dtype == np.uint16
    np.testing.assert_array_equal(voxels, labels().astype(int) * 255)


def test_labelmap_with_only_zeros_is_read(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "x.nii.gz", np.zeros(SHAPE, np.uint8))
    assert not read_labelmap(path).voxels.any()
