"""Provide the Qt table model of the case table; cells are computed on demand, so that long tables stay fast."""
# ruff: noqa: N802

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import qt
import slicer
from dcamt.cases.case_list import LABELLED, LEFT_OUT, ROLES_WITH_LABEL, UNLABELLED, VALIDATION
from DCAMTSlicerLib.plain_text import tooltip
from slicer.i18n import tr as _

from .rows import ALL_ROLES, CaseRow, CaseTable, FileScan

NAME, ROLE, REMARK, SIZE, SPACING, IMAGE, LABEL = range(7)
"""Column numbers. The panel is too narrow for all columns, so columns that the user changes or must read come first."""


class CaseTableModel(qt.QAbstractTableModel):
    """Table model of a `CaseTable`; forwards the table's changes to the views."""

    def __init__(self, table: CaseTable) -> None:
        qt.QAbstractTableModel.__init__(self)
        self._table = table
        self._length = len(table)
        self._folder = common_folder(_files(table))
        table.on_reset.append(self._on_reset)
        table.on_changed.append(self._on_changed)

    def rowCount(self, parent: Any = None) -> int:
        return self._length

    def columnCount(self, parent: Any = None) -> int:
        return 7

    def headerData(self, section: int, orientation: int, role: int = 0) -> Any:
        if role != qt.Qt.DisplayRole:
            return None
        return column_titles()[section] if orientation == qt.Qt.Horizontal else section + 1

    def data(self, index: Any, role: int = 0) -> Any:
        row = self._table.rows[index.row()]
        if role == qt.Qt.DisplayRole:
            return cell(row, index.column(), self._folder)
        if role == qt.Qt.ToolTipRole:
            lines = [cell(row, index.column())] if index.column() != REMARK else []
            return tooltip("\n".join(filter(None, [*lines, row.remark, row.note])))
        if role == qt.Qt.ForegroundRole and row.remark and index.column() in (NAME, REMARK):
            return qt.QBrush(qt.QColor(200, 40, 40))
        return None

    def _on_reset(self) -> None:
        self.beginResetModel()
        self._length = len(self._table)
        self._folder = common_folder(_files(self._table))
        self.endResetModel()

    def _on_changed(self, first: int, last: int) -> None:
        self.dataChanged.emit(self.index(first, NAME), self.index(last, LABEL))


def column_titles() -> tuple[str, ...]:
    """Return the column headers in the order of the column numbers."""
    return (_("Name"), _("Role"), _("Remark"), _("Size"), _("Spacing (mm)"), _("Image"), _("Label"))


def role_title(role: str) -> str:
    """Return the translated name of a role."""
    return str(
        {
            LABELLED: _("labelled"),
            UNLABELLED: _("unlabelled"),
            VALIDATION: _("validation"),
            LEFT_OUT: _("left out"),
        }[role]
    )


def next_role(row: CaseRow) -> str:
    """Return the next role in `ALL_ROLES` that a row can have; the first role follows the last."""
    possible = [role for role in ALL_ROLES if row.has_label or role not in ROLES_WITH_LABEL]
    return possible[(possible.index(row.role) + 1) % len(possible)] if row.role in possible else possible[0]


def cell(row: CaseRow, column: int, folder: str = "") -> str:
    """Return the text of a cell; paths of files in `folder` are relative to it."""
    source = row.source
    if column == NAME:
        return row.name
    if column == ROLE:
        return role_title(row.role)
    if column == REMARK:
        return row.remark or row.note
    if column == SIZE:
        return "×".join(map(str, row.size)) if row.size else ""
    if column == SPACING:
        return spacing_text(row.spacing) if row.spacing else ""
    if not isinstance(source, FileScan):
        text = _node_name(source.volume if column == IMAGE else source.segmentation)
    elif column == IMAGE:
        text = source.image
    else:
        text = f"{source.label} ({source.labels})" if source.labels else source.label
    return relative_path(text, folder)


def spacing_text(spacing: tuple[float, ...]) -> str:
    """Return the spacing in mm: `0.625×0.625×2.500`, or only `0.625` if all axes are alike."""
    texts = [f"{mm:.3f}" for mm in spacing]
    return texts[0] if len(set(texts)) == 1 else "×".join(texts)


def _node_name(identifier: str) -> str:
    node = slicer.mrmlScene.GetNodeByID(identifier)
    return _("{name} (in the scene)").format(name=node.GetName()) if node is not None else ""


def common_folder(paths: Sequence[str]) -> str:
    """Return the deepest folder that contains all files, with forward slashes; empty if there is none."""
    if not paths:
        return ""
    # The common folder of the alphabetically first and last path contains all paths.
    folders = [os.path.dirname(min(paths)), os.path.dirname(max(paths))]
    try:
        return os.path.commonpath(folders).replace("\\", "/")
    except ValueError:  # The files lie on several drives.
        return ""


def relative_path(path: str, folder: str) -> str:
    """Return a path with forward slashes, relative to `folder` if it lies there; unchanged if `folder` is empty."""
    return path.replace("\\", "/").removeprefix(folder.rstrip("/") + "/") if folder else path


def _files(table: CaseTable) -> list[str]:
    sources = [row.source for row in table.rows if isinstance(row.source, FileScan)]
    return [path for source in sources for path in (source.image, source.label) if path]
