"""Read the cases and classes that a data set's `dataset.json` lists (nnU-Net, Decathlon, MONAI)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from ..errors import InputError
from ..io.formats import IMAGE_ENDINGS, ending
from ..io.typed_json import parse_json
from .names import FileKind, classify
from .words import IMAGE_WORDS, LABEL_WORDS, OTHER_STRUCTURES_WITHOUT_LGE, PREDICTION_WORDS, RESULT_WORDS, has_word

_IGNORED = "ignore"
"""nnU-Net's name for the value of voxels that are left out of training. The value is no class."""
TEST_LISTS = ("test", "testing")
LISTS = ("training", "train", "validation", "val", *TEST_LISTS)
_LISTS_OF_FILES_OR_NAMES = ("train", "val", "testing")
"""Lists whose entries are files or, in some nnU-Net data sets, only names of cases."""
_BACKGROUND = ("background", "bg", "unlabeled", "unlabelled")
_WORDS_OF_OTHER_KEYS = PREDICTION_WORDS | RESULT_WORDS | OTHER_STRUCTURES_WITHOUT_LGE
"""Keys with these words, such as `pred_mask` and `scar_mask`, stand for neither the scan nor the atrium's label."""
_FOLD = re.compile(r"fold[\W_]*\d+", re.IGNORECASE)
"""Keys of the folds of a cross-validation."""
_IMAGE_KEYS, _LABEL_KEYS = ("image", "images", "img", "scan"), ("label", "labels", "seg", "segmentation", "mask")


def read_description(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's `dataset.json`; empty if there is no such file, or it holds no JSON object.

    If the file holds an array of cases, and one of the cases has a label, return `{"training": array}`.

    Raises:
        InputError: the file cannot be read, or is not valid JSON.
    """
    path = folder / "dataset.json"
    return _read(path) if os.path.isfile(path) else {}


def other_case_lists(files: Iterable[Path]) -> list[Path]:
    """Return the JSON files that list cases and are not named `dataset.json`, such as MONAI's `dataset_0.json`.

    Files whose names do not begin with `data` are left out.
    """
    names = re.compile(r"data(?!set\.json).*\.json", re.IGNORECASE)
    return [path for path in files if names.fullmatch(path.name) and is_case_list(path)]


def is_case_list(path: Path) -> bool:
    """Return whether a JSON file lists cases; False if the file does not exist or is damaged."""
    try:
        described = _read(path)
    except InputError:
        return False
    return lists_nnunet_cases(described) or lists_cases(described, path.parent)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({error})", path=path, remedy="Repair or remove the file.") from error
    if isinstance(data, list) and any(isinstance(label, str) for _, label, _ in entries_of(data)):
        return {"training": data}
    return data if isinstance(data, dict) else {}


def dataset_classes(folder: Path) -> tuple[tuple[int, str], ...]:
    """Return label values above 0 and their names from a folder's `dataset.json`; empty if no value has a name.

    Raises:
        InputError: as `read_description`.
    """
    return classes_of(read_description(folder))


def ignored_value(folder: Path) -> int | None:
    """Return the label value that nnU-Net v2 names `ignore` in `dataset.json`; None if there is no such value.

    Voxels with this value are not background: nobody decided whether they belong to a class.

    Raises:
        InputError: as `read_description`.
    """
    listed = read_description(folder).get("labels")
    value = listed.get(_IGNORED) if isinstance(listed, dict) else None
    return value if isinstance(value, int) else None


def lists_cases(described: Mapping[str, Any], folder: Path) -> bool:
    """Return whether the `dataset.json` of `folder` lists cases of a Decathlon or nnU-Net v1 data set."""
    return any(listed_entries(described, key, folder) for key in LISTS)


def lists_nnunet_cases(described: Mapping[str, Any]) -> bool:
    """Return whether a `dataset.json` lists cases under the key `dataset`, as in nnU-Net v2."""
    return bool(entries_of(described.get("dataset")))


def listed_entries(described: Mapping[str, Any], key: str, folder: Path) -> list[tuple[list[object], object, str]]:
    """Return the images, label and name of each case under a key of `dataset.json` (see `entries_of`).

    Entries that are only names of cases are left out.
    """
    listed = described.get(key)
    if key in _LISTS_OF_FILES_OR_NAMES and isinstance(listed, list):
        listed = [
            entry
            for entry in listed
            if not isinstance(entry, str) or ending(entry) in IMAGE_ENDINGS or os.path.isfile(folder / entry)
        ]
    return entries_of(listed)


def entries_of(listed: object) -> list[tuple[list[object], object, str]]:
    """Return the image files, the label file and the name of each listed case, as listed; the name may be empty.

    `listed` has one of these forms:
    - an array of cases;
    - an object with the names of the cases as keys: `{"p1": case, "p2": case}`;
    - an object with two arrays of equal length, for images and labels: `{"image": [...], "label": [...]}`;
    - an object with arrays of cases (`_is_array_of_cases`), such as the folds of a cross-validation:
      `{"fold_0": [case, case]}`.

    A case has one of these forms:
    - an image: `"imagesTr/p1.nii.gz"`;
    - an array of images, one for each channel;
    - an array of an image and a label (`_is_label`): `["imagesTr/p1.nii.gz", "labelsTr/p1.nii.gz"]`;
    - an object: `{"image": "imagesTr/p1.nii.gz", "label": "labelsTr/p1.nii.gz"}`.
    """
    named = [("", entry) for entry in listed] if isinstance(listed, list) else []
    if isinstance(listed, dict):
        images, labels = _files_of_case(listed)
        has_image_key = any(key.lower() in _IMAGE_KEYS for key in listed)
        if len(images) > 0 and (has_image_key or labels is not None):
            if not isinstance(labels, list) or len(labels) != len(images):
                return []
            return [([image], label, "") for image, label in zip(images, labels, strict=True)]
        named = [(name, entry) for name, entry in listed.items() if not isinstance(entry, str)]
    cases = []
    for name, entry in named:
        if _is_array_of_cases(name, entry):
            cases += entries_of(entry)
            continue
        images, label = _files_of_case(entry)
        if isinstance(label, list):
            label = label[0] if len(label) == 1 else None
        if images:
            cases.append((images, label, name))
    return cases


def _is_array_of_cases(name: str, entry: object) -> bool:
    """Return whether an entry, whose key is `name`, is an array of cases.

    >>> _is_array_of_cases("a", [{"image": "p1.nii.gz"}])
    True
    >>> _is_array_of_cases("a", [["p1.nii.gz", "p1_label.nii.gz"]])
    True
    >>> _is_array_of_cases("fold_0", ["p1.nii.gz", "p2.nii.gz"])
    True
    >>> _is_array_of_cases("p1", ["p1_0000.nii.gz", "p1_0001.nii.gz"])
    False
    """
    if not isinstance(entry, list):
        return False
    if _FOLD.fullmatch(name) and not any(map(_is_label, entry)):
        return True
    has_labels = any(_files_of_case(inner)[1] is not None for inner in entry)
    return any(isinstance(inner, dict) for inner in entry) or (
        has_labels and all(isinstance(inner, list) for inner in entry)
    )


def _files_of_case(entry: object) -> tuple[list[object], object]:
    """Return a case's image files and its label file; the label file is None if the case has no label.

    `entries_of` describes the forms that `entry` may have.
    """
    if isinstance(entry, list) and len(entry) == 2 and _is_label(entry[1]) and not _is_label(entry[0]):
        image, label = entry
    elif isinstance(entry, dict):
        image, label = (
            _value_of(entry, keys, words) for keys, words in ((_IMAGE_KEYS, IMAGE_WORDS), (_LABEL_KEYS, LABEL_WORDS))
        )
    else:
        image, label = entry, None
    return image if isinstance(image, list) else [image] if isinstance(image, str) else [], label


def _value_of(entry: Mapping[str, object], keys: Sequence[str], words: frozenset[str]) -> object:
    """Return the value of the first of `keys` that `entry` has; capitals do not matter.

    If `entry` has none of `keys`, look for a similar key, such as `gt` or `image_path`. Return the value of the similar
    key if there is exactly one, else None.
    """
    values = {key.lower(): value for key, value in entry.items()}
    for key in keys:
        if key in values:
            return values[key]
    similar_keys = [
        key
        for key, value in entry.items()
        if _names_file(value) and has_word(key, words) and not has_word(key, _WORDS_OF_OTHER_KEYS)
    ]
    return entry[similar_keys[0]] if len(similar_keys) == 1 else None


def _names_file(value: object) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and ending(name) in IMAGE_ENDINGS for name in names)


def _is_label(text: object) -> bool:
    parts = PureWindowsPath(text).parts if isinstance(text, str) else ()  # Splits at both kinds of slashes.
    return classify(Path(*parts[-2:]), Path()).kind is FileKind.LABEL


def classes_of(described: Mapping[str, Any]) -> tuple[tuple[int, str], ...]:
    """Return the label values above 0 and their names from the key `labels` of a `dataset.json`.

    Decathlon and nnU-Net v1 write `{"1": "name"}`; nnU-Net v2 writes `{"name": 1}` or `{"name": [1]}`.

    An array is read as class names if the background's name comes first and no element has an image ending:
    `["background", "name"]`. Other arrays are ignored, since some data sets list their label files under this key.
    """
    listed = described.get("labels")
    if isinstance(listed, list):
        texts = [str(name) for name in listed]
        begins_with_background = bool(texts) and texts[0].strip().casefold() in _BACKGROUND
        names_files = any(ending(text) in IMAGE_ENDINGS for text in texts)
        listed = dict(enumerate(listed)) if begins_with_background and not names_files else None
    class_names = {}
    for key, value in listed.items() if isinstance(listed, dict) else ():
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        for number, name in ((key, value), (value, key)):
            if str(number).isdecimal() and isinstance(name, str) and int(number) > 0 and name != _IGNORED:
                class_names[int(number)] = name
    return tuple(sorted(class_names.items()))
