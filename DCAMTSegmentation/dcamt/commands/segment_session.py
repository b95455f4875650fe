"""Segment the scans of `dcamt segment` one after another, and write and print the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..cases.checks import scan_notes
from ..errors import DCAMTError, fixed_number, names_path, user_error
from ..io.dicom_output import find_source_images
from ..io.dicom_stacks import ScanChoice
from ..io.formats import DICOM_ENDING, ending
from ..io.readers import is_dicom_scan, read_scan
from ..io.writers import write_volume
from ..metrics.measurements import Measurements
from ..volume import Volume, order_channels
from .console import Console, StdoutLost
from .result_files import (
    FileStamp,
    ResultAppeared,
    ResultDiffers,
    kept_files,
    new_results,
    refuse_appeared,
    refuse_different_segmentation,
    refuse_report_of_missing_segmentation,
)
from .scan_jobs import ScanJob, WallJob
from .scan_paths import MaskInFolder, refuse_mask

if TYPE_CHECKING:
    from ..api.segmentation import SegmentedScan, Segmenter
    from ..geometry import Region
    from ..io.dicom_output import SourceImages
    from ..wall.analysis import WallResult

LEFT_ATRIUM = "82471001"
"""SNOMED CT code of the left atrium, whose wall is measured."""
_SIDE_RESULTS = ("probabilities", "surface", "report", "dicom_measurements")


@dataclass(frozen=True)
class ScanRecord:
    """The measurements of a scan, or its failure.

    If a scan's results were written but its wall could not be measured, the scan has two records: one with measurements
    and one with a failure.

    Attributes:
        number: the index of the scan's job.
        is_skipped: whether the scan was skipped because another program had written one of the scan's result files.
        mask_note: the note that the file was skipped as a mask (`MaskInFolder`).
    """

    number: int
    measurements: tuple[Measurements, ...] = ()
    failure: str | None = None
    is_skipped: bool = False
    mask_note: str | None = None


@dataclass(frozen=True)
class SegmentSession:
    """Segments the scans of `jobs`, writes their results and prints a summary of each scan.

    Attributes:
        stamps: the stamp of each result file when the command began; None if the file did not exist.
        skips_existing: whether to skip a scan if another program has written one of the scan's result files; if False,
            this scan fails.
    """

    segmenter: Segmenter
    quality: str
    region: Region | None
    jobs: Sequence[ScanJob]
    console: Console
    choice: ScanChoice
    with_identity: bool
    stamps: Mapping[Path, FileStamp | None]
    skips_existing: bool

    def run_job(self, number: int, records: list[ScanRecord]) -> None:
        """Segment the scan at index `number` of the jobs, append its records to `records` and print its results."""
        job = self.jobs[number]
        try:
            start = time.monotonic()
            refuse_appeared(job.files, self.stamps)
            if job.dicom_measurements is not None and self.skips_existing:
                refuse_report_of_missing_segmentation(job.dicom_measurements, job.segmentation)
            result, source = self._segment_scan(number)
            refuse_appeared(job.files, self.stamps)
            if job.segmentation in kept_files(job.results, self.stamps):
                refuse_different_segmentation(job.segmentation, result.labelmap)
            wall, wall_failure, wall_start = None, None, time.monotonic()
            if job.wall is not None:
                wall, wall_failure = self._measure_wall(job.wall, result)
            wall_seconds = time.monotonic() - wall_start
            # Recorded before printing, which fails if stdout is closed.
            record = partial(records.append, ScanRecord(number, result.measurements))
            write_results(job, result, source, wall, self.with_identity, self.stamps, record)
            self._print_result(job, result, time.monotonic() - start)
            if job.wall is not None and wall is not None:
                from .wall import print_wall

                print_wall(wall, job.wall, self.console, wall_seconds)
            if wall_failure is not None:
                raise wall_failure
        except StdoutLost:
            raise
        except Exception as error:
            if isinstance(error, ResultAppeared) and self.skips_existing:
                records.append(ScanRecord(number, is_skipped=True))
                self.console.print_error(str(error))
                return
            if isinstance(error, MaskInFolder):
                records.append(ScanRecord(number, mask_note=str(error)))
                self.console.print_error(str(error))
                self.console.print_event("skipped", scan=str(job.scan), message=str(error))
                return
            failure = str(user_error(error, None if _names_file_of(error, job) else job.scan))
            records.append(ScanRecord(number, failure=failure))
            self.console.print_event("failed", scan=str(job.scan), message=failure)

    def _segment_scan(self, number: int) -> tuple[SegmentedScan, SourceImages | None]:
        """Return the segmented scan, and the images to which a DICOM segmentation refers (None for other formats)."""
        job = self.jobs[number]

        def progress(stage: str, fraction: float) -> None:
            self.console.print_event(
                "progress",
                scan=str(job.scan),
                stage=stage,
                fraction=round(fraction, 3),
                step=number,
                of=len(self.jobs),
            )
            self.console.show_progress(f"{job.name}: {stage}", (number + fraction) / len(self.jobs))

        progress("reading", 0.0)
        volume = read_scan(job.scan, self.segmenter.channels, choice_for(job.scan, self.choice))
        if job.found_in is not None:
            refuse_mask(job.scan, volume.voxels)
        volume = order_channels(volume, self.segmenter.predictor.recipe.channel_names)
        volume = replace(volume, notes=scan_notes(volume))
        for note in volume.notes:  # before the segmentation, which takes long and may fail
            self.console.print_error(f"{job.scan}: {note}")
        # A DICOM segmentation refers to the scan's DICOM images. A scan without them fails here, before segmentation.
        source = find_source_images(job.scan, volume.frames) if ending(job.segmentation) == DICOM_ENDING else None
        result = self.segmenter.segment(
            volume,
            quality=self.quality,
            region=self.region,
            keep_probabilities=job.probabilities is not None,
            progress=progress,
        )
        measurements = tuple(replace(row, scan=job.name) for row in result.measurements)
        return replace(result, measurements=measurements), source

    def _measure_wall(self, job: WallJob, result: SegmentedScan) -> tuple[WallResult | None, DCAMTError | None]:
        """Measure the left atrium's wall; return the result and None, or None and the failure.

        If no class of the model has the code of the left atrium, the segmentation must have exactly one label.

        ResultAppeared and ResultDiffers are raised, not returned, so that the caller writes no results of this scan.
        """
        # Imported here, since only --wall needs these modules.
        from ..wall.settings import WallSettings
        from .wall import measure_wall

        label = next((info.label for info in result.segments if info.type.value == LEFT_ATRIUM), None)
        try:
            wall = measure_wall(
                result.scan,
                result.labelmap,
                job,
                WallSettings(),
                label,
                stamps=self.stamps,
            )
            return wall, None
        except (ResultAppeared, ResultDiffers):
            raise
        except DCAMTError as error:
            return None, error

    def _print_result(self, job: ScanJob, result: SegmentedScan, seconds: float) -> None:
        self.console.print_event(
            "segmented",
            scan=str(job.scan),
            segmentation=str(job.segmentation),
            agreement=str(job.agreement) if job.agreement else None,
            **{name: str(path) for name in _SIDE_RESULTS if (path := getattr(job, name))},
            measurements=[asdict(row) for row in result.measurements],
            trust=result.trust,
            expected_overlap=asdict(result.expected_overlap) if result.expected_overlap else None,
            notes=list(result.notes),
            seconds=round(seconds, 3),
        )
        for row in result.measurements:
            if row.volume_ml == 0:
                self.console.print_error(f"{job.scan}: no {row.segment.lower()} was found")
        printed_before = result.scan.notes
        for note in result.notes:
            if note not in printed_before:
                self.console.print_error(f"{job.scan}: {note}")
        lines = [
            f"{job.name}: {row.segment} {fixed_number(row.volume_ml, 1)} mL, {fixed_number(row.surface_cm2, 1)} cm²"
            for row in result.measurements
        ]
        trust = f", agreement of the branches {result.trust:.0%}" if result.trust is not None else ""
        lines.append(f"{job.name}: segmented in {seconds:.1f} s{trust}")
        if result.expected_overlap is not None:
            lines.append(f"{job.name}: expected overlap with an expert's outline {result.expected_overlap}")
        lines.append(f"segmentation: {job.segmentation}")
        for kind in ("agreement", *_SIDE_RESULTS):
            if path := getattr(job, kind):
                lines.append(f"{kind.replace('_', ' ').replace('dicom', 'DICOM')}: {path}")
        self.console.print_text(*lines)


def choice_for(scan: Path, choice: ScanChoice) -> ScanChoice:
    """Return the choice for a DICOM scan; for any other scan, return a choice without values."""
    return choice if choice == ScanChoice() or is_dicom_scan(scan) else ScanChoice()


def write_results(
    job: ScanJob,
    result: SegmentedScan,
    source: SourceImages | None,
    wall: WallResult | None,
    with_identity: bool,
    stamps: Mapping[Path, FileStamp | None],
    then: Callable[[], object],
) -> None:
    """Write the job's files, all or none. After an error, files that existed before are unchanged.

    Args:
        source: the DICOM images that a DICOM segmentation refers to; None for other formats.
        wall: the analysed wall; if None, the wall's files are not written.
        with_identity: whether the report names the patient.
        stamps, then: see `new_results`.

    Raises:
        InputError: a requested surface cannot be computed, since the segmentation is empty or a class is too small;
            a DICOM segmentation cannot refer to the scan's images; or another program has written one of the files.
        OutputError: a file cannot be written.
    """
    from ..api.outputs import (
        describe_identity,
        write_dicom_measurements,
        write_dicom_results,
        write_probabilities,
        write_report,
        write_segmentation,
        write_surface,
    )

    with new_results(job.results if wall is None else job.files, stamps, then) as temporary:
        if job.segmentation in temporary and job.dicom_measurements in temporary:
            measurements = temporary[job.dicom_measurements]
            write_dicom_results(result, temporary[job.segmentation], measurements, source)
        elif job.segmentation in temporary:
            write_segmentation(result, temporary[job.segmentation], source)
        elif job.dicom_measurements in temporary:
            write_dicom_measurements(result, job.segmentation, temporary[job.dicom_measurements], source)
        if job.agreement in temporary and result.disagreement is not None:
            agreement = Volume(1 - result.disagreement[None], result.labelmap.grid)
            write_volume(agreement, temporary[job.agreement], mark=True)
        if job.probabilities in temporary:
            write_probabilities(result, temporary[job.probabilities])
        if job.surface in temporary:
            write_surface(result, temporary[job.surface])
        if job.report in temporary:
            identity = describe_identity(result.scan) if with_identity else None
            write_report(result, temporary[job.report], wall=wall, identity=identity)
        if job.wall is not None and wall is not None:
            from .wall import write_wall_files

            write_wall_files(wall, job.wall, temporary)


def _names_file_of(error: Exception, job: ScanJob) -> bool:
    return isinstance(error, DCAMTError) and any(names_path(error, path) for path in (job.scan, *job.files))
