"""Test the reading of DICOM segmentations that highdicom writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.errors import InputError
from dcamt.io.readers import read_labelmap, read_scan, read_segments
from dcamt.metrics.pair_reading import fit_pair
from dcamt.volume import fit_labelmap
from dcamt_testing.dicom_positions import SIZE, edit_dicom, remove_preambles, write_slice
from dcamt_testing.dicom_series import OBLIQUE_SHAPE, write_oblique_series
from dcamt_testing.scan_files import refused

hd = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")
codes = pytest.importorskip("pydicom.sr.codedict").codes


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_oblique_series(tmp_path_factory.mktemp("series"))


def organs(slices: tuple[int, ...]) -> np.ndarray:
    """Return labels (I, J, K): two organs in each of the given slices, and 0 in all other slices."""
    voxels = np.zeros(OBLIQUE_SHAPE, np.uint8)
    for k in slices:
        voxels[4 : 8 + k, 3:11, k] = 1
        voxels[13:16, 2 + k : 7 + k, k] = 2
    return voxels


def write_segmentation(
    path: Path, series: Path, labels: np.ndarray, kind: str, omit_empty: bool = True, reverse: bool = False
) -> Path:
    """Write a segmentation of a series.

    Args:
        labels: label values (I, J, K), or masks or fractions of two segments (K, J, I, 2).
    """
    images = sorted((pydicom.dcmread(file) for file in series.iterdir()), key=lambda image: image.InstanceNumber)
    frames = labels.T if labels.ndim == 3 else labels
    step = -1 if reverse else 1
    segments = [
        hd.seg.SegmentDescription(
            number, name, codes.SCT.Organ, codes.SCT.Atrium, hd.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number, name in ((1, "atrium"), (2, "wall"))
    ]
    hd.seg.Segmentation(
        source_images=images[::step],
        pixel_array=np.ascontiguousarray(frames[::step]),
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="maker",
        manufacturer_model_name="model",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=omit_empty,
    ).save_as(path)
    return path


def assert_segments(path: Path, series: Path, labels: np.ndarray, mapping: dict[str, int] | None = None) -> None:
    read = fit_labelmap(read_labelmap(path, mapping), read_scan(series).grid, series)
    np.testing.assert_array_equal(read.voxels, labels)


@pytest.mark.parametrize("slices", [tuple(range(9)), (2, 3, 5, 6), (0, 2, 4, 8), (1, 7), (4,)], ids=str)
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_segments_lie_on_the_voxels_of_the_scan(
    series: Path, tmp_path: Path, kind: str, slices: tuple[int, ...]
) -> None:
    labels = organs(slices)
    stored = labels if kind != "FRACTIONAL" else np.stack([labels.T == 1, labels.T == 2], axis=-1).astype(np.float32)
    for omit_empty, reverse in ((True, False), (True, True), (False, False)):
        path = tmp_path / f"{omit_empty}-{reverse}.dcm"
        assert_segments(write_segmentation(path, series, stored, kind, omit_empty, reverse), series, labels)


@pytest.mark.parametrize("first_group", [2, 8])
def test_segmentation_without_preamble_is_read(series: Path, tmp_path: Path, first_group: int) -> None:
    labels = organs((2, 3, 5))
    path = write_segmentation(tmp_path / "seg", series, labels, "BINARY")
    remove_preambles(tmp_path, first_group)
    assert_segments(path, series, labels)
    assert_segments(tmp_path, series, labels)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_segments_can_be_mapped_by_name_but_not_read_as_a_scan(series: Path, tmp_path: Path, kind: str) -> None:
    labels = organs((2, 3, 5))
    path = write_segmentation(tmp_path / "named.dcm", series, labels, kind)
    assert_segments(path, series, 7 * (labels == 2), {"Wall": 7})
    refused(lambda: read_scan(path), path, "segmentation, not a scan")
    refused(lambda: read_labelmap(path, {"aorta": 1}), path, '"atrium"', '"wall"')


def test_overlapping_voxels_of_two_segments_are_counted(series: Path, tmp_path: Path) -> None:
    masks = np.zeros((*OBLIQUE_SHAPE[::-1], 2), np.uint8)
    masks[2:7, 3:11, 4:14, 0] = 1
    masks[4:9, 5:9, 2:9, 1] = 1
    path = write_segmentation(tmp_path / "overlapping.dcm", series, masks, "BINARY")
    stored = hd.seg.segread(path)
    assert stored.SegmentsOverlap == "YES"
    images = [image[2] for image in stored.get_source_image_uids()]
    atrium, wall = np.moveaxis(stored.get_pixels_by_source_instance(images, assert_missing_frames_are_empty=True), 3, 0)
    (note,) = read_labelmap(path).notes
    expected = (
        f"Segments overlap: {np.count_nonzero(atrium & wall)} of the {atrium.sum()} voxels of"
        f' "atrium" (value 1) are read as another segment instead:'
        f' {np.count_nonzero(atrium & wall)} as "wall" (value 2). '
    )
    assert note.startswith(expected)
    labels = masks[..., 0].T
    assert_segments(path, series, labels, {"atrium": 1})
    assert read_labelmap(path, {"atrium": 1}).notes == ()


def test_fractional_segmentation_with_values_between_0_and_1_is_refused(series: Path, tmp_path: Path) -> None:
    fractions = np.zeros((*OBLIQUE_SHAPE[::-1], 2), np.float32)
    fractions[4, 4:8, 4:8, 0] = 0.5
    path = write_segmentation(tmp_path / "half.dcm", series, fractions, "FRACTIONAL")
    with pytest.raises(InputError, match=r"half\.dcm: holds fractions, not segments"):
        read_labelmap(path)


def assert_refused_after_change(path: Path, change: Callable[[Any], object], message: str) -> None:
    with edit_dicom(path) as data:
        change(data)
    with pytest.raises(InputError, match=rf"{path.name}: {message}"):
        read_labelmap(path)


def move_frame(data: Any, direction: int, mm: float) -> None:
    """Move the second frame along the rows (0), the columns (1) or the normal (2) of the slices."""
    row, column = np.reshape(
        data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)
    )
    position = data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0]
    move = mm * np.array((row, column, np.cross(row, column))[direction], float)
    position.ImagePositionPatient = [float(x) for x in np.array(position.ImagePositionPatient, float) + move]


def turn_frame(data: Any) -> None:
    shared = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    turned = pydicom.Dataset()
    x, y, z, u, v, w = shared[0].ImageOrientationPatient
    turned.ImageOrientationPatient = [u, v, w, x, y, z]
    for number, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        frame.PlaneOrientationSequence = [turned if number == 1 else shared[0]]


def remove_spacing(data: Any) -> None:
    measures = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        if keyword in measures:
            delattr(measures, keyword)
    del data.PerFrameFunctionalGroupsSequence[1:]
    data.NumberOfFrames = 1
    data.PixelData = data.PixelData[: OBLIQUE_SHAPE[0] * OBLIQUE_SHAPE[1] // 8]


def repeat_position(data: Any) -> None:
    first, second = data.PerFrameFunctionalGroupsSequence[:2]
    second.PlanePositionSequence = first.PlanePositionSequence


def remove_position(data: Any) -> None:
    del data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence


def change_spacing_of_a_frame(data: Any) -> None:
    other = pydicom.Dataset()
    other.PixelSpacing = [1.8, 1.5]
    data.PerFrameFunctionalGroupsSequence[1].PixelMeasuresSequence = [other]


def set_shared(data: Any, group: str, keyword: str, values: list[float]) -> None:
    setattr(data.SharedFunctionalGroupsSequence[0][group][0], keyword, values)


def set_segment_of_a_frame(data: Any, number: int) -> None:
    data.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence[0].ReferencedSegmentNumber = number


def remove_segment_identification(data: Any, count: int | None = None) -> None:
    for frame in data.PerFrameFunctionalGroupsSequence[:count]:
        del frame.SegmentIdentificationSequence


def pad_frames_to_bytes(data: Any) -> None:
    packed = [np.packbits(frame.ravel()[:-1], bitorder="little") for frame in data.pixel_array]
    data.Rows, data.Columns = 1, OBLIQUE_SHAPE[0] * OBLIQUE_SHAPE[1] - 1
    data.PixelData = np.concatenate(packed).tobytes()


def set_pixels_of_8_bits(data: Any, *values: int) -> None:
    masks = data.pixel_array
    masks[:, 5] *= values[-1]
    masks[:, :5] *= values[0]
    masks[:, 6:] *= values[0]
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data["PixelData"].VR, data.PixelData = "OB", masks.astype(np.uint8).tobytes()


def keep_compressed_frames(data: Any, number: int) -> None:
    """Store the first `number` frames as RLE; if the segmentation has fewer frames, repeat its first frames."""
    set_pixels_of_8_bits(data, 1)
    data.compress(pydicom.uid.RLELossless)
    frames = list(pydicom.encaps.generate_frames(data.PixelData, number_of_frames=data.NumberOfFrames))
    data.PixelData = pydicom.encaps.encapsulate((2 * frames)[:number], has_bot=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: move_frame(data, 2, 1.0), "has unevenly spaced frames"),
        (lambda data: move_frame(data, 0, 1.0), "has frames shifted in plane"),
        (turn_frame, "has frames of several orientations"),
        (remove_spacing, "lacks the spacing of its slices"),
        (repeat_position, "has several frames of one segment at one place"),
        (remove_position, r"lacks the geometry of its frames \(ImagePositionPatient\)"),
        (change_spacing_of_a_frame, "has frames of several pixel spacings"),
        (
            lambda data: set_shared(data, "PixelMeasuresSequence", "PixelSpacing", [-0.9, 0.75]),
            "has an impossible orientation or pixel spacing",
        ),
        (
            lambda data: set_shared(data, "PlaneOrientationSequence", "ImageOrientationPatient", [2, 0, 0, 0, 2, 0]),
            "has an impossible orientation or pixel spacing",
        ),
    ],
    ids=["uneven", "shifted", "turned", "no spacing", "repeated", "no position", "spacings", "negative", "long"],
)
def test_segmentation_without_a_common_grid_is_refused(
    series: Path, tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    labels = organs(tuple(range(9)))
    labels[labels == 2] = 0  # one segment, so that the frames are in the order of the slices
    assert_refused_after_change(write_segmentation(tmp_path / "x.dcm", series, labels, "BINARY"), change, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: delattr(data, "PerFrameFunctionalGroupsSequence"),
            "states 18 as its number of frames, but the number of its frame positions is 0",
        ),
        (
            lambda data: data.PerFrameFunctionalGroupsSequence.pop(),
            "states 18 as its number of frames, but the number of its frame positions is 17",
        ),
        (lambda data: delattr(data, "PixelData"), "lacks its pixels"),
        (lambda data: setattr(data, "PixelData", data.PixelData[:-2]), "ends too early"),
        (
            lambda data: setattr(data, "PixelData", data.PixelData + bytes(40)),
            "holds 760 bytes of pixels, but its frames",
        ),
        (pad_frames_to_bytes, "holds 720 bytes of pixels, but its frames need 718"),
        (lambda data: set_segment_of_a_frame(data, 7), "does not describe its segment 7"),
        (lambda data: setattr(data.SegmentSequence[1], "SegmentNumber", 1), "has several segments with the number 1"),
        (lambda data: delattr(data.SegmentSequence[1], "SegmentNumber"), "lacks the number of a segment"),
        (remove_segment_identification, "has frames that do not state their segment"),
        (lambda data: remove_segment_identification(data, 1), "has frames that do not state their segment"),
        (lambda data: set_pixels_of_8_bits(data, 100, 120), "holds fractions, not segments"),
        (lambda data: keep_compressed_frames(data, 16), "is damaged: it holds 16 of 18 compressed frames"),
        (lambda data: keep_compressed_frames(data, 20), "holds 20 compressed frames, but its header states 18"),
        (
            lambda data: setattr(
                data.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0], "ImagePositionPatient", None
            ),
            r"lacks the geometry of its frames \(ImagePositionPatient\)",
        ),
    ],
    ids=[
        "no groups",
        "too few",
        "no pixels",
        "cut",
        "longer",
        "padded",
        "segment 7",
        "equal segment numbers",
        "no segment number",
        "no frame states its segment",
        "one frame does not state its segment",
        "two 8-bit mask values",
        "too few compressed frames",
        "too many compressed frames",
        "empty position",
    ],
)
def test_incomplete_or_contradictory_segmentation_is_refused(
    series: Path, tmp_path: Path, change: Callable[[Any], object], message: str
) -> None:
    path = write_segmentation(tmp_path / "x.dcm", series, organs(tuple(range(9))), "BINARY")
    assert_refused_after_change(path, change, message)


def test_segmentation_with_a_damaged_name_of_a_segment_is_refused(series: Path, tmp_path: Path) -> None:
    path = write_segmentation(tmp_path / "x.dcm", series, organs((2, 3)), "BINARY")
    name = b"\x62\x00\x05\x00LO"
    path.write_bytes(path.read_bytes().replace(name, name[:-1] + b"?", 1))
    refused(lambda: read_labelmap(path), path, "cannot be read as a DICOM segmentation (Unknown Value Representation")
    refused(lambda: read_segments(path), path, "cannot be read as a DICOM segmentation (Unknown Value Representation")


@pytest.mark.parametrize("extra", [2, 4])
def test_segmentation_with_a_few_zero_bytes_after_its_pixels_is_read(series: Path, tmp_path: Path, extra: int) -> None:
    whole = write_segmentation(tmp_path / "whole.dcm", series, organs(tuple(range(9))), "BINARY")
    expected = read_labelmap(whole).voxels
    with edit_dicom(whole) as data:
        data.PixelData += bytes(extra)
    np.testing.assert_array_equal(read_labelmap(whole).voxels, expected)


@pytest.mark.parametrize(
    ("kept", "message"), [(1, "does not describe its segment 2"), (0, r"describes no segments \(SegmentSequence\)")]
)
def test_labelmap_with_undescribed_values_is_refused(series: Path, tmp_path: Path, kept: int, message: str) -> None:
    def describe_fewer_segments(data: Any) -> None:
        data.SegmentSequence = [item for item in data.SegmentSequence if item.SegmentNumber <= kept]

    path = write_segmentation(tmp_path / "x.dcm", series, organs((2, 3)), "LABELMAP")
    assert_refused_after_change(path, describe_fewer_segments, message)


def test_background_that_is_stored_as_segment_0_is_ignored(series: Path, tmp_path: Path) -> None:
    labels = organs((2, 3, 4))
    path = write_segmentation(tmp_path / "x.dcm", series, labels, "BINARY")
    data = pydicom.dcmread(path)
    data.SegmentSequence[1].SegmentNumber = 0
    for groups in data.PerFrameFunctionalGroupsSequence:
        (stated,) = groups.SegmentIdentificationSequence
        stated.ReferencedSegmentNumber %= 2  # Segment 2 becomes segment 0.
    data.save_as(path)
    assert_segments(path, series, labels * (labels == 1))


def test_header_is_not_read_again_for_each_frame_and_segment(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = organs(tuple(range(9)))
    path = write_segmentation(tmp_path / "x.dcm", series, labels, "BINARY")
    read: list[str] = []
    get = pydicom.Dataset.get
    monkeypatch.setattr(pydicom.Dataset, "get", lambda data, key, *rest: read.append(key) or get(data, key, *rest))
    assert_segments(path, series, labels)
    assert 0 < read.count("SegmentationType") < 10


def test_padding_value_of_a_labelmap_is_background(series: Path, tmp_path: Path) -> None:
    labels = organs((2, 3, 4))
    path = write_segmentation(tmp_path / "labels.dcm", series, labels, "LABELMAP")
    with edit_dicom(path) as data:
        pixels = np.where(data.pixel_array == 0, 255, data.pixel_array).astype(np.uint8)
        data.PixelData, data.PixelPaddingValue = pixels.tobytes(), 255
    assert_segments(path, series, labels)


def test_fractional_segmentation_that_does_not_state_its_maximum_is_refused(series: Path, tmp_path: Path) -> None:
    labels = organs((2, 3))
    masks = np.stack([labels.T == 1, labels.T == 2], axis=-1).astype(np.float32)
    path = write_segmentation(tmp_path / "x.dcm", series, masks, "FRACTIONAL")
    message = "lacks the highest value of its fractions"
    assert_refused_after_change(path, lambda data: delattr(data, "MaximumFractionalValue"), message)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: delattr(data, "SegmentSequence"),
        remove_segment_identification,
        lambda data: set_pixels_of_8_bits(data, 128),
    ],
    ids=["no description", "frames without a number", "8 bits"],
)
def test_single_segment_needs_no_description_and_may_have_any_pixel_value(
    series: Path, tmp_path: Path, change: Callable[[Any], object]
) -> None:
    labels = np.minimum(organs((2, 3, 5)), 1)
    path = write_segmentation(tmp_path / "one.dcm", series, labels, "BINARY")
    with edit_dicom(path) as data:
        data.SegmentSequence = data.SegmentSequence[:1]
        data.SegmentSequence[0].SegmentNumber = 3
        for frame in data.PerFrameFunctionalGroupsSequence:
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 3
        change(data)
    assert_segments(path, series, 3 * labels)


SOME_SLICES = [tuple(range(9)), (2, 3, 4, 5), (0, 2, 4), (1, 7), (4,)]


@pytest.mark.parametrize("slices", SOME_SLICES, ids=str)
def test_segments_of_a_tilted_stack_lie_on_the_voxels_of_the_scan(
    series: Path, tmp_path: Path, slices: tuple[int, ...]
) -> None:
    tilted = tmp_path / "tilted"
    tilted.mkdir()
    for file in series.iterdir():
        image = pydicom.dcmread(file)
        shift = 0.4 * (image.InstanceNumber - 1) * np.array(image.ImageOrientationPatient[3:], float)
        image.ImagePositionPatient = [round(float(x), 6) for x in np.array(image.ImagePositionPatient, float) + shift]
        image.save_as(tilted / file.name)
    labels = organs(slices)
    for omit_empty in (True, False):
        path = write_segmentation(tmp_path / f"{omit_empty}.dcm", tilted, labels, "BINARY", omit_empty)
        assert_segments(path, tilted, labels)


@pytest.mark.parametrize("slices", SOME_SLICES, ids=str)
def test_segmentation_slices_between_slices_of_the_scan_are_accepted_if_empty(
    series: Path, tmp_path: Path, slices: tuple[int, ...]
) -> None:
    """The slices of the scan are 2.5 mm apart, and the slices of the segmentation 1.25 mm."""
    labels, grid = organs(slices), read_scan(series).grid
    for omit_empty in (True, False):
        path = write_segmentation(tmp_path / f"{omit_empty}.dcm", series, labels, "BINARY", omit_empty)
        with edit_dicom(path) as data:
            data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 1.25
        assert_segments(path, series, labels)
        labelmap = read_labelmap(path)
        if labelmap.voxels.shape[2] > 1:
            labelmap.voxels[0, 0, 1] = 1  # slice 1 lies between two slices of the scan
            with pytest.raises(InputError, match="lies on a different grid"):
                fit_labelmap(labelmap, grid, series)


def write_without_spacing(
    path: Path, series: Path, labels: np.ndarray, thickness: float, omit_empty: bool = True
) -> Path:
    write_segmentation(path, series, labels, "BINARY", omit_empty)
    with edit_dicom(path) as data:
        measures = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.SliceThickness = thickness
        measures.pop("SpacingBetweenSlices", None)
    return path


@pytest.mark.parametrize("thickness", [1.25, 2.0, 2.5])
def test_thickness_does_not_change_the_spacing_if_no_slice_is_omitted(
    series: Path, tmp_path: Path, thickness: float
) -> None:
    labels = np.minimum(organs((2, 3, 4, 5)), 1)
    path = write_without_spacing(tmp_path / "x.dcm", series, labels, thickness, omit_empty=False)
    with edit_dicom(path) as data:
        is_first = [
            groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
            for groups in data.PerFrameFunctionalGroupsSequence
        ]
        masks = data.pixel_array[is_first]
        data.PerFrameFunctionalGroupsSequence = [
            groups for groups, first in zip(data.PerFrameFunctionalGroupsSequence, is_first, strict=True) if first
        ]
        data.SegmentSequence, data.NumberOfFrames = data.SegmentSequence[:1], len(masks)
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data["PixelData"].VR, data.PixelData = "OB", masks.astype(np.uint8).tobytes()
    itk, read = sitk.ReadImage(str(path)), read_labelmap(path)
    assert read.grid.shape == itk.GetSize()
    np.testing.assert_allclose(read.grid.spacing, itk.GetSpacing(), rtol=1e-5)
    np.testing.assert_array_equal(read.voxels, labels)


@pytest.mark.parametrize(
    ("slices", "thickness", "step", "assumed"),
    [
        ((2, 3, 4, 5), 1.25, 2.5, "2.5 mm was assumed, but 1.25 mm"),
        ((0, 2, 4), 2.5, 5.0, "5 mm was assumed, but 2.5 mm"),
        ((0, 2, 4), 1.25, 5.0, "5 mm was assumed, but 1.25 mm"),
        ((0, 2, 4, 8), 2.5, 5.0, "5 mm was assumed, but 2.5 mm"),
        ((0, 2, 5), 2.5, 2.5, None),
        ((1, 7), 2.5, 2.5, "2.5 mm was assumed, but 15 mm"),
        ((3, 4), 1.25, 1.25, "1.25 mm was assumed, but 2.5 mm"),
        ((3, 4), 2.5, 2.5, None),
        ((4,), 2.5, 2.5, None),
    ],
)
def test_missing_spacing_is_replaced_and_an_uncertain_spacing_causes_a_note(
    series: Path, tmp_path: Path, slices: tuple[int, ...], thickness: float, step: float, assumed: str | None
) -> None:
    labels = organs(slices)
    path = write_without_spacing(tmp_path / "x.dcm", series, labels, thickness)
    read = read_labelmap(path)
    assert read.grid.spacing[2] == pytest.approx(step, abs=1e-4)
    assert len(read.notes) == (assumed is not None)
    assert all(str(assumed) in note for note in read.notes)
    assert_segments(path, series, labels)


def test_spacing_of_slices_at_rounded_positions_is_their_average_distance(series: Path, tmp_path: Path) -> None:
    """A grid with the smallest distance, 2.48 mm, would not fit the positions."""
    path = write_without_spacing(tmp_path / "x.dcm", series, organs(tuple(range(9))), 1.25)
    with edit_dicom(path) as data:
        data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        heights = [0, 2.51, 5, 7.51, 9.99, 12.5, 15, 17.5, 20]
        for number, groups in enumerate(data.PerFrameFunctionalGroupsSequence):
            groups.PlanePositionSequence[0].ImagePositionPatient = [0, 0, heights[number % 9]]
    assert read_labelmap(path).grid.spacing[2] == pytest.approx(2.5)


@pytest.mark.parametrize("spacing", [1.25, None])
def test_segmentation_of_slices_whose_positions_have_one_decimal_lies_on_their_grid(
    tmp_path: Path, spacing: float | None
) -> None:
    """The second gap is 1.3 mm, so 1.25 mm does not divide it, and neither does the smallest gap divide the others."""
    folder = tmp_path / "series"
    for k in range(41):
        further = {} if spacing is None else {"SpacingBetweenSlices": spacing}
        position = ["-7.03125", "-9.53125", f"{1.25 * k:.1f}"]
        write_slice(folder / f"{k}.dcm", k, ImagePositionPatient=position, SliceThickness=1.25, **further)
    labels = np.zeros((SIZE, SIZE, 41), np.uint8)
    labels[3:9, 3:9, 7:20] = 1
    path = write_segmentation(tmp_path / "x.dcm", folder, labels, "BINARY", omit_empty=False)
    assert_segments(path, folder, labels)


@pytest.mark.parametrize(("gap", "thickness"), [(1.1, 1.0), (0.4, 0.5), (0.5, 0.6), (0.9, 1.0), (1.0, 1.1)])
def test_thickness_that_nearly_equals_the_distance_between_slices_is_not_this_distance(
    tmp_path: Path, gap: float, thickness: float
) -> None:
    folder = tmp_path / "series"
    for k in range(21):
        position = ["-7.03125", "-9.53125", f"{gap * k:.1f}"]
        write_slice(folder / f"{k}.dcm", k, ImagePositionPatient=position, SliceThickness=thickness)
    labels = np.zeros((SIZE, SIZE, 21), np.uint8)
    labels[3:9, 3:9, 4:18] = 1
    path = write_without_spacing(tmp_path / "x.dcm", folder, labels, thickness, omit_empty=False)
    assert_segments(path, folder, labels)


def test_segmentation_of_thick_slices_does_not_fit_a_scan_of_thin_slices(series: Path, tmp_path: Path) -> None:
    path = write_without_spacing(tmp_path / "x.dcm", series, organs((0, 2, 4)), 5.0)
    with pytest.raises(InputError, match="lies on a different grid"):
        fit_labelmap(read_labelmap(path), read_scan(series).grid, series)


@pytest.mark.parametrize("slices", [(0, 2, 4), (0, 4, 8)], ids=str)
def test_segmentations_that_omit_slices_are_compared_on_the_finer_grid(
    series: Path, tmp_path: Path, slices: tuple[int, ...]
) -> None:
    masks = organs(slices), organs((0, 2, 4))
    written = [write_without_spacing(tmp_path / f"{k}.dcm", series, mask, 2.5) for k, mask in enumerate(masks)]
    whole = write_segmentation(tmp_path / "whole.dcm", series, masks[1], "BINARY", omit_empty=False)
    sparse, other, full = map(read_labelmap, (*written, whole))
    dice = 2 * np.count_nonzero(masks[0] & masks[1] & 1) / sum(np.count_nonzero(mask & 1) for mask in masks)
    for pair in ((sparse, other), (other, sparse), (sparse, full), (full, sparse)):
        prediction, label = fit_pair(*pair, "x")
        assert prediction.grid.matches(label.grid)
        both = np.count_nonzero((prediction.voxels == 1) & (label.voxels == 1))
        total = np.count_nonzero(prediction.voxels == 1) + np.count_nonzero(label.voxels == 1)
        assert 2 * both / total == pytest.approx(dice)


@pytest.mark.parametrize("slices", SOME_SLICES, ids=str)
def test_impossible_slice_spacing_is_not_used(series: Path, tmp_path: Path, slices: tuple[int, ...]) -> None:
    """Slices 2.5 mm apart have a stated spacing of 1000 mm.

    The stated spacing is valid if the slices' distance is 1, 2, 3, ... times this spacing. Here, the factor
    2.5 / 1000 rounds to 0, which is not a valid factor.
    """
    labels = organs(slices)
    path = write_segmentation(tmp_path / "x.dcm", series, labels, "BINARY", False)
    with edit_dicom(path) as data:
        data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 1000.0
    assert_segments(path, series, labels)


@pytest.mark.parametrize(
    ("size", "message"), [(400, "lacks its pixels"), (-740, "lacks its pixels"), (-2, "ends too early")]
)
def test_truncated_segmentation_is_called_incomplete(series: Path, tmp_path: Path, size: int, message: str) -> None:
    path = write_segmentation(tmp_path / "cut.dcm", series, organs(tuple(range(9))), "BINARY")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=rf"cut\.dcm: {message}\. The copy is incomplete"):
        read_labelmap(path)
