"""Find the cases that a data set's `dataset.json` lists."""

from __future__ import annotations

import json
from pathlib import Path, PurePath

import pytest
from dcamt.cases import dataset_json, listed_cases
from dcamt.cases.folder_files import files_in
from dcamt.cases.folders import find_all_scans, find_cases
from dcamt.cases.found_cases import DECATHLON, NAMES, NNUNET
from dcamt.errors import InputError
from dcamt_testing.case_folders import make_data_set, make_files, scans_and_labels, skip_reasons


def test_decathlon_data_set_is_recognised(tmp_path: Path) -> None:
    files = ("imagesTr/la_003.nii.gz", "labelsTr/la_003.nii.gz", "imagesTs/la_001.nii.gz", "imagesTr/._la_003.nii.gz")
    description = {
        "labels": {"0": "background", "1": "left atrium"},
        "training": [
            {"image": f"./{files[0]}", "label": f"./{files[1]}"},
            {"image": "./imagesTr/gone.nii.gz", "label": f"./{files[1]}"},
        ],
        "test": [f"./{files[2]}"],
    }
    found_cases = find_cases(make_data_set(tmp_path, description, *files))
    assert found_cases.layout == DECATHLON
    assert scans_and_labels(found_cases, tmp_path) == {"la_003": (files[0], files[1]), "la_001": (files[2], None)}
    assert [one.path.name for one in found_cases.skipped] == ["gone.nii.gz"]
    assert found_cases.classes == ((1, "left atrium"),)


_IMAGES, _LABELS = (tuple(f"{part}/{name}.nii.gz" for name in "ab") for part in ("imagesTr", "labelsTr"))
_BOTH = tuple(zip(_IMAGES, _LABELS, strict=True))
_PAIR_A = {"image": _IMAGES[0], "label": _LABELS[0]}


@pytest.mark.parametrize(
    "training",
    [
        {"a": {"image": _IMAGES[0], "label": _LABELS[0]}, "b": {"image": _IMAGES[1], "label": _LABELS[1]}},
        [list(pair) for pair in _BOTH],
        {"image": list(_IMAGES), "label": list(_LABELS)},
        [{"Image": image, "seg": label} for image, label in _BOTH],
        [{"images": [image], "label": [label]} for image, label in _BOTH],
        [{"image": image.removesuffix(".gz"), "label": label.removesuffix(".nii.gz")} for image, label in _BOTH],
        [{"image": image, "label": label} for image, label in (*_BOTH, _BOTH[0])],
        2,
    ],
    ids=(
        *("cases by name", "arrays of image and label", "array of images, array of labels", "other keys"),
        *("arrays of one file", "other endings", "case a listed twice", "number of cases"),
    ),
)
def test_cases_a_and_b_are_found_in_each_form_of_the_training_list(tmp_path: Path, training: object) -> None:
    described = {"labels": {"0": "background", "1": "LA"}, "training": training}
    found = find_cases(make_data_set(tmp_path, described, *_IMAGES, *_LABELS))
    assert scans_and_labels(found, tmp_path) == {"a": _BOTH[0], "b": _BOTH[1]}
    assert not found.skipped


def test_arrays_of_images_and_labels_are_paired_by_their_order(tmp_path: Path) -> None:
    images, labels = ("images/a.nii.gz", "images/b.nii.gz"), ("labels/2.nii.gz", "labels/1.nii.gz")
    described = {"training": {"image": images, "label": labels}}
    found = find_cases(make_data_set(tmp_path, described, *images, *labels))
    assert scans_and_labels(found, tmp_path) == {"a": (images[0], labels[0]), "b": (images[1], labels[1])}


def test_first_of_two_listed_images_without_channel_numbers_is_the_scan(tmp_path: Path) -> None:
    described = {"test": [["imagesTs/a_T1.nii.gz", "imagesTs/a_T2.nii.gz"]]}
    found = find_cases(make_data_set(tmp_path, described, "imagesTs/a_T1.nii.gz", "imagesTs/a_T2.nii.gz"))
    assert list(scans_and_labels(found, tmp_path).values()) == [("imagesTs/a_T1.nii.gz", None)]
    assert [file.path.name for file in found.skipped] == ["a_T2.nii.gz"]


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


@pytest.mark.parametrize(
    "labels", [["background", "LA"], {"0": "background", "1": "LA", "\u00b2": "x"}], ids=["array", "object"]
)
def test_class_la_is_read_from_an_array_and_from_an_object_with_an_invalid_key(tmp_path: Path, labels: object) -> None:
    found = find_cases(make_data_set(tmp_path, {"labels": labels}, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"))
    assert found.classes == ((1, "LA"),)


@pytest.mark.parametrize(("training", "validation", "test"), [("train", "val", "testing"), ("training", "val", "test")])
def test_lists_of_cases_may_have_the_keys_train_val_and_testing(
    tmp_path: Path, training: str, validation: str, test: str
) -> None:
    files = [f"images{part}/{name}.nii.gz" for part, name in (("Tr", "a"), ("Tr", "b"), ("Ts", "c"))]
    labels = [f"labelsTr/{name}.nii.gz" for name in "ab"]
    described = {
        training: [{"image": files[0], "label": labels[0]}],
        validation: [{"image": files[1], "label": labels[1]}],
        test: [{"image": files[2]}],
    }
    found = find_cases(make_data_set(tmp_path, described, *files, *labels))
    assert list(scans_and_labels(found, tmp_path).values()) == [*zip(files, labels, strict=False), (files[2], None)]
    assert found.skipped == ()


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


def test_scan_in_a_subfolder_may_be_listed_without_its_channel_number(tmp_path: Path) -> None:
    files = ("data/imagesTr/a_0000.nii.gz", "data/labelsTr/a.nii.gz")
    pairs = [{"image": "./data/imagesTr/a.nii.gz", "label": "./data/labelsTr/a.nii.gz"}]
    found = find_cases(make_data_set(tmp_path, {"training": pairs}, *files))
    assert scans_and_labels(found, tmp_path) == {"a": files}


def test_files_that_the_data_set_does_not_list_are_skipped(tmp_path: Path) -> None:
    found_cases = find_cases(make_data_set(tmp_path, {"training": [_PAIR_A]}, *_IMAGES, *_LABELS))
    assert scans_and_labels(found_cases, tmp_path) == {"a": _BOTH[0]}
    assert skip_reasons(found_cases) == dict.fromkeys(["b.nii.gz"], "dataset.json does not list it")
    assert len(found_cases.skipped) == 2


def test_listed_test_cases_with_labels_are_skipped(tmp_path: Path) -> None:
    described = {"training": [_PAIR_A], "test": ["./imagesTs/t.nii.gz"]}
    found_cases = find_cases(make_data_set(tmp_path, described, *_BOTH[0], "imagesTs/t.nii.gz", "labelsTs/t.nii.gz"))
    assert scans_and_labels(found_cases, tmp_path) == {"a": _BOTH[0]}
    assert skip_reasons(found_cases) == {"t.nii.gz": "a test case of the data set"}


def test_both_channels_and_the_label_of_a_listed_test_case_are_skipped_for_the_same_reason(tmp_path: Path) -> None:
    test = ("imagesTs/t_0000.nii.gz", "imagesTs/t_0001.nii.gz", "labelsTs/t.nii.gz")
    described = {"training": [_PAIR_A], "test": ["./imagesTs/t.nii.gz"]}
    found_cases = find_cases(make_data_set(tmp_path, described, *_BOTH[0], *test))
    assert sorted(one.path.relative_to(tmp_path).as_posix() for one in found_cases.skipped) == sorted(test)
    assert {one.reason for one in found_cases.skipped} == {"a test case of the data set"}


def test_cases_are_found_in_the_folders_if_dataset_json_lists_none(tmp_path: Path) -> None:
    files = ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    found = find_cases(make_data_set(tmp_path, {"training": [], "test": [], "dataset": {}}, *files))
    assert scans_and_labels(found, tmp_path) == {"a": files}


def test_slashes_in_the_case_name_are_replaced_by_underscores(tmp_path: Path) -> None:
    listed = {"../../a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    found = find_cases(make_data_set(tmp_path, {"dataset": listed}, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"))
    assert [case.name for case in found.cases] == [".._.._a"]


def test_folders_beside_a_data_set_are_named_as_skipped(tmp_path: Path) -> None:
    data_set = ("Task02/imagesTr/x_0000.nii.gz", "Task02/labelsTr/x.nii.gz")
    found = find_cases(make_files(tmp_path, *data_set, "Hospital/p1/lge.nrrd", "notes/read me.txt"))
    assert [*scans_and_labels(found, tmp_path)] == ["x"]
    assert [file.path for file in found.skipped] == [tmp_path / "Hospital"]
    assert "beside a data set" in found.skipped[0].reason


def test_linked_data_set_is_read_once(tmp_path: Path) -> None:
    home = make_files(tmp_path, "Task02/imagesTr/x_0000.nii.gz", "Task02/labelsTr/x.nii.gz")
    (home / "latest").symlink_to(home / "Task02")
    assert [*scans_and_labels(find_cases(home), home)] == ["x"]


def test_scan_in_several_lists_is_one_case(tmp_path: Path) -> None:
    files = ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b.nii.gz", "labelsTs/b.nii.gz")
    test = [files[2], files[0]]
    found = find_cases(make_data_set(tmp_path, {"training": [_PAIR_A], "test": test, "testing": test}, *files))
    assert [case.name for case in (*found.cases, *found.unused)] == ["a", "b"]


@pytest.mark.parametrize(
    "further",
    [{}, {"training": [{"image": "imagesTr/la_001_0000.nii.gz"}]}],
    ids=["only lists of names", "beside a list of files"],
)
def test_lists_of_case_names_such_as_la_001_are_ignored(tmp_path: Path, further: dict[str, object]) -> None:
    described = {"train": ["la_001"], "val": ["la_002"], "testing": ["la_003"], **further}
    found = find_cases(make_data_set(tmp_path, described, "imagesTr/la_001_0000.nii.gz", "labelsTr/la_001.nii.gz"))
    assert [case.image.name for case in found.cases] == ["la_001_0000.nii.gz"]
    assert {file.path.name for file in found.skipped} == ({"la_001.nii.gz"} if further else set())


def test_list_entry_is_a_path_if_it_has_an_image_ending_or_names_an_existing_file(tmp_path: Path) -> None:
    described = {"train": ["x/a.nii.gz", "x/gone.nii.gz"], "val": ["x/b"]}
    found = find_cases(make_data_set(tmp_path, described, "x/a.nii.gz", "x/b", "x/c.nii.gz"))
    assert sorted(scans_and_labels(found, tmp_path).values()) == [("x/a.nii.gz", None), ("x/b", None)]
    assert skip_reasons(found).keys() == {"gone.nii.gz"}


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["labelsTr/a.nii.gz", "labelsTr/b.nii.gz"], ()),
        (["left atrium", "wall"], ()),
        (["background", "labelsTr/b.nii.gz"], ()),
        ([0, "LA"], ()),
        ([], ()),
        *(
            (([word, "LA", "wall"]), ((1, "LA"), (2, "wall")))
            for word in ("Background", "bg", "unlabeled", "unlabelled")
        ),
    ],
)
def test_labels_array_is_read_as_class_names_only_if_the_background_comes_first_and_no_element_names_a_file(
    tmp_path: Path, labels: list[object], classes: tuple[tuple[int, str], ...]
) -> None:
    assert dataset_json.dataset_classes(make_data_set(tmp_path, {"labels": labels})) == classes


@pytest.mark.parametrize(
    ("image", "label"), [("image", "gt"), ("images", "masks"), ("image", "label_path"), ("image_file", "Segmentation")]
)
def test_keys_of_a_listed_case_are_recognised_by_their_words(tmp_path: Path, image: str, label: str) -> None:
    entry = {image: _IMAGES[0], label: _LABELS[0], "label_id": "7", "image_name": "a"}
    found = find_cases(make_data_set(tmp_path, {"training": [entry]}, *_BOTH[0]))
    assert (scans_and_labels(found, tmp_path), found.layout) == ({"a": _BOTH[0]}, DECATHLON)


def test_labels_under_two_keys_are_not_used(tmp_path: Path) -> None:
    entry = {"image": _IMAGES[0], "mask_1": _LABELS[0], "mask_2": "labelsTr/a_2.nii.gz"}
    found = find_cases(make_data_set(tmp_path, {"training": [entry]}, *_BOTH[0], "labelsTr/a_2.nii.gz"))
    assert scans_and_labels(found, tmp_path) == {"a": (_IMAGES[0], None)}
    assert skip_reasons(found).keys() == {"a.nii.gz", "a_2.nii.gz"}


def test_test_cases_that_are_listed_with_labels_are_not_trained_on(tmp_path: Path) -> None:
    test = [{"image": "test/t.nii.gz", "label": "test/t_seg.nii.gz"}, {"image": "test/u.nii.gz"}]
    described = {"training": [_PAIR_A], "testing": test}
    files = (*_BOTH[0], "test/t.nii.gz", "test/t_seg.nii.gz", "test/u.nii.gz")
    found = find_cases(make_data_set(tmp_path, described, *files))
    assert scans_and_labels(found, tmp_path) == {"a": _BOTH[0], "u": ("test/u.nii.gz", None)}
    assert skip_reasons(found) == dict.fromkeys(("t.nii.gz", "t_seg.nii.gz"), "a test case of the data set")
    assert [(case.name, case.label) for case in found.unused] == [("t", tmp_path / "test/t_seg.nii.gz")]


@pytest.mark.parametrize("start", ["", "../Dataset1/", "{home}/"])
def test_files_that_are_not_listed_under_the_json_key_dataset_are_skipped(tmp_path: Path, start: str) -> None:
    home = tmp_path / "Dataset1"
    images, label = [start.format(home=home) + _IMAGES[0]], start.format(home=home) + _LABELS[0]
    described = {"dataset": {"one": {"images": images, "label": label}}}
    found = find_cases(make_data_set(home, described, *_IMAGES, *_LABELS, "imagesTs/c_0000.nii.gz"))
    assert [case.name for case in found.cases] == ["one"]
    assert skip_reasons(found) == dict.fromkeys(("b.nii.gz", "c_0000.nii.gz"), "dataset.json does not list it")
    assert [case.name for case in found.unused] == ["b", "c"]


def test_region_of_one_value_names_a_class(tmp_path: Path) -> None:
    described = {"labels": {"background": 0, "heart": [1, 2], "LA": [1], "wall": 2}}
    found = find_cases(make_data_set(tmp_path, described, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"))
    assert found.classes == ((1, "LA"), (2, "wall"))


@pytest.mark.parametrize("start", ["/old/disk/set/", "D:\\set\\", "set/", "~/set/"])
def test_listed_files_of_a_moved_data_set_are_found_in_deeper_folders(
    tmp_path: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ("p1/visit1/lge.nii.gz", "p1/visit1/seg.nii.gz")
    make_data_set(tmp_path / "moved", {"training": [{"image": start + files[0], "label": start + files[1]}]}, *files)
    monkeypatch.chdir(tmp_path)
    for home in (tmp_path / "moved", Path("moved")):
        assert list(scans_and_labels(find_cases(home), home).values()) == [files]


def test_listed_scans_p_0000_to_p_0002_are_three_cases(tmp_path: Path) -> None:
    files = [(f"imagesTr/p_{n:04}.nii.gz", f"labelsTr/p_{n:04}.nii.gz") for n in range(3)]
    entries = [{"image": image, "label": label} for image, label in files]
    found = find_cases(make_data_set(tmp_path, {"training": entries}, *(file for pair in files for file in pair)))
    assert list(scans_and_labels(found, tmp_path).values()) == files
    assert not found.skipped


def test_arrays_of_images_and_labels_of_unequal_length_are_ignored(tmp_path: Path) -> None:
    described = {"training": {"image": ["a.nii.gz", "b.nii.gz"], "label": ["a_seg.nii.gz"]}}
    found = find_cases(make_data_set(tmp_path, described, "a.nii.gz", "b.nii.gz", "a_seg.nii.gz"))
    assert scans_and_labels(found, tmp_path) == {"a": ("a.nii.gz", "a_seg.nii.gz"), "b": ("b.nii.gz", None)}


def test_other_folders_of_a_data_set_are_named_as_skipped(tmp_path: Path) -> None:
    names = (
        "imagesTr/a_0000.nii.gz",
        "labelsTr/a.nii.gz",
        "imagesVa/b_0000.nii.gz",
        "labelsVa/b.nii.gz",
        "notes/x.txt",
    )
    for described in ({}, {"training": [{"image": names[0], "label": names[1]}]}):
        found = find_cases(make_data_set(tmp_path, described, *names))
        assert scans_and_labels(found, tmp_path) == {"a": names[:2]}
        assert [file.path.name for file in found.skipped] == ["imagesVa", "labelsVa"]


@pytest.mark.parametrize("other", ["pred_mask", "auto_label", "scar_mask"])
def test_predictions_and_masks_of_other_structures_are_no_labels_of_a_listed_case(tmp_path: Path, other: str) -> None:
    entry = {"image": _IMAGES[0], other: "other/a.nii.gz"}
    for entries, label in (([entry], None), ([{**entry, "la_mask": _LABELS[0]}], _LABELS[0])):
        found = find_cases(make_data_set(tmp_path, {"training": entries}, *_BOTH[0], "other/a.nii.gz"))
        assert scans_and_labels(found, tmp_path) == {"a": (_IMAGES[0], label)}


def test_listed_case_may_be_named_scan_1(tmp_path: Path) -> None:
    found = find_cases(make_data_set(tmp_path, {"training": {"scan_1": _BOTH[0]}}, *_BOTH[0]))
    assert scans_and_labels(found, tmp_path) == {"scan_1": _BOTH[0]}


@pytest.mark.parametrize("start", ["", "/old/disk/"])
@pytest.mark.parametrize("key", ["training", "test"])
def test_scan_does_not_replace_a_missing_listed_label_of_the_same_name(tmp_path: Path, start: str, key: str) -> None:
    pair = {"image": f"{start}scans/a.nii.gz", "label": f"{start}masks/a.nii.gz"}
    described = {"training": [{"image": "imagesTr/b.nii.gz"}], key: [{"image": "imagesTr/b.nii.gz"}, pair]}
    found = find_cases(make_data_set(tmp_path, described, "a.nii.gz", "imagesTr/b.nii.gz"))
    assert [(case.name, case.label) for case in found.cases] == [("b", None)]
    assert tmp_path / start / "masks/a.nii.gz" in [file.path for file in found.skipped]
    assert all(case.label is None for case in found.unused)


def test_ignored_folders_and_folders_with_links_to_files_are_not_named_as_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_files(tmp_path, *(f"disk/{file}" for file in _BOTH[0]), "set/results/a.nii.gz", "set/notes/a.nii.gz")
    for file in _BOTH[0]:
        (tmp_path / "set" / file).parent.mkdir()
        (tmp_path / "set" / file).symlink_to(tmp_path / "disk" / file)
    monkeypatch.chdir(tmp_path)
    found = find_all_scans(Path("set"), ignored=iter([tmp_path / "set/results"]))
    assert [file.path for file in found.skipped] == [Path("set/notes")]


def test_listed_test_cases_are_found_in_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 40
    names = [(f"imagesTs/t{n}.nii.gz", f"labelsTs/t{n}.nii.gz") for n in range(count)]
    described = {
        "training": [_PAIR_A],
        "test": [{"image": image, "label": label} for image, label in names],
    }
    home = make_data_set(tmp_path, described, *_BOTH[0], *(file for pair in names for file in pair))
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
        ({"training": [_PAIR_A]}, ("images/a", "labels/a"), NAMES),
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


def test_error_names_missing_listed_files_if_the_folder_contains_no_scan(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"imagesTr/b.nii.gz: dataset.json names it, but it does not exist"):
        find_cases(make_data_set(tmp_path, {"training": [{"image": "imagesTr/b.nii.gz"}]}, "labelsTr/a.nii.gz"))


_PAIRS = [{"image": f"data/a{n}.nii.gz", "label": f"data/b{n}.nii.gz"} for n in (1, 2)]


@pytest.mark.parametrize(
    "described",
    [{"dataset": _PAIRS}, _PAIRS, {"training": {"fold_0": _PAIRS[:1], "fold_1": _PAIRS[1:]}}],
    ids=("array under dataset", "only an array", "folds"),
)
def test_arrays_of_cases_in_dataset_json_pair_scans_with_labels(tmp_path: Path, described: object) -> None:
    files = [tuple(pair.values()) for pair in _PAIRS]
    found = find_cases(make_data_set(tmp_path, described, *files[0], *files[1]))
    assert scans_and_labels(found, tmp_path) == {"a1": files[0], "a2": files[1]}


def test_folds_of_arrays_of_a_scan_and_its_label_are_read(tmp_path: Path) -> None:
    pairs = [(f"{name}.nii.gz", f"{name}_seg.nii.gz") for name in ("p1", "p2", "p3")]
    described = {"training": {"fold_0": pairs[:2], "fold_1": pairs[2:]}}
    found = find_cases(make_data_set(tmp_path, described, *(file for pair in pairs for file in pair), "p4.nii.gz"))
    assert scans_and_labels(found, tmp_path) == {scan[:2]: (scan, label) for scan, label in pairs}


@pytest.mark.parametrize("name", ["fold_0", "Fold1"])
def test_images_of_a_fold_are_cases(tmp_path: Path, name: str) -> None:
    files = ("scans/a.nii.gz", "scans/b.nii.gz")
    found = find_cases(make_data_set(tmp_path, {"training": {name: files}}, *files))
    assert scans_and_labels(found, tmp_path) == {"a": (files[0], None), "b": (files[1], None)}


@pytest.mark.parametrize("key", ["training", "dataset"])
def test_label_listed_after_an_array_of_channels_is_no_scan(tmp_path: Path, key: str) -> None:
    files = ("p1_0000.nii.gz", "p1_0001.nii.gz", "p1_seg.nii.gz")
    found = find_cases(make_data_set(tmp_path, {key: {"p1": [list(files[:2]), files[2]]}}, *files))
    assert scans_and_labels(found, tmp_path) == {"p1": (files[0], files[2])}


@pytest.mark.parametrize("name", ["dataset_0.json", "datalist.json"])
def test_case_list_that_is_not_named_dataset_json_is_skipped(tmp_path: Path, name: str) -> None:
    make_files(tmp_path, "scans/a.nii.gz", "data.json")
    (tmp_path / "dataset_info.json").write_text('{"training": 20, "authors": ["image"]}', encoding="utf-8")
    (tmp_path / "scans" / name).write_text(json.dumps({"validation": _PAIRS}), encoding="utf-8")
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {"a": ("scans/a.nii.gz", None)}
    assert skip_reasons(found) == {name: "not read; to use the cases that it lists, name it dataset.json"}


@pytest.mark.parametrize("label", [{}, {"label": 1}, {"diagnosis": "AF"}])
def test_dataset_json_that_is_an_array_without_label_files_is_ignored(tmp_path: Path, label: dict[str, object]) -> None:
    found = find_cases(make_data_set(tmp_path, [{"image": "p1.nii.gz", **label}], "p1.nii.gz", "p1_seg.nii.gz"))
    assert scans_and_labels(found, tmp_path) == {"p1": ("p1.nii.gz", "p1_seg.nii.gz")}


def test_folders_beside_data_sets_are_found_in_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        make_files(tmp_path / f"Task{number}", "imagesTr/x_0000.nii.gz", "labelsTr/x.nii.gz")
        make_files(tmp_path / f"Hospital{number}", "lge.nrrd")
    calls: list[PurePath] = []
    parents = PurePath.parents.fget
    assert parents is not None
    monkeypatch.setattr(PurePath, "parents", property(lambda path: calls.append(path) or parents(path)))
    assert len(find_cases(tmp_path).skipped) == 20
    assert len(calls) < 20 * 20


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
        (label_b, "dataset.json names it, but it does not exist"),
        (scan_b, "dataset.json lists it together with a file that does not exist"),
    ]
    assert [(case.name, case.image, case.label) for case in found.unused] == [("b", tmp_path / scan_b, None)]


def test_data_set_without_any_of_its_listed_labels_can_be_segmented(tmp_path: Path) -> None:
    training = [{"image": f"scans/{name}.nii.gz", "label": f"outlines/{name}.nii.gz"} for name in "ab"]
    folder = make_data_set(tmp_path, {"training": training}, "scans/a.nii.gz", "scans/b.nii.gz")
    assert [case.name for case in find_all_scans(folder).unused] == ["a", "b"]
    with pytest.raises(InputError, match=r"outlines/a.nii.gz: dataset.json names it, but it does not exist") as error:
        find_cases(folder)
    assert "not searched" not in str(error.value)


def test_label_whose_listed_scan_does_not_exist_is_skipped_with_the_reason(tmp_path: Path) -> None:
    training = [_PAIR_A, {"image": _IMAGES[1], "label": _LABELS[1]}]
    found = find_cases(make_data_set(tmp_path, {"training": training}, *_BOTH[0], _LABELS[1]))
    assert [(file.path.relative_to(tmp_path).as_posix(), file.reason) for file in found.skipped] == [
        (_IMAGES[1], "dataset.json names it, but it does not exist"),
        (_LABELS[1], "dataset.json lists it together with a file that does not exist"),
    ]


def test_missing_file_that_several_folds_list_is_skipped_once(tmp_path: Path) -> None:
    folds = {f"fold_{n}": [_PAIR_A, {"image": _IMAGES[1], "label": _LABELS[1]}] for n in range(3)}
    found = find_cases(make_data_set(tmp_path, {"training": folds}, *_BOTH[0]))
    assert [file.path.name for file in found.skipped] == ["b.nii.gz", "b.nii.gz"]
