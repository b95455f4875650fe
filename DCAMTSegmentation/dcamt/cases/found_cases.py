"""Represent the cases and skipped files of a folder, and list image files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..io.dicom import are_separate_scans
from ..io.dicom_files import walk_folders
from ..io.formats import ending
from .case_list import Case
from .dicom_labels import dicom_files_among
from .names import image_files, is_file_or_missing_link

NNUNET, DECATHLON, BIDS, NAMES = "nnU-Net", "Decathlon", "BIDS", "names"
OTHER_CHANNEL = "another channel of its case; a one-channel model uses the first file, a multi-channel model all files"
NO_SCAN = "a label without a scan"
SEVERAL_LABELS = "several labels for one scan"
CONTOURS = "contours (RT Structure Set); convert them to a segmentation"
OTHER_LABEL = "a label of another or unknown structure; to use it, enter it as the label in the case list"
DCAMT_RESULT = "a result of DCAMT, and the scan has another label; to use it, enter it as the label in the case list"
RESULT = "an automatic result; rename it to train on it"


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not listed as a scan or label of a case, and the reason."""

    path: Path
    reason: str


@dataclass(frozen=True)
class FoundCases:
    """The cases found in a folder.

    Attributes:
        layout: the convention that the folder follows, such as "BIDS", or the conventions of the data sets in its
            subfolders: "nnU-Net and BIDS".
        cases: the cases; `find_cases` makes their names distinct.
        unused: cases that are not for training, such as test cases; their scans are among `skipped`. Of these cases,
            only test cases may have a label.
        classes: label values above 0 and their names, if the data set lists them.
        lists_only_missing_files: whether `dataset.json` lists cases, but none of the listed files exists.
    """

    layout: str
    cases: tuple[Case, ...]
    skipped: tuple[SkippedFile, ...] = ()
    classes: tuple[tuple[int, str], ...] = ()
    unused: tuple[Case, ...] = ()
    lists_only_missing_files: bool = False


def files_in(folder: Path, endings: Iterable[str]) -> list[Path]:
    """Return the image files in a folder, without subfolders, that have one of the endings."""
    if not folder.is_dir():
        return []
    kinds = tuple(endings)
    files = image_files(sorted(filter(is_file_or_missing_link, folder.iterdir())))
    return [file for file in files if ending(file) in kinds]


def images_below(folder: Path, ignored: Iterable[Path] = ()) -> Iterator[Path]:
    """Yield scans and labels at any depth; skip hidden entries and the folders `ignored` (`walk_folders`).

    DICOM files are yielded as follows:
    - slices: their folder (`p1` for `p1/1.dcm`, `p1/2.dcm`);
    - multi-frame images of different studies in one folder: each file;
    - a segmentation in a subfolder without other segmentations, slices, contours or subfolders: the subfolder;
    - other segmentations, and contours: each file.
    """
    for place, folders, paths in walk_folders(folder, ignored):
        yield from image_files(paths)
        found = dicom_files_among(paths)
        is_only_segmentation = len(found.segmentations) == 1 and not (
            found.slices or found.contours or folders or place == folder
        )
        if are_separate_scans(found.slices):
            yield from found.slices
        elif found.slices or is_only_segmentation:
            yield place
        if not is_only_segmentation:
            yield from found.segmentations
        yield from found.contours
