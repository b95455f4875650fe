"""Damaged and truncated files are refused; the message names the file and the fault.

A scan with slices of zeros is read with a note.
"""

from __future__ import annotations

import errno
import gzip
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.cases.folders import find_cases
from dcamt.geometry import Grid
from dcamt.io.blank_slices import blank_slices_note
from dcamt.io.readers import read_header, read_labelmap, read_scan
from dcamt.io.stored_image import Gunzip
from dcamt_testing.scan_files import (
    SHAPE,
    VOXELS,
    affine_from_sitk,
    labels,
    orthogonal_matrix,
    refused,
    save_nifti,
    scan,
    truncate,
    write_scan,
)
from scipy import ndimage


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


def _state_fewer_slices(header: Path) -> None:
    """Change a header so that it states 6 of the file's 11 slices."""
    content = header.read_bytes()
    is_gzip = content.startswith(b"\x1f\x8b")
    content = gzip.decompress(content) if is_gzip else content
    for stated, changed in {
        b"DimSize = 9 10 11": b"DimSize = 9 10 6",
        b"sizes: 9 10 11": b"sizes: 9 10 6",
        struct.pack("<4h", 3, 9, 10, 11): struct.pack("<4h", 3, 9, 10, 6),  # NIfTI
        struct.pack(">3H", 9, 10, 11): struct.pack(">3H", 9, 10, 6),  # GIPL
        struct.pack("<3i", 9, 10, 11): struct.pack("<3i", 9, 10, 6),  # MRC
    }.items():
        content = content.replace(stated, changed, 1)
    header.write_bytes(gzip.compress(content) if is_gzip else content)


def _append(file: Path, surplus: bytes) -> None:
    content = file.read_bytes()
    is_gzip = content.startswith(b"\x1f\x8b")
    file.write_bytes(gzip.compress(gzip.decompress(content) + surplus) if is_gzip else content + surplus)


@pytest.mark.parametrize(
    ("header", "data", "compressed"),
    [(name, name, False) for name in ("x.nii", "x.nii.gz", "x.mha", "x.nrrd", "x.gipl", "x.gipl.gz", "x.mrc")]
    + [("x.mha", "", True), ("x.nrrd", "", True), ("x.hdr", "x.img", False), ("x.mhd", "x.raw", False)]
    + [("x.mhd", "", True), ("x.nhdr", "x.raw", False), ("x.nhdr", "x.raw.gz", True)],
)
def test_file_with_a_slice_more_than_its_header_states_is_refused(
    tmp_path: Path, header: str, data: str, compressed: bool
) -> None:
    path = write_scan(tmp_path / header, compressed or header.endswith(".gz"))
    slice_bytes = VOXELS[:, :, 0].nbytes
    if data:
        _append(tmp_path / data, bytes(slice_bytes - 1))
        np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
        _append(tmp_path / data, b"\1")
        refused(
            lambda: read_scan(path),
            path,
            "states 1980 bytes of voxels in its header, but",
            f"holds {1980 + slice_bytes}",
        )
        path = write_scan(tmp_path / header, compressed or header.endswith(".gz"))
    _state_fewer_slices(path)
    refused(lambda: read_scan(path), path, "states 1080 bytes of voxels in its header, but", "holds 1980")


@pytest.mark.parametrize("header", ["x.nii", "x.nii.gz", "x.mha", "x.nrrd", "x.gipl", "x.gipl.gz", "x.mrc"])
def test_zeros_that_fill_a_block_may_be_longer_than_a_slice(tmp_path: Path, header: str) -> None:
    path = write_scan(tmp_path / header, header.endswith(".gz"))
    _append(path, bytes((1 << 16) - 1))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)
    _append(path, b"\0")
    refused(lambda: read_scan(path), path, "states 1980 bytes of voxels in its header, but")


@pytest.mark.parametrize(("header", "field"), [("x.mhd", b"HeaderSize = 180\n"), ("x.nhdr", b"byte skip: 180\n")])
def test_header_may_choose_slices_of_a_larger_data_file(tmp_path: Path, header: str, field: bytes) -> None:
    path = write_scan(tmp_path / header)
    _state_fewer_slices(path)
    path.write_bytes(path.read_bytes().replace(b"DimSize", field + b"DimSize").replace(b"sizes", field + b"sizes"))
    np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS[:, :, 1:7])


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


@pytest.mark.parametrize("length", [2, 20, 60])
def test_truncated_or_damaged_nifti_header_is_not_taken_for_an_unknown_format(tmp_path: Path, length: int) -> None:
    path = write_scan(tmp_path / "x.nii.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    refused(lambda: read_scan(path), path, "ends too early")
    path.write_bytes(whole[:3] + b"\xff" + whole[4:])
    refused(lambda: read_scan(path), path, "damaged compressed data")


def test_mri_norm2_h5_is_read_as_scan_and_label(tmp_path: Path) -> None:
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


def test_benchmark_file_whose_scan_was_not_written_completely_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "mri_norm2.h5"
    i, j, k = scan().shape
    with h5py.File(path, "w") as file:
        for name, voxels in (("image", scan()), ("label", labels())):
            array = file.create_dataset(name, (i, j, k), voxels.dtype, chunks=(i, j, 1))
            array[:, :, : k - 2] = voxels[:, :, : k - 2]
    refused(lambda: read_scan(path), path, f"{k - 2} of {k} parts of its array were written")
    label = read_labelmap(path)
    assert not label.voxels[:, :, k - 2 :].any()
    assert (
        f"The file holds only {k - 2} of the label's {k} parts. The missing parts count as background." in label.notes
    )


def test_benchmark_file_that_defines_a_fill_value_is_read_although_parts_are_unwritten(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "mri_norm2.h5"
    i, j, k = scan().shape
    with h5py.File(path, "w") as file:
        array = file.create_dataset("image", (i, j, k), "f4", chunks=(i, j, 1), fillvalue=-1)
        array[:, :, : k - 2] = scan()[:, :, : k - 2]
    assert (read_scan(path).voxels[0, :, :, k - 2 :] == -1).all()


@pytest.mark.parametrize(
    ("content", "kind", "remedy"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of Git LFS", "git lfs pull"),
        (b"/annex/objects/MD5E-s9--0.nii.gz\n", "a pointer of git-annex", "git annex get"),
        (b"../.git/annex/objects/7/9/MD5E-s9--0.nii.gz", "a pointer of git-annex", "git annex get"),
        (b"<!DOCTYPE html>\n<html>404</html>", "a web page", "Download the scan again"),
        (b"\n<HTML><body></body>", "a web page", "Download the scan again"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html></html>", "a web page", "Download the scan again"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html>\n<html></html>', "a web page", "Download the scan again"),
        (b"<!-- a -> b -->\n<!---->\n<head></head>", "a web page", "Download the scan again"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "a web page", "Download the scan again"),
        (b'<?xml version="1.0"?>\n<d:error xmlns:d="DAV:"></d:error>', "a web page", "Download the scan again"),
        (b'{"message":"Not Found"}', "a JSON file", "Choose the scan, or download it again"),
        (b'\xef\xbb\xbf{\n  "error": {"code": 404}\n}', "a JSON file", "Choose the scan, or download it again"),
    ],
)
@pytest.mark.parametrize("name", ["x.nii.gz", "x.nrrd", "x.mha", "x.zip", "x.dcm", "x.hdr", "x"])
def test_error_names_what_a_file_holds_instead_of_a_scan(
    tmp_path: Path, name: str, content: bytes, kind: str, remedy: str
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(lambda: read_scan(tmp_path / name), tmp_path / name, f"is {kind}, not a scan", remedy)


def test_other_xml_file_is_not_called_a_web_page(tmp_path: Path) -> None:
    path = tmp_path / "x.vti"
    path.write_bytes(b'<?xml version="1.0"?>\n<!-- error -->\n<VTKFile type="ImageData"></VTKFile>')
    assert "web page" not in refused(lambda: read_scan(path), path)


def test_link_to_a_missing_file_is_reported(tmp_path: Path) -> None:
    link = tmp_path / "x.nii.gz"
    try:
        link.symlink_to(tmp_path / "gone.nii.gz")
    except OSError:
        pytest.skip("the system allows no links")
    refused(lambda: read_scan(link), link, "is a link to a missing file", "gone.nii.gz", "Copy the file itself")
    (tmp_path / "gone.nii.gz").symlink_to(link)
    refused(lambda: read_scan(link), link, "is a link that leads to itself")


def test_file_in_a_folder_without_permission_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, stat = tmp_path / "x.nii.gz", os.stat

    def refuse(path: Any, **options: Any) -> os.stat_result:
        if path == scan:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    refused(lambda: read_scan(scan), scan, "cannot be read (no permission)")


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


@pytest.mark.parametrize(
    ("offset", "value", "what"),
    [(6, b"\1\0", "is protected by a password"), (8, b"\x09\0", "is compressed by a method that cannot be read")],
    ids=["encrypted", "Deflate64"],
)
def test_zip_file_that_cannot_be_unpacked_is_refused_with_the_reason(
    tmp_path: Path, offset: int, value: bytes, what: str
) -> None:
    """PKWARE's APPNOTE.TXT (4.3.7 and 4.3.12) states the offsets of the flags and of the compression method."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(write_scan(tmp_path / "x.nrrd"), "x.nrrd")
    data = bytearray(path.read_bytes())
    for start in (data.index(b"PK\3\4"), data.index(b"PK\1\2") + 2):
        data[start + offset : start + offset + 2] = value
    path.write_bytes(data)
    message = refused(lambda: read_scan(path), path, what)
    assert message == f"{path}: {what}. Extract the archive, and choose the scan."


def test_zip_file_too_large_to_extract_is_refused_with_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.raw", bytes(11 << 20))
    monkeypatch.setattr("dcamt.io.readers._MAXIMUM_UNZIPPED", 10 << 20)
    refused(lambda: read_scan(path), path, "holds 0.011 GiB, too much to extract")


@pytest.mark.parametrize(
    ("ending", "data"),
    [(".nii", ".nii"), (".nrrd", ".nrrd"), (".mhd", ".raw"), (".hdr", ".img"), (".gipl", ".gipl"), (".mrc", ".mrc")],
)
@pytest.mark.parametrize(("start", "stop"), [(0.5, 1.0), (0.4, 0.6), (0.95, 1.0)])
def test_slices_that_were_never_written_cause_a_note(
    tmp_path: Path, ending: str, data: str, start: float, stop: float
) -> None:
    path = write_scan(tmp_path / f"x{ending}")
    notes = read_scan(path).notes
    file = tmp_path / f"x{data}"
    whole = file.read_bytes()
    first, last = (int(part * len(whole)) for part in (start, stop))
    file.write_bytes(whole[:first] + bytes(last - first) + whole[last:])
    (note,) = set(read_scan(path).notes) - set(notes)
    assert "the file is incomplete" in note


@pytest.mark.parametrize(
    "lost",
    [
        {7: (0.7, 1)},
        {7: (0, 0.2)},
        {7: (0.4, 0.55)},
        {7: (0.5, 1), 9: (0, 1)},
        {4: (0.7, 1), 9: (0, 1)},
        {4: (0.7, 1), 5: (0.4, 1), 6: (0, 1), 7: (0.1, 1)},
        {4: (0.7, 1), 10: (0, 1), 11: (0, 1)},
        {0: (0.7, 1), 9: (0, 1)},
    ],
    ids=str,
)
@pytest.mark.parametrize("noise", [0.0, 0.1], ids=["no other zeros", "zeros in the noise"])
def test_slices_that_were_written_only_in_part_cause_a_note(lost: dict[int, tuple[float, float]], noise: float) -> None:
    """Each slice k in `lost` has zeros between two places, given as fractions of its data in the file."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(1, 300, (40, 30, 12))
    voxels[rng.random(voxels.shape) < noise] = 0
    assert blank_slices_note(voxels[np.newaxis]) == ()
    for k, (start, stop) in lost.items():
        data = voxels[:, :, k].ravel(order="F")
        data[round(start * data.size) : round(stop * data.size)] = 0
        voxels[:, :, k] = data.reshape(40, 30, order="F")
    (note,) = blank_slices_note(voxels[np.newaxis])
    named = sorted(set(lost) - {0})  # The zeros of the first slice may be padding.
    which = f"{len(named)} slices, the first is slice {named[0] + 1}" if len(named) > 1 else f"slice {named[0] + 1}"
    assert note.startswith(f"Slices with many zeros: {which}. The scan has 12 slices.")


@pytest.mark.parametrize("thickness", [1, 4])
@pytest.mark.parametrize("kind", ["oblique", "cylinder", "tilted cylinder", "ball", "body"])
def test_padding_of_resampled_and_masked_scans_causes_no_note(kind: str, thickness: int) -> None:
    rng = np.random.default_rng(0)
    voxels = rng.integers(1, 300, (48, 40, 60))
    x, y, z = (2 * (index + 0.5) / size - 1 for index, size in zip(np.indices(voxels.shape), voxels.shape, strict=True))
    inside = {
        "cylinder": x**2 + y**2 < 1,
        "tilted cylinder": (x + 0.4 * z) ** 2 + (y - 0.3 * z) ** 2 < 1,
        "ball": x**2 + y**2 + z**2 < 1,
        "body": y < 0.8 + 0.3 * np.cos(5 * z) * np.cos(2 * x),
    }
    for seed in range(10):
        turn = orthogonal_matrix(seed)
        if kind == "oblique":
            centre = np.array(voxels.shape) / 2
            padded = ndimage.affine_transform(voxels, turn, centre - turn @ centre, order=1)
        else:
            padded = voxels * inside[kind]
        assert (padded == 0).any()
        assert blank_slices_note(padded[np.newaxis, :, :, seed % thickness :: thickness]) == ()


@pytest.mark.parametrize(
    "background",
    [
        np.s_[:, :, [0, 1, -1]],  # padding at both ends
        np.s_[:, :, :3],  # padding in the first three slices
        np.s_[6:, :, :],  # a masked background
    ],
)
def test_zeros_in_end_slices_or_in_half_of_each_slice_cause_no_note(background: tuple[slice, ...]) -> None:
    voxels = np.full((2, 12, 12, 12), 7)
    voxels[1][background] = 0
    assert blank_slices_note(voxels) == ()
