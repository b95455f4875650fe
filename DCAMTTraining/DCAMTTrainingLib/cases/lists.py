"""Case lists for a child process: with whole paths, since to make ten thousand of them relative takes a second."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from dcamt.cases.case_list import COLUMNS, Case
from dcamt.io.atomic import atomic_path


def write_list(cases: Iterable[Case], path: Path) -> None:
    """Write cases as `dcamt` reads them; raises OutputError if the file cannot be written."""
    write_lines(((case.name, str(case.image), str(case.label or ""), case.role) for case in cases), path)


def write_lines(lines: Iterable[tuple[str, str, str, str]], path: Path) -> None:
    """`write_list` for lines of name, image, label (or an empty text) and role."""
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(lines)
