"""Find the cases of an nnU-Net or Decathlon data set, by its `dataset.json` or by the names of its folders."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..errors import InputError
from ..io.channels import channel_files, channel_of, without_channel
from ..io.formats import IMAGE_ENDINGS, LABEL_ENDINGS, SCAN_ENDINGS, ending, scan_name
from .case_list import LABELLED, UNLABELLED, Case
from .case_names import case_name
from .found_cases import (
    DECATHLON,
    NNUNET,
    NO_SCAN,
    OTHER_CHANNEL,
    RESULT,
    SEVERAL_LABELS,
    FoundCases,
    SkippedFile,
    files_in,
)
from .masks import labels_and_results
from .names import FileKind, classify
from .words import IMAGE_WORDS, LABEL_WORDS, MODALITY_WORDS, OTHER_STRUCTURES, PREDICTION_WORDS, RESULT_WORDS, has_word

_IGNORED = "ignore"
"""nnU-Net's name for the value of voxels that are left out of training. The value is no class."""
_TEST_CASE = "a test case of the data set"
_OTHER_ENDING = "another file of the same name has the ending that dataset.json states"
_LABEL_AMONG_SCANS = "a label in a folder of scans; to use it, move it to the folder of labels"
_UNNUMBERED_CHANNEL = (
    "another channel of its case; to use all channels, name the files x_0000, x_0001, ... in one folder"
)


def read_description(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's `dataset.json`; empty if there is no such file, or it holds no JSON object.

    If the file holds an array of cases, and one of the cases has a label, return `{"training": array}`.

    Raises:
        InputError: the file cannot be read, or is not valid JSON.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot be read ({error})", path=path, remedy="Repair or remove the file.") from error
    if isinstance(data, list) and any(isinstance(label, str) for _, label, _ in _entries(data)):
        return {"training": data}
    return data if isinstance(data, dict) else {}


def dataset_classes(folder: Path) -> tuple[tuple[int, str], ...]:
    """Return label values above 0 and their names from a folder's `dataset.json`; empty if no value has a name.

    Raises:
        InputError: as `read_description`.
    """
    return _classes(read_description(folder))


def ignored_value(folder: Path) -> int | None:
    """Return the label value of voxels that nobody outlined, which nnU-Net v2 names `ignore` in `dataset.json`.

    Raises:
        InputError: as `read_description`.
    """
    listed = read_description(folder).get("labels")
    value = listed.get(_IGNORED) if isinstance(listed, dict) else None
    return value if isinstance(value, int) else None


def lists_cases(described: Mapping[str, Any], folder: Path) -> bool:
    """Return whether the `dataset.json` of `folder` lists cases of a Decathlon or nnU-Net v1 data set."""
    return any(_listed_entries(described, key, folder) for key in _LISTS)


def lists_nnunet_cases(described: Mapping[str, Any]) -> bool:
    """Return whether a `dataset.json` lists cases under the key `dataset`, as in nnU-Net v2."""
    return bool(_entries(described.get("dataset")))


_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
_TEST_LISTS = ("test", "testing")
_LISTS = ("training", "train", "validation", "val", *_TEST_LISTS)
_LISTS_OF_FILES_OR_NAMES = ("train", "val", "testing")
"""Lists whose entries are files or, in some nnU-Net data sets, only names of cases."""
_BACKGROUND = ("background", "bg", "unlabeled", "unlabelled")
_WORDS_OF_OTHER_KEYS = PREDICTION_WORDS | RESULT_WORDS | OTHER_STRUCTURES - MODALITY_WORDS
"""Words in keys of files that are neither the scan nor the label of the atrium, such as `pred_mask` and `scar_mask`."""
_IMAGE_KEYS, _LABEL_KEYS = ("image", "images", "img", "scan"), ("label", "labels", "seg", "segmentation", "mask")


def _listed_entries(described: Mapping[str, Any], key: str, folder: Path) -> list[tuple[list[object], object, str]]:
    """Return the cases under a key of `dataset.json` (see `_entries`), except entries that are only names of cases."""
    listed = described.get(key)
    if key in _LISTS_OF_FILES_OR_NAMES and isinstance(listed, list):
        listed = [
            entry
            for entry in listed
            if not isinstance(entry, str) or ending(entry) in IMAGE_ENDINGS or (folder / entry).is_file()
        ]
    return _entries(listed)


def _entries(listed: object) -> list[tuple[list[object], object, str]]:
    """Return the image files, the label file and the name of each listed case, as listed; the name may be empty.

    `listed` has one of these forms:
    - an array of cases;
    - an object with the names of the cases as keys: `{"p1": case, "p2": case}`;
    - an object with two arrays of equal length, for images and labels: `{"image": [...], "label": [...]}`;
    - an object with arrays of cases, such as the folds of a cross-validation: `{"fold_0": [case, case]}`.

    A case has one of these forms:
    - an image: `"imagesTr/p1.nii.gz"`;
    - an array of images, one for each channel;
    - an array of an image and a label: `["imagesTr/p1.nii.gz", "labelsTr/p1.nii.gz"]`. Two files are read in this way
      if only the second is a label by its name (`_is_label`);
    - an object: `{"image": "imagesTr/p1.nii.gz", "label": "labelsTr/p1.nii.gz"}`.
    """
    named = [("", entry) for entry in listed] if isinstance(listed, list) else []
    if isinstance(listed, dict):
        images, labels = _files_of_case(listed)
        # The key `scan_1` contains the word "scan", but names a case: `{"scan_1": ["p1.nii.gz", "p1_seg.nii.gz"]}`.
        if len(images) > 0 and (labels is not None or any(key.lower() in _IMAGE_KEYS for key in listed)):
            if not isinstance(labels, list) or len(labels) != len(images):
                return []
            return [([image], label, "") for image, label in zip(images, labels, strict=True)]
        named = [(name, entry) for name, entry in listed.items() if not isinstance(entry, str)]
    cases = []
    for name, entry in named:
        if isinstance(entry, list) and any(isinstance(inner, dict) for inner in entry):
            cases += _entries(entry)
            continue
        images, label = _files_of_case(entry)
        if isinstance(label, list):
            label = label[0] if len(label) == 1 else None
        if images:
            cases.append((images, label, name))
    return cases


def _files_of_case(entry: object) -> tuple[list[object], object]:
    """Return the image files and the label file (None without a label) of a case that has a form of `_entries`."""
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
    """Return the value of the first of `keys` in `entry`; capitals do not matter.

    If `entry` has none of `keys`, find the values that name image files and whose keys, such as `gt` or `image_path`,
    contain one of `words` and none of `_WORDS_OF_OTHER_KEYS`. Return the value found if it is the only one, else None.
    """
    values = {key.lower(): value for key, value in entry.items()}
    for key in keys:
        if key in values:
            return values[key]
    named = [
        value
        for key, value in entry.items()
        if _names_file(value) and has_word(key, words) and not has_word(key, _WORDS_OF_OTHER_KEYS)
    ]
    return named[0] if len(named) == 1 else None


def _names_file(value: object) -> bool:
    """Return whether a value is the name of an image file, or an array of such names."""
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and ending(name) in IMAGE_ENDINGS for name in names)


def _is_label(text: object) -> bool:
    """Return whether a listed file is a label by its name, its ending and its folder's name (`names.classify`)."""
    parts = PureWindowsPath(text).parts if isinstance(text, str) else ()  # Splits at both kinds of slashes.
    return classify(Path(*parts[-2:]), Path()).kind is FileKind.LABEL


def _classes(described: Mapping[str, Any]) -> tuple[tuple[int, str], ...]:
    """Return label values and names.

    Decathlon and nnU-Net v1 write `{"1": "name"}`; nnU-Net v2 writes `{"name": 1}`. An array is read as class names if
    the background's name comes first and no element has an image ending: `["background", "name"]`. Other arrays are
    ignored, since some data sets list their label files here.
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
            (value,) = value  # A region of a single label value in nnU-Net v2.
        for number, name in ((key, value), (value, key)):
            if str(number).isdecimal() and isinstance(name, str) and int(number) > 0 and name != _IGNORED:
                class_names[int(number)] = name
    return tuple(sorted(class_names.items()))


class _ListedCases:
    """The cases that a `dataset.json` lists, and the skipped files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed: set[tuple[Path, Path | None]] = set()
        self._has_files = False
        self._files_by_name: dict[tuple[Path, Sequence[str]], defaultdict[str, list[Path]]] = {}
        self.cases: list[Case] = []
        self.unused: list[Case] = []
        self.skipped: list[SkippedFile] = []

    def add(self, images: Sequence[object], label: object, name: str = "") -> None:
        """Add a case: the file of its first channel, and its label, if any.

        If one of these files does not exist, the case is left out and the missing file is skipped. The files of other
        channels are skipped; for a model of several channels, `io.readers.read_scan` reads `x_0001`, ... with `x_0000`.
        """
        files = [self._file(text) for text in images if isinstance(text, str) and text]
        label_path = self._label(label, files)
        self._note_existing((*files, label_path))
        missing = [file for file in (*files[:1], label_path) if file is not None and not file.exists()]
        self.skipped += [SkippedFile(file, "dataset.json names it, but it does not exist") for file in missing]
        if missing or not files:
            return
        channels = channel_files(files[0])
        self.skipped += [SkippedFile(file, OTHER_CHANNEL) for file in channels[1:]]
        self.skipped += [SkippedFile(file, _UNNUMBERED_CHANNEL) for file in files[1:] if file not in channels]
        role = LABELLED if label_path else UNLABELLED
        if (files[0], label_path) in self._listed:
            return
        self._listed.add((files[0], label_path))
        self.cases.append(Case(_file_name(name) or case_name(files[0]), files[0], label_path, role))

    def skip(self, images: Sequence[object], label: object, labels: Mapping[str, Path]) -> None:
        """Skip the image files of a test case and the label that is listed with them, and add the case to `unused`.

        Args:
            label: the label as listed; None if the case is listed without a label.
            labels: the labels in `labelsTs` by name.
        """
        files = [self._file(text) for text in images if isinstance(text, str) and text]
        channels = [channel for file in files for channel in channel_files(file) if channel not in files]
        self.skipped += [SkippedFile(file, _TEST_CASE) for file in (*files, *dict.fromkeys(channels))]
        listed = self._label(label, files)
        self._note_existing((*files, listed))
        if listed is not None and labels.get(scan_name(listed)) != listed:
            self.skipped.append(SkippedFile(listed, _TEST_CASE))
        if files and files[0].exists():
            case = _unused_case(files[0], labels)
            has_listed = listed is not None and listed.exists()
            self.unused.append(replace(case, label=listed, role=LABELLED) if has_listed else case)

    def found_cases(self, layout: str, classes: tuple[tuple[int, str], ...]) -> FoundCases:
        """Return the cases, after the files that `dataset.json` does not list are skipped."""
        self._keep_used()
        self._skip_unlisted()
        unused = _distinct_from(self.cases, self.unused)
        return FoundCases(layout, tuple(self.cases), tuple(self.skipped), classes, unused, not self._has_files)

    def _note_existing(self, files: Iterable[Path | None]) -> None:
        """Note whether one of the listed files exists."""
        self._has_files = self._has_files or any(file is not None and file.exists() for file in files)

    def _keep_used(self) -> None:
        """Remove the cases' files from `skipped`; a file may be used for one listed case, but skipped for another."""
        used = {file for case in self.cases for file in case.files}
        self.skipped = [file for file in self.skipped if file.path not in used]

    def _skip_unlisted(self) -> None:
        """Skip the scans and labels in the subfolders `_FOLDERS` that `dataset.json` does not list."""
        listed = [file for case in self.cases for file in case.files]
        # Resolved, since `dataset.json` may name a file by another path, such as an absolute one.
        named = {os.path.realpath(file) for file in (*listed, *(skipped_file.path for skipped_file in self.skipped))}
        for name in _FOLDERS:
            files = files_in(self._folder / name, (*SCAN_ENDINGS, *LABEL_ENDINGS))
            reason = _TEST_CASE if name == "labelsTs" else "dataset.json does not list it"
            unlisted = [file for file in files if os.path.realpath(file) not in named]
            self.skipped += [SkippedFile(file, reason) for file in unlisted]
            if name.startswith("images") and unlisted:
                labels = {skipped_file.path for skipped_file in _labels_among(files, self._folder / name, {})}
                further = _further_channels(files)
                scans = [file for file in unlisted if file not in further and file not in labels]
                self.unused += [_unused_case(file, {}) for file in scans]

    def _label(self, text: object, images: Sequence[Path]) -> Path | None:
        """Return the path of the label that `dataset.json` names as `text`; None if it names none.

        If `_file` finds one of the case's `images`, return the path that `dataset.json` states. Example: without a
        folder `labelsTr`, `_file` finds the image `p1.nii.gz` for the label `labelsTr/p1.nii.gz`.
        """
        if not isinstance(text, str) or not text:
            return None
        path = self._file(text, LABEL_ENDINGS)
        return self._folder / text if path in images else path

    def _file(self, text: str, endings: Sequence[str] = SCAN_ENDINGS) -> Path:
        """Return the path of the file that `dataset.json` names as `text`.

        Changes are tried in this order until a file exists. Changes 2 and 3 start from the result of the previous
        change; changes 4 and 5 both start from the result of change 3.

        1. Environment variables are replaced; nnU-Net v2 allows them.
        2. Backslashes become slashes.
        3. First parts of the path are left out until the rest leads to a folder of the data set, or to a file beside
           `dataset.json`: `C:/Task1/imagesTr/a.nii` and `Task1/imagesTr/a.nii` become `imagesTr/a.nii`.
        4. `_0000` is added, which nnU-Net v1 omits: `a.nii` becomes `a_0000.nii`.
        5. Other `endings` are tried, with and without `_0000`: `a.nii` becomes `a.nii.gz`. Exactly one file must fit.

        If no file exists, the path after the third change is returned.
        """
        if not (self._folder / text).exists():
            text = os.path.expandvars(text)
        path = self._folder / text
        if "\\" in text and not path.exists():
            path = self._folder / text.replace("\\", "/")
        if not path.exists():
            path = self._file_of_moved_set(text) or path
        kind = ending(path)
        channel = path.with_name(
            f"{path.name[: len(path.name) - len(kind)]}_0000{path.name[len(path.name) - len(kind) :]}"
        )
        if not path.exists() and not channel.exists() and path.parent.is_dir():
            files = self._files(path.parent, endings)
            fitting = files.get(scan_name(path), []) + files.get(f"{scan_name(path)}_0000", [])
            return fitting[0] if len(fitting) == 1 else path
        return channel if not path.exists() and channel.exists() else path

    def _file_of_moved_set(self, text: str) -> Path | None:
        """Return the path after the third change of `_file`; None if there is no such folder or file."""
        parts = PureWindowsPath(text).parts  # Splits at both kinds of slashes.
        is_absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
        rests = [self._folder.joinpath(*parts[first:]) for first in range(int(is_absolute), len(parts))]
        return next((rest for rest in rests if (rest.parent.is_dir() if rest != rests[-1] else rest.exists())), None)

    def _files(self, folder: Path, endings: Sequence[str]) -> Mapping[str, list[Path]]:
        """Return the files in a folder by their names without endings; the folder is listed only once."""
        if (folder, endings) not in self._files_by_name:
            files = self._files_by_name[folder, endings] = defaultdict(list)
            for file in files_in(folder, endings):
                files[scan_name(file)].append(file)
        return self._files_by_name[folder, endings]


def find_listed_cases(folder: Path) -> FoundCases:
    """Read the cases that `dataset.json` lists under `training`, `validation`, `test` and similar keys.

    A test case is skipped if a label is listed with it, or if the folder `labelsTs` has labels.
    """
    described, listed = read_description(folder), _ListedCases(folder)
    test_files = files_in(folder / "labelsTs", LABEL_ENDINGS)
    test_labels = _only_labels(_labels_by_name(_without_other_endings(test_files, described)))
    for key in _LISTS:
        for images, label, name in _listed_entries(described, key, folder):
            if key in _TEST_LISTS and (test_labels or label):
                listed.skip(images, label, test_labels)
            else:
                listed.add(images, label, name)
    has_channels = any(channel_of(case.image) is not None for case in listed.cases)
    return listed.found_cases(NNUNET if has_channels else DECATHLON, _classes(described))


def find_listed_nnunet_cases(folder: Path) -> FoundCases:
    """Read an nnU-Net v2 data set whose `dataset.json` lists each case's files under the key `dataset`."""
    described, listed = read_description(folder), _ListedCases(folder)
    for images, label, name in _entries(described["dataset"]):
        listed.add(images, label, name)
    return listed.found_cases(NNUNET, _classes(described))


def find_nnunet_cases(folder: Path) -> FoundCases:
    """Pair `imagesTr/x_0000` with `labelsTr/x`.

    - The scans in `imagesTs` are unlabelled cases. If `labelsTs` has labels, these scans are skipped.
    - Of files of the same name, only those with the ending that `dataset.json` states are used. If several labels
      are left for a scan, scan and labels are skipped.
    - Labels and automatic results in `imagesTr` and `imagesTs` are skipped (`_labels_among`).
    """
    described = read_description(folder)
    cases: list[Case] = []
    skipped: list[SkippedFile] = []
    unused: list[Case] = []
    for part in ("Tr", "Ts"):
        images = files_in(folder / f"images{part}", dict.fromkeys((*SCAN_ENDINGS, *LABEL_ENDINGS)))
        label_files = files_in(folder / f"labels{part}", LABEL_ENDINGS)
        used_labels = _without_other_endings(label_files, described)
        labels = _labels_by_name(used_labels)
        among_scans = _labels_among(images, folder / f"images{part}", labels)
        no_scans = {file.path for file in among_scans}
        scans = _without_other_endings([file for file in images if file not in no_scans], described)
        if part == "Ts" and labels:
            skipped += [SkippedFile(file, _TEST_CASE) for file in (*scans, *label_files)]
            further = _further_channels(scans)
            first = [file for file in scans if _has_own_label(file, labels) or file not in further]
            unused += [_unused_case(file, _only_labels(labels)) for file in first]
        else:
            skipped += _other_endings(label_files, used_labels)
            unused += _pair_scans(scans, labels, cases, skipped)
        skipped += among_scans
        skipped += _other_endings(images, (*scans, *no_scans))
    return FoundCases(NNUNET, tuple(cases), tuple(skipped), _classes(described), _distinct_from(cases, unused))


def _pair_scans(
    scans: Sequence[Path], labels: Mapping[str, Sequence[Path]], cases: list[Case], skipped: list[SkippedFile]
) -> list[Case]:
    """Add the cases of nnU-Net's scans to `cases`, and the files that are not used to `skipped`.

    Args:
        labels: the labels by name.

    Returns:
        The scans with several labels, as unlabelled cases.
    """
    used: set[str] = set()
    unused: list[Case] = []
    further = _further_channels(scans)
    for file in scans:
        name = without_channel(scan_name(file))
        # If a label has the scan's full name, such as `p_0001`, the number counts patients, not channels.
        if _has_own_label(file, labels):
            name = scan_name(file)
        elif file in further:
            skipped.append(SkippedFile(file, OTHER_CHANNEL))
            continue
        own_labels = labels.get(name, ())
        used.add(name)
        if len(own_labels) > 1:
            skipped += [SkippedFile(path, SEVERAL_LABELS) for path in (file, *own_labels)]
            unused.append(Case(name, file, None, UNLABELLED))
        else:
            label = own_labels[0] if own_labels else None
            cases.append(Case(name, file, label, LABELLED if label else UNLABELLED))
    skipped += [SkippedFile(file, NO_SCAN) for name, files in labels.items() if name not in used for file in files]
    return unused


def _further_channels(scans: Iterable[Path]) -> set[Path]:
    """Return the files `x_0001` to `x_0009` of a folder of scans; none if the numbers count patients.

    The numbers count patients if no file has the number `_0000`: AMOS has `amos_0001`, `amos_0004`, `amos_0005`.
    """
    numbers = {file: channel_of(file) for file in scans}
    return {file for file, number in numbers.items() if number} if 0 in numbers.values() else set()


def _without_other_endings(files: Sequence[Path], described: Mapping[str, Any]) -> list[Path]:
    """Return the files; leave out a file if another of the same name has the ending that `dataset.json` states.

    If `dataset.json` states the ending `.nrrd`, `a.nii.gz` beside `a.nrrd` is left out.
    """
    stated = described.get("file_ending")
    names = {scan_name(file) for file in files if ending(file) == stated}
    return [file for file in files if ending(file) == stated or scan_name(file) not in names]


def _other_endings(files: Iterable[Path], used: Iterable[Path]) -> list[SkippedFile]:
    """Return the files that `_without_other_endings` left out, as skipped files."""
    known = set(used)
    return [SkippedFile(file, _OTHER_ENDING) for file in files if file not in known]


def _labels_by_name(files: Iterable[Path]) -> dict[str, list[Path]]:
    labels: defaultdict[str, list[Path]] = defaultdict(list)
    for file in files:
        labels[scan_name(file)].append(file)
    return dict(labels)


def _only_labels(labels: Mapping[str, Sequence[Path]]) -> dict[str, Path]:
    """Return the labels by name, without those that share their name with another label."""
    return {name: files[0] for name, files in labels.items() if len(files) == 1}


def _labels_among(files: Sequence[Path], folder: Path, labels: Mapping[str, object]) -> list[SkippedFile]:
    """Return the labels, masks and automatic results among the files of a folder of scans: `a_seg` beside `a_0000`.

    A file with the ending of a scan is a scan if it has a channel number, or the name of one of `labels`.
    """
    only_labels = {file for file in files if ending(file) not in SCAN_ENDINGS}
    unsure = {file for file in files if channel_of(file) is None and scan_name(file) not in labels} | only_labels
    if not unsure:
        return []
    kinds = {file.path: file.kind for file in labels_and_results(files, folder)}
    return [
        SkippedFile(file, RESULT if kinds.get(file) is FileKind.RESULT else _LABEL_AMONG_SCANS)
        for file in files
        if file in only_labels or (file in unsure and file in kinds)
    ]


def _has_own_label(file: Path, labels: Mapping[str, object]) -> bool:
    """Return whether a scan's label has the scan's full name: the label `p_0001` for the scan `p_0001`.

    If there are the labels `p` and `p_0000`, return False for the scan `p_0000`: its label is `p`.
    """
    name = scan_name(file)
    return name in labels and (without_channel(name) == name or without_channel(name) not in labels)


def _unused_case(image: Path, labels: Mapping[str, Path]) -> Case:
    """Return a case that is not used for training.

    Its label, if any, is looked up in `labels` by the scan's name, first without `_0000`, then in full.
    """
    label = labels.get(without_channel(scan_name(image))) or labels.get(scan_name(image))
    return Case(case_name(image), image, label, LABELLED if label else UNLABELLED)


def _distinct_from(cases: Iterable[Case], unused: Iterable[Case]) -> tuple[Case, ...]:
    """Return the unused cases whose scan is not in `cases`, one for each scan.

    If a case of `cases` has the name of an unused case, the unused case gets its folder's name: `imagesTs_a`.
    """
    names, scans = {case.name for case in cases}, {case.scan for case in cases}
    by_scan = {case.scan: case for case in unused if case.scan not in scans}
    return tuple(
        replace(case, name=f"{case.image.parent.name}_{case.name}") if case.name in names else case
        for case in by_scan.values()
    )


def _file_name(name: str) -> str:
    """Return a case's name for use in file names: each slash or backslash is replaced by "_"."""
    return re.sub(r"[/\\]", "_", name)
