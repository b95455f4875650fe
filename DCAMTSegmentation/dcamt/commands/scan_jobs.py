"""Plan the scans of a command line and the files that their results are written to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, OutputError
from ..io.formats import (
    IMAGE_ENDINGS,
    LABELMAP_OUTPUTS,
    SCAN_ENDINGS,
    VOLUME_OUTPUTS,
    agreement_path,
    ending,
    scan_name,
    without_agreement_maps,
)
from ..io.surfaces import SURFACE_OUTPUTS

# A name with one of these endings means a file, as one with an image's ending does; no result is written to it.
_OTHER_FILE_ENDINGS = (".gz", ".zip", ".csv", ".stl", ".obj", ".ply", ".vtp")
DEFAULT_FORMAT = "seg.nrrd"


SEGMENTATION_OUTPUTS = (*LABELMAP_OUTPUTS, ".dcm")
"""Endings that a segmentation can be written with."""


@dataclass(frozen=True)
class SideResult:
    """A kind of result besides the segmentation: the option that asks for it, and how its files are named.

    suffix: what the name of the segmentation is extended by. endings: of the file.
    """

    option: str
    suffix: str
    endings: tuple[str, ...]

    def path(self, text: str, segmentation: Path, scans: int, usage_error: Callable[[str], object]) -> Path:
        """Return the file that `text` asks for: a file, or an ending, for a file beside the segmentation."""
        wanted = f".{text.lower().lstrip('.')}"
        if wanted in self.endings:
            return segmentation.with_name(f"{scan_name(segmentation)}{self.suffix}{wanted}")
        path = Path(text)
        if ending(path) not in self.endings:
            usage_error(f"{self.option} {text}: the file must end in {', '.join(self.endings)}")
        if scans > 1:
            usage_error(f"{self.option} {text} is one file, but there are {scans} scans: give {self.endings[0][1:]}")
        return path


PROBABILITIES = SideResult("--probabilities", "_probabilities", VOLUME_OUTPUTS)
SURFACE = SideResult("--surface", "", SURFACE_OUTPUTS)
REPORT = SideResult("--report", "", (".html",))
DICOM_MEASUREMENTS = SideResult("--measurements", "_measurements", (".dcm",))


@dataclass(frozen=True)
class RequestedResults:
    """The results that a command line asks for besides the segmentations; see `SideResult` for the texts.

    table: the file of the measurements of all scans.
    """

    agreement: bool = False
    probabilities: str | None = None
    surface: str | None = None
    report: str | None = None
    dicom_measurements: str | None = None
    table: Path | None = None


@dataclass(frozen=True)
class ScanJob:
    """One scan and the files that its results are written to; None for results that were not asked for."""

    scan: Path
    segmentation: Path
    agreement: Path | None = None
    probabilities: Path | None = None
    surface: Path | None = None
    report: Path | None = None
    dicom_measurements: Path | None = None

    @property
    def results(self) -> tuple[Path, ...]:
        """All files that this job writes."""
        files = (
            self.segmentation,
            self.agreement,
            self.probabilities,
            self.surface,
            self.report,
            self.dicom_measurements,
        )
        return tuple(path for path in files if path is not None)


def plan_scan_jobs(
    scans: Sequence[Path],
    output: Path,
    format_name: str | None,
    requested: RequestedResults,
    usage_error: Callable[[str], object],
) -> list[ScanJob]:
    """Return one job for each scan in `scans`, a folder counting for the scans in it.

    `output` is a file or a folder, `format_name` one of `cli.FORMATS`.

    Raises:
        InputError: two results would get the same name, or a result would replace a scan.
        OutputError: a result cannot be written to its place.
    """
    files = [file for scan in scans for file in expand_scan_path(scan)]
    output_ending = ending(output)
    is_file = output_ending in SEGMENTATION_OUTPUTS and not output.is_dir()
    if not is_file and output_ending in (*IMAGE_ENDINGS, *_OTHER_FILE_ENDINGS) and not output.is_dir():
        usage_error(f"-o {output}: results cannot be written as {output_ending}; use {', '.join(SEGMENTATION_OUTPUTS)}")
    if is_file and len(files) > 1:
        usage_error(f"-o {output} is one file, but there are {len(files)} scans: give a folder")
    if is_file and format_name and f".{format_name}" != output_ending:
        usage_error(f"-o {output} does not end in .{format_name}")
    suffix = output_ending if is_file else f".{format_name or DEFAULT_FORMAT}"
    if requested.dicom_measurements and suffix != ".dcm":
        usage_error("--measurements to a DICOM report refers to a DICOM segmentation: it needs --format dcm")

    def side_result(kind: SideResult, text: str | None, segmentation: Path) -> Path | None:
        return None if text is None else kind.path(text, segmentation, len(files), usage_error)

    jobs = []
    scan_of_result: dict[Path, Path] = {}
    for scan in files:
        segmentation = output if is_file else output / f"{scan_name(scan)}{suffix}"
        # Beside a DICOM segmentation, maps are written as NRRD.
        beside = segmentation.with_name(f"{scan_name(segmentation)}.seg.nrrd") if suffix == ".dcm" else segmentation
        job = ScanJob(
            scan,
            segmentation,
            agreement_path(beside) if requested.agreement else None,
            side_result(PROBABILITIES, requested.probabilities, segmentation),
            side_result(SURFACE, requested.surface, segmentation),
            side_result(REPORT, requested.report, segmentation),
            side_result(DICOM_MEASUREMENTS, requested.dicom_measurements, segmentation),
        )
        for path in job.results:
            if path in scan_of_result:
                what = f"and {scan_of_result[path]} would both be written to {path}"
                raise InputError(what, path=scan, remedy="Rename one of them.")
            scan_of_result[path] = scan
        jobs.append(job)
    for path in scan_of_result:
        check_result_path(path, files)
    if requested.table is not None:
        check_table_path(requested.table, [*files, *scan_of_result])
    return jobs


def skipped_folders(scan: Path, output: Path) -> list[Path]:
    """Return the subfolders that are not searched, since `scan` is a folder that holds scans itself; not `output`."""
    inside = expand_scan_path(scan)
    if inside == [scan]:
        return []
    folders = sorted(entry for entry in scan.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [] if folders == inside else [folder for folder in folders if folder.resolve() != output.resolve()]


def expand_scan_path(scan: Path) -> list[Path]:
    """Return the path itself, or the scans in it if it is a folder (without any, it is a DICOM folder itself).

    In a folder, these are skipped: hidden files, the label `x_label` beside an image `x_image`, and the agreement map
    `x_agreement` beside its segmentation `x`.
    """
    if not os.path.isdir(scan):  # pathlib raises for names that the system cannot look up
        return [scan]
    entries = sorted(entry for entry in scan.iterdir() if not entry.name.startswith("."))
    files = without_agreement_maps(entry for entry in entries if entry.is_file())
    inside = [file for file in files if ending(file) in SCAN_ENDINGS]
    names = {scan_name(file) for file in inside}
    inside = [file for file in inside if not _is_label(scan_name(file), names)]
    if inside:
        return inside
    folders = [entry for entry in entries if entry.is_dir()]
    return folders if folders and len(folders) == len(entries) else [scan]


def check_result_path(path: Path, inputs: Iterable[Path]) -> None:
    """Raise an error if a result cannot be written to `path`.

    Raises:
        InputError: the result would replace one of the `inputs`.
        OutputError: the path is a folder, or lies where nothing can be written.
    """
    for other in inputs:
        if path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other)):
            raise InputError("would be replaced by a result", path=other, remedy="Give another file or folder.")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder. Give a file name.")
    above = path.resolve().parent
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise OutputError(f"{path}: lies in something that is not a folder ({above}). Choose another folder.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: may not be written. Choose another folder than {above}.")


def check_table_path(path: Path, inputs: Iterable[Path]) -> None:
    """Raise an error as `check_result_path`, and for the ending of an image, as a slip of the hand may cause it."""
    if ending(path) in IMAGE_ENDINGS:
        raise InputError("has the ending of an image, not of a table", path=path, remedy="Let it end in .csv.")
    check_result_path(path, inputs)


def _is_label(name: str, names: set[str]) -> bool:
    return name.endswith("_label") and f"{name.removesuffix('_label')}_image" in names
