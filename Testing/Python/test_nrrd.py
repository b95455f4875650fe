"""NRRD files are read as SimpleITK reads them; damaged files and unusable headers are refused."""

from __future__ import annotations

import bz2
import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.geometry import Grid
from dcamt.io.readers import read_scan
from dcamt_testing.scan_files import (
    ORTHOGONAL,
    RAW,
    SHAPE,
    VOXELS,
    affine_from_sitk,
    assert_sitk_agrees,
    assert_written_scan,
    corner_distance_mm,
    refused,
    save_nrrd,
    scan,
    traced_peak,
    truncate,
    write_scan,
)


def nrrd_bytes(change: Callable[[bytes], bytes], *, encoding: str = "raw", data: bytes | None = None) -> bytes:
    """Return an NRRD file; `change` edits its header, and `data` replaces its voxels."""
    header = (
        b"NRRD0004\n# a comment\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 9 10 11\n"
        b"space directions: (0.625,0,0) (0,0.625,0) (0,0,2.5)\nkinds: domain domain domain\nendian: little\n"
        b"encoding: " + encoding.encode() + b"\nspace origin: (71.3,-40.9,12.5)\n"
    )
    return change(header) + b"\n" + (VOXELS.tobytes(order="F") if data is None else data)


HEX = b"\n".join(RAW.hex().encode()[n : n + 70] for n in range(0, 2 * len(RAW), 70))
TEXT = b"".join(b"%d\n" % voxel for voxel in VOXELS.ravel(order="F"))


NRRDS = {
    "plain": nrrd_bytes(lambda h: h),
    "trailing bytes": nrrd_bytes(lambda h: h) + b"left over",
    "trailing bytes after gzip": nrrd_bytes(lambda h: h, encoding="gzip", data=gzip.compress(RAW) + b"left over"),
    "hex": nrrd_bytes(lambda h: h, encoding="hex", data=HEX),
    "ascii": nrrd_bytes(lambda h: h, encoding="ascii", data=TEXT),
    "keywords in capitals": nrrd_bytes(lambda h: h.replace(b"type:", b"Type:").replace(b"sizes:", b"SIZES:")),
    "values in capitals": nrrd_bytes(lambda h: h.replace(b"short", b"Short").replace(b"little", b"LITTLE")),
    "blanks in vectors": nrrd_bytes(lambda h: h.replace(b"(0.625,0,0)", b"( 0.625, 0 , 0 )")),
    "many blanks": nrrd_bytes(lambda h: h.replace(b"sizes: 9 10 11", b"sizes:   9  10 11  ")),
    "windows line ends": nrrd_bytes(lambda h: h.replace(b"\n", b"\r\n")),
    "byte skip": nrrd_bytes(lambda h: h + b"byte skip: 7\n", data=b"skipped" + RAW),
    "byte skip from the end": nrrd_bytes(lambda h: h + b"byteskip: -1\n", data=b"skipped" + RAW),
    "byte skip from the end of gzip data": nrrd_bytes(
        lambda h: h + b"byte skip: -1\n", encoding="gzip", data=gzip.compress(b"skipped" + RAW)
    ),
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


def test_bzip2_data_of_several_streams_is_read_to_its_end(tmp_path: Path) -> None:
    """Programs that compress on several CPUs, such as pbzip2, write several streams."""
    path, half = tmp_path / "x.nrrd", len(RAW) // 2
    streams = bz2.compress(RAW[:half]) + bz2.compress(RAW[half:])
    path.write_bytes(nrrd_bytes(lambda h: h, encoding="bzip2", data=streams))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    path.write_bytes(nrrd_bytes(lambda h: h, encoding="bzip2", data=streams[:-30]))
    refused(lambda: read_scan(path), path, "ends too early")
    path.write_bytes(nrrd_bytes(lambda h: h, encoding="bzip2", data=streams + b"\n\0"))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)


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
    ("pattern", "message"),
    [
        ("%d_%d.raw 0 10 1", "has a damaged pattern for the names of its data files"),
        ("50%_%d.raw 0 10 1", "has a damaged pattern for the names of its data files"),
        (f"%d.raw 0 {10**30} 1", "has a damaged pattern for the names of its data files"),
        ("%d.raw 0 10 0", "has a damaged field 'data file'"),
    ],
)
def test_nrrd_with_a_damaged_pattern_for_its_data_files_is_refused(tmp_path: Path, pattern: str, message: str) -> None:
    path = tmp_path / "x.nhdr"
    path.write_bytes(nrrd_bytes(lambda header: header + f"data file: {pattern}\n".encode(), data=b""))
    refused(lambda: read_scan(path), path, message)


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


@pytest.mark.parametrize("line", [b"space origin: (9,9,9)", b"Space Origin: (71.3,-40.9,12.5)", b"sizes: 9 10 11"])
def test_nrrd_with_a_repeated_field_is_refused(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd_bytes(lambda header: header + line + b"\n"))
    with pytest.raises(RuntimeError):
        sitk.ReadImage(str(path))
    field = line.decode().partition(":")[0].lower()
    refused(lambda: read_scan(path), path, f"has the field '{field}' twice in its header")


def test_nrrd_with_a_repeated_key_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd_bytes(lambda header: header + b"key:=a\nkey:=b\n"))
    assert_written_scan(path, "")


def test_nrrd_of_four_spatial_axes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nrrd"
    header = (
        b"NRRD0004\ntype: short\ndimension: 4\nsizes: 9 10 11 2\nspacings: 1 1 1 1\nkinds: domain domain domain domain"
    )
    path.write_bytes(header + b"\nendian: little\nencoding: raw\n\n" + 2 * RAW)
    refused(lambda: read_scan(path), path, "is a 4D image", "Extract one three-dimensional volume")


@pytest.mark.parametrize(
    ("sizes", "fields"),
    [
        (b"9 10 11 1", b"spacings: 1 1 2 1"),
        (b"9 10 11 1", b"spacings: 1 1 2 nan\nkinds: domain domain domain domain"),
        (b"9 10 11 1 1", b"spacings: 1 1 2 1 1"),
        (
            b"9 10 11 1",  # as ITK writes a 4D image
            b"space dimension: 4\nspace directions: (1,0,0,0) (0,1,0,0) (0,0,2,0) (0,0,0,1)\nspace origin: (1,2,3,4)",
        ),
        (
            b"9 10 11 1",
            b"space: left-posterior-superior-time\nspace directions: (0,1,0,0) (1,0,0,0) (0,0,2,0) (0,0,0,1)\n"
            b'space units: "mm" "mm" "mm" "s"',
        ),
    ],
)
def test_nrrd_with_further_axes_of_size_1_is_read_as_by_itk(tmp_path: Path, sizes: bytes, fields: bytes) -> None:
    path = tmp_path / "x.nrrd"
    header = b"NRRD0004\ntype: short\ndimension: %d\nsizes: %b\n%b\nendian: little\nencoding: raw\n\n"
    path.write_bytes(header % (len(sizes.split()), sizes, fields) + RAW)
    read, itk = read_scan(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(read.voxels[0], VOXELS)
    axes = itk.GetDimension()
    directions = np.array(itk.GetDirection()).reshape(axes, axes)[:3, :3] * itk.GetSpacing()[:3]
    np.testing.assert_allclose(read.grid.affine[:3, :3], np.diag([-1, -1, 1]) @ directions)
    np.testing.assert_allclose(read.grid.affine[:3, 3], np.array([-1, -1, 1]) * itk.GetOrigin()[:3])


@pytest.mark.parametrize("space", ["right-anterior-superior-time", "RAST", "left-anterior-superior-time", "LAST"])
def test_nrrd_in_a_space_that_slicer_would_mirror_is_refused(tmp_path: Path, space: str) -> None:
    """ITK, and thus 3D Slicer, reads these spaces as left-posterior-superior-time."""
    path = tmp_path / "x.nrrd"
    directions = "space directions: (1,0,0,0) (0,1,0,0) (0,0,2,0) (0,0,0,1)\nspace origin: (1,2,3,0)"
    header = f"NRRD0004\ntype: short\ndimension: 4\nsizes: 9 10 11 1\nspace: {space}\n{directions}\n"
    path.write_bytes(header.encode() + b"endian: little\nencoding: raw\n\n" + RAW)
    assert sitk.ReadImage(str(path)).GetOrigin() == (1, 2, 3, 0)  # LPS
    refused(lambda: read_scan(path), path, f'"{space}" in its header: 3D Slicer would mirror the image. Export it with')


@pytest.mark.parametrize("first", [b"NRRD0004" + b" " * 2000, b"NRRD0004" + b" " * 991 + b"\n"])
def test_nrrd_with_a_too_long_first_line_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    monkeypatch.setattr("dcamt.io.nrrd_header.HEADER_LIMIT", 1000)
    path = tmp_path / "x.nrrd"
    path.write_bytes(first)
    refused(lambda: read_scan(path), path, "has a header of 16 MiB or more")


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
        (b'units: "cm" "cm" "cm"\n', 'has the unit "cm"'),
        (b'space units: "mm" "mm" "mm"\n', ""),
        (b'space units: "" "" ""\n', ""),
    ],
)
def test_nrrd_is_refused_if_it_states_another_unit_than_millimetres(tmp_path: Path, line: bytes, word: str) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd_bytes(lambda header: header + line))
    assert_written_scan(path, *((word, "millimetres") if word else ()))


def test_unit_of_the_time_axis_of_an_nrrd_file_is_ignored(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "x.nrrd")
    header, data = path.read_bytes().split(b"\n\n", 1)
    kept = [line for line in header.split(b"\n") if not line.startswith((b"space", b"dim", b"sizes", b"kinds"))]
    sizes = b"sizes: %d %d %d 1" % SHAPE
    axes = [b"dimension: 4", sizes, b"kinds: domain domain domain time", b"spacings: 1 1 2.5 40"]
    for units, word in ((b'"mm" "mm" "mm" "ms"', ""), (b'"mm" "mm" "cm" "ms"', 'has the unit "cm"')):
        path.write_bytes(b"\n".join([*kept, *axes, b"units: " + units]) + b"\n\n" + data)
        assert_written_scan(path, word)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"spacings: 1 1 1\n", "two spacings of its voxels: 1 x 1 x 1 mm (spacings) and 0.625 x 0.625 x 2.5 mm"),
        (b"spacings: 0.625 0.625 2.625\n", "0.625 x 0.625 x 2.625 mm (spacings) and 0.625 x 0.625 x 2.5 mm"),
        (b"spacings: 0.625 0.625 2.5\n", ""),
        (b"spacings: nan nan nan\n", ""),
        (b"spacings: none none none\n", ""),
        (b"spacings: 0.625, 0.625, 2.5\n", ""),
    ],
)
def test_nrrd_is_refused_only_if_its_spacings_contradict_its_directions(tmp_path: Path, line: bytes, word: str) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd_bytes(lambda header: header + line))
    assert_written_scan(path, word)


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


@pytest.mark.parametrize("field", ["data file:", "data file:  "])
def test_nrrd_with_an_empty_data_file_field_is_refused(tmp_path: Path, field: str) -> None:
    path = tmp_path / "x.nhdr"
    path.write_bytes(nrrd_bytes(lambda header: header + f"{field}\n".encode(), data=b""))
    refused(lambda: read_scan(path), path, "names no data files")


@pytest.mark.parametrize("encoding", ["raw", "ascii"])
@pytest.mark.parametrize(
    "line", ["byte skip:", "byteskip: ", "byte skip: 3x", "line skip:", "line skip: -1", "byte skip: -2"]
)
def test_nrrd_with_a_damaged_skip_is_refused(tmp_path: Path, line: str, encoding: str) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd_bytes(lambda header: header + f"{line}\n".encode(), encoding=encoding))
    name = line.partition(":")[0].replace("byteskip", "byte skip")
    refused(lambda: read_scan(path), path, f"has a damaged field '{name}' in its header")


@pytest.mark.parametrize("encoding", ["ascii", "hex"])
def test_ascii_or_hex_nrrd_with_byte_skip_minus_1_is_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(NRRDS[encoding].replace(b"\nencoding", b"\nbyte skip: -1\nencoding"))
    refused(lambda: read_scan(path), path, "has a damaged field 'byte skip' in its header")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dimension", "three"),
        ("dimension", "3.0"),
        ("sizes", "9 10 x"),
        ("sizes", "9, 10, 11"),
        ("space directions", "(0.625,0,0) (0,x,0) (0,0,2.5)"),
        ("space directions", "(0.625 0 0) (0,0.625,0) (0,0,2.5)"),
        ("space directions", "0.625 0.625 2.5"),
        ("space origin", "(71.3,,12.5)"),
    ],
)
def test_error_contains_the_name_of_the_damaged_nrrd_field(tmp_path: Path, field: str, value: str) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd_bytes(lambda header: re.sub(f"{field}: .*".encode(), f"{field}: {value}".encode(), header)))
    refused(lambda: read_scan(path), path, f"has a damaged field '{field}' in its header")


@pytest.mark.parametrize("word", [b"x", b"1.5", b"nan", b"70000", b"1_0"])
def test_ascii_nrrd_with_an_invalid_voxel_is_refused(tmp_path: Path, word: bytes) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(NRRDS["ascii"].removesuffix(TEXT.split()[-1] + b"\n") + word + b"\n")
    refused(lambda: read_scan(path), path, "some voxels are not numbers of the type that its header states")


def test_nrrd_with_an_empty_space_origin_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd_bytes(lambda header: re.sub(b"space origin: .*", b"space origin:", header)))
    refused(lambda: read_scan(path), path, "has a damaged field 'space origin'")


def test_truncated_data_file_with_byte_skip_minus_1_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nhdr"
    path.write_bytes(nrrd_bytes(lambda header: header + b"byte skip: -1\ndata file: x.raw\n", data=b""))
    (tmp_path / "x.raw").write_bytes(b"skipped" + RAW)
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    (tmp_path / "x.raw").write_bytes(RAW[:-100])
    refused(lambda: read_scan(path), path, "ends too early: its data file x.raw holds 1880 of 1980 bytes")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("lacking", [2, 1000])
def test_nrrd_with_byte_skip_minus_1_is_read_unless_truncated(
    tmp_path: Path, lacking: int, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(pack(nrrd_bytes(lambda header: header + b"byte skip: -1\n", data=b"skipped" + RAW)))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    path.write_bytes(pack(nrrd_bytes(lambda header: header + b"byte skip: -1\n")[:-lacking]))
    refused(lambda: read_scan(path), path, "ends too early")


PADDING = bytes(32 << 20)
BLANKS = b" " * len(PADDING)


def _with_byte_skip_minus_1(encoding: str, data: bytes) -> bytes:
    return nrrd_bytes(lambda header: header + b"byte skip: -1\n", encoding=encoding, data=data)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: gzip.compress(_with_byte_skip_minus_1("raw", PADDING + RAW), 1), id="raw"),
        pytest.param(lambda: _with_byte_skip_minus_1("gzip", gzip.compress(PADDING + RAW, 1)), id="gzip"),
        pytest.param(lambda: _with_byte_skip_minus_1("bzip2", bz2.compress(PADDING + RAW, 1)), id="bzip2"),
        pytest.param(lambda: gzip.compress(NRRDS["hex"] + BLANKS, 1), id="hex"),
        pytest.param(lambda: gzip.compress(NRRDS["ascii"] + BLANKS, 1), id="ascii"),
        pytest.param(lambda: gzip.compress(NRRDS["ascii"] + b" 1" * (len(PADDING) // 2), 1), id="ascii, more numbers"),
    ],
)
def test_memory_to_read_nrrd_does_not_grow_with_bytes_that_are_not_voxels(
    tmp_path: Path, content: Callable[[], bytes]
) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(content())
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    assert traced_peak(lambda: read_scan(path)) < len(PADDING) / 2


@pytest.mark.parametrize("length", [1, 5, 1 << 18])
def test_ascii_nrrd_is_read_with_line_ends_commas_or_tabs_between_its_numbers(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.nrrd"
    numbers = [b"%d" % voxel for voxel in VOXELS.ravel(order="F")]
    text = (b"\n" * length).join(numbers[:10]) + b"," + b",\t".join(numbers[10:]) + b"\n"
    path.write_bytes(nrrd_bytes(lambda header: header, encoding="ascii", data=text))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)


@pytest.mark.parametrize("name", ["x.nrrd", "x.nhdr"])
def test_ascii_nrrd_is_refused_if_its_last_number_may_be_cut(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    field = b"" if name == "x.nrrd" else b"data file: x.txt\n"
    header = nrrd_bytes(lambda h: h + field, encoding="ascii", data=b"")

    def write(text: bytes) -> None:
        path.write_bytes(header if field else header + text)
        (tmp_path / "x.txt").write_bytes(text)

    for end in (b"\n", b","):
        write(TEXT[:-1] + end)
        np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    write(TEXT[:-1])
    refused(lambda: read_scan(path), path, "lacks a line break after the last voxel")


def test_ascii_nrrd_of_one_endless_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd_bytes(lambda header: header, encoding="ascii", data=b"1" * (1 << 20)))
    refused(lambda: read_scan(path), path, "some voxels are not numbers of the type that its header states")


@pytest.mark.parametrize("folder", ["C:\\scans\\", "other/"])
def test_error_points_to_a_file_beside_the_header_if_the_header_names_a_missing_folder(
    tmp_path: Path, folder: str
) -> None:
    (tmp_path / "d.raw").write_bytes(RAW)
    path = tmp_path / "x.nhdr"
    field = f"data file: {folder}d.raw\n".encode()
    path.write_bytes(nrrd_bytes(lambda h: h + field, data=b"").rstrip(b"\n") + b"\n")
    refused(lambda: read_scan(path), path, "d.raw, which is missing", "replace the path in the header by d.raw")


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
def test_nrrd_space_is_converted_to_ras(tmp_path: Path, space: str, signs: tuple[int, int, int]) -> None:
    matrix = ORTHOGONAL["oblique"]
    path = save_nrrd(
        tmp_path / "x.nrrd",
        scan(),
        space=space,
        space_directions=(np.diag(signs) @ matrix[:3, :3]).T,
        space_origin=np.diag(signs) @ matrix[:3, 3],
    )
    assert corner_distance_mm(read_scan(path).grid, Grid(SHAPE, matrix)) <= 1e-9
    assert_sitk_agrees(path, scan(), matrix)


def test_nrrd_channels_along_the_last_axis_are_read(tmp_path: Path) -> None:
    directions = np.vstack([ORTHOGONAL["axial"][:3, :3], np.full(3, np.nan)])
    voxels = np.stack([scan(seed=1), scan(seed=2)], axis=-1)
    kinds = ["domain", "domain", "domain", "vector"]
    path = save_nrrd(tmp_path / "x.nrrd", voxels, space="RAS", space_directions=directions, kinds=kinds)
    np.testing.assert_array_equal(read_scan(path, channels=2).voxels, np.moveaxis(voxels, -1, 0))


def test_nrrd_with_spacings_but_no_directions_has_the_same_grid_as_in_itk(tmp_path: Path) -> None:
    path = save_nrrd(tmp_path / "x.nrrd", scan(), spacings=[0.6, 0.7, 2.5])
    assert corner_distance_mm(read_scan(path).grid, Grid(SHAPE, affine_from_sitk(sitk.ReadImage(str(path))))) <= 1e-9
