"""Find the cases of nnU-Net data sets by their folders, channels and dataset.json."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import pytest
from dcamt.cases.folders import find_all_scans, find_cases
from dcamt.cases.found_cases import NNUNET, OTHER_CHANNEL, RESULT, UNREADABLE
from dcamt.cases.nnunet_folders import find_nnunet_cases
from dcamt_testing.case_folders import make_data_set, make_files, scans_and_labels, skip_reasons, write_image


def test_cases_of_an_nnunet_data_set_are_found(tmp_path: Path) -> None:
    files = ("imagesTr/la_001_0000.nii.gz", "imagesTr/la_001_0001.nii.gz", "imagesTr/la_002_0000.nii.gz")
    labels = ("labelsTr/la_001.nii.gz", "labelsTr/la_009.nii.gz")
    found_cases = find_cases(make_files(tmp_path, *files, *labels, "imagesTs/la_005_0000.nii.gz"))
    assert found_cases.layout == NNUNET
    assert scans_and_labels(found_cases, tmp_path) == {
        "la_001": (files[0], labels[0]),
        "la_002": (files[2], None),
        "la_005": ("imagesTs/la_005_0000.nii.gz", None),
    }
    assert {one.path.name for one in found_cases.skipped} == {"la_001_0001.nii.gz", "la_009.nii.gz"}


def test_scans_p_0000_to_p_0002_with_labels_of_the_same_names_are_three_cases(tmp_path: Path) -> None:
    names = [f"p_000{number}" for number in range(3)]
    files = [f"{folder}/{name}.nii.gz" for folder in ("imagesTr", "labelsTr") for name in names]
    found_cases = find_cases(make_files(tmp_path, *files))
    assert scans_and_labels(found_cases, tmp_path) == dict(
        zip(names, zip(files[:3], files[3:], strict=True), strict=True)
    )
    assert found_cases.skipped == ()


def test_nnunet_names_whose_accents_are_stored_differently_are_paired(tmp_path: Path) -> None:
    composed, decomposed = (normalize(form, "Müller") for form in ("NFC", "NFD"))
    files = (f"imagesTr/{composed}_0000.nii.gz", f"labelsTr/{decomposed}.nii.gz")
    found_cases = find_cases(make_files(tmp_path, *files))
    assert scans_and_labels(found_cases, tmp_path) == {composed: files}
    assert found_cases.skipped == ()


def test_nnunet_test_set_with_labels_is_skipped(tmp_path: Path) -> None:
    files = ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b_0000.nii.gz", "labelsTs/b.nii.gz")
    description = {"labels": {"background": 0, "Left atrium": 1, "Wall": 2}, "channel_names": {"0": "MRI"}}
    found_cases = find_cases(make_data_set(tmp_path, description, *files))
    assert scans_and_labels(found_cases, tmp_path) == {"a": (files[0], files[1])}
    assert {one.reason for one in found_cases.skipped} == {"a test case of the data set"}
    assert found_cases.classes == ((1, "Left atrium"), (2, "Wall"))


def test_listed_channels_a_0000_and_a_0001_are_one_case(tmp_path: Path) -> None:
    described = {"training": [["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"]]}
    found = find_cases(make_data_set(tmp_path, described, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"))
    assert scans_and_labels(found, tmp_path) == {"a": ("imagesTr/a_0000.nii.gz", None)}


def test_nnunet_v1_entry_la_003_means_the_file_la_003_0000(tmp_path: Path) -> None:
    files = ("imagesTr/la_003_0000.nii.gz", "imagesTr/la_003_0001.nii.gz", "labelsTr/la_003.nii.gz")
    description = {
        "labels": {"0": "background", "1": "LA"},
        "training": [{"image": "./imagesTr/la_003.nii.gz", "label": "./labelsTr/la_003.nii.gz"}],
        "test": ["./imagesTs/la_009.nii.gz"],
    }
    found_cases = find_cases(make_data_set(tmp_path, description, *files, "imagesTs/la_009_0000.nii.gz"))
    assert found_cases.layout == NNUNET
    assert scans_and_labels(found_cases, tmp_path) == {
        "la_003": (files[0], files[2]),
        "la_009": ("imagesTs/la_009_0000.nii.gz", None),
    }
    assert skip_reasons(found_cases) == {"la_003_0001.nii.gz": OTHER_CHANNEL}
    assert found_cases.classes == ((1, "LA"),)


def test_nnunet_v2_case_of_two_images_has_the_first_as_its_scan(tmp_path: Path) -> None:
    make_files(tmp_path, "elsewhere/c.nii.gz")
    listed = {
        "case1": {"images": ["a.nii.gz", "b.nii.gz"], "label": "a_label.nii.gz"},
        "case2": {"images": ["../elsewhere/c.nii.gz"]},
        "case3": {"images": ["gone.nii.gz"], "label": "a_label.nii.gz"},
        "case4": "nonsense",
    }
    described = {"labels": {"background": 0, "LA": 1}, "dataset": listed}
    found_cases = find_cases(make_data_set(tmp_path / "data", described, "a.nii.gz", "b.nii.gz", "a_label.nii.gz"))
    cases = {case.name: (case.image.name, case.label.name if case.label else None) for case in found_cases.cases}
    assert cases == {"case1": ("a.nii.gz", "a_label.nii.gz"), "case2": ("c.nii.gz", None)}
    assert skip_reasons(found_cases).keys() == {"b.nii.gz", "gone.nii.gz"}
    assert found_cases.classes == ((1, "LA"),)


def test_parent_folder_of_nnunet_data_sets_gives_all_their_cases(tmp_path: Path) -> None:
    one = ("nnUNet_raw/Dataset001_LA/imagesTr/a_0000.nii.gz", "nnUNet_raw/Dataset001_LA/labelsTr/a.nii.gz")
    two = ("nnUNet_raw/Dataset002_RA/imagesTr/a_0000.nii.gz", "nnUNet_raw/Dataset002_RA/labelsTr/a.nii.gz")
    make_files(tmp_path, *one, *two, "nnUNet_raw/Dataset001_LA/imagesTs/b_0000.nii.gz")
    found_cases = find_cases(tmp_path / "nnUNet_raw")
    assert found_cases.layout == NNUNET
    assert sorted(scans_and_labels(found_cases, tmp_path).values()) == sorted(
        [one, two, ("nnUNet_raw/Dataset001_LA/imagesTs/b_0000.nii.gz", None)]
    )


def test_numbered_files_become_one_case_when_they_share_a_label(tmp_path: Path) -> None:
    names = [f"p_{number:04d}.nrrd" for number in range(3)]
    assert scans_and_labels(find_cases(make_files(tmp_path, *names)), tmp_path).keys() == {"p_0000", "p_0001", "p_0002"}
    found_cases = find_cases(make_files(tmp_path, "p_seg.nrrd"))
    assert scans_and_labels(found_cases, tmp_path) == {"p": ("p_0000.nrrd", "p_seg.nrrd")}
    assert skip_reasons(found_cases).keys() == {"p_0001.nrrd", "p_0002.nrrd"}


@pytest.mark.parametrize("name", ["imagesTr", "imagesTs"])
def test_channels_a_0000_and_a_0001_are_one_case(tmp_path: Path, name: str) -> None:
    home = make_files(tmp_path, *(f"{name}/{scan}_{n:04}.nii.gz" for scan in ("a", "b") for n in range(2))) / name
    found_cases = find_cases(home)
    assert scans_and_labels(found_cases, home) == {"a": ("a_0000.nii.gz", None), "b": ("b_0000.nii.gz", None)}
    assert skip_reasons(found_cases) == {"a_0001.nii.gz": OTHER_CHANNEL, "b_0001.nii.gz": OTHER_CHANNEL}


def test_value_that_nnunet_ignores_is_no_class(tmp_path: Path) -> None:
    described = {"labels": {"background": 0, "LA": 1, "ignore": 2}, "file_ending": ".nii.gz"}
    found = find_cases(make_data_set(tmp_path, described, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"))
    assert found.classes == ((1, "LA"),)


def test_nnunet_scan_in_imagestr_is_paired_with_its_label_in_a_folder_labels(tmp_path: Path) -> None:
    files = ("D/imagesTr/x_0000.nii.gz", "D/labels/x.nii.gz")
    assert [*scans_and_labels(find_cases(make_files(tmp_path, *files)), tmp_path).values()] == [files]


_SCANS = ("D1/imagesTr/la_001_0000.nii.gz", "D1/imagesTr/la_002_0000.nii.gz")
_LA = {"labels": {"background": 0, "LA": 1}}


def test_nnunet_data_set_may_have_no_labels(tmp_path: Path) -> None:
    make_files(tmp_path, *_SCANS, "D1/predictions/la_001.nii.gz")
    found = find_cases(make_data_set(tmp_path / "D1", _LA))
    assert scans_and_labels(found, tmp_path) == {"la_001": (_SCANS[0], None), "la_002": (_SCANS[1], None)}
    assert (found.layout, found.classes) == (NNUNET, ((1, "LA"),))
    assert skip_reasons(found) == {"la_001.nii.gz": RESULT}


@pytest.mark.parametrize("label", [None, "D1/GT/la_001.nii.gz"])
def test_nnunet_data_set_without_labelstr_is_found_beside_another_data_set(tmp_path: Path, label: str | None) -> None:
    other = ("D2/imagesTr/a_0000.nii.gz", "D2/labelsTr/a.nii.gz")
    home = make_files(tmp_path, *_SCANS, *other, *([label] if label else []))
    for name in ("D1", "D2"):
        make_data_set(home / name, _LA)
    found = find_cases(home)
    cases = sorted(scans_and_labels(found, home).values())
    assert cases == [(_SCANS[0], label), (_SCANS[1], None), other]
    assert found.classes == ((1, "LA"),)


def test_scans_in_subfolders_of_imagestr_are_found_without_labels(tmp_path: Path) -> None:
    home = make_files(tmp_path, "imagesTr/p1/scan.nii.gz")
    assert [*scans_and_labels(find_cases(home), home).values()] == [("imagesTr/p1/scan.nii.gz", None)]


def test_nnunet_scans_and_labels_may_lie_in_subfolders(tmp_path: Path) -> None:
    files = [(f"imagesTr/{site}/p1_0000.nii.gz", f"labelsTr/{site}/p1.nii.gz") for site in ("siteA", "siteB")]
    found = find_cases(make_data_set(tmp_path, _LA, *files[0], *files[1]))
    assert list(scans_and_labels(found, tmp_path).values()) == files
    assert found.classes == ((1, "LA"),)


def test_nnunet_label_name_may_end_in_seg_or_have_other_capitals_than_its_scan(tmp_path: Path) -> None:
    files = [("imagesTr/a_0000.nii.gz", "labelsTr/a_seg.nii.gz"), ("imagesTr/B_0000.nii.gz", "labelsTr/b.nii.gz")]
    home = make_files(tmp_path, *files[0], *files[1])
    assert sorted(scans_and_labels(find_cases(home), home).values(), reverse=True) == files


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a_seg.nii.gz", "a label in a folder of scans; to use it, move it to the folder of labels"),
        ("a_LA.nii.gz", "a label in a folder of scans; to use it, move it to the folder of labels"),
        ("a.seg.nrrd", "a label in a folder of scans; to use it, move it to the folder of labels"),
        ("a_pred.nii.gz", RESULT),
    ],
)
@pytest.mark.parametrize("place", ["imagesTr", "imagesTs"])
@pytest.mark.parametrize("listed", [False, True])
def test_labels_and_results_among_the_scans_of_a_data_set_are_no_scans(
    tmp_path: Path, listed: bool, place: str, name: str, reason: str
) -> None:
    make_files(tmp_path, "labelsTr/b_seg.nii.gz", f"{place}/{name}")
    for file, values in ((f"{place}/a_0000.nii.gz", 200), ("imagesTr/b_seg_0000.nii.gz", 200)):
        write_image(tmp_path / file, values)
    if name.endswith(".nii.gz"):
        write_image(tmp_path / place / name, 2)
    if listed:
        training = [{"image": "imagesTr/b_seg_0000.nii.gz", "label": "labelsTr/b_seg.nii.gz"}]
        make_data_set(tmp_path, {"training": training, "test": [f"{place}/a_0000.nii.gz"]})
        reason = "dataset.json does not list it"
    found = find_all_scans(tmp_path)
    assert {case.image.name for case in (*found.cases, *found.unused)} == {"a_0000.nii.gz", "b_seg_0000.nii.gz"}
    assert skip_reasons(found) == {name: reason}


@pytest.mark.parametrize(
    ("scan", "label"),
    [("a.nii.gz", "a.seg.nrrd"), ("a_0000.nii.gz", "a.seg.nrrd"), ("a_0000.nii.gz", "a_0000.seg.nrrd")],
)
def test_label_among_the_scans_is_skipped_if_its_scan_has_a_label_in_labelstr(
    tmp_path: Path, scan: str, label: str
) -> None:
    make_files(tmp_path, f"imagesTr/{scan}", f"imagesTr/{label}", "labelsTr/a.nii.gz")
    found = find_all_scans(tmp_path)
    assert scans_and_labels(found, tmp_path) == {"a": (f"imagesTr/{scan}", "labelsTr/a.nii.gz")}
    assert set(skip_reasons(found)) == {label}


@pytest.mark.parametrize(("file_ending", "label"), [(".nii.gz", "a.nii.gz"), (".nrrd", "a.nrrd"), (None, None)])
def test_file_ending_selects_one_of_two_labels(tmp_path: Path, file_ending: str | None, label: str | None) -> None:
    files = (
        "imagesTr/a_0000.nii.gz",
        "labelsTr/a.nii.gz",
        "labelsTr/a.nrrd",
        "imagesTr/b_0000.nii.gz",
        "labelsTr/b.nii.gz",
    )
    found = find_all_scans(make_data_set(tmp_path, {"file_ending": file_ending}, *files))
    assert [case.label and case.label.name for case in found.cases] == [*([label] if label else []), "b.nii.gz"]
    unused = {"a.nii.gz", "a.nrrd"} - {label}
    assert set(skip_reasons(found)) == (unused if label else unused | {"a_0000.nii.gz"})
    assert [case.image.name for case in found.unused] == ([] if label else ["a_0000.nii.gz"])


def test_neither_of_two_labels_for_a_scan_in_imagests_is_used(tmp_path: Path) -> None:
    make_files(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b_0000.nii.gz")
    found = find_all_scans(make_files(tmp_path, "labelsTs/b.nii.gz", "labelsTs/b.seg.nrrd"))
    assert [(case.name, case.label) for case in found.unused] == [("b", None)]


def test_amos_0002_is_no_channel_if_no_file_has_the_number_0000(tmp_path: Path) -> None:
    scans = ("imagesTr/amos_0001.nii.gz", "imagesTr/amos_0004.nii.gz", "imagesTs/amos_0002.nii.gz")
    home = make_files(tmp_path, *scans, "labelsTr/amos_0001.nii.gz")
    assert scans_and_labels(find_cases(home), home) == {
        "amos_0001": (scans[0], "labelsTr/amos_0001.nii.gz"),
        "amos_0004": (scans[1], None),
        "amos_0002": (scans[2], None),
    }


def test_unreadable_folder_of_labels_is_among_the_skipped_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_files(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    denied = str(tmp_path / "labelsTr")

    def deny(list_folder: Callable[[str | Path], object]) -> Callable[[str | Path], object]:
        def list_or_refuse(path: str | Path) -> object:
            if str(path) == denied:
                raise PermissionError(errno.EACCES, "Permission denied", denied)
            return list_folder(path)

        return list_or_refuse

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, deny(getattr(os, name)))
    found_cases = find_cases(tmp_path)
    assert scans_and_labels(found_cases, tmp_path) == {"a": ("imagesTr/a_0000.nii.gz", None)}
    assert skip_reasons(found_cases) == {"labelsTr": UNREADABLE}


def test_case_of_images_ts_is_renamed_if_a_training_case_has_the_same_name(tmp_path: Path) -> None:
    scans = [f"images{part}_0000.nii.gz" for part in ("Tr/a", "Tr/imagesTs_a", "Ts/a")]
    labels = [f"labels{part}.nii.gz" for part in ("Tr/a", "Tr/imagesTs_a", "Ts/a")]
    found_cases = find_nnunet_cases(make_files(tmp_path, *scans, *labels))
    assert [case.name for case in found_cases.cases] == ["a", "imagesTs_a"]
    # The test case `a` gets the prefix `imagesTs_` twice, because `imagesTs_a` is also the name of a training case.
    assert [case.name for case in found_cases.unused] == ["imagesTs_imagesTs_a"]
