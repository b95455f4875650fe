"""Find cases in folders of DICOM slices and DICOM segmentations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from dcamt.cases.folders import find_cases
from dcamt.cases.found_cases import CONTOURS, NO_SCAN, OTHER_LABEL, RESULT, SEVERAL_LABELS
from dcamt.cases.label_pairing import labelmaps_by_case
from dcamt.commands.scan_paths import find_scans
from dcamt.errors import InputError
from dcamt.io.readers import read_labelmap
from dcamt_testing.case_folders import make_files, scans_and_labels, skip_reasons
from dcamt_testing.dicom_positions import REPORT, new_data_set, write_frames, write_slice
from dcamt_testing.processes import HANGING_S
from pydicom.dataset import Dataset

SEGMENTATION, STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"


def write_series(folder: Path, series: str, ending: str = ".dcm") -> Path:
    for place in range(3):
        write_slice(folder / f"IM{place}{ending}", place, series=series)
    return folder


def write_object(path: Path, refers_to: str = "", sop_class: str = SEGMENTATION) -> Path:
    """Write the header of a DICOM object that refers to a series ("" for none)."""
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
        "p2_lge": ("p2/lge", "p2/S3"),
        "p3_cine": ("p3/cine", None),
        "p3_lge": ("p3/lge", None),
    }
    assert skip_reasons(found) == {"S3": NO_SCAN}


def test_segmentation_named_p1_is_the_label_of_the_slices_in_folder_p1(tmp_path: Path) -> None:
    for number, patient in enumerate(("p1", "p2"), start=1):
        write_series(tmp_path / "images" / patient, f"1.2.{number}")
        write_object(tmp_path / "labels" / f"{patient}.dcm")
    assert scans_and_labels(find_cases(tmp_path), tmp_path) == {
        "p1": ("images/p1", "labels/p1.dcm"),
        "p2": ("images/p2", "labels/p2.dcm"),
    }


@pytest.mark.parametrize("label", ["labels/p1.dcm", "labels/p1/1-1.dcm", "p1/SEG/1-1.dcm"])
def test_single_segmentation_in_a_folder_is_paired_if_the_folder_or_the_file_is_named_p1(
    tmp_path: Path, label: str
) -> None:
    scan = "p1/scan.nii.gz" if label.startswith("p1") else "images/p1.nii.gz"
    make_files(tmp_path, scan)
    write_object(tmp_path / label, "1.2.3")  # The scan was converted from this series, which is missing.
    found, paths = find_cases(tmp_path), [label, str(Path(label).parent)]
    assert scans_and_labels(found, tmp_path)["p1"] in [(scan, path) for path in paths]
    assert not found.skipped


def test_segmentations_a_and_b_of_scan_p1_and_result_pred_of_scan_p2_are_skipped(tmp_path: Path) -> None:
    write_series(tmp_path / "p1", "1.2.3")
    for reader in ("a", "b"):
        write_object(tmp_path / "p1" / f"{reader}.dcm", "1.2.3")
    write_series(tmp_path / "p2", "1.2.4")
    write_object(tmp_path / "p2" / "pred.dcm", "1.2.4")
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {"p2": ("p2", None)}
    reasons = dict.fromkeys(("p1", "a.dcm", "b.dcm"), SEVERAL_LABELS) | {"pred.dcm": RESULT}
    assert skip_reasons(found) == reasons


def test_segmentation_la_lge_is_the_label_and_ra_and_la_wall_beside_it_are_skipped(tmp_path: Path) -> None:
    for patient, series in (("p1", "1.2.3"), ("p2", "1.2.4")):
        write_series(tmp_path / patient, series)
    for name in ("LA_lge", "RA", "LA_wall"):
        write_object(tmp_path / "p1" / f"{name}.dcm", "1.2.3")
    write_object(tmp_path / "p2" / "lge wall and cavity.dcm", "1.2.4")  # the only segmentation of p2
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
    path.parent.mkdir(parents=True, exist_ok=True)
    data = pydicom.dcmread(write_frames(path, range(5)))
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    data.save_as(path)
    return path


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


def test_labelmaps_by_case_finds_segmentations_named_p1_and_p2_seg_dcm(tmp_path: Path) -> None:
    files = [write_object(tmp_path / "labels" / name) for name in ("p1", "p2_seg.DCM")]
    write_slice(tmp_path / "labels" / "IM1", 1)
    assert labelmaps_by_case(tmp_path / "labels") == {"p1": files[0], "p2": files[1]}
    with pytest.raises(InputError, match=r"but folders below it do \(labels/p1\)"):
        labelmaps_by_case(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipe_is_not_opened(tmp_path: Path) -> None:
    write_series(tmp_path / "p1", "1.2.3")
    os.mkfifo(tmp_path / "p1" / "pipe")
    program = "import sys, pathlib; from dcamt.cases.folders import find_cases; find_cases(pathlib.Path(sys.argv[1]))"
    # Opening a pipe without a writer would never return, so the search runs in another process.
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=HANGING_S)
