"""Read the cases and classes that a data set's `dataset.json` lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dcamt.cases import dataset_json
from dcamt.cases.folders import find_cases
from dcamt.cases.found_cases import DECATHLON
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


@pytest.mark.parametrize(
    "training",
    [
        {"a": {"image": IMAGES[0], "label": LABELS[0]}, "b": {"image": IMAGES[1], "label": LABELS[1]}},
        [list(pair) for pair in PAIRS],
        {"image": list(IMAGES), "label": list(LABELS)},
        [{"Image": image, "seg": label} for image, label in PAIRS],
        [{"images": [image], "label": [label]} for image, label in PAIRS],
        [{"image": image.removesuffix(".gz"), "label": label.removesuffix(".nii.gz")} for image, label in PAIRS],
        [{"image": image, "label": label} for image, label in (*PAIRS, PAIRS[0])],
        2,
    ],
    ids=(
        *("cases by name", "arrays of image and label", "array of images, array of labels", "other keys"),
        *("arrays of one file", "other endings", "case a listed twice", "number of cases"),
    ),
)
def test_cases_a_and_b_are_found_in_each_form_of_the_training_list(tmp_path: Path, training: object) -> None:
    described = {"labels": {"0": "background", "1": "LA"}, "training": training}
    found = find_cases(make_data_set(tmp_path, described, *IMAGES, *LABELS))
    assert scans_and_labels(found, tmp_path) == {"a": PAIRS[0], "b": PAIRS[1]}
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


def test_cases_are_found_in_the_folders_if_dataset_json_lists_none(tmp_path: Path) -> None:
    files = ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    found = find_cases(make_data_set(tmp_path, {"training": [], "test": [], "dataset": {}}, *files))
    assert scans_and_labels(found, tmp_path) == {"a": files}


def test_slashes_in_the_case_name_are_replaced_by_underscores(tmp_path: Path) -> None:
    listed = {"../../a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    found = find_cases(make_data_set(tmp_path, {"dataset": listed}, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"))
    assert [case.name for case in found.cases] == [".._.._a"]


def test_scan_in_several_lists_is_one_case(tmp_path: Path) -> None:
    files = ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b.nii.gz", "labelsTs/b.nii.gz")
    test = [files[2], files[0]]
    found = find_cases(make_data_set(tmp_path, {"training": [PAIR_A], "test": test, "testing": test}, *files))
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
def test_labels_array_names_classes_only_if_background_is_first_and_no_file_is_listed(
    tmp_path: Path, labels: list[object], classes: tuple[tuple[int, str], ...]
) -> None:
    assert dataset_json.dataset_classes(make_data_set(tmp_path, {"labels": labels})) == classes


@pytest.mark.parametrize(
    ("image", "label"), [("image", "gt"), ("images", "masks"), ("image", "label_path"), ("image_file", "Segmentation")]
)
def test_keys_of_a_listed_case_are_recognised_by_their_words(tmp_path: Path, image: str, label: str) -> None:
    entry = {image: IMAGES[0], label: LABELS[0], "label_id": "7", "image_name": "a"}
    found = find_cases(make_data_set(tmp_path, {"training": [entry]}, *PAIRS[0]))
    assert (scans_and_labels(found, tmp_path), found.layout) == ({"a": PAIRS[0]}, DECATHLON)


def test_labels_under_two_keys_are_not_used(tmp_path: Path) -> None:
    entry = {"image": IMAGES[0], "mask_1": LABELS[0], "mask_2": "labelsTr/a_2.nii.gz"}
    found = find_cases(make_data_set(tmp_path, {"training": [entry]}, *PAIRS[0], "labelsTr/a_2.nii.gz"))
    assert scans_and_labels(found, tmp_path) == {"a": (IMAGES[0], None)}
    assert skip_reasons(found).keys() == {"a.nii.gz", "a_2.nii.gz"}


def test_label_value_may_be_an_array_of_one_number(tmp_path: Path) -> None:
    described = {"labels": {"background": 0, "heart": [1, 2], "LA": [1], "wall": 2}}
    found = find_cases(make_data_set(tmp_path, described, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"))
    assert found.classes == ((1, "LA"), (2, "wall"))


def test_arrays_of_images_and_labels_of_unequal_length_are_ignored(tmp_path: Path) -> None:
    described = {"training": {"image": ["a.nii.gz", "b.nii.gz"], "label": ["a_seg.nii.gz"]}}
    found = find_cases(make_data_set(tmp_path, described, "a.nii.gz", "b.nii.gz", "a_seg.nii.gz"))
    assert scans_and_labels(found, tmp_path) == {"a": ("a.nii.gz", "a_seg.nii.gz"), "b": ("b.nii.gz", None)}


@pytest.mark.parametrize("other", ["pred_mask", "auto_label", "scar_mask"])
def test_auto_label_and_scar_mask_are_no_labels_of_a_listed_case(tmp_path: Path, other: str) -> None:
    entry = {"image": IMAGES[0], other: "other/a.nii.gz"}
    for entries, label in (([entry], None), ([{**entry, "la_mask": LABELS[0]}], LABELS[0])):
        found = find_cases(make_data_set(tmp_path, {"training": entries}, *PAIRS[0], "other/a.nii.gz"))
        assert scans_and_labels(found, tmp_path) == {"a": (IMAGES[0], label)}


def test_case_name_scan_1_is_not_read_as_an_image_key(tmp_path: Path) -> None:
    found = find_cases(make_data_set(tmp_path, {"training": {"scan_1": PAIRS[0]}}, *PAIRS[0]))
    assert scans_and_labels(found, tmp_path) == {"scan_1": PAIRS[0]}


_ENTRIES = [{"image": f"data/a{n}.nii.gz", "label": f"data/b{n}.nii.gz"} for n in (1, 2)]


@pytest.mark.parametrize(
    "described",
    [{"dataset": _ENTRIES}, _ENTRIES, {"training": {"fold_0": _ENTRIES[:1], "fold_1": _ENTRIES[1:]}}],
    ids=("array under dataset", "only an array", "folds"),
)
def test_arrays_of_cases_in_dataset_json_pair_scans_with_labels(tmp_path: Path, described: object) -> None:
    files = [tuple(pair.values()) for pair in _ENTRIES]
    found = find_cases(make_data_set(tmp_path, described, *files[0], *files[1]))
    assert scans_and_labels(found, tmp_path) == {"a1": files[0], "a2": files[1]}


def test_each_case_of_a_fold_may_be_an_array_of_scan_and_label(tmp_path: Path) -> None:
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
    (tmp_path / "scans" / name).write_text(json.dumps({"validation": _ENTRIES}), encoding="utf-8")
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {"a": ("scans/a.nii.gz", None)}
    assert skip_reasons(found) == {name: "not read; to use the cases that it lists, name it dataset.json"}


@pytest.mark.parametrize("label", [{}, {"label": 1}, {"diagnosis": "AF"}])
def test_dataset_json_that_is_an_array_without_label_files_is_ignored(tmp_path: Path, label: dict[str, object]) -> None:
    found = find_cases(make_data_set(tmp_path, [{"image": "p1.nii.gz", **label}], "p1.nii.gz", "p1_seg.nii.gz"))
    assert scans_and_labels(found, tmp_path) == {"p1": ("p1.nii.gz", "p1_seg.nii.gz")}
