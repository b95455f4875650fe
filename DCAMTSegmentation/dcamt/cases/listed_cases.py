"""Find the cases that a data set's `dataset.json` lists."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..io.channels import channel_files, channel_of
from ..io.file_names import real_path
from ..io.formats import LABEL_ENDINGS, SCAN_ENDINGS, ending, scan_name
from .case_list import LABELLED, UNLABELLED, Case
from .case_names import case_name
from .dataset_json import LISTS, TEST_LISTS, classes_of, entries_of, listed_entries, read_description
from .folder_files import files_in
from .found_cases import DECATHLON, NNUNET, OTHER_CHANNEL, FoundCases, SkippedFile
from .nnunet_folders import (
    TEST_CASE,
    composed_scan_name,
    distinct_from,
    further_channels,
    labels_among,
    labels_by_name,
    only_labels,
    unused_case,
    without_other_endings,
)

_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
_UNNUMBERED_CHANNEL = (
    "another channel of its case; to use all channels, name the files x_0000, x_0001, ... in one folder"
)
_MISSING = "dataset.json names it, but it cannot be found"
_INCOMPLETE_CASE = "dataset.json lists it together with a file that cannot be found"


class _ListedCases:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed: set[tuple[Path, Path | None]] = set()
        self._located: set[Path | None] = set()
        self._files_by_name: dict[tuple[Path, Sequence[str]], defaultdict[str, list[Path]]] = {}
        self.cases: list[Case] = []
        self.unused: list[Case] = []
        self.skipped: list[SkippedFile] = []

    def add(self, images: Sequence[object], label: object, name: str = "") -> None:
        files, label_path = self._locate(images, label)
        if not files or (files[0], label_path) in self._listed:
            return
        self._listed.add((files[0], label_path))
        role = LABELLED if label_path else UNLABELLED
        case = Case(_file_name(name) or case_name(files[0]), files[0], label_path, role)
        channels = channel_files(files[0])
        if all(os.path.exists(file) for file in case.files):
            self.skipped += [SkippedFile(file, OTHER_CHANNEL) for file in channels[1:]]
            self.skipped += [SkippedFile(file, _UNNUMBERED_CHANNEL) for file in files[1:] if file not in channels]
            self.cases.append(case)
        else:
            self._skip_incomplete(case, (*files, *channels))

    def _skip_incomplete(self, case: Case, images: Iterable[Path]) -> None:
        self.skipped += [SkippedFile(file, _MISSING) for file in case.files if not os.path.exists(file)]
        existing = [file for file in dict.fromkeys((*images, *case.files)) if os.path.exists(file)]
        self.skipped += [SkippedFile(file, _INCOMPLETE_CASE) for file in existing]
        if os.path.exists(case.image):
            self.unused.append(replace(case, label=None, role=UNLABELLED))

    def skip(self, images: Sequence[object], label: object, labels: Mapping[str, Path]) -> None:
        """Add a test case to `unused`, and its files to `skipped`.

        Args:
            labels: the labels in `labelsTs` by name.
        """
        files, listed = self._locate(images, label)
        channels = [channel for file in files for channel in channel_files(file) if channel not in files]
        self.skipped += [SkippedFile(file, TEST_CASE) for file in (*files, *dict.fromkeys(channels))]
        if listed is not None and labels.get(scan_name(listed)) != listed:
            self.skipped.append(SkippedFile(listed, TEST_CASE))
        if files and os.path.exists(files[0]):
            case = unused_case(files[0], labels)
            has_listed = listed is not None and os.path.exists(listed)
            self.unused.append(replace(case, label=listed, role=LABELLED) if has_listed else case)

    def found_cases(self, layout: str, classes: tuple[tuple[int, str], ...]) -> FoundCases:
        used = {file for case in self.cases for file in case.files}
        # A file may be used for one listed case, but skipped for another.
        self.skipped = [file for file in self.skipped if file.path not in used]
        self._skip_unlisted()
        unused = distinct_from(self.cases, self.unused)
        has_files = any(file is not None and os.path.exists(file) for file in self._located)
        return FoundCases(layout, tuple(self.cases), tuple(self.skipped), classes, unused, not has_files)

    def _locate(self, images: Sequence[object], label: object) -> tuple[list[Path], Path | None]:
        files = [self._file(text) for text in images if isinstance(text, str) and text]
        label_path = self._label(label, files)
        self._located.update((*files, label_path))
        return files, label_path

    def _skip_unlisted(self) -> None:
        listed = [file for case in self.cases for file in case.files]
        # Compare resolved paths, since `dataset.json` may name a file by another path.
        named = {real_path(file) for file in (*listed, *(skipped_file.path for skipped_file in self.skipped))}
        for name in _FOLDERS:
            files = files_in(self._folder / name, (*SCAN_ENDINGS, *LABEL_ENDINGS))
            reason = TEST_CASE if name == "labelsTs" else "dataset.json does not list it"
            unlisted = [file for file in files if real_path(file) not in named]
            self.skipped += [SkippedFile(file, reason) for file in unlisted]
            if name.startswith("images") and unlisted:
                labels = {skipped_file.path for skipped_file in labels_among(files, self._folder / name, {})}
                further = further_channels(files)
                scans = [file for file in unlisted if file not in further and file not in labels]
                self.unused += [unused_case(file, {}) for file in scans]

    def _label(self, text: object, images: Sequence[Path]) -> Path | None:
        if not isinstance(text, str) or not text:
            return None
        path = self._file(text, LABEL_ENDINGS)
        found_scan_instead = path in images
        return self._folder / text if found_scan_instead else path

    def _file(self, text: str, endings: Sequence[str] = SCAN_ENDINGS) -> Path:
        """Return the path of the file that `dataset.json` names as `text`.

        Changes are tried in this order until a file exists.

        1. Environment variables are replaced; nnU-Net v2 allows them.
        2. Backslashes become slashes.
        3. Folders at the start of the path are removed until the remaining folders exist in the data set:
           `C:/Task1/imagesTr/a.nii` and `Task1/imagesTr/a.nii` become `imagesTr/a.nii`.
        4. `_0000`, which nnU-Net v1 omits, is added: `a.nii` becomes `a_0000.nii`.
        5. Other `endings` and the other Unicode form of accents (NFC or NFD) are tried, with and without `_0000`:
           `a.nii` becomes `a.nii.gz`. Exactly one file must fit.

        If no file exists, the path after the third change is returned.
        """
        if not os.path.exists(self._folder / text):
            text = os.path.expandvars(text)
        path = self._folder / text
        if "\\" in text and not os.path.exists(path):
            path = self._folder / text.replace("\\", "/")
        if not os.path.exists(path):
            path = self._file_of_moved_set(text) or path
        kind = ending(path)
        channel = path.with_name(
            f"{path.name[: len(path.name) - len(kind)]}_0000{path.name[len(path.name) - len(kind) :]}"
        )
        if not os.path.exists(path) and not os.path.exists(channel) and os.path.isdir(path.parent):
            files = self._files(path.parent, endings)
            name = composed_scan_name(path)
            fitting = files.get(name, []) + files.get(f"{name}_0000", [])
            return fitting[0] if len(fitting) == 1 else path
        return channel if not os.path.exists(path) and os.path.exists(channel) else path

    def _file_of_moved_set(self, text: str) -> Path | None:
        """Return the path after the third change of `_file`; None if the third change is impossible."""
        parts = PureWindowsPath(text).parts  # Splits at both kinds of slashes.
        is_absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
        rests = [self._folder.joinpath(*parts[first:]) for first in range(int(is_absolute), len(parts))]
        in_folder = (rest for rest in rests[:-1] if os.path.isdir(rest.parent))
        beside_description = (rest for rest in rests[-1:] if os.path.exists(rest))
        return next(chain(in_folder, beside_description), None)

    def _files(self, folder: Path, endings: Sequence[str]) -> Mapping[str, list[Path]]:
        if (folder, endings) not in self._files_by_name:
            files = self._files_by_name[folder, endings] = defaultdict(list)
            for file in files_in(folder, endings):
                files[composed_scan_name(file)].append(file)
        return self._files_by_name[folder, endings]


def find_listed_cases(folder: Path) -> FoundCases:
    """Read the cases that `dataset.json` lists under `training`, `validation`, `test` and similar keys."""
    described, listed = read_description(folder), _ListedCases(folder)
    test_files = files_in(folder / "labelsTs", LABEL_ENDINGS)
    test_labels = only_labels(labels_by_name(without_other_endings(test_files, described)))
    for key in LISTS:
        for images, label, name in listed_entries(described, key, folder):
            if key in TEST_LISTS and (test_labels or label):
                listed.skip(images, label, test_labels)
            else:
                listed.add(images, label, name)
    has_channels = any(channel_of(case.image) is not None for case in listed.cases)
    return listed.found_cases(NNUNET if has_channels else DECATHLON, classes_of(described))


def find_listed_nnunet_cases(folder: Path) -> FoundCases:
    """Read an nnU-Net v2 data set whose `dataset.json` lists each case's files under the key `dataset`."""
    described, listed = read_description(folder), _ListedCases(folder)
    for images, label, name in entries_of(described["dataset"]):
        listed.add(images, label, name)
    return listed.found_cases(NNUNET, classes_of(described))


def _file_name(name: str) -> str:
    return re.sub(r"[/\\]", "_", name)
