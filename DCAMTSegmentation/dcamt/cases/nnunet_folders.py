"""Find the cases of an nnU-Net data set by its folders `imagesTr`, `labelsTr`, `imagesTs` and `labelsTs`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

from ..io.channels import channel_of, without_channel
from ..io.formats import LABEL_ENDINGS, SCAN_ENDINGS, ending, scan_name
from .case_list import LABELLED, UNLABELLED, Case
from .case_names import case_name
from .dataset_json import classes_of, read_description
from .folder_files import files_in
from .found_cases import NNUNET, NO_SCAN, OTHER_CHANNEL, RESULT, SEVERAL_LABELS, FoundCases, SkippedFile
from .masks import labels_and_results
from .names import FileKind

TEST_CASE = "a test case of the data set"
_OTHER_ENDING = "another file of the same name has the ending that dataset.json states"
_LABEL_AMONG_SCANS = "a label in a folder of scans; to use it, move it to the folder of labels"


def find_nnunet_cases(folder: Path) -> FoundCases:
    """Pair `imagesTr/x_0000` with `labelsTr/x`.

    If `labelsTs` has no labels, the scans in `imagesTs` are unlabelled cases. If `labelsTs` has labels, these scans and
    labels are listed as skipped, and each scan becomes a case that is not for training (`FoundCases.unused`).

    If a scan has several labels, the scan and these labels are listed as skipped, and the scan becomes a case of
    `unused`, too.
    """
    described = read_description(folder)
    training, test = (_cases_of_part(folder, part, described) for part in ("Tr", "Ts"))
    cases = (*training.cases, *test.cases)
    unused = distinct_from(cases, (*training.unused, *test.unused))
    return FoundCases(NNUNET, cases, (*training.skipped, *test.skipped), classes_of(described), unused)


def _cases_of_part(folder: Path, part: str, described: Mapping[str, Any]) -> FoundCases:
    """Return the cases of `imagesTr` and `labelsTr`, or `imagesTs` and `labelsTs`.

    Args:
        part: "Tr" or "Ts".
    """
    images = files_in(folder / f"images{part}", dict.fromkeys((*SCAN_ENDINGS, *LABEL_ENDINGS)))
    label_files = files_in(folder / f"labels{part}", LABEL_ENDINGS)
    used_labels = without_other_endings(label_files, described)
    labels = labels_by_name(used_labels)
    among_scans = labels_among(images, folder / f"images{part}", labels)
    no_scans = {file.path for file in among_scans}
    scans = without_other_endings([file for file in images if file not in no_scans], described)
    if part == "Ts" and labels:
        skipped = [SkippedFile(file, TEST_CASE) for file in (*scans, *label_files)]
        further = further_channels(scans)
        first = [file for file in scans if _has_own_label(file, labels) or file not in further]
        found_cases = FoundCases(NNUNET, (), unused=tuple(unused_case(file, only_labels(labels)) for file in first))
    else:
        skipped = _other_endings(label_files, used_labels)
        found_cases = _pair_scans(scans, labels)
    unread = (*among_scans, *_other_endings(images, (*scans, *no_scans)))
    return replace(found_cases, skipped=(*skipped, *found_cases.skipped, *unread))


def _pair_scans(scans: Sequence[Path], labels: Mapping[str, Sequence[Path]]) -> FoundCases:
    cases: list[Case] = []
    skipped: list[SkippedFile] = []
    unused: list[Case] = []
    used: set[str] = set()
    further = further_channels(scans)
    for file in scans:
        name = without_channel(composed_scan_name(file))
        # If a label has the scan's full name, such as `p_0001`, the number stands for a patient, not a channel.
        if _has_own_label(file, labels):
            name = composed_scan_name(file)
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
    return FoundCases(NNUNET, tuple(cases), tuple(skipped), unused=tuple(unused))


def further_channels(scans: Iterable[Path]) -> set[Path]:
    """Return the files `x_0001` to `x_0009` of a folder of scans; none if the numbers stand for patients.

    The numbers stand for patients if no file has the number `_0000`, as in the data set AMOS: `amos_0001`, `amos_0004`.
    """
    numbers = {file: channel_of(file) for file in scans}
    return {file for file, number in numbers.items() if number} if 0 in numbers.values() else set()


def without_other_endings(files: Sequence[Path], described: Mapping[str, Any]) -> list[Path]:
    """Return the files; leave out a file if another of the same name has the ending that `dataset.json` states."""
    stated = described.get("file_ending")
    names = {scan_name(file) for file in files if ending(file) == stated}
    return [file for file in files if ending(file) == stated or scan_name(file) not in names]


def _other_endings(files: Iterable[Path], used: Iterable[Path]) -> list[SkippedFile]:
    known = set(used)
    return [SkippedFile(file, _OTHER_ENDING) for file in files if file not in known]


def composed_scan_name(path: Path) -> str:
    """Return a scan's name with composed accents (NFC): a Mac may store decomposed names."""
    return normalize("NFC", scan_name(path))


def labels_by_name(files: Iterable[Path]) -> dict[str, list[Path]]:
    labels: defaultdict[str, list[Path]] = defaultdict(list)
    for file in files:
        labels[composed_scan_name(file)].append(file)
    return dict(labels)


def only_labels(labels: Mapping[str, Sequence[Path]]) -> dict[str, Path]:
    """Return the labels by name, without those that share their name with another label."""
    return {name: files[0] for name, files in labels.items() if len(files) == 1}


def labels_among(files: Sequence[Path], folder: Path, labels: Mapping[str, object]) -> list[SkippedFile]:
    """Return the labels, masks and automatic results among the files of a folder of scans.

    A file with a scan's ending always counts as a scan if its name ends in a channel number or is a key of `labels`.

    Args:
        labels: the files in the folder of labels, by name.
    """
    with_label_ending = {file for file in files if ending(file) not in SCAN_ENDINGS}
    unsure = {
        file for file in files if channel_of(file) is None and composed_scan_name(file) not in labels
    } | with_label_ending
    if not unsure:
        return []
    kinds = {file.path: file.kind for file in labels_and_results(files, folder)}
    return [
        SkippedFile(file, RESULT if kinds.get(file) is FileKind.RESULT else _LABEL_AMONG_SCANS)
        for file in files
        if file in with_label_ending or (file in unsure and file in kinds)
    ]


def _has_own_label(file: Path, labels: Mapping[str, object]) -> bool:
    """Return whether a scan's label has the scan's full name: the label `p_0001` for the scan `p_0001`.

    If there are the labels `p` and `p_0000`, return False for the scan `p_0000`: its label is `p`.
    """
    name = composed_scan_name(file)
    return name in labels and (without_channel(name) == name or without_channel(name) not in labels)


def unused_case(image: Path, labels: Mapping[str, Path]) -> Case:
    """Return a case that is not used for training."""
    label = labels.get(without_channel(composed_scan_name(image))) or labels.get(composed_scan_name(image))
    return Case(case_name(image), image, label, LABELLED if label else UNLABELLED)


def distinct_from(cases: Iterable[Case], unused: Iterable[Case]) -> tuple[Case, ...]:
    """Return the unused cases whose scan is not in `cases`, one for each scan.

    If a case of `cases` is named `a`, the unused case `a` of the folder `imagesTs` is renamed `imagesTs_a`.
    """
    names, scans = {case.name for case in cases}, {case.scan for case in cases}
    by_scan = {case.scan: case for case in unused if case.scan not in scans}
    distinct = []
    for case in by_scan.values():
        while case.name in names:
            case = replace(case, name=f"{case.image.parent.name}_{case.name}")
        distinct.append(case)
    return tuple(distinct)
