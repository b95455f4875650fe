"""MetaImage files are read as SimpleITK reads them; damaged fields and missing data files are refused."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.io.readers import read_scan
from dcamt_testing.scan_files import RAW, VOXELS, assert_written_scan, refused, write_scan


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 on this system")
def test_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "M\udcfcller" / "x.mha"
    path.parent.mkdir()
    path.write_bytes(write_scan(tmp_path / "x.mha").read_bytes())
    refused(lambda: read_scan(path), path, "has a path that is not UTF-8")


def test_data_file_in_a_folder_is_found_if_the_header_was_written_on_windows(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.mhd")
    (tmp_path / "raw").mkdir()
    (tmp_path / "x.raw").rename(tmp_path / "raw" / "x.raw")
    path.write_text(path.read_text("utf-8").replace("x.raw", "raw\\x.raw"), encoding="utf-8")
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)


@pytest.mark.parametrize("last", [10, 10**7])
def test_pattern_for_names_of_data_files_is_read_unless_it_names_too_many_files(tmp_path: Path, last: int) -> None:
    """If `last` is 10**7, the pattern names more files than the scan has voxels."""
    for k in range(11):
        (tmp_path / f"d{k:03}.raw").write_bytes(VOXELS[:, :, k].tobytes(order="F"))
    path = tmp_path / "x.mhd"
    path.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 9 10 11\nElementType = MET_SHORT\nBinaryData = True\n"
        f"ElementSpacing = 1 1 1\nElementDataFile = d%03d.raw 0 {last} 1\n",
        encoding="utf-8",
    )
    if last == 10:
        np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    else:
        refused(lambda: read_scan(path), path, "pattern for the names of its data files")


@pytest.mark.parametrize(
    ("files", "names", "message"),
    [
        (11, "LIST\n" + "d{:03}.raw\n" * 11, ""),
        (11, "LIST 2\n" + "d{:03}.raw\n" * 11, ""),
        (11, "LIST 2D\n" + "d{:03}.raw\n" * 11, ""),
        (11, "LIST 0\n" + "d{:03}.raw\n" * 11, ""),
        (11, "LIST 4\n" + "d{:03}.raw\n" * 11, ""),
        (11, "LIST\n" + "d{:03}.raw\n" * 11 + " \t", ""),
        (1, "LIST 3\nd{:03}.raw\n", 'unsupported text "LIST 3"'),
        (11, "LIST 3\n", 'unsupported text "LIST 3"'),
        (11, "LIST -1\n", 'unsupported text "LIST -1"'),
        (11, "LIST\n", "names 0 data files in ElementDataFile, but its DimSize needs 11"),
        (11, "d%03d.raw 5 4 1", "names 0 data files in ElementDataFile, but its DimSize needs 11"),
        (11, "LIST -1\n" + "d{:03}.raw\n" * 11, 'unsupported text "LIST -1"'),
        (11, "LIST\n" + "d{:03}.raw\n" * 10, "names 10 data files in ElementDataFile, but its DimSize needs 11"),
        (11, "LIST\n" + "d{:03}.raw\n" * 10 + "d{:03}.raw", "lacks a line break after the last name"),
        (11, "d%03d.raw 0 9 1", "names 10 data files in ElementDataFile, but its DimSize needs 11"),
        (11, "d%03d.raw 0 10 1 2", "damaged pattern for the names of its data files"),
        (11, "d%.3d.raw 0 10 1", ""),
        (11, f"d%03d.raw {'1' * 5000} 10 1", "damaged field 'ElementDataFile'"),
        (11, "d%d_%d.raw 0 10 1", "damaged pattern for the names of its data files"),
        (11, f"d%03d.raw 0 {10**30} 1", "damaged pattern for the names of its data files"),
        (11, "50%_a.raw", "damaged pattern for the names of its data files"),
    ],
)
def test_metaimage_is_refused_unless_it_names_a_data_file_for_each_slice(
    tmp_path: Path, files: int, names: str, message: str
) -> None:
    """ITK returns random memory for a slice for which no file is named.

    Each file has 100 additional bytes, so ten of the files have enough bytes for all 11 slices.
    """
    per_file = len(RAW) // files
    for k in range(files):
        (tmp_path / f"d{k:03}.raw").write_bytes(RAW[k * per_file : (k + 1) * per_file] + bytes(100))
    path = tmp_path / "x.mhd"
    path.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 9 10 11\nElementType = MET_SHORT\nBinaryData = True\n"
        f"ElementSpacing = 1 1 1\nElementDataFile = {names.format(*range(11))}",
        encoding="utf-8",
    )
    assert_written_scan(path, message)


def test_metaimage_with_colons_after_the_names_of_its_fields_is_read_as_by_itk(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.mha")
    header, local, data = path.read_bytes().partition(b"LOCAL")
    path.write_bytes(header.replace(b" = ", b": ") + local + data)
    itk = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(read_scan(path).voxels[0], itk.transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "lacks the field CompressedDataSize = {size}"),
        ("CompressedDataSize = 0\n", "states 0 bytes of compressed data, but has {size}"),
        ("CompressedDataSize = {smaller}\n", "states {smaller} bytes of compressed data, but has {size}"),
        ("CompressedDataSize = {larger}\n", "states {larger} bytes of compressed data, but has {size}"),
    ],
    ids=["missing", "zero", "smaller", "larger"],
)
def test_metaimage_with_a_missing_or_wrong_size_of_its_compressed_data_is_refused(
    tmp_path: Path, line: str, message: str
) -> None:
    """For voxels beyond the stated size, ITK returns random memory (seen with ITK 5.4)."""
    path = write_scan(tmp_path / "x.mha", compressed=True)
    data = path.read_bytes()
    assert np.array_equal(read_scan(path).voxels[0], VOXELS)
    size = int(re.search(rb"CompressedDataSize = (\d+)", data)[1])  # type: ignore[index]
    sizes = {"size": size, "smaller": size - 20, "larger": size + 50}
    path.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", line.format(**sizes).encode(), data))
    refused(lambda: read_scan(path), path, message.format(**sizes), "CompressedDataSize in its header")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ElementSpacing", "1 1", "has 2 numbers in the field ElementSpacing instead of 3"),
        ("TransformMatrix", "1 0 0 1", "has 4 numbers in the field TransformMatrix instead of 9"),
        ("Offset", "1 2 3 4", "has 4 numbers in the field Offset instead of 3"),
        ("DimSize", "9 10", "has 2 numbers in the field DimSize instead of 3"),
        ("DimSize", "9", "has one number in the field DimSize instead of 3"),
        ("ElementSpacing", "1 1 x", "has damaged numbers in ElementSpacing"),
        ("ElementSpacing", "1 1 inf", "has damaged numbers in ElementSpacing"),
        ("Offset", "nan 0 0", "has damaged numbers in Offset"),
        ("DimSize", "9 10 11.0", "has a damaged field 'DimSize' in its header"),
        ("ElementNumberOfChannels", "", "has a damaged field 'ElementNumberOfChannels' in its header"),
        ("HeaderSize", "x", "has a damaged field 'HeaderSize' in its header"),
        ("NDims", "x", "has a damaged field 'NDims' in its header"),
        ("ElementType", "MET_OTHER", 'the unknown ElementType "MET_OTHER"'),
        ("ElementType", "met_short", 'the unknown ElementType "met_short"'),
        ("BinaryData", "False", "seems to have binary voxels, but its header states BinaryData = False"),
        ("DistanceUnits", "um", 'has the unit "um"'),
    ],
)
def test_error_names_the_damaged_field_of_a_metaimage(tmp_path: Path, field: str, value: str, message: str) -> None:
    path = write_scan(tmp_path / "x.mha")
    data = re.sub(rb"(?m)^%s = .*\n" % field.encode(), b"", path.read_bytes())
    line = f"{field} = {value}\n".encode()
    path.write_bytes(data.replace(b"ElementDataFile", line + b"ElementDataFile"))
    refused(lambda: read_scan(path), path, message)


TEXT_HEADER = b"ObjectType = Image\nNDims = 3\nDimSize = 9 10 11\nElementSpacing = 1 1 1\nElementType = MET_SHORT\n"
TEXT = " ".join(map(str, VOXELS.ravel(order="F"))).encode() + b"\n"


@pytest.mark.parametrize("damage", [b"1x3\n", b"\0\0\x8f\n"])
def test_damaged_text_of_a_metaimage_is_not_taken_for_binary_voxels(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "x.mha"
    path.write_bytes(TEXT_HEADER + b"BinaryData = False\nElementDataFile = LOCAL\n" + TEXT)
    assert np.array_equal(read_scan(path).voxels[0], VOXELS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + damage)
    refused(lambda: read_scan(path), path, "are not numbers of the type that its header states. Copy the file again")
    path.write_bytes(whole[:-1])
    refused(lambda: read_scan(path), path, "lacks a line break after the last voxel")
    path.write_bytes(whole + b"7")  # ITK ignores what follows the last voxel
    assert np.array_equal(read_scan(path).voxels[0], VOXELS)
    for size in range(-40, -30):
        path.write_bytes(whole[:size])
        refused(lambda: read_scan(path), path, "ends too early")


@pytest.mark.parametrize("kind", ["SHORT", "USHORT", "UCHAR", "LONG_LONG", "FLOAT"])
@pytest.mark.parametrize("word", ["33.0", "3.3e1", "33.5", "-5", "70000", "1e30", "1e39", "1_0", "nan"])
def test_metaimage_text_is_refused_if_a_word_does_not_fit_the_voxel_type(tmp_path: Path, kind: str, word: str) -> None:
    path = tmp_path / "x.mha"
    words = list(map(str, np.arange(990) % 200))
    words[500] = word
    header = (
        TEXT_HEADER.replace(b"MET_SHORT", f"MET_{kind}".encode()) + b"BinaryData = False\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header + " ".join(words).encode() + b"\n")
    fitting = {"SHORT": "33.0 3.3e1 -5", "USHORT": "33.0 3.3e1", "UCHAR": "33.0 3.3e1"}
    fitting |= {"LONG_LONG": "33.0 3.3e1 -5 70000", "FLOAT": "33.0 3.3e1 33.5 -5 70000 1e30"}
    if word in fitting[kind].split():
        assert read_scan(path).voxels.ravel(order="F")[499:502].tolist() == [99, np.float32(word), 101]
    elif (kind, word) == ("FLOAT", "1e39"):
        refused(lambda: read_scan(path), path, "NaN or infinite")
    else:
        refused(lambda: read_scan(path), path, "some voxels are not numbers of the type that its header states")


@pytest.mark.parametrize("stated", [b"", b"BinaryData = True\n"])
@pytest.mark.parametrize("file", ["LOCAL", "x.raw"])
def test_metaimage_with_text_voxels_needs_binarydata_false(tmp_path: Path, stated: bytes, file: str) -> None:
    path, data = tmp_path / "x.mhd", tmp_path / "x.raw"
    for voxels in (RAW, TEXT):
        data.write_bytes(voxels)
        local = voxels if file == "LOCAL" else b""
        path.write_bytes(TEXT_HEADER + stated + f"ElementDataFile = {file}\n".encode() + local)
        if voxels == RAW:
            assert np.array_equal(read_scan(path).voxels[0], VOXELS)
            itk = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            assert np.array_equal(itk.transpose(2, 1, 0), VOXELS)
    refused(lambda: read_scan(path), path, "text, but its header lacks BinaryData = False. Set BinaryData to False")


@pytest.mark.parametrize("unit", ["mm", "MM", "millimeter", "?"])
def test_metaimage_in_millimetres_or_an_unknown_unit_is_read(tmp_path: Path, unit: str) -> None:
    path = write_scan(tmp_path / "x.mha")
    line = f"DistanceUnits = {unit}\n".encode()
    path.write_bytes(path.read_bytes().replace(b"ElementDataFile", line + b"ElementDataFile"))
    assert np.array_equal(read_scan(path).voxels[0], VOXELS)


@pytest.mark.parametrize("change", [str.lower, str.upper])
@pytest.mark.parametrize(
    "line",
    [
        "ElementSpacing = 0.625 0.625 2.5",
        "Offset = 1 2 3",
        "TransformMatrix = 0 1 0 1 0 0 0 0 1",
        "BinaryDataByteOrderMSB = True",
        "DistanceUnits = cm",
    ],
)
def test_metaimage_with_wrong_capitals_in_a_field_name_is_refused(
    tmp_path: Path, line: str, change: Callable[[str], str]
) -> None:
    path, field = write_scan(tmp_path / "x.mha"), line.split()[0]
    other = line.replace(field, change(field))
    path.write_bytes(path.read_bytes().replace(b"ElementDataFile", f"{other}\nElementDataFile".encode()))
    assert change(field) in sitk.ReadImage(str(path)).GetMetaDataKeys()  # ITK treats the field as unknown
    message = f"has the field {change(field)} in its header, but ITK reads only the spelling {field}."
    refused(lambda: read_scan(path), path, message)


def test_metaimage_without_spacing_is_read_with_a_note_on_the_assumed_spacing(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.mha")
    path.write_bytes(re.sub(rb"ElementSpacing = .*\n", b"", path.read_bytes()))
    volume = read_scan(path)
    assert tuple(volume.grid.spacing) == sitk.ReadImage(str(path)).GetSpacing() == (1.0, 1.0, 1.0)
    (note,) = volume.notes
    assert "1 mm was assumed" in note
    assert read_scan(write_scan(tmp_path / "y.mha")).notes == ()


@pytest.mark.parametrize("stated", ["ElementSpacing", "ElementSize"])
def test_note_states_both_spacings_if_the_matrix_of_a_metaimage_scales_the_axes(tmp_path: Path, stated: str) -> None:
    path = write_scan(tmp_path / "x.mha")
    assert read_scan(path).notes == ()
    data = re.sub(rb"TransformMatrix = .*", b"TransformMatrix = 2 0 0 0 2 0 0 0 3", path.read_bytes())
    path.write_bytes(re.sub(rb"ElementSpacing = .*", f"{stated} = 2 2 3".encode(), data))
    volume = read_scan(path)
    assert volume.grid.spacing.tolist() == [4, 4, 9]  # as in 3D Slicer
    (note,) = volume.notes
    assert f"2 x 2 x 3 mm ({stated}), and 4 x 4 x 9 mm ({stated} times the lengths" in note
    assert "The second spacing was used" in note


def test_metaimage_whose_voxels_would_begin_in_its_header_is_refused(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.mha")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"ElementDataFile", b"HeaderSize = 100\nElementDataFile"))
    refused(lambda: read_scan(path), path, "states a HeaderSize of 100 bytes")
    path.write_bytes(data.replace(b"ElementDataFile", b"HeaderSize = -1\nElementDataFile"))
    assert np.array_equal(read_scan(path).voxels[0], VOXELS)


def test_metaimage_with_empty_lines_in_its_header_is_read(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.mha")
    path.write_bytes(path.read_bytes().replace(b"\nDimSize", b"\n\r\n\nDimSize"))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), VOXELS.transpose(2, 1, 0))
