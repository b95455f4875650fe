"""`dcamt segment`: segment scans and write the results; a scan that fails does not stop the others."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from ..distributed import Team, TeamLost, process_group, team_rank, wait_for_leader
from ..errors import InputError
from ..io.channels import channel_files
from ..io.dicom_files import walk_folders
from ..io.dicom_stacks import ScanChoice
from ..io.formats import DICOM_ENDING, ending
from ..io.interruption import ignore_signals, interrupt_on_sigterm
from ..io.readers import is_dicom_scan
from ..io.tables import csv_cell
from ..machine import without_garbage_collection
from ..metrics.measurements import Measurements, read_measurements_csv
from ..models.package import open_model
from ..models.store import model_path
from ..recipe import FAST
from .console import Console
from .measurement_table import (
    measure_unlisted_segmentations,
    remove_outdated_rows,
    write_measurement_table,
)
from .options import UsageError
from .result_files import (
    SKIP,
    FileStamp,
    check_result_paths,
    describe_uncompared,
    existing_rule,
    file_stamp,
    foreign_files,
    outdated_files,
    refuse_result_of_other_scan,
)
from .scan_jobs import RequestedResults, ScanJob, plan_scan_jobs
from .scan_paths import describe_skipped, find_scans, first_names, no_scan_in
from .segment_session import ScanRecord, SegmentSession, choice_for

TEAM_TIMEOUT = timedelta(days=7)
"""How long a process that has segmented its scans waits for the others that still run."""


def run_segment(options: argparse.Namespace) -> int:
    """Segment every scan and print each failure at the end; return 1 if a scan or the table failed.

    Without `torchrun`, the table of measurements lists each finished scan even if the command is interrupted.

    Under `torchrun`, each process segments its part of the scans and prints their results. The leader plans the jobs
    and, at the end, writes the table and prints the failures. If one of the other processes ends early, the table lists
    only the leader's scans.
    """
    if options.agreement and options.quality == FAST:
        raise UsageError("--agreement compares the network's two branches: it needs --quality accurate")
    if options.identity and options.report is None:
        raise UsageError("--identity is for the report: it needs --report")
    requested = _requested_results(options)
    work: tuple[list[ScanJob], dict[Path, FileStamp | None]] | None = None
    skipped: list[ScanJob] = []
    console = Console(options.json, with_bar=team_rank() == 0)
    if team_rank() == 0:
        jobs, stamps, skipped = _plan_jobs(options, requested, console)
        work = jobs, stamps
    # Imported after the checks above, since torch loads slowly.
    with without_garbage_collection():
        import torch

        from ..api import segmentation  # noqa: F401

    try:
        with process_group(torch.device("cpu"), TEAM_TIMEOUT) as team:
            table = requested.table if team.leads else None
            return _segment_with_team(options, table, team, *team.broadcast(work), skipped, console)
    except TeamLost:
        if team_rank() > 0:  # the leader prints the failures
            wait_for_leader()
            return 1
        raise


def _plan_jobs(
    options: argparse.Namespace, requested: RequestedResults, console: Console
) -> tuple[list[ScanJob], dict[Path, FileStamp | None], list[ScanJob]]:
    """Return the jobs to do, the stamps of their files, and the jobs that --skip-existing skips.

    Print what is skipped.
    """
    existing = existing_rule(options)
    channels = _model_channels(options)
    found = [find_scans(path, channels, [options.output]) for path in options.scans]
    _refuse_choice_without_dicom(options, [scan for scans in found for scan in scans.scans])
    planned = plan_scan_jobs(found, options.output, options.format, requested, existing)
    if existing == SKIP:
        for number, job in enumerate(planned):
            console.show_progress("checking the existing results", number / len(planned))
            choice = choice_for(job.scan, _scan_choice(options))
            refuse_result_of_other_scan(job.segmentation, job.scan, choice)
        console.clear_progress()
    skipped = [job for job in planned if existing == SKIP and job.is_finished]
    finished = set(skipped)
    jobs = [job for job in planned if job not in finished]
    stamps = {path: file_stamp(path) for job in jobs for path in job.files}
    # If the scan is a link to a missing file, `read_scan` raises an error that names the missing file.
    if len(jobs) == 1 and not os.path.lexists(jobs[0].scan):
        raise InputError("does not exist", path=jobs[0].scan, remedy="Check the name and the folder.")
    model = model_path(options.model)
    if requested.table is not None:
        check_result_paths([requested.table], [model])
    for path, scans in zip(options.scans, found, strict=True):
        for note in describe_skipped(path, scans, "segment", [options.output]):
            console.print_note(note)
    if existing == SKIP and requested.table is not None:
        read_measurements_csv(requested.table)  # Refuses another kind of table before scans are segmented.
    _print_kept(skipped, len(planned), console)
    if existing == SKIP and (uncompared := [path for job in jobs for path in job.uncompared]):
        console.print_note(describe_uncompared(uncompared))
    return jobs, stamps, skipped


def _model_channels(options: argparse.Namespace) -> int:
    """Return the number of channels that the model needs.

    The model is read only if a scan in the folders has several channel files. Otherwise, the number is not needed, and
    the result is 1.
    """
    folders = [walk_folders(folder) for folder in options.scans if os.path.isdir(folder)]
    files = (file for folder in folders for _, _, inside in folder for file in inside)
    return open_model(model_path(options.model)).recipe.input_channels if any(map(channel_files, files)) else 1


def _print_kept(skipped: Sequence[ScanJob], scan_count: int, console: Console) -> None:
    if skipped:
        console.print_note(f"skipped scans that have results already: {len(skipped)} of {scan_count}")
    without_wall = [job for job in skipped if not all(os.path.exists(path) for path in job.wall_files)]
    if without_wall:
        console.print_note(
            f"the wall is not measured in {len(without_wall)} of {len(skipped)} skipped scans; "
            "measure it with 'dcamt wall'"
        )
    for path in foreign_files([path for job in skipped for path in job.files]):
        cause = "this file has no valid mark of DCAMT, so another program may have saved it"
        console.print_note(f"{path}: kept, since {cause}; the scan is skipped")
    outdated = [path for job in skipped for path in outdated_files(job.segmentation, job.files)]
    if outdated:
        what = "kept results that are older than the segmentation and may be outdated"
        remedy = "If DCAMT wrote the segmentation, delete these files and repeat the command."
        console.print_note(f"{what}: {first_names([path.name for path in outdated])}. {remedy}")


def _segment_with_team(
    options: argparse.Namespace,
    table: Path | None,
    team: Team,
    jobs: Sequence[ScanJob],
    stamps: Mapping[Path, FileStamp | None],
    skipped: Sequence[ScanJob],
    console: Console,
) -> int:
    """Segment this process's part of the jobs; in the leader, also write the table and print the summary.

    Args:
        table: None in every process but the leader.
        stamps: the stamps of the jobs' files when the jobs were planned.
        skipped: in the leader, the jobs that --skip-existing skips; in every other process, empty.
    """
    session = _start_session(options, team, jobs, {} if options.overwrite else stamps, console)
    records: list[ScanRecord] = []
    again: list[Measurements] = []
    is_written = True
    lost: str | None = None
    with interrupt_on_sigterm(), ExitStack() as final_writes:
        try:
            if options.skip_existing and table:
                half_finished = [job for job in jobs if stamps[job.segmentation] is not None]
                remove_outdated_rows(table, [*skipped, *half_finished], session.segmenter.segments, console)
                measure_unlisted_segmentations(table, skipped, session.segmenter.segments, again, console)
            for number in range(team.rank, len(jobs), team.size):
                session.run_job(number, records)
            try:
                records = [record for part in team.gather(records) for record in part]
            except TeamLost:
                if not team.leads:
                    raise
                lost = "another process ended before its scans were done"
            if options.skip_existing and table:
                measured = {record.number for record in records if record.measurements or record.mask_note}
                unsegmented = [jobs[record.number] for record in records if record.number not in measured]
                measure_unlisted_segmentations(table, unsegmented, session.segmenter.segments, again, console)
        except KeyboardInterrupt:
            # Without torchrun, no message is needed: each finished scan has been printed, in order.
            lost = "interrupted" if team.size > 1 else None
            raise
        finally:
            # A person may press Ctrl-C twice, and torchrun sends SIGTERM once another process has failed.
            final_writes.enter_context(ignore_signals())
            records.sort(key=lambda record: record.number)
            missing = jobs_without_result(jobs, records, stamps)
            if lost and team.leads:
                has_failure = any(record.failure is not None for record in records)
                console.print_error(f"{lost}; {_describe_missing(missing, has_failure)}")
            rows = [row for record in records for row in record.measurements]
            if (rows or again) and table:
                masks = {jobs[record.number].name for record in records if record.mask_note}
                replaced = masks.union(row.scan for row in rows)
                kept = {csv_cell(job.name) for job in jobs} - set(map(csv_cell, replaced))
                is_written = write_measurement_table(table, rows, again, kept if options.overwrite else None, console)
        if not team.leads:
            return 0  # With status 1, torchrun would end the leader, which still has to print the failures.
        if (rows or again) and table and is_written:
            console.print_text(f"measurements: {table}")
        has_failed = _print_summary(console, jobs, records, missing, skipped, options.wall)
        return 1 if has_failed or lost or not is_written else 0


def _start_session(
    options: argparse.Namespace,
    team: Team,
    jobs: Sequence[ScanJob],
    stamps: Mapping[Path, FileStamp | None],
    console: Console,
) -> SegmentSession:
    from ..api.segmentation import Segmenter
    from ..geometry import Region
    from ..wall.analysis import VTK_MODULES, import_in_background

    with team.fail_together():
        region = Region.parse(options.roi) if options.roi is not None else None
        segmenter = Segmenter.load(options.model, options.device)
    if options.wall:
        # vtk loads slowly; meanwhile, the first scan is read and segmented.
        import_in_background(VTK_MODULES)
    return SegmentSession(
        segmenter=segmenter,
        quality=options.quality,
        region=region,
        jobs=jobs,
        console=console,
        choice=_scan_choice(options),
        with_identity=options.identity,
        stamps=stamps,
        skips_existing=options.skip_existing,
    )


def _scan_choice(options: argparse.Namespace) -> ScanChoice:
    return ScanChoice(options.series, options.frame_type, options.time)


def _refuse_choice_without_dicom(options: argparse.Namespace, scans: Sequence[Path]) -> None:
    values = {"--series": options.series, "--frame-type": options.frame_type, "--time": options.time}
    given = [option for option, value in values.items() if value is not None]
    if given and not any(map(is_dicom_scan, scans)):
        names = first_names([scan.name for scan in scans])
        raise UsageError(f"no scan is DICOM ({names}): leave out {' and '.join(given)}")


def _print_summary(
    console: Console,
    jobs: Sequence[ScanJob],
    records: Sequence[ScanRecord],
    missing: Sequence[ScanJob],
    skipped: Sequence[ScanJob],
    wall: bool,
) -> bool:
    """Print the failures and the number of segmented scans; return whether there are failures.

    Args:
        missing: the jobs without a result.
        skipped: the jobs that --skip-existing skipped.
    """
    mask_notes = {record.number: record.mask_note for record in records if record.mask_note}
    scans = [job for number, job in enumerate(jobs) if number not in mask_notes]
    segmented = {record.number for record in records if record.measurements}
    if wall and segmented:
        from ..wall.settings import METHODS_DISAGREE

        console.print_text(METHODS_DISAGREE)
    failures = [record.failure for record in records if record.failure is not None]
    folders = dict.fromkeys(jobs[number].found_in for number in mask_notes)
    folders_of_scans = {job.found_in for job in (*scans, *skipped)}
    failures += [str(no_scan_in(folder)) for folder in folders if folder and folder not in folders_of_scans]
    for failure in failures:
        console.print_error(failure)
    unsegmented = len(missing) + len({record.number for record in records} - segmented - mask_notes.keys())
    if len(scans) > 1:
        console.print_text(f"{len(scans) - unsegmented} of {len(scans)} scans segmented")
    notes = [*console.notes, *mask_notes.values()]
    console.print_event("done", scans=len(scans), failed=len(failures) + len(missing), notes=notes)
    return bool(failures)


def _requested_results(options: argparse.Namespace) -> RequestedResults:
    table = options.measurements
    as_dicom = table is not None and _is_dicom(table)
    return RequestedResults(
        agreement=options.agreement,
        wall=options.wall,
        probabilities=options.probabilities,
        surface=options.surface,
        report=options.report,
        dicom_measurements=str(table) if as_dicom else None,
        table=None if as_dicom else table,
    )


def _is_dicom(measurements: Path) -> bool:
    """Return whether the path of --measurements requests DICOM files.

    >>> [_is_dicom(Path(text)) for text in ("la.dcm", "dcm", ".dcm", "la.csv")]
    [True, True, True, False]
    """
    return ending(measurements) == DICOM_ENDING or measurements.name.lower().lstrip(".") == "dcm"


def jobs_without_result(
    jobs: Sequence[ScanJob], records: Sequence[ScanRecord], stamps: Mapping[Path, FileStamp | None]
) -> list[ScanJob]:
    """Return the jobs that have no record and whose segmentation is missing or still has its earlier `file_stamp`.

    A file's stamp is compared with its earlier stamp, not with the time at which the command began. Some file systems
    round times down, so a file that this command wrote may have a time before the command began.

    Args:
        stamps: the stamps of the segmentations before the work.
    """
    recorded = {record.number for record in records}
    return [
        job
        for number, job in enumerate(jobs)
        if number not in recorded and file_stamp(job.segmentation) in (None, stamps[job.segmentation])
    ]


def _describe_missing(jobs: Sequence[ScanJob], has_failure: bool) -> str:
    if not jobs:
        what = "some measurements may be missing"
        return what if has_failure else f"all segmentations were written, but {what}"
    return f"without a result: {first_names([job.name for job in jobs])}. Segment these scans again."
