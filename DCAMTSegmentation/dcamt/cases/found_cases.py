"""Represent the cases and skipped files of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .case_list import Case

NNUNET, DECATHLON, BIDS, NAMES = "nnU-Net", "Decathlon", "BIDS", "names"
OTHER_CHANNEL = "another channel of a scan; only multi-channel models use this file"
NO_SCAN = "a label without a scan"
SEVERAL_LABELS = "several labels for one scan"
CONTOURS = "contours (RT Structure Set); convert them to a segmentation"
OTHER_LABEL = "a label of another or unknown structure; to use it, enter it as the label in the case list"
DCAMT_RESULT = "a DCAMT result for a labelled scan; to use the result as the label, enter it in the case list"
ZIP_FILE = "a zip file, perhaps a copy of a scan beside it; to use its scans, extract the zip file"
UNREADABLE = "cannot be read; check its permissions"
RESULT = "named like an automatic result; to train on the file, rename the file or its folder"


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not a scan or label in `FoundCases.cases`, or a folder that was not searched, with the reason."""

    path: Path
    reason: str


@dataclass(frozen=True)
class FoundCases:
    """The cases found in a folder.

    Attributes:
        layout: the convention that the folder follows, such as "BIDS", or the conventions of the data sets in its
            subfolders: "nnU-Net and BIDS".
        cases: `find_cases` makes their names distinct.
        unused: cases that are not for training, such as test cases; their scans are among `skipped`.
        classes: label values above 0 and their names, if the data set lists them.
        lists_only_missing_files: whether `dataset.json` lists cases, but none of the listed files exists.
    """

    layout: str
    cases: tuple[Case, ...]
    skipped: tuple[SkippedFile, ...] = ()
    classes: tuple[tuple[int, str], ...] = ()
    unused: tuple[Case, ...] = ()
    lists_only_missing_files: bool = False
