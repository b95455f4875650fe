"""Find cases in a folder: pair its scans with their labels, by the data set's own list or by file names.

The known data sets are nnU-Net v1 and v2 (also their parent folder), the Medical Segmentation Decathlon and BIDS with
derivatives. In any other folder, words in the paths distinguish scans from labels (`names`). Such folders are:

- the Left Atrial Segmentation Challenge, LAScarQS and EMIDEC;
- `x_image` and `x_label`, or `images/x` and `labels/x`;
- a scan beside Slicer's `Segmentation.seg.nrrd`;
- folders of DICOM files.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..errors import InputError
from ..io.channels import MAXIMUM_CHANNELS, channel_files, has_channel_files
from ..io.dicom_files import walk_folders
from ..io.formats import BENCHMARK_ENDING, DICOM_SLICE_ENDINGS, SCAN_ENDINGS, ending, scan_name
from ..io.writers import is_dcamt_result
from .bids import RAW_DATA, find_bids_cases
from .case_list import LABELLED, UNLABELLED, Case
from .case_names import name_of_key, with_folders, with_numbers
from .data_sets import (
    find_listed_cases,
    find_listed_nnunet_cases,
    find_nnunet_cases,
    lists_cases,
    lists_nnunet_cases,
    read_description,
)
from .dicom_labels import pair_dicom_segmentations
from .found_cases import (
    CONTOURS,
    DCAMT_RESULT,
    NAMES,
    NO_SCAN,
    OTHER_CHANNEL,
    OTHER_LABEL,
    RESULT,
    SEVERAL_LABELS,
    FoundCases,
    SkippedFile,
    images_below,
)
from .left_over_labels import FilesByKey, pair_labels_named_after_cases, pair_left_over_labels
from .masks import recognise_masks
from .names import FileKind, NamedFile, classify_all, without_first_channel
from .words import describes_label, rest_of

MAX_REASONS = 5
"""If no case is found, the error names at most this many skipped files."""
_BESIDE_DATA_SET = "not searched, since it lies beside a data set; search this folder by itself"
_IN_DATA_SET = "not searched, since the data set lists no file in this folder; search the folder by itself"
_MISSING_FILES = "ignored, since none of the image files that it lists exists; the cases were found without it"
_DEPTH = 3
"""How many levels of folders are searched for data sets."""


def find_cases(folder: Path) -> FoundCases:
    """Pair the scans below `folder` with their labels.

    Voxels are read only to tell masks from scans (`masks.recognise_masks`).

    Raises:
        InputError: `folder` is not a folder or contains no usable scan, or a `dataset.json` cannot be read.
    """
    found_cases = find_all_scans(folder)
    if not found_cases.cases:
        raise _nothing_found(folder, found_cases)
    return found_cases


def find_all_scans(folder: Path, ignored: Iterable[Path] = ()) -> FoundCases:
    """Return the result of `find_cases`, but without an error if all scans are `FoundCases.unused`.

    Args:
        ignored: folders below `folder` that are not searched.

    Raises:
        InputError: as `find_cases`.
    """
    if not folder.is_dir():
        raise InputError("is not a folder", path=folder, remedy="Name the folder that holds the scans.")
    found_cases = _find(folder, tuple(ignored))
    if not found_cases.cases and not found_cases.unused:
        raise _nothing_found(folder, found_cases)
    cases = (*found_cases.cases, *found_cases.unused)
    names = with_numbers(with_folders([case.name for case in cases], [case.image for case in cases]))
    named = tuple(replace(case, name=name) for case, name in zip(cases, names, strict=True))
    count = len(found_cases.cases)
    return replace(found_cases, cases=named[:count], unused=named[count:])


def _find(folder: Path, ignored: Sequence[Path]) -> FoundCases:
    """Return the cases of the data set in a folder, else of the data sets below it, else those found by file names.

    A `dataset.json` is ignored, with a note, if it lists cases, but none of the listed files exists, and if cases are
    found without it.
    """
    reader = _data_set_reader(folder, ignored)
    if reader is None:
        return _find_without_data_set(folder, ignored)
    found_cases = reader(folder)
    if found_cases.lists_only_missing_files:
        further = _unlisted_reader(folder, ignored)
        without_list = further(folder) if further is not None else _find_without_data_set(folder, ignored)
        if without_list.cases or without_list.unused:
            note = SkippedFile(folder / "dataset.json", _MISSING_FILES)
            classes = without_list.classes or found_cases.classes
            found_cases = replace(without_list, skipped=(note, *without_list.skipped), classes=classes)
    unread = tuple(SkippedFile(path, _IN_DATA_SET) for path in _unread_folders(folder, found_cases, ignored))
    return replace(found_cases, skipped=found_cases.skipped + unread)


def _find_without_data_set(folder: Path, ignored: Sequence[Path]) -> FoundCases:
    """Return the cases of the data sets below a folder, else those found by file names."""
    below = _data_sets_below(folder, ignored)
    if not below:
        return _pair_by_names(folder, ignored)
    found_cases = _join([_find(inner, ignored) for inner in below])
    beside = tuple(SkippedFile(path, _BESIDE_DATA_SET) for path in _folders_beside(folder, below, ignored))
    return replace(found_cases, skipped=found_cases.skipped + beside)


def _unread_folders(folder: Path, found_cases: FoundCases, ignored: Sequence[Path]) -> list[Path]:
    """Return the folders of a data set that contain images, but no case and no skipped file of `found_cases`."""
    cases = (*found_cases.cases, *found_cases.unused)
    known = {file for case in cases for file in case.files}
    known |= {file.path for file in found_cases.skipped}
    # A file may be a link to a file in another folder; then both folders are read.
    places = {Path(os.path.realpath(place)) for file in known for place in (file, file.parent)}
    read = places | {parent for place in places for parent in place.parents}
    _, names, _ = next(walk_folders(folder, ignored))
    unread = [folder / name for name in names if Path(os.path.realpath(folder / name)) not in read]
    return [path for path in unread if any(images_below(path, ignored))]


def _folders_beside(folder: Path, data_sets: Sequence[Path], ignored: Sequence[Path]) -> Iterator[Path]:
    """Yield the outermost folders below `folder` that contain images and lie outside of all `data_sets`.

    Beside the data set `Task02`, `Hospital` is yielded, but not `Hospital/p1`.
    """
    known, above = set(data_sets), {parent for data_set in data_sets for parent in data_set.parents}
    for place, folders, _ in walk_folders(folder, ignored):
        beside = [place / name for name in folders if place / name not in above]
        folders[:] = [name for name in folders if place / name in above]
        yield from (inner for inner in beside if inner not in known and any(images_below(inner, ignored)))


def _nothing_found(folder: Path, found_cases: FoundCases) -> InputError:
    """Return the error for a folder without cases; its text names the first skipped files and the reasons."""
    if not found_cases.skipped:
        endings = ", ".join((*SCAN_ENDINGS, *DICOM_SLICE_ENDINGS))
        return InputError("holds no scan", path=folder, remedy=f"Choose a folder of files that end in {endings}.")
    reasons = [f"{_below(file.path, folder)}: {file.reason}" for file in found_cases.skipped[:MAX_REASONS]]
    more = len(found_cases.skipped) - len(reasons)
    text = "; ".join(reasons) + (f"; and {more} more" if more > 0 else "")
    return InputError(f"contains no usable scan ({text})", path=folder, remedy="Rename or move these files.")


def _below(path: Path, folder: Path) -> str:
    try:
        return path.relative_to(folder).as_posix()
    except ValueError:
        return str(path)


def _data_set_reader(folder: Path, ignored: Sequence[Path] = ()) -> Callable[[Path], FoundCases] | None:
    """Return the function that reads the data set in this folder; None if the folder is no known data set.

    The function does not search the folders `ignored`.
    """
    described = read_description(folder)
    if lists_nnunet_cases(described):
        return find_listed_nnunet_cases
    if lists_cases(described, folder):
        return find_listed_cases
    return _unlisted_reader(folder, ignored)


def _unlisted_reader(folder: Path, ignored: Sequence[Path]) -> Callable[[Path], FoundCases] | None:
    """Return the function that reads the data set in this folder by its folders; None if there are no such folders."""
    if (folder / "imagesTr").is_dir():
        return partial(_find_nnunet_cases, ignored=ignored)
    if _has_subjects(folder) or _has_subjects(folder / RAW_DATA):
        return partial(_find_bids_cases, ignored=ignored)
    return None


def _has_subjects(folder: Path) -> bool:
    """Return whether a folder contains BIDS folders, such as `sub-01`."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return any(entry.is_dir() and re.match(r"sub-[0-9A-Za-z]+$", entry.name) for entry in entries)


def _find_bids_cases(folder: Path, ignored: Sequence[Path]) -> FoundCases:
    """Find the cases of a BIDS data set; if no file has a BIDS name, pair the files by their names: `sub-01/lge`."""
    found_cases = find_bids_cases(folder, ignored)
    return found_cases if found_cases.cases or found_cases.unused else _pair_by_names(folder, ignored)


def _find_nnunet_cases(folder: Path, ignored: Sequence[Path]) -> FoundCases:
    """Find the cases of an nnU-Net data set, whose scans or labels may also lie in other folders or have other names.

    If `find_nnunet_cases` pairs no scan with a label, `_pair_by_names` finds the cases: `imagesTr/x_0000` and `GT/x`,
    `labelsTr/site1/x` or `labelsTr/x_seg`. If no scan gets a label by its name either, the cases are those of
    `find_nnunet_cases`, unless it finds none.
    """
    found_cases = find_nnunet_cases(folder)
    if any(case.label for case in (*found_cases.cases, *found_cases.unused)):
        return found_cases
    paired = _pair_by_names(folder, ignored)
    if any(case.label for case in paired.cases) or not found_cases.cases:
        return replace(paired, classes=found_cases.classes)
    known = {case.image for case in found_cases.cases} | {file.path for file in found_cases.skipped}
    further = tuple(file for file in paired.skipped if file.path not in known)
    unused = tuple(case for case in paired.unused if case.image not in known)
    return replace(found_cases, skipped=found_cases.skipped + further, unused=found_cases.unused + unused)


def _data_sets_below(folder: Path, ignored: Sequence[Path]) -> list[Path]:
    """Return the data sets up to `_DEPTH` levels below a folder such as `nnUNet_raw`."""
    data_sets: list[Path] = []
    for place, folders, _ in walk_folders(folder, ignored):
        found = [name for name in folders if _data_set_reader(place / name) is not None]
        data_sets += [place / name for name in found]
        is_deepest = len(place.relative_to(folder).parts) == _DEPTH - 1
        folders[:] = [] if is_deepest else [name for name in folders if name not in found]
    return sorted(data_sets)


def _join(parts: Sequence[FoundCases]) -> FoundCases:
    """Return the found cases of several data sets as one; classes are kept only if all data sets have the same."""
    layouts = list(dict.fromkeys(part.layout for part in parts))
    classes = {part.classes for part in parts}
    return FoundCases(
        " and ".join(layouts),
        tuple(case for part in parts for case in part.cases),
        tuple(file for part in parts for file in part.skipped),
        classes.pop() if len(classes) == 1 else (),
        tuple(case for part in parts for case in part.unused),
    )


_SKIPPED_KINDS = {
    FileKind.OTHER_LABEL: OTHER_LABEL,
    FileKind.RESULT: RESULT,
}


def _pair_by_names(folder: Path, ignored: Sequence[Path]) -> FoundCases:
    """Find the cases of a folder by the names of its files: pair the scans and labels of equal keys.

    Before the keys are compared, these files get other keys: DICOM segmentations (`dicom_labels`), masks (`masks`),
    channel files, a folder's only label, and left-over labels (`left_over_labels`).

    - A scan with one label becomes a labelled case: `p1_image`, `p1_label`.
    - A scan without a label becomes an unlabelled case.
    - If a scan has several labels (`p1`, `p1_seg`, `p1_gt`) or a label has several scans (`p1`, `p1_image`, `p1_seg`),
      all these files are skipped. The scans are also `FoundCases.unused`.
    - A label without a scan is skipped.
    - A label with DCAMT's mark is skipped if its scan has another label: `p1.seg.nrrd`, `p1_gt`.
    """
    scans: defaultdict[tuple[str, ...], list[NamedFile]] = defaultdict(list)
    labels: defaultdict[tuple[str, ...], list[NamedFile]] = defaultdict(list)
    files, contours = pair_dicom_segmentations(classify_all(images_below(folder, ignored), folder), folder)
    skipped = [SkippedFile(path, CONTOURS) for path in contours]
    own_labels: FilesByKey = defaultdict(list)  # DCAMT's results
    others = []
    for named in files:
        if named.kind is FileKind.LABEL and is_dcamt_result(named.path):
            own_labels[named.key].append(named)
        else:
            others.append(named)
    for named in recognise_masks(others):
        if named.kind in _SKIPPED_KINDS:
            skipped.append(SkippedFile(named.path, _SKIPPED_KINDS[named.kind]))
        else:
            (labels if named.kind is FileKind.LABEL else scans)[named.key].append(named)
    _pair_channels(scans, labels, own_labels, skipped)
    names = _names_of_cases(scans, folder)
    _pair_remaining(scans, labels, names)
    _add_results(own_labels, scans, labels, skipped, names)
    cases: list[Case] = []
    unused: list[Case] = []
    for key, files_of_scan in scans.items():
        images = [named_file.path for named_file in files_of_scan]
        label_paths = [named_file.path for named_file in labels.pop(key, [])]
        name = name_of_key(key) or scan_name(folder)
        if label_paths and len(images) + len(label_paths) > 2:
            unused += [Case(name, image, None, UNLABELLED) for image in images]
        if len(images) > 1 and label_paths:
            skipped += [
                SkippedFile(path, "several scans and labels have the same name") for path in (*images, *label_paths)
            ]
        elif len(label_paths) > 1:
            skipped += [SkippedFile(path, SEVERAL_LABELS) for path in (*images, *label_paths)]
        else:
            for image in images:
                # A benchmark file (.h5) contains its own label.
                label = label_paths[0] if label_paths else image if ending(image) == BENCHMARK_ENDING else None
                cases.append(Case(name, image, label, LABELLED if label else UNLABELLED))
    skipped += [SkippedFile(named_file.path, NO_SCAN) for files in labels.values() for named_file in files]
    return FoundCases(NAMES, tuple(cases), tuple(skipped), unused=tuple(unused))


def _names_of_cases(scans: FilesByKey, folder: Path) -> dict[str, tuple[str, ...]]:
    """Return a mapping from case names, as `find_all_scans` gives them, to the keys of the scans."""
    images = [(key, file.path) for key, files in scans.items() for file in files]
    names = with_folders([name_of_key(key) or scan_name(folder) for key, _ in images], [path for _, path in images])
    return {name: key for name, (key, _) in zip(with_numbers(names), images, strict=True)}


def _pair_remaining(scans: FilesByKey, labels: FilesByKey, names: Mapping[str, tuple[str, ...]]) -> None:
    """Pair left-over labels (see `left_over_labels`) with scans; `names` are those of `_names_of_cases`."""
    pair_labels_named_after_cases(scans, labels, names)
    _pair_lone_labels(scans, labels)
    pair_left_over_labels(scans, labels)
    _pair_lone_labels(scans, labels, several=True)


def _add_results(
    own_labels: FilesByKey,
    scans: FilesByKey,
    labels: FilesByKey,
    skipped: list[SkippedFile],
    names: Mapping[str, tuple[str, ...]],
) -> None:
    """Add DCAMT's results to the labels, or skip them if their scans have other labels."""
    _pair_remaining(scans, own_labels, names)
    for key, files in own_labels.items():
        if key in scans and key in labels:
            skipped += [SkippedFile(file.path, DCAMT_RESULT) for file in files]
        else:
            labels[key] += files


def _pair_channels(scans: FilesByKey, labels: FilesByKey, own_labels: FilesByKey, skipped: list[SkippedFile]) -> None:
    """Give a scan with the channel files `x_0000`, `x_0001`, ... the key of `x`; skip all its files but the first.

    If there is no label `x`, the label `x_0000` gets this key, too.

    The files are channels of one scan in two cases:
    - `has_channel_files` is true.
    - There is a label `x`, but no scan `x`, no label `x_0000` and no scan `x_0010` (channels end at `x_0009`). If the
      label `x` is a result of DCAMT, there must also be no label `x_0001`, `x_0002`, ...

    Otherwise the files stay separate scans, since the numbers may count patients.

    Args:
        own_labels: the results of DCAMT among the labels; `labels` holds the other labels.
    """
    further = {
        other
        for files in scans.values()
        for named_file in files
        if has_channel_files(named_file.path)
        for other in channel_files(named_file.path)[1:]
    }
    skipped += [SkippedFile(path, OTHER_CHANNEL) for path in sorted(further)]
    for key in list(scans):
        if kept := [named_file for named_file in scans.pop(key) if named_file.path not in further]:
            are_channels = any(has_channel_files(named_file.path) for named_file in kept)
            case_key = without_first_channel(key) if are_channels else key
            scans[case_key] += kept
            for found in (labels, own_labels):
                if key in found and case_key not in found:
                    found[case_key] = found.pop(key)
    for label in (*labels, *own_labels):
        if not label or label in scans:
            continue
        first, *others, too_many = [(*label[:-1], f"{label[-1]}_{n:04d}") for n in range(MAXIMUM_CHANNELS + 1)]
        if first not in scans or first in labels or too_many in scans:
            continue
        if label not in labels and any(key in labels or key in own_labels for key in (first, *others)):
            continue
        scans[label] = scans.pop(first)
        for key in others:
            skipped += [SkippedFile(named_file.path, OTHER_CHANNEL) for named_file in scans.pop(key, [])]


def _pair_lone_labels(scans: FilesByKey, labels: FilesByKey, several: bool = False) -> None:
    """Pair a folder's only scan and only label if the label's name describes only the label (`describes_label`).

    If the label's name begins with the scan's name, this beginning is ignored. Slicer saves such names:
    `Segmentation_1.seg.nrrd` beside a scan of any name, `LGE Segmentation.seg.nrrd` beside `LGE.nrrd`.

    Args:
        several: also pair the scan with several labels if no label in the folder has a scan, and each label's name
            describes only the label.
    """
    scans_in: defaultdict[Path, list[tuple[tuple[str, ...], NamedFile]]] = defaultdict(list)
    labels_in: defaultdict[Path, list[tuple[tuple[str, ...], NamedFile]]] = defaultdict(list)
    for files_by_key, files_by_folder in ((scans, scans_in), (labels, labels_in)):
        for key, files in files_by_key.items():
            for named_file in files:
                files_by_folder[named_file.path if named_file.path.is_dir() else named_file.path.parent].append(
                    (key, named_file)
                )
    for place, folder_labels in labels_in.items():
        images = scans_in.get(place, [])
        if len(images) != 1 or (len(folder_labels) > 1 and not several):
            continue
        if several and any(key in scans for key, _ in folder_labels):
            continue
        image_key, image = images[0]
        start = scan_name(image.path)
        names = [scan_name(label.path) for _, label in folder_labels]
        if image_key not in labels and all(describes_label(rest_of(name, start) or name, start) for name in names):
            for key, label in folder_labels:
                labels[image_key].append(label)
                labels[key].remove(label)
                if not labels[key]:
                    del labels[key]
