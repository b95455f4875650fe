"""Find DICOM slices and segmentations in a folder, and the scans to which the segmentations refer."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import package_error
from ..io.dicom_files import (
    CONTOUR_CLASS,
    SEGMENTATION_CLASSES,
    is_dicom_name,
    is_image_class,
    is_no_file,
    is_unplaced_capture,
    quiet_pydicom,
    read_dicom,
    stated_class,
)
from ..io.formats import DICOM_SLICE_ENDINGS, LABEL_ENDINGS, SCAN_ENDINGS, ending, scan_name
from .names import FileKind, NamedFile, classify
from .words import OTHER_STRUCTURES_WITHOUT_LGE, has_word

_ENDINGS = (*SCAN_ENDINGS, *LABEL_ENDINGS)


@dataclass(frozen=True)
class DicomFiles:
    """The DICOM files of a folder: images that may be slices, segmentations, and contours (RT Structure Sets)."""

    slices: tuple[Path, ...]
    segmentations: tuple[Path, ...]
    contours: tuple[Path, ...]


def dicom_files_among(files: Iterable[Path]) -> DicomFiles:
    """Return the DICOM slices, segmentations and contours among `files`; reports and screenshots are left out.

    A file that has one of `DICOM_SLICE_ENDINGS`, but does not begin as DICOM, counts as a slice.
    """
    slices, segmentations, contours = [], [], []
    for path in files:
        if not is_dicom_name(path) or ending(path) in _ENDINGS or is_no_file(path):
            continue
        found = stated_class(path)
        if found in SEGMENTATION_CLASSES:
            segmentations.append(path)
        elif found == CONTOUR_CLASS:
            contours.append(path)
        elif found is None and ending(path) not in DICOM_SLICE_ENDINGS:
            continue
        elif is_image_class(found or "") and not is_unplaced_capture(path, found or ""):
            slices.append(path)
    return DicomFiles(tuple(slices), tuple(segmentations), tuple(contours))


def pair_dicom_segmentations(named: Sequence[NamedFile], folder: Path) -> list[NamedFile]:
    """Return the files; each DICOM segmentation gets the kind `FileKind.LABEL` and the key (see `names`) of its scan.

    Contours get the kind `FileKind.CONTOURS`. A segmentation's scan is the first of these that is found:

    1. the series to which the segmentation refers;
    2. the series in the folder of the segmentation: `p1/1.dcm`, `p1/seg.dcm`;
    3. the scan with the key of the segmentation: `images/p1`, `labels/p1.dcm`.

    A segmentation that `named` lists as `FileKind.RESULT` or `FileKind.OTHER_LABEL` stays unchanged. Among
    segmentations with the same key, a segmentation named after another structure than the left atrium gets the kind
    `FileKind.OTHER_LABEL`: `RA.dcm` beside `LA.dcm`.
    """
    dicom = [file.path for file in named if os.path.isdir(file.path) or ending(file.path) not in _ENDINGS]
    slices: dict[Path, Path] = {}
    segmentations: dict[Path, Path] = {}
    for path in dicom:
        first_slice, segmentation = _first_slice_and_segmentation(path)
        if first_slice is not None:
            slices[path] = first_slice
        elif segmentation is not None:
            segmentations[path] = segmentation
    contours = set(dicom) - slices.keys() - segmentations.keys()
    named = [replace(file, kind=FileKind.CONTOURS) if file.path in contours else file for file in named]
    if not segmentations:
        return named
    keys = {file.path: file.key for file in named}
    key_of_series = {_series_uids(first)[0]: keys[path] for path, first in slices.items()}
    scan_keys = {file.key for file in named if file.kind is FileKind.SCAN and file.path not in segmentations}

    def label_of(file: NamedFile) -> NamedFile:
        segmentation, place = segmentations[file.path], file.path.parent
        series = _series_uids(segmentation)[1] or "unknown"
        of_listed = (key_of_series.get(series), keys[place] if place in slices else None, file.key)
        of_file = classify(segmentation, folder)
        key = next((key for key in of_listed if key in scan_keys), None)
        if key is None and of_file.key in scan_keys:
            return replace(of_file, kind=FileKind.LABEL)
        return replace(file, kind=FileKind.LABEL, key=file.key if key is None else key)

    unpaired = [file for file in named if file.path in segmentations]
    labels = {file.path: label_of(file) for file in unpaired if file.kind in (FileKind.SCAN, FileKind.LABEL)}
    counts = Counter(label.key for label in labels.values())
    for path, label in labels.items():
        if counts[label.key] > 1 and has_word(scan_name(label.path), OTHER_STRUCTURES_WITHOUT_LGE):
            labels[path] = replace(label, kind=FileKind.OTHER_LABEL)
    return [labels.get(file.path, file) for file in named]


def segmentation_file(path: Path) -> Path:
    """Return the first segmentation in `path` if `path` is a DICOM folder without slices, else `path`."""
    first_slice, segmentation = _first_slice_and_segmentation(path) if os.path.isdir(path) else (None, None)
    return path if first_slice is not None or segmentation is None else segmentation


def _first_slice_and_segmentation(path: Path) -> tuple[Path | None, Path | None]:
    # Files after the first slice are not opened, so a segmentation after the slice is not found.
    segmentation = None
    for file in sorted(path.iterdir()) if os.path.isdir(path) else [path]:
        found = dicom_files_among([file])
        if found.slices:
            return file, segmentation
        if found.segmentations and segmentation is None:
            segmentation = file
    return None, segmentation


def _series_uids(path: Path) -> tuple[str, str]:
    """Return the UIDs of a DICOM file's series and of the series to which it refers; "" if unknown."""
    try:
        with quiet_pydicom():
            keywords = ["SeriesInstanceUID", "ReferencedSeriesSequence"]
            header = read_dicom(path, stop_before_pixels=True, specific_tags=keywords)
            referenced = (header.get("ReferencedSeriesSequence") or [{}])[0]
            return str(header.get("SeriesInstanceUID", "")), str(referenced.get("SeriesInstanceUID", ""))
    except Exception as error:  # pydicom raises errors of many types for damaged files.
        if package_error(error) is not None:
            raise
        return "", ""
