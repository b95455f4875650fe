"""`dcamt wall`: measure late enhancement on the surface of segments; a scan that fails does not stop the others."""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ..cases.case_names import case_of
from ..cases.checks import scan_notes
from ..cases.few_values import has_few_values, refuse_scan_as_labels
from ..cases.label_names import names_of_values
from ..cases.label_pairing import notes_on_unknown_words, pair_with_labels, similar_labels
from ..cases.labelmap_files import labelmaps_by_case
from ..cases.labels import label_values, parse_mapping
from ..cases.structure_names import are_different_structures
from ..errors import DCAMTError, InputError, names_path, user_error
from ..io.dicom_files import list_names
from ..io.formats import ending, scan_name
from ..io.interruption import ignore_signals, interrupt_on_sigterm
from ..io.locks import table_lock
from ..io.readers import read_labelmap, read_scan, read_segments
from ..io.segment_overlaps import MappingOption
from ..io.surfaces import SURFACE_OUTPUTS, surface_ending, write_mesh
from ..io.tables import csv_cell
from ..io.writers import is_dcamt_result
from ..recipe_files import load_recipe
from ..volume import IdentifyingNote, Labelmap, Volume
from ..wall.analysis import (
    SCIPY_MODULES,
    VTK_MODULES,
    WallResult,
    analyse_wall,
    import_in_background,
    segment_label,
)
from ..wall.burden import BORDER, OPENING, WHOLE
from ..wall.files import (
    WALL_COLUMNS,
    has_same_rows,
    has_wall_columns,
    method_text,
    read_wall_rows,
    write_wall_csv,
    write_wall_surface,
)
from ..wall.settings import METHODS_DISAGREE, WallSettings, parse_threshold
from .console import Console, StdoutLost
from .options import UsageError
from .result_files import (
    DIFFERENCE_REMEDY,
    OVERWRITE,
    REFUSE,
    SKIP,
    SKIP_REMEDY,
    FileStamp,
    ResultAppeared,
    ResultDiffers,
    check_result_paths,
    describe_removed_rows,
    describe_uncompared,
    existing_rule,
    file_stamp,
    is_finished,
    kept_files,
    new_results,
    outdated_files,
    refuse_appeared,
    refuse_existing,
    refuse_foreign_tables,
    refuse_open_table,
    uncompared_files,
    write_beside,
)
from .scan_jobs import REPORT, WallJob
from .scan_paths import (
    FoundScans,
    MaskInFolder,
    describe_skipped,
    find_scans,
    no_scan_in,
    refuse_mask,
    relative_names,
)

SEGMENT_NAME, SEGMENT_COLOR = "Outlined segment", (0.85, 0.33, 0.31)
"""Default name and colour of the segment in the report."""
LEFT_ATRIUM = "Left atrium"
TABLE = "wall.csv"
"""Name of the table of all scans in a folder."""
_MAPPING = MappingOption("Use the option --labels, without --label.", label=1)


def run_wall(options: argparse.Namespace) -> int:
    """Measure the wall of every scan and print each failure at the end; return 1 if a scan or the table failed.

    A folder of scans needs a folder of segmentations; the files are paired by name as in `dcamt evaluate`. For a
    folder, a table of all measured scans is written too, even after an interruption.
    """
    if options.identity and options.report is None:
        raise UsageError("--identity is for the report: it needs --report")
    settings = WallSettings(parse_threshold(options.preset), options.sample, options.from_mm, options.to_mm)
    existing = existing_rule(options)
    console = Console(options.json)
    planned, table = plan_wall_jobs(options, existing, console)
    mapping = parse_mapping(options.labels, load_recipe("la").classes) if options.labels else None
    skipped = [job for job in planned if existing == SKIP and is_finished(job.results)]
    finished = set(skipped)
    jobs = [job for job in planned if job not in finished]
    earlier = _earlier_rows(table, skipped) if existing == SKIP and table is not None else []
    if skipped:
        console.print_note(f"skipped scans that have results already: {len(skipped)} of {len(planned)}")
        _print_outdated(skipped, console)
        for job in skipped:
            if table is not None and not has_wall_columns(job.table):
                what = "is not a table of wall measurements (a program may have saved it with other separators)"
                remedy = "To measure the scan again, move the file."
                console.print_note(f"{job.table}: {what}. The scan {job.name} may be missing in {table}. {remedy}")
    if existing == SKIP and (uncompared := [path for job in jobs for path in uncompared_files(job.table, job.results)]):
        console.print_note(describe_uncompared(uncompared))
    checked = jobs if existing != OVERWRITE else []
    stamps = {path: file_stamp(path) for job in checked for path in job.results}
    session = WallSession(settings, mapping, options.label, console, stamps, existing == SKIP)
    # SciPy and vtk load slowly; meanwhile, the first scan is read.
    import_in_background((*SCIPY_MODULES, *VTK_MODULES) if jobs else ())
    is_written = True
    with interrupt_on_sigterm():
        try:
            for number, job in enumerate(jobs):
                console.print_event("progress", scan=str(job.scan), stage="wall", step=number, of=len(jobs))
                console.show_progress(f"{job.name}: wall", number / len(jobs))
                session.run_job(job)
        finally:
            has_rows = bool(session.results or earlier)
            if table is not None and has_rows:
                with ignore_signals():
                    is_written = session.write_table(table, planned, existing != OVERWRITE)
    if table is not None and has_rows and is_written:
        console.print_text(f"table of all scans: {table}")
    if len(session.masks) == len(planned):
        session.failures.append(str(no_scan_in(options.scan)))
    session.print_summary(len(jobs) - len(session.masks))
    return 1 if session.failures or not is_written else 0


@dataclass
class WallSession:
    """Measures the walls of scans one after another, and prints their results.

    Attributes:
        mapping: None without `--labels`.
        label: the value of the segment to measure; None if there is only one segment.
        stamps: the `file_stamp` of each result file when the command began; empty with `--overwrite`.
        skips_existing: whether to skip a scan if another program has written one of the scan's result files since the
            command began; if False, this scan fails.
        results, failures: the walls measured so far, and the messages about the scans that failed.
        masks: the names of the jobs whose scan was skipped as a mask (`MaskInFolder`).
    """

    settings: WallSettings
    mapping: Mapping[int | str, int] | None
    label: int | None
    console: Console
    stamps: Mapping[Path, FileStamp | None]
    skips_existing: bool
    results: list[WallResult] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    masks: set[str] = field(default_factory=set)

    def run_job(self, job: WallJob) -> None:
        """Measure the wall of a scan, and write and print the results; after a failure, record the message."""
        try:
            start = time.monotonic()
            refuse_appeared(job.results, self.stamps)
            if job.refusal is not None and not has_few_values(job.scan):  # A mask needs no segmentation.
                raise job.refusal
            volume = read_scan(job.scan)
            if job.found_in is not None:
                refuse_mask(job.scan, volume.voxels)
            labelmap = read_labelmap(job.segmentation, self.mapping, _MAPPING)
            # The notes are printed before the measurement, since they may explain its failure.
            notes = self._print_notes(job.segmentation, _notes_on_segment(job, labelmap, self.label))
            refuse_scan_as_labels(labelmap, job.segmentation)
            if self.mapping is not None and not labelmap.voxels.any():
                what, remedy = "has no voxel with a value of the label mapping", "Correct the mapping of --labels."
                raise InputError(what, path=job.segmentation, remedy=remedy)
            openings = read_labelmap(job.openings) if job.openings is not None else None
            if openings is not None:
                # Each segment is an opening, so overlaps do no harm: `notes_about(())` omits the notes on overlaps.
                notes += self._print_notes(job.openings, openings.notes_about(()))
            result = measure_wall(volume, labelmap, job, self.settings, self.label, openings, stamps=self.stamps)
            with new_results(job.results, self.stamps, partial(self.results.append, result)) as temporary:
                write_wall_files(result, job, temporary)
                if job.report in temporary:
                    _write_report(result, volume, labelmap, self.label, job, temporary[job.report])
            print_wall(result, job, self.console, time.monotonic() - start, scan_notes(volume), notes)
        except StdoutLost:
            raise
        except Exception as error:
            if isinstance(error, ResultAppeared) and self.skips_existing:
                self.console.print_error(str(error))
                return
            if isinstance(error, MaskInFolder):
                self.masks.add(job.name)
                self.console.print_note(str(error))
                self.console.print_event("skipped", scan=str(job.scan), message=str(error))
                return
            files = (job.scan, job.segmentation, job.openings, *job.results)
            is_named = isinstance(error, DCAMTError) and any(names_path(error, path) for path in files if path)
            self.failures.append(str(user_error(error, None if is_named else job.scan)))
            self.console.print_event("failed", scan=str(job.scan), message=self.failures[-1])

    def _print_notes(self, path: Path | None, notes: Sequence[str]) -> list[str]:
        lines = [f"{path}: {note}" for note in notes]
        for line in lines:
            self.console.print_error(line)
        return lines

    def write_table(self, table: Path, planned: Sequence[WallJob], keep: bool) -> bool:
        """Write the table of all scans; if that fails, print the error, and write the new rows beside the table.

        Args:
            planned: all jobs, including skipped jobs.
            keep: whether to keep the rows that `table` already contains for scans that this command did not measure.

        Returns:
            whether the table was written.
        """
        measured = {result.scan for result in self.results}
        others = [job for job in planned if job.name not in measured | self.masks]
        try:
            with table_lock(table):
                earlier = _earlier_rows(table if keep else None, others)
                written = {row[0] for row in earlier} | {csv_cell(name) for name in measured}
                removed = _scans_in(table) - written
                write_wall_csv(self.results, table, earlier)
        except DCAMTError as error:
            if self.results:
                error = write_beside(table, error, partial(write_wall_csv, self.results))
            self.console.print_error(str(error))
            return False
        if removed:
            self.console.print_error(describe_removed_rows(table, removed))
        return True

    def print_summary(self, scan_count: int) -> None:
        """Print the failures and how many of `scan_count` scans were measured."""
        if self.results:
            self.console.print_text(METHODS_DISAGREE)
        for failure in self.failures:
            self.console.print_error(failure)
        if scan_count > 1:
            self.console.print_text(f"{len(self.results)} of {scan_count} scans measured")
        self.console.print_event("done", scans=scan_count, failed=len(self.failures), notes=self.console.notes)


def _print_outdated(skipped: Sequence[WallJob], console: Console) -> None:
    outdated = [job.name for job in skipped if outdated_files(job.segmentation, job.results)]
    if outdated:
        what = "skipped scans whose results are older than the segmentation and may be outdated"
        remedy = "To measure these scans again, remove their results, or use --overwrite for all scans."
        console.print_note(f"{what}: {list_names(outdated)}. {remedy}")


def _earlier_rows(table: Path | None, jobs: Sequence[WallJob]) -> list[list[str]]:
    """Return the rows of `table` (the table of all scans) and of the jobs' own tables.

    The rows of a job's own table replace the rows of the same scan in `table`.

    The table of all scans may lack a scan, for example if the command that measured the scan was killed.
    """
    rows: dict[str, list[list[str]]] = {}
    for row in filter(None, read_wall_rows(table) if table is not None else []):
        rows.setdefault(row[0], []).append(row)
    for job in jobs:
        if has_wall_columns(job.table) and (measured := [row for row in read_wall_rows(job.table) if row]):
            rows[measured[0][0]] = measured
    return [row for group in rows.values() for row in group]


def _scans_in(table: Path) -> set[str]:
    try:
        return {row[0] for row in read_wall_rows(table) if row}
    except InputError:
        return set()


def plan_wall_jobs(options: argparse.Namespace, existing: str, console: Console) -> tuple[list[WallJob], Path | None]:
    """Return one job for each scan, and the path of the table of all scans; for a single scan, the path is None.

    Print what is skipped.

    Raises:
        UsageError: an option does not fit the scan or the other options.
        InputError: the segmentations cannot be paired with the scans, the ending of --surface is unknown, two results
            have the same path, a result would replace an input, or a result exists already and neither --overwrite nor
            --skip-existing is given.
        OutputError: as in `check_result_paths` and `refuse_open_table`.
    """
    output = options.output
    _check_usage(options)
    found = find_scans(options.scan, results=[options.segmentation, output])
    unpaired: list[Path] = []
    if found.folder is None:
        job = WallJob(
            scan=options.scan,
            name=scan_name(options.scan),
            segmentation=options.segmentation,
            folder=output,
            openings=options.openings,
            surface_without_scalars=options.surface,
            report=options.report,
            with_identity=options.identity,
            is_mapped=bool(options.labels),
        )
        jobs, table = [job], None
    else:
        jobs, unpaired = _pair_scans(found, options)
        table = output / TABLE
    results = [path for job in jobs for path in job.results]
    if table is not None:
        results.append(table)
    inputs = [path for job in jobs for path in (job.scan, job.segmentation, job.openings) if path is not None]
    check_result_paths(results, inputs)
    if existing != SKIP:
        tables = [job.table for job in jobs]
        refuse_foreign_tables(tables if table is None else [*tables, table], WALL_COLUMNS)
    if existing == REFUSE:
        refuse_existing(results, SKIP_REMEDY)
    if table is not None:
        refuse_open_table(table)
    known = [*inputs, *unpaired, options.segmentation, output]
    paired = [(job.name, job.segmentation) for job in jobs if job.found_in is not None and job.refusal is None]
    for note in (*describe_skipped(options.scan, found, "measure", known), *notes_on_unknown_words(paired)):
        console.print_note(note)
    if unpaired:
        what = f"skipped segmentations that belong to no scan in {options.scan}"
        names = relative_names(options.segmentation, unpaired)
        remedy = "If one of them belongs to a scan, name the two files alike, such as p1.nrrd and p1_seg.nrrd."
        console.print_note(f"{options.segmentation}: {what} ({names}). {remedy}")
    return jobs, table


def _check_usage(options: argparse.Namespace) -> None:
    output = options.output
    if ending(output) in (*SURFACE_OUTPUTS, ".csv") and not os.path.isdir(output):
        raise UsageError(f"-o {output}: the command writes several files: give a folder")
    if options.surface is not None:
        surface_ending(options.surface)
    if options.report is not None and ending(options.report) not in REPORT.endings:
        raise UsageError(f"--report {options.report}: the file must end in {', '.join(REPORT.endings)}")


def _pair_scans(found: FoundScans, options: argparse.Namespace) -> tuple[list[WallJob], list[Path]]:
    """Return a job for each scan of a folder, and the segmentations that belong to no scan.

    Scans and segmentations are paired by names such as `p1_lge` and `P1_label` (`pair_with_labels`).
    """
    for option, value in (
        ("--openings", options.openings),
        ("--surface", options.surface),
        ("--report", options.report),
    ):
        if value is not None:
            raise UsageError(f"{option} is for one scan, but {options.scan} is a folder of scans")
    if not options.segmentation.is_dir():
        raise UsageError(f"{options.scan} is a folder of scans: give a folder of segmentations too")
    names_by_case: defaultdict[str, list[str]] = defaultdict(list)
    for name in found.names:
        names_by_case[case_of(name)].append(name)
    shared = {case: names for case, names in names_by_case.items() if len(names) > 1}
    cases = [name if case_of(name) in shared else case_of(name) for name in found.names]
    labelmaps = labelmaps_by_case(options.segmentation, skip_images=True, names=cases)
    _refuse_shared_segmentations(shared, labelmaps)
    segmentations = pair_with_labels(cases, labelmaps)
    jobs = [
        WallJob(
            scan,
            name,
            segmentations.get(case, options.segmentation / f"{case}.seg.nrrd"),
            options.output,
            is_mapped=bool(options.labels),
            found_in=found.folder,
        )
        for scan, name, case in zip(found.scans, found.names, cases, strict=True)
    ]
    known = set(cases)
    if known.isdisjoint(segmentations):
        raise _without_segmentation(jobs[0], similar_labels(cases[0], known, segmentations))
    jobs = [
        job
        if case in segmentations
        else replace(job, refusal=_without_segmentation(job, similar_labels(case, known, segmentations)))
        for job, case in zip(jobs, cases, strict=True)
    ]
    scans = set(found.scans)
    return jobs, [path for name, path in segmentations.items() if name not in known and path not in scans]


def _refuse_shared_segmentations(names_by_case: Mapping[str, Sequence[str]], labelmaps: Mapping[str, Path]) -> None:
    """Raise InputError if a segmentation may belong to several scans.

    Args:
        names_by_case: the scans' names for each case that has several scans: `a` and `a_image` for the case `a`.
        labelmaps: the result of `labelmaps_by_case`.
    """
    for case, names in sorted(names_by_case.items()):
        segmentation = labelmaps.get(case)
        if segmentation is None or scan_name(segmentation) in names:
            continue
        other_segmentations = labelmaps.keys() - {case}
        without_other = [name for name in names if name not in other_segmentations]
        if len(without_other) > 1:
            what = f"may belong to any one of these scans: {list_names(without_other)}"
            raise InputError(what, path=segmentation, remedy="Name each segmentation like its scan.")


def _without_segmentation(job: WallJob, similar: Sequence[str]) -> InputError:
    folder, wanted = job.segmentation.parent, job.segmentation.name
    if similar:
        what = f"has no segmentation in {folder}, but files with similar names are there: {list_names(similar)}"
        remedy = (
            f"If one of these files is the scan's segmentation, rename it to {scan_name(wanted)}_seg and keep its"
            " ending, for example .nii.gz."
        )
        return InputError(what, path=job.scan, remedy=remedy)
    remedy = f"Put {wanted} there, or choose another folder."
    return InputError(f"has no segmentation in {folder}", path=job.scan, remedy=remedy)


def measure_wall(
    volume: Volume,
    labelmap: Labelmap,
    job: WallJob,
    settings: WallSettings,
    label: int | None = None,
    openings: Labelmap | None = None,
    *,
    stamps: Mapping[Path, FileStamp | None],
) -> WallResult:
    """Analyse the wall of a scan, and return the analysis.

    Args:
        stamps: see `refuse_appeared`.

    Raises:
        InputError: the wall cannot be analysed, another program has written one of the job's files, or an existing
            table, which is kept (`kept_files`), has other rows than the new result.
    """
    result = analyse_wall(volume, labelmap, settings, label=label, openings=openings, scan=job.name)
    refuse_appeared(job.results, stamps)
    if job.table in kept_files(job.results, stamps) and not has_same_rows(job.table, result):
        what = "exists already, but has other rows than the new result: the segmentation or the options may differ"
        raise ResultDiffers(what, path=job.table, remedy=DIFFERENCE_REMEDY)
    return result


def write_wall_files(result: WallResult, job: WallJob, temporary: dict[Path, Path]) -> None:
    """Write the job's surfaces and table to the paths that `temporary` lists for them.

    Raises OutputError if a file cannot be written.
    """
    if job.wall_surface in temporary:
        write_wall_surface(result, temporary[job.wall_surface])
    if job.table in temporary:
        write_wall_csv([result], temporary[job.table])
    if job.surface_without_scalars in temporary:
        write_mesh(result.surface.points, result.surface.triangles, temporary[job.surface_without_scalars])


def _write_report(
    result: WallResult, volume: Volume, labelmap: Labelmap, label: int | None, job: WallJob, path: Path
) -> None:
    from ..api.outputs import describe_identity
    from ..report.outline_report import ReportedSegment, write_outline_report

    value = segment_label(labelmap, label)
    # A mapping may unite several segments, so their names and colours are not used.
    segments = () if job.is_mapped else read_segments(job.segmentation)
    stored = next((info for info in segments if info.label == value), None)
    # A name that a person typed may identify the patient.
    name = stored.name if stored is not None and job.with_identity else None
    color = stored.color if stored is not None else None
    segment = ReportedSegment(name or SEGMENT_NAME, color or SEGMENT_COLOR, labelmap.voxels == value, labelmap.grid)
    identity = describe_identity(volume) if job.with_identity else {}
    notes = (*scan_notes(volume), *_notes_on_segment(job, labelmap, label))
    write_outline_report(volume, segment, path, result, identity, is_dcamt_result(job.segmentation), notes)


def _notes_on_segment(job: WallJob, labelmap: Labelmap, label: int | None) -> tuple[str, ...]:
    """Return the notes that concern the segment to measure, which has the value `label`.

    If `label` is None, return all notes. If the segment has the name of another structure, a note says so.
    """
    notes = labelmap.notes if label is None else labelmap.notes_about([label])
    values = label_values(labelmap) if label is None else (label,)
    if job.is_mapped or len(values) != 1:
        return notes
    named, _ = names_of_values(job.segmentation)
    texts = (
        f"the segment with the value {value} is named '{name}', but regions and stages apply only to the left atrium."
        " Check the segmentation."
        for value, name in named
        if value in values and are_different_structures(name, LEFT_ATRIUM)
    )
    return (*notes, *map(IdentifyingNote, texts))


def print_wall(
    result: WallResult,
    job: WallJob,
    console: Console,
    seconds: float,
    notes_on_scan: Sequence[str] = (),
    notes_on_labels: Sequence[str] = (),
) -> None:
    """Print a scan's burden, the method, the notes on scan and wall, and the paths of the scan's files.

    Args:
        notes_on_labels: the notes on segmentation and openings, for the JSON event `wall`. The caller has printed these
            notes already.
    """
    burdens = result.burdens()
    console.print_event(
        "wall",
        scan=str(job.scan),
        method=result.settings.threshold.name,
        threshold_ratio=result.threshold_ratio(),
        sample=result.settings.sample,
        from_mm=result.settings.from_mm,
        to_mm=result.settings.to_mm,
        blood_pool={"mean": result.pool.mean, "sd": result.pool.sd, "voxels": result.pool.voxels},
        burden=[
            {
                "region": row.region,
                "wall_cm2": row.wall_cm2,
                "enhanced_cm2": row.enhanced_cm2,
                "percent": row.percent,
            }
            for row in burdens
        ],
        stage=result.stage,
        openings_cm2=result.area_cm2(OPENING),
        openings="proposed" if result.proposed else "given",
        border_cm2=result.area_cm2(BORDER),
        notes=[*notes_on_labels, *notes_on_scan, *result.notes],
        surface=str(job.wall_surface),
        mesh=str(job.surface_without_scalars) if job.surface_without_scalars is not None else None,
        table=str(job.table),
        report=str(job.report) if job.report is not None else None,
        remark=METHODS_DISAGREE,
        seconds=round(seconds, 3),
    )
    whole = burdens[0]
    lines = [
        f"{job.name}: {whole.percent_text}% of the wall enhanced, {whole.enhanced_cm2:.1f} of {whole.wall_cm2:.1f} cm²"
        f" (stage {result.stage} by DECAAF's bounds)",
        f"{job.name}: method {method_text(result)}",
        f"{job.name}: "
        + ", ".join(f"{row.region} {row.percent:.0f}%" for row in burdens if row.region != WHOLE and row.wall_cm2 > 0),
        *(f"{job.name}: {note}" for note in (*notes_on_scan, *result.notes)),
        f"wall: {job.wall_surface}, {job.table}",
        *([f"surface: {job.surface_without_scalars}"] if job.surface_without_scalars is not None else []),
        *([f"report: {job.report}"] if job.report is not None else []),
    ]
    console.print_text(*lines)
