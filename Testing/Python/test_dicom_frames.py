"""Multi-frame DICOM files: every frame is read at its position, or the file is refused with a one-line message."""

import gzip
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dcamt.io import dicom_stacks
from dcamt.io.dicom_stacks import ScanChoice
from dcamt.io.readers import read_header, read_scan
from dcamt.volume import Volume
from dcamt_testing.dicom_positions import (
    RT_DOSE,
    SIZE,
    Groups,
    assert_slices_in_place,
    edit_dicom,
    pixels,
    time_point_groups,
    write_frames,
    write_slice,
    write_slices,
)
from dcamt_testing.scan_files import refused


@pytest.mark.parametrize("places", [range(12), range(11, -1, -1), [*range(0, 12, 2), *range(1, 12, 2)]], ids=str)
def test_frames_in_any_order_are_read_at_their_positions(tmp_path: Path, places: Sequence[int]) -> None:
    path = write_frames(tmp_path / "x.dcm", list(places))
    assert_slices_in_place(read_scan(path), 12)
    assert read_header(path).grid.shape == (SIZE, SIZE, 12)


@pytest.mark.parametrize("name", [".hidden.dcm", "scan.txt"])
def test_hidden_or_txt_file_is_read_if_it_is_chosen_directly(tmp_path: Path, name: str) -> None:
    assert_slices_in_place(read_scan(write_frames(tmp_path / name, range(12))), 12)


@pytest.mark.parametrize("as_label", [False, True])
def test_message_on_a_compressed_file_says_that_it_is_compressed(tmp_path: Path, as_label: bool) -> None:
    path = tmp_path / "x.dcm.gz"
    path.write_bytes(gzip.compress(write_frames(tmp_path / "x.dcm", range(12)).read_bytes()))
    refused(lambda: read_header(path, as_labelmap=as_label), path, "is a DICOM file compressed with gzip", "Decompress")


def test_missing_frame_is_refused(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "x.dcm", [0, 1, 2, 3, 5, 6, 7, 8])
    refused(lambda: read_scan(path), path, "lacks about 1")


def test_frame_without_a_position_is_refused(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "x.dcm", range(8))
    with edit_dicom(path) as data:
        del data.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    refused(lambda: read_scan(path), path, "lacks the position")


@pytest.mark.parametrize("numbered", [True, False])
def test_first_time_point_is_read_with_a_note(tmp_path: Path, numbered: bool) -> None:
    places = [*range(12)] * 3
    groups = time_point_groups(range(12), 3) if numbered else ()
    frames = b"".join(pixels(range(12), add) for add in (100, 1100, 2100))
    path = write_frames(tmp_path / "x.dcm", places, groups, PixelData=frames)
    volume = read_scan(path)
    assert_slices_in_place(volume, 12)
    assert any("3 time points" in note for note in volume.notes)
    assert_slices_in_place(read_scan(path, choice=ScanChoice(time=2)), 12, 1100)
    refused(lambda: read_scan(path, choice=ScanChoice(time=4)), path, "3 time points")


@pytest.mark.parametrize(
    ("group", "attribute"),
    [
        ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
        ("TemporalPositionSequence", "TemporalPositionTimeOffset"),
    ],
)
def test_cardiac_phases_that_alternate_at_each_place_are_time_points(
    tmp_path: Path, group: str, attribute: str
) -> None:
    places = [place for place in range(12) for _ in range(2)]
    phases: list[Groups] = [{group: {attribute: 70.0 if n % 2 else 30.0}} for n in range(len(places))]
    path = write_frames(tmp_path / "x.dcm", places, phases)
    volume = read_scan(path)
    assert_slices_in_place(volume, 12)
    assert any("2 time points" in note for note in volume.notes)
    assert [index for _, index in read_scan(path, choice=ScanChoice(time=2)).frames] == list(range(1, 24, 2))


def test_message_about_two_frames_at_one_place_states_their_numbers(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "x.dcm", [0, 1, 2, 3, 3, 4, 5, 6])
    refused(lambda: read_scan(path), path, "holds two slices in the same plane: frames 4 and 5")


@pytest.mark.parametrize("inversion_times", [(100.0, 300.0), ([100.0, 120.0], [300.0, 320.0])], ids=["one", "two"])
def test_file_of_two_inversion_times_is_refused_with_both_times(
    tmp_path: Path, inversion_times: tuple[object, object]
) -> None:
    places = [place for place in range(12) for _ in inversion_times]
    frames: list[Groups] = [{"MRModifierSequence": {"InversionTimes": time}} for time in (*inversion_times,) * 12]
    path = write_frames(tmp_path / "x.dcm", places, frames)
    what = "holds images of 2 inversion times at the same places: 100 ms, 300 ms. Export the images of one inversion"
    refused(lambda: read_scan(path), path, what)


def test_slices_of_two_inversion_times_are_refused_with_both_times(tmp_path: Path) -> None:
    for place in range(6):
        for index, time in enumerate((100, 300)):
            number = 2 * place + index
            write_slice(tmp_path / f"{number}.dcm", place, number=number, add=100 * index, InversionTime=time)
    refused(
        lambda: read_scan(tmp_path), tmp_path, "holds images of 2 inversion times at the same places: 100 ms, 300 ms"
    )


def test_inversion_time_that_only_some_slices_state_does_not_matter(tmp_path: Path) -> None:
    for place in range(6):
        for index in range(2):
            number, stated = 2 * place + index, {"InversionTime": 100} if index else {}
            write_slice(tmp_path / f"{number}.dcm", place, number=number, add=100 * index, **stated)
    refused(lambda: read_scan(tmp_path), tmp_path, "holds 12 slices, some of them at the same place")


def test_stacks_in_one_file_can_be_chosen(tmp_path: Path) -> None:
    stacks = [{"FrameContentSequence": {"StackID": name}} for name in "ab" for _ in range(8)]
    path = write_frames(tmp_path / "x.dcm", [*range(8), *range(20, 28)], stacks)
    refused(lambda: read_scan(path), path, "2 stacks", 'SeriesNumber 1, stack 1 of 2 with the ID "a"', "--series")
    volume = read_scan(path, choice=ScanChoice(series="2"))
    assert_slices_in_place(volume, 8)
    # The second stack lies from 40 to 54 mm; its first slice may be at either end.
    assert volume.grid.affine[2, 3] == (40 if volume.grid.affine[2, 2] > 0 else 54)


def test_message_describes_at_most_8_stacks_of_each_series(tmp_path: Path) -> None:
    stacks = [{"FrameContentSequence": {"StackID": f"s{k // 3}"}} for k in range(600)]
    write_frames(tmp_path / "x.dcm", [k + 10 * (k // 3) for k in range(600)], stacks)
    write_slices(tmp_path, 4, series="1.2.9", SeriesNumber=2, SeriesDescription="LGE")
    message = refused(lambda: read_scan(tmp_path), tmp_path, "201 stacks", 'with the ID "s0"', "(8) unnamed series")
    assert "(9) unnamed series" not in message
    assert 'and 192 more, (201) "LGE" with SeriesNumber 2 (4 slices of 16 x 16)' in message
    assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(series="201")), 4)


def test_note_describes_at_most_8_skipped_stacks(tmp_path: Path) -> None:
    stacks = [{"FrameContentSequence": {"StackID": f"s{k}"}} for k in range(30)]
    write_frames(tmp_path / "x.dcm", [k + k**2 for k in range(30)], stacks)
    write_slices(tmp_path, 4, series="1.2.9", SeriesNumber=2)
    (note,) = read_scan(tmp_path).notes
    assert note.endswith(' with the ID "s7" (1 slice of 16 x 16) and 22 more.')


@pytest.mark.parametrize(
    ("places", "names", "count"),
    [
        (range(16), 8 * "a" + 8 * "b", 16),
        (range(16), 8 * "ab", 16),
        ([*range(7, -1, -1), *range(8, 12)], 8 * "a" + 4 * "b", 12),
        (range(5), "abcde", 5),
        ([*range(8), *range(9, 17)], 8 * "a" + 8 * "b", None),  # A slice is missing between the stacks.
        ([*range(8)] * 2, 8 * "a" + 8 * "b", None),
        ([*range(8), *range(7, 15)], 8 * "a" + 8 * "b", None),
    ],
)
def test_stacks_that_form_one_regular_stack_are_one_scan(
    tmp_path: Path, places: Sequence[int], names: str, count: int | None
) -> None:
    groups = [{"FrameContentSequence": {"StackID": name}} for name in names]
    path = write_frames(tmp_path / "x.dcm", list(places), groups)
    if count is None:
        refused(lambda: read_scan(path), path, "holds 2 stacks of slices (the stacks differ in stack ID)")
    else:
        assert_slices_in_place(read_scan(path), count)


def test_each_pair_of_radial_slices_is_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[math.cos(k / 4), math.sin(k / 4), 0] for k in range(10)]
    groups = [{"PlaneOrientationSequence": {"ImageOrientationPatient": [*row, 0, 0, 1]}} for row in rows]
    path = write_frames(tmp_path / "x.dcm", [0] * 10, groups)
    compare, compared = dicom_stacks.have_one_geometry, []
    monkeypatch.setattr(dicom_stacks, "have_one_geometry", lambda *both: compared.append(both) or compare(*both))
    refused(lambda: read_scan(path), path, "holds 10 stacks of slices (the stacks differ in orientation)")
    assert len(compared) == 10 * 9 / 2


@pytest.mark.parametrize("stated", [None, 1, 11])
def test_number_of_frames_that_contradicts_the_positions_is_refused(tmp_path: Path, stated: int | None) -> None:
    path = write_frames(tmp_path / "x.dcm", range(12))
    with edit_dicom(path) as data:
        del data.NumberOfFrames
        if stated is not None:
            data.NumberOfFrames = stated
    what = "does not state its number of frames" if stated is None else f"states {stated} as its number of frames"
    refused(lambda: read_scan(path), path, f"{what}, but the number of its frame positions is 12")


def test_files_of_one_frame_each_are_read_as_one_scan(tmp_path: Path) -> None:
    for k in range(9):
        write_frames(tmp_path / f"series_{k}", [8 - k], number=k, InstanceNumber=1)
    assert_slices_in_place(read_scan(tmp_path), 9)


WHOLE_SLIDE, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.mark.parametrize("sop_class", [WHOLE_SLIDE, SEGMENTATION, RT_DOSE])
def test_tiled_image_segmentation_or_dose_is_not_read_as_a_scan(tmp_path: Path, sop_class: str) -> None:
    path = write_frames(tmp_path / "x.dcm", range(8), sop_class=sop_class)
    refused(lambda: read_scan(path), path, "not a scan")


def test_each_frame_is_rescaled_by_its_own_slope(tmp_path: Path) -> None:
    groups = [{"PixelValueTransformationSequence": {"RescaleSlope": 0.5 + k, "RescaleIntercept": -k}} for k in range(8)]
    volume = read_scan(write_frames(tmp_path / "x.dcm", range(8), groups))
    k = (np.arange(8) if volume.grid.affine[2, 2] > 0 else np.arange(8)[::-1]).astype(float)
    np.testing.assert_allclose(volume.voxels[0, 3, 3], (100 + 10 * k) * (0.5 + k) - k)


@pytest.mark.parametrize("keyword", ["Acquisition", "Content"])
def test_time_points_before_and_after_midnight_are_in_order(tmp_path: Path, keyword: str) -> None:
    for point, (date, time) in enumerate((("20200131", "235959.5"), ("20200201", "000001"))):
        stated = {f"{keyword}Date": date, f"{keyword}Time": time}
        write_slices(tmp_path / f"{point}", 8, first=8 * point + 1, add=100 + 1000 * point, **stated)
    for number in (1, 2):
        volume = read_scan(tmp_path, choice=ScanChoice(time=number))
        assert_slices_in_place(volume, 8, 100 + 1000 * (number - 1))


@pytest.mark.parametrize(
    "dates", [("20240510", "20240510"), ("20240510", "")], ids=["both dated", "only the first dated"]
)
def test_time_points_two_milliseconds_apart_are_in_order(tmp_path: Path, dates: tuple[str, str]) -> None:
    for point, (date, time) in enumerate(zip(dates, ("103012.421", "103012.423"), strict=True)):
        for k in range(8):
            stated = {"ContentDate": date, "ContentTime": time}
            write_slice(tmp_path / f"{point}-{k}.dcm", k, number=2 * k - point + 9, add=100 + 1000 * point, **stated)
    for number in (1, 2):
        assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(time=number)), 8, 100 + 1000 * (number - 1))


def test_frames_two_milliseconds_apart_are_in_order(tmp_path: Path) -> None:
    times = [f"20240510103012.42{digit}" for digit in (3, 1) for _ in range(8)]  # The later time point comes first.
    groups = [{"FrameContentSequence": {"FrameAcquisitionDateTime": time}} for time in times]
    path = write_frames(tmp_path / "x.dcm", [*range(8)] * 2, groups)
    assert {index // 8 for _, index in read_scan(path).frames} == {1}


@pytest.mark.parametrize("zone", ["", "+0100", "-0500"])
def test_times_with_a_time_zone_sort_the_time_points(tmp_path: Path, zone: str) -> None:
    times = [f"20200131120005.0{zone}"] * 8 + [f"20200131120001.5{zone}"] * 8  # The later time point comes first.
    groups = [{"FrameContentSequence": {"FrameAcquisitionDateTime": time}} for time in times]
    path = write_frames(tmp_path / "x.dcm", [*range(8)] * 2, groups)
    assert {index // 8 for _, index in read_scan(path).frames} == {1}


def test_instance_numbers_sort_time_points_if_content_times_do_not(tmp_path: Path) -> None:
    for k in range(8):
        for time in range(2):
            content = f"1010{5 * k + (time if k % 2 else 1 - time):02}"
            write_slice(tmp_path / f"{k}-{time}.dcm", k, number=8 * time + k + 1, add=100 + time, ContentTime=content)
    assert_slices_in_place(read_scan(tmp_path), 8)
    assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(time=2)), 8, add=101)


def test_time_points_are_in_order_of_content_time_and_not_of_instance_number(tmp_path: Path) -> None:
    for k in range(8):
        for time in range(2):
            number = 8 * (1 - time) + k + 1
            write_slice(tmp_path / f"{k}-{time}.dcm", k, number=number, add=100 + time, ContentTime=f"10{time}0{k:02}")
    assert_slices_in_place(read_scan(tmp_path), 8)
    assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(time=2)), 8, add=101)


def test_image_is_read_whole_if_the_slices_of_its_two_time_indices_hardly_overlap(tmp_path: Path) -> None:
    # The slices with index 1 extend from place 0 to 4, those with index 2 from place 3 to 7. Slices with different
    # indices count as time points only if these ranges overlap by more than half.
    indices = [1, 1, 1, 2, 1, 2, 2, 2]
    groups = [{"FrameContentSequence": {"TemporalPositionIndex": index}} for index in indices]
    assert_slices_in_place(read_scan(write_frames(tmp_path / "x.dcm", range(8), groups)), 8)


def interleaved(places: Sequence[int], first: int, second: int) -> list[Groups]:
    """Return the functional groups of frames at `places`, which alternate between two stacks.

    Frames at even places belong to stack "a" and have the time index `first`; frames at odd places belong to stack "b"
    and have the time index `second`.
    """
    stated = [{"StackID": "a", "TemporalPositionIndex": first}, {"StackID": "b", "TemporalPositionIndex": second}]
    return [{"FrameContentSequence": stated[k % 2]} for k in places]


def test_interleaved_stacks_with_different_time_indices_are_read_whole(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "x.dcm", range(16), interleaved(range(16), 1, 2))
    assert_slices_in_place(read_scan(path), 16)
    refused(lambda: read_scan(path, choice=ScanChoice(time=2)), path, "holds one time point only")


@pytest.mark.parametrize("times", [((1, 3), (2, 4)), ((1, 1), (2, 2))])
def test_time_points_of_interleaved_stacks_are_read_whole(
    tmp_path: Path, times: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    groups = [group for both in times for group in interleaved(range(16), *both)]
    path = write_frames(tmp_path / "x.dcm", [*range(16)] * 2, groups)
    for number in (1, 2):
        volume = read_scan(path, choice=ScanChoice(time=number))
        assert_slices_in_place(volume, 16)
        assert {index // 16 for _, index in volume.frames} == {number - 1}


@pytest.mark.parametrize(("name", "add"), [("t1", 100), ("t1 map", 1100), ("map", 1100)])
def test_kinds_t1_and_t1_map_can_each_be_chosen_by_name(tmp_path: Path, name: str, add: int) -> None:
    for number, kind in enumerate(("T1", "T1 MAP")):
        image_type = ["DERIVED", "PRIMARY", kind]
        write_slices(tmp_path / kind, 8, first=8 * number + 1, add=100 + 1000 * number, ImageType=image_type)
    assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(frame_type=name)), 8, add)


def test_echo_is_not_chosen_by_a_part_of_its_number(tmp_path: Path) -> None:
    for number, time in enumerate((2.3, 12.3, 15)):
        write_slices(tmp_path / f"{time}", 8, first=8 * number + 1, add=100 + 1000 * number, EchoTime=time)
    for name, add in (("2.3", 100), ("echo 2.3 ms", 100), ("12.3", 1100), ("15 ms", 2100)):
        assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(frame_type=name)), 8, add)
    for name in ("5 ms", "3 ms", ".3 ms", "echo 1", "1", "12", "12."):
        refused(
            lambda name=name: read_scan(tmp_path, choice=ScanChoice(frame_type=name)), tmp_path, "3 kinds of images"
        )


@pytest.mark.parametrize("interleaved", [True, False])
def test_complex_component_can_be_chosen_if_only_a_private_ge_element_states_it(
    tmp_path: Path, interleaved: bool
) -> None:
    names = ("magnitude", "phase", "real", "imaginary")
    for n in range(4):
        for k in range(8):
            number = 4 * k + n if interleaved else 8 * n + k
            stated = {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"], "number": number + 1, "add": 100 + 1000 * n}
            with edit_dicom(write_slice(tmp_path / f"{number:02}.dcm", k, **stated)) as data:
                data.private_block(0x43, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", n)
    refused(lambda: read_scan(tmp_path), tmp_path, "imaginary, magnitude, phase, real", "--frame-type")
    for n, name in enumerate(names):
        assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(frame_type=name)), 8, 100 + 1000 * n)


@pytest.mark.parametrize("value", [7, -1, [0, 1], None])
def test_impossible_complex_component_in_a_private_ge_element_is_ignored(tmp_path: Path, value: object) -> None:
    for path in write_slices(tmp_path, 8):
        with edit_dicom(path) as data:
            data.private_block(0x43, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", value)
    assert_slices_in_place(read_scan(tmp_path), 8)
    refused(lambda: read_scan(tmp_path, choice=ScanChoice(frame_type="imaginary")), tmp_path, "no images of the kind")


def test_psir_images_are_a_kind_named_after_their_image_type(tmp_path: Path) -> None:
    for number, image_type in enumerate((["ORIGINAL", "PRIMARY", "M"], ["DERIVED", "PRIMARY", "PSIR"])):
        write_slices(tmp_path / image_type[-1], 8, first=8 * number + 1, add=100 + 1000 * number, ImageType=image_type)
    refused(lambda: read_scan(tmp_path), tmp_path, "holds 2 kinds of images at the same places: magnitude, psir.")
    assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(frame_type="psir")), 8, 1100)


@pytest.mark.parametrize(
    ("word", "kind"),
    [("P_PCA", "phase"), ("P_FFE", "phase"), ("VELOCITY MAP", "phase"), ("R_IR", "real"), ("I_FFE", "imaginary")],
)
def test_word_of_the_image_type_states_the_complex_component(tmp_path: Path, word: str, kind: str) -> None:
    for number, component in enumerate(("M_FFE", word)):
        image_type = ["ORIGINAL", "PRIMARY", component]
        write_slices(tmp_path / str(number), 8, first=8 * number + 1, add=100 + 1000 * number, ImageType=image_type)
    assert_slices_in_place(read_scan(tmp_path, choice=ScanChoice(frame_type=kind)), 8, 1100)


@pytest.mark.parametrize("kind", ["frames", "folder"])
def test_magnitude_and_phase_can_be_chosen(tmp_path: Path, kind: str) -> None:
    """The different units of magnitude and phase are not reported as a contradiction."""
    names, units = {"magnitude": "MAGNITUDE", "phase": "PHASE"}, ("normalized", "mrad")
    rescale = {"RescaleSlope": 1, "RescaleIntercept": 0}
    if kind == "frames":
        path = write_frames(
            tmp_path / "x.dcm",
            [*range(10)] * 2,
            [
                {
                    "MRImageFrameTypeSequence": {"ComplexImageComponent": name},
                    "PixelValueTransformationSequence": {"RescaleType": unit, **rescale},
                }
                for name, unit in zip(names.values(), units, strict=True)
                for _ in range(10)
            ],
            PixelData=pixels(range(10)) + pixels(range(10), add=1100),
        )
    else:
        path = tmp_path / "series"
        for n, letter in enumerate("MP"):
            attributes = {"ImageType": ["ORIGINAL", "PRIMARY", letter, "ND"], "RescaleType": units[n], **rescale}
            write_slices(path / letter, 10, first=10 * n, add=100 + 1000 * n, **attributes)
    refused(lambda: read_scan(path), path, "magnitude, phase", "--frame-type", "or export the images of one kind")
    for n, name in enumerate(names):
        assert_slices_in_place(read_scan(path, choice=ScanChoice(frame_type=name)), 10, 100 + 1000 * n)
    refused(lambda: read_scan(path, choice=ScanChoice(frame_type="real")), path, "magnitude, phase")


def test_kinds_that_differ_in_two_properties_are_chosen_by_both(tmp_path: Path) -> None:
    kinds = [(component, echo) for component in ("MAGNITUDE", "PHASE") for echo in (2, 5)]
    for number, (component, echo) in enumerate(kinds):
        stated = {"ImageType": ["ORIGINAL", "PRIMARY", component[0]], "EchoTime": echo}
        write_slices(tmp_path / f"{component} {echo} ms", 8, first=8 * number, add=100 + 1000 * number, **stated)

    def read(frame_type: str | None) -> Volume:
        return read_scan(tmp_path, choice=ScanChoice(frame_type=frame_type))

    refused(lambda: read(None), tmp_path, "holds 2 kinds of images at the same places: magnitude, phase. Choose")
    both = "holds 2 kinds of images at the same places: phase + echo 2 ms, phase + echo 5 ms. Choose"
    refused(lambda: read("phase"), tmp_path, both)
    refused(lambda: read("echo 5 ms"), tmp_path, "echo 5 ms + magnitude, echo 5 ms + phase. Choose")
    refused(lambda: read("phase + echo 7 ms"), tmp_path, both)
    for frame_type in ("phase + echo 5 ms", "Echo 5 ms + Phase"):
        assert_slices_in_place(read(frame_type), 8, 3100)
    missing = 'holds images of the kind "phase", but none of the kind "t1". Remove "t1" from the kind of images'
    shutil.rmtree(tmp_path / "PHASE 2 ms")
    assert_slices_in_place(read("phase + echo 5 ms"), 8, 3100)
    refused(lambda: read("phase + echo 5 ms + t1"), tmp_path, missing)


def test_single_value_of_the_image_type_is_not_split_into_letters(tmp_path: Path) -> None:
    """The "R" in "DERIVED" is not the kind "real"."""
    for k in range(10):
        write_slice(tmp_path / "x" / f"{k}.dcm", k, ImageType="DERIVED" if k < 5 else "ORIGINAL")
    assert_slices_in_place(read_scan(tmp_path / "x"), 10)


@pytest.mark.parametrize("echo", [["2.3", "4.6"], "removed"], ids=str)
def test_echo_time_that_is_not_one_number_is_ignored(tmp_path: Path, echo: object) -> None:
    for path in write_slices(tmp_path, 8):
        with edit_dicom(path) as data:
            data["EchoTime"] = pydicom.DataElement("EchoTime", "LO", echo)
    assert_slices_in_place(read_scan(tmp_path), 8)


@pytest.mark.parametrize("value", [b"\0", b"\0\0\0", np.float64(1).tobytes()])
def test_damaged_complex_component_in_a_private_ge_element_is_ignored(tmp_path: Path, value: bytes) -> None:
    """A program that removes patient data may write other bytes into private elements."""
    element, vr = b"\x43\0\x2f\x10", b"FD" if len(value) == 8 else b"SS"
    stated = element + b"OB\0\0" + (8).to_bytes(4, "little") + b"*" * 8
    for path in write_slices(tmp_path, 8):
        with edit_dicom(path) as data:
            data.private_block(0x43, "GEMS_PARM_01", create=True).add_new(0x2F, "OB", b"*" * 8)
        written = path.read_bytes()
        assert written.count(stated) == 1
        path.write_bytes(written.replace(stated, element + vr + len(value).to_bytes(2, "little") + value))
    assert_slices_in_place(read_scan(tmp_path), 8)
