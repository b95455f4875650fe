"""Complete and write the table of measurements of `dcamt segment`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import DCAMTError, InputError
from ..io.dicom_files import list_names
from ..io.locks import table_lock
from ..io.readers import read_labelmap
from ..io.tables import csv_cell
from ..metrics.measurements import (
    MEASUREMENT_COLUMNS,
    Measurements,
    measure,
    read_measurements_csv,
    without_equal_rows,
    write_measurements_csv,
)
from ..volume import SegmentInfo
from .console import Console
from .result_files import describe_removed_rows, foreign_files, write_beside
from .scan_jobs import ScanJob


def remove_outdated_rows(
    table: Path, jobs: Iterable[ScanJob], segments: Sequence[SegmentInfo], console: Console
) -> None:
    """Remove the rows of segmentations that were replaced or corrected after their rows were written.

    A command that was killed, or had no option `--measurements`, may have replaced a segmentation but not its rows.

    Raises:
        InputError: the table is another kind of table or cannot be read.
        OutputError: the table cannot be written.
    """
    rows_of_scan: defaultdict[str, list[Measurements]] = defaultdict(list)
    for row in read_measurements_csv(table):
        rows_of_scan[row.scan].append(row)
    # If a name has two rows of one segment, there may be scans of this name in different folders.
    ambiguous = {name for name, rows in rows_of_scan.items() if len({row.segment for row in rows}) < len(rows)}
    existing = {csv_cell(job.name): job for job in jobs if os.path.exists(job.segmentation)}
    foreign = {name for name in existing.keys() - ambiguous if foreign_files([existing[name].segmentation])}
    listed = (existing.keys() & rows_of_scan.keys()) - ambiguous
    written = os.path.getmtime(table) if listed else 0.0
    newer = {name for name in listed if os.path.getmtime(existing[name].segmentation) > written}
    to_compare = (foreign & listed) | newer
    outdated = {name for name in to_compare if _differs(existing[name], rows_of_scan[name], segments)}
    if outdated:
        with table_lock(table):
            kept = [row for row in read_measurements_csv(table) if row.scan not in outdated]
            write_measurements_csv(kept, table)
        names = list_names(sorted(outdated))
        what = f"has out-of-date rows of {names}, since the segmentations now have other measurements"
        console.print_error(f"{table}: {what}. These rows are removed.")
    if without_rows := foreign - (listed - outdated):
        names = list_names(sorted(without_rows))
        what = f"has no rows of {names}, since the segmentations have no valid mark of DCAMT"
        remedy = "'dcamt picture SCAN SEGMENTATION -o FILE.png' shows the measurements of such a segmentation."
        console.print_error(f"{table}: {what}. {remedy}")


def _differs(job: ScanJob, rows: Iterable[Measurements], segments: Sequence[SegmentInfo]) -> bool:
    try:
        measured = measure(read_labelmap(job.segmentation), segments, job.name)
    except DCAMTError:
        return False
    known = {row.segment: row for row in rows}
    return any(row.segment not in known or not _are_close(row, known[row.segment]) for row in measured)


def _are_close(row: Measurements, listed: Measurements) -> bool:
    """Return whether two rows are equal up to rounding; `expected_overlap` and blank cells of `listed` are ignored."""
    own, others = (np.array([getattr(one, column) for column in MEASUREMENT_COLUMNS[2:]]) for one in (row, listed))
    return bool(np.all(np.isnan(others) | np.isclose(own, others, rtol=1e-4, atol=0)))


def measure_unlisted_segmentations(
    table: Path,
    jobs: Sequence[ScanJob],
    segments: Sequence[SegmentInfo],
    rows: list[Measurements],
    console: Console,
) -> None:
    """Measure the segmentations that have no row in the table, and append the new rows to `rows`.

    A segmentation that is no DCAMT result is not measured; a segmentation that cannot be read causes a message.

    Raises InputError if the table is another kind of table or cannot be read.
    """
    listed = {row.scan for row in read_measurements_csv(table)}
    measured = 0
    for number, job in enumerate(jobs):
        console.show_progress("measuring the segmentations that the table lacks", number / len(jobs))
        if csv_cell(job.name) in listed or not os.path.exists(job.segmentation) or foreign_files([job.segmentation]):
            continue
        try:
            rows += measure(read_labelmap(job.segmentation), segments, job.name)
            measured += 1
        except DCAMTError as error:
            console.print_error(str(error))
    if measured:
        added = f"scans added from existing segmentations: {measured}"
        console.print_error(f"{table}: {added}. Their expected overlap is unknown.")


def _rows_if_readable(table: Path) -> list[Measurements]:
    try:
        return read_measurements_csv(table)
    except InputError:
        return []


def write_measurement_table(
    table: Path,
    rows: Sequence[Measurements],
    unlisted: Sequence[Measurements],
    kept_scans: Collection[str] | None,
    console: Console,
) -> bool:
    """Write the table; if that fails, print the error, and write the new rows beside the table.

    Args:
        rows: the measurements of this command's scans.
        unlisted: the rows from `measure_unlisted_segmentations`.
        kept_scans: the scans whose earlier rows are kept; None for all scans.

    Returns:
        whether the table was written.
    """
    try:
        with table_lock(table):
            found = read_measurements_csv(table) if kept_scans is None else _rows_if_readable(table)
            earlier = [row for row in found if kept_scans is None or row.scan in kept_scans]
            listed = {row.scan for row in earlier}
            added = [row for row in unlisted if csv_cell(row.scan) not in listed]
            kept = without_equal_rows(earlier, rows)
            write_measurements_csv([*kept, *added, *rows], table)
    except DCAMTError as error:
        write = partial(write_measurements_csv, [*unlisted, *rows])
        console.print_error(str(write_beside(table, error, write)))
        return False
    written = {csv_cell(row.scan) for row in rows}
    if removed := {row.scan for row in found} - {row.scan for row in kept} - written:
        console.print_error(describe_removed_rows(table, removed))
    # Scans in different folders can have the same name, so the earlier rows are not deleted.
    if doubled := sorted({row.scan for row in kept} & written):
        remedy = "Delete the rows that are out of date."
        console.print_error(f"{table}: has earlier, different rows of {', '.join(doubled)}. {remedy}")
    return True
