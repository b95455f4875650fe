"""Read the written DICOM segmentation and measurement report with highdicom, SimpleITK and pydicom."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dcamt.cases.case_list import LABELLED, Case
from dcamt.cases.checks import check_cases
from dcamt.cases.labels import read_case_label
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.dicom_output import Algorithm, SourceImages, build_dicom_segmentation, find_source_images, write_dicom
from dcamt.io.dicom_stacks import ScanChoice
from dcamt.io.readers import read_labelmap, read_scan, read_segments
from dcamt.metrics.measurements import measure
from dcamt.recipe_files import load_recipe
from dcamt.report.dicom_report import build_measurement_report
from dcamt.volume import Labelmap, SegmentInfo, fit_labelmap
from dcamt_testing.dicom_positions import edit_dicom, encode_text, time_point_groups, write_frames, write_slices
from dcamt_testing.dicom_rules import missing_attributes
from dcamt_testing.dicom_series import (
    OBLIQUE_SHAPE,
    PATIENT,
    RAS_TO_LPS,
    STUDY,
    oblique_affine,
    write_dicomdir,
    write_enhanced_mr,
    write_oblique_series,
)
from dcamt_testing.scan_files import LEFT_ATRIUM, WALL, affine_from_sitk, corner_distance_mm

hd = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")
PersonName = pytest.importorskip("pydicom.valuerep").PersonName
SEGMENTS = (LEFT_ATRIUM, WALL)
MODEL = Algorithm("left-atrium", "1", "0.2.0", "0123456789abcdef")


def two_segments() -> np.ndarray:
    # The first and last slices are empty, and some slices hold only one segment.
    voxels = np.zeros(OBLIQUE_SHAPE, np.uint8)
    voxels[4:12, 3:11, 1:7] = LEFT_ATRIUM.label
    voxels[12:14, 3:11, 3:6] = WALL.label
    return voxels


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Labelmap]:
    folder = write_oblique_series(tmp_path_factory.mktemp("dicom") / "series")
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    return folder, Labelmap(two_segments(), Grid(OBLIQUE_SHAPE, oblique_affine()))


@pytest.fixture(scope="module")
def written(case: tuple[Path, Labelmap], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, labelmap = case
    path = tmp_path_factory.mktemp("seg") / "result.dcm"
    write_dicom(
        build_dicom_segmentation(labelmap, SEGMENTS, find_source_images(folder, read_scan(folder).frames), MODEL), path
    )
    return path


def find_changed_source(
    case: tuple[Path, Labelmap], folder: Path, change: Callable[[pydicom.Dataset], object]
) -> SourceImages:
    for file in case[0].glob("IM*"):
        image = pydicom.dcmread(file)
        change(image)
        image.save_as(folder / file.name)
    return find_source_images(folder, read_scan(folder).frames)


def find_renamed_source(
    case: tuple[Path, Labelmap], tmp_path: Path, character_set: str | list[str] | None, patient: str
) -> SourceImages:
    def rename(image: pydicom.Dataset) -> None:
        image.SpecificCharacterSet, image.PatientName = character_set, patient
        if character_set is None:
            del image.SpecificCharacterSet

    return find_changed_source(case, tmp_path, rename)


def build_segmentation_and_report(
    labelmap: Labelmap, source: SourceImages, segments: Sequence[SegmentInfo] = SEGMENTS, model: Algorithm = MODEL
) -> tuple[pydicom.Dataset, pydicom.Dataset]:
    segmentation = build_dicom_segmentation(labelmap, segments, source, model)
    rows = measure(labelmap, segments, "scan")
    return segmentation, build_measurement_report(rows, segments, segmentation, source, model)


def texts_of(report: pydicom.Dataset) -> list[str]:
    return [str(element.value) for element in report.iterall() if element.keyword == "TextValue"]


def algorithm_names(segmentation: pydicom.Dataset) -> list[str]:
    names = [segmentation.ManufacturerModelName]
    for segment in segmentation.SegmentSequence:
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        names += [segment.SegmentAlgorithmName, algorithm.AlgorithmName]
    return names


def test_segmentation_keeps_patient_study_and_source(written: Path, case: tuple[Path, Labelmap]) -> None:
    data_set = pydicom.dcmread(written)
    sources = {str(h.SOPInstanceUID): h for h in map(pydicom.dcmread, sorted(case[0].glob("IM*")))}
    first = next(iter(sources.values()))
    for name, value in {**PATIENT, **STUDY}.items():
        assert str(getattr(data_set, name)) == value
    assert (data_set.StudyInstanceUID, data_set.FrameOfReferenceUID) == (
        first.StudyInstanceUID,
        first.FrameOfReferenceUID,
    )
    assert data_set.SeriesInstanceUID != first.SeriesInstanceUID
    assert data_set.Modality == "SEG"
    referenced = {
        str(item.ReferencedSOPInstanceUID)
        for series in data_set.ReferencedSeriesSequence
        for item in series.ReferencedInstanceSequence
    }
    assert referenced == set(sources)
    # Each frame refers to the source image at the frame's position.
    for frame in data_set.PerFrameFunctionalGroupsSequence:
        uid = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(place, sources[uid].ImagePositionPatient, atol=1e-3)


def test_segmentation_has_the_attributes_that_the_standard_requires(written: Path) -> None:
    assert missing_attributes(pydicom.dcmread(written)) == []
    # The check reports a removed and an emptied attribute.
    damaged = pydicom.dcmread(written)
    del damaged.SegmentSequence[0].SegmentAlgorithmType
    damaged.DimensionOrganizationSequence = []
    assert missing_attributes(damaged) == [
        "multi-frame-dimension.DimensionOrganizationSequence is empty",
        "segmentation-image.SegmentSequence.SegmentAlgorithmType is missing",
    ]


def test_segments_are_named_and_coded(written: Path) -> None:
    segmentation = hd.seg.segread(written)
    assert segmentation.segmentation_type == hd.seg.SegmentationTypeValues.BINARY
    for number, info in enumerate(SEGMENTS, start=1):
        described = segmentation.get_segment_description(number)
        assert described.segment_label == info.name
        assert (described.segmented_property_type.value, described.segmented_property_type.scheme_designator) == (
            info.type.value,
            info.type.scheme,
        )
        assert described.segmented_property_category.value == "123037004"  # SNOMED CT: anatomical structure
        assert described.algorithm_type == hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
        color = hd.color.CIELabColor.from_dicom_value(described.RecommendedDisplayCIELabValue).to_rgb()
        np.testing.assert_allclose(np.array(color) / 255, info.color, atol=0.02)


def test_label_that_is_an_uncorrected_result_causes_a_warning(written: Path, case: tuple[Path, Labelmap]) -> None:
    for label in (written, written.parent):
        listed = Case("p1", case[0], label, LABELLED, "1=left atrium, 2=left atrium")
        *_, facts = check_cases([listed], load_recipe("la"))
        assert any("is a result of DCAMT that was not corrected" in warning for warning in facts.warnings), label


def test_highdicom_reads_the_same_voxels_at_the_same_positions(written: Path, case: tuple[Path, Labelmap]) -> None:
    labelmap = case[1]
    volume = hd.seg.segread(written).get_volume(combine_segments=True)
    expected = np.zeros(OBLIQUE_SHAPE, np.uint8)
    for number, info in enumerate(SEGMENTS, start=1):
        expected[labelmap.voxels == info.label] = number
    # The comparison does not depend on the order of highdicom's axes.
    indices = np.argwhere(np.asarray(volume.array) > 0)
    places = volume.map_indices_to_reference(indices)
    index = np.linalg.inv(RAS_TO_LPS @ labelmap.grid.affine) @ np.column_stack([places, np.ones(len(places))]).T
    np.testing.assert_allclose(index[:3], np.rint(index[:3]), atol=1e-2)
    i, j, k = np.rint(index[:3]).astype(int)
    np.testing.assert_array_equal(np.asarray(volume.array)[tuple(indices.T)], expected[i, j, k])
    assert len(indices) == np.count_nonzero(expected)


@pytest.mark.parametrize("place", ["folder", "DICOMDIR", "zip"])
def test_scan_and_segmentation_are_read_from_the_same_folder_or_archive(
    written: Path, case: tuple[Path, Labelmap], tmp_path: Path, place: str
) -> None:
    folder = tmp_path / "both 1.2"  # `.2` must not be taken for a file ending
    shutil.copytree(case[0], folder, ignore=shutil.ignore_patterns("*.txt"))
    shutil.copy(written, folder / "SEG")
    path = {"folder": folder, "DICOMDIR": folder / "DICOMDIR", "zip": tmp_path / "both.zip"}[place]
    if place == "DICOMDIR":
        write_dicomdir(folder)
    elif place == "zip":
        shutil.make_archive(str(path.with_suffix("")), "zip", folder)
    scan = read_scan(path)
    assert any("SEG (Segmentation)" in note for note in scan.notes)
    label = fit_labelmap(read_labelmap(path), scan.grid, "the scan")
    alone = fit_labelmap(read_labelmap(written), scan.grid, "the scan")
    np.testing.assert_array_equal(label.voxels, alone.voxels)
    assert label.voxels.max() > 0
    of_case = read_case_label(Case("x", path, path, LABELLED), load_recipe("la"), scan.grid)
    np.testing.assert_array_equal(of_case.voxels, alone.voxels)
    assert [segment.name for segment in read_segments(path)] == [segment.name for segment in read_segments(written)]
    assert len(read_segments(path)) == len(SEGMENTS)
    # A PACS may name exported files by UID: `.113619` must not be taken for a file ending.
    named_by_uid = Path(shutil.copy(written, folder.parent / "1.2.840.113619"))
    assert read_segments(named_by_uid) == read_segments(written)
    if place == "folder":
        shutil.copy(written, folder / "SEG2")
        with pytest.raises(InputError, match="holds 2 segmentations: SEG, SEG2"):
            read_labelmap(folder)


def test_simpleitk_reads_one_segment_on_the_grid_of_the_scan(case: tuple[Path, Labelmap], tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    folder, labelmap = case
    source = find_source_images(folder, read_scan(folder).frames)
    write_dicom(build_dicom_segmentation(labelmap, SEGMENTS[:1], source, MODEL), tmp_path / "one.dcm")
    image = sitk.ReadImage(str(tmp_path / "one.dcm"))
    mask = sitk.GetArrayFromImage(image).transpose(2, 1, 0) > 0
    expected, affine = labelmap.voxels == LEFT_ATRIUM.label, affine_from_sitk(image)
    if np.dot(affine[:3, 2], labelmap.grid.affine[:3, 2]) < 0:  # the slices are in reverse order
        flip = np.diag([1.0, 1.0, -1.0, 1.0])
        flip[2, 3] = OBLIQUE_SHAPE[2] - 1
        mask, affine = mask[:, :, ::-1], affine @ flip
    assert corner_distance_mm(Grid(OBLIQUE_SHAPE, affine), labelmap.grid) <= 0.01
    np.testing.assert_array_equal(mask, expected)


def test_results_of_an_anonymised_source_have_empty_patient_and_study_attributes(
    case: tuple[Path, Labelmap], tmp_path: Path
) -> None:
    removed = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")

    def anonymise(image: pydicom.Dataset) -> None:
        for keyword in (*removed, "AccessionNumber", "ReferringPhysicianName"):
            delattr(image, keyword)

    source = find_changed_source(case, tmp_path, anonymise)
    segmentation, report = build_segmentation_and_report(case[1], source)
    assert not any(segmentation[keyword].value for keyword in removed)  # present, but empty
    assert missing_attributes(segmentation) == missing_attributes(report) == []


def _change_rounding(image: pydicom.Dataset) -> None:
    if image.InstanceNumber == 3:
        image.ImageOrientationPatient = [float(value) + 1e-6 for value in image.ImageOrientationPatient]


def _remove_thickness(image: pydicom.Dataset) -> None:
    del image.SliceThickness


def _replace_numbers(image: pydicom.Dataset) -> None:
    for keyword in ("SeriesNumber", "InstanceNumber"):
        image[keyword] = pydicom.DataElement(keyword, "LO", "REMOVED")


@pytest.mark.parametrize("change", [_change_rounding, _remove_thickness, _replace_numbers])
def test_segmentation_is_written_for_a_source_with_minor_defects(
    case: tuple[Path, Labelmap], tmp_path: Path, change: Callable[[pydicom.Dataset], None]
) -> None:
    source = find_changed_source(case, tmp_path, change)
    path = tmp_path / "x.dcm"
    write_dicom(build_dicom_segmentation(case[1], SEGMENTS, source, MODEL), path)
    assert np.allclose(read_labelmap(path).grid.affine, case[1].grid.affine, atol=1e-4)


def test_invalid_dates_and_sex_of_an_anonymised_source_become_empty(
    case: tuple[Path, Labelmap], tmp_path: Path
) -> None:
    def invalidate(image: pydicom.Dataset) -> None:
        for keyword in ("PatientBirthDate", "StudyDate", "StudyTime"):
            image[keyword] = pydicom.DataElement(keyword, "LO", "UNKNOWN")
        image.PatientSex = "W"

    source = find_changed_source(case, tmp_path, invalidate)
    segmentation = build_dicom_segmentation(case[1], SEGMENTS, source, MODEL)
    for keyword in ("PatientBirthDate", "StudyDate", "StudyTime", "PatientSex"):
        assert not segmentation[keyword].value
    assert (segmentation.PatientID, segmentation.StudyID) == (PATIENT["PatientID"], STUDY["StudyID"])


@pytest.mark.parametrize(
    ("character_set", "patient", "segment"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "Atrium"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", "Atrium"),
        (["ISO_IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎", "Atrium"),
        ("ISO_IR 6", "Mueller^Joerg", "Atrium"),
        ("", "Mueller^Joerg", "Atrium"),
        ("ISO_IR 144", "Люкceмбypг", "Atrium"),
        *((none, "Mueller^Joerg", segment) for none in (None, "") for segment in ("左心房", "Öffnung")),
        *((code, "Müller^Jörg", segment) for code in ("ISO_IR 100", "ISO_IR 192") for segment in ("左心房", "Öffnung")),
    ],
)
def test_names_of_patients_and_segments_are_kept_in_any_character_set(
    case: tuple[Path, Labelmap], tmp_path: Path, character_set: str | list[str] | None, patient: str, segment: str
) -> None:
    source = find_renamed_source(case, tmp_path, character_set, patient)
    segments = [replace(info, name=f"{segment} {info.label}") for info in SEGMENTS]
    for number, written in enumerate(build_segmentation_and_report(case[1], source, segments)):
        path = tmp_path / f"{number}.dcm"
        write_dicom(written, path)
        assert str(pydicom.dcmread(path).PatientName) == patient
    read = pydicom.dcmread(tmp_path / "0.dcm")
    assert [item.SegmentLabel for item in read.SegmentSequence] == [info.name for info in segments]
    assert segment in str(pydicom.dcmread(tmp_path / "1.dcm"))


@pytest.mark.parametrize(
    ("character_set", "codec", "escape"),
    [
        (["", "ISO 2022 IR 87"], "iso2022_jp", b""),
        (["ISO 2022 IR 6", "ISO 2022 IR 87"], "iso2022_jp", b""),
        ("ISO 2022 IR 87", "iso2022_jp", b""),
        (["", "ISO 2022 IR 87", "ISO 2022 IR 159"], "iso2022_jp_1", b""),
        (["", "ISO 2022 IR 58"], "gb2312", b"\x1b$)A"),
        (["", "ISO 2022 IR 149"], "euc_kr", b"\x1b$)C"),
        ("ISO_IR 13", "shift_jis", b""),
        ("GBK", "gbk", b""),
        ("GB18030", "gb18030", b""),
        *((code, "latin_1", b"") for code in ("ISO 2022 IR 100", "ISO_IR 100", "iso_ir 100", ["", "ISO 2022 IR 100"])),
        ("ISO 2022 IR 6", "ascii", b""),
    ],
)
def test_texts_of_the_images_are_kept_in_any_encoding(
    case: tuple[Path, Labelmap], tmp_path: Path, character_set: str | list[str], codec: str, escape: bytes
) -> None:
    candidates = "".join(["O", "ö", *map(chr, range(0x4E00, 0x9FA6))])
    letters = candidates.encode(codec, "ignore").decode(codec)
    # Letters whose bytes include "=", "^" or a backslash come first.
    text = "".join(sorted(letters, key=lambda letter: not set(b"=^\\") & set(letter.encode(codec)))[:20])
    patient, encoded = f"Name^A1={text}^{text[::-1]}", encode_text(text, codec, escape)

    def set_texts(image: pydicom.Dataset) -> None:
        image.SpecificCharacterSet = character_set
        image.PatientName = PersonName(encode_text(patient, codec, escape))
        image["StudyDescription"] = pydicom.DataElement("StudyDescription", "LO", encoded)
        image.ProcedureCodeSequence = [code := pydicom.Dataset()]
        code.CodeValue, code.CodingSchemeDesignator = "1", "99TEST"
        code["CodeMeaning"] = pydicom.DataElement("CodeMeaning", "LO", encoded)

    source = find_changed_source(case, tmp_path, set_texts)
    for number, dataset in enumerate(build_segmentation_and_report(case[1], source)):
        path = tmp_path / f"{number}.dcm"
        write_dicom(dataset, path)
        read = pydicom.dcmread(path)
        codec_of_result = {"ISO_IR 192": "utf_8", "ISO_IR 100": "latin_1", "GBK": "gbk", "GB18030": "gb18030"}
        stored = [read.get_item("PatientName"), read.get_item("StudyDescription")]
        stored.append(read.ProcedureCodeSequence[0].get_item("CodeMeaning"))
        texts = [element.value.decode(codec_of_result[read.SpecificCharacterSet]).rstrip() for element in stored]
        assert texts == [patient, text, text]


def test_chinese_names_of_segments_are_read_without_their_escape_sequences(written: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(written, tmp_path))
    with edit_dicom(path) as data:
        data.SpecificCharacterSet = ["", "ISO 2022 IR 58"]
        for item in data.SegmentSequence:
            item["SegmentLabel"] = pydicom.DataElement(
                "SegmentLabel", "LO", encode_text("左心房", "gb2312", b"\x1b$)A")
            )
    assert {segment.name for segment in read_segments(path)} == {"左心房"}


def test_report_on_an_earlier_segmentation_keeps_non_ascii_texts(case: tuple[Path, Labelmap], tmp_path: Path) -> None:
    def describe(image: pydicom.Dataset) -> None:
        image.SpecificCharacterSet = "ISO_IR 100"
        image.ProcedureCodeSequence = [code := pydicom.Dataset()]
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99TEST", "Vorhöfe"

    source = find_changed_source(case, tmp_path, describe)
    write_dicom(build_dicom_segmentation(case[1], SEGMENTS, source, MODEL), tmp_path / "earlier.dcm")
    rows, earlier = measure(case[1], SEGMENTS, "scan"), pydicom.dcmread(tmp_path / "earlier.dcm")
    report = build_measurement_report(rows, SEGMENTS, earlier, source, replace(MODEL, name="左心房"))
    write_dicom(report, tmp_path / "report.dcm")
    assert pydicom.dcmread(tmp_path / "report.dcm").ProcedureCodeSequence[0].CodeMeaning == "Vorhöfe"


@pytest.mark.parametrize(("character_set", "patient"), [(None, "Mueller^Joerg"), ("ISO_IR 126", "Διονυσιος^Α")])
@pytest.mark.parametrize("name", ["左心房", "Vorhof_Müller"])
def test_name_and_version_of_the_model_are_kept_in_any_character_set(
    case: tuple[Path, Labelmap], tmp_path: Path, character_set: str | None, patient: str, name: str
) -> None:
    source = find_renamed_source(case, tmp_path, character_set, patient)
    model = replace(MODEL, name=name, version=f"2-{name}")
    write_dicom(build_dicom_segmentation(case[1], SEGMENTS, source, MODEL), tmp_path / "earlier.dcm")
    earlier = pydicom.dcmread(tmp_path / "earlier.dcm")
    segmentation, report = build_segmentation_and_report(case[1], source, model=model)
    rows = measure(case[1], SEGMENTS, "scan")
    report_on_earlier = build_measurement_report(rows, SEGMENTS, earlier, source, model)
    written = []
    for number, dataset in enumerate((segmentation, report, report_on_earlier)):
        write_dicom(dataset, tmp_path / f"{number}.dcm")
        written.append(pydicom.dcmread(tmp_path / f"{number}.dcm"))
        assert (written[-1].SpecificCharacterSet, written[-1].PatientName) == ("ISO_IR 192", patient)
    assert set(algorithm_names(written[0])) == {name}
    (algorithm,) = written[0].SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmVersion == model.version
    for texts in map(texts_of, written[1:]):
        assert texts.count(name) == 1 + len(SEGMENTS)  # one observer, and one algorithm per segment
        assert texts.count(model.version) == len(SEGMENTS)


@pytest.mark.filterwarnings("error:The value length")
def test_long_strings_have_at_most_64_characters_and_no_backslash(case: tuple[Path, Labelmap], tmp_path: Path) -> None:
    model = replace(MODEL, name="M\\" + 70 * "ü", version="1\\2")
    segments = [
        replace(info, name=f"{info.label}\\" + 70 * "s", type=replace(info.type, meaning=70 * "t")) for info in SEGMENTS
    ]
    source = find_source_images(case[0], read_scan(case[0]).frames)
    segmentation, report = build_segmentation_and_report(case[1], source, segments, model)
    for number, dataset in enumerate((segmentation, report)):
        write_dicom(dataset, tmp_path / f"{number}.dcm")
        for element in pydicom.dcmread(tmp_path / f"{number}.dcm").iterall():
            assert element.VR != "LO" or (element.VM <= 1 and len(element.value) <= 64), element
    read = pydicom.dcmread(tmp_path / "0.dcm")
    assert set(algorithm_names(read)) == {"M/" + 62 * "ü"}
    assert [item.SegmentLabel for item in read.SegmentSequence] == [f"{info.label}/" + 62 * "s" for info in segments]
    assert model.name in texts_of(pydicom.dcmread(tmp_path / "1.dcm"))


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_message_names_the_attribute_that_the_source_lacks(
    case: tuple[Path, Labelmap], tmp_path: Path, keyword: str
) -> None:
    source = find_changed_source(case, tmp_path, lambda image: delattr(image, keyword))
    with pytest.raises(InputError, match=f"can refer to these images, which lack {keyword}"):
        build_dicom_segmentation(case[1], SEGMENTS, source, MODEL)


@pytest.mark.parametrize(
    ("tag", "vr"),
    [(b"\x08\x00\x20\x00", b"D?"), (b"\x08\x00\x50\x00", b"SL"), (b"\x18\x00\x50\x00", b"D?")],
    ids=["StudyDate", "AccessionNumber", "SliceThickness"],
)
def test_source_image_with_a_damaged_attribute_is_refused_with_a_message(
    case: tuple[Path, Labelmap], tmp_path: Path, tag: bytes, vr: bytes
) -> None:
    """`read_scan` does not need these attributes."""
    find_changed_source(case, tmp_path, lambda image: None)
    file = tmp_path / "IM0003"
    data = bytearray(file.read_bytes())
    start = data.index(tag) + len(tag)
    data[start : start + 2] = vr
    file.write_bytes(data)
    source = find_source_images(tmp_path, read_scan(tmp_path).frames)
    with pytest.raises(InputError, match=r"no DICOM segmentation can refer to these images \("):
        build_dicom_segmentation(case[1], SEGMENTS, source, MODEL)


def test_series_number_is_the_last_four_digits_of_the_scans_number_followed_by_01(
    case: tuple[Path, Labelmap], tmp_path: Path
) -> None:
    """A series number in DICOM is at most 2147483647."""
    source = find_changed_source(case, tmp_path, lambda image: setattr(image, "SeriesNumber", 2147483647))
    assert build_dicom_segmentation(case[1], SEGMENTS, source, MODEL).SeriesNumber == 364701


def test_segmentation_refers_to_the_frames_of_a_multi_frame_image(case: tuple[Path, Labelmap], tmp_path: Path) -> None:
    """The image has two time points; the first time point is the source."""
    labelmap = case[1]
    order = [4, 0, 8, 2, 6, 1, 3, 5, 7]
    path = write_enhanced_mr(tmp_path / "enhanced.dcm", np.ones(OBLIQUE_SHAPE), oblique_affine(), order + order)
    source = find_source_images(path, [(path, order.index(k)) for k in range(OBLIQUE_SHAPE[2])])
    write_dicom(build_dicom_segmentation(labelmap, SEGMENTS[:1], source, MODEL), tmp_path / "seg.dcm")
    data_set = pydicom.dcmread(tmp_path / "seg.dcm")
    assert missing_attributes(data_set) == []
    image = pydicom.dcmread(path)
    assert data_set.NumberOfFrames == OBLIQUE_SHAPE[2]
    for frame in data_set.PerFrameFunctionalGroupsSequence:
        (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == image.SOPInstanceUID
        numbers = reference.ReferencedFrameNumber
        number = int(numbers if isinstance(numbers, int | str) else numbers[0])
        assert number <= len(order), "a frame of the second time point"
        theirs = image.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(frame.PlanePositionSequence[0].ImagePositionPatient, theirs, atol=1e-3)


@pytest.fixture(params=["slices", "multi-frame"])
def images(request: pytest.FixtureRequest, case: tuple[Path, Labelmap], tmp_path: Path) -> SourceImages:
    if request.param == "slices":
        return find_source_images(case[0], read_scan(case[0]).frames)
    order = [4, 0, 8, 2, 6, 1, 3, 5, 7]
    path = write_enhanced_mr(tmp_path / "enhanced.dcm", np.ones(OBLIQUE_SHAPE), oblique_affine(), order)
    return find_source_images(path, [(path, order.index(k)) for k in range(OBLIQUE_SHAPE[2])])


CHANGES: dict[str, Callable[[Any], Any]] = {
    "rows reversed": lambda image: image.as_reoriented([[0, -1], [1, 1], [2, 1]]),
    "slices reversed": lambda image: image.as_reoriented([[0, 1], [1, 1], [2, -1]]),
    "axes in another order": lambda image: image.as_reoriented([[2, 1], [0, -1], [1, 1]]),
    "cropped": lambda image: image.slicer[2:15, 3:, 1:8],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("reversed_source", [False, True], ids=["", "source in reverse order"])
def test_labelmap_on_another_grid_of_the_same_places_is_written_at_these_places(
    case: tuple[Path, Labelmap],
    images: SourceImages,
    tmp_path: Path,
    change: Callable[[Any], Any],
    reversed_source: bool,
) -> None:
    """As in Python, if a caller flips, reorders or crops a DICOM scan before the segmentation."""
    changed = change(nib.Nifti1Image(case[1].voxels, case[1].grid.affine))
    labelmap = Labelmap(np.asarray(changed.dataobj), Grid(changed.shape, changed.affine))
    if reversed_source:
        frames = images.frames and images.frames[::-1]
        images = replace(images, frames=frames, datasets=images.datasets[::-1])
    path = tmp_path / "changed.dcm"
    write_dicom(build_dicom_segmentation(labelmap, SEGMENTS, images, MODEL), path)
    volume = hd.seg.segread(path).get_volume(combine_segments=True)
    written = np.asarray(volume.array)
    for number, info in enumerate(SEGMENTS, start=1):
        mm = volume.map_indices_to_reference(np.argwhere(written == number))
        voxels = np.linalg.inv(RAS_TO_LPS @ case[1].grid.affine) @ np.column_stack([mm, np.ones(len(mm))]).T
        expected = np.argwhere(case[1].voxels == info.label)
        assert sorted(np.rint(voxels[:3].T).astype(int).tolist()) == expected.tolist()
    for frame in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
        (image,) = (each for each in images.datasets if each.SOPInstanceUID == reference.ReferencedSOPInstanceUID)
        if images.frames is not None:
            image = image.PerFrameFunctionalGroupsSequence[int(reference.ReferencedFrameNumber) - 1]
            image = image.PlanePositionSequence[0]
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(place, image.ImagePositionPatient, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "change"),
    [
        (OBLIQUE_SHAPE, np.array([[1, 0, 0, 0.4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
        (OBLIQUE_SHAPE, np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 6], [0, 0, 0, 1]])),
        (OBLIQUE_SHAPE, np.diag([1, 1, 2, 1])),
        (OBLIQUE_SHAPE, np.diag([0.5, 0.5, 0.5, 1])),
    ],
    ids=["moved by a part of a voxel", "labels outside", "thicker slices", "finer"],
)
def test_labelmap_that_does_not_fit_the_images_is_refused_in_plain_words(
    case: tuple[Path, Labelmap], images: SourceImages, shape: tuple[int, int, int], change: np.ndarray
) -> None:
    labelmap = replace(case[1], grid=Grid(shape, case[1].grid.affine @ change))
    what = r"the segmentation does not lie on the grid of the scan's DICOM images, .*\. Choose another file format"
    with pytest.raises(InputError, match=what):
        build_dicom_segmentation(labelmap, SEGMENTS, images, MODEL)


def test_source_in_a_zip_archive_is_refused(tmp_path: Path) -> None:
    folder = write_oblique_series(tmp_path / "series")
    archive = Path(shutil.make_archive(str(tmp_path / "x"), "zip", folder))
    with pytest.raises(InputError, match=r"x\.zip: is an archive, .* Extract the archive, and segment the folder\."):
        find_source_images(archive, read_scan(archive).frames)


def test_source_that_was_deleted_after_reading_is_refused(tmp_path: Path) -> None:
    folder = write_oblique_series(tmp_path / "series")
    frames = read_scan(folder).frames
    frames[2][0].unlink()
    with pytest.raises(InputError, match=rf"{re.escape(str(frames[2][0]))}: was moved or deleted after it was read"):
        find_source_images(folder, frames)


def test_source_that_is_not_dicom_is_refused() -> None:
    with pytest.raises(InputError, match=r"scan\.nrrd: was not read from DICOM.*\.seg\.nrrd"):
        find_source_images(Path("scan.nrrd"), ())


def test_segmentation_refers_to_the_chosen_time_point(tmp_path: Path) -> None:
    places = [*range(8)] * 3
    path = write_frames(tmp_path / "x.dcm", places, time_point_groups(range(8), 3))
    scan = read_scan(path, choice=ScanChoice(time=2))
    assert scan.frames == tuple((path, 8 + k) for k in range(8))
    for time in (1, 2):
        write_slices(tmp_path / "series" / str(time), 8, first=10 * time, TemporalPositionIdentifier=time)
    scan = read_scan(tmp_path / "series", choice=ScanChoice(time=2))
    labels = np.zeros(scan.grid.shape, np.uint8)
    labels[3:8, 3:8, 2:5] = 1
    source = find_source_images(tmp_path / "series", scan.frames)
    made = build_dicom_segmentation(Labelmap(labels, scan.grid), (LEFT_ATRIUM,), source, MODEL)
    items = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    referred = {str(item.ReferencedSOPInstanceUID) for item in items}
    second = {str(pydicom.dcmread(file).SOPInstanceUID) for file in (tmp_path / "series" / "2").iterdir()}
    assert referred == second


@pytest.mark.parametrize(("modality", "procedure"), [("MR", "25056-3"), ("CT", "25045-6"), ("PT", "363679005")])
def test_measurement_report_names_the_procedure_of_the_scan(
    case: tuple[Path, Labelmap], modality: str, procedure: str
) -> None:
    folder, labelmap = case
    source = find_source_images(folder, read_scan(folder).frames)
    segmentation = build_dicom_segmentation(labelmap, SEGMENTS, source, MODEL)
    for image in source.datasets:
        image.Modality = modality
    report = build_measurement_report(measure(labelmap, SEGMENTS, "scan"), SEGMENTS, segmentation, source, MODEL)
    names = {item.ConceptNameCodeSequence[0].CodeValue: item for item in report.ContentSequence}
    assert names["121058"].ConceptCodeSequence[0].CodeValue == procedure


@pytest.mark.parametrize("segments", [SEGMENTS, SEGMENTS[:1]])
def test_measurement_report_holds_the_measurements_of_each_segment(
    case: tuple[Path, Labelmap], tmp_path: Path, segments: tuple[SegmentInfo, ...]
) -> None:
    folder, labelmap = case
    source = find_source_images(folder, read_scan(folder).frames)
    segmentation, built = build_segmentation_and_report(labelmap, source, segments)
    assert missing_attributes(segmentation) == []
    path = tmp_path / "report.dcm"
    write_dicom(built, path)
    report = hd.sr.srread(path)
    assert missing_attributes(report) == []
    damaged = pydicom.dcmread(path)
    del damaged.ContentSequence[0].ConceptCodeSequence
    assert missing_attributes(damaged) == ["CODE without ConceptCodeSequence"]
    assert (report.PatientID, report.StudyInstanceUID) == (PATIENT["PatientID"], segmentation.StudyInstanceUID)
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(segments)
    rows = measure(labelmap, segments, "scan")
    for number, (group, info, row) in enumerate(zip(groups, segments, rows, strict=True), start=1):
        assert group.finding_type.value == info.type.value
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        assert list(reference.referenced_segment_numbers) == [number]
        measured = {m.name.value: (m.value, m.unit.value) for m in group.get_measurements()}
        # The expected volume: number of voxels times 0.75 x 0.9 x 2.5 mm3.
        volume_ml = np.count_nonzero(labelmap.voxels == info.label) * 0.75 * 0.9 * 2.5 / 1000
        assert measured["118565006"] == (pytest.approx(volume_ml, rel=1e-5), "mL")
        assert measured["C0JK"] == (pytest.approx(row.surface_cm2, rel=1e-5), "cm2")
        assert measured["L0JK"] == (pytest.approx(row.long_diameter_mm, rel=1e-5), "mm")
        assert measured["AP-EXTENT"] == (pytest.approx(row.anteroposterior_diameter_mm, rel=1e-5), "mm")
        assert measured["RL-EXTENT"] == (pytest.approx(row.transverse_diameter_mm, rel=1e-5), "mm")
        assert measured["QCFX"] == (pytest.approx(row.sphericity, rel=1e-5), "1")
