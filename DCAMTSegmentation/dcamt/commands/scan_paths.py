"""Find the scans that a path of a command line stands for, and the files and folders that are skipped."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..cases.dicom_labels import dicom_files_among
from ..cases.folders import find_cases
from ..cases.found_cases import images_below
from ..cases.masks import has_few_values, recognise_masks
from ..cases.names import FileKind, classify_all, image_files, labels_beside_scans
from ..errors import InputError
from ..io.channels import channel_files, has_channel_files
from ..io.dicom import are_separate_scans, is_one_study
from ..io.formats import SCAN_ENDINGS, ending, scan_name
from ..io.readers import read_header


@dataclass(frozen=True)
class FoundScans:
    """The scans that a path stands for.

    Attributes:
        names: one name for each scan; the scan's results are named after it.
        skipped_files: labels and the files of further channels.
        skipped_folders: subfolders beside the scans.
    """

    scans: list[Path]
    names: list[str]
    skipped_files: list[Path]
    skipped_folders: list[Path]


def find_scans(path: Path, channels: int = 1) -> FoundScans:
    """Return the scans that a path stands for.

    A file is one scan. A folder with scan files stands for these scans. A folder with multi-frame DICOM images of
    different studies stands for these images. If only the subfolders contain scan files, the folder stands for the
    cases that `dcamt cases find` lists, with their names. If a folder contains only folders of DICOM files, each of
    them is one scan, unless all are series of one study. Any other folder is one scan of DICOM files.

    In a folder, hidden files, labels of scans (`cases.names`, `cases.masks`), and DCAMT's maps of agreement and
    probabilities are skipped. If the model needs one channel, the files of a scan's further channels are skipped only
    in nnU-Net's data sets (`io.channels.has_channel_files`). If the model needs several `channels`, the files of
    further channels are skipped in any folder. But if a scan's first file already has several channels, the files
    numbered after the first are scans of their own.

    Raises:
        InputError: no file below the folder is a scan, or a `dataset.json` cannot be read.
    """
    if not os.path.isdir(path):  # pathlib raises an error for names that the system does not allow.
        return _named([path])
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir()]
    files = _files_in(path)
    if files:
        skipped = _skipped_files(files, path, channels)
        if inside := [file for file in files if file not in skipped]:
            return _named(inside, skipped, folders)
    images = list(dicom_files_among(entries).slices)
    if are_separate_scans(images):
        return _named(images, skipped_folders=folders)
    if not images and not files and (cases := _find_cases_of_files(path)):
        return cases
    if not folders or len(folders) < len(entries) or is_one_study(folders):
        return _named([path])
    return _named(folders)


def _named(
    scans: list[Path], skipped_files: list[Path] | None = None, skipped_folders: list[Path] | None = None
) -> FoundScans:
    """Return scans that have the names of their files or folders."""
    return FoundScans(scans, [scan_name(scan) for scan in scans], skipped_files or [], skipped_folders or [])


def _find_cases_of_files(folder: Path) -> FoundScans | None:
    """Return the cases in subfolders; None if the subfolders contain no scan files, or DICOM files too.

    A scan in DICOM may also lie in the folder as a converted file, which would be segmented twice.
    """
    if not any(ending(file) in SCAN_ENDINGS for file in images_below(folder)):
        return None
    found = find_cases(folder)
    scans = [case.image for case in found.cases]
    if any(ending(scan) not in SCAN_ENDINGS or scan.is_dir() for scan in scans):
        return None
    labels = [case.label for case in found.cases if case.label is not None and case.label != case.image]
    skipped = [*labels, *(file.path for file in found.skipped)]
    return FoundScans(scans, [case.name for case in found.cases], skipped, [])


def _skipped_files(files: list[Path], folder: Path, channels: int) -> list[Path]:
    """Return the labels and the files of further channels among the files of a folder."""
    labels = labels_beside_scans(files, folder)
    named = classify_all([file for file in files if file not in labels], folder)
    labels += [mask.path for file, mask in zip(named, recognise_masks(named), strict=True) if mask is not file]
    if any(file.kind is FileKind.SCAN and file.path not in labels for file in named):
        # Files named like labels are labels if they have few values, even if their scans are missing.
        lone_labels = [file.path for file in named if file.kind is not FileKind.SCAN and file.path not in labels]
        labels += [path for path in lone_labels if has_few_values(path)]
    first_channels = [file for file in files if (_is_first_channel(file) if channels > 1 else has_channel_files(file))]
    further_channels = {other for file in first_channels for other in channel_files(file)[1:]}
    return labels + [file for file in files if file in further_channels and file not in labels]


def _is_first_channel(file: Path) -> bool:
    """Return whether a file is the first channel of a scan whose other channels are files beside it."""
    if not channel_files(file):
        return False
    try:
        return read_header(file).channels == 1
    except InputError:  # The error is reported when the scan is read.
        return True


def _files_in(folder: Path) -> list[Path]:
    """Return the image files of a folder that may be scans."""
    files = image_files(sorted(entry for entry in folder.iterdir() if entry.is_file()))
    return [file for file in files if ending(file) in SCAN_ENDINGS]
