"""Read and write case lists, the CSV files of `dcamt train`."""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterable
from pathlib import Path

from dcamt.cases.case_list import CASE_COLUMNS, LABELS_COLUMN, Case, OnNote, check_encoding, iterate_cases, write_cases
from dcamt.io.atomic import atomic_path

from .rows import CaseRow, FileScan
from .store import ROWS_PER_STEP


def row_of_case(case: Case) -> CaseRow:
    """Return the row of a case whose scan is a file."""
    return CaseRow(case.name, FileScan(str(case.image), str(case.label or ""), case.labels), case.role)


def read_rows_in_steps(path: Path, on_note: OnNote) -> Generator[None, None, list[CaseRow]]:
    """Return the rows of a case list (`iterate_cases`); raise InputError if the file or a line cannot be read."""
    rows = []
    for number, case in enumerate(iterate_cases(path, on_note), start=1):
        rows.append(row_of_case(case))
        if number % ROWS_PER_STEP == 0:
            yield
    return rows


def write_rows(rows: Iterable[CaseRow], path: Path) -> int:
    """Write a case list of the rows whose source is a `FileScan`; return the number of omitted rows.

    Raises:
        InputError: a path, a name or a label mapping is not UTF-8.
        OutputError: the file cannot be written.
    """
    cases, omitted = [], 0
    for row in rows:
        if isinstance(row.source, FileScan):
            label = Path(row.source.label) if row.source.label else None
            cases.append(Case(row.name, Path(row.source.image), label, row.role, row.source.labels))
        else:
            omitted += 1
    write_cases(cases, path)
    return omitted


def write_list(cases: Iterable[Case], path: Path) -> None:
    """Write cases as a list for a child process; raise the errors of `write_lines`."""
    write_lines(((case.name, str(case.image), str(case.label or ""), case.role, case.labels) for case in cases), path)


def write_lines(lines: Iterable[tuple[str, str, str, str, str]], path: Path) -> None:
    """Write a case list; each line holds a name, image, label, role and label mapping.

    Paths are written unchanged. `write_cases` makes paths relative, which takes long for thousands of cases.

    Raises:
        InputError: a path, a name or a label mapping is not UTF-8.
        OutputError: the file cannot be written.
    """
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*CASE_COLUMNS, LABELS_COLUMN])
        for line in lines:
            check_encoding(line[1], line)
            writer.writerow(line)
