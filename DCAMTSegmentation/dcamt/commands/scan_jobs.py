"""Plan the scans of a command line and the files that their results are written to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..cases.case_names import with_folders
from ..errors import InputError
from ..io.file_names import is_too_long
from ..io.formats import (
    DICOM_ENDING,
    IMAGE_ENDINGS,
    LABELMAP_OUTPUTS,
    REPORT_ENDINGS,
    VOLUME_OUTPUTS,
    agreement_path,
    ending,
    scan_name,
)
from ..io.surfaces import SURFACE_OUTPUTS
from ..metrics.measurements import TABLE_COLUMNS
from ..wall.files import WALL_COLUMNS
from .options import UsageError
from .result_files import (
    REFUSE,
    SKIP,
    SKIP_REMEDY,
    check_result_paths,
    check_table_path,
    is_finished,
    refuse_existing,
    refuse_foreign_tables,
    uncompared_files,
)
from .scan_paths import FoundScans

# A path with one of these endings is refused as the output, unless the path is an existing folder.
_OTHER_FILE_ENDINGS = (".gz", ".csv", ".stl", ".obj", ".ply", ".vtp")
DEFAULT_FORMAT = "seg.nrrd"

SEGMENTATION_OUTPUTS = (*LABELMAP_OUTPUTS, DICOM_ENDING)


@dataclass(frozen=True)
class SideResult:
    """A kind of result besides the segmentation, one file for each scan.

    Attributes:
        suffix: appended to the segmentation's name, before the ending.
    """

    option: str
    suffix: str
    endings: tuple[str, ...]

    def path(self, text: str, segmentation: Path, scan_count: int) -> Path:
        """Return `text` as a path; if `text` is an ending such as "html", return a path beside the segmentation.

        Raises UsageError if the ending is unknown, or if one path is given for several scans.
        """
        wanted = f".{text.lower().lstrip('.')}"
        if wanted in self.endings:
            return segmentation.with_name(f"{scan_name(segmentation)}{self.suffix}{wanted}")
        path = Path(os.path.expanduser(text))
        if ending(path) not in self.endings:
            raise UsageError(f"{self.option} {text}: the file must end in {', '.join(self.endings)}")
        if scan_count > 1:
            raise UsageError(
                f"{self.option} {text} is one file, but there are {scan_count} scans:"
                f" give only the ending ({self.option} {ending(path)[1:]}) to write one file beside each segmentation"
            )
        return path


PROBABILITIES = SideResult("--probabilities", "_probabilities", VOLUME_OUTPUTS)
SURFACE = SideResult("--surface", "", SURFACE_OUTPUTS)
REPORT = SideResult("--report", "", REPORT_ENDINGS)
DICOM_MEASUREMENTS = SideResult("--measurements", "_measurements", (DICOM_ENDING,))


@dataclass(frozen=True)
class RequestedResults:
    """The results that a command line requests besides the segmentations.

    Attributes:
        probabilities, surface, report, dicom_measurements: a path, or only an ending such as "html".
        table: the CSV file for the measurements of all scans.
    """

    agreement: bool = False
    wall: bool = False
    probabilities: str | None = None
    surface: str | None = None
    report: str | None = None
    dicom_measurements: str | None = None
    table: Path | None = None


@dataclass(frozen=True)
class WallJob:
    """A scan, its segmentation, and the files of its results.

    Attributes:
        name: the scan's name; the names of the wall's surface and table begin with it.
        folder: the folder of `wall_surface` and `table`.
        openings: the labelmap of the openings (mitral valve, ends of veins); None to use DCAMT's proposal.
        with_identity: whether the report names the patient.
        is_mapped: whether a label mapping is applied to the segmentation.
        found_in: see `FoundScans.folder`.
        refusal: the error if no segmentation was found.
    """

    scan: Path
    name: str
    segmentation: Path
    folder: Path
    openings: Path | None = None
    surface_without_scalars: Path | None = None
    report: Path | None = None
    with_identity: bool = False
    is_mapped: bool = False
    found_in: Path | None = None
    refusal: InputError | None = None

    @property
    def wall_surface(self) -> Path:
        return self.folder / f"{self.name}.wall.vtp"

    @property
    def table(self) -> Path:
        return self.folder / f"{self.name}.wall.csv"

    @property
    def results(self) -> tuple[Path, ...]:
        """All files that this job writes."""
        requested = (self.surface_without_scalars, self.report)
        return (self.wall_surface, self.table, *(path for path in requested if path is not None))


@dataclass(frozen=True)
class ScanJob:
    """A scan and the files for its results; None for results that are not requested.

    Attributes:
        name: the scan's name in results and messages.
        wall: the measurement of the wall. If it fails, the other results are still written.
        found_in: see `FoundScans.folder`.
    """

    scan: Path
    name: str
    segmentation: Path
    agreement: Path | None = None
    probabilities: Path | None = None
    surface: Path | None = None
    report: Path | None = None
    dicom_measurements: Path | None = None
    wall: WallJob | None = None
    found_in: Path | None = None

    @property
    def results(self) -> tuple[Path, ...]:
        """The files that this job writes, except those of the wall."""
        files = (
            self.segmentation,
            self.agreement,
            self.probabilities,
            self.surface,
            self.report,
            self.dicom_measurements,
        )
        return tuple(path for path in files if path is not None)

    @property
    def wall_files(self) -> tuple[Path, ...]:
        return self.wall.results if self.wall is not None else ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that this job writes. They are written together, all or none."""
        return (*self.results, *self.wall_files)

    @property
    def is_finished(self) -> bool:
        """Whether --skip-existing skips the scan."""
        return is_finished(self.results, optional=self.wall_files)

    @property
    def uncompared(self) -> list[Path]:
        """The existing results that cannot be compared, because the segmentation or the wall's table is missing."""
        of_wall = uncompared_files(self.wall.table, self.wall.results) if self.wall is not None else []
        return [*uncompared_files(self.segmentation, self.results), *of_wall]


def plan_scan_jobs(
    found: Sequence[FoundScans],
    output: Path,
    format_name: str | None,
    requested: RequestedResults,
    existing: str = REFUSE,
) -> list[ScanJob]:
    """Return one job for each scan.

    Args:
        found: the scans of each path of the command line.
        output: a file or a folder.
        format_name: one of `segmentation_options.SEGMENTATION_FORMATS`; if None, the output file's format, or
            `DEFAULT_FORMAT` for a folder.
        existing: `REFUSE`, `OVERWRITE` or `SKIP`; with `SKIP`, finished jobs are returned, too.

    Raises:
        UsageError: the output or the path of a requested result cannot be used for these scans.
        InputError: a scan is given twice, two results have the same path, a result would replace a scan, a result
            exists (only with `REFUSE`), or `requested.table` has the ending of an image file (for example `.raw`).
        OutputError: as in `check_result_paths`.
    """
    _refuse_repeated_scans(found)
    files = [scan for path in found for scan in path.scans]
    is_file, suffix = _segmentation_ending(output, format_name, len(files))
    if requested.dicom_measurements and suffix != DICOM_ENDING:
        raise UsageError(
            f"--measurements {requested.dicom_measurements} needs a DICOM segmentation:"
            " give --format dcm or -o FILE.dcm"
        )
    jobs = []
    names = with_folders([name for path in found for name in path.names], files)
    folders = [path.folder for path in found for _ in path.scans]
    for scan, name, folder in zip(files, names, folders, strict=True):
        segmentation = output if is_file else output / f"{name}{suffix}"
        job = _plan_scan_job(scan, name, segmentation, requested, len(files))
        jobs.append(replace(job, found_in=folder))
    results = _distinct_results([job for job in jobs if not is_too_long(job.scan)])
    check_result_paths(results, files, existing)
    if requested.table is not None:
        check_table_path(requested.table, [*files, *results], existing, TABLE_COLUMNS)
    if existing != SKIP:
        refuse_foreign_tables([job.wall.table for job in jobs if job.wall is not None], WALL_COLUMNS)
    if existing == REFUSE:
        refuse_existing(results, SKIP_REMEDY)
    return jobs


def _refuse_repeated_scans(found: Sequence[FoundScans]) -> None:
    found_by_scan: dict[str, FoundScans] = {}
    for path in found:
        for scan in path.scans:
            if found_by_scan.setdefault(os.path.realpath(scan), path) is not path:
                raise InputError("is given twice", path=scan, remedy="Give each scan once.")


def _plan_scan_job(
    scan: Path,
    name: str,
    segmentation: Path,
    requested: RequestedResults,
    scan_count: int,
) -> ScanJob:
    def side_result(kind: SideResult, text: str | None) -> Path | None:
        return None if text is None else kind.path(text, segmentation, scan_count)

    # Beside a DICOM segmentation, the map of agreement is written as NRRD.
    is_dicom = ending(segmentation) == DICOM_ENDING
    map_base = segmentation.with_name(f"{scan_name(segmentation)}.seg.nrrd") if is_dicom else segmentation
    return ScanJob(
        scan,
        name,
        segmentation,
        agreement_path(map_base) if requested.agreement else None,
        side_result(PROBABILITIES, requested.probabilities),
        side_result(SURFACE, requested.surface),
        side_result(REPORT, requested.report),
        side_result(DICOM_MEASUREMENTS, requested.dicom_measurements),
        WallJob(scan, name, segmentation, segmentation.parent) if requested.wall else None,
    )


def _distinct_results(jobs: Sequence[ScanJob]) -> list[Path]:
    """Return the files of all jobs. Raises InputError if two of them have the same path."""
    job_of_result: dict[Path, ScanJob] = {}
    for job in jobs:
        for path in job.files:
            other = job_of_result.setdefault(path, job)
            if other is not job:
                what = f"would get the same result file as {other.scan} ({path})"
                raise InputError(what, path=job.scan, remedy="Rename one of the scans.")
        if len(set(job.files)) < len(job.files):
            path = next(path for path in job.files if job.files.count(path) > 1)
            what = f"two results of this scan would be written to the file {path}"
            raise InputError(what, path=job.scan, remedy="Give each result another name.")
    return list(job_of_result)


def _segmentation_ending(output: Path, format_name: str | None, scan_count: int) -> tuple[bool, str]:
    """Return whether `output` is a file (not a folder), and the segmentations' ending."""
    output_ending = ending(output)
    is_file = output_ending in SEGMENTATION_OUTPUTS and not os.path.isdir(output)
    if not is_file and output_ending in (*IMAGE_ENDINGS, *_OTHER_FILE_ENDINGS) and not os.path.isdir(output):
        raise UsageError(
            f"-o {output}: results cannot be written as {output_ending}; use {', '.join(SEGMENTATION_OUTPUTS)}"
        )
    if is_file and scan_count > 1:
        raise UsageError(f"-o {output} is one file, but there are {scan_count} scans: give a folder")
    if is_file and format_name and f".{format_name}" != output_ending:
        raise UsageError(f"-o {output} does not end in .{format_name}")
    return is_file, output_ending if is_file else f".{format_name or DEFAULT_FORMAT}"
