"""Damaged and truncated files (other than DICOM) are refused; intact files are read as SimpleITK reads them."""

from __future__ import annotations

import bz2
import errno
import gzip
import os
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.cases.folders import find_cases
from dcamt.geometry import Grid
from dcamt.io.readers import read_header, read_labelmap, read_scan
from dcamt.io.stored_image import Gunzip
from dcamt_testing.scan_files import (
    ORTHOGONAL,
    SHAPE,
    affine_from_sitk,
    corner_distance_mm,
    labels,
    refused,
    save_nifti,
    scan,
    sitk_image,
)

VOXELS = np.ascontiguousarray(scan("int16"))


def write_scan(path: Path, compressed: bool = False) -> Path:
    sitk.WriteImage(sitk_image(VOXELS, ORTHOGONAL["axial"]), str(path), useCompression=compressed)
    return path


def truncate(path: Path, fraction: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * fraction))


@pytest.mark.parametrize(
    ("ending", "data"),
    [(f".{e}", f".{d}") for e, d in (("gipl", "gipl"), ("vtk", "vtk"), ("hdr", "img"), ("tif", "tif"), ("mha", "mha"))]
    + [(".mhd", ".raw"), (".nhdr", ".raw"), (".nrrd", ".nrrd"), (".nii", ".nii"), (".nii.gz", ".nii.gz")]
    + [(".gipl.gz", ".gipl.gz"), (".img.gz", ".img.gz"), (".mrc", ".mrc"), (".rec", ".rec"), (".mnc", ".mnc")],
)
def test_truncated_file_is_refused_and_intact_file_is_read(tmp_path: Path, ending: str, data: str) -> None:
    path = write_scan(tmp_path / f"x{ending}", compressed=ending.endswith(".gz"))
    read = read_scan(path)
    itk = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(read.voxels[0], sitk.GetArrayFromImage(itk).transpose(2, 1, 0))
    assert read.grid.matches(Grid(SHAPE, affine_from_sitk(itk)))
    truncate(tmp_path / f"x{data}", 0.9)
    refused(lambda: read_scan(path), path)
    truncate(tmp_path / f"x{data}")
    refused(lambda: read_scan(path), path)


@pytest.mark.parametrize(
    ("ending", "data"), [(".mha", ".mha"), (".mhd", ".zraw"), (".nrrd", ".nrrd"), (".nii.gz", ".nii.gz")]
)
def test_damaged_compressed_data_is_refused(tmp_path: Path, ending: str, data: str) -> None:
    path = write_scan(tmp_path / f"x{ending}", compressed=True)
    file = tmp_path / f"x{data}"
    whole = file.read_bytes()
    at = len(whole) * 3 // 4
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    refused(lambda: read_scan(path), path)
    file.write_bytes(whole[:at] + bytes(len(whole) - at))
    refused(lambda: read_scan(path), path)


def test_missing_and_truncated_data_files_cause_different_messages(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.mhd")
    truncate(tmp_path / "x.raw")
    refused(lambda: read_scan(path), path, "ends too early", "x.raw", "990 of 1980 bytes")
    (tmp_path / "x.raw").unlink()
    refused(lambda: read_scan(path), path, "needs its data file x.raw, which is missing")
    path = write_scan(tmp_path / "y.nhdr")
    (tmp_path / "y.raw").unlink()
    refused(lambda: read_scan(path), path, "needs its data file y.raw, which is missing")
    path = write_scan(tmp_path / "z.hdr")
    (tmp_path / "z.img").unlink()
    refused(lambda: read_scan(path), path, "z.img")
    path = write_scan(tmp_path / "w.mha")
    truncate(path)
    refused(lambda: read_scan(path), path, "ends too early")


def test_data_file_on_a_failing_disk_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_scan(tmp_path / "x.nhdr", compressed=True)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Gunzip, "readinto", fail)
    refused(lambda: read_scan(path), path, "x.raw.gz, which cannot be read (Input/output error)", "Check the disk")


@pytest.mark.parametrize("reader", [read_header, read_scan])
@pytest.mark.parametrize(
    ("header", "data", "compressed"),
    [("x.mhd", "x.raw", False), ("x.mhd", "x.zraw", True), ("x.nhdr", "x.raw.gz", True), ("x.hdr", "x.img", False)],
)
def test_error_names_the_truncated_data_file_and_counts_its_bytes(
    tmp_path: Path, reader: Callable[[Path], object], header: str, data: str, compressed: bool
) -> None:
    path = write_scan(tmp_path / header, compressed)
    whole = (tmp_path / data).read_bytes()
    for kept in (0, len(whole) // 2):
        (tmp_path / data).write_bytes(whole[:kept])
        held = len(zlib.decompressobj(wbits=47).decompress(whole[:kept])) if compressed else kept
        message = refused(lambda: reader(path), path, f"its data file {data} holds")
        stated_held, stated_whole = message.split("holds ")[1].split(" bytes")[0].split(" of ")
        assert (int(stated_held), int(stated_whole)) == (held, VOXELS.nbytes)
    if compressed:
        (tmp_path / data).write_bytes(whole[:-3])
        refused(lambda: reader(path), path, f"its data file {data} lacks its checksum")


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_error_suggests_renaming_a_file_that_may_be_the_data_file(tmp_path: Path, ending: str) -> None:
    path = write_scan(tmp_path / f"x{ending}")
    (tmp_path / "x.raw").rename(tmp_path / "X.RAW")
    refused(lambda: read_scan(path), path, "needs its data file x.raw", "If X.RAW is the data file, rename it to x.raw")
    (tmp_path / "X.RAW").rename(tmp_path / "y.raw")
    path = path.rename(tmp_path / f"y{ending}")
    refused(lambda: read_scan(path), path, "needs its data file x.raw", "If y.raw is the data file, rename it to x.raw")


def test_file_with_an_unknown_or_no_ending_is_refused(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.hdf5")
    path.rename(tmp_path / "x.xyz")
    refused(lambda: read_scan(tmp_path / "x.xyz"), tmp_path / "x.xyz", 'a format (".xyz") that cannot be checked')
    (tmp_path / "x.xyz").rename(tmp_path / "x")
    refused(lambda: read_scan(tmp_path / "x"), tmp_path / "x", "has no ending, and its format cannot be checked")


@pytest.mark.parametrize("name", ["notes.txt", "cases.csv", "slice.dcm", "scan"])
def test_text_file_is_refused_as_an_unknown_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("Dear radiologist,\n" * 50, encoding="utf-8")
    for reader in (read_scan, read_labelmap):
        refused(lambda reader=reader: reader(path), path, "is not an image in a known format", "Choose an image")


def test_gzip_is_detected_by_content_not_by_name(tmp_path: Path) -> None:
    plain = save_nifti(tmp_path / "x.nii", scan())
    packed = tmp_path / "packed.nii"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    np.testing.assert_array_equal(read_scan(packed).voxels[0], scan())
    plain.rename(tmp_path / "y.nii.gz")
    np.testing.assert_array_equal(read_scan(tmp_path / "y.nii.gz").voxels[0], scan())
    nrrd = write_scan(tmp_path / "z.nrrd")
    nrrd.rename(tmp_path / "z.nrrd.gz")
    np.testing.assert_array_equal(read_scan(tmp_path / "z.nrrd.gz").voxels[0], VOXELS)
    (tmp_path / "z2.nrrd.gz").write_bytes(gzip.compress((tmp_path / "z.nrrd.gz").read_bytes()))
    np.testing.assert_array_equal(read_scan(tmp_path / "z2.nrrd.gz").voxels[0], VOXELS)


# ---- NRRD as ITK reads it


def nrrd_bytes(change: Callable[[bytes], bytes], *, encoding: str = "raw", data: bytes | None = None) -> bytes:
    """Return an NRRD file; `change` edits its header, and `data` replaces its voxels."""
    header = (
        b"NRRD0004\n# a comment\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 9 10 11\n"
        b"space directions: (0.625,0,0) (0,0.625,0) (0,0,2.5)\nkinds: domain domain domain\nendian: little\n"
        b"encoding: " + encoding.encode() + b"\nspace origin: (71.3,-40.9,12.5)\n"
    )
    return change(header) + b"\n" + (VOXELS.tobytes(order="F") if data is None else data)


RAW = VOXELS.tobytes(order="F")
HEX = b"\n".join(RAW.hex().encode()[n : n + 70] for n in range(0, 2 * len(RAW), 70))
NRRDS = {
    "plain": nrrd_bytes(lambda h: h),
    "trailing bytes": nrrd_bytes(lambda h: h) + b"left over",
    "trailing bytes after gzip": nrrd_bytes(lambda h: h, encoding="gzip", data=gzip.compress(RAW) + b"left over"),
    "hex": nrrd_bytes(lambda h: h, encoding="hex", data=HEX),
    "ascii": nrrd_bytes(lambda h: h, encoding="ascii", data=b" ".join(b"%d" % v for v in VOXELS.ravel(order="F"))),
    "keywords in capitals": nrrd_bytes(lambda h: h.replace(b"type:", b"Type:").replace(b"sizes:", b"SIZES:")),
    "values in capitals": nrrd_bytes(lambda h: h.replace(b"short", b"Short").replace(b"little", b"LITTLE")),
    "blanks in vectors": nrrd_bytes(lambda h: h.replace(b"(0.625,0,0)", b"( 0.625, 0 , 0 )")),
    "many blanks": nrrd_bytes(lambda h: h.replace(b"sizes: 9 10 11", b"sizes:   9  10 11  ")),
    "windows line ends": nrrd_bytes(lambda h: h.replace(b"\n", b"\r\n")),
    "byte skip": nrrd_bytes(lambda h: h + b"byte skip: 7\n", data=b"skipped" + RAW),
    "byte skip from the end": nrrd_bytes(lambda h: h + b"byteskip: -1\n", data=b"skipped" + RAW),
    "line skip": nrrd_bytes(lambda h: h + b"line skip: 2\n", data=b"one\ntwo\n" + RAW),
    "other byte order": nrrd_bytes(
        lambda h: h.replace(b"little", b"big"), data=VOXELS.astype(">i2").tobytes(order="F")
    ),
    "other space": nrrd_bytes(lambda h: h.replace(b"left-posterior-superior", b"RAS")),
}


@pytest.mark.parametrize("name", NRRDS)
def test_nrrd_is_read_as_itk_reads_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(NRRDS[name])
    read = read_scan(path)
    np.testing.assert_array_equal(read.voxels[0], VOXELS)
    if name == "many blanks":  # ITK 5.4 refuses blanks after the sizes.
        path.write_bytes(NRRDS["plain"])
    itk = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk).transpose(2, 1, 0), VOXELS)
    assert corner_distance_mm(read.grid, Grid(SHAPE, affine_from_sitk(itk))) <= 1e-4


@pytest.mark.parametrize("last", [10, 10**7])
def test_metaimage_with_a_pattern_of_data_files_is_read_unless_it_names_too_many(tmp_path: Path, last: int) -> None:
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
        (1, "LIST 3\nd{:03}.raw\n", "ElementDataFile (1) that does not fit"),
        (11, "LIST 3\n", "ElementDataFile (0) that does not fit"),
        (11, "LIST -1\n", "ElementDataFile (0) that does not fit"),
        (11, "LIST\n", "ElementDataFile (0) that does not fit"),
        (11, "d%03d.raw 5 4 1", "ElementDataFile (0) that does not fit"),
        (11, "LIST -1\n" + "d{:03}.raw\n" * 11, "ElementDataFile (11) that does not fit"),
        (11, "LIST\n" + "d{:03}.raw\n" * 10, "ElementDataFile (10) that does not fit"),
        (11, "LIST\n" + "d{:03}.raw\n" * 10 + "d{:03}.raw", "lacks a line break after the last name"),
        (11, "d%03d.raw 0 9 1", "ElementDataFile (10) that does not fit"),
        (11, "d%03d.raw 0 10 1 2", "damaged pattern for the names of its data files"),
    ],
)
def test_metaimage_is_refused_unless_it_names_a_data_file_for_each_slice(
    tmp_path: Path, files: int, names: str, message: str
) -> None:
    """ITK returns random memory for a slice for which no file is named.

    Each file has 100 additional bytes, so 10 of the 11 files already hold more bytes than the scan.
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
    if message:
        refused(lambda: read_scan(path), path, message)
    else:
        np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)


def test_metaimage_with_colons_after_the_names_of_its_fields_is_read_as_by_itk(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.mha")
    header, local, data = path.read_bytes().partition(b"LOCAL")
    path.write_bytes(header.replace(b" = ", b": ") + local + data)
    itk = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(read_scan(path).voxels[0], itk.transpose(2, 1, 0))


def test_bzip2_data_of_several_streams_is_read_to_its_end(tmp_path: Path) -> None:
    """Programs that compress on several CPUs, such as pbzip2, write several streams."""
    path, half = tmp_path / "x.nrrd", len(RAW) // 2
    streams = bz2.compress(RAW[:half]) + bz2.compress(RAW[half:])
    path.write_bytes(nrrd_bytes(lambda h: h, encoding="bzip2", data=streams))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    path.write_bytes(nrrd_bytes(lambda h: h, encoding="bzip2", data=streams[:-30]))
    refused(lambda: read_scan(path), path, "ends too early")
    path.write_bytes(nrrd_bytes(lambda h: h, encoding="bzip2", data=streams + b"BZ"))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)


@pytest.mark.parametrize("folder", ["C:\\scans\\", "other/"])
def test_error_points_to_a_file_beside_the_header_if_the_header_names_a_missing_folder(
    tmp_path: Path, folder: str
) -> None:
    (tmp_path / "d.raw").write_bytes(RAW)
    path = tmp_path / "x.nhdr"
    field = f"data file: {folder}d.raw\n".encode()
    path.write_bytes(nrrd_bytes(lambda h: h + field, data=b"").rstrip(b"\n") + b"\n")
    refused(lambda: read_scan(path), path, "needs its data file d.raw in another folder", "the d.raw beside the header")


@pytest.mark.parametrize("length", [2, 20, 60])
def test_nifti_cut_or_damaged_within_its_compressed_header_is_not_called_another_format(
    tmp_path: Path, length: int
) -> None:
    path = write_scan(tmp_path / "x.nii.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    refused(lambda: read_scan(path), path, "ends too early")
    path.write_bytes(whole[:3] + b"\xff" + whole[4:])
    refused(lambda: read_scan(path), path, "damaged compressed data")


@pytest.mark.parametrize("how", ["list", "pattern", "one"])
def test_nrrd_data_in_other_files_is_read_unless_a_file_is_truncated_or_missing(tmp_path: Path, how: str) -> None:
    for k in range(11):
        (tmp_path / f"d{k:03}.raw").write_bytes(VOXELS[:, :, k].tobytes(order="F"))
    (tmp_path / "all.raw").write_bytes(RAW)
    field = {
        "list": "data file: LIST\n" + "".join(f"d{k:03}.raw\n" for k in range(11)),
        "pattern": "data file: d%03d.raw 0 10 1\n",
        "one": "data file: ./all.raw\n",
    }[how]
    path = tmp_path / "x.nhdr"
    path.write_bytes(nrrd_bytes(lambda h: h + field.encode(), data=b"").rstrip(b"\n") + b"\n")
    read = read_scan(path)
    np.testing.assert_array_equal(read.voxels[0], VOXELS)
    itk = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk).transpose(2, 1, 0), VOXELS)
    data_file = tmp_path / ("all.raw" if how == "one" else "d005.raw")
    truncate(data_file)
    refused(lambda: read_scan(path), path, "too early", data_file.name)
    data_file.unlink()
    refused(lambda: read_scan(path), path, f"{data_file.name}, which is missing")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda data: data.replace(b"encoding: raw\n", b""), "encoding"),
        (lambda data: data.replace(b"short", b"shirt"), "shirt"),
        (lambda data: data.replace(b"sizes: 9 10 11", b"sizes: 9 10"), "sizes"),
        (lambda data: data.replace(b"sizes: 9 10 11", b"sizes: 9 10 x"), ""),
        (lambda data: data.replace(b"endian: little\n", b""), "endian"),
        (lambda data: data.replace(b"(0,0,2.5)", b"(0,0,2.5"), ""),
        (lambda data: data[:-1], "too early"),
    ],
)
def test_damaged_nrrd_is_refused(tmp_path: Path, change: Callable[[bytes], bytes], word: str) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(change(NRRDS["plain"]))
    refused(lambda: read_scan(path), path, word)


def test_nrrd_of_four_spatial_axes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nrrd"
    header = (
        b"NRRD0004\ntype: short\ndimension: 4\nsizes: 9 10 11 2\nspacings: 1 1 1 1\nkinds: domain domain domain domain"
    )
    path.write_bytes(header + b"\nendian: little\nencoding: raw\n\n" + 2 * RAW)
    refused(lambda: read_scan(path), path, "is a 4D image", "Extract one three-dimensional volume")


def test_nrrd_with_a_too_long_header_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcamt.io.nrrd_header.HEADER_LIMIT", 1000)
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd_bytes(lambda header: header + b"note:=" + b"x" * 1000 + b"\n"))
    refused(lambda: read_scan(path), path, "has a header of 16 MiB or more")
    # The header's list of data files is longer than the limit. The reader must not cut the list off silently.
    names = b"".join(b"%d.raw\n" % number for number in range(200))
    path.write_bytes(nrrd_bytes(lambda header: header + b"data file: LIST\n" + names))
    refused(lambda: read_scan(path), path, "has a header of 16 MiB or more")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b'space units: "cm" "cm" "cm"\n', 'has the unit "cm"'),
        (b'space units: "mm" "um" "mm"\n', 'has the unit "um"'),
        (b'space units: "mm" "mm" "mm"\n', ""),
        (b'space units: "" "" ""\n', ""),
    ],
)
def test_nrrd_is_refused_if_it_states_another_unit_than_millimetres(tmp_path: Path, line: bytes, word: str) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd_bytes(lambda header: header + line))
    if word:
        refused(lambda: read_scan(path), path, word, "millimetres")
    else:
        np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)


def test_unit_of_the_time_axis_of_an_nrrd_file_is_ignored(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.nrrd")
    header, data = path.read_bytes().split(b"\n\n", 1)
    kept = [line for line in header.split(b"\n") if not line.startswith((b"space", b"dim", b"sizes", b"kinds"))]
    sizes = b"sizes: %d %d %d 1" % SHAPE
    axes = [b"dimension: 4", sizes, b"kinds: domain domain domain time", b"spacings: 1 1 2.5 40"]
    for units, word in ((b'"mm" "mm" "mm" "ms"', ""), (b'"mm" "mm" "cm" "ms"', 'has the unit "cm"')):
        path.write_bytes(b"\n".join([*kept, *axes, b"units: " + units]) + b"\n\n" + data)
        if word:
            refused(lambda: read_scan(path), path, word)
        else:
            np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)


def test_nrrd_whose_origin_comes_from_axis_mins_is_refused(tmp_path: Path) -> None:
    """ITK computes the origin from the fields `axis mins`, `axis maxs` and `centers`; DCAMT does not."""
    path = write_scan(tmp_path / "x.nrrd")
    header, data = path.read_bytes().split(b"\n\n", 1)
    kept = [line for line in header.split(b"\n") if not line.startswith(b"space")]
    plain = [*kept, b"spacings: 1 1 2.5"]
    path.write_bytes(b"\n".join(plain) + b"\n\n" + data)
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    path.write_bytes(b"\n".join([*plain, b"axis mins: NaN NaN NaN"]) + b"\n\n" + data)  # NaN: unknown
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    path.write_bytes(b"\n".join([*plain, b"axis mins: 10 20 30"]) + b"\n\n" + data)
    refused(lambda: read_scan(path), path, "axis mins", "3D Slicer")


def test_data_file_whose_path_has_a_backslash_is_found(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.nhdr")
    (tmp_path / "data").mkdir()
    (tmp_path / "x.raw").rename(tmp_path / "data" / "x.raw")
    path.write_bytes(path.read_bytes().replace(b"x.raw", b"data\\x.raw"))
    assert np.array_equal(read_scan(path).voxels[0], VOXELS)


# ---- the HDF5 file of the left atrium benchmark


def test_benchmark_file_is_read_as_scan_and_label(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "mri_norm2.h5"
    with h5py.File(path, "w") as file:
        file["image"], file["label"] = scan(), (labels() == 1).astype(np.uint8)
    volume = read_scan(path)
    np.testing.assert_array_equal(volume.voxels[0], scan())
    assert volume.grid.spacing.tolist() == [0.625] * 3
    assert "0.625 mm" in volume.notes[0]
    np.testing.assert_array_equal(read_labelmap(path).voxels, labels() == 1)
    assert read_labelmap(path).grid.matches(volume.grid)
    (case,) = find_cases(tmp_path).cases
    assert (case.image, case.label, case.role) == (path, path, "labelled")
    truncate(path)
    refused(lambda: read_scan(path), path)
    with h5py.File(path, "w") as file:
        file["data"] = scan()
    refused(lambda: read_scan(path), path, '"image"', "data")
    h5py.File(path, "w").close()
    refused(lambda: read_scan(path), path, 'holds no array "image". Choose')


# ---- MetaImage and TIFF


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
def test_meta_image_with_a_missing_or_wrong_size_of_its_compressed_data_is_refused(
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
        ("ElementType", "MET_OTHER", 'the unknown ElementType "MET_OTHER"'),
        ("ElementType", "met_short", 'the unknown ElementType "met_short"'),
        ("BinaryData", "False", "seems to have binary voxels, but its header lacks BinaryData = True"),
        ("DistanceUnits", "um", 'has the unit "um"'),
    ],
)
def test_error_names_the_damaged_field_of_a_meta_image(tmp_path: Path, field: str, value: str, message: str) -> None:
    path = write_scan(tmp_path / "x.mha")
    data = re.sub(rb"(?m)^%s = .*\n" % field.encode(), b"", path.read_bytes())
    line = f"{field} = {value}\n".encode()
    path.write_bytes(data.replace(b"ElementDataFile", line + b"ElementDataFile"))
    refused(lambda: read_scan(path), path, message)


@pytest.mark.parametrize("unit", ["mm", "MM", "millimeter", "?"])
def test_meta_image_in_millimetres_or_an_unknown_unit_is_read(tmp_path: Path, unit: str) -> None:
    path = write_scan(tmp_path / "x.mha")
    line = f"DistanceUnits = {unit}\n".encode()
    path.write_bytes(path.read_bytes().replace(b"ElementDataFile", line + b"ElementDataFile"))
    assert np.array_equal(read_scan(path).voxels[0], VOXELS)


def test_meta_image_without_spacing_is_read_with_a_note_on_the_assumed_spacing(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.mha")
    path.write_bytes(re.sub(rb"ElementSpacing = .*\n", b"", path.read_bytes()))
    volume = read_scan(path)
    assert tuple(volume.grid.spacing) == sitk.ReadImage(str(path)).GetSpacing() == (1.0, 1.0, 1.0)
    (note,) = volume.notes
    assert "1 mm was assumed" in note
    assert read_scan(write_scan(tmp_path / "y.mha")).notes == ()


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


def test_tiff_stack_of_which_only_the_last_strip_is_truncated_is_refused(tmp_path: Path) -> None:
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


# ---- archives and documents


@pytest.mark.parametrize(
    ("content", "kind", "remedy"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of Git LFS", "git lfs pull"),
        (b"/annex/objects/MD5E-s9--0.nii.gz\n", "a pointer of git-annex", "git annex get"),
        (b"../.git/annex/objects/7/9/MD5E-s9--0.nii.gz", "a pointer of git-annex", "git annex get"),
        (b"<!DOCTYPE html>\n<html>404</html>", "a web page", "Download the scan again"),
        (b"\n<HTML><body></body>", "a web page", "Download the scan again"),
    ],
)
@pytest.mark.parametrize("name", ["x.nii.gz", "x.nrrd", "x.mha"])
def test_error_names_a_pointer_or_web_page_stored_instead_of_a_scan(
    tmp_path: Path, name: str, content: bytes, kind: str, remedy: str
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(lambda: read_scan(tmp_path / name), tmp_path / name, f"is {kind}, not a scan", remedy)


def test_link_to_a_missing_file_is_reported(tmp_path: Path) -> None:
    link = tmp_path / "x.nii.gz"
    try:
        link.symlink_to(tmp_path / "gone.nii.gz")
    except OSError:
        pytest.skip("the system allows no links")
    refused(lambda: read_scan(link), link, "is a link to a missing file", "gone.nii.gz", "Copy the file itself")


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"PK\x05\x06", "empty zip"),
        (b"7z\xbc\xaf\x27\x1c", "7z archive"),
        (b"%PDF-1.4", "PDF document"),
        (bytes(257) + b"ustar", "tar archive"),
    ],
)
def test_refusal_names_the_kind_of_archive_or_document(tmp_path: Path, start: bytes, kind: str) -> None:
    path = tmp_path / "scan"
    path.write_bytes(start + bytes(500))
    refused(lambda: read_scan(path), path, kind)
    if kind == "tar archive":
        path.write_bytes(gzip.compress(path.read_bytes()))
        refused(lambda: read_scan(path), path, kind)


def test_zip_file_in_a_zip_file_is_refused(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner.zip", tmp_path / "outer.zip"
    with zipfile.ZipFile(inner, "w") as archive:
        archive.write(write_scan(tmp_path / "x.nrrd"), "x.nrrd")
    assert np.array_equal(read_scan(inner).voxels[0], VOXELS)
    with zipfile.ZipFile(outer, "w") as archive:
        archive.write(inner, "inner.zip")
    refused(lambda: read_scan(outer), outer, "another zip file (inner.zip)")


def test_zip_file_too_large_to_extract_is_refused_with_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.raw", bytes(11 << 20))
    monkeypatch.setattr("dcamt.io.readers._MAXIMUM_UNZIPPED", 10 << 20)
    refused(lambda: read_scan(path), path, "holds 0.011 GiB, too much to extract")


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


def test_size_of_an_analyze_image_is_computed_from_its_datatype_not_from_bitpix(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.hdr")
    header = bytearray(path.read_bytes())
    header[72:74] = (8).to_bytes(2, "little")  # bitpix; ITK uses the datatype instead
    path.write_bytes(bytes(header))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    truncate(tmp_path / "x.img")
    refused(lambda: read_scan(path), path, "x.img holds 990 of 1980 bytes")


@pytest.mark.parametrize("kind", ["vtktypeint64", "vtktypeuint64"])
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
    """Write a TIFF stack whose pages have the given kinds (tag 254: 1 for a small copy)."""
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
    refused(lambda: read_scan(path), path, "pages that differ in their size or in the type", "stack of their own")


def test_small_copy_in_a_tiff_stack_is_ignored_only_after_the_other_pages(tmp_path: Path) -> None:
    """ITK would write beyond its memory if another page followed the small copy."""
    pages = list(np.arange(9 * 10 * 11, dtype=np.uint16).reshape(9, 10, 11))
    path = _write_tiff(tmp_path / "x.tif", [*pages, pages[0][:5, :6]], [0] * 9 + [1])
    np.testing.assert_array_equal(read_scan(path).voxels[0], np.stack(pages).transpose(2, 1, 0))
    for place in (0, 4):
        kinds = [int(number == place) for number in range(10)]
        _write_tiff(path, [*pages[:place], pages[0][:5, :6], *pages[place:]], kinds)
        refused(lambda: read_scan(path), path, "pages that differ in their size")


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


def test_metaimage_with_empty_lines_in_its_header_is_read(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.mha")
    path.write_bytes(path.read_bytes().replace(b"\nDimSize", b"\n\r\n\nDimSize"))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), VOXELS.transpose(2, 1, 0))


def test_vtk_image_without_a_lookup_table_is_read_as_by_itk(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.vtk")
    path.write_bytes(path.read_bytes().replace(b"LOOKUP_TABLE default\n", b""))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), VOXELS.transpose(2, 1, 0))
    truncate(path)
    refused(lambda: read_scan(path), path, "ends too early")


@pytest.mark.parametrize("line", ["CELL_DATA 990\nSCALARS s short 1", "POINT_DATA 990\nFIELD FieldData 1"])
def test_vtk_image_without_values_of_points_is_not_called_truncated(tmp_path: Path, line: str) -> None:
    path = write_scan(tmp_path / "x.vtk")
    whole = path.read_bytes()
    path.write_bytes(re.sub(rb"POINT_DATA 990\nSCALARS [^\n]*", line.encode(), whole))
    assert path.read_bytes() != whole
    refused(
        lambda: read_scan(path), path, "does not hold its voxels as SCALARS of POINT_DATA", "Save the image as NRRD"
    )


@pytest.mark.parametrize("ending", [".hdr", ".vtk", ".gipl"])
def test_zip_file_of_one_image_that_itk_reads_is_read(tmp_path: Path, ending: str) -> None:
    path = write_scan(tmp_path / f"x{ending}")
    packed = tmp_path / "x.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in (path, *tmp_path.glob("*.img")):
            archive.write(file, file.name)
        archive.writestr("readme.txt", "a scan")
    np.testing.assert_array_equal(read_scan(packed).voxels[0], VOXELS)
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(f"y{ending}", "another scan")
    refused(lambda: read_scan(packed), packed, f"holds 2 images (x{ending}, y{ending})")


@pytest.mark.parametrize("field", ["data file:", "data file:  "])
def test_nrrd_with_an_empty_name_of_its_data_file_names_no_data_files(tmp_path: Path, field: str) -> None:
    path = tmp_path / "x.nhdr"
    path.write_bytes(nrrd_bytes(lambda header: header + f"{field}\n".encode(), data=b""))
    refused(lambda: read_scan(path), path, "names no data files")


def test_nrrd_with_an_empty_space_origin_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd_bytes(lambda header: re.sub(b"space origin: .*", b"space origin:", header)))
    refused(lambda: read_scan(path), path, "has a damaged space origin")


def test_cut_data_file_whose_numbers_are_counted_from_its_end_is_refused_as_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.nhdr"
    path.write_bytes(nrrd_bytes(lambda header: header + b"byte skip: -1\ndata file: x.raw\n", data=b""))
    (tmp_path / "x.raw").write_bytes(b"skipped" + RAW)
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    (tmp_path / "x.raw").write_bytes(RAW[:-100])
    refused(lambda: read_scan(path), path, "ends too early: its data file x.raw holds 1880 of 1980 bytes")


@pytest.mark.parametrize("lacking", [2, 1000])
def test_nrrd_header_is_not_read_as_voxels_when_they_are_counted_from_the_end(tmp_path: Path, lacking: int) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd_bytes(lambda header: header + b"byte skip: -1\n")[:-lacking])
    refused(lambda: read_scan(path), path, "ends too early")


@pytest.mark.parametrize("before", [b"\n", b" "], ids=["empty line", "blank"])
def test_truncated_vtk_image_is_refused_if_its_lookup_table_follows_a_blank(tmp_path: Path, before: bytes) -> None:
    path = write_scan(tmp_path / "x.vtk")
    whole = path.read_bytes().replace(b"LOOKUP_TABLE", before + b"LOOKUP_TABLE")
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    path.write_bytes(whole[:-2])
    refused(lambda: read_scan(path), path, "ends too early")


def test_vtk_image_without_the_line_point_data_is_read_as_by_itk(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.vtk")
    path.write_bytes(path.read_bytes().replace(b"POINT_DATA 990\n", b""))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), VOXELS.transpose(2, 1, 0))


def test_vtk_image_without_the_type_of_its_numbers_is_refused(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.vtk")
    path.write_bytes(path.read_bytes().replace(b"SCALARS scalars short 1", b"SCALARS scalars"))
    refused(lambda: read_scan(path), path, "has a damaged header")
