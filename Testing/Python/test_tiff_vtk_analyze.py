"""Test reading TIFF, VTK, GIPL, MRC and Analyze images, NIfTI pairs, and zip files that hold images.

Intact images are read as SimpleITK reads them. Damaged images are refused, even if ITK would return voxels.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePath

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.geometry import MISSING_DIRECTIONS
from dcamt.io.readers import read_scan
from dcamt_testing.scan_files import (
    ORTHOGONAL,
    VOXELS,
    refused,
    sitk_image,
    traced_peak,
    truncate,
    write_scan,
)


def test_tiff_stack_is_read_with_a_note_on_its_assumed_geometry(tmp_path: Path) -> None:
    volume = read_scan(write_scan(tmp_path / "x.tif"))
    (note,) = volume.notes
    assert (
        "a distance of 1 mm, a position at the origin, and axes along left, posterior and superior were assumed" in note
    )
    assert "use the original DICOM or NIfTI file" in note
    assert volume.grid.affine[2].tolist() == [0, 0, 1, 0]
    assert volume.grid.affine[:2, 3].tolist() == [0, 0]
    assert np.sign(volume.grid.affine[:3, :3]).tolist() == np.diag([-1, -1, 1]).tolist()


def test_tiff_stack_with_a_truncated_last_strip_is_refused(tmp_path: Path) -> None:
    """Pillow writes each page's header before the page's pixels, so all headers remain intact."""
    image = pytest.importorskip("PIL.Image")
    first, *others = (image.fromarray(page) for page in np.arange(9 * 10 * 11, dtype=np.uint16).reshape(9, 10, 11))
    path = tmp_path / "x.tif"
    first.save(path, save_all=True, append_images=others)
    assert read_scan(path).grid.shape == (11, 10, 9)
    whole = path.read_bytes()
    end = whole.index(np.arange(8 * 110, 9 * 110, dtype=np.uint16).tobytes()) + 2 * 110
    path.write_bytes(whole[:end])
    assert read_scan(path).voxels.max() == 9 * 110 - 1
    path.write_bytes(whole[: end - 1])
    refused(lambda: read_scan(path), path, "ends too early")


def write_vtk_text(path: Path, kind: str, numbers: Iterable[int]) -> Path:
    header = (
        "# vtk DataFile Version 3.0\nx\nASCII\nDATASET STRUCTURED_POINTS\nDIMENSIONS 3 4 5\nSPACING 2 2 2\n"
        f"ORIGIN 0 0 0\nPOINT_DATA 60\nSCALARS s {kind} 1\nLOOKUP_TABLE default\n"
    )
    path.write_bytes(header.encode() + " ".join(map(str, numbers)).encode() + b"\nMETADATA\n")
    return path


@pytest.mark.parametrize(
    ("kind", "number"),
    [("float", b"33.5"), ("float", b"70000"), ("float", b"-5"), ("float", b"3.4028235e38"), ("short", b"-5")],
)
def test_vtk_image_with_a_valid_number_as_text_is_read(tmp_path: Path, kind: str, number: bytes) -> None:
    path = write_vtk_text(tmp_path / "x.vtk", kind, range(60))
    np.testing.assert_array_equal(read_scan(path).voxels.ravel(order="F"), range(60))
    path.write_bytes(path.read_bytes().replace(b" 33 ", b" " + number + b" "))
    assert read_scan(path).voxels.ravel(order="F")[33:35].tolist() == [np.float32(number), 34]


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("float", [b"3x", b"\x8f", b"nan", b"1_0", b"1e39", b"3.403e38"]),
        ("short", [b"3x", b"\x8f", b"nan", b"1_0", b"1e39", b"3.403e38", b"3.4028235e38", b"33.5", b"70000"]),
        (
            "unsigned_char",
            [b"3x", b"\x8f", b"nan", b"1_0", b"1e39", b"3.403e38", b"3.4028235e38", b"33.5", b"70000", b"-5"],
        ),
    ],
)
def test_vtk_image_with_an_invalid_number_as_text_is_refused(tmp_path: Path, kind: str, texts: list[bytes]) -> None:
    path = write_vtk_text(tmp_path / "x.vtk", kind, range(60))
    np.testing.assert_array_equal(read_scan(path).voxels.ravel(order="F"), range(60))
    intact = path.read_bytes()
    for text in texts:
        path.write_bytes(intact.replace(b" 33 ", b" " + text + b" "))
        refused(lambda: read_scan(path), path, "as text, but some voxels are not numbers")


def test_vtk_image_is_refused_if_its_last_number_may_be_cut(tmp_path: Path) -> None:
    path = write_vtk_text(tmp_path / "x.vtk", "short", range(60))
    whole = path.read_bytes().removesuffix(b"METADATA\n")
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_scan(path).voxels.ravel(order="F"), range(60))
    path.write_bytes(whole[:-1])
    refused(lambda: read_scan(path), path, "lacks a line break after the last voxel")


@pytest.mark.parametrize(
    "line",
    [
        "DIMENSIONS 3 4",
        "DIMENSIONS 3 4 5.0",
        "SPACING 1 2",
        "SPACING 1,5 1,5 2",
        "ORIGIN 1 2",
        "ORIGIN 1,5 2 3",
        "ORIGIN",
    ],
)
def test_vtk_image_with_a_damaged_field_is_refused(tmp_path: Path, line: str) -> None:
    """ITK would replace missing or invalid numbers by arbitrary numbers."""
    path = tmp_path / "x.vtk"
    fields = {"DIMENSIONS": "DIMENSIONS 3 4 5", "SPACING": "SPACING 2 2 2", "ORIGIN": "ORIGIN 7 8 9"}
    for changed in (fields, fields | {line.split()[0]: line}):
        header = "\n".join(("# vtk DataFile Version 3.0\nx\nASCII\nDATASET STRUCTURED_POINTS", *changed.values()))
        voxels = " ".join(map(str, range(60)))
        path.write_text(f"{header}\nPOINT_DATA 60\nSCALARS s short 1\nLOOKUP_TABLE default\n{voxels}\n")
        if changed is fields:
            assert read_scan(path).grid.affine[:3, 3].tolist() == [-7, -8, 9]
    refused(lambda: read_scan(path), path, f"has a damaged field '{line.split()[0]}' in its header")


@pytest.mark.parametrize("size", range(8, 16))
def test_big_tiff_cut_within_its_header_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(b"II\x2b\0\x08\0\0\0\x10\0\0\0\0\0\0\0"[:size])
    refused(lambda: read_scan(path), path, "ends too early")


def set_values(data: bytes, tag: int, count: int, value: int) -> bytes:
    """Return a copy of a little-endian TIFF file in which each entry of the tag states `count` and `value`."""
    changed = bytearray(data)
    (page,) = struct.unpack("<I", data[4:8])
    while page:
        (number,) = struct.unpack("<H", data[page : page + 2])
        end = page + 2 + 12 * number
        for start in range(page + 2, end, 12):
            if struct.unpack("<H", data[start : start + 2]) == (tag,):
                changed[start + 4 : start + 12] = struct.pack("<2I", count, value)
        (page,) = struct.unpack("<I", data[end : end + 4])
    return bytes(changed)


def test_tiff_tag_without_values_is_ignored_only_if_itk_ignores_the_tag(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.tif")
    whole = path.read_bytes()
    for tag in (254, 279):  # the page's kind, and the strips' sizes
        path.write_bytes(set_values(whole, tag, 0, 0))
        np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    for tag in (256, 258, 259):
        path.write_bytes(set_values(whole, tag, 0, 0))
        refused(lambda: read_scan(path), path)


@pytest.mark.parametrize("count", [0, 1])
def test_tiff_stack_with_missing_or_zero_strip_offsets_is_refused(tmp_path: Path, count: int) -> None:
    """ITK would return other bytes of the file as voxels."""
    path = write_scan(tmp_path / "x.tif")
    path.write_bytes(set_values(path.read_bytes(), 273, count, 0))
    refused(lambda: read_scan(path), path, "ends too early")


def test_tiff_stack_with_1_bit_pages_or_tiles_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    _write_tiff(path, list(np.arange(9 * 10 * 11).reshape(9, 10, 11) % 100 > 50), [0] * 9)
    refused(lambda: read_scan(path), path, "in tiles, or its voxels do not have 8, 16 or 32 bits", "TIFF stack")
    data = write_scan(path).read_bytes()
    for strips, tiles in ((273, 324), (279, 325)):  # the tags of offsets and sizes
        for kind in (3, 4):
            data = data.replace(struct.pack("<2H", strips, kind), struct.pack("<2H", tiles, kind))
    path.write_bytes(data)
    refused(lambda: read_scan(path), path, "stores its voxels in tiles")


@pytest.mark.parametrize(
    ("tag", "count", "value", "message"),
    [
        (274, 1, 2, "has the TIFF orientation 2, which is not supported"),
        (274, 1, 6, "has the TIFF orientation 6, which is not supported"),
        (262, 0, 0, "lacks the TIFF tag PhotometricInterpretation"),
        (262, 1, 3, "stores its voxels as colours of a palette"),
    ],
)
def test_grey_tiff_stack_that_itk_would_read_as_colours_is_refused(
    tmp_path: Path, tag: int, count: int, value: int, message: str
) -> None:
    path = write_scan(tmp_path / "x.tif")
    path.write_bytes(set_values(path.read_bytes(), tag, count, value))
    refused(lambda: read_scan(path), path, message, "TIFF stack")


def test_tiff_stack_with_grey_and_transparency_is_refused(tmp_path: Path) -> None:
    """ITK would read the samples of a pixel as neighbouring voxels."""
    pages = list(np.arange(9 * 10 * 11 * 2).reshape(9, 10, 11, 2).astype(np.uint8))
    path = _write_tiff(tmp_path / "x.tif", pages, [0] * 9)
    refused(lambda: read_scan(path), path, "has 2 samples per pixel", "without transparency")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("components", [3, 4])
def test_colour_tiff_stack_is_called_a_colour_image(tmp_path: Path, kind: type, components: int) -> None:
    voxels = np.arange(9 * 10 * 11 * components).reshape(9, 10, 11, components).astype(kind)
    path = tmp_path / "x.tif"
    sitk.WriteImage(sitk.GetImageFromArray(voxels, isVector=True), str(path))
    refused(lambda: read_scan(path), path, "is a colour (RGB) image")


@pytest.mark.parametrize("compressor", ["NoCompression", "PackBits", "Deflate"])
def test_tiff_stack_whose_end_was_replaced_by_zeros_is_refused(tmp_path: Path, compressor: str) -> None:
    """The headers of the last pages are zero; ITK would read only the pages before them."""
    path = tmp_path / "x.tif"
    image = sitk_image(np.random.default_rng(0).integers(0, 500, (32, 30, 40)).astype(np.int16), np.eye(4))
    sitk.WriteImage(image, str(path), compressor != "NoCompression", compressor=compressor)
    assert read_scan(path).grid.shape == (32, 30, 40)
    data = path.read_bytes()
    kept = len(data) // 2
    path.write_bytes(data[:kept] + bytes(len(data) - kept))
    refused(lambda: read_scan(path), path)


@pytest.mark.parametrize("damage", ["zeros", "one byte"])
def test_tiff_stack_with_a_damaged_deflated_strip_is_refused(tmp_path: Path, damage: str) -> None:
    """ITK would return the beginning of the strip, and zeros for the rest."""
    path = tmp_path / "x.tif"
    image = sitk_image(np.random.default_rng(0).integers(0, 500, (32, 30, 40)).astype(np.int16), np.eye(4))
    sitk.WriteImage(image, str(path), True, compressor="Deflate")
    data = bytearray(path.read_bytes())
    start = data.index(b"x\x9c", len(data) // 2)  # the zlib header of a strip
    if damage == "zeros":
        data[start + 500 : start + 1200] = bytes(700)
    else:
        data[start + 500] ^= 1
    path.write_bytes(data)
    refused(lambda: read_scan(path), path, "damaged compressed data")


def test_memory_to_read_a_tiff_stack_does_not_grow_with_surplus_bytes_in_a_strip(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.tif")
    page, padding = VOXELS[:, :, 0], bytes(32 << 20)
    strip = zlib.compress(page.tobytes(order="F") + padding, 1)
    data = path.read_bytes()
    for tag, value in ((259, 8), (273, len(data)), (279, len(strip))):  # compression, offset and size of the strip
        data = set_values(data, tag, 1, value)
    path.write_bytes(data + strip)
    np.testing.assert_array_equal(read_scan(path).voxels[0], np.repeat(page[..., None], VOXELS.shape[2], 2))
    assert traced_peak(lambda: read_scan(path)) < len(padding) / 2


def test_size_of_an_analyze_image_is_computed_from_its_datatype_not_from_bitpix(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.hdr")
    header = bytearray(path.read_bytes())
    header[72:74] = (8).to_bytes(2, "little")  # bitpix
    path.write_bytes(bytes(header))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    truncate(tmp_path / "x.img")
    refused(lambda: read_scan(path), path, "x.img holds 990 of 1980 bytes")


@pytest.mark.parametrize("kind", ["long_long", "unsigned_long_long", "vtktypeint64"])
def test_vtk_image_of_64_bit_numbers_as_text_is_read(tmp_path: Path, kind: str) -> None:
    path = write_vtk_text(tmp_path / "x.vtk", kind, range(300, 360))
    np.testing.assert_array_equal(read_scan(path).voxels.ravel(order="F"), range(300, 360))


def test_vtk_image_of_an_unknown_voxel_type_is_not_called_damaged(tmp_path: Path) -> None:
    path = write_vtk_text(tmp_path / "x.vtk", "vtkIdType", range(300, 360))
    refused(lambda: read_scan(path), path, "Unrecognized pixel type")


@pytest.mark.parametrize("kind", ["long_long", "vtktypeint64", "vtktypeuint64"])
def test_truncated_vtk_image_of_64_bit_numbers_is_refused(tmp_path: Path, kind: str) -> None:
    path = write_scan(tmp_path / "x.vtk")
    data = path.read_bytes()
    start = data.index(b"SCALARS")
    voxels = VOXELS.astype(">i8").tobytes(order="F")
    path.write_bytes(data[:start] + f"SCALARS s {kind} 1\nLOOKUP_TABLE default\n".encode() + voxels)
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    truncate(path)
    refused(lambda: read_scan(path), path, "ends too early")


def test_truncated_gipl_image_of_binary_voxels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gipl"
    sitk.WriteImage(sitk_image(VOXELS.astype(np.uint8) % 2, ORTHOGONAL["axial"]), str(path))
    data = bytearray(path.read_bytes())
    data[8:10] = (1).to_bytes(2, "big")  # image type 1: binary; ITK reads a whole byte per voxel
    path.write_bytes(bytes(data))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS.astype(np.uint8) % 2)
    truncate(path, 0.8)
    refused(lambda: read_scan(path), path, "ends too early")


def _write_tiff(path: Path, pages: list[np.ndarray], kinds: list[int]) -> Path:
    """Write a TIFF stack whose pages have the given kinds (tag 254: 1 for a small copy, 4 for a mask)."""
    image = pytest.importorskip("PIL.Image")
    first, *others = (image.fromarray(page) for page in pages)
    for page, kind in zip(others, kinds[1:], strict=True):
        page.encoderinfo = {"tiffinfo": {254: kind}}
    first.save(path, save_all=True, append_images=others, tiffinfo={254: kinds[0]})
    return path


@pytest.mark.parametrize("place", [0, 4, 9])
@pytest.mark.parametrize("odd", ["smaller", "8 bits", "float"])
def test_tiff_stack_with_a_page_of_another_size_or_type_is_refused(tmp_path: Path, place: int, odd: str) -> None:
    """ITK would read random memory for pages of fewer bytes than the first."""
    pages = list(np.arange(9 * 10 * 11, dtype=np.uint16).reshape(9, 10, 11))
    other = {"smaller": pages[0][:5, :6], "8 bits": pages[0].astype(np.uint8), "float": pages[0].astype(np.float32)}
    path = _write_tiff(tmp_path / "x.tif", [*pages[:place], other[odd], *pages[place:]], [0] * 10)
    refused(lambda: read_scan(path), path, "pages that differ in their size or in the type", "the same size and type")


def test_small_copy_or_mask_at_the_end_of_a_tiff_stack_is_ignored(tmp_path: Path) -> None:
    pages = list(np.arange(9 * 10 * 11, dtype=np.uint16).reshape(9, 10, 11))
    path = _write_tiff(tmp_path / "x.tif", [*pages, pages[0][:5, :6]], [0] * 9 + [1])
    np.testing.assert_array_equal(read_scan(path).voxels[0], np.stack(pages).transpose(2, 1, 0))
    _write_tiff(path, [*pages, pages[0] > 50], [0] * 9 + [4])  # a mask of 1 bit
    np.testing.assert_array_equal(read_scan(path).voxels[0], np.stack(pages).transpose(2, 1, 0))


@pytest.mark.parametrize("place", [0, 4])
def test_small_copy_before_a_page_of_a_tiff_stack_is_refused(tmp_path: Path, place: int) -> None:
    pages = list(np.arange(9 * 10 * 11, dtype=np.uint16).reshape(9, 10, 11))
    kinds = [int(number == place) for number in range(10)]
    path = _write_tiff(tmp_path / "x.tif", [*pages[:place], pages[0][:5, :6], *pages[place:]], kinds)
    refused(lambda: read_scan(path), path, "pages that differ in their size")


@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_2_pair_is_not_called_damaged(tmp_path: Path, order: str) -> None:
    header = nibabel.Nifti2Header(endianness=order)
    nibabel.save(nibabel.Nifti2Pair(VOXELS, np.diag([1.0, 2, 3, 1]), header), tmp_path / "x.hdr")
    message = refused(lambda: read_scan(tmp_path / "x.hdr"), tmp_path / "x.hdr", "is a NIfTI-2 pair", ".nii")
    assert "damaged" not in message


@pytest.mark.parametrize("magic", [b"ni1\0", bytes(4)], ids=["NIfTI", "Analyze"])
@pytest.mark.parametrize("spacing", [0.0, float("nan"), float("inf")])
def test_pair_with_a_spacing_that_is_zero_or_not_finite_is_refused(
    tmp_path: Path, magic: bytes, spacing: float
) -> None:
    """ITK would replace such a spacing by 1 mm."""
    path = write_scan(tmp_path / "x.hdr")
    header = bytearray(path.read_bytes())
    header[344:348] = magic
    path.write_bytes(bytes(header))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    header[88:92] = np.float32(spacing).tobytes()  # pixdim of the third axis
    path.write_bytes(bytes(header))
    refused(lambda: read_scan(path), path, "impossible voxel spacing (0.625 x 0.625 x")


def test_vtk_image_without_a_lookup_table_is_read_as_by_itk(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.vtk")
    path.write_bytes(path.read_bytes().replace(b"LOOKUP_TABLE default\n", b""))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), VOXELS.transpose(2, 1, 0))
    truncate(path)
    refused(lambda: read_scan(path), path, "ends too early")


@pytest.mark.parametrize("line", ["CELL_DATA 990\nSCALARS s short 1", "POINT_DATA 990\nFIELD FieldData 1"])
def test_vtk_voxels_must_be_scalars_of_point_data(tmp_path: Path, line: str) -> None:
    path = write_scan(tmp_path / "x.vtk")
    whole = path.read_bytes()
    path.write_bytes(re.sub(rb"POINT_DATA 990\nSCALARS [^\n]*", line.encode(), whole))
    assert path.read_bytes() != whole
    refused(
        lambda: read_scan(path), path, "does not hold its voxels as SCALARS of POINT_DATA", "Save the image as NRRD"
    )


@pytest.mark.parametrize("ending", [".hdr", ".vtk", ".gipl"])
def test_zip_file_is_read_unless_it_holds_two_images(tmp_path: Path, ending: str) -> None:
    path = write_scan(tmp_path / f"x{ending}")
    packed = tmp_path / "x.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in (path, *tmp_path.glob("*.img")):
            archive.write(file, file.name)
        archive.writestr("readme.txt", "a scan")
    np.testing.assert_array_equal(read_scan(packed).voxels[0], VOXELS)
    with zipfile.ZipFile(packed, "a") as archive:
        archive.write(path, f"y{ending}")
    refused(lambda: read_scan(packed), packed, f"holds 2 images (x{ending}, y{ending})")


def test_surface_and_picture_beside_the_scan_in_a_zip_file_are_ignored(tmp_path: Path) -> None:
    packed = tmp_path / "x.zip"
    sitk.WriteImage(sitk.Image(6, 6, sitk.sitkUInt8), str(tmp_path / "picture.tif"))
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(write_scan(tmp_path / "x.gipl"), "x.gipl")
        archive.write(tmp_path / "picture.tif", "picture.tif")
        archive.writestr("surface.vtk", "# vtk DataFile Version 3.0\n\nASCII\nDATASET POLYDATA\n")
    np.testing.assert_array_equal(read_scan(packed).voxels[0], VOXELS)


def test_zip_file_of_single_slices_is_refused(tmp_path: Path) -> None:
    packed = tmp_path / "x.zip"
    sitk.WriteImage(sitk.Image(6, 6, sitk.sitkUInt8), str(tmp_path / "1.tif"))
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(2):
            archive.write(tmp_path / "1.tif", f"{number}.tif")
    refused(lambda: read_scan(packed), packed, "holds no volume of at least three slices (0.tif, 1.tif)", "as one file")


def test_zip_file_of_many_slices_is_searched_in_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparisons: list[object] = []
    packed, is_equal = tmp_path / "x.zip", PurePath.__eq__

    def count(path: PurePath, other: object) -> bool:
        comparisons.append(other)
        return is_equal(path, other)

    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(200):
            archive.writestr(f"{number}.tif", "a slice")
    monkeypatch.setattr(PurePath, "__eq__", count)
    refused(lambda: read_scan(packed), packed, "holds 200 images")
    assert len(comparisons) < 1000


@pytest.mark.parametrize("before", [b"\n", b" "], ids=["empty line", "blank"])
def test_vtk_image_with_white_space_before_its_lookup_table_is_read_unless_truncated(
    tmp_path: Path, before: bytes
) -> None:
    path = write_scan(tmp_path / "x.vtk")
    whole = path.read_bytes().replace(b"LOOKUP_TABLE", before + b"LOOKUP_TABLE")
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    path.write_bytes(whole[:-2])
    refused(lambda: read_scan(path), path, "ends too early")


def test_vtk_image_whose_header_states_two_numbers_of_voxels_is_refused(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.vtk")
    path.write_bytes(path.read_bytes().replace(b"DIMENSIONS 9 10 11", b"DIMENSIONS 9 10 6"))
    refused(lambda: read_scan(path), path, "states 990 voxels in POINT_DATA, but 540 in DIMENSIONS")


def test_vtk_image_without_the_keyword_point_data_is_read_as_by_itk(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.vtk")
    path.write_bytes(path.read_bytes().replace(b"POINT_DATA 990\n", b""))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), VOXELS.transpose(2, 1, 0))


def test_truncated_vtk_image_of_colours_is_refused(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.vtk")
    header = path.read_bytes().split(b"SCALARS")[0] + b"COLOR_SCALARS colours 3\n"
    path.write_bytes(header + bytes(3 * VOXELS.size - 1))
    refused(lambda: read_scan(path), path, "ends too early")


def test_vtk_image_without_the_type_of_its_numbers_is_refused(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.vtk")
    path.write_bytes(path.read_bytes().replace(b"SCALARS scalars short 1", b"SCALARS scalars"))
    refused(lambda: read_scan(path), path, "has a damaged header")


def test_vtk_image_without_spacing_is_read_with_a_note_on_the_assumed_spacing(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.vtk")
    assert read_scan(path).notes == (MISSING_DIRECTIONS,)
    path.write_bytes(re.sub(rb"SPACING .*\n", b"", path.read_bytes()))
    volume = read_scan(path)
    assert tuple(volume.grid.spacing) == (1.0, 1.0, 1.0)
    note, of_directions = volume.notes
    assert "1 mm was assumed" in note
    assert of_directions == MISSING_DIRECTIONS


@pytest.mark.parametrize("side", [0.0, float("nan"), float("inf")])
def test_mrc_image_with_an_impossible_edge_length_is_refused(tmp_path: Path, side: float) -> None:
    path = write_scan(tmp_path / "x.mrc")
    assert read_scan(path).notes == (MISSING_DIRECTIONS,)
    data = bytearray(path.read_bytes())
    struct.pack_into("<f", data, 48, side)
    path.write_bytes(data)
    refused(lambda: read_scan(path), path, "impossible voxel spacing")


def test_note_on_a_nifti_pair_contains_its_pixdim_and_sform_spacings(tmp_path: Path) -> None:
    header = write_scan(tmp_path / "x.hdr")
    assert read_scan(header).notes == ()
    data = bytearray(header.read_bytes())
    spacing = struct.unpack_from("<3f", data, 80)
    struct.pack_into("<2h", data, 252, 0, 1)  # qform_code, sform_code
    struct.pack_into("<12f", data, 280, *np.eye(3, 4).ravel())  # sform
    header.write_bytes(data)
    for path in (header, header.with_suffix(".img")):
        volume = read_scan(path)
        np.testing.assert_allclose(volume.grid.spacing, spacing)
        (note,) = volume.notes
        assert "(pixdim) was used, as in 3D Slicer, not 1 x 1 x 1 mm (sform)" in note
