"""Find the scans that a path of a command line stands for, and the files and folders that are skipped."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..cases.dataset_json import is_case_list
from ..cases.dicom_labels import dicom_files_among
from ..cases.few_values import count_few_values, has_few_values, may_be_mask
from ..cases.folder_files import image_files, images_below, is_file_or_missing_link, zip_files_below
from ..cases.folders import find_all_scans
from ..cases.found_cases import ZIP_FILE
from ..cases.masks import labels_and_results
from ..errors import InputError
from ..io.channels import channel_files, has_channel_files
from ..io.dicom import are_separate_scans, has_dicom_file, is_one_study
from ..io.dicom_files import files_below
from ..io.formats import SCAN_ENDINGS, ending, scan_name
from ..io.readers import read_header
from ..io.writers import has_mark

MAX_LISTED = 20
"""A message names at most this many scans, files or folders."""


@dataclass(frozen=True)
class FoundScans:
    """The scans that a path stands for.

    Attributes:
        folder: the folder in which the scans were found; None if the path itself is the scan.
        names: one name for each scan; the scan's results are named after it.
        skipped_files: labels, automatic results, the files of further channels, and other files that
            `cases.folders.find_all_scans` skips, such as missing files that a `dataset.json` names.
        skipped_folders: folders beside the scans.
        skipped_dicom: DICOM images beside scan files of other formats.
        skipped_zip_files: zip files beside other scans.
    """

    scans: list[Path]
    names: list[str]
    skipped_files: list[Path]
    skipped_folders: list[Path]
    skipped_dicom: Sequence[Path] = ()
    skipped_zip_files: Sequence[Path] = ()
    folder: Path | None = None


class MaskInFolder(InputError):
    """Raised when a file that was found in a folder of scans is like a label."""


def refuse_mask(scan: Path, voxels: NDArray[Any]) -> None:
    """Raise MaskInFolder if a scan that was found in a folder may be a mask (`may_be_mask`)."""
    if may_be_mask(voxels):
        what = f"is skipped, since it has only {count_few_values(voxels)} different intensities, like a label"
        raise MaskInFolder(what, path=scan, remedy="If it is a scan, give its path in place of the folder's.")


def no_scan_in(folder: Path) -> InputError:
    """Return the error about a folder in which each possible scan was refused by `refuse_mask`."""
    what = "holds no scan: its images have few different intensities, like a label"
    return InputError(what, path=folder, remedy="Choose the folder of the scans.")


def find_scans(path: Path, channels: int = 1, results: Iterable[Path] = ()) -> FoundScans:
    """Return the scans that a path stands for.

    - a file: this file
    - a folder with scan files of other formats than DICOM, such as NIfTI: these files
    - a folder with multi-frame DICOM images of different studies: these images
    - a folder whose scan files are in subfolders, whose only scans are zip files, or whose `dataset.json` lists scans
      in other folders: all scans that `dcamt cases find` recognises, including the scans of cases that are not for
      training (`FoundCases.unused`)
    - a folder with folders of DICOM files: each inner folder, unless all inner folders belong to one study
      (`_separate_scans`)
    - any other folder: this folder, as one scan of DICOM files

    In a folder, these files are skipped:

    - hidden files
    - labels and automatic results of scans, such as `p1_seg` and `p1_pred` (`cases.names`, `cases.masks`)
    - DCAMT's maps of agreement and probabilities
    - the files of a scan's further channels, such as `x_0001.nii.gz` (`_further_channels`)
    - zip files beside other scans

    Args:
        channels: the number of channels that the model needs.
        results: subfolders to skip if they hold only results (`_holds_only_results`).

    Raises:
        InputError: the subfolders hold image files, but no usable scan; or a `dataset.json` cannot be read.
    """
    if not os.path.isdir(path):  # `path.is_dir()` may raise for invalid names.
        return _named([path])
    result_folders = [folder for folder in results if _is_below(folder, path) and _holds_only_results(folder)]
    found = _find_scans_in(path, channels, result_folders)
    known = {*found.scans, *found.skipped_files}
    zip_files = zip_files_below(path, [*result_folders, *found.skipped_folders])
    folder = None if found.scans == [path] else path
    return replace(found, skipped_zip_files=[file for file in zip_files if file not in known], folder=folder)


def describe_skipped(path: Path, found: FoundScans, verb: str, known: Collection[Path]) -> list[str]:
    """Return messages that name the files and folders that `find_scans` skipped.

    Args:
        verb: what the command does with a scan, such as `segment`.
        known: files and folders that the command reads or writes; no message names these or a folder above them.
    """
    real = [Path(os.path.realpath(path)) for path in known]
    left_out = {folder for path in real for folder in (path, *path.parents)}

    def unknown(paths: Iterable[Path]) -> list[Path]:
        return [path for path in paths if Path(os.path.realpath(path)) not in left_out]

    files = unknown(found.skipped_files)
    kinds = (
        (
            unknown(found.skipped_folders),
            "skipped folders beside the scans",
            f"To {verb} a skipped folder, give the folder's path in the command.",
        ),
        (
            unknown(found.skipped_dicom),
            "skipped DICOM images beside scan files of other formats",
            f"To {verb} the DICOM images, move them into a folder of their own.",
        ),
        (
            unknown(found.skipped_zip_files),
            "skipped zip files, which may repeat scans beside them",
            f"To {verb} a zip file, give the file's path in the command.",
        ),
        (
            [file for file in files if os.path.lexists(file)],
            "skipped files that are labels (or have few different intensities, like a label), results of a program, or"
            " a scan's second or later channel",
            f"To {verb} a skipped file, give the file's path in the command.",
        ),
        (
            [file for file in files if not os.path.lexists(file)],
            "skipped files that a dataset.json names, but that do not exist",
            "Restore these files, or correct the dataset.json.",
        ),
    )
    return [f"{path}: {what} ({relative_names(path, paths)}). {remedy}" for paths, what, remedy in kinds if paths]


def relative_names(folder: Path, paths: Iterable[Path]) -> str:
    """Return text with the first paths, relative to `folder`, and the number of further paths."""
    return first_names(
        [path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path) for path in paths]
    )


def first_names(names: Sequence[str]) -> str:
    """Return text with the first `MAX_LISTED` names and the number of further names."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def _find_scans_in(path: Path, channels: int, result_folders: Sequence[Path]) -> FoundScans:
    left_out = {os.path.realpath(folder) for folder in result_folders}
    try:
        shown = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except PermissionError:  # The error is reported when the scan is read.
        return _named([path])
    entries = [entry for entry in shown if os.path.realpath(entry) not in left_out]
    folders = [entry for entry in entries if os.path.isdir(entry)]
    files = _files_in(path)
    skipped = _skipped_files(files, path, channels) if files else []
    left_out_files = set(skipped)
    inside = [file for file in files if file not in left_out_files]
    images = list(dicom_files_among(entries).slices)
    if inside and not all(map(has_few_values, inside)):
        return _named(inside, skipped, folders, images)
    if are_separate_scans(images):
        return _named(images, [*skipped, *inside], folders)
    if not images and (cases := _find_cases_of_files(path, channels, result_folders)):
        return cases
    holding_scans = [folder for folder in folders if not _holds_labels(folder)]
    if inside and not images and not any(map(has_dicom_file, holding_scans)):
        return _named(inside, skipped, folders)
    scans = [] if images else _separate_scans(entries, holding_scans)
    if not scans:
        return _named([path], [*skipped, *inside], list(filter(_holds_only_scan_files, holding_scans)))
    return _named(scans, [*skipped, *inside], [folder for folder in folders if folder not in scans])


def _separate_scans(entries: Sequence[Path], folders: Sequence[Path]) -> list[Path]:
    """Return the folders that hold DICOM files, if each of these folders is one scan; otherwise, return [].

    The result is [] if at most one folder holds DICOM files. The result is also [] if all DICOM files belong to one
    study or a DICOMDIR is among `entries`, because all folders together are then read as one scan.
    """
    with_dicom = [folder for folder in folders if has_dicom_file(folder)]
    has_directory = any(entry.name.upper() == "DICOMDIR" for entry in entries)
    return [] if has_directory or len(with_dicom) < 2 or is_one_study(with_dicom) else with_dicom


def _holds_only_scan_files(folder: Path) -> bool:
    has_scan_files = any(ending(file) in SCAN_ENDINGS for file in image_files(files_below(folder)))
    return has_scan_files and not has_dicom_file(folder)


def _named(
    scans: list[Path], files: Sequence[Path] = (), folders: Sequence[Path] = (), dicom: Sequence[Path] = ()
) -> FoundScans:
    """Return a `FoundScans` in which each scan is named after its file or folder."""
    return FoundScans(scans, [scan_name(scan) for scan in scans], list(files), list(folders), dicom)


def _is_below(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def _holds_only_results(path: Path) -> bool:
    """Return whether a path is a folder without DICOM slices, and all images below it are segmentations or maps."""
    if not os.path.isdir(path):
        return False
    files = files_below(path)
    images = [file for file in image_files(files) if ending(file) in SCAN_ENDINGS]
    # DCAMT's mark is looked for first, since reading voxels takes longer.
    return all(has_mark(file) or has_few_values(file) for file in images) and not dicom_files_among(files).slices


def _holds_labels(folder: Path) -> bool:
    """Return whether a folder has labels or results, but no scan."""
    files = files_below(folder)
    if any(dicom_files_among([file]).slices for file in files):  # Stops at the first slice.
        return False
    return bool(image_files(files) or dicom_files_among(files).segmentations) and _holds_only_results(folder)


def _find_cases_of_files(folder: Path, channels: int, ignored: Sequence[Path]) -> FoundScans | None:
    """Return the scans that `find_all_scans` finds in subfolders, in zip files or by `dataset.json`.

    Return None if the folder has none of these, or if any scan is DICOM.
    """
    below = images_below(folder, ignored)
    has_files = any(ending(image) in SCAN_ENDINGS and image.parent != folder for image in below)
    if not has_files and not zip_files_below(folder, ignored):
        has_list = is_case_list(folder / "dataset.json") and not any(map(_is_dicom, images_below(folder, ignored)))
        if not has_list:
            return None
    found = find_all_scans(folder, ignored)
    cases = [*found.cases, *found.unused]
    if any(_is_dicom(case.image) for case in cases):  # The same scan may exist as DICOM and as NIfTI.
        return None
    images = [case.image for case in cases]
    further = set(_further_channels(images, channels))
    labels = [case.label for case in cases if case.label is not None and case.label != case.image]
    known = {*labels, *further, *images}
    others = [file.path for file in found.skipped if file.path not in known and file.reason != ZIP_FILE]
    skipped = [*labels, *further, *others]
    kept = [case for case in cases if case.image not in further]
    return FoundScans(
        [case.image for case in kept],
        [case.name for case in kept],
        sorted(path for path in skipped if not os.path.isdir(path)),
        sorted(path for path in skipped if os.path.isdir(path)),
    )


def _is_dicom(image: Path) -> bool:
    return ending(image) not in SCAN_ENDINGS or os.path.isdir(image)


def _skipped_files(files: list[Path], folder: Path, channels: int) -> list[Path]:
    labels = dict.fromkeys(file.path for file in labels_and_results(files, folder))
    further = set(_further_channels(files, channels))
    return [*labels, *(file for file in files if file in further and file not in labels)]


def _further_channels(files: Sequence[Path], channels: int) -> list[Path]:
    # For a model of one channel, `x_0001` counts as a channel only in nnU-Net's data sets (`has_channel_files`).
    first_channels = [file for file in files if (_is_first_channel(file) if channels > 1 else has_channel_files(file))]
    return [other for file in first_channels for other in channel_files(file)[1:]]


def _is_first_channel(file: Path) -> bool:
    """Return whether a file is the first channel of a scan whose other channels are files beside it."""
    if not channel_files(file):
        return False
    try:
        return read_header(file).channels == 1
    except InputError:  # The error is reported when the scan is read.
        return True


def _files_in(folder: Path) -> list[Path]:
    files = image_files(sorted(filter(is_file_or_missing_link, folder.iterdir())))
    return [file for file in files if ending(file) in SCAN_ENDINGS]
