"""Write the results of a segmented scan: labels, probabilities, surface, DICOM objects and the one-page report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import __version__
from ..errors import InputError
from ..io.atomic import write_text
from ..io.dicom_output import Algorithm, SourceImages, build_dicom_segmentation, find_source_images, write_dicom
from ..io.formats import ending, scan_name
from ..io.surfaces import write_surface as write_mesh
from ..io.writers import write_labelmap, write_volume
from ..report.scan_page import ScanPage, render_scan_page
from ..volume import IdentifyingNote, Volume
from ..wall.surface import extract_surface

if TYPE_CHECKING:
    from ..wall.analysis import WallResult
    from .segmentation import SegmentedScan

DICOM_ENDING = ".dcm"


def write_segmentation(result: SegmentedScan, path: str | Path, source: SourceImages | None = None) -> None:
    """Write the labels by the ending: `.seg.nrrd`, `.nrrd`, `.nii.gz`, `.nii`, or `.dcm` for a DICOM segmentation.

    `source`: the DICOM images under the labels (default: found beside the scan).

    Raises:
        InputError: the ending is not known, or is `.dcm` and the scan is not DICOM.
        OutputError: the file cannot be written.
    """
    if ending(path) == DICOM_ENDING:
        write_dicom_results(result, path, source=source)
    else:
        write_labelmap(result.labelmap, path, result.segments)


def write_dicom_results(
    result: SegmentedScan,
    segmentation: str | Path,
    measurements: str | Path | None = None,
    source: SourceImages | None = None,
) -> None:
    """Write a DICOM segmentation and, if a path is given, a DICOM report (TID 1500) of its measurements.

    `source`: the DICOM images under the labels (default: found beside the scan).

    Raises:
        InputError: the scan is not DICOM.
        OutputError: a file cannot be written.
    """
    source = source or find_dicom_source(result.scan)
    checksum = result.model.checksum
    algorithm = Algorithm(
        result.model.name, result.model.version, f"dcamt {__version__}", checksum[:16] if checksum else "none"
    )
    dataset = build_dicom_segmentation(result.labelmap, result.segments, source, algorithm)
    write_dicom(dataset, segmentation)
    if measurements is not None:
        from ..report.dicom_report import build_measurement_report

        report = build_measurement_report(result.measurements, result.segments, dataset, source, algorithm)
        write_dicom(report, measurements)


def find_dicom_source(scan: Volume) -> SourceImages:
    """Return the DICOM images that a scan was read from; raises InputError if it was not read from DICOM."""
    if scan.path is None:
        raise InputError(
            "the scan was not read from DICOM, which a DICOM segmentation must refer to",
            remedy="Read it with dcamt.read_scan from its DICOM folder, or choose another ending.",
        )
    return find_source_images(scan.path, scan.grid, scan.frames)


def write_probabilities(result: SegmentedScan, path: str | Path) -> None:
    """Write the probabilities as a volume of one channel for each class, background first.

    Raises:
        ValueError: the scan was segmented without `keep_probabilities`.
        InputError: no volume can be written with this ending.
        OutputError: the file cannot be written.
    """
    if result.probabilities is None:
        raise ValueError("the scan was segmented without keep_probabilities=True")
    write_volume(Volume(result.probabilities, result.labelmap.grid), path)


def write_surface(result: SegmentedScan, path: str | Path) -> None:
    """Write the closed surfaces of all classes in patient mm by the ending: `.stl`, `.obj`, `.ply` or `.vtp`.

    Raises:
        InputError: nothing was segmented, or the ending is not known.
        OutputError: the file cannot be written.
    """
    points, triangles, count = [], [], 0
    for info in result.segments:
        mask = result.labelmap.voxels == info.label
        if mask.any():
            surface = extract_surface(mask, result.labelmap.grid, info.name).surface
            points.append(surface.points)
            triangles.append(surface.triangles + count)
            count += len(surface.points)
    if not points:
        raise InputError("nothing was segmented: there is no surface", path=result.scan.path)
    write_mesh(np.concatenate(points), np.concatenate(triangles), path)


def write_report(
    result: SegmentedScan,
    path: str | Path,
    *,
    wall: WallResult | None = None,
    identity: Mapping[str, str] | None = None,
) -> None:
    """Write the report of a segmented scan: one HTML file that needs no other and prints on one A4 sheet.

    Args:
        result: the segmented scan.
        path: the file, `.html`.
        wall: late enhancement of the wall (`dcamt.wall.analysis.analyse_wall`); not shown by default.
        identity: lines that identify the patient and the scan; by default the page holds no name, identifier, date or
            path.

    Raises:
        OutputError: the file cannot be written.
    """
    page = ScanPage(
        volume=result.scan,
        labelmap=result.labelmap,
        segments=result.segments,
        measurements=result.measurements,
        model=result.model,
        quality=result.quality,
        disagreement=result.disagreement,
        trust=result.trust,
        expected_overlap=result.expected_overlap,
        doubtful_places=result.doubtful_places(),
        wall=wall,
        notes=[note for note in result.notes if identity or not _may_identify(note, result.scan)],
        identity=identity or {},
        software=f"DCAMT {__version__}",
    )
    write_text(path, render_scan_page(page))


def describe_identity(scan: Volume) -> dict[str, str]:
    """Return what identifies a scan: patient, identifier, date of birth and study date of DICOM images; file and path.

    Lines without content are left out.
    """
    lines: dict[str, str] = {}
    if scan.path is None:
        return lines
    try:
        (image, *_) = find_source_images(scan.path, scan.grid, scan.frames).datasets
    except InputError:
        lines["Scan"] = scan_name(scan.path)
    else:
        found = {
            "Patient": str(image.get("PatientName", "")).replace("^", " "),
            "ID": str(image.get("PatientID", "")),
            "Born": str(image.get("PatientBirthDate", "")),
            "Study date": str(image.get("StudyDate", "")),
            "Accession": str(image.get("AccessionNumber", "")),
        }
        lines |= {name: text.strip() for name, text in found.items() if text.strip()}
    lines["File"] = str(scan.path)
    return lines


def _may_identify(note: str, scan: Volume) -> bool:
    """Return whether a note is marked as naming files or series, or, unmarked, may name a file or folder."""
    if isinstance(note, IdentifyingNote):
        return True
    return "/" in note or "\\" in note or (scan.path is not None and scan_name(scan.path) in note)
