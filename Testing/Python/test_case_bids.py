"""Find cases in BIDS data sets, whose labels lie in `derivatives` or elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from dcamt.cases.folders import find_all_scans, find_cases
from dcamt.cases.found_cases import BIDS, OTHER_LABEL, RESULT
from dcamt_testing.case_folders import make_files, scans_and_labels, skip_reasons, write_image


def test_bids_labels_are_found_in_derivatives(tmp_path: Path) -> None:
    raw = [f"sub-0{n}/ses-1/anat/sub-0{n}_ses-1_acq-lge_T1w.nii.gz" for n in (1, 2)]
    second = "sub-01/ses-2/anat/sub-01_ses-2_acq-lge_T1w.nii.gz"
    label = "derivatives/manual/sub-01/ses-1/anat/sub-01_ses-1_acq-lge_desc-atrium_dseg.nii.gz"
    suffixed = "derivatives/manual/sub-02/ses-1/anat/sub-02_ses-1_acq-lge_T1w_seg.nii.gz"
    others = ("derivatives/prep/sub-01/anat/sub-01_ses-1_acq-lge_desc-preproc_T1w.nii.gz", "sub-03/anat/notes.json")
    stray = "derivatives/manual/sub-09/anat/sub-09_label-LA_mask.nii.gz"
    found_cases = find_cases(make_files(tmp_path, *raw, second, label, suffixed, *others, stray))
    assert found_cases.layout == BIDS
    assert set(scans_and_labels(found_cases, tmp_path).values()) == {
        (raw[0], label),
        (raw[1], suffixed),
        (second, None),
    }
    assert skip_reasons(found_cases) == {
        Path(others[0]).name: "a derived image",
        Path(stray).name: "a label without a scan",
    }


def test_bids_label_is_skipped_when_it_fits_several_scans(tmp_path: Path) -> None:
    raw = [f"sub-01/anat/sub-01_run-{n}_T1w.nii.gz" for n in (1, 2)]
    found_cases = find_cases(make_files(tmp_path, *raw, "derivatives/sub-01/anat/sub-01_dseg.nii.gz"))
    assert all(case.label is None for case in found_cases.cases)
    assert skip_reasons(found_cases) == {"sub-01_dseg.nii.gz": "its name fits several scans"}


def test_bids_label_belongs_to_the_scan_with_the_same_entities(tmp_path: Path) -> None:
    scan, other = (f"sub-01/anat/sub-01{run}_T1w.nii.gz" for run in ("", "_run-2"))
    label = "derivatives/sub-01/sub-01_mask.nii.gz"
    found = find_cases(make_files(tmp_path, scan, other, label))
    assert scans_and_labels(found, tmp_path) == {"sub-01_T1w": (scan, label), "sub-01_run-2_T1w": (other, None)}


def test_bids_label_with_the_suffixes_t1w_dseg_belongs_to_the_t1w_scan(tmp_path: Path) -> None:
    scan, other = (f"sub-01/anat/sub-01_acq-lge_{suffix}.nii.gz" for suffix in ("T1w", "T2w"))
    label = "derivatives/sub-01/sub-01_T1w_dseg.nii.gz"
    found = find_cases(make_files(tmp_path, scan, other, label))
    assert set(scans_and_labels(found, tmp_path).values()) == {(scan, label), (other, None)}


@pytest.mark.parametrize(
    ("entities", "reason"),
    [
        ("space-LGE_label-RA", OTHER_LABEL),
        ("label-wall", OTHER_LABEL),
        ("desc-pred", RESULT),
        ("label-LA_desc-nnUNet", RESULT),
    ],
)
def test_bids_label_of_the_atrium_is_preferred_to_other_labels_and_results(
    tmp_path: Path, entities: str, reason: str
) -> None:
    scan, other = "sub-01/anat/sub-01_LGE.nii.gz", f"derivatives/sub-01/sub-01_{entities}_mask.nii.gz"
    label = "derivatives/sub-01/sub-01_label-LA_mask.nii.gz"
    found = find_cases(make_files(tmp_path, scan, label, other))
    assert scans_and_labels(found, tmp_path) == {"sub-01_LGE": (scan, label)}
    assert skip_reasons(found) == {Path(other).name: reason}


def test_bids_label_of_the_right_atrium_is_paired_if_there_is_no_other_label(tmp_path: Path) -> None:
    scan, label = "sub-01/anat/sub-01_LGE.nii.gz", "derivatives/sub-01/sub-01_label-RA_mask.nii.gz"
    found = find_cases(make_files(tmp_path, scan, label))
    assert scans_and_labels(found, tmp_path) == {"sub-01_LGE": (scan, label)}


@pytest.mark.parametrize(
    "label",
    [
        "labels/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T1w.seg.nrrd",
        "derivatives/labels/sub-01/anat/sub-01_T1w_seg-manual.nii.gz",
        "derivatives/x/sub-01/anat/sub-01_label-LA.nii.gz",
        "sub-01/anat/sub-01_T1w_LA.nii.gz",
    ],
)
@pytest.mark.parametrize("raw", ["", "rawdata/"])
def test_bids_label_is_recognised(tmp_path: Path, raw: str, label: str) -> None:
    scan = f"{raw}sub-01/anat/sub-01_T1w.nii.gz"
    label = f"{raw if label.startswith('sub-') else ''}{label}"
    make_files(tmp_path, scan, label)
    if label.endswith("_LA.nii.gz"):
        write_image(tmp_path / label, 2)
    found = find_cases(tmp_path)
    assert found.layout == BIDS
    assert scans_and_labels(found, tmp_path) == {"sub-01_T1w": (scan, label)}
    assert found.skipped == ()


@pytest.mark.parametrize("folder", ["derivatives/nnUNet", "derivatives/totalsegmentator", "predictions"])
def test_bids_folder_of_predictions_is_skipped(tmp_path: Path, folder: str) -> None:
    scan, label = "sub-01/anat/sub-01_T1w.nii.gz", "derivatives/manual/sub-01/anat/sub-01_T1w_dseg.nii.gz"
    result = f"{folder}/sub-01/anat/sub-01_T1w_desc-v1_dseg.nii.gz"
    found = find_cases(make_files(tmp_path, scan, label, result))
    assert scans_and_labels(found, tmp_path) == {"sub-01_T1w": (scan, label)}
    assert skip_reasons(found) == {Path(result).name: RESULT}


def test_bids_file_named_after_a_structure_is_a_mask_only_if_it_has_few_values(tmp_path: Path) -> None:
    for suffix, values in (("T1w", 200), ("scar", 2), ("wall", 150)):
        write_image(tmp_path / f"sub-01/anat/sub-01_{suffix}.nii.gz", values)
    found = find_cases(tmp_path)
    assert [case.name for case in found.cases] == ["sub-01_T1w", "sub-01_wall"]
    assert skip_reasons(found) == {"sub-01_scar.nii.gz": OTHER_LABEL}


@pytest.mark.parametrize(
    ("folder", "suffix", "values", "reason"),
    [
        ("manual", "LA", 2, OTHER_LABEL),
        ("manual", "heart_atrium_left", 2, OTHER_LABEL),
        ("manual", "scar", 2, OTHER_LABEL),
        ("manual", "LA", 150, "a derived image"),
        ("manual", "T1map", 2, "a derived image"),
        ("totalsegmentator", "heart_atrium_left", 2, RESULT),
    ],
)
def test_bids_derivative_named_after_a_structure_is_a_mask_only_if_it_has_few_values(
    tmp_path: Path, folder: str, suffix: str, values: int, reason: str
) -> None:
    write_image(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz", 200)
    write_image(tmp_path / f"derivatives/{folder}/sub-01/anat/sub-01_{suffix}.nii.gz", values)
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {"sub-01_T1w": ("sub-01/anat/sub-01_T1w.nii.gz", None)}
    assert skip_reasons(found) == {f"sub-01_{suffix}.nii.gz": reason}


def test_lge_and_lge_seg_in_a_folder_named_sub_01_are_one_case(tmp_path: Path) -> None:
    files = [f"sub-0{n}/lge{end}.nii.gz" for n in (1, 2) for end in ("", "_seg")]
    found = find_cases(make_files(tmp_path, *files))
    assert set(scans_and_labels(found, tmp_path).values()) == {tuple(files[:2]), tuple(files[2:])}


def test_file_without_a_bids_name_is_skipped_if_another_file_has_a_bids_name(tmp_path: Path) -> None:
    found = find_all_scans(make_files(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/lge.nii.gz"))
    assert [case.name for case in found.cases] == ["sub-01_T1w"]
    assert skip_reasons(found) == {"lge.nii.gz": "its name contains no subject, such as sub-01"}
