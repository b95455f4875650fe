"""Write the wall's surfaces, tables and `.npz` files; read tables and `.npz` files."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError, write_error
from ..io.surfaces import write_mesh
from ..io.tables import csv_cell, write_table
from ..io.typed_json import parse_json
from .analysis import WallResult
from .burden import BORDER, OPENING, REGIONS, WHOLE, Burden, decaaf_stage
from .sampling import BloodPool
from .settings import METHODS_DISAGREE, PRESETS, Threshold, WallSettings, parse_threshold
from .surface import Surface

WALL_COLUMNS = (
    "scan",
    "method",
    "threshold_ratio",
    "sample",
    "from_mm",
    "to_mm",
    "region",
    "wall_cm2",
    "enhanced_cm2",
    "burden_percent",
    "stage",
    "blood_pool_mean",
    "blood_pool_sd",
    "blood_pool_voxels",
    "openings_cm2",
    "openings",
    "border_cm2",
    "remark",
)
"""A scan has rows for the whole wall and each region at the chosen threshold, then a row for the whole wall at each
preset that was not chosen. Rows of a region have no stage."""
_LATER_COLUMNS = slice(WALL_COLUMNS.index("from_mm"), WALL_COLUMNS.index("to_mm") + 1)
_EARLIER_COLUMNS = (*WALL_COLUMNS[: _LATER_COLUMNS.start], *WALL_COLUMNS[_LATER_COLUMNS.stop :])
"""The columns of tables that earlier versions of DCAMT wrote."""


def write_wall_surface(result: WallResult, path: str | Path) -> None:
    """Write the surface in LPS mm with `write_mesh`; a `.vtp` file also gets the method and scalars.

    The scalars are ratio, enhanced, opening (0 for wall, 1 for an opening, 2 for points too near the scan's border) and
    region (an index into `burden.REGIONS`).

    Raises:
        InputError, OutputError: as `write_mesh`.
    """
    write_mesh(
        result.surface.points,
        result.surface.triangles,
        path,
        {
            "ratio": result.ratio.astype(np.float32),
            "enhanced": result.enhanced().astype(np.uint8),
            "opening": result.kind,
            "region": result.region,
        },
        {"method": method_text(result), "regions": ",".join(REGIONS), "remark": METHODS_DISAGREE},
    )


def write_wall(result: WallResult, path: Path) -> None:
    """Write a wall as a `.npz` file for `read_wall`. Raises OutputError if the file cannot be written."""
    try:
        np.savez(
            path,
            points=result.surface.points,
            triangles=result.surface.triangles,
            ratio=result.ratio,
            kind=result.kind,
            region=result.region,
            facts=wall_facts(result),
        )
    except OSError as error:
        raise write_error(error, path) from error


def wall_facts(result: WallResult) -> str:
    """Return the attributes of a `WallResult`, except the surface and the arrays, as JSON text."""
    settings, pool = result.settings, result.pool
    return json.dumps(
        {
            "scan": result.scan,
            "threshold": settings.threshold.name,
            "sample": settings.sample,
            "from_mm": settings.from_mm,
            "to_mm": settings.to_mm,
            "pool": [pool.mean, pool.sd, pool.voxels],
            "proposed": result.proposed,
            "notes": list(result.notes),
        }
    )


def read_wall(path: Path) -> WallResult:
    """Return the wall in a file of `write_wall`. Raises InputError if the file cannot be read or is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            surface = Surface(stored["points"], stored["triangles"])
            return wall_of(surface, stored["ratio"], stored["kind"], stored["region"], str(stored["facts"]))
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"could not be read ({reason})", path=path, remedy="Measure the wall again.") from error
    except MemoryError:
        raise
    except Exception as error:  # zipfile and numpy raise errors of many types for a damaged file
        raise InputError("is damaged", path=path, remedy="Measure the wall again.") from error


def wall_of(surface: Surface, ratio: np.ndarray, kind: np.ndarray, region: np.ndarray, facts: str) -> WallResult:
    """Build a wall from a surface of N points, arrays (N,), and the JSON text of `wall_facts`."""
    known = parse_json(facts)
    mean, sd, voxels = known["pool"]
    threshold = parse_threshold(known["threshold"])
    settings = WallSettings(threshold, known["sample"], known["from_mm"], known["to_mm"])
    pool = BloodPool(float(mean), float(sd), int(voxels))
    notes = tuple(known["notes"])
    return WallResult(known["scan"], settings, surface, pool, ratio, kind, region, bool(known["proposed"]), notes)


def method_text(result: WallResult, threshold: Threshold | None = None) -> str:
    """Return the method: "IIR > 1.2 (ratio 1.200), maximum intensity from -1 to 3 mm along the surface's normal"."""
    settings = result.settings
    threshold = threshold or settings.threshold
    where = f"{settings.sample} intensity from {settings.from_mm:g} to {settings.to_mm:g} mm"
    return f"{threshold.text} (ratio {result.threshold_ratio(threshold):.3f}), {where} along the surface's normal"


def is_wall_table(path: Path) -> bool:
    """Return whether a file has the header of a table that `write_wall_csv` wrote.

    False if the file begins with a byte order mark: another program, such as Excel, has saved the table.
    """
    return has_wall_columns(path, "utf-8")


def has_wall_columns(path: Path, encoding: str = "utf-8-sig") -> bool:
    """Return whether a file has the header that `read_wall_rows` accepts.

    Args:
        encoding: "utf-8-sig" accepts a byte order mark, "utf-8" does not.
    """
    return _columns_of(path, encoding) in (WALL_COLUMNS, _EARLIER_COLUMNS)


def _columns_of(path: Path, encoding: str = "utf-8-sig") -> tuple[str, ...]:
    try:
        with open(path, newline="", encoding=encoding) as file:
            return tuple(next(csv.reader(file), []))
    except (OSError, ValueError, csv.Error):
        return ()


def read_wall_rows(path: Path) -> list[list[str]]:
    """Return the rows of a table of `write_wall_csv` as text; [] if the file does not exist.

    A table that an earlier version wrote lacks `from_mm` and `to_mm`. Its rows get empty text in these columns.

    Raises InputError if the file is another kind of table or cannot be read.
    """
    if not path.exists():
        return []
    if not has_wall_columns(path):
        raise InputError(
            "is not a table of wall measurements", path=path, remedy="Move the file, or replace it with --overwrite."
        )
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            columns, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        remedy = "Move the file, or replace it with --overwrite."
        raise InputError(
            f"cannot be read as a table of wall measurements ({error})", path=path, remedy=remedy
        ) from error
    if tuple(columns) == _EARLIER_COLUMNS:
        for row in filter(None, rows):
            row[_LATER_COLUMNS.start : _LATER_COLUMNS.start] = ["", ""]
    return rows


def has_same_rows(path: Path, result: WallResult) -> bool:
    """Return whether a table has the rows of a result.

    If an earlier version wrote the table, `from_mm` and `to_mm` are not compared.

    Raises InputError as `read_wall_rows` does.
    """
    new = _table_rows(result)
    if _columns_of(path) == _EARLIER_COLUMNS:
        for row in new:
            row[_LATER_COLUMNS] = ["", ""]
    return read_wall_rows(path) == new


def write_wall_csv(results: Sequence[WallResult], path: str | Path, earlier: Sequence[Sequence[str]] = ()) -> None:
    """Write the burdens of scans as a table; `WALL_COLUMNS` describes its columns and rows.

    Raises OutputError if the file cannot be written; an earlier file of that name then stays unchanged.

    Args:
        earlier: rows from `read_wall_rows`. Rows of scans that are not in `results` are kept and come first.
    """
    measured = {csv_cell(result.scan) for result in results}
    kept = [row for row in earlier if row and row[0] not in measured]
    write_table(path, WALL_COLUMNS, [*kept, *(row for result in results for row in _table_rows(result))])


def _table_rows(result: WallResult) -> list[list[str]]:
    """Return the rows for a scan as text."""
    chosen = result.settings.threshold
    others = [preset.threshold for preset in PRESETS if preset.threshold != chosen]
    rows = [_row(result, chosen, burden) for burden in result.burdens()]
    return rows + [_row(result, other, result.burdens(other)[0]) for other in others]


def _row(result: WallResult, threshold: Threshold, burden: Burden) -> list[str]:
    values: Sequence[str | float | int] = (
        result.scan,
        threshold.name,
        result.threshold_ratio(threshold),
        result.settings.sample,
        result.settings.from_mm,
        result.settings.to_mm,
        burden.region,
        burden.wall_cm2,
        burden.enhanced_cm2,
        burden.percent,
        decaaf_stage(burden.percent) if burden.region == WHOLE else "",
        result.pool.mean,
        result.pool.sd,
        result.pool.voxels,
        result.area_cm2(OPENING),
        "proposed" if result.proposed else "given",
        result.area_cm2(BORDER),
        METHODS_DISAGREE,
    )
    return [csv_cell(value) for value in values]
