"""Find the cases of a BIDS data set: pair scans and labels by the entities in their file names."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..io.formats import SCAN_ENDINGS, ending, scan_name
from .case_list import LABELLED, UNLABELLED, Case
from .dicom_labels import dicom_files_among
from .few_values import has_few_values
from .folder_files import image_files, images_below
from .found_cases import BIDS, NO_SCAN, OTHER_LABEL, RESULT, SEVERAL_LABELS, FoundCases, SkippedFile
from .words import (
    ATRIUM_WORDS,
    LABEL_WORDS,
    OTHER_STRUCTURES,
    OTHER_STRUCTURES_WITHOUT_LGE,
    OUTLINE_WORDS,
    PREDICTION_WORDS,
    RESULT_WORDS,
    has_word,
)

_DERIVATIVE_ENTITIES = ("desc", "label", "seg", "space", "res", "den", "hemi")
"""Entities that a derivative's name may add to the name of its source image."""
_STRUCTURES = OUTLINE_WORDS | OTHER_STRUCTURES_WITHOUT_LGE
RAW_DATA = "rawdata"
"""A folder beside `derivatives` that may contain the folders `sub-...`."""


@dataclass(frozen=True)
class _BidsFile:
    """A file of a BIDS data set, or a folder of DICOM files.

    Attributes:
        parts: the parts of its path below the data set.
        entities: `{"sub": "01", "ses": "1"}` for the name `sub-01_ses-1_T1w_seg`.
        suffixes: `["t1w", "seg"]` for this name; in lower case.
    """

    path: Path
    parts: tuple[str, ...]
    entities: dict[str, str]
    suffixes: list[str]

    @property
    def folders(self) -> tuple[str, ...]:
        return self.parts[:-1]

    @property
    def is_derived(self) -> bool:
        return "derivatives" in self.folders

    @property
    def is_dicom(self) -> bool:
        return os.path.isdir(self.path) or not image_files([self.path])


def find_bids_cases(folder: Path, ignored: Iterable[Path] = ()) -> FoundCases:
    """Pair the scans of a BIDS data set with their labels by the entities in the files' names.

    A label fits a scan that has all the label's entities; `_DERIVATIVE_ENTITIES` are ignored. If several scans fit,
    two rules choose among them, in this order:

    1. Scans without further entities are preferred: `sub-01_mask` is the label of `sub-01_T1w`, not of
       `sub-01_run-2_T1w`.
    2. Scans with the label's first suffix are preferred: `sub-01_T1w_dseg` is the label of `sub-01_T1w`, not of
       `sub-01_T2w`.

    If a scan has a label of the atrium, its labels of other structures (`label-RA`) are skipped. If a scan still has
    several labels, scan and labels are skipped.
    """
    files = [_bids_file(path, folder) for path in images_below(folder, ignored)]
    files = [file for file in files if _belongs_to_subject(file)]
    reasons = {file.path: _reason_to_skip(file) for file in files}
    skipped = [SkippedFile(path, reason) for path, reason in reasons.items() if reason]
    unused = [Case(scan_name(file.path), file.path, None, UNLABELLED) for file in files if file.is_dicom]
    used = [file for file in files if not reasons[file.path]]
    scans = [file for file in used if not _is_label(file)]
    scans_of_subject: defaultdict[str, list[_BidsFile]] = defaultdict(list)
    for scan in scans:
        scans_of_subject[scan.entities["sub"]].append(scan)
    labels_of_scan: defaultdict[Path, list[_BidsFile]] = defaultdict(list)
    for label in filter(_is_label, used):
        fitting = _fitting_scans(label, scans_of_subject[label.entities["sub"]])
        if len(fitting) == 1:
            labels_of_scan[fitting[0].path].append(label)
        else:
            skipped.append(SkippedFile(label.path, "its name fits several scans" if fitting else NO_SCAN))
    cases = []
    for image in (scan.path for scan in scans):
        labels = labels_of_scan[image]
        of_atrium = [label for label in labels if not _is_other_structure(label)] or labels
        skipped += [SkippedFile(label.path, OTHER_LABEL) for label in labels if label not in of_atrium]
        if len(of_atrium) > 1:
            skipped += [SkippedFile(path, SEVERAL_LABELS) for path in (image, *(label.path for label in of_atrium))]
            unused.append(Case(scan_name(image), image, None, UNLABELLED))
        else:
            path = of_atrium[0].path if of_atrium else None
            cases.append(Case(scan_name(image), image, path, LABELLED if path else UNLABELLED))
    return FoundCases(BIDS, tuple(cases), tuple(skipped), unused=tuple(unused))


def _bids_file(path: Path, folder: Path) -> _BidsFile:
    entities, suffixes = {}, []
    for part in scan_name(path).split("_"):
        key, dash, value = part.partition("-")
        if dash and key.isalnum():
            entities[key] = value
        else:
            suffixes.append(part.lower())
    return _BidsFile(path, path.relative_to(folder).parts, entities, suffixes)


def _belongs_to_subject(file: _BidsFile) -> bool:
    first = file.parts[1:2] if file.parts[:1] == (RAW_DATA,) else file.parts[:1]
    is_below_subject = "".join(first).startswith("sub-")
    if file.is_dicom:
        return is_below_subject and _has_slices(file.path)
    return is_below_subject or bool(file.entities.get("sub"))


def _has_slices(path: Path) -> bool:
    return bool(dicom_files_among(path.iterdir() if os.path.isdir(path) else [path]).slices)


def _reason_to_skip(file: _BidsFile) -> str:
    """Return why a file is skipped before scans and labels are paired; empty for other files."""
    if file.is_dicom:
        return "DICOM images, which are not read in a BIDS data set; convert them to NIfTI"
    if not file.entities.get("sub"):
        return "its name contains no subject, such as sub-01"
    if "probseg" in file.suffixes:
        return "a map of probabilities"
    if file.is_derived and not (_is_label(file) or _is_mask(file)):
        return "a derived image"
    if _is_result(file):
        return RESULT
    is_other_structure = file.is_derived or OUTLINE_WORDS.isdisjoint(file.suffixes)
    if is_other_structure and not _is_named_as_label(file) and _is_mask(file):
        return OTHER_LABEL
    return ""


def _is_result(file: _BidsFile) -> bool:
    words = PREDICTION_WORDS | RESULT_WORDS
    return _has_word(file, words) or any(has_word(part, words) for part in file.folders)


def _is_label(file: _BidsFile) -> bool:
    return _is_named_as_label(file) or (not file.is_derived and _is_mask(file))


def _is_named_as_label(file: _BidsFile) -> bool:
    # Below `derivatives`, folder names do not count: the folder `segmentation` may hold derived images.
    words = {*file.suffixes, *file.entities, file.entities.get("desc", "").lower()}
    return (
        not words.isdisjoint(LABEL_WORDS)
        or ending(file.path) not in SCAN_ENDINGS
        or (not file.is_derived and any(has_word(part, LABEL_WORDS) for part in file.folders))
    )


def _is_mask(file: _BidsFile) -> bool:
    return not _STRUCTURES.isdisjoint(file.suffixes) and has_few_values(file.path)


def _fitting_scans(label: _BidsFile, scans: Sequence[_BidsFile]) -> list[_BidsFile]:
    """Return the scans of a subject that fit a label, by the two rules of `find_bids_cases`."""
    entities = {key: value for key, value in label.entities.items() if key not in _DERIVATIVE_ENTITIES}
    fitting = [scan for scan in scans if entities.items() <= scan.entities.items()]
    exact = [scan for scan in fitting if scan.entities == entities]
    return [scan for scan in exact or fitting if scan.suffixes[:1] == label.suffixes[:1]] or exact or fitting


def _has_word(file: _BidsFile, words: Collection[str]) -> bool:
    return any(has_word(file.entities.get(key, ""), words) for key in ("label", "desc"))


def _is_other_structure(label: _BidsFile) -> bool:
    return _has_word(label, OTHER_STRUCTURES) and not _has_word(label, ATRIUM_WORDS - {"left"})
