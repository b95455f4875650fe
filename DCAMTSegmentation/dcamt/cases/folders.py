"""Find cases in a folder: pair its scans with their labels, by the data set's own list or by file names.

The known data sets are nnU-Net v1 and v2, the Medical Segmentation Decathlon and BIDS with derivatives. In any other
folder, words in the paths distinguish scans from labels (module `names`). Examples:

- the Left Atrial Segmentation Challenge, LAScarQS and EMIDEC;
- `x_image` and `x_label`, or `images/x` and `labels/x`;
- a scan beside Slicer's `Segmentation.seg.nrrd`;
- folders of DICOM files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..errors import InputError
from ..io.dicom_files import files_below, unreadable_folders, walk_folders
from ..io.file_names import real_path
from ..io.formats import DICOM_SLICE_ENDINGS, SCAN_ENDINGS, ending
from ..io.volume_content import may_hold_volume
from .bids import RAW_DATA, find_bids_cases
from .case_names import with_folders, with_numbers
from .dataset_json import lists_cases, lists_nnunet_cases, other_case_lists, read_description
from .folder_files import images_below, zip_files_below
from .found_cases import UNREADABLE, ZIP_FILE, FoundCases, SkippedFile
from .listed_cases import find_listed_cases, find_listed_nnunet_cases
from .name_pairing import find_cases_by_names
from .nnunet_folders import find_nnunet_cases

MAX_REASONS = 5
"""If no case is found, the error names at most this many skipped files."""
_BESIDE_DATA_SET = "not searched, since it lies beside a data set; search this folder by itself"
_IN_DATA_SET = "not searched, since the data set lists no file in this folder; search the folder by itself"
_MISSING_FILES = "ignored, since none of the image files that it lists exists; the cases were found without it"
_OTHER_LIST = "not read; to use the cases that it lists, name it dataset.json"
_DEPTH = 3
"""How many levels of folders are searched for data sets."""


def find_cases(folder: Path) -> FoundCases:
    """Pair the scans below `folder` with their labels.

    Voxels are read only to tell masks from scans (`few_values.has_few_values`).

    Raises:
        InputError: `folder` is not a folder, cannot be read or contains no usable scan, or a `dataset.json` cannot be
            read.
    """
    found_cases = find_all_scans(folder)
    if not found_cases.cases:
        raise _nothing_found(folder, found_cases)
    return found_cases


def find_all_scans(folder: Path, ignored: Iterable[Path] = ()) -> FoundCases:
    """Pair scans with labels as `find_cases` does, but accept a folder that has only unused cases.

    An unused case is one that is not for training, such as a test case (`FoundCases.unused`).

    Raises:
        InputError: `folder` or its `dataset.json` cannot be read, or no case is found.
    """
    if not folder.is_dir():
        raise InputError("is not a folder", path=folder, remedy="Name the folder that holds the scans.")
    ignored = tuple(ignored)
    unreadable = unreadable_folders(folder, ignored)
    if folder in unreadable:
        raise InputError("cannot be read (no permission)", path=folder, remedy="Change its permissions.")
    found_cases = _find(folder, (*ignored, *unreadable))
    notes = tuple(SkippedFile(path, UNREADABLE) for path in unreadable)
    notes += tuple(_other_lists(folder, (*ignored, *unreadable)))
    zip_files = tuple(_unused_zip_files(folder, found_cases, (*ignored, *unreadable)))
    found_cases = replace(found_cases, skipped=notes + found_cases.skipped + zip_files)
    if not found_cases.cases and not found_cases.unused:
        raise _nothing_found(folder, found_cases)
    cases = (*found_cases.cases, *found_cases.unused)
    names = with_numbers(with_folders([case.name for case in cases], [case.image for case in cases]))
    named = tuple(replace(case, name=name) for case, name in zip(cases, names, strict=True))
    count = len(found_cases.cases)
    return replace(found_cases, cases=named[:count], unused=named[count:])


def _other_lists(folder: Path, ignored: Sequence[Path]) -> Iterator[SkippedFile]:
    for place, folders, files in walk_folders(folder, ignored):
        yield from (SkippedFile(path, _OTHER_LIST) for path in other_case_lists(files))
        if len(place.relative_to(folder).parts) == _DEPTH:
            folders[:] = []


def _unused_zip_files(folder: Path, found_cases: FoundCases, ignored: Sequence[Path]) -> Iterator[SkippedFile]:
    known = _files_of(found_cases)
    yield from (SkippedFile(path, ZIP_FILE) for path in zip_files_below(folder, ignored) if path not in known)


def _files_of(found_cases: FoundCases) -> set[Path]:
    cases = (*found_cases.cases, *found_cases.unused)
    return {file for case in cases for file in case.files} | {file.path for file in found_cases.skipped}


def _find(folder: Path, ignored: Sequence[Path]) -> FoundCases:
    # A `dataset.json` that lists only missing files is ignored, with a note, if cases are found without it.
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
    below = _data_sets_below(folder, ignored)
    if not below:
        return find_cases_by_names(folder, ignored)
    found_cases = _join([_find(inner, ignored) for inner in below])
    beside = tuple(SkippedFile(path, _BESIDE_DATA_SET) for path in _folders_beside(folder, below, ignored))
    return replace(found_cases, skipped=found_cases.skipped + beside)


def _unread_folders(folder: Path, found_cases: FoundCases, ignored: Sequence[Path]) -> list[Path]:
    known = _files_of(found_cases)
    # A file may be a link to a file in another folder; then both folders count as read.
    places = {Path(real_path(place)) for file in known for place in (file, file.parent)}
    read = places | {parent for place in places for parent in place.parents}
    _, names, _ = next(walk_folders(folder, ignored))
    unread = [folder / name for name in names if Path(os.path.realpath(folder / name)) not in read]
    return [path for path in unread if any(images_below(path, ignored))]


def _folders_beside(folder: Path, data_sets: Sequence[Path], ignored: Sequence[Path]) -> Iterator[Path]:
    """Yield the outermost folders below `folder` that contain images and lie outside of all `data_sets`."""
    known, above = set(data_sets), {parent for data_set in data_sets for parent in data_set.parents}
    for place, folders, _ in walk_folders(folder, ignored):
        beside = [place / name for name in folders if place / name not in above]
        folders[:] = [name for name in folders if place / name in above]
        yield from (inner for inner in beside if inner not in known and any(images_below(inner, ignored)))


def _nothing_found(folder: Path, found_cases: FoundCases) -> InputError:
    if not found_cases.skipped:
        if (file := next(filter(_is_no_volume, files_below(folder)), None)) is not None:
            what = f"holds no scan; {_below(file, folder)} is no volume of at least three slices"
            return InputError(what, path=folder, remedy="Save each scan as one file, such as p1.nii.gz.")
        endings = ", ".join((*SCAN_ENDINGS, *DICOM_SLICE_ENDINGS))
        return InputError("holds no scan", path=folder, remedy=f"Choose a folder of files that end in {endings}.")
    reasons = [f"{_below(file.path, folder)}: {file.reason}" for file in found_cases.skipped[:MAX_REASONS]]
    more = len(found_cases.skipped) - len(reasons)
    text = "; ".join(reasons) + (f"; and {more} more" if more > 0 else "")
    return InputError(f"contains no usable scan ({text})", path=folder, remedy="Rename or move these files.")


def _is_no_volume(path: Path) -> bool:
    return ending(path) in SCAN_ENDINGS and not may_hold_volume(path)


def _below(path: Path, folder: Path) -> str:
    try:
        return path.relative_to(folder).as_posix()
    except ValueError:
        return str(path)


def _data_set_reader(folder: Path, ignored: Sequence[Path] = ()) -> Callable[[Path], FoundCases] | None:
    described = read_description(folder)
    if lists_nnunet_cases(described):
        return find_listed_nnunet_cases
    if lists_cases(described, folder):
        return find_listed_cases
    return _unlisted_reader(folder, ignored)


def _unlisted_reader(folder: Path, ignored: Sequence[Path]) -> Callable[[Path], FoundCases] | None:
    if os.path.isdir(folder / "imagesTr"):
        return partial(_find_nnunet_cases, ignored=ignored)
    if _has_subjects(folder) or _has_subjects(folder / RAW_DATA):
        return partial(_find_bids_cases, ignored=ignored)
    return None


def _has_subjects(folder: Path) -> bool:
    # From a folder without permission, `glob` yields nothing, but `iterdir` raises PermissionError.
    entries = folder.glob("sub-*") if os.path.isdir(folder) else ()
    return any(os.path.isdir(entry) and re.match(r"sub-[0-9A-Za-z]+$", entry.name) for entry in entries)


def _find_bids_cases(folder: Path, ignored: Sequence[Path]) -> FoundCases:
    # If no case has a BIDS name (`sub-01_lge`), find cases by any file names (`sub-01/lge`).
    found_cases = find_bids_cases(folder, ignored)
    return found_cases if found_cases.cases or found_cases.unused else find_cases_by_names(folder, ignored)


def _find_nnunet_cases(folder: Path, ignored: Sequence[Path]) -> FoundCases:
    found_cases = find_nnunet_cases(folder)
    if any(case.label for case in (*found_cases.cases, *found_cases.unused)):
        return found_cases
    # No case has a label in `labelsTr` or `labelsTs`. Labels may lie in another folder: `GT/x` for `imagesTr/x_0000`.
    paired = find_cases_by_names(folder, ignored)
    if found_cases.cases and not any(case.label for case in paired.cases):
        return _with_further_files(found_cases, paired)
    return replace(paired, classes=found_cases.classes)


def _with_further_files(found_cases: FoundCases, paired: FoundCases) -> FoundCases:
    known = {case.image for case in found_cases.cases} | {file.path for file in found_cases.skipped}
    further = tuple(file for file in paired.skipped if file.path not in known)
    unused = tuple(case for case in paired.unused if case.image not in known)
    return replace(found_cases, skipped=found_cases.skipped + further, unused=found_cases.unused + unused)


def _data_sets_below(folder: Path, ignored: Sequence[Path]) -> list[Path]:
    data_sets: list[Path] = []
    for place, folders, _ in walk_folders(folder, ignored):
        found = [name for name in folders if _data_set_reader(place / name) is not None]
        data_sets += [place / name for name in found]
        is_deepest = len(place.relative_to(folder).parts) == _DEPTH - 1
        folders[:] = [] if is_deepest else [name for name in folders if name not in found]
    return sorted(data_sets)


def _join(parts: Sequence[FoundCases]) -> FoundCases:
    layouts = list(dict.fromkeys(part.layout for part in parts))
    classes = {part.classes for part in parts}
    return FoundCases(
        " and ".join(layouts),
        tuple(case for part in parts for case in part.cases),
        tuple(file for part in parts for file in part.skipped),
        classes.pop() if len(classes) == 1 else (),
        tuple(case for part in parts for case in part.unused),
    )
