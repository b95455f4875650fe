"""Find the files that a data set's `dataset.json` lists, and skip its other files."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pytest
from dcamt.cases import listed_cases
from dcamt.cases.folder_files import files_in
from dcamt.cases.folders import find_all_scans, find_cases
from dcamt.cases.found_cases import NAMES, NNUNET
from dcamt.errors import InputError
from dcamt_testing.case_folders import (
    IMAGES,
    LABELS,
    PAIR_A,
    PAIRS,
    make_data_set,
    make_files,
    scans_and_labels,
    skip_reasons,
)
from dcamt_testing.scan_files import deny_folder


def test_listed_case_with_a_label_but_without_a_scan_is_skipped(tmp_path: Path) -> None:
    entries = [{"image": f"cases/{name}.nii.gz", "label": f"cases/{name}.seg.nrrd"} for name in "ab"]
    described = {"training": [entries[0], {"image": entries[1]["image"]}]}
    found = find_cases(make_data_set(tmp_path, described, "cases/a.seg.nrrd", "cases/b.nii.gz"))
    assert scans_and_labels(found, tmp_path) == {"b": ("cases/b.nii.gz", None)}
    assert [file.path.name for file in found.skipped] == ["a.nii.gz", "a.seg.nrrd"]


def test_folder_is_read_once_if_its_files_have_other_endings_than_in_dataset_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = {"training": [{"image": f"images/{number}.nii"} for number in range(9)]}
    make_data_set(tmp_path, described, *(f"images/{number}.nii.gz" for number in range(9)))
    listed: list[Path] = []
    monkeypatch.setattr(listed_cases, "files_in", lambda place, kinds: listed.append(place) or files_in(place, kinds))
    assert len(find_cases(tmp_path).cases) == 9
    assert listed.count(tmp_path / "images") == 1


def test_listed_paths_may_contain_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path, "data/s.nii.gz", "data/l.nii.gz")
    listed = {"a": {"images": ["$SCANS/s.nii.gz"], "label": "${SCANS}/l.nii.gz"}}
    monkeypatch.setenv("SCANS", str(tmp_path / "data"))
    found = find_cases(make_data_set(tmp_path / "set", {"dataset": listed}))
    assert scans_and_labels(found, tmp_path) == {"a": ("data/s.nii.gz", "data/l.nii.gz")}


@pytest.mark.parametrize("start", ["./imagesTr/", ".\\imagesTr\\", "/moved/Task1/imagesTr/", "C:\\Task1\\imagesTr\\"])
def test_paths_of_a_data_set_from_another_computer_are_found(tmp_path: Path, start: str) -> None:
    files = ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    listed = {"image": f"{start}a.nii.gz", "label": f"{start.replace('images', 'labels')}a.nii.gz"}
    found = find_cases(make_data_set(tmp_path, {"training": [listed]}, *files))
    assert scans_and_labels(found, tmp_path) == {"a": files}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_listed_files_are_found_with_composed_or_decomposed_accents(tmp_path: Path, form: str) -> None:
    stored, listed = normalize(form, "Müller"), normalize("NFD" if form == "NFC" else "NFC", "Müller")
    files = (f"imagesTr/{stored}_0000.nii.gz", f"labelsTr/{stored}.nii.gz")
    pair = {"image": f"imagesTr/{listed}.nii.gz", "label": f"labelsTr/{listed}.nii.gz"}
    found = find_cases(make_data_set(tmp_path, {"training": [PAIR_A, pair]}, *files, *PAIRS[0]))
    assert scans_and_labels(found, tmp_path) == {"a": PAIRS[0], normalize("NFC", "Müller"): files}


def test_scan_in_a_subfolder_may_be_listed_without_its_channel_number(tmp_path: Path) -> None:
    files = ("data/imagesTr/a_0000.nii.gz", "data/labelsTr/a.nii.gz")
    pairs = [{"image": "./data/imagesTr/a.nii.gz", "label": "./data/labelsTr/a.nii.gz"}]
    found = find_cases(make_data_set(tmp_path, {"training": pairs}, *files))
    assert scans_and_labels(found, tmp_path) == {"a": files}


def test_files_that_the_data_set_does_not_list_are_skipped(tmp_path: Path) -> None:
    found_cases = find_cases(make_data_set(tmp_path, {"training": [PAIR_A]}, *IMAGES, *LABELS))
    assert scans_and_labels(found_cases, tmp_path) == {"a": PAIRS[0]}
    assert skip_reasons(found_cases) == dict.fromkeys(["b.nii.gz"], "dataset.json does not list it")
    assert len(found_cases.skipped) == 2


def test_listed_test_cases_with_labels_are_skipped(tmp_path: Path) -> None:
    described = {"training": [PAIR_A], "test": ["./imagesTs/t.nii.gz"]}
    found_cases = find_cases(make_data_set(tmp_path, described, *PAIRS[0], "imagesTs/t.nii.gz", "labelsTs/t.nii.gz"))
    assert scans_and_labels(found_cases, tmp_path) == {"a": PAIRS[0]}
    assert skip_reasons(found_cases) == {"t.nii.gz": "a test case of the data set"}


def test_channels_and_label_of_a_listed_test_case_are_skipped_for_the_same_reason(tmp_path: Path) -> None:
    test = ("imagesTs/t_0000.nii.gz", "imagesTs/t_0001.nii.gz", "labelsTs/t.nii.gz")
    described = {"training": [PAIR_A], "test": ["./imagesTs/t.nii.gz"]}
    found_cases = find_cases(make_data_set(tmp_path, described, *PAIRS[0], *test))
    assert sorted(one.path.relative_to(tmp_path).as_posix() for one in found_cases.skipped) == sorted(test)
    assert {one.reason for one in found_cases.skipped} == {"a test case of the data set"}


def test_labelled_case_under_the_key_testing_is_skipped(tmp_path: Path) -> None:
    test = [{"image": "test/t.nii.gz", "label": "test/t_seg.nii.gz"}, {"image": "test/u.nii.gz"}]
    described = {"training": [PAIR_A], "testing": test}
    files = (*PAIRS[0], "test/t.nii.gz", "test/t_seg.nii.gz", "test/u.nii.gz")
    found = find_cases(make_data_set(tmp_path, described, *files))
    assert scans_and_labels(found, tmp_path) == {"a": PAIRS[0], "u": ("test/u.nii.gz", None)}
    assert skip_reasons(found) == dict.fromkeys(("t.nii.gz", "t_seg.nii.gz"), "a test case of the data set")
    assert [(case.name, case.label) for case in found.unused] == [("t", tmp_path / "test/t_seg.nii.gz")]


@pytest.mark.parametrize("start", ["", "../Dataset1/", "{home}/"])
def test_files_that_an_nnunet_v2_data_set_does_not_list_are_skipped(tmp_path: Path, start: str) -> None:
    home = tmp_path / "Dataset1"
    images, label = [start.format(home=home) + IMAGES[0]], start.format(home=home) + LABELS[0]
    described = {"dataset": {"one": {"images": images, "label": label}}}
    found = find_cases(make_data_set(home, described, *IMAGES, *LABELS, "imagesTs/c_0000.nii.gz"))
    assert [case.name for case in found.cases] == ["one"]
    assert skip_reasons(found) == dict.fromkeys(("b.nii.gz", "c_0000.nii.gz"), "dataset.json does not list it")
    assert [case.name for case in found.unused] == ["b", "c"]


@pytest.mark.parametrize("start", ["/old/disk/set/", "D:\\set\\", "set/", "~/set/"])
def test_listed_files_of_a_moved_data_set_are_found(
    tmp_path: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ("p1/visit1/lge.nii.gz", "p1/visit1/seg.nii.gz")
    make_data_set(tmp_path / "moved", {"training": [{"image": start + files[0], "label": start + files[1]}]}, *files)
    monkeypatch.chdir(tmp_path)
    for home in (tmp_path / "moved", Path("moved")):
        assert list(scans_and_labels(find_cases(home), home).values()) == [files]


def test_listed_scans_p_0000_to_p_0002_are_three_cases_not_three_channels(tmp_path: Path) -> None:
    files = [(f"imagesTr/p_{n:04}.nii.gz", f"labelsTr/p_{n:04}.nii.gz") for n in range(3)]
    entries = [{"image": image, "label": label} for image, label in files]
    found = find_cases(make_data_set(tmp_path, {"training": entries}, *(file for pair in files for file in pair)))
    assert list(scans_and_labels(found, tmp_path).values()) == files
    assert not found.skipped


@pytest.mark.parametrize("start", ["", "/old/disk/"])
@pytest.mark.parametrize("key", ["training", "test"])
def test_one_file_is_not_both_scan_and_label_of_a_listed_case(tmp_path: Path, start: str, key: str) -> None:
    pair = {"image": f"{start}scans/a.nii.gz", "label": f"{start}masks/a.nii.gz"}
    described = {"training": [{"image": "imagesTr/b.nii.gz"}], key: [{"image": "imagesTr/b.nii.gz"}, pair]}
    found = find_cases(make_data_set(tmp_path, described, "a.nii.gz", "imagesTr/b.nii.gz"))
    assert [(case.name, case.label) for case in found.cases] == [("b", None)]
    assert tmp_path / start / "masks/a.nii.gz" in [file.path for file in found.skipped]
    assert all(case.label is None for case in found.unused)


def test_listed_test_cases_are_found_in_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 40
    names = [(f"imagesTs/t{n}.nii.gz", f"labelsTs/t{n}.nii.gz") for n in range(count)]
    described = {
        "training": [PAIR_A],
        "test": [{"image": image, "label": label} for image, label in names],
    }
    home = make_data_set(tmp_path, described, *PAIRS[0], *(file for pair in names for file in pair))
    compared: list[Path] = []
    equal = Path.__eq__
    monkeypatch.setattr(Path, "__eq__", lambda path, other: compared.append(path) or equal(path, other))
    found = listed_cases.find_listed_cases(home)
    assert len(found.unused) == count
    assert len(compared) < 10 * count


_NNUNET_FILES = ("imagesTr/a_0000", "labelsTr/a")


@pytest.mark.parametrize(
    ("described", "files", "layout"),
    [
        (
            {"training": [{"image": "imagesTr/b.nii", "label": "labelsTr/b.nii"}]},
            _NNUNET_FILES,
            NNUNET,
        ),
        ({"training": ["p1", "p2"], "test": ["p3"]}, _NNUNET_FILES, NNUNET),
        (
            {"dataset": {"b": {"images": ["/gone/b.nii"], "label": "/gone/c.nii"}}},
            _NNUNET_FILES,
            NNUNET,
        ),
        ({"training": [PAIR_A]}, ("images/a", "labels/a"), NAMES),
        ({"training": [{"image": "imagesTr/a.nii.gz"}]}, ("Task1/imagesTr/a_0000", "Task1/labelsTr/a"), NNUNET),
    ],
    ids=("renamed files", "names of cases", "nnU-Net v2", "renamed folders", "moved dataset.json"),
)
def test_dataset_json_that_lists_only_missing_files_is_ignored_with_a_note(
    tmp_path: Path, described: dict[str, object], files: tuple[str, str], layout: str
) -> None:
    scan, label = (f"{file}.nii.gz" for file in files)
    described = {"labels": {"0": "background", "1": "LA"}, **described}
    found = find_cases(make_data_set(tmp_path, described, scan, label))
    assert found.layout == layout
    assert scans_and_labels(found, tmp_path) == {"a": (scan, label)}
    assert skip_reasons(found).keys() == {"dataset.json"}
    assert found.classes == ((1, "LA"),)


def test_missing_listed_file_is_named_in_the_error_if_no_scan_is_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"imagesTr/b.nii.gz: dataset.json names it, but it cannot be found"):
        find_cases(make_data_set(tmp_path, {"training": [{"image": "imagesTr/b.nii.gz"}]}, "labelsTr/a.nii.gz"))


@pytest.mark.parametrize("folders", [("imagesTr", "labelsTr"), ("scans", "outlines")])
@pytest.mark.parametrize("key", ["training", "dataset"])
def test_scan_without_its_listed_label_is_not_trained_on_but_can_be_segmented(
    tmp_path: Path, folders: tuple[str, str], key: str
) -> None:
    (scan_a, label_a), (scan_b, label_b) = ([f"{folder}/{name}.nii.gz" for folder in folders] for name in "ab")
    pairs = {
        name: {"images": [scan], "label": label}
        for name, scan, label in zip("ab", (scan_a, scan_b), (label_a, label_b), strict=True)
    }
    listed = pairs if key == "dataset" else list(pairs.values())
    found = find_cases(make_data_set(tmp_path, {key: listed}, scan_a, label_a, scan_b))
    assert scans_and_labels(found, tmp_path) == {"a": (scan_a, label_a)}
    assert [(file.path.relative_to(tmp_path).as_posix(), file.reason) for file in found.skipped] == [
        (label_b, "dataset.json names it, but it cannot be found"),
        (scan_b, "dataset.json lists it together with a file that cannot be found"),
    ]
    assert [(case.name, case.image, case.label) for case in found.unused] == [("b", tmp_path / scan_b, None)]


def test_data_set_without_any_of_its_listed_labels_can_be_segmented(tmp_path: Path) -> None:
    training = [{"image": f"scans/{name}.nii.gz", "label": f"outlines/{name}.nii.gz"} for name in "ab"]
    folder = make_data_set(tmp_path, {"training": training}, "scans/a.nii.gz", "scans/b.nii.gz")
    assert [case.name for case in find_all_scans(folder).unused] == ["a", "b"]
    with pytest.raises(InputError, match=r"outlines/a.nii.gz: dataset.json names it, but it cannot be found") as error:
        find_cases(folder)
    assert "not searched" not in str(error.value)


def test_label_whose_listed_scan_does_not_exist_is_skipped_with_the_reason(tmp_path: Path) -> None:
    training = [PAIR_A, {"image": IMAGES[1], "label": LABELS[1]}]
    found = find_cases(make_data_set(tmp_path, {"training": training}, *PAIRS[0], LABELS[1]))
    assert [(file.path.relative_to(tmp_path).as_posix(), file.reason) for file in found.skipped] == [
        (IMAGES[1], "dataset.json names it, but it cannot be found"),
        (LABELS[1], "dataset.json lists it together with a file that cannot be found"),
    ]


def test_listed_files_in_a_folder_without_permission_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = [PAIR_A, {"image": "locked/b.nii.gz", "label": LABELS[1]}]
    make_data_set(tmp_path, {"training": training, "val": ["locked/c"]}, *PAIRS[0], LABELS[1], "locked/b.nii.gz")
    deny_folder(tmp_path / "locked", monkeypatch)
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {"a": PAIRS[0]}
    assert skip_reasons(found).keys() == {"locked", "b.nii.gz"}


def test_missing_files_listed_in_three_folds_are_skipped_once(tmp_path: Path) -> None:
    folds = {f"fold_{n}": [PAIR_A, {"image": IMAGES[1], "label": LABELS[1]}] for n in range(3)}
    found = find_cases(make_data_set(tmp_path, {"training": folds}, *PAIRS[0]))
    assert [file.path.relative_to(tmp_path).as_posix() for file in found.skipped] == [IMAGES[1], LABELS[1]]
