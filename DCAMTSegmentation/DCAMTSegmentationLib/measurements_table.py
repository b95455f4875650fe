"""Show a result's measurements in a table node, and write them to a CSV file or as text for the clipboard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import vtk
from dcamt.errors import fixed_number
from dcamt.io.atomic import atomic_path
from dcamt.io.tables import csv_cell
from dcamt.metrics.measurements import MEASUREMENT_COLUMNS, Measurements
from DCAMTSlicerLib.node_types import TableNode, VolumeNode
from slicer.i18n import tr as _

_SCAN = "DCAMT.scan"
"""Attribute of a table node: the scan's name that `fill_table` or `store_scan_name` wrote into the column `scan`."""
TEXT_COLUMNS = ("scan", "segment")
DECIMALS = {"sphericity": 3}
"""Number of decimals by column; all other columns have two.

More decimals would suggest an accuracy that measurements on voxels do not have."""


def column_titles() -> dict[str, str]:
    """Return the title of each column by the column's name."""
    return {
        "scan": _("Scan"),
        "segment": _("Segment"),
        "volume_ml": _("Volume (mL)"),
        "surface_cm2": _("Surface (cm²)"),
        "long_diameter_mm": _("Long diameter (mm)"),
        "anteroposterior_diameter_mm": _("Antero-posterior (mm)"),
        "transverse_diameter_mm": _("Transverse (mm)"),
        "sphericity": _("Sphericity"),
    }


def fill_table(node: TableNode, rows: Sequence[Measurements]) -> None:
    """Replace the content of a table node with measurements, one row for each segment.

    Numbers are stored as text with a fixed number of decimals, because a table view shows text unchanged.
    """
    titles = column_titles()
    set_text_columns(node, titles, {column: [_text_of(row, column) for row in rows] for column in titles})
    node.SetAttribute(_SCAN, rows[0].scan if rows else None)


def set_text_columns(node: TableNode, titles: Mapping[str, str], cells: Mapping[str, Sequence[str]]) -> None:
    """Replace the columns of a table node."""
    node.RemoveAllColumns()
    for name, title in titles.items():
        array = vtk.vtkStringArray()
        array.SetName(name)
        for cell in cells[name]:
            array.InsertNextValue(cell)
        node.AddColumn(array)
        node.SetColumnTitle(name, title)
    node.SetUseColumnTitleAsColumnHeader(True)


def rows_of(node: TableNode, volume: VolumeNode | None) -> list[dict[str, str]]:
    """Return the measurements in a table node as text; undefined values and removed columns are empty.

    Args:
        volume: the measured scan; None if the scan is no longer in the scene. The scan's present name replaces the name
            that `fill_table` wrote. A name that the user typed into the table stays.
    """
    table = node.GetTable()
    rows = [
        {column: _cell(table, row, column) for column in MEASUREMENT_COLUMNS} for row in range(table.GetNumberOfRows())
    ]
    for row in rows:
        if volume is not None and row["scan"] == node.GetAttribute(_SCAN):
            row["scan"] = volume.GetName()
    return rows


def store_scan_name(node: TableNode, name: str) -> None:
    """Write the scan's present `name` into a table node, in place of the name that `fill_table` wrote.

    Call this function before the scan is removed: without the scan, `rows_of` returns the name in the table.
    """
    table, before = node.GetTable(), node.GetAttribute(_SCAN)
    if before in (None, name):
        return
    for row in range(table.GetNumberOfRows()):
        if _cell(table, row, "scan") == before:
            table.SetValueByName(row, "scan", name)
    node.SetAttribute(_SCAN, name)
    table.Modified()


def export_csv(node: TableNode, volume: VolumeNode | None, path: Path) -> None:
    """Write a table node's measurements (`rows_of`) to a CSV file with `MEASUREMENT_COLUMNS`.

    The file of `dcamt segment --measurements` begins with the same columns.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, MEASUREMENT_COLUMNS)
        writer.writeheader()
        writer.writerows(rows_of(node, volume))


def as_text(node: TableNode, volume: VolumeNode | None) -> str:
    """Return a table's measurements (`rows_of`) as text with a header and tabs between cells, for a spreadsheet."""
    buffer, titles = io.StringIO(), column_titles()
    writer = csv.writer(buffer, "excel-tab", lineterminator="\n")
    writer.writerow([titles[column] for column in MEASUREMENT_COLUMNS])
    writer.writerows(row.values() for row in rows_of(node, volume))
    return buffer.getvalue()


def table_name(volume: VolumeNode) -> str:
    """Return the name of the table with a volume's measurements."""
    return str(_("{volume} measurements").format(volume=volume.GetName()))


def _text_of(row: Measurements, column: str) -> str:
    value = getattr(row, column)
    if column in TEXT_COLUMNS:
        return str(value or "")
    return "" if isnan(value) else fixed_number(value, DECIMALS.get(column, 2))


def _cell(table: Any, row: int, column: str) -> str:
    value = table.GetValueByName(row, column)
    if not value.IsValid():
        return ""
    # In tables of older versions of DCAMT, measurements are numbers, not text.
    return str(value.ToString()) if value.IsString() else csv_cell(value.ToDouble())
