"""Find cases in a folder: pair its scans with their labels, by the data set's own list or by file names.

Layouts: nnU-Net v1 and v2 (also their parent folder), the Medical Segmentation Decathlon, BIDS with derivatives, and
folders in which the words of `names` distinguish scans from labels (Left Atrial Segmentation Challenge, LAScarQS,
EMIDEC, `x_image`/`x_label`, `images/x`/`labels/x`, one scan beside Slicer's `Segmentation.seg.nrrd`, DICOM folders).
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..io.channels import channel_files, channel_of, without_channel
from ..io.formats import BENCHMARK_ENDING, LABEL_ENDINGS, SCAN_ENDINGS, ending, scan_name
from .case_list import LABELLED, UNLABELLED, Case
from .names import ATRIUM_WORDS, LABEL_WORDS, FileKind, NamedFile, case_name, classify_all, image_files

NNUNET, DECATHLON, BIDS, NAMES = "nnU-Net", "Decathlon", "BIDS", "names"
DICOM_SLICE_ENDINGS = (".dcm", ".ima")
MAX_REASONS = 5
"""The error names at most this many files if no case is found."""
_DEPTH = 3
"""How many levels of folders are searched for data sets."""


@dataclass(frozen=True)
class SkippedFile:
    """A file that belongs to no found case, and the reason."""

    path: Path
    reason: str


@dataclass(frozen=True)
class FoundCases:
    """The cases found in a folder, without opening any file but `dataset.json`.

    Attributes:
        layout: the convention that the folder follows.
        cases: the cases, with distinct names.
        skipped: files that belong to no case.
        classes: label values and their names, if the data set lists them.
    """

    layout: str
    cases: tuple[Case, ...]
    skipped: tuple[SkippedFile, ...] = ()
    classes: tuple[tuple[int, str], ...] = ()


def find_cases(folder: Path) -> FoundCases:
    """Pair the scans below `folder` with their labels.

    Raises:
        InputError: `folder` is not a folder or contains no usable scan, or a `dataset.json` cannot be read.
    """
    if not folder.is_dir():
        raise InputError("is not a folder", path=folder, remedy="Name the folder that holds the scans.")
    found_cases = _find(folder)
    if not found_cases.cases:
        raise _nothing_found(folder, found_cases)
    return replace(found_cases, cases=_with_distinct_names(found_cases.cases))


def _find(folder: Path) -> FoundCases:
    reader = _data_set_reader(folder)
    if reader is not None:
        return reader(folder)
    below = _data_sets_below(folder, _DEPTH)
    return _join([_find(inner) for inner in below]) if below else _pair_by_names(folder)


def _nothing_found(folder: Path, found_cases: FoundCases) -> InputError:
    """Return the error for a folder without cases; it names the skipped files and the reasons."""
    if not found_cases.skipped:
        return InputError("holds no scan", path=folder, remedy=f"Choose a file that ends in {', '.join(SCAN_ENDINGS)}.")
    reasons = [f"{_below(file.path, folder)}: {file.reason}" for file in found_cases.skipped[:MAX_REASONS]]
    more = len(found_cases.skipped) - len(reasons)
    text = "; ".join(reasons) + (f"; and {more} more" if more > 0 else "")
    return InputError(f"contains no usable scan ({text})", path=folder, remedy="Rename or move these files.")


def _below(path: Path, folder: Path) -> str:
    try:
        return path.relative_to(folder).as_posix()
    except ValueError:
        return str(path)


def _data_set_reader(folder: Path) -> Callable[[Path], FoundCases] | None:
    """Return the function that reads the data set in this folder; None if its layout is not that of a data set."""
    described = _description(folder)
    if isinstance(described.get("dataset"), Mapping) and described["dataset"]:
        return _nnunet_with_list
    if described.get("training") or described.get("test"):
        return _find_listed_data_set
    if (folder / "imagesTr").is_dir():
        return _nnunet
    if any(entry.is_dir() and re.match(r"sub-[0-9A-Za-z]+$", entry.name) for entry in folder.iterdir()):
        return _bids
    return None


def _data_sets_below(folder: Path, depth: int) -> list[Path]:
    """Return the folders of nnU-Net and Decathlon data sets below a folder such as `nnUNet_raw`."""
    data_sets: list[Path] = []
    for inner in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        if _data_set_reader(inner) is not None:
            data_sets.append(inner)
        elif depth > 1:
            data_sets += _data_sets_below(inner, depth - 1)
    return data_sets


def _join(parts: Sequence[FoundCases]) -> FoundCases:
    """Return the found cases of several data sets as one; classes only where all data sets agree on them."""
    layouts = list(dict.fromkeys(part.layout for part in parts))
    classes = {part.classes for part in parts}
    return FoundCases(
        " and ".join(layouts),
        tuple(case for part in parts for case in part.cases),
        tuple(file for part in parts for file in part.skipped),
        classes.pop() if len(classes) == 1 else (),
    )


def _description(folder: Path) -> dict[str, Any]:
    """Return the content of `dataset.json`; empty if there is none."""
    path = folder / "dataset.json"
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot be read ({error})", path=path, remedy="Repair or remove the file.") from error
    return data if isinstance(data, dict) else {}


def dataset_classes(folder: Path) -> tuple[tuple[int, str], ...]:
    """Return label values and names from a folder's `dataset.json`; empty if there is none.

    Raises:
        InputError: the file cannot be read.
    """
    return _classes(_description(folder))


def _classes(described: Mapping[str, Any]) -> tuple[tuple[int, str], ...]:
    """Return label values and names; the Decathlon writes {"1": "name"}, nnU-Net {"name": 1}."""
    listed = described.get("labels")
    class_names = {}
    for key, value in listed.items() if isinstance(listed, dict) else ():
        for number, name in ((key, value), (value, key)):
            if str(number).isdigit() and isinstance(name, str) and int(number) > 0:
                class_names[int(number)] = name
    return tuple(sorted(class_names.items()))


class _ListedCases:
    """Collects the cases that a `dataset.json` lists."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.cases: list[Case] = []
        self.skipped: list[SkippedFile] = []

    def add(self, images: Sequence[object], label: object, name: str = "") -> None:
        """Add a case by the file of its first channel; `io.readers.read_scan` finds the others."""
        files = [self._file(text) for text in images if isinstance(text, str) and text]
        label_path = self._file(label) if isinstance(label, str) and label else None
        missing = [file for file in (*files[:1], label_path) if file is not None and not file.exists()]
        self.skipped += [SkippedFile(file, "dataset.json names it, but it does not exist") for file in missing]
        if missing or not files:
            return
        channels = channel_files(files[0])
        self.skipped += [SkippedFile(file, _OTHER_CHANNEL) for file in channels[1:]]
        self.skipped += [SkippedFile(file, _UNNUMBERED_CHANNEL) for file in files[1:] if file not in channels]
        role = LABELLED if label_path else UNLABELLED
        self.cases.append(Case(name or case_name(files[0]), files[0], label_path, role))

    def skip(self, images: Sequence[object]) -> None:
        """Skip the files of a test case that has a label."""
        files = [self._file(text) for text in images if isinstance(text, str) and text]
        channels = [channel for file in files for channel in channel_files(file) if channel not in files]
        self.skipped += [SkippedFile(file, _TEST_CASE) for file in (*files, *dict.fromkeys(channels))]

    def skip_unlisted(self, folders: Sequence[str]) -> None:
        """Skip the image files in subfolders of the data set that it does not list."""
        named = {file for case in self.cases for file in (case.image, case.label)} | {
            left_out.path for left_out in self.skipped
        }
        for name in folders:
            files = _files(self._folder / name, (*SCAN_ENDINGS, *LABEL_ENDINGS))
            reason = _TEST_CASE if name == "labelsTs" else "dataset.json does not list it"
            self.skipped += [SkippedFile(file, reason) for file in files if file not in named]

    def _file(self, text: str) -> Path:
        """Return the named file; nnU-Net v1 lists images without the suffix `_0000` of the file names."""
        path = self._folder / text
        if "\\" in text and not path.exists():
            path = self._folder / text.replace("\\", "/")
        if path.is_absolute() and not path.exists():  # The data set was moved; its folders keep their names.
            path = self._folder.joinpath(*path.parts[-2:])
        kind = ending(path)
        channel = path.with_name(
            f"{path.name[: len(path.name) - len(kind)]}_0000{path.name[len(path.name) - len(kind) :]}"
        )
        return channel if not path.exists() and channel.exists() else path


_TEST_CASE = "a test case of the data set"
_OTHER_CHANNEL = "another channel of its case; a one-channel model uses the first file, a multi-channel model all files"
_UNNUMBERED_CHANNEL = "another channel of its case; to use both, name the files x_0000, x_0001, ... in one folder"


def _find_listed_data_set(folder: Path) -> FoundCases:
    """Read the list of a Decathlon or nnU-Net v1 data set: `training` has images and labels, `test` images alone."""
    described, listed = _description(folder), _ListedCases(folder)
    has_test_labels = bool(_files(folder / "labelsTs", LABEL_ENDINGS))
    for key in ("training", "validation", "test"):
        entries = described.get(key)
        for entry in entries if isinstance(entries, list) else ():
            image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else (entry, None)
            if key == "test" and has_test_labels:
                listed.skip(image if isinstance(image, list) else [image])
            else:
                listed.add(image if isinstance(image, list) else [image], label)
    listed.skip_unlisted(("imagesTr", "labelsTr", "imagesTs", "labelsTs"))
    has_channels = any(channel_of(case.image) is not None for case in listed.cases)
    layout = NNUNET if has_channels else DECATHLON
    return FoundCases(layout, tuple(listed.cases), tuple(listed.skipped), _classes(described))


def _nnunet_with_list(folder: Path) -> FoundCases:
    """Read an nnU-Net v2 data set whose `dataset.json` lists each case's files under the key `dataset`."""
    described, listed = _description(folder), _ListedCases(folder)
    for name, entry in described["dataset"].items():
        if isinstance(entry, Mapping):
            images = entry.get("images")
            listed.add(images if isinstance(images, list) else [images], entry.get("label"), str(name))
    return FoundCases(NNUNET, tuple(listed.cases), tuple(listed.skipped), _classes(described))


def _nnunet(folder: Path) -> FoundCases:
    """Pair `imagesTr/x_0000` with `labelsTr/x`; `imagesTs` is unlabelled, or skipped if `labelsTs` has labels."""
    cases: list[Case] = []
    skipped: list[SkippedFile] = []
    for part in ("Tr", "Ts"):
        images, labels = folder / f"images{part}", folder / f"labels{part}"
        labels_by_name = {scan_name(file): file for file in _files(labels, LABEL_ENDINGS)}
        if part == "Ts" and labels_by_name:
            skipped += [
                SkippedFile(file, _TEST_CASE) for file in (*_files(images, SCAN_ENDINGS), *labels_by_name.values())
            ]
            continue
        used = set()
        for file in _files(images, SCAN_ENDINGS):
            name = without_channel(scan_name(file))
            if name not in labels_by_name and scan_name(file) in labels_by_name:
                name = scan_name(file)
            elif channel_of(file):
                skipped.append(SkippedFile(file, _OTHER_CHANNEL))
                continue
            label = labels_by_name.get(name)
            used.add(name)
            cases.append(Case(name, file, label, LABELLED if label else UNLABELLED))
        skipped += [SkippedFile(file, _NO_SCAN) for name, file in labels_by_name.items() if name not in used]
    return FoundCases(NNUNET, tuple(cases), tuple(skipped), _classes(_description(folder)))


_NO_SCAN = "a label without a scan"
_SEVERAL_LABELS = "several labels for one scan"
_SKIPPED_KINDS = {
    FileKind.OTHER_LABEL: "a label of another structure; to train on it, enter it as the label in the case list",
    FileKind.RESULT: "an automatic result; rename it to train on it",
}


def _files(folder: Path, endings: Iterable[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    kinds = tuple(endings)
    return [file for file in image_files(sorted(folder.iterdir())) if file.is_file() and ending(file) in kinds]


# A BIDS name has entities and a suffix: sub-01/ses-1/anat/sub-01_ses-1_acq-lge_T1w.nii.gz. Labels lie in `derivatives`.
_LABEL_SUFFIXES = LABEL_WORDS | {"probseg"}
_DERIVATIVE_ENTITIES = ("desc", "label", "space", "res", "den", "hemi")
"""Entities that a derivative's name adds to the name of its source image."""


def _bids(folder: Path) -> FoundCases:
    """Pair each scan of a BIDS data set with the label in its derivatives that has the same entities."""
    images: list[tuple[Path, dict[str, str]]] = []
    labels: list[tuple[Path, dict[str, str]]] = []
    skipped: list[SkippedFile] = []
    for path in _scans_below(folder):
        if path.is_dir():
            continue
        entities, suffixes = _bids_name(path)
        if not entities.get("sub"):
            continue
        if "probseg" in suffixes:
            skipped.append(SkippedFile(path, "a map of probabilities"))
        elif any(suffix in _LABEL_SUFFIXES for suffix in suffixes) or entities.get("desc", "").lower() in LABEL_WORDS:
            labels.append((path, entities))
        elif "derivatives" in path.relative_to(folder).parts[:-1]:
            skipped.append(SkippedFile(path, "a derived image"))
        else:
            images.append((path, entities))
    of_image: defaultdict[Path, list[Path]] = defaultdict(list)
    for path, entities in labels:
        label_entities = {key: value for key, value in entities.items() if key not in _DERIVATIVE_ENTITIES}
        fitting = [
            image
            for image, image_entities in images
            if all(image_entities.get(key) == value for key, value in label_entities.items())
        ]
        exact = [image for image, image_entities in images if image_entities == label_entities]
        # Prefer equal entities and the same first suffix (T1w).
        same = [image for image in exact or fitting if _bids_name(image)[1][:1] == _bids_name(path)[1][:1]]
        chosen = same or exact or fitting
        if len(chosen) == 1:
            of_image[chosen[0]].append(path)
        else:
            skipped.append(SkippedFile(path, "its name fits several scans" if chosen else _NO_SCAN))
    cases = []
    for image, _ in images:
        own_labels = of_image[image]
        if len(own_labels) > 1:
            skipped += [SkippedFile(path, _SEVERAL_LABELS) for path in (image, *own_labels)]
        else:
            label = own_labels[0] if own_labels else None
            cases.append(Case(scan_name(image), image, label, LABELLED if label else UNLABELLED))
    return FoundCases(BIDS, tuple(cases), tuple(skipped))


def _bids_name(path: Path) -> tuple[dict[str, str], list[str]]:
    """Return the entities (`sub`, `ses`, ...) of a BIDS name and its suffixes (`T1w_seg` has two) in lower case."""
    entities, suffixes = {}, []
    for part in scan_name(path).split("_"):
        key, dash, value = part.partition("-")
        if dash and key.isalnum():
            entities[key] = value
        else:
            suffixes.append(part.lower())
    return entities, suffixes


def _pair_by_names(folder: Path) -> FoundCases:
    """Pair scans and labels whose paths are equal once the words for image and label are removed."""
    scans: defaultdict[tuple[str, ...], list[NamedFile]] = defaultdict(list)
    labels: defaultdict[tuple[str, ...], list[NamedFile]] = defaultdict(list)
    skipped: list[SkippedFile] = []
    for named in classify_all(_scans_below(folder), folder):
        if named.kind in _SKIPPED_KINDS:
            skipped.append(SkippedFile(named.path, _SKIPPED_KINDS[named.kind]))
        else:
            (labels if named.kind is FileKind.LABEL else scans)[named.key].append(named)
    _pair_channels(scans, labels, skipped)
    _pair_lone_labels(scans, labels)
    cases: list[Case] = []
    for key, files_of_scan in scans.items():
        images, label_paths = (
            [named_file.path for named_file in files_of_scan],
            [named_file.path for named_file in labels.pop(key, [])],
        )
        if len(images) > 1 and label_paths:
            skipped += [SkippedFile(path, "several scans and labels have one name") for path in (*images, *label_paths)]
        elif len(label_paths) > 1:
            skipped += [SkippedFile(path, _SEVERAL_LABELS) for path in (*images, *label_paths)]
        else:
            name = "_".join(key[-1:]) or scan_name(folder)
            for image in images:
                # A benchmark file (.h5) contains its own label.
                label = label_paths[0] if label_paths else image if ending(image) == BENCHMARK_ENDING else None
                cases.append(Case(name, image, label, LABELLED if label else UNLABELLED))
    skipped += [SkippedFile(named_file.path, _NO_SCAN) for files in labels.values() for named_file in files]
    return FoundCases(NAMES, tuple(cases), tuple(skipped))


_FilesByKey = defaultdict[tuple[str, ...], list[NamedFile]]


def _pair_channels(scans: _FilesByKey, labels: _FilesByKey, skipped: list[SkippedFile]) -> None:
    """Give the scan `x_0000` the key of its label `x`; leave out the scan's other channels.

    Without such a label the scans stay separate cases: the numbers may count patients.
    """
    for label in list(labels):
        channels = [(*label[:-1], f"{label[-1]}_000{number}") for number in range(10)] if label else []
        if not channels or label in scans or channels[0] not in scans or channels[0] in labels:
            continue
        scans[label] = scans.pop(channels[0])
        for key in channels[1:]:
            skipped += [SkippedFile(named_file.path, _OTHER_CHANNEL) for named_file in scans.pop(key, [])]


def _pair_lone_labels(scans: _FilesByKey, labels: _FilesByKey) -> None:
    """Pair a folder's only scan and only label if the label's name consists of label words alone.

    Slicer, for example, saves `Segmentation.seg.nrrd` beside a scan of any name.
    """
    scans_in: defaultdict[Path, list[tuple[tuple[str, ...], NamedFile]]] = defaultdict(list)
    labels_in: defaultdict[Path, list[tuple[tuple[str, ...], NamedFile]]] = defaultdict(list)
    for named, places in ((scans, scans_in), (labels, labels_in)):
        for key, files in named.items():
            for named_file in files:
                places[named_file.path if named_file.path.is_dir() else named_file.path.parent].append(
                    (key, named_file)
                )
    for place, folder_labels in labels_in.items():
        images = scans_in.get(place, [])
        if len(images) != 1 or len(folder_labels) != 1:
            continue
        (image_key, _), (label_key, label) = images[0], folder_labels[0]
        words = [word.lower() for word in re.split(r"[_\-. \d]+", scan_name(label.path)) if word]
        if (
            label_key != image_key
            and image_key not in labels
            and all(word in LABEL_WORDS | ATRIUM_WORDS for word in words)
        ):
            labels[image_key].append(label)
            labels[label_key].remove(label)
            if not labels[label_key]:
                del labels[label_key]


def _scans_below(folder: Path) -> Iterator[Path]:
    """Yield image files at any depth, and folders of DICOM slices as one path each, without hidden ones."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(place, name) for name in sorted(files)]
        yield from image_files(paths)
        if any(ending(path) in DICOM_SLICE_ENDINGS and not path.name.startswith(".") for path in paths):
            yield Path(place)


def _with_distinct_names(cases: Iterable[Case]) -> tuple[Case, ...]:
    """Return the cases with distinct names: a name that occurs twice is prefixed with the folders above the scan."""
    cases = list(cases)
    for depth in range(1, 64):
        seen: defaultdict[str, list[int]] = defaultdict(list)
        for index, case in enumerate(cases):
            seen[case.name].append(index)
        repeated = [index for members in seen.values() if len(members) > 1 for index in members]
        if not repeated:
            return tuple(cases)
        for place, index in enumerate(repeated):
            case = cases[index]
            above = case.image.parent.parts[1:]
            # If no folder is left to add, a number makes the name distinct.
            more = above[-depth] if depth <= len(above) else str(place + 1)
            cases[index] = replace(case, name=f"{more}_{case.name}")
    return tuple(cases)
