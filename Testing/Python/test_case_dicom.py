"""Find cases in folders of DICOM slices and DICOM segmentations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path, PurePath
from typing import Any

import pydicom
import pytest
from dcamt.cases import dicom_labels
from dcamt.cases.folders import find_cases
from dcamt.cases.found_cases import CONTOURS, NO_SCAN, OTHER_LABEL, RESULT, SEVERAL_LABELS
from dcamt.cases.labelmap_files import labelmaps_by_case
from dcamt.cases.left_over_labels import with_keys_of_scans
from dcamt.cases.names import FileKind, NamedFile
from dcamt.commands.scan_paths import find_scans
from dcamt.errors import InputError, MissingPackage
from dcamt.io.dicom_files import stated_class
from dcamt.io.readers import read_labelmap
from dcamt_testing.case_folders import make_files, scans_and_labels, skip_reasons, write_image
from dcamt_testing.dicom_positions import (
    REPORT,
    SECONDARY_CAPTURE,
    edit_dicom,
    new_data_set,
    remove_preambles,
    write_frames,
    write_slice,
)
from dcamt_testing.processes import HANGING_S
from pydicom.dataset import Dataset

SEGMENTATION, STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"


def write_series(folder: Path, series: str, ending: str = ".dcm", **attributes: Any) -> Path:
    for place in range(3):
        write_slice(folder / f"IM{place}{ending}", place, series=series, **attributes)
    return folder


def write_object(path: Path, refers_to: str = "", sop_class: str = SEGMENTATION) -> Path:
    """Write the header of a DICOM object that refers to a series."""
    data = new_data_set(sop_class, series="1.2.9")
    if refers_to:
        series = Dataset()
        series.SeriesInstanceUID = refers_to
        data.ReferencedSeriesSequence = [series]
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("ending", [".dcm", ".IMA", "", ".117"])
def test_segmentation_beside_the_slices_is_their_label(tmp_path: Path, ending: str) -> None:
    write_series(tmp_path / "p1", "1.2.3", ending)
    write_object(tmp_path / "p1" / "1-1.dcm", "1.2.3")
    write_series(tmp_path / "p2", "1.2.4", ending)
    write_object(tmp_path / "p2" / "1-1.dcm")  # The segmentation refers to no series.
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {
        "p1": ("p1", "p1/1-1.dcm"),
        "p2": ("p2", "p2/1-1.dcm"),
    }


def test_search_is_refused_if_pydicom_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "p1", "1.2.3")
    write_object(tmp_path / "p1" / "1-1.dcm", "1.2.3")
    monkeypatch.setattr(pydicom, "__version__", "2.4.5")
    with pytest.raises(MissingPackage, match=r"pydicom 2\.4\.5 is too old"):
        find_cases(tmp_path)


@pytest.mark.parametrize("first_group", [2, 8])
@pytest.mark.parametrize("ending", [".dcm", "", ".117"])
def test_cases_are_the_same_without_preambles(tmp_path: Path, first_group: int, ending: str) -> None:
    for number in (1, 2):
        write_series(tmp_path / f"p{number}", f"1.2.{number}", ending)
        write_object(tmp_path / f"label {number}{ending}", f"1.2.{number}")
    for name, sop_class in (("contours", STRUCTURE_SET), ("reports", REPORT), ("screenshots", SECONDARY_CAPTURE)):
        write_object(tmp_path / name / f"1{ending}", sop_class=sop_class)
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {
        "p1": ("p1", f"label 1{ending}"),
        "p2": ("p2", f"label 2{ending}"),
    }
    remove_preambles(tmp_path, first_group)
    assert find_cases(tmp_path) == found


def test_segmentation_belongs_to_the_series_to_which_it_refers(tmp_path: Path) -> None:
    for number, patient in enumerate(("p1", "p2", "p3"), start=1):
        write_series(tmp_path / patient / "cine", f"1.2.{number}.1")
        write_series(tmp_path / patient / "lge", f"1.2.{number}.2", ending="")
    write_object(tmp_path / "p1" / "1.dcm", "1.2.1.2")
    write_object(tmp_path / "p1" / "report.dcm", "1.2.1.2", REPORT)
    write_object(tmp_path / "p2" / "S3" / "1.dcm", "1.2.2.2")
    write_object(tmp_path / "p3" / "S3" / "1.dcm", "1.2.7")
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {
        "p1_cine": ("p1/cine", None),
        "p1_lge": ("p1/lge", "p1/1.dcm"),
        "p2_cine": ("p2/cine", None),
        "p2_lge": ("p2/lge", "p2/S3/1.dcm"),
        "p3_cine": ("p3/cine", None),
        "p3_lge": ("p3/lge", None),
    }
    assert skip_reasons(found) == {"S3": NO_SCAN}


def test_reference_to_a_series_in_a_folder_named_predictions_is_ignored(tmp_path: Path) -> None:
    write_series(tmp_path / "images" / "p1", "1.2.3.1")
    write_series(tmp_path / "predictions" / "first", "1.2.3.2")
    write_object(tmp_path / "labels" / "p1" / "1-1.dcm", "1.2.3.2")
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {"p1": ("images/p1", "labels/p1/1-1.dcm")}


def test_segmentation_named_p1_is_the_label_of_the_slices_in_folder_p1(tmp_path: Path) -> None:
    for number, patient in enumerate(("p1", "p2"), start=1):
        write_series(tmp_path / "images" / patient, f"1.2.{number}")
        write_object(tmp_path / "labels" / f"{patient}.dcm")
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {
        "p1": ("images/p1", "labels/p1.dcm"),
        "p2": ("images/p2", "labels/p2.dcm"),
    }


@pytest.mark.parametrize("label", ["labels/p1.dcm", "labels/p1/1-1.dcm", "p1/SEG/1-1.dcm"])
def test_segmentation_with_p1_in_its_path_is_the_label_of_scan_p1(tmp_path: Path, label: str) -> None:
    scan = "p1/scan.nii.gz" if label.startswith("p1") else "images/p1.nii.gz"
    make_files(tmp_path, scan)
    write_object(tmp_path / label, "1.2.3")  # The scan was converted from this series, which is missing.
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path)["p1"] == (scan, label)
    assert not found.skipped


@pytest.mark.parametrize("beside", ["", "labels/p3.nii.gz"])
def test_added_segmentation_does_not_change_the_label_of_another_case(tmp_path: Path, beside: str) -> None:
    for number in (1, 2):
        write_series(tmp_path / "images" / f"p{number}", f"1.2.{number}")
    make_files(tmp_path, *filter(None, [beside]))
    write_object(tmp_path / "labels" / "first.dcm", "1.2.1")
    before = scans_and_labels(find_cases(tmp_path), tmp_path)
    assert (before["p1"], before["p2"]) == (("images/p1", "labels/first.dcm"), ("images/p2", None))
    write_object(tmp_path / "labels" / "second.dcm", "1.2.2")
    after = scans_and_labels(find_cases(tmp_path), tmp_path)
    assert (after["p1"], after["p2"]) == (before["p1"], ("images/p2", "labels/second.dcm"))


def test_label_is_preferred_to_a_dcamt_result_in_a_subfolder(tmp_path: Path) -> None:
    write_series(tmp_path / "p1" / "lge", "1.2.1")
    result = write_object(tmp_path / "p1" / "S3" / "1.dcm", "1.2.1")
    assert scans_and_labels(find_cases(tmp_path), tmp_path)["p1_lge"] == ("p1/lge", "p1/S3/1.dcm")
    with edit_dicom(result) as data:
        data.SeriesDescription = "DCAMT"
    write_object(tmp_path / "p1" / "seg.dcm", "1.2.1")
    assert scans_and_labels(find_cases(tmp_path), tmp_path)["p1_lge"] == ("p1/lge", "p1/seg.dcm")


def test_results_and_several_segmentations_of_one_series_are_not_used_as_labels(tmp_path: Path) -> None:
    write_series(tmp_path / "p1", "1.2.3")
    for reader in ("a", "b"):
        write_object(tmp_path / "p1" / f"{reader}.dcm", "1.2.3")
    write_series(tmp_path / "p2", "1.2.4")
    write_object(tmp_path / "p2" / "pred.dcm", "1.2.4")
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {"p2": ("p2", None)}
    reasons = dict.fromkeys(("p1", "a.dcm", "b.dcm"), SEVERAL_LABELS) | {"pred.dcm": RESULT}
    assert skip_reasons(found) == reasons


def test_segmentation_of_the_atrium_is_preferred_to_those_of_other_structures(tmp_path: Path) -> None:
    for patient, series in (("p1", "1.2.3"), ("p2", "1.2.4")):
        write_series(tmp_path / patient, series)
    for name in ("LA_lge", "RA", "LA_wall"):
        write_object(tmp_path / "p1" / f"{name}.dcm", "1.2.3")
    # The word "wall" does not matter, since p2 has no other segmentation.
    write_object(tmp_path / "p2" / "lge wall and cavity.dcm", "1.2.4")
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {
        "p1": ("p1", "p1/LA_lge.dcm"),
        "p2": ("p2", "p2/lge wall and cavity.dcm"),
    }
    assert skip_reasons(found) == dict.fromkeys(("RA.dcm", "LA_wall.dcm"), OTHER_LABEL)


def test_contours_are_skipped_with_the_reason(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        write_series(tmp_path / patient / "slices", "1.2.3")
    write_object(tmp_path / "p1" / "slices" / "RS.dcm", sop_class=STRUCTURE_SET)
    contours = write_object(tmp_path / "p2" / "contours" / "RS.dcm", sop_class=STRUCTURE_SET)
    found = find_cases(tmp_path)
    assert [case.label for case in found.cases] == [None, None]
    assert [(file.path.name, file.reason) for file in found.skipped] == [("RS.dcm", CONTOURS)] * 2
    with pytest.raises(InputError, match=r"RS\.dcm: holds contours \(RT Structure Set\), not labels\. Convert them"):
        read_labelmap(contours)
    with pytest.raises(InputError, match=r"holds no segmentation, but contours \(RT Structure Set\), such as RS\.dcm"):
        labelmaps_by_case(contours.parent)


def write_multi_frame(path: Path, study: str, series: str) -> Path:
    return write_frames(path, range(5), StudyInstanceUID=study, series=series)


def test_multi_frame_images_of_different_studies_are_separate_scans(tmp_path: Path) -> None:
    images = [write_multi_frame(tmp_path / "images" / f"p{n}.dcm", f"1.3.{n}", f"1.2.{n}") for n in (1, 2)]
    write_object(tmp_path / "labels" / "a.dcm", "1.2.1")
    write_object(tmp_path / "labels" / "p2.dcm")
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {
        "p1": ("images/p1.dcm", "labels/a.dcm"),
        "p2": ("images/p2.dcm", "labels/p2.dcm"),
    }
    assert find_scans(tmp_path / "images").scans == images
    one_study = tmp_path / "one study"
    for n in (1, 2):
        write_multi_frame(one_study / f"{n}.dcm", "1.3.1", f"1.2.{n}")
    assert find_scans(one_study).scans == [one_study]
    assert scans_and_labels(find_cases(one_study), one_study) == {"one study": (".", None)}


def test_dicom_segmentations_are_found_with_and_without_a_file_ending(tmp_path: Path) -> None:
    files = [write_object(tmp_path / "labels" / name) for name in ("p1", "p2_seg.DCM")]
    write_slice(tmp_path / "labels" / "IM1", 1)
    assert labelmaps_by_case(tmp_path / "labels") == {"p1": files[0], "p2": files[1]}
    with pytest.raises(InputError, match=r"but folders below it do \(labels/p1\)"):
        labelmaps_by_case(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["0pipe", "0pipe.dcm"])
def test_named_pipe_is_not_opened(tmp_path: Path, name: str) -> None:
    for patient in ("p1", "p2"):
        write_series(tmp_path / patient, "1.2.3")
        os.mkfifo(tmp_path / patient / name)
    program = """
import sys, pathlib
from dcamt.cases.folders import find_cases
from dcamt.commands.scan_paths import find_scans
find_cases(pathlib.Path(sys.argv[1]))
find_scans(pathlib.Path(sys.argv[1]))
"""
    # Opening a pipe without a writer would never return, so the search runs in another process.
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=HANGING_S)


def test_label_named_after_its_case_is_found(tmp_path: Path) -> None:
    for number, folders in enumerate(("p1/2020/S01", "p2/2020/S01", "p3/LGE", "p4"), start=1):
        write_series(tmp_path / folders, f"1.2.{number}")
    names = [case.name for case in find_cases(tmp_path).cases]
    assert names == ["p1_2020_S01", "p2_2020_S01", "p3_LGE", "p4"]
    labels = ("corrected/p1_2020_S01.seg.nrrd", "p2/p2_2020_S01_gt.nii.gz", "p3/p3_LGE.seg.nrrd", "p4/p4.seg.nrrd")
    make_files(tmp_path, *labels, "siteB/p2_2020_S01_seg.nii.gz")
    found = find_cases(tmp_path)
    assert [case.label for case in found.cases] == [tmp_path / label for label in labels]
    assert skip_reasons(found) == {"p2_2020_S01_seg.nii.gz": NO_SCAN}


def test_capitals_matter_if_two_scan_names_differ_only_in_capitals() -> None:
    scans = [NamedFile(Path(name), FileKind.SCAN, (name,)) for name in ("p1_LGE", "P1_lge")]
    labels = [NamedFile(Path(name), FileKind.LABEL, ("final", name)) for name in ("P1_lge", "p1_lge")]
    paired = with_keys_of_scans(labels, scans, {scan.path.name: scan.key for scan in scans})
    # No scan is named exactly `p1_lge`, so the label `p1_lge` is not paired: it keeps its own key.
    assert {label.path.name: label.key for label in paired} == {"P1_lge": ("P1_lge",), "p1_lge": ("final", "p1_lge")}


def test_nifti_mask_beside_dicom_slices_is_their_label_unless_it_names_another_structure(tmp_path: Path) -> None:
    for number, folder in enumerate(("p1", "p2/LGE", "p3"), start=1):
        write_series(tmp_path / folder, f"1.2.{number}")
    for mask in ("p1/p1_LA", "p2/p2_roi", "p3/p3_RV"):
        write_image(tmp_path / f"{mask}.nii.gz", 2)
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {
        "p1": ("p1", "p1/p1_LA.nii.gz"),
        "p2_LGE": ("p2/LGE", "p2/p2_roi.nii.gz"),
        "p3": ("p3", None),
    }


def test_label_named_after_a_folder_of_slices_is_found(tmp_path: Path) -> None:
    for number, folder in enumerate(("p1/LGE", "p2/a", "p2/b"), start=1):
        write_series(tmp_path / folder, f"1.2.{number}")
        make_files(tmp_path, f"{folder}_label.nii.gz")
    p1, *p2 = (tmp_path / f"{folder}_label.nii.gz" for folder in ("p1/LGE", "p2/a", "p2/b"))
    others = dict(zip("ab", p2, strict=True))
    assert labelmaps_by_case(tmp_path) == {"p1_LGE": p1, **others}
    assert labelmaps_by_case(tmp_path, names=["p1_LGE", "p1"]) == {"p1_LGE": p1, **others}
    # Two labelled scans lie in the folder p2, so neither label gets the name p2.
    assert labelmaps_by_case(tmp_path, names=["p1", "p2"]) == {"p1": p1, **others}


def write_patients(folder: Path, *subfolders: str) -> Path:
    """Write the slices of a separate study into each subfolder."""
    for number, name in enumerate(subfolders):
        write_series(folder / name, f"1.2.{number}", StudyInstanceUID=f"1.2.4.{number}")
    return folder


@pytest.mark.parametrize(
    "beside",
    ["cases.csv", "p1.dcm", "p1.nii.gz", "p1_LA.nii.gz", "p1_seg.nii.gz", "labels/p1.nii.gz", "segs/p1.dcm"],
)
def test_tables_masks_and_labels_beside_folders_of_patients_are_skipped(tmp_path: Path, beside: str) -> None:
    home = write_patients(tmp_path / "home", "p1/LGE", "p2/LGE")
    if beside.endswith(".nii.gz"):
        write_image(home / beside, 2)
    elif beside.endswith(".dcm"):
        write_object(home / beside)
    else:
        make_files(home, beside)
    assert find_scans(home).scans == [home / "p1", home / "p2"]


@pytest.mark.parametrize("beside", ["cases.csv", "p1_LA.nii.gz"])
@pytest.mark.parametrize("keeps_meta_information", [False, True])
@pytest.mark.parametrize("ending", ["", ".dcm"])
def test_folders_of_slices_without_preamble_are_scans(
    tmp_path: Path, beside: str, keeps_meta_information: bool, ending: str
) -> None:
    home = write_patients(tmp_path / "home", "p1", "p2")
    for path in home.glob("*/*"):
        data = pydicom.dcmread(path)
        path.unlink()
        if keeps_meta_information:
            data.preamble = None
            data.save_as(path.with_suffix(ending))
        else:
            del data.file_meta
            Dataset(data).save_as(path.with_suffix(ending), implicit_vr=True, little_endian=True)
    if beside.endswith(".csv"):
        make_files(home, beside)
    else:
        write_image(home / beside, 2)
    assert find_scans(home).scans == [home / "p1", home / "p2"]


def test_folders_of_two_studies_beside_a_dicomdir_are_one_scan(tmp_path: Path) -> None:
    home = make_files(write_patients(tmp_path / "home", "p1", "p2"), "DICOMDIR", "README.TXT")
    assert find_scans(home).scans == [home]


def test_program_beside_the_folders_of_two_studies_is_skipped(tmp_path: Path) -> None:
    home = make_files(write_patients(tmp_path / "home", "p1", "p2"), "viewer/viewer.exe", "README.TXT")
    found = find_scans(home)
    assert (found.scans, found.skipped_folders) == ([home / "p1", home / "p2"], [home / "viewer"])


@pytest.mark.parametrize("series", [".", "DICOM"])
def test_mask_beside_the_slices_of_one_scan_is_no_scan(tmp_path: Path, series: str) -> None:
    home = tmp_path / "p1"
    write_series(home / series, "1.2.3")
    write_image(home / "LA.nii.gz", 2)
    found = find_scans(home)
    assert (found.scans, found.skipped_files) == ([home], [home / "LA.nii.gz"])


def test_slices_without_positions_are_no_scan(tmp_path: Path) -> None:
    write_series(tmp_path / "p1" / "LGE", "1.2.3")
    for name in ("screenshots", "captured slices"):
        write_series(tmp_path / "p1" / name, "1.2.4", sop_class=SECONDARY_CAPTURE)
    for path in (tmp_path / "p1" / "screenshots").iterdir():
        with edit_dicom(path) as data:
            del data.ImagePositionPatient
    assert {case.image.name for case in find_cases(tmp_path).cases} == {"LGE", "captured slices"}


def test_only_the_first_slice_of_a_folder_is_opened_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "p1", "1.2.3")
    opened: list[str] = []
    monkeypatch.setattr(dicom_labels, "stated_class", lambda path: opened.append(path.name) or stated_class(path))
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {"p1": ("p1", None)}
    assert sorted(opened) == ["IM0.dcm", "IM0.dcm", "IM1.dcm", "IM2.dcm"]


def test_contours_of_many_patients_are_skipped_in_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        write_object(tmp_path / f"p{number}" / "contours.dcm", sop_class=STRUCTURE_SET)
        make_files(tmp_path / f"p{number}", "lge.nii.gz")
    compared: list[PurePath] = []
    is_equal = PurePath.__eq__
    monkeypatch.setattr(PurePath, "__eq__", lambda path, other: compared.append(path) or is_equal(path, other))
    assert set(skip_reasons(find_cases(tmp_path)).values()) == {CONTOURS}
    assert len(compared) < 20 * 40
