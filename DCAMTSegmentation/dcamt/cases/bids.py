"""Find the cases of a BIDS data set: pair scans and labels by the entities in their file names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
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
    MODALITY_WORDS,
    OTHER_STRUCTURES,
    OUTLINE_WORDS,
    PREDICTION_WORDS,
    RESULT_WORDS,
    has_word,
)

# A BIDS name has entities and a suffix: sub-01/ses-1/anat/sub-01_ses-1_acq-lge_T1w.nii.gz.
_DERIVATIVE_ENTITIES = ("desc", "label", "seg", "space", "res", "den", "hemi")
"""Entities that a derivative's name may add to the name of its source image."""

_STRUCTURES = OUTLINE_WORDS | OTHER_STRUCTURES - MODALITY_WORDS
RAW_DATA = "rawdata"
"""A folder beside `derivatives` that may contain the folders `sub-...`."""


def find_bids_cases(folder: Path, ignored: Iterable[Path] = ()) -> FoundCases:
    """Pair the scans of a BIDS data set with their labels by the entities in the files' names.

    A label fits a scan that has all the label's entities; `_DERIVATIVE_ENTITIES` are ignored. If several scans fit,
    two rules choose among them, in this order:

    1. Scans without further entities are preferred: `sub-01_mask` is the label of `sub-01_T1w`, not of
       `sub-01_run-2_T1w`.
    2. Scans with the label's first suffix are preferred: `sub-01_T1w_dseg` is the label of `sub-01_T1w`, not of
       `sub-01_T2w`.

    Labels are recognised by their suffix (`dseg`), their entity (`label-LA`, `seg-manual`), their folder (`labels`,
    but not in `derivatives`), their ending (`.seg.nrrd`), or a suffix for a structure (`LA`) and few values
    (`few_values.has_few_values`).

    These labels are skipped:

    - automatic results (`desc-pred`, `derivatives/nnUNet`);
    - a label that fits no scan, or several scans after both rules;
    - a label of another structure (`label-RA`), if its scan has a label of the atrium;
    - all labels of a scan that still has several. The scan is skipped, too.

    Files in folders `sub-...` whose names lack the entity `sub` are skipped, too.

    DICOM images in folders `sub-...` are listed in `FoundCases.skipped`, and their cases in `FoundCases.unused`. All
    other DICOM files appear in no list of the result.

    Args:
        ignored: folders that are not searched.
    """
    images: list[tuple[Path, dict[str, str]]] = []
    labels: list[tuple[Path, dict[str, str]]] = []
    skipped: list[SkippedFile] = []
    unused: list[Case] = []
    for path in images_below(folder, ignored):
        if path.is_dir() or not image_files([path]):
            if _is_below_subject(path, folder) and _has_slices(path):
                skipped.append(
                    SkippedFile(path, "DICOM images, which are not read in a BIDS data set; convert them to NIfTI")
                )
                unused.append(Case(scan_name(path), path, None, UNLABELLED))
            continue
        entities, suffixes = _bids_name(path)
        if not entities.get("sub"):
            if _is_below_subject(path, folder):
                skipped.append(SkippedFile(path, "its name has no entity sub, such as sub-01"))
        elif "probseg" in suffixes:
            skipped.append(SkippedFile(path, "a map of probabilities"))
        elif _is_result(path, folder):
            skipped.append(SkippedFile(path, RESULT))
        elif _is_label(path, folder):
            labels.append((path, entities))
        elif _is_derived(path, folder):
            skipped.append(SkippedFile(path, "a derived image"))
        elif not _STRUCTURES.isdisjoint(suffixes) and has_few_values(path):
            if OUTLINE_WORDS.isdisjoint(suffixes):
                skipped.append(SkippedFile(path, OTHER_LABEL))
            else:
                labels.append((path, entities))
        else:
            images.append((path, entities))
    images_of: defaultdict[str, list[tuple[Path, dict[str, str]]]] = defaultdict(list)
    for image, image_entities in images:
        images_of[image_entities["sub"]].append((image, image_entities))
    labels_of_scan: defaultdict[Path, list[Path]] = defaultdict(list)
    for path, entities in labels:
        label_entities = {key: value for key, value in entities.items() if key not in _DERIVATIVE_ENTITIES}
        fitting = [
            image
            for image, image_entities in images_of[entities["sub"]]
            if all(image_entities.get(key) == value for key, value in label_entities.items())
        ]
        exact = [image for image, image_entities in images_of[entities["sub"]] if image_entities == label_entities]
        # The first suffix of a label is often that of its scan, as in T1w_dseg.
        same = [image for image in exact or fitting if _bids_name(image)[1][:1] == _bids_name(path)[1][:1]]
        chosen = same or exact or fitting
        if len(chosen) == 1:
            labels_of_scan[chosen[0]].append(path)
        else:
            skipped.append(SkippedFile(path, "its name fits several scans" if chosen else NO_SCAN))
    cases = []
    for image, _ in images:
        own_labels = labels_of_scan[image]
        others = [path for path in own_labels if _is_other_structure(path)]
        if 0 < len(others) < len(own_labels):
            skipped += [SkippedFile(path, OTHER_LABEL) for path in others]
            own_labels = [path for path in own_labels if path not in others]
        if len(own_labels) > 1:
            skipped += [SkippedFile(path, SEVERAL_LABELS) for path in (image, *own_labels)]
            unused.append(Case(scan_name(image), image, None, UNLABELLED))
        else:
            label = own_labels[0] if own_labels else None
            cases.append(Case(scan_name(image), image, label, LABELLED if label else UNLABELLED))
    return FoundCases(BIDS, tuple(cases), tuple(skipped), unused=tuple(unused))


def _is_below_subject(path: Path, folder: Path) -> bool:
    """Return whether a path leads to or below a folder such as `sub-01`, which lies in `folder` or its `rawdata`."""
    parts = path.relative_to(folder).parts
    first = parts[1:2] if parts[:1] == (RAW_DATA,) else parts[:1]
    return "".join(first).startswith("sub-")


def _is_derived(path: Path, folder: Path) -> bool:
    return "derivatives" in path.relative_to(folder).parts[:-1]


def _is_result(path: Path, folder: Path) -> bool:
    """Return whether a file is an automatic result by its entities or by the name of a folder: `derivatives/nnUNet`.

    In `derivatives`, only labels can be results.
    """
    words = PREDICTION_WORDS | RESULT_WORDS
    if _is_derived(path, folder) and not _is_label(path, folder):
        return False
    return _has_word(path, words) or any(has_word(part, words) for part in path.relative_to(folder).parts[:-1])


def _is_label(path: Path, folder: Path) -> bool:
    """Return whether a file is a label by its suffixes, its entities, its ending, or its folder (`labels/sub-01`).

    In `derivatives`, the folder does not count: `derivatives/segmentation` may also hold derived images.
    """
    entities, suffixes = _bids_name(path)
    words = {*suffixes, *entities, entities.get("desc", "").lower()}
    folders = () if _is_derived(path, folder) else path.relative_to(folder).parts[:-1]
    return (
        not words.isdisjoint(LABEL_WORDS)
        or ending(path) not in SCAN_ENDINGS
        or any(has_word(part, LABEL_WORDS) for part in folders)
    )


def _has_slices(path: Path) -> bool:
    """Return whether a path is a DICOM image or a folder that contains DICOM images."""
    return bool(dicom_files_among(path.iterdir() if path.is_dir() else [path]).slices)


def _has_word(path: Path, words: Collection[str]) -> bool:
    """Return whether the entity `label` or `desc` of a label's name has one of the words: `label-RA`."""
    entities, _ = _bids_name(path)
    return any(has_word(entities.get(key, ""), words) for key in ("label", "desc"))


def _is_other_structure(path: Path) -> bool:
    """Return whether a label's entities name another structure (`label-RA`), and not the left atrium."""
    return _has_word(path, OTHER_STRUCTURES) and not _has_word(path, ATRIUM_WORDS - {"left"})


def _bids_name(path: Path) -> tuple[dict[str, str], list[str]]:
    """Return the entities of a BIDS name, and its suffixes in lower case.

    The name `sub-01_ses-1_T1w_seg` has the entities `{"sub": "01", "ses": "1"}` and the suffixes `["t1w", "seg"]`.
    """
    entities, suffixes = {}, []
    for part in scan_name(path).split("_"):
        key, dash, value = part.partition("-")
        if dash and key.isalnum():
            entities[key] = value
        else:
            suffixes.append(part.lower())
    return entities, suffixes
