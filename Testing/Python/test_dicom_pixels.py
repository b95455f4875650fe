"""DICOM pixels are decompressed, inverted and rescaled; unused bits are ignored, and unusable pixels refused."""

import struct
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.errors import MemoryShortage
from dcamt.io import dicom_pixels
from dcamt.io.readers import read_scan
from dcamt_testing.dicom_positions import (
    SIZE,
    STEP,
    assert_slices_in_place,
    edit_dicom,
    without_preamble,
    write_frames,
    write_slice,
    write_slices,
)
from dcamt_testing.dicom_series import write_enhanced_mr
from dcamt_testing.scan_files import refused
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

SYNTAXES = {
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
    "JPEG": JPEGLosslessSV1,
    "deflated": DeflatedExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
}
COMPRESSORS = ("RLE", "JPEG-LS", "JPEG 2000", "JPEG")


def transcode(path: Path, syntax: str) -> None:
    with edit_dicom(path) as data:
        if syntax in ("RLE", "JPEG-LS"):
            data.compress(SYNTAXES[syntax], generate_instance_uid=False)
        elif syntax in ("JPEG 2000", "JPEG"):
            compress_with_gdcm(data, path.with_suffix(".packed.dcm"), syntax)
        data.file_meta.TransferSyntaxUID = SYNTAXES[syntax]


def compress_with_gdcm(data: Any, packed: Path, compressor: str) -> None:
    """Compress the pixels of a DICOM object with GDCM, through the temporary file `packed`."""
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(packed))
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor.replace(" ", ""))
    writer.Execute(sitk.GetImageFromArray(data.pixel_array.reshape(-1, data.Rows, data.Columns)))
    written = pydicom.dcmread(packed)
    packed.unlink()
    assert written.file_meta.TransferSyntaxUID == SYNTAXES[compressor]
    data.PixelData = written.PixelData
    data["PixelData"].is_undefined_length = True
    data.BitsStored, data.HighBit, data.BitsAllocated = written.BitsStored, written.HighBit, written.BitsAllocated


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    voxels = np.random.default_rng(0).integers(0, 4000, (16, 16, 6)).astype(np.uint16)
    return write_enhanced_mr(tmp_path / "frames.dcm", voxels, np.diag([2.0, 2, 2, 1]), list(range(6)))


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("slope", [1, 2])
def test_slices_in_any_lossless_transfer_syntax_are_read(tmp_path: Path, syntax: str, slope: int) -> None:
    for path in write_slices(tmp_path / "series", 8, RescaleSlope=slope, RescaleIntercept=0):
        transcode(path, syntax)
    scan = read_scan(tmp_path / "series")
    z = scan.grid.affine[2, 3] + scan.grid.affine[2, 2] * np.arange(8)
    np.testing.assert_allclose(scan.voxels[0, 3, 3], slope * (100 + 10 * z / STEP))
    assert scan.voxels.shape == (1, SIZE, SIZE, 8)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 on this system")
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_compressed_slices_are_read_from_a_path_that_is_not_utf8(tmp_path: Path, compressor: str) -> None:
    for path in write_slices(tmp_path / "series", 8):
        transcode(path, compressor)
    expected = read_scan(tmp_path / "series").voxels
    folder = (tmp_path / "series").rename(tmp_path / "M\udcfcller")
    np.testing.assert_array_equal(read_scan(folder).voxels, expected)


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize(
    ("groups", "slopes"), [("SharedFunctionalGroupsSequence", [3]), ("PerFrameFunctionalGroupsSequence", range(2, 8))]
)
def test_compressed_frames_are_rescaled(frames: Path, compressor: str, groups: str, slopes: Sequence[int]) -> None:
    voxels = read_scan(frames).voxels[0]
    with edit_dicom(frames) as data:
        for item, slope in zip(data[groups], slopes, strict=True):
            scaling = pydicom.Dataset()
            scaling.RescaleSlope, scaling.RescaleIntercept, scaling.RescaleType = slope, -5, "US"
            item.PixelValueTransformationSequence = [scaling]
    plain = read_scan(frames)
    transcode(frames, compressor)
    scan = read_scan(frames)
    np.testing.assert_array_equal(plain.voxels[0], voxels * np.array(slopes) - 5)
    np.testing.assert_array_equal(scan.voxels, plain.voxels)
    assert scan.voxels.dtype == plain.voxels.dtype


def test_slices_with_a_modality_lut_are_refused(tmp_path: Path) -> None:
    paths = write_slices(tmp_path / "series", 8)
    with edit_dicom(paths[3]) as data:
        table = pydicom.Dataset()
        table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [4, 0, 16], "US", bytes(8)
        data.ModalityLUTSequence = [table]
    refused(lambda: read_scan(tmp_path / "series"), paths[3], "has a modality LUT", "without a modality LUT")


def read_compressed_frames(data: Any) -> list[bytes]:
    return list(generate_frames(data.PixelData, number_of_frames=data.NumberOfFrames))


def test_error_states_how_many_compressed_frames_a_file_holds(frames: Path) -> None:
    transcode(frames, "RLE")
    with edit_dicom(frames) as data:
        data.PixelData = encapsulate(read_compressed_frames(data)[:4])
    refused(lambda: read_scan(frames), frames, "holds 4 of 6 compressed frames", "copy it again")


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_file_with_more_compressed_frames_than_its_header_states_is_refused(frames: Path, compressor: str) -> None:
    transcode(frames, compressor)
    with edit_dicom(frames) as data:
        stored = read_compressed_frames(data)
        data.PixelData = encapsulate([*stored, stored[0]], has_bot=False)
    refused(lambda: read_scan(frames), frames, "holds 7 compressed frames, but its header states 6")


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_compressed_frames_with_an_extended_offset_table_are_read(frames: Path, compressor: str) -> None:
    expected = read_scan(frames).voxels
    transcode(frames, compressor)
    with edit_dicom(frames) as data:
        stored = read_compressed_frames(data)
        data.PixelData, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = encapsulate_extended(stored)
    np.testing.assert_array_equal(read_scan(frames).voxels, expected)


@pytest.mark.parametrize("compressor", COMPRESSORS[1:])
@pytest.mark.parametrize(("rows", "columns"), [(SIZE - 1, SIZE), (SIZE // 2, 2 * SIZE)])
def test_compressed_slices_of_another_size_than_their_headers_state_are_refused(
    tmp_path: Path, compressor: str, rows: int, columns: int
) -> None:
    for path in write_slices(tmp_path, 8):
        transcode(path, compressor)
        with edit_dicom(path) as data:
            data.Rows, data.Columns = rows, columns
    message = f"{SIZE} rows and {SIZE} columns, but its header states {rows} rows and {columns} columns"
    refused(lambda: read_scan(tmp_path), tmp_path / "0.dcm", message, "Export the series again")


@pytest.mark.parametrize("has_bot", [True, False])
def test_frames_that_consist_of_several_fragments_are_read(frames: Path, has_bot: bool) -> None:
    expected = read_scan(frames).voxels
    transcode(frames, "JPEG-LS")
    with edit_dicom(frames) as data:
        data.PixelData = encapsulate(read_compressed_frames(data), fragments_per_frame=2, has_bot=has_bot)
    np.testing.assert_array_equal(read_scan(frames).voxels, expected)


def _write_fragments(folder: Path, compressor: str, split: Callable[[bytes], list[bytes]]) -> None:
    for path in write_slices(folder, 8):
        transcode(path, compressor)
        with edit_dicom(path) as data:
            frame = next(generate_frames(data.PixelData, number_of_frames=1))
            data.PixelData = encapsulate(split(frame), has_bot=False)


def test_padding_in_a_fragment_of_its_own_is_ignored(tmp_path: Path) -> None:
    _write_fragments(tmp_path, "JPEG-LS", lambda frame: [frame, bytes(32)])
    assert_slices_in_place(read_scan(tmp_path), 8)


def test_slices_that_hold_a_jp2_file_in_several_fragments_are_read(tmp_path: Path) -> None:
    def box(name: bytes, content: bytes) -> bytes:
        return struct.pack(">L4s", 8 + len(content), name) + content

    def fragments(frame: bytes) -> list[bytes]:
        header = struct.pack(">LLH4B", SIZE, SIZE, 1, 15, 7, 0, 0)
        color = struct.pack(">3BL", 1, 0, 0, 17)
        file = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
        file += box(b"jp2h", box(b"ihdr", header) + box(b"colr", color)) + box(b"jp2c", frame)
        return [file[:100], file[100:]]

    _write_fragments(tmp_path, "JPEG 2000", fragments)
    assert_slices_in_place(read_scan(tmp_path), 8)


@pytest.mark.parametrize("compressor", COMPRESSORS[1:])
def test_compressed_slice_whose_end_was_replaced_by_zeros_is_refused(tmp_path: Path, compressor: str) -> None:
    """For the missing part of a JPEG image, GDCM would return random numbers."""
    noise = np.random.default_rng(0).integers(0, 1000, (SIZE, SIZE)).astype("<u2").tobytes()
    for path in write_slices(tmp_path / "series", 8, PixelData=noise):
        transcode(path, compressor)
    path = tmp_path / "series" / "3.dcm"
    assert read_scan(path.parent).grid.shape[2] == 8
    with edit_dicom(path) as data:
        frame = next(generate_frames(data.PixelData, number_of_frames=1))
        half = len(frame) // 2
        data.PixelData = encapsulate([frame[:half] + bytes(len(frame) - half)])
    refused(lambda: read_scan(path.parent), path, "its compressed pixels end too early", "copy it again")


def test_uncompressed_pixels_under_a_compressed_transfer_syntax_are_read(frames: Path) -> None:
    expected, written = read_scan(frames).voxels, frames.read_bytes()
    frames.write_bytes(written.replace(f"{ExplicitVRLittleEndian}\0".encode(), f"{RLELossless}\0".encode()))
    np.testing.assert_array_equal(read_scan(frames).voxels, expected)


def test_video_is_refused_as_unreadable_not_as_incomplete(frames: Path) -> None:
    with edit_dicom(frames) as data:
        data.file_meta.TransferSyntaxUID = MPEG2MPML
        data.PixelData = encapsulate([bytes(400)])
        data["PixelData"].is_undefined_length = True
    refused(lambda: read_scan(frames), frames, "cannot be read as a DICOM image")


@pytest.mark.parametrize(("slope", "intercept"), [("0", "5"), ("nan", "5"), ("1", "inf"), ("1e400", "0")])
def test_slice_with_an_impossible_rescaling_is_refused(tmp_path: Path, slope: str, intercept: str) -> None:
    write_slices(tmp_path, 8)
    with edit_dicom(tmp_path / "4.dcm") as data:
        for tag, text in ((0x00281053, slope), (0x00281052, intercept)):
            data[tag] = pydicom.DataElement(tag, "LO", text)  # as "DS", pydicom would not write these values
    refused(lambda: read_scan(tmp_path), tmp_path, "4.dcm (damaged header)")


def test_slices_with_twice_the_pixels_that_their_headers_state_are_refused(tmp_path: Path) -> None:
    write_slices(tmp_path, 8, BitsAllocated=8, BitsStored=8, HighBit=7)  # The pixels have 16 bits.
    refused(lambda: read_scan(tmp_path), tmp_path, "0.dcm (more pixels than its header states)")


def test_slices_whose_decompressed_sizes_differ_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_slices(tmp_path, 8)

    def pixels(file: Path) -> np.ndarray:
        return np.zeros((1, 4, 5 if file.name == "4.dcm" else 4), np.int16)

    monkeypatch.setattr(dicom_pixels, "_pixels", pixels)
    refused(lambda: read_scan(tmp_path), tmp_path, "shape")


def test_lack_of_memory_for_pixels_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lack_memory(file: Path) -> np.ndarray:
        raise MemoryError

    write_slices(tmp_path / "series", 8)
    monkeypatch.setattr(dicom_pixels, "_pixels", lack_memory)
    with pytest.raises(MemoryShortage, match="not enough memory"):
        read_scan(tmp_path / "series")


@pytest.mark.parametrize(("stored", "signed"), [(16, 0), (12, 0), (16, 1)])
def test_inverted_intensities_equal_the_result_of_gdcm(tmp_path: Path, stored: int, signed: int) -> None:
    """MONOCHROME1 stores bright pixels as low values."""
    bits = {"BitsStored": stored, "HighBit": stored - 1, "PixelRepresentation": signed}
    rescaling = {"RescaleSlope": 2, "RescaleIntercept": -7}
    write_slices(tmp_path, 8, PhotometricInterpretation="MONOCHROME1", **bits, **rescaling)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    np.testing.assert_array_equal(
        read_scan(tmp_path).voxels[0], sitk.GetArrayFromImage(reader.Execute()).transpose(2, 1, 0)
    )


@pytest.mark.parametrize(
    ("slope", "intercept", "kind"),
    [
        (1, -7, np.int16),
        (1, -(2**15) - 100, np.int16),  # The lowest stored value, 100, becomes -(2**15), the lowest int16.
        (1, -(2**15) - 101, np.int32),
        (1000, 0, np.int32),
        (10**8, 0, np.float32),
        (0.5, 0, np.float32),
    ],
    ids=str,
)
def test_type_fits_the_rescaled_intensities(tmp_path: Path, slope: float, intercept: int, kind: type) -> None:
    write_slices(tmp_path, 8, RescaleSlope=slope, RescaleIntercept=intercept)
    scan = read_scan(tmp_path)
    z = scan.grid.affine[2, 3] + scan.grid.affine[2, 2] * np.arange(8)
    assert scan.voxels.dtype == kind
    np.testing.assert_allclose(scan.voxels[0, 3, 3], slope * (100.0 + 10 * z / STEP) + intercept, rtol=1e-6)


def test_bits_above_the_stored_bits_are_ignored(tmp_path: Path) -> None:
    for path in write_slices(tmp_path, 8, BitsStored=12, HighBit=11):
        with edit_dicom(path) as data:
            # The highest bit holds an overlay.
            data.PixelData = (np.frombuffer(data.PixelData, "<u2") | 0x8000).tobytes()
    assert_slices_in_place(read_scan(tmp_path), 8)


@pytest.mark.parametrize(
    ("first_group", "start"),
    [
        (2, b"\x02\x00\x00\x00"),  # length of the file meta information
        (8, b"\x08\x00\x16\x00"),  # SOP class UID
    ],
)
def test_slices_without_preamble_are_recognised_by_their_first_element(
    tmp_path: Path, first_group: int, start: bytes
) -> None:
    for path in write_slices(tmp_path, 8):
        path.write_bytes(without_preamble(path, first_group))
        assert path.read_bytes()[:4] == start
    assert_slices_in_place(read_scan(tmp_path), 8)


def test_slices_that_pydicom_writes_without_preamble_are_read(tmp_path: Path) -> None:
    for path in write_slices(tmp_path / "written", 8):
        data = pydicom.dcmread(path)
        data.preamble = None
        del data.file_meta.FileMetaInformationGroupLength, data.file_meta.FileMetaInformationVersion
        data.save_as(tmp_path / path.stem)
        assert (tmp_path / path.stem).read_bytes()[:4] == b"\x02\x00\x02\x00"  # media storage SOP class UID
        path.unlink()
    assert_slices_in_place(read_scan(tmp_path), 8)


@pytest.mark.parametrize("name", ["frames", "frames.dcm", "frames.MR"])
def test_multi_frame_file_without_preamble_is_read(tmp_path: Path, name: str) -> None:
    path = write_frames(tmp_path / name, range(8))
    path.write_bytes(without_preamble(path, 2))
    assert_slices_in_place(read_scan(path), 8)


@pytest.mark.parametrize(("first_group", "name"), [(2, "IM{}"), (2, "{}.MR"), (8, "IM{}"), (8, "1.2.{}")])
@pytest.mark.parametrize("others", [("x.tif",), ("x.vtk", "y.gipl")])
def test_slices_without_preamble_in_a_zip_are_read_although_other_images_lie_beside_them(
    tmp_path: Path, first_group: int, name: str, others: tuple[str, ...]
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for k in range(8):
            path = write_slice(tmp_path / f"{k}.dcm", k)
            archive.writestr(name.format(k), without_preamble(path, first_group))
        for other in others:
            sitk.WriteImage(sitk.Image(9, 10, 11, sitk.sitkInt16), str(tmp_path / other))
            archive.write(tmp_path / other, other)
    assert_slices_in_place(read_scan(tmp_path / "x.zip"), 8)


def test_rle_slice_with_a_damaged_run_is_refused(tmp_path: Path) -> None:
    """pydicom decompresses more pixels than the image has, and only warns."""
    for path in write_slices(tmp_path, 4, PixelData=np.repeat(np.arange(SIZE, dtype="<u2"), SIZE).tobytes()):
        transcode(path, "RLE")
    read_scan(tmp_path)
    whole = (tmp_path / "2.dcm").read_bytes()
    run = bytes([257 - SIZE, 5])  # a run of SIZE pixels of the value 5
    assert whole.count(run) == 1
    (tmp_path / "2.dcm").write_bytes(whole.replace(run, bytes([257 - 100, 5])))
    refused(lambda: read_scan(tmp_path), tmp_path / "2.dcm", "RLE Lossless", "cannot be decompressed", "copy it again")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("row", [0, 3, 15])
def test_rle_frame_with_surplus_pixels_is_refused(tmp_path: Path, bits: int, row: int) -> None:
    voxels = np.repeat(np.arange(SIZE, dtype=f"<u{bits // 8}"), SIZE)
    attributes = {"BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1, "PixelData": voxels.tobytes()}
    for path in write_slices(tmp_path, 4, **attributes):
        transcode(path, "RLE")
    read_scan(tmp_path)
    whole = (tmp_path / "2.dcm").read_bytes()
    run = bytes([257 - SIZE, row])
    at = whole.rindex(run) if row == 0 else whole.index(run)
    (tmp_path / "2.dcm").write_bytes(whole[:at] + bytes([257 - 3 * SIZE]) + whole[at + 1 :])
    refused(lambda: read_scan(tmp_path), tmp_path / "2.dcm", "RLE Lossless", "cannot be decompressed", "copy it again")


def test_rle_frames_padded_with_zeros_are_read(tmp_path: Path) -> None:
    for path in write_slices(tmp_path, 8):
        transcode(path, "RLE")
        with edit_dicom(path) as data:
            (frame,) = generate_frames(data.PixelData, number_of_frames=1)
            data.PixelData = encapsulate([frame + bytes(6)])
    assert_slices_in_place(read_scan(tmp_path), 8)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("signed", [0, 1])
def test_bits_below_the_stored_bits_are_ignored(tmp_path: Path, compressed: bool, signed: int) -> None:
    for path in write_slices(tmp_path, 8, add=1000, BitsStored=12, HighBit=15, PixelRepresentation=signed):
        with edit_dicom(path) as data:
            data.PixelData = (np.frombuffer(data.PixelData, "<u2") << 4 | 5).tobytes()
        if compressed:
            transcode(path, "RLE")
    assert_slices_in_place(read_scan(tmp_path), 8, 1000)


@pytest.mark.parametrize("really_implicit", [True, False])
def test_slices_are_read_although_their_transfer_syntax_names_the_wrong_vr_encoding(
    tmp_path: Path, really_implicit: bool
) -> None:
    stated, written = ExplicitVRLittleEndian, ImplicitVRLittleEndian
    if not really_implicit:
        stated, written = written, stated
    for path in write_slices(tmp_path, 8):
        with edit_dicom(path) as data:
            data.file_meta.TransferSyntaxUID = written
        header, body = pydicom.dcmread(path).file_meta, without_preamble(path, 8)
        header.TransferSyntaxUID = stated
        with path.open("wb") as file:
            file.write(bytes(128) + b"DICM")
            write_file_meta_info(file, header)
            file.write(body)
    assert_slices_in_place(read_scan(tmp_path), 8)
    (tmp_path / "7.dcm").write_bytes((tmp_path / "7.dcm").read_bytes()[:-2])
    refused(lambda: read_scan(tmp_path), tmp_path, "7.dcm (cut)")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("high", [0, 7, 16, None])
def test_lowest_bits_are_read_if_the_stated_high_bit_is_impossible(
    tmp_path: Path, compressed: bool, high: int | None
) -> None:
    for path in write_slices(tmp_path, 8, add=1000, BitsStored=12, HighBit=high):
        if compressed:
            transcode(path, "RLE")
    assert_slices_in_place(read_scan(tmp_path), 8, 1000)
