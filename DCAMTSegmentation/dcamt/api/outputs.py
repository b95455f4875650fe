"""Write the results of a segmented scan: labelmap, probabilities, surface, DICOM objects and the one-page report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..errors import InputError
from ..io.atomic import write_text
from ..io.channels import channel_files
from ..io.dicom_files import read_attributes, read_attributes_in_zip
from ..io.dicom_frames import text_of
from ..io.dicom_output import Algorithm, SourceImages, build_dicom_segmentation, find_source_images, write_dicom
from ..io.file_identity import is_same_file
from ..io.formats import DICOM_ENDING, REPORT_ENDINGS, AnyPath, ending, given_path, scan_name
from ..io.surfaces import write_mesh
from ..io.writers import write_labelmap, write_volume
from ..process_settings import default_numpy_settings
from ..report.scan_report import PATIENT, ScanReport, render_scan_report
from ..volume import Volume
from ..wall.surface import extract_surface

if TYPE_CHECKING:
    from ..wall.analysis import WallResult
    from .segmentation import SegmentedScan

_IDENTITY = {
    PATIENT: "PatientName",
    "ID": "PatientID",
    "Born": "PatientBirthDate",
    "Study date": "StudyDate",
    "Accession": "AccessionNumber",
}
"""The titles of the lines that `describe_identity` reads from a DICOM header, each with its attribute."""


def write_segmentation(result: SegmentedScan, path: AnyPath, source: SourceImages | None = None) -> None:
    """Write the labelmap in the format of the ending: `.seg.nrrd`, `.nrrd`, `.nii.gz`, `.nii`, or `.dcm` (DICOM SEG).

    Args:
        source: the DICOM images of the scan; by default `find_dicom_source(result.scan)`.

    Raises:
        InputError: the ending is unknown, or the scan's own file would be replaced. For `.dcm`, see also
            `write_dicom_results`.
        OutputError: the file cannot be written.
    """
    path = _result_path(result.scan, path)
    if ending(path) == DICOM_ENDING:
        write_dicom_results(result, path, source=source)
    else:
        write_labelmap(result.labelmap, path, result.segments, mark=True)


def write_dicom_results(
    result: SegmentedScan,
    segmentation: AnyPath,
    measurements: AnyPath | None = None,
    source: SourceImages | None = None,
) -> None:
    """Write a DICOM segmentation and, if `measurements` is a path, a DICOM report (TID 1500) of the measurements.

    Args:
        source: the DICOM images of the scan; by default `find_dicom_source(result.scan)`.

    Raises:
        InputError: the scan has no DICOM images to which the segmentation could refer (see `find_dicom_source`), the
            images cannot be used (see `build_dicom_segmentation`), or one of the scan's own files would be replaced.
        OutputError: a file cannot be written.
    """
    segmentation = _result_path(result.scan, segmentation)
    measurements = None if measurements is None else _result_path(result.scan, measurements)
    source = source or find_dicom_source(result.scan)
    dataset = build_dicom_segmentation(result.labelmap, result.segments, source, _algorithm(result))
    write_dicom(dataset, segmentation)
    if measurements is not None:
        write_dicom_measurements(result, segmentation, measurements, source)


def write_dicom_measurements(
    result: SegmentedScan, segmentation: AnyPath, path: AnyPath, source: SourceImages | None = None
) -> None:
    """Write the measurements as a DICOM report (TID 1500) that refers to the DICOM segmentation in an existing file.

    Raises the errors of `write_dicom_results`.
    """
    # Imported here, since pydicom loads slowly.
    from pydicom import dcmread

    from ..report.dicom_report import build_measurement_report

    path = _result_path(result.scan, path)
    dataset, source = dcmread(given_path(segmentation)), source or find_dicom_source(result.scan)
    report = build_measurement_report(result.measurements, result.segments, dataset, source, _algorithm(result))
    write_dicom(report, path)


def _algorithm(result: SegmentedScan) -> Algorithm:
    checksum = result.model.checksum
    name, version = result.model.name, result.model.version
    return Algorithm(name, version, f"dcamt {__version__}", checksum[:16] if checksum else "none")


def find_dicom_source(scan: Volume) -> SourceImages:
    """Return the DICOM images that a scan was read from.

    Raises:
        InputError: the scan was not read from DICOM, or was read from an archive or several multi-frame files; or one
            of the scan's files no longer exists.
    """
    if scan.path is None:
        raise InputError(
            "the scan was not read from DICOM, but a DICOM segmentation must refer to DICOM images",
            remedy="Read the scan with dcamt.read_scan from a DICOM folder, or choose an ending such as .seg.nrrd.",
        )
    frames = [(scan.current_path(file), index) for file, index in scan.frames]
    return find_source_images(scan.current_path(scan.path), frames)


def write_probabilities(result: SegmentedScan, path: AnyPath) -> None:
    """Write the probabilities as a volume with one channel for each class, background first.

    Raises:
        ValueError: the scan was segmented without `keep_probabilities`.
        InputError: the ending is not that of a volume file, or the scan's own file would be replaced.
        OutputError: the file cannot be written.
    """
    path = _result_path(result.scan, path)
    if result.probabilities is None:
        raise ValueError("the scan was segmented without keep_probabilities=True")
    write_volume(Volume(result.probabilities, result.labelmap.grid), path, mark=True)


@default_numpy_settings()
def write_surface(result: SegmentedScan, path: AnyPath) -> None:
    """Write the closed outer surface of each class's largest part, in LPS mm.

    The file's ending is `.stl`, `.obj`, `.ply` or `.vtp`. Each class's smaller parts are left out without a message.
    A class without voxels is left out, too.

    Raises:
        InputError: the segmentation is empty, a class is too small for a surface, or the ending is unknown.
        OutputError: the file cannot be written.
    """
    path = given_path(path)
    points, triangles, first_point = [], [], 0
    for info in result.segments:
        mask = result.labelmap.voxels == info.label
        if mask.any():
            try:
                surface = extract_surface(mask, result.labelmap.grid, info.name).surface
            except InputError as error:
                # `extract_surface` refuses only an empty or too small mask, and this mask is not empty.
                volume_ml = np.count_nonzero(mask) * result.labelmap.grid.voxel_volume_mm3 / 1000
                raise InputError(
                    f"the segment {info.name} ({volume_ml:.3g} mL) is too small for a surface",
                    path=result.scan.path or "the scan",
                    remedy="Write no surface of this scan, or choose another scan.",
                ) from error
            points.append(surface.points)
            triangles.append(surface.triangles + first_point)
            first_point += len(surface.points)
    if not points:
        raise InputError(
            "has an empty segmentation, so there is no surface",
            path=result.scan.path or "the scan",
            remedy="Choose another scan or model.",
        )
    write_mesh(np.concatenate(points), np.concatenate(triangles), path)


@default_numpy_settings()
def write_report(
    result: SegmentedScan,
    path: AnyPath,
    *,
    wall: WallResult | None = None,
    identity: Mapping[str, str] | None = None,
) -> None:
    """Write the report of a segmented scan: a self-contained HTML file that prints on one A4 sheet.

    Args:
        path: the file, `.html` or `.htm`.
        wall: the analysed wall (`dcamt.wall.analysis.analyse_wall`); if None, the report states "Not measured."
        identity: lines that identify the patient and the scan (`describe_identity`). Without them the report contains
            no name, identifier, date or path.

    Raises:
        InputError: the ending is not that of an HTML page.
        OutputError: the file cannot be written.
    """
    path = given_path(path)
    if ending(path) not in REPORT_ENDINGS:
        remedy = f"Use {' or '.join(REPORT_ENDINGS)}."
        raise InputError("does not have the ending of an HTML page", path=path, remedy=remedy)
    report = ScanReport(
        volume=result.scan,
        labelmap=result.labelmap,
        segments=result.segments,
        measurements=result.measurements,
        model=result.model,
        quality=result.quality,
        doubt_map=result.doubt_map,
        trust=result.trust,
        expected_overlap=result.expected_overlap,
        is_doubt_calibrated=result.is_doubt_calibrated,
        doubtful_places=result.doubtful_places(),
        wall=wall,
        notes=result.notes,
        identity=identity or {},
    )
    write_text(path, render_scan_report(report))


def describe_identity(scan: Volume) -> dict[str, str]:
    """Return the lines that identify a scan, each as a title and a text; lines without a text are left out.

    If the header of the scan's first DICOM slice can be read, the lines are the patient's name, ID and birth date, the
    study's date, the accession number and the scan's path. Otherwise, they are the scan's name and path. A scan without
    a path has no lines.
    """
    if scan.path is None:
        return {}
    attributes = _read_identity(scan)
    if attributes is None:
        return {"Scan": scan_name(scan.path), "File": str(scan.path)}
    lines = {title: text_of(attributes.get(keyword)) for title, keyword in _IDENTITY.items()}
    lines[PATIENT] = lines[PATIENT].replace("^", " ")
    lines["File"] = str(scan.path)
    return {title: text.strip() for title, text in lines.items() if text.strip()}


def _read_identity(scan: Volume) -> dict[str, Any] | None:
    if scan.path is None or not scan.frames:
        return None
    file = scan.current_path(scan.frames[0][0])
    if file.is_file():
        return read_attributes(file, *_IDENTITY.values())
    return read_attributes_in_zip(scan.current_path(scan.path), file, *_IDENTITY.values())


def _result_path(scan: Volume, path: AnyPath) -> Path:
    """Return the path of a result. Raises InputError if the result would replace a file of the scan."""
    path = given_path(path)
    if scan.path is None:
        return path
    first = scan.current_path(scan.path)
    for file in (first, *channel_files(first), *(scan.current_path(file) for file, _ in scan.frames)):
        if is_same_file(path, file):
            remedy = "Give another file or folder."
            raise InputError("is a file of the scan and would be replaced by the result", path=path, remedy=remedy)
    return path
