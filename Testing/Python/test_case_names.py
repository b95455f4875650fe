"""File names determine the case's name, the channel, and which files are scans and which are labels.

The module `dcamt.cases.names` explains the terms.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dcamt.cases.case_names import case_name, names_with_numbers
from dcamt.cases.label_pairing import pair_with_labels, short_names
from dcamt.cases.names import FileKind, classify, labels_beside_scans
from dcamt.io.channels import channel_of


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("la_001.nii.gz", "la_001"),
        ("la_001_0000.nii.gz", "la_001"),
        ("la000_image.nrrd", "la000"),
        ("la000_label.seg.nrrd", "la000"),
        ("p01_gt.nii", "p01"),
        ("p01-Segmentation.nrrd", "p01"),
        ("site2.1_patient01.nii.gz", "site2.1_patient01"),
        ("1.3.6.1.4.1.14519.5.2.1.1.nii.gz", "1.3.6.1.4.1.14519.5.2.1.1"),
        ("1.3.6.1.4.1.14519.5.2.1.2.seg.nrrd", "1.3.6.1.4.1.14519.5.2.1.2"),
        ("patient_2019.nrrd", "patient_2019"),
        ("p_0001.nrrd", "p_0001"),
        ("label.nrrd", "label"),
        ("maskell.nrrd", "maskell"),
        ("a_pred.nii.gz", "a"),
        ("a_dcamt.seg.nrrd", "a"),
        ("result.nrrd", "result"),
    ],
)
def test_case_name_comes_from_the_file_name(file: str, name: str) -> None:
    assert case_name(file) == name
    assert case_name(f"folder/{file}") == name


@pytest.mark.parametrize(
    ("scan", "label"),
    [
        ("LGE.nrrd", "Segmentation-label.nrrd"),
        ("LGE.nrrd", "Segmentation-label_1.nrrd"),
        ("P1.nii.gz", "p1_SEG.nii.gz"),
        ("p1.nii.gz", "p1Mask.nii.gz"),
        ("p1.nii.gz", "p1_Maske.nii.gz"),
        ("scan1.nii.gz", "mask1.nii.gz"),
    ],
)
def test_common_spellings_of_labels_are_recognised_only_beside_a_scan(scan: str, label: str) -> None:
    folder = Path("patients")
    assert labels_beside_scans([folder / scan, folder / label], folder) == [folder / label]
    assert labels_beside_scans([folder / label], folder) == []


def test_channel_is_1_for_suffix_0001_and_none_for_suffix_2019() -> None:
    assert [channel_of(f"a_{n}.nii.gz") for n in ("0000", "0001", "2019", "x")] == [0, 1, None, None]


def test_files_of_public_data_sets_are_classified(tmp_path: Path) -> None:
    def kind_and_key(text: str) -> tuple[FileKind, tuple[str, ...]]:
        named = classify(tmp_path / text, tmp_path)
        return named.kind, named.key

    assert kind_and_key("P1/lgemri.nrrd") == (FileKind.SCAN, ("P1",))
    assert kind_and_key("P1/laendo.nrrd") == (FileKind.LABEL, ("P1",))
    assert kind_and_key("P1/lawall.nrrd") == (FileKind.OTHER_LABEL, ("P1",))
    assert kind_and_key("train_1/atriumSegImgMO.nii.gz") == (FileKind.LABEL, ("train_1",))
    assert kind_and_key("train_1/scarSegImgM.nii.gz") == (FileKind.OTHER_LABEL, ("train_1",))
    assert kind_and_key("Case_1/Contours/Case_1.nii.gz") == (FileKind.LABEL, ("Case_1", "Case_1"))
    assert kind_and_key("x.seg.nrrd") == (FileKind.LABEL, ("x",))


def test_label_is_recognised_only_beside_the_scan_of_the_same_case() -> None:
    folder = Path("patients")
    names = ["p01.nii.gz", "p01_seg.nii.gz", "p02.nrrd", "p02_mask.nii.gz", "p03_0000.nii", "p03_gt.nii", "q_seg.nii"]
    recognised = labels_beside_scans([folder / name for name in names], folder)
    assert [path.name for path in recognised] == ["p01_seg.nii.gz", "p02_mask.nii.gz", "p03_gt.nii"]


@pytest.mark.parametrize(
    "word", ["pred", "prediction", "auto", "result", "output", "dcamt", "auto_seg", "LA_gt", "RV_mask"]
)
def test_label_or_result_is_recognised_beside_its_scan(word: str) -> None:
    folder = Path("patients")
    files = [folder / "p1.nii.gz", folder / f"p1_{word}.nii.gz"]
    assert labels_beside_scans(files, folder) == files[1:]


def test_label_p1_seg_is_recognised_beside_p1_lge() -> None:
    files = [Path(f"patients/{name}.nii.gz") for name in ("p1_lge", "p1_seg", "p2_mri", "p2_gt", "q_seg")]
    assert labels_beside_scans(files, Path("patients")) == [files[1], files[3]]


def test_label_p1_seg_is_not_paired_with_cases_p1_lge_and_p1_t2() -> None:
    labels = {"p1_seg": Path("p1_seg")}
    assert pair_with_labels(["p1_lge", "p1_t2"], labels) == labels


def test_label_p1_mr_is_not_paired_with_case_p1_ct() -> None:
    labels = {"p1_mr": Path("p1_mr")}
    assert pair_with_labels(["p1_CT"], labels) == labels


def test_label_p1_la_is_paired_with_case_p1_if_no_other_label_fits() -> None:
    labels = {name: Path(name) for name in ("p1_LA", "p2", "p2_LA", "p3_LA", "LA_p3", "p4_post_LA")}
    paired = pair_with_labels(["p1", "p2", "p3", "p4"], labels)
    assert paired["p1"] == Path("p1_LA")
    assert paired["p2"] == Path("p2")
    assert "p3" not in paired, "p3_LA and LA_p3 both fit p3"
    assert "p4" not in paired, "p4_post_LA is a label of another scan, p4_post"
    assert sorted(map(str, paired.values())) == sorted(labels), "labels without a case are returned, too"


@pytest.mark.parametrize(
    ("case", "label"),
    [
        *(("seg_p1", "gt_p1"), ("img0001", "label0001"), ("p1_laendo", "p1"), ("p1_rvseg", "p1_rvseg_gt")),
        *(("p1", "out_p1"), ("P1", "p1"), ("P1_LGE", "p1_label"), ("mri_1", "mask_1")),
    ],
)
def test_case_and_label_of_similar_names_are_paired(case: str, label: str) -> None:
    assert pair_with_labels([case], {label: Path(label)}) == {case: Path(label)}


@pytest.mark.parametrize(
    ("case", "label"),
    [
        ("p1", "p1_lawall"),
        ("p1", "p1_scarSegImgM"),
        ("p1", "p1_rvseg"),
        ("p1_rvseg", "p1"),
        ("p1_wallmask", "p1_laseg"),
        ("p1_lawall", "p1_laendo"),
        ("seg_p1", "p1_scarmask"),
    ],
)
def test_case_and_label_of_different_structures_are_not_paired(case: str, label: str) -> None:
    assert pair_with_labels([case], {label: Path(label)}) == {label: Path(label)}


@pytest.mark.parametrize("word", ["lawall", "RAendo", "scarSegImgM", "rvseg", "LV"])
def test_label_such_as_p1_lawall_is_not_paired_with_case_p1(word: str) -> None:
    labels = {f"p{n}_{word}": Path(f"p{n}_{word}") for n in (1, 2)}
    assert pair_with_labels(["p1", "p2"], labels) == labels


def test_label_p1_la_final_is_paired_with_case_p1_la_and_not_with_p1() -> None:
    paired = pair_with_labels(["p1", "p1_LA"], {"p1_LA_final": Path("a")})
    assert paired == {"p1_LA": Path("a")}
    paired = pair_with_labels(["p1", "p1_LA"], {"p1_LA_final": Path("a"), "p1_final": Path("b")})
    assert paired == {"p1_LA": Path("a"), "p1": Path("b")}
    paired = pair_with_labels(["p1", "p1_LA"], {"p1_LA": Path("a"), "p1_LA_final": Path("b")})
    assert paired == {"p1_LA": Path("a"), "p1_LA_final": Path("b")}, "p1_LA_final is not the label of p1"


def test_label_p_seg_3_is_paired_with_case_p_unless_p_1_is_a_case() -> None:
    labels = {"p_seg_3": Path("a")}
    assert pair_with_labels(["p", "p_1"], labels) == labels
    assert pair_with_labels(["p", "q_1"], labels) == {"p": Path("a")}


def test_capitals_are_ignored_unless_two_case_names_differ_only_in_capitals() -> None:
    labels = {"P1_LA": Path("P1_LA")}
    assert pair_with_labels(["p1"], labels) == {"p1": Path("P1_LA")}
    assert pair_with_labels(["p1", "P1"], labels) == {"P1": Path("P1_LA")}
    assert pair_with_labels(["pa1", "PA1"], {"Pa1_LA": Path("x")}) == {"Pa1_LA": Path("x")}


def test_short_names_keep_at_least_one_word() -> None:
    assert short_names("LA_final") == ["LA"]
    assert short_names("LA_manual_2") == ["manual_2", "2"]


def test_short_names_of_each_label_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def count(name: str) -> list[str]:
        asked.append(name)
        return short_names(name)

    monkeypatch.setattr("dcamt.cases.label_pairing.short_names", count)
    cases = [f"p{number}" for number in range(30)]
    paired = pair_with_labels(cases, {f"{case}_LA": Path(case) for case in cases})
    assert paired == {case: Path(case) for case in cases}
    assert sorted(asked) == sorted(f"{case}_LA" for case in cases)


def test_names_with_numbers_takes_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    matched: list[str] = []

    def count(pattern: str, text: str) -> re.Match[str] | None:
        matched.append(text)
        return fullmatch(pattern, text)

    fullmatch = re.fullmatch
    files = {f"p{number}": Path(f"p{number}_0000.nii.gz") for number in range(30)}
    monkeypatch.setattr(re, "fullmatch", count)
    assert names_with_numbers(files) == {name: name for name in files}
    assert names_with_numbers(files | {"p7_0001": Path("p7_0001.nii.gz")})["p7"] == "p7_0000"
    assert len(matched) <= 2 * len(files) + 1
