"""Write tables as CSV files."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from .atomic import atomic_path


def write_table(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> None:
    """Write a CSV file in UTF-8 with the header `columns` and cells formatted by `csv_cell`.

    Raises:
        OutputError: the file cannot be written; an earlier file of that name stays unchanged.
    """
    with (
        atomic_path(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([csv_cell(value) for value in row])


def csv_cell(value: str | float | None) -> str:
    """Return the text of a table cell: floats have at most six significant digits; NaN and None are empty.

    Bytes of a file name that are not UTF-8 become escape sequences, such as `\\udcff`.

    >>> csv_cell(1 / 3), csv_cell(12), csv_cell(float("nan")), csv_cell("x")
    ('0.333333', '12', '', 'x')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value).encode("utf-8", "backslashreplace").decode()
